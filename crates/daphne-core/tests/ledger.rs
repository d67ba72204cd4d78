//! Collections that meet each other, dead attempts and late messages, on objects in memory.
#![cfg(not(target_arch = "wasm32"))]

use std::{cell::RefCell, rc::Rc};

use daphne_core::{
    batch::BatchMode,
    store::{
        message::{AggregateStoreResponse as Answer, LedgerRequest, LedgerResponse},
        placement::{Group, StoreId},
    },
    testing::{
        conformance::{Subject, commit, slice, window, windows},
        memory::{Fate, MemoryCluster},
    },
    vdaf::FieldKind,
};
use futures::{FutureExt as _, executor::block_on};

/// Longer than an attempt may hold the ledger.
const LATER: u64 = 1_000;

fn shard(shard: u16) -> StoreId {
    StoreId { group: Group::Whole, shard }
}

fn subject(cluster: &MemoryCluster, shards: u16) -> Subject<'_, MemoryCluster> {
    Subject::new(cluster, "ledger", BatchMode::TimeInterval, shards, 0)
}

/// Each shard holds two reports in window 0 and two in window 1.
fn seeded(cluster: &MemoryCluster, shards: u16) -> Subject<'_, MemoryCluster> {
    let s = subject(cluster, shards);
    for n in 0..shards {
        let first = 10 * n as u8;
        let slices = vec![
            slice(window(0), &[first + 1, first + 2]),
            slice(window(1), &[first + 3, first + 4]),
        ];
        assert_eq!(block_on(s.commit(shard(n), commit(1, slices))), Answer::Committed(vec![]));
    }
    s
}

fn now<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("objects in memory answer at once")
}

#[test]
fn a_slow_attempt_does_not_collect_what_another_collected_meanwhile() {
    let cluster = MemoryCluster::new();
    let s = seeded(&cluster, 1);
    let wide = s.collection(1, windows(0, 2), &[1, 2, 3, 4]);
    let narrow = s.collection(2, windows(0, 1), &[1, 2]);
    // Calls: ledger, gathering. Another collection comes and goes while the gathering is under way.
    cluster.before_call(cluster.calls() + 1, move |cluster| {
        cluster.set_time(LATER);
        let s = subject(cluster, 1);
        let answer = now(s.collect(&narrow));
        assert_eq!(s.open(&narrow, &answer), 3);
    });
    assert_eq!(block_on(s.collect(&wide)), LedgerResponse::Busy);
    assert!(matches!(block_on(s.collect(&wide)), LedgerResponse::Refused(_)));
}

/// Intervals may overlap where no store is, so no store can refuse the second of them.
#[test]
fn a_slow_attempt_does_not_overlap_another_where_no_report_is() {
    let cluster = MemoryCluster::new();
    fn subject(cluster: &MemoryCluster) -> Subject<'_, MemoryCluster> {
        Subject::new(cluster, "gap", BatchMode::TimeInterval, 1, 1)
    }
    let s = subject(&cluster);
    for n in [0, 2] {
        let store = StoreId { group: Group::Run(n), shard: 0 };
        let mut c = commit(n as u8, vec![slice(window(n), &[n as u8 + 1, n as u8 + 11])]);
        c.open = Some(block_on(s.open_store(store)));
        assert_eq!(block_on(s.commit(store, c)), Answer::Committed(vec![]));
    }
    let early = s.collection(1, windows(0, 2), &[1, 11]);
    let late = s.collection(2, windows(1, 2), &[3, 13]);
    cluster.before_call(cluster.calls() + 1, move |cluster| {
        cluster.set_time(LATER);
        let s = subject(cluster);
        assert_eq!(s.open(&late, &now(s.collect(&late))), 16);
    });
    assert_eq!(block_on(s.collect(&early)), LedgerResponse::Busy);
    assert!(matches!(block_on(s.collect(&early)), LedgerResponse::Refused(_)));
}

#[test]
fn a_slow_attempt_does_not_replace_an_answer() {
    let cluster = MemoryCluster::new();
    let s = seeded(&cluster, 1);
    let request = s.collection(1, windows(0, 1), &[1, 2]);
    let (again, first) = (request.clone(), Rc::new(RefCell::new(None)));
    let kept = first.clone();
    cluster.before_call(cluster.calls() + 1, move |cluster| {
        cluster.set_time(LATER);
        *kept.borrow_mut() = Some(now(subject(cluster, 1).collect(&again)));
    });
    assert_eq!(block_on(s.collect(&request)), LedgerResponse::Busy);
    let answer = block_on(s.collect(&request));
    assert_eq!(Some(answer), *first.borrow());
}

/// Another collection begins to roll a slow attempt back; one thaw is lost, so the intent is still there. The slow
/// attempt must not decide: a store it froze is free again, and has accepted a report.
#[test]
fn an_attempt_that_is_being_rolled_back_does_not_decide() {
    let cluster = MemoryCluster::new();
    let s = seeded(&cluster, 2);
    let request = s.collection(1, windows(0, 1), &[1, 2, 11, 12]);
    let base = cluster.calls();
    // Calls: ledger 0, gatherings 1 and 2, freezings 3 and 4; the other collection: ledger 5, thaws 6 and 7.
    cluster.before_call(base + 4, move |cluster| {
        cluster.set_time(LATER);
        let s = subject(cluster, 2);
        let other = s.collection(2, windows(1, 1), &[3, 4, 13, 14]);
        cluster.fate_of_call(base + 7, Fate::RequestLost);
        assert_eq!(now(s.collect(&other)), LedgerResponse::Busy);
        let late = commit(9, vec![slice(window(0), &[90])]);
        assert_eq!(now(s.commit(shard(0), late)), Answer::Committed(vec![]));
    });
    assert_eq!(block_on(s.collect(&request)), LedgerResponse::Busy);
    let with_the_late_one = s.collection(3, windows(0, 1), &[1, 2, 11, 12, 90]);
    let answer = block_on(s.collect(&with_the_late_one));
    assert_eq!(s.open(&with_the_late_one, &answer), 116);
}

/// While one attempt runs, another waits, and does not touch it.
#[test]
fn one_collection_runs_at_a_time() {
    for call in [1, 2, 3, 4] {
        let cluster = MemoryCluster::new();
        let s = seeded(&cluster, 2);
        let request = s.collection(1, windows(0, 1), &[1, 2, 11, 12]);
        cluster.before_call(cluster.calls() + call, move |cluster| {
            let s = subject(cluster, 2);
            let other = s.collection(2, windows(1, 1), &[3, 4, 13, 14]);
            assert_eq!(now(s.collect(&other)), LedgerResponse::Busy);
        });
        let answer = block_on(s.collect(&request));
        assert_eq!(s.open(&request, &answer), 26, "{call}");
    }
}

/// Two attempts past an expired lock: the second finds the first's intent and does not add its own.
#[test]
fn a_second_intent_waits_for_the_first() {
    let cluster = MemoryCluster::new();
    let s = seeded(&cluster, 1);
    let request = s.collection(1, windows(0, 1), &[1, 2]);
    let other = s.collection(2, windows(1, 1), &[3, 4]);
    // The other collection's freezing is lost, and so is its thaw: its intent stays.
    let base = cluster.calls();
    cluster.before_call(base + 1, move |cluster| {
        cluster.set_time(LATER);
        // Calls: ledger 2, gathering 3, freezing 4, thaw 5.
        cluster.fate_of_call(base + 4, Fate::RequestLost);
        cluster.fate_of_call(base + 5, Fate::RequestLost);
        assert_eq!(now(subject(cluster, 1).collect(&other)), LedgerResponse::Busy);
    });
    assert_eq!(block_on(s.collect(&request)), LedgerResponse::Busy);
    let answer = block_on(s.collect(&request));
    assert_eq!(s.open(&request, &answer), 3);
}

/// A store that is born between freezing and decision would be missing from the answer.
#[test]
fn no_store_is_born_while_an_attempt_is_pending() {
    let cluster = MemoryCluster::new();
    let at = |shard| StoreId { group: Group::Run(0), shard };
    let s = Subject::new(&cluster, "pending", BatchMode::TimeInterval, 2, 10);
    let mut c = commit(1, vec![slice(window(0), &[1, 2])]);
    c.open = Some(block_on(s.open_store(at(0))));
    block_on(s.commit(at(0), c));
    // Calls: ledger, gathering, freezing.
    cluster.before_call(cluster.calls() + 2, move |cluster| {
        let s = Subject::new(cluster, "pending", BatchMode::TimeInterval, 2, 10);
        let (placement, field, store) = (s.placement, FieldKind::F64, at(1));
        let open = LedgerRequest::Open { placement, field, store };
        assert_eq!(now(s.ask_ledger(open)), LedgerResponse::Busy);
    });
    let request = s.collection(1, windows(0, 1), &[1, 2]);
    let answer = block_on(s.collect(&request));
    assert_eq!(s.open(&request, &answer), 3);
    let sealed = block_on(s.open_store(at(1)));
    assert_eq!(sealed, [(windows(0, 1), vec![])], "it is born knowing");
}

#[test]
fn no_store_is_born_while_a_dead_attempt_cannot_be_rolled_back() {
    let cluster = MemoryCluster::new();
    let at = |shard| StoreId { group: Group::Run(0), shard };
    let s = Subject::new(&cluster, "dead", BatchMode::TimeInterval, 2, 10);
    let mut c = commit(1, vec![slice(window(0), &[1, 2])]);
    c.open = Some(block_on(s.open_store(at(0))));
    block_on(s.commit(at(0), c));
    let base = cluster.calls();
    // Ledger 0, gathering 1, freezing 2 (answer lost), thaw 3 (lost); opening: ledger 4, thaw 5 (lost).
    cluster.fate_of_call(base + 2, Fate::AnswerLost);
    cluster.fate_of_call(base + 3, Fate::RequestLost);
    cluster.fate_of_call(base + 5, Fate::RequestLost);
    let request = s.collection(1, windows(0, 1), &[1, 2]);
    assert_eq!(block_on(s.collect(&request)), LedgerResponse::Busy);
    let (placement, field, store) = (s.placement, FieldKind::F64, at(1));
    let open = LedgerRequest::Open { placement, field, store };
    assert_eq!(block_on(s.ask_ledger(open)), LedgerResponse::Busy);
    assert_eq!(block_on(s.open_store(store)), []);
}

/// A dead attempt is not forgotten before every store that it may hold was thawed.
#[test]
fn a_lost_thaw_keeps_the_attempt_pending() {
    let cluster = MemoryCluster::new();
    let s = seeded(&cluster, 2);
    let request = s.collection(1, windows(0, 1), &[1, 2, 11, 12]);
    let base = cluster.calls();
    // Ledger 0, gatherings 1 and 2, freezings 3 and 4 (lost), thaws 5 (lost) and 6.
    cluster.fate_of_call(base + 4, Fate::RequestLost);
    cluster.fate_of_call(base + 5, Fate::RequestLost);
    assert_eq!(block_on(s.collect(&request)), LedgerResponse::Busy);
    // The next collection may not begin while that thaw is lost again: ledger 7, thaws 8 (lost) and 9.
    cluster.fate_of_call(base + 8, Fate::RequestLost);
    let other = s.collection(2, windows(1, 1), &[3, 4, 13, 14]);
    assert_eq!(block_on(s.collect(&other)), LedgerResponse::Busy);
    assert_eq!(cluster.calls(), base + 10, "nothing was gathered");
    let late = commit(2, vec![slice(window(0), &[90])]);
    assert_eq!(block_on(s.commit(shard(0), late.clone())), Answer::Busy(1));
    // The alarm does what was left over.
    assert_eq!(block_on(cluster.run_alarm(&s.placement.task_id)), Ok(true));
    assert_eq!(block_on(s.commit(shard(0), late)), Answer::Committed(vec![]));
}

/// A store that is frozen although the ledger has forgotten the attempt is thawed by whoever meets it: a freezing may
/// arrive after the thaw that overtook it was lost.
#[test]
fn a_forgotten_freeze_is_settled() {
    let cluster = MemoryCluster::new();
    let s = seeded(&cluster, 1);
    let request = s.collection(1, windows(0, 1), &[1, 2]);
    let answer = block_on(s.collect(&request));
    assert_eq!(s.open(&request, &answer), 3);
    // The ledger is at attempt 1, and another store of the task holds that attempt's late freezing.
    let stray = StoreId { group: Group::Whole, shard: 7 };
    assert_eq!(block_on(s.freeze(stray, 1, windows(5, 1))), Answer::Frozen);
    let c = commit(2, vec![slice(window(5), &[50])]);
    assert_eq!(block_on(s.commit(stray, c.clone())), Answer::Busy(1));
    let (placement, field) = (s.placement, FieldKind::F64);
    let settle = LedgerRequest::Settle { placement, field, store: stray, attempt: 1 };
    assert_eq!(block_on(s.ask_ledger(settle)), LedgerResponse::Done);
    assert_eq!(block_on(s.commit(stray, c)), Answer::Committed(vec![]));
}

#[test]
fn late_messages_of_an_ended_attempt_change_nothing() {
    let cluster = MemoryCluster::new();
    let s = seeded(&cluster, 1);
    let version = block_on(s.gather(shard(0), windows(1, 1))).version();
    assert_eq!(block_on(s.freeze(shard(0), 3, windows(0, 1))), Answer::Frozen);
    assert_eq!(block_on(s.seal(shard(0), 3, windows(0, 1), vec![])), Answer::Done);
    for attempt in [1, 2, 3] {
        let late = s.freeze_at(shard(0), attempt, windows(1, 1), version);
        assert_eq!(block_on(late), Answer::Stale, "{attempt}");
    }
    let c = commit(2, vec![slice(window(1), &[50])]);
    assert_eq!(block_on(s.commit(shard(0), c)), Answer::Committed(vec![]));
    // A range is collected once, even if a ledger went mad.
    for range in [windows(0, 1), windows(0, 2)] {
        assert_eq!(block_on(s.freeze(shard(0), 9, range)), Answer::Stale);
    }
}

/// A share that cannot be sealed holds nothing.
#[test]
fn a_collector_key_that_is_no_key_leaves_the_batch_free() {
    let cluster = MemoryCluster::new();
    let s = seeded(&cluster, 1);
    let mut request = s.collection(1, windows(0, 1), &[1, 2]);
    request.collector_hpke_config.public_key = vec![1, 2, 3];
    use daphne_core::store::Objects as _;
    let collect = LedgerRequest::Collect(Box::new(request));
    assert!(block_on(cluster.ledger(&s.placement.task_id, collect)).is_err());
    let c = commit(2, vec![slice(window(0), &[50])]);
    assert_eq!(block_on(s.commit(shard(0), c)), Answer::Committed(vec![]));
}

/// A row that cannot be read is told; what the ledger is for goes on: refusing, collecting, and finishing what a dead
/// attempt left.
#[test]
fn counting_never_keeps_the_ledger_from_its_work() {
    let cluster = MemoryCluster::new();
    let s = seeded(&cluster, 2);
    let task = s.placement.task_id;
    cluster.damage_books(&task).unwrap();
    let wrong = s.collection(1, windows(0, 1), &[1, 2, 3]);
    assert!(matches!(block_on(s.collect(&wrong)), LedgerResponse::Refused(_)));
    assert_eq!(cluster.told(), ["storage: the books are unreadable"]);
    // The seals are lost: the stores hold what was decided until the alarm tells them.
    let batch = s.collection(2, windows(0, 1), &[1, 2, 11, 12]);
    let first = cluster.calls();
    (5..=6).for_each(|n| cluster.fate_of_call(first + n, Fate::RequestLost));
    s.open(&batch, &block_on(s.collect(&batch)));
    assert_eq!(block_on(cluster.run_alarm(&task)), Ok(true), "nothing is left");
    assert_eq!(cluster.calls(), first + 9, "both were told, one after the other");
    assert_eq!(cluster.told().len(), 3);
}
