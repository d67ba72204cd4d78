use super::*;
use crate::{
    batch::BatchMode,
    error::{Abort, AbortKind},
    store::{
        job_store,
        message::{JobStoreRequest, JobStoreResponse},
    },
    testing::memory::{MemoryDatabase, MemoryJobTables},
};

const NOW: Time = Time::from_seconds(1_700_000_000);

fn placement() -> Placement {
    Placement {
        task_id: TaskId::new([1; 32]),
        batch_mode: BatchMode::TimeInterval,
        time_precision: Duration::from_seconds(300),
        shards: 1,
        buckets_per_group: 288,
        shard_key_version: 1,
        retention: Duration::from_seconds(1_209_600),
    }
}

/// Begins a job of three pieces.
fn begin(job: AggregationJobId) -> JobStoreRequest {
    JobStoreRequest::Deferred(DeferredRequest::Begin {
        placement: placement(),
        job,
        digest: [1; 32],
        has_rounds: false,
        piece_len: 2,
        pieces: 3,
        body: vec![9; 9],
    })
}

#[test]
fn a_piece_whose_host_dies_each_time_is_given_up() {
    let database = MemoryDatabase::<MemoryJobTables>::default();
    let mut now = NOW;
    let job = AggregationJobId::new([1; 16]);
    let begin = begin(job);
    let begun = job_store::handle(&database, begin.clone(), now).unwrap();
    assert_eq!(begun.wake, Some(now), "its host is woken at once");
    let first = job_store::take(&database, now).unwrap().unwrap();
    let mut tries = 1;
    loop {
        assert_eq!(job_store::take(&database, now).unwrap(), None, "it may only be slow");
        let wake = job_store::alarm(&database, now).unwrap().unwrap();
        assert!(wake > now);
        now = wake;
        match job_store::take(&database, now).unwrap() {
            Some(again) => assert_eq!(again, first),
            None => break,
        }
        tries += 1;
    }
    assert_eq!(tries, 10);
    // Whoever comes back from the dead has nothing to say; and whoever asks has it tried once more.
    let done = Done::Piece(PieceAnswer { answer: vec![], waiting: vec![] });
    assert_eq!(job_store::end(&database, &first, Ok(done), now).unwrap(), None);
    let failed = JobStoreResponse::Deferred(DeferredState::Failed(DeferredFailure::Broken));
    let pending = JobStoreResponse::Deferred(DeferredState::Pending { step: 0 });
    for (asked, told) in [(Asked::Step(0), failed), (Asked::Body([1; 32]), pending)] {
        let poll = JobStoreRequest::Deferred(DeferredRequest::Poll { job, asked });
        let armed = job_store::handle(&database, poll, now).unwrap();
        assert_eq!((armed.response, armed.wake), (told, Some(now)));
    }
    assert_eq!(job_store::take(&database, now).unwrap().unwrap(), first);
}

#[test]
fn what_is_the_leaders_fault_is_said_whenever_it_asks() {
    let database = MemoryDatabase::<MemoryJobTables>::default();
    let (now, job) = (NOW, AggregationJobId::new([1; 16]));
    let begin = begin(job);
    job_store::handle(&database, begin.clone(), now).unwrap();
    let work = job_store::take(&database, now).unwrap().unwrap();
    let abort = Abort::new(AbortKind::UnrecognizedTask, "the task was deleted");
    let failure = DeferredFailure::Abort(abort.clone());
    let ended = job_store::end(&database, &work, Err(abort.into()), now).unwrap().unwrap();
    assert_eq!(ended.failure, Some(failure.clone()));
    let failed = JobStoreResponse::Deferred(DeferredState::Failed(failure));
    let polls = [Asked::Step(0), Asked::Body([1; 32])]
        .map(|asked| JobStoreRequest::Deferred(DeferredRequest::Poll { job, asked }));
    for request in polls.into_iter().chain([begin]) {
        assert_eq!(job_store::handle(&database, request, now).unwrap().response, failed);
    }
    assert_eq!(job_store::take(&database, now).unwrap(), None);
}
