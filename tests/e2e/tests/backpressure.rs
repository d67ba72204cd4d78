//! Who asks too often, or for more than an isolate can hold, is sent away before work is done, and comes back.

use std::time::{Duration, Instant};

use daphne_core::{
    batch::BatchMode::TimeInterval,
    ids::{AggregationJobId, TaskId},
    taskprov::PeerPolicy,
    version::{DapVersion, Message},
};
use e2e::{
    Answer, Books, Client, JOB_INIT, Peer, Server, World,
    control_plane::{API_TOKENS, ControlPlane, FormError},
    raw::Connection,
    server::{random, random_token},
};

#[track_caller]
fn is_sent_away(answer: &Answer, status: u16) {
    answer.refused_without_type(status);
    let seconds: u64 = answer.header("retry-after").parse().expect("a number");
    assert!((5..=30).contains(&seconds), "{seconds}");
}

/// Repeats a request until its answer has this status, and returns how often it had another.
#[track_caller]
fn until(status: u16, mut ask: impl FnMut() -> Answer) -> usize {
    let mut others = 0;
    while ask().status != status {
        others += 1;
        assert!(others < 100, "never answered with {status}");
    }
    others
}

fn from_address(client: &Client, address: &str, path: &str) -> Answer {
    client.ask("GET", path, &[("cf-connecting-ip", address)], None)
}

fn unknown_task() -> String {
    format!("/v09/hpke_config?task_id={}", TaskId::new(random()))
}

#[test]
fn a_leader_is_limited_by_task_and_nobody_else_uses_its_requests_up() {
    let server = Server::start_with_limits(&[("LEADER_LIMIT", 8)]);
    let [world, other] = [0; 2].map(|_| World::new(&server, TimeInterval, |_| {}));
    let path = world.job_path(&AggregationJobId::new(random()));
    let wrong = format!("Bearer {}", random_token());
    let headers = [("content-type", JOB_INIT), ("authorization", wrong.as_str())];
    for _ in 0..20 {
        let answer = world.client.ask("PUT", &path, &headers, Some(b"x"));
        answer.refused("unauthorizedRequest", &world.task_id);
    }
    let ask = || world.ask("PUT", &path, JOB_INIT, Some(b"garbage"));
    let served = until(429, ask);
    assert!((8..=16).contains(&served), "{served}: the window of ten seconds may turn once");
    is_sent_away(&ask(), 429);
    // Before the media type or the body is looked at.
    is_sent_away(&world.ask("POST", &world.shares_path(), "text/plain", Some(b"x")), 429);
    let mut books = Books::default();
    assert_eq!(other.run(other.timed_job(&other.sums(&[20, 3], other.time(0))), &mut books), []);
    other.collect(other.interval(0, 1), &books);
    // In either version.
    let later = World::new_in(&server, DapVersion::V18, TimeInterval, |_| {});
    let ask = || later.create(b"garbage");
    assert!((8..=16).contains(&until(429, ask)));
    is_sent_away(&ask(), 429);
    // And the same request succeeds later.
    let deadline = Instant::now() + Duration::from_secs(25);
    let job = world.timed_job(&world.sums(&[1, 2], world.time(0)));
    while world.put(&job).status == 429 {
        assert!(Instant::now() < deadline, "limited for ever");
        std::thread::sleep(Duration::from_millis(500));
    }
    assert_eq!(world.put(&job).status, 200);
}

#[test]
fn a_peer_is_limited_over_all_the_tasks_that_it_brings() {
    let server = Server::start_with_limits(&[("LEADER_LIMIT", 6)]);
    let peer = Peer::new(&server, PeerPolicy::default());
    let served = until(429, || {
        let world = peer.task(&server, TimeInterval, |_| {});
        let job = world.timed_job(&world.sums(&[1, 2], world.time(0)));
        world.put(&job)
    });
    assert!((6..=12).contains(&served), "{served}");
}

#[test]
fn strangers_are_limited_by_address_where_they_cost_something() {
    let server = Server::start_with_limits(&[("PUBLIC_LIMIT", 5)]);
    let client = server.client();
    let served = until(429, || from_address(client, "192.0.2.1", &unknown_task()));
    assert!((5..=10).contains(&served), "{served}");
    is_sent_away(&from_address(client, "192.0.2.1", &unknown_task()), 429);
    // The list itself is free, other addresses are others, and IPv6 addresses of one network are one.
    for _ in 0..20 {
        assert_eq!(from_address(client, "192.0.2.1", "/v09/hpke_config").status, 200);
    }
    assert_eq!(from_address(client, "192.0.2.2", &unknown_task()).status, 400);
    let mut n = 0;
    let served = until(429, || {
        n += 1;
        from_address(client, &format!("2001:db8:0:1::{n:x}"), &unknown_task())
    });
    assert!((5..=10).contains(&served), "{served}");
    assert_eq!(from_address(client, "2001:db8:0:2::1", &unknown_task()).status, 400);
    // A leader whose task is known does not share the address's requests.
    let world = World::new(&server, TimeInterval, |_| {});
    let (id, bearer) = (AggregationJobId::new(random()), format!("Bearer {}", world.token));
    let headers = [("cf-connecting-ip", "192.0.2.1"), ("authorization", bearer.as_str())];
    assert_eq!(world.client.ask("DELETE", &world.job_path(&id), &headers, None).status, 204);
}

#[test]
fn an_operator_is_limited_by_token() {
    let server = Server::start_with_limits(&[("ADMIN_LIMIT", 7)]);
    let wrong = format!("Bearer {}", random_token());
    for _ in 0..20 {
        let headers = [("authorization", wrong.as_str())];
        assert_eq!(server.client().ask("GET", "/admin/tasks", &headers, None).status, 403);
    }
    let served = until(429, || server.admin_ask("GET", "/admin/tasks", None));
    assert!((4..=14).contains(&served), "{served}");
    is_sent_away(&server.admin_ask("GET", "/admin/tasks", None), 429);
}

#[test]
fn a_control_plane_is_limited_by_token() {
    let mut server = Server::start_with_limits(&[("ADMIN_LIMIT", 7)]);
    let tokens = [random_token(), random_token()];
    server.set_secret(API_TOKENS, &tokens.join(","));
    let [plane, other] = tokens.each_ref().map(|token| ControlPlane::new(&server, token));
    let stranger = ControlPlane::new(&server, &random_token());
    for _ in 0..20 {
        assert_eq!(stranger.pair(""), Err(FormError::TokenNotRecognized));
    }
    let served = until(429, || plane.ask("GET", "", None));
    assert!((4..=14).contains(&served), "{served}");
    // Whatever it asks for, in the API's own way to refuse.
    for path in ["", "/task_ids", "/nothing"] {
        let answer = plane.ask("GET", path, None);
        assert_eq!((answer.status, answer.body.len()), (429, 0));
        let seconds: u64 = answer.header("retry-after").parse().expect("a number");
        assert!((5..=30).contains(&seconds), "{seconds}");
    }
    other.pair("").expect("another one is not limited");
    assert_eq!(server.admin_ask("GET", "/admin/tasks", None).status, 200);
}

#[test]
fn an_isolate_takes_no_more_jobs_than_it_can_hold() {
    let server = Server::start();
    let [world, other, third] = [DapVersion::V09, DapVersion::V18, DapVersion::V18]
        .map(|version| World::new_in(&server, version, TimeInterval, |_| {}));
    let begin = |world: &World, bytes: usize| {
        let bearer = format!("Bearer {}", world.token);
        let (method, path) = world.creation(&AggregationJobId::new(random()));
        let media_type = world.media_type(Message::AggregationJobInit);
        let mut connection = Connection::to(&world.client);
        connection.send(format!(
            "{method} {path} HTTP/1.1\r\nHost: helper.example\r\nAuthorization: {bearer}\r\n\
             Content-Type: {media_type}\r\nContent-Length: {bytes}\r\n\r\nx"
        ));
        connection
    };
    let job = world.timed_job(&world.sums(&[20, 3], world.time(0)));
    let large = (8 << 20) - 1_000;
    // Their heads are with the Worker, which waits for their bodies.
    let wait = || std::thread::sleep(Duration::from_secs(1));
    let mut held: Vec<Connection> = (0..2).map(|_| begin(&world, large)).collect();
    wait();
    // One task does not take the room of all.
    is_sent_away(&begin(&world, large).answer().expect("an answer"), 503);
    let small = other.timed_job(&other.sums(&[1, 2], other.time(0)));
    assert_eq!(other.put(&small).status, 200);
    held.push(begin(&other, large));
    wait();
    let refused = begin(&third, 8 << 20).answer();
    is_sent_away(&refused.expect("an answer, and no wait for a body"), 503);
    is_sent_away(&world.put(&job), 503);
    is_sent_away(&third.put(&third.timed_job(&third.sums(&[1, 2], third.time(0)))), 503);
    // What is no job is served, and when a job ends there is room.
    assert_eq!(world.client.get("/v09/hpke_config").status, 200);
    assert_eq!(server.admin_ask("GET", "/admin/tasks", None).status, 200);
    held.remove(0).send(vec![b'x'; large - 1]).answer().expect("an answer");
    let mut books = Books::default();
    assert_eq!(world.run(job, &mut books), []);
    world.collect(world.interval(0, 1), &books);
}
