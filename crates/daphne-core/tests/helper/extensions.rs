//! What only DAP-18 has: a task with a beginning, and extensions for everyone to see.

use daphne_core::{
    batch::{BatchBucket, BucketRange},
    error::ReportError,
    message::VerifyRespResult,
    time::{Duration, Interval, Time},
    upload::client::{ReportExtensions, ReportRandomness},
    vdaf::Measurement,
};

use crate::world::{NOW, SHAPES, TICK, World, codes};

#[test]
fn a_tasks_reports_are_of_its_interval() {
    for shape in SHAPES[1] {
        let mut w = World::new(shape);
        w.task.parameters.task_start = Some(Time::from_seconds(NOW - 100));
        let at = |id, time| w.report_at(id, 1, time);
        let reports = [
            at(1, NOW - 100 - TICK),
            at(2, NOW - 100),
            at(3, NOW + 200),
            at(4, NOW + 200 + TICK),
            // Too early is also too late, and what is looked at first counts.
            at(5, NOW + 300 + TICK),
        ];
        let (answers, _) = w.run(1, 1, &reports);
        let [not_started, expired] =
            [ReportError::TaskNotStarted, ReportError::TaskExpired].map(Some);
        let too_early = Some(ReportError::ReportTooEarly);
        assert_eq!(codes(&answers), [not_started, None, None, expired, too_early]);
        // What the clock says is recorded.
        w.now = NOW + 3_600;
        assert_eq!(w.put(1, w.begin(1, &reports).request()).unwrap(), answers);
    }
}

#[test]
fn extensions_are_refused_with_their_report_whoever_may_see_them() {
    let make = |w: &World, id: u8, public: &[(u16, &[u8])], private: &[(u16, &[u8])]| {
        let random =
            ReportRandomness { report_id: [id; 16], leader_seed: [id; 32], helper_seed: [!id; 32] };
        let extensions = ReportExtensions { public, private };
        let time = Time::from_seconds(NOW - 10);
        w.client().report_with_extensions(&Measurement::Sum(1), time, extensions, &random).unwrap()
    };
    for shape in SHAPES[1] {
        let w = World::new(shape);
        let reports = [
            make(&w, 1, &[], &[]),
            make(&w, 2, &[(1, b"x")], &[]),
            make(&w, 3, &[], &[(1, b"x")]),
            make(&w, 4, &[(1, b"")], &[(1, b"")]),
            make(&w, 5, &[(2, b""), (1, b"")], &[]),
            make(&w, 6, &[], &[(2, b""), (1, b"")]),
            make(&w, 7, &[(1, b""), (1, b"")], &[]),
            make(&w, 8, &[], &[]),
        ];
        let (answers, outcome) = w.run(1, 1, &reports);
        let invalid = Some(ReportError::InvalidMessage);
        let expected = [None, invalid, invalid, invalid, invalid, invalid, invalid, None];
        assert_eq!(codes(&answers), expected);
        assert_eq!(w.totals(&[outcome]).into_values().collect::<Vec<_>>(), [(2, "2".to_owned())]);
    }
}

/// To the leader, a report sealed to an unknown key is one that does not open.
#[test]
fn the_code_of_an_unknown_key_is_the_versions() {
    for (shapes, code) in SHAPES.into_iter().zip([3, 5]) {
        let w = World::new(shapes[0]);
        let bytes = w.report_at(1, 1, NOW - 10);
        let mut report = w.wire().report(&bytes).unwrap();
        report.helper_encrypted_input_share.config_id.0 ^= 1;
        let report = w.wire().encode_report(report).unwrap();
        let job = w.begin(1, &[report]);
        let answers = w.put(1, job.request()).unwrap();
        let unknown = VerifyRespResult::Reject(ReportError::HpkeUnknownConfigId);
        assert_eq!(answers[0].result, unknown, "counters tell it from a broken share");
        let sent = w.wire().encode_aggregation_job_resp(&answers).unwrap();
        assert_eq!(sent.last(), Some(&code));
    }
}

/// A time that no second can express belongs to no batch that anybody can ask for.
#[test]
fn the_last_unit_of_all_time_is_too_early() {
    let w = World::new(SHAPES[1][0]);
    let bytes = w.report_at(1, 1, NOW - 10);
    let report = w.wire().report(&bytes).unwrap();
    let mut metadata = report.metadata.encoded.to_vec();
    metadata[16..24].fill(0xff);
    let neutral = w.wire().decode_report_metadata(&metadata).unwrap();
    assert_eq!(neutral.time, Time::from_seconds(u64::MAX));
    let window = BatchBucket::Window(neutral.time.round_down(Duration::from_seconds(TICK)));
    let all = v18_interval(0, u64::MAX);
    assert!(!BucketRange::Windows(all).contains(&window));
}

fn v18_interval(start: u64, duration: u64) -> Interval {
    let interval = daphne_core::wire::v18::Interval { start, duration };
    let (start, duration) = interval.seconds(Duration::from_seconds(TICK));
    Interval::new(start, duration).unwrap()
}
