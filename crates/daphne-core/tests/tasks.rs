//! Tasks that an operator may not create.
#![cfg(not(target_arch = "wasm32"))]

use daphne_core::{
    batch::BatchMode,
    hpke::{HpkeKem, HpkeKeypair},
    ids::HpkeConfigId,
    seal::TokenHash,
    task::{TaskRole, TaskSpec},
    time::Duration,
    vdaf::VdafConfig,
    version::DapVersion,
};

#[test]
fn tasks_that_could_not_be_served_are_refused() {
    let collector =
        HpkeKeypair::derive(HpkeConfigId(7), HpkeKem::X25519HkdfSha256, &[7; 32]).unwrap();
    let spec = || TaskSpec {
        task_id: None,
        version: DapVersion::V09,
        role: TaskRole::Helper,
        task_configuration: Vec::new(),
        batch_mode: BatchMode::TimeInterval,
        max_batch_size: None,
        vdaf: VdafConfig::Prio3Count,
        verify_key: vec![1; 16],
        leader_token: None,
        leader_token_hash: Some(TokenHash::of("token")),
        collector_hpke_config: collector.config().clone(),
        min_batch_size: 2,
        time_precision: Duration::from_seconds(3_600),
        max_batch_query_count: 1,
        task_expiration: None,
        report_expiry_age: Duration::from_seconds(14 * 86_400),
        tolerable_clock_skew: Duration::from_seconds(300),
        shards: 1,
        buckets_per_group: None,
    };
    assert!(spec().check(1).is_ok());
    type Change = fn(&mut TaskSpec);
    let changes: [(&str, Change); 15] = [
        ("visible ASCII", |s| {
            s.leader_token_hash = None;
            s.leader_token = Some("aaaa aaaa aaaa aaaa".to_owned());
        }),
        ("public key", |s| s.collector_hpke_config.public_key = vec![1, 2, 3]),
        ("public key", |s| s.collector_hpke_config.public_key = vec![0; 32]),
        ("algorithm", |s| s.collector_hpke_config.kem = HpkeKem::Other(9)),
        ("min_batch_size", |s| s.min_batch_size = 1),
        ("time_precision", |s| s.time_precision = Duration::from_seconds(0)),
        ("shards", |s| s.shards = 0),
        ("shards", |s| s.shards = 65),
        ("shards", |s| {
            s.shards = 64;
            s.vdaf =
                VdafConfig::Prio3SumVec { max_measurement: 1, length: 50_000, chunk_length: 224 };
        }),
        ("tolerable_clock_skew", |s| s.tolerable_clock_skew = Duration::from_seconds(86_401)),
        ("report_expiry_age", |s| s.report_expiry_age = Duration::from_seconds(u64::MAX)),
        ("report_expiry_age", |s| s.report_expiry_age = Duration::from_seconds(1)),
        ("16 bytes", |s| s.verify_key = vec![1; 15]),
        ("task_configuration", |s| s.version = DapVersion::V18),
        ("max_batch_size", |s| s.max_batch_size = Some(10)),
    ];
    for (n, (about, change)) in changes.iter().enumerate() {
        let mut spec = spec();
        change(&mut spec);
        let error = spec.check(1).expect_err(&format!("{n} {about}")).to_string();
        assert!(error.contains(about), "{n}: {error}");
    }
}
