//! Jobs of VDAFs of several rounds: what the helper keeps between the leader's requests, and the last one's commit.
//! DAP-09 §4.5.1.2, §4.5.2.2.
//!
//! Nothing counts before the last round, and whether a report was aggregated before is asked then. That it is verified for
//! one aggregation parameter at each level is seen to when it begins (`begun.rs`). The job's
//! [`job_store`](crate::store::job_store) keeps the job in between, and gives each step to one body only.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{
    begun,
    commit::{self, JobIdentity, Step, conflict, out_of_turn, unavailable},
    helper::{self, Examined, HelperJob, OwnedReport, Verified},
};
use crate::{
    b64,
    batch::BatchBucket,
    error::{Abort, AbortKind, Error, Internal, ReportError},
    ids::{AggregationJobId, BatchId, ReportId},
    message::{AggregationJobContinue, PartialBatchSelector, VerifyResp, VerifyRespResult},
    metrics::{Failure, Tally},
    store::{
        Objects,
        message::{Asked, DeferredRequest, JobStoreRequest, JobStoreResponse, RequestDigest},
        placement::ShardKey,
    },
    task::Task,
    time::Time,
    vdaf::{AggregationParam, HelperState, OutputShare},
};

/// A job between two rounds. Secret, like what its reports wait with.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitingJob {
    /// The aggregation parameter.
    #[serde(with = "b64::serde_b64")]
    pub agg_param: Vec<u8>,
    /// The batch, unless each report's own time decides.
    pub batch: Option<BatchId>,
    /// The reports that wait, in the order of the request.
    pub reports: Vec<WaitingReport>,
}

/// A report between two rounds. Secret.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitingReport {
    /// Its id.
    pub report_id: ReportId,
    /// Its time.
    pub time: Time,
    /// The encoded [`HelperState`].
    #[serde(with = "b64::serde_b64")]
    pub state: Vec<u8>,
}

/// Verifies the first round of a job's reports and keeps them. Returns one entry per report, in order; a repeat of the
/// request gets what the first one got.
///
/// The job store is asked before anything is verified: what has been answered costs a look at a row, however often it
/// comes. Of several requests that meet a free id at once, the first to be kept counts. Before it is kept, each report
/// is bound to what was verified; those that began otherwise in whatever job are refused as replayed.
///
/// # Errors
/// - [`AbortKind::Conflict`] if the job id was used with another body, or the job was continued or deleted: an
///   initialization comes first, or not at all (DAP-09 §4.5.1.2).
/// - [`Internal::Unavailable`] if an object did not answer.
pub(super) async fn begin(
    objects: &impl Objects,
    identity: &JobIdentity,
    job: &HelperJob<'_>,
) -> Result<Vec<VerifyResp>, Error> {
    let placement = job.task().parameters.placement();
    let shard = placement.home(&identity.shard_key, &identity.job);
    let ask =
        async |request| objects.job_store(&placement, shard, request).await.map_err(unavailable);
    let begun = JobStoreRequest::Begun { job: identity.job, digest: identity.digest };
    match ask(begun).await? {
        JobStoreResponse::Unknown => {}
        JobStoreResponse::Continued
            if job.task().parameters.version.repeats_after_continuation() =>
        {
            let asked = Asked::Body(identity.digest);
            let poll = DeferredRequest::Poll { job: identity.job, asked };
            return answer(job.task(), &ask(JobStoreRequest::Deferred(poll)).await?);
        }
        known => {
            // Whoever answered first may have died before it was counted. What lay behind the refusals is not looked at again.
            let answers = answer(job.task(), &known)?;
            note_refused(objects, identity, job.task(), &answers, &BTreeMap::new()).await?;
            return Ok(answers);
        }
    }
    job.prepare().await;
    let mut first = first_round(job)?;
    let asked: BTreeSet<ReportId> =
        first.waiting.reports.iter().map(|report| report.report_id).collect();
    first.refuse(&begun::bind(objects, identity, job, &asked).await?);
    let FirstRound { waiting, answers, failures } = first;
    let begin = JobStoreRequest::Begin {
        placement,
        job: identity.job,
        digest: identity.digest,
        waiting: waiting.reports.iter().map(|r| r.report_id).collect(),
        state: postcard::to_allocvec(&waiting).map_err(|e| Internal::Broken(e.to_string()))?,
        answer: encode(job.task(), &answers)?,
    };
    let answers = answer(job.task(), &ask(begin).await?)?;
    note_refused(objects, identity, job.task(), &answers, &failures).await?;
    Ok(answers)
}

/// What a job's first request is answered, as its job store has it.
fn answer(task: &Task, begun: &JobStoreResponse) -> Result<Vec<VerifyResp>, Error> {
    match begun {
        JobStoreResponse::Answered(answer) => decode(task, answer),
        JobStoreResponse::Conflict => Err(conflict()),
        JobStoreResponse::Continued => {
            Err(Abort::new(AbortKind::Conflict, "the aggregation job was continued").into())
        }
        JobStoreResponse::Deleted => Err(deleted()),
        _ => Err(out_of_turn()),
    }
}

pub(super) fn deleted() -> Error {
    Abort::new(AbortKind::Conflict, "the aggregation job was deleted").into()
}

/// The outcome of a first round.
struct FirstRound {
    /// What waits for the second.
    waiting: WaitingJob,
    answers: Vec<VerifyResp>,
    /// What lies behind the refusals, but for those that the clock made, or an owner.
    failures: BTreeMap<ReportId, Failure>,
}

impl FirstRound {
    /// Takes reports out that must not go on.
    fn refuse(&mut self, refused: &BTreeMap<ReportId, ReportError>) {
        self.waiting.reports.retain(|report| !refused.contains_key(&report.report_id));
        for VerifyResp { report_id, result } in &mut self.answers {
            if let Some(error) = refused.get(report_id) {
                *result = VerifyRespResult::Reject(*error);
            }
        }
    }
}

/// Verifies the first round.
fn first_round(job: &HelperJob<'_>) -> Result<FirstRound, Internal> {
    let mut waiting = WaitingJob {
        agg_param: job.init().agg_param.to_vec(),
        batch: match job.init().batch {
            PartialBatchSelector::TimeInterval => None,
            PartialBatchSelector::LeaderSelected(batch) => Some(batch),
        },
        reports: Vec::new(),
    };
    let mut answers = Vec::with_capacity(job.init().verify_inits.len());
    let mut failures: BTreeMap<ReportId, Failure> = BTreeMap::new();
    for (n, init) in job.init().verify_inits.iter().enumerate() {
        let report_id = init.report_share.metadata.report_id;
        let (examined, left) = job.examine(n);
        let result = match (examined, left) {
            (Examined::Owned(OwnedReport { proposal: Some(error), .. }), _) => {
                VerifyRespResult::Reject(error)
            }
            (Examined::Rejected(failure), _)
            | (Examined::Owned(OwnedReport { verified: Err(failure), .. }), _) => {
                failures.insert(report_id, failure);
                VerifyRespResult::Reject(failure.report_error())
            }
            (
                Examined::Owned(OwnedReport { time, verified: Ok(Some(message)), .. }),
                Some(Verified::Waits(state)),
            ) => {
                waiting.reports.push(WaitingReport { report_id, time, state: state.encode() });
                VerifyRespResult::Continue(message)
            }
            (Examined::Owned(_), _) => {
                return Err(Internal::Broken("a report was done too early".to_owned()));
            }
        };
        answers.push(VerifyResp { report_id, result });
    }
    Ok(FirstRound { waiting, answers, failures })
}

/// Has the ledger count what the first round refused: no store is going to hear of it. Once, whatever is repeated.
async fn note_refused(
    objects: &impl Objects,
    identity: &JobIdentity,
    task: &Task,
    answers: &[VerifyResp],
    failures: &BTreeMap<ReportId, Failure>,
) -> Result<(), Error> {
    let mut tally = Tally::default();
    for VerifyResp { report_id, result } in answers {
        if let VerifyRespResult::Reject(error) = result {
            // The first answer is the one that counts; its clock may have been another. It is in the version's words.
            let sent = |f: &&Failure| task.parameters.version.sent_error(f.report_error());
            let failure = failures.get(report_id).filter(|f| sent(f) == *error);
            tally.refuse(failure.copied().unwrap_or(Failure::recorded(*error)));
        }
    }
    commit::note(objects, identity, task, tally).await
}

/// A request to continue a job.
#[derive(Clone, Copy, Debug)]
pub struct Continuation<'a> {
    /// The task.
    pub task: &'a Task,
    /// The job.
    pub job: AggregationJobId,
    /// The secret that spreads the task's reports over its shards.
    pub shard_key: ShardKey,
    /// The clock.
    pub now: Time,
    /// The request.
    pub request: &'a AggregationJobContinue<'a>,
    /// SHA-256 of its body.
    pub digest: RequestDigest,
}

/// Continues a job: verifies the last round of the reports that the leader names, commits them, and gives the helper's
/// answer, one entry per report, in order. A repeat gets what the first one got. DAP-09 §4.5.2.2.
///
/// # Errors
/// - [`AbortKind::InvalidMessage`] for step 0, and for reports that do not wait, come twice or out of order.
/// - [`AbortKind::UnrecognizedAggregationJob`] if there is no such job, or the leader deleted it.
/// - [`AbortKind::StepMismatch`] for another step than the next one, or a step that was taken with another body.
/// - [`Internal::Unavailable`] if an object did not answer; the same request again goes on.
///
/// After any 4xx the job is as it was.
pub async fn continue_job(
    objects: &impl Objects,
    continuation: &Continuation<'_>,
) -> Result<Vec<VerifyResp>, Error> {
    continue_at_once(objects, continuation).await?.ok_or_else(out_of_turn)
}

/// As [`continue_job`]; `None` if the job is one that is answered later.
pub(super) async fn continue_at_once(
    objects: &impl Objects,
    continuation: &Continuation<'_>,
) -> Result<Option<Vec<VerifyResp>>, Error> {
    let Continuation { task, job, shard_key, request, digest, now } = *continuation;
    if task.vdaf.rounds() == 1 {
        return Err(no_further_round(objects, continuation).await);
    }
    let placement = task.parameters.placement();
    let shard = placement.home(&shard_key, &job);
    let begin = JobStoreRequest::BeginStep {
        job,
        step: request.step,
        digest,
        reports: request.verify_continues.iter().map(|r| r.report_id).collect(),
    };
    let (began_with, state) =
        match objects.job_store(&placement, shard, begin).await.map_err(unavailable)? {
            JobStoreResponse::Step { digest, state } => (digest, state),
            JobStoreResponse::Answered(answer) => return decode(task, &answer).map(Some),
            JobStoreResponse::IsDeferred => return Ok(None),
            refused => return Err(refusal(&refused, request.step)),
        };
    let continued = ContinuedJob::new(task, now, &state, request)?;
    let identity = JobIdentity {
        job,
        // What is committed is bound to all that led to it.
        digest: Sha256::new()
            .chain_update(began_with)
            .chain_update(request.step.to_be_bytes())
            .chain_update(digest)
            .finalize()
            .into(),
        shard_key,
    };
    let answers = commit::finish(objects, &identity, &continued).await?;
    let (step, answer) = (request.step, encode(task, &answers)?);
    let end = JobStoreRequest::EndStep { job, step, digest, answer };
    match objects.job_store(&placement, shard, end).await.map_err(unavailable)? {
        JobStoreResponse::Answered(answer) => decode(task, &answer).map(Some),
        refused => Err(refusal(&refused, step)),
    }
}

/// Has the job store forget what a job of several rounds waits with, after the leader deleted it.
///
/// # Errors
/// [`Internal::Unavailable`] if it did not answer.
pub async fn forget(
    objects: &impl Objects,
    task: &Task,
    shard_key: &ShardKey,
    job: &AggregationJobId,
) -> Result<(), Error> {
    if task.vdaf.rounds() == 1 {
        return Ok(());
    }
    let placement = task.parameters.placement();
    let shard = placement.home(shard_key, job);
    let request = JobStoreRequest::Forget(*job);
    match objects.job_store(&placement, shard, request).await.map_err(unavailable)? {
        JobStoreResponse::Done => Ok(()),
        _ => Err(out_of_turn()),
    }
}

/// What a continuation of a job of one round is told: no report of it waits.
async fn no_further_round(objects: &impl Objects, continuation: &Continuation<'_>) -> Error {
    let Continuation { task, job, shard_key, request, .. } = continuation;
    match commit::job_exists(objects, task, shard_key, job).await {
        Ok(true) if request.step == 0 => step_0(),
        Ok(true) if request.step == 1 => {
            Abort::invalid_message("no report of this job waits for a continuation").into()
        }
        Ok(true) => Abort::new(AbortKind::StepMismatch, "").into(),
        Ok(false) => Abort::new(AbortKind::UnrecognizedAggregationJob, "").into(),
        Err(error) => error,
    }
}

fn step_0() -> Error {
    Abort::invalid_message("step 0 is the initialization").into()
}

/// Why a continuation of this step is refused.
pub(super) fn refusal(response: &JobStoreResponse, step: u16) -> Error {
    match response {
        // Whether there is such a job is said first.
        JobStoreResponse::StepMismatch if step == 0 => step_0(),
        JobStoreResponse::Unknown => Abort::new(AbortKind::UnrecognizedAggregationJob, "").into(),
        JobStoreResponse::StepMismatch => Abort::new(
            AbortKind::StepMismatch,
            "the step is not the next one, or it was taken with another request body",
        )
        .into(),
        JobStoreResponse::NotWaiting => Abort::invalid_message(
            "a report does not wait for a continuation, appears twice or comes out of order",
        )
        .into(),
        _ => out_of_turn(),
    }
}

pub(super) fn encode(task: &Task, answers: &[VerifyResp]) -> Result<Vec<u8>, Internal> {
    let wire = task.parameters.wire();
    wire.encode_aggregation_job_resp(answers).map_err(|e| Internal::Broken(e.to_string()))
}

pub(super) fn decode(task: &Task, answer: &[u8]) -> Result<Vec<VerifyResp>, Error> {
    match task.parameters.wire().aggregation_job_resp(answer) {
        Ok(answers) => Ok(answers),
        Err(e) => Err(Internal::Broken(format!("a stored answer: {e}")).into()),
    }
}

/// The reports of a continuation, each with what it waited with.
struct ContinuedJob<'a> {
    task: &'a Task,
    now: Time,
    encoded_param: Vec<u8>,
    agg_param: AggregationParam,
    reports: Vec<ContinuedReport<'a>>,
}

struct ContinuedReport<'a> {
    report_id: ReportId,
    time: Time,
    bucket: BatchBucket,
    state: HelperState,
    payload: &'a [u8],
}

impl<'a> ContinuedJob<'a> {
    /// Joins what the leader sends with what was kept. The job store has seen that the reports wait.
    fn new(
        task: &'a Task,
        now: Time,
        kept: &[u8],
        request: &AggregationJobContinue<'a>,
    ) -> Result<Self, Internal> {
        let broken = |what: &dyn std::fmt::Display| Internal::Broken(format!("a kept job: {what}"));
        let WaitingJob { agg_param: encoded_param, batch, reports: waiting } =
            postcard::from_bytes(kept).map_err(|e| broken(&e))?;
        let agg_param = task.vdaf.decode_agg_param(&encoded_param).map_err(|e| broken(&e))?;
        let batch =
            batch.map_or(PartialBatchSelector::TimeInterval, PartialBatchSelector::LeaderSelected);
        let mut waiting: BTreeMap<ReportId, WaitingReport> =
            waiting.into_iter().map(|report| (report.report_id, report)).collect();
        let mut reports = Vec::with_capacity(request.verify_continues.len());
        for continued in &request.verify_continues {
            let WaitingReport { report_id, time, state } = waiting
                .remove(&continued.report_id)
                .ok_or_else(|| broken(&"a report that waits is not there"))?;
            let state =
                task.vdaf.decode_helper_state(&agg_param, &state).map_err(|e| broken(&e))?;
            let bucket = helper::bucket(task, batch, time);
            let payload = continued.payload;
            reports.push(ContinuedReport { report_id, time, bucket, state, payload });
        }
        Ok(Self { task, now, encoded_param, agg_param, reports })
    }
}

impl Step for ContinuedJob<'_> {
    fn task(&self) -> &Task {
        self.task
    }

    fn agg_param(&self) -> &AggregationParam {
        &self.agg_param
    }

    fn encoded_param(&self) -> &[u8] {
        &self.encoded_param
    }

    fn reports(&self) -> impl Iterator<Item = (ReportId, BatchBucket)> {
        self.reports.iter().map(|report| (report.report_id, report.bucket))
    }

    fn examine(&self, n: usize) -> (Examined, Option<OutputShare>) {
        let refused = |failure| (Examined::Rejected(failure), None);
        let Some(report) = self.reports.get(n) else { return refused(Failure::StepMismatch) };
        let context = self.task.parameters.version.vdaf_context(self.task.id());
        let (state, payload) = (report.state.clone(), report.payload);
        let ContinuedReport { report_id, time, bucket, .. } = *report;
        match self.task.vdaf.helper_continued(&context, state, &self.agg_param, payload) {
            Ok(output) => {
                // A report that waited must not outlast what protects it against replays.
                let oldest = self.now.saturating_sub(self.task.parameters.report_expiry_age);
                let proposal = (time < oldest).then_some(ReportError::ReportDropped);
                let verified = Ok(None);
                let owned = OwnedReport { report_id, time, bucket, proposal, verified };
                (Examined::Owned(owned), Some(output))
            }
            // The leader's message or the client's shares: nobody else's report is touched.
            Err(e) => refused(e.into()),
        }
    }
}
