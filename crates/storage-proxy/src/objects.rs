//! Calls to Durable Objects, each with a timeout; [`crate::retry`] decides how often one is tried.

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
use worker::{
    Date, Delay, Env, Error, Method, Request, RequestInit,
    js_sys::{Reflect, Uint8Array},
    wasm_bindgen::JsValue,
};

use crate::{
    random,
    requests::ObjectRequest,
    retry::{self, CallFailure, FailureClass, Timer, Transport},
};

/// Binding of the `AggregateStore` class.
pub const AGGREGATE_STORE: &str = "AGGREGATE_STORE";
/// Binding of the `TaskLedger` class.
pub const TASK_LEDGER: &str = "TASK_LEDGER";
/// Binding of the `JobStore` class.
pub const JOB_STORE: &str = "JOB_STORE";
/// Binding of the `ConfigStore` class.
pub const CONFIG_STORE: &str = "CONFIG_STORE";

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

    /// Calls the object `name` of the class bound as `binding`, as often as [`retry`] allows, in `timeout` altogether.
    ///
    /// # Errors
    /// [`CallError`]: the outcome is unknown.
    pub async fn call<Q: ObjectRequest>(
        &self,
        binding: &str,
        name: &str,
        timeout: Duration,
        request: &Q,
    ) -> Result<Q::Answer, CallError> {
        let body = message::encode(request).map_err(|e| CallError::Unanswered(e.to_string()))?;
        let object = Object { env: &self.env, binding, name, body: &body };
        let answer = retry::call(&object, &Platform, timeout, request.idempotence()).await;
        let answer = answer.map_err(|CallFailure { reason, class }| {
            let reason = format!("{binding}: {reason}");
            match class {
                FailureClass::Overloaded => CallError::Overloaded(reason),
                FailureClass::Retryable
                | FailureClass::Status(_)
                | FailureClass::TimedOut
                | FailureClass::Permanent => CallError::Unanswered(reason),
            }
        })?;
        message::decode(&answer).map_err(|e| CallError::Unanswered(format!("{binding}: {e}")))
    }
}

/// One call's object and message.
struct Object<'a> {
    env: &'a Env,
    binding: &'a str,
    name: &'a str,
    body: &'a [u8],
}

impl Transport for Object<'_> {
    async fn attempt(&self) -> Result<Vec<u8>, CallFailure> {
        #[cfg(feature = "test-routes")]
        let fault = crate::faults::next_call(self.binding, self.name).await?;
        let stub = self.env.durable_object(self.binding)?.get_by_name(self.name)?;
        let mut init = RequestInit::new();
        let bytes = Uint8Array::from(self.body);
        init.with_method(Method::Post).with_body(Some(bytes.into()));
        let mut response =
            stub.fetch_with_request(Request::new_with_init("https://object/", &init)?).await?;
        let status = response.status_code();
        if status != 200 {
            return Err(CallFailure {
                reason: format!("answered with status {status}"),
                class: FailureClass::Status(status),
            });
        }
        let answer = response.bytes().await?;
        #[cfg(feature = "test-routes")]
        fault.after_answer().await?;
        Ok(answer)
    }
}

/// The runtime's clock and chance.
struct Platform;

impl Timer for Platform {
    fn now(&self) -> Duration {
        // It stands still while code runs, and has moved on whenever something was waited for.
        Duration::from_millis(Date::now().as_millis())
    }

    async fn sleep(&self, time: Duration) {
        Delay::from(time).await;
    }

    fn random_below(&self, window: Duration) -> Duration {
        Duration::from_millis(random::below(window.as_millis() as u64))
    }
}

impl From<Error> for CallFailure {
    fn from(error: Error) -> Self {
        let class = match &error {
            // What a stub throws. The second form is of an `Error` from another realm.
            Error::UnknownJsError { original, .. } | Error::Internal(original) => {
                FailureClass::of_stub_error(
                    says(original, "retryable"),
                    says(original, "overloaded"),
                )
            }
            _ => FailureClass::Permanent,
        };
        Self { reason: error.to_string(), class }
    }
}

/// Whether an error has this property, and it is true. Each is read by itself: a strange value of one must not hide the
/// others.
fn says(error: &JsValue, property: &str) -> bool {
    Reflect::get(error, &JsValue::from_str(property))
        .is_ok_and(|value| serde_wasm_bindgen::from_value(value).unwrap_or(false))
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
