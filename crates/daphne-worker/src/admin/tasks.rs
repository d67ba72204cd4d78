//! Tasks.

use daphne_core::{
    error::{Abort, AbortKind, Error},
    ids::TaskId,
    metrics::TaskStatus,
    store::config_store::{PURGE_AFTER_MAX_S, TASKS_PAGE_MAX},
    task::TaskSpec,
    time::{Duration, Time},
};
use serde::Deserialize;
use serde_json::json;
use storage_proxy::config::{Created, tasks::ChangedTask};
use worker::{Request, Response};

use super::{bad, read_json, task_id};
use crate::{app::RequestContext, metrics, respond};

const PAGE_DEFAULT: u32 = 100;

pub async fn create_task(
    context: &RequestContext<'_>,
    request: &mut Request,
) -> Result<Response, Error> {
    let spec: TaskSpec = read_json(request).await?;
    let task = spec.check(context.config.root_keys().newest()).map_err(|e| bad(e.to_string()))?;
    match context.config.create_task(context.env, &task).await? {
        Created::Now(parameters) => respond::json(&parameters, 201),
        Created::Before(parameters) => respond::json(&parameters, 200),
        Created::Conflict => Err(Abort::new(
            AbortKind::Conflict,
            "a task with this id exists with other parameters, or existed and was deleted",
        )
        .into()),
    }
}

pub async fn list_tasks(
    context: &RequestContext<'_>,
    request: &Request,
) -> Result<Response, Error> {
    let url = request.url().map_err(|_| bad("the URL is malformed"))?;
    let (mut after, mut limit) = (None, PAGE_DEFAULT);
    for (name, value) in url.query_pairs() {
        match name.as_ref() {
            "after" => after = Some(task_id(&value)?),
            "limit" => {
                limit =
                    value.parse().ok().filter(|n| (1..=TASKS_PAGE_MAX).contains(n)).ok_or_else(
                        || bad(format!("limit must be between 1 and {TASKS_PAGE_MAX}")),
                    )?;
            }
            _ => return Err(bad("the query may hold `after` and `limit`")),
        }
    }
    let tasks = context.config.tasks(context.env, after, limit).await?;
    let mut page = json!({ "tasks": tasks });
    if tasks.len() as u64 == u64::from(limit) {
        page["next"] = json!(tasks.last().map(|t| t.task_id));
    }
    respond::json(&page, 200)
}

pub async fn show_task(context: &RequestContext<'_>, id: TaskId) -> Result<Response, Error> {
    let task = context.config.task(context.env, &id, context.now).await?;
    respond::json(&task.ok_or_else(no_such_task)?.parameters, 200)
}

/// What may change of a task.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TaskChange {
    // Must be there, though it may be null: a change that says nothing is a mistake.
    #[serde(deserialize_with = "Option::deserialize")]
    task_expiration: Option<Time>,
}

/// Changes when a task ends. One that its leader brought along ends when the leader says.
pub async fn change_task(
    context: &RequestContext<'_>,
    request: &mut Request,
    id: TaskId,
) -> Result<Response, Error> {
    let TaskChange { task_expiration } = read_json(request).await?;
    match context.config.set_task_expiration(context.env, id, task_expiration).await? {
        ChangedTask::Now(task) => respond::json(&task.parameters, 200),
        ChangedTask::Refused(why) => Err(Abort::new(AbortKind::Conflict, why.to_string()).into()),
        ChangedTask::NoSuchTask => Err(no_such_task()),
    }
}

/// How the task is doing, as its ledger and its stores know. A task that is deleted has no status, even before it is purged.
pub async fn show_status(context: &RequestContext<'_>, id: TaskId) -> Result<Response, Error> {
    let task =
        context.config.task(context.env, &id, context.now).await?.ok_or_else(no_such_task)?;
    let task = &task.parameters;
    let status = metrics::task_status(context.env, task, true, metrics::PAGES_MAX).await?;
    respond::json(&TaskStatus::new(task, &status, context.now), 200)
}

pub async fn delete_task(
    context: &RequestContext<'_>,
    request: &Request,
    id: TaskId,
) -> Result<Response, Error> {
    let url = request.url().map_err(|_| bad("the URL is malformed"))?;
    let mut purge_after = None;
    for (name, value) in url.query_pairs() {
        // A misspelt option must not become a deletion with the default.
        if name != "purge_after" || purge_after.is_some() {
            return Err(bad("the query may hold `purge_after`"));
        }
        let seconds = value.parse().ok().filter(|s| *s <= PURGE_AFTER_MAX_S).ok_or_else(|| {
            bad(format!("purge_after must be a number of seconds up to {PURGE_AFTER_MAX_S}"))
        })?;
        purge_after = Some(Duration::from_seconds(seconds));
    }
    if context.config.delete_task(context.env, &id, purge_after).await? {
        respond::empty(204)
    } else {
        Err(no_such_task())
    }
}

pub fn no_such_task() -> Error {
    Abort::new(AbortKind::NotFound, "there is no such task").into()
}
