//! The leader's part of an aggregation job: from reports to requests, and from the helper's answers to what both
//! accept. DAP-09 §4.5.1.1, §4.5.2.1, DAP-18 §4.5.3.1, §4.5.4.1.

use std::collections::BTreeMap;

use crate::{
    batch::{BatchBucket, Checksum},
    codec::{DecodeError, EncodeError},
    error::ReportError,
    hpke::{self, HpkeKeypair, Role},
    ids::{ReportId, TaskId},
    message::{
        AggregationJobContinue, AggregationJobInit, PartialBatchSelector, Report, ReportShare,
        VerifyContinue, VerifyInit, VerifyResp, VerifyRespResult,
    },
    time::{Duration, Time},
    vdaf::{
        AggregateShare, AggregationParam, LeaderState, LeaderTransition, OutputShare, Vdaf,
        VerifyKey,
    },
    version::DapVersion,
    wire::{Wire, input_share_aad},
};

/// What a leader knows of its task.
#[derive(Clone, Debug)]
pub struct LeaderTask {
    /// The task's id.
    pub task_id: TaskId,
    /// The VDAF.
    pub vdaf: Vdaf,
    /// The VDAF's verify key.
    pub verify_key: VerifyKey,
    /// Time precision.
    pub time_precision: Duration,
    /// Protocol version.
    pub version: DapVersion,
    /// Its configuration, word for word; empty for DAP-09.
    pub task_configuration: Vec<u8>,
}

/// A job between its request and the helper's answer.
#[derive(Clone, Debug)]
pub struct LeaderJob {
    request: Vec<u8>,
    agg_param: AggregationParam,
    reports: Vec<PendingReport>,
}

#[derive(Clone, Debug)]
struct PendingReport {
    report_id: ReportId,
    bucket: BatchBucket,
    state: LeaderState,
}

/// A job that the helper waits for: its next request, and what the leader has made of its reports.
#[derive(Clone, Debug)]
pub struct LeaderContinuation {
    request: Vec<u8>,
    agg_param: AggregationParam,
    reports: Vec<FinishedReport>,
    outcome: LeaderOutcome,
}

#[derive(Clone, Debug)]
struct FinishedReport {
    report_id: ReportId,
    bucket: BatchBucket,
    output: OutputShare,
}

/// Where an answer of the helper brings a job.
#[derive(Clone, Debug)]
pub enum LeaderStep {
    /// To its end.
    Finished(LeaderOutcome),
    /// To its next request.
    Continued(LeaderContinuation),
}

/// What both aggregators accepted into one batch bucket.
#[derive(Clone, Debug)]
pub struct LeaderSlice {
    /// Number of reports.
    pub report_count: u64,
    /// XOR of SHA-256 of their ids.
    pub checksum: Checksum,
    /// Sum of the leader's output shares.
    pub share: AggregateShare,
}

/// The end of a job.
#[derive(Clone, Debug, Default)]
pub struct LeaderOutcome {
    /// Accepted by both, by bucket.
    pub accepted: BTreeMap<BatchBucket, LeaderSlice>,
    /// Refused by the helper, or by the leader upon the helper's message.
    pub refused: Vec<(ReportId, ReportError)>,
}

/// The helper's answer breaks the protocol: the job is to be abandoned. DAP-09 §4.5.1.1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// It does not decode.
    #[error("the helper's answer is malformed: {0}")]
    Decode(#[from] DecodeError),
    /// Its reports are not those of the request, in that order.
    #[error("the helper's answer lists other reports than the request, or in another order")]
    Order,
    /// "Finished" where the leader still waits for a message, or a message where it does not.
    #[error("the helper finished a report too early or too late")]
    Type,
    /// The next request cannot be written.
    #[error(transparent)]
    Encode(#[from] EncodeError),
}

impl LeaderTask {
    /// Opens and verifies the leader's share of one report, up to the message for the helper.
    fn begin(
        &self,
        keys: &HpkeKeypair,
        agg_param: &AggregationParam,
        report: &Report<'_>,
    ) -> Result<(LeaderState, Vec<u8>), ReportError> {
        let sealed = report.leader_encrypted_input_share;
        if sealed.config_id != keys.config().id {
            return Err(ReportError::HpkeUnknownConfigId);
        }
        let (metadata, public_share) = (report.metadata.encoded, report.public_share);
        let aad = input_share_aad(&self.task_id, &self.task_configuration, metadata, public_share)
            .map_err(|_| ReportError::InvalidMessage)?;
        let info = hpke::input_share_info(self.version, Role::Leader);
        let plaintext =
            hpke::open(keys, &info, &aad, sealed).map_err(|_| ReportError::HpkeDecryptError)?;
        let share = self
            .wire()
            .plaintext_input_share(&plaintext)
            .map_err(|_| ReportError::InvalidMessage)?;
        self.vdaf
            .leader_init(
                &self.verify_key,
                &self.version.vdaf_context(&self.task_id),
                agg_param,
                report.metadata.report_id.as_bytes(),
                report.public_share,
                share.payload,
            )
            .map_err(ReportError::from)
    }

    fn bucket(&self, batch: PartialBatchSelector, time: Time) -> BatchBucket {
        match batch {
            PartialBatchSelector::TimeInterval => {
                BatchBucket::Window(time.round_down(self.time_precision))
            }
            PartialBatchSelector::LeaderSelected(id) => BatchBucket::Batch(id),
        }
    }

    /// Begins a job. Returns it, unless no report is left, with the reports that the leader itself refuses.
    ///
    /// # Errors
    /// [`EncodeError`] if a report is too large to send.
    #[allow(clippy::type_complexity)]
    pub fn begin_job(
        &self,
        keys: &HpkeKeypair,
        agg_param: &AggregationParam,
        batch: PartialBatchSelector,
        reports: &[Report<'_>],
    ) -> Result<(Option<LeaderJob>, Vec<(ReportId, ReportError)>), EncodeError> {
        let mut refused = Vec::new();
        let mut pending = Vec::new();
        let mut begun = Vec::new();
        for report in reports {
            match self.begin(keys, agg_param, report) {
                Ok((state, message)) => {
                    pending.push(PendingReport {
                        report_id: report.metadata.report_id,
                        bucket: self.bucket(batch, report.metadata.time),
                        state,
                    });
                    begun.push((report, message));
                }
                Err(error) => refused.push((report.metadata.report_id, error)),
            }
        }
        if begun.is_empty() {
            return Ok((None, refused));
        }
        let encoded = agg_param.encode();
        let init = AggregationJobInit {
            agg_param: &encoded,
            batch,
            verify_inits: begun
                .iter()
                .map(|(report, message)| VerifyInit {
                    report_share: ReportShare {
                        metadata: report.metadata,
                        public_share: report.public_share,
                        encrypted_input_share: report.helper_encrypted_input_share,
                    },
                    payload: message,
                })
                .collect(),
        };
        let request = self.wire().encode_aggregation_job_init(&init)?;
        Ok((Some(LeaderJob { request, agg_param: agg_param.clone(), reports: pending }), refused))
    }

    /// Finishes a job of one round with the helper's answer.
    ///
    /// # Errors
    /// [`AnswerError`], the helper's fault: nothing of the job may count.
    pub fn finish_job(&self, job: LeaderJob, answer: &[u8]) -> Result<LeaderOutcome, AnswerError> {
        match self.proceed(job, answer)? {
            LeaderStep::Finished(outcome) => Ok(outcome),
            LeaderStep::Continued(_) => Err(AnswerError::Type),
        }
    }

    /// Goes on with a job after the helper's first answer.
    ///
    /// # Errors
    /// [`AnswerError`], the helper's fault: nothing of the job may count.
    pub fn proceed(&self, job: LeaderJob, answer: &[u8]) -> Result<LeaderStep, AnswerError> {
        let answer = self.answers(answer, job.reports.iter().map(|r| r.report_id))?;
        let context = self.version.vdaf_context(&self.task_id);
        let mut outcome = LeaderOutcome::default();
        let mut finished: Vec<(FinishedReport, Vec<u8>)> = Vec::new();
        for (report, resp) in job.reports.into_iter().zip(answer) {
            let PendingReport { report_id, bucket, state } = report;
            let message = match resp.result {
                VerifyRespResult::Continue(message) => message,
                VerifyRespResult::Finish => return Err(AnswerError::Type),
                VerifyRespResult::Reject(error) => {
                    outcome.refused.push((report_id, error));
                    continue;
                }
            };
            match self.vdaf.leader_continued(&context, state, &job.agg_param, &message) {
                Ok(LeaderTransition::Finished(output)) => {
                    let report = FinishedReport { report_id, bucket, output };
                    self.accept(&mut outcome, &job.agg_param, report);
                }
                Ok(LeaderTransition::FinishedWithOutbound(output, message)) => {
                    finished.push((FinishedReport { report_id, bucket, output }, message));
                }
                Err(_) => outcome.refused.push((report_id, ReportError::VdafVerifyError)),
            }
        }
        if finished.is_empty() {
            return Ok(LeaderStep::Finished(outcome));
        }
        let request = self.wire().encode_aggregation_job_continue(&AggregationJobContinue {
            step: 1,
            verify_continues: finished
                .iter()
                .map(|(report, message)| VerifyContinue {
                    report_id: report.report_id,
                    payload: message,
                })
                .collect(),
        })?;
        let reports = finished.into_iter().map(|(report, _)| report).collect();
        let agg_param = job.agg_param;
        Ok(LeaderStep::Continued(LeaderContinuation { request, agg_param, reports, outcome }))
    }

    /// Finishes a job with the helper's answer to its continuation.
    ///
    /// # Errors
    /// [`AnswerError`], the helper's fault: nothing of the job may count.
    pub fn finish_continued(
        &self,
        job: LeaderContinuation,
        answer: &[u8],
    ) -> Result<LeaderOutcome, AnswerError> {
        let answer = self.answers(answer, job.reports.iter().map(|r| r.report_id))?;
        let mut outcome = job.outcome;
        for (report, resp) in job.reports.into_iter().zip(answer) {
            match resp.result {
                VerifyRespResult::Finish => self.accept(&mut outcome, &job.agg_param, report),
                VerifyRespResult::Continue(_) => return Err(AnswerError::Type),
                VerifyRespResult::Reject(error) => outcome.refused.push((report.report_id, error)),
            }
        }
        Ok(outcome)
    }

    fn wire(&self) -> Wire {
        Wire::new(self.version, self.time_precision)
    }

    /// The entries of an answer, which are about `reports`, in that order.
    fn answers(
        &self,
        answer: &[u8],
        reports: impl Iterator<Item = ReportId>,
    ) -> Result<Vec<VerifyResp>, AnswerError> {
        let answer = self.wire().aggregation_job_resp(answer)?;
        if answer.iter().map(|r| r.report_id).eq(reports) {
            Ok(answer)
        } else {
            Err(AnswerError::Order)
        }
    }

    fn accept(
        &self,
        outcome: &mut LeaderOutcome,
        agg_param: &AggregationParam,
        report: FinishedReport,
    ) {
        let slice = outcome.accepted.entry(report.bucket).or_insert_with(|| LeaderSlice {
            report_count: 0,
            checksum: Checksum::default(),
            share: self.vdaf.aggregate_init(agg_param),
        });
        if slice.share.accumulate(&report.output).is_err() {
            outcome.refused.push((report.report_id, ReportError::VdafVerifyError));
            return;
        }
        slice.report_count += 1;
        slice.checksum.add(&report.report_id);
    }
}

impl LeaderJob {
    /// The encoded request. Retries must send these very bytes.
    pub fn request(&self) -> &[u8] {
        &self.request
    }

    /// Number of reports in the request.
    pub fn report_count(&self) -> usize {
        self.reports.len()
    }
}

impl LeaderContinuation {
    /// The encoded request. Retries must send these very bytes.
    pub fn request(&self) -> &[u8] {
        &self.request
    }
}
