//! `doctor` and `pair` from outside: whom they tell secrets.

mod common;

use std::path::Path;

use common::{Server, dapctl_with, nowhere, path, serve};
use dapctl::secrets_file::DeploymentSecrets;
use serde_json::Value;
use tempfile::TempDir;

const HEALTHY: &str = r#"{"status":"ok"}"#;

/// A deployment that answers everything the same way, and often enough for all checks.
fn deployment(status: &str, body: &str) -> Server {
    serve(&[(status, "application/json", body); 40])
}

fn secrets(folder: &TempDir) -> (String, DeploymentSecrets) {
    let file = path(folder, "secrets.json");
    let secrets = DeploymentSecrets::generate().unwrap();
    secrets.save(Path::new(&file), false).unwrap();
    (file, secrets)
}

/// What `doctor` said of each check, and whether either token came to the server.
fn examined(
    server: &Server,
    secrets: &DeploymentSecrets,
    exported: &[(&str, &str)],
    args: &[&str],
) -> (Value, bool) {
    let args = [&["--output", "json", "doctor", "--no-canary"], args].concat();
    let output = dapctl_with(Path::new("."), exported, &args);
    let json: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    let tokens = [secrets.admin_token(), secrets.api_token().unwrap()];
    let mut requests = server.requests.try_iter();
    let told = requests.any(|request| tokens.iter().any(|token| request.contains(token)));
    (json["checks"].clone(), told)
}

#[track_caller]
fn skipped(checks: &Value, text: &str) {
    for name in ["admin", "root_keys", "canary", "aggregator_api"] {
        let check = checks.as_array().unwrap().iter().find(|check| check["name"] == name).unwrap();
        assert_eq!(check["verdict"], "skipped", "{check}");
        assert!(check["detail"].as_str().unwrap().contains(text), "{check}");
    }
}

#[test]
fn tokens_are_sent_to_this_worker_only() {
    let folder = TempDir::new().unwrap();
    let (file, secrets) = secrets(&folder);
    let options = ["--secrets-file", &*file];
    let server = deployment("200 OK", HEALTHY);
    assert!(examined(&server, &secrets, &[], &[&options[..], &[&server.url]].concat()).1);
    for (status, body) in [
        ("200 OK", "<p>hello"),
        ("200 OK", r#"{"status":"up"}"#),
        ("404 Not Found", HEALTHY),
        ("301 Moved", HEALTHY),
    ] {
        let server = deployment(status, body);
        let args = [&options[..], &[&server.url]].concat();
        let (checks, told) = examined(&server, &secrets, &[], &args);
        assert!(!told, "{status} {body}");
        skipped(&checks, "not this Worker");
    }
}

#[test]
fn tokens_are_not_sent_in_clear_to_another_machine() {
    let folder = TempDir::new().unwrap();
    let (file, secrets) = secrets(&folder);
    // To the program 0.0.0.0 is another machine; the system takes it for this one.
    let server = deployment("200 OK", HEALTHY);
    let url = server.url.replace("127.0.0.1", "0.0.0.0");
    let (checks, told) = examined(&server, &secrets, &[], &["--secrets-file", &file, &url]);
    assert!(!told);
    skipped(&checks, "others would read the token");
    let args = ["pair", &url, "--secrets-file", &file];
    common::fails(&args, 2, "must be https");
}

#[test]
fn tokens_of_the_environment_are_sent_to_its_deployment_only() {
    let folder = TempDir::new().unwrap();
    let (file, secrets) = secrets(&folder);
    let other = nowhere();
    let file_exported = [("DAPCTL_URL", &*other), ("DAPCTL_SECRETS_FILE", &*file)];
    let token_exported = [("DAPCTL_URL", &*other), ("DAPCTL_ADMIN_TOKEN", secrets.admin_token())];
    for exported in [file_exported, token_exported] {
        let server = deployment("200 OK", HEALTHY);
        for args in [&[&*server.url][..], &["--url", &server.url]] {
            let (checks, told) = examined(&server, &secrets, &exported, args);
            assert!(!told, "{exported:?}");
            skipped(&checks, "belongs to DAPCTL_URL");
        }
        // What is said is sent.
        let said = ["--secrets-file", &*file, &*server.url];
        assert!(examined(&server, &secrets, &exported, &said).1);
    }
    // Where there is nothing to keep back, nothing is said to be.
    let server = deployment("200 OK", HEALTHY);
    let (checks, _) = examined(&server, &secrets, &[("DAPCTL_URL", &*other)], &[&server.url]);
    assert!(checks.to_string().contains("no admin token was given"), "{checks}");
    let server = deployment("200 OK", HEALTHY);
    let own = [("DAPCTL_URL", &*server.url), ("DAPCTL_SECRETS_FILE", &*file)];
    let with_slash = format!("{}/", server.url);
    assert!(examined(&server, &secrets, &own, &[&with_slash]).1);

    // Of the two tokens of the aggregator API the one that was said, by `pair` too.
    let exported = [("DAPCTL_API_TOKEN", "a-token-of-another")];
    for (options, sent) in [
        (&["--secrets-file", &*file][..], secrets.api_token().unwrap()),
        (&["--api-token", "a-token-that-is-said", "--secrets-file", &file], "a-token-that-is-said"),
        (&[], "a-token-of-another"),
    ] {
        let server = deployment("200 OK", HEALTHY);
        dapctl_with(Path::new("."), &exported, &[&["pair", &server.url], options].concat());
        assert!(server.requests.recv().unwrap().contains(sent), "{options:?}");
    }

    let server = deployment("200 OK", HEALTHY);
    let output = dapctl_with(Path::new("."), &file_exported, &["pair", &server.url]);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(
        output.status.code() == Some(2) && stderr.contains("belongs to DAPCTL_URL"),
        "{stderr}"
    );
    assert_eq!(server.requests.try_iter().count(), 0);
}
