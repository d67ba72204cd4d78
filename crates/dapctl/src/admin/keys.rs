//! HPKE keys.

use daphne_core::{
    b64,
    codec::Writer,
    hpke::{HpkeConfig, HpkeKem, HpkeKeypair},
    ids::HpkeConfigId,
    store::config_store::keys::{KeyInfo, Policy},
    time::Time,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use ureq::http::Method;
use zeroize::Zeroizing;

use super::{AdminClient, json};
use crate::http::ClientError;

/// What became of an import.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportedKey {
    /// Whether the key is new; otherwise it was there.
    pub created: bool,
    /// The key.
    pub key: KeyInfo,
}

/// The schedule by which HPKE keys come and go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScheduledKeys {
    /// The schedule, or `None` if it is off.
    pub policy: Option<Policy>,
    /// When keys change next, by the schedule or because an expired one is destroyed.
    pub next_change: Option<Time>,
}

impl AdminClient {
    /// All HPKE keys, the published ones first, in the order of the published list.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn hpke_keys(&self) -> Result<Vec<KeyInfo>, ClientError> {
        #[derive(Deserialize)]
        struct Keys {
            keys: Vec<KeyInfo>,
        }
        Ok(self.get::<Keys>("admin/hpke_keys")?.keys)
    }

    /// Makes a new HPKE key, by default with a free id and X25519, and publishes its configuration.
    ///
    /// # Errors
    /// [`ClientError`]; status 409 if the id is taken.
    pub fn add_hpke_key(
        &self,
        id: Option<HpkeConfigId>,
        kem: Option<HpkeKem>,
    ) -> Result<HpkeConfig, ClientError> {
        self.make_hpke_key(id, kem, true, false).map(|key| key.config)
    }

    /// Makes a new HPKE key, active or pending; with `force` it is published even if clients may compare the list.
    ///
    /// # Errors
    /// [`ClientError`]; status 409, with a sentence, if the id is taken, or a key is pinned.
    pub fn make_hpke_key(
        &self,
        id: Option<HpkeConfigId>,
        kem: Option<HpkeKem>,
        active: bool,
        force: bool,
    ) -> Result<KeyInfo, ClientError> {
        let mut body =
            json!({ "state": if active { "active" } else { "pending" }, "force": force });
        if let Some(id) = id {
            body["id"] = json!(id);
        }
        if let Some(kem) = kem {
            body["kem"] = json!(kem);
        }
        let body = body.to_string();
        let answer = self.send(Method::POST, "admin/hpke_keys", Some(body.as_bytes()))?;
        json(&answer.expect(&[201], None)?)
    }

    /// Gives the helper an HPKE key that was made elsewhere. `pinned` means active, too.
    ///
    /// # Errors
    /// [`ClientError`]; status 409, with a sentence, if another key has the id, or a key is pinned.
    pub fn import_hpke_key(
        &self,
        keypair: &HpkeKeypair,
        active: bool,
        pinned: bool,
    ) -> Result<ImportedKey, ClientError> {
        self.import(keypair, active, pinned, false)
    }

    /// As [`AdminClient::import_hpke_key`], even if clients may compare the list.
    ///
    /// # Errors
    /// [`ClientError`]; status 409, with a sentence, if another key has the id.
    pub fn force_import_hpke_key(
        &self,
        keypair: &HpkeKeypair,
        active: bool,
        pinned: bool,
    ) -> Result<ImportedKey, ClientError> {
        self.import(keypair, active, pinned, true)
    }

    fn import(
        &self,
        keypair: &HpkeKeypair,
        active: bool,
        pinned: bool,
        force: bool,
    ) -> Result<ImportedKey, ClientError> {
        let unwritable = || ClientError::Protocol("the key cannot be written as JSON".into());
        let mut w = Writer::new();
        keypair.config().write(&mut w);
        let body = json!({
            "config": b64::encode(&w.finish().map_err(|_| unwritable())?),
            "private_key": b64::encode(keypair.private_key()),
            "state": if active || pinned { "active" } else { "pending" },
            "pinned": pinned,
            "force": force,
        });
        let body = Zeroizing::new(serde_json::to_vec(&body).map_err(|_| unwritable())?);
        let answer =
            self.send(Method::POST, "admin/hpke_keys", Some(&body))?.expect(&[200, 201], None)?;
        Ok(ImportedKey { created: answer.status == 201, key: json(&answer)? })
    }

    /// Publishes a key, or publishes it no longer; with `force` even if a key is pinned, or no other is left.
    ///
    /// # Errors
    /// [`ClientError`]; status 404 or 409, with a sentence, if the key is not there or cannot be changed so.
    pub fn set_hpke_key_state(
        &self,
        id: HpkeConfigId,
        active: bool,
        force: bool,
    ) -> Result<KeyInfo, ClientError> {
        let state = if active { "active" } else { "expired" };
        self.patch_key(id, &json!({ "state": state, "force": force }))
    }

    /// Pins a key, or unpins it; with `force` even if the schedule publishes others.
    ///
    /// # Errors
    /// [`ClientError`]; status 404 or 409, with a sentence, if the key is not there or cannot be pinned.
    pub fn pin_hpke_key(
        &self,
        id: HpkeConfigId,
        pinned: bool,
        force: bool,
    ) -> Result<KeyInfo, ClientError> {
        self.patch_key(id, &json!({ "pinned": pinned, "force": force }))
    }

    /// Publishes the next key, a pending one or else a new one, in place of those that are not pinned.
    ///
    /// # Errors
    /// [`ClientError`]; status 409, with a sentence, if a key is pinned.
    pub fn rotate_hpke_keys(&self, force: bool) -> Result<KeyInfo, ClientError> {
        let body = json!({ "force": force }).to_string();
        let answer = self.send(Method::POST, "admin/hpke_rotation", Some(body.as_bytes()))?;
        json(&answer.expect(&[200], None)?)
    }

    /// The schedule by which keys come and go.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn hpke_policy(&self) -> Result<ScheduledKeys, ClientError> {
        self.get("admin/hpke_policy")
    }

    /// Turns the schedule on or off; with `force` even if a key is pinned.
    ///
    /// # Errors
    /// [`ClientError`]; status 400, with a sentence, if it cannot be kept; 409 if a key is pinned.
    pub fn set_hpke_policy(
        &self,
        policy: Option<&Policy>,
        force: bool,
    ) -> Result<ScheduledKeys, ClientError> {
        let body = json!({ "policy": policy, "force": force }).to_string();
        let answer = self.send(Method::PUT, "admin/hpke_policy", Some(body.as_bytes()))?;
        json(&answer.expect(&[200], None)?)
    }

    fn patch_key(&self, id: HpkeConfigId, wish: &Value) -> Result<KeyInfo, ClientError> {
        let body = wish.to_string();
        let path = format!("admin/hpke_keys/{id}");
        json(&self.send(Method::PATCH, &path, Some(body.as_bytes()))?.expect(&[200], None)?)
    }

    /// Destroys a key's private half; with `force` even if it may be needed.
    ///
    /// # Errors
    /// [`ClientError`]; status 404 or 409, with a sentence, if the key is not there or may be needed.
    pub fn destroy_hpke_key(&self, id: HpkeConfigId, force: bool) -> Result<KeyInfo, ClientError> {
        let query = if force { "?force=true" } else { "" };
        let path = format!("admin/hpke_keys/{id}{query}");
        json(&self.send(Method::DELETE, &path, None)?.expect(&[200], None)?)
    }
}
