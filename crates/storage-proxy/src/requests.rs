//! What may be sent to an object: its answer, and whether it may be sent again.
//!
//! Each message is judged by name, so that a new one does not compile until somebody has said what a repeat of it does.

use daphne_core::store::{
    config_store::{ConfigRequest, ConfigResponse, keys::KeyRequest, peers::PeerRequest},
    message::{
        AggregateStoreRequest, AggregateStoreResponse, DeferredRequest, JobStoreRequest,
        JobStoreResponse, LedgerRequest, LedgerResponse, StoreAction,
    },
};
use serde::{Serialize, de::DeserializeOwned};

use crate::retry::Idempotence;

/// A message to an object.
pub trait ObjectRequest: Serialize {
    /// What the object answers.
    type Answer: DeserializeOwned;

    /// Whether this message may be carried out more than once.
    fn idempotence(&self) -> Idempotence;
}

impl ObjectRequest for AggregateStoreRequest {
    type Answer = AggregateStoreResponse;

    fn idempotence(&self) -> Idempotence {
        match &self.action {
            // The row of the job id and digest answers a repeat.
            StoreAction::Commit(_) => Idempotence::Idempotent,
            // The same reports, verified for the same, are bound already.
            StoreAction::Begin(_) => Idempotence::Idempotent,
            // They only read.
            StoreAction::Gather { .. }
            | StoreAction::GatherJobs { .. }
            | StoreAction::KnowsJob(_)
            | StoreAction::Totals { .. } => Idempotence::Idempotent,
            // The attempt that holds the range is told "frozen" again, and one that has ended stays ended.
            StoreAction::Freeze { .. } => Idempotence::Idempotent,
            // What is sealed or thawed stays so.
            StoreAction::Seal { .. } | StoreAction::Thaw { .. } => Idempotence::Idempotent,
            // What is forgotten stays forgotten.
            StoreAction::Purge => Idempotence::Idempotent,
        }
    }
}

impl ObjectRequest for LedgerRequest {
    type Answer = LedgerResponse;

    fn idempotence(&self) -> Idempotence {
        match self {
            // A store is registered once.
            Self::Open { .. } => Idempotence::Idempotent,
            // It names an attempt, which ends once.
            Self::Settle { .. } => Idempotence::Idempotent,
            // The first deletion of a job is the one that is kept.
            Self::Release { .. } => Idempotence::Idempotent,
            // As for one of them.
            Self::ReleasePieces { .. } => Idempotence::Idempotent,
            // They only read.
            Self::Released(_) | Self::Status { .. } | Self::Answer(_) => Idempotence::Idempotent,
            // What is forgotten stays forgotten.
            Self::ForgetAnswer(_) => Idempotence::Idempotent,
            // A job and its request are noted once.
            Self::Note { .. } => Idempotence::Idempotent,
            // Each time one more.
            Self::Refused(_) => Idempotence::Once,
            // The last word about a store and an epoch counts.
            Self::Expired { .. } => Idempotence::Idempotent,
            // What is forgotten stays forgotten.
            Self::Purge { .. } => Idempotence::Idempotent,
            // A decision is kept by the request's digest and answers a repeat; one that comes earlier is told "busy".
            Self::Collect(_) => Idempotence::Idempotent,
        }
    }
}

impl ObjectRequest for JobStoreRequest {
    type Answer = JobStoreResponse;

    fn idempotence(&self) -> Idempotence {
        match self {
            // The same body claims the same id again.
            Self::Claim { .. } => Idempotence::Idempotent,
            // The first to begin a job or to end its step is the one that is kept; a step is given to the same body again.
            Self::Begin { .. } | Self::BeginStep { .. } | Self::EndStep { .. } => {
                Idempotence::Idempotent
            }
            // What is forgotten stays forgotten.
            Self::Forget(_) => Idempotence::Idempotent,
            // They only read.
            Self::Knows(_) | Self::Begun { .. } => Idempotence::Idempotent,
            // The first to begin a job is the one that is kept, and a step is given to one body. A poll may have what failed
            // be tried again, which can be tried as often as one likes.
            Self::Deferred(
                DeferredRequest::Poll { .. }
                | DeferredRequest::Begin { .. }
                | DeferredRequest::Continue { .. },
            ) => Idempotence::Idempotent,
            // What is forgotten stays forgotten.
            Self::Purge => Idempotence::Idempotent,
        }
    }
}

impl ObjectRequest for ConfigRequest {
    type Answer = ConfigResponse;

    fn idempotence(&self) -> Idempotence {
        match self {
            // They only read.
            Self::GetTask(_)
            | Self::ListTasks { .. }
            | Self::ListHpkeKeys
            | Self::ListUncopiedHpkeKeys => Idempotence::Idempotent,
            // The same parameters again are told "created".
            Self::CreateTask { .. } => Idempotence::Idempotent,
            // A deleted task stays deleted. A repeat says that it did not exist, which the operator can bear.
            Self::DeleteTask { .. } => Idempotence::Idempotent,
            // A token that is there is not added again, nor one that is gone removed: a repeat of that says so, which the
            // operator can bear. One that was issued, and works, is the one to have.
            Self::Tokens(_) => Idempotence::Idempotent,
            // What is set stays set.
            Self::SetExpiration(_) => Idempotence::Idempotent,
            // What is sealed with the newest root key stays so.
            Self::Secrets(_) => Idempotence::Idempotent,
            Self::Keys(request) => match request {
                // It only reads.
                KeyRequest::ReadPolicy => Idempotence::Idempotent,
                // A key knows the request that made it, and an imported one is known by its public key.
                KeyRequest::Make { .. } | KeyRequest::Import { .. } => Idempotence::Idempotent,
                // A step that was taken is not taken again.
                KeyRequest::Change { .. } => Idempotence::Idempotent,
                // The request that rotated last is known.
                KeyRequest::Rotate { .. } => Idempotence::Idempotent,
                // What is set stays set.
                KeyRequest::SetPolicy { .. } => Idempotence::Idempotent,
            },
            // It only reads.
            Self::Peers(PeerRequest::List) => Idempotence::Idempotent,
            // What is stored already is told "stored".
            Self::Peers(PeerRequest::Put { .. }) => Idempotence::Idempotent,
            // A removed peer stays removed. A repeat says that it did not exist, which the operator can bear.
            Self::Peers(PeerRequest::Remove { .. }) => Idempotence::Idempotent,
        }
    }
}
