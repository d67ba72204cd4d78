//! What the rest of this folder asks of a field.

use std::ops::{Add, AddAssign, Mul, MulAssign, Neg, Sub};

/// A prime field. Its elements are secret, more often than not: no operation branches on them, but reading them from words,
/// which tells only whether the words were an element.
pub(in crate::vdaf) trait Field:
    Copy
    + PartialEq
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Neg<Output = Self>
    + AddAssign
    + MulAssign
{
    const ZERO: Self;
    const ONE: Self;
    /// The inverse of 2: the share of 1 that each of two aggregators has.
    const HALF: Self;
    /// Length of an encoding in words of 8 bytes, least significant first.
    const WORDS: usize;

    /// The element that is this integer, modulo the prime if need be.
    fn from_integer(integer: u64) -> Self;

    /// The element encoded by these [`Self::WORDS`] words; `None` if they are not below the prime.
    fn from_words(words: impl FnMut() -> u64) -> Option<Self>;

    /// Passes on the words of the encoding.
    fn for_each_word(self, each: impl FnMut(u64));

    /// A root of unity of order `2^log`, the one that `prio` has; `None` for more than 20.
    fn root(log: u32) -> Option<Self>;

    /// A factor of many products that are summed up, in the form that multiplies fastest.
    type Factor: Copy;
    /// A sum of products that is not reduced yet.
    type Sum: Copy + Default;
    /// Products that a sum has room for.
    const PRODUCTS_MAX: usize;

    /// This as a factor.
    fn factor(self) -> Self::Factor;

    /// Adds a product.
    fn add_product(sum: &mut Self::Sum, factor: &Self::Factor, other: &Self::Factor);

    /// What the sum is.
    fn total(sum: Self::Sum) -> Self;
}

/// For a field that adds and multiplies: the same in place.
macro_rules! assigning {
    ($field:ident) => {
        impl std::ops::AddAssign for $field {
            #[inline(always)]
            fn add_assign(&mut self, other: Self) {
                *self = *self + other;
            }
        }

        impl std::ops::MulAssign for $field {
            #[inline(always)]
            fn mul_assign(&mut self, other: Self) {
                *self = *self * other;
            }
        }
    };
}
pub(super) use assigning;

/// The sum of the products of both rows' elements, as many as the shorter has.
pub(super) fn dot<F: Field>(a: &[F], b: &[F]) -> F {
    let mut total = F::ZERO;
    for (a, b) in a.chunks(F::PRODUCTS_MAX).zip(b.chunks(F::PRODUCTS_MAX)) {
        let mut sum = F::Sum::default();
        for (a, b) in a.iter().zip(b) {
            F::add_product(&mut sum, &a.factor(), &b.factor());
        }
        total += F::total(sum);
    }
    total
}

/// Reads `count` encoded elements from the front of the bytes, and what comes after them; `None` if that is not what
/// is there.
pub(super) fn decode<F: Field>(bytes: &[u8], count: usize) -> Option<(Vec<F>, &[u8])> {
    let (bytes, rest) = bytes.split_at_checked(count.checked_mul(8 * F::WORDS)?)?;
    let mut words = bytes.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word));
    let elements: Option<Vec<F>> =
        (0..count).map(|_| F::from_words(|| words.next().unwrap_or_default())).collect();
    Some((elements?, rest))
}

/// Writes elements behind what is there.
pub(super) fn encode<F: Field>(elements: &[F], bytes: &mut Vec<u8>) {
    bytes.reserve(elements.len() * 8 * F::WORDS);
    for element in elements {
        element.for_each_word(|word| bytes.extend_from_slice(&word.to_le_bytes()));
    }
}
