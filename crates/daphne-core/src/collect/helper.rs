//! The helper's part of an aggregate-share request that needs no stored state; the task's ledger does the rest.

use crate::{
    batch::{BucketRange, Checksum},
    error::Abort,
    hpke::{self, Role},
    message::AggregateShareRequest,
    store::message::{Collect, RequestDigest},
    task::Task,
    wire::v09,
};

/// Checks a request against its task and makes what the ledger needs to answer it. DAP-09 §4.6.2.
/// `digest` is SHA-256 of the body.
///
/// # Errors
/// The leader's fault: `invalidMessage` for another batch mode or a parameter the VDAF does not have,
/// `batchInvalid` for an interval that is not a set of batch buckets.
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
    task.vdaf.decode_agg_param(request.agg_param)?;
    let hpke_aad =
        v09::aggregate_share_aad(task.id(), request.agg_param, request.batch_selector_encoded)
            .map_err(|e| Abort::invalid_message(e.to_string()))?;
    Ok(Collect {
        digest,
        placement: parameters.placement(),
        field: task.vdaf.field(),
        range,
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
