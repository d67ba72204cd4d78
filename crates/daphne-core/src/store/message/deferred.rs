//! What a `JobStore` is asked about jobs that are answered later, and what it says. DAP-18 §3.1.

use serde::{Deserialize, Serialize};

use super::RequestDigest;
use crate::{
    error::{Abort, Error, Internal},
    ids::{AggregationJobId, ReportId},
    store::placement::Placement,
};

/// A request about a job that is answered later, or might be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeferredRequest {
    /// What became of a job that is kept, whether it was answered later or at once? Unknown if none is. It is idempotent: a
    /// job that failed by our own fault is tried again when the request that began it comes again.
    Poll {
        /// The job.
        job: AggregationJobId,
        /// How whoever asks names what it wants.
        asked: Asked,
    },
    /// Keep a job, to be worked on piece by piece. Idempotent: the first to come counts, with its pieces.
    Begin {
        /// The task's frozen numbers.
        placement: Placement,
        /// The job.
        job: AggregationJobId,
        /// SHA-256 of its request.
        digest: RequestDigest,
        /// Whether its VDAF has several rounds.
        has_rounds: bool,
        /// Reports in a piece, but for the last.
        piece_len: u32,
        /// Number of pieces, at least one.
        pieces: u32,
        /// The request. What is secret in it is sealed.
        #[serde(with = "crate::b64::serde_b64")]
        body: Vec<u8>,
    },
    /// Take a kept job's next step, and bind it to one body. Idempotent by digest.
    Continue {
        /// The job.
        job: AggregationJobId,
        /// The step.
        step: u16,
        /// SHA-256 of the continuation.
        digest: RequestDigest,
        /// The reports that the leader continues, in its order.
        reports: Vec<ReportId>,
        /// The continuation.
        #[serde(with = "crate::b64::serde_b64")]
        body: Vec<u8>,
    },
}

/// What a poll asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Asked {
    /// The answer to this step.
    Step(u16),
    /// The current answer, of the job that began with the body of this SHA-256.
    Body(RequestDigest),
}

/// An encoded answer to a piece.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EncodedAnswer(#[serde(with = "crate::b64::serde_b64")] pub Vec<u8>);

/// How far a job is that is answered later.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeferredState {
    /// It is being worked on.
    Pending {
        /// The step.
        step: u16,
    },
    /// The step is done: the answers to its pieces, in order.
    Ready {
        /// The answers.
        answers: Vec<EncodedAnswer>,
    },
    /// The step came to nothing.
    Failed(DeferredFailure),
}

/// Why a job that was to be answered later has no answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeferredFailure {
    /// The leader's fault.
    Abort(Abort),
    /// Ours: something was not available, however often it was tried.
    Unavailable,
    /// Ours: a defect.
    Broken,
}

impl From<&Error> for DeferredFailure {
    fn from(error: &Error) -> Self {
        match error {
            Error::Abort(abort) => Self::Abort(abort.clone()),
            Error::Internal(Internal::Unavailable(_) | Internal::Overloaded(_)) => {
                Self::Unavailable
            }
            Error::Internal(Internal::Broken(_)) => Self::Broken,
        }
    }
}

impl From<DeferredFailure> for Error {
    fn from(failure: DeferredFailure) -> Self {
        match failure {
            DeferredFailure::Abort(abort) => abort.into(),
            DeferredFailure::Unavailable => {
                Internal::Unavailable("a deferred job was tried too often".to_owned()).into()
            }
            DeferredFailure::Broken => {
                Internal::Broken("a deferred job failed; the log of its work says why".to_owned())
                    .into()
            }
        }
    }
}
