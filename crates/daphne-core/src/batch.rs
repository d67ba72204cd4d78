//! Batches: the buckets reports accumulate in, the ranges collections ask for, and the facts that leader and
//! helper compare about them.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    error::{Abort, AbortKind},
    ids::{BatchId, ReportId},
    message::BatchSelector,
    time::{Duration, Interval, Time},
};

/// How reports are gathered into batches. DAP-09 §4.1 "query type", DAP-18 §5 "batch mode".
#[doc(alias = "QueryType")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BatchMode {
    /// By the reports' own time.
    TimeInterval,
    /// By a batch id that the leader chooses for each job.
    #[doc(alias = "FixedSize")]
    LeaderSelected,
}

/// The smallest set of reports that is summed separately. DAP-18 §4.5.4.3.
///
/// Ordered, and encoded so that the encodings order the same way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum BatchBucket {
    /// Time-interval: the start of a window one time precision long.
    Window(Time),
    /// Leader-selected: the whole batch.
    Batch(BatchId),
}

impl BatchBucket {
    /// 8 or 32 bytes, big-endian.
    pub fn to_key(self) -> Vec<u8> {
        match self {
            Self::Window(start) => start.as_seconds().to_be_bytes().to_vec(),
            Self::Batch(id) => id.as_bytes().to_vec(),
        }
    }
}

/// The buckets a collection asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum BucketRange {
    /// Every window of an interval whose ends are multiples of the task's precision.
    Windows(Interval),
    /// One batch.
    Batch(BatchId),
}

impl BucketRange {
    /// Whether `bucket` is inside.
    pub fn contains(&self, bucket: &BatchBucket) -> bool {
        match (self, bucket) {
            (Self::Windows(i), BatchBucket::Window(t)) => i.start() <= *t && *t < i.end(),
            (Self::Batch(a), BatchBucket::Batch(b)) => a == b,
            (Self::Windows(_), BatchBucket::Batch(_))
            | (Self::Batch(_), BatchBucket::Window(_)) => false,
        }
    }

    /// Whether the two ranges share a bucket.
    pub fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Windows(a), Self::Windows(b)) => a.start() < b.end() && b.start() < a.end(),
            (Self::Batch(a), Self::Batch(b)) => a == b,
            (Self::Windows(_), Self::Batch(_)) | (Self::Batch(_), Self::Windows(_)) => false,
        }
    }

    /// Whether all of `other` is inside.
    pub fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Windows(a), Self::Windows(b)) => a.start() <= b.start() && b.end() <= a.end(),
            (Self::Batch(a), Self::Batch(b)) => a == b,
            (Self::Windows(_), Self::Batch(_)) | (Self::Batch(_), Self::Windows(_)) => false,
        }
    }

    /// First and past-the-last bucket key; a single batch is its own first and last.
    pub fn to_keys(&self) -> (Vec<u8>, Vec<u8>) {
        match self {
            Self::Windows(i) => {
                (BatchBucket::Window(i.start()).to_key(), BatchBucket::Window(i.end()).to_key())
            }
            Self::Batch(id) => (id.as_bytes().to_vec(), id.as_bytes().to_vec()),
        }
    }

    /// The range that a request's batch selector names in a task of this mode and precision.
    /// DAP-09 §4.6.5 (boundary check), DAP-18 §5.1.
    ///
    /// # Errors
    /// The peer's fault: `invalidMessage` for the wrong batch mode, `batchInvalid` for an empty, overflowing or
    /// unaligned interval.
    pub fn from_selector(
        selector: &BatchSelector,
        mode: BatchMode,
        precision: Duration,
    ) -> Result<Self, Abort> {
        match (selector, mode) {
            (BatchSelector::LeaderSelected(id), BatchMode::LeaderSelected) => Ok(Self::Batch(*id)),
            (BatchSelector::TimeInterval { start, duration }, BatchMode::TimeInterval) => {
                let invalid = |why| Abort::new(AbortKind::BatchInvalid, why);
                let interval = Interval::new(*start, *duration)
                    .ok_or_else(|| invalid("the batch interval ends beyond representable time"))?;
                if *duration < precision || duration.as_seconds() == 0 {
                    return Err(invalid("the batch interval is shorter than the time precision"));
                }
                if start.round_down(precision) != *start
                    || interval.end().round_down(precision) != interval.end()
                {
                    return Err(invalid("the batch interval is not aligned to the time precision"));
                }
                Ok(Self::Windows(interval))
            }
            (BatchSelector::TimeInterval { .. }, BatchMode::LeaderSelected)
            | (BatchSelector::LeaderSelected(_), BatchMode::TimeInterval) => {
                Err(Abort::invalid_message("the batch mode is not the task's"))
            }
        }
    }
}

/// XOR of SHA-256 over report ids. DAP-09 §4.6.2, DAP-18 §4.6.4. Order does not matter, and it is linear: the
/// checksum of a union of disjoint sets is the XOR of their checksums.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Checksum([u8; 32]);

impl Checksum {
    /// Wraps received bytes.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Adds one report.
    pub fn add(&mut self, id: &ReportId) {
        self.merge(&Self(Sha256::digest(id.as_bytes()).into()));
    }

    /// Takes one report out again; the same operation as adding it.
    pub fn remove(&mut self, id: &ReportId) {
        self.add(id);
    }

    /// Adds a disjoint set of reports.
    pub fn merge(&mut self, other: &Self) {
        for (a, b) in self.0.iter_mut().zip(other.0) {
            *a ^= b;
        }
    }
}

impl std::fmt::Debug for Checksum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&crate::b64::encode(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selector(start: u64, duration: u64) -> BatchSelector {
        BatchSelector::TimeInterval {
            start: Time::from_seconds(start),
            duration: Duration::from_seconds(duration),
        }
    }

    #[test]
    fn intervals_must_be_aligned_non_empty_and_representable() {
        let hour = Duration::from_seconds(3600);
        let range =
            |s, d| BucketRange::from_selector(&selector(s, d), BatchMode::TimeInterval, hour);
        assert!(range(3600, 7200).is_ok());
        for (s, d) in [(0, 0), (1, 3600), (3600, 1), (3600, 3601), (u64::MAX, 3600), (0, u64::MAX)]
        {
            assert_eq!(range(s, d).unwrap_err().kind, AbortKind::BatchInvalid, "{s} {d}");
        }
        assert_eq!(
            BucketRange::from_selector(&selector(0, 3600), BatchMode::LeaderSelected, hour)
                .unwrap_err()
                .kind,
            AbortKind::InvalidMessage
        );
    }

    #[test]
    fn checksums_are_linear() {
        let (a, b) = (ReportId::new([1; 16]), ReportId::new([2; 16]));
        let mut both = Checksum::default();
        both.add(&a);
        both.add(&b);
        let mut other = Checksum::default();
        other.add(&b);
        let mut one = Checksum::default();
        one.add(&a);
        other.merge(&one);
        assert_eq!(both, other);
        both.remove(&b);
        assert_eq!(both, one);
    }
}
