//! A `JobStore`: binds a DAP-09 job id to the one body it was first seen with (DAP-09 §4.5.1.2), for tasks whose
//! reports spread over time groups. There two bodies under one id can touch disjoint `AggregateStore`s, so none of
//! those could see the conflict.

use super::{
    Database, JobTables, StoreResult,
    message::{JobStoreRequest, JobStoreResponse},
};

/// Handles one request in one transaction.
///
/// # Errors
/// The database's; nothing was written.
pub fn handle<D: Database>(db: &D, request: JobStoreRequest) -> StoreResult<JobStoreResponse>
where
    D::Tables: JobTables,
{
    db.transaction(|tables| match request {
        JobStoreRequest::Knows(job) => Ok(JobStoreResponse::Known(tables.claim(&job)?.is_some())),
        JobStoreRequest::Claim { job, digest } => match tables.claim(&job)? {
            Some(bound) if bound == digest => Ok(JobStoreResponse::Claimed),
            Some(_) => Ok(JobStoreResponse::Conflict),
            None => {
                tables.put_claim(&job, &digest)?;
                Ok(JobStoreResponse::Claimed)
            }
        },
    })
}
