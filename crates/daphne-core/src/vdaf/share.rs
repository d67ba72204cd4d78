//! Adding encoded aggregate shares without decoding them into a VDAF: what the storage does, which knows the
//! field of a task and nothing else about it.
//!
//! An encoded share is a vector of field elements, each little-endian, 8 or 16 bytes, below the field's prime.
//! VDAF-08 §6.1, VDAF-18 §6.1; both drafts have the same two fields.

use serde::{Deserialize, Serialize};

/// The prime field that a VDAF's shares are in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum FieldKind {
    /// Elements of 8 bytes, modulo `2^64 - 2^32 + 1`.
    F64,
    /// Elements of 16 bytes, modulo `2^128 - 7 * 2^66 + 1`.
    F128,
}

impl FieldKind {
    /// Bytes of an encoded element.
    pub const fn element_len(self) -> usize {
        match self {
            Self::F64 => 8,
            Self::F128 => 16,
        }
    }
}

const P64: u64 = 0xffff_ffff_0000_0001;
const P128: u128 = 0xffff_ffff_ffff_ffe4_0000_0000_0000_0001;

/// Two shares cannot be added. Whoever supplied them is at fault; after our own decoding, we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShareError {
    /// The shares differ in length or field, or are not a whole number of elements.
    #[error("the shares have different lengths or fields")]
    Length,
    /// An element is not below the field's prime.
    #[error("a share has an element outside its field")]
    Unreduced,
}

/// The neutral element of `len` bytes.
pub fn zero(len: usize) -> Vec<u8> {
    vec![0; len]
}

/// Adds `other` to `acc`, element by element. On an error `acc` is as it was.
///
/// # Errors
/// [`ShareError`], for whichever of the two is malformed.
pub fn add_assign(kind: FieldKind, acc: &mut [u8], other: &[u8]) -> Result<(), ShareError> {
    match kind {
        FieldKind::F64 => combine::<8>(
            acc,
            other,
            |e| u64::from_le_bytes(e) < P64,
            |a, b| {
                let (sum, carry) = u64::from_le_bytes(a).overflowing_add(u64::from_le_bytes(b));
                let (reduced, borrow) = sum.overflowing_sub(P64);
                // The sum is below 2p, so one subtraction is enough, and a carry out always takes it.
                if carry | !borrow { reduced } else { sum }.to_le_bytes()
            },
        ),
        FieldKind::F128 => combine::<16>(
            acc,
            other,
            |e| u128::from_le_bytes(e) < P128,
            |a, b| {
                let (sum, carry) = u128::from_le_bytes(a).overflowing_add(u128::from_le_bytes(b));
                let (reduced, borrow) = sum.overflowing_sub(P128);
                if carry | !borrow { reduced } else { sum }.to_le_bytes()
            },
        ),
    }
}

/// Takes `other` out of `acc` again, element by element. On an error `acc` is as it was.
///
/// # Errors
/// [`ShareError`], for whichever of the two is malformed.
pub fn sub_assign(kind: FieldKind, acc: &mut [u8], other: &[u8]) -> Result<(), ShareError> {
    match kind {
        FieldKind::F64 => combine::<8>(
            acc,
            other,
            |e| u64::from_le_bytes(e) < P64,
            |a, b| {
                let (difference, borrow) =
                    u64::from_le_bytes(a).overflowing_sub(u64::from_le_bytes(b));
                if borrow { difference.wrapping_add(P64) } else { difference }.to_le_bytes()
            },
        ),
        FieldKind::F128 => combine::<16>(
            acc,
            other,
            |e| u128::from_le_bytes(e) < P128,
            |a, b| {
                let (difference, borrow) =
                    u128::from_le_bytes(a).overflowing_sub(u128::from_le_bytes(b));
                if borrow { difference.wrapping_add(P128) } else { difference }.to_le_bytes()
            },
        ),
    }
}

fn combine<const N: usize>(
    acc: &mut [u8],
    other: &[u8],
    is_reduced: impl Fn([u8; N]) -> bool,
    operation: impl Fn([u8; N], [u8; N]) -> [u8; N],
) -> Result<(), ShareError> {
    if acc.len() != other.len() {
        return Err(ShareError::Length);
    }
    let (acc, rest) = acc.as_chunks_mut::<N>();
    if !rest.is_empty() {
        return Err(ShareError::Length);
    }
    let (other, _) = other.as_chunks::<N>();
    if !acc.iter().chain(other).all(|e| is_reduced(*e)) {
        return Err(ShareError::Unreduced);
    }
    acc.iter_mut().zip(other).for_each(|(a, b)| *a = operation(*a, *b));
    Ok(())
}

#[cfg(test)]
mod tests {
    use prio18::{
        codec::Encode as _,
        field::{Field64, Field128, FieldElement, FieldElementWithInteger as _},
        vdaf::{Aggregatable as _, AggregateShare},
    };
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_primes_are_those_of_the_fields() {
        assert_eq!(P64, Field64::modulus());
        assert_eq!(P128, Field128::modulus());
        assert_eq!(FieldKind::F64.element_len(), Field64::ENCODED_SIZE);
        assert_eq!(FieldKind::F128.element_len(), Field128::ENCODED_SIZE);
    }

    fn merge<F: FieldElement>(a: Vec<F>, b: Vec<F>) -> [Vec<u8>; 3] {
        let (mut a, b) = (AggregateShare::from(a), AggregateShare::from(b));
        let before = a.get_encoded().unwrap();
        a.merge(&b).unwrap();
        [before, b.get_encoded().unwrap(), a.get_encoded().unwrap()]
    }

    // Elements near the ends of the field are where carries and reductions happen.
    fn element64() -> impl Strategy<Value = u64> {
        prop_oneof![any::<u64>().prop_map(|n| n % P64), 0..3u64, P64 - 3..P64, P64 / 2..P64 / 2 + 3]
    }

    fn element128() -> impl Strategy<Value = u128> {
        prop_oneof![
            any::<u128>().prop_map(|n| n % P128),
            0..3u128,
            P128 - 3..P128,
            P128 / 2..P128 / 2 + 3
        ]
    }

    proptest! {
        #[test]
        fn adding_is_merging(pairs64 in proptest::collection::vec((element64(), element64()), 0..20),
                             pairs128 in proptest::collection::vec((element128(), element128()), 0..20)) {
            let (a, b) = pairs64.into_iter().map(|(a, b)| (Field64::from(a), Field64::from(b))).unzip();
            let [mut a, b, sum] = merge(a, b);
            add_assign(FieldKind::F64, &mut a, &b).unwrap();
            prop_assert_eq!(a, sum);
            let (a, b) = pairs128.into_iter().map(|(a, b)| (Field128::from(a), Field128::from(b))).unzip();
            let [mut a, b, sum] = merge(a, b);
            add_assign(FieldKind::F128, &mut a, &b).unwrap();
            prop_assert_eq!(a, sum);
        }
    }

    #[test]
    fn zero_is_neutral_and_errors_leave_the_sum_alone() {
        for (kind, p) in [(FieldKind::F64, u128::from(P64)), (FieldKind::F128, P128)] {
            let n = kind.element_len();
            let encode = |e: u128| e.to_le_bytes()[..n].to_vec();
            let mut acc = zero(2 * n);
            let one = [encode(p - 1), encode(1)].concat();
            add_assign(kind, &mut acc, &one).unwrap();
            assert_eq!(acc, one);
            for unreduced in [p, p + 1] {
                let other = [encode(1), encode(unreduced)].concat();
                assert_eq!(add_assign(kind, &mut acc, &other), Err(ShareError::Unreduced));
                assert_eq!(add_assign(kind, &mut other.clone(), &one), Err(ShareError::Unreduced));
            }
            assert_eq!(add_assign(kind, &mut acc, &zero(n)), Err(ShareError::Length));
            assert_eq!(add_assign(kind, &mut [0; 9], &[0; 9]), Err(ShareError::Length));
            assert_eq!(add_assign(kind, &mut [], &[]), Ok(()));
            assert_eq!(acc, one);
        }
    }
}
