//! Jobs of VDAFs of several rounds, between one request and the next. DAP-09 §4.5.2.2.
//!
//! A continuation takes its step *before* anything of it is committed, so that of two that differ one alone can be:
//! what it commits is recorded under the digest of both its requests. Whoever is cut off is repeated by the leader: the
//! same bytes are given what was kept, come to the same, and meet what they committed.

use crate::{
    ids::{AggregationJobId, ReportId},
    store::{
        JobTables, SteppedJob, SteppedJobBody, StoreResult,
        message::{Asked, JobStoreResponse as Response, RequestDigest},
    },
};

/// What a repeat of the request that began a job is answered, or another one under its id; `None` if the id is free.
pub(super) fn begun(
    tables: &mut impl JobTables,
    job: &AggregationJobId,
    digest: &RequestDigest,
) -> StoreResult<Option<Response>> {
    let Some((epoch, stepped)) = find(tables, job)? else { return Ok(None) };
    Ok(Some(if stepped.digest != *digest {
        Response::Conflict
    } else if stepped.deleted {
        Response::Deleted
    } else if stepped.continuation.is_some() {
        Response::Continued
    } else {
        Response::Answered(tables.stepped_answer(epoch, job)?)
    }))
}

/// The last answer of a job, or why there is none; `None` if there is no such job. DAP-18 §3.1, §4.5.3.2.
pub(super) fn poll(
    tables: &mut impl JobTables,
    job: &AggregationJobId,
    asked: Asked,
) -> StoreResult<Option<Response>> {
    let Some((epoch, stepped)) = find(tables, job)? else { return Ok(None) };
    Ok(Some(match asked {
        Asked::Body(digest) if digest != stepped.digest => Response::Conflict,
        Asked::Body(_) if stepped.deleted => Response::Deleted,
        Asked::Step(_) if stepped.deleted => Response::Unknown,
        Asked::Step(step) if step != stepped.step => Response::StepMismatch,
        Asked::Step(_) | Asked::Body(_) => Response::Answered(tables.stepped_answer(epoch, job)?),
    }))
}

/// Whether there is such a job.
pub(super) fn is_known(tables: &mut impl JobTables, job: &AggregationJobId) -> StoreResult<bool> {
    Ok(find(tables, job)?.is_some())
}

/// Keeps a new job.
pub(super) fn begin(
    tables: &mut impl JobTables,
    epoch: u32,
    job: &AggregationJobId,
    digest: RequestDigest,
    waiting: Vec<ReportId>,
    state: &[u8],
    answer: Vec<u8>,
) -> StoreResult<Response> {
    let stepped = SteppedJob { digest, step: 0, continuation: None, waiting, deleted: false };
    tables.put_stepped(epoch, job, &stepped, Some(SteppedJobBody { state, answer: &answer }))?;
    Ok(Response::Answered(answer))
}

/// Gives the next step to a continuation, or says what became of the step it names.
pub(super) fn begin_step(
    tables: &mut impl JobTables,
    job: &AggregationJobId,
    step: u16,
    digest: RequestDigest,
    reports: &[ReportId],
) -> StoreResult<Response> {
    let Some((epoch, mut stepped)) = find(tables, job)?.filter(|(_, s)| !s.deleted) else {
        return Ok(Response::Unknown);
    };
    if step == stepped.step && step > 0 {
        return Ok(if stepped.continuation == Some(digest) {
            Response::Answered(tables.stepped_answer(epoch, job)?)
        } else {
            Response::StepMismatch
        });
    }
    if Some(step) != stepped.step.checked_add(1) {
        return Ok(Response::StepMismatch);
    }
    if !is_subsequence(reports, &stepped.waiting) {
        return Ok(Response::NotWaiting);
    }
    let is_taken = stepped.step == 0 && stepped.continuation.is_some();
    if is_taken && stepped.continuation != Some(digest) {
        return Ok(Response::StepMismatch);
    }
    if !is_taken {
        stepped.continuation = Some(digest);
        tables.put_stepped(epoch, job, &stepped, None)?;
    }
    let state = tables.stepped_state(epoch, job)?;
    Ok(Response::Step { digest: stepped.digest, state })
}

/// Ends a step that its continuation has committed.
pub(super) fn end_step(
    tables: &mut impl JobTables,
    job: &AggregationJobId,
    step: u16,
    digest: RequestDigest,
    answer: Vec<u8>,
) -> StoreResult<Response> {
    let Some((epoch, mut stepped)) = find(tables, job)?.filter(|(_, s)| !s.deleted) else {
        return Ok(Response::Unknown);
    };
    if stepped.continuation != Some(digest) {
        return Ok(Response::StepMismatch);
    }
    if stepped.step == step {
        return Ok(Response::Answered(tables.stepped_answer(epoch, job)?));
    }
    stepped.step = step;
    stepped.waiting.clear();
    let body = SteppedJobBody { state: &[], answer: &answer };
    tables.put_stepped(epoch, job, &stepped, Some(body))?;
    Ok(Response::Answered(answer))
}

/// Forgets what a job waits with, not that it was.
pub(super) fn forget(tables: &mut impl JobTables, job: &AggregationJobId) -> StoreResult<Response> {
    if let Some((epoch, mut stepped)) = find(tables, job)?.filter(|(_, s)| !s.deleted) {
        stepped.deleted = true;
        stepped.waiting.clear();
        let body = SteppedJobBody { state: &[], answer: &[] };
        tables.put_stepped(epoch, job, &stepped, Some(body))?;
    }
    Ok(Response::Done)
}

fn find(
    tables: &mut impl JobTables,
    job: &AggregationJobId,
) -> StoreResult<Option<(u32, SteppedJob)>> {
    for (epoch, _) in tables.epochs()?.into_iter().rev() {
        if let Some(stepped) = tables.stepped(epoch, job)? {
            return Ok(Some((epoch, stepped)));
        }
    }
    Ok(None)
}

/// Whether `some` are among `all`, in their order and each once. DAP-09 §4.5.2.2.
pub(super) fn is_subsequence(some: &[ReportId], all: &[ReportId]) -> bool {
    let mut rest = all.iter();
    some.iter().all(|id| rest.any(|other| other == id))
}
