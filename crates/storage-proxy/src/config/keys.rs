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
            self, KeyChange, KeyInfo, KeyRefusal, KeyRequest, KeyResponse, SealedKeypair,
            StoredHpkeKey,
        },
    },
    time::Time,
};
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
            kv::put(env, KV_KEY, &records).await;
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

    /// Makes an HPKE key with this id, or a free one.
    ///
    /// # Errors
    /// Ours: the outcome is unknown.
    pub async fn make_hpke_key(
        &self,
        env: &Env,
        id: Option<HpkeConfigId>,
        kem: HpkeKem,
        active: bool,
        now: Time,
    ) -> Result<ChangedKey, Internal> {
        let request = KeyRequest::Make { request: random::bytes(), id, kem: kem.code(), active };
        self.change_keys(env, request, now).await
    }

    /// Takes an HPKE key that was made elsewhere.
    ///
    /// # Errors
    /// Ours: the outcome is unknown, and the same key may be imported again.
    pub async fn import_hpke_key(
        &self,
        env: &Env,
        keypair: &HpkeKeypair,
        active: bool,
        pinned: bool,
        now: Time,
    ) -> Result<ChangedKey, Internal> {
        let sealed = SealedKeypair::seal(keypair, &self.root_keys, random::bytes());
        let keypair = serde_json::to_vec(&sealed).map_err(|e| broken("an HPKE key", e))?;
        self.change_keys(env, KeyRequest::Import { keypair, active, pinned }, now).await
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

async fn stored_keys(env: &Env) -> Result<Vec<u8>, Internal> {
    match ask(env, &ConfigRequest::ListHpkeKeys).await? {
        ConfigResponse::HpkeKeys(records) => Ok(records),
        other => Err(unexpected(&other)),
    }
}

fn parse(records: &[u8]) -> Result<Vec<StoredHpkeKey>, Internal> {
    serde_json::from_slice(records).map_err(|e| broken("the stored HPKE keys", e))
}
