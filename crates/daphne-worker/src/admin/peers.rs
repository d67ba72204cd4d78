//! Peers that may bring tasks along, for operators.

use daphne_core::{
    error::{Abort, AbortKind, Error, Internal},
    taskprov::{PeerChange, PeerSpec},
};
use serde_json::json;
use storage_proxy::config::peers::{AddedPeer, ChangedPeer};
use worker::{Method, Request, Response};

use super::{bad, read_json};
use crate::{app::RequestContext, respond};

/// Handles a request of an operator.
///
/// # Errors
/// The operator's, or ours.
pub(super) async fn handle(
    context: &RequestContext<'_>,
    request: &mut Request,
) -> Result<Response, Error> {
    match request.method() {
        Method::Post => add(context, request).await,
        Method::Patch => change(context, request).await,
        Method::Delete => remove(context, request).await,
        _ => {
            let peers = context.config.peers(context.env).await?;
            respond::json(&json!({ "peers": peers }), 200)
        }
    }
}

fn conflict(detail: &str) -> Error {
    Abort::new(AbortKind::Conflict, detail).into()
}

fn no_such_peer() -> Error {
    Abort::new(AbortKind::NotFound, "there is no such peer").into()
}

async fn add(context: &RequestContext<'_>, request: &mut Request) -> Result<Response, Error> {
    let spec: PeerSpec = read_json(request).await?;
    let peer = spec.check(context.now).map_err(|e| bad(e.to_string()))?;
    match context.config.add_peer(context.env, &peer, context.now).await? {
        AddedPeer::Now(peer) => respond::json(&peer, 201),
        AddedPeer::Before(peer) => respond::json(&peer, 200),
        AddedPeer::Conflict => {
            Err(conflict("a peer with this endpoint exists and differs: change it, or remove it"))
        }
        AddedPeer::Full => Err(conflict("there are as many peers as there may be")),
    }
}

async fn change(context: &RequestContext<'_>, request: &mut Request) -> Result<Response, Error> {
    let change: PeerChange = read_json(request).await?;
    match context.config.change_peer(context.env, &change, context.now).await? {
        ChangedPeer::Done(peer) => respond::json(&peer, 200),
        ChangedPeer::Refused(why) => Err(bad(why.to_string())),
        ChangedPeer::NotFound => Err(no_such_peer()),
        ChangedPeer::Busy => {
            Err(Internal::Unavailable("others keep changing the peer".to_owned()).into())
        }
    }
}

async fn remove(context: &RequestContext<'_>, request: &Request) -> Result<Response, Error> {
    let url = request.url().map_err(|_| bad("the URL is malformed"))?;
    let query: Vec<_> = url.query_pairs().collect();
    let [(name, endpoint)] = &query[..] else {
        return Err(bad("the query must hold `endpoint`"));
    };
    if name != "endpoint" {
        return Err(bad("the query must hold `endpoint`"));
    }
    if context.config.remove_peer(context.env, endpoint, context.now).await? {
        respond::empty(204)
    } else {
        Err(no_such_peer())
    }
}
