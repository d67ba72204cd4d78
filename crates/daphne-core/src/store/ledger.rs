//! A `TaskLedger`: collects batches, exactly once each, and knows what the task's stores must agree on.
//!
//! Collecting is a two-phase commit whose first phase can be taken back:
//! gather → check → intent → freeze → decision → seal. A frozen range answers Busy, never "collected"; only the
//! decision, one transaction holding the answer's bytes, turns frozen into sealed. Neither a mismatch nor a crash
//! can therefore burn a batch. Failure is presumed abort: an intent without a decision is rolled back by whoever
//! meets it next. Attempts are fenced by a number that only grows.
//!
//! Deleting a job undoes nothing: leaders also delete what they have finished, and what they gave up they often cannot
//! delete. Where the sums differ from the leader's, its count and checksum say which jobs it counts ([`exclusion`]).

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
};

use futures::{Stream, StreamExt, stream};
use serde::{Deserialize, Serialize};

use super::{
    Database, LedgerTables, Objects, StoreError, StoreResult,
    aggregate_store::merge_share,
    exclusion::{self, Choice, JobTotals, Totals},
    message::{
        AggregateStoreRequest, AggregateStoreResponse, Collect, Content, JobStoreRequest,
        JobStoreResponse, LedgerRequest, LedgerResponse, LedgerStatus, RequestDigest, StoreAction,
        whole_task_stores,
    },
    placement::{Group, Placement, StoreId},
};
use crate::{
    batch::{BatchMode, BucketRange, Checksum},
    error::{Abort, AbortKind},
    hpke,
    ids::AggregationJobId,
    time::{Duration, Time},
    vdaf::FieldKind,
};

/// Calls to stores that are under way at once: the platform allows six connections.
const PARALLEL_CALLS: usize = 6;

/// How long an attempt may hold the ledger before another may begin. Correctness does not depend on it: the intent
/// checks again, in its own transaction, whatever may have changed, and a decision needs an intent that nobody has
/// begun to roll back.
const LOCK_MAX: Duration = Duration::from_seconds(120);

/// Stores purged in answer to one request: the platform bounds the calls and the caller the time.
const PURGED_AT_ONCE: usize = 240;

/// When the alarm looks after an attempt that may have died, in seconds.
pub const ALARM_AFTER_S: u64 = 30;

/// The ledger's single meta row.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerMeta {
    /// Number of the latest collection attempt; it only grows.
    pub attempt: u64,
    /// The task's frozen numbers, known since the first message that carried them.
    pub task: Option<(Placement, FieldKind)>,
    /// Epochs that have a table of deleted jobs, oldest first.
    pub released_epochs: Vec<u32>,
}

/// An attempt between intent and decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// Its number.
    pub attempt: u64,
    /// The stores that may be frozen.
    pub stores: Vec<StoreId>,
    /// It is being rolled back: stores are being thawed, so it may not decide any more.
    pub aborted: bool,
}

/// A decided collection, but for its answer. All but `todo` is for ever.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CollectionRow {
    /// SHA-256 of the request.
    pub digest: RequestDigest,
    /// The attempt that decided it.
    pub attempt: u64,
    /// The batch buckets.
    pub range: BucketRange,
    /// The aggregation parameter.
    pub param: Vec<u8>,
    /// Reports in the batch.
    pub report_count: u64,
    /// Their checksum.
    pub checksum: Checksum,
    /// Jobs left out.
    pub exclude: Vec<AggregationJobId>,
    /// Stores that have not acknowledged the seal.
    pub todo: Vec<StoreId>,
}

/// What a ledger needs from its host.
#[allow(
    async_fn_in_trait,
    reason = "futures on Workers are not Send, and no caller needs them to be"
)]
pub trait LedgerHost {
    /// The clock.
    fn now(&self) -> Time;
    /// Fresh randomness for one encryption.
    fn seed(&self) -> [u8; 32];
    /// Has [`Ledger::tidy`] called that many seconds from now, unless that is already arranged for earlier.
    fn arm_alarm(&self, after_s: u64) -> impl Future<Output = StoreResult<()>>;
}

/// A `TaskLedger`: its database, and a lock that only spares work.
#[derive(Debug)]
pub struct Ledger<D> {
    db: D,
    locked_at: Cell<Option<Time>>,
}

/// Releases the lock it took, whatever became of its holder.
struct Lock<'a>(&'a Cell<Option<Time>>, Time);

impl Drop for Lock<'_> {
    fn drop(&mut self) {
        if self.0.get() == Some(self.1) {
            self.0.set(None);
        }
    }
}

impl<D: Database> Ledger<D>
where
    D::Tables: LedgerTables,
{
    /// The ledger in `db`. Reads nothing yet.
    pub fn new(db: D) -> Self {
        Self { db, locked_at: Cell::new(None) }
    }

    /// The database.
    pub fn database(&self) -> &D {
        &self.db
    }

    /// Handles one request. After a [`LedgerResponse::Share`] the host should call [`Ledger::tidy`] without making
    /// the leader wait for it.
    ///
    /// # Errors
    /// The database's; what was decided before stays decided.
    pub async fn handle(
        &self,
        objects: &impl Objects,
        host: &impl LedgerHost,
        request: LedgerRequest,
    ) -> StoreResult<LedgerResponse> {
        match request {
            LedgerRequest::Open { placement, field, store } => {
                self.remember_task(placement, field)?;
                self.open(objects, host, store).await
            }
            LedgerRequest::Settle { placement, field, store, attempt } => {
                self.remember_task(placement, field)?;
                self.settle(objects, host, store, attempt).await
            }
            LedgerRequest::Release { placement, job } => {
                self.db.transaction(|t| release(t, &placement, &job, host.now()))?;
                Ok(LedgerResponse::Done)
            }
            LedgerRequest::Released(jobs) => {
                self.db.transaction(|t| Ok(LedgerResponse::Released(released(t, &jobs)?)))
            }
            LedgerRequest::Expired { placement: _, store, epoch, uncollected } => {
                self.db.transaction(|t| {
                    if store.group != Group::Whole && t.meta()?.task.is_none() {
                        // Such a store was registered here, so this ledger was purged since: a late request brought the store
                        // back, and this must not bring the ledger back.
                        return Ok(LedgerResponse::Done);
                    }
                    t.put_expired(&store, epoch, uncollected)?;
                    t.unregister(&store)?;
                    Ok(LedgerResponse::Done)
                })
            }
            LedgerRequest::Status => self.db.transaction(|t| {
                let (collections, collected_reports) = t.collected_totals()?;
                Ok(LedgerResponse::Status(LedgerStatus {
                    collections,
                    collected_reports,
                    expired_reports: t.expired_total()?,
                    collecting: t.pending()?.is_some(),
                }))
            }),
            LedgerRequest::Purge { placement, field } => {
                self.remember_task(placement, field)?;
                self.purge(objects, &placement).await
            }
            LedgerRequest::Collect(collect) => {
                self.remember_task(collect.placement, collect.field)?;
                self.collect(objects, host, &collect).await
            }
        }
    }

    /// Finishes what was left over: rolls a dead attempt back and tells stores of decisions they missed. Returns
    /// whether nothing is left. The alarm's handler.
    ///
    /// # Errors
    /// The database's.
    pub async fn tidy(&self, objects: &impl Objects, host: &impl LedgerHost) -> StoreResult<bool> {
        let rolled_back = match self.lock(host.now()) {
            Some(_lock) => self.roll_back(objects).await?,
            None => false,
        };
        Ok(self.push_seals(objects, None).await? && rolled_back)
    }

    fn remember_task(&self, placement: Placement, field: FieldKind) -> StoreResult<()> {
        self.db.transaction(|t| {
            let mut meta = t.meta()?;
            match &meta.task {
                Some(known) if *known == (placement, field) => Ok(()),
                Some(_) => {
                    Err(StoreError("the task's placement is not the recorded one".to_owned()))
                }
                None => {
                    meta.task = Some((placement, field));
                    t.put_meta(&meta)
                }
            }
        })
    }

    fn task(&self) -> StoreResult<Option<(Placement, FieldKind)>> {
        self.db.transaction(|t| Ok(t.meta()?.task))
    }

    fn lock(&self, now: Time) -> Option<Lock<'_>> {
        match self.locked_at.get() {
            Some(since) if now < since.saturating_add(LOCK_MAX) => None,
            _ => {
                self.locked_at.set(Some(now));
                Some(Lock(&self.locked_at, now))
            }
        }
    }

    /// Registers a store before its first commit and hands it what was collected without it.
    async fn open(
        &self,
        objects: &impl Objects,
        host: &impl LedgerHost,
        store: StoreId,
    ) -> StoreResult<LedgerResponse> {
        let task = self.task()?;
        let end = task.and_then(|(placement, _)| placement.group_deadline(store.group));
        if end.is_some_and(|end| end <= host.now()) {
            return Ok(LedgerResponse::Expired);
        }
        // While an attempt is pending, a birth would add reports that were not gathered.
        if self.db.transaction(|t| t.pending())?.is_some() {
            match self.lock(host.now()) {
                Some(_lock) => {
                    self.roll_back(objects).await?;
                }
                None => return Ok(LedgerResponse::Busy),
            }
        }
        self.db.transaction(|t| {
            if t.pending()?.is_some() {
                return Ok(LedgerResponse::Busy);
            }
            t.register(&store)?;
            let group = t.meta()?.task.and_then(|(p, _)| p.group_range(store.group));
            let collected = match group {
                Some(range) => t.collections_meeting(&range)?,
                None => Vec::new(),
            };
            Ok(LedgerResponse::Opened(collected.into_iter().map(|c| (c.range, c.param)).collect()))
        })
    }

    /// A store is held by `attempt`; finish that attempt unless it is being worked on.
    async fn settle(
        &self,
        objects: &impl Objects,
        host: &impl LedgerHost,
        store: StoreId,
        attempt: u64,
    ) -> StoreResult<LedgerResponse> {
        let (known, unsealed) =
            self.db.transaction(|t| Ok((t.meta()?.attempt, t.unsealed_collections()?)))?;
        if unsealed.iter().any(|c| c.attempt == attempt) {
            self.push_seals(objects, Some(attempt)).await?;
            return Ok(LedgerResponse::Done);
        }
        let Some(_lock) = self.lock(host.now()) else {
            return Ok(LedgerResponse::Done);
        };
        self.roll_back(objects).await?;
        // An attempt beyond ours is not ours: thawing it would raise the store's fence past all future attempts.
        if attempt <= known {
            // A lost call leaves the store as it was; whoever meets it next asks again.
            let _ = self.call(objects, store, StoreAction::Thaw { attempt }).await;
        }
        Ok(LedgerResponse::Done)
    }

    async fn collect(
        &self,
        objects: &impl Objects,
        host: &impl LedgerHost,
        request: &Collect,
    ) -> StoreResult<LedgerResponse> {
        if let Some(answer) = self.db.transaction(|t| t.answer(&request.digest))? {
            return Ok(LedgerResponse::Share(answer));
        }
        let Some(_lock) = self.lock(host.now()) else {
            return Ok(LedgerResponse::Busy);
        };
        if !self.roll_back(objects).await? {
            return Ok(LedgerResponse::Busy);
        }
        if let Some(answer) = self.db.transaction(|t| check_earlier(t, request))? {
            return Ok(answer);
        }
        let stores = self.stores_of(request)?;
        // Decisions first: their stores may still be frozen.
        self.push_seals(objects, None).await?;
        let held = self.db.transaction(|t| t.unsealed_collections())?;
        if held.iter().any(|c| c.todo.iter().any(|s| stores.contains(s))) {
            return Ok(LedgerResponse::Busy);
        }
        let Some(all) = self.gather(objects, request, &stores, &[]).await? else {
            return Ok(LedgerResponse::Busy);
        };
        let (exclude, gathered) = if all.explains(request) && !all.contested {
            (Vec::new(), all)
        } else {
            let Some(jobs) = self.gather_jobs(objects, request, &stores).await? else {
                return Ok(LedgerResponse::Busy);
            };
            match exclusion::choose(jobs.packed, &jobs.jobs, &jobs.conflicts, wanted(request)) {
                Choice::Exclude(exclude) => {
                    let Some(kept) = self.gather(objects, request, &stores, &exclude).await? else {
                        return Ok(LedgerResponse::Busy);
                    };
                    if !kept.explains(request) {
                        // A job was committed between the two gatherings.
                        return Ok(LedgerResponse::Busy);
                    }
                    (exclude, kept)
                }
                choice @ (Choice::NoneFits | Choice::Ambiguous) => {
                    let refusal = check_size(request, all.total.report_count)
                        .err()
                        .unwrap_or_else(|| mismatch(request, &all.total, &jobs, &choice));
                    return Ok(LedgerResponse::Refused(refusal));
                }
            }
        };
        if let Err(refusal) = check_size(request, gathered.total.report_count) {
            return Ok(LedgerResponse::Refused(refusal));
        }
        let Gathered { total, versions, .. } = gathered;
        // Before anything is held: what cannot be sealed must not hold a range.
        let answer = seal_share(request, &total.share, &host.seed())?;
        host.arm_alarm(ALARM_AFTER_S).await?;
        let intent = self.db.transaction(|t| {
            // A store may have been born since the gathering. The lock may have expired, and another attempt may be
            // under way or may have decided.
            if t.pending()?.is_some()
                || stores_of(t, request)? != stores
                || check_earlier(t, request)?.is_some()
            {
                return Ok(None);
            }
            let mut meta = t.meta()?;
            meta.attempt += 1;
            t.put_meta(&meta)?;
            let attempt = meta.attempt;
            t.put_pending(Some(&Pending { attempt, stores: stores.clone(), aborted: false }))?;
            Ok(Some(attempt))
        })?;
        let Some(attempt) = intent else {
            return Ok(LedgerResponse::Busy);
        };
        if !self.freeze(objects, request, attempt, &exclude, &stores, &versions).await? {
            self.roll_back_attempt(objects, Some(attempt)).await?;
            return Ok(LedgerResponse::Busy);
        }
        // The decision.
        let decided = self.db.transaction(|t| {
            if t.pending()?.is_none_or(|p| p.attempt != attempt || p.aborted) {
                return Ok(false);
            }
            let row = CollectionRow {
                digest: request.digest,
                attempt,
                range: request.range,
                param: request.param.clone(),
                report_count: total.report_count,
                checksum: total.checksum,
                exclude,
                todo: stores.clone(),
            };
            t.insert_collection(&row, &answer)?;
            t.put_pending(None)?;
            Ok(true)
        })?;
        Ok(if decided { LedgerResponse::Share(answer) } else { LedgerResponse::Busy })
    }

    fn stores_of(&self, request: &Collect) -> StoreResult<Vec<StoreId>> {
        self.db.transaction(|t| stores_of(t, request))
    }

    /// Sums what the stores hold. One store's content is in memory at a time beside those under way; of each only its
    /// version is kept. `None` if one did not answer.
    async fn gather(
        &self,
        objects: &impl Objects,
        request: &Collect,
        stores: &[StoreId],
        exclude: &[AggregationJobId],
    ) -> StoreResult<Option<Gathered>> {
        let calls = self.calls(objects, stores, |_| StoreAction::Gather {
            range: request.range,
            param: request.param.clone(),
            exclude: exclude.to_vec(),
        })?;
        let mut answers = std::pin::pin!(calls);
        let mut all = Gathered::default();
        while let Some(answer) = answers.next().await {
            let Some(AggregateStoreResponse::Gathered { content, contested }) = answer else {
                return Ok(None);
            };
            all.total.report_count += content.report_count;
            all.total.checksum.merge(&content.checksum);
            merge_share(request.field, &mut all.total.share, &content.share)?;
            all.versions.push(content.version());
            all.contested |= contested;
        }
        Ok(Some(all))
    }

    /// What each job holds of the batch, over all stores. `None` if one did not answer.
    async fn gather_jobs(
        &self,
        objects: &impl Objects,
        request: &Collect,
        stores: &[StoreId],
    ) -> StoreResult<Option<Jobs>> {
        let calls = self.calls(objects, stores, |_| StoreAction::GatherJobs {
            range: request.range,
            param: request.param.clone(),
        })?;
        let mut answers = std::pin::pin!(calls.enumerate());
        let mut packed = Totals::default();
        let mut conflicts = Vec::new();
        // By job: its place among the newest, the best of all stores, and its totals.
        let mut by_job: BTreeMap<AggregationJobId, (usize, JobTotals)> = BTreeMap::new();
        while let Some((n, answer)) = answers.next().await {
            let Some(AggregateStoreResponse::Jobs(held)) = answer else {
                return Ok(None);
            };
            packed.report_count += held.packed_count;
            packed.checksum.merge(&held.packed_checksum);
            conflicts.extend(held.conflicts);
            for (place, held) in held.jobs.into_iter().enumerate() {
                let (best, job) = by_job.entry(held.job).or_insert_with(|| {
                    let totals = Totals::default();
                    let job = JobTotals {
                        job: held.job,
                        totals,
                        ids: BTreeMap::new(),
                        yields: false,
                        released: false,
                    };
                    (place, job)
                });
                *best = place.min(*best);
                job.totals.report_count += held.report_count;
                job.totals.checksum.merge(&held.checksum);
                job.yields |= held.yields;
                if let Some(store) = stores.get(n) {
                    job.ids.insert(*store, held.fingerprint_sum);
                }
            }
        }
        let mut jobs: Vec<(usize, JobTotals)> = by_job.into_values().collect();
        jobs.sort_by_key(|(place, _)| *place);
        let mut jobs: Vec<JobTotals> = jobs.into_iter().map(|(_, job)| job).collect();
        let ids: Vec<AggregationJobId> = jobs.iter().map(|j| j.job).collect();
        let deleted: BTreeSet<AggregationJobId> =
            self.db.transaction(|t| released(t, &ids))?.into_iter().collect();
        jobs.iter_mut().for_each(|j| j.released = deleted.contains(&j.job));
        Ok(Some(Jobs { packed, jobs, conflicts }))
    }

    async fn freeze(
        &self,
        objects: &impl Objects,
        request: &Collect,
        attempt: u64,
        exclude: &[AggregationJobId],
        stores: &[StoreId],
        versions: &[[u8; 32]],
    ) -> StoreResult<bool> {
        let answers = self
            .call_all(objects, stores, |n| StoreAction::Freeze {
                attempt,
                range: request.range,
                param: request.param.clone(),
                exclude: exclude.to_vec(),
                version: versions.get(n).copied().unwrap_or_default(),
            })
            .await?;
        Ok(answers.iter().all(|a| *a == Some(AggregateStoreResponse::Frozen)))
    }

    /// Has everything forgotten that the task ever stored. The host erases this ledger when all others have.
    async fn purge(
        &self,
        objects: &impl Objects,
        placement: &Placement,
    ) -> StoreResult<LedgerResponse> {
        if !placement.has_time_groups() {
            let stores = whole_task_stores(placement.shards);
            let answers = self.call_all(objects, &stores, |_| StoreAction::Purge).await?;
            let gone = answers.iter().all(|a| *a == Some(AggregateStoreResponse::Done));
            return Ok(if gone { LedgerResponse::Done } else { LedgerResponse::Busy });
        }
        let mut stores = self.db.transaction(|t| t.registered(0, u64::MAX))?;
        stores.truncate(PURGED_AT_ONCE);
        let answers = self.call_all(objects, &stores, |_| StoreAction::Purge).await?;
        let left = self.db.transaction(|t| {
            for (store, answer) in stores.iter().zip(answers) {
                if answer == Some(AggregateStoreResponse::Done) {
                    t.unregister(store)?;
                }
            }
            t.registered(0, u64::MAX)
        })?;
        if !left.is_empty() {
            return Ok(LedgerResponse::Busy);
        }
        let calls = (0..placement.shards)
            .map(|shard| objects.job_store(placement, shard, JobStoreRequest::Purge));
        let answers: Vec<_> = stream::iter(calls).buffered(PARALLEL_CALLS).collect().await;
        let gone = answers.iter().all(|a| *a == Ok(JobStoreResponse::Done));
        Ok(if gone { LedgerResponse::Done } else { LedgerResponse::Busy })
    }

    /// Rolls back the pending attempt. Returns whether none is left.
    async fn roll_back(&self, objects: &impl Objects) -> StoreResult<bool> {
        self.roll_back_attempt(objects, None).await
    }

    /// As [`Ledger::roll_back`], if the pending attempt is `only`.
    async fn roll_back_attempt(
        &self,
        objects: &impl Objects,
        only: Option<u64>,
    ) -> StoreResult<bool> {
        // No decision any more, before the first store is thawed: whoever began the attempt may still be at work.
        let pending = self.db.transaction(|t| {
            let mut pending = t.pending()?;
            pending.take_if(|p| only.is_some_and(|attempt| attempt != p.attempt));
            if let Some(p) = pending.as_mut().filter(|p| !p.aborted) {
                p.aborted = true;
                t.put_pending(Some(p))?;
            }
            Ok(pending)
        })?;
        let Some(pending) = pending else {
            return Ok(true);
        };
        let attempt = pending.attempt;
        let answers =
            self.call_all(objects, &pending.stores, |_| StoreAction::Thaw { attempt }).await?;
        if answers.iter().any(|a| *a != Some(AggregateStoreResponse::Done)) {
            return Ok(false);
        }
        self.db.transaction(|t| {
            if t.pending()?.is_some_and(|p| p.attempt == attempt) {
                t.put_pending(None)?;
            }
            Ok(t.pending()?.is_none())
        })
    }

    /// Tells stores of decisions. Returns whether all of them know.
    async fn push_seals(&self, objects: &impl Objects, only: Option<u64>) -> StoreResult<bool> {
        let mut all_told = true;
        for row in self.db.transaction(|t| t.unsealed_collections())? {
            if only.is_some_and(|attempt| attempt != row.attempt) {
                continue;
            }
            let answers = self
                .call_all(objects, &row.todo, |_| StoreAction::Seal {
                    attempt: row.attempt,
                    range: row.range,
                    param: row.param.clone(),
                    exclude: row.exclude.clone(),
                })
                .await?;
            let told: Vec<StoreId> = row
                .todo
                .iter()
                .zip(answers)
                .filter(|(_, a)| *a == Some(AggregateStoreResponse::Done))
                .map(|(s, _)| *s)
                .collect();
            all_told &= self.db.transaction(|t| {
                let Some(mut row) = t.collection(&row.digest)? else {
                    return Err(StoreError("a decided collection is gone".to_owned()));
                };
                let before = row.todo.len();
                row.todo.retain(|s| !told.contains(s));
                if row.todo.len() != before {
                    t.update_collection(&row)?;
                }
                Ok(row.todo.is_empty())
            })?;
        }
        Ok(all_told)
    }

    async fn call(
        &self,
        objects: &impl Objects,
        store: StoreId,
        action: StoreAction,
    ) -> StoreResult<Option<AggregateStoreResponse>> {
        Ok(self.call_all(objects, &[store], |_| action.clone()).await?.pop().flatten())
    }

    /// Calls stores, a few at a time, and waits for all. `None` stands for a call without a known outcome. Answers are in
    /// order.
    async fn call_all(
        &self,
        objects: &impl Objects,
        stores: &[StoreId],
        action: impl Fn(usize) -> StoreAction,
    ) -> StoreResult<Vec<Option<AggregateStoreResponse>>> {
        Ok(self.calls(objects, stores, action)?.collect().await)
    }

    fn calls<'a, O: Objects, F: Fn(usize) -> StoreAction + 'a>(
        &self,
        objects: &'a O,
        stores: &'a [StoreId],
        action: F,
    ) -> StoreResult<impl Stream<Item = Option<AggregateStoreResponse>> + use<'a, D, O, F>> {
        let (placement, field) = self
            .task()?
            .ok_or_else(|| StoreError("the ledger does not know its task yet".to_owned()))?;
        let calls = stores.iter().enumerate().map(move |(n, store)| {
            let request =
                AggregateStoreRequest { placement, store: *store, field, action: action(n) };
            async move { objects.store(store, request).await.ok() }
        });
        Ok(stream::iter(calls).buffered(PARALLEL_CALLS))
    }
}

/// What earlier collections say about this one: an answer, or that it may go on. DAP-09 §4.6.5.
fn check_earlier(
    tables: &mut impl LedgerTables,
    request: &Collect,
) -> StoreResult<Option<LedgerResponse>> {
    let earlier = tables.collections_meeting(&request.range)?;
    let refuse = |kind, why: &str| Ok(Some(LedgerResponse::Refused(Abort::new(kind, why))));
    if earlier.iter().any(|c| c.range != request.range) {
        let why = "a part of this batch was collected by another query";
        return refuse(AbortKind::BatchOverlap, why);
    }
    if let Some(same) = earlier.iter().find(|c| c.param == request.param) {
        if same.report_count == request.report_count && same.checksum == request.checksum {
            let answer = tables
                .answer(&same.digest)?
                .ok_or_else(|| StoreError("a decided collection lost its answer".to_owned()))?;
            return Ok(Some(LedgerResponse::Share(answer)));
        }
        let why = "this batch was collected with another report count or checksum";
        return refuse(AbortKind::BatchMismatch, why);
    }
    if earlier.len() as u64 >= request.max_batch_query_count {
        let why = "this batch was collected with as many aggregation parameters as the task allows";
        return refuse(AbortKind::BatchQueriedTooManyTimes, why);
    }
    Ok(None)
}

/// The stores that can hold a part of the batch. Nothing is created for an interval that saw no report.
fn stores_of(tables: &mut impl LedgerTables, request: &Collect) -> StoreResult<Vec<StoreId>> {
    let placement = &request.placement;
    if !placement.has_time_groups() {
        return Ok(whole_task_stores(placement.shards));
    }
    match placement.groups_meeting(&request.range) {
        Some((first, last)) => tables.registered(first, last),
        None => Ok(Vec::new()),
    }
}

/// Records that the leader deleted a job, and forgets what was deleted so long ago that it can no longer matter.
fn release(
    tables: &mut impl LedgerTables,
    placement: &Placement,
    job: &AggregationJobId,
    now: Time,
) -> StoreResult<()> {
    let mut meta = tables.meta()?;
    let latest = meta.released_epochs.last().copied();
    let epoch = latest.map_or(placement.epoch(now), |latest| latest.max(placement.epoch(now)));
    if latest != Some(epoch) {
        let (old, live) =
            meta.released_epochs.into_iter().partition(|e| placement.epoch_deadline(*e) <= now);
        meta.released_epochs = live;
        meta.released_epochs.push(epoch);
        let old: Vec<u32> = old;
        old.into_iter().try_for_each(|e| tables.drop_released(e))?;
        tables.create_released(epoch)?;
        tables.put_meta(&meta)?;
    }
    tables.release(epoch, job)
}

/// Which of these jobs the leader deleted.
fn released(
    tables: &mut impl LedgerTables,
    jobs: &[AggregationJobId],
) -> StoreResult<Vec<AggregationJobId>> {
    let mut out = Vec::new();
    for epoch in tables.meta()?.released_epochs {
        out.extend(tables.released(epoch, jobs)?);
    }
    out.sort_unstable();
    out.dedup();
    Ok(out)
}

/// What the stores hold together, and at which version each of them.
#[derive(Default)]
struct Gathered {
    total: Content,
    versions: Vec<[u8; 32]>,
    contested: bool,
}

impl Gathered {
    fn explains(&self, request: &Collect) -> bool {
        self.total.report_count == request.report_count && self.total.checksum == request.checksum
    }
}

/// The jobs of a batch, newest first, over all stores.
struct Jobs {
    packed: Totals,
    jobs: Vec<JobTotals>,
    conflicts: Vec<(AggregationJobId, AggregationJobId)>,
}

fn wanted(request: &Collect) -> Totals {
    Totals { report_count: request.report_count, checksum: request.checksum }
}

/// DAP-09 §4.6.5 asks for the size before §4.6.3 asks for count and checksum.
fn check_size(request: &Collect, report_count: u64) -> Result<(), Abort> {
    if report_count == 0 && request.placement.batch_mode == BatchMode::LeaderSelected {
        // SPEC: DAP-09 §4.6.5.2 asks for batchInvalid if no job named the batch. A batch all of whose reports were
        // refused looks the same here, and has as little to collect.
        return Err(Abort::new(
            AbortKind::BatchInvalid,
            "no report was aggregated into this batch",
        ));
    }
    if report_count < request.min_batch_size
        || request.max_batch_size.is_some_and(|max| report_count > max)
    {
        return Err(Abort::new(
            AbortKind::InvalidBatchSize,
            format!(
                "the batch has {report_count} reports, the task asks for at least {}",
                request.min_batch_size
            ),
        ));
    }
    Ok(())
}

fn mismatch(request: &Collect, total: &Content, jobs: &Jobs, choice: &Choice) -> Abort {
    let why = match choice {
        Choice::Ambiguous => "more than one choice of jobs explains the leader's checksum",
        _ => "no choice of jobs explains the leader's checksum",
    };
    Abort::new(
        AbortKind::BatchMismatch,
        format!(
            "the helper counts {} reports, the leader {}; {} jobs can be left out, {} reports are merged, and {why}. \
             Nothing was collected: delete the jobs that were given up, and ask again",
            total.report_count,
            request.report_count,
            jobs.jobs.len(),
            jobs.packed.report_count
        ),
    )
}

/// Encrypts the share to the collector. DAP-09 §4.6.6.
fn seal_share(request: &Collect, share: &[u8], seed: &[u8; 32]) -> StoreResult<Vec<u8>> {
    let sealed = hpke::seal(
        &request.collector_hpke_config,
        &request.hpke_info,
        &request.hpke_aad,
        share,
        seed,
    )
    .map_err(|e| StoreError(format!("the aggregate share cannot be sealed: {e}")))?;
    sealed.as_ref().encode().map_err(|e| StoreError(e.to_string()))
}
