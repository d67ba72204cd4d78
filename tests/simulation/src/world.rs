//! One schedule's world: the objects with their tables, the clock, and what is done with each request that the network
//! delivers.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use daphne_core::{
    batch::{BucketRange, Checksum},
    ids::AggregationJobId,
    store::{
        Database as _, JobTables as _, LedgerTables as _, StoreError, StoreResult,
        aggregate_store::{AggregateStore, Limits, report_ids},
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
    wire::Wire,
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

type StoreObject = Object<MemoryAggregateTables, Rc<AggregateStore<Tables<MemoryAggregateTables>>>>;
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
    /// The ledger's alarm is set.
    pub alarm: Cell<bool>,
    /// So much time has passed that nothing is remembered but the collections.
    pub forgotten: Cell<bool>,
    /// The jobs that committed each report, by any store's word.
    pub committed: RefCell<BTreeMap<usize, BTreeSet<AggregationJobId>>>,
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
            task: reports::fixture(scenario.version).task(&scenario),
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
            forgotten: Cell::new(false),
            committed: RefCell::default(),
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

    /// How messages are written.
    pub fn wire(&self) -> Wire {
        self.task.parameters.wire()
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

    /// A month goes by: all reports are too old, and what protects them is forgotten.
    pub fn step_clock_far(&self) {
        self.clock_s.set(self.clock_s.get() + 30 * 86_400);
        self.forgotten.set(true);
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
                self.trace(|| format!("  {id} <- {}", describe::answer(self.wire(), &answer)));
                self.network.deliver(id, answer);
            }
            Message::Request(request) => {
                self.trace(|| {
                    let crash = crash.map_or(String::new(), |c| format!(", which dies {c:?}"));
                    format!("{id} -> {}{crash}", describe::request(self.wire(), &request))
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
                let answer = job_store::handle(&tables, request, self.now());
                tables.take_crash();
                let answer = answer.map_or(Answer::Lost, |h| Answer::JobStore(h.response));
                self.network.answer(id, answer);
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
        let object = entry.object.get_or_insert_with(|| self.store_over(tables)).clone();
        let action = request.action.clone();
        let now = self.now();
        let answer = match self.sabotage {
            None => {
                tables.crash_next(crash);
                object.handle(request, now, entropy(store)).map(|h| (h.response, h.erase))
            }
            Some(sabotage) => {
                let erase = Cell::new(false);
                let mut ask = |request| {
                    let handled = object.handle(request, now, entropy(store))?;
                    erase.set(handled.erase);
                    Ok(handled.response)
                };
                let answer = match sabotage.store_request(tables.as_ref(), &mut request, &mut ask) {
                    Some(answer) => Ok(answer),
                    None => ask(request.clone()).map(|a| sabotage.store_answer(&request, a)),
                };
                answer.map(|a| (a, erase.get()))
            }
        };
        if entry.tables.take_crash() {
            entry.object = None;
            self.note_silent_commit(&action, &entry.tables);
        }
        match answer {
            Ok((answer, erase)) => {
                if erase {
                    stores.remove(&store);
                }
                self.note_commit(&action, &answer);
                self.count_store_answer(&answer);
                Answer::Store(Box::new(answer))
            }
            Err(_) => Answer::Lost,
        }
    }

    fn store_over(
        &self,
        tables: &Tables<MemoryAggregateTables>,
    ) -> Rc<AggregateStore<Tables<MemoryAggregateTables>>> {
        let limits = Limits {
            generation_rows: self.scenario.generation_rows,
            pressure_rows: if self.scenario.pressed { 0 } else { u64::MAX },
            pressure_share_bytes: u64::MAX,
            ..Limits::DEFAULT
        };
        Rc::new(AggregateStore::with_limits(tables.clone(), limits))
    }

    /// A store that died after its transaction never said that it committed.
    fn note_silent_commit(&self, action: &StoreAction, tables: &Tables<MemoryAggregateTables>) {
        let StoreAction::Commit(commit) = action else { return };
        let mut committed = self.committed.borrow_mut();
        for row in tables.inner().snapshot().jobs().filter(|row| row.head.job == commit.job) {
            for id in report_ids(&row.ids) {
                committed.entry(reports::number(&id)).or_default().insert(commit.job);
            }
        }
    }

    fn note_commit(&self, action: &StoreAction, answer: &AggregateStoreResponse) {
        let (StoreAction::Commit(commit), AggregateStoreResponse::Committed(refused)) =
            (action, answer)
        else {
            return;
        };
        if !commit.readmit.is_empty() {
            self.count(Event::Readmission);
        }
        let mut committed = self.committed.borrow_mut();
        let ids = commit.slices.iter().flat_map(|s| report_ids(&s.ids));
        for id in ids.filter(|id| !refused.iter().any(|(r, _)| r == id)) {
            committed.entry(reports::number(&id)).or_default().insert(commit.job);
        }
    }

    /// The stores that exist.
    pub fn store_ids(&self) -> Vec<StoreId> {
        self.stores.borrow().keys().copied().collect()
    }

    /// Runs the alarm of a store, which may be called at any time.
    pub fn run_store_alarm(self: &Rc<Self>, store: StoreId) {
        let object = {
            let mut stores = self.stores.borrow_mut();
            let Some(entry) = stores.get_mut(&store) else { return };
            let tables = &entry.tables;
            entry.object.get_or_insert_with(|| self.store_over(tables)).clone()
        };
        self.trace(|| format!("alarm of {store:?}"));
        self.count(Event::StoreAlarm);
        let before = self.separate_jobs(store);
        let world = self.clone();
        self.executor.spawn(Host::StoreAlarm, None, async move {
            // An error makes the platform run it again, and so does a schedule.
            let alarmed = object.alarm(&world.network, world.now()).await;
            let packed = before.saturating_sub(world.separate_jobs(store));
            world.coverage.borrow_mut().count_many(
                if world.forgotten.get() { Event::Expiry } else { Event::Packing },
                packed as u64,
            );
            if alarmed.is_ok_and(|a| a.erase) {
                world.stores.borrow_mut().remove(&store);
            }
        });
    }

    fn separate_jobs(&self, store: StoreId) -> usize {
        let stores = self.stores.borrow();
        stores.get(&store).map_or(0, |s| s.tables.inner().snapshot().jobs().count())
    }

    /// Runs the alarms of job stores.
    pub fn run_job_store_alarms(&self) {
        for tables in self.job_stores.borrow().values() {
            job_store::alarm(tables, self.now()).ok();
        }
    }

    /// Rows and tables that stores and job stores still have for jobs.
    pub fn remembered(&self) -> usize {
        let of_stores = |s: &StoreObject| {
            let tables = s.tables.inner().snapshot();
            tables.generations.len() + tables.epochs.len()
        };
        let stores: usize = self.stores.borrow().values().map(of_stores).sum();
        let claims = |t: &Tables<MemoryJobTables>| {
            t.inner().transaction(|t| t.epochs()).map_or(0, |epochs| epochs.len())
        };
        stores + self.job_stores.borrow().values().map(claims).sum::<usize>()
    }

    fn count_store_answer(&self, answer: &AggregateStoreResponse) {
        use AggregateStoreResponse as A;
        self.count(match answer {
            A::NotOpen => Event::StoreBirth,
            A::Busy(_) => Event::CommitMetFreeze,
            A::Replayed { .. } => Event::StoreReplayed,
            A::Collected(_) => Event::StoreCollected,
            A::Moved => Event::FreezeMoved,
            A::Stale => Event::FreezeStale,
            A::Jobs(_) => Event::Choice,
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
        let range = match &request {
            LedgerRequest::Collect(collect) => Some(collect.range),
            _ => None,
        };
        let answer = ledger.handle(&self.network, self, request).await;
        let decided = matches!(answer, Ok(LedgerResponse::Share(_)));
        if let (true, Some(range)) = (decided, range) {
            crate::oracle::decided(self, range);
        }
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
        self.executor.kill_all(Host::StoreAlarm);
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
            let request = AggregateStoreRequest { placement, store: *id, field, action };
            let object = AggregateStore::new(store.tables.clone());
            let handled = object.handle(request, self.now(), entropy(*id));
            let Ok(AggregateStoreResponse::Gathered { content, .. }) = handled.map(|h| h.response)
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

    /// How often each report is in what stores hold in a range without these jobs; `None` if a part of it is merged.
    pub fn times_held(&self, range: &BucketRange, exclude: &[AggregationJobId]) -> Option<Times> {
        let mut times = Times::default();
        for store in self.stores.borrow().values() {
            let tables = store.tables.inner().snapshot();
            let merged = tables.epochs.values().flat_map(|e| e.merged.keys());
            if merged.into_iter().any(|(bucket, _)| range.contains(bucket)) {
                return None;
            }
            for row in tables.jobs().filter(|row| !exclude.contains(&row.head.job)) {
                let mut ids = report_ids(&row.ids);
                for slice in &row.head.slices {
                    let mine = ids.by_ref().take(slice.report_count as usize);
                    let counts = !slice.excluded && range.contains(&slice.bucket);
                    mine.for_each(|id| times[reports::number(&id)] += u64::from(counts));
                }
            }
        }
        Some(times)
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

    // A crash while counting, which the ledger survives: what it was at work on is looked at, not its counters.
    fn not_counted(&self, _why: &StoreError) {}
}
