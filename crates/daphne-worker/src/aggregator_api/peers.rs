//! Peers that may bring tasks along, for control planes.

use daphne_core::{
    aggregator_api::{NewPeer, OldPeer, PeerAggregatorView},
    error::Error,
};
use storage_proxy::config::peers::AddedPeer;
use worker::{Request, Response};

use super::{bad, conflict, empty, read_json, respond};
use crate::app::RequestContext;

pub async fn list(context: &RequestContext<'_>) -> Result<Response, Error> {
    let peers = context.config.peers(context.env).await?;
    let peers: Vec<PeerAggregatorView> = peers.into_iter().map(Into::into).collect();
    respond(&peers, 200)
}

pub async fn add(context: &RequestContext<'_>, request: &mut Request) -> Result<Response, Error> {
    let new: NewPeer = read_json(request).await?;
    let peer = new.spec().and_then(|spec| spec.check(context.now));
    let peer = peer.map_err(|e| bad(e.to_string()))?;
    match context.config.add_peer(context.env, &peer, context.now).await? {
        AddedPeer::Now(peer) => respond(&PeerAggregatorView::from(peer), 201),
        // Also if it is the same: that is what others answer.
        AddedPeer::Before(_) | AddedPeer::Conflict => {
            Err(conflict("a peer with this endpoint and role exists"))
        }
        AddedPeer::Full => Err(conflict("there are as many peers as there may be")),
    }
}

pub async fn remove(
    context: &RequestContext<'_>,
    request: &mut Request,
) -> Result<Response, Error> {
    let old: OldPeer = read_json(request).await?;
    if let Some(endpoint) = old.endpoint() {
        context.config.remove_peer(context.env, endpoint, context.now).await?;
    }
    empty(204)
}
