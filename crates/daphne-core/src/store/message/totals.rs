//! What stores and ledgers say of how a task is doing.

use serde::{Deserialize, Serialize};

use crate::{batch::BatchBucket, metrics::Totals, store::placement::StoreId, time::Time};

/// What became of the reports in one store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreTotals {
    /// Of all jobs that there ever were.
    pub totals: Totals,
    /// What is in the batches, those first that are not collected, as [`BatchTotals::order`] has it.
    pub batches: Vec<BatchTotals>,
    /// Batches that were left out.
    pub more: u64,
}

/// What there is of a batch bucket, under one aggregation parameter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchTotals {
    /// The bucket.
    pub bucket: BatchBucket,
    /// The aggregation parameter's level, if there is any.
    pub level: Option<u16>,
    /// SHA-256 of the aggregation parameter: with levels, several parameters may have the same.
    pub param: [u8; 32],
    /// Reports that count.
    pub report_count: u64,
    /// Earliest and latest report time.
    pub times: Option<(Time, Time)>,
    /// It was collected.
    pub collected: bool,
    /// A collection attempt holds it.
    pub frozen: bool,
    /// A deleted job's reports were taken over by another: a collection decides which of the two counts.
    pub contested: bool,
}

impl BatchTotals {
    /// What comes first in a list that may have to be cut: what is not collected, then the lesser bucket.
    pub fn order(&self) -> (bool, BatchBucket, [u8; 32]) {
        (self.collected, self.bucket, self.param)
    }

    /// Adds what another store has of the same batch.
    pub fn merge(&mut self, other: &Self) {
        self.report_count += other.report_count;
        self.times = match (self.times, other.times) {
            (Some((a, b)), Some((c, d))) => Some((a.min(c), b.max(d))),
            (one, another) => one.or(another),
        };
        self.frozen |= other.frozen;
        self.contested |= other.contested;
    }
}

/// How a task is doing, as its ledger knows and some of its stores.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerStatus {
    /// Batches collected, each with each aggregation parameter.
    pub collections: u64,
    /// Reports in them.
    pub collected_reports: u64,
    /// Reports that were forgotten, being too old, before a collection asked for them.
    pub expired_reports: u64,
    /// A collection attempt is under way.
    pub collecting: bool,
    /// What became of reports and requests: those of the stores asked, and all that are not a store's.
    pub totals: Totals,
    /// Batches in the stores asked, those first that are not collected, at most [`STATUS_BATCHES_MAX`].
    pub batches: Vec<BatchTotals>,
    /// Batches that were left out, at least.
    pub more_batches: u64,
    /// Stores that did not answer.
    pub silent: u32,
    /// Where to go on: more stores are to be asked.
    pub next: Option<StoreId>,
}

/// Batches that a status lists.
pub const STATUS_BATCHES_MAX: usize = 200;

impl LedgerStatus {
    /// Adds what other stores have.
    pub fn merge(&mut self, other: Self) {
        self.collections += other.collections;
        self.collected_reports += other.collected_reports;
        self.expired_reports += other.expired_reports;
        self.collecting |= other.collecting;
        self.totals.merge(&other.totals);
        self.add_batches(other.batches, other.more_batches);
        self.silent += other.silent;
        self.next = other.next;
    }

    /// Adds what a store has of batches.
    pub fn add_batches(&mut self, batches: Vec<BatchTotals>, more: u64) {
        for batch in batches {
            match self.batches.binary_search_by_key(&batch.order(), BatchTotals::order) {
                Ok(at) => {
                    if let Some(known) = self.batches.get_mut(at) {
                        known.merge(&batch);
                    }
                }
                Err(at) => self.batches.insert(at, batch),
            }
        }
        let cut = self.batches.len().saturating_sub(STATUS_BATCHES_MAX);
        self.batches.truncate(STATUS_BATCHES_MAX);
        self.more_batches = self.more_batches.max(more).max(cut as u64);
    }
}
