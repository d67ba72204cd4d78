//! Who computes a VDAF: `prio`, of which there is a line for each draft; and [`fast`], where Prio3 has one proof, for the
//! aggregators.

use std::sync::Arc;

use super::{
    AggregateResult, AggregationParam, ConfigError, Measurement, MeasurementError, ShardedReport,
    ShareError, UnshardError, VdafConfig, VerifyError,
    fast::{self, Elements, Verifier},
    prio_08, prio_18,
};
use crate::version::VdafDraft;

/// A VDAF of a draft.
#[derive(Clone, Debug)]
pub(super) struct Scheme {
    prio: Line,
    /// The aggregator of Prio3 with one proof.
    verifier: Option<Arc<Verifier>>,
}

#[derive(Clone, Debug)]
enum Line {
    V08(prio_08::Instance),
    V18(prio_18::Instance),
}

/// What an aggregator remembers between its steps.
#[derive(Clone)]
pub(super) enum State {
    Fast(VdafDraft, fast::LeaderState),
    V08(prio_08::VerifyState),
    V18(prio_18::VerifyState),
}

/// A verified report's share.
#[derive(Clone)]
pub(super) enum Output {
    Fast(VdafDraft, Elements),
    V08(prio_08::Output),
    V18(prio_18::Output),
}

/// The sum of output shares.
#[derive(Clone)]
pub(super) enum Aggregate {
    Fast(VdafDraft, Elements),
    V08(prio_08::Aggregate),
    V18(prio_18::Aggregate),
}

/// Who verifies which report: the same for the whole of it.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    /// The verification key's bytes. Secret.
    pub(super) verify_key: &'a [u8],
    /// The application's context; VDAF-08 ignores it.
    pub(super) ctx: &'a [u8],
    /// The report's id.
    pub(super) nonce: &'a [u8; 16],
}

impl<'a> Context<'a> {
    /// The verification key as an array. A key made for a VDAF with another seed size, which callers must not mix in,
    /// verifies nothing.
    pub(super) fn seed<const N: usize>(&self) -> Result<&'a [u8; N], VerifyError> {
        self.verify_key.try_into().map_err(|_| VerifyError::Refused)
    }
}

/// The leader's step after its first: an output share, and what it owes the helper.
pub(super) type LeaderStep<O> = (O, Option<Vec<u8>>);

/// The helper's first step: an output share, or what it remembers until it has one; and its message.
pub(super) type HelperStep<O, S> = (Result<O, S>, Vec<u8>);

impl Scheme {
    pub(super) fn new(draft: VdafDraft, config: &VdafConfig) -> Result<Self, ConfigError> {
        let (id, prio) = match draft {
            VdafDraft::V08 => {
                let (id, instance) = prio_08::Instance::new(config)?;
                (id, Line::V08(instance))
            }
            VdafDraft::V18 => {
                let (id, instance) = prio_18::Instance::new(config)?;
                (id, Line::V18(instance))
            }
        };
        let verifier = match config {
            VdafConfig::Prio3SumVecField64MultiproofHmacSha256Aes128 { .. }
            | VdafConfig::Poplar1 { .. } => None,
            _ => Some(Arc::new(Verifier::new(draft, id, config).ok_or_else(too_many_calls)?)),
        };
        Ok(Self { prio, verifier })
    }

    pub(super) fn draft(&self) -> VdafDraft {
        match &self.prio {
            Line::V08(_) => VdafDraft::V08,
            Line::V18(_) => VdafDraft::V18,
        }
    }

    /// Elements of an aggregate share; for Poplar1, whose parameter says how many, none.
    pub(super) fn output_len(&self) -> usize {
        match &self.prio {
            Line::V08(instance) => instance.output_len(),
            Line::V18(instance) => instance.output_len(),
        }
    }

    pub(super) fn shard(
        &self,
        ctx: &[u8],
        measurement: &Measurement,
        nonce: &[u8; 16],
    ) -> Result<ShardedReport, MeasurementError> {
        match &self.prio {
            Line::V08(instance) => instance.shard(ctx, measurement, nonce),
            Line::V18(instance) => instance.shard(ctx, measurement, nonce),
        }
    }

    pub(super) fn leader_init(
        &self,
        context: Context<'_>,
        agg_param: &AggregationParam,
        public_share: &[u8],
        input_share: &[u8],
    ) -> Result<(State, Vec<u8>), VerifyError> {
        Ok(match (&self.verifier, &self.prio) {
            (Some(verifier), _) => {
                let (state, message) = verifier.leader_init(context, public_share, input_share)?;
                (State::Fast(self.draft(), state), message)
            }
            (None, Line::V08(instance)) => {
                let (state, message) =
                    instance.leader_init(context, agg_param, public_share, input_share)?;
                (State::V08(state), message)
            }
            (None, Line::V18(instance)) => {
                let (state, message) =
                    instance.leader_init(context, agg_param, public_share, input_share)?;
                (State::V18(state), message)
            }
        })
    }

    pub(super) fn leader_continued(
        &self,
        ctx: &[u8],
        agg_param: &AggregationParam,
        state: State,
        inbound: &[u8],
    ) -> Result<LeaderStep<Output>, VerifyError> {
        Ok(match (&self.prio, state) {
            (_, State::Fast(draft, state)) if draft == self.draft() => {
                (Output::Fast(draft, state.continued(inbound)?), None)
            }
            (Line::V08(instance), State::V08(state)) => {
                let (output, message) =
                    instance.leader_continued(ctx, agg_param, state, inbound)?;
                (Output::V08(output), message)
            }
            (Line::V18(instance), State::V18(state)) => {
                let (output, message) =
                    instance.leader_continued(ctx, agg_param, state, inbound)?;
                (Output::V18(output), message)
            }
            (Line::V08(_), State::V18(_) | State::Fast(..))
            | (Line::V18(_), State::V08(_) | State::Fast(..)) => return Err(VerifyError::Refused),
        })
    }

    pub(super) fn helper_init(
        &self,
        context: Context<'_>,
        agg_param: &AggregationParam,
        public_share: &[u8],
        input_share: &[u8],
        inbound: &[u8],
    ) -> Result<HelperStep<Output, State>, VerifyError> {
        Ok(match (&self.verifier, &self.prio) {
            (Some(verifier), _) => {
                let (output, message) =
                    verifier.helper_init(context, public_share, input_share, inbound)?;
                (Ok(Output::Fast(self.draft(), output)), message)
            }
            (None, Line::V08(instance)) => {
                let (state, message) =
                    instance.helper_init(context, agg_param, public_share, input_share, inbound)?;
                (state.map(Output::V08).map_err(State::V08), message)
            }
            (None, Line::V18(instance)) => {
                let (state, message) =
                    instance.helper_init(context, agg_param, public_share, input_share, inbound)?;
                (state.map(Output::V18).map_err(State::V18), message)
            }
        })
    }

    pub(super) fn helper_continued(
        &self,
        ctx: &[u8],
        agg_param: &AggregationParam,
        state: State,
        inbound: &[u8],
    ) -> Result<Output, VerifyError> {
        match (&self.prio, state) {
            (Line::V08(instance), State::V08(state)) => {
                instance.helper_continued(ctx, agg_param, state, inbound).map(Output::V08)
            }
            (Line::V18(instance), State::V18(state)) => {
                instance.helper_continued(ctx, agg_param, state, inbound).map(Output::V18)
            }
            // With one proof the helper has one step.
            (Line::V08(_), State::V18(_) | State::Fast(..))
            | (Line::V18(_), State::V08(_) | State::Fast(..)) => Err(VerifyError::Refused),
        }
    }

    /// A helper's state between its two steps, as `prio` writes it. The caller has checked that the bytes begin as
    /// they must, and how many they are.
    pub(super) fn decode_helper_state(&self, bytes: &[u8]) -> Option<State> {
        match &self.prio {
            Line::V08(instance) => instance.decode_helper_state(bytes).map(State::V08),
            Line::V18(instance) => instance.decode_helper_state(bytes).map(State::V18),
        }
    }

    pub(super) fn aggregate_init(&self, agg_param: &AggregationParam) -> Aggregate {
        match (&self.verifier, &self.prio) {
            (Some(verifier), _) => Aggregate::Fast(self.draft(), verifier.aggregate_init()),
            (None, Line::V08(instance)) => Aggregate::V08(instance.aggregate_init(agg_param)),
            (None, Line::V18(instance)) => Aggregate::V18(instance.aggregate_init(agg_param)),
        }
    }

    pub(super) fn unshard(
        &self,
        agg_param: &AggregationParam,
        leader_share: &[u8],
        helper_share: &[u8],
        report_count: usize,
    ) -> Result<AggregateResult, UnshardError> {
        match &self.prio {
            Line::V08(instance) => {
                instance.unshard(agg_param, leader_share, helper_share, report_count)
            }
            Line::V18(instance) => {
                instance.unshard(agg_param, leader_share, helper_share, report_count)
            }
        }
    }
}

/// What would be a proof of more than [`super::INPUT_SHARE_BYTES_MAX`].
fn too_many_calls() -> ConfigError {
    ConfigError("the VDAF refuses this: the gadget is called too often".to_owned())
}

impl State {
    /// What [`Scheme::decode_helper_state`] reads. Only a VDAF of several rounds has such a state.
    pub(super) fn encode(&self) -> Option<Vec<u8>> {
        match self {
            State::Fast(..) => None,
            State::V08(state) => state.encode(),
            State::V18(state) => state.encode(),
        }
    }
}

impl Aggregate {
    pub(super) fn accumulate(&mut self, output: &Output) -> Result<(), ShareError> {
        match (self, output) {
            (Aggregate::Fast(draft, sum), Output::Fast(of, share)) if draft == of => {
                sum.accumulate(share)
            }
            (Aggregate::V08(sum), Output::V08(share)) => sum.accumulate(share),
            (Aggregate::V18(sum), Output::V18(share)) => sum.accumulate(share),
            (Aggregate::Fast(..) | Aggregate::V08(_) | Aggregate::V18(_), _) => {
                Err(ShareError::Length)
            }
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        match self {
            Aggregate::Fast(_, sum) => sum.encode(),
            Aggregate::V08(sum) => sum.encode(),
            Aggregate::V18(sum) => sum.encode(),
        }
    }
}
