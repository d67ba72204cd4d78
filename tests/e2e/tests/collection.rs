//! Collecting batches: what is refused and burns nothing, what is summed, and that it happens once.

use std::sync::{Arc, OnceLock};

use daphne_core::{
    batch::{
        BatchMode::{self, LeaderSelected, TimeInterval},
        Checksum,
    },
    error::ReportError::BatchCollected,
    hpke::Role,
    ids::{BatchId, ReportId},
    message::{BatchSelector, HpkeCiphertext, PartialBatchSelector},
    time::{Duration, Time},
    vdaf::{Measurement, VdafConfig},
    version::DapVersion::{self, V09, V18},
    wire::v18,
};
use e2e::{Books, KINDS, Server, World, server::random, world::until_final};

const TIMED: PartialBatchSelector = PartialBatchSelector::TimeInterval;

fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(Server::start)
}

/// A task of either mode, with four shards and groups of one bucket, and a batch of three reports in it.
fn three(
    (version, mode): (DapVersion, BatchMode),
) -> (World, PartialBatchSelector, BatchSelector, Books) {
    println!("{version:?} {mode:?}");
    let world = World::new_in(server(), version, mode, |spec| {
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
    for kind in KINDS {
        let (world, _, batch, books) = three(kind);
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
        let token = if kind.0 == V09 { "batchMismatch" } else { "batchOverlap" };
        answer.refused(token, &world.task_id);
        world.collect(batch, &books);
    }
}

#[test]
fn a_batch_that_is_too_small_is_refused_before_its_count_is_compared() {
    for (version, mode) in KINDS {
        let world = World::new_in(server(), version, mode, |spec| spec.min_batch_size = 3);
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
    for version in DapVersion::ALL {
        let world = World::new_in(server(), version, TimeInterval, |_| {});
        let empty = world.share_request_of(world.interval(0, 5), 0, Checksum::default());
        world.post_share(&empty).refused("invalidBatchSize", &world.task_id);
    }
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
    let (world, _, batch, books) = three((V09, TimeInterval));
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
    // In units: nothing is unaligned, and there is nothing to collect where no second is.
    let (world, _, batch, books) = three((V18, TimeInterval));
    let (count, checksum) = books.count(&batch, &world);
    let start = world.epoch / 3_600;
    for (start, duration) in [
        (start, 0),
        (0, 0),
        (u64::MAX, 0),
        (u64::MAX, 1),
        (u64::MAX - 1, 1),
        (start, u64::MAX),
        (start, u64::MAX - start + 1),
        (u64::MAX / 3_600, 1),
        (u64::MAX / 3_600 + 1, 1),
    ] {
        let query = v18::Query::TimeInterval(v18::Interval { start, duration });
        let selector = v18::BatchSelector::TimeInterval(v18::Interval { start, duration });
        let request = request_18(&query, &[], &selector, count, checksum);
        world.post_share(&request).refused("batchInvalid", &world.task_id);
    }
    world.collect(batch, &books);
}

/// A DAP-18 request with a query, collection extensions and a selector of its own.
fn request_18(
    query: &v18::Query,
    extensions: &[u8],
    selector: &v18::BatchSelector,
    report_count: u64,
    checksum: Checksum,
) -> Vec<u8> {
    let len = u16::try_from(extensions.len()).expect("few").to_be_bytes();
    [
        &query.encode().expect("a query")[..],
        &[0; 4],
        &len,
        extensions,
        &selector.encode().expect("a selector"),
        &report_count.to_be_bytes(),
        checksum.as_bytes(),
    ]
    .concat()
}

/// The units of an interval.
fn units(world: &World, batch: BatchSelector) -> v18::Interval {
    match v18::BatchSelector::of_message(&batch, world.spec.time_precision) {
        v18::BatchSelector::TimeInterval(interval) => interval,
        v18::BatchSelector::LeaderSelected(_) => panic!("not an interval"),
    }
}

#[test]
fn collection_extensions_are_refused_whatever_the_leader_thought_of_them() {
    for mode in [TimeInterval, LeaderSelected] {
        let (world, _, batch, books) = three((V18, mode));
        let (count, checksum) = books.count(&batch, &world);
        let selector = v18::BatchSelector::of_message(&batch, world.spec.time_precision);
        let query = match selector {
            v18::BatchSelector::TimeInterval(interval) => v18::Query::TimeInterval(interval),
            v18::BatchSelector::LeaderSelected(_) => v18::Query::LeaderSelected,
        };
        for (extensions, token) in [
            (&[0, 0, 0, 0][..], "unsupportedExtension"),
            (&[0, 1, 0, 0], "unsupportedExtension"),
            (&[0x12, 0x34, 0, 2, 7, 7], "unsupportedExtension"),
            (&[0, 1, 0, 0, 0, 2, 0, 1, 9], "unsupportedExtension"),
            (&[0, 2, 0, 0, 0, 1, 0, 0], "invalidExtension"),
            (&[0, 1, 0, 0, 0, 1, 0, 0], "invalidExtension"),
            (&[0, 1, 0], "invalidMessage"),
            (&[0, 1, 0, 1], "invalidMessage"),
        ] {
            let request = request_18(&query, extensions, &selector, count, checksum);
            world.post_share(&request).refused(token, &world.task_id);
        }
        world.collect(batch, &books);
    }
}

/// The leader may leave out buckets of the query. The share is of what it names; the rest is given up with it.
#[test]
fn what_a_leader_leaves_out_of_a_query_is_collected_with_the_rest() {
    for (shards, group) in [(1, None), (2, Some(1))] {
        let world = World::new_in(server(), V18, TimeInterval, |spec| {
            spec.shards = shards;
            spec.buckets_per_group = group;
        });
        let mut books = Books::default();
        let reports: Vec<_> =
            (0..4).flat_map(|n| world.sums(&[n, 100 + n], world.time(n))).collect();
        world.aggregate(TIMED, &reports, &mut books);
        let (whole, part) = (world.interval(0, 4), world.interval(1, 2));
        let query = v18::Query::TimeInterval(units(&world, whole));
        let request = |batch| {
            let (count, checksum) = books.count(&batch, &world);
            let selector = v18::BatchSelector::TimeInterval(units(&world, batch));
            request_18(&query, &[], &selector, count, checksum)
        };
        // Outside of it, or partly.
        for batch in [world.interval(4, 1), world.interval(3, 2), world.interval(0, 5)] {
            world.post_share(&request(batch)).refused("batchInvalid", &world.task_id);
        }
        // The count must be that of the selector.
        let (count, checksum) = books.count(&whole, &world);
        let selector = v18::BatchSelector::TimeInterval(units(&world, part));
        let lie = request_18(&query, &[], &selector, count, checksum);
        world.post_share(&lie).refused("batchMismatch", &world.task_id);
        let answer = world.post_share(&request(part));
        let binding = world.wire().share_binding(&[], &whole).expect("a query");
        let share = HpkeCiphertext::decode(world.share(&answer)).expect("a ciphertext");
        let open = |binding| {
            let task = world.collector_task();
            task.open_share(&world.collector_keys, Role::Helper, binding, share)
        };
        let opened = open(&binding).expect("the share is bound to the query");
        assert!(open(&world.wire().share_binding(&[], &part).expect("a query")).is_err());
        assert_eq!(world.sum_of(part, &books, &opened), world.truth_of(part, &books));
        assert_eq!(world.post_share(&request(part)).body, answer.body);
        // All of the query is used up: reports in the rest of it come too late, and it is not collected by itself.
        for bucket in 0..4 {
            let late = world.timed_job(&world.sums(&[7], world.time(bucket)));
            let refused = world.run(late, &mut books.clone());
            assert!(refused.len() == 1 && refused[0].1 == BatchCollected, "bucket {bucket}");
        }
        for batch in [world.interval(0, 1), world.interval(3, 1), whole, part] {
            let request = world.share_request(batch, &books);
            world.post_share(&request).refused("batchOverlap", &world.task_id);
        }
        // What is beside it is not, but a query that reaches into it is too late.
        world.aggregate(TIMED, &world.sums(&[1, 2], world.time(4)), &mut books);
        let beside = world.interval(4, 1);
        let held = books.count(&beside, &world);
        let request = world.share_request_within(&[], world.interval(3, 2), beside, held);
        world.post_share(&request).refused("batchOverlap", &world.task_id);
        world.collect(world.interval(4, 1), &books);
    }
}

/// Size and sum are those of what the leader names, however much more is in the query.
#[test]
fn the_rest_of_a_query_makes_no_batch_larger() {
    let world = World::new_in(server(), V18, TimeInterval, |spec| spec.min_batch_size = 3);
    let mut books = Books::default();
    world.aggregate(TIMED, &world.sums(&[1, 2], world.time(0)), &mut books);
    world.aggregate(TIMED, &world.sums(&[3, 4, 5], world.time(1)), &mut books);
    let query = world.interval(0, 2);
    let request = |batch| {
        let held = books.count(&batch, &world);
        world.share_request_within(&[], query, batch, held)
    };
    let refused = world.post_share(&request(world.interval(0, 1)));
    refused.refused("invalidBatchSize", &world.task_id);
    world.share(&world.post_share(&request(world.interval(1, 1))));
    let lost = world.post_share(&world.share_request(world.interval(0, 1), &books));
    lost.refused("batchOverlap", &world.task_id);
}

/// A collector may ask for as long an interval as there is: it costs no more, and ends the task.
#[test]
fn a_query_for_all_of_time_is_one() {
    let world = World::new_in(server(), V18, TimeInterval, |spec| {
        spec.shards = 2;
        spec.buckets_per_group = Some(1);
    });
    let mut books = Books::default();
    let reports: Vec<_> = (0..3).flat_map(|n| world.sums(&[n, 9], world.time(n))).collect();
    world.aggregate(TIMED, &reports, &mut books);
    let (count, checksum) = books.count(&world.interval(0, 3), &world);
    let all = v18::Interval { start: 0, duration: u64::MAX };
    let (query, selector) = (v18::Query::TimeInterval(all), v18::BatchSelector::TimeInterval(all));
    let beyond = v18::Interval { start: 1, ..all };
    for (query, selector) in [
        (v18::Query::TimeInterval(beyond), selector),
        (v18::Query::TimeInterval(v18::Interval { start: 1, duration: u64::MAX - 1 }), selector),
        (v18::Query::TimeInterval(units(&world, world.interval(0, 3))), selector),
    ] {
        let request = request_18(&query, &[], &selector, count, checksum);
        world.post_share(&request).refused("batchInvalid", &world.task_id);
    }
    let request = request_18(&query, &[], &selector, count, checksum);
    let answer = world.post_share(&request);
    world.share(&answer);
    assert_eq!(world.post_share(&request).body, answer.body);
    // Also where nothing was before.
    for bucket in [0, 2, 3, 100] {
        let late = world.timed_job(&world.sums(&[7], world.time(bucket)));
        let refused = world.run(late, &mut books.clone());
        assert!(refused.len() == 1 && refused[0].1 == BatchCollected, "bucket {bucket}");
    }
}

/// The answer to a request is a resource from then on. That its batch was collected outlives it.
#[test]
fn an_aggregate_share_can_be_fetched_until_it_is_deleted() {
    for mode in [TimeInterval, LeaderSelected] {
        let (world, _, batch, books) = three((V18, mode));
        let request = world.share_request(batch, &books);
        let answer = world.post_share(&request);
        let path = answer.header("location").to_owned();
        assert_eq!(path.rsplit_once('/').expect("a path").0, world.shares_path());
        let get = || world.get(&path);
        for answer in [get(), get(), world.post_share(&request)] {
            world.assert_true(batch, &books, &answer);
        }
        assert_eq!(get().body, answer.body);
        assert_eq!(world.post_share(&request).header("location"), path);
        // Only its leader gets it, and only there.
        world.client.get(&path).refused_to_strangers(V18, &world.task_id);
        let other = World::new_in(server(), V18, mode, |_| {});
        let elsewhere = path.replace(&world.task_id.to_string(), &other.task_id.to_string());
        other.get(&elsewhere).refused_without_type(404);
        assert_eq!(other.ask("DELETE", &elsewhere, "", None).status, 204);
        assert_eq!(get().body, answer.body);
        for bad in ["x", "", &"A".repeat(43), &"A".repeat(44)] {
            let path = format!("{}/{bad}", world.shares_path());
            world.get(&path).refused_without_type(404);
        }
        for _ in 0..2 {
            let deleted = world.ask("DELETE", &path, "", None);
            assert_eq!((deleted.status, deleted.body.len()), (204, 0));
            get().refused_without_type(404);
            world.post_share(&request).refused("batchOverlap", &world.task_id);
        }
        let (count, checksum) = books.count(&batch, &world);
        let other = world.share_request_of(batch, count + 1, checksum);
        world.post_share(&other).refused("batchOverlap", &world.task_id);
    }
}

#[test]
fn the_other_batch_mode_is_refused() {
    for kind in KINDS {
        let (world, _, batch, books) = three(kind);
        let (count, checksum) = books.count(&batch, &world);
        let other = match kind.1 {
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
    for version in DapVersion::ALL {
        let (world, _, batch, books) = three((version, TimeInterval));
        let refused =
            |request: &[u8], token| world.post_share(request).refused(token, &world.task_id);
        let request = world.share_request(batch, &books);
        for cut in 0..request.len() {
            refused(&request[..cut], "invalidMessage");
        }
        refused(&[&request[..], &[0]].concat(), "invalidMessage");
        // An aggregation parameter, which Prio3 does not have: its length is after selector or query.
        let (before, token, modes) = match version {
            V09 => (17, "invalidMessage", vec![0]),
            V18 => (19, "invalidAggregationParameter", vec![0, 19 + 4 + 2]),
        };
        let with_param = [&request[..before], &[0, 0, 0, 1, 7], &request[before + 4..]].concat();
        refused(&with_param, token);
        for at in modes {
            for mode in [0, 2, 3, 255] {
                let mut request = request.clone();
                request[at] = mode;
                refused(&request, "invalidMessage");
            }
        }
        world.collect(batch, &books);
    }
}

#[test]
fn queries_and_selectors_of_another_length_are_refused() {
    for mode in [TimeInterval, LeaderSelected] {
        let (world, _, batch, books) = three((V18, mode));
        let request = world.share_request(batch, &books);
        // Mode, length and configuration of the query; parameter and extensions; the same of the selector.
        let (code, query, selector): (u8, usize, usize) = match mode {
            TimeInterval => (1, 16, 16),
            LeaderSelected => (2, 0, 32),
        };
        let end = 3 + query + 6 + 3 + selector;
        assert_eq!(request.len(), end + 40);
        let with = |query: usize, selector: usize| {
            let config = |len: usize| {
                let mut bytes = vec![code, 0, u8::try_from(len).expect("short")];
                bytes.resize(3 + len, 0);
                bytes
            };
            [&config(query)[..], &[0; 6], &config(selector), &request[end..]].concat()
        };
        for (query, selector) in [
            (query + 1, selector),
            (query, selector + 1),
            (query, selector - 1),
            (query.abs_diff(1), selector),
            (query, 0),
        ] {
            let refused = world.post_share(&with(query, selector));
            refused.refused("invalidMessage", &world.task_id);
        }
        world.collect(batch, &books);
    }
}

#[test]
fn a_batch_id_that_no_job_named_is_refused() {
    for version in DapVersion::ALL {
        let (world, _, batch, books) = three((version, LeaderSelected));
        let (count, checksum) = books.count(&batch, &world);
        let unknown = BatchSelector::LeaderSelected(BatchId::new(random()));
        let answer = world.post_share(&world.share_request_of(unknown, count, checksum));
        answer.refused("batchInvalid", &world.task_id);
        world.collect(batch, &books);
    }
}

#[test]
fn intervals_that_overlap_a_collected_one_are_refused_and_others_are_not() {
    for (version, shards, group) in
        [(V09, 1, None), (V09, 4, Some(1)), (V09, 2, Some(0)), (V18, 4, Some(1)), (V18, 2, Some(0))]
    {
        let world = World::new_in(server(), version, TimeInterval, |spec| {
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
    for kind in KINDS {
        let mode = kind.1;
        let (world, part, batch, mut books) = three(kind);
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

/// A VDAF and some measurements.
fn vdafs(version: DapVersion) -> Vec<(VdafConfig, Vec<Measurement>)> {
    let vectors = || {
        (0..5).map(|n| Measurement::SumVec((0..6).map(|i| (n * 7 + i) % 16).collect())).collect()
    };
    let mut vdafs = vec![
        (VdafConfig::Prio3Count, [true, false, true, true, false].map(Measurement::Count).to_vec()),
        (VdafConfig::Prio3SumVec { length: 6, max_measurement: 15, chunk_length: 5 }, vectors()),
        (
            VdafConfig::Prio3Histogram { length: 10, chunk_length: 3 },
            [0, 9, 3, 9, 9].map(Measurement::Histogram).to_vec(),
        ),
        (
            VdafConfig::Prio3SumVecField64MultiproofHmacSha256Aes128 {
                length: 6,
                max_measurement: 15,
                chunk_length: 5,
                proofs: 3,
            },
            vectors(),
        ),
    ];
    vdafs.extend(match version {
        V09 => vec![(
            VdafConfig::Prio3Sum { max_measurement: u64::MAX },
            [0, u64::MAX, 1, u64::MAX, 77].map(Measurement::Sum).to_vec(),
        )],
        V18 => vec![
            // A maximum that is no power of two.
            (
                VdafConfig::Prio3Sum { max_measurement: 1_000_003 },
                [0, 1_000_003, 1, 1_000_002, 77].map(Measurement::Sum).to_vec(),
            ),
            (
                VdafConfig::Prio3MultihotCountVec { length: 6, max_weight: 3, chunk_length: 2 },
                ["000000", "100101", "111000", "000001", "010101"]
                    .map(|bits| {
                        Measurement::MultihotCountVec(bits.chars().map(|c| c == '1').collect())
                    })
                    .to_vec(),
            ),
        ],
    });
    vdafs
}

#[test]
fn every_vdaf_sums_to_the_truth_in_both_modes() {
    for (version, mode) in KINDS {
        for (vdaf, measurements) in vdafs(version) {
            println!("{version:?} {} {mode:?}", vdaf.name());
            let world = World::new_in(server(), version, mode, |spec| {
                spec.vdaf = vdaf;
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
    for (version, shards, group) in
        [(V09, 4, Some(1)), (V09, 2, Some(0)), (V18, 4, Some(1)), (V18, 2, Some(0))]
    {
        for _ in 0..if version == V09 { 4 } else { 2 } {
            let world = Arc::new(World::new_in(server(), version, TimeInterval, |spec| {
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
    for kind in KINDS {
        let (world, _, batch, books) = three(kind);
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
