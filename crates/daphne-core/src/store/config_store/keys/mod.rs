//! HPKE keys and their lives: pending → active → expired → destroyed.
//!
//! | state | published | opens reports |
//! |---|---|---|
//! | pending | no | yes |
//! | active | yes | yes |
//! | expired | no | those made until `accepts_until`, until `destroyed_at` |
//! | destroyed | no | no; the private key is gone |
//!
//! An expired key opens reports for a while because clients keep configurations for [`LIST_MAX_AGE`], and some for longer
//! (DAP-09 §4.4.1 wants twice that). It opens those that were made until then for as long as any task takes them, as a job
//! that is repeated is verified again, and Poplar1 asks for a report several times. When the last of them is too old for
//! every task, nothing needs the key any more.
//!
//! The published list is the same bytes from everywhere: pinned keys first, in the order in which they were pinned; then
//! the others, those that became active last first, because clients take the first that they can use. A *pinned* key
//! does not expire, and what becomes of other keys does not move it.

mod change;
mod policy;
mod retention;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;

use serde::{Deserialize, Serialize};

pub use change::{KeyChange, KeyRefusal, KeyRequest, KeyResponse, respond};
pub use policy::{Advanced, EXPIRED_FOR_DEFAULT, Policy, PolicyError, advance, next_deadline};
pub use retention::note as note_retention;

use super::ConfigTables;
use crate::{
    aggregate::helper::{HpkeKeyring, RingKey},
    b64,
    hpke::{HpkeConfig, HpkeKeypair, KeypairError},
    ids::HpkeConfigId,
    seal::{RootKeys, UnsealError},
    store::{StoreError, StoreResult},
    time::{Duration, Time},
};

/// Clients and caches may keep the published list this long.
pub const LIST_MAX_AGE: Duration = Duration::from_seconds(86_400);

/// How much longer than a task's retention a report may need its key: a day after the retention it is refused whatever the
/// job, the clocks of Workers are off by up to a day, and a Worker may know an older list for two hours. The rest is to spare.
const REPEATS_MARGIN: Duration = Duration::from_seconds(4 * 86_400);

/// Where a key is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum KeyState {
    /// Not published yet, so that every Worker knows it before a client does.
    Pending,
    /// Published.
    Active {
        /// Counts activations and pins of all keys: who was later has the higher number.
        activated: u64,
        /// The same of its pin, if it is pinned.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pinned: Option<u64>,
    },
    /// Not published any more.
    Expired {
        /// Reports that were made until then are accepted.
        accepts_until: Time,
        /// It is destroyed then, or later, if a task with a longer retention came since.
        destroyed_at: Time,
    },
    /// Its private key is gone. What is left keeps its id from being given to another key too early.
    Destroyed,
}

impl KeyState {
    /// Name in metrics, as in JSON.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Active { .. } => "active",
            Self::Expired { .. } => "expired",
            Self::Destroyed => "destroyed",
        }
    }

    /// Whether the key is in the published list.
    pub const fn is_active(&self) -> bool {
        matches!(self, Self::Active { .. })
    }

    /// Whether it is pinned.
    pub const fn is_pinned(&self) -> bool {
        matches!(self, Self::Active { pinned: Some(_), .. })
    }
}

/// Keys were once stored without a state, and were all published.
impl Default for KeyState {
    fn default() -> Self {
        Self::Active { activated: 0, pinned: None }
    }
}

/// What an operator may know of a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyInfo {
    /// The public half.
    pub config: HpkeConfig,
    /// Where it is in its life.
    #[serde(flatten)]
    pub state: KeyState,
    /// Since when, by the clock of the `ConfigStore`.
    pub since: Time,
}

/// A key at rest. JSON, so that fields can be added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredHpkeKey {
    /// The public half.
    pub config: HpkeConfig,
    /// The private key, sealed under the key's id; empty once it is destroyed.
    #[serde(with = "b64::serde_b64")]
    pub sealed_private_key: Vec<u8>,
    /// Where it is in its life.
    #[serde(default)]
    pub state: KeyState,
    /// Since when.
    #[serde(default = "epoch")]
    pub since: Time,
    /// The request that made it, to know its repeat; empty if it was imported, or made by the schedule.
    #[serde(default, with = "b64::serde_b64")]
    pub made_by: Vec<u8>,
    /// Counts the changes of all keys: its last change was this one.
    #[serde(default)]
    pub revision: u64,
}

const fn epoch() -> Time {
    Time::from_seconds(0)
}

/// A key pair, its private half sealed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedKeypair {
    /// The public half.
    pub config: HpkeConfig,
    /// The private key, sealed under the key's id.
    #[serde(with = "b64::serde_b64")]
    pub sealed_private_key: Vec<u8>,
}

impl SealedKeypair {
    /// Seals a key pair. `nonce` is fresh randomness.
    pub fn seal(keypair: &HpkeKeypair, keys: &RootKeys, nonce: [u8; 12]) -> Self {
        Self {
            config: keypair.config().clone(),
            sealed_private_key: keys.seal(
                &seal_label(keypair.config().id),
                keypair.private_key(),
                nonce,
            ),
        }
    }
}

pub(super) fn seal_label(id: HpkeConfigId) -> String {
    format!("private key of HPKE configuration {id}")
}

/// A stored key cannot be used. Our own fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenKeyError {
    /// It does not open.
    #[error("HPKE key {0}: {1}")]
    Seal(HpkeConfigId, UnsealError),
    /// It opens, and is none.
    #[error("HPKE key {0}: {1}")]
    Broken(HpkeConfigId, KeypairError),
}

impl StoredHpkeKey {
    /// What an operator may know.
    pub fn info(&self) -> KeyInfo {
        KeyInfo { config: self.config.clone(), state: self.state, since: self.since }
    }

    /// Its id rests from now on.
    fn destroy(&mut self, now: Time) {
        self.sealed_private_key.clear();
        self.state = KeyState::Destroyed;
        self.since = now;
    }

    fn id(&self) -> HpkeConfigId {
        self.config.id
    }

    /// The key pair.
    ///
    /// # Errors
    /// [`OpenKeyError`].
    pub fn open(&self, keys: &RootKeys) -> Result<HpkeKeypair, OpenKeyError> {
        let id = self.id();
        let private_key = keys
            .open(&seal_label(id), &self.sealed_private_key)
            .map_err(|e| OpenKeyError::Seal(id, e))?;
        HpkeKeypair::from_parts(self.config.clone(), private_key)
            .map_err(|e| OpenKeyError::Broken(id, e))
    }
}

/// What the `ConfigStore` keeps about keys in general. JSON, so that fields can be added.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeySettings {
    /// The schedule, if it is on.
    #[serde(default)]
    pub policy: Option<Policy>,
    /// The longest retention of any task there was, once it is known.
    #[serde(default)]
    pub longest_retention: Option<Duration>,
    /// The schedule could not make a key, and tries again then.
    #[serde(default)]
    pub make_again_at: Option<Time>,
    /// The last rotation by hand, to know its repeat.
    #[serde(default, with = "b64::serde_b64")]
    pub last_rotation: Vec<u8>,
}

/// The state of a key that expires now.
fn expired(now: Time, expired_for: Duration, retention: Duration) -> KeyState {
    KeyState::Expired {
        accepts_until: now.saturating_add(expired_for),
        destroyed_at: destroyed_at(now, expired_for, retention),
    }
}

/// When a key that expires now is needed no longer.
fn destroyed_at(now: Time, expired_for: Duration, retention: Duration) -> Time {
    needed_until(now.saturating_add(expired_for), retention)
}

/// Until when a report made at `accepts_until` may be in a job, be it a repeat.
fn needed_until(accepts_until: Time, retention: Duration) -> Time {
    accepts_until.saturating_add(retention).saturating_add(REPEATS_MARGIN)
}

/// Sorts keys: published ones first, in the order of the published list; the others by id.
pub fn sort(keys: &mut [StoredHpkeKey]) {
    keys.sort_by_key(|key| {
        let (class, place, newest_first) = match key.state {
            KeyState::Active { pinned: Some(n), .. } => (0, n, Reverse(0)),
            KeyState::Active { activated, pinned: None } => (1, 0, Reverse(activated)),
            KeyState::Pending | KeyState::Expired { .. } | KeyState::Destroyed => {
                (2, 0, Reverse(0))
            }
        };
        (class, place, newest_first, key.id())
    });
}

/// What the Worker opens reports with: all keys that are not destroyed, the published ones first and in order.
///
/// # Errors
/// [`OpenKeyError`], also if only one of them does not open: its reports must not be refused for good.
pub fn keyring(
    mut stored: Vec<StoredHpkeKey>,
    keys: &RootKeys,
) -> Result<HpkeKeyring, OpenKeyError> {
    stored.retain(|key| key.state != KeyState::Destroyed);
    sort(&mut stored);
    let ring = stored.iter().map(|key| {
        let accepts_until = match key.state {
            KeyState::Expired { accepts_until, .. } => Some(accepts_until),
            _ => None,
        };
        let is_published = key.state.is_active();
        Ok(RingKey { keypair: key.open(keys)?, is_published, accepts_until })
    });
    ring.collect::<Result<_, _>>().map(HpkeKeyring::of)
}

/// How many changes of keys led to `keys`, which are all there are: of two copies, the one with more is the newer.
pub fn revision(keys: &[StoredHpkeKey]) -> u64 {
    keys.iter().map(|key| key.revision).max().unwrap_or(0)
}

/// Writes a key that is new or changed (1 row). Returns it as it is now.
pub(super) fn put(t: &mut impl ConfigTables, key: StoredHpkeKey) -> StoreResult<StoredHpkeKey> {
    // No row is ever removed, so this is more than there ever was.
    let revision = revision(&t.hpke_keys()?).saturating_add(1);
    let key = StoredHpkeKey { revision, ..key };
    t.put_hpke_key(&key)?;
    Ok(key)
}

/// All keys as they are sent to Workers, and cached by them.
pub(super) fn listed(t: &mut impl ConfigTables) -> StoreResult<Vec<u8>> {
    let mut stored = t.hpke_keys()?;
    sort(&mut stored);
    serde_json::to_vec(&stored).map_err(|e| StoreError(format!("keys cannot be written: {e}")))
}
