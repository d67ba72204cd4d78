//! One workerd with the test Worker, on state of its own.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use dapctl::admin::AdminClient;
use daphne_core::{
    b64,
    hpke::HpkeConfig,
    ids::{HpkeConfigId, TaskId},
};
use serde_json::json;
use tempfile::TempDir;

use crate::{
    client::{Answer, Client},
    heard,
};

/// Id of the HPKE key that every server has.
pub const HPKE_KEY_ID: HpkeConfigId = HpkeConfigId(7);

/// Random bytes.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the system has randomness");
    bytes
}

/// Random text that is fit for a header.
pub fn random_token() -> String {
    b64::encode(&random::<24>())
}

/// Ends a server's folder once nobody holds its standard input any more. Keeps the log where `heard.rs` does, if anywhere.
const JANITOR: &str = r#"cat >/dev/null; sleep 3
if [ -n "$2" ] && [ -f "$1/log" ]; then cp -- "$1/log" "$2/log-$(basename -- "$1")"; fi
rm -rf -- "$1""#;

/// A running server. Dropped, it stops and its state is gone.
pub struct Server {
    process: Option<(Child, JoinHandle<()>)>,
    folder: TempDir,
    // Removes the folder when this process ends without dropping, as it does with statics.
    janitor: Child,
    client: Client,
    admin_token: String,
    hpke_config: HpkeConfig,
    secrets: BTreeMap<&'static str, String>,
    limits: Vec<String>,
    build: PathBuf,
}

impl Default for Server {
    fn default() -> Self {
        Self::start()
    }
}

impl Server {
    /// Starts a server on new state, with one HPKE key.
    ///
    /// # Panics
    /// If the test Worker is not built, or does not start.
    pub fn start() -> Self {
        Self::start_with_limits(&[])
    }

    /// As [`Server::start`], with rate limits bound, of so many requests in ten seconds.
    ///
    /// # Panics
    /// As [`Server::start`].
    pub fn start_with_limits(limits: &[(&str, u32)]) -> Self {
        let limits = limits.iter().map(|(name, n)| format!("--limit={name}={n}")).collect();
        Self::start_build(root().join("build-test"), limits)
    }

    /// As [`Server::start`], with the Worker that `scripts/build` has written to this folder: one that is deployed, without
    /// routes for tests.
    ///
    /// # Panics
    /// As [`Server::start`].
    pub fn start_built(build: &Path) -> Self {
        Self::start_build(build.to_owned(), Vec::new())
    }

    fn start_build(build: PathBuf, limits: Vec<String>) -> Self {
        let folder = tempfile::Builder::new().prefix("daphne-e2e-").tempdir().expect("a folder");
        let admin_token = random_token();
        let root_keys = format!("1={}", b64::encode(&random::<32>()));
        let secrets =
            BTreeMap::from([("ROOT_KEYS", root_keys), ("ADMIN_TOKENS", admin_token.clone())]);
        write_secrets(folder.path(), &secrets);
        let janitor = Command::new("sh")
            .args(["-c", JANITOR, "janitor"])
            .arg(folder.path())
            .arg(heard::folder().unwrap_or_default())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("sh starts");
        let (process, base) = spawn(&build, folder.path(), 0, &limits);
        let client = Client::new(&base);
        let admin = AdminClient::new(&base, &admin_token).expect("a URL and a token");
        let hpke_config = admin.add_hpke_key(Some(HPKE_KEY_ID), None).expect("an HPKE key");
        Self {
            process: Some(process),
            folder,
            janitor,
            client,
            admin_token,
            hpke_config,
            secrets,
            limits,
            build,
        }
    }

    /// A client that presents nothing.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The admin API.
    pub fn admin(&self) -> AdminClient {
        AdminClient::new(self.client.base(), &self.admin_token).expect("a URL and a token")
    }

    /// The token of the admin API.
    pub fn admin_token(&self) -> &str {
        &self.admin_token
    }

    /// The HPKE configuration that was published first.
    pub fn hpke_config(&self) -> &HpkeConfig {
        &self.hpke_config
    }

    /// A secret of the deployment.
    pub fn secret(&self, name: &str) -> &str {
        self.secrets.get(name).map_or("", String::as_str)
    }

    /// Changes a secret, and restarts as a deploy does.
    pub fn set_secret(&mut self, name: &'static str, value: &str) {
        self.secrets.insert(name, value.to_owned());
        write_secrets(self.folder.path(), &self.secrets);
        self.restart();
    }

    /// Changes a secret to something with which the server does not become healthy. Stops it, and returns what it said.
    pub fn refuses_secret(mut self, name: &'static str, value: &str) -> String {
        self.stop();
        self.secrets.insert(name, value.to_owned());
        write_secrets(self.folder.path(), &self.secrets);
        let folder = self.folder.path().to_owned();
        let said = std::panic::catch_unwind(|| spawn(&self.build, &folder, 0, &[]))
            .expect_err("it is unhealthy");
        said.downcast_ref::<String>().cloned().unwrap_or_default()
    }

    /// Stops the server in good order. Returns all that it wrote.
    pub fn stop_and_read_log(&mut self) -> String {
        self.stop();
        self.log()
    }

    /// Stops the server in good order, and starts it again on the same state and port.
    pub fn restart(&mut self) {
        self.stop();
        let port = self.client.base().rsplit(':').next().and_then(|p| p.parse().ok());
        let (process, base) =
            spawn(&self.build, self.folder.path(), port.expect("a port"), &self.limits);
        assert_eq!(base, self.client.base());
        self.process = Some(process);
    }

    /// Kills workerd as a power cut would, and waits until it was started again on the same state and port.
    pub fn kill_workerd(&self) {
        let old = self.workerd();
        signal("-KILL", &old);
        let deadline = Instant::now() + Duration::from_secs(30);
        while Instant::now() < deadline {
            let answer = self.client.send("GET", "/healthz", &[], None);
            if answer.is_ok_and(|a| a.status == 200) && self.workerds().iter().all(|p| *p != old) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("workerd did not come back: {}", self.log());
    }

    fn workerd(&self) -> String {
        let found = self.workerds();
        let [pid] = found.as_slice() else { panic!("workerd runs as {found:?}") };
        pid.clone()
    }

    /// The processes that the Worker runs in.
    pub fn workerd_pids(&self) -> Vec<u32> {
        self.workerds().iter().filter_map(|pid| pid.parse().ok()).collect()
    }

    fn workerds(&self) -> Vec<String> {
        let (serve, _) = self.process.as_ref().expect("the server runs");
        let found = Command::new("pgrep")
            .args(["-P", &serve.id().to_string(), "-x", "workerd"])
            .output()
            .expect("pgrep runs");
        String::from_utf8_lossy(&found.stdout).lines().map(str::to_owned).collect()
    }

    /// Has these calls to objects fail, by their number from now on.
    pub fn plan(&self, faults: &[(usize, &str)]) {
        self.plan_to("", faults);
    }

    /// The same of calls to this task's objects only: alarms of others may ring meanwhile.
    pub fn plan_for(&self, task: &TaskId, faults: &[(usize, &str)]) {
        self.plan_to(&task.to_string(), faults);
    }

    fn plan_to(&self, to: &str, faults: &[(usize, &str)]) {
        let calls: serde_json::Map<_, _> =
            faults.iter().map(|(k, fault)| (k.to_string(), json!(fault))).collect();
        self.set_plan(&json!({ "calls": calls, "to": to }));
    }

    fn set_plan(&self, plan: &serde_json::Value) {
        let plan = plan.to_string();
        let answer = self.client.ask("POST", "/internal/test/faults", &[], Some(plan.as_bytes()));
        assert_eq!(answer.status, 204, "{}", answer.text());
    }

    /// Has the platform compute no Diffie-Hellman, or compute it again. No call to an object fails.
    pub fn plan_webcrypto(&self, is_there: bool) {
        self.set_plan(&json!({ "no_webcrypto": !is_there }));
    }

    /// The bindings of the objects called since the last [`Server::plan`], those that it numbers.
    pub fn calls(&self) -> Vec<String> {
        serde_json::from_value(self.client.get("/internal/test/faults").json()).expect("a list")
    }

    /// Asks as the operator.
    pub fn admin_ask(&self, method: &str, path: &str, body: Option<&str>) -> Answer {
        let bearer = format!("Bearer {}", self.admin_token);
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        self.client.ask(method, path, &headers, body.map(str::as_bytes))
    }

    /// What the server wrote so far, the Worker's log included.
    pub fn log(&self) -> String {
        read_log(self.folder.path())
    }

    fn stop(&mut self) {
        if let Some((mut serve, log)) = self.process.take() {
            signal("-TERM", &serve.id().to_string());
            let _ = serve.wait();
            let _ = log.join();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
        heard::log(self.folder.path());
        let _ = self.janitor.kill();
        let _ = self.janitor.wait();
    }
}

fn write_secrets(folder: &Path, secrets: &BTreeMap<&str, String>) {
    secrets.values().for_each(|value| heard::secret(value));
    let text: String =
        secrets.iter().map(|(name, value)| format!("{name}=\"{value}\"\n")).collect();
    std::fs::write(folder.join("env"), text).expect("the folder can be written");
}

fn signal(signal: &str, pid: &str) {
    let status = Command::new("kill").args([signal, pid]).status().expect("kill runs");
    assert!(status.success(), "kill {signal} {pid} failed");
}

fn read_log(folder: &Path) -> String {
    std::fs::read_to_string(folder.join("log")).unwrap_or_default()
}

/// The checkout.
pub fn root() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "..", ".."].iter().collect()
}

fn spawn(
    build: &Path,
    folder: &Path,
    port: u16,
    limits: &[String],
) -> ((Child, JoinHandle<()>), String) {
    let root = root();
    assert!(
        build.join("index_bg.wasm").exists(),
        "{} holds no built Worker; run scripts/build --test first.",
        build.display()
    );
    let mut log = File::options()
        .create(true)
        .append(true)
        .open(folder.join("log"))
        .expect("the folder can be written");
    let mut serve = Command::new(root.join("scripts/serve"))
        .args(["--port", &port.to_string()])
        .arg("--persist")
        .arg(folder.join("state"))
        .arg("--build")
        .arg(build)
        .arg("--env-file")
        .arg(folder.join("env"))
        .args(limits)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log.try_clone().expect("another handle"))
        .spawn()
        .expect("scripts/serve starts");
    let mut stdout = BufReader::new(serve.stdout.take().expect("a pipe"));
    let mut line = String::new();
    while stdout.read_line(&mut line).is_ok_and(|n| n > 0) {
        if let Some(base) = line.trim().strip_prefix("READY ") {
            let base = base.to_owned();
            // The Worker's log comes this way, and somebody must read it.
            let copy = std::thread::spawn(move || drop(std::io::copy(&mut stdout, &mut log)));
            return ((serve, copy), base);
        }
        log.write_all(line.as_bytes()).expect("the folder can be written");
        line.clear();
    }
    let _ = serve.wait();
    panic!("scripts/serve did not become ready: {}", read_log(folder));
}
