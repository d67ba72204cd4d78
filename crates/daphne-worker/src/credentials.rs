//! Bearer tokens of requests. Compared as hashes, in constant time, by [`daphne_core::seal::TokenHash`].

use daphne_core::{
    error::{Abort, AbortKind},
    seal::TokenHash,
    task::Task,
};
use serde::Deserialize;
use worker::Request;

/// The token of `Authorization: Bearer` or, in its absence, of `DAP-Auth-Token`, which older leaders send.
pub fn dap_token(request: &Request) -> Option<String> {
    bearer(request).or_else(|| request.headers().get("DAP-Auth-Token").ok().flatten())
}

fn bearer(request: &Request) -> Option<String> {
    let header = request.headers().get("Authorization").ok().flatten()?;
    let (scheme, token) = header.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_start().to_owned())
}

/// Checks that the request did not come over plain HTTP, which Cloudflare serves unless the zone forbids it; `CF-Visitor`
/// tells. Without that header nobody is in front of us, as on a developer's machine. DAP-09 §3.
///
/// # Errors
/// [`AbortKind::PlainHttp`].
pub fn check_https(request: &Request) -> Result<(), Abort> {
    #[derive(Deserialize)]
    struct Visitor {
        scheme: String,
    }
    let visitor = request.headers().get("CF-Visitor").ok().flatten();
    match visitor.and_then(|text| serde_json::from_str::<Visitor>(&text).ok()) {
        Some(visitor) if visitor.scheme == "http" => Err(Abort::new(AbortKind::PlainHttp, "")),
        _ => Ok(()),
    }
}

/// The request's token is missing or wrong.
pub fn unauthorized() -> Abort {
    Abort::new(AbortKind::UnauthorizedRequest, "")
}

/// Checks that the request comes from the leader of a task that has tokens of its own. DAP-09 §3.1.
///
/// # Errors
/// [`AbortKind::UnauthorizedRequest`].
pub fn check_leader(request: &Request, task: &Task) -> Result<(), Abort> {
    match dap_token(request) {
        Some(token) if task.accepts_leader_token(&token) => Ok(()),
        _ => Err(unauthorized()),
    }
}

/// Checks that the request comes from who may read metrics: an operator, or who has one of the tokens for that.
///
/// # Errors
/// [`AbortKind::UnauthorizedRequest`].
pub fn check_scraper(
    request: &Request,
    operators: &[TokenHash],
    scrapers: &[TokenHash],
) -> Result<TokenHash, Abort> {
    check_bearer(request, operators.iter().chain(scrapers))
}

/// Checks that the request comes from an operator, and returns the hash of the token that it presents.
///
/// # Errors
/// [`AbortKind::UnauthorizedRequest`].
pub fn check_operator(request: &Request, tokens: &[TokenHash]) -> Result<TokenHash, Abort> {
    check_bearer(request, tokens.iter())
}

fn check_bearer<'a>(
    request: &Request,
    tokens: impl Iterator<Item = &'a TokenHash>,
) -> Result<TokenHash, Abort> {
    let presented = bearer(request).ok_or_else(unauthorized)?;
    // Every hash is tried, so that the time does not tell which one matched.
    if tokens.fold(false, |ok, hash| ok | hash.matches(&presented)) {
        Ok(TokenHash::of(&presented))
    } else {
        Err(unauthorized())
    }
}
