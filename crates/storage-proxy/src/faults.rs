//! Calls that fail on purpose, for tests in the real runtime. Only in builds with the feature `test-routes`.
//!
//! Calls to objects are numbered from the moment a plan is set, each try by itself. Local runtimes keep Workers and objects in one
//! isolate, so one plan covers the calls of both.

use std::{cell::RefCell, collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};
use worker::{Delay, js_sys, wasm_bindgen::JsValue};

use crate::retry::CallFailure;

/// What goes wrong with one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// The request never arrives.
    LoseRequest,
    /// The request is carried out, its answer is lost.
    LoseAnswer,
    /// The request is held back for a minute before it is sent: time to kill the runtime.
    HoldRequest,
    /// The answer is held back for a minute.
    HoldAnswer,
    /// The caller panics before the request is sent.
    Panic,
    /// The request never arrives, and the platform says that the object is overloaded.
    Overloaded,
    /// The request never arrives, and the platform says that trying again makes sense.
    Retryable,
    /// The request is carried out, its answer is lost, and the platform says that trying again makes sense.
    RetryableAnswer,
}

/// Which calls fail, by number from 0, and how.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Plan {
    /// The faults.
    #[serde(default)]
    pub calls: BTreeMap<u64, Fault>,
    /// Only calls to objects whose name has this are numbered, such as a task's id: alarms of others may ring meanwhile.
    #[serde(default)]
    pub to: String,
    /// Whether the platform computes no Diffie-Hellman.
    #[serde(default)]
    pub no_webcrypto: bool,
}

#[derive(Default)]
struct State {
    plan: Plan,
    log: Vec<String>,
}

thread_local! {
    static STATE: RefCell<State> = RefCell::default();
}

/// Sets the plan and starts counting anew.
pub fn set_plan(plan: Plan) {
    STATE.with_borrow_mut(|state| *state = State { plan, log: Vec::new() });
}

/// Whether the platform is to compute no Diffie-Hellman.
pub(crate) fn webcrypto_is_away() -> bool {
    STATE.with_borrow(|state| state.plan.no_webcrypto)
}

/// The bindings called since the plan was set, in order.
pub fn log() -> Vec<String> {
    STATE.with_borrow(|state| state.log.clone())
}

/// What is still to go wrong with a call that was let through.
#[derive(Clone, Copy, Debug)]
pub struct Rest(Option<Fault>);

/// What a stub throws, with these properties set, and as calls see it.
fn lost(properties: &[&str]) -> CallFailure {
    let error = js_sys::Error::new("lost on purpose");
    for property in properties {
        // Unwrap safety: a new object takes any property.
        #[allow(clippy::expect_used)]
        js_sys::Reflect::set(&error, &JsValue::from_str(property), &JsValue::TRUE)
            .expect("a property that can be set");
    }
    worker::Error::from(error).into()
}

const HOLD: Duration = Duration::from_secs(60);

/// Counts a call of an object and lets it fail as planned.
///
/// # Errors
/// As planned.
///
/// # Panics
/// As planned.
pub async fn next_call(binding: &str, name: &str) -> Result<Rest, CallFailure> {
    let fault = STATE.with_borrow_mut(|state| {
        if !name.contains(&state.plan.to) {
            return None;
        }
        let number = state.log.len() as u64;
        state.log.push(binding.to_owned());
        state.plan.calls.get(&number).copied()
    });
    match fault {
        Some(Fault::LoseRequest) => Err(lost(&[])),
        Some(Fault::Overloaded) => Err(lost(&["overloaded"])),
        Some(Fault::Retryable) => Err(lost(&["retryable"])),
        Some(Fault::HoldRequest) => {
            Delay::from(HOLD).await;
            Ok(Rest(None))
        }
        Some(Fault::Panic) => panic!("a panic on purpose"),
        rest => Ok(Rest(rest)),
    }
}

impl Rest {
    /// Lets the answer fail as planned.
    ///
    /// # Errors
    /// As planned.
    pub async fn after_answer(self) -> Result<(), CallFailure> {
        match self.0 {
            Some(Fault::LoseAnswer) => Err(lost(&[])),
            Some(Fault::RetryableAnswer) => Err(lost(&["retryable"])),
            Some(Fault::HoldAnswer) => {
                Delay::from(HOLD).await;
                Ok(())
            }
            _ => Ok(()),
        }
    }
}
