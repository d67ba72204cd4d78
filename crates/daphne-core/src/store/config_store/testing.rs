//! Tasks at rest, for tests.

use crate::{
    b64,
    batch::BatchMode,
    hpke::{HpkeKem, HpkeKeypair},
    ids::{HpkeConfigId, TaskId},
    seal::{RootKeys, TokenHash},
    store::{
        Database as _,
        config_store::{ConfigTables as _, TaskEntry},
    },
    task::{TaskRole, TaskSpec},
    testing::memory::{MemoryConfigTables, MemoryDatabase},
    time::Duration,
    vdaf::VdafConfig,
    version::DapVersion,
};

/// Root keys of these versions, one digit each.
pub(super) fn roots(versions: &str) -> RootKeys {
    let root = |version: char| format!("{version}={}", b64::encode(&[version as u8; 32]));
    RootKeys::parse(&versions.chars().map(root).collect::<Vec<_>>().join(",")).unwrap()
}

/// Creates the task number `n` in the tables. Its leader's token is "token".
pub(super) fn create_task(
    db: &MemoryDatabase<MemoryConfigTables>,
    keys: &RootKeys,
    n: u8,
) -> TaskId {
    let collector =
        HpkeKeypair::derive(HpkeConfigId(1), HpkeKem::X25519HkdfSha256, &[1; 32]).unwrap();
    let spec = TaskSpec {
        task_id: Some(TaskId::new([n; 32])),
        version: DapVersion::V09,
        role: TaskRole::Helper,
        task_configuration: Vec::new(),
        batch_mode: BatchMode::TimeInterval,
        max_batch_size: None,
        vdaf: VdafConfig::Prio3Count,
        verify_key: vec![n; 16],
        leader_token: None,
        leader_token_hash: Some(TokenHash::of("token")),
        collector_hpke_config: collector.config().clone(),
        min_batch_size: 2,
        time_precision: Duration::from_seconds(300),
        max_batch_query_count: 1,
        task_expiration: None,
        report_expiry_age: Duration::from_seconds(u64::from(n) * 86_400),
        tolerable_clock_skew: Duration::from_seconds(300),
        shards: 1,
        buckets_per_group: None,
    };
    let task = spec.check(keys.newest()).unwrap();
    let record = Some(serde_json::to_vec(&task.seal(keys, [n; 12])).unwrap());
    db.transaction(|t| t.put_task(task.id(), &TaskEntry { identity: [n; 32], record })).unwrap();
    *task.id()
}
