//! The search for heavy hitters: the same reports are aggregated and collected again and again, for longer prefixes each
//! time.

use std::{sync::mpsc, time::Instant};

use daphne_core::{
    batch::BatchMode,
    collect::heavy_hitters::{HeavyHitter, HeavyHitters, Progress as Answered},
    hpke::HpkeKeypair,
    task::Task,
};

use super::{
    Summary, aggregate_jobs, collect, cut_into_jobs,
    jobs::{Job, Leader},
    summary::Found,
};
use crate::{Failure, output::Progress, reports::KnownReport};

/// Finds the heavy hitters of one batch of all reports. What went wrong is in [`Summary::problems`].
///
/// # Errors
/// As [`super::run`].
pub(super) fn find(
    mut leader: Leader<'_>,
    task: &Task,
    keys: &HpkeKeypair,
    mut search: HeavyHitters,
    reports: impl Iterator<Item = Result<KnownReport, Failure>>,
    progress: &Progress,
) -> Result<Summary, Failure> {
    let options = leader.options;
    if !options.collect || options.per_bucket || options.batch_size.is_some() {
        return Err(Failure::Usage(
            "heavy hitters are searched for in one batch, which is collected".into(),
        ));
    }
    let mode = task.parameters.batch_mode;
    // Each question is put to the same reports, in the same batch.
    let jobs = all_jobs(&leader, mode, reports)?;
    let started = Instant::now();
    let (mut batches, mut found, mut questions) = (Vec::new(), None, 0);
    let mut latencies = Vec::new();
    let total = loop {
        leader.agg_param = search.question().clone();
        questions += 1;
        let mut total = aggregate_jobs(&leader, progress, |sender| {
            for job in &jobs {
                if sender.send(job.clone()).is_err() {
                    break;
                }
            }
            Ok(())
        })?;
        if total.problems.is_empty() {
            batches = collect::collect_all(&leader, keys, mode, &mut total)?;
        }
        latencies.append(&mut total.latencies);
        let result = match batches.as_slice() {
            [batch] if total.problems.is_empty() => batch.aggregate.as_ref(),
            _ => None,
        };
        let Some(result) = result else { break total };
        match search.answer(result) {
            Ok(Answered::Next(next)) => search = *next,
            Ok(Answered::Done(strings)) => {
                found = Some(strings);
                break total;
            }
            Err(e) => {
                total.problems.push(e.to_string());
                break total;
            }
        }
    };
    let seconds = started.elapsed().as_secs_f64();
    let mut summary =
        Summary::new(*task.id(), super::Total { latencies, ..total }, batches, seconds, options);
    summary.questions = Some(questions);
    summary.reports_per_second *= questions as f64;
    summary.heavy_hitters = found.map(|strings| strings.into_iter().map(shown).collect());
    Ok(summary)
}

fn shown((string, reports): HeavyHitter) -> Found {
    Found { string: string.to_string(), reports }
}

fn all_jobs(
    leader: &Leader<'_>,
    mode: BatchMode,
    reports: impl Iterator<Item = Result<KnownReport, Failure>>,
) -> Result<Vec<Job>, Failure> {
    let (sender, receiver) = mpsc::sync_channel(leader.options.concurrency);
    std::thread::scope(|scope| {
        let jobs = scope.spawn(|| receiver.into_iter().collect());
        cut_into_jobs(leader.options, mode, reports, sender)?;
        jobs.join().map_err(|_| Failure::Usage("the reports cannot be read".into()))
    })
}
