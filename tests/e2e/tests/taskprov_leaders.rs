//! Who may bring tasks along, what is written when, and what stays. taskprov-07 §4.

use std::sync::OnceLock;

use daphne_core::{
    batch::BatchMode::TimeInterval,
    error::ReportError,
    ids::AggregationJobId,
    message::PartialBatchSelector,
    task::TaskSpec,
    taskprov::{self, PeerChange, PeerPolicy, VerifyKeyInit},
    time::Time,
};
use e2e::{
    Answer, Books, JOB_INIT, Peer, Server, World,
    peer::{ask_all, header},
    server::{random, random_token},
};

const TIMED: PartialBatchSelector = PartialBatchSelector::TimeInterval;

fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(Server::start)
}

fn peer() -> Peer {
    Peer::new(server(), PeerPolicy::default())
}

/// A task of a peer of its own, which the helper has not met.
fn unknown_task() -> World {
    peer().task(server(), TimeInterval, |_| {})
}

/// A task of a peer of its own, which the helper takes part in.
fn known_task() -> World {
    let world = unknown_task();
    meet(&world);
    world
}

/// Has the helper opt in, without any report.
#[track_caller]
fn meet(world: &World) {
    world.put_body(&AggregationJobId::new(random()), b"").refused("invalidMessage", &world.task_id);
    assert!(is_known(world));
}

fn is_known(world: &World) -> bool {
    server().admin().task(&world.task_id).unwrap().is_some()
}

/// Writes that were billed so far: rows of objects, and entries of KV.
fn writes(server: &Server) -> (u64, u64) {
    let meter = server.client().get("/internal/test/meter").json();
    (meter["rows_written"].as_u64().unwrap(), meter["kv_writes"].as_u64().unwrap())
}

// Credentials.

#[test]
fn a_wrong_token_is_refused_and_a_peers_token_opens_its_tasks_only() {
    let (known, unknown) = (known_task(), unknown_task());
    let created = World::new(server(), TimeInterval, |_| {});
    for token in [None, Some(random_token()), Some(created.token.clone())] {
        for world in [&known, &unknown] {
            for answer in
                ask_all(server().client(), &world.task_id, Some(&header(world)), token.as_deref())
            {
                answer.refused("unauthorizedRequest", &world.task_id);
            }
        }
        for answer in ask_all(server().client(), &known.task_id, None, token.as_deref()) {
            answer.refused("unauthorizedRequest", &known.task_id);
        }
    }
    for (world, other) in [(&known, &unknown), (&unknown, &known), (&created, &known)] {
        for answer in ask_all(server().client(), &world.task_id, None, Some(&other.token)) {
            let expected = if is_known(world) { "unauthorizedRequest" } else { "unrecognizedTask" };
            answer.refused(expected, &world.task_id);
        }
    }
    // Before its header is looked at.
    for answer in ask_all(server().client(), &known.task_id, Some("!"), Some("wrong")) {
        answer.refused("unauthorizedRequest", &known.task_id);
    }
    assert!(!is_known(&unknown));
}

fn change(peer: &Peer, change: PeerChange) {
    let change = PeerChange { endpoint: peer.spec.endpoint.clone(), ..change };
    server().admin().change_peer(&change).unwrap().unwrap();
}

#[test]
fn a_peers_token_is_replaced_with_an_overlap() {
    let peer = peer();
    let mut world = peer.task(server(), TimeInterval, |_| {});
    let mut books = Books::default();
    let (old, new) = (world.token.clone(), random_token());
    world.aggregate(TIMED, &world.sums(&[1], world.time(0)), &mut books);
    let add = PeerChange { add_leader_token: Some(new.clone()), ..PeerChange::default() };
    change(&peer, add);
    for token in [&old, &new] {
        world.token.clone_from(token);
        world.aggregate(TIMED, &world.sums(&[2], world.time(0)), &mut books);
    }
    let shown = server().admin().peers().unwrap();
    let shown = shown.iter().find(|p| p.parameters.endpoint == peer.spec.endpoint).unwrap();
    let [first, _] = &shown.leader_tokens[..] else { panic!("two tokens: {shown:?}") };
    let remove =
        PeerChange { remove_leader_token: Some(first.name.clone()), ..PeerChange::default() };
    change(&peer, remove);
    let job = world.timed_job(&world.sums(&[4], world.time(0)));
    world.token = old;
    world.put(&job).refused("unauthorizedRequest", &world.task_id);
    world.token = new;
    world.run(job, &mut books);
    world.collect(world.interval(0, 1), &books);
}

#[test]
fn a_replaced_secret_is_for_new_tasks() {
    let mut peer = peer();
    let before = peer.task(server(), TimeInterval, |_| {});
    let mut books = Books::default();
    before.aggregate(TIMED, &before.sums(&[1, 2], before.time(0)), &mut books);
    let init = VerifyKeyInit::new(random());
    change(&peer, PeerChange { verify_key_init: Some(init.clone()), ..PeerChange::default() });
    // The task that is known keeps its key.
    before.aggregate(TIMED, &before.sums(&[3, 4], before.time(0)), &mut books);
    before.collect(before.interval(0, 1), &books);
    // One that is met now gets the new one, and a leader with the old secret verifies nothing.
    let stale = peer.task(server(), TimeInterval, |_| {});
    let job = stale.timed_job(&stale.sums(&[1], stale.time(0)));
    let answer = stale.put(&job);
    let found = stale.verdicts(stale.job_resp(&answer));
    assert_eq!(found[0].1, Some(ReportError::VdafVerifyError));
    peer.spec.verify_key_init = init;
    let after = peer.task(server(), TimeInterval, |_| {});
    let mut books = Books::default();
    after.aggregate(TIMED, &after.sums(&[5, 6], after.time(0)), &mut books);
    after.collect(after.interval(0, 1), &books);
}

#[test]
fn a_removed_peer_brings_nothing_and_opens_nothing() {
    let peer = peer();
    let world = peer.task(server(), TimeInterval, |_| {});
    let mut books = Books::default();
    world.aggregate(TIMED, &world.sums(&[1, 2], world.time(0)), &mut books);
    assert!(server().admin().remove_peer(&peer.spec.endpoint).unwrap());
    for answer in
        ask_all(server().client(), &world.task_id, Some(&header(&world)), Some(&world.token))
    {
        answer.refused("unauthorizedRequest", &world.task_id);
    }
    peer.opts_out(server(), &peer.config());
    // Added again, it finds its tasks as they were.
    server().admin().add_peer(&peer.spec).unwrap();
    world.collect(world.interval(0, 1), &books);
}

// Once, and for good.

#[test]
fn two_that_meet_a_task_at_once_meet_the_same() {
    let world = unknown_task();
    let jobs: Vec<_> = (1..=4).map(|n| world.timed_job(&world.sums(&[n], world.time(0)))).collect();
    let answers: Vec<Answer> = std::thread::scope(|s| {
        let senders: Vec<_> = jobs.iter().map(|job| s.spawn(|| world.put(job))).collect();
        senders.into_iter().map(|sender| sender.join().unwrap()).collect()
    });
    let mut books = Books::default();
    for (job, answer) in jobs.into_iter().zip(&answers) {
        assert_eq!(world.finish(job, answer, &mut books), []);
    }
    world.collect(world.interval(0, 1), &books);
}

/// An operator creates a task with the very id, between the leader's question whether there is one and its creation.
#[test]
fn an_operators_task_is_not_opened_with_a_peers_token() {
    let server = Server::start();
    let peer = Peer::new(&server, PeerPolicy::default());
    let mut operator_was_first = 0;
    for call in (0..4).chain([2; 4]) {
        let world = peer.task(&server, TimeInterval, |_| {});
        let theirs = TaskSpec { leader_token: Some(random_token()), ..world.spec.clone() };
        server.plan(&[(call, "retryable")]);
        let (answer, created) = std::thread::scope(|s| {
            let leader = s.spawn(|| world.put_body(&AggregationJobId::new(random()), b""));
            // It waits before it makes this call again.
            while server.calls().len() <= call && !leader.is_finished() {}
            let created = server.admin().create_task(&theirs);
            (leader.join().unwrap(), created)
        });
        server.plan(&[]);
        if created.is_ok() {
            operator_was_first += 1;
            answer.refused("unauthorizedRequest", &world.task_id);
        } else {
            answer.refused("invalidMessage", &world.task_id);
        }
    }
    assert!(operator_was_first >= 3, "only {operator_was_first} times");
}

#[test]
fn a_deleted_task_does_not_come_back() {
    let (met, unmet) = (known_task(), unknown_task());
    assert!(server().admin().delete_task(&met.task_id, None).unwrap());
    for _ in 0..2 {
        for answer in
            ask_all(server().client(), &met.task_id, Some(&header(&met)), Some(&met.token))
        {
            answer.refused("unrecognizedTask", &met.task_id);
        }
    }
    assert!(!is_known(&met));
    for answer in ask_all(server().client(), &met.task_id, Some(&header(&met)), Some("wrong")) {
        answer.refused("unauthorizedRequest", &met.task_id);
    }
    // A task with that id which an operator creates first is the operator's.
    let spec = TaskSpec { leader_token: Some(random_token()), ..unmet.spec.clone() };
    server().admin().create_task(&spec).unwrap();
    for answer in
        ask_all(server().client(), &unmet.task_id, Some(&header(&unmet)), Some(&unmet.token))
    {
        answer.refused("unauthorizedRequest", &unmet.task_id);
    }
    for answer in ask_all(
        server().client(),
        &unmet.task_id,
        Some(&header(&unmet)),
        spec.leader_token.as_deref(),
    ) {
        assert!(answer.status == 204 || answer.problem_token() == "invalidMessage");
    }
}

#[test]
fn peers_and_what_they_brought_live_through_a_restart() {
    let mut server = Server::start();
    let peer = Peer::new(&server, PeerPolicy::default());
    let world = peer.task(&server, TimeInterval, |_| {});
    let mut books = Books::default();
    world.aggregate(TIMED, &world.sums(&[1, 2], world.time(0)), &mut books);
    let peers = server.admin().peers().unwrap();
    server.restart();
    assert_eq!(server.admin().peers().unwrap(), peers);
    world.aggregate(TIMED, &world.sums(&[3, 4], world.time(0)), &mut books);
    world.collect(world.interval(0, 1), &books);
    let another = peer.task(&server, TimeInterval, |_| {});
    another.aggregate(TIMED, &another.sums(&[5], another.time(0)), &mut Books::default());
}

/// Whatever call is lost on the way to a task that is not known, the same request succeeds later.
#[test]
fn a_meeting_that_is_cut_off_can_be_repeated() {
    // A server of its own, whose calls nobody else makes.
    let server = Server::start();
    let peer = Peer::new(&server, PeerPolicy::default());
    for fault in ["lose_request", "lose_answer"] {
        // Is it known? Create it.
        for call in 0..2 {
            let world = peer.task(&server, TimeInterval, |_| {});
            let job = world.timed_job(&world.sums(&[1, 2], world.time(0)));
            server.plan(&[(call, fault)]);
            let answer = world.put(&job);
            assert_eq!(answer.status, 503, "{fault} of call {call}: {}", answer.text());
            assert!(!answer.header("retry-after").is_empty());
            let mut books = Books::default();
            assert_eq!(world.run(job, &mut books), []);
            world.collect(world.interval(0, 1), &books);
        }
    }
}

#[test]
fn strangers_write_nothing_and_a_task_is_written_once() {
    // A server of its own, so that nobody else writes.
    let mut server = Server::start();
    let peer = Peer::new(&server, PeerPolicy::default());
    // Nothing is in memory: what copies of peers are to be made falls to the requests below.
    server.restart();
    let stranger = Peer::stranger(PeerPolicy::default());
    let send = |world: &World, token: &str| {
        let (bearer, text) = (format!("Bearer {token}"), header(world));
        let headers = [
            ("authorization", bearer.as_str()),
            ("content-type", JOB_INIT),
            (taskprov::HEADER, &text),
        ];
        // The body is malformed, so that of good requests only opting in writes.
        let path = world.job_path(&AggregationJobId::new(random()));
        world.client.ask("PUT", &path, &headers, Some(b""))
    };
    let before = writes(&server);
    for _ in 0..3 {
        let world = peer.task(&server, TimeInterval, |_| {});
        send(&world, "wrong").refused("unauthorizedRequest", &world.task_id);
        send(&world, "").refused("unauthorizedRequest", &world.task_id);
        let world = stranger.task(&server, TimeInterval, |_| {});
        send(&world, stranger.token()).refused("invalidTask", &world.task_id);
        let expired = peer.task(&server, TimeInterval, |spec| {
            spec.task_expiration = Some(Time::from_seconds(1));
        });
        send(&expired, "wrong").refused("unauthorizedRequest", &expired.task_id);
    }
    assert_eq!(writes(&server), before, "strangers");

    // The first good request may also have the list of peers copied to KV.
    let world = peer.task(&server, TimeInterval, |_| {});
    send(&world, peer.token()).refused("invalidMessage", &world.task_id);
    // What the first refusal that a ledger counts costs, and what comes later: two rows every five seconds, for each task.
    let operators = World::new(&server, TimeInterval, |_| {});
    let before = writes(&server);
    let malformed = operators.put_body(&AggregationJobId::new(random()), b"");
    malformed.refused("invalidMessage", &operators.task_id);
    let (first, counting) = (writes(&server).0 - before.0, 10);
    let mut last = writes(&server);
    for _ in 0..3 {
        let world = peer.task(&server, TimeInterval, |_| {});
        server.plan(&[]);
        send(&world, peer.token()).refused("invalidMessage", &world.task_id);
        // Is it known? No: whose is it, as the peer is now? Create it. And count what its leader did wrong.
        let calls = server.calls();
        assert_eq!(calls, ["CONFIG_STORE", "CONFIG_STORE", "CONFIG_STORE", "TASK_LEDGER"]);
        let met = writes(&server);
        // The task, and when it ends, with its index entry; and one copy.
        let (rows, copies) = (met.0 - last.0, met.1 - last.1);
        let expected = 3 + first..=3 + first + counting;
        assert!(expected.contains(&rows) && copies == 1, "{rows} rows, {copies} copies");
        server.plan(&[]);
        for _ in 0..20 {
            send(&world, peer.token()).refused("invalidMessage", &world.task_id);
            send(&world, "wrong").refused("unauthorizedRequest", &world.task_id);
        }
        // But for a glance at the peers, once a second, in case the wrong token is a new one.
        let (counts, glances): (Vec<_>, Vec<_>) =
            server.calls().into_iter().partition(|call| call == "TASK_LEDGER");
        assert!(counts.len() == 20 && glances.len() <= 10, "{counts:?} {glances:?}");
        let known = writes(&server);
        let rows = known.0 - met.0;
        assert!(rows <= counting && known.1 == met.1, "a known task: {rows} rows");
        last = known;
    }
}
