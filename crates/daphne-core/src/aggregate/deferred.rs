//! Aggregation jobs that are answered later. DAP-18 §3.1, §4.5.3.2, §4.5.4.2.
//!
//! A job that is too much for one request is cut into pieces, each of which is an ordinary job: it is begun by
//! [`commit::run`] and continued by [`rounds`], with an id and a digest that follow from the whole job's. So whatever is
//! said of ordinary jobs, that they are committed once, can be cut off anywhere and repeated, is said of pieces; and a job
//! is the list of its pieces. The job's [`job_store`](crate::store::job_store::deferred) keeps the request, which pieces
//! are done, and their answers.
//!
//! What concerns the whole request is checked with the request, and answered at once. From then on the leader asks by
//! `GET`, or with the same request again.

use std::collections::BTreeSet;

use sha2::{Digest, Sha256};

use super::{
    commit::{self, JobIdentity, conflict, out_of_turn, unavailable},
    helper::{HelperJob, HpkeKeyring, REPORTS_MAX, STATES_BYTES_MAX, WORK_MAX},
    rounds::{self, Continuation},
};
use crate::{
    error::{Abort, AbortKind, Error},
    hpke::KeyAgreement,
    ids::AggregationJobId,
    message::{AggregationJobContinue, VerifyResp, VerifyRespResult},
    store::{
        Objects,
        job_store::deferred::{Done, PieceAnswer, Work, WorkKind},
        message::{
            Asked, DeferredRequest, DeferredState, JobStoreRequest, JobStoreResponse,
            LedgerRequest, LedgerResponse, RequestDigest,
        },
        placement::ShardKey,
    },
    task::Task,
    time::Time,
};

/// Most work in a piece: some two seconds. The object that works on it answers nobody meanwhile.
pub const PIECE_WORK_MAX: u64 = 1 << 20;
/// Most pieces of a job: some four minutes of work. When its leader gives a job up and its `DELETE` is lost, a collection has to
/// find out that each of them is to be left out, and it can find that out of some two hundred.
pub const PIECES_MAX: usize = 128;
/// Most reports of a job: an alarm decodes all of them for each piece, in an isolate of 128 MB.
pub const DEFERRED_REPORTS_MAX: usize = 1 << 16;

/// How much work, in the units of [`Vdaf::effort`](crate::vdaf::Vdaf::effort), is done within one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget(u64);

impl Budget {
    /// Some fifteen seconds.
    pub const DEFAULT: Self = Self(WORK_MAX);

    /// A budget of `1..=2^23` units.
    pub fn new(work: u64) -> Option<Self> {
        (1..=WORK_MAX).contains(&work).then_some(Self(work))
    }
}

/// What a leader is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The helper's answer, one entry per report, in order.
    Ready(Vec<VerifyResp>),
    /// The job is being worked on: the answer to this step is to be asked for later.
    Later {
        /// The step.
        step: u16,
    },
}

/// Where a job is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cut {
    piece_len: usize,
    pieces: usize,
}

impl Cut {
    /// Cuts a job into pieces that are no more work than a request, nor than an object should do in one go.
    fn of(job: &HelperJob<'_>, Budget(budget): Budget) -> Result<Self, Abort> {
        let vdaf = &job.task().vdaf;
        let (effort, state_len) =
            (vdaf.effort(job.agg_param()), vdaf.helper_state_len(job.agg_param()));
        if effort > WORK_MAX || state_len > STATES_BYTES_MAX {
            return Err(Abort::invalid_message(
                "a single report is too much for an aggregation parameter of that many prefixes",
            ));
        }
        let by_work = usize::try_from(budget.min(PIECE_WORK_MAX) / effort).unwrap_or(REPORTS_MAX);
        let by_state = STATES_BYTES_MAX / state_len.max(1);
        let piece_len = by_work.min(by_state).clamp(1, REPORTS_MAX);
        let reports = job.init().verify_inits.len();
        let reports_max = (PIECES_MAX * piece_len).min(DEFERRED_REPORTS_MAX);
        if reports > reports_max {
            return Err(Abort::invalid_message(format!(
                "a job of this task may have {reports_max} reports with this aggregation parameter",
            )));
        }
        let pieces = reports.div_ceil(piece_len);
        Ok(Self { piece_len, pieces })
    }
}

/// Whether a job is no more than one request may be.
fn fits(job: &HelperJob<'_>, Budget(budget): Budget) -> bool {
    let (vdaf, reports) = (&job.task().vdaf, job.init().verify_inits.len());
    let work = vdaf.effort(job.agg_param()).saturating_mul(reports as u64);
    let states = vdaf.helper_state_len(job.agg_param()).saturating_mul(reports);
    reports <= REPORTS_MAX && work <= budget && states <= STATES_BYTES_MAX
}

/// Begins a job of a version that may answer later, made by [`HelperJob::of_any_size`] from `body`: at once, or later if
/// it is more than `budget`. A repeat gets the job's current state, whatever the budget is by then. DAP-18 §4.5.3.2.
///
/// # Errors
/// As [`commit::run`]; [`AbortKind::InvalidMessage`] if the job is too much even for [`PIECES_MAX`] pieces; and what made
/// a job that was to be answered later fail.
pub async fn create(
    objects: &impl Objects,
    budget: Budget,
    identity: &JobIdentity,
    job: &HelperJob<'_>,
    body: &[u8],
) -> Result<Reply, Error> {
    if fits(job, budget) {
        match commit::run(objects, identity, job).await {
            // Perhaps it is one that was to be answered later, when the budget was less.
            Err(Error::Abort(Abort { kind: AbortKind::Conflict, .. })) => {}
            answers => return answers.map(Reply::Ready),
        }
    }
    let task = job.task();
    let home = Home { objects, task, shard_key: &identity.shard_key, job: &identity.job };
    let poll = DeferredRequest::Poll { job: identity.job, asked: Asked::Body(identity.digest) };
    match home.ask(poll).await? {
        JobStoreResponse::Unknown => {}
        known => return home.reply(known),
    }
    // It may be one that was answered at once, when the budget was more.
    let at_once = || async { commit::run(objects, identity, job).await.map(Reply::Ready) };
    let cut = match Cut::of(job, budget) {
        Ok(cut) => cut,
        Err(_) if commit::job_exists(objects, task, &identity.shard_key, &identity.job).await? => {
            return at_once().await;
        }
        Err(too_much) => return Err(too_much.into()),
    };
    if !commit::bind_to_later(objects, identity, job).await? {
        return at_once().await;
    }
    let begin = DeferredRequest::Begin {
        placement: task.parameters.placement(),
        job: identity.job,
        digest: identity.digest,
        has_rounds: task.vdaf.rounds() > 1,
        piece_len: u32::try_from(cut.piece_len).unwrap_or(u32::MAX),
        pieces: u32::try_from(cut.pieces).unwrap_or(u32::MAX),
        body: body.to_vec(),
    };
    match home.ask(begin).await? {
        JobStoreResponse::Conflict => at_once().await,
        known => home.reply(known),
    }
}

/// Continues a job of a version that may answer later: at once, or later if it was begun so. A repeat gets the step's
/// current state. DAP-18 §4.5.4.2.
///
/// # Errors
/// As [`rounds::continue_job`]; and what made the step fail. After any other 4xx the job is as it was.
pub async fn continue_job(
    objects: &impl Objects,
    continuation: &Continuation<'_>,
    body: &[u8],
) -> Result<Reply, Error> {
    if let Some(answers) = rounds::continue_at_once(objects, continuation).await? {
        return Ok(Reply::Ready(answers));
    }
    let Continuation { task, job, shard_key, request, digest, .. } = continuation;
    let home = Home { objects, task, shard_key, job };
    let reports = request.verify_continues.iter().map(|r| r.report_id).collect();
    let (step, body) = (request.step, body.to_vec());
    let request = DeferredRequest::Continue { job: *job, step, digest: *digest, reports, body };
    match home.ask(request).await? {
        JobStoreResponse::Deferred(state) => home.reply(JobStoreResponse::Deferred(state)),
        refused => Err(rounds::refusal(&refused, step)),
    }
}

/// The answer to a step of a job that is kept: one that is answered later, or one of several rounds. DAP-18 §3.1.
///
/// # Errors
/// - [`AbortKind::StepMismatch`] if the job is at another step.
/// - [`AbortKind::UnrecognizedAggregationJob`] if there is no such job, or its answer is not kept.
/// - what made the step fail.
pub async fn poll(
    objects: &impl Objects,
    task: &Task,
    shard_key: &ShardKey,
    job: &AggregationJobId,
    step: u16,
) -> Result<Reply, Error> {
    let home = Home { objects, task, shard_key, job };
    match home.ask(DeferredRequest::Poll { job: *job, asked: Asked::Step(step) }).await? {
        JobStoreResponse::StepMismatch => {
            Err(Abort::new(AbortKind::StepMismatch, "the job is at another step").into())
        }
        JobStoreResponse::Unknown => {
            let known = task.vdaf.rounds() == 1
                && commit::job_exists(objects, task, shard_key, job).await?;
            let detail = if known {
                "the job was answered at once; the request that created it gets the same answer again"
            } else {
                ""
            };
            Err(Abort::new(AbortKind::UnrecognizedAggregationJob, detail).into())
        }
        known => home.reply(known),
    }
}

/// Records that the leader deleted a job, so that its reports may come again in others, and has the job store forget what
/// it keeps of it. What was committed is decided when its batch is collected. DAP-09 §4.5.2.2, DAP-18 §4.5.5.
///
/// # Errors
/// [`Unavailable`](crate::error::Internal::Unavailable) if an object did not answer: the same request goes on.
pub async fn delete(
    objects: &impl Objects,
    task: &Task,
    shard_key: &ShardKey,
    job: &AggregationJobId,
) -> Result<(), Error> {
    let placement = task.parameters.placement();
    let tell =
        async |release| match objects.ledger(task.id(), release).await.map_err(unavailable)? {
            LedgerResponse::Done => Ok(()),
            _ => Err(out_of_turn()),
        };
    tell(LedgerRequest::Release { placement, job: *job }).await?;
    if task.vdaf.rounds() == 1 && !task.parameters.version.may_defer() {
        return Ok(());
    }
    // No piece is begun after this.
    match (Home { objects, task, shard_key, job }).tell(JobStoreRequest::Forget(*job)).await? {
        JobStoreResponse::Done | JobStoreResponse::Forgotten { pieces: 0 } => Ok(()),
        JobStoreResponse::Forgotten { pieces } => {
            let pieces = (0..pieces).map(|piece| piece_id(job, piece)).collect();
            tell(LedgerRequest::ReleasePieces { placement, pieces }).await
        }
        _ => Err(out_of_turn()),
    }
}

/// Who works on pieces: what the host of a job store has to know.
#[derive(Clone, Copy, Debug)]
pub struct Worker<'a> {
    /// The task.
    pub task: &'a Task,
    /// Our HPKE keys.
    pub keys: &'a HpkeKeyring,
    /// The secret that spreads the task's reports over its shards.
    pub shard_key: ShardKey,
    /// The clock.
    pub now: Time,
    /// Who computes Diffie-Hellman for all reports of a piece at once, if there is somebody.
    pub agreement: Option<&'a dyn KeyAgreement>,
}

impl Worker<'_> {
    /// Whether the work needs a key that this worker does not have.
    pub fn lacks_key_for(&self, work: &Work) -> bool {
        match &work.kind {
            WorkKind::Begin { body, .. } => self
                .task
                .parameters
                .wire()
                .aggregation_job_init(body)
                .is_ok_and(|init| self.keys.lacks_key_for(&init)),
            WorkKind::Continue { .. } | WorkKind::Forget { .. } => false,
        }
    }

    /// Does what there is to do. The same work again comes to the same.
    ///
    /// # Errors
    /// As [`create`] and [`continue_job`] of the piece.
    pub async fn work(&self, objects: &impl Objects, work: &Work) -> Result<Done, Error> {
        match &work.kind {
            WorkKind::Begin { piece, piece_len, body } => {
                self.begin(objects, work, *piece, *piece_len, body).await.map(Done::Piece)
            }
            WorkKind::Continue { piece, step, continuation, waiting, body } => {
                let request = self.task.parameters.wire().aggregation_job_continue(body)?;
                let waiting: BTreeSet<_> = waiting.iter().collect();
                let mut continues = request.verify_continues;
                continues.retain(|report| waiting.contains(&report.report_id));
                let job = piece_id(&work.job, *piece);
                if continues.is_empty() {
                    // The leader gave all of them up.
                    self.forget(objects, &job).await?;
                    return Ok(Done::Piece(PieceAnswer { answer: vec![], waiting: vec![] }));
                }
                let continuation = Continuation {
                    task: self.task,
                    job,
                    shard_key: self.shard_key,
                    now: self.now,
                    request: &AggregationJobContinue { step: *step, verify_continues: continues },
                    digest: of_piece(continuation, *piece),
                };
                let answers = rounds::continue_job(objects, &continuation).await?;
                let answer = rounds::encode(self.task, &answers)?;
                Ok(Done::Piece(PieceAnswer { answer, waiting: vec![] }))
            }
            WorkKind::Forget { pieces } => {
                for piece in pieces.clone() {
                    self.forget(objects, &piece_id(&work.job, piece)).await?;
                }
                Ok(Done::Forgotten)
            }
        }
    }

    async fn begin(
        &self,
        objects: &impl Objects,
        work: &Work,
        piece: u32,
        piece_len: u32,
        body: &[u8],
    ) -> Result<PieceAnswer, Error> {
        let mut init = self.task.parameters.wire().aggregation_job_init(body)?;
        let (skipped, len) = (piece as usize * piece_len as usize, piece_len as usize);
        init.verify_inits = init.verify_inits.into_iter().skip(skipped).take(len).collect();
        let mut job = HelperJob::new(self.task, self.keys, self.now, &init)?;
        if let Some(agreement) = self.agreement {
            job = job.agreed_by(agreement);
        }
        let identity = JobIdentity {
            job: piece_id(&work.job, piece),
            digest: piece_digest(&work.digest, piece, piece_len),
            shard_key: self.shard_key,
        };
        let answers = commit::run(objects, &identity, &job).await?;
        let waits = |answer: &&VerifyResp| matches!(answer.result, VerifyRespResult::Continue(_));
        let waiting = match self.task.vdaf.rounds() {
            1 => Vec::new(),
            _ => answers.iter().filter(waits).map(|answer| answer.report_id).collect(),
        };
        Ok(PieceAnswer { answer: rounds::encode(self.task, &answers)?, waiting })
    }

    async fn forget(&self, objects: &impl Objects, piece: &AggregationJobId) -> Result<(), Error> {
        rounds::forget(objects, self.task, &self.shard_key, piece).await
    }
}

/// The job store that keeps a job.
struct Home<'a, O> {
    objects: &'a O,
    task: &'a Task,
    shard_key: &'a ShardKey,
    job: &'a AggregationJobId,
}

impl<O: Objects> Home<'_, O> {
    async fn ask(&self, request: DeferredRequest) -> Result<JobStoreResponse, Error> {
        self.tell(JobStoreRequest::Deferred(request)).await
    }

    async fn tell(&self, request: JobStoreRequest) -> Result<JobStoreResponse, Error> {
        let placement = self.task.parameters.placement();
        let shard = placement.home(self.shard_key, self.job);
        self.objects.job_store(&placement, shard, request).await.map_err(unavailable)
    }

    /// What the leader is told of the job.
    fn reply(&self, known: JobStoreResponse) -> Result<Reply, Error> {
        match known {
            JobStoreResponse::Answered(answer) => {
                rounds::decode(self.task, &answer).map(Reply::Ready)
            }
            JobStoreResponse::Deferred(DeferredState::Pending { step }) => {
                Ok(Reply::Later { step })
            }
            JobStoreResponse::Deferred(DeferredState::Ready { answers }) => {
                let mut all = Vec::new();
                for answer in answers.iter().filter(|answer| !answer.0.is_empty()) {
                    all.extend(rounds::decode(self.task, &answer.0)?);
                }
                Ok(Reply::Ready(all))
            }
            JobStoreResponse::Deferred(DeferredState::Failed(failure)) => Err(failure.into()),
            JobStoreResponse::Conflict => Err(conflict()),
            JobStoreResponse::Deleted => Err(rounds::deleted()),
            _ => Err(out_of_turn()),
        }
    }
}

/// The id under which a piece is committed.
fn piece_id(job: &AggregationJobId, piece: u32) -> AggregationJobId {
    AggregationJobId::of_hash(of_piece(job.as_bytes(), piece))
}

/// What binds a piece to its bytes: those of the whole request, and where it was cut.
fn piece_digest(whole: &RequestDigest, piece: u32, piece_len: u32) -> RequestDigest {
    let of_piece = of_piece(whole, piece);
    Sha256::new().chain_update(of_piece).chain_update(piece_len.to_be_bytes()).finalize().into()
}

fn of_piece(whole: &[u8], piece: u32) -> [u8; 32] {
    Sha256::new()
        .chain_update(b"dap deferred piece")
        .chain_update(whole)
        .chain_update(piece.to_be_bytes())
        .finalize()
        .into()
}
