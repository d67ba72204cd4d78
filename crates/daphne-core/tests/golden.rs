//! Encodings of what is stored. A deployment finds yesterday's rows: a change here needs code that reads both.
#![cfg(not(target_arch = "wasm32"))]

use daphne_core::{
    aggregate::rounds::{WaitingJob, WaitingReport},
    batch::{BatchBucket, BatchMode, BucketRange, Checksum},
    error::{Abort, AbortKind, ReportError},
    hpke::{HpkeKem, HpkeKeypair},
    ids::{AggregationJobId, BatchId, HpkeConfigId, ReportId, TaskId},
    metrics::{Failure, Refusal, Resource, Tally, Totals},
    seal::{RootKeys, TokenHash},
    store::{
        SteppedJob,
        aggregate_store::{Epoch, FrozenRange, Generation, SealedRange, SliceHead, StoreMeta},
        job_store::deferred::{DeferredJob, DeferredStatus, PieceAnswer},
        ledger::{CollectionRow, LedgerMeta, Pending},
        message::DeferredFailure,
        placement::{Group, Placement, StoreId},
        replay::Runs,
    },
    task::{StoredTask, TaskRole, TaskSpec},
    time::{Duration, Interval, Time},
    vdaf::{FieldKind, VdafConfig},
    version::DapVersion,
};
use serde::{Serialize, de::DeserializeOwned};

fn golden<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(
    value: &T,
    expected: &str,
) {
    let bytes = postcard::to_allocvec(value).unwrap();
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(hex, expected.replace(char::is_whitespace, ""), "{value:?}");
    assert_eq!(&postcard::from_bytes::<T>(&bytes).unwrap(), value);
}

fn placement() -> Placement {
    Placement {
        task_id: TaskId::new([0x11; 32]),
        batch_mode: BatchMode::TimeInterval,
        time_precision: Duration::from_seconds(300),
        shards: 2,
        buckets_per_group: 288,
        shard_key_version: 1,
        retention: Duration::from_seconds(1_209_600),
    }
}

fn windows() -> BucketRange {
    let (start, length) = (Time::from_seconds(600), Duration::from_seconds(300));
    BucketRange::Windows(Interval::new(start, length).unwrap())
}

fn part() -> BucketRange {
    let (start, length) = (Time::from_seconds(600), Duration::from_seconds(150));
    BucketRange::Windows(Interval::new(start, length).unwrap())
}

// A byte string is its length, then its bytes; numbers are varints; an enum is its variant's number.
const PLACEMENT: &str =
    "20 1111111111111111111111111111111111111111111111111111111111111111 00 ac02 02 a002 01 80ea49";

/// One job of 300 accepted reports and three refused ones, and a refused request.
fn totals() -> Totals {
    let mut totals = Totals::default();
    let failures = vec![(Failure::UnknownKey(Some(7)), 2), (Failure::Proof, 1)];
    totals.add(&Tally { accepted: 300, failures }, Time::from_seconds(600));
    let (resource, kind) = (Resource::AggregateShares, AbortKind::BatchMismatch);
    totals.refuse(Refusal { resource, kind, detail: "why".to_owned() }, Time::from_seconds(601));
    totals
}

const TOTALS: &str = "ac02 02 0600 02 14 01 01 01 06 01 \
     03 01 01 06 03776879 d904 d904 01 00 14 d804 d804 01 00 0601 07 d804 d804 02 01 d804";

#[test]
fn tallies_of_jobs() {
    // The variants' numbers are stored: new kinds go to the end.
    for (n, failure) in Failure::ALL.into_iter().enumerate() {
        // `Failure::Other` is in the middle.
        let n = if n < 23 { n } else { n + 1 };
        let number = if [6, 12, 13].contains(&n) { "00" } else { "" };
        golden(
            &Tally { accepted: 500, failures: vec![(failure, 3)] },
            &format!("f403 01 {n:02x} {number} 03"),
        );
    }
    golden(&Failure::Other(ReportError::OutdatedConfig), "17 0b");
}

#[test]
fn rows_of_an_aggregate_store() {
    let frozen = FrozenRange { attempt: 7, range: windows(), param: vec![] };
    let meta = StoreMeta {
        placement: placement(),
        store: StoreId { group: Group::Run(19_675), shard: 1 },
        field: FieldKind::F64,
        fingerprint_key: [0x22; 16],
        open: true,
        closing: false,
        fence: 6,
        frozen: Some(frozen),
        epochs: vec![Epoch {
            number: 1_417,
            runs: Runs::default(),
            generations: vec![Generation { table: 3, rows: 262, share_bytes: 4_000 }],
            remnant: Some(2),
        }],
        next_table: 4,
        levels: vec![0, 3],
        totals: totals(),
    };
    golden(
        &meta,
        &format!(
            "{PLACEMENT} 01db990101 00 22222222222222222222222222222222 01 00 06 01 07 00 d804 ac02 00 \
             01 890b 0000 01 03 8602 a01f 0102 04 02 00 03 {TOTALS}"
        ),
    );
    let range = BucketRange::Batch(BatchId::new([0x33; 32]));
    golden(
        &SealedRange { range, param: vec![0xaa], attempt: 9 },
        "01 20 3333333333333333333333333333333333333333333333333333333333333333 01aa 09",
    );
    golden(
        &vec![SliceHead {
            bucket: BatchBucket::Window(Time::from_seconds(600)),
            report_count: 500,
            checksum: Checksum::new([0x44; 32]),
            min_time: Time::from_seconds(600),
            max_time: Time::from_seconds(899),
            share_len: 1_600,
            excluded: false,
            yields: true,
            struck: vec![0xcc],
        }],
        "01 00 d804 f403 4444444444444444444444444444444444444444444444444444444444444444 d804 8307 c00c 00 01 01cc",
    );
}

#[test]
fn rows_of_a_job_store() {
    let stepped = SteppedJob {
        digest: [0x66; 32],
        step: 1,
        continuation: Some([0x77; 32]),
        waiting: vec![ReportId::new([0x55; 16])],
        deleted: true,
    };
    let waiting = WaitingJob {
        agg_param: vec![0, 1],
        batch: Some(BatchId::new([0x33; 32])),
        reports: vec![WaitingReport {
            report_id: ReportId::new([0x55; 16]),
            time: Time::from_seconds(600),
            state: vec![0xaa, 0xbb],
        }],
    };
    // Secret, so it does not print.
    let bytes = postcard::to_allocvec(&waiting).unwrap();
    assert!(postcard::from_bytes::<WaitingJob>(&bytes).unwrap() == waiting);
    golden(
        &bytes[..].to_vec(),
        &format!("3c 020001 01 20{} 01 10{} d804 02aabb", "33".repeat(32), "55".repeat(16)),
    );
    golden(
        &stepped,
        &format!("{} 01 01 {} 01 10 {} 01", "66".repeat(32), "77".repeat(32), "55".repeat(16)),
    );
}

#[test]
fn jobs_that_are_answered_later() {
    let deferred = DeferredJob {
        placement: placement(),
        epoch: 1_417,
        digest: [0x66; 32],
        has_rounds: true,
        piece_len: 300,
        pieces: 5,
        begun: 4,
        step: 1,
        continuation: Some([0x77; 32]),
        done: 3,
        status: DeferredStatus::Pending,
        tries: 2,
        due: Some(Time::from_seconds(600)),
    };
    let (began, continued) = ("66".repeat(32), "77".repeat(32));
    let head = format!("{PLACEMENT} 890b {began} 01 ac02 05 04 01 01 {continued} 03");
    golden(&deferred, &format!("{head} 00 02 01 d804"));
    let abort = Abort::new(AbortKind::UnrecognizedTask, "why");
    for (status, encoded) in [
        (DeferredStatus::Ready, "01"),
        (DeferredStatus::Failed(DeferredFailure::Abort(abort)), "0200 01 03776879"),
        (DeferredStatus::Failed(DeferredFailure::Unavailable), "0201"),
        (DeferredStatus::Failed(DeferredFailure::Broken), "0202"),
        (DeferredStatus::Deleted, "03"),
    ] {
        let job = DeferredJob { status, due: None, ..deferred.clone() };
        golden(&job, &format!("{head} {encoded} 02 00"));
    }
    let waiting = vec![ReportId::new([0x55; 16])];
    golden(
        &PieceAnswer { answer: vec![0xaa, 0xbb], waiting },
        "02aabb 01 10 55555555555555555555555555555555",
    );
}

#[test]
fn refused_reports_of_a_job() {
    // The variants' numbers are stored: new kinds go to the end.
    for (n, error) in ReportError::ALL.into_iter().enumerate() {
        golden(
            &vec![(ReportId::new([0x55; 16]), error)],
            &format!("01 10 55555555555555555555555555555555 {n:02x}"),
        );
    }
}

#[test]
fn kinds_of_refused_requests() {
    for (n, kind) in AbortKind::ALL.into_iter().enumerate() {
        golden(&kind, &format!("{n:02x}"));
    }
}

#[test]
fn rows_of_a_ledger() {
    let task = Some((placement(), FieldKind::F128));
    golden(
        &LedgerMeta { attempt: 3, task, released_epochs: vec![1_417], closed: true },
        &format!("03 01 {PLACEMENT} 01 01 890b 01"),
    );
    let store = StoreId { group: Group::Run(19_675), shard: 1 };
    golden(&store, "01 db9901 01");
    golden(&StoreId { group: Group::Whole, shard: 0 }, "00 00");
    golden(&Pending { attempt: 4, stores: vec![store], aborted: true }, "04 01 01db9901 01 01");
    golden(
        &CollectionRow {
            digest: [0x66; 32],
            attempt: 4,
            range: windows(),
            counts: part(),
            param: vec![],
            report_count: 100,
            checksum: Checksum::new([0x77; 32]),
            exclude: vec![AggregationJobId::new([0x88; 16])],
            todo: vec![store],
        },
        "6666666666666666666666666666666666666666666666666666666666666666 04 00d804ac02 00d8049601 00 64 \
         7777777777777777777777777777777777777777777777777777777777777777 \
         01 10 88888888888888888888888888888888 01 01db9901 01",
    );
}

#[test]
fn a_stored_task_is_readable_and_keeps_its_identity() {
    let collector =
        HpkeKeypair::derive(HpkeConfigId(7), HpkeKem::X25519HkdfSha256, &[7; 32]).unwrap();
    let spec = TaskSpec {
        task_id: Some(TaskId::new([1; 32])),
        version: DapVersion::V09,
        role: TaskRole::Helper,
        task_configuration: Vec::new(),
        batch_mode: BatchMode::TimeInterval,
        max_batch_size: None,
        vdaf: VdafConfig::Prio3Histogram { length: 4, chunk_length: 2 },
        verify_key: vec![2; 16],
        leader_token: Some("a-token-of-a-leader".to_owned()),
        leader_token_hash: None,
        collector_hpke_config: collector.config().clone(),
        min_batch_size: 100,
        time_precision: Duration::from_seconds(3_600),
        max_batch_query_count: 1,
        task_expiration: None,
        report_expiry_age: Duration::from_seconds(1_209_600),
        tolerable_clock_skew: Duration::from_seconds(300),
        shards: 1,
        buckets_per_group: None,
    };
    let keys = RootKeys::parse("1=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA").unwrap();
    let task = spec.check(keys.newest()).unwrap();
    let stored = task.seal(&keys, [3; 12]);
    let text = serde_json::to_string(&stored).unwrap();
    let kept = include_str!("vectors/stored-task-1.json").trim();
    assert_eq!(text, kept);
    let opened = serde_json::from_str::<StoredTask>(kept).unwrap().open(&keys).unwrap();
    assert_eq!(opened.identity(), task.identity());
    assert!(opened.accepts_leader_token("a-token-of-a-leader"));
    assert!(!opened.accepts_leader_token("a-token-of-a-leadeR"));
    assert_eq!(opened.leader_token_hashes, [TokenHash::of("a-token-of-a-leader")]);
    // A repeat after the root key was rotated is still a repeat.
    let rotated = RootKeys::parse(
        "1=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA,2=AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
    )
    .unwrap();
    assert_eq!(spec_again(&opened, rotated.newest()).identity(), task.identity());
    assert!(!format!("{opened:?} {keys:?}").contains("AgICAg"), "the verify key is not printed");
}

fn spec_again(task: &daphne_core::task::Task, shard_key_version: u32) -> daphne_core::task::Task {
    let mut again = task.clone();
    again.parameters.shard_key_version = shard_key_version;
    again
}
