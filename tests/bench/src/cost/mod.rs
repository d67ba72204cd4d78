//! What a deployment costs a month: list prices times what was counted and measured.

mod model;
mod prices;
mod table;

use std::{fs, path::PathBuf};

use clap::Args;
use dapctl::Failure;
use daphne_core::version::DapVersion;
use serde::Serialize;

use self::{
    model::{Bill, Measured, Role, Workload},
    prices::Prices,
};
use crate::{
    counts::Counts,
    kinds::{self, Kind},
    results::Run,
    run::{self, Helper, Shape},
    warm::Limits,
};

/// Job sizes whose CPU is measured, beside the workload's own.
const SIZES: [usize; 4] = [10, 100, 500, 1_000];
/// Jobs at a time while it is measured.
const CONCURRENCY: usize = 4;
/// Reports of each size in each round.
const REPORTS: usize = 4_000;
const ROUNDS: usize = 3;
/// What a bill should be at most for the default workload, in US$.
const TARGET_USD: f64 = 10.0;
/// Rows that a job has written in the background: the index of its ids, packing. `storage` measures 0.2 with ten thousand
/// reports in an object and 0.7 with ten million.
const ROWS_IN_BACKGROUND: f64 = 1.0;
/// Rows that looking for a report's id reads in an object of ten million. `storage` measures 3,008 for 500 reports.
const ROWS_READ_PER_REPORT: f64 = 6.0;
/// What the index of ids comes to hold of a report beside its row, in the background.
const BYTES_INDEXED_PER_REPORT: f64 = 8.0;
/// An isolate that knows nothing reads our keys, too; the one in which jobs are counted has just made them.
const KV_READS_OF_KEYS: f64 = 1.0;

/// Reports in a job and CPU in microseconds per report, by ascending size.
type CpuBySize = Vec<(f64, f64)>;

/// Options of `cost`.
#[derive(Args)]
pub struct CostOptions {
    /// Who is billed. There is no Leader in this Worker; its bill is an estimate by the same model.
    #[arg(long, value_enum, default_value_t)]
    role: Role,
    /// The version of DAP.
    #[arg(long, value_parser = kinds::version, default_value = "dap-09")]
    version: DapVersion,
    /// The VDAF.
    #[arg(long, value_enum, default_value_t = Kind::Histogram)]
    vdaf: Kind,
    /// Reports that arrive in a week.
    #[arg(long, default_value_t = 100e6, value_parser = positive)]
    reports_per_week: f64,
    /// Reports in an aggregation job.
    #[arg(long, default_value_t = 500)]
    job_size: usize,
    /// Batch buckets of a day, each of them collected once.
    #[arg(long, default_value_t = 24.0, value_parser = positive)]
    buckets_per_day: f64,
    /// Durable Objects that share a day's reports.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    shards: u16,
    /// Days for which ids of reports are kept: a task's report_expiry_age, and a day.
    #[arg(long, default_value_t = 15.0, value_parser = positive)]
    retention_days: f64,
    /// How long an object is busy with a request, in milliseconds; on this machine it is a tenth of that.
    #[arg(long, default_value_t = 30.0, value_parser = positive)]
    object_ms: f64,
    /// The share of log lines that is kept: head_sampling_rate in wrangler.toml.
    #[arg(long, default_value_t = 0.1, value_parser = share)]
    log_sampling: f64,
    /// CPU in microseconds per report, instead of measuring it; the same for jobs of all sizes.
    #[arg(long, value_name = "US", value_parser = positive, conflicts_with = "measured")]
    cpu_us: Option<f64>,
    /// What `scripts/bench run --output json` printed, instead of measuring now.
    #[arg(long, value_name = "FILE")]
    measured: Option<PathBuf>,
    /// Other prices, in the form of tests/bench/prices.json.
    #[arg(long, value_name = "FILE")]
    prices: Option<PathBuf>,
}

fn positive(text: &str) -> Result<f64, String> {
    let number: Option<f64> = text.parse().ok();
    number
        .filter(|n| n.is_finite() && *n > 0.0 && *n <= 1e15)
        .ok_or_else(|| "expected a number above 0".to_owned())
}

fn share(text: &str) -> Result<f64, String> {
    let number: Option<f64> = text.parse().ok();
    number
        .filter(|n| (0.0..=1.0).contains(n))
        .ok_or_else(|| "expected a number from 0 to 1".to_owned())
}

/// What a deployment costs, and what changes that.
#[derive(Debug, Serialize)]
pub struct Cost {
    /// Of whom.
    pub workload: Workload,
    /// The version of DAP.
    pub version: DapVersion,
    /// The VDAF.
    pub vdaf: Kind,
    /// The day of the prices.
    pub prices_as_of: String,
    /// When and where CPU was measured; `None` if it was said.
    pub measured_on: Option<String>,
    /// The bill.
    pub bill: Bill,
    /// What the bill is for the helper at most meant to be; of the default workload only.
    pub target_usd: Option<f64>,
    /// The same with jobs of other sizes.
    pub by_job_size: Vec<Variant>,
    /// The same, were something else otherwise.
    pub what_if: Vec<Variant>,
}

/// A bill's sum in another case.
#[derive(Debug, Serialize)]
pub struct Variant {
    /// Which case.
    pub case: String,
    /// CPU in microseconds per report.
    pub cpu_us_per_report: f64,
    /// The bill's sum.
    pub usd: f64,
    /// What has the largest part in it beside the plan.
    pub largest: String,
}

impl CostOptions {
    /// Measures what is not known yet, and computes the bill.
    ///
    /// # Errors
    /// [`Failure`]: an option or file that cannot be used, or the Worker refused something.
    pub fn run(&self) -> Result<Cost, Failure> {
        let prices = self.prices()?;
        let workload = self.workload()?;
        let run = self.measure()?;
        let (cpu, counts) = self.find(&run)?;
        let at = |job_size: f64| {
            let cpu_us = self.cpu_us.unwrap_or_else(|| cpu_at(&cpu, job_size));
            measured(counts, cpu_us, job_size)
        };
        let bill_of =
            |workload: Workload, measured: &Measured| Bill::of(&workload, measured, &prices);
        let here = at(workload.job_size);
        let sizes =
            SIZES.map(|size| size as f64).into_iter().filter(|size| self.is_known(&cpu, *size));
        let by_job_size = sizes.map(|job_size| {
            let measured = at(job_size);
            let bill = bill_of(Workload { job_size, ..workload }, &measured);
            Variant::of(format!("jobs of {job_size}"), &measured, &bill)
        });
        let variant = |case: &str, workload: Workload, measured: Measured| {
            Variant::of(case.to_owned(), &measured, &bill_of(workload, &measured))
        };
        let what_if = vec![
            variant(
                "their CPUs take twice as long as these",
                workload,
                Measured { cpu_us_per_report: here.cpu_us_per_report * 2.0, ..here },
            ),
            variant(
                "objects are busy ten times as long with a request",
                Workload { object_ms: workload.object_ms * 10.0, ..workload },
                here,
            ),
            variant(
                "four times the shards",
                Workload { shards: workload.shards * 4.0, ..workload },
                here,
            ),
            variant(
                "ten times the reports",
                Workload { reports_per_week: workload.reports_per_week * 10.0, ..workload },
                here,
            ),
            variant(
                "clients fetch our HPKE keys anew for each report",
                Workload { keys_fetched_each_time: true, ..workload },
                here,
            ),
        ];
        Ok(Cost {
            version: self.version,
            vdaf: self.vdaf,
            prices_as_of: prices.as_of.clone(),
            measured_on: self.cpu_us.is_none().then(|| {
                format!("{}, {}, commit {}{}", run.date, run.machine.cpu, run.commit, doubts(&run))
            }),
            bill: bill_of(workload, &here),
            target_usd: self.is_default().then_some(TARGET_USD),
            by_job_size: by_job_size.collect(),
            what_if,
            workload,
        })
    }

    fn prices(&self) -> Result<Prices, Failure> {
        let Some(path) = &self.prices else { return Prices::listed().map_err(Failure::Wrong) };
        let usage = |why: String| Failure::Usage(format!("{}: {why}", path.display()));
        let text = fs::read_to_string(path).map_err(|e| usage(e.to_string()))?;
        Prices::parse(&text).map_err(usage)
    }

    fn workload(&self) -> Result<Workload, Failure> {
        if !(1..=10_000).contains(&self.job_size) {
            return Err(Failure::Usage("a job has 1 to 10,000 reports".to_owned()));
        }
        Ok(Workload {
            role: self.role,
            reports_per_week: self.reports_per_week,
            job_size: self.job_size as f64,
            buckets_per_day: self.buckets_per_day,
            shards: f64::from(self.shards),
            retention_days: self.retention_days,
            object_ms: self.object_ms,
            log_sampling: self.log_sampling,
            keys_fetched_each_time: false,
        })
    }

    /// Whether this is the bill that the target is about, with nothing said otherwise.
    fn is_default(&self) -> bool {
        self.role == Role::Helper
            && self.version == DapVersion::V09
            && self.vdaf == Kind::Histogram
            && self.reports_per_week == 100e6
            && self.job_size == 500
            && self.buckets_per_day == 24.0
            && self.shards == 1
            && self.retention_days == 15.0
            && self.object_ms == 30.0
            && self.log_sampling == 0.1
            && self.cpu_us.is_none()
            && self.prices.is_none()
    }

    /// Whether CPU is known for jobs of this size: it was said, or it is no smaller and no larger than what was measured.
    fn is_known(&self, cpu: &CpuBySize, job_size: f64) -> bool {
        let least = cpu.first().is_some_and(|(size, _)| *size <= job_size);
        let most = cpu.last().is_some_and(|(size, _)| *size >= job_size);
        self.cpu_us.is_some() || (least && most)
    }

    /// What was measured, or is now.
    fn measure(&self) -> Result<Run, Failure> {
        if let Some(path) = &self.measured {
            let usage = |why: String| Failure::Usage(format!("{}: {why}", path.display()));
            let text = fs::read_to_string(path).map_err(|e| usage(e.to_string()))?;
            return serde_json::from_str(&text)
                .map_err(|e| usage(format!("not what `scripts/bench run` prints: {e}")));
        }
        let mut sizes = SIZES.to_vec();
        if !sizes.contains(&self.job_size) {
            sizes.push(self.job_size);
        }
        // Who knows the CPU needs the counts alone; one round of anything costs no time.
        let (sizes, reports, rounds) = match self.cpu_us {
            Some(_) => (vec![self.job_size], self.job_size, 1),
            None => (sizes, REPORTS, ROUNDS),
        };
        let shape = |job_size| Shape { job_size, concurrency: CONCURRENCY };
        run::run(&run::Plan {
            helper: Helper::Ours,
            subjects: vec![(self.version, self.vdaf)],
            shapes: sizes.into_iter().map(shape).collect(),
            histogram_shapes: Vec::new(),
            reports,
            rounds,
            warm_up: Limits::USUAL,
            wasm: false,
            count: Some(COUNTED_SIZE),
        })
    }

    /// CPU by job size, and the counts of this version and VDAF.
    fn find<'a>(&self, run: &'a Run) -> Result<(CpuBySize, &'a Counts), Failure> {
        let missing = |what: &str| {
            Failure::Usage(format!(
                "{what} of {} {} are not among what was measured",
                self.version.tag(),
                self.vdaf.name()
            ))
        };
        let is_ours =
            |version: DapVersion, vdaf: Kind| version == self.version && vdaf == self.vdaf;
        let mut cpu: CpuBySize = run
            .cells
            .iter()
            .filter(|cell| cell.vdaf.is_some_and(|vdaf| is_ours(cell.version, vdaf)))
            .filter(|cell| cell.concurrency == CONCURRENCY)
            .filter_map(|cell| Some((cell.job_size as f64, cell.cpu_us_per_report?)))
            .collect();
        cpu.sort_by(|a, b| a.0.total_cmp(&b.0));
        if !self.is_known(&cpu, self.job_size as f64) {
            return Err(missing(&format!("jobs of {} reports", self.job_size)));
        }
        let counts =
            run.counts.iter().find(|c| is_ours(c.version, c.vdaf) && c.job_size == COUNTED_SIZE);
        Ok((cpu, counts.ok_or_else(|| missing(&format!("counts with jobs of {COUNTED_SIZE}")))?))
    }
}

/// What is to be known of a run whose figures are not as good as they could be.
fn doubts(run: &Run) -> String {
    let unsteady = run.cells.iter().any(|cell| !cell.steady);
    let busy = if run.busy { "; the machine was BUSY with other things" } else { "" };
    let unsteady = if unsteady { "; NOT STEADY yet" } else { "" };
    format!("{busy}{unsteady}")
}

/// Reports in a job that is counted: counts per job are the same whatever its size.
const COUNTED_SIZE: usize = 500;

/// What a report costs in a job of this size: a part of its own, and its share of what the job costs. Between two sizes
/// that were measured it is a line over one by the size; beyond them nothing is known, and it is the nearest.
fn cpu_at(measured: &[(f64, f64)], job_size: f64) -> f64 {
    let Some(above) = measured.iter().find(|(size, _)| *size >= job_size) else {
        return measured.last().map_or(0.0, |(_, cpu)| *cpu);
    };
    let Some(below) = measured.iter().rev().find(|(size, _)| *size <= job_size) else {
        return above.1;
    };
    if above.0 == below.0 {
        return above.1;
    }
    let share = (1.0 / job_size - 1.0 / above.0) / (1.0 / below.0 - 1.0 / above.0);
    above.1 + (below.1 - above.1) * share
}

fn measured(counts: &Counts, cpu_us_per_report: f64, job_size: f64) -> Measured {
    let (job, collection) = (&counts.job, &counts.collection);
    Measured {
        cpu_us_per_report,
        worker_requests_per_job: if counts.vdaf == Kind::Poplar1 { 2.0 } else { 1.0 },
        object_requests_per_job: (job.do_requests + job.alarms) as f64,
        rows_read_per_job: job.rows_read as f64 + ROWS_READ_PER_REPORT * job_size,
        rows_written_per_job: (job.rows_written + job.alarms_set) as f64 + ROWS_IN_BACKGROUND,
        kv_reads_per_cold_job: counts.first_job.kv_reads as f64 + KV_READS_OF_KEYS,
        bytes_per_report: counts.stored_bytes_per_report + BYTES_INDEXED_PER_REPORT,
        object_requests_per_collection: (collection.do_requests + collection.alarms) as f64,
        rows_read_per_collection: collection.rows_read as f64,
        rows_written_per_collection: (collection.rows_written + collection.alarms_set) as f64,
    }
}

impl Variant {
    fn of(case: String, measured: &Measured, bill: &Bill) -> Self {
        let dearest = bill.items.iter().skip(1).max_by(|a, b| a.usd.total_cmp(&b.usd));
        let largest = match dearest {
            Some(item) if item.usd > 0.0 => item.item.to_owned(),
            _ => "nothing beside the plan".to_owned(),
        };
        Self { case, cpu_us_per_report: measured.cpu_us_per_report, usd: bill.total_usd, largest }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn between_two_sizes_a_job_costs_its_reports_and_itself() {
        // 100 µs a report and 2,000 a job.
        let measured: Vec<(f64, f64)> =
            [10.0, 100.0, 500.0].map(|size| (size, 100.0 + 2_000.0 / size)).to_vec();
        for size in [10.0, 20.0, 50.0, 100.0, 250.0, 500.0] {
            let expected = 100.0 + 2_000.0 / size;
            assert!((cpu_at(&measured, size) - expected).abs() < 1e-9, "jobs of {size}");
        }
        assert_eq!(cpu_at(&measured, 5.0), 300.0);
        assert_eq!(cpu_at(&measured, 1_000.0), 104.0);
    }

    #[test]
    fn numbers_that_make_no_sense_are_refused() {
        assert!(positive("0").is_err() && positive("-1").is_err() && positive("x").is_err());
        assert!(positive("nan").is_err() && positive("inf").is_err());
        assert_eq!(positive("1e6"), Ok(1e6));
        assert!(share("1.1").is_err());
        assert_eq!(share("0.5"), Ok(0.5));
    }
}
