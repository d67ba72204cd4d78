//! Counters of tasks: where they are read, and where refused requests are counted.

pub mod data_point;
pub mod scrape;

use std::{pin::pin, time::Duration};

use daphne_core::{
    error::{Error, Internal},
    ids::TaskId,
    metrics::Refusal,
    store::{
        Objects,
        config_store::TaskObjects,
        message::{LedgerRequest, LedgerResponse, LedgerStatus},
    },
    task::TaskParameters,
};
use futures::future::{Either, select};
use storage_proxy::objects::ObjectCaller;
use worker::{Delay, Env};

/// Times a ledger is asked for one status; each time it asks 240 stores.
pub const PAGES_MAX: usize = 5;
/// A refusal does not wait longer for being counted.
const COUNTED_WITHIN: Duration = Duration::from_secs(2);

/// How a task is doing, with what is in its batches if that is asked. Its ledger is asked at most `pages` times.
///
/// [`LedgerStatus::counters`] are the task's counters. If the status is not complete they are too small: who shows running
/// totals must not show them.
///
/// # Errors
/// Ours: the task's ledger did not answer.
pub async fn task_status(
    env: &Env,
    task: &TaskParameters,
    batches: bool,
    pages: usize,
) -> Result<LedgerStatus, Error> {
    let objects = ObjectCaller::new(env.clone());
    let TaskObjects { placement, field } = task.objects();
    let mut status = LedgerStatus::default();
    for page in 0..pages {
        let after = status.next;
        let request = LedgerRequest::Status { placement, field, batches, after };
        match objects.ledger(&task.task_id, request).await.map_err(Internal::from)? {
            LedgerResponse::Status(some) if page == 0 => status = *some,
            LedgerResponse::Status(some) => status.merge(*some),
            _ => return Err(Internal::Broken("the ledger answered out of turn".to_owned()).into()),
        }
        if status.next.is_none() {
            break;
        }
    }
    Ok(status)
}

/// Counts a request of a task's leader that is refused. The refusal stands whether or not it could be counted.
pub async fn count_refusal(env: &Env, task: &TaskId, refusal: Refusal) {
    let objects = ObjectCaller::new(env.clone());
    let counted = objects.ledger(task, LedgerRequest::Refused(Box::new(refusal)));
    let patience = Delay::from(COUNTED_WITHIN);
    if let Either::Left((Ok(LedgerResponse::Done), _)) = select(pin!(counted), patience).await {
        return;
    }
    worker::console_warn!("{{\"event\":\"refusal_not_counted\",\"task\":\"{task}\"}}");
}
