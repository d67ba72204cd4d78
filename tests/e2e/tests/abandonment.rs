//! Jobs that the leader gives up: their reports are counted in another job or not at all, never twice, and no batch is
//! lost to them.

use std::sync::OnceLock;

use daphne_core::{
    batch::{
        BatchMode::{self, LeaderSelected, TimeInterval},
        Checksum,
    },
    error::ReportError::{BatchCollected, ReportReplayed},
    ids::{AggregationJobId, BatchId},
    message::{
        BatchSelector,
        PartialBatchSelector::{self, LeaderSelected as Batch},
    },
    version::DapVersion::{self, V09, V18},
};
use e2e::{Books, Server, World, server::random, world::until_final};

fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(Server::start)
}

/// Where reports are kept: version, mode, shards, buckets in a group.
const SHAPES: [(DapVersion, BatchMode, u16, Option<u32>); 6] = [
    (V09, LeaderSelected, 1, None),
    (V09, LeaderSelected, 3, None),
    (V09, TimeInterval, 2, Some(0)),
    (V09, TimeInterval, 3, Some(1)),
    (V18, LeaderSelected, 3, None),
    (V18, TimeInterval, 3, Some(1)),
];

fn worlds() -> impl Iterator<Item = World> {
    SHAPES.into_iter().map(|(version, mode, shards, group)| {
        println!("{version:?} {mode:?}, {shards} shards, groups of {group:?}");
        World::new_in(server(), version, mode, |spec| {
            spec.shards = shards;
            spec.buckets_per_group = group;
        })
    })
}

fn place(world: &World) -> (PartialBatchSelector, BatchSelector) {
    match world.spec.batch_mode {
        TimeInterval => (PartialBatchSelector::TimeInterval, world.interval(0, 2)),
        LeaderSelected => {
            let batch = BatchId::new(random());
            (Batch(batch), BatchSelector::LeaderSelected(batch))
        }
    }
}

fn six(world: &World) -> Vec<Vec<u8>> {
    (0..2).flat_map(|n| world.sums(&[1, 20 + n, 200], world.time(n))).collect()
}

fn delete(world: &World, id: &AggregationJobId) {
    assert_eq!(world.delete(id).status, 204);
}

/// The helper committed a job whose answer the leader never heard. The leader counts without it, whether or not its
/// DELETE arrived.
#[test]
fn a_job_the_leader_never_heard_of_again_is_left_out() {
    for world in worlds() {
        for delete_arrives in [false, true] {
            let (part, batch) = match world.spec.batch_mode {
                LeaderSelected => place(&world),
                // A place of its own for each round.
                TimeInterval => {
                    let n = 10 * u64::from(delete_arrives);
                    (PartialBatchSelector::TimeInterval, world.interval(n, 2))
                }
            };
            let first =
                if delete_arrives && world.spec.batch_mode == TimeInterval { 10 } else { 0 };
            let reports = |world: &World| -> Vec<_> {
                (first..first + 2).flat_map(|n| world.sums(&[1, 20, 200], world.time(n))).collect()
            };
            let mut books = Books::default();
            world.aggregate(part, &reports(&world), &mut books);
            let lost = world.job(part, &reports(&world));
            assert_eq!(world.put(&lost).status, 200);
            if delete_arrives {
                delete(&world, &lost.id);
            }
            // One that was finished and tidied up counts.
            let tidied = world.job(part, &reports(&world));
            let id = tidied.id;
            assert_eq!(world.run(tidied, &mut books), []);
            delete(&world, &id);
            world.collect(batch, &books);
            // The lost job's answer is what it was; its reports are not counted, and never will be in this batch.
            assert_eq!(world.put(&lost).status, 200);
            let late = world.job(part, &reports(&world));
            let refused = world.run(late, &mut books.clone());
            assert!(refused.iter().all(|(_, e)| *e == BatchCollected) && refused.len() == 6);
        }
    }
}

/// The leader gives a job up and puts its reports into others, of the same batch or another. A late copy of the old
/// one arrives after its successors were finished and tidied up.
#[test]
fn the_reports_of_an_abandoned_job_count_in_its_successors() {
    for world in worlds() {
        let (part, batch) = place(&world);
        let reports = six(&world);
        let mut books = Books::default();
        let lost = world.job(part, &reports);
        let verdict = world.put(&lost);
        assert_eq!(verdict.status, 200);
        // Before the deletion they are replays, in another order: the same job is no other one in DAP-18.
        let reversed: Vec<_> = reports.iter().rev().cloned().collect();
        assert_eq!(world.run(world.job(part, &reversed), &mut books.clone()).len(), 6);
        delete(&world, &lost.id);
        let successors: Vec<_> = match world.spec.batch_mode {
            LeaderSelected => {
                let other = BatchId::new(random());
                vec![(part, 0..2), (Batch(other), 2..6)]
            }
            TimeInterval => vec![(part, 0..2), (part, 2..6)],
        };
        let mut batches = vec![batch];
        for (part, which) in successors {
            let job = world.job(part, &reports[which]);
            let id = job.id;
            assert_eq!(world.run(job, &mut books), []);
            delete(&world, &id);
            if let Batch(id) = part
                && BatchSelector::LeaderSelected(id) != batch
            {
                batches.push(BatchSelector::LeaderSelected(id));
            }
        }
        assert_eq!(world.put(&lost).body, verdict.body, "a late copy");
        // A third job takes some over, since their owners were deleted; the leader does not count it.
        assert_eq!(world.put(&world.job(part, &reports[1..3])).status, 200);
        for batch in batches {
            world.collect(batch, &books);
        }
        // Now they are counted for good.
        let (elsewhere, _) = place(&world);
        let last = [&reports[1..], &reports[..1]].concat();
        let refused = world.run(world.job(elsewhere, &last), &mut books.clone());
        assert_eq!(refused.len(), 6);
        assert!(refused.iter().all(|(_, e)| [ReportReplayed, BatchCollected].contains(e)));
    }
}

/// A leader that deletes a job, counts its successor, and claims both gets nothing, and then what is right.
#[test]
fn a_leader_that_claims_a_job_and_its_successor_is_refused() {
    for world in worlds() {
        let (part, batch) = place(&world);
        let reports = six(&world);
        let (mut both, mut right) = (Books::default(), Books::default());
        let first = world.job(part, &reports);
        let id = first.id;
        assert_eq!(world.run(first, &mut both), []);
        delete(&world, &id);
        // In another order, which makes it another job in DAP-18 as well.
        let reversed: Vec<_> = reports.iter().rev().cloned().collect();
        let second = world.job(part, &reversed);
        let verdict = world.put(&second);
        assert_eq!(world.finish(second, &verdict, &mut right), []);
        // Both: twice the count, and a checksum that cancels out.
        let (count, _) = both.count(&batch, &world);
        let claim = world.share_request_of(batch, 2 * count, Checksum::default());
        let refused = until_final(|| world.post_share(&claim));
        refused.refused("batchMismatch", &world.task_id);
        world.collect(batch, &right);
    }
}
