//! What comes again, a little different or at the same time.

use std::sync::{Arc, OnceLock};

use daphne_core::{
    batch::BatchMode::{self, LeaderSelected, TimeInterval},
    error::ReportError::{BatchCollected, HpkeDecryptError, ReportReplayed},
    ids::BatchId,
    message::{BatchSelector, PartialBatchSelector},
    version::DapVersion::{self, V09, V18},
};
use e2e::{Books, Server, World, server::random, world::until_final};

fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(Server::start)
}

/// Every kind of placement: version, mode, shards, buckets in a group.
const SHAPES: [(DapVersion, BatchMode, u16, Option<u32>); 6] = [
    (V09, LeaderSelected, 1, None),
    (V09, LeaderSelected, 4, None),
    (V09, TimeInterval, 4, Some(1)),
    (V09, TimeInterval, 2, Some(0)),
    (V18, LeaderSelected, 4, None),
    (V18, TimeInterval, 4, Some(1)),
];

fn worlds() -> impl Iterator<Item = (World, PartialBatchSelector, BatchSelector)> {
    SHAPES.into_iter().map(|(version, mode, shards, group)| {
        println!("{version:?} {mode:?}, {shards} shards, groups of {group:?}");
        let world = World::new_in(server(), version, mode, |spec| {
            spec.shards = shards;
            spec.buckets_per_group = group;
        });
        let id = BatchId::new(random());
        let (part, batch) = match mode {
            TimeInterval => (PartialBatchSelector::TimeInterval, world.interval(0, 2)),
            LeaderSelected => {
                (PartialBatchSelector::LeaderSelected(id), BatchSelector::LeaderSelected(id))
            }
        };
        (world, part, batch)
    })
}

#[test]
fn of_two_jobs_at_once_with_one_report_one_counts_it() {
    for (world, part, batch) in worlds() {
        let world = Arc::new(world);
        let mut books = Books::default();
        for round in 0..3 {
            let shared = world.sums(&[100 + round], world.time(0));
            let jobs = [1, 2].map(|n| {
                let own = world.sums(&[n], world.time(1));
                world.job(part, &[&shared[..], &own].concat())
            });
            let senders = jobs.each_ref().map(|job| {
                let (world, id, body) = (world.clone(), job.id, job.body.clone());
                std::thread::spawn(move || until_final(|| world.put_body(&id, &body)))
            });
            let answers = senders.map(|s| s.join().unwrap());
            let mut firsts: Vec<_> = answers.iter().map(|a| world.verdicts(&a.body)[0].1).collect();
            firsts.sort_unstable();
            assert_eq!(firsts, [None, Some(ReportReplayed)]);
            for (job, answer) in jobs.into_iter().zip(&answers) {
                world.finish(job, answer, &mut books);
                assert_eq!(world.verdicts(&answer.body)[1].1, None, "the other report");
            }
        }
        assert_eq!(books.count(&batch, &world).0, 9);
        world.collect(batch, &books);
    }
}

/// The same request is the same bytes: one byte less in common is another job, and under the old id no job at all.
#[test]
fn a_job_that_differs_in_one_byte_is_another_one() {
    for (world, part, batch) in worlds() {
        let mut books = Books::default();
        let job = world.job(part, &world.sums(&[4, 5, 6], world.time(0)));
        let (id, body) = (job.id, job.body.clone());
        let first = world.put(&job);
        assert_eq!(world.finish(job, &first, &mut books), []);
        // The last byte is of the leader's last ping-pong message, the others of the first report's share.
        let share = body.len() / 3 / 2 + 40;
        for n in [body.len() - 1, share, share + 1] {
            let mut other = body.clone();
            other[n] ^= 1;
            if world.spec.version == V09 {
                let conflict = world.put_body(&id, &other);
                conflict.refused_without_type(409);
                assert_eq!(conflict.json()["taskid"], world.task_id.to_string());
            }
            let answer = world.create(&other);
            assert_ne!(world.job_id(&other), id);
            let errors: Vec<_> = world.verdicts(&answer.body).into_iter().map(|(_, e)| e).collect();
            assert!(errors.iter().all(Option::is_some), "byte {n}: {errors:?}");
            assert!(errors.iter().filter(|e| **e == Some(ReportReplayed)).count() >= 2);
            if n != body.len() - 1 {
                assert_eq!(errors[0], Some(HpkeDecryptError), "byte {n}");
            }
            assert_eq!(world.put_body(&id, &body).body, first.body);
        }
        world.collect(batch, &books);
    }
}

#[test]
fn a_report_replayed_into_a_collected_batch_is_refused() {
    for (world, part, batch) in worlds() {
        let mut books = Books::default();
        let reports = world.sums(&[4, 5, 6], world.time(0));
        world.aggregate(part, &reports, &mut books);
        let share = world.collect(batch, &books);
        let late = world.sums(&[7], world.time(0));
        for _ in 0..2 {
            let mixed = [&reports[..], &late].concat();
            let refused = world.run(world.job(part, &mixed), &mut books.clone());
            assert_eq!(refused.len(), 4);
            let replayed = &refused[..3];
            assert!(replayed.iter().all(|(_, e)| [ReportReplayed, BatchCollected].contains(e)));
            assert_eq!(refused[3].1, BatchCollected);
        }
        if world.spec.batch_mode == LeaderSelected {
            // Into a batch that is open.
            let open = BatchId::new(random());
            let refused = world.run(world.batch_job(open, &reports), &mut books.clone());
            assert!(refused.len() == 3 && refused.iter().all(|(_, e)| *e == ReportReplayed));
        }
        assert_eq!(world.collect(batch, &books).body, share.body);
    }
}
