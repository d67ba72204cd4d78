//! The main benchmark: how fast a helper answers jobs, and what that costs.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    path::PathBuf,
    time::{Duration, Instant},
};

use dapctl::{Failure, helper_client::AuthHeader, task_file::TaskFile};
use daphne_core::version::DapVersion;
use e2e::{Server, server::root};

use crate::{
    builds, counts, cpu,
    drive::{Round, drive},
    floor::Floor,
    jobs::{Batch, Party, new_task},
    kinds::Kind,
    machine,
    numbers::{Latency, Range},
    results::{Cell, Run},
    warm::{Limits, Warm, warm_up},
    wasm::{self, Wasm},
};

/// Shortest time that the libraries are measured for in each round.
const FLOOR_TIME: Duration = Duration::from_millis(200);
/// The jobs that Janus was measured with.
const JANUS_SHAPE: Shape = Shape { job_size: 500, concurrency: 4 };
/// Above this many CPUs used by others the machine counts as busy.
const BUSY_CPUS: f64 = 0.15;

/// What to measure.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Versions and VDAFs; for other helpers what their tasks are of.
    pub subjects: Vec<(DapVersion, Kind)>,
    /// Reports in a job and jobs at a time, for all subjects.
    pub shapes: Vec<Shape>,
    /// The same beyond these, for histograms alone.
    pub histogram_shapes: Vec<Shape>,
    /// Reports of a cell in each round, about.
    pub reports: usize,
    /// Rounds.
    pub rounds: usize,
    /// How long jobs that nobody measures are sent before.
    pub warm_up: Limits,
    /// Whether to also measure the core alone in V8.
    pub wasm: bool,
    /// Whether to also count what the platform bills, and with jobs of what size.
    pub count: Option<usize>,
    /// Whose helper.
    pub helper: Helper,
}

/// Reports in a job, and jobs at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Reports in a job.
    pub job_size: usize,
    /// Jobs at a time.
    pub concurrency: usize,
}

/// Whose helper is measured.
#[derive(Clone, Debug)]
pub enum Helper {
    /// The Worker of this checkout, built if need be.
    Ours,
    /// The Worker in this folder.
    Built(PathBuf),
    /// Another one, that has these tasks.
    Other {
        /// Its URL.
        url: String,
        /// Task files.
        tasks: Vec<TaskFile>,
        /// Where the leader's token goes.
        auth_header: AuthHeader,
        /// Its processes, if they are on this machine.
        pids: Vec<u32>,
    },
}

/// One cell, and what its rounds measured.
struct Measured {
    subject: usize,
    shape: Shape,
    batch: Batch,
    rounds: Vec<Round>,
}

/// Of each version's tag and VDAF: what to measure, and the microseconds of each round.
type Floors = BTreeMap<(&'static str, Kind), (Floor, Vec<f64>)>;

/// The helper while it is measured.
struct Running {
    server: Option<Server>,
    parties: Vec<Party>,
    pids: Vec<u32>,
    name: String,
}

impl Shape {
    /// Jobs of about so many reports: as many for each of those that run at a time.
    const fn jobs(self, reports: usize) -> usize {
        reports.div_ceil(self.job_size).div_ceil(self.concurrency) * self.concurrency
    }
}

/// Measures.
///
/// # Errors
/// [`Failure`]: above all a wrong verdict or aggregate.
pub fn run(plan: &Plan) -> Result<Run, Failure> {
    let (begun, load_average, date) = (Instant::now(), machine::load_average(), machine::date());
    let running = Running::start(plan)?;
    let mut cells = Vec::new();
    for (subject, party) in running.parties.iter().enumerate() {
        let config = party.leader.vdaf.config();
        let more = matches!(Kind::of(config), Some(Kind::Histogram));
        let shapes = plan.shapes.iter().chain(plan.histogram_shapes.iter().filter(|_| more));
        for (n, shape) in shapes.enumerate() {
            let batch = party.batch(n as u64)?;
            cells.push(Measured { subject, shape: *shape, batch, rounds: Vec::new() });
        }
    }
    let warm = warm_up_all(plan, &running, &mut cells)?;
    let mut floors = Floors::new();
    for round in 1..=plan.rounds {
        for cell in &mut cells {
            let party = &running.parties[cell.subject];
            let Shape { job_size, concurrency } = cell.shape;
            eprint!(
                "round {round} of {}: {}, jobs of {job_size}, {concurrency} at a time ...",
                plan.rounds,
                party.name()
            );
            let (version, kind) = (party.leader.version, Kind::of(party.leader.vdaf.config()));
            if let Some(kind) = kind {
                measure_floor(&mut floors, version, kind, round)?;
            }
            let jobs = party.make(&cell.batch, cell.shape.jobs(plan.reports), job_size)?;
            let shape = (job_size, concurrency);
            let measured = drive(party, &mut cell.batch, jobs, shape, &running.pids)?;
            let per_s = measured.reports as f64 / measured.seconds;
            match measured.cpu_us_per_report() {
                Some(us) => eprintln!(" {per_s:.0} reports/s, {us:.0} µs of CPU per report"),
                None => eprintln!(" {per_s:.0} reports/s"),
            }
            cell.rounds.push(measured);
        }
    }
    eprintln!("collecting {} batches", cells.len());
    for cell in &cells {
        running.parties[cell.subject].collect(&cell.batch)?;
    }
    let version = running.server.as_ref().map(|server| server.client().get("/version").json());
    let memory = cpu::memory(&running.pids).filter(|_| !running.pids.is_empty());
    let finished: Vec<Cell> = cells
        .iter()
        .map(|cell| {
            let party = &running.parties[cell.subject];
            let kind = Kind::of(party.leader.vdaf.config());
            let floor = kind.and_then(|kind| floors.get(&(party.leader.version.tag(), kind)));
            cell.finish(party, floor.map(|(_, us)| us.as_slice()), warm[cell.subject])
        })
        .collect();
    let others_cpus = others_cpus(&cells);
    let name = running.name.clone();
    drop(running);
    let mut run = Run {
        helper: name,
        date,
        machine: machine::this(),
        commit: machine::commit(),
        version,
        rounds: plan.rounds,
        busy: false,
        others_cpus,
        load_average,
        cells: finished,
        counts: Vec::new(),
        memory_bytes: memory.map(|(now, _)| now),
        memory_bytes_max: memory.map(|(_, max)| max),
        seconds: 0.0,
    };
    run.busy = run.others_cpus.is_some_and(|cpus| cpus > BUSY_CPUS);
    if plan.wasm {
        eprintln!("measuring the core alone in V8");
        let wasm = Wasm::measure()?;
        run.cells.iter_mut().for_each(|cell| cell.compare(&wasm));
    }
    if let Some(job_size) = plan.count {
        count(plan, job_size, &mut run)?;
    }
    run.seconds = begun.elapsed().as_secs_f64();
    Ok(run)
}

/// Warms the helper up for each task. Those jobs count in its first batch.
fn warm_up_all(
    plan: &Plan,
    running: &Running,
    cells: &mut [Measured],
) -> Result<Vec<Warm>, Failure> {
    let mut all = Vec::new();
    for (subject, party) in running.parties.iter().enumerate() {
        let cell = cells.iter_mut().find(|cell| cell.subject == subject);
        let cell = cell.ok_or_else(|| Failure::Usage("nothing is to be measured".into()))?;
        eprint!("warming up: {} ...", party.name());
        let size = cell.shape.job_size.min(plan.reports);
        let warm = warm_up(party, &mut cell.batch, size, &running.pids, plan.warm_up)?;
        let steady = if warm.steady { "steady" } else { "still becoming cheaper" };
        eprintln!(" {steady} after {} jobs of {size}", warm.jobs);
        all.push(warm);
    }
    Ok(all)
}

/// Measures the libraries alone, once in each round.
fn measure_floor(
    floors: &mut Floors,
    version: DapVersion,
    kind: Kind,
    round: usize,
) -> Result<(), Failure> {
    let key = (version.tag(), kind);
    let (floor, measured) = match floors.entry(key) {
        Entry::Occupied(known) => known.into_mut(),
        Entry::Vacant(new) => new.insert((Floor::new(version, kind)?, Vec::new())),
    };
    if measured.len() < round {
        measured.push(floor.us_per_report(FLOOR_TIME)?);
    }
    Ok(())
}

/// CPUs that others used while the helper worked, on average.
fn others_cpus(cells: &[Measured]) -> Option<f64> {
    let rounds = || cells.iter().flat_map(|cell| &cell.rounds);
    let others: Option<f64> = rounds().map(|round| round.others_cpu_seconds).sum();
    let seconds: f64 = rounds().map(|round| round.seconds).sum();
    others.filter(|_| seconds > 0.0).map(|others| others / seconds)
}

/// Each version and VDAF once.
fn counts_plan(plan: &Plan, job_size: usize) -> counts::Plan {
    let has = |version: &DapVersion| plan.subjects.iter().any(|(v, _)| v == version);
    let versions = DapVersion::ALL.into_iter().filter(has).collect();
    let kinds: BTreeSet<Kind> = plan.subjects.iter().map(|(_, kind)| *kind).collect();
    counts::Plan { versions, kinds: kinds.into_iter().collect(), job_size, jobs: counts::JOBS }
}

/// Counts what the platform bills, on the Worker with routes for tests, and enters it.
fn count(plan: &Plan, job_size: usize, run: &mut Run) -> Result<(), Failure> {
    let plan = counts_plan(plan, job_size);
    let counted = counts::run(&plan, |what| eprintln!("{what}"))?;
    for cell in &mut run.cells {
        let Some(counts) = cell.vdaf.and_then(|kind| counted.of(cell.version, kind)) else {
            continue;
        };
        cell.do_requests_per_job = Some(counts.job.do_requests);
        cell.rows_read_per_job = Some(counts.job.rows_read);
        cell.rows_written_per_job = Some(counts.job.rows_written + counts.job.alarms_set);
        cell.kv_reads_per_job = Some(counts.job.kv_reads);
        cell.stored_bytes_per_report =
            Some(counts.stored_bytes_per_report).filter(|_| cell.job_size == job_size);
        cell.wasm_memory_bytes = Some(counts.wasm_memory_bytes);
    }
    run.counts = counted.counts;
    Ok(())
}

impl Running {
    fn start(plan: &Plan) -> Result<Self, Failure> {
        let build = match &plan.helper {
            Helper::Ours => {
                builds::build(&[])?;
                root().join("build")
            }
            Helper::Built(folder) => folder.clone(),
            Helper::Other { url, tasks, auth_header, pids } => {
                let met = |task: &TaskFile| {
                    let task = TaskFile { helper_url: url.clone(), ..task.clone() };
                    Party::met(task, *auth_header)
                };
                return Ok(Self {
                    server: None,
                    parties: tasks.iter().map(met).collect::<Result<_, _>>()?,
                    pids: pids.clone(),
                    name: url.clone(),
                });
            }
        };
        // What is measured or counts later is built now, so that nothing is compiled between.
        if plan.count.is_some() {
            builds::build(&["--test"])?;
        }
        if plan.wasm {
            wasm::build()?;
        }
        let server = Server::start_built(&build);
        let mut parties = Vec::new();
        for (version, kind) in &plan.subjects {
            let file = new_task(*version, kind.config(), server.client().base())?;
            server.admin().create_task(&file.spec)?;
            parties.push(Party::new(file, server.hpke_config().clone())?);
        }
        let pids = server.workerd_pids();
        Ok(Self { server: Some(server), parties, pids, name: "worker".to_owned() })
    }
}

impl Round {
    fn cpu_us_per_report(&self) -> Option<f64> {
        self.cpu_seconds.map(|s| s * 1e6 / self.reports as f64)
    }
}

impl Cell {
    fn compare(&mut self, wasm: &Wasm) {
        self.wasm_us = self.vdaf.and_then(|kind| wasm.us_per_report(self.version, kind));
        self.ratio_to_wasm = self.cpu_us_per_report.zip(self.wasm_us).map(|(cpu, wasm)| cpu / wasm);
    }
}

impl Measured {
    fn finish(&self, party: &Party, floor_us: Option<&[f64]>, warm: Warm) -> Cell {
        let rounds = || self.rounds.iter();
        let range = |samples: Vec<f64>| Range::of(samples).unwrap_or_default();
        let per_s = range(rounds().map(|r| r.reports as f64 / r.seconds).collect());
        let cpu: Option<Vec<f64>> = rounds().map(Round::cpu_us_per_report).collect();
        let cpu = cpu.and_then(Range::of);
        let cpu_us = cpu.map(|range| range.median);
        let floor = floor_us.and_then(|us| Range::of(us.to_vec())).map(|range| range.median);
        let config = *party.leader.vdaf.config();
        let vdaf = Kind::of(&config);
        let comparable = party.leader.version == DapVersion::V09 && self.shape == JANUS_SHAPE;
        let janus = vdaf.and_then(Kind::janus_us).filter(|_| comparable);
        let ratio = |to: Option<f64>| Some(cpu_us? / to?);
        Cell {
            version: party.leader.version,
            vdaf,
            parameters: config,
            job_size: self.shape.job_size,
            concurrency: self.shape.concurrency,
            reports: self.rounds.first().map_or(0, |r| r.reports),
            reports_per_s: per_s.median,
            reports_per_s_range: per_s,
            cpu_us_per_report: cpu_us,
            cpu_us_per_report_range: cpu,
            latency_ms: Latency::of(rounds().flat_map(|r| r.latencies_ms.clone()).collect()),
            retries: rounds().map(|r| r.retries).sum(),
            warm_up_jobs: warm.jobs,
            steady: warm.steady,
            native_floor_us: floor,
            ratio_to_floor: ratio(floor),
            janus_us: janus,
            ratio_to_janus: ratio(janus),
            wasm_us: None,
            ratio_to_wasm: None,
            do_requests_per_job: None,
            rows_read_per_job: None,
            rows_written_per_job: None,
            kv_reads_per_job: None,
            stored_bytes_per_report: None,
            wasm_memory_bytes: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_version_and_vdaf_is_counted_once() {
        let kinds = [Kind::Histogram, Kind::Count];
        let subjects = kinds.into_iter().flat_map(|kind| DapVersion::ALL.map(|v| (v, kind)));
        let plan = Plan {
            subjects: subjects.collect(),
            shapes: Vec::new(),
            histogram_shapes: Vec::new(),
            reports: 1,
            rounds: 1,
            warm_up: Limits::SHORT,
            wasm: false,
            count: Some(1),
            helper: Helper::Ours,
        };
        let counted = counts_plan(&plan, 1);
        assert_eq!(counted.versions, DapVersion::ALL);
        assert_eq!(counted.kinds, [Kind::Count, Kind::Histogram]);
    }

    #[test]
    fn those_at_work_at_a_time_get_as_many_jobs_each() {
        let jobs = |job_size, concurrency, reports| Shape { job_size, concurrency }.jobs(reports);
        assert_eq!(jobs(500, 4, 8_000), 16);
        assert_eq!(jobs(500, 16, 8_001), 32);
        assert_eq!(jobs(500, 4, 1), 4);
    }
}
