//! Tasks, for control planes. Those that an operator or a leader created are among them.

use daphne_core::{
    aggregator_api::{
        AggregationMetrics, IssuedToken, Provisioning, TaskCreate, TaskPatch, TaskView,
        UploadMetrics,
    },
    error::{Error, Internal},
    ids::TaskId,
    task::Task,
};
use serde_json::json;
use storage_proxy::{
    config::{Created, tasks::ChangedTask},
    random,
};
use worker::{Request, Response};

use super::{bad, conflict, empty, not_found, read_json, respond};
use crate::{app::RequestContext, metrics};

const PAGE: u32 = 100;

fn task_id(text: &str) -> Result<TaskId, Error> {
    text.parse().map_err(|e| bad(format!("the task id: {e}")))
}

pub async fn list(context: &RequestContext<'_>, request: &Request) -> Result<Response, Error> {
    let url = request.url().map_err(|_| bad("the URL is malformed"))?;
    let token = url.query_pairs().find(|(name, _)| name == "pagination_token");
    let after = token
        .map(|(_, id)| id.parse().map_err(|e| bad(format!("pagination_token: {e}"))))
        .transpose()?;
    let tasks = context.config.tasks(context.env, after, PAGE).await?;
    let ids: Vec<TaskId> = tasks.into_iter().map(|task| task.task_id).collect();
    let mut page = json!({ "task_ids": ids });
    // Not on the last page but on the one after it, which is empty: that is where others stop.
    if let Some(last) = ids.last() {
        page["pagination_token"] = json!(last);
    }
    respond(&page, 200)
}

/// Creates a task, and answers a repeat with the same token. If that token was taken from the leader since, or cannot be
/// opened any more, the answer is another one: what was taken away stays so, and what is answered works.
pub async fn create(
    context: &RequestContext<'_>,
    request: &mut Request,
) -> Result<Response, Error> {
    let (config, env) = (context.config, context.env);
    let create: TaskCreate = read_json(request).await?;
    let provisioning = Provisioning {
        root_keys: config.root_keys(),
        secret: random::bytes(),
        nonce: random::bytes(),
    };
    let task = create.check(&provisioning).map_err(|e| bad(e.to_string()))?;
    let mut task = match config.provision_task(env, &task).await? {
        Created::Now(task) | Created::Before(task) => task,
        Created::Conflict => {
            return Err(conflict(
                "a task with this verify key, and so with this id, exists with other parameters, or existed and was deleted",
            ));
        }
    };
    let works = |issued: &IssuedToken| {
        task.leader_token_hashes.contains(&issued.hash)
            && issued.open(task.id(), config.root_keys()).is_ok()
    };
    if !task.issued_token.as_ref().is_some_and(works) {
        let issued =
            IssuedToken::new(task.id(), &random::bytes(), config.root_keys(), random::bytes());
        task = match config.issue_leader_token(env, *task.id(), issued).await? {
            ChangedTask::Now(task) => *task,
            ChangedTask::Refused(why) => return Err(conflict(why.to_string())),
            ChangedTask::NoSuchTask => return Err(conflict("the task was deleted a moment ago")),
        };
    }
    let issued = task
        .issued_token
        .as_ref()
        .ok_or_else(|| Internal::Broken("a control plane's task has no token".to_owned()))?;
    let token = issued
        .open(task.id(), config.root_keys())
        .map_err(|e| Internal::Broken(format!("a leader's token: {e}")))?;
    tell(context, &task, Some(&token)).await
}

pub async fn show(context: &RequestContext<'_>, id: &str) -> Result<Response, Error> {
    let task = stored(context, id).await?;
    tell(context, &task, None).await
}

pub async fn change(
    context: &RequestContext<'_>,
    request: &mut Request,
    id: &str,
) -> Result<Response, Error> {
    let id = task_id(id)?;
    let TaskPatch { task_expiration } = read_json(request).await?;
    let Some(expiration) = task_expiration else {
        return show(context, &id.to_string()).await;
    };
    match context.config.set_task_expiration(context.env, id, expiration).await? {
        ChangedTask::Now(task) => tell(context, &task, None).await,
        ChangedTask::Refused(why) => Err(conflict(why.to_string())),
        ChangedTask::NoSuchTask => Err(not_found()),
    }
}

pub async fn delete(context: &RequestContext<'_>, id: &str) -> Result<Response, Error> {
    context.config.delete_task(context.env, &task_id(id)?, None).await?;
    empty(204)
}

pub async fn upload_metrics(context: &RequestContext<'_>, id: &str) -> Result<Response, Error> {
    stored(context, id).await?;
    respond(&UploadMetrics::default(), 200)
}

pub async fn aggregation_metrics(
    context: &RequestContext<'_>,
    id: &str,
) -> Result<Response, Error> {
    let task = stored(context, id).await?;
    let pages = metrics::PAGES_MAX;
    let status = metrics::task_status(context.env, &task.parameters, false, pages).await?;
    if !status.is_complete() {
        // A running total that is too small would look like one that began anew.
        return Err(
            Internal::Unavailable("not all of the task's objects answered".to_owned()).into()
        );
    }
    respond(&AggregationMetrics::from(status.counters().aggregation), 200)
}

async fn stored(context: &RequestContext<'_>, id: &str) -> Result<Task, Error> {
    let id = task_id(id)?;
    context.config.stored_task(context.env, &id).await?.ok_or_else(not_found)
}

async fn tell(
    context: &RequestContext<'_>,
    task: &Task,
    token: Option<&str>,
) -> Result<Response, Error> {
    let keyring = context.config.keyring(context.env, context.now).await?;
    respond(&TaskView::new(task, keyring.published(), token), 200)
}
