//! Aggregation jobs as a whole: what refuses a job, and what a continuation is answered with.

use std::sync::OnceLock;

use daphne_core::{
    batch::BatchMode::{LeaderSelected, TimeInterval},
    ids::{AggregationJobId, BatchId},
    message::{BatchSelector, PartialBatchSelector},
    wire::v09,
};
use e2e::{Answer, Books, JOB_CONTINUE, Server, World, server::random};

fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(Server::start)
}

/// A task, a good job of two reports that was not sent yet, and their batch.
struct Good {
    world: World,
    batch: BatchSelector,
    job: e2e::Job,
}

impl Good {
    fn new(mode: daphne_core::batch::BatchMode) -> Self {
        let world = World::new(server(), mode, |_| {});
        let (part, batch) = match mode {
            TimeInterval => (PartialBatchSelector::TimeInterval, world.interval(0, 1)),
            LeaderSelected => {
                let id = BatchId::new(random());
                (PartialBatchSelector::LeaderSelected(id), BatchSelector::LeaderSelected(id))
            }
        };
        let job = world.job(part, &world.sums(&[100, 55], world.time(0)));
        Self { world, batch, job }
    }

    /// A body that refuses the whole job. The id stays free for another body.
    #[track_caller]
    fn refuses(&self, body: &[u8]) {
        self.world.put_body(&self.job.id, body).refused("invalidMessage", &self.world.task_id);
    }

    /// After all refusals the good body is a job, whose reports count once.
    fn succeeds(self) {
        let mut books = Books::default();
        assert_eq!(self.world.run(self.job, &mut books), []);
        self.world.collect(self.batch, &books);
    }
}

#[test]
fn a_body_that_is_cut_or_trails_is_refused() {
    for mode in [TimeInterval, LeaderSelected] {
        let good = Good::new(mode);
        let body = &good.job.body;
        for cut in 0..body.len() {
            good.refuses(&body[..cut]);
        }
        good.refuses(&[body, &[0][..]].concat());
        good.refuses(&[&body[..], &body[..]].concat());
        good.succeeds();
    }
}

#[test]
fn a_length_beyond_the_body_is_refused() {
    let good = Good::new(TimeInterval);
    let body = &good.job.body;
    // Lengths of the aggregation parameter, of the list, of the first public share, key and ciphertext.
    let share = 4 + 1 + 4 + 24;
    let public_share_len = u32::from_be_bytes(body[share..share + 4].try_into().unwrap()) as usize;
    let enc = share + 4 + public_share_len + 1;
    let payload = enc + 2 + 32;
    for (at, len) in [(0, 4), (5, 4), (share, 4), (enc, 2), (payload, 4)] {
        for value in [0xff, 0x80] {
            let mut body = body.clone();
            body[at] = value;
            good.refuses(&body);
            body[at..at + len].fill(0xff);
            good.refuses(&body);
        }
    }
    good.succeeds();
}

#[test]
fn a_job_without_reports_is_refused() {
    let good = Good::new(TimeInterval);
    good.refuses(&[0, 0, 0, 0, 1, 0, 0, 0, 0]);
    good.succeeds();
    let good = Good::new(LeaderSelected);
    good.refuses(&[&[0, 0, 0, 0, 2][..], &[9; 32], &[0, 0, 0, 0]].concat());
    good.succeeds();
}

#[test]
fn another_batch_mode_is_refused() {
    for mode in [TimeInterval, LeaderSelected] {
        let good = Good::new(mode);
        let mut init = v09::AggregationJobInitReq::decode(&good.job.body).unwrap();
        init.part_batch_selector = match mode {
            TimeInterval => v09::PartialBatchSelector::FixedSize(BatchId::new(random())),
            LeaderSelected => v09::PartialBatchSelector::TimeInterval,
        };
        good.refuses(&init.encode().unwrap());
        for query_type in [0, 3, 255] {
            let mut body = good.job.body.clone();
            body[4] = query_type;
            good.refuses(&body);
        }
        good.succeeds();
    }
}

#[test]
fn a_batch_id_of_another_length_is_refused() {
    let good = Good::new(LeaderSelected);
    let body = &good.job.body;
    for id in [0, 31, 33] {
        good.refuses(&[&body[..5], &vec![7; id], &body[5 + 32..]].concat());
    }
    good.succeeds();
}

#[test]
fn an_aggregation_parameter_is_refused() {
    let good = Good::new(TimeInterval);
    for param in [&[0][..], &[0; 4], &[1; 100]] {
        let mut init = v09::AggregationJobInitReq::decode(&good.job.body).unwrap();
        init.agg_param = param;
        good.refuses(&init.encode().unwrap());
    }
    good.succeeds();
}

#[test]
fn the_same_report_id_twice_is_refused() {
    let good = Good::new(TimeInterval);
    let mut init = v09::AggregationJobInitReq::decode(&good.job.body).unwrap();
    let first = init.prepare_inits[0];
    // The whole report, or another one that has its id.
    init.prepare_inits.push(first);
    good.refuses(&init.encode().unwrap());
    let mut other = init.prepare_inits[1];
    other.report_share.report_metadata = first.report_share.report_metadata;
    init.prepare_inits[2] = other;
    good.refuses(&init.encode().unwrap());
    good.succeeds();
}

#[test]
fn a_large_job_is_answered_in_order() {
    let world = World::new(server(), TimeInterval, |spec| {
        spec.shards = 4;
        spec.buckets_per_group = Some(1);
    });
    let reports: Vec<_> =
        (0..200).flat_map(|n| world.sums(&[n % 256], world.time(n % 5))).collect();
    let mut books = Books::default();
    // The leader's end of a job checks the order.
    world.aggregate(PartialBatchSelector::TimeInterval, &reports, &mut books);
    world.collect(world.interval(0, 5), &books);
}

fn continuation(world: &World, id: &AggregationJobId, step: u16, reports: &[[u8; 16]]) -> Answer {
    let body = v09::AggregationJobContinueReq {
        step,
        prepare_continues: reports
            .iter()
            .map(|id| v09::PrepareContinue {
                report_id: daphne_core::ids::ReportId::new(*id),
                payload: &[2, 0, 0, 0, 0],
            })
            .collect(),
    }
    .encode()
    .unwrap();
    world.ask("POST", &world.job_path(id), JOB_CONTINUE, Some(&body))
}

#[test]
fn no_job_has_anything_to_continue() {
    for (mode, group) in [(TimeInterval, None), (TimeInterval, Some(0)), (LeaderSelected, None)] {
        let world = World::new(server(), mode, |spec| {
            spec.shards = 2;
            spec.buckets_per_group = group;
        });
        let (part, batch) = match mode {
            TimeInterval => (PartialBatchSelector::TimeInterval, world.interval(0, 1)),
            LeaderSelected => {
                let id = BatchId::new(random());
                (PartialBatchSelector::LeaderSelected(id), BatchSelector::LeaderSelected(id))
            }
        };
        let job = world.job(part, &world.sums(&[1, 2], world.time(0)));
        let (id, task) = (job.id, world.task_id);
        let report = v09::AggregationJobInitReq::decode(&job.body).unwrap().prepare_inits[0];
        let report = *report.report_share.report_metadata.report_id.as_bytes();
        // Before it exists.
        continuation(&world, &id, 1, &[report]).refused("unrecognizedAggregationJob", &task);
        continuation(&world, &id, 0, &[report]).refused("unrecognizedAggregationJob", &task);
        let mut books = Books::default();
        assert_eq!(world.run(job, &mut books), []);
        // As a job of another task.
        let other = World::new(server(), mode, |spec| spec.shards = 2);
        continuation(&other, &id, 1, &[report])
            .refused("unrecognizedAggregationJob", &other.task_id);
        for (step, reports, kind) in [
            (0, vec![report], "invalidMessage"),
            (1, vec![report], "invalidMessage"),
            (2, vec![report], "stepMismatch"),
            (u16::MAX, vec![report], "stepMismatch"),
            (1, vec![report, report], "invalidMessage"),
            (1, vec![[0; 16]], "invalidMessage"),
        ] {
            continuation(&world, &id, step, &reports).refused(kind, &task);
        }
        // Without reports, and malformed.
        for body in [&[0, 1, 0, 0, 0, 0][..], &[], &[0, 1], &[0, 1, 0, 0, 0, 1, 0]] {
            let answer = world.ask("POST", &world.job_path(&id), JOB_CONTINUE, Some(body));
            answer.refused("invalidMessage", &task);
        }
        world.collect(batch, &books);
    }
}
