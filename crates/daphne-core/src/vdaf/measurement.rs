//! What clients contribute and what the collector learns.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use super::{AggregationParam, BitString, VdafConfig};

/// A measurement does not fit its VDAF, or could not be shared. The fault of whoever supplies it; the text is
/// one sentence for them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct MeasurementError(pub(super) String);

impl MeasurementError {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

/// One client's contribution, in the clear.
#[derive(Clone, PartialEq, Eq)]
pub enum Measurement {
    /// For [`VdafConfig::Prio3Count`].
    Count(bool),
    /// For [`VdafConfig::Prio3Sum`], in `0..=max_measurement`.
    Sum(u64),
    /// For both sums of vectors: `length` elements, each in `0..=max_measurement`.
    SumVec(Vec<u64>),
    /// For [`VdafConfig::Prio3Histogram`]: the bucket's index, in `[0, length)`.
    Histogram(usize),
    /// For [`VdafConfig::Prio3MultihotCountVec`]: `length` elements, at most `max_weight` of them set.
    MultihotCountVec(Vec<bool>),
    /// For [`VdafConfig::Poplar1`]: as many bits as its parameter says.
    Poplar1(BitString),
}

/// Names the type only: a measurement is what the protocol hides.
impl fmt::Debug for Measurement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Measurement")
    }
}

impl Measurement {
    /// Reads a measurement for a VDAF from JSON: a count is `true`, `false`, `0` or `1`; a sum is a number; a
    /// sum of vectors is an array of numbers; a histogram is the bucket's index; a multihot vector is an array of
    /// `true`, `false`, `0` and `1`; Poplar1's is a string of the characters `0` and `1`.
    ///
    /// # Errors
    /// [`MeasurementError`] if the value has another type, length or range.
    pub fn from_json(
        config: &VdafConfig,
        value: &serde_json::Value,
    ) -> Result<Self, MeasurementError> {
        let number = |value: &serde_json::Value| {
            value.as_u64().ok_or_else(|| {
                MeasurementError::new("the measurement must be made of non-negative integers")
            })
        };
        let array = || {
            value
                .as_array()
                .ok_or_else(|| MeasurementError::new("the measurement must be an array"))
        };
        let measurement = match config {
            VdafConfig::Prio3Count => Self::Count(flag(value).ok_or_else(|| {
                MeasurementError::new("the measurement must be true, false, 0 or 1")
            })?),
            VdafConfig::Prio3Sum { .. } => Self::Sum(number(value)?),
            VdafConfig::Prio3SumVec { .. }
            | VdafConfig::Prio3SumVecField64MultiproofHmacSha256Aes128 { .. } => {
                Self::SumVec(array()?.iter().map(number).collect::<Result<_, _>>()?)
            }
            VdafConfig::Prio3Histogram { .. } => Self::Histogram(
                usize::try_from(number(value)?)
                    .map_err(|_| MeasurementError::new("the measurement is too large"))?,
            ),
            VdafConfig::Prio3MultihotCountVec { .. } => Self::MultihotCountVec(
                array()?.iter().map(flag).collect::<Option<_>>().ok_or_else(|| {
                    MeasurementError::new("the measurement must be made of true, false, 0 and 1")
                })?,
            ),
            VdafConfig::Poplar1 { .. } => {
                Self::Poplar1(value.as_str().and_then(|text| text.parse().ok()).ok_or_else(
                    || MeasurementError::new("the measurement must be a string of 0 and 1"),
                )?)
            }
        };
        measurement.check(config)?;
        Ok(measurement)
    }

    /// Checks kind, length and range, which `prio` answers with a panic in places.
    pub(super) fn check(&self, config: &VdafConfig) -> Result<(), MeasurementError> {
        let in_range = |n: u64, max: u64| {
            if n <= max {
                Ok(())
            } else {
                Err(MeasurementError(format!("the measurement has a number larger than {max}")))
            }
        };
        let has_length = |len: usize, length: u32| {
            if len as u64 == u64::from(length) {
                Ok(())
            } else {
                Err(MeasurementError(format!("the measurement must have {length} elements")))
            }
        };
        match (config, self) {
            (VdafConfig::Prio3Count, Self::Count(_)) => Ok(()),
            (VdafConfig::Prio3Sum { max_measurement }, Self::Sum(n)) => {
                in_range(*n, *max_measurement)
            }
            (
                VdafConfig::Prio3SumVec { length, max_measurement, .. }
                | VdafConfig::Prio3SumVecField64MultiproofHmacSha256Aes128 {
                    length,
                    max_measurement,
                    ..
                },
                Self::SumVec(v),
            ) => {
                has_length(v.len(), *length)?;
                v.iter().try_for_each(|n| in_range(*n, *max_measurement))
            }
            (VdafConfig::Prio3Histogram { length, .. }, Self::Histogram(i)) => {
                if (*i as u64) < u64::from(*length) {
                    Ok(())
                } else {
                    Err(MeasurementError(format!("the measurement must be below {length}")))
                }
            }
            (
                VdafConfig::Prio3MultihotCountVec { length, max_weight, .. },
                Self::MultihotCountVec(v),
            ) => {
                has_length(v.len(), *length)?;
                if v.iter().filter(|b| **b).count() as u64 <= u64::from(*max_weight) {
                    Ok(())
                } else {
                    Err(MeasurementError(format!(
                        "the measurement must have at most {max_weight} elements set"
                    )))
                }
            }
            (VdafConfig::Poplar1 { bits }, Self::Poplar1(string)) => {
                if string.len() == usize::from(*bits) {
                    Ok(())
                } else {
                    Err(MeasurementError(format!("the measurement must have {bits} bits")))
                }
            }
            (config, _) => {
                Err(MeasurementError(format!("the measurement is not one for {}", config.name())))
            }
        }
    }
}

fn flag(value: &serde_json::Value) -> Option<bool> {
    value.as_bool().or(match value.as_u64() {
        Some(n @ 0..=1) => Some(n == 1),
        _ => None,
    })
}

/// The exact aggregate of measurements in the clear, which a correct run must reproduce; for tests and tools.
///
/// # Errors
/// [`MeasurementError`] if a measurement does not fit.
pub(super) fn truth<'a>(
    config: &VdafConfig,
    agg_param: &AggregationParam,
    measurements: impl Iterator<Item = &'a Measurement>,
) -> Result<AggregateResult, MeasurementError> {
    let prefixes = agg_param.prefixes();
    let level = agg_param.level();
    let mut result = match config {
        VdafConfig::Prio3Count | VdafConfig::Prio3Sum { .. } => AggregateResult::Number(0),
        VdafConfig::Prio3SumVec { length, .. }
        | VdafConfig::Prio3Histogram { length, .. }
        | VdafConfig::Prio3MultihotCountVec { length, .. }
        | VdafConfig::Prio3SumVecField64MultiproofHmacSha256Aes128 { length, .. } => {
            AggregateResult::Vector(vec![0; *length as usize])
        }
        VdafConfig::Poplar1 { .. } => AggregateResult::Vector(vec![0; prefixes.len()]),
    };
    for measurement in measurements {
        measurement.check(config)?;
        match (&mut result, measurement) {
            (AggregateResult::Number(sum), Measurement::Count(b)) => *sum += u128::from(*b),
            (AggregateResult::Number(sum), Measurement::Sum(n)) => *sum += u128::from(*n),
            (AggregateResult::Vector(sums), Measurement::SumVec(v)) => {
                sums.iter_mut().zip(v).for_each(|(sum, n)| *sum += u128::from(*n));
            }
            (AggregateResult::Vector(sums), Measurement::Histogram(i)) => {
                if let Some(sum) = sums.get_mut(*i) {
                    *sum += 1;
                }
            }
            (AggregateResult::Vector(sums), Measurement::MultihotCountVec(v)) => {
                sums.iter_mut().zip(v).for_each(|(sum, b)| *sum += u128::from(*b));
            }
            (AggregateResult::Vector(sums), Measurement::Poplar1(string)) => {
                let prefix = string.prefix(level.map_or(0, |level| usize::from(level) + 1));
                if let Ok(i) = prefixes.binary_search(&prefix)
                    && let Some(sum) = sums.get_mut(i)
                {
                    *sum += 1;
                }
            }
            _ => {
                return Err(MeasurementError::new("the measurement is not one for this VDAF"));
            }
        }
    }
    Ok(result)
}

/// What the collector learns. In JSON a number beyond 64 bits is a string of decimal digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AggregateResult {
    /// Of a count or a sum, in `[0, p)` for the prime `p` of the VDAF's field.
    Number(u128),
    /// Of a sum of vectors, a histogram or multihot vectors: `length` such numbers. Of Poplar1: how many measurements
    /// begin with each of the parameter's prefixes, in their order.
    Vector(Vec<u128>),
}

impl fmt::Display for AggregateResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(n) => n.fmt(f),
            Self::Vector(v) => f.debug_list().entries(v).finish(),
        }
    }
}

impl From<u64> for AggregateResult {
    fn from(n: u64) -> Self {
        Self::Number(n.into())
    }
}

impl From<u128> for AggregateResult {
    fn from(n: u128) -> Self {
        Self::Number(n)
    }
}

impl From<Vec<u64>> for AggregateResult {
    fn from(v: Vec<u64>) -> Self {
        Self::Vector(v.into_iter().map(u128::from).collect())
    }
}

impl From<Vec<u128>> for AggregateResult {
    fn from(v: Vec<u128>) -> Self {
        Self::Vector(v)
    }
}

impl Serialize for AggregateResult {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Number(n) => Number::from(*n).serialize(s),
            Self::Vector(v) => s.collect_seq(v.iter().map(|n| Number::from(*n))),
        }
    }
}

impl<'de> Deserialize<'de> for AggregateResult {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(Number),
            Vector(Vec<Number>),
        }
        let number = |n: Number| n.read().ok_or_else(|| D::Error::custom("expected a number"));
        Ok(match Written::deserialize(d)? {
            Written::Number(n) => Self::Number(number(n)?),
            Written::Vector(v) => {
                Self::Vector(v.into_iter().map(number).collect::<Result<_, _>>()?)
            }
        })
    }
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Number {
    Small(u64),
    Large(String),
}

impl From<u128> for Number {
    fn from(n: u128) -> Self {
        u64::try_from(n).map_or_else(|_| Self::Large(n.to_string()), Self::Small)
    }
}

impl Number {
    fn read(&self) -> Option<u128> {
        match self {
            Self::Small(n) => Some((*n).into()),
            Self::Large(text) => text.parse().ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn measurements_are_read_and_checked() {
        let vec = VdafConfig::Prio3SumVec { length: 2, max_measurement: 3, chunk_length: 1 };
        let histogram = VdafConfig::Prio3Histogram { length: 4, chunk_length: 2 };
        let sum = VdafConfig::Prio3Sum { max_measurement: 255 };
        let read =
            |config, value| Measurement::from_json(config, &value).map_err(|e| e.to_string());
        assert!(read(&VdafConfig::Prio3Count, json!(true)) == Ok(Measurement::Count(true)));
        assert!(read(&VdafConfig::Prio3Count, json!(0)) == Ok(Measurement::Count(false)));
        assert!(read(&sum, json!(255)) == Ok(Measurement::Sum(255)));
        assert!(read(&vec, json!([0, 3])) == Ok(Measurement::SumVec(vec![0, 3])));
        assert!(read(&histogram, json!(3)) == Ok(Measurement::Histogram(3)));
        let multihot =
            VdafConfig::Prio3MultihotCountVec { length: 3, max_weight: 2, chunk_length: 1 };
        let set = Measurement::MultihotCountVec(vec![true, false, true]);
        assert!(read(&multihot, json!([true, false, true])) == Ok(set.clone()));
        assert!(read(&multihot, json!([1, 0, 1])) == Ok(set));
        let poplar1 = VdafConfig::Poplar1 { bits: 4 };
        let string = Measurement::Poplar1("0110".parse().unwrap());
        assert!(read(&poplar1, json!("0110")) == Ok(string));
        for (config, bad) in [
            (&VdafConfig::Prio3Count, json!(2)),
            (&VdafConfig::Prio3Count, json!("1")),
            (&sum, json!(256)),
            (&sum, json!(-1)),
            (&sum, json!(1.5)),
            (&sum, json!(null)),
            (&vec, json!([1])),
            (&vec, json!([1, 4])),
            (&vec, json!(1)),
            (&vec, json!([1, "2"])),
            (&histogram, json!(4)),
            (&histogram, json!([0])),
            (&multihot, json!([1, 1, 1])),
            (&multihot, json!([1, 0])),
            (&multihot, json!([1, 0, 2])),
            (&multihot, json!([1, 0, null])),
            (&multihot, json!("101")),
            (&poplar1, json!("011")),
            (&poplar1, json!("01100")),
            (&poplar1, json!("012 ")),
            (&poplar1, json!(110)),
            (&poplar1, json!([0, 1, 1, 0])),
        ] {
            assert!(read(config, bad.clone()).is_err(), "{config:?} {bad}");
        }
    }

    #[test]
    fn results_survive_json_exactly() {
        for (result, text, json) in [
            (AggregateResult::Number(7), "7", json!(7)),
            (
                AggregateResult::Number(1 << 64),
                "18446744073709551616",
                json!("18446744073709551616"),
            ),
            (AggregateResult::Vector(vec![1, 2]), "[1, 2]", json!([1, 2])),
            (
                AggregateResult::Vector(vec![u128::from(u64::MAX), u128::MAX]),
                "[18446744073709551615, 340282366920938463463374607431768211455]",
                json!([u64::MAX, u128::MAX.to_string()]),
            ),
        ] {
            assert_eq!(result.to_string(), text);
            assert_eq!(serde_json::to_value(&result).unwrap(), json);
            assert_eq!(serde_json::from_value::<AggregateResult>(json).unwrap(), result);
        }
        for bad in [
            json!(-1),
            json!("x"),
            json!(1.5),
            json!(["1", null]),
            json!(u128::MAX.to_string() + "0"),
        ] {
            assert!(serde_json::from_value::<AggregateResult>(bad).is_err());
        }
    }
}
