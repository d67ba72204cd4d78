//! `dapctl pair` against a server that answers as it is told.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::TcpListener,
    process::Output,
    sync::mpsc,
};

use assert_cmd::Command;
use serde_json::{Value, json};

const MEDIA_TYPE: &str = "application/vnd.janus.aggregator+json;version=0.1";
const TOKEN: &str = "a-token-of-the-aggregator-api";

/// Answers these requests in turn: status line, media type, body. `DAP-URL` in a body stands for the DAP URL.
fn serve(answers: Vec<(&'static str, &'static str, Vec<u8>)>) -> (String, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let dap_url = format!("{url}/v09/");
    let (sender, requests) = mpsc::channel();
    std::thread::spawn(move || {
        for (status, media_type, body) in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                reader.read_line(&mut head).unwrap();
            }
            sender.send(head).unwrap();
            let body = match String::from_utf8(body) {
                Ok(text) => text.replace("DAP-URL", &dap_url).into_bytes(),
                Err(bytes) => bytes.into_bytes(),
            };
            let head = format!(
                "HTTP/1.1 {status}\r\ncontent-type: {media_type}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                body.len()
            );
            stream.write_all(&[head.as_bytes(), &body].concat()).unwrap();
        }
    });
    (url, requests)
}

fn config() -> Value {
    json!({
        "protocol": "DAP-09", "dap_url": "DAP-URL", "role": "Helper", "vdafs": ["Prio3Count", "Prio3Sum"],
        "query_types": ["TimeInterval"], "features": ["TokenHash"], "software_name": "Daphne Edge",
        "software_version": "0.1.0",
    })
}

/// One configuration: id 7, X25519, HKDF-SHA256, AES-128-GCM.
fn list() -> Vec<u8> {
    [&[0, 41, 7, 0, 32, 0, 1, 0, 1, 0, 32][..], &[5; 32]].concat()
}

fn well() -> (String, mpsc::Receiver<String>) {
    serve(vec![
        ("200 OK", MEDIA_TYPE, config().to_string().into_bytes()),
        ("200 OK", "application/dap-hpke-config-list", list()),
    ])
}

fn dapctl(args: &[&str]) -> Output {
    let mut command = Command::cargo_bin("dapctl").unwrap();
    for name in ["DAPCTL_URL", "DAPCTL_ADMIN_TOKEN", "DAPCTL_API_TOKEN"] {
        command.env_remove(name);
    }
    command.args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn the_command_to_run_is_printed_without_the_token() {
    let (url, requests) = well();
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
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, format!("{TOKEN}\n")).unwrap();
    let file = file.to_str().unwrap();
    let (url, _requests) = well();
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
    let (url, _requests) = well();
    let output = dapctl(&["pair", &url, "--api-token-file", file, "--show-token"]);
    assert!(text(&output.stdout).contains(&format!(" -b {TOKEN}\n")));
}

#[test]
fn what_keeps_others_from_pairing_is_one_sentence() {
    let refused = |answers: Vec<_>, code: i32, expected: &str| {
        let (url, _requests) = serve(answers);
        let output = dapctl(&["pair", &url, "--api-token", TOKEN]);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.contains(expected) && said.lines().count() == 1, "{said}");
        assert!(!said.contains(TOKEN) && output.stdout.is_empty());
    };
    let ok = |value: Value| ("200 OK", MEDIA_TYPE, value.to_string().into_bytes());
    let with = |name: &str, value: &str| {
        let mut config = config();
        config[name] = json!(value);
        ok(config)
    };
    refused(vec![("401 Unauthorized", MEDIA_TYPE, vec![])], 1, "AGGREGATOR_API_TOKENS");
    refused(vec![("404 Not Found", "text/html", vec![])], 1, "there is no aggregator API");
    refused(vec![("503 Service Unavailable", "text/html", vec![])], 1, "503");
    refused(vec![("200 OK", "application/json", b"{}".to_vec())], 1, "content type");
    refused(vec![ok(json!({}))], 1, "not understood");
    refused(vec![with("protocol", "DAP-18")], 1, "no DAP-09 Helper");
    refused(vec![with("role", "Leader")], 1, "no DAP-09 Helper");
    let no_keys = ("503 Service Unavailable", "application/problem+json", b"{}".to_vec());
    refused(vec![ok(config()), no_keys], 1, "hpke_config");
    let no_list = ("200 OK", "application/dap-hpke-config-list", vec![0, 1, 2]);
    refused(vec![ok(config()), no_list], 1, "no list of HPKE configurations");
    let output = dapctl(&["pair", "https://helper.example"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("DAPCTL_API_TOKEN"));
}
