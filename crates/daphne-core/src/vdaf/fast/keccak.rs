//! The permutation of TurboSHAKE: Keccak-p\[1600, 12\], RFC 9861 §2.
//!
//! All 25 lanes are values of their own, and a round is written out, so that none is in memory but for want of registers.
//! Neither branches nor addresses depend on the state.

/// Lanes of the state, of 64 bits each.
pub(super) const LANES: usize = 25;

/// The constants of the last 12 of Keccak's 24 rounds.
const ROUNDS: [u64; 12] = [
    0x0000_0000_8000_808b,
    0x8000_0000_0000_008b,
    0x8000_0000_0000_8089,
    0x8000_0000_0000_8003,
    0x8000_0000_0000_8002,
    0x8000_0000_0000_0080,
    0x0000_0000_0000_800a,
    0x8000_0000_8000_000a,
    0x8000_0000_8000_8081,
    0x8000_0000_0000_8080,
    0x0000_0000_8000_0001,
    0x8000_0000_8000_8008,
];

/// Permutes the state.
pub(super) fn permute(state: &mut [u64; LANES]) {
    let [
        mut a0,
        mut a1,
        mut a2,
        mut a3,
        mut a4,
        mut a5,
        mut a6,
        mut a7,
        mut a8,
        mut a9,
        mut a10,
        mut a11,
        mut a12,
        mut a13,
        mut a14,
        mut a15,
        mut a16,
        mut a17,
        mut a18,
        mut a19,
        mut a20,
        mut a21,
        mut a22,
        mut a23,
        mut a24,
    ] = *state;
    for constant in ROUNDS {
        // Theta: each lane takes in the parities of two columns.
        let c0 = a0 ^ a5 ^ a10 ^ a15 ^ a20;
        let c1 = a1 ^ a6 ^ a11 ^ a16 ^ a21;
        let c2 = a2 ^ a7 ^ a12 ^ a17 ^ a22;
        let c3 = a3 ^ a8 ^ a13 ^ a18 ^ a23;
        let c4 = a4 ^ a9 ^ a14 ^ a19 ^ a24;
        let d0 = c4 ^ c1.rotate_left(1);
        let d1 = c0 ^ c2.rotate_left(1);
        let d2 = c1 ^ c3.rotate_left(1);
        let d3 = c2 ^ c4.rotate_left(1);
        let d4 = c3 ^ c0.rotate_left(1);
        // Rho and pi move the lanes of each new row together, and chi mixes them.
        let (b0, b1, b2, b3, b4) = (
            a0 ^ d0,
            (a6 ^ d1).rotate_left(44),
            (a12 ^ d2).rotate_left(43),
            (a18 ^ d3).rotate_left(21),
            (a24 ^ d4).rotate_left(14),
        );
        let e0 = b0 ^ (!b1 & b2) ^ constant;
        let e1 = b1 ^ (!b2 & b3);
        let e2 = b2 ^ (!b3 & b4);
        let e3 = b3 ^ (!b4 & b0);
        let e4 = b4 ^ (!b0 & b1);
        let (b0, b1, b2, b3, b4) = (
            (a3 ^ d3).rotate_left(28),
            (a9 ^ d4).rotate_left(20),
            (a10 ^ d0).rotate_left(3),
            (a16 ^ d1).rotate_left(45),
            (a22 ^ d2).rotate_left(61),
        );
        let e5 = b0 ^ (!b1 & b2);
        let e6 = b1 ^ (!b2 & b3);
        let e7 = b2 ^ (!b3 & b4);
        let e8 = b3 ^ (!b4 & b0);
        let e9 = b4 ^ (!b0 & b1);
        let (b0, b1, b2, b3, b4) = (
            (a1 ^ d1).rotate_left(1),
            (a7 ^ d2).rotate_left(6),
            (a13 ^ d3).rotate_left(25),
            (a19 ^ d4).rotate_left(8),
            (a20 ^ d0).rotate_left(18),
        );
        let e10 = b0 ^ (!b1 & b2);
        let e11 = b1 ^ (!b2 & b3);
        let e12 = b2 ^ (!b3 & b4);
        let e13 = b3 ^ (!b4 & b0);
        let e14 = b4 ^ (!b0 & b1);
        let (b0, b1, b2, b3, b4) = (
            (a4 ^ d4).rotate_left(27),
            (a5 ^ d0).rotate_left(36),
            (a11 ^ d1).rotate_left(10),
            (a17 ^ d2).rotate_left(15),
            (a23 ^ d3).rotate_left(56),
        );
        let e15 = b0 ^ (!b1 & b2);
        let e16 = b1 ^ (!b2 & b3);
        let e17 = b2 ^ (!b3 & b4);
        let e18 = b3 ^ (!b4 & b0);
        let e19 = b4 ^ (!b0 & b1);
        let (b0, b1, b2, b3, b4) = (
            (a2 ^ d2).rotate_left(62),
            (a8 ^ d3).rotate_left(55),
            (a14 ^ d4).rotate_left(39),
            (a15 ^ d0).rotate_left(41),
            (a21 ^ d1).rotate_left(2),
        );
        (a0, a1, a2, a3, a4) = (e0, e1, e2, e3, e4);
        (a5, a6, a7, a8, a9) = (e5, e6, e7, e8, e9);
        (a10, a11, a12, a13, a14) = (e10, e11, e12, e13, e14);
        (a15, a16, a17, a18, a19) = (e15, e16, e17, e18, e19);
        a20 = b0 ^ (!b1 & b2);
        a21 = b1 ^ (!b2 & b3);
        a22 = b2 ^ (!b3 & b4);
        a23 = b3 ^ (!b4 & b0);
        a24 = b4 ^ (!b0 & b1);
    }
    *state = [
        a0, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12, a13, a14, a15, a16, a17, a18, a19,
        a20, a21, a22, a23, a24,
    ];
}
