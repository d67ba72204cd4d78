//! The messages between Workers and objects, and between the ledger and the stores.
//!
//! Each is one transaction of its receiver. Every message may be lost, repeated, late, or answered after its
//! sender gave up; each is therefore idempotent, and says so. A deploy runs old and new code side by side for
//! minutes: the envelope carries [`MESSAGE_VERSION`], and a receiver refuses a version that it does not know.

mod deferred;
mod totals;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};

pub use self::{
    deferred::{Asked, DeferredFailure, DeferredRequest, DeferredState, EncodedAnswer},
    totals::{BatchTotals, LedgerStatus, STATUS_BATCHES_MAX, StoreTotals},
};
use super::placement::{Group, Placement, StoreId};
use crate::{
    batch::{BatchBucket, BucketRange, Checksum},
    error::{Abort, ReportError},
    hpke::HpkeConfig,
    ids::{AggregationJobId, ReportId},
    metrics::{Failure, Refusal, Tally, Totals},
    time::Time,
    vdaf::FieldKind,
};

/// Version of the encoding of all messages in this file.
pub const MESSAGE_VERSION: u8 = 3;

/// Bytes are not a message that this version of the code understands: a deploy is under way, or a defect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a version {MESSAGE_VERSION} message")]
pub struct MessageError;

/// Encodes a message, its version first.
///
/// # Errors
/// Never for the messages of this module; a type that postcard cannot write is a defect.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, MessageError> {
    postcard::to_extend(message, vec![MESSAGE_VERSION]).map_err(|_| MessageError)
}

/// Decodes a message of our own version; trailing bytes are an error.
///
/// # Errors
/// [`MessageError`] for another version or broken bytes.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, MessageError> {
    let (&MESSAGE_VERSION, body) = bytes.split_first().ok_or(MessageError)? else {
        return Err(MessageError);
    };
    match postcard::take_from_bytes(body) {
        Ok((message, [])) => Ok(message),
        _ => Err(MessageError),
    }
}

/// SHA-256 of a request body: what binds a job or a collection to its content.
pub type RequestDigest = [u8; 32];

/// What one job contributes to one batch bucket inside one store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slice {
    /// The bucket.
    pub bucket: BatchBucket,
    /// The reports, 16 bytes each, back to back, distinct within the job.
    #[serde(with = "crate::b64::serde_b64")]
    pub ids: Vec<u8>,
    /// XOR of SHA-256 of the ids.
    pub checksum: Checksum,
    /// Earliest report time.
    pub min_time: Time,
    /// Latest report time.
    pub max_time: Time,
    /// Encoded sum of the reports' output shares.
    #[serde(with = "crate::b64::serde_b64")]
    pub share: Vec<u8>,
}

/// The content of some slices, summed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// Number of reports.
    pub report_count: u64,
    /// XOR of SHA-256 of their ids.
    pub checksum: Checksum,
    /// Earliest and latest report time, if there is any report.
    pub times: Option<(Time, Time)>,
    /// Encoded sum of the output shares; empty if there is no slice.
    #[serde(with = "crate::b64::serde_b64")]
    pub share: Vec<u8>,
}

impl Content {
    /// SHA-256 of count, checksum and share. It names the content: other batches' traffic cannot move it, and
    /// returning to the same content is harmless.
    pub fn version(&self) -> [u8; 32] {
        Sha256::new()
            .chain_update(self.report_count.to_be_bytes())
            .chain_update(self.checksum.as_bytes())
            .chain_update(&self.share)
            .finalize()
            .into()
    }
}

/// A request to an `AggregateStore`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AggregateStoreRequest {
    /// The task's frozen numbers: a store that was opened with others refuses.
    pub placement: Placement,
    /// Which of the task's stores this is; checked like the numbers.
    pub store: StoreId,
    /// Field of the task's shares.
    pub field: FieldKind,
    /// What to do.
    pub action: StoreAction,
}

/// What an `AggregateStore` is asked. `Gather`, `GatherJobs`, `KnowsJob` and `Totals` read only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StoreAction {
    /// Record one job's fate in this store. Idempotent by job id and digest.
    Commit(Commit),
    /// Sum what a range holds. Reads only.
    Gather {
        /// The range.
        range: BucketRange,
        /// The aggregation parameter.
        param: Vec<u8>,
        /// Jobs to leave out.
        exclude: Vec<AggregationJobId>,
    },
    /// What each job whose slices are still separate holds in a range, to find out which of them the leader counts.
    /// Reads only.
    GatherJobs {
        /// The range.
        range: BucketRange,
        /// The aggregation parameter.
        param: Vec<u8>,
    },
    /// Is this job recorded here? Reads only.
    KnowsJob(AggregationJobId),
    /// What became of the reports here? Reads only.
    Totals {
        /// Also what is in the batches: reads what there is of all jobs but their ids and shares.
        batches: bool,
    },
    /// Stop changes in a range, if it still holds what was gathered. Idempotent by attempt.
    Freeze {
        /// The collection attempt.
        attempt: u64,
        /// The range.
        range: BucketRange,
        /// The part of it that counts.
        counts: BucketRange,
        /// The aggregation parameter.
        param: Vec<u8>,
        /// Jobs to leave out.
        exclude: Vec<AggregationJobId>,
        /// [`Content::version`] of what was gathered.
        version: [u8; 32],
    },
    /// The attempt was decided: the range is collected for ever. Idempotent.
    Seal {
        /// The collection attempt.
        attempt: u64,
        /// The range.
        range: BucketRange,
        /// The part of it that counts. The slices in the rest are given up.
        counts: BucketRange,
        /// The aggregation parameter.
        param: Vec<u8>,
        /// Jobs left out; their slices inside the range are given up.
        exclude: Vec<AggregationJobId>,
    },
    /// The attempt ended without a decision. Idempotent.
    Thaw {
        /// The collection attempt.
        attempt: u64,
    },
    /// The task is gone: forget everything. Idempotent.
    Purge,
    /// The verification of some reports begins: bind each to what is verified. Idempotent.
    Begin(Begin),
}

/// Reports of a VDAF of several rounds whose verification begins. Only what was never begun before, or was begun the same
/// way, goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begin {
    /// The level at which they are verified; none where a report is aggregated once, whatever the aggregation parameter.
    pub level: Option<u16>,
    /// The reports, distinct, each with SHA-256 of everything that is verified.
    pub reports: Vec<(ReportId, [u8; 32])>,
    /// As in a [`Commit`].
    pub open: Option<Vec<(BucketRange, Vec<u8>)>>,
}

/// One job's fate in one store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// The job.
    pub job: AggregationJobId,
    /// SHA-256 of the job's request.
    pub digest: RequestDigest,
    /// The aggregation parameter.
    pub param: Vec<u8>,
    /// What to add. A bucket appears once.
    pub slices: Vec<Slice>,
    /// Reports whose refusal is to be remembered.
    pub refused: Vec<(ReportId, ReportError)>,
    /// What became of reports whose refusal need not be remembered, to be counted.
    pub unrecorded: Vec<(Failure, u32)>,
    /// Ranges collected before this store existed, from [`LedgerRequest::Open`]; opens a store of a time group.
    pub open: Option<Vec<(BucketRange, Vec<u8>)>>,
    /// Jobs that the leader deleted, as the ledger says: their reports may be taken over by this one.
    pub readmit: Vec<AggregationJobId>,
    /// A report is aggregated once, and a batch is collected once, whatever the aggregation parameters.
    pub once: bool,
}

/// What one job holds in a range of one store, its slices added up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobInRange {
    /// The job.
    pub job: AggregationJobId,
    /// Number of reports.
    pub report_count: u64,
    /// XOR of SHA-256 of their ids.
    pub checksum: Checksum,
    /// Sum of the ids' fingerprints modulo 2^64: equal sums of one store mean equal reports.
    pub fingerprint_sum: u64,
    /// A later job took over some of its reports.
    pub yields: bool,
}

/// The jobs of a range in one store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobsInRange {
    /// Number of reports whose slices are merged, and can no longer be told apart.
    pub packed_count: u64,
    /// Their checksum.
    pub packed_checksum: Checksum,
    /// All others, newest first.
    pub jobs: Vec<JobInRange>,
    /// Pairs of them that hold a common report.
    pub conflicts: Vec<(AggregationJobId, AggregationJobId)>,
}

/// What an `AggregateStore` answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AggregateStoreResponse {
    /// The job's recorded fate, now and for ever: these reports were refused, all others it owned were committed.
    Committed(Vec<(ReportId, ReportError)>),
    /// The store must be registered with the ledger first.
    NotOpen,
    /// The job id is bound to another body.
    Conflict,
    /// A collection attempt holds the range: let the ledger settle it, then come again.
    Busy(u64),
    /// These reports were aggregated before. Nothing was written.
    Replayed {
        /// In jobs whose fate is open: if the leader deleted the job, the report may be readmitted.
        soft: Vec<(ReportId, AggregationJobId)>,
        /// For good.
        hard: Vec<ReportId>,
    },
    /// The batches of these reports are collected. Nothing was written.
    Collected(Vec<ReportId>),
    /// Whether the job is recorded here.
    Known(bool),
    /// What [`StoreAction::Gather`] found.
    Gathered {
        /// The sum.
        content: Content,
        /// A slice in it yields to a later job: both may hold the same report.
        contested: bool,
        /// Reports in the range were aggregated with other parameters.
        others: bool,
    },
    /// What [`StoreAction::GatherJobs`] found.
    Jobs(JobsInRange),
    /// What [`StoreAction::Totals`] found.
    Totals(Box<StoreTotals>),
    /// The range is frozen for the attempt.
    Frozen,
    /// The range holds something else than was gathered.
    Moved,
    /// The attempt has ended, or another one holds a range.
    Stale,
    /// Sealed or thawed.
    Done,
    /// The sender's frozen numbers are not this store's: a defect. Nothing was done.
    WrongPlacement,
    /// The store's reports are all too old, and it is about to forget them. Nothing was written.
    Expired,
    /// These reports were begun otherwise before; all others are bound now.
    Begun(Vec<ReportId>),
}

/// A request to a `JobStore`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum JobStoreRequest {
    /// Bind a job id to one body. Idempotent: the first claim counts.
    Claim {
        /// The task's frozen numbers.
        placement: Placement,
        /// The job.
        job: AggregationJobId,
        /// SHA-256 of its request.
        digest: RequestDigest,
        /// Reports too far from now for their owner to be asked.
        unasked: Vec<(ReportId, ReportError)>,
    },
    /// Keep a job of several rounds after its first, and bind its id to one body. Idempotent: the first to come counts.
    Begin {
        /// The task's frozen numbers.
        placement: Placement,
        /// The job.
        job: AggregationJobId,
        /// SHA-256 of its request.
        digest: RequestDigest,
        /// The reports that wait for a continuation, in the order of the request.
        waiting: Vec<ReportId>,
        /// What they wait with. Secret.
        #[serde(with = "crate::b64::serde_b64")]
        state: Vec<u8>,
        /// The answer to the leader.
        #[serde(with = "crate::b64::serde_b64")]
        answer: Vec<u8>,
    },
    /// Take a job's next step, and bind it to one body. Idempotent by digest, until the step's end.
    BeginStep {
        /// The job.
        job: AggregationJobId,
        /// The step.
        step: u16,
        /// SHA-256 of the continuation.
        digest: RequestDigest,
        /// The reports that the leader continues, in its order.
        reports: Vec<ReportId>,
    },
    /// The step was taken: keep its answer, and nothing to wait with. Idempotent: the first to come counts.
    EndStep {
        /// The job.
        job: AggregationJobId,
        /// The step.
        step: u16,
        /// SHA-256 of the continuation.
        digest: RequestDigest,
        /// The answer to the leader.
        #[serde(with = "crate::b64::serde_b64")]
        answer: Vec<u8>,
    },
    /// The leader deleted a job: forget what its reports wait with. Idempotent. The id stays bound.
    Forget(AggregationJobId),
    /// Is this job id bound? Reads only.
    Knows(AggregationJobId),
    /// The task is gone: forget everything. Idempotent.
    Purge,
    /// What would [`Self::Begin`] be answered, were it a repeat? Unknown if the id is free. Reads only.
    Begun {
        /// The job.
        job: AggregationJobId,
        /// SHA-256 of its request.
        digest: RequestDigest,
    },
    /// About a job that is answered later, or might be.
    Deferred(DeferredRequest),
}

/// What a `JobStore` answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum JobStoreResponse {
    /// The id is bound to this body; these reports are refused unasked, as the first claim had it.
    Claimed(Vec<(ReportId, ReportError)>),
    /// The id is bound to another body.
    Conflict,
    /// What the leader was answered, or is to be.
    Answered(#[serde(with = "crate::b64::serde_b64")] Vec<u8>),
    /// The job is past its initialization.
    Continued,
    /// The leader deleted the job.
    Deleted,
    /// There is no such job.
    Unknown,
    /// The step is not the next one, or it was taken with another body.
    StepMismatch,
    /// A report does not wait, is named twice, or comes out of order. Nothing was written.
    NotWaiting,
    /// The step is this body's.
    Step {
        /// SHA-256 of the request that began the job.
        digest: RequestDigest,
        /// What was kept then. Secret.
        #[serde(with = "crate::b64::serde_b64")]
        state: Vec<u8>,
    },
    /// Whether the id is bound.
    Known(bool),
    /// Done.
    Done,
    /// The job is one that is answered later, and is continued so, too.
    IsDeferred,
    /// How far a job is that is answered later.
    Deferred(DeferredState),
    /// A job that is answered later is forgotten.
    Forgotten {
        /// How many pieces it has.
        pieces: u32,
    },
}

/// A request to a task's ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LedgerRequest {
    /// Register a store of a time group before its first commit. Idempotent.
    Open {
        /// The task's frozen numbers.
        placement: Placement,
        /// Field of the task's shares.
        field: FieldKind,
        /// The store.
        store: StoreId,
    },
    /// A store answered Busy: bring that attempt to its end if nobody is working on it. Idempotent.
    Settle {
        /// The task's frozen numbers.
        placement: Placement,
        /// Field of the task's shares.
        field: FieldKind,
        /// The store that answered.
        store: StoreId,
        /// The attempt met.
        attempt: u64,
    },
    /// The leader deleted this job. Idempotent; nothing else happens until a collection, or until another job brings
    /// its reports again.
    Release {
        /// The task's frozen numbers.
        placement: Placement,
        /// The job.
        job: AggregationJobId,
    },
    /// The leader deleted a job that was answered later: these are its pieces. As [`LedgerRequest::Release`] of each.
    ReleasePieces {
        /// The task's frozen numbers.
        placement: Placement,
        /// The pieces.
        pieces: Vec<AggregationJobId>,
    },
    /// Which of these jobs did the leader delete? Reads only.
    Released(Vec<AggregationJobId>),
    /// Collect a batch. Idempotent by the request's digest.
    Collect(Box<Collect>),
    /// What was the request with this digest answered? Reads only.
    Answer(RequestDigest),
    /// The leader deleted an aggregate share: forget the answer, not that its batch was collected. Idempotent.
    ForgetAnswer(RequestDigest),
    /// A store forgets what is too old. Idempotent by store and epoch; the last word counts.
    Expired {
        /// The task's frozen numbers.
        placement: Placement,
        /// The store.
        store: StoreId,
        /// The epoch of arrival, 0 for a store of a time group, which then ends.
        epoch: u32,
        /// Reports that no collection asked for.
        uncollected: u64,
        /// What became of all reports of a store that ends. They are counted once.
        totals: Box<Totals>,
    },
    /// Count what became of reports of a job that no store was asked about. Idempotent by job and digest.
    Note {
        /// The task's frozen numbers.
        placement: Placement,
        /// The job.
        job: AggregationJobId,
        /// SHA-256 of its request.
        digest: RequestDigest,
        /// The counts.
        tally: Tally,
    },
    /// Count a request of the task's leader that was refused. Not idempotent.
    Refused(Box<Refusal>),
    /// How the task is doing: asks some of its stores, and says where to go on. Reads only.
    Status {
        /// The task's frozen numbers.
        placement: Placement,
        /// Field of the task's shares.
        field: FieldKind,
        /// Also what is in the batches.
        batches: bool,
        /// The last store that was asked, and all before it. With the first stores comes what the ledger itself knows.
        after: Option<StoreId>,
    },
    /// The task is gone: have all its stores forget everything, then forget too. Idempotent. Busy: a part is done, come
    /// again.
    Purge {
        /// The task's frozen numbers.
        placement: Placement,
        /// Field of the task's shares.
        field: FieldKind,
        /// It comes once more when no Worker can know the task any longer. Until then the ledger stays, and nothing is
        /// collected: what late requests bring back must not be given out a second time.
        again: bool,
    },
}

/// A leader's aggregate-share request, with what the ledger needs to answer it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Collect {
    /// SHA-256 of the request.
    pub digest: RequestDigest,
    /// The task's frozen numbers.
    pub placement: Placement,
    /// Field of the task's shares.
    pub field: FieldKind,
    /// The batch buckets that are collected.
    pub range: BucketRange,
    /// Those of them that count. The rest is given up: nobody collects it later.
    pub counts: BucketRange,
    /// A batch is collected once, whatever the aggregation parameter.
    pub once: bool,
    /// The aggregation parameter.
    pub param: Vec<u8>,
    /// Reports the leader counts.
    pub report_count: u64,
    /// Their checksum.
    pub checksum: Checksum,
    /// The task's smallest batch.
    pub min_batch_size: u64,
    /// The task's largest batch, if it has one. DAP-09 fixed-size only.
    pub max_batch_size: Option<u64>,
    /// Distinct aggregation parameters per batch.
    pub max_batch_query_count: u64,
    /// Whom the share is sealed to.
    #[serde(with = "hpke_config_bytes")]
    pub collector_hpke_config: HpkeConfig,
    /// HPKE info string.
    #[serde(with = "crate::b64::serde_b64")]
    pub hpke_info: Vec<u8>,
    /// HPKE associated data.
    #[serde(with = "crate::b64::serde_b64")]
    pub hpke_aad: Vec<u8>,
}

/// An HPKE configuration as its wire encoding: its own serde form is for people.
mod hpke_config_bytes {
    use serde::{Deserializer, Serializer, de::Error as _};

    use crate::{
        b64::serde_b64,
        codec::{Reader, Writer},
        hpke::HpkeConfig,
    };

    pub fn serialize<S: Serializer>(config: &HpkeConfig, s: S) -> Result<S::Ok, S::Error> {
        let mut w = Writer::new();
        config.write(&mut w);
        serde_b64::serialize(&w.finish().map_err(serde::ser::Error::custom)?, s)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<HpkeConfig, D::Error> {
        Reader::all(&serde_b64::deserialize(d)?, HpkeConfig::read).map_err(D::Error::custom)
    }
}

/// What a ledger answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LedgerResponse {
    /// The store is registered; these ranges of its group are collected, each with its parameter.
    Opened(Vec<(BucketRange, Vec<u8>)>),
    /// The store's reports are all too old.
    Expired,
    /// Which of the jobs asked about were deleted.
    Released(Vec<AggregationJobId>),
    /// How the task is doing.
    Status(Box<LedgerStatus>),
    /// Done.
    Done,
    /// The encoded, sealed aggregate share: the same bytes for the same request, for ever.
    Share(#[serde(with = "crate::b64::serde_b64")] Vec<u8>),
    /// No answer of that digest is kept.
    Unknown,
    /// The leader's fault. Nothing was written.
    Refused(Abort),
    /// Another collection runs, or something did not answer: the same request will succeed later.
    Busy,
}

/// All stores of a task that has one group.
pub fn whole_task_stores(shards: u16) -> Vec<StoreId> {
    (0..shards).map(|shard| StoreId { group: Group::Whole, shard }).collect()
}

#[cfg(test)]
mod tests;
