//! What operators change about keys.

use serde::{Deserialize, Serialize};

use super::{
    KeySettings, KeyState, Policy, PolicyError, SealedKeypair, StoredHpkeKey, expired,
    policy::{self, EXPIRED_FOR_DEFAULT},
    put, retention, sort,
};
use crate::{
    hpke::HpkeKem,
    ids::HpkeConfigId,
    store::{
        StoreError, StoreResult,
        config_store::{ConfigTables, Sealer},
    },
    time::{Duration, Time},
};

/// The id of a destroyed key is given to no other for as long as Workers may know the old one.
const ID_RESTS_FOR: Duration = Duration::from_seconds(2 * 3_600);

/// What an operator wants of keys. Each may be sent again: what is as it should be is left as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyRequest {
    /// Make a key.
    Make {
        /// Names this request: the same again makes no second key.
        request: [u8; 16],
        /// Its id; by default a free one.
        id: Option<HpkeConfigId>,
        /// Code point of its key encapsulation.
        kem: u16,
        /// Publish it at once.
        active: bool,
        /// Although clients may compare the list.
        force: bool,
    },
    /// Take a key that was made elsewhere.
    Import {
        /// JSON of its [`SealedKeypair`]. The sender has checked that the halves belong together.
        #[serde(with = "serde_bytes")]
        keypair: Vec<u8>,
        /// Publish it at once.
        active: bool,
        /// Pin it at once.
        pinned: bool,
        /// Although clients may compare the list.
        force: bool,
    },
    /// Change a key.
    Change {
        /// Which.
        id: HpkeConfigId,
        /// To what.
        to: KeyChange,
        /// Although it does harm.
        force: bool,
    },
    /// Publish another key, the next pending one or else a new one, in place of those that are not pinned.
    Rotate {
        /// Names this request: the same again rotates no further.
        request: [u8; 16],
        /// Although clients may compare the list.
        force: bool,
    },
    /// Read the schedule.
    ReadPolicy,
    /// Turn the schedule on or off.
    SetPolicy {
        /// JSON of a [`Policy`], or nothing.
        policy: Option<serde_bytes::ByteBuf>,
        /// Although clients may compare the list.
        force: bool,
    },
}

/// A step in a key's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyChange {
    /// Publish it.
    Activate,
    /// Publish it no longer.
    Expire,
    /// Forget its private key.
    Destroy,
    /// It shall not expire, and its place in the list shall not move.
    Pin,
    /// It may expire again.
    Unpin,
}

/// What became of a [`KeyRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyResponse {
    /// The key as it is now: JSON of its [`StoredHpkeKey`].
    Key {
        /// The record.
        #[serde(with = "serde_bytes")]
        record: Vec<u8>,
        /// It is new.
        is_new: bool,
    },
    /// The schedule as it is now.
    Policy {
        /// JSON of a [`Policy`], or nothing if the schedule is off.
        policy: Option<serde_bytes::ByteBuf>,
        /// When keys change next, if nobody changes anything before.
        next: Option<Time>,
    },
    /// Nothing was changed.
    Refused(KeyRefusal),
}

/// Why an operator's request about keys is refused. Each text says what to do instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum KeyRefusal {
    /// There is no such key.
    #[error("there is no HPKE key with this id")]
    NoSuchKey,
    /// Another key has the id.
    #[error("another HPKE key has this id; choose a free one, or none")]
    IdTaken,
    /// Another key had the id a moment ago.
    #[error(
        "another HPKE key with this id was destroyed less than two hours ago, and may still be cached; choose \
         another id, or come back later"
    )]
    IdRests,
    /// All ids are in use.
    #[error("all 256 ids of HPKE keys are in use; destroy keys that are not needed any more")]
    NoFreeId,
    /// It is destroyed.
    #[error("this HPKE key is destroyed; make or import another one")]
    IsDestroyed,
    /// No key would be published.
    #[error(
        "this is the only published HPKE key, and without one no client can make a report; activate another one \
         first, or force it"
    )]
    LastActive,
    /// It is pinned.
    #[error("this HPKE key is pinned, so it does not expire; unpin it first")]
    IsPinned,
    /// Only published keys have a place.
    #[error("only an active HPKE key can be pinned; activate it first")]
    PinNeedsActive,
    /// It is published.
    #[error("this HPKE key is published; expire it first")]
    DestroyNeedsExpired,
    /// It is not published yet, but opens reports.
    #[error(
        "this HPKE key is pending, and somebody may have its configuration; expire it first, or force it if nobody has"
    )]
    DestroyPending,
    /// The list is compared.
    #[error(
        "an HPKE key is pinned, and clients that have it built in may compare the whole list, to which this adds a \
         key; force it if no client does, or unpin that key first"
    )]
    ListIsPinned,
    /// The schedule cannot be kept.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// Reports may need it.
    #[error(
        "this HPKE key may be needed until {} (seconds since 1970): reports sealed to it are accepted, and jobs with them \
         may be repeated; it is destroyed by itself then, or force it now, at the price of such reports",
        .0.as_seconds()
    )]
    StillNeeded(Time),
    /// The list would change by itself.
    #[error(
        "the schedule is on and publishes other keys, while clients that have this HPKE key built in may compare the \
         whole list; turn the schedule off first, or force it if no client compares"
    )]
    PinUnderPolicy,
}

type Outcome<T> = StoreResult<Result<T, KeyRefusal>>;

/// Carries out an operator's request, and then what is due.
pub fn respond(
    t: &mut impl ConfigTables,
    request: KeyRequest,
    sealer: &impl Sealer,
    now: Time,
) -> StoreResult<KeyResponse> {
    let outcome = match request {
        KeyRequest::ReadPolicy => return read_policy(t),
        KeyRequest::SetPolicy { policy, force } => match set_policy(t, policy, force)? {
            Ok(()) => {
                policy::advance(t, sealer, now)?;
                return read_policy(t);
            }
            Err(refusal) => Err(refusal),
        },
        KeyRequest::Make { request, id, kem, active, force } => {
            let kem = HpkeKem::from_code(kem);
            make(t, request, id, kem, active, force, sealer, now)?
        }
        KeyRequest::Import { keypair, active, pinned, force } => {
            import(t, &keypair, active, pinned, force, now)?
        }
        KeyRequest::Change { id, to, force } => change(t, id, to, force, now)?.map(|k| (k, false)),
        KeyRequest::Rotate { request, force } => {
            rotate(t, request, force, sealer, now)?.map(|k| (k, false))
        }
    };
    let (key, is_new) = match outcome {
        Ok(done) => done,
        Err(refusal) => return Ok(KeyResponse::Refused(refusal)),
    };
    // A forced change may have left nothing for clients, where the schedule promises that something is.
    policy::advance(t, sealer, now)?;
    Ok(KeyResponse::Key { record: to_json(&key)?, is_new })
}

fn read_policy(t: &mut impl ConfigTables) -> StoreResult<KeyResponse> {
    let policy = t.key_settings()?.policy;
    let policy = policy.map(|policy| to_json(&policy)).transpose()?.map(Into::into);
    Ok(KeyResponse::Policy { policy, next: policy::next_deadline(t)? })
}

fn set_policy(
    t: &mut impl ConfigTables,
    policy: Option<serde_bytes::ByteBuf>,
    force: bool,
) -> Outcome<()> {
    let policy: Option<Policy> =
        policy
            .map(|policy| serde_json::from_slice(&policy))
            .transpose()
            .map_err(|e| StoreError(format!("a schedule is malformed: {e}")))?;
    let settings = t.key_settings()?;
    if settings.policy == policy {
        return Ok(Ok(()));
    }
    if let Some(policy) = policy {
        if let Err(why) = policy.check(retention::longest(t)?) {
            return Ok(Err(why.into()));
        }
        if !force && list_is_pinned(t)? {
            return Ok(Err(KeyRefusal::ListIsPinned));
        }
    }
    // The check may have taken note of the longest retention.
    let settings = t.key_settings()?;
    t.put_key_settings(&KeySettings { policy, ..settings })?;
    Ok(Ok(()))
}

fn list_is_pinned(t: &mut impl ConfigTables) -> StoreResult<bool> {
    Ok(t.hpke_keys()?.iter().any(|key| key.state.is_pinned()))
}

fn to_json(value: &impl Serialize) -> StoreResult<Vec<u8>> {
    serde_json::to_vec(value).map_err(|e| StoreError(format!("a key cannot be written: {e}")))
}

#[allow(clippy::too_many_arguments, reason = "they are what the request says")]
fn make(
    t: &mut impl ConfigTables,
    request: [u8; 16],
    id: Option<HpkeConfigId>,
    kem: HpkeKem,
    active: bool,
    force: bool,
    sealer: &impl Sealer,
    now: Time,
) -> Outcome<(StoredHpkeKey, bool)> {
    let keys = t.hpke_keys()?;
    if let Some(made) = keys.into_iter().find(|key| key.made_by == request) {
        return Ok(Ok((made, true)));
    }
    let id = match id {
        Some(id) => id,
        None => match free_id(t, now)? {
            Some(id) => id,
            None => return Ok(Err(KeyRefusal::NoFreeId)),
        },
    };
    if let Some(refusal) = occupied(t, id, now)? {
        return Ok(Err(refusal));
    }
    if active && !force && list_is_pinned(t)? {
        return Ok(Err(KeyRefusal::ListIsPinned));
    }
    let key = insert(t, sealer.make(id, kem)?, active, request.to_vec(), now)?;
    Ok(Ok((key, true)))
}

fn import(
    t: &mut impl ConfigTables,
    keypair: &[u8],
    active: bool,
    pinned: bool,
    force: bool,
    now: Time,
) -> Outcome<(StoredHpkeKey, bool)> {
    let keypair: SealedKeypair = serde_json::from_slice(keypair)
        .map_err(|e| StoreError(format!("a key to import is malformed: {e}")))?;
    let id = keypair.config.id;
    let same = t.hpke_keys()?.into_iter().find(|key| key.config == keypair.config);
    match same {
        Some(key) if key.state != KeyState::Destroyed => return Ok(Ok((key, false))),
        // The very key that was destroyed may come back at any time.
        Some(_) => {}
        None => {
            if let Some(refusal) = occupied(t, id, now)? {
                return Ok(Err(refusal));
            }
        }
    }
    if (active || pinned) && !force && list_is_pinned(t)? {
        return Ok(Err(KeyRefusal::ListIsPinned));
    }
    if pinned && !force && t.key_settings()?.policy.is_some() {
        return Ok(Err(KeyRefusal::PinUnderPolicy));
    }
    let key = insert(t, keypair, active || pinned, Vec::new(), now)?;
    let key = if pinned { change(t, id, KeyChange::Pin, true, now)? } else { Ok(key) };
    Ok(key.map(|key| (key, true)))
}

fn rotate(
    t: &mut impl ConfigTables,
    request: [u8; 16],
    force: bool,
    sealer: &impl Sealer,
    now: Time,
) -> Outcome<StoredHpkeKey> {
    let settings = t.key_settings()?;
    let Policy { kem, expired_for, .. } = settings.policy.unwrap_or_default();
    if settings.last_rotation == request {
        let mut keys = t.hpke_keys()?;
        sort(&mut keys);
        let newest = |key: &StoredHpkeKey| key.config.kem == kem && !key.state.is_pinned();
        return Ok(keys.into_iter().find(newest).ok_or(KeyRefusal::NoSuchKey));
    }
    if !force && list_is_pinned(t)? {
        return Ok(Err(KeyRefusal::ListIsPinned));
    }
    let id = match policy::next_pending(&t.hpke_keys()?, kem) {
        Some(key) => key.config.id,
        None => match free_id(t, now)? {
            None => return Ok(Err(KeyRefusal::NoFreeId)),
            Some(id) => insert(t, sealer.make(id, kem)?, false, Vec::new(), now)?.config.id,
        },
    };
    policy::promote(t, id, kem, expired_for, now)?;
    let settings = t.key_settings()?;
    t.put_key_settings(&KeySettings { last_rotation: request.to_vec(), ..settings })?;
    let key = t.hpke_keys()?.into_iter().find(|key| key.config.id == id);
    Ok(key.ok_or(KeyRefusal::NoSuchKey))
}

pub(super) fn insert(
    t: &mut impl ConfigTables,
    keypair: SealedKeypair,
    active: bool,
    made_by: Vec<u8>,
    now: Time,
) -> StoreResult<StoredHpkeKey> {
    let state = if active {
        KeyState::Active { activated: next_number(t)?, pinned: None }
    } else {
        KeyState::Pending
    };
    let SealedKeypair { config, sealed_private_key } = keypair;
    put(t, StoredHpkeKey { config, sealed_private_key, state, since: now, made_by, revision: 0 })
}

/// Counts activations and pins.
pub(super) fn next_number(t: &mut impl ConfigTables) -> StoreResult<u64> {
    let last = t.hpke_keys()?.into_iter().map(|key| match key.state {
        KeyState::Active { activated, pinned } => activated.max(pinned.unwrap_or(0)),
        _ => 0,
    });
    Ok(last.max().unwrap_or(0) + 1)
}

/// A free id: one that no key had, from the one made last upwards, or else the one whose key was destroyed first.
pub(super) fn free_id(t: &mut impl ConfigTables, now: Time) -> StoreResult<Option<HpkeConfigId>> {
    let keys = t.hpke_keys()?;
    let is_new = |id: &HpkeConfigId| keys.iter().all(|key| key.config.id != *id);
    let first = keys.last().map_or(0, |key| key.config.id.0.wrapping_add(1));
    let mut upwards = (0..=u8::MAX).map(|n| HpkeConfigId(first.wrapping_add(n)));
    let rested = keys.iter().filter(|key| key.state == KeyState::Destroyed && has_rested(key, now));
    Ok(upwards.find(is_new).or_else(|| rested.min_by_key(|key| key.since).map(|key| key.config.id)))
}

fn has_rested(destroyed: &StoredHpkeKey, now: Time) -> bool {
    destroyed.since.saturating_add(ID_RESTS_FOR) <= now
}

/// Why no new key may have this id.
fn occupied(
    t: &mut impl ConfigTables,
    id: HpkeConfigId,
    now: Time,
) -> StoreResult<Option<KeyRefusal>> {
    Ok(t.hpke_keys()?.into_iter().find(|key| key.config.id == id).and_then(|key| match key.state {
        KeyState::Destroyed if has_rested(&key, now) => None,
        KeyState::Destroyed => Some(KeyRefusal::IdRests),
        _ => Some(KeyRefusal::IdTaken),
    }))
}

fn change(
    t: &mut impl ConfigTables,
    id: HpkeConfigId,
    to: KeyChange,
    force: bool,
    now: Time,
) -> Outcome<StoredHpkeKey> {
    let keys = t.hpke_keys()?;
    let actives = keys.iter().filter(|key| key.state.is_active()).count();
    let Some(mut key) = keys.into_iter().find(|key| key.config.id == id) else {
        return Ok(Err(KeyRefusal::NoSuchKey));
    };
    let state = match (to, key.state) {
        (KeyChange::Destroy, KeyState::Destroyed) => return Ok(Ok(key)),
        (_, KeyState::Destroyed) => return Ok(Err(KeyRefusal::IsDestroyed)),

        (KeyChange::Activate, KeyState::Active { .. }) => return Ok(Ok(key)),
        (KeyChange::Activate, _) if !force && list_is_pinned(t)? => {
            return Ok(Err(KeyRefusal::ListIsPinned));
        }
        (KeyChange::Activate, _) => KeyState::Active { activated: next_number(t)?, pinned: None },

        (KeyChange::Pin, KeyState::Active { pinned: None, .. })
            if !force && t.key_settings()?.policy.is_some() =>
        {
            return Ok(Err(KeyRefusal::PinUnderPolicy));
        }
        (KeyChange::Pin, KeyState::Active { activated, pinned: None }) => {
            KeyState::Active { activated, pinned: Some(next_number(t)?) }
        }
        (KeyChange::Pin, KeyState::Active { .. }) => return Ok(Ok(key)),
        (KeyChange::Pin, _) => return Ok(Err(KeyRefusal::PinNeedsActive)),
        (KeyChange::Unpin, KeyState::Active { activated, pinned: Some(_) }) => {
            KeyState::Active { activated, pinned: None }
        }
        (KeyChange::Unpin, _) => return Ok(Ok(key)),

        (KeyChange::Expire, KeyState::Active { pinned: Some(_), .. }) => {
            return Ok(Err(KeyRefusal::IsPinned));
        }
        (KeyChange::Expire, KeyState::Active { .. }) if actives == 1 && !force => {
            return Ok(Err(KeyRefusal::LastActive));
        }
        (KeyChange::Expire, KeyState::Expired { .. }) => return Ok(Ok(key)),
        (KeyChange::Expire, _) => {
            let policy = t.key_settings()?.policy;
            let expired_for = policy.map_or(EXPIRED_FOR_DEFAULT, |policy| policy.expired_for);
            expired(now, expired_for, retention::longest(t)?)
        }

        (KeyChange::Destroy, KeyState::Active { .. }) => {
            return Ok(Err(KeyRefusal::DestroyNeedsExpired));
        }
        (KeyChange::Destroy, KeyState::Pending) if !force => {
            return Ok(Err(KeyRefusal::DestroyPending));
        }
        (KeyChange::Destroy, KeyState::Expired { destroyed_at, .. })
            if destroyed_at > now && !force =>
        {
            return Ok(Err(KeyRefusal::StillNeeded(destroyed_at)));
        }
        (KeyChange::Destroy, _) => {
            key.destroy(now);
            return put(t, key).map(Ok);
        }
    };
    let was = std::mem::replace(&mut key.state, state);
    if was.is_active() != state.is_active() || matches!(state, KeyState::Expired { .. }) {
        key.since = now;
    }
    put(t, key).map(Ok)
}
