//! Which object owns a report: names and sharding.
//!
//! What places a report is frozen with its task before the first report arrives, so that a report can never meet
//! two owners. Clients choose report ids, so the shard is a keyed hash.

use std::{fmt, hash::Hasher};

use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher13;

use crate::{
    batch::{BatchBucket, BatchMode, BucketRange},
    ids::{AggregationJobId, ReportId, TaskId},
    time::{Duration, Interval, Time},
};

/// The numbers that place a task's reports. They never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Placement {
    /// The task.
    pub task_id: TaskId,
    /// Its batch mode.
    pub batch_mode: BatchMode,
    /// Its time precision, at least one second.
    pub time_precision: Duration,
    /// Shards in a group, at least 1.
    pub shards: u16,
    /// Neighbouring batch buckets in a group, or 0: one group for the whole task. Always 0 for leader-selected
    /// tasks, whose replays must be caught across batches.
    pub buckets_per_group: u32,
    /// Version of the root key that the shard key is derived from.
    pub shard_key_version: u32,
    /// Reports older than this are refused, so what protects them against replays may be forgotten some time
    /// after it.
    pub retention: Duration,
}

/// A clock may be this far off, and a task tolerates reports at most this far ahead of it.
const TIME_MARGIN: Duration = Duration::from_seconds(86_400);
/// A shorter epoch would only make more tables.
const EPOCH_LENGTH_MIN_S: u64 = 86_400;

/// A run of neighbouring batch buckets, or the whole task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Group {
    /// The whole task, written `-`.
    Whole,
    /// The n-th run since the Unix epoch.
    Run(u64),
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole => f.write_str("-"),
            Self::Run(n) => n.fmt(f),
        }
    }
}

/// One `AggregateStore` of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StoreId {
    /// Which buckets.
    pub group: Group,
    /// Which share of the ids, `0..shards`.
    pub shard: u16,
}

impl Placement {
    /// Whether groups are runs of buckets, so that objects come into being one by one and are registered.
    pub const fn has_time_groups(&self) -> bool {
        self.buckets_per_group != 0
    }

    /// The group of a bucket.
    pub fn group(&self, bucket: &BatchBucket) -> Group {
        match bucket {
            BatchBucket::Window(start) => {
                self.run_length().map_or(Group::Whole, |run| Group::Run(start.as_seconds() / run))
            }
            BatchBucket::Batch(_) => Group::Whole,
        }
    }

    /// The buckets that a group can hold; `None` for the whole task.
    pub fn group_range(&self, group: Group) -> Option<BucketRange> {
        let (Group::Run(n), Some(run)) = (group, self.run_length()) else {
            return None;
        };
        let start = n.saturating_mul(run);
        let length = run.min(u64::MAX - start);
        Interval::new(Time::from_seconds(start), Duration::from_seconds(length))
            .map(BucketRange::Windows)
    }

    /// The store that owns a report.
    ///
    // SPEC: DAP-09 §4.5.1.4 wants replays detected in the whole task. With time groups, an id that its own client uses
    // again *with a time in another group* meets another owner and is not seen: the same as sending two reports, and
    // no other client's privacy or count is touched. Groups are what keeps an object's ids few; a task may choose
    // to have none.
    pub fn owner(&self, key: &ShardKey, bucket: &BatchBucket, report: &ReportId) -> StoreId {
        StoreId { group: self.group(bucket), shard: self.pick(key, b'r', report.as_bytes()) }
    }

    /// The shard that binds a job id to one body: an `AggregateStore` of the whole task where there is one
    /// group, else a `JobStore`.
    pub fn home(&self, key: &ShardKey, job: &AggregationJobId) -> u16 {
        self.pick(key, b'j', job.as_bytes())
    }

    fn pick(&self, key: &ShardKey, kind: u8, id: &[u8]) -> u16 {
        let mut hasher = SipHasher13::new_with_key(&key.0);
        hasher.write_u8(kind);
        hasher.write(id);
        // The remainder is below `shards`, a u16. A placement of zero shards never passes task validation.
        (hasher.finish() % u64::from(self.shards.max(1))) as u16
    }

    /// The numbers of the groups that can hold a bucket of `range`, first and last; `None` for the whole task.
    pub fn groups_meeting(&self, range: &BucketRange) -> Option<(u64, u64)> {
        let (run, BucketRange::Windows(interval)) = (self.run_length()?, range) else {
            return None;
        };
        // The last second of time may be the start of a range, which then has no length.
        let last = interval.end().as_seconds().saturating_sub(1).max(interval.start().as_seconds());
        Some((interval.start().as_seconds() / run, last / run))
    }

    /// From when on nothing in a group's objects can matter: every report in it has been too old for a day. `None` for
    /// the whole task, which ends epoch by epoch.
    pub fn group_deadline(&self, group: Group) -> Option<Time> {
        let BucketRange::Windows(held) = self.group_range(group)? else {
            return None;
        };
        Some(held.end().saturating_add(self.retention).saturating_add(TIME_MARGIN))
    }

    /// The epoch of what arrives now: where state is not kept by report time, it is kept, and dropped, by epochs of
    /// arrival.
    pub fn epoch(&self, now: Time) -> u32 {
        u32::try_from(now.as_seconds() / self.epoch_length_s()).unwrap_or(u32::MAX)
    }

    /// From when on nothing that arrived in an epoch can matter: its reports have been too old for a day. They were at
    /// most a margin ahead of the clock of the Worker that took them, which was at most a margin ahead of the store's.
    pub fn epoch_deadline(&self, epoch: u32) -> Time {
        let end = Time::from_seconds((u64::from(epoch) + 1).saturating_mul(self.epoch_length_s()));
        let group = Duration::from_seconds(self.run_length().unwrap_or(0));
        [TIME_MARGIN, TIME_MARGIN, group, self.retention, TIME_MARGIN]
            .into_iter()
            .fold(end, Time::saturating_add)
    }

    fn epoch_length_s(&self) -> u64 {
        self.retention.as_seconds().max(EPOCH_LENGTH_MIN_S)
    }

    fn run_length(&self) -> Option<u64> {
        match u64::from(self.buckets_per_group).checked_mul(self.time_precision.as_seconds()) {
            Some(0) => None,
            Some(run) => Some(run),
            // A run longer than all of time: everything is in run 0.
            None => Some(u64::MAX),
        }
    }

    /// Name of an `AggregateStore`.
    pub fn store_name(&self, store: &StoreId) -> String {
        format!("v1/{}/{}/{}", self.task_id, store.group, store.shard)
    }

    /// Name of a `JobStore`.
    pub fn job_store_name(&self, shard: u16) -> String {
        format!("v1/{}/jobs/{shard}", self.task_id)
    }
}

/// Name of a task's `TaskLedger`.
pub fn ledger_name(task: &TaskId) -> String {
    format!("v1/{task}/ledger")
}

/// Name of the one `ConfigStore`.
pub const CONFIG_STORE_NAME: &str = "v1/config";

/// The secret that spreads a task's reports over its shards.
#[derive(Clone, Copy)]
pub struct ShardKey([u8; 16]);

impl ShardKey {
    /// Wraps 16 secret bytes.
    pub const fn new(key: [u8; 16]) -> Self {
        Self(key)
    }
}

impl fmt::Debug for ShardKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ShardKey")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placement(buckets_per_group: u32, shards: u16) -> Placement {
        Placement {
            task_id: TaskId::new([7; 32]),
            batch_mode: BatchMode::TimeInterval,
            time_precision: Duration::from_seconds(300),
            shards,
            buckets_per_group,
            shard_key_version: 1,
            retention: Duration::from_seconds(14 * 86_400),
        }
    }

    #[test]
    fn placing_is_golden() {
        // A change here moves reports of live tasks to other owners: never change these values.
        let p = placement(288, 4);
        let key = ShardKey::new([9; 16]);
        let bucket = BatchBucket::Window(Time::from_seconds(1_700_000_100));
        let owner = p.owner(&key, &bucket, &ReportId::new([3; 16]));
        assert_eq!(p.store_name(&owner), "v1/BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc/19675/2");
        assert_eq!(p.home(&key, &AggregationJobId::new([3; 16])), 3);
    }

    #[test]
    fn the_last_second_of_time_is_in_a_group() {
        // It is a multiple of three: a group begins there, and has no room for anything.
        let p = Placement { time_precision: Duration::from_seconds(3), ..placement(1, 1) };
        for second in [u64::MAX - 3, u64::MAX - 1, u64::MAX] {
            let time = Time::from_seconds(second).round_down(p.time_precision);
            let group = p.group(&BatchBucket::Window(time));
            let range = p.group_range(group).unwrap();
            let n = second / 3;
            assert_eq!((group, p.groups_meeting(&range)), (Group::Run(n), Some((n, n))));
        }
    }

    #[test]
    fn deadlines_come_after_the_last_report_is_too_old() {
        const DAY: u64 = 86_400;
        let p = placement(288, 1);
        let day_two = Group::Run(2);
        assert_eq!(p.group_deadline(day_two), Some(Time::from_seconds((3 + 14 + 1) * DAY)));
        assert_eq!(p.group_deadline(Group::Whole), None);
        let whole = placement(0, 1);
        assert_eq!(whole.epoch(Time::from_seconds(28 * DAY)), 2);
        // Whatever arrives at the end of an epoch, a day ahead of a clock that is a day ahead, and is asked about with a
        // clock a day late.
        assert_eq!(whole.epoch_deadline(2), Time::from_seconds((42 + 1 + 1 + 14 + 1) * DAY));
        let brief = Placement { retention: Duration::from_seconds(60), ..whole };
        assert_eq!(brief.epoch(Time::from_seconds(DAY - 1)), 0);
        let endless = placement(u32::MAX, 1);
        assert!(
            endless.group_deadline(Group::Run(u64::MAX)).is_none_or(|t| t.as_seconds() == u64::MAX)
        );
        assert_eq!(
            p.groups_meeting(&BucketRange::Windows(
                Interval::new(Time::from_seconds(DAY), Duration::from_seconds(DAY)).unwrap()
            )),
            Some((1, 1))
        );
    }

    #[test]
    fn every_shard_is_used_and_groups_meet_their_intervals() {
        let p = placement(2, 8);
        let key = ShardKey::new([1; 16]);
        let used: std::collections::BTreeSet<u16> = (0..200u8)
            .map(|n| {
                p.owner(&key, &BatchBucket::Window(Time::from_seconds(0)), &ReportId::new([n; 16]))
                    .shard
            })
            .collect();
        assert_eq!(used.len(), 8);
        let interval = |s, d| {
            BucketRange::Windows(
                Interval::new(Time::from_seconds(s), Duration::from_seconds(d)).unwrap(),
            )
        };
        assert_eq!(p.groups_meeting(&interval(600, 300)), Some((1, 1)));
        assert_eq!(p.groups_meeting(&interval(0, 900)), Some((0, 1)));
        assert_eq!(p.groups_meeting(&interval(0, 600)), Some((0, 0)));
        assert_eq!(p.groups_meeting(&interval(1200, 300)), Some((2, 2)));
        let extreme = placement(u32::MAX, 1);
        assert_eq!(
            extreme.group(&BatchBucket::Window(Time::from_seconds(u64::MAX))),
            Group::Run(u64::MAX / (u64::from(u32::MAX) * 300))
        );
    }
}
