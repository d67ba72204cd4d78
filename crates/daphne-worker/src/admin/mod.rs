//! The admin API: tasks, HPKE keys and peers, for operators. JSON in and out, errors as problem documents.
//!
//! | method, path | body | success |
//! |---|---|---|
//! | `POST /admin/tasks` | `TaskSpec` | 201, or 200 if it exists with these parameters: `TaskParameters` |
//! | `GET /admin/tasks[?after=ID][&limit=N]` | | 200: `{"tasks": [..], "next": ID}`; `next` while there may be more |
//! | `GET /admin/tasks/{id}` | | 200: `TaskParameters` |
//! | `PATCH /admin/tasks/{id}` | `{"task_expiration": seconds or null}` | 200: `TaskParameters` |
//! | `GET /admin/tasks/{id}/status` | | 200: `TaskStatus` |
//! | `DELETE /admin/tasks/{id}[?purge_after=SECONDS]` | | 204; the id is never used again |
//! | `GET /admin/tasks/{id}/leader_tokens` | | 200: `{"leader_tokens": [{"name"}, ..]}` |
//! | `POST /admin/tasks/{id}/leader_tokens` | `{"leader_token"}` or `{"leader_token_hash"}` | 200, as above |
//! | `DELETE /admin/tasks/{id}/leader_tokens` | the same, or `{"name"}` | 200, as above |
//! | `GET /admin/secrets[?after=NEXT]` | | 200: how many secrets need which root key, in pages: `{"needed": {kind: {version: n}}, "configured", "newest", "resealed", "next"}` |
//! | `POST /admin/secrets/reseal` | `{"after": NEXT}`, optional | 200, as above, after the page was sealed with the newest |
//! | `GET /admin/hpke_keys` | | 200: `{"keys": [KeyInfo, ..]}`, published ones first, as they are published |
//! | `POST /admin/hpke_keys` | `{"id", "kem", "state"}`, all optional, to make one; `{"config", "private_key"[, "state", "pinned"]}` to import one | 201, or 200 if it was imported before: `KeyInfo` |
//! | `PATCH /admin/hpke_keys/{id}` | `{"state": "active"}`, `{"state": "expired"}` or `{"pinned": bool}` | 200: `KeyInfo` |
//! | `DELETE /admin/hpke_keys/{id}[?force=true]` | | 200: `KeyInfo`; the private key is destroyed |
//! | `POST /admin/hpke_rotation` | `{}` | 200: `KeyInfo` of the key that is published now in place of the others |
//! | `GET /admin/hpke_policy` | | 200: `{"policy": Policy or null, "next_change": seconds or null}` |
//! | `PUT /admin/hpke_policy` | `{"policy": Policy or null}` | 200, as above |
//! | `GET /admin/taskprov_peers` | | 200: `{"peers": [PeerView, ..]}`, by endpoint |
//! | `POST /admin/taskprov_peers` | `PeerSpec` | 201, or 200 if it exists with these parameters: `PeerView` |
//! | `PATCH /admin/taskprov_peers` | `PeerChange` | 200: `PeerView` |
//! | `DELETE /admin/taskprov_peers?endpoint=URL` | | 204 |
//!
//! Where a change of keys would do harm it is refused (409), unless its body has `"force": true`.

mod keys;
mod peers;
mod secrets;
mod tasks;
mod tokens;

use daphne_core::{
    error::{Abort, AbortKind, Error},
    ids::TaskId,
};
use serde::de::DeserializeOwned;
use worker::{Method, Request, Response};

use crate::{
    app::RequestContext,
    body, credentials, json, limits,
    router::{Found, Route},
};

const REQUEST_BYTES_MAX: usize = 64 << 10;

/// Handles a request. The operator's token comes before anything else.
///
/// # Errors
/// The operator's, or ours.
pub async fn handle(
    context: &RequestContext<'_>,
    request: &mut Request,
    found: &Found,
) -> Result<Response, Error> {
    let token = credentials::check_operator(request, context.admin_tokens)?;
    limits::operator(context.env, &token).await?;
    match (found.route, request.method()) {
        (Route::AdminTasks, Method::Post) => tasks::create_task(context, request).await,
        (Route::AdminTasks, _) => tasks::list_tasks(context, request).await,
        (Route::AdminTask, Method::Patch) => {
            tasks::change_task(context, request, task_id(&found.task)?).await
        }
        (Route::AdminTask, Method::Delete) => {
            tasks::delete_task(context, request, task_id(&found.task)?).await
        }
        (Route::AdminTask, _) => tasks::show_task(context, task_id(&found.task)?).await,
        (Route::AdminTaskStatus, _) => tasks::show_status(context, task_id(&found.task)?).await,
        (Route::AdminLeaderTokens, method) => {
            let id = task_id(&found.task)?;
            match method {
                Method::Post => tokens::add(context, request, id).await,
                Method::Delete => tokens::remove(context, request, id).await,
                _ => tokens::list(context, id).await,
            }
        }
        (Route::AdminSecrets, _) => secrets::look(context, request).await,
        (Route::AdminReseal, _) => secrets::reseal(context, request).await,
        (Route::AdminHpkeKeys, Method::Post) => keys::create(context, request).await,
        (Route::AdminHpkeKeys, _) => keys::list(context).await,
        (Route::AdminHpkeKey, Method::Delete) => keys::destroy(context, request, &found.key).await,
        (Route::AdminHpkeRotation, _) => keys::rotate(context, request).await,
        (Route::AdminHpkePolicy, Method::Put) => keys::set_policy(context, request).await,
        (Route::AdminHpkePolicy, _) => keys::show_policy(context).await,
        (Route::AdminHpkeKey, _) => keys::change(context, request, &found.key).await,
        (Route::AdminPeers, _) => peers::handle(context, request).await,
        _ => Err(Abort::new(AbortKind::NotFound, "").into()),
    }
}

fn bad(detail: impl Into<String>) -> Error {
    Abort::new(AbortKind::BadRequest, detail).into()
}

fn task_id(text: &str) -> Result<TaskId, Error> {
    text.parse().map_err(|e| bad(format!("the task id: {e}")))
}

async fn read_json<T: DeserializeOwned>(request: &mut Request) -> Result<T, Error> {
    body::check_media_type(request, "application/json")?;
    json::parse_object(&body::read(request, REQUEST_BYTES_MAX).await?)
}
