//! Jobs that are answered later, because they are too much for one request. DAP-18 §3.1, §4.5.3.2, §4.5.4.2.
//!
//! Such a job is a list of *pieces*, each a job of its own for those who commit it. What is here is which piece comes
//! next: the host takes it, works on it, and says how that ended. A piece has an id and a digest that follow from the
//! job's, so one that was cut off is taken again and meets what it left. Where a job is cut is recorded with it.
//!
//! A piece is counted as tried *before* it is worked on: what kills its host is not tried for ever.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::{Handled, current_epoch, find as find_claim, steps};
use crate::{
    error::Error,
    ids::{AggregationJobId, ReportId, TaskId},
    store::{
        DeferredPart, JobTables, StoreError, StoreResult,
        message::{
            Asked, DeferredFailure, DeferredRequest, DeferredState, EncodedAnswer,
            JobStoreResponse as Response, RequestDigest,
        },
        placement::Placement,
    },
    time::{Duration, Time},
};

/// Tries of one piece, in a row, before its job fails.
pub const TRIES_MAX: u32 = 10;
/// Seconds, at least, before a piece is tried again that did not say how it ended: its host died. Hosts take one thing
/// after the other, so one that is only slow is not overtaken.
const SILENCE_S: u64 = 10;
/// Most seconds between two tries.
const WAIT_MAX_S: u64 = 300;
/// Pieces that are forgotten at a time.
const FORGOTTEN_AT_A_TIME: u32 = 32;

/// A job that is answered later, without its request and its answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeferredJob {
    /// The task's frozen numbers.
    pub placement: Placement,
    /// The epoch that it arrived in, and is forgotten with.
    pub epoch: u32,
    /// SHA-256 of the request that began it.
    pub digest: RequestDigest,
    /// Whether its reports wait for a continuation.
    pub has_rounds: bool,
    /// Reports in a piece, but for the last.
    pub piece_len: u32,
    /// Number of pieces.
    pub pieces: u32,
    /// How many of them were ever taken, and may have left something in other objects.
    pub begun: u32,
    /// The step that is worked on, or was last.
    pub step: u16,
    /// SHA-256 of the continuation that took it.
    pub continuation: Option<RequestDigest>,
    /// Pieces of this step that are done; of a deleted job, those that were forgotten.
    pub done: u32,
    /// How far it is.
    pub status: DeferredStatus,
    /// How often the next piece was tried.
    pub tries: u32,
    /// When to work on it next.
    pub due: Option<Time>,
}

/// How far a job is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeferredStatus {
    /// Pieces of the step are left.
    Pending,
    /// All pieces of the step are answered.
    Ready,
    /// The step came to nothing.
    Failed(DeferredFailure),
    /// The leader deleted it.
    Deleted,
}

/// What one piece is answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PieceAnswer {
    /// The encoded answer.
    #[serde(with = "crate::b64::serde_b64")]
    pub answer: Vec<u8>,
    /// The reports that wait for a continuation, in order.
    pub waiting: Vec<ReportId>,
}

/// Something to do for a job, in one go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Work {
    /// The job.
    pub job: AggregationJobId,
    /// The task.
    pub task: TaskId,
    /// SHA-256 of the request that began the job.
    pub digest: RequestDigest,
    /// What.
    pub kind: WorkKind,
}

/// What there is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WorkKind {
    /// Begin the reports of a piece.
    Begin {
        /// The piece, from 0.
        piece: u32,
        /// Reports in each, but for the last.
        piece_len: u32,
        /// The whole job's request.
        body: Vec<u8>,
    },
    /// Continue those reports of a piece that the leader continues.
    Continue {
        /// The piece, from 0.
        piece: u32,
        /// The step.
        step: u16,
        /// SHA-256 of the continuation.
        continuation: RequestDigest,
        /// The reports of the piece that wait, in order.
        waiting: Vec<ReportId>,
        /// The whole job's continuation.
        body: Vec<u8>,
    },
    /// The job was deleted: have these pieces forget what their reports wait with.
    Forget {
        /// The pieces.
        pieces: Range<u32>,
    },
}

/// How work ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Done {
    /// The piece is answered.
    Piece(PieceAnswer),
    /// The pieces have forgotten.
    Forgotten,
}

/// A step of a job that has come to its end, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The job.
    pub job: AggregationJobId,
    /// Its step.
    pub step: u16,
    /// Number of pieces.
    pub pieces: u32,
    /// Why it failed, if it did.
    pub failure: Option<DeferredFailure>,
}

/// Answers one request.
pub(super) fn handle(
    tables: &mut impl JobTables,
    request: DeferredRequest,
    now: Time,
) -> StoreResult<Handled> {
    match request {
        DeferredRequest::Poll { job, asked } => poll(tables, &job, asked, now),
        DeferredRequest::Begin { placement, job, digest, has_rounds, piece_len, pieces, body } => {
            if let Some(mut known) = tables.deferred(&job)? {
                if known.digest != digest {
                    return Ok(plain(Response::Conflict));
                }
                if known.status != DeferredStatus::Deleted {
                    return answer(tables, &job, &known);
                }
                // SPEC: DAP-18 §3.2 has content that created a resource create one again when that is gone. A job of several
                // rounds is not begun a second time: what was committed for it is bound to its id.
                if known.has_rounds {
                    return Ok(plain(Response::Deleted));
                }
                // Its pieces are answered with what was recorded of them. They are cut as they were.
                known.restart(0, None, now);
                return keep(tables, &job, &known, &body);
            }
            if find_claim(tables, &job)?.is_some() || steps::is_known(tables, &job)? {
                return Ok(plain(Response::Conflict));
            }
            let (epoch, _) = current_epoch(tables, &placement, now)?;
            let new = DeferredJob {
                placement,
                epoch,
                digest,
                has_rounds,
                piece_len,
                pieces,
                begun: 0,
                step: 0,
                continuation: None,
                done: 0,
                status: DeferredStatus::Pending,
                tries: 0,
                due: Some(now),
            };
            keep(tables, &job, &new, &body)
        }
        DeferredRequest::Continue { job, step, digest, reports, body } => {
            let Some(mut known) = tables.deferred(&job)?.filter(DeferredJob::is_there) else {
                return Ok(plain(Response::Unknown));
            };
            if step == known.step && step > 0 {
                if known.continuation != Some(digest) {
                    return Ok(plain(Response::StepMismatch));
                }
                return try_again(tables, &job, known, now);
            }
            if Some(step) != known.step.checked_add(1) {
                return Ok(plain(Response::StepMismatch));
            }
            match known.status {
                DeferredStatus::Ready => {}
                DeferredStatus::Failed(_) => return answer(tables, &job, &known),
                // Nobody can have seen what it continues.
                DeferredStatus::Pending | DeferredStatus::Deleted => {
                    return Ok(plain(Response::StepMismatch));
                }
            }
            if !steps::is_subsequence(&reports, &all_waiting(tables, &job, &known)?) {
                return Ok(plain(Response::NotWaiting));
            }
            known.restart(step, Some(digest), now);
            keep(tables, &job, &known, &body)
        }
    }
}

/// Forgets a job's request and answers, not that it was. `None` if there is no such job.
pub(super) fn forget(
    tables: &mut impl JobTables,
    job: &AggregationJobId,
    now: Time,
) -> StoreResult<Option<Handled>> {
    let Some(mut known) = tables.deferred(job)? else { return Ok(None) };
    if known.is_there() {
        forget_request(tables, job)?;
        for piece in 0..known.pieces {
            tables.put_deferred_part(job, DeferredPart::Piece(piece), &[])?;
        }
        known.restart(known.step, known.continuation, now);
        known.status = DeferredStatus::Deleted;
        // What waits is secret, and lies with the pieces.
        known.due = known.due.filter(|_| known.has_rounds && known.begun > 0);
        tables.put_deferred(job, &known)?;
    }
    // All, also those that are not begun: a request to begin the job may be under way, and bring it back.
    let response = Response::Forgotten { pieces: known.pieces };
    Ok(Some(Handled { response, wake: known.due, erase: false }))
}

/// What is to be done now, if anything is, and counts the try.
pub(super) fn take(tables: &mut impl JobTables, now: Time) -> StoreResult<Option<Work>> {
    while let Some((job, due)) = tables.next_deferred()? {
        if due > now {
            break;
        }
        let mut known = tables
            .deferred(&job)?
            .ok_or_else(|| StoreError("a deferred job that is due is gone".to_owned()))?;
        if known.tries >= TRIES_MAX {
            // Its host died each time.
            known.fail(DeferredFailure::Broken);
            tables.put_deferred(&job, &known)?;
            continue;
        }
        known.tries += 1;
        known.due =
            Some(now.saturating_add(wait(known.tries).max(Duration::from_seconds(SILENCE_S))));
        if known.status == DeferredStatus::Pending && known.step == 0 {
            known.begun = known.begun.max(known.done + 1);
        }
        tables.put_deferred(&job, &known)?;
        let kind = known.next(tables, &job)?;
        let (task, digest) = (known.placement.task_id, known.digest);
        return Ok(Some(Work { job, task, digest, kind }));
    }
    Ok(None)
}

/// Takes note of how work ended. Returns what became of the job's step, if that was the last of it.
pub(super) fn end(
    tables: &mut impl JobTables,
    work: &Work,
    outcome: Result<Done, Error>,
    now: Time,
) -> StoreResult<Option<Ended>> {
    let job = &work.job;
    let Some(mut known) = tables.deferred(job)?.filter(|known| known.awaits(work)) else {
        // It was deleted meanwhile, or all of the task was.
        return Ok(None);
    };
    let mut ended = None;
    match outcome {
        Ok(Done::Piece(answer)) => {
            let bytes = postcard::to_allocvec(&answer).map_err(|e| StoreError(e.to_string()))?;
            tables.put_deferred_part(job, DeferredPart::Piece(known.done), &bytes)?;
            known.go_on(known.done + 1, known.pieces, now);
            if known.due.is_none() {
                known.status = DeferredStatus::Ready;
                forget_request(tables, job)?;
                ended = Some(known.ended(job, None));
            }
        }
        Ok(Done::Forgotten) => {
            if let WorkKind::Forget { pieces } = &work.kind {
                known.go_on(pieces.end, known.begun, now);
            }
        }
        Err(Error::Internal(_)) if known.tries < TRIES_MAX => {
            known.due = Some(now.saturating_add(wait(known.tries)));
        }
        Err(error) => {
            let failure = DeferredFailure::from(&error);
            if let DeferredFailure::Abort(_) = failure {
                // It is final, so nobody needs the request again.
                forget_request(tables, job)?;
            }
            ended = Some(known.ended(job, Some(failure.clone())));
            known.fail(failure);
        }
    }
    tables.put_deferred(job, &known)?;
    Ok(ended)
}

impl DeferredJob {
    fn is_there(&self) -> bool {
        self.status != DeferredStatus::Deleted
    }

    /// Begins a step with its first piece.
    fn restart(&mut self, step: u16, continuation: Option<RequestDigest>, now: Time) {
        (self.step, self.continuation) = (step, continuation);
        (self.status, self.done, self.tries, self.due) = (DeferredStatus::Pending, 0, 0, Some(now));
    }

    /// So much is done of so much.
    fn go_on(&mut self, done: u32, of: u32, now: Time) {
        (self.done, self.tries, self.due) = (done, 0, (done < of).then_some(now));
    }

    fn fail(&mut self, failure: DeferredFailure) {
        self.due = None;
        // What a deleted job leaves behind ends with its epoch.
        if self.is_there() {
            self.status = DeferredStatus::Failed(failure);
        }
    }

    fn ended(&self, job: &AggregationJobId, failure: Option<DeferredFailure>) -> Ended {
        Ended { job: *job, step: self.step, pieces: self.pieces, failure }
    }

    /// What comes next.
    fn next(&self, tables: &mut impl JobTables, job: &AggregationJobId) -> StoreResult<WorkKind> {
        let piece = self.done;
        if !self.is_there() {
            let end = self.begun.min(piece.saturating_add(FORGOTTEN_AT_A_TIME));
            return Ok(WorkKind::Forget { pieces: piece..end });
        }
        let body = tables.deferred_part(job, DeferredPart::Request)?;
        Ok(match self.continuation {
            None => WorkKind::Begin { piece, piece_len: self.piece_len, body },
            Some(continuation) => {
                let waiting = piece_answer(tables, job, piece)?.waiting;
                WorkKind::Continue { piece, step: self.step, continuation, waiting, body }
            }
        })
    }

    /// Whether this is what comes next.
    fn awaits(&self, work: &Work) -> bool {
        self.due.is_some()
            && match &work.kind {
                WorkKind::Begin { piece, .. } => {
                    self.is_there() && self.continuation.is_none() && self.done == *piece
                }
                WorkKind::Continue { piece, continuation, .. } => {
                    self.is_there()
                        && self.continuation == Some(*continuation)
                        && self.done == *piece
                }
                WorkKind::Forget { pieces } => !self.is_there() && self.done == pieces.start,
            }
    }
}

fn poll(
    tables: &mut impl JobTables,
    job: &AggregationJobId,
    asked: Asked,
    now: Time,
) -> StoreResult<Handled> {
    let Some(known) = tables.deferred(job)? else {
        let stepped = steps::poll(tables, job, asked)?;
        return Ok(plain(stepped.unwrap_or(Response::Unknown)));
    };
    match asked {
        Asked::Body(digest) if digest != known.digest => Ok(plain(Response::Conflict)),
        Asked::Body(_) if !known.is_there() && known.has_rounds => Ok(plain(Response::Deleted)),
        _ if !known.is_there() => Ok(plain(Response::Unknown)),
        Asked::Step(step) if step != known.step => Ok(plain(Response::StepMismatch)),
        Asked::Step(_) => {
            // Whoever asks is told what failed. If that was our own fault it is tried again meanwhile: leaders that only ask
            // need not send the request again.
            let told = answer(tables, job, &known)?.response;
            let handled = try_again(tables, job, known, now)?;
            Ok(Handled { response: told, ..handled })
        }
        Asked::Body(_) => try_again(tables, job, known, now),
    }
}

/// Answers a request that came again. What failed by our own fault is tried again.
fn try_again(
    tables: &mut impl JobTables,
    job: &AggregationJobId,
    mut known: DeferredJob,
    now: Time,
) -> StoreResult<Handled> {
    if let DeferredStatus::Failed(DeferredFailure::Unavailable | DeferredFailure::Broken) =
        known.status
    {
        (known.status, known.tries, known.due) = (DeferredStatus::Pending, 0, Some(now));
        tables.put_deferred(job, &known)?;
    }
    answer(tables, job, &known)
}

/// How far a job is. The host is to be woken each time: it may have died before it armed its alarm.
fn answer(
    tables: &mut impl JobTables,
    job: &AggregationJobId,
    known: &DeferredJob,
) -> StoreResult<Handled> {
    let state = match &known.status {
        DeferredStatus::Pending => DeferredState::Pending { step: known.step },
        DeferredStatus::Ready => {
            let answers = (0..known.pieces)
                .map(|piece| Ok(EncodedAnswer(piece_answer(tables, job, piece)?.answer)));
            DeferredState::Ready { answers: answers.collect::<StoreResult<_>>()? }
        }
        DeferredStatus::Failed(failure) => DeferredState::Failed(failure.clone()),
        DeferredStatus::Deleted => return Ok(plain(Response::Deleted)),
    };
    Ok(Handled { response: Response::Deferred(state), wake: known.due, erase: false })
}

/// Keeps a step's request, and has the host begin.
fn keep(
    tables: &mut impl JobTables,
    job: &AggregationJobId,
    known: &DeferredJob,
    body: &[u8],
) -> StoreResult<Handled> {
    tables.put_deferred_part(job, DeferredPart::Request, body)?;
    tables.put_deferred(job, known)?;
    answer(tables, job, known)
}

fn plain(response: Response) -> Handled {
    Handled { response, wake: None, erase: false }
}

fn forget_request(tables: &mut impl JobTables, job: &AggregationJobId) -> StoreResult<()> {
    tables.put_deferred_part(job, DeferredPart::Request, &[])
}

fn piece_answer(
    tables: &mut impl JobTables,
    job: &AggregationJobId,
    piece: u32,
) -> StoreResult<PieceAnswer> {
    postcard::from_bytes(&tables.deferred_part(job, DeferredPart::Piece(piece))?)
        .map_err(|e| StoreError(format!("the answer to a piece does not decode: {e}")))
}

/// The reports that wait, in the order of the request.
fn all_waiting(
    tables: &mut impl JobTables,
    job: &AggregationJobId,
    known: &DeferredJob,
) -> StoreResult<Vec<ReportId>> {
    let mut waiting = Vec::new();
    for piece in 0..known.pieces {
        waiting.extend(piece_answer(tables, job, piece)?.waiting);
    }
    Ok(waiting)
}

/// How long to wait after so many tries.
fn wait(tries: u32) -> Duration {
    let s = 1_u64.checked_shl(tries.saturating_sub(1)).unwrap_or(WAIT_MAX_S);
    Duration::from_seconds(s.min(WAIT_MAX_S))
}

#[cfg(test)]
mod tests;
