//! One line of JSON per request, for the platform's log. It names the request, the task, the job and what became of the
//! reports; it never holds a secret or bytes of a message.

use std::collections::BTreeMap;

use daphne_core::{
    b64,
    error::{Abort, Error, Internal},
    ids::TaskId,
    message::{VerifyResp, VerifyRespResult},
    metrics::{Refusal, Resource},
    version::{DapVersion, Endpoint},
};
use serde::Serialize;
use storage_proxy::random;
use worker::{Date, Request, console_log};

use crate::router::Route;

/// What became of a request.
#[derive(Debug, Serialize)]
pub struct Outcome {
    request: String,
    route: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'static str>,
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
    #[serde(skip)]
    kind_of_error: &'static str,
    status: u16,
    ms: u64,
    #[serde(skip)]
    began_ms: u64,
    #[serde(skip)]
    resource: Option<Resource>,
    #[serde(skip)]
    leader_of: Option<TaskId>,
}

/// Longest id of a request that is taken from its header.
const REQUEST_ID_MAX: usize = 64;

/// Names a request: as Cloudflare does, or else at random. What else a client puts there is not repeated.
fn request_id(request: &Request) -> String {
    let ray = request.headers().get("CF-Ray").ok().flatten();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
    ray.filter(|id| (1..=REQUEST_ID_MAX).contains(&id.len()) && id.chars().all(is_plain))
        .unwrap_or_else(|| b64::encode(&random::bytes::<12>()))
}

/// What a leader's refused requests are counted under.
const fn resource(endpoint: Endpoint) -> Option<Resource> {
    match endpoint {
        Endpoint::HpkeConfig => None,
        Endpoint::NamedAggregationJob | Endpoint::AggregationJobs | Endpoint::AggregationJob => {
            Some(Resource::AggregationJobs)
        }
        Endpoint::AggregateShareRequests | Endpoint::AggregateShares | Endpoint::AggregateShare => {
            Some(Resource::AggregateShares)
        }
    }
}

impl Outcome {
    /// A request that has just arrived.
    pub fn new(route: Route, request: &Request) -> Self {
        Self {
            request: request_id(request),
            route: route.label(),
            version: route.version().map(DapVersion::tag),
            method: request.inner().method(),
            task: None,
            job: None,
            opted_in: false,
            accepted: None,
            rejected: BTreeMap::new(),
            error: None,
            kind_of_error: "",
            status: 0,
            ms: 0,
            began_ms: Date::now().as_millis(),
            resource: match route {
                Route::Dap(_, endpoint) => resource(endpoint),
                _ => None,
            },
            leader_of: None,
        }
    }

    /// The leader of this task asks, as its credentials say.
    pub fn is_of_leader(&mut self, task: TaskId) {
        self.leader_of = Some(task);
    }

    /// The task whose leader asks.
    pub fn leader_of(&self) -> Option<&TaskId> {
        self.leader_of.as_ref()
    }

    /// Whoever refused the request has counted that.
    pub fn refusal_is_counted(&mut self) {
        self.resource = None;
    }

    /// The refusal of a leader's request, unless it is counted.
    pub fn uncounted_refusal(&self, error: &Error) -> Option<(TaskId, Refusal)> {
        let Error::Abort(Abort { kind, detail }) = error else { return None };
        let (task, resource) = (self.leader_of?, self.resource?);
        Some((task, Refusal { resource, kind: *kind, detail: detail.clone() }))
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
        self.kind_of_error = match error {
            Error::Abort(abort) => abort.kind.label(),
            Error::Internal(Internal::Unavailable(_)) => "unavailable",
            Error::Internal(Internal::Overloaded(_)) => "overloaded",
            Error::Internal(Internal::Broken(_)) => "broken",
        };
    }

    /// How it was answered. The clock stands still while the Worker computes, so the time is that of its waiting.
    pub fn status(&mut self, status: u16) {
        self.status = status;
        self.ms = Date::now().as_millis().saturating_sub(self.began_ms);
    }

    /// Name of its route.
    pub const fn route(&self) -> &'static str {
        self.route
    }

    /// Its method.
    pub fn method(&self) -> &str {
        &self.method
    }

    /// What kind of error it is answered with; empty for none.
    pub const fn kind_of_error(&self) -> &'static str {
        self.kind_of_error
    }

    /// The status of its answer.
    pub const fn http_status(&self) -> u16 {
        self.status
    }

    /// How long it took.
    pub const fn milliseconds(&self) -> u64 {
        self.ms
    }

    /// Reports that were accepted.
    pub fn accepted_reports(&self) -> usize {
        self.accepted.unwrap_or_default()
    }

    /// Reports that were refused with this error.
    pub fn refused(&self, label: &str) -> usize {
        self.rejected.get(label).copied().unwrap_or_default()
    }
}

/// Writes the line.
pub fn write(outcome: &Outcome) {
    if let Ok(line) = serde_json::to_string(outcome) {
        console_log!("{line}");
    }
}
