//! The VDAFs that are measured, with parameters that are the same for every version, and what clients measure.

use clap::ValueEnum;
use daphne_core::{
    vdaf::{AggregationParam, BitString, Measurement, Vdaf, VdafConfig},
    version::DapVersion,
};
use serde::{Deserialize, Serialize};

/// A VDAF with the parameters that it is measured with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Prio3Count.
    Count,
    /// Prio3Sum of 8 bits.
    Sum,
    /// Prio3Histogram of 100 buckets, chunks of 10.
    Histogram,
    /// Prio3SumVec of 1,000 elements of one bit, chunks of 32.
    Sumvec,
    /// Prio3MultihotCountVec of 100 elements, at most 10 of them set, chunks of 10.
    MultihotCountvec,
    /// Prio3SumVecField64MultiproofHmacSha256Aes128 of 1,000 elements of one bit, chunks of 32, two proofs.
    SumvecField64Multiproof,
    /// Poplar1 of 16 bits, asked for all prefixes of four.
    Poplar1,
}

/// Bits of the prefixes that Poplar1 is asked for.
const PREFIX_BITS: u32 = 4;

impl Kind {
    /// All of them, in the order of the table.
    pub fn all() -> Vec<Self> {
        Self::value_variants().to_vec()
    }

    /// Name and parameters.
    pub const fn config(self) -> VdafConfig {
        match self {
            Self::Count => VdafConfig::Prio3Count,
            Self::Sum => VdafConfig::Prio3Sum { max_measurement: 255 },
            Self::Histogram => VdafConfig::Prio3Histogram { length: 100, chunk_length: 10 },
            Self::Sumvec => {
                VdafConfig::Prio3SumVec { length: 1_000, max_measurement: 1, chunk_length: 32 }
            }
            Self::MultihotCountvec => {
                VdafConfig::Prio3MultihotCountVec { length: 100, max_weight: 10, chunk_length: 10 }
            }
            Self::SumvecField64Multiproof => {
                VdafConfig::Prio3SumVecField64MultiproofHmacSha256Aes128 {
                    length: 1_000,
                    max_measurement: 1,
                    chunk_length: 32,
                    proofs: 2,
                }
            }
            Self::Poplar1 => VdafConfig::Poplar1 { bits: 16 },
        }
    }

    /// The kind with these parameters, if there is one.
    pub fn of(config: &VdafConfig) -> Option<Self> {
        Self::all().into_iter().find(|kind| kind.config() == *config)
    }

    /// As options and results spell it.
    pub fn name(self) -> String {
        self.to_possible_value().map(|v| v.get_name().to_owned()).unwrap_or_default()
    }

    /// CPU microseconds per report of native Janus 0.7 with Postgres, as a helper of DAP-09: measured once, on two cores of
    /// about the kind that we measure on, with jobs of 500, four at a time. A mark to compare with, and no figure of this
    /// machine.
    pub const fn janus_us(self) -> Option<f64> {
        match self {
            Self::Count => Some(200.0),
            Self::Histogram => Some(230.0),
            Self::Sumvec => Some(380.0),
            Self::Sum | Self::MultihotCountvec | Self::SumvecField64Multiproof | Self::Poplar1 => {
                None
            }
        }
    }
}

/// Reads a version: `dap-09`, `dap-18`, or just the number.
pub fn version(text: &str) -> Result<DapVersion, String> {
    let known = |v: &DapVersion| text == v.tag() || v.tag().strip_prefix("dap-") == Some(text);
    let tags: Vec<&str> = DapVersion::ALL.iter().map(|v| v.tag()).collect();
    DapVersion::ALL
        .into_iter()
        .find(known)
        .ok_or_else(|| format!("a version is one of {}", tags.join(", ")))
}

/// The bits of the largest measurement.
pub const fn bits(max_measurement: u64) -> u32 {
    u64::BITS - max_measurement.leading_zeros()
}

/// What the n-th client measures: spread over the VDAF's range, and the same in each run.
pub fn measurement(config: &VdafConfig, n: u64) -> Measurement {
    // Of a multiplicative hash the high bits are the good ones.
    let mixed = |n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    let below = |n: u64, max: u64| if max == u64::MAX { mixed(n) } else { mixed(n) % (max + 1) };
    match *config {
        VdafConfig::Prio3Count => Measurement::Count(mixed(n) % 3 == 0),
        VdafConfig::Prio3Sum { max_measurement } => Measurement::Sum(below(n, max_measurement)),
        VdafConfig::Prio3SumVec { length, max_measurement, .. }
        | VdafConfig::Prio3SumVecField64MultiproofHmacSha256Aes128 {
            length,
            max_measurement,
            ..
        } => {
            let element = |i: u32| below(n * u64::from(length) + u64::from(i), max_measurement);
            Measurement::SumVec((0..length).map(element).collect())
        }
        VdafConfig::Prio3Histogram { length, .. } => {
            Measurement::Histogram(below(n, u64::from(length) - 1) as usize)
        }
        VdafConfig::Prio3MultihotCountVec { length, max_weight, .. } => {
            let (length, first) = (u64::from(length), mixed(n));
            let set = first % (u64::from(max_weight) + 1);
            let is_set = |i: u64| (i + length - first % length) % length < set;
            Measurement::MultihotCountVec((0..length).map(is_set).collect())
        }
        VdafConfig::Poplar1 { bits } => {
            let bit = |i: u16| if mixed(n + (u64::from(i) << 20)) & 1 == 1 { '1' } else { '0' };
            let text: String = (0..bits).map(bit).collect();
            Measurement::Poplar1(text.parse().expect("bits"))
        }
    }
}

/// What is asked of the reports: all short prefixes of Poplar1, of others nothing in particular.
pub fn agg_param(vdaf: &Vdaf) -> AggregationParam {
    let VdafConfig::Poplar1 { bits } = *vdaf.config() else {
        return vdaf.decode_agg_param(&[]).expect("a VDAF without a choice");
    };
    let width = PREFIX_BITS.min(u32::from(bits)) as usize;
    let prefixes: Vec<BitString> =
        (0..1_u32 << width).map(|n| format!("{n:0width$b}").parse().expect("bits")).collect();
    vdaf.prefixes(&prefixes).expect("prefixes of the VDAF")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_can_be_measured_in_every_version() {
        for kind in Kind::all() {
            assert_eq!(Kind::of(&kind.config()), Some(kind));
            for version in DapVersion::ALL {
                let vdaf = Vdaf::new(version.vdaf_draft(), kind.config()).unwrap();
                let all: Vec<_> = (0..50).map(|n| measurement(&kind.config(), n)).collect();
                assert!(vdaf.truth(&agg_param(&vdaf), all.iter()).is_ok(), "{kind:?}");
                assert!(all.iter().any(|m| *m != all[0]), "{kind:?} measures more than one thing");
            }
        }
    }

    #[test]
    fn versions_are_tags_or_numbers() {
        assert_eq!(version("dap-09"), Ok(DapVersion::V09));
        assert_eq!(version("18"), Ok(DapVersion::V18));
        assert_eq!(version("10"), Err("a version is one of dap-09, dap-18".to_owned()));
    }
}
