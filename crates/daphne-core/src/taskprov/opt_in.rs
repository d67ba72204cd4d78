//! Whether we take part in a task that a leader brings along. taskprov-07 §4.4, taskprov-04 §3.5.

use super::{Peer, TaskOrigin};
use crate::{
    batch::BatchMode,
    configuration,
    error::{Abort, AbortKind},
    ids::TaskId,
    task::{Task, TaskRole, TaskSpec},
    time::{Duration, Time},
    vdaf::{Vdaf, VdafConfig},
    version::DapVersion,
    wire::{
        v09::{DpMechanism, TaskConfig, TaskQuery, TaskVdaf},
        v18::{self, TaskConfiguration},
    },
};

/// The task with these parameters, which its leader, who is authenticated as `peer`, brings along. `id` is the hash of
/// their encoding; `shard_key_version` that of the newest root key. taskprov-07 §4.4.
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
    let offer = Offer {
        version: DapVersion::V09,
        task_info: config.task_info,
        helper_url: config.helper_aggregator_endpoint,
        task_configuration: &[],
        batch_mode,
        max_batch_size,
        vdaf: vdaf_config(&config.vdaf_config.vdaf)?,
        min_batch_size: config.query_config.min_batch_size.into(),
        time_precision: config.query_config.time_precision,
        max_batch_query_count: config.query_config.max_batch_query_count.into(),
        end: Some(config.task_expiration),
        task_expiration: Some(config.task_expiration),
    };
    offer.accept(id, peer, now, shard_key_version)
}

/// As [`opt_in`], for a task whose configuration is that of DAP-18, and `encoded` its encoding. taskprov-04 §3.5.
///
/// # Errors
/// As [`opt_in`].
pub(super) fn opt_in_18(
    configuration: &TaskConfiguration<'_>,
    encoded: &[u8],
    id: TaskId,
    peer: &Peer,
    now: Time,
    shard_key_version: u32,
) -> Result<Task, Abort> {
    let batch_mode = match configuration.batch_mode {
        v18::BatchMode::TimeInterval => BatchMode::TimeInterval,
        v18::BatchMode::LeaderSelected => BatchMode::LeaderSelected,
        v18::BatchMode::Unknown { .. } => return Err(opt_out("the batch mode is not supported")),
    };
    let vdaf = match configuration.vdaf {
        v18::TaskVdaf::Known(vdaf) => vdaf,
        v18::TaskVdaf::Unknown { .. } => return Err(opt_out("the VDAF is not supported")),
    };
    let times = configuration::times(configuration).map_err(|e| opt_out(&e.to_string()))?;
    let offer = Offer {
        version: DapVersion::V18,
        task_info: configuration.task_info,
        helper_url: configuration.helper_aggregator_endpoint,
        task_configuration: encoded,
        batch_mode,
        max_batch_size: None,
        vdaf,
        min_batch_size: configuration.min_batch_size,
        time_precision: Duration::from_seconds(configuration.time_precision),
        max_batch_query_count: 1,
        end: times.expiration,
        // The configuration says it.
        task_expiration: None,
    };
    offer.accept(id, peer, now, shard_key_version)
}

/// What a leader says of a task, in whatever draft.
struct Offer<'a> {
    version: DapVersion,
    task_info: &'a [u8],
    helper_url: &'a str,
    task_configuration: &'a [u8],
    batch_mode: BatchMode,
    max_batch_size: Option<u64>,
    vdaf: VdafConfig,
    min_batch_size: u64,
    time_precision: Duration,
    max_batch_query_count: u64,
    end: Option<Time>,
    task_expiration: Option<Time>,
}

impl Offer<'_> {
    fn accept(
        self,
        id: TaskId,
        peer: &Peer,
        now: Time,
        shard_key_version: u32,
    ) -> Result<Task, Abort> {
        let policy = &peer.parameters.policy;
        if self.end.is_some_and(|end| now > end) {
            return Err(opt_out("the task has expired"));
        }
        // A task without an end expires later than all.
        if policy
            .lifetime_max
            .is_some_and(|max| self.end.is_none_or(|end| end > now.saturating_add(max)))
        {
            return Err(opt_out("the task expires later than is accepted here"));
        }
        if policy.helper_url.as_ref().is_some_and(|url| url != self.helper_url) {
            return Err(opt_out("the task has another helper"));
        }
        if policy.min_batch_size_min.is_some_and(|min| self.min_batch_size < min) {
            return Err(opt_out("min_batch_size is smaller than is accepted here"));
        }
        if policy.max_batch_query_count_max.is_some_and(|max| self.max_batch_query_count > max) {
            return Err(opt_out("max_batch_query_count is larger than is accepted here"));
        }
        let vdaf =
            Vdaf::new(self.version.vdaf_draft(), self.vdaf).map_err(|e| opt_out(&e.to_string()))?;
        let spec = TaskSpec {
            task_id: Some(id),
            version: self.version,
            role: TaskRole::Helper,
            task_configuration: self.task_configuration.to_vec(),
            batch_mode: self.batch_mode,
            max_batch_size: self.max_batch_size,
            vdaf: self.vdaf,
            verify_key: peer.verify_key_init.verify_key(&id, vdaf.verify_key_len()).to_vec(),
            leader_token: None,
            leader_token_hash: None,
            collector_hpke_config: peer.parameters.collector_hpke_config.clone(),
            min_batch_size: self.min_batch_size,
            time_precision: self.time_precision,
            max_batch_query_count: self.max_batch_query_count,
            task_expiration: self.task_expiration,
            report_expiry_age: policy.report_expiry_age,
            tolerable_clock_skew: policy.tolerable_clock_skew,
            shards: policy.shards,
            buckets_per_group: match self.batch_mode {
                BatchMode::TimeInterval => policy.buckets_per_group,
                BatchMode::LeaderSelected => None,
            },
        };
        let origin = TaskOrigin {
            leader_url: peer.parameters.endpoint.clone(),
            task_info: self.task_info.to_vec(),
        };
        spec.check_brought(origin, shard_key_version).map_err(|e| opt_out(&e.to_string()))
    }
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
