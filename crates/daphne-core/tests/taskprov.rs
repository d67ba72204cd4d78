//! Tasks that a leader brings along: published vectors, opting in and out, peers, and the report extension.
#![cfg(not(target_arch = "wasm32"))]

use daphne_core::{
    aggregate::{
        helper::{Examined, HelperJob, HpkeKeyring},
        leader::LeaderTask,
    },
    b64,
    batch::BatchMode,
    codec::DecodeError,
    error::{Abort, AbortKind, ReportError},
    hpke::{HpkeKem, HpkeKeypair},
    ids::{HpkeConfigId, TaskId},
    message::{AggregationJobInit, PartialBatchSelector, Report},
    seal::{RootKeys, TokenHash},
    task::{StoredTask, Task, TaskRole, TaskSpec},
    taskprov::{self, Peer, PeerChange, PeerPolicy, PeerSpec, StoredPeer, VerifyKeyInit},
    time::{Duration, Time},
    upload::client::{ClientTask, ReportExtensions, ReportRandomness},
    vdaf::{Measurement, VdafConfig},
    version::DapVersion,
    wire::v09::{
        self, DpMechanism, QueryConfig, TASKPROV_EXTENSION, TaskConfig, TaskQuery, TaskVdaf,
        TaskVdafConfig,
    },
};
use proptest::prelude::*;

const NOW: Time = Time::from_seconds(1_700_000_000);
const LEADER: &str = "https://leader.example/v09/";
const HELPER: &str = "https://helper.example/v09/";
const TOKEN: &str = "a-token-of-a-leader";

fn keypair(n: u8) -> HpkeKeypair {
    HpkeKeypair::derive(HpkeConfigId(n), HpkeKem::X25519HkdfSha256, &[n; 32]).unwrap()
}

fn root_keys() -> RootKeys {
    RootKeys::parse("1=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA").unwrap()
}

fn peer_spec() -> PeerSpec {
    PeerSpec {
        endpoint: LEADER.to_owned(),
        collector_hpke_config: keypair(2).config().clone(),
        verify_key_init: VerifyKeyInit::new([9; 32]),
        leader_tokens: vec![TOKEN.to_owned()],
        leader_token_hashes: vec![],
        policy: PeerPolicy::default(),
    }
}

fn peer() -> Peer {
    peer_spec().check(NOW).unwrap()
}

/// A task that `peer()` may bring.
fn config() -> TaskConfig<'static> {
    TaskConfig {
        task_info: b"foobar",
        leader_aggregator_endpoint: LEADER,
        helper_aggregator_endpoint: HELPER,
        query_config: QueryConfig {
            time_precision: Duration::from_seconds(3_600),
            max_batch_query_count: 1,
            min_batch_size: 10,
            query: TaskQuery::TimeInterval,
        },
        task_expiration: NOW.saturating_add(Duration::from_seconds(86_400)),
        vdaf_config: TaskVdafConfig {
            dp_mechanism: DpMechanism::None,
            vdaf: TaskVdaf::Sum { bits: 8 },
        },
    }
}

fn opt_in(config: &TaskConfig<'_>, peer: &Peer) -> Result<Task, Abort> {
    let id = taskprov::task_id(&config.encode().unwrap());
    taskprov::opt_in(config, id, peer, NOW, 1)
}

#[track_caller]
fn opts_out(config: &TaskConfig<'_>, peer: &Peer, why: &str) {
    let abort = opt_in(config, peer).unwrap_err();
    assert_eq!(abort.kind, AbortKind::InvalidTask);
    assert!(abort.detail.contains(why), "{}", abort.detail);
}

fn unhex<const N: usize>(hex: &str) -> [u8; N] {
    std::array::from_fn(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap())
}

/// A published example, whose hash is known.
#[test]
fn the_id_is_the_hash_of_the_parameters() {
    let example = TaskConfig {
        task_info: b"foobar",
        leader_aggregator_endpoint: "https://example.com/",
        helper_aggregator_endpoint: "https://another.example.com/",
        query_config: QueryConfig {
            time_precision: Duration::from_seconds(0xAAAA),
            max_batch_query_count: 0xBBBB,
            min_batch_size: 0xCCCC,
            query: TaskQuery::FixedSize { max_batch_size: 0xDDDD },
        },
        task_expiration: Time::from_seconds(0xEEEE),
        vdaf_config: TaskVdafConfig { dp_mechanism: DpMechanism::None, vdaf: TaskVdaf::Count },
    };
    let bytes = example.encode().unwrap();
    assert_eq!(bytes.len(), 97);
    let id: TaskId = "WkoamwvyPOT81DlLUGrOrD0n5r88STy2UMzm-5o64_Y".parse().unwrap();
    assert_eq!(taskprov::task_id(&bytes), id);
    let header = taskprov::decode_header(&b64::encode(&bytes)).unwrap();
    assert_eq!(taskprov::advertised(&header, &id), Ok(example));
}

/// A published example of a derived key, and its half for the VDAFs with shorter ones.
#[test]
fn verify_keys_are_derived_from_the_shared_secret() {
    let id = TaskId::new(unhex("b4769bb063a8b3312af74297f30fdbf8e0b71c2eb2481f591d1d7de66a4ce34f"));
    let init = VerifyKeyInit::new(unhex(
        "1a2a3f1bebb4bbe455eaacee291a0f32d7e1bc6c751005607b81dac3a7da761d",
    ));
    let key: [u8; 32] = unhex("fbd17db5390f949ee32d2634dc499f5b91287bcc317c0761dd04e835c2ab1333");
    assert_eq!(*init.verify_key(&id, 32), key);
    assert_eq!(*init.verify_key(&id, 16), key[..16]);
    assert_eq!(format!("{init:?}"), "VerifyKeyInit");
}

#[test]
fn a_header_is_malformed_before_it_is_another_tasks() {
    let bytes = config().encode().unwrap();
    let id = taskprov::task_id(&bytes);
    let text = b64::encode(&bytes);
    for bad in [format!("{text}="), format!(" {text}"), format!("{text}, {text}"), "+".to_owned()] {
        assert_eq!(taskprov::decode_header(&bad).unwrap_err().kind, AbortKind::InvalidMessage);
    }
    let longest = "A".repeat(taskprov::HEADER_CHARS_MAX);
    assert!(taskprov::decode_header(&longest).is_ok());
    let longer = format!("{longest}AAAA");
    assert_eq!(taskprov::decode_header(&longer).unwrap_err().kind, AbortKind::InvalidMessage);
    assert!(taskprov::decode_header("").is_ok());

    let other = TaskId::new([1; 32]);
    for (bytes, id, kind) in [
        (&bytes[..], &other, AbortKind::UnrecognizedTask),
        (&bytes[..bytes.len() - 1], &other, AbortKind::InvalidMessage),
        (&bytes[..bytes.len() - 1], &id, AbortKind::InvalidMessage),
        (&[], &id, AbortKind::InvalidMessage),
    ] {
        assert_eq!(taskprov::advertised(bytes, id).unwrap_err().kind, kind);
    }
}

#[test]
fn urls_and_task_info_are_not_empty_and_urls_are_visible_ascii() {
    let good = config();
    for bad in [
        TaskConfig { task_info: b"", ..good },
        TaskConfig { leader_aggregator_endpoint: "", ..good },
        TaskConfig { helper_aggregator_endpoint: "", ..good },
        TaskConfig { leader_aggregator_endpoint: "https://h\u{e4}lper/", ..good },
        TaskConfig { leader_aggregator_endpoint: "https://a b/", ..good },
    ] {
        assert!(bad.encode().is_err());
    }
    let bytes = good.encode().unwrap();
    // The first character of the leader's URL, after the information and two lengths.
    for wrong in [0x80, b' ', 0x7f] {
        let mut bytes = bytes.clone();
        bytes[1 + 6 + 2] = wrong;
        assert!(matches!(TaskConfig::decode(&bytes), Err(DecodeError::Invalid(_))));
    }
}

#[test]
fn a_task_is_what_its_leader_says_and_its_peer_adds() {
    let policy = PeerPolicy {
        report_expiry_age: Duration::from_seconds(7_200),
        tolerable_clock_skew: Duration::from_seconds(60),
        shards: 3,
        buckets_per_group: Some(2),
        ..PeerPolicy::default()
    };
    let peer = PeerSpec { policy, ..peer_spec() }.check(NOW).unwrap();
    let config = config();
    let task = opt_in(&config, &peer).unwrap();
    let id = taskprov::task_id(&config.encode().unwrap());
    let p = &task.parameters;
    assert_eq!(p.task_id, id);
    assert_eq!(p.vdaf, VdafConfig::Prio3Sum { max_measurement: 255 });
    assert_eq!((p.batch_mode, p.max_batch_size), (BatchMode::TimeInterval, None));
    assert_eq!((p.min_batch_size, p.max_batch_query_count), (10, 1));
    assert_eq!(p.time_precision, config.query_config.time_precision);
    assert_eq!(p.task_expiration, Some(config.task_expiration));
    assert_eq!((p.shards, p.buckets_per_group), (3, 2));
    assert_eq!(p.report_expiry_age, Duration::from_seconds(7_200));
    assert_eq!(p.tolerable_clock_skew, Duration::from_seconds(60));
    assert_eq!(p.collector_hpke_config, *keypair(2).config());
    let origin = p.taskprov.as_ref().unwrap();
    assert_eq!((origin.leader_url.as_str(), &origin.task_info[..]), (LEADER, &b"foobar"[..]));
    assert_eq!(*task.verify_key.as_bytes(), *peer.verify_key_init.verify_key(&id, 16));
    assert_eq!(task.leader_token_hashes, []);
    assert!(!task.accepts_leader_token(TOKEN), "its leader has the tokens of the peer");
    // A time group has no meaning where the leader selects.
    let query = TaskQuery::FixedSize { max_batch_size: 0 };
    let query_config = QueryConfig { query, ..config.query_config };
    let selected = opt_in(&TaskConfig { query_config, ..config }, &peer).unwrap().parameters;
    assert_eq!((selected.max_batch_size, selected.buckets_per_group), (None, 0));
}

#[test]
fn what_a_leader_advertises_is_what_we_opt_into() {
    let vdafs = [
        VdafConfig::Prio3Count,
        VdafConfig::Prio3Sum { max_measurement: u64::MAX },
        VdafConfig::Prio3SumVec { length: 5, max_measurement: 1, chunk_length: 2 },
        VdafConfig::Prio3Histogram { length: 7, chunk_length: 3 },
        VdafConfig::Prio3SumVecField64MultiproofHmacSha256Aes128 {
            length: 4,
            max_measurement: 255,
            chunk_length: 3,
            proofs: 3,
        },
        VdafConfig::Poplar1 { bits: 256 },
    ];
    let modes = [
        (BatchMode::TimeInterval, None),
        (BatchMode::LeaderSelected, None),
        (BatchMode::LeaderSelected, Some(100)),
    ];
    for vdaf in vdafs {
        for (batch_mode, max_batch_size) in modes {
            let spec = TaskSpec {
                task_id: None,
                version: DapVersion::V09,
                role: TaskRole::Helper,
                task_configuration: Vec::new(),
                batch_mode,
                max_batch_size,
                vdaf,
                verify_key: vec![],
                leader_token: None,
                leader_token_hash: None,
                collector_hpke_config: keypair(2).config().clone(),
                min_batch_size: 20,
                time_precision: Duration::from_seconds(60),
                max_batch_query_count: 1,
                task_expiration: Some(NOW),
                report_expiry_age: Duration::from_seconds(7_200),
                tolerable_clock_skew: Duration::from_seconds(60),
                shards: 1,
                buckets_per_group: None,
            };
            let bytes = taskprov::advertise(&spec, b"x", LEADER, HELPER).unwrap();
            let id = taskprov::task_id(&bytes);
            let config = taskprov::advertised(&bytes, &id).unwrap();
            let task = taskprov::opt_in(&config, id, &peer(), NOW, 1).unwrap().parameters;
            assert_eq!((task.task_id, task.vdaf), (id, vdaf));
            assert_eq!((task.batch_mode, task.max_batch_size), (batch_mode, max_batch_size));
            assert_eq!((task.min_batch_size, task.max_batch_query_count), (20, 1));
            assert_eq!(task.time_precision, spec.time_precision);
            assert_eq!(task.task_expiration, spec.task_expiration);
            for (wrong, info) in [
                (TaskSpec { task_expiration: None, ..spec.clone() }, &b"x"[..]),
                (TaskSpec { min_batch_size: 1 << 32, ..spec.clone() }, b"x"),
                (TaskSpec { max_batch_query_count: 1 << 16, ..spec.clone() }, b"x"),
                (
                    TaskSpec {
                        vdaf: VdafConfig::Prio3MultihotCountVec {
                            length: 4,
                            max_weight: 2,
                            chunk_length: 2,
                        },
                        ..spec.clone()
                    },
                    b"x",
                ),
                (spec, &[0; 256]),
            ] {
                assert!(taskprov::advertise(&wrong, info, LEADER, HELPER).is_err());
            }
        }
    }
}

#[test]
fn what_is_not_supported_opts_out() {
    let good = config();
    opt_in(&good, &peer()).unwrap();
    let vdaf =
        |vdaf| TaskConfig { vdaf_config: TaskVdafConfig { vdaf, ..good.vdaf_config }, ..good };
    let unsupported = "the VDAF is not supported";
    opts_out(&vdaf(TaskVdaf::Unknown { vdaf_type: 4, rest: &[] }), &peer(), unsupported);
    for (bad, why) in [
        (TaskVdaf::Sum { bits: 0 }, "1 to 64 bits"),
        (TaskVdaf::Sum { bits: 65 }, "1 to 64 bits"),
        (TaskVdaf::Poplar1 { bits: 0 }, "bits must"),
        (TaskVdaf::Poplar1 { bits: u16::MAX }, "bits must"),
        (TaskVdaf::Histogram { length: 0, chunk_length: 1 }, "length must"),
        (TaskVdaf::Histogram { length: 1, chunk_length: 0 }, "chunk_length must"),
        (TaskVdaf::Histogram { length: u32::MAX, chunk_length: u32::MAX }, "longer than"),
        (TaskVdaf::SumVec { length: 1, bits: 64, chunk_length: u32::MAX }, "longer than"),
        (
            TaskVdaf::SumVecField64Multiproof { length: 1, bits: 1, chunk_length: 1, proofs: 255 },
            "proofs must",
        ),
    ] {
        opts_out(&vdaf(bad), &peer(), why);
    }
    for mechanism in [0, 5, 255] {
        let dp_mechanism = DpMechanism::Unknown { mechanism, rest: &[1, 2] };
        let vdaf_config = TaskVdafConfig { dp_mechanism, ..good.vdaf_config };
        opts_out(&TaskConfig { vdaf_config, ..good }, &peer(), "differential privacy");
    }
    let query = |change: fn(&mut QueryConfig<'_>)| {
        let mut query_config = good.query_config;
        change(&mut query_config);
        TaskConfig { query_config, ..good }
    };
    for query_type in [0, 3, 255] {
        let query = TaskQuery::Unknown { query_type, rest: &[] };
        let query_config = QueryConfig { query, ..good.query_config };
        opts_out(&TaskConfig { query_config, ..good }, &peer(), "query type");
    }
    for (bad, why) in [
        (query(|q| q.time_precision = Duration::from_seconds(0)), "time_precision"),
        (query(|q| q.time_precision = Duration::from_seconds(u64::MAX)), "time_precision"),
        (query(|q| q.time_precision = Duration::from_seconds(20 * 86_400)), "report_expiry_age"),
        (query(|q| q.min_batch_size = 1), "min_batch_size"),
        (query(|q| q.max_batch_query_count = 0), "max_batch_query_count"),
        (query(|q| q.max_batch_query_count = 2), "max_batch_query_count"),
        (query(|q| q.query = TaskQuery::FixedSize { max_batch_size: 9 }), "max_batch_size"),
    ] {
        opts_out(&bad, &peer(), why);
    }
}

#[test]
fn a_task_that_is_over_opts_out() {
    let second = Duration::from_seconds(1);
    opt_in(&TaskConfig { task_expiration: NOW, ..config() }, &peer()).unwrap();
    let over = TaskConfig { task_expiration: NOW.saturating_sub(second), ..config() };
    opts_out(&over, &peer(), "expired");
    let endless = TaskConfig { task_expiration: Time::from_seconds(u64::MAX), ..config() };
    opt_in(&endless, &peer()).unwrap();
}

#[test]
fn what_a_peer_may_not_ask_opts_out() {
    let with = |policy| PeerSpec { policy, ..peer_spec() }.check(NOW).unwrap();
    let day = Duration::from_seconds(86_400);
    let min = |n| with(PeerPolicy { min_batch_size_min: Some(n), ..PeerPolicy::default() });
    opt_in(&config(), &min(10)).unwrap();
    opts_out(&config(), &min(11), "min_batch_size");
    let queries =
        |n| with(PeerPolicy { max_batch_query_count_max: Some(n), ..PeerPolicy::default() });
    opt_in(&config(), &queries(1)).unwrap();
    opts_out(&config(), &queries(0), "max_batch_query_count");
    let lifetime = |d| with(PeerPolicy { lifetime_max: Some(d), ..PeerPolicy::default() });
    opt_in(&config(), &lifetime(day)).unwrap();
    opts_out(&config(), &lifetime(Duration::from_seconds(86_399)), "later");
    let helper =
        |url: &str| with(PeerPolicy { helper_url: Some(url.into()), ..PeerPolicy::default() });
    opt_in(&config(), &helper(HELPER)).unwrap();
    opts_out(&config(), &helper("https://helper.example/v09"), "helper");
}

#[test]
fn a_stored_task_says_where_it_came_from_and_repeats_are_told_by_its_id() {
    let task = opt_in(&config(), &peer()).unwrap();
    let stored = serde_json::to_string(&task.seal(&root_keys(), [3; 12])).unwrap();
    assert!(stored.contains(r#""taskprov":{"leader_url":"https://leader.example/v09/""#));
    let opened = serde_json::from_str::<StoredTask>(&stored).unwrap().open(&root_keys()).unwrap();
    assert_eq!(opened.parameters, task.parameters);
    // Whatever the peer's secret has become meanwhile.
    let other = PeerSpec { verify_key_init: VerifyKeyInit::new([8; 32]), ..peer_spec() };
    let later = opt_in(&config(), &other.check(NOW).unwrap()).unwrap();
    assert_ne!(later.verify_key.as_bytes(), task.verify_key.as_bytes());
    assert_eq!(later.identity(), task.identity());
    let another = opt_in(&TaskConfig { task_info: b"x", ..config() }, &peer()).unwrap();
    assert_ne!(another.identity(), task.identity());
}

// Peers.

#[test]
fn a_peer_that_is_not_understood_is_refused() {
    let refused = |change: fn(&mut PeerSpec), why: &str| {
        let mut spec = peer_spec();
        change(&mut spec);
        let error = spec.check(NOW).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    };
    refused(|s| s.endpoint = "leader.example".into(), "endpoint must");
    refused(|s| s.endpoint = "https://".into(), "endpoint must");
    refused(|s| s.endpoint = "https://a b/".into(), "endpoint must");
    refused(|s| s.endpoint = format!("https://{}", "a".repeat(1_024)), "endpoint must");
    refused(|s| s.policy.helper_url = Some("helper".into()), "helper_url must");
    refused(|s| s.leader_tokens.clear(), "at least one leader token");
    refused(|s| s.leader_tokens.push("short".into()), "leader_token must");
    refused(|s| s.collector_hpke_config.public_key.clear(), "collector_hpke_config");
    refused(|s| s.policy.shards = 0, "shards");
    refused(|s| s.policy.shards = 65, "shards");
    refused(|s| s.policy.tolerable_clock_skew = Duration::from_seconds(u64::MAX), "skew");
    refused(|s| s.policy.report_expiry_age = Duration::from_seconds(0), "report_expiry_age");
    refused(
        |s| s.leader_token_hashes = (0..8).map(|n| TokenHash::of(&n.to_string())).collect(),
        "8 leader tokens",
    );
    // A token that is given twice is one.
    let mut spec = peer_spec();
    spec.leader_token_hashes = vec![TokenHash::of(TOKEN)];
    assert_eq!(spec.check(NOW).unwrap().leader_tokens.len(), 1);
}

#[test]
fn a_peer_is_kept_sealed_and_shown_without_secrets() {
    let peer = peer();
    let stored = peer.seal(&root_keys(), [4; 12]);
    let text = serde_json::to_string(&stored).unwrap();
    assert_eq!(text, include_str!("vectors/stored-peer-1.json").trim());
    let kept: StoredPeer = serde_json::from_str(&text).unwrap();
    assert_eq!(kept, stored);
    assert!(kept.open(&root_keys()).unwrap().is_repeated_by(&peer));
    assert!(kept.accepts_leader_token(TOKEN) && !kept.accepts_leader_token("another"));
    let secret = serde_json::to_string(&peer.verify_key_init).unwrap();
    let hash = serde_json::to_string(&TokenHash::of(TOKEN)).unwrap();
    let view = serde_json::to_string(&kept.view()).unwrap();
    for hidden in [secret, hash, "verify".to_owned(), TOKEN.to_owned()] {
        assert!(!view.contains(hidden.trim_matches('"')), "{hidden} in {view}");
    }
    assert!(!format!("{peer:?}").contains("9, 9"));
    // Another peer's secret does not open in its place.
    let mut moved = kept;
    moved.parameters.endpoint.push('x');
    assert!(moved.open(&root_keys()).is_err());
}

#[test]
fn a_peer_is_changed_in_parts() {
    let keys = root_keys();
    let stored = peer().seal(&keys, [4; 12]);
    let change =
        |stored: &StoredPeer, change: PeerChange| stored.changed(change, &keys, [5; 12], NOW);
    let second = "another-token-of-it".to_owned();
    let add = PeerChange { add_leader_token: Some(second.clone()), ..PeerChange::default() };
    let both = change(&stored, add.clone()).unwrap();
    assert!(both.accepts_leader_token(TOKEN) && both.accepts_leader_token(&second));
    assert_eq!(change(&both, add).unwrap(), both, "a repeat");
    let [first, _] = &both.view().leader_tokens[..] else { panic!("two tokens") };
    let remove =
        PeerChange { remove_leader_token: Some(first.name.clone()), ..PeerChange::default() };
    let rotated = change(&both, remove.clone()).unwrap();
    assert!(!rotated.accepts_leader_token(TOKEN) && rotated.accepts_leader_token(&second));
    let error = |stored, change| self::change_error(stored, change, &keys);
    assert!(error(&rotated, remove.clone()).contains("no leader token of that name"));
    assert!(error(&stored, remove).contains("at least one"));
    let short = PeerChange { add_leader_token: Some("short".into()), ..PeerChange::default() };
    assert!(error(&stored, short).contains("leader_token must"));
    let policy = PeerPolicy { shards: 99, ..PeerPolicy::default() };
    let policy = PeerChange { policy: Some(policy), ..PeerChange::default() };
    assert!(error(&stored, policy).contains("shards"));

    let init = VerifyKeyInit::new([1; 32]);
    let replaced = change(
        &stored,
        PeerChange { verify_key_init: Some(init.clone()), ..PeerChange::default() },
    );
    let replaced = replaced.unwrap().open(&keys).unwrap();
    assert_eq!(replaced.verify_key_init, init);
    assert_eq!(replaced.parameters, stored.parameters);
    assert_eq!(replaced.leader_tokens, stored.leader_tokens);
}

fn change_error(stored: &StoredPeer, change: PeerChange, keys: &RootKeys) -> String {
    stored.changed(change, keys, [5; 12], NOW).unwrap_err().to_string()
}

// Reports.

/// What the helper says of a report with these extensions.
fn examined(task: &Task, extensions: &[(u16, &[u8])]) -> Result<(), ReportError> {
    let (leader_keys, helper_keys) = (keypair(3), keypair(4));
    let client = ClientTask {
        version: DapVersion::V09,
        task_configuration: Vec::new(),
        task_id: *task.id(),
        vdaf: task.vdaf.clone(),
        time_precision: task.parameters.time_precision,
        leader_hpke_config: leader_keys.config().clone(),
        helper_hpke_config: helper_keys.config().clone(),
    };
    let random =
        ReportRandomness { report_id: [1; 16], leader_seed: [2; 32], helper_seed: [3; 32] };
    let extensions = ReportExtensions { public: &[], private: extensions };
    let report =
        client.report_with_extensions(&Measurement::Sum(7), NOW, extensions, &random).unwrap();
    let report: Report<'_> = v09::Report::decode(&report).unwrap().into();
    let leader = LeaderTask {
        version: DapVersion::V09,
        task_configuration: Vec::new(),
        task_id: *task.id(),
        vdaf: task.vdaf.clone(),
        verify_key: task.verify_key.clone(),
        time_precision: task.parameters.time_precision,
    };
    let timed = PartialBatchSelector::TimeInterval;
    let param = task.vdaf.decode_agg_param(&[]).unwrap();
    let (job, _) = leader.begin_job(&leader_keys, &param, timed, &[report]).unwrap();
    let job = job.unwrap();
    let init: AggregationJobInit<'_> =
        v09::AggregationJobInitReq::decode(job.request()).unwrap().into();
    let ring = HpkeKeyring::new(vec![helper_keys]);
    let helper = HelperJob::new(task, &ring, NOW, &init).unwrap();
    match helper.examine(0).0 {
        Examined::Owned(owned) => owned.verified.map(|_| ()).map_err(|f| f.report_error()),
        Examined::Rejected(failure) => Err(failure.report_error()),
    }
}

#[test]
fn a_report_carries_the_extension_exactly_if_its_task_came_so() {
    const BIND: (u16, &[u8]) = (TASKPROV_EXTENSION, &[]);
    let brought = opt_in(&config(), &peer()).unwrap();
    let mut created = brought.clone();
    created.parameters.taskprov = None;
    let invalid = Err(ReportError::InvalidMessage);
    assert_eq!(examined(&brought, &[BIND]), Ok(()));
    assert_eq!(examined(&created, &[]), Ok(()));
    assert_eq!(examined(&brought, &[]), invalid, "missing");
    assert_eq!(examined(&created, &[BIND]), invalid, "unknown");
    for bad in [
        &[BIND, BIND][..],
        &[(TASKPROV_EXTENSION, &[0])],
        &[(0, &[])],
        &[(0xFF01, &[])],
        &[BIND, (0, &[])],
        &[(0, &[]), BIND],
        &[BIND, (TASKPROV_EXTENSION, &[0])],
    ] {
        assert_eq!(examined(&brought, bad), invalid, "{bad:?}");
        assert_eq!(examined(&created, bad), invalid, "{bad:?}");
    }
}

// Anything.

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), Just(1), Just(3_600), Just(u64::MAX), 0..1_000_000_u64, any::<u64>()]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Every parameter a leader can choose ends in a task or in opting out, and such a task has sizes that can be held.
    #[test]
    fn whatever_a_leader_asks_is_a_task_or_is_refused(
        n in [number(), number(), number(), number(), number()],
        bits in any::<u8>(),
        proofs in prop_oneof![Just(2_u8), any::<u8>()],
        kind in 0..7_u8,
        shards in 1..=64_u16,
    ) {
        let [precision, expiration, size, length, chunk] = n;
        let (length, chunk_length) = (length as u32, chunk as u32);
        let good = config();
        let config = TaskConfig {
            query_config: QueryConfig {
                time_precision: Duration::from_seconds(precision),
                max_batch_query_count: u16::from(bits & 1),
                min_batch_size: size as u32,
                query: match kind % 2 {
                    0 => TaskQuery::TimeInterval,
                    _ => TaskQuery::FixedSize { max_batch_size: chunk as u32 },
                },
            },
            task_expiration: Time::from_seconds(expiration),
            vdaf_config: TaskVdafConfig {
                dp_mechanism: DpMechanism::None,
                vdaf: match kind {
                    0 => TaskVdaf::Count,
                    1 => TaskVdaf::Sum { bits },
                    2 => TaskVdaf::SumVec { length, bits, chunk_length },
                    3 => TaskVdaf::Histogram { length, chunk_length },
                    4 => TaskVdaf::SumVecField64Multiproof { length, bits, chunk_length, proofs },
                    5 => TaskVdaf::Poplar1 { bits: length as u16 },
                    _ => TaskVdaf::Unknown { vdaf_type: length | 0x8000_0000, rest: &[] },
                },
            },
            ..good
        };
        let policy = PeerPolicy { shards, ..PeerPolicy::default() };
        let peer = PeerSpec { policy, ..peer_spec() }.check(NOW).unwrap();
        match opt_in(&config, &peer) {
            Ok(task) => {
                prop_assert!(usize::from(shards) * task.vdaf.agg_share_len_max() <= 8 << 20);
                let _ = task.parameters.objects();
            }
            Err(abort) => prop_assert_eq!(abort.kind, AbortKind::InvalidTask),
        }
    }
}
