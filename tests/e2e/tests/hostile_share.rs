//! Aggregate-share requests that are damaged anywhere or wrong in several ways, and what the right one is answered with.

use std::sync::OnceLock;

use daphne_core::{
    batch::{
        BatchMode::{LeaderSelected, TimeInterval},
        Checksum,
    },
    collect::collector::CollectorTask,
    hpke::Role,
    ids::{BatchId, TaskId},
    message::{BatchSelector, HpkeCiphertext, PartialBatchSelector},
    time::{Duration, Time},
};
use e2e::{
    Books, Server, World,
    forge::TIMED,
    server::random,
    world::{encode_selector, keypair, share_request},
};

fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(Server::start)
}

/// A task with a batch of three reports in it.
fn three(mode: daphne_core::batch::BatchMode) -> (World, BatchSelector, Books) {
    let world = World::new(server(), mode, |_| {});
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
    for mode in [TimeInterval, LeaderSelected] {
        let (world, batch, books) = three(mode);
        let request = world.share_request(batch, &books);
        for n in 0..request.len() {
            for bit in [0, 3, 7] {
                let mut request = request.clone();
                request[n] ^= 1 << bit;
                let answer = world.post_share(&request);
                let token = answer.problem_token();
                let known = ["invalidMessage", "batchInvalid", "invalidBatchSize", "batchMismatch"];
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
        assert_eq!(world.collect(batch, &books).body, share.body);
    }
}

/// Malformed, of another mode, no set of buckets, overlapping, too small, mismatching: the first that is true is said.
#[test]
fn of_several_faults_of_a_share_request_the_first_is_named() {
    let world = World::new(server(), TimeInterval, |_| {});
    let mut books = Books::default();
    let reports: Vec<_> = (0..4).flat_map(|n| world.sums(&[n, 9], world.time(n))).collect();
    world.aggregate(TIMED, &reports, &mut books);
    world.aggregate(TIMED, &world.sums(&[7], world.time(6)), &mut books);
    world.collect(world.interval(1, 2), &books);
    let start = world.time(1).as_seconds();
    let unaligned = BatchSelector::TimeInterval {
        start: Time::from_seconds(start + 1),
        duration: Duration::from_seconds(3_600),
    };
    let elsewhere = BatchSelector::LeaderSelected(BatchId::new(random()));
    for (batch, token) in [
        (elsewhere, "invalidMessage"),
        (unaligned, "batchInvalid"),
        (world.interval(1, 1), "batchOverlap"),
        // A part of it was collected, and all of it is too small.
        (world.interval(2, 1), "batchOverlap"),
        (world.interval(6, 1), "invalidBatchSize"),
        (world.interval(9, 1), "invalidBatchSize"),
        (world.interval(3, 1), "batchMismatch"),
    ] {
        // A count and a checksum that are wrong everywhere.
        let lie = world.share_request_of(batch, 77, Checksum::new([1; 32]));
        world.post_share(&lie).refused(token, &world.task_id);
        let malformed = [&lie[..], &[0]].concat();
        world.post_share(&malformed).refused("invalidMessage", &world.task_id);
    }
    world.collect(world.interval(3, 1), &books);
    world.collect(world.interval(0, 1), &books);
}

#[test]
fn a_share_is_sealed_to_the_collector_and_names_its_key() {
    for mode in [TimeInterval, LeaderSelected] {
        let (world, batch, books) = three(mode);
        let answer = world.collect(batch, &books);
        let share = HpkeCiphertext::decode(&answer.body).unwrap();
        assert_eq!(share.config_id, world.spec.collector_hpke_config.id);
        let bound = |param: &[u8]| world.wire().share_binding(param, &batch).unwrap();
        let mut other_batch = bound(&[]);
        *other_batch.last_mut().unwrap() ^= 1;
        let (keys, stranger) = (&world.collector_keys, &keypair(2));
        let task = &world.task_id;
        let opens = |task: &TaskId, keys, role, binding: &[u8]| {
            let task = CollectorTask { task_id: task, ..world.collector_task() };
            task.open_share(keys, role, binding, share).is_ok()
        };
        assert!(opens(task, keys, Role::Helper, &bound(&[])));
        assert!(!opens(&TaskId::new(random()), keys, Role::Helper, &bound(&[])));
        assert!(!opens(task, stranger, Role::Helper, &bound(&[])));
        assert!(!opens(task, keys, Role::Leader, &bound(&[])));
        assert!(!opens(task, keys, Role::Helper, &bound(&[0])));
        assert!(!opens(task, keys, Role::Helper, &other_batch));
    }
}
