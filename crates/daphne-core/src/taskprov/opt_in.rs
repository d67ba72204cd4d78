//! Whether we take part in a task that a leader brings along. taskprov-07 §4.4.

use super::{Peer, TaskOrigin};
use crate::{
    batch::BatchMode,
    error::{Abort, AbortKind},
    ids::TaskId,
    task::{Task, TaskRole, TaskSpec},
    time::Time,
    vdaf::{Vdaf, VdafConfig},
    version::DapVersion,
    wire::v09::{DpMechanism, TaskConfig, TaskQuery, TaskVdaf},
};

/// The task with these parameters, which its leader, who is authenticated as `peer`, brings along. `id` is the hash of
/// their encoding; `shard_key_version` that of the newest root key.
///
/// # Errors
/// We opt out, `invalidTask`: the task is over, asks for what we do not support, or for what the peer may not ask.
pub fn opt_in(
    config: &TaskConfig<'_>,
    id: TaskId,
    peer: &Peer,
    now: Time,
    shard_key_version: u32,
) -> Result<Task, Abort> {
    let policy = &peer.parameters.policy;
    if now > config.task_expiration {
        return Err(opt_out("the task has expired"));
    }
    if policy.lifetime_max.is_some_and(|max| config.task_expiration > now.saturating_add(max)) {
        return Err(opt_out("the task expires later than is accepted here"));
    }
    if policy.helper_url.as_ref().is_some_and(|url| url != config.helper_aggregator_endpoint) {
        return Err(opt_out("the task has another helper"));
    }
    match config.vdaf_config.dp_mechanism {
        DpMechanism::None => {}
        DpMechanism::Unknown { .. } => {
            return Err(opt_out("the differential privacy mechanism is not supported"));
        }
    }
    let (batch_mode, max_batch_size) = match config.query_config.query {
        TaskQuery::TimeInterval => (BatchMode::TimeInterval, None),
        TaskQuery::FixedSize { max_batch_size } => {
            (BatchMode::LeaderSelected, (max_batch_size != 0).then_some(max_batch_size.into()))
        }
        TaskQuery::Unknown { .. } => return Err(opt_out("the query type is not supported")),
    };
    let min_batch_size = u64::from(config.query_config.min_batch_size);
    if policy.min_batch_size_min.is_some_and(|min| min_batch_size < min) {
        return Err(opt_out("min_batch_size is smaller than is accepted here"));
    }
    let max_batch_query_count = u64::from(config.query_config.max_batch_query_count);
    if policy.max_batch_query_count_max.is_some_and(|max| max_batch_query_count > max) {
        return Err(opt_out("max_batch_query_count is larger than is accepted here"));
    }
    let version = DapVersion::V09;
    let vdaf_config = vdaf_config(&config.vdaf_config.vdaf)?;
    let vdaf = Vdaf::new(version.vdaf_draft(), vdaf_config).map_err(|e| opt_out(&e.to_string()))?;
    let spec = TaskSpec {
        task_id: Some(id),
        version,
        role: TaskRole::Helper,
        task_configuration: Vec::new(),
        batch_mode,
        max_batch_size,
        vdaf: vdaf_config,
        verify_key: peer.verify_key_init.verify_key(&id, vdaf.verify_key_len()).to_vec(),
        leader_token: None,
        leader_token_hash: None,
        collector_hpke_config: peer.parameters.collector_hpke_config.clone(),
        min_batch_size,
        time_precision: config.query_config.time_precision,
        max_batch_query_count,
        task_expiration: Some(config.task_expiration),
        report_expiry_age: policy.report_expiry_age,
        tolerable_clock_skew: policy.tolerable_clock_skew,
        shards: policy.shards,
        buckets_per_group: match batch_mode {
            BatchMode::TimeInterval => policy.buckets_per_group,
            BatchMode::LeaderSelected => None,
        },
    };
    let origin = TaskOrigin {
        leader_url: peer.parameters.endpoint.clone(),
        task_info: config.task_info.to_vec(),
    };
    spec.check_brought(origin, shard_key_version).map_err(|e| opt_out(&e.to_string()))
}

fn opt_out(why: &str) -> Abort {
    Abort::new(AbortKind::InvalidTask, why)
}

/// The VDAF as tasks name it.
fn vdaf_config(vdaf: &TaskVdaf<'_>) -> Result<VdafConfig, Abort> {
    let max_measurement = |bits: u8| match bits {
        1..=64 => Ok(u64::MAX >> (64 - bits)),
        _ => Err(opt_out("a measurement must have 1 to 64 bits")),
    };
    Ok(match *vdaf {
        TaskVdaf::Count => VdafConfig::Prio3Count,
        TaskVdaf::Sum { bits } => VdafConfig::Prio3Sum { max_measurement: max_measurement(bits)? },
        TaskVdaf::SumVec { length, bits, chunk_length } => VdafConfig::Prio3SumVec {
            length,
            max_measurement: max_measurement(bits)?,
            chunk_length,
        },
        TaskVdaf::Histogram { length, chunk_length } => {
            VdafConfig::Prio3Histogram { length, chunk_length }
        }
        TaskVdaf::SumVecField64Multiproof { length, bits, chunk_length, proofs } => {
            VdafConfig::Prio3SumVecField64MultiproofHmacSha256Aes128 {
                length,
                max_measurement: max_measurement(bits)?,
                chunk_length,
                proofs,
            }
        }
        TaskVdaf::Poplar1 { bits } => VdafConfig::Poplar1 { bits },
        TaskVdaf::Unknown { .. } => return Err(opt_out("the VDAF is not supported")),
    })
}
