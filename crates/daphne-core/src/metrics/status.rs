//! How a task is doing, for its operator.

use serde::{Deserialize, Serialize};

use super::{Cause, TaskCounters};
use crate::{
    batch::BatchBucket,
    ids::BatchId,
    store::message::{BatchTotals, LedgerStatus},
    task::TaskParameters,
    time::Time,
};

/// How a task is doing. Times are in seconds since the Unix epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskStatus {
    /// The counters.
    #[serde(flatten)]
    pub counters: TaskCounters,
    /// A collection attempt is under way.
    pub collecting: bool,
    /// Everybody who counts has answered. Otherwise the counters and batches are of some only.
    pub complete: bool,
    /// When the last job was recorded.
    pub last_job: Option<Time>,
    /// What was refused last.
    pub last_error: Option<ReasonSeen>,
    /// Why reports and requests were refused: the latest distinct reasons, the latest first.
    pub reasons: Vec<ReasonSeen>,
    /// Seconds since the oldest report was made that no collection asked for.
    pub oldest_uncollected_s: Option<u64>,
    /// Batches that are not forgotten yet, those first that are not collected.
    pub batches: Vec<BatchStatus>,
    /// Batches that are not listed, at least.
    pub more_batches: u64,
}

/// A reason, and when it applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReasonSeen {
    /// The reason.
    pub reason: String,
    /// When it first applied, since it was last among the latest.
    pub first: Time,
    /// When it last applied.
    pub last: Time,
    /// To how many reports or requests since then.
    pub count: u64,
}

/// A batch bucket, or a batch that the leader chose, under one aggregation parameter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchStatus {
    /// The start of the bucket; of a time-interval task.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub bucket: Option<Time>,
    /// The batch; of a leader-selected task.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub batch_id: Option<BatchId>,
    /// The level of the aggregation parameter, for Poplar1.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub level: Option<u16>,
    /// Reports in it.
    pub report_count: u64,
    /// Fewest reports with which it can be collected.
    pub min_batch_size: u64,
    /// Whether it was collected.
    pub collected: bool,
    /// Whether it can be collected by itself. Several buckets together may be where each is too small.
    pub collectable: bool,
    /// Why, or why not.
    pub why: String,
    /// When its oldest report was made.
    pub oldest: Option<Time>,
    /// When its newest report was made.
    pub newest: Option<Time>,
}

impl TaskStatus {
    /// The status of a task, as its ledger and stores have it.
    pub fn new(task: &TaskParameters, status: &LedgerStatus, now: Time) -> Self {
        let reasons: Vec<ReasonSeen> = status
            .totals
            .reasons
            .iter()
            .map(|seen| ReasonSeen {
                reason: Cause::text(&seen.cause),
                first: seen.first,
                last: seen.last,
                count: seen.count,
            })
            .collect();
        let oldest = status
            .batches
            .iter()
            .filter(|batch| !batch.collected)
            .filter_map(|batch| batch.times.map(|(oldest, _)| oldest))
            .min();
        Self {
            counters: status.counters(),
            collecting: status.collecting,
            complete: status.is_complete(),
            last_job: status.totals.last_job,
            last_error: reasons.first().cloned(),
            reasons,
            oldest_uncollected_s: oldest
                .map(|oldest| now.as_seconds().saturating_sub(oldest.as_seconds())),
            batches: status.batches.iter().map(|batch| BatchStatus::new(task, batch)).collect(),
            more_batches: status.more_batches,
        }
    }
}

impl BatchStatus {
    fn new(task: &TaskParameters, batch: &BatchTotals) -> Self {
        let (bucket, batch_id) = match batch.bucket {
            BatchBucket::Window(start) => (Some(start), None),
            BatchBucket::Batch(id) => (None, Some(id)),
        };
        let (count, min) = (batch.report_count, task.min_batch_size);
        let (collectable, why) = if batch.collected {
            (false, "it was collected".to_owned())
        } else if batch.frozen {
            (false, "a collection of it is under way".to_owned())
        } else if count < min {
            (false, format!("{} more reports are needed", min - count))
        } else if task.max_batch_size.is_some_and(|max| count > max) {
            (false, "it has more reports than the task allows".to_owned())
        } else if batch.contested {
            (true, "the leader's checksum decides which jobs count: some were deleted".to_owned())
        } else {
            (true, "it has enough reports".to_owned())
        };
        Self {
            bucket,
            batch_id,
            level: batch.level,
            report_count: count,
            min_batch_size: min,
            collected: batch.collected,
            collectable,
            why,
            oldest: batch.times.map(|(oldest, _)| oldest),
            newest: batch.times.map(|(_, newest)| newest),
        }
    }
}

impl LedgerStatus {
    /// The task's counters.
    pub fn counters(&self) -> TaskCounters {
        TaskCounters {
            collections: self.collections,
            collected_reports: self.collected_reports,
            expired_reports: self.expired_reports,
            ..TaskCounters::of(&self.totals)
        }
    }

    /// Whether all stores were asked, and answered.
    pub const fn is_complete(&self) -> bool {
        self.silent == 0 && self.next.is_none()
    }
}
