//! One line of JSON per request, for the platform's log. It names the task, the job and what became of the reports; it
//! never holds a secret or bytes of a message.

use std::collections::BTreeMap;

use daphne_core::{
    error::Error,
    message::{VerifyResp, VerifyRespResult},
};
use serde::Serialize;
use worker::console_log;

use crate::router::Route;

/// What became of a request.
#[derive(Debug, Serialize)]
pub struct Outcome {
    route: &'static str,
    method: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    task: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    job: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    opted_in: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    accepted: Option<usize>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    rejected: BTreeMap<&'static str, usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    status: u16,
}

impl Outcome {
    /// A request that has just arrived.
    pub fn new(route: Route, method: String) -> Self {
        Self {
            route: route.label(),
            method,
            task: None,
            job: None,
            opted_in: false,
            accepted: None,
            rejected: BTreeMap::new(),
            error: None,
            status: 0,
        }
    }

    /// Which task it concerns.
    pub fn task(&mut self, id: impl ToString) {
        self.task = Some(id.to_string());
    }

    /// Which job it concerns.
    pub fn job(&mut self, id: impl ToString) {
        self.job = Some(id.to_string());
    }

    /// Its task came with it, and was not known before.
    pub fn opted_in(&mut self) {
        self.opted_in = true;
    }

    /// What became of its reports.
    pub fn reports(&mut self, answers: &[VerifyResp]) {
        for answer in answers {
            match answer.result {
                VerifyRespResult::Reject(error) => {
                    *self.rejected.entry(error.label()).or_default() += 1;
                }
                VerifyRespResult::Continue(_) | VerifyRespResult::Finish => {
                    *self.accepted.get_or_insert(0) += 1;
                }
            }
        }
    }

    /// Why it was not fulfilled.
    pub fn error(&mut self, error: &Error) {
        self.error = Some(match error {
            Error::Abort(abort) => format!("{:?}: {}", abort.kind, abort.detail),
            Error::Internal(internal) => internal.to_string(),
        });
    }

    /// How it was answered.
    pub fn status(&mut self, status: u16) {
        self.status = status;
    }
}

/// Writes the line.
pub fn write(outcome: &Outcome) {
    if let Ok(line) = serde_json::to_string(outcome) {
        console_log!("{line}");
    }
}
