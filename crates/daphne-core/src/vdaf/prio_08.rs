//! VDAFs of draft-irtf-cfrg-vdaf-08, which DAP-09 uses, by `prio` 0.16.
//!
//! Each function below is generic over the instances; [`Scheme`] picks the instance.

use std::sync::Arc;

use prio08::{
    codec::{Encode, ParameterizedDecode},
    field::{Field64, Field128, FieldElement},
    flp::{
        Type,
        gadgets::{Mul, ParallelSum},
        types::{Count, Histogram, MultihotCountVec, Sum, SumVec},
    },
    idpf::IdpfInput,
    topology::ping_pong::{
        PingPongContinuedValue, PingPongError, PingPongMessage, PingPongState, PingPongTopology,
    },
    vdaf::{
        Aggregatable as _, AggregateShare, Aggregator, Client, Collector, OutputShare, Vdaf,
        poplar1::{Poplar1, Poplar1FieldVec, Poplar1PrepareState},
        prio3::{Prio3, Prio3PrepareState},
        xof::{Xof, XofHmacSha256Aes128, XofTurboShake128},
    },
};

use super::{
    AggregateResult, ConfigError, Measurement, MeasurementError, ShardedReport, ShareError,
    UnshardError, VdafConfig, VerifyError, VerifyKey,
    agg_param::{AggregationParam, Kind},
    config::{INPUT_SHARE_BYTES_MAX, bits, too_long},
    erased::erased,
    fast::{self, Context, Elements, Verifier},
    message::Message,
};
use crate::version::VdafDraft;

type Products<F> = ParallelSum<F, Mul<F>>;

/// The XOF's usage for the joint randomness seed, VDAF-08 §7.2.
const JOINT_RAND_SEED: u16 = 6;

/// The id of the instance that VDAF-08 does not have.
const MULTIHOT: u32 = 0xffff_0000;

/// The instances, by their ids in VDAF-08 §10 and the private `0xFFFF0000` and `0xFFFF1003`.
#[derive(Clone, Debug)]
pub(super) enum Scheme {
    /// Those with one proof: clients and collectors are `prio`'s, aggregators are ours.
    Prio3(Instance, Arc<Verifier>),
    Multiproof(Prio3<SumVec<Field64, Products<Field64>>, XofHmacSha256Aes128, 32>),
    Poplar1(Poplar1<XofTurboShake128, 16>),
}

/// Prio3 with one proof.
#[derive(Clone, Debug)]
pub(super) enum Instance {
    Count(Prio3<Count<Field64>, XofTurboShake128, 16>),
    Sum(Prio3<Sum<Field128>, XofTurboShake128, 16>),
    SumVec(Prio3<SumVec<Field128, Products<Field128>>, XofTurboShake128, 16>),
    Histogram(Prio3<Histogram<Field128, Products<Field128>>, XofTurboShake128, 16>),
    Multihot(Prio3<MultihotCountVec<Field128, Products<Field128>>, XofTurboShake128, 16>),
}

erased! {
    /// What an aggregator remembers between its steps.
    VerifyState {
        Prio3(fast::LeaderState),
        Multiproof(Prio3PrepareState<Field64, 32>),
        Poplar1(Poplar1PrepareState),
    }
}

erased! {
    /// A verified report's share.
    Output {
        Prio3(Elements),
        Multiproof(OutputShare<Field64>),
        Poplar1(Poplar1FieldVec),
    }
}

erased! {
    /// The sum of output shares.
    Aggregate {
        Prio3(Elements),
        Multiproof(AggregateShare<Field64>),
        Poplar1(Poplar1FieldVec),
    }
}

/// The leader's step after its first. As [`super::LeaderTransition`].
pub(super) type LeaderStep = (Output, Option<Vec<u8>>);

/// The helper's first step. As [`super::HelperTransition`].
pub(super) type HelperStep = Transition<Output, VerifyState>;

/// An output share, or what a helper remembers until it has one; and its message.
pub(super) type Transition<O, S> = (Result<O, S>, Vec<u8>);

/// Evaluates the body with the instance of `prio` and its parameter; the other expression if the aggregator is not `prio`'s, or
/// the parameter is of another VDAF.
macro_rules! each {
    ($scheme:expr, $param:expr, ($vdaf:ident, $agg_param:ident) => $body:expr, else $mismatch:expr) => {
        match ($scheme, &$param.kind) {
            (Scheme::Multiproof($vdaf), Kind::Prio3) => each!(@prio3 $agg_param $body),
            (Scheme::Poplar1($vdaf), Kind::Poplar1V08($agg_param)) => $body,
            _ => $mismatch,
        }
    };
    (@prio3 $agg_param:ident $body:expr) => {{
        let $agg_param = &();
        $body
    }};
}

impl Scheme {
    pub(super) fn new(config: &VdafConfig) -> Result<Self, ConfigError> {
        let bits = |max| Ok(bits(VdafDraft::V08, max)? as usize);
        let (id, instance) = match *config {
            VdafConfig::Prio3Count => (0, Instance::Count(build(0, 1, Ok(Count::new()))?)),
            VdafConfig::Prio3Sum { max_measurement } => {
                (1, Instance::Sum(build(1, 1, Sum::new(bits(max_measurement)?))?))
            }
            VdafConfig::Prio3SumVec { length, max_measurement, chunk_length } => {
                let bits = bits(max_measurement)?;
                let circuit = SumVec::new(bits, length as usize, chunk_length as usize);
                (2, Instance::SumVec(build(2, 1, circuit)?))
            }
            VdafConfig::Prio3Histogram { length, chunk_length } => {
                let circuit = Histogram::new(length as usize, chunk_length as usize);
                (3, Instance::Histogram(build(3, 1, circuit)?))
            }
            VdafConfig::Prio3MultihotCountVec { length, max_weight, chunk_length } => {
                let circuit = MultihotCountVec::new(
                    length as usize,
                    max_weight as usize,
                    chunk_length as usize,
                );
                (MULTIHOT, Instance::Multihot(build(MULTIHOT, 1, circuit)?))
            }
            VdafConfig::Prio3SumVecField64MultiproofHmacSha256Aes128 {
                length,
                max_measurement,
                chunk_length,
                proofs,
            } => {
                let bits = bits(max_measurement)?;
                return Ok(Self::Multiproof(build(
                    0xffff_1003,
                    proofs,
                    SumVec::new(bits, length as usize, chunk_length as usize),
                )?));
            }
            VdafConfig::Poplar1 { bits } => {
                return Ok(Self::Poplar1(Poplar1::new_turboshake128(bits.into())));
            }
        };
        let verifier = Verifier::new(VdafDraft::V08, id, config);
        Ok(Self::Prio3(instance, Arc::new(verifier.ok_or_else(too_many_calls)?)))
    }

    /// Elements of an aggregate share; for Poplar1, whose parameter says how many, none.
    pub(super) fn output_len(&self) -> usize {
        match self {
            Self::Prio3(_, verifier) => verifier.output_len(),
            Self::Multiproof(vdaf) => vdaf.output_len(),
            Self::Poplar1(_) => 0,
        }
    }

    pub(super) fn shard(
        &self,
        measurement: &Measurement,
        nonce: &[u8; 16],
    ) -> Result<ShardedReport, MeasurementError> {
        match (self, measurement) {
            (Self::Prio3(Instance::Count(vdaf), _), Measurement::Count(b)) => shard(vdaf, b, nonce),
            (Self::Prio3(Instance::Sum(vdaf), _), Measurement::Sum(n)) => {
                shard(vdaf, &(*n).into(), nonce)
            }
            (Self::Prio3(Instance::SumVec(vdaf), _), Measurement::SumVec(v)) => {
                shard(vdaf, &v.iter().map(|n| (*n).into()).collect(), nonce)
            }
            (Self::Prio3(Instance::Histogram(vdaf), _), Measurement::Histogram(i)) => {
                shard(vdaf, i, nonce)
            }
            (Self::Prio3(Instance::Multihot(vdaf), _), Measurement::MultihotCountVec(v)) => {
                shard(vdaf, v, nonce)
            }
            (Self::Multiproof(vdaf), Measurement::SumVec(v)) => shard(vdaf, v, nonce),
            (Self::Poplar1(vdaf), Measurement::Poplar1(string)) => {
                let bools: Vec<bool> = string.iter().collect();
                shard(vdaf, &IdpfInput::from_bools(&bools), nonce)
            }
            _ => Err(MeasurementError::new("the measurement is not one for this VDAF")),
        }
    }

    pub(super) fn leader_init(
        &self,
        verify_key: &VerifyKey,
        agg_param: &AggregationParam,
        nonce: &[u8; 16],
        public_share: &[u8],
        input_share: &[u8],
    ) -> Result<(VerifyState, Vec<u8>), VerifyError> {
        if let (Self::Prio3(_, verifier), Kind::Prio3) = (self, &agg_param.kind) {
            let context = Context { verify_key: verify_key.as_bytes(), ctx: &[], nonce };
            let (state, message) = verifier.leader_init(context, public_share, input_share)?;
            return Ok((state.into(), message));
        }
        each!(self, agg_param, (vdaf, agg_param) =>
            leader_init(vdaf, verify_key, agg_param, nonce, public_share, input_share)
                .map(|(state, message)| (state.into(), message)),
            else Err(VerifyError::Refused))
    }

    pub(super) fn leader_continued(
        &self,
        agg_param: &AggregationParam,
        state: VerifyState,
        inbound: &[u8],
    ) -> Result<LeaderStep, VerifyError> {
        let state = match (state, &agg_param.kind) {
            (VerifyState::Prio3(state), Kind::Prio3) => {
                return Ok((state.continued(inbound)?.into(), None));
            }
            (state, _) => state,
        };
        each!(self, agg_param, (vdaf, agg_param) =>
            state.try_into().map_err(|_| VerifyError::Refused).and_then(|state| {
    leader_continued(vdaf, agg_param, state, inbound)
                    .map(|(output, message)| (output.into(), message))
            }),
            else Err(VerifyError::Refused))
    }

    pub(super) fn helper_init(
        &self,
        verify_key: &VerifyKey,
        agg_param: &AggregationParam,
        nonce: &[u8; 16],
        public_share: &[u8],
        input_share: &[u8],
        inbound: &[u8],
    ) -> Result<HelperStep, VerifyError> {
        if let (Self::Prio3(_, verifier), Kind::Prio3) = (self, &agg_param.kind) {
            let context = Context { verify_key: verify_key.as_bytes(), ctx: &[], nonce };
            let (output, message) =
                verifier.helper_init(context, public_share, input_share, inbound)?;
            return Ok((Ok(output.into()), message));
        }
        each!(self, agg_param, (vdaf, agg_param) =>
            helper_init(vdaf, verify_key, agg_param, nonce, public_share, input_share, inbound)
                .map(|(output, message)| (output.map(Into::into).map_err(Into::into), message)),
            else Err(VerifyError::Refused))
    }

    pub(super) fn helper_continued(
        &self,
        agg_param: &AggregationParam,
        state: VerifyState,
        inbound: &[u8],
    ) -> Result<Output, VerifyError> {
        each!(self, agg_param, (vdaf, agg_param) =>
            helper_continued(vdaf, agg_param, state, inbound),
            else Err(VerifyError::Refused))
    }

    pub(super) fn aggregate_init(&self, agg_param: &AggregationParam) -> Aggregate {
        if let Self::Prio3(_, verifier) = self {
            return verifier.aggregate_init().into();
        }
        each!(self, agg_param, (vdaf, agg_param) =>
            aggregate_init(vdaf, agg_param),
            else Aggregate::Multiproof(AggregateShare::from(Vec::new())))
    }

    pub(super) fn unshard(
        &self,
        agg_param: &AggregationParam,
        leader_share: &[u8],
        helper_share: &[u8],
        report_count: usize,
    ) -> Result<AggregateResult, UnshardError> {
        if let (Self::Prio3(instance, _), Kind::Prio3) = (self, &agg_param.kind) {
            macro_rules! unshard {
                ($vdaf:expr) => {
                    unshard($vdaf, &(), leader_share, helper_share, report_count)
                };
            }
            return match instance {
                Instance::Count(vdaf) => unshard!(vdaf),
                Instance::Sum(vdaf) => unshard!(vdaf),
                Instance::SumVec(vdaf) => unshard!(vdaf),
                Instance::Histogram(vdaf) => unshard!(vdaf),
                Instance::Multihot(vdaf) => unshard!(vdaf),
            };
        }
        each!(self, agg_param, (vdaf, agg_param) =>
            unshard(vdaf, agg_param, leader_share, helper_share, report_count),
            else Err(UnshardError::Combine))
    }

    /// A helper's state between its two steps, as `prio` writes it. The caller has checked that the bytes begin as
    /// they must, and how many they are.
    pub(super) fn decode_helper_state(&self, bytes: &[u8]) -> Option<VerifyState> {
        match self {
            Self::Poplar1(vdaf) => {
                Poplar1PrepareState::get_decoded_with_param(&(vdaf, 1), bytes).ok().map(Into::into)
            }
            _ => None,
        }
    }
}

impl VerifyState {
    /// What [`Scheme::decode_helper_state`] reads. Only a VDAF of several rounds has such a state.
    pub(super) fn encode(&self) -> Option<Vec<u8>> {
        match self {
            Self::Poplar1(state) => state.get_encoded().ok(),
            _ => None,
        }
    }
}

impl Aggregate {
    pub(super) fn accumulate(&mut self, output: &Output) -> Result<(), ShareError> {
        match (self, output) {
            (Self::Prio3(sum), Output::Prio3(share)) => return sum.accumulate(share),
            (Self::Multiproof(sum), Output::Multiproof(share)) => sum.accumulate(share),
            (Self::Poplar1(sum), Output::Poplar1(share)) => sum.accumulate(share),
            _ => return Err(ShareError::Length),
        }
        .map_err(|_| ShareError::Length)
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        match self {
            Self::Prio3(sum) => return sum.encode(),
            Self::Multiproof(sum) => sum.get_encoded(),
            Self::Poplar1(sum) => sum.get_encoded(),
        }
        // Unwrap safety: writing field elements into a vector has no failing step.
        .unwrap()
    }
}

/// What would be a proof of more than [`INPUT_SHARE_BYTES_MAX`].
fn too_many_calls() -> ConfigError {
    ConfigError("the VDAF refuses this: the gadget is called too often".to_owned())
}

fn build<T: Type, P: Xof<S>, const S: usize>(
    id: u32,
    proofs: u8,
    circuit: Result<T, prio08::flp::FlpError>,
) -> Result<Prio3<T, P, S>, ConfigError> {
    let refused = |e: &dyn std::fmt::Display| ConfigError(format!("the VDAF refuses this: {e}"));
    let circuit = circuit.map_err(|e| refused(&e))?;
    let elements = circuit.input_len() + circuit.proof_len() * usize::from(proofs);
    let blind = if circuit.joint_rand_len() > 0 { S } else { 0 };
    if elements * T::Field::ENCODED_SIZE + blind > INPUT_SHARE_BYTES_MAX {
        return Err(too_long("leader's input share", INPUT_SHARE_BYTES_MAX));
    }
    Prio3::new(2, proofs, id, circuit).map_err(|e| refused(&e))
}

pub(super) fn shard<V: Client<16>>(
    vdaf: &V,
    measurement: &V::Measurement,
    nonce: &[u8; 16],
) -> Result<ShardedReport, MeasurementError> {
    let failed = |e: &dyn std::fmt::Display| MeasurementError(format!("sharding failed: {e}"));
    let (public_share, input_shares) = vdaf.shard(measurement, nonce).map_err(|e| failed(&e))?;
    let encode = |share: &V::InputShare| share.get_encoded().map_err(|e| failed(&e));
    let [leader, helper] = &input_shares[..] else {
        return Err(MeasurementError::new("sharding failed: there must be two shares"));
    };
    Ok(ShardedReport {
        public_share: public_share.get_encoded().map_err(|e| failed(&e))?,
        leader_input_share: encode(leader)?,
        helper_input_share: encode(helper)?,
    })
}

fn decode_shares<V: Vdaf>(
    vdaf: &V,
    aggregator: usize,
    public_share: &[u8],
    input_share: &[u8],
) -> Result<(V::PublicShare, V::InputShare), VerifyError> {
    Ok((
        V::PublicShare::get_decoded_with_param(vdaf, public_share)
            .map_err(|_| VerifyError::PublicShare)?,
        V::InputShare::get_decoded_with_param(&(vdaf, aggregator), input_share)
            .map_err(|_| VerifyError::InputShare)?,
    ))
}

pub(super) fn leader_init<V: Aggregator<S, 16>, const S: usize>(
    vdaf: &V,
    verify_key: &VerifyKey,
    agg_param: &V::AggregationParam,
    nonce: &[u8; 16],
    public_share: &[u8],
    input_share: &[u8],
) -> Result<(V::PrepareState, Vec<u8>), VerifyError> {
    let (public_share, input_share) = decode_shares(vdaf, 0, public_share, input_share)?;
    let (state, message) = vdaf
        .leader_initialized(verify_key.seed()?, agg_param, nonce, &public_share, &input_share)
        .map_err(|_| VerifyError::Refused)?;
    match state {
        PingPongState::Continued(state) => Ok((state, write(&message)?)),
        PingPongState::Finished(_) => Err(VerifyError::Refused),
    }
}

pub(super) fn leader_continued<V: Aggregator<S, 16>, const S: usize>(
    vdaf: &V,
    agg_param: &V::AggregationParam,
    state: V::PrepareState,
    inbound: &[u8],
) -> Result<(V::OutputShare, Option<Vec<u8>>), VerifyError> {
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
    // (§7.2.2). What it says of ours, the leader works with, and finds wrong when we have accepted the report. One
    // client with such a report would make the two counts of a batch differ for good.
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
    verify_key: &VerifyKey,
    agg_param: &V::AggregationParam,
    nonce: &[u8; 16],
    public_share: &[u8],
    input_share: &[u8],
    inbound: &[u8],
) -> Result<Transition<V::OutputShare, V::PrepareState>, VerifyError> {
    let shares = decode_shares(vdaf, 1, public_share, input_share)?;
    let inbound = read(inbound).map_err(|_| VerifyError::PeerShare)?;
    let (state, message) = vdaf
        .helper_initialized(verify_key.seed()?, agg_param, nonce, &shares.0, &shares.1, &inbound)
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
    agg_param: &V::AggregationParam,
    state: VerifyState,
    inbound: &[u8],
) -> Result<Output, VerifyError>
where
    V::PrepareState: TryFrom<VerifyState>,
    Output: From<V::OutputShare>,
{
    let inbound = read(inbound).map_err(|_| VerifyError::PeerMessage)?;
    let state = state.try_into().map_err(|_| VerifyError::Refused)?;
    let value = vdaf
        .helper_continued(PingPongState::Continued(state), agg_param, &inbound)
        .map_err(|e| why(&e, &inbound))?;
    match value {
        PingPongContinuedValue::FinishedNoMessage { output_share } => Ok(output_share.into()),
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
) -> Aggregate
where
    Aggregate: From<V::AggregateShare>,
{
    // Unwrap safety: only adding fails, and nothing is added.
    vdaf.aggregate(agg_param, None).unwrap().into()
}

fn unshard<V: Collector>(
    vdaf: &V,
    agg_param: &V::AggregationParam,
    leader_share: &[u8],
    helper_share: &[u8],
    report_count: usize,
) -> Result<AggregateResult, UnshardError>
where
    V::AggregateResult: Into<AggregateResult>,
{
    let decode = |bytes| V::AggregateShare::get_decoded_with_param(&(vdaf, agg_param), bytes);
    let leader_share = decode(leader_share).map_err(|_| UnshardError::LeaderShare)?;
    let helper_share = decode(helper_share).map_err(|_| UnshardError::HelperShare)?;
    vdaf.unshard(agg_param, [leader_share, helper_share], report_count)
        .map(Into::into)
        .map_err(|_| UnshardError::Combine)
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
