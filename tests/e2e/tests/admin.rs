//! The operator's API: tasks and HPKE keys.

use std::sync::OnceLock;

use daphne_core::{
    b64,
    batch::BatchMode::{LeaderSelected, TimeInterval},
    codec::Reader,
    hpke::{HpkeConfigList, HpkeKem},
    ids::{HpkeConfigId, TaskId},
    message::PartialBatchSelector,
    taskprov::PeerPolicy,
    time::Time,
    version::DapVersion,
    wire::v18,
};
use e2e::{
    Answer, Books, Peer, Server, World, now,
    server::{HPKE_KEY_ID, random, random_token},
    world::keypair,
};
use serde_json::{Value, json};

const TIMED: PartialBatchSelector = PartialBatchSelector::TimeInterval;

fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(Server::start)
}

/// The JSON of a task that can be created, with a fresh id.
fn spec() -> Value {
    json!({
        "task_id": TaskId::new(random()),
        "version": "dap-09",
        "role": "helper",
        "batch_mode": "time-interval",
        "vdaf": "Prio3Count",
        "verify_key": b64::encode(&random::<16>()),
        "leader_token": random_token(),
        "collector_hpke_config": keypair(3).config(),
        "min_batch_size": 10,
        "time_precision": 3600,
    })
}

fn post(body: &Value) -> Answer {
    server().admin_ask("POST", "/admin/tasks", Some(&body.to_string()))
}

fn show(spec: &Value) -> Answer {
    let id = spec["task_id"].as_str().unwrap();
    server().admin_ask("GET", &format!("/admin/tasks/{id}"), None)
}

#[test]
fn only_the_operators_token_opens() {
    let world = World::new(server(), TimeInterval, |_| {});
    let body = spec().to_string();
    let admin = server().admin_token();
    for headers in [
        vec![],
        vec![("authorization", format!("Bearer {}", random_token()))],
        vec![("authorization", format!("Bearer {}", world.token))],
        vec![("authorization", "Bearer ".to_owned())],
        vec![("authorization", admin.to_owned())],
        vec![("authorization", format!("Bearer {}", &admin[..admin.len() - 1]))],
        // What leaders may use is not for operators.
        vec![("dap-auth-token", admin.to_owned())],
    ] {
        let headers: Vec<_> = headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
        for (method, path) in [
            ("GET", "/admin/tasks".to_owned()),
            ("POST", "/admin/tasks".to_owned()),
            ("GET", format!("/admin/tasks/{}", world.task_id)),
            ("PATCH", format!("/admin/tasks/{}", world.task_id)),
            ("DELETE", format!("/admin/tasks/{}", world.task_id)),
            ("GET", "/admin/hpke_keys".to_owned()),
            ("POST", "/admin/hpke_keys".to_owned()),
        ] {
            let body = (method == "POST").then_some(body.as_bytes());
            world.client.ask(method, &path, &headers, body).refused_without_type(403);
        }
    }
    assert!(server().admin().task(&world.task_id).unwrap().is_some());
}

/// What all parties seal to is kept word for word, and must say what the operator says.
#[test]
fn a_dap_18_task_is_stored_only_with_a_configuration_that_agrees() {
    let made = World::new_in(server(), DapVersion::V18, TimeInterval, |_| {});
    let mut good = serde_json::to_value(&made.spec).expect("JSON");
    let shown = show(&good);
    assert_eq!(shown.json()["task_configuration"], good["task_configuration"]);
    good["task_id"] = json!(TaskId::new(random()));
    let bytes = made.spec.task_configuration.clone();
    let with = |name: &str, value: Value| {
        let mut changed = good.clone();
        changed[name] = value;
        changed
    };
    let configured = |change: &dyn Fn(&mut v18::TaskConfiguration<'_>)| {
        let mut configuration = v18::TaskConfiguration::decode(&bytes).expect("our own");
        change(&mut configuration);
        let bytes = configuration.encode().expect("a configuration");
        with("task_configuration", json!(b64::encode(&bytes)))
    };
    let interval = [0, 0, 0, 0, 0, 0, 0, 1].repeat(2);
    let known = v18::Extension { extension_type: v18::TASK_INTERVAL, extension_data: &interval };
    let unknown = v18::Extension { extension_type: 2, extension_data: &interval };
    let extended = |extensions: &[v18::Extension<'_>]| {
        let mut configuration = v18::TaskConfiguration::decode(&bytes).expect("our own");
        configuration.extensions = extensions.to_vec();
        let bytes = configuration.encode().expect("a configuration");
        with("task_configuration", json!(b64::encode(&bytes)))
    };
    for wrong in [
        with("task_configuration", json!("")),
        with("task_configuration", json!(b64::encode(&bytes[1..]))),
        with("task_configuration", json!(b64::encode(&[&bytes[..], &[0]].concat()))),
        with("version", json!("dap-09")),
        with("role", json!("leader")),
        with("min_batch_size", json!(3)),
        with("time_precision", json!(60)),
        with("batch_mode", json!("leader-selected")),
        with("vdaf", json!("Prio3Count")),
        with("task_expiration", json!(now() + 1_000)),
        with("verify_key", json!(b64::encode(&[1; 16]))),
        with("max_batch_size", json!(10)),
        with("max_batch_query_count", json!(2)),
        configured(&|c| c.min_batch_size += 1),
        configured(&|c| c.time_precision = 60),
        configured(&|c| c.batch_mode = v18::BatchMode::LeaderSelected),
        configured(&|c| c.batch_mode = v18::BatchMode::Unknown { code: 3, config: &[] }),
        configured(&|c| c.vdaf = v18::TaskVdaf::Unknown { code: 77, parameters: &[] }),
        extended(&[unknown]),
        extended(&[known, known]),
        extended(&[known, unknown]),
        extended(&[unknown, known]),
    ] {
        let refused = post(&wrong);
        assert_eq!(refused.status, 400, "{wrong}: {}", refused.text());
        assert_eq!(show(&wrong).status, 404);
    }
    assert_eq!(post(&good).status, 201);
    // The same again is the same; another word is another task.
    let answer = post(&good);
    assert!(answer.status < 300, "{}", answer.text());
    good["task_configuration"] =
        configured(&|c| c.task_info = b"other")["task_configuration"].clone();
    assert_eq!(post(&good).status, 409);
}

#[test]
fn a_task_that_is_not_understood_is_not_stored() {
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
    let text = good.to_string();
    let mut wrong = vec![
        String::new(),
        "{".to_owned(),
        "[]".to_owned(),
        "null".to_owned(),
        text[..text.len() - 1].to_owned(),
        format!("{text}{text}"),
        with("unknown_field", json!(1)),
        with("version", json!("dap-18")),
        with("version", json!("dap-10")),
        with("role", json!("leader")),
        with("batch_mode", json!("fixed-size")),
        with("vdaf", json!("Prio3Nothing")),
        with("vdaf", json!({ "Prio3Sum": { "bits": 65 } })),
        with("vdaf", json!({ "Prio3Sum": { "max_measurement": 100 } })),
        with("vdaf", json!({ "Prio3Histogram": { "length": 0, "chunk_length": 1 } })),
        with("vdaf", json!({ "Prio3Histogram": { "length": 10, "chunk_length": 0 } })),
        with(
            "vdaf",
            json!({ "Prio3Histogram": { "length": 4_000_000_000_u32, "chunk_length": 1 } }),
        ),
        with("verify_key", json!(b64::encode(&[1; 15]))),
        with("verify_key", json!(b64::encode(&[1; 32]))),
        with("verify_key", json!("not base64url!")),
        with("leader_token", json!("short")),
        with("leader_token_hash", json!(b64::encode(&[1; 32]))),
        with("min_batch_size", json!(1)),
        with("min_batch_size", json!(-1)),
        with("min_batch_size", json!("10")),
        with("time_precision", json!(0)),
        with("time_precision", json!(1.5)),
        with("time_precision", json!(u64::MAX)),
        with("max_batch_query_count", json!(2)),
        with("max_batch_size", json!(100)),
        with("shards", json!(0)),
        with("shards", json!(65)),
        with("shards", json!(70_000)),
        with("report_expiry_age", json!(1)),
        with("collector_hpke_config", json!({})),
        with("task_id", json!("AAAA")),
    ];
    wrong.extend(
        [
            "version",
            "role",
            "batch_mode",
            "vdaf",
            "verify_key",
            "leader_token",
            "collector_hpke_config",
            "min_batch_size",
            "time_precision",
        ]
        .map(without),
    );
    let secrets = ["verify_key", "leader_token"].map(|name| good[name].as_str().unwrap());
    for body in wrong {
        let answer = server().admin_ask("POST", "/admin/tasks", Some(&body));
        answer.refused_without_type(400);
        let detail = answer.json()["detail"].as_str().unwrap_or_default().to_owned();
        assert!(!detail.is_empty() && !detail.contains('\n'), "{body}: {detail:?}");
        assert!(secrets.iter().all(|s| !answer.text().contains(s)), "{}", answer.text());
        show(&good).refused_without_type(404);
    }
    assert_eq!(post(&good).status, 201);
}

#[test]
fn only_json_is_read_and_not_much_of_it() {
    let body = spec().to_string();
    let bearer = format!("Bearer {}", server().admin_token());
    let send = |media_type: &str, body: &str| {
        let headers = [("authorization", bearer.as_str()), ("content-type", media_type)];
        server().client().ask("POST", "/admin/tasks", &headers, Some(body.as_bytes()))
    };
    send("text/plain", &body).refused_without_type(415);
    let large = " ".repeat((64 << 10) + 1);
    let answer = server().client().send_chunked(
        "POST",
        "/admin/tasks",
        &[("authorization", bearer.as_str()), ("content-type", "application/json")],
        large.as_bytes(),
    );
    answer.unwrap().refused_without_type(413);
    assert_eq!(send("application/json; charset=utf-8", &body).status, 201);
}

#[test]
fn a_task_is_created_once_and_shown_without_secrets() {
    let spec = spec();
    let created = post(&spec);
    assert_eq!(created.status, 201, "{}", created.text());
    let again = post(&spec);
    assert_eq!(again.status, 200);
    let shown = show(&spec);
    assert_eq!(shown.status, 200);
    let listed = server().admin_ask("GET", "/admin/tasks?limit=500", None);
    for answer in [&created, &again, &shown] {
        assert_eq!(answer.json(), created.json());
        assert_eq!(answer.header("content-type"), "application/json");
    }
    for (name, value) in [
        ("task_id", spec["task_id"].clone()),
        ("min_batch_size", json!(10)),
        ("report_expiry_age", json!(14 * 86_400)),
        ("buckets_per_group", json!(24)),
        ("shards", json!(1)),
    ] {
        assert_eq!(shown.json()[name], value, "{name}");
    }
    let token = daphne_core::seal::TokenHash::of(spec["leader_token"].as_str().unwrap());
    let hash = serde_json::to_string(&token).unwrap();
    for answer in [created, again, shown, listed] {
        let text = answer.text();
        for secret in ["verify_key", "leader_token"] {
            assert!(!text.contains(spec[secret].as_str().unwrap()), "{secret}: {text}");
            assert!(!text.contains(secret), "{secret}: {text}");
        }
        assert!(!text.contains(hash.trim_matches('"')));
    }
}

#[test]
fn other_parameters_under_the_id_of_a_task_are_a_conflict() {
    let good = spec();
    assert_eq!(post(&good).status, 201);
    for (name, value) in [
        ("min_batch_size", json!(11)),
        ("verify_key", json!(b64::encode(&random::<16>()))),
        ("leader_token", json!(random_token())),
        ("time_precision", json!(60)),
        ("batch_mode", json!("leader-selected")),
        ("vdaf", json!({ "Prio3Sum": { "bits": 8 } })),
        ("shards", json!(2)),
        ("collector_hpke_config", json!(keypair(4).config())),
        ("task_expiration", json!(4_000_000_000_u64)),
    ] {
        let mut changed = good.clone();
        changed[name] = value;
        post(&changed).refused_without_type(409);
    }
    assert_eq!(show(&good).json()["min_batch_size"], 10);
    assert_eq!(post(&good).status, 200);
}

#[test]
fn of_a_task_its_end_may_change_and_nothing_else() {
    let good = spec();
    let created = post(&good).json();
    let path = format!("/admin/tasks/{}", created["task_id"].as_str().unwrap());
    let patch = |body: &str| server().admin_ask("PATCH", &path, Some(body));
    for end in [json!(4_000_000_000_u64), json!(1), json!(u64::MAX), json!(null)] {
        let mut expected = created.clone();
        expected["task_expiration"] = end.clone();
        let body = json!({ "task_expiration": end }).to_string();
        for _ in 0..2 {
            let answer = patch(&body);
            assert_eq!((answer.status, answer.json()), (200, expected.clone()));
        }
        assert_eq!(show(&good).json(), expected);
        assert_eq!(post(&good).status, 200, "the first request is still the one that created it");
    }
    for bad in [
        "",
        "{}",
        "null",
        "[]",
        r#"{"task_expiration":-1}"#,
        r#"{"task_expiration":1.5}"#,
        r#"{"task_expiration":"never"}"#,
        r#"{"task_expiration":1,"min_batch_size":2}"#,
        r#"{"min_batch_size":2}"#,
    ] {
        patch(bad).refused_without_type(400);
    }
    assert_eq!(show(&good).json(), created);
    assert!(
        server()
            .admin()
            .delete_task(&created["task_id"].as_str().unwrap().parse().unwrap(), None)
            .unwrap()
    );
    patch(r#"{"task_expiration":null}"#).refused_without_type(404);
    let short = server().admin_ask("PATCH", "/admin/tasks/short", Some(r#"{"task_expiration":1}"#));
    short.refused_without_type(400);
    // What a leader brings says itself when it ends.
    let brought = Peer::new(server(), PeerPolicy::default()).task(server(), TimeInterval, |_| {});
    let reports = brought.sums(&[1, 2], brought.time(0));
    assert_eq!(brought.put(&brought.timed_job(&reports)).status, 200);
    let path = format!("/admin/tasks/{}", brought.task_id);
    let answer = server().admin_ask("PATCH", &path, Some(r#"{"task_expiration":null}"#));
    answer.refused_without_type(409);
    assert!(answer.text().contains("all its parties agreed on"), "{}", answer.text());
    // And so does what all parties have word for word.
    let world = World::new_in(server(), DapVersion::V18, TimeInterval, |_| {});
    let path = format!("/admin/tasks/{}", world.task_id);
    let answer = server().admin_ask("PATCH", &path, Some(r#"{"task_expiration":1}"#));
    answer.refused_without_type(409);
}

#[test]
fn a_task_without_an_id_is_named_after_its_key() {
    let mut spec = spec();
    spec.as_object_mut().unwrap().remove("task_id");
    let first = post(&spec);
    assert_eq!(first.status, 201);
    let again = post(&spec);
    assert_eq!((again.status, again.json()), (200, first.json()));
}

#[test]
fn tasks_are_listed_in_pages() {
    // A server of its own, where nobody else makes tasks.
    let server = Server::start();
    let admin = server.admin();
    assert_eq!(admin.all_tasks().unwrap(), []);
    let mut ids: Vec<TaskId> =
        (0..5).map(|_| World::new(&server, LeaderSelected, |_| {}).task_id).collect();
    ids.sort_unstable();
    for limit in 1..=6 {
        let mut found = Vec::new();
        let mut after = None;
        loop {
            let page = admin.list_tasks(after.as_ref(), limit).unwrap();
            assert!(page.tasks.len() <= limit as usize);
            found.extend(page.tasks.iter().map(|t| t.task_id));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(found, ids, "pages of {limit}");
    }
    for wrong in ["limit=0", "limit=501", "limit=x", "after=x", "offset=1"] {
        let answer = server.admin_ask("GET", &format!("/admin/tasks?{wrong}"), None);
        answer.refused_without_type(400);
    }
    assert!(admin.delete_task(&ids[2], None).unwrap());
    ids.remove(2);
    assert_eq!(admin.all_tasks().unwrap().iter().map(|t| t.task_id).collect::<Vec<_>>(), ids);
}

#[test]
fn a_deleted_task_is_gone_for_good() {
    let world = World::new(server(), TimeInterval, |_| {});
    let mut books = Books::default();
    world.aggregate(TIMED, &world.sums(&[1, 2], world.time(0)), &mut books);
    let path = format!("/admin/tasks/{}", world.task_id);
    let deleted = server().admin_ask("DELETE", &path, None);
    assert_eq!((deleted.status, deleted.body.len()), (204, 0));
    for method in ["DELETE", "GET"] {
        server().admin_ask(method, &path, None).refused_without_type(404);
    }
    let job = world.timed_job(&world.sums(&[3, 4], world.time(0)));
    world.put(&job).refused("unrecognizedTask", &world.task_id);
    let request = world.share_request(world.interval(0, 1), &books);
    world.post_share(&request).refused("unrecognizedTask", &world.task_id);
    // With the same parameters and with others.
    let mut spec = world.spec.clone();
    for _ in 0..2 {
        let body = serde_json::to_string(&spec).unwrap();
        server().admin_ask("POST", "/admin/tasks", Some(&body)).refused_without_type(409);
        spec.min_batch_size += 1;
    }
    world.put(&job).refused("unrecognizedTask", &world.task_id);
}

#[test]
fn a_task_lives_through_a_restart() {
    let mut server = Server::start();
    let world = World::new(&server, LeaderSelected, |_| {});
    let keys = server.admin().hpke_keys().unwrap();
    server.restart();
    assert_eq!(server.admin().hpke_keys().unwrap(), keys);
    assert!(server.admin().task(&world.task_id).unwrap().is_some());
    let reports = world.sums(&[1, 2], Time::from_seconds(world.epoch));
    let batch = daphne_core::ids::BatchId::new(random());
    let part = PartialBatchSelector::LeaderSelected(batch);
    world.aggregate(part, &reports, &mut Books::default());
}

#[test]
fn keys_are_added_and_reports_to_old_ones_still_open() {
    // A server of its own, where nobody else makes keys.
    let server = Server::start();
    let admin = server.admin();
    let ask = |body: &str| server.admin_ask("POST", "/admin/hpke_keys", Some(body));
    let mut worlds =
        DapVersion::ALL.map(|version| World::new_in(&server, version, TimeInterval, |_| {}));
    let early = worlds.each_ref().map(|world| world.sums(&[1, 2], world.time(0)));
    let mut ids = vec![HPKE_KEY_ID];
    // The id that comes next, one that is asked for, and one of the other kind.
    for (bucket, wanted, kem, got) in [
        (1, None, None, 8),
        (2, Some(HpkeConfigId(255)), None, 255),
        (3, None, Some(HpkeKem::P256HkdfSha256), 0),
    ] {
        let config = admin.add_hpke_key(wanted, kem).unwrap();
        assert_eq!(config.id, HpkeConfigId(got));
        assert_eq!(config.kem, kem.unwrap_or(HpkeKem::X25519HkdfSha256));
        ids.insert(0, config.id);
        // The newest comes first, in both listings.
        let keys: Vec<_> = admin.hpke_keys().unwrap().into_iter().map(|k| k.config).collect();
        assert_eq!(keys.iter().map(|k| k.id).collect::<Vec<_>>(), ids);
        let published = server.client().get("/v09/hpke_config");
        let list = Reader::all(&published.body, HpkeConfigList::read).unwrap();
        assert_eq!(list.0, keys);
        for world in &mut worlds {
            world.reporter.helper_hpke_config = config.clone();
            let mut books = Books::default();
            world.aggregate(TIMED, &world.sums(&[3, 4], world.time(bucket)), &mut books);
            world.collect(world.interval(bucket, 1), &books);
        }
    }
    for (world, early) in worlds.iter().zip(&early) {
        let mut books = Books::default();
        world.aggregate(TIMED, early, &mut books);
        world.collect(world.interval(0, 1), &books);
    }
    ask("{\"id\":7}").refused_without_type(409);
    for wrong in [
        "",
        "{",
        "{\"id\":256}",
        "{\"id\":-1}",
        "{\"kem\":\"X448\"}",
        "{\"kem\":33}",
        "{\"key\":1}",
    ] {
        ask(wrong).refused_without_type(400);
    }
    assert_eq!(admin.hpke_keys().unwrap().len(), 4);
    // Private keys stay where they are.
    for answer in [ask("{}"), server.admin_ask("GET", "/admin/hpke_keys", None)] {
        assert!(!answer.text().contains("private"), "{}", answer.text());
    }
}

#[test]
fn two_creations_at_once_are_one() {
    let spec = spec();
    let senders: Vec<_> = (0..4)
        .map(|_| {
            let spec = spec.clone();
            std::thread::spawn(move || post(&spec).status)
        })
        .collect();
    let mut statuses: Vec<_> = senders.into_iter().map(|s| s.join().unwrap()).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 200, 201]);
}
