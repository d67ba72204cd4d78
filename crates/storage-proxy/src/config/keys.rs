//! HPKE keys.

use std::rc::Rc;

use daphne_core::{
    aggregate::helper::HpkeKeyring,
    error::Internal,
    hpke::{HpkeKem, HpkeKeypair},
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
use worker::Env;

use super::{Cached, Config, ask, broken, kv, unexpected};
use crate::random;

const KV_KEY: &str = "hpke";

/// HPKE keys as an isolate knows them.
#[derive(Clone, Debug)]
pub(super) struct Known {
    ring: Rc<HpkeKeyring>,
    /// The records, as they were read.
    records: Rc<[u8]>,
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
    pub async fn keyring(&self, env: &Env, now: Time) -> Result<Rc<HpkeKeyring>, Internal> {
        if let Some(known) = self.keyring.borrow().as_ref().and_then(|c| c.fresh(now)) {
            return Ok(known.ring);
        }
        let cached =
            kv::get(env, KV_KEY).await.and_then(|records| self.keep_keyring(records, now).ok());
        match cached {
            Some(ring) => Ok(ring),
            None => self.refresh_keyring(env, now).await,
        }
    }

    /// Our HPKE keys, for a report sealed to one that `ring` does not have: as the `ConfigStore` has them, unless it
    /// answered within this second. Clients can cause this with each report.
    ///
    /// # Errors
    /// Ours.
    pub async fn keyring_beyond(
        &self,
        ring: Rc<HpkeKeyring>,
        env: &Env,
        now: Time,
    ) -> Result<Rc<HpkeKeyring>, Internal> {
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
    pub async fn refresh_keyring(&self, env: &Env, now: Time) -> Result<Rc<HpkeKeyring>, Internal> {
        let records = stored_keys(env).await?;
        self.answered_with_keys_at.set(Some(now));
        // Clients can cause refreshes, and a write to KV is what costs: only news is written.
        let is_news =
            self.keyring.borrow().as_ref().is_none_or(|known| *known.value.records != *records);
        let ring = self.keep_keyring(records.clone(), now)?;
        // A deployment that is being set up makes its first key any moment now.
        if is_news && ring.published().next().is_some() {
            publish(env, &records).await;
        }
        Ok(ring)
    }

    /// All HPKE keys, the published ones first and in order, with what is no secret. They are listed even if a private
    /// half does not open, because its root key is missing.
    ///
    /// # Errors
    /// Ours.
    pub async fn hpke_keys(&self, env: &Env) -> Result<Vec<KeyInfo>, Internal> {
        Ok(parse(&stored_keys(env).await?)?.iter().map(StoredHpkeKey::info).collect())
    }

    fn keep_keyring(&self, records: Vec<u8>, now: Time) -> Result<Rc<HpkeKeyring>, Internal> {
        let ring = keys::keyring(parse(&records)?, &self.root_keys)
            .map_err(|e| broken("the keyring", e))?;
        let known = Known { ring: Rc::new(ring), records: records.into() };
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

/// Gives Workers the keys as they are now: what they copied before would otherwise be good for an hour.
pub async fn publish(env: &Env, records: &[u8]) {
    kv::put(env, KV_KEY, records).await;
}

async fn stored_keys(env: &Env) -> Result<Vec<u8>, Internal> {
    match ask(env, &ConfigRequest::ListHpkeKeys).await? {
        ConfigResponse::HpkeKeys(records) => Ok(records),
        other => Err(unexpected(&other)),
    }
}

fn parse(records: &[u8]) -> Result<Vec<StoredHpkeKey>, Internal> {
    serde_json::from_slice(records).map_err(|e| broken("the stored HPKE keys", e))
}
