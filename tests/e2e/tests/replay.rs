//! What is sent twice counts once: reports, jobs and aggregate-share requests.

use std::sync::{Arc, OnceLock};

use daphne_core::{
    batch::BatchMode::{self, LeaderSelected, TimeInterval},
    error::ReportError::ReportReplayed,
    ids::{AggregationJobId, BatchId, ReportId},
    message::{
        BatchSelector,
        PartialBatchSelector::{self, LeaderSelected as Batch},
    },
    task::TaskSpec,
    vdaf::Measurement,
    version::DapVersion::{self, V09, V18},
};
use e2e::{Books, Server, World, server::random};

fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(Server::start)
}

fn shape(shards: u16, buckets_per_group: Option<u32>) -> impl FnOnce(&mut TaskSpec) {
    move |spec| {
        spec.shards = shards;
        spec.buckets_per_group = buckets_per_group;
    }
}

/// Every kind of placement: version, name, mode, shards, buckets in a group.
const SHAPES: &[(DapVersion, &str, BatchMode, u16, Option<u32>)] = &[
    (V09, "leader-selected", LeaderSelected, 1, None),
    (V09, "leader-selected, 4 shards", LeaderSelected, 4, None),
    (V09, "groups of a day", TimeInterval, 1, None),
    (V09, "groups of a day, 4 shards", TimeInterval, 4, None),
    (V09, "groups of one bucket, 4 shards", TimeInterval, 4, Some(1)),
    (V09, "one group, 4 shards", TimeInterval, 4, Some(0)),
    (V18, "leader-selected, 4 shards", LeaderSelected, 4, None),
    (V18, "groups of one bucket, 4 shards", TimeInterval, 4, Some(1)),
];

/// Those in which a leader chooses ids of jobs.
fn of_v09() -> impl Iterator<Item = &'static (DapVersion, &'static str, BatchMode, u16, Option<u32>)>
{
    SHAPES.iter().filter(|shape| shape.0 == V09)
}

/// Where the reports of a job in these tests go, and the batch that they are collected in.
fn place(world: &World) -> (PartialBatchSelector, BatchSelector) {
    match world.spec.batch_mode {
        TimeInterval => (PartialBatchSelector::TimeInterval, world.interval(0, 3)),
        LeaderSelected => {
            let batch = BatchId::new(random());
            (Batch(batch), BatchSelector::LeaderSelected(batch))
        }
    }
}

/// Six reports over three buckets.
fn six(world: &World) -> Vec<Vec<u8>> {
    (0..6).flat_map(|n| world.sums(&[n + 10], world.time(n % 3))).collect()
}

fn id_of(world: &World, report: &[u8]) -> ReportId {
    world.wire().report(report).unwrap().metadata.report_id
}

#[test]
fn a_report_twice_in_one_job_refuses_the_job() {
    for version in DapVersion::ALL {
        let world = World::new_in(server(), version, TimeInterval, |_| {});
        let mut reports = world.sums(&[1, 2], world.time(0));
        reports.push(reports[0].clone());
        world.put(&world.timed_job(&reports)).refused("invalidMessage", &world.task_id);
        // Nothing of it was counted, and its id is still free.
        let mut books = Books::default();
        world.aggregate(PartialBatchSelector::TimeInterval, &reports[..2], &mut books);
        world.collect(world.interval(0, 1), &books);
    }
}

#[test]
fn a_report_in_two_jobs_counts_once() {
    for &(version, name, mode, shards, group) in SHAPES {
        println!("{version:?} {name}");
        let world = World::new_in(server(), version, mode, shape(shards, group));
        let (part, batch) = place(&world);
        let (reports, more) = (six(&world), six(&world));
        let mut books = Books::default();
        world.aggregate(part, &reports, &mut books);
        // In another order, among new ones.
        let mixed: Vec<_> = reports.iter().rev().chain(&more).cloned().collect();
        let refused = world.run(world.job(part, &mixed), &mut books);
        let expected: Vec<_> =
            reports.iter().rev().map(|r| (id_of(&world, r), ReportReplayed)).collect();
        assert_eq!(refused, expected);
        assert_eq!(books.count(&batch, &world).0, 12);
        world.collect(batch, &books);
    }
}

#[test]
fn a_report_in_two_batches_counts_once() {
    for (version, shards) in [(V09, 1), (V09, 4), (V18, 4)] {
        let world = World::new_in(server(), version, LeaderSelected, shape(shards, None));
        let (a, b) = (BatchId::new(random()), BatchId::new(random()));
        let (reports, more) = (six(&world), six(&world));
        let mut books = Books::default();
        world.aggregate(Batch(a), &reports, &mut books);
        let mixed = [&reports[..], &more[..]].concat();
        assert_eq!(world.run(world.batch_job(b, &mixed), &mut books).len(), 6);
        for batch in [a, b] {
            let batch = BatchSelector::LeaderSelected(batch);
            assert_eq!(books.count(&batch, &world).0, 6);
            world.collect(batch, &books);
        }
        // And it stays so once both are collected.
        let c = BatchId::new(random());
        assert_eq!(world.run(world.batch_job(c, &reports), &mut books).len(), 6);
    }
}

/// A client that uses its id for two reports, each sealed freshly and at its own time.
#[test]
fn an_id_in_two_reports_counts_once_where_one_object_sees_both() {
    let cases = [
        ("leader-selected", LeaderSelected, None, 30, 1),
        ("one group", TimeInterval, Some(0), 30, 1),
        ("the same bucket", TimeInterval, Some(1), 0, 1),
        ("the same group", TimeInterval, Some(100_000), 30, 1),
        // The other object never hears of the first. Nobody but this client, who could as well have sent two reports,
        // is concerned; a task that minds has one group.
        ("another group", TimeInterval, Some(1), 30, 2),
    ];
    let cases = DapVersion::ALL.into_iter().flat_map(|version| cases.map(|case| (version, case)));
    for (version, (name, mode, group, hours, counted)) in cases {
        println!("{version:?} {name}");
        let world = World::new_in(server(), version, mode, shape(2, group));
        let id = random();
        let (first, second) =
            [0, hours].map(|n| world.report_with_id(id, Measurement::Sum(9), world.time(n))).into();
        let part = match mode {
            TimeInterval => PartialBatchSelector::TimeInterval,
            LeaderSelected => Batch(BatchId::new(random())),
        };
        let mut books = Books::default();
        world.aggregate(part, &[first], &mut books);
        let refused = world.run(world.job(part, &[second]), &mut books);
        let replays = vec![(ReportId::new(id), ReportReplayed); 2 - counted];
        assert_eq!(refused, replays);
    }
}

#[test]
fn a_job_sent_again_is_answered_byte_for_byte() {
    let mut server = Server::start();
    for &(version, name, mode, shards, group) in SHAPES {
        println!("{version:?} {name}");
        let world = World::new_in(&server, version, mode, shape(shards, group));
        let (part, batch) = place(&world);
        let mut books = Books::default();
        let reports = six(&world);
        world.aggregate(part, &reports[..1], &mut books);
        // One replay, so that the answer holds a recorded refusal.
        let job = world.job(part, &reports);
        let (id, body) = (job.id, job.body.clone());
        let first = world.put(&job);
        assert_eq!(world.verdicts(&first.body)[0].1, Some(ReportReplayed));
        world.finish(job, &first, &mut books);
        let again = |when: &str| assert_eq!(world.put_body(&id, &body).body, first.body, "{when}");
        again("at once");
        server.kill_workerd();
        again("after a crash");
        server.restart();
        again("after a restart");
        assert_eq!(world.delete(&id).status, 204);
        again("after it was deleted");
        world.collect(batch, &books);
        again("after its batch was collected");
        server.kill_workerd();
        again("after its batch was collected, and a crash");
    }
}

#[test]
fn a_job_sent_twice_at_once_is_one_job() {
    for &(version, name, mode, shards, group) in SHAPES {
        println!("{version:?} {name}");
        let world = Arc::new(World::new_in(server(), version, mode, shape(shards, group)));
        let (part, batch) = place(&world);
        let job = world.job(part, &six(&world));
        let senders: Vec<_> = (0..4)
            .map(|_| {
                let (world, id, body) = (world.clone(), job.id, job.body.clone());
                std::thread::spawn(move || world.put_body(&id, &body))
            })
            .collect();
        let answers: Vec<_> = senders.into_iter().map(|s| s.join().unwrap()).collect();
        for answer in &answers {
            assert_eq!(answer.body, answers[0].body);
        }
        let mut books = Books::default();
        assert_eq!(world.finish(job, &answers[0], &mut books), []);
        world.collect(batch, &books);
    }
}

#[test]
fn another_body_under_the_id_of_a_job_is_a_conflict() {
    for &(version, name, mode, shards, group) in of_v09() {
        println!("{version:?} {name}");
        let world = World::new_in(server(), version, mode, shape(shards, group));
        let (part, batch) = place(&world);
        let mut books = Books::default();
        let job = world.job(part, &six(&world));
        let id = job.id;
        assert_eq!(world.run(job, &mut books), []);
        // Bodies of one report each: with four shards, or three groups, some share no object with the first job.
        for n in 0..8 {
            let reports = world.sums(&[n], world.time(n % 3));
            let body = world.job(part, &reports).body;
            world.put_body(&id, &body).refused_without_type(409);
            assert_eq!(world.put_body(&id, &body).status, 409, "again");
        }
        assert_eq!(world.delete(&id).status, 204);
        let body = world.job(part, &six(&world)).body;
        assert_eq!(world.put_body(&id, &body).status, 409, "after it was deleted");
        world.collect(batch, &books);
        assert_eq!(world.put_body(&id, &body).status, 409, "after it was collected");
    }
}

/// Two bodies race for one id: one is a job, of the other nothing counts.
#[test]
fn of_two_bodies_sent_at_once_under_one_id_one_counts() {
    for &(version, name, mode, shards, group) in of_v09() {
        for round in 0..3 {
            println!("{name} {round}");
            let world = Arc::new(World::new_in(server(), version, mode, shape(shards, group)));
            let (part, batch) = place(&world);
            let id = AggregationJobId::new(random());
            // Few reports, so that the two often share no object.
            let jobs = [0, 1].map(|n| {
                let mut job = world.job(part, &world.sums(&[n + 1, n + 3], world.time(n)));
                job.id = id;
                job
            });
            let senders = jobs.each_ref().map(|job| {
                let (world, body) = (world.clone(), job.body.clone());
                std::thread::spawn(move || world.put_body(&id, &body))
            });
            let answers = senders.map(|s| s.join().unwrap());
            let mut statuses = answers.each_ref().map(|a| a.status);
            statuses.sort_unstable();
            assert_eq!(statuses, [200, 409]);
            let mut books = Books::default();
            for (job, answer) in jobs.into_iter().zip(&answers) {
                if answer.status == 200 {
                    assert_eq!(world.finish(job, answer, &mut books), []);
                }
            }
            world.collect(batch, &books);
        }
    }
}

#[test]
fn an_aggregate_share_is_the_same_bytes_for_ever() {
    let mut server = Server::start();
    for &(version, name, mode, shards, group) in SHAPES {
        println!("{version:?} {name}");
        let world = World::new_in(&server, version, mode, shape(shards, group));
        let (part, batch) = place(&world);
        let mut books = Books::default();
        world.aggregate(part, &six(&world), &mut books);
        let first = world.collect(batch, &books);
        let request = world.share_request(batch, &books);
        server.kill_workerd();
        assert_eq!(world.post_share(&request).body, first.body, "after a crash");
        server.restart();
        assert_eq!(world.post_share(&request).body, first.body, "after a restart");
    }
}

#[test]
fn deleting_a_job_takes_nothing_back() {
    for &(version, name, mode, shards, group) in SHAPES {
        println!("{version:?} {name}");
        let world = World::new_in(server(), version, mode, shape(shards, group));
        let (part, batch) = place(&world);
        let mut books = Books::default();
        let reports = six(&world);
        let job = world.job(part, &reports);
        let id = job.id;
        assert_eq!(world.run(job, &mut books), []);
        for _ in 0..2 {
            let deleted = world.delete(&id);
            assert_eq!((deleted.status, deleted.body.len()), (204, 0));
        }
        world.collect(batch, &books);
        // Once they are collected, its reports are not taken again.
        let reversed: Vec<_> = reports.into_iter().rev().collect();
        let refused = world.run(world.job(part, &reversed), &mut books.clone());
        assert_eq!(refused.len(), 6);
    }
}
