//! One schedule: which message is delivered next, and what goes wrong.

use std::{
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
};

use daphne_core::{
    store::message::{AggregateStoreResponse, StoreAction},
    testing::faulty::Crash,
    version::DapVersion,
};

use crate::{
    choices::Choices,
    coverage::{Coverage, Event},
    executor::Host,
    leader,
    network::{Answer, CallId, Message, Request},
    oracle,
    sabotage::Sabotage,
    scenario::Scenario,
    world::World,
};

/// Deliveries after which a schedule counts as one that never ends. Ordinary ones take some hundreds.
const STEPS_MAX: u64 = 20_000;

/// What a schedule came to.
#[derive(Debug)]
pub struct Report {
    /// The version of its task.
    pub version: DapVersion,
    /// Messages delivered, and faults.
    pub steps: u64,
    /// What happened.
    pub coverage: Coverage,
    /// What must not have happened, if it did.
    pub violation: Option<String>,
    /// The decisions, as a list that makes the same schedule.
    pub choices: Vec<u32>,
    /// What was delivered, if that was asked for.
    pub trace: Vec<String>,
}

/// Runs the schedule that a seed names, in this version or in the one that the seed names as well.
pub fn run_seed(
    version: Option<DapVersion>,
    seed: u64,
    sabotage: Option<Sabotage>,
    trace: bool,
) -> Report {
    run(&Scenario::draw(version, seed), Choices::seeded(seed), sabotage, trace)
}

/// Runs a schedule. Panics in it are violations.
pub fn run(
    scenario: &Scenario,
    choices: Choices,
    sabotage: Option<Sabotage>,
    trace: bool,
) -> Report {
    let world = World::new(scenario.clone(), choices, sabotage, trace);
    let mut schedule = Schedule {
        world: world.clone(),
        faults: scenario.faults,
        steps: 0,
        very_late: Vec::new(),
        ledger_crash: Cell::new(None),
    };
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| schedule.run())) {
        let text = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("without a text");
        world.oracle.violation(format!("panic: {text}"));
    }
    let steps = schedule.steps;
    drop(schedule);
    // Futures hold the world that holds them. After a panic they may be borrowed; then they are leaked.
    catch_unwind(AssertUnwindSafe(|| world.executor.clear())).ok();
    Report {
        version: scenario.version,
        steps,
        coverage: world.coverage.borrow().clone(),
        violation: world.oracle.found(),
        choices: world.choices.replace(Choices::scripted(Vec::new())).into_made(),
        trace: world.take_trace(),
    }
}

struct Schedule {
    world: Rc<World>,
    faults: u32,
    steps: u64,
    very_late: Vec<(CallId, Message)>,
    /// How the ledger is to die at its next transaction.
    ledger_crash: Cell<Option<Crash>>,
}

/// What can go wrong in the middle of a schedule.
#[derive(Clone, Copy, Debug)]
enum Fault {
    LoseRequest,
    LoseAnswer,
    GiveUp,
    Duplicate,
    Delay,
    WorkerDeath,
    LedgerReset,
    LedgerCrash(Crash),
    StoreCrash(Crash),
    JobStoreCrash(Crash),
    Eviction,
    ClockStep,
    EarlyAlarm,
    LockExpiry,
}

const FAULTS: [Fault; 18] = [
    Fault::LoseRequest,
    Fault::LoseAnswer,
    Fault::GiveUp,
    Fault::Duplicate,
    Fault::Delay,
    Fault::WorkerDeath,
    Fault::LedgerReset,
    Fault::LedgerCrash(Crash::BeforeTransaction),
    Fault::LedgerCrash(Crash::AfterTransaction),
    Fault::StoreCrash(Crash::BeforeTransaction),
    Fault::StoreCrash(Crash::AfterTransaction),
    Fault::JobStoreCrash(Crash::BeforeTransaction),
    Fault::JobStoreCrash(Crash::AfterTransaction),
    Fault::Eviction,
    Fault::ClockStep,
    Fault::EarlyAlarm,
    Fault::LockExpiry,
    Fault::LockExpiry,
];

impl Schedule {
    fn run(&mut self) {
        let world = self.world.clone();
        leader::begin(&world);
        if !self.until_quiet() {
            return;
        }
        // No more faults: every right collection succeeds.
        world.quiet.set(true);
        world.crash_ledger(None);
        self.faults = 0;
        self.deliver_delayed();
        if !self.until_quiet() {
            return;
        }
        for range in oracle::ranges_to_collect(&world) {
            leader::collect_range(&world, range);
        }
        if !self.until_quiet() {
            return;
        }
        // And every repeat is answered alike, however late.
        world.delayed.borrow_mut().append(&mut self.very_late);
        self.deliver_delayed();
        leader::repeat_everything(&world);
        world.run_alarm();
        if !self.until_quiet() {
            return;
        }
        oracle::at_the_end(&world);
        leader::finish_what_was_given_up(&world);
        if !self.until_quiet() {
            return;
        }
        oracle::counters(&world);
        if !self.until_quiet() {
            return;
        }
        // A month later all is forgotten, and a repeat does not bring it back.
        world.step_clock_far();
        for round in 0..2 {
            // An epoch is forgotten at a time.
            for _ in 0..4 {
                world.store_ids().into_iter().for_each(|id| world.run_store_alarm(id));
                if !self.until_quiet() {
                    return;
                }
            }
            world.run_job_store_alarms();
            oracle::after_a_month(&world);
            if round == 0 {
                // What is counted is not forgotten.
                oracle::counters(&world);
                if !self.until_quiet() {
                    return;
                }
                leader::repeat_everything(&world);
                if !self.until_quiet() {
                    return;
                }
                world.step_clock_far();
            }
        }
    }

    /// Delivers what was delayed, or puts it off until after the last collections.
    fn deliver_delayed(&mut self) {
        let delayed: Vec<_> = self.world.delayed.borrow_mut().drain(..).collect();
        for message in delayed {
            if self.world.choices.borrow_mut().one_in(2) {
                self.very_late.push(message);
            } else {
                self.world.deliver(message, None);
            }
        }
    }

    /// Goes on until nothing can happen any more. Returns whether all is well.
    fn until_quiet(&mut self) -> bool {
        let world = self.world.clone();
        loop {
            world.executor.run();
            if world.ledger_crashed() {
                world.count(match self.ledger_crash.take() {
                    Some(Crash::AfterTransaction) => Event::LedgerCrashAfter,
                    _ => Event::LedgerCrashBefore,
                });
                world.reset_ledger();
                continue;
            }
            if world.oracle.found().is_some() {
                return false;
            }
            self.steps += 1;
            if self.steps > STEPS_MAX {
                world.oracle.violation("the schedule never ends".to_owned());
                return false;
            }
            if world.network.messages() > 0 {
                self.step();
            } else if world.alarm.get() {
                world.count(Event::Alarm);
                world.run_alarm();
            } else if world.network.callers() > 0 || world.executor.running(Host::Leader) > 0 {
                world.oracle.violation("somebody waits for what will not come".to_owned());
                return false;
            } else {
                return true;
            }
        }
    }

    fn step(&mut self) {
        let world = &self.world;
        // More goes wrong where most is at stake: between intent and decision.
        let rarely = if self.faults > 0 && world.network.any(is_two_phase) { 3 } else { 8 };
        if self.faults > 0 && world.choices.borrow_mut().one_in(rarely) {
            self.faults -= 1;
            let fault = FAULTS[world.choices.borrow_mut().below(FAULTS.len())];
            if let Some(event) = self.apply(fault) {
                world.trace(|| format!("fault: {fault:?}"));
                world.count(event);
            }
            return;
        }
        if !world.delayed.borrow().is_empty() && world.choices.borrow_mut().one_in(50) {
            let message = world.delayed.borrow_mut().remove(0);
            world.deliver(message, None);
            return;
        }
        if world.scenario.generation_rows < 10 && world.choices.borrow_mut().one_in(12) {
            let stores = world.store_ids();
            let n = world.choices.borrow_mut().below(stores.len());
            if let Some(store) = stores.get(n) {
                world.run_store_alarm(*store);
                return;
            }
        }
        let next = world.choices.borrow_mut().below(world.network.messages());
        if next > 0 {
            world.count(Event::Reorder);
        }
        world.deliver(world.network.take(next), None);
    }

    /// Picks one of these messages.
    fn pick(&self, which: impl Fn(&Message) -> bool) -> Option<usize> {
        let found = self.world.network.find(which);
        let n = self.world.choices.borrow_mut().below(found.len());
        found.get(n).copied()
    }

    /// Lets a fault happen, if it can.
    fn apply(&self, fault: Fault) -> Option<Event> {
        let world = &self.world;
        let is_request = |m: &Message| matches!(m, Message::Request(_));
        match fault {
            Fault::LoseRequest => {
                let (id, _) = world.network.take(self.pick(is_request)?);
                world.network.answer(id, Answer::Lost);
                Some(Event::LoseRequest)
            }
            Fault::LoseAnswer => {
                let (id, _) = world.network.take(self.pick(|m| matches!(m, Message::Answer(_)))?);
                world.network.answer(id, Answer::Lost);
                Some(Event::LoseAnswer)
            }
            Fault::GiveUp => {
                let (id, _) = world.network.copy(self.pick(|_| true)?);
                world.deliver((id, Message::Answer(Answer::Lost)), None);
                Some(Event::GiveUp)
            }
            Fault::Duplicate => {
                world.deliver(world.network.copy(self.pick(is_request)?), None);
                Some(Event::Duplicate)
            }
            Fault::Delay => {
                let (id, message) = world.network.take(self.pick(is_request)?);
                world.network.answer(id, Answer::Lost);
                world.delayed.borrow_mut().push((id, message));
                Some(Event::Delay)
            }
            Fault::WorkerDeath => {
                let workers = world.executor.running(Host::Worker);
                let n = world.choices.borrow_mut().below(workers);
                let id = world.executor.kill(Host::Worker, n)?;
                world.network.answer(id, Answer::Lost);
                Some(Event::WorkerDeath)
            }
            Fault::LedgerReset => {
                let busy =
                    world.executor.running(Host::Ledger) + world.executor.running(Host::Alarm);
                world.reset_ledger();
                (busy > 0).then_some(Event::LedgerReset)
            }
            Fault::LedgerCrash(crash) => {
                // Counted when it happens: there may be no transaction any more.
                world.crash_ledger(Some(crash));
                self.ledger_crash.set(Some(crash));
                None
            }
            Fault::StoreCrash(crash) => {
                let next = self.pick(|m| matches!(m, Message::Request(Request::Store(..))))?;
                world.deliver(world.network.take(next), Some(crash));
                Some(match crash {
                    Crash::BeforeTransaction => Event::StoreCrashBefore,
                    Crash::AfterTransaction => Event::StoreCrashAfter,
                })
            }
            Fault::JobStoreCrash(crash) => {
                let next = self.pick(|m| matches!(m, Message::Request(Request::JobStore(..))))?;
                world.deliver(world.network.take(next), Some(crash));
                Some(match crash {
                    Crash::BeforeTransaction => Event::JobStoreCrashBefore,
                    Crash::AfterTransaction => Event::JobStoreCrashAfter,
                })
            }
            Fault::Eviction => {
                world.evict_stores();
                Some(Event::Eviction)
            }
            Fault::ClockStep => {
                world.step_clock();
                Some(Event::ClockStep)
            }
            Fault::LockExpiry => (world.executor.running(Host::Ledger) > 0).then(|| {
                // Whoever works on a collection is taken for dead, and works on.
                world.step_clock();
                if world.alarm.get() {
                    world.run_alarm();
                }
                Event::LockExpiry
            }),
            Fault::EarlyAlarm => world.alarm.get().then(|| {
                world.run_alarm();
                Event::EarlyAlarm
            }),
        }
    }
}

/// Whether a message belongs to the two phases of a collection.
fn is_two_phase(message: &Message) -> bool {
    match message {
        Message::Request(Request::Store(_, request)) => matches!(
            request.action,
            StoreAction::Freeze { .. } | StoreAction::Thaw { .. } | StoreAction::Seal { .. }
        ),
        Message::Answer(Answer::Store(answer)) => matches!(
            **answer,
            AggregateStoreResponse::Frozen
                | AggregateStoreResponse::Done
                | AggregateStoreResponse::Moved
                | AggregateStoreResponse::Stale
        ),
        _ => false,
    }
}
