//! Encapsulated keys of X25519 that implementations have disagreed about.

/// Points of low order, coordinates that are not reduced modulo 2^255 - 19, and points of curve and twist, each also with the
/// highest bit, which X25519 ignores. 32 bytes each. RFC 7748 §5, §6.1.
pub fn hostile_points() -> Vec<[u8; 32]> {
    // Of low order, but for p - 1.
    let [zero, one] = [0, 1].map(small);
    let eighths = [
        *b"\xe0\xeb\x7a\x7c\x3b\x41\xb8\xae\x16\x56\xe3\xfa\xf1\x9f\xc4\x6a\xda\x09\x8d\xeb\x9c\x32\xb1\xfd\x86\x62\x05\x16\x5f\x49\xb8\x00",
        *b"\x5f\x9c\x95\xbc\xa3\x50\x8c\x24\xb1\xd0\xb1\x55\x9c\x83\xef\x5b\x04\x44\x5c\xc4\x58\x1c\x8e\x86\xd8\x22\x4e\xdd\xd0\x9f\x11\x57",
    ];
    let mut points = vec![zero, one, eighths[0], eighths[1]];
    // p - 1, of order 4, and all that are not reduced: p, which is 0, to p + 18.
    points.extend((0xec..=0xff).map(|lowest| {
        let mut point = [0xff; 32];
        (point[0], point[31]) = (lowest, 0x7f);
        point
    }));
    // The base point, what is congruent to small numbers but for the highest bit, and a few of either curve.
    points.extend((2..20).map(small));
    points.extend((0x20..0x40).map(|byte| [byte; 32]));
    let with_highest_bit = points.clone().into_iter().map(|mut point| {
        point[31] |= 0x80;
        point
    });
    points.extend(with_highest_bit);
    points
}

fn small(number: u8) -> [u8; 32] {
    let mut point = [0; 32];
    point[0] = number;
    point
}
