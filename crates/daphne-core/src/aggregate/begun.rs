//! Binds reports of VDAFs of several rounds to what is verified of them, before the leader is told anything about them.
//!
//! Poplar1 is private only if a report is verified with one aggregation parameter at each level (VDAF-08 §8.2.5, VDAF-18
//! §8.2.5). The helper's first message about a report is a function of what is bound here, so at each level there is one
//! message about it, ever; whoever asks for the same again gets the same bytes. What an honest leader does again, it does
//! so: its messages are functions of the report, the verification key and the aggregation parameter.

// SPEC: whether a report was aggregated before is a question of when it counts (DAP-09 §4.5.1.4, DAP-18 §4.5.4.3), and the
// reports of an abandoned job may be used again (DAP-18 §4.5.5). Reports of Poplar1 are refused as replayed already if they
// began otherwise, though they counted nowhere: what was said of them cannot be taken back.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, stream};
use sha2::{Digest, Sha256};

use super::{
    commit::{self, JobIdentity, PARALLEL_CALLS, unavailable},
    helper::HelperJob,
};
use crate::{
    error::{Error, Internal, ReportError},
    ids::ReportId,
    message::VerifyInit,
    store::{
        Objects,
        message::{AggregateStoreRequest, AggregateStoreResponse, Begin, StoreAction},
        placement::StoreId,
    },
    task::Task,
};

/// Binds the reports of a job that are `waiting` to be answered. Returns those that must not be, and why: they began
/// otherwise before, or their owner is about to forget.
///
/// What is cut off leaves reports bound to messages that nobody saw, and the same request again finds them so.
///
/// # Errors
/// [`Internal::Unavailable`] if an object did not answer; the same request again goes on.
pub(super) async fn bind(
    objects: &impl Objects,
    identity: &JobIdentity,
    job: &HelperJob<'_>,
    waiting: &BTreeSet<ReportId>,
) -> Result<BTreeMap<ReportId, ReportError>, Error> {
    let task = job.task();
    let placement = task.parameters.placement();
    let level = match task.parameters.version.aggregates_once() {
        true => None,
        false => task.vdaf.field().level(job.init().agg_param),
    };
    // Long, and the same for all.
    let param: [u8; 32] = Sha256::digest(job.init().agg_param).into();
    let mut owners: BTreeMap<StoreId, Vec<(ReportId, [u8; 32])>> = BTreeMap::new();
    for init in &job.init().verify_inits {
        let metadata = &init.report_share.metadata;
        if waiting.contains(&metadata.report_id) {
            let bucket = job.bucket(metadata.time);
            let owner = placement.owner(&identity.shard_key, &bucket, &metadata.report_id);
            let report = (metadata.report_id, verified(&param, init));
            owners.entry(owner).or_default().push(report);
        }
    }
    let mut answers = stream::iter(owners)
        .map(|(owner, reports)| begin(objects, task, owner, level, reports))
        .buffer_unordered(PARALLEL_CALLS);
    // All calls are let finish: the leader's retry finds them done.
    let (mut refused, mut failure) = (BTreeMap::new(), None);
    while let Some(answer) = answers.next().await {
        match answer {
            Ok(ids) => refused.extend(ids),
            Err(error) => failure = Some(error),
        }
    }
    match failure {
        Some(error) => Err(error),
        None => Ok(refused),
    }
}

/// SHA-256 of everything of a report that is verified. What is the same for the whole task is not part of it.
fn verified(param: &[u8; 32], init: &VerifyInit<'_>) -> [u8; 32] {
    let VerifyInit { report_share, payload } = init;
    let sealed = &report_share.encrypted_input_share;
    let mut hash = Sha256::new()
        .chain_update(b"dap report begun")
        .chain_update(param)
        .chain_update([sealed.config_id.0]);
    for part in [
        report_share.metadata.encoded,
        report_share.public_share,
        sealed.enc,
        sealed.payload,
        *payload,
    ] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

/// Has one owner bind its reports.
async fn begin(
    objects: &impl Objects,
    task: &Task,
    store: StoreId,
    level: Option<u16>,
    reports: Vec<(ReportId, [u8; 32])>,
) -> Result<BTreeMap<ReportId, ReportError>, Error> {
    let (placement, field) = (task.parameters.placement(), task.vdaf.field());
    let all_too_old =
        || Ok(reports.iter().map(|(id, _)| (*id, ReportError::ReportDropped)).collect());
    let mut open = commit::open_unasked(&store);
    loop {
        let begin = Begin { level, reports: reports.clone(), open: open.clone() };
        let action = StoreAction::Begin(begin);
        let request = AggregateStoreRequest { placement, store, field, action };
        match objects.store(&store, request).await.map_err(unavailable)? {
            AggregateStoreResponse::Begun(refused) => {
                let replayed = |id| (id, ReportError::ReportReplayed);
                return Ok(refused.into_iter().map(replayed).collect());
            }
            AggregateStoreResponse::NotOpen if open.is_none() => {
                match commit::register(objects, task, store).await? {
                    Some(collected) => open = Some(collected),
                    None => return all_too_old(),
                }
            }
            AggregateStoreResponse::Expired => return all_too_old(),
            other => {
                return Err(
                    Internal::Broken(format!("a beginning was answered with {other:?}")).into()
                );
            }
        }
    }
}
