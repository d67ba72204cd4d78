//! A cluster of objects in memory, with calls that can be made to fail.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, HashMap},
    rc::Rc,
};

pub use super::tables::{
    MemoryAggregateTables, MemoryConfigTables, MemoryDatabase, MemoryJobTables, MemoryLedgerTables,
    PackedEpoch,
};
use crate::{
    aggregate::deferred::Worker,
    ids::TaskId,
    store::{
        CallError, Database as _, Objects, StoreError, StoreResult,
        aggregate_store::{AggregateStore, Limits},
        job_store::{self, deferred::Ended},
        ledger::{Ledger, LedgerHost},
        message::{
            AggregateStoreRequest, AggregateStoreResponse, JobStoreRequest, JobStoreResponse,
            LedgerRequest, LedgerResponse,
        },
        placement::{Placement, StoreId},
    },
    time::{Duration, Time},
};

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

type JobDatabase = Rc<MemoryDatabase<MemoryJobTables>>;

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
    jobs: RefCell<BTreeMap<(TaskId, u16), JobDatabase>>,
    calls: Cell<u64>,
    fates: RefCell<HashMap<u64, Fate>>,
    hooks: RefCell<HashMap<u64, Hook>>,
    clock: Cell<u64>,
    alarm: Cell<bool>,
    told: RefCell<Vec<String>>,
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
            told: RefCell::default(),
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

    /// The books of a task's ledger can no longer be read.
    ///
    /// # Errors
    /// The database's.
    pub fn damage_books(&self, task: &TaskId) -> StoreResult<()> {
        let ledger = self.ledger_object(task);
        ledger.database().transaction(|t| {
            t.books_are_damaged = true;
            Ok(())
        })
    }

    /// What ledgers told the log.
    pub fn told(&self) -> Vec<String> {
        self.told.borrow().clone()
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
                job_store::alarm(&**database, self.now())?;
            }
        }
        Ok(())
    }

    /// Works on what is due in a task's job stores, a piece in each, as their alarms would. Returns the steps of jobs that
    /// came to their end, and whether there was anything to do.
    ///
    /// # Errors
    /// The database's.
    pub async fn run_job_store_work(&self, worker: &Worker<'_>) -> StoreResult<(Vec<Ended>, bool)> {
        let of_task = |(key, database): (&(TaskId, u16), &JobDatabase)| {
            (key.0 == *worker.task.id()).then(|| database.clone())
        };
        let databases: Vec<JobDatabase> = self.jobs.borrow().iter().filter_map(of_task).collect();
        let (mut all, mut is_busy) = (Vec::new(), false);
        for database in databases {
            if let Some(work) = job_store::take(&*database, self.now())? {
                is_busy = true;
                let outcome = worker.work(self, &work).await;
                all.extend(job_store::end(&*database, &work, outcome, self.now())?);
            }
        }
        Ok((all, is_busy))
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
        let is_purge = matches!(request, LedgerRequest::Purge { again: false, .. });
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
            let handled = job_store::handle(&**jobs.entry(key).or_default(), request, self.now())
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

    fn not_counted(&self, why: &StoreError) {
        self.told.borrow_mut().push(why.to_string());
    }
}
