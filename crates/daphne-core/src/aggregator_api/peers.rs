//! Peers that may bring tasks along, as the aggregator API names them.

use serde::{Deserialize, Serialize};

use super::task::RoleName;
use crate::{
    hpke::HpkeConfig,
    task::TaskError,
    taskprov::{PeerPolicy, PeerSpec, PeerView, VerifyKeyInit},
    time::Duration,
};

/// A peer as it is told: nothing of it is secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PeerAggregatorView {
    endpoint: String,
    role: RoleName,
    collector_hpke_config: HpkeConfig,
    report_expiry_age: Option<Duration>,
    tolerable_clock_skew: Duration,
}

impl From<PeerView> for PeerAggregatorView {
    fn from(peer: PeerView) -> Self {
        let parameters = peer.parameters;
        Self {
            endpoint: parameters.endpoint,
            role: RoleName::Leader,
            collector_hpke_config: parameters.collector_hpke_config,
            report_expiry_age: Some(parameters.policy.report_expiry_age),
            tolerable_clock_skew: parameters.policy.tolerable_clock_skew,
        }
    }
}

/// A bearer token, whichever header it comes in. Secret.
#[derive(Deserialize)]
struct Token {
    token: String,
}

/// Asks for a new peer. `role` is the peer's. Whatever collectors' tokens come along are not kept: collectors do not speak
/// to a Helper.
#[derive(Deserialize)]
pub struct NewPeer {
    endpoint: String,
    role: RoleName,
    collector_hpke_config: HpkeConfig,
    verify_key_init: VerifyKeyInit,
    report_expiry_age: Option<Duration>,
    tolerable_clock_skew: Duration,
    aggregator_auth_tokens: Vec<Token>,
}

impl NewPeer {
    /// The peer, to be checked.
    ///
    /// # Errors
    /// The control plane's fault: one sentence that says what to change.
    pub fn spec(self) -> Result<PeerSpec, TaskError> {
        if self.role != RoleName::Leader {
            return Err(TaskError::new(
                "role must be Leader: this deployment is a Helper, and its peers are Leaders",
            ));
        }
        let report_expiry_age = self.report_expiry_age.ok_or_else(|| {
            TaskError::new("report_expiry_age is needed: reports are not kept for ever")
        })?;
        Ok(PeerSpec {
            endpoint: self.endpoint,
            collector_hpke_config: self.collector_hpke_config,
            verify_key_init: self.verify_key_init,
            leader_tokens: self.aggregator_auth_tokens.into_iter().map(|t| t.token).collect(),
            leader_token_hashes: vec![],
            policy: PeerPolicy {
                report_expiry_age,
                tolerable_clock_skew: self.tolerable_clock_skew,
                ..PeerPolicy::default()
            },
        })
    }
}

/// Names a peer to remove.
#[derive(Clone, Debug, Deserialize)]
pub struct OldPeer {
    endpoint: String,
    role: RoleName,
}

impl OldPeer {
    /// The endpoint of the peer that is meant, if it can be one.
    pub fn endpoint(&self) -> Option<&str> {
        (self.role == RoleName::Leader).then_some(self.endpoint.as_str())
    }
}
