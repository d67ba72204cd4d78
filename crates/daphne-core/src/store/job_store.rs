//! A `JobStore`: binds a DAP-09 job id to the one body it was first seen with (DAP-09 §4.5.1.2), for tasks whose
//! reports spread over time groups. There two bodies under one id can touch disjoint `AggregateStore`s, so none of
//! those could see the conflict.
//!
//! A claim also says which reports were refused without asking their owners, being far off in time: later, when they
//! are less so, a repeat of the job is to be answered alike.
//!
//! It also keeps the jobs of VDAFs of several rounds between these (`steps.rs`).

mod steps;

use super::{
    Claim, Database, JobTables, StoreResult,
    message::{JobStoreRequest, JobStoreResponse},
    placement::Placement,
};
use crate::{ids::AggregationJobId, time::Time};

/// The outcome of a request, for the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handled {
    /// What to answer.
    pub response: JobStoreResponse,
    /// Have [`alarm`] called at this time, or earlier.
    pub wake: Option<Time>,
    /// Delete everything stored.
    pub erase: bool,
}

/// Handles one request in one transaction.
///
/// # Errors
/// The database's; nothing was written.
pub fn handle<D: Database>(db: &D, request: JobStoreRequest, now: Time) -> StoreResult<Handled>
where
    D::Tables: JobTables,
{
    let answer = |response| Ok(Handled { response, wake: None, erase: false });
    match request {
        JobStoreRequest::Knows(job) => {
            db.transaction(|tables| answer(JobStoreResponse::Known(find(tables, &job)?.is_some())))
        }
        JobStoreRequest::Begun { job, digest } => db.transaction(|tables| {
            answer(steps::begun(tables, &job, &digest)?.unwrap_or(JobStoreResponse::Unknown))
        }),
        JobStoreRequest::Begin { placement, job, digest, waiting, state, answer } => db
            .transaction(|tables| {
                if let Some(response) = steps::begun(tables, &job, &digest)? {
                    return Ok(Handled { response, wake: None, erase: false });
                }
                let (epoch, wake) = current_epoch(tables, &placement, now)?;
                let response = steps::begin(tables, epoch, &job, digest, waiting, &state, answer)?;
                Ok(Handled { response, wake: Some(wake), erase: false })
            }),
        JobStoreRequest::BeginStep { job, step, digest, reports } => db
            .transaction(|tables| answer(steps::begin_step(tables, &job, step, digest, &reports)?)),
        JobStoreRequest::EndStep { job, step, digest, answer: given } => {
            db.transaction(|tables| answer(steps::end_step(tables, &job, step, digest, given)?))
        }
        JobStoreRequest::Forget(job) => {
            db.transaction(|tables| answer(steps::forget(tables, &job)?))
        }
        JobStoreRequest::Claim { placement, job, digest, unasked } => db.transaction(|tables| {
            match find(tables, &job)? {
                Some(bound) if bound.digest == digest => {
                    return answer(JobStoreResponse::Claimed(bound.unasked));
                }
                Some(_) => return answer(JobStoreResponse::Conflict),
                None => {}
            }
            let (epoch, wake) = current_epoch(tables, &placement, now)?;
            let claim = Claim { digest, unasked };
            tables.put_claim(epoch, &job, &claim)?;
            let response = JobStoreResponse::Claimed(claim.unasked);
            Ok(Handled { response, wake: Some(wake), erase: false })
        }),
        JobStoreRequest::Purge => {
            Ok(Handled { response: JobStoreResponse::Done, wake: None, erase: true })
        }
    }
}

/// The epoch of what arrives now, its tables made if it has none, and when to be woken. The latter each time: a crash
/// may have come between an epoch's first row and its alarm.
fn current_epoch(
    tables: &mut impl JobTables,
    placement: &Placement,
    now: Time,
) -> StoreResult<(u32, Time)> {
    let oldest = tables.epochs()?.first().map(|(_, forget_at)| *forget_at);
    let latest = tables.epochs()?.last().map(|(epoch, _)| *epoch);
    // A clock that went back does not bring an old epoch back.
    let epoch = latest.map_or(placement.epoch(now), |latest| latest.max(placement.epoch(now)));
    let forget_at = placement.epoch_deadline(epoch);
    if latest != Some(epoch) {
        tables.create_epoch(epoch, forget_at)?;
    }
    Ok((epoch, oldest.unwrap_or(forget_at)))
}

/// Forgets the jobs of epochs whose reports are all too old. Returns when to call again.
///
/// # Errors
/// The database's; call it again.
pub fn alarm<D: Database>(db: &D, now: Time) -> StoreResult<Option<Time>>
where
    D::Tables: JobTables,
{
    db.transaction(|tables| {
        for (epoch, forget_at) in tables.epochs()? {
            if forget_at > now {
                return Ok(Some(forget_at));
            }
            tables.drop_epoch(epoch)?;
        }
        Ok(None)
    })
}

fn find(tables: &mut impl JobTables, job: &AggregationJobId) -> StoreResult<Option<Claim>> {
    for (epoch, _) in tables.epochs()?.into_iter().rev() {
        if let Some(claim) = tables.claim(epoch, job)? {
            return Ok(Some(claim));
        }
    }
    Ok(None)
}
