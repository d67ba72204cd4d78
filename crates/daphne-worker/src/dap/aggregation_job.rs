//! `PUT`, `POST` and `DELETE /v09/tasks/{task}/aggregation_jobs/{job}`. DAP-09 §4.5.
//!
//! A 4xx makes a leader abandon the whole job for good, so whatever one client can cause is a rejection inside a 200.

use daphne_core::{
    aggregate::{
        commit::{self, JobIdentity},
        helper::HelperJob,
        rounds::{self, Continuation},
    },
    error::{Error, Internal},
    message::{AggregationJobInit, VerifyResp},
    store::{
        Objects,
        message::{LedgerRequest, LedgerResponse},
    },
    version::Message,
    wire::v09,
};
use sha2::{Digest, Sha256};
use storage_proxy::objects::ObjectCaller;
use worker::{Request, Response};

use super::{VERSION, leaders_job, read_job, shard_key};
use crate::{app::RequestContext, log::Outcome, respond, router::Found};

/// Creates the job, verifies and commits its reports, and answers for each. A repeat is answered alike.
///
/// # Errors
/// As [`HelperJob::new`] and [`commit::run`].
pub async fn put(
    context: &RequestContext<'_>,
    request: &mut Request,
    found: &Found,
    outcome: &mut Outcome,
) -> Result<Response, Error> {
    let (task, job) = leaders_job(context, request, found, outcome).await?;
    let (body, _memory) = read_job(context, request, Message::AggregationJobInit, &task).await?;
    let init: AggregationJobInit<'_> = v09::AggregationJobInitReq::decode(&body)?.into();
    let mut keyring = context.config.keyring(context.env, context.now).await?;
    if keyring.lacks_key_for(&init) {
        // A key that was made a moment ago may not have come here yet: "unknown" is a verdict for ever.
        keyring = context.config.keyring_beyond(keyring, context.env, context.now).await?;
    }
    let helper_job = HelperJob::new(&task, &keyring, context.now, &init)?;
    let identity = JobIdentity {
        job,
        digest: Sha256::digest(&body).into(),
        shard_key: shard_key(context, &task)?,
    };
    let objects = ObjectCaller::new(context.env.clone());
    answer(&commit::run(&objects, &identity, &helper_job).await?, outcome)
}

/// Continues a job of several rounds, and answers for each report. A repeat is answered alike.
///
/// # Errors
/// As [`rounds::continue_job`].
pub async fn post(
    context: &RequestContext<'_>,
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
        request: &v09::AggregationJobContinueReq::decode(&body)?.into(),
        digest: Sha256::digest(&body).into(),
    };
    let objects = ObjectCaller::new(context.env.clone());
    answer(&rounds::continue_job(&objects, &continuation).await?, outcome)
}

fn answer(answers: &[VerifyResp], outcome: &mut Outcome) -> Result<Response, Error> {
    outcome.reports(answers);
    let answer = v09::AggregationJobResp::from(answers)
        .encode()
        .map_err(|e| Internal::Broken(e.to_string()))?;
    respond::message(VERSION, Message::AggregationJobResponse, answer)
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
    context: &RequestContext<'_>,
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
