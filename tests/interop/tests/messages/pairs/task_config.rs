//! A task's parameters as a header: taskprov-07 §3.1.

use daphne_core::{
    b64,
    time::{Duration, Time},
    wire::v09,
};
use janus_messages::{self as theirs, taskprov};
use prio::codec::Encode as _;
use proptest::prelude::*;

use super::{Encodings, Fields, read_as, same};

/// What both aggregators may be called; both want ASCII.
fn url(name: &[u8]) -> String {
    format!("https://{}.example/v09/", b64::encode(name))
}

pub fn agree(f: &Fields, out: &mut Encodings) -> Result<(), TestCaseError> {
    let [length, chunk_length, max_batch_size] =
        [f.count, f.interval.0, f.interval.1].map(|n| n.to_be_bytes()).map(|b| {
            let [.., a, b, c, d] = b;
            u32::from_be_bytes([a, b, c, d])
        });
    let [bits, proofs] = f.config_ids;
    let rest = f.blobs[1].as_slice();
    let (leader, helper) = (url(&f.task_id), url(&f.batch_id));
    // The reserved query type decodes as known to them and as unknown to us.
    let (query, their_query) = match f.choice % 3 {
        0 => (v09::TaskQuery::TimeInterval, taskprov::Query::TimeInterval),
        1 => (
            v09::TaskQuery::FixedSize { max_batch_size },
            taskprov::Query::FixedSize { max_batch_size },
        ),
        _ => (v09::TaskQuery::Unknown { query_type: 0, rest: &[] }, taskprov::Query::Reserved),
    };
    let (dp_mechanism, their_mechanism) = match f.choice / 3 % 3 {
        0 => (v09::DpMechanism::None, taskprov::DpMechanism::None),
        1 => (
            v09::DpMechanism::Unknown { mechanism: bits | 2, rest },
            taskprov::DpMechanism::Unrecognized { codepoint: bits | 2, payload: rest.to_vec() },
        ),
        _ => {
            (v09::DpMechanism::Unknown { mechanism: 0, rest: &[] }, taskprov::DpMechanism::Reserved)
        }
    };
    let (vdaf, their_vdaf) = match f.choice / 9 % 6 {
        0 => (v09::TaskVdaf::Count, taskprov::VdafType::Prio3Count),
        1 => (v09::TaskVdaf::Sum { bits }, taskprov::VdafType::Prio3Sum { bits }),
        2 => (
            v09::TaskVdaf::SumVec { length, bits, chunk_length },
            taskprov::VdafType::Prio3SumVec { length, bits, chunk_length },
        ),
        3 => (
            v09::TaskVdaf::Histogram { length, chunk_length },
            taskprov::VdafType::Prio3Histogram { length, chunk_length },
        ),
        4 => (
            v09::TaskVdaf::SumVecField64Multiproof { length, bits, chunk_length, proofs },
            taskprov::VdafType::Prio3SumVecField64MultiproofHmacSha256Aes128 {
                length,
                bits,
                chunk_length,
                proofs,
            },
        ),
        _ => {
            (v09::TaskVdaf::Poplar1 { bits: f.step }, taskprov::VdafType::Poplar1 { bits: f.step })
        }
    };
    let their_url = |url: &str| theirs::Url::try_from(url.as_bytes()).expect("ASCII");
    let their_vdaf_config =
        taskprov::VdafConfig::new(taskprov::DpConfig::new(their_mechanism), their_vdaf);
    let theirs = taskprov::TaskConfig::new(
        f.public_key.clone(),
        their_url(&leader),
        their_url(&helper),
        taskprov::QueryConfig::new(
            theirs::Duration::from_seconds(f.interval.1),
            f.step,
            length,
            their_query,
        ),
        theirs::Time::from_seconds_since_epoch(f.time),
        their_vdaf_config.expect("any configuration"),
    );
    pair!(
        out,
        TaskConfig,
        v09::TaskConfig {
            task_info: &f.public_key,
            leader_aggregator_endpoint: &leader,
            helper_aggregator_endpoint: &helper,
            query_config: v09::QueryConfig {
                time_precision: Duration::from_seconds(f.interval.1),
                max_batch_query_count: f.step,
                min_batch_size: length,
                query,
            },
            task_expiration: Time::from_seconds(f.time),
            vdaf_config: v09::TaskVdafConfig { dp_mechanism, vdaf },
        },
        theirs.expect("a task info"),
    );
    Ok(())
}
