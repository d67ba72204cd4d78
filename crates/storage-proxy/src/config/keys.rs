//! HPKE keys.
//!
//! The `ConfigStore` alone writes their copy in KV. A copy that is older than what an isolate has seen is none: who met a
//! new key once does not refuse its reports, nor publish a list without it, because of a copy that came late.

use std::{ops::Deref, rc::Rc};

use daphne_core::{
    aggregate::helper::HpkeKeyring,
    error::Internal,
    hpke::{HpkeKem, HpkeKeypair, KeyAgreement},
    ids::HpkeConfigId,
    store::config_store::{
        ConfigRequest, ConfigResponse,
        keys::{
            self, KeyChange, KeyInfo, KeyRefusal, KeyRequest, KeyResponse, Policy, SealedKeypair,
            StoredHpkeKey,
        },
    },
    time::Time,
};
use serde::Serialize;
use worker::{Env, kv::KvError};

use super::{Cached, Config, ask, broken, kv, unexpected};
use crate::{random, webcrypto::WebCrypto};

const KV_KEY: &str = "hpke";

/// Our HPKE keys, and what the platform computes with them. What it holds of a key goes when the ring goes.
#[derive(Debug)]
pub struct Keys {
    ring: HpkeKeyring,
    webcrypto: WebCrypto,
}

impl Keys {
    /// Who computes Diffie-Hellman with these keys for many reports at once.
    pub fn agreement(&self) -> &dyn KeyAgreement {
        &self.webcrypto
    }
}

impl Deref for Keys {
    type Target = HpkeKeyring;

    fn deref(&self) -> &HpkeKeyring {
        &self.ring
    }
}

/// HPKE keys as an isolate knows them.
#[derive(Clone, Debug)]
pub(super) struct Known {
    ring: Rc<Keys>,
    /// How new they are.
    revision: u64,
}

/// What became of a change of HPKE keys.
#[derive(Debug)]
pub enum ChangedKey {
    /// The key as it is now, and whether it is new.
    Key(KeyInfo, bool),
    /// Nothing was changed.
    Refused(KeyRefusal),
}

impl Config {
    /// Our HPKE keys.
    ///
    /// # Errors
    /// Ours.
    pub async fn keyring(&self, env: &Env, now: Time) -> Result<Rc<Keys>, Internal> {
        if let Some(known) = self.keyring.borrow().as_ref().and_then(|c| c.fresh(now)) {
            return Ok(known.ring);
        }
        let copied = kv::get(env, KV_KEY).await.and_then(|records| parse(&records).ok());
        let copied = copied.filter(|keys| Some(keys::revision(keys)) >= self.known_revision());
        match copied.and_then(|keys| self.keep_keyring(keys, now).ok()) {
            Some(ring) => Ok(ring),
            None => self.ask_for_keyring(env, &ConfigRequest::ListUncopiedHpkeKeys, now).await,
        }
    }

    fn known_revision(&self) -> Option<u64> {
        self.keyring.borrow().as_ref().map(|known| known.value.revision)
    }

    /// Our HPKE keys, for a report sealed to one that `ring` does not have: as the `ConfigStore` has them, unless it
    /// answered within this second. Clients can cause this with each report.
    ///
    /// # Errors
    /// Ours.
    pub async fn keyring_beyond(
        &self,
        ring: Rc<Keys>,
        env: &Env,
        now: Time,
    ) -> Result<Rc<Keys>, Internal> {
        if self.answered_with_keys_at.get() == Some(now) {
            let newest = self.keyring.borrow().as_ref().map(|cached| cached.value.ring.clone());
            return Ok(newest.unwrap_or(ring));
        }
        self.refresh_keyring(env, now).await
    }

    /// Our HPKE keys as the `ConfigStore` has them.
    ///
    /// # Errors
    /// Ours.
    pub async fn refresh_keyring(&self, env: &Env, now: Time) -> Result<Rc<Keys>, Internal> {
        self.ask_for_keyring(env, &ConfigRequest::ListHpkeKeys, now).await
    }

    async fn ask_for_keyring(
        &self,
        env: &Env,
        request: &ConfigRequest,
        now: Time,
    ) -> Result<Rc<Keys>, Internal> {
        let asked_with = self.known_revision();
        let keys = stored_keys(env, request).await?;
        self.answered_with_keys_at.set(Some(now));
        // Answers may come in another order than they were given. But what is older than all that was known when it was
        // asked for is the truth: somebody took the object back to an earlier state.
        if let Some(known) = self.keyring.borrow().as_ref()
            && known.value.revision > keys::revision(&keys)
            && Some(known.value.revision) != asked_with
        {
            return Ok(known.value.ring.clone());
        }
        self.keep_keyring(keys, now)
    }

    /// All HPKE keys, the published ones first and in order, with what is no secret. They are listed even if a private
    /// half does not open, because its root key is missing.
    ///
    /// # Errors
    /// Ours.
    pub async fn hpke_keys(&self, env: &Env) -> Result<Vec<KeyInfo>, Internal> {
        let keys = stored_keys(env, &ConfigRequest::ListHpkeKeys).await?;
        Ok(keys.iter().map(StoredHpkeKey::info).collect())
    }

    fn keep_keyring(&self, keys: Vec<StoredHpkeKey>, now: Time) -> Result<Rc<Keys>, Internal> {
        let revision = keys::revision(&keys);
        let ring = keys::keyring(keys, &self.root_keys).map_err(|e| broken("the keyring", e))?;
        let ring = Rc::new(Keys { ring, webcrypto: WebCrypto::default() });
        let known = Known { ring, revision };
        let ring = known.ring.clone();
        *self.keyring.borrow_mut() = Some(Cached { value: known, since: now });
        Ok(ring)
    }

    /// Makes an HPKE key with this id, or a free one. With `force` it is published even if clients may compare the list.
    ///
    /// # Errors
    /// Ours: the outcome is unknown.
    pub async fn make_hpke_key(
        &self,
        env: &Env,
        (id, kem): (Option<HpkeConfigId>, HpkeKem),
        active: bool,
        force: bool,
        now: Time,
    ) -> Result<ChangedKey, Internal> {
        let (request, kem) = (random::bytes(), kem.code());
        self.change_keys(env, KeyRequest::Make { request, id, kem, active, force }, now).await
    }

    /// Takes an HPKE key that was made elsewhere. With `force` it is published even if clients may compare the list.
    ///
    /// # Errors
    /// Ours: the outcome is unknown, and the same key may be imported again.
    pub async fn import_hpke_key(
        &self,
        env: &Env,
        keypair: &HpkeKeypair,
        (active, pinned): (bool, bool),
        force: bool,
        now: Time,
    ) -> Result<ChangedKey, Internal> {
        let sealed = SealedKeypair::seal(keypair, &self.root_keys, random::bytes());
        let keypair = serde_json::to_vec(&sealed).map_err(|e| broken("an HPKE key", e))?;
        self.change_keys(env, KeyRequest::Import { keypair, active, pinned, force }, now).await
    }

    /// Changes an HPKE key, with `force` although it does harm.
    ///
    /// # Errors
    /// Ours: the outcome is unknown, and the change may be tried again.
    pub async fn change_hpke_key(
        &self,
        env: &Env,
        id: HpkeConfigId,
        to: KeyChange,
        force: bool,
        now: Time,
    ) -> Result<ChangedKey, Internal> {
        self.change_keys(env, KeyRequest::Change { id, to, force }, now).await
    }

    /// Publishes the next HPKE key in place of those that are not pinned.
    ///
    /// # Errors
    /// Ours: the outcome is unknown.
    pub async fn rotate_hpke_keys(
        &self,
        env: &Env,
        force: bool,
        now: Time,
    ) -> Result<ChangedKey, Internal> {
        let request = random::bytes();
        self.change_keys(env, KeyRequest::Rotate { request, force }, now).await
    }

    /// The schedule by which HPKE keys come and go, and when they do so next.
    ///
    /// # Errors
    /// Ours.
    pub async fn hpke_policy(&self, env: &Env) -> Result<ScheduledKeys, Internal> {
        match ask(env, &ConfigRequest::Keys(KeyRequest::ReadPolicy)).await? {
            ConfigResponse::Keys(KeyResponse::Policy { policy, next }) => scheduled(policy, next),
            other => Err(unexpected(&other)),
        }
    }

    /// Turns the schedule on or off. With `force` even if clients may compare the list.
    ///
    /// # Errors
    /// Ours: the outcome is unknown, and the same may be tried again.
    pub async fn set_hpke_policy(
        &self,
        env: &Env,
        policy: Option<&Policy>,
        force: bool,
        now: Time,
    ) -> Result<Result<ScheduledKeys, KeyRefusal>, Internal> {
        let policy = policy.map(serde_json::to_vec).transpose().map_err(|e| broken("it", e))?;
        let request = KeyRequest::SetPolicy { policy: policy.map(Into::into), force };
        match ask(env, &ConfigRequest::Keys(request)).await? {
            ConfigResponse::Keys(KeyResponse::Policy { policy, next }) => {
                let _ = self.refresh_keyring(env, now).await;
                scheduled(policy, next).map(Ok)
            }
            ConfigResponse::Keys(KeyResponse::Refused(why)) => Ok(Err(why)),
            other => Err(unexpected(&other)),
        }
    }

    async fn change_keys(
        &self,
        env: &Env,
        request: KeyRequest,
        now: Time,
    ) -> Result<ChangedKey, Internal> {
        match ask(env, &ConfigRequest::Keys(request)).await? {
            ConfigResponse::Keys(KeyResponse::Key { record, is_new }) => {
                // It is stored. That another key does not open is said when it is needed.
                let _ = self.refresh_keyring(env, now).await;
                let key: StoredHpkeKey =
                    serde_json::from_slice(&record).map_err(|e| broken("an HPKE key", e))?;
                Ok(ChangedKey::Key(key.info(), is_new))
            }
            ConfigResponse::Keys(KeyResponse::Refused(why)) => Ok(ChangedKey::Refused(why)),
            other => Err(unexpected(&other)),
        }
    }
}

/// The schedule by which keys come and go.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ScheduledKeys {
    /// The schedule, or `None` if it is off.
    pub policy: Option<Policy>,
    /// When keys change next, by the schedule or because an expired one is destroyed.
    pub next_change: Option<Time>,
}

fn scheduled(
    policy: Option<serde_bytes::ByteBuf>,
    next_change: Option<Time>,
) -> Result<ScheduledKeys, Internal> {
    let policy = policy
        .map(|policy| serde_json::from_slice(&policy))
        .transpose()
        .map_err(|e| broken("the schedule of keys", e))?;
    Ok(ScheduledKeys { policy, next_change })
}

/// Writes the copy that Workers read. For the `ConfigStore`: of several writers, the last might have the oldest keys.
///
/// # Errors
/// KV's.
pub async fn copy(env: &Env, records: &[u8]) -> Result<(), KvError> {
    kv::try_put(env, KV_KEY, records).await
}

async fn stored_keys(env: &Env, request: &ConfigRequest) -> Result<Vec<StoredHpkeKey>, Internal> {
    match ask(env, request).await? {
        ConfigResponse::HpkeKeys(records) => parse(&records),
        other => Err(unexpected(&other)),
    }
}

fn parse(records: &[u8]) -> Result<Vec<StoredHpkeKey>, Internal> {
    serde_json::from_slice(records).map_err(|e| broken("the stored HPKE keys", e))
}
