//! Plays the leader and the collector of a task against its helper, and checks every answer.
//!
//! Reports come from an iterator and are never all in memory: they are cut into jobs, a few threads run the jobs,
//! and of a finished job only sums remain.

mod collect;
mod heavy_hitters;
mod jobs;
mod summary;

use std::{
    collections::BTreeMap,
    num::NonZeroU64,
    sync::{Arc, Mutex, mpsc},
    time::{Duration, Instant},
};

use daphne_core::{
    aggregate::leader::LeaderTask,
    batch::BatchMode,
    collect::heavy_hitters::HeavyHitters,
    ids::BatchId,
    message::PartialBatchSelector,
    task::Task,
    vdaf::{AggregationParam, BitString, VdafConfig},
};

pub use summary::{BatchName, BatchSummary, Latency, Summary};

use self::jobs::{Job, JobEnd, JobOutcome, Leader};
use crate::{
    Failure,
    helper_client::{AuthHeader, HelperClient, PATIENCE},
    http::Retry,
    output::Progress,
    reports::KnownReport,
    task_file::{TaskFile, random},
};

/// How to drive.
#[derive(Clone, Debug)]
pub struct Options {
    /// Most reports in an aggregation job, at least 1.
    pub job_size: usize,
    /// Jobs under way at the same time, at least 1.
    pub concurrency: usize,
    /// Leader-selected tasks: reports in a batch; `None` for one batch of all.
    pub batch_size: Option<usize>,
    /// Whether to collect when all jobs are done.
    pub collect: bool,
    /// Time-interval tasks: collect each batch bucket alone, and not all in one interval.
    pub per_bucket: bool,
    /// Whether to send each job again, under its own id and under another, and each collection.
    pub replay: bool,
    /// Whether to delete each job when it is done.
    pub delete_jobs: bool,
    /// Whether reports may be refused.
    pub allow_refused: bool,
    /// Poplar1 tasks: what to search for.
    pub search: Option<Search>,
    /// Poplar1 tasks: the prefixes to count, if nothing is searched for.
    pub prefixes: Vec<BitString>,
    /// Where the token goes.
    pub auth_header: AuthHeader,
    /// When to repeat requests.
    pub retry: Retry,
    /// How long to wait for an answer that the helper defers.
    pub patience: Duration,
}

/// A search for heavy hitters.
#[derive(Clone, Copy, Debug)]
pub struct Search {
    /// So many reports make a string a heavy hitter.
    pub threshold: NonZeroU64,
    /// Bits by which prefixes grow from one question to the next, 1 to 8.
    pub stride: u16,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            job_size: 500,
            concurrency: 2,
            batch_size: None,
            collect: true,
            per_bucket: false,
            replay: false,
            delete_jobs: false,
            allow_refused: false,
            search: None,
            prefixes: Vec::new(),
            auth_header: AuthHeader::default(),
            retry: Retry::default(),
            patience: PATIENCE,
        }
    }
}

/// The client that the leader of `task` would use.
///
/// # Errors
/// [`Failure::Usage`] if the task file holds an unusable URL or token.
pub fn helper_client(
    task: &TaskFile,
    auth_header: AuthHeader,
    retry: Retry,
) -> Result<HelperClient, Failure> {
    let token = task.spec.leader_token.as_deref();
    let (url, version, id) = (&task.helper_url, task.spec.version, task.task_id()?);
    let helper = HelperClient::new(url, version, id, token, auth_header, retry)?;
    task.taskprov.iter().try_fold(helper, |helper, config| helper.advertising(config))
}

/// Aggregates the reports, collects, and says how it went. What a peer did wrong is in [`Summary::problems`], after
/// which nothing new is begun.
///
/// # Errors
/// [`Failure::Usage`] for an unusable task file, options or report, [`Failure::Unreachable`] if the helper does not
/// answer.
pub fn run(
    file: &TaskFile,
    reports: impl Iterator<Item = Result<KnownReport, Failure>>,
    options: &Options,
    progress: &Progress,
) -> Result<Summary, Failure> {
    if options.job_size == 0 || options.concurrency == 0 || options.batch_size == Some(0) {
        return Err(Failure::Usage(
            "job size, batch size and concurrency must be at least 1".into(),
        ));
    }
    if file.spec.leader_token.is_none() {
        return Err(Failure::Usage("the task file holds no leader token".into()));
    }
    if options.collect && file.collector_hpke_keypair.is_none() {
        return Err(Failure::Usage(
            "the task file holds no key pair of the collector, so nothing can be collected".into(),
        ));
    }
    let task = file.task()?;
    let helper = helper_client(file, options.auth_header, options.retry)?.waiting(options.patience);
    let (agg_param, search) = question(&task, options)?;
    let leader = Leader {
        agg_param,
        task: LeaderTask {
            version: task.parameters.version,
            task_configuration: task.parameters.task_configuration.clone(),
            task_id: *task.id(),
            vdaf: task.vdaf.clone(),
            verify_key: task.verify_key.clone(),
            time_precision: task.parameters.time_precision,
        },
        keys: &file.leader_hpke_keypair,
        helper: &helper,
        options,
    };

    if let (Some(search), Some(keys)) = (search, &file.collector_hpke_keypair) {
        return heavy_hitters::find(leader, &task, keys, search, reports, progress);
    }
    let started = Instant::now();
    let mut total = aggregate(&leader, &task, reports, progress)?;
    let seconds = started.elapsed().as_secs_f64();

    let mut batches = Vec::new();
    if let (true, true, Some(keys)) =
        (options.collect, total.problems.is_empty(), &file.collector_hpke_keypair)
    {
        batches = collect::collect_all(&leader, keys, task.parameters.batch_mode, &mut total)?;
    }
    let mut summary = Summary::new(*task.id(), total, batches, seconds, options);
    let prefixes = leader.agg_param.prefixes();
    if !prefixes.is_empty() {
        summary.prefixes = Some(prefixes.iter().map(ToString::to_string).collect());
    }
    Ok(summary)
}

/// What is asked of the reports, and the search that it begins, if it does.
fn question(
    task: &Task,
    options: &Options,
) -> Result<(AggregationParam, Option<HeavyHitters>), Failure> {
    let usage = |why: String| Err(Failure::Usage(why));
    let (vdaf, version) = (&task.vdaf, task.parameters.version);
    let has_prefixes = matches!(vdaf.config(), VdafConfig::Poplar1 { .. });
    match (has_prefixes, options.search, options.prefixes.as_slice()) {
        (false, None, []) => match vdaf.decode_agg_param(&[]) {
            Ok(agg_param) => Ok((agg_param, None)),
            Err(e) => usage(e.to_string()),
        },
        (false, _, _) => usage("only a Poplar1 task has heavy hitters, and prefixes".into()),
        (true, None, []) => {
            usage("a Poplar1 task needs a threshold to search with, or prefixes to count".into())
        }
        (true, Some(_), [_, ..]) => {
            usage("either a threshold to search with or prefixes to count".into())
        }
        (true, Some(_), []) if version.aggregates_once() => usage(format!(
            "a report of a {} task is aggregated once, and a batch collected once, so that no search can ask the same \
             reports again: count given prefixes (--prefixes)",
            version.tag()
        )),
        (true, Some(search), []) => {
            match HeavyHitters::new(vdaf, search.threshold, search.stride) {
                Ok(search) => Ok((search.question().clone(), Some(search))),
                Err(e) => usage(e.to_string()),
            }
        }
        (true, None, prefixes) => {
            let mut prefixes = prefixes.to_vec();
            prefixes.sort();
            prefixes.dedup();
            match vdaf.prefixes(&prefixes) {
                Ok(agg_param) => Ok((agg_param, None)),
                Err(e) => usage(e.to_string()),
            }
        }
    }
}

/// What is known after some jobs.
#[derive(Default)]
struct Total {
    outcome: JobOutcome,
    jobs: u64,
    jobs_abandoned: u64,
    problems: Vec<String>,
    latencies: Vec<Duration>,
}

/// Runs all jobs, `concurrency` at a time.
fn aggregate(
    leader: &Leader<'_>,
    task: &Task,
    reports: impl Iterator<Item = Result<KnownReport, Failure>>,
    progress: &Progress,
) -> Result<Total, Failure> {
    aggregate_jobs(leader, progress, |sender| {
        cut_into_jobs(leader.options, task.parameters.batch_mode, reports, sender)
    })
}

/// Runs the jobs that `send` sends, `concurrency` at a time.
fn aggregate_jobs(
    leader: &Leader<'_>,
    progress: &Progress,
    send: impl FnOnce(mpsc::SyncSender<Job>) -> Result<(), Failure>,
) -> Result<Total, Failure> {
    let state = Mutex::new((Total::default(), None));
    let (sender, receiver) = mpsc::sync_channel::<Job>(leader.options.concurrency);
    // Only the workers own the receiver, so that sending fails when all of them have stopped.
    let receiver = Arc::new(Mutex::new(receiver));
    let cut = std::thread::scope(|scope| {
        for _ in 0..leader.options.concurrency {
            let receiver = Arc::clone(&receiver);
            scope.spawn(|| work(leader, receiver, &state, progress));
        }
        drop(receiver);
        send(sender)
    });
    // Unwrap safety: a worker that panicked has already ended the scope with its panic.
    let (total, failure) = state.into_inner().unwrap();
    cut?;
    failure.map_or(Ok(total), Err)
}

type State = Mutex<(Total, Option<Failure>)>;

/// Takes jobs until there are no more, or something went wrong here or in another worker.
fn work(
    leader: &Leader<'_>,
    receiver: Arc<Mutex<mpsc::Receiver<Job>>>,
    state: &State,
    progress: &Progress,
) {
    loop {
        let next = receiver.lock().ok().and_then(|receiver| receiver.recv().ok());
        let Some(job) = next else { return };
        let reports = job.reports.len() as u64;
        let end = leader.run_job(job);
        progress.add(reports);
        let Ok(mut state) = state.lock() else { return };
        let (total, failure) = &mut *state;
        match end {
            Ok(JobEnd { outcome, latencies, problems, abandoned }) => {
                total.jobs += 1;
                total.jobs_abandoned += u64::from(abandoned);
                total.latencies.extend(latencies);
                total.problems.extend(problems);
                if let Err(why) = total.outcome.merge(leader.field(), outcome) {
                    total.problems.push(why);
                }
            }
            Err(e) => *failure = failure.take().or(Some(e)),
        }
        if failure.is_some() || !total.problems.is_empty() {
            return;
        }
    }
}

/// Fills jobs with reports, of one batch each. Ends early when nobody takes them any more. The sender is dropped at
/// the end, which ends the workers.
fn cut_into_jobs(
    options: &Options,
    mode: BatchMode,
    reports: impl Iterator<Item = Result<KnownReport, Failure>>,
    sender: mpsc::SyncSender<Job>,
) -> Result<(), Failure> {
    let new_batch = || {
        Ok::<_, Failure>(match mode {
            BatchMode::TimeInterval => PartialBatchSelector::TimeInterval,
            BatchMode::LeaderSelected => {
                PartialBatchSelector::LeaderSelected(BatchId::new(random()?))
            }
        })
    };
    let batch_size = match mode {
        BatchMode::TimeInterval => usize::MAX,
        BatchMode::LeaderSelected => options.batch_size.unwrap_or(usize::MAX),
    };
    let mut job = Job { batch: new_batch()?, reports: Vec::new() };
    let mut in_batch = 0;
    let mut any = false;
    for report in reports {
        if in_batch == batch_size {
            job.batch = new_batch()?;
            in_batch = 0;
        }
        job.reports.push(report?);
        in_batch += 1;
        any = true;
        if job.reports.len() == options.job_size || in_batch == batch_size {
            let full = Job { batch: job.batch, reports: std::mem::take(&mut job.reports) };
            if sender.send(full).is_err() {
                return Ok(());
            }
        }
    }
    if !any {
        return Err(Failure::Usage("there are no reports".into()));
    }
    if !job.reports.is_empty() {
        // If nobody takes it, a worker's failure says why.
        let _ = sender.send(job);
    }
    Ok(())
}

/// Adds `n` under a key.
fn count(map: &mut BTreeMap<&'static str, u64>, key: &'static str, n: u64) {
    *map.entry(key).or_default() += n;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(
        options: &Options,
        mode: BatchMode,
        reports: usize,
    ) -> Vec<(PartialBatchSelector, usize)> {
        let (sender, receiver) = mpsc::sync_channel(100);
        let report = KnownReport { report: Vec::new(), measurement: None };
        let reports = std::iter::repeat_n(Ok(report), reports);
        cut_into_jobs(options, mode, reports, sender).unwrap();
        receiver.iter().map(|job| (job.batch, job.reports.len())).collect()
    }

    #[test]
    fn jobs_are_full_and_never_span_batches() {
        let options = Options { job_size: 4, batch_size: Some(6), ..Options::default() };
        let sizes = |jobs: &[(_, usize)]| jobs.iter().map(|(_, n)| *n).collect::<Vec<_>>();
        let time_interval = cut(&options, BatchMode::TimeInterval, 10);
        assert_eq!(sizes(&time_interval), [4, 4, 2]);
        let selected = cut(&options, BatchMode::LeaderSelected, 13);
        assert_eq!(sizes(&selected), [4, 2, 4, 2, 1]);
        assert_eq!(selected[0].0, selected[1].0);
        assert_eq!(selected[2].0, selected[3].0);
        assert_ne!(selected[1].0, selected[2].0);
        assert_ne!(selected[3].0, selected[4].0);
        let one_batch = Options { batch_size: None, ..options };
        let jobs = cut(&one_batch, BatchMode::LeaderSelected, 8);
        assert_eq!(sizes(&jobs), [4, 4]);
        assert_eq!(jobs[0].0, jobs[1].0);
    }
}
