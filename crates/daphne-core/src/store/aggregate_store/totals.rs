//! What became of the reports of a store, and what is in its batches.
//!
//! A job's row counts it. The meta row has the sum of the generations that are full, and is written when one gets full;
//! memory has the sum of the newest, and is read again with its rows. No job writes anything for being counted.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use super::{AggregateTables, Live, StoreMeta, StoreResult, is_sealed};
use crate::{
    batch::BatchBucket,
    metrics::Totals,
    store::message::{BatchTotals, StoreTotals},
    time::Time,
};

/// Batches in one answer. More than a status lists, so that what is listed is complete.
const BATCHES_MAX: usize = 500;

/// What became of all jobs that there ever were.
pub(super) fn of_all_jobs(
    tables: &mut impl AggregateTables,
    live: &Option<Live>,
    meta: &StoreMeta,
) -> StoreResult<Totals> {
    let mut totals = meta.totals.clone();
    if let Some(live) = live {
        totals.merge(&live.totals);
    } else if let Some(newest) = meta.epochs.last().and_then(|e| e.generations.last()) {
        // Who only asks should not have all ids read.
        tables.each_job(newest.table, &mut |head| {
            totals.add(&head.tally, head.at);
            Ok(())
        })?;
    }
    Ok(totals)
}

/// What a bucket holds under one parameter.
#[derive(Default)]
struct Sum {
    report_count: u64,
    times: Option<(Time, Time)>,
    contested: bool,
}

impl Sum {
    fn add(&mut self, report_count: u64, times: Option<(Time, Time)>) {
        self.report_count += report_count;
        self.times = match (self.times, times) {
            (Some((a, b)), Some((c, d))) => Some((a.min(c), b.max(d))),
            (one, another) => one.or(another),
        };
    }
}

/// What is in the batches, of what is not forgotten.
pub(super) fn batches(
    tables: &mut impl AggregateTables,
    meta: &StoreMeta,
) -> StoreResult<StoreTotals> {
    let mut sums: BTreeMap<(BatchBucket, Vec<u8>), Sum> = BTreeMap::new();
    for epoch in &meta.epochs {
        tables.each_merged(epoch.number, None, &mut |bucket, param, merged| {
            let sum = sums.entry((bucket, param.to_vec())).or_default();
            sum.add(merged.report_count, merged.times);
            Ok(())
        })?;
    }
    for table in meta.job_tables() {
        tables.each_job(table, &mut |head| {
            for slice in head.slices.iter().filter(|s| !s.excluded) {
                let sum = sums.entry((slice.bucket, head.param.clone())).or_default();
                sum.add(u64::from(slice.report_count), Some((slice.min_time, slice.max_time)));
                sum.contested |= slice.yields;
            }
            Ok(())
        })?;
    }
    let mut batches = Vec::with_capacity(sums.len());
    for ((bucket, param), Sum { report_count, times, contested }) in sums {
        batches.push(BatchTotals {
            bucket,
            level: meta.field.level(&param),
            param: Sha256::digest(&param).into(),
            report_count,
            times,
            collected: is_sealed(tables, &bucket, &param)?,
            frozen: meta.frozen.as_ref().is_some_and(|f| f.range.contains(&bucket)),
            contested,
        });
    }
    batches.sort_by_key(BatchTotals::order);
    let more = batches.len().saturating_sub(BATCHES_MAX) as u64;
    batches.truncate(BATCHES_MAX);
    Ok(StoreTotals { batches, more, ..StoreTotals::default() })
}
