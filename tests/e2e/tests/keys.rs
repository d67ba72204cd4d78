//! HPKE keys: states, import, pins, and what partners see of them.

use std::collections::BTreeMap;

use dapctl::http::ClientError;
use daphne_core::{
    b64,
    batch::BatchMode::{LeaderSelected, TimeInterval},
    codec::Writer,
    error::ReportError,
    hpke::{HpkeConfig, HpkeConfigList, HpkeKem, HpkeKeypair},
    ids::{BatchId, HpkeConfigId, TaskId},
    message::PartialBatchSelector,
    seal::TokenHash,
    store::config_store::keys::{KeyState, Policy},
    time::Duration,
};
use e2e::{
    Books, Server, World,
    server::{HPKE_KEY_ID, random, random_token},
};
use p256::{
    ecdsa::{DerSignature, VerifyingKey, signature::Verifier as _},
    pkcs8::DecodePublicKey as _,
};

const TIMED: PartialBatchSelector = PartialBatchSelector::TimeInterval;

/// What clients get.
fn list(server: &Server) -> Vec<u8> {
    let answer = server.client().get("/v09/hpke_config");
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.body
}

fn encoded(configs: &[&HpkeConfig]) -> Vec<u8> {
    let mut w = Writer::new();
    HpkeConfigList(configs.iter().map(|c| (*c).clone()).collect()).write(&mut w);
    w.finish().unwrap()
}

fn keypair(id: u8) -> HpkeKeypair {
    HpkeKeypair::derive(HpkeConfigId(id), HpkeKem::X25519HkdfSha256, &random::<32>()).unwrap()
}

fn refused<T: std::fmt::Debug>(result: Result<T, ClientError>, status: u16, why: &str) {
    let error = result.unwrap_err();
    assert_eq!(error.problem().map(|p| p.status), Some(status), "{error}");
    assert!(error.to_string().contains(why), "{error}");
}

#[test]
fn an_imported_key_with_id_0_is_published_first_and_its_reports_count() {
    let server = Server::start();
    let admin = server.admin();
    let own = keypair(0);
    let imported = admin.import_hpke_key(&own, true, true).unwrap();
    assert!(imported.created && imported.key.state.is_pinned());
    assert_eq!(list(&server), encoded(&[own.config(), server.hpke_config()]));
    // Whatever other keys do, it stays where it is.
    refused(admin.add_hpke_key(None, None), 409, "compare the whole list");
    let newer = admin.make_hpke_key(None, None, true, true).unwrap().config;
    assert_eq!(list(&server), encoded(&[own.config(), &newer, server.hpke_config()]));
    // Alone, it is what clients byte-compare.
    for id in [newer.id, HPKE_KEY_ID] {
        admin.set_hpke_key_state(id, false, false).unwrap();
    }
    assert_eq!(list(&server), encoded(&[own.config()]));
    let mut world = World::new(&server, TimeInterval, |_| {});
    world.reporter.helper_hpke_config = own.config().clone();
    let mut books = Books::default();
    world.aggregate(TIMED, &world.sums(&[1, 2, 3], world.time(0)), &mut books);
    world.collect(world.interval(0, 1), &books);
    // The same again is no second key; another key with that id is none.
    assert!(!admin.import_hpke_key(&own, true, true).unwrap().created);
    refused(admin.import_hpke_key(&keypair(0), true, false), 409, "another HPKE key has this id");
    refused(admin.set_hpke_key_state(HpkeConfigId(0), false, true), 409, "unpin it first");
}

#[test]
fn reports_are_accepted_by_what_opens_them_and_refused_when_it_is_gone() {
    let server = Server::start();
    let admin = server.admin();
    let [pending, active, expired, gone] =
        [(20, false), (21, true), (22, true), (23, true)].map(|(id, active)| {
            admin.make_hpke_key(Some(HpkeConfigId(id)), None, active, false).unwrap()
        });
    for key in [&expired, &gone] {
        let key = admin.set_hpke_key_state(key.config.id, false, false).unwrap();
        let KeyState::Expired { accepts_until, destroyed_at } = key.state else {
            panic!("{key:?}")
        };
        assert!(key.since < accepts_until && accepts_until < destroyed_at);
    }
    assert_eq!(list(&server), encoded(&[&active.config, server.hpke_config()]));
    let mut world = World::new(&server, TimeInterval, |_| {});
    let mut sealed_to = |config: &HpkeConfig, numbers: &[u64], bucket: u64| {
        world.reporter.helper_hpke_config = config.clone();
        world.sums(numbers, world.time(bucket))
    };
    let mut reports = Vec::new();
    for (n, key) in [&pending, &active, &expired, &gone].into_iter().enumerate() {
        reports.extend(sealed_to(&key.config, &[n as u64, 10 * n as u64], 0));
    }
    let late = sealed_to(&gone.config, &[7], 1);
    let mut books = Books::default();
    let job = world.timed_job(&reports);
    let answer = world.put(&job);
    refused(admin.destroy_hpke_key(gone.config.id, false), 409, "may be repeated");
    assert_eq!(admin.destroy_hpke_key(gone.config.id, true).unwrap().state, KeyState::Destroyed);
    assert_eq!(world.finish(job, &answer, &mut books), []);
    world.collect(world.interval(0, 1), &books);
    // Its code on the wire is 3.
    let job = world.timed_job(&late);
    let answer = world.put(&job);
    assert_eq!(answer.body[answer.body.len() - 2..], [2, 3], "reject, hpke_unknown_config_id");
    let codes: Vec<_> =
        world.finish(job, &answer, &mut books).into_iter().map(|(_, e)| e).collect();
    assert_eq!(codes, [ReportError::HpkeUnknownConfigId]);
    // Its id rests, and the others are as they were.
    refused(admin.add_hpke_key(Some(gone.config.id), None), 409, "less than two hours ago");
    let states: BTreeMap<u8, KeyState> =
        admin.hpke_keys().unwrap().into_iter().map(|key| (key.config.id.0, key.state)).collect();
    assert_eq!(states[&20], KeyState::Pending);
    assert_eq!(states[&23], KeyState::Destroyed);
    assert!(states[&21].is_active() && states[&7].is_active());
}

#[test]
fn the_list_is_the_same_bytes_whatever_happens_to_what_is_not_in_it() {
    let mut server = Server::start();
    let admin = server.admin();
    let pinned = keypair(0);
    admin.import_hpke_key(&pinned, true, true).unwrap();
    let bytes = encoded(&[pinned.config(), server.hpke_config()]);
    let world = World::new(&server, TimeInterval, |_| {});
    let with_task = format!("/v09/hpke_config?task_id={}", world.task_id);
    let check = |server: &Server, what: &str| {
        for path in ["/v09/hpke_config", with_task.as_str()] {
            let answer = server.client().get(path);
            assert_eq!((answer.status, &answer.body), (200, &bytes), "{what}");
            assert_eq!(answer.header("cache-control"), "max-age=86400");
            assert_eq!(answer.header("x-hpke-config-signature"), "");
        }
    };
    check(&server, "as they were made");
    server.restart();
    check(&server, "from the copy in KV");
    let pending = admin.make_hpke_key(None, None, false, false).unwrap().config.id;
    check(&server, "with a pending key");
    admin.set_hpke_key_state(pending, false, false).unwrap();
    check(&server, "with an expired key");
    admin.destroy_hpke_key(pending, true).unwrap();
    check(&server, "with a destroyed key");
    admin.pin_hpke_key(HPKE_KEY_ID, true, false).unwrap();
    check(&server, "with two pinned keys");
    server.kill_workerd();
    check(&server, "after a crash");
    // A rotation of other keys comes after those that are pinned.
    let rotated = admin.rotate_hpke_keys(true).unwrap().config;
    assert_eq!(list(&server), encoded(&[pinned.config(), server.hpke_config(), &rotated]));
    let next = admin.rotate_hpke_keys(true).unwrap().config;
    assert_eq!(list(&server), encoded(&[pinned.config(), server.hpke_config(), &next]));
    let head = server.client().ask("HEAD", "/v09/hpke_config", &[], None);
    assert_eq!((head.status, head.body.len()), (200, 0));
}

#[test]
fn keys_are_changed_by_hand_with_a_sentence_for_each_refusal() {
    let server = Server::start();
    let admin = server.admin();
    let only = HPKE_KEY_ID;
    refused(admin.set_hpke_key_state(only, false, false), 409, "the only published HPKE key");
    refused(admin.destroy_hpke_key(only, true), 409, "expire it first");
    refused(admin.set_hpke_key_state(HpkeConfigId(99), true, false), 404, "no HPKE key");
    let next = admin.make_hpke_key(None, None, false, false).unwrap().config;
    refused(admin.pin_hpke_key(next.id, true, false), 409, "activate it first");
    refused(admin.destroy_hpke_key(next.id, false), 409, "is pending");
    // The pending key is the next one.
    assert_eq!(admin.rotate_hpke_keys(false).unwrap().config, next);
    assert_eq!(list(&server), encoded(&[&next]));
    admin.set_hpke_key_state(only, true, false).unwrap();
    assert_eq!(list(&server), encoded(&[server.hpke_config(), &next]), "activated last");
    // Without a key there is nothing to give to clients, and the leader's jobs go on.
    admin.set_hpke_key_state(next.id, false, false).unwrap();
    admin.set_hpke_key_state(only, false, true).unwrap();
    assert_eq!(server.client().get("/v09/hpke_config").status, 503);
    let world = World::new(&server, TimeInterval, |_| {});
    world.aggregate(TIMED, &world.sums(&[1, 2], world.time(0)), &mut Books::default());
    // Keys that are none, and bodies that say too much or too little.
    let other = keypair(1);
    let config = b64::encode(&encoded(&[other.config()])[2..]);
    let secret = b64::encode(keypair(1).private_key());
    let ask = |body: String| server.admin_ask("POST", "/admin/hpke_keys", Some(&body));
    for body in [
        format!("{{\"config\":\"{config}\",\"private_key\":\"{secret}\"}}"),
        format!("{{\"config\":\"{config}\"}}"),
        format!("{{\"private_key\":\"{secret}\"}}"),
        format!("{{\"config\":\"AAAA\",\"private_key\":\"{secret}\"}}"),
        format!("{{\"config\":\"{config}\",\"private_key\":\"{secret}=\"}}"),
        format!("{{\"config\":\"{config}\",\"private_key\":[\"{secret}\"]}}"),
        format!("{{\"config\":\"{config}\",\"private_key\":\"{secret}\",\"id\":1}}"),
        "{\"pinned\":true}".to_owned(),
        "{\"state\":\"expired\"}".to_owned(),
    ] {
        let answer = ask(body);
        answer.refused_without_type(400);
        assert!(!answer.text().contains(&secret), "{}", answer.text());
    }
    for (path, body) in [
        ("7", "{}"),
        ("7", "{\"state\":\"pending\"}"),
        ("7", "{\"state\":\"active\",\"pinned\":true}"),
        ("256", "{\"state\":\"active\"}"),
        ("x", "{\"state\":\"active\"}"),
    ] {
        let path = format!("/admin/hpke_keys/{path}");
        server.admin_ask("PATCH", &path, Some(body)).refused_without_type(400);
    }
}

#[test]
fn a_schedule_is_turned_on_and_off() {
    let server = Server::start();
    let admin = server.admin();
    assert_eq!(admin.hpke_policy().unwrap().policy, None, "off by default");
    let policy = Policy { active_for: Duration::from_seconds(28 * 86_400), ..Policy::default() };
    let short = Policy { active_for: Duration::from_seconds(60), ..policy };
    refused(admin.set_hpke_policy(Some(&short), false), 400, "active_for must be at least 86400");
    let scheduled = admin.set_hpke_policy(Some(&policy), false).unwrap();
    assert_eq!(scheduled.policy, Some(policy));
    let since = admin.hpke_keys().unwrap()[0].since.as_seconds();
    let next = scheduled.next_change.unwrap().as_seconds();
    assert_eq!(next, since + 28 * 86_400 - 3_600, "a successor, an hour before it is needed");
    assert_eq!(admin.hpke_policy().unwrap(), scheduled);
    // Even by force no client is left without a key.
    admin.set_hpke_key_state(HPKE_KEY_ID, false, true).unwrap();
    let keys = admin.hpke_keys().unwrap();
    assert!(keys[0].state.is_active() && keys[0].config.id != HPKE_KEY_ID);
    assert_eq!(list(&server), encoded(&[&keys[0].config]));
    let pinned = admin.pin_hpke_key(keys[0].config.id, true, false);
    refused(pinned, 409, "turn the schedule off first");
    assert_eq!(admin.set_hpke_policy(None, false).unwrap().policy, None);
    admin.pin_hpke_key(keys[0].config.id, true, false).unwrap();
    refused(admin.set_hpke_policy(Some(&policy), false), 409, "compare the whole list");
    assert_eq!(admin.set_hpke_policy(Some(&policy), true).unwrap().policy, Some(policy));
}

const SIGNING_KEY: &str = "-----BEGIN EC PRIVATE KEY-----\\n\
    MHcCAQEEIPAb7alClyjImO8g+Ms1X1LBJSA4T856/DPsiiC9TEqLoAoGCCqGSM49\\n\
    AwEHoUQDQgAEc/bWY5Jxlcz+unZQrvm3MHgMQB2PLM+OHe6cumjro+h/rN3WsD/6\\n\
    FBgWfNkMgKRPDXN3H4pdAcY44/NHJpJJ6w==\\n\
    -----END EC PRIVATE KEY-----";
const VERIFICATION_KEY: &str = "-----BEGIN PUBLIC KEY-----\n\
    MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEc/bWY5Jxlcz+unZQrvm3MHgMQB2P\n\
    LM+OHe6cumjro+h/rN3WsD/6FBgWfNkMgKRPDXN3H4pdAcY44/NHJpJJ6w==\n\
    -----END PUBLIC KEY-----";

#[test]
fn the_list_is_signed_if_there_is_a_signing_key() {
    let mut server = Server::start();
    server.set_secret("HPKE_CONFIG_SIGNING_KEY", SIGNING_KEY);
    let verifier = VerifyingKey::from_public_key_pem(VERIFICATION_KEY).unwrap();
    let signed = |server: &Server| {
        let answer = server.client().get("/v09/hpke_config");
        let header = answer.header("x-hpke-config-signature").to_owned();
        let signature = DerSignature::from_bytes(&b64::decode(&header).unwrap()).unwrap();
        verifier.verify(&answer.body, &signature).unwrap();
        (header, answer.body)
    };
    let first = signed(&server);
    assert_eq!(signed(&server), first);
    let newer = server.admin().add_hpke_key(None, None).unwrap();
    let second = signed(&server);
    assert_eq!(second.1, encoded(&[&newer, server.hpke_config()]));
    server.restart();
    assert_eq!(signed(&server), second, "byte for byte, by another isolate");
    let head = server.client().ask("HEAD", "/v09/hpke_config", &[], None);
    assert_eq!(head.header("x-hpke-config-signature"), second.0);
    // A key that is none is told to whoever deploys, in one sentence that does not quote it.
    let said = server.refuses_secret("HPKE_CONFIG_SIGNING_KEY", "no such key");
    assert!(
        said.contains("503: {\"detail\":\"HPKE_CONFIG_SIGNING_KEY: the signing key must"),
        "{said}"
    );
    assert!(!said.contains("no such key"), "{said}");
}

#[test]
fn a_leaders_tokens_overlap_while_one_takes_over_from_the_other() {
    let server = Server::start();
    let admin = server.admin();
    let mut world = World::new(&server, LeaderSelected, |_| {});
    let task = world.task_id;
    let works = |world: &mut World, token: &str| {
        world.token = token.to_owned();
        let batch = PartialBatchSelector::LeaderSelected(BatchId::new(random()));
        world.put(&world.job(batch, &world.sums(&[1, 2], world.time(0)))).status
    };
    let (old, new) = (world.token.clone(), random_token());
    assert_eq!((works(&mut world, &old), works(&mut world, &new)), (200, 403));
    let name = |token: &str| TokenHash::of(token).name();
    assert_eq!(admin.leader_tokens(&task).unwrap().unwrap(), [name(&old)]);
    refused(admin.remove_leader_token(&task, &name(&old)), 409, "add its successor first");
    // By the token, and by its hash, which is already there.
    let path = format!("/admin/tasks/{task}/leader_tokens");
    let body = format!("{{\"leader_token\":\"{new}\"}}");
    let answer = server.admin_ask("POST", &path, Some(&body));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let hash = serde_json::to_value(TokenHash::of(&new)).unwrap();
    let hash = hash.as_str().unwrap();
    let tokens = admin.add_leader_token(&task, None, Some(hash)).unwrap().unwrap();
    assert_eq!(tokens, [name(&old), name(&new)]);
    assert_eq!((works(&mut world, &old), works(&mut world, &new)), (200, 200));
    let body = format!("{{\"leader_token\":\"{old}\"}}");
    assert_eq!(server.admin_ask("DELETE", &path, Some(&body)).status, 200);
    // At once in this isolate, which knows what it did.
    assert_eq!((works(&mut world, &old), works(&mut world, &new)), (403, 200));
    refused(admin.remove_leader_token(&task, &name(&old)), 409, "no such leader token");
    // A repeat of the task's creation, which has the old token, is one, and does not bring it back.
    assert!(!admin.create_task(&world.spec).unwrap().created);
    assert_eq!((works(&mut world, &old), works(&mut world, &new)), (403, 200));
    for body in [
        "{}".to_owned(),
        "{\"leader_token\":\"short\"}".to_owned(),
        format!("{{\"leader_token\":\"{new}\",\"leader_token_hash\":\"{hash}\"}}"),
        "{\"leader_token_hash\":\"AAAA\"}".to_owned(),
    ] {
        let answer = server.admin_ask("POST", &path, Some(&body));
        answer.refused_without_type(400);
        assert!(!answer.text().contains(&new), "{}", answer.text());
    }
    let unknown = TaskId::new(random());
    assert_eq!(admin.leader_tokens(&unknown).unwrap(), None);
    assert_eq!(admin.add_leader_token(&unknown, None, Some(hash)).unwrap(), None);
}

#[test]
fn everything_is_sealed_anew_and_the_old_root_key_goes() {
    let mut server = Server::start();
    let admin = server.admin();
    let imported = keypair(0);
    admin.import_hpke_key(&imported, true, false).unwrap();
    let old = World::new(&server, TimeInterval, |_| {});
    let second = format!("2={}", b64::encode(&random::<32>()));
    let both = format!("{},{second}", server.secret("ROOT_KEYS"));
    server.set_secret("ROOT_KEYS", &both);
    let mut world = World::new(&server, TimeInterval, |_| {});
    let needed =
        |kind: &str, of: &[(u32, u64)]| (kind.to_owned(), BTreeMap::from_iter(of.to_vec()));
    let status = admin.secrets_status().unwrap();
    let before = [
        needed("hpke_keys", &[(1, 2)]),
        needed("shard_keys", &[(1, 1), (2, 1)]),
        needed("verify_keys", &[(1, 1), (2, 1)]),
    ];
    assert_eq!(status.needed, BTreeMap::from(before));
    assert_eq!((status.configured, status.newest, status.resealed), (vec![1, 2], 2, 0));
    assert_eq!(admin.reseal_secrets().unwrap().resealed, 3);
    let again = admin.reseal_secrets().unwrap();
    assert_eq!(again.resealed, 0);
    let after = [
        needed("hpke_keys", &[(2, 2)]),
        needed("shard_keys", &[(1, 1), (2, 1)]),
        needed("verify_keys", &[(2, 2)]),
    ];
    assert_eq!(again.needed, BTreeMap::from(after));
    // What was sealed anew is still the same.
    old.aggregate(TIMED, &old.sums(&[1, 2], old.time(0)), &mut Books::default());
    // Its reports are spread with the old root key for as long as it lives.
    assert!(admin.delete_task(&old.task_id, None).unwrap());
    let gone = admin.secrets_status().unwrap();
    assert!(gone.needed.values().all(|versions| versions.keys().eq([&2])), "{gone:?}");
    server.set_secret("ROOT_KEYS", &second);
    assert_eq!(server.client().get("/healthz").status, 200);
    for config in [server.hpke_config(), imported.config()] {
        world.reporter.helper_hpke_config = config.clone();
        let mut books = Books::default();
        let bucket = u64::from(config.id.0);
        world.aggregate(TIMED, &world.sums(&[3, 4], world.time(bucket)), &mut books);
        world.collect(world.interval(bucket, 1), &books);
    }
    assert_eq!(admin.secrets_status().unwrap().configured, [2]);
}

#[test]
fn key_material_is_for_operators_only() {
    let server = Server::start();
    let task = TaskId::new(random());
    for (method, path) in [
        ("PATCH", "/admin/hpke_keys/7".to_owned()),
        ("DELETE", "/admin/hpke_keys/7?force=true".to_owned()),
        ("POST", "/admin/hpke_rotation".to_owned()),
        ("GET", "/admin/hpke_policy".to_owned()),
        ("PUT", "/admin/hpke_policy".to_owned()),
        ("GET", "/admin/secrets".to_owned()),
        ("POST", "/admin/secrets/reseal".to_owned()),
        ("GET", format!("/admin/tasks/{task}/leader_tokens")),
        ("POST", format!("/admin/tasks/{task}/leader_tokens")),
        ("DELETE", format!("/admin/tasks/{task}/leader_tokens")),
    ] {
        let body = (method != "GET").then_some(b"{}".as_slice());
        server.client().ask(method, &path, &[], body).refused_without_type(403);
    }
    for key in server.admin().hpke_keys().unwrap() {
        let shown = serde_json::to_string(&key).unwrap();
        assert!(!shown.contains("private"), "{shown}");
    }
}
