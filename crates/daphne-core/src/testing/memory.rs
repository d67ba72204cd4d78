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
        AggregateTables, CallError, Database, JobTables, LedgerTables, Objects, RecordedJob,
        StoreError, StoreResult, VisitJob, VisitJobIds,
        aggregate_store::{AggregateStore, JobRow, SealedRange, SliceHead, StoreMeta},
        config_store::{ConfigTables, TaskEntry},
        job_store,
        ledger::{CollectionRow, Ledger, LedgerHost, LedgerMeta, Pending},
        message::{
            AggregateStoreRequest, AggregateStoreResponse, JobStoreRequest, JobStoreResponse,
            LedgerRequest, LedgerResponse, RequestDigest,
        },
        placement::{Placement, StoreId},
    },
    time::Time,
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

/// Tables of one `AggregateStore`.
#[derive(Clone, Debug, Default)]
pub struct MemoryAggregateTables {
    meta: Option<StoreMeta>,
    sealed: Vec<SealedRange>,
    /// One entry per job.
    pub jobs: BTreeMap<AggregationJobId, JobRow>,
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

    fn job(&mut self, job: &AggregationJobId) -> StoreResult<Option<RecordedJob>> {
        Ok(self
            .jobs
            .get(job)
            .map(|row| RecordedJob { digest: row.digest, refused: row.refused.clone() }))
    }

    fn insert_job(&mut self, row: &JobRow) -> StoreResult<()> {
        match self.jobs.insert(row.job, row.clone()) {
            None => Ok(()),
            Some(_) => Err(StoreError("a job was inserted twice".to_owned())),
        }
    }

    fn put_heads(&mut self, job: &AggregationJobId, heads: &[SliceHead]) -> StoreResult<()> {
        let row = self.jobs.get_mut(job).ok_or_else(|| StoreError("no such job".to_owned()))?;
        row.heads = heads.to_vec();
        Ok(())
    }

    fn each_job(&mut self, visit: &mut VisitJob<'_>) -> StoreResult<()> {
        self.jobs.values().try_for_each(|row| visit(row.job, &row.param, row.heads.clone()))
    }

    fn each_job_ids(&mut self, visit: &mut VisitJobIds<'_>) -> StoreResult<()> {
        self.jobs
            .values()
            .try_for_each(|row| visit(row.job, &row.param, row.heads.clone(), &row.ids))
    }

    fn ids(&mut self, job: &AggregationJobId) -> StoreResult<Vec<u8>> {
        Ok(self.jobs.get(job).map(|row| row.ids.clone()).unwrap_or_default())
    }

    fn shares(&mut self, job: &AggregationJobId) -> StoreResult<Vec<u8>> {
        Ok(self.jobs.get(job).map(|row| row.shares.clone()).unwrap_or_default())
    }
}

/// Tables of one `TaskLedger`.
#[derive(Clone, Debug, Default)]
pub struct MemoryLedgerTables {
    meta: LedgerMeta,
    registered: BTreeSet<StoreId>,
    released: BTreeMap<AggregationJobId, Time>,
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

    fn registered(&mut self) -> StoreResult<Vec<StoreId>> {
        Ok(self.registered.iter().copied().collect())
    }

    fn release(&mut self, job: &AggregationJobId, at: Time) -> StoreResult<()> {
        self.released.entry(*job).or_insert(at);
        Ok(())
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
}

/// Tables of one `JobStore`.
#[derive(Clone, Debug, Default)]
pub struct MemoryJobTables(BTreeMap<AggregationJobId, RequestDigest>);

impl JobTables for MemoryJobTables {
    fn claim(&mut self, job: &AggregationJobId) -> StoreResult<Option<RequestDigest>> {
        Ok(self.0.get(job).copied())
    }

    fn put_claim(&mut self, job: &AggregationJobId, digest: &RequestDigest) -> StoreResult<()> {
        self.0.insert(*job, *digest);
        Ok(())
    }
}

/// Tables of the `ConfigStore`.
#[derive(Clone, Debug, Default)]
pub struct MemoryConfigTables {
    tasks: BTreeMap<TaskId, TaskEntry>,
    keys: Vec<(u8, Vec<u8>)>,
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

type StoreCell = RefCell<AggregateStore<MemoryDatabase<MemoryAggregateTables>>>;

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
#[derive(Default)]
pub struct MemoryCluster {
    stores: RefCell<BTreeMap<(TaskId, StoreId), Rc<StoreCell>>>,
    ledgers: RefCell<BTreeMap<TaskId, LedgerCell>>,
    jobs: RefCell<HashMap<(TaskId, u16), MemoryDatabase<MemoryJobTables>>>,
    calls: Cell<u64>,
    fates: RefCell<HashMap<u64, Fate>>,
    hooks: RefCell<HashMap<u64, Hook>>,
    clock: Cell<u64>,
    alarm: Cell<bool>,
}

impl MemoryCluster {
    /// No objects yet.
    pub fn new() -> Self {
        Self::default()
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
        for store in self.stores.borrow().values() {
            let tables = RefCell::new(store.borrow().database().snapshot());
            *store.borrow_mut() = AggregateStore::new(MemoryDatabase { tables });
        }
    }

    /// The stores of a task that exist, with their tables.
    pub fn stores_of(&self, task: &TaskId) -> Vec<(StoreId, MemoryAggregateTables)> {
        self.stores
            .borrow()
            .iter()
            .filter(|((of, _), _)| of == task)
            .map(|((_, id), store)| (*id, store.borrow().database().snapshot()))
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
            let cell = self
                .stores
                .borrow_mut()
                .entry((request.placement.task_id, *store))
                .or_insert_with(|| {
                    Rc::new(RefCell::new(AggregateStore::new(MemoryDatabase::default())))
                })
                .clone();
            let entropy = [store.shard as u8; 16];
            let mut store = cell.borrow_mut();
            store.handle(request, entropy).map_err(failed)
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
        let answer = ledger.handle(self, self, request).await.map_err(failed)?;
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
            job_store::handle(&*jobs.entry((placement.task_id, shard)).or_default(), request)
                .map_err(failed)
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
