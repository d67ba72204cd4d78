//! Tasks that a leader brings along: opting in and out, credentials, and what is written when. taskprov-07 §4.

use std::sync::OnceLock;

use daphne_core::{
    b64,
    batch::{
        BatchMode::{LeaderSelected, TimeInterval},
        Checksum,
    },
    error::ReportError,
    ids::{AggregationJobId, BatchId, ReportId, TaskId},
    message::{BatchSelector, PartialBatchSelector},
    task::TaskSpec,
    taskprov::{self, PeerChange, PeerPolicy, VerifyKeyInit},
    time::{Duration, Time},
    vdaf::{Measurement, VdafConfig},
    wire::v09::{
        DpMechanism, QueryConfig, TASKPROV_EXTENSION, TaskConfig, TaskQuery, TaskVdaf,
        TaskVdafConfig,
    },
};
use e2e::{
    Answer, Books, JOB_CONTINUE, JOB_INIT, Peer, SHARE_REQ, Server, World,
    forge::{Draft, Forged, forge, job_body},
    now,
    peer::HELPER_URL,
    server::{random, random_token},
    world::{share_request, verdicts},
};

const TIMED: PartialBatchSelector = PartialBatchSelector::TimeInterval;
/// The extension that reports of such tasks carry, encoded.
const BOUND: [u8; 4] = [0xFF, 0x00, 0, 0];

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

/// The answer to a request for a task, with this header and token: one that creates a job, continues one, asks for an
/// aggregate share, or deletes a job. Bodies are empty.
fn ask(kind: usize, task: &TaskId, header: Option<&str>, token: Option<&str>) -> Answer {
    let job = format!("/v09/tasks/{task}/aggregation_jobs/{}", AggregationJobId::new(random()));
    let shares = format!("/v09/tasks/{task}/aggregate_shares");
    let (method, path, media_type) = [
        ("PUT", &job, Some(JOB_INIT)),
        ("POST", &job, Some(JOB_CONTINUE)),
        ("POST", &shares, Some(SHARE_REQ)),
        ("DELETE", &job, None),
    ][kind];
    let bearer = token.map(|token| format!("Bearer {token}"));
    let mut headers = vec![];
    headers.extend(bearer.as_deref().map(|b| ("authorization", b)));
    headers.extend(header.map(|h| (taskprov::HEADER, h)));
    headers.extend(media_type.map(|m| ("content-type", m)));
    server().client().ask(method, path, &headers, media_type.map(|_| &b""[..]))
}

/// The answers to a request of each kind.
fn ask_all(task: &TaskId, header: Option<&str>, token: Option<&str>) -> Vec<Answer> {
    (0..4).map(|kind| ask(kind, task, header, token)).collect()
}

fn header(world: &World) -> String {
    b64::encode(world.taskprov.as_ref().unwrap())
}

/// Writes that were billed so far: rows of objects, and entries of KV.
fn writes(server: &Server) -> (u64, u64) {
    let meter = server.client().get("/internal/test/meter").json();
    (meter["rows_written"].as_u64().unwrap(), meter["kv_writes"].as_u64().unwrap())
}

// A whole life.

#[test]
fn a_task_is_met_with_its_first_job_and_collected() {
    for mode in [TimeInterval, LeaderSelected] {
        let world = peer().task(server(), mode, |_| {});
        assert!(!is_known(&world));
        let batch = BatchId::new(random());
        let (part, selector) = match mode {
            TimeInterval => (TIMED, world.interval(0, 1)),
            LeaderSelected => {
                (PartialBatchSelector::LeaderSelected(batch), BatchSelector::LeaderSelected(batch))
            }
        };
        let mut books = Books::default();
        for numbers in [&[1, 2, 3][..], &[40, 50]] {
            world.aggregate(part, &world.sums(numbers, world.time(0)), &mut books);
        }
        world.collect(selector, &books);
        let job = world.job(part, &world.sums(&[7], world.time(0)));
        assert_eq!(world.delete(&job.id).status, 204);
    }
}

#[test]
fn the_verify_key_has_the_length_that_the_vdaf_needs() {
    let world = peer().task(server(), TimeInterval, |spec| {
        spec.vdaf = VdafConfig::Prio3SumVecField64MultiproofHmacSha256Aes128 {
            length: 3,
            max_measurement: 3,
            chunk_length: 2,
            proofs: 2,
        };
    });
    let vectors = [vec![1, 2, 3], vec![3, 0, 1]];
    let reports: Vec<_> =
        vectors.into_iter().map(|v| world.report(Measurement::SumVec(v), world.time(0))).collect();
    let mut books = Books::default();
    world.aggregate(TIMED, &reports, &mut books);
    world.collect(world.interval(0, 1), &books);
}

#[test]
fn a_task_may_be_met_with_any_request() {
    for kind in 0..4 {
        let world = unknown_task();
        let answer = ask(kind, &world.task_id, Some(&header(&world)), Some(&world.token));
        if kind == 3 {
            assert_eq!(answer.status, 204);
        } else {
            answer.refused("invalidMessage", &world.task_id);
        }
        assert!(is_known(&world));
    }
    // Nothing was aggregated yet, and the task is known: the request says so.
    let world = unknown_task();
    let request = share_request(world.interval(0, 1), 2, Checksum::default());
    world.post_share(&request).refused("invalidBatchSize", &world.task_id);
    assert!(is_known(&world));
}

#[test]
fn an_operator_sees_where_a_task_came_from() {
    let peer = peer();
    let world = peer.task(server(), TimeInterval, |_| {});
    meet(&world);
    let shown = server().admin_ask("GET", &format!("/admin/tasks/{}", world.task_id), None).json();
    assert_eq!(shown["taskprov"]["leader_url"], peer.spec.endpoint);
    let bytes = world.taskprov.as_ref().unwrap();
    let config = TaskConfig::decode(bytes).unwrap();
    assert_eq!(shown["taskprov"]["task_info"], b64::encode(config.task_info));
    assert_eq!(shown["task_expiration"], config.task_expiration.as_seconds());
    assert_eq!(shown["min_batch_size"], 2);
    let listed = server().admin().all_tasks().unwrap();
    assert!(listed.iter().any(|task| task.task_id == world.task_id));
}

#[test]
fn a_task_takes_what_its_peers_policy_says() {
    let policy = PeerPolicy {
        report_expiry_age: Duration::from_seconds(30 * 86_400),
        tolerable_clock_skew: Duration::from_seconds(7),
        shards: 3,
        buckets_per_group: Some(2),
        ..PeerPolicy::default()
    };
    let peer = Peer::new(server(), policy);
    let world = peer.task(server(), TimeInterval, |_| {});
    let mut books = Books::default();
    world.aggregate(TIMED, &world.sums(&[1, 2, 3, 4], world.time(0)), &mut books);
    world.collect(world.interval(0, 1), &books);
    let task = server().admin().task(&world.task_id).unwrap().unwrap();
    assert_eq!((task.shards, task.buckets_per_group), (3, 2));
    assert_eq!(task.report_expiry_age.as_seconds(), 30 * 86_400);
    assert_eq!(task.tolerable_clock_skew.as_seconds(), 7);
}

/// The token may come in either header, and a task that is known needs no header any more.
#[test]
fn a_known_task_is_served_with_and_without_the_header() {
    let mut world = known_task();
    let mut books = Books::default();
    world.aggregate(TIMED, &world.sums(&[1, 2], world.time(0)), &mut books);
    let config = world.taskprov.take();
    let job = world.job_path(&AggregationJobId::new(random()));
    for name in ["authorization", "dap-auth-token"] {
        let value = if name == "authorization" {
            format!("Bearer {}", world.token)
        } else {
            world.token.clone()
        };
        let answer = world.client.ask("DELETE", &job, &[(name, &value)], None);
        assert_eq!(answer.status, 204, "{}", answer.text());
    }
    world.collect(world.interval(0, 1), &books);
    world.taskprov = config;
}

// Headers.

#[test]
fn without_a_header_an_unknown_task_is_unrecognized() {
    let world = unknown_task();
    for answer in ask_all(&world.task_id, None, Some(&world.token)) {
        answer.refused("unrecognizedTask", &world.task_id);
    }
    assert!(!is_known(&world));
}

#[test]
fn a_header_that_does_not_decode_is_an_invalid_message() {
    for known in [false, true] {
        let world = if known { known_task() } else { unknown_task() };
        let good = world.taskprov.clone().unwrap();
        let text = b64::encode(&good);
        let mut not_ascii = good.clone();
        // The first character of the leader's URL, after 16 bytes of information and two lengths.
        not_ascii[1 + 16 + 2] = 0xFF;
        for bad in [
            String::new(),
            "!".to_owned(),
            format!("{text}="),
            format!("{text}, {text}"),
            b64::encode(&good[..good.len() - 1]),
            b64::encode(&[&good[..], &[0]].concat()),
            b64::encode(&not_ascii),
            // One character more than is read.
            "A".repeat(taskprov::HEADER_CHARS_MAX + 1),
        ] {
            for answer in ask_all(&world.task_id, Some(&bad), Some(&world.token)) {
                answer.refused("invalidMessage", &world.task_id);
            }
        }
        assert_eq!(is_known(&world), known);
    }
}

#[test]
fn a_header_of_another_task_is_unrecognized() {
    let (known, unknown, other) = (known_task(), unknown_task(), unknown_task());
    for world in [&known, &unknown] {
        for answer in ask_all(&world.task_id, Some(&header(&other)), Some(&world.token)) {
            answer.refused("unrecognizedTask", &world.task_id);
        }
    }
    assert!(is_known(&known) && !is_known(&unknown) && !is_known(&other));
    // Also for a task that an operator created.
    let created = World::new(server(), TimeInterval, |_| {});
    for answer in ask_all(&created.task_id, Some(&header(&other)), Some(&created.token)) {
        answer.refused("unrecognizedTask", &created.task_id);
    }
}

#[test]
fn hpke_configurations_do_not_care_for_the_header() {
    let world = unknown_task();
    let plain = server().client().get("/v09/hpke_config");
    for text in [header(&world), "!".to_owned()] {
        let headers = [(taskprov::HEADER, text.as_str())];
        let answer = server().client().ask("GET", "/v09/hpke_config", &headers, None);
        assert_eq!((answer.status, &answer.body), (200, &plain.body));
    }
    assert!(!is_known(&world));
}

// Opting out.

/// The parameters of a task that `peer` may bring.
fn config(peer: &Peer) -> TaskConfig<'_> {
    TaskConfig {
        task_info: b"e2e",
        leader_aggregator_endpoint: &peer.spec.endpoint,
        helper_aggregator_endpoint: HELPER_URL,
        query_config: QueryConfig {
            time_precision: Duration::from_seconds(3_600),
            max_batch_query_count: 1,
            min_batch_size: 10,
            query: TaskQuery::TimeInterval,
        },
        task_expiration: Time::from_seconds(now() + 3_600),
        vdaf_config: TaskVdafConfig { dp_mechanism: DpMechanism::None, vdaf: TaskVdaf::Count },
    }
}

/// Asserts that each request with these parameters is answered so, and that the task is not created.
#[track_caller]
fn opts_out(peer: &Peer, config: &TaskConfig<'_>) {
    let bytes = config.encode().unwrap();
    let id = taskprov::task_id(&bytes);
    for answer in ask_all(&id, Some(&b64::encode(&bytes)), Some(peer.token())) {
        answer.refused("invalidTask", &id);
        assert!(!answer.json()["detail"].as_str().unwrap().is_empty());
    }
    assert_eq!(server().admin().task(&id).unwrap(), None);
}

#[test]
fn a_task_that_is_over_or_not_supported_is_opted_out_of() {
    let peer = peer();
    let good = config(&peer);
    opts_out(&peer, &TaskConfig { task_expiration: Time::from_seconds(now() - 10), ..good });
    opts_out(&peer, &TaskConfig { task_expiration: Time::from_seconds(0), ..good });
    for vdaf in [
        TaskVdaf::Unknown { vdaf_type: 4, rest: &[] },
        TaskVdaf::Unknown { vdaf_type: 0xFFFF_0000, rest: &[0, 0, 0, 10] },
        TaskVdaf::Sum { bits: 0 },
        TaskVdaf::Sum { bits: 65 },
        TaskVdaf::Histogram { length: 0, chunk_length: 1 },
        TaskVdaf::Histogram { length: 1, chunk_length: 0 },
        TaskVdaf::Histogram { length: u32::MAX, chunk_length: u32::MAX },
        TaskVdaf::SumVec { length: u32::MAX, bits: 255, chunk_length: u32::MAX },
        TaskVdaf::SumVecField64Multiproof { length: 3, bits: 1, chunk_length: 1, proofs: 0 },
    ] {
        let vdaf_config = TaskVdafConfig { vdaf, ..good.vdaf_config };
        opts_out(&peer, &TaskConfig { vdaf_config, ..good });
    }
    for mechanism in [0, 5, 255] {
        let dp_mechanism = DpMechanism::Unknown { mechanism, rest: &[1] };
        let vdaf_config = TaskVdafConfig { dp_mechanism, ..good.vdaf_config };
        opts_out(&peer, &TaskConfig { vdaf_config, ..good });
    }
    for query in [
        TaskQuery::Unknown { query_type: 0, rest: &[] },
        TaskQuery::Unknown { query_type: 3, rest: &[1, 2] },
        TaskQuery::FixedSize { max_batch_size: 9 },
    ] {
        let query_config = QueryConfig { query, ..good.query_config };
        opts_out(&peer, &TaskConfig { query_config, ..good });
    }
    for query_config in [
        QueryConfig { time_precision: Duration::from_seconds(0), ..good.query_config },
        QueryConfig { time_precision: Duration::from_seconds(u64::MAX), ..good.query_config },
        QueryConfig { max_batch_query_count: 0, ..good.query_config },
        QueryConfig { min_batch_size: 0, ..good.query_config },
        QueryConfig { min_batch_size: 1, ..good.query_config },
    ] {
        opts_out(&peer, &TaskConfig { query_config, ..good });
    }
}

#[test]
fn what_a_peer_may_not_ask_is_opted_out_of() {
    let day = Duration::from_seconds(86_400);
    let no_bounds = PeerPolicy::default();
    for (policy, allowed) in [
        (PeerPolicy { min_batch_size_min: Some(10), ..no_bounds.clone() }, true),
        (PeerPolicy { min_batch_size_min: Some(11), ..no_bounds.clone() }, false),
        (PeerPolicy { max_batch_query_count_max: Some(0), ..no_bounds.clone() }, false),
        (PeerPolicy { lifetime_max: Some(day), ..no_bounds.clone() }, true),
        (PeerPolicy { lifetime_max: Some(Duration::from_seconds(60)), ..no_bounds.clone() }, false),
        (PeerPolicy { helper_url: Some(HELPER_URL.into()), ..no_bounds.clone() }, true),
        (PeerPolicy { helper_url: Some("https://h.example/".into()), ..no_bounds }, false),
    ] {
        let peer = Peer::new(server(), policy);
        if allowed {
            meet(&peer.task(server(), TimeInterval, |spec| spec.min_batch_size = 10));
        } else {
            opts_out(&peer, &config(&peer));
        }
    }
}

#[test]
fn a_leader_that_is_no_peer_is_opted_out_of() {
    let stranger = Peer::stranger(PeerPolicy::default());
    opts_out(&stranger, &config(&stranger));
    // Byte for byte: neither a missing slash nor another case is the same leader.
    let mut peer = peer();
    let endpoint = peer.spec.endpoint.clone();
    for other in [endpoint.trim_end_matches('/').to_owned(), endpoint.replace("https", "HTTPS")] {
        peer.spec.endpoint = other;
        opts_out(&peer, &config(&peer));
    }
}

/// Who opted in does not opt out, whatever becomes of the policy and the time.
#[test]
fn a_known_task_is_served_after_its_end_and_under_a_stricter_policy() {
    let end = now() + 4;
    let peer = peer();
    let world = peer.task(server(), TimeInterval, |spec| {
        spec.task_expiration = Some(Time::from_seconds(end));
    });
    meet(&world);
    let stricter = PeerPolicy {
        min_batch_size_min: Some(1_000),
        lifetime_max: Some(Duration::from_seconds(0)),
        ..PeerPolicy::default()
    };
    let change = PeerChange {
        endpoint: peer.spec.endpoint.clone(),
        policy: Some(stricter),
        ..PeerChange::default()
    };
    server().admin().change_peer(&change).unwrap().unwrap();
    opts_out(&peer, &config(&peer));
    std::thread::sleep(std::time::Duration::from_secs(end + 2 - now()));
    let bound = |draft: &mut Draft| draft.extensions = BOUND.to_vec();
    let in_time = [1, 2].map(|n| forge(&world, n, world.time(0), bound));
    let late = forge(&world, 3, Time::from_seconds(end + 1), bound);
    let ids = in_time.each_ref().map(|r| r.id);
    let late_id = late.id;
    let [first, last] = in_time;
    let body = job_body(TIMED, &[first, late, last]);
    let answer = world.put_body(&AggregationJobId::new(random()), &body);
    let found = verdicts(answer.ok("application/dap-aggregation-job-resp"));
    let expected = [
        (ReportId::new(ids[0]), None),
        (ReportId::new(late_id), Some(ReportError::TaskExpired)),
        (ReportId::new(ids[1]), None),
    ];
    assert_eq!(found, expected);
    assert_counts(&world, &ids);
}

/// Collects bucket 0 and asserts that exactly these reports are in it.
#[track_caller]
fn assert_counts(world: &World, ids: &[[u8; 16]]) {
    let mut checksum = Checksum::default();
    ids.iter().for_each(|id| checksum.add(&ReportId::new(*id)));
    let request = share_request(world.interval(0, 1), ids.len() as u64, checksum);
    world.post_share(&request).ok("application/dap-aggregate-share");
}

// Report extensions.

/// A bad report between two good ones is refused as `invalid_message` (8), and they count.
#[track_caller]
fn refuses_only(world: &World, good: &[u8], bad: &[u8]) {
    let made = |n, extensions: &[u8]| -> Forged {
        let extensions = extensions.to_vec();
        forge(world, n, world.time(0), |draft| draft.extensions = extensions)
    };
    let (first, bad, last) = (made(1, good), made(2, bad), made(3, good));
    let ids = [first.id, last.id];
    let body = job_body(TIMED, &[first, bad, last]);
    let answer = world.put_body(&AggregationJobId::new(random()), &body);
    let bytes = answer.ok("application/dap-aggregation-job-resp");
    let found: Vec<_> = verdicts(bytes).into_iter().map(|(_, error)| error).collect();
    assert_eq!(found, [None, Some(ReportError::InvalidMessage), None]);
    // List length, then id, state, and a message of 21 bytes with its length; the refusal follows.
    let second = &bytes[4 + 16 + 1 + 4 + 21..];
    assert_eq!(second[16..18], [2, 8]);
    assert_counts(world, &ids);
}

#[test]
fn a_report_of_a_task_that_was_brought_carries_the_extension_once_and_empty() {
    let others: [&[u8]; 7] = [
        &[],
        &[0xFF, 0x00, 0, 1, 0],
        &[0xFF, 0x00, 0, 0, 0xFF, 0x00, 0, 0],
        &[0xFF, 0x01, 0, 0],
        &[0xFF, 0x00, 0, 0, 0, 1, 0, 0],
        &[0, 1, 0, 0, 0xFF, 0x00, 0, 0],
        // The list ends inside an item.
        &[0xFF, 0x00, 0],
    ];
    for bad in others {
        refuses_only(&unknown_task(), &BOUND, bad);
    }
}

#[test]
fn in_a_task_that_an_operator_created_the_extension_is_unknown() {
    assert_eq!(TASKPROV_EXTENSION.to_be_bytes(), BOUND[..2]);
    refuses_only(&World::new(server(), TimeInterval, |_| {}), &[], &BOUND);
}

// Credentials.

#[test]
fn a_wrong_token_is_refused_and_a_peers_token_opens_its_tasks_only() {
    let (known, unknown) = (known_task(), unknown_task());
    let created = World::new(server(), TimeInterval, |_| {});
    for token in [None, Some(random_token()), Some(created.token.clone())] {
        for world in [&known, &unknown] {
            for answer in ask_all(&world.task_id, Some(&header(world)), token.as_deref()) {
                answer.refused("unauthorizedRequest", &world.task_id);
            }
        }
        for answer in ask_all(&known.task_id, None, token.as_deref()) {
            answer.refused("unauthorizedRequest", &known.task_id);
        }
    }
    for (world, other) in [(&known, &unknown), (&unknown, &known), (&created, &known)] {
        for answer in ask_all(&world.task_id, None, Some(&other.token)) {
            let expected = if is_known(world) { "unauthorizedRequest" } else { "unrecognizedTask" };
            answer.refused(expected, &world.task_id);
        }
    }
    // Before its header is looked at.
    for answer in ask_all(&known.task_id, Some("!"), Some("wrong")) {
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
    let found = verdicts(answer.ok("application/dap-aggregation-job-resp"));
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
    for answer in ask_all(&world.task_id, Some(&header(&world)), Some(&world.token)) {
        answer.refused("unauthorizedRequest", &world.task_id);
    }
    opts_out(&peer, &config(&peer));
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

#[test]
fn a_deleted_task_does_not_come_back() {
    let (met, unmet) = (known_task(), unknown_task());
    assert!(server().admin().delete_task(&met.task_id, None).unwrap());
    for _ in 0..2 {
        for answer in ask_all(&met.task_id, Some(&header(&met)), Some(&met.token)) {
            answer.refused("unrecognizedTask", &met.task_id);
        }
    }
    assert!(!is_known(&met));
    for answer in ask_all(&met.task_id, Some(&header(&met)), Some("wrong")) {
        answer.refused("unauthorizedRequest", &met.task_id);
    }
    // A task with that id which an operator creates first is the operator's.
    let spec = TaskSpec { leader_token: Some(random_token()), ..unmet.spec.clone() };
    server().admin().create_task(&spec).unwrap();
    for answer in ask_all(&unmet.task_id, Some(&header(&unmet)), Some(&unmet.token)) {
        answer.refused("unauthorizedRequest", &unmet.task_id);
    }
    for answer in ask_all(&unmet.task_id, Some(&header(&unmet)), spec.leader_token.as_deref()) {
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
    let mut last = writes(&server);
    for _ in 0..3 {
        let world = peer.task(&server, TimeInterval, |_| {});
        server.plan(&[]);
        send(&world, peer.token()).refused("invalidMessage", &world.task_id);
        // Is it known? No: create it.
        assert_eq!(server.calls(), ["CONFIG_STORE", "CONFIG_STORE"]);
        let met = writes(&server);
        // The task, and when it ends, with its index entry; and one copy.
        assert_eq!((met.0 - last.0, met.1 - last.1), (3, 1));
        server.plan(&[]);
        for _ in 0..5 {
            send(&world, peer.token()).refused("invalidMessage", &world.task_id);
            send(&world, "wrong").refused("unauthorizedRequest", &world.task_id);
        }
        // But for a glance at the peers, once a second, in case the wrong token is a new one.
        assert!(server.calls().len() <= 5, "{:?}", server.calls());
        assert_eq!(writes(&server), met, "a known task");
        last = met;
    }
}
