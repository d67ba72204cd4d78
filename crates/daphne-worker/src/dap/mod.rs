//! DAP's resources. Each handler goes through the same door: path, task, leader's token, media type, body.

pub mod aggregate_share;
pub mod aggregation_job;
pub mod hpke_config;
mod taskprov;

use std::rc::Rc;

use daphne_core::{
    error::{Abort, AbortKind, Error, Internal},
    ids::{AggregationJobId, TaskId},
    store::placement::ShardKey,
    task::Task,
    version::{DapVersion, Message},
};
use worker::Request;

use crate::{app::RequestContext, body, log::Outcome, router::Found};

/// The version of the paths that are served.
pub const VERSION: DapVersion = DapVersion::V09;

fn task_id(text: &str) -> Result<TaskId, Abort> {
    text.parse().map_err(|_| {
        Abort::new(AbortKind::BadPath, "a task id is 43 characters of base64url without padding")
    })
}

fn job_id(text: &str) -> Result<AggregationJobId, Abort> {
    text.parse().map_err(|_| {
        Abort::new(
            AbortKind::BadPath,
            "an aggregation job id is 22 characters of base64url without padding",
        )
    })
}

/// The task, if there is one of this version.
async fn known_task(
    context: &RequestContext<'_>,
    id: &TaskId,
) -> Result<Option<Rc<Task>>, Internal> {
    let task = context.config.task(context.env, id, context.now).await?;
    Ok(task.filter(|task| task.parameters.version == VERSION))
}

/// The task of a request that its leader has authenticated. The body is not touched before.
async fn leaders_task(
    context: &RequestContext<'_>,
    request: &Request,
    found: &Found,
    outcome: &mut Outcome,
) -> Result<Rc<Task>, Error> {
    let id = task_id(&found.task)?;
    outcome.task(id);
    let Some(task) = known_task(context, &id).await? else {
        return taskprov::opt_in(context, request, &id, outcome).await;
    };
    taskprov::check_leader(context, request, &task).await?;
    taskprov::check_header(request, &id)?;
    Ok(task)
}

/// The task and the job of a request that the task's leader has authenticated.
async fn leaders_job(
    context: &RequestContext<'_>,
    request: &Request,
    found: &Found,
    outcome: &mut Outcome,
) -> Result<(Rc<Task>, AggregationJobId), Error> {
    let task = leaders_task(context, request, found, outcome).await?;
    let job = job_id(&found.job)?;
    outcome.job(job);
    Ok((task, job))
}

/// The body of a request that carries `message`.
async fn read_message(
    request: &mut Request,
    message: Message,
    bytes_max: usize,
) -> Result<Vec<u8>, Error> {
    body::check_media_type(request, VERSION.media_type(message).unwrap_or_default())?;
    body::read(request, bytes_max).await
}

fn shard_key(context: &RequestContext<'_>, task: &Task) -> Result<ShardKey, Internal> {
    context
        .config
        .root_keys()
        .shard_key(task.parameters.shard_key_version, task.id())
        .map(ShardKey::new)
        .ok_or_else(|| Internal::Broken("the root key of the task's shards is missing".to_owned()))
}
