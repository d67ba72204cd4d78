//! `dapctl pair` against a server that answers as it is told.

mod common;

use common::{Server, dapctl, fails, path, serve};
use serde_json::{Value, json};
use tempfile::TempDir;

const MEDIA_TYPE: &str = "application/vnd.janus.aggregator+json;version=0.1";
const TOKEN: &str = "a-token-of-the-aggregator-api";

fn config() -> Value {
    json!({
        "protocol": "DAP-09", "dap_url": "{url}/v09/", "role": "Helper", "vdafs": ["Prio3Count", "Prio3Sum"],
        "query_types": ["TimeInterval"], "features": ["TokenHash"], "software_name": "Daphne Edge",
        "software_version": "0.1.0",
    })
}

/// One configuration: id 7, X25519, HKDF-SHA256, AES-128-GCM, and a key whose bytes are ASCII.
fn list() -> String {
    format!("\0\x29\x07\0\x20\0\x01\0\x01\0\x20{}", "\x05".repeat(32))
}

fn well() -> Server {
    serve(&[
        ("200 OK", MEDIA_TYPE, &config().to_string()),
        ("200 OK", "application/dap-hpke-config-list", &list()),
    ])
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn the_command_to_run_is_printed_without_the_token() {
    let Server { url, requests } = well();
    let output = dapctl(&["pair", &url, "--api-token", TOKEN, "--name", "Our helper"]);
    let printed = text(&output.stdout);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let line = format!(
        "\n  divviup aggregator create -n 'Our helper' -a {url}/aggregator-api -b \"$DAPCTL_API_TOKEN\"\n"
    );
    assert!(printed.contains(&line), "{printed}");
    assert!(printed.contains("Daphne Edge 0.1.0, DAP-09, Helper") && printed.contains("7 (X25519"));
    assert!(printed.contains("warning: the API URL is not https"), "{printed}");
    assert!(!printed.contains(TOKEN));
    // As control planes ask: the path as it is typed, the media type to the letter, no content type.
    let head = requests.recv().unwrap().to_ascii_lowercase();
    assert!(head.starts_with("get /aggregator-api http/1.1\r\n"), "{head}");
    assert!(head.contains(&format!("\r\naccept: {MEDIA_TYPE}\r\n")), "{head}");
    assert!(head.contains(&format!("\r\nauthorization: bearer {TOKEN}\r\n")), "{head}");
    assert!(!head.contains("content-type"), "{head}");
    // Keys are for everybody.
    let head = requests.recv().unwrap().to_ascii_lowercase();
    assert!(head.starts_with("get /v09/hpke_config http/1.1\r\n") && !head.contains(TOKEN));
}

#[test]
fn a_token_from_a_file_is_read_there_by_the_command_too_and_shown_if_that_is_wanted() {
    let folder = TempDir::new().unwrap();
    let file = &path(&folder, "token");
    std::fs::write(file, format!("{TOKEN}\n")).unwrap();
    let Server { url, requests: _requests } = well();
    let args = ["--output", "json", "--url", &url, "pair", "--api-token-file", file];
    let output = dapctl(&args);
    let shown: Value = serde_json::from_slice(&output.stdout).unwrap();
    let command = format!(
        "divviup aggregator create -n daphne-edge -a {url}/aggregator-api -b \"$(cat {file})\""
    );
    assert_eq!(shown["command"], command);
    assert_eq!(shown["dap_url"], format!("{url}/v09/"));
    assert_eq!(shown["hpke_configs"][0]["id"], 7);
    assert_eq!(shown["warnings"].as_array().unwrap().len(), 4);
    let Server { url, requests: _requests } = well();
    let output = dapctl(&["pair", &url, "--api-token-file", file, "--show-token"]);
    assert!(text(&output.stdout).contains(&format!(" -b {TOKEN}\n")));
}

#[test]
fn what_keeps_others_from_pairing_is_one_sentence() {
    let refused = |answers: &[(&str, &str, &str)], code: i32, expected: &str| {
        let server = serve(answers);
        let said = fails(&["pair", &server.url, "--api-token", TOKEN], code, expected);
        assert!(!said.contains(TOKEN));
    };
    let says = |value: Value, expected: &str| {
        refused(&[("200 OK", MEDIA_TYPE, &value.to_string())], 1, expected);
    };
    let with = |name: &str, value: &str| {
        let mut config = config();
        config[name] = json!(value);
        config
    };
    refused(&[("401 Unauthorized", MEDIA_TYPE, "")], 1, "AGGREGATOR_API_TOKENS");
    refused(&[("404 Not Found", "text/html", "")], 1, "there is no aggregator API");
    refused(&[("503 Service Unavailable", "text/html", "")], 1, "503");
    refused(&[("200 OK", "application/json", "{}")], 1, "content type");
    says(json!({}), "not understood");
    says(with("protocol", "DAP-18"), "no DAP-09 Helper");
    says(with("role", "Leader"), "no DAP-09 Helper");
    let config = config().to_string();
    let ok = ("200 OK", MEDIA_TYPE, config.as_str());
    let no_keys = ("503 Service Unavailable", "application/problem+json", "{}");
    refused(&[ok, no_keys], 1, "hpke_config");
    let no_list = ("200 OK", "application/dap-hpke-config-list", "\0\x01\x02");
    refused(&[ok, no_list], 1, "no list of HPKE configurations");
    fails(&["pair", "https://helper.example"], 2, "DAPCTL_API_TOKEN");
}

/// A file of secrets as `init` makes it, with these tokens of the aggregator API, and one for metrics.
fn secrets_file(folder: &TempDir, api_tokens: Option<&str>) -> String {
    let file = path(folder, "secrets of ours.json");
    let mut secrets = json!({
        "ROOT_KEYS": format!("1={}", common::ID), "ADMIN_TOKENS": "a-token-of-the-admin-api,another-one-of-it",
        "METRICS_TOKENS": "a-token-that-reads-metrics",
    });
    if let Some(tokens) = api_tokens {
        secrets["AGGREGATOR_API_TOKENS"] = tokens.into();
    }
    std::fs::write(&file, secrets.to_string()).unwrap();
    file
}

#[cfg(unix)]
#[test]
fn with_the_file_of_secrets_the_printed_command_runs_as_it_is() {
    use std::os::unix::fs::PermissionsExt as _;

    let folder = TempDir::new().unwrap();
    let file = secrets_file(&folder, Some(&format!("{TOKEN}, a-successor-of-that-token")));
    let Server { url, requests } = well();
    let output = dapctl(&["--url", &url, "--secrets-file", &file, "--output", "json", "pair"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let head = requests.recv().unwrap().to_ascii_lowercase();
    assert!(head.contains(&format!("\r\nauthorization: bearer {TOKEN}\r\n")), "{head}");
    assert!(!text(&output.stdout).contains(TOKEN));
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
    // Divvi Up's tool, which tells what it was told.
    let tool = folder.path().join("divviup");
    std::fs::write(&tool, "#!/bin/sh\nprintf '%s\\n' \"$@\"\n").unwrap();
    std::fs::set_permissions(&tool, std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
    let ran = std::process::Command::new("sh")
        .args(["-c", printed["command"].as_str().unwrap()])
        .env("PATH", path)
        .output()
        .unwrap();
    let api_url = format!("{url}/aggregator-api");
    let told =
        ["aggregator", "create", "-n", "daphne-edge", "-a", &api_url, "-b", TOKEN].join("\n");
    assert_eq!(text(&ran.stdout).trim_end(), told, "{}", text(&ran.stderr));
}

#[test]
fn tokens_of_the_file_of_secrets_are_for_other_programs() {
    let folder = TempDir::new().unwrap();
    let file = secrets_file(&folder, Some(TOKEN));
    let mut secrets: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    secrets["METRICS_TOKENS"] = json!("a-token-of-metrics,another-one-of-metrics");
    std::fs::write(&file, secrets.to_string()).unwrap();
    for (of, token) in
        [("api", TOKEN), ("admin", "a-token-of-the-admin-api"), ("metrics", "a-token-of-metrics")]
    {
        let output = dapctl(&["--secrets-file", &file, "secrets", "token", of]);
        assert_eq!(text(&output.stdout), format!("{token}\n"), "{}", text(&output.stderr));
        let args = ["--output", "json", "--secrets-file", &file, "secrets", "token", of];
        let shown: Value = serde_json::from_slice(&dapctl(&args).stdout).unwrap();
        assert_eq!(shown, json!({ "token": token }));
    }
    fails(&["secrets", "token", "api"], 2, "DAPCTL_SECRETS_FILE");
    fails(&["--secrets-file", &file, "secrets", "token", "root"], 2, "root");
    secrets.as_object_mut().unwrap().remove("METRICS_TOKENS");
    std::fs::write(&file, secrets.to_string()).unwrap();
    fails(&["--secrets-file", &file, "secrets", "token", "metrics"], 2, "holds no METRICS_TOKENS");
    let none = secrets_file(&folder, None);
    for command in [&["secrets", "token", "api"][..], &["pair", "https://helper.example"]] {
        let args = [&["--secrets-file", &none], command].concat();
        fails(&args, 2, "holds no AGGREGATOR_API_TOKENS");
    }
}
