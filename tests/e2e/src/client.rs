//! HTTP without manners: any method, header and body; every status is an answer.

use std::time::Duration;

use daphne_core::{ids::TaskId, version::DapVersion};
use serde_json::Value;
use ureq::{
    Agent, SendBody,
    http::{HeaderMap, Request},
};

use crate::heard;

/// Media type of a job's first request.
pub const JOB_INIT: &str = "application/dap-aggregation-job-init-req";
/// Media type of a job's later requests.
pub const JOB_CONTINUE: &str = "application/dap-aggregation-job-continue-req";
/// Media type of an aggregate-share request.
pub const SHARE_REQ: &str = "application/dap-aggregate-share-req";

/// What the types of DAP's problem documents begin with.
pub const URN: &str = "urn:ietf:params:ppm:dap:error:";

/// DAP-09's types of problems, DAP-09 §8.3, and taskprov-07 §4.8's.
const REGISTERED: &[&str] = &[
    "invalidMessage",
    "unrecognizedTask",
    "unrecognizedAggregationJob",
    "outdatedConfig",
    "reportRejected",
    "reportTooEarly",
    "batchInvalid",
    "invalidBatchSize",
    "batchQueriedTooManyTimes",
    "batchMismatch",
    "unauthorizedRequest",
    "missingTaskID",
    "stepMismatch",
    "batchOverlap",
    "invalidTask",
];

/// DAP-18's types of problems, DAP-18 §3.6, and taskprov's.
const REGISTERED_V18: &[&str] = &[
    "invalidMessage",
    "unrecognizedTask",
    "unrecognizedAggregationJob",
    "batchInvalid",
    "invalidBatchSize",
    "invalidAggregationParameter",
    "batchMismatch",
    "stepMismatch",
    "batchOverlap",
    "unsupportedExtension",
    "invalidExtension",
    "invalidTask",
];

/// Titles of problem documents, those of DAP-09 as Janus writes them; tools match on them.
const TITLES: &[(&str, &str)] = &[
    (
        "invalidMessage",
        "The message type for a response was incorrect or the payload was malformed.",
    ),
    ("unrecognizedTask", "An endpoint received a message with an unknown task ID."),
    (
        "unrecognizedAggregationJob",
        "An endpoint received a message with an unknown aggregation job ID.",
    ),
    ("batchInvalid", "The batch implied by the query is invalid."),
    ("invalidBatchSize", "The number of reports included in the batch is invalid."),
    (
        "batchQueriedTooManyTimes",
        "The batch described by the query has been queried too many times.",
    ),
    ("batchMismatch", "Leader and helper disagree on reports aggregated in a batch."),
    ("unauthorizedRequest", "The request's authorization is not valid."),
    ("stepMismatch", "The leader and helper are not on the same step of VDAF preparation."),
    ("batchOverlap", "The queried batch overlaps with a previously queried batch."),
    ("invalidAggregationParameter", "The aggregation parameter is not valid for the task's VDAF."),
    ("unsupportedExtension", "An extension is not supported."),
    ("invalidExtension", "The extensions are out of order or repeated."),
    ("invalidTask", "Aggregator has opted out of the indicated task."),
];

/// A client of one server.
#[derive(Clone, Debug)]
pub struct Client {
    agent: Agent,
    base: String,
}

/// An answer, of whatever status.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Vec<u8>,
}

impl Client {
    /// A client of the server at `base`, such as `http://127.0.0.1:8787`.
    pub fn new(base: &str) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            // A killed server leaves idle connections that look alive.
            .max_idle_connections(0)
            .allow_non_standard_methods(true)
            .timeout_global(Some(Duration::from_secs(90)))
            .build();
        Self { agent: Agent::new_with_config(config), base: base.to_owned() }
    }

    /// The server's URL.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Sends a request.
    ///
    /// # Errors
    /// There is no answer.
    pub fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> Result<Answer, Box<ureq::Error>> {
        let body = body.map(|bytes| bytes.to_vec());
        match body {
            Some(bytes) => self.run(method, path, headers, bytes),
            None => self.run(method, path, headers, ()),
        }
    }

    /// Sends a request whose length is not declared.
    ///
    /// # Errors
    /// There is no answer.
    pub fn send_chunked(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        mut body: &[u8],
    ) -> Result<Answer, Box<ureq::Error>> {
        self.run(method, path, headers, SendBody::from_reader(&mut body))
    }

    fn run(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl ureq::AsSendBody,
    ) -> Result<Answer, Box<ureq::Error>> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        for (name, value) in headers {
            if name.eq_ignore_ascii_case("authorization")
                || name.eq_ignore_ascii_case("dap-auth-token")
            {
                heard::secret(value);
            }
            request = request.header(*name, *value);
        }
        let request = request.body(body).expect("a request that can be written");
        let mut response = self.agent.run(request).map_err(Box::new)?;
        let body =
            response.body_mut().with_config().limit(64 << 20).read_to_vec().map_err(Box::new)?;
        let status = response.status().as_u16();
        let answer = Answer { status, headers: response.headers().clone(), body };
        heard::answer(path, &answer);
        Ok(answer.checked(path))
    }

    /// Sends a request that must be answered.
    pub fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> Answer {
        self.send(method, path, headers, body)
            .unwrap_or_else(|e| panic!("{method} {path} was not answered: {e}"))
    }

    /// Gets something that anyone may have.
    pub fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[], None)
    }
}

impl Answer {
    /// A header's value, or an empty string.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default()
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("not JSON: {e}: {} {}", self.status, self.text()))
    }

    /// What holds for every answer of ours: a problem document comes with an error status, says so itself, and uses DAP's
    /// namespace only for types that the version of its path registers. DAP-09 §3.2, DAP-18 §3.6.
    fn checked(self, path: &str) -> Self {
        if self.header("content-type") == "application/problem+json" && !self.body.is_empty() {
            assert!((400..600).contains(&self.status), "{}: {}", self.status, self.text());
            let document = self.json();
            assert_eq!(document["status"], self.status);
            let token = self.problem_token();
            let registered = if path.starts_with("/v18/") { REGISTERED_V18 } else { REGISTERED };
            let is_registered = registered.contains(&token.as_str());
            assert!(is_registered || document["type"] == "about:blank", "{document}");
        }
        self
    }

    /// Whether the same request may succeed later.
    pub fn is_temporary(&self) -> bool {
        self.status == 500 || self.status == 503
    }

    /// The body of a 200 with exactly this media type.
    #[track_caller]
    pub fn ok(&self, media_type: &str) -> &[u8] {
        assert_eq!(self.status, 200, "{}", self.text());
        assert_eq!(self.header("content-type"), media_type);
        &self.body
    }

    /// Asserts that this is a problem document with this status, and returns it.
    #[track_caller]
    fn problem(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text());
        assert_eq!(self.header("content-type"), "application/problem+json");
        let document = self.json();
        assert_eq!(document["status"], status);
        document
    }

    /// Asserts a refusal with one of DAP's types, in full.
    #[track_caller]
    pub fn refused(&self, token: &str, task: &TaskId) {
        let status = if token == "unauthorizedRequest" { 403 } else { 400 };
        let document = self.problem(status);
        assert_eq!(document["type"], format!("{URN}{token}"), "{document}");
        let (_, title) = TITLES.iter().find(|(t, _)| *t == token).expect("a type of DAP");
        assert_eq!(document["title"], *title);
        assert_eq!(document["taskid"], task.to_string());
    }

    /// Asserts the refusal of whoever is not the task's leader, in full.
    #[track_caller]
    pub fn refused_to_strangers(&self, version: DapVersion, task: &TaskId) {
        match version {
            DapVersion::V09 => self.refused("unauthorizedRequest", task),
            DapVersion::V18 => {
                self.refused_without_type(403);
                assert_eq!(self.json()["taskid"], task.to_string());
            }
        }
    }

    /// Asserts a refusal for which DAP has no type.
    #[track_caller]
    pub fn refused_without_type(&self, status: u16) {
        let document = self.problem(status);
        assert_eq!(document["type"], "about:blank");
        assert!(document["title"].as_str().is_some_and(|t| !t.is_empty()));
    }

    /// The token of the DAP type of a refusal; empty for any other answer.
    pub fn problem_token(&self) -> String {
        let document: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        document["type"].as_str().and_then(|t| t.strip_prefix(URN)).unwrap_or_default().to_owned()
    }
}
