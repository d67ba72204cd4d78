//! A job id that is deleted before anything came under it, and used then: what counts, counts once.
//!
//! A leader that follows the drafts does neither: it uses an id for one job (DAP-09 §4.5.1.1), and in DAP-18 the id is
//! a hash of the request. What the ids of deleted jobs allow must yet be harmless, whatever the leader does.

use daphne_core::{
    aggregate::leader::LeaderOutcome,
    batch::{BatchMode, Checksum},
    collect::{
        collector::{self, CollectorTask},
        helper::collect_request,
    },
    error::{AbortKind, Error, Internal, ReportError},
    hpke::{HpkeKem, HpkeKeypair, Role},
    ids::{AggregationJobId, BatchId, HpkeConfigId},
    message::{AggregateShareRequest, BatchSelector, HpkeCiphertext},
    store::{
        CallError, Objects as _,
        message::{LedgerRequest, LedgerResponse},
    },
    testing::memory::Fate,
    time::Time,
};
use futures::executor::block_on;
use sha2::{Digest as _, Sha256};

use super::world::{NOW, SHAPES, Shape, World, codes};

/// `DELETE …/aggregation_jobs/{job}`.
fn delete(w: &World, job: u8) -> Result<LedgerResponse, CallError> {
    let placement = w.task.parameters.placement();
    let release = LedgerRequest::Release { placement, job: AggregationJobId::new([job; 16]) };
    block_on(w.cluster.ledger(w.task.id(), release))
}

/// The first batch as a leader counts it that counts these jobs: the aggregate, in words.
fn collect(w: &World, counted: &[&LeaderOutcome]) -> Result<String, AbortKind> {
    let precision = w.task.parameters.time_precision;
    let batch = match w.task.parameters.batch_mode {
        BatchMode::TimeInterval => {
            let start = Time::from_seconds(NOW - 10).round_down(precision);
            BatchSelector::TimeInterval { start, duration: precision }
        }
        BatchMode::LeaderSelected => BatchSelector::LeaderSelected(BatchId::new([1; 32])),
    };
    let (mut report_count, mut checksum) = (0, Checksum::default());
    let mut share = w.vdaf().aggregate_init(&w.agg_param()).encode();
    for slice in counted.iter().flat_map(|outcome| outcome.accepted.values()) {
        report_count += slice.report_count;
        checksum.merge(&slice.checksum);
        let (field, mine) = (w.vdaf().field(), slice.share.encode());
        daphne_core::vdaf::share::add_assign(field, &mut share, &mine).unwrap();
    }
    let binding = w.wire().share_binding(&[], &batch).unwrap();
    let request = AggregateShareRequest {
        batch_selector: batch,
        collected: batch,
        agg_param: &[],
        report_count,
        checksum: *checksum.as_bytes(),
        share_binding: (&binding).into(),
    };
    let body = w.wire().encode_aggregate_share_request(&request).unwrap();
    let ask = collect_request(&w.task, &request, Sha256::digest(body).into()).unwrap();
    let ask = LedgerRequest::Collect(Box::new(ask));
    match block_on(w.cluster.ledger(w.task.id(), ask)).unwrap() {
        LedgerResponse::Share(answer) => {
            let collector_key =
                HpkeKeypair::derive(HpkeConfigId(7), HpkeKem::X25519HkdfSha256, &[7; 32]).unwrap();
            let task = CollectorTask {
                task_id: w.task.id(),
                version: w.task.parameters.version,
                task_configuration: &w.task.parameters.task_configuration,
            };
            let answer = HpkeCiphertext::decode(&answer).unwrap();
            let helper = task.open_share(&collector_key, Role::Helper, &binding, answer).unwrap();
            let sum = collector::unshard(w.vdaf(), &w.agg_param(), &share, &helper, report_count)
                .unwrap();
            Ok(sum.to_string())
        }
        LedgerResponse::Refused(abort) => Err(abort.kind),
        other => panic!("a collection was answered with {other:?}"),
    }
}

fn is_unavailable<T: std::fmt::Debug>(answer: &Result<T, Error>) -> bool {
    matches!(answer, Err(Error::Internal(Internal::Unavailable(_))))
}

/// A job's request, and what the leader counts of it.
type Accepted = (Vec<u8>, LeaderOutcome);

/// A job of the first batch whose reports all count, by what it was answered.
fn accepted(w: &World, job: u8, reports: &[u8], why: &str) -> Accepted {
    let begun = w.begin(1, &w.reports(reports));
    let body = begun.request().to_vec();
    let answers = w.put(job, &body).unwrap();
    assert!(codes(&answers).iter().all(Option::is_none), "{why}");
    let answer = w.wire().encode_aggregation_job_resp(&answers).unwrap();
    (body, w.leader().finish_job(begun, &answer).unwrap())
}

/// Job 2 is lost, deleted and sent again with another body, of which job 4 takes a report over: in both it was said to
/// count.
fn reused(w: &World, deletion: Fate) -> (Accepted, Accepted) {
    let lost = w.begin(1, &w.reports(&[9]));
    w.cluster.fate_of_call(w.cluster.calls(), Fate::RequestLost);
    assert!(is_unavailable(&w.put(2, lost.request())));
    w.cluster.fate_of_call(w.cluster.calls(), deletion);
    assert_eq!(delete(w, 2).is_ok(), deletion == Fate::Delivered);
    let second = accepted(w, 2, &[1, 2, 3], "the id is free");
    match w.put(2, lost.request()) {
        Err(Error::Abort(abort)) => assert_eq!(abort.kind, AbortKind::Conflict),
        other => panic!("the body that was lost comes late and is answered {other:?}"),
    }
    (second, accepted(w, 4, &[3, 4, 5], "the id was deleted"))
}

#[test]
fn a_deleted_id_that_is_used_again_counts_no_report_twice() {
    for shape in SHAPES.into_iter().flatten() {
        for deletion in [Fate::Delivered, Fate::AnswerLost] {
            for keeps_second in [true, false] {
                counts_no_report_twice(shape, deletion, keeps_second);
            }
        }
    }
}

fn counts_no_report_twice(shape: Shape, deletion: Fate, keeps_second: bool) {
    let w = World::new(shape);
    let (second, fourth) = reused(&w, deletion);
    let both = collect(&w, &[&second.1, &fourth.1]);
    assert_eq!(both, Err(AbortKind::BatchMismatch), "{shape:?}: a report counts twice");
    // Either is kept, as the leader counts. A wrong request has burnt nothing.
    let (kept, sum) = if keeps_second { (&second.1, "6") } else { (&fourth.1, "12") };
    assert_eq!(collect(&w, &[kept]).as_deref(), Ok(sum), "{shape:?}");
    // What counts now counts nowhere else, and the verdicts stay as they were given.
    let (answers, _) = w.run(5, 2, &w.reports(&[3]));
    let refused = match shape.mode {
        BatchMode::TimeInterval => ReportError::BatchCollected,
        BatchMode::LeaderSelected => ReportError::ReportReplayed,
    };
    assert_eq!(codes(&answers), [Some(refused)], "{shape:?}");
    for (job, (body, _)) in [(2, second), (4, fourth)] {
        assert_eq!(codes(&w.put(job, &body).unwrap()), [None; 3], "{shape:?}");
    }
}

#[test]
fn a_job_takes_no_report_over_from_one_that_was_not_deleted() {
    for shape in SHAPES.into_iter().flatten() {
        let w = World::new(shape);
        let (_, _) = reused(&w, Fate::Delivered);
        // Who took it over holds it.
        let (answers, _) = w.run(6, 1, &w.reports(&[3, 6]));
        assert_eq!(codes(&answers), [Some(ReportError::ReportReplayed), None], "{shape:?}");
    }
}
