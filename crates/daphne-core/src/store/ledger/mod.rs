//! A `TaskLedger`: collects batches, exactly once each, and knows what the task's stores must agree on.
//!
//! Collecting is a two-phase commit whose first phase can be taken back:
//! gather → check → intent → freeze → decision → seal. A frozen range answers Busy, never "collected"; only the
//! decision, one transaction holding the answer's bytes, turns frozen into sealed. Neither a mismatch nor a crash
//! can therefore burn a batch. Failure is presumed abort: an intent without a decision is rolled back by whoever
//! meets it next. Attempts are fenced by a number that only grows.
//!
//! Deleting a job undoes nothing: leaders also delete what they have finished, and what they gave up they often cannot
//! delete. Where the sums differ from the leader's, its count and checksum say which jobs it counts
//! ([`super::exclusion`]).

mod books;
mod collect;

use std::cell::Cell;

use futures::{Stream, StreamExt, stream};
use serde::{Deserialize, Serialize};

use super::{
    Database, LedgerTables, Objects, StoreError, StoreResult,
    message::{
        AggregateStoreRequest, AggregateStoreResponse, JobStoreRequest, JobStoreResponse,
        LedgerRequest, LedgerResponse, RequestDigest, StoreAction, whole_task_stores,
    },
    placement::{Group, Placement, StoreId},
};
use crate::{
    batch::{BucketRange, Checksum},
    error::Abort,
    ids::AggregationJobId,
    metrics::{Refusal, Resource},
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
    /// Epochs that have tables of deleted and of noted jobs, oldest first.
    pub released_epochs: Vec<u32>,
    /// The task is gone, and its stores with it: nothing is collected any more.
    pub closed: bool,
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
    /// The batch buckets that were collected.
    pub range: BucketRange,
    /// Those of them that count.
    pub counts: BucketRange,
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
    /// Tells the log that something was not counted, and why. The ledger goes on.
    fn not_counted(&self, why: &StoreError);
}

/// A `TaskLedger`: its database, and a lock that only spares work.
#[derive(Debug)]
pub struct Ledger<D> {
    db: D,
    locked_at: Cell<Option<Time>>,
    heard: books::Heard,
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
        Self { db, locked_at: Cell::new(None), heard: books::Heard::default() }
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
            LedgerRequest::ReleasePieces { placement, pieces } => {
                self.db.transaction(|t| {
                    pieces.iter().try_for_each(|piece| release(t, &placement, piece, host.now()))
                })?;
                Ok(LedgerResponse::Done)
            }
            LedgerRequest::Released(jobs) => {
                self.db.transaction(|t| Ok(LedgerResponse::Released(released(t, &jobs)?)))
            }
            LedgerRequest::Expired { placement: _, store, epoch, uncollected, totals } => {
                self.db.transaction(|t| {
                    if store.group != Group::Whole && t.meta()?.task.is_none() {
                        // Such a store was registered here, so this ledger was purged since: a late request brought the store
                        // back, and this must not bring the ledger back.
                        return Ok(LedgerResponse::Done);
                    }
                    t.put_expired(&store, epoch, uncollected)?;
                    // It is registered until it has said this: so it is counted once.
                    if let Group::Run(n) = store.group
                        && t.registered(n, n)?.contains(&store)
                    {
                        let mut books = t.books()?;
                        books.merge(&totals);
                        t.put_books(&books)?;
                    }
                    t.unregister(&store)?;
                    Ok(LedgerResponse::Done)
                })
            }
            LedgerRequest::Note { placement, job, digest, tally } => {
                self.db.transaction(|t| {
                    books::note(t, &placement, &job, &digest, &tally, host.now())
                })?;
                Ok(LedgerResponse::Done)
            }
            LedgerRequest::Refused(refusal) => {
                self.hear(host, *refusal).await?;
                Ok(LedgerResponse::Done)
            }
            LedgerRequest::Status { placement, field, batches, after } => {
                self.status(objects, (placement, field), batches, after).await
            }
            LedgerRequest::Purge { placement, field, again } => {
                self.heard.forget();
                self.remember_task(placement, field)?;
                if again {
                    self.close()?;
                }
                self.purge(objects, &placement).await
            }
            LedgerRequest::Answer(digest) => self.db.transaction(|t| {
                Ok(t.answer(&digest)?.map_or(LedgerResponse::Unknown, LedgerResponse::Share))
            }),
            LedgerRequest::ForgetAnswer(digest) => self.db.transaction(|t| {
                t.forget_answer(&digest)?;
                Ok(LedgerResponse::Done)
            }),
            LedgerRequest::Collect(collect) => {
                self.remember_task(collect.placement, collect.field)?;
                let response = self.collect(objects, host, &collect).await?;
                if let LedgerResponse::Refused(Abort { kind, detail }) = &response {
                    let (kind, detail) = (*kind, detail.clone());
                    let resource = Resource::AggregateShares;
                    let heard = self.hear(host, Refusal { resource, kind, detail }).await;
                    // The answer is decided.
                    if let Err(why) = heard {
                        host.not_counted(&why);
                    }
                }
                Ok(response)
            }
        }
    }

    /// Finishes what was left over: rolls a dead attempt back, tells stores of decisions they missed, and writes what was
    /// heard, without which it is finished all the same. Returns whether nothing is left. The alarm's handler.
    ///
    /// # Errors
    /// The database's.
    pub async fn tidy(&self, objects: &impl Objects, host: &impl LedgerHost) -> StoreResult<bool> {
        let finished = self.finish(objects, host).await;
        if let Err(why) = self.write_what_was_heard(host.now()) {
            host.not_counted(&why);
        }
        finished
    }

    async fn finish(&self, objects: &impl Objects, host: &impl LedgerHost) -> StoreResult<bool> {
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

    fn close(&self) -> StoreResult<()> {
        self.db.transaction(|t| {
            let mut meta = t.meta()?;
            if !meta.closed {
                meta.closed = true;
                t.put_meta(&meta)?;
            }
            Ok(())
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
        let (meta, pending) = self.db.transaction(|t| Ok((t.meta()?, t.pending()?)))?;
        let end = meta.task.and_then(|(placement, _)| placement.group_deadline(store.group));
        if end.is_some_and(|end| end <= host.now()) || meta.closed {
            return Ok(LedgerResponse::Expired);
        }
        // While an attempt is pending, a birth would add reports that were not gathered.
        if pending.is_some() {
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

    /// Has everything forgotten that the task ever stored. The host erases this ledger when all others have.
    async fn purge(
        &self,
        objects: &impl Objects,
        placement: &Placement,
    ) -> StoreResult<LedgerResponse> {
        if !placement.has_time_groups() {
            let stores = whole_task_stores(placement.shards);
            let answers = self.call_all(objects, &stores, |_| StoreAction::Purge).await?;
            if !answers.iter().all(|a| *a == Some(AggregateStoreResponse::Done)) {
                return Ok(LedgerResponse::Busy);
            }
            return purge_job_stores(objects, placement).await;
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
        purge_job_stores(objects, placement).await
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
                    counts: row.counts,
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
        let task = self
            .task()?
            .ok_or_else(|| StoreError("the ledger does not know its task yet".to_owned()))?;
        Ok(self.calls_of(task, objects, stores, action))
    }

    fn calls_of<'a, O: Objects, F: Fn(usize) -> StoreAction + 'a>(
        &self,
        (placement, field): (Placement, FieldKind),
        objects: &'a O,
        stores: &'a [StoreId],
        action: F,
    ) -> impl Stream<Item = Option<AggregateStoreResponse>> + use<'a, D, O, F> {
        let calls = stores.iter().enumerate().map(move |(n, store)| {
            let request =
                AggregateStoreRequest { placement, store: *store, field, action: action(n) };
            async move { objects.store(store, request).await.ok() }
        });
        stream::iter(calls).buffered(PARALLEL_CALLS)
    }
}

/// Records that the leader deleted a job, and forgets what was deleted so long ago that it can no longer matter.
fn release(
    tables: &mut impl LedgerTables,
    placement: &Placement,
    job: &AggregationJobId,
    now: Time,
) -> StoreResult<()> {
    let epoch = current_epoch(tables, placement, now)?;
    tables.release(epoch, job)
}

/// The epoch of what arrives now, its tables made if it has none and old ones dropped.
fn current_epoch(
    tables: &mut impl LedgerTables,
    placement: &Placement,
    now: Time,
) -> StoreResult<u32> {
    let mut meta = tables.meta()?;
    let latest = meta.released_epochs.last().copied();
    let epoch = latest.map_or(placement.epoch(now), |latest| latest.max(placement.epoch(now)));
    if latest != Some(epoch) {
        let (old, live) =
            meta.released_epochs.into_iter().partition(|e| placement.epoch_deadline(*e) <= now);
        meta.released_epochs = live;
        meta.released_epochs.push(epoch);
        let old: Vec<u32> = old;
        old.into_iter().try_for_each(|e| tables.drop_epoch(e))?;
        tables.create_epoch(epoch)?;
        tables.put_meta(&meta)?;
    }
    Ok(epoch)
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

/// Has the job stores of a task forget everything; also those that never knew anything.
async fn purge_job_stores(
    objects: &impl Objects,
    placement: &Placement,
) -> StoreResult<LedgerResponse> {
    let calls = (0..placement.shards)
        .map(|shard| objects.job_store(placement, shard, JobStoreRequest::Purge));
    let answers: Vec<_> = stream::iter(calls).buffered(PARALLEL_CALLS).collect().await;
    let gone = answers.iter().all(|a| *a == Ok(JobStoreResponse::Done));
    Ok(if gone { LedgerResponse::Done } else { LedgerResponse::Busy })
}
