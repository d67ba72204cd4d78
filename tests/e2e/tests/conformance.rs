//! The storage protocol's own suite, on Durable Objects in their real runtime.

use daphne_core::testing::conformance::{self, CASES};
use e2e::{Server, remote::RemoteObjects};
use futures::executor::block_on;

#[test]
fn durable_objects_conform() {
    let server = Server::start();
    let objects = RemoteObjects(server.client().clone());
    for case in CASES {
        println!("{case}");
        block_on(conformance::run(case, &objects));
    }
}

#[test]
fn durable_objects_conform_when_the_runtime_dies_between_cases() {
    let server = Server::start();
    let objects = RemoteObjects(server.client().clone());
    for case in CASES {
        println!("{case}");
        block_on(conformance::run(case, &objects));
        server.kill_workerd();
    }
}

/// Verdicts, replay index and decisions are rebuilt from what is stored, not only from memory.
#[test]
fn what_a_case_wrote_survives_the_death_of_the_runtime() {
    use daphne_core::{
        batch::BatchMode,
        store::message::AggregateStoreResponse as Stored,
        testing::conformance::{ONLY, Subject, commit, report, slice, soft, window, windows},
    };
    let server = Server::start();
    let objects = RemoteObjects(server.client().clone());
    let subject = Subject::new(&objects, "survives", BatchMode::TimeInterval, 1, 0);
    let first = commit(1, vec![slice(window(0), &[1, 2]), slice(window(4), &[3])]);
    assert_eq!(block_on(subject.commit(ONLY, first.clone())), Stored::Committed(vec![]));
    let collect = subject.collection(1, windows(0, 1), &[1, 2]);
    let answer = block_on(subject.collect(&collect));
    assert_eq!(subject.open(&collect, &answer), 3);
    server.kill_workerd();
    assert_eq!(block_on(subject.collect(&collect)), answer);
    assert_eq!(block_on(subject.commit(ONLY, first)), Stored::Committed(vec![]));
    let replay = commit(2, vec![slice(window(5), &[3, 4])]);
    assert_eq!(block_on(subject.commit(ONLY, replay)), soft(&[(3, 1)]));
    let late = commit(3, vec![slice(window(0), &[9])]);
    assert_eq!(block_on(subject.commit(ONLY, late)), Stored::Collected(vec![report(9)]));
}
