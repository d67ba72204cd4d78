//! Jobs that are answered later, DAP-18 §3.1, with a server that does little within one request.

use std::{
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration as Wait, Instant},
};

use daphne_core::{
    batch::BatchMode::TimeInterval,
    vdaf::{Measurement, VdafConfig},
    version::DapVersion,
};
use e2e::{Answer, Books, Server, World};

/// Four reports.
const WORK_MAX: &str = "700";
const SUM: VdafConfig = VdafConfig::Prio3Sum { max_measurement: 255 };
const STRINGS: VdafConfig = VdafConfig::Poplar1 { bits: 4 };

/// The server, to oneself: it is killed now and then.
fn server() -> (&'static Server, MutexGuard<'static, ()>) {
    static SERVER: OnceLock<Server> = OnceLock::new();
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let start = || {
        let mut server = Server::start();
        server.set_secret("REQUEST_WORK_MAX", WORK_MAX);
        server
    };
    (SERVER.get_or_init(start), turn)
}

/// A task, asked for the first bits of its strings if it counts any.
fn world(server: &Server, vdaf: VdafConfig, buckets_per_group: u32) -> World {
    let mut world = World::new_in(server, DapVersion::V18, TimeInterval, |spec| {
        spec.vdaf = vdaf;
        spec.shards = 2;
        spec.buckets_per_group = Some(buckets_per_group);
    });
    if vdaf == STRINGS {
        world.ask_for(&["0", "1"]);
    }
    world
}

/// Reports of bucket 0, of the numbers below `count` or of strings.
fn reports(world: &World, count: u64) -> Vec<Vec<u8>> {
    let measurement = |n: u64| match world.spec.vdaf {
        STRINGS => {
            let string = if n.is_multiple_of(3) { "0110" } else { "1001" };
            Measurement::Poplar1(string.parse().expect("bits"))
        }
        _ => Measurement::Sum(n),
    };
    (0..count).map(|n| world.report(measurement(n), world.time(0))).collect()
}

/// Asks until there is an answer.
fn wait(world: &World, location: &str) -> Answer {
    let deadline = Instant::now() + Wait::from_secs(120);
    loop {
        let answer = world.get(location);
        if !is_later(&answer, location) {
            return answer;
        }
        assert!(Instant::now() < deadline, "no answer");
        std::thread::sleep(Wait::from_millis(100));
    }
}

/// Whether the answer is not there yet, and is to be asked for at `location`.
#[track_caller]
fn is_later(answer: &Answer, location: &str) -> bool {
    let is_later = answer.status == 200 && answer.body.is_empty();
    if is_later {
        assert_eq!(answer.header("location"), location);
        assert_eq!(answer.header("retry-after"), "2");
    }
    is_later
}

#[test]
fn a_job_too_large_for_a_request_is_answered_later_though_the_helper_dies_meanwhile() {
    let (server, _turn) = server();
    for buckets_per_group in [0, 1] {
        let world = world(server, SUM, buckets_per_group);
        let job = world.timed_job(&reports(&world, 120));
        let path = world.job_path(&job.id);
        let location = format!("{path}?step=0");
        let created = world.put(&job);
        assert!(is_later(&created, &location), "{created:?}");
        // The same again is the same job.
        assert!(is_later(&world.put(&job), &location));
        std::thread::sleep(Wait::from_millis(300));
        server.kill_workerd();
        let answer = wait(&world, &location);
        assert_eq!(world.put(&job).body, answer.body);
        for (query, refusal) in [
            ("", "invalidMessage"),
            ("?step=", "invalidMessage"),
            ("?step=-1", "invalidMessage"),
            ("?step=0&step=0", "invalidMessage"),
            ("?step=1", "stepMismatch"),
        ] {
            let refused = world.get(&format!("{path}{query}"));
            refused.refused(refusal, &world.task_id);
        }
        let mut books = Books::default();
        assert_eq!(world.finish(job, &answer, &mut books), []);
        assert_eq!(books.count(&world.interval(0, 1), &world).0, 120);
        world.collect(world.interval(0, 1), &books);
    }
}

#[test]
fn both_steps_of_several_rounds_are_answered_later() {
    let (server, _turn) = server();
    for buckets_per_group in [0, 1] {
        let world = world(server, STRINGS, buckets_per_group);
        let job = world.timed_job(&reports(&world, 60));
        let (id, init) = (job.id, job.body.clone());
        let [step_0, step_1] = [0, 1].map(|n| format!("{}?step={n}", world.job_path(&id)));
        let created = world.put(&job);
        assert!(is_later(&created, &step_0), "{created:?}");
        let next = world.proceed(job, &wait(&world, &step_0));
        for _ in 0..2 {
            let answer = world.post(&next);
            assert!(is_later(&answer, &step_1) || !world.job_resp(&answer).is_empty());
        }
        server.kill_workerd();
        world.get(&step_0).refused("stepMismatch", &world.task_id);
        let last = wait(&world, &step_1);
        assert_eq!(world.post(&next).body, last.body);
        assert_eq!(world.put_body(&id, &init).body, last.body, "the current state");
        let mut books = Books::default();
        assert_eq!(world.finish_continued(next, &last, &mut books), []);
        assert_eq!(books.count(&world.interval(0, 1), &world).0, 60);
        world.collect(world.interval(0, 1), &books);
    }
}

#[test]
fn a_job_that_is_deleted_while_it_is_worked_on_gives_its_reports_back() {
    let (server, _turn) = server();
    let world = world(server, SUM, 0);
    let reports = reports(&world, 100);
    let job = world.timed_job(&reports);
    let location = world.put(&job).header("location").to_owned();
    std::thread::sleep(Wait::from_millis(200));
    assert_eq!(world.delete(&job.id).status, 204);
    world.get(&location).refused("unrecognizedAggregationJob", &world.task_id);
    assert_eq!(world.delete(&job.id).status, 204);
    let job = world.timed_job(&reports[..99]);
    let location = world.put(&job).header("location").to_owned();
    let answer = wait(&world, &location);
    let mut books = Books::default();
    assert_eq!(world.finish(job, &answer, &mut books), []);
    world.collect(world.interval(0, 1), &books);
}

#[test]
fn who_asks_for_what_was_answered_at_once_is_told_how_to_get_it() {
    let (server, _turn) = server();
    let world = world(server, SUM, 1);
    let job = world.timed_job(&reports(&world, 2));
    let created = world.put(&job);
    let path = world.job_path(&job.id);
    assert_eq!(created.header("location"), path);
    let refused = world.get(&format!("{path}?step=0"));
    refused.refused("unrecognizedAggregationJob", &world.task_id);
    assert!(refused.text().contains("gets the same answer again"), "{}", refused.text());
    assert_eq!(world.put(&job).body, created.body);
    assert_eq!(world.finish(job, &created, &mut Books::default()), []);
}

#[test]
fn a_budget_that_is_none_is_complained_about() {
    let said = Server::start().refuses_secret("REQUEST_WORK_MAX", "0");
    assert!(said.contains("REQUEST_WORK_MAX must be 1 to 8388608"), "{said}");
}
