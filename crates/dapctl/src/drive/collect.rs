//! Collecting: asks for the helper's share of each batch, opens both shares, and compares with the truth.

use daphne_core::{
    batch::{BatchBucket, BatchMode},
    collect::collector::{self, CollectorTask},
    hpke::{self, HpkeKeypair, Role},
    message::{self, AggregateShareRequest},
    time::{Duration, Time},
    vdaf::{AggregateResult, FieldKind},
    wire::{aggregate_share_aad, common::AggregateShare},
};

use super::{
    Total,
    jobs::{Accepted, Leader},
    summary::{BatchName, BatchSummary},
};
use crate::{Failure, http::ClientError, task_file::random};

/// Collects every batch. A batch that fails is in [`Total::problems`], and the others are collected all the same.
///
/// # Errors
/// [`Failure::Unreachable`] if the helper does not answer.
pub(super) fn collect_all(
    leader: &Leader<'_>,
    keys: &HpkeKeypair,
    mode: BatchMode,
    total: &mut Total,
) -> Result<Vec<BatchSummary>, Failure> {
    let batches = match plan(leader, mode, total) {
        Ok(batches) => batches,
        Err(why) => {
            total.problems.push(why);
            return Ok(Vec::new());
        }
    };
    let mut summaries = Vec::new();
    for (name, accepted) in batches {
        let mut summary = BatchSummary {
            batch: name,
            report_count: accepted.report_count,
            aggregate: None,
            expected: accepted.truth.as_ref().map(|t| reduced(t, leader.field())),
            matches: None,
        };
        match collect(leader, keys, name, &accepted, total) {
            Ok(aggregate) => {
                if let Some(expected) = &summary.expected {
                    let matches = aggregate == *expected;
                    summary.matches = Some(matches);
                    if !matches {
                        total.problems.push(format!("the aggregate of {name} is wrong"));
                    }
                }
                summary.aggregate = Some(aggregate);
            }
            Err(ClientError::Transport(e)) => return Err(ClientError::Transport(e).into()),
            Err(e) => total.problems.push(format!("the collection of {name} failed: {e}")),
        }
        summaries.push(summary);
    }
    Ok(summaries)
}

/// Which batches to ask for, with what the leader has of them.
fn plan(
    leader: &Leader<'_>,
    mode: BatchMode,
    total: &Total,
) -> Result<Vec<(BatchName, Accepted)>, String> {
    let precision = leader.task.time_precision;
    let mut batches: Vec<(BatchName, Accepted)> = Vec::new();
    for (bucket, accepted) in &total.outcome.accepted {
        let name = match bucket {
            BatchBucket::Batch(id) => BatchName::Batch { batch_id: *id },
            BatchBucket::Window(start) => {
                BatchName::Interval { start: start.as_seconds(), duration: precision.as_seconds() }
            }
        };
        match (mode, leader.options.per_bucket, batches.last_mut()) {
            // Buckets come in the order of time, so the interval grows at its end.
            (BatchMode::TimeInterval, false, Some((whole, sum))) => {
                if let (
                    BatchName::Interval { start: first, duration },
                    BatchName::Interval { start: last, duration: length },
                ) = (whole, name)
                {
                    *duration = (last - *first).saturating_add(length);
                }
                sum.merge(leader.field(), accepted)?;
            }
            _ => batches.push((name, accepted.clone())),
        }
    }
    Ok(batches)
}

fn collect(
    leader: &Leader<'_>,
    keys: &HpkeKeypair,
    name: BatchName,
    accepted: &Accepted,
    total: &mut Total,
) -> Result<AggregateResult, ClientError> {
    let wrong = |what: &str| ClientError::Protocol(what.to_owned());
    let batch_selector = selector(name);
    let agg_param = leader.agg_param.encode();
    let wire = leader.wire();
    let binding = wire
        .share_binding(&agg_param, &batch_selector)
        .map_err(|_| wrong("the batch cannot be encoded"))?;
    let request = AggregateShareRequest {
        batch_selector,
        collected: batch_selector,
        agg_param: &agg_param,
        report_count: accepted.report_count,
        checksum: *accepted.checksum.as_bytes(),
        share_binding: (&binding).into(),
    };
    let request = wire
        .encode_aggregate_share_request(&request)
        .map_err(|_| wrong("the request cannot be encoded"))?;

    let collector_task = CollectorTask {
        task_id: &leader.task.task_id,
        version: leader.task.version,
        task_configuration: &leader.task.task_configuration,
    };
    let open = |body: &[u8]| {
        let share = AggregateShare::decode(body)
            .map_err(|e| wrong(&format!("the helper's aggregate share is malformed: {e}")))?
            .encrypted_aggregate_share;
        if share.config_id != keys.config().id {
            return Err(wrong("the helper's aggregate share is sealed to another key"));
        }
        collector_task
            .open_share(keys, Role::Helper, &binding, share)
            .map_err(|e| wrong(&e.to_string()))
    };
    let created = leader.helper.create_share(&request)?;
    total.outcome.retries += created.success.retries as u64;
    let helper_share = open(&created.success.body)?;
    if leader.options.replay {
        let again = leader.helper.create_share(&request)?;
        if again.at != created.at || open(&again.success.body)? != helper_share {
            return Err(wrong("the helper's aggregate share is another one when asked again"));
        }
        if let Some(at) = &created.at
            && leader.helper.share(at)?.body != created.success.body
        {
            return Err(wrong("the helper's aggregate share is another one where it is kept"));
        }
    }
    if let (true, Some(at)) = (leader.options.delete_jobs, &created.at) {
        leader.helper.delete_share(at)?;
    }

    // The leader's share takes the way to the collector as well, so that both ends of it are tried.
    let aad = aggregate_share_aad(&leader.task.task_id, &leader.task.task_configuration, &binding);
    let info = hpke::aggregate_share_info(leader.task.version, Role::Leader);
    let seed = random().map_err(|e| wrong(&e.to_string()))?;
    let sealed = hpke::seal(keys.config(), &info, &aad, &accepted.share, &seed)
        .map_err(|e| wrong(&e.to_string()))?;
    let leader_share = collector_task
        .open_share(keys, Role::Leader, &binding, sealed.as_ref())
        .map_err(|e| wrong(&e.to_string()))?;
    let vdaf = &leader.task.vdaf;
    collector::unshard(vdaf, &leader.agg_param, &leader_share, &helper_share, accepted.report_count)
        .map_err(|e| wrong(&e.to_string()))
}

fn selector(name: BatchName) -> message::BatchSelector {
    match name {
        BatchName::Interval { start, duration } => message::BatchSelector::TimeInterval {
            start: Time::from_seconds(start),
            duration: Duration::from_seconds(duration),
        },
        BatchName::Batch { batch_id } => message::BatchSelector::LeaderSelected(batch_id),
    }
}

/// The exact sums as the field can hold them.
fn reduced(truth: &AggregateResult, field: FieldKind) -> AggregateResult {
    let reduce = |n: &u128| match field {
        FieldKind::F64 => n % u128::from(0xffff_ffff_0000_0001_u64),
        // Sums of 64-bit numbers, and counts, do not reach the prime.
        FieldKind::F128 | FieldKind::F255 | FieldKind::Poplar1 { .. } => *n,
    };
    match truth {
        AggregateResult::Number(n) => AggregateResult::Number(reduce(n)),
        AggregateResult::Vector(v) => AggregateResult::Vector(v.iter().map(reduce).collect()),
    }
}
