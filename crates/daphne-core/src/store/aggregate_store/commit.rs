//! Recording a job, or saying why not.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    AggregateTables, JobHead, JobRow, Limits, Live, RecordedJob, Refused, Response, SliceHead,
    StoreError, StoreMeta, StoreResult, ids_by_slice, pack, report_ids, sealed_buckets, strike_out,
};
use crate::{
    batch::{BatchBucket, BucketRange},
    ids::{AggregationJobId, ReportId},
    metrics::{Failure, Tally},
    store::{
        message::{Commit, RequestDigest, Slice},
        placement::Group,
    },
    time::Time,
};

/// Records a job's fate. The order of the checks is part of the protocol. Returns also whether a generation became
/// full, so that there is something to do in the background.
pub(super) fn commit_job<T: AggregateTables>(
    tables: &mut T,
    live: &mut Option<Live>,
    meta: &mut StoreMeta,
    commit: Commit,
    now: Time,
    limits: &Limits,
) -> StoreResult<(Response, bool)> {
    let not_now = |response| Ok((response, false));
    if !meta.open && commit.open.is_none() {
        return not_now(Response::NotOpen);
    }
    // A repeat is answered from the row, and nothing else is looked at.
    let live_now = pack::load(tables, live, meta)?;
    let is_tree = meta.field.level(&commit.param).is_some();
    let mut asked: Vec<u64> = all_ids(&commit.slices)
        .map(|id| match is_tree {
            true => live_now.recent.fingerprint_anyhow(&id),
            false => live_now.recent.fingerprint(&commit.param, &id),
        })
        .collect();
    asked.push(live_now.recent.fingerprint_job(&commit.job));
    asked.sort_unstable();
    let held = pack::present(tables, live_now, meta, &asked)?;
    if held.binary_search(&live_now.recent.fingerprint_job(&commit.job)).is_ok()
        && let Some(recorded) = find_job(tables, meta, &commit.job)?
    {
        return not_now(repeat(recorded, &commit.digest));
    }
    if meta.closing {
        return not_now(Response::Expired);
    }
    let mut must_write = open(tables, meta, commit.open.as_deref())?;
    if let Some(frozen) = &meta.frozen
        && commit.slices.iter().any(|s| frozen.range.contains(&s.bucket))
    {
        return not_now(Response::Busy(frozen.attempt));
    }
    let collected = collected(tables, live_now, meta, &commit)?;
    if !collected.is_empty() {
        return not_now(Response::Collected(collected));
    }
    let mut suspects: Vec<(Scope, BTreeSet<ReportId>)> = Vec::new();
    for scope in Scope::of(meta, &commit) {
        let ids = scope.held(tables, live_now, meta, &commit, &held)?;
        if !ids.is_empty() {
            suspects.push((scope, ids));
        }
    }
    if let Some(refusal) = take_over(tables, meta, &commit, &suspects)? {
        return not_now(refusal);
    }
    must_write |= pack::begin_generation(tables, live, meta, epoch(meta, now))?;
    let live = pack::load(tables, live, meta)?;
    let generation = pack::newest(meta)?;
    if let Some(level) = meta.field.level(&commit.param)
        && let Err(place) = meta.levels.binary_search(&level)
    {
        meta.levels.insert(place, level);
        must_write = true;
    }
    let row = job_row(commit, (u64::from(generation) << 32) | u64::from(live.rows), now)?;
    tables.insert_job(generation, &row)?;
    live.add(meta.field, &row.head, &row.ids)?;
    let refused = row.recorded.refused;
    let full = pack::end_write(tables, live, meta, limits, must_write)?;
    Ok((Response::Committed(refused), full))
}

/// Opens a store that is not, if the ledger knows of it, with what was collected without it. Returns whether it did: then the
/// caller writes the meta row.
pub(super) fn open(
    tables: &mut impl AggregateTables,
    meta: &mut StoreMeta,
    registered: Option<&[(BucketRange, Vec<u8>)]>,
) -> StoreResult<bool> {
    let (false, Some(sealed)) = (meta.open, registered) else { return Ok(false) };
    meta.open = true;
    for (range, param) in sealed {
        let (range, param) = (*range, param.clone());
        tables.put_sealed(&super::SealedRange { range, param, attempt: 0 })?;
    }
    Ok(true)
}

/// A job's recorded fate, wherever it is kept.
pub(super) fn recorded(
    tables: &mut impl AggregateTables,
    live: &mut Option<Live>,
    meta: &StoreMeta,
    job: &AggregationJobId,
) -> StoreResult<Option<RecordedJob>> {
    let live = pack::load(tables, live, meta)?;
    let fingerprint = live.recent.fingerprint_job(job);
    if pack::present(tables, live, meta, &[fingerprint])?.is_empty() {
        return Ok(None);
    }
    find_job(tables, meta, job)
}

fn find_job(
    tables: &mut impl AggregateTables,
    meta: &StoreMeta,
    job: &AggregationJobId,
) -> StoreResult<Option<RecordedJob>> {
    for table in meta.job_tables().rev() {
        if let Some(recorded) = tables.job(table, job)? {
            return Ok(Some(recorded));
        }
    }
    for epoch in meta.epochs.iter().rev() {
        if let Some(recorded) = tables.packed_job(epoch.number, job)? {
            return Ok(Some(recorded));
        }
    }
    Ok(None)
}

fn repeat(recorded: RecordedJob, digest: &RequestDigest) -> Response {
    if recorded.digest == *digest {
        Response::Committed(recorded.refused)
    } else {
        Response::Conflict
    }
}

/// The epoch of what arrives now. A store of a time group has only one: it ends as a whole.
pub(super) fn epoch(meta: &StoreMeta, now: Time) -> u32 {
    match meta.store.group {
        Group::Whole => meta.placement.epoch(now),
        Group::Run(_) => 0,
    }
}

/// Where it is looked for reports that were aggregated before. DAP-09 §4.5.1.4 has the VDAF decide: a report of Prio3 is
/// aggregated once, one of Poplar1 once at each level of the tree and only downwards (VDAF-08 §8.2.6). By DAP-18 §4.5.4.3 a
/// report is aggregated once, at whatever level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    /// The jobs with the commit's own aggregation parameter.
    Param,
    /// The jobs with any parameter of this level.
    Level(u16),
}

impl Scope {
    /// Those of a commit. A store of a Poplar1 task knows the levels that it has seen, which are few.
    fn of(meta: &StoreMeta, commit: &Commit) -> Vec<Self> {
        match meta.field.level(&commit.param) {
            None => vec![Self::Param],
            Some(level) => {
                let levels = meta.levels.iter().filter(|l| commit.once || **l >= level);
                levels.map(|l| Self::Level(*l)).collect()
            }
        }
    }

    /// The reports that were aggregated in this scope, as the index has it. `held` is what it has of those that were asked
    /// about first: most reports are new, whatever the number of levels.
    fn held(
        self,
        tables: &mut impl AggregateTables,
        live: &Live,
        meta: &StoreMeta,
        commit: &Commit,
        held: &[u64],
    ) -> StoreResult<BTreeSet<ReportId>> {
        let has = |found: &[u64], fingerprint: u64| found.binary_search(&fingerprint).is_ok();
        let ids = all_ids(&commit.slices);
        match self {
            Self::Param => {
                Ok(ids.filter(|id| has(held, live.recent.fingerprint(&commit.param, id))).collect())
            }
            Self::Level(level) => {
                let known: Vec<ReportId> =
                    ids.filter(|id| has(held, live.recent.fingerprint_anyhow(id))).collect();
                let fingerprint = |id: &ReportId| live.recent.fingerprint_at(level, id);
                let mut asked: Vec<u64> = known.iter().map(fingerprint).collect();
                asked.sort_unstable();
                let found = pack::present(tables, live, meta, &asked)?;
                Ok(known.into_iter().filter(|id| has(&found, fingerprint(id))).collect())
            }
        }
    }

    fn covers(self, meta: &StoreMeta, param: &[u8], head: &JobHead) -> bool {
        match self {
            Self::Param => head.param == param,
            Self::Level(level) => meta.field.level(&head.param) == Some(level),
        }
    }
}

fn all_ids(slices: &[Slice]) -> impl Iterator<Item = ReportId> + '_ {
    slices.iter().flat_map(|s| report_ids(&s.ids))
}

/// The reports whose batches are collected. A batch that was collected with other aggregation parameters only takes
/// the reports that it had then: DAP-09 §4.5.1.4.
fn collected(
    tables: &mut impl AggregateTables,
    live: &Live,
    meta: &StoreMeta,
    commit: &Commit,
) -> StoreResult<Vec<ReportId>> {
    let mut out = BTreeSet::new();
    let mut wanted: BTreeMap<Batch, BTreeSet<ReportId>> = BTreeMap::new();
    for slice in &commit.slices {
        let sealed = tables.sealed_near(&slice.bucket)?;
        for sealed in sealed.into_iter().filter(|s| s.range.contains(&slice.bucket)) {
            if commit.once || sealed.param == commit.param {
                out.extend(report_ids(&slice.ids));
            } else {
                wanted.insert((sealed.param, slice.bucket), report_ids(&slice.ids).collect());
            }
        }
    }
    let counted = counted(tables, live, meta, &wanted)?;
    for (batch, ids) in &wanted {
        match counted.get(batch) {
            Some(counted) => out.extend(ids.difference(counted).copied()),
            None => out.extend(ids.iter().copied()),
        }
    }
    Ok(out.into_iter().collect())
}

/// A batch bucket under an aggregation parameter.
type Batch = (Vec<u8>, BatchBucket);

/// Which of the reports that are wanted of each batch count there. Reads the rows once, whatever the number of batches.
fn counted(
    tables: &mut impl AggregateTables,
    live: &Live,
    meta: &StoreMeta,
    wanted: &BTreeMap<Batch, BTreeSet<ReportId>>,
) -> StoreResult<BTreeMap<Batch, BTreeSet<ReportId>>> {
    let mut counted: BTreeMap<Batch, BTreeSet<ReportId>> = BTreeMap::new();
    for ((param, bucket), ids) in wanted {
        let fingerprint: Box<dyn Fn(&ReportId) -> u64> = match meta.field.level(param) {
            Some(_) => Box::new(live.recent.fingerprints_in(param, bucket)),
            None => Box::new(live.recent.fingerprints(param)),
        };
        let mut asked: Vec<u64> = ids.iter().map(&fingerprint).collect();
        asked.sort_unstable();
        let held = pack::present(tables, live, meta, &asked)?;
        let held = ids.iter().filter(|id| held.binary_search(&fingerprint(id)).is_ok());
        counted.insert((param.clone(), *bucket), held.copied().collect());
    }
    // All rows are read below: only for what is rare.
    if counted.values().all(BTreeSet::is_empty) {
        return Ok(counted);
    }
    // What is in no row was packed, and only what counts is packed.
    let (mut alive, mut left_out) = (BTreeMap::new(), BTreeMap::new());
    for table in meta.job_tables() {
        tables.each_job_ids(table, &mut |head, ids| {
            for (slice, mine) in ids_by_slice(&head.slices, ids)? {
                let batch = (head.param.clone(), slice.bucket);
                let Some(suspects) = counted.get(&batch) else { continue };
                let found = |ids| report_ids(ids).filter(|id| suspects.contains(id)).collect();
                let here: Vec<ReportId> = found(mine);
                let fate = if slice.excluded { &mut left_out } else { &mut alive };
                fate.entry(batch.clone()).or_insert_with(BTreeSet::new).extend(here);
                let struck: Vec<ReportId> = found(&slice.struck);
                left_out.entry(batch).or_insert_with(BTreeSet::new).extend(struck);
            }
            Ok(())
        })?;
    }
    for (batch, ids) in &mut counted {
        let (alive, left_out) = (alive.get(batch), left_out.get(batch));
        ids.retain(|id| {
            alive.is_some_and(|a| a.contains(id)) || !left_out.is_some_and(|l| l.contains(id))
        });
    }
    Ok(counted)
}

/// A job that holds some of the reports asked about.
pub(super) struct Holder {
    pub(super) table: u32,
    pub(super) head: JobHead,
    pub(super) ids: Vec<u8>,
    /// Number of the slice, and the report.
    pub(super) hits: Vec<(usize, ReportId)>,
}

/// The jobs among `candidates` whose slices are separate and hold some of `wanted`. Reads all ids: only for what is
/// rare.
pub(super) fn holders(
    tables: &mut impl AggregateTables,
    meta: &StoreMeta,
    candidates: impl Fn(&JobHead) -> bool,
    wanted: &BTreeSet<ReportId>,
) -> StoreResult<Vec<Holder>> {
    let mut out = Vec::new();
    if wanted.is_empty() {
        return Ok(out);
    }
    for table in meta.job_tables() {
        tables.each_job_ids(table, &mut |head, ids| {
            if !candidates(&head) {
                return Ok(());
            }
            let mut hits = Vec::new();
            for (n, (_, mine)) in ids_by_slice(&head.slices, ids)?.into_iter().enumerate() {
                hits.extend(report_ids(mine).filter(|id| wanted.contains(id)).map(|id| (n, id)));
            }
            if !hits.is_empty() {
                out.push(Holder { table, head, ids: ids.to_vec(), hits });
            }
            Ok(())
        })?;
    }
    Ok(out)
}

/// Has the job take over those of its reports that other jobs hold, or says why it cannot; then nothing was written.
fn take_over(
    tables: &mut impl AggregateTables,
    meta: &StoreMeta,
    commit: &Commit,
    suspects: &[(Scope, BTreeSet<ReportId>)],
) -> StoreResult<Option<Response>> {
    let mut hard = BTreeSet::new();
    let mut soft = Vec::new();
    let mut busy = None;
    let mut taken = Vec::new();
    for (scope, ids) in suspects {
        let covers = |head: &JobHead| scope.covers(meta, &commit.param, head);
        let holders = holders(tables, meta, covers, ids)?;
        let heads: Vec<JobHead> = holders.iter().map(|h| h.head.clone()).collect();
        let sealed = sealed_buckets(tables, &heads)?;
        // A report in no separate slice is in a merged one, which counts for good.
        let mut merged = ids.clone();
        for holder in &holders {
            // Only a job that asks the same is a successor of one that was given up.
            let is_successor = holder.head.param == commit.param;
            for (n, id) in &holder.hits {
                let Some(slice) = holder.head.slices.get(*n) else { continue };
                merged.remove(id);
                if slice.excluded {
                    continue;
                }
                match &meta.frozen {
                    // Whether this slice counts is being decided: neither "replayed" nor "free" is true yet.
                    Some(f) if f.range.contains(&slice.bucket) => busy = Some(f.attempt),
                    _ if !is_successor
                        || sealed.contains(&(slice.bucket, commit.param.clone())) =>
                    {
                        hard.insert(*id);
                    }
                    _ if slice.yields || commit.readmit.contains(&holder.head.job) => {}
                    _ => soft.push((*id, holder.head.job)),
                }
            }
        }
        hard.extend(merged);
        let is_own = match scope {
            Scope::Param => true,
            Scope::Level(level) => meta.field.level(&commit.param) == Some(*level),
        };
        if is_own {
            taken.extend(holders.into_iter().map(|holder| (holder, ids)));
        }
    }
    if let Some(attempt) = busy {
        return Ok(Some(Response::Busy(attempt)));
    }
    soft.retain(|(id, _)| !hard.contains(id));
    soft.sort_unstable();
    if !hard.is_empty() || !soft.is_empty() {
        return Ok(Some(Response::Replayed { soft, hard: hard.into_iter().collect() }));
    }
    for (holder, suspects) in taken {
        let (table, mut head, mut ids) = (holder.table, holder.head, holder.ids);
        let before = head.clone();
        let slices: BTreeSet<usize> = holder.hits.iter().map(|(n, _)| *n).collect();
        for n in slices {
            match head.slices.get_mut(n) {
                Some(slice) if slice.excluded => {
                    ids = strike_out(meta.field, &mut head, &ids, n, suspects)?;
                }
                Some(slice) => slice.yields = true,
                None => {}
            }
        }
        if head != before {
            tables.put_slices(table, &head, Some(&ids))?;
        }
    }
    Ok(None)
}

fn job_row(commit: Commit, seq: u64, at: Time) -> StoreResult<JobRow> {
    let mut tally = Tally { accepted: 0, failures: commit.unrecorded };
    let (mut slices, mut ids, mut shares) = (Vec::new(), Vec::new(), Vec::new());
    for slice in commit.slices {
        let malformed = || StoreError("malformed slice".to_owned());
        if slice.ids.is_empty() || !slice.ids.len().is_multiple_of(ReportId::LEN) {
            return Err(malformed());
        }
        let report_count =
            u32::try_from(slice.ids.len() / ReportId::LEN).map_err(|_| malformed())?;
        tally.accepted = tally.accepted.saturating_add(report_count);
        slices.push(SliceHead {
            bucket: slice.bucket,
            report_count,
            checksum: slice.checksum,
            min_time: slice.min_time,
            max_time: slice.max_time,
            share_len: u32::try_from(slice.share.len()).map_err(|_| malformed())?,
            excluded: false,
            yields: false,
            struck: Vec::new(),
        });
        ids.extend_from_slice(&slice.ids);
        shares.extend_from_slice(&slice.share);
    }
    let refused: Refused = commit.refused;
    refused.iter().for_each(|(_, error)| tally.refuse(Failure::recorded(*error)));
    Ok(JobRow {
        head: JobHead { job: commit.job, param: commit.param, seq, slices, tally, at },
        recorded: RecordedJob { digest: commit.digest, refused },
        ids,
        shares,
    })
}
