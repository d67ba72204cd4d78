//! What a leader sends with each request of a task that it brings along. taskprov-07 §4.2.

use crate::{
    batch::BatchMode,
    task::{TaskError, TaskSpec},
    vdaf::VdafConfig,
    wire::v09::{DpMechanism, QueryConfig, TaskConfig, TaskQuery, TaskVdaf, TaskVdafConfig},
};

/// The encoded parameters of a task, whose hash ([`super::task_id`]) is its id. Of `spec` only what all parties must
/// know goes into them. `task_info` is `1..=255` bytes.
///
/// # Errors
/// Whoever wrote the parameters: one sentence that says what no such task can have.
pub fn advertise(
    spec: &TaskSpec,
    task_info: &[u8],
    leader_url: &str,
    helper_url: &str,
) -> Result<Vec<u8>, TaskError> {
    let too_large = |name: &str| TaskError::new(format!("{name} is too large for taskprov"));
    let narrow = |name: &str, n: u64| u32::try_from(n).map_err(|_| too_large(name));
    let task_expiration = spec
        .task_expiration
        .ok_or_else(|| TaskError::new("a task for taskprov needs a task_expiration"))?;
    let query = match (spec.batch_mode, spec.max_batch_size) {
        (BatchMode::TimeInterval, _) => TaskQuery::TimeInterval,
        (BatchMode::LeaderSelected, None) => TaskQuery::FixedSize { max_batch_size: 0 },
        (BatchMode::LeaderSelected, Some(max)) => {
            TaskQuery::FixedSize { max_batch_size: narrow("max_batch_size", max)? }
        }
    };
    TaskConfig {
        task_info,
        leader_aggregator_endpoint: leader_url,
        helper_aggregator_endpoint: helper_url,
        query_config: QueryConfig {
            time_precision: spec.time_precision,
            max_batch_query_count: u16::try_from(spec.max_batch_query_count)
                .map_err(|_| too_large("max_batch_query_count"))?,
            min_batch_size: narrow("min_batch_size", spec.min_batch_size)?,
            query,
        },
        task_expiration,
        vdaf_config: TaskVdafConfig { dp_mechanism: DpMechanism::None, vdaf: vdaf(&spec.vdaf)? },
    }
    .encode()
    .map_err(|_| {
        TaskError::new(
            "task_info must have 1 to 255 bytes, and the URLs only visible ASCII characters",
        )
    })
}

/// The VDAF as the header names it. VDAF-08 bounds integers by a number of bits.
fn vdaf(config: &VdafConfig) -> Result<TaskVdaf<'static>, TaskError> {
    let bits = |max: u64| (u64::BITS - max.leading_zeros()) as u8;
    Ok(match *config {
        VdafConfig::Prio3Count => TaskVdaf::Count,
        VdafConfig::Prio3Sum { max_measurement } => TaskVdaf::Sum { bits: bits(max_measurement) },
        VdafConfig::Prio3SumVec { length, max_measurement, chunk_length } => {
            TaskVdaf::SumVec { length, bits: bits(max_measurement), chunk_length }
        }
        VdafConfig::Prio3Histogram { length, chunk_length } => {
            TaskVdaf::Histogram { length, chunk_length }
        }
        VdafConfig::Prio3SumVecField64MultiproofHmacSha256Aes128 {
            length,
            max_measurement,
            chunk_length,
            proofs,
        } => TaskVdaf::SumVecField64Multiproof {
            length,
            bits: bits(max_measurement),
            chunk_length,
            proofs,
        },
        VdafConfig::Poplar1 { bits } => TaskVdaf::Poplar1 { bits },
        VdafConfig::Prio3MultihotCountVec { .. } => {
            return Err(TaskError::new("taskprov has no code point for this VDAF"));
        }
    })
}
