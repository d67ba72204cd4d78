//! Files with an HPKE key pair that another tool made.

use std::{fs::File, io::Read as _, path::Path};

use daphne_core::{
    b64,
    codec::Reader,
    hpke::{HpkeAead, HpkeConfig, HpkeKdf, HpkeKem, HpkeKeypair},
    ids::HpkeConfigId,
};
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::{Failure, janus_tasks::read_yaml, output::clean};

const FILE_BYTES_MAX: u64 = 64 << 10;

/// Reads a key pair in one of the forms of [`parse`].
///
/// # Errors
/// [`Failure::Usage`] if the file cannot be read or is malformed. Never quotes its content.
pub fn read(path: &Path) -> Result<HpkeKeypair, Failure> {
    let shown = clean(&path.display().to_string());
    let mut text = Zeroizing::new(String::new());
    File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX).read_to_string(&mut text))
        .map_err(|e| Failure::Usage(format!("cannot read {shown}: {e}")))?;
    parse(&text).map_err(|why| Failure::Usage(format!("{shown}: {why}")))
}

/// Reads a key pair from JSON or YAML: `config` and `private_key`, where `config` is an object or the base64url of an
/// encoded `HpkeConfig`; or a collector credential as `divviup` writes it. Of several YAML documents, as Janus'
/// `hpke_keygen` prints them, the one with `private_key`.
///
/// # Errors
/// One sentence, which never quotes the text.
pub fn parse(text: &str) -> Result<HpkeKeypair, String> {
    let mut pairs = read_yaml(text)?;
    if pairs.len() > 1 {
        pairs.retain(|document| document.get("private_key").is_some());
    }
    let (Some(value), true) = (pairs.pop(), pairs.is_empty()) else {
        return Err("expected one key pair".into());
    };
    let (config, private_key) = if value.get("config").is_some() {
        let written: Pair = serde_json::from_value(value)
            .map_err(|_| "expected config and private_key, and nothing else".to_owned())?;
        let config = match written.config {
            WrittenConfig::Json(config) => config,
            WrittenConfig::Encoded(text) => b64::decode(&text)
                .and_then(|bytes| Reader::all(&bytes, HpkeConfig::read).ok())
                .ok_or("config is not the base64url of an encoded HpkeConfig")?,
        };
        (config, written.private_key)
    } else {
        let written: Credential = serde_json::from_value(value).map_err(|_| {
            "expected config and private_key, or id, kem, kdf, aead, public_key and private_key"
                .to_owned()
        })?;
        written.split()?
    };
    let private_key = Zeroizing::new(private_key);
    let private_key =
        b64::decode(&private_key).map(Zeroizing::new).ok_or("private_key is not base64url")?;
    HpkeKeypair::from_parts(config, private_key).map_err(|e| e.to_string())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Pair {
    config: WrittenConfig,
    private_key: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum WrittenConfig {
    Encoded(String),
    Json(HpkeConfig),
}

/// A collector credential. Its names of algorithms are not those of DAP's registries, and it may have a token.
#[derive(Deserialize)]
struct Credential {
    id: u8,
    kem: String,
    kdf: String,
    aead: String,
    public_key: String,
    private_key: String,
}

impl Credential {
    fn split(self) -> Result<(HpkeConfig, String), String> {
        let unsupported = |what: &str| format!("its {what} is not supported");
        let config = HpkeConfig {
            id: HpkeConfigId(self.id),
            kem: match self.kem.as_str() {
                "X25519HkdfSha256" => HpkeKem::X25519HkdfSha256,
                "DhP256HkdfSha256" | "P256HkdfSha256" => HpkeKem::P256HkdfSha256,
                _ => return Err(unsupported("kem")),
            },
            kdf: match self.kdf.as_str() {
                "Sha256" | "HkdfSha256" => HpkeKdf::HkdfSha256,
                "Sha384" | "HkdfSha384" => HpkeKdf::HkdfSha384,
                "Sha512" | "HkdfSha512" => HpkeKdf::HkdfSha512,
                _ => return Err(unsupported("kdf")),
            },
            aead: match self.aead.as_str() {
                "AesGcm128" | "Aes128Gcm" => HpkeAead::Aes128Gcm,
                "AesGcm256" | "Aes256Gcm" => HpkeAead::Aes256Gcm,
                "ChaCha20Poly1305" => HpkeAead::ChaCha20Poly1305,
                _ => return Err(unsupported("aead")),
            },
            public_key: b64::decode(&self.public_key).ok_or("public_key is not base64url")?,
        };
        Ok((config, self.private_key))
    }
}

#[cfg(test)]
mod tests {
    use daphne_core::codec::Writer;
    use serde_json::{Value, json};

    use super::*;

    fn keypair(id: u8, kem: HpkeKem) -> HpkeKeypair {
        HpkeKeypair::derive(HpkeConfigId(id), kem, &[7; 32]).unwrap()
    }

    fn encoded(config: &HpkeConfig) -> String {
        let mut w = Writer::new();
        config.write(&mut w);
        b64::encode(&w.finish().unwrap())
    }

    fn credential(keys: &HpkeKeypair, kem: &str) -> Value {
        json!({
            "aead": "AesGcm128", "id": keys.config().id, "kdf": "Sha256", "kem": kem,
            "private_key": b64::encode(keys.private_key()),
            "public_key": b64::encode(&keys.config().public_key),
            "token": "AAAAAAAAAAAAAAAAAAAAAA",
        })
    }

    #[test]
    fn each_form_gives_the_same_key_pair() {
        for (id, kem, name) in [
            (0, HpkeKem::X25519HkdfSha256, "X25519HkdfSha256"),
            (255, HpkeKem::P256HkdfSha256, "DhP256HkdfSha256"),
        ] {
            let keys = keypair(id, kem);
            let private_key = b64::encode(keys.private_key());
            for text in [
                keys.to_secret_json().to_string(),
                json!({ "config": encoded(keys.config()), "private_key": private_key }).to_string(),
                credential(&keys, name).to_string(),
            ] {
                let read = parse(&text).unwrap();
                assert_eq!(read.config(), keys.config(), "{text}");
                assert_eq!(read.private_key(), keys.private_key(), "{text}");
            }
        }
    }

    #[test]
    fn a_key_pair_is_found_in_what_hpke_keygen_prints() {
        let keys = keypair(5, HpkeKem::X25519HkdfSha256);
        let private_key = b64::encode(keys.private_key());
        let config = format!(
            "id: 5\n  kem_id: X25519HkdfSha256\n  kdf_id: HkdfSha256\n  aead_id: Aes128Gcm\n  public_key: {}\n",
            b64::encode(&keys.config().public_key)
        );
        let pair = format!("config:\n  {config}private_key: {private_key}\n");
        let text = format!(
            "# HPKE configuration, Janus format\n{}---\n# HPKE private key, in base64url\n{private_key}\n---\n\
             # HPKE keypair, Janus format\n{pair}---\n# HPKE configuration, DAP encoded, in base64url\n{}\n",
            config.replace("\n  ", "\n"),
            encoded(keys.config())
        );
        for text in [&text, &pair] {
            let read = parse(text).unwrap();
            assert_eq!((read.config(), read.private_key()), (keys.config(), keys.private_key()));
        }
        assert_eq!(parse(&format!("{pair}---\n{pair}")).unwrap_err(), "expected one key pair");
    }

    #[test]
    fn what_is_wrong_is_told_without_quoting_the_key() {
        let keys = keypair(1, HpkeKem::X25519HkdfSha256);
        let other = HpkeKeypair::derive(HpkeConfigId(1), keys.config().kem, &[8; 32]).unwrap();
        let secret = b64::encode(keys.private_key());
        let with = |name: &str, value: Value| {
            let mut changed = credential(&keys, "X25519HkdfSha256");
            changed[name] = value;
            changed.to_string()
        };
        for text in [
            secret.clone(),
            format!("\"{secret}\""),
            format!("{{\"private_key\":\"{secret}\"}}"),
            json!({ "config": encoded(other.config()), "private_key": secret }).to_string(),
            json!({ "config": "AAAA", "private_key": secret }).to_string(),
            json!({ "config": encoded(keys.config()), "private_key": secret, "more": 1 })
                .to_string(),
            json!({ "config": encoded(keys.config()), "private_key": [secret] }).to_string(),
            with("id", json!(256)),
            with("id", json!(secret)),
            with("kem", json!(secret)),
            with("kdf", json!("Sha1")),
            with("aead", json!("none")),
            with("public_key", json!(b64::encode(&other.config().public_key))),
            with("private_key", json!(format!("{secret}="))),
        ] {
            let why = parse(&text).unwrap_err();
            assert!(!why.contains(&secret) && !why.contains('\n'), "{why}");
        }
    }
}
