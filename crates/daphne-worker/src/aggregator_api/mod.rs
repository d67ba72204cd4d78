//! The aggregator API, for control planes such as Divvi Up's: below `/aggregator-api`, in the shape of Janus 0.7.
//! [`daphne_core::aggregator_api`] has its JSON.
//!
//! | method, path | body | success |
//! |---|---|---|
//! | `GET /` | | 200: `ApiConfig` |
//! | `GET /task_ids[?pagination_token=ID]` | | 200: `{"task_ids": [..], "pagination_token": ID}`; an empty page has no token |
//! | `POST /tasks` | `TaskCreate` | 200: `TaskView` with the leader's token, the same for a repeat |
//! | `GET /tasks/{id}` | | 200: `TaskView` |
//! | `PATCH /tasks/{id}` | `{"task_expiration": seconds or null}` | 200: `TaskView` |
//! | `DELETE /tasks/{id}` | | 204, also when there is none |
//! | `GET /tasks/{id}/metrics/uploads` | | 200: `UploadMetrics`, all 0 |
//! | `GET /tasks/{id}/metrics/aggregations` | | 200: `AggregationMetrics` |
//! | `GET /hpke_configs` | | 200: `[HpkeConfigView, ..]`, published ones first |
//! | `PUT /hpke_configs` | `{"kem_id", "kdf_id", "aead_id"}`, all optional | 201: `HpkeConfigView`, pending |
//! | `GET /hpke_configs/{id}` | | 200: `HpkeConfigView` |
//! | `PATCH /hpke_configs/{id}` | `{"state": ..}` | 200, empty |
//! | `DELETE /hpke_configs/{id}` | | 204, also when there is none |
//! | `GET /taskprov/peer_aggregators` | | 200: `[PeerAggregatorView, ..]` |
//! | `POST /taskprov/peer_aggregators` | `NewPeer` | 201: `PeerAggregatorView` |
//! | `DELETE /taskprov/peer_aggregators` | `{"endpoint", "role"}` | 204, also when there is none |
//!
//! Refusals have no problem documents: 400 and 409 are a sentence, others are empty. Every answer has the API's media type.

mod keys;
mod peers;
mod tasks;

use daphne_core::{
    aggregator_api::{ApiConfig, MEDIA_TYPE},
    error::{Abort, AbortKind, Error},
    problem,
    seal::TokenHash,
};
use serde::{Serialize, de::DeserializeOwned};
use worker::{Method, Request, Response, Url};

use crate::{
    app::RequestContext,
    body, credentials, json, limits,
    respond::{self, platform},
    router::{ApiRoute, Found},
};

const REQUEST_BYTES_MAX: usize = 64 << 10;
/// Where DAP is, below the deployment's origin.
const DAP_PATH: &str = "/v09/";

/// How a deployment sets the API up.
#[derive(Debug, Default)]
pub struct Settings {
    /// Hashes of its tokens; without any there is no API.
    pub tokens: Vec<TokenHash>,
    /// Where DAP is, if not at the origin of whatever request asks.
    pub dap_url: Option<String>,
}

/// The deployment's DAP URL as it was configured, with a slash at its end.
///
/// # Errors
/// One sentence for whoever deploys.
pub fn parse_dap_url(text: &str) -> Result<String, String> {
    let refuse = || "it must be an http or https URL without a query".to_owned();
    let url = Url::parse(text.trim()).map_err(|_| refuse())?;
    if !matches!(url.scheme(), "http" | "https")
        || url.query().is_some()
        || url.fragment().is_some()
    {
        return Err(refuse());
    }
    let url = url.to_string();
    Ok(if url.ends_with('/') { url } else { url + "/" })
}

/// Handles a request. The token comes before anything else, then how often it asks, then what the request says of media
/// types.
///
/// # Errors
/// The control plane's, or ours; [`refuse`] answers them.
pub async fn handle(
    context: &RequestContext<'_>,
    request: &mut Request,
    found: &Found,
    route: ApiRoute,
) -> Result<Response, Error> {
    if context.api.tokens.is_empty() {
        return Err(not_found());
    }
    let token = credentials::check_operator(request, &context.api.tokens)?;
    limits::operator(context.env, &token).await?;
    check_media_types(request)?;
    if route == ApiRoute::Nothing {
        return Err(not_found());
    }
    // As it is spelt: `Request::method` takes what it does not know for a GET.
    if !route.allow().split(", ").any(|method| method == request.inner().method()) {
        return Err(Abort::new(AbortKind::MethodNotAllowed, "").into());
    }
    match (route, request.method()) {
        (ApiRoute::Config, _) => config(context, request),
        (ApiRoute::TaskIds, _) => tasks::list(context, request).await,
        (ApiRoute::Tasks, _) => tasks::create(context, request).await,
        (ApiRoute::Task, Method::Patch) => tasks::change(context, request, &found.task).await,
        (ApiRoute::Task, Method::Delete) => tasks::delete(context, &found.task).await,
        (ApiRoute::Task, _) => tasks::show(context, &found.task).await,
        (ApiRoute::UploadMetrics, _) => tasks::upload_metrics(context, &found.task).await,
        (ApiRoute::AggregationMetrics, _) => tasks::aggregation_metrics(context, &found.task).await,
        (ApiRoute::HpkeConfigs, Method::Put) => keys::create(context, request).await,
        (ApiRoute::HpkeConfigs, _) => keys::list(context).await,
        (ApiRoute::HpkeConfig, Method::Patch) => keys::change(context, request, &found.key).await,
        (ApiRoute::HpkeConfig, Method::Delete) => keys::delete(context, &found.key).await,
        (ApiRoute::HpkeConfig, _) => keys::show(context, &found.key).await,
        (ApiRoute::Peers, Method::Post) => peers::add(context, request).await,
        (ApiRoute::Peers, Method::Delete) => peers::remove(context, request).await,
        (ApiRoute::Peers, _) => peers::list(context).await,
        (ApiRoute::Nothing, _) => Err(not_found()),
    }
}

fn config(context: &RequestContext<'_>, request: &Request) -> Result<Response, Error> {
    let dap_url = match &context.api.dap_url {
        Some(url) => url.clone(),
        None => request
            .url()
            .ok()
            .and_then(|url| url.join(DAP_PATH).ok())
            .ok_or_else(|| Abort::new(AbortKind::BadRequest, "the URL is malformed"))?
            .to_string(),
    };
    respond(&ApiConfig::new(&dap_url, env!("CARGO_PKG_VERSION")), 200)
}

/// `Accept` is the API's media type, to the letter; so is `Content-Type`, unless there is none.
fn check_media_types(request: &Request) -> Result<(), Abort> {
    let header = |name: &str| request.headers().get(name).ok().flatten();
    if header("Content-Type").is_some_and(|kind| kind != MEDIA_TYPE) {
        return Err(Abort::new(AbortKind::UnsupportedMediaType, ""));
    }
    body::check_coding(request)?;
    if header("Accept").as_deref() != Some(MEDIA_TYPE) {
        return Err(Abort::new(AbortKind::NotAcceptable, ""));
    }
    Ok(())
}

/// What a refused request is answered with. What is our own fault says nothing about its cause.
///
/// # Errors
/// The runtime's.
pub fn refuse(error: &Error, route: ApiRoute) -> worker::Result<Response> {
    let (status, text) = match error {
        Error::Abort(abort) => match abort.kind {
            AbortKind::UnauthorizedRequest => (401, ""),
            kind @ (AbortKind::BadRequest | AbortKind::Conflict) => {
                (problem::status(kind), abort.detail.as_str())
            }
            kind => (problem::status(kind), ""),
        },
        Error::Internal(internal) => (respond::internal(internal), ""),
    };
    let mut response = Response::from_bytes(text.as_bytes().to_vec())?.with_status(status);
    let headers = response.headers_mut();
    headers.set("Content-Type", MEDIA_TYPE)?;
    if status == 401 {
        headers.set("WWW-Authenticate", "Bearer")?;
    }
    if status == 405 {
        headers.set("Allow", route.allow())?;
    }
    if let Some(seconds) = respond::retry_after_s(error) {
        headers.set("Retry-After", &seconds.to_string())?;
    }
    Ok(response)
}

fn respond(value: &impl Serialize, status: u16) -> Result<Response, Error> {
    respond::json_as(value, MEDIA_TYPE, status)
}

fn empty(status: u16) -> Result<Response, Error> {
    let mut response = respond::empty(status)?;
    response.headers_mut().set("Content-Type", MEDIA_TYPE).map_err(platform)?;
    Ok(response)
}

fn bad(detail: impl Into<String>) -> Error {
    Abort::new(AbortKind::BadRequest, detail).into()
}

fn conflict(detail: impl Into<String>) -> Error {
    Abort::new(AbortKind::Conflict, detail).into()
}

fn not_found() -> Error {
    Abort::new(AbortKind::NotFound, "").into()
}

async fn read_json<T: DeserializeOwned>(request: &mut Request) -> Result<T, Error> {
    json::parse_object(&body::read(request, REQUEST_BYTES_MAX).await?)
}
