//! Collecting batches: what is refused and burns nothing, what is summed, and that it happens once.

use std::sync::{Arc, OnceLock};

use daphne_core::{
    batch::{
        BatchMode::{LeaderSelected, TimeInterval},
        Checksum,
    },
    error::ReportError::BatchCollected,
    ids::{BatchId, ReportId},
    message::{BatchSelector, PartialBatchSelector},
    time::{Duration, Time},
    vdaf::{Measurement, VdafConfig},
};
use e2e::{Books, Server, World, server::random, world::until_final};

const TIMED: PartialBatchSelector = PartialBatchSelector::TimeInterval;

fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(Server::start)
}

/// A task of either mode, with four shards and groups of one bucket, and a batch of three reports in it.
fn three(
    mode: daphne_core::batch::BatchMode,
) -> (World, PartialBatchSelector, BatchSelector, Books) {
    let world = World::new(server(), mode, |spec| {
        spec.shards = 4;
        spec.buckets_per_group = (mode == TimeInterval).then_some(1);
    });
    let (part, batch) = match mode {
        TimeInterval => (TIMED, world.interval(0, 1)),
        LeaderSelected => {
            let id = BatchId::new(random());
            (PartialBatchSelector::LeaderSelected(id), BatchSelector::LeaderSelected(id))
        }
    };
    let mut books = Books::default();
    world.aggregate(part, &world.sums(&[1, 2, 250], world.time(0)), &mut books);
    (world, part, batch, books)
}

#[test]
fn a_wrong_count_or_checksum_burns_nothing() {
    for mode in [TimeInterval, LeaderSelected] {
        let (world, _, batch, books) = three(mode);
        let (count, checksum) = books.count(&batch, &world);
        let mut flipped = *checksum.as_bytes();
        flipped[31] ^= 1;
        let mut with_another = checksum;
        with_another.add(&ReportId::new([1; 16]));
        for (count, checksum) in [
            (count + 1, checksum),
            (count - 1, checksum),
            (0, checksum),
            (u64::MAX, checksum),
            (count, Checksum::new(flipped)),
            (count, with_another),
            (count, Checksum::default()),
        ] {
            let answer = world.post_share(&world.share_request_of(batch, count, checksum));
            answer.refused("batchMismatch", &world.task_id);
        }
        world.collect(batch, &books);
        // Once collected, a wrong request is still wrong, and the right one still right.
        let answer = world.post_share(&world.share_request_of(batch, count + 1, checksum));
        answer.refused("batchMismatch", &world.task_id);
        world.collect(batch, &books);
    }
}

#[test]
fn a_batch_that_is_too_small_is_refused_before_its_count_is_compared() {
    for mode in [TimeInterval, LeaderSelected] {
        let world = World::new(server(), mode, |spec| spec.min_batch_size = 3);
        let (part, batch) = match mode {
            TimeInterval => (TIMED, world.interval(0, 2)),
            LeaderSelected => {
                let id = BatchId::new(random());
                (PartialBatchSelector::LeaderSelected(id), BatchSelector::LeaderSelected(id))
            }
        };
        let mut books = Books::default();
        world.aggregate(part, &world.sums(&[1, 2], world.time(0)), &mut books);
        world
            .post_share(&world.share_request(batch, &books))
            .refused("invalidBatchSize", &world.task_id);
        let lie = world.share_request_of(batch, 3, Checksum::default());
        world.post_share(&lie).refused("invalidBatchSize", &world.task_id);
        world.aggregate(part, &world.sums(&[3], world.time(1)), &mut books);
        world.collect(batch, &books);
    }
}

#[test]
fn an_interval_without_reports_is_too_small() {
    let world = World::new(server(), TimeInterval, |_| {});
    let answer =
        world.post_share(&world.share_request_of(world.interval(0, 5), 0, Checksum::default()));
    answer.refused("invalidBatchSize", &world.task_id);
}

#[test]
fn a_batch_that_is_too_large_is_refused() {
    let world = World::new(server(), LeaderSelected, |spec| spec.max_batch_size = Some(3));
    let id = BatchId::new(random());
    let mut books = Books::default();
    let reports = world.sums(&[1, 2, 3, 4], world.time(0));
    world.aggregate(PartialBatchSelector::LeaderSelected(id), &reports, &mut books);
    let request = world.share_request(BatchSelector::LeaderSelected(id), &books);
    world.post_share(&request).refused("invalidBatchSize", &world.task_id);
}

#[test]
fn an_interval_that_is_no_set_of_buckets_is_refused() {
    let (world, _, batch, books) = three(TimeInterval);
    let (count, checksum) = books.count(&batch, &world);
    let start = world.epoch;
    for (start, duration) in [
        (start, 0),
        (start, 1),
        (start, 3_599),
        (start, 3_601),
        (start + 1, 3_600),
        (start - 1, 3_600),
        (u64::MAX, 3_600),
        (u64::MAX - u64::MAX % 3_600, 3_600),
        (start, u64::MAX),
        (start, u64::MAX - u64::MAX % 3_600),
    ] {
        let batch = BatchSelector::TimeInterval {
            start: Time::from_seconds(start),
            duration: Duration::from_seconds(duration),
        };
        let answer = world.post_share(&world.share_request_of(batch, count, checksum));
        answer.refused("batchInvalid", &world.task_id);
    }
    world.collect(batch, &books);
}

#[test]
fn the_other_batch_mode_is_refused() {
    for mode in [TimeInterval, LeaderSelected] {
        let (world, _, batch, books) = three(mode);
        let (count, checksum) = books.count(&batch, &world);
        let other = match mode {
            TimeInterval => BatchSelector::LeaderSelected(BatchId::new(random())),
            LeaderSelected => world.interval(0, 1),
        };
        let answer = world.post_share(&world.share_request_of(other, count, checksum));
        answer.refused("invalidMessage", &world.task_id);
        world.collect(batch, &books);
    }
}

#[test]
fn a_malformed_request_is_refused() {
    let (world, _, batch, books) = three(TimeInterval);
    let request = world.share_request(batch, &books);
    for cut in 0..request.len() {
        world.post_share(&request[..cut]).refused("invalidMessage", &world.task_id);
    }
    world.post_share(&[&request[..], &[0]].concat()).refused("invalidMessage", &world.task_id);
    // An aggregation parameter, which Prio3 does not have: its length is after the 17 bytes of the selector.
    let with_param = [&request[..17], &[0, 0, 0, 1, 7], &request[21..]].concat();
    world.post_share(&with_param).refused("invalidMessage", &world.task_id);
    for query_type in [0, 3, 255] {
        let mut request = request.clone();
        request[0] = query_type;
        world.post_share(&request).refused("invalidMessage", &world.task_id);
    }
    world.collect(batch, &books);
}

#[test]
fn a_batch_id_that_no_job_named_is_refused() {
    let (world, _, batch, books) = three(LeaderSelected);
    let (count, checksum) = books.count(&batch, &world);
    let unknown = BatchSelector::LeaderSelected(BatchId::new(random()));
    let answer = world.post_share(&world.share_request_of(unknown, count, checksum));
    answer.refused("batchInvalid", &world.task_id);
    world.collect(batch, &books);
}

#[test]
fn intervals_that_overlap_a_collected_one_are_refused_and_others_are_not() {
    for (shards, group) in [(1, None), (4, Some(1)), (2, Some(0))] {
        let world = World::new(server(), TimeInterval, |spec| {
            spec.shards = shards;
            spec.buckets_per_group = group;
        });
        let mut books = Books::default();
        let reports: Vec<_> =
            (0..5).flat_map(|n| world.sums(&[n, 100 + n], world.time(n))).collect();
        world.aggregate(TIMED, &reports, &mut books);
        world.collect(world.interval(1, 2), &books);
        for (start, count) in [(0, 2), (0, 3), (0, 5), (1, 1), (2, 1), (2, 2), (1, 3)] {
            let request = world.share_request(world.interval(start, count), &books);
            world.post_share(&request).refused("batchOverlap", &world.task_id);
        }
        world.collect(world.interval(0, 1), &books);
        world.collect(world.interval(3, 2), &books);
    }
}

#[test]
fn reports_that_come_after_the_collection_are_refused() {
    for mode in [TimeInterval, LeaderSelected] {
        let (world, part, batch, mut books) = three(mode);
        let first = world.collect(batch, &books);
        // Many, so that each shard gets some, also one that was not born when the batch was collected.
        let numbers: Vec<u64> = (0..12).collect();
        let refused = world.run(world.job(part, &world.sums(&numbers, world.time(0))), &mut books);
        assert_eq!(refused.len(), 12);
        assert!(refused.iter().all(|(_, e)| *e == BatchCollected));
        // The same reports are no replays elsewhere: they were not counted.
        let (late, other) = (world.sums(&numbers, world.time(0)), BatchId::new(random()));
        if mode == LeaderSelected {
            assert_eq!(world.run(world.job(part, &late), &mut books).len(), 12);
            let part = PartialBatchSelector::LeaderSelected(other);
            world.aggregate(part, &late, &mut books);
            world.collect(BatchSelector::LeaderSelected(other), &books);
        } else {
            // A job half of which is late.
            let mixed = [&late[..], &world.sums(&numbers, world.time(1))[..]].concat();
            assert_eq!(world.run(world.timed_job(&mixed), &mut books).len(), 12);
            world.collect(world.interval(1, 1), &books);
        }
        assert_eq!(world.collect(batch, &books).body, first.body);
    }
}

/// A VDAF, the length of its verify key, and some measurements.
fn vdafs() -> Vec<(VdafConfig, usize, Vec<Measurement>)> {
    let vectors = || {
        (0..5).map(|n| Measurement::SumVec((0..6).map(|i| (n * 7 + i) % 16).collect())).collect()
    };
    vec![
        (
            VdafConfig::Prio3Count,
            16,
            [true, false, true, true, false].map(Measurement::Count).to_vec(),
        ),
        (
            VdafConfig::Prio3Sum { max_measurement: u64::MAX },
            16,
            [0, u64::MAX, 1, u64::MAX, 77].map(Measurement::Sum).to_vec(),
        ),
        (
            VdafConfig::Prio3SumVec { length: 6, max_measurement: 15, chunk_length: 5 },
            16,
            vectors(),
        ),
        (
            VdafConfig::Prio3Histogram { length: 10, chunk_length: 3 },
            16,
            [0, 9, 3, 9, 9].map(Measurement::Histogram).to_vec(),
        ),
        (
            VdafConfig::Prio3SumVecField64MultiproofHmacSha256Aes128 {
                length: 6,
                max_measurement: 15,
                chunk_length: 5,
                proofs: 3,
            },
            32,
            vectors(),
        ),
    ]
}

#[test]
fn every_vdaf_sums_to_the_truth_in_both_modes() {
    for (vdaf, key_len, measurements) in vdafs() {
        for mode in [TimeInterval, LeaderSelected] {
            println!("{} {mode:?}", vdaf.name());
            let world = World::new(server(), mode, |spec| {
                spec.vdaf = vdaf;
                spec.verify_key = random::<32>()[..key_len].to_vec();
                spec.shards = 2;
            });
            let id = BatchId::new(random());
            let (part, batch) = match mode {
                TimeInterval => (TIMED, world.interval(0, 2)),
                LeaderSelected => {
                    (PartialBatchSelector::LeaderSelected(id), BatchSelector::LeaderSelected(id))
                }
            };
            let mut books = Books::default();
            // Two jobs, so that sums are added to sums.
            for (n, half) in measurements.chunks(3).enumerate() {
                let reports: Vec<_> =
                    half.iter().map(|m| world.report(m.clone(), world.time(n as u64))).collect();
                world.aggregate(part, &reports, &mut books);
            }
            assert_eq!(books.count(&batch, &world).0, 5);
            world.collect(batch, &books);
        }
    }
}

#[test]
fn of_two_overlapping_requests_at_once_one_succeeds() {
    for (shards, group) in [(4, Some(1)), (2, Some(0))] {
        for _ in 0..4 {
            let world = Arc::new(World::new(server(), TimeInterval, |spec| {
                spec.shards = shards;
                spec.buckets_per_group = group;
            }));
            let mut books = Books::default();
            let reports: Vec<_> =
                (0..3).flat_map(|n| world.sums(&[n, 100 + n], world.time(n))).collect();
            world.aggregate(TIMED, &reports, &mut books);
            let batches = [world.interval(0, 2), world.interval(1, 2)];
            let senders = batches.map(|batch| {
                let (world, request) = (world.clone(), world.share_request(batch, &books));
                std::thread::spawn(move || until_final(|| world.post_share(&request)))
            });
            let answers = senders.map(|s| s.join().unwrap());
            let won = answers.iter().filter(|a| a.status == 200).count();
            assert_eq!(won, 1, "{answers:?}");
            for (batch, answer) in batches.into_iter().zip(&answers) {
                match answer.status {
                    200 => {
                        world.assert_true(batch, &books, answer);
                        world.collect(batch, &books);
                    }
                    _ => answer.refused("batchOverlap", &world.task_id),
                }
            }
        }
    }
}

#[test]
fn the_same_request_twice_at_once_is_one_collection() {
    for mode in [TimeInterval, LeaderSelected] {
        let (world, _, batch, books) = three(mode);
        let world = Arc::new(world);
        let request = world.share_request(batch, &books);
        let senders: Vec<_> = (0..4)
            .map(|_| {
                let (world, request) = (world.clone(), request.clone());
                std::thread::spawn(move || until_final(|| world.post_share(&request)))
            })
            .collect();
        let answers: Vec<_> = senders.into_iter().map(|s| s.join().unwrap()).collect();
        for answer in &answers {
            world.assert_true(batch, &books, answer);
            assert_eq!(answer.body, answers[0].body);
        }
    }
}
