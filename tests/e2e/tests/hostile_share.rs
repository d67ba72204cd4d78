//! Aggregate-share requests that are damaged anywhere or wrong in several ways, and what the right one is answered with.

use std::sync::OnceLock;

use daphne_core::{
    batch::{
        BatchMode::{self, LeaderSelected, TimeInterval},
        Checksum,
    },
    collect::collector::CollectorTask,
    hpke::Role,
    ids::{BatchId, TaskId},
    message::{BatchSelector, HpkeCiphertext, PartialBatchSelector},
    time::{Duration, Time},
    version::DapVersion::{self, V09, V18},
};
use e2e::{Books, KINDS, Server, World, forge::TIMED, server::random, world::keypair};

fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(Server::start)
}

/// A task with a batch of three reports in it.
fn three((version, mode): (DapVersion, BatchMode)) -> (World, BatchSelector, Books) {
    println!("{version:?} {mode:?}");
    let world = World::new_in(server(), version, mode, |_| {});
    let id = BatchId::new(random());
    let (part, batch) = match mode {
        TimeInterval => (TIMED, world.interval(0, 1)),
        LeaderSelected => {
            (PartialBatchSelector::LeaderSelected(id), BatchSelector::LeaderSelected(id))
        }
    };
    let mut books = Books::default();
    world.aggregate(part, &world.sums(&[1, 2, 250], world.time(0)), &mut books);
    (world, batch, books)
}

#[test]
fn whatever_byte_of_a_share_request_is_changed_it_burns_nothing() {
    for kind in KINDS {
        let (world, batch, books) = three(kind);
        let request = world.share_request(batch, &books);
        let mut known = vec!["invalidMessage", "batchInvalid", "invalidBatchSize", "batchMismatch"];
        if kind.0 == V18 {
            known.extend(["unsupportedExtension", "invalidAggregationParameter"]);
        }
        let mut narrowed = Vec::new();
        for n in 0..request.len() {
            for bit in [0, 3, 7] {
                let mut request = request.clone();
                request[n] ^= 1 << bit;
                // A longer query than the selector, or an earlier one: that is right.
                if kind == (V18, TimeInterval) && (3..19).contains(&n) && covers(&request[3..]) {
                    narrowed.push(request);
                    continue;
                }
                let answer = world.post_share(&request);
                let token = answer.problem_token();
                assert!(known.contains(&token.as_str()), "byte {n}, bit {bit}: {}", answer.text());
                answer.refused(&token, &world.task_id);
            }
        }
        let share = world.collect(batch, &books);
        // Nor does it change what was collected.
        for n in 0..request.len() {
            let mut request = request.clone();
            request[n] ^= 1;
            assert_eq!(world.post_share(&request).status, 400, "byte {n}");
        }
        for request in narrowed {
            world.post_share(&request).refused("batchOverlap", &world.task_id);
        }
        assert_eq!(world.collect(batch, &books).body, share.body);
    }
}

/// Whether the interval that a DAP-18 request asks for, its encoding first, covers that of its selector.
fn covers(intervals: &[u8]) -> bool {
    let number = |at: usize| {
        let bytes = intervals[at..at + 8].try_into().expect("eight bytes");
        u128::from(u64::from_be_bytes(bytes))
    };
    let ((start, duration), (from, length)) = ((number(0), number(8)), (number(25), number(33)));
    let end = start + duration;
    start <= from && from + length <= end && end <= u128::from(u64::MAX)
}

/// Malformed, of another mode, no set of buckets, overlapping, too small, mismatching: the first that is true is said.
#[test]
fn of_several_faults_of_a_share_request_the_first_is_named() {
    for version in DapVersion::ALL {
        let world = World::new_in(server(), version, TimeInterval, |_| {});
        let mut books = Books::default();
        let reports: Vec<_> = (0..4).flat_map(|n| world.sums(&[n, 9], world.time(n))).collect();
        world.aggregate(TIMED, &reports, &mut books);
        world.aggregate(TIMED, &world.sums(&[7], world.time(6)), &mut books);
        world.collect(world.interval(1, 2), &books);
        let unaligned = BatchSelector::TimeInterval {
            start: Time::from_seconds(world.time(1).as_seconds() + 1),
            duration: Duration::from_seconds(3_600),
        };
        let elsewhere = BatchSelector::LeaderSelected(BatchId::new(random()));
        let mut cases = vec![
            (elsewhere, "invalidMessage"),
            (world.interval(1, 0), "batchInvalid"),
            (world.interval(1, 1), "batchOverlap"),
            // A part of it was collected, and all of it is too small.
            (world.interval(2, 1), "batchOverlap"),
            (world.interval(6, 1), "invalidBatchSize"),
            (world.interval(9, 1), "invalidBatchSize"),
            (world.interval(3, 1), "batchMismatch"),
        ];
        if version == V09 {
            cases.push((unaligned, "batchInvalid"));
        }
        for (batch, token) in cases {
            // A count and a checksum that are wrong everywhere.
            let lie = world.share_request_of(batch, 77, Checksum::new([1; 32]));
            world.post_share(&lie).refused(token, &world.task_id);
            let malformed = [&lie[..], &[0]].concat();
            world.post_share(&malformed).refused("invalidMessage", &world.task_id);
        }
        world.collect(world.interval(3, 1), &books);
        world.collect(world.interval(0, 1), &books);
    }
}

#[test]
fn a_share_is_sealed_to_the_collector_and_names_its_key() {
    for kind in KINDS {
        let (world, batch, books) = three(kind);
        let answer = world.collect(batch, &books);
        let share = HpkeCiphertext::decode(&answer.body).unwrap();
        assert_eq!(share.config_id, world.spec.collector_hpke_config.id);
        let bound = |param: &[u8]| world.wire().share_binding(param, &batch).unwrap();
        let mut other_batch = bound(&[]);
        *other_batch.last_mut().unwrap() ^= 1;
        let (keys, stranger) = (&world.collector_keys, &keypair(2));
        let whole = world.collector_task();
        let opens = |task: CollectorTask<'_>, keys, role, binding: &[u8]| {
            task.open_share(keys, role, binding, share).is_ok()
        };
        assert!(opens(whole, keys, Role::Helper, &bound(&[])));
        let other_task = CollectorTask { task_id: &TaskId::new(random()), ..whole };
        assert!(!opens(other_task, keys, Role::Helper, &bound(&[])));
        assert!(!opens(whole, stranger, Role::Helper, &bound(&[])));
        assert!(!opens(whole, keys, Role::Leader, &bound(&[])));
        assert!(!opens(whole, keys, Role::Helper, &bound(&[0])));
        assert!(!opens(whole, keys, Role::Helper, &other_batch));
        // In DAP-18 also to the configuration, to its last byte.
        let mut configuration = world.spec.task_configuration.clone();
        configuration.push(0);
        let otherwise = CollectorTask { task_configuration: &configuration, ..whole };
        assert!(!opens(otherwise, keys, Role::Helper, &bound(&[])));
    }
}
