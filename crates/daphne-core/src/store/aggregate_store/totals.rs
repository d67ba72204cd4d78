//! What became of the reports of a store, and what is in its batches.
//!
//! A job's row counts it. The meta row has the sum of the generations that are full, and is written when one gets full;
//! memory has the sum of the newest, and is read again with its rows. No job writes anything for being counted.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use super::{AggregateTables, Live, StoreMeta, StoreResult};
use crate::{
    batch::BatchBucket,
    metrics::Totals,
    store::message::{BatchTotals, StoreTotals},
    time::Time,
};

/// Batches in one answer. More than a status lists, so that what is listed is complete.
const BATCHES_MAX: usize = 500;
/// Batches that are summed for it: a leader names as many as it likes, and a collected one comes last only when it is known.
/// They take some 4 MiB.
const SUMS_MAX: usize = 20_000;

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

/// A batch: its bucket, and SHA-256 of its aggregation parameter, which may take a hundred kilobytes.
type Batch = (BatchBucket, [u8; 32]);

fn digest(param: &[u8]) -> [u8; 32] {
    Sha256::digest(param).into()
}

/// The sums of the least batches, exact, of at most so many.
struct Sums {
    max: usize,
    /// With the parameter's level.
    sums: BTreeMap<Batch, (Option<u16>, Sum)>,
    /// How often another was left out.
    left_out: u64,
}

impl Sums {
    fn new(max: usize) -> Self {
        Self { max, sums: BTreeMap::new(), left_out: 0 }
    }

    /// The sum of a batch, unless it is left out. Whatever is left out is greater than all that stay, so it is when it
    /// comes again.
    fn of(&mut self, batch: Batch, level: Option<u16>) -> Option<&mut Sum> {
        if self.sums.len() >= self.max && !self.sums.contains_key(&batch) {
            self.left_out += 1;
            if self.sums.last_key_value().is_none_or(|(last, _)| *last < batch) {
                return None;
            }
            self.sums.pop_last();
        }
        Some(&mut self.sums.entry(batch).or_insert_with(|| (level, Sum::default())).1)
    }
}

/// What is in the batches, of what is not forgotten.
pub(super) fn batches(
    tables: &mut impl AggregateTables,
    meta: &StoreMeta,
) -> StoreResult<StoreTotals> {
    let mut sums = Sums::new(SUMS_MAX);
    for epoch in &meta.epochs {
        tables.each_merged(epoch.number, None, &mut |bucket, param, merged| {
            if let Some(sum) = sums.of((bucket, digest(param)), meta.field.level(param)) {
                sum.add(merged.report_count, merged.times);
            }
            Ok(())
        })?;
    }
    for table in meta.job_tables() {
        tables.each_job(table, &mut |head| {
            let (param, level) = (digest(&head.param), meta.field.level(&head.param));
            for slice in head.slices.iter().filter(|s| !s.excluded) {
                let Some(sum) = sums.of((slice.bucket, param), level) else { continue };
                sum.add(u64::from(slice.report_count), Some((slice.min_time, slice.max_time)));
                sum.contested |= slice.yields;
            }
            Ok(())
        })?;
    }
    let mut batches = Vec::with_capacity(sums.sums.len());
    // In the order of their buckets: what is sealed is read, and its parameters digested, once for each of them.
    let mut sealed: Option<(BatchBucket, Vec<[u8; 32]>)> = None;
    for ((bucket, param), (level, Sum { report_count, times, contested })) in sums.sums {
        let of_bucket = match sealed.take_if(|(of, _)| *of == bucket) {
            Some(known) => known,
            None => (bucket, sealed_params(tables, &bucket)?),
        };
        batches.push(BatchTotals {
            bucket,
            level,
            param,
            report_count,
            times,
            collected: of_bucket.1.contains(&param),
            frozen: meta.frozen.as_ref().is_some_and(|f| f.range.contains(&bucket)),
            contested,
        });
        sealed = Some(of_bucket);
    }
    batches.sort_by_key(BatchTotals::order);
    let more = sums.left_out + batches.len().saturating_sub(BATCHES_MAX) as u64;
    batches.truncate(BATCHES_MAX);
    Ok(StoreTotals { batches, more, ..StoreTotals::default() })
}

/// Digests of the parameters under which a bucket was collected.
fn sealed_params(
    tables: &mut impl AggregateTables,
    bucket: &BatchBucket,
) -> StoreResult<Vec<[u8; 32]>> {
    let near = tables.sealed_near(bucket)?;
    let sealed = near.iter().filter(|s| s.range.contains(bucket));
    Ok(sealed.map(|s| digest(&s.param)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::BatchId;

    #[test]
    fn the_least_batches_are_summed_exactly_however_many_there_are() {
        let batch = |n: u8| (BatchBucket::Batch(BatchId::new([n; 32])), [0; 32]);
        let mut sums = Sums::new(10);
        // Each comes three times, in an order that has nothing to do with theirs.
        for n in 0..=749_u32 {
            if let Some(sum) = sums.of(batch((n * 97 % 250) as u8), Some(1)) {
                sum.add(2, None);
            }
        }
        let kept: Vec<(Batch, u64)> =
            sums.sums.iter().map(|(batch, (_, sum))| (*batch, sum.report_count)).collect();
        assert_eq!(kept, (0..10).map(|n| (batch(n), 6)).collect::<Vec<_>>());
        assert!(sums.left_out >= 240, "{}", sums.left_out);
    }

    #[test]
    fn a_batch_is_kept_in_few_bytes_whatever_its_parameter_has() {
        let entry = size_of::<(Batch, (Option<u16>, Sum))>();
        assert!(entry * SUMS_MAX <= 4 << 20, "{entry}");
    }
}
