//! Tables in memory, and a cluster of objects over them with calls that can be made to fail.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet, HashMap},
    rc::Rc,
};

use crate::{
    batch::{BatchBucket, BucketRange},
    ids::{AggregationJobId, TaskId},
    store::{
        AggregateTables, CallError, Claim, Database, JobTables, LedgerTables, Objects, RecordedJob,
        StoreError, StoreResult, VisitJob, VisitJobIds, VisitMerged,
        aggregate_store::{AggregateStore, JobHead, JobRow, Limits, SealedRange, StoreMeta},
        config_store::{ConfigTables, Purge, TaskEntry},
        job_store,
        ledger::{CollectionRow, Ledger, LedgerHost, LedgerMeta, Pending},
        message::{
            AggregateStoreRequest, AggregateStoreResponse, Content, JobStoreRequest,
            JobStoreResponse, LedgerRequest, LedgerResponse, RequestDigest,
        },
        placement::{Group, Placement, StoreId},
        replay::{Run, RunTables},
    },
    testing::runs::MemoryRuns,
    time::{Duration, Time},
};

/// A database whose tables are a value: a failed transaction restores the copy taken before.
#[derive(Debug, Default)]
pub struct MemoryDatabase<T> {
    tables: RefCell<T>,
}

impl<T: Clone> MemoryDatabase<T> {
    /// A copy of the tables.
    pub fn snapshot(&self) -> T {
        self.tables.borrow().clone()
    }
}

impl<T: Clone> Database for MemoryDatabase<T> {
    type Tables = T;

    fn transaction<R>(&self, f: impl FnOnce(&mut T) -> StoreResult<R>) -> StoreResult<R> {
        // Worked on in a copy, so that a panic leaves nothing behind.
        let mut copy = self.snapshot();
        let result = f(&mut copy);
        if result.is_ok() {
            *self.tables.borrow_mut() = copy;
        }
        result
    }
}

impl<T: Clone> Database for &MemoryDatabase<T> {
    type Tables = T;

    fn transaction<R>(&self, f: impl FnOnce(&mut T) -> StoreResult<R>) -> StoreResult<R> {
        (*self).transaction(f)
    }
}

impl<T: Clone> Database for Rc<MemoryDatabase<T>> {
    type Tables = T;

    fn transaction<R>(&self, f: impl FnOnce(&mut T) -> StoreResult<R>) -> StoreResult<R> {
        (**self).transaction(f)
    }
}

/// Tables of one `AggregateStore`. Using a table that was not created, or was dropped, is an error.
#[derive(Clone, Debug, Default)]
pub struct MemoryAggregateTables {
    /// The meta row.
    pub meta: Option<StoreMeta>,
    sealed: Vec<SealedRange>,
    /// Jobs by generation.
    pub generations: BTreeMap<u32, BTreeMap<AggregationJobId, JobRow>>,
    /// What is packed, by epoch.
    pub epochs: BTreeMap<u32, PackedEpoch>,
    /// The replay index.
    pub runs: MemoryRuns,
}

/// What is packed of one epoch.
#[derive(Clone, Debug, Default)]
pub struct PackedEpoch {
    /// Repeats of these are answered.
    pub jobs: BTreeMap<AggregationJobId, RecordedJob>,
    /// Merged slices.
    pub merged: BTreeMap<(BatchBucket, Vec<u8>), Content>,
}

fn no_table<T>(found: Option<T>) -> StoreResult<T> {
    found.ok_or_else(|| StoreError("no such table".to_owned()))
}

impl MemoryAggregateTables {
    fn generation(
        &mut self,
        generation: u32,
    ) -> StoreResult<&mut BTreeMap<AggregationJobId, JobRow>> {
        no_table(self.generations.get_mut(&generation))
    }

    fn epoch(&mut self, epoch: u32) -> StoreResult<&mut PackedEpoch> {
        no_table(self.epochs.get_mut(&epoch))
    }

    /// All jobs whose slices are separate.
    pub fn jobs(&self) -> impl Iterator<Item = &JobRow> {
        self.generations.values().flat_map(BTreeMap::values)
    }
}

impl AggregateTables for MemoryAggregateTables {
    fn meta(&mut self) -> StoreResult<Option<StoreMeta>> {
        Ok(self.meta.clone())
    }

    fn put_meta(&mut self, meta: &StoreMeta) -> StoreResult<()> {
        self.meta = Some(meta.clone());
        Ok(())
    }

    fn sealed_meeting(&mut self, range: &BucketRange) -> StoreResult<Vec<SealedRange>> {
        Ok(self.sealed.iter().filter(|s| s.range.overlaps(range)).cloned().collect())
    }

    fn sealed_near(&mut self, bucket: &BatchBucket) -> StoreResult<Vec<SealedRange>> {
        Ok(self.sealed.iter().filter(|s| s.range.contains(bucket)).cloned().collect())
    }

    fn put_sealed(&mut self, range: &SealedRange) -> StoreResult<()> {
        if !self.sealed.iter().any(|s| s.range == range.range && s.param == range.param) {
            self.sealed.push(range.clone());
        }
        Ok(())
    }

    fn forget_sealed_before(&mut self, end: Time) -> StoreResult<()> {
        self.sealed.retain(|s| match s.range {
            BucketRange::Windows(interval) => interval.end() >= end,
            BucketRange::Batch(_) => true,
        });
        Ok(())
    }

    fn create_generation(&mut self, generation: u32) -> StoreResult<()> {
        match self.generations.insert(generation, BTreeMap::new()) {
            None => Ok(()),
            Some(_) => Err(StoreError("a generation was created twice".to_owned())),
        }
    }

    fn drop_generation(&mut self, generation: u32) -> StoreResult<()> {
        no_table(self.generations.remove(&generation)).map(|_| ())
    }

    fn job(&mut self, generation: u32, job: &AggregationJobId) -> StoreResult<Option<RecordedJob>> {
        Ok(self.generation(generation)?.get(job).map(|row| row.recorded.clone()))
    }

    fn insert_job(&mut self, generation: u32, row: &JobRow) -> StoreResult<()> {
        match self.generation(generation)?.insert(row.head.job, row.clone()) {
            None => Ok(()),
            Some(_) => Err(StoreError("a job was inserted twice".to_owned())),
        }
    }

    fn put_slices(
        &mut self,
        generation: u32,
        head: &JobHead,
        ids: Option<&[u8]>,
    ) -> StoreResult<()> {
        let row = no_table(self.generation(generation)?.get_mut(&head.job))?;
        row.head = head.clone();
        if let Some(ids) = ids {
            row.ids = ids.to_vec();
        }
        Ok(())
    }

    fn each_job(&mut self, generation: u32, visit: &mut VisitJob<'_>) -> StoreResult<()> {
        self.generation(generation)?.values().try_for_each(|row| visit(row.head.clone()))
    }

    fn each_job_ids(&mut self, generation: u32, visit: &mut VisitJobIds<'_>) -> StoreResult<()> {
        self.generation(generation)?.values().try_for_each(|row| visit(row.head.clone(), &row.ids))
    }

    fn shares(&mut self, generation: u32, job: &AggregationJobId) -> StoreResult<Vec<u8>> {
        no_table(self.generation(generation)?.get(job)).map(|row| row.shares.clone())
    }

    fn create_epoch(&mut self, epoch: u32) -> StoreResult<()> {
        match self.epochs.insert(epoch, PackedEpoch::default()) {
            None => Ok(()),
            Some(_) => Err(StoreError("an epoch was created twice".to_owned())),
        }
    }

    fn drop_epoch(&mut self, epoch: u32) -> StoreResult<()> {
        no_table(self.epochs.remove(&epoch)).map(|_| ())
    }

    fn put_packed_jobs(
        &mut self,
        epoch: u32,
        _generation: u32,
        jobs: &[(AggregationJobId, RecordedJob)],
    ) -> StoreResult<()> {
        self.epoch(epoch)?.jobs.extend(jobs.iter().cloned());
        Ok(())
    }

    fn packed_job(
        &mut self,
        epoch: u32,
        job: &AggregationJobId,
    ) -> StoreResult<Option<RecordedJob>> {
        Ok(self.epoch(epoch)?.jobs.get(job).cloned())
    }

    fn merged(
        &mut self,
        epoch: u32,
        bucket: &BatchBucket,
        param: &[u8],
    ) -> StoreResult<Option<Content>> {
        Ok(self.epoch(epoch)?.merged.get(&(*bucket, param.to_vec())).cloned())
    }

    fn put_merged(
        &mut self,
        epoch: u32,
        bucket: &BatchBucket,
        param: &[u8],
        content: &Content,
    ) -> StoreResult<()> {
        self.epoch(epoch)?.merged.insert((*bucket, param.to_vec()), content.clone());
        Ok(())
    }

    fn each_merged(
        &mut self,
        epoch: u32,
        range: Option<&BucketRange>,
        visit: &mut VisitMerged<'_>,
    ) -> StoreResult<()> {
        self.epoch(epoch)?
            .merged
            .iter()
            .filter(|((bucket, _), _)| range.is_none_or(|r| r.contains(bucket)))
            .try_for_each(|((bucket, param), content)| visit(*bucket, param, content.clone()))
    }
}

impl RunTables for MemoryAggregateTables {
    fn create_run(&mut self, run: u32) -> StoreResult<()> {
        self.runs.create_run(run)
    }

    fn drop_run(&mut self, run: u32) -> StoreResult<()> {
        self.runs.drop_run(run)
    }

    fn put_part(&mut self, run: &Run, part: u32, fingerprints: &[u64]) -> StoreResult<()> {
        self.runs.put_part(run, part, fingerprints)
    }

    fn part(&mut self, run: &Run, part: u32) -> StoreResult<Vec<u64>> {
        self.runs.part(run, part)
    }

    fn last_part(&mut self, run: &Run) -> StoreResult<Option<u32>> {
        self.runs.last_part(run)
    }

    fn present(&mut self, run: &Run, sorted: &[u64]) -> StoreResult<Vec<u64>> {
        self.runs.present(run, sorted)
    }
}

/// Tables of one `TaskLedger`.
#[derive(Clone, Debug, Default)]
pub struct MemoryLedgerTables {
    meta: LedgerMeta,
    registered: BTreeSet<StoreId>,
    expired: BTreeMap<(StoreId, u32), u64>,
    released: BTreeMap<u32, BTreeSet<AggregationJobId>>,
    pending: Option<Pending>,
    collections: BTreeMap<RequestDigest, CollectionRow>,
    answers: BTreeMap<RequestDigest, Vec<u8>>,
}

impl LedgerTables for MemoryLedgerTables {
    fn meta(&mut self) -> StoreResult<LedgerMeta> {
        Ok(self.meta.clone())
    }

    fn put_meta(&mut self, meta: &LedgerMeta) -> StoreResult<()> {
        self.meta = meta.clone();
        Ok(())
    }

    fn register(&mut self, store: &StoreId) -> StoreResult<()> {
        self.registered.insert(*store);
        Ok(())
    }

    fn registered(&mut self, first: u64, last: u64) -> StoreResult<Vec<StoreId>> {
        let in_range = |s: &&StoreId| matches!(s.group, Group::Run(n) if first <= n && n <= last);
        Ok(self.registered.iter().filter(in_range).copied().collect())
    }

    fn unregister(&mut self, store: &StoreId) -> StoreResult<()> {
        self.registered.remove(store);
        Ok(())
    }

    fn put_expired(&mut self, store: &StoreId, epoch: u32, uncollected: u64) -> StoreResult<()> {
        self.expired.insert((*store, epoch), uncollected);
        Ok(())
    }

    fn expired_total(&mut self) -> StoreResult<u64> {
        Ok(self.expired.values().sum())
    }

    fn create_released(&mut self, epoch: u32) -> StoreResult<()> {
        match self.released.insert(epoch, BTreeSet::new()) {
            None => Ok(()),
            Some(_) => Err(StoreError("a table was created twice".to_owned())),
        }
    }

    fn drop_released(&mut self, epoch: u32) -> StoreResult<()> {
        no_table(self.released.remove(&epoch)).map(|_| ())
    }

    fn release(&mut self, epoch: u32, job: &AggregationJobId) -> StoreResult<()> {
        no_table(self.released.get_mut(&epoch))?.insert(*job);
        Ok(())
    }

    fn released(
        &mut self,
        epoch: u32,
        jobs: &[AggregationJobId],
    ) -> StoreResult<Vec<AggregationJobId>> {
        let released = no_table(self.released.get(&epoch))?;
        Ok(jobs.iter().filter(|j| released.contains(j)).copied().collect())
    }

    fn pending(&mut self) -> StoreResult<Option<Pending>> {
        Ok(self.pending.clone())
    }

    fn put_pending(&mut self, pending: Option<&Pending>) -> StoreResult<()> {
        self.pending = pending.cloned();
        Ok(())
    }

    fn collection(&mut self, digest: &RequestDigest) -> StoreResult<Option<CollectionRow>> {
        Ok(self.collections.get(digest).cloned())
    }

    fn collections_meeting(&mut self, range: &BucketRange) -> StoreResult<Vec<CollectionRow>> {
        Ok(self.collections.values().filter(|c| c.range.overlaps(range)).cloned().collect())
    }

    fn unsealed_collections(&mut self) -> StoreResult<Vec<CollectionRow>> {
        Ok(self.collections.values().filter(|c| !c.todo.is_empty()).cloned().collect())
    }

    fn answer(&mut self, digest: &RequestDigest) -> StoreResult<Option<Vec<u8>>> {
        Ok(self.answers.get(digest).cloned())
    }

    fn insert_collection(&mut self, row: &CollectionRow, answer: &[u8]) -> StoreResult<()> {
        self.answers.insert(row.digest, answer.to_vec());
        match self.collections.insert(row.digest, row.clone()) {
            None => Ok(()),
            Some(_) => Err(StoreError("a collection was decided twice".to_owned())),
        }
    }

    fn update_collection(&mut self, row: &CollectionRow) -> StoreResult<()> {
        self.collections.insert(row.digest, row.clone());
        Ok(())
    }

    fn collected_totals(&mut self) -> StoreResult<(u64, u64)> {
        let reports = self.collections.values().map(|c| c.report_count).sum();
        Ok((self.collections.len() as u64, reports))
    }
}

/// Tables of one `JobStore`.
#[derive(Clone, Debug, Default)]
pub struct MemoryJobTables(BTreeMap<u32, (Time, BTreeMap<AggregationJobId, Claim>)>);

impl JobTables for MemoryJobTables {
    fn epochs(&mut self) -> StoreResult<Vec<(u32, Time)>> {
        Ok(self.0.iter().map(|(epoch, (forget_at, _))| (*epoch, *forget_at)).collect())
    }

    fn create_epoch(&mut self, epoch: u32, forget_at: Time) -> StoreResult<()> {
        self.0.insert(epoch, (forget_at, BTreeMap::new()));
        Ok(())
    }

    fn drop_epoch(&mut self, epoch: u32) -> StoreResult<()> {
        no_table(self.0.remove(&epoch)).map(|_| ())
    }

    fn claim(&mut self, epoch: u32, job: &AggregationJobId) -> StoreResult<Option<Claim>> {
        Ok(no_table(self.0.get(&epoch))?.1.get(job).cloned())
    }

    fn put_claim(&mut self, epoch: u32, job: &AggregationJobId, claim: &Claim) -> StoreResult<()> {
        no_table(self.0.get_mut(&epoch))?.1.insert(*job, claim.clone());
        Ok(())
    }
}

/// Tables of the `ConfigStore`.
#[derive(Clone, Debug, Default)]
pub struct MemoryConfigTables {
    tasks: BTreeMap<TaskId, TaskEntry>,
    keys: Vec<(u8, Vec<u8>)>,
    purges: BTreeMap<TaskId, Purge>,
}

impl ConfigTables for MemoryConfigTables {
    fn task(&mut self, id: &TaskId) -> StoreResult<Option<TaskEntry>> {
        Ok(self.tasks.get(id).cloned())
    }

    fn put_task(&mut self, id: &TaskId, entry: &TaskEntry) -> StoreResult<()> {
        self.tasks.insert(*id, entry.clone());
        Ok(())
    }

    fn tasks(&mut self, after: Option<&TaskId>, limit: u32) -> StoreResult<Vec<Vec<u8>>> {
        Ok(self
            .tasks
            .iter()
            .filter(|(id, _)| after.is_none_or(|a| *id > a))
            .filter_map(|(_, entry)| entry.record.clone())
            .take(limit as usize)
            .collect())
    }

    fn hpke_keys(&mut self) -> StoreResult<Vec<(u8, Vec<u8>)>> {
        Ok(self.keys.clone())
    }

    fn insert_hpke_key(&mut self, id: u8, record: &[u8]) -> StoreResult<()> {
        self.keys.push((id, record.to_vec()));
        Ok(())
    }

    fn purge(&mut self, id: &TaskId) -> StoreResult<Option<Purge>> {
        Ok(self.purges.get(id).copied())
    }

    fn put_purge(&mut self, purge: &Purge) -> StoreResult<()> {
        self.purges.insert(purge.objects.placement.task_id, *purge);
        Ok(())
    }

    fn remove_purge(&mut self, id: &TaskId) -> StoreResult<()> {
        self.purges.remove(id);
        Ok(())
    }

    fn purges_due(&mut self, now: Time, limit: u32) -> StoreResult<Vec<Purge>> {
        let mut due: Vec<Purge> = self.purges.values().filter(|p| p.at <= now).copied().collect();
        due.sort_by_key(|p| p.at);
        due.truncate(limit as usize);
        Ok(due)
    }

    fn next_purge(&mut self) -> StoreResult<Option<Time>> {
        Ok(self.purges.values().map(|p| p.at).min())
    }
}

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is carried out and answered.
    Delivered,
    /// It is lost on the way.
    RequestLost,
    /// It is carried out, its answer is lost.
    AnswerLost,
}

type StoreDatabase = Rc<MemoryDatabase<MemoryAggregateTables>>;

type StoreObject = AggregateStore<StoreDatabase>;

type LedgerDatabase = Rc<MemoryDatabase<MemoryLedgerTables>>;

/// One task's ledger: its tables, and the object over them until it is reset.
#[derive(Default)]
struct LedgerCell {
    database: LedgerDatabase,
    object: Option<Rc<Ledger<LedgerDatabase>>>,
}

/// What happens just before a call.
type Hook = Box<dyn FnOnce(&MemoryCluster)>;

/// All objects in memory. Calls between them are numbered, and the fate of each can be set.
pub struct MemoryCluster {
    limits: Limits,
    stores: RefCell<BTreeMap<(TaskId, StoreId), Rc<StoreObject>>>,
    ledgers: RefCell<BTreeMap<TaskId, LedgerCell>>,
    jobs: RefCell<HashMap<(TaskId, u16), MemoryDatabase<MemoryJobTables>>>,
    calls: Cell<u64>,
    fates: RefCell<HashMap<u64, Fate>>,
    hooks: RefCell<HashMap<u64, Hook>>,
    clock: Cell<u64>,
    alarm: Cell<bool>,
}

impl Default for MemoryCluster {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryCluster {
    /// No objects yet.
    pub fn new() -> Self {
        Self::with_limits(Limits::DEFAULT)
    }

    /// No objects yet; stores will have these limits.
    pub fn with_limits(limits: Limits) -> Self {
        Self {
            limits,
            stores: RefCell::default(),
            ledgers: RefCell::default(),
            jobs: RefCell::default(),
            calls: Cell::default(),
            fates: RefCell::default(),
            hooks: RefCell::default(),
            clock: Cell::default(),
            alarm: Cell::default(),
        }
    }

    /// Sets the clock, in seconds since the Unix epoch.
    pub fn set_time(&self, s: u64) {
        self.clock.set(s);
    }

    /// Number of calls made so far.
    pub fn calls(&self) -> u64 {
        self.calls.get()
    }

    /// Decides the fate of the call with this number, counted from 0.
    pub fn fate_of_call(&self, number: u64, fate: Fate) {
        self.fates.borrow_mut().insert(number, fate);
    }

    /// Has `hook` run just before the call with this number.
    pub fn before_call(&self, number: u64, hook: impl FnOnce(&MemoryCluster) + 'static) {
        self.hooks.borrow_mut().insert(number, Box::new(hook));
    }

    /// Every ledger loses what is only in memory.
    pub fn reset_ledgers(&self) {
        self.ledgers.borrow_mut().values_mut().for_each(|cell| cell.object = None);
    }

    /// Every store loses what is only in memory.
    pub fn reset_stores(&self) {
        for store in self.stores.borrow_mut().values_mut() {
            *store = Rc::new(AggregateStore::with_limits(store.database().clone(), self.limits));
        }
    }

    /// The stores of a task that exist, with their tables.
    pub fn stores_of(&self, task: &TaskId) -> Vec<(StoreId, MemoryAggregateTables)> {
        self.stores
            .borrow()
            .iter()
            .filter(|((of, _), _)| of == task)
            .map(|((_, id), store)| (*id, store.database().snapshot()))
            .collect()
    }

    /// Whether an alarm was armed.
    pub fn alarm_is_armed(&self) -> bool {
        self.alarm.get()
    }

    /// Has a task's ledger finish what was left over, as its alarm would.
    ///
    /// # Errors
    /// The database's.
    pub async fn run_alarm(&self, task: &TaskId) -> StoreResult<bool> {
        self.ledger_object(task).tidy(self, self).await
    }

    /// Runs the alarms of a task's stores, whether they are due or not, as often as they ask for it to be done soon.
    ///
    /// # Errors
    /// The database's.
    pub async fn run_store_alarms(&self, task: &TaskId) -> StoreResult<()> {
        let ids: Vec<StoreId> =
            self.stores.borrow().keys().filter(|(of, _)| of == task).map(|(_, id)| *id).collect();
        for id in ids {
            // Bounded: a deadline a few seconds ahead asks for the same again and again, as this clock stands still.
            for _ in 0..200 {
                let key = (*task, id);
                let Some(store) = self.stores.borrow().get(&key).cloned() else { break };
                let alarmed = store.alarm(self, self.now()).await?;
                if alarmed.erase {
                    self.stores.borrow_mut().remove(&key);
                }
                let soon = self.now().saturating_add(Duration::from_seconds(10));
                if alarmed.wake.is_none_or(|at| at > soon) {
                    break;
                }
            }
        }
        for ((of, _), database) in &*self.jobs.borrow() {
            if of == task {
                job_store::alarm(database, self.now())?;
            }
        }
        Ok(())
    }

    fn ledger_object(&self, task: &TaskId) -> Rc<Ledger<LedgerDatabase>> {
        let mut ledgers = self.ledgers.borrow_mut();
        let cell = ledgers.entry(*task).or_default();
        let database = &cell.database;
        cell.object.get_or_insert_with(|| Rc::new(Ledger::new(database.clone()))).clone()
    }

    fn call<R>(&self, carry_out: impl FnOnce() -> Result<R, CallError>) -> Result<R, CallError> {
        let lost = || CallError::Unanswered("lost".to_owned());
        match self.next_fate() {
            Fate::Delivered => carry_out(),
            Fate::RequestLost => Err(lost()),
            Fate::AnswerLost => carry_out().and(Err(lost())),
        }
    }

    fn next_fate(&self) -> Fate {
        let number = self.calls.get();
        self.calls.set(number + 1);
        let hook = self.hooks.borrow_mut().remove(&number);
        if let Some(hook) = hook {
            hook(self);
        }
        self.fates.borrow().get(&number).copied().unwrap_or(Fate::Delivered)
    }
}

fn failed(e: StoreError) -> CallError {
    CallError::Unanswered(e.to_string())
}

impl Objects for MemoryCluster {
    async fn store(
        &self,
        store: &StoreId,
        request: AggregateStoreRequest,
    ) -> Result<AggregateStoreResponse, CallError> {
        self.call(|| {
            let key = (request.placement.task_id, *store);
            let object = self
                .stores
                .borrow_mut()
                .entry(key)
                .or_insert_with(|| {
                    Rc::new(AggregateStore::with_limits(StoreDatabase::default(), self.limits))
                })
                .clone();
            let entropy = [store.shard as u8; 16];
            let handled = object.handle(request, self.now(), entropy).map_err(failed)?;
            if handled.erase {
                self.stores.borrow_mut().remove(&key);
            }
            Ok(handled.response)
        })
    }

    async fn ledger(
        &self,
        task: &TaskId,
        request: LedgerRequest,
    ) -> Result<LedgerResponse, CallError> {
        let fate = self.next_fate();
        let lost = || CallError::Unanswered("lost".to_owned());
        if fate == Fate::RequestLost {
            return Err(lost());
        }
        let ledger = self.ledger_object(task);
        let is_purge = matches!(request, LedgerRequest::Purge { .. });
        let answer = ledger.handle(self, self, request).await.map_err(failed)?;
        if is_purge && answer == LedgerResponse::Done {
            self.ledgers.borrow_mut().remove(task);
        }
        if matches!(answer, LedgerResponse::Share(_)) {
            ledger.tidy(self, self).await.map_err(failed)?;
        }
        if fate == Fate::AnswerLost { Err(lost()) } else { Ok(answer) }
    }

    async fn job_store(
        &self,
        placement: &Placement,
        shard: u16,
        request: JobStoreRequest,
    ) -> Result<JobStoreResponse, CallError> {
        self.call(|| {
            let mut jobs = self.jobs.borrow_mut();
            let key = (placement.task_id, shard);
            let handled = job_store::handle(&*jobs.entry(key).or_default(), request, self.now())
                .map_err(failed)?;
            if handled.erase {
                jobs.remove(&key);
            }
            Ok(handled.response)
        })
    }
}

impl LedgerHost for MemoryCluster {
    fn now(&self) -> Time {
        Time::from_seconds(self.clock.get())
    }

    fn seed(&self) -> [u8; 32] {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&self.calls.get().to_be_bytes());
        seed
    }

    async fn arm_alarm(&self, _after_s: u64) -> StoreResult<()> {
        self.alarm.set(true);
        Ok(())
    }
}
