//! What the Worker says about the code that it runs.

use std::{fs, path::Path};

use e2e::Server;
use sha2::{Digest, Sha256};

fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn the_worker_tells_which_bytes_it_runs() {
    let server = Server::start();
    let build = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../build-test");
    let wasm = hash(&fs::read(build.join("index_bg.wasm")).unwrap());
    let script = fs::read_to_string(build.join("index.js")).unwrap();
    let is_code = |line: &&str| !line.starts_with("globalThis.daphneBuild=");
    let script: String = script.split_inclusive('\n').filter(is_code).collect();
    let script = hash(script.as_bytes());
    for path in ["/version", "/v09/version"] {
        let answer = server.client().get(path);
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("content-type"), "application/json");
        assert_eq!(answer.header("cache-control"), "no-store");
        let told = answer.json();
        assert_eq!(told["software"], "daphne-edge");
        assert_eq!(told["protocols"], serde_json::json!(["DAP-09", "DAP-18"]));
        assert_eq!(told["version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(told["wasm_sha256"], wasm);
        assert_eq!(told["script_sha256"], script);
        assert!(told["compiler"].as_str().unwrap().starts_with("rustc "), "{told}");
        let commit = told["commit"].as_str().unwrap();
        let is_commit = commit.len() >= 40 && commit[..40].bytes().all(|b| b.is_ascii_hexdigit());
        assert!(is_commit || commit == "unknown", "{told}");
    }
}
