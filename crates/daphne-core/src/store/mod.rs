//! The storage protocol: what is stored, by whom, and why each report is counted exactly once.
//!
//! **The object that owns a report id owns that report's contribution and its verdict.** Replay check, addition to
//! the batch's share, and the recorded verdict happen in one transaction of one [`aggregate_store`], decided by
//! the first write. A [`ledger`] per task collects: gather, check, intent, freeze, decision, seal; everything
//! before the decision can be taken back. A [`job_store`] binds a DAP-09 job id to one body where no single
//! `AggregateStore` could. The [`config_store`] holds what must be strongly consistent about tasks and keys.
//!
//! The state machines are written once, here, over the small table traits of this module. Durable Objects bind
//! the tables to SQLite; the `testing` module keeps them in memory.
//!
//! Platform facts that everything relies on: an object handles one synchronous transaction at a time, atomic and
//! durable; every message may be lost, repeated, late, or answered after its sender gave up; any await may be
//! the last thing a Worker or a ledger does.

pub mod aggregate_store;
pub mod config_store;
pub mod exclusion;
pub mod job_store;
pub mod ledger;
pub mod message;
pub mod placement;
pub mod replay;

use std::future::Future;

use serde::{Deserialize, Serialize};

use self::{
    aggregate_store::{JobHead, JobRow, SealedRange, StoreMeta},
    job_store::deferred::DeferredJob,
    ledger::{CollectionRow, LedgerMeta, Pending},
    message::{
        AggregateStoreRequest, AggregateStoreResponse, Content, JobStoreRequest, JobStoreResponse,
        LedgerRequest, LedgerResponse, RequestDigest,
    },
    placement::{Placement, StoreId},
    replay::RunTables,
};
use crate::{
    batch::{BatchBucket, BucketRange},
    error::{Internal, ReportError},
    ids::{AggregationJobId, ReportId, TaskId},
    metrics::Totals,
    time::Time,
};

/// The tables failed, or hold what this code did not write. Our own fault; the transaction is rolled back.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("storage: {0}")]
pub struct StoreError(pub String);

/// Result of a table operation.
pub type StoreResult<T> = Result<T, StoreError>;

/// A database that runs closures as transactions.
pub trait Database {
    /// The tables, inside a transaction.
    type Tables;

    /// Runs `f` atomically. Nested transactions do not occur.
    ///
    /// # Errors
    /// What `f` returns, or the database's own failure; either way nothing `f` wrote is kept. The same holds if `f`
    /// panics.
    fn transaction<R>(&self, f: impl FnOnce(&mut Self::Tables) -> StoreResult<R>)
    -> StoreResult<R>;
}

/// A job's fate in one `AggregateStore`, as far as a repeat of it is answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedJob {
    /// SHA-256 of its request.
    pub digest: RequestDigest,
    /// Reports whose refusal is remembered.
    pub refused: Vec<(ReportId, ReportError)>,
}

/// Visits a job's head.
pub type VisitJob<'a> = dyn FnMut(JobHead) -> StoreResult<()> + 'a;

/// Visits a job's head and ids.
pub type VisitJobIds<'a> = dyn FnMut(JobHead, &[u8]) -> StoreResult<()> + 'a;

/// Visits fingerprints.
pub type VisitFingerprints<'a> = dyn FnMut(&[u64]) -> StoreResult<()> + 'a;

/// Visits merged slices: bucket, aggregation parameter, sum.
pub type VisitMerged<'a> = dyn FnMut(BatchBucket, &[u8], Content) -> StoreResult<()> + 'a;

/// Tables of one `AggregateStore`.
///
/// Jobs live in tables of their own *generation* until they are packed, so that a table can be dropped whole: deleting
/// rows bills each of them. What is packed lives in tables of their *epoch* of arrival.
pub trait AggregateTables: RunTables {
    /// The single meta row.
    ///
    /// # Errors
    /// The database's.
    fn meta(&mut self) -> StoreResult<Option<StoreMeta>>;
    /// Writes the meta row (1 row).
    ///
    /// # Errors
    /// The database's.
    fn put_meta(&mut self, meta: &StoreMeta) -> StoreResult<()>;
    /// Sealed ranges that share a bucket with `range`, whatever their aggregation parameter.
    ///
    /// # Errors
    /// The database's.
    fn sealed_meeting(&mut self, range: &BucketRange) -> StoreResult<Vec<SealedRange>>;
    /// Sealed ranges that can contain `bucket`: those with the greatest start not after it.
    ///
    /// # Errors
    /// The database's.
    fn sealed_near(&mut self, bucket: &BatchBucket) -> StoreResult<Vec<SealedRange>>;
    /// Records a sealed range (1 row); again with equal values it changes nothing.
    ///
    /// # Errors
    /// The database's.
    fn put_sealed(&mut self, range: &SealedRange) -> StoreResult<()>;
    /// Forgets sealed intervals that end before `end` (1 row each). Batches by id are never forgotten.
    ///
    /// # Errors
    /// The database's.
    fn forget_sealed_before(&mut self, end: Time) -> StoreResult<()>;

    /// Creates the tables of a generation.
    ///
    /// # Errors
    /// The database's.
    fn create_generation(&mut self, generation: u32) -> StoreResult<()>;
    /// Drops them.
    ///
    /// # Errors
    /// The database's.
    fn drop_generation(&mut self, generation: u32) -> StoreResult<()>;
    /// A job's digest and refused reports.
    ///
    /// # Errors
    /// The database's.
    fn job(&mut self, generation: u32, job: &AggregationJobId) -> StoreResult<Option<RecordedJob>>;
    /// Records a job (1 row whatever its size, up to the chunk limit of the database).
    ///
    /// # Errors
    /// The database's, or the job is there.
    fn insert_job(&mut self, generation: u32, row: &JobRow) -> StoreResult<()>;
    /// Replaces the slice heads of a job, and its ids if they are given (1 row).
    ///
    /// # Errors
    /// The database's.
    fn put_slices(
        &mut self,
        generation: u32,
        head: &JobHead,
        ids: Option<&[u8]>,
    ) -> StoreResult<()>;
    /// Visits each job.
    ///
    /// # Errors
    /// The database's, or the visitor's.
    fn each_job(&mut self, generation: u32, visit: &mut VisitJob<'_>) -> StoreResult<()>;
    /// Visits each job with its ids (16 bytes each, in the order of the slices).
    ///
    /// # Errors
    /// The database's, or the visitor's.
    fn each_job_ids(&mut self, generation: u32, visit: &mut VisitJobIds<'_>) -> StoreResult<()>;
    /// A job's encoded shares, in the order of the slices.
    ///
    /// # Errors
    /// The database's.
    fn shares(&mut self, generation: u32, job: &AggregationJobId) -> StoreResult<Vec<u8>>;
    /// Keeps what was added to the replay index as reports began (1 row up to the chunk limit of the database). `n` is new
    /// in the generation.
    ///
    /// # Errors
    /// The database's, or it is there.
    fn insert_begun(&mut self, generation: u32, n: u32, fingerprints: &[u64]) -> StoreResult<()>;
    /// Visits each of them.
    ///
    /// # Errors
    /// The database's, or the visitor's.
    fn each_begun(&mut self, generation: u32, visit: &mut VisitFingerprints<'_>)
    -> StoreResult<()>;

    /// Creates the tables of an epoch.
    ///
    /// # Errors
    /// The database's.
    fn create_epoch(&mut self, epoch: u32) -> StoreResult<()>;
    /// Drops them.
    ///
    /// # Errors
    /// The database's.
    fn drop_epoch(&mut self, epoch: u32) -> StoreResult<()>;
    /// Keeps what a repeat of packed jobs is answered from (a few rows for all of them).
    ///
    /// # Errors
    /// The database's.
    fn put_packed_jobs(
        &mut self,
        epoch: u32,
        generation: u32,
        jobs: &[(AggregationJobId, RecordedJob)],
    ) -> StoreResult<()>;
    /// A packed job's digest and refused reports.
    ///
    /// # Errors
    /// The database's.
    fn packed_job(
        &mut self,
        epoch: u32,
        job: &AggregationJobId,
    ) -> StoreResult<Option<RecordedJob>>;
    /// The sum of a bucket's merged slices.
    ///
    /// # Errors
    /// The database's.
    fn merged(
        &mut self,
        epoch: u32,
        bucket: &BatchBucket,
        param: &[u8],
    ) -> StoreResult<Option<Content>>;
    /// Writes it (1 row up to the chunk limit of the database).
    ///
    /// # Errors
    /// The database's.
    fn put_merged(
        &mut self,
        epoch: u32,
        bucket: &BatchBucket,
        param: &[u8],
        content: &Content,
    ) -> StoreResult<()>;
    /// Visits the merged slices of a range, or all.
    ///
    /// # Errors
    /// The database's, or the visitor's.
    fn each_merged(
        &mut self,
        epoch: u32,
        range: Option<&BucketRange>,
        visit: &mut VisitMerged<'_>,
    ) -> StoreResult<()>;
}

/// Tables of one `TaskLedger`.
pub trait LedgerTables {
    /// The single meta row; the default if none was written.
    ///
    /// # Errors
    /// The database's.
    fn meta(&mut self) -> StoreResult<LedgerMeta>;
    /// Writes the meta row (1 row).
    ///
    /// # Errors
    /// The database's.
    fn put_meta(&mut self, meta: &LedgerMeta) -> StoreResult<()>;
    /// Registers a store of a time group (1 row, or none if it is registered).
    ///
    /// # Errors
    /// The database's.
    fn register(&mut self, store: &StoreId) -> StoreResult<()>;
    /// The registered stores of groups `first..=last`, in order.
    ///
    /// # Errors
    /// The database's.
    fn registered(&mut self, first: u64, last: u64) -> StoreResult<Vec<StoreId>>;
    /// A store of a time group ended (1 row, or none if it is not registered).
    ///
    /// # Errors
    /// The database's.
    fn unregister(&mut self, store: &StoreId) -> StoreResult<()>;
    /// What became of reports and requests that no living store counts; nothing if none was written.
    ///
    /// # Errors
    /// The database's.
    fn books(&mut self) -> StoreResult<Totals>;
    /// Writes it (1 row).
    ///
    /// # Errors
    /// The database's.
    fn put_books(&mut self, books: &Totals) -> StoreResult<()>;
    /// Records what a store forgot uncollected (1 row); the last word counts.
    ///
    /// # Errors
    /// The database's.
    fn put_expired(&mut self, store: &StoreId, epoch: u32, uncollected: u64) -> StoreResult<()>;
    /// Reports forgotten uncollected, over all stores.
    ///
    /// # Errors
    /// The database's.
    fn expired_total(&mut self) -> StoreResult<u64>;
    /// Creates the tables of an epoch: of jobs that were deleted in it, and of those that were noted.
    ///
    /// # Errors
    /// The database's.
    fn create_epoch(&mut self, epoch: u32) -> StoreResult<()>;
    /// Drops them.
    ///
    /// # Errors
    /// The database's.
    fn drop_epoch(&mut self, epoch: u32) -> StoreResult<()>;
    /// Records that this job, with this request, was noted (1 row).
    ///
    /// # Errors
    /// The database's.
    fn put_noted(
        &mut self,
        epoch: u32,
        job: &AggregationJobId,
        digest: &RequestDigest,
    ) -> StoreResult<()>;
    /// Whether it was noted in this epoch.
    ///
    /// # Errors
    /// The database's.
    fn is_noted(
        &mut self,
        epoch: u32,
        job: &AggregationJobId,
        digest: &RequestDigest,
    ) -> StoreResult<bool>;
    /// Records that the leader deleted a job (1 row, or none if recorded).
    ///
    /// # Errors
    /// The database's.
    fn release(&mut self, epoch: u32, job: &AggregationJobId) -> StoreResult<()>;
    /// Which of these jobs the leader deleted in an epoch.
    ///
    /// # Errors
    /// The database's.
    fn released(
        &mut self,
        epoch: u32,
        jobs: &[AggregationJobId],
    ) -> StoreResult<Vec<AggregationJobId>>;
    /// The attempt under way, if any.
    ///
    /// # Errors
    /// The database's.
    fn pending(&mut self) -> StoreResult<Option<Pending>>;
    /// Writes or deletes the attempt under way (1 row).
    ///
    /// # Errors
    /// The database's.
    fn put_pending(&mut self, pending: Option<&Pending>) -> StoreResult<()>;
    /// The decided collection for a request.
    ///
    /// # Errors
    /// The database's.
    fn collection(&mut self, digest: &RequestDigest) -> StoreResult<Option<CollectionRow>>;
    /// Decided collections whose range shares a bucket with `range`.
    ///
    /// # Errors
    /// The database's.
    fn collections_meeting(&mut self, range: &BucketRange) -> StoreResult<Vec<CollectionRow>>;
    /// Decided collections that some store has not been told of.
    ///
    /// # Errors
    /// The database's.
    fn unsealed_collections(&mut self) -> StoreResult<Vec<CollectionRow>>;
    /// The answer to a decided collection: the encoded, sealed aggregate share. Large, so it is read by itself.
    ///
    /// # Errors
    /// The database's.
    fn answer(&mut self, digest: &RequestDigest) -> StoreResult<Option<Vec<u8>>>;
    /// Forgets the answer to a decided collection, if there is one (1 row).
    ///
    /// # Errors
    /// The database's.
    fn forget_answer(&mut self, digest: &RequestDigest) -> StoreResult<()>;
    /// Writes a decided collection with its answer (1 row).
    ///
    /// # Errors
    /// The database's, or a collection for this request exists.
    fn insert_collection(&mut self, row: &CollectionRow, answer: &[u8]) -> StoreResult<()>;
    /// Writes what is left to do of a decided collection (1 row).
    ///
    /// # Errors
    /// The database's.
    fn update_collection(&mut self, row: &CollectionRow) -> StoreResult<()>;
    /// How many collections were decided, and of how many reports.
    ///
    /// # Errors
    /// The database's.
    fn collected_totals(&mut self) -> StoreResult<(u64, u64)>;
}

/// What a `JobStore` keeps of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// SHA-256 of its request.
    pub digest: RequestDigest,
    /// Reports refused without asking their owners.
    pub unasked: Vec<(ReportId, ReportError)>,
}

/// What a `JobStore` knows of a job of several rounds, without what it waits with and what was answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SteppedJob {
    /// SHA-256 of the request that began it.
    pub digest: RequestDigest,
    /// The last step that was taken; 0 is the initialization.
    pub step: u16,
    /// SHA-256 of the continuation that took it, or that is about to take the next step. No other may.
    pub continuation: Option<RequestDigest>,
    /// The reports that wait for a continuation, in the order of the request.
    pub waiting: Vec<ReportId>,
    /// The leader deleted it.
    pub deleted: bool,
}

/// What is large about a job of several rounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SteppedJobBody<'a> {
    /// What its reports wait with. Secret.
    pub state: &'a [u8],
    /// What the leader was last answered.
    pub answer: &'a [u8],
}

/// What is large about a job that is answered later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DeferredPart {
    /// The request of its current step, until that has come to its end.
    Request,
    /// A piece's packed [`PieceAnswer`](job_store::deferred::PieceAnswer), pieces counted from 0.
    Piece(u32),
}

/// Tables of one `JobStore`, some per epoch.
pub trait JobTables {
    /// The epochs that have a table, oldest first, each with the time at which it is forgotten.
    ///
    /// # Errors
    /// The database's.
    fn epochs(&mut self) -> StoreResult<Vec<(u32, Time)>>;
    /// Creates the tables of an epoch (and 1 row).
    ///
    /// # Errors
    /// The database's.
    fn create_epoch(&mut self, epoch: u32, forget_at: Time) -> StoreResult<()>;
    /// Drops them (and 1 row), and what there is of jobs of this epoch that are answered later (all their rows).
    ///
    /// # Errors
    /// The database's.
    fn drop_epoch(&mut self, epoch: u32) -> StoreResult<()>;
    /// The body a job id is bound to.
    ///
    /// # Errors
    /// The database's.
    fn claim(&mut self, epoch: u32, job: &AggregationJobId) -> StoreResult<Option<Claim>>;
    /// Binds a job id (1 row).
    ///
    /// # Errors
    /// The database's.
    fn put_claim(&mut self, epoch: u32, job: &AggregationJobId, claim: &Claim) -> StoreResult<()>;
    /// A job of several rounds.
    ///
    /// # Errors
    /// The database's.
    fn stepped(&mut self, epoch: u32, job: &AggregationJobId) -> StoreResult<Option<SteppedJob>>;
    /// What its reports wait with.
    ///
    /// # Errors
    /// The database's, or there is no such job.
    fn stepped_state(&mut self, epoch: u32, job: &AggregationJobId) -> StoreResult<Vec<u8>>;
    /// What the leader was last answered.
    ///
    /// # Errors
    /// The database's, or there is no such job.
    fn stepped_answer(&mut self, epoch: u32, job: &AggregationJobId) -> StoreResult<Vec<u8>>;
    /// Writes a job of several rounds (1 row, and more for large bodies). Without a body it keeps the one that it has.
    ///
    /// # Errors
    /// The database's.
    fn put_stepped(
        &mut self,
        epoch: u32,
        job: &AggregationJobId,
        stepped: &SteppedJob,
        body: Option<SteppedJobBody<'_>>,
    ) -> StoreResult<()>;
    /// A job that is answered later, of any epoch.
    ///
    /// # Errors
    /// The database's.
    fn deferred(&mut self, job: &AggregationJobId) -> StoreResult<Option<DeferredJob>>;
    /// Writes it (1 row, and 1 of an index while it is due).
    ///
    /// # Errors
    /// The database's.
    fn put_deferred(&mut self, job: &AggregationJobId, deferred: &DeferredJob) -> StoreResult<()>;
    /// One of its parts; empty if there is none.
    ///
    /// # Errors
    /// The database's.
    fn deferred_part(&mut self, job: &AggregationJobId, part: DeferredPart)
    -> StoreResult<Vec<u8>>;
    /// Replaces a part (1 row, and more for large ones), or removes it if it is empty.
    ///
    /// # Errors
    /// The database's.
    fn put_deferred_part(
        &mut self,
        job: &AggregationJobId,
        part: DeferredPart,
        bytes: &[u8],
    ) -> StoreResult<()>;
    /// The job that is due first, and when.
    ///
    /// # Errors
    /// The database's.
    fn next_deferred(&mut self) -> StoreResult<Option<(AggregationJobId, Time)>>;
}

/// A call to an object has no known outcome: it may or may not have been carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// There was no answer, or none that we understand.
    #[error("call: {0}")]
    Unanswered(String),
    /// The object has more to do than it can: whoever asks again soon makes it worse.
    #[error("call: overloaded: {0}")]
    Overloaded(String),
}

impl From<CallError> for Internal {
    fn from(e: CallError) -> Self {
        match e {
            CallError::Unanswered(why) => Self::Unavailable(why),
            CallError::Overloaded(why) => Self::Overloaded(why),
        }
    }
}

/// Calls to a task's objects. An implementation applies a timeout to each call; it may repeat a call whose message is
/// idempotent.
#[allow(
    async_fn_in_trait,
    reason = "futures on Workers are not Send, and no caller needs them to be"
)]
pub trait Objects {
    /// Calls an `AggregateStore`.
    fn store(
        &self,
        store: &StoreId,
        request: AggregateStoreRequest,
    ) -> impl Future<Output = Result<AggregateStoreResponse, CallError>>;

    /// Calls the task's ledger.
    fn ledger(
        &self,
        task: &TaskId,
        request: LedgerRequest,
    ) -> impl Future<Output = Result<LedgerResponse, CallError>>;

    /// Calls a `JobStore` of the task.
    fn job_store(
        &self,
        placement: &Placement,
        shard: u16,
        request: JobStoreRequest,
    ) -> impl Future<Output = Result<JobStoreResponse, CallError>>;
}
