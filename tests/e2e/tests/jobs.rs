//! Aggregation jobs as a whole: what refuses a job, and what a continuation is answered with.

use std::sync::OnceLock;

use daphne_core::{
    batch::BatchMode::{self, LeaderSelected, TimeInterval},
    codec::Writer,
    ids::{AggregationJobId, BatchId, ReportId},
    message::{
        AggregationJobContinue, AggregationJobInit, BatchSelector, PartialBatchSelector,
        VerifyContinue,
    },
    version::DapVersion::{self, V09, V18},
};
use e2e::{Answer, Books, KINDS, Server, World, server::random};

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
    fn new((version, mode): (DapVersion, BatchMode)) -> Self {
        println!("{version:?} {mode:?}");
        let world = World::new_in(server(), version, mode, |_| {});
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
        self.refuses_as("invalidMessage", body);
    }

    #[track_caller]
    fn refuses_as(&self, token: &str, body: &[u8]) {
        self.world.put_body(&self.job.id, body).refused(token, &self.world.task_id);
    }

    /// Refuses the job with a change.
    #[track_caller]
    fn refuses_with(&self, token: &str, change: impl FnOnce(&mut AggregationJobInit<'_>)) {
        let wire = self.world.wire();
        let mut init = wire.aggregation_job_init(&self.job.body).expect("our own");
        change(&mut init);
        self.refuses_as(token, &wire.encode_aggregation_job_init(&init).expect("small"));
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
    for kind in KINDS {
        let good = Good::new(kind);
        let body = &good.job.body;
        // In DAP-18 the reports run to the end of the body: without the last one it is a job.
        let first_ends = match kind.0 {
            V09 => body.len(),
            V18 => (body.len() + head_of(kind.1).len()) / 2,
        };
        for cut in (0..body.len()).filter(|cut| *cut != first_ends) {
            good.refuses(&body[..cut]);
        }
        good.refuses(&[body, &[0][..]].concat());
        good.refuses(&[&body[..], &body[..]].concat());
        good.succeeds();
    }
}

/// What comes before the reports of a DAP-18 job of Prio3 in these tests: key, no parameter, and extensions.
fn head_of(mode: BatchMode) -> Vec<u8> {
    match mode {
        TimeInterval => vec![0, 0, 0, 0, 0, 0, 0],
        LeaderSelected => [&[0, 0, 0, 0, 0, 0, 36, 0, 1, 0, 32][..], &[9; 32]].concat(),
    }
}

#[test]
fn a_length_beyond_the_body_is_refused() {
    for version in DapVersion::ALL {
        let good = Good::new((version, TimeInterval));
        let body = &good.job.body;
        // Lengths of the aggregation parameter, of the list of reports or of extensions, and of what the first report has:
        // public extensions, public share, key and ciphertext.
        let (mut lengths, share) = match version {
            V09 => (vec![(0, 4), (5, 4)], 4 + 1 + 4 + 24),
            V18 => (vec![(1, 4), (5, 2), (7 + 24, 2)], 7 + 26),
        };
        let public_share_len = u32::from_be_bytes(body[share..share + 4].try_into().unwrap());
        let enc = share + 4 + public_share_len as usize + 1;
        let payload = enc + 2 + 32;
        lengths.extend([(share, 4), (enc, 2), (payload, 4)]);
        for (at, len) in lengths {
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
}

#[test]
fn a_job_without_reports_is_refused() {
    for (mode, bytes) in [
        (TimeInterval, &[0, 0, 0, 0, 1, 0, 0, 0, 0][..]),
        (LeaderSelected, &[&[0, 0, 0, 0, 2][..], &[9; 32], &[0, 0, 0, 0]].concat()),
    ] {
        let good = Good::new((V09, mode));
        good.refuses(bytes);
        good.succeeds();
        let good = Good::new((V18, mode));
        good.refuses(&head_of(mode));
        good.succeeds();
    }
}

#[test]
fn another_batch_mode_is_refused() {
    for kind in KINDS {
        let good = Good::new(kind);
        // In DAP-18: a batch id in a job of a time-interval task, and none in a leader-selected one's.
        good.refuses_with("invalidMessage", |init| {
            init.batch = match kind.1 {
                TimeInterval => PartialBatchSelector::LeaderSelected(BatchId::new(random())),
                LeaderSelected => PartialBatchSelector::TimeInterval,
            };
        });
        if kind.0 == V09 {
            for query_type in [0, 3, 255] {
                let mut body = good.job.body.clone();
                body[4] = query_type;
                good.refuses(&body);
            }
        }
        good.succeeds();
    }
}

#[test]
fn a_batch_id_of_another_length_is_refused() {
    let good = Good::new((V09, LeaderSelected));
    let body = &good.job.body;
    for id in [0, 31, 33] {
        good.refuses(&[&body[..5], &vec![7; id], &body[5 + 32..]].concat());
    }
    good.succeeds();
    let good = Good::new((V18, LeaderSelected));
    for id in [0, 1, 31, 33, 64] {
        good.refuses(&with_extensions(&good, &[(1, &vec![7; id])]));
    }
    good.succeeds();
}

/// A DAP-18 job with these extensions in place of its own.
fn with_extensions(good: &Good, extensions: &[(u16, &[u8])]) -> Vec<u8> {
    let mut list = Writer::new();
    for (code, data) in extensions {
        list.u16(*code).opaque16(data);
    }
    with_extension_bytes(good, &list.finish().expect("short"))
}

/// The same, with a list that may be none.
fn with_extension_bytes(good: &Good, list: &[u8]) -> Vec<u8> {
    let body = &good.job.body;
    let (before, len) = (&body[..5], u16::from_be_bytes([body[5], body[6]]));
    let len_of_list = u16::try_from(list.len()).expect("short").to_be_bytes();
    [before, &len_of_list, list, &body[7 + usize::from(len)..]].concat()
}

/// Those that we do not know are named before anything else about them is looked at.
#[test]
fn job_extensions_are_known_distinct_and_in_order() {
    for mode in [TimeInterval, LeaderSelected] {
        let good = Good::new((V18, mode));
        let id = [9; 32];
        for extensions in [
            &[(0, &[][..])][..],
            &[(0x1234, &[1, 2, 3])],
            &[(0xffff, &[])],
            &[(1, &id), (2, &[])],
            &[(0, &[]), (1, &id)],
            // Unknown, and out of order or twice.
            &[(2, &[]), (1, &id)],
            &[(2, &[]), (2, &[])],
            &[(1, &id), (1, &id), (7, &[])],
        ] {
            good.refuses_as("unsupportedExtension", &with_extensions(&good, extensions));
        }
        good.refuses(&with_extensions(&good, &[(1, &id), (1, &id)]));
        // A list that ends inside of an extension.
        for list in [&[0][..], &[0, 1, 0], &[0, 1, 0, 32, 9, 9], &[0, 1, 0, 0, 0]] {
            good.refuses(&with_extension_bytes(&good, list));
        }
        good.succeeds();
    }
}

#[test]
fn another_verification_key_than_the_tasks_is_refused() {
    let good = Good::new((V18, TimeInterval));
    for id in [1, 2, 255] {
        let mut body = good.job.body.clone();
        body[0] = id;
        good.refuses(&body);
    }
    good.succeeds();
}

#[test]
fn an_aggregation_parameter_is_refused() {
    for (version, token) in [(V09, "invalidMessage"), (V18, "invalidAggregationParameter")] {
        let good = Good::new((version, TimeInterval));
        for param in [&[0][..], &[0; 4], &[1; 100]] {
            good.refuses_with(token, |init| init.agg_param = param);
        }
        good.succeeds();
    }
}

#[test]
fn the_same_report_id_twice_is_refused() {
    for version in DapVersion::ALL {
        let good = Good::new((version, TimeInterval));
        // The whole report, or another one that has its id.
        good.refuses_with("invalidMessage", |init| init.verify_inits.push(init.verify_inits[0]));
        good.refuses_with("invalidMessage", |init| {
            let mut other = init.verify_inits[1];
            other.report_share.metadata = init.verify_inits[0].report_share.metadata;
            init.verify_inits.push(other);
        });
        good.succeeds();
    }
}

#[test]
fn a_large_job_is_answered_in_order() {
    for version in DapVersion::ALL {
        let world = World::new_in(server(), version, TimeInterval, |spec| {
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
}

fn continuation(world: &World, id: &AggregationJobId, step: u16, reports: &[ReportId]) -> Answer {
    let payload = &[2, 0, 0, 0, 0];
    let continues = reports.iter().map(|&report_id| VerifyContinue { report_id, payload });
    let request = AggregationJobContinue { step, verify_continues: continues.collect() };
    world.post_body(id, &world.wire().encode_aggregation_job_continue(&request).expect("small"))
}

#[test]
fn no_job_has_anything_to_continue() {
    for (version, mode, group) in [
        (V09, TimeInterval, None),
        (V09, TimeInterval, Some(0)),
        (V09, LeaderSelected, None),
        (V18, TimeInterval, None),
        (V18, LeaderSelected, None),
    ] {
        let world = World::new_in(server(), version, mode, |spec| {
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
        let init = world.wire().aggregation_job_init(&job.body).expect("our own");
        let report = init.verify_inits[0].report_share.metadata.report_id;
        // Before it exists.
        continuation(&world, &id, 1, &[report]).refused("unrecognizedAggregationJob", &task);
        continuation(&world, &id, 0, &[report]).refused("unrecognizedAggregationJob", &task);
        let mut books = Books::default();
        assert_eq!(world.run(job, &mut books), []);
        // As a job of another task.
        let other = World::new_in(server(), version, mode, |spec| spec.shards = 2);
        continuation(&other, &id, 1, &[report])
            .refused("unrecognizedAggregationJob", &other.task_id);
        for (step, reports, kind) in [
            (0, vec![report], "invalidMessage"),
            (1, vec![report], "invalidMessage"),
            (2, vec![report], "stepMismatch"),
            (u16::MAX, vec![report], "stepMismatch"),
            (1, vec![report, report], "invalidMessage"),
            (1, vec![ReportId::new([0; 16])], "invalidMessage"),
        ] {
            continuation(&world, &id, step, &reports).refused(kind, &task);
        }
        // Without reports, and malformed.
        let none = match version {
            V09 => &[0, 1, 0, 0, 0, 0][..],
            V18 => &[0, 1],
        };
        for body in [none, &[], &[0], &[0, 1, 0], &[0, 1, 0, 0, 0, 1, 0]] {
            world.post_body(&id, body).refused("invalidMessage", &task);
        }
        world.collect(batch, &books);
    }
}
