//! What a report costs the libraries alone: `hpke-rs` opens it and `prio` verifies it, natively, on one thread, without
//! HTTP, storage, or anything of ours but the framing of messages.

use std::time::{Duration, Instant};

use dapctl::{Failure, task_file::new_keypair};
use daphne_core::{
    aggregate::leader::LeaderStep,
    hpke::{self, HpkeKeypair, Role},
    message::{VerifyResp, VerifyRespResult},
    vdaf::{HelperTransition, VdafConfig},
    version::{DapVersion, VdafDraft},
    wire::input_share_aad,
};
use hpke_rs::{Hpke, HpkePrivateKey, Mode, hpke_types};
use hpke_rs_rust_crypto::HpkeRustCrypto;

use crate::{
    cpu,
    jobs::{Party, new_task},
    kinds::Kind,
};

/// Reports that are verified again and again.
const REPORTS: usize = 50;

/// The helper's view of a report, and what it takes to verify it.
struct Share {
    nonce: [u8; 16],
    public_share: Vec<u8>,
    enc: Vec<u8>,
    sealed: Vec<u8>,
    aad: Vec<u8>,
    first: Vec<u8>,
    /// The leader's second message, of a VDAF of two rounds.
    second: Option<Vec<u8>>,
}

/// Reports of one version and VDAF, ready to be measured.
pub struct Floor {
    party: Party,
    keys: HpkeKeypair,
    shares: Vec<Share>,
    verify: Verify,
}

/// Verifies a share, given its plaintext, to its end.
type Verify = Box<dyn Fn(&Share, &[u8]) -> Result<(), String>>;

impl Floor {
    /// Makes the reports.
    ///
    /// # Errors
    /// [`Failure`] if one cannot be made.
    pub fn new(version: DapVersion, kind: Kind) -> Result<Self, Failure> {
        let keys = new_keypair()?;
        let file = new_task(version, kind.config(), "http://127.0.0.1:1")?;
        let (verify_key, party) =
            (file.spec.verify_key.clone(), Party::new(file, keys.config().clone())?);
        let wrong = |e: &dyn std::fmt::Display| Failure::Wrong(format!("{}: {e}", party.name()));
        let batch = party.batch(0)?;
        let job = party.make(&batch, 1, REPORTS)?.remove(0);
        let init = party.wire().aggregation_job_init(&job.body).map_err(|e| wrong(&e.detail))?;
        let mut shares = Vec::new();
        for report in &init.verify_inits {
            let share = report.report_share;
            let (metadata, sealed) = (share.metadata, share.encrypted_input_share);
            let aad = input_share_aad(
                &party.leader.task_id,
                &party.leader.task_configuration,
                metadata.encoded,
                share.public_share,
            );
            shares.push(Share {
                nonce: *metadata.report_id.as_bytes(),
                public_share: share.public_share.to_vec(),
                enc: sealed.enc.to_vec(),
                sealed: sealed.payload.to_vec(),
                aad: aad.map_err(|e| wrong(&e))?,
                first: report.payload.to_vec(),
                second: None,
            });
        }
        let agg_param = party.agg_param.encode();
        let verify = match version.vdaf_draft() {
            VdafDraft::V08 => v08::verifier(&kind.config(), verify_key, &agg_param),
            VdafDraft::V18 => {
                let context = version.vdaf_context(&party.leader.task_id);
                v18::verifier(&kind.config(), verify_key, &agg_param, context)
            }
        };
        let verify = verify.map_err(|e| wrong(&e))?;
        let mut floor = Self { keys, shares, verify, party };
        if floor.party.leader.vdaf.rounds() > 1 {
            floor.learn_second_messages(job)?;
        }
        Ok(floor)
    }

    /// Has the leader answer what our helper would say first.
    fn learn_second_messages(&mut self, job: crate::jobs::Made) -> Result<(), Failure> {
        let party = &self.party;
        let wrong = |e: &dyn std::fmt::Display| Failure::Wrong(format!("{}: {e}", party.name()));
        let leader = &party.leader;
        let context = leader.version.vdaf_context(&leader.task_id);
        let mut answer = Vec::new();
        for share in &self.shares {
            let plaintext = self.open(share)?;
            let payload =
                party.wire().plaintext_input_share(&plaintext).map_err(|e| wrong(&e))?.payload;
            let transition = leader.vdaf.helper_init(
                &leader.verify_key,
                &context,
                &party.agg_param,
                &share.nonce,
                &share.public_share,
                payload,
                &share.first,
            );
            let message = match transition.map_err(|e| wrong(&e))? {
                HelperTransition::Finished { message, .. }
                | HelperTransition::Continued { message, .. } => message,
            };
            answer.push(VerifyResp {
                report_id: daphne_core::ids::ReportId::new(share.nonce),
                result: VerifyRespResult::Continue(message),
            });
        }
        let answer = party.wire().encode_aggregation_job_resp(&answer).map_err(|e| wrong(&e))?;
        let step = leader.proceed(job.into_leader().0, &answer).map_err(|e| wrong(&e))?;
        let LeaderStep::Continued(continuation) = step else {
            return Err(wrong(&"the leader does not continue"));
        };
        let next =
            party.wire().aggregation_job_continue(continuation.request()).map_err(|e| wrong(&e))?;
        let messages: Vec<Vec<u8>> =
            next.verify_continues.iter().map(|v| v.payload.to_vec()).collect();
        for (share, message) in self.shares.iter_mut().zip(messages) {
            share.second = Some(message);
        }
        Ok(())
    }

    fn open(&self, share: &Share) -> Result<Vec<u8>, Failure> {
        // What every DAP deployment supports, and our own keys are.
        let hpke = Hpke::<HpkeRustCrypto>::new(
            Mode::Base,
            hpke_types::KemAlgorithm::DhKem25519,
            hpke_types::KdfAlgorithm::HkdfSha256,
            hpke_types::AeadAlgorithm::Aes128Gcm,
        );
        let info = hpke::input_share_info(self.party.leader.version, Role::Helper);
        let key = HpkePrivateKey::new(self.keys.private_key().to_vec());
        hpke.open(&share.enc, &key, &info, &share.aad, &share.sealed, None, None, None)
            .map_err(|e| Failure::Wrong(format!("a report does not open: {e}")))
    }

    /// Microseconds of CPU per report, on this thread, measured for at least that long.
    ///
    /// # Errors
    /// [`Failure::Wrong`] if a report does not verify.
    pub fn us_per_report(&self, at_least: Duration) -> Result<f64, Failure> {
        self.verify_all()?;
        let (begun, before, mut reports) = (Instant::now(), cpu::of_this_thread(), 0);
        loop {
            self.verify_all()?;
            reports += self.shares.len();
            if begun.elapsed() >= at_least {
                break;
            }
        }
        Ok((cpu::of_this_thread() - before) * 1e6 / reports as f64)
    }

    fn verify_all(&self) -> Result<(), Failure> {
        for share in &self.shares {
            let plaintext = self.open(share)?;
            let wire = self.party.wire();
            let input = wire.plaintext_input_share(&plaintext);
            let input = input.map_err(|e| Failure::Wrong(e.to_string()))?;
            (self.verify)(share, input.payload)
                .map_err(|e| Failure::Wrong(format!("{}: {e}", self.party.name())))?;
        }
        Ok(())
    }
}

/// With VDAF-08, DAP-09's.
mod v08 {
    use prio08::{
        codec::{Decode, ParameterizedDecode},
        field::Field64,
        flp::{
            gadgets::{Mul, ParallelSum},
            types::SumVec,
        },
        topology::ping_pong::{
            PingPongContinuedValue, PingPongMessage, PingPongState, PingPongTopology as _,
        },
        vdaf::{
            Aggregator,
            poplar1::{Poplar1, Poplar1AggregationParam},
            prio3::{
                Prio3, Prio3Count, Prio3Histogram, Prio3MultihotCountVec, Prio3Sum, Prio3SumVec,
            },
            xof::XofHmacSha256Aes128,
        },
    };

    use super::{Share, VdafConfig, Verify};
    use crate::kinds::bits;

    type Multiproof =
        Prio3<SumVec<Field64, ParallelSum<Field64, Mul<Field64>>>, XofHmacSha256Aes128, 32>;

    pub(super) fn verifier(
        config: &VdafConfig,
        key: Vec<u8>,
        agg_param: &[u8],
    ) -> Result<Verify, String> {
        let failed = |e: &dyn std::fmt::Display| e.to_string();
        Ok(match *config {
            VdafConfig::Prio3Count => {
                with(Prio3Count::new_count(2).map_err(|e| failed(&e))?, key, ())?
            }
            VdafConfig::Prio3Sum { max_measurement } => with(
                Prio3Sum::new_sum(2, bits(max_measurement) as usize).map_err(|e| failed(&e))?,
                key,
                (),
            )?,
            VdafConfig::Prio3SumVec { length, max_measurement, chunk_length } => {
                let (bits, length) = (bits(max_measurement) as usize, length as usize);
                let vdaf = Prio3SumVec::new_sum_vec(2, bits, length, chunk_length as usize);
                with(vdaf.map_err(|e| failed(&e))?, key, ())?
            }
            VdafConfig::Prio3Histogram { length, chunk_length } => {
                let vdaf = Prio3Histogram::new_histogram(2, length as usize, chunk_length as usize);
                with(vdaf.map_err(|e| failed(&e))?, key, ())?
            }
            VdafConfig::Prio3MultihotCountVec { length, max_weight, chunk_length } => {
                let (length, weight) = (length as usize, max_weight as usize);
                let vdaf = Prio3MultihotCountVec::new_multihot_count_vec(
                    2,
                    length,
                    weight,
                    chunk_length as usize,
                );
                with(vdaf.map_err(|e| failed(&e))?, key, ())?
            }
            VdafConfig::Prio3SumVecField64MultiproofHmacSha256Aes128 {
                length,
                max_measurement,
                chunk_length,
                proofs,
            } => {
                let (bits, length) = (bits(max_measurement) as usize, length as usize);
                let circuit = SumVec::new(bits, length, chunk_length as usize);
                let circuit = circuit.map_err(|e| failed(&e))?;
                let vdaf: Multiproof =
                    Prio3::new(2, proofs, 0xffff_1003, circuit).map_err(|e| failed(&e))?;
                with(vdaf, key, ())?
            }
            VdafConfig::Poplar1 { bits } => {
                let param = Poplar1AggregationParam::get_decoded(agg_param);
                with(Poplar1::new_turboshake128(bits.into()), key, param.map_err(|e| failed(&e))?)?
            }
        })
    }

    fn with<V: Aggregator<S, 16> + 'static, const S: usize>(
        vdaf: V,
        key: Vec<u8>,
        param: V::AggregationParam,
    ) -> Result<Verify, String> {
        let key: [u8; S] = key.try_into().map_err(|_| "the verify key has another length")?;
        Ok(Box::new(move |share, input| {
            verify(&vdaf, &key, &param, share, input).map_err(|e| e.to_string())
        }))
    }

    fn verify<V: Aggregator<S, 16>, const S: usize>(
        vdaf: &V,
        key: &[u8; S],
        param: &V::AggregationParam,
        share: &Share,
        input: &[u8],
    ) -> Result<(), Box<dyn std::error::Error>> {
        let public = V::PublicShare::get_decoded_with_param(vdaf, &share.public_share)?;
        let input = V::InputShare::get_decoded_with_param(&(vdaf, 1), input)?;
        let inbound = PingPongMessage::get_decoded(&share.first)?;
        let transition =
            vdaf.helper_initialized(key, param, &share.nonce, &public, &input, &inbound)?;
        match (transition.evaluate(vdaf)?, &share.second) {
            ((PingPongState::Finished(output), _), None) => {
                std::hint::black_box(output);
                Ok(())
            }
            ((state @ PingPongState::Continued(_), _), Some(second)) => {
                let second = PingPongMessage::get_decoded(second)?;
                match vdaf.helper_continued(state, param, &second)? {
                    PingPongContinuedValue::FinishedNoMessage { output_share } => {
                        std::hint::black_box(output_share);
                        Ok(())
                    }
                    PingPongContinuedValue::WithMessage { .. } => Err("it does not end".into()),
                }
            }
            _ => Err("it ends too early or too late".into()),
        }
    }
}

/// With VDAF-18, DAP-18's.
mod v18 {
    use prio18::{
        codec::{Decode, ParameterizedDecode},
        field::Field64,
        flp::{
            gadgets::{Mul, ParallelSum},
            types::SumVec,
        },
        topology::ping_pong::{Continued, PingPongMessage, PingPongState, PingPongTopology as _},
        vdaf::{
            Aggregator,
            poplar1::{Poplar1, Poplar1AggregationParam},
            prio3::{
                Prio3, Prio3Count, Prio3Histogram, Prio3MultihotCountVec, Prio3Sum, Prio3SumVec,
            },
            xof::XofHmacSha256Aes128,
        },
    };

    use super::{Share, VdafConfig, Verify};

    type Multiproof = Prio3<SumVec<Field64, ParallelSum<Field64, Mul>>, XofHmacSha256Aes128, 32>;

    pub(super) fn verifier(
        config: &VdafConfig,
        key: Vec<u8>,
        agg_param: &[u8],
        context: Vec<u8>,
    ) -> Result<Verify, String> {
        let failed = |e: &dyn std::fmt::Display| e.to_string();
        Ok(match *config {
            VdafConfig::Prio3Count => {
                with(Prio3Count::new_count(2).map_err(|e| failed(&e))?, key, (), context)?
            }
            VdafConfig::Prio3Sum { max_measurement } => {
                let vdaf = Prio3Sum::new_sum(2, max_measurement);
                with(vdaf.map_err(|e| failed(&e))?, key, (), context)?
            }
            VdafConfig::Prio3SumVec { length, max_measurement, chunk_length } => {
                let (max, length) = (u128::from(max_measurement), length as usize);
                let vdaf = Prio3SumVec::new_sum_vec(2, max, length, chunk_length as usize);
                with(vdaf.map_err(|e| failed(&e))?, key, (), context)?
            }
            VdafConfig::Prio3Histogram { length, chunk_length } => {
                let vdaf = Prio3Histogram::new_histogram(2, length as usize, chunk_length as usize);
                with(vdaf.map_err(|e| failed(&e))?, key, (), context)?
            }
            VdafConfig::Prio3MultihotCountVec { length, max_weight, chunk_length } => {
                let (length, weight) = (length as usize, max_weight as usize);
                let vdaf = Prio3MultihotCountVec::new_multihot_count_vec(
                    2,
                    length,
                    weight,
                    chunk_length as usize,
                );
                with(vdaf.map_err(|e| failed(&e))?, key, (), context)?
            }
            VdafConfig::Prio3SumVecField64MultiproofHmacSha256Aes128 {
                length,
                max_measurement,
                chunk_length,
                proofs,
            } => {
                let circuit = SumVec::new(max_measurement, length as usize, chunk_length as usize);
                let circuit = circuit.map_err(|e| failed(&e))?;
                let vdaf: Multiproof =
                    Prio3::new(2, proofs, 0xffff_1003, circuit).map_err(|e| failed(&e))?;
                with(vdaf, key, (), context)?
            }
            VdafConfig::Poplar1 { bits } => {
                let param = Poplar1AggregationParam::get_decoded(agg_param);
                let vdaf = Poplar1::new_turboshake128(bits.into());
                with(vdaf, key, param.map_err(|e| failed(&e))?, context)?
            }
        })
    }

    fn with<V: Aggregator<S, 16> + 'static, const S: usize>(
        vdaf: V,
        key: Vec<u8>,
        param: V::AggregationParam,
        context: Vec<u8>,
    ) -> Result<Verify, String> {
        let key: [u8; S] = key.try_into().map_err(|_| "the verify key has another length")?;
        Ok(Box::new(move |share, input| {
            verify(&vdaf, (&key, &context), &param, share, input).map_err(|e| e.to_string())
        }))
    }

    fn verify<V: Aggregator<S, 16>, const S: usize>(
        vdaf: &V,
        (key, context): (&[u8; S], &[u8]),
        param: &V::AggregationParam,
        share: &Share,
        input: &[u8],
    ) -> Result<(), Box<dyn std::error::Error>> {
        let public = V::PublicShare::get_decoded_with_param(vdaf, &share.public_share)?;
        let input = V::InputShare::get_decoded_with_param(&(vdaf, 1), input)?;
        let inbound = PingPongMessage::get_decoded(&share.first)?;
        let continuation =
            vdaf.helper_initialized(key, context, param, &share.nonce, &public, &input, &inbound)?;
        match (continuation.evaluate(context, vdaf)?, &share.second) {
            (PingPongState::FinishedWithOutbound { output_share, .. }, None) => {
                std::hint::black_box(output_share);
                Ok(())
            }
            (PingPongState::Continued(Continued { verifier_state, .. }), Some(second)) => {
                let second = PingPongMessage::get_decoded(second)?;
                let end = vdaf.helper_continued(context, param, verifier_state, &second)?;
                match end.evaluate(context, vdaf)? {
                    PingPongState::Finished { output_share } => {
                        std::hint::black_box(output_share);
                        Ok(())
                    }
                    _ => Err("it does not end".into()),
                }
            }
            _ => Err("it ends too early or too late".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_libraries_alone_verify_our_clients_reports() {
        for version in DapVersion::ALL {
            for kind in Kind::all() {
                let us = Floor::new(version, kind).unwrap().us_per_report(Duration::ZERO);
                assert!(us.is_ok(), "{kind:?} {us:?}");
            }
        }
    }

    #[test]
    fn a_broken_report_is_noticed() {
        let mut floor = Floor::new(DapVersion::V18, Kind::Count).unwrap();
        let last = floor.shares[0].first.len() - 1;
        floor.shares[0].first[last] ^= 1;
        assert!(matches!(floor.verify_all(), Err(Failure::Wrong(_))));
    }
}
