//! The reports of all schedules: made once by a real client, opened and verified once by real aggregators.
//!
//! Report n measures bucket n of a histogram, so that an aggregate says how often each report was counted. Verifying
//! is a pure function of bytes and keys; its results are remembered per thread, because a schedule verifies a report
//! some dozens of times.

use std::{cell::RefCell, collections::HashMap, rc::Rc, sync::OnceLock};

use daphne_core::{
    aggregate::{
        helper::{BytesVerdict, HpkeKeyring, OpenAndVerify, Verifier},
        leader::{LeaderJob, LeaderOutcome, LeaderTask},
    },
    batch::{BatchBucket, BatchMode, BucketRange},
    configuration::{self, Agreement},
    hpke::{HpkeKem, HpkeKeypair},
    ids::{BatchId, HpkeConfigId, ReportId, TaskId},
    message::{PartialBatchSelector, Report, VerifyInit},
    seal::TokenHash,
    store::placement::ShardKey,
    task::{Task, TaskRole, TaskSpec},
    time::{Duration, Interval, Time},
    upload::client::{ClientTask, ReportExtensions, ReportRandomness},
    vdaf::{AggregationParam, Measurement, Vdaf, VdafConfig},
    version::DapVersion,
};

use crate::{network::Bytes, scenario::Scenario};

/// What the clock shows first, in seconds.
pub const BEGIN_S: u64 = 1_000_000_000;
/// How far a clock steps: a report that was early is not any more, another is too old, a ledger's lock has expired.
pub const STEP_S: u64 = 130;
const EXPIRY_S: u64 = 2_100;
const SKEW_S: u64 = 300;

/// Buckets, or batches, that a schedule can have. Bucket 0 holds the first time, the others lie before it.
pub const BUCKETS: usize = 3;

/// What is special about a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Special {
    /// Too early until the clock steps.
    Early,
    /// Too old once the clock has stepped.
    Expiring,
    /// More than a day too early at first, less later: refused without and with asking its owner.
    FarAhead,
    /// Made after the task's end; before that is known, it is too early.
    AfterEnd,
    /// The helper's share was sealed for another task.
    OtherTask,
    /// It has an extension that nobody knows.
    Extension,
    /// Sealed to a key that is made in the course of the schedule.
    NewKey,
}

/// A report.
#[derive(Clone, Copy, Debug)]
pub struct ReportPlan {
    /// The bucket of its time, unless that is said by the clock.
    pub bucket: usize,
    made: Made,
    /// What is special about it.
    pub special: Option<Special>,
}

/// When a report is made, in seconds.
#[derive(Clone, Copy, Debug)]
enum Made {
    /// So long after its bucket's beginning.
    In(u64),
    /// So long after [`BEGIN_S`].
    At(i64),
}
use Made::{At, In};

const fn plan(bucket: usize, made: Made, special: Option<Special>) -> ReportPlan {
    ReportPlan { bucket, made, special }
}

/// All reports.
pub const ALL: [ReportPlan; 13] = [
    plan(0, In(10), None),
    plan(0, In(20), None),
    plan(0, In(30), None),
    plan(1, In(500), None),
    plan(1, In(600), None),
    plan(0, At(400), Some(Special::Early)),
    plan(2, At(-1_995), Some(Special::Expiring)),
    plan(2, In(800), None),
    plan(0, At(550), Some(Special::AfterEnd)),
    plan(0, In(40), Some(Special::OtherTask)),
    plan(0, In(50), Some(Special::Extension)),
    plan(1, In(700), Some(Special::NewKey)),
    plan(0, At(SKEW_S as i64 + 86_400 + 100), Some(Special::FarAhead)),
];

/// Length of a bucket in seconds. Where times are told in buckets, these are short, so that the clock steps over them.
fn precision_s(version: DapVersion) -> u64 {
    if tells_seconds(version) { 1_000 } else { 100 }
}

/// Whether a report's time can be any second: DAP-09 §4.1. In DAP-18 §4.1 it counts time precisions.
fn tells_seconds(version: DapVersion) -> bool {
    !version.has_configuration()
}

/// How often each report is counted.
pub type Times = [u64; ALL.len()];

/// A report's id.
pub fn id(report: usize) -> ReportId {
    ReportId::new([report as u8; 16])
}

/// The number of the report with this id.
pub fn number(id: &ReportId) -> usize {
    usize::from(id.as_bytes()[0])
}

/// The reports of a set, in order.
pub fn of_set(set: u16) -> impl Iterator<Item = usize> {
    (0..ALL.len()).filter(move |n| set >> n & 1 == 1)
}

/// The selector of a batch, if the leader selects batches.
pub fn batch_id(batch: u8) -> BatchId {
    BatchId::new([batch; 32])
}

/// The range of `count` buckets, or of the batch.
pub fn range(scenario: &Scenario, first: u8, count: u8) -> BucketRange {
    match scenario.mode {
        BatchMode::LeaderSelected => BucketRange::Batch(batch_id(first)),
        BatchMode::TimeInterval => {
            let precision = precision_s(scenario.version);
            let start = BEGIN_S - precision * (u64::from(first + count) - 1);
            let length = Duration::from_seconds(precision * u64::from(count));
            // Unwrap safety: the times are small.
            BucketRange::Windows(Interval::new(Time::from_seconds(start), length).unwrap())
        }
    }
}

/// All buckets, or the batch.
pub fn whole(scenario: &Scenario, batch: u8) -> BucketRange {
    match scenario.mode {
        BatchMode::LeaderSelected => range(scenario, batch, 1),
        BatchMode::TimeInterval => range(scenario, 0, BUCKETS as u8),
    }
}

/// Where a report goes in a job of this batch.
pub fn bucket(scenario: &Scenario, batch: u8, report: usize) -> BatchBucket {
    match scenario.mode {
        BatchMode::LeaderSelected => BatchBucket::Batch(batch_id(batch)),
        BatchMode::TimeInterval => {
            let precision = Duration::from_seconds(precision_s(scenario.version));
            BatchBucket::Window(time(scenario.version, report).round_down(precision))
        }
    }
}

fn time(version: DapVersion, report: usize) -> Time {
    let ReportPlan { bucket, made, .. } = ALL[report];
    let precision = precision_s(version);
    Time::from_seconds(match made {
        In(offset) => BEGIN_S - precision * bucket as u64 + offset % precision,
        At(offset) => BEGIN_S.saturating_add_signed(offset),
    })
}

/// Keys, the task, and the reports' bytes.
pub struct Fixture {
    task: Task,
    /// The collector's key.
    pub collector: HpkeKeypair,
    /// The secret that spreads reports over shards.
    pub shard_key: ShardKey,
    /// The parameter of a VDAF that has no choice of one.
    pub agg_param: AggregationParam,
    helper_keys: [HpkeKeypair; 2],
    leader: LeaderTask,
    leader_keys: HpkeKeypair,
    encoded: Vec<Vec<u8>>,
}

/// The one fixture of a version in this process.
pub fn fixture(version: DapVersion) -> &'static Fixture {
    static FIXTURES: [OnceLock<Fixture>; DapVersion::ALL.len()] = [const { OnceLock::new() }; _];
    // Unwrap safety: each version is one of all.
    let place = DapVersion::ALL.iter().position(|v| *v == version).unwrap();
    FIXTURES[place].get_or_init(|| Fixture::new(version))
}

impl Fixture {
    fn new(version: DapVersion) -> Self {
        let key = |id| {
            // Unwrap safety: 32 bytes are enough.
            HpkeKeypair::derive(HpkeConfigId(id), HpkeKem::X25519HkdfSha256, &[id; 32]).unwrap()
        };
        let (collector, leader_keys) = (key(1), key(2));
        let helper_keys = [key(3), key(4)];
        let vdaf = VdafConfig::Prio3Histogram { length: ALL.len() as u32, chunk_length: 4 };
        // Unwrap safety: the parameters are good.
        let verify_key_len = Vdaf::new(version.vdaf_draft(), vdaf).unwrap().verify_key_len();
        let mut spec = TaskSpec {
            task_id: None,
            version,
            role: TaskRole::Helper,
            task_configuration: Vec::new(),
            batch_mode: BatchMode::TimeInterval,
            max_batch_size: None,
            vdaf,
            verify_key: vec![1; verify_key_len],
            leader_token: None,
            leader_token_hash: Some(TokenHash::of("token")),
            collector_hpke_config: collector.config().clone(),
            min_batch_size: 2,
            time_precision: Duration::from_seconds(precision_s(version)),
            max_batch_query_count: 1,
            task_expiration: Some(Time::from_seconds(BEGIN_S + 500)),
            report_expiry_age: Duration::from_seconds(EXPIRY_S),
            tolerable_clock_skew: Duration::from_seconds(SKEW_S),
            shards: 1,
            buckets_per_group: Some(0),
        };
        if version.has_configuration() {
            // The same end is in the configuration.
            spec.task_expiration = None;
            let agreement = Agreement {
                task_info: b"simulation",
                leader_url: "https://leader.example/",
                helper_url: "https://helper.example/",
                task_interval: Interval::new(
                    Time::from_seconds(BEGIN_S - 1_000_000),
                    Duration::from_seconds(1_000_500),
                ),
            };
            // Unwrap safety: the parameters are good.
            spec.task_configuration = configuration::encode(&spec, &agreement).unwrap();
        }
        // Unwrap safety: the parameters are good.
        let task = spec.check(1).unwrap();
        let agg_param = task.vdaf.decode_agg_param(&[]).unwrap();
        let leader = LeaderTask {
            version,
            task_configuration: task.parameters.task_configuration.clone(),
            task_id: *task.id(),
            vdaf: task.vdaf.clone(),
            verify_key: task.verify_key.clone(),
            time_precision: task.parameters.time_precision,
        };
        let mut fixture = Self {
            task,
            collector,
            shard_key: ShardKey::new([5; 16]),
            helper_keys,
            leader,
            agg_param,
            leader_keys,
            encoded: Vec::new(),
        };
        fixture.encoded = (0..ALL.len()).map(|n| fixture.upload(n)).collect();
        fixture
    }

    /// The bytes that a client uploads.
    fn upload(&self, report: usize) -> Vec<u8> {
        let special = ALL[report].special;
        let bytes = self.make(report, *self.task.id());
        if special != Some(Special::OtherTask) {
            return bytes;
        }
        let other = self.make(report, TaskId::new([9; 32]));
        // Unwrap safety: a client made them just now.
        let wire = self.task.parameters.wire();
        let mut mixed = wire.report(&bytes).unwrap();
        mixed.helper_encrypted_input_share =
            wire.report(&other).unwrap().helper_encrypted_input_share;
        wire.encode_report(mixed).unwrap()
    }

    fn make(&self, report: usize, task_id: TaskId) -> Vec<u8> {
        let special = ALL[report].special;
        let key = &self.helper_keys[usize::from(special == Some(Special::NewKey))];
        let parameters = &self.task.parameters;
        let version = parameters.version;
        let client = ClientTask {
            version,
            task_configuration: parameters.task_configuration.clone(),
            task_id,
            vdaf: self.task.vdaf.clone(),
            // Unrounded where it can be, so that reports lie on both sides of what the clock allows.
            time_precision: match tells_seconds(version) {
                true => Duration::from_seconds(1),
                false => parameters.time_precision,
            },
            leader_hpke_config: self.leader_keys.config().clone(),
            helper_hpke_config: key.config().clone(),
        };
        let seed = [report as u8; 32];
        let random = ReportRandomness {
            report_id: *id(report).as_bytes(),
            leader_seed: seed,
            helper_seed: seed.map(|b| !b),
        };
        let private: &[(u16, &[u8])] = match special {
            Some(Special::Extension) => &[(0xff00, &[])],
            _ => &[],
        };
        let extensions = ReportExtensions { public: &[], private };
        let measurement = Measurement::Histogram(report);
        // Unwrap safety: the measurement is one of the task's.
        let time = time(version, report);
        client.report_with_extensions(&measurement, time, extensions, &random).unwrap()
    }

    /// The task of a scenario. What is sealed to one of them opens in all.
    pub fn task(&self, scenario: &Scenario) -> Task {
        let mut task = self.task.clone();
        task.parameters.batch_mode = scenario.mode;
        task.parameters.shards = scenario.shards;
        task.parameters.buckets_per_group = scenario.buckets_per_group;
        task.parameters.min_batch_size = scenario.min_batch_size;
        task
    }

    /// The helper's HPKE keys, before and after a rotation.
    pub fn keyring(&self, rotated: bool) -> HpkeKeyring {
        let [old, new] = &self.helper_keys;
        HpkeKeyring::new(if rotated { vec![new.clone(), old.clone()] } else { vec![old.clone()] })
    }
}

/// Which job, as far as its bytes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct JobContent {
    /// The version that it is written in.
    pub version: DapVersion,
    /// Its reports.
    pub set: u16,
    /// Its batch, if the leader selects batches.
    pub batch: Option<u8>,
    /// Whether its reports come in the opposite order.
    pub reversed: bool,
}

thread_local! {
    static VERDICTS: RefCell<HashMap<Vec<u8>, BytesVerdict>> = RefCell::default();
    static JOBS: RefCell<HashMap<JobContent, Rc<LeaderJob>>> = RefCell::default();
    static OUTCOMES: RefCell<HashMap<(JobContent, Bytes), Rc<LeaderOutcome>>> =
        RefCell::default();
}

/// The helper's verifier, remembering.
#[derive(Debug)]
pub struct Remembering;

impl Verifier for Remembering {
    fn verify(
        &self,
        task: &Task,
        keys: &HpkeKeyring,
        agg_param: &AggregationParam,
        report: &VerifyInit<'_>,
    ) -> BytesVerdict {
        let share = &report.report_share;
        let sealed = share.encrypted_input_share;
        let version = task.parameters.version as u8;
        let mut key = vec![version, keys.published().count() as u8, sealed.config_id.0];
        for part in
            [share.metadata.encoded, share.public_share, sealed.enc, sealed.payload, report.payload]
        {
            key.extend_from_slice(part);
        }
        VERDICTS.with_borrow_mut(|verdicts| {
            verdicts
                .entry(key)
                .or_insert_with(|| OpenAndVerify.verify(task, keys, agg_param, report))
                .clone()
        })
    }
}

/// The leader's job with these reports.
pub fn leader_job(content: JobContent) -> Rc<LeaderJob> {
    JOBS.with_borrow_mut(|jobs| {
        jobs.entry(content).or_insert_with(|| Rc::new(begin_job(content))).clone()
    })
}

fn begin_job(content: JobContent) -> LeaderJob {
    let fixture = fixture(content.version);
    let batch = match content.batch {
        Some(batch) => PartialBatchSelector::LeaderSelected(batch_id(batch)),
        None => PartialBatchSelector::TimeInterval,
    };
    // Unwrap safety: a client made the reports, and there is at least one.
    let wire = fixture.task.parameters.wire();
    let mut reports: Vec<Report<'_>> =
        of_set(content.set).map(|n| wire.report(&fixture.encoded[n]).unwrap()).collect();
    if content.reversed {
        reports.reverse();
    }
    let (job, refused) = fixture
        .leader
        .begin_job(&fixture.leader_keys, &fixture.agg_param, batch, &reports)
        .unwrap();
    assert_eq!(refused, [], "the leader refuses its own clients' reports");
    job.unwrap()
}

/// What the leader makes of the helper's answer.
pub fn outcome(content: JobContent, answer: &Bytes) -> Result<Rc<LeaderOutcome>, String> {
    let known = OUTCOMES.with_borrow(|o| o.get(&(content, answer.clone())).cloned());
    if let Some(outcome) = known {
        return Ok(outcome);
    }
    let job = LeaderJob::clone(&leader_job(content));
    let leader = &fixture(content.version).leader;
    let outcome = Rc::new(leader.finish_job(job, answer).map_err(|e| e.to_string())?);
    OUTCOMES.with_borrow_mut(|o| o.insert((content, answer.clone()), outcome.clone()));
    Ok(outcome)
}
