//! What is done alike with both lines of `prio`. Their types and traits have the same names and are others, so `prio_08.rs` and
//! `prio_18.rs` mount this file each, with those of their line and with the functions in which the lines differ.
//!
//! The aggregators of Prio3 with one proof are [`fast`](crate::vdaf::fast), and meet nothing here.

use super::{
    Poplar1Kind, Poplar1VerifyState, Prio3VerifyState, Products, SEED_LEN, SumField,
    aggregate_init, helper_continued, helper_init, leader_continued, leader_init,
    prio::{
        codec::{Encode as _, ParameterizedDecode as _},
        field::{Field64, Field128, FieldElement as _},
        flp::{
            FlpError, Type,
            types::{Count, Histogram, MultihotCountVec, Sum, SumVec},
        },
        idpf::IdpfInput,
        vdaf::{
            Aggregatable as _, AggregateShare, Client, Collector, OutputShare, Vdaf,
            poplar1::{Poplar1, Poplar1FieldVec},
            prio3::Prio3,
            xof::{Xof, XofHmacSha256Aes128, XofTurboShake128},
        },
    },
    split,
};
use crate::vdaf::{
    AggregateResult, AggregationParam, ConfigError, INPUT_SHARE_BYTES_MAX, Measurement,
    MeasurementError, ShardedReport, ShareError, UnshardError, VerifyError,
    agg_param::Kind,
    config::too_long,
    erased::erased,
    scheme::{Context, HelperStep, LeaderStep},
};

erased! {
    /// What an aggregator remembers between its steps.
    VerifyState {
        Multiproof(Prio3VerifyState<Field64, 32>),
        Poplar1(Poplar1VerifyState),
    }
}

erased! {
    /// A verified report's share.
    Output {
        Multiproof(OutputShare<Field64>),
        Poplar1(Poplar1FieldVec),
    }
}

erased! {
    /// The sum of output shares.
    Aggregate {
        Multiproof(AggregateShare<Field64>),
        Poplar1(Poplar1FieldVec),
    }
}

/// An instance, as clients and collectors use it; those of several proofs or rounds as aggregators do, too.
#[derive(Clone, Debug)]
pub(in crate::vdaf) enum Instance {
    Count(Prio3<Count<Field64>, XofTurboShake128, SEED_LEN>),
    Sum(Prio3<Sum<SumField>, XofTurboShake128, SEED_LEN>),
    SumVec(Prio3<SumVec<Field128, Products<Field128>>, XofTurboShake128, SEED_LEN>),
    Histogram(Prio3<Histogram<Field128, Products<Field128>>, XofTurboShake128, SEED_LEN>),
    Multihot(Prio3<MultihotCountVec<Field128, Products<Field128>>, XofTurboShake128, SEED_LEN>),
    Multiproof(Prio3<SumVec<Field64, Products<Field64>>, XofHmacSha256Aes128, 32>),
    Poplar1(Poplar1<XofTurboShake128, SEED_LEN>),
}

/// Evaluates the body with the instance and its parameter; the other expression if the aggregator is not `prio`'s, or the parameter
/// is of another VDAF.
macro_rules! each {
    ($instance:expr, $param:expr, ($vdaf:ident, $agg_param:ident) => $body:expr, else $mismatch:expr) => {
        match ($instance, &$param.kind) {
            (Instance::Multiproof($vdaf), Kind::Prio3) => {
                let $agg_param = &();
                $body
            }
            (Instance::Poplar1($vdaf), Poplar1Kind($agg_param)) => $body,
            _ => $mismatch,
        }
    };
}

impl Instance {
    pub(in crate::vdaf) fn output_len(&self) -> usize {
        match self {
            Self::Count(vdaf) => vdaf.output_len(),
            Self::Sum(vdaf) => vdaf.output_len(),
            Self::SumVec(vdaf) => vdaf.output_len(),
            Self::Histogram(vdaf) => vdaf.output_len(),
            Self::Multihot(vdaf) => vdaf.output_len(),
            Self::Multiproof(vdaf) => vdaf.output_len(),
            Self::Poplar1(_) => 0,
        }
    }

    #[allow(clippy::useless_conversion, reason = "one line takes wider integers")]
    pub(in crate::vdaf) fn shard(
        &self,
        ctx: &[u8],
        measurement: &Measurement,
        nonce: &[u8; 16],
    ) -> Result<ShardedReport, MeasurementError> {
        match (self, measurement) {
            (Self::Count(vdaf), Measurement::Count(b)) => shard(vdaf, ctx, b, nonce),
            (Self::Sum(vdaf), Measurement::Sum(n)) => shard(vdaf, ctx, &(*n).into(), nonce),
            (Self::SumVec(vdaf), Measurement::SumVec(v)) => {
                shard(vdaf, ctx, &v.iter().map(|n| (*n).into()).collect(), nonce)
            }
            (Self::Histogram(vdaf), Measurement::Histogram(i)) => shard(vdaf, ctx, i, nonce),
            (Self::Multihot(vdaf), Measurement::MultihotCountVec(v)) => shard(vdaf, ctx, v, nonce),
            (Self::Multiproof(vdaf), Measurement::SumVec(v)) => shard(vdaf, ctx, v, nonce),
            (Self::Poplar1(vdaf), Measurement::Poplar1(string)) => {
                let bools: Vec<bool> = string.iter().collect();
                shard(vdaf, ctx, &IdpfInput::from_bools(&bools), nonce)
            }
            _ => Err(MeasurementError::new("the measurement is not one for this VDAF")),
        }
    }

    pub(in crate::vdaf) fn leader_init(
        &self,
        context: Context<'_>,
        agg_param: &AggregationParam,
        public_share: &[u8],
        input_share: &[u8],
    ) -> Result<(VerifyState, Vec<u8>), VerifyError> {
        each!(self, agg_param, (vdaf, agg_param) =>
            leader_init(vdaf, context, agg_param, public_share, input_share)
                .map(|(state, message)| (state.into(), message)),
            else Err(VerifyError::Refused))
    }

    pub(in crate::vdaf) fn leader_continued(
        &self,
        ctx: &[u8],
        agg_param: &AggregationParam,
        state: VerifyState,
        inbound: &[u8],
    ) -> Result<LeaderStep<Output>, VerifyError> {
        each!(self, agg_param, (vdaf, agg_param) =>
            leader_continued(vdaf, ctx, agg_param, owned(state)?, inbound)
                .map(|(output, message)| (output.into(), message)),
            else Err(VerifyError::Refused))
    }

    pub(in crate::vdaf) fn helper_init(
        &self,
        context: Context<'_>,
        agg_param: &AggregationParam,
        public_share: &[u8],
        input_share: &[u8],
        inbound: &[u8],
    ) -> Result<HelperStep<Output, VerifyState>, VerifyError> {
        each!(self, agg_param, (vdaf, agg_param) =>
            helper_init(vdaf, context, agg_param, public_share, input_share, inbound)
                .map(|(output, message)| (output.map(Into::into).map_err(Into::into), message)),
            else Err(VerifyError::Refused))
    }

    pub(in crate::vdaf) fn helper_continued(
        &self,
        ctx: &[u8],
        agg_param: &AggregationParam,
        state: VerifyState,
        inbound: &[u8],
    ) -> Result<Output, VerifyError> {
        each!(self, agg_param, (vdaf, agg_param) =>
            helper_continued(vdaf, ctx, agg_param, owned(state)?, inbound).map(Into::into),
            else Err(VerifyError::Refused))
    }

    pub(in crate::vdaf) fn aggregate_init(&self, agg_param: &AggregationParam) -> Aggregate {
        each!(self, agg_param, (vdaf, agg_param) =>
            aggregate_init(vdaf, agg_param).into(),
            else Aggregate::Multiproof(AggregateShare::from(Vec::new())))
    }

    pub(in crate::vdaf) fn unshard(
        &self,
        agg_param: &AggregationParam,
        leader_share: &[u8],
        helper_share: &[u8],
        report_count: usize,
    ) -> Result<AggregateResult, UnshardError> {
        macro_rules! unshard {
            ($vdaf:expr, $agg_param:expr) => {
                unshard($vdaf, $agg_param, leader_share, helper_share, report_count)
            };
        }
        match (self, &agg_param.kind) {
            (Self::Count(vdaf), Kind::Prio3) => unshard!(vdaf, &()),
            (Self::Sum(vdaf), Kind::Prio3) => unshard!(vdaf, &()),
            (Self::SumVec(vdaf), Kind::Prio3) => unshard!(vdaf, &()),
            (Self::Histogram(vdaf), Kind::Prio3) => unshard!(vdaf, &()),
            (Self::Multihot(vdaf), Kind::Prio3) => unshard!(vdaf, &()),
            (Self::Multiproof(vdaf), Kind::Prio3) => unshard!(vdaf, &()),
            (Self::Poplar1(vdaf), Poplar1Kind(agg_param)) => unshard!(vdaf, agg_param),
            _ => Err(UnshardError::Combine),
        }
    }

    pub(in crate::vdaf) fn decode_helper_state(&self, bytes: &[u8]) -> Option<VerifyState> {
        match self {
            Self::Poplar1(vdaf) => {
                Poplar1VerifyState::get_decoded_with_param(&(vdaf, 1), bytes).ok().map(Into::into)
            }
            _ => None,
        }
    }
}

impl VerifyState {
    pub(in crate::vdaf) fn encode(&self) -> Option<Vec<u8>> {
        match self {
            Self::Poplar1(state) => state.get_encoded().ok(),
            Self::Multiproof(_) => None,
        }
    }
}

/// The state of this VDAF.
fn owned<S: TryFrom<VerifyState>>(state: VerifyState) -> Result<S, VerifyError> {
    state.try_into().map_err(|_| VerifyError::Refused)
}

impl Aggregate {
    pub(in crate::vdaf) fn accumulate(&mut self, output: &Output) -> Result<(), ShareError> {
        match (self, output) {
            (Self::Multiproof(sum), Output::Multiproof(share)) => sum.accumulate(share),
            (Self::Poplar1(sum), Output::Poplar1(share)) => sum.accumulate(share),
            _ => return Err(ShareError::Length),
        }
        .map_err(|_| ShareError::Length)
    }

    pub(in crate::vdaf) fn encode(&self) -> Vec<u8> {
        match self {
            Self::Multiproof(sum) => sum.get_encoded(),
            Self::Poplar1(sum) => sum.get_encoded(),
        }
        // Unwrap safety: writing field elements into a vector has no failing step.
        .unwrap()
    }
}

/// An instance of Prio3, if its shares are short enough.
pub(super) fn build<T: Type, P: Xof<S>, const S: usize>(
    id: u32,
    proofs: u8,
    circuit: Result<T, FlpError>,
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

pub(in crate::vdaf) fn shard<V: Client<16>>(
    vdaf: &V,
    ctx: &[u8],
    measurement: &V::Measurement,
    nonce: &[u8; 16],
) -> Result<ShardedReport, MeasurementError> {
    let failed = |e: &dyn std::fmt::Display| MeasurementError(format!("sharding failed: {e}"));
    let (public_share, input_shares) =
        split(vdaf, ctx, measurement, nonce).map_err(|e| failed(&e))?;
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

pub(super) fn decode_shares<V: Vdaf>(
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
