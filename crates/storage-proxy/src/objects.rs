//! Calls to Durable Objects.
//!
//! All messages are idempotent, so a call whose outcome is unknown may be repeated. It is repeated only where the
//! platform says that this makes sense, a few times, with a new stub each time: a stub stays broken after an error.

use std::time::Duration;

use daphne_core::{
    ids::TaskId,
    store::{
        CallError, Objects,
        message::{
            self, AggregateStoreRequest, AggregateStoreResponse, JobStoreRequest, JobStoreResponse,
            LedgerRequest, LedgerResponse,
        },
        placement::{Placement, StoreId, ledger_name},
    },
};
use futures::future::{Either, select};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use worker::{Delay, Env, Error, Method, Request, RequestInit, wasm_bindgen::JsValue};

use crate::random;

/// Binding of the `AggregateStore` class.
pub const AGGREGATE_STORE: &str = "AGGREGATE_STORE";
/// Binding of the `TaskLedger` class.
pub const TASK_LEDGER: &str = "TASK_LEDGER";
/// Binding of the `JobStore` class.
pub const JOB_STORE: &str = "JOB_STORE";
/// Binding of the `ConfigStore` class.
pub const CONFIG_STORE: &str = "CONFIG_STORE";

const TRIES_MAX: u32 = 3;
const BACKOFF_MS: u64 = 50;
/// A store answers in milliseconds; one that does not answer at all must not hold the leader's request.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// A collection calls all of a task's stores in several rounds.
const LEDGER_TIMEOUT: Duration = Duration::from_secs(25);

/// Calls objects through the bindings of an environment.
#[derive(Clone, Debug)]
pub struct ObjectCaller {
    env: Env,
}

impl ObjectCaller {
    /// A caller.
    pub fn new(env: Env) -> Self {
        Self { env }
    }

    /// Calls the object `name` of the class bound as `binding`.
    ///
    /// # Errors
    /// [`CallError`]: the outcome is unknown.
    pub async fn call<Q: Serialize, A: DeserializeOwned>(
        &self,
        binding: &str,
        name: &str,
        timeout: Duration,
        request: &Q,
    ) -> Result<A, CallError> {
        let body = message::encode(request).map_err(|e| CallError(e.to_string()))?;
        let deadline = Delay::from(timeout);
        let answer = Box::pin(self.call_until_answered(binding, name, &body));
        match select(answer, deadline).await {
            Either::Left((answer, _)) => {
                message::decode(&answer?).map_err(|e| CallError(format!("{binding}: {e}")))
            }
            Either::Right(_) => Err(CallError(format!("{binding} did not answer in time"))),
        }
    }

    async fn call_until_answered(
        &self,
        binding: &str,
        name: &str,
        body: &[u8],
    ) -> Result<Vec<u8>, CallError> {
        let mut tries = 1;
        loop {
            match self.call_once(binding, name, body).await {
                Ok(answer) => return Ok(answer),
                Err(failure) if failure.may_retry && tries < TRIES_MAX => {
                    let wait = (BACKOFF_MS << tries) + random::jitter_ms(BACKOFF_MS << tries);
                    Delay::from(Duration::from_millis(wait)).await;
                    tries += 1;
                }
                Err(failure) => return Err(CallError(format!("{binding}: {}", failure.reason))),
            }
        }
    }

    async fn call_once(
        &self,
        binding: &str,
        name: &str,
        body: &[u8],
    ) -> Result<Vec<u8>, CallFailure> {
        #[cfg(feature = "test-routes")]
        let fault = crate::faults::next_call(binding).await?;
        let stub = self.env.durable_object(binding)?.get_by_name(name)?;
        let mut init = RequestInit::new();
        let bytes = worker::js_sys::Uint8Array::from(body);
        init.with_method(Method::Post).with_body(Some(bytes.into()));
        let mut response =
            stub.fetch_with_request(Request::new_with_init("https://object/", &init)?).await?;
        if response.status_code() != 200 {
            return Err(CallFailure {
                reason: format!("answered with status {}", response.status_code()),
                may_retry: false,
            });
        }
        let answer = response.bytes().await?;
        #[cfg(feature = "test-routes")]
        fault.after_answer().await?;
        Ok(answer)
    }
}

/// A call that failed.
#[derive(Debug)]
pub struct CallFailure {
    /// For the log.
    pub reason: String,
    /// Whether the platform says that trying again at once makes sense.
    pub may_retry: bool,
}

/// What the platform says about an error thrown by a stub.
#[derive(Deserialize)]
struct StubError {
    #[serde(default)]
    retryable: bool,
    #[serde(default)]
    overloaded: bool,
}

impl From<Error> for CallFailure {
    fn from(error: Error) -> Self {
        let may_retry = match &error {
            Error::UnknownJsError { original, .. } => {
                let said = properties_of(original);
                said.retryable && !said.overloaded
            }
            _ => false,
        };
        Self { reason: error.to_string(), may_retry }
    }
}

fn properties_of(error: &JsValue) -> StubError {
    // An `Error`'s own properties are read one by one: it is not a plain object.
    serde_wasm_bindgen::from_value(error.clone())
        .unwrap_or(StubError { retryable: false, overloaded: false })
}

impl Objects for ObjectCaller {
    async fn store(
        &self,
        store: &StoreId,
        request: AggregateStoreRequest,
    ) -> Result<AggregateStoreResponse, CallError> {
        let name = request.placement.store_name(store);
        self.call(AGGREGATE_STORE, &name, CALL_TIMEOUT, &request).await
    }

    async fn ledger(
        &self,
        task: &TaskId,
        request: LedgerRequest,
    ) -> Result<LedgerResponse, CallError> {
        self.call(TASK_LEDGER, &ledger_name(task), LEDGER_TIMEOUT, &request).await
    }

    async fn job_store(
        &self,
        placement: &Placement,
        shard: u16,
        request: JobStoreRequest,
    ) -> Result<JobStoreResponse, CallError> {
        let name = placement.job_store_name(shard);
        self.call(JOB_STORE, &name, CALL_TIMEOUT, &request).await
    }
}
