//! A report's verification begins in one way at each level, whether or not it goes on: the helper says one thing about it.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use daphne_core::{
    aggregate::helper::OpenAndVerify,
    batch::BatchMode,
    error::{AbortKind, Error, Internal, ReportError},
    ids::BatchId,
    message::{PartialBatchSelector, VerifyResp, VerifyRespResult},
    metrics::Failure,
    store::Objects,
    store::message::{LedgerRequest, LedgerResponse},
    testing::memory::Fate,
};
use futures::executor::block_on;

use super::world::*;

const REPLAYED: Option<ReportError> = Some(ReportError::ReportReplayed);

/// The helper's messages about reports that go on.
fn said(answers: &[VerifyResp]) -> BTreeMap<u8, Vec<u8>> {
    let message = |a: &VerifyResp| match &a.result {
        VerifyRespResult::Continue(message) => Some((a.report_id.as_bytes()[0], message.clone())),
        VerifyRespResult::Finish | VerifyRespResult::Reject(_) => None,
    };
    answers.iter().filter_map(message).collect()
}

/// Rows of reports that began, in all stores.
fn rows(w: &World) -> usize {
    w.cluster.stores_of(w.task.id()).iter().map(|(_, tables)| tables.begun.len()).sum()
}

#[test]
fn a_report_begins_with_one_parameter_at_each_level() {
    for shape in all() {
        let w = World::new(shape);
        let reports = w.reports(&STRINGS);
        let (a, b) = (w.param(&["0", "1"]), w.param(&["1"]));
        let (first, other) = (w.begin(&a, &reports[..6]), w.begin(&b, &reports[..6]));
        let answers = w.put(1, first.request()).unwrap();
        assert_eq!(said(&answers).len(), 6);
        let written = rows(&w);
        assert!((1..=3).contains(&written), "one row in each store");
        // Other prefixes of the level, now and ever, and whatever becomes of the first job.
        for job in [2, 3] {
            let refused = w.put(job, other.request()).unwrap();
            assert_eq!(codes(&refused), [REPLAYED; 6], "{shape:?}");
            assert_eq!(w.put(job, other.request()).unwrap(), refused);
            w.delete(1);
            w.cluster.reset_stores();
        }
        // The same parameter in other jobs and batches: the same messages.
        let again = w.put(4, first.request()).unwrap();
        assert_eq!(again, answers);
        if shape.1 == BatchMode::LeaderSelected {
            let mut init = w.wire().aggregation_job_init(first.request()).unwrap();
            init.batch = PartialBatchSelector::LeaderSelected(BatchId::new([7; 32]));
            let body = w.wire().encode_aggregation_job_init(&init).unwrap();
            assert_eq!(w.put(5, &body).unwrap(), answers);
        }
        assert_eq!(rows(&w), written, "a repeat writes none");
        // Of a job with reports that begin otherwise, the others go on.
        let step = w.first_round(6, &b, &reports);
        let last = w.post(6, step.request()).unwrap();
        let finished: Vec<u8> = last.iter().map(|a| a.report_id.as_bytes()[0]).collect();
        assert_eq!((codes(&last), finished), (vec![None; 3], vec![7, 8, 9]));
        assert_eq!(w.held().values().sum::<u32>(), 3);
        // Another level is another matter, but where a report is aggregated once.
        for (job, prefixes) in [(7, ["00", "11"]), (8, ["000", "111"])] {
            let below = w.begin(&w.param(&prefixes), &reports);
            let expected = if shape.0.aggregates_once() { REPLAYED } else { None };
            assert_eq!(codes(&w.put(job, below.request()).unwrap()), [expected; 9]);
        }
        if !shape.0.aggregates_once() {
            // Upwards it may begin, and does not count.
            let between = w.param(&["01", "10"]);
            assert_eq!(w.run(9, &between, &reports).refused.len(), 9, "other prefixes");
            let refused = w.run(10, &w.param(&["000", "111"]), &reports).refused;
            assert_eq!(refused, []);
            let refused = w.run(11, &w.param(&["00", "11"]), &reports).refused;
            assert_eq!(refused.len(), 9);
        }
    }
}

/// A report is its bytes, and what the leader says of it.
#[test]
fn a_report_begins_with_one_share_and_one_message() {
    for shape in all() {
        let w = World::new(shape);
        let a = w.param(&["0", "1"]);
        let report = w.reports(&["110100"]);
        let first = w.begin(&a, &report);
        // One that does not open, or that says nothing, is refused for that, and takes nobody's place.
        let mut init = w.wire().aggregation_job_init(first.request()).unwrap();
        let sealed = init.verify_inits[0].report_share.encrypted_input_share.payload;
        let damaged = [&[!sealed[0]], &sealed[1..]].concat();
        init.verify_inits[0].report_share.encrypted_input_share.payload = &damaged;
        let body = w.wire().encode_aggregation_job_init(&init).unwrap();
        let broken = w.put(1, &body).unwrap();
        assert_eq!(codes(&broken), [Some(ReportError::HpkeDecryptError)]);
        let mut init = w.wire().aggregation_job_init(first.request()).unwrap();
        let payload = init.verify_inits[0].payload;
        init.verify_inits[0].payload = &payload[..payload.len() - 1];
        let body = w.wire().encode_aggregation_job_init(&init).unwrap();
        assert_eq!(codes(&w.put(2, &body).unwrap()), [Some(ReportError::VdafVerifyError)]);
        assert_eq!(rows(&w), 0);
        let answers = w.put(3, first.request()).unwrap();
        assert_eq!(codes(&answers), [None]);
        // Another message of the leader about the same report.
        let mut init = w.wire().aggregation_job_init(first.request()).unwrap();
        let last = payload.len() - 8;
        let mut otherwise = payload.to_vec();
        otherwise[last] ^= 1;
        init.verify_inits[0].payload = &otherwise;
        let body = w.wire().encode_aggregation_job_init(&init).unwrap();
        assert_eq!(codes(&w.put(4, &body).unwrap()), [REPLAYED]);
        // Another report of the same id.
        let namesake = w.begin(&a, &w.reports(&["001011"]));
        assert_eq!(codes(&w.put(5, namesake.request()).unwrap()), [REPLAYED]);
        assert_eq!(w.put(6, first.request()).unwrap(), answers);
    }
}

/// What became of the reports is counted once, like other refusals of a first round.
#[test]
fn reports_that_began_otherwise_are_counted_once() {
    for shape in all() {
        let w = World::new(shape);
        let reports = w.reports(&STRINGS);
        w.put(1, w.begin(&w.param(&["0"]), &reports[..5]).request()).unwrap();
        let other = w.begin(&w.param(&["1"]), &reports);
        for _ in 0..3 {
            w.put(2, other.request()).unwrap();
        }
        let (placement, field) = (w.task.parameters.placement(), w.task.vdaf.field());
        let ask = LedgerRequest::Status { placement, field, batches: false, after: None };
        let answer = block_on(w.cluster.ledger(w.task.id(), ask)).unwrap();
        let LedgerResponse::Status(status) = answer else { panic!("a status") };
        assert_eq!(status.totals.failures, BTreeMap::from([(Failure::Replayed, 5)]), "{shape:?}");
    }
}

/// Whichever call is lost, or is answered unheard, and whatever the stores forget: at most one of two parameters is ever
/// answered, and the same request again gets its answer, without another row.
#[test]
fn beginnings_cut_off_at_any_call_say_one_thing() {
    for shape in all() {
        let mut cut_off = 0;
        for fate in [Fate::RequestLost, Fate::AnswerLost] {
            for cut in 0.. {
                let w = World::new(shape);
                let reports = w.reports(&STRINGS);
                let (a, b) =
                    (w.begin(&w.param(&["0"]), &reports), w.begin(&w.param(&["1"]), &reports));
                w.cluster.fate_of_call(cut, fate);
                let first = w.put(1, a.request());
                if w.cluster.calls() <= cut {
                    break;
                }
                assert!(matches!(first, Err(Error::Internal(Internal::Unavailable(_)))));
                w.cluster.reset_stores();
                w.cluster.reset_ledgers();
                let other = w.put(2, b.request()).unwrap();
                let written = rows(&w);
                let again = w.put(1, a.request()).unwrap();
                assert_eq!(w.put(1, a.request()).unwrap(), again);
                assert_eq!(w.put(2, b.request()).unwrap(), other);
                assert_eq!(rows(&w), written, "all of them had begun");
                let (again, other) = (said(&again), said(&other));
                assert_eq!(again.len() + other.len(), 9, "{shape:?} {fate:?} {cut}");
                let both: BTreeSet<&u8> = again.keys().chain(other.keys()).collect();
                assert_eq!(both.len(), 9, "none is told twice");
                cut_off += 1;
            }
        }
        assert!(cut_off >= 6, "only {cut_off} cuts");
    }
}

/// Another job, or another body under the same job id, that comes between any two calls.
#[test]
fn of_two_that_begin_a_report_at_once_one_does() {
    for shape in all() {
        for job in [1, 2] {
            let (mut won, mut lost) = (0, 0);
            for at in 0.. {
                let w = World::new(shape);
                let reports = w.reports(&STRINGS);
                let (a, b) =
                    (w.begin(&w.param(&["0"]), &reports), w.begin(&w.param(&["1"]), &reports));
                let other: Rc<RefCell<Option<Answer>>> = Rc::default();
                let (heard, task, keys) = (other.clone(), w.task.clone(), w.keys.clone());
                let body = b.request().to_vec();
                w.cluster.before_call(at, move |cluster| {
                    let answer = put_to(cluster, &task, &keys, &OpenAndVerify, job, &body);
                    *heard.borrow_mut() = Some(answer);
                });
                let first = w.put(1, a.request());
                let Some(second) = other.take() else { break };
                let heard = |answer: Answer| match answer {
                    Ok(answers) => said(&answers),
                    Err(Error::Abort(abort)) if job == 1 => {
                        assert_eq!(abort.kind, AbortKind::Conflict);
                        BTreeMap::new()
                    }
                    Err(error) => panic!("{error:?}"),
                };
                let (first, second) = (heard(first), heard(second));
                assert!(first.keys().all(|id| !second.contains_key(id)), "{shape:?} {job} {at}");
                if job == 2 {
                    assert_eq!(first.len() + second.len(), 9, "each report goes on in one");
                }
                won += usize::from(!first.is_empty());
                lost += usize::from(!second.is_empty());
            }
            // Of two bodies under one id the other one is kept first, whenever it comes.
            assert!((won > 0) == (job == 2) && lost > 0, "{won} {lost}");
        }
    }
}
