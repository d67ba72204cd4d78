//! One `AggregateStore`: the reports of one shard of one group, their slices, their verdicts, and what is collected.
//!
//! Every handler is one transaction. A row is written per job and store, never per report. The first write decides
//! a job's fate here and it is repeated for ever; slices stay separate until a collection decides about them.

use serde::{Deserialize, Serialize};

use super::{
    AggregateTables, Database, StoreError, StoreResult,
    message::{
        AggregateStoreRequest, AggregateStoreResponse as Response, Commit, Content, RequestDigest,
        StoreAction,
    },
    placement::Placement,
    replay::ReplayIndex,
};
use crate::{
    batch::{BatchBucket, BucketRange, Checksum},
    error::ReportError,
    ids::{AggregationJobId, ReportId},
    time::Time,
    vdaf::{FieldKind, share},
};

/// The store's single meta row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreMeta {
    /// The task's frozen numbers.
    pub placement: Placement,
    /// Key of the replay index.
    pub fingerprint_key: [u8; 16],
    /// Whether commits are taken: the ledger knows of this store.
    pub open: bool,
    /// Collection attempts up to this one have ended.
    pub fence: u64,
    /// The attempt that holds a range.
    pub frozen: Option<FrozenRange>,
}

/// A range held by a collection attempt that is not decided yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrozenRange {
    /// The attempt.
    pub attempt: u64,
    /// The range.
    pub range: BucketRange,
    /// The aggregation parameter.
    pub param: Vec<u8>,
}

/// A collected range. It never changes again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedRange {
    /// The range.
    pub range: BucketRange,
    /// The aggregation parameter.
    pub param: Vec<u8>,
    /// The attempt that was decided, 0 if that was before this store existed.
    pub attempt: u64,
}

/// What is known about a slice without reading its ids and its share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SliceHead {
    /// The bucket.
    pub bucket: BatchBucket,
    /// Number of reports.
    pub report_count: u32,
    /// XOR of SHA-256 of their ids.
    pub checksum: Checksum,
    /// Earliest report time.
    pub min_time: Time,
    /// Latest report time.
    pub max_time: Time,
    /// Bytes of its share.
    pub share_len: u32,
    /// A collection left it out: its ids are free again.
    pub excluded: bool,
}

/// One job in one store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobRow {
    /// The job.
    pub job: AggregationJobId,
    /// SHA-256 of its request.
    pub digest: RequestDigest,
    /// The aggregation parameter.
    pub param: Vec<u8>,
    /// Its slices.
    pub heads: Vec<SliceHead>,
    /// Reports whose refusal is remembered.
    pub refused: Vec<(ReportId, ReportError)>,
    /// Ids of the slices' reports, 16 bytes each.
    pub ids: Vec<u8>,
    /// The slices' shares.
    pub shares: Vec<u8>,
}

/// An `AggregateStore`: its database, and what it keeps in memory between requests.
#[derive(Debug)]
pub struct AggregateStore<D> {
    db: D,
    index: Option<ReplayIndex>,
}

impl<D: Database> AggregateStore<D>
where
    D::Tables: AggregateTables,
{
    /// The store in `db`. Reads nothing yet.
    pub fn new(db: D) -> Self {
        Self { db, index: None }
    }

    /// The database.
    pub fn database(&self) -> &D {
        &self.db
    }

    /// Handles one request. `entropy` is 16 random bytes, used as fingerprint key if the store is new.
    ///
    /// # Errors
    /// The database's, and requests that no correct sender makes; nothing was written.
    pub fn handle(
        &mut self,
        request: AggregateStoreRequest,
        entropy: [u8; 16],
    ) -> StoreResult<Response> {
        let AggregateStoreRequest { placement, field, action } = request;
        // Taken out, so that a failed or panicking transaction leaves no index rather than a wrong one.
        let mut index = self.index.take();
        let response = self.db.transaction(|tables| {
            let stored = tables.meta()?;
            if stored.as_ref().is_some_and(|m| m.placement != placement) {
                return Ok(Response::WrongPlacement);
            }
            let meta = stored.unwrap_or(StoreMeta {
                placement,
                fingerprint_key: entropy,
                open: false,
                fence: 0,
                frozen: None,
            });
            match action {
                StoreAction::Commit(commit) => commit_job(tables, &mut index, meta, commit),
                StoreAction::KnowsJob(job) => Ok(Response::Known(tables.job(&job)?.is_some())),
                StoreAction::Gather { range, param, exclude } => {
                    Ok(Response::Gathered(content(tables, field, &range, &param, &exclude)?))
                }
                StoreAction::Freeze { attempt, range, param, exclude, version } => {
                    let frozen = FrozenRange { attempt, range, param };
                    freeze(tables, field, meta, frozen, &exclude, version)
                }
                StoreAction::Seal { attempt, range, param, exclude } => {
                    seal(tables, meta, SealedRange { range, param, attempt }, &exclude)
                }
                StoreAction::Thaw { attempt } => thaw(tables, meta, attempt),
            }
        })?;
        self.index = index;
        Ok(response)
    }
}

/// Records a job's fate. The order of the checks is part of the protocol.
fn commit_job(
    tables: &mut impl AggregateTables,
    index: &mut Option<ReplayIndex>,
    mut meta: StoreMeta,
    commit: Commit,
) -> StoreResult<Response> {
    let opening = match (&commit.open, meta.open) {
        (_, true) => None,
        (Some(sealed), false) => Some(sealed),
        (None, false) => return Ok(Response::NotOpen),
    };
    // A repeat is answered from the row, and nothing else is looked at.
    if let Some(recorded) = tables.job(&commit.job)? {
        if recorded.digest != commit.digest {
            return Ok(Response::Conflict);
        }
        let unrecorded = unrecorded(tables, &commit, &recorded.refused)?;
        return Ok(if unrecorded.is_empty() {
            Response::Committed(recorded.refused)
        } else {
            Response::PartlyRecorded { refused: recorded.refused, unrecorded }
        });
    }
    if let Some(sealed) = opening {
        meta.open = true;
        tables.put_meta(&meta)?;
        for (range, param) in sealed {
            tables.put_sealed(&SealedRange { range: *range, param: param.clone(), attempt: 0 })?;
        }
    }
    if let Some(frozen) = &meta.frozen
        && commit.slices.iter().any(|s| frozen.range.contains(&s.bucket))
    {
        return Ok(Response::Busy(frozen.attempt));
    }
    let mut collected = Vec::new();
    for slice in &commit.slices {
        if is_sealed(tables, &slice.bucket, &commit.param)? {
            collected.extend(report_ids(&slice.ids));
        }
    }
    if !collected.is_empty() {
        return Ok(Response::Collected(collected));
    }
    let index = match index {
        Some(index) => index,
        None => index.insert(rebuild(tables, meta.fingerprint_key)?),
    };
    let suspects: Vec<ReportId> = commit
        .slices
        .iter()
        .flat_map(|s| report_ids(&s.ids))
        .filter(|id| index.may_contain(&commit.param, id.as_bytes()))
        .collect();
    if !suspects.is_empty() {
        match resolve(tables, &meta, &commit.param, suspects)? {
            Replay::None => {}
            Replay::Busy(attempt) => return Ok(Response::Busy(attempt)),
            Replay::Replayed(ids) => return Ok(Response::Replayed(ids)),
        }
    }
    let row = job_row(commit)?;
    tables.insert_job(&row)?;
    index.insert_all(&row.param, &row.ids);
    Ok(Response::Committed(row.refused))
}

/// The reports that a repeat asks about and the job's row does not hold.
fn unrecorded(
    tables: &mut impl AggregateTables,
    commit: &Commit,
    refused: &[(ReportId, ReportError)],
) -> StoreResult<Vec<ReportId>> {
    let ids = tables.ids(&commit.job)?;
    let mut known: Vec<ReportId> =
        report_ids(&ids).chain(refused.iter().map(|(id, _)| *id)).collect();
    known.sort_unstable();
    let asked = commit
        .slices
        .iter()
        .flat_map(|s| report_ids(&s.ids))
        .chain(commit.refused.iter().map(|(id, _)| *id));
    Ok(asked.filter(|id| known.binary_search(id).is_err()).collect())
}

fn job_row(commit: Commit) -> StoreResult<JobRow> {
    let (mut heads, mut ids, mut shares) = (Vec::new(), Vec::new(), Vec::new());
    for slice in commit.slices {
        let malformed = || StoreError("malformed slice".to_owned());
        if slice.ids.is_empty() || !slice.ids.len().is_multiple_of(ReportId::LEN) {
            return Err(malformed());
        }
        heads.push(SliceHead {
            bucket: slice.bucket,
            report_count: u32::try_from(slice.ids.len() / ReportId::LEN)
                .map_err(|_| malformed())?,
            checksum: slice.checksum,
            min_time: slice.min_time,
            max_time: slice.max_time,
            share_len: u32::try_from(slice.share.len()).map_err(|_| malformed())?,
            excluded: false,
        });
        ids.extend_from_slice(&slice.ids);
        shares.extend_from_slice(&slice.share);
    }
    Ok(JobRow {
        job: commit.job,
        digest: commit.digest,
        param: commit.param,
        heads,
        refused: commit.refused,
        ids,
        shares,
    })
}

enum Replay {
    None,
    Busy(u64),
    Replayed(Vec<ReportId>),
}

/// Finds the live slices that hold `suspects`. Rare: only ids whose fingerprint is known get here.
fn resolve(
    tables: &mut impl AggregateTables,
    meta: &StoreMeta,
    param: &[u8],
    mut suspects: Vec<ReportId>,
) -> StoreResult<Replay> {
    suspects.sort_unstable();
    let mut replayed = Vec::new();
    let mut busy = None;
    tables.each_job_ids(&mut |_, row_param, heads, ids| {
        if row_param != param {
            return Ok(());
        }
        for (head, ids) in slices_of(&heads, ids)? {
            if head.excluded {
                continue;
            }
            for id in report_ids(ids).filter(|id| suspects.binary_search(id).is_ok()) {
                match &meta.frozen {
                    // Whether this slice counts is being decided: neither "replayed" nor "free" is true yet.
                    Some(f) if f.range.contains(&head.bucket) => busy = Some(f.attempt),
                    _ => replayed.push(id),
                }
            }
        }
        Ok(())
    })?;
    replayed.sort_unstable();
    replayed.dedup();
    Ok(match (busy, replayed.is_empty()) {
        (Some(attempt), _) => Replay::Busy(attempt),
        (None, false) => Replay::Replayed(replayed),
        (None, true) => Replay::None,
    })
}

fn rebuild(tables: &mut impl AggregateTables, key: [u8; 16]) -> StoreResult<ReplayIndex> {
    let mut index = ReplayIndex::new(key);
    tables.each_job_ids(&mut |_, param, _, ids| {
        index.insert_all(param, ids);
        Ok(())
    })?;
    Ok(index)
}

/// Sums the live slices of a range.
fn content(
    tables: &mut impl AggregateTables,
    field: FieldKind,
    range: &BucketRange,
    param: &[u8],
    exclude: &[AggregationJobId],
) -> StoreResult<Content> {
    let mut counted: Vec<(AggregationJobId, Vec<SliceHead>)> = Vec::new();
    tables.each_job(&mut |job, row_param, heads| {
        if row_param == param
            && !exclude.contains(&job)
            && heads.iter().any(|h| !h.excluded && range.contains(&h.bucket))
        {
            counted.push((job, heads));
        }
        Ok(())
    })?;
    let mut total = Content::default();
    for (job, heads) in counted {
        let shares = tables.shares(&job)?;
        let mut rest = shares.as_slice();
        for head in heads {
            let (share, tail) =
                rest.split_at_checked(head.share_len as usize).ok_or_else(|| {
                    StoreError("a job's shares are shorter than its slices".to_owned())
                })?;
            rest = tail;
            if head.excluded || !range.contains(&head.bucket) {
                continue;
            }
            total.report_count += u64::from(head.report_count);
            total.checksum.merge(&head.checksum);
            let (min, max) = total.times.unwrap_or((head.min_time, head.max_time));
            total.times = Some((min.min(head.min_time), max.max(head.max_time)));
            merge_share(field, &mut total.share, share)?;
        }
    }
    Ok(total)
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

/// Holds a range for an attempt, if it still holds what was gathered. Also opens a new store, so that a commit that
/// comes later meets the decision.
fn freeze(
    tables: &mut impl AggregateTables,
    field: FieldKind,
    mut meta: StoreMeta,
    frozen: FrozenRange,
    exclude: &[AggregationJobId],
    version: [u8; 32],
) -> StoreResult<Response> {
    if frozen.attempt <= meta.fence
        || meta.frozen.as_ref().is_some_and(|f| f.attempt != frozen.attempt)
    {
        return Ok(Response::Stale);
    }
    // Never reached by a correct ledger; a range is collected once.
    if tables.sealed_meeting(&frozen.range)?.iter().any(|s| s.param == frozen.param) {
        return Ok(Response::Stale);
    }
    if content(tables, field, &frozen.range, &frozen.param, exclude)?.version() != version {
        return Ok(Response::Moved);
    }
    meta.open = true;
    meta.frozen = Some(frozen);
    tables.put_meta(&meta)?;
    Ok(Response::Frozen)
}

fn seal(
    tables: &mut impl AggregateTables,
    mut meta: StoreMeta,
    sealed: SealedRange,
    exclude: &[AggregationJobId],
) -> StoreResult<Response> {
    let mut given_up = Vec::new();
    if !exclude.is_empty() {
        tables.each_job(&mut |job, param, mut heads| {
            if param == sealed.param && exclude.contains(&job) {
                for head in heads.iter_mut().filter(|h| sealed.range.contains(&h.bucket)) {
                    head.excluded = true;
                }
                given_up.push((job, heads));
            }
            Ok(())
        })?;
    }
    for (job, heads) in given_up {
        tables.put_heads(&job, &heads)?;
    }
    tables.put_sealed(&sealed)?;
    meta.open = true;
    end_attempt(&mut meta, sealed.attempt);
    tables.put_meta(&meta)?;
    Ok(Response::Done)
}

fn thaw(
    tables: &mut impl AggregateTables,
    mut meta: StoreMeta,
    attempt: u64,
) -> StoreResult<Response> {
    let before = meta.clone();
    end_attempt(&mut meta, attempt);
    if meta != before {
        tables.put_meta(&meta)?;
    }
    Ok(Response::Done)
}

/// Ends an attempt and all before it: their late messages find a fence.
fn end_attempt(meta: &mut StoreMeta, attempt: u64) {
    meta.frozen.take_if(|f| f.attempt == attempt);
    meta.fence = meta.fence.max(attempt);
}

fn is_sealed(
    tables: &mut impl AggregateTables,
    bucket: &BatchBucket,
    param: &[u8],
) -> StoreResult<bool> {
    Ok(tables.sealed_near(bucket)?.iter().any(|s| s.param == param && s.range.contains(bucket)))
}

/// The ids in a packed run of them.
pub fn report_ids(packed: &[u8]) -> impl Iterator<Item = ReportId> + '_ {
    packed.as_chunks::<16>().0.iter().map(|id| ReportId::new(*id))
}

/// Splits a job's packed ids by slice.
fn slices_of<'a>(
    heads: &'a [SliceHead],
    mut ids: &'a [u8],
) -> StoreResult<Vec<(&'a SliceHead, &'a [u8])>> {
    let mut out = Vec::with_capacity(heads.len());
    for head in heads {
        let (mine, rest) = ids
            .split_at_checked(head.report_count as usize * ReportId::LEN)
            .ok_or_else(|| StoreError("a job's ids are shorter than its slices".to_owned()))?;
        ids = rest;
        out.push((head, mine));
    }
    Ok(out)
}
