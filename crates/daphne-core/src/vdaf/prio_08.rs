//! Prio3 of draft-irtf-cfrg-vdaf-08, which DAP-09 uses, by `prio` 0.16.
//!
//! Each function below is generic over the five instances; [`Scheme`] picks the instance.

use prio08::{
    codec::{Encode, ParameterizedDecode},
    field::{Field64, Field128, FieldElement},
    flp::{
        Type,
        gadgets::{Mul, ParallelSum},
        types::{Count, Histogram, Sum, SumVec},
    },
    topology::ping_pong::{
        PingPongContinuedValue, PingPongMessage, PingPongState, PingPongTopology,
    },
    vdaf::{
        Aggregatable as _, AggregateShare, Client as _, Collector as _, OutputShare,
        prio3::{Prio3, Prio3InputShare, Prio3PrepareState, Prio3PublicShare},
        xof::{Xof, XofHmacSha256Aes128, XofTurboShake128},
    },
};

use super::{
    AggregateResult, ConfigError, Measurement, MeasurementError, ShardedReport, ShareError,
    UnshardError, VdafConfig, VerifyError, VerifyKey,
    config::{INPUT_SHARE_BYTES_MAX, bits, too_long},
    erased::erased,
    message,
};
use crate::version::VdafDraft;

type Products<F> = ParallelSum<F, Mul<F>>;

/// The instances, by their ids in VDAF-08 §10 and the private `0xFFFF1003`.
#[derive(Clone, Debug)]
pub(super) enum Scheme {
    Count(Prio3<Count<Field64>, XofTurboShake128, 16>),
    Sum(Prio3<Sum<Field128>, XofTurboShake128, 16>),
    SumVec(Prio3<SumVec<Field128, Products<Field128>>, XofTurboShake128, 16>),
    Histogram(Prio3<Histogram<Field128, Products<Field128>>, XofTurboShake128, 16>),
    Multiproof(Prio3<SumVec<Field64, Products<Field64>>, XofHmacSha256Aes128, 32>),
}

erased! {
    /// What the leader remembers between its two steps.
    LeaderState {
        F64(Prio3PrepareState<Field64, 16>),
        F128(Prio3PrepareState<Field128, 16>),
        F64Wide(Prio3PrepareState<Field64, 32>),
    }
}

erased! {
    /// A verified report's share.
    Output { F64(OutputShare<Field64>), F128(OutputShare<Field128>) }
}

erased! {
    /// The sum of output shares.
    Aggregate { F64(AggregateShare<Field64>), F128(AggregateShare<Field128>) }
}

macro_rules! each {
    ($scheme:expr, $vdaf:ident => $body:expr) => {
        match $scheme {
            Scheme::Count($vdaf) => $body,
            Scheme::Sum($vdaf) => $body,
            Scheme::SumVec($vdaf) => $body,
            Scheme::Histogram($vdaf) => $body,
            Scheme::Multiproof($vdaf) => $body,
        }
    };
}

impl Scheme {
    pub(super) fn new(config: &VdafConfig) -> Result<Self, ConfigError> {
        let bits = |max| Ok(bits(VdafDraft::V08, max)? as usize);
        Ok(match *config {
            VdafConfig::Prio3Count => Self::Count(build(0, 1, Ok(Count::new()))?),
            VdafConfig::Prio3Sum { max_measurement } => {
                Self::Sum(build(1, 1, Sum::new(bits(max_measurement)?))?)
            }
            VdafConfig::Prio3SumVec { length, max_measurement, chunk_length } => {
                Self::SumVec(build(
                    2,
                    1,
                    SumVec::new(bits(max_measurement)?, length as usize, chunk_length as usize),
                )?)
            }
            VdafConfig::Prio3Histogram { length, chunk_length } => Self::Histogram(build(
                3,
                1,
                Histogram::new(length as usize, chunk_length as usize),
            )?),
            VdafConfig::Prio3SumVecField64MultiproofHmacSha256Aes128 {
                length,
                max_measurement,
                chunk_length,
                proofs,
            } => Self::Multiproof(build(
                0xffff_1003,
                proofs,
                SumVec::new(bits(max_measurement)?, length as usize, chunk_length as usize),
            )?),
        })
    }

    pub(super) fn output_len(&self) -> usize {
        each!(self, vdaf => vdaf.output_len())
    }

    pub(super) fn shard(
        &self,
        measurement: &Measurement,
        nonce: &[u8; 16],
    ) -> Result<ShardedReport, MeasurementError> {
        match (self, measurement) {
            (Self::Count(vdaf), Measurement::Count(b)) => shard(vdaf, b, nonce),
            (Self::Sum(vdaf), Measurement::Sum(n)) => shard(vdaf, &(*n).into(), nonce),
            (Self::SumVec(vdaf), Measurement::SumVec(v)) => {
                shard(vdaf, &v.iter().map(|n| (*n).into()).collect(), nonce)
            }
            (Self::Histogram(vdaf), Measurement::Histogram(i)) => shard(vdaf, i, nonce),
            (Self::Multiproof(vdaf), Measurement::SumVec(v)) => shard(vdaf, v, nonce),
            _ => Err(MeasurementError::new("the measurement is not one for this VDAF")),
        }
    }

    pub(super) fn leader_init(
        &self,
        verify_key: &VerifyKey,
        nonce: &[u8; 16],
        public_share: &[u8],
        input_share: &[u8],
    ) -> Result<(LeaderState, Vec<u8>), VerifyError> {
        each!(self, vdaf => leader_init(vdaf, verify_key, nonce, public_share, input_share))
    }

    pub(super) fn leader_continued(
        &self,
        state: LeaderState,
        inbound: &[u8],
    ) -> Result<Output, VerifyError> {
        each!(self, vdaf => leader_continued(vdaf, state, inbound))
    }

    pub(super) fn helper_init(
        &self,
        verify_key: &VerifyKey,
        nonce: &[u8; 16],
        public_share: &[u8],
        input_share: &[u8],
        inbound: &[u8],
    ) -> Result<(Output, Vec<u8>), VerifyError> {
        each!(self, vdaf => helper_init(vdaf, verify_key, nonce, public_share, input_share, inbound))
    }

    pub(super) fn aggregate_init(&self) -> Aggregate {
        each!(self, vdaf => aggregate_init(vdaf))
    }

    pub(super) fn unshard(
        &self,
        leader_share: &[u8],
        helper_share: &[u8],
        report_count: usize,
    ) -> Result<AggregateResult, UnshardError> {
        each!(self, vdaf => unshard(vdaf, leader_share, helper_share, report_count))
    }
}

impl Aggregate {
    pub(super) fn accumulate(&mut self, output: &Output) -> Result<(), ShareError> {
        match (self, output) {
            (Self::F64(sum), Output::F64(share)) => sum.accumulate(share),
            (Self::F128(sum), Output::F128(share)) => sum.accumulate(share),
            _ => return Err(ShareError::Length),
        }
        .map_err(|_| ShareError::Length)
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        match self {
            Self::F64(sum) => sum.get_encoded(),
            Self::F128(sum) => sum.get_encoded(),
        }
        // Unwrap safety: writing field elements into a vector has no failing step.
        .unwrap()
    }
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

fn shard<T: Type, P: Xof<S>, const S: usize>(
    vdaf: &Prio3<T, P, S>,
    measurement: &T::Measurement,
    nonce: &[u8; 16],
) -> Result<ShardedReport, MeasurementError> {
    let failed = |e: &dyn std::fmt::Display| MeasurementError(format!("sharding failed: {e}"));
    let (public_share, input_shares) = vdaf.shard(measurement, nonce).map_err(|e| failed(&e))?;
    let encode = |share: &Prio3InputShare<T::Field, S>| share.get_encoded().map_err(|e| failed(&e));
    let [leader, helper] = &input_shares[..] else {
        return Err(MeasurementError::new("sharding failed: there must be two shares"));
    };
    Ok(ShardedReport {
        public_share: public_share.get_encoded().map_err(|e| failed(&e))?,
        leader_input_share: encode(leader)?,
        helper_input_share: encode(helper)?,
    })
}

type Shares<T, const S: usize> = (Prio3PublicShare<S>, Prio3InputShare<<T as Type>::Field, S>);

fn decode_shares<T: Type, P: Xof<S>, const S: usize>(
    vdaf: &Prio3<T, P, S>,
    aggregator: usize,
    public_share: &[u8],
    input_share: &[u8],
) -> Result<Shares<T, S>, VerifyError> {
    let undecodable = |_| VerifyError::UndecodableShare;
    Ok((
        Prio3PublicShare::get_decoded_with_param(vdaf, public_share).map_err(undecodable)?,
        Prio3InputShare::get_decoded_with_param(&(vdaf, aggregator), input_share)
            .map_err(undecodable)?,
    ))
}

fn leader_init<T: Type, P: Xof<S>, const S: usize>(
    vdaf: &Prio3<T, P, S>,
    verify_key: &VerifyKey,
    nonce: &[u8; 16],
    public_share: &[u8],
    input_share: &[u8],
) -> Result<(LeaderState, Vec<u8>), VerifyError>
where
    LeaderState: From<Prio3PrepareState<T::Field, S>>,
{
    let (public_share, input_share) = decode_shares(vdaf, 0, public_share, input_share)?;
    let (state, message) = vdaf
        .leader_initialized(verify_key.seed()?, &(), nonce, &public_share, &input_share)
        .map_err(|_| VerifyError::Refused)?;
    match (state, message) {
        (PingPongState::Continued(state), PingPongMessage::Initialize { prep_share }) => {
            Ok((state.into(), message::initialize(&prep_share)?))
        }
        _ => Err(VerifyError::Refused),
    }
}

fn leader_continued<T: Type, P: Xof<S>, const S: usize>(
    vdaf: &Prio3<T, P, S>,
    state: LeaderState,
    inbound: &[u8],
) -> Result<Output, VerifyError>
where
    Prio3PrepareState<T::Field, S>: TryFrom<LeaderState>,
    Output: From<OutputShare<T::Field>>,
{
    let state = state.try_into().map_err(|_| VerifyError::Refused)?;
    let inbound = PingPongMessage::Finish { prep_msg: message::read_finish(inbound)?.to_vec() };
    let value = vdaf
        .leader_continued(PingPongState::Continued(state), &(), &inbound)
        .map_err(|_| VerifyError::Refused)?;
    match value {
        PingPongContinuedValue::FinishedNoMessage { output_share } => Ok(output_share.into()),
        PingPongContinuedValue::WithMessage { .. } => Err(VerifyError::Refused),
    }
}

fn helper_init<T: Type, P: Xof<S>, const S: usize>(
    vdaf: &Prio3<T, P, S>,
    verify_key: &VerifyKey,
    nonce: &[u8; 16],
    public_share: &[u8],
    input_share: &[u8],
    inbound: &[u8],
) -> Result<(Output, Vec<u8>), VerifyError>
where
    Output: From<OutputShare<T::Field>>,
{
    let (public_share, input_share) = decode_shares(vdaf, 1, public_share, input_share)?;
    let inbound =
        PingPongMessage::Initialize { prep_share: message::read_initialize(inbound)?.to_vec() };
    let (state, outbound) = vdaf
        .helper_initialized(verify_key.seed()?, &(), nonce, &public_share, &input_share, &inbound)
        .and_then(|transition| transition.evaluate(vdaf))
        .map_err(|_| VerifyError::Refused)?;
    match (state, outbound) {
        (PingPongState::Finished(output), PingPongMessage::Finish { prep_msg }) => {
            Ok((output.into(), message::finish(&prep_msg)?))
        }
        _ => Err(VerifyError::Refused),
    }
}

fn aggregate_init<T: Type, P: Xof<S>, const S: usize>(vdaf: &Prio3<T, P, S>) -> Aggregate
where
    Aggregate: From<AggregateShare<T::Field>>,
{
    AggregateShare::from(vec![T::Field::zero(); vdaf.output_len()]).into()
}

fn unshard<T: Type, P: Xof<S>, const S: usize>(
    vdaf: &Prio3<T, P, S>,
    leader_share: &[u8],
    helper_share: &[u8],
    report_count: usize,
) -> Result<AggregateResult, UnshardError>
where
    T::AggregateResult: Into<AggregateResult>,
{
    let decode = |bytes| AggregateShare::get_decoded_with_param(&(vdaf, &()), bytes);
    let leader_share = decode(leader_share).map_err(|_| UnshardError::LeaderShare)?;
    let helper_share = decode(helper_share).map_err(|_| UnshardError::HelperShare)?;
    vdaf.unshard(&(), [leader_share, helper_share], report_count)
        .map(Into::into)
        .map_err(|_| UnshardError::Combine)
}
