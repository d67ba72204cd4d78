//! Aggregation jobs: `PUT`, `POST` and `DELETE` of one whose id the leader chose (DAP-09 §4.5), creation by `POST`, then `GET`,
//! `POST` and `DELETE` of one whose id we chose (DAP-18 §4.5).
//!
//! A 4xx makes a leader abandon the whole job for good, so whatever one client can cause is a rejection inside a 200.

use std::rc::Rc;

use daphne_core::{
    aggregate::{
        commit::{self, JobIdentity},
        helper::HelperJob,
        rounds::{self, Continuation},
    },
    error::{Abort, AbortKind, Error, Internal},
    ids::AggregationJobId,
    message::VerifyResp,
    store::{
        Objects,
        message::{LedgerRequest, LedgerResponse},
    },
    task::Task,
    version::Message,
};
use sha2::{Digest, Sha256};
use storage_proxy::objects::ObjectCaller;
use worker::{Request, Response};

use super::{DapContext, leaders_job, leaders_task, read_job, shard_key};
use crate::{log::Outcome, respond, router::Found};

/// Creates the job under the id that the leader chose, verifies and commits its reports, and answers for each. A repeat is
/// answered alike. DAP-09 §4.5.1.
///
/// # Errors
/// As [`HelperJob::new`] and [`commit::run`].
pub async fn put(
    context: &DapContext<'_>,
    request: &mut Request,
    found: &Found,
    outcome: &mut Outcome,
) -> Result<Response, Error> {
    let (task, job) = leaders_job(context, request, found, outcome).await?;
    let (body, _memory) = read_job(context, request, Message::AggregationJobInit, &task).await?;
    begin(context, &task, job, &body, outcome).await
}

/// Creates a job under an id that its content has, and goes on as [`put`]. The same content is the same job, of which its
/// leader is told what there is to tell. DAP-18 §4.5.3.2.
///
/// # Errors
/// As [`put`].
pub async fn create(
    context: &DapContext<'_>,
    request: &mut Request,
    found: &Found,
    outcome: &mut Outcome,
) -> Result<Response, Error> {
    let task = leaders_task(context, request, found, outcome).await?;
    let (body, _memory) = read_job(context, request, Message::AggregationJobInit, &task).await?;
    let job = commit::job_of_content(task.id(), &body);
    outcome.job(job);
    let location = format!("{}/{job}", request.path());
    let response = begin(context, &task, job, &body, outcome).await?;
    respond::at(response, &location)
}

async fn begin(
    context: &DapContext<'_>,
    task: &Rc<Task>,
    job: AggregationJobId,
    body: &[u8],
    outcome: &mut Outcome,
) -> Result<Response, Error> {
    let init = task.parameters.wire().aggregation_job_init(body)?;
    let mut keyring = context.config.keyring(context.env, context.now).await?;
    if keyring.lacks_key_for(&init) {
        // A key that was made a moment ago may not have come here yet: "unknown" is a verdict for ever.
        keyring = context.config.keyring_beyond(keyring, context.env, context.now).await?;
    }
    let helper_job = HelperJob::new(task, &keyring, context.now, &init)?;
    let identity = JobIdentity {
        job,
        digest: Sha256::digest(body).into(),
        shard_key: shard_key(context, task)?,
    };
    let objects = ObjectCaller::new(context.env.clone());
    answer(task, &commit::run(&objects, &identity, &helper_job).await?, outcome)
}

/// Continues a job of several rounds, and answers for each report. A repeat is answered alike.
///
/// # Errors
/// As [`rounds::continue_job`].
pub async fn post(
    context: &DapContext<'_>,
    request: &mut Request,
    found: &Found,
    outcome: &mut Outcome,
) -> Result<Response, Error> {
    let (task, job) = leaders_job(context, request, found, outcome).await?;
    let (body, _memory) =
        read_job(context, request, Message::AggregationJobContinue, &task).await?;
    let continuation = Continuation {
        task: &task,
        job,
        shard_key: shard_key(context, &task)?,
        now: context.now,
        request: &task.parameters.wire().aggregation_job_continue(&body)?,
        digest: Sha256::digest(&body).into(),
    };
    let objects = ObjectCaller::new(context.env.clone());
    answer(&task, &rounds::continue_job(&objects, &continuation).await?, outcome)
}

fn answer(task: &Task, answers: &[VerifyResp], outcome: &mut Outcome) -> Result<Response, Error> {
    outcome.reports(answers);
    let parameters = &task.parameters;
    let answer = parameters
        .wire()
        .encode_aggregation_job_resp(answers)
        .map_err(|e| Internal::Broken(e.to_string()))?;
    respond::message(parameters.version, Message::AggregationJobResponse, answer)
}

/// What became of a job.
///
/// # Errors
/// The leader's: there is no such job, or its answer was given at once and is not kept.
pub async fn get(
    context: &DapContext<'_>,
    request: &Request,
    found: &Found,
    outcome: &mut Outcome,
) -> Result<Response, Error> {
    let (_task, _job) = leaders_job(context, request, found, outcome).await?;
    let why =
        "the answer to a job that was answered at once is not kept; the same POST gives it again";
    Err(Abort::new(AbortKind::UnrecognizedAggregationJob, why).into())
}

/// Records that the leader gave the job up, or tidies it away. What was committed is decided when its batch is
/// collected. DAP-09 §4.5.2.2.
///
// SPEC: DAP-09 §4.5.2.2 has a DELETE let the helper clean up, and deployed helpers answer 410 to whatever comes for the
// job afterwards. We keep its verdicts, and answer the same job again with them: a leader that merely repeats itself, with
// its requests out of order, would otherwise lose reports.
/// # Errors
/// Ours: the same request will succeed later.
pub async fn delete(
    context: &DapContext<'_>,
    request: &Request,
    found: &Found,
    outcome: &mut Outcome,
) -> Result<Response, Error> {
    let (task, job) = leaders_job(context, request, found, outcome).await?;
    let release = LedgerRequest::Release { placement: task.parameters.placement(), job };
    let objects = ObjectCaller::new(context.env.clone());
    match objects.ledger(task.id(), release).await {
        Ok(LedgerResponse::Done) => {}
        Ok(_) => {
            return Err(Internal::Broken("a release was answered out of turn".to_owned()).into());
        }
        Err(e) => return Err(Internal::from(e).into()),
    }
    rounds::forget(&objects, &task, &shard_key(context, &task)?, &job).await?;
    respond::empty(204)
}
