//! VDAFs of draft-irtf-cfrg-vdaf-18, which DAP-18 uses, by `prio` 0.18.
//!
//! What both lines of `prio` do alike is in `prio_line.rs`. Each function below is generic over the instances.

use prio18 as prio;
use prio18::{
    codec::Encode as _,
    field::Field64,
    flp::{
        Type,
        gadgets::{Mul, ParallelSum},
        types::{Count, Histogram, MultihotCountVec, Sum, SumVec},
    },
    topology::ping_pong::{
        Continued, PingPongError, PingPongMessage, PingPongState, PingPongTopology as _,
    },
    vdaf::{
        Aggregator, Client, Vdaf as _, VdafError,
        poplar1::{Poplar1, Poplar1VerifierState as Poplar1VerifyState},
        prio3::{Prio3, Prio3VerifyState},
        xof::{Xof, XofTurboShake128},
    },
};

use super::{
    ConfigError, VdafConfig, VerifyError,
    agg_param::Kind::Poplar1V18 as Poplar1Kind,
    message::Message,
    scheme::{Context, HelperStep, LeaderStep},
};

#[path = "prio_line.rs"]
#[allow(clippy::duplicate_mod, reason = "once for each line of `prio`")]
mod line;

#[cfg(test)]
pub(super) use self::line::shard;
pub(super) use self::line::{Aggregate, Instance, Output, VerifyState};
use self::line::{build, decode_shares};

type Products<F> = ParallelSum<F, Mul>;
/// What a sum is computed in.
type SumField = Field64;
/// Bytes of a seed.
const SEED_LEN: usize = 32;

/// The id that is not VDAF-18's own, and Poplar1's.
const MULTIPROOF: u32 = 0xffff_1003;
const POPLAR1: u32 = 6;

/// The draft's number, and the XOF's usage for the joint randomness seed, VDAF-18 §7.2.
const VDAF_DRAFT: u8 = 18;
const JOINT_RAND_SEED: u8 = 6;

impl Instance {
    /// An instance and its id: VDAF-18 §10, and the private `0xFFFF1003`.
    pub(super) fn new(config: &VdafConfig) -> Result<(u32, Self), ConfigError> {
        Ok(match *config {
            VdafConfig::Prio3Count => (1, Self::Count(build(1, 1, Ok(Count::new()))?)),
            VdafConfig::Prio3Sum { max_measurement } => {
                (2, Self::Sum(build(2, 1, Sum::new(max_measurement))?))
            }
            VdafConfig::Prio3SumVec { length, max_measurement, chunk_length } => {
                let circuit =
                    SumVec::new(max_measurement.into(), length as usize, chunk_length as usize);
                (3, Self::SumVec(build(3, 1, circuit)?))
            }
            VdafConfig::Prio3Histogram { length, chunk_length } => {
                let circuit = Histogram::new(length as usize, chunk_length as usize);
                (4, Self::Histogram(build(4, 1, circuit)?))
            }
            VdafConfig::Prio3MultihotCountVec { length, max_weight, chunk_length } => {
                let circuit = MultihotCountVec::new(
                    length as usize,
                    max_weight as usize,
                    chunk_length as usize,
                );
                (5, Self::Multihot(build(5, 1, circuit)?))
            }
            VdafConfig::Prio3SumVecField64MultiproofHmacSha256Aes128 {
                length,
                max_measurement,
                chunk_length,
                proofs,
            } => {
                let circuit = SumVec::new(max_measurement, length as usize, chunk_length as usize);
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
    ctx: &[u8],
    measurement: &V::Measurement,
    nonce: &[u8; 16],
) -> Result<(V::PublicShare, Vec<V::InputShare>), VdafError> {
    vdaf.shard(ctx, measurement, nonce)
}

pub(super) fn leader_init<V: Aggregator<S, 16>, const S: usize>(
    vdaf: &V,
    context: Context<'_>,
    agg_param: &V::AggregationParam,
    public_share: &[u8],
    input_share: &[u8],
) -> Result<(V::VerifyState, Vec<u8>), VerifyError> {
    let (public_share, input_share) = decode_shares(vdaf, 0, public_share, input_share)?;
    let Continued { verifier_state, message } = vdaf
        .leader_initialized(
            context.seed()?,
            context.ctx,
            agg_param,
            context.nonce,
            &public_share,
            &input_share,
        )
        .map_err(|_| VerifyError::Refused)?;
    Ok((verifier_state, write(&message)?))
}

pub(super) fn leader_continued<V: Aggregator<S, 16>, const S: usize>(
    vdaf: &V,
    ctx: &[u8],
    agg_param: &V::AggregationParam,
    state: V::VerifyState,
    inbound: &[u8],
) -> Result<LeaderStep<V::OutputShare>, VerifyError> {
    let state = vdaf
        .leader_continued(ctx, agg_param, state, &read(inbound)?)
        .and_then(|continuation| continuation.evaluate(ctx, vdaf))
        .map_err(|_| VerifyError::Refused)?;
    match state {
        PingPongState::Finished { output_share } => Ok((output_share, None)),
        PingPongState::FinishedWithOutbound { output_share, message } => {
            Ok((output_share, Some(write(&message)?)))
        }
        // No VDAF here has a third round.
        PingPongState::Continued(_) => Err(VerifyError::Refused),
    }
}

/// Whether the leader will accept what the helper does.
pub(super) trait LeaderAgrees<const S: usize>: Aggregator<S, 16> {
    /// Whether the leader's state fits the message with which the helper is about to finish.
    fn leader_agrees(&self, ctx: &[u8], public_share: &[u8], message: &PingPongMessage) -> bool;
}

impl<T: Type, P: Xof<S>, const S: usize> LeaderAgrees<S> for Prio3<T, P, S> {
    // SPEC: VDAF-18 has each aggregator check only what the public share says of the *other's* joint randomness part
    // (§7.2.2). `fast/verify.rs` says what comes of that.
    fn leader_agrees(&self, ctx: &[u8], public_share: &[u8], message: &PingPongMessage) -> bool {
        let PingPongMessage::Finish { verifier_message } = message else { return false };
        if verifier_message.is_empty() {
            return true; // There is no joint randomness.
        }
        // Draft, class of VDAFs, algorithm, usage.
        let mut tag = [VDAF_DRAFT, 0, 0, 0, 0, 0, 0, JOINT_RAND_SEED];
        tag[2..6].copy_from_slice(&self.algorithm_id().to_be_bytes());
        // The public share is the parts, one after the other.
        let mut xof = P::init(&[0; S], &[&tag, ctx]);
        xof.update(public_share);
        xof.into_seed().get_encoded().is_ok_and(|seed| seed == *verifier_message)
    }
}

impl LeaderAgrees<32> for Poplar1<XofTurboShake128, 32> {
    fn leader_agrees(&self, _: &[u8], _: &[u8], _: &PingPongMessage) -> bool {
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
) -> Result<HelperStep<V::OutputShare, V::VerifyState>, VerifyError> {
    let shares = decode_shares(vdaf, 1, public_share, input_share)?;
    let inbound = read(inbound).map_err(|_| VerifyError::PeerShare)?;
    let state = vdaf
        .helper_initialized(
            context.seed()?,
            context.ctx,
            agg_param,
            context.nonce,
            &shares.0,
            &shares.1,
            &inbound,
        )
        .and_then(|continuation| continuation.evaluate(context.ctx, vdaf))
        .map_err(|e| why(&e, &inbound))?;
    match state {
        PingPongState::FinishedWithOutbound { output_share, message } => {
            if !vdaf.leader_agrees(context.ctx, public_share, &message) {
                return Err(VerifyError::Step);
            }
            Ok((Ok(output_share), write(&message)?))
        }
        PingPongState::Continued(Continued { verifier_state, message }) => {
            Ok((Err(verifier_state), write(&message)?))
        }
        PingPongState::Finished { .. } => Err(VerifyError::Refused),
    }
}

fn helper_continued<V: Aggregator<S, 16>, const S: usize>(
    vdaf: &V,
    ctx: &[u8],
    agg_param: &V::AggregationParam,
    state: V::VerifyState,
    inbound: &[u8],
) -> Result<V::OutputShare, VerifyError> {
    let inbound = read(inbound).map_err(|_| VerifyError::PeerMessage)?;
    let state = vdaf
        .helper_continued(ctx, agg_param, state, &inbound)
        .and_then(|continuation| continuation.evaluate(ctx, vdaf))
        .map_err(|e| why(&e, &inbound))?;
    match state {
        PingPongState::Finished { output_share } => Ok(output_share),
        _ => Err(VerifyError::Refused),
    }
}

/// What `prio` says of a report at the helper, after the leader's message.
fn why(e: &PingPongError, inbound: &PingPongMessage) -> VerifyError {
    match e {
        PingPongError::VdafVerifyInit(_) => VerifyError::Init,
        PingPongError::VdafVerifierSharesToMessage(_) => VerifyError::Refused,
        PingPongError::VdafVerifyNext(_) => VerifyError::Step,
        PingPongError::CodecVerifierShare(_) => VerifyError::PeerShare,
        PingPongError::CodecVerifierMessage(_) => VerifyError::PeerMessage,
        PingPongError::PeerMessageMismatch { .. } => match inbound {
            PingPongMessage::Finish { .. } => VerifyError::PeerFinish,
            PingPongMessage::Initialize { .. } | PingPongMessage::Continue { .. } => {
                VerifyError::PeerStep
            }
        },
        // `prio` may name more.
        _ => VerifyError::Refused,
    }
}

fn aggregate_init<V: Aggregator<S, 16>, const S: usize>(
    vdaf: &V,
    agg_param: &V::AggregationParam,
) -> V::AggregateShare {
    vdaf.aggregate_init(agg_param)
}

fn read(bytes: &[u8]) -> Result<PingPongMessage, VerifyError> {
    Ok(match Message::decode(bytes)? {
        Message::Initialize(share) => {
            PingPongMessage::Initialize { verifier_share: share.to_vec() }
        }
        Message::Continue { message, share } => PingPongMessage::Continue {
            verifier_message: message.to_vec(),
            verifier_share: share.to_vec(),
        },
        Message::Finish(message) => PingPongMessage::Finish { verifier_message: message.to_vec() },
    })
}

fn write(message: &PingPongMessage) -> Result<Vec<u8>, VerifyError> {
    match message {
        PingPongMessage::Initialize { verifier_share } => Message::Initialize(verifier_share),
        PingPongMessage::Continue { verifier_message, verifier_share } => {
            Message::Continue { message: verifier_message, share: verifier_share }
        }
        PingPongMessage::Finish { verifier_message } => Message::Finish(verifier_message),
    }
    .encode()
}
