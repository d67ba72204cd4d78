//! base64url without padding, as DAP writes ids in URLs and problem documents (DAP-09 §4.3, DAP-18 §3).
//!
//! Decoding is strict: padding, foreign characters and non-zero trailing bits are errors, so each value has
//! exactly one spelling.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

/// Encodes bytes.
pub fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Decodes text; `None` unless it is the one canonical spelling of some bytes.
pub fn decode(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

/// Decodes text into exactly `N` bytes.
pub fn decode_array<const N: usize>(text: &str) -> Option<[u8; N]> {
    decode(text)?.try_into().ok()
}

/// serde for byte strings: base64url in human-readable formats, bytes elsewhere.
pub mod serde_b64 {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

    /// Writes the bytes.
    ///
    /// # Errors
    /// The serializer's.
    pub fn serialize<S: Serializer>(bytes: &[u8], s: S) -> Result<S::Ok, S::Error> {
        if s.is_human_readable() {
            super::encode(bytes).serialize(s)
        } else {
            serde_bytes::Bytes::new(bytes).serialize(s)
        }
    }

    /// Reads the bytes.
    ///
    /// # Errors
    /// The deserializer's, or a complaint about base64url.
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<u8>, D::Error> {
        if d.is_human_readable() {
            let text = String::deserialize(d)?;
            super::decode(&text)
                .ok_or_else(|| D::Error::custom("expected base64url without padding"))
        } else {
            Ok(serde_bytes::ByteBuf::deserialize(d)?.into_vec())
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn only_the_canonical_spelling_decodes() {
        assert_eq!(super::decode("AA"), Some(vec![0]));
        for bad in ["AA==", "AB", "A", "A+", "A/", " AA", "AA\n"] {
            assert_eq!(super::decode(bad), None, "{bad:?}");
        }
    }
}
