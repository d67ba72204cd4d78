//! Identifiers, each its own type, parsed once where it enters.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::{
    b64,
    codec::{DecodeError, Reader},
};

/// Text is not the base64url (without padding) of an id of the right length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected} characters of base64url without padding")]
pub struct ParseIdError {
    expected: usize,
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $len]);

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = $len;

            /// Wraps the bytes; every value is valid.
            pub const fn new(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }

            /// The bytes.
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }

            /// Reads the id from a message.
            ///
            /// # Errors
            /// [`DecodeError::Truncated`].
            pub fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
                Ok(Self(r.array()?))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&b64::encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;
            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                b64::decode_array(text)
                    .map(Self)
                    .ok_or(ParseIdError { expected: ($len * 8usize).div_ceil(6) })
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                b64::serde_b64::serialize(&self.0, s)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                b64::serde_b64::deserialize(d)?
                    .try_into()
                    .map(Self)
                    .map_err(|_| D::Error::custom(concat!("expected ", $len, " bytes")))
            }
        }
    };
}

id!(
    /// Names a task, globally unique, 32 bytes. DAP-09 §4.2, DAP-18 §4.2.
    TaskId, 32
);
id!(
    /// Names a batch of a leader-selected task, 32 bytes, chosen by the leader. DAP-18 §5.2.
    BatchId, 32
);
id!(
    /// Names a report, 16 bytes, chosen at random by its client; it is also the VDAF nonce. DAP-18 §4.1.
    ReportId, 16
);
id!(
    /// Names an aggregation job, 16 bytes. In DAP-09 the leader chooses it (DAP-09 §4.5.1).
    AggregationJobId, 16
);

impl AggregationJobId {
    /// The id that a hash gives a job: its first half.
    pub fn of_hash(hash: [u8; 32]) -> Self {
        let (first, _) = hash.as_chunks::<{ Self::LEN }>();
        Self(first.first().copied().unwrap_or_default())
    }
}

/// Names an HPKE configuration of one aggregator or collector, `0..=255`. DAP-18 §4.4.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct HpkeConfigId(pub u8);

impl fmt::Display for HpkeConfigId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_one_spelling() {
        let id: TaskId = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA".parse().unwrap();
        assert_eq!(id, TaskId::new([0; 32]));
        for bad in [
            "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
            "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAB",
            "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
            "",
        ] {
            assert!(bad.parse::<TaskId>().is_err(), "{bad}");
        }
        assert_eq!(
            "x".parse::<ReportId>().unwrap_err().to_string(),
            "expected 22 characters of base64url without padding"
        );
    }
}
