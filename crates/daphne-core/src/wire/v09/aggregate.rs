//! Verifying and aggregating reports: DAP-09 §4.5.

use super::{
    HpkeCiphertext, PartialBatchSelector, ReportMetadata, nonempty_list32, write_nonempty_list32,
};
use crate::{
    codec::{DecodeError, Reader, Writer},
    error::ReportError,
    ids::ReportId,
    message,
    version::DapVersion,
};

/// The helper's part of a report. DAP-09 §4.5.1.1.
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

impl<'a> From<ReportShare<'a>> for message::ReportShare<'a> {
    fn from(s: ReportShare<'a>) -> Self {
        Self {
            metadata: s.report_metadata.into(),
            public_share: s.public_share,
            encrypted_input_share: s.encrypted_input_share,
        }
    }
}

impl<'a> From<message::ReportShare<'a>> for ReportShare<'a> {
    fn from(s: message::ReportShare<'a>) -> Self {
        Self {
            report_metadata: s.metadata.into(),
            public_share: s.public_share,
            encrypted_input_share: s.encrypted_input_share,
        }
    }
}

/// One report in a job's first request. DAP-09 §4.5.1.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrepareInit<'a> {
    /// The helper's part of the report.
    pub report_share: ReportShare<'a>,
    /// The leader's first ping-pong message, undecoded, `0..=2^32-1` bytes.
    pub payload: &'a [u8],
}

whole!(PrepareInit<'a>);

impl<'a> PrepareInit<'a> {
    fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self { report_share: ReportShare::read(r)?, payload: r.opaque32()? })
    }

    fn write(&self, w: &mut Writer) {
        self.report_share.write(w);
        w.opaque32(self.payload);
    }
}

impl<'a> From<PrepareInit<'a>> for message::VerifyInit<'a> {
    fn from(p: PrepareInit<'a>) -> Self {
        Self { report_share: p.report_share.into(), payload: p.payload }
    }
}

impl<'a> From<message::VerifyInit<'a>> for PrepareInit<'a> {
    fn from(v: message::VerifyInit<'a>) -> Self {
        Self { report_share: v.report_share.into(), payload: v.payload }
    }
}

/// A leader's request to begin an aggregation job. DAP-09 §4.5.1.1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AggregationJobInitReq<'a> {
    /// The VDAF's aggregation parameter, undecoded, `0..=2^32-1` bytes.
    pub agg_param: &'a [u8],
    /// Where the reports go.
    pub part_batch_selector: PartialBatchSelector,
    /// The reports, at least one; 2^32-1 bytes in all.
    pub prepare_inits: Vec<PrepareInit<'a>>,
}

whole!(AggregationJobInitReq<'a>);

impl<'a> AggregationJobInitReq<'a> {
    fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self {
            agg_param: r.opaque32()?,
            part_batch_selector: PartialBatchSelector::read(r)?,
            prepare_inits: nonempty_list32(r, "prepare_inits is empty", PrepareInit::read)?,
        })
    }

    fn write(&self, w: &mut Writer) {
        w.opaque32(self.agg_param);
        self.part_batch_selector.write(w);
        write_nonempty_list32(w, &self.prepare_inits, PrepareInit::write);
    }
}

impl<'a> From<AggregationJobInitReq<'a>> for message::AggregationJobInit<'a> {
    fn from(m: AggregationJobInitReq<'a>) -> Self {
        Self {
            agg_param: m.agg_param,
            batch: m.part_batch_selector.into(),
            verify_inits: m.prepare_inits.into_iter().map(Into::into).collect(),
        }
    }
}

impl<'a> From<message::AggregationJobInit<'a>> for AggregationJobInitReq<'a> {
    fn from(m: message::AggregationJobInit<'a>) -> Self {
        Self {
            agg_param: m.agg_param,
            part_batch_selector: m.batch.into(),
            prepare_inits: m.verify_inits.into_iter().map(Into::into).collect(),
        }
    }
}

/// The helper's answer for one report. DAP-09 §4.5.1.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrepareResp<'a> {
    /// The report.
    pub report_id: ReportId,
    /// What became of it.
    pub prepare_resp_state: PrepareRespState<'a>,
}

/// What became of one report at the helper. DAP-09 §4.5.1.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrepareRespState<'a> {
    /// 0, with the helper's next ping-pong message, `0..=2^32-1` bytes.
    Continue(&'a [u8]),
    /// 1: committed, nothing more to say.
    Finished,
    /// 2, with a `PrepareError`: refused. Errors without a code point in DAP-09 have no encoding.
    Reject(ReportError),
}

whole!(PrepareResp<'a>);

const CONTINUE: u8 = 0;
const FINISHED: u8 = 1;
const REJECT: u8 = 2;

impl<'a> PrepareResp<'a> {
    fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let report_id = ReportId::read(r)?;
        let prepare_resp_state = match r.u8()? {
            CONTINUE => PrepareRespState::Continue(r.opaque32()?),
            FINISHED => PrepareRespState::Finished,
            REJECT => DapVersion::V09
                .report_error_from_code(r.u8()?)
                .map(PrepareRespState::Reject)
                .ok_or(DecodeError::Invalid("prepare_error is unknown"))?,
            _ => return Err(DecodeError::Invalid("prepare_resp_state is unknown")),
        };
        Ok(Self { report_id, prepare_resp_state })
    }

    fn write(&self, w: &mut Writer) {
        w.raw(self.report_id.as_bytes());
        match self.prepare_resp_state {
            PrepareRespState::Continue(payload) => w.u8(CONTINUE).opaque32(payload),
            PrepareRespState::Finished => w.u8(FINISHED),
            PrepareRespState::Reject(e) => match DapVersion::V09.report_error_code(e) {
                Some(code) => w.u8(REJECT).u8(code),
                None => w.fail(),
            },
        };
    }
}

impl From<PrepareResp<'_>> for message::VerifyResp {
    fn from(p: PrepareResp<'_>) -> Self {
        let result = match p.prepare_resp_state {
            PrepareRespState::Continue(payload) => {
                message::VerifyRespResult::Continue(payload.to_vec())
            }
            PrepareRespState::Finished => message::VerifyRespResult::Finish,
            PrepareRespState::Reject(e) => message::VerifyRespResult::Reject(e),
        };
        Self { report_id: p.report_id, result }
    }
}

impl<'a> From<&'a message::VerifyResp> for PrepareResp<'a> {
    fn from(v: &'a message::VerifyResp) -> Self {
        let prepare_resp_state = match &v.result {
            message::VerifyRespResult::Continue(payload) => PrepareRespState::Continue(payload),
            message::VerifyRespResult::Finish => PrepareRespState::Finished,
            message::VerifyRespResult::Reject(e) => PrepareRespState::Reject(*e),
        };
        Self { report_id: v.report_id, prepare_resp_state }
    }
}

/// The helper's answer to either request of an aggregation job. DAP-09 §4.5.1.2, §4.5.2.2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AggregationJobResp<'a> {
    /// One answer per report, in the request's order, at least one; 2^32-1 bytes in all.
    pub prepare_resps: Vec<PrepareResp<'a>>,
}

whole!(AggregationJobResp<'a>);

impl<'a> AggregationJobResp<'a> {
    fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self { prepare_resps: nonempty_list32(r, "prepare_resps is empty", PrepareResp::read)? })
    }

    fn write(&self, w: &mut Writer) {
        write_nonempty_list32(w, &self.prepare_resps, PrepareResp::write);
    }
}

impl<'a> From<&'a [message::VerifyResp]> for AggregationJobResp<'a> {
    fn from(resps: &'a [message::VerifyResp]) -> Self {
        Self { prepare_resps: resps.iter().map(Into::into).collect() }
    }
}

impl From<AggregationJobResp<'_>> for Vec<message::VerifyResp> {
    fn from(m: AggregationJobResp<'_>) -> Self {
        m.prepare_resps.into_iter().map(Into::into).collect()
    }
}

/// One report in a job's later request. DAP-09 §4.5.2.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrepareContinue<'a> {
    /// The report.
    pub report_id: ReportId,
    /// The leader's next ping-pong message, undecoded, `0..=2^32-1` bytes.
    pub payload: &'a [u8],
}

whole!(PrepareContinue<'a>);

impl<'a> PrepareContinue<'a> {
    fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self { report_id: ReportId::read(r)?, payload: r.opaque32()? })
    }

    fn write(&self, w: &mut Writer) {
        w.raw(self.report_id.as_bytes()).opaque32(self.payload);
    }
}

/// A leader's request to continue an aggregation job. DAP-09 §4.5.2.1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AggregationJobContinueReq<'a> {
    /// The step the leader is at, `0..=65,535`; zero is for the job, not for this codec, to refuse.
    pub step: u16,
    /// The reports, at least one; 2^32-1 bytes in all.
    pub prepare_continues: Vec<PrepareContinue<'a>>,
}

whole!(AggregationJobContinueReq<'a>);

impl<'a> AggregationJobContinueReq<'a> {
    fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self {
            step: r.u16()?,
            prepare_continues: nonempty_list32(
                r,
                "prepare_continues is empty",
                PrepareContinue::read,
            )?,
        })
    }

    fn write(&self, w: &mut Writer) {
        w.u16(self.step);
        write_nonempty_list32(w, &self.prepare_continues, PrepareContinue::write);
    }
}

impl<'a> From<AggregationJobContinueReq<'a>> for message::AggregationJobContinue<'a> {
    fn from(m: AggregationJobContinueReq<'a>) -> Self {
        let verify_continues = m
            .prepare_continues
            .into_iter()
            .map(|PrepareContinue { report_id, payload }| message::VerifyContinue {
                report_id,
                payload,
            })
            .collect();
        Self { step: m.step, verify_continues }
    }
}

impl<'a> From<message::AggregationJobContinue<'a>> for AggregationJobContinueReq<'a> {
    fn from(m: message::AggregationJobContinue<'a>) -> Self {
        let prepare_continues = m
            .verify_continues
            .into_iter()
            .map(|message::VerifyContinue { report_id, payload }| PrepareContinue {
                report_id,
                payload,
            })
            .collect();
        Self { step: m.step, prepare_continues }
    }
}
