//! Medians and percentiles.

use serde::{Deserialize, Serialize};

/// What several rounds measured of one thing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Range {
    /// The round in the middle, or the mean of the two there.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

/// How long jobs took, in milliseconds, from the request's first byte to the answer's last. Of a VDAF of two rounds, both
/// requests of a job together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Half of the jobs took at most this.
    pub p50: f64,
    /// Nine of ten.
    pub p90: f64,
    /// All but one in a hundred.
    pub p99: f64,
    /// All.
    pub max: f64,
}

impl Range {
    /// Of these; `None` of nothing.
    pub fn of(mut samples: Vec<f64>) -> Option<Self> {
        samples.sort_by(f64::total_cmp);
        let (min, max) = (*samples.first()?, *samples.last()?);
        let (low, high) = (samples[(samples.len() - 1) / 2], samples[samples.len() / 2]);
        Some(Self { median: f64::midpoint(low, high), min, max })
    }
}

impl Latency {
    /// Of these, in milliseconds.
    pub fn of(mut samples: Vec<f64>) -> Self {
        samples.sort_by(f64::total_cmp);
        let at = |share: f64| percentile(&samples, share);
        Self { p50: at(0.5), p90: at(0.9), p99: at(0.99), max: at(1.0) }
    }
}

/// The smallest of sorted samples that this share of them do not exceed; 0 of nothing.
fn percentile(sorted: &[f64], share: f64) -> f64 {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_one_of_the_samples() {
        let latency = Latency::of((1..=200).rev().map(f64::from).collect());
        assert_eq!(latency, Latency { p50: 100.0, p90: 180.0, p99: 198.0, max: 200.0 });
        let one = Latency::of(vec![7.0]);
        assert_eq!(one, Latency { p50: 7.0, p90: 7.0, p99: 7.0, max: 7.0 });
        let two = Latency::of(vec![9.0, 7.0]);
        assert_eq!((two.p50, two.p90), (7.0, 9.0));
        assert_eq!(Latency::of(Vec::new()), Latency::default());
    }

    #[test]
    fn the_median_is_in_the_middle() {
        let range = |samples: &[f64]| Range::of(samples.to_vec());
        assert_eq!(range(&[3.0, 1.0, 8.0]), Some(Range { median: 3.0, min: 1.0, max: 8.0 }));
        assert_eq!(range(&[3.0, 1.0]), Some(Range { median: 2.0, min: 1.0, max: 3.0 }));
        assert_eq!(range(&[]), None);
    }
}
