//! Aggregate shares: asked for once and for all (DAP-09 §4.6.2), or created, fetched and deleted (DAP-18 §4.6.4, §4.6.5).

use daphne_core::{
    b64,
    collect::helper::collect_request,
    error::{Abort, AbortKind, Error, Internal},
    store::{
        Objects,
        message::{LedgerRequest, LedgerResponse, RequestDigest},
    },
    vdaf::AGG_PARAM_BYTES_MAX,
    version::Message,
};
use sha2::{Digest, Sha256};
use storage_proxy::objects::ObjectCaller;
use worker::{Request, Response};

use super::{DapContext, leaders_task, read_message};
use crate::{log::Outcome, respond, router::Found};

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
    context: &DapContext<'_>,
    request: &mut Request,
    found: &Found,
    outcome: &mut Outcome,
) -> Result<Response, Error> {
    collect(context, request, found, outcome).await.map(|(response, _)| response)
}

/// As [`post`], and says where the share is from then on.
///
/// # Errors
/// As [`post`].
pub async fn create(
    context: &DapContext<'_>,
    request: &mut Request,
    found: &Found,
    outcome: &mut Outcome,
) -> Result<Response, Error> {
    let path = request.path();
    let (response, digest) = collect(context, request, found, outcome).await?;
    respond::at(response, &format!("{path}/{}", b64::encode(&digest)))
}

async fn collect(
    context: &DapContext<'_>,
    request: &mut Request,
    found: &Found,
    outcome: &mut Outcome,
) -> Result<(Response, RequestDigest), Error> {
    let task = leaders_task(context, request, found, outcome).await?;
    let body =
        read_message(context, request, Message::AggregateShareRequest, REQUEST_BYTES_MAX).await?;
    let decoded = task.parameters.wire().aggregate_share_request(&body)?;
    let digest = Sha256::digest(&body).into();
    let collect = collect_request(&task, &decoded, digest)?;
    let objects = ObjectCaller::new(context.env.clone());
    match objects.ledger(task.id(), LedgerRequest::Collect(Box::new(collect))).await {
        Ok(LedgerResponse::Share(share)) => {
            Ok((respond::message(context.version, Message::AggregateShare, share)?, digest))
        }
        Ok(LedgerResponse::Refused(abort)) => {
            outcome.refusal_is_counted();
            Err(abort.into())
        }
        Ok(LedgerResponse::Busy) => {
            Err(Internal::Unavailable("another collection is under way".to_owned()).into())
        }
        Ok(_) => Err(out_of_turn()),
        Err(e) => Err(Internal::from(e).into()),
    }
}

/// The share, as its creation was answered. DAP-18 §4.6.4.
///
/// # Errors
/// The leader's: nothing is here.
pub async fn get(
    context: &DapContext<'_>,
    request: &Request,
    found: &Found,
    outcome: &mut Outcome,
) -> Result<Response, Error> {
    let task = leaders_task(context, request, found, outcome).await?;
    let objects = ObjectCaller::new(context.env.clone());
    match objects.ledger(task.id(), LedgerRequest::Answer(share_id(found)?)).await {
        Ok(LedgerResponse::Share(share)) => {
            respond::message(context.version, Message::AggregateShare, share)
        }
        Ok(LedgerResponse::Unknown) => {
            Err(Abort::new(AbortKind::NotFound, "there is no aggregate share of that id").into())
        }
        Ok(_) => Err(out_of_turn()),
        Err(e) => Err(Internal::from(e).into()),
    }
}

/// Forgets a share, not that its batch was collected. DAP-18 §4.6.5.
///
/// # Errors
/// Ours: the same request will succeed later.
pub async fn delete(
    context: &DapContext<'_>,
    request: &Request,
    found: &Found,
    outcome: &mut Outcome,
) -> Result<Response, Error> {
    let task = leaders_task(context, request, found, outcome).await?;
    let objects = ObjectCaller::new(context.env.clone());
    match objects.ledger(task.id(), LedgerRequest::ForgetAnswer(share_id(found)?)).await {
        Ok(LedgerResponse::Done) => respond::empty(204),
        Ok(_) => Err(out_of_turn()),
        Err(e) => Err(Internal::from(e).into()),
    }
}

/// A share's id is the digest of what it was asked for with.
fn share_id(found: &Found) -> Result<RequestDigest, Abort> {
    b64::decode_array(&found.job)
        .ok_or_else(|| Abort::new(AbortKind::NotFound, "there is no aggregate share of that id"))
}

fn out_of_turn() -> Error {
    Internal::Broken("a ledger answered out of turn".to_owned()).into()
}
