//! Pairing with Divvi Up's control plane, and tasks that it provisions: its requests as it sends them, and what it checks.

use std::sync::OnceLock;

use clap::Parser as _;
use dapctl::{cli::Cli, commands};
use daphne_core::{
    batch::BatchMode::TimeInterval,
    error::ReportError,
    ids::BatchId,
    message::{BatchSelector, PartialBatchSelector},
    vdaf::{Measurement, VdafConfig},
};
use e2e::{
    Books, Server, World,
    control_plane::{self, API_TOKENS, ControlPlane, FormError, Told, Wanted},
    server::random_token,
    world::now,
};
use serde_json::{Value, json};

fn server() -> &'static (Server, String) {
    static SERVER: OnceLock<(Server, String)> = OnceLock::new();
    SERVER.get_or_init(control_plane::start)
}

fn plane() -> ControlPlane {
    ControlPlane::new(&server().0, &server().1)
}

fn no_dp() -> Value {
    json!({ "dp_strategy": "NoDifferentialPrivacy" })
}

fn fixed_size() -> Value {
    json!({ "FixedSize": { "max_batch_size": 200 } })
}

fn token(told: &Told) -> String {
    told.aggregator_auth_token.clone().expect("a token").token
}

/// Has the leader of a provisioned task aggregate a hundred reports with the token that it was given, and collect them.
#[track_caller]
fn run(world: &World, measurement: impl Fn(u64) -> Measurement) {
    let mut books = Books::default();
    let reports: Vec<_> =
        (0..100).map(|n| world.report(measurement(n), world.time(n % 2))).collect();
    let (batch, selector) = if world.spec.batch_mode == TimeInterval {
        (PartialBatchSelector::TimeInterval, world.interval(0, 2))
    } else {
        let id = BatchId::new([3; 32]);
        (PartialBatchSelector::LeaderSelected(id), BatchSelector::LeaderSelected(id))
    };
    world.aggregate(batch, &reports, &mut books);
    world.collect(selector, &books);
}

#[test]
fn an_aggregator_is_paired_under_its_url_with_and_without_a_slash() {
    let (server, _) = server();
    for slash in ["", "/"] {
        let paired = plane().pair(slash).expect("it can be paired");
        assert_eq!(paired.dap_url, format!("{}/v09/", server.client().base()));
        assert_eq!(paired.role, "Helper");
        assert_eq!(paired.query_types, ["TimeInterval", "FixedSize"]);
        for vdaf in ["Prio3Count", "Prio3Sum", "Prio3Histogram", "Prio3SumVec"] {
            assert!(paired.vdafs.iter().any(|v| v == vdaf), "{vdaf}");
        }
        // Nothing is claimed that a task would not get.
        assert_eq!(
            paired.features,
            ["TokenHash", "TimeBucketedFixedSize", "UploadMetrics", "AggregationJobMetrics"]
        );
        // Clients fetch keys there.
        let path = paired.dap_url.strip_prefix(server.client().base()).unwrap();
        assert_eq!(server.client().get(&format!("{path}hpke_config")).status, 200);
        let stranger = ControlPlane::new(server, &random_token());
        assert_eq!(stranger.pair(slash).unwrap_err(), FormError::TokenNotRecognized);
    }
}

#[test]
fn the_dap_url_may_be_another_one_and_tokens_are_replaced_one_by_one() {
    let (mut server, old) = control_plane::start();
    let new = random_token();
    server.set_secret(API_TOKENS, &format!("{old}, {new}"));
    for token in [&old, &new] {
        ControlPlane::new(&server, token).pair("").expect("both work");
    }
    server.set_secret("PUBLIC_DAP_URL", "https://helper.example/v09");
    server.set_secret(API_TOKENS, &new);
    let paired = ControlPlane::new(&server, &new).pair("").expect("the new one works");
    assert_eq!(paired.dap_url, "https://helper.example/v09/");
    let refused = ControlPlane::new(&server, &old).pair("").unwrap_err();
    assert_eq!(refused, FormError::TokenNotRecognized);
}

#[test]
fn dapctl_pairs_with_nothing_but_the_url_and_the_file_of_secrets() {
    let (server, token) = server();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secrets.json");
    let pair = |token: &str| {
        let secrets = json!({
            "ROOT_KEYS": server.secret("ROOT_KEYS"), "ADMIN_TOKENS": server.admin_token(),
            "AGGREGATOR_API_TOKENS": token,
        });
        std::fs::write(&file, secrets.to_string()).unwrap();
        let (url, file) = (server.client().base(), file.to_str().unwrap());
        let args = ["dapctl", "--url", url, "--secrets-file", file, "pair"];
        commands::run(&Cli::try_parse_from(args).unwrap())
    };
    pair(token).expect("it is a deployment that can be paired");
    let failure = pair(&random_token()).unwrap_err();
    assert!(failure.exit_code() == 1 && failure.to_string().contains("AGGREGATOR_API_TOKENS"));
}

/// What the n-th client measures.
type Measure = Box<dyn Fn(u64) -> Measurement>;

#[test]
fn a_provisioned_task_of_each_kind_is_echoed_and_runs() {
    let bits = |n: u64, length: u64| -> Vec<u64> { (0..length).map(|i| (n + i) % 2).collect() };
    let count = |n| Measurement::Count(n % 3 == 0);
    let cases: [(Value, Value, VdafConfig, Measure); 7] = [
        (json!("Prio3Count"), json!("TimeInterval"), VdafConfig::Prio3Count, Box::new(count)),
        (
            json!({ "Prio3Sum": { "bits": 8 } }),
            fixed_size(),
            VdafConfig::Prio3Sum { max_measurement: 255 },
            Box::new(Measurement::Sum),
        ),
        (
            json!({ "Prio3Histogram": { "length": 16, "chunk_length": 4, "dp_strategy": no_dp() } }),
            fixed_size(),
            VdafConfig::Prio3Histogram { length: 16, chunk_length: 4 },
            Box::new(|n| Measurement::Histogram(n as usize % 16)),
        ),
        (
            json!({ "Prio3SumVec": { "bits": 8, "length": 20, "chunk_length": 12, "dp_strategy": no_dp() } }),
            json!("TimeInterval"),
            VdafConfig::Prio3SumVec { length: 20, max_measurement: 255, chunk_length: 12 },
            Box::new(|n| Measurement::SumVec(vec![n; 20])),
        ),
        // As it asks for a count-vec, which others refuse.
        (
            json!({ "Prio3CountVec": { "length": 20, "chunk_length": 4 } }),
            json!("TimeInterval"),
            VdafConfig::Prio3SumVec { length: 20, max_measurement: 1, chunk_length: 4 },
            Box::new(move |n| Measurement::SumVec(bits(n, 20))),
        ),
        (
            json!("Prio3Count"),
            json!({ "FixedSize": { "max_batch_size": 200, "batch_time_window_size": 7200 } }),
            VdafConfig::Prio3Count,
            Box::new(count),
        ),
        (
            json!("Prio3Count"),
            json!({ "FixedSize": { "max_batch_size": null } }),
            VdafConfig::Prio3Count,
            Box::new(count),
        ),
    ];
    for (vdaf, query_type, config, measurement) in cases {
        println!("{vdaf} {query_type}");
        let wanted = Wanted::new(vdaf, query_type);
        let told = plane().provision(&wanted);
        assert_eq!(told.role, "Helper");
        assert_eq!(told.peer_aggregator_endpoint, "https://leader.example/");
        assert_eq!(told.vdaf_verify_key, daphne_core::b64::encode(&wanted.verify_key));
        assert_eq!(told.max_batch_query_count, 1);
        assert_eq!((told.report_expiry_age, told.tolerable_clock_skew), (Some(1_209_600), 300));
        assert_eq!(&told.collector_hpke_config, wanted.collector_keys.config());
        assert_eq!(told.aggregator_hpke_configs, [server().0.hpke_config().clone()]);
        run(&wanted.world(&server().0, config, &told), measurement);
    }
}

#[test]
fn after_a_lost_answer_the_same_request_gets_the_token_that_works() {
    let wanted = Wanted::new(json!("Prio3Count"), json!("TimeInterval"));
    plane().ask_and_hang_up("POST", "/tasks", &wanted.to_helper());
    let told = plane().provision(&wanted);
    // Also at once, and from several sides.
    let again: Vec<String> = std::thread::scope(|scope| {
        let requests: Vec<_> =
            (0..4).map(|_| scope.spawn(|| token(&plane().provision(&wanted)))).collect();
        requests.into_iter().map(|request| request.join().unwrap()).collect()
    });
    assert!(again.iter().all(|other| *other == token(&told)));
    let names = server().0.admin().leader_tokens(&told.task_id).unwrap().unwrap();
    assert_eq!(names.len(), 1, "no token was left behind");
    let world = wanted.world(&server().0, VdafConfig::Prio3Count, &told);
    run(&world, |n| Measurement::Count(n % 2 == 0));
}

#[test]
fn of_several_that_create_a_task_at_once_all_are_given_the_same_token() {
    let wanted = Wanted::new(json!("Prio3Count"), json!("TimeInterval"));
    let tokens: Vec<String> = std::thread::scope(|scope| {
        let requests: Vec<_> =
            (0..6).map(|_| scope.spawn(|| token(&plane().provision(&wanted)))).collect();
        requests.into_iter().map(|request| request.join().unwrap()).collect()
    });
    assert!(tokens.iter().all(|other| *other == tokens[0]));
}

#[test]
fn a_token_that_was_taken_away_does_not_come_back_and_a_repeat_is_given_another() {
    let (server, _) = server();
    let wanted = Wanted::new(json!("Prio3Count"), json!("TimeInterval"));
    let first = plane().provision(&wanted);
    let admin = server.admin();
    let [old] = &admin.leader_tokens(&first.task_id).unwrap().unwrap()[..] else {
        panic!("one token")
    };
    let operators = random_token();
    admin.add_leader_token(&first.task_id, Some(&operators), None).unwrap();
    admin.remove_leader_token(&first.task_id, old).unwrap();
    let second = plane().provision(&wanted);
    assert_ne!(token(&first), token(&second));
    assert_eq!(token(&second), token(&plane().provision(&wanted)), "from then on the same");
    let names = admin.leader_tokens(&first.task_id).unwrap().unwrap();
    assert!(names.len() == 2 && !names.contains(old));
    let mut world = wanted.world(server, VdafConfig::Prio3Count, &second);
    run(&world, |n| Measurement::Count(n % 2 == 0));
    world.token = token(&first);
    let job = world.timed_job(&[world.report(Measurement::Count(true), world.time(4))]);
    assert_eq!(world.put(&job).problem_token(), "unauthorizedRequest");
}

#[test]
fn the_token_survives_a_change_of_root_keys() {
    let (mut server, api_token) = control_plane::start();
    let plane = ControlPlane::new(&server, &api_token);
    let wanted = Wanted::new(json!("Prio3Count"), json!("TimeInterval"));
    let told = plane.provision(&wanted);
    let one = server.secret("ROOT_KEYS").to_owned();
    let two = format!("2={}", daphne_core::b64::encode(&e2e::server::random::<32>()));
    server.set_secret("ROOT_KEYS", &format!("{one},{two}"));
    assert_eq!(token(&plane.provision(&wanted)), token(&told), "before all is sealed anew");
    let status = server.admin().reseal_secrets().unwrap();
    assert!(status.resealed >= 3, "an HPKE key, a verify key and a token: {}", status.resealed);
    server.set_secret("ROOT_KEYS", &two);
    assert_eq!(token(&plane.provision(&wanted)), token(&told), "without the old one");
}

/// A root key was added and taken away again, and a token was issued in between.
#[test]
fn another_token_is_issued_for_one_that_does_not_open_any_more() {
    let (mut server, api_token) = control_plane::start();
    let plane = ControlPlane::new(&server, &api_token);
    let wanted = Wanted::new(json!("Prio3Count"), json!("TimeInterval"));
    let first = plane.provision(&wanted);
    let one = server.secret("ROOT_KEYS").to_owned();
    let two = format!("2={}", daphne_core::b64::encode(&e2e::server::random::<32>()));
    server.set_secret("ROOT_KEYS", &format!("{one},{two}"));
    let admin = server.admin();
    let names = admin.leader_tokens(&first.task_id).unwrap().unwrap();
    admin.add_leader_token(&first.task_id, Some(&random_token()), None).unwrap();
    admin.remove_leader_token(&first.task_id, &names[0]).unwrap();
    let second = token(&plane.provision(&wanted));
    server.set_secret("ROOT_KEYS", &one);
    let told = plane.provision(&wanted);
    assert_ne!(token(&told), second);
    assert_eq!(token(&told), token(&plane.provision(&wanted)), "from then on the same");
    let mut world = wanted.world(&server, VdafConfig::Prio3Count, &told);
    run(&world, |n| Measurement::Count(n % 2 == 0));
    // Whoever has the one before goes on with it.
    world.token = second;
    let job = world.timed_job(&[world.report(Measurement::Count(true), world.time(4))]);
    assert_eq!(world.put(&job).status, 200);
}

#[test]
fn a_task_is_stopped_and_prolonged_and_stopped_for_good() {
    let (server, _) = server();
    let wanted = Wanted::new(json!({ "Prio3Sum": { "bits": 8 } }), json!("TimeInterval"));
    let told = plane().provision(&wanted);
    let sum = VdafConfig::Prio3Sum { max_measurement: 255 };
    let mut world = wanted.world(server, sum, &told);
    world.epoch = now() / 3_600 * 3_600 - 7_200;
    let mut books = Books::default();
    let early: Vec<_> = (0..60).map(|n| world.report(Measurement::Sum(n), world.time(0))).collect();
    world.aggregate(PartialBatchSelector::TimeInterval, &early, &mut books);
    // "Disable" in the console: the end is now, or here an hour ago, so that there are reports made later.
    let ended = world.time(1).as_seconds() - 1;
    plane().set_expiration(&told.task_id, Some(ended));
    let late: Vec<_> = (0..40).map(|n| world.report(Measurement::Sum(n), world.time(1))).collect();
    let stopped = world.timed_job(&late);
    let answer = world.put(&stopped);
    let repeat = answer.body.clone();
    let (job_id, job_body) = (stopped.id, stopped.body.clone());
    let refused = world.finish(stopped, &answer, &mut books);
    assert!(refused.len() == 40 && refused.iter().all(|(_, e)| *e == ReportError::TaskExpired));
    // Whoever changes their mind has it run again; what was answered stays as it was.
    plane().set_expiration(&told.task_id, None);
    assert_eq!(world.put_body(&job_id, &job_body).body, repeat);
    world.aggregate(PartialBatchSelector::TimeInterval, &late, &mut books);
    // A patch that says nothing changes nothing.
    let path = format!("/tasks/{}", told.task_id);
    let same = plane().told(&plane().ask("PATCH", &path, Some("{}")));
    assert_eq!(same.task_expiration, None);
    let end = now();
    plane().set_expiration(&told.task_id, Some(end));
    // What was aggregated is collected nevertheless.
    world.collect(world.interval(0, 2), &books);
    let shown = plane().told(&plane().ask("GET", &path, None));
    assert_eq!((shown.task_expiration, shown.aggregator_auth_token), (Some(end), None));
}
