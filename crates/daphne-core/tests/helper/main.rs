//! The helper's aggregation jobs on objects in memory: verdicts per report, replays, repeats, conflicts and faults, with
//! real clients' and leaders' messages.
#![cfg(not(target_arch = "wasm32"))]

use daphne_core::{
    aggregate::{
        commit::{self},
        helper::{HpkeKeyring, RingKey},
    },
    batch::{BatchBucket, BatchMode},
    error::{AbortKind, Error, Internal, ReportError},
    ids::{AggregationJobId, BatchId, HpkeConfigId, ReportId},
    message::{AggregationJobInit, PartialBatchSelector, Report},
    store::{
        message::{AggregateStoreResponse, StoreAction},
        placement::ShardKey,
    },
    testing::memory::Fate,
    time::{Interval, Time},
    upload::client::ReportRandomness,
    vdaf::{Measurement, Vdaf, VdafConfig},
};
use futures::executor::block_on;

mod agreement;
mod deleted;
mod extensions;
mod world;

use world::{GROUPS, NOW, PRECISION, SHAPES, Shape, TICK, WHOLE, World, codes};

#[test]
fn a_job_is_verified_spread_over_its_owners_and_summed() {
    for shape in SHAPES.into_iter().flatten() {
        let w = World::new(shape);
        let ids: Vec<u8> = (1..=40).collect();
        let (answers, outcome) = w.run(1, 1, &w.reports(&ids));
        assert!(codes(&answers).iter().all(Option::is_none));
        let expected: u64 = (1..=40).sum();
        let totals = w.totals(&[outcome]);
        assert_eq!(totals.values().next(), Some(&(40, expected.to_string())));
        let stores = w.cluster.stores_of(w.task.id());
        assert_eq!(stores.len(), 4, "every shard owns some of 40 reports");
        assert!(stores.iter().all(|(_, t)| t.jobs().count() == 1), "one row per job and store");
    }
}

#[test]
fn a_replay_is_refused_and_taken_out_of_the_sum() {
    for shape in SHAPES.into_iter().flatten() {
        let w = World::new(shape);
        let (_, first) = w.run(1, 1, &w.reports(&[1, 2, 3, 4]));
        // Another job and, where there is one, another batch; new encryptions under the old ids.
        let (answers, second) = w.run(2, 2, &w.reports(&[9, 2, 8, 4, 7]));
        let replayed = Some(ReportError::ReportReplayed);
        assert_eq!(codes(&answers), [None, replayed, None, replayed, None]);
        let totals = w.totals(&[first, second]);
        let counts: Vec<_> = totals.values().cloned().collect();
        match shape.mode {
            BatchMode::TimeInterval => assert_eq!(counts, [(7, "34".to_owned())]),
            BatchMode::LeaderSelected => {
                assert_eq!(counts, [(4, "10".to_owned()), (3, "24".to_owned())]);
            }
        }
    }
}

#[test]
fn a_repeat_gets_the_same_answer_whatever_the_clock_says_meanwhile() {
    for shape in SHAPES.into_iter().flatten() {
        let mut w = World::new(shape);
        let mut reports = w.reports(&[1, 2]);
        let early = w.report_at(3, 3, NOW + 300 + w.tick());
        let just_in_time = w.report_at(4, 4, NOW + 200);
        let just_young_enough = w.report_at(5, 5, NOW - 14 * 86_400);
        reports.extend([early, just_in_time, just_young_enough]);
        let job = w.begin(1, &reports);
        let first = w.put(1, job.request()).unwrap();
        assert_eq!(codes(&first), [None, None, Some(ReportError::ReportTooEarly), None, None]);
        for later in [1, 60, 3_600, 80_000] {
            w.now = NOW + later;
            assert_eq!(w.put(1, job.request()).unwrap(), first, "{later} s later");
        }
        // A Worker whose clock is behind.
        w.now = NOW - 1_000;
        assert_eq!(w.put(1, job.request()).unwrap(), first);
        w.cluster.reset_stores();
        assert_eq!(w.put(1, job.request()).unwrap(), first, "after the stores forgot");
        assert_eq!(w.begin(1, &reports[..1]).report_count(), 1);
    }
}

/// So that nothing needs the key when the last of them is too old.
#[test]
fn an_expired_key_opens_what_was_made_before_its_end() {
    for shape in SHAPES.into_iter().flatten() {
        let mut w = World::new(shape);
        let keypair = w.keys.get(HpkeConfigId(3)).unwrap().clone();
        let (accepts_until, active) = (Some(Time::from_seconds(NOW)), w.keys.clone());
        let ring = HpkeKeyring::of(vec![RingKey { keypair, is_published: false, accepts_until }]);
        let reports = [w.report_at(1, 1, NOW), w.report_at(2, 2, NOW + w.tick())];
        let (taken, job) = (w.begin(1, &w.reports(&[3, 4])), w.begin(1, &reports));
        let first = w.put(1, taken.request()).unwrap();
        w.keys = ring;
        w.now = NOW + 86_400;
        assert_eq!(w.put(1, taken.request()).unwrap(), first, "a repeat");
        let unknown = Some(ReportError::HpkeUnknownConfigId);
        assert_eq!(codes(&w.put(2, job.request()).unwrap()), [None, unknown]);
        // Who has heard nothing of the key's end yet, or of its return, answers a repeat alike.
        w.keys = active;
        assert_eq!(codes(&w.put(2, job.request()).unwrap()), [None, unknown]);
    }
}

#[test]
fn another_body_under_the_same_job_id_is_a_conflict_and_counts_nothing() {
    for shape in SHAPES.into_iter().flatten() {
        let w = World::new(shape);
        // Bodies of one report each: with four shards and hour-long groups most pairs touch disjoint stores.
        let first = w.begin(1, &[w.report_at(1, 1, NOW - 10)]);
        w.put(1, first.request()).unwrap();
        for id in 2..20u8 {
            let other = w.begin(1, &[w.report_at(id, 1, NOW - 10 - 3_600 * u64::from(id))]);
            match w.put(1, other.request()) {
                Err(Error::Abort(abort)) => assert_eq!(abort.kind, AbortKind::Conflict),
                other => panic!("expected a conflict, got {other:?}"),
            }
        }
        let rows: usize = w
            .cluster
            .stores_of(w.task.id())
            .iter()
            .flat_map(|(_, t)| t.jobs().map(|row| row.ids.len() / ReportId::LEN))
            .sum();
        assert_eq!(rows, 1);
    }
}

#[test]
fn one_bad_report_does_not_harm_the_others() {
    for shape in GROUPS {
        one_bad_report_does_not_harm_the_others_in(shape);
    }
}

fn one_bad_report_does_not_harm_the_others_in(shape: Shape) {
    let w = World::new(shape);
    let good = w.reports(&[1, 2]);
    let with = |id: u8, change: &dyn Fn(&mut Report<'_>) -> Option<Vec<u8>>| {
        let bytes = w.report_at(id, 5, NOW - 10);
        let mut report = w.wire().report(&bytes).unwrap();
        match change(&mut report) {
            Some(other) => other,
            None => w.wire().encode_report(report).unwrap(),
        }
    };
    let cases: Vec<(Vec<u8>, ReportError)> = vec![
        (
            with(10, &|r| {
                r.helper_encrypted_input_share.config_id = HpkeConfigId(99);
                None
            }),
            ReportError::HpkeUnknownConfigId,
        ),
        (
            with(11, &|r| {
                r.helper_encrypted_input_share.enc = &[];
                None
            }),
            ReportError::HpkeDecryptError,
        ),
        (
            with(12, &|r| {
                r.helper_encrypted_input_share.payload = &[];
                None
            }),
            ReportError::HpkeDecryptError,
        ),
        (
            with(13, &|r| {
                r.helper_encrypted_input_share.enc = &[0; 32];
                None
            }),
            ReportError::HpkeDecryptError,
        ),
        (w.report_with(14, 5, NOW - 10, &[(0xff00, &[])]), ReportError::InvalidMessage),
        (w.report_with(15, 5, NOW - 10, &[(1, &[1]), (1, &[1])]), ReportError::InvalidMessage),
        (w.report_at(16, 5, NOW + 300 + w.tick()), ReportError::ReportTooEarly),
        (w.report_at(17, 5, u64::MAX), ReportError::ReportTooEarly),
        (w.report_at(18, 5, NOW - 14 * 86_400 - w.tick()), ReportError::ReportDropped),
        (w.report_at(19, 5, 0), ReportError::ReportDropped),
        (w.report_at(20, 5, NOW + 200 + w.tick()), ReportError::TaskExpired),
        // Early and with an extension: the time is looked at first.
        (w.report_with(21, 5, NOW + 300 + w.tick(), &[(1, &[])]), ReportError::ReportTooEarly),
    ];
    let mut reports = vec![good[0].clone()];
    reports.extend(cases.iter().map(|(r, _)| r.clone()));
    reports.push(good[1].clone());
    let (answers, outcome) = w.run(1, 1, &reports);
    let mut expected = vec![None];
    expected.extend(cases.iter().map(|(_, e)| Some(*e)));
    expected.push(None);
    assert_eq!(codes(&answers), expected);
    assert_eq!(w.totals(&[outcome]).into_values().collect::<Vec<_>>(), [(2, "3".to_owned())]);
}

#[test]
fn a_damaged_proof_or_ping_pong_message_refuses_its_report_only() {
    for shape in WHOLE {
        a_damaged_proof_or_ping_pong_message_refuses_its_report_only_in(shape);
    }
}

fn a_damaged_proof_or_ping_pong_message_refuses_its_report_only_in(shape: Shape) {
    let w = World::new(shape);
    let job = w.begin(1, &w.reports(&[1, 2, 3]));
    let init = w.wire().aggregation_job_init(job.request()).unwrap();
    let original = init.verify_inits[1].payload.to_vec();
    let mut flipped = original.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let mut unreduced = original.clone();
    unreduced[5..21].fill(0xff);
    let truncated = original[..original.len() - 1].to_vec();
    let trailing = [original.as_slice(), &[0]].concat();
    let mut other_type = original.clone();
    other_type[0] = 2;
    let variants = [flipped, unreduced, truncated, trailing, other_type, vec![9]];
    for (n, damaged) in variants.iter().enumerate() {
        let mut init = init.clone();
        init.verify_inits[1].payload = damaged;
        let body = w.wire().encode_aggregation_job_init(&init).unwrap();
        let answers = w.put(n as u8 + 1, &body).unwrap();
        // The first job commits reports 1 and 3; in the later ones they are replays.
        let others = (n > 0).then_some(ReportError::ReportReplayed);
        assert_eq!(codes(&answers), [others, Some(ReportError::VdafVerifyError), others], "{n}");
    }
}

#[test]
fn a_far_future_report_creates_no_object() {
    for shape in GROUPS {
        a_far_future_report_creates_no_object_in(shape);
    }
}

fn a_far_future_report_creates_no_object_in(shape: Shape) {
    let w = World::new(shape);
    let day = 86_400;
    let reports = [
        w.report_at(1, 1, NOW + 300 + day + w.tick()),
        w.report_at(2, 1, NOW - 15 * day - w.tick()),
        w.report_at(3, 1, u64::MAX),
    ];
    let (answers, _) = w.run(1, 1, &reports);
    assert_eq!(
        codes(&answers),
        [
            Some(ReportError::ReportTooEarly),
            Some(ReportError::ReportDropped),
            Some(ReportError::ReportTooEarly)
        ]
    );
    assert!(w.cluster.stores_of(w.task.id()).is_empty());
}

#[test]
fn a_job_whose_calls_are_lost_is_finished_by_the_same_bytes() {
    for shape in SHAPES.into_iter().flatten() {
        let ids: Vec<u8> = (1..=12).collect();
        let undisturbed = {
            let w = World::new(shape);
            w.put(1, w.begin(1, &w.reports(&ids)).request()).unwrap()
        };
        let mut cut_off = 0;
        for fate in [Fate::RequestLost, Fate::AnswerLost] {
            for cut in 0.. {
                let w = World::new(shape);
                w.cluster.fate_of_call(cut, fate);
                let job = w.begin(1, &w.reports(&ids));
                let first = w.put(1, job.request());
                if w.cluster.calls() <= cut {
                    break;
                }
                cut_off += 1;
                match first {
                    Err(Error::Internal(Internal::Unavailable(_))) => {}
                    other => panic!("a lost call was answered with {other:?}"),
                }
                assert_eq!(codes(&w.put(1, job.request()).unwrap()), codes(&undisturbed));
                // The job never came through under its old id: its reports may not be counted again under a new one.
                let (answers, _) = w.run(2, 1, &w.reports(&ids));
                assert!(codes(&answers).iter().all(|e| *e == Some(ReportError::ReportReplayed)));
            }
        }
        assert!(cut_off >= 8, "only {cut_off} cuts");
    }
}

#[test]
fn requests_that_are_wrong_as_a_whole_are_refused() {
    for shape in GROUPS {
        requests_that_are_wrong_as_a_whole_are_refused_in(shape);
    }
}

fn requests_that_are_wrong_as_a_whole_are_refused_in(shape: Shape) {
    let w = World::new(shape);
    let job = w.begin(1, &w.reports(&[1, 2]));
    let init = w.wire().aggregation_job_init(job.request()).unwrap();
    let refusal = |init: AggregationJobInit<'_>| {
        let body = w.wire().encode_aggregation_job_init(&init).unwrap();
        match w.put(1, &body) {
            Err(Error::Abort(abort)) => abort.kind,
            other => panic!("expected a refusal, got {other:?}"),
        }
    };
    let mut parameter = init.clone();
    parameter.agg_param = &[0];
    let version = w.task.parameters.version;
    assert_eq!(refusal(parameter), version.abort_kind(AbortKind::InvalidAggregationParameter));
    let mut mode = init.clone();
    mode.batch = PartialBatchSelector::LeaderSelected(BatchId::new([1; 32]));
    assert_eq!(refusal(mode), AbortKind::InvalidMessage);
    let mut twice = init.clone();
    twice.verify_inits.push(twice.verify_inits[0]);
    assert_eq!(refusal(twice), AbortKind::InvalidMessage);
    assert_eq!(w.cluster.calls(), 0, "nothing was stored");
}

#[test]
fn a_job_that_would_be_cut_off_is_refused_before_it_is_worked_on() {
    for shape in GROUPS {
        let mut w = World::new(shape);
        let job = w.begin(1, &w.reports(&[1]));
        let draft = w.task.vdaf.draft();
        // A short measurement with a long proof: it is a task's author who chooses that.
        let config = VdafConfig::Prio3Histogram { length: 1, chunk_length: 100_000 };
        w.task.vdaf = Vdaf::new(draft, config).unwrap();
        let mut init = w.wire().aggregation_job_init(job.request()).unwrap();
        let report = init.verify_inits[0];
        // That reports repeat is noticed later.
        for (reports, detail) in [(1_666, "may have 1665 reports"), (1_665, "appears twice")] {
            init.verify_inits = vec![report; reports];
            match w.put(1, &w.wire().encode_aggregation_job_init(&init).unwrap()) {
                Err(Error::Abort(abort)) => {
                    assert_eq!(abort.kind, AbortKind::InvalidMessage);
                    assert!(abort.detail.contains(detail), "{reports} reports: {abort:?}");
                }
                other => panic!("expected a refusal, got {other:?}"),
            }
        }
        assert_eq!(w.cluster.calls(), 0, "nothing was stored");
    }
}

#[test]
fn a_job_is_known_once_it_was_created() {
    for shape in SHAPES.into_iter().flatten() {
        let w = World::new(shape);
        let key = ShardKey::new(w.shard_key);
        let known = |n| {
            let job = AggregationJobId::new([n; 16]);
            block_on(commit::job_exists(&w.cluster, &w.task, &key, &job)).unwrap()
        };
        assert!(!known(1));
        w.run(1, 1, &w.reports(&[1]));
        assert!(known(1));
        assert!(!known(2));
    }
}

#[test]
fn a_job_that_meets_a_frozen_range_is_told_to_come_again() {
    for shape in WHOLE {
        a_job_that_meets_a_frozen_range_is_told_to_come_again_in(shape);
    }
}

fn a_job_that_meets_a_frozen_range_is_told_to_come_again_in(shape: Shape) {
    let w = World::new(shape);
    let (_, _) = w.run(1, 1, &w.reports(&(1..=40).collect::<Vec<_>>()));
    let bucket = BatchBucket::Window(
        Time::from_seconds(NOW - 10).round_down(w.task.parameters.time_precision),
    );
    let range = match bucket {
        BatchBucket::Window(start) => daphne_core::batch::BucketRange::Windows(
            Interval::new(start, w.task.parameters.time_precision).unwrap(),
        ),
        BatchBucket::Batch(_) => unreachable!(),
    };
    use daphne_core::store::Objects as _;
    let placement = w.task.parameters.placement();
    for (store, _) in w.cluster.stores_of(w.task.id()) {
        let ask = |action| {
            let field = w.vdaf().field();
            let request = daphne_core::store::message::AggregateStoreRequest {
                placement,
                store,
                field,
                action,
            };
            block_on(w.cluster.store(&store, request)).unwrap()
        };
        let gather = StoreAction::Gather { range, param: vec![], exclude: vec![] };
        let AggregateStoreResponse::Gathered { content, .. } = ask(gather) else {
            panic!("no content")
        };
        let (param, exclude, version) = (vec![], vec![], content.version());
        let freeze =
            StoreAction::Freeze { attempt: 1, range, counts: range, param, exclude, version };
        assert_eq!(ask(freeze), AggregateStoreResponse::Frozen);
    }
    let job = w.begin(1, &w.reports(&[50]));
    assert!(matches!(w.put(2, job.request()), Err(Error::Internal(Internal::Unavailable(_)))));
}

/// Whatever the clock says at a repeat, no report is told accepted that is not held.
#[test]
fn a_report_refused_unasked_stays_refused() {
    const DAY: u64 = 86_400;
    let step_by_step = [1, 3_600, 80_000, 2 * DAY as i64];
    for shape in SHAPES.into_iter().flatten() {
        for (time, skew, error) in [
            (NOW + 300 + DAY + TICK, 1i64, ReportError::ReportTooEarly),
            (NOW - 15 * DAY - TICK, -1, ReportError::ReportDropped),
        ] {
            // At once the report is in time: its owner never heard of it.
            for laters in [&step_by_step[..], &[2 * DAY as i64]] {
                let mut w = World::new(shape);
                let mut reports = w.reports(&(1..=20).collect::<Vec<_>>());
                // A second report of that time is recorded, so that its group has an object in any case.
                reports.push(w.report_at(50, 3, time));
                let job = w.begin(1, &reports);
                let first = w.put(1, job.request()).unwrap();
                assert_eq!(codes(&first)[20], Some(error));
                for later in laters {
                    w.now = NOW.saturating_add_signed(skew * later);
                    let again = w.put(1, job.request()).unwrap();
                    assert_eq!(codes(&again)[20], Some(error), "{later}");
                    if *later == 1 {
                        assert_eq!(again, first);
                    }
                }
            }
        }
    }
}

/// A few reports spread over many batch buckets cost as many sums; beyond a budget they are refused, and the buckets
/// that many reports share come first.
#[test]
fn reports_spread_over_too_many_buckets_do_not_exhaust_the_memory_of_all() {
    for shape in WHOLE {
        reports_spread_over_too_many_buckets_do_not_exhaust_the_memory_of_all_in(shape);
    }
}

fn reports_spread_over_too_many_buckets_do_not_exhaust_the_memory_of_all_in(shape: Shape) {
    let mut w = World::new(Shape { buckets_per_group: Some(0), shards: 1, ..shape });
    let config = VdafConfig::Prio3SumVec { max_measurement: 1, length: 50_000, chunk_length: 224 };
    w.task.parameters.vdaf = config;
    w.task.vdaf = Vdaf::new(shape.version.vdaf_draft(), config).unwrap();
    let fit = commit::SUMS_BYTES_MAX / w.agg_share_len();
    let client = w.client();
    let report = |id: u8, time: u64| {
        let random =
            ReportRandomness { report_id: [id; 16], leader_seed: [id; 32], helper_seed: [!id; 32] };
        let measurement = Measurement::SumVec(vec![1; 50_000]);
        client.report(&measurement, Time::from_seconds(time), &random).unwrap()
    };
    // One report in each of more buckets than fit, then two honest ones in one bucket.
    let spread = fit as u8 + 3;
    let mut reports: Vec<_> =
        (1..=spread).map(|n| report(n, NOW - u64::from(n) * PRECISION)).collect();
    reports.extend([report(100, NOW - 10), report(101, NOW - 10)]);
    let job = w.begin(1, &reports);
    let answers = w.put(1, job.request()).unwrap();
    let refused =
        codes(&answers).iter().filter(|e| **e == Some(ReportError::ReportDropped)).count();
    assert_eq!(refused, 4);
    assert_eq!(codes(&answers)[usize::from(spread)..], [None, None]);
    assert_eq!(w.put(1, job.request()).unwrap(), answers);
}
