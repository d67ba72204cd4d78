//! Runs schedules: many, on all cores, or one with its trace.

use std::{
    io::{IsTerminal as _, Write as _},
    process::ExitCode,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use clap::Parser;
use daphne_core::version::DapVersion;
use simulation::{
    coverage::Coverage,
    sabotage::Sabotage,
    scenario::Scenario,
    schedule::{self, Report},
    shrink::{Reproduction, shrink},
};

/// Failures shown in full; more of them seldom say more.
const FAILURES_SHOWN: usize = 3;
/// And so many in a line each.
const FAILURES_NAMED: usize = 20;

/// Simulates leader, helper and stores under seeded schedules of faults, and checks what must hold in each.
#[derive(Parser)]
#[command(name = "simulate")]
struct Args {
    /// Number of schedules.
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    seeds: u64,
    /// The first seed.
    #[arg(long, value_name = "S", default_value_t = 0)]
    from: u64,
    /// Run this seed only.
    #[arg(long, value_name = "S", conflicts_with_all = ["seeds", "from"])]
    seed: Option<u64>,
    /// The version of every schedule's task: dap-09 or dap-18. Default: they alternate.
    #[arg(long, value_name = "VERSION", value_parser = version)]
    version: Option<DapVersion>,
    /// Print what the schedule delivers.
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Break a rule of the storage protocol, to see that it is noticed.
    #[arg(long, value_name = "RULE")]
    sabotage: Option<Sabotage>,
    /// Stop at the first violation, and print it as it is.
    #[arg(long, conflicts_with = "seed")]
    first_failure: bool,
    /// Threads. Default: one per core.
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

fn version(text: &str) -> Result<DapVersion, String> {
    let known = DapVersion::ALL.into_iter().find(|version| version.tag() == text);
    known.ok_or_else(|| DapVersion::ALL.map(DapVersion::tag).join(" or "))
}

#[derive(Default)]
struct Totals {
    steps: AtomicU64,
    of_version: [AtomicU64; DapVersion::ALL.len()],
    done: AtomicU64,
    coverage: Mutex<Coverage>,
    failures: Mutex<Vec<(u64, Report)>>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    // Panics in a schedule are violations, and told as such.
    std::panic::set_hook(Box::new(|_| {}));
    match args.seed {
        Some(seed) => run_one(seed, &args),
        None if args.first_failure => run_to_first_failure(&args),
        None => run_many(&args),
    }
}

fn run_one(seed: u64, args: &Args) -> ExitCode {
    let report = schedule::run_seed(args.version, seed, args.sabotage, args.trace);
    println!("{:#?}", Scenario::draw(args.version, seed));
    report.trace.iter().for_each(|line| println!("{line}"));
    if report.violation.is_some() {
        tell(seed, &report, args);
        return ExitCode::FAILURE;
    }
    let (version, steps) = (report.version.tag(), report.steps);
    println!("SIMULATION OK: seed {seed} ({version}), {steps} steps, 0 violations");
    ExitCode::SUCCESS
}

/// Runs schedules in order, and tells of the first that fails: how soon a defect shows, not why.
fn run_to_first_failure(args: &Args) -> ExitCode {
    let end = args.from.saturating_add(args.seeds);
    let (next, first) = (AtomicU64::new(args.from), Mutex::new(None::<(u64, String)>));
    let best = AtomicU64::new(u64::MAX);
    std::thread::scope(|scope| {
        for _ in 0..threads(args) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    // Smaller seeds that are under way may still fail.
                    if seed >= end.min(best.load(Ordering::Relaxed)) {
                        break;
                    }
                    let report = schedule::run_seed(args.version, seed, args.sabotage, false);
                    if let (Some(text), Ok(mut first)) = (report.violation, first.lock())
                        && first.as_ref().is_none_or(|(other, _)| seed < *other)
                    {
                        best.store(seed, Ordering::Relaxed);
                        *first = Some((seed, text));
                    }
                }
            });
        }
    });
    match first.into_inner().ok().flatten() {
        Some((seed, text)) => {
            println!("first violation: seed {seed}: {text}");
            ExitCode::FAILURE
        }
        None => {
            println!("no violation in {} schedules", args.seeds);
            ExitCode::SUCCESS
        }
    }
}

fn threads(args: &Args) -> usize {
    args.threads
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
        .max(1)
}

fn run_many(args: &Args) -> ExitCode {
    let threads = threads(args);
    let end = args.from.saturating_add(args.seeds);
    let (totals, next) = (Totals::default(), AtomicU64::new(args.from));
    let (begun, finished) = (Instant::now(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let workers: Vec<_> =
            (0..threads).map(|_| scope.spawn(|| run_some(&next, end, args, &totals))).collect();
        scope.spawn(|| show_progress(args.seeds, begun, &finished, &totals));
        workers.into_iter().for_each(|w| drop(w.join()));
        finished.store(true, Ordering::Relaxed);
    });
    let (done, steps) = (totals.done.into_inner(), totals.steps.into_inner());
    let of_version = DapVersion::ALL.iter().zip(totals.of_version);
    let of_version = of_version
        .map(|(version, n)| format!("{} of {}", n.into_inner(), version.tag()))
        .collect::<Vec<_>>()
        .join(", ");
    if let Ok(coverage) = totals.coverage.lock() {
        println!("{coverage}");
    }
    let mut failures = totals.failures.into_inner().unwrap_or_default();
    failures.sort_by_key(|(seed, _)| *seed);
    failures.iter().take(FAILURES_SHOWN).for_each(|(seed, report)| tell(*seed, report, args));
    for (seed, report) in failures.iter().skip(FAILURES_SHOWN).take(FAILURES_NAMED) {
        println!("seed {seed}: {}", report.violation.as_deref().unwrap_or_default());
    }
    let seconds = begun.elapsed().as_secs_f64().max(0.001);
    println!(
        "{done} schedules in {seconds:.0} s on {threads} threads, {:.0} per second",
        done as f64 / seconds
    );
    let all_done = done == args.seeds;
    let (verdict, n) = (failures.is_empty() && all_done, failures.len());
    println!(
        "SIMULATION {}: {done} schedules ({of_version}), {steps} steps, {n} violations",
        if verdict { "OK" } else { "FAILED" }
    );
    if verdict { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run_some(next: &AtomicU64, end: u64, args: &Args, totals: &Totals) {
    let (mut coverage, mut failures) = (Coverage::default(), Vec::new());
    loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= end {
            break;
        }
        let report = schedule::run_seed(args.version, seed, args.sabotage, false);
        totals.steps.fetch_add(report.steps, Ordering::Relaxed);
        totals.done.fetch_add(1, Ordering::Relaxed);
        for (version, n) in DapVersion::ALL.iter().zip(&totals.of_version) {
            n.fetch_add(u64::from(*version == report.version), Ordering::Relaxed);
        }
        coverage.merge(&report.coverage);
        if report.violation.is_some() {
            failures.push((seed, report));
        }
    }
    if let (Ok(mut all), Ok(mut failed)) = (totals.coverage.lock(), totals.failures.lock()) {
        all.merge(&coverage);
        failed.append(&mut failures);
    }
}

fn show_progress(seeds: u64, begun: Instant, finished: &AtomicBool, totals: &Totals) {
    let often = std::io::stderr().is_terminal();
    let mut shown = begun;
    while !finished.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(100));
        if shown.elapsed() < Duration::from_secs(if often { 1 } else { 20 }) {
            continue;
        }
        shown = Instant::now();
        let done = totals.done.load(Ordering::Relaxed);
        let rate = done as f64 / begun.elapsed().as_secs_f64();
        let end = if often { "\r" } else { "\n" };
        eprint!("{done} of {seeds} schedules, {rate:.0} per second{end}");
        std::io::stderr().flush().ok();
    }
}

/// Shows a failure, made small.
fn tell(seed: u64, report: &Report, args: &Args) {
    let sabotage = args.sabotage;
    let violation = report.violation.clone().unwrap_or_default();
    println!("seed {seed}, {}: {violation}", report.version.tag());
    let scenario = Scenario::draw(args.version, seed);
    let small = shrink(Reproduction::new(&scenario, &report.choices), sabotage);
    let again = small.run(sabotage, true);
    println!("  made small ({} decisions), it delivers:", small.len());
    again.trace.iter().for_each(|line| println!("    {line}"));
    let violation = again.violation.unwrap_or(violation);
    println!("  {violation}\n  to keep it, in tests/simulation/tests/reproductions.rs:\n");
    println!("{}", small.to_test(&violation));
}
