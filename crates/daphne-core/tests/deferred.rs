//! Jobs that are answered later, on objects in memory, with a real client's and leader's messages.
#![cfg(not(target_arch = "wasm32"))]

use std::num::NonZeroU64;

use daphne_core::{
    aggregate::{
        commit::JobIdentity,
        deferred::{self, Budget, PIECES_MAX, Reply, Worker},
        helper::{HelperJob, HpkeKeyring},
        leader::{LeaderContinuation, LeaderJob, LeaderStep, LeaderTask},
        rounds::Continuation,
    },
    batch::{BatchMode, Checksum},
    configuration::{self, Agreement},
    error::{AbortKind, Error, Internal, ReportError},
    hpke::{HpkeKem, HpkeKeypair},
    ids::{AggregationJobId, BatchId, HpkeConfigId, ReportId},
    message::{PartialBatchSelector, Report, VerifyResp, VerifyRespResult},
    seal::TokenHash,
    store::{job_store::deferred::Ended, message::DeferredFailure, placement::ShardKey},
    task::{Task, TaskRole, TaskSpec},
    testing::memory::{Fate, MemoryCluster},
    time::{Duration, Time},
    upload::client::{ClientTask, ReportRandomness},
    vdaf::{AggregationParam, Measurement, VdafConfig},
    version::DapVersion,
    wire::Wire,
};
use futures::executor::block_on;
use sha2::{Digest, Sha256};

const NOW: u64 = 1_700_000_000;
const PRECISION: u64 = 3_600;
const DAY: u64 = 86_400;
const VERSION: DapVersion = DapVersion::V18;
const WIRE: Wire = Wire::new(VERSION, Duration::from_seconds(PRECISION));
const KEY: ShardKey = ShardKey::new([5; 16]);
/// Enough for anything in these tests, in one request.
const AMPLE: Budget = Budget::DEFAULT;

/// Whole tasks and groups; with an interval, and with a batch.
const SHAPES: [(BatchMode, Option<u32>); 3] = [
    (BatchMode::TimeInterval, Some(0)),
    (BatchMode::TimeInterval, Some(1)),
    (BatchMode::LeaderSelected, None),
];
const COUNT: VdafConfig = VdafConfig::Prio3Count;
const STRINGS: VdafConfig = VdafConfig::Poplar1 { bits: 4 };

struct World {
    cluster: MemoryCluster,
    task: Task,
    keys: HpkeKeyring,
    leader_keys: HpkeKeypair,
    now: u64,
}

type Answer = Result<Reply, Error>;

impl World {
    fn new(vdaf: VdafConfig, (batch_mode, buckets_per_group): (BatchMode, Option<u32>)) -> Self {
        let key = |id, ikm| {
            HpkeKeypair::derive(HpkeConfigId(id), HpkeKem::X25519HkdfSha256, &[ikm; 32]).unwrap()
        };
        let mut spec = TaskSpec {
            task_id: None,
            version: VERSION,
            task_configuration: Vec::new(),
            role: TaskRole::Helper,
            batch_mode,
            max_batch_size: None,
            verify_key: vec![1; 32],
            vdaf,
            leader_token: None,
            leader_token_hash: Some(TokenHash::of("token")),
            collector_hpke_config: key(7, 7).config().clone(),
            min_batch_size: 2,
            time_precision: Duration::from_seconds(PRECISION),
            max_batch_query_count: 1,
            task_expiration: None,
            report_expiry_age: Duration::from_seconds(14 * DAY),
            tolerable_clock_skew: Duration::from_seconds(300),
            shards: 3,
            buckets_per_group,
        };
        let agreement = Agreement {
            task_info: b"deferred",
            leader_url: "https://leader.example/",
            helper_url: "https://helper.example/",
            task_interval: None,
        };
        spec.task_configuration = configuration::encode(&spec, &agreement).unwrap();
        let cluster = MemoryCluster::new();
        cluster.set_time(NOW);
        Self {
            cluster,
            task: spec.check(1).unwrap(),
            keys: HpkeKeyring::new(vec![key(3, 3)]),
            leader_keys: key(4, 4),
            now: NOW,
        }
    }

    /// Reports of these numbers, half of which count.
    fn reports(&self, numbers: std::ops::Range<u8>) -> Vec<Vec<u8>> {
        let client = ClientTask {
            task_id: *self.task.id(),
            version: VERSION,
            task_configuration: self.task.parameters.task_configuration.clone(),
            vdaf: self.task.vdaf.clone(),
            time_precision: Duration::from_seconds(PRECISION),
            leader_hpke_config: self.leader_keys.config().clone(),
            helper_hpke_config: self.keys.published().next().unwrap().clone(),
        };
        numbers
            .map(|id| {
                let random = ReportRandomness {
                    report_id: [id; 16],
                    leader_seed: [id; 32],
                    helper_seed: [!id; 32],
                };
                let measurement = match self.task.vdaf.config() {
                    VdafConfig::Poplar1 { .. } => {
                        Measurement::Poplar1(["0110", "1010"][usize::from(id % 2)].parse().unwrap())
                    }
                    _ => Measurement::Count(id % 2 == 0),
                };
                // Some of them belong to other groups than the rest.
                let time = Time::from_seconds(NOW - 10 - u64::from(id % 3) * PRECISION);
                client.report(&measurement, time, &random).unwrap()
            })
            .collect()
    }

    fn param(&self) -> AggregationParam {
        match self.task.vdaf.config() {
            VdafConfig::Poplar1 { .. } => {
                self.task.vdaf.prefixes(&["0".parse().unwrap(), "1".parse().unwrap()]).unwrap()
            }
            _ => self.task.vdaf.decode_agg_param(&[]).unwrap(),
        }
    }

    /// A budget of so many reports.
    fn budget(&self, reports: u64) -> Budget {
        Budget::new(self.task.vdaf.effort(&self.param()) * reports).unwrap()
    }

    fn leader(&self) -> LeaderTask {
        LeaderTask {
            task_id: *self.task.id(),
            version: VERSION,
            task_configuration: self.task.parameters.task_configuration.clone(),
            vdaf: self.task.vdaf.clone(),
            verify_key: self.task.verify_key.clone(),
            time_precision: Duration::from_seconds(PRECISION),
        }
    }

    fn begin(&self, reports: &[Vec<u8>]) -> LeaderJob {
        self.begin_for(&self.param(), reports)
    }

    fn begin_for(&self, param: &AggregationParam, reports: &[Vec<u8>]) -> LeaderJob {
        let reports: Vec<Report<'_>> = reports.iter().map(|r| WIRE.report(r).unwrap()).collect();
        let batch = match self.task.parameters.batch_mode {
            BatchMode::TimeInterval => PartialBatchSelector::TimeInterval,
            BatchMode::LeaderSelected => {
                PartialBatchSelector::LeaderSelected(BatchId::new([8; 32]))
            }
        };
        let begun = self.leader().begin_job(&self.leader_keys, param, batch, &reports);
        begun.unwrap().0.unwrap()
    }

    fn create(&self, budget: Budget, job: u8, body: &[u8]) -> Answer {
        let init = WIRE.aggregation_job_init(body)?;
        let now = Time::from_seconds(self.now);
        let helper = HelperJob::of_any_size(&self.task, &self.keys, now, &init)?;
        let digest = Sha256::digest(body).into();
        let identity = JobIdentity { job: job_id(job), digest, shard_key: KEY };
        block_on(deferred::create(&self.cluster, budget, &identity, &helper, body))
    }

    fn proceed(&self, job: u8, body: &[u8]) -> Answer {
        let continuation = Continuation {
            task: &self.task,
            job: job_id(job),
            shard_key: KEY,
            now: Time::from_seconds(self.now),
            request: &WIRE.aggregation_job_continue(body)?,
            digest: Sha256::digest(body).into(),
        };
        block_on(deferred::continue_job(&self.cluster, &continuation, body))
    }

    fn poll(&self, job: u8, step: u16) -> Answer {
        block_on(deferred::poll(&self.cluster, &self.task, &KEY, &job_id(job), step))
    }

    fn delete(&self, job: u8) -> Result<(), Error> {
        block_on(deferred::delete(&self.cluster, &self.task, &KEY, &job_id(job)))
    }

    /// One thing in each job store, if there is anything to do.
    fn work_once(&self) -> (Vec<Ended>, bool) {
        let worker = Worker {
            task: &self.task,
            keys: &self.keys,
            shard_key: KEY,
            now: Time::from_seconds(self.now),
            agreement: None,
        };
        block_on(self.cluster.run_job_store_work(&worker)).unwrap()
    }

    /// All there is to do now.
    fn work(&self) -> Vec<Ended> {
        let mut all = Vec::new();
        loop {
            let (ended, was_busy) = self.work_once();
            all.extend(ended);
            if !was_busy {
                return all;
            }
        }
    }

    fn pass(&mut self, s: u64) {
        self.now += s;
        self.cluster.set_time(self.now);
    }

    /// Reports that count, and their checksum.
    fn held(&self) -> (u64, Checksum) {
        let mut held = (0, Checksum::default());
        for (_, tables) in self.cluster.stores_of(self.task.id()) {
            for slice in tables.jobs().flat_map(|row| row.head.slices.clone()) {
                held.0 += u64::from(slice.report_count);
                held.1.merge(&slice.checksum);
            }
        }
        held
    }

    /// The leader's next request, of these of the reports that wait.
    fn continuation(&self, begun: LeaderJob, answers: &[VerifyResp]) -> LeaderContinuation {
        let answer = WIRE.encode_aggregation_job_resp(answers).unwrap();
        match self.leader().proceed(begun, &answer).unwrap() {
            LeaderStep::Continued(continuation) => continuation,
            LeaderStep::Finished(outcome) => panic!("finished too early: {outcome:?}"),
        }
    }
}

fn job_id(job: u8) -> AggregationJobId {
    AggregationJobId::new([job; 16])
}

fn ready(answer: Answer) -> Vec<VerifyResp> {
    match answer {
        Ok(Reply::Ready(answers)) => answers,
        other => panic!("expected an answer, got {other:?}"),
    }
}

fn later(answer: Answer) -> u16 {
    match answer {
        Ok(Reply::Later { step }) => step,
        other => panic!("expected to be told to come later, got {other:?}"),
    }
}

fn refusal(answer: Answer) -> AbortKind {
    match answer {
        Err(Error::Abort(abort)) => abort.kind,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

fn codes(answers: &[VerifyResp]) -> Vec<Option<ReportError>> {
    answers
        .iter()
        .map(|a| match a.result {
            VerifyRespResult::Reject(e) => Some(e),
            VerifyRespResult::Continue(_) | VerifyRespResult::Finish => None,
        })
        .collect()
}

/// A continuation without the reports for which `keep` says no.
fn without(continuation: &[u8], keep: impl Fn(u8) -> bool) -> Vec<u8> {
    let mut request = WIRE.aggregation_job_continue(continuation).unwrap();
    request.verify_continues.retain(|report| keep(report.report_id.as_bytes()[0]));
    WIRE.encode_aggregation_job_continue(&request).unwrap()
}

#[test]
fn what_is_answered_later_is_what_would_have_been_answered_at_once() {
    for shape in SHAPES {
        let (at_once, w) = (World::new(COUNT, shape), World::new(COUNT, shape));
        let reports = w.reports(1..12);
        // One was aggregated before, one does not open.
        let mut begun = w.begin(&reports).request().to_vec();
        let at = begun.len() - 100;
        begun[at] ^= 1;
        for w in [&at_once, &w] {
            ready(w.create(AMPLE, 9, w.begin(&reports[2..3]).request()));
        }
        let answers = ready(at_once.create(AMPLE, 1, &begun));
        assert_eq!(codes(&answers).iter().flatten().count(), 2);
        assert_eq!(later(w.create(w.budget(2), 1, &begun)), 0);
        assert_eq!(w.held().0, 1, "nothing was done within the request");
        for _ in 0..5 {
            assert_eq!(w.work_once(), (vec![], true));
            assert_eq!(later(w.poll(1, 0)), 0);
        }
        let ended = Ended { job: job_id(1), step: 0, pieces: 6, failure: None };
        assert_eq!(w.work(), [ended]);
        assert_eq!(ready(w.poll(1, 0)), answers);
        assert_eq!(w.held(), at_once.held());
        assert_eq!(refusal(w.poll(1, 1)), AbortKind::StepMismatch);
        assert_eq!(w.work(), [], "it is done");
    }
}

/// Whether it is answered at once or later makes no difference to what a report may be verified for.
#[test]
fn a_report_begins_with_one_parameter_at_once_or_later() {
    for shape in SHAPES {
        let w = World::new(STRINGS, shape);
        let reports = w.reports(1..9);
        let other = w.task.vdaf.prefixes(&["01".parse().unwrap()]).unwrap();
        let (a, b) = (w.begin(&reports), w.begin_for(&other, &reports));
        assert_eq!(codes(&ready(w.create(AMPLE, 1, w.begin(&reports[..3]).request()))), [None; 3]);
        // Later, and otherwise: what began at once is refused, the rest goes on, in all of its pieces.
        assert_eq!(later(w.create(w.budget(2), 2, b.request())), 0);
        w.work();
        let replayed = Some(ReportError::ReportReplayed);
        let first = ready(w.poll(2, 0));
        assert_eq!(codes(&first), [[replayed; 3].as_slice(), &[None; 5]].concat());
        // At once again: the other way round. The leader's giving up makes no difference.
        w.delete(2).unwrap();
        w.work();
        let answers = ready(w.create(AMPLE, 3, a.request()));
        assert_eq!(codes(&answers), [[None; 3].as_slice(), &[replayed; 5]].concat());
        let step = w.continuation(w.begin(&reports), &answers);
        assert_eq!(codes(&ready(w.proceed(3, step.request()))), [None; 3]);
        assert_eq!(w.held().0, 3);
    }
}

#[test]
fn a_repeat_gets_the_current_state_whatever_the_budget_is_by_then() {
    for vdaf in [COUNT, STRINGS] {
        for shape in SHAPES {
            let w = World::new(vdaf, shape);
            let begun = w.begin(&w.reports(1..9));
            let body = begun.request();
            let (small, less) = (w.budget(3), w.budget(1));
            assert_eq!(later(w.create(small, 1, body)), 0);
            for budget in [small, less, AMPLE] {
                assert_eq!(later(w.create(budget, 1, body)), 0);
            }
            w.work_once();
            assert_eq!(later(w.create(AMPLE, 1, body)), 0);
            w.work();
            let answers = ready(w.poll(1, 0));
            assert_eq!(codes(&answers), [None; 8]);
            let held = w.held();
            for budget in [small, less, AMPLE] {
                assert_eq!(ready(w.create(budget, 1, body)), answers);
            }
            // The other way round: what was answered at once stays so.
            let other = w.begin(&w.reports(20..25));
            let answers = ready(w.create(AMPLE, 2, other.request()));
            assert_eq!(ready(w.create(less, 2, other.request())), answers);
            assert_eq!(w.work(), []);
            assert_eq!(w.held().0, held.0 + if vdaf == COUNT { 5 } else { 0 });
            // An id is bound to one body in either case.
            for (job, body) in [(1, other.request()), (2, body)] {
                for budget in [less, AMPLE] {
                    assert_eq!(refusal(w.create(budget, job, body)), AbortKind::Conflict);
                }
            }
        }
    }
}

#[test]
fn a_job_cut_off_at_any_call_comes_to_its_end() {
    for vdaf in [COUNT, STRINGS] {
        for shape in SHAPES {
            let mut cut_off = 0;
            for fate in [Fate::RequestLost, Fate::AnswerLost] {
                for cut in 0.. {
                    let mut w = World::new(vdaf, shape);
                    w.cluster.fate_of_call(cut, fate);
                    let begun = w.begin(&w.reports(1..7));
                    let (body, small) = (begun.request().to_vec(), w.budget(2));
                    let again = |ask: &dyn Fn() -> Answer| match ask() {
                        Err(Error::Internal(Internal::Unavailable(_))) => ask(),
                        answer => answer,
                    };
                    assert_eq!(later(again(&|| w.create(small, 1, &body))), 0);
                    w.work();
                    w.pass(1);
                    w.work();
                    let mut answers = ready(again(&|| w.poll(1, 0)));
                    if vdaf == STRINGS {
                        let next = w.continuation(begun, &answers);
                        assert_eq!(later(again(&|| w.proceed(1, next.request()))), 1);
                        w.work();
                        w.pass(1);
                        w.work();
                        answers = ready(again(&|| w.poll(1, 1)));
                        assert_eq!(ready(again(&|| w.proceed(1, next.request()))), answers);
                    }
                    assert_eq!(codes(&answers), [None; 6]);
                    assert_eq!(w.held().0, 6, "cut {cut} {fate:?}");
                    assert_eq!(ready(again(&|| w.create(small, 1, &body))), answers);
                    if w.cluster.calls() <= cut {
                        break;
                    }
                    cut_off += 1;
                }
            }
            assert!(cut_off > 20, "{cut_off}");
        }
    }
}

#[test]
fn a_step_of_several_pieces_is_taken_like_any_other() {
    for shape in SHAPES {
        let w = World::new(STRINGS, shape);
        let reports = w.reports(1..10);
        let begun = w.begin(&reports);
        let (init, small) = (begun.request().to_vec(), w.budget(2));
        later(w.create(small, 1, &init));
        let at_once = World::new(STRINGS, shape);
        let foreseen = ready(at_once.create(AMPLE, 1, &init));
        let pending = w.continuation(w.begin(&reports), &foreseen);
        // Nobody can have seen the answer that this continues.
        assert_eq!(refusal(w.proceed(1, pending.request())), AbortKind::StepMismatch);
        w.work();
        let first = ready(w.poll(1, 0));
        assert_eq!(first, foreseen);
        let all = w.continuation(begun, &first);
        // Reports 3 and 4 are a piece; 7 is half of one.
        let body = without(all.request(), |id| ![3, 4, 7].contains(&id));
        let reversed = {
            let mut request = WIRE.aggregation_job_continue(&body).unwrap();
            request.verify_continues.reverse();
            WIRE.encode_aggregation_job_continue(&request).unwrap()
        };
        let calls = |step: u16| {
            let mut request = WIRE.aggregation_job_continue(&body).unwrap();
            request.step = step;
            WIRE.encode_aggregation_job_continue(&request).unwrap()
        };
        assert_eq!(refusal(w.proceed(1, &reversed)), AbortKind::InvalidMessage);
        assert_eq!(refusal(w.proceed(1, &calls(0))), AbortKind::InvalidMessage);
        assert_eq!(refusal(w.proceed(1, &calls(2))), AbortKind::StepMismatch);
        assert_eq!(ready(w.poll(1, 0)), first, "the job is as it was");
        assert_eq!(later(w.proceed(1, &body)), 1);
        for _ in 0..2 {
            assert_eq!(later(w.proceed(1, &body)), 1);
            assert_eq!(refusal(w.proceed(1, all.request())), AbortKind::StepMismatch);
            assert_eq!(refusal(w.poll(1, 0)), AbortKind::StepMismatch);
            assert_eq!(later(w.poll(1, 1)), 1);
            assert_eq!(later(w.create(AMPLE, 1, &init)), 1, "the state is the later one");
            w.work_once();
        }
        w.work();
        let last = ready(w.poll(1, 1));
        let ids: Vec<u8> = last.iter().map(|a| a.report_id.as_bytes()[0]).collect();
        assert_eq!(ids, [1, 2, 5, 6, 8, 9]);
        assert!(last.iter().all(|a| a.result == VerifyRespResult::Finish));
        assert_eq!(w.held().0, 6);
        for budget in [small, AMPLE] {
            assert_eq!(ready(w.create(budget, 1, &init)), last);
        }
        assert_eq!(ready(w.proceed(1, &body)), last);
        assert_eq!(refusal(w.proceed(1, all.request())), AbortKind::StepMismatch);
        assert_eq!(refusal(w.proceed(1, &calls(2))), AbortKind::InvalidMessage, "nothing waits");
    }
}

#[test]
fn the_kept_answers_of_a_job_of_several_rounds_can_be_asked_for() {
    let w = World::new(STRINGS, SHAPES[1]);
    let begun = w.begin(&w.reports(1..4));
    assert_eq!(refusal(w.poll(1, 0)), AbortKind::UnrecognizedAggregationJob);
    let init = begun.request().to_vec();
    let first = ready(w.create(AMPLE, 1, &init));
    assert_eq!(ready(w.poll(1, 0)), first);
    assert_eq!(refusal(w.poll(1, 1)), AbortKind::StepMismatch);
    let next = w.continuation(begun, &first);
    let last = ready(w.proceed(1, next.request()));
    assert_eq!(ready(w.poll(1, 1)), last);
    assert_eq!(refusal(w.poll(1, 0)), AbortKind::StepMismatch);
    for budget in [AMPLE, w.budget(1)] {
        assert_eq!(ready(w.create(budget, 1, &init)), last, "the current state, no earlier one");
    }
    w.delete(1).unwrap();
    assert_eq!(refusal(w.poll(1, 1)), AbortKind::UnrecognizedAggregationJob);
}

#[test]
fn who_asks_for_an_answer_that_is_not_kept_is_told_how_to_get_it() {
    for shape in SHAPES {
        let w = World::new(COUNT, shape);
        ready(w.create(AMPLE, 1, w.begin(&w.reports(1..4)).request()));
        for (job, says) in [(1, "answered at once"), (2, "")] {
            match w.poll(job, 0) {
                Err(Error::Abort(abort)) => {
                    assert_eq!(abort.kind, AbortKind::UnrecognizedAggregationJob);
                    assert_eq!(abort.detail.contains("answered at once"), !says.is_empty());
                }
                other => panic!("expected a refusal, got {other:?}"),
            }
        }
    }
}

#[test]
fn what_is_not_there_is_tried_again_and_given_up_in_the_end() {
    for shape in SHAPES {
        let mut w = World::new(COUNT, shape);
        let begun = w.begin(&w.reports(1..6));
        later(w.create(w.budget(2), 1, begun.request()));
        w.work_once();
        let counted = w.held().0;
        let mut tries = 0;
        let ended = loop {
            let lost = w.cluster.calls();
            (0..50).for_each(|n| w.cluster.fate_of_call(lost + n, Fate::RequestLost));
            let (ended, was_busy) = w.work_once();
            (0..50).for_each(|n| w.cluster.fate_of_call(lost + n, Fate::Delivered));
            tries += u32::from(was_busy);
            assert_eq!(w.held().0, counted);
            if !ended.is_empty() {
                break ended;
            }
            assert_eq!(later(w.poll(1, 0)), 0);
            w.pass(1);
        };
        let failure = Some(DeferredFailure::Unavailable);
        assert_eq!(ended, [Ended { job: job_id(1), step: 0, pieces: 3, failure }]);
        assert_eq!(tries, 10);
        assert_eq!(w.now - NOW, (1 << 9) - 1, "it waited longer each time");
        assert_eq!(w.work(), []);
        // Whoever asks is told, and has it tried again, by asking or by sending the request again.
        let failed = w.poll(1, 0);
        assert!(matches!(failed, Err(Error::Internal(Internal::Unavailable(_)))), "{failed:?}");
        assert_eq!(later(w.poll(1, 0)), 0);
        assert_eq!(later(w.create(AMPLE, 1, begun.request())), 0);
        w.work();
        assert_eq!(codes(&ready(w.poll(1, 0))), [None; 5]);
        assert_eq!(w.held().0, 5);
    }
}

#[test]
fn a_job_that_is_deleted_meanwhile_is_not_worked_on_and_gives_its_reports_back() {
    for vdaf in [COUNT, STRINGS] {
        for shape in SHAPES {
            let w = World::new(vdaf, shape);
            let reports = w.reports(1..10);
            let begun = w.begin(&reports);
            let small = w.budget(2);
            later(w.create(small, 1, begun.request()));
            w.work_once();
            w.work_once();
            for _ in 0..2 {
                w.delete(1).unwrap();
                assert_eq!(w.work(), []);
                assert_eq!(refusal(w.poll(1, 0)), AbortKind::UnrecognizedAggregationJob);
            }
            let next = w.begin(&reports[..9]);
            let answers = match vdaf {
                COUNT => {
                    assert_eq!(w.held().0, 4);
                    // What is asked for again is answered as it was recorded.
                    ready(w.create(AMPLE, 2, w.begin(&reports[2..]).request()))
                }
                _ => {
                    assert_eq!(refusal(w.create(small, 1, next.request())), AbortKind::Conflict);
                    assert_eq!(refusal(w.create(AMPLE, 1, next.request())), AbortKind::Conflict);
                    ready(w.create(AMPLE, 2, next.request()))
                }
            };
            assert!(codes(&answers).iter().all(Option::is_none), "{:?}", codes(&answers));
        }
    }
}

#[test]
fn what_was_answered_at_once_is_so_again_though_it_would_be_too_much_by_now() {
    for shape in SHAPES {
        let w = World::new(COUNT, shape);
        let begun = w.begin(&w.reports(1..PIECES_MAX as u8 + 3));
        let answers = ready(w.create(AMPLE, 1, begun.request()));
        assert_eq!(ready(w.create(w.budget(1), 1, begun.request())), answers);
        assert_eq!(refusal(w.create(w.budget(1), 2, begun.request())), AbortKind::InvalidMessage);
    }
}

#[test]
fn what_brings_a_deleted_job_back_does_not_keep_its_reports_from_others() {
    for shape in SHAPES {
        let w = World::new(COUNT, shape);
        let reports = w.reports(1..10);
        let begun = w.begin(&reports);
        later(w.create(w.budget(2), 1, begun.request()));
        w.work_once();
        w.delete(1).unwrap();
        // A request that was under way arrives, and its leader does not know.
        later(w.create(w.budget(2), 1, begun.request()));
        w.work();
        assert_eq!(w.held().0, 9);
        let answers = ready(w.create(AMPLE, 2, w.begin(&reports[1..]).request()));
        assert!(codes(&answers).iter().all(Option::is_none), "{:?}", codes(&answers));
    }
}

#[test]
fn a_deleted_job_of_one_round_that_comes_again_is_answered_as_it_was_recorded() {
    for shape in SHAPES {
        let w = World::new(COUNT, shape);
        let reports = w.reports(1..8);
        let begun = w.begin(&reports);
        later(w.create(w.budget(2), 1, begun.request()));
        w.work();
        let answers = ready(w.poll(1, 0));
        w.delete(1).unwrap();
        assert_eq!(later(w.create(AMPLE, 1, begun.request())), 0);
        w.work();
        assert_eq!(ready(w.poll(1, 0)), answers);
        assert_eq!(w.held().0, 7);
    }
}

#[test]
fn a_job_that_is_too_much_for_all_pieces_is_refused_and_not_kept() {
    let w = World::new(STRINGS, SHAPES[0]);
    let begun = w.begin(&w.reports(1..2));
    let mut init = WIRE.aggregation_job_init(begun.request()).unwrap();
    let time = Time::from_seconds(NOW);
    let metadata: Vec<Vec<u8>> = (0..=PIECES_MAX as u32)
        .map(|n| {
            let id = ReportId::new([&n.to_be_bytes()[..], &[0; 12]].concat().try_into().unwrap());
            WIRE.report_metadata(id, time, &[]).unwrap()
        })
        .collect();
    init.verify_inits = metadata
        .iter()
        .map(|encoded| {
            let mut report = init.verify_inits[0];
            report.report_share.metadata = WIRE.decode_report_metadata(encoded).unwrap();
            report
        })
        .collect();
    let body = WIRE.encode_aggregation_job_init(&init).unwrap();
    assert_eq!(refusal(w.create(w.budget(1), 1, &body)), AbortKind::InvalidMessage);
    assert_eq!(refusal(w.poll(1, 0)), AbortKind::UnrecognizedAggregationJob);
    init.verify_inits.pop();
    let body = WIRE.encode_aggregation_job_init(&init).unwrap();
    assert_eq!(later(w.create(w.budget(1), 1, &body)), 0);
    assert_eq!((Budget::new(0), Budget::new((1 << 23) + 1)), (None, None));
    assert!(NonZeroU64::new(w.task.vdaf.effort(&w.param())).is_some());
}

#[test]
fn a_job_that_is_not_done_ends_with_its_epoch() {
    let mut w = World::new(COUNT, SHAPES[1]);
    let begun = w.begin(&w.reports(1..6));
    later(w.create(w.budget(2), 1, begun.request()));
    w.work_once();
    w.pass(60 * DAY);
    block_on(w.cluster.run_store_alarms(w.task.id())).unwrap();
    assert_eq!(w.work(), []);
    assert_eq!(refusal(w.poll(1, 0)), AbortKind::UnrecognizedAggregationJob);
}
