//! Peers: the leaders that may bring tasks along, and what they share with us beforehand. taskprov-07 §4.
//!
//! As with tasks there are three forms: [`PeerSpec`] is what an operator sends, [`Peer`] is checked and complete, and
//! [`StoredPeer`] is a peer at rest, its secret sealed. [`PeerView`] is what an operator is shown.

use serde::{Deserialize, Serialize};

use super::VerifyKeyInit;
use crate::{
    b64,
    batch::BatchMode,
    hpke::HpkeConfig,
    seal::{RootKeys, TokenHash, UnsealError},
    task::{self, TaskError, TaskRole, TaskSpec},
    time::{Duration, Time},
    vdaf::VdafConfig,
    version::DapVersion,
};

/// Most tokens that a peer may have at a time: an old one and its successor, and some to spare.
pub const LEADER_TOKENS_MAX: usize = 8;
const ENDPOINT_LEN_MAX: usize = 1_024;

/// What an operator sends to add a peer.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerSpec {
    /// The leader's DAP URL as its tasks name it. Compared byte for byte.
    pub endpoint: String,
    /// Whom the aggregate shares of its tasks are sealed to.
    pub collector_hpke_config: HpkeConfig,
    /// The secret that verify keys are derived from.
    pub verify_key_init: VerifyKeyInit,
    /// Tokens that the leader may authenticate with. Secret; only their hashes are kept.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leader_tokens: Vec<String>,
    /// SHA-256 of tokens, instead of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leader_token_hashes: Vec<TokenHash>,
    /// What its tasks get, and what they may ask for.
    #[serde(default)]
    pub policy: PeerPolicy,
}

/// What the tasks of a peer get beside what the leader says of them, and the bounds of what it may say. Absent bounds are
/// those of any task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerPolicy {
    /// Reports older than this are refused, in seconds. Default 14 days.
    #[serde(default = "task::default_report_expiry_age")]
    pub report_expiry_age: Duration,
    /// Reports may be this far in the future, in seconds. Default 300.
    #[serde(default = "task::default_clock_skew")]
    pub tolerable_clock_skew: Duration,
    /// Durable Objects that share each group of batch buckets. Default 1.
    #[serde(default = "task::one_shard")]
    pub shards: u16,
    /// Neighbouring batch buckets in one group of objects; 0 for one group over the whole task. Default: about a
    /// day. Time-interval tasks only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub buckets_per_group: Option<u32>,
    /// Smallest `min_batch_size` that is accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_batch_size_min: Option<u64>,
    /// Largest `max_batch_query_count` that is accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_batch_query_count_max: Option<u64>,
    /// A task may expire at most this much later than it is first met, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifetime_max: Option<Duration>,
    /// What tasks must name as the helper's DAP URL. Default: anything, as only we were asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub helper_url: Option<String>,
}

impl Default for PeerPolicy {
    fn default() -> Self {
        Self {
            report_expiry_age: task::default_report_expiry_age(),
            tolerable_clock_skew: task::default_clock_skew(),
            shards: task::one_shard(),
            buckets_per_group: None,
            min_batch_size_min: None,
            max_batch_query_count_max: None,
            lifetime_max: None,
            helper_url: None,
        }
    }
}

/// The parameters of a peer that are no secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerParameters {
    /// The leader's DAP URL.
    pub endpoint: String,
    /// Whom the aggregate shares of its tasks are sealed to.
    pub collector_hpke_config: HpkeConfig,
    /// What its tasks get, and what they may ask for.
    pub policy: PeerPolicy,
}

impl PeerParameters {
    fn check(&self) -> Result<(), TaskError> {
        check_url("endpoint", &self.endpoint)?;
        if let Some(url) = &self.policy.helper_url {
            check_url("helper_url", url)?;
        }
        // What a task of its own gets must fit some task: the smallest.
        let policy = &self.policy;
        let smallest = TaskSpec {
            task_id: None,
            version: DapVersion::V09,
            role: TaskRole::Helper,
            task_configuration: Vec::new(),
            batch_mode: BatchMode::TimeInterval,
            max_batch_size: None,
            vdaf: VdafConfig::Prio3Count,
            verify_key: vec![0; 16],
            leader_token: None,
            leader_token_hash: Some(TokenHash::of("")),
            collector_hpke_config: self.collector_hpke_config.clone(),
            min_batch_size: 2,
            time_precision: Duration::from_seconds(1),
            max_batch_query_count: 1,
            task_expiration: None,
            report_expiry_age: policy.report_expiry_age,
            tolerable_clock_skew: policy.tolerable_clock_skew,
            shards: policy.shards,
            buckets_per_group: policy.buckets_per_group,
        };
        smallest.check(0).map(|_| ())
    }
}

/// Whether this can be an aggregator's DAP URL.
pub(crate) fn check_url(name: &str, url: &str) -> Result<(), TaskError> {
    let has_scheme =
        ["https://", "http://"].iter().any(|s| url.len() > s.len() && url.starts_with(s));
    if has_scheme && url.len() <= ENDPOINT_LEN_MAX && url.bytes().all(|b| b.is_ascii_graphic()) {
        Ok(())
    } else {
        Err(TaskError::new(format!(
            "{name} must be an http or https URL of at most {ENDPOINT_LEN_MAX} visible ASCII characters"
        )))
    }
}

impl PeerSpec {
    /// Checks the parameters and fills in defaults.
    ///
    /// # Errors
    /// The operator's fault: one sentence that says what to change.
    pub fn check(self, now: Time) -> Result<Peer, TaskError> {
        let parameters = PeerParameters {
            endpoint: self.endpoint,
            collector_hpke_config: self.collector_hpke_config,
            policy: self.policy,
        };
        parameters.check()?;
        let tokens = self.leader_tokens.iter().map(|t| task::leader_token_hash(Some(t), None));
        let hashes: Vec<TokenHash> = tokens
            .chain(self.leader_token_hashes.iter().copied().map(Ok))
            .collect::<Result<_, _>>()?;
        let mut leader_tokens = Vec::new();
        hashes.into_iter().try_for_each(|hash| add_token(&mut leader_tokens, hash, now))?;
        if leader_tokens.is_empty() {
            return Err(TaskError::new("a peer needs at least one leader token"));
        }
        Ok(Peer { parameters, verify_key_init: self.verify_key_init, leader_tokens })
    }
}

fn add_token(tokens: &mut Vec<PeerToken>, hash: TokenHash, now: Time) -> Result<(), TaskError> {
    if tokens.iter().any(|token| token.hash == hash) {
        return Ok(());
    }
    if tokens.len() >= LEADER_TOKENS_MAX {
        return Err(TaskError::new(format!(
            "a peer may have {LEADER_TOKENS_MAX} leader tokens: remove one before"
        )));
    }
    tokens.push(PeerToken { hash, added: now });
    Ok(())
}

/// One of a leader's tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerToken {
    /// Its hash.
    pub hash: TokenHash,
    /// When it was added.
    pub added: Time,
}

/// A checked peer with its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// What is no secret.
    pub parameters: PeerParameters,
    /// The secret that verify keys are derived from.
    pub verify_key_init: VerifyKeyInit,
    /// The tokens that its leader may use, the oldest first; at least one, each once.
    pub leader_tokens: Vec<PeerToken>,
}

impl Peer {
    /// Whether it would be the same peer: what is added first makes a peer, and the same again repeats it.
    pub fn is_repeated_by(&self, other: &Self) -> bool {
        let hashes = |peer: &Self| -> Vec<TokenHash> {
            peer.leader_tokens.iter().map(|token| token.hash).collect()
        };
        self.parameters == other.parameters
            && self.verify_key_init == other.verify_key_init
            && hashes(self) == hashes(other)
    }

    /// The peer at rest. `nonce` is fresh randomness.
    pub fn seal(&self, keys: &RootKeys, nonce: [u8; 12]) -> StoredPeer {
        let label = seal_label(&self.parameters.endpoint);
        StoredPeer {
            sealed_verify_key_init: keys.seal(&label, self.verify_key_init.as_bytes(), nonce),
            parameters: self.parameters.clone(),
            leader_tokens: self.leader_tokens.clone(),
        }
    }
}

/// A peer at rest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredPeer {
    /// What is no secret.
    pub parameters: PeerParameters,
    /// The tokens that its leader may use, the oldest first.
    pub leader_tokens: Vec<PeerToken>,
    /// The secret that verify keys are derived from, sealed under the endpoint.
    #[serde(with = "b64::serde_b64")]
    pub sealed_verify_key_init: Vec<u8>,
}

impl StoredPeer {
    /// Whether its leader may present this token. Takes the same time whichever byte differs.
    pub fn accepts_leader_token(&self, token: &str) -> bool {
        // Every hash is tried, so that the time does not tell which one matched.
        self.leader_tokens.iter().fold(false, |ok, known| ok | known.hash.matches(token))
    }

    /// The peer, ready for use.
    ///
    /// # Errors
    /// Ours: the root key it was sealed with is missing, or the record is broken.
    pub fn open(&self, keys: &RootKeys) -> Result<Peer, OpenPeerError> {
        let label = seal_label(&self.parameters.endpoint);
        let secret = keys.open(&label, &self.sealed_verify_key_init)?;
        let secret = <[u8; 32]>::try_from(secret.as_slice()).map_err(|_| OpenPeerError::Broken)?;
        Ok(Peer {
            parameters: self.parameters.clone(),
            verify_key_init: VerifyKeyInit::new(secret),
            leader_tokens: self.leader_tokens.clone(),
        })
    }

    /// What an operator is shown.
    pub fn view(&self) -> PeerView {
        let tokens = self.leader_tokens.iter();
        PeerView {
            parameters: self.parameters.clone(),
            leader_tokens: tokens
                .map(|token| TokenView { name: token.hash.name(), added: token.added })
                .collect(),
        }
    }

    /// The peer with a change made. `nonce` is fresh randomness, for a new secret. Tasks that were met before keep
    /// the key that was derived then, and whom their shares are sealed to.
    ///
    /// # Errors
    /// The operator's fault: one sentence that says what to change.
    pub fn changed(
        &self,
        change: PeerChange,
        keys: &RootKeys,
        nonce: [u8; 12],
        now: Time,
    ) -> Result<Self, TaskError> {
        let mut changed = self.clone();
        if let Some(config) = change.collector_hpke_config {
            changed.parameters.collector_hpke_config = config;
        }
        if let Some(policy) = change.policy {
            changed.parameters.policy = policy;
        }
        changed.parameters.check()?;
        let (token, hash) = (change.add_leader_token, change.add_leader_token_hash);
        if token.is_some() || hash.is_some() {
            let hash = task::leader_token_hash(token.as_deref(), hash)?;
            add_token(&mut changed.leader_tokens, hash, now)?;
        }
        if let Some(name) = change.remove_leader_token {
            let before = changed.leader_tokens.len();
            changed.leader_tokens.retain(|token| token.hash.name() != name);
            if changed.leader_tokens.len() == before {
                return Err(TaskError::new("the peer has no leader token of that name"));
            }
            if changed.leader_tokens.is_empty() {
                return Err(TaskError::new(
                    "a peer needs at least one leader token: add another before, or remove the peer",
                ));
            }
        }
        if let Some(init) = change.verify_key_init {
            let label = seal_label(&changed.parameters.endpoint);
            changed.sealed_verify_key_init = keys.seal(&label, init.as_bytes(), nonce);
        }
        Ok(changed)
    }
}

/// What an operator sends to change a peer. What is absent stays.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerChange {
    /// The peer.
    pub endpoint: String,
    /// Another token that the leader may use, besides those it has. Secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub add_leader_token: Option<String>,
    /// SHA-256 of that token, instead of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub add_leader_token_hash: Option<TokenHash>,
    /// Name of a token that the leader may no longer use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remove_leader_token: Option<String>,
    /// The secret that verify keys of new tasks are derived from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verify_key_init: Option<VerifyKeyInit>,
    /// Whom the aggregate shares of new tasks are sealed to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub collector_hpke_config: Option<HpkeConfig>,
    /// What new tasks get, and what they may ask for; all of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<PeerPolicy>,
}

/// A peer as an operator is shown it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerView {
    /// What is no secret.
    #[serde(flatten)]
    pub parameters: PeerParameters,
    /// The tokens that its leader may use, the oldest first.
    pub leader_tokens: Vec<TokenView>,
}

/// A leader's token as an operator is shown it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenView {
    /// [`TokenHash::name`].
    pub name: String,
    /// When it was added.
    pub added: Time,
}

/// A stored peer cannot be used. Our own fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenPeerError {
    /// The secret does not open.
    #[error(transparent)]
    Seal(#[from] UnsealError),
    /// The record holds a secret that no peer can have.
    #[error("the stored peer is broken")]
    Broken,
}

pub(crate) fn seal_label(endpoint: &str) -> String {
    format!("verify_key_init of peer {endpoint}")
}
