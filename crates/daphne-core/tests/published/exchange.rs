//! One task's whole life between client, leader, helper and collector, with everything that goes into it.

use std::cell::{Cell, RefCell};

use daphne_core::{
    aggregate::{
        commit::{self, JobIdentity},
        helper::{HelperJob, HpkeKeyring},
        leader::{LeaderOutcome, LeaderStep, LeaderTask},
        rounds::{self, Continuation},
    },
    batch::{BatchMode, Checksum},
    codec::Writer,
    collect::{
        collector::{self, CollectorTask},
        helper::collect_request,
    },
    configuration::{self, Agreement},
    error::Error,
    hpke::{self, HpkeConfig, HpkeKem, HpkeKeypair, Role},
    ids::{AggregationJobId, BatchId, HpkeConfigId, ReportId, TaskId},
    message::{
        AggregateShareRequest, BatchSelector, HpkeCiphertext, PartialBatchSelector,
        PlaintextInputShare, Report, VerifyResp,
    },
    seal::TokenHash,
    store::{
        Objects as _,
        message::{LedgerRequest, LedgerResponse},
        placement::ShardKey,
    },
    task::{Task, TaskRole, TaskSpec},
    testing::memory::MemoryCluster,
    time::{Duration, Interval, Time},
    vdaf::{AggregationParam, BitString, Measurement, VdafConfig, share},
    version::DapVersion,
    wire::{aggregate_share_aad, input_share_aad},
};
use futures::executor::block_on;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::layout::{bytes, explain, hex};

/// What the helper's clock shows, in seconds.
pub const NOW: u64 = 1_700_000_000;
/// Seconds in a unit of time.
pub const PRECISION: u64 = 3_600;
/// The unit that the helper's clock shows.
pub const UNIT: u64 = NOW / PRECISION;
/// The first unit in which the task's reports may be made, and how many there are.
pub const TASK_INTERVAL: (u64, u64) = (UNIT - 100, 101);

/// A task to make an exchange of.
pub struct Kind {
    /// The file's name.
    pub name: &'static str,
    /// The VDAF.
    pub vdaf: VdafConfig,
    /// How it gathers reports.
    pub mode: BatchMode,
    /// What its four reports measure, as JSON.
    pub measurements: &'static str,
}

/// Every VDAF in both batch modes.
pub fn kinds() -> Vec<Kind> {
    let sum_vec = |mode, name| Kind {
        name,
        vdaf: VdafConfig::Prio3SumVec { length: 3, max_measurement: 15, chunk_length: 4 },
        mode,
        measurements: "[[1, 2, 3], [0, 0, 15], [15, 15, 15], [7, 0, 1]]",
    };
    let multihot = |mode, name| Kind {
        name,
        vdaf: VdafConfig::Prio3MultihotCountVec { length: 4, max_weight: 2, chunk_length: 2 },
        mode,
        measurements: "[[1, 0, 0, 1], [0, 0, 0, 0], [0, 1, 0, 1], [1, 0, 0, 0]]",
    };
    let multiproof = |mode, name| Kind {
        name,
        vdaf: VdafConfig::Prio3SumVecField64MultiproofHmacSha256Aes128 {
            length: 3,
            max_measurement: 15,
            chunk_length: 4,
            proofs: 2,
        },
        mode,
        measurements: "[[1, 2, 3], [0, 0, 15], [15, 15, 15], [7, 0, 1]]",
    };
    let simple = |mode, name, vdaf, measurements| Kind { name, vdaf, mode, measurements };
    let sum = VdafConfig::Prio3Sum { max_measurement: 255 };
    let histogram = VdafConfig::Prio3Histogram { length: 4, chunk_length: 2 };
    let poplar1 = VdafConfig::Poplar1 { bits: 4 };
    let (timed, selected) = (BatchMode::TimeInterval, BatchMode::LeaderSelected);
    let counts = "[true, true, false, true]";
    let strings = r#"["0110", "0111", "1100", "0110"]"#;
    vec![
        simple(timed, "count-time-interval", VdafConfig::Prio3Count, counts),
        simple(selected, "count-leader-selected", VdafConfig::Prio3Count, counts),
        simple(timed, "sum-time-interval", sum, "[1, 20, 255, 0]"),
        simple(selected, "sum-leader-selected", sum, "[1, 20, 255, 0]"),
        simple(timed, "histogram-time-interval", histogram, "[0, 3, 3, 1]"),
        simple(selected, "histogram-leader-selected", histogram, "[0, 3, 3, 1]"),
        sum_vec(timed, "sum-vec-time-interval"),
        sum_vec(selected, "sum-vec-leader-selected"),
        multihot(timed, "multihot-time-interval"),
        multihot(selected, "multihot-leader-selected"),
        multiproof(timed, "multiproof-time-interval"),
        multiproof(selected, "multiproof-leader-selected"),
        simple(timed, "poplar1-time-interval", poplar1, strings),
        simple(selected, "poplar1-leader-selected", poplar1, strings),
    ]
}

/// A client's shares. `prio` draws the randomness for them, so they are recorded.
pub struct Shares {
    /// For both aggregators.
    pub public: Vec<u8>,
    /// For the leader.
    pub leader: Vec<u8>,
    /// For the helper.
    pub helper: Vec<u8>,
}

/// The helper of a task, and what the others know.
pub struct World {
    /// The task.
    pub task: Task,
    /// The helper's objects.
    pub cluster: MemoryCluster,
    measurements: Vec<Value>,
    keys: HpkeKeyring,
    batch: BatchId,
    last_digest: RefCell<[u8; 32]>,
    /// What the helper's clock shows, in seconds.
    pub now: Cell<u64>,
}

/// The key pair of a party. Its private key is derived from 32 bytes that are its id.
pub fn keypair(id: u8) -> HpkeKeypair {
    HpkeKeypair::derive(HpkeConfigId(id), HpkeKem::X25519HkdfSha256, &[id; 32]).unwrap()
}

const LEADER_KEY: u8 = 0x1e;
/// The id of the helper's only key.
pub const HELPER_KEY: u8 = 0x4e;
const COLLECTOR_KEY: u8 = 0xc0;

fn encoded(config: &HpkeConfig) -> Vec<u8> {
    let mut w = Writer::new();
    config.write(&mut w);
    w.finish().unwrap()
}

fn key(pair: &HpkeKeypair) -> Value {
    json!({
        "hpke_config": explain("HpkeConfig", &encoded(pair.config())),
        "private_key": hex(pair.private_key()),
    })
}

impl World {
    /// A helper that holds nothing.
    pub fn new(kind: &Kind) -> Self {
        let vdaf = daphne_core::vdaf::Vdaf::new(DapVersion::V18.vdaf_draft(), kind.vdaf).unwrap();
        let mut spec = TaskSpec {
            task_id: Some(TaskId::new(Sha256::digest(kind.name).into())),
            version: DapVersion::V18,
            role: TaskRole::Helper,
            task_configuration: Vec::new(),
            batch_mode: kind.mode,
            max_batch_size: None,
            vdaf: kind.vdaf,
            verify_key: (0..vdaf.verify_key_len()).map(|n| n as u8).collect(),
            leader_token: None,
            leader_token_hash: Some(TokenHash::of("token")),
            collector_hpke_config: keypair(COLLECTOR_KEY).config().clone(),
            min_batch_size: 3,
            time_precision: Duration::from_seconds(PRECISION),
            max_batch_query_count: 1,
            task_expiration: None,
            report_expiry_age: Duration::from_seconds(30 * 86_400),
            tolerable_clock_skew: Duration::from_seconds(300),
            shards: 2,
            buckets_per_group: None,
        };
        let seconds = |units| Duration::from_seconds(units * PRECISION);
        let start = Time::from_seconds(seconds(TASK_INTERVAL.0).as_seconds());
        let agreement = Agreement {
            task_info: kind.name.as_bytes(),
            leader_url: "https://leader.example/dap/",
            helper_url: "https://helper.example/v18",
            task_interval: Interval::new(start, seconds(TASK_INTERVAL.1)),
        };
        spec.task_configuration = configuration::encode(&spec, &agreement).unwrap();
        let cluster = MemoryCluster::new();
        cluster.set_time(NOW);
        Self {
            task: spec.check(1).unwrap(),
            cluster,
            measurements: serde_json::from_str(kind.measurements).unwrap(),
            keys: HpkeKeyring::new(vec![keypair(HELPER_KEY)]),
            batch: BatchId::new(std::array::from_fn(|n| 0xb0 | (n as u8 & 0xf))),
            last_digest: RefCell::default(),
            now: Cell::new(NOW),
        }
    }

    /// What the n-th report measures.
    pub fn measurement(&self, n: usize) -> Measurement {
        let config = &self.task.parameters.vdaf;
        Measurement::from_json(config, &self.measurements[n]).unwrap()
    }

    /// New shares of the n-th report.
    pub fn shard(&self, n: usize) -> Shares {
        let context = DapVersion::V18.vdaf_context(self.task.id());
        let shares = self.task.vdaf.shard(&context, &self.measurement(n), &[n as u8 + 1; 16]);
        let shares = shares.unwrap();
        Shares {
            public: shares.public_share,
            leader: shares.leader_input_share,
            helper: shares.helper_input_share,
        }
    }

    /// The unit of the n-th report's time.
    pub fn unit(&self, n: usize) -> u64 {
        UNIT - 1 + n as u64 / 2
    }

    /// Seals a report's input share to one of the aggregators: plaintext, associated data, and ciphertext.
    pub fn seal(
        &self,
        (role, key): (Role, &HpkeConfig),
        metadata: &[u8],
        public_share: &[u8],
        plaintext: &[u8],
        seed: &[u8; 32],
    ) -> (Vec<u8>, hpke::SealedMessage) {
        let configuration = &self.task.parameters.task_configuration;
        let aad = input_share_aad(self.task.id(), configuration, metadata, public_share).unwrap();
        let info = hpke::input_share_info(DapVersion::V18, role);
        let sealed = hpke::seal(key, &info, &aad, plaintext, seed).unwrap();
        (aad, sealed)
    }

    /// The n-th report with these shares, encoded, and all that goes into it.
    fn report(&self, n: usize, shares: &Shares) -> (Vec<u8>, Value) {
        let wire = self.task.parameters.wire();
        let id = ReportId::new([n as u8 + 1; 16]);
        let time = Time::from_seconds(self.unit(n) * PRECISION);
        let metadata = wire.report_metadata(id, time, &[]).unwrap();
        let plaintext = |payload| {
            let share = PlaintextInputShare { extensions: Vec::new(), payload };
            wire.encode_plaintext_input_share(share).unwrap()
        };
        let (leader, helper) = (plaintext(&shares.leader), plaintext(&shares.helper));
        let (leader_seed, helper_seed) = ([0x10 | n as u8; 32], [0x20 | n as u8; 32]);
        let (leader_key, helper_key) = (keypair(LEADER_KEY), keypair(HELPER_KEY));
        let seal = |to, share: &[u8], seed| self.seal(to, &metadata, &shares.public, share, seed);
        let (aad, for_leader) = seal((Role::Leader, leader_key.config()), &leader, &leader_seed);
        let (_, for_helper) = seal((Role::Helper, helper_key.config()), &helper, &helper_seed);
        let report = wire
            .encode_report(Report {
                metadata: wire.decode_report_metadata(&metadata).unwrap(),
                public_share: &shares.public,
                leader_encrypted_input_share: for_leader.as_ref(),
                helper_encrypted_input_share: for_helper.as_ref(),
            })
            .unwrap();
        let all = json!({
            "measurement": self.measurements[n],
            "public_share": hex(&shares.public),
            "leader_input_share": hex(&shares.leader),
            "helper_input_share": hex(&shares.helper),
            "leader_plaintext_input_share": explain("PlaintextInputShare", &leader),
            "helper_plaintext_input_share": explain("PlaintextInputShare", &helper),
            "input_share_aad": explain("InputShareAad", &aad),
            "leader_hpke_info": hex(&hpke::input_share_info(DapVersion::V18, Role::Leader)),
            "helper_hpke_info": hex(&hpke::input_share_info(DapVersion::V18, Role::Helper)),
            "leader_hpke_ephemeral_ikm": hex(&leader_seed),
            "helper_hpke_ephemeral_ikm": hex(&helper_seed),
            "report": explain("Report", &report),
        });
        (report, all)
    }

    /// What its reports are aggregated for.
    pub fn agg_param(&self) -> AggregationParam {
        match self.task.parameters.vdaf {
            VdafConfig::Poplar1 { .. } => {
                let prefixes: Vec<BitString> =
                    ["00", "01", "11"].map(|p| p.parse().unwrap()).into();
                self.task.vdaf.prefixes(&prefixes).unwrap()
            }
            _ => self.task.vdaf.decode_agg_param(&[]).unwrap(),
        }
    }

    /// The batch that the leader has in mind.
    pub fn batch(&self) -> (PartialBatchSelector, BatchSelector) {
        match self.task.parameters.batch_mode {
            BatchMode::TimeInterval => (
                PartialBatchSelector::TimeInterval,
                BatchSelector::TimeInterval {
                    start: Time::from_seconds((UNIT - 1) * PRECISION),
                    duration: Duration::from_seconds(2 * PRECISION),
                },
            ),
            BatchMode::LeaderSelected => (
                PartialBatchSelector::LeaderSelected(self.batch),
                BatchSelector::LeaderSelected(self.batch),
            ),
        }
    }

    fn leader(&self) -> LeaderTask {
        LeaderTask {
            version: DapVersion::V18,
            task_configuration: self.task.parameters.task_configuration.clone(),
            task_id: *self.task.id(),
            vdaf: self.task.vdaf.clone(),
            verify_key: self.task.verify_key.clone(),
            time_precision: Duration::from_seconds(PRECISION),
        }
    }

    fn id(&self, body: &[u8]) -> AggregationJobId {
        let digest = Sha256::digest(body);
        AggregationJobId::new(std::array::from_fn(|n| digest[n]))
    }

    /// The helper's answer to a request that begins a job.
    ///
    /// # Errors
    /// Its refusal.
    pub fn init(&self, body: &[u8]) -> Result<Vec<VerifyResp>, Error> {
        let init = self.task.parameters.wire().aggregation_job_init(body)?;
        let helper =
            HelperJob::new(&self.task, &self.keys, Time::from_seconds(self.now.get()), &init)?;
        let digest = Sha256::digest(body).into();
        *self.last_digest.borrow_mut() = digest;
        let (job, shard_key) = (self.id(body), ShardKey::new([5; 16]));
        let identity = JobIdentity { job, digest, shard_key };
        block_on(commit::run(&self.cluster, &identity, &helper))
    }

    /// The helper's answer to a request that continues the job of the last one.
    ///
    /// # Errors
    /// Its refusal.
    pub fn proceed(&self, body: &[u8]) -> Result<Vec<VerifyResp>, Error> {
        let digest = *self.last_digest.borrow();
        let continuation = Continuation {
            task: &self.task,
            job: AggregationJobId::new(std::array::from_fn(|n| digest[n])),
            shard_key: ShardKey::new([5; 16]),
            now: Time::from_seconds(self.now.get()),
            request: &self.task.parameters.wire().aggregation_job_continue(body)?,
            digest: Sha256::digest(body).into(),
        };
        block_on(rounds::continue_job(&self.cluster, &continuation))
    }

    /// The helper's answer to a request for an aggregate share: an encoded `AggregateShare`.
    ///
    /// # Errors
    /// Its refusal.
    pub fn share(&self, body: &[u8]) -> Result<Vec<u8>, Error> {
        let request = self.task.parameters.wire().aggregate_share_request(body)?;
        let collect = collect_request(&self.task, &request, Sha256::digest(body).into())?;
        let ask = LedgerRequest::Collect(Box::new(collect));
        match block_on(self.cluster.ledger(self.task.id(), ask)).unwrap() {
            LedgerResponse::Share(share) => Ok(share),
            LedgerResponse::Refused(abort) => Err(abort.into()),
            other => panic!("{other:?}"),
        }
    }

    /// All of it, with what a client's shares are.
    pub fn exchange(&self, shares: &[Shares]) -> Value {
        let parameters = &self.task.parameters;
        let wire = parameters.wire();
        let (reports, explained): (Vec<_>, Vec<_>) =
            shares.iter().enumerate().map(|(n, shares)| self.report(n, shares)).unzip();
        let decoded: Vec<Report<'_>> = reports.iter().map(|r| wire.report(r).unwrap()).collect();
        let param = self.agg_param();
        let (partial, batch) = self.batch();
        let leader = self.leader();
        let (job, refused) =
            leader.begin_job(&keypair(LEADER_KEY), &param, partial, &decoded).unwrap();
        assert_eq!(refused, []);
        let job = job.unwrap();
        let mut aggregation = vec![explain("AggregationJobInitReq", job.request())];
        let answer = wire.encode_aggregation_job_resp(&self.init(job.request()).unwrap()).unwrap();
        aggregation.push(explain("AggregationJobResp", &answer));
        let outcome = match leader.proceed(job, &answer).unwrap() {
            LeaderStep::Finished(outcome) => outcome,
            LeaderStep::Continued(next) => {
                aggregation.push(explain("AggregationJobContinueReq", next.request()));
                let answers = self.proceed(next.request()).unwrap();
                let answer = wire.encode_aggregation_job_resp(&answers).unwrap();
                aggregation.push(explain("AggregationJobResp", &answer));
                leader.finish_continued(next, &answer).unwrap()
            }
        };
        assert_eq!(outcome.refused, []);
        let configuration = &parameters.task_configuration;
        json!({
            "task": {
                "task_id": hex(self.task.id().as_bytes()),
                "task_configuration": explain("TaskConfiguration", configuration),
                "vdaf": parameters.vdaf,
                "vdaf_verify_key": hex(self.task.verify_key.as_bytes()),
                "vdaf_context": hex(&DapVersion::V18.vdaf_context(self.task.id())),
                "helper_clock": NOW,
                "leader": key(&keypair(LEADER_KEY)),
                "helper": key(&keypair(HELPER_KEY)),
                "collector": key(&keypair(COLLECTOR_KEY)),
            },
            "reports": explained,
            "aggregation_job": aggregation,
            "collection": self.collect(&param, &batch, &outcome),
        })
    }

    fn collect(
        &self,
        param: &AggregationParam,
        batch: &BatchSelector,
        outcome: &LeaderOutcome,
    ) -> Value {
        let (agg_param, wire) = (param.encode(), self.task.parameters.wire());
        let (mut count, mut checksum, mut mine) = (0, Checksum::default(), Vec::new());
        for slice in outcome.accepted.values() {
            count += slice.report_count;
            checksum.merge(&slice.checksum);
            if mine.is_empty() {
                mine = slice.share.encode();
            } else {
                let field = self.task.vdaf.field().at(&agg_param);
                share::add_assign(field, &mut mine, &slice.share.encode()).unwrap();
            }
        }
        let job = wire.share_binding(&agg_param, batch).unwrap();
        let request = wire
            .encode_aggregate_share_request(&AggregateShareRequest {
                batch_selector: *batch,
                collected: *batch,
                agg_param: &agg_param,
                report_count: count,
                checksum: *checksum.as_bytes(),
                share_binding: (&job).into(),
            })
            .unwrap();
        let answer = self.share(&request).unwrap();
        let configuration = &self.task.parameters.task_configuration;
        let task = CollectorTask {
            task_id: self.task.id(),
            version: DapVersion::V18,
            task_configuration: configuration,
        };
        let collector_key = keypair(COLLECTOR_KEY);
        let open = |role, share: &[u8]| {
            let share = HpkeCiphertext::decode(share).unwrap();
            task.open_share(&collector_key, role, &job, share).unwrap()
        };
        let helpers = open(Role::Helper, &answer);
        // The helper draws its own randomness; this is the share with some that is known.
        let aad = aggregate_share_aad(self.task.id(), configuration, &job);
        let seal = |role, share: &[u8], seed: &[u8; 32]| {
            let info = hpke::aggregate_share_info(DapVersion::V18, role);
            let sealed = hpke::seal(collector_key.config(), &info, &aad, share, seed).unwrap();
            let encoded = sealed.as_ref().encode().unwrap();
            assert_eq!(open(role, &encoded), share);
            json!({
                "aggregate_share": hex(share),
                "hpke_info": hex(&info),
                "hpke_ephemeral_ikm": hex(seed),
                "encrypted": explain("AggregateShare", &encoded),
            })
        };
        let result = collector::unshard(&self.task.vdaf, param, &mine, &helpers, count).unwrap();
        json!({
            "collection_job_req": explain("CollectionJobReq", &job),
            "aggregate_share_req": explain("AggregateShareReq", &request),
            "aggregate_share_aad": explain("AggregateShareAad", &aad),
            "leader": seal(Role::Leader, &mine, &[0xa1; 32]),
            "helper": seal(Role::Helper, &helpers, &[0xa2; 32]),
            "report_count": count,
            "aggregate_result": result,
        })
    }
}

/// The shares that an exchange's file has.
pub fn recorded(exchange: &Value) -> Vec<Shares> {
    let reports = exchange["reports"].as_array().expect("reports");
    let shares = reports.iter().map(|report| Shares {
        public: bytes(&report["public_share"]),
        leader: bytes(&report["leader_input_share"]),
        helper: bytes(&report["helper_input_share"]),
    });
    shares.collect()
}
