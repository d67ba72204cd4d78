//! The storage protocol on objects in memory: the suite that all implementations share, and collections that are cut
//! off at every step.
#![cfg(not(target_arch = "wasm32"))]

use daphne_core::{
    batch::{BatchBucket, BatchMode},
    ids::BatchId,
    store::{
        aggregate_store::AggregateStore,
        message::{
            AggregateStoreRequest, AggregateStoreResponse as Answer, LedgerRequest, LedgerResponse,
            StoreAction,
        },
        placement::{Group, StoreId},
    },
    testing::{
        conformance::{self, ONLY, Subject, commit, report, slice, window, windows},
        faulty::{Crash, FaultyDatabase, FaultyObjects, Persistent},
        memory::{Fate, MemoryAggregateTables, MemoryCluster, MemoryDatabase},
    },
    time::Time,
    vdaf::FieldKind,
};
use futures::{FutureExt as _, executor::block_on};

#[test]
fn objects_in_memory_conform() {
    let cluster = MemoryCluster::new();
    for case in conformance::CASES {
        println!("{case}");
        block_on(conformance::run(case, &cluster));
    }
}

#[test]
fn objects_in_memory_conform_when_they_forget_between_cases() {
    let cluster = MemoryCluster::new();
    for case in conformance::CASES {
        block_on(conformance::run(case, &cluster));
        cluster.reset_stores();
        cluster.reset_ledgers();
    }
}

/// Requests and answers are lost or come twice, the ledger's own calls are lost, and objects die between any two
/// messages: who goes on asking sees the same.
#[test]
fn faulty_objects_conform_to_who_goes_on_asking() {
    let mut faults = 0;
    for seed in 0..200 {
        let cluster = MemoryCluster::new();
        let objects = FaultyObjects::new(&cluster, seed, |random| match random.below(12) {
            0 => cluster.reset_stores(),
            1 => cluster.reset_ledgers(),
            2 | 3 => {
                let fate = [Fate::RequestLost, Fate::AnswerLost][random.below(2) as usize];
                cluster.fate_of_call(cluster.calls() + 1 + random.below(6), fate);
            }
            _ => {}
        });
        let persistent = Persistent(objects);
        for case in conformance::CASES {
            // Two shares of megabytes: once is enough.
            if seed == 0 || *case != "large_shares_are_kept_whole" {
                block_on(conformance::run(case, &persistent));
            }
        }
        faults += persistent.0.faults();
    }
    assert!(faults > 10_000, "only {faults} faults");
}

fn committed(cluster: &MemoryCluster, shards: u16) -> Subject<'_, MemoryCluster> {
    let s = Subject::new(cluster, "steps", BatchMode::TimeInterval, shards, 0);
    for shard in 0..shards {
        let n = 10 * shard as u8;
        let c = commit(1, vec![slice(window(0), &[n + 1, n + 2]), slice(window(4), &[n + 3])]);
        let answer = block_on(s.commit(StoreId { group: Group::Whole, shard }, c));
        assert_eq!(answer, Answer::Committed(vec![]));
    }
    s
}

/// Whatever call of a collection is lost, or answered into the void, and whether the ledger or the stores forget what
/// they had in memory: the batch stays collectable, the answer is right, and it never changes.
#[test]
fn a_collection_cut_off_at_any_call_leaves_the_batch_collectable() {
    let mut cut_off = 0;
    for fate in [Fate::RequestLost, Fate::AnswerLost] {
        for forget in [false, true] {
            for cut in 0.. {
                let cluster = MemoryCluster::new();
                let s = committed(&cluster, 2);
                let all = [1, 2, 11, 12];
                let collect = s.collection(1, windows(0, 1), &all);
                let first_call = cluster.calls();
                cluster.fate_of_call(first_call + cut, fate);
                let request = LedgerRequest::Collect(Box::new(collect.clone()));
                use daphne_core::store::Objects as _;
                let first = block_on(cluster.ledger(&s.placement.task_id, request));
                if cluster.calls() <= first_call + cut {
                    break;
                }
                cut_off += 1;
                if forget {
                    cluster.reset_ledgers();
                    cluster.reset_stores();
                }
                // Where the ledger had not decided, commits are not refused as collected.
                let mut answer = block_on(s.collect(&collect));
                for _ in 0..3 {
                    if answer != LedgerResponse::Busy {
                        break;
                    }
                    answer = block_on(s.collect(&collect));
                }
                assert_eq!(s.open(&collect, &answer), 26, "{fate:?} {forget} {cut}");
                if let Ok(LedgerResponse::Share(_)) = &first {
                    assert_eq!(first.as_ref(), Ok(&answer), "{fate:?} {forget} {cut}");
                }
                assert_eq!(block_on(s.collect(&collect)), answer);
                block_on(cluster.run_alarm(&s.placement.task_id)).unwrap();
                for shard in 0..2 {
                    let store = StoreId { group: Group::Whole, shard };
                    let late = commit(7, vec![slice(window(0), &[70])]);
                    assert_eq!(
                        block_on(s.commit(store, late)),
                        Answer::Collected(vec![report(70)]),
                        "{fate:?} {forget} {cut}"
                    );
                }
                let other = s.collection(2, windows(4, 1), &[3, 13]);
                let answer = block_on(s.collect(&other));
                assert_eq!(s.open(&other, &answer), 16);
            }
        }
    }
    // Gathering, freezing and sealing two stores, and the request itself, each lost and answered into the void.
    assert!(cut_off >= 4 * 7, "only {cut_off} cuts");
}

/// A frozen range of an attempt that nobody finishes is freed by whoever meets it.
#[test]
fn a_commit_that_meets_a_dead_attempt_settles_it() {
    let cluster = MemoryCluster::new();
    let s = committed(&cluster, 2);
    let collect = s.collection(1, windows(0, 1), &[1, 2, 11, 12]);
    // Calls: ledger, 2 gatherings, 2 freezings; the second freezing is lost, and so are both thaws.
    let first_call = cluster.calls();
    for lost in [4, 5, 6] {
        cluster.fate_of_call(first_call + lost, Fate::RequestLost);
    }
    assert_eq!(block_on(s.collect(&collect)), LedgerResponse::Busy);
    assert!(cluster.alarm_is_armed());
    let store = StoreId { group: Group::Whole, shard: 0 };
    let c = commit(2, vec![slice(window(0), &[50])]);
    let Answer::Busy(attempt) = block_on(s.commit(store, c.clone())) else {
        panic!("the store is not held");
    };
    let (placement, field) = (s.placement, FieldKind::F64);
    let settle = LedgerRequest::Settle { placement, field, store, attempt };
    assert_eq!(block_on(s.ask_ledger(settle)), LedgerResponse::Done);
    assert_eq!(block_on(s.commit(store, c)), Answer::Committed(vec![]));
}

/// A commit between gathering and freezing moves the content: the attempt starts over, and the late job counts exactly
/// if the leader counts it.
#[test]
fn a_commit_between_gathering_and_freezing_is_noticed() {
    let cluster = MemoryCluster::new();
    let s = committed(&cluster, 1);
    // Calls: ledger, gathering, freezing.
    cluster.before_call(cluster.calls() + 2, |cluster| {
        let s = Subject::new(cluster, "steps", BatchMode::TimeInterval, 1, 0);
        let late = commit(2, vec![slice(window(0), &[50])]);
        let answer = s.commit(conformance::ONLY, late).now_or_never();
        assert_eq!(answer, Some(Answer::Committed(vec![])));
    });
    let without = s.collection(1, windows(0, 1), &[1, 2]);
    assert_eq!(block_on(s.collect(&without)), LedgerResponse::Busy);
    let wrong = s.collection(3, windows(0, 1), &[1, 50]);
    assert!(matches!(block_on(s.collect(&wrong)), LedgerResponse::Refused(_)));
    let with = s.collection(2, windows(0, 1), &[1, 2, 50]);
    let answer = block_on(s.collect(&with));
    assert_eq!(s.open(&with, &answer), 53);
}

/// A store born between gathering and intent makes the attempt start over, or it would be missing from the sum.
#[test]
fn a_store_born_during_a_collection_is_noticed() {
    let cluster = MemoryCluster::new();
    let at = |shard| StoreId { group: Group::Run(0), shard };
    let s = Subject::new(&cluster, "born", BatchMode::TimeInterval, 2, 10);
    let mut c = commit(1, vec![slice(window(0), &[1, 2])]);
    c.open = Some(block_on(s.open_store(at(0))));
    block_on(s.commit(at(0), c));
    // Calls: ledger, gathering. The birth happens while the gathering is under way.
    cluster.before_call(cluster.calls() + 1, move |cluster| {
        let s = Subject::new(cluster, "born", BatchMode::TimeInterval, 2, 10);
        let mut c = commit(2, vec![slice(window(0), &[3])]);
        c.open = Some(s.open_store(at(1)).now_or_never().unwrap());
        assert_eq!(s.commit(at(1), c).now_or_never(), Some(Answer::Committed(vec![])));
    });
    let without = s.collection(1, windows(0, 1), &[1, 2]);
    assert_eq!(block_on(s.collect(&without)), LedgerResponse::Busy);
    let wrong = s.collection(3, windows(0, 1), &[1, 3]);
    assert!(matches!(block_on(s.collect(&wrong)), LedgerResponse::Refused(_)));
    let with = s.collection(2, windows(0, 1), &[1, 2, 3]);
    let answer = block_on(s.collect(&with));
    assert_eq!(s.open(&with, &answer), 6);
}

#[test]
fn a_store_that_is_not_touched_is_not_created() {
    let cluster = MemoryCluster::new();
    let s = Subject::new(&cluster, "untouched", BatchMode::TimeInterval, 4, 10);
    let store = StoreId { group: Group::Run(0), shard: 2 };
    let mut c = commit(1, vec![slice(window(0), &[1, 2])]);
    c.open = Some(block_on(s.open_store(store)));
    block_on(s.commit(store, c));
    let collect = s.collection(1, windows(0, 100), &[1, 2]);
    let answer = block_on(s.collect(&collect));
    assert_eq!(s.open(&collect, &answer), 3);
    let stores = cluster.stores_of(&s.placement.task_id);
    assert_eq!(stores.len(), 1);
    assert_eq!(stores[0].1.jobs().count(), 1, "one row per job and store");
}

#[test]
fn batches_of_a_leader_selected_task_do_not_disturb_each_other() {
    let cluster = MemoryCluster::new();
    let s = Subject::new(&cluster, "independent", BatchMode::LeaderSelected, 1, 0);
    let bucket = |n| BatchBucket::Batch(BatchId::new([n; 32]));
    let store = conformance::ONLY;
    block_on(s.commit(store, commit(1, vec![slice(bucket(1), &[1, 2])])));
    let range = daphne_core::batch::BucketRange::Batch(BatchId::new([1; 32]));
    assert_eq!(block_on(s.freeze(store, 1, range)), Answer::Frozen);
    let other = commit(2, vec![slice(bucket(2), &[3])]);
    assert_eq!(block_on(s.commit(store, other)), Answer::Committed(vec![]));
}

/// A write that fails for a full disk, say, and not because the object died: the same commit again is no replay of itself.
#[test]
fn a_failed_transaction_leaves_nothing_in_memory() {
    let cluster = MemoryCluster::new();
    let s = Subject::new(&cluster, "failed", BatchMode::TimeInterval, 1, 0);
    let database = MemoryDatabase::<MemoryAggregateTables>::default();
    let store = AggregateStore::new(std::rc::Rc::new(FaultyDatabase::new(database)));
    let send = |action| {
        let (placement, field) = (s.placement, FieldKind::F64);
        let request = AggregateStoreRequest { placement, store: ONLY, field, action };
        store.handle(request, Time::from_seconds(0), [0; 16]).map(|handled| handled.response)
    };
    let commit_of = |n: u8| StoreAction::Commit(commit(n, vec![slice(window(0), &[n])]));
    assert_eq!(send(commit_of(1)), Ok(Answer::Committed(vec![])));
    for (n, crash) in [(2, Crash::BeforeTransaction), (3, Crash::AfterTransaction)] {
        store.database().crash_next(Some(crash));
        assert!(send(commit_of(n)).is_err());
        assert_eq!(send(commit_of(n)), Ok(Answer::Committed(vec![])));
    }
    assert_eq!(store.database().inner().snapshot().jobs().count(), 3);
}
