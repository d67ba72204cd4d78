//! Jobs that are damaged anywhere, or as large as they get.

use std::{
    collections::BTreeSet,
    sync::{Mutex, OnceLock},
    time::{Duration, Instant},
};

use daphne_core::{
    batch::BatchMode::TimeInterval,
    hpke::SealedMessage,
    ids::HpkeConfigId,
    version::DapVersion::{self, V18},
};
use e2e::{
    Server, World,
    forge::{Forged, TIMED, assert_counts, forge, job_body, unknown_key, written},
};

fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(Server::start)
}

/// Each byte of a job changed, in a job of its own: the whole is malformed, or single reports are refused. What was not
/// touched counts once, however often it comes.
#[test]
fn whatever_byte_of_a_job_is_changed_at_most_reports_are_refused() {
    DapVersion::ALL.into_iter().for_each(whatever_byte_of_a_job_is_changed);
}

fn whatever_byte_of_a_job_is_changed(version: DapVersion) {
    let world = World::new_in(server(), version, TimeInterval, |spec| spec.shards = 2);
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
                    let answer = world.create(&body);
                    if answer.status == 400 {
                        let token = answer.problem_token();
                        let is_head = version == V18 && n < 7;
                        assert!(token == "invalidMessage" || is_head, "byte {n}: {token}");
                        answer.refused(&token, &world.task_id);
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
    DapVersion::ALL.into_iter().for_each(a_job_may_have_ten_thousand_reports);
}

fn a_job_may_have_ten_thousand_reports(version: DapVersion) {
    let world = World::new_in(server(), version, TimeInterval, |_| {});
    let nobodys = |n: u128| Forged {
        id: n.to_be_bytes(),
        time: written(&world, world.time(0)),
        public_extensions: Vec::new(),
        public_share: Vec::new(),
        sealed: SealedMessage {
            config_id: HpkeConfigId(200),
            enc: Vec::new(),
            payload: Vec::new(),
        },
        payload: vec![0],
    };
    let reports: Vec<_> = (0..10_001).map(nobodys).collect();
    // In DAP-18 what is too much for one request is answered later.
    let create = |reports: &[Forged]| {
        let body = job_body(&world, TIMED, reports);
        let mut answer = world.create(&body);
        let deadline = Instant::now() + Duration::from_secs(120);
        while version == V18 && answer.status == 200 && answer.body.is_empty() {
            assert!(Instant::now() < deadline, "no answer");
            std::thread::sleep(Duration::from_millis(200));
            answer = world.get(&format!("{}?step=0", world.job_path(&world.job_id(&body))));
        }
        answer
    };
    if version == DapVersion::V09 {
        create(&reports).refused("invalidMessage", &world.task_id);
    } else {
        let verdicts = world.verdicts(world.job_resp(&create(&reports)));
        assert!(verdicts.iter().map(|(id, _)| *id.as_bytes()).eq(reports.iter().map(|r| r.id)));
    }
    let answer = create(&reports[..10_000]);
    let verdicts = world.verdicts(world.job_resp(&answer));
    assert_eq!(verdicts.len(), 10_000);
    for ((id, error), report) in verdicts.iter().zip(&reports) {
        assert_eq!(*id.as_bytes(), report.id);
        assert_eq!(*error, Some(unknown_key(version)));
    }
    let good = [1, 2].map(|n| forge(&world, n, world.time(0), |_| ()));
    let answer = create(&good);
    assert_eq!(answer.status, 200);
    assert_counts(&world, &good.map(|r| r.id));
}
