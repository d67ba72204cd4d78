//! Batches that are collected once, whatever for, and of which the leader may leave buckets out: DAP-18 §4.6.4.

use super::*;

/// The part of a range that does not count is given up with it: nobody adds to it or collects it later.
pub async fn what_is_left_out_of_a_range_is_given_up(objects: &impl Objects) {
    let s = Subject::new(objects, "left out", BatchMode::TimeInterval, 1, 0);
    let once = |c: Commit| Commit { once: true, ..c };
    let slices = vec![slice(window(0), &[1, 2]), slice(window(1), &[3, 4])];
    assert_eq!(s.commit(ONLY, once(commit(1, slices))).await, Answer::Committed(vec![]));
    let part = |request, reports: &[u8]| Collect {
        counts: windows(0, 1),
        once: true,
        ..s.collection(request, windows(0, 2), reports)
    };
    // The count is of what counts.
    let all = part(1, &[1, 2, 3, 4]);
    assert_eq!(refused(&s.collect(&all).await), AbortKind::BatchMismatch);
    let right = part(2, &[1, 2]);
    let answer = s.collect(&right).await;
    assert_eq!(s.open(&right, &answer), 3);
    assert_eq!(s.collect(&right).await, answer);
    // Reports that come to the rest are late, and what was there is in no batch.
    let late = once(commit(2, vec![slice(window(1), &[5])]));
    assert_eq!(s.commit(ONLY, late).await, Answer::Collected(vec![report(5)]));
    assert_eq!(s.gather(ONLY, windows(0, 2)).await.report_count, 2);
    let rest = Collect { once: true, ..s.collection(3, windows(1, 1), &[3, 4]) };
    assert_eq!(refused(&s.collect(&rest).await), AbortKind::BatchOverlap);
    // Beside the range all is as before.
    let beside = once(commit(3, vec![slice(window(2), &[6, 7])]));
    assert_eq!(s.commit(ONLY, beside).await, Answer::Committed(vec![]));
    let next = Collect { once: true, ..s.collection(4, windows(2, 1), &[6, 7]) };
    let answer = s.collect(&next).await;
    assert_eq!(s.open(&next, &answer), 13);
}

/// A freeze is of what counts: what comes to the rest of the range meanwhile does not disturb it, and is held like it.
pub async fn a_freeze_holds_the_whole_range_and_looks_at_what_counts(objects: &impl Objects) {
    let s = Subject::new(objects, "part frozen", BatchMode::TimeInterval, 1, 0);
    s.commit(ONLY, commit(1, vec![slice(window(0), &[1, 2])])).await;
    let version = s.gather(ONLY, windows(0, 1)).await.version();
    s.commit(ONLY, commit(2, vec![slice(window(1), &[3])])).await;
    let freeze = |attempt, version| StoreAction::Freeze {
        attempt,
        range: windows(0, 2),
        counts: windows(0, 1),
        param: Vec::new(),
        exclude: Vec::new(),
        version,
    };
    assert_eq!(s.ask(ONLY, freeze(1, [0; 32])).await, Answer::Moved);
    assert_eq!(s.ask(ONLY, freeze(2, version)).await, Answer::Frozen);
    let into_the_rest = commit(3, vec![slice(window(1), &[4])]);
    assert_eq!(s.commit(ONLY, into_the_rest.clone()).await, Answer::Busy(2));
    assert_eq!(s.ask(ONLY, StoreAction::Thaw { attempt: 2 }).await, Answer::Done);
    assert_eq!(s.commit(ONLY, into_the_rest).await, Answer::Committed(vec![]));
}

/// One collection a batch, and it is for the parameter that its reports were aggregated with.
pub async fn a_batch_is_collected_once_whatever_for(objects: &impl Objects) {
    let s = Subject::new(objects, "once", BatchMode::TimeInterval, 1, 0);
    let under = |number: u8, param: u8, reports: &[u8]| Commit {
        param: vec![param],
        once: true,
        ..commit(number, vec![slice(window(0), reports)])
    };
    let collect = |request: u8, param: u8, reports: &[u8]| Collect {
        param: vec![param],
        once: true,
        ..s.collection(request, windows(0, 1), reports)
    };
    assert_eq!(s.commit(ONLY, under(1, 7, &[1, 2, 3])).await, Answer::Committed(vec![]));
    assert_eq!(refused(&s.collect(&collect(1, 8, &[1, 2, 3])).await), AbortKind::InvalidMessage);
    let first = collect(2, 7, &[1, 2, 3]);
    let answer = s.collect(&first).await;
    assert_eq!(s.open(&first, &answer), 6);
    for (request, param) in [(3, 8), (4, 7)] {
        let again = collect(request, param, &[1, 2, 3]);
        assert_eq!(refused(&s.collect(&again).await), AbortKind::BatchOverlap);
    }
    for param in [7, 8] {
        let late = under(2, param, &[4]);
        assert_eq!(s.commit(ONLY, late).await, Answer::Collected(vec![report(4)]));
    }
    assert_eq!(s.collect(&first).await, answer);
}

/// An answer is told again until it is deleted; that its batch was collected is not forgotten with it.
pub async fn an_answer_is_kept_until_it_is_deleted(objects: &impl Objects) {
    let s = Subject::new(objects, "answer", BatchMode::TimeInterval, 1, 0);
    let collect = Collect { once: true, ..s.collection(1, windows(0, 1), &[1, 2]) };
    let ask = LedgerRequest::Answer(collect.digest);
    assert_eq!(s.ask_ledger(ask.clone()).await, LedgerResponse::Unknown);
    s.commit(ONLY, commit(1, vec![slice(window(0), &[1, 2])])).await;
    let answer = s.collect(&collect).await;
    assert_eq!(s.open(&collect, &answer), 3);
    assert_eq!(s.ask_ledger(ask.clone()).await, answer);
    for _ in 0..2 {
        let forget = LedgerRequest::ForgetAnswer(collect.digest);
        assert_eq!(s.ask_ledger(forget).await, LedgerResponse::Done);
        assert_eq!(s.ask_ledger(ask.clone()).await, LedgerResponse::Unknown);
    }
    assert_eq!(refused(&s.collect(&collect).await), AbortKind::BatchOverlap);
    let late = commit(2, vec![slice(window(0), &[3])]);
    assert_eq!(s.commit(ONLY, late).await, Answer::Collected(vec![report(3)]));
}
