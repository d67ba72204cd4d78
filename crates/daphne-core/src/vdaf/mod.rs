//! Verifiable distributed aggregation functions: how measurements are split, verified and summed.
//!
//! Both drafts of VDAF are six instances of Prio3, of one round, and Poplar1, of two, in different encodings. Type
//! parameters and seed sizes end in this folder: outside it a VDAF is [`Vdaf`], and its messages are bytes.
//!
//! With one round, leader and helper exchange `initialize` and `finish`, and both are done. With two, the helper
//! answers `continue` and keeps a [`HelperState`]; the leader is done and owes the helper a `finish`.
//!
//! No function here reads or draws anything but its arguments, with one exception, [`Vdaf::shard`], which only
//! clients call.

use std::fmt;

use zeroize::Zeroizing;

use crate::{
    codec::{DecodeError, Reader},
    error::ReportError,
    version::VdafDraft,
};

mod agg_param;
mod bits;
mod config;
mod erased;
mod fast;
mod measurement;
mod message;
mod prio_08;
mod prio_18;
mod scheme;
pub mod share;
#[cfg(test)]
mod tests;
mod work;

pub use agg_param::{AGG_PARAM_BYTES_MAX, AggregationParam, PREFIXES_MAX, PrefixesError};
pub use bits::{BitString, BitStringError};
pub use config::{
    AGG_SHARE_BYTES_MAX, ConfigError, INPUT_SHARE_BYTES_MAX, POPLAR1_BITS_MAX, VdafConfig,
};
pub use measurement::{AggregateResult, Measurement, MeasurementError};
pub use share::{FieldKind, ShareError};

use scheme::{Aggregate, Context, Output, Scheme, State};

/// One report did not verify.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// The public share cannot be decoded. The client's fault.
    #[error("the public share of the report cannot be decoded")]
    PublicShare,
    /// Our input share cannot be decoded. The client's fault.
    #[error("the input share of the report cannot be decoded")]
    InputShare,
    /// The peer's ping-pong message, or the verifier share in it, cannot be decoded. The peer's fault.
    #[error("the peer's verifier share cannot be decoded")]
    PeerShare,
    /// The peer's ping-pong message, or the verifier message in it, cannot be decoded. The peer's fault.
    #[error("the peer's verifier message cannot be decoded")]
    PeerMessage,
    /// The peer's ping-pong message is of another kind than the one that comes next. The peer's fault.
    #[error("the peer is at another step")]
    PeerStep,
    /// The peer's ping-pong message is its last, and more must come before it. The peer's fault.
    #[error("the peer finishes too early")]
    PeerFinish,
    /// Verification cannot begin with these shares. The client's fault, or the peer's for its parameter.
    #[error("verification cannot begin")]
    Init,
    /// The verifier message does not fit what was computed before. The client's fault or the peer's.
    #[error("the verifier message does not fit")]
    Step,
    /// The proof is wrong, or what was remembered is of another VDAF. The client's fault, or ours.
    #[error("the report does not verify")]
    Refused,
}

impl VerifyError {
    /// Whether a share of the report cannot be decoded. All else is a report that does not verify.
    pub const fn is_undecodable_share(self) -> bool {
        matches!(self, Self::PublicShare | Self::InputShare)
    }
}

impl From<VerifyError> for ReportError {
    fn from(e: VerifyError) -> Self {
        match e {
            VerifyError::PublicShare | VerifyError::InputShare => Self::InvalidMessage,
            VerifyError::PeerShare
            | VerifyError::PeerMessage
            | VerifyError::PeerStep
            | VerifyError::PeerFinish
            | VerifyError::Init
            | VerifyError::Step
            | VerifyError::Refused => Self::VdafVerifyError,
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
pub struct LeaderState(VerifyState);

/// What the helper remembers of a report between its message and the leader's next one. There is one for VDAFs of
/// several rounds only.
#[derive(Clone)]
pub struct HelperState(VerifyState);

#[derive(Clone)]
struct VerifyState {
    /// `prio` panics on the state of another VDAF, so a state knows its own.
    config: VdafConfig,
    state: State,
}

/// What the helper's message makes of a report at the leader. The leader has verified it in either case.
#[derive(Clone)]
pub enum LeaderTransition {
    /// Both are done.
    Finished(OutputShare),
    /// The leader is done, and the helper waits for this ping-pong message. The output share must not count before the
    /// helper has taken it.
    FinishedWithOutbound(OutputShare, Vec<u8>),
}

/// What the leader's first message makes of a report at the helper.
#[derive(Clone)]
pub enum HelperTransition {
    /// The helper is done.
    Finished {
        /// Its share.
        output: OutputShare,
        /// The ping-pong `finish` message for the leader.
        message: Vec<u8>,
    },
    /// The helper waits for the leader's next message.
    Continued {
        /// What to remember until then.
        state: HelperState,
        /// The ping-pong `continue` message for the leader.
        message: Vec<u8>,
    },
}

/// One aggregator's share of a verified measurement.
#[derive(Clone)]
pub struct OutputShare(Output);

/// The running sum of output shares, of one aggregator.
#[derive(Clone)]
pub struct AggregateShare(Aggregate);

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
debug_is_the_name!(
    VerifyKey,
    ShardedReport,
    LeaderState,
    HelperState,
    LeaderTransition,
    HelperTransition,
    OutputShare,
    AggregateShare
);

/// Bytes before the elements of an encoded [`HelperState`].
const HELPER_STATE_HEADER: usize = 6;

impl HelperState {
    /// What [`Vdaf::decode_helper_state`] reads, [`Vdaf::helper_state_len`] bytes. Secret.
    pub fn encode(&self) -> Vec<u8> {
        // No helper keeps the state of a VDAF that has none; to decode nothing fails.
        self.0.state.encode().unwrap_or_default()
    }
}

impl AggregateShare {
    /// Adds one verified report.
    ///
    /// # Errors
    /// [`ShareError::Length`] if the share comes from another VDAF: our own fault.
    pub fn accumulate(&mut self, share: &OutputShare) -> Result<(), ShareError> {
        self.0.accumulate(&share.0)
    }

    /// The encoding: [`Vdaf::agg_share_len`] bytes, which [`share::add_assign`] adds.
    /// VDAF-08 §7.2.7.5, VDAF-18 §7.2.7.5.
    pub fn encode(&self) -> Vec<u8> {
        self.0.encode()
    }
}

/// A VDAF of a draft with its parameters: everything a task computes.
#[derive(Clone, Debug)]
pub struct Vdaf {
    config: VdafConfig,
    scheme: Scheme,
}

impl Vdaf {
    /// The VDAF, if these parameters exist in this draft and stay within [`AGG_SHARE_BYTES_MAX`] and
    /// [`INPUT_SHARE_BYTES_MAX`].
    ///
    /// # Errors
    /// [`ConfigError`], the fault of whoever configures the task.
    pub fn new(draft: VdafDraft, config: VdafConfig) -> Result<Self, ConfigError> {
        config.check(draft)?;
        Ok(Self { config, scheme: Scheme::new(draft, &config)? })
    }

    /// Name and parameters.
    pub fn config(&self) -> &VdafConfig {
        &self.config
    }

    /// The draft.
    pub fn draft(&self) -> VdafDraft {
        self.scheme.draft()
    }

    /// Bytes of a verification key: 16 in VDAF-08, but 32 for the instance with HMAC; 32 in VDAF-18.
    pub fn verify_key_len(&self) -> usize {
        match (self.draft(), self.config) {
            (VdafDraft::V18, _)
            | (_, VdafConfig::Prio3SumVecField64MultiproofHmacSha256Aes128 { .. }) => 32,
            (VdafDraft::V08, _) => 16,
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

    /// Rounds of verification: how often each aggregator tells the other something.
    pub fn rounds(&self) -> u32 {
        match self.config {
            VdafConfig::Poplar1 { .. } => 2,
            _ => 1,
        }
    }

    /// The field of aggregate shares, as far as the task decides it: see [`FieldKind::at`]. Sums are exact below its
    /// prime; above, they wrap.
    pub fn field(&self) -> FieldKind {
        self.config.field(self.draft())
    }

    /// Elements of an aggregate share; none if the parameter says how many.
    fn output_len(&self) -> usize {
        self.scheme.output_len()
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
        self.scheme.shard(ctx, measurement, nonce)
    }

    /// The leader begins to verify a report. `ctx` and `nonce` are those of [`Vdaf::shard`], the shares are
    /// encoded. Returns what to remember and the ping-pong `initialize` message for the helper.
    /// VDAF-08 §5.8, VDAF-18 §5.7.1.
    ///
    /// # Errors
    /// [`VerifyError`]; also for the parameter of another VDAF, which is our fault.
    pub fn leader_init(
        &self,
        verify_key: &VerifyKey,
        ctx: &[u8],
        agg_param: &AggregationParam,
        nonce: &[u8; 16],
        public_share: &[u8],
        input_share: &[u8],
    ) -> Result<(LeaderState, Vec<u8>), VerifyError> {
        self.check_param(agg_param)?;
        let context = Context { verify_key: verify_key.as_bytes(), ctx, nonce };
        let (state, message) =
            self.scheme.leader_init(context, agg_param, public_share, input_share)?;
        Ok((LeaderState(self.own(state)), message))
    }

    /// The leader goes on with the helper's ping-pong message: `finish` for a VDAF of one round, `continue` for one of
    /// two. VDAF-08 §5.8, VDAF-18 §5.7.1.
    ///
    /// # Errors
    /// [`VerifyError`], the fault of the client or the helper; also for the state or parameter of another
    /// VDAF, which is ours.
    pub fn leader_continued(
        &self,
        ctx: &[u8],
        state: LeaderState,
        agg_param: &AggregationParam,
        inbound: &[u8],
    ) -> Result<LeaderTransition, VerifyError> {
        self.check_param(agg_param)?;
        let state = self.disown(state.0)?;
        let (output, message) = self.scheme.leader_continued(ctx, agg_param, state, inbound)?;
        let output = OutputShare(output);
        Ok(match message {
            None => LeaderTransition::Finished(output),
            Some(message) => LeaderTransition::FinishedWithOutbound(output, message),
        })
    }

    /// The helper verifies a report with the leader's ping-pong `initialize` message. With one round it is done, with
    /// two it waits for the leader. VDAF-08 §5.8, VDAF-18 §5.7.1.
    ///
    /// # Errors
    /// [`VerifyError`]; also for the parameter of another VDAF, which is our fault.
    #[expect(clippy::too_many_arguments, reason = "these are the draft's")]
    pub fn helper_init(
        &self,
        verify_key: &VerifyKey,
        ctx: &[u8],
        agg_param: &AggregationParam,
        nonce: &[u8; 16],
        public_share: &[u8],
        input_share: &[u8],
        inbound: &[u8],
    ) -> Result<HelperTransition, VerifyError> {
        self.check_param(agg_param)?;
        let context = Context { verify_key: verify_key.as_bytes(), ctx, nonce };
        let (state, message) =
            self.scheme.helper_init(context, agg_param, public_share, input_share, inbound)?;
        Ok(match state {
            Ok(output) => HelperTransition::Finished { output: OutputShare(output), message },
            Err(state) => {
                HelperTransition::Continued { state: HelperState(self.own(state)), message }
            }
        })
    }

    /// The helper finishes a report with the leader's ping-pong `finish` message, and has nothing to answer.
    /// VDAF-08 §5.8, VDAF-18 §5.7.1.
    ///
    /// # Errors
    /// [`VerifyError`], the leader's fault; also for the state or parameter of another VDAF, which is ours.
    pub fn helper_continued(
        &self,
        ctx: &[u8],
        state: HelperState,
        agg_param: &AggregationParam,
        inbound: &[u8],
    ) -> Result<OutputShare, VerifyError> {
        self.check_param(agg_param)?;
        let state = self.disown(state.0)?;
        self.scheme.helper_continued(ctx, agg_param, state, inbound).map(OutputShare)
    }

    /// Bytes of an encoded [`HelperState`]; 0 for a VDAF of one round, which has none.
    pub fn helper_state_len(&self, agg_param: &AggregationParam) -> usize {
        match self.config {
            VdafConfig::Poplar1 { .. } => HELPER_STATE_HEADER + self.agg_share_len(agg_param),
            _ => 0,
        }
    }

    /// Reads what [`HelperState::encode`] wrote for the same VDAF and parameter.
    ///
    /// # Errors
    /// [`DecodeError`] for any other bytes: our fault, we kept them.
    pub fn decode_helper_state(
        &self,
        agg_param: &AggregationParam,
        bytes: &[u8],
    ) -> Result<HelperState, DecodeError> {
        let invalid = DecodeError::Invalid("the helper's state is broken");
        if !self.owns(agg_param) || bytes.len() != self.helper_state_len(agg_param) {
            return Err(invalid);
        }
        // How `prio` writes it: inner node or leaf, the first or the second round, the number of elements, and these.
        let mut r = Reader::new(bytes);
        let header = (r.u8()?, r.u8()?, r.u32()?);
        let count = u32::try_from(agg_param.prefix_count()).map_err(|_| invalid)?;
        if header != (u8::from(agg_param.is_leaf()), 1, count) {
            return Err(invalid);
        }
        let state = self.scheme.decode_helper_state(bytes).ok_or(invalid)?;
        Ok(HelperState(self.own(state)))
    }

    /// The aggregate share of no reports. To that of another VDAF's parameter nothing can be added.
    pub fn aggregate_init(&self, agg_param: &AggregationParam) -> AggregateShare {
        AggregateShare(self.scheme.aggregate_init(agg_param))
    }

    /// The collector adds both encoded aggregate shares of a batch of `report_count` reports.
    ///
    /// # Errors
    /// [`UnshardError`], the fault of the aggregator named.
    pub fn unshard(
        &self,
        agg_param: &AggregationParam,
        leader_share: &[u8],
        helper_share: &[u8],
        report_count: u64,
    ) -> Result<AggregateResult, UnshardError> {
        if !self.owns(agg_param) {
            return Err(UnshardError::Combine);
        }
        // None of the instances uses the count; a 32-bit platform need not refuse a large one.
        let report_count = usize::try_from(report_count).unwrap_or(usize::MAX);
        self.scheme.unshard(agg_param, leader_share, helper_share, report_count)
    }

    /// The exact aggregate of measurements in the clear, which a correct run must reproduce; for tests and
    /// tools.
    ///
    /// # Errors
    /// [`MeasurementError`] if one does not fit.
    pub fn truth<'a>(
        &self,
        agg_param: &AggregationParam,
        measurements: impl Iterator<Item = &'a Measurement>,
    ) -> Result<AggregateResult, MeasurementError> {
        measurement::truth(&self.config, agg_param, measurements)
    }

    fn check_param(&self, agg_param: &AggregationParam) -> Result<(), VerifyError> {
        if self.owns(agg_param) { Ok(()) } else { Err(VerifyError::Refused) }
    }

    fn own(&self, state: State) -> VerifyState {
        VerifyState { config: self.config, state }
    }

    fn disown(&self, state: VerifyState) -> Result<State, VerifyError> {
        if state.config == self.config { Ok(state.state) } else { Err(VerifyError::Refused) }
    }
}
