//! One schedule's world: the objects with their tables, the clock, and what is done with each request that the network
//! delivers.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
};

use daphne_core::{
    batch::{BucketRange, Checksum},
    ids::AggregationJobId,
    store::{
        Database as _, LedgerTables as _, StoreResult,
        aggregate_store::{AggregateStore, JobRow, report_ids},
        job_store,
        ledger::{CollectionRow, Ledger, LedgerHost},
        message::{
            AggregateStoreRequest, AggregateStoreResponse, Content, LedgerRequest, LedgerResponse,
            StoreAction,
        },
        placement::StoreId,
    },
    task::Task,
    testing::{
        faulty::{Crash, FaultyDatabase},
        memory::{MemoryAggregateTables, MemoryDatabase, MemoryJobTables, MemoryLedgerTables},
    },
    time::Time,
    vdaf::share,
};

use crate::{
    choices::Choices,
    coverage::{Coverage, Event},
    describe,
    executor::{Executor, Host},
    leader::Leader,
    network::{Answer, CallId, Message, Network, Request},
    oracle::Oracle,
    reports::{self, BEGIN_S, STEP_S, Times},
    sabotage::Sabotage,
    scenario::Scenario,
    worker,
};

type Tables<T> = Rc<FaultyDatabase<MemoryDatabase<T>>>;

/// An object's tables, and the object over them until it is dropped.
struct Object<T, O> {
    tables: Tables<T>,
    object: Option<O>,
}

impl<T: Default, O> Default for Object<T, O> {
    fn default() -> Self {
        Self { tables: Tables::default(), object: None }
    }
}

type StoreObject = Object<MemoryAggregateTables, AggregateStore<Tables<MemoryAggregateTables>>>;
type LedgerObject = Object<MemoryLedgerTables, Rc<Ledger<Tables<MemoryLedgerTables>>>>;

/// Everything in a schedule.
pub struct World {
    /// What it is about.
    pub scenario: Scenario,
    /// Its task.
    pub task: Task,
    /// Its messages.
    pub network: Network,
    /// Its futures.
    pub executor: Executor,
    /// Its decisions.
    pub choices: RefCell<Choices>,
    /// What happened so far.
    pub coverage: RefCell<Coverage>,
    /// What must hold.
    pub oracle: Oracle,
    /// Its leader.
    pub leader: Leader,
    /// No more faults happen.
    pub quiet: Cell<bool>,
    /// There is a new HPKE key.
    pub rotated: Cell<bool>,
    /// An alarm is set.
    pub alarm: Cell<bool>,
    /// Requests that travel very long.
    pub delayed: RefCell<Vec<(CallId, Message)>>,
    sabotage: Option<Sabotage>,
    trace: Option<RefCell<Vec<String>>>,
    clock_s: Cell<u64>,
    seeds: Cell<u64>,
    stores: RefCell<BTreeMap<StoreId, StoreObject>>,
    ledger: RefCell<LedgerObject>,
    job_stores: RefCell<BTreeMap<u16, Tables<MemoryJobTables>>>,
}

impl World {
    /// Nothing happened yet.
    pub fn new(
        scenario: Scenario,
        choices: Choices,
        sabotage: Option<Sabotage>,
        trace: bool,
    ) -> Rc<Self> {
        Rc::new(Self {
            task: reports::fixture().task(&scenario),
            scenario,
            network: Network::default(),
            executor: Executor::default(),
            choices: RefCell::new(choices),
            coverage: RefCell::default(),
            oracle: Oracle::default(),
            leader: Leader::default(),
            quiet: Cell::new(false),
            rotated: Cell::new(false),
            alarm: Cell::new(false),
            delayed: RefCell::default(),
            sabotage,
            trace: trace.then(RefCell::default),
            clock_s: Cell::new(BEGIN_S),
            seeds: Cell::new(0),
            stores: RefCell::default(),
            ledger: RefCell::default(),
            job_stores: RefCell::default(),
        })
    }

    /// Counts what happens.
    pub fn count(&self, event: Event) {
        self.coverage.borrow_mut().count(event);
    }

    /// Writes a line of the trace.
    pub fn trace(&self, line: impl FnOnce() -> String) {
        if let Some(trace) = &self.trace {
            trace.borrow_mut().push(line());
        }
    }

    /// The lines traced so far.
    pub fn take_trace(&self) -> Vec<String> {
        self.trace.as_ref().map(RefCell::take).unwrap_or_default()
    }

    /// Time goes on.
    pub fn step_clock(&self) {
        self.clock_s.set(self.clock_s.get() + STEP_S);
    }

    /// The clock of a Worker: the right one, or one that is behind.
    pub fn worker_clock(&self) -> Time {
        let behind = !self.quiet.get() && self.choices.borrow_mut().one_in(12);
        if behind {
            self.count(Event::ClockBehind);
        }
        Time::from_seconds(self.clock_s.get() - if behind { STEP_S } else { 0 })
    }

    // --- Delivering ---------------------------------------------------------------------

    /// Delivers a message. `crash` is what becomes of an object that it reaches.
    pub fn deliver(self: &Rc<Self>, (id, message): (CallId, Message), crash: Option<Crash>) {
        match message {
            Message::Answer(answer) => {
                self.trace(|| format!("  {id} <- {}", describe::answer(&answer)));
                self.network.deliver(id, answer);
            }
            Message::Request(request) => {
                self.trace(|| {
                    let crash = crash.map_or(String::new(), |c| format!(", which dies {c:?}"));
                    format!("{id} -> {}{crash}", describe::request(&request))
                });
                self.carry_out(id, request, crash);
            }
        }
    }

    fn carry_out(self: &Rc<Self>, id: CallId, request: Request, crash: Option<Crash>) {
        match request {
            Request::Store(store, request) => {
                self.network.answer(id, self.ask_store(store, *request, crash));
            }
            Request::JobStore(shard, mut request) => {
                if let Some(sabotage) = self.sabotage {
                    sabotage.job_store_request(&mut request);
                }
                let tables = self.job_stores.borrow_mut().entry(shard).or_default().clone();
                tables.crash_next(crash);
                let answer = job_store::handle(&tables, request);
                tables.take_crash();
                self.network.answer(id, answer.map_or(Answer::Lost, Answer::JobStore));
            }
            Request::Ledger(request) => {
                let (world, ledger) = (self.clone(), self.ledger_object());
                let serve = async move { world.serve_ledger(&ledger, id, request).await };
                self.executor.spawn(Host::Ledger, Some(id), serve);
            }
            Request::Http(request) => {
                let world = self.clone();
                let serve = async move {
                    let answer = worker::serve(&world, request).await;
                    world.network.answer(id, Answer::Http(answer));
                };
                self.executor.spawn(Host::Worker, Some(id), serve);
            }
        }
    }

    fn ask_store(
        &self,
        store: StoreId,
        mut request: AggregateStoreRequest,
        crash: Option<Crash>,
    ) -> Answer {
        let mut stores = self.stores.borrow_mut();
        let entry = stores.entry(store).or_default();
        let tables = &entry.tables;
        let object = entry.object.get_or_insert_with(|| AggregateStore::new(tables.clone()));
        let answer = match self.sabotage {
            None => {
                tables.crash_next(crash);
                object.handle(request, entropy(store))
            }
            Some(sabotage) => {
                let mut ask = |request| object.handle(request, entropy(store));
                match sabotage.store_request(tables.as_ref(), &mut request, &mut ask) {
                    Some(answer) => Ok(answer),
                    None => ask(request.clone()).map(|a| sabotage.store_answer(&request, a)),
                }
            }
        };
        if entry.tables.take_crash() {
            entry.object = None;
        }
        match answer {
            Ok(answer) => {
                self.count_store_answer(&answer);
                Answer::Store(Box::new(answer))
            }
            Err(_) => Answer::Lost,
        }
    }

    fn count_store_answer(&self, answer: &AggregateStoreResponse) {
        use AggregateStoreResponse as A;
        self.count(match answer {
            A::NotOpen => Event::StoreBirth,
            A::Busy(_) => Event::CommitMetFreeze,
            A::Replayed(_) => Event::StoreReplayed,
            A::Collected(_) => Event::StoreCollected,
            A::Moved => Event::FreezeMoved,
            A::Stale => Event::FreezeStale,
            A::PartlyRecorded { .. } => Event::PartlyRecorded,
            _ => return,
        });
    }

    // --- The ledger ---------------------------------------------------------------------

    fn ledger_object(&self) -> Rc<Ledger<Tables<MemoryLedgerTables>>> {
        let mut entry = self.ledger.borrow_mut();
        let tables = entry.tables.clone();
        entry.object.get_or_insert_with(|| Rc::new(Ledger::new(tables))).clone()
    }

    async fn serve_ledger(
        &self,
        ledger: &Ledger<Tables<MemoryLedgerTables>>,
        id: CallId,
        request: LedgerRequest,
    ) {
        if let Some(sabotage) = self.sabotage {
            self.stores
                .borrow()
                .values()
                .for_each(|s| sabotage.ledger_request(s.tables.as_ref(), &request));
        }
        let answer = ledger.handle(&self.network, self, request).await;
        let decided = matches!(answer, Ok(LedgerResponse::Share(_)));
        let answer = answer.map(|a| self.sabotage.map_or(a.clone(), |s| s.ledger_answer(a)));
        self.network.answer(id, answer.map_or(Answer::Lost, Answer::Ledger));
        if decided {
            // As the Durable Object does: the leader need not wait. An error leaves it to the alarm.
            ledger.tidy(&self.network, self).await.ok();
        }
    }

    /// Runs the ledger's alarm.
    pub fn run_alarm(self: &Rc<Self>) {
        self.trace(|| "alarm".to_owned());
        self.alarm.set(false);
        let (world, ledger) = (self.clone(), self.ledger_object());
        self.executor.spawn(Host::Alarm, None, async move {
            if ledger.tidy(&world.network, &*world).await != Ok(true) {
                world.alarm.set(true);
            }
        });
    }

    /// Has the ledger die at its next transaction, or live on.
    pub fn crash_ledger(&self, crash: Option<Crash>) {
        self.ledger.borrow().tables.crash_next(crash);
    }

    /// Whether the ledger died in a transaction since this was last asked.
    pub fn ledger_crashed(&self) -> bool {
        self.ledger.borrow().tables.take_crash()
    }

    /// The ledger loses what is in memory and whatever it was doing.
    pub fn reset_ledger(&self) {
        self.trace(|| "the ledger is reset".to_owned());
        self.ledger.borrow_mut().object = None;
        if let Some(sabotage) = self.sabotage {
            sabotage.ledger_reset(self.ledger.borrow().tables.as_ref());
        }
        for id in self.executor.kill_all(Host::Ledger) {
            self.network.answer(id, Answer::Lost);
        }
        if self.executor.running(Host::Alarm) > 0 {
            self.executor.kill_all(Host::Alarm);
            self.alarm.set(true);
        }
    }

    /// Stores lose what they have in memory.
    pub fn evict_stores(&self) {
        self.stores.borrow_mut().values_mut().for_each(|s| s.object = None);
    }

    // --- What the oracle looks at -------------------------------------------------------

    /// Decided collections that share a bucket with `range`.
    pub fn decided(&self, range: &BucketRange) -> Vec<CollectionRow> {
        let ledger = self.ledger.borrow();
        ledger.tables.inner().transaction(|t| t.collections_meeting(range)).unwrap_or_default()
    }

    /// What all stores hold in a range without these jobs.
    pub fn held(&self, range: BucketRange, exclude: &[AggregationJobId]) -> Content {
        let mut total = Content::default();
        let (placement, field) = (self.task.parameters.placement(), self.task.vdaf.field());
        for (id, store) in self.stores.borrow().iter() {
            let (param, exclude) = (Vec::new(), exclude.to_vec());
            let action = StoreAction::Gather { range, param, exclude };
            let request = AggregateStoreRequest { placement, field, action };
            let mut object = AggregateStore::new(store.tables.clone());
            let Ok(AggregateStoreResponse::Gathered(content)) =
                object.handle(request, entropy(*id))
            else {
                continue;
            };
            total.report_count += content.report_count;
            total.checksum.merge(&content.checksum);
            if total.share.is_empty() {
                total.share = content.share;
            } else if !content.share.is_empty()
                && share::add_assign(field, &mut total.share, &content.share).is_err()
            {
                self.oracle.violation("shares of two stores do not add up".to_owned());
            }
        }
        total
    }

    /// Number and checksum of what all stores hold in a range.
    pub fn held_facts(&self, range: BucketRange) -> (u64, Checksum) {
        let content = self.held(range, &[]);
        (content.report_count, content.checksum)
    }

    /// The rows of all jobs in all stores.
    pub fn job_rows(&self) -> Vec<JobRow> {
        let stores = self.stores.borrow();
        stores.values().flat_map(|s| s.tables.inner().snapshot().jobs.into_values()).collect()
    }

    /// How often each report is in what stores hold in a range without these jobs.
    pub fn times_held(&self, range: &BucketRange, exclude: &[AggregationJobId]) -> Times {
        let mut times = Times::default();
        for row in self.job_rows().iter().filter(|row| !exclude.contains(&row.job)) {
            let mut ids = report_ids(&row.ids);
            for head in &row.heads {
                let mine = ids.by_ref().take(head.report_count as usize);
                let counts = !head.excluded && range.contains(&head.bucket);
                mine.for_each(|id| times[reports::number(&id)] += u64::from(counts));
            }
        }
        times
    }

    /// What is left over of collections: ranges that are held, an attempt that is not decided, stores not yet told.
    pub fn left_over(&self) -> Vec<String> {
        use daphne_core::store::AggregateTables as _;
        let mut left = Vec::new();
        for (id, store) in self.stores.borrow().iter() {
            let meta = store.tables.inner().transaction(|t| t.meta()).ok().flatten();
            if let Some(frozen) = meta.and_then(|m| m.frozen) {
                left.push(format!("store {id:?} is held by attempt {}", frozen.attempt));
            }
        }
        let tables = self.ledger.borrow().tables.clone();
        let pending = tables.inner().transaction(|t| t.pending()).ok().flatten();
        left.extend(pending.map(|p| format!("attempt {} is pending", p.attempt)));
        let unsealed = tables.inner().transaction(|t| t.unsealed_collections()).unwrap_or_default();
        left.extend(unsealed.iter().map(|c| format!("attempt {} is not sealed", c.attempt)));
        left
    }
}

/// Fresh randomness for a store: the same in each run.
fn entropy(store: StoreId) -> [u8; 16] {
    [store.shard as u8 + 1; 16]
}

impl LedgerHost for World {
    fn now(&self) -> Time {
        Time::from_seconds(self.clock_s.get())
    }

    fn seed(&self) -> [u8; 32] {
        let n = self.seeds.get() + 1;
        self.seeds.set(n);
        let mut seed = [7; 32];
        seed[..8].copy_from_slice(&n.to_be_bytes());
        seed
    }

    async fn arm_alarm(&self, _after_s: u64) -> StoreResult<()> {
        self.alarm.set(true);
        Ok(())
    }
}
