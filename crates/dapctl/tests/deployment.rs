//! `init` and `deploy` from outside, in a checkout whose wrangler is a script that says what it is told to say.

#![cfg(unix)]

mod common;

use std::{os::unix::fs::PermissionsExt as _, path::Path};

use common::{dapctl_in, dapctl_with, fails_in, nowhere, serve};
use serde_json::Value;
use tempfile::TempDir;

const KEY: &str = r#"{"config":{"id":7,"kem_id":"X25519HkdfSha256","kdf_id":"HkdfSha256","aead_id":"Aes128Gcm",
    "public_key":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"},"state":"active","activated":1,"since":1}"#;

/// A checkout; its wrangler answers to `secret list` and to `deploy` with these lines of shell.
fn checkout(list: &str, deploy: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    std::fs::write(root.join("wrangler.toml"), "").unwrap();
    script(&root.join("scripts/build"), "echo \"built ${DAPHNE_QUICK-well}\" >> calls");
    let wrangler = format!(
        "echo \"$@\" >> calls\ncase \"$1\" in\nsecret) {list} ;;\ndeploy) {deploy} ;;\nesac"
    );
    script(&root.join("node_modules/.bin/wrangler"), &wrangler);
    folder
}

fn script(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

fn calls(folder: &TempDir) -> String {
    std::fs::read_to_string(folder.path().join("calls")).unwrap_or_default()
}

const NONE_YET: &str = "echo 'X [ERROR] This Worker does not exist. [code: 10007]' >&2; exit 1";

#[test]
fn secrets_are_made_once_for_their_owner_only_and_not_printed() {
    let folder = checkout("", "");
    let output = dapctl_in(folder.path(), &["init", "--env", "production"]);
    assert!(output.status.success());
    let path = folder.path().join("secrets.production.json");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let secrets: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let printed = [output.stdout, output.stderr].concat();
    let printed = String::from_utf8(printed).unwrap();
    for name in ["ROOT_KEYS", "ADMIN_TOKENS", "AGGREGATOR_API_TOKENS", "METRICS_TOKENS"] {
        let secret = secrets[name].as_str().unwrap();
        assert!(secret.len() >= 43 && !printed.contains(secret), "{name}");
    }
    let text = fails_in(folder.path(), &["init", "--env", "production"], 2, "never overwritten");
    assert!(text.contains("secrets.production.json"), "{text}");
    assert_eq!(serde_json::from_slice::<Value>(&std::fs::read(&path).unwrap()).unwrap(), secrets);
    // Staging's are others, and are shown where that is asked for.
    let output =
        dapctl_in(folder.path(), &["--output", "json", "init", "--env", "staging", "--show"]);
    let shown: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_ne!(shown["secrets"]["ROOT_KEYS"], secrets["ROOT_KEYS"]);
    assert!(shown["secrets"]["ROOT_KEYS"].as_str().unwrap().starts_with("1="));
    // For this machine they are lines.
    assert!(dapctl_in(folder.path(), &["init", "--env", "dev"]).status.success());
    let lines = std::fs::read_to_string(folder.path().join(".dev.vars")).unwrap();
    assert!(
        lines.starts_with("ROOT_KEYS=\"1=") && lines.contains("\nMETRICS_TOKENS=\""),
        "{lines}"
    );
    // Outside of a checkout a file must be named.
    let elsewhere = tempfile::tempdir().unwrap();
    fails_in(elsewhere.path(), &["init", "--env", "production"], 2, "no wrangler.toml");
}

#[test]
fn init_sees_to_the_first_key_of_a_deployment_that_answers() {
    let folder = checkout("", "");
    dapctl_in(folder.path(), &["init", "--env", "production"]);
    let server = serve(&[
        ("200 OK", "application/json", r#"{"keys":[]}"#),
        ("201 Created", "application/json", KEY),
    ]);
    let args = ["--output", "json", "--url", &server.url, "init", "--env", "production"];
    let output = dapctl_in(folder.path(), &args);
    let json: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    assert_eq!((&json["created"], &json["hpke_key"]["id"]), (&false.into(), &7.into()));
    assert!(server.requests.recv().unwrap().starts_with("GET /admin/hpke_keys"));
    assert!(server.requests.recv().unwrap().starts_with("POST /admin/hpke_keys"));
}

#[test]
fn the_first_deployment_sends_the_secrets_and_ends_with_a_key() {
    let server = serve(&[
        ("200 OK", "application/json", r#"{"status":"ok"}"#),
        ("200 OK", "application/json", &format!("{{\"keys\":[{KEY}]}}")),
        (
            "200 OK",
            "application/json",
            r#"{"software":"s","version":"1","commit":"c","wasm_sha256":"h"}"#,
        ),
    ]);
    let folder = checkout(NONE_YET, "echo 'Deployed x triggers'");
    dapctl_in(folder.path(), &["init", "--env", "production"]);
    let args = [
        "--output",
        "json",
        "--url",
        &server.url,
        "deploy",
        "--env",
        "production",
        "--allow-local-url",
    ];
    let output = dapctl_in(folder.path(), &args);
    let stderr = String::from_utf8(output.stderr).unwrap();
    let json: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{stderr}"));
    assert_eq!((&json["deployed"], &json["secrets_sent"]), (&true.into(), &true.into()));
    assert_eq!(json["hpke_key"]["published"], 1);
    assert_eq!(json["running"], "s 1, commit c, wasm h");
    // What wrangler says is seen, and not where the result is read.
    assert!(stderr.contains("Deployed x triggers"), "{stderr}");
    let calls = calls(&folder);
    assert!(calls.contains("built well"), "{calls}");
    assert!(calls.contains("deploy --env production --secrets-file /"), "{calls}");
    assert!(calls.contains("secrets.production.json"), "{calls}");
}

#[test]
fn what_is_exported_for_one_deployment_is_not_sent_to_another() {
    let folder = checkout(NONE_YET, "echo 'Deployed x triggers'");
    let root = folder.path();
    for environment in ["dev", "production", "staging"] {
        assert!(dapctl_in(root, &["init", "--env", environment]).status.success());
    }
    let (laptop, url) = (root.join(".dev.vars"), nowhere());
    let exported = [
        ("DAPCTL_SECRETS_FILE", laptop.to_str().unwrap()),
        ("DAPCTL_URL", &url),
        ("DAPCTL_ADMIN_TOKEN", "a-token-of-another"),
    ];
    for environment in ["production", "staging"] {
        let output = dapctl_with(root, &exported, &["deploy", "--env", environment]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        // Nor was the exported URL asked, where nobody is.
        assert!(String::from_utf8(output.stdout).unwrap().contains("named no URL"));
        assert!(calls(&folder).contains(&format!("/secrets.{environment}.json")));
    }
    assert!(!calls(&folder).contains(".dev.vars"), "{}", calls(&folder));
    // What is said is done, wherever it is said.
    let other = root.join("other.json");
    std::fs::copy(root.join("secrets.staging.json"), &other).unwrap();
    let other = other.to_str().unwrap();
    for args in [
        ["--secrets-file", other, "deploy", "--env", "staging"],
        ["deploy", "--env", "staging", "--secrets-file", other],
    ] {
        std::fs::remove_file(root.join("calls")).unwrap();
        assert!(dapctl_with(root, &exported, &args).status.success());
        assert!(calls(&folder).contains("/other.json"), "{}", calls(&folder));
    }
}

#[test]
fn a_deployment_is_looked_at_where_it_can_be_met() {
    let folder = checkout(NONE_YET, "true");
    dapctl_in(folder.path(), &["init", "--env", "production"]);
    for (url, text) in [
        ("http://127.0.0.1:8787", "--allow-local-url"),
        ("https://localhost", "--allow-local-url"),
        ("http://dap.example.org", "https"),
        ("https://dap.example.org/v09/", "without /v09/"),
    ] {
        fails_in(folder.path(), &["--url", url, "deploy", "--env", "production"], 2, text);
    }
    assert!(!calls(&folder).contains("deploy"), "{}", calls(&folder));
}

#[test]
fn init_asks_no_deployment_that_was_not_said() {
    let folder = checkout("", "");
    let (url, elsewhere) = (nowhere(), folder.path().join("elsewhere.json"));
    let exported = [("DAPCTL_URL", &*url), ("DAPCTL_SECRETS_FILE", elsewhere.to_str().unwrap())];
    let init = ["init", "--env", "production"];
    let output = dapctl_with(folder.path(), &exported, &init);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(folder.path().join("secrets.production.json").exists() && !elsewhere.exists());
    // Said, it is asked, and that the file is there is told.
    let args = ["--url", &url, "init", "--env", "staging"];
    let text = fails_in(folder.path(), &args, 3, "no answer");
    assert!(text.contains("secrets.staging.json was made and is kept"), "{text}");
    let output = dapctl_in(folder.path(), &["init", "--help"]);
    let help = String::from_utf8(output.stdout).unwrap();
    assert!(help.contains("The first HPKE key is made in the deployment"), "{help}");
}

#[test]
fn a_later_deployment_leaves_the_secrets_that_are_there() {
    let there = r#"echo '[{"name":"ADMIN_TOKENS","type":"secret_text"},{"name":"ROOT_KEYS"}]'"#;
    let folder = checkout(there, "true");
    dapctl_in(folder.path(), &["init", "--env", "staging"]);
    let output = dapctl_in(folder.path(), &["deploy", "--env", "staging"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8(output.stdout).unwrap().contains("named no URL"));
    assert!(!calls(&folder).contains("--secrets-file"), "{}", calls(&folder));
    let output = dapctl_in(folder.path(), &["deploy", "--env", "staging", "--replace-secrets"]);
    assert!(output.status.success());
    assert!(calls(&folder).contains("--secrets-file"), "{}", calls(&folder));
}

#[test]
fn what_keeps_a_deployment_from_going_up_is_one_sentence() {
    let folder = checkout(NONE_YET, "true");
    let root = folder.path();
    fails_in(root, &["deploy", "--env", "dev"], 2, "wrangler dev");
    fails_in(root, &["deploy", "--env", "production"], 2, "dapctl init --env production");
    assert!(!calls(&folder).contains("built"), "what takes long comes last");
    std::fs::write(root.join("secrets.production.json"), r#"{"ROOT_KEYS":"1=sesame"}"#).unwrap();
    let text = fails_in(root, &["deploy", "--env", "production"], 2, "ROOT_KEYS");
    assert!(!text.contains("sesame"), "{text}");
    let dry =
        dapctl_in(checkout(NONE_YET, "true").path(), &["deploy", "--env", "staging", "--dry-run"]);
    assert!(dry.status.success(), "{}", String::from_utf8_lossy(&dry.stderr));

    let folder = checkout("echo 'X [ERROR] You are not logged in.' >&2; exit 1", "true");
    fails_in(folder.path(), &["deploy", "--env", "production"], 1, "You are not logged in.");
    let folder = checkout(NONE_YET, "echo 'X [ERROR] No route to it.' >&2; exit 1");
    dapctl_in(folder.path(), &["init", "--env", "production"]);
    let output = dapctl_in(folder.path(), &["deploy", "--env", "production"]);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr.ends_with("dapctl: wrangler did not deploy: No route to it.\n"), "{stderr}");

    let server =
        serve(&[("503 Service Unavailable", "application/json", r#"{"detail":"no ROOT_KEYS"}"#)]);
    let folder = checkout(NONE_YET, "true");
    dapctl_in(folder.path(), &["init", "--env", "production"]);
    let patience = ["--patience", "0", "--allow-local-url"];
    let args = [&["--url", &server.url, "deploy", "--env", "production"], &patience[..]].concat();
    let output = dapctl_in(folder.path(), &args);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr.contains("deployed, but not healthy") && stderr.contains("no ROOT_KEYS"),
        "{stderr}"
    );
}

#[test]
fn a_key_pair_is_made_offline_in_a_private_file() {
    let folder = tempfile::tempdir().unwrap();
    let args = ["--output", "json", "hpke", "generate", "--id", "0", "--out", "key.json"];
    let output = dapctl_in(folder.path(), &args);
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["config"]["id"], 0);
    let path = folder.path().join("key.json");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let keypair = dapctl::key_file::read(&path).unwrap();
    assert_eq!(serde_json::to_value(keypair.config()).unwrap(), json["config"]);
    fails_in(folder.path(), &args[2..], 2, "exists");
}
