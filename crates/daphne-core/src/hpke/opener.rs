//! Opening many messages that were sealed to one key with one `info`, as a job's reports are.
//!
//! For the suite that DAP demands, X25519, HKDF-SHA256 and AES-GCM, whatever is the same for all messages is computed once: what
//! `info` and the suite are hashed to, and nearly every block that HMAC hashes. What is left for a message is the
//! Diffie-Hellman result, which somebody else may bring ([`KeyAgreement`](super::KeyAgreement)), 19 compressions of SHA-256, and
//! AES-GCM. Every other suite is `hpke-rs`'. Both open the same messages, to the same bytes, which the tests compare.
//!
//! Nothing here branches or indexes by a secret, the comparison of the tag included; what is secret is erased when it is
//! no longer needed.

use std::fmt;

use aes_gcm::{
    Aes128Gcm, Aes256Gcm, KeyInit,
    aead::{AeadInOut, array::Array, consts},
};
use sha2::{Digest as _, Sha256, block_api::compress256};
use subtle::ConstantTimeEq as _;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::{Zeroize as _, Zeroizing};

use super::{HpkeAead, HpkeKdf, HpkeKem, HpkeKeypair, OpenError};
use crate::message::HpkeCiphertext;

#[cfg(test)]
mod tests;

/// Length of an encapsulated key, a Diffie-Hellman result, and all that is derived but the last: 32 bytes each.
const LEN: usize = 32;
const BLOCK: usize = 64;
const TAG: usize = 16;
const NONCE: usize = 12;

/// Every label of RFC 9180 §4 begins so.
const VERSION: &[u8] = b"HPKE-v1";
const BASE_MODE: u8 = 0;

/// Opens messages that were sealed to a key pair with one `info`. `Debug` shows what is public.
pub struct Opener<'k> {
    keypair: &'k HpkeKeypair,
    info: Vec<u8>,
    schedule: Option<Box<Schedule>>,
}

impl fmt::Debug for Opener<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let config = &self.keypair.config;
        f.debug_struct("Opener").field("config", config).finish_non_exhaustive()
    }
}

impl<'k> Opener<'k> {
    /// Prepares to open messages. Costs about half as much as opening one, less the Diffie-Hellman.
    pub fn new(keypair: &'k HpkeKeypair, info: &[u8]) -> Self {
        let schedule = Schedule::new(keypair, info).map(Box::new);
        Self { keypair, info: info.to_vec(), schedule }
    }

    /// The key pair.
    pub fn keypair(&self) -> &'k HpkeKeypair {
        self.keypair
    }

    /// The point of X25519 whose Diffie-Hellman result opens the message, if [`Self::open_with`] takes it.
    pub fn point(&self, ciphertext: HpkeCiphertext<'_>) -> Option<[u8; LEN]> {
        self.schedule.as_ref().and_then(|_| ciphertext.enc.try_into().ok())
    }

    /// Opens a message. The caller has chosen the key pair by the ciphertext's configuration id.
    ///
    /// # Errors
    /// [`OpenError`] for whatever bytes do not open, also malformed or low-order encapsulated keys.
    pub fn open(&self, aad: &[u8], ciphertext: HpkeCiphertext<'_>) -> Result<Vec<u8>, OpenError> {
        let Some(schedule) = &self.schedule else {
            return super::open_with_hpke_rs(self.keypair, &self.info, aad, ciphertext);
        };
        let point = ciphertext.enc.try_into().map_err(|_| OpenError)?;
        let shared = schedule.private_key.diffie_hellman(&PublicKey::from(point));
        schedule.open(shared.as_bytes(), &point, aad, ciphertext.payload)
    }

    /// Opens a message of which [`Self::point`] gave a point, with the result of X25519 (RFC 7748 §5) of the private key and
    /// this point. Secret.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_with(
        &self,
        shared: &[u8; LEN],
        aad: &[u8],
        ciphertext: HpkeCiphertext<'_>,
    ) -> Result<Vec<u8>, OpenError> {
        let schedule = self.schedule.as_ref().ok_or(OpenError)?;
        let point = ciphertext.enc.try_into().map_err(|_| OpenError)?;
        schedule.open(shared, &point, aad, ciphertext.payload)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Aead {
    Aes128Gcm,
    Aes256Gcm,
}

/// What is the same for all messages: the private key, and messages to HMAC in whole blocks, padded as SHA-256 pads what
/// comes after the block of HMAC's key. RFC 9180 §4.1 and §5.1.
struct Schedule {
    private_key: StaticSecret,
    aead: Aead,
    /// HMAC under the empty salt.
    salt: Hmac,
    /// `LabeledExtract("", "eae_prk", dh)`, at [`DH_AT`] the result of Diffie-Hellman.
    eae_prk: [[u8; BLOCK]; 1],
    /// `LabeledExpand(eae_prk, "shared_secret", enc || pkR, 32)`, at [`ENC_AT`] the encapsulated key.
    shared_secret: [[u8; BLOCK]; 2],
    /// `LabeledExtract(shared_secret, "secret", "")`.
    secret: [[u8; BLOCK]; 1],
    /// `LabeledExpand(secret, "key", key_schedule_context, Nk)`.
    key: [[u8; BLOCK]; 2],
    /// `LabeledExpand(secret, "base_nonce", key_schedule_context, 12)`, the nonce of the context's first and only message.
    base_nonce: [[u8; BLOCK]; 2],
}

const DH_AT: usize = 19;
const ENC_AT: usize = 27;

impl Schedule {
    /// `None` if the suite is another.
    fn new(keypair: &HpkeKeypair, info: &[u8]) -> Option<Self> {
        let config = &keypair.config;
        let (HpkeKem::X25519HkdfSha256, HpkeKdf::HkdfSha256) = (config.kem, config.kdf) else {
            return None;
        };
        let (aead, key_len) = match config.aead {
            HpkeAead::Aes128Gcm => (Aead::Aes128Gcm, 16),
            HpkeAead::Aes256Gcm => (Aead::Aes256Gcm, 32),
            _ => return None,
        };
        let private_key = Zeroizing::new(<[u8; LEN]>::try_from(keypair.private_key()).ok()?);
        let public_key = <[u8; LEN]>::try_from(config.public_key.as_slice()).ok()?;

        let [kem_id, kdf_id, aead_id] =
            [config.kem.code(), config.kdf.code(), config.aead.code()].map(u16::to_be_bytes);
        let kem_suite = [&b"KEM"[..], &kem_id].concat();
        let suite = [&b"HPKE"[..], &kem_id, &kdf_id, &aead_id].concat();
        let salt = Hmac::new(&[0; LEN]);
        // `info` has any length, so these two are hashed by the library, under the same key.
        let labeled_hash = |label: &[u8], ikm: &[u8]| {
            let inner = Sha256::new()
                .chain_update([IPAD; BLOCK])
                .chain_update([VERSION, &suite, label, ikm].concat())
                .finalize();
            Sha256::new().chain_update([OPAD; BLOCK]).chain_update(inner).finalize()
        };
        let context = [
            &[BASE_MODE][..],
            &labeled_hash(b"psk_id_hash", b""),
            &labeled_hash(b"info_hash", info),
        ]
        .concat();
        let expand = |length: u8, label: &[u8]| {
            padded([&[0, length], VERSION, &suite, label, &context, &[1]])
        };
        Some(Self {
            private_key: StaticSecret::from(*private_key),
            aead,
            salt,
            eae_prk: padded([VERSION, &kem_suite, b"eae_prk", &[0; LEN]]),
            shared_secret: padded([
                &[0, 32],
                VERSION,
                &kem_suite,
                b"shared_secret",
                &[0; LEN],
                &public_key,
                &[1],
            ]),
            secret: padded([VERSION, &suite, b"secret"]),
            key: expand(key_len, b"key"),
            base_nonce: expand(12, b"base_nonce"),
        })
    }

    /// Opens a message with its Diffie-Hellman result.
    fn open(
        &self,
        shared: &[u8; LEN],
        enc: &[u8; LEN],
        aad: &[u8],
        payload: &[u8],
    ) -> Result<Vec<u8>, OpenError> {
        // RFC 9180 §7.1.4: a point of low order leads to zero with every private key.
        if shared.ct_eq(&[0; LEN]).into() {
            return Err(OpenError);
        }
        let (ciphertext, tag) = payload.split_last_chunk::<TAG>().ok_or(OpenError)?;
        let (key, nonce) = self.key_and_nonce(shared, enc);
        let nonce: &Array<u8, consts::U12> = nonce.first_chunk::<NONCE>().ok_or(OpenError)?.into();
        let mut message = ciphertext.to_vec();
        let (buffer, tag) = (message.as_mut_slice().into(), tag.into());
        // Decrypts only what is authentic.
        let opened = match self.aead {
            Aead::Aes128Gcm => Aes128Gcm::new(key.first_chunk::<16>().ok_or(OpenError)?.into())
                .decrypt_inout_detached(nonce, aad, buffer, tag),
            Aead::Aes256Gcm => {
                Aes256Gcm::new((&*key).into()).decrypt_inout_detached(nonce, aad, buffer, tag)
            }
        };
        opened.map(|()| message).map_err(|_| OpenError)
    }

    /// The key and the nonce of a context, each at the beginning. RFC 9180 §4.1 `Decap`, §5.1 `KeySchedule`.
    fn key_and_nonce(&self, shared: &[u8; LEN], enc: &[u8; LEN]) -> (Secret, Secret) {
        let mut eae_prk = Zeroizing::new(self.eae_prk);
        put(eae_prk.as_flattened_mut(), DH_AT, shared);
        let eae_prk = Hmac::new(&self.salt.of(&*eae_prk));
        let mut shared_secret = self.shared_secret;
        put(shared_secret.as_flattened_mut(), ENC_AT, enc);
        let shared_secret = Hmac::new(&eae_prk.of(&shared_secret));
        let secret = Hmac::new(&shared_secret.of(&self.secret));
        (secret.of(&self.key), secret.of(&self.base_nonce))
    }
}

type Secret = Zeroizing<[u8; LEN]>;

fn put(blocks: &mut [u8], at: usize, bytes: &[u8; LEN]) {
    for (to, from) in blocks.iter_mut().skip(at).zip(bytes) {
        *to = *from;
    }
}

/// The first value of SHA-256. FIPS 180-4 §5.3.3.
const INITIAL: [u32; 8] = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];
const IPAD: u8 = 0x36;
const OPAD: u8 = 0x5c;

/// HMAC-SHA256 (RFC 2104) with a key of 32 bytes: what SHA-256 is at after the block of the key, inside and outside.
struct Hmac {
    inner: [u32; 8],
    outer: [u32; 8],
}

impl Hmac {
    fn new(key: &[u8; LEN]) -> Self {
        let mut block = Zeroizing::new([[IPAD; BLOCK]]);
        let mut keyed = |pad: u8| {
            let bytes = block.as_flattened_mut();
            bytes.fill(pad);
            bytes.iter_mut().zip(key).for_each(|(b, k)| *b ^= k);
            let mut state = INITIAL;
            compress256(&mut state, &*block);
            state
        };
        Self { inner: keyed(IPAD), outer: keyed(OPAD) }
    }

    /// The code of a message that [`padded`] made.
    fn of(&self, message: &[[u8; BLOCK]]) -> Secret {
        let mut state = Zeroizing::new(self.inner);
        compress256(&mut state, message);
        // As `padded` would.
        let mut block = Zeroizing::new([[0; BLOCK]]);
        let [bytes] = &mut *block;
        write_words(bytes, &state);
        bytes[LEN] = 0x80;
        bytes[BLOCK - 2..].copy_from_slice(&bits_of(LEN).to_be_bytes());
        *state = self.outer;
        compress256(&mut state, &*block);
        let mut code = Zeroizing::new([0; LEN]);
        write_words(&mut *code, &state);
        code
    }
}

impl Drop for Hmac {
    fn drop(&mut self) {
        self.inner.zeroize();
        self.outer.zeroize();
    }
}

fn write_words(to: &mut [u8], words: &[u32; 8]) {
    for (bytes, word) in to.chunks_exact_mut(4).zip(words) {
        bytes.copy_from_slice(&word.to_be_bytes());
    }
}

/// Bits that SHA-256 has hashed after the block of a key and `len` bytes.
const fn bits_of(len: usize) -> u16 {
    ((BLOCK + len) * 8) as u16
}

/// The parts as blocks, with SHA-256's padding for a message that began with one block more. The parts' length leaves
/// nine bytes: callers' are constant.
fn padded<const PARTS: usize, const BLOCKS: usize>(parts: [&[u8]; PARTS]) -> [[u8; BLOCK]; BLOCKS] {
    let mut blocks = [[0; BLOCK]; BLOCKS];
    let bytes = blocks.as_flattened_mut();
    let mut at = 0;
    for part in parts {
        bytes[at..at + part.len()].copy_from_slice(part);
        at += part.len();
    }
    bytes[at] = 0x80;
    let end = bytes.len();
    bytes[end - 2..].copy_from_slice(&bits_of(at).to_be_bytes());
    blocks
}
