//! Where a run takes place: the machine, the commit, the time.

use std::{fs, num::NonZero, path::Path, process::Command, thread};

use dapctl::output::utc;
use daphne_core::time::Time;
use e2e::{now, server::root};

use crate::results::Machine;

/// This machine.
pub fn this() -> Machine {
    let field = |file: &str, name: &str| {
        let text = fs::read_to_string(file).ok()?;
        let line = text.lines().find(|line| line.starts_with(name))?;
        line.split_once(':').map(|(_, value)| value.trim().to_owned())
    };
    let kib = field("/proc/meminfo", "MemTotal");
    let kib = kib.and_then(|kib| kib.split(' ').next()?.parse::<u64>().ok());
    Machine {
        cpu: field("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown".to_owned()),
        cpus: thread::available_parallelism().map_or(1, NonZero::get),
        memory_bytes: kib.map(|kib| kib * 1_024),
        system: said("uname", &["-sr"]).unwrap_or_else(|| std::env::consts::OS.to_owned()),
    }
}

/// The load average of the last minute.
pub fn load_average() -> Option<f64> {
    fs::read_to_string("/proc/loadavg").ok()?.split(' ').next()?.parse().ok()
}

/// The time, for people.
pub fn date() -> String {
    utc(Time::from_seconds(now()))
}

/// The commit that is checked out.
pub fn commit() -> String {
    let root = root();
    let git = |arguments: &[&str]| {
        let folder = root.to_string_lossy();
        said("git", &[&["-C", &folder], arguments].concat())
    };
    let Some(commit) = git(&["rev-parse", "HEAD"]) else { return "unknown".to_owned() };
    match git(&["status", "--porcelain", "--", "crates", "durable_objects", "tests/bench"]) {
        Some(changed) if !changed.is_empty() => commit + "-modified",
        _ => commit,
    }
}

/// Whether a folder holds a built Worker.
pub fn is_built(folder: &Path) -> bool {
    folder.join("index_bg.wasm").exists()
}

fn said(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
