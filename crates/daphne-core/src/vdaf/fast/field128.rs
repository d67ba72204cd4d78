//! Field128 of VDAF-08 §6.1 and VDAF-18 §6.1: integers modulo `p = 2^128 - 28·2^64 + 1`.
//!
//! Elements are kept as the integers that they are, in `[0, p)`, so that decoding is a comparison. What exceeds 128 bits is
//! folded: `2^128` is `28·2^64 - 1`, and a product by 28 is cheap. The type is generic over a marker, because both lines of
//! `prio` ask for implementations that would contradict each other on one type.

use std::{
    fmt,
    marker::PhantomData,
    ops::{Add, AddAssign, Div, DivAssign, Mul, MulAssign, Neg, Sub, SubAssign},
};

use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

/// The modulus.
pub(super) const MODULUS: u128 = 340_282_366_920_938_462_946_865_773_367_900_766_209;
const MODULUS_LOW: u64 = 1;
const MODULUS_HIGH: u64 = u64::MAX - 27;

/// Length of an element's encoding in bytes.
pub(super) const ENCODED_LEN: usize = 16;

/// An element. Secret, more often than not: `Debug` prints no value.
#[derive(Clone, Copy, Default)]
pub(in crate::vdaf) struct Field128<L> {
    low: u64,
    high: u64,
    line: PhantomData<L>,
}

/// For `prio` 0.16.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::vdaf) struct Line08;
/// For `prio` 0.18.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::vdaf) struct Line18;

impl<L> Field128<L> {
    const fn of(low: u64, high: u64) -> Self {
        Self { low, high, line: PhantomData }
    }

    /// The element that is this integer, which must be below [`MODULUS`].
    pub(super) const fn reduced(integer: u128) -> Self {
        Self::of(integer as u64, (integer >> 64) as u64)
    }

    /// The integer that it is.
    pub(super) const fn integer(self) -> u128 {
        (self.high as u128) << 64 | self.low as u128
    }
}

impl<L: Copy> Field128<L> {
    /// Its power. The exponent is public.
    pub(super) fn power(self, mut exponent: u128) -> Self {
        let (mut base, mut out) = (self, Self::of(1, 0));
        while exponent > 0 {
            if exponent & 1 == 1 {
                out *= base;
            }
            base *= base;
            exponent >>= 1;
        }
        out
    }
}

/// Sum of two words and a carry of 0 or 1, and the next carry.
#[inline(always)]
const fn add(a: u64, b: u64, carry: u64) -> (u64, u64) {
    let (sum, over) = a.overflowing_add(b);
    let (sum, over_again) = sum.overflowing_add(carry);
    (sum, (over | over_again) as u64)
}

/// Difference of two words and a borrow of 0 or 1, and the next borrow.
#[inline(always)]
const fn sub(a: u64, b: u64, borrow: u64) -> (u64, u64) {
    let (difference, under) = a.overflowing_sub(b);
    let (difference, under_again) = difference.overflowing_sub(borrow);
    (difference, (under | under_again) as u64)
}

/// Product of two words, low and high.
#[inline(always)]
const fn mul(a: u64, b: u64) -> (u64, u64) {
    if cfg!(target_arch = "wasm32") {
        // A product of 128 bits is a call there, with a detour through memory.
        const LOW: u64 = 0xffff_ffff;
        let (a0, a1, b0, b1) = (a & LOW, a >> 32, b & LOW, b >> 32);
        let (p00, p01, p10, p11) = (a0 * b0, a0 * b1, a1 * b0, a1 * b1);
        let middle = (p00 >> 32) + (p01 & LOW) + (p10 & LOW);
        let high = p11 + (p01 >> 32) + (p10 >> 32) + (middle >> 32);
        ((p00 & LOW) | (middle << 32), high)
    } else {
        let product = a as u128 * b as u128;
        (product as u64, (product >> 64) as u64)
    }
}

/// Product of a word and 28, low and high.
#[inline(always)]
const fn mul_28(a: u64) -> (u64, u64) {
    let low = (a & 0xffff_ffff) * 28;
    let high = (a >> 32) * 28 + (low >> 32);
    ((low & 0xffff_ffff) | (high << 32), high >> 32)
}

/// All ones for 1, zero for 0.
#[inline(always)]
const fn mask(bit: u64) -> u64 {
    0_u64.wrapping_sub(bit)
}

impl<L> Field128<L> {
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

impl<L> Add for Field128<L> {
    type Output = Self;

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        let (low, carry) = add(self.low, other.low, 0);
        let (high, carry) = add(self.high, other.high, carry);
        Self::reduce(low, high, carry)
    }
}

impl<L> Sub for Field128<L> {
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

impl<L> Mul for Field128<L> {
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

impl<L> Neg for Field128<L> {
    type Output = Self;

    #[inline(always)]
    fn neg(self) -> Self {
        Self::of(0, 0) - self
    }
}

impl<L: Copy> Neg for &Field128<L> {
    type Output = Field128<L>;

    fn neg(self) -> Field128<L> {
        -*self
    }
}

impl<L: Copy> Div for Field128<L> {
    type Output = Self;

    /// Of a divisor that is not zero.
    fn div(self, divisor: Self) -> Self {
        self * divisor.power(MODULUS - 2)
    }
}

macro_rules! assigning {
    ($($trait:ident $name:ident $op:tt),+) => {
        $(impl<L: Copy> $trait for Field128<L> {
            #[inline(always)]
            fn $name(&mut self, other: Self) {
                *self = *self $op other;
            }
        })+
    };
}
assigning!(AddAssign add_assign +, SubAssign sub_assign -, MulAssign mul_assign *, DivAssign div_assign /);

impl<L> ConstantTimeEq for Field128<L> {
    fn ct_eq(&self, other: &Self) -> Choice {
        self.low.ct_eq(&other.low) & self.high.ct_eq(&other.high)
    }
}

impl<L> PartialEq for Field128<L> {
    fn eq(&self, other: &Self) -> bool {
        self.ct_eq(other).into()
    }
}

impl<L> Eq for Field128<L> {}

impl<L: Copy> ConditionallySelectable for Field128<L> {
    fn conditional_select(a: &Self, b: &Self, choice: Choice) -> Self {
        Self::of(
            u64::conditional_select(&a.low, &b.low, choice),
            u64::conditional_select(&a.high, &b.high, choice),
        )
    }
}

impl<L> fmt::Debug for Field128<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Field128")
    }
}

impl<L> fmt::Display for Field128<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Field128")
    }
}

impl<L> From<u128> for Field128<L> {
    fn from(integer: u128) -> Self {
        Self::reduce(integer as u64, (integer >> 64) as u64, 0)
    }
}

impl<L> From<Field128<L>> for u128 {
    fn from(element: Field128<L>) -> Self {
        element.integer()
    }
}

impl<L> From<Field128<L>> for Vec<u8> {
    fn from(element: Field128<L>) -> Self {
        element.integer().to_le_bytes().to_vec()
    }
}
