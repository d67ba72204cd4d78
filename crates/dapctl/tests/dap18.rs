//! Tasks of DAP-18 from outside: the configuration that all parties must have word for word.

mod common;

use std::process::Output;

use common::{ID, admin, dapctl, fails, idle_status, path, serve};
use daphne_core::{b64, wire::v18::TaskConfiguration};
use serde_json::{Value, json};
use tempfile::TempDir;

const LEADER: &str = "https://leader.example/v18";

/// What the admin API answers to a creation; `configuration` is base64url.
fn parameters(configuration: &str) -> String {
    json!({
        "task_id": ID, "version": "dap-18", "role": "helper", "batch_mode": "time-interval",
        "max_batch_size": null, "vdaf": "Prio3Count",
        "collector_hpke_config": {
            "id": 1, "kem_id": "X25519HkdfSha256", "kdf_id": "HkdfSha256", "aead_id": "Aes128Gcm", "public_key": ID
        },
        "min_batch_size": 10, "time_precision": 3600, "max_batch_query_count": 1, "task_expiration": null,
        "report_expiry_age": 1_209_600, "tolerable_clock_skew": 300, "shards": 1, "buckets_per_group": 24,
        "shard_key_version": 1, "task_configuration": configuration,
    })
    .to_string()
}

#[track_caller]
fn succeeds(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// What `task add` sends with these options, and what it keeps.
fn added(folder: &TempDir, options: &[&str]) -> (Value, Value) {
    let file = path(folder, "task.json");
    let server = serve(&[("201 Created", "application/json", &parameters(""))]);
    let args =
        [&["task", "add", "--version", "dap-18", "--save", &file, "--force"], options].concat();
    succeeds(&dapctl(&admin(&server.url, &args)));
    let request = server.requests.recv().unwrap();
    let sent: Value = serde_json::from_str(request.split_once("\r\n\r\n").unwrap().1).unwrap();
    let saved: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert_eq!(saved["spec"], sent);
    (sent, saved)
}

fn bytes(sent: &Value) -> Vec<u8> {
    b64::decode(sent["task_configuration"].as_str().unwrap()).unwrap()
}

#[test]
fn a_task_has_the_configuration_that_its_options_say() {
    let folder = TempDir::new().unwrap();
    let options = ["--leader-url", LEADER, "--task-info", "hits", "--vdaf", "count"];
    let interval = ["--task-start", "7200", "--task-duration", "3600"];
    let (sent, saved) = added(&folder, &[&options[..], &interval].concat());
    let bytes = bytes(&sent);
    let configuration = TaskConfiguration::decode(&bytes).unwrap();
    assert_eq!(configuration.task_info, b"hits");
    // As it was said, without a slash at its end.
    assert_eq!(configuration.leader_aggregator_endpoint, LEADER);
    let helper = configuration.helper_aggregator_endpoint;
    assert_eq!(saved["helper_url"], helper);
    assert!(helper.ends_with("/v18/"), "{helper}");
    let interval = configuration.task_interval().unwrap().unwrap();
    assert_eq!((interval.start, interval.duration), (2, 1));
    assert_eq!(sent["version"], "dap-18");
    assert_eq!(b64::decode(sent["verify_key"].as_str().unwrap()).unwrap().len(), 32);
    assert_eq!(sent["max_batch_query_count"], 1);
}

#[test]
fn the_helpers_url_is_in_the_configuration_byte_for_byte() {
    let folder = TempDir::new().unwrap();
    let given = "HTTPS://Helper.example:443/base";
    let options = ["--leader-url", LEADER, "--vdaf", "count", "--helper-url", given];
    let (sent, saved) = added(&folder, &options);
    let bytes = bytes(&sent);
    let configuration = TaskConfiguration::decode(&bytes).unwrap();
    assert_eq!(configuration.helper_aggregator_endpoint, given);
    assert_eq!(configuration.task_info.len(), 16);
    assert_eq!(saved["helper_url"], "https://helper.example/base/");
}

#[test]
fn what_a_partner_gave_is_taken_as_it_is() {
    let folder = TempDir::new().unwrap();
    let options = ["--leader-url", LEADER, "--vdaf", "sumvec", "--bits", "2", "--length", "3"];
    let more = ["--batch-mode", "leader-selected", "--time-precision", "60"];
    let (first, _) = added(&folder, &[&options[..], &more, &["--min-batch-size", "7"]].concat());
    let given = first["task_configuration"].as_str().unwrap();
    let (second, _) = added(&folder, &["--task-configuration", given]);
    for name in ["task_configuration", "vdaf", "batch_mode", "time_precision", "min_batch_size"] {
        assert_eq!(second[name], first[name], "{name}");
    }
    // A file may hold it as well, and is sent as it is.
    let spec = path(&folder, "spec.json");
    let mut fields = first.clone();
    fields.as_object_mut().unwrap().remove("vdaf");
    std::fs::write(&spec, fields.to_string()).unwrap();
    let server = serve(&[("201 Created", "application/json", &parameters(given))]);
    let shown = succeeds(&dapctl(&admin(&server.url, &["task", "add", "--file", &spec])));
    let request = server.requests.recv().unwrap();
    let sent: Value = serde_json::from_str(request.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!(sent["vdaf"], first["vdaf"]);
    // And is told for the partner to compare.
    assert!(shown.contains(given) && shown.contains(LEADER), "{shown}");
}

#[test]
fn a_configuration_is_shown_with_its_task() {
    let folder = TempDir::new().unwrap();
    let options = ["--leader-url", LEADER, "--task-info", "hits", "--vdaf", "count"];
    let (sent, _) = added(&folder, &options);
    let given = sent["task_configuration"].as_str().unwrap();
    let (task, status) = (parameters(given), idle_status());
    let answers = [("200 OK", "application/json", &*task), ("200 OK", "application/json", &status)];
    let show = |options: &[&str]| {
        let server = serve(&answers);
        let args = [options, &["task", "show", ID]].concat();
        succeeds(&dapctl(&admin(&server.url, &args)))
    };
    let shown: Value = serde_json::from_str(&show(&["--output", "json"])).unwrap();
    assert_eq!(shown["configuration"]["task_info"], "hits");
    assert_eq!(shown["configuration"]["leader_url"], LEADER);
    let text = show(&[]);
    assert!(text.contains("task_info hits") && text.contains("reports at any time"), "{text}");
}

#[test]
fn what_does_not_fit_together_is_a_usage_error() {
    let refused = |options: &[&str], text: &str| {
        let args = [&["task", "add", "--save", "/does/not/exist"], options].concat();
        fails(&admin("http://127.0.0.1:1", &args), 2, text);
    };
    refused(&["--vdaf", "count", "--version", "dap-19"], "expected dap-09 or dap-18");
    refused(&["--vdaf", "count", "--version", "dap-18"], "--leader-url");
    refused(&["--vdaf", "count", "--leader-url", LEADER], "has no configuration");
    refused(&["--task-configuration", "AA"], "configuration is malformed");
    refused(&["--vdaf", "count", "--task-configuration", "AA"], "cannot be used with");
    let new = ["--version", "dap-18", "--leader-url", LEADER, "--vdaf", "count"];
    let also = |more: &[&'static str]| [&new[..], more].concat();
    refused(&also(&["--task-start", "1"]), "--task-duration");
    refused(&also(&["--task-start", "1", "--task-duration", "3600"]), "multiple");
    refused(&also(&["--task-expiration", "7200"]), "task_expiration");
    refused(&also(&["--max-batch-query-count", "2"]), "max_batch_query_count");
    refused(&also(&["--verify-key", "AAAAAAAAAAAAAAAAAAAAAA"]), "32 bytes");
    for url in ["http://127.0.0.1:1/v18", "http://127.0.0.1:1/v18/"] {
        fails(&admin(url, &["task", "list"]), 2, "give the deployment's URL, without /v18/");
    }
}

#[test]
fn a_search_does_not_go_on_where_a_batch_is_collected_once() {
    let folder = TempDir::new().unwrap();
    let (_, saved) = added(&folder, &["--leader-url", LEADER, "--vdaf", "poplar1", "--bits", "8"]);
    assert_eq!(saved["spec"]["max_batch_query_count"], 1);
    let (file, reports) = (path(&folder, "task.json"), path(&folder, "r.jsonl"));
    std::fs::write(&reports, "").unwrap();
    let drive = ["drive", "--task", &file, "--reports", &reports];
    fails(&[&drive[..], &["--threshold", "3"]].concat(), 2, "--prefixes");
    fails(&drive, 2, "a threshold to search with, or prefixes to count");
    fails(&[&drive[..], &["--prefixes", "0,11"]].concat(), 2, "one length");
    fails(&[&drive[..], &["--prefixes", "2"]].concat(), 2, "--prefixes");
    // Prefixes can be counted; here there is nothing to count.
    fails(&[&drive[..], &["--prefixes", "11,00"]].concat(), 2, "there are no reports");
}
