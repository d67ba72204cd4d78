//! Arithmetic on 64-bit words with carries, without branches.

/// Sum of two words and a carry of 0 or 1, and the next carry.
#[inline(always)]
pub(super) const fn add(a: u64, b: u64, carry: u64) -> (u64, u64) {
    let (sum, over) = a.overflowing_add(b);
    let (sum, over_again) = sum.overflowing_add(carry);
    (sum, (over | over_again) as u64)
}

/// Difference of two words and a borrow of 0 or 1, and the next borrow.
#[inline(always)]
pub(super) const fn sub(a: u64, b: u64, borrow: u64) -> (u64, u64) {
    let (difference, under) = a.overflowing_sub(b);
    let (difference, under_again) = difference.overflowing_sub(borrow);
    (difference, (under | under_again) as u64)
}

/// Product of two words, low and high.
#[inline(always)]
pub(super) const fn mul(a: u64, b: u64) -> (u64, u64) {
    if cfg!(target_arch = "wasm32") {
        // A product of 128 bits is a call there, with a detour through memory.
        mul_by_halves(a, b)
    } else {
        let product = a as u128 * b as u128;
        (product as u64, (product >> 64) as u64)
    }
}

/// The same, where no words are multiplied but those of 32 bits.
#[inline(always)]
pub(super) const fn mul_by_halves(a: u64, b: u64) -> (u64, u64) {
    const LOW: u64 = 0xffff_ffff;
    let (a0, a1, b0, b1) = (a & LOW, a >> 32, b & LOW, b >> 32);
    let (p00, p01, p10, p11) = (a0 * b0, a0 * b1, a1 * b0, a1 * b1);
    let middle = (p00 >> 32) + (p01 & LOW) + (p10 & LOW);
    let high = p11 + (p01 >> 32) + (p10 >> 32) + (middle >> 32);
    ((p00 & LOW) | (middle << 32), high)
}

/// All ones for 1, zero for 0.
#[inline(always)]
pub(super) const fn mask(bit: u64) -> u64 {
    0_u64.wrapping_sub(bit)
}
