//! `POST /v09/tasks/{task}/aggregate_shares`. DAP-09 §4.6.2.

use daphne_core::{
    collect::helper::collect_request,
    error::{Error, Internal},
    message::AggregateShareRequest,
    store::{
        Objects,
        message::{LedgerRequest, LedgerResponse},
    },
    vdaf::AGG_PARAM_BYTES_MAX,
    version::Message,
    wire::v09,
};
use sha2::{Digest, Sha256};
use storage_proxy::objects::ObjectCaller;
use worker::{Request, Response};

use super::{VERSION, leaders_task, read_message};
use crate::{app::RequestContext, log::Outcome, respond, router::Found};

/// The request has a fixed size but for its aggregation parameter, and whatever a job could be aggregated for can be
/// collected.
const REQUEST_BYTES_MAX: usize = 256 << 10;
const _: () = assert!(AGG_PARAM_BYTES_MAX + 1_024 < REQUEST_BYTES_MAX);

/// Collects a batch, once. The same request again is answered with the same bytes.
///
/// # Errors
/// The leader's, in this order: `batchInvalid` for boundaries, `batchOverlap`, `batchQueriedTooManyTimes`,
/// `invalidBatchSize`, `batchMismatch` (DAP-09 §4.6.5); none of them uses the batch up.
pub async fn post(
    context: &RequestContext<'_>,
    request: &mut Request,
    found: &Found,
    outcome: &mut Outcome,
) -> Result<Response, Error> {
    let task = leaders_task(context, request, found, outcome).await?;
    let body = read_message(request, Message::AggregateShareRequest, REQUEST_BYTES_MAX).await?;
    let decoded: AggregateShareRequest<'_> = v09::AggregateShareReq::decode(&body)?.into();
    let collect = collect_request(&task, &decoded, Sha256::digest(&body).into())?;
    let objects = ObjectCaller::new(context.env.clone());
    match objects.ledger(task.id(), LedgerRequest::Collect(Box::new(collect))).await {
        Ok(LedgerResponse::Share(share)) => {
            respond::message(VERSION, Message::AggregateShare, share)
        }
        Ok(LedgerResponse::Refused(abort)) => {
            outcome.refusal_is_counted();
            Err(abort.into())
        }
        Ok(LedgerResponse::Busy) => {
            Err(Internal::Unavailable("another collection is under way".to_owned()).into())
        }
        Ok(
            LedgerResponse::Opened(_)
            | LedgerResponse::Done
            | LedgerResponse::Expired
            | LedgerResponse::Released(_)
            | LedgerResponse::Status(_),
        ) => Err(Internal::Broken("a collection was answered out of turn".to_owned()).into()),
        Err(e) => Err(Internal::from(e).into()),
    }
}
