//! Secrets at rest, and bearer tokens.
//!
//! HPKE private keys and verification keys are stored encrypted under a root secret that only the deployment
//! has, so that reading the storage does not open reports. Several roots can be present at once: the newest
//! seals, each opens what it sealed.

use std::{collections::BTreeMap, fmt};

use aes_gcm::{
    Aes256Gcm,
    aead::{Aead as _, KeyInit as _, Payload},
};
use hkdf::Hkdf;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::{b64, ids::TaskId};

// One label per use, so that no two uses share a key. Changing one makes stored secrets unreadable.
const SEALING_KEY: &[u8] = b"daphne-edge sealing key";
const SHARD_KEY: &[u8] = b"daphne-edge shard key";
const TOKEN_NAME: &[u8] = b"daphne-edge token name";

const NONCE_LEN: usize = 12;
const TAG_LEN: usize = 16;

/// The text is not a list of root keys: the fault of whoever configures us. Never quotes the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the root keys must be `version=key`, separated by commas, each version a different number and each key \
     32 bytes in base64url without padding"
)]
pub struct RootKeysError;

/// A sealed secret does not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnsealError {
    /// Its root key is not, or no longer, among ours.
    #[error("the secret was sealed under root key {0}, which is not configured")]
    UnknownVersion(u32),
    /// It was changed, is another secret than the label says, or the root key of that version is another.
    #[error("the sealed secret does not open")]
    Broken,
}

/// The deployment's root secrets by version. `Debug` shows the versions only.
#[derive(Clone)]
pub struct RootKeys {
    newest: u32,
    roots: BTreeMap<u32, Root>,
}

/// The keys derived from one root, which itself is not kept.
#[derive(Clone)]
struct Root {
    sealing: Zeroizing<[u8; 32]>,
    shard: Zeroizing<[u8; 32]>,
}

impl fmt::Debug for RootKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RootKeys").field(&self.roots.keys()).finish()
    }
}

impl RootKeys {
    /// Reads `1=<base64url of 32 bytes>[,2=..]`. Spaces around items are ignored; versions are in `0..2^32`.
    ///
    /// # Errors
    /// [`RootKeysError`].
    pub fn parse(text: &str) -> Result<Self, RootKeysError> {
        let mut roots = BTreeMap::new();
        for item in text.split(',') {
            let (version, key) = item.trim().split_once('=').ok_or(RootKeysError)?;
            // `u32::from_str` also takes a plus sign, which would be a second spelling.
            if !version.bytes().all(|b| b.is_ascii_digit()) {
                return Err(RootKeysError);
            }
            let version = version.parse().map_err(|_| RootKeysError)?;
            let root = Zeroizing::new(b64::decode_array::<32>(key).ok_or(RootKeysError)?);
            if roots.insert(version, Root::derive(&root)).is_some() {
                return Err(RootKeysError);
            }
        }
        let newest = *roots.keys().next_back().ok_or(RootKeysError)?;
        Ok(Self { newest, roots })
    }

    /// The highest version, which new things use.
    pub const fn newest(&self) -> u32 {
        self.newest
    }

    /// Encrypts a secret under the newest root. `label` says what it is and whose, and must be given again to
    /// open it, so that one stored secret cannot take the place of another. `nonce` is 12 fresh random bytes.
    ///
    /// Returns the version (4 bytes, big-endian), the nonce, the ciphertext and a tag of 16 bytes.
    pub fn seal(&self, label: &str, plaintext: &[u8], nonce: [u8; NONCE_LEN]) -> Vec<u8> {
        let version = self.newest.to_be_bytes();
        // Unwrap safety: `parse` makes `newest` a key of `roots`, and AES-GCM refuses only beyond 64 GiB.
        let root = self.roots.get(&self.newest).unwrap();
        let aad = associated_data(version, label);
        let sealed =
            root.cipher().encrypt(&nonce.into(), Payload { msg: plaintext, aad: &aad }).unwrap();
        [&version[..], &nonce, &sealed].concat()
    }

    /// Decrypts what [`RootKeys::seal`] returned for the same label.
    ///
    /// # Errors
    /// [`UnsealError`]: ours, or of whoever wrote into the storage.
    pub fn open(&self, label: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, UnsealError> {
        let (version, rest) = sealed.split_first_chunk::<4>().ok_or(UnsealError::Broken)?;
        let (nonce, ciphertext) =
            rest.split_first_chunk::<NONCE_LEN>().ok_or(UnsealError::Broken)?;
        if ciphertext.len() < TAG_LEN {
            return Err(UnsealError::Broken);
        }
        let number = u32::from_be_bytes(*version);
        let root = self.roots.get(&number).ok_or(UnsealError::UnknownVersion(number))?;
        let aad = associated_data(*version, label);
        root.cipher()
            .decrypt(&(*nonce).into(), Payload { msg: ciphertext, aad: &aad })
            .map(Zeroizing::new)
            .map_err(|_| UnsealError::Broken)
    }

    /// What was sealed under an older root, sealed under the newest; `None` if it is already. `nonce` as for
    /// [`RootKeys::seal`].
    ///
    /// # Errors
    /// [`UnsealError`], as for [`RootKeys::open`].
    pub fn reseal(
        &self,
        label: &str,
        sealed: &[u8],
        nonce: [u8; NONCE_LEN],
    ) -> Result<Option<Vec<u8>>, UnsealError> {
        if sealed_version(sealed) == Some(self.newest) {
            return Ok(None);
        }
        let plaintext = self.open(label, sealed)?;
        Ok(Some(self.seal(label, &plaintext, nonce)))
    }

    /// All versions, ascending.
    pub fn versions(&self) -> impl Iterator<Item = u32> {
        self.roots.keys().copied()
    }

    /// The key, of 16 bytes, that spreads a task's reports over its storage objects, or `None` without that
    /// root. Clients choose report ids, and without the key cannot aim them at one object.
    pub fn shard_key(&self, version: u32, task_id: &TaskId) -> Option<[u8; 16]> {
        let root = self.roots.get(&version)?;
        Some(hkdf(&*root.shard, task_id.as_bytes(), SHARD_KEY))
    }
}

/// The version of the root key under which something was sealed; `None` if it was not.
pub fn sealed_version(sealed: &[u8]) -> Option<u32> {
    sealed.first_chunk().map(|version| u32::from_be_bytes(*version))
}

impl Root {
    fn derive(root: &[u8; 32]) -> Self {
        Self {
            sealing: Zeroizing::new(hkdf(root, &[], SEALING_KEY)),
            shard: Zeroizing::new(hkdf(root, &[], SHARD_KEY)),
        }
    }

    fn cipher(&self) -> Aes256Gcm {
        Aes256Gcm::new(&(*self.sealing).into())
    }
}

fn hkdf<const N: usize>(key: &[u8], salt: &[u8], label: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    // Unwrap safety: HKDF-SHA256 refuses only outputs beyond 8,160 bytes.
    Hkdf::<Sha256>::new(Some(salt), key).expand(label, &mut out).unwrap();
    out
}

fn associated_data(version: [u8; 4], label: &str) -> Vec<u8> {
    [&version[..], label.as_bytes()].concat()
}

/// What we store of a bearer token: its SHA-256, 32 bytes. Tokens are long and random, so no slower hash is
/// needed. JSON: base64url.
#[derive(Clone, Copy)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    /// Hashes a token.
    pub fn of(token: &str) -> Self {
        Self(Sha256::digest(token.as_bytes()).into())
    }

    /// Whether this token was presented, in time that does not depend on where they differ.
    pub fn matches(&self, presented: &str) -> bool {
        self.0.ct_eq(&Self::of(presented).0).into()
    }

    /// A short name that tells a token from its owner's others and says nothing of it: 8 hexadecimal digits.
    pub fn name(&self) -> String {
        let [a, b, c, d, ..]: [u8; 32] =
            Sha256::digest([TOKEN_NAME, self.0.as_slice()].concat()).into();
        format!("{:08x}", u32::from_be_bytes([a, b, c, d]))
    }
}

/// Prints the type's name: a hash of a weak token could be reversed.
impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash")
    }
}

impl PartialEq for TokenHash {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for TokenHash {}

impl Serialize for TokenHash {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        b64::serde_b64::serialize(&self.0, s)
    }
}

impl<'de> Deserialize<'de> for TokenHash {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        b64::serde_b64::deserialize(d)?
            .try_into()
            .map(Self)
            .map_err(|_| D::Error::custom("expected 32 bytes"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE";
    const TWO: &str = "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI";

    fn keys(text: &str) -> RootKeys {
        RootKeys::parse(text).unwrap()
    }

    #[test]
    fn the_highest_version_is_the_newest() {
        assert_eq!(keys(&format!("1={ONE}")).newest(), 1);
        assert_eq!(keys(&format!("10={ONE}, 9={TWO}")).newest(), 10);
        assert_eq!(format!("{:?}", keys(&format!("10={ONE},9={TWO}"))), "RootKeys([9, 10])");
        for bad in [
            "".into(),
            ONE.into(),
            format!("={ONE}"),
            format!("x={ONE}"),
            format!("+1={ONE}"),
            format!("-1={ONE}"),
            format!("4294967296={ONE}"),
            format!("1={ONE}="),
            format!("1={}", &ONE[1..]),
            format!("1={ONE},"),
            format!("1={ONE},1={TWO}"),
            format!("1={ONE};2={TWO}"),
        ] {
            let error = RootKeys::parse(&bad).unwrap_err();
            assert!(!error.to_string().contains(ONE), "{bad}");
        }
    }

    #[test]
    fn a_secret_opens_under_its_own_root_and_label_only() {
        let old = keys(&format!("1={ONE}"));
        let both = keys(&format!("1={ONE},2={TWO}"));
        let new = keys(&format!("2={TWO}"));
        let sealed = old.seal("hpke 7", b"secret", [5; 12]);
        assert_eq!(sealed.len(), 4 + 12 + 6 + 16);
        assert_eq!(sealed[..16], [&[0, 0, 0, 1][..], &[5; 12]].concat());
        assert_eq!(*both.open("hpke 7", &sealed).unwrap(), b"secret");
        assert_eq!(both.seal("hpke 7", b"secret", [5; 12])[..4], [0, 0, 0, 2]);
        assert_eq!(new.open("hpke 7", &sealed), Err(UnsealError::UnknownVersion(1)));
        assert_eq!(old.open("hpke 8", &sealed), Err(UnsealError::Broken));
        let impostor = keys(&format!("1={TWO}"));
        assert_eq!(impostor.open("hpke 7", &sealed), Err(UnsealError::Broken));
        for n in 0..sealed.len() {
            assert_eq!(old.open("hpke 7", &sealed[..n]), Err(UnsealError::Broken), "{n}");
        }
        for bit in 0..sealed.len() * 8 {
            let mut changed = sealed.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(both.open("hpke 7", &changed).is_err(), "{bit}");
        }
        assert_eq!(*old.open("", &old.seal("", b"", [0; 12])).unwrap(), b"");
    }

    #[test]
    fn what_is_sealed_again_is_the_same_under_the_newest_root() {
        let old = keys(&format!("1={ONE}"));
        let both = keys(&format!("1={ONE},2={TWO}"));
        let new = keys(&format!("2={TWO}"));
        let sealed = old.seal("label", b"secret", [5; 12]);
        assert_eq!(sealed_version(&sealed), Some(1));
        assert_eq!(old.reseal("label", &sealed, [6; 12]), Ok(None));
        let anew = both.reseal("label", &sealed, [6; 12]).unwrap().unwrap();
        assert_eq!(sealed_version(&anew), Some(2));
        assert_eq!(*new.open("label", &anew).unwrap(), b"secret");
        assert_eq!(both.reseal("label", &anew, [7; 12]), Ok(None));
        assert_eq!(both.reseal("other", &sealed, [6; 12]), Err(UnsealError::Broken));
        assert_eq!(new.reseal("label", &sealed, [6; 12]), Err(UnsealError::UnknownVersion(1)));
        assert_eq!(both.versions().collect::<Vec<_>>(), [1, 2]);
        assert_eq!(sealed_version(b""), None);
    }

    #[test]
    fn shard_keys_differ_by_task_and_root() {
        let keys = keys(&format!("1={ONE},2={TWO}"));
        let (a, b) = (TaskId::new([1; 32]), TaskId::new([2; 32]));
        assert_eq!(keys.shard_key(1, &a), keys.shard_key(1, &a));
        assert_ne!(keys.shard_key(1, &a), keys.shard_key(1, &b));
        assert_ne!(keys.shard_key(1, &a), keys.shard_key(2, &a));
        assert_eq!(keys.shard_key(3, &a), None);
    }

    /// A changed derivation would make what is stored unreadable and move every report to another object.
    #[test]
    fn derivations_are_frozen() {
        let keys = keys(&format!("1={ONE}"));
        assert_eq!(
            b64::encode(&keys.shard_key(1, &TaskId::new([9; 32])).unwrap()),
            "cXkR_KxYz4TIrQEwr0NuTg"
        );
        assert_eq!(
            b64::encode(&keys.seal("label", b"secret", [7; 12])),
            "AAAAAQcHBwcHBwcHBwcHB9OadOwzWQsHNH0VKOSSzJlovx1izgk"
        );
    }

    #[test]
    fn tokens_match_by_their_hash() {
        let hash = TokenHash::of("a token");
        assert!(hash.matches("a token"));
        for other in ["", "a toke", "a token ", "A token"] {
            assert!(!hash.matches(other), "{other}");
        }
        let json = serde_json::to_string(&TokenHash::of("")).unwrap();
        assert_eq!(json, "\"47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU\"");
        assert_eq!(serde_json::from_str::<TokenHash>(&json).unwrap(), TokenHash::of(""));
        assert!(serde_json::from_str::<TokenHash>("\"AA\"").is_err());
        assert_eq!(format!("{hash:?}"), "TokenHash");
        assert_eq!(hash.name(), TokenHash::of("a token").name());
        assert_ne!(hash.name(), TokenHash::of("a tokem").name());
        assert_eq!(hash.name().len(), 8);
    }
}
