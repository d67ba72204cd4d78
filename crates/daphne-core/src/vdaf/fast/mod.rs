//! Verification of Prio3, faster than `prio` does it, and bit for bit the same.
//!
//! `prio` computes in any field, for any circuit, on any machine. Three things make it slow where this runs:
//!
//! - WebAssembly multiplies 64 by 64 bits to 64. Products of Field128 take many such steps, and `prio`'s Montgomery form twice as
//!   many as this prime needs: [`field128`] is another representation of the same field, and [`products`] sums up products
//!   before it reduces them.
//! - For each report `prio` runs the circuit, extends and evaluates the proof's polynomials, and inverts constants. Most of
//!   that is the same for each report, or is a sum that need not be written down: [`query`].
//! - `prio` moves what its XOFs take and give byte by byte, draws more than it uses, and expands a helper's share twice: [`xof`],
//!   [`verify`].
//!
//! So the aggregators of Prio3 are here, but for the instance with several proofs. Clients, collectors and whatever else there
//! is are `prio`'s. Exact arithmetic has one result, so that of both ways is the same; tests compare messages, output shares
//! and refusals on random and on hostile inputs, and replay the drafts' vectors.
//!
//! Shares, proofs and seeds are secret. Arithmetic on them has no branch and no memory access that depends on their values, but
//! that random words which are no field element are skipped, as the drafts say. Branches depend on what is public: lengths,
//! whether bytes decode, and the verdict.

mod circuit;
mod field;
mod field128;
mod field64;
mod keccak;
mod lagrange;
mod products;
mod query;
#[cfg(test)]
mod tests;
mod verify;
mod words;
mod xof;

use field::{Field as _, encode};
use field64::Field64;
use field128::Field128;
use verify::Instance;

use super::{ShareError, VdafConfig, VerifyError, scheme::Context};
use crate::version::VdafDraft;

/// An aggregator's part of an instance of Prio3.
#[derive(Clone)]
pub(super) enum Verifier {
    F64Short(Instance<Field64, 16>),
    F64(Instance<Field64, 32>),
    F128Short(Instance<Field128, 16>),
    F128(Instance<Field128, 32>),
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Verifier")
    }
}

/// A vector over one of the fields. Secret.
#[derive(Clone)]
pub(super) enum Elements {
    F64(Vec<Field64>),
    F128(Vec<Field128>),
}

/// What a leader remembers. Secret.
#[derive(Clone)]
pub(super) enum LeaderState {
    F64(verify::LeaderState<Field64>),
    F128(verify::LeaderState<Field128>),
}

/// Evaluates the body with the instance, and the variant that its vectors and states are.
macro_rules! each {
    ($verifier:expr, ($instance:ident, $kind:ident) => $body:expr) => {
        match $verifier {
            Verifier::F64Short($instance) => each!(@$kind F64 $body),
            Verifier::F64($instance) => each!(@$kind F64 $body),
            Verifier::F128Short($instance) => each!(@$kind F128 $body),
            Verifier::F128($instance) => each!(@$kind F128 $body),
        }
    };
    (@Elements $field:ident $body:expr) => {
        $body.map(|(elements, message)| (Elements::$field(elements), message))
    };
    (@LeaderState $field:ident $body:expr) => {
        $body.map(|(state, message)| (LeaderState::$field(state), message))
    };
}

impl Verifier {
    /// The aggregator of an instance, by its id; `None` for what is not done here. `prio` must have taken the configuration.
    pub(super) fn new(draft: VdafDraft, algorithm: u32, config: &VdafConfig) -> Option<Self> {
        match (draft, config) {
            (VdafDraft::V08, VdafConfig::Prio3Count) => {
                Instance::new(draft, algorithm, config).map(Self::F64Short)
            }
            (VdafDraft::V18, VdafConfig::Prio3Count | VdafConfig::Prio3Sum { .. }) => {
                Instance::new(draft, algorithm, config).map(Self::F64)
            }
            (VdafDraft::V08, _) => Instance::new(draft, algorithm, config).map(Self::F128Short),
            (VdafDraft::V18, _) => Instance::new(draft, algorithm, config).map(Self::F128),
        }
    }

    /// The leader's first step: what to remember, and the ping-pong message for the helper. As [`super::Vdaf::leader_init`].
    pub(super) fn leader_init(
        &self,
        context: Context<'_>,
        public_share: &[u8],
        input_share: &[u8],
    ) -> Result<(LeaderState, Vec<u8>), VerifyError> {
        each!(self, (instance, LeaderState) => instance.leader_init(context, public_share, input_share))
    }

    /// The helper's only step: its output share, and the ping-pong message for the leader. As [`super::Vdaf::helper_init`].
    pub(super) fn helper_init(
        &self,
        context: Context<'_>,
        public_share: &[u8],
        input_share: &[u8],
        inbound: &[u8],
    ) -> Result<(Elements, Vec<u8>), VerifyError> {
        each!(self, (instance, Elements) => instance.helper_init(context, public_share, input_share, inbound))
    }

    /// Elements of an output share.
    pub(super) fn output_len(&self) -> usize {
        match self {
            Self::F64Short(instance) => instance.output_len(),
            Self::F64(instance) => instance.output_len(),
            Self::F128Short(instance) => instance.output_len(),
            Self::F128(instance) => instance.output_len(),
        }
    }

    /// The aggregate share of no reports.
    pub(super) fn aggregate_init(&self) -> Elements {
        match self {
            Self::F64Short(_) | Self::F64(_) => {
                Elements::F64(vec![Field64::ZERO; self.output_len()])
            }
            Self::F128Short(_) | Self::F128(_) => {
                Elements::F128(vec![Field128::ZERO; self.output_len()])
            }
        }
    }
}

impl LeaderState {
    /// The leader's last step: its output share. As [`super::Vdaf::leader_continued`].
    pub(super) fn continued(self, inbound: &[u8]) -> Result<Elements, VerifyError> {
        match self {
            Self::F64(state) => state.continued(inbound).map(Elements::F64),
            Self::F128(state) => state.continued(inbound).map(Elements::F128),
        }
    }
}

impl Elements {
    /// Adds as many.
    pub(super) fn accumulate(&mut self, others: &Self) -> Result<(), ShareError> {
        fn add<F: field::Field>(sums: &mut [F], others: &[F]) -> Result<(), ShareError> {
            if sums.len() != others.len() {
                return Err(ShareError::Length);
            }
            sums.iter_mut().zip(others).for_each(|(sum, other)| *sum += *other);
            Ok(())
        }
        match (self, others) {
            (Self::F64(sums), Self::F64(others)) => add(sums, others),
            (Self::F128(sums), Self::F128(others)) => add(sums, others),
            _ => Err(ShareError::Length),
        }
    }

    /// The encoding.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match self {
            Self::F64(elements) => encode(elements, &mut bytes),
            Self::F128(elements) => encode(elements, &mut bytes),
        }
        bytes
    }
}
