//! The cryptography under `hpke-rs`, with randomness that the caller supplies.
//!
//! `hpke-rs` draws randomness from a generator of its provider's choice, and its RustCrypto provider's can only
//! be seeded by the operating system. [`Seeded`] is that provider with another generator, [`Once`], and with our two
//! KEMs alone: that provider chooses the curve when it runs, so that a Worker would carry those that nobody can ask for.

use std::fmt;

use hpke_rs::hpke_types::{
    AeadAlgorithm, KdfAlgorithm, KemAlgorithm, SingleStageKdfAlgorithm, TwoStageKdfAlgorithm,
};
use hpke_rs_crypto::{HpkeCrypto, TryCryptoRng, TryRng, error::Error};
use hpke_rs_rust_crypto::HpkeRustCrypto;
use p256::elliptic_curve::{ecdh::diffie_hellman, sec1::ToSec1Point as _};
use subtle::ConstantTimeEq as _;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

/// The RustCrypto provider with [`Once`] as its generator, for X25519 and P-256.
#[derive(Debug)]
pub(super) struct Seeded;

/// Length of the private keys of both curves.
pub(super) const PRIVATE_KEY_LEN: usize = 32;

/// A generator that gives out 32 bytes, once. Sealing takes just so many, as the input of RFC 9180's
/// `DeriveKeyPair`, so that no other generator stands between the caller's randomness and the ephemeral key.
pub(super) struct Once(Option<Zeroizing<[u8; 32]>>);

impl Once {
    pub(super) fn new(seed: &[u8; 32]) -> Self {
        Self(Some(Zeroizing::new(*seed)))
    }

    /// For what needs no randomness.
    pub(super) const fn empty() -> Self {
        Self(None)
    }
}

/// More randomness was asked for than there is.
#[derive(Debug)]
pub(super) struct Exhausted;

impl fmt::Display for Exhausted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no randomness is left")
    }
}

impl std::error::Error for Exhausted {}

impl TryRng for Once {
    type Error = Exhausted;

    fn try_next_u32(&mut self) -> Result<u32, Exhausted> {
        Err(Exhausted)
    }

    fn try_next_u64(&mut self) -> Result<u64, Exhausted> {
        Err(Exhausted)
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Exhausted> {
        let seed = self.0.take().ok_or(Exhausted)?;
        if out.len() != seed.len() {
            return Err(Exhausted);
        }
        out.copy_from_slice(&*seed);
        Ok(())
    }
}

impl TryCryptoRng for Once {}

/// `DeriveKeyPair` of RFC 9180 §7.1.3, the private half. `hpke-rs` has it, but lets the private key out only
/// with a feature that also prints private keys in `Debug`.
pub(super) fn derive_private_key(kem: KemAlgorithm, ikm: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    const KDF: TwoStageKdfAlgorithm = TwoStageKdfAlgorithm::HkdfSha256;
    let suite = [b"HPKE-v1KEM", &(kem as u16).to_be_bytes()[..]].concat();
    let labeled_ikm = Zeroizing::new([&suite, &b"dkp_prk"[..], ikm].concat());
    let prk = Zeroizing::new(HpkeRustCrypto::kdf_extract(KDF, &[], &labeled_ikm).ok()?);
    let expand = |label: &[u8], context: &[u8]| {
        let info = [&[0, 32][..], &suite, label, context].concat();
        HpkeRustCrypto::kdf_expand(KDF, &prk, &info, 32).ok().map(Zeroizing::new)
    };
    match kem {
        KemAlgorithm::DhKem25519 => expand(b"sk", b""),
        // A candidate that is no scalar occurs once in 2^32.
        KemAlgorithm::DhKemP256 => (0..=u8::MAX)
            .filter_map(|counter| expand(b"candidate", &[counter]))
            .find(|candidate| p256_secret(candidate).is_ok()),
        _ => None,
    }
}

/// A private key for opening, which brings its public key along: to open, RFC 9180 §4.1 needs both, and `hpke-rs` computes the
/// second from the first each time, which takes nearly as long as everything else.
pub(super) fn opening_key(private_key: &[u8], public_key: &[u8]) -> Vec<u8> {
    [private_key, public_key].concat()
}

/// The private key, without the public key that it may bring along; and that.
fn parts(key: &[u8]) -> (&[u8], Option<&[u8]>) {
    match key.split_at_checked(PRIVATE_KEY_LEN) {
        Some((private_key, public_key)) if !public_key.is_empty() => {
            (private_key, Some(public_key))
        }
        _ => (key, None),
    }
}

fn x25519_secret(bytes: &[u8]) -> Result<StaticSecret, Error> {
    let bytes =
        Zeroizing::new(<[u8; 32]>::try_from(bytes).map_err(|_| Error::KemInvalidSecretKey)?);
    Ok(StaticSecret::from(*bytes))
}

fn p256_secret(bytes: &[u8]) -> Result<p256::SecretKey, Error> {
    p256::SecretKey::from_slice(bytes).map_err(|_| Error::KemInvalidSecretKey)
}

impl HpkeCrypto for Seeded {
    type HpkePrng = Once;

    fn name() -> String {
        HpkeRustCrypto::name()
    }

    fn supports_kdf(alg: KdfAlgorithm) -> Result<(), Error> {
        HpkeRustCrypto::supports_kdf(alg)
    }

    fn supports_kem(alg: KemAlgorithm) -> Result<(), Error> {
        match alg {
            KemAlgorithm::DhKem25519 | KemAlgorithm::DhKemP256 => Ok(()),
            _ => Err(Error::UnknownKemAlgorithm),
        }
    }

    fn supports_aead(alg: AeadAlgorithm) -> Result<(), Error> {
        HpkeRustCrypto::supports_aead(alg)
    }

    fn kdf_extract(alg: TwoStageKdfAlgorithm, salt: &[u8], ikm: &[u8]) -> Result<Vec<u8>, Error> {
        HpkeRustCrypto::kdf_extract(alg, salt, ikm)
    }

    fn kdf_expand(
        alg: TwoStageKdfAlgorithm,
        prk: &[u8],
        info: &[u8],
        len: usize,
    ) -> Result<Vec<u8>, Error> {
        HpkeRustCrypto::kdf_expand(alg, prk, info, len)
    }

    fn kdf_derive(alg: SingleStageKdfAlgorithm, ikm: &[u8], len: usize) -> Result<Vec<u8>, Error> {
        HpkeRustCrypto::kdf_derive(alg, ikm, len)
    }

    /// RFC 9180 §7.1.4 demands that the X25519 of all zeros is refused; a point that is not on P-256 has no key.
    fn dh(alg: KemAlgorithm, pk: &[u8], sk: &[u8]) -> Result<Vec<u8>, Error> {
        let (sk, _) = parts(sk);
        match alg {
            KemAlgorithm::DhKem25519 => {
                let pk = <[u8; 32]>::try_from(pk).map_err(|_| Error::KemInvalidPublicKey)?;
                let shared = x25519_secret(sk)?.diffie_hellman(&PublicKey::from(pk));
                if shared.as_bytes().ct_eq(&[0; 32]).into() {
                    return Err(Error::KemInvalidPublicKey);
                }
                Ok(shared.as_bytes().to_vec())
            }
            KemAlgorithm::DhKemP256 => {
                let pk =
                    p256::PublicKey::from_sec1_bytes(pk).map_err(|_| Error::KemInvalidPublicKey)?;
                let shared = diffie_hellman(p256_secret(sk)?.to_nonzero_scalar(), pk.as_affine());
                Ok(shared.raw_secret_bytes().to_vec())
            }
            _ => Err(Error::UnknownKemAlgorithm),
        }
    }

    fn secret_to_public(alg: KemAlgorithm, sk: &[u8]) -> Result<Vec<u8>, Error> {
        let (sk, public_key) = parts(sk);
        if let Some(public_key) = public_key {
            return Ok(public_key.to_vec());
        }
        match alg {
            KemAlgorithm::DhKem25519 => {
                Ok(PublicKey::from(&x25519_secret(sk)?).to_bytes().to_vec())
            }
            KemAlgorithm::DhKemP256 => {
                Ok(p256_secret(sk)?.public_key().to_sec1_point(false).as_bytes().to_vec())
            }
            _ => Err(Error::UnknownKemAlgorithm),
        }
    }

    // The next two draw from the generator, and sealing with the KEMs we have calls neither.
    fn kem_key_gen(_: KemAlgorithm, _: &mut Once) -> Result<(Vec<u8>, Vec<u8>), Error> {
        Err(Error::UnsupportedKemOperation)
    }

    fn kem_encaps(_: KemAlgorithm, _: &[u8], _: &mut Once) -> Result<(Vec<u8>, Vec<u8>), Error> {
        Err(Error::UnsupportedKemOperation)
    }

    fn kem_key_gen_derand(alg: KemAlgorithm, seed: &[u8]) -> Result<(Vec<u8>, Vec<u8>), Error> {
        HpkeRustCrypto::kem_key_gen_derand(alg, seed)
    }

    fn kem_encaps_derand(
        alg: KemAlgorithm,
        pk_r: &[u8],
        randomness: &[u8],
    ) -> Result<(Vec<u8>, Vec<u8>), Error> {
        HpkeRustCrypto::kem_encaps_derand(alg, pk_r, randomness)
    }

    fn kem_decaps(alg: KemAlgorithm, ct: &[u8], sk_r: &[u8]) -> Result<Vec<u8>, Error> {
        HpkeRustCrypto::kem_decaps(alg, ct, sk_r)
    }

    fn dh_validate_sk(alg: KemAlgorithm, sk: &[u8]) -> Result<Vec<u8>, Error> {
        match alg {
            KemAlgorithm::DhKemP256 => p256_secret(sk).map(|_| sk.to_vec()),
            _ => Err(Error::UnknownKemAlgorithm),
        }
    }

    fn aead_seal(
        alg: AeadAlgorithm,
        key: &[u8],
        nonce: &[u8],
        aad: &[u8],
        msg: &[u8],
    ) -> Result<Vec<u8>, Error> {
        HpkeRustCrypto::aead_seal(alg, key, nonce, aad, msg)
    }

    fn aead_open(
        alg: AeadAlgorithm,
        key: &[u8],
        nonce: &[u8],
        aad: &[u8],
        msg: &[u8],
    ) -> Result<Vec<u8>, Error> {
        HpkeRustCrypto::aead_open(alg, key, nonce, aad, msg)
    }
}
