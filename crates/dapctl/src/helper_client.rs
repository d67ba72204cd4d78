//! A client of a DAP helper's own endpoints, as a leader uses them, in each version of DAP.

mod location;

use std::time::{Duration, Instant};

use clap::ValueEnum;
use daphne_core::{
    codec::Reader,
    hpke::HpkeConfigList,
    ids::{AggregationJobId, TaskId},
    version::{DapVersion, Message},
};
use ureq::http::Method;

pub use self::location::Resource;
use crate::{
    Failure,
    http::{Answer, ClientError, Credential, Http, Request, Retry},
};

/// How long a deferred answer is waited for, unless it is said.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Times between questions for a deferred answer where the helper wishes none; they double.
const POLL_MIN: Duration = Duration::from_millis(100);
const POLL_MAX: Duration = Duration::from_secs(5);

/// Which header carries the leader's token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum AuthHeader {
    /// `Authorization: Bearer`.
    #[default]
    Bearer,
    /// `DAP-Auth-Token`.
    DapAuthToken,
}

/// A client of one task at one helper. Every request is retried as its [`Retry`] says.
#[derive(Clone, Debug)]
pub struct HelperClient {
    http: Http,
    version: DapVersion,
    task_id: TaskId,
    retry: Retry,
    patience: Duration,
    advertises: bool,
}

/// A successful exchange.
#[derive(Clone, Debug)]
pub struct Success {
    /// The body.
    pub body: Vec<u8>,
    /// How long the successful attempt took; of a deferred answer, from the first request on.
    pub latency: Duration,
    /// How many attempts failed before it.
    pub retries: usize,
}

/// What was created, or was there already, and what the helper answered.
#[derive(Clone, Debug)]
pub struct Created<R> {
    /// Where it is.
    pub at: R,
    /// The answer.
    pub success: Success,
}

impl From<Answer> for Success {
    fn from(a: Answer) -> Self {
        Self { body: a.body, latency: a.latency, retries: a.attempts.saturating_sub(1) }
    }
}

impl HelperClient {
    /// A client of a task of `version`. `base` is the helper's DAP URL, such as `http://127.0.0.1:8787/v09/`; `token` the
    /// leader's.
    ///
    /// # Errors
    /// [`Failure::Usage`] if the URL or the token is unusable.
    pub fn new(
        base: &str,
        version: DapVersion,
        task_id: TaskId,
        token: Option<&str>,
        header: AuthHeader,
        retry: Retry,
    ) -> Result<Self, Failure> {
        let credential = match (token, header) {
            (None, _) => Credential::None,
            (Some(token), AuthHeader::Bearer) => Credential::Bearer(token),
            (Some(token), AuthHeader::DapAuthToken) => Credential::DapAuthToken(token),
        };
        let http = Http::new(base, credential)?;
        Ok(Self { http, version, task_id, retry, patience: PATIENCE, advertises: false })
    }

    /// As it is, for a task that its leader brings along: each request holds its encoded parameters.
    ///
    /// # Errors
    /// [`Failure::Usage`] if they are unusable.
    pub fn advertising(self, config: &[u8]) -> Result<Self, Failure> {
        let header = self.version.taskprov_header(config);
        Ok(Self { http: self.http.advertising(&header)?, advertises: true, ..self })
    }

    /// As it is, waiting that long for an answer that the helper defers.
    pub fn waiting(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// The helper's HPKE configurations for the task. DAP-09 §4.4.1, DAP-18 §4.4.1.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn hpke_configs(&self) -> Result<HpkeConfigList, ClientError> {
        // A helper need not know yet what its leader will bring along: taskprov-07 §4.5.
        let path = if self.version.hpke_config_names_a_task() && !self.advertises {
            format!("hpke_config?task_id={}", self.task_id)
        } else {
            "hpke_config".to_owned()
        };
        let answer = self.send(Method::GET, &path, None)?;
        let answer = answer.of_type(self.media_type(Message::HpkeConfigList))?;
        Reader::all(&answer.body, HpkeConfigList::read).map_err(|e| {
            ClientError::Protocol(format!("the helper's HPKE configurations are malformed: {e}"))
        })
    }

    /// Where a job of this name is, if it is the leader who names jobs.
    pub fn job_named(&self, name: &AggregationJobId) -> Option<Resource> {
        let path = format!("{}/{name}", self.jobs());
        self.version.leader_names_jobs().then_some(Resource { path, step: None })
    }

    /// Begins an aggregation job, with an encoded `AggregationJobInitReq`; returns the encoded `AggregationJobResp`. `name` is
    /// its id in DAP-09 (§4.5.1); in DAP-18 (§4.5.3) the helper says where the job is.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn create_job(
        &self,
        name: &AggregationJobId,
        body: &[u8],
    ) -> Result<Created<Resource>, ClientError> {
        let content = Some((Message::AggregationJobInit, body));
        let (answer, at) = match self.job_named(name) {
            Some(job) => (self.send(Method::PUT, &job.path, content)?, job),
            None => {
                let answer = self.send(Method::POST, &self.jobs(), content)?;
                let at = self.located(&self.jobs(), &answer).ok_or_else(|| {
                    let why = "the helper does not say where the aggregation job is (Location)";
                    ClientError::Protocol(why.to_owned())
                })?;
                (answer, at)
            }
        };
        let success = self.settled(answer, Some(&at), Some(0), Message::AggregationJobResponse)?;
        Ok(Created { at, success })
    }

    /// Continues an aggregation job, with an encoded `AggregationJobContinueReq` for this step. DAP-09 §4.5.2, DAP-18 §4.5.4.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn continue_job(
        &self,
        job: &Resource,
        step: u16,
        body: &[u8],
    ) -> Result<Success, ClientError> {
        let content = Some((Message::AggregationJobContinue, body));
        let answer = self.send(Method::POST, &job.path, content)?;
        let at = self.located(&self.jobs(), &answer);
        let at = Resource { step: at.and_then(|at| at.step), ..job.clone() };
        self.settled(answer, Some(&at), Some(step), Message::AggregationJobResponse)
    }

    /// Deletes an aggregation job. DAP-09 §4.5, DAP-18 §4.5.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn delete_job(&self, job: &Resource) -> Result<Success, ClientError> {
        self.send(Method::DELETE, &job.path, None).map(Into::into)
    }

    /// Asks for the aggregate share of a batch, with an encoded `AggregateShareReq`; returns the encoded `AggregateShare`, and
    /// where it stays, if the helper keeps it. DAP-09 §4.6.2, DAP-18 §4.6.4.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn create_share(&self, body: &[u8]) -> Result<Created<Option<Resource>>, ClientError> {
        let path = format!("tasks/{}/aggregate_shares", self.task_id);
        let content = Some((Message::AggregateShareRequest, body));
        let answer = self.send(Method::POST, &path, content)?;
        let at = self.located(&path, &answer);
        let success = self.settled(answer, at.as_ref(), None, Message::AggregateShare)?;
        Ok(Created { at, success })
    }

    /// An aggregate share that was created. DAP-18 §4.6.4.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn share(&self, share: &Resource) -> Result<Success, ClientError> {
        let answer = self.send(Method::GET, &share.path, None)?;
        self.settled(answer, Some(share), None, Message::AggregateShare)
    }

    /// Has the helper forget an aggregate share. DAP-18 §4.6.5.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn delete_share(&self, share: &Resource) -> Result<Success, ClientError> {
        self.send(Method::DELETE, &share.path, None).map(Into::into)
    }

    /// The HTTP client beneath, for requests that break the rules.
    pub const fn http(&self) -> &Http {
        &self.http
    }

    fn jobs(&self) -> String {
        format!("tasks/{}/aggregation_jobs", self.task_id)
    }

    fn located(&self, collection: &str, answer: &Answer) -> Option<Resource> {
        // Where the leader names what it makes, no `Location` has a meaning.
        if self.version.leader_names_jobs() {
            return None;
        }
        location::located(self.http.base(), collection, answer.header("location"))
    }

    /// The answer, or the one that an empty answer is a promise of: asked for where it will be, as often as the helper wishes,
    /// and not for longer than [`HelperClient::waiting`] says. DAP-18 §3.2.
    fn settled(
        &self,
        mut answer: Answer,
        at: Option<&Resource>,
        step: Option<u16>,
        message: Message,
    ) -> Result<Success, ClientError> {
        let (begun, first) = (Instant::now(), answer.latency);
        let (mut pause, mut latency, mut retries) = (POLL_MIN, first, 0);
        loop {
            retries += answer.attempts.saturating_sub(1);
            if !(answer.body.is_empty() && self.version.may_defer()) {
                let body = answer.of_type(self.media_type(message))?.body;
                return Ok(Success { body, latency, retries });
            }
            let at = at.ok_or_else(|| {
                let why =
                    "the helper defers its answer, and does not say where it will be (Location)";
                ClientError::Protocol(why.to_owned())
            })?;
            let left = self.patience.saturating_sub(begun.elapsed());
            if left.is_zero() {
                let seconds = self.patience.as_secs();
                let why = format!("a deferred answer did not come within {seconds} s");
                return Err(ClientError::Protocol(why));
            }
            std::thread::sleep(answer.retry_after.unwrap_or(pause).max(POLL_MIN).min(left));
            pause = POLL_MAX.min(pause * 2);
            let path = match at.step.or(step) {
                Some(step) => format!("{}?step={step}", at.path),
                None => at.path.clone(),
            };
            answer = self.send(Method::GET, &path, None)?;
            latency = first + begun.elapsed();
        }
    }

    fn send(
        &self,
        method: Method,
        path: &str,
        content: Option<(Message, &[u8])>,
    ) -> Result<Answer, ClientError> {
        let content = content.map(|(message, body)| (self.media_type(message), body));
        self.http.send_retrying(&Request { method, path, content }, self.retry)?.success()
    }

    fn media_type(&self, message: Message) -> &'static str {
        // Every version has the messages that a leader and a helper exchange.
        self.version.media_type(message).unwrap_or_default()
    }
}
