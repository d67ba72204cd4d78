//! Tasks of both versions in one deployment: they share keys and objects' classes, and nothing that counts.

use std::sync::OnceLock;

use daphne_core::{
    batch::BatchMode::{LeaderSelected, TimeInterval},
    error::ReportError::HpkeDecryptError,
    ids::BatchId,
    message::{BatchSelector, PartialBatchSelector},
    version::DapVersion::{self, V09, V18},
};
use e2e::{Books, Server, World, server::random};

fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(Server::start)
}

/// Reports of both tasks have the same ids, times and measurements, and their batches the same id: each counts once in each.
#[test]
fn reports_of_two_versions_with_the_same_ids_count_in_both() {
    for mode in [TimeInterval, LeaderSelected] {
        let worlds = DapVersion::ALL.map(|version| World::new_in(server(), version, mode, |_| {}));
        assert_eq!(worlds[0].epoch, worlds[1].epoch);
        let ids: Vec<[u8; 16]> = (0..4).map(|_| random()).collect();
        let batch = BatchId::new([3; 32]);
        let (part, selector) = match mode {
            TimeInterval => (PartialBatchSelector::TimeInterval, worlds[0].interval(0, 2)),
            LeaderSelected => {
                (PartialBatchSelector::LeaderSelected(batch), BatchSelector::LeaderSelected(batch))
            }
        };
        let reports = worlds.each_ref().map(|world| {
            let report = |(n, id): (u64, &[u8; 16])| {
                world.report_with_id(*id, world.measurement(60 * n), world.time(n % 2))
            };
            (0..).zip(&ids).map(report).collect::<Vec<_>>()
        });
        let mut books = [Books::default(), Books::default()];
        for half in [0..2, 2..4] {
            for ((world, reports), books) in worlds.iter().zip(&reports).zip(&mut books) {
                world.aggregate(part, &reports[half.clone()], books);
            }
        }
        assert_eq!(books[0].count(&selector, &worlds[0]), books[1].count(&selector, &worlds[1]));
        for (world, books) in worlds.iter().zip(&books) {
            world.collect(selector, books);
        }
    }
}

/// A task of each version with the same id cannot be: who creates the second is told.
#[test]
fn an_id_is_of_one_version() {
    let first = World::new_in(server(), V09, TimeInterval, |_| {});
    let mut spec = World::new_in(server(), V18, TimeInterval, |_| {}).spec;
    spec.task_id = Some(first.task_id);
    let refused = server().admin().create_task(&spec).expect_err("the id is taken");
    assert!(refused.to_string().contains("409"), "{refused}");
}

/// Both versions know a client's share by its key alone: what was sealed for one does not open for the other.
#[test]
fn a_share_of_one_version_does_not_open_in_the_other() {
    let (old, new) = (
        World::new_in(server(), V09, TimeInterval, |_| {}),
        World::new_in(server(), V18, TimeInterval, |_| {}),
    );
    for (from, to) in [(&old, &new), (&new, &old)] {
        let theirs = from.timed_job(&from.sums(&[1, 2], from.time(0)));
        let ours = to.timed_job(&to.sums(&[1, 2], to.time(0)));
        let theirs = from.wire().aggregation_job_init(&theirs.body).expect("a request");
        let mut init = to.wire().aggregation_job_init(&ours.body).expect("a request");
        let share = theirs.verify_inits[0].report_share.encrypted_input_share;
        init.verify_inits[0].report_share.encrypted_input_share = share;
        let body = to.wire().encode_aggregation_job_init(&init).expect("a request");
        let answer = to.create(&body);
        let verdicts = to.verdicts(to.job_resp(&answer));
        let errors: Vec<_> = verdicts.into_iter().map(|(_, error)| error).collect();
        assert_eq!(errors, [Some(HpkeDecryptError), None]);
    }
}
