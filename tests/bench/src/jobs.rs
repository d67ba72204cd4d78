//! A task with everybody who takes part in it but the helper, and its jobs, made ahead of time.

use std::{
    collections::BTreeMap,
    num::NonZero,
    sync::{
        Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    thread,
};

use dapctl::{
    Failure,
    drive::helper_client,
    helper_client::{AuthHeader, HelperClient},
    http::Retry,
    task_file::{TaskFile, new_keypair, random},
};
use daphne_core::{
    aggregate::leader::{LeaderContinuation, LeaderJob, LeaderOutcome, LeaderTask},
    batch::{BatchBucket, BatchMode, Checksum},
    collect::collector::{self, CollectorTask},
    hpke::{HpkeConfig, Role},
    ids::{AggregationJobId, BatchId, TaskId},
    message::{AggregateShareRequest, BatchSelector, PartialBatchSelector, Report},
    task::{TaskRole, TaskSpec},
    time::{Duration, Time},
    upload::client::{ClientTask, ReportRandomness},
    vdaf::{AggregateResult, AggregationParam, Vdaf, VdafConfig, share},
    version::DapVersion,
    wire::{Wire, common::AggregateShare},
};
use e2e::{now, server::random_token, world::configure};

use crate::kinds::{agg_param, measurement};

/// How often a request is repeated, if need be.
const RETRIES: usize = 5;

/// Leader, clients and collector of a task.
pub struct Party {
    /// The task, as all but the helper know it.
    pub file: TaskFile,
    /// The leader.
    pub leader: LeaderTask,
    /// What is asked of the reports.
    pub agg_param: AggregationParam,
    reporter: ClientTask,
    auth_header: AuthHeader,
    retry: Retry,
    epoch: u64,
    next: AtomicU64,
}

/// Where the reports of some jobs go, and what the leader has counted there.
pub struct Batch {
    selector: BatchSelector,
    partial: PartialBatchSelector,
    time: Time,
    report_count: u64,
    checksum: Checksum,
    leader_share: Vec<u8>,
    truth: Option<AggregateResult>,
}

/// A job that was not sent yet.
pub struct Made {
    /// Its id, where the leader chooses it.
    pub id: AggregationJobId,
    /// The encoded request.
    pub body: Vec<u8>,
    /// The leader's part.
    pub leader: LeaderJob,
    truth: AggregateResult,
}

/// A job with the helper's last answer.
pub struct Answered {
    last: Last,
    truth: AggregateResult,
}

enum Last {
    Only(LeaderJob, Vec<u8>),
    Second(LeaderContinuation, Vec<u8>),
}

/// A new task of any helper, with its parties: batches by time, of an hour.
///
/// # Errors
/// [`Failure::Wrong`] if the system has no randomness.
pub fn new_task(version: DapVersion, vdaf: VdafConfig, url: &str) -> Result<TaskFile, Failure> {
    let usage = |e: String| Failure::Usage(e);
    let collector_keys = new_keypair()?;
    let instance = Vdaf::new(version.vdaf_draft(), vdaf).map_err(|e| usage(e.to_string()))?;
    let mut spec = TaskSpec {
        task_id: Some(TaskId::new(random()?)),
        version,
        role: TaskRole::Helper,
        task_configuration: Vec::new(),
        batch_mode: BatchMode::TimeInterval,
        max_batch_size: None,
        vdaf,
        verify_key: random::<32>()?[..instance.verify_key_len()].to_vec(),
        leader_token: Some(random_token()),
        leader_token_hash: None,
        collector_hpke_config: collector_keys.config().clone(),
        min_batch_size: 10,
        time_precision: Duration::from_seconds(3_600),
        max_batch_query_count: 1,
        task_expiration: None,
        report_expiry_age: Duration::from_seconds(14 * 86_400),
        tolerable_clock_skew: Duration::from_seconds(300),
        shards: 1,
        buckets_per_group: None,
    };
    configure(&mut spec, None);
    Ok(TaskFile {
        spec,
        helper_url: format!("{}/{}/", url.trim_end_matches('/'), version.path_prefix()),
        leader_hpke_keypair: new_keypair()?,
        collector_hpke_keypair: Some(collector_keys),
        taskprov: None,
    })
}

impl Party {
    /// Of a task whose clients seal the helper's shares to `helper`.
    ///
    /// # Errors
    /// [`Failure::Usage`] if the task cannot be driven.
    pub fn new(file: TaskFile, helper: HpkeConfig) -> Result<Self, Failure> {
        let task = file.task()?;
        let (version, time_precision) = (file.spec.version, file.spec.time_precision);
        let task_configuration = file.spec.task_configuration.clone();
        Ok(Self {
            agg_param: agg_param(&task.vdaf),
            leader: LeaderTask {
                version,
                task_configuration: task_configuration.clone(),
                task_id: *task.id(),
                vdaf: task.vdaf.clone(),
                verify_key: task.verify_key.clone(),
                time_precision,
            },
            reporter: ClientTask {
                version,
                task_configuration,
                task_id: *task.id(),
                vdaf: task.vdaf,
                time_precision,
                leader_hpke_config: file.leader_hpke_keypair.config().clone(),
                helper_hpke_config: helper,
            },
            auth_header: AuthHeader::default(),
            // On a slow machine a helper may ask for time. What was repeated is counted.
            retry: Retry::times(RETRIES),
            epoch: now(),
            next: AtomicU64::new(0),
            file,
        })
    }

    /// Of a task that its helper knows already.
    ///
    /// # Errors
    /// [`Failure`], also if the helper does not tell its HPKE configuration, or none that can be sealed to.
    pub fn met(file: TaskFile, auth_header: AuthHeader) -> Result<Self, Failure> {
        if file.spec.leader_token.is_none() || file.collector_hpke_keypair.is_none() {
            let why = "the task file must hold the leader's token and the collector's key pair";
            return Err(Failure::Usage(why.into()));
        }
        let configs = helper_client(&file, auth_header, Retry::times(RETRIES))?.hpke_configs()?;
        let usable = configs.0.into_iter().find(HpkeConfig::is_supported);
        let config = usable.ok_or_else(|| {
            Failure::Wrong("the helper has no HPKE configuration that we can seal to".into())
        })?;
        // Whoever measures twice finds what it collected before sealed: so each time begins elsewhere.
        let week = Duration::from_seconds(7 * 86_400).as_seconds();
        let age = week.min(file.spec.report_expiry_age.as_seconds() / 2);
        let back = u64::from(u32::from_be_bytes(random()?)) % age.max(1);
        Ok(Self { auth_header, epoch: now() - back, ..Self::new(file, config)? })
    }

    /// A client of the helper, with connections of its own.
    ///
    /// # Errors
    /// [`Failure::Usage`] if the task's URL or token is unusable.
    pub fn client(&self) -> Result<HelperClient, Failure> {
        helper_client(&self.file, self.auth_header, self.retry)
    }

    /// How its messages are written.
    pub fn wire(&self) -> Wire {
        Wire::new(self.leader.version, self.leader.time_precision)
    }

    /// The n-th batch, which is empty.
    ///
    /// # Errors
    /// [`Failure::Wrong`] if the system has no randomness.
    pub fn batch(&self, n: u64) -> Result<Batch, Failure> {
        let precision = self.leader.time_precision;
        let back = Duration::from_seconds(n * precision.as_seconds());
        let time = Time::from_seconds(self.epoch).saturating_sub(back).round_down(precision);
        let (selector, partial) = match self.file.spec.batch_mode {
            BatchMode::TimeInterval => (
                BatchSelector::TimeInterval { start: time, duration: precision },
                PartialBatchSelector::TimeInterval,
            ),
            BatchMode::LeaderSelected => {
                let id = BatchId::new(random()?);
                (BatchSelector::LeaderSelected(id), PartialBatchSelector::LeaderSelected(id))
            }
        };
        Ok(Batch {
            selector,
            partial,
            time,
            report_count: 0,
            checksum: Checksum::default(),
            leader_share: Vec::new(),
            truth: None,
        })
    }

    /// Makes jobs on all CPUs: the same measurements in the same order in each run.
    ///
    /// # Errors
    /// [`Failure`] if a report cannot be made.
    pub fn make(&self, batch: &Batch, jobs: usize, size: usize) -> Result<Vec<Made>, Failure> {
        let first = self.next.fetch_add((jobs * size) as u64, Relaxed);
        let (next, made) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
        let threads = thread::available_parallelism().map_or(1, NonZero::get).min(jobs);
        thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    loop {
                        let n = next.fetch_add(1, Relaxed);
                        if n >= jobs {
                            return;
                        }
                        let job = self.make_one(batch, first + (n * size) as u64, size);
                        made.lock().expect("no thread panicked").insert(n, job);
                    }
                });
            }
        });
        made.into_inner().expect("no thread panicked").into_values().collect()
    }

    fn make_one(&self, batch: &Batch, first: u64, size: usize) -> Result<Made, Failure> {
        let config = self.leader.vdaf.config();
        let measured: Vec<_> = (first..).take(size).map(|n| measurement(config, n)).collect();
        let unusable = |e: String| Failure::Usage(e);
        let mut reports = Vec::with_capacity(size);
        for measured in &measured {
            let randomness = ReportRandomness {
                report_id: random()?,
                leader_seed: random()?,
                helper_seed: random()?,
            };
            let report = self.reporter.report(measured, batch.time, &randomness);
            reports.push(report.map_err(|e| unusable(e.to_string()))?);
        }
        let decoded: Result<Vec<Report<'_>>, _> =
            reports.iter().map(|r| self.wire().report(r)).collect();
        let decoded = decoded.map_err(|e| unusable(e.to_string()))?;
        let keys = &self.file.leader_hpke_keypair;
        let (job, refused) = self
            .leader
            .begin_job(keys, &self.agg_param, batch.partial, &decoded)
            .map_err(|e| unusable(e.to_string()))?;
        let (Some(leader), []) = (job, &refused[..]) else {
            return Err(Failure::Wrong("the leader refuses a report of its own making".into()));
        };
        let truth = self.leader.vdaf.truth(&self.agg_param, measured.iter());
        Ok(Made {
            id: AggregationJobId::new(random()?),
            body: leader.request().to_vec(),
            leader,
            truth: truth.map_err(|e| unusable(e.to_string()))?,
        })
    }

    /// Checks the verdict about each report of a job, which must be that it is accepted, and counts them.
    ///
    /// # Errors
    /// [`Failure::Wrong`]: what the helper refused, or how it broke the protocol.
    pub fn settle(&self, batch: &mut Batch, answered: Answered) -> Result<(), Failure> {
        let (expected, outcome) = match answered.last {
            Last::Only(job, answer) => (job.report_count(), self.leader.finish_job(job, &answer)),
            Last::Second(job, answer) => (0, self.leader.finish_continued(job, &answer)),
        };
        let outcome = outcome.map_err(|e| self.wrong(&e.to_string()))?;
        self.accepted(&outcome, expected)?;
        let field = self.leader.vdaf.field().at(&self.agg_param.encode());
        for (bucket, slice) in outcome.accepted {
            if let (BatchBucket::Window(start), PartialBatchSelector::TimeInterval) =
                (bucket, batch.partial)
                && start != batch.time
            {
                return Err(self.wrong("a report went to another batch bucket"));
            }
            batch.report_count += slice.report_count;
            batch.checksum.merge(&slice.checksum);
            let share = slice.share.encode();
            if batch.leader_share.is_empty() {
                batch.leader_share = share;
            } else {
                share::add_assign(field, &mut batch.leader_share, &share)
                    .map_err(|e| self.wrong(&e.to_string()))?;
            }
        }
        batch.truth = Some(match batch.truth.take() {
            Some(truth) => add(truth, answered.truth),
            None => answered.truth,
        });
        Ok(())
    }

    fn accepted(&self, outcome: &LeaderOutcome, expected: usize) -> Result<(), Failure> {
        if let Some((id, why)) = outcome.refused.first() {
            let refused = outcome.refused.len();
            return Err(self.wrong(&format!(
                "{refused} reports of a job were refused that are right, report {id} as {}",
                why.label()
            )));
        }
        let accepted: u64 = outcome.accepted.values().map(|slice| slice.report_count).sum();
        if expected > 0 && accepted != expected as u64 {
            return Err(self.wrong(&format!("{accepted} of {expected} reports were accepted")));
        }
        Ok(())
    }

    /// Collects a batch and compares the aggregate with the truth.
    ///
    /// # Errors
    /// [`Failure::Wrong`] if they differ, or the helper refuses.
    pub fn collect(&self, batch: &Batch) -> Result<(), Failure> {
        let wrong = |why: String| self.wrong(&why);
        let agg_param = self.agg_param.encode();
        let binding = self
            .wire()
            .share_binding(&agg_param, &batch.selector)
            .map_err(|e| wrong(e.to_string()))?;
        let request = AggregateShareRequest {
            batch_selector: batch.selector,
            collected: batch.selector,
            agg_param: &agg_param,
            report_count: batch.report_count,
            checksum: *batch.checksum.as_bytes(),
            share_binding: (&binding).into(),
        };
        let request = self
            .wire()
            .encode_aggregate_share_request(&request)
            .map_err(|e| wrong(e.to_string()))?;
        let answer = self.client()?.create_share(&request).map_err(|e| {
            Failure::from(e).during(&format!("{}: collecting the batch", self.name()))
        })?;
        let sealed = AggregateShare::decode(&answer.success.body)
            .map_err(|e| wrong(format!("the aggregate share is malformed: {e}")))?;
        let keys = self.file.collector_hpke_keypair.as_ref();
        let keys = keys.ok_or_else(|| Failure::Usage("the collector's keys are needed".into()))?;
        let task = CollectorTask {
            task_id: &self.leader.task_id,
            version: self.leader.version,
            task_configuration: &self.leader.task_configuration,
        };
        let helper_share = task
            .open_share(keys, Role::Helper, &binding, sealed.encrypted_aggregate_share)
            .map_err(|e| wrong(e.to_string()))?;
        let aggregate = collector::unshard(
            &self.leader.vdaf,
            &self.agg_param,
            &batch.leader_share,
            &helper_share,
            batch.report_count,
        )
        .map_err(|e| wrong(e.to_string()))?;
        match &batch.truth {
            Some(truth) if *truth == aggregate => Ok(()),
            Some(truth) => Err(wrong(difference(truth, &aggregate))),
            None => Ok(()),
        }
    }

    /// Version and VDAF, for messages.
    pub fn name(&self) -> String {
        format!("{} {}", self.leader.version.tag(), self.leader.vdaf.config().name())
    }

    fn wrong(&self, why: &str) -> Failure {
        Failure::Wrong(format!("{}: {why}", self.name()))
    }
}

impl Batch {
    /// The bucket of its reports.
    pub const fn bucket(&self) -> BatchBucket {
        match self.partial {
            PartialBatchSelector::TimeInterval => BatchBucket::Window(self.time),
            PartialBatchSelector::LeaderSelected(id) => BatchBucket::Batch(id),
        }
    }
}

impl Made {
    /// The job, answered.
    pub fn answered(self, answer: Vec<u8>) -> Answered {
        Answered { last: Last::Only(self.leader, answer), truth: self.truth }
    }

    /// Splits off what the leader needs to continue.
    pub fn into_leader(self) -> (LeaderJob, AggregateResult) {
        (self.leader, self.truth)
    }
}

impl Answered {
    /// A job of two rounds, its continuation answered.
    pub const fn continued(
        job: LeaderContinuation,
        answer: Vec<u8>,
        truth: AggregateResult,
    ) -> Self {
        Self { last: Last::Second(job, answer), truth }
    }
}

fn add(a: AggregateResult, b: AggregateResult) -> AggregateResult {
    match (a, b) {
        (AggregateResult::Number(a), AggregateResult::Number(b)) => AggregateResult::Number(a + b),
        (AggregateResult::Vector(a), AggregateResult::Vector(b)) => {
            AggregateResult::Vector(a.into_iter().zip(b).map(|(a, b)| a + b).collect())
        }
        // One VDAF has one kind of results.
        (a, _) => a,
    }
}

/// Where an aggregate is not the truth, in one sentence.
fn difference(truth: &AggregateResult, aggregate: &AggregateResult) -> String {
    match (truth, aggregate) {
        (AggregateResult::Number(truth), AggregateResult::Number(got)) => {
            format!("the aggregate is {got}, and the truth is {truth}")
        }
        (AggregateResult::Vector(truth), AggregateResult::Vector(got))
            if truth.len() == got.len() =>
        {
            let differs = |(t, g): &(&u128, &u128)| t != g;
            let wrong = truth.iter().zip(got).filter(differs).count();
            let first = truth.iter().zip(got).position(|pair| differs(&pair)).unwrap_or_default();
            format!(
                "{wrong} of {} elements of the aggregate are wrong, the first at index {first}: {} instead of {}",
                truth.len(),
                got[first],
                truth[first]
            )
        }
        _ => "the aggregate is of another kind than the truth".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::Kind;

    #[test]
    fn jobs_are_made_in_order_with_the_truth_about_them() {
        for version in DapVersion::ALL {
            let file = new_task(version, Kind::Sum.config(), "http://127.0.0.1:1").unwrap();
            let party = Party::new(file, new_keypair().unwrap().config().clone()).unwrap();
            let batch = party.batch(0).unwrap();
            let jobs = party.make(&batch, 3, 2).unwrap();
            for (n, job) in jobs.iter().enumerate() {
                let init = party.wire().aggregation_job_init(&job.body).unwrap();
                assert_eq!(init.verify_inits.len(), 2);
                let first = 2 * n as u64;
                let measured: Vec<_> =
                    (first..first + 2).map(|n| measurement(&Kind::Sum.config(), n)).collect();
                let truth = party.leader.vdaf.truth(&party.agg_param, measured.iter());
                assert_eq!(Ok(&job.truth), truth.as_ref());
            }
        }
    }

    #[test]
    fn what_differs_is_said() {
        let vector = |v: &[u128]| AggregateResult::Vector(v.to_vec());
        assert_eq!(
            difference(&vector(&[1, 2, 3]), &vector(&[1, 5, 4])),
            "2 of 3 elements of the aggregate are wrong, the first at index 1: 5 instead of 2"
        );
        assert_eq!(
            difference(&AggregateResult::Number(3), &AggregateResult::Number(4)),
            "the aggregate is 4, and the truth is 3"
        );
        assert_eq!(add(vector(&[1, 2]), vector(&[3, 4])), vector(&[4, 6]));
    }
}
