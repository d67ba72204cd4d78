//! What became of reports is counted once, whatever is repeated, and is not forgotten with what it was counted of.

use super::*;
use crate::metrics::{Failure, Tally, Totals};

/// A commit of job `n` with the reports of `slices`, a recorded refusal, and two that need not be remembered.
fn mixed(n: u8, slices: Vec<Slice>) -> Commit {
    let refused = vec![(report(200), ReportError::ReportTooEarly)];
    let unrecorded = vec![(Failure::UnknownKey(Some(7)), 2), (Failure::Proof, 1)];
    Commit { refused, unrecorded, ..commit(n, slices) }
}

/// What [`mixed`] counts, so many times.
fn failures(times: u64) -> Vec<(Failure, u64)> {
    let of = [(Failure::TooEarly, 1), (Failure::UnknownKey(None), 2), (Failure::Proof, 1)];
    of.map(|(failure, n)| (failure, n * times)).to_vec()
}

fn counted(totals: &Totals) -> (u64, Vec<(Failure, u64)>) {
    (totals.accepted, totals.failures.iter().map(|(failure, n)| (*failure, *n)).collect())
}

/// The row that answers a repeat is the row that counts; a collection changes what counts in the sum, not what was answered.
pub async fn a_job_is_counted_once(objects: &impl Objects) {
    let s = Subject::new(objects, "counted", BatchMode::TimeInterval, 1, 0);
    let job = mixed(1, vec![slice(window(0), &[1, 2]), slice(window(3), &[3])]);
    for _ in 0..2 {
        assert_eq!(s.commit(ONLY, job.clone()).await, Answer::Committed(job.refused.clone()));
    }
    let other_body = Commit { digest: [9; 32], ..job.clone() };
    assert_eq!(s.commit(ONLY, other_body).await, Answer::Conflict);
    assert_eq!(s.commit(ONLY, commit(2, vec![slice(window(0), &[1])])).await, soft(&[(1, 1)]));
    assert_eq!(counted(&s.status().await.totals), (3, failures(1)));
    // Left out of a collection, it was answered all the same.
    assert_eq!(
        s.commit(ONLY, mixed(3, vec![slice(window(0), &[4, 5])])).await,
        Answer::Committed(job.refused)
    );
    s.release(1).await;
    let collect = s.collection(1, windows(0, 1), &[4, 5]);
    assert_eq!(s.open(&collect, &s.collect(&collect).await), 9);
    assert_eq!(counted(&s.status().await.totals), (5, failures(2)));
    let reasons: Vec<String> =
        s.status().await.totals.reasons.iter().map(|reason| reason.cause.text()).collect();
    assert!(reasons.contains(&"hpke_unknown_config_id: configuration 7".to_owned()), "{reasons:?}");
}

/// Once for a job and a body of it.
pub async fn what_no_store_was_asked_about_is_counted_once(objects: &impl Objects) {
    let s = Subject::new(objects, "noted", BatchMode::TimeInterval, 1, 10);
    let mut tally = Tally::default();
    tally.refuse(Failure::Decryption);
    tally.refuse(Failure::TooEarly);
    for digest in [1, 1, 2] {
        let (placement, tally) = (s.placement, tally.clone());
        let note = LedgerRequest::Note { placement, job: job(1), digest: [digest; 32], tally };
        assert_eq!(s.ask_ledger(note).await, LedgerResponse::Done);
    }
    let totals = s.status().await.totals;
    assert_eq!(counted(&totals), (0, vec![(Failure::TooEarly, 2), (Failure::Decryption, 2)]));
}

/// A store says what it counted when it ends, and may say so several times.
pub async fn what_a_store_counted_outlives_it(objects: &impl Objects) {
    let s = Subject::new(objects, "outlived", BatchMode::TimeInterval, 1, 10);
    let stores = [0, 1].map(|n| StoreId { group: Group::Run(n), shard: 0 });
    for (n, store) in (0..).zip(stores) {
        let open = Some(s.open_store(store).await);
        let reports = slice(window(u64::from(n) * 10), &[n + 1, n + 11]);
        let job = Commit { open, ..mixed(n + 1, vec![reports]) };
        assert!(matches!(s.commit(store, job).await, Answer::Committed(_)));
    }
    let before = s.status().await.totals;
    assert_eq!(counted(&before), (4, failures(2)));
    let Answer::Totals(held) = s.ask(stores[0], StoreAction::Totals { batches: false }).await
    else {
        panic!("no totals")
    };
    assert_eq!((counted(&held.totals), held.batches.len()), ((2, failures(1)), 0));
    for _ in 0..2 {
        let (placement, totals) = (s.placement, Box::new(held.totals.clone()));
        let (store, epoch, uncollected) = (stores[0], 0, 2);
        let last = LedgerRequest::Expired { placement, store, epoch, uncollected, totals };
        assert_eq!(s.ask_ledger(last).await, LedgerResponse::Done);
    }
    let after = s.status().await;
    assert_eq!((counted(&after.totals), after.batches.len()), (counted(&before), 1));
}

/// The parts of all stores together.
pub async fn a_status_tells_what_is_in_the_batches(objects: &impl Objects) {
    let s = Subject::new(objects, "batches", BatchMode::TimeInterval, 2, 0);
    let shard = |shard| StoreId { group: Group::Whole, shard };
    s.commit(shard(0), commit(1, vec![slice(window(0), &[1, 2]), slice(window(5), &[3])])).await;
    s.commit(shard(1), commit(1, vec![slice(window(5), &[4]), slice(window(7), &[5])])).await;
    let collect = s.collection(1, windows(0, 1), &[1, 2]);
    assert_eq!(s.open(&collect, &s.collect(&collect).await), 3);
    // The stores are told after the answer.
    for n in 0..1_000 {
        if s.status().await.batches.iter().any(|batch| batch.collected) {
            break;
        }
        assert!(n < 999, "no store was told of the decision");
        s.collect(&collect).await;
    }
    let seen: Vec<_> = s
        .status()
        .await
        .batches
        .into_iter()
        .map(|b| (b.bucket, b.report_count, b.collected, b.contested, b.frozen))
        .collect();
    let open = |n, count| (window(n), count, false, false, false);
    assert_eq!(seen, [open(5, 2), open(7, 1), (window(0), 2, true, false, false)]);
}
