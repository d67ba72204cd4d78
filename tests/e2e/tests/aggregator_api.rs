//! The aggregator API: who may ask, in which words, and what is answered to what.

use std::{collections::BTreeSet, sync::OnceLock};

use daphne_core::{
    b64, batch::BatchMode::TimeInterval, ids::TaskId, task::TaskSpec, taskprov::PeerPolicy,
};
use e2e::{
    Answer, Peer, Server, World,
    control_plane::{self, API_PATH, API_TOKENS, ControlPlane, MEDIA_TYPE, Wanted},
    server::{HPKE_KEY_ID, random, random_token},
    world::{keypair, now},
};
use serde_json::{Value, json};

fn server() -> &'static (Server, String) {
    static SERVER: OnceLock<(Server, String)> = OnceLock::new();
    SERVER.get_or_init(control_plane::start)
}

fn plane() -> ControlPlane {
    ControlPlane::new(&server().0, &server().1)
}

fn count() -> Wanted {
    Wanted::new(json!("Prio3Count"), json!("TimeInterval"))
}

/// Asks with these headers and the token.
fn ask_with(method: &str, path: &str, headers: &[(&str, &str)], body: Option<&[u8]>) -> Answer {
    let bearer = format!("Bearer {}", server().1);
    let mut all = vec![("authorization", bearer.as_str())];
    all.extend(headers);
    server().0.client().ask(method, &format!("{API_PATH}{path}"), &all, body)
}

#[track_caller]
fn is_empty(answer: &Answer, status: u16) {
    assert_eq!((answer.status, answer.text().as_str()), (status, ""));
    assert_eq!(answer.header("content-type"), MEDIA_TYPE);
}

/// The sentence of a refusal.
#[track_caller]
fn says(answer: &Answer, status: u16, text: &str) {
    assert_eq!(answer.status, status, "{}", answer.text());
    assert!(answer.text().contains(text), "{}", answer.text());
    assert!(!answer.text().starts_with('{'), "no problem document");
}

#[test]
fn strangers_are_told_nothing_whatever_they_ask() {
    let (server, token) = server();
    let world = World::new(server, TimeInterval, |_| {});
    let basic = format!("Basic {token}");
    let tokens = [
        None,
        Some("Bearer ".to_owned()),
        Some(format!("Bearer {}", random_token())),
        Some(format!("Bearer {}", &token[..token.len() - 1])),
        Some(format!("Bearer {token}x")),
        Some(format!("Bearer {}", server.admin_token())),
        Some(format!("Bearer {}", world.token)),
        Some(basic),
        Some(token.clone()),
    ];
    let task = format!("/tasks/{}", world.task_id);
    for credentials in tokens {
        for (method, path) in [
            ("GET", ""),
            ("GET", "/"),
            ("GET", "/task_ids"),
            ("POST", "/tasks"),
            ("GET", task.as_str()),
            ("PATCH", task.as_str()),
            ("DELETE", task.as_str()),
            ("GET", "/hpke_configs"),
            ("PUT", "/hpke_configs"),
            ("DELETE", "/hpke_configs/7"),
            ("GET", "/taskprov/peer_aggregators"),
            ("POST", "/taskprov/peer_aggregators"),
            // Neither what is missing, nor which methods there are, nor what else is wrong.
            ("GET", "/nothing/here"),
            ("GET", "/tasks/malformed"),
            ("PUT", "/tasks"),
        ] {
            let mut headers = vec![("content-type", "text/plain")];
            headers.extend(credentials.as_deref().map(|c| ("authorization", c)));
            let body = (method != "GET").then_some(&b"{"[..]);
            let answer = server.client().ask(method, &format!("{API_PATH}{path}"), &headers, body);
            is_empty(&answer, 401);
        }
    }
    assert!(server.admin().task(&world.task_id).unwrap().is_some());
    // Nor does the API's token open anything else.
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str())];
    server.client().ask("GET", "/admin/tasks", &headers, None).refused_without_type(403);
}

#[test]
fn without_its_secret_there_is_no_api_and_a_bad_secret_is_told() {
    let mut server = Server::start();
    let bearer = format!("Bearer {}", server.admin_token());
    let headers = [("authorization", bearer.as_str()), ("accept", MEDIA_TYPE)];
    for path in ["", "/", "/task_ids", "/nothing"] {
        let answer = server.client().ask("GET", &format!("{API_PATH}{path}"), &headers, None);
        is_empty(&answer, 404);
    }
    let token = random_token();
    server.set_secret(API_TOKENS, &token);
    assert!(ControlPlane::new(&server, &token).pair("").is_ok());
    let said = server.refuses_secret(API_TOKENS, &format!("{token},short"));
    assert!(
        said.contains("AGGREGATOR_API_TOKENS must be tokens of at least 16 characters"),
        "{said}"
    );
    assert!(!said.contains(&token));
}

/// A control plane's token is kept where more people and programs read it.
#[test]
fn a_token_of_an_operator_opens_nothing_lesser_and_that_it_should_is_told() {
    for (name, rest) in [
        (API_TOKENS, "there is no aggregator API"),
        ("METRICS_TOKENS", "only operators read metrics"),
    ] {
        let server = Server::start();
        let admin = server.admin_token().to_owned();
        let said = server.refuses_secret(name, &format!("{}, {admin}", random_token()));
        let expected = format!("{name} has a token that is in ADMIN_TOKENS too; {rest}");
        assert!(said.contains(&expected), "{said}");
        assert!(!said.contains(&admin));
    }
}

#[test]
fn media_types_are_compared_to_the_letter() {
    let accept = ("accept", MEDIA_TYPE);
    for kind in [
        "application/json",
        "application/vnd.janus.aggregator+json",
        "application/vnd.janus.aggregator+json; version=0.1",
        "application/vnd.janus.aggregator+json;version=0.2",
        "Application/vnd.janus.aggregator+json;version=0.1",
    ] {
        is_empty(&ask_with("GET", "", &[accept, ("content-type", kind)], None), 415);
        is_empty(&ask_with("GET", "", &[("accept", kind)], None), 406);
        let body = count().to_helper();
        let headers = [accept, ("content-type", kind)];
        is_empty(&ask_with("POST", "/tasks", &headers, Some(body.as_bytes())), 415);
    }
    is_empty(&ask_with("GET", "", &[("accept", "*/*")], None), 406);
    let coded = [accept, ("content-encoding", "gzip")];
    is_empty(&ask_with("POST", "/tasks", &coded, Some(b"{}")), 415);
    // A body may come without a type, a request without a body may have one.
    let wanted = count();
    let answer = ask_with("POST", "/tasks", &[accept], Some(wanted.to_helper().as_bytes()));
    assert_eq!(plane().told(&answer).task_id, plane().provision(&wanted).task_id);
    let answer = ask_with("GET", "", &[accept, ("content-type", MEDIA_TYPE)], None);
    assert_eq!(answer.status, 200);
    // What is absent, and what is not supported.
    is_empty(&ask_with("GET", "/nothing", &[accept], None), 404);
    let answer = ask_with("DELETE", "/tasks", &[accept], None);
    is_empty(&answer, 405);
    assert_eq!(answer.header("allow"), "POST");
}

#[test]
fn a_body_is_read_up_to_its_cap() {
    let wanted = count();
    let body = wanted.to_helper();
    let padded = |n: usize| format!("{body}{}", " ".repeat(n - body.len()));
    let headers = [("accept", MEDIA_TYPE), ("content-type", MEDIA_TYPE)];
    let answer = ask_with("POST", "/tasks", &headers, Some(padded((64 << 10) + 1).as_bytes()));
    is_empty(&answer, 413);
    let answer = ask_with("POST", "/tasks", &headers, Some(padded(64 << 10).as_bytes()));
    assert_eq!(answer.status, 200);
}

#[test]
fn a_task_that_cannot_be_is_refused_with_a_reason_and_not_stored() {
    let wanted = count();
    let good: Value = serde_json::from_str(&wanted.to_helper()).unwrap();
    let with = |name: &str, value: Value| {
        let mut body = good.clone();
        body[name] = value;
        body.to_string()
    };
    let bearer = json!({ "type": "Bearer", "token": random_token() });
    let laplace = json!({ "Prio3Histogram": {
        "length": 16, "chunk_length": 4,
        "dp_strategy": { "dp_strategy": "PureDpDiscreteLaplace", "budget": { "epsilon": [[1], [1]] } },
    } });
    for (body, reason) in [
        (with("role", json!("Leader")), "does not lead tasks"),
        (with("role", json!("Collector")), "role must be Helper"),
        (with("aggregator_auth_token", bearer), "aggregator_auth_token must not be given"),
        (with("vdaf_verify_key", json!(b64::encode(&[1; 17]))), "16 bytes"),
        (with("vdaf", laplace), "adds no noise"),
        (with("vdaf", json!({ "Prio3Histogram": { "length": 4 } })), "chunk_length is needed"),
        (with("vdaf", json!("Prio4")), "none of the choices"),
        (with("query_type", json!({ "FixedSize": { "max_batch_size": 99 } })), "max_batch_size"),
        (with("peer_aggregator_endpoint", json!("nowhere")), "peer_aggregator_endpoint"),
        (with("time_precision", json!("3600")), "wrong type"),
        ("[]".to_owned(), "JSON object"),
        (String::new(), "JSON object"),
        ("{".to_owned(), ""),
        ("{}".to_owned(), "missing field"),
    ] {
        let answer = plane().ask("POST", "/tasks", Some(&body));
        says(&answer, 400, reason);
        assert!(!answer.text().contains(&b64::encode(&wanted.verify_key)));
    }
    let id = daphne_core::task::id_of_verify_key(&wanted.verify_key);
    assert_eq!(server().0.admin().task(&id).unwrap(), None);
    is_empty(&plane().ask("GET", &format!("/tasks/{id}"), None), 404);
}

#[test]
fn the_same_key_with_other_parameters_is_a_conflict_and_a_deleted_task_stays_so() {
    let wanted = count();
    let told = plane().provision(&wanted);
    let path = format!("/tasks/{}", told.task_id);
    for other in [
        Wanted { task_expiration: None, ..wanted.clone() },
        Wanted { time_precision: 60, ..wanted.clone() },
        Wanted { vdaf: json!({ "Prio3Sum": { "bits": 8 } }), ..wanted.clone() },
        Wanted { collector_keys: keypair(201), ..wanted.clone() },
    ] {
        says(&plane().ask("POST", "/tasks", Some(&other.to_helper())), 409, "other parameters");
    }
    // However long it was let live since, the first request is the one that created it.
    let end = now() + 86_400;
    plane().set_expiration(&told.task_id, Some(end));
    let again = plane().told(&plane().ask("POST", "/tasks", Some(&wanted.to_helper())));
    assert_eq!(again.aggregator_auth_token, told.aggregator_auth_token);
    assert_eq!(again.task_expiration, Some(end));
    for _ in 0..2 {
        is_empty(&plane().ask("DELETE", &path, None), 204);
        is_empty(&plane().ask("GET", &path, None), 404);
        is_empty(&plane().ask("PATCH", &path, Some(r#"{"task_expiration":null}"#)), 404);
        is_empty(&plane().ask("PATCH", &path, Some("{}")), 404);
    }
    says(&plane().ask("POST", "/tasks", Some(&wanted.to_helper())), 409, "was deleted");
    let never = format!("/tasks/{}", TaskId::new(random()));
    is_empty(&plane().ask("DELETE", &never, None), 204);
    says(&plane().ask("GET", "/tasks/short", None), 400, "task id");
    for bad in [r#"{"task_expiration":-1}"#, r#"{"task_expiration":"never"}"#, "null", "[]"] {
        assert_eq!(plane().ask("PATCH", &path, Some(bad)).status, 400, "{bad}");
    }
}

#[test]
fn an_operators_task_with_the_same_key_is_another_one() {
    let (server, _) = server();
    let wanted = count();
    let world = World::new(server, TimeInterval, |spec: &mut TaskSpec| {
        spec.task_id = None;
        spec.verify_key = wanted.verify_key.to_vec();
    });
    says(&plane().ask("POST", "/tasks", Some(&wanted.to_helper())), 409, "other parameters");
    // It is told like any, and may be ended; nobody said who leads it.
    let path = format!("/tasks/{}", world.task_id);
    let told = plane().told(&plane().ask("GET", &path, None));
    assert_eq!(told.peer_aggregator_endpoint, "https://leader.invalid/");
    assert_eq!(told.vdaf, json!({ "Prio3Sum": { "bits": 8 } }));
    let end = now() + 3_600;
    plane().set_expiration(&world.task_id, Some(end));
    let shown = server.admin().task(&world.task_id).unwrap().unwrap();
    assert_eq!(shown.task_expiration.map(|t| t.as_seconds()), Some(end));
    // What a leader brings says itself when it ends.
    let peer = Peer::new(server, PeerPolicy::default());
    let brought = peer.task(server, TimeInterval, |_| {});
    let reports = brought.sums(&[1, 2], brought.time(0));
    assert_eq!(brought.put(&brought.timed_job(&reports)).status, 200);
    let path = format!("/tasks/{}", brought.task_id);
    let told = plane().told(&plane().ask("GET", &path, None));
    assert_eq!(told.peer_aggregator_endpoint, peer.spec.endpoint);
    let answer = plane().ask("PATCH", &path, Some(r#"{"task_expiration":null}"#));
    says(&answer, 409, "all its parties agreed on");
}

#[test]
fn ids_of_all_tasks_come_in_pages_that_end() {
    let (server, token) = control_plane::start();
    let plane = ControlPlane::new(&server, &token);
    let page = |query: &str| plane.ask("GET", &format!("/task_ids{query}"), None).json();
    assert_eq!(page(""), json!({ "task_ids": [] }));
    let mut ids: BTreeSet<String> = (0..205)
        .map(|_| {
            let body = count().to_helper();
            plane.told(&plane.ask("POST", "/tasks", Some(&body))).task_id.to_string()
        })
        .collect();
    ids.insert(World::new(&server, TimeInterval, |_| {}).task_id.to_string());
    let (mut seen, mut query, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let page = page(&query);
        pages += 1;
        let listed = page["task_ids"].as_array().unwrap();
        seen.extend(listed.iter().map(|id| id.as_str().unwrap().to_owned()));
        let Some(next) = page["pagination_token"].as_str() else {
            assert!(listed.is_empty());
            break;
        };
        assert_eq!(Some(next), seen.last().map(String::as_str));
        query = format!("?pagination_token={next}");
    }
    assert_eq!((seen.len(), pages), (206, 4));
    assert_eq!(seen.into_iter().collect::<BTreeSet<_>>(), ids);
    says(&plane.ask("GET", "/task_ids?pagination_token=x", None), 400, "pagination_token");
}

#[test]
fn hpke_keys_are_made_published_and_retired() {
    let (server, token) = control_plane::start();
    let plane = ControlPlane::new(&server, &token);
    let list = || plane.ask("GET", "/hpke_configs", None).json();
    let first = json!({ "config": server.hpke_config(), "state": "active" });
    assert_eq!(list(), json!([first]));
    let made = plane.ask("PUT", "/hpke_configs", Some("{}"));
    assert_eq!(made.status, 201);
    let made = made.json();
    assert_eq!(made["state"], "pending");
    assert_eq!(made["config"]["kem_id"], "X25519HkdfSha256");
    let path = format!("/hpke_configs/{}", made["config"]["id"]);
    assert_eq!(plane.ask("GET", &path, None).json(), made);
    let p256 = r#"{"kem_id":"P256HkdfSha256","kdf_id":"HkdfSha256","aead_id":"Aes128Gcm"}"#;
    assert_eq!(plane.ask("PUT", "/hpke_configs", Some(p256)).status, 201);
    let other = plane.ask("PUT", "/hpke_configs", Some(r#"{"kdf_id":"HkdfSha512"}"#));
    says(&other, 400, "HkdfSha256");
    let patch = |path: &str, state: &str| {
        plane.ask("PATCH", path, Some(&json!({ "state": state }).to_string()))
    };
    let published = || server.client().get("/v09/hpke_config").body;
    let before = published();
    is_empty(&patch(&path, "pending"), 200);
    is_empty(&patch(&path, "active"), 200);
    assert_ne!(published(), before);
    assert_eq!(list()[0]["config"], made["config"], "published first");
    says(&patch(&path, "pending"), 409, "does not become pending again");
    says(&plane.ask("DELETE", &path, None), 409, "expire it first");
    is_empty(&patch(&path, "expired"), 200);
    assert_eq!(published(), before);
    says(&plane.ask("DELETE", &path, None), 409, "may be needed until");
    let last = format!("/hpke_configs/{}", HPKE_KEY_ID.0);
    says(&patch(&last, "expired"), 409, "the only published");
    // Gone is gone.
    server
        .admin()
        .destroy_hpke_key(serde_json::from_value(made["config"]["id"].clone()).unwrap(), true)
        .unwrap();
    is_empty(&plane.ask("GET", &path, None), 404);
    is_empty(&patch(&path, "active"), 404);
    for path in [&path, "/hpke_configs/255"] {
        is_empty(&plane.ask("DELETE", path, None), 204);
    }
    is_empty(&patch("/hpke_configs/255", "active"), 404);
    for bad in ["256", "-1", "x"] {
        says(&plane.ask("GET", &format!("/hpke_configs/{bad}"), None), 400, "0 to 255");
    }
    assert_eq!(patch(&last, "gone").status, 400);
    assert_eq!(list().as_array().unwrap().len(), 2);
}

#[test]
fn lost_answers_leave_no_more_than_a_few_keys_behind() {
    let (server, token) = control_plane::start();
    let plane = ControlPlane::new(&server, &token);
    let make = || plane.ask("PUT", "/hpke_configs", Some("{}"));
    let made: Vec<Answer> = (0..8).map(|_| make()).collect();
    assert!(made.iter().all(|answer| answer.status == 201));
    says(&make(), 409, "there are 8 pending keys already");
    let of = |n: usize| format!("/hpke_configs/{}", made[n].json()["config"]["id"]);
    let patch = |n: usize, state: &str| {
        plane.ask("PATCH", &of(n), Some(&json!({ "state": state }).to_string()))
    };
    is_empty(&patch(0, "expired"), 200);
    assert_eq!(make().status, 201);
    says(&make(), 409, "publish one, or expire");
    is_empty(&patch(1, "active"), 200);
    assert_eq!(make().status, 201);
}

#[test]
fn peers_are_added_once_and_bring_tasks_along() {
    let (server, token) = control_plane::start();
    let plane = ControlPlane::new(&server, &token);
    let path = "/taskprov/peer_aggregators";
    assert_eq!(plane.ask("GET", path, None).json(), json!([]));
    let peer = Peer::stranger(PeerPolicy::default());
    let spec = &peer.spec;
    let init = serde_json::to_value(&spec.verify_key_init).unwrap();
    let new = json!({
        "endpoint": spec.endpoint, "role": "Leader", "collector_hpke_config": spec.collector_hpke_config,
        "verify_key_init": init, "report_expiry_age": 14 * 86_400, "tolerable_clock_skew": 300,
        "aggregator_auth_tokens": [{ "type": "Bearer", "token": peer.token() }],
        "collector_auth_tokens": [],
    });
    let with = |name: &str, value: Value| {
        let mut body = new.clone();
        body[name] = value;
        body.to_string()
    };
    for (name, value, reason) in [
        ("role", json!("Helper"), "role must be Leader"),
        ("report_expiry_age", json!(null), "report_expiry_age"),
        ("verify_key_init", json!("AAAA"), ""),
        ("aggregator_auth_tokens", json!([]), "at least one leader token"),
        ("endpoint", json!("leader"), "endpoint"),
    ] {
        says(&plane.ask("POST", path, Some(&with(name, value))), 400, reason);
    }
    let added = plane.ask("POST", path, Some(&new.to_string()));
    assert_eq!(added.status, 201, "{}", added.text());
    let told = json!({
        "endpoint": spec.endpoint, "role": "Leader", "collector_hpke_config": spec.collector_hpke_config,
        "report_expiry_age": 14 * 86_400, "tolerable_clock_skew": 300,
    });
    assert_eq!(added.json(), told);
    says(&plane.ask("POST", path, Some(&new.to_string())), 409, "exists");
    says(&plane.ask("POST", path, Some(&with("tolerable_clock_skew", json!(1)))), 409, "exists");
    let world = peer.task(&server, TimeInterval, |_| {});
    let job = world.timed_job(&world.sums(&[1, 2], world.time(0)));
    assert_eq!(world.put(&job).status, 200);
    let list = plane.ask("GET", path, None);
    assert_eq!(list.json(), json!([told]));
    for secret in [peer.token(), init.as_str().unwrap()] {
        assert!(!list.text().contains(secret));
    }
    let old = |role: &str| json!({ "endpoint": spec.endpoint, "role": role }).to_string();
    is_empty(&plane.ask("DELETE", path, Some(&old("Helper"))), 204);
    assert_eq!(plane.ask("GET", path, None).json(), json!([told]), "another role is another peer");
    for _ in 0..2 {
        is_empty(&plane.ask("DELETE", path, Some(&old("Leader"))), 204);
    }
    assert_eq!(plane.ask("GET", path, None).json(), json!([]));
}
