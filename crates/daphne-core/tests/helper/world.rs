//! What the tests of the helper's jobs share: a task with its client, leader and helper.

use std::collections::BTreeMap;

use daphne_core::{
    aggregate::{
        commit::{self, JobIdentity},
        helper::{HelperJob, HpkeKeyring},
        leader::{LeaderJob, LeaderOutcome, LeaderTask},
    },
    batch::{BatchBucket, BatchMode},
    configuration::{self, Agreement},
    error::{Error, ReportError},
    hpke::{HpkeKem, HpkeKeypair},
    ids::{AggregationJobId, BatchId, HpkeConfigId},
    message::{PartialBatchSelector, Report, VerifyResp, VerifyRespResult},
    seal::TokenHash,
    store::placement::ShardKey,
    task::{Task, TaskRole, TaskSpec},
    testing::memory::MemoryCluster,
    time::{Duration, Interval, Time},
    upload::client::{ClientTask, ReportExtensions, ReportRandomness},
    vdaf::{AggregationParam, Measurement, Vdaf, VdafConfig},
    version::DapVersion,
    wire::Wire,
};
use futures::executor::block_on;
use sha2::{Digest, Sha256};

/// What the clock shows first, in seconds.
pub const NOW: u64 = 1_700_000_000;
/// Length of a batch bucket in DAP-09, in seconds.
pub const PRECISION: u64 = 3_600;
/// Shortest step of time that a report can express, in DAP-18; in DAP-09 it is a second, for these clients.
pub const TICK: u64 = 10;
/// Seconds since the first report that a task of DAP-18 takes.
pub const TASK_AGE: u64 = 20 * 86_400;

/// A helper on objects in memory, and the others.
pub struct World {
    pub cluster: MemoryCluster,
    pub task: Task,
    pub keys: HpkeKeyring,
    pub leader_keys: HpkeKeypair,
    pub now: u64,
    pub shard_key: [u8; 16],
}

#[derive(Clone, Copy, Debug)]
/// A task's version, and how its reports are spread.
pub struct Shape {
    pub version: DapVersion,
    pub mode: BatchMode,
    pub shards: u16,
    pub buckets_per_group: Option<u32>,
}

/// One group, groups, and batches that the leader selects.
const fn of_version(version: DapVersion) -> [Shape; 3] {
    let (timed, selected) = (BatchMode::TimeInterval, BatchMode::LeaderSelected);
    [
        Shape { version, mode: timed, shards: 4, buckets_per_group: Some(0) },
        Shape { version, mode: timed, shards: 4, buckets_per_group: Some(1) },
        Shape { version, mode: selected, shards: 4, buckets_per_group: None },
    ]
}

pub const SHAPES: [[Shape; 3]; 2] = [of_version(DapVersion::V09), of_version(DapVersion::V18)];
/// Of either version.
pub const WHOLE: [Shape; 2] = [SHAPES[0][0], SHAPES[1][0]];
pub const GROUPS: [Shape; 2] = [SHAPES[0][1], SHAPES[1][1]];

impl World {
    pub fn new(shape: Shape) -> Self {
        let key = |id, ikm| {
            HpkeKeypair::derive(HpkeConfigId(id), HpkeKem::X25519HkdfSha256, &[ikm; 32]).unwrap()
        };
        let config = VdafConfig::Prio3Sum { max_measurement: 255 };
        let vdaf = Vdaf::new(shape.version.vdaf_draft(), config).unwrap();
        // In DAP-18 times are numbers of batch buckets, which are short here: then tests can be exact about the clock.
        let has_units = shape.version.has_configuration();
        let mut spec = TaskSpec {
            task_id: None,
            version: shape.version,
            role: TaskRole::Helper,
            task_configuration: Vec::new(),
            batch_mode: shape.mode,
            max_batch_size: None,
            vdaf: config,
            verify_key: vec![1; vdaf.verify_key_len()],
            leader_token: None,
            leader_token_hash: Some(TokenHash::of("token")),
            collector_hpke_config: key(7, 7).config().clone(),
            min_batch_size: 2,
            time_precision: Duration::from_seconds(if has_units { TICK } else { PRECISION }),
            max_batch_query_count: 1,
            task_expiration: None,
            report_expiry_age: Duration::from_seconds(14 * 86_400),
            tolerable_clock_skew: Duration::from_seconds(300),
            shards: shape.shards,
            buckets_per_group: shape.buckets_per_group,
        };
        if has_units {
            let start = Time::from_seconds(NOW - TASK_AGE);
            let agreement = Agreement {
                task_info: b"task",
                leader_url: "https://leader.example/",
                helper_url: "https://helper.example/",
                task_interval: Interval::new(start, Duration::from_seconds(TASK_AGE + 200 + TICK)),
            };
            spec.task_configuration = configuration::encode(&spec, &agreement).unwrap();
        } else {
            spec.task_expiration = Some(Time::from_seconds(NOW + 200));
        }
        Self {
            cluster: MemoryCluster::new(),
            task: spec.check(1).unwrap(),
            keys: HpkeKeyring::new(vec![key(3, 3)]),
            leader_keys: key(4, 4),
            now: NOW,
            shard_key: [5; 16],
        }
    }

    pub fn wire(&self) -> Wire {
        self.task.parameters.wire()
    }

    /// The shortest step of time that a report can express, in seconds.
    pub fn tick(&self) -> u64 {
        if self.task.parameters.version.has_configuration() { TICK } else { 1 }
    }

    pub fn vdaf(&self) -> &Vdaf {
        &self.task.vdaf
    }

    pub fn client(&self) -> ClientTask {
        ClientTask {
            version: self.task.parameters.version,
            task_configuration: self.task.parameters.task_configuration.clone(),
            task_id: *self.task.id(),
            vdaf: self.vdaf().clone(),
            // In DAP-09 unrounded, so that a test can be exact about the clock.
            time_precision: Duration::from_seconds(self.tick()),
            leader_hpke_config: self.leader_keys.config().clone(),
            helper_hpke_config: self.keys.published().next().unwrap().clone(),
        }
    }

    /// A report of `value` with this id, made at `time`.
    pub fn report_at(&self, id: u8, value: u64, time: u64) -> Vec<u8> {
        self.report_with(id, value, time, &[])
    }

    pub fn report_with(
        &self,
        id: u8,
        value: u64,
        time: u64,
        extensions: &[(u16, &[u8])],
    ) -> Vec<u8> {
        let client = self.client();
        let random =
            ReportRandomness { report_id: [id; 16], leader_seed: [id; 32], helper_seed: [!id; 32] };
        let time = Time::from_seconds(time);
        let extensions = ReportExtensions { public: &[], private: extensions };
        client.report_with_extensions(&Measurement::Sum(value), time, extensions, &random).unwrap()
    }

    pub fn reports(&self, ids: &[u8]) -> Vec<Vec<u8>> {
        ids.iter().map(|id| self.report_at(*id, u64::from(*id), NOW - 10)).collect()
    }

    pub fn leader(&self) -> LeaderTask {
        LeaderTask {
            version: self.task.parameters.version,
            task_configuration: self.task.parameters.task_configuration.clone(),
            task_id: *self.task.id(),
            vdaf: self.vdaf().clone(),
            verify_key: self.task.verify_key.clone(),
            time_precision: self.task.parameters.time_precision,
        }
    }

    pub fn batch(&self, n: u8) -> PartialBatchSelector {
        match self.task.parameters.batch_mode {
            BatchMode::TimeInterval => PartialBatchSelector::TimeInterval,
            BatchMode::LeaderSelected => {
                PartialBatchSelector::LeaderSelected(BatchId::new([n; 32]))
            }
        }
    }

    pub fn agg_param(&self) -> AggregationParam {
        self.vdaf().decode_agg_param(&[]).unwrap()
    }

    pub fn agg_share_len(&self) -> usize {
        self.vdaf().agg_share_len(&self.agg_param())
    }

    pub fn begin(&self, batch: u8, reports: &[Vec<u8>]) -> LeaderJob {
        let reports: Vec<Report<'_>> =
            reports.iter().map(|r| self.wire().report(r).unwrap()).collect();
        let (job, refused) = self
            .leader()
            .begin_job(&self.leader_keys, &self.agg_param(), self.batch(batch), &reports)
            .unwrap();
        assert_eq!(refused, []);
        job.unwrap()
    }

    /// The helper's answer to a request's bytes under a job id.
    pub fn put(&self, job: u8, body: &[u8]) -> Result<Vec<VerifyResp>, Error> {
        let init = self.wire().aggregation_job_init(body)?;
        let now = Time::from_seconds(self.now);
        let helper = HelperJob::new(&self.task, &self.keys, now, &init)?;
        let identity = JobIdentity {
            job: AggregationJobId::new([job; 16]),
            digest: Sha256::digest(body).into(),
            shard_key: ShardKey::new(self.shard_key),
        };
        block_on(commit::run(&self.cluster, &identity, &helper))
    }

    pub fn run(&self, job: u8, batch: u8, reports: &[Vec<u8>]) -> (Vec<VerifyResp>, LeaderOutcome) {
        let leader_job = self.begin(batch, reports);
        let answers = self.put(job, leader_job.request()).unwrap();
        let bytes = self.wire().encode_aggregation_job_resp(&answers).unwrap();
        (answers, self.leader().finish_job(leader_job, &bytes).unwrap())
    }

    /// What the helper's stores hold, by bucket: count and the sum of both aggregators' shares.
    pub fn totals(&self, outcomes: &[LeaderOutcome]) -> BTreeMap<BatchBucket, (u64, String)> {
        let mut leader: BTreeMap<BatchBucket, (u64, Vec<u8>)> = BTreeMap::new();
        for (bucket, slice) in outcomes.iter().flat_map(|o| &o.accepted) {
            let entry = leader.entry(*bucket).or_insert_with(|| (0, vec![0; self.agg_share_len()]));
            entry.0 += slice.report_count;
            daphne_core::vdaf::share::add_assign(
                self.vdaf().field(),
                &mut entry.1,
                &slice.share.encode(),
            )
            .unwrap();
        }
        leader
            .into_iter()
            .map(|(bucket, (count, share))| {
                let (n, helper) = self.held(&bucket);
                assert_eq!(n, count, "both count the same");
                (
                    bucket,
                    (
                        n,
                        self.vdaf()
                            .unshard(&self.agg_param(), &share, &helper, n)
                            .unwrap()
                            .to_string(),
                    ),
                )
            })
            .collect()
    }

    pub fn held(&self, bucket: &BatchBucket) -> (u64, Vec<u8>) {
        let (mut count, mut share) = (0, vec![0; self.agg_share_len()]);
        for (_, tables) in self.cluster.stores_of(self.task.id()) {
            for row in tables.jobs() {
                let mut at = 0;
                for head in &row.head.slices {
                    let mine = &row.shares[at..at + head.share_len as usize];
                    at += head.share_len as usize;
                    if head.bucket == *bucket {
                        count += u64::from(head.report_count);
                        daphne_core::vdaf::share::add_assign(self.vdaf().field(), &mut share, mine)
                            .unwrap();
                    }
                }
            }
        }
        (count, share)
    }
}

pub fn codes(answers: &[VerifyResp]) -> Vec<Option<ReportError>> {
    answers
        .iter()
        .map(|a| match a.result {
            VerifyRespResult::Reject(e) => Some(e),
            VerifyRespResult::Continue(_) | VerifyRespResult::Finish => None,
        })
        .collect()
}
