//! Tokens that `task token add` and `peer token add` make.

#![cfg(unix)]

mod common;

use std::os::unix::fs::PermissionsExt as _;

use common::{ID, admin, dapctl, fails, nowhere, path, serve};
use serde_json::{Value, json};
use tempfile::TempDir;

const LEADER: &str = "https://leader.example/v09/";
const JSON: &str = "application/json";

const ADDS: [&[&str]; 2] = [&["task", "token", "add", ID], &["peer", "token", "add", LEADER]];

/// What the admin API answers to an addition.
fn added() -> String {
    json!({
        "endpoint": LEADER,
        "collector_hpke_config": {
            "id": 1, "kem_id": "X25519HkdfSha256", "kdf_id": "HkdfSha256", "aead_id": "Aes128Gcm", "public_key": ID
        },
        "policy": { "report_expiry_age": 1_209_600, "tolerable_clock_skew": 300, "shards": 1 },
        "leader_tokens": [{ "name": "1f0c52aa", "added": 1_700_000_000 }],
    })
    .to_string()
}

#[test]
fn a_token_that_is_not_given_is_made_and_kept_and_not_printed() {
    for (add, field) in ADDS.into_iter().zip(["leader_token", "add_leader_token"]) {
        let folder = TempDir::new().unwrap();
        let file = path(&folder, "token");
        let server = serve(&[("200 OK", JSON, &added())]);
        let output = dapctl(&admin(&server.url, &[add, &["--save", &file]].concat()));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let kept = std::fs::read_to_string(&file).unwrap();
        let token = kept.trim_end();
        assert_eq!(token.len(), 22, "16 bytes");
        let request = server.requests.recv().unwrap();
        let body: Value = serde_json::from_str(request.split_once("\r\n\r\n").unwrap().1).unwrap();
        assert_eq!(body[field], token);
        let printed = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(printed.contains("1f0c52aa") && !printed.contains(token), "{printed}");
    }
}

#[test]
fn a_token_is_neither_lost_nor_kept_for_nothing() {
    let folder = TempDir::new().unwrap();
    let file = path(&folder, "token");
    for add in ADDS {
        // Nobody would know it.
        let nobody = nowhere();
        fails(&admin(&nobody, add), 2, "--save FILE");
        let save = [add, &["--save", &file]].concat();
        let both = [&save[..], &["--leader-token", "another-long-token"]].concat();
        fails(&admin(&nobody, &both), 2, "cannot be used with");
        fails(&admin(&nobody, &save), 3, "no answer");
        let server = serve(&[("404 Not Found", JSON, "{}")]);
        fails(&admin(&server.url, &save), 1, "no such");
        let server = serve(&[("409 Conflict", JSON, "{}")]);
        fails(&admin(&server.url, &save), 1, "409");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        // It may have been added.
        let server = serve(&[("500 Oops", JSON, "{}")]);
        fails(&admin(&server.url, &save), 1, "the file is kept");
        fails(&admin(&nobody, &save), 2, "exists, and is not overwritten");
        std::fs::remove_file(&file).unwrap();
    }
}
