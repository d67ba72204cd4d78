//! The wire vectors of DAP-18 in `tests/vectors/dap-18`, which others may use: they are what this code does, all of them are
//! looked at, and what takes their messages apart is not our codecs.
//!
//! With `DAPHNE_WRITE_VECTORS=1` the files are written instead (`scripts/vectors`). Clients' shares are taken from the files there
//! are, because `prio` draws their randomness itself; all else is a function of them.
#![cfg(not(target_arch = "wasm32"))]

mod exchange;
mod layout;
mod refusals;

#[path = "../vectors/mod.rs"]
#[allow(dead_code, reason = "each test file uses its part of the tables")]
mod vectors;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
};

use exchange::{Kind, World, kinds, recorded};
use layout::{bytes, explain, joined};
use serde_json::{Value, json};
use vectors::dap_18::TABLE;

fn folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/vectors/dap-18"))
}

fn read(name: &str) -> Option<Value> {
    let text = fs::read_to_string(folder().join(format!("{name}.json"))).ok()?;
    Some(serde_json::from_str(&text).unwrap())
}

/// The file of each group of messages, and what is in it.
const GROUPS: [(&str, &[&str]); 4] = [
    ("messages-task", &["TaskConfiguration", "Interval", "HpkeCiphertext", "Extension"]),
    (
        "messages-upload",
        &[
            "ReportMetadata",
            "Report",
            "UploadRequest",
            "ReportUploadStatus",
            "UploadErrors",
            "PlaintextInputShare",
        ],
    ),
    (
        "messages-aggregate",
        &[
            "ReportShare",
            "VerifyInit",
            "AggregationJobInitReq",
            "VerifyResp",
            "AggregationJobResp",
            "VerifyContinue",
            "AggregationJobContinueReq",
        ],
    ),
    (
        "messages-collect",
        &[
            "Query",
            "CollectionJobReq",
            "CollectionJobResp",
            "BatchSelector",
            "AggregateShareReq",
            "AggregateShare",
        ],
    ),
];

/// A group of messages: each as it is, and mutilated so that nobody may take it for one.
fn group(messages: &[&str]) -> Value {
    let (mut good, mut malformed) = (Vec::new(), Vec::new());
    for name in messages {
        let message = TABLE.named(name);
        for (n, (vector, (label, _))) in message.parsed().iter().zip(message.vectors).enumerate() {
            let mut explained = explain(name, &vector.bytes);
            explained["what"] = json!(label);
            good.push(explained);
            if n > 0 {
                continue;
            }
            let mut bad = vec![
                ("it ends too early", vector.bytes[..vector.bytes.len() - 1].to_vec()),
                ("it has a byte too much", [&vector.bytes[..], &[0]].concat()),
            ];
            if let Some(prefix) = vector.prefixes.last() {
                let mut longer = vector.bytes.clone();
                longer[prefix.clone()].fill(0xff);
                bad.push(("a length points past its end", longer));
            }
            for (why, bad) in bad {
                assert!(!(message.decodes)(&bad), "{name}: {why}");
                malformed
                    .push(json!({ "message": name, "what": why, "malformed": layout::hex(&bad) }));
            }
        }
    }
    json!({
        "about": "Messages of which nothing is sealed or verified: their fields hold any bytes. Those in `malformed` are refused with \
                  invalidMessage by whoever is sent one.",
        "messages": good,
        "malformed": malformed,
    })
}

/// What the files have to hold. Clients' shares are the recorded ones; `new` makes those that are not.
fn files(new: impl Fn(&World, usize) -> exchange::Shares) -> BTreeMap<String, Value> {
    let mut files = BTreeMap::new();
    for (name, messages) in GROUPS {
        files.insert(name.to_owned(), group(messages));
    }
    let mut exchanges: Vec<(Kind, Value)> = Vec::new();
    for kind in kinds() {
        let shares = match read(kind.name) {
            Some(file) => recorded(&file),
            None => (0..4).map(|n| new(&World::new(&kind), n)).collect(),
        };
        let mut exchange = World::new(&kind).exchange(&shares);
        exchange["about"] = json!(
            "One task's life: four reports, the aggregation job that they are in, and the collection of their batch."
        );
        files.insert(kind.name.to_owned(), exchange.clone());
        exchanges.push((kind, exchange));
    }
    files.insert("refused-requests".to_owned(), refusals::requests(&exchanges));
    files.insert("refused-reports".to_owned(), refusals::reports(&exchanges));
    files
}

/// JSON with a line for each field of a message.
fn text(file: &Value) -> String {
    let pretty = serde_json::to_string_pretty(file).unwrap();
    let (mut text, mut pair) = (String::new(), None);
    for line in pretty.lines() {
        let bare = line.trim();
        pair = match (pair, bare) {
            (None, "[") => Some(line.to_owned()),
            (Some(start), "]" | "],") => {
                text.push_str(&format!("{start}{bare}\n"));
                None
            }
            // Not a pair of two texts after all.
            (Some(start), "{" | "[") => {
                text.push_str(&format!("{start}\n{line}\n"));
                None
            }
            (Some(start), bare) => {
                let space = if start.ends_with(',') { " " } else { "" };
                Some(format!("{start}{space}{bare}"))
            }
            (None, _) => {
                text.push_str(&format!("{line}\n"));
                None
            }
        };
    }
    text
}

#[test]
fn the_published_vectors_are_what_this_code_does() {
    if std::env::var_os("DAPHNE_WRITE_VECTORS").is_some() {
        for (name, file) in files(World::shard) {
            fs::write(folder().join(format!("{name}.json")), text(&file)).unwrap();
        }
        return;
    }
    let files = files(|_, _| panic!("a file is missing: scripts/vectors writes it"));
    for (name, file) in &files {
        let kept = read(name).unwrap_or_else(|| panic!("{name} is missing: scripts/vectors"));
        assert!(kept == *file, "{name}.json is not what this code does: scripts/vectors");
    }
    let kept: BTreeSet<String> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let mut expected: BTreeSet<String> = files.keys().map(|name| format!("{name}.json")).collect();
    expected.insert("README.md".to_owned());
    assert_eq!(kept, expected, "a file is not used");
}

/// Every message in the files, whoever made it, is the encoding of what our decoder makes of it; what is malformed has no decoding.
#[test]
fn every_published_message_goes_through_our_decoders() {
    fn visit(value: &Value, seen: &mut BTreeSet<String>) {
        match value {
            Value::Object(object) => {
                if let Some(name) = object.get("message").and_then(Value::as_str) {
                    let ours = TABLE.messages.iter().find(|m| m.name == name);
                    if let Some(malformed) = object.get("malformed") {
                        assert!(!(ours.unwrap().decodes)(&bytes(malformed)), "{name}");
                    } else if let Some(ours) = ours {
                        let message = joined(value);
                        assert_eq!((ours.reencode)(&message).unwrap(), message, "{name}");
                    }
                    seen.insert(name.to_owned());
                }
                object.values().for_each(|value| visit(value, seen));
            }
            Value::Array(array) => array.iter().for_each(|value| visit(value, seen)),
            _ => {}
        }
    }
    let mut seen = BTreeSet::new();
    for entry in fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "json") {
            visit(&serde_json::from_slice(&fs::read(path).unwrap()).unwrap(), &mut seen);
        }
    }
    let mut all: BTreeSet<String> = TABLE.messages.iter().map(|m| m.name.to_owned()).collect();
    all.extend(["HpkeConfig", "InputShareAad", "AggregateShareAad"].map(str::to_owned));
    assert_eq!(seen, all);
}
