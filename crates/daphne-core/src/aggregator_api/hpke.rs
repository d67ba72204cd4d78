//! HPKE keys as the aggregator API names them.

use serde::{Deserialize, Serialize};

use crate::{
    hpke::{HpkeAead, HpkeConfig, HpkeKdf, HpkeKem},
    store::config_store::keys::{KeyChange, KeyInfo, KeyState},
    task::TaskError,
};

/// Where a key is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HpkeState {
    /// [`KeyState::Pending`].
    Pending,
    /// [`KeyState::Active`].
    Active,
    /// [`KeyState::Expired`].
    Expired,
}

/// A key as it is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HpkeConfigView {
    config: HpkeConfig,
    state: HpkeState,
}

impl HpkeConfigView {
    /// `None` of a key that is destroyed: to a control plane it does not exist.
    pub fn of(key: KeyInfo) -> Option<Self> {
        let state = match key.state {
            KeyState::Pending => HpkeState::Pending,
            KeyState::Active { .. } => HpkeState::Active,
            KeyState::Expired { .. } => HpkeState::Expired,
            KeyState::Destroyed => return None,
        };
        Some(Self { config: key.config, state })
    }

    /// The key's id.
    pub fn id(&self) -> crate::ids::HpkeConfigId {
        self.config.id
    }

    /// Where it is in its life.
    pub const fn state(&self) -> HpkeState {
        self.state
    }
}

/// Asks for a new key.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct NewHpkeConfig {
    kem_id: Option<HpkeKem>,
    kdf_id: Option<HpkeKdf>,
    aead_id: Option<HpkeAead>,
}

impl NewHpkeConfig {
    /// The key encapsulation to make a key for.
    ///
    /// # Errors
    /// The control plane's fault: algorithms that our keys do not have.
    pub fn kem(&self) -> Result<HpkeKem, TaskError> {
        let kem = self.kem_id.unwrap_or(HpkeKem::X25519HkdfSha256);
        if !matches!(kem, HpkeKem::X25519HkdfSha256 | HpkeKem::P256HkdfSha256) {
            return Err(TaskError::new("kem_id must be X25519HkdfSha256 or P256HkdfSha256"));
        }
        if self.kdf_id.is_some_and(|kdf| kdf != HpkeKdf::HkdfSha256)
            || self.aead_id.is_some_and(|aead| aead != HpkeAead::Aes128Gcm)
        {
            return Err(TaskError::new("kdf_id must be HkdfSha256, and aead_id Aes128Gcm"));
        }
        Ok(kem)
    }
}

/// Asks for a change of a key.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct PatchHpkeConfig {
    state: HpkeState,
}

impl PatchHpkeConfig {
    /// The step to take for a key that is in `state`; `None` if there is none to take.
    ///
    /// # Errors
    /// The control plane's fault: a key that clients may have seen does not become pending again.
    pub fn change(&self, state: HpkeState) -> Result<Option<KeyChange>, TaskError> {
        match (self.state, state) {
            (wanted, state) if wanted == state => Ok(None),
            (HpkeState::Active, _) => Ok(Some(KeyChange::Activate)),
            (HpkeState::Expired, _) => Ok(Some(KeyChange::Expire)),
            (HpkeState::Pending, _) => Err(TaskError::new(
                "a key that was published does not become pending again; expire it, and activate it if it is to come back",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_go_forwards_only() {
        use HpkeState::{Active, Expired, Pending};
        let change = |to, from| PatchHpkeConfig { state: to }.change(from);
        assert_eq!(change(Active, Pending), Ok(Some(KeyChange::Activate)));
        assert_eq!(change(Expired, Active), Ok(Some(KeyChange::Expire)));
        assert_eq!(change(Active, Expired), Ok(Some(KeyChange::Activate)));
        for state in [Active, Expired, Pending] {
            assert_eq!(change(state, state), Ok(None));
        }
        assert!(change(Pending, Active).is_err() && change(Pending, Expired).is_err());
    }

    #[test]
    fn only_keys_that_we_can_make_are_made() {
        let kem = |json: &str| serde_json::from_str::<NewHpkeConfig>(json).unwrap().kem();
        assert_eq!(kem("{}"), Ok(HpkeKem::X25519HkdfSha256));
        assert_eq!(
            kem(r#"{"kem_id":"P256HkdfSha256","kdf_id":null}"#),
            Ok(HpkeKem::P256HkdfSha256)
        );
        for bad in
            [r#"{"kem_id":18}"#, r#"{"kdf_id":"HkdfSha512"}"#, r#"{"aead_id":"ChaCha20Poly1305"}"#]
        {
            assert!(kem(bad).is_err(), "{bad}");
        }
    }
}
