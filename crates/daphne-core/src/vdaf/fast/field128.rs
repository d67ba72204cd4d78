//! Field128 of VDAF-08 §6.1 and VDAF-18 §6.1: integers modulo `p = 2^128 - 28·2^64 + 1`.
//!
//! Elements are kept as the integers that they are, in `[0, p)`, so that decoding is a comparison. What exceeds 128 bits is
//! folded: `2^128` is `28·2^64 - 1`, and a product by 28 is cheap. Sums of products are not even folded until they are
//! complete: see [`products`](super::products).

use std::ops::{Add, Mul, Neg, Sub};

use super::{
    field::{Field, assigning},
    products::{Factor, Sum},
    words::{add, mask, mul, sub},
};

/// The modulus.
pub(super) const MODULUS: u128 = 340_282_366_920_938_462_946_865_773_367_900_766_209;
const MODULUS_LOW: u64 = 1;
const MODULUS_HIGH: u64 = u64::MAX - 27;
/// `2^256` modulo it.
const TWO_TO_256: Field128 = Field128::of(0_u64.wrapping_sub(783), 21_895);

/// An element. Secret, more often than not.
#[derive(Clone, Copy)]
pub(in crate::vdaf) struct Field128 {
    low: u64,
    high: u64,
}

impl Field128 {
    const fn of(low: u64, high: u64) -> Self {
        Self { low, high }
    }

    /// The element that is this integer, which must be below [`MODULUS`].
    pub(super) const fn reduced(integer: u128) -> Self {
        Self::of(integer as u64, (integer >> 64) as u64)
    }

    /// The words of the integer that it is.
    #[inline(always)]
    pub(super) const fn words(self) -> [u64; 2] {
        [self.low, self.high]
    }

    /// Of an integer of five words, the highest of which is small.
    #[inline(always)]
    pub(super) fn of_words([t0, t1, t2, t3, t4]: [u64; 5]) -> Self {
        Self::fold([t0, t1, t2, t3]) + TWO_TO_256 * Self::of(t4, 0)
    }
}

/// Product of a word and 28, low and high.
#[inline(always)]
const fn mul_28(a: u64) -> (u64, u64) {
    let low = (a & 0xffff_ffff) * 28;
    let high = (a >> 32) * 28 + (low >> 32);
    ((low & 0xffff_ffff) | (high << 32), high >> 32)
}

impl Field128 {
    /// Of a value below twice the modulus, whose bit 128 is `carry`.
    #[inline(always)]
    const fn reduce(low: u64, high: u64, carry: u64) -> Self {
        let (less_low, borrow) = sub(low, MODULUS_LOW, 0);
        let (less_high, borrow) = sub(high, MODULUS_HIGH, borrow);
        // It was below the modulus if taking that away borrows from beyond the carry.
        let keep = mask(borrow & (carry ^ 1));
        Self::of((low & keep) | (less_low & !keep), (high & keep) | (less_high & !keep))
    }

    /// Of a value of four words. Each fold replaces what is beyond two words, times `2^128`, by that times `28·2^64 - 1`, which is
    /// never negative, and leaves fewer words: 256 bits, 197, 139, 129.
    #[inline(always)]
    const fn fold(t: [u64; 4]) -> Self {
        let [t0, t1, t2, t3] = t;
        // The first, of 128 bits: t2 and t3.
        let (a0, a1) = mul_28(t2);
        let (b0, b1) = mul_28(t3);
        let (a1, carry) = add(a1, b0, 0);
        let a2 = b1 + carry;
        let (v1, carry) = add(t1, a0, 0);
        let (v2, carry) = add(a1, 0, carry);
        let v3 = a2 + carry;
        let (v0, borrow) = sub(t0, t2, 0);
        let (v1, borrow) = sub(v1, t3, borrow);
        let (v2, borrow) = sub(v2, 0, borrow);
        let v3 = v3 - borrow;
        // The second, of 69 bits: v2 and v3, which is below 2^6.
        let (a0, a1) = mul_28(v2);
        let a1 = a1 + v3 * 28;
        let (u1, carry) = add(v1, a0, 0);
        let u2 = a1 + carry;
        let (u0, borrow) = sub(v0, v2, 0);
        let (u1, borrow) = sub(u1, v3, borrow);
        let u2 = u2 - borrow;
        // The third, of 11 bits: u2. If it is not zero, 28 of it exceed the borrow.
        let (r0, borrow) = sub(u0, u2, 0);
        let (r1, carry) = add(u1, (u2 * 28).wrapping_sub(borrow), 0);
        // The last, of one bit. What is left is small then, so nothing is beyond it.
        let again = mask(carry);
        let (r0, borrow) = sub(r0, 1 & again, 0);
        let r1 = r1.wrapping_add(28 & again).wrapping_sub(borrow);
        Self::reduce(r0, r1, 0)
    }
}

impl PartialEq for Field128 {
    /// Does not tell by its time which word differs.
    #[inline(always)]
    fn eq(&self, other: &Self) -> bool {
        (self.low ^ other.low) | (self.high ^ other.high) == 0
    }
}

impl Add for Field128 {
    type Output = Self;

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        let (low, carry) = add(self.low, other.low, 0);
        let (high, carry) = add(self.high, other.high, carry);
        Self::reduce(low, high, carry)
    }
}

impl Sub for Field128 {
    type Output = Self;

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        let (low, borrow) = sub(self.low, other.low, 0);
        let (high, borrow) = sub(self.high, other.high, borrow);
        let again = mask(borrow);
        let (low, carry) = add(low, MODULUS_LOW & again, 0);
        let (high, _) = add(high, MODULUS_HIGH & again, carry);
        Self::of(low, high)
    }
}

impl Mul for Field128 {
    type Output = Self;

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        let (a0, a1) = mul(self.low, other.low);
        let (b0, b1) = mul(self.low, other.high);
        let (c0, c1) = mul(self.high, other.low);
        let (d0, d1) = mul(self.high, other.high);
        let (t1, carry) = add(a1, b0, 0);
        let (t2, carry) = add(b1, d0, carry);
        let t3 = d1 + carry;
        let (t1, carry) = add(t1, c0, 0);
        let (t2, carry) = add(t2, c1, carry);
        Self::fold([a0, t1, t2, t3 + carry])
    }
}

impl Neg for Field128 {
    type Output = Self;

    #[inline(always)]
    fn neg(self) -> Self {
        Self::of(0, 0) - self
    }
}

assigning!(Field128);

impl Field for Field128 {
    const ZERO: Self = Self::of(0, 0);
    const ONE: Self = Self::of(1, 0);
    const HALF: Self = Self::reduced(MODULUS.div_ceil(2));
    const WORDS: usize = 2;

    fn from_integer(integer: u64) -> Self {
        Self::of(integer, 0)
    }

    #[inline(always)]
    fn from_words(mut words: impl FnMut() -> u64) -> Option<Self> {
        let (low, high) = (words(), words());
        let (_, borrow) = sub(low, MODULUS_LOW, 0);
        let (_, borrow) = sub(high, MODULUS_HIGH, borrow);
        (borrow == 1).then_some(Self::of(low, high))
    }

    #[inline(always)]
    fn for_each_word(self, mut each: impl FnMut(u64)) {
        each(self.low);
        each(self.high);
    }

    fn root(log: u32) -> Option<Self> {
        use prio18::field::{Field128 as Theirs, NttFriendlyFieldElement as _};
        Theirs::root(log as usize).map(|root| Self::reduced(root.into()))
    }

    type Factor = Factor;
    type Sum = Sum;
    const PRODUCTS_MAX: usize = Sum::PRODUCTS_MAX;

    #[inline(always)]
    fn factor(self) -> Factor {
        Factor::new(self.words())
    }

    #[inline(always)]
    fn add_product(sum: &mut Sum, factor: &Factor, other: &Factor) {
        sum.add(factor, other);
    }

    #[inline(always)]
    fn total(sum: Sum) -> Self {
        Self::of_words(sum.words())
    }
}
