//! `dapctl doctor`: it finds a good deployment good, leaves nothing behind, and finds what is wrong with others.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
};

use dapctl::task_file::random;
use dapctl::{
    admin::AdminClient,
    doctor::{Access, Diagnosis, Options, Verdict, examine},
};
use daphne_core::b64;
use e2e::{Server, control_plane::API_TOKENS, server::random_token};

const OPTIONS: Options = Options { canary: true, clock_skew_max: 10 };

fn operator(admin: &AdminClient) -> Access<'_> {
    Access { admin: Some(admin), ..Access::default() }
}

fn verdict(diagnosis: &Diagnosis, name: &str) -> (Verdict, String) {
    let found = diagnosis.checks.iter().find(|check| check.name == name);
    let check = found.unwrap_or_else(|| panic!("no check {name}: {diagnosis:?}"));
    (check.verdict, check.detail.clone())
}

#[track_caller]
fn failed(diagnosis: &Diagnosis, name: &str, text: &str) {
    let (verdict, detail) = verdict(diagnosis, name);
    assert!(verdict == Verdict::Failed && detail.contains(text), "{name}: {verdict:?} {detail}");
}

#[test]
fn a_good_deployment_is_found_good_and_the_canary_leaves_nothing() {
    let server = Server::start();
    let diagnosis = examine(server.client().base(), operator(&server.admin()), OPTIONS).unwrap();
    assert!(diagnosis.ok, "{diagnosis:#?}");
    for name in [
        "healthz",
        "version",
        "hpke_config",
        "content_type",
        "cache_control",
        "stable_bytes",
        "cors",
        "preflight",
        "wrong_token",
        "admin",
        "root_keys",
        "leaders_wrong_token",
        "canary",
        "canary_deleted",
    ] {
        assert_eq!(verdict(&diagnosis, name).0, Verdict::Ok, "{name}: {diagnosis:#?}");
    }
    assert_eq!(server.admin().all_tasks().unwrap(), []);
    // Without a token, or without a canary, there is less to see, and nothing wrong.
    let diagnosis = examine(server.client().base(), Access::default(), OPTIONS).unwrap();
    assert!(diagnosis.ok && verdict(&diagnosis, "canary").0 == Verdict::Skipped);
    let options = Options { canary: false, ..OPTIONS };
    let diagnosis = examine(server.client().base(), operator(&server.admin()), options).unwrap();
    assert!(diagnosis.ok && verdict(&diagnosis, "canary").0 == Verdict::Skipped);
}

#[test]
fn what_is_wrong_with_a_deployment_is_found() {
    let server = Server::start();
    let wrong = AdminClient::new(server.client().base(), &random_token()).unwrap();
    let diagnosis = examine(server.client().base(), operator(&wrong), OPTIONS).unwrap();
    assert!(!diagnosis.ok);
    failed(&diagnosis, "admin", "403");
    assert_eq!(verdict(&diagnosis, "canary").0, Verdict::Skipped);
    // No key is published, as before `dapctl init` or after one expired too many.
    let id = e2e::server::HPKE_KEY_ID;
    server.admin().set_hpke_key_state(id, false, true).unwrap();
    let gone = || {
        let diagnosis =
            examine(server.client().base(), operator(&server.admin()), OPTIONS).unwrap();
        (verdict(&diagnosis, "hpke_config").0 == Verdict::Failed).then_some(diagnosis)
    };
    let diagnosis = gone().expect("the isolate that made the change knows of it");
    failed(&diagnosis, "hpke_config", "dapctl hpke add");
    failed(&diagnosis, "canary", "503");
    assert_eq!(verdict(&diagnosis, "canary_deleted").0, Verdict::Ok);
    assert_eq!(server.admin().all_tasks().unwrap(), []);
}

#[test]
fn the_aggregator_api_is_looked_at_where_a_token_of_it_is_at_hand() {
    let mut server = Server::start();
    let token = random_token();
    let options = Options { canary: false, ..OPTIONS };
    let look = |url: &str, api_token: Option<&str>| {
        let access = Access { api_token, ..Access::default() };
        let diagnosis = examine(url, access, options).unwrap();
        (diagnosis.ok, verdict(&diagnosis, "aggregator_api"))
    };
    let url = server.client().base().to_owned();
    assert_eq!(look(&url, None).1.0, Verdict::Skipped);
    let (ok, (warned, detail)) = look(&url, Some(&token));
    assert!(ok && warned == Verdict::Warning && detail.contains("AGGREGATOR_API_TOKENS"));
    server.set_secret(API_TOKENS, &token);
    let found = look(&url, Some(&token));
    assert_eq!(found, (true, (Verdict::Ok, format!("DAP is at {url}/v09/"))));
    let (ok, (failed, detail)) = look(&url, Some(&random_token()));
    assert!(!ok && failed == Verdict::Failed && detail.contains("not accepted"), "{detail}");
    // Strangers who are let in are told of, too.
    let spoilt = spoiling(&server, "HTTP/1.1 401 Unauthorized", "HTTP/1.1 404 Not Found", false);
    let (ok, (failed, detail)) = look(&spoilt, Some(&token));
    assert!(!ok && failed == Verdict::Failed && detail.contains("with 401"), "{detail}");
}

#[test]
fn a_root_key_that_is_needed_and_missing_is_found() {
    let mut server = Server::start();
    server.set_secret("ROOT_KEYS", &format!("9={}", b64::encode(&random::<32>().unwrap())));
    let options = Options { canary: false, ..OPTIONS };
    let diagnosis = examine(server.client().base(), operator(&server.admin()), options).unwrap();
    assert!(!diagnosis.ok);
    failed(&diagnosis, "root_keys", "root keys are missing: 1; what needs them answers 500");
}

/// A proxy that spoils answers on their way: it replaces text in their heads, and puts bytes after their bodies.
fn spoiling(
    server: &Server,
    from: &'static str,
    to: &'static str,
    every_second_body: bool,
) -> String {
    let target = server.client().base().strip_prefix("http://").unwrap().to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for (n, stream) in listener.incoming().enumerate() {
            let mut client = stream.unwrap();
            let request = read_request(&client);
            let mut upstream = TcpStream::connect(&target).unwrap();
            upstream.write_all(&request).unwrap();
            let mut answer = Vec::new();
            upstream.read_to_end(&mut answer).unwrap();
            let end = answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
            let (head, body) = answer.split_at(end);
            let mut body = body.to_vec();
            if every_second_body && n % 2 == 1 {
                body.iter_mut().last().into_iter().for_each(|byte| *byte ^= 1);
            }
            let head = String::from_utf8(head.to_vec()).unwrap();
            let head = head.replacen(from, to, 1);
            let _ = client.write_all(&[head.as_bytes(), &body].concat());
        }
    });
    url
}

/// A request, changed so that its answer ends with the connection.
fn read_request(stream: &TcpStream) -> Vec<u8> {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head).unwrap() > 0 {}
    let length = head.lines().find_map(|line| {
        line.to_ascii_lowercase().strip_prefix("content-length: ")?.trim().parse().ok()
    });
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body).unwrap();
    let head = head.replacen("\r\n", "\r\nconnection: close\r\n", 1);
    [head.into_bytes(), body].concat()
}

#[test]
fn what_something_on_the_way_does_to_the_list_is_found() {
    let server = Server::start();
    let options = Options { canary: false, ..OPTIONS };
    let media_type = "application/dap-hpke-config-list";
    for (from, to, bodies, name, text) in [
        (
            media_type,
            "application/dap-hpke-config-list; charset=utf-8",
            false,
            "content_type",
            "charset",
        ),
        ("max-age=86400", "no-store", false, "cache_control", "no-store"),
        ("Access-Control-Allow-Origin", "X-Nothing", false, "cors", "another origin"),
        ("Access-Control-Allow-Methods", "X-Nothing", false, "preflight", "not allowed"),
        ("", "", true, "stable_bytes", "differ"),
        ("HTTP/1.1 200 OK", "HTTP/1.1 502 Bad Gateway", false, "healthz", "502"),
        ("HTTP/1.1 403 Forbidden", "HTTP/1.1 200 OK", false, "wrong_token", "with 200"),
        (
            "\r\n",
            "\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n",
            false,
            "clock",
            "from this machine's",
        ),
    ] {
        let url = spoiling(&server, from, to, bodies);
        let diagnosis = examine(&url, Access::default(), options).unwrap();
        assert!(!diagnosis.ok, "{name}");
        failed(&diagnosis, name, text);
    }
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let failure = examine(&format!("http://{nobody}"), Access::default(), options).unwrap_err();
    assert_eq!(failure.exit_code(), 3, "{failure}");
}
