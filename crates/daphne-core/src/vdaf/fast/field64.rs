//! Field64 of VDAF-08 §6.1 and VDAF-18 §6.1: integers modulo `p = 2^64 - 2^32 + 1`.
//!
//! Elements are kept as the integers that they are, in `[0, p)`. `2^64` is `2^32 - 1`, and `2^96` is `-1`.

use std::ops::{Add, Mul, Neg, Sub};

use super::{
    field::{Field, assigning},
    words::{mask, mul},
};

/// The modulus.
pub(super) const MODULUS: u64 = 0xffff_ffff_0000_0001;
/// `2^64` modulo it.
const EXCESS: u64 = 0xffff_ffff;

/// An element. Secret, more often than not.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::vdaf) struct Field64(u64);

impl Field64 {
    /// Of a word, which is below twice the modulus, whatever it is.
    #[inline(always)]
    const fn reduce(word: u64) -> Self {
        Self::difference(word, MODULUS)
    }

    /// Of a word and an integer that exceeds it by the modulus at most.
    #[inline(always)]
    const fn difference(word: u64, less: u64) -> Self {
        let (difference, borrow) = word.overflowing_sub(less);
        Self(difference.wrapping_add(MODULUS & mask(borrow as u64)))
    }

    /// What is to be added to make the modulus.
    #[inline(always)]
    const fn opposite(self) -> u64 {
        MODULUS - self.0
    }

    /// The integer that it is.
    #[cfg(test)]
    pub(super) const fn integer(self) -> u64 {
        self.0
    }
}

impl Add for Field64 {
    type Output = Self;

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Self::difference(self.0, other.opposite())
    }
}

impl Sub for Field64 {
    type Output = Self;

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        Self::difference(self.0, other.0)
    }
}

impl Mul for Field64 {
    type Output = Self;

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        let (low, high) = mul(self.0, other.0);
        // What is from bit 96 is taken away, what is from bit 64 comes back times 2^32 - 1. Below zero and beyond the word,
        // one more 2^64 is exchanged; there is no second time, as both sums are far enough from the end then.
        let (sum, borrow) = low.overflowing_sub(high >> 32);
        let sum = sum.wrapping_sub(EXCESS & mask(borrow as u64));
        let (sum, carry) = sum.overflowing_add((high & EXCESS) * EXCESS);
        Self::reduce(sum.wrapping_add(EXCESS & mask(carry as u64)))
    }
}

impl Neg for Field64 {
    type Output = Self;

    #[inline(always)]
    fn neg(self) -> Self {
        Self::difference(0, self.0)
    }
}

assigning!(Field64);

impl Field for Field64 {
    const ZERO: Self = Self(0);
    const ONE: Self = Self(1);
    const HALF: Self = Self(MODULUS.div_ceil(2));
    const WORDS: usize = 1;

    fn from_integer(integer: u64) -> Self {
        Self::reduce(integer)
    }

    fn from_words(mut words: impl FnMut() -> u64) -> Option<Self> {
        let word = words();
        (word < MODULUS).then_some(Self(word))
    }

    fn for_each_word(self, mut each: impl FnMut(u64)) {
        each(self.0);
    }

    fn root(log: u32) -> Option<Self> {
        use prio18::field::{Field64 as Theirs, NttFriendlyFieldElement as _};
        Theirs::root(log as usize).map(|root| Self(root.into()))
    }

    // Circuits over this field have few wires: nothing is won by delaying.
    type Factor = Self;
    type Sum = u64;
    const PRODUCTS_MAX: usize = usize::MAX;

    fn factor(self) -> Self {
        self
    }

    fn add_product(sum: &mut u64, factor: &Self, other: &Self) {
        *sum = (Self(*sum) + *factor * *other).0;
    }

    fn total(sum: u64) -> Self {
        Self(sum)
    }
}
