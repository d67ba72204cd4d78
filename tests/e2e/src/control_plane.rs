//! A control plane as Divvi Up's: it pairs with aggregators and provisions tasks, with the requests that it sends, header by
//! header, and what it checks in the answers.

use std::time::Duration;

use daphne_core::{
    b64,
    hpke::{HpkeConfig, HpkeKeypair},
    ids::TaskId,
    task::{TaskRole, TaskSpec, id_of_verify_key},
    time,
    vdaf::VdafConfig,
    version::DapVersion,
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    client::{Answer, Client},
    raw::Connection,
    server::{Server, random, random_token},
    world::{World, keypair, now},
};

/// The API's media type.
pub const MEDIA_TYPE: &str = "application/vnd.janus.aggregator+json;version=0.1";
/// The secret that turns the API on.
pub const API_TOKENS: &str = "AGGREGATOR_API_TOKENS";
/// Where the API is.
pub const API_PATH: &str = "/aggregator-api";

/// A server with the API, and a token for it.
pub fn start() -> (Server, String) {
    let mut server = Server::start();
    let token = random_token();
    server.set_secret(API_TOKENS, &token);
    (server, token)
}

/// What is read of a configuration.
#[derive(Debug, PartialEq, Eq, Deserialize)]
pub struct Paired {
    /// Where DAP is.
    pub dap_url: String,
    /// `Helper` of ours.
    pub role: String,
    /// Names.
    pub vdafs: Vec<String>,
    /// Names.
    pub query_types: Vec<String>,
    /// Must be the one that is known.
    pub protocol: String,
    /// Names; none if absent.
    #[serde(default)]
    pub features: Vec<String>,
}

/// What is told to whoever adds an aggregator that cannot be.
#[derive(Debug, PartialEq, Eq)]
pub enum FormError {
    /// 401 or 403.
    TokenNotRecognized,
    /// 404, or no answer.
    HttpError,
}

/// What is read of a task. Another field may be missing, none of these.
#[derive(Debug, Deserialize)]
pub struct Told {
    /// The task's id.
    pub task_id: TaskId,
    /// The other side's.
    pub peer_aggregator_endpoint: String,
    /// As it was asked for.
    pub query_type: Value,
    /// As it was asked for.
    pub vdaf: Value,
    /// Ours.
    pub role: String,
    /// The key.
    pub vdaf_verify_key: String,
    /// 1.
    pub max_batch_query_count: u64,
    /// The end.
    pub task_expiration: Option<u64>,
    /// Optional.
    pub report_expiry_age: Option<u64>,
    /// As it was asked for.
    pub min_batch_size: u64,
    /// As it was asked for.
    pub time_precision: u64,
    /// In seconds.
    pub tolerable_clock_skew: u64,
    /// Whom shares are sealed to.
    pub collector_hpke_config: HpkeConfig,
    /// In the answer to a creation only.
    pub aggregator_auth_token: Option<Token>,
    /// Whom reports are sealed to.
    pub aggregator_hpke_configs: Vec<HpkeConfig>,
}

/// A leader's token as it is told.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Token {
    /// Always `Bearer`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The token.
    pub token: String,
}

/// A task that somebody wants to have.
#[derive(Clone)]
pub struct Wanted {
    /// The VDAF as it is spelt in the API.
    pub vdaf: Value,
    /// The query type as it is spelt in the API.
    pub query_type: Value,
    /// The end of the task, in seconds.
    pub task_expiration: Option<u64>,
    /// In seconds.
    pub time_precision: u64,
    /// The key, from which the id follows.
    pub verify_key: [u8; 16],
    /// The collector's keys.
    pub collector_keys: HpkeKeypair,
}

impl Wanted {
    /// A task with a fresh key, as a subscriber describes it: it lives for a year.
    pub fn new(vdaf: Value, query_type: Value) -> Self {
        Self {
            vdaf,
            query_type,
            task_expiration: Some(now() + 365 * 86_400),
            time_precision: 3_600,
            verify_key: random(),
            collector_keys: keypair(200),
        }
    }

    /// The body of the request to the Helper, its fields in the order in which they are sent.
    pub fn to_helper(&self) -> String {
        let value = |value: &Value| value.to_string();
        let config = serde_json::to_string(self.collector_keys.config()).expect("JSON");
        format!(
            r#"{{"peer_aggregator_endpoint":"https://leader.example/","query_type":{},"vdaf":{},"role":"Helper","max_batch_query_count":1,"task_expiration":{},"min_batch_size":100,"time_precision":{},"collector_hpke_config":{config},"vdaf_verify_key":"{}"}}"#,
            value(&self.query_type),
            value(&self.vdaf),
            value(&json!(self.task_expiration)),
            self.time_precision,
            b64::encode(&self.verify_key),
        )
    }

    /// The task with its parties, as its leader runs it with the token that it was given. `vdaf` is what both mean.
    pub fn world(&self, server: &Server, vdaf: VdafConfig, told: &Told) -> World {
        let token = told.aggregator_auth_token.clone().expect("a token").token;
        let batch_mode = if self.query_type == json!("TimeInterval") {
            daphne_core::batch::BatchMode::TimeInterval
        } else {
            daphne_core::batch::BatchMode::LeaderSelected
        };
        let spec = TaskSpec {
            task_id: Some(told.task_id),
            version: DapVersion::V09,
            role: TaskRole::Helper,
            task_configuration: Vec::new(),
            batch_mode,
            max_batch_size: self.query_type["FixedSize"]["max_batch_size"].as_u64(),
            vdaf,
            verify_key: self.verify_key.to_vec(),
            leader_token: Some(token.clone()),
            leader_token_hash: None,
            collector_hpke_config: self.collector_keys.config().clone(),
            min_batch_size: 100,
            time_precision: time::Duration::from_seconds(self.time_precision),
            max_batch_query_count: 1,
            task_expiration: self.task_expiration.map(time::Time::from_seconds),
            report_expiry_age: time::Duration::from_seconds(14 * 86_400),
            tolerable_clock_skew: time::Duration::from_seconds(300),
            shards: 1,
            buckets_per_group: None,
        };
        World::of(server, spec, token, self.collector_keys.clone())
    }
}

/// The control plane, as it speaks to one aggregator.
pub struct ControlPlane {
    client: Client,
    token: String,
}

impl ControlPlane {
    /// One that was given this token.
    pub fn new(server: &Server, token: &str) -> Self {
        Self { client: server.client().clone(), token: token.to_owned() }
    }

    /// A request as it is written: these headers in this order, and no others.
    fn bytes(&self, method: &str, path: &str, body: Option<&str>) -> String {
        let host = self.client.base().trim_start_matches("http://");
        let mut request = format!(
            "{method} {path} HTTP/1.1\r\nauthorization: Bearer {}\r\naccept: {MEDIA_TYPE}\r\n",
            self.token
        );
        if body.is_some() {
            request += &format!("content-type: {MEDIA_TYPE}\r\n");
        }
        request += &format!("host: {host}\r\n");
        if let Some(body) = body {
            request += &format!("content-length: {}\r\n", body.len());
        }
        request + "\r\n" + body.unwrap_or_default()
    }

    /// Sends a request below the API's path, and returns the answer, which has the API's media type whatever it is.
    #[track_caller]
    pub fn ask(&self, method: &str, path: &str, body: Option<&str>) -> Answer {
        let path = format!("{API_PATH}{path}");
        let request = self.bytes(method, &path, body);
        let answer = Connection::to(&self.client).send(request).answer().expect("an answer");
        assert_eq!(answer.header("content-type"), MEDIA_TYPE, "{method} {path}");
        answer
    }

    /// Sends a request, and loses the answer.
    pub fn ask_and_hang_up(&self, method: &str, path: &str, body: &str) {
        let request = self.bytes(method, &format!("{API_PATH}{path}"), Some(body));
        let mut connection = Connection::to(&self.client);
        connection.send(request);
        // The request was handled when its answer begins.
        connection.text_within(Duration::from_millis(500));
    }

    /// Adds the aggregator whose API is at the path as somebody typed it, with or without a slash.
    ///
    /// # Errors
    /// What the form says then.
    pub fn pair(&self, slash: &str) -> Result<Paired, FormError> {
        let answer = self.ask("GET", slash, None);
        match answer.status {
            200 => {
                let paired: Paired = serde_json::from_slice(&answer.body).expect("a configuration");
                assert_eq!(paired.protocol, "DAP-09", "any other does not decode");
                Ok(paired)
            }
            401 | 403 => Err(FormError::TokenNotRecognized),
            404 => Err(FormError::HttpError),
            other => panic!("answered with {other}"),
        }
    }

    /// Asks the Helper for a task, and checks the echo.
    #[track_caller]
    pub fn provision(&self, wanted: &Wanted) -> Told {
        let told = self.told(&self.ask("POST", "/tasks", Some(&wanted.to_helper())));
        assert_eq!(told.vdaf, wanted.vdaf);
        assert_eq!(told.min_batch_size, 100);
        assert_eq!(told.query_type, wanted.query_type);
        assert_eq!(told.task_expiration, wanted.task_expiration);
        assert_eq!(told.time_precision, wanted.time_precision);
        assert_eq!(told.task_id, id_of_verify_key(&wanted.verify_key));
        let token = told.aggregator_auth_token.as_ref().expect("a token for the leader");
        assert_eq!(token.kind, "Bearer");
        assert!(token.token.len() >= 22);
        told
    }

    /// A task in an answer.
    #[track_caller]
    pub fn told(&self, answer: &Answer) -> Told {
        assert_eq!(answer.status, 200, "{}", answer.text());
        serde_json::from_slice(&answer.body).expect("a task")
    }

    /// Changes a task's end, and checks the echo.
    #[track_caller]
    pub fn set_expiration(&self, task: &TaskId, expiration: Option<u64>) -> Told {
        let body = json!({ "task_expiration": expiration }).to_string();
        let told = self.told(&self.ask("PATCH", &format!("/tasks/{task}"), Some(&body)));
        assert_eq!(told.task_expiration, expiration);
        assert_eq!(told.aggregator_auth_token, None);
        told
    }
}
