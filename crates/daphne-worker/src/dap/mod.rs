//! DAP's resources. Each handler goes through the same door: path, task, leader's token, media type, body.

pub mod aggregate_share;
pub mod aggregation_job;
pub mod hpke_config;
mod taskprov;

use std::{ops::Deref, rc::Rc};

use daphne_core::{
    error::{Abort, AbortKind, Error, Internal},
    ids::{AggregationJobId, TaskId},
    store::placement::ShardKey,
    task::Task,
    version::{DapVersion, Message},
};
use worker::Request;

use crate::{admission::Admission, app::RequestContext, body, limits, log::Outcome, router::Found};

/// A request to a path of DAP: its surroundings, and the version that the path names.
pub struct DapContext<'a> {
    /// Its surroundings.
    pub context: RequestContext<'a>,
    /// The version.
    pub version: DapVersion,
}

impl<'a> Deref for DapContext<'a> {
    type Target = RequestContext<'a>;

    fn deref(&self) -> &RequestContext<'a> {
        &self.context
    }
}

/// Largest job, in bytes. 1,000 reports of a long histogram take under 2 MiB; decoding takes a few times this.
const JOB_BYTES_MAX: usize = 8 << 20;

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

/// The task, if there is one of this version. Whoever asks for one that is not at hand has not been authenticated, and has
/// the `ConfigStore` be asked: that is counted, by address.
async fn known_task(
    context: &DapContext<'_>,
    request: &Request,
    id: &TaskId,
) -> Result<Option<Rc<Task>>, Error> {
    let RequestContext { env, config, now, .. } = context.context;
    let task = match config.task_at_hand(env, id, now).await {
        Some(task) => Some(task),
        None => {
            limits::stranger(env, request).await?;
            config.task_asked_for(env, id, now).await?
        }
    };
    Ok(task.filter(|task| task.parameters.version == context.version))
}

/// The task of a request that its leader has authenticated. The body is not touched before.
async fn leaders_task(
    context: &DapContext<'_>,
    request: &Request,
    found: &Found,
    outcome: &mut Outcome,
) -> Result<Rc<Task>, Error> {
    let id = task_id(&found.task)?;
    outcome.task(id);
    let Some(task) = known_task(context, request, &id).await? else {
        let task = taskprov::opt_in(context, request, &id, outcome).await?;
        outcome.is_of_leader(id);
        return Ok(task);
    };
    taskprov::check_leader(context, request, &task).await?;
    limits::leader(context.env, &task.parameters).await?;
    // What is refused for being too much is not counted: that would be work, too.
    outcome.is_of_leader(id);
    taskprov::check_header(context, request, &id)?;
    Ok(task)
}

/// The task and the job of a request that the task's leader has authenticated.
async fn leaders_job(
    context: &DapContext<'_>,
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
    context: &DapContext<'_>,
    request: &mut Request,
    message: Message,
    bytes_max: usize,
) -> Result<Vec<u8>, Error> {
    body::check_media_type(request, context.version.media_type(message).unwrap_or_default())?;
    body::read(request, bytes_max).await
}

/// The body of a request about a job of `task` that carries `message`, if the isolate has memory for the job. What is
/// returned beside it stands for that memory, and must live as long as the job is worked on.
async fn read_job(
    context: &DapContext<'_>,
    request: &mut Request,
    message: Message,
    task: &Task,
) -> Result<(Vec<u8>, Admission), Error> {
    body::check_media_type(request, context.version.media_type(message).unwrap_or_default())?;
    let declared = body::declared_length(request, JOB_BYTES_MAX)?;
    let share_len = task.vdaf.agg_share_len_max();
    let admission = Admission::of_job(*task.id(), declared, share_len, context.now)?;
    let body = body::read_within(request, JOB_BYTES_MAX, |len| admission.holds(len)).await?;
    Ok((body, admission))
}

fn shard_key(context: &DapContext<'_>, task: &Task) -> Result<ShardKey, Internal> {
    context
        .config
        .root_keys()
        .shard_key(task.parameters.shard_key_version, task.id())
        .map(ShardKey::new)
        .ok_or_else(|| Internal::Broken("the root key of the task's shards is missing".to_owned()))
}
