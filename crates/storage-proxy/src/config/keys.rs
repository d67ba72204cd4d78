//! HPKE keys.

use std::rc::Rc;

use daphne_core::{
    aggregate::helper::HpkeKeyring,
    b64,
    error::Internal,
    hpke::{HpkeConfig, HpkeKem, HpkeKeypair},
    ids::HpkeConfigId,
    store::config_store::{ConfigRequest, ConfigResponse},
    time::Time,
};
use serde::{Deserialize, Serialize};
use worker::Env;
use zeroize::Zeroizing;

use super::{Cached, Config, Created, ask, broken, kv, unexpected};
use crate::random;

const HPKE_KV_KEY: &str = "hpke";

/// An HPKE key pair at rest.
#[derive(Serialize, Deserialize)]
struct StoredHpkeKey {
    config: HpkeConfig,
    #[serde(with = "b64::serde_b64")]
    sealed_private_key: Vec<u8>,
}

fn hpke_label(id: HpkeConfigId) -> String {
    format!("private key of HPKE configuration {id}")
}

impl Config {
    /// Our HPKE keys in published order: newest first.
    ///
    /// # Errors
    /// Ours.
    pub async fn keyring(&self, env: &Env, now: Time) -> Result<Rc<HpkeKeyring>, Internal> {
        if let Some(ring) = self.keyring.borrow().as_ref().and_then(|c| c.fresh(now)) {
            return Ok(ring);
        }
        let cached = kv::get(env, HPKE_KV_KEY)
            .await
            .and_then(|value| serde_json::from_slice(&value).ok())
            .and_then(|records| self.keep_keyring(records, now).ok());
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
            let newest = self.keyring.borrow().as_ref().map(|cached| cached.value.clone());
            return Ok(newest.unwrap_or(ring));
        }
        self.refresh_keyring(env, now).await
    }

    /// Our HPKE keys as the `ConfigStore` has them.
    ///
    /// # Errors
    /// Ours.
    pub async fn refresh_keyring(&self, env: &Env, now: Time) -> Result<Rc<HpkeKeyring>, Internal> {
        let records = self.stored_keys(env).await?;
        self.answered_with_keys_at.set(Some(now));
        // Clients can cause refreshes, and a write to KV is what costs: only news is written.
        let is_news = self.keyring.borrow().as_ref().is_none_or(|cached| {
            !cached.value.keys().iter().map(|k| k.config()).eq(records.iter().map(|r| &r.config))
        });
        if is_news && !records.is_empty() {
            let value = serde_json::to_vec(&records).map_err(|e| broken("HPKE keys", e))?;
            kv::put(env, HPKE_KV_KEY, &value).await;
        }
        self.keep_keyring(records, now)
    }

    /// The public halves of our HPKE keys, newest first. They are listed even if a private half does not open, because
    /// its root key is missing.
    ///
    /// # Errors
    /// Ours.
    pub async fn hpke_configs(&self, env: &Env) -> Result<Vec<HpkeConfig>, Internal> {
        Ok(self.stored_keys(env).await?.into_iter().map(|key| key.config).collect())
    }

    async fn stored_keys(&self, env: &Env) -> Result<Vec<StoredHpkeKey>, Internal> {
        match ask(env, &ConfigRequest::ListHpkeKeys).await? {
            ConfigResponse::HpkeKeys(keys) => keys
                .iter()
                .rev()
                .map(|(_, record)| {
                    serde_json::from_slice(record).map_err(|e| broken("a stored HPKE key", e))
                })
                .collect(),
            other => Err(unexpected(&other)),
        }
    }

    fn keep_keyring(
        &self,
        records: Vec<StoredHpkeKey>,
        now: Time,
    ) -> Result<Rc<HpkeKeyring>, Internal> {
        let mut keys = Vec::with_capacity(records.len());
        for record in records {
            let private_key = self
                .root_keys
                .open(&hpke_label(record.config.id), &record.sealed_private_key)
                .map_err(|e| broken("an HPKE key", e))?;
            keys.push(
                HpkeKeypair::from_parts(record.config, private_key)
                    .map_err(|e| broken("an HPKE key", e))?,
            );
        }
        let ring = Rc::new(HpkeKeyring::new(keys));
        *self.keyring.borrow_mut() = Some(Cached { value: ring.clone(), since: now });
        Ok(ring)
    }

    /// Makes and stores an HPKE key with this id, or the lowest free one.
    ///
    /// # Errors
    /// Ours.
    pub async fn create_hpke_key(
        &self,
        env: &Env,
        id: Option<HpkeConfigId>,
        kem: HpkeKem,
        now: Time,
    ) -> Result<Created<HpkeConfig>, Internal> {
        let used: Vec<HpkeConfigId> =
            self.stored_keys(env).await?.iter().map(|k| k.config.id).collect();
        let free = (0..=u8::MAX).map(HpkeConfigId).find(|id| !used.contains(id));
        let Some(id) = id.or(free).filter(|id| !used.contains(id)) else {
            return Ok(Created::Conflict);
        };
        let ikm: Zeroizing<[u8; 64]> = Zeroizing::new(random::bytes());
        let keypair =
            HpkeKeypair::derive(id, kem, ikm.as_slice()).map_err(|e| broken("an HPKE key", e))?;
        let stored = StoredHpkeKey {
            config: keypair.config().clone(),
            sealed_private_key: self.root_keys.seal(
                &hpke_label(id),
                keypair.private_key(),
                random::bytes(),
            ),
        };
        let record = serde_json::to_vec(&stored).map_err(|e| broken("an HPKE key", e))?;
        match ask(env, &ConfigRequest::AddHpkeKey { id: id.0, record }).await? {
            ConfigResponse::Added => {
                // It is stored. That another key does not open is said when it is needed.
                let _ = self.refresh_keyring(env, now).await;
                Ok(Created::Now(stored.config))
            }
            ConfigResponse::Conflict => Ok(Created::Conflict),
            other => Err(unexpected(&other)),
        }
    }
}
