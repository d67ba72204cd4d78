//! What `scripts/bench run` says of a helper: figures if it answers as it should, and what differed if it does not. The
//! helper is the test Worker, with something in front of it that changes its answers.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Command, Output},
    sync::{Arc, Mutex},
    thread,
};

use clap::Parser as _;
use dapctl::{cli::Cli, commands, task_file::TaskFile};
use daphne_core::{
    error::ReportError,
    hpke::{self, Role},
    message::VerifyRespResult,
    version::DapVersion,
    wire::{
        Wire,
        common::{AggregateShare, aggregate_share_aad},
    },
};
use e2e::{Answer, Client, Server, server::random};
use serde_json::Value;

/// Changes the answer to a request with this body.
type Change = dyn Fn(&TaskFile, &str, &[u8], &mut Vec<u8>) + Send + Sync;

/// A task of this version at the Worker, made as an operator makes it: what adds up integers of 8 bits.
fn task(server: &Server, version: DapVersion, folder: &Path) -> TaskFile {
    let path = folder.join(format!("{}.json", version.tag()));
    let program =
        ["dapctl", "--url", server.client().base(), "--admin-token", server.admin_token()];
    let path = path.to_str().unwrap();
    let mut add = vec!["task", "add", "--version", version.tag(), "--vdaf", "sum", "--bits", "8"];
    add.extend(["--save", path]);
    if version.has_configuration() {
        add.extend(["--leader-url", "https://leader.example/"]);
    }
    let cli = Cli::try_parse_from(program.iter().chain(&add)).expect("a command line");
    commands::run(&cli).expect("a task");
    TaskFile::read(Path::new(path)).expect("its file")
}

/// `scripts/bench run` on the shortest of jobs.
fn bench(helper: &str, task: &Path, more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_bench"))
        .args(["run", "--output", "json", "--quick", "--job-size", "12", "--reports", "12"])
        .args(["--concurrency", "1", "--helper", helper, "--task"])
        .arg(task)
        .args(more)
        .output()
        .expect("the benchmark runs")
}

/// Passes requests on to the Worker, and its answers back, changed. Returns its URL. Ends with the process.
fn in_front_of(client: &Client, task: TaskFile, change: Arc<Change>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let client = client.clone();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (client, task, change) = (client.clone(), task.clone(), Arc::clone(&change));
            thread::spawn(move || pass_on(stream, &client, &task, &*change));
        }
    });
    url
}

fn pass_on(stream: TcpStream, client: &Client, task: &TaskFile, change: &Change) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let length = headers.get("content-length").and_then(|n| n.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let passed: Vec<(&str, &str)> = ["authorization", "content-type"]
        .into_iter()
        .filter_map(|name| Some((name, headers.get(name)?.as_str())))
        .collect();
    let content = (method != "GET").then_some(&*body);
    let Answer { status, headers, body: mut answer } =
        client.send(&method, &path, &passed, content).ok()?;
    change(task, &path, &body, &mut answer);
    let mut head = format!("HTTP/1.1 {status} -\r\nconnection: close\r\n");
    for name in ["content-type", "location"] {
        if let Some(value) = headers.get(name).and_then(|value| value.to_str().ok()) {
            head += &format!("{name}: {value}\r\n");
        }
    }
    head += &format!("content-length: {}\r\n\r\n", answer.len());
    let mut stream = reader.into_inner();
    stream.write_all(head.as_bytes()).ok()?;
    stream.write_all(&answer).ok()
}

fn wire(task: &TaskFile) -> Wire {
    Wire::new(task.spec.version, task.spec.time_precision)
}

/// One report is refused that was accepted.
fn a_wrong_verdict(task: &TaskFile, path: &str, _: &[u8], answer: &mut Vec<u8>) {
    if path.contains("aggregation_jobs") {
        let mut verdicts = wire(task).aggregation_job_resp(answer).unwrap();
        verdicts[5].result = VerifyRespResult::Reject(ReportError::VdafVerifyError);
        *answer = wire(task).encode_aggregation_job_resp(&verdicts).unwrap();
    }
}

/// Nothing is said of the last report.
fn a_missing_report(task: &TaskFile, path: &str, _: &[u8], answer: &mut Vec<u8>) {
    if path.contains("aggregation_jobs") {
        let mut verdicts = wire(task).aggregation_job_resp(answer).unwrap();
        verdicts.pop();
        *answer = wire(task).encode_aggregation_job_resp(&verdicts).unwrap();
    }
}

/// The helper's share is one too large.
fn a_wrong_aggregate(task: &TaskFile, path: &str, request: &[u8], answer: &mut Vec<u8>) {
    if path.contains("aggregate_shares") {
        let (spec, version) = (&task.spec, task.spec.version);
        let request = wire(task).aggregate_share_request(request).unwrap();
        let keys = task.collector_hpke_keypair.as_ref().unwrap();
        let info = hpke::aggregate_share_info(version, Role::Helper);
        let id = task.task_id().unwrap();
        let aad = aggregate_share_aad(&id, &spec.task_configuration, &request.share_binding);
        let sealed = AggregateShare::decode(answer).unwrap().encrypted_aggregate_share;
        let mut share = hpke::open(keys, &info, &aad, sealed).unwrap();
        share[0] ^= 1;
        let sealed = hpke::seal(keys.config(), &info, &aad, &share, &random()).unwrap();
        *answer = AggregateShare { encrypted_aggregate_share: sealed.as_ref() }.encode().unwrap();
    }
}

#[test]
fn a_helper_that_answers_wrongly_is_told_what_differs() {
    let server = Server::start();
    let folder = tempfile::tempdir().unwrap();
    let said = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for version in DapVersion::ALL {
            let (said, task, client) =
                (&said, task(&server, version, folder.path()), server.client());
            let file = folder.path().join(format!("{}.json", version.tag()));
            scope.spawn(move || {
                let changes: [(Arc<Change>, &str); 3] = [
                    (
                        Arc::new(a_wrong_verdict),
                        "1 reports of a job were refused that are right, report",
                    ),
                    (
                        Arc::new(a_missing_report),
                        "the helper's answer lists other reports than the request",
                    ),
                    (Arc::new(a_wrong_aggregate), "the aggregate is "),
                ];
                for (change, why) in changes {
                    let url = in_front_of(client, task.clone(), change);
                    let url = format!("{url}/{}/", version.path_prefix());
                    said.lock().unwrap().push((version, why, bench(&url, &file, &[])));
                }
            });
        }
    });
    let said = said.into_inner().unwrap();
    assert_eq!(said.len(), 3 * DapVersion::ALL.len());
    for (version, why, output) in said {
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        let last = stderr.lines().last().unwrap_or_default();
        assert!(last.contains(why) && last.contains(version.tag()), "{why}: {stderr}");
        assert!(output.stdout.is_empty(), "there are no figures of a wrong helper");
    }
}

#[test]
fn any_helper_is_measured_with_a_task_that_it_knows() {
    let server = Server::start();
    let folder = tempfile::tempdir().unwrap();
    let pid = server.workerd_pids()[0].to_string();
    for version in DapVersion::ALL {
        let task = task(&server, version, folder.path());
        let file = folder.path().join(format!("{}.json", version.tag()));
        let output = bench(&task.helper_url, &file, &["--pid", &pid]);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{stderr}");
        let run: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let cell = &run["cells"][0];
        assert_eq!(
            (&run["helper"], &cell["version"]),
            (&task.helper_url.into(), &version.tag().into())
        );
        assert_eq!((&cell["vdaf"], &cell["job_size"]), (&"sum".into(), &12.into()));
        for name in ["reports_per_s", "native_floor_us", "cpu_us_per_report", "ratio_to_floor"] {
            assert!(cell[name].as_f64().is_some_and(|n| n > 0.0), "{name}: {cell}");
        }
    }
}
