//! A task of Poplar1 on objects in memory, with the messages of its clients, leader and collector.

use std::{cell::Cell, collections::BTreeMap};

use daphne_core::{
    aggregate::commit::{self, JobIdentity},
    aggregate::helper::{BytesVerdict, HelperJob, HpkeKeyring, OpenAndVerify, Verifier},
    aggregate::leader::{LeaderContinuation, LeaderJob, LeaderOutcome, LeaderStep, LeaderTask},
    aggregate::rounds::{self, Continuation},
    batch::{BatchBucket, BatchMode, Checksum},
    collect::collector::{self, CollectorTask},
    collect::helper::collect_request,
    configuration::{self, Agreement},
    error::{AbortKind, Error, ReportError},
    hpke::{HpkeKem, HpkeKeypair, Role},
    ids::{AggregationJobId, BatchId, HpkeConfigId},
    message::{
        AggregateShareRequest, BatchSelector, HpkeCiphertext, PartialBatchSelector, Report,
        VerifyInit, VerifyResp, VerifyRespResult,
    },
    seal::TokenHash,
    store::Objects,
    store::message::{LedgerRequest, LedgerResponse},
    store::placement::ShardKey,
    task::{Task, TaskRole, TaskSpec},
    testing::memory::MemoryCluster,
    time::{Duration, Time},
    upload::client::{ClientTask, ReportRandomness},
    vdaf::{AggregateResult, AggregationParam, BitString, Measurement, Vdaf, VdafConfig, share},
    version::DapVersion,
    wire::Wire,
};
use futures::{FutureExt, executor::block_on};
use sha2::{Digest, Sha256};

pub const NOW: u64 = 1_700_000_000;
pub const PRECISION: u64 = 3_600;
pub const BITS: u16 = 6;
pub const BUCKET: u64 = NOW - NOW % PRECISION;

pub struct World {
    pub cluster: MemoryCluster,
    pub task: Task,
    pub keys: HpkeKeyring,
    pub leader_keys: HpkeKeypair,
    pub collector_keys: HpkeKeypair,
    pub now: u64,
    pub verified: Counted,
}

/// Verifies reports and counts them.
#[derive(Debug, Default)]
pub struct Counted(pub Cell<usize>);

impl Verifier for Counted {
    fn verify(
        &self,
        task: &Task,
        keys: &HpkeKeyring,
        agg_param: &AggregationParam,
        report: &VerifyInit<'_>,
    ) -> BytesVerdict {
        self.0.set(self.0.get() + 1);
        OpenAndVerify.verify(task, keys, agg_param, report)
    }
}

/// What the leader counts of the one batch.
#[derive(Default)]
pub struct Books {
    pub report_count: u64,
    pub checksum: Checksum,
    pub share: Vec<u8>,
}

pub type Answer = Result<Vec<VerifyResp>, Error>;

pub type Shape = (DapVersion, BatchMode, Option<u32>);

/// Whole tasks and groups; with an interval, and with a batch.
pub const fn shapes(version: DapVersion) -> [Shape; 3] {
    [
        (version, BatchMode::TimeInterval, Some(0)),
        (version, BatchMode::TimeInterval, Some(1)),
        (version, BatchMode::LeaderSelected, None),
    ]
}

/// Where a report is aggregated once at each level, and only downwards.
pub const SHAPES: [Shape; 3] = shapes(DapVersion::V09);
/// Where it is aggregated once.
pub const ONCE: [Shape; 3] = shapes(DapVersion::V18);

pub fn all() -> impl Iterator<Item = Shape> {
    SHAPES.into_iter().chain(ONCE)
}

impl World {
    pub fn new(shape: Shape) -> Self {
        Self::with_bits(shape, BITS)
    }

    pub fn with_bits((version, batch_mode, buckets_per_group): Shape, bits: u16) -> Self {
        let key = |id, ikm| {
            HpkeKeypair::derive(HpkeConfigId(id), HpkeKem::X25519HkdfSha256, &[ikm; 32]).unwrap()
        };
        let vdaf = VdafConfig::Poplar1 { bits };
        let key_len = Vdaf::new(version.vdaf_draft(), vdaf).unwrap().verify_key_len();
        let mut spec = TaskSpec {
            task_id: None,
            version,
            role: TaskRole::Helper,
            task_configuration: Vec::new(),
            batch_mode,
            max_batch_size: None,
            vdaf,
            verify_key: vec![1; key_len],
            leader_token: None,
            leader_token_hash: Some(TokenHash::of("token")),
            collector_hpke_config: key(7, 7).config().clone(),
            min_batch_size: 2,
            time_precision: Duration::from_seconds(PRECISION),
            max_batch_query_count: if version.aggregates_once() { 1 } else { u64::from(BITS) },
            task_expiration: None,
            report_expiry_age: Duration::from_seconds(14 * 86_400),
            tolerable_clock_skew: Duration::from_seconds(300),
            shards: 3,
            buckets_per_group,
        };
        if version.has_configuration() {
            let agreement = Agreement {
                task_info: b"strings",
                leader_url: "https://leader.example/",
                helper_url: "https://helper.example/",
                task_interval: None,
            };
            spec.task_configuration = configuration::encode(&spec, &agreement).unwrap();
        }
        let cluster = MemoryCluster::new();
        cluster.set_time(NOW);
        Self {
            cluster,
            task: spec.check(1).unwrap(),
            keys: HpkeKeyring::new(vec![key(3, 3)]),
            leader_keys: key(4, 4),
            collector_keys: key(7, 7),
            now: NOW,
            verified: Counted::default(),
        }
    }

    pub fn wire(&self) -> Wire {
        self.task.parameters.wire()
    }

    pub fn encode(&self, answers: &[VerifyResp]) -> Vec<u8> {
        self.wire().encode_aggregation_job_resp(answers).unwrap()
    }

    pub fn report(&self, id: u8, string: &str) -> Vec<u8> {
        let client = ClientTask {
            version: self.task.parameters.version,
            task_configuration: self.task.parameters.task_configuration.clone(),
            task_id: *self.task.id(),
            vdaf: self.task.vdaf.clone(),
            time_precision: Duration::from_seconds(PRECISION),
            leader_hpke_config: self.leader_keys.config().clone(),
            helper_hpke_config: self.keys.published().next().unwrap().clone(),
        };
        let random =
            ReportRandomness { report_id: [id; 16], leader_seed: [id; 32], helper_seed: [!id; 32] };
        let measurement = Measurement::Poplar1(string.parse().unwrap());
        client.report(&measurement, Time::from_seconds(NOW - 10), &random).unwrap()
    }

    /// Reports 1, 2, … of these strings.
    pub fn reports(&self, strings: &[&str]) -> Vec<Vec<u8>> {
        (1..).zip(strings).map(|(id, string)| self.report(id, string)).collect()
    }

    pub fn param(&self, prefixes: &[&str]) -> AggregationParam {
        let prefixes: Vec<BitString> = prefixes.iter().map(|p| p.parse().unwrap()).collect();
        self.task.vdaf.prefixes(&prefixes).unwrap()
    }

    pub fn leader(&self) -> LeaderTask {
        LeaderTask {
            version: self.task.parameters.version,
            task_configuration: self.task.parameters.task_configuration.clone(),
            task_id: *self.task.id(),
            vdaf: self.task.vdaf.clone(),
            verify_key: self.task.verify_key.clone(),
            time_precision: Duration::from_seconds(PRECISION),
        }
    }

    pub fn batch(&self) -> (PartialBatchSelector, BatchSelector) {
        match self.task.parameters.batch_mode {
            BatchMode::TimeInterval => (
                PartialBatchSelector::TimeInterval,
                BatchSelector::TimeInterval {
                    start: Time::from_seconds(BUCKET),
                    duration: Duration::from_seconds(PRECISION),
                },
            ),
            BatchMode::LeaderSelected => {
                let id = BatchId::new([8; 32]);
                (PartialBatchSelector::LeaderSelected(id), BatchSelector::LeaderSelected(id))
            }
        }
    }

    pub fn begin(&self, param: &AggregationParam, reports: &[Vec<u8>]) -> LeaderJob {
        let reports: Vec<Report<'_>> =
            reports.iter().map(|r| self.wire().report(r).unwrap()).collect();
        let begun = self.leader().begin_job(&self.leader_keys, param, self.batch().0, &reports);
        let (job, refused) = begun.unwrap();
        assert_eq!(refused, []);
        job.unwrap()
    }

    pub fn put(&self, job: u8, body: &[u8]) -> Answer {
        put_to(&self.cluster, &self.task, &self.keys, &self.verified, job, body)
    }

    pub fn post(&self, job: u8, body: &[u8]) -> Answer {
        let continuation = Continuation {
            task: &self.task,
            job: AggregationJobId::new([job; 16]),
            shard_key: ShardKey::new([5; 16]),
            now: Time::from_seconds(self.now),
            request: &self.wire().aggregation_job_continue(body)?,
            digest: Sha256::digest(body).into(),
        };
        block_on(rounds::continue_job(&self.cluster, &continuation))
    }

    /// The request that began a job that was continued is refused, or answered with where the job is now (DAP-18 §4.5.3.2).
    pub fn assert_continued(&self, again: Answer, last: &[VerifyResp]) {
        match self.task.parameters.version.aggregates_once() {
            false => assert_eq!(refusal(again), AbortKind::Conflict),
            true => assert_eq!(again.unwrap(), last),
        }
    }

    pub fn delete(&self, job: u8) {
        let job = AggregationJobId::new([job; 16]);
        let key = ShardKey::new([5; 16]);
        block_on(rounds::forget(&self.cluster, &self.task, &key, &job)).unwrap();
    }

    /// The first round: the leader's next request.
    pub fn first_round(
        &self,
        job: u8,
        param: &AggregationParam,
        reports: &[Vec<u8>],
    ) -> LeaderContinuation {
        let begun = self.begin(param, reports);
        let answer = self.encode(&self.put(job, begun.request()).unwrap());
        match self.leader().proceed(begun, &answer).unwrap() {
            LeaderStep::Continued(continuation) => continuation,
            LeaderStep::Finished(outcome) => panic!("finished too early: {outcome:?}"),
        }
    }

    /// A whole job. It ends with its first round if nothing is left of it then.
    pub fn run(&self, job: u8, param: &AggregationParam, reports: &[Vec<u8>]) -> LeaderOutcome {
        let begun = self.begin(param, reports);
        let answer = self.encode(&self.put(job, begun.request()).unwrap());
        match self.leader().proceed(begun, &answer).unwrap() {
            LeaderStep::Continued(continuation) => {
                let answer = self.encode(&self.post(job, continuation.request()).unwrap());
                self.leader().finish_continued(continuation, &answer).unwrap()
            }
            LeaderStep::Finished(outcome) => outcome,
        }
    }

    pub fn book(&self, books: &mut Books, param: &AggregationParam, outcome: LeaderOutcome) {
        let field = self.task.vdaf.field().at(&param.encode());
        for slice in outcome.accepted.values() {
            books.report_count += slice.report_count;
            books.checksum.merge(&slice.checksum);
            let mine = slice.share.encode();
            if books.share.is_empty() {
                books.share = mine;
            } else {
                share::add_assign(field, &mut books.share, &mine).unwrap();
            }
        }
    }

    /// The leader asks for the helper's share of the batch, and the collector adds both up.
    pub fn collect(
        &self,
        param: &AggregationParam,
        books: &Books,
    ) -> Result<AggregateResult, AbortKind> {
        let (encoded, batch) = (param.encode(), self.batch().1);
        let binding = self.task.parameters.wire().share_binding(&encoded, &batch).unwrap();
        let request = AggregateShareRequest {
            batch_selector: batch,
            collected: batch,
            agg_param: &encoded,
            report_count: books.report_count,
            checksum: *books.checksum.as_bytes(),
            share_binding: (&binding).into(),
        };
        let digest = Sha256::new()
            .chain_update(&encoded)
            .chain_update(books.report_count.to_be_bytes())
            .finalize();
        let collect = collect_request(&self.task, &request, digest.into()).unwrap();
        let ask = LedgerRequest::Collect(Box::new(collect));
        match block_on(self.cluster.ledger(self.task.id(), ask)).unwrap() {
            LedgerResponse::Share(share) => {
                let share = HpkeCiphertext::decode(&share).unwrap();
                let parameters = &self.task.parameters;
                let task = CollectorTask {
                    task_id: self.task.id(),
                    version: parameters.version,
                    task_configuration: &parameters.task_configuration,
                };
                let share = task.open_share(&self.collector_keys, Role::Helper, &binding, share);
                let vdaf = &self.task.vdaf;
                Ok(collector::unshard(
                    vdaf,
                    param,
                    &books.share,
                    &share.unwrap(),
                    books.report_count,
                )
                .unwrap())
            }
            LedgerResponse::Refused(abort) => Err(abort.kind),
            other => panic!("a collection was answered with {other:?}"),
        }
    }

    /// Reports that count at the helper.
    pub fn held(&self) -> BTreeMap<(BatchBucket, Vec<u8>), u32> {
        let mut held = BTreeMap::new();
        for (_, tables) in self.cluster.stores_of(self.task.id()) {
            for row in tables.jobs() {
                for slice in &row.head.slices {
                    *held.entry((slice.bucket, row.head.param.clone())).or_default() +=
                        slice.report_count;
                }
            }
        }
        held
    }
}

/// A request that begins a job, handled by a Worker of this cluster.
pub fn put_to(
    cluster: &MemoryCluster,
    task: &Task,
    keys: &HpkeKeyring,
    verifier: &dyn Verifier,
    job: u8,
    body: &[u8],
) -> Answer {
    let init = task.parameters.wire().aggregation_job_init(body)?;
    let helper = HelperJob::new(task, keys, Time::from_seconds(NOW), &init)?.verified_by(verifier);
    let identity = JobIdentity {
        job: AggregationJobId::new([job; 16]),
        digest: Sha256::digest(body).into(),
        shard_key: ShardKey::new([5; 16]),
    };
    // Objects in memory answer at once; this may run while another request does.
    commit::run(cluster, &identity, &helper).now_or_never().expect("an answer")
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

pub fn refusal(answer: Answer) -> AbortKind {
    match answer {
        Err(Error::Abort(abort)) => abort.kind,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

pub const STRINGS: [&str; 9] =
    ["110100", "110100", "110100", "001111", "001111", "110101", "000000", "111111", "101010"];
