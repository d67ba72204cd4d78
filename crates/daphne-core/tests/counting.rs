//! Counters over the whole life of stores, and of requests that are refused.
#![cfg(not(target_arch = "wasm32"))]

use daphne_core::{
    batch::BatchMode,
    error::AbortKind,
    metrics::{Cause, Failure, Refusal, Resource, Totals},
    store::{
        Objects,
        aggregate_store::Limits,
        message::{Commit, LedgerRequest, LedgerResponse, LedgerStatus, STATUS_BATCHES_MAX},
        placement::{Group, StoreId},
    },
    testing::{
        conformance::{ONLY, Subject, commit, slice, window, windows},
        memory::MemoryCluster,
    },
    time::Duration,
};
use futures::executor::block_on;

/// Generations of three jobs, packed soon.
const SMALL: Limits = Limits {
    generation_rows: 3,
    generation_ids: 1_000,
    generation_share_bytes: 1 << 20,
    pressure_rows: 6,
    pressure_share_bytes: 1 << 20,
};

fn job(n: u8) -> Commit {
    let unrecorded = vec![(Failure::UnknownExtension(Some(u16::from(n))), 2)];
    Commit { unrecorded, ..commit(n, vec![slice(window(u64::from(n)), &[n, n + 100])]) }
}

fn sums(totals: &Totals) -> (u64, u64) {
    (totals.accepted, totals.refused())
}

#[test]
fn what_was_counted_survives_packing_resets_and_the_end_of_its_epoch() {
    let cluster = MemoryCluster::with_limits(SMALL);
    let mut s = Subject::new(&cluster, "life", BatchMode::TimeInterval, 1, 0);
    s.placement.retention = Duration::from_seconds(10_000);
    for n in 1..=20 {
        block_on(s.commit(ONLY, job(n)));
        let expected = (2 * u64::from(n), 2 * u64::from(n));
        assert_eq!(sums(&block_on(s.status()).totals), expected, "{n}");
        cluster.reset_stores();
        assert_eq!(sums(&block_on(s.status()).totals), expected, "{n}, read again");
        block_on(cluster.run_store_alarms(&s.placement.task_id)).unwrap();
        assert_eq!(sums(&block_on(s.status()).totals), expected, "{n}, after the alarm");
        // A repeat of whatever was packed is no other job.
        block_on(s.commit(ONLY, job(1)));
    }
    let packed: usize =
        cluster.stores_of(&s.placement.task_id)[0].1.epochs.values().map(|e| e.jobs.len()).sum();
    assert!(packed > 5, "{packed} jobs were packed");
    let before = block_on(s.status()).totals;
    // Weeks later another epoch begins, and this one ends; then that one, too, which is the last.
    for n in 21..=22 {
        cluster.set_time(u64::from(n - 20) * 20 * 86_400);
        if n == 21 {
            let mut late = job(n);
            late.slices = vec![slice(window(9_999), &[n, n + 100])];
            block_on(s.commit(ONLY, late));
        }
        for _ in 0..5 {
            block_on(cluster.run_store_alarms(&s.placement.task_id)).unwrap();
        }
    }
    assert!(cluster.stores_of(&s.placement.task_id)[0].1.epochs.is_empty(), "all epochs ended");
    let after = block_on(s.status());
    assert_eq!(sums(&after.totals), (before.accepted + 2, before.refused() + 2));
    assert_eq!(after.batches, []);
    assert_eq!(after.totals.reasons.len(), 3, "the latest of their kind are kept");
}

fn refuse(s: &Subject<'_, MemoryCluster>, kind: AbortKind) {
    let resource = Resource::AggregationJobs;
    let refusal = Refusal { resource, kind, detail: "as it was told".to_owned() };
    let answer = block_on(s.ask_ledger(LedgerRequest::Refused(Box::new(refusal))));
    assert_eq!(answer, LedgerResponse::Done);
}

fn refusals(status: &LedgerStatus) -> u64 {
    status.totals.refusals.values().sum()
}

#[test]
fn refused_requests_are_counted_each_and_written_seldom() {
    let cluster = MemoryCluster::new();
    let s = Subject::new(&cluster, "refused", BatchMode::TimeInterval, 1, 0);
    cluster.set_time(1_000);
    for n in 1..=50 {
        refuse(&s, AbortKind::Conflict);
        assert_eq!(refusals(&block_on(s.status())), n);
    }
    assert!(cluster.alarm_is_armed(), "what was heard is to be written");
    block_on(cluster.run_alarm(&s.placement.task_id)).unwrap();
    cluster.reset_ledgers();
    assert_eq!(refusals(&block_on(s.status())), 50);
    // The first one after a while is written at once, those that follow at once are lost with the object.
    cluster.set_time(2_000);
    (0..3).for_each(|_| refuse(&s, AbortKind::InvalidMessage));
    cluster.reset_ledgers();
    let status = block_on(s.status());
    assert_eq!(refusals(&status), 51);
    let expected = "aggregation_jobs: invalid_message: as it was told";
    assert_eq!(status.totals.reasons[0].cause.text(), expected);
    assert!(matches!(status.totals.reasons[0].cause, Cause::Request(_)));
}

#[test]
fn what_the_ledger_refuses_is_counted_by_it() {
    let cluster = MemoryCluster::new();
    let s = Subject::new(&cluster, "ledger", BatchMode::TimeInterval, 1, 0);
    block_on(s.commit(ONLY, job(1)));
    let wrong = s.collection(1, windows(1, 1), &[1, 2]);
    assert!(matches!(block_on(s.collect(&wrong)), LedgerResponse::Refused(_)));
    let refused = block_on(s.status()).totals.refusals;
    let expected = (Resource::AggregateShares, AbortKind::BatchMismatch);
    assert_eq!(refused.into_iter().collect::<Vec<_>>(), [(expected, 1)]);
}

/// A task with more stores than one request asks: each is asked once, and the sum over all pages is that of all.
#[test]
fn a_status_of_many_stores_comes_in_parts() {
    let cluster = MemoryCluster::new();
    let s = Subject::new(&cluster, "many", BatchMode::TimeInterval, 1, 1);
    for n in 0..300 {
        let store = StoreId { group: Group::Run(n), shard: 0 };
        let open = Some(block_on(s.open_store(store)));
        let id = (n / 2) as u8;
        let one = Commit { open, ..commit(id, vec![slice(window(n), &[id])]) };
        block_on(s.commit(store, one));
    }
    refuse(&s, AbortKind::Conflict);
    let (placement, field) = (s.placement, s.field);
    let (mut all, mut pages) = (LedgerStatus::default(), 0);
    loop {
        let after = all.next;
        let ask = LedgerRequest::Status { placement, field, batches: true, after };
        let LedgerResponse::Status(part) = block_on(s.ask_ledger(ask)) else { panic!("no status") };
        assert!(!part.is_complete() || pages > 0);
        all.merge(*part);
        pages += 1;
        if all.next.is_none() {
            break;
        }
    }
    assert_eq!((pages, all.totals.accepted, refusals(&all)), (2, 300, 1));
    assert_eq!((all.batches.len(), all.more_batches > 0), (STATUS_BATCHES_MAX, true));
    assert!(all.is_complete());
    // A store that does not answer is no store that counted nothing.
    cluster.fate_of_call(cluster.calls() + 1, daphne_core::testing::memory::Fate::AnswerLost);
    let ask = LedgerRequest::Status { placement, field, batches: false, after: None };
    let task = s.placement.task_id;
    let Ok(LedgerResponse::Status(part)) = block_on(cluster.ledger(&task, ask)) else {
        panic!("no status")
    };
    assert_eq!((part.silent, part.is_complete()), (1, false));
}
