//! Files of other aggregators, read by `dapctl` and served by the Worker; and bounds of peers, set and lifted.

use std::path::Path;

use clap::Parser as _;
use dapctl::{Failure, cli::Cli, commands, janus_tasks};
use daphne_core::{
    b64, hpke::HpkeKeypair, store::config_store::keys::KeyState, taskprov::PeerPolicy,
    time::Duration,
};
use e2e::{Peer, Server, server::random, world::keypair};

fn run(server: &Server, args: &[&str]) -> Result<(), Failure> {
    let program =
        ["dapctl", "--url", server.client().base(), "--admin-token", server.admin_token()];
    let cli = Cli::try_parse_from(program.iter().chain(args)).expect("a command line");
    commands::run(&cli)
}

fn task(key: &HpkeKeypair) -> String {
    let collector = keypair(2);
    let (c, k) = (collector.config(), key.config());
    format!(
        "- task_id: {}\n  peer_aggregator_endpoint: https://leader.example/\n  query_type: TimeInterval\n  \
         vdaf: !Prio3Histogram\n    length: 4\n    chunk_length: 2\n  role: Helper\n  vdaf_verify_key: {}\n  \
         max_batch_query_count: 1\n  task_expiration:\n  report_expiry_age:\n  min_batch_size: 100\n  \
         time_precision: 300\n  tolerable_clock_skew: 60\n  collector_hpke_config:\n    id: {}\n    \
         kem_id: X25519HkdfSha256\n    kdf_id: HkdfSha256\n    aead_id: Aes128Gcm\n    public_key: {}\n  \
         aggregator_auth_token_hash:\n    type: Bearer\n    hash: {}\n  hpke_keys:\n  - config:\n      id: {}\n      \
         kem_id: X25519HkdfSha256\n      kdf_id: HkdfSha256\n      aead_id: Aes128Gcm\n      public_key: {}\n    \
         private_key: {}\n",
        b64::encode(&random::<32>()),
        b64::encode(&random::<16>()),
        c.id,
        b64::encode(&c.public_key),
        b64::encode(&random::<32>()),
        k.id,
        b64::encode(&k.public_key),
        b64::encode(key.private_key()),
    )
}

fn write(folder: &Path, text: &str) -> String {
    let path = folder.join("tasks.yaml");
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_helpers_tasks_move_here_with_their_keys_and_an_import_may_be_repeated() {
    let server = Server::start();
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (keypair(41), keypair(42));
    let text = task(&a) + &task(&b) + &task(&a);
    let file = write(folder.path(), &text);
    run(&server, &["task", "import", &file, "--check"]).unwrap();
    assert_eq!(server.admin().all_tasks().unwrap(), []);
    for _ in 0..2 {
        run(&server, &["task", "import", &file]).unwrap();
        let tasks = server.admin().all_tasks().unwrap();
        let mut expected: Vec<_> = janus_tasks::parse(&text, None).unwrap();
        expected.sort_by_key(|task| task.spec.task_id);
        assert_eq!(tasks.len(), 3);
        for (task, expected) in tasks.iter().zip(&expected) {
            assert_eq!(Some(task.task_id), expected.spec.task_id);
            assert_eq!(task.vdaf, expected.spec.vdaf);
            assert_eq!(task.report_expiry_age, Duration::from_seconds(14 * 86_400));
        }
        // They open reports, and are not published: clients of other tasks have no use for them.
        let keys = server.admin().hpke_keys().unwrap();
        for id in [41, 42] {
            let key = keys.iter().find(|key| key.config.id.0 == id).unwrap();
            assert!(matches!(key.state, KeyState::Expired { .. }), "{:?}", key.state);
        }
    }
    run(&server, &["task", "export"]).unwrap();
}

#[test]
fn a_file_with_one_bad_task_creates_none() {
    let server = Server::start();
    let folder = tempfile::tempdir().unwrap();
    let good = task(&keypair(41));
    for (bad, text) in [
        (task(&keypair(42)).replace("role: Helper", "role: Leader"), "task 2 of the file"),
        (task(&keypair(41)), "different HPKE keys with the id 41"),
    ] {
        let file = write(folder.path(), &(good.clone() + &bad));
        let failure = run(&server, &["task", "import", &file]).unwrap_err();
        assert!(failure.to_string().contains(text) && failure.exit_code() == 2, "{failure}");
    }
    assert_eq!(server.admin().all_tasks().unwrap(), []);
    assert_eq!(server.admin().hpke_keys().unwrap().len(), 1);
    let file = write(folder.path(), &(good + &task(&keypair(41))));
    run(&server, &["task", "import", &file, "--no-keys"]).unwrap();
    assert_eq!(server.admin().all_tasks().unwrap().len(), 2);
}

#[test]
fn bounds_of_a_peer_are_set_and_lifted() {
    let server = Server::start();
    let peer = Peer::new(&server, PeerPolicy::default());
    let endpoint = peer.spec.endpoint.as_str();
    let policy = || server.admin().peers().unwrap().remove(0).parameters.policy;
    let set =
        ["--min-batch-size-min", "5", "--lifetime-max", "86400", "--helper-url", "https://h/"];
    run(&server, &[&["peer", "set", endpoint], &set[..]].concat()).unwrap();
    let bound = policy();
    assert_eq!(
        (bound.min_batch_size_min, bound.helper_url.as_deref()),
        (Some(5), Some("https://h/"))
    );
    run(&server, &["peer", "set", endpoint, "--lift", "lifetime-max", "--lift", "helper-url"])
        .unwrap();
    let lifted = policy();
    assert_eq!(
        (lifted.min_batch_size_min, lifted.lifetime_max, lifted.helper_url),
        (Some(5), None, None)
    );
    let both = ["peer", "set", endpoint, "--lifetime-max", "1", "--lift", "lifetime-max"];
    assert_eq!(run(&server, &both).unwrap_err().exit_code(), 2);
}
