//! The program from outside: what it prints and how it ends when something is wrong, and the admin commands against
//! a server that answers as it is told.

mod common;

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::TcpListener,
    path::Path,
};

use common::{ID, admin, dapctl, dapctl_with, fails, idle_status, nowhere, path, serve};
use daphne_core::{b64, version::DapVersion, wire::v18::TaskConfiguration};
use tempfile::TempDir;

/// What the admin API answers to a creation.
fn task_parameters() -> String {
    serde_json::json!({
        "task_id": ID, "version": "dap-09", "role": "helper", "batch_mode": "time-interval",
        "max_batch_size": null, "vdaf": "Prio3Count",
        "collector_hpke_config": {
            "id": 1, "kem_id": "X25519HkdfSha256", "kdf_id": "HkdfSha256", "aead_id": "Aes128Gcm", "public_key": ID
        },
        "min_batch_size": 10, "time_precision": 3600, "max_batch_query_count": 1, "task_expiration": null,
        "report_expiry_age": 1_209_600, "tolerable_clock_skew": 300, "shards": 1, "buckets_per_group": 24,
        "shard_key_version": 1,
    })
    .to_string()
}

/// Writes a task file with `task add`; nothing reads its URL, which leads nowhere.
fn saved_task(folder: &TempDir, options: &[&str]) -> String {
    let file = path(folder, "task.json");
    let server = serve(&[("201 Created", "application/json", &task_parameters())]);
    let helper = nowhere();
    let args = [&["task", "add", "--save", &file, "--helper-url", &helper], options].concat();
    let output = dapctl(&admin(&server.url, &args));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    file
}

#[test]
fn a_bad_command_line_is_one_line() {
    fails(&["task", "add", "--vdaf", "poplar2"], 2, "poplar2");
    fails(&["task", "add"], 2, "--vdaf");
    fails(&["frobnicate"], 2, "frobnicate");
    fails(&["drive", "--task", "t.json"], 2, "--reports");
    fails(&["report", "make", "--task", "t.json", "--out", "-"], 2, "--measurement");
    fails(&["drive", "--task", "/does/not/exist", "--generate", "1"], 2, "/does/not/exist");
    for id in ["short", &ID[1..], "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAB"] {
        fails(&["task", "show", id], 2, "expected 43 characters of base64url without padding");
    }
}

#[test]
fn a_missing_or_unusable_token_or_url_is_a_usage_error() {
    fails(&["--url", "http://127.0.0.1:1", "task", "list"], 2, "admin token is needed");
    fails(&["--admin-token", "sesame", "task", "list"], 2, "--url");
    fails(&["--url", "nonsense", "--admin-token", "sesame", "task", "list"], 2, "not a URL");
    let url = "http://127.0.0.1:1";
    let text = fails(&["--url", url, "--admin-token", "se same", "task", "list"], 2, "token");
    assert!(!text.contains("se same"));
    fails(
        &["--url", url, "--admin-token-file", "/does/not/exist", "task", "list"],
        2,
        "/does/not/exist",
    );
}

#[test]
fn an_option_wins_over_the_environment() {
    let folder = TempDir::new().unwrap();
    let file = path(&folder, "secrets.json");
    let secrets = dapctl::secrets_file::DeploymentSecrets::generate().unwrap();
    secrets.save(Path::new(&file), false).unwrap();
    let keys = ("200 OK", "application/json", r#"{"keys":[]}"#);
    let sent = |exported: &[(&str, &str)], options: &[&str]| {
        let server = serve(&[keys]);
        let args = [&["--url", &server.url, "hpke", "list"], options].concat();
        let output = dapctl_with(folder.path(), exported, &args);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let request = server.requests.recv().unwrap();
        let head = request.lines().find_map(|line| line.split_once("earer ")).unwrap();
        head.1.to_owned()
    };
    let exported = [("DAPCTL_ADMIN_TOKEN", "a-token-of-another")];
    assert_eq!(sent(&exported, &[]), "a-token-of-another");
    assert_eq!(sent(&exported, &["--secrets-file", &file]), secrets.admin_token());
    let both = [exported[0], ("DAPCTL_SECRETS_FILE", &*file)];
    assert_eq!(sent(&both, &[]), "a-token-of-another");
    assert_eq!(sent(&both, &["--admin-token", "said"]), "said");
}

#[test]
fn the_url_of_dap_is_not_the_deployments() {
    for url in ["http://127.0.0.1:1/v09", "http://127.0.0.1:1/v09/"] {
        for command in [&["task", "list"][..], &["hpke", "list"], &["doctor"]] {
            fails(&admin(url, command), 2, "give the deployment's URL, without /v09/");
        }
        fails(&["doctor", url], 2, "without /v09/");
        fails(&["pair", url, "--api-token", "sesame-open-up"], 2, "without /v09/");
    }
}

#[test]
fn a_missing_root_key_is_code_1() {
    let status = r#"{"needed":{"hpke_keys":{"1":2}},"resealed":0,"configured":[2],"newest":2}"#;
    let server = serve(&[("200 OK", "application/json", status)]);
    let output = dapctl(&admin(&server.url, &["secrets", "status"]));
    assert_eq!(output.status.code(), Some(1));
    assert!(
        String::from_utf8(output.stdout).unwrap().contains("root key 1: needed by 2 hpke keys")
    );
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(stderr, "dapctl: root keys are missing: 1; what needs them answers 500\n");
}

#[test]
fn nobody_there_is_code_3_and_leaves_no_file() {
    let folder = TempDir::new().unwrap();
    let (url, file) = (nowhere(), path(&folder, "task.json"));
    fails(&admin(&url, &["task", "list"]), 3, "no answer");
    fails(&admin(&url, &["task", "add", "--vdaf", "count", "--save", &file]), 3, "no answer");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_drive_without_a_helper_is_code_3() {
    let folder = TempDir::new().unwrap();
    let file = saved_task(&folder, &["--vdaf", "count"]);
    fails(&["drive", "--task", &file, "--generate", "1", "--retries", "0"], 3, "no answer");
    fails(
        &["report", "leader-config", "--task", &file, "--helper", "--retries", "0"],
        3,
        "no answer",
    );
}

#[test]
fn a_created_task_is_kept_with_its_secrets_and_prints_none() {
    let folder = TempDir::new().unwrap();
    let file = path(&folder, "task.json");
    let server = serve(&[("201 Created", "application/json", &task_parameters())]);
    let args = ["--output", "json", "task", "add", "--vdaf", "sum", "--bits", "8", "--save", &file];
    let output = dapctl(&admin(&server.url, &args));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let stdout = String::from_utf8(output.stdout).unwrap();
    let printed: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(printed["created"], true);
    assert_eq!(printed["task"]["task_id"], ID);

    let saved: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert_eq!(saved["helper_url"], format!("{}/v09/", server.url));
    let request = server.requests.recv().unwrap();
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("POST /admin/tasks HTTP/1.1\r\n"), "{head}");
    assert!(
        head.to_ascii_lowercase().contains("authorization: bearer sesame-open-up\r\n"),
        "{head}"
    );
    let sent: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(sent, saved["spec"]);
    assert_eq!(sent["vdaf"]["Prio3Sum"]["max_measurement"], 255);
    for secret in [
        &saved["spec"]["verify_key"],
        &saved["spec"]["leader_token"],
        &saved["leader_hpke_keypair"]["private_key"],
    ] {
        assert!(!stdout.contains(secret.as_str().unwrap()));
        assert!(!String::from_utf8_lossy(&output.stderr).contains(secret.as_str().unwrap()));
    }
}

#[test]
fn a_refused_task_leaves_no_file() {
    let folder = TempDir::new().unwrap();
    let file = path(&folder, "task.json");
    let problem = r#"{"type":"about:blank","title":"T","status":409,"detail":"exists with\u001b[31m others"}"#;
    let server = serve(&[("409 Conflict", "application/problem+json", problem)]);
    let args = admin(&server.url, &["task", "add", "--vdaf", "count", "--save", &file]);
    fails(&args, 1, "refused with status 409: exists with [31m others");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn an_unclear_end_keeps_the_file() {
    let folder = TempDir::new().unwrap();
    let file = path(&folder, "task.json");
    let server = serve(&[("500 Oops", "text/plain", "")]);
    let args = admin(&server.url, &["task", "add", "--vdaf", "count", "--save", &file]);
    fails(
        &args,
        1,
        "is kept, as the task may have been created; go on with `dapctl task add --file",
    );
    // The file it kept is what it asks for, and the same task is sent again.
    let first = server.requests.recv().unwrap();
    let server = serve(&[("200 OK", "application/json", &task_parameters())]);
    let output = dapctl(&admin(&server.url, &["task", "add", "--file", &file]));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let again = server.requests.recv().unwrap();
    let body = |request: &str| request.split_once("\r\n\r\n").unwrap().1.to_owned();
    assert_eq!(body(&first), body(&again));
}

#[test]
fn a_task_file_is_not_overwritten() {
    let folder = TempDir::new().unwrap();
    let file = path(&folder, "task.json");
    std::fs::write(&file, "precious").unwrap();
    let url = nowhere();
    let args = ["task", "add", "--vdaf", "count", "--save", &file];
    fails(&admin(&url, &args), 2, "exists; --force overwrites it");
    // Refused after all, the forced file gives way to what was there.
    fails(&admin(&url, &[&args[..], &["--force"]].concat()), 3, "no answer");
    assert_eq!(std::fs::read(&file).unwrap(), b"precious");
    fails(&admin(&url, &["task", "add", "--vdaf", "count"]), 2, "--save");
}

#[test]
fn unusable_parameters_are_found_before_anything_is_sent() {
    let folder = TempDir::new().unwrap();
    let (url, file) = (nowhere(), path(&folder, "task.json"));
    let add = |options: &[&str], text: &str| {
        let args = [&["task", "add", "--save", &file], options].concat();
        fails(&admin(&url, &args), 2, text);
    };
    add(&["--vdaf", "count", "--min-batch-size", "1"], "min_batch_size must be at least 2");
    add(&["--vdaf", "count", "--shards", "0"], "shards must be between 1 and 64");
    add(&["--vdaf", "count", "--collector-config", "AAAA"], "--collector-config");
    add(&["--vdaf", "histogram", "--length", "0"], "length must be at least 1");
    add(&["--vdaf", "count", "--verify-key", "AAAA"], "16 bytes");
    let spec = path(&folder, "spec.json");
    std::fs::write(&spec, "{\n\"version\": dap-09}").unwrap();
    add(&["--file", &spec], "spec.json, line 2");
    std::fs::write(&spec, r#"{"vdaf":"Prio3Count","leader_token":12345}"#).unwrap();
    add(&["--file", &spec], "leader_token must be a string");
    assert!(!Path::new(&file).exists());
}

#[test]
fn the_end_of_a_task_is_moved_and_taken_away() {
    let ending = |args: &[&str], end: serde_json::Value| {
        let mut task: serde_json::Value = serde_json::from_str(&task_parameters()).unwrap();
        task["task_expiration"] = end;
        let server = serve(&[("200 OK", "application/json", &task.to_string())]);
        let output = dapctl(&admin(&server.url, &[&["task", "expire", ID], args].concat()));
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success() && stderr.is_empty(), "{stderr}");
        let request = server.requests.recv().unwrap();
        let (head, body) = request.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with(&format!("PATCH /admin/tasks/{ID} HTTP/1.1\r\n")), "{head}");
        let sent: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(sent.as_object().unwrap().len(), 1, "{body}");
        (sent["task_expiration"].clone(), String::from_utf8(output.stdout).unwrap())
    };
    let at = serde_json::json!(1_893_456_000);
    let (sent, text) = ending(&["--at", "1893456000"], at.clone());
    assert_eq!(sent, at);
    assert!(text.starts_with(&format!("{ID} ends 2030-01-01 00:00:00 UTC: ")), "{text}");
    let (sent, text) = ending(&["--never"], serde_json::Value::Null);
    assert_eq!((sent, text), (serde_json::Value::Null, format!("{ID} does not end\n")));
    let seconds = || std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let before = seconds();
    let (sent, json) = ending(&["--now", "--output", "json"], at);
    assert!((before..=seconds()).contains(&sent.as_u64().unwrap()), "{sent}");
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["task_id"], &json["task_expiration"]), (&ID.into(), &1_893_456_000.into()));
}

#[test]
fn an_end_that_is_not_said_or_not_possible_is_one_line() {
    let url = nowhere();
    let expire = |options: &[&str], code: i32, text: &str| {
        fails(&admin(&url, &[&["task", "expire", ID], options].concat()), code, text);
    };
    expire(&[], 2, "--never");
    expire(&["--now", "--never"], 2, "cannot be used with");
    expire(&["--at", "tomorrow"], 2, "tomorrow");
    expire(&["--at", "-1"], 2, "-1");
    expire(&["--now"], 3, "no answer");
    let refused = |status: &str, body: &str, text: &str| {
        let server = serve(&[(status, "application/problem+json", body)]);
        fails(&admin(&server.url, &["task", "expire", ID, "--now"]), 1, text);
    };
    refused("404 Not Found", "{}", "no such task");
    let brought =
        r#"{"type":"about:blank","title":"T","status":409,"detail":"brought by its leader"}"#;
    refused("409 Conflict", brought, "refused with status 409: brought by its leader");
}

#[test]
fn a_refused_token_is_code_1() {
    let problem = r#"{"type":"about:blank","title":"The request's authorization is not valid.","status":401}"#;
    let server = serve(&[("401 Unauthorized", "application/problem+json", problem)]);
    let text =
        fails(&admin(&server.url, &["hpke", "list"]), 1, "status 401: The request's authorization");
    assert!(!text.contains("sesame"));
}

#[test]
fn an_answer_that_is_not_the_admin_apis_is_code_1() {
    for (status, media_type, body, text) in [
        ("200 OK", "text/html", "<p>hello", "not JSON"),
        ("200 OK", "application/json", "{\"keys\":3}", "not understood"),
        ("302 Found", "text/html", "", "status 302"),
        ("202 Accepted", "application/json", "{}", "status 202, which is not 200"),
    ] {
        let server = serve(&[(status, media_type, body)]);
        fails(&admin(&server.url, &["hpke", "list"]), 1, text);
    }
}

#[test]
fn lists_are_read_to_the_end() {
    let task = task_parameters();
    let second_id = format!("B{}", &ID[1..]);
    let second = task.replacen(ID, &second_id, 2);
    let server = serve(&[
        ("200 OK", "application/json", &format!("{{\"tasks\":[{task}],\"next\":\"{ID}\"}}")),
        ("200 OK", "application/json; charset=utf-8", &format!("{{\"tasks\":[{second}]}}")),
    ]);
    let output = dapctl(&admin(&server.url, &["task", "list"]));
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert_eq!(stdout.lines().count(), 2, "{stdout}");
    assert!(stdout.starts_with(ID));
    assert!(server.requests.recv().unwrap().starts_with("GET /admin/tasks?limit=100 "));
    let next = format!("GET /admin/tasks?limit=100&after={ID} ");
    assert!(server.requests.recv().unwrap().starts_with(&next));
}

#[test]
fn a_task_that_is_not_there_is_code_1() {
    for command in ["show", "rm"] {
        let server = serve(&[("404 Not Found", "text/plain", "")]);
        fails(&admin(&server.url, &["task", command, ID]), 1, "no such task");
    }
    let server = serve(&[("204 No Content", "text/plain", "")]);
    let output = dapctl(&admin(&server.url, &["task", "rm", ID]));
    assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("deleted {ID}\n"));
}

#[test]
fn a_bad_report_is_named_by_its_line() {
    let folder = TempDir::new().unwrap();
    let file = saved_task(&folder, &["--vdaf", "count"]);
    let reports = path(&folder, "reports.jsonl");
    for (content, text) in [
        ("\n{\"report\": oops}\n", "reports.jsonl, line 2: column"),
        ("{\"report\":\"AAAA\"}\n", "reports.jsonl, line 1: the report is malformed"),
        ("{\"measurement\":1}\n", "reports.jsonl, line 1: the line must be an object"),
        ("", "there are no reports"),
    ] {
        std::fs::write(&reports, content).unwrap();
        fails(&["drive", "--task", &file, "--reports", &reports], 2, text);
    }
    fails(&["drive", "--task", &file, "--reports", "/does/not/exist"], 2, "/does/not/exist");
    fails(&["drive", "--task", &reports, "--generate", "1"], 2, "not a task file");
}

#[test]
fn a_bad_measurement_is_a_usage_error() {
    let folder = TempDir::new().unwrap();
    let file = saved_task(&folder, &["--vdaf", "histogram", "--length", "4"]);
    for (measurement, text) in [("4", "below 4"), ("oops", "not JSON"), ("[1]", "non-negative")] {
        let args = ["report", "make", "--task", &file, "--measurement", measurement, "--out", "-"];
        fails(&args, 2, text);
    }
}

#[test]
fn reports_are_made_for_the_configurations_fetched() {
    let folder = TempDir::new().unwrap();
    let file = saved_task(&folder, &["--vdaf", "histogram", "--length", "4"]);
    let leader = dapctl(&["report", "leader-config", "--task", &file]);
    let list = String::from_utf8(leader.stdout).unwrap();
    // Any list will do for the helper's.
    let body = daphne_core::b64::decode(list.trim()).unwrap();

    let media_type = "application/dap-hpke-config-list";
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = String::new();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        while !head.ends_with("\r\n\r\n") {
            reader.read_line(&mut head).unwrap();
        }
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: {media_type}\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(&[head.as_bytes(), &body].concat()).unwrap();
    });
    let text = std::fs::read_to_string(&file).unwrap();
    let mut task: serde_json::Value = serde_json::from_str(&text).unwrap();
    task["helper_url"] = url.into();
    std::fs::write(&file, task.to_string()).unwrap();

    let out = path(&folder, "reports.jsonl");
    let args = [
        "report",
        "make",
        "--task",
        &file,
        "--count",
        "3",
        "--measurement",
        "3",
        "--measurement",
        "0",
        "--out",
        &out,
    ];
    let output = dapctl(&args);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = std::fs::read_to_string(&out).unwrap();
    let measurements: Vec<u64> = lines
        .lines()
        .map(|line| {
            serde_json::from_str::<serde_json::Value>(line).unwrap()["measurement"]
                .as_u64()
                .unwrap()
        })
        .collect();
    assert_eq!(measurements, [3, 0, 3]);
}

const LEADER: &str = "https://leader.example/v09/";

/// What the admin API answers about a peer.
fn peer_view() -> serde_json::Value {
    serde_json::json!({
        "endpoint": LEADER,
        "collector_hpke_config": {
            "id": 1, "kem_id": "X25519HkdfSha256", "kdf_id": "HkdfSha256", "aead_id": "Aes128Gcm", "public_key": ID
        },
        "policy": { "report_expiry_age": 1_209_600, "tolerable_clock_skew": 300, "shards": 1, "min_batch_size_min": 20 },
        "leader_tokens": [{ "name": "1f0c52aa", "added": 1_700_000_000 }],
    })
}

/// A peer file, and the request that was made for it.
fn saved_peer(folder: &TempDir) -> (String, serde_json::Value) {
    let file = path(folder, "peer.json");
    let server = serve(&[("201 Created", "application/json", &peer_view().to_string())]);
    let args = ["peer", "add", LEADER, "--save", &file, "--lifetime-max", "86400"];
    let output = dapctl(&admin(&server.url, &args));
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(stdout.starts_with(&format!("added {LEADER}  min batch 20\n  token 1f0c52aa  added")));
    let saved: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    let request = server.requests.recv().unwrap();
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("POST /admin/taskprov_peers HTTP/1.1\r\n"), "{head}");
    assert_eq!(serde_json::from_str::<serde_json::Value>(body).unwrap(), saved["peer"]);
    assert_eq!(saved["peer"]["policy"]["lifetime_max"], 86_400);
    for secret in [
        &saved["peer"]["verify_key_init"],
        &saved["peer"]["leader_tokens"][0],
        &saved["collector_hpke_keypair"]["private_key"],
    ] {
        assert!(!stdout.contains(secret.as_str().unwrap()));
    }
    (file, saved)
}

#[test]
fn a_peer_is_kept_with_its_secrets_and_makes_tasks() {
    let folder = TempDir::new().unwrap();
    let (peer, saved) = saved_peer(&folder);
    let file = path(&folder, "task.json");
    let args =
        ["task", "add", "--taskprov", &peer, "--vdaf", "sum", "--bits", "8", "--save", &file];
    // Nobody is told.
    let output = dapctl(&args);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let task: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert!(
        String::from_utf8_lossy(&output.stdout).contains(task["spec"]["task_id"].as_str().unwrap())
    );
    assert_eq!(task["spec"]["leader_token"], saved["peer"]["leader_tokens"][0]);
    assert_eq!(task["spec"]["collector_hpke_config"], saved["peer"]["collector_hpke_config"]);
    // The same once more has another name and thus another id.
    let again = path(&folder, "again.json");
    let args = [&args[..args.len() - 1], &[again.as_str()]].concat();
    assert!(dapctl(&args).status.success());
    let again: serde_json::Value = serde_json::from_slice(&std::fs::read(&again).unwrap()).unwrap();
    assert_ne!(again["spec"]["task_id"], task["spec"]["task_id"]);

    // Its requests bring the parameters along, and its reports are made for the helper's own configurations.
    let mut moved = task.clone();
    let server = serve(&[("200 OK", "application/dap-hpke-config-list", "nonsense")]);
    moved["helper_url"] = format!("{}/v09/", server.url).into();
    std::fs::write(&file, moved.to_string()).unwrap();
    let report = ["report", "leader-config", "--helper", "--retries", "0", "--task", &file];
    fails(&report, 1, "malformed");
    let request = server.requests.recv().unwrap();
    assert!(request.starts_with("GET /v09/hpke_config HTTP/1.1\r\n"), "{request}");
    let config = task["taskprov"].as_str().unwrap();
    assert!(request.contains(&format!("dap-taskprov: {config}\r\n")), "{request}");

    // Parameters that are another task's are noticed.
    moved["taskprov"] = again["taskprov"].clone();
    std::fs::write(&file, moved.to_string()).unwrap();
    fails(&report, 2, "taskprov describes another task");
}

#[test]
fn a_task_that_is_brought_is_by_default_one_that_the_peer_may_bring() {
    let folder = TempDir::new().unwrap();
    let (peer, mut saved) = saved_peer(&folder);
    let mut made = |least: Option<u64>, options: &[&str]| {
        saved["peer"]["policy"]["min_batch_size_min"] = least.into();
        std::fs::write(&peer, saved.to_string()).unwrap();
        let file = path(&folder, "task.json");
        let args =
            ["task", "add", "--taskprov", &peer, "--vdaf", "count", "--save", &file, "--force"];
        let output = dapctl(&[&args[..], options].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let task: serde_json::Value =
            serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        task["spec"].clone()
    };
    let spec = made(Some(100), &[]);
    assert_eq!(spec["min_batch_size"], 100);
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    assert!(spec["task_expiration"].as_u64().unwrap() <= now + 86_400, "{spec}");
    assert_eq!(made(Some(100), &["--min-batch-size", "200"])["min_batch_size"], 200);
    assert_eq!(made(None, &[])["min_batch_size"], 10);
}

#[test]
fn a_leader_brings_tasks_of_dap_18_with_their_configuration() {
    let folder = TempDir::new().unwrap();
    let (peer, saved) = saved_peer(&folder);
    let file = path(&folder, "task.json");
    let args = ["task", "add", "--taskprov", &peer, "--version", "dap-18", "--vdaf", "count"];
    let output = dapctl(&[&args[..], &["--task-info", "hits", "--save", &file]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut task: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    // The peer was added for DAP-09's place in the same deployment.
    let helper = saved["helper_url"].as_str().unwrap().replace("/v09/", "/v18/");
    assert_eq!(task["helper_url"], helper);
    assert_eq!(task["taskprov"], task["spec"]["task_configuration"]);
    let bytes = b64::decode(task["taskprov"].as_str().unwrap()).unwrap();
    let configuration = TaskConfiguration::decode(&bytes).unwrap();
    assert_eq!(configuration.leader_aggregator_endpoint, LEADER);
    assert_eq!(configuration.helper_aggregator_endpoint, helper);
    // It ends as early as the peer's policy wants.
    let interval = configuration.task_interval().unwrap().unwrap();
    assert_eq!(interval.duration, 24);
    let id = DapVersion::V18.taskprov_id(&bytes);
    assert_eq!(task["spec"]["task_id"], id.to_string());

    let server = serve(&[("200 OK", "application/ppm-dap;message=hpke-config-list", "nonsense")]);
    task["helper_url"] = format!("{}/v18/", server.url).into();
    std::fs::write(&file, task.to_string()).unwrap();
    let report = ["report", "leader-config", "--helper", "--retries", "0", "--task", &file];
    fails(&report, 1, "malformed");
    let request = server.requests.recv().unwrap();
    assert!(request.starts_with("GET /v18/hpke_config HTTP/1.1\r\n"), "{request}");
    let header = DapVersion::V18.taskprov_header(&bytes);
    assert!(request.contains(&format!("dap-taskprov: {header}\r\n")), "{request}");
}

#[test]
fn the_end_of_a_task_is_shown() {
    let status = idle_status();
    for (end, text) in [
        (Some(1_700_000_000_u64), "ended: 2023-11-14 22:13:20 UTC"),
        (Some(4_107_542_400), "ends: 2100-03-01 00:00:00 UTC"),
        (None, "ends: never"),
    ] {
        let mut task: serde_json::Value = serde_json::from_str(&task_parameters()).unwrap();
        task["task_expiration"] = end.into();
        let task = ("200 OK", "application/json", &*task.to_string());
        let status = ("200 OK", "application/json", &*status);
        for (command, answers) in
            [(&["status", ID][..], [status, task]), (&["task", "show", ID], [task, status])]
        {
            let server = serve(&answers);
            let output = dapctl(&admin(&server.url, command));
            let stdout = String::from_utf8(output.stdout).unwrap();
            assert!(stdout.lines().any(|line| line == text), "{text}: {stdout}");
            let server = serve(&answers);
            let args = [&["--output", "json"], command].concat();
            let output = dapctl(&admin(&server.url, &args));
            let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
            assert_eq!(json["task_expiration"], serde_json::json!(end));
        }
    }
}

#[test]
fn peers_are_listed_changed_and_removed() {
    let one = peer_view().to_string();
    let all = format!("{{\"peers\":[{one}]}}");
    let json = "application/json";
    for (args, answers, sent) in [
        (
            &["peer", "list"][..],
            &[("200 OK", json, all.as_str())][..],
            "GET /admin/taskprov_peers ",
        ),
        (
            &["peer", "set", LEADER, "--shards", "3"],
            &[("200 OK", json, &all), ("200 OK", json, &one)],
            r#""policy":{"report_expiry_age":1209600,"tolerable_clock_skew":300,"shards":3,"min_batch_size_min":20}"#,
        ),
        (
            &["peer", "set", LEADER, "--verify-key-init", ID],
            &[("200 OK", json, &all), ("200 OK", json, &one)],
            r#"{"endpoint":"https://leader.example/v09/","verify_key_init":"AAAA"#,
        ),
        (
            &["peer", "token", "add", LEADER, "--leader-token", "another-long-token"],
            &[("200 OK", json, &one)],
            r#""add_leader_token":"another-long-token""#,
        ),
        (
            &["peer", "token", "rm", LEADER, "1f0c52aa"],
            &[("200 OK", json, &one)],
            r#""remove_leader_token":"1f0c52aa""#,
        ),
        (
            &["peer", "rm", LEADER],
            &[("204 No Content", json, "")],
            "DELETE /admin/taskprov_peers?endpoint=https%3A%2F%2Fleader.example%2Fv09%2F ",
        ),
    ] {
        let server = serve(answers);
        let output = dapctl(&admin(&server.url, args));
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(!String::from_utf8_lossy(&output.stdout).contains("another-long-token"));
        let requests: Vec<_> = answers.iter().map(|_| server.requests.recv().unwrap()).collect();
        assert!(requests.last().unwrap().contains(sent), "{requests:?}");
    }
}

#[test]
fn mistakes_about_peers_are_found_before_anything_is_sent() {
    let folder = TempDir::new().unwrap();
    let (peer, _) = saved_peer(&folder);
    let url = nowhere();
    let save = path(&folder, "other.json");
    let usage = |args: &[&str], text: &str| fails(&admin(&url, args), 2, text);
    usage(&["peer", "add", LEADER], "say with --save where to keep them");
    usage(&["peer", "add", "leader.example", "--save", &save], "endpoint must be");
    usage(&["peer", "add", LEADER, "--verify-key-init", "AAAA", "--save", &save], "32 bytes");
    usage(&["peer", "add", LEADER, "--save", &peer], "exists; --force overwrites it");
    usage(&["peer", "token", "add", LEADER], "--save FILE");
    usage(&["task", "add", "--taskprov", &peer, "--vdaf", "count"], "--save");
    let task = ["task", "add", "--taskprov", &peer, "--save", &save];
    let task = |options: &[&str], text: &str| fails(&[&task[..], options].concat(), 2, text);
    task(&["--vdaf", "count", "--shards", "2"], "cannot be used with");
    task(&["--vdaf", "count", "--min-batch-size", "1"], "min_batch_size must be at least 2");
    task(&["--vdaf", "count", "--task-info", ""], "task_info must have 1 to 255 bytes");
    std::fs::write(&peer, "{}").unwrap();
    task(&["--vdaf", "count"], "not a peer file");
    assert!(!Path::new(&save).exists());
}

#[test]
fn no_command_sends_the_token_in_clear_to_another_machine() {
    for command in [&["task", "list"][..], &["hpke", "list"], &["peer", "list"], &["status", ID]] {
        fails(&admin("http://dap.example.org", command), 2, "give an https URL");
    }
}
