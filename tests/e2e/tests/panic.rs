//! A panic costs the request that it happens in, and no other.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use daphne_core::{
    batch::BatchMode::LeaderSelected,
    ids::BatchId,
    message::{BatchSelector, PartialBatchSelector},
};
use e2e::{Books, Server, World, server::random, world::until_final};

fn server() -> (&'static Server, MutexGuard<'static, ()>) {
    static SERVER: OnceLock<Server> = OnceLock::new();
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    (SERVER.get_or_init(Server::start), turn)
}

/// Runs `disturb` while requests of all kinds are in flight, which must not notice, and the same again afterwards.
fn nobody_else_notices(server: &Server, disturb: impl Fn()) {
    let world = Arc::new(World::new(server, LeaderSelected, |spec| spec.shards = 4));
    let id = BatchId::new(random());
    let (part, batch) =
        (PartialBatchSelector::LeaderSelected(id), BatchSelector::LeaderSelected(id));
    let mut books = Books::default();
    let sleepers: Vec<_> = (0..6)
        .map(|_| {
            let client = server.client().clone();
            std::thread::spawn(move || client.get("/internal/test/sleep").status)
        })
        .collect();
    let jobs: Vec<_> =
        (0..8).map(|n| world.job(part, &world.sums(&[n; 6], world.time(0)))).collect();
    let senders: Vec<_> = jobs
        .iter()
        .map(|job| {
            let (world, id, body) = (world.clone(), job.id, job.body.clone());
            std::thread::spawn(move || world.put_body(&id, &body))
        })
        .collect();
    disturb();
    for (job, sender) in jobs.into_iter().zip(senders) {
        let answer = sender.join().unwrap();
        assert_eq!(world.finish(job, &answer, &mut books), []);
    }
    for sleeper in sleepers {
        assert_eq!(sleeper.join().unwrap(), 204);
    }
    world.collect(batch, &books);
    assert_eq!(server.client().get("/healthz").status, 200);
}

#[test]
fn a_panic_in_a_handler_answers_500_and_harms_nobody_else() {
    let (server, _turn) = server();
    nobody_else_notices(server, || {
        for _ in 0..10 {
            let answer = server.client().get("/internal/test/panic");
            answer.refused_without_type(500);
            // Why is nobody's business.
            assert!(!answer.text().contains("purpose"), "{}", answer.text());
        }
    });
}

#[test]
fn a_panic_in_a_job_fails_that_job_only() {
    let (server, _turn) = server();
    nobody_else_notices(server, || {});
    let world = World::new(server, LeaderSelected, |_| {});
    let id = BatchId::new(random());
    let mut books = Books::default();
    let job = world.batch_job(id, &world.sums(&[3, 4], world.time(0)));
    server.plan_for(&world.task_id, &[(0, "panic")]);
    world.put(&job).refused_without_type(500);
    let answer = until_final(|| world.put(&job));
    assert_eq!(world.finish(job, &answer, &mut books), []);
    world.collect(BatchSelector::LeaderSelected(id), &books);
}

/// The ledger panics while it gathers, freezes or seals; its other requests, and other tasks' objects, go on.
#[test]
fn a_panic_in_an_object_harms_nobody_else() {
    let (server, _turn) = server();
    let world = World::new(server, LeaderSelected, |spec| spec.shards = 2);
    for call in 1..7 {
        let id = BatchId::new(random());
        let batch = BatchSelector::LeaderSelected(id);
        let mut books = Books::default();
        let part = PartialBatchSelector::LeaderSelected(id);
        world.aggregate(part, &world.sums(&[1, 2, 3, 4, 5], world.time(0)), &mut books);
        let request = world.share_request(batch, &books);
        let sleepers: Vec<_> = (0..4)
            .map(|_| {
                let client = server.client().clone();
                std::thread::spawn(move || client.get("/internal/test/sleep").status)
            })
            .collect();
        server.plan_for(&world.task_id, &[(call, "panic")]);
        let first = world.post_share(&request);
        if call < 5 {
            // Gathering and freezing: before the decision.
            assert_eq!(first.status, 503, "{call}: {}", first.text());
        }
        for sleeper in sleepers {
            assert_eq!(sleeper.join().unwrap(), 204);
        }
        let answer = until_final(|| world.post_share(&request));
        world.assert_true(batch, &books, &answer);
        world.collect(batch, &books);
    }
    nobody_else_notices(server, || {});
}
