use super::*;
use crate::{
    batch::BatchMode,
    error::AbortKind,
    hpke::{HpkeKem, HpkeKeypair},
    ids::{BatchId, HpkeConfigId, TaskId},
    metrics::Resource,
    time::{Duration, Interval},
};

fn placement() -> Placement {
    Placement {
        task_id: TaskId::new([1; 32]),
        batch_mode: BatchMode::TimeInterval,
        time_precision: Duration::from_seconds(300),
        shards: 2,
        buckets_per_group: 288,
        shard_key_version: 1,
        retention: Duration::from_seconds(1_209_600),
    }
}

fn interval() -> BucketRange {
    let (start, length) = (Time::from_seconds(600), Duration::from_seconds(300));
    BucketRange::Windows(Interval::new(start, length).unwrap())
}

fn survives<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(message: T) {
    let bytes = encode(&message).unwrap();
    assert_eq!(decode::<T>(&bytes), Ok(message));
    for cut in 0..bytes.len() {
        assert!(decode::<T>(&bytes[..cut]).is_err(), "cut at {cut}");
    }
    assert_eq!(decode::<T>(&[&bytes[..], &[0]].concat()), Err(MessageError), "trailing");
    let other_version = [&[MESSAGE_VERSION + 1], &bytes[1..]].concat();
    assert_eq!(decode::<T>(&other_version), Err(MessageError));
    let text = serde_json::to_string(&decode::<T>(&bytes).unwrap()).unwrap();
    assert_eq!(encode(&serde_json::from_str::<T>(&text).unwrap()).unwrap(), bytes, "{text}");
}

fn refusal() -> Refusal {
    Refusal {
        resource: Resource::AggregateShares,
        kind: AbortKind::BatchMismatch,
        detail: "why".to_owned(),
    }
}

fn totals() -> Totals {
    let mut totals = Totals::default();
    let failures = vec![(Failure::UnknownExtension(Some(0x1234)), 2), (Failure::Proof, 1)];
    totals.add(&Tally { accepted: 9, failures }, Time::from_seconds(24));
    totals.refuse(refusal(), Time::from_seconds(25));
    totals
}

fn batch() -> BatchTotals {
    BatchTotals {
        bucket: BatchBucket::Window(Time::from_seconds(600)),
        level: Some(3),
        param: [26; 32],
        report_count: 27,
        times: Some((Time::from_seconds(601), Time::from_seconds(899))),
        collected: false,
        frozen: true,
        contested: true,
    }
}

#[test]
fn lists_of_batches_are_cut_where_they_are_the_same_in_all_stores() {
    let of = |n: u64, report_count| BatchTotals {
        bucket: BatchBucket::Window(Time::from_seconds(n)),
        report_count,
        collected: n.is_multiple_of(2),
        ..batch()
    };
    let mut status = LedgerStatus::default();
    status.add_batches((0..150).map(|n| of(n, 1)).collect(), 0);
    let mut other = LedgerStatus::default();
    other.add_batches((100..1_000).map(|n| of(n, 2)).collect(), 0);
    status.merge(other);
    assert_eq!((status.batches.len(), status.more_batches > 0), (STATUS_BATCHES_MAX, true));
    assert!(status.batches.iter().all(|b| !b.collected));
    let seen: Vec<u64> = status.batches[49..52].iter().map(|b| b.report_count).collect();
    assert_eq!(seen, [1, 3, 3], "buckets 99, 101 and 103");
}

/// A deploy runs old and new code side by side. What is new stands behind what was, so that only who is asked something
/// new is at a loss, and says so.
#[test]
fn what_is_new_changes_nothing_that_was() {
    assert_eq!(encode(&StoreAction::Purge), Ok(vec![MESSAGE_VERSION, 8]));
    let begin = StoreAction::Begin(Begin { level: None, reports: vec![], open: None });
    assert_eq!(encode(&begin), Ok(vec![MESSAGE_VERSION, 9, 0, 0, 0]));
    assert_eq!(encode(&AggregateStoreResponse::Expired), Ok(vec![MESSAGE_VERSION, 15]));
    assert_eq!(encode(&AggregateStoreResponse::Begun(vec![])), Ok(vec![MESSAGE_VERSION, 16, 0]));
    let unheard_of = [&encode(&StoreAction::Purge).unwrap()[..1], &[10]].concat();
    assert_eq!(decode::<StoreAction>(&unheard_of), Err(MessageError));
}

#[test]
fn every_message_survives_its_encoding() {
    let job = AggregationJobId::new([3; 16]);
    let commit = Commit {
        job,
        digest: [4; 32],
        param: vec![],
        slices: vec![Slice {
            bucket: BatchBucket::Batch(BatchId::new([5; 32])),
            ids: vec![6; 32],
            checksum: Checksum::new([7; 32]),
            min_time: Time::from_seconds(8),
            max_time: Time::from_seconds(u64::MAX),
            share: vec![9; 16],
        }],
        refused: vec![(ReportId::new([10; 16]), ReportError::ReportTooEarly)],
        unrecorded: vec![(Failure::UnknownKey(Some(7)), 3), (Failure::Decryption, 1)],
        open: Some(vec![(interval(), vec![11])]),
        readmit: vec![job],
        once: true,
    };
    let (range, param, exclude) = (interval(), vec![1], vec![job]);
    let (attempt, version) = (1 << 60, [12; 32]);
    for action in [
        StoreAction::Commit(commit),
        StoreAction::Gather { range, param: param.clone(), exclude: exclude.clone() },
        StoreAction::GatherJobs { range, param: param.clone() },
        StoreAction::KnowsJob(job),
        StoreAction::Totals { batches: true },
        StoreAction::Purge,
        StoreAction::Freeze {
            attempt,
            range,
            counts: range,
            param: param.clone(),
            exclude: exclude.clone(),
            version,
        },
        StoreAction::Seal { attempt, range, counts: range, param, exclude },
        StoreAction::Thaw { attempt },
        StoreAction::Begin(Begin {
            level: Some(3),
            reports: vec![(ReportId::new([24; 16]), [25; 32])],
            open: Some(vec![(interval(), vec![26])]),
        }),
        StoreAction::Begin(Begin { level: None, reports: vec![], open: None }),
    ] {
        survives(AggregateStoreRequest {
            placement: placement(),
            store: StoreId { group: Group::Run(3), shard: 1 },
            field: FieldKind::F128,
            action,
        });
    }
    let ids = vec![ReportId::new([13; 16])];
    for answer in [
        AggregateStoreResponse::Committed(vec![(ids[0], ReportError::BatchCollected)]),
        AggregateStoreResponse::Busy(u64::MAX),
        AggregateStoreResponse::Replayed { soft: vec![(ids[0], job)], hard: ids.clone() },
        AggregateStoreResponse::Collected(ids.clone()),
        AggregateStoreResponse::Gathered {
            content: Content { report_count: 1, ..Content::default() },
            contested: true,
            others: true,
        },
        AggregateStoreResponse::Jobs(JobsInRange {
            packed_count: 1,
            packed_checksum: Checksum::new([21; 32]),
            jobs: vec![JobInRange {
                job,
                report_count: 2,
                checksum: Checksum::new([22; 32]),
                fingerprint_sum: u64::MAX,
                yields: true,
            }],
            conflicts: vec![(job, job)],
        }),
        AggregateStoreResponse::Totals(Box::new(StoreTotals {
            totals: totals(),
            batches: vec![batch()],
            more: 4,
        })),
        AggregateStoreResponse::Expired,
        AggregateStoreResponse::Begun(ids.clone()),
        AggregateStoreResponse::Done,
    ] {
        survives(answer);
    }
    let unasked = vec![(ids[0], ReportError::ReportTooEarly)];
    survives(JobStoreResponse::Claimed(unasked.clone()));
    survives(JobStoreRequest::Claim { placement: placement(), job, digest: [14; 32], unasked });
    survives(JobStoreResponse::Known(true));
    for request in [
        DeferredRequest::Poll { job, asked: Asked::Step(1) },
        DeferredRequest::Poll { job, asked: Asked::Body([24; 32]) },
        DeferredRequest::Begin {
            placement: placement(),
            job,
            digest: [24; 32],
            has_rounds: true,
            piece_len: 25,
            pieces: 26,
            body: vec![27; 28],
        },
        DeferredRequest::Continue {
            job,
            step: 1,
            digest: [29; 32],
            reports: ids.clone(),
            body: vec![30; 31],
        },
    ] {
        survives(JobStoreRequest::Deferred(request));
    }
    for state in [
        DeferredState::Pending { step: 1 },
        DeferredState::Ready { answers: vec![EncodedAnswer(vec![32; 33]), EncodedAnswer(vec![])] },
        DeferredState::Failed(DeferredFailure::Abort(Abort::invalid_message("why"))),
        DeferredState::Failed(DeferredFailure::Unavailable),
        DeferredState::Failed(DeferredFailure::Broken),
    ] {
        survives(JobStoreResponse::Deferred(state));
    }
    survives(JobStoreResponse::IsDeferred);
    survives(JobStoreResponse::Forgotten { pieces: 34 });
    let keys = HpkeKeypair::derive(HpkeConfigId(1), HpkeKem::P256HkdfSha256, &[1; 32]).unwrap();
    let collect = Collect {
        digest: [15; 32],
        placement: placement(),
        field: FieldKind::F64,
        range: interval(),
        counts: interval(),
        once: true,
        param: vec![],
        report_count: u64::MAX,
        checksum: Checksum::new([16; 32]),
        min_batch_size: 2,
        max_batch_size: Some(3),
        max_batch_query_count: 1,
        collector_hpke_config: keys.config().clone(),
        hpke_info: vec![17; 20],
        hpke_aad: vec![18; 100],
    };
    survives(LedgerRequest::Collect(Box::new(collect)));
    survives(LedgerRequest::Release { placement: placement(), job });
    survives(LedgerRequest::ReleasePieces { placement: placement(), pieces: vec![job, job] });
    let store = StoreId { group: Group::Whole, shard: 2 };
    survives(LedgerRequest::Expired {
        placement: placement(),
        store,
        epoch: 19,
        uncollected: 20,
        totals: Box::new(totals()),
    });
    let tally = Tally { accepted: 0, failures: vec![(Failure::TooEarly, 2)] };
    survives(LedgerRequest::Note { placement: placement(), job, digest: [23; 32], tally });
    survives(LedgerRequest::Refused(Box::new(refusal())));
    let (placement, field) = (placement(), FieldKind::F64);
    survives(LedgerRequest::Status { placement, field, batches: true, after: Some(store) });
    survives(LedgerResponse::Status(Box::new(LedgerStatus {
        collections: 1,
        totals: totals(),
        batches: vec![batch()],
        next: Some(store),
        ..Default::default()
    })));
    survives(LedgerResponse::Released(vec![job]));
    survives(LedgerResponse::Share(vec![20; 60]));
    survives(LedgerResponse::Opened(vec![(interval(), vec![])]));
    survives(LedgerRequest::Answer([24; 32]));
    survives(LedgerRequest::ForgetAnswer([25; 32]));
    survives(LedgerResponse::Unknown);
    survives(LedgerResponse::Busy);
}
