//! Generations of jobs: where the newest jobs are, when a generation is full, and how finished ones shrink.
//!
//! A generation ends when its ids fill the part of the replay index that is in memory. What is left of a job once
//! it is packed: its slices, merged into the sums of their buckets; digest and refusals, for a repeat; its ids'
//! fingerprints, in the index. Slices that may still have to be told apart are not packed.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    AggregateTables, Epoch, Generation, JobHead, JobRow, Live, RecordedJob, SliceHead, StoreError,
    StoreMeta, StoreResult, collection, ids_by_slice, is_sealed, report_ids, shares_by_slice,
    totals,
};
use crate::{
    batch::BatchBucket,
    ids::{AggregationJobId, ReportId},
    store::{
        message::Content,
        replay::{Recent, Runs},
    },
    vdaf::FieldKind,
};

/// When a generation is full, and when so much is kept apart that undecided slices are merged, too. A deployment has
/// [`Limits::DEFAULT`]; tests have smaller ones.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Rows in a generation, however small: so many are read when the object wakes up, and by what is rare.
    pub generation_rows: u32,
    /// Ids in a generation: what the replay index holds in memory.
    pub generation_ids: usize,
    /// Bytes of shares in a generation, so that packing it fits in memory.
    pub generation_share_bytes: u64,
    /// Separate jobs in full generations before the oldest are packed although no collection decided about them.
    pub pressure_rows: u64,
    /// Bytes of their shares.
    pub pressure_share_bytes: u64,
}

/// Fingerprints in one statement: what is bound to it must stay far below SQLite's 2 MB.
const ASKED_AT_ONCE: usize = 8_192;

impl Limits {
    /// What a deployment has.
    pub const DEFAULT: Self = Self {
        generation_rows: 2_048,
        generation_ids: Recent::FULL,
        generation_share_bytes: 16 << 20,
        pressure_rows: 4_096,
        pressure_share_bytes: 64 << 20,
    };
}

impl Live {
    fn new(key: [u8; 16]) -> Self {
        let (rows, begun_rows, share_bytes, totals) = Default::default();
        Self { recent: Recent::new(key), rows, begun_rows, share_bytes, totals }
    }

    /// Takes note of a job in the newest generation.
    pub(super) fn add(&mut self, field: FieldKind, head: &JobHead, ids: &[u8]) -> StoreResult<()> {
        self.recent.insert_job(&head.job);
        match field.level(&head.param) {
            None => self.recent.insert_all(&head.param, ids),
            Some(level) => {
                self.recent.insert_all_anyhow(ids);
                self.recent.insert_all_at(level, ids);
                for (slice, mine) in ids_by_slice(&head.slices, ids)? {
                    self.recent.insert_all_in(&head.param, &slice.bucket, mine);
                }
            }
        }
        self.rows += 1;
        self.totals.add(&head.tally, head.at);
        self.share_bytes += head.slices.iter().map(|s| u64::from(s.share_len)).sum::<u64>();
        Ok(())
    }

    /// Takes note of a row of reports that began in the newest generation.
    pub(super) fn add_begun(&mut self, fingerprints: &[u64]) {
        self.recent.insert_fingerprints(fingerprints);
        self.begun_rows += 1;
    }

    pub(super) fn is_full(&self, limits: &Limits) -> bool {
        self.recent.len() >= limits.generation_ids
            || self.rows + self.begun_rows >= limits.generation_rows
            || self.share_bytes >= limits.generation_share_bytes
    }
}

/// What is kept in memory, read again if it was lost.
pub(super) fn load<'a>(
    tables: &mut impl AggregateTables,
    live: &'a mut Option<Live>,
    meta: &StoreMeta,
) -> StoreResult<&'a mut Live> {
    if live.is_none() {
        let mut loaded = Live::new(meta.fingerprint_key);
        if let Some(generation) = meta.epochs.last().and_then(|e| e.generations.last()) {
            tables.each_job_ids(generation.table, &mut |head, ids| {
                loaded.add(meta.field, &head, ids)
            })?;
            tables.each_begun(generation.table, &mut |fingerprints| {
                loaded.add_begun(fingerprints);
                Ok(())
            })?;
        }
        *live = Some(loaded);
    }
    live.as_mut().ok_or_else(|| StoreError("nothing was loaded".to_owned()))
}

/// Which of `asked` (ascending) the store has seen, ascending.
pub(super) fn present(
    tables: &mut impl AggregateTables,
    live: &Live,
    meta: &StoreMeta,
    asked: &[u64],
) -> StoreResult<Vec<u64>> {
    let mut found: Vec<u64> = asked.iter().copied().filter(|f| live.recent.contains(*f)).collect();
    for epoch in &meta.epochs {
        for some in asked.chunks(ASKED_AT_ONCE) {
            found.extend(epoch.runs.present(tables, some)?);
        }
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// Table of the newest generation.
pub(super) fn newest(meta: &StoreMeta) -> StoreResult<u32> {
    meta.epochs
        .last()
        .and_then(|e| e.generations.last())
        .map(|g| g.table)
        .ok_or_else(|| StoreError("a store has no generation".to_owned()))
}

/// Makes sure that there is a generation of this epoch for a new job. Returns whether the meta row changed.
pub(super) fn begin_generation(
    tables: &mut impl AggregateTables,
    live: &mut Option<Live>,
    meta: &mut StoreMeta,
    epoch: u32,
) -> StoreResult<bool> {
    // A clock that went back does not bring an old epoch back.
    if meta.epochs.last().is_some_and(|e| e.number >= epoch && !e.generations.is_empty()) {
        return Ok(false);
    }
    if meta.epochs.last().is_some_and(|e| !e.generations.is_empty()) {
        let live = load(tables, live, meta)?;
        flush(tables, live, meta)?;
    }
    tables.create_epoch(epoch)?;
    let generations = vec![new_generation(tables, meta)?];
    let runs = Runs::default();
    meta.epochs.push(Epoch { number: epoch, runs, generations, remnant: None });
    *live = Some(Live::new(meta.fingerprint_key));
    Ok(true)
}

/// What comes after each row in the newest generation: ends it if it is full now, and writes the meta row if it must be. Returns
/// whether it was full, so that there is something to do in the background.
pub(super) fn end_write<T: AggregateTables>(
    tables: &mut T,
    live: &mut Live,
    meta: &mut StoreMeta,
    limits: &Limits,
    must_write: bool,
) -> StoreResult<bool> {
    let full = live.is_full(limits);
    if full {
        end_generation(tables, live, meta)?;
    }
    if full || must_write {
        tables.put_meta(meta)?;
    }
    Ok(full)
}

/// The newest generation is full: its ids go to the index, and a new one begins. The caller writes the meta row.
pub(super) fn end_generation(
    tables: &mut impl AggregateTables,
    live: &mut Live,
    meta: &mut StoreMeta,
) -> StoreResult<()> {
    flush(tables, live, meta)?;
    let generation = new_generation(tables, meta)?;
    if let Some(epoch) = meta.epochs.last_mut() {
        epoch.generations.push(generation);
    }
    *live = Live::new(meta.fingerprint_key);
    Ok(())
}

fn new_generation(
    tables: &mut impl AggregateTables,
    meta: &mut StoreMeta,
) -> StoreResult<Generation> {
    let table = meta.take_table();
    tables.create_generation(table)?;
    Ok(Generation { table, rows: 0, share_bytes: 0 })
}

fn flush(
    tables: &mut impl AggregateTables,
    live: &mut Live,
    meta: &mut StoreMeta,
) -> StoreResult<()> {
    let Some(epoch) = meta.epochs.last_mut() else { return Ok(()) };
    meta.totals.merge(&std::mem::take(&mut live.totals));
    epoch.runs.flush(tables, &mut meta.next_table, &live.recent.take_sorted())?;
    if let Some(generation) = epoch.generations.last_mut() {
        generation.rows = live.rows;
        generation.share_bytes = live.share_bytes;
    }
    Ok(())
}

/// A full generation: epoch and table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full {
    pub(super) epoch: u32,
    pub(super) table: u32,
}

/// The full generations, oldest first.
pub(super) fn full_generations(meta: &StoreMeta) -> Vec<Full> {
    let mut full: Vec<Full> = meta
        .epochs
        .iter()
        .flat_map(|e| e.generations.iter().map(|g| Full { epoch: e.number, table: g.table }))
        .collect();
    full.pop();
    full
}

/// What was kept apart when generations were packed, oldest first.
pub(super) fn remnants(meta: &StoreMeta) -> Vec<Full> {
    let of = |e: &Epoch| e.remnant.map(|table| Full { epoch: e.number, table });
    meta.epochs.iter().filter_map(of).collect()
}

/// Whether so much is kept apart that undecided slices should be merged, too.
pub(super) fn is_under_pressure(meta: &StoreMeta, limits: &Limits) -> bool {
    let generations = || meta.epochs.iter().flat_map(|e| e.generations.iter());
    generations().map(|g| u64::from(g.rows)).sum::<u64>() > limits.pressure_rows
        || generations().map(|g| g.share_bytes).sum::<u64>() > limits.pressure_share_bytes
}

/// Which jobs of a generation are packed with it.
#[derive(Debug, Default)]
pub(super) struct Fates {
    /// All its jobs.
    pub(super) rows: usize,
    /// Those with a slice that must stay apart: it is frozen, yields, shares a report with one that yields, or names
    /// reports that are free.
    pub(super) staying: BTreeSet<AggregationJobId>,
}

/// Number of jobs of a generation, and those with slices that count and about which no collection decided. Reads its
/// heads only, where [`fates`] reads those of all generations: most often there is nothing to pack, and this is how that
/// is found out.
pub(super) fn undecided(
    tables: &mut impl AggregateTables,
    table: u32,
) -> StoreResult<(usize, BTreeSet<AggregationJobId>)> {
    let mut rows = 0;
    let mut counting: BTreeMap<(BatchBucket, Vec<u8>), Vec<AggregationJobId>> = BTreeMap::new();
    tables.each_job(table, &mut |head| {
        rows += 1;
        for slice in head.slices.iter().filter(|s| !s.excluded) {
            counting.entry((slice.bucket, head.param.clone())).or_default().push(head.job);
        }
        Ok(())
    })?;
    let mut undecided = BTreeSet::new();
    for ((bucket, param), jobs) in counting {
        if !is_sealed(tables, &bucket, &param)? {
            undecided.extend(jobs);
        }
    }
    Ok((rows, undecided))
}

/// The fates of the jobs of a generation.
pub(super) fn fates(
    tables: &mut impl AggregateTables,
    meta: &StoreMeta,
    table: u32,
) -> StoreResult<Fates> {
    let mut fates = Fates::default();
    let mut params: BTreeSet<Vec<u8>> = BTreeSet::new();
    tables.each_job(table, &mut |head| {
        let must_stay = head.slices.iter().any(|slice| {
            let is_frozen = meta.frozen.as_ref().is_some_and(|f| f.range.contains(&slice.bucket));
            let names_free_ids = slice.excluded && slice.report_count > 0;
            is_frozen || slice.yields || names_free_ids || !slice.struck.is_empty()
        });
        if must_stay {
            fates.staying.insert(head.job);
        }
        fates.rows += 1;
        params.insert(head.param);
        Ok(())
    })?;
    let mut contested: BTreeMap<Vec<u8>, BTreeSet<ReportId>> = BTreeMap::new();
    for param in params {
        let ids = collection::ids_where(tables, meta, &param, |_, s| !s.excluded && s.yields)?;
        if !ids.is_empty() {
            contested.insert(param, ids);
        }
    }
    if !contested.is_empty() {
        tables.each_job_ids(table, &mut |head, ids| {
            let rivals = contested.get(&head.param);
            if rivals.is_some_and(|rivals| report_ids(ids).any(|id| rivals.contains(&id))) {
                fates.staying.insert(head.job);
            }
            Ok(())
        })?;
    }
    Ok(fates)
}

/// Packs a generation but for the jobs in `keep`, which move to the epoch's remnant. One transaction.
pub(super) fn pack(
    tables: &mut impl AggregateTables,
    meta: &mut StoreMeta,
    full: Full,
    keep: &BTreeSet<AggregationJobId>,
) -> StoreResult<()> {
    // A remnant that is packed leaves a smaller one.
    for epoch in &mut meta.epochs {
        epoch.remnant.take_if(|table| *table == full.table);
    }
    let mut heads = Vec::new();
    tables.each_job_ids(full.table, &mut |head, ids| {
        let ids = if keep.contains(&head.job) { ids.to_vec() } else { Vec::new() };
        heads.push((head, ids));
        Ok(())
    })?;
    let mut sums: BTreeMap<(BatchBucket, Vec<u8>), Content> = BTreeMap::new();
    let mut packed: Vec<(AggregationJobId, RecordedJob)> = Vec::new();
    for (head, ids) in heads {
        let recorded = tables
            .job(full.table, &head.job)?
            .ok_or_else(|| StoreError("a job is gone".to_owned()))?;
        let shares = tables.shares(full.table, &head.job)?;
        if keep.contains(&head.job) {
            let remnant = remnant(tables, meta, full.epoch)?;
            tables.insert_job(remnant, &JobRow { head, recorded, ids, shares })?;
            continue;
        }
        for (slice, share) in shares_by_slice(&head.slices, &shares)? {
            if !slice.excluded {
                let key = (slice.bucket, head.param.clone());
                let field = meta.field.at(&head.param);
                sums.entry(key).or_default().add(field, slice, share)?;
            }
        }
        packed.push((head.job, recorded));
    }
    for ((bucket, param), content) in sums {
        let mut sum = tables.merged(full.epoch, &bucket, &param)?.unwrap_or_default();
        sum.merge(meta.field.at(&param), &content)?;
        tables.put_merged(full.epoch, &bucket, &param, &sum)?;
    }
    packed.sort_unstable_by_key(|(job, _)| *job);
    tables.put_packed_jobs(full.epoch, full.table, &packed)?;
    tables.drop_generation(full.table)?;
    for epoch in &mut meta.epochs {
        epoch.generations.retain(|g| g.table != full.table);
    }
    tables.put_meta(meta)
}

fn remnant(
    tables: &mut impl AggregateTables,
    meta: &mut StoreMeta,
    epoch: u32,
) -> StoreResult<u32> {
    let table = meta.next_table;
    let epoch = meta
        .epochs
        .iter_mut()
        .find(|e| e.number == epoch)
        .ok_or_else(|| StoreError("an epoch is gone".to_owned()))?;
    if let Some(table) = epoch.remnant {
        return Ok(table);
    }
    epoch.remnant = Some(table);
    meta.next_table += 1;
    tables.create_generation(table)?;
    Ok(table)
}

/// Reports in an epoch that no collection asked for.
pub(super) fn uncollected(tables: &mut impl AggregateTables, epoch: &Epoch) -> StoreResult<u64> {
    let mut open: BTreeMap<(BatchBucket, Vec<u8>), u64> = BTreeMap::new();
    tables.each_merged(epoch.number, None, &mut |bucket, param, merged| {
        *open.entry((bucket, param.to_vec())).or_default() += merged.report_count;
        Ok(())
    })?;
    for table in epoch.job_tables() {
        tables.each_job(table, &mut |head| {
            for SliceHead { bucket, report_count, .. } in head.slices.iter().filter(|s| !s.excluded)
            {
                *open.entry((*bucket, head.param.clone())).or_default() += u64::from(*report_count);
            }
            Ok(())
        })?;
    }
    let mut total = 0;
    for ((bucket, param), reports) in open {
        if !is_sealed(tables, &bucket, &param)? {
            total += reports;
        }
    }
    Ok(total)
}

/// Forgets an epoch, but not what became of its reports.
pub(super) fn forget(
    tables: &mut impl AggregateTables,
    live: &mut Option<Live>,
    meta: &mut StoreMeta,
    number: u32,
) -> StoreResult<()> {
    let Some(at) = meta.epochs.iter().position(|e| e.number == number) else {
        return Ok(());
    };
    if at + 1 == meta.epochs.len() {
        // The newest generation goes with it.
        meta.totals = totals::of_all_jobs(tables, live, meta)?;
    }
    *live = None;
    let epoch = meta.epochs.remove(at);
    for table in epoch.job_tables() {
        tables.drop_generation(table)?;
    }
    epoch.runs.drop_all(tables)?;
    tables.drop_epoch(number)?;
    tables.put_meta(meta)
}
