//! Tasks as the aggregator API names them: created, told, changed.

use serde::{Deserialize, Deserializer, Serialize};

use super::{IssuedToken, vdaf::VdafJson};
use crate::{
    b64,
    batch::BatchMode,
    hpke::HpkeConfig,
    ids::TaskId,
    seal::RootKeys,
    task::{self, Task, TaskError, TaskRole, TaskSpec},
    taskprov::check_url,
    time::{Duration, Time},
    version::DapVersion,
};

/// What is told as the leader's URL of a task whose creator did not say it: a name that leads nowhere (RFC 2606).
pub const UNKNOWN_PEER: &str = "https://leader.invalid/";

/// What a control plane said of a task that only an echo needs. It is part of what the task was created with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provisioned {
    /// The leader's DAP URL.
    pub leader_url: String,
    /// How long the leader fills one batch, in seconds. The Helper does not care.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch_time_window_size: Option<Duration>,
    /// The VDAF was called `Prio3CountVec`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_count_vec: bool,
}

/// Roles by their names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum RoleName {
    Collector,
    Client,
    Leader,
    Helper,
}

/// How reports are gathered into batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum QueryTypeJson {
    TimeInterval,
    FixedSize {
        max_batch_size: Option<u64>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        batch_time_window_size: Option<Duration>,
    },
}

/// Asks for a task: the body of `POST /tasks`. Holds a secret, the verify key.
#[derive(Deserialize)]
pub struct TaskCreate {
    peer_aggregator_endpoint: String,
    query_type: QueryTypeJson,
    vdaf: VdafJson,
    role: RoleName,
    #[serde(deserialize_with = "b64::serde_b64::deserialize")]
    vdaf_verify_key: Vec<u8>,
    max_batch_query_count: u64,
    task_expiration: Option<Time>,
    min_batch_size: u64,
    time_precision: Duration,
    collector_hpke_config: HpkeConfig,
    aggregator_auth_token: Option<serde::de::IgnoredAny>,
}

/// What making a task's secrets takes.
#[derive(Clone, Copy, Debug)]
pub struct Provisioning<'a> {
    /// Root keys of the deployment.
    pub root_keys: &'a RootKeys,
    /// Fresh randomness: the leader's token.
    pub secret: [u8; 16],
    /// Fresh randomness.
    pub nonce: [u8; 12],
}

impl TaskCreate {
    /// The task, checked, with a token for its leader. Its id is SHA-256 of its verify key.
    ///
    /// # Errors
    /// The control plane's fault: one sentence that says what to change.
    pub fn check(self, provisioning: &Provisioning<'_>) -> Result<Task, TaskError> {
        let refuse = |why: &str| Err(TaskError::new(why));
        match self.role {
            RoleName::Helper => {}
            RoleName::Leader => {
                return refuse("role must be Helper: this deployment does not lead tasks");
            }
            RoleName::Collector | RoleName::Client => {
                return refuse("role must be Helper, which is an aggregator's");
            }
        }
        if self.aggregator_auth_token.is_some() {
            return refuse("aggregator_auth_token must not be given to a Helper, which makes it");
        }
        check_url("peer_aggregator_endpoint", &self.peer_aggregator_endpoint)?;
        let (vdaf, is_count_vec) = self.vdaf.config()?;
        let (batch_mode, max_batch_size, batch_time_window_size) = match self.query_type {
            QueryTypeJson::TimeInterval => (BatchMode::TimeInterval, None, None),
            QueryTypeJson::FixedSize { max_batch_size, batch_time_window_size } => {
                (BatchMode::LeaderSelected, max_batch_size, batch_time_window_size)
            }
        };
        if let Some(window) = batch_time_window_size {
            let (window, precision) = (window.as_seconds(), self.time_precision.as_seconds());
            if window == 0 || window.checked_rem(precision) != Some(0) {
                return refuse("batch_time_window_size must be a multiple of time_precision");
            }
        }
        let id = task::id_of_verify_key(&self.vdaf_verify_key);
        let Provisioning { root_keys, secret, nonce } = provisioning;
        let issued = IssuedToken::new(&id, secret, root_keys, *nonce);
        let spec = TaskSpec {
            task_id: Some(id),
            version: DapVersion::V09,
            role: TaskRole::Helper,
            task_configuration: Vec::new(),
            batch_mode,
            max_batch_size,
            vdaf,
            verify_key: self.vdaf_verify_key,
            leader_token: None,
            leader_token_hash: Some(issued.hash),
            collector_hpke_config: self.collector_hpke_config,
            min_batch_size: self.min_batch_size,
            time_precision: self.time_precision,
            max_batch_query_count: self.max_batch_query_count,
            task_expiration: self.task_expiration,
            report_expiry_age: task::default_report_expiry_age(),
            tolerable_clock_skew: task::default_clock_skew(),
            shards: task::one_shard(),
            buckets_per_group: None,
        };
        let mut task = spec.check(root_keys.newest())?;
        task.parameters.provisioned = Some(Provisioned {
            leader_url: self.peer_aggregator_endpoint,
            batch_time_window_size,
            is_count_vec,
        });
        task.issued_token = Some(issued);
        Ok(task)
    }
}

/// Asks for a change of a task: the body of `PATCH /tasks/{id}`.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct TaskPatch {
    /// The end of the task; `None` leaves it as it is, `Some(None)` takes it away.
    #[serde(default, deserialize_with = "present")]
    pub task_expiration: Option<Option<Time>>,
}

/// Whatever is there was said, also if it is nothing.
fn present<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Option<Time>>, D::Error> {
    Option::deserialize(d).map(Some)
}

/// A bearer token as it is told.
#[derive(Serialize)]
struct BearerToken<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    token: &'a str,
}

/// A task as it is told. Secret: it holds the verify key and, in the answer to a creation, the leader's token.
#[derive(Serialize)]
pub struct TaskView<'a> {
    task_id: TaskId,
    peer_aggregator_endpoint: &'a str,
    query_type: QueryTypeJson,
    vdaf: VdafJson,
    role: RoleName,
    #[serde(serialize_with = "b64::serde_b64::serialize")]
    vdaf_verify_key: &'a [u8],
    max_batch_query_count: u64,
    task_expiration: Option<Time>,
    report_expiry_age: Option<Duration>,
    min_batch_size: u64,
    time_precision: Duration,
    tolerable_clock_skew: Duration,
    aggregator_auth_token: Option<BearerToken<'a>>,
    collector_hpke_config: &'a HpkeConfig,
    aggregator_hpke_configs: Vec<&'a HpkeConfig>,
}

impl<'a> TaskView<'a> {
    /// Tells a task, whoever created it, with the HPKE configurations that its clients use, and `token` to whom it is due.
    pub fn new(
        task: &'a Task,
        published: impl IntoIterator<Item = &'a HpkeConfig>,
        token: Option<&'a str>,
    ) -> Self {
        let parameters = &task.parameters;
        let provisioned = parameters.provisioned.as_ref();
        let leader_url = match (provisioned, &parameters.taskprov) {
            (Some(provisioned), _) => provisioned.leader_url.as_str(),
            (None, Some(origin)) => origin.leader_url.as_str(),
            (None, None) => UNKNOWN_PEER,
        };
        let query_type = match parameters.batch_mode {
            BatchMode::TimeInterval => QueryTypeJson::TimeInterval,
            BatchMode::LeaderSelected => QueryTypeJson::FixedSize {
                max_batch_size: parameters.max_batch_size,
                batch_time_window_size: provisioned.and_then(|p| p.batch_time_window_size),
            },
        };
        let role = match parameters.role {
            TaskRole::Helper => RoleName::Helper,
        };
        Self {
            task_id: parameters.task_id,
            peer_aggregator_endpoint: leader_url,
            query_type,
            vdaf: VdafJson::of(&parameters.vdaf, provisioned.is_some_and(|p| p.is_count_vec)),
            role,
            vdaf_verify_key: task.verify_key.as_bytes(),
            max_batch_query_count: parameters.max_batch_query_count,
            task_expiration: parameters.task_expiration,
            report_expiry_age: Some(parameters.report_expiry_age),
            min_batch_size: parameters.min_batch_size,
            time_precision: parameters.time_precision,
            tolerable_clock_skew: parameters.tolerable_clock_skew,
            aggregator_auth_token: token.map(|token| BearerToken { kind: "Bearer", token }),
            collector_hpke_config: &parameters.collector_hpke_config,
            aggregator_hpke_configs: published.into_iter().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        hpke::{HpkeKem, HpkeKeypair},
        ids::HpkeConfigId,
        task::StoredTask,
    };

    fn roots(versions: &[u8]) -> RootKeys {
        let root = |v: &u8| format!("{v}={}", b64::encode(&[*v; 32]));
        RootKeys::parse(&versions.iter().map(root).collect::<Vec<_>>().join(",")).unwrap()
    }

    fn collector() -> HpkeConfig {
        let keys =
            HpkeKeypair::derive(HpkeConfigId(7), HpkeKem::X25519HkdfSha256, &[1; 32]).unwrap();
        keys.config().clone()
    }

    /// As Divvi Up's control plane writes it to a Helper.
    fn create() -> Value {
        json!({
            "peer_aggregator_endpoint": "https://leader.example/",
            "query_type": { "FixedSize": { "max_batch_size": 999 } },
            "vdaf": { "Prio3CountVec": { "length": 5, "chunk_length": 2 } },
            "role": "Helper",
            "max_batch_query_count": 1,
            "task_expiration": 1_900_000_000,
            "min_batch_size": 100,
            "time_precision": 3600,
            "collector_hpke_config": collector(),
            "vdaf_verify_key": b64::encode(b"vdaf verify key!"),
        })
    }

    fn with(name: &str, value: Value) -> Value {
        let mut body = create();
        body[name] = value;
        body
    }

    fn check_under(body: &Value, keys: &RootKeys, secret: u8) -> Result<Task, String> {
        let provisioning = Provisioning { root_keys: keys, secret: [secret; 16], nonce: [2; 12] };
        let create: TaskCreate = serde_json::from_value(body.clone()).map_err(|e| e.to_string())?;
        create.check(&provisioning).map_err(|e| e.to_string())
    }

    fn check(body: &Value) -> Result<Task, String> {
        check_under(body, &roots(&[1]), 9)
    }

    #[test]
    fn a_created_task_is_told_as_it_was_asked_for_and_after_it_was_stored_too() {
        let keys = roots(&[1]);
        let task = check(&create()).unwrap();
        let stored = serde_json::to_vec(&task.seal(&keys, [3; 12])).unwrap();
        assert!(!String::from_utf8_lossy(&stored).contains(&b64::encode(&[9; 16])));
        let task = serde_json::from_slice::<StoredTask>(&stored).unwrap().open(&keys).unwrap();
        let token = task.issued_token.as_ref().unwrap().open(task.id(), &keys).unwrap();
        assert_eq!(*token, b64::encode(&[9; 16]));
        assert!(task.accepts_leader_token(&token));
        let key = collector();
        let view = TaskView::new(&task, [&key], Some(&token));
        // Text, so that the order of the fields is compared, too.
        let config = serde_json::to_string(&collector()).unwrap();
        let expected = format!(
            r#"{{"task_id":"RcLc9Z_Nnkh20BrS7fOykQDN5dUQdlpil06tx_zXpG8","peer_aggregator_endpoint":"https://leader.example/","query_type":{{"FixedSize":{{"max_batch_size":999}}}},"vdaf":{{"Prio3CountVec":{{"length":5,"chunk_length":2}}}},"role":"Helper","vdaf_verify_key":"dmRhZiB2ZXJpZnkga2V5IQ","max_batch_query_count":1,"task_expiration":1900000000,"report_expiry_age":1209600,"min_batch_size":100,"time_precision":3600,"tolerable_clock_skew":300,"aggregator_auth_token":{{"type":"Bearer","token":"CQkJCQkJCQkJCQkJCQkJCQ"}},"collector_hpke_config":{config},"aggregator_hpke_configs":[{config}]}}"#
        );
        assert_eq!(serde_json::to_string(&view).unwrap(), expected);
        let text = serde_json::to_string(&TaskView::new(&task, [], None)).unwrap();
        assert!(text.contains(r#""aggregator_auth_token":null"#) && text.ends_with(r#"[]}"#));
    }

    #[test]
    fn query_types_are_echoed_with_what_was_said_of_them() {
        for query_type in [
            json!("TimeInterval"),
            json!({ "FixedSize": { "max_batch_size": 100 } }),
            json!({ "FixedSize": { "max_batch_size": null } }),
            json!({ "FixedSize": { "max_batch_size": 100, "batch_time_window_size": 7200 } }),
        ] {
            let task = check(&with("query_type", query_type.clone())).unwrap();
            let view = serde_json::to_value(TaskView::new(&task, [], None)).unwrap();
            assert_eq!(view["query_type"], query_type);
        }
    }

    #[test]
    fn what_a_helper_cannot_take_is_refused_with_a_reason() {
        let fixed = |window: u64| json!({ "FixedSize": { "max_batch_size": 100, "batch_time_window_size": window } });
        for (name, value, reason) in [
            ("role", json!("Leader"), "does not lead"),
            ("role", json!("Collector"), "role must be Helper"),
            (
                "aggregator_auth_token",
                json!({ "type": "Bearer", "token": "t" }),
                "must not be given",
            ),
            ("vdaf_verify_key", json!(b64::encode(&[1; 15])), "16 bytes"),
            ("vdaf_verify_key", json!(b64::encode(&[1; 32])), "16 bytes"),
            ("vdaf_verify_key", json!("AAAAAAAAAAAAAAAAAAAAAA=="), "base64url"),
            ("peer_aggregator_endpoint", json!("leader.example"), "peer_aggregator_endpoint"),
            ("query_type", fixed(0), "multiple of time_precision"),
            ("query_type", fixed(5_400), "multiple of time_precision"),
            ("query_type", json!({ "FixedSize": { "max_batch_size": 99 } }), "max_batch_size"),
            ("max_batch_query_count", json!(2), "max_batch_query_count"),
            ("min_batch_size", json!(1), "min_batch_size"),
            ("time_precision", json!(0), "time_precision"),
        ] {
            let why = check(&with(name, value.clone())).unwrap_err();
            assert!(why.contains(reason), "{name} {value}: {why}");
        }
        // A multiproof task has a longer key.
        let mut body = with(
            "vdaf",
            json!({ "Prio3SumVecField64MultiproofHmacSha256Aes128": {
                "proofs": 2, "bits": 1, "length": 5, "chunk_length": 2
            } }),
        );
        assert!(check(&body).is_err());
        body["vdaf_verify_key"] = json!(b64::encode(&[1; 32]));
        assert!(check(&body).is_ok());
        for name in create().as_object().unwrap().keys().filter(|n| *n != "task_expiration") {
            let mut body = create();
            body.as_object_mut().unwrap().remove(name);
            assert!(check(&body).is_err(), "{name}");
        }
    }

    #[test]
    fn a_repeat_is_the_same_task_whatever_token_is_made_for_it() {
        let first = check(&create()).unwrap();
        let again = check_under(&create(), &roots(&[1, 2]), 5).unwrap();
        assert_ne!(first.leader_token_hashes, again.leader_token_hashes);
        assert_eq!(first.identity(), again.identity());
        let field_of_no_interest = check(&with("task_info", json!("x"))).unwrap();
        assert_eq!(first.identity(), field_of_no_interest.identity());
        for (name, value) in [
            ("task_expiration", json!(null)),
            ("min_batch_size", json!(101)),
            ("peer_aggregator_endpoint", json!("https://other.example/")),
            ("vdaf", json!({ "Prio3SumVec": { "bits": 1, "length": 5, "chunk_length": 2 } })),
        ] {
            assert_ne!(check(&with(name, value)).unwrap().identity(), first.identity(), "{name}");
        }
    }

    #[test]
    fn an_absent_expiration_is_not_one_that_is_taken_away() {
        let patch = |json: &str| serde_json::from_str::<TaskPatch>(json).unwrap().task_expiration;
        assert_eq!(patch("{}"), None);
        assert_eq!(patch(r#"{"task_expiration":null}"#), Some(None));
        assert_eq!(patch(r#"{"task_expiration":7}"#), Some(Some(Time::from_seconds(7))));
        assert!(serde_json::from_str::<TaskPatch>(r#"{"task_expiration":-1}"#).is_err());
    }
}
