//! A client of a DAP-09 helper's own endpoints, as a leader uses them.

use std::time::Duration;

use clap::ValueEnum;
use daphne_core::{
    codec::Reader,
    hpke::HpkeConfigList,
    ids::{AggregationJobId, TaskId},
    version::{DapVersion, Message},
};
use ureq::http::Method;

use crate::{
    Failure,
    http::{Answer, ClientError, Credential, Http, Request, Retry},
};

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
    task_id: TaskId,
    retry: Retry,
    advertises: bool,
}

/// A successful exchange.
#[derive(Clone, Debug)]
pub struct Success {
    /// The body.
    pub body: Vec<u8>,
    /// How long the successful attempt took.
    pub latency: Duration,
    /// How many attempts failed before it.
    pub retries: usize,
}

impl From<Answer> for Success {
    fn from(a: Answer) -> Self {
        Self { body: a.body, latency: a.latency, retries: a.attempts.saturating_sub(1) }
    }
}

impl HelperClient {
    /// A client. `base` is the helper's DAP URL, such as `http://127.0.0.1:8787/v09/`; `token` the leader's.
    ///
    /// # Errors
    /// [`Failure::Usage`] if the URL or the token is unusable.
    pub fn new(
        base: &str,
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
        Ok(Self { http: Http::new(base, credential)?, task_id, retry, advertises: false })
    }

    /// As it is, for a task that its leader brings along: each request holds its encoded parameters.
    ///
    /// # Errors
    /// [`Failure::Usage`] if they are unusable.
    pub fn advertising(self, config: &[u8]) -> Result<Self, Failure> {
        Ok(Self { http: self.http.advertising(config)?, advertises: true, ..self })
    }

    /// The helper's HPKE configurations for the task. DAP-09 §4.4.1.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn hpke_configs(&self) -> Result<HpkeConfigList, ClientError> {
        let path = if self.advertises {
            // The helper need not know the task yet: taskprov-07 §4.5.
            "hpke_config".to_owned()
        } else {
            format!("hpke_config?task_id={}", self.task_id)
        };
        let answer = self
            .send(Method::GET, &path, None)?
            .expect(&[200], media_type(Message::HpkeConfigList))?;
        Reader::all(&answer.body, HpkeConfigList::read).map_err(|e| {
            ClientError::Protocol(format!("the helper's HPKE configurations are malformed: {e}"))
        })
    }

    /// Begins an aggregation job, with an encoded `AggregationJobInitReq`; returns the encoded
    /// `AggregationJobResp`. DAP-09 §4.5.1.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn put_aggregation_job(
        &self,
        job: &AggregationJobId,
        body: &[u8],
    ) -> Result<Success, ClientError> {
        // The draft says 201; helpers in use also send 200.
        self.send(Method::PUT, &self.job_path(job), Some((Message::AggregationJobInit, body)))?
            .expect(&[200, 201], media_type(Message::AggregationJobResponse))
            .map(Into::into)
    }

    /// Continues an aggregation job, with an encoded `AggregationJobContinueReq`. DAP-09 §4.5.2.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn post_aggregation_job(
        &self,
        job: &AggregationJobId,
        body: &[u8],
    ) -> Result<Success, ClientError> {
        self.send(Method::POST, &self.job_path(job), Some((Message::AggregationJobContinue, body)))?
            .expect(&[200], media_type(Message::AggregationJobResponse))
            .map(Into::into)
    }

    /// Deletes an aggregation job. DAP-09 §4.5.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn delete_aggregation_job(&self, job: &AggregationJobId) -> Result<Success, ClientError> {
        self.send(Method::DELETE, &self.job_path(job), None)?
            .expect(&[200, 202, 204], None)
            .map(Into::into)
    }

    /// Asks for the aggregate share of a batch, with an encoded `AggregateShareReq`; returns the encoded
    /// `AggregateShare`. DAP-09 §4.6.2.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn post_aggregate_share(&self, body: &[u8]) -> Result<Success, ClientError> {
        let path = format!("tasks/{}/aggregate_shares", self.task_id);
        self.send(Method::POST, &path, Some((Message::AggregateShareRequest, body)))?
            .expect(&[200], media_type(Message::AggregateShare))
            .map(Into::into)
    }

    /// The HTTP client beneath, for requests that break the rules.
    pub const fn http(&self) -> &Http {
        &self.http
    }

    /// Path of an aggregation job, relative to the helper's base.
    pub fn job_path(&self, job: &AggregationJobId) -> String {
        format!("tasks/{}/aggregation_jobs/{job}", self.task_id)
    }

    fn send(
        &self,
        method: Method,
        path: &str,
        content: Option<(Message, &[u8])>,
    ) -> Result<Answer, ClientError> {
        let content = content.and_then(|(message, body)| Some((media_type(message)?, body)));
        self.http.send_retrying(&Request { method, path, content }, self.retry)
    }
}

const fn media_type(message: Message) -> Option<&'static str> {
    DapVersion::V09.media_type(message)
}
