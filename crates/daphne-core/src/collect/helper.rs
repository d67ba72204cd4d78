//! The helper's part of an aggregate-share request that needs no stored state; the task's ledger does the rest.

use crate::{
    aggregate::helper::agg_param,
    batch::{BucketRange, Checksum},
    error::{Abort, AbortKind},
    hpke::{self, Role},
    message::AggregateShareRequest,
    store::message::{Collect, RequestDigest},
    task::Task,
    wire,
};

/// Checks a request against its task and makes what the ledger needs to answer it. DAP-09 §4.6.2, DAP-18 §4.6.4.
/// `digest` is SHA-256 of the body.
///
/// # Errors
/// The leader's fault: `invalidMessage` for another batch mode, `batchInvalid` for an interval that is not a set of batch
/// buckets, or not among those that the collector asked for; `invalidAggregationParameter` for a parameter that the VDAF does not have, which DAP-09 calls `invalidMessage`.
pub fn collect_request(
    task: &Task,
    request: &AggregateShareRequest<'_>,
    digest: RequestDigest,
) -> Result<Collect, Abort> {
    let parameters = &task.parameters;
    let range = BucketRange::from_selector(
        &request.batch_selector,
        parameters.batch_mode,
        parameters.time_precision,
    )?;
    let collected = BucketRange::from_selector(
        &request.collected,
        parameters.batch_mode,
        parameters.time_precision,
    )?;
    if !collected.covers(&range) {
        return Err(Abort::new(
            AbortKind::BatchInvalid,
            "the batch selector has buckets that were not asked for",
        ));
    }
    // SPEC: DAP-18 §4.6.4 refuses a selector of which a bucket was collected; here that is asked of the whole query, since all
    // of it is used up. The leader must have refused such a query itself (§4.6.1).
    agg_param(task, request.agg_param)?;
    let hpke_aad = wire::aggregate_share_aad(
        task.id(),
        &parameters.task_configuration,
        &request.share_binding,
    );
    Ok(Collect {
        digest,
        placement: parameters.placement(),
        field: task.vdaf.field(),
        range: collected,
        counts: range,
        once: parameters.version.aggregates_once(),
        param: request.agg_param.to_vec(),
        report_count: request.report_count,
        checksum: Checksum::new(request.checksum),
        min_batch_size: parameters.min_batch_size,
        max_batch_size: parameters.max_batch_size,
        max_batch_query_count: parameters.max_batch_query_count,
        collector_hpke_config: parameters.collector_hpke_config.clone(),
        hpke_info: hpke::aggregate_share_info(parameters.version, Role::Helper),
        hpke_aad,
    })
}
