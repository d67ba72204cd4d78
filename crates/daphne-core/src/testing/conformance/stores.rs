//! What a store, or a job store, answers by itself.

use super::*;

/// A job's recorded fate is repeated for ever, and another body under its id is a conflict (I4, I9).
pub async fn a_repeat_is_answered_from_the_row(objects: &impl Objects) {
    let s = Subject::new(objects, "repeat", BatchMode::TimeInterval, 1, 0);
    let mut first = commit(1, vec![slice(window(0), &[1, 2])]);
    first.refused = vec![(report(3), ReportError::ReportTooEarly)];
    let expected = Answer::Committed(first.refused.clone());
    assert_eq!(s.commit(ONLY, first.clone()).await, expected);
    // The same bytes later, when the clock says otherwise: what was recorded counts.
    let mut later = first.clone();
    later.refused.clear();
    later.slices = vec![slice(window(0), &[1, 2, 3])];
    assert_eq!(s.commit(ONLY, later.clone()).await, expected);
    let mut other_body = first.clone();
    other_body.digest = [99; 32];
    assert_eq!(s.commit(ONLY, other_body.clone()).await, Answer::Conflict);
    assert_eq!(s.freeze(ONLY, 1, windows(0, 1)).await, Answer::Frozen);
    assert_eq!(s.commit(ONLY, first.clone()).await, expected, "frozen");
    assert_eq!(s.commit(ONLY, other_body.clone()).await, Answer::Conflict, "frozen");
    assert_eq!(s.seal(ONLY, 1, windows(0, 1), vec![]).await, Answer::Done);
    assert_eq!(s.commit(ONLY, first).await, expected, "sealed");
    assert_eq!(s.commit(ONLY, other_body).await, Answer::Conflict, "sealed");
    let content = s.gather(ONLY, windows(0, 1)).await;
    assert_eq!((content.report_count, content.share), (2, 3u64.to_le_bytes().to_vec()));
    assert_eq!(s.ask(ONLY, StoreAction::KnowsJob(job(1))).await, Answer::Known(true));
    assert_eq!(s.ask(ONLY, StoreAction::KnowsJob(job(2))).await, Answer::Known(false));
}

/// A report is counted once, whichever job and whichever batch it comes back in (I1).
pub async fn a_replay_writes_nothing(objects: &impl Objects) {
    let s = Subject::new(objects, "replay", BatchMode::LeaderSelected, 1, 0);
    let (a, b) = (BatchId::new([1; 32]), BatchId::new([2; 32]));
    let first = commit(1, vec![slice(BatchBucket::Batch(a), &[1, 2])]);
    assert_eq!(s.commit(ONLY, first).await, Answer::Committed(vec![]));
    let again = commit(2, vec![slice(BatchBucket::Batch(b), &[2, 3, 1])]);
    let replayed = soft(&[(1, 1), (2, 1)]);
    assert_eq!(s.commit(ONLY, again).await, replayed);
    assert_eq!(s.gather(ONLY, BucketRange::Batch(b)).await, Content::default());
    assert_eq!(s.ask(ONLY, StoreAction::KnowsJob(job(2))).await, Answer::Known(false));
    // What the Worker sends next: the replays refused, the rest committed. Refused ids are not remembered as taken.
    let mut rest = commit(2, vec![slice(BatchBucket::Batch(b), &[3])]);
    rest.refused =
        vec![(report(1), ReportError::ReportReplayed), (report(9), ReportError::ReportTooEarly)];
    assert_eq!(s.commit(ONLY, rest.clone()).await, Answer::Committed(rest.refused));
    let early = commit(3, vec![slice(BatchBucket::Batch(b), &[9])]);
    assert_eq!(s.commit(ONLY, early).await, Answer::Committed(vec![]));
    assert_eq!(s.gather(ONLY, BucketRange::Batch(a)).await.report_count, 2);
    assert_eq!(s.gather(ONLY, BucketRange::Batch(b)).await.report_count, 2);
}

/// Asking again does not wear a refusal down: a job with a replay is refused it each time, and recorded with it (I1, I4).
pub async fn a_replay_is_refused_on_every_attempt(objects: &impl Objects) {
    let s = Subject::new(objects, "persistence", BatchMode::LeaderSelected, 1, 0);
    let bucket = |n| BatchBucket::Batch(BatchId::new([n; 32]));
    s.commit(ONLY, commit(1, vec![slice(bucket(1), &[1, 2])])).await;
    let mut second = commit(2, vec![slice(bucket(2), &[2, 3])]);
    for _ in 0..3 {
        assert_eq!(s.commit(ONLY, second.clone()).await, soft(&[(2, 1)]));
    }
    second.slices = vec![slice(bucket(2), &[3])];
    second.refused = vec![(report(2), ReportError::ReportReplayed)];
    let recorded = Answer::Committed(second.refused.clone());
    assert_eq!(s.commit(ONLY, second.clone()).await, recorded);
    // The whole job again, as its Worker first sends it.
    second.slices = vec![slice(bucket(2), &[2, 3])];
    second.refused.clear();
    for _ in 0..3 {
        assert_eq!(s.commit(ONLY, second.clone()).await, recorded);
    }
    assert_eq!(s.gather(ONLY, BucketRange::Batch(BatchId::new([2; 32]))).await.report_count, 1);
    // The same reports under another id are the same reports.
    let copy = commit(3, vec![slice(bucket(1), &[1, 2])]);
    assert_eq!(s.commit(ONLY, copy).await, soft(&[(1, 1), (2, 1)]));
}

/// Frozen answers Busy, never "collected"; sealed answers "collected"; a thaw takes all of it back (I3, I5, I6).
pub async fn frozen_is_busy_and_sealed_is_collected(objects: &impl Objects) {
    let s = Subject::new(objects, "freeze", BatchMode::TimeInterval, 1, 0);
    s.commit(ONLY, commit(1, vec![slice(window(0), &[1]), slice(window(5), &[2])])).await;
    assert_eq!(s.freeze(ONLY, 4, windows(0, 2)).await, Answer::Frozen);
    assert_eq!(s.freeze(ONLY, 4, windows(0, 2)).await, Answer::Frozen, "again");
    assert_eq!(s.freeze(ONLY, 5, windows(5, 1)).await, Answer::Stale, "another attempt");
    let into = |n, bucket, r: u8| commit(n, vec![slice(window(bucket), &[r])]);
    assert_eq!(s.commit(ONLY, into(2, 1, 20)).await, Answer::Busy(4));
    assert_eq!(
        s.commit(ONLY, into(2, 9, 1)).await,
        Answer::Busy(4),
        "a replay of what is being decided"
    );
    assert_eq!(s.commit(ONLY, into(3, 2, 30)).await, Answer::Committed(vec![]), "elsewhere");
    assert_eq!(s.ask(ONLY, StoreAction::Thaw { attempt: 4 }).await, Answer::Done);
    assert_eq!(s.commit(ONLY, into(4, 1, 40)).await, Answer::Committed(vec![]));
    assert_eq!(
        s.freeze(ONLY, 4, windows(0, 2)).await,
        Answer::Stale,
        "a late message of a dead attempt"
    );
    assert_eq!(s.freeze(ONLY, 6, windows(0, 2)).await, Answer::Frozen);
    assert_eq!(s.ask(ONLY, StoreAction::Thaw { attempt: 4 }).await, Answer::Done, "late");
    assert_eq!(s.commit(ONLY, into(5, 1, 50)).await, Answer::Busy(6), "a late thaw frees nothing");
    assert_eq!(s.seal(ONLY, 6, windows(0, 2), vec![]).await, Answer::Done);
    assert_eq!(s.seal(ONLY, 6, windows(0, 2), vec![]).await, Answer::Done, "again");
    assert_eq!(s.commit(ONLY, into(5, 1, 50)).await, Answer::Collected(vec![report(50)]));
    assert_eq!(s.commit(ONLY, into(6, 5, 60)).await, Answer::Committed(vec![]));
    assert_eq!(s.gather(ONLY, windows(0, 2)).await.report_count, 2);
}

/// A freeze holds exactly what was gathered; traffic in other batches does not disturb it.
pub async fn a_freeze_is_of_what_was_gathered(objects: &impl Objects) {
    let s = Subject::new(objects, "version", BatchMode::TimeInterval, 1, 0);
    s.commit(ONLY, commit(1, vec![slice(window(0), &[1])])).await;
    let version = s.gather(ONLY, windows(0, 1)).await.version();
    s.commit(ONLY, commit(2, vec![slice(window(3), &[2])])).await;
    assert_eq!(s.freeze_at(ONLY, 1, windows(0, 1), version).await, Answer::Frozen);
    s.ask(ONLY, StoreAction::Thaw { attempt: 1 }).await;
    s.commit(ONLY, commit(3, vec![slice(window(0), &[3])])).await;
    assert_eq!(s.freeze_at(ONLY, 2, windows(0, 1), version).await, Answer::Moved);
}

/// A job left out of a collection gives up its slices inside the range, and nothing else.
pub async fn an_excluded_slice_frees_its_reports(objects: &impl Objects) {
    let s = Subject::new(objects, "exclude", BatchMode::TimeInterval, 1, 0);
    s.commit(ONLY, commit(1, vec![slice(window(0), &[1]), slice(window(5), &[2])])).await;
    s.commit(ONLY, commit(2, vec![slice(window(0), &[3])])).await;
    assert_eq!(s.seal(ONLY, 1, windows(0, 1), vec![job(1)]).await, Answer::Done);
    assert_eq!(s.gather(ONLY, windows(0, 1)).await.share, 3u64.to_le_bytes());
    assert_eq!(s.gather(ONLY, windows(5, 1)).await.share, 2u64.to_le_bytes());
    let again = commit(3, vec![slice(window(6), &[1, 2])]);
    assert_eq!(s.commit(ONLY, again).await, soft(&[(2, 1)]));
    let free = commit(3, vec![slice(window(6), &[1])]);
    assert_eq!(s.commit(ONLY, free).await, Answer::Committed(vec![]));
    // Whoever sends the job again hears what it heard at first, and nothing changes.
    let repeat = commit(1, vec![slice(window(0), &[1]), slice(window(5), &[2])]);
    assert_eq!(s.commit(ONLY, repeat).await, Answer::Committed(vec![]));
    assert_eq!(s.gather(ONLY, windows(0, 1)).await.report_count, 1);
}

/// A report of a job that the leader deleted may come again in another job; a collection decides which of the two
/// counts, and the store lets none decide for both (I1).
pub async fn a_deleted_jobs_report_is_readmitted(objects: &impl Objects) {
    let s = Subject::new(objects, "readmit", BatchMode::LeaderSelected, 1, 0);
    let (a, b) = (BatchId::new([1; 32]), BatchId::new([2; 32]));
    let (in_a, in_b) = (BatchBucket::Batch(a), BatchBucket::Batch(b));
    s.commit(ONLY, commit(1, vec![slice(in_a, &[1, 2])])).await;
    let mut second = commit(2, vec![slice(in_a, &[1, 3])]);
    assert_eq!(s.commit(ONLY, second.clone()).await, soft(&[(1, 1)]));
    second.readmit = vec![job(9)];
    assert_eq!(s.commit(ONLY, second.clone()).await, soft(&[(1, 1)]), "another job was deleted");
    second.readmit = vec![job(1)];
    assert_eq!(s.commit(ONLY, second.clone()).await, Answer::Committed(vec![]));
    let mut third = commit(3, vec![slice(in_b, &[2, 4])]);
    // The owner yields already: nobody is asked twice.
    assert_eq!(s.commit(ONLY, third.clone()).await, Answer::Committed(vec![]));
    third.digest = [99; 32];
    assert_eq!(s.commit(ONLY, third).await, Answer::Conflict);
    let fourth = commit(4, vec![slice(in_b, &[1])]);
    assert_eq!(s.commit(ONLY, fourth).await, soft(&[(1, 2)]), "who took it over owns it");
    let jobs = s.jobs(ONLY, BucketRange::Batch(a)).await;
    assert_eq!(jobs.conflicts, [(job(1), job(2))]);
    let yields: Vec<_> = jobs.jobs.iter().map(|j| (j.job, j.report_count, j.yields)).collect();
    assert_eq!(yields, [(job(2), 2, false), (job(1), 2, true)], "newest first");
    // Both at once: a report would count twice.
    assert_eq!(s.freeze(ONLY, 1, BucketRange::Batch(a)).await, Answer::Moved);
    // While it is being decided, neither answer is true.
    let exclude = vec![job(1)];
    let gather = StoreAction::Gather {
        range: BucketRange::Batch(a),
        param: vec![],
        exclude: exclude.clone(),
    };
    let Answer::Gathered { content, contested, .. } = s.ask(ONLY, gather).await else {
        panic!("no content")
    };
    assert_eq!((content.report_count, contested), (2, false));
    let freeze = StoreAction::Freeze {
        attempt: 2,
        range: BucketRange::Batch(a),
        counts: BucketRange::Batch(a),
        param: vec![],
        exclude: exclude.clone(),
        version: content.version(),
    };
    assert_eq!(s.ask(ONLY, freeze).await, Answer::Frozen);
    let fifth = commit(5, vec![slice(in_b, &[2])]);
    assert_eq!(s.commit(ONLY, fifth).await, Answer::Busy(2));
    assert_eq!(s.seal(ONLY, 2, BucketRange::Batch(a), exclude).await, Answer::Done);
    let sixth = commit(6, vec![slice(in_b, &[1, 2, 3])]);
    let replayed =
        Answer::Replayed { soft: vec![(report(2), job(3))], hard: vec![report(1), report(3)] };
    assert_eq!(s.commit(ONLY, sixth).await, replayed);
    assert_eq!(s.gather(ONLY, BucketRange::Batch(b)).await.report_count, 2);
}

/// A kept slice that had yielded takes its reports back from the jobs that took them over, in whatever batch (I1).
pub async fn what_a_collection_keeps_is_taken_from_all_others(objects: &impl Objects) {
    let s = Subject::new(objects, "taken back", BatchMode::LeaderSelected, 1, 0);
    let (a, b) = (BatchId::new([1; 32]), BatchId::new([2; 32]));
    s.commit(ONLY, commit(1, vec![slice(BatchBucket::Batch(a), &[1, 2])])).await;
    let mut second = commit(2, vec![slice(BatchBucket::Batch(b), &[2, 3])]);
    second.readmit = vec![job(1)];
    assert_eq!(s.commit(ONLY, second).await, Answer::Committed(vec![]));
    s.commit(ONLY, commit(3, vec![slice(BatchBucket::Batch(b), &[4])])).await;
    assert_eq!(s.freeze(ONLY, 1, BucketRange::Batch(a)).await, Answer::Frozen);
    assert_eq!(s.seal(ONLY, 1, BucketRange::Batch(a), vec![]).await, Answer::Done);
    assert_eq!(s.gather(ONLY, BucketRange::Batch(b)).await.share, 4u64.to_le_bytes());
    // What only the excluded slice held is free, what it shared is not.
    let mut again = commit(4, vec![slice(BatchBucket::Batch(b), &[2, 3])]);
    assert_eq!(s.commit(ONLY, again.clone()).await, hard(&[2]));
    again.slices = vec![slice(BatchBucket::Batch(b), &[3])];
    assert_eq!(s.commit(ONLY, again).await, Answer::Committed(vec![]));
    // And once it is taken, it is taken.
    let fifth = commit(5, vec![slice(BatchBucket::Batch(b), &[3])]);
    assert_eq!(s.commit(ONLY, fifth).await, soft(&[(3, 4)]));
    // The other way round: the successor is kept, the yielding slice elsewhere gives way.
    let (c, d) = (BatchId::new([3; 32]), BatchId::new([4; 32]));
    s.commit(ONLY, commit(6, vec![slice(BatchBucket::Batch(c), &[11, 12])])).await;
    let mut seventh = commit(7, vec![slice(BatchBucket::Batch(d), &[12])]);
    seventh.readmit = vec![job(6)];
    assert_eq!(s.commit(ONLY, seventh).await, Answer::Committed(vec![]));
    assert_eq!(s.freeze(ONLY, 2, BucketRange::Batch(d)).await, Answer::Frozen);
    assert_eq!(s.seal(ONLY, 2, BucketRange::Batch(d), vec![]).await, Answer::Done);
    assert_eq!(s.gather(ONLY, BucketRange::Batch(c)).await.report_count, 0);
    let eighth = commit(8, vec![slice(BatchBucket::Batch(c), &[11, 12])]);
    assert_eq!(s.commit(ONLY, eighth).await, hard(&[12]));
}

/// A store with other frozen numbers than the sender's refuses: a wrong shard count must not become a new shard.
pub async fn a_wrong_placement_is_refused(objects: &impl Objects) {
    let mut s = Subject::new(objects, "placement", BatchMode::TimeInterval, 2, 0);
    s.commit(ONLY, commit(1, vec![slice(window(0), &[1])])).await;
    s.placement.shards = 3;
    let c = commit(2, vec![slice(window(0), &[2])]);
    assert_eq!(s.commit(ONLY, c).await, Answer::WrongPlacement);
}

/// A job id is bound to the first body it is seen with.
pub async fn a_claim_binds_one_body(objects: &impl Objects) {
    let s = Subject::new(objects, "claim", BatchMode::TimeInterval, 1, 10);
    let ask = |request| async {
        objects.job_store(&s.placement, 0, request).await.expect("the job store answers")
    };
    let unasked = vec![(report(9), ReportError::ReportTooEarly)];
    let claim = |digest, unasked: &[_]| JobStoreRequest::Claim {
        placement: s.placement,
        job: job(1),
        digest: [digest; 32],
        unasked: unasked.to_vec(),
    };
    assert_eq!(ask(JobStoreRequest::Knows(job(1))).await, JobStoreResponse::Known(false));
    let claimed = JobStoreResponse::Claimed(unasked.clone());
    assert_eq!(ask(claim(1, &unasked)).await, claimed);
    // Later, when no report is far off any more: what was recorded counts.
    assert_eq!(ask(claim(1, &[])).await, claimed);
    assert_eq!(ask(claim(2, &unasked)).await, JobStoreResponse::Conflict);
    assert_eq!(ask(JobStoreRequest::Knows(job(1))).await, JobStoreResponse::Known(true));
}

/// Shares larger than a database row are kept whole.
pub async fn large_shares_are_kept_whole(objects: &impl Objects) {
    let s = Subject::new(objects, "large", BatchMode::TimeInterval, 1, 0);
    let elements = 190_000u64;
    let share: Vec<u8> = (0..elements).flat_map(u64::to_le_bytes).collect();
    let large =
        |n: u64, reports: &[u8]| Slice { share: share.clone(), ..slice(window(n), reports) };
    let c = commit(1, vec![large(0, &[1]), large(1, &[2])]);
    assert_eq!(s.commit(ONLY, c).await, Answer::Committed(vec![]));
    let content = s.gather(ONLY, windows(0, 2)).await;
    let doubled: Vec<u8> = (0..elements).flat_map(|n| (2 * n).to_le_bytes()).collect();
    assert!(content.share == doubled);
    assert!(s.gather(ONLY, windows(1, 1)).await.share == share);
}
