//! What every implementation of the storage protocol must do: one suite for the objects in memory and for Durable
//! Objects in their real runtime. Each case works on a task of its own, so that all can share one cluster.
//!
//! A case panics when the protocol is broken; the suite runs all of [`CASES`].

use crate::{
    batch::{BatchBucket, BatchMode, BucketRange, Checksum},
    error::{AbortKind, ReportError},
    hpke::{self, HpkeKem, HpkeKeypair, Role},
    ids::{AggregationJobId, BatchId, HpkeConfigId, ReportId, TaskId},
    message::HpkeCiphertext,
    store::{
        Objects,
        message::{
            AggregateStoreRequest, AggregateStoreResponse as Answer, Collect, Commit, Content,
            JobStoreRequest, JobStoreResponse, JobsInRange, LedgerRequest, LedgerResponse, Slice,
            StoreAction,
        },
        placement::{Group, Placement, StoreId},
    },
    time::{Duration, Interval, Time},
    vdaf::FieldKind,
    version::DapVersion,
};

/// Time precision of the suite's tasks, in seconds.
pub const PRECISION_S: u64 = 100;
const FIELD: FieldKind = FieldKind::F64;

/// A task on a cluster, and short ways to speak to its objects.
pub struct Subject<'a, O> {
    /// The cluster.
    pub objects: &'a O,
    /// The task's frozen numbers.
    pub placement: Placement,
    collector: HpkeKeypair,
}

/// One report of a slice: its number names it, and it adds its number to the share.
pub fn report(n: u8) -> ReportId {
    ReportId::new([n; 16])
}

/// A job's id.
pub fn job(n: u8) -> AggregationJobId {
    AggregationJobId::new([n; 16])
}

/// The bucket that begins at the n-th multiple of the precision.
pub fn window(n: u64) -> BatchBucket {
    BatchBucket::Window(Time::from_seconds(n * PRECISION_S))
}

/// The range of `count` buckets from the n-th.
pub fn windows(n: u64, count: u64) -> BucketRange {
    let (start, length) = (Time::from_seconds(n * PRECISION_S), count * PRECISION_S);
    // Unwrap safety: the suite's times are small.
    BucketRange::Windows(Interval::new(start, Duration::from_seconds(length)).unwrap())
}

/// What a job adds to a bucket.
pub fn slice(bucket: BatchBucket, reports: &[u8]) -> Slice {
    let mut checksum = Checksum::default();
    reports.iter().for_each(|n| checksum.add(&report(*n)));
    let time = match bucket {
        BatchBucket::Window(t) => t,
        BatchBucket::Batch(_) => Time::from_seconds(7),
    };
    Slice {
        bucket,
        ids: reports.iter().flat_map(|n| *report(*n).as_bytes()).collect(),
        checksum,
        min_time: time,
        max_time: time,
        share: reports.iter().map(|n| u64::from(*n)).sum::<u64>().to_le_bytes().to_vec(),
    }
}

/// A commit of one job with the digest that its number stands for.
pub fn commit(job_number: u8, slices: Vec<Slice>) -> Commit {
    Commit {
        job: job(job_number),
        digest: [job_number; 32],
        param: Vec::new(),
        slices,
        refused: Vec::new(),
        open: Some(Vec::new()),
        readmit: Vec::new(),
    }
}

/// Replays of reports, each in a job whose fate is open.
pub fn soft(replays: &[(u8, u8)]) -> Answer {
    let soft = replays.iter().map(|(r, j)| (report(*r), job(*j))).collect();
    Answer::Replayed { soft, hard: Vec::new() }
}

/// Replays of reports that count for good.
pub fn hard(reports: &[u8]) -> Answer {
    let hard = reports.iter().map(|r| report(*r)).collect();
    Answer::Replayed { soft: Vec::new(), hard }
}

/// The only store of a task with one group and one shard.
pub const ONLY: StoreId = StoreId { group: Group::Whole, shard: 0 };

impl<'a, O: Objects> Subject<'a, O> {
    /// A task whose id no other case uses.
    pub fn new(objects: &'a O, case: &str, mode: BatchMode, shards: u16, buckets: u32) -> Self {
        use sha2::Digest as _;
        let id = sha2::Sha256::digest(case.as_bytes()).into();
        Self {
            objects,
            placement: Placement {
                task_id: TaskId::new(id),
                batch_mode: mode,
                time_precision: Duration::from_seconds(PRECISION_S),
                shards,
                buckets_per_group: buckets,
                shard_key_version: 1,
                // The suite's reports are all from the year 1970.
                retention: Duration::from_seconds(1 << 40),
            },
            // Unwrap safety: 32 bytes are enough.
            collector: HpkeKeypair::derive(HpkeConfigId(9), HpkeKem::X25519HkdfSha256, &[3; 32])
                .unwrap(),
        }
    }

    /// Asks a store.
    pub async fn ask(&self, store: StoreId, action: StoreAction) -> Answer {
        let request =
            AggregateStoreRequest { placement: self.placement, store, field: FIELD, action };
        self.objects.store(&store, request).await.expect("the store answers")
    }

    /// Asks the ledger.
    pub async fn ask_ledger(&self, request: LedgerRequest) -> LedgerResponse {
        self.objects.ledger(&self.placement.task_id, request).await.expect("the ledger answers")
    }

    /// Commits to a store.
    pub async fn commit(&self, store: StoreId, c: Commit) -> Answer {
        self.ask(store, StoreAction::Commit(c)).await
    }

    /// What a store holds in a range.
    pub async fn gather(&self, store: StoreId, range: BucketRange) -> Content {
        let action = StoreAction::Gather { range, param: Vec::new(), exclude: Vec::new() };
        match self.ask(store, action).await {
            Answer::Gathered { content, .. } => content,
            other => panic!("a gathering was answered with {other:?}"),
        }
    }

    /// What the jobs of a store hold in a range.
    pub async fn jobs(&self, store: StoreId, range: BucketRange) -> JobsInRange {
        match self.ask(store, StoreAction::GatherJobs { range, param: Vec::new() }).await {
            Answer::Jobs(jobs) => jobs,
            other => panic!("a gathering of jobs was answered with {other:?}"),
        }
    }

    /// Deletes a job, as the leader does.
    pub async fn release(&self, number: u8) {
        let release = LedgerRequest::Release { placement: self.placement, job: job(number) };
        assert_eq!(self.ask_ledger(release).await, LedgerResponse::Done);
    }

    /// Freezes a range as gathered just before.
    pub async fn freeze(&self, store: StoreId, attempt: u64, range: BucketRange) -> Answer {
        let version = self.gather(store, range).await.version();
        self.freeze_at(store, attempt, range, version).await
    }

    /// Freezes a range if it holds this version.
    pub async fn freeze_at(
        &self,
        store: StoreId,
        attempt: u64,
        range: BucketRange,
        version: [u8; 32],
    ) -> Answer {
        let (param, exclude) = (Vec::new(), Vec::new());
        self.ask(store, StoreAction::Freeze { attempt, range, param, exclude, version }).await
    }

    /// Seals a range.
    pub async fn seal(
        &self,
        store: StoreId,
        attempt: u64,
        range: BucketRange,
        exclude: Vec<AggregationJobId>,
    ) -> Answer {
        self.ask(store, StoreAction::Seal { attempt, range, param: Vec::new(), exclude }).await
    }

    /// A collection of these reports, as the leader would ask for it. `request` stands for its bytes.
    pub fn collection(&self, request: u8, range: BucketRange, reports: &[u8]) -> Collect {
        let mut checksum = Checksum::default();
        reports.iter().for_each(|n| checksum.add(&report(*n)));
        Collect {
            digest: [request; 32],
            placement: self.placement,
            field: FIELD,
            range,
            param: Vec::new(),
            report_count: reports.len() as u64,
            checksum,
            min_batch_size: 2,
            max_batch_size: None,
            max_batch_query_count: 1,
            collector_hpke_config: self.collector.config().clone(),
            hpke_info: hpke::aggregate_share_info(DapVersion::V09, Role::Helper),
            hpke_aad: vec![request],
        }
    }

    /// Asks the ledger to collect.
    pub async fn collect(&self, collect: &Collect) -> LedgerResponse {
        self.ask_ledger(LedgerRequest::Collect(Box::new(collect.clone()))).await
    }

    /// Opens an answer to `collect`: the sum of the report numbers in it.
    pub fn open(&self, collect: &Collect, answer: &LedgerResponse) -> u64 {
        let LedgerResponse::Share(bytes) = answer else {
            panic!("a collection was answered with {answer:?}");
        };
        let sealed = HpkeCiphertext::decode(bytes).expect("the share decodes");
        let share = hpke::open(&self.collector, &collect.hpke_info, &collect.hpke_aad, sealed)
            .expect("the share opens");
        u64::from_le_bytes(share.try_into().expect("one element"))
    }

    /// Registers a store of a time group.
    pub async fn open_store(&self, store: StoreId) -> Vec<(BucketRange, Vec<u8>)> {
        let placement = self.placement;
        match self.ask_ledger(LedgerRequest::Open { placement, field: FIELD, store }).await {
            LedgerResponse::Opened(ranges) => ranges,
            other => panic!("an opening was answered with {other:?}"),
        }
    }
}

fn refused(answer: &LedgerResponse) -> AbortKind {
    match answer {
        LedgerResponse::Refused(abort) => abort.kind,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

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
    let Answer::Gathered { content, contested } = s.ask(ONLY, gather).await else {
        panic!("no content")
    };
    assert_eq!((content.report_count, contested), (2, false));
    let freeze = StoreAction::Freeze {
        attempt: 2,
        range: BucketRange::Batch(a),
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
        let purge = LedgerRequest::Purge { placement: s.placement, field: FIELD };
        assert_eq!(s.ask_ledger(purge.clone()).await, LedgerResponse::Done);
        assert_eq!(s.ask_ledger(purge).await, LedgerResponse::Done, "again");
        let known = StoreAction::KnowsJob(job(1));
        assert_eq!(s.ask(store, known).await, Answer::Known(false));
        let LedgerResponse::Status(status) = s.ask_ledger(LedgerRequest::Status).await else {
            panic!("no status")
        };
        assert_eq!(status, Default::default());
    }
}

/// A store with other frozen numbers than the sender's refuses: a wrong shard count must not become a new shard.
pub async fn a_wrong_placement_is_refused(objects: &impl Objects) {
    let mut s = Subject::new(objects, "placement", BatchMode::TimeInterval, 2, 0);
    s.commit(ONLY, commit(1, vec![slice(window(0), &[1])])).await;
    s.placement.shards = 3;
    let c = commit(2, vec![slice(window(0), &[2])]);
    assert_eq!(s.commit(ONLY, c).await, Answer::WrongPlacement);
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

macro_rules! cases {
    ($($case:ident),+ $(,)?) => {
        /// Names of all cases.
        pub const CASES: &[&str] = &[$(stringify!($case)),+];

        /// Runs one case by name.
        ///
        /// # Panics
        /// If the protocol is broken, or there is no such case.
        pub async fn run(case: &str, objects: &impl Objects) {
            match case {
                $(stringify!($case) => $case(objects).await,)+
                _ => panic!("there is no case {case}"),
            }
        }
    };
}

cases!(
    a_repeat_is_answered_from_the_row,
    a_replay_writes_nothing,
    a_replay_is_refused_on_every_attempt,
    a_batch_need_not_fill_all_shards,
    frozen_is_busy_and_sealed_is_collected,
    a_freeze_is_of_what_was_gathered,
    an_excluded_slice_frees_its_reports,
    a_deleted_jobs_report_is_readmitted,
    what_a_collection_keeps_is_taken_from_all_others,
    the_leaders_checksum_chooses_the_jobs,
    equal_jobs_count_once,
    the_ledger_knows_deleted_jobs,
    a_second_parameter_takes_the_same_reports,
    a_purged_task_is_forgotten,
    a_wrong_placement_is_refused,
    a_store_is_registered_before_its_first_commit,
    a_wrong_request_burns_nothing,
    overlapping_intervals_are_refused,
    deleting_a_job_keeps_its_reports,
    settling_a_future_attempt_is_ignored,
    a_claim_binds_one_body,
    large_shares_are_kept_whole,
);
