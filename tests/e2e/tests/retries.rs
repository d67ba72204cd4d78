//! What becomes of calls that the platform fails: retryable ones are made again unseen, and overload is told to the
//! leader, who comes again later. Every report counts once.

use std::{
    collections::BTreeSet,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use daphne_core::{
    batch::BatchMode::{self, LeaderSelected, TimeInterval},
    ids::BatchId,
    message::{BatchSelector, PartialBatchSelector},
};
use e2e::{Answer, Books, Job, Server, World, server::random};

/// The server, to oneself: a plan concerns every call in it.
fn server() -> (&'static Server, MutexGuard<'static, ()>) {
    static SERVER: OnceLock<Server> = OnceLock::new();
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    (SERVER.get_or_init(Server::start), turn)
}

/// A task of one shard, so that calls come one after the other.
fn world(server: &Server, mode: BatchMode) -> World {
    World::new(server, mode, |spec| {
        spec.buckets_per_group = (mode == TimeInterval).then_some(1);
    })
}

/// A job of three reports in a place of their own, whose objects are new, and their batch.
fn three(world: &World, n: u64) -> (Job, BatchSelector) {
    let (part, batch) = match world.spec.batch_mode {
        TimeInterval => (PartialBatchSelector::TimeInterval, world.interval(n, 1)),
        LeaderSelected => {
            let id = BatchId::new(random());
            (PartialBatchSelector::LeaderSelected(id), BatchSelector::LeaderSelected(id))
        }
    };
    (world.job(part, &world.sums(&[1, 20, 200], world.time(n))), batch)
}

/// The calls made since the plan was set, once no more are made: a ledger seals after its answer, and one try may wait
/// for 200 ms after another.
fn calls_settled(server: &Server) -> usize {
    let mut calls = server.calls().len();
    loop {
        std::thread::sleep(Duration::from_millis(300));
        let now = server.calls().len();
        if now == calls {
            return calls;
        }
        calls = now;
    }
}

/// A 503 of our own, and when to come again.
#[track_caller]
fn come_again(answer: &Answer) -> u64 {
    answer.refused_without_type(503);
    assert!(answer.json()["taskid"].is_string(), "{}", answer.text());
    answer.header("retry-after").parse().expect("a number of seconds")
}

/// The job's calls, if nothing fails: the claim, the refusal of a new store, its registration, the commit.
const JOB_CALLS: [(BatchMode, usize); 2] = [(TimeInterval, 4), (LeaderSelected, 1)];

#[test]
fn an_overloaded_object_is_not_asked_again_and_the_leader_is_told_when() {
    let (server, _turn) = server();
    let mut waits = Vec::new();
    for (mode, calls) in JOB_CALLS {
        let world = world(server, mode);
        for k in 0..calls {
            println!("{mode:?}: call {k} of a job");
            let (job, batch) = three(&world, k as u64);
            let mut books = Books::default();
            server.plan_for(&world.task_id, &[(k, "overloaded")]);
            waits.push(come_again(&world.put(&job)));
            assert_eq!(server.calls().len(), k + 1, "{:?}", server.calls());
            // The same again succeeds, and counts once.
            server.plan_for(&world.task_id, &[]);
            let answer = world.put(&job);
            assert_eq!(world.put(&job).body, answer.body, "a repeat");
            assert_eq!(world.finish(job, &answer, &mut books), []);

            println!("{mode:?}: the ledger of a collection");
            let request = world.share_request(batch, &books);
            server.plan_for(&world.task_id, &[(0, "overloaded")]);
            waits.push(come_again(&world.post_share(&request)));
            assert_eq!(server.calls(), ["TASK_LEDGER"]);
            // A store of it: the ledger itself is not overloaded, and the leader may come again soon.
            server.plan_for(&world.task_id, &[(1, "overloaded")]);
            assert_eq!(come_again(&world.post_share(&request)), 1);
            server.plan_for(&world.task_id, &[]);
            world.collect(batch, &books);

            let (job, _) = three(&world, 50 + k as u64);
            server.plan_for(&world.task_id, &[(0, "overloaded")]);
            waits.push(come_again(&world.delete(&job.id)));
            assert_eq!(server.calls(), ["TASK_LEDGER"]);
            assert_eq!(world.delete(&job.id).status, 204);
        }
    }
    assert!(waits.iter().all(|seconds| (5..=30).contains(seconds)), "{waits:?}");
    // Leaders who are sent away together do not come back together.
    assert!(waits.iter().collect::<BTreeSet<_>>().len() > 1, "{waits:?}");
}

#[test]
fn a_retryable_failure_is_not_seen_and_costs_one_call() {
    let (server, _turn) = server();
    for (mode, calls) in JOB_CALLS {
        let world = world(server, mode);
        // Lost before, or after it was carried out.
        for (n, fault) in ["retryable", "retryable_answer"].into_iter().enumerate() {
            for k in 0..calls {
                println!("{mode:?}: {fault} {k} of a job");
                let (job, batch) = three(&world, (calls * n + k) as u64);
                let mut books = Books::default();
                server.plan_for(&world.task_id, &[(k, fault)]);
                let answer = world.put(&job);
                assert_eq!(answer.status, 200, "{}", answer.text());
                assert_eq!(server.calls().len(), calls + 1, "{:?}", server.calls());
                server.plan_for(&world.task_id, &[]);
                assert_eq!(world.put(&job).body, answer.body, "a repeat");
                assert_eq!(world.finish(job, &answer, &mut books), []);
                world.collect(batch, &books);
            }
        }
    }
}

#[test]
fn a_collection_survives_a_retryable_failure_of_any_call() {
    let (server, _turn) = server();
    for mode in [TimeInterval, LeaderSelected] {
        let world = world(server, mode);
        let mut place = 0;
        let mut collected = |faults: &[(usize, &str)]| {
            let (job, batch) = three(&world, place);
            place += 1;
            let mut books = Books::default();
            server.plan_for(&world.task_id, &[]);
            assert_eq!(world.run(job, &mut books), []);
            server.plan_for(&world.task_id, faults);
            let answer = world.post_share(&world.share_request(batch, &books));
            world.assert_true(batch, &books, &answer);
            let calls = calls_settled(server);
            world.collect(batch, &books);
            calls
        };
        // The ledger, gathering, freezing, sealing; a ledger that looks at other batches' stores asks them too.
        let calls = collected(&[]);
        assert!(calls >= 4, "{calls}");
        for k in 0..calls {
            println!("{mode:?}: {k} of {calls}");
            assert_eq!(collected(&[(k, "retryable")]), calls + 1);
            // A ledger that is asked again while it still seals may seal twice.
            assert!(collected(&[(k, "retryable_answer")]) > calls);
        }
    }
}

#[test]
fn tries_are_bounded_and_overload_ends_them() {
    let (server, _turn) = server();
    let world = world(server, LeaderSelected);
    let (job, batch) = three(&world, 0);
    server.plan_for(&world.task_id, &[(0, "retryable_answer"), (1, "retryable"), (2, "retryable")]);
    assert_eq!(come_again(&world.put(&job)), 1);
    assert_eq!(server.calls().len(), 3);
    server.plan_for(&world.task_id, &[(0, "retryable"), (1, "overloaded")]);
    assert!((5..=30).contains(&come_again(&world.put(&job))));
    assert_eq!(server.calls().len(), 2);
    server.plan_for(&world.task_id, &[]);
    let mut books = Books::default();
    assert_eq!(world.run(job, &mut books), []);
    world.collect(batch, &books);
}
