//! How often somebody may ask: the platform's rate limits, where wrangler.toml binds them. Without a binding nothing is
//! limited.
//!
//! Who was authenticated is counted by what they may use, and never before: a stranger cannot use up a leader's share.
//! Strangers are counted by address, and only where they cost something. The platform counts roughly, and each of its
//! locations for itself: this is protection, not accounting.

use std::net::{IpAddr, Ipv6Addr};

use daphne_core::{
    error::{Abort, AbortKind},
    seal::TokenHash,
    task::TaskParameters,
};
use worker::{Env, Request, console_error};

/// Authenticated requests of a leader.
pub const LEADER_LIMIT: &str = "LEADER_LIMIT";
/// Authenticated requests of an operator, a control plane or a reader of metrics.
pub const ADMIN_LIMIT: &str = "ADMIN_LIMIT";
/// Requests of an unauthenticated address that cost a call.
pub const PUBLIC_LIMIT: &str = "PUBLIC_LIMIT";

/// Counts a request of a task's leader, who was authenticated: by task, or, if a peer brought the task along, by peer, who
/// may bring any number.
///
/// # Errors
/// [`AbortKind::TooManyRequests`].
pub async fn leader(env: &Env, task: &TaskParameters) -> Result<(), Abort> {
    match &task.taskprov {
        Some(origin) => peer(env, &origin.leader_url).await,
        None => count(env, LEADER_LIMIT, format!("task/{}", task.task_id)).await,
    }
}

/// Counts a request of a peer, who was authenticated.
///
/// # Errors
/// [`AbortKind::TooManyRequests`].
pub async fn peer(env: &Env, endpoint: &str) -> Result<(), Abort> {
    count(env, LEADER_LIMIT, format!("peer/{endpoint}")).await
}

/// Counts a request of an operator, a control plane or a reader of metrics, who was authenticated with this token.
///
/// # Errors
/// [`AbortKind::TooManyRequests`].
pub async fn operator(env: &Env, token: &TokenHash) -> Result<(), Abort> {
    count(env, ADMIN_LIMIT, format!("token/{}", token.name())).await
}

/// Counts a request of whoever it is that has objects be asked.
///
/// # Errors
/// [`AbortKind::TooManyRequests`].
pub async fn stranger(env: &Env, request: &Request) -> Result<(), Abort> {
    let address = request.headers().get("CF-Connecting-IP").ok().flatten().unwrap_or_default();
    count(env, PUBLIC_LIMIT, format!("address/{}", network(&address))).await
}

/// Who an address belongs to: of IPv6 the first half, as the other is its owner's to choose.
fn network(address: &str) -> String {
    match address.parse() {
        Ok(IpAddr::V6(address)) => {
            Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).to_string() + "/64"
        }
        Ok(IpAddr::V4(address)) => address.to_string(),
        Err(_) => "unknown".to_owned(),
    }
}

async fn count(env: &Env, binding: &str, key: String) -> Result<(), Abort> {
    let Ok(limiter) = env.rate_limiter(binding) else { return Ok(()) };
    match limiter.limit(key).await {
        Ok(outcome) if outcome.success => Ok(()),
        Ok(_) => Err(Abort::new(AbortKind::TooManyRequests, "")),
        Err(e) => {
            // What protects must not be what fails.
            console_error!("{binding} does not answer: {e}");
            Ok(())
        }
    }
}
