//! The schedule by which keys come and go.
//!
//! It is off unless an operator turns it on: whenever a key comes or goes the published list becomes other bytes, and
//! there are clients that carry the list with them and compare it whole.
//!
//! [`plan`] is a function of what is stored, so that a run of the alarm which is repeated, late or cut off does what it
//! should have done: one step is one transaction, and when it is done the next one is planned from its result. It never
//! leaves the list empty, because the step that expires a key is the one that activates its successor.

use serde::{Deserialize, Serialize};

use super::{
    KeySettings, KeyState, LIST_MAX_AGE, StoredHpkeKey,
    change::{free_id, insert, next_number},
    put, retention,
};
use crate::{
    hpke::HpkeKem,
    ids::HpkeConfigId,
    store::{
        StoreResult,
        config_store::{ConfigTables, Sealer},
    },
    time::{Duration, Time},
};

/// Expired keys accept reports made so much later, unless the schedule says otherwise.
pub const EXPIRED_FOR_DEFAULT: Duration = Duration::from_seconds(7 * 86_400);
/// Workers may know an older list for an hour, and a clock may be off. A report sealed to a key that a Worker does not
/// know costs a question to the `ConfigStore`.
pub const PENDING_FOR_MIN: Duration = Duration::from_seconds(3_600);
/// Keys that come faster than clients look would be a burden to everybody.
pub const ACTIVE_FOR_MIN: Duration = LIST_MAX_AGE;
/// Twice as long as the list may be cached (DAP-09 §4.4.1), by Workers, too.
pub const EXPIRED_FOR_MIN: Duration =
    Duration::from_seconds(2 * LIST_MAX_AGE.as_seconds() + 2 * 3_600);
/// Nothing lasts longer.
const LONGEST: Duration = Duration::from_seconds(10 * 366 * 86_400);
/// When to try again to make a key.
const MAKE_AGAIN_AFTER: Duration = Duration::from_seconds(300);
const AT_ONCE: Time = Time::from_seconds(0);
/// More keys than this at once would be a burden to each Worker that begins to run.
const KEYS_MAX: u64 = 64;
/// Steps taken in one transaction: enough to begin from nothing, few enough that a defect does not go in circles.
const STEPS_MAX: u32 = 8;

/// A schedule. Durations in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// How long a key is known to all Workers before clients see it.
    #[serde(default = "pending_for_default")]
    pub pending_for: Duration,
    /// How long a key is published.
    #[serde(default = "active_for_default")]
    pub active_for: Duration,
    /// Reports made so much later may still be sealed to it.
    #[serde(default = "expired_for_default")]
    pub expired_for: Duration,
    /// Key encapsulation of the keys that come and go. Keys of others, and pinned ones, are left alone.
    #[serde(default = "kem_default")]
    pub kem: HpkeKem,
}

const fn pending_for_default() -> Duration {
    PENDING_FOR_MIN
}
const fn active_for_default() -> Duration {
    Duration::from_seconds(84 * 86_400)
}
const fn expired_for_default() -> Duration {
    EXPIRED_FOR_DEFAULT
}
const fn kem_default() -> HpkeKem {
    HpkeKem::X25519HkdfSha256
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            pending_for: pending_for_default(),
            active_for: active_for_default(),
            expired_for: expired_for_default(),
            kem: kem_default(),
        }
    }
}

/// A schedule cannot be kept; the text is one sentence for the operator who sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum PolicyError {
    /// Too short.
    #[error("pending_for must be at least {} seconds: Workers may know an older list for so long", PENDING_FOR_MIN.as_seconds())]
    Pending,
    /// Too short.
    #[error("active_for must be at least {} seconds, for which clients keep the list, and not below pending_for", ACTIVE_FOR_MIN.as_seconds())]
    Active,
    /// Too short.
    #[error("expired_for must be at least {} seconds: twice as long as clients keep the list, and two hours", EXPIRED_FOR_MIN.as_seconds())]
    Expired,
    /// Too long.
    #[error("nothing may last longer than ten years")]
    TooLong,
    /// Not ours.
    #[error("kem must be X25519HkdfSha256 or P256HkdfSha256")]
    Kem,
    /// Each key is kept for so long that too many pile up.
    #[error(
        "about {0} keys would be kept at once, because each is needed until no task takes its reports any more; \
         at most {KEYS_MAX} may be: make active_for longer"
    )]
    TooManyKeys(u64),
}

impl Policy {
    /// Checks it, where no task's retention is longer than `retention`.
    ///
    /// # Errors
    /// The operator's fault.
    pub fn check(&self, retention: Duration) -> Result<(), PolicyError> {
        let Self { pending_for, active_for, expired_for, kem } = *self;
        if pending_for < PENDING_FOR_MIN {
            return Err(PolicyError::Pending);
        }
        if active_for < ACTIVE_FOR_MIN || active_for < pending_for {
            return Err(PolicyError::Active);
        }
        if expired_for < EXPIRED_FOR_MIN {
            return Err(PolicyError::Expired);
        }
        if [pending_for, active_for, expired_for].iter().any(|d| *d > LONGEST) {
            return Err(PolicyError::TooLong);
        }
        if !matches!(kem, HpkeKem::X25519HkdfSha256 | HpkeKem::P256HkdfSha256) {
            return Err(PolicyError::Kem);
        }
        let kept_for = super::destroyed_at(Time::from_seconds(0), expired_for, retention);
        let keys = kept_for.as_seconds().div_ceil(active_for.as_seconds()).saturating_add(2);
        if keys > KEYS_MAX {
            return Err(PolicyError::TooManyKeys(keys));
        }
        Ok(())
    }
}

/// What the schedule does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Make a key.
    Make,
    /// Publish this pending key in place of all others that come and go.
    Promote(HpkeConfigId),
}

/// The next step of a schedule, and when it is due.
fn plan(keys: &[StoredHpkeKey], policy: &Policy) -> (Time, Step) {
    let any_active = keys.iter().any(|key| key.state.is_active());
    let pending = next_pending(keys, policy.kem);
    let newest = keys
        .iter()
        .filter(|key| key.config.kem == policy.kem)
        .filter(|key| !key.state.is_pinned())
        .filter_map(|key| match key.state {
            KeyState::Active { activated, .. } => Some((activated, key.since)),
            _ => None,
        })
        .max()
        .map(|(_, since)| since);
    let retires_at = newest.map(|since| since.saturating_add(policy.active_for));
    match (pending, retires_at) {
        // Nobody can have an older list.
        (Some(key), _) if !any_active => (AT_ONCE, Step::Promote(key.config.id)),
        (Some(key), retires_at) => {
            let known_at = key.since.saturating_add(policy.pending_for);
            (known_at.max(retires_at.unwrap_or(AT_ONCE)), Step::Promote(key.config.id))
        }
        (None, None) => (AT_ONCE, Step::Make),
        (None, Some(at)) => (at.saturating_sub(policy.pending_for), Step::Make),
    }
}

/// The pending key that has waited longest.
pub(super) fn next_pending(keys: &[StoredHpkeKey], kem: HpkeKem) -> Option<&StoredHpkeKey> {
    keys.iter()
        .filter(|key| key.config.kem == kem && key.state == KeyState::Pending)
        .min_by_key(|key| key.since)
}

/// What became of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Advanced {
    /// Keys are not what they were.
    pub changed: bool,
    /// Why no key could be made: ours, to be tried again. The keys that are there stay.
    pub failed: Option<String>,
}

/// Does what is due: destroys expired keys that nothing can need, and follows the schedule if there is one. Repeats do
/// nothing.
///
/// # Errors
/// The database's.
pub fn advance(
    t: &mut impl ConfigTables,
    sealer: &impl Sealer,
    now: Time,
) -> StoreResult<Advanced> {
    let mut advanced = Advanced { changed: destroy_due(t, now)?, failed: None };
    for _ in 0..STEPS_MAX {
        let settings = t.key_settings()?;
        let Some(policy) = settings.policy else { break };
        let (at, step) = plan(&t.hpke_keys()?, &policy);
        if at.max(not_before(&settings, step)) > now {
            break;
        }
        match step {
            Step::Promote(id) => promote(t, id, policy.kem, policy.expired_for, now)?,
            Step::Make => {
                let made = match free_id(t, now)? {
                    None => Err("all ids of HPKE keys are in use".to_owned()),
                    Some(id) => sealer.make(id, policy.kem).map_err(|e| e.to_string()),
                };
                let again_at = made.is_err().then(|| now.saturating_add(MAKE_AGAIN_AFTER));
                if settings.make_again_at != again_at {
                    t.put_key_settings(&KeySettings { make_again_at: again_at, ..settings })?;
                }
                match made {
                    Ok(keypair) => drop(insert(t, keypair, false, Vec::new(), now)?),
                    Err(why) => {
                        advanced.failed = Some(why);
                        break;
                    }
                }
            }
        }
        advanced.changed = true;
    }
    Ok(advanced)
}

/// When [`advance`] has something to do.
///
/// # Errors
/// The database's.
pub fn next_deadline(t: &mut impl ConfigTables) -> StoreResult<Option<Time>> {
    let keys = t.hpke_keys()?;
    let destroyed = keys.iter().filter_map(|key| match key.state {
        KeyState::Expired { destroyed_at, .. } => Some(destroyed_at),
        _ => None,
    });
    let settings = t.key_settings()?;
    let step = settings.policy.map(|policy| {
        let (at, step) = plan(&keys, &policy);
        at.max(not_before(&settings, step))
    });
    Ok(destroyed.chain(step).min())
}

/// What failed a moment ago is not tried again at once.
fn not_before(settings: &KeySettings, step: Step) -> Time {
    match step {
        Step::Make => settings.make_again_at.unwrap_or(AT_ONCE),
        Step::Promote(_) => AT_ONCE,
    }
}

/// Publishes a key in place of all others of its kind that are not pinned.
pub(super) fn promote(
    t: &mut impl ConfigTables,
    id: HpkeConfigId,
    kem: HpkeKem,
    expired_for: Duration,
    now: Time,
) -> StoreResult<()> {
    let activated = next_number(t)?;
    let expired = super::expired(now, expired_for, retention::longest(t)?);
    for mut key in t.hpke_keys()? {
        if key.config.id == id {
            key.state = KeyState::Active { activated, pinned: None };
        } else if key.config.kem == kem && key.state.is_active() && !key.state.is_pinned() {
            key.state = expired;
        } else {
            continue;
        }
        key.since = now;
        put(t, key)?;
    }
    Ok(())
}

/// Destroys the expired keys that nothing can need any more. Tasks that came since they expired may keep reports longer.
fn destroy_due(t: &mut impl ConfigTables, now: Time) -> StoreResult<bool> {
    let mut changed = false;
    for mut key in t.hpke_keys()? {
        let KeyState::Expired { accepts_until, destroyed_at } = key.state else { continue };
        if destroyed_at > now {
            continue;
        }
        let needed_until = super::needed_until(accepts_until, retention::longest(t)?);
        if needed_until > now {
            key.state = KeyState::Expired { accepts_until, destroyed_at: needed_until };
        } else {
            key.destroy(now);
        }
        put(t, key)?;
        changed = true;
    }
    Ok(changed)
}
