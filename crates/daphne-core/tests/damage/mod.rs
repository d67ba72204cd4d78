//! Seeded damage to encoded messages, and the bytes that decoding them allocates.

pub mod counting;

use std::ops::Range;

/// SplitMix64.
pub struct Random(pub u64);

impl Random {
    /// Any number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`; 0 if `n` is 0.
    pub fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() >> 32).unwrap_or(0).checked_rem(n).unwrap_or(0)
    }

    /// Any byte.
    pub fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[7]
    }
}

/// Treats `field` as a big-endian number and sets it to 0, the maximum, one more, one less, or `value`.
fn bend(random: &mut Random, field: &mut [u8], value: usize) {
    match random.below(5) {
        0 => field.fill(0),
        1 => field.fill(0xff),
        2 => {
            for byte in field.iter_mut().rev() {
                *byte = byte.wrapping_add(1);
                if *byte != 0 {
                    break;
                }
            }
        }
        3 => {
            for byte in field.iter_mut().rev() {
                *byte = byte.wrapping_sub(1);
                if *byte != 0xff {
                    break;
                }
            }
        }
        _ => {
            let value = (value as u64).to_be_bytes();
            field.copy_from_slice(&value[value.len() - field.len()..]);
        }
    }
}

/// One to four random damages to a copy of `seed` in `out`, of at most `bytes_max`. `prefixes` are where its length
/// prefixes are, as far as known; `other` lends its bytes to splices.
pub fn damage(
    random: &mut Random,
    seed: &[u8],
    prefixes: &[Range<usize>],
    other: &[u8],
    bytes_max: usize,
    out: &mut Vec<u8>,
) {
    out.clear();
    out.extend_from_slice(seed);
    for _ in 0..=random.below(4) {
        let len = out.len();
        let at = random.below(len);
        match random.below(10) {
            // A bit flips.
            0 if len > 0 => out[at] ^= 1 << random.below(8),
            // A byte is set.
            1 if len > 0 => out[at] = [0, 1, 2, 3, 0x7f, 0xff, random.byte()][random.below(7)],
            // The end is cut off.
            2 => out.truncate(at),
            // Bytes follow.
            3 => (0..=random.below(40)).for_each(|_| out.push(random.byte())),
            // A length prefix changes, also to what would make it reach the end exactly.
            4 | 5 if !prefixes.is_empty() => {
                let prefix = prefixes[random.below(prefixes.len())].clone();
                if prefix.end <= len {
                    bend(random, &mut out[prefix.clone()], len - prefix.end);
                }
            }
            // Any number changes.
            6 => {
                let end = len.min(at + [2, 4, 8][random.below(3)]);
                bend(random, &mut out[at..end], len - end);
            }
            // Two messages are spliced.
            7 => {
                out.truncate(at);
                out.extend_from_slice(&other[random.below(other.len())..]);
            }
            // A stretch repeats.
            8 => {
                let end = at + random.below(len - at + 1);
                for _ in 0..=random.below(8) {
                    out.extend_from_within(at..end);
                }
            }
            // Nothing is left of it.
            _ => {
                out.clear();
                (0..random.below(128)).for_each(|_| out.push(random.byte()));
            }
        }
        out.truncate(bytes_max);
    }
}
