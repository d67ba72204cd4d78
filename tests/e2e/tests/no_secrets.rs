//! No secret in use is in the log, in an answer or in the metrics, whatever is asked: a server of its own is asked for
//! everything, rightly and wrongly, and then all that it said is searched.

use daphne_core::{
    b64,
    batch::BatchMode::{LeaderSelected, TimeInterval},
    hpke::{HpkeKem, HpkeKeypair},
    ids::{AggregationJobId, BatchId, HpkeConfigId},
    message::PartialBatchSelector,
    taskprov::PeerPolicy,
    vdaf::{Measurement, VdafConfig},
    version::DapVersion,
};
use e2e::{
    Books, Peer, Server, World,
    client::{Answer, JOB_INIT},
    forge::{TIMED, forge, job_body},
    server::{random, random_token},
};
use serde_json::json;

/// A secret, and how it could be written.
struct Secret {
    name: &'static str,
    forms: Vec<Vec<u8>>,
}

impl Secret {
    /// Bytes: as they are, in hexadecimal, and in both alphabets of base64, with padding and without.
    fn bytes(name: &'static str, bytes: &[u8]) -> Self {
        assert!(bytes.len() >= 16, "{name} is no secret");
        let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        let url = b64::encode(bytes);
        let standard = url.replace('-', "+").replace('_', "/");
        let list = format!("{bytes:?}");
        let forms = [hex.to_uppercase(), hex, url, standard, list].map(String::into_bytes);
        Self { name, forms: forms.into_iter().chain([bytes.to_vec()]).collect() }
    }

    /// Text, and the bytes that it may be the encoding of.
    fn text(name: &'static str, text: &str) -> Self {
        let mut secret = Self::bytes(name, text.as_bytes());
        if let Some(bytes) = b64::decode(text) {
            secret.forms.extend(Self::bytes(name, &bytes).forms);
        }
        secret
    }

    fn is_in(&self, haystack: &[u8]) -> bool {
        let has = |form: &Vec<u8>| haystack.windows(form.len()).any(|window| window == form);
        self.forms.iter().any(has)
    }
}

/// All that was said so far.
#[derive(Default)]
struct Heard(Vec<u8>);

impl Heard {
    fn add(&mut self, answer: &Answer) {
        for (name, value) in &answer.headers {
            self.0.extend_from_slice(name.as_str().as_bytes());
            self.0.extend_from_slice(value.as_bytes());
            self.0.push(b'\n');
        }
        self.0.extend_from_slice(&answer.body);
        self.0.push(b'\n');
    }
}

#[test]
fn a_secret_is_found_however_it_is_written() {
    let bytes: [u8; 32] = random();
    let secret = Secret::bytes("key", &bytes);
    for form in [
        b64::encode(&bytes),
        format!("{bytes:?}"),
        bytes.iter().map(|b| format!("{b:02X}")).collect(),
    ] {
        assert!(secret.is_in(format!("...{form}...").as_bytes()), "{form}");
    }
    assert!(!secret.is_in(b64::encode(&random::<64>()).as_bytes()));
}

/// A leader's requests, good and bad, of one task. Returns its secrets.
fn lead(world: &World, heard: &mut Heard) -> Vec<Secret> {
    let (mut books, part) = (
        Books::default(),
        match world.spec.batch_mode {
            TimeInterval => TIMED,
            LeaderSelected => PartialBatchSelector::LeaderSelected(BatchId::new([5; 32])),
        },
    );
    let job = world.job(part, &world.sums(&[1, 2, 3], world.time(0)));
    let answer = world.put(&job);
    heard.add(&answer);
    heard.add(&world.put(&job));
    heard.add(&world.put_body(&job.id, b"another body"));
    let id = job.id;
    world.finish(job, &answer, &mut books);
    let mut bad = forge(world, 5, world.time(0), |_| ());
    bad.sealed.payload[0] ^= 1;
    let worse = forge(world, 5, world.time(0), |d| d.input_share.push(0));
    heard.add(
        &world.put_body(&AggregationJobId::new(random()), &job_body(world, part, &[bad, worse])),
    );
    let wrong = world.share_request_of(
        match world.spec.batch_mode {
            TimeInterval => world.interval(0, 1),
            LeaderSelected => {
                daphne_core::message::BatchSelector::LeaderSelected(BatchId::new([5; 32]))
            }
        },
        9,
        Default::default(),
    );
    heard.add(&world.post_share(&wrong));
    if world.spec.batch_mode == TimeInterval {
        heard.add(&world.collect(world.interval(0, 1), &books));
    }
    heard.add(&world.delete(&id));
    heard.add(&world.ask("GET", &world.job_path(&id), "", None));
    heard.add(&world.ask("GET", &format!("{}/x", world.shares_path()), "", None));
    heard.add(&world.ask("POST", &world.job_path(&id), "", Some(b"?")));
    vec![
        Secret::text("the leader's token", &world.token),
        Secret::bytes("the verify key", &world.spec.verify_key),
        Secret::bytes("the collector's private key", world.collector_keys.private_key()),
        Secret::bytes("the leader's private key", world.leader_keys.private_key()),
    ]
}

#[test]
fn nothing_that_is_said_holds_a_secret() {
    let mut server = Server::start();
    let metrics_token = random_token();
    server.set_secret("METRICS_TOKENS", &metrics_token);
    let root_keys = format!("{},2={}", server.secret("ROOT_KEYS"), b64::encode(&random::<32>()));
    server.set_secret("ROOT_KEYS", &root_keys);
    let mut heard = Heard::default();
    let mut secrets = vec![
        Secret::text("the admin token", server.admin_token()),
        Secret::text("the metrics token", &metrics_token),
    ];
    for key in root_keys.split(',') {
        let (_, key) = key.split_once('=').expect("a version");
        secrets.push(Secret::text("a root key", key));
    }

    // Tasks: of an operator, by batch, of several rounds, and of a peer.
    let timed = World::new(&server, TimeInterval, |_| {});
    let chosen = World::new(&server, LeaderSelected, |spec| spec.shards = 2);
    let peer = Peer::new(&server, PeerPolicy::default());
    let mut brought = peer.task(&server, TimeInterval, |_| {});
    let init: serde_json::Value = json!(peer.spec.verify_key_init);
    secrets.push(Secret::text("the peer's secret", init.as_str().expect("base64url")));
    let newer = World::new_in(&server, DapVersion::V18, LeaderSelected, |_| {});
    for world in [&timed, &chosen, &newer] {
        secrets.extend(lead(world, &mut heard));
    }
    let mut rounds = World::new(&server, TimeInterval, |spec| {
        spec.vdaf = VdafConfig::Poplar1 { bits: 4 };
        spec.max_batch_query_count = 4;
    });
    rounds.ask_for(&["0", "1"]);
    let strings = ["0000", "1111", "1010"].map(|s| Measurement::Poplar1(s.parse().expect("bits")));
    let reports = strings.map(|string| rounds.report(string, rounds.time(0)));
    rounds.run(rounds.timed_job(&reports), &mut Books::default());
    secrets.push(Secret::bytes("the verify key of Poplar1", &rounds.spec.verify_key));
    let job = brought.timed_job(&brought.sums(&[1, 2], brought.time(0)));
    heard.add(&brought.put(&job));
    secrets.push(Secret::text("the peer's token", &brought.token));
    // A token that is somebody else's, and one that is nobody's; the same in a path and in a query.
    let wrong = random_token();
    secrets.push(Secret::text("a wrong token", &wrong));
    brought.token = wrong.clone();
    heard.add(&brought.put(&job));
    for headers in [
        [("authorization", format!("Bearer {wrong}")), ("content-type", JOB_INIT.to_owned())],
        [("dap-auth-token", wrong.clone()), ("content-type", JOB_INIT.to_owned())],
        [("authorization", wrong.clone()), ("cf-ray", wrong.clone() + "!")],
    ] {
        let headers: Vec<(&str, &str)> = headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
        for path in
            [timed.shares_path(), timed.job_path(&job.id), "/admin/tasks".into(), "/metrics".into()]
        {
            for method in ["PUT", "POST", "GET"] {
                heard.add(&timed.client.ask(method, &path, &headers, Some(b"{")));
            }
        }
    }

    // The admin API, rightly.
    let keys = HpkeKeypair::derive(HpkeConfigId(99), HpkeKem::P256HkdfSha256, &random::<32>())
        .expect("enough randomness");
    server.admin().import_hpke_key(&keys, true, false).expect("a key");
    secrets.push(Secret::bytes("an imported private key", keys.private_key()));
    let second = random_token();
    secrets.push(Secret::text("a second token", &second));
    let task = format!("/admin/tasks/{}", timed.task_id);
    let token = json!({ "leader_token": second }).to_string();
    for (method, path, body) in [
        ("POST", format!("{task}/leader_tokens"), Some(token.as_str())),
        ("GET", format!("{task}/leader_tokens"), None),
        ("GET", task.clone(), None),
        ("GET", format!("{task}/status"), None),
        ("GET", "/admin/tasks".to_owned(), None),
        ("GET", "/admin/hpke_keys".to_owned(), None),
        ("GET", "/admin/hpke_policy".to_owned(), None),
        ("POST", "/admin/hpke_rotation".to_owned(), Some("{}")),
        ("GET", "/admin/taskprov_peers".to_owned(), None),
        ("GET", "/admin/secrets".to_owned(), None),
        ("POST", "/admin/secrets/reseal".to_owned(), Some("{}")),
        ("GET", "/metrics".to_owned(), None),
        ("DELETE", format!("{task}/leader_tokens"), Some(token.as_str())),
    ] {
        let answer = server.admin_ask(method, &path, body);
        assert!(answer.status < 300, "{method} {path}: {}", answer.text());
        heard.add(&answer);
    }
    // And wrongly: secrets where they do not belong.
    let misplaced = random_token();
    secrets.push(Secret::text("a misplaced secret", &misplaced));
    let spec = json!(timed.spec);
    let mut with_a_wrong_key = spec.clone();
    with_a_wrong_key["verify_key"] = json!([misplaced]);
    let mut with_a_wrong_field = spec;
    with_a_wrong_field[&misplaced] = json!(1);
    for (path, body) in [
        ("/admin/tasks", with_a_wrong_key.to_string()),
        ("/admin/tasks", with_a_wrong_field.to_string()),
        ("/admin/tasks", format!("\"{misplaced}\"")),
        ("/admin/hpke_keys", json!({ "private_key": misplaced }).to_string()),
        ("/admin/hpke_keys", json!({ "kem": misplaced }).to_string()),
        ("/admin/taskprov_peers", json!({ "verify_key_init": misplaced }).to_string()),
        (&format!("{task}/leader_tokens"), json!({ "name": misplaced }).to_string()),
    ] {
        let answer = server.admin_ask("POST", path, Some(&body));
        assert!((400..500).contains(&answer.status), "{path}: {}", answer.text());
        heard.add(&answer);
    }
    heard.add(&server.client().get("/v09/hpke_config"));
    heard.add(&server.client().get("/healthz"));

    // Our own faults, and a deletion.
    server.plan(&[(0, "lose_answer"), (1, "lose_answer"), (2, "lose_answer")]);
    heard.add(
        &chosen.put(&chosen.batch_job(BatchId::new([6; 32]), &chosen.sums(&[1], chosen.time(0)))),
    );
    server.plan(&[]);
    heard.add(&server.client().get("/internal/test/panic"));
    heard.add(&server.admin_ask("DELETE", &format!("{task}?purge_after=0"), None));

    let log = server.stop_and_read_log();
    let lines = log.lines().filter(|line| line.starts_with("{\"request\":")).count();
    assert!(lines > 60, "the log is not all there: {lines} lines");
    assert!(heard.0.len() > 10_000);
    for secret in &secrets {
        assert!(!secret.is_in(&heard.0), "{} was in an answer", secret.name);
        if let Some(line) = log.lines().find(|line| secret.is_in(line.as_bytes())) {
            panic!("{} is in the log: {line}", secret.name);
        }
    }
    assert!(secrets.len() > 15);
}
