//! Verifiable distributed aggregation functions: how measurements are split, verified and summed.
//!
//! Both drafts of VDAF are the same five instances of Prio3, all of one round, in different encodings. Type
//! parameters and seed sizes end in this folder: outside it a VDAF is [`Vdaf`], and its messages are bytes.
//!
//! No function here reads or draws anything but its arguments, with one exception, [`Vdaf::shard`], which only
//! clients call.

use std::fmt;

use zeroize::Zeroizing;

use crate::{codec::DecodeError, error::ReportError, version::VdafDraft};

mod config;
mod erased;
mod measurement;
mod message;
mod prio_08;
mod prio_18;
pub mod share;
#[cfg(test)]
mod tests;

pub use config::{AGG_SHARE_BYTES_MAX, ConfigError, INPUT_SHARE_BYTES_MAX, VdafConfig};
pub use measurement::{AggregateResult, Measurement, MeasurementError};
pub use share::{FieldKind, ShareError};

/// One report did not verify.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// The public share or our input share cannot be decoded. The client's fault.
    #[error("a share of the report cannot be decoded")]
    UndecodableShare,
    /// The proof is wrong, or the peer's ping-pong message is malformed. The client's fault or the peer's.
    #[error("the report does not verify")]
    Refused,
}

impl From<VerifyError> for ReportError {
    fn from(e: VerifyError) -> Self {
        match e {
            VerifyError::UndecodableShare => Self::InvalidMessage,
            VerifyError::Refused => Self::VdafVerifyError,
        }
    }
}

/// Two aggregate shares do not make a result. The fault of the aggregator named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnshardError {
    /// The leader's share cannot be decoded.
    #[error("the leader's aggregate share cannot be decoded")]
    LeaderShare,
    /// The helper's share cannot be decoded.
    #[error("the helper's aggregate share cannot be decoded")]
    HelperShare,
    /// They decode and do not combine.
    #[error("the aggregate shares do not combine")]
    Combine,
}

/// A verification key has the wrong length: whoever configures the task is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the verification key must have {expected} bytes")]
pub struct VerifyKeyError {
    expected: usize,
}

/// The secret that both aggregators of a task share, and no client may know; of the length its VDAF needs.
/// Made by [`Vdaf::verify_key`].
#[derive(Clone)]
pub struct VerifyKey(Zeroizing<Vec<u8>>);

impl VerifyKey {
    /// The secret bytes, to be sealed.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The key as an array. A key made for a VDAF with another seed size, which the caller must not mix in,
    /// verifies nothing.
    fn seed<const N: usize>(&self) -> Result<&[u8; N], VerifyError> {
        self.0.as_slice().try_into().map_err(|_| VerifyError::Refused)
    }
}

/// A measurement split for the two aggregators, all encoded.
#[derive(Clone)]
pub struct ShardedReport {
    /// For both aggregators, in the clear.
    pub public_share: Vec<u8>,
    /// For the leader, to be sealed.
    pub leader_input_share: Vec<u8>,
    /// For the helper, to be sealed.
    pub helper_input_share: Vec<u8>,
}

/// What the leader remembers of a report between its message and the helper's.
#[derive(Clone)]
pub struct LeaderState {
    /// `prio` panics on the state of another VDAF, so a state knows its own.
    config: VdafConfig,
    state: State,
}

#[derive(Clone)]
enum State {
    V08(prio_08::LeaderState),
    V18(prio_18::LeaderState),
}

/// One aggregator's share of a verified measurement.
#[derive(Clone)]
pub struct OutputShare(Output);

#[derive(Clone)]
enum Output {
    V08(prio_08::Output),
    V18(prio_18::Output),
}

/// The running sum of output shares, of one aggregator.
#[derive(Clone)]
pub struct AggregateShare(Aggregate);

#[derive(Clone)]
enum Aggregate {
    V08(prio_08::Aggregate),
    V18(prio_18::Aggregate),
}

macro_rules! debug_is_the_name {
    ($($name:ident),+) => {
        $(
            /// Prints the type's name: the content is secret.
            impl fmt::Debug for $name {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.write_str(stringify!($name))
                }
            }
        )+
    };
}
debug_is_the_name!(VerifyKey, ShardedReport, LeaderState, OutputShare, AggregateShare);

impl AggregateShare {
    /// Adds one verified report.
    ///
    /// # Errors
    /// [`ShareError::Length`] if the share comes from another VDAF: our own fault.
    pub fn accumulate(&mut self, share: &OutputShare) -> Result<(), ShareError> {
        match (&mut self.0, &share.0) {
            (Aggregate::V08(sum), Output::V08(share)) => sum.accumulate(share),
            (Aggregate::V18(sum), Output::V18(share)) => sum.accumulate(share),
            (Aggregate::V08(_), Output::V18(_)) | (Aggregate::V18(_), Output::V08(_)) => {
                Err(ShareError::Length)
            }
        }
    }

    /// The encoding: [`Vdaf::agg_share_len`] bytes, which [`share::add_assign`] adds.
    /// VDAF-08 §7.2.7.5, VDAF-18 §7.2.7.5.
    pub fn encode(&self) -> Vec<u8> {
        match &self.0 {
            Aggregate::V08(sum) => sum.encode(),
            Aggregate::V18(sum) => sum.encode(),
        }
    }
}

/// A VDAF of a draft with its parameters: everything a task computes.
#[derive(Clone, Debug)]
pub struct Vdaf {
    config: VdafConfig,
    scheme: Scheme,
}

#[derive(Clone, Debug)]
enum Scheme {
    V08(prio_08::Scheme),
    V18(prio_18::Scheme),
}

impl Vdaf {
    /// The VDAF, if these parameters exist in this draft and stay within [`AGG_SHARE_BYTES_MAX`] and
    /// [`INPUT_SHARE_BYTES_MAX`].
    ///
    /// # Errors
    /// [`ConfigError`], the fault of whoever configures the task.
    pub fn new(draft: VdafDraft, config: VdafConfig) -> Result<Self, ConfigError> {
        config.check(draft)?;
        let scheme = match draft {
            VdafDraft::V08 => Scheme::V08(prio_08::Scheme::new(&config)?),
            VdafDraft::V18 => Scheme::V18(prio_18::Scheme::new(&config)?),
        };
        Ok(Self { config, scheme })
    }

    /// Name and parameters.
    pub fn config(&self) -> &VdafConfig {
        &self.config
    }

    /// The draft.
    pub fn draft(&self) -> VdafDraft {
        match &self.scheme {
            Scheme::V08(_) => VdafDraft::V08,
            Scheme::V18(_) => VdafDraft::V18,
        }
    }

    /// Bytes of a verification key: 16 in VDAF-08, but 32 for the instance with HMAC; 32 in VDAF-18.
    pub fn verify_key_len(&self) -> usize {
        match &self.scheme {
            Scheme::V08(prio_08::Scheme::Multiproof(_)) | Scheme::V18(_) => 32,
            Scheme::V08(_) => 16,
        }
    }

    /// Takes a verification key.
    ///
    /// # Errors
    /// [`VerifyKeyError`] unless it has [`Vdaf::verify_key_len`] bytes.
    pub fn verify_key(&self, bytes: &[u8]) -> Result<VerifyKey, VerifyKeyError> {
        let expected = self.verify_key_len();
        if bytes.len() == expected {
            Ok(VerifyKey(Zeroizing::new(bytes.to_vec())))
        } else {
            Err(VerifyKeyError { expected })
        }
    }

    /// The field of aggregate shares. Sums are exact below its prime; above, they wrap.
    pub fn field(&self) -> FieldKind {
        self.config.field(self.draft())
    }

    /// Bytes of an encoded aggregate share.
    pub fn agg_share_len(&self) -> usize {
        let elements = match &self.scheme {
            Scheme::V08(scheme) => scheme.output_len(),
            Scheme::V18(scheme) => scheme.output_len(),
        };
        elements * self.field().element_len()
    }

    /// Splits a measurement; for clients. `ctx` is the application's context, which VDAF-08 does not have and
    /// ignores; `nonce` is the report's id.
    ///
    /// Unlike the rest of the core this draws randomness, from the platform's source: `prio` offers no public
    /// way to supply it.
    ///
    /// # Errors
    /// [`MeasurementError`] if the measurement does not fit, or there is no randomness.
    pub fn shard(
        &self,
        ctx: &[u8],
        measurement: &Measurement,
        nonce: &[u8; 16],
    ) -> Result<ShardedReport, MeasurementError> {
        measurement.check(&self.config)?;
        match &self.scheme {
            Scheme::V08(scheme) => scheme.shard(measurement, nonce),
            Scheme::V18(scheme) => scheme.shard(ctx, measurement, nonce),
        }
    }

    /// Checks an aggregation parameter, which is empty for Prio3.
    ///
    /// # Errors
    /// [`DecodeError`] if it is not: the fault of the collector or leader that sent it.
    pub fn decode_agg_param(&self, bytes: &[u8]) -> Result<(), DecodeError> {
        if bytes.is_empty() {
            Ok(())
        } else {
            Err(DecodeError::Invalid("the aggregation parameter of Prio3 must be empty"))
        }
    }

    /// The leader begins to verify a report. `ctx` and `nonce` are those of [`Vdaf::shard`], the shares are
    /// encoded. Returns what to remember and the ping-pong `initialize` message for the helper.
    /// VDAF-08 §5.8, VDAF-18 §5.7.1.
    ///
    /// # Errors
    /// [`VerifyError`].
    pub fn leader_init(
        &self,
        verify_key: &VerifyKey,
        ctx: &[u8],
        nonce: &[u8; 16],
        public_share: &[u8],
        input_share: &[u8],
    ) -> Result<(LeaderState, Vec<u8>), VerifyError> {
        let (state, message) = match &self.scheme {
            Scheme::V08(scheme) => {
                let (state, message) =
                    scheme.leader_init(verify_key, nonce, public_share, input_share)?;
                (State::V08(state), message)
            }
            Scheme::V18(scheme) => {
                let (state, message) =
                    scheme.leader_init(verify_key, ctx, nonce, public_share, input_share)?;
                (State::V18(state), message)
            }
        };
        Ok((LeaderState { config: self.config, state }, message))
    }

    /// The leader finishes a report with the helper's ping-pong `finish` message.
    /// VDAF-08 §5.8, VDAF-18 §5.7.1.
    ///
    /// # Errors
    /// [`VerifyError::Refused`], the fault of the client or the helper; also for the state of another VDAF, which
    /// is ours.
    pub fn leader_continued(
        &self,
        ctx: &[u8],
        state: LeaderState,
        inbound: &[u8],
    ) -> Result<OutputShare, VerifyError> {
        if state.config != self.config {
            return Err(VerifyError::Refused);
        }
        Ok(OutputShare(match (&self.scheme, state.state) {
            (Scheme::V08(scheme), State::V08(state)) => {
                Output::V08(scheme.leader_continued(state, inbound)?)
            }
            (Scheme::V18(scheme), State::V18(state)) => {
                Output::V18(scheme.leader_continued(ctx, state, inbound)?)
            }
            (Scheme::V08(_), State::V18(_)) | (Scheme::V18(_), State::V08(_)) => {
                return Err(VerifyError::Refused);
            }
        }))
    }

    /// The helper verifies a report with the leader's ping-pong `initialize` message, which is all that a VDAF
    /// of one round needs. Returns its output share and the `finish` message for the leader.
    /// VDAF-08 §5.8, VDAF-18 §5.7.1.
    ///
    /// # Errors
    /// [`VerifyError`].
    pub fn helper_init(
        &self,
        verify_key: &VerifyKey,
        ctx: &[u8],
        nonce: &[u8; 16],
        public_share: &[u8],
        input_share: &[u8],
        inbound: &[u8],
    ) -> Result<(OutputShare, Vec<u8>), VerifyError> {
        Ok(match &self.scheme {
            Scheme::V08(scheme) => {
                let (output, message) =
                    scheme.helper_init(verify_key, nonce, public_share, input_share, inbound)?;
                (OutputShare(Output::V08(output)), message)
            }
            Scheme::V18(scheme) => {
                let (output, message) = scheme.helper_init(
                    verify_key,
                    ctx,
                    nonce,
                    public_share,
                    input_share,
                    inbound,
                )?;
                (OutputShare(Output::V18(output)), message)
            }
        })
    }

    /// The aggregate share of no reports.
    pub fn aggregate_init(&self) -> AggregateShare {
        AggregateShare(match &self.scheme {
            Scheme::V08(scheme) => Aggregate::V08(scheme.aggregate_init()),
            Scheme::V18(scheme) => Aggregate::V18(scheme.aggregate_init()),
        })
    }

    /// The collector adds both encoded aggregate shares of a batch of `report_count` reports.
    ///
    /// # Errors
    /// [`UnshardError`], the fault of the aggregator named.
    pub fn unshard(
        &self,
        leader_share: &[u8],
        helper_share: &[u8],
        report_count: u64,
    ) -> Result<AggregateResult, UnshardError> {
        // None of the instances uses the count; a 32-bit platform need not refuse a large one.
        let report_count = usize::try_from(report_count).unwrap_or(usize::MAX);
        match &self.scheme {
            Scheme::V08(scheme) => scheme.unshard(leader_share, helper_share, report_count),
            Scheme::V18(scheme) => scheme.unshard(leader_share, helper_share, report_count),
        }
    }

    /// The exact aggregate of measurements in the clear, which a correct run must reproduce; for tests and
    /// tools.
    ///
    /// # Errors
    /// [`MeasurementError`] if one does not fit.
    pub fn truth<'a>(
        &self,
        measurements: impl Iterator<Item = &'a Measurement>,
    ) -> Result<AggregateResult, MeasurementError> {
        measurement::truth(&self.config, measurements)
    }
}
