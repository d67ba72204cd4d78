//! The operator's API of peers that bring tasks along, and `dapctl` with such a task.

use std::sync::OnceLock;

use dapctl::{
    drive::{self, Options},
    output::Progress,
    peer_file::PeerFile,
    reports::{self, Generator, Measurements},
};
use daphne_core::{
    b64,
    batch::BatchMode::TimeInterval,
    seal::TokenHash,
    taskprov::{PeerChange, PeerPolicy, PeerSpec},
    time::{Duration, Interval},
    version::DapVersion,
};
use e2e::{
    Answer, Peer, Server,
    server::{random, random_token},
    world::keypair,
};
use serde_json::{Value, json};

const PATH: &str = "/admin/taskprov_peers";

fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(Server::start)
}

/// The JSON of a peer that can be added, with an endpoint of its own.
fn spec() -> Value {
    json!({
        "endpoint": format!("https://{}.example/", random_token()),
        "collector_hpke_config": keypair(3).config(),
        "verify_key_init": b64::encode(&random::<32>()),
        "leader_tokens": [random_token()],
    })
}

fn ask(method: &str, body: &Value) -> Answer {
    server().admin_ask(method, PATH, Some(&body.to_string()))
}

fn shown(spec: &Value) -> Option<Value> {
    let all = server().admin_ask("GET", PATH, None).json();
    let mut peers = all["peers"].as_array().unwrap().iter();
    peers.find(|peer| peer["endpoint"] == spec["endpoint"]).cloned()
}

#[test]
fn only_the_operators_token_opens() {
    let peer = Peer::new(server(), PeerPolicy::default());
    let world = peer.task(server(), TimeInterval, |_| {});
    let body = spec();
    let bearers = [None, Some(peer.token()), Some(world.token.as_str()), Some("wrong")];
    for bearer in bearers.map(|token| token.map(|token| format!("Bearer {token}"))) {
        for method in ["GET", "POST", "PATCH", "DELETE"] {
            let mut headers = vec![("content-type", "application/json")];
            headers.extend(bearer.as_deref().map(|b| ("authorization", b)));
            let body = (method != "GET").then(|| body.to_string());
            let body = body.as_deref().map(str::as_bytes);
            server().client().ask(method, PATH, &headers, body).refused_without_type(403);
        }
    }
    assert_eq!(shown(&body), None);
    let answer = server().admin_ask("PUT", PATH, Some("{}"));
    answer.refused_without_type(405);
    assert_eq!(answer.header("allow"), "GET, HEAD, POST, PATCH, DELETE");
}

#[test]
fn a_peer_is_added_once_and_shown_without_secrets() {
    let spec = spec();
    let added = ask("POST", &spec);
    assert_eq!(added.status, 201, "{}", added.text());
    let again = ask("POST", &spec);
    assert_eq!((again.status, again.json()), (200, added.json()));
    let shown = shown(&spec).unwrap();
    assert_eq!(shown, added.json());
    assert_eq!(
        shown["policy"],
        json!({ "report_expiry_age": 14 * 86_400, "tolerable_clock_skew": 300, "shards": 1 })
    );
    let token = spec["leader_tokens"][0].as_str().unwrap();
    let hash = serde_json::to_string(&TokenHash::of(token)).unwrap();
    let secrets = [spec["verify_key_init"].as_str().unwrap(), token, hash.trim_matches('"')];
    let changed = ask("PATCH", &json!({ "endpoint": spec["endpoint"] }));
    for answer in [added, again, changed, server().admin_ask("GET", PATH, None)] {
        assert!(answer.status == 200 || answer.status == 201);
        assert!(secrets.iter().all(|s| !answer.text().contains(s)), "{}", answer.text());
        assert!(!answer.text().contains("sealed"));
    }
    assert!(secrets.iter().all(|s| !server().log().contains(s)), "in the log");
}

#[test]
fn another_peer_with_that_endpoint_is_a_conflict() {
    let good = spec();
    assert_eq!(ask("POST", &good).status, 201);
    for (name, value) in [
        ("verify_key_init", json!(b64::encode(&random::<32>()))),
        ("leader_tokens", json!([random_token()])),
        ("collector_hpke_config", json!(keypair(4).config())),
        ("policy", json!({ "shards": 2 })),
    ] {
        let mut changed = good.clone();
        changed[name] = value;
        ask("POST", &changed).refused_without_type(409);
    }
    assert_eq!(ask("POST", &good).status, 200);
}

#[test]
fn a_peer_that_is_not_understood_is_not_stored() {
    let good = spec();
    let with = |name: &str, value: Value| {
        let mut changed = good.clone();
        changed[name] = value;
        changed.to_string()
    };
    let without = |name: &str| {
        let mut changed = good.clone();
        changed.as_object_mut().unwrap().remove(name);
        changed.to_string()
    };
    let mut wrong = vec![
        String::new(),
        "{".to_owned(),
        "[]".to_owned(),
        with("unknown_field", json!(1)),
        with("endpoint", json!("leader.example")),
        with("endpoint", json!("https://two words/")),
        with("verify_key_init", json!(b64::encode(&[1; 31]))),
        with("verify_key_init", json!(7)),
        with("leader_tokens", json!([])),
        with("leader_tokens", json!(["short"])),
        with("leader_tokens", json!(["a-token-that-is-long-enough", 3])),
        with("leader_token_hashes", json!(["AAAA"])),
        with("collector_hpke_config", json!({})),
        with("policy", json!({ "shards": 65 })),
        with("policy", json!({ "unknown": 1 })),
        with("policy", json!({ "report_expiry_age": 0 })),
        with("policy", json!({ "helper_url": "helper" })),
    ];
    wrong.extend(
        ["endpoint", "verify_key_init", "leader_tokens", "collector_hpke_config"].map(without),
    );
    for body in wrong {
        let answer = server().admin_ask("POST", PATH, Some(&body));
        answer.refused_without_type(400);
        let secret = good["verify_key_init"].as_str().unwrap();
        assert!(!answer.text().contains(secret) && !answer.text().contains("long-enough"));
    }
    assert_eq!(shown(&good), None);
    assert_eq!(ask("POST", &good).status, 201);
}

#[test]
fn a_peer_is_changed_and_removed() {
    let spec = spec();
    let endpoint = &spec["endpoint"];
    let change = |value: Value| {
        let mut value = value;
        value["endpoint"] = endpoint.clone();
        ask("PATCH", &value)
    };
    change(json!({ "policy": { "shards": 2 } })).refused_without_type(404);
    assert_eq!(ask("POST", &spec).status, 201);
    let changed = change(json!({ "policy": { "shards": 2, "min_batch_size_min": 50 } }));
    assert_eq!(changed.status, 200);
    assert_eq!(changed.json()["policy"]["min_batch_size_min"], 50);
    let token = random_token();
    let added = change(json!({ "add_leader_token": token })).json();
    assert_eq!(added["leader_tokens"].as_array().unwrap().len(), 2);
    assert_eq!(added["policy"]["shards"], 2, "what is not named stays");
    let name = &added["leader_tokens"][0]["name"];
    assert_eq!(change(json!({ "remove_leader_token": name })).status, 200);
    for (wrong, status) in [
        (json!({ "remove_leader_token": name }), 400),
        (json!({ "remove_leader_token": added["leader_tokens"][1]["name"] }), 400),
        (json!({ "add_leader_token": "short" }), 400),
        (json!({ "add_leader_token": token, "add_leader_token_hash": b64::encode(&[1; 32]) }), 400),
        (json!({ "policy": { "shards": 0 } }), 400),
        (json!({ "unknown": 1 }), 400),
    ] {
        change(wrong).refused_without_type(status);
    }
    ask("PATCH", &json!({ "policy": {} })).refused_without_type(400);
    assert_eq!(shown(&spec).unwrap()["leader_tokens"].as_array().unwrap().len(), 1);

    for wrong in ["", "?endpoint", "?url=x", "?endpoint=a&endpoint=b", "?endpoint=a&force=1"] {
        let answer = server().admin_ask("DELETE", &format!("{PATH}{wrong}"), None);
        let status = if wrong == "?endpoint" { 404 } else { 400 };
        answer.refused_without_type(status);
    }
    let endpoint = endpoint.as_str().unwrap();
    assert!(server().admin().remove_peer(endpoint).unwrap());
    assert!(!server().admin().remove_peer(endpoint).unwrap());
    assert_eq!(shown(&spec), None);
}

/// Changes of one peer at the same time are all made.
#[test]
fn changes_at_once_do_not_undo_each_other() {
    let peer = Peer::new(server(), PeerPolicy::default());
    let endpoint = peer.spec.endpoint.clone();
    let tokens: Vec<String> = (0..3).map(|_| random_token()).collect();
    std::thread::scope(|s| {
        for token in &tokens {
            let change = PeerChange {
                endpoint: endpoint.clone(),
                add_leader_token: Some(token.clone()),
                ..PeerChange::default()
            };
            s.spawn(move || {
                while server().admin().change_peer(&change).is_err() {
                    std::thread::sleep(std::time::Duration::from_millis(50));
                }
            });
        }
    });
    let mut world = peer.task(server(), TimeInterval, |_| {});
    for token in tokens {
        world.token = token;
        let job = world.timed_job(&world.sums(&[1], world.time(0)));
        assert_eq!(world.put(&job).status, 200);
    }
}

/// As the operator's tool does it: a peer file, a task file made of it, and a drive that the helper meets unprepared.
#[test]
fn dapctl_drives_a_task_that_nobody_created() {
    let collector_keys = keypair(9);
    let peer = PeerSpec {
        collector_hpke_config: collector_keys.config().clone(),
        ..Peer::stranger(PeerPolicy::default()).spec
    };
    server().admin().add_peer(&peer).unwrap();
    let file = PeerFile {
        peer,
        helper_url: format!("{}/v09/", server().client().base()),
        collector_hpke_keypair: Some(collector_keys),
    };
    for version in DapVersion::ALL {
        drive_what_nobody_created(&file, version);
    }
}

fn drive_what_nobody_created(file: &PeerFile, version: DapVersion) {
    let day = Duration::from_seconds(86_400);
    let mut fields = json!({
        "version": version, "role": "helper", "batch_mode": "time-interval",
        "vdaf": { "Prio3Histogram": { "length": 5, "chunk_length": 2 } },
        "min_batch_size": 10, "time_precision": 3600,
    });
    // When it ends stands where its version says so.
    let mut interval = None;
    if version.has_configuration() {
        let start = reports::now().round_down(Duration::from_seconds(3_600));
        interval = Interval::new(start, day);
    } else {
        fields["task_expiration"] = json!(reports::now().saturating_add(day));
    }
    let task = file.task(fields.as_object().unwrap().clone(), b"driven", interval).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("task.json");
    let _ = task.save(&path, false).unwrap();
    let task = dapctl::task_file::TaskFile::read(&path).unwrap();

    let helper = drive::helper_client(&task, Default::default(), Default::default()).unwrap();
    let configs = helper.hpke_configs().unwrap();
    let measurements = Measurements::Random { seed: 1 };
    let generator = Generator::new(&task, &configs, measurements, reports::now(), 0).unwrap();
    let options = Options { job_size: 20, replay: true, ..Options::default() };
    let progress = Progress::new("", None);
    let summary = drive::run(&task, generator.reports(50), &options, &progress).unwrap();
    summary.verdict().unwrap();
    let known = server().admin().task(&task.task_id().unwrap()).unwrap().unwrap();
    assert_eq!(known.taskprov.unwrap().task_info, b"driven");
}
