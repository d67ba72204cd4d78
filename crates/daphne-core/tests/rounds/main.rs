//! Jobs of several rounds on objects in memory, with a real client's, leader's and collector's messages: strings are
//! counted by prefix, level by level, over the same batch.
#![cfg(not(target_arch = "wasm32"))]

mod begun;
mod world;

use std::collections::BTreeMap;

use daphne_core::{
    aggregate::leader::{LeaderOutcome, LeaderStep},
    error::{AbortKind, Error, Internal, ReportError},
    ids::{BatchId, ReportId},
    message::{AggregationJobContinue, PartialBatchSelector, VerifyContinue, VerifyRespResult},
    testing::memory::Fate,
    vdaf::AggregateResult,
};

use self::world::*;

#[test]
fn prefixes_are_counted_level_by_level_over_the_same_batch() {
    for shape in SHAPES {
        let w = World::new(shape);
        let reports = w.reports(&STRINGS);
        let mut prefixes: Vec<String> = vec!["0".to_owned(), "1".to_owned()];
        for level in 1..=usize::from(BITS) {
            let param = w.param(&prefixes.iter().map(String::as_str).collect::<Vec<_>>());
            let mut books = Books::default();
            // Two jobs for each parameter, each with reports of all shards.
            for (n, reports) in reports.chunks(5).enumerate() {
                let outcome = w.run((10 * level + n) as u8, &param, reports);
                assert_eq!(outcome.refused, []);
                w.book(&mut books, &param, outcome);
            }
            let AggregateResult::Vector(counts) = w.collect(&param, &books).unwrap() else {
                panic!("counts")
            };
            let truth = |p: &String| STRINGS.iter().filter(|s| s.starts_with(p.as_str())).count();
            assert_eq!(counts, prefixes.iter().map(|p| truth(p) as u128).collect::<Vec<_>>());
            let frequent = prefixes.iter().zip(counts).filter(|(_, n)| *n >= 2).map(|(p, _)| p);
            prefixes = if level == usize::from(BITS) {
                frequent.cloned().collect()
            } else {
                frequent.flat_map(|p| [format!("{p}0"), format!("{p}1")]).collect()
            };
        }
        assert_eq!(prefixes, ["001111", "110100"]);
        // The batch was asked about as often as the task allows.
        let param = w.param(&["010101"]);
        let books = Books { report_count: 9, ..Books::default() };
        let again = w.collect(&param, &books);
        assert_eq!(again, Err(AbortKind::BatchQueriedTooManyTimes));
    }
}

#[test]
fn a_job_of_several_rounds_cut_off_at_any_call_can_be_repeated() {
    for shape in all() {
        let mut cut_off = 0;
        for fate in [Fate::RequestLost, Fate::AnswerLost] {
            for cut in 0.. {
                let w = World::new(shape);
                let param = w.param(&["0", "1"]);
                w.cluster.fate_of_call(cut, fate);
                let reports = w.reports(&STRINGS);
                let begun = w.begin(&param, &reports);
                let again = |ask: &dyn Fn() -> Answer| match ask() {
                    Err(Error::Internal(Internal::Unavailable(_))) => ask().unwrap(),
                    answer => answer.unwrap(),
                };
                let first = again(&|| w.put(1, begun.request()));
                let step = w.leader().proceed(begun, &w.encode(&first)).unwrap();
                let LeaderStep::Continued(continuation) = step else { panic!("continued") };
                let last = again(&|| w.post(1, continuation.request()));
                if w.cluster.calls() <= cut {
                    break;
                }
                assert_eq!(w.post(1, continuation.request()).unwrap(), last);
                let outcome = w.leader().finish_continued(continuation, &w.encode(&last)).unwrap();
                assert_eq!(outcome.refused, []);
                assert_eq!(w.held().values().sum::<u32>(), 9);
                let mut books = Books::default();
                w.book(&mut books, &param, outcome);
                let result = match w.collect(&param, &books) {
                    Ok(result) => result,
                    Err(kind) => panic!("refused: {kind:?}"),
                };
                assert_eq!(result, AggregateResult::Vector(vec![3, 6]));
                cut_off += 1;
            }
        }
        assert!(cut_off >= 10, "only {cut_off} cuts");
    }
}

#[test]
fn each_request_is_answered_for_its_step_and_body() {
    for shape in all() {
        let w = World::new(shape);
        let param = w.param(&["00", "11"]);
        let reports = w.reports(&STRINGS[..3]);
        let begun = w.begin(&param, &reports);
        let other = w.begin(&param, &reports[..2]);
        let body = |step, reports: &[(u8, &[u8])]| {
            let verify_continues = reports.iter().map(|(id, payload)| VerifyContinue {
                report_id: ReportId::new([*id; 16]),
                payload,
            });
            let request =
                AggregationJobContinue { step, verify_continues: verify_continues.collect() };
            w.wire().encode_aggregation_job_continue(&request).unwrap()
        };
        let good = |_: ()| {
            let w = World::new(shape);
            w.first_round(1, &param, &w.reports(&STRINGS[..3])).request().to_vec()
        };
        let good = good(());
        assert_eq!(refusal(w.post(1, &good)), AbortKind::UnrecognizedAggregationJob);
        let first = w.put(1, begun.request()).unwrap();
        assert_eq!(w.put(1, begun.request()).unwrap(), first);
        assert_eq!(refusal(w.put(1, other.request())), AbortKind::Conflict);
        for wrong in [
            body(0, &[(1, &[1])]),
            body(1, &[(9, &[1])]),
            body(1, &[(2, &[1]), (1, &[1])]),
            body(1, &[(1, &[1]), (1, &[1])]),
        ] {
            assert_eq!(refusal(w.post(1, &wrong)), AbortKind::InvalidMessage);
        }
        assert_eq!(refusal(w.post(1, &body(2, &[(1, &[1])]))), AbortKind::StepMismatch);
        assert_eq!(refusal(w.post(2, &good)), AbortKind::UnrecognizedAggregationJob);
        assert_eq!(w.held(), BTreeMap::new(), "nothing of these counts");
        let last = w.post(1, &good).unwrap();
        assert!(last.iter().all(|a| a.result == VerifyRespResult::Finish));
        assert_eq!(w.post(1, &good).unwrap(), last);
        assert_eq!(refusal(w.post(1, &body(1, &[(1, &[1])]))), AbortKind::StepMismatch);
        assert_eq!(refusal(w.post(1, &body(2, &[(1, &[1])]))), AbortKind::InvalidMessage);
        assert_eq!(refusal(w.post(1, &body(3, &[(1, &[1])]))), AbortKind::StepMismatch);
        w.assert_continued(w.put(1, begun.request()), &last);
        assert_eq!(w.held().values().sum::<u32>(), 3);
        w.delete(1);
        assert_eq!(refusal(w.post(1, &good)), AbortKind::UnrecognizedAggregationJob);
        assert_eq!(refusal(w.put(1, begun.request())), AbortKind::Conflict);
        assert_eq!(w.held().values().sum::<u32>(), 3);
    }
}

/// A leader that repeats itself, or that sends what is refused in any case, costs a look at one row.
#[test]
fn reports_are_verified_once_however_often_their_job_comes() {
    for shape in all() {
        let w = World::new(shape);
        let param = w.param(&["00", "11"]);
        let reports = w.reports(&STRINGS[..3]);
        let (begun, other) = (w.begin(&param, &reports), w.begin(&param, &reports[..2]));
        let first = w.put(1, begun.request()).unwrap();
        assert_eq!(w.verified.0.get(), 3);
        assert_eq!(w.put(1, begun.request()).unwrap(), first);
        assert_eq!(refusal(w.put(1, other.request())), AbortKind::Conflict);
        let body = begun.request().to_vec();
        let LeaderStep::Continued(next) = w.leader().proceed(begun, &w.encode(&first)).unwrap()
        else {
            panic!("continued")
        };
        let last = w.post(1, next.request()).unwrap();
        w.assert_continued(w.put(1, &body), &last);
        w.delete(1);
        assert_eq!(refusal(w.put(1, &body)), AbortKind::Conflict, "it was deleted");
        assert_eq!(refusal(w.put(1, other.request())), AbortKind::Conflict);
        assert_eq!(w.verified.0.get(), 3);
    }
}

#[test]
fn a_report_of_a_continuation_is_refused_by_itself() {
    let w = World::new(SHAPES[1]);
    let param = w.param(&["0", "1"]);
    let reports = w.reports(&STRINGS[..6]);
    let begun = w.begin(&param, &reports);
    let answer = w.encode(&w.put(1, begun.request()).unwrap());
    let LeaderStep::Continued(continuation) = w.leader().proceed(begun, &answer).unwrap() else {
        panic!("continued")
    };
    let mut request = w.wire().aggregation_job_continue(continuation.request()).unwrap();
    // A wrong kind of message, an empty one, one with more behind it; a report is left out.
    let long = [request.verify_continues[3].payload, &[0]].concat();
    let initialize = [&[0][..], &request.verify_continues[1].payload[1..]].concat();
    request.verify_continues[1].payload = &initialize;
    request.verify_continues[2].payload = &[];
    request.verify_continues[3].payload = &long;
    request.verify_continues.remove(4);
    let answers = w.post(1, &w.wire().encode_aggregation_job_continue(&request).unwrap()).unwrap();
    let bad = Some(ReportError::VdafVerifyError);
    assert_eq!(codes(&answers), [None, bad, bad, bad, None]);
    assert_eq!(w.held().values().sum::<u32>(), 2);
    // All of them began, and begin no other way at this level. The same way, what did not count is free, what did is not.
    let replayed = |outcome: LeaderOutcome| -> Vec<u8> {
        let refused = outcome.refused.iter();
        refused.for_each(|(_, e)| assert_eq!(*e, ReportError::ReportReplayed));
        outcome.refused.iter().map(|(id, _)| id.as_bytes()[0]).collect()
    };
    assert_eq!(replayed(w.run(2, &w.param(&["1"]), &reports)), [1, 2, 3, 4, 5, 6]);
    assert_eq!(replayed(w.run(3, &param, &reports)), [1, 6]);
    // Below, all are; and above is not free then.
    assert_eq!(w.run(4, &w.param(&["01", "10"]), &reports).refused, []);
    assert_eq!(replayed(w.run(5, &param, &reports)), [1, 2, 3, 4, 5, 6]);
}

#[test]
fn what_a_batch_did_not_count_the_first_time_it_does_not_count_the_second() {
    for shape in SHAPES {
        let w = World::new(shape);
        let reports = w.reports(&STRINGS);
        let param = w.param(&["0", "1"]);
        let mut books = Books::default();
        w.book(&mut books, &param, w.run(1, &param, &reports[..5]));
        assert_eq!(w.collect(&param, &books).unwrap(), AggregateResult::Vector(vec![2, 3]));
        let below = w.param(&["00", "11"]);
        let outcome = w.run(2, &below, &reports);
        let late: Vec<_> = outcome.refused.iter().map(|(id, e)| (id.as_bytes()[0], *e)).collect();
        assert_eq!(late, (6..=9).map(|id| (id, ReportError::BatchCollected)).collect::<Vec<_>>());
        let mut books = Books::default();
        w.book(&mut books, &below, outcome);
        assert_eq!(w.collect(&below, &books).unwrap(), AggregateResult::Vector(vec![2, 3]));
    }
}

#[test]
fn a_parameter_of_too_much_work_is_refused_before_it_is_done() {
    for [whole, ..] in [SHAPES, ONCE] {
        a_parameter_of_too_much_work(whole);
    }
}

fn a_parameter_of_too_much_work(shape: Shape) {
    let w = World::new(shape);
    let begun = w.begin(&w.param(&["0"]), &w.reports(&STRINGS[..1]));
    let mut init = w.wire().aggregation_job_init(begun.request()).unwrap();
    for param in [&[][..], &[0, 0], &[0, 6, 0, 0, 0, 1, 0], &[0xff, 0xff, 0, 0, 0, 1]] {
        init.agg_param = param;
        let body = w.wire().encode_aggregation_job_init(&init).unwrap();
        let kind = shape.0.abort_kind(AbortKind::InvalidAggregationParameter);
        assert_eq!(refusal(w.put(1, &body)), kind);
    }
    assert_eq!(w.cluster.calls(), 0, "nothing was stored");
    let w = World::with_bits(shape, 256);
    let begun = w.begin(&w.param(&["0"]), &[w.report(1, &"01".repeat(128))]);
    // Neighbours are cheap to evaluate, and what many reports wait with is long; those that have nothing in common are
    // too much work for one report. Reports that repeat are noticed later.
    for (common, reports) in [(244, 65), (0, 1)] {
        let [before, after] = [common, 244 - common].map(|n| "0".repeat(n));
        let prefixes: Vec<String> =
            (0..4_096).map(|n| format!("{before}{n:012b}{after}")).collect();
        let param = w.param(&prefixes.iter().map(String::as_str).collect::<Vec<_>>()).encode();
        let mut init = w.wire().aggregation_job_init(begun.request()).unwrap();
        init.agg_param = &param;
        init.verify_inits = vec![init.verify_inits[0]; reports];
        match w.put(1, &w.wire().encode_aggregation_job_init(&init).unwrap()) {
            Err(Error::Abort(abort)) => assert!(abort.detail.contains("too much"), "{abort:?}"),
            other => panic!("expected a refusal, got {other:?}"),
        }
    }
}

#[test]
fn a_report_that_waited_too_long_is_dropped() {
    for shape in all() {
        let mut w = World::new(shape);
        let param = w.param(&["0", "1"]);
        let reports = w.reports(&STRINGS[..2]);
        let continuation = w.first_round(1, &param, &reports);
        w.now = NOW + 14 * 86_400;
        let answers = w.post(1, continuation.request()).unwrap();
        // What knows that it was aggregated before may be forgotten soon.
        assert_eq!(codes(&answers), [Some(ReportError::ReportDropped); 2]);
        assert_eq!(w.held(), BTreeMap::new());
        w.now = NOW;
        assert_eq!(w.post(1, continuation.request()).unwrap(), answers);
    }
}

#[test]
fn a_batch_takes_only_reports_that_it_counted_itself() {
    let w = World::new(SHAPES[2]);
    let (a, b) = (w.reports(&STRINGS[..3]), w.report(9, STRINGS[3]));
    let param = w.param(&["0", "1"]);
    let mut books = Books::default();
    w.book(&mut books, &param, w.run(1, &param, &a));
    w.collect(&param, &books).unwrap();
    // Another batch counts another report under the same parameter.
    let begun = w.begin(&param, std::slice::from_ref(&b));
    let mut init = w.wire().aggregation_job_init(begun.request()).unwrap();
    init.batch = PartialBatchSelector::LeaderSelected(BatchId::new([7; 32]));
    let body = w.wire().encode_aggregation_job_init(&init).unwrap();
    let answer = w.encode(&w.put(2, &body).unwrap());
    let LeaderStep::Continued(next) = w.leader().proceed(begun, &answer).unwrap() else {
        panic!("continued")
    };
    assert_eq!(codes(&w.post(2, next.request()).unwrap()), [None]);
    // It is none of the first batch's at the next level.
    let below = w.param(&["00", "11"]);
    let outcome = w.run(3, &below, &[a, vec![b]].concat());
    let late: Vec<_> = outcome.refused.iter().map(|(id, e)| (id.as_bytes()[0], *e)).collect();
    assert_eq!(late, [(9, ReportError::BatchCollected)]);
}

/// DAP-18 §4.5.4.3: whatever the aggregation parameter, and in whatever order.
#[test]
fn where_reports_are_aggregated_once_no_other_level_takes_them() {
    for shape in ONCE {
        let w = World::new(shape);
        let reports = w.reports(&STRINGS);
        let middle = w.param(&["00", "11"]);
        let mut books = Books::default();
        w.book(&mut books, &middle, w.run(1, &middle, &reports[..5]));
        for (job, prefixes) in [(2, &["0", "1"][..]), (3, &["01"]), (4, &["000", "110"])] {
            let param = w.param(prefixes);
            let outcome = w.run(job, &param, &reports[..5]);
            let replayed: Vec<_> = outcome.refused.iter().map(|(_, error)| *error).collect();
            assert_eq!(replayed, [ReportError::ReportReplayed; 5], "{prefixes:?}");
        }
        assert_eq!(w.held().values().sum::<u32>(), 5);
        // The batch is not one of that parameter, and nothing is used up by asking.
        let other = w.param(&["0", "1"]);
        assert_eq!(w.collect(&other, &books), Err(AbortKind::InvalidMessage));
        assert_eq!(w.collect(&middle, &books).unwrap(), AggregateResult::Vector(vec![2, 3]));
        // It was collected, whatever for, and takes no report any more.
        assert_eq!(w.collect(&other, &books), Err(AbortKind::BatchOverlap));
        let outcome = w.run(5, &other, &reports[5..]);
        let late: Vec<_> = outcome.refused.iter().map(|(_, error)| *error).collect();
        assert_eq!(late, [ReportError::BatchCollected; 4]);
    }
}
