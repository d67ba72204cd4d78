//! The command line.

use std::{ffi::OsString, path::PathBuf};

use clap::{Args, Parser, Subcommand, error::ErrorKind};
use dapctl::{Failure, helper_client::AuthHeader, output::Format, task_file::TaskFile};
use daphne_core::version::DapVersion;

use crate::{
    cost::CostOptions,
    counts,
    kinds::{self, Kind},
    machine,
    run::{self, Helper, Shape},
    task::TaskOptions,
    warm::Limits,
};

/// Measures what DAP helpers cost, on this machine and on state of its own.
#[derive(Parser)]
#[command(name = "scripts/bench", bin_name = "scripts/bench")]
pub struct Cli {
    /// What to measure.
    #[command(subcommand)]
    pub command: Command,
    /// How results are printed; progress goes to standard error.
    #[arg(long, global = true, value_enum, default_value_t)]
    pub output: Format,
}

/// Reports in a job of a short run.
const QUICK_SIZE: usize = 50;

/// What to measure.
#[derive(Subcommand)]
pub enum Command {
    /// How fast a helper answers jobs, and what that costs: reports a second, CPU per report, latency. The default.
    ///
    /// Jobs are made ahead of time and sent to the built Worker, as it is deployed, in workerd on this machine. Each verdict is
    /// checked, and at the end the aggregate of each batch. CPU is that of workerd alone. Beside it stand what the libraries
    /// cost natively (hpke-rs and prio on one thread), what the core costs in V8 (as scripts/bench wasm does), and what
    /// native Janus 0.7 with Postgres once cost on two cores of about this kind. Jobs are sent until they cost no less any
    /// more; then cells are measured in interleaved rounds, and the median round counts. Then the Worker with a meter
    /// counts what the platform bills.
    ///
    /// Without --job-size and --concurrency: jobs of 500 four at a time, and for histograms also other sizes and numbers.
    ///
    /// --helper measures another helper, of either version, with the same jobs. It must have the task, and --task reads its
    /// file: of a Worker of ours `dapctl task add --save FILE` makes both, for others `scripts/bench task` writes the file and
    /// what their operator provisions. Reports are spread over the last days, each run and cell in
    /// a batch bucket of its own; the helper must accept reports of that age. The first of its HPKE configurations that we
    /// implement is sealed to. --pid says which processes' CPU is to be counted, if they are on this machine: those of the
    /// aggregator and of its database.
    Run(RunOptions),
    /// What the platform bills for a job: requests to objects, rows, reads of KV, bytes. Takes less than half a minute.
    ///
    /// On the Worker with routes for tests, which has a meter. The numbers are the same on each machine.
    Counts(CountsOptions),
    /// What a deployment costs a month: list prices times what is counted and measured, itemised.
    ///
    /// Measures CPU with jobs of several sizes, and counts what the platform bills; --measured takes both from the output of
    /// a run, and --cpu-us takes CPU from you. The prices are Cloudflare's, with their day, from tests/bench/prices.json.
    /// CPU is that of this machine, objects' included, which the platform does not bill.
    Cost(CostOptions),
    /// Makes a task for a helper that is not ours: the file that `run --task` reads, and what its operator provisions.
    ///
    /// scripts/bench task --vdaf histogram --helper http://127.0.0.1:8080/ --save t.json --janus tasks.yaml
    Task(TaskOptions),
    /// Grows one batch bucket, and shows what an aggregation job of 500 reports costs at each size.
    ///
    /// Most jobs are made up and sent to the Durable Objects as they are; at each size a few real ones go through the
    /// Worker. At the end the batch is collected, and the aggregate compared with the truth.
    Storage {
        /// Reports in the batch at the end.
        #[arg(long, default_value_t = 10_000_000)]
        reports: u64,
        /// Durable Objects that share them.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
        shards: u16,
    },
}

/// Which tasks.
#[derive(Args, Default)]
pub struct Subjects {
    /// Versions, dap-09 and dap-18, with commas between. Default: both.
    #[arg(long, value_parser = kinds::version, value_delimiter = ',')]
    pub version: Vec<DapVersion>,
    /// VDAFs, with commas between. Default: all.
    #[arg(long, value_enum, value_delimiter = ',')]
    pub vdaf: Vec<Kind>,
}

/// Options of `run`.
#[derive(Args, Default)]
pub struct RunOptions {
    #[command(flatten)]
    subjects: Subjects,
    /// Reports in a job; several sizes are measured one by one.
    #[arg(long, value_delimiter = ',', value_parser = at_least_one)]
    job_size: Vec<usize>,
    /// Jobs at a time; several numbers are measured one by one.
    #[arg(long, value_delimiter = ',', value_parser = at_least_one)]
    concurrency: Vec<usize>,
    /// Reports of each cell in each round, about. Default: 8000.
    #[arg(long, value_parser = at_least_one)]
    reports: Option<usize>,
    /// Rounds. Default: 3.
    #[arg(long, value_parser = at_least_one)]
    rounds: Option<usize>,
    /// A short run to see that all of it works; its numbers say little.
    #[arg(long)]
    quick: bool,
    /// A folder that scripts/build has written, to measure that Worker; nothing is built or counted then.
    #[arg(long, value_name = "DIR", conflicts_with = "helper")]
    build: Option<PathBuf>,
    /// The DAP URL of another helper, to which hpke_config is appended: http://127.0.0.1:8080/ of Janus, …/v09/ of a Worker.
    #[arg(long, value_name = "URL", requires = "task")]
    helper: Option<String>,
    /// A task file of dapctl; may be given several times.
    #[arg(long, value_name = "FILE", requires = "helper")]
    task: Vec<PathBuf>,
    /// A process of the other helper, whose CPU is counted; may be given several times. Children are not included: name
    /// each of a database's. If one of them ends meanwhile, no CPU is shown.
    #[arg(long, requires = "helper")]
    pid: Vec<u32>,
    /// Where the leader's token goes.
    #[arg(long, value_enum, requires = "helper", default_value_t)]
    auth_header: AuthHeader,
}

/// Options of `counts`.
#[derive(Args)]
pub struct CountsOptions {
    #[command(flatten)]
    subjects: Subjects,
    /// Reports in a job.
    #[arg(long, default_value_t = 500, value_parser = at_least_one)]
    job_size: usize,
    /// Jobs that are counted beside the first.
    #[arg(long, default_value_t = counts::JOBS, value_parser = at_least_one)]
    jobs: usize,
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("expected a number of at least 1".to_owned()),
        Ok(n) if n > 1_000_000_000 => Err("expected a number of at most a billion".to_owned()),
        Ok(n) => Ok(n),
    }
}

impl Subjects {
    fn versions(&self) -> Vec<DapVersion> {
        if self.version.is_empty() { DapVersion::ALL.to_vec() } else { self.version.clone() }
    }

    fn kinds(&self) -> Vec<Kind> {
        if self.vdaf.is_empty() { Kind::all() } else { self.vdaf.clone() }
    }
}

impl RunOptions {
    /// What they ask for.
    ///
    /// # Errors
    /// [`Failure::Usage`] in one sentence.
    pub fn plan(&self) -> Result<run::Plan, Failure> {
        let (shapes, histogram_shapes) = self.shapes();
        let usage = |why: &str| Err(Failure::Usage(why.to_owned()));
        let helper = match (&self.helper, &self.build) {
            (Some(url), _) => {
                if !(self.subjects.version.is_empty() && self.subjects.vdaf.is_empty()) {
                    return usage("with --helper the task file says what the version and VDAF are");
                }
                let tasks: Result<Vec<_>, _> =
                    self.task.iter().map(|p| TaskFile::read(p)).collect();
                Helper::Other {
                    url: url.clone(),
                    tasks: tasks?,
                    auth_header: self.auth_header,
                    pids: self.pid.clone(),
                }
            }
            (None, Some(folder)) if !machine::is_built(folder) => {
                return usage("--build must name a folder that scripts/build has written");
            }
            (None, Some(folder)) => Helper::Built(folder.clone()),
            (None, None) => Helper::Ours,
        };
        let (versions, kinds) = (self.subjects.versions(), self.subjects.kinds());
        let ours = matches!(helper, Helper::Ours);
        Ok(run::Plan {
            subjects: kinds
                .iter()
                .flat_map(|kind| versions.iter().map(|version| (*version, *kind)))
                .collect(),
            shapes,
            histogram_shapes,
            reports: self.reports.unwrap_or(if self.quick { 4 * QUICK_SIZE } else { 8_000 }),
            rounds: self.rounds.unwrap_or(if self.quick { 1 } else { 3 }),
            warm_up: if self.quick { Limits::SHORT } else { Limits::USUAL },
            wasm: ours && !self.quick,
            count: ours.then_some(if self.quick { QUICK_SIZE } else { 500 }),
            helper,
        })
    }

    /// For all VDAFs, and beyond these for histograms.
    fn shapes(&self) -> (Vec<Shape>, Vec<Shape>) {
        let cross = |sizes: &[usize], at_a_time: &[usize]| -> Vec<Shape> {
            let shape = |job_size, concurrency| Shape { job_size, concurrency };
            sizes.iter().flat_map(|s| at_a_time.iter().map(|c| shape(*s, *c))).collect()
        };
        let or = |given: &Vec<usize>, default: usize| {
            if given.is_empty() { vec![default] } else { given.clone() }
        };
        let size = if self.quick { QUICK_SIZE } else { 500 };
        let shapes = cross(&or(&self.job_size, size), &or(&self.concurrency, 4));
        let asked = self.quick || !self.job_size.is_empty() || !self.concurrency.is_empty();
        let more = if asked { Vec::new() } else { cross(&[10, 100, 500], &[1, 4, 16]) };
        let more = more.into_iter().filter(|shape| !shapes.contains(shape)).collect();
        (shapes, more)
    }
}

impl CountsOptions {
    /// What they ask for.
    pub fn plan(&self) -> counts::Plan {
        counts::Plan {
            versions: self.subjects.versions(),
            kinds: self.subjects.kinds(),
            job_size: self.job_size,
            jobs: self.jobs,
        }
    }
}

/// Reads the command line. Asked for help, prints it and ends the process.
///
/// # Errors
/// [`Failure::Usage`] in one sentence.
pub fn parse() -> Result<Cli, Failure> {
    parse_from(std::env::args_os())
}

fn parse_from(line: impl IntoIterator<Item = OsString>) -> Result<Cli, Failure> {
    Cli::try_parse_from(line).map_err(|e| {
        if matches!(e.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
            e.exit();
        }
        // What follows the first paragraph are hints and the usage.
        let text = e.render().to_string();
        let first = text.split("\n\n").next().unwrap_or_default();
        let sentence = first.strip_prefix("error: ").unwrap_or(first);
        let sentence: Vec<&str> = sentence.split_whitespace().collect();
        Failure::Usage(format!("{}; --help lists the options", sentence.join(" ")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Cli, Failure> {
        parse_from(format!("bench {line}").split(' ').map(Into::into))
    }

    fn plan(line: &str) -> Result<run::Plan, Failure> {
        match parsed(line)?.command {
            Command::Run(options) => options.plan(),
            _ => panic!("{line} is no run"),
        }
    }

    #[test]
    fn without_options_everything_is_measured() {
        let plan = plan("run").unwrap();
        assert_eq!(plan.subjects.len(), 2 * Kind::all().len());
        assert_eq!(plan.shapes, [Shape { job_size: 500, concurrency: 4 }]);
        assert_eq!(plan.histogram_shapes.len(), 8);
        assert_eq!((plan.rounds, plan.count, plan.wasm), (3, Some(500), true));
    }

    #[test]
    fn what_is_asked_for_is_measured_and_nothing_else() {
        let plan = plan(
            "run --version 18 --vdaf count,sumvec --job-size 10,100 --concurrency 1,16 --reports 50",
        )
        .unwrap();
        assert_eq!(
            plan.subjects,
            [(DapVersion::V18, Kind::Count), (DapVersion::V18, Kind::Sumvec)]
        );
        assert_eq!(plan.shapes.len(), 4);
        assert_eq!(plan.shapes[1], Shape { job_size: 10, concurrency: 16 });
        assert_eq!((plan.histogram_shapes.len(), plan.reports), (0, 50));
    }

    #[test]
    fn bad_usage_is_one_sentence() {
        for (line, why) in [
            ("run --job-size 0", "expected a number of at least 1"),
            ("run --version dap-07", "a version is one of dap-09, dap-18"),
            ("run --vdaf median", "invalid value 'median'"),
            ("run --helper http://127.0.0.1:1/", "--task"),
            ("run --pid 1", "--helper"),
            ("run --build /nowhere", "must name a folder"),
            ("run --task /nowhere --helper http://127.0.0.1:1/", "cannot read /nowhere"),
            ("fly", "unrecognized subcommand 'fly'"),
        ] {
            let Err(Failure::Usage(said)) = plan(line) else { panic!("{line} is accepted") };
            assert!(said.contains(why) && !said.contains('\n'), "{line}: {said}");
        }
    }
}
