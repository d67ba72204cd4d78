//! The program and a server that answers as it is told.

#![allow(dead_code, reason = "each test file uses a part")]

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpListener,
    path::Path,
    process::Output,
    sync::mpsc,
};

use assert_cmd::Command;
use tempfile::TempDir;

pub const ID: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

pub fn dapctl(args: &[&str]) -> Output {
    dapctl_in(Path::new("."), args)
}

/// Runs the program in that folder.
pub fn dapctl_in(folder: &Path, args: &[&str]) -> Output {
    dapctl_with(folder, &[], args)
}

/// Runs the program in that folder, with these variables exported.
pub fn dapctl_with(folder: &Path, exported: &[(&str, &str)], args: &[&str]) -> Output {
    let mut command = Command::cargo_bin("dapctl").unwrap();
    command.current_dir(folder);
    for name in [
        "DAPCTL_URL",
        "DAPCTL_ADMIN_TOKEN",
        "DAPCTL_SECRETS_FILE",
        "DAPCTL_VERIFY_KEY",
        "DAPCTL_VERIFY_KEY_INIT",
        "DAPCTL_LEADER_TOKEN",
        "DAPCTL_API_TOKEN",
    ] {
        command.env_remove(name);
    }
    command.envs(exported.iter().copied()).args(args).output().unwrap()
}

/// The program must end with this code, print nothing on stdout, and exactly this kind of line on stderr.
#[track_caller]
pub fn fails(args: &[&str], code: i32, text: &str) -> String {
    fails_in(Path::new("."), args, code, text)
}

/// As [`fails`], in that folder.
#[track_caller]
pub fn fails_in(folder: &Path, args: &[&str], code: i32, text: &str) -> String {
    let output = dapctl_in(folder, args);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
    assert_eq!(stderr.lines().count(), 1, "{args:?}: {stderr}");
    assert!(stderr.starts_with("dapctl: ") && stderr.contains(text), "{args:?}: {stderr}");
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "", "{args:?}");
    stderr
}

/// A server for some requests, answered in turn.
pub struct Server {
    pub url: String,
    pub requests: mpsc::Receiver<String>,
}

/// Each answer is a status line, with more headers after it if there are some, a media type and a body; in all `{url}` stands
/// for the server's.
pub fn serve(answers: &[(&str, &str, &str)]) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (sender, requests) = mpsc::channel();
    let answers: Vec<_> = answers
        .iter()
        .map(|(status, media_type, body)| {
            let (status, body) = (status.replace("{url}", &url), body.replace("{url}", &url));
            format!(
                "HTTP/1.1 {status}\r\ncontent-type: {media_type}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            )
        })
        .collect();
    std::thread::spawn(move || {
        for answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                reader.read_line(&mut head).unwrap();
            }
            let length = head
                .lines()
                .find_map(|line| {
                    line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok()
                })
                .unwrap_or(0);
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            sender.send(head + &String::from_utf8_lossy(&body)).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    Server { url, requests }
}

pub fn admin<'a>(url: &'a str, rest: &[&'a str]) -> Vec<&'a str> {
    [&["--url", url, "--admin-token", "sesame-open-up"], rest].concat()
}

/// An address that nobody listens on.
pub fn nowhere() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

pub fn path(folder: &TempDir, name: &str) -> String {
    folder.path().join(name).to_str().unwrap().to_owned()
}

/// What the admin API says of a task to which nothing happened.
pub fn idle_status() -> String {
    let counters = daphne_core::store::message::LedgerStatus::default().counters();
    serde_json::json!(daphne_core::metrics::TaskStatus {
        counters,
        collecting: false,
        complete: true,
        last_job: None,
        last_error: None,
        reasons: vec![],
        oldest_uncollected_s: None,
        batches: vec![],
        more_batches: 0,
    })
    .to_string()
}
