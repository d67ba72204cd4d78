//! The optional signature of the published list of configurations, as Janus 0.7 makes it: a response header
//! `x-hpke-config-signature` with the base64url of a DER-encoded ECDSA signature (P-256, SHA-256) of the response's body.
//! No DAP draft has it.

use std::fmt;

use p256::{
    SecretKey,
    ecdsa::{DerSignature, Signature, SigningKey, signature::Signer as _},
    pkcs8::DecodePrivateKey as _,
};
use zeroize::Zeroizing;

use crate::b64;

/// The response header.
pub const HEADER: &str = "x-hpke-config-signature";

/// The text is no signing key: the fault of whoever configures us. Never quotes the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the signing key must be a P-256 private key in PEM, `EC PRIVATE KEY` (RFC 5915) or `PRIVATE KEY` (PKCS #8)"
)]
pub struct SigningKeyError;

/// Signs the published list. `Debug` shows the type only.
pub struct ListSigner(SigningKey);

impl fmt::Debug for ListSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ListSigner")
    }
}

impl ListSigner {
    /// Reads a private key in PEM. Line ends may be written as `\n`, where a secret must be one line.
    ///
    /// # Errors
    /// [`SigningKeyError`].
    pub fn from_pem(text: &str) -> Result<Self, SigningKeyError> {
        let text = Zeroizing::new(text.trim().replace("\\n", "\n"));
        SecretKey::from_sec1_pem(&text)
            .ok()
            .or_else(|| SecretKey::from_pkcs8_pem(&text).ok())
            .map(|key| Self(SigningKey::from(key)))
            .ok_or(SigningKeyError)
    }

    /// The header's value for a body. The same for the same body, always: the nonce is a function of key and body (RFC
    /// 6979), so that neither chance nor the isolate shows.
    pub fn sign(&self, body: &[u8]) -> String {
        let signature: Signature = self.0.sign(body);
        b64::encode(DerSignature::from(signature).as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use p256::ecdsa::{VerifyingKey, signature::Verifier as _};

    use super::*;

    /// Made with `openssl ecparam -name prime256v1 -genkey -noout`.
    const SEC1: &str = "-----BEGIN EC PRIVATE KEY-----\n\
        MHcCAQEEIPAb7alClyjImO8g+Ms1X1LBJSA4T856/DPsiiC9TEqLoAoGCCqGSM49\n\
        AwEHoUQDQgAEc/bWY5Jxlcz+unZQrvm3MHgMQB2PLM+OHe6cumjro+h/rN3WsD/6\n\
        FBgWfNkMgKRPDXN3H4pdAcY44/NHJpJJ6w==\n\
        -----END EC PRIVATE KEY-----\n";
    /// The same after `openssl pkcs8 -topk8 -nocrypt`.
    const PKCS8: &str = "-----BEGIN PRIVATE KEY-----\n\
        MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg8BvtqUKXKMiY7yD4\n\
        yzVfUsElIDhPznr8M+yKIL1MSouhRANCAARz9tZjknGVzP66dlCu+bcweAxAHY8s\n\
        z44d7py6aOuj6H+s3dawP/oUGBZ82QyApE8Nc3cfil0Bxjjj80cmkknr\n\
        -----END PRIVATE KEY-----\n";
    const P384: &str = "-----BEGIN EC PRIVATE KEY-----\n\
        MIGkAgEBBDBszhB+/M5JCdiUJvqQ3gPuWzf9uNJIe1+rXfgtjWGuP41JWpbkW8El\n\
        /TbF7xfi2dWgBwYFK4EEACKhZANiAASLlMYrjXaYbkDAKoYDgSUh5BMcgK6EEEt/\n\
        Y/b8DdghkHSffw+JP+s3vRoEIGzN7Vw4MuMykCK6yWGJ8F+qTsNEVbiGRdbTI4bs\n\
        BEPm2USgGLi6hjQ+M/EK6ZWQrFAA9sI=\n\
        -----END EC PRIVATE KEY-----\n";

    fn signature(key: &ListSigner, body: &[u8]) -> Signature {
        let der = b64::decode(&key.sign(body)).unwrap();
        DerSignature::from_bytes(&der).unwrap().try_into().unwrap()
    }

    #[test]
    fn both_forms_of_a_key_sign_alike() {
        let keys = [SEC1, PKCS8, &SEC1.replace('\n', "\\n"), &format!("\n {PKCS8} ")]
            .map(|pem| ListSigner::from_pem(pem).unwrap());
        let verifier = VerifyingKey::from(&keys[0].0);
        for key in &keys {
            assert_eq!(key.sign(b"body"), keys[0].sign(b"body"));
            verifier.verify(b"body", &signature(key, b"body")).unwrap();
            verifier.verify(b"bodx", &signature(key, b"body")).unwrap_err();
            assert_eq!(format!("{key:?}"), "ListSigner");
        }
    }

    #[test]
    fn what_is_no_key_is_not_quoted() {
        let cut = &SEC1[..SEC1.len() / 2];
        let body: String = SEC1.lines().filter(|line| !line.starts_with("--")).collect();
        for text in ["", "AAAA", cut, &body, P384] {
            let error = ListSigner::from_pem(text).unwrap_err().to_string();
            assert!(text.is_empty() || !error.contains(text), "{error}");
        }
    }

    /// RFC 6979, A.2.5, with SHA-256.
    #[test]
    fn signatures_are_those_of_rfc_6979() {
        let hex = |text: &str| -> Vec<u8> {
            (0..text.len())
                .step_by(2)
                .map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap())
                .collect()
        };
        let key = "C9AFA9D845BA75166B5C215767B1D6934E50C3DB36E89B127B8A622B120F6721";
        let key = ListSigner(SigningKey::from_slice(&hex(key)).unwrap());
        for (message, r, s) in [
            (
                "sample",
                "EFD48B2AACB6A8FD1140DD9CD45E81D69D2C877B56AAF991C34D0EA84EAF3716",
                "F7CB1C942D657C41D436C7A1B6E29F65F3E900DBB9AFF4064DC4AB2F843ACDA8",
            ),
            (
                "test",
                "F1ABB023518351CD71D881567B1EA663ED3EFCF6C5132B354F28D3B0B7D38367",
                "019F4113742A2B14BD25926B49C649155F267E60D3814B4C0CC84250E46F0083",
            ),
        ] {
            let signature = signature(&key, message.as_bytes());
            assert_eq!(signature.to_bytes().as_slice(), [hex(r), hex(s)].concat(), "{message}");
        }
    }
}
