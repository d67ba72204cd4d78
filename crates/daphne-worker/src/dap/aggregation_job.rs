//! Aggregation jobs: `PUT`, `POST` and `DELETE` of one whose id the leader chose (DAP-09 §4.5), creation by `POST`, then `GET`,
//! `POST` and `DELETE` of one whose id we chose (DAP-18 §4.5).
//!
//! A 4xx makes a leader abandon the whole job for good, so whatever one client can cause is a rejection inside a 200.

use std::rc::Rc;

use daphne_core::{
    aggregate::{
        commit::{self, JobIdentity},
        deferred::{self, Reply},
        helper::HelperJob,
        rounds::Continuation,
    },
    error::{Abort, AbortKind, Error, Internal},
    ids::AggregationJobId,
    message::{AggregationJobInit, VerifyResp},
    task::Task,
    version::Message,
};
use sha2::{Digest, Sha256};
use storage_proxy::{config::keys::Keys, objects::ObjectCaller};
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
    let init = task.parameters.wire().aggregation_job_init(&body)?;
    let keyring = keys_for(context, &init).await?;
    let helper_job =
        HelperJob::new(&task, &keyring, context.now, &init)?.agreed_by(keyring.agreement());
    let identity = identity(context, &task, job, &body)?;
    let objects = ObjectCaller::new(context.env.clone());
    answer(&task, &commit::run(&objects, &identity, &helper_job).await?, outcome)
}

/// Creates a job under an id that its content has, and goes on as [`put`], within this request or later. The same content is
/// the same job, of which its leader is told what there is to tell. DAP-18 §4.5.3.2.
///
/// # Errors
/// As [`HelperJob::of_any_size`] and [`deferred::create`].
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
    let init = task.parameters.wire().aggregation_job_init(&body)?;
    let keyring = keys_for(context, &init).await?;
    let helper_job =
        HelperJob::of_any_size(&task, &keyring, context.now, &init)?.agreed_by(keyring.agreement());
    let identity = identity(context, &task, job, &body)?;
    let objects = ObjectCaller::new(context.env.clone());
    let reply = deferred::create(&objects, context.budget, &identity, &helper_job, &body).await?;
    let location = format!("{}/{job}", request.path());
    let is_ready = matches!(reply, Reply::Ready(_));
    let response = respond_with(&task, &reply, &location, outcome)?;
    if is_ready { respond::at(response, &location) } else { Ok(response) }
}

/// Our keys, those of the request among them if we have them.
async fn keys_for(
    context: &DapContext<'_>,
    init: &AggregationJobInit<'_>,
) -> Result<Rc<Keys>, Internal> {
    let keyring = context.config.keyring(context.env, context.now).await?;
    if keyring.lacks_key_for(init) {
        // A key that was made a moment ago may not have come here yet: "unknown" is a verdict for ever.
        return context.config.keyring_beyond(keyring, context.env, context.now).await;
    }
    Ok(keyring)
}

fn identity(
    context: &DapContext<'_>,
    task: &Task,
    job: AggregationJobId,
    body: &[u8],
) -> Result<JobIdentity, Internal> {
    Ok(JobIdentity {
        job,
        digest: Sha256::digest(body).into(),
        shard_key: shard_key(context, task)?,
    })
}

/// Continues a job of several rounds, and answers for each report, or later. A repeat is answered alike.
///
/// # Errors
/// As [`deferred::continue_job`].
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
    let reply = deferred::continue_job(&objects, &continuation, &body).await?;
    respond_with(&task, &reply, &request.path(), outcome)
}

/// The answer to a job, or where it will be: an empty body says that it is not there yet. DAP-18 §3.1.
fn respond_with(
    task: &Task,
    reply: &Reply,
    location: &str,
    outcome: &mut Outcome,
) -> Result<Response, Error> {
    match reply {
        Reply::Ready(answers) => answer(task, answers, outcome),
        Reply::Later { step } => respond::later(&format!("{location}?step={step}")),
    }
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

/// The answer to a step of a job, if it is kept, or that it is not there yet. DAP-18 §3.1, §4.5.3.2.
///
/// # Errors
/// As [`deferred::poll`]; and the leader's if the query names no step.
pub async fn get(
    context: &DapContext<'_>,
    request: &Request,
    found: &Found,
    outcome: &mut Outcome,
) -> Result<Response, Error> {
    let (task, job) = leaders_job(context, request, found, outcome).await?;
    let step = step_in_query(request)?;
    let objects = ObjectCaller::new(context.env.clone());
    let reply = deferred::poll(&objects, &task, &shard_key(context, &task)?, &job, step).await?;
    respond_with(&task, &reply, &request.path(), outcome)
}

/// The step that a poll asks for: the helper is to know where its leader is. DAP-18 §4.5.3.2.
fn step_in_query(request: &Request) -> Result<u16, Abort> {
    let url = request.url().map_err(|_| Abort::new(AbortKind::BadRequest, "no URL"))?;
    let mut steps = url.query_pairs().filter(|(name, _)| name == "step");
    match (steps.next().map(|(_, step)| step.parse()), steps.next()) {
        (Some(Ok(step)), None) => Ok(step),
        _ => Err(Abort::invalid_message("the query must name one step, such as step=0")),
    }
}

/// Records that the leader gave the job up, or tidies it away. What was committed is decided when its batch is
/// collected. DAP-09 §4.5.2.2, DAP-18 §4.5.5.
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
    let objects = ObjectCaller::new(context.env.clone());
    deferred::delete(&objects, &task, &shard_key(context, &task)?, &job).await?;
    respond::empty(204)
}
