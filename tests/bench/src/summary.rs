//! What was measured: a JSON object with stable names, or a table.

use std::fmt;

use serde::Serialize;

/// A time of some samples, in milliseconds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Spread {
    pub median: f64,
    pub p99: f64,
    pub max: f64,
}

/// The whole benchmark.
#[derive(Debug, Serialize)]
pub struct Summary {
    /// Reports in the batch at the end.
    pub reports: u64,
    pub shards: u16,
    /// By size, ascending.
    pub points: Vec<Point>,
    pub collection: Collected,
    /// How long the benchmark took.
    pub seconds: f64,
}

/// What a job of 500 reports costs at one size. Rows and times are per job and object.
#[derive(Debug, Serialize)]
pub struct Point {
    pub reports: u64,
    /// Reports there were when measuring began.
    pub measured_from: u64,
    /// Inside the object: decoding the message, the transaction, encoding the answer. The median is one of means, as
    /// the clock counts whole milliseconds.
    pub transaction_ms: Spread,
    /// Of a commit that comes alone, seen from outside, less what an empty request takes.
    pub request_ms: Spread,
    /// Of a real job, from the leader's request to the Worker's answer.
    pub job_ms: Spread,
    /// Each of these three times to that of a batch that began with 10,000 reports, measured in turns.
    pub to_small: Ratios,
    /// Requests to objects for each real job.
    pub requests_per_job: f64,
    /// Where no generation became full.
    pub rows_read_per_job: f64,
    /// Where no generation became full.
    pub rows_written_per_job: f64,
    pub background: Background,
    pub database_bytes_per_report: f64,
    /// Jobs whose rows are still apart.
    pub separate_jobs: u64,
    /// Fingerprints that the object keeps in memory.
    pub resident_bytes: u64,
    /// All memory of the isolate's module: Worker, objects and what the allocator keeps.
    pub isolate_wasm_bytes: u64,
    /// Of refusing the 500 oldest reports, inside the object.
    pub replay_ms: f64,
    pub cold: Cold,
}

/// Medians, divided.
#[derive(Debug, Serialize)]
pub struct Ratios {
    pub transaction: f64,
    pub request: f64,
    pub job: f64,
}

/// What the alarm did since the beginning, for each job and object.
#[derive(Debug, Serialize)]
pub struct Background {
    pub runs: u64,
    pub rows_read_per_job: f64,
    /// All rows but the jobs' own: the index, packing, the meta row, and what setting the alarm bills.
    pub rows_written_per_job: f64,
    pub ms_per_job: f64,
    /// Of one run.
    pub run_ms: Spread,
}

/// The first message to an object after the runtime died.
#[derive(Debug, Serialize)]
pub struct Cold {
    /// Fingerprints that were read again.
    pub resident_ids: u64,
    /// A job, seen from outside.
    pub first_ms: Spread,
    /// A job, inside the object.
    pub inside_ms: Spread,
    /// A job of the 500 oldest reports, inside the object.
    pub replay_ms: Spread,
}

/// Collections of the whole batch.
#[derive(Debug, Serialize)]
pub struct Collected {
    /// With the right count.
    pub collect_ms: f64,
    /// With a count that no choice of jobs explains.
    pub refused_ms: f64,
}

impl Spread {
    /// Of these samples.
    pub fn of(mut samples: Vec<f64>) -> Self {
        samples.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let last = samples.len().saturating_sub(1) as f64;
            samples.get((last * share).round() as usize).copied().unwrap_or_default()
        };
        Self { median: at(0.5), p99: at(0.99), max: at(1.0) }
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2} / {:.1}", self.median, self.p99)
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { reports, shards, points, collection, seconds } = self;
        writeln!(
            f,
            "One batch bucket, {shards} object(s), jobs of 500 reports. Per job and object:\n"
        )?;
        let mut row = |name: &str, cell: &dyn Fn(&Point) -> String| {
            write!(f, "{name:<46}")?;
            points.iter().try_for_each(|p| write!(f, "{:>18}", cell(p)))?;
            writeln!(f)
        };
        row("reports", &|p| p.reports.to_string())?;
        row("object requests (real job)", &|p| format!("{:.2}", p.requests_per_job))?;
        row("rows read", &|p| format!("{:.1}", p.rows_read_per_job))?;
        row("rows written", &|p| format!("{:.2}", p.rows_written_per_job))?;
        row("rows read, background", &|p| format!("{:.1}", p.background.rows_read_per_job))?;
        row("rows written, index and packing", &|p| {
            format!("{:.2}", p.background.rows_written_per_job)
        })?;
        row("bytes stored per report", &|p| format!("{:.1}", p.database_bytes_per_report))?;
        row("jobs kept apart", &|p| p.separate_jobs.to_string())?;
        row("ids in memory, KiB", &|p| (p.resident_bytes / 1_024).to_string())?;
        row("isolate's wasm memory, MiB", &|p| (p.isolate_wasm_bytes >> 20).to_string())?;
        row("transaction, ms (median / p99)", &|p| p.transaction_ms.to_string())?;
        row("commit as a request, ms (median / p99)", &|p| p.request_ms.to_string())?;
        row("whole real job, ms (median / p99)", &|p| p.job_ms.to_string())?;
        row("background, ms", &|p| format!("{:.2}", p.background.ms_per_job))?;
        row("one run of the alarm, ms (median / p99)", &|p| p.background.run_ms.to_string())?;
        row("refusing 500 oldest reports, ms", &|p| format!("{:.0}", p.replay_ms))?;
        row("cold: ids read again", &|p| p.cold.resident_ids.to_string())?;
        row("cold: first job, ms (median / max)", &|p| {
            format!("{:.0} / {:.0}", p.cold.first_ms.median, p.cold.first_ms.max)
        })?;
        row("cold: first job inside the object, ms", &|p| {
            format!("{:.0}", p.cold.inside_ms.median)
        })?;
        row("cold: refusing 500 oldest reports, ms", &|p| {
            format!("{:.0}", p.cold.replay_ms.median)
        })?;
        row("to a batch of 10,000: transaction", &|p| format!("{:.2}", p.to_small.transaction))?;
        row("to a batch of 10,000: commit as a request", &|p| {
            format!("{:.2}", p.to_small.request)
        })?;
        row("to a batch of 10,000: whole real job", &|p| format!("{:.2}", p.to_small.job))?;
        writeln!(f)?;
        writeln!(
            f,
            "collecting {reports} reports took {:.0} ms, refusing a wrong count {:.0} ms",
            collection.collect_ms, collection.refused_ms
        )?;
        writeln!(f, "measured in {seconds:.0} s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_of_the_sorted_samples() {
        let spread = Spread::of((0..=100).rev().map(f64::from).collect());
        assert_eq!((spread.median, spread.p99, spread.max), (50.0, 99.0, 100.0));
        assert_eq!(Spread::of(Vec::new()).max, 0.0);
    }
}
