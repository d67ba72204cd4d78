//! One aggregation job, from its reports to sums of what both aggregators accepted.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::Duration,
};

use daphne_core::{
    aggregate::leader::{AnswerError, LeaderStep, LeaderTask},
    batch::{BatchBucket, Checksum},
    error::ReportError,
    hpke::HpkeKeypair,
    ids::{AggregationJobId, ReportId},
    message::{PartialBatchSelector, Report, VerifyResp, VerifyRespResult},
    vdaf::{AggregateResult, AggregationParam, FieldKind, Measurement, share},
    wire::Wire,
};

use super::{Options, count};
use crate::{
    Failure,
    helper_client::{HelperClient, Resource},
    http::ClientError,
    reports::KnownReport,
    task_file::random,
};

/// The step of the only continuation that a VDAF needs.
const CONTINUATION: u16 = 1;

/// What is needed to run jobs.
pub(super) struct Leader<'a> {
    pub(super) task: LeaderTask,
    /// What is asked of the reports: nothing in particular, but for Poplar1.
    pub(super) agg_param: AggregationParam,
    pub(super) keys: &'a HpkeKeypair,
    pub(super) helper: &'a HelperClient,
    pub(super) options: &'a Options,
}

/// The reports of a job.
#[derive(Clone)]
pub(super) struct Job {
    pub(super) batch: PartialBatchSelector,
    pub(super) reports: Vec<KnownReport>,
}

/// What both aggregators accepted into one bucket, or several.
#[derive(Clone)]
pub(super) struct Accepted {
    pub(super) report_count: u64,
    pub(super) checksum: Checksum,
    /// The leader's encoded aggregate share.
    pub(super) share: Vec<u8>,
    /// What the reports say, if all of them are known.
    pub(super) truth: Option<AggregateResult>,
}

/// Sums over finished jobs.
#[derive(Default)]
pub(super) struct JobOutcome {
    pub(super) reports_read: u64,
    pub(super) reports_sent: u64,
    pub(super) accepted: BTreeMap<BatchBucket, Accepted>,
    pub(super) refused: BTreeMap<&'static str, u64>,
    pub(super) refused_by_leader: BTreeMap<&'static str, u64>,
    pub(super) retries: u64,
    pub(super) jobs_replayed: u64,
    pub(super) jobs_deleted: u64,
}

/// How a job ended.
pub(super) struct JobEnd {
    pub(super) outcome: JobOutcome,
    pub(super) latencies: Vec<Duration>,
    pub(super) problems: Vec<String>,
    pub(super) abandoned: bool,
}

impl Leader<'_> {
    /// Runs a job to its end, which is also reached by abandoning it.
    ///
    /// # Errors
    /// [`Failure::Unreachable`] if the helper does not answer; otherwise a report or the system is unusable.
    pub(super) fn run_job(&self, job: Job) -> Result<JobEnd, Failure> {
        let name = AggregationJobId::new(random()?);
        // Where it is, as soon as that is known.
        let mut at = self.helper.job_named(&name);
        let mut end = JobEnd {
            outcome: JobOutcome::default(),
            latencies: Vec::new(),
            problems: Vec::new(),
            abandoned: false,
        };
        match self.try_job(&name, &job, &mut at, &mut end) {
            Ok(()) => Ok(end),
            Err(JobError::Failure(failure)) => Err(failure),
            Err(JobError::Abandon(why)) => {
                // Best effort: the job is over for us either way.
                if let Some(at) = &at {
                    let _ = self.helper.delete_job(at);
                }
                end.abandoned = true;
                let id = at.as_ref().map_or("without a place", Resource::id);
                end.problems.push(format!("aggregation job {id} was abandoned: {why}"));
                Ok(end)
            }
        }
    }

    fn try_job(
        &self,
        name: &AggregationJobId,
        job: &Job,
        at: &mut Option<Resource>,
        end: &mut JobEnd,
    ) -> Result<(), JobError> {
        let outcome = &mut end.outcome;
        outcome.reports_read = job.reports.len() as u64;
        let reports = self.decode(&job.reports)?;
        let (begun, refused) = self
            .task
            .begin_job(self.keys, &self.agg_param, job.batch, &reports)
            .map_err(|_| Failure::Usage("a report is too large to be sent".into()))?;
        for (_, error) in &refused {
            count(&mut outcome.refused_by_leader, error.label(), 1);
        }
        let Some(begun) = begun else { return Ok(()) };
        outcome.reports_sent = begun.report_count() as u64;

        let request = begun.request().to_vec();
        let created = self.helper.create_job(name, &request)?;
        let (id, answer) = (&*at.insert(created.at), created.success);
        outcome.retries += answer.retries as u64;
        end.latencies.push(answer.latency);

        let broken = |e: AnswerError| JobError::Abandon(e.to_string());
        let mut verdicts = self.verdicts(&answer.body)?;
        let mut continued = None;
        let finished = match self.task.proceed(begun, &answer.body).map_err(broken)? {
            LeaderStep::Finished(outcome) => outcome,
            LeaderStep::Continued(continuation) => {
                let request = continuation.request().to_vec();
                let answer = self.helper.continue_job(id, CONTINUATION, &request)?;
                outcome.retries += answer.retries as u64;
                end.latencies.push(answer.latency);
                verdicts.extend(self.verdicts(&answer.body)?);
                let finished = self.task.finish_continued(continuation, &answer.body);
                continued = Some((request, answer.body));
                finished.map_err(broken)?
            }
        };
        let unknown: HashSet<&ReportId> =
            refused.iter().chain(&finished.refused).map(|(id, _)| id).collect();
        for (id, error) in &finished.refused {
            if verdicts.get(id) == Some(&None) {
                end.problems.push(format!("the helper's message for report {id} does not verify"));
            }
            count(&mut outcome.refused, error.label(), 1);
        }
        let mut truths = self.truths(job, &reports, &unknown)?;
        for (bucket, slice) in finished.accepted {
            let accepted = Accepted {
                report_count: slice.report_count,
                checksum: slice.checksum,
                share: slice.share.encode(),
                truth: truths.remove(&bucket).flatten(),
            };
            outcome.accepted.insert(bucket, accepted);
        }
        match continued {
            Some((request, answer)) if self.options.replay => {
                self.repeat_continuation(id, &request, &answer, end)?;
            }
            None if self.options.replay => {
                self.replay((name, id), &request, &answer.body, &verdicts, end)?;
            }
            Some(_) | None => {}
        }
        if self.options.delete_jobs {
            self.helper.delete_job(id)?;
            end.outcome.jobs_deleted += 1;
        }
        Ok(())
    }

    /// What the accepted reports say, by bucket; `None` for a bucket where one is not known.
    fn truths(
        &self,
        job: &Job,
        reports: &[Report<'_>],
        refused: &HashSet<&ReportId>,
    ) -> Result<BTreeMap<BatchBucket, Option<AggregateResult>>, Failure> {
        let mut known: BTreeMap<BatchBucket, Option<Vec<&Measurement>>> = BTreeMap::new();
        for (report, line) in reports.iter().zip(&job.reports) {
            if refused.contains(&report.metadata.report_id) {
                continue;
            }
            let bucket = match job.batch {
                PartialBatchSelector::TimeInterval => {
                    BatchBucket::Window(report.metadata.time.round_down(self.task.time_precision))
                }
                PartialBatchSelector::LeaderSelected(id) => BatchBucket::Batch(id),
            };
            let all = known.entry(bucket).or_insert_with(|| Some(Vec::new()));
            match (&line.measurement, all.as_mut()) {
                (Some(measurement), Some(all)) => all.push(measurement),
                _ => *all = None,
            }
        }
        known
            .into_iter()
            .map(|(bucket, all)| {
                let truth = all
                    .map(|all| self.task.vdaf.truth(&self.agg_param, all.into_iter()))
                    .transpose();
                Ok((bucket, truth.map_err(|e| Failure::Usage(e.to_string()))?))
            })
            .collect()
    }

    /// Sends the same request again: it is the same job, and its answer must be the same. In another job every report must be
    /// refused, those accepted before as replayed.
    fn replay(
        &self,
        (name, id): (&AggregationJobId, &Resource),
        request: &[u8],
        answer: &[u8],
        first: &Verdicts,
        end: &mut JobEnd,
    ) -> Result<(), JobError> {
        let shown = id.id();
        let repeated = self.helper.create_job(name, request)?;
        if repeated.at.id() != id.id() {
            end.problems.push(format!("aggregation job {shown}, sent again, became another job"));
        }
        if repeated.success.body != answer {
            end.problems.push(format!("aggregation job {shown}, sent again, got another answer"));
        }
        end.outcome.retries += repeated.success.retries as u64;
        end.outcome.jobs_replayed += 1;
        let Some(other) = self.other_request(request)? else { return Ok(()) };
        let replayed = self.helper.create_job(&AggregationJobId::new(random()?), &other)?;
        let second = self.verdicts(&replayed.success.body)?;
        let wrong = first
            .iter()
            .filter(|(id, before)| match (before, second.get(*id)) {
                (None, Some(Some(ReportError::ReportReplayed))) => false,
                (Some(_), Some(Some(_))) => false,
                (None | Some(_), _) => true,
            })
            .count();
        if wrong > 0 || second.len() != first.len() {
            end.problems.push(format!(
                "{wrong} reports of aggregation job {shown}, sent again in another job, were not refused as replayed"
            ));
        }
        end.outcome.retries += replayed.success.retries as u64;
        Ok(())
    }

    /// A request that begins another job with the same reports. Where the content of a job is all that tells it from others
    /// its reports come in another order, of which a single one has none.
    fn other_request(&self, request: &[u8]) -> Result<Option<Vec<u8>>, JobError> {
        if self.task.version.leader_names_jobs() {
            return Ok(Some(request.to_vec()));
        }
        let unusable = |_| Failure::Usage("a job is too large to be sent again".into());
        let mut init = self.wire().aggregation_job_init(request).map_err(|e| {
            JobError::Abandon(format!("its own request is malformed: {}", e.detail))
        })?;
        init.verify_inits.reverse();
        let other = self.wire().encode_aggregation_job_init(&init).map_err(unusable)?;
        Ok((other != request).then_some(other))
    }
}

impl Leader<'_> {
    /// The field of the shares.
    pub(super) fn field(&self) -> FieldKind {
        self.task.vdaf.field().at(&self.agg_param.encode())
    }

    /// Sends the same continuation again: the answer must be the same.
    fn repeat_continuation(
        &self,
        id: &Resource,
        request: &[u8],
        answer: &[u8],
        end: &mut JobEnd,
    ) -> Result<(), JobError> {
        let repeated = self.helper.continue_job(id, CONTINUATION, request)?;
        if repeated.body != answer {
            let id = id.id();
            end.problems.push(format!("aggregation job {id}, continued again, got another answer"));
        }
        end.outcome.retries += repeated.retries as u64;
        end.outcome.jobs_replayed += 1;
        Ok(())
    }
}

/// Why a job goes no further.
enum JobError {
    /// The helper broke the protocol or refused.
    Abandon(String),
    /// Going on makes no sense.
    Failure(Failure),
}

impl From<Failure> for JobError {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

impl From<ClientError> for JobError {
    fn from(e: ClientError) -> Self {
        match e {
            ClientError::Transport(_) => Self::Failure(e.into()),
            ClientError::Problem(_) | ClientError::Protocol(_) => Self::Abandon(e.to_string()),
        }
    }
}

/// The helper's answer by report: why it was refused, or `None` if the helper accepted it.
type Verdicts = HashMap<ReportId, Option<ReportError>>;

impl Leader<'_> {
    /// How the task's messages are written.
    pub(super) fn wire(&self) -> Wire {
        Wire::new(self.task.version, self.task.time_precision)
    }

    fn verdicts(&self, answer: &[u8]) -> Result<Verdicts, JobError> {
        let answer = self
            .wire()
            .aggregation_job_resp(answer)
            .map_err(|e| JobError::Abandon(format!("the helper's answer is malformed: {e}")))?;
        let verdict = |resp: VerifyResp| match resp.result {
            VerifyRespResult::Continue(_) | VerifyRespResult::Finish => (resp.report_id, None),
            VerifyRespResult::Reject(error) => (resp.report_id, Some(error)),
        };
        Ok(answer.into_iter().map(verdict).collect())
    }

    fn decode<'r>(&self, lines: &'r [KnownReport]) -> Result<Vec<Report<'r>>, Failure> {
        let malformed = |e| Failure::Usage(format!("a report is malformed: {e}"));
        lines.iter().map(|line| self.wire().report(&line.report).map_err(malformed)).collect()
    }
}

impl JobOutcome {
    /// Adds another job's outcome.
    ///
    /// # Errors
    /// One sentence, if shares do not add up, which shares of one VDAF always do.
    pub(super) fn merge(&mut self, field: FieldKind, other: Self) -> Result<(), String> {
        self.reports_read += other.reports_read;
        self.reports_sent += other.reports_sent;
        self.retries += other.retries;
        self.jobs_replayed += other.jobs_replayed;
        self.jobs_deleted += other.jobs_deleted;
        other.refused.into_iter().for_each(|(key, n)| count(&mut self.refused, key, n));
        for (key, n) in other.refused_by_leader {
            count(&mut self.refused_by_leader, key, n);
        }
        for (bucket, accepted) in other.accepted {
            match self.accepted.get_mut(&bucket) {
                Some(sum) => sum.merge(field, &accepted)?,
                None => {
                    self.accepted.insert(bucket, accepted);
                }
            }
        }
        Ok(())
    }
}

impl Accepted {
    /// Adds a disjoint set of reports.
    ///
    /// # Errors
    /// As [`JobOutcome::merge`].
    pub(super) fn merge(&mut self, field: FieldKind, other: &Self) -> Result<(), String> {
        share::add_assign(field, &mut self.share, &other.share)
            .map_err(|e| format!("the leader's shares do not add up: {e}"))?;
        self.report_count += other.report_count;
        self.checksum.merge(&other.checksum);
        self.truth = match (self.truth.take(), &other.truth) {
            (Some(a), Some(b)) => add(a, b),
            (None, _) | (_, None) => None,
        };
        Ok(())
    }
}

/// The sum of two results of one VDAF.
fn add(a: AggregateResult, b: &AggregateResult) -> Option<AggregateResult> {
    match (a, b) {
        (AggregateResult::Number(a), AggregateResult::Number(b)) => {
            Some(AggregateResult::Number(a.checked_add(*b)?))
        }
        (AggregateResult::Vector(mut a), AggregateResult::Vector(b)) => {
            for (a, b) in a.iter_mut().zip(b) {
                *a = a.checked_add(*b)?;
            }
            Some(AggregateResult::Vector(a))
        }
        (AggregateResult::Number(_), AggregateResult::Vector(_))
        | (AggregateResult::Vector(_), AggregateResult::Number(_)) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_over_jobs_know_the_truth_only_if_all_do() {
        let accepted = |id: u8, truth: Option<u64>| {
            let mut checksum = Checksum::default();
            checksum.add(&ReportId::new([id; 16]));
            Accepted {
                report_count: 1,
                checksum,
                share: vec![id, 0, 0, 0, 0, 0, 0, 0],
                truth: truth.map(Into::into),
            }
        };
        let mut sum = accepted(1, Some(1));
        sum.merge(FieldKind::F64, &accepted(2, Some(1))).unwrap();
        assert_eq!((sum.report_count, sum.share[0]), (2, 3));
        assert_eq!(sum.truth, Some(AggregateResult::Number(2)));
        sum.merge(FieldKind::F64, &accepted(3, None)).unwrap();
        assert_eq!((sum.report_count, sum.truth.clone()), (3, None));
        sum.merge(FieldKind::F64, &accepted(4, Some(1))).unwrap();
        assert_eq!(sum.truth, None);
    }
}
