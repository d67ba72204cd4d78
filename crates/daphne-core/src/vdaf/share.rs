//! Adding encoded aggregate shares without decoding them into a VDAF: what the storage does, which knows the
//! field of a task and nothing else about it.
//!
//! An encoded share is a vector of field elements, each little-endian, 8, 16 or 32 bytes, below the field's prime.
//! VDAF-08 §6.1, VDAF-18 §6.1; both drafts have the same fields.

use prio18::{
    codec::{Decode as _, Encode as _},
    field::Field255,
};
use serde::{Deserialize, Serialize};

/// The prime field that a VDAF's shares are in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum FieldKind {
    /// Elements of 8 bytes, modulo `2^64 - 2^32 + 1`.
    F64,
    /// Elements of 16 bytes, modulo `2^128 - 7 * 2^66 + 1`.
    F128,
    /// Elements of 32 bytes, modulo `2^255 - 19`.
    F255,
    /// Another one for each aggregation parameter, see [`FieldKind::at`]: what is known of a Poplar1 task before there
    /// is one.
    Poplar1 {
        /// Bits of a measurement, at least 1.
        bits: u16,
    },
}

impl FieldKind {
    /// The field of the shares under an aggregation parameter. Poplar1's are in the larger field at the last level.
    /// VDAF-08 §8.1.
    #[must_use]
    pub fn at(self, agg_param: &[u8]) -> Self {
        match (self, self.level(agg_param)) {
            (Self::Poplar1 { bits }, Some(level)) if level < bits.saturating_sub(1) => Self::F64,
            (Self::Poplar1 { .. }, Some(_)) => Self::F255,
            _ => self,
        }
    }

    /// The level of Poplar1's tree that an aggregation parameter is about, which both drafts encode first. VDAFs whose
    /// reports are aggregated once have none. VDAF-08 §8.2.6, VDAF-18 §8.2.6.
    pub fn level(self, agg_param: &[u8]) -> Option<u16> {
        match self {
            Self::F64 | Self::F128 | Self::F255 => None,
            Self::Poplar1 { .. } => agg_param.first_chunk().map(|level| u16::from_be_bytes(*level)),
        }
    }

    /// Bytes of an encoded element; of an undetermined field, none.
    pub const fn element_len(self) -> usize {
        match self {
            Self::F64 => 8,
            Self::F128 => 16,
            Self::F255 => 32,
            Self::Poplar1 { .. } => 0,
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
        FieldKind::F255 => combine_255(acc, other, |a, b| a + b),
        FieldKind::Poplar1 { .. } => Err(ShareError::Length),
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
        FieldKind::F255 => combine_255(acc, other, |a, b| a - b),
        FieldKind::Poplar1 { .. } => Err(ShareError::Length),
    }
}

/// As [`combine`], in the one field whose elements are no machine integers.
fn combine_255(
    acc: &mut [u8],
    other: &[u8],
    operation: impl Fn(Field255, Field255) -> Field255,
) -> Result<(), ShareError> {
    let len = FieldKind::F255.element_len();
    if acc.len() != other.len() || !acc.len().is_multiple_of(len) {
        return Err(ShareError::Length);
    }
    let element = |e: &[u8]| Field255::get_decoded(e).map_err(|_| ShareError::Unreduced);
    let mut out = Vec::with_capacity(acc.len());
    for (a, b) in acc.chunks_exact(len).zip(other.chunks_exact(len)) {
        operation(element(a)?, element(b)?).encode(&mut out).map_err(|_| ShareError::Unreduced)?;
    }
    acc.copy_from_slice(&out);
    Ok(())
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
        assert_eq!(FieldKind::F255.element_len(), Field255::ENCODED_SIZE);
    }

    #[test]
    fn the_last_level_of_poplar1_has_a_field_of_its_own() {
        let kind = FieldKind::Poplar1 { bits: 3 };
        for (param, field) in [
            (&[0, 0, 9][..], FieldKind::F64),
            (&[0, 1], FieldKind::F64),
            (&[0, 2], FieldKind::F255),
            (&[0xff, 0xff], FieldKind::F255),
            (&[0], kind),
            (&[], kind),
        ] {
            assert_eq!(kind.at(param), field, "{param:?}");
            assert_eq!(FieldKind::F128.at(param), FieldKind::F128);
        }
        // Without a parameter nothing is added.
        assert_eq!(add_assign(kind, &mut [], &[]), Err(ShareError::Length));
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

    /// The prime of the largest field, least significant byte first.
    fn p255(less: u8) -> Vec<u8> {
        let mut p = vec![0xff; 32];
        (p[0], p[31]) = (0xed - less, 0x7f);
        p
    }

    proptest! {
        #[test]
        fn adding_in_the_largest_field_is_merging(pairs in proptest::collection::vec(any::<([u8; 31], [u8; 31])>(), 0..5)) {
            let element = |e: [u8; 31]| Field255::get_decoded(&[&e[..], &[0]].concat()).unwrap();
            // From the top of the field downwards and from its bottom upwards: sums wrap.
            let (a, b) = pairs.into_iter().map(|(a, b)| (-element(a), element(b))).unzip();
            let [mut a, b, sum] = merge(a, b);
            let before = a.clone();
            add_assign(FieldKind::F255, &mut a, &b).unwrap();
            prop_assert_eq!(&a, &sum);
            sub_assign(FieldKind::F255, &mut a, &b).unwrap();
            prop_assert_eq!(a, before);
        }

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
        let (kind, mut acc) = (FieldKind::F255, zero(64));
        let one = [p255(1), p255(2)].concat();
        add_assign(kind, &mut acc, &one).unwrap();
        assert_eq!(acc, one);
        let unreduced = [zero(32), p255(0)].concat();
        assert_eq!(add_assign(kind, &mut acc, &unreduced), Err(ShareError::Unreduced));
        assert_eq!(sub_assign(kind, &mut unreduced.clone(), &one), Err(ShareError::Unreduced));
        assert_eq!(add_assign(kind, &mut acc, &zero(32)), Err(ShareError::Length));
        assert_eq!(add_assign(kind, &mut [0; 33], &[0; 33]), Err(ShareError::Length));
        assert_eq!(acc, one);
    }
}
