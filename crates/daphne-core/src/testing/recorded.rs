//! Exchanges recorded between a leader and a helper of another implementation, for whoever replays them.
//!
//! The recordings are not part of the repository; `DAPHNE_VECTORS` names the folder that holds `dap-09-wire/*.json`.

use std::path::{Path, PathBuf};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::{
    b64,
    codec::Reader,
    collect::collector::CollectorTask,
    hpke::{HpkeConfig, HpkeKeypair, Role},
    message::HpkeCiphertext,
    task::TaskSpec,
    wire::Wire,
};

/// One task's whole life at the helper.
#[derive(Clone)]
pub struct Recording {
    /// The file's name.
    pub name: String,
    /// The task, with the defaults of a helper.
    pub spec: TaskSpec,
    /// The helper's only HPKE key.
    pub helper_keys: HpkeKeypair,
    /// The collector's HPKE key.
    pub collector_keys: HpkeKeypair,
    /// In the order in which they took place.
    pub exchanges: Vec<Exchange>,
}

/// A request of the leader or of a client, and the helper's answer, which is a 200.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// When it took place, in seconds since the Unix epoch.
    pub unix_time: u64,
    /// The method.
    pub method: String,
    /// The path and query, under the helper's own URL.
    pub path: String,
    /// What was asked.
    pub request: Content,
    /// What was answered.
    pub response: Content,
}

/// A body with its media type; of no bytes if there was none.
#[derive(Clone, Debug)]
pub struct Content {
    /// The `Content-Type`.
    pub media_type: Option<String>,
    /// The body.
    pub body: Vec<u8>,
}

impl Recording {
    /// All recordings, in the order of their names; none, and a line that says so, if there are none at hand.
    ///
    /// # Panics
    /// If `DAPHNE_VECTORS` names something else.
    pub fn all() -> Vec<Self> {
        let Some(folder) = std::env::var_os("DAPHNE_VECTORS") else {
            say("VECTORS ABSENT: set DAPHNE_VECTORS");
            return Vec::new();
        };
        let folder = Path::new(&folder).join("dap-09-wire");
        let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)
            .unwrap_or_else(|e| panic!("DAPHNE_VECTORS: {}: {e}", folder.display()))
            .map(|entry| entry.expect("a folder that can be read").path())
            .filter(|path| path.extension().is_some_and(|e| e == "json"))
            .collect();
        files.sort_unstable();
        assert!(!files.is_empty(), "DAPHNE_VECTORS: {} holds no recording", folder.display());
        files.iter().map(|file| Self::read(file)).collect()
    }

    fn read(path: &Path) -> Self {
        let recorded = std::fs::read_to_string(path).expect("a file that can be read");
        let recorded: Value = serde_json::from_str(&recorded).expect("a recording is JSON");
        let collector_keys = keypair(&recorded["collector_hpke"]);
        let task = &recorded["task"];
        let timed = text(task, "query_type") == "ti";
        let vdaf = match &task["vdaf_params"] {
            Value::Object(none) if none.is_empty() => task["vdaf_type"].clone(),
            parameters => json!({ text(task, "vdaf_type"): parameters }),
        };
        let spec = json!({
            "task_id": task["task_id"],
            "version": "dap-09",
            "role": "helper",
            "batch_mode": if timed { "time-interval" } else { "leader-selected" },
            "vdaf": vdaf,
            "verify_key": task["verify_key"],
            "leader_token": text(&recorded["auth"], "aggregator_token"),
            "collector_hpke_config": collector_keys.config(),
            "min_batch_size": task["min_batch_size"],
            "time_precision": task["time_precision"],
            "max_batch_query_count": task["max_batch_query_count"],
        });
        let exchanges = recorded["exchanges"].as_array().expect("exchanges");
        Self {
            name: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            spec: serde_json::from_value(spec).expect("a task"),
            helper_keys: keypair(&recorded["helper_hpke"]),
            collector_keys,
            exchanges: exchanges.iter().map(Exchange::read).collect(),
        }
    }

    /// Has `answer` answer all requests, each job twice, and compares with what was recorded: byte for byte, but for
    /// aggregate shares, which are sealed anew and hold the same. Returns the number of exchanges.
    ///
    /// # Panics
    /// At the first difference.
    pub fn replay(&self, mut answer: impl FnMut(&Exchange) -> Vec<u8>) -> usize {
        let (mut lists, mut jobs, mut shares) = (0, 0, 0);
        for exchange in &self.exchanges {
            let (at, recorded) = (&exchange.path, &exchange.response.body);
            match exchange.method.as_str() {
                "GET" => {
                    assert_eq!(&answer(exchange), recorded, "{at}");
                    lists += 1;
                }
                "PUT" => {
                    assert_eq!(&answer(exchange), recorded, "{at}");
                    assert_eq!(&answer(exchange), recorded, "a repeat of {at}");
                    jobs += 1;
                }
                "POST" => {
                    let share = answer(exchange);
                    assert_ne!(&share, recorded, "sealed anew");
                    assert_eq!(self.open(exchange, &share), self.open(exchange, recorded), "{at}");
                    shares += 1;
                }
                other => panic!("{other} was recorded"),
            }
        }
        assert!(lists > 0 && jobs > 0 && shares > 0, "{} is not a whole life", self.name);
        lists + jobs + shares
    }

    /// Opens an answer to a request for an aggregate share.
    fn open(&self, exchange: &Exchange, share: &[u8]) -> Vec<u8> {
        let wire = Wire::new(self.spec.version, self.spec.time_precision);
        let request = wire.aggregate_share_request(&exchange.request.body).expect("a request");
        let task = CollectorTask {
            task_id: self.spec.task_id.as_ref().expect("recorded tasks have an id"),
            version: self.spec.version,
            task_configuration: &self.spec.task_configuration,
        };
        let share = HpkeCiphertext::decode(share).expect("a ciphertext");
        let binding = &request.share_binding;
        task.open_share(&self.collector_keys, Role::Helper, binding, share)
            .unwrap_or_else(|e| panic!("{}: {e}", self.name))
    }
}

impl Exchange {
    fn read(recorded: &Value) -> Self {
        assert_eq!(recorded["status"], 200);
        let content = |headers: &str, body: &str| Content {
            media_type: recorded[headers]["content-type"].as_str().map(str::to_owned),
            body: STANDARD.decode(text(recorded, body)).expect("base64"),
        };
        Self {
            // A positive number far below 2^53, whose fraction does not matter.
            unix_time: recorded["unix_time"].as_f64().expect("a time") as u64,
            method: text(recorded, "method").to_owned(),
            path: text(recorded, "path").to_owned(),
            request: content("request_headers", "request_body_base64"),
            response: content("response_headers", "response_body_base64"),
        }
    }
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_else(|| panic!("{name} is missing"))
}

fn keypair(value: &Value) -> HpkeKeypair {
    let config = b64::decode(text(value, "dap")).expect("base64url");
    let config = Reader::all(&config, HpkeConfig::read).expect("an HPKE configuration");
    assert_eq!(u64::from(config.id.0), value["id"]);
    let private_key = b64::decode(text(value, "priv")).expect("base64url");
    HpkeKeypair::from_parts(config, private_key.into()).expect("a key pair")
}

/// Writes a line past the test harness, which hides what passing tests print.
pub fn say(text: &str) {
    use std::io::Write as _;
    // A closed stderr is no reason to fail.
    let _ = writeln!(std::io::stderr(), "{text}");
}
