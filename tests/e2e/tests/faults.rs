//! Whatever call is lost, answered into the void, or cut off by a panic or the death of the runtime: every batch stays
//! collectable, every job can be finished, and every report counts once.

use std::{
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use daphne_core::{
    batch::BatchMode::{self, LeaderSelected, TimeInterval},
    error::ReportError::{BatchCollected, ReportReplayed},
    ids::BatchId,
    message::{BatchSelector, PartialBatchSelector},
    version::DapVersion,
};
use e2e::{Answer, Books, Job, Server, World, server::random, world::until_final};

const FAULTS: [&str; 3] = ["lose_request", "lose_answer", "panic"];
const TIMED: PartialBatchSelector = PartialBatchSelector::TimeInterval;

/// The server, to oneself: a plan concerns every call in it.
fn server() -> (&'static Server, MutexGuard<'static, ()>) {
    static SERVER: OnceLock<Server> = OnceLock::new();
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    (SERVER.get_or_init(Server::start), turn)
}

/// Where a test's next reports go. Each has a place of its own: its objects are new.
struct Place {
    part: PartialBatchSelector,
    batch: BatchSelector,
    bucket: u64,
}

fn world(server: &Server, mode: BatchMode, shards: u16) -> World {
    world_in(DapVersion::V09, server, mode, shards)
}

fn world_in(version: DapVersion, server: &Server, mode: BatchMode, shards: u16) -> World {
    World::new_in(server, version, mode, |spec| {
        spec.shards = shards;
        spec.buckets_per_group = (mode == TimeInterval).then_some(1);
    })
}

/// The n-th place: two buckets of their own, or a batch.
fn place(world: &World, n: usize) -> Place {
    let bucket = 2 * n as u64;
    match world.spec.batch_mode {
        TimeInterval => Place { part: TIMED, batch: world.interval(bucket, 2), bucket },
        LeaderSelected => {
            let id = BatchId::new(random());
            let batch = BatchSelector::LeaderSelected(id);
            Place { part: PartialBatchSelector::LeaderSelected(id), batch, bucket: 0 }
        }
    }
}

/// A job of six reports in both buckets of a place.
fn six(world: &World, place: &Place) -> Job {
    let reports: Vec<_> =
        (0..2).flat_map(|n| world.sums(&[1, 20 + n, 200], world.time(place.bucket + n))).collect();
    world.job(place.part, &reports)
}

/// The calls made since the plan was set, once no more are made.
fn calls_settled(server: &Server) -> Vec<String> {
    let mut calls = server.calls();
    loop {
        std::thread::sleep(Duration::from_millis(100));
        let now = server.calls();
        if now.len() == calls.len() {
            return calls;
        }
        calls = now;
    }
}

/// After a collection that succeeded in the end: it is right, it is repeated, and it is final.
fn assert_collected(world: &World, place: &Place, books: &Books, first: Option<&Answer>) {
    let request = world.share_request(place.batch, books);
    let answer = until_final(|| world.post_share(&request));
    world.assert_true(place.batch, books, &answer);
    if let Some(first) = first.filter(|f| f.status == 200) {
        assert_eq!(first.body, answer.body);
    }
    assert_eq!(until_final(|| world.post_share(&request)).body, answer.body, "a repeat");
    let late = six(world, place);
    let verdict = until_final(|| world.put(&late));
    let refused = world.finish(late, &verdict, &mut books.clone());
    assert_eq!(refused.len(), 6);
    assert!(refused.iter().all(|(_, error)| *error == BatchCollected), "{refused:?}");
}

#[test]
fn a_collection_cut_off_at_any_call_can_be_repeated() {
    let (server, _turn) = server();
    for mode in [LeaderSelected, TimeInterval] {
        let world = world(server, mode, 2);
        let collected = |n: usize, faults: &[(usize, &str)]| {
            let (place, mut books) = (place(&world, n), Books::default());
            let job = six(&world, &place);
            assert_eq!(world.run(job, &mut books), []);
            let request = world.share_request(place.batch, &books);
            server.plan_for(&world.task_id, faults);
            let first = world.post_share(&request);
            assert!(first.status == 200 || first.is_temporary(), "{}", first.text());
            (place, books, first)
        };
        let (place, books, first) = collected(0, &[]);
        let calls = calls_settled(server).len();
        assert_collected(&world, &place, &books, Some(&first));
        // The ledger, and gathering, freezing and sealing two stores, or what of four stores has reports.
        assert!(calls >= 7, "{calls}");
        for k in 0..calls {
            for (n, fault) in FAULTS.into_iter().enumerate() {
                println!("{mode:?}: {fault} {k} of {calls}");
                let (place, books, first) = collected(1 + 3 * k + n, &[(k, fault)]);
                assert_collected(&world, &place, &books, Some(&first));
            }
        }
    }
}

/// In DAP-18 the query may be longer than what is counted: all of it is used up, or nothing.
#[test]
fn a_collection_of_part_of_a_query_cut_off_at_any_call_can_be_repeated() {
    let (server, _turn) = server();
    let world = world_in(DapVersion::V18, server, TimeInterval, 1);
    let collected = |n: usize, faults: &[(usize, &str)]| {
        let (place, mut books) = (place(&world, n), Books::default());
        assert_eq!(world.run(six(&world, &place), &mut books), []);
        let part = world.interval(place.bucket + 1, 1);
        let held = books.count(&part, &world);
        assert_eq!(held.0, 3);
        let request = world.share_request_within(&[], place.batch, part, held);
        server.plan_for(&world.task_id, faults);
        let first = world.post_share(&request);
        assert!(first.status == 200 || first.is_temporary(), "{}", first.text());
        // Nobody loses anything by a failure: whatever was begun, the request succeeds, and is repeated.
        let calls = calls_settled(server).len();
        let answer = until_final(|| world.post_share(&request));
        world.share(&answer);
        assert_eq!(until_final(|| world.post_share(&request)).body, answer.body, "a repeat");
        let late = six(&world, &place);
        let verdict = until_final(|| world.put(&late));
        let refused = world.finish(late, &verdict, &mut books.clone());
        assert_eq!(refused.len(), 6);
        assert!(refused.iter().all(|(_, error)| *error == BatchCollected), "{refused:?}");
        for batch in [place.batch, part, world.interval(place.bucket, 1)] {
            let other = world.share_request(batch, &books);
            let refused = until_final(|| world.post_share(&other));
            refused.refused("batchOverlap", &world.task_id);
        }
        calls
    };
    let calls = collected(0, &[]);
    assert!(calls >= 5, "{calls}");
    for k in 0..calls {
        for (n, fault) in FAULTS.into_iter().enumerate() {
            println!("{fault} {k} of {calls}");
            collected(1 + 3 * k + n, &[(k, fault)]);
        }
    }
}

#[test]
fn a_collection_that_fails_twice_in_a_row_can_be_repeated() {
    let (server, _turn) = server();
    let world = world(server, LeaderSelected, 2);
    // A freeze is lost, and then the thaws that should take the other one back.
    for faults in [[4, 5, 6], [3, 5, 6], [4, 6, 8], [2, 4, 5]] {
        for fault in ["lose_request", "lose_answer"] {
            let (place, mut books) = (place(&world, 0), Books::default());
            assert_eq!(world.run(six(&world, &place), &mut books), []);
            server.plan_for(&world.task_id, &faults.map(|k| (k, fault)));
            let first = world.post_share(&world.share_request(place.batch, &books));
            assert_collected(&world, &place, &books, Some(&first));
        }
    }
}

/// A store that is held by a dead attempt answers "later", never "collected", and whoever meets it frees it.
#[test]
fn a_job_that_meets_a_dead_collection_is_counted() {
    let (server, _turn) = server();
    let world = world(server, LeaderSelected, 2);
    let (place, mut books) = (place(&world, 0), Books::default());
    assert_eq!(world.run(six(&world, &place), &mut books), []);
    // Calls: ledger, 2 gatherings, 2 freezings, of which the second is lost, and both thaws after it.
    server
        .plan_for(&world.task_id, &[(4, "lose_request"), (5, "lose_request"), (6, "lose_request")]);
    let request = world.share_request(place.batch, &books);
    assert_eq!(world.post_share(&request).status, 503);
    // Enough reports to meet the store that is held.
    let job = six(&world, &place);
    let first = world.put(&job);
    assert_eq!(first.status, 503, "{}", first.text());
    assert_eq!(first.header("retry-after"), "1");
    let answer = until_final(|| world.put(&job));
    assert_eq!(world.finish(job, &answer, &mut books), []);
    let (count, checksum) = books.count(&place.batch, &world);
    assert_eq!(count, 12);
    let wrong = world.share_request_of(place.batch, count - 1, checksum);
    world.post_share(&wrong).refused("batchMismatch", &world.task_id);
    assert_collected(&world, &place, &books, None);
}

#[test]
fn a_job_cut_off_at_any_call_can_be_repeated() {
    let (server, _turn) = server();
    for (mode, shards) in [(TimeInterval, 2), (LeaderSelected, 4)] {
        let world = world(server, mode, shards);
        let mut cut_off = 0;
        // The claim; for each of four new stores a refusal, the opening and the commit. Or four commits.
        let calls_max = if mode == TimeInterval { 13 } else { 4 };
        for k in 0..calls_max {
            for (n, fault) in FAULTS.into_iter().enumerate() {
                println!("{mode:?}: {fault} {k}");
                let (place, mut books) = (place(&world, 3 * k + n), Books::default());
                let job = six(&world, &place);
                server.plan_for(&world.task_id, &[(k, fault)]);
                let first = world.put(&job);
                if server.calls().len() > k {
                    cut_off += 1;
                    assert!(first.is_temporary(), "{} {}", first.status, first.text());
                }
                server.plan_for(&world.task_id, &[]);
                let answer = until_final(|| world.put(&job));
                assert_eq!(world.put(&job).body, answer.body, "a repeat");
                assert_eq!(world.finish(job, &answer, &mut books), []);
                assert_collected(&world, &place, &books, None);
            }
        }
        assert!(cut_off >= 2 * calls_max, "only {cut_off} were cut off");
    }
}

/// As before, of a job with replays in it: what was said about them stays.
#[test]
fn a_job_with_replays_cut_off_at_any_call_can_be_repeated() {
    let (server, _turn) = server();
    let world = world(server, LeaderSelected, 2);
    let mut cut_off = 0;
    for k in 0..4 {
        for fault in FAULTS {
            println!("{fault} {k}");
            let (place, mut books) = (place(&world, 0), Books::default());
            let known = world.sums(&[1, 2, 3, 4], world.time(0));
            world.aggregate(place.part, &known, &mut books);
            let reports = [&known[..], &world.sums(&[5, 6, 7, 8], world.time(0))[..]].concat();
            let job = world.job(place.part, &reports);
            server.plan_for(&world.task_id, &[(k, fault)]);
            let first = world.put(&job);
            cut_off += usize::from(first.is_temporary());
            server.plan_for(&world.task_id, &[]);
            let answer = until_final(|| world.put(&job));
            assert_eq!(world.put(&job).body, answer.body, "a repeat");
            let refused = world.finish(job, &answer, &mut books);
            assert_eq!(refused.len(), 4);
            assert!(refused.iter().all(|(_, error)| *error == ReportReplayed));
            assert_collected(&world, &place, &books, None);
        }
    }
    assert!(cut_off >= 8, "only {cut_off} were cut off");
}

/// Kills the runtime while a call is held back.
fn kill_during(
    server: &Server,
    world: &Arc<World>,
    call: usize,
    fault: &str,
    send: fn(&World, &[u8], &str) -> u16,
    body: &[u8],
    path: &str,
) {
    server.plan_for(&world.task_id, &[(call, fault)]);
    let sender = {
        let (world, body, path) = (world.clone(), body.to_vec(), path.to_owned());
        std::thread::spawn(move || send(&world, &body, &path))
    };
    let deadline = Instant::now() + Duration::from_secs(30);
    while server.calls().len() <= call {
        assert!(Instant::now() < deadline, "the call was not made");
        std::thread::sleep(Duration::from_millis(10));
    }
    // An answer that is held back was asked for a moment ago.
    std::thread::sleep(Duration::from_millis(50));
    server.kill_workerd();
    let status = sender.join().expect("no panic");
    assert!(matches!(status, 0 | 200 | 500 | 503), "{status}");
}

fn send_share(world: &World, body: &[u8], path: &str) -> u16 {
    world.send("POST", path, e2e::SHARE_REQ, Some(body)).map_or(0, |a| a.status)
}

fn send_job(world: &World, body: &[u8], path: &str) -> u16 {
    world.send("PUT", path, e2e::JOB_INIT, Some(body)).map_or(0, |a| a.status)
}

#[test]
fn a_collection_during_which_the_runtime_dies_can_be_repeated() {
    let server = Server::start();
    for mode in [LeaderSelected, TimeInterval] {
        let world = Arc::new(World::new(&server, mode, |spec| spec.shards = 2));
        // Calls: ledger, 2 gatherings, 2 freezings, 2 sealings.
        for (n, (call, fault)) in [
            (0, "hold_answer"),
            (1, "hold_request"),
            (3, "hold_request"),
            (3, "hold_answer"),
            (4, "hold_request"),
            (4, "hold_answer"),
            (5, "hold_request"),
            (5, "hold_answer"),
        ]
        .into_iter()
        .enumerate()
        {
            println!("{mode:?}: {fault} {call}");
            let (place, mut books) = (place(&world, n), Books::default());
            assert_eq!(world.run(six(&world, &place), &mut books), []);
            let request = world.share_request(place.batch, &books);
            let path = world.shares_path();
            kill_during(&server, &world, call, fault, send_share, &request, &path);
            assert_collected(&world, &place, &books, None);
        }
    }
}

/// The runtime dies between freezing and decision, and then the leader sends more reports before it asks again.
#[test]
fn a_job_after_a_collection_that_died_is_counted() {
    let server = Server::start();
    for call in [3, 4] {
        let world = Arc::new(World::new(&server, LeaderSelected, |spec| spec.shards = 2));
        let (place, mut books) = (place(&world, 0), Books::default());
        assert_eq!(world.run(six(&world, &place), &mut books), []);
        let request = world.share_request(place.batch, &books);
        let path = world.shares_path();
        kill_during(&server, &world, call, "hold_answer", send_share, &request, &path);
        let job = six(&world, &place);
        let answer = until_final(|| world.put(&job));
        assert_eq!(world.finish(job, &answer, &mut books), []);
        assert_collected(&world, &place, &books, None);
    }
}

#[test]
fn a_job_during_which_the_runtime_dies_can_be_repeated() {
    let server = Server::start();
    let world = Arc::new(World::new(&server, TimeInterval, |spec| {
        spec.shards = 2;
        spec.buckets_per_group = Some(1);
    }));
    // The claim, then refusals of new stores, openings and commits.
    for (n, (call, fault)) in
        [(0, "hold_answer"), (2, "hold_request"), (6, "hold_answer"), (8, "hold_answer")]
            .into_iter()
            .enumerate()
    {
        println!("{fault} {call}");
        let (place, mut books) = (place(&world, n), Books::default());
        // Many reports, so that all four stores are touched.
        let reports: Vec<_> =
            (0..24).flat_map(|n| world.sums(&[n], world.time(place.bucket + n % 2))).collect();
        let job = world.job(place.part, &reports);
        let path = world.job_path(&job.id);
        kill_during(&server, &world, call, fault, send_job, &job.body, &path);
        let answer = until_final(|| world.put(&job));
        assert_eq!(world.finish(job, &answer, &mut books), []);
        assert_collected(&world, &place, &books, None);
    }
}

/// A job and a collection of what was there before it, at once. A careful leader does not do that; one that does gets
/// what it asked for: of the job, each store refuses its reports or leaves them out.
#[test]
fn a_job_racing_a_collection_is_left_out_or_refused() {
    let (server, _turn) = server();
    server.plan(&[]);
    let (mut first, mut second) = (0, 0);
    for mode in [LeaderSelected, TimeInterval] {
        let world = Arc::new(world(server, mode, 2));
        for round in 0..12 {
            let (place, mut books) = (place(&world, round), Books::default());
            assert_eq!(world.run(six(&world, &place), &mut books), []);
            let request = world.share_request(place.batch, &books);
            let job = six(&world, &place);
            let sender = {
                let (world, id, body) = (world.clone(), job.id, job.body.clone());
                std::thread::spawn(move || {
                    // From well before the collection to well after it has begun.
                    std::thread::sleep(Duration::from_millis(3 * round as u64));
                    until_final(|| world.put_body(&id, &body))
                })
            };
            std::thread::sleep(Duration::from_millis(9));
            let answer = until_final(|| world.post_share(&request));
            let verdict = sender.join().expect("no panic");
            world.assert_true(place.batch, &books, &answer);
            let refused = world.finish(job, &verdict, &mut books.clone());
            assert!(refused.iter().all(|(_, e)| *e == BatchCollected), "{refused:?}");
            if refused.is_empty() {
                second += 1;
            } else {
                first += 1;
            }
            assert_collected(&world, &place, &books, Some(&answer));
        }
    }
    println!("the collection came first {first} times, the job {second} times");
}
