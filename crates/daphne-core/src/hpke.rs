//! Hybrid public-key encryption (RFC 9180, base mode, one message per context), as DAP seals input shares and
//! aggregate shares with it. DAP-09 §4.4.2 and §4.6.4, DAP-18 §4.4.2.1 and §4.6.7.

use std::fmt;

use hpke_rs::{Hpke, HpkePrivateKey, HpkePublicKey, Mode, hpke_types as types};
use hpke_rs_crypto::HpkeCrypto as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use zeroize::Zeroizing;

use crate::{
    b64,
    codec::{DecodeError, Reader, Writer},
    ids::HpkeConfigId,
    message::HpkeCiphertext,
    version::DapVersion,
};

mod agreement;
mod opener;
mod provider;
pub mod signature;
#[cfg(test)]
mod tests;

pub use agreement::{KeyAgreement, OwnX25519, SharedPoints};
pub use opener::Opener;
use provider::{Once, Seeded};

/// An enum over the code points of a registry of RFC 9180 §7, which keeps those we do not implement.
macro_rules! code_points {
    ($(#[$doc:meta])* $name:ident, $json:literal { $($(#[$vdoc:meta])* $variant:ident = $code:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$vdoc])* $variant,)+
            /// An algorithm we do not implement; a list of configurations may name some.
            Other(u16),
        }

        impl $name {
            /// The algorithm with this code point.
            pub const fn from_code(code: u16) -> Self {
                match code {
                    $($code => Self::$variant,)+
                    other => Self::Other(other),
                }
            }

            /// The code point.
            pub const fn code(self) -> u16 {
                match self {
                    $(Self::$variant => $code,)+
                    Self::Other(code) => code,
                }
            }
        }

        /// JSON: the algorithm's name, or its code point if we do not implement it.
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                match self {
                    $(Self::$variant => s.serialize_str(stringify!($variant)),)+
                    Self::Other(code) => s.serialize_u16(*code),
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                #[derive(Deserialize)]
                #[serde(untagged, expecting = $json)]
                enum Written {
                    Name(String),
                    Code(u16),
                }
                match Written::deserialize(d)? {
                    $(Written::Name(name) if name == stringify!($variant) => Ok(Self::$variant),)+
                    Written::Name(_) => Err(D::Error::custom($json)),
                    Written::Code(code) => Ok(Self::from_code(code)),
                }
            }
        }
    };
}

code_points! {
    /// Key encapsulation mechanisms, RFC 9180 §7.1.
    HpkeKem, "expected the name of an HPKE KEM, such as X25519HkdfSha256" {
        /// ECDH on P-256; public keys are 65 bytes, uncompressed.
        P256HkdfSha256 = 0x0010,
        /// ECDH on Curve25519; public keys are 32 bytes. DAP demands this one.
        X25519HkdfSha256 = 0x0020,
    }
}

code_points! {
    /// Key derivation functions, RFC 9180 §7.2.
    HpkeKdf, "expected the name of an HPKE KDF, such as HkdfSha256" {
        /// HKDF with SHA-256. DAP demands this one.
        HkdfSha256 = 0x0001,
        /// HKDF with SHA-384.
        HkdfSha384 = 0x0002,
        /// HKDF with SHA-512.
        HkdfSha512 = 0x0003,
    }
}

code_points! {
    /// Authenticated encryption, RFC 9180 §7.3.
    HpkeAead, "expected the name of an HPKE AEAD, such as Aes128Gcm" {
        /// AES-128-GCM. DAP demands this one.
        Aes128Gcm = 0x0001,
        /// AES-256-GCM.
        Aes256Gcm = 0x0002,
        /// ChaCha20-Poly1305.
        ChaCha20Poly1305 = 0x0003,
    }
}

impl HpkeKem {
    const fn known(self) -> Option<types::KemAlgorithm> {
        match self {
            Self::P256HkdfSha256 => Some(types::KemAlgorithm::DhKemP256),
            Self::X25519HkdfSha256 => Some(types::KemAlgorithm::DhKem25519),
            Self::Other(_) => None,
        }
    }
}

impl HpkeKdf {
    const fn known(self) -> Option<types::KdfAlgorithm> {
        match self {
            Self::HkdfSha256 => Some(types::KdfAlgorithm::HkdfSha256),
            Self::HkdfSha384 => Some(types::KdfAlgorithm::HkdfSha384),
            Self::HkdfSha512 => Some(types::KdfAlgorithm::HkdfSha512),
            Self::Other(_) => None,
        }
    }
}

impl HpkeAead {
    const fn known(self) -> Option<types::AeadAlgorithm> {
        match self {
            Self::Aes128Gcm => Some(types::AeadAlgorithm::Aes128Gcm),
            Self::Aes256Gcm => Some(types::AeadAlgorithm::Aes256Gcm),
            Self::ChaCha20Poly1305 => Some(types::AeadAlgorithm::ChaCha20Poly1305),
            Self::Other(_) => None,
        }
    }
}

/// A recipient's public key and the algorithms to use with it. DAP-09 §4.4.1, DAP-18 §4.4.1.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HpkeConfig {
    /// The recipient's name for it.
    pub id: HpkeConfigId,
    /// Key encapsulation.
    #[serde(rename = "kem_id")]
    pub kem: HpkeKem,
    /// Key derivation.
    #[serde(rename = "kdf_id")]
    pub kdf: HpkeKdf,
    /// Encryption.
    #[serde(rename = "aead_id")]
    pub aead: HpkeAead,
    /// The encoded public key, undecoded; `1..=65,535` bytes on the wire.
    #[serde(with = "b64::serde_b64")]
    pub public_key: Vec<u8>,
}

impl HpkeConfig {
    /// Whether we implement its three algorithms. The public key may still be malformed, which [`seal`] tells.
    pub const fn is_supported(&self) -> bool {
        self.kem.known().is_some() && self.kdf.known().is_some() && self.aead.known().is_some()
    }

    /// Reads one configuration.
    ///
    /// # Errors
    /// [`DecodeError`], the sender's fault. Unknown algorithms are none.
    pub fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let config = Self {
            id: HpkeConfigId(r.u8()?),
            kem: HpkeKem::from_code(r.u16()?),
            kdf: HpkeKdf::from_code(r.u16()?),
            aead: HpkeAead::from_code(r.u16()?),
            public_key: r.opaque16()?.to_vec(),
        };
        if config.public_key.is_empty() {
            return Err(DecodeError::Invalid("an HPKE configuration has no public key"));
        }
        Ok(config)
    }

    /// Writes one configuration.
    pub fn write(&self, w: &mut Writer) {
        w.u8(self.id.0)
            .u16(self.kem.code())
            .u16(self.kdf.code())
            .u16(self.aead.code())
            .opaque16(&self.public_key);
    }

    fn hpke(&self, prng: Once) -> Option<Hpke<Seeded>> {
        Some(Hpke::new_with_rng(
            Mode::Base,
            self.kem.known()?,
            self.kdf.known()?,
            self.aead.known()?,
            prng,
        ))
    }
}

/// A recipient's configurations, at least one, the preferred first. DAP-09 §4.4.1, DAP-18 §4.4.1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HpkeConfigList(pub Vec<HpkeConfig>);

impl HpkeConfigList {
    /// Reads a list.
    ///
    /// # Errors
    /// [`DecodeError`], the sender's fault; an empty list is one.
    pub fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let configs = crate::codec::items(r.opaque16()?, HpkeConfig::read)?;
        if configs.is_empty() {
            return Err(DecodeError::Invalid("the list of HPKE configurations is empty"));
        }
        Ok(Self(configs))
    }

    /// Writes the list.
    pub fn write(&self, w: &mut Writer) {
        w.list16(|w| self.0.iter().for_each(|config| config.write(w)));
    }
}

/// A key pair cannot be used or made. The fault of whoever configures us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeypairError {
    /// We do not implement its algorithms.
    #[error("the HPKE configuration has an algorithm that is not implemented")]
    Unsupported,
    /// Fewer than 32 bytes to derive from.
    #[error("an HPKE key needs at least 32 random bytes")]
    ShortSeed,
    /// The private key is not one of this KEM, or the public key belongs to another.
    #[error("the HPKE private key does not belong to the public key")]
    Mismatch,
}

/// A configuration with its private key. `Debug` shows the configuration only.
#[derive(Clone)]
pub struct HpkeKeypair {
    config: HpkeConfig,
    private_key: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for HpkeKeypair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HpkeKeypair").field("config", &self.config).finish_non_exhaustive()
    }
}

impl HpkeKeypair {
    /// Derives a key pair from at least 32 random bytes, with HKDF-SHA256 and AES-128-GCM.
    /// RFC 9180 §7.1.3 `DeriveKeyPair`.
    ///
    /// # Errors
    /// [`KeypairError`].
    pub fn derive(id: HpkeConfigId, kem: HpkeKem, ikm: &[u8]) -> Result<Self, KeypairError> {
        if ikm.len() < 32 {
            return Err(KeypairError::ShortSeed);
        }
        let algorithm = kem.known().ok_or(KeypairError::Unsupported)?;
        let private_key =
            provider::derive_private_key(algorithm, ikm).ok_or(KeypairError::Unsupported)?;
        let public_key = Seeded::secret_to_public(algorithm, &private_key)
            .map_err(|_| KeypairError::Mismatch)?;
        let config =
            HpkeConfig { id, kem, kdf: HpkeKdf::HkdfSha256, aead: HpkeAead::Aes128Gcm, public_key };
        Ok(Self { config, private_key })
    }

    /// A key pair from its stored parts.
    ///
    /// # Errors
    /// [`KeypairError`], above all if the public key does not belong to the private key.
    pub fn from_parts(
        config: HpkeConfig,
        private_key: Zeroizing<Vec<u8>>,
    ) -> Result<Self, KeypairError> {
        let (true, Some(kem)) = (config.is_supported(), config.kem.known()) else {
            return Err(KeypairError::Unsupported);
        };
        // Anything longer would say of itself which public key it has.
        if private_key.len() != provider::PRIVATE_KEY_LEN {
            return Err(KeypairError::Mismatch);
        }
        let public_key =
            Seeded::secret_to_public(kem, &private_key).map_err(|_| KeypairError::Mismatch)?;
        if public_key != config.public_key {
            return Err(KeypairError::Mismatch);
        }
        Ok(Self { config, private_key })
    }

    /// The public half.
    pub fn config(&self) -> &HpkeConfig {
        &self.config
    }

    /// The private key, to be sealed. Secret.
    pub fn private_key(&self) -> &[u8] {
        &self.private_key
    }

    /// The JSON of the key pair *with its private key*: `{"config": {..}, "private_key": base64url}`.
    pub fn to_secret_json(&self) -> Zeroizing<String> {
        let text = serde_json::json!({
            "config": self.config,
            "private_key": b64::encode(&self.private_key),
        });
        Zeroizing::new(text.to_string())
    }

    /// Reads what [`HpkeKeypair::to_secret_json`] writes.
    ///
    /// # Errors
    /// One sentence about the JSON or the key pair, never quoting the key.
    pub fn from_secret_json(json: &str) -> Result<Self, String> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Written {
            config: HpkeConfig,
            #[serde(with = "b64::serde_b64")]
            private_key: Vec<u8>,
        }
        // The parser's own message may quote what it read, so only its place is told.
        let written: Written = serde_json::from_str(json).map_err(|e| {
            format!("the HPKE key pair is malformed at line {} column {}", e.line(), e.column())
        })?;
        Self::from_parts(written.config, Zeroizing::new(written.private_key))
            .map_err(|e| e.to_string())
    }
}

/// An owned ciphertext.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SealedMessage {
    /// The configuration it is sealed to.
    pub config_id: HpkeConfigId,
    /// The encapsulated key.
    pub enc: Vec<u8>,
    /// Ciphertext and tag: the plaintext's length and 16.
    pub payload: Vec<u8>,
}

impl SealedMessage {
    /// The same, borrowed.
    #[allow(clippy::should_implement_trait, reason = "the borrowed form is not a reference")]
    pub fn as_ref(&self) -> HpkeCiphertext<'_> {
        HpkeCiphertext { config_id: self.config_id, enc: &self.enc, payload: &self.payload }
    }
}

/// The recipient's configuration cannot be sealed to: the fault of whoever published it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the recipient's HPKE configuration cannot be sealed to")]
pub struct SealError;

/// Seals a message. `seed` is 32 fresh random bytes, never used before: the ephemeral key is a function of it.
///
/// # Errors
/// [`SealError`] if the configuration is unsupported or its public key malformed.
pub fn seal(
    config: &HpkeConfig,
    info: &[u8],
    aad: &[u8],
    plaintext: &[u8],
    seed: &[u8; 32],
) -> Result<SealedMessage, SealError> {
    let public_key = HpkePublicKey::new(config.public_key.clone());
    let mut hpke = config.hpke(Once::new(seed)).ok_or(SealError)?;
    let (enc, payload) =
        hpke.seal(&public_key, info, aad, plaintext, None, None, None).map_err(|_| SealError)?;
    Ok(SealedMessage { config_id: config.id, enc, payload })
}

/// A ciphertext does not open, whatever the reason. The sender's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the ciphertext does not open")]
pub struct OpenError;

/// Opens one message; an [`Opener`] is for many. The caller has chosen the key pair by the ciphertext's configuration id.
///
/// # Errors
/// [`OpenError`] for whatever bytes do not open, also malformed or low-order encapsulated keys.
pub fn open(
    keypair: &HpkeKeypair,
    info: &[u8],
    aad: &[u8],
    ciphertext: HpkeCiphertext<'_>,
) -> Result<Vec<u8>, OpenError> {
    Opener::new(keypair, info).open(aad, ciphertext)
}

/// As [`open`], for any suite.
fn open_with_hpke_rs(
    keypair: &HpkeKeypair,
    info: &[u8],
    aad: &[u8],
    ciphertext: HpkeCiphertext<'_>,
) -> Result<Vec<u8>, OpenError> {
    // A compressed point would be another spelling of the same key, which RFC 9180 §7.1.1 does not have.
    if ciphertext.enc.len() != keypair.config.public_key.len() {
        return Err(OpenError);
    }
    let private_key = provider::opening_key(&keypair.private_key, &keypair.config.public_key);
    let private_key = HpkePrivateKey::new(private_key);
    keypair
        .config
        .hpke(Once::empty())
        .ok_or(OpenError)?
        .open(ciphertext.enc, &private_key, info, aad, ciphertext.payload, None, None, None)
        .map_err(|_| OpenError)
}

/// A party of the protocol, with its code point. DAP-09 §4, DAP-18 §4.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Asks for results.
    Collector = 0,
    /// Contributes measurements.
    Client = 1,
    /// The aggregator that receives reports and runs the jobs.
    Leader = 2,
    /// The other aggregator.
    Helper = 3,
}

/// HPKE's `info` for an input share sealed by a client to an aggregator. DAP-09 §4.4.2, DAP-18 §4.4.2.1.
pub fn input_share_info(version: DapVersion, receiver: Role) -> Vec<u8> {
    info(version, " input share", [Role::Client, receiver])
}

/// HPKE's `info` for an aggregate share sealed by an aggregator to the collector. DAP-09 §4.6.4, DAP-18 §4.6.7.
pub fn aggregate_share_info(version: DapVersion, sender: Role) -> Vec<u8> {
    info(version, " aggregate share", [sender, Role::Collector])
}

fn info(version: DapVersion, what: &str, parties: [Role; 2]) -> Vec<u8> {
    let [sender, receiver] = parties.map(|role| role as u8);
    [version.tag().as_bytes(), what.as_bytes(), &[sender, receiver]].concat()
}
