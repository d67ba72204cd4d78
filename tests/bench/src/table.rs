//! A run, for people.

use std::fmt;

use crate::{
    kinds::Kind,
    results::{Cell, Run},
};

/// A column: two lines of a heading, its width, and what a cell shows.
type Column = (&'static str, &'static str, usize, fn(&Cell) -> String);

const COLUMNS: &[Column] = &[
    ("", "jobs", 9, |c| format!("{}×{}", c.job_size, c.concurrency)),
    ("reports", "a second", 10, |c| format!("{:.0}", c.reports_per_s)),
    ("CPU µs per report", "median (min..max)", 19, |c| {
        c.cpu_us_per_report_range
            .map_or_else(none, |r| format!("{:.0} ({:.0}..{:.0})", r.median, r.min, r.max))
    }),
    ("native", "floor µs", 10, |c| whole(c.native_floor_us)),
    ("× the", "floor", 7, |c| ratio(c.ratio_to_floor)),
    ("wasm", "µs", 7, |c| whole(c.wasm_us)),
    ("×", "wasm", 7, |c| ratio(c.ratio_to_wasm)),
    ("Janus", "µs", 7, |c| whole(c.janus_us)),
    ("×", "Janus", 7, |c| ratio(c.ratio_to_janus)),
    ("ms per job", "p50 / p90 / p99 / max", 27, |c| {
        let l = c.latency_ms;
        format!("{:.0} / {:.0} / {:.0} / {:.0}", l.p50, l.p90, l.p99, l.max)
    }),
];

fn none() -> String {
    "–".to_owned()
}

fn whole(value: Option<f64>) -> String {
    value.map_or_else(none, |value| format!("{value:.0}"))
}

fn ratio(value: Option<f64>) -> String {
    value.map_or_else(none, |value| format!("{value:.2}"))
}

fn mib(bytes: u64) -> u64 {
    bytes >> 20
}

impl Cell {
    fn vdaf_name(&self) -> String {
        self.vdaf.map_or_else(|| self.parameters.name().to_owned(), Kind::name)
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let m = &self.machine;
        writeln!(f, "{}, {} CPUs, {}", m.cpu, m.cpus, m.system)?;
        writeln!(f, "{}, commit {}, helper: {}", self.date, self.commit, self.helper)?;
        writeln!(f, "{} rounds, all verdicts and aggregates right\n", self.rounds)?;
        for heading in [|c: &Column| c.0, |c: &Column| c.1] {
            write!(f, "{:<33}", "")?;
            for column in COLUMNS {
                write!(f, "{:>width$}", heading(column), width = column.2)?;
            }
            writeln!(f)?;
        }
        for cell in &self.cells {
            write!(f, "{:<7}{:<26}", cell.version.tag(), cell.vdaf_name())?;
            for (_, _, width, show) in COLUMNS {
                write!(f, "{:>width$}", show(cell))?;
            }
            writeln!(f)?;
        }
        writeln!(f, "\njobs: reports in a job × jobs at a time")?;
        if self.cells.iter().any(|c| c.native_floor_us.is_some()) {
            writeln!(
                f,
                "native floor: hpke-rs and prio alone, natively on one thread, measured in this run"
            )?;
        }
        if self.cells.iter().any(|c| c.wasm_us.is_some()) {
            writeln!(
                f,
                "wasm: the core alone in V8, compiled as the Worker is, measured in this run (scripts/bench wasm); it computes Diffie-Hellman itself, which the Worker has the platform do"
            )?;
        }
        if self.cells.iter().any(|c| c.janus_us.is_some()) {
            writeln!(
                f,
                "Janus: native Janus 0.7 with Postgres, DAP-09, measured once on two cores of about this kind"
            )?;
        }
        let mut unsteady: Vec<String> = self
            .cells
            .iter()
            .filter(|cell| !cell.steady)
            .map(|cell| format!("{} {}", cell.version.tag(), cell.vdaf_name()))
            .collect();
        unsteady.dedup();
        if !unsteady.is_empty() {
            let all = self.cells.iter().all(|cell| !cell.steady);
            let which = if all { "all".to_owned() } else { unsteady.join(", ") };
            writeln!(f, "measured while jobs still became cheaper, so expect better: {which}")?;
        }
        if let (Some(now), Some(max)) = (self.memory_bytes, self.memory_bytes_max) {
            writeln!(
                f,
                "resident memory of the helper: {} MiB at the end, {} MiB at most",
                mib(now),
                mib(max)
            )?;
        }
        let retries: usize = self.cells.iter().map(|c| c.retries).sum();
        if retries > 0 {
            writeln!(f, "requests that had to be repeated: {retries}")?;
        }
        if let Some(cpus) = self.others_cpus {
            let busy = if self.busy { "; the machine was busy, so expect better" } else { "" };
            let load = self.load_average.unwrap_or_default();
            writeln!(f, "others used {cpus:.2} CPUs meanwhile (load {load:.2} before){busy}")?;
        }
        if !self.counts.is_empty() {
            write!(f, "\n{}", crate::counts::Counted { counts: self.counts.clone() })?;
        }
        writeln!(f, "\nmeasured in {:.0} s", self.seconds)
    }
}
