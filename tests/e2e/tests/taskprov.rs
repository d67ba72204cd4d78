//! Tasks that a leader brings along: a whole life, headers, opting out, and report extensions. taskprov-07 §3 and §4.

use std::sync::OnceLock;

use daphne_core::{
    b64,
    batch::{
        BatchMode::{LeaderSelected, TimeInterval},
        Checksum,
    },
    error::ReportError,
    ids::{AggregationJobId, BatchId, ReportId},
    message::{BatchSelector, PartialBatchSelector},
    taskprov::{self, PeerChange, PeerPolicy},
    time::{Duration, Time},
    vdaf::{Measurement, VdafConfig},
    wire::v09::{
        DpMechanism, QueryConfig, TASKPROV_EXTENSION, TaskConfig, TaskQuery, TaskVdaf,
        TaskVdafConfig,
    },
};
use e2e::{
    Books, Peer, Server, World,
    forge::{Draft, Forged, forge, job_body},
    now,
    peer::{HELPER_URL, ask, ask_all, assert_counts, header},
    server::random,
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
fn a_task_of_several_rounds_and_parameters_is_met() {
    let world = peer().task(server(), TimeInterval, |spec| {
        spec.vdaf = VdafConfig::Poplar1 { bits: 16 };
        spec.max_batch_query_count = 16;
    });
    meet(&world);
    let task = server().admin().task(&world.task_id).unwrap().unwrap();
    assert_eq!(task.vdaf, VdafConfig::Poplar1 { bits: 16 });
    assert_eq!(task.max_batch_query_count, 16);
}

#[test]
fn a_task_may_be_met_with_any_request() {
    for kind in 0..4 {
        let world = unknown_task();
        let answer =
            ask(server().client(), kind, &world.task_id, Some(&header(&world)), Some(&world.token));
        if kind == 3 {
            assert_eq!(answer.status, 204);
        } else {
            answer.refused("invalidMessage", &world.task_id);
        }
        assert!(is_known(&world));
    }
    // Nothing was aggregated yet, and the task is known: the request says so.
    let world = unknown_task();
    let request = world.share_request_of(world.interval(0, 1), 2, Checksum::default());
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
    for answer in ask_all(server().client(), &world.task_id, None, Some(&world.token)) {
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
            for answer in ask_all(server().client(), &world.task_id, Some(&bad), Some(&world.token))
            {
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
        for answer in
            ask_all(server().client(), &world.task_id, Some(&header(&other)), Some(&world.token))
        {
            answer.refused("unrecognizedTask", &world.task_id);
        }
    }
    assert!(is_known(&known) && !is_known(&unknown) && !is_known(&other));
    // Also for a task that an operator created.
    let created = World::new(server(), TimeInterval, |_| {});
    for answer in
        ask_all(server().client(), &created.task_id, Some(&header(&other)), Some(&created.token))
    {
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

#[test]
fn a_task_that_is_over_or_not_supported_is_opted_out_of() {
    let peer = peer();
    let good = peer.config();
    peer.opts_out(
        server(),
        &TaskConfig { task_expiration: Time::from_seconds(now() - 10), ..good },
    );
    peer.opts_out(server(), &TaskConfig { task_expiration: Time::from_seconds(0), ..good });
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
        peer.opts_out(server(), &TaskConfig { vdaf_config, ..good });
    }
    for mechanism in [0, 5, 255] {
        let dp_mechanism = DpMechanism::Unknown { mechanism, rest: &[1] };
        let vdaf_config = TaskVdafConfig { dp_mechanism, ..good.vdaf_config };
        peer.opts_out(server(), &TaskConfig { vdaf_config, ..good });
    }
    for query in [
        TaskQuery::Unknown { query_type: 0, rest: &[] },
        TaskQuery::Unknown { query_type: 3, rest: &[1, 2] },
        TaskQuery::FixedSize { max_batch_size: 9 },
    ] {
        let query_config = QueryConfig { query, ..good.query_config };
        peer.opts_out(server(), &TaskConfig { query_config, ..good });
    }
    for query_config in [
        QueryConfig { time_precision: Duration::from_seconds(0), ..good.query_config },
        QueryConfig { time_precision: Duration::from_seconds(u64::MAX), ..good.query_config },
        QueryConfig { max_batch_query_count: 0, ..good.query_config },
        QueryConfig { min_batch_size: 0, ..good.query_config },
        QueryConfig { min_batch_size: 1, ..good.query_config },
    ] {
        peer.opts_out(server(), &TaskConfig { query_config, ..good });
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
            peer.opts_out(server(), &peer.config());
        }
    }
}

#[test]
fn a_leader_that_is_no_peer_is_opted_out_of() {
    let stranger = Peer::stranger(PeerPolicy::default());
    stranger.opts_out(server(), &stranger.config());
    // Byte for byte: neither a missing slash nor another case is the same leader.
    let mut peer = peer();
    let endpoint = peer.spec.endpoint.clone();
    for other in [endpoint.trim_end_matches('/').to_owned(), endpoint.replace("https", "HTTPS")] {
        peer.spec.endpoint = other;
        peer.opts_out(server(), &peer.config());
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
    peer.opts_out(server(), &peer.config());
    std::thread::sleep(std::time::Duration::from_secs(end + 2 - now()));
    let bound = |draft: &mut Draft| draft.extensions = BOUND.to_vec();
    let in_time = [1, 2].map(|n| forge(&world, n, world.time(0), bound));
    let late = forge(&world, 3, Time::from_seconds(end + 1), bound);
    let ids = in_time.each_ref().map(|r| r.id);
    let late_id = late.id;
    let [first, last] = in_time;
    let body = job_body(&world, TIMED, &[first, late, last]);
    let answer = world.put_body(&AggregationJobId::new(random()), &body);
    let found = world.verdicts(world.job_resp(&answer));
    let expected = [
        (ReportId::new(ids[0]), None),
        (ReportId::new(late_id), Some(ReportError::TaskExpired)),
        (ReportId::new(ids[1]), None),
    ];
    assert_eq!(found, expected);
    assert_counts(&world, &ids);
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
    let body = job_body(world, TIMED, &[first, bad, last]);
    let answer = world.put_body(&AggregationJobId::new(random()), &body);
    let bytes = world.job_resp(&answer);
    let found: Vec<_> = world.verdicts(bytes).into_iter().map(|(_, error)| error).collect();
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
