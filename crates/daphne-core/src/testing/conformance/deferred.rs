//! Jobs that are answered later, as far as messages show them: how pieces are worked on is the host's, and the tasks of
//! this suite are known to no host. So a job here is pending, or has failed for that reason.

use super::*;
use crate::store::message::{Asked, DeferredFailure, DeferredRequest, DeferredState};

struct Later<'a, O>(Subject<'a, O>);

impl<O: Objects> Later<'_, O> {
    async fn ask(&self, request: JobStoreRequest) -> JobStoreResponse {
        self.0.objects.job_store(&self.0.placement, 0, request).await.expect("an answer")
    }

    async fn begin(&self, number: u8, digest: u8, has_rounds: bool) -> JobStoreResponse {
        self.ask(JobStoreRequest::Deferred(DeferredRequest::Begin {
            placement: self.0.placement,
            job: job(number),
            digest: [digest; 32],
            has_rounds,
            piece_len: 2,
            pieces: 3,
            // More than fits into a row.
            body: vec![digest; 3_000_001],
        }))
        .await
    }

    async fn poll(&self, number: u8, asked: Asked) -> JobStoreResponse {
        self.ask(JobStoreRequest::Deferred(DeferredRequest::Poll { job: job(number), asked })).await
    }

    async fn proceed(&self, number: u8, step: u16) -> JobStoreResponse {
        self.ask(JobStoreRequest::Deferred(DeferredRequest::Continue {
            job: job(number),
            step,
            digest: [7; 32],
            reports: vec![report(1)],
            body: vec![8; 9],
        }))
        .await
    }

    async fn claim(&self, number: u8) -> JobStoreResponse {
        self.ask(JobStoreRequest::Claim {
            placement: self.0.placement,
            job: job(number),
            digest: [number; 32],
            unasked: Vec::new(),
        })
        .await
    }

    async fn begin_rounds(&self, number: u8) -> JobStoreResponse {
        self.ask(JobStoreRequest::Begin {
            placement: self.0.placement,
            job: job(number),
            digest: [number; 32],
            waiting: vec![report(1)],
            state: b"state".to_vec(),
            answer: b"answer".to_vec(),
        })
        .await
    }
}

fn later<'a, O: Objects>(objects: &'a O, case: &str) -> Later<'a, O> {
    Later(Subject::new(objects, case, BatchMode::TimeInterval, 1, 10))
}

/// Whether the job is there, at its first step.
fn is_there(response: &JobStoreResponse) -> bool {
    match response {
        JobStoreResponse::Deferred(DeferredState::Pending { step }) => *step == 0,
        JobStoreResponse::Deferred(DeferredState::Failed(DeferredFailure::Abort(abort))) => {
            abort.kind == AbortKind::UnrecognizedTask
        }
        _ => false,
    }
}

/// The first to begin a job that is answered later counts; others under its id are told, and so is whoever asks for what
/// there is not.
pub async fn a_job_that_is_answered_later_is_begun_once(objects: &impl Objects) {
    let s = later(objects, "answered later");
    for asked in [Asked::Step(0), Asked::Body([1; 32])] {
        assert_eq!(s.poll(1, asked).await, JobStoreResponse::Unknown);
    }
    assert_eq!(s.proceed(1, 1).await, JobStoreResponse::Unknown);
    for _ in 0..2 {
        assert!(is_there(&s.begin(1, 1, true).await));
        assert_eq!(s.begin(1, 2, true).await, JobStoreResponse::Conflict);
    }
    assert_eq!(s.ask(JobStoreRequest::Knows(job(1))).await, JobStoreResponse::Known(true));
    assert!(is_there(&s.poll(1, Asked::Step(0)).await));
    assert!(is_there(&s.poll(1, Asked::Body([1; 32])).await));
    assert_eq!(s.poll(1, Asked::Body([2; 32])).await, JobStoreResponse::Conflict);
    for step in [1, 2, u16::MAX] {
        assert_eq!(s.poll(1, Asked::Step(step)).await, JobStoreResponse::StepMismatch);
    }
    // Nobody knows the answer to its first step, so nobody can continue it; unless it failed, which is said again.
    let early = s.proceed(1, 1).await;
    assert!(early == JobStoreResponse::StepMismatch || is_there(&early), "{early:?}");
    assert_eq!(s.proceed(1, 0).await, JobStoreResponse::StepMismatch);
    assert_eq!(s.proceed(1, 2).await, JobStoreResponse::StepMismatch);
}

/// An id is of a job that is answered at once, or of one that is answered later.
pub async fn an_id_is_answered_at_once_or_later(objects: &impl Objects) {
    let s = later(objects, "at once or later");
    assert!(is_there(&s.begin(1, 1, true).await));
    assert_eq!(s.claim(1).await, JobStoreResponse::Conflict);
    assert_eq!(s.begin_rounds(1).await, JobStoreResponse::Conflict);
    let begun = JobStoreRequest::Begun { job: job(1), digest: [1; 32] };
    assert_eq!(s.ask(begun).await, JobStoreResponse::Conflict);
    let step = JobStoreRequest::BeginStep {
        job: job(1),
        step: 1,
        digest: [7; 32],
        reports: vec![report(1)],
    };
    assert_eq!(s.ask(step).await, JobStoreResponse::IsDeferred);
    assert_eq!(s.claim(2).await, JobStoreResponse::Claimed(vec![]));
    assert_eq!(s.begin(2, 2, false).await, JobStoreResponse::Conflict);
    assert_eq!(s.poll(2, Asked::Step(0)).await, JobStoreResponse::Unknown, "nothing is kept");
    let answered = JobStoreResponse::Answered(b"answer".to_vec());
    assert_eq!(s.begin_rounds(3).await, answered);
    assert_eq!(s.begin(3, 3, true).await, JobStoreResponse::Conflict);
    // Of a job of several rounds the last answer is kept.
    assert_eq!(s.poll(3, Asked::Step(0)).await, answered);
    assert_eq!(s.poll(3, Asked::Body([3; 32])).await, answered);
    assert_eq!(s.poll(3, Asked::Body([4; 32])).await, JobStoreResponse::Conflict);
    assert_eq!(s.poll(3, Asked::Step(1)).await, JobStoreResponse::StepMismatch);
    s.ask(JobStoreRequest::Forget(job(3))).await;
    assert_eq!(s.poll(3, Asked::Step(0)).await, JobStoreResponse::Unknown);
    assert_eq!(s.poll(3, Asked::Body([3; 32])).await, JobStoreResponse::Deleted);
}

/// What was deleted is not there, and is begun again only if it has no rounds between which something would be missing.
pub async fn a_deleted_job_that_is_answered_later_is_gone(objects: &impl Objects) {
    let s = later(objects, "deleted, answered later");
    for (n, has_rounds) in [(1, true), (2, false)] {
        assert!(is_there(&s.begin(n, n, has_rounds).await));
        for _ in 0..2 {
            let forgotten = s.ask(JobStoreRequest::Forget(job(n))).await;
            assert!(matches!(forgotten, JobStoreResponse::Forgotten { .. }), "{forgotten:?}");
            assert_eq!(s.poll(n, Asked::Step(0)).await, JobStoreResponse::Unknown);
            assert_eq!(s.proceed(n, 1).await, JobStoreResponse::Unknown);
        }
        assert_eq!(s.claim(n).await, JobStoreResponse::Conflict, "the id stays bound");
        let again = s.begin(n, n, has_rounds).await;
        if has_rounds {
            assert_eq!(again, JobStoreResponse::Deleted);
        } else {
            assert!(is_there(&again), "{again:?}");
        }
    }
    s.ask(JobStoreRequest::Purge).await;
    assert_eq!(s.poll(2, Asked::Step(0)).await, JobStoreResponse::Unknown);
    assert_eq!(s.ask(JobStoreRequest::Knows(job(1))).await, JobStoreResponse::Known(false));
}

/// The pieces of a deleted job are deleted jobs.
pub async fn the_ledger_knows_the_pieces_of_deleted_jobs(objects: &impl Objects) {
    let s = Subject::new(objects, "deleted pieces", BatchMode::TimeInterval, 1, 0);
    let pieces = || vec![job(1), job(3)];
    for _ in 0..2 {
        let (placement, pieces) = (s.placement, pieces());
        let release = LedgerRequest::ReleasePieces { placement, pieces };
        assert_eq!(s.ask_ledger(release).await, LedgerResponse::Done);
    }
    let asked = LedgerRequest::Released(vec![job(1), job(2), job(3)]);
    assert_eq!(s.ask_ledger(asked).await, LedgerResponse::Released(pieces()));
}
