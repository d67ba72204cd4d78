//! Three kinds of error that never mix.
//!
//! - [`Abort`]: the peer's fault, answered with a 4xx problem document ([`crate::problem`]).
//! - [`ReportError`]: one report's fault, answered inside the message; the rest of the job goes on.
//! - [`Internal`]: ours; a 500 without a DAP URN, or a 503 when the same request will succeed later. The cause
//!   goes to the log and never to the peer.

use serde::{Deserialize, Serialize};

use crate::codec::DecodeError;

/// Why one report was refused. DAP-09 §4.5.1.2 (`PrepareError`), DAP-18 §4.1.
/// The code points differ by draft: [`crate::version::DapVersion::report_error_code`].
#[doc(alias = "PrepareError")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ReportError {
    /// Its batch was collected before it arrived.
    BatchCollected,
    /// Its id was aggregated before.
    ReportReplayed,
    /// It is too old for us to know whether it was aggregated before.
    ReportDropped,
    /// It was sealed for an HPKE configuration we do not have.
    HpkeUnknownConfigId,
    /// Its input share does not open.
    HpkeDecryptError,
    /// Its proof does not verify.
    #[doc(alias = "vdaf_prep_error")]
    VdafVerifyError,
    /// Its batch is full. DAP-09 only.
    BatchSaturated,
    /// It was made after the task ended.
    TaskExpired,
    /// Its plaintext is malformed.
    InvalidMessage,
    /// Its time is further in the future than clocks may differ. Its leader may send it again later.
    ReportTooEarly,
    /// It was made before the task began. DAP-18 only.
    TaskNotStarted,
    /// Its client used an outdated configuration. DAP-18 only.
    OutdatedConfig,
}

impl ReportError {
    /// Every kind, for tables and counters.
    pub const ALL: [Self; 12] = [
        Self::BatchCollected,
        Self::ReportReplayed,
        Self::ReportDropped,
        Self::HpkeUnknownConfigId,
        Self::HpkeDecryptError,
        Self::VdafVerifyError,
        Self::BatchSaturated,
        Self::TaskExpired,
        Self::InvalidMessage,
        Self::ReportTooEarly,
        Self::TaskNotStarted,
        Self::OutdatedConfig,
    ];

    /// Name in logs and metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::BatchCollected => "batch_collected",
            Self::ReportReplayed => "report_replayed",
            Self::ReportDropped => "report_dropped",
            Self::HpkeUnknownConfigId => "hpke_unknown_config_id",
            Self::HpkeDecryptError => "hpke_decrypt_error",
            Self::VdafVerifyError => "vdaf_verify_error",
            Self::BatchSaturated => "batch_saturated",
            Self::TaskExpired => "task_expired",
            Self::InvalidMessage => "invalid_message",
            Self::ReportTooEarly => "report_too_early",
            Self::TaskNotStarted => "task_not_started",
            Self::OutdatedConfig => "outdated_config",
        }
    }
}

/// What kind of mistake the peer made. The variants' numbers are stored: new kinds go to the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum AbortKind {
    /// The message is malformed or contradicts the task.
    InvalidMessage,
    /// No such task, or we do not have the asked role in it.
    UnrecognizedTask,
    /// No such aggregation job.
    UnrecognizedAggregationJob,
    /// The query does not name a valid set of batch buckets.
    BatchInvalid,
    /// The batch has too few (or too many) reports.
    InvalidBatchSize,
    /// The batch was queried with too many aggregation parameters. DAP-09 only.
    BatchQueriedTooManyTimes,
    /// The peer's report count or checksum differs from ours.
    BatchMismatch,
    /// The peer is at another step of the job.
    StepMismatch,
    /// The batch was collected, wholly or in part, by another query.
    BatchOverlap,
    /// The request's credentials are missing or wrong.
    UnauthorizedRequest,
    /// The same resource was created before with other content. No DAP type exists.
    Conflict,
    /// An id in the path is not the canonical base64url of its length. No DAP type exists.
    BadPath,
    /// Nothing lives at this path.
    NotFound,
    /// The resource does not have this method.
    MethodNotAllowed,
    /// The body's media type is not the one this resource reads.
    UnsupportedMediaType,
    /// The body is larger than this resource reads.
    BodyTooLarge,
    /// Anything else the peer did wrong outside of DAP, such as malformed JSON to the admin API.
    BadRequest,
    /// We opt out of the task that the leader brought along. taskprov-07 §4.4.
    InvalidTask,
    /// The request came over plain HTTP, for anyone on its way to read.
    PlainHttp,
    /// Whoever asks has asked too often. The same request will succeed later.
    TooManyRequests,
    /// The request asks for another media type than the resource has.
    NotAcceptable,
    /// The aggregation parameter is not one of the VDAF's. DAP-18 §4.3; DAP-09 has no word of its own for it.
    InvalidAggregationParameter,
    /// An extension of an aggregation or collection job is not known. DAP-18 only.
    UnsupportedExtension,
    /// The extensions of a collection job are not in order, or appear twice. DAP-18 only.
    InvalidExtension,
}

impl AbortKind {
    /// Every kind, for tables.
    pub const ALL: [Self; 24] = [
        Self::InvalidMessage,
        Self::UnrecognizedTask,
        Self::UnrecognizedAggregationJob,
        Self::BatchInvalid,
        Self::InvalidBatchSize,
        Self::BatchQueriedTooManyTimes,
        Self::BatchMismatch,
        Self::StepMismatch,
        Self::BatchOverlap,
        Self::UnauthorizedRequest,
        Self::Conflict,
        Self::BadPath,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::UnsupportedMediaType,
        Self::BodyTooLarge,
        Self::BadRequest,
        Self::InvalidTask,
        Self::PlainHttp,
        Self::TooManyRequests,
        Self::NotAcceptable,
        Self::InvalidAggregationParameter,
        Self::UnsupportedExtension,
        Self::InvalidExtension,
    ];
}

/// The peer's fault: the request is refused and nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Abort {
    /// What kind.
    pub kind: AbortKind,
    /// One sentence for the peer's operator. Never holds a secret, nor bytes of the request.
    pub detail: String,
}

impl Abort {
    /// An abort of that kind.
    pub fn new(kind: AbortKind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into() }
    }

    /// The message is malformed.
    pub fn invalid_message(detail: impl Into<String>) -> Self {
        Self::new(AbortKind::InvalidMessage, detail)
    }
}

impl From<DecodeError> for Abort {
    fn from(e: DecodeError) -> Self {
        Self::invalid_message(e.to_string())
    }
}

/// Our own failure.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Internal {
    /// Something we depend on did not answer, or is busy: the same request will succeed later.
    #[error("unavailable: {0}")]
    Unavailable(String),
    /// Something we depend on has more to do than it can: the same request will succeed later, but not at once.
    #[error("overloaded: {0}")]
    Overloaded(String),
    /// A defect or broken state; the text is for our own log.
    #[error("internal error: {0}")]
    Broken(String),
}

/// How handling a request can fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The peer's fault.
    Abort(Abort),
    /// Our fault.
    Internal(Internal),
}

impl From<Abort> for Error {
    fn from(a: Abort) -> Self {
        Self::Abort(a)
    }
}

impl From<Internal> for Error {
    fn from(i: Internal) -> Self {
        Self::Internal(i)
    }
}

impl From<DecodeError> for Error {
    fn from(e: DecodeError) -> Self {
        Self::Abort(e.into())
    }
}
