//! Packing changes where things are kept, and nothing else: sums, verdicts of repeats, and what counts as a replay.
#![cfg(not(target_arch = "wasm32"))]

use std::{cell::Cell, rc::Rc};

use daphne_core::{
    batch::{BatchBucket, BatchMode, BucketRange},
    error::ReportError,
    ids::{BatchId, TaskId},
    store::{
        CallError, Database, Objects, StoreResult,
        aggregate_store::{AggregateStore, Limits},
        message::{
            AggregateStoreRequest, AggregateStoreResponse as Answer, JobStoreRequest,
            JobStoreResponse, LedgerRequest, LedgerResponse, StoreAction,
        },
        placement::{Placement, StoreId},
    },
    testing::{
        conformance::{
            self, ONLY, Subject, begin, begun_but, commit, hard, job, report, slice, soft, window,
            windows,
        },
        faulty::{Crash, FaultyDatabase},
        memory::{MemoryAggregateTables, MemoryCluster, MemoryDatabase},
    },
    time::Time,
    vdaf::FieldKind,
};
use futures::executor::block_on;

/// A generation is one job, and nothing is merged before it is decided.
const TINY: Limits = Limits {
    generation_rows: 1,
    generation_ids: usize::MAX,
    generation_share_bytes: u64::MAX,
    pressure_rows: u64::MAX,
    pressure_share_bytes: u64::MAX,
};

/// The same, and everything undecided is merged as soon as possible.
const PRESSED: Limits = Limits { pressure_rows: 0, ..TINY };

/// A cluster whose stores do all their background work after every call, and forget what they had in memory.
struct Busy(MemoryCluster);

impl Busy {
    async fn work(&self, task: &TaskId) {
        self.0.run_store_alarms(task).await.expect("the alarms run");
        self.0.reset_stores();
    }
}

impl Objects for Busy {
    async fn store(
        &self,
        store: &StoreId,
        request: AggregateStoreRequest,
    ) -> Result<Answer, CallError> {
        let task = request.placement.task_id;
        let answer = self.0.store(store, request).await;
        self.work(&task).await;
        answer
    }

    async fn ledger(
        &self,
        task: &TaskId,
        request: LedgerRequest,
    ) -> Result<LedgerResponse, CallError> {
        let answer = self.0.ledger(task, request).await;
        self.work(task).await;
        answer
    }

    async fn job_store(
        &self,
        placement: &Placement,
        shard: u16,
        request: JobStoreRequest,
    ) -> Result<JobStoreResponse, CallError> {
        let answer = self.0.job_store(placement, shard, request).await;
        self.work(&placement.task_id).await;
        answer
    }
}

#[test]
fn objects_conform_while_they_pack_all_the_time() {
    let cluster = Busy(MemoryCluster::with_limits(TINY));
    for case in conformance::CASES {
        println!("{case}");
        block_on(conformance::run(case, &cluster));
    }
}

fn pack(cluster: &MemoryCluster, s: &Subject<'_, MemoryCluster>) {
    block_on(cluster.run_store_alarms(&s.placement.task_id)).unwrap();
}

fn separate_jobs(cluster: &MemoryCluster, s: &Subject<'_, MemoryCluster>) -> usize {
    let stores = cluster.stores_of(&s.placement.task_id);
    stores.iter().map(|(_, tables)| tables.jobs().count()).sum()
}

/// Whatever is packed when: the content of every range stays what it was, to the bit.
#[test]
fn packing_leaves_every_version_as_it_was() {
    let cluster = MemoryCluster::with_limits(PRESSED);
    let s = Subject::new(&cluster, "versions", BatchMode::TimeInterval, 1, 0);
    for n in 0..40u8 {
        let slices = vec![
            slice(window(u64::from(n) % 3), &[4 * n, 4 * n + 1]),
            slice(window(5), &[4 * n + 2]),
        ];
        assert_eq!(block_on(s.commit(ONLY, commit(n, slices))), Answer::Committed(vec![]));
    }
    let ranges = [windows(0, 1), windows(1, 2), windows(0, 6), windows(5, 1), windows(9, 1)];
    let before: Vec<_> = ranges.iter().map(|r| block_on(s.gather(ONLY, *r))).collect();
    assert_eq!(separate_jobs(&cluster, &s), 40);
    pack(&cluster, &s);
    assert_eq!(separate_jobs(&cluster, &s), 0);
    cluster.reset_stores();
    let after: Vec<_> = ranges.iter().map(|r| block_on(s.gather(ONLY, *r))).collect();
    assert_eq!(before, after);
    let jobs = block_on(s.jobs(ONLY, windows(0, 6)));
    assert_eq!((jobs.packed_count, jobs.jobs.len()), (120, 0));
    // And it can be collected, also half merged and half not.
    for n in 40..44u8 {
        block_on(s.commit(ONLY, commit(n, vec![slice(window(5), &[4 * n + 2])])));
    }
    let reports: Vec<u8> = (0..44).map(|n| 4 * n + 2).collect();
    let collect = s.collection(1, windows(5, 1), &reports);
    let answer = block_on(s.collect(&collect));
    assert_eq!(s.open(&collect, &answer), reports.iter().map(|n| u64::from(*n)).sum::<u64>());
}

/// A repeat is answered alike before and after its job was packed, while its batch is frozen and once it is sealed.
#[test]
fn a_repeat_of_a_packed_job_is_answered_as_before() {
    let cluster = MemoryCluster::with_limits(PRESSED);
    let s = Subject::new(&cluster, "repeats", BatchMode::TimeInterval, 1, 0);
    let mut first = commit(1, vec![slice(window(0), &[1, 2])]);
    first.refused = vec![(report(3), ReportError::ReportTooEarly)];
    let expected = Answer::Committed(first.refused.clone());
    let mut other = first.clone();
    other.digest = [99; 32];
    let check = |when: &str| {
        for _ in 0..2 {
            assert_eq!(block_on(s.commit(ONLY, first.clone())), expected, "{when}");
            assert_eq!(block_on(s.commit(ONLY, other.clone())), Answer::Conflict, "{when}");
            assert_eq!(block_on(s.ask(ONLY, StoreAction::KnowsJob(job(1)))), Answer::Known(true));
            cluster.reset_stores();
        }
    };
    check("new");
    block_on(s.commit(ONLY, commit(2, vec![slice(window(1), &[4])])));
    pack(&cluster, &s);
    assert_eq!(separate_jobs(&cluster, &s), 0);
    check("packed");
    assert_eq!(block_on(s.freeze(ONLY, 1, windows(0, 1))), Answer::Frozen);
    check("frozen");
    assert_eq!(block_on(s.seal(ONLY, 1, windows(0, 1), vec![])), Answer::Done);
    check("sealed");
    pack(&cluster, &s);
    check("packed again");
    block_on(s.release(1));
    check("deleted");
}

/// Rows of reports that began, and of jobs.
fn rows(cluster: &MemoryCluster, s: &Subject<'_, MemoryCluster>) -> (usize, usize) {
    let stores = cluster.stores_of(&s.placement.task_id);
    (stores.iter().map(|(_, tables)| tables.begun.len()).sum(), separate_jobs(cluster, s))
}

/// What began stays bound, whatever becomes of its rows: the index has it. A generation of nothing else is dropped, and
/// what stands beside jobs goes with them.
#[test]
fn what_began_outlives_its_rows() {
    let cluster = MemoryCluster::with_limits(Limits { generation_rows: 3, ..TINY });
    let s = Subject::new(&cluster, "begun", BatchMode::TimeInterval, 1, 0);
    let ask =
        |reports: &[(u8, u8)]| block_on(s.ask(ONLY, StoreAction::Begin(begin(Some(1), reports))));
    let check = |last: u8, expected: (usize, usize)| {
        for _ in 0..2 {
            for n in 1..=last {
                assert_eq!(ask(&[(n, 7)]), begun_but(&[]), "{n} is bound");
                assert_eq!(ask(&[(n, 8)]), begun_but(&[n]), "{n} is bound otherwise");
            }
            assert_eq!(rows(&cluster, &s), expected, "of {last}");
            cluster.reset_stores();
        }
    };
    assert_eq!((ask(&[(1, 7)]), ask(&[(2, 7), (3, 7)])), (begun_but(&[]), begun_but(&[])));
    check(3, (2, 0));
    assert_eq!(ask(&[(4, 7), (1, 8)]), begun_but(&[1]));
    check(4, (3, 0));
    pack(&cluster, &s);
    check(4, (0, 0));
    assert_eq!((ask(&[(5, 7)]), ask(&[(6, 7)])), (begun_but(&[]), begun_but(&[])));
    let first = commit(1, vec![slice(window(0), &[1, 2])]);
    assert_eq!(block_on(s.commit(ONLY, first.clone())), Answer::Committed(vec![]));
    assert_eq!(ask(&[(7, 7)]), begun_but(&[]));
    pack(&cluster, &s);
    check(7, (3, 1));
    let collect = s.collection(1, windows(0, 1), &[1, 2]);
    let answer = block_on(s.collect(&collect));
    assert_eq!(s.open(&collect, &answer), 3);
    pack(&cluster, &s);
    check(7, (1, 0));
    assert_eq!(block_on(s.commit(ONLY, first)), Answer::Committed(vec![]));
}

/// What is packed counts for good: its reports are replays for ever, whatever the leader deletes.
#[test]
fn a_packed_report_stays_counted() {
    let cluster = MemoryCluster::with_limits(PRESSED);
    let s = Subject::new(&cluster, "hard", BatchMode::LeaderSelected, 1, 0);
    let bucket = |n| BatchBucket::Batch(BatchId::new([n; 32]));
    block_on(s.commit(ONLY, commit(1, vec![slice(bucket(1), &[1, 2])])));
    let mut second = commit(2, vec![slice(bucket(2), &[1, 3])]);
    second.readmit = vec![job(1)];
    let pressed = block_on(s.commit(ONLY, commit(9, vec![slice(bucket(9), &[9])])));
    assert_eq!(pressed, Answer::Committed(vec![]));
    pack(&cluster, &s);
    assert_eq!(block_on(s.commit(ONLY, second)), hard(&[1]));
}

/// Of a job's reports, exactly the replays are called so, wherever the store finds them: in memory, in separate jobs of
/// older generations, merged.
#[test]
fn replays_are_blamed_on_the_right_reports() {
    let cluster = MemoryCluster::with_limits(Limits { generation_rows: 3, ..PRESSED });
    let s = Subject::new(&cluster, "blame", BatchMode::LeaderSelected, 1, 0);
    let bucket = BatchBucket::Batch(BatchId::new([1; 32]));
    for n in 0..8u8 {
        block_on(s.commit(ONLY, commit(n, vec![slice(bucket, &[10 * n, 10 * n + 1])])));
        if n == 3 {
            pack(&cluster, &s);
        }
    }
    assert_eq!(separate_jobs(&cluster, &s), 5, "three are merged, three in a full generation");
    for forget in [false, true] {
        if forget {
            cluster.reset_stores();
        }
        let mixed: Vec<u8> = (0..8).flat_map(|n| [10 * n + 1, 10 * n + 5]).collect();
        let replayed = Answer::Replayed {
            soft: (3..8).map(|n| (report(10 * n + 1), job(n))).collect(),
            hard: (0..3).map(|n| report(10 * n + 1)).collect(),
        };
        assert_eq!(block_on(s.commit(ONLY, commit(100, vec![slice(bucket, &mixed)]))), replayed);
    }
    let fresh: Vec<u8> = (0..8).map(|n| 10 * n + 5).collect();
    let c = commit(100, vec![slice(bucket, &fresh)]);
    assert_eq!(block_on(s.commit(ONLY, c)), Answer::Committed(vec![]));
}

/// Jobs that the leader deleted are not merged, nor what yields, what shares a report with it, and what is frozen.
#[test]
fn what_may_have_to_be_told_apart_is_not_packed() {
    let cluster = MemoryCluster::with_limits(PRESSED);
    let s = Subject::new(&cluster, "kept", BatchMode::LeaderSelected, 1, 0);
    let bucket = |n| BatchBucket::Batch(BatchId::new([n; 32]));
    for n in 1..=6u8 {
        block_on(s.commit(ONLY, commit(n, vec![slice(bucket(n % 2), &[10 * n, 10 * n + 1])])));
    }
    block_on(s.release(1));
    let mut heir = commit(7, vec![slice(bucket(1), &[10, 70])]);
    heir.readmit = vec![job(1)];
    assert_eq!(block_on(s.commit(ONLY, heir)), Answer::Committed(vec![]));
    block_on(s.release(2));
    block_on(s.commit(ONLY, commit(8, vec![slice(bucket(3), &[80])])));
    assert_eq!(
        block_on(s.freeze(ONLY, 1, BucketRange::Batch(BatchId::new([3; 32])))),
        Answer::Frozen
    );
    pack(&cluster, &s);
    let mut left: Vec<_> =
        cluster.stores_of(&s.placement.task_id)[0].1.jobs().map(|row| row.head.job).collect();
    left.sort_unstable();
    // Generations of only deleted jobs stay as they are.
    assert_eq!(left, [1, 2, 7, 8].map(job));
    block_on(s.ask(ONLY, StoreAction::Thaw { attempt: 1 }));
    // The leader counts the heir: the deleted one is left out, although the others are merged.
    let reports = [30, 31, 50, 51, 10, 70];
    let collect = s.collection(1, BucketRange::Batch(BatchId::new([1; 32])), &reports);
    // The ledger's first attempt has the number that was used here already.
    assert_eq!(block_on(s.collect(&collect)), LedgerResponse::Busy);
    let answer = block_on(s.collect(&collect));
    assert_eq!(s.open(&collect, &answer), 242);
    // What it shared with its heir is taken; the rest is free.
    pack(&cluster, &s);
    cluster.reset_stores();
    let late = commit(20, vec![slice(bucket(5), &[10, 11, 70])]);
    assert_eq!(block_on(s.commit(ONLY, late)), hard(&[10, 70]));
    let late = commit(20, vec![slice(bucket(5), &[11])]);
    assert_eq!(block_on(s.commit(ONLY, late)), Answer::Committed(vec![]));
    let again = commit(21, vec![slice(bucket(5), &[11])]);
    assert_eq!(block_on(s.commit(ONLY, again)), soft(&[(11, 20)]));
}

/// What a collection left out is free, once: the job that takes it is packed and counts, and the one that was left out does
/// not make it free again.
#[test]
fn a_report_that_was_taken_over_is_not_free_again() {
    let cluster = MemoryCluster::with_limits(PRESSED);
    let s = Subject::new(&cluster, "taken over", BatchMode::LeaderSelected, 1, 0);
    let bucket = |n| BatchBucket::Batch(BatchId::new([n; 32]));
    block_on(s.commit(ONLY, commit(1, vec![slice(bucket(1), &[1, 2])])));
    let range = BucketRange::Batch(BatchId::new([1; 32]));
    assert_eq!(block_on(s.seal(ONLY, 1, range, vec![job(1)])), Answer::Done);
    let heir = commit(2, vec![slice(bucket(2), &[1])]);
    assert_eq!(block_on(s.commit(ONLY, heir)), Answer::Committed(vec![]));
    pack(&cluster, &s);
    assert_eq!(separate_jobs(&cluster, &s), 1, "of the first job a report is still free");
    let replay = commit(3, vec![slice(bucket(3), &[1])]);
    assert_eq!(block_on(s.commit(ONLY, replay)), hard(&[1]));
    let free = commit(4, vec![slice(bucket(3), &[2])]);
    assert_eq!(block_on(s.commit(ONLY, free)), Answer::Committed(vec![]));
}

/// 193 jobs given up are more than a checksum can tell apart; once they are deleted they need not be.
#[test]
fn many_abandoned_jobs_are_collectable_once_they_are_deleted() {
    let cluster = MemoryCluster::new();
    let s = Subject::new(&cluster, "many", BatchMode::TimeInterval, 1, 0);
    for n in 0..193u8 {
        block_on(s.commit(ONLY, commit(n, vec![slice(window(0), &[n])])));
    }
    block_on(s.commit(ONLY, commit(193, vec![slice(window(0), &[200, 201])])));
    // The one that counts is the oldest but one: no unknown.
    let collect = s.collection(1, windows(0, 1), &[200, 201]);
    let refused = block_on(s.collect(&collect));
    assert!(
        matches!(&refused, LedgerResponse::Refused(a) if a.detail.contains("194 jobs")),
        "{refused:?}"
    );
    (0..193u8).for_each(|n| block_on(s.release(n)));
    let answer = block_on(s.collect(&collect));
    assert_eq!(s.open(&collect, &answer), 401);
}

/// Whatever transaction of the background work is the last thing an object does: the next alarm goes on from there.
#[test]
fn packing_cut_off_at_any_transaction_goes_on() {
    for crash in [Crash::BeforeTransaction, Crash::AfterTransaction] {
        for last in 0.. {
            let cluster = MemoryCluster::new();
            let s = Subject::new(&cluster, "cut off", BatchMode::TimeInterval, 1, 0);
            let database =
                Rc::new(FaultyDatabase::new(MemoryDatabase::<MemoryAggregateTables>::default()));
            let ask = |action| {
                let store = AggregateStore::with_limits(database.clone(), PRESSED);
                let request = AggregateStoreRequest {
                    placement: s.placement,
                    store: ONLY,
                    field: FieldKind::F64,
                    action,
                };
                store.handle(request, Time::from_seconds(0), [7; 16]).unwrap().response
            };
            for n in 0..12u8 {
                let c = commit(n, vec![slice(window(u64::from(n % 2)), &[2 * n, 2 * n + 1])]);
                assert_eq!(ask(StoreAction::Commit(c)), Answer::Committed(vec![]));
            }
            let gather = || {
                ask(StoreAction::Gather { range: windows(0, 2), param: vec![], exclude: vec![] })
            };
            let before = gather();
            let dies = CountDown { database: database.clone(), left: Cell::new(last), crash };
            let store = AggregateStore::with_limits(dies, PRESSED);
            let mut died = false;
            for _ in 0..100 {
                match block_on(store.alarm(&cluster, Time::from_seconds(0))) {
                    Ok(alarmed) if alarmed.wake.is_some_and(|w| w < Time::from_seconds(60)) => {}
                    Ok(_) => break,
                    Err(_) => {
                        died = true;
                        break;
                    }
                }
            }
            assert_eq!(gather(), before, "{crash:?} at transaction {last}");
            let store = AggregateStore::with_limits(database.clone(), PRESSED);
            while block_on(store.alarm(&cluster, Time::from_seconds(0)))
                .unwrap()
                .wake
                .is_some_and(|w| w < Time::from_seconds(60))
            {}
            assert_eq!(gather(), before);
            assert_eq!(database.inner().snapshot().jobs().count(), 0);
            let replay = commit(100, vec![slice(window(5), &[3])]);
            assert_eq!(ask(StoreAction::Commit(replay)), hard(&[3]));
            if !died {
                assert!(last > 10, "only {last} transactions");
                break;
            }
        }
    }
}

/// A database whose host dies at the n-th transaction from now.
struct CountDown {
    database: Rc<FaultyDatabase<MemoryDatabase<MemoryAggregateTables>>>,
    left: Cell<u32>,
    crash: Crash,
}

impl Database for CountDown {
    type Tables = MemoryAggregateTables;

    fn transaction<R>(
        &self,
        f: impl FnOnce(&mut Self::Tables) -> StoreResult<R>,
    ) -> StoreResult<R> {
        if self.left.get() == 0 {
            self.database.crash_next(Some(self.crash));
        }
        self.left.set(self.left.get().wrapping_sub(1));
        self.database.transaction(f)
    }
}

/// One batch that nobody collects does not keep the jobs apart that came with its reports, even if the leader deletes all
/// that it finished; and what had to stay apart is packed later.
#[test]
fn stragglers_do_not_hold_up_what_is_decided() {
    let cluster = MemoryCluster::with_limits(Limits { generation_rows: 4, ..TINY });
    let s = Subject::new(&cluster, "stragglers", BatchMode::TimeInterval, 1, 0);
    let in_bucket = |n: u8| if n % 4 == 3 { 7 } else { 0 };
    for n in 0..80 {
        block_on(s.commit(ONLY, commit(n, vec![slice(window(in_bucket(n)), &[n])])));
        if n % 4 != 3 {
            block_on(s.release(n));
        }
    }
    let collect = |request, bucket| {
        let reports: Vec<u8> = (0..80).filter(|n| in_bucket(*n) == bucket).collect();
        let collect = s.collection(request, windows(bucket, 1), &reports);
        let answer = block_on(s.collect(&collect));
        let sum = reports.iter().map(|n| u64::from(*n)).sum::<u64>();
        assert_eq!(s.open(&collect, &answer), sum);
    };
    collect(1, 0);
    (0..10).for_each(|_| pack(&cluster, &s));
    assert_eq!(separate_jobs(&cluster, &s), 20);
    collect(2, 7);
    pack(&cluster, &s);
    assert_eq!(separate_jobs(&cluster, &s), 0);
    cluster.reset_stores();
    let all: Vec<u8> = (0..80).collect();
    assert_eq!(block_on(s.commit(ONLY, commit(100, vec![slice(window(9), &all)]))), hard(&all));
}
