//! Files with tasks: YAML as Janus' `provision-tasks` reads it, or our own.

use daphne_core::{
    hpke::HpkeKeypair,
    task::{REPORT_EXPIRY_AGE_MAX, TaskSpec},
    version::DapVersion,
};
use serde::de::Deserialize as _;
use serde_json::{Map, Value, json};

use crate::{Failure, output::clean, task_file};

/// A task of a file.
#[derive(Clone)]
pub struct ImportedTask {
    /// The task, checked.
    pub spec: TaskSpec,
    /// Key pairs that its clients may seal to.
    pub hpke_keys: Vec<HpkeKeypair>,
    /// Whether the file says that nothing is ever forgotten, which is not possible here.
    pub retention_is_ours: bool,
}

/// Shows the task's id only.
impl std::fmt::Debug for ImportedTask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ImportedTask").field("task_id", &self.spec.task_id).finish_non_exhaustive()
    }
}

/// Reads all documents of YAML, of which JSON is a part. A tagged value, `!Name value`, becomes `{"Name": value}`.
///
/// # Errors
/// Where it is malformed, in one sentence that does not quote it.
pub fn read_yaml(text: &str) -> Result<Vec<Value>, String> {
    let documents = yaml_serde::Deserializer::from_str(text).map(|document| {
        let value = yaml_serde::Value::deserialize(document).map_err(|e| match e.location() {
            Some(at) => format!("line {}, column {} is not YAML", at.line(), at.column()),
            None => "it is not YAML".to_owned(),
        })?;
        to_json(value)
    });
    documents.collect()
}

fn to_json(value: yaml_serde::Value) -> Result<Value, String> {
    use yaml_serde::Value as Yaml;
    Ok(match value {
        Yaml::Null => Value::Null,
        Yaml::Bool(b) => b.into(),
        Yaml::Number(n) => match (n.as_u64(), n.as_i64()) {
            (Some(n), _) => n.into(),
            (None, Some(n)) => n.into(),
            (None, None) => return Err("a number in it is no integer".into()),
        },
        Yaml::String(text) => text.into(),
        Yaml::Sequence(items) => {
            Value::Array(items.into_iter().map(to_json).collect::<Result<_, _>>()?)
        }
        Yaml::Mapping(entries) => {
            let entry = |(key, value): (Yaml, Yaml)| match key {
                Yaml::String(key) => Ok((key, to_json(value)?)),
                _ => Err("a name in it is no text".to_owned()),
            };
            Value::Object(entries.into_iter().map(entry).collect::<Result<_, _>>()?)
        }
        Yaml::Tagged(tagged) => {
            let name = tagged.tag.to_string().trim_start_matches('!').to_owned();
            Value::Object(Map::from_iter([(name, to_json(tagged.value)?)]))
        }
    })
}

/// Reads and checks the tasks of a file: one, a list, or a list under `tasks`. `retention` is for those whose reports would
/// never expire.
///
/// # Errors
/// [`Failure::Usage`] with the number of the task that is unusable. Never quotes a secret.
pub fn parse(text: &str, retention: Option<u64>) -> Result<Vec<ImportedTask>, Failure> {
    let usage = |why: &str| Failure::Usage(why.to_owned());
    let mut documents = read_yaml(text).map_err(Failure::Usage)?;
    let (Some(document), true) = (documents.pop(), documents.is_empty()) else {
        return Err(usage("expected one YAML document"));
    };
    let tasks = match document {
        Value::Array(tasks) => tasks,
        Value::Object(mut fields) => match fields.remove("tasks") {
            Some(Value::Array(tasks)) => tasks,
            Some(_) => return Err(usage("tasks is not a list")),
            None => vec![Value::Object(fields)],
        },
        _ => return Err(usage("it holds no tasks")),
    };
    let numbered = tasks.into_iter().enumerate();
    numbered
        .map(|(index, task)| {
            one(task, retention).map_err(|e| e.during(&format!("task {} of the file", index + 1)))
        })
        .collect()
}

fn one(task: Value, retention: Option<u64>) -> Result<ImportedTask, Failure> {
    let Value::Object(mut fields) = task else {
        return Err(Failure::Usage("it is not an object".into()));
    };
    // A task file holds its task as `spec`.
    if let Some(Value::Object(spec)) = fields.remove("spec") {
        fields = spec;
    }
    let (fields, hpke_keys, retention_is_ours) = if fields.contains_key("vdaf_verify_key") {
        of_janus(fields, retention)?
    } else {
        (fields, Vec::new(), false)
    };
    let mut spec = task_file::spec_from_value(Value::Object(fields))?;
    spec.task_id = Some(*task_file::check(&spec)?.id());
    Ok(ImportedTask { spec, hpke_keys, retention_is_ours })
}

type Translated = (Map<String, Value>, Vec<HpkeKeypair>, bool);

/// Translates a task as Janus 0.7 writes it.
fn of_janus(mut task: Map<String, Value>, retention: Option<u64>) -> Result<Translated, Failure> {
    let usage = |why: String| Failure::Usage(why);
    let mut take = |name: &str| task.remove(name).unwrap_or(Value::Null);
    if take("role") != json!("Helper") {
        return Err(usage("its role is not Helper, and this aggregator is one".into()));
    }
    let task_id = match take("task_id") {
        Value::Null => return Err(usage("it has no task_id".into())),
        id => id,
    };
    let (batch_mode, max_batch_size) = match take("query_type") {
        Value::String(name) if name == "TimeInterval" => ("time-interval", Value::Null),
        Value::String(name) if name == "FixedSize" => ("leader-selected", Value::Null),
        // How a leader cuts its batches by time is its own business.
        Value::Object(query) => match query.get("FixedSize") {
            Some(fixed) => ("leader-selected", fixed["max_batch_size"].clone()),
            None => return Err(usage("its query_type is not known".into())),
        },
        _ => return Err(usage("its query_type is not known".into())),
    };
    let (leader_token, leader_token_hash) =
        match (take("aggregator_auth_token_hash"), take("aggregator_auth_token")) {
            (Value::Null, token) => (token["token"].clone(), Value::Null),
            (hash, _) => (Value::Null, hash["hash"].clone()),
        };
    let expiry_age = take("report_expiry_age");
    let retention_is_ours = expiry_age.is_null();
    let expiry_age = match (expiry_age, retention) {
        (Value::Null, Some(seconds)) => json!(seconds),
        (given, _) => given,
    };
    if expiry_age.as_u64().is_some_and(|age| age > REPORT_EXPIRY_AGE_MAX.as_seconds()) {
        return Err(usage("its report_expiry_age is more than 366 days".into()));
    }
    let keys = match take("hpke_keys") {
        Value::Null => Vec::new(),
        Value::Array(keys) => keys,
        _ => return Err(usage("its hpke_keys are not a list".into())),
    };
    let keypair = |key: Value| {
        HpkeKeypair::from_secret_json(&key.to_string())
            .map_err(|e| usage(format!("its hpke_keys: {}", clean(&e))))
    };
    let fields = [
        ("task_id", task_id),
        ("version", json!(DapVersion::V09)),
        ("role", json!("helper")),
        ("batch_mode", json!(batch_mode)),
        ("max_batch_size", max_batch_size),
        ("vdaf", without_dp(take("vdaf"))?),
        ("verify_key", take("vdaf_verify_key")),
        ("leader_token", leader_token),
        ("leader_token_hash", leader_token_hash),
        ("collector_hpke_config", take("collector_hpke_config")),
        ("min_batch_size", take("min_batch_size")),
        ("time_precision", take("time_precision")),
        ("max_batch_query_count", take("max_batch_query_count")),
        ("task_expiration", take("task_expiration")),
        ("report_expiry_age", expiry_age),
        ("tolerable_clock_skew", take("tolerable_clock_skew")),
    ];
    // An absent field takes the default; null would not everywhere.
    let given = fields.into_iter().filter(|(_, value)| !value.is_null());
    let fields = given.map(|(name, value)| (name.to_owned(), value)).collect();
    let keys = keys.into_iter().map(keypair).collect::<Result<_, _>>()?;
    Ok((fields, keys, retention_is_ours))
}

/// A VDAF whose aggregates get no noise. Noise that one of two aggregators leaves out is not what was agreed upon.
fn without_dp(mut vdaf: Value) -> Result<Value, Failure> {
    let parameters = vdaf.as_object_mut().and_then(|vdaf| vdaf.values_mut().next());
    let strategy = parameters.and_then(Value::as_object_mut).and_then(|p| p.remove("dp_strategy"));
    let name = strategy.as_ref().map(|s| s.get("dp_strategy").unwrap_or(s));
    match name {
        None => Ok(vdaf),
        Some(name) if name == "NoDifferentialPrivacy" => Ok(vdaf),
        Some(_) => Err(Failure::Usage("its differential privacy strategy is not supported".into())),
    }
}

#[cfg(test)]
mod tests {
    use daphne_core::{b64, batch::BatchMode, vdaf::VdafConfig};

    use super::*;

    fn keys() -> HpkeKeypair {
        task_file::new_keypair().unwrap()
    }

    /// As Janus 0.7.145 documents it.
    fn yaml(role: &str, vdaf: &str, query: &str, age: &str, more: &str) -> String {
        let (collector, own) = (keys(), keys());
        let (c, o) = (collector.config(), own.config());
        format!(
            r#"# Tasks to be provisioned.
-
  task_id: "D-hCKPuqL2oTf7ZVRVyMP5VGt43EAEA8q34mDf6p1JE"
  peer_aggregator_endpoint: "https://example.org/"
  query_type: {query}
  vdaf: {vdaf}
  role: {role}
  vdaf_verify_key: "ZXtE4kLqtsCOr8h_pNUeoQ"
  max_batch_query_count: 1
  task_expiration: 1898190335
  report_expiry_age: {age}
  min_batch_size: 100
  time_precision: 300
  tolerable_clock_skew: 60
  collector_hpke_config:
    id: {}
    kem_id: X25519HkdfSha256
    kdf_id: HkdfSha256
    aead_id: Aes128Gcm
    public_key: {}
  aggregator_auth_token_hash:
    type: "Bearer"
    hash: "MJOoBO_ysLEuG_lv2C37eEOf1Ngetsr-Ers0ZYj4vdQ"
  collector_auth_token_hash:
  hpke_keys:
  - config:
      id: {}
      kem_id: X25519HkdfSha256
      kdf_id: HkdfSha256
      aead_id: Aes128Gcm
      public_key: {}
    private_key: {}
{more}"#,
            c.id,
            b64::encode(&c.public_key),
            o.id,
            b64::encode(&o.public_key),
            b64::encode(own.private_key()),
        )
    }

    #[test]
    fn a_helpers_tasks_are_read_as_janus_writes_them() {
        let text = yaml("Helper", "!Prio3Sum\n    bits: 16", "TimeInterval", "7776000", "");
        let [task] = <[_; 1]>::try_from(parse(&text, None).unwrap()).unwrap();
        assert_eq!(task.spec.vdaf, VdafConfig::Prio3Sum { max_measurement: 65_535 });
        assert_eq!(task.spec.batch_mode, BatchMode::TimeInterval);
        assert_eq!(task.spec.report_expiry_age.as_seconds(), 7_776_000);
        assert_eq!(
            (task.spec.min_batch_size, task.spec.tolerable_clock_skew.as_seconds()),
            (100, 60)
        );
        assert!(task.spec.leader_token.is_none() && task.spec.leader_token_hash.is_some());
        assert_eq!((task.hpke_keys.len(), task.retention_is_ours), (1, false));

        let fixed = "!FixedSize\n    max_batch_size: 100\n    batch_time_window_size: null";
        let dp = "!Prio3Histogram\n    length: 4\n    chunk_length: 2\n    \
                  dp_strategy:\n      dp_strategy: NoDifferentialPrivacy";
        let text = yaml("Helper", dp, fixed, "null", "");
        let [task] = <[_; 1]>::try_from(parse(&text, Some(86_400)).unwrap()).unwrap();
        assert_eq!(task.spec.vdaf, VdafConfig::Prio3Histogram { length: 4, chunk_length: 2 });
        assert_eq!(
            (task.spec.batch_mode, task.spec.max_batch_size),
            (BatchMode::LeaderSelected, Some(100))
        );
        assert_eq!(
            (task.spec.report_expiry_age.as_seconds(), task.retention_is_ours),
            (86_400, true)
        );
    }

    #[test]
    fn what_is_not_a_helpers_or_not_possible_is_refused_with_its_number() {
        let refused = |role: &str, vdaf: &str, query: &str, age: &str| {
            parse(&yaml(role, vdaf, query, age, ""), None).unwrap_err().to_string()
        };
        let why = refused("Leader", "Prio3Count", "TimeInterval", "null");
        assert!(why.starts_with("task 1 of the file: its role"), "{why}");
        let noise = "!Prio3Histogram\n    length: 4\n    chunk_length: 2\n    \
                     dp_strategy:\n      dp_strategy: PureDpDiscreteLaplace\n      budget: {}";
        assert!(refused("Helper", noise, "TimeInterval", "null").contains("differential privacy"));
        assert!(refused("Helper", "Prio3Count", "Other", "null").contains("query_type"));
        assert!(refused("Helper", "Prio3Count", "TimeInterval", "99999999").contains("366 days"));
        assert!(
            refused("Helper", "!Fake\n    rounds: 1", "TimeInterval", "null").contains("task 1")
        );
        for text in ["", "- a: [", "7", "[3]", "a: b", "--- 1\n--- 2"] {
            let why = parse(text, None).unwrap_err().to_string();
            assert!(!why.contains('\n'), "{why}");
        }
    }

    #[test]
    fn our_own_tasks_are_read_alone_in_lists_and_from_task_files() {
        let spec = json!({
            "version": "dap-09", "role": "helper", "batch_mode": "time-interval", "vdaf": "Prio3Count",
            "min_batch_size": 10, "time_precision": 3600, "verify_key": b64::encode(&[1; 16]),
            "leader_token": b64::encode(&[2; 32]), "collector_hpke_config": keys().config(),
        });
        for text in [
            spec.to_string(),
            json!([spec]).to_string(),
            json!({ "tasks": [spec] }).to_string(),
            json!({ "spec": spec, "helper_url": "http://h/" }).to_string(),
        ] {
            let tasks = parse(&text, None).unwrap();
            assert_eq!(tasks.len(), 1, "{text}");
            assert!(tasks[0].spec.task_id.is_some());
        }
        let mut wrong = spec;
        wrong["leader_token"] = json!(123_456_789);
        assert!(!parse(&wrong.to_string(), None).unwrap_err().to_string().contains("123456789"));
    }
}
