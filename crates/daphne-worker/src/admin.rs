//! The admin API: tasks and HPKE keys, for operators. JSON in and out, errors as problem documents.
//!
//! | method, path | body | success |
//! |---|---|---|
//! | `POST /admin/tasks` | `TaskSpec` | 201, or 200 if it exists with these parameters: `TaskParameters` |
//! | `GET /admin/tasks[?after=ID][&limit=N]` | | 200: `{"tasks": [..], "next": ID}`; `next` while there may be more |
//! | `GET /admin/tasks/{id}` | | 200: `TaskParameters` |
//! | `GET /admin/tasks/{id}/status` | | 200: `LedgerStatus` |
//! | `DELETE /admin/tasks/{id}[?purge_after=SECONDS]` | | 204; the id is never used again |
//! | `GET /admin/hpke_keys` | | 200: `{"keys": [..]}`, newest first, as published |
//! | `POST /admin/hpke_keys` | `{"id": 0..255, "kem": ..}`, both optional | 201: `HpkeConfig` |

use daphne_core::{
    error::{Abort, AbortKind, Error, Internal},
    hpke::HpkeKem,
    ids::{HpkeConfigId, TaskId},
    store::{
        Objects,
        config_store::{PURGE_AFTER_MAX_S, TASKS_PAGE_MAX},
        message::{LedgerRequest, LedgerResponse},
    },
    task::TaskSpec,
    time::Duration,
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::json;
use storage_proxy::{config::Created, objects::ObjectCaller};
use worker::{Method, Request, Response};

use crate::{
    app::RequestContext,
    body, credentials, respond,
    router::{Found, Route},
};

const REQUEST_BYTES_MAX: usize = 64 << 10;
const PAGE_DEFAULT: u32 = 100;

/// Handles a request. The operator's token comes before anything else.
///
/// # Errors
/// The operator's, or ours.
pub async fn handle(
    context: &RequestContext<'_>,
    request: &mut Request,
    found: &Found,
) -> Result<Response, Error> {
    credentials::check_operator(request, context.admin_tokens)?;
    match (found.route, request.method()) {
        (Route::AdminTasks, Method::Post) => create_task(context, request).await,
        (Route::AdminTasks, _) => list_tasks(context, request).await,
        (Route::AdminTask, Method::Delete) => {
            delete_task(context, request, task_id(&found.task)?).await
        }
        (Route::AdminTask, _) => show_task(context, task_id(&found.task)?).await,
        (Route::AdminTaskStatus, _) => show_status(context, task_id(&found.task)?).await,
        (Route::AdminHpkeKeys, Method::Post) => create_key(context, request).await,
        (Route::AdminHpkeKeys, _) => list_keys(context).await,
        _ => Err(Abort::new(AbortKind::NotFound, "").into()),
    }
}

fn bad(detail: impl Into<String>) -> Error {
    Abort::new(AbortKind::BadRequest, detail).into()
}

fn no_such_task() -> Error {
    Abort::new(AbortKind::NotFound, "there is no such task").into()
}

fn task_id(text: &str) -> Result<TaskId, Error> {
    text.parse().map_err(|e| bad(format!("the task id: {e}")))
}

async fn read_json<T: DeserializeOwned>(request: &mut Request) -> Result<T, Error> {
    body::check_media_type(request, "application/json")?;
    let body = body::read(request, REQUEST_BYTES_MAX).await?;
    // Otherwise an array of values in the order of the fields would do as well.
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err(bad("expected a JSON object"));
    }
    serde_json::from_slice(&body).map_err(|e| bad(describe(&e)))
}

/// What is wrong with JSON. The parser quotes values that do not fit, and such a value could be a secret in the wrong
/// place; then only the place is told.
fn describe(e: &serde_json::Error) -> String {
    let text = e.to_string();
    let quotes_a_value = ["invalid type", "invalid value", "unknown variant"]
        .iter()
        .any(|start| text.starts_with(start));
    if quotes_a_value {
        format!(
            "a value has the wrong type, or is none of the choices, at line {} column {}",
            e.line(),
            e.column()
        )
    } else {
        text
    }
}

async fn create_task(
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

async fn list_tasks(context: &RequestContext<'_>, request: &Request) -> Result<Response, Error> {
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

async fn show_task(context: &RequestContext<'_>, id: TaskId) -> Result<Response, Error> {
    let task = context.config.task(context.env, &id, context.now).await?;
    respond::json(&task.ok_or_else(no_such_task)?.parameters, 200)
}

/// How the task is doing, as its ledger knows. A task that is deleted has no status, even before it is purged.
async fn show_status(context: &RequestContext<'_>, id: TaskId) -> Result<Response, Error> {
    context.config.task(context.env, &id, context.now).await?.ok_or_else(no_such_task)?;
    let objects = ObjectCaller::new(context.env.clone());
    match objects.ledger(&id, LedgerRequest::Status).await {
        Ok(LedgerResponse::Status(status)) => respond::json(&status, 200),
        Ok(_) => Err(Internal::Broken("the ledger answered out of turn".to_owned()).into()),
        Err(e) => Err(Internal::from(e).into()),
    }
}

async fn delete_task(
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

async fn list_keys(context: &RequestContext<'_>) -> Result<Response, Error> {
    let configs = context.config.hpke_configs(context.env).await?;
    respond::json(&json!({ "keys": configs }), 200)
}

/// What an operator sends to make a key.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewKey {
    id: Option<HpkeConfigId>,
    kem: Option<HpkeKem>,
}

async fn create_key(
    context: &RequestContext<'_>,
    request: &mut Request,
) -> Result<Response, Error> {
    let new: NewKey = read_json(request).await?;
    let kem = new.kem.unwrap_or(HpkeKem::X25519HkdfSha256);
    if !matches!(kem, HpkeKem::X25519HkdfSha256 | HpkeKem::P256HkdfSha256) {
        return Err(bad("kem must be X25519HkdfSha256 or P256HkdfSha256"));
    }
    match context.config.create_hpke_key(context.env, new.id, kem, context.now).await? {
        Created::Now(config) | Created::Before(config) => respond::json(&config, 201),
        Created::Conflict => Err(Abort::new(AbortKind::Conflict, "the key id is taken").into()),
    }
}
