//! What every implementation of the storage protocol must do: one suite for the objects in memory and for Durable
//! Objects in their real runtime. Each case works on a task of its own, so that all can share one cluster.
//!
//! A case panics when the protocol is broken; the suite runs all of [`CASES`].

mod begun;
mod collections;
mod counting;
mod deferred;
mod once;
mod rounds;
mod stores;

pub use self::begun::{begin, begun_but};
use self::{begun::*, collections::*, counting::*, deferred::*, once::*, rounds::*, stores::*};
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
            JobStoreRequest, JobStoreResponse, JobsInRange, LedgerRequest, LedgerResponse,
            LedgerStatus, Slice, StoreAction,
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
    /// Field of its shares.
    pub field: FieldKind,
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
        unrecorded: Vec::new(),
        open: Some(Vec::new()),
        readmit: Vec::new(),
        once: false,
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
            field: FIELD,
            // Unwrap safety: 32 bytes are enough.
            collector: HpkeKeypair::derive(HpkeConfigId(9), HpkeKem::X25519HkdfSha256, &[3; 32])
                .unwrap(),
        }
    }

    /// Asks a store.
    pub async fn ask(&self, store: StoreId, action: StoreAction) -> Answer {
        let request =
            AggregateStoreRequest { placement: self.placement, store, field: self.field, action };
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
        self.ask(
            store,
            StoreAction::Freeze { attempt, range, counts: range, param, exclude, version },
        )
        .await
    }

    /// Seals a range.
    pub async fn seal(
        &self,
        store: StoreId,
        attempt: u64,
        range: BucketRange,
        exclude: Vec<AggregationJobId>,
    ) -> Answer {
        self.ask(
            store,
            StoreAction::Seal { attempt, range, counts: range, param: Vec::new(), exclude },
        )
        .await
    }

    /// A collection of these reports, as the leader would ask for it. `request` stands for its bytes.
    pub fn collection(&self, request: u8, range: BucketRange, reports: &[u8]) -> Collect {
        let mut checksum = Checksum::default();
        reports.iter().for_each(|n| checksum.add(&report(*n)));
        Collect {
            digest: [request; 32],
            placement: self.placement,
            field: self.field,
            range,
            counts: range,
            once: false,
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

    /// How the task is doing, its batches included, when all stores have answered.
    pub async fn status(&self) -> LedgerStatus {
        let (placement, field) = (self.placement, self.field);
        let ask = LedgerRequest::Status { placement, field, batches: true, after: None };
        for _ in 0..1_000 {
            match self.ask_ledger(ask.clone()).await {
                LedgerResponse::Status(status) if status.is_complete() => return *status,
                LedgerResponse::Status(_) => {}
                other => panic!("a status was answered with {other:?}"),
            }
        }
        panic!("some store never answers")
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
        match self.ask_ledger(LedgerRequest::Open { placement, field: self.field, store }).await {
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
    what_is_left_out_of_a_range_is_given_up,
    a_freeze_holds_the_whole_range_and_looks_at_what_counts,
    a_batch_is_collected_once_whatever_for,
    an_answer_is_kept_until_it_is_deleted,
    a_report_is_aggregated_once_at_each_level_and_only_downwards,
    where_reports_are_aggregated_once_no_other_level_counts_them,
    a_report_that_was_left_out_at_a_level_counts_once_in_its_successor,
    a_report_taken_over_from_what_was_left_out_never_was_in_the_batch,
    a_report_begins_in_one_way_at_each_level,
    a_report_begins_in_one_way_where_it_is_aggregated_once,
    what_began_counts_nowhere,
    a_store_is_registered_before_it_begins_a_report,
    a_job_of_several_rounds_is_begun_once,
    a_step_is_taken_by_one_body,
    a_deleted_job_of_several_rounds_takes_no_step,
    large_states_are_kept_whole,
    a_job_that_is_answered_later_is_begun_once,
    an_id_is_answered_at_once_or_later,
    a_deleted_job_that_is_answered_later_is_gone,
    the_ledger_knows_the_pieces_of_deleted_jobs,
    large_shares_are_kept_whole,
    a_job_is_counted_once,
    what_no_store_was_asked_about_is_counted_once,
    what_a_store_counted_outlives_it,
    a_status_tells_what_is_in_the_batches,
);
