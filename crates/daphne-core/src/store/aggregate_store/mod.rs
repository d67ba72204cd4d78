//! One `AggregateStore`: the reports of one shard of one group, their slices, their verdicts, and what is collected.
//!
//! Every handler is one transaction. A row is written per job and store, never per report. The first write decides
//! a job's fate here and it is repeated for ever; slices stay separate until a collection decides about them.
//!
//! - [`commit`](self) (`commit.rs`): records a job, or says why not.
//! - `begin.rs`: binds reports of VDAFs of several rounds to what is verified of them.
//! - `collection.rs`: gather, freeze, seal, thaw.
//! - `pack.rs`: generations of jobs, and how finished ones shrink.
//! - `totals.rs`: what became of reports, and what is in the batches.
//! - `alarm.rs`: what is done in the background, and when a store forgets.

mod alarm;
mod begin;
mod collection;
mod commit;
mod pack;
mod totals;

use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
};

use serde::{Deserialize, Serialize};

pub(crate) use self::collection::merge_share;
pub use self::{alarm::Alarmed, pack::Limits};
use super::{
    AggregateTables, Database, RecordedJob, StoreError, StoreResult,
    message::{
        AggregateStoreRequest, AggregateStoreResponse as Response, Content, StoreAction,
        StoreTotals,
    },
    placement::{Group, Placement, StoreId},
    replay::{Recent, Runs},
};
use crate::{
    batch::{BatchBucket, BucketRange, Checksum},
    error::ReportError,
    ids::{AggregationJobId, ReportId},
    metrics::{Tally, Totals},
    time::{Duration, Time},
    vdaf::FieldKind,
};

/// How long after a generation is full the alarm merges and packs, in seconds: not in the leader's way.
const MAINTENANCE_AFTER: Duration = Duration::from_seconds(30);

/// The store's single meta row. It is written when something other than a job changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreMeta {
    /// The task's frozen numbers.
    pub placement: Placement,
    /// Which of the task's stores this is.
    pub store: StoreId,
    /// Field of the task's shares.
    pub field: FieldKind,
    /// Key of the replay index.
    pub fingerprint_key: [u8; 16],
    /// Whether commits are taken: the ledger knows of this store.
    pub open: bool,
    /// All its reports are too old, and the ledger is being told: nothing new is taken.
    pub closing: bool,
    /// Collection attempts up to this one have ended.
    pub fence: u64,
    /// The attempt that holds a range.
    pub frozen: Option<FrozenRange>,
    /// What is kept, by epoch of arrival, oldest first. New jobs go to the last generation of the last epoch.
    pub epochs: Vec<Epoch>,
    /// Number of the next table to be created.
    pub next_table: u32,
    /// The levels at which reports were aggregated, ascending, if the task's VDAF has any: Poplar1.
    pub levels: Vec<u16>,
    /// What became of all jobs but those of the newest generation, which are counted where they are.
    pub totals: Totals,
}

/// What arrived in one epoch. It is forgotten together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Epoch {
    /// Its number, [`Placement::epoch`]; 0 in a store of a time group.
    pub number: u32,
    /// The replay index of all but the newest generation.
    pub runs: Runs,
    /// Jobs whose slices are separate, oldest first.
    pub generations: Vec<Generation>,
    /// Table of the jobs that could not be packed with their generation.
    pub remnant: Option<u32>,
}

/// A table of jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generation {
    /// Number of its tables.
    pub table: u32,
    /// Jobs in it, once it is full.
    pub rows: u32,
    /// Bytes of their shares, once it is full.
    pub share_bytes: u64,
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
    /// Number of reports. Of an excluded slice: of those that no other job took over since.
    pub report_count: u32,
    /// XOR of SHA-256 of their ids.
    pub checksum: Checksum,
    /// Earliest report time.
    pub min_time: Time,
    /// Latest report time.
    pub max_time: Time,
    /// Bytes of its share.
    pub share_len: u32,
    /// A collection left it out: it counts nowhere and its ids are free. No other slice holds them: an id that is
    /// taken over is struck out here.
    pub excluded: bool,
    /// The leader deleted its job, and a later job took over some of its reports. A collection decides which of
    /// the two counts.
    pub yields: bool,
    /// Of an excluded slice of a task whose batches are queried several times: the reports that others took over, 16 bytes
    /// each. They never counted here, and must not be taken for reports of this batch.
    #[serde(with = "crate::b64::serde_b64")]
    pub struck: Vec<u8>,
}

/// What is known about a job without reading its ids and its shares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobHead {
    /// The job.
    pub job: AggregationJobId,
    /// The aggregation parameter.
    pub param: Vec<u8>,
    /// Its place among the store's jobs, in the order of arrival; there are gaps.
    pub seq: u64,
    /// Its slices.
    pub slices: Vec<SliceHead>,
    /// What became of its reports. It does not change with the slices.
    pub tally: Tally,
    /// When it was recorded.
    pub at: Time,
}

/// One job in one store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobRow {
    /// Job, parameter and slices.
    pub head: JobHead,
    /// What a repeat is answered from.
    pub recorded: RecordedJob,
    /// Ids of the slices' reports, 16 bytes each.
    pub ids: Vec<u8>,
    /// The slices' shares.
    pub shares: Vec<u8>,
}

/// The outcome of a request, for the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handled {
    /// What to answer.
    pub response: Response,
    /// Have [`AggregateStore::alarm`] called at this time, or earlier.
    pub wake: Option<Time>,
    /// Delete everything stored, and the object's memory of it.
    pub erase: bool,
}

/// What a store keeps in memory between requests: the newest generation. All of it can be read again.
#[derive(Debug)]
struct Live {
    recent: Recent,
    rows: u32,
    begun_rows: u32,
    share_bytes: u64,
    totals: Totals,
}

/// An `AggregateStore`: its database, and what it keeps in memory between requests.
#[derive(Debug)]
pub struct AggregateStore<D> {
    db: D,
    live: RefCell<Option<Live>>,
    was_woken: Cell<bool>,
    limits: Limits,
}

impl<D: Database> AggregateStore<D>
where
    D::Tables: AggregateTables,
{
    /// The store in `db`. Reads nothing yet.
    pub fn new(db: D) -> Self {
        Self::with_limits(db, Limits::DEFAULT)
    }

    /// The store in `db`, with other limits than a deployment has.
    pub fn with_limits(db: D, limits: Limits) -> Self {
        Self { db, live: RefCell::new(None), was_woken: Cell::new(false), limits }
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
        &self,
        request: AggregateStoreRequest,
        now: Time,
        entropy: [u8; 16],
    ) -> StoreResult<Handled> {
        let AggregateStoreRequest { placement, store, field, action } = request;
        if action == StoreAction::Purge {
            self.erased();
            return Ok(Handled { response: Response::Done, wake: None, erase: true });
        }
        let (filled, ended) = (Cell::new(false), Cell::new(false));
        let (response, deadline) = self.transaction(|tables, live| {
            let stored = tables.meta()?;
            if stored
                .as_ref()
                .is_some_and(|m| (m.placement, m.store, m.field) != (placement, store, field))
            {
                return Ok((Response::WrongPlacement, None));
            }
            if stored.is_none() && has_ended(&placement, &store, now) {
                ended.set(true);
                return Ok((after_the_end(&action), None));
            }
            let mut meta = stored.unwrap_or(StoreMeta {
                placement,
                store,
                field,
                fingerprint_key: entropy,
                open: false,
                closing: false,
                fence: 0,
                frozen: None,
                epochs: Vec::new(),
                next_table: 0,
                levels: Vec::new(),
                totals: Totals::default(),
            });
            let response = match action {
                StoreAction::Commit(c) => {
                    let (response, full) =
                        commit::commit_job(tables, live, &mut meta, c, now, &self.limits)?;
                    filled.set(full);
                    response
                }
                StoreAction::Begin(b) => {
                    let (response, full) =
                        begin::begin_reports(tables, live, &mut meta, &b, now, &self.limits)?;
                    filled.set(full);
                    response
                }
                StoreAction::KnowsJob(job) => {
                    Response::Known(commit::recorded(tables, live, &meta, &job)?.is_some())
                }
                StoreAction::Gather { range, param, exclude } => {
                    let (content, contested, others) =
                        collection::content(tables, &meta, &range, &param, &exclude)?;
                    Response::Gathered { content, contested, others }
                }
                StoreAction::GatherJobs { range, param } => {
                    Response::Jobs(collection::jobs_in(tables, &meta, &range, &param)?)
                }
                StoreAction::Totals { batches } => Response::Totals(Box::new(StoreTotals {
                    totals: totals::of_all_jobs(tables, live, &meta)?,
                    ..if batches { totals::batches(tables, &meta)? } else { Default::default() }
                })),
                StoreAction::Freeze { attempt, range, counts, param, exclude, version } => {
                    let frozen = FrozenRange { attempt, range, param };
                    collection::freeze(tables, &mut meta, frozen, &counts, &exclude, version)?
                }
                StoreAction::Seal { attempt, range, counts, param, exclude } => {
                    let sealed = SealedRange { range, param, attempt };
                    collection::seal(tables, &mut meta, sealed, &counts, &exclude)?
                }
                StoreAction::Thaw { attempt } => collection::thaw(tables, &mut meta, attempt)?,
                StoreAction::Purge => Response::Done,
            };
            Ok((response, meta.open.then(|| alarm::deadline(&meta)).flatten()))
        })?;
        let wake = if filled.get() {
            Some(now.saturating_add(MAINTENANCE_AFTER))
        } else if deadline.is_some() && !self.was_woken.replace(true) {
            // Once in a life in memory: the alarm was set with the first commit, unless a crash came between.
            deadline
        } else {
            None
        };
        // Even being asked may have created empty tables.
        Ok(Handled { response, wake, erase: ended.get() })
    }

    /// Reports and jobs whose fingerprints are in memory, 8 bytes each.
    pub fn resident_ids(&self) -> usize {
        self.live.borrow().as_ref().map_or(0, |live| live.recent.len())
    }

    /// What is in memory is gone with what it was read from.
    fn erased(&self) {
        self.live.take();
        self.was_woken.set(false);
    }

    /// Runs `f` as a transaction. What is in memory is taken out first, so that a failed or panicking transaction
    /// leaves nothing there rather than something wrong.
    fn transaction<R>(
        &self,
        f: impl FnOnce(&mut D::Tables, &mut Option<Live>) -> StoreResult<R>,
    ) -> StoreResult<R> {
        let mut live = self.live.take();
        let result = self.db.transaction(|tables| f(tables, &mut live))?;
        self.live.replace(live);
        Ok(result)
    }
}

/// Whether a store of this group has nothing to do any more. A store that exists still takes its leave properly.
fn has_ended(placement: &Placement, store: &StoreId, now: Time) -> bool {
    placement.group_deadline(store.group).is_some_and(|end| end <= now)
}

/// What a store that forgot everything answers to a late message. It must not come to life again.
fn after_the_end(action: &StoreAction) -> Response {
    match action {
        StoreAction::Commit(_) | StoreAction::Begin(_) => Response::Expired,
        StoreAction::KnowsJob(_) => Response::Known(false),
        StoreAction::Gather { .. } => {
            Response::Gathered { content: Default::default(), contested: false, others: false }
        }
        StoreAction::GatherJobs { .. } => Response::Jobs(Default::default()),
        // What it counted is with the ledger, which may not have been when it was read: a sum must not seem less.
        StoreAction::Totals { .. } => Response::Expired,
        // There is nothing, and never will be again: a collection that has it registered still must not fail for it.
        StoreAction::Freeze { version, .. } if *version == Content::default().version() => {
            Response::Frozen
        }
        StoreAction::Freeze { .. } => Response::Stale,
        StoreAction::Seal { .. } | StoreAction::Thaw { .. } | StoreAction::Purge => Response::Done,
    }
}

impl StoreMeta {
    /// Tables with jobs whose slices are separate, oldest first.
    fn job_tables(&self) -> impl DoubleEndedIterator<Item = u32> + '_ {
        self.epochs.iter().flat_map(Epoch::job_tables)
    }

    fn take_table(&mut self) -> u32 {
        let table = self.next_table;
        self.next_table += 1;
        table
    }
}

impl Epoch {
    fn job_tables(&self) -> impl DoubleEndedIterator<Item = u32> + '_ {
        self.remnant.into_iter().chain(self.generations.iter().map(|g| g.table))
    }
}

fn is_sealed(
    tables: &mut impl AggregateTables,
    bucket: &BatchBucket,
    param: &[u8],
) -> StoreResult<bool> {
    Ok(tables.sealed_near(bucket)?.iter().any(|s| s.param == param && s.range.contains(bucket)))
}

/// The buckets of `heads` that are collected under their job's parameter.
fn sealed_buckets(
    tables: &mut impl AggregateTables,
    heads: &[JobHead],
) -> StoreResult<BTreeSet<(BatchBucket, Vec<u8>)>> {
    let asked: BTreeSet<(BatchBucket, Vec<u8>)> = heads
        .iter()
        .flat_map(|head| head.slices.iter().map(|s| (s.bucket, head.param.clone())))
        .collect();
    let mut sealed = BTreeSet::new();
    for (bucket, param) in asked {
        if is_sealed(tables, &bucket, &param)? {
            sealed.insert((bucket, param));
        }
    }
    Ok(sealed)
}

/// The ids in a packed run of them.
pub fn report_ids(packed: &[u8]) -> impl Iterator<Item = ReportId> + '_ {
    packed.as_chunks::<16>().0.iter().map(|id| ReportId::new(*id))
}

/// Splits a job's packed ids by slice.
fn ids_by_slice<'a>(
    slices: &'a [SliceHead],
    mut ids: &'a [u8],
) -> StoreResult<Vec<(&'a SliceHead, &'a [u8])>> {
    let mut out = Vec::with_capacity(slices.len());
    for head in slices {
        let (mine, rest) = ids
            .split_at_checked(head.report_count as usize * ReportId::LEN)
            .ok_or_else(|| StoreError("a job's ids are shorter than its slices".to_owned()))?;
        ids = rest;
        out.push((head, mine));
    }
    Ok(out)
}

/// Splits a job's shares by slice.
fn shares_by_slice<'a>(
    slices: &'a [SliceHead],
    mut shares: &'a [u8],
) -> StoreResult<Vec<(&'a SliceHead, &'a [u8])>> {
    let mut out = Vec::with_capacity(slices.len());
    for head in slices {
        let (mine, rest) = shares
            .split_at_checked(head.share_len as usize)
            .ok_or_else(|| StoreError("a job's shares are shorter than its slices".to_owned()))?;
        shares = rest;
        out.push((head, mine));
    }
    Ok(out)
}

/// Strikes `ids` out of the slice number `slice` of a job. Returns what is left of the job's ids.
fn strike_out(
    field: FieldKind,
    head: &mut JobHead,
    ids: &[u8],
    slice: usize,
    out: &BTreeSet<ReportId>,
) -> StoreResult<Vec<u8>> {
    let mut left = Vec::with_capacity(ids.len());
    let mut struck = Vec::new();
    for (n, (_, mine)) in ids_by_slice(&head.slices, ids)?.into_iter().enumerate() {
        for id in report_ids(mine) {
            if n == slice && out.contains(&id) {
                struck.push(id);
            } else {
                left.extend_from_slice(id.as_bytes());
            }
        }
    }
    let is_remembered = field.level(&head.param).is_some();
    if let Some(s) = head.slices.get_mut(slice) {
        if is_remembered {
            s.struck.extend(struck.iter().flat_map(|id| *id.as_bytes()));
        }
        s.report_count = s.report_count.saturating_sub(struck.len() as u32);
        struck.iter().for_each(|id| s.checksum.remove(id));
    }
    Ok(left)
}

/// Whether a store forgets all at once, at its group's deadline, or epoch by epoch.
fn forgets_at_once(store: &StoreId) -> bool {
    store.group != Group::Whole
}

type Refused = Vec<(ReportId, ReportError)>;
