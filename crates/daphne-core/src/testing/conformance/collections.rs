//! What a ledger and its stores do together.

use super::*;

/// A batch whose reports all fell to some of the shards is as good as any.
pub async fn a_batch_need_not_fill_all_shards(objects: &impl Objects) {
    let s = Subject::new(objects, "shards", BatchMode::LeaderSelected, 4, 0);
    let batch = BatchId::new([1; 32]);
    let store = StoreId { group: Group::Whole, shard: 2 };
    s.commit(store, commit(1, vec![slice(BatchBucket::Batch(batch), &[5, 6])])).await;
    let collect = s.collection(1, BucketRange::Batch(batch), &[5, 6]);
    let answer = s.collect(&collect).await;
    assert_eq!(s.open(&collect, &answer), 11);
    // It is closed in all of them.
    let late = commit(2, vec![slice(BatchBucket::Batch(batch), &[7])]);
    assert_eq!(s.commit(ONLY, late).await, Answer::Collected(vec![report(7)]));
}

/// The leader's count and checksum choose the jobs: an abandoned one is left out, whether or not its deletion
/// arrived; a deleted one that was finished is kept.
pub async fn the_leaders_checksum_chooses_the_jobs(objects: &impl Objects) {
    for (n, delete_abandoned) in [(0, false), (1, true)] {
        let case = format!("choice {n}");
        let s = Subject::new(objects, &case, BatchMode::TimeInterval, 2, 0);
        let other = StoreId { group: Group::Whole, shard: 1 };
        for (number, here, there) in [(1u8, 10u8, 15u8), (2, 20, 25), (3, 30, 35)] {
            let c = commit(number, vec![slice(window(0), &[here, here + 1])]);
            s.commit(ONLY, c).await;
            let c =
                commit(number, vec![slice(window(0), &[there]), slice(window(3), &[there + 1])]);
            s.commit(other, c).await;
        }
        s.release(1).await; // Finished, and tidied up.
        if delete_abandoned {
            s.release(2).await;
        }
        let mut small = s.collection(1, windows(0, 1), &[10, 11, 15]);
        small.min_batch_size = 4;
        assert_eq!(refused(&s.collect(&small).await), AbortKind::InvalidBatchSize, "what is kept");
        let odd = s.collection(2, windows(0, 1), &[10, 11, 15, 30, 31]);
        assert_eq!(refused(&s.collect(&odd).await), AbortKind::BatchMismatch, "half a job");
        let right = s.collection(3, windows(0, 1), &[10, 11, 15, 30, 31, 35]);
        let answer = s.collect(&right).await;
        assert_eq!(s.open(&right, &answer), 132);
        assert_eq!(s.collect(&right).await, answer);
        // Left out in this batch, the job's slice in another is untouched, and its reports are free here.
        let rest = s.collection(4, windows(3, 1), &[16, 26, 36]);
        let answer = s.collect(&rest).await;
        assert_eq!(s.open(&rest, &answer), 78);
        let again = commit(4, vec![slice(window(7), &[20, 21])]);
        assert_eq!(s.commit(ONLY, again).await, Answer::Committed(vec![]));
    }
}

/// A job that was given up, and whose reports came again in another job of the same batch, is left out although the
/// sums alone cannot tell the two apart.
pub async fn equal_jobs_count_once(objects: &impl Objects) {
    let s = Subject::new(objects, "equal", BatchMode::TimeInterval, 1, 0);
    s.commit(ONLY, commit(1, vec![slice(window(0), &[1, 2])])).await;
    s.release(1).await;
    let mut second = commit(2, vec![slice(window(0), &[1, 2])]);
    second.readmit = vec![job(1)];
    assert_eq!(s.commit(ONLY, second).await, Answer::Committed(vec![]));
    let twice = s.collection(1, windows(0, 1), &[1, 2, 1, 2]);
    assert_eq!(refused(&s.collect(&twice).await), AbortKind::BatchMismatch);
    let once = s.collection(2, windows(0, 1), &[1, 2]);
    let answer = s.collect(&once).await;
    assert_eq!(s.open(&once, &answer), 3);
    let third = commit(3, vec![slice(window(1), &[1])]);
    assert_eq!(s.commit(ONLY, third).await, hard(&[1]));
}

/// Which jobs were deleted, as far as the ledger was told.
pub async fn the_ledger_knows_deleted_jobs(objects: &impl Objects) {
    let s = Subject::new(objects, "released", BatchMode::TimeInterval, 1, 0);
    let ask = LedgerRequest::Released(vec![job(1), job(2), job(3)]);
    assert_eq!(s.ask_ledger(ask.clone()).await, LedgerResponse::Released(vec![]));
    s.release(3).await;
    s.release(1).await;
    s.release(1).await;
    assert_eq!(s.ask_ledger(ask).await, LedgerResponse::Released(vec![job(1), job(3)]));
    let many = LedgerRequest::Released((0..=255).map(job).collect());
    assert_eq!(s.ask_ledger(many).await, LedgerResponse::Released(vec![job(1), job(3)]));
}

/// A batch collected under one aggregation parameter takes, under another, only the reports it had. DAP-09 §4.5.1.4.
pub async fn a_second_parameter_takes_the_same_reports(objects: &impl Objects) {
    let s = Subject::new(objects, "parameters", BatchMode::TimeInterval, 1, 0);
    let under = |number: u8, param: u8, reports: &[u8]| Commit {
        param: vec![param],
        ..commit(number, vec![slice(window(0), reports)])
    };
    let collect = |request: u8, param: u8, reports: &[u8], n: u64| Collect {
        param: vec![param],
        max_batch_query_count: 2,
        ..s.collection(request, windows(0, n), reports)
    };
    assert_eq!(s.commit(ONLY, under(1, 7, &[1, 2, 3])).await, Answer::Committed(vec![]));
    assert_eq!(s.commit(ONLY, under(2, 8, &[1, 2])).await, Answer::Committed(vec![]));
    assert_eq!(s.commit(ONLY, under(3, 7, &[1])).await, soft(&[(1, 1)]));
    let first = collect(1, 7, &[1, 2, 3], 1);
    let answer = s.collect(&first).await;
    assert_eq!(s.open(&first, &answer), 6);
    assert_eq!(s.commit(ONLY, under(4, 7, &[4])).await, Answer::Collected(vec![report(4)]));
    assert_eq!(s.commit(ONLY, under(5, 8, &[3, 4])).await, Answer::Collected(vec![report(4)]));
    assert_eq!(s.commit(ONLY, under(5, 8, &[3])).await, Answer::Committed(vec![]));
    let wider = collect(2, 8, &[1, 2, 3], 2);
    assert_eq!(refused(&s.collect(&wider).await), AbortKind::BatchOverlap);
    let other_sum = collect(3, 7, &[1, 2], 1);
    assert_eq!(refused(&s.collect(&other_sum).await), AbortKind::BatchMismatch);
    let second = collect(4, 8, &[1, 2, 3], 1);
    let answer = s.collect(&second).await;
    assert_eq!(s.open(&second, &answer), 6);
    assert_eq!(s.collect(&second).await, answer, "a repeat counts no query");
    let third = collect(5, 9, &[1, 2], 1);
    assert_eq!(refused(&s.collect(&third).await), AbortKind::BatchQueriedTooManyTimes);
}

/// A task that is gone leaves nothing.
pub async fn a_purged_task_is_forgotten(objects: &impl Objects) {
    for (n, buckets) in [(0u8, 0), (1, 10)] {
        let case = format!("purge {n}");
        let s = Subject::new(objects, &case, BatchMode::TimeInterval, 2, buckets);
        let group = if buckets == 0 { Group::Whole } else { Group::Run(0) };
        let store = StoreId { group, shard: 1 };
        if buckets != 0 {
            s.open_store(store).await;
        }
        s.commit(store, commit(1, vec![slice(window(0), &[1, 2])])).await;
        let collect = s.collection(1, windows(0, 1), &[1, 2]);
        let answer = s.collect(&collect).await;
        assert_eq!(s.open(&collect, &answer), 3);
        let purge = |again| LedgerRequest::Purge { placement: s.placement, field: FIELD, again };
        // Workers may know the task for a while: what they bring back is not given out again.
        assert_eq!(s.ask_ledger(purge(true)).await, LedgerResponse::Done);
        if buckets == 0 {
            s.commit(store, commit(1, vec![slice(window(0), &[1, 2])])).await;
        }
        let again = s.collection(2, windows(0, 1), &[1, 2]);
        let request = LedgerRequest::Collect(Box::new(again));
        if let Ok(answer) = objects.ledger(&s.placement.task_id, request).await {
            assert_eq!(answer, LedgerResponse::Busy);
        }
        let purge = purge(false);
        assert_eq!(s.ask_ledger(purge.clone()).await, LedgerResponse::Done);
        assert_eq!(s.ask_ledger(purge).await, LedgerResponse::Done, "again");
        let known = StoreAction::KnowsJob(job(1));
        assert_eq!(s.ask(store, known).await, Answer::Known(false));
        assert_eq!(s.status().await, Default::default());
    }
}

/// A store of a time group takes commits only once the ledger knows it, and is born knowing what was collected
/// without it (I8).
pub async fn a_store_is_registered_before_its_first_commit(objects: &impl Objects) {
    let s = Subject::new(objects, "birth", BatchMode::TimeInterval, 2, 10);
    let at = |shard| StoreId { group: Group::Run(0), shard };
    let mut c = commit(1, vec![slice(window(0), &[1, 2])]);
    c.open = None;
    assert_eq!(s.commit(at(0), c.clone()).await, Answer::NotOpen);
    c.open = Some(s.open_store(at(0)).await);
    assert_eq!(s.commit(at(0), c).await, Answer::Committed(vec![]));
    let collect = s.collection(1, windows(0, 2), &[1, 2]);
    let answer = s.collect(&collect).await;
    assert_eq!(s.open(&collect, &answer), 3);
    // The second shard is born after the decision.
    let mut late = commit(2, vec![slice(window(1), &[3]), slice(window(2), &[4])]);
    late.open = Some(s.open_store(at(1)).await);
    assert_eq!(s.commit(at(1), late.clone()).await, Answer::Collected(vec![report(3)]));
    late.slices = vec![slice(window(2), &[4])];
    late.refused = vec![(report(3), ReportError::BatchCollected)];
    assert_eq!(s.commit(at(1), late.clone()).await, Answer::Committed(late.refused));
    // Another group is asked nothing about this one.
    assert_eq!(s.open_store(StoreId { group: Group::Run(1), shard: 0 }).await, vec![]);
}

/// A wrong count or checksum is refused and changes nothing; the right request then succeeds, and its answer is
/// repeated byte for byte (I2, I7).
pub async fn a_wrong_request_burns_nothing(objects: &impl Objects) {
    let s = Subject::new(objects, "mismatch", BatchMode::LeaderSelected, 3, 0);
    let batch = BatchId::new([7; 32]);
    let range = BucketRange::Batch(batch);
    for shard in 0..3u8 {
        let store = StoreId { group: Group::Whole, shard: shard.into() };
        let mine = [10 * shard + 1, 10 * shard + 2];
        let c = commit(1, vec![slice(BatchBucket::Batch(batch), &mine)]);
        assert_eq!(s.commit(store, c).await, Answer::Committed(vec![]));
    }
    let all = [1, 2, 11, 12, 21, 22];
    let right = s.collection(1, range, &all);
    let mut count = s.collection(2, range, &all);
    count.report_count += 1;
    assert_eq!(refused(&s.collect(&count).await), AbortKind::BatchMismatch);
    count.report_count = u64::MAX;
    assert_eq!(refused(&s.collect(&count).await), AbortKind::BatchMismatch);
    assert_eq!(
        refused(&s.collect(&s.collection(3, range, &[1, 2, 11, 12, 21, 23])).await),
        AbortKind::BatchMismatch
    );
    let mut size = s.collection(4, range, &all);
    size.min_batch_size = 7;
    assert_eq!(refused(&s.collect(&size).await), AbortKind::InvalidBatchSize);
    size.min_batch_size = 2;
    size.max_batch_size = Some(5);
    assert_eq!(refused(&s.collect(&size).await), AbortKind::InvalidBatchSize);
    let unknown = s.collection(5, BucketRange::Batch(BatchId::new([8; 32])), &all);
    assert_eq!(refused(&s.collect(&unknown).await), AbortKind::BatchInvalid);
    // Nothing of that stopped a commit.
    let more = commit(2, vec![slice(BatchBucket::Batch(BatchId::new([9; 32])), &[50])]);
    assert_eq!(s.commit(ONLY, more).await, Answer::Committed(vec![]));
    let answer = s.collect(&right).await;
    assert_eq!(s.open(&right, &answer), 69);
    assert_eq!(s.collect(&right).await, answer, "the same request, the same bytes");
    assert_eq!(
        refused(&s.collect(&s.collection(6, range, &[1, 2])).await),
        AbortKind::BatchMismatch
    );
    let late = commit(3, vec![slice(BatchBucket::Batch(batch), &[60])]);
    assert_eq!(s.commit(ONLY, late).await, Answer::Collected(vec![report(60)]));
}

/// Overlapping and unequal intervals are refused; disjoint ones are not. DAP-09 §4.6.5.
pub async fn overlapping_intervals_are_refused(objects: &impl Objects) {
    let s = Subject::new(objects, "overlap", BatchMode::TimeInterval, 2, 0);
    for n in 0..4u8 {
        let c = commit(n, vec![slice(window(n.into()), &[2 * n, 2 * n + 1])]);
        s.commit(ONLY, c).await;
    }
    let first = s.collection(1, windows(1, 2), &[2, 3, 4, 5]);
    let answer = s.collect(&first).await;
    assert_eq!(s.open(&first, &answer), 14);
    for (n, count, reports) in
        [(0, 2, vec![0, 1]), (1, 1, vec![2, 3]), (0, 4, vec![0]), (2, 2, vec![6])]
    {
        let overlapping = s.collection(10 + n as u8, windows(n, count), &reports);
        assert_eq!(refused(&s.collect(&overlapping).await), AbortKind::BatchOverlap, "{n} {count}");
    }
    let next = s.collection(3, windows(3, 1), &[6, 7]);
    let answer = s.collect(&next).await;
    assert_eq!(s.open(&next, &answer), 13);
    let before = s.collection(4, windows(0, 1), &[0, 1]);
    let answer = s.collect(&before).await;
    assert_eq!(s.open(&before, &answer), 1);
}

/// Deleting a job is recorded and undoes nothing.
pub async fn deleting_a_job_keeps_its_reports(objects: &impl Objects) {
    let s = Subject::new(objects, "delete", BatchMode::TimeInterval, 1, 0);
    s.commit(ONLY, commit(1, vec![slice(window(0), &[1, 2])])).await;
    let release = LedgerRequest::Release { placement: s.placement, job: job(1) };
    assert_eq!(s.ask_ledger(release.clone()).await, LedgerResponse::Done);
    assert_eq!(s.ask_ledger(release).await, LedgerResponse::Done, "again");
    let collect = s.collection(1, windows(0, 1), &[1, 2]);
    let answer = s.collect(&collect).await;
    assert_eq!(s.open(&collect, &answer), 3);
}

/// Settling an attempt that the ledger never began must not fence off its future attempts.
pub async fn settling_a_future_attempt_is_ignored(objects: &impl Objects) {
    let s = Subject::new(objects, "settle", BatchMode::TimeInterval, 1, 0);
    s.commit(ONLY, commit(1, vec![slice(window(0), &[1, 2])])).await;
    let settle = |attempt| LedgerRequest::Settle {
        placement: s.placement,
        field: FIELD,
        store: ONLY,
        attempt,
    };
    assert_eq!(s.ask_ledger(settle(u64::MAX)).await, LedgerResponse::Done);
    let collect = s.collection(1, windows(0, 1), &[1, 2]);
    let answer = s.collect(&collect).await;
    assert_eq!(s.open(&collect, &answer), 3);
    assert_eq!(s.ask_ledger(settle(1)).await, LedgerResponse::Done);
    assert_eq!(s.gather(ONLY, windows(0, 1)).await.report_count, 2);
}
