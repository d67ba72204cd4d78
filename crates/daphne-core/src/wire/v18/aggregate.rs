//! Verifying and aggregating reports: DAP-18 §4.5.

use super::{
    Extension, HpkeCiphertext, ReportMetadata, is_increasing, not_empty, read_report_error, rest,
    write_not_empty, write_report_error,
};
use crate::{
    codec::{DecodeError, Reader, Writer},
    error::{Abort, AbortKind, ReportError},
    ids::{BatchId, ReportId},
    message,
    time::Duration,
    version::DapVersion,
};

/// `AggregationJobExtensionType` of the extension that names the batch of a leader-selected task's job. DAP-18 §5.2.2.
pub const LEADER_SELECTED_BATCH_ID: u16 = 1;

/// The id of a task's only verification key.
// SPEC: DAP-18 §4.5.3.1 has the leader name a verification key and does not say how keys get their ids, nor what to do about
// an unknown one. A task here has one key, number 0; jobs with another are malformed.
pub const VERIFICATION_KEY_ID: u8 = 0;

/// The helper's part of a report. DAP-18 §4.5.3.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReportShare<'a> {
    /// Public facts.
    pub report_metadata: ReportMetadata<'a>,
    /// The VDAF's public share, undecoded, `0..=2^32-1` bytes.
    pub public_share: &'a [u8],
    /// The helper's input share, sealed.
    pub encrypted_input_share: HpkeCiphertext<'a>,
}

whole!(ReportShare<'a>);

impl<'a> ReportShare<'a> {
    fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self {
            report_metadata: ReportMetadata::read(r)?,
            public_share: r.opaque32()?,
            encrypted_input_share: HpkeCiphertext::read(r)?,
        })
    }

    fn write(&self, w: &mut Writer) {
        self.report_metadata.write(w);
        w.opaque32(self.public_share);
        self.encrypted_input_share.write(w);
    }
}

/// One report in a job's first request. DAP-18 §4.5.3.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerifyInit<'a> {
    /// The helper's part of the report.
    pub report_share: ReportShare<'a>,
    /// The leader's first ping-pong message, undecoded, `1..=2^32-1` bytes.
    pub payload: &'a [u8],
}

whole!(VerifyInit<'a>);

const NO_PAYLOAD: &str = "payload is empty";

impl<'a> VerifyInit<'a> {
    fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let report_share = ReportShare::read(r)?;
        Ok(Self { report_share, payload: not_empty(r.opaque32()?, NO_PAYLOAD)? })
    }

    fn write(&self, w: &mut Writer) {
        self.report_share.write(w);
        write_not_empty(self.payload, w);
    }

    fn into_message(self, precision: Duration) -> message::VerifyInit<'a> {
        message::VerifyInit {
            report_share: message::ReportShare {
                metadata: self.report_share.report_metadata.into_message(precision),
                public_share: self.report_share.public_share,
                encrypted_input_share: self.report_share.encrypted_input_share,
            },
            payload: self.payload,
        }
    }

    /// Of a neutral message, whose metadata has its encoding.
    fn of(v: &message::VerifyInit<'a>) -> Result<Self, DecodeError> {
        let share = &v.report_share;
        Ok(Self {
            report_share: ReportShare {
                report_metadata: ReportMetadata::decode(share.metadata.encoded)?,
                public_share: share.public_share,
                encrypted_input_share: share.encrypted_input_share,
            },
            payload: v.payload,
        })
    }
}

/// A leader's request to begin an aggregation job. DAP-18 §4.5.3.1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AggregationJobInitReq<'a> {
    /// Which of the task's verification keys is to be used.
    pub verification_key_id: u8,
    /// The VDAF's aggregation parameter, undecoded, `0..=2^32-1` bytes.
    pub agg_param: &'a [u8],
    /// Extensions of the job, 65,535 bytes in all.
    pub extensions: Vec<Extension<'a>>,
    /// The reports.
    pub verify_inits: Vec<VerifyInit<'a>>,
}

whole!(AggregationJobInitReq<'a>);

impl<'a> AggregationJobInitReq<'a> {
    fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self {
            verification_key_id: r.u8()?,
            agg_param: r.opaque32()?,
            extensions: Extension::read_list(r)?,
            verify_inits: rest(r, VerifyInit::read)?,
        })
    }

    fn write(&self, w: &mut Writer) {
        w.u8(self.verification_key_id).opaque32(self.agg_param);
        Extension::write_list(&self.extensions, w);
        self.verify_inits.iter().for_each(|v| v.write(w));
    }

    /// The neutral message.
    ///
    /// # Errors
    /// The leader's fault: `unsupportedExtension` for an extension that we do not know; `invalidMessage` for extensions
    /// that are out of order, a batch id of another length than 32, another key than [`VERIFICATION_KEY_ID`], or no report.
    pub fn into_message(
        self,
        precision: Duration,
    ) -> Result<message::AggregationJobInit<'a>, Abort> {
        let batch = batch_of(&self.extensions)?;
        if self.verification_key_id != VERIFICATION_KEY_ID {
            return Err(Abort::invalid_message("the task has no verification key of that id"));
        }
        // SPEC: to DAP-18 §3.1 an empty answer means that the real one comes later, so a job without reports could not be
        // answered.
        if self.verify_inits.is_empty() {
            return Err(Abort::invalid_message("the job has no reports"));
        }
        let verify_inits = self.verify_inits.into_iter().map(|v| v.into_message(precision));
        Ok(message::AggregationJobInit {
            agg_param: self.agg_param,
            batch,
            verify_inits: verify_inits.collect(),
        })
    }

    /// Encodes a neutral message.
    ///
    /// # Errors
    /// Our own fault: a field that is too long, or metadata that were not encoded for DAP-18.
    pub fn encode_message(
        init: &message::AggregationJobInit<'a>,
    ) -> Result<Vec<u8>, crate::codec::EncodeError> {
        let batch_id = match &init.batch {
            message::PartialBatchSelector::TimeInterval => None,
            message::PartialBatchSelector::LeaderSelected(id) => Some(id),
        };
        let mut w = Writer::new();
        w.u8(VERIFICATION_KEY_ID).opaque32(init.agg_param);
        let extensions: Vec<Extension<'_>> = batch_id
            .map(|id| Extension {
                extension_type: LEADER_SELECTED_BATCH_ID,
                extension_data: id.as_bytes(),
            })
            .into_iter()
            .collect();
        Extension::write_list(&extensions, &mut w);
        for init in &init.verify_inits {
            match VerifyInit::of(init) {
                Ok(init) => init.write(&mut w),
                Err(_) => {
                    w.fail();
                }
            }
        }
        w.finish()
    }
}

/// The batch that a job's extensions name. Which extensions a job must have depends on its task.
fn batch_of(extensions: &[Extension<'_>]) -> Result<message::PartialBatchSelector, Abort> {
    if let Some(unknown) = extensions.iter().find(|e| e.extension_type != LEADER_SELECTED_BATCH_ID)
    {
        return Err(Abort::new(
            AbortKind::UnsupportedExtension,
            format!("aggregation job extension {} is not known here", unknown.extension_type),
        ));
    }
    if !is_increasing(extensions) {
        return Err(Abort::invalid_message("the aggregation job's extensions are not in order"));
    }
    let Some(extension) = extensions.first() else {
        return Ok(message::PartialBatchSelector::TimeInterval);
    };
    let id = Reader::all(extension.extension_data, BatchId::read)
        .map_err(|_| Abort::invalid_message("leader_selected_batch_id must be 32 bytes"))?;
    Ok(message::PartialBatchSelector::LeaderSelected(id))
}

/// The helper's answer for one report. DAP-18 §4.5.3.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerifyResp<'a> {
    /// The report.
    pub report_id: ReportId,
    /// What became of it.
    pub verify_resp_type: VerifyRespType<'a>,
}

/// What became of one report at the helper. DAP-18 §4.5.3.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerifyRespType<'a> {
    /// 0, with the helper's next ping-pong message, `1..=2^32-1` bytes.
    Continue(&'a [u8]),
    /// 1: committed, nothing more to say.
    Finish,
    /// 2: refused. Errors without a code point in DAP-18 have no encoding.
    Reject(ReportError),
}

whole!(VerifyResp<'a>);

const CONTINUE: u8 = 0;
const FINISH: u8 = 1;
const REJECT: u8 = 2;

impl<'a> VerifyResp<'a> {
    fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let report_id = ReportId::read(r)?;
        let verify_resp_type = match r.u8()? {
            CONTINUE => VerifyRespType::Continue(not_empty(r.opaque32()?, NO_PAYLOAD)?),
            FINISH => VerifyRespType::Finish,
            REJECT => VerifyRespType::Reject(read_report_error(r)?),
            _ => return Err(DecodeError::Invalid("verify_resp_type is unknown")),
        };
        Ok(Self { report_id, verify_resp_type })
    }

    fn write(&self, w: &mut Writer) {
        w.raw(self.report_id.as_bytes());
        match self.verify_resp_type {
            VerifyRespType::Continue(payload) => {
                write_not_empty(payload, w.u8(CONTINUE));
            }
            VerifyRespType::Finish => {
                w.u8(FINISH);
            }
            VerifyRespType::Reject(error) => {
                w.u8(REJECT);
                write_report_error(error, w);
            }
        }
    }
}

impl From<VerifyResp<'_>> for message::VerifyResp {
    fn from(v: VerifyResp<'_>) -> Self {
        let result = match v.verify_resp_type {
            VerifyRespType::Continue(payload) => {
                message::VerifyRespResult::Continue(payload.to_vec())
            }
            VerifyRespType::Finish => message::VerifyRespResult::Finish,
            VerifyRespType::Reject(e) => message::VerifyRespResult::Reject(e),
        };
        Self { report_id: v.report_id, result }
    }
}

impl<'a> From<&'a message::VerifyResp> for VerifyResp<'a> {
    fn from(v: &'a message::VerifyResp) -> Self {
        let verify_resp_type = match &v.result {
            message::VerifyRespResult::Continue(payload) => VerifyRespType::Continue(payload),
            message::VerifyRespResult::Finish => VerifyRespType::Finish,
            message::VerifyRespResult::Reject(e) => {
                VerifyRespType::Reject(DapVersion::V18.sent_error(*e))
            }
        };
        Self { report_id: v.report_id, verify_resp_type }
    }
}

/// The helper's answer to either request of an aggregation job. DAP-18 §4.5.3.2, §4.5.4.2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AggregationJobResp<'a> {
    /// One answer per report, in the request's order.
    pub verify_resps: Vec<VerifyResp<'a>>,
}

whole!(AggregationJobResp<'a>);

impl<'a> AggregationJobResp<'a> {
    fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self { verify_resps: rest(r, VerifyResp::read)? })
    }

    fn write(&self, w: &mut Writer) {
        self.verify_resps.iter().for_each(|v| v.write(w));
    }
}

impl<'a> From<&'a [message::VerifyResp]> for AggregationJobResp<'a> {
    fn from(resps: &'a [message::VerifyResp]) -> Self {
        Self { verify_resps: resps.iter().map(Into::into).collect() }
    }
}

impl From<AggregationJobResp<'_>> for Vec<message::VerifyResp> {
    fn from(m: AggregationJobResp<'_>) -> Self {
        m.verify_resps.into_iter().map(Into::into).collect()
    }
}

/// One report in a job's later request. DAP-18 §4.5.4.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerifyContinue<'a> {
    /// The report.
    pub report_id: ReportId,
    /// The leader's next ping-pong message, undecoded, `1..=2^32-1` bytes.
    pub payload: &'a [u8],
}

whole!(VerifyContinue<'a>);

impl<'a> VerifyContinue<'a> {
    fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let report_id = ReportId::read(r)?;
        Ok(Self { report_id, payload: not_empty(r.opaque32()?, NO_PAYLOAD)? })
    }

    fn write(&self, w: &mut Writer) {
        write_not_empty(self.payload, w.raw(self.report_id.as_bytes()));
    }
}

/// A leader's request to continue an aggregation job. DAP-18 §4.5.4.1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AggregationJobContinueReq<'a> {
    /// The step the leader is at, `0..=65,535`; zero is for the job, not for this codec, to refuse.
    pub step: u16,
    /// The reports.
    pub verify_continues: Vec<VerifyContinue<'a>>,
}

whole!(AggregationJobContinueReq<'a>);

impl<'a> AggregationJobContinueReq<'a> {
    fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self { step: r.u16()?, verify_continues: rest(r, VerifyContinue::read)? })
    }

    fn write(&self, w: &mut Writer) {
        w.u16(self.step);
        self.verify_continues.iter().for_each(|v| v.write(w));
    }
}

/// Fails with `invalidMessage` without a report, as [`AggregationJobInitReq::into_message`].
impl<'a> TryFrom<AggregationJobContinueReq<'a>> for message::AggregationJobContinue<'a> {
    type Error = DecodeError;

    fn try_from(m: AggregationJobContinueReq<'a>) -> Result<Self, DecodeError> {
        if m.verify_continues.is_empty() {
            return Err(DecodeError::Invalid("the continuation has no reports"));
        }
        let verify_continues = m.verify_continues.into_iter();
        let verify_continues = verify_continues.map(|VerifyContinue { report_id, payload }| {
            message::VerifyContinue { report_id, payload }
        });
        Ok(Self { step: m.step, verify_continues: verify_continues.collect() })
    }
}

impl<'a> From<&message::AggregationJobContinue<'a>> for AggregationJobContinueReq<'a> {
    fn from(m: &message::AggregationJobContinue<'a>) -> Self {
        let verify_continues = m.verify_continues.iter();
        let verify_continues =
            verify_continues.map(|&message::VerifyContinue { report_id, payload }| {
                VerifyContinue { report_id, payload }
            });
        Self { step: m.step, verify_continues: verify_continues.collect() }
    }
}
