//! Jobs that are damaged anywhere, or as large as they get.

use std::{
    collections::BTreeSet,
    sync::{Mutex, OnceLock},
};

use daphne_core::{
    batch::BatchMode::TimeInterval,
    error::ReportError,
    hpke::SealedMessage,
    ids::{AggregationJobId, HpkeConfigId},
};
use e2e::{
    Server, World,
    forge::{Forged, TIMED, assert_counts, forge, job_body},
    server::random,
};

fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(Server::start)
}

/// Each byte of a job changed, in a job of its own: the whole is malformed, or single reports are refused. What was not
/// touched counts once, however often it comes.
#[test]
fn whatever_byte_of_a_job_is_changed_at_most_reports_are_refused() {
    let world = World::new(server(), TimeInterval, |spec| spec.shards = 2);
    let reports = [1, 2].map(|n| forge(&world, n, world.time(0), |_| ()));
    let ids = reports.each_ref().map(|r| r.id);
    let body = job_body(&world, TIMED, &reports);
    let counted = Mutex::new(BTreeSet::new());
    let bytes: Vec<usize> = (0..body.len()).collect();
    std::thread::scope(|scope| {
        for some in bytes.chunks(body.len().div_ceil(4)) {
            let (world, body, counted) = (&world, &body, &counted);
            scope.spawn(move || {
                for &n in some {
                    let mut body = body.clone();
                    body[n] ^= 1 << (n % 8);
                    let answer = world.put_body(&AggregationJobId::new(random()), &body);
                    if answer.status == 400 {
                        answer.refused("invalidMessage", &world.task_id);
                        continue;
                    }
                    let verdicts = world.verdicts(world.job_resp(&answer));
                    assert_eq!(verdicts.len(), 2, "byte {n}");
                    assert!(verdicts.iter().any(|(_, error)| error.is_some()) || n == 0);
                    for (id, error) in verdicts {
                        if error.is_none() {
                            let is_first = counted.lock().unwrap().insert(*id.as_bytes());
                            assert!(is_first, "byte {n}: counted twice");
                        }
                    }
                }
            });
        }
    });
    assert_eq!(*counted.lock().unwrap(), ids.into());
    assert_counts(&world, &ids);
}

#[test]
fn a_job_may_have_ten_thousand_reports_and_no_more() {
    let world = World::new(server(), TimeInterval, |_| {});
    let nobodys = |n: u128| Forged {
        id: n.to_be_bytes(),
        time: world.time(0).as_seconds(),
        public_extensions: Vec::new(),
        public_share: Vec::new(),
        sealed: SealedMessage {
            config_id: HpkeConfigId(200),
            enc: Vec::new(),
            payload: Vec::new(),
        },
        payload: Vec::new(),
    };
    let reports: Vec<_> = (0..10_001).map(nobodys).collect();
    let id = AggregationJobId::new(random());
    world
        .put_body(&id, &job_body(&world, TIMED, &reports))
        .refused("invalidMessage", &world.task_id);
    let answer = world.put_body(&id, &job_body(&world, TIMED, &reports[..10_000]));
    let verdicts = world.verdicts(world.job_resp(&answer));
    assert_eq!(verdicts.len(), 10_000);
    for ((id, error), report) in verdicts.iter().zip(&reports) {
        assert_eq!(*id.as_bytes(), report.id);
        assert_eq!(*error, Some(ReportError::HpkeUnknownConfigId));
    }
    let good = [1, 2].map(|n| forge(&world, n, world.time(0), |_| ()));
    let answer = world.put_body(&AggregationJobId::new(random()), &job_body(&world, TIMED, &good));
    assert_eq!(answer.status, 200);
    assert_counts(&world, &good.map(|r| r.id));
}
