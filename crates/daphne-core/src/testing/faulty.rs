//! Faults around working implementations: a database whose host dies at a transaction, objects that are hard to reach,
//! and a caller who goes on asking.

use std::cell::{Cell, RefCell};

use crate::{
    ids::TaskId,
    store::{
        CallError, Database, Objects, StoreError, StoreResult,
        message::{
            AggregateStoreRequest, AggregateStoreResponse, JobStoreRequest, JobStoreResponse,
            LedgerRequest, LedgerResponse,
        },
        placement::{Placement, StoreId},
    },
};

/// When the host of a database dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// Nothing of the transaction is kept.
    BeforeTransaction,
    /// All of it is kept, and whoever began it never learns so.
    AfterTransaction,
}

/// A database whose host can be made to die at its next transaction. Both ways the transaction ends in an error; the
/// host is then to drop the object, with everything it has in memory.
#[derive(Debug, Default)]
pub struct FaultyDatabase<D> {
    database: D,
    next: Cell<Option<Crash>>,
    crashed: Cell<bool>,
}

impl<D> FaultyDatabase<D> {
    /// A database over `database`, without faults so far.
    pub fn new(database: D) -> Self {
        Self { database, next: Cell::new(None), crashed: Cell::new(false) }
    }

    /// What lies under the faults.
    pub fn inner(&self) -> &D {
        &self.database
    }

    /// Has the host die at the next transaction, or live on.
    pub fn crash_next(&self, crash: Option<Crash>) {
        self.next.set(crash);
    }

    /// Whether the host died since this was last asked.
    pub fn take_crash(&self) -> bool {
        self.crashed.take()
    }
}

impl<D: Database> Database for FaultyDatabase<D> {
    type Tables = D::Tables;

    fn transaction<R>(
        &self,
        f: impl FnOnce(&mut Self::Tables) -> StoreResult<R>,
    ) -> StoreResult<R> {
        let died = || StoreError("the object died".to_owned());
        match self.next.take() {
            None => self.database.transaction(f),
            Some(crash) => {
                self.crashed.set(true);
                match crash {
                    Crash::BeforeTransaction => {
                        self.database.transaction(|tables| f(tables).and(Err(died())))
                    }
                    Crash::AfterTransaction => self.database.transaction(f).and(Err(died())),
                }
            }
        }
    }
}

impl<D: Database> Database for std::rc::Rc<FaultyDatabase<D>> {
    type Tables = D::Tables;

    fn transaction<R>(
        &self,
        f: impl FnOnce(&mut Self::Tables) -> StoreResult<R>,
    ) -> StoreResult<R> {
        (**self).transaction(f)
    }
}

/// A reproducible sequence of numbers: SplitMix64.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The sequence that this seed names.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let a = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let b = (a ^ (a >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        b ^ (b >> 31)
    }

    /// A number below `n`, which is not 0.
    pub fn below(&mut self, n: u64) -> u64 {
        self.next_u64() % n
    }
}

/// What happens between two calls, given a source of chance.
type Disturbance<'a> = Box<dyn Fn(&mut Random) + 'a>;

/// Objects that lose requests and answers, and hear some requests twice. Seeded.
pub struct FaultyObjects<'a, O> {
    objects: &'a O,
    random: RefCell<Random>,
    disturb: Disturbance<'a>,
    faults: Cell<u64>,
}

impl<'a, O> FaultyObjects<'a, O> {
    /// Faults around `objects`. `disturb` is called before each call, to crash what can crash.
    pub fn new(objects: &'a O, seed: u64, disturb: impl Fn(&mut Random) + 'a) -> Self {
        let random = RefCell::new(Random::new(seed));
        Self { objects, random, disturb: Box::new(disturb), faults: Cell::new(0) }
    }

    /// Number of calls that were lost, answered into the void, or heard twice.
    pub fn faults(&self) -> u64 {
        self.faults.get()
    }

    async fn call<A, F: Future<Output = Result<A, CallError>>>(
        &self,
        call: impl Fn() -> F,
    ) -> Result<A, CallError> {
        let fate = {
            let mut random = self.random.borrow_mut();
            (self.disturb)(&mut random);
            random.below(6)
        };
        self.faults.set(self.faults.get() + u64::from(fate < 3));
        let lost = || CallError::Unanswered("lost".to_owned());
        match fate {
            0 => Err(lost()),
            1 => call().await.and(Err(lost())),
            2 => {
                call().await.ok();
                call().await
            }
            _ => call().await,
        }
    }
}

impl<O: Objects> Objects for FaultyObjects<'_, O> {
    async fn store(
        &self,
        store: &StoreId,
        request: AggregateStoreRequest,
    ) -> Result<AggregateStoreResponse, CallError> {
        self.call(|| self.objects.store(store, request.clone())).await
    }

    async fn ledger(
        &self,
        task: &TaskId,
        request: LedgerRequest,
    ) -> Result<LedgerResponse, CallError> {
        self.call(|| self.objects.ledger(task, request.clone())).await
    }

    async fn job_store(
        &self,
        placement: &Placement,
        shard: u16,
        request: JobStoreRequest,
    ) -> Result<JobStoreResponse, CallError> {
        self.call(|| self.objects.job_store(placement, shard, request.clone())).await
    }
}

/// Tries per call before the objects count as unreachable.
const TRIES_MAX: usize = 200;

/// Asks until there is an answer, the ledger until it has time, and a store that is held once more when the ledger has
/// looked after it: all messages are idempotent.
pub struct Persistent<O>(pub O);

impl<O> Persistent<O> {
    async fn ask<A, F: Future<Output = Result<A, CallError>>>(
        &self,
        call: impl Fn() -> F,
        is_final: impl Fn(&A) -> bool,
    ) -> Result<A, CallError> {
        for _ in 0..TRIES_MAX {
            if let Ok(answer) = call().await
                && is_final(&answer)
            {
                return Ok(answer);
            }
        }
        Err(CallError::Unanswered(format!("no answer to {TRIES_MAX} calls")))
    }
}

impl<O: Objects> Objects for Persistent<O> {
    async fn store(
        &self,
        store: &StoreId,
        request: AggregateStoreRequest,
    ) -> Result<AggregateStoreResponse, CallError> {
        let answer = self.ask(|| self.0.store(store, request.clone()), |_| true).await?;
        let AggregateStoreResponse::Busy(attempt) = answer else {
            return Ok(answer);
        };
        // As a Worker does that meets an attempt: perhaps a decision's seal was lost.
        let AggregateStoreRequest { placement, field, .. } = request;
        let settle = LedgerRequest::Settle { placement, field, store: *store, attempt };
        self.ledger(&placement.task_id, settle).await?;
        self.ask(|| self.0.store(store, request.clone()), |_| true).await
    }

    async fn ledger(
        &self,
        task: &TaskId,
        request: LedgerRequest,
    ) -> Result<LedgerResponse, CallError> {
        self.ask(|| self.0.ledger(task, request.clone()), |a| *a != LedgerResponse::Busy).await
    }

    async fn job_store(
        &self,
        placement: &Placement,
        shard: u16,
        request: JobStoreRequest,
    ) -> Result<JobStoreResponse, CallError> {
        self.ask(|| self.0.job_store(placement, shard, request.clone()), |_| true).await
    }
}
