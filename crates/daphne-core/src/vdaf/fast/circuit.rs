//! The validity circuits of Prio3: what a measurement consists of, and what its proof is about.
//!
//! VDAF-08 §7.4 and VDAF-18 §7.4. All have one gadget, of degree two.

use super::field::{Field, dot};
use crate::{vdaf::VdafConfig, version::VdafDraft};

/// A circuit.
#[derive(Clone)]
pub(super) struct Circuit<F: Field> {
    pub(super) draft: VdafDraft,
    pub(super) kind: Kind,
    /// Elements of an encoded measurement.
    pub(super) input_len: usize,
    /// Elements of an output share.
    pub(super) output_len: usize,
    /// Calls of the gadget.
    pub(super) calls: usize,
    /// The gadget's wires.
    pub(super) arity: usize,
    /// Bits of each number in the measurement, and the weight of its last one. VDAF-18 §7.4.2: not always a power of two.
    bits: usize,
    last_weight: F,
    /// Share of what the multihot vector's weight is counted from. VDAF-08 alone has it.
    offset: F,
}

/// What the gadget is called for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Once, with the measurement twice: a product.
    Count,
    /// For each bit: a polynomial, `x^2 - x`.
    Sum,
    /// For each chunk: the sum of products, one for each element.
    SumVec { chunk: usize },
    /// As for a vector; and the elements sum up to 1.
    Histogram { chunk: usize },
    /// As for a vector; and the first `length` elements sum up to the number behind them.
    Multihot { chunk: usize, length: usize },
}

impl<F: Field> Circuit<F> {
    /// The circuit of an instance over this field; `None` if it is none of Prio3's that are done here.
    pub(super) fn new(draft: VdafDraft, config: &VdafConfig) -> Option<Self> {
        let size = |n: u32| usize::try_from(n).ok();
        let bits_of = |max: u64| max.checked_ilog2().map(|log| log as usize + 1);
        let (kind, length, max, beside) = match *config {
            VdafConfig::Prio3Count => (Kind::Count, 1, 1, 0),
            VdafConfig::Prio3Sum { max_measurement } => (Kind::Sum, 1, max_measurement, 0),
            VdafConfig::Prio3SumVec { length, max_measurement, chunk_length } => {
                (Kind::SumVec { chunk: size(chunk_length)? }, size(length)?, max_measurement, 0)
            }
            VdafConfig::Prio3Histogram { length, chunk_length } => {
                (Kind::Histogram { chunk: size(chunk_length)? }, size(length)?, 1, 0)
            }
            VdafConfig::Prio3MultihotCountVec { length, max_weight, chunk_length } => {
                let (chunk, length) = (size(chunk_length)?, size(length)?);
                let max_weight = u64::from(max_weight);
                (Kind::Multihot { chunk, length }, length, max_weight, bits_of(max_weight)?)
            }
            VdafConfig::Prio3SumVecField64MultiproofHmacSha256Aes128 { .. }
            | VdafConfig::Poplar1 { .. } => return None,
        };
        let bits = bits_of(max)?;
        let input_len = if beside > 0 { length + beside } else { length * bits };
        let (calls, arity) = match kind {
            Kind::Count => (1, 2),
            Kind::Sum => (input_len, 1),
            Kind::SumVec { chunk } | Kind::Histogram { chunk } | Kind::Multihot { chunk, .. } => {
                (input_len.div_ceil(chunk), 2 * chunk)
            }
        };
        let half = 1_u64 << (bits - 1);
        let (last_weight, offset) = match draft {
            VdafDraft::V08 => (half, half - 1 + half - max),
            VdafDraft::V18 => (max - (half - 1), 0),
        };
        Some(Self {
            draft,
            kind,
            input_len,
            output_len: length,
            calls,
            arity,
            bits,
            last_weight: F::from_integer(last_weight),
            offset: F::from_integer(offset) * F::HALF,
        })
    }

    /// Elements of a verifier.
    pub(super) fn verifier_len(&self) -> usize {
        self.arity + 2
    }

    /// Roots of unity at which the wires have values: the first is random, then one for each call.
    pub(super) fn roots(&self) -> usize {
        (1 + self.calls).next_power_of_two()
    }

    /// Elements of joint randomness.
    pub(super) fn joint_rand_len(&self) -> usize {
        match (self.draft, self.kind) {
            (_, Kind::Count) | (VdafDraft::V18, Kind::Sum) => 0,
            (VdafDraft::V08, Kind::Sum | Kind::SumVec { .. }) => 1,
            (VdafDraft::V08, Kind::Histogram { .. } | Kind::Multihot { .. }) => 2,
            (VdafDraft::V18, _) => self.calls,
        }
    }

    /// Outputs, which all must be zero. In VDAF-08 a circuit has one.
    pub(super) fn outputs(&self) -> usize {
        match (self.draft, self.kind) {
            (VdafDraft::V08, _) | (_, Kind::Count | Kind::SumVec { .. }) => 1,
            (VdafDraft::V18, Kind::Sum) => self.input_len,
            (VdafDraft::V18, Kind::Histogram { .. } | Kind::Multihot { .. }) => 2,
        }
    }

    /// Elements of query randomness: the point that the polynomials are asked for, behind one factor for each of several
    /// outputs.
    pub(super) fn query_rand_len(&self) -> usize {
        match self.outputs() {
            1 => 1,
            outputs => 1 + outputs,
        }
    }

    /// The number that bits make up, the least significant first.
    fn number(&self, bits: &[F]) -> F {
        let Some((last, rest)) = bits.split_last() else { return F::ZERO };
        let rest = rest.iter().rev().fold(F::ZERO, |sum, bit| sum + sum + *bit);
        rest + *last * self.last_weight
    }

    /// The output share of a measurement's.
    pub(super) fn truncate(&self, mut measurement: Vec<F>) -> Vec<F> {
        match self.kind {
            Kind::Count | Kind::Histogram { .. } => measurement,
            Kind::SumVec { .. } if self.bits == 1 => measurement,
            Kind::Sum | Kind::SumVec { .. } => {
                measurement.chunks(self.bits).map(|bits| self.number(bits)).collect()
            }
            Kind::Multihot { length, .. } => {
                measurement.truncate(length);
                measurement
            }
        }
    }

    /// What else than its bits being bits must be zero about a measurement; of two aggregators' shares the sum.
    pub(super) fn sum_check(&self, measurement: &[F]) -> F {
        let total = |elements: &[F]| elements.iter().fold(F::ZERO, |sum, element| sum + *element);
        match self.kind {
            Kind::Count | Kind::Sum | Kind::SumVec { .. } => F::ZERO,
            Kind::Histogram { .. } => total(measurement) - F::HALF,
            Kind::Multihot { length, .. } => {
                let (vector, weight) = measurement.split_at(length.min(measurement.len()));
                self.offset + total(vector) - self.number(weight)
            }
        }
    }

    /// The gadget.
    pub(super) fn gadget(&self, wires: &[F]) -> F {
        match (self.kind, wires) {
            (Kind::Sum, [x]) => *x * *x - *x,
            _ => {
                let (pairs, _) = wires.as_chunks();
                let (left, right): (Vec<F>, Vec<F>) = pairs.iter().map(|[a, b]| (*a, *b)).unzip();
                dot(&left, &right)
            }
        }
    }
}
