//! Routes for tests in the real runtime. Only in builds with the feature `test-routes`, never in a deployed one.
//!
//! - `GET /internal/test/panic`: panics.
//! - `GET /internal/test/sleep`: answers after half a second, and is in flight until then.
//! - `POST /internal/test/faults`: sets the plan of [`storage_proxy::faults`]. `GET`: the calls made since.
//! - `POST /internal/test/store`, `/ledger`, `/job`: sends a message, as JSON, to an object.

use std::time::Duration;

use daphne_core::{
    error::{Abort, AbortKind, Error, Internal},
    ids::TaskId,
    store::{
        CallError, Objects,
        message::{AggregateStoreRequest, JobStoreRequest, LedgerRequest},
        placement::{Placement, StoreId},
    },
};
use serde::{Deserialize, de::DeserializeOwned};
use storage_proxy::{faults, objects::ObjectCaller};
use worker::{Delay, Method, Request, Response};

use crate::{app::RequestContext, body, respond};

const BODY_BYTES_MAX: usize = 32 << 20;

#[derive(Deserialize)]
struct ToStore {
    store: StoreId,
    request: AggregateStoreRequest,
}

#[derive(Deserialize)]
struct ToLedger {
    task: TaskId,
    request: LedgerRequest,
}

#[derive(Deserialize)]
struct ToJobStore {
    placement: Placement,
    shard: u16,
    request: JobStoreRequest,
}

pub async fn handle(
    context: &RequestContext<'_>,
    request: &mut Request,
    name: &str,
) -> Result<Response, Error> {
    let objects = ObjectCaller::new(context.env.clone());
    match (name, request.method()) {
        ("panic", _) => panic!("a panic on purpose"),
        ("sleep", _) => {
            Delay::from(Duration::from_millis(500)).await;
            respond::empty(204)
        }
        ("faults", Method::Get) => respond::json(&faults::log(), 200),
        ("faults", _) => {
            faults::set_plan(read(request).await?);
            respond::empty(204)
        }
        ("store", _) => {
            let ToStore { store, request } = read(request).await?;
            respond::json(&objects.store(&store, request).await.map_err(unavailable)?, 200)
        }
        ("ledger", _) => {
            let ToLedger { task, request } = read(request).await?;
            respond::json(&objects.ledger(&task, request).await.map_err(unavailable)?, 200)
        }
        ("job", _) => {
            let ToJobStore { placement, shard, request } = read(request).await?;
            let answer = objects.job_store(&placement, shard, request).await;
            respond::json(&answer.map_err(unavailable)?, 200)
        }
        _ => Err(Abort::new(AbortKind::NotFound, "").into()),
    }
}

async fn read<T: DeserializeOwned>(request: &mut Request) -> Result<T, Error> {
    let body = body::read(request, BODY_BYTES_MAX).await?;
    serde_json::from_slice(&body)
        .map_err(|e| Abort::new(AbortKind::BadRequest, e.to_string()).into())
}

fn unavailable(e: CallError) -> Error {
    Internal::from(e).into()
}
