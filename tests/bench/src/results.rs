//! What a run measured, with stable names: what `--output json` prints.

use daphne_core::{vdaf::VdafConfig, version::DapVersion};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    counts::Counts,
    kinds::Kind,
    numbers::{Latency, Range},
};

/// A whole run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Run {
    /// Whose helper was measured: `worker`, the built Worker in workerd on this machine, or a URL.
    pub helper: String,
    /// When it began, as `2026-01-31 12:00:00 UTC`.
    pub date: String,
    /// Where it ran.
    pub machine: Machine,
    /// The commit of this checkout; ends in `-modified` if files were changed since.
    pub commit: String,
    /// What the helper says it is, if it says so.
    pub version: Option<Value>,
    /// Rounds of each cell.
    pub rounds: usize,
    /// Whether the machine had other work meanwhile, so that the numbers are worse than they could be.
    pub busy: bool,
    /// CPUs that others used while the helper worked, on average; `None` if that is unknown.
    pub others_cpus: Option<f64>,
    /// The load average of a minute when it began.
    pub load_average: Option<f64>,
    /// By version, VDAF, job size and concurrency.
    pub cells: Vec<Cell>,
    /// What the platform bills; empty for other helpers.
    pub counts: Vec<Counts>,
    /// Resident memory of the helper's processes at the end, in bytes.
    pub memory_bytes: Option<u64>,
    /// The largest that it was.
    pub memory_bytes_max: Option<u64>,
    /// How long all of it took.
    pub seconds: f64,
}

/// A machine.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Machine {
    /// The CPU's name.
    pub cpu: String,
    /// CPUs that may be used.
    pub cpus: usize,
    /// Memory in bytes.
    pub memory_bytes: Option<u64>,
    /// The kernel's name and release.
    pub system: String,
}

/// One version and VDAF with jobs of one size, so many at a time. Times are those of the median round.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Cell {
    /// The version.
    pub version: DapVersion,
    /// The VDAF; `None` if a task has other parameters than we measure.
    pub vdaf: Option<Kind>,
    /// Its parameters.
    pub parameters: VdafConfig,
    /// Reports in a job.
    pub job_size: usize,
    /// Jobs under way at a time.
    pub concurrency: usize,
    /// Reports in each round.
    pub reports: usize,
    /// Reports a second, the median.
    pub reports_per_s: f64,
    /// The same in all rounds.
    pub reports_per_s_range: Range,
    /// CPU of the helper's processes in microseconds per report, the median; `None` if they are unknown.
    pub cpu_us_per_report: Option<f64>,
    /// The same in all rounds.
    pub cpu_us_per_report_range: Option<Range>,
    /// How long jobs took, of all rounds.
    pub latency_ms: Latency,
    /// Requests that had to be repeated.
    pub retries: usize,
    /// Jobs of this version and VDAF that nobody measured, before all others.
    pub warm_up_jobs: usize,
    /// Whether these had stopped becoming cheaper.
    pub steady: bool,
    /// CPU of `hpke-rs` and `prio` alone, natively on one thread, in microseconds per report.
    pub native_floor_us: Option<f64>,
    /// `cpu_us_per_report` to that.
    pub ratio_to_floor: Option<f64>,
    /// CPU of native Janus 0.7 with Postgres as a helper of DAP-09 in microseconds per report, measured once on two cores of
    /// about this kind, with jobs of 500, four at a time.
    pub janus_us: Option<f64>,
    /// `cpu_us_per_report` to that.
    pub ratio_to_janus: Option<f64>,
    /// CPU of the core alone in wasm, in V8, in microseconds per report, measured in the same run. It computes
    /// Diffie-Hellman itself, which the Worker has the platform do.
    pub wasm_us: Option<f64>,
    /// `cpu_us_per_report` to that.
    pub ratio_to_wasm: Option<f64>,
    /// Requests to Durable Objects for a job.
    pub do_requests_per_job: Option<u64>,
    /// Rows read for a job.
    pub rows_read_per_job: Option<u64>,
    /// Rows written for a job, alarms set included.
    pub rows_written_per_job: Option<u64>,
    /// Reads of KV for a job.
    pub kv_reads_per_job: Option<u64>,
    /// Bytes stored for a report.
    pub stored_bytes_per_report: Option<f64>,
    /// Memory of the isolate's module.
    pub wasm_memory_bytes: Option<u64>,
}
