//! A `JobStore`: binds a DAP-09 job id to the one body it was first seen with (DAP-09 §4.5.1.2), for tasks whose
//! reports spread over time groups. There two bodies under one id can touch disjoint `AggregateStore`s, so none of
//! those could see the conflict.
//!
//! A claim also says which reports were refused without asking their owners, being far off in time: later, when they
//! are less so, a repeat of the job is to be answered alike.
//!
//! It also keeps the jobs of VDAFs of several rounds between these (`steps.rs`), and those that are answered later
//! (`deferred.rs`).

pub mod deferred;
mod steps;

use self::deferred::{Done, Ended, Work};
use super::{
    Claim, Database, JobTables, StoreResult,
    message::{JobStoreRequest, JobStoreResponse},
    placement::Placement,
};
use crate::{error::Error, ids::AggregationJobId, time::Time};

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
        JobStoreRequest::Knows(job) => db.transaction(|tables| {
            let known = find(tables, &job)?.is_some() || tables.deferred(&job)?.is_some();
            answer(JobStoreResponse::Known(known))
        }),
        JobStoreRequest::Begun { job, digest } => db.transaction(|tables| {
            if tables.deferred(&job)?.is_some() {
                return answer(JobStoreResponse::Conflict);
            }
            answer(steps::begun(tables, &job, &digest)?.unwrap_or(JobStoreResponse::Unknown))
        }),
        JobStoreRequest::Begin { placement, job, digest, waiting, state, answer } => db
            .transaction(|tables| {
                if tables.deferred(&job)?.is_some() {
                    return Ok(Handled {
                        response: JobStoreResponse::Conflict,
                        wake: None,
                        erase: false,
                    });
                }
                if let Some(response) = steps::begun(tables, &job, &digest)? {
                    return Ok(Handled { response, wake: None, erase: false });
                }
                let (epoch, wake) = current_epoch(tables, &placement, now)?;
                let response = steps::begin(tables, epoch, &job, digest, waiting, &state, answer)?;
                Ok(Handled { response, wake: Some(wake), erase: false })
            }),
        JobStoreRequest::BeginStep { job, step, digest, reports } => db.transaction(|tables| {
            if tables.deferred(&job)?.is_some() {
                return answer(JobStoreResponse::IsDeferred);
            }
            answer(steps::begin_step(tables, &job, step, digest, &reports)?)
        }),
        JobStoreRequest::EndStep { job, step, digest, answer: given } => {
            db.transaction(|tables| answer(steps::end_step(tables, &job, step, digest, given)?))
        }
        JobStoreRequest::Forget(job) => {
            db.transaction(|tables| match deferred::forget(tables, &job, now)? {
                Some(handled) => Ok(handled),
                None => answer(steps::forget(tables, &job)?),
            })
        }
        JobStoreRequest::Deferred(request) => {
            db.transaction(|tables| deferred::handle(tables, request, now))
        }
        JobStoreRequest::Claim { placement, job, digest, unasked } => db.transaction(|tables| {
            match find(tables, &job)? {
                Some(bound) if bound.digest == digest => {
                    return answer(JobStoreResponse::Claimed(bound.unasked));
                }
                Some(_) => return answer(JobStoreResponse::Conflict),
                None if tables.deferred(&job)?.is_some() => {
                    return answer(JobStoreResponse::Conflict);
                }
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

/// Forgets the jobs of epochs whose reports are all too old. Returns when to call again, which may be at once: then
/// [`take`] has something to do.
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
                let due = tables.next_deferred()?.map(|(_, due)| due);
                return Ok(Some(due.map_or(forget_at, |due| due.min(forget_at))));
            }
            tables.drop_epoch(epoch)?;
        }
        Ok(None)
    })
}

/// Takes something to do for a job that is answered later, if there is anything to do now. Whoever takes it says with
/// [`end`] how it ended, and takes nothing else before; if it dies, the same comes again, later.
///
/// # Errors
/// The database's; nothing was taken.
pub fn take<D: Database>(db: &D, now: Time) -> StoreResult<Option<Work>>
where
    D::Tables: JobTables,
{
    db.transaction(|tables| deferred::take(tables, now))
}

/// Takes note of how work ended, unless its job was deleted meanwhile. Returns the job's step if it has come to its end.
///
/// # Errors
/// The database's; the work comes again.
pub fn end<D: Database>(
    db: &D,
    work: &Work,
    outcome: Result<Done, Error>,
    now: Time,
) -> StoreResult<Option<Ended>>
where
    D::Tables: JobTables,
{
    db.transaction(|tables| deferred::end(tables, work, outcome, now))
}

fn find(tables: &mut impl JobTables, job: &AggregationJobId) -> StoreResult<Option<Claim>> {
    for (epoch, _) in tables.epochs()?.into_iter().rev() {
        if let Some(claim) = tables.claim(epoch, job)? {
            return Ok(Some(claim));
        }
    }
    Ok(None)
}
