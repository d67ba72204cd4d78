//! What operators change about keys.

use serde::{Deserialize, Serialize};

use super::{KeyState, LIST_MAX_AGE, SealedKeypair, StoredHpkeKey, sort};
use crate::{
    hpke::HpkeKem,
    ids::HpkeConfigId,
    store::{StoreError, StoreResult, config_store::ConfigTables},
    task::REPORT_EXPIRY_AGE_MAX,
    time::{Duration, Time},
};

/// Expired keys accept new reports for this long, unless the schedule says otherwise.
pub const EXPIRED_FOR_DEFAULT: Duration = Duration::from_seconds(7 * 86_400);

/// How long after the last new report a key may be needed, beyond the longest retention of a task: its report may be made
/// a day later by the client's clock; a day after its retention no Worker asks for it any more; clocks are off by up to
/// a day; and a Worker may know an older list for two hours.
const REPEATS_MARGIN: Duration = Duration::from_seconds(4 * 86_400);

/// The id of a destroyed key is given to no other for as long as Workers may know the old one.
const ID_RESTS_FOR: Duration = Duration::from_seconds(2 * 3_600);

/// Makes keys for the `ConfigStore`, which has neither randomness nor the root keys.
pub trait KeySource {
    /// A new key pair with that id, its private half sealed.
    ///
    /// # Errors
    /// Ours: there is no root key to seal it with.
    fn make(&self, id: HpkeConfigId, kem: HpkeKem) -> StoreResult<SealedKeypair>;
}

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
    /// Reports may need it.
    #[error(
        "this HPKE key may be needed until {} (seconds since 1970): a job with a report sealed to it may be \
         repeated; it is destroyed by itself then, or force it now, at the price of such reports",
        .0.as_seconds()
    )]
    StillNeeded(Time),
}

type Outcome<T> = StoreResult<Result<T, KeyRefusal>>;

/// Carries out an operator's request.
pub fn respond(
    t: &mut impl ConfigTables,
    request: KeyRequest,
    source: &impl KeySource,
    now: Time,
) -> StoreResult<KeyResponse> {
    let outcome = match request {
        KeyRequest::Make { request, id, kem, active } => {
            make(t, request, id, HpkeKem::from_code(kem), active, source, now)?
        }
        KeyRequest::Import { keypair, active, pinned } => import(t, &keypair, active, pinned, now)?,
        KeyRequest::Change { id, to, force } => change(t, id, to, force, now)?.map(|k| (k, false)),
    };
    Ok(match outcome {
        Ok((key, is_new)) => KeyResponse::Key { record: to_json(&key)?, is_new },
        Err(refusal) => KeyResponse::Refused(refusal),
    })
}

fn to_json(value: &impl Serialize) -> StoreResult<Vec<u8>> {
    serde_json::to_vec(value).map_err(|e| StoreError(format!("a key cannot be written: {e}")))
}

fn make(
    t: &mut impl ConfigTables,
    request: [u8; 16],
    id: Option<HpkeConfigId>,
    kem: HpkeKem,
    active: bool,
    source: &impl KeySource,
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
    let key = insert(t, source.make(id, kem)?, active, request.to_vec(), now)?;
    Ok(Ok((key, true)))
}

fn import(
    t: &mut impl ConfigTables,
    keypair: &[u8],
    active: bool,
    pinned: bool,
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
    let key = insert(t, keypair, active || pinned, Vec::new(), now)?;
    let key = if pinned { change(t, id, KeyChange::Pin, false, now)? } else { Ok(key) };
    Ok(key.map(|key| (key, true)))
}

fn insert(
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
    let key = StoredHpkeKey { config, sealed_private_key, state, since: now, made_by };
    t.put_hpke_key(&key)?;
    Ok(key)
}

/// Counts activations and pins.
fn next_number(t: &mut impl ConfigTables) -> StoreResult<u64> {
    let last = t.hpke_keys()?.into_iter().map(|key| match key.state {
        KeyState::Active { activated, pinned } => activated.max(pinned.unwrap_or(0)),
        _ => 0,
    });
    Ok(last.max().unwrap_or(0) + 1)
}

/// A free id: one that no key had, from the one made last upwards, or else the one whose key was destroyed first.
fn free_id(t: &mut impl ConfigTables, now: Time) -> StoreResult<Option<HpkeConfigId>> {
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
    let mut keys = t.hpke_keys()?;
    sort(&mut keys);
    let actives = keys.iter().filter(|key| key.state.is_active()).count();
    let Some(mut key) = keys.into_iter().find(|key| key.config.id == id) else {
        return Ok(Err(KeyRefusal::NoSuchKey));
    };
    let state = match (to, key.state) {
        (KeyChange::Destroy, KeyState::Destroyed) => key.state,
        (_, KeyState::Destroyed) => return Ok(Err(KeyRefusal::IsDestroyed)),

        (KeyChange::Activate, KeyState::Active { .. }) => key.state,
        (KeyChange::Activate, _) => KeyState::Active { activated: next_number(t)?, pinned: None },

        (KeyChange::Pin, KeyState::Active { activated, pinned: None }) => {
            KeyState::Active { activated, pinned: Some(next_number(t)?) }
        }
        (KeyChange::Pin, KeyState::Active { .. }) => key.state,
        (KeyChange::Pin, _) => return Ok(Err(KeyRefusal::PinNeedsActive)),
        (KeyChange::Unpin, KeyState::Active { activated, .. }) => {
            KeyState::Active { activated, pinned: None }
        }
        (KeyChange::Unpin, state) => state,

        (KeyChange::Expire, KeyState::Active { pinned: Some(_), .. }) => {
            return Ok(Err(KeyRefusal::IsPinned));
        }
        (KeyChange::Expire, KeyState::Active { .. }) if actives == 1 && !force => {
            return Ok(Err(KeyRefusal::LastActive));
        }
        (KeyChange::Expire, KeyState::Expired { .. }) => key.state,
        (KeyChange::Expire, _) => expired(now, EXPIRED_FOR_DEFAULT),

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
            key.sealed_private_key.clear();
            KeyState::Destroyed
        }
    };
    let moves = std::mem::discriminant(&state) != std::mem::discriminant(&key.state);
    if state != key.state {
        key.state = state;
        if moves {
            key.since = now;
        }
        t.put_hpke_key(&key)?;
    }
    Ok(Ok(key))
}

/// The state of a key that expires now.
fn expired(now: Time, accepts_for: Duration) -> KeyState {
    let accepts_until = now.saturating_add(accepts_for);
    let destroyed_at =
        accepts_until.saturating_add(REPORT_EXPIRY_AGE_MAX).saturating_add(REPEATS_MARGIN);
    KeyState::Expired { accepts_until, destroyed_at }
}

const _: () = assert!(EXPIRED_FOR_DEFAULT.as_seconds() >= 2 * LIST_MAX_AGE.as_seconds());
