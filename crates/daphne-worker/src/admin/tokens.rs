//! Tokens of a task's leader.

use daphne_core::{
    error::{Abort, AbortKind, Error},
    ids::TaskId,
    seal::TokenHash,
    store::config_store::tokens::TokenChange,
    task::leader_token_hash,
};
use serde::Deserialize;
use serde_json::json;
use storage_proxy::config::tasks::ChangedTokens;
use worker::{Request, Response};

use super::{bad, read_json, tasks::no_such_task};
use crate::{app::RequestContext, respond};

/// A token of the leader: never in a URL, which ends up in logs.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewToken {
    leader_token: Option<String>,
    leader_token_hash: Option<TokenHash>,
}

/// One that it has.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OldToken {
    leader_token: Option<String>,
    leader_token_hash: Option<TokenHash>,
    name: Option<String>,
}

pub async fn list(context: &RequestContext<'_>, id: TaskId) -> Result<Response, Error> {
    let hashes = context.config.leader_tokens(context.env, &id).await?;
    show(&hashes.ok_or_else(no_such_task)?)
}

pub async fn add(
    context: &RequestContext<'_>,
    request: &mut Request,
    id: TaskId,
) -> Result<Response, Error> {
    let NewToken { leader_token, leader_token_hash: hash } = read_json(request).await?;
    let hash = leader_token_hash(leader_token.as_deref(), hash).map_err(|e| bad(e.to_string()))?;
    change(context, id, TokenChange::Add(hash)).await
}

pub async fn remove(
    context: &RequestContext<'_>,
    request: &mut Request,
    id: TaskId,
) -> Result<Response, Error> {
    let OldToken { leader_token, leader_token_hash, name } = read_json(request).await?;
    let which = match (leader_token, leader_token_hash, name) {
        (Some(token), None, None) => TokenChange::Remove(TokenHash::of(&token)),
        (None, Some(hash), None) => TokenChange::Remove(hash),
        (None, None, Some(name)) => TokenChange::RemoveNamed(name),
        _ => return Err(bad("give one of leader_token, leader_token_hash and name")),
    };
    change(context, id, which).await
}

async fn change(
    context: &RequestContext<'_>,
    id: TaskId,
    change: TokenChange,
) -> Result<Response, Error> {
    match context.config.change_leader_tokens(context.env, id, change).await? {
        ChangedTokens::Now(hashes) => show(&hashes),
        ChangedTokens::Refused(why) => Err(Abort::new(AbortKind::Conflict, why.to_string()).into()),
        ChangedTokens::NoSuchTask => Err(no_such_task()),
    }
}

fn show(hashes: &[TokenHash]) -> Result<Response, Error> {
    let tokens: Vec<_> = hashes.iter().map(|hash| json!({ "name": hash.name() })).collect();
    respond::json(&json!({ "leader_tokens": tokens }), 200)
}
