//! HPKE keys.

use daphne_core::{
    b64,
    codec::Writer,
    hpke::{HpkeConfig, HpkeKem, HpkeKeypair},
    ids::HpkeConfigId,
    store::config_store::keys::KeyInfo,
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
        self.make_hpke_key(id, kem, true).map(|key| key.config)
    }

    /// Makes a new HPKE key, active or pending.
    ///
    /// # Errors
    /// [`ClientError`]; status 409 if the id is taken.
    pub fn make_hpke_key(
        &self,
        id: Option<HpkeConfigId>,
        kem: Option<HpkeKem>,
        active: bool,
    ) -> Result<KeyInfo, ClientError> {
        #[derive(Serialize)]
        struct NewKey {
            #[serde(skip_serializing_if = "Option::is_none")]
            id: Option<HpkeConfigId>,
            #[serde(skip_serializing_if = "Option::is_none")]
            kem: Option<HpkeKem>,
            state: &'static str,
        }
        let state = if active { "active" } else { "pending" };
        let body = serde_json::to_vec(&NewKey { id, kem, state })
            .map_err(|_| ClientError::Protocol("the key cannot be written as JSON".into()))?;
        json(&self.send(Method::POST, "admin/hpke_keys", Some(&body))?.expect(&[201], None)?)
    }

    /// Gives the helper an HPKE key that was made elsewhere. `pinned` means active, too.
    ///
    /// # Errors
    /// [`ClientError`]; status 409 if another key has the id.
    pub fn import_hpke_key(
        &self,
        keypair: &HpkeKeypair,
        active: bool,
        pinned: bool,
    ) -> Result<ImportedKey, ClientError> {
        let unwritable = || ClientError::Protocol("the key cannot be written as JSON".into());
        let mut w = Writer::new();
        keypair.config().write(&mut w);
        let body = json!({
            "config": b64::encode(&w.finish().map_err(|_| unwritable())?),
            "private_key": b64::encode(keypair.private_key()),
            "state": if active || pinned { "active" } else { "pending" },
            "pinned": pinned,
        });
        let body = Zeroizing::new(serde_json::to_vec(&body).map_err(|_| unwritable())?);
        let answer =
            self.send(Method::POST, "admin/hpke_keys", Some(&body))?.expect(&[200, 201], None)?;
        Ok(ImportedKey { created: answer.status == 201, key: json(&answer)? })
    }

    /// Publishes a key, or publishes it no longer; with `force` even if no other is left.
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

    /// Pins a key, or unpins it.
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
