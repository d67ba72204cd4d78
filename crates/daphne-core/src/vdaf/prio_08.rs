//! VDAFs of draft-irtf-cfrg-vdaf-08, which DAP-09 uses, by `prio` 0.16.
//!
//! What both lines of `prio` do alike is in `prio_line.rs`. Each function below is generic over the instances.

use prio08 as prio;
use prio08::{
    codec::Encode as _,
    field::Field128,
    flp::{
        Type,
        gadgets::{Mul, ParallelSum},
        types::{Count, Histogram, MultihotCountVec, Sum, SumVec},
    },
    topology::ping_pong::{
        PingPongContinuedValue, PingPongError, PingPongMessage, PingPongState,
        PingPongTopology as _,
    },
    vdaf::{
        Aggregator, Client, Vdaf as _, VdafError,
        poplar1::{Poplar1, Poplar1PrepareState as Poplar1VerifyState},
        prio3::{Prio3, Prio3PrepareState as Prio3VerifyState},
        xof::{Xof, XofTurboShake128},
    },
};

use super::{
    ConfigError, VdafConfig, VerifyError,
    agg_param::Kind::Poplar1V08 as Poplar1Kind,
    config::bits,
    message::Message,
    scheme::{Context, HelperStep, LeaderStep},
};
use crate::version::VdafDraft;

#[path = "prio_line.rs"]
#[allow(clippy::duplicate_mod, reason = "once for each line of `prio`")]
mod line;

#[cfg(test)]
pub(super) use self::line::shard;
pub(super) use self::line::{Aggregate, Instance, Output, VerifyState};
use self::line::{build, decode_shares};

type Products<F> = ParallelSum<F, Mul<F>>;
/// What a sum is computed in.
type SumField = Field128;
/// Bytes of a seed, but for the instance with HMAC.
const SEED_LEN: usize = 16;

/// The XOF's usage for the joint randomness seed, VDAF-08 §7.2.
const JOINT_RAND_SEED: u16 = 6;

/// The ids that are not VDAF-08's own, and Poplar1's.
const MULTIHOT: u32 = 0xffff_0000;
const MULTIPROOF: u32 = 0xffff_1003;
const POPLAR1: u32 = 0x1000;

impl Instance {
    /// An instance and its id: VDAF-08 §10, and the private `0xFFFF0000` and `0xFFFF1003`.
    pub(super) fn new(config: &VdafConfig) -> Result<(u32, Self), ConfigError> {
        let bits = |max| Ok(bits(VdafDraft::V08, max)? as usize);
        Ok(match *config {
            VdafConfig::Prio3Count => (0, Self::Count(build(0, 1, Ok(Count::new()))?)),
            VdafConfig::Prio3Sum { max_measurement } => {
                (1, Self::Sum(build(1, 1, Sum::new(bits(max_measurement)?))?))
            }
            VdafConfig::Prio3SumVec { length, max_measurement, chunk_length } => {
                let bits = bits(max_measurement)?;
                let circuit = SumVec::new(bits, length as usize, chunk_length as usize);
                (2, Self::SumVec(build(2, 1, circuit)?))
            }
            VdafConfig::Prio3Histogram { length, chunk_length } => {
                let circuit = Histogram::new(length as usize, chunk_length as usize);
                (3, Self::Histogram(build(3, 1, circuit)?))
            }
            VdafConfig::Prio3MultihotCountVec { length, max_weight, chunk_length } => {
                let circuit = MultihotCountVec::new(
                    length as usize,
                    max_weight as usize,
                    chunk_length as usize,
                );
                (MULTIHOT, Self::Multihot(build(MULTIHOT, 1, circuit)?))
            }
            VdafConfig::Prio3SumVecField64MultiproofHmacSha256Aes128 {
                length,
                max_measurement,
                chunk_length,
                proofs,
            } => {
                let bits = bits(max_measurement)?;
                let circuit = SumVec::new(bits, length as usize, chunk_length as usize);
                (MULTIPROOF, Self::Multiproof(build(MULTIPROOF, proofs, circuit)?))
            }
            VdafConfig::Poplar1 { bits } => {
                (POPLAR1, Self::Poplar1(Poplar1::new_turboshake128(bits.into())))
            }
        })
    }
}

fn split<V: Client<16>>(
    vdaf: &V,
    _ctx: &[u8],
    measurement: &V::Measurement,
    nonce: &[u8; 16],
) -> Result<(V::PublicShare, Vec<V::InputShare>), VdafError> {
    vdaf.shard(measurement, nonce)
}

pub(super) fn leader_init<V: Aggregator<S, 16>, const S: usize>(
    vdaf: &V,
    context: Context<'_>,
    agg_param: &V::AggregationParam,
    public_share: &[u8],
    input_share: &[u8],
) -> Result<(V::PrepareState, Vec<u8>), VerifyError> {
    let (public_share, input_share) = decode_shares(vdaf, 0, public_share, input_share)?;
    let (state, message) = vdaf
        .leader_initialized(context.seed()?, agg_param, context.nonce, &public_share, &input_share)
        .map_err(|_| VerifyError::Refused)?;
    match state {
        PingPongState::Continued(state) => Ok((state, write(&message)?)),
        PingPongState::Finished(_) => Err(VerifyError::Refused),
    }
}

pub(super) fn leader_continued<V: Aggregator<S, 16>, const S: usize>(
    vdaf: &V,
    _ctx: &[u8],
    agg_param: &V::AggregationParam,
    state: V::PrepareState,
    inbound: &[u8],
) -> Result<LeaderStep<V::OutputShare>, VerifyError> {
    let value = vdaf
        .leader_continued(PingPongState::Continued(state), agg_param, &read(inbound)?)
        .map_err(|_| VerifyError::Refused)?;
    match value {
        PingPongContinuedValue::FinishedNoMessage { output_share } => Ok((output_share, None)),
        PingPongContinuedValue::WithMessage { transition } => {
            match transition.evaluate(vdaf).map_err(|_| VerifyError::Refused)? {
                (PingPongState::Finished(output), message) => Ok((output, Some(write(&message)?))),
                // No VDAF here has a third round.
                (PingPongState::Continued(_), _) => Err(VerifyError::Refused),
            }
        }
    }
}

/// Whether the leader will accept what the helper does.
pub(super) trait LeaderAgrees<const S: usize>: Aggregator<S, 16> {
    /// Whether the leader's state fits the message with which the helper is about to finish.
    fn leader_agrees(&self, public_share: &[u8], message: &PingPongMessage) -> bool;
}

impl<T: Type, P: Xof<S>, const S: usize> LeaderAgrees<S> for Prio3<T, P, S> {
    // SPEC: VDAF-08 has each aggregator check only what the public share says of the *other's* joint randomness part
    // (§7.2.2). `fast/verify.rs` says what comes of that.
    fn leader_agrees(&self, public_share: &[u8], message: &PingPongMessage) -> bool {
        let PingPongMessage::Finish { prep_msg } = message else { return false };
        if prep_msg.is_empty() {
            return true; // There is no joint randomness.
        }
        // The public share is the parts, one after the other.
        let mut xof = P::init(&[0; S], &self.domain_separation_tag(JOINT_RAND_SEED));
        xof.update(public_share);
        xof.into_seed().get_encoded().is_ok_and(|seed| seed == *prep_msg)
    }
}

impl LeaderAgrees<16> for Poplar1<XofTurboShake128, 16> {
    fn leader_agrees(&self, _public_share: &[u8], _message: &PingPongMessage) -> bool {
        true // It has no such hints, and the leader finishes first.
    }
}

pub(super) fn helper_init<V: LeaderAgrees<S>, const S: usize>(
    vdaf: &V,
    context: Context<'_>,
    agg_param: &V::AggregationParam,
    public_share: &[u8],
    input_share: &[u8],
    inbound: &[u8],
) -> Result<HelperStep<V::OutputShare, V::PrepareState>, VerifyError> {
    let shares = decode_shares(vdaf, 1, public_share, input_share)?;
    let inbound = read(inbound).map_err(|_| VerifyError::PeerShare)?;
    let (state, message) = vdaf
        .helper_initialized(
            context.seed()?,
            agg_param,
            context.nonce,
            &shares.0,
            &shares.1,
            &inbound,
        )
        .and_then(|transition| transition.evaluate(vdaf))
        .map_err(|e| why(&e, &inbound))?;
    if !vdaf.leader_agrees(public_share, &message) {
        return Err(VerifyError::Step);
    }
    let state = match state {
        PingPongState::Finished(output) => Ok(output),
        PingPongState::Continued(state) => Err(state),
    };
    Ok((state, write(&message)?))
}

fn helper_continued<V: Aggregator<S, 16>, const S: usize>(
    vdaf: &V,
    _ctx: &[u8],
    agg_param: &V::AggregationParam,
    state: V::PrepareState,
    inbound: &[u8],
) -> Result<V::OutputShare, VerifyError> {
    let inbound = read(inbound).map_err(|_| VerifyError::PeerMessage)?;
    let value = vdaf
        .helper_continued(PingPongState::Continued(state), agg_param, &inbound)
        .map_err(|e| why(&e, &inbound))?;
    match value {
        PingPongContinuedValue::FinishedNoMessage { output_share } => Ok(output_share),
        PingPongContinuedValue::WithMessage { .. } => Err(VerifyError::Refused),
    }
}

/// What `prio` says of a report at the helper, after the leader's message.
fn why(e: &PingPongError, inbound: &PingPongMessage) -> VerifyError {
    match e {
        PingPongError::VdafPrepareInit(_) => VerifyError::Init,
        PingPongError::VdafPrepareSharesToPrepareMessage(_) => VerifyError::Refused,
        PingPongError::VdafPrepareNext(_) => VerifyError::Step,
        PingPongError::CodecPrepShare(_) => VerifyError::PeerShare,
        PingPongError::CodecPrepMessage(_) => VerifyError::PeerMessage,
        PingPongError::PeerMessageMismatch { .. } => match inbound {
            PingPongMessage::Finish { .. } => VerifyError::PeerFinish,
            PingPongMessage::Initialize { .. } | PingPongMessage::Continue { .. } => {
                VerifyError::PeerStep
            }
        },
        // `prio` may name more; so far that is us being at the wrong step, which we never are.
        _ => VerifyError::Refused,
    }
}

fn aggregate_init<V: Aggregator<S, 16>, const S: usize>(
    vdaf: &V,
    agg_param: &V::AggregationParam,
) -> V::AggregateShare {
    // Unwrap safety: only adding fails, and nothing is added.
    vdaf.aggregate(agg_param, None).unwrap()
}

fn read(bytes: &[u8]) -> Result<PingPongMessage, VerifyError> {
    Ok(match Message::decode(bytes)? {
        Message::Initialize(share) => PingPongMessage::Initialize { prep_share: share.to_vec() },
        Message::Continue { message, share } => {
            PingPongMessage::Continue { prep_msg: message.to_vec(), prep_share: share.to_vec() }
        }
        Message::Finish(message) => PingPongMessage::Finish { prep_msg: message.to_vec() },
    })
}

fn write(message: &PingPongMessage) -> Result<Vec<u8>, VerifyError> {
    match message {
        PingPongMessage::Initialize { prep_share } => Message::Initialize(prep_share),
        PingPongMessage::Continue { prep_msg, prep_share } => {
            Message::Continue { message: prep_msg, share: prep_share }
        }
        PingPongMessage::Finish { prep_msg } => Message::Finish(prep_msg),
    }
    .encode()
}
