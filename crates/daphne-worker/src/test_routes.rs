//! Routes for tests in the real runtime. Only in builds with the feature `test-routes`, never in a deployed one.
//!
//! - `GET /internal/test/panic`: panics.
//! - `POST /internal/test/patience?ms={n}`: bodies may take that long from now on, instead of half a minute.
//! - `GET /internal/test/sleep`: answers after half a second, and is in flight until then.
//! - `POST /internal/test/faults`: sets the plan of [`storage_proxy::faults`]. `GET`: the calls made since.
//! - `GET /internal/test/meter`: what objects and KV were billed for so far, and what the platform's cryptography computed.
//! - `POST /internal/test/x25519`: computes Diffie-Hellman as the platform does, and as the core does.
//! - `POST /internal/test/probe?object={name}&what={probe}`: has an `AggregateStore` answer a probe of a benchmark.
//! - `POST /internal/test/store`, `/ledger`, `/job`: sends a message, as JSON, to an object.

use std::{cell::Cell, time::Duration};

use daphne_core::{
    b64,
    error::{Abort, AbortKind, Error, Internal},
    hpke::{HpkeKem, HpkeKeypair, KeyAgreement as _, OwnX25519},
    ids::{HpkeConfigId, TaskId},
    store::{
        CallError, Objects,
        message::{AggregateStoreRequest, JobStoreRequest, LedgerRequest},
        placement::{Placement, StoreId},
    },
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use storage_proxy::{
    faults,
    objects::{AGGREGATE_STORE, ObjectCaller},
    webcrypto::WebCrypto,
};
use worker::{Delay, Method, Request, RequestInit, Response, js_sys};

use crate::{app::RequestContext, body, respond};

const BODY_BYTES_MAX: usize = 32 << 20;

thread_local! {
    static BODY_PATIENCE: Cell<Option<Duration>> = const { Cell::new(None) };
}

/// How long bodies may take, if a test said so.
pub fn body_patience() -> Option<Duration> {
    BODY_PATIENCE.get()
}

#[derive(Deserialize)]
struct Patience {
    ms: u64,
}

#[derive(Deserialize)]
struct ToStore {
    store: StoreId,
    request: AggregateStoreRequest,
}

#[derive(Deserialize)]
struct Probe {
    object: String,
    what: String,
}

#[derive(Serialize)]
struct Meter {
    #[serde(flatten)]
    counts: durable_objects::meter::Counts,
    kv_reads: u64,
    kv_writes: u64,
    agreements: u64,
}

#[derive(Deserialize)]
struct Points {
    #[serde(with = "b64::serde_b64")]
    seed: Vec<u8>,
    /// 32 bytes each.
    #[serde(with = "b64::serde_b64")]
    points: Vec<u8>,
}

/// 32 bytes for each point, or nothing.
#[derive(Serialize)]
struct SharedBoth {
    #[serde(with = "b64::serde_b64")]
    platform: Vec<u8>,
    #[serde(with = "b64::serde_b64")]
    core: Vec<u8>,
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
        ("patience", _) => {
            let Patience { ms } = request.query().map_err(|e| Internal::Broken(e.to_string()))?;
            BODY_PATIENCE.set(Some(Duration::from_millis(ms)));
            respond::empty(204)
        }
        ("sleep", _) => {
            Delay::from(Duration::from_millis(500)).await;
            respond::empty(204)
        }
        ("faults", Method::Get) => respond::json(&faults::log(), 200),
        ("faults", _) => {
            faults::set_plan(read(request).await?);
            respond::empty(204)
        }
        ("meter", _) => {
            let counts = durable_objects::meter::read();
            let (kv_reads, kv_writes) =
                (storage_proxy::meter::kv_reads(), storage_proxy::meter::kv_writes());
            let agreements = storage_proxy::meter::agreements();
            respond::json(&Meter { counts, kv_reads, kv_writes, agreements }, 200)
        }
        ("x25519", _) => x25519(&read(request).await?).await,
        ("probe", _) => probe(context, request).await,
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

async fn x25519(request: &Points) -> Result<Response, Error> {
    let id = HpkeConfigId(0);
    let keypair = HpkeKeypair::derive(id, HpkeKem::X25519HkdfSha256, &request.seed)
        .map_err(|e| Internal::Broken(e.to_string()))?;
    let (points, _) = request.points.as_chunks::<32>();
    let platform = WebCrypto::default().agree(&keypair, points).await;
    let core = OwnX25519.agree(&keypair, points).await;
    let [platform, core] =
        [platform, core].map(|shared| shared.map_or(vec![], |s| s.as_flattened().to_vec()));
    respond::json(&SharedBoth { platform, core }, 200)
}

/// Hands a probe on as it is: what is measured must not be what carries it.
async fn probe(context: &RequestContext<'_>, request: &mut Request) -> Result<Response, Error> {
    let failed = |e: worker::Error| Error::from(Internal::Broken(e.to_string()));
    let asked: Probe = request.query().map_err(failed)?;
    let body = body::read(request, BODY_BYTES_MAX).await?;
    let namespace = context.env.durable_object(AGGREGATE_STORE).map_err(failed)?;
    let mut init = RequestInit::new();
    init.with_method(Method::Post).with_body(Some(js_sys::Uint8Array::from(&*body).into()));
    let url = format!("https://object/probe/{}", asked.what);
    let request = Request::new_with_init(&url, &init).map_err(failed)?;
    let stub = namespace.get_by_name(&asked.object).map_err(failed)?;
    let mut answer = stub.fetch_with_request(request).await.map_err(failed)?;
    // What an object answers has headers that cannot be changed, and each answer of the Worker gets some.
    let (status, body) = (answer.status_code(), answer.bytes().await.map_err(failed)?);
    Ok(Response::from_bytes(body).map_err(failed)?.with_status(status))
}

async fn read<T: DeserializeOwned>(request: &mut Request) -> Result<T, Error> {
    let body = body::read(request, BODY_BYTES_MAX).await?;
    serde_json::from_slice(&body)
        .map_err(|e| Abort::new(AbortKind::BadRequest, e.to_string()).into())
}

fn unavailable(e: CallError) -> Error {
    Internal::from(e).into()
}
