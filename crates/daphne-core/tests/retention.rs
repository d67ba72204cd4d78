//! What is forgotten, when, and that forgetting never opens a replay: on objects in memory, with real clients' and
//! leaders' messages.
#![cfg(not(target_arch = "wasm32"))]

use std::collections::BTreeMap;

use daphne_core::{
    aggregate::{
        commit::{self, JobIdentity},
        helper::{HelperJob, HpkeKeyring},
        leader::{LeaderJob, LeaderTask},
    },
    batch::{BatchMode, BucketRange},
    error::{Error, ReportError},
    hpke::{HpkeKem, HpkeKeypair},
    ids::{AggregationJobId, BatchId, HpkeConfigId},
    message::{AggregationJobInit, PartialBatchSelector, Report, VerifyResp, VerifyRespResult},
    seal::TokenHash,
    store::{
        Objects,
        aggregate_store::AggregateStore,
        job_store,
        message::{
            AggregateStoreRequest, AggregateStoreResponse as Answer, JobStoreRequest,
            JobStoreResponse, LedgerRequest, LedgerResponse, LedgerStatus, StoreAction,
        },
        placement::{Group, Placement, ShardKey, StoreId},
    },
    task::{Task, TaskRole, TaskSpec},
    testing::{
        conformance::{ONLY, Subject, begin, begun_but, commit, job, slice, window, windows},
        memory::{Fate, MemoryAggregateTables, MemoryCluster, MemoryDatabase, MemoryJobTables},
    },
    time::{Duration, Time},
    upload::client::{ClientTask, ReportRandomness},
    vdaf::{FieldKind, Measurement, VdafConfig},
    version::DapVersion,
    wire::v09,
};
use futures::executor::block_on;
use sha2::{Digest, Sha256};

const DAY: u64 = 86_400;
const RETENTION: u64 = 14 * DAY;
/// The start of an epoch.
const NOW: u64 = 1_405 * RETENTION;
const PRECISION: u64 = 3_600;

// --- Stores by themselves --------------------------------------------------------------------

/// Buckets of 100 s, and a retention of 10,000 s.
fn subject(cluster: &MemoryCluster, mode: BatchMode, buckets: u32) -> Subject<'_, MemoryCluster> {
    let mut s = Subject::new(cluster, "retention", mode, 1, buckets);
    s.placement.retention = Duration::from_seconds(10_000);
    s
}

fn status(s: &Subject<'_, MemoryCluster>) -> LedgerStatus {
    block_on(s.status())
}

/// A store of the group of windows 0 to 9, registered, with jobs 1 (window 0) and 2 (window 1).
fn group_of(cluster: &MemoryCluster) -> (Subject<'_, MemoryCluster>, StoreId, u64) {
    let s = subject(cluster, BatchMode::TimeInterval, 10);
    let store = StoreId { group: Group::Run(0), shard: 0 };
    let mut first = commit(1, vec![slice(window(0), &[1, 2])]);
    first.open = Some(block_on(s.open_store(store)));
    assert_eq!(block_on(s.commit(store, first)), Answer::Committed(vec![]));
    let second = commit(2, vec![slice(window(1), &[3, 4, 5])]);
    assert_eq!(block_on(s.commit(store, second)), Answer::Committed(vec![]));
    let deadline = s.placement.group_deadline(store.group).unwrap().as_seconds();
    assert_eq!(deadline, 10 * 100 + 10_000 + DAY);
    (s, store, deadline)
}

fn alarms(cluster: &MemoryCluster, s: &Subject<'_, MemoryCluster>) {
    block_on(cluster.run_store_alarms(&s.placement.task_id)).unwrap();
}

#[test]
fn a_group_is_forgotten_at_its_deadline_and_what_was_not_collected_is_counted() {
    let cluster = MemoryCluster::new();
    let (s, _, deadline) = group_of(&cluster);
    let collect = s.collection(1, windows(0, 1), &[1, 2]);
    let answer = block_on(s.collect(&collect));
    assert_eq!(s.open(&collect, &answer), 3);
    cluster.set_time(deadline - 1);
    alarms(&cluster, &s);
    assert_eq!(cluster.stores_of(&s.placement.task_id).len(), 1, "a second too early");
    let before = status(&s);
    assert_eq!((before.collections, before.collected_reports, before.expired_reports), (1, 2, 0));
    cluster.set_time(deadline);
    alarms(&cluster, &s);
    assert_eq!(cluster.stores_of(&s.placement.task_id).len(), 0);
    // What the store counted is not forgotten with it.
    let batches = Vec::new();
    assert_eq!(status(&s), LedgerStatus { expired_reports: 3, batches, ..before });
    // A collection is answered for ever, and what is gone is not collectable.
    assert_eq!(block_on(s.collect(&collect)), answer);
    let gone = s.collection(2, windows(1, 1), &[3, 4, 5]);
    assert!(matches!(block_on(s.collect(&gone)), LedgerResponse::Refused(_)));
}

#[test]
fn what_comes_after_the_end_creates_nothing() {
    let cluster = MemoryCluster::new();
    let (s, store, deadline) = group_of(&cluster);
    cluster.set_time(deadline);
    alarms(&cluster, &s);
    let registered = Some(Vec::new());
    let late = |open| {
        let mut c = commit(9, vec![slice(window(0), &[1])]);
        c.open = open;
        block_on(s.commit(store, c))
    };
    assert_eq!(late(registered), Answer::Expired);
    assert_eq!(late(None), Answer::Expired);
    let begun = StoreAction::Begin(begin(Some(1), &[(1, 7)]));
    assert_eq!(block_on(s.ask(store, begun)), Answer::Expired);
    assert_eq!(block_on(s.ask(store, StoreAction::Thaw { attempt: 1 })), Answer::Done);
    assert_eq!(block_on(s.ask(store, StoreAction::KnowsJob(job(1)))), Answer::Known(false));
    assert_eq!(block_on(s.gather(store, windows(0, 10))), Default::default());
    let (placement, field) = (s.placement, FieldKind::F64);
    let open = LedgerRequest::Open { placement, field, store };
    assert_eq!(block_on(s.ask_ledger(open)), LedgerResponse::Expired);
    assert_eq!(cluster.stores_of(&s.placement.task_id).len(), 0);
    assert_eq!(status(&s).expired_reports, 5);
}

#[test]
fn a_frozen_range_postpones_the_end() {
    let cluster = MemoryCluster::new();
    let (s, store, deadline) = group_of(&cluster);
    assert_eq!(block_on(s.freeze(store, 1, windows(0, 1))), Answer::Frozen);
    cluster.set_time(deadline);
    alarms(&cluster, &s);
    assert_eq!(cluster.stores_of(&s.placement.task_id).len(), 1);
    assert_eq!(status(&s).expired_reports, 0);
    // The attempt was decided after all: its reports are not lost.
    assert_eq!(block_on(s.seal(store, 1, windows(0, 1), vec![])), Answer::Done);
    alarms(&cluster, &s);
    assert_eq!(cluster.stores_of(&s.placement.task_id).len(), 0);
    assert_eq!(status(&s).expired_reports, 3);
}

/// The ledger did not hear of it, or was not heard: nothing is forgotten uncounted, or counted twice.
#[test]
fn a_store_that_is_cut_off_while_it_takes_its_leave_does_it_again() {
    for fate in [Fate::RequestLost, Fate::AnswerLost] {
        for forget in [false, true] {
            let cluster = MemoryCluster::new();
            let (s, store, deadline) = group_of(&cluster);
            let ask = |reports: &[(u8, u8)]| {
                block_on(s.ask(store, StoreAction::Begin(begin(Some(1), reports))))
            };
            assert_eq!(ask(&[(1, 7)]), begun_but(&[]));
            cluster.set_time(deadline);
            cluster.fate_of_call(cluster.calls(), fate);
            alarms(&cluster, &s);
            assert_eq!(cluster.stores_of(&s.placement.task_id).len(), 1);
            if forget {
                cluster.reset_stores();
                cluster.reset_ledgers();
            }
            // What was counted must not change any more; a repeat of what is recorded is still answered.
            let late = commit(9, vec![slice(window(0), &[9])]);
            assert_eq!(block_on(s.commit(store, late)), Answer::Expired);
            let repeat = commit(1, vec![slice(window(0), &[1, 2])]);
            assert_eq!(block_on(s.commit(store, repeat)), Answer::Committed(vec![]));
            assert_eq!(ask(&[(1, 7)]), begun_but(&[]));
            assert_eq!(ask(&[(1, 8)]), begun_but(&[1]));
            assert_eq!(ask(&[(1, 7), (2, 7)]), Answer::Expired);
            assert_eq!(block_on(s.freeze(store, 1, windows(0, 1))), Answer::Stale);
            alarms(&cluster, &s);
            assert_eq!(cluster.stores_of(&s.placement.task_id).len(), 0);
            assert_eq!(status(&s).expired_reports, 5, "{fate:?} {forget}");
        }
    }
}

#[test]
fn epochs_of_the_whole_task_go_one_by_one() {
    let cluster = MemoryCluster::new();
    let s = subject(&cluster, BatchMode::LeaderSelected, 0);
    let batch = |n| daphne_core::batch::BatchBucket::Batch(BatchId::new([n; 32]));
    let put = |n, b, ids: &[u8]| block_on(s.commit(ONLY, commit(n, vec![slice(batch(b), ids)])));
    // Epochs are at least a day.
    cluster.set_time(DAY - 1);
    assert_eq!(put(1, 1, &[1, 2]), Answer::Committed(vec![]));
    assert_eq!(put(2, 2, &[3]), Answer::Committed(vec![]));
    cluster.set_time(DAY);
    assert_eq!(put(3, 1, &[4]), Answer::Committed(vec![]));
    let collect = s.collection(1, BucketRange::Batch(BatchId::new([1; 32])), &[1, 2, 4]);
    let answer = block_on(s.collect(&collect));
    assert_eq!(s.open(&collect, &answer), 7);

    let first = s.placement.epoch_deadline(0).as_seconds();
    cluster.set_time(first - 1);
    alarms(&cluster, &s);
    assert!(matches!(put(4, 2, &[3]), Answer::Replayed { .. }), "a second too early");
    cluster.set_time(first);
    alarms(&cluster, &s);
    assert_eq!(status(&s).expired_reports, 1, "batch 1 was collected");
    assert_eq!(block_on(s.ask(ONLY, StoreAction::KnowsJob(job(1)))), Answer::Known(false));
    // The newer epoch protects as before, and what is collected stays so.
    assert_eq!(block_on(s.ask(ONLY, StoreAction::KnowsJob(job(3)))), Answer::Known(true));
    assert!(matches!(put(5, 2, &[4]), Answer::Replayed { .. }));
    assert!(matches!(put(6, 1, &[50]), Answer::Collected(_)));
    let tables = &cluster.stores_of(&s.placement.task_id)[0].1;
    assert_eq!(tables.epochs.keys().collect::<Vec<_>>(), [&1]);
    cluster.set_time(first + DAY);
    alarms(&cluster, &s);
    assert_eq!(status(&s).expired_reports, 1);
    let tables = &cluster.stores_of(&s.placement.task_id)[0].1;
    assert!(tables.epochs.is_empty() && tables.generations.is_empty());
}

/// What began is known for as long as what counts.
#[test]
fn what_began_is_forgotten_with_its_epoch() {
    let cluster = MemoryCluster::new();
    let s = subject(&cluster, BatchMode::LeaderSelected, 0);
    let ask =
        |reports: &[(u8, u8)]| block_on(s.ask(ONLY, StoreAction::Begin(begin(Some(1), reports))));
    cluster.set_time(DAY - 1);
    assert_eq!(ask(&[(1, 7), (2, 7)]), begun_but(&[]));
    cluster.set_time(DAY);
    assert_eq!(ask(&[(2, 7), (3, 7)]), begun_but(&[]));
    let first = s.placement.epoch_deadline(0).as_seconds();
    cluster.set_time(first - 1);
    alarms(&cluster, &s);
    assert_eq!(ask(&[(1, 8), (2, 8), (3, 8)]), begun_but(&[1, 2, 3]), "a second too early");
    cluster.set_time(first);
    alarms(&cluster, &s);
    cluster.reset_stores();
    assert_eq!(ask(&[(3, 8)]), begun_but(&[3]), "the newer epoch protects as before");
    let tables = &cluster.stores_of(&s.placement.task_id)[0].1;
    assert_eq!(tables.begun.values().map(Vec::len).collect::<Vec<_>>(), [2], "of report 3");
    cluster.set_time(first + DAY);
    alarms(&cluster, &s);
    let tables = &cluster.stores_of(&s.placement.task_id)[0].1;
    assert!(tables.epochs.is_empty() && tables.begun.is_empty());
}

#[test]
fn a_job_store_drops_its_epochs() {
    let cluster = MemoryCluster::new();
    let s = subject(&cluster, BatchMode::TimeInterval, 10);
    let ask = |request| block_on(cluster.job_store(&s.placement, 0, request)).unwrap();
    let claim = |n, digest| {
        ask(JobStoreRequest::Claim {
            placement: s.placement,
            job: job(n),
            digest: [digest; 32],
            unasked: vec![],
        })
    };
    cluster.set_time(0);
    claim(1, 1);
    cluster.set_time(2 * DAY);
    claim(2, 2);
    assert_eq!(claim(1, 9), JobStoreResponse::Conflict);
    let first = s.placement.epoch_deadline(0).as_seconds();
    cluster.set_time(first - 1);
    alarms(&cluster, &s);
    assert_eq!(ask(JobStoreRequest::Knows(job(1))), JobStoreResponse::Known(true));
    cluster.set_time(first);
    alarms(&cluster, &s);
    assert_eq!(ask(JobStoreRequest::Knows(job(1))), JobStoreResponse::Known(false));
    assert_eq!(ask(JobStoreRequest::Knows(job(2))), JobStoreResponse::Known(true));
    assert_eq!(claim(2, 9), JobStoreResponse::Conflict);
}

/// An object may live in memory for longer than an epoch, and may be cut off between a change and its alarm.
#[test]
fn what_has_a_deadline_asks_to_be_woken() {
    let cluster = MemoryCluster::new();
    let s = subject(&cluster, BatchMode::TimeInterval, 0);
    let store = AggregateStore::new(MemoryDatabase::<MemoryAggregateTables>::default());
    let put = |n: u8, now: u64| {
        let request = AggregateStoreRequest {
            placement: s.placement,
            store: ONLY,
            field: FieldKind::F64,
            action: StoreAction::Commit(commit(n, vec![slice(window(0), &[n])])),
        };
        store.handle(request, Time::from_seconds(now), [0; 16]).unwrap().wake
    };
    let first = s.placement.epoch_deadline(0);
    assert_eq!(put(1, 0), Some(first));
    for at in [first, first.saturating_add(Duration::from_seconds(1))] {
        block_on(store.alarm(&cluster, at)).unwrap();
    }
    let now = first.as_seconds() + 100;
    let second = s.placement.epoch_deadline(s.placement.epoch(Time::from_seconds(now)));
    assert_eq!(put(2, now), Some(second), "its last epoch was over, and a new one began");

    let jobs = MemoryDatabase::<MemoryJobTables>::default();
    let claim = |n, now| {
        let (placement, digest, unasked) = (s.placement, [n; 32], vec![]);
        let request = JobStoreRequest::Claim { placement, job: job(n), digest, unasked };
        job_store::handle(&jobs, request, Time::from_seconds(now)).unwrap().wake
    };
    assert_eq!(claim(1, 0), Some(first));
    assert_eq!(claim(2, 1), Some(first), "the first claim may have been cut off");
    assert_eq!(claim(3, 2 * DAY), Some(first), "the oldest epoch is the next to go");
}

// --- Purges --------------------------------------------------------------------------------------

fn purge(s: &Subject<'_, MemoryCluster>) -> LedgerResponse {
    let (placement, field) = (s.placement, FieldKind::F64);
    block_on(s.ask_ledger(LedgerRequest::Purge { placement, field, again: false }))
}

/// A long-lived task has more stores than one request can reach.
#[test]
fn a_purge_of_many_stores_goes_on_where_it_stopped() {
    let cluster = MemoryCluster::new();
    let s = subject(&cluster, BatchMode::TimeInterval, 1);
    const MANY: u64 = 500;
    for n in 0..MANY {
        let store = StoreId { group: Group::Run(n), shard: 0 };
        let mut c = commit(1, vec![slice(window(n), &[1])]);
        c.open = Some(block_on(s.open_store(store)));
        block_on(s.commit(store, c));
    }
    let task = s.placement.task_id;
    let mut left = cluster.stores_of(&task).len();
    let mut rounds = 0;
    while purge(&s) == LedgerResponse::Busy {
        let now_left = cluster.stores_of(&task).len();
        assert!(now_left < left, "each round gets on");
        left = now_left;
        rounds += 1;
    }
    assert_eq!(cluster.stores_of(&task).len(), 0);
    assert!((1..10).contains(&rounds), "{rounds}");
    assert_eq!(status(&s), LedgerStatus::default());
}

#[test]
fn a_purge_whose_call_is_lost_is_not_done() {
    for buckets in [0, 10] {
        for fate in [Fate::RequestLost, Fate::AnswerLost] {
            for cut in 0.. {
                let cluster = MemoryCluster::new();
                let s = subject(&cluster, BatchMode::TimeInterval, buckets);
                let group = if buckets == 0 { Group::Whole } else { Group::Run(0) };
                let store = StoreId { group, shard: 0 };
                let mut c = commit(1, vec![slice(window(0), &[1])]);
                c.open = Some(block_on(s.open_store(store)));
                block_on(s.commit(store, c));
                // Calls: ledger, store, and the job store, where jobs of several rounds wait whatever the groups.
                let first = cluster.calls() + 1;
                cluster.fate_of_call(first + cut, fate);
                let answer = purge(&s);
                if cluster.calls() <= first + cut {
                    assert_eq!((answer, cut), (LedgerResponse::Done, 2));
                    break;
                }
                assert_eq!(answer, LedgerResponse::Busy, "{buckets} {fate:?} {cut}");
                assert_eq!(purge(&s), LedgerResponse::Done);
                assert_eq!(cluster.stores_of(&s.placement.task_id).len(), 0);
            }
        }
    }
}

/// A request that was under way when the task was purged brings a store back. It ends by itself, and does not bring the
/// ledger back.
#[test]
fn a_store_that_a_late_request_brought_back_ends_by_itself() {
    let cluster = MemoryCluster::new();
    let (s, store, deadline) = group_of(&cluster);
    assert_eq!(purge(&s), LedgerResponse::Done);
    assert_eq!(cluster.stores_of(&s.placement.task_id).len(), 0);
    let late = commit(3, vec![slice(window(0), &[7])]);
    assert_eq!(block_on(s.commit(store, late)), Answer::Committed(vec![]));
    cluster.set_time(deadline);
    alarms(&cluster, &s);
    assert_eq!(cluster.stores_of(&s.placement.task_id).len(), 0);
    assert_eq!(status(&s), LedgerStatus::default());
}

// --- Jobs of a real leader, to a real helper -------------------------------------------------------

struct World {
    cluster: MemoryCluster,
    task: Task,
    keys: HpkeKeyring,
    leader_keys: HpkeKeypair,
}

fn key(id: u8) -> HpkeKeypair {
    HpkeKeypair::derive(HpkeConfigId(id), HpkeKem::X25519HkdfSha256, &[id; 32]).unwrap()
}

/// Groups of an hour, groups of a day, and two ways to have one group.
const SHAPES: [(BatchMode, Option<u32>); 4] = [
    (BatchMode::TimeInterval, Some(1)),
    (BatchMode::TimeInterval, None),
    (BatchMode::TimeInterval, Some(0)),
    (BatchMode::LeaderSelected, None),
];

impl World {
    fn new(shape: (BatchMode, Option<u32>)) -> Self {
        Self::with(VdafConfig::Prio3Count, shape)
    }

    fn with(vdaf: VdafConfig, (mode, buckets_per_group): (BatchMode, Option<u32>)) -> Self {
        let spec = TaskSpec {
            task_id: None,
            version: DapVersion::V09,
            role: TaskRole::Helper,
            task_configuration: Vec::new(),
            batch_mode: mode,
            max_batch_size: None,
            vdaf,
            verify_key: vec![1; 16],
            leader_token: None,
            leader_token_hash: Some(TokenHash::of("token")),
            collector_hpke_config: key(7).config().clone(),
            min_batch_size: 2,
            time_precision: Duration::from_seconds(PRECISION),
            max_batch_query_count: 1,
            task_expiration: None,
            report_expiry_age: Duration::from_seconds(RETENTION),
            // As much as a task may tolerate: the worst for replay protection.
            tolerable_clock_skew: Duration::from_seconds(DAY),
            shards: 1,
            buckets_per_group,
        };
        let cluster = MemoryCluster::new();
        cluster.set_time(NOW);
        Self {
            cluster,
            task: spec.check(1).unwrap(),
            keys: HpkeKeyring::new(vec![key(3)]),
            leader_keys: key(4),
        }
    }

    fn placement(&self) -> Placement {
        self.task.parameters.placement()
    }

    fn report(&self, id: u8, time: u64) -> Vec<u8> {
        let client = ClientTask {
            version: DapVersion::V09,
            task_configuration: Vec::new(),
            task_id: *self.task.id(),
            vdaf: self.task.vdaf.clone(),
            // Unrounded, so that a test can be exact about the clock.
            time_precision: Duration::from_seconds(1),
            leader_hpke_config: self.leader_keys.config().clone(),
            helper_hpke_config: self.keys.published().next().unwrap().clone(),
        };
        let random =
            ReportRandomness { report_id: [id; 16], leader_seed: [id; 32], helper_seed: [!id; 32] };
        let measurement = match self.task.vdaf.config() {
            VdafConfig::Poplar1 { .. } => Measurement::Poplar1("01".parse().unwrap()),
            _ => Measurement::Count(true),
        };
        client.report(&measurement, Time::from_seconds(time), &random).unwrap()
    }

    fn begin(&self, reports: &[Vec<u8>]) -> LeaderJob {
        self.begin_for("0", reports)
    }

    /// A job for this prefix, if the VDAF has any.
    fn begin_for(&self, prefix: &str, reports: &[Vec<u8>]) -> LeaderJob {
        let leader = LeaderTask {
            version: DapVersion::V09,
            task_configuration: Vec::new(),
            task_id: *self.task.id(),
            vdaf: self.task.vdaf.clone(),
            verify_key: self.task.verify_key.clone(),
            time_precision: Duration::from_seconds(PRECISION),
        };
        let batch = match self.task.parameters.batch_mode {
            BatchMode::TimeInterval => PartialBatchSelector::TimeInterval,
            BatchMode::LeaderSelected => {
                PartialBatchSelector::LeaderSelected(BatchId::new([1; 32]))
            }
        };
        let reports: Vec<Report<'_>> =
            reports.iter().map(|r| v09::Report::decode(r).unwrap().into()).collect();
        let agg_param = match self.task.vdaf.config() {
            VdafConfig::Poplar1 { .. } => leader.vdaf.prefixes(&[prefix.parse().unwrap()]).unwrap(),
            _ => leader.vdaf.decode_agg_param(&[]).unwrap(),
        };
        leader.begin_job(&self.leader_keys, &agg_param, batch, &reports).unwrap().0.unwrap()
    }

    /// The helper's answer on a Worker whose clock shows `now`; the objects' clock is the cluster's.
    fn put(&self, job: u8, body: &[u8], now: u64) -> Result<Vec<Option<ReportError>>, Error> {
        let init: AggregationJobInit<'_> = v09::AggregationJobInitReq::decode(body)?.into();
        let helper = HelperJob::new(&self.task, &self.keys, Time::from_seconds(now), &init)?;
        let identity = JobIdentity {
            job: AggregationJobId::new([job; 16]),
            digest: Sha256::digest(body).into(),
            shard_key: ShardKey::new([5; 16]),
        };
        Ok(codes(&block_on(commit::run(&self.cluster, &identity, &helper))?))
    }

    fn alarms(&self) {
        block_on(self.cluster.run_store_alarms(self.task.id())).unwrap();
    }

    /// How many reports each store holds, or knows to have begun.
    fn held(&self) -> BTreeMap<StoreId, usize> {
        let stores = self.cluster.stores_of(self.task.id());
        let held = |t: &MemoryAggregateTables| {
            t.jobs().map(|row| row.ids.len() / 16).sum::<usize>()
                + t.begun.values().map(|row| row.len() / 2).sum::<usize>()
        };
        stores.iter().map(|(id, t)| (*id, held(t))).collect()
    }
}

fn codes(answers: &[VerifyResp]) -> Vec<Option<ReportError>> {
    let code = |a: &VerifyResp| match a.result {
        VerifyRespResult::Reject(e) => Some(e),
        VerifyRespResult::Continue(_) | VerifyRespResult::Finish => None,
    };
    answers.iter().map(code).collect()
}

/// Whatever the clocks, at the second at which a report could be accepted again its id is still known; and the report
/// is refused as too old from the first second on at which its id may be forgotten. What counts does not count again, and
/// what began does not begin otherwise.
#[test]
fn deletion_never_opens_a_replay() {
    for vdaf in [VdafConfig::Prio3Count, VdafConfig::Poplar1 { bits: 2 }] {
        deletion_never_opens_a_replay_of(vdaf);
    }
}

fn deletion_never_opens_a_replay_of(vdaf: VdafConfig) {
    // How far the clocks of Workers are ahead of the objects', when the report comes and when it comes again.
    let day = DAY as i64;
    for shape in SHAPES {
        for (ahead, later_ahead) in [(0, -day), (day, 0), (0, 0), (-day, -day), (day, -day)] {
            for arrives in [NOW, NOW + RETENTION - 1] {
                let w = World::with(vdaf, shape);
                w.cluster.set_time(arrives);
                // As far ahead of its time as it can be.
                let worker = arrives.saturating_add_signed(ahead);
                let time = worker + DAY;
                let first = w.begin_for("0", &[w.report(1, time)]);
                assert_eq!(w.put(1, first.request(), worker).unwrap(), [None]);
                assert_eq!(w.held().values().sum::<usize>(), 1);
                let mut was_forgotten = false;
                // From the last second at which a Worker may find it young enough, by the objects' clock.
                let last = (time + RETENTION).saturating_add_signed(-later_ahead);
                for (n, at) in
                    [last, last + 1, last + 3 * DAY, last + 40 * DAY].into_iter().enumerate()
                {
                    w.cluster.set_time(at);
                    w.alarms();
                    // The same report in another job.
                    let again = w.begin_for("1", &[w.report(1, time)]);
                    let worker = at.saturating_add_signed(later_ahead);
                    let verdict = w.put(2 + n as u8, again.request(), worker).unwrap()[0];
                    let context = format!("{vdaf:?} {shape:?} {ahead} {later_ahead} {arrives} {n}");
                    assert!(verdict.is_some(), "{context}: accepted twice");
                    if n == 0 {
                        assert_eq!(verdict, Some(ReportError::ReportReplayed), "{context}");
                    }
                    if n == 1 {
                        assert_eq!(verdict, Some(ReportError::ReportDropped), "{context}");
                    }
                    was_forgotten = w.held().values().all(|n| *n == 0);
                }
                assert!(was_forgotten, "it is forgotten in the end");
            }
        }
    }
}

/// A job again, when its stores have forgotten it: its reports are too old, and no store comes back.
#[test]
fn a_job_that_comes_again_after_its_stores_ended_is_told_so() {
    for shape in SHAPES {
        let w = World::new(shape);
        let body = w.begin(&[w.report(1, NOW), w.report(2, NOW + 10)]);
        assert_eq!(w.put(1, body.request(), NOW).unwrap(), [None, None]);
        w.cluster.set_time(NOW + RETENTION);
        w.alarms();
        assert_eq!(w.put(1, body.request(), NOW + RETENTION).unwrap(), [None, None]);
        let dropped = [Some(ReportError::ReportDropped); 2];
        if !w.placement().has_time_groups() {
            // All that is recorded is answered as it was, until its epoch is over.
            let end = w.placement().epoch_deadline(w.placement().epoch(Time::from_seconds(NOW)));
            w.cluster.set_time(end.as_seconds());
            w.alarms();
            assert_eq!(w.held().values().sum::<usize>(), 0);
            assert_eq!(w.put(1, body.request(), end.as_seconds()).unwrap(), dropped);
            assert_eq!(w.held().values().sum::<usize>(), 0);
            continue;
        }
        let end = NOW + 2 * DAY + RETENTION;
        w.cluster.set_time(end);
        w.alarms();
        assert_eq!(w.held(), BTreeMap::new());
        // Before and after the job id is forgotten, and from a Worker whose clock is a day behind.
        for at in [end, end + 40 * DAY] {
            w.cluster.set_time(at);
            w.alarms();
            for worker in [at, at - DAY] {
                assert_eq!(w.put(1, body.request(), worker).unwrap(), dropped, "{shape:?} {at}");
                assert_eq!(w.held(), BTreeMap::new(), "nothing is created again");
            }
        }
    }
}

/// A store that was registered and never got its first commit has no alarm, and stays registered. Collections that
/// meet its group go on.
#[test]
fn a_store_that_never_came_to_life_holds_up_no_collection() {
    let cluster = MemoryCluster::new();
    let mut s = Subject::new(&cluster, "phantom", BatchMode::TimeInterval, 1, 10);
    s.placement.retention = Duration::from_seconds(10_000);
    let store = |run| StoreId { group: Group::Run(run), shard: 0 };
    cluster.set_time(500);
    block_on(s.open_store(store(0)));
    let mut c = commit(1, vec![slice(window(10), &[1, 2])]);
    c.open = Some(block_on(s.open_store(store(1))));
    assert_eq!(block_on(s.commit(store(1), c)), Answer::Committed(vec![]));
    let end = |run| s.placement.group_deadline(Group::Run(run)).unwrap().as_seconds();
    cluster.set_time(end(0) + 10);
    assert!(end(0) + 10 < end(1));
    let collect = s.collection(1, windows(0, 20), &[1, 2]);
    let answer = block_on(s.collect(&collect));
    assert_eq!(s.open(&collect, &answer), 3);
    assert!(cluster.stores_of(&s.placement.task_id).iter().all(|(id, _)| *id != store(0)));
}
