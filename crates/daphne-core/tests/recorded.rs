//! Exchanges recorded between two processes of another implementation, replayed: this helper, with the recorded keys
//! and clock, gives the same answers.
//!
//! The recordings are not part of the repository; `DAPHNE_VECTORS` names the folder that holds `dap-09-wire/*.json`.
#![cfg(not(target_arch = "wasm32"))]

use std::path::{Path, PathBuf};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use daphne_core::{
    aggregate::{
        commit::{self, JobIdentity},
        helper::{HelperJob, HpkeKeyring},
    },
    b64,
    codec::Reader,
    collect::{collector::open_share_v09, helper::collect_request},
    error::Error,
    hpke::{HpkeConfig, HpkeConfigList, HpkeKeypair, Role},
    message::{AggregateShareRequest, AggregationJobInit, HpkeCiphertext},
    store::{
        Objects,
        message::{LedgerRequest, LedgerResponse},
        placement::ShardKey,
    },
    task::{Task, TaskSpec},
    testing::memory::MemoryCluster,
    time::Time,
    wire::v09,
};
use futures::executor::block_on;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// One task's whole life at the helper.
struct Recording {
    name: String,
    task: Task,
    helper_keys: HpkeKeyring,
    collector_keys: HpkeKeypair,
    exchanges: Vec<Exchange>,
}

struct Exchange {
    unix_time: u64,
    method: String,
    path: String,
    request: Vec<u8>,
    response: Vec<u8>,
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_else(|| panic!("{name} is missing"))
}

fn keypair(value: &Value) -> HpkeKeypair {
    let config = b64::decode(text(value, "dap")).unwrap();
    let config = Reader::all(&config, HpkeConfig::read).unwrap();
    assert_eq!(u64::from(config.id.0), value["id"]);
    HpkeKeypair::from_parts(config, b64::decode(text(value, "priv")).unwrap().into()).unwrap()
}

impl Recording {
    fn read(path: &Path, shards: u16, buckets_per_group: Option<u32>) -> Self {
        let recorded: Value =
            serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let (helper, collector) =
            (keypair(&recorded["helper_hpke"]), keypair(&recorded["collector_hpke"]));
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
            "collector_hpke_config": collector.config(),
            "min_batch_size": task["min_batch_size"],
            "time_precision": task["time_precision"],
            "shards": shards,
            "buckets_per_group": if timed { json!(buckets_per_group) } else { Value::Null },
        });
        let spec: TaskSpec = serde_json::from_value(spec).unwrap();
        let exchanges = recorded["exchanges"].as_array().unwrap().iter();
        Self {
            name: path.file_name().unwrap().to_string_lossy().into_owned(),
            task: spec.check(1).unwrap(),
            helper_keys: HpkeKeyring::new(vec![helper]),
            collector_keys: collector,
            exchanges: exchanges
                .map(|e| {
                    assert_eq!(e["status"], 200);
                    Exchange {
                        unix_time: e["unix_time"].as_f64().unwrap() as u64,
                        method: text(e, "method").to_owned(),
                        path: text(e, "path").to_owned(),
                        request: STANDARD.decode(text(e, "request_body_base64")).unwrap(),
                        response: STANDARD.decode(text(e, "response_body_base64")).unwrap(),
                    }
                })
                .collect(),
        }
    }

    fn put_job(&self, cluster: &MemoryCluster, exchange: &Exchange) -> Result<Vec<u8>, Error> {
        let init: AggregationJobInit<'_> =
            v09::AggregationJobInitReq::decode(&exchange.request)?.into();
        let now = Time::from_seconds(exchange.unix_time);
        let job = HelperJob::new(&self.task, &self.helper_keys, now, &init)?;
        let identity = JobIdentity {
            job: exchange.path.rsplit('/').next().unwrap().parse().unwrap(),
            digest: Sha256::digest(&exchange.request).into(),
            shard_key: ShardKey::new([5; 16]),
        };
        let answers = block_on(commit::run(cluster, &identity, &job))?;
        Ok(v09::AggregationJobResp::from(answers.as_slice()).encode().unwrap())
    }

    fn post_share(&self, cluster: &MemoryCluster, exchange: &Exchange) -> Vec<u8> {
        let request: AggregateShareRequest<'_> =
            v09::AggregateShareReq::decode(&exchange.request).unwrap().into();
        let digest = Sha256::digest(&exchange.request).into();
        let collect = collect_request(&self.task, &request, digest).unwrap();
        let collect = LedgerRequest::Collect(Box::new(collect));
        match block_on(cluster.ledger(self.task.id(), collect)).unwrap() {
            LedgerResponse::Share(share) => share,
            other => panic!("{}: {other:?}", self.name),
        }
    }

    fn open(&self, exchange: &Exchange, share: &[u8]) -> Vec<u8> {
        let request = v09::AggregateShareReq::decode(&exchange.request).unwrap();
        open_share_v09(
            self.task.id(),
            &self.collector_keys,
            Role::Helper,
            request.agg_param,
            request.batch_selector_encoded,
            HpkeCiphertext::decode(share).unwrap(),
        )
        .unwrap()
    }
}

fn recordings() -> Vec<PathBuf> {
    let Some(folder) = std::env::var_os("DAPHNE_VECTORS") else {
        say("VECTORS ABSENT: set DAPHNE_VECTORS");
        return Vec::new();
    };
    let folder = Path::new(&folder).join("dap-09-wire");
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .unwrap_or_else(|e| panic!("DAPHNE_VECTORS: {}: {e}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "json"))
        .collect();
    files.sort_unstable();
    assert!(!files.is_empty(), "DAPHNE_VECTORS: {} holds no recording", folder.display());
    files
}

#[test]
fn recorded_exchanges_are_answered_alike() {
    let mut answered = 0;
    for file in recordings() {
        for (shards, buckets_per_group) in [(1, None), (4, Some(1)), (3, Some(0))] {
            let recording = Recording::read(&file, shards, buckets_per_group);
            println!("{}: {shards} shards, {buckets_per_group:?}", recording.name);
            let cluster = MemoryCluster::new();
            let (mut jobs, mut shares, mut lists) = (0, 0, 0);
            for exchange in &recording.exchanges {
                cluster.set_time(exchange.unix_time);
                answered += 1;
                match exchange.method.as_str() {
                    "GET" => {
                        let list = Reader::all(&exchange.response, HpkeConfigList::read).unwrap();
                        let ours = recording.helper_keys.published().next().unwrap();
                        assert_eq!(list.0, std::slice::from_ref(ours));
                        lists += 1;
                    }
                    "PUT" => {
                        for _ in 0..2 {
                            let answer = recording.put_job(&cluster, exchange).unwrap();
                            assert_eq!(answer, exchange.response, "{}", exchange.path);
                        }
                        jobs += 1;
                    }
                    "POST" => {
                        let share = recording.post_share(&cluster, exchange);
                        assert_ne!(share, exchange.response, "sealed anew");
                        assert_eq!(
                            recording.open(exchange, &share),
                            recording.open(exchange, &exchange.response)
                        );
                        shares += 1;
                    }
                    other => panic!("{other} was recorded"),
                }
            }
            assert!(jobs > 0 && shares > 0 && lists > 0);
        }
    }
    if answered > 0 {
        say(&format!("VECTORS dap-09-wire: {answered} recorded exchanges answered alike"));
    }
}

/// Writes past the test harness, which hides what passing tests print.
fn say(text: &str) {
    use std::io::Write as _;
    // A closed stderr is no reason to fail.
    let _ = writeln!(std::io::stderr(), "{text}");
}
