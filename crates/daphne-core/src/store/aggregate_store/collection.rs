//! Collecting from one store: gather, freeze, seal, thaw.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    AggregateTables, FrozenRange, JobHead, Response, SealedRange, SliceHead, StoreError, StoreMeta,
    StoreResult, commit, ids_by_slice, report_ids, shares_by_slice, strike_out,
};
use crate::{
    batch::BucketRange,
    ids::{AggregationJobId, ReportId},
    store::{
        message::{Content, JobInRange, JobsInRange},
        replay::Recent,
    },
    vdaf::{FieldKind, share},
};

/// Most jobs told apart in one answer. Of what is older, only the sums are.
const JOBS_MAX: usize = 16_384;
/// Pairs of jobs with a common report in one answer, at least.
const CONFLICTS_MAX: usize = 16_384;

/// Sums the slices of a range that count. Also whether one of them yields, and whether reports were aggregated there with
/// other parameters.
pub(super) fn content(
    tables: &mut impl AggregateTables,
    meta: &StoreMeta,
    range: &BucketRange,
    param: &[u8],
    exclude: &[AggregationJobId],
) -> StoreResult<(Content, bool, bool)> {
    let exclude: BTreeSet<AggregationJobId> = exclude.iter().copied().collect();
    let field = meta.field.at(param);
    let mut total = Content::default();
    let mut others = false;
    for epoch in &meta.epochs {
        tables.each_merged(epoch.number, Some(range), &mut |_, merged_param, merged| {
            if merged_param == param {
                return total.merge(field, &merged);
            }
            others = true;
            Ok(())
        })?;
    }
    let mut contested = false;
    for table in meta.job_tables() {
        let mut counted: Vec<JobHead> = Vec::new();
        tables.each_job(table, &mut |head| {
            if !exclude.contains(&head.job) && head.slices.iter().any(|s| counts_in(s, range)) {
                match head.param == param {
                    true => counted.push(head),
                    false => others = true,
                }
            }
            Ok(())
        })?;
        for head in counted {
            let shares = tables.shares(table, &head.job)?;
            for (slice, share) in shares_by_slice(&head.slices, &shares)? {
                if counts_in(slice, range) {
                    contested |= slice.yields;
                    total.add(field, slice, share)?;
                }
            }
        }
    }
    Ok((total, contested, others))
}

fn counts_in(slice: &SliceHead, range: &BucketRange) -> bool {
    !slice.excluded && range.contains(&slice.bucket)
}

impl Content {
    /// Adds one slice.
    pub(super) fn add(
        &mut self,
        field: FieldKind,
        slice: &SliceHead,
        share: &[u8],
    ) -> StoreResult<()> {
        self.report_count += u64::from(slice.report_count);
        self.checksum.merge(&slice.checksum);
        let (min, max) = self.times.unwrap_or((slice.min_time, slice.max_time));
        self.times = Some((min.min(slice.min_time), max.max(slice.max_time)));
        merge_share(field, &mut self.share, share)
    }

    /// Adds other slices' sum.
    pub(super) fn merge(&mut self, field: FieldKind, other: &Self) -> StoreResult<()> {
        self.report_count += other.report_count;
        self.checksum.merge(&other.checksum);
        self.times = match (self.times, other.times) {
            (Some((a, b)), Some((c, d))) => Some((a.min(c), b.max(d))),
            (one, another) => one.or(another),
        };
        merge_share(field, &mut self.share, &other.share)
    }
}

/// Adds `share` to `total`, which is empty before the first one.
pub(crate) fn merge_share(field: FieldKind, total: &mut Vec<u8>, share: &[u8]) -> StoreResult<()> {
    if share.is_empty() {
        return Ok(());
    }
    if total.is_empty() {
        total.extend_from_slice(share);
        return Ok(());
    }
    share::add_assign(field, total, share).map_err(|e| StoreError(e.to_string()))
}

/// The jobs that have slices in a range, newest first.
pub(super) fn jobs_in(
    tables: &mut impl AggregateTables,
    meta: &StoreMeta,
    range: &BucketRange,
    param: &[u8],
) -> StoreResult<JobsInRange> {
    let mut out = JobsInRange::default();
    for epoch in &meta.epochs {
        tables.each_merged(epoch.number, Some(range), &mut |_, merged_param, merged| {
            if merged_param == param {
                out.packed_count += merged.report_count;
                out.packed_checksum.merge(&merged.checksum);
            }
            Ok(())
        })?;
    }
    let index = Recent::new(meta.fingerprint_key);
    let fingerprint = index.fingerprints(param);
    // Ids that two slices may hold: those of slices that yield.
    let mut contested: BTreeMap<ReportId, BTreeSet<AggregationJobId>> = BTreeMap::new();
    let mut found = Vec::new();
    for table in meta.job_tables() {
        tables.each_job_ids(table, &mut |head, ids| {
            if head.param != param || !head.slices.iter().any(|s| counts_in(s, range)) {
                return Ok(());
            }
            let mut job = JobInRange {
                job: head.job,
                report_count: 0,
                checksum: Default::default(),
                fingerprint_sum: 0,
                yields: false,
            };
            for (slice, ids) in ids_by_slice(&head.slices, ids)? {
                if !counts_in(slice, range) {
                    continue;
                }
                job.report_count += u64::from(slice.report_count);
                job.checksum.merge(&slice.checksum);
                job.yields |= slice.yields;
                for id in report_ids(ids) {
                    job.fingerprint_sum = job.fingerprint_sum.wrapping_add(fingerprint(&id));
                    if slice.yields {
                        contested.entry(id).or_default();
                    }
                }
            }
            found.push((head.seq, job));
            Ok(())
        })?;
    }
    found.sort_unstable_by_key(|(seq, _)| std::cmp::Reverse(*seq));
    out.jobs = found.into_iter().map(|(_, job)| job).collect();
    let wanted: BTreeSet<ReportId> = contested.keys().copied().collect();
    for holder in commit::holders(tables, meta, |head| head.param == param, &wanted)? {
        for (n, id) in &holder.hits {
            if holder.head.slices.get(*n).is_some_and(|s| counts_in(s, range)) {
                contested.entry(*id).or_default().insert(holder.head.job);
            }
        }
    }
    let mut conflicts = BTreeSet::new();
    'all: for jobs in contested.values() {
        for a in jobs {
            conflicts.extend(jobs.range(a..).skip(1).map(|b| (*a, *b)));
            // Only a leader that sends one report again and again gets here; freezing checks all pairs.
            if conflicts.len() > CONFLICTS_MAX {
                break 'all;
            }
        }
    }
    out.conflicts = conflicts.into_iter().collect();
    for job in out.jobs.split_off(out.jobs.len().min(JOBS_MAX)) {
        out.packed_count += job.report_count;
        out.packed_checksum.merge(&job.checksum);
    }
    Ok(out)
}

/// Holds a range for an attempt, if what counts of it is still what was gathered and no report is in two such slices. Also
/// opens a new store, so that a commit that comes later meets the decision.
pub(super) fn freeze(
    tables: &mut impl AggregateTables,
    meta: &mut StoreMeta,
    frozen: FrozenRange,
    counts: &BucketRange,
    exclude: &[AggregationJobId],
    version: [u8; 32],
) -> StoreResult<Response> {
    if frozen.attempt <= meta.fence
        || meta.closing
        || meta.frozen.as_ref().is_some_and(|f| f.attempt != frozen.attempt)
    {
        return Ok(Response::Stale);
    }
    // Never reached by a correct ledger; a range is collected once.
    if tables.sealed_meeting(&frozen.range)?.iter().any(|s| s.param == frozen.param) {
        return Ok(Response::Stale);
    }
    let (content, contested, _) = content(tables, meta, counts, &frozen.param, exclude)?;
    if content.version() != version
        || (contested && counts_twice(tables, meta, counts, &frozen.param, exclude)?)
    {
        return Ok(Response::Moved);
    }
    meta.open = true;
    meta.frozen = Some(frozen);
    tables.put_meta(meta)?;
    Ok(Response::Frozen)
}

/// Whether a report is in two slices that would count. Only a slice that yields shares reports with another.
fn counts_twice(
    tables: &mut impl AggregateTables,
    meta: &StoreMeta,
    range: &BucketRange,
    param: &[u8],
    exclude: &[AggregationJobId],
) -> StoreResult<bool> {
    let exclude: BTreeSet<AggregationJobId> = exclude.iter().copied().collect();
    let counts =
        |head: &JobHead, s: &SliceHead| counts_in(s, range) && !exclude.contains(&head.job);
    let yielding = ids_where(tables, meta, param, |head, s| s.yields && counts(head, s))?;
    let mut seen = BTreeSet::new();
    for holder in commit::holders(tables, meta, |head| head.param == param, &yielding)? {
        for (n, id) in &holder.hits {
            let slice = holder.head.slices.get(*n);
            if slice.is_some_and(|s| counts(&holder.head, s)) && !seen.insert(*id) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// The ids of the separate slices that `choose` chooses.
pub(super) fn ids_where(
    tables: &mut impl AggregateTables,
    meta: &StoreMeta,
    param: &[u8],
    choose: impl Fn(&JobHead, &SliceHead) -> bool,
) -> StoreResult<BTreeSet<ReportId>> {
    let mut chosen: BTreeSet<ReportId> = BTreeSet::new();
    for table in meta.job_tables() {
        // Heads first: ids are many times larger, and most often nothing is chosen.
        let mut any = false;
        tables.each_job(table, &mut |head| {
            any |= head.param == param && head.slices.iter().any(|s| choose(&head, s));
            Ok(())
        })?;
        if !any {
            continue;
        }
        tables.each_job_ids(table, &mut |head, ids| {
            if head.param == param {
                for (_, ids) in ids_by_slice(&head.slices, ids)?
                    .into_iter()
                    .filter(|(slice, _)| choose(&head, slice))
                {
                    chosen.extend(report_ids(ids));
                }
            }
            Ok(())
        })?;
    }
    Ok(chosen)
}

/// The decision was taken. What is left out, or is in the part of the range that does not count, becomes excluded, and so does, anywhere, what shares a report with what
/// counts now.
pub(super) fn seal(
    tables: &mut impl AggregateTables,
    meta: &mut StoreMeta,
    sealed: SealedRange,
    counts: &BucketRange,
    exclude: &[AggregationJobId],
) -> StoreResult<Response> {
    let (range, param) = (&sealed.range, &sealed.param);
    let is_repeat =
        tables.sealed_meeting(range)?.iter().any(|s| s.range == *range && s.param == *param);
    if !is_repeat {
        let exclude: BTreeSet<AggregationJobId> = exclude.iter().copied().collect();
        let is_kept =
            |head: &JobHead, s: &SliceHead| counts_in(s, counts) && !exclude.contains(&head.job);
        let is_left_out = |head: &JobHead, s: &SliceHead| counts_in(s, range) && !is_kept(head, s);
        let is_rival = |s: &SliceHead| !s.excluded && !range.contains(&s.bucket);
        // Reports are in two slices only if one of these yields.
        let taken_back = ids_where(tables, meta, param, |head, s| s.yields && is_kept(head, s))?;
        let given = ids_where(tables, meta, param, |_, s| s.yields && is_rival(s))?;
        let kept: BTreeSet<ReportId> =
            commit::holders(tables, meta, |head| head.param == *param, &given)?
                .into_iter()
                .flat_map(|h| {
                    let head = h.head;
                    h.hits.into_iter().filter(move |(n, _)| {
                        head.slices.get(*n).is_some_and(|s| is_kept(&head, s))
                    })
                })
                .map(|(_, id)| id)
                .chain(taken_back)
                .collect();
        let rivals: BTreeSet<(AggregationJobId, usize)> =
            commit::holders(tables, meta, |head| head.param == *param, &kept)?
                .into_iter()
                .flat_map(|h| {
                    let head = h.head;
                    let hits: BTreeSet<usize> = h.hits.iter().map(|(n, _)| *n).collect();
                    hits.into_iter()
                        .filter(|n| head.slices.get(*n).is_some_and(&is_rival))
                        .map(|n| (head.job, n))
                        .collect::<Vec<_>>()
                })
                .collect();
        let mut changed = Vec::new();
        for table in meta.job_tables() {
            tables.each_job(table, &mut |mut head| {
                if head.param != *param {
                    return Ok(());
                }
                let before = head.clone();
                for (n, slice) in head.slices.iter_mut().enumerate() {
                    if is_left_out(&before, slice) || rivals.contains(&(before.job, n)) {
                        slice.excluded = true;
                        slice.yields = false;
                    } else if counts_in(slice, range) {
                        slice.yields = false;
                    }
                }
                if head != before {
                    changed.push((table, head));
                }
                Ok(())
            })?;
        }
        for (table, head) in &changed {
            tables.put_slices(*table, head, None)?;
        }
        let changed = changed.into_iter().map(|(_, head)| head.job).collect();
        strike_out_what_counts(tables, meta, param, &changed)?;
        tables.put_sealed(&sealed)?;
        meta.open = true;
    }
    end_attempt(meta, sealed.attempt);
    tables.put_meta(meta)?;
    Ok(Response::Done)
}

/// Keeps the promise that no other slice holds what an excluded one still names.
fn strike_out_what_counts(
    tables: &mut impl AggregateTables,
    meta: &StoreMeta,
    param: &[u8],
    changed: &BTreeSet<AggregationJobId>,
) -> StoreResult<()> {
    if changed.is_empty() {
        return Ok(());
    }
    let excluded =
        ids_where(tables, meta, param, |head, s| s.excluded && changed.contains(&head.job))?;
    let holders = commit::holders(tables, meta, |head| head.param == param, &excluded)?;
    let is_excluded =
        |h: &commit::Holder, n: usize| h.head.slices.get(n).is_some_and(|s| s.excluded);
    let counted: BTreeSet<ReportId> = holders
        .iter()
        .flat_map(|h| h.hits.iter().filter(|(n, _)| !is_excluded(h, *n)))
        .map(|(_, id)| *id)
        .collect();
    for holder in holders.into_iter().filter(|h| changed.contains(&h.head.job)) {
        let slices: BTreeSet<usize> = holder
            .hits
            .iter()
            .filter(|(n, id)| is_excluded(&holder, *n) && counted.contains(id))
            .map(|(n, _)| *n)
            .collect();
        let (mut head, mut ids) = (holder.head, holder.ids);
        for n in &slices {
            ids = strike_out(meta.field, &mut head, &ids, *n, &counted)?;
        }
        if !slices.is_empty() {
            tables.put_slices(holder.table, &head, Some(&ids))?;
        }
    }
    Ok(())
}

pub(super) fn thaw(
    tables: &mut impl AggregateTables,
    meta: &mut StoreMeta,
    attempt: u64,
) -> StoreResult<Response> {
    let before = meta.clone();
    end_attempt(meta, attempt);
    if *meta != before {
        tables.put_meta(meta)?;
    }
    Ok(Response::Done)
}

/// Ends an attempt and all before it: their late messages find a fence.
fn end_attempt(meta: &mut StoreMeta, attempt: u64) {
    meta.frozen.take_if(|f| f.attempt == attempt);
    meta.fence = meta.fence.max(attempt);
}
