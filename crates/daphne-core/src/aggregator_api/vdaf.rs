//! VDAFs as the aggregator API spells them.

use serde::{Deserialize, Serialize};

use crate::{task::TaskError, vdaf::VdafConfig};

/// A task's VDAF: `"Prio3Count"`, `{"Prio3Sum":{"bits":8}}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum VdafJson {
    /// [`VdafConfig::Prio3Count`].
    Prio3Count,
    /// [`VdafConfig::Prio3Sum`].
    Prio3Sum {
        /// Of a measurement.
        bits: u32,
    },
    /// [`VdafConfig::Prio3SumVec`].
    Prio3SumVec {
        /// Of an element.
        bits: u32,
        /// Of a measurement.
        length: u32,
        /// Needed, though it may be spelt as nothing.
        chunk_length: Option<u32>,
        /// Always written.
        #[serde(default)]
        dp_strategy: DpStrategy,
    },
    /// [`VdafConfig::Prio3SumVec`] of one bit, as Divvi Up's control plane asks for a `count-vec`.
    Prio3CountVec {
        /// Of a measurement.
        length: u32,
        /// As above.
        chunk_length: Option<u32>,
    },
    /// [`VdafConfig::Prio3Histogram`].
    Prio3Histogram {
        /// Buckets.
        length: u32,
        /// As above.
        chunk_length: Option<u32>,
        /// As above.
        #[serde(default)]
        dp_strategy: DpStrategy,
    },
    /// [`VdafConfig::Prio3MultihotCountVec`].
    Prio3MultihotCountVec {
        /// Of a measurement.
        length: u32,
        /// Most elements set.
        max_weight: u32,
        /// As above.
        chunk_length: Option<u32>,
    },
    /// [`VdafConfig::Prio3SumVecField64MultiproofHmacSha256Aes128`].
    Prio3SumVecField64MultiproofHmacSha256Aes128 {
        /// Per report.
        proofs: u8,
        /// Of an element.
        bits: u32,
        /// Of a measurement.
        length: u32,
        /// As above.
        chunk_length: Option<u32>,
        /// As above.
        #[serde(default)]
        dp_strategy: DpStrategy,
    },
    /// [`VdafConfig::Poplar1`].
    Poplar1 {
        /// Of a measurement.
        bits: u16,
    },
}

/// What noise is added, by name and with a budget. We add none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DpStrategy {
    dp_strategy: String,
    /// Read only to be refused together with the strategy.
    #[serde(default, skip_serializing)]
    budget: Option<serde::de::IgnoredAny>,
}

const NO_DP: &str = "NoDifferentialPrivacy";

impl Default for DpStrategy {
    fn default() -> Self {
        Self { dp_strategy: NO_DP.to_owned(), budget: None }
    }
}

impl DpStrategy {
    fn check(&self) -> Result<(), TaskError> {
        if self.dp_strategy == NO_DP && self.budget.is_none() {
            Ok(())
        } else {
            Err(TaskError::new(
                "dp_strategy must be NoDifferentialPrivacy: this aggregator adds no noise",
            ))
        }
    }
}

fn max_measurement(bits: u32) -> Result<u64, TaskError> {
    match bits {
        1..=64 => Ok(u64::MAX >> (64 - bits)),
        _ => Err(TaskError::new("bits must be between 1 and 64")),
    }
}

fn needed(chunk_length: Option<u32>) -> Result<u32, TaskError> {
    chunk_length.ok_or_else(|| TaskError::new("chunk_length is needed: leader and helper share it"))
}

impl VdafJson {
    /// The VDAF, and whether it was called `Prio3CountVec`.
    ///
    /// # Errors
    /// The control plane's fault: one sentence that says what to change.
    pub(super) fn config(&self) -> Result<(VdafConfig, bool), TaskError> {
        let config = match self {
            Self::Prio3Count => VdafConfig::Prio3Count,
            Self::Prio3Sum { bits } => {
                VdafConfig::Prio3Sum { max_measurement: max_measurement(*bits)? }
            }
            Self::Prio3SumVec { bits, length, chunk_length, dp_strategy } => {
                dp_strategy.check()?;
                VdafConfig::Prio3SumVec {
                    length: *length,
                    max_measurement: max_measurement(*bits)?,
                    chunk_length: needed(*chunk_length)?,
                }
            }
            Self::Prio3CountVec { length, chunk_length } => VdafConfig::Prio3SumVec {
                length: *length,
                max_measurement: 1,
                chunk_length: needed(*chunk_length)?,
            },
            Self::Prio3Histogram { length, chunk_length, dp_strategy } => {
                dp_strategy.check()?;
                VdafConfig::Prio3Histogram { length: *length, chunk_length: needed(*chunk_length)? }
            }
            Self::Prio3MultihotCountVec { length, max_weight, chunk_length } => {
                VdafConfig::Prio3MultihotCountVec {
                    length: *length,
                    max_weight: *max_weight,
                    chunk_length: needed(*chunk_length)?,
                }
            }
            Self::Prio3SumVecField64MultiproofHmacSha256Aes128 {
                proofs,
                bits,
                length,
                chunk_length,
                dp_strategy,
            } => {
                dp_strategy.check()?;
                VdafConfig::Prio3SumVecField64MultiproofHmacSha256Aes128 {
                    length: *length,
                    max_measurement: max_measurement(*bits)?,
                    chunk_length: needed(*chunk_length)?,
                    proofs: *proofs,
                }
            }
            Self::Poplar1 { bits } => VdafConfig::Poplar1 { bits: *bits },
        };
        Ok((config, matches!(self, Self::Prio3CountVec { .. })))
    }

    /// How a task's VDAF is told, which is how it was asked for.
    pub(super) fn of(config: &VdafConfig, is_count_vec: bool) -> Self {
        let bits = |max_measurement: u64| u64::BITS - max_measurement.leading_zeros();
        let dp_strategy = DpStrategy::default();
        match *config {
            VdafConfig::Prio3Count => Self::Prio3Count,
            VdafConfig::Prio3Sum { max_measurement } => {
                Self::Prio3Sum { bits: bits(max_measurement) }
            }
            VdafConfig::Prio3SumVec { length, chunk_length, .. } if is_count_vec => {
                Self::Prio3CountVec { length, chunk_length: Some(chunk_length) }
            }
            VdafConfig::Prio3SumVec { length, max_measurement, chunk_length } => {
                Self::Prio3SumVec {
                    bits: bits(max_measurement),
                    length,
                    chunk_length: Some(chunk_length),
                    dp_strategy,
                }
            }
            VdafConfig::Prio3Histogram { length, chunk_length } => {
                Self::Prio3Histogram { length, chunk_length: Some(chunk_length), dp_strategy }
            }
            VdafConfig::Prio3MultihotCountVec { length, max_weight, chunk_length } => {
                Self::Prio3MultihotCountVec { length, max_weight, chunk_length: Some(chunk_length) }
            }
            VdafConfig::Prio3SumVecField64MultiproofHmacSha256Aes128 {
                length,
                max_measurement,
                chunk_length,
                proofs,
            } => Self::Prio3SumVecField64MultiproofHmacSha256Aes128 {
                proofs,
                bits: bits(max_measurement),
                length,
                chunk_length: Some(chunk_length),
                dp_strategy,
            },
            VdafConfig::Poplar1 { bits } => Self::Poplar1 { bits },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> VdafJson {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn what_is_asked_for_is_echoed_as_it_was_spelt() {
        for json in [
            r#""Prio3Count""#,
            r#"{"Prio3Sum":{"bits":8}}"#,
            r#"{"Prio3Sum":{"bits":64}}"#,
            r#"{"Prio3SumVec":{"bits":8,"length":20,"chunk_length":12,"dp_strategy":{"dp_strategy":"NoDifferentialPrivacy"}}}"#,
            r#"{"Prio3CountVec":{"length":20,"chunk_length":4}}"#,
            r#"{"Prio3Histogram":{"length":16,"chunk_length":4,"dp_strategy":{"dp_strategy":"NoDifferentialPrivacy"}}}"#,
            r#"{"Prio3MultihotCountVec":{"length":16,"max_weight":3,"chunk_length":4}}"#,
            r#"{"Prio3SumVecField64MultiproofHmacSha256Aes128":{"proofs":3,"bits":1,"length":10,"chunk_length":3,"dp_strategy":{"dp_strategy":"NoDifferentialPrivacy"}}}"#,
            r#"{"Poplar1":{"bits":256}}"#,
        ] {
            let (config, is_count_vec) = parse(json).config().unwrap();
            let echo = VdafJson::of(&config, is_count_vec);
            assert_eq!(serde_json::to_string(&echo).unwrap(), json);
        }
        let vec = parse(r#"{"Prio3CountVec":{"length":20,"chunk_length":4}}"#).config().unwrap().0;
        let expected = VdafConfig::Prio3SumVec { length: 20, max_measurement: 1, chunk_length: 4 };
        assert_eq!(vec, expected);
        // A strategy may be left out, and is told all the same.
        let (config, _) =
            parse(r#"{"Prio3Histogram":{"length":16,"chunk_length":4}}"#).config().unwrap();
        assert!(serde_json::to_string(&VdafJson::of(&config, false)).unwrap().contains(NO_DP));
    }

    #[test]
    fn noise_and_missing_parameters_are_refused_with_a_reason() {
        for (json, reason) in [
            (
                r#"{"Prio3Histogram":{"length":16,"chunk_length":4,"dp_strategy":{"dp_strategy":"PureDpDiscreteLaplace","budget":{"epsilon":[[1],[1]]}}}}"#,
                "adds no noise",
            ),
            (
                r#"{"Prio3SumVec":{"bits":1,"length":16,"chunk_length":4,"dp_strategy":{"dp_strategy":"NoDifferentialPrivacy","budget":{"epsilon":[[1],[1]]}}}}"#,
                "adds no noise",
            ),
            (
                r#"{"Prio3SumVecField64MultiproofHmacSha256Aes128":{"proofs":2,"bits":1,"length":16,"chunk_length":4,"dp_strategy":{"dp_strategy":"Other"}}}"#,
                "adds no noise",
            ),
            (r#"{"Prio3Histogram":{"length":16,"chunk_length":null}}"#, "chunk_length"),
            (r#"{"Prio3CountVec":{"length":16}}"#, "chunk_length"),
            (r#"{"Prio3Sum":{"bits":0}}"#, "bits"),
            (r#"{"Prio3Sum":{"bits":65}}"#, "bits"),
        ] {
            let why = parse(json).config().unwrap_err().to_string();
            assert!(why.contains(reason), "{json}: {why}");
        }
        for json in [r#""Prio3Sum""#, r#"{"Prio3Histogram":{"buckets":[1,2],"chunk_length":1}}"#] {
            assert!(serde_json::from_str::<VdafJson>(json).is_err(), "{json}");
        }
    }
}
