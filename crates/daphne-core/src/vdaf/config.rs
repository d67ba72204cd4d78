//! What a task computes: the VDAF's name and parameters, and which of them we accept.

use serde::{Deserialize, Serialize};

use super::FieldKind;
use crate::version::VdafDraft;

/// Longest aggregate share, in bytes: it must fit a row of the object that keeps it.
pub const AGG_SHARE_BYTES_MAX: usize = 3 << 19;

/// Longest input share of the leader, in bytes: it must fit an upload and the memory of an isolate.
pub const INPUT_SHARE_BYTES_MAX: usize = 4 << 20;

/// Longest string of bits that Poplar1 may count by prefix: 512 bytes. Shares grow with it, and so does the work; and
/// `prio` counts to three times the level in 16 bits.
pub const POPLAR1_BITS_MAX: u16 = 4096;

/// Parameters that we do not run. The fault of whoever configures the task; the text is one sentence for them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub(super) String);

impl ConfigError {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

/// The VDAF of a task with its parameters, independent of the draft. JSON only, in the spelling that other
/// aggregators use: `"Prio3Count"`, `{"Prio3Sum":{"max_measurement":255}}`.
///
/// Read, an integer's range is either `max_measurement` or `bits` (`1..=64`, as VDAF-08 and its tools say),
/// meaning `2^bits - 1`; written, it is always `max_measurement`.
/// VDAF-08 §7.4 and §8, VDAF-18 §7.4 and §8; the one with several proofs is a private instance that two implementations
/// share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Written")]
pub enum VdafConfig {
    /// How many measurements are true.
    Prio3Count,
    /// The sum of integers.
    Prio3Sum {
        /// Largest measurement, at least 1. VDAF-08: one less than a power of two.
        max_measurement: u64,
    },
    /// The element-wise sum of vectors of integers.
    Prio3SumVec {
        /// Elements in a measurement.
        length: u32,
        /// Largest element, at least 1. VDAF-08: one less than a power of two.
        max_measurement: u64,
        /// Trades computation for size; about the square root of the measurement's bits is best.
        chunk_length: u32,
    },
    /// How many measurements are equal to each index.
    Prio3Histogram {
        /// Buckets; a measurement is in `[0, length)`.
        length: u32,
        /// Trades computation for size; about the square root of `length` is best.
        chunk_length: u32,
    },
    /// How many measurements have each index of a vector set, each of them a few. VDAF-08 has no code point for it; it
    /// runs under the private `0xFFFF0000`.
    Prio3MultihotCountVec {
        /// Elements in a measurement.
        length: u32,
        /// Most elements that a measurement may have set, in `1..=length`.
        max_weight: u32,
        /// Trades computation for size; about the square root of `length` is best.
        chunk_length: u32,
    },
    /// [`VdafConfig::Prio3SumVec`] in a smaller field with several proofs and another XOF, id `0xFFFF1003`.
    Prio3SumVecField64MultiproofHmacSha256Aes128 {
        /// Elements in a measurement.
        length: u32,
        /// Largest element, at least 1. VDAF-08: one less than a power of two.
        max_measurement: u64,
        /// As for [`VdafConfig::Prio3SumVec`].
        chunk_length: u32,
        /// Proofs per report, `2..=3`.
        proofs: u8,
    },
    /// How many measurements, strings of bits, begin with each of the prefixes that the collector asks about.
    Poplar1 {
        /// Bits of a measurement, `1..=4096`.
        bits: u16,
    },
}

impl VdafConfig {
    /// The VDAF's name, for logs and metrics.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Prio3Count => "Prio3Count",
            Self::Prio3Sum { .. } => "Prio3Sum",
            Self::Prio3SumVec { .. } => "Prio3SumVec",
            Self::Prio3Histogram { .. } => "Prio3Histogram",
            Self::Prio3MultihotCountVec { .. } => "Prio3MultihotCountVec",
            Self::Prio3SumVecField64MultiproofHmacSha256Aes128 { .. } => {
                "Prio3SumVecField64MultiproofHmacSha256Aes128"
            }
            Self::Poplar1 { .. } => "Poplar1",
        }
    }

    /// The field its shares are in.
    pub(crate) const fn field(&self, draft: VdafDraft) -> FieldKind {
        match self {
            Self::Prio3Count | Self::Prio3SumVecField64MultiproofHmacSha256Aes128 { .. } => {
                FieldKind::F64
            }
            Self::Prio3Sum { .. } => match draft {
                VdafDraft::V08 => FieldKind::F128,
                VdafDraft::V18 => FieldKind::F64,
            },
            Self::Prio3SumVec { .. }
            | Self::Prio3Histogram { .. }
            | Self::Prio3MultihotCountVec { .. } => FieldKind::F128,
            Self::Poplar1 { bits } => FieldKind::Poplar1 { bits: *bits },
        }
    }

    /// Field elements of a measurement and of a proof about it, once for each proof; `None` for Poplar1, which proves no
    /// circuit. A proof has values for all wires of a gadget, and of a polynomial at twice as many points as the gadget is called.
    pub(super) fn proven_elements(&self, draft: VdafDraft) -> Option<u64> {
        // What has no number of bits is refused by `check`.
        let bits = |max: u64| u64::from(bits(draft, max).unwrap_or(64));
        let (elements, chunk, proofs) = match *self {
            Self::Prio3Count => (1, 1, 1),
            Self::Prio3Sum { max_measurement } => (bits(max_measurement), 1, 1),
            Self::Prio3SumVec { length, max_measurement, chunk_length } => {
                (u64::from(length) * bits(max_measurement), chunk_length, 1)
            }
            Self::Prio3Histogram { length, chunk_length }
            | Self::Prio3MultihotCountVec { length, chunk_length, .. } => {
                (u64::from(length), chunk_length, 1)
            }
            Self::Prio3SumVecField64MultiproofHmacSha256Aes128 {
                length,
                max_measurement,
                chunk_length,
                proofs,
            } => (u64::from(length) * bits(max_measurement), chunk_length, proofs),
            Self::Poplar1 { .. } => return None,
        };
        let chunk = u64::from(chunk).max(1);
        let points = 2 * (1 + elements.div_ceil(chunk)).next_power_of_two();
        Some((elements + 2 * chunk + points) * u64::from(proofs))
    }

    /// Refuses what is malformed, or so large that computing its exact sizes could overflow.
    pub(super) fn check(&self, draft: VdafDraft) -> Result<(), ConfigError> {
        let (length, bits, chunk_length, proofs) = match *self {
            Self::Prio3Count => (1, 1, 1, 1),
            Self::Prio3Sum { max_measurement } => (1, bits(draft, max_measurement)?, 1, 1),
            Self::Prio3SumVec { length, max_measurement, chunk_length } => {
                (length, bits(draft, max_measurement)?, chunk_length, 1)
            }
            Self::Prio3Histogram { length, chunk_length } => (length, 1, chunk_length, 1),
            Self::Prio3MultihotCountVec { length, max_weight, chunk_length } => {
                if !(1..=length.max(1)).contains(&max_weight) {
                    return Err(ConfigError::new("max_weight must be between 1 and length"));
                }
                (length, 1, chunk_length, 1)
            }
            Self::Prio3SumVecField64MultiproofHmacSha256Aes128 {
                length,
                max_measurement,
                chunk_length,
                proofs,
            } => {
                if !(2..=3).contains(&proofs) {
                    return Err(ConfigError::new("proofs must be 2 or 3"));
                }
                (length, bits(draft, max_measurement)?, chunk_length, proofs)
            }
            Self::Poplar1 { bits } => {
                return if (1..=POPLAR1_BITS_MAX).contains(&bits) {
                    Ok(())
                } else {
                    Err(ConfigError(format!("bits must be between 1 and {POPLAR1_BITS_MAX}")))
                };
            }
        };
        if length == 0 {
            return Err(ConfigError::new("length must be at least 1"));
        }
        if chunk_length == 0 {
            return Err(ConfigError::new("chunk_length must be at least 1"));
        }
        // 128 bits hold every product of these.
        let element = self.field(draft).element_len() as u128;
        let (length, bits) = (u128::from(length), u128::from(bits));
        if length * element > AGG_SHARE_BYTES_MAX as u128 {
            return Err(too_long("aggregate share", AGG_SHARE_BYTES_MAX));
        }
        let wire_seeds = 2 * u128::from(chunk_length) * u128::from(proofs);
        if (length * bits + wire_seeds) * element > INPUT_SHARE_BYTES_MAX as u128 {
            return Err(too_long("leader's input share", INPUT_SHARE_BYTES_MAX));
        }
        Ok(())
    }
}

/// How many bits hold `0..=max_measurement`.
pub(super) fn bits(draft: VdafDraft, max_measurement: u64) -> Result<u32, ConfigError> {
    if max_measurement == 0 {
        return Err(ConfigError::new("max_measurement must be at least 1"));
    }
    let bits = u64::BITS - max_measurement.leading_zeros();
    match draft {
        VdafDraft::V08 if max_measurement.count_ones() != bits => Err(ConfigError::new(format!(
            "DAP-09 can only bound integers by a number of bits, so max_measurement must be one less than a \
             power of two, not {max_measurement}"
        ))),
        VdafDraft::V08 | VdafDraft::V18 => Ok(bits),
    }
}

pub(super) fn too_long(what: &str, bytes_max: usize) -> ConfigError {
    ConfigError(format!("the {what} would be longer than {bytes_max} bytes"))
}

/// The JSON as people write it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
enum Written {
    Prio3Count,
    Prio3Sum {
        bits: Option<u32>,
        max_measurement: Option<u64>,
    },
    Prio3SumVec {
        length: u32,
        bits: Option<u32>,
        max_measurement: Option<u64>,
        chunk_length: u32,
    },
    Prio3Histogram {
        length: u32,
        chunk_length: u32,
    },
    Prio3MultihotCountVec {
        length: u32,
        max_weight: u32,
        chunk_length: u32,
    },
    Prio3SumVecField64MultiproofHmacSha256Aes128 {
        length: u32,
        bits: Option<u32>,
        max_measurement: Option<u64>,
        chunk_length: u32,
        proofs: u8,
    },
    Poplar1 {
        bits: u16,
    },
}

impl TryFrom<Written> for VdafConfig {
    type Error = ConfigError;

    fn try_from(written: Written) -> Result<Self, ConfigError> {
        Ok(match written {
            Written::Prio3Count => Self::Prio3Count,
            Written::Prio3Sum { bits, max_measurement } => {
                Self::Prio3Sum { max_measurement: range(bits, max_measurement)? }
            }
            Written::Prio3SumVec { length, bits, max_measurement, chunk_length } => {
                Self::Prio3SumVec {
                    length,
                    max_measurement: range(bits, max_measurement)?,
                    chunk_length,
                }
            }
            Written::Prio3Histogram { length, chunk_length } => {
                Self::Prio3Histogram { length, chunk_length }
            }
            Written::Prio3MultihotCountVec { length, max_weight, chunk_length } => {
                Self::Prio3MultihotCountVec { length, max_weight, chunk_length }
            }
            Written::Prio3SumVecField64MultiproofHmacSha256Aes128 {
                length,
                bits,
                max_measurement,
                chunk_length,
                proofs,
            } => Self::Prio3SumVecField64MultiproofHmacSha256Aes128 {
                length,
                max_measurement: range(bits, max_measurement)?,
                chunk_length,
                proofs,
            },
            Written::Poplar1 { bits } => Self::Poplar1 { bits },
        })
    }
}

fn range(bits: Option<u32>, max_measurement: Option<u64>) -> Result<u64, ConfigError> {
    match (bits, max_measurement) {
        (None, Some(max)) => Ok(max),
        (Some(bits @ 1..=64), None) => Ok(u64::MAX >> (64 - bits)),
        (Some(_), None) => Err(ConfigError::new("bits must be in 1..=64")),
        _ => Err(ConfigError::new("exactly one of `max_measurement` and `bits` must be given")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<VdafConfig, String> {
        serde_json::from_str(json).map_err(|e| e.to_string())
    }

    #[test]
    fn both_spellings_of_a_range_are_read_and_one_is_written() {
        let sum = VdafConfig::Prio3Sum { max_measurement: 255 };
        assert_eq!(parse(r#"{"Prio3Sum":{"bits":8}}"#), Ok(sum));
        assert_eq!(parse(r#"{"Prio3Sum":{"max_measurement":255}}"#), Ok(sum));
        assert_eq!(serde_json::to_string(&sum).unwrap(), r#"{"Prio3Sum":{"max_measurement":255}}"#);
        assert_eq!(
            parse(r#"{"Prio3Sum":{"bits":64}}"#),
            Ok(VdafConfig::Prio3Sum { max_measurement: u64::MAX })
        );
        assert_eq!(parse(r#""Prio3Count""#), Ok(VdafConfig::Prio3Count));
        assert_eq!(serde_json::to_string(&VdafConfig::Prio3Count).unwrap(), r#""Prio3Count""#);
        let multiproof = r#"{"Prio3SumVecField64MultiproofHmacSha256Aes128":{"length":3,"max_measurement":1,"chunk_length":2,"proofs":3}}"#;
        assert_eq!(serde_json::to_string(&parse(multiproof).unwrap()).unwrap(), multiproof);
        for json in [
            r#"{"Prio3SumVec":{"bits":1,"length":1000,"chunk_length":32}}"#,
            r#"{"Prio3Histogram":{"length":100,"chunk_length":10}}"#,
            r#"{"Prio3MultihotCountVec":{"length":100,"max_weight":3,"chunk_length":10}}"#,
            r#"{"Poplar1":{"bits":256}}"#,
        ] {
            let config = parse(json).unwrap();
            assert_eq!(parse(&serde_json::to_string(&config).unwrap()), Ok(config));
        }
    }

    #[test]
    fn what_is_not_a_configuration_is_refused() {
        for bad in [
            r#"{"Prio3Sum":{}}"#,
            r#"{"Prio3Sum":{"bits":8,"max_measurement":255}}"#,
            r#"{"Prio3Sum":{"bits":0}}"#,
            r#"{"Prio3Sum":{"bits":65}}"#,
            r#"{"Prio3Sum":{"bits":8,"length":1}}"#,
            r#"{"Prio3Histogram":{"length":1}}"#,
            r#"{"Prio3Histogram":{"length":1,"chunk_length":1,"bits":1}}"#,
            r#"{"Prio3Histogram":{"length":4294967296,"chunk_length":1}}"#,
            r#"{"Prio3Histogram":{"length":-1,"chunk_length":1}}"#,
            r#"{"Prio3MultihotCountVec":{"length":1,"chunk_length":1}}"#,
            r#"{"Poplar1":{}}"#,
            r#"{"Poplar1":{"bits":65536}}"#,
            r#"{"Poplar1":{"bits":8,"length":8}}"#,
            r#""Prio3Sum""#,
            "3",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert!(
            parse(r#"{"Prio3Sum":{}}"#)
                .unwrap_err()
                .starts_with("exactly one of `max_measurement` and `bits` must be given")
        );
    }
}
