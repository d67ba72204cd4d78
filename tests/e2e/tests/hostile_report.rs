//! Reports at the edge of what is accepted, and with several faults at once.

use std::{sync::OnceLock, time::Duration as Wait};

use daphne_core::{
    batch::BatchMode::{LeaderSelected, TimeInterval},
    error::ReportError,
    ids::{BatchId, HpkeConfigId, TaskId},
    message::{BatchSelector, PartialBatchSelector},
    time::{Duration, Time},
    version::DapVersion::{self, V09, V18},
};
use e2e::{
    Server, World,
    forge::{
        Draft, Forged, TIMED, assert_counts, assert_counts_in, forge, job_body, refuses_only,
        unknown_key,
    },
    now,
    server::random,
};

fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(Server::start)
}

fn world(version: DapVersion) -> World {
    World::new_in(server(), version, TimeInterval, |_| {})
}

/// What a client does to its report.
type Change<'a> = &'a dyn Fn(&mut Draft);

/// What a job of these reports is answered with.
fn errors(
    world: &World,
    batch: PartialBatchSelector,
    reports: &[Forged],
) -> Vec<Option<ReportError>> {
    let answer = world.create(&job_body(world, batch, reports));
    let verdicts = world.verdicts(world.job_resp(&answer));
    verdicts.into_iter().map(|(_, error)| error).collect()
}

/// Runs `attempt` until the clock stands still meanwhile. It is told the time.
fn within_one_second(mut attempt: impl FnMut(u64)) {
    for _ in 0..20 {
        let before = now();
        while now() == before {
            std::thread::sleep(Wait::from_millis(2));
        }
        attempt(before + 1);
        if now() == before + 1 {
            return;
        }
    }
    panic!("every attempt took longer than a second");
}

#[test]
fn a_second_decides_whether_a_report_is_too_early() {
    // The default tolerance, and none.
    for (version, tolerance) in [(V09, 300), (V09, 0), (V18, 300), (V18, 0)] {
        let mut last = None;
        within_one_second(|now| {
            let world = World::new_in(server(), version, LeaderSelected, |spec| {
                spec.time_precision = Duration::from_seconds(1);
                spec.tolerable_clock_skew = Duration::from_seconds(tolerance);
            });
            let reports = [0, 1, 0, 1]
                .map(|late| forge(&world, 5, Time::from_seconds(now + tolerance + late), |_| ()));
            let batch = BatchId::new(random());
            let errors = errors(&world, PartialBatchSelector::LeaderSelected(batch), &reports);
            last = Some((world, batch, reports.map(|r| r.id), errors));
        });
        let (world, batch, ids, errors) = last.expect("an attempt");
        let early = Some(ReportError::ReportTooEarly);
        assert_eq!(errors, [None, early, None, early]);
        assert_counts_in(&world, BatchSelector::LeaderSelected(batch), &[ids[0], ids[2]]);
    }
}

#[test]
fn the_last_second_of_a_task_is_part_of_it() {
    let end = now() - 9 * 86_400;
    let world = World::new(server(), LeaderSelected, |spec| {
        spec.task_expiration = Some(Time::from_seconds(end));
    });
    let reports = [end - 1, end, end + 1].map(|t| forge(&world, 5, Time::from_seconds(t), |_| ()));
    let batch = BatchId::new(random());
    let errors = errors(&world, PartialBatchSelector::LeaderSelected(batch), &reports);
    assert_eq!(errors, [None, None, Some(ReportError::TaskExpired)]);
    let ids = reports.map(|r| r.id);
    assert_counts_in(&world, BatchSelector::LeaderSelected(batch), &ids[..2]);
}

/// The order is that of the code: key, decryption, decoding, time, extensions, proof.
#[test]
fn of_several_faults_the_first_in_a_fixed_order_is_named() {
    DapVersion::ALL.into_iter().for_each(of_several_faults_the_first_is_named);
}

fn of_several_faults_the_first_is_named(version: DapVersion) {
    let now = now();
    let future = move |d: &mut Draft| d.time = now + 400;
    let far_future = move |d: &mut Draft| d.time = u64::MAX;
    let past = move |d: &mut Draft| d.time = now - 14 * 86_400 - 100;
    let extended = |d: &mut Draft| d.extensions = vec![0x12, 0x34, 0, 0];
    let unproven = |d: &mut Draft| d.payload[10] ^= 1;
    let trailing = |d: &mut Draft| d.trailing = vec![0];
    let short = |d: &mut Draft| d.input_share.truncate(3);
    let elsewhere = |d: &mut Draft| d.task_id = TaskId::new(random());
    let stranger = |d: &mut Draft| d.config.id = HpkeConfigId(200);
    let faults: [(&[Change<'_>], ReportError); 12] = [
        (&[&stranger, &elsewhere, &trailing], unknown_key(version)),
        (&[&stranger, &far_future, &unproven], unknown_key(version)),
        (&[&elsewhere, &trailing, &future], ReportError::HpkeDecryptError),
        (&[&elsewhere, &far_future], ReportError::HpkeDecryptError),
        (&[&trailing, &future], ReportError::InvalidMessage),
        (&[&short, &far_future], ReportError::InvalidMessage),
        (&[&short, &past, &extended], ReportError::InvalidMessage),
        (&[&future, &extended], ReportError::ReportTooEarly),
        (&[&future, &unproven], ReportError::ReportTooEarly),
        (&[&far_future, &unproven, &extended], ReportError::ReportTooEarly),
        (&[&past, &unproven], ReportError::ReportDropped),
        (&[&extended, &unproven], ReportError::InvalidMessage),
    ];
    for (changes, error) in faults {
        let world = World::new_in(server(), version, TimeInterval, |spec| {
            spec.time_precision = Duration::from_seconds(1);
        });
        let report =
            forge(&world, 5, world.time(0), |d| changes.iter().for_each(|change| change(d)));
        refuses_only(&world, error, report);
    }
}

/// In DAP-09 only task id, metadata and public share are bound to a report, §4.5.1.3: a client that has the precision, the
/// batches or the aggregators' addresses wrong is still a client of the task.
#[test]
fn what_a_client_believes_of_the_task_does_not_matter() {
    let mut world = world(V09);
    world.reporter.time_precision = Duration::from_seconds(7);
    let odd = Time::from_seconds(world.time(0).as_seconds() + 1_000);
    let mut books = e2e::Books::default();
    world.aggregate(TIMED, &world.sums(&[1, 2], odd), &mut books);
    world.collect(world.interval(0, 1), &books);
}

/// A good report stays good whatever comes with it, as often as it takes.
#[test]
fn a_job_of_nothing_but_bad_reports_is_a_job() {
    for version in DapVersion::ALL {
        let world = world(version);
        let bad: Vec<_> = (0..20)
            .map(|n| {
                forge(&world, n, world.time(0), |d| match n % 4 {
                    0 => d.trailing = vec![0],
                    1 => d.payload.truncate(1),
                    2 => d.time = u64::MAX,
                    _ => d.info.clear(),
                })
            })
            .collect();
        let body = job_body(&world, TIMED, &bad);
        let id = world.job_id(&body);
        let answer = world.put_body(&id, &body);
        let refused = world.verdicts(world.job_resp(&answer));
        assert!(refused.len() == 20 && refused.iter().all(|(_, error)| error.is_some()));
        assert_eq!(world.put_body(&id, &body).body, answer.body);
        let good = [1, 2].map(|n| forge(&world, n, world.time(0), |_| ()));
        assert_eq!(errors(&world, TIMED, &good), [None, None]);
        assert_counts(&world, &good.map(|r| r.id));
    }
}
