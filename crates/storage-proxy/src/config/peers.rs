//! Peers that may bring tasks along.
//!
//! Cached as tasks are, all of them at once. Whether a leader may come in is decided from a copy as long as that says
//! yes. Only an authenticated request, or an operator, has a copy written to KV: strangers cause no writes.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

use daphne_core::{
    error::Internal,
    store::config_store::{
        ConfigRequest, ConfigResponse,
        peers::{PeerRequest, PeerResponse},
    },
    task::TaskError,
    taskprov::{Peer, PeerChange, PeerView, StoredPeer},
    time::Time,
};
use worker::Env;

use super::{Cached, Config, ask, broken, kv, unexpected};
use crate::random;

const PEERS_KV_KEY: &str = "peers";
/// Shorter than for tasks: a token that was removed must not be accepted for long by whoever has an old copy.
const PEERS_KV_EXPIRES_AFTER_S: u64 = 600;
/// Somebody else's change at the same moment is met with reading again.
const TRIES: usize = 3;

type Peers = Rc<[Rc<StoredPeer>]>;

/// Peers as one isolate sees them.
#[derive(Debug, Default)]
pub(super) struct PeerCache {
    peers: RefCell<Option<Cached<Peers>>>,
    answered_at: Cell<Option<Time>>,
    copy_is_due: Cell<bool>,
}

/// Whether a request comes from the leader that it names.
#[derive(Debug)]
pub enum LeaderCheck {
    /// It does.
    Leader(Rc<StoredPeer>),
    /// It presents none of the leader's tokens.
    Unauthorized,
    /// No such leader is our peer.
    UnknownPeer,
}

/// What became of a new peer.
#[derive(Debug)]
pub enum AddedPeer {
    /// It is one now.
    Now(PeerView),
    /// It was one before, with the same parameters, tokens and secret.
    Before(PeerView),
    /// There is a peer with that endpoint, which differs.
    Conflict,
    /// There are as many peers as there may be.
    Full,
}

/// What became of a change of a peer.
#[derive(Debug)]
pub enum ChangedPeer {
    /// It was made.
    Done(PeerView),
    /// The peer cannot be like that.
    Refused(TaskError),
    /// There is no such peer.
    NotFound,
    /// Others kept changing it.
    Busy,
}

impl Config {
    /// Whether `token` is one of those that the leader at `endpoint` may use. A token or a peer that was added a moment
    /// ago may not have come here yet: before saying no, the `ConfigStore` is asked, unless it answered within this
    /// second.
    ///
    /// # Errors
    /// Ours: nothing could say.
    pub async fn check_leader(
        &self,
        env: &Env,
        endpoint: &str,
        token: Option<&str>,
        now: Time,
    ) -> Result<LeaderCheck, Internal> {
        let mut check = check(&self.cached_peers(env, now).await?, endpoint, token);
        if !matches!(check, LeaderCheck::Leader(_)) && self.peers.answered_at.get() != Some(now) {
            check = self::check(&self.refreshed_peers(env, now).await?, endpoint, token);
        }
        if matches!(check, LeaderCheck::Leader(_)) && self.peers.copy_is_due.take() {
            self.copy_peers(env).await;
        }
        Ok(check)
    }

    /// As [`Config::check_leader`], and a leader is checked with its peer as it is now, not as a copy has it: what is made
    /// of a peer stays with the task for ever.
    ///
    /// # Errors
    /// Ours.
    pub async fn check_leader_afresh(
        &self,
        env: &Env,
        endpoint: &str,
        token: Option<&str>,
        now: Time,
    ) -> Result<LeaderCheck, Internal> {
        match self.check_leader(env, endpoint, token, now).await? {
            LeaderCheck::Leader(_) => {
                Ok(check(&self.refreshed_peers(env, now).await?, endpoint, token))
            }
            refused => Ok(refused),
        }
    }

    /// All peers as an operator is shown them, by ascending endpoint.
    ///
    /// # Errors
    /// Ours.
    pub async fn peers(&self, env: &Env) -> Result<Vec<PeerView>, Internal> {
        Ok(stored_peers(env).await?.iter().map(|(_, peer)| peer.view()).collect())
    }

    /// Adds a peer. A repeat with the same parameters, tokens and secret succeeds.
    ///
    /// # Errors
    /// Ours: the outcome is unknown, and the same peer may be added again.
    pub async fn add_peer(&self, env: &Env, peer: &Peer, now: Time) -> Result<AddedPeer, Internal> {
        let endpoint = &peer.parameters.endpoint;
        let new = peer.seal(&self.root_keys, random::bytes());
        for _ in 0..TRIES {
            if let Some((_, stored)) = stored_peer(env, endpoint).await? {
                let known = stored.open(&self.root_keys).map_err(|e| broken("a stored peer", e))?;
                return Ok(if known.is_repeated_by(peer) {
                    AddedPeer::Before(stored.view())
                } else {
                    AddedPeer::Conflict
                });
            }
            match put_peer(env, None, &new).await? {
                PeerResponse::Stored => {
                    self.publish_peers(env, now).await;
                    return Ok(AddedPeer::Now(new.view()));
                }
                PeerResponse::Full => return Ok(AddedPeer::Full),
                _ => {}
            }
        }
        Ok(AddedPeer::Conflict)
    }

    /// Changes a peer, for the tasks that it brings from now on; its tokens for all.
    ///
    /// # Errors
    /// Ours: the outcome is unknown.
    pub async fn change_peer(
        &self,
        env: &Env,
        change: &PeerChange,
        now: Time,
    ) -> Result<ChangedPeer, Internal> {
        for _ in 0..TRIES {
            let Some((before, stored)) = stored_peer(env, &change.endpoint).await? else {
                return Ok(ChangedPeer::NotFound);
            };
            let changed = stored.changed(change.clone(), &self.root_keys, random::bytes(), now);
            let changed = match changed {
                Ok(changed) => changed,
                Err(why) => return Ok(ChangedPeer::Refused(why)),
            };
            if let PeerResponse::Stored = put_peer(env, Some(before), &changed).await? {
                self.publish_peers(env, now).await;
                return Ok(ChangedPeer::Done(changed.view()));
            }
        }
        Ok(ChangedPeer::Busy)
    }

    /// Removes a peer: it brings no more tasks, and nobody may use those it brought. Returns whether it existed.
    ///
    /// # Errors
    /// Ours: the outcome is unknown.
    pub async fn remove_peer(
        &self,
        env: &Env,
        endpoint: &str,
        now: Time,
    ) -> Result<bool, Internal> {
        let request = PeerRequest::Remove { endpoint: endpoint.to_owned() };
        match ask_peers(env, request).await? {
            PeerResponse::Removed(existed) => {
                self.publish_peers(env, now).await;
                Ok(existed)
            }
            other => Err(unexpected(&ConfigResponse::Peers(other))),
        }
    }

    async fn cached_peers(&self, env: &Env, now: Time) -> Result<Peers, Internal> {
        if let Some(peers) = self.peers.peers.borrow().as_ref().and_then(|c| c.fresh(now)) {
            return Ok(peers);
        }
        let copy = kv::get(env, PEERS_KV_KEY).await;
        match copy.and_then(|copy| serde_json::from_slice::<Vec<StoredPeer>>(&copy).ok()) {
            Some(peers) => Ok(self.keep_peers(peers, now)),
            None => {
                let peers = self.refreshed_peers(env, now).await?;
                self.peers.copy_is_due.set(true);
                Ok(peers)
            }
        }
    }

    /// As the `ConfigStore` has them.
    async fn refreshed_peers(&self, env: &Env, now: Time) -> Result<Peers, Internal> {
        let peers: Vec<_> = stored_peers(env).await?.into_iter().map(|(_, peer)| peer).collect();
        self.peers.answered_at.set(Some(now));
        // Strangers can cause refreshes, and a write to KV is what costs: only news is written.
        let is_news = self
            .peers
            .peers
            .borrow()
            .as_ref()
            .is_none_or(|cached| !cached.value.iter().map(Rc::as_ref).eq(&peers));
        if is_news {
            self.peers.copy_is_due.set(true);
        }
        Ok(self.keep_peers(peers, now))
    }

    fn keep_peers(&self, peers: Vec<StoredPeer>, now: Time) -> Peers {
        let peers: Peers = peers.into_iter().map(Rc::new).collect();
        *self.peers.peers.borrow_mut() = Some(Cached { value: peers.clone(), since: now });
        peers
    }

    /// After a change: this isolate and KV have it at once.
    async fn publish_peers(&self, env: &Env, now: Time) {
        // The change is stored. Copies expire by themselves, should this fail.
        if self.refreshed_peers(env, now).await.is_ok() {
            self.peers.copy_is_due.set(false);
            self.copy_peers(env).await;
        }
    }

    async fn copy_peers(&self, env: &Env) {
        let copy = self.peers.peers.borrow().as_ref().map(|cached| {
            let peers: Vec<&StoredPeer> = cached.value.iter().map(Rc::as_ref).collect();
            serde_json::to_vec(&peers)
        });
        if let Some(Ok(copy)) = copy {
            kv::put_for(env, PEERS_KV_KEY, &copy, PEERS_KV_EXPIRES_AFTER_S).await;
        }
    }
}

fn check(peers: &Peers, endpoint: &str, token: Option<&str>) -> LeaderCheck {
    match peers.iter().find(|peer| peer.parameters.endpoint == endpoint) {
        None => LeaderCheck::UnknownPeer,
        Some(peer) if token.is_some_and(|token| peer.accepts_leader_token(token)) => {
            LeaderCheck::Leader(peer.clone())
        }
        Some(_) => LeaderCheck::Unauthorized,
    }
}

/// All peers, each with its record.
async fn stored_peers(env: &Env) -> Result<Vec<(Vec<u8>, StoredPeer)>, Internal> {
    match ask_peers(env, PeerRequest::List).await? {
        PeerResponse::Peers(records) => records
            .into_iter()
            .map(|record| match serde_json::from_slice(&record) {
                Ok(peer) => Ok((record.into_vec(), peer)),
                Err(e) => Err(broken("a stored peer", e)),
            })
            .collect(),
        other => Err(unexpected(&ConfigResponse::Peers(other))),
    }
}

async fn stored_peer(env: &Env, endpoint: &str) -> Result<Option<(Vec<u8>, StoredPeer)>, Internal> {
    let mut peers = stored_peers(env).await?.into_iter();
    Ok(peers.find(|(_, peer)| peer.parameters.endpoint == endpoint))
}

async fn put_peer(
    env: &Env,
    before: Option<Vec<u8>>,
    peer: &StoredPeer,
) -> Result<PeerResponse, Internal> {
    let record = serde_json::to_vec(peer).map_err(|e| broken("a peer", e))?;
    let endpoint = peer.parameters.endpoint.clone();
    ask_peers(env, PeerRequest::Put { endpoint, before, record }).await
}

async fn ask_peers(env: &Env, request: PeerRequest) -> Result<PeerResponse, Internal> {
    match ask(env, &ConfigRequest::Peers(request)).await? {
        ConfigResponse::Peers(response) => Ok(response),
        other => Err(unexpected(&other)),
    }
}
