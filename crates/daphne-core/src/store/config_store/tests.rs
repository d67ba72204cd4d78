//! Tombstones and purges: repeated, cut off, out of order, and over time.

use std::cell::{Cell, RefCell};

use futures::executor::block_on;

use super::{
    Advanced, ConfigRequest, ConfigResponse, ConfigTables, GO_ON_AFTER, Handled, PURGE_AFTER_MAX_S,
    PURGES_MAX, Purge, TASK_END_GRACE, TRY_AGAIN_AFTER, TaskObjects, WORKERS_FORGET_AFTER,
    advance_keys, alarm, handle, next_wake,
};
use crate::{
    batch::BatchMode,
    hpke::HpkeKem,
    ids::{HpkeConfigId, TaskId},
    store::{
        CallError, Database, Objects, StoreResult,
        config_store::{Sealer, keys::SealedKeypair},
        message::{
            AggregateStoreRequest, AggregateStoreResponse, JobStoreRequest, JobStoreResponse,
            LedgerRequest, LedgerResponse,
        },
        placement::{Placement, StoreId},
    },
    testing::memory::{MemoryConfigTables, MemoryDatabase},
    time::{Duration, Time},
    vdaf::FieldKind,
};

const RETENTION: u64 = 14 * 86_400;
const T: u64 = 1_700_000_000;

fn objects(n: u8) -> TaskObjects {
    TaskObjects {
        placement: Placement {
            task_id: TaskId::new([n; 32]),
            batch_mode: BatchMode::TimeInterval,
            time_precision: Duration::from_seconds(300),
            shards: 2,
            buckets_per_group: 288,
            shard_key_version: 1,
            retention: Duration::from_seconds(RETENTION),
        },
        field: FieldKind::F64,
    }
}

/// Ledgers that answer as they are told, and keep count of who was purged.
struct Ledgers {
    answer: RefCell<Result<LedgerResponse, CallError>>,
    purged: RefCell<Vec<u8>>,
}

impl Objects for Ledgers {
    async fn store(
        &self,
        _: &StoreId,
        _: AggregateStoreRequest,
    ) -> Result<AggregateStoreResponse, CallError> {
        panic!("only ledgers are asked")
    }

    async fn ledger(
        &self,
        task: &TaskId,
        request: LedgerRequest,
    ) -> Result<LedgerResponse, CallError> {
        let TaskObjects { placement, field } = objects(task.as_bytes()[0]);
        let purge = |again| LedgerRequest::Purge { placement, field, again };
        assert!([purge(true), purge(false)].contains(&request));
        self.purged.borrow_mut().push(task.as_bytes()[0]);
        self.answer.borrow().clone()
    }

    async fn job_store(
        &self,
        _: &Placement,
        _: u16,
        _: JobStoreRequest,
    ) -> Result<JobStoreResponse, CallError> {
        panic!("only ledgers are asked")
    }
}

/// Nobody asks for keys here.
struct NoKeys;

impl Sealer for NoKeys {
    fn make(&self, _: HpkeConfigId, _: HpkeKem) -> StoreResult<SealedKeypair> {
        panic!("no key is made")
    }

    fn reseal(&self, _: &str, _: &[u8]) -> StoreResult<Option<Vec<u8>>> {
        panic!("nothing is sealed anew")
    }

    fn opens(&self, _: &str, _: &[u8]) -> StoreResult<bool> {
        panic!("nothing is opened")
    }
}

struct Config {
    db: MemoryDatabase<MemoryConfigTables>,
    ledgers: Ledgers,
    clock: Cell<u64>,
}

impl Config {
    fn new() -> Self {
        let answer = RefCell::new(Ok(LedgerResponse::Done));
        let ledgers = Ledgers { answer, purged: RefCell::default() };
        Self { db: MemoryDatabase::default(), ledgers, clock: Cell::new(T) }
    }

    fn now(&self) -> Time {
        Time::from_seconds(self.clock.get())
    }

    fn wait(&self, d: Duration) {
        self.clock.set(self.clock.get() + d.as_seconds());
    }

    fn ask(&self, request: ConfigRequest) -> Handled {
        handle(&self.db, request, &NoKeys, self.now()).unwrap()
    }

    fn create(&self, n: u8, expiration: Option<u64>) -> Handled {
        self.ask(ConfigRequest::CreateTask {
            id: TaskId::new([n; 32]),
            identity: [n; 32],
            record: vec![n],
            objects: objects(n),
            expiration: expiration.map(Time::from_seconds),
        })
    }

    fn purge_at(&self, n: u8) -> Option<Time> {
        let id = TaskId::new([n; 32]);
        self.db.transaction(|t| t.purge(&id)).unwrap().map(|purge| purge.at)
    }

    fn delete(&self, n: u8, purge_after: Option<u64>) -> Handled {
        let purge_after = purge_after.map(Duration::from_seconds);
        self.ask(ConfigRequest::DeleteTask { objects: objects(n), purge_after })
    }

    fn exists(&self, n: u8) -> bool {
        let got = self.ask(ConfigRequest::GetTask(TaskId::new([n; 32])));
        assert_eq!(got.wake, None, "reading arms nothing");
        got.response != ConfigResponse::NotFound
    }

    /// Runs the alarm; answers which tasks it purged, and when it is to run next, in seconds from now.
    fn alarm(&self) -> (Vec<u8>, Option<u64>) {
        assert_eq!(advance_keys(&self.db, &NoKeys, self.now()), Ok(Advanced::default()));
        let wake = block_on(alarm(&self.db, &self.ledgers, self.now())).unwrap();
        assert_eq!(wake, next_wake(&self.db).unwrap());
        let wake = wake.map(|at| at.as_seconds().saturating_sub(self.clock.get()));
        (self.ledgers.purged.take(), wake)
    }

    fn answer(&self, answer: Result<LedgerResponse, CallError>) {
        *self.ledgers.answer.borrow_mut() = answer;
    }
}

#[test]
fn a_deleted_task_is_purged_a_retention_later_and_its_id_is_gone_for_good() {
    let c = Config::new();
    assert_eq!(c.create(1, None).wake, None, "a task without an end needs no alarm");
    let deleted = c.delete(1, None);
    assert_eq!(deleted.response, ConfigResponse::Deleted(true));
    assert_eq!(deleted.wake, Some(Time::from_seconds(T + RETENTION)));
    c.wait(Duration::from_seconds(RETENTION - 1));
    assert_eq!(c.alarm(), (vec![], Some(1)));
    c.wait(Duration::from_seconds(1));
    assert_eq!(c.alarm(), (vec![1], None));
    assert_eq!(c.alarm(), (vec![], None), "once");
    assert!(!c.exists(1));
    assert_eq!(c.create(1, None).response, ConfigResponse::Conflict);
    assert_eq!(c.delete(1, Some(0)).response, ConfigResponse::Deleted(false));
    assert_eq!(c.alarm(), (vec![], None), "a second deletion purges nothing");
    assert_eq!(c.delete(2, None).response, ConfigResponse::NotFound);
}

#[test]
fn what_requests_under_way_bring_back_is_purged_once_more() {
    let c = Config::new();
    c.create(1, None);
    assert_eq!(c.delete(1, Some(0)).wake, Some(c.now()));
    assert_eq!(c.alarm(), (vec![1], Some(WORKERS_FORGET_AFTER.as_seconds())));
    c.wait(WORKERS_FORGET_AFTER);
    assert_eq!(c.alarm(), (vec![1], None));
}

#[test]
fn the_first_deletion_counts() {
    let c = Config::new();
    c.create(1, None);
    let first = c.delete(1, Some(500));
    c.wait(Duration::from_seconds(100));
    let again = c.delete(1, Some(0));
    assert_eq!((again.response, again.wake), (ConfigResponse::Deleted(false), first.wake));
    let far = Config::new();
    far.create(1, None);
    let latest = Time::from_seconds(T + PURGE_AFTER_MAX_S);
    assert_eq!(far.delete(1, Some(u64::MAX)).wake, Some(latest));
}

#[test]
fn a_task_with_an_expiration_ends_by_itself() {
    let c = Config::new();
    let end = T + 1_000 + 2 * RETENTION + TASK_END_GRACE.as_seconds();
    assert_eq!(c.create(1, Some(T + 1_000)).wake, Some(Time::from_seconds(end)));
    assert_eq!(c.create(1, Some(T + 1_000)).wake, Some(Time::from_seconds(end)), "a repeat");
    c.create(2, None);
    c.clock.set(end - 1);
    assert_eq!(c.alarm(), (vec![], Some(1)));
    assert!(c.exists(1));
    c.clock.set(end);
    // Workers know it from their caches until later: so once more then.
    assert_eq!(c.alarm(), (vec![1], Some(WORKERS_FORGET_AFTER.as_seconds())));
    assert!(!c.exists(1) && c.exists(2));
    assert_eq!(c.create(1, Some(T + 1_000)).response, ConfigResponse::Conflict);
    c.wait(WORKERS_FORGET_AFTER);
    assert_eq!(c.alarm(), (vec![1], None));
    // At the end of time.
    assert_eq!(c.create(3, Some(u64::MAX)).wake, Some(Time::from_seconds(u64::MAX)));
}

#[test]
fn a_deletion_takes_the_place_of_the_end() {
    for (purge_after, due) in [(Some(50), 50), (None, RETENTION)] {
        let c = Config::new();
        c.create(1, Some(T + 10));
        assert_eq!(c.delete(1, purge_after).wake, Some(Time::from_seconds(T + due)));
        c.wait(Duration::from_seconds(100 * RETENTION));
        assert_eq!(c.alarm(), (vec![1], None), "once, not at its end again");
    }
}

#[test]
fn a_ledger_that_is_busy_or_silent_is_asked_again_later() {
    let lost = || Err(CallError::Unanswered("lost".to_owned()));
    for (answer, later) in [
        (Ok(LedgerResponse::Busy), GO_ON_AFTER),
        (lost(), TRY_AGAIN_AFTER),
        (Ok(LedgerResponse::Expired), TRY_AGAIN_AFTER),
    ] {
        let c = Config::new();
        c.create(1, None);
        c.delete(1, Some(86_400));
        c.wait(Duration::from_seconds(86_400));
        c.answer(answer);
        assert_eq!(c.alarm(), (vec![1], Some(later.as_seconds())));
        assert_eq!(c.alarm(), (vec![], Some(later.as_seconds())), "too early");
        c.wait(later);
        c.answer(Ok(LedgerResponse::Done));
        assert_eq!(c.alarm(), (vec![1], None));
    }
}

/// The run that found a purge due was cut off, before or after its call: the next one does it.
#[test]
fn a_run_that_was_cut_off_is_done_again() {
    let c = Config::new();
    c.create(1, Some(T));
    c.clock.set(T + 3 * RETENTION);
    {
        // The future is dropped at its call, as when an object is reset.
        struct Never;
        impl Objects for Never {
            async fn store(
                &self,
                _: &StoreId,
                _: AggregateStoreRequest,
            ) -> Result<AggregateStoreResponse, CallError> {
                std::future::pending().await
            }
            async fn ledger(
                &self,
                _: &TaskId,
                _: LedgerRequest,
            ) -> Result<LedgerResponse, CallError> {
                std::future::pending().await
            }
            async fn job_store(
                &self,
                _: &Placement,
                _: u16,
                _: JobStoreRequest,
            ) -> Result<JobStoreResponse, CallError> {
                std::future::pending().await
            }
        }
        use futures::FutureExt as _;
        assert_eq!(alarm(&c.db, &Never, c.now()).now_or_never(), None);
    }
    assert!(!c.exists(1), "the tombstone came first");
    assert_eq!(
        next_wake(&c.db).unwrap(),
        Some(Time::from_seconds(T + 2 * RETENTION).saturating_add(TASK_END_GRACE))
    );
    assert_eq!(c.alarm(), (vec![1], Some(WORKERS_FORGET_AFTER.as_seconds())));
}

#[test]
fn a_run_is_bounded_and_the_earliest_come_first() {
    let c = Config::new();
    let many = 2 * PURGES_MAX as u8;
    // Later numbers are due earlier.
    for n in 1..=many {
        c.create(n, None);
        c.delete(n, Some(86_400 - u64::from(n)));
    }
    c.wait(Duration::from_seconds(86_400));
    // One that cannot be purged does not keep the others from it.
    c.answer(Ok(LedgerResponse::Busy));
    let (first, wake) = c.alarm();
    assert_eq!(first, (many / 2 + 1..=many).rev().collect::<Vec<_>>());
    assert_eq!(wake, Some(0), "there is more to do");
    c.answer(Ok(LedgerResponse::Done));
    assert_eq!(c.alarm().0, (1..=many / 2).rev().collect::<Vec<_>>());
    c.wait(GO_ON_AFTER);
    let (mut again, wake) = c.alarm();
    again.sort_by_key(|n| std::cmp::Reverse(*n));
    assert_eq!((again, wake), (first, None));
}

/// A purge that was replaced while its call was under way is not taken for done.
#[test]
fn an_answer_to_another_purge_settles_nothing() {
    let c = Config::new();
    c.create(1, None);
    c.delete(1, Some(0));
    let stored = |c: &Config| c.db.transaction(|t| t.purge(&TaskId::new([1; 32]))).unwrap();
    let newer = Purge { at: Time::from_seconds(T + 77), ..stored(&c).unwrap() };
    let older = stored(&c).unwrap();
    c.db.transaction(|t| {
        t.put_purge(&newer)?;
        super::settle(t, &older, &Ok(LedgerResponse::Done), Time::from_seconds(T))
    })
    .unwrap();
    assert_eq!(stored(&c), Some(newer));
}

/// It came with tasks of another helper: what was aggregated there can be collected here for as long as if it ended now.
#[test]
fn a_task_that_is_created_after_its_end_ends_from_now_on() {
    let c = Config::new();
    let now = Time::from_seconds(T + 2 * RETENTION).saturating_add(TASK_END_GRACE);
    for (n, expiration) in [(1, 0), (2, T - 900 * 86_400), (3, T)] {
        assert_eq!(c.create(n, Some(expiration)).wake, Some(now));
        assert_eq!(c.purge_at(n), Some(now));
    }
    block_on(alarm(&c.db, &c.ledgers, c.now())).unwrap();
    assert!((1..=3).all(|n| c.exists(n)) && c.ledgers.purged.borrow().is_empty());
}
