//! Results and errors as HTTP responses.

use std::ops::RangeInclusive;

use daphne_core::{
    error::{AbortKind, Error, Internal},
    ids::TaskId,
    problem::{self, internal_problem, problem},
    store::config_store::keys::LIST_MAX_AGE,
    version::{DapVersion, Message},
};
use storage_proxy::random;
use worker::{Headers, Request, Response, console_error};

/// When to come again if something did not answer or was held for a moment, in seconds.
const RETRY_AFTER_S: u64 = 1;
/// When to ask for an answer that is worked on, in seconds: a piece of it takes some two.
const DEFERRED_RETRY_AFTER_S: u64 = 2;
/// When to come again if something is overloaded, or whoever asks has asked too often, in seconds: at random, so that
/// leaders who were sent away together do not come back together.
const OVERLOADED_RETRY_AFTER_S: RangeInclusive<u64> = 5..=30;

/// The runtime failed.
pub fn platform(e: worker::Error) -> Error {
    Internal::Broken(e.to_string()).into()
}

/// What every response says: that caches keep no verdicts, shares or errors, unless it says otherwise itself, and that
/// browsers take its media type for what it is.
///
/// # Errors
/// The runtime's.
pub fn guarded(mut response: Response) -> worker::Result<Response> {
    let headers = response.headers_mut();
    if !headers.has("Cache-Control")? {
        headers.set("Cache-Control", "no-store")?;
    }
    headers.set("X-Content-Type-Options", "nosniff")?;
    Ok(response)
}

/// A 200 with a DAP message.
// SPEC: DAP-09 §4.5.1.2 has a created job answered with 201. Deployed helpers send 200, also for a repeat, which creates
// nothing; leaders take either.
///
/// # Errors
/// Ours.
pub fn message(version: DapVersion, kind: Message, body: Vec<u8>) -> Result<Response, Error> {
    let media_type = version
        .media_type(kind)
        .ok_or_else(|| Internal::Broken(format!("{version:?} has no {kind:?}")))?;
    with_type(body, media_type, 200)
}

/// The response, which also says where its resource is.
///
/// # Errors
/// Ours.
pub fn at(mut response: Response, location: &str) -> Result<Response, Error> {
    response.headers_mut().set("Location", location).map_err(platform)?;
    Ok(response)
}

/// That an answer is not there yet, and where and when to ask for it. DAP-18 §3.1.
///
/// # Errors
/// Ours.
pub fn later(location: &str) -> Result<Response, Error> {
    let mut response = at(empty(200)?, location)?;
    response
        .headers_mut()
        .set("Retry-After", &DEFERRED_RETRY_AFTER_S.to_string())
        .map_err(platform)?;
    Ok(response)
}

/// A response without a body.
///
/// # Errors
/// Ours.
pub fn empty(status: u16) -> Result<Response, Error> {
    Response::empty().map(|r| r.with_status(status)).map_err(platform)
}

/// A JSON response.
///
/// # Errors
/// Ours.
pub fn json(value: &impl serde::Serialize, status: u16) -> Result<Response, Error> {
    json_as(value, "application/json", status)
}

/// A JSON response of a media type of its own.
///
/// # Errors
/// Ours.
pub fn json_as(
    value: &impl serde::Serialize,
    media_type: &str,
    status: u16,
) -> Result<Response, Error> {
    let body = serde_json::to_vec(value).map_err(|e| Internal::Broken(e.to_string()))?;
    with_type(body, media_type, status)
}

/// Text of some media type, with a `Link` header if there is one.
///
/// # Errors
/// Ours.
pub fn text(body: String, media_type: &str, link: Option<&str>) -> Result<Response, Error> {
    let mut response = with_type(body.into_bytes(), media_type, 200)?;
    if let Some(link) = link {
        response.headers_mut().set("Link", link).map_err(platform)?;
    }
    Ok(response)
}

fn with_type(body: Vec<u8>, media_type: &str, status: u16) -> Result<Response, Error> {
    let mut response = Response::from_bytes(body).map_err(platform)?.with_status(status);
    response.headers_mut().set("Content-Type", media_type).map_err(platform)?;
    Ok(response)
}

/// An error. Refusals are problem documents in the vocabulary of `version`; what is our own fault says nothing about
/// its cause, which goes to the log.
///
/// # Errors
/// The runtime's.
pub fn error(
    error: &Error,
    version: Option<DapVersion>,
    task: Option<&TaskId>,
) -> worker::Result<Response> {
    let document = match error {
        Error::Abort(abort) => problem(abort, version, task),
        Error::Internal(internal) => {
            console_error!("{internal}");
            internal_problem(internal, task)
        }
    };
    let body = serde_json::to_vec(&document)?;
    let mut response = Response::from_bytes(body)?.with_status(document.status);
    response.headers_mut().set("Content-Type", problem::MEDIA_TYPE)?;
    if let Some(seconds) = retry_after_s(error) {
        response.headers_mut().set("Retry-After", &seconds.to_string())?;
    }
    Ok(response)
}

/// The status of what is our own fault, whose cause goes to the log.
pub fn internal(internal: &Internal) -> u16 {
    console_error!("{internal}");
    internal_problem(internal, None).status
}

/// When to come again, if the same request will succeed then.
pub fn retry_after_s(error: &Error) -> Option<u64> {
    let much_later = || {
        let (first, last) = OVERLOADED_RETRY_AFTER_S.into_inner();
        Some(first + random::below(last - first + 1))
    };
    match error {
        Error::Internal(Internal::Unavailable(_)) => Some(RETRY_AFTER_S),
        Error::Internal(Internal::Overloaded(_)) => much_later(),
        Error::Abort(abort) if abort.kind == AbortKind::TooManyRequests => much_later(),
        Error::Internal(Internal::Broken(_)) | Error::Abort(_) => None,
    }
}

/// Lets pages of any origin read our HPKE configurations with their signature, and caches keep them.
///
/// # Errors
/// Ours.
pub fn public(
    mut response: Response,
    signature: Option<(&str, String)>,
    request: &Request,
) -> Result<Response, Error> {
    let headers = response.headers_mut();
    if let Some((name, value)) = signature {
        headers
            .set(name, &value)
            .and_then(|()| headers.set("Access-Control-Expose-Headers", name))
            .map_err(platform)?;
    }
    headers
        .set("Cache-Control", &format!("max-age={}", LIST_MAX_AGE.as_seconds()))
        .and_then(|()| allow_origin(headers, request))
        .map_err(platform)?;
    Ok(response)
}

fn allow_origin(headers: &mut Headers, request: &Request) -> worker::Result<()> {
    headers.set("Vary", "Origin")?;
    match request.headers().get("Origin")? {
        Some(origin) => headers.set("Access-Control-Allow-Origin", &origin),
        None => Ok(()),
    }
}

/// Keeps caches from giving an error without CORS headers to another origin.
///
/// # Errors
/// The runtime's.
pub fn vary_on_origin(response: &mut Response) -> worker::Result<()> {
    response.headers_mut().set("Vary", "Origin")
}

/// The answer to a browser that asks whether it may read our HPKE configurations.
///
/// # Errors
/// Ours.
pub fn preflight(request: &Request) -> Result<Response, Error> {
    let mut response = empty(204)?;
    let headers = response.headers_mut();
    allow_origin(headers, request)
        .and_then(|()| headers.set("Access-Control-Allow-Methods", "GET"))
        .and_then(|()| headers.set("Access-Control-Allow-Headers", "content-type"))
        .and_then(|()| headers.set("Access-Control-Max-Age", "86400"))
        .map_err(platform)?;
    Ok(response)
}

/// Health: whether the deployment is configured. `wrong` is for whoever deploys and holds no secret.
///
/// # Errors
/// Ours.
pub fn health(wrong: Option<&String>) -> Result<Response, Error> {
    match wrong {
        None => json(&serde_json::json!({ "status": "ok" }), 200),
        Some(wrong) => {
            json(&serde_json::json!({ "status": "not configured", "detail": wrong }), 503)
        }
    }
}
