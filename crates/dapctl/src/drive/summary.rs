//! What a drive did and found.

use std::{collections::BTreeMap, fmt, time::Duration};

use daphne_core::{
    ids::{BatchId, TaskId},
    vdaf::AggregateResult,
};
use serde::Serialize;

use super::{Options, Total};
use crate::Failure;

/// Longest vector that is printed in full as text.
const ELEMENTS_SHOWN: usize = 16;

/// The end of a drive. Its JSON has exactly these fields.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// Whether nothing is wrong.
    pub ok: bool,
    /// What is wrong, one sentence each.
    pub problems: Vec<String>,
    /// The task.
    pub task_id: TaskId,
    /// Reports read or made, as far as it got.
    pub reports_read: u64,
    /// Reports sent to the helper; the leader itself refuses some.
    pub reports_sent: u64,
    /// Reports that both aggregators accepted.
    pub reports_accepted: u64,
    /// Reports refused by the helper, or upon its message, by reason.
    pub refused: BTreeMap<&'static str, u64>,
    /// Reports refused by the leader before they were sent, by reason.
    pub refused_by_leader: BTreeMap<&'static str, u64>,
    /// Aggregation jobs, abandoned ones included.
    pub jobs: u64,
    /// Jobs abandoned because of a refusal or a wrong answer.
    pub jobs_abandoned: u64,
    /// Jobs sent again.
    pub jobs_replayed: u64,
    /// Jobs deleted when they were done.
    pub jobs_deleted: u64,
    /// Requests repeated because of 429, 5xx or no answer.
    pub retries: u64,
    /// The batches collected.
    pub batches: Vec<BatchSummary>,
    /// Poplar1: how often the reports were aggregated and collected, each time for longer prefixes. The numbers of reports
    /// and jobs, and the batch, are those of the last time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub questions: Option<u64>,
    /// Poplar1: the prefixes that were counted, in the order of an aggregate's elements, unless they were searched for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefixes: Option<Vec<String>>,
    /// Poplar1: the strings that reach the threshold, in order, unless the search failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heavy_hitters: Option<Vec<Found>>,
    /// Whether every aggregate is the truth; absent if none could be compared.
    pub matches: Option<bool>,
    /// Seconds from the first job's begin to the last one's end.
    pub aggregation_seconds: f64,
    /// Reports sent to the helper in each of those seconds.
    pub reports_per_second: f64,
    /// How long the helper took for a job.
    pub job_latency_ms: Latency,
}

/// A string that many reports hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Found {
    /// Its bits.
    pub string: String,
    /// How many reports hold it.
    pub reports: u128,
}

/// Quantiles in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Latency {
    /// The median.
    pub p50: f64,
    /// 95 of 100 are at most this.
    pub p95: f64,
    /// 99 of 100 are at most this.
    pub p99: f64,
}

/// A batch, as a collector names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum BatchName {
    /// Of a time-interval task.
    Interval {
        /// First second.
        start: u64,
        /// Length in seconds.
        duration: u64,
    },
    /// Of a leader-selected task.
    Batch {
        /// The batch's id.
        batch_id: BatchId,
    },
}

impl fmt::Display for BatchName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Interval { start, duration } => {
                write!(f, "interval {start}..{}", start.saturating_add(*duration))
            }
            Self::Batch { batch_id } => write!(f, "batch {batch_id}"),
        }
    }
}

/// One collected batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BatchSummary {
    /// Which.
    pub batch: BatchName,
    /// Reports in it.
    pub report_count: u64,
    /// What the collector got, unless the collection failed.
    pub aggregate: Option<AggregateResult>,
    /// The truth, if all measurements are known.
    pub expected: Option<AggregateResult>,
    /// Whether they are the same, if both are known.
    pub matches: Option<bool>,
}

impl Summary {
    pub(super) fn new(
        task_id: TaskId,
        total: Total,
        batches: Vec<BatchSummary>,
        seconds: f64,
        options: &Options,
    ) -> Self {
        let Total { outcome, jobs, jobs_abandoned, mut problems, latencies } = total;
        let refused: u64 = outcome.refused.values().chain(outcome.refused_by_leader.values()).sum();
        if refused > 0 && !options.allow_refused {
            problems.push(format!("{refused} of {} reports were refused", outcome.reports_read));
        }
        let compared: Vec<bool> = batches.iter().filter_map(|batch| batch.matches).collect();
        Self {
            ok: problems.is_empty(),
            problems,
            task_id,
            reports_read: outcome.reports_read,
            reports_sent: outcome.reports_sent,
            reports_accepted: outcome.accepted.values().map(|a| a.report_count).sum(),
            refused: outcome.refused,
            refused_by_leader: outcome.refused_by_leader,
            jobs,
            jobs_abandoned,
            jobs_replayed: outcome.jobs_replayed,
            jobs_deleted: outcome.jobs_deleted,
            retries: outcome.retries,
            matches: (!compared.is_empty()).then(|| compared.iter().all(|m| *m)),
            batches,
            questions: None,
            prefixes: None,
            heavy_hitters: None,
            aggregation_seconds: seconds,
            reports_per_second: outcome.reports_sent as f64 / seconds.max(1e-9),
            job_latency_ms: Latency::of(latencies),
        }
    }

    /// The first problem as a failure.
    ///
    /// # Errors
    /// [`Failure::Wrong`] unless nothing is wrong.
    pub fn verdict(&self) -> Result<(), Failure> {
        match self.problems.as_slice() {
            [] => Ok(()),
            [one] => Err(Failure::Wrong(one.clone())),
            [first, rest @ ..] => Err(Failure::Wrong(format!("{first} (and {} more)", rest.len()))),
        }
    }
}

impl Latency {
    fn of(mut latencies: Vec<Duration>) -> Self {
        latencies.sort_unstable();
        let quantile = |percent: usize| {
            // The nearest rank: the smallest value that at least so many are not above.
            let rank = (latencies.len() * percent).div_ceil(100).saturating_sub(1);
            latencies.get(rank).map_or(0.0, |d| d.as_secs_f64() * 1e3)
        };
        Self { p50: quantile(50), p95: quantile(95), p99: quantile(99) }
    }
}

/// For people: several lines.
impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reasons = |map: &BTreeMap<&'static str, u64>| {
            map.iter().map(|(reason, n)| format!("{n} {reason}")).collect::<Vec<_>>().join(", ")
        };
        writeln!(f, "task      {}", self.task_id)?;
        writeln!(
            f,
            "reports   {} read, {} sent, {} accepted",
            self.reports_read, self.reports_sent, self.reports_accepted
        )?;
        if !self.refused.is_empty() {
            writeln!(f, "refused   {}", reasons(&self.refused))?;
        }
        if !self.refused_by_leader.is_empty() {
            writeln!(f, "refused   by the leader: {}", reasons(&self.refused_by_leader))?;
        }
        writeln!(
            f,
            "jobs      {}, {} abandoned, {} replayed, {} deleted, {} retries",
            self.jobs, self.jobs_abandoned, self.jobs_replayed, self.jobs_deleted, self.retries
        )?;
        let Latency { p50, p95, p99 } = self.job_latency_ms;
        writeln!(
            f,
            "speed     {:.0} reports/s over {:.2} s; job p50 {p50:.0} ms, p95 {p95:.0} ms, p99 {p99:.0} ms",
            self.reports_per_second, self.aggregation_seconds
        )?;
        for batch in &self.batches {
            let aggregate = batch.aggregate.as_ref().map_or_else(|| "none".into(), shown);
            let verdict = match (batch.matches, &batch.expected) {
                (Some(true), _) => ", as expected".to_owned(),
                (Some(false), Some(expected)) => format!(", EXPECTED {}", shown(expected)),
                (_, _) => String::new(),
            };
            writeln!(
                f,
                "result    {}, {} reports: {aggregate}{verdict}",
                batch.batch, batch.report_count
            )?;
        }
        if let Some(prefixes) = &self.prefixes {
            writeln!(f, "prefixes  {}", prefixes.join(" "))?;
        }
        if let (Some(found), Some(questions)) = (&self.heavy_hitters, self.questions) {
            writeln!(f, "found     {} heavy hitters with {questions} questions", found.len())?;
            for Found { string, reports } in found {
                writeln!(f, "          {string}: {reports} reports")?;
            }
        }
        for problem in &self.problems {
            writeln!(f, "problem   {problem}")?;
        }
        let matches = match self.matches {
            Some(true) => "yes",
            Some(false) => "no",
            None => "not compared",
        };
        writeln!(f, "match     {matches}")
    }
}

fn shown(result: &AggregateResult) -> String {
    match result {
        AggregateResult::Vector(v) if v.len() > ELEMENTS_SHOWN => {
            let first: Vec<String> =
                v.iter().take(ELEMENTS_SHOWN).map(ToString::to_string).collect();
            format!("[{}, … {} elements]", first.join(", "), v.len())
        }
        AggregateResult::Vector(_) | AggregateResult::Number(_) => result.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_the_nearest_rank() {
        let ms = |n: u64| (1..=n).rev().map(Duration::from_millis).collect();
        assert_eq!(Latency::of(ms(100)), Latency { p50: 50.0, p95: 95.0, p99: 99.0 });
        assert_eq!(Latency::of(ms(1)), Latency { p50: 1.0, p95: 1.0, p99: 1.0 });
        assert_eq!(Latency::of(Vec::new()), Latency::default());
    }

    #[test]
    fn refusals_are_a_problem_unless_allowed() {
        let total = || {
            let mut total = Total::default();
            total.outcome.reports_read = 3;
            total.outcome.refused.insert("vdaf_verify_error", 2);
            total
        };
        let id = TaskId::new([0; 32]);
        let strict = Summary::new(id, total(), Vec::new(), 1.0, &Options::default());
        assert!(!strict.ok);
        let failure = strict.verdict().unwrap_err();
        assert_eq!(failure, Failure::Wrong("2 of 3 reports were refused".into()));
        let options = Options { allow_refused: true, ..Options::default() };
        let lenient = Summary::new(id, total(), Vec::new(), 1.0, &options);
        assert!(lenient.ok && lenient.verdict().is_ok());
        assert_eq!(lenient.matches, None);
    }
}
