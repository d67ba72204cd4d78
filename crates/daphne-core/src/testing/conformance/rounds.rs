//! VDAFs of several rounds and aggregation parameters: levels of a tree, and jobs that wait.

use super::*;
use crate::store::message::RequestDigest;

/// An aggregation parameter of Poplar1: a level, and something else.
fn param(level: u16, prefixes: &[u8]) -> Vec<u8> {
    [&level.to_be_bytes(), prefixes].concat()
}

fn commit_at(job_number: u8, param: &[u8], slices: Vec<Slice>) -> Commit {
    Commit { param: param.to_vec(), ..commit(job_number, slices) }
}

async fn poplar<'a, O: Objects>(objects: &'a O, case: &str) -> Subject<'a, O> {
    let s = Subject::new(objects, case, BatchMode::LeaderSelected, 1, 0);
    Subject { field: FieldKind::Poplar1 { bits: 64 }, ..s }
}

fn batch(n: u8) -> BatchId {
    BatchId::new([n; 32])
}

/// A report is aggregated at most once at a level, whatever the parameter's prefixes and whatever the batch, and never
/// at a level above one where it was (I1).
pub async fn a_report_is_aggregated_once_at_each_level_and_only_downwards(objects: &impl Objects) {
    let s = poplar(objects, "levels").await;
    let add = |n, reports: &[u8]| vec![slice(BatchBucket::Batch(batch(n)), reports)];
    let committed = Answer::Committed(vec![]);
    assert_eq!(s.commit(ONLY, commit_at(1, &param(3, b"a"), add(1, &[1, 2]))).await, committed);
    // The same parameter: the job that holds it may have been given up.
    let same = commit_at(2, &param(3, b"a"), add(1, &[2]));
    assert_eq!(s.commit(ONLY, same).await, soft(&[(2, 1)]));
    // Other prefixes, another batch, a level above.
    for (job, param, n) in [(3, param(3, b"b"), 1), (4, param(3, b"b"), 2), (5, param(2, b""), 1)] {
        let again = commit_at(job, &param, add(n, &[1, 3]));
        assert_eq!(s.commit(ONLY, again).await, hard(&[1]), "{param:?}");
    }
    // Below is free, and each level below once.
    for (job, level) in [(6, 4), (7, 60)] {
        let below = commit_at(job, &param(level, b"c"), add(1, &[1, 2]));
        assert_eq!(s.commit(ONLY, below.clone()).await, committed);
        assert_eq!(s.commit(ONLY, below).await, committed, "a repeat");
        let other = commit_at(job + 10, &param(level, b"d"), add(1, &[1]));
        assert_eq!(s.commit(ONLY, other).await, hard(&[1]));
    }
    // Between two levels is above the lower one.
    let between = commit_at(30, &param(5, b"e"), add(1, &[1, 9]));
    assert_eq!(s.commit(ONLY, between).await, hard(&[1]));
    // Who was never aggregated goes anywhere.
    let fresh = commit_at(31, &param(0, b""), add(1, &[9]));
    assert_eq!(s.commit(ONLY, fresh).await, committed);
}

/// Where a report is aggregated once, that is at one level, whichever comes first (DAP-18 §4.5.4.3).
pub async fn where_reports_are_aggregated_once_no_other_level_counts_them(objects: &impl Objects) {
    let s = poplar(objects, "one level").await;
    let once = |n, level, reports: &[u8]| Commit {
        once: true,
        ..commit_at(n, &param(level, b"a"), vec![slice(BatchBucket::Batch(batch(1)), reports)])
    };
    let committed = Answer::Committed(vec![]);
    assert_eq!(s.commit(ONLY, once(1, 3, &[1, 2])).await, committed);
    for (job, level) in [(2, 2), (3, 4), (4, 60)] {
        assert_eq!(s.commit(ONLY, once(job, level, &[1, 9])).await, hard(&[1]), "{level}");
    }
    assert_eq!(s.commit(ONLY, once(5, 4, &[9])).await, committed);
}

/// Freezes the first batch but for one job, which leaves two reports. Returns what seals it.
async fn freeze_without<O: Objects>(
    s: &Subject<'_, O>,
    param: &[u8],
    without: AggregationJobId,
) -> StoreAction {
    let (range, param, exclude) = (BucketRange::Batch(batch(1)), param.to_vec(), vec![without]);
    let gather = StoreAction::Gather { range, param: param.clone(), exclude: exclude.clone() };
    let Answer::Gathered { content, .. } = s.ask(ONLY, gather).await else { panic!("gathered") };
    assert_eq!(content.report_count, 2);
    let freeze = StoreAction::Freeze {
        attempt: 1,
        range,
        counts: range,
        param: param.clone(),
        exclude: exclude.clone(),
        version: content.version(),
    };
    assert_eq!(s.ask(ONLY, freeze).await, Answer::Frozen);
    StoreAction::Seal { attempt: 1, range, counts: range, param, exclude }
}

/// A report that a collection left out is free at its level, for one job.
pub async fn a_report_that_was_left_out_at_a_level_counts_once_in_its_successor(
    objects: &impl Objects,
) {
    let s = poplar(objects, "left out at a level").await;
    let (a, b) = (param(3, b"a"), param(3, b"b"));
    let add = |n, reports: &[u8]| vec![slice(BatchBucket::Batch(batch(n)), reports)];
    let committed = Answer::Committed(vec![]);
    assert_eq!(s.commit(ONLY, commit_at(1, &a, add(1, &[1, 2]))).await, committed);
    assert_eq!(s.commit(ONLY, commit_at(2, &a, add(1, &[3, 4]))).await, committed);
    // The leader gave job 1 up.
    let seal = freeze_without(&s, &a, job(1)).await;
    let held = commit_at(3, &b, add(2, &[3]));
    assert_eq!(s.commit(ONLY, held).await, Answer::Busy(1), "its slice is being decided about");
    assert_eq!(s.ask(ONLY, seal).await, Answer::Done);
    // What was left out is taken at the same level with other prefixes; what counts is not.
    assert_eq!(s.commit(ONLY, commit_at(4, &b, add(2, &[1, 3]))).await, hard(&[3]));
    assert_eq!(s.commit(ONLY, commit_at(4, &b, add(2, &[1]))).await, committed);
    // It is taken now, for the parameter that it was left out under, too.
    assert_eq!(s.commit(ONLY, commit_at(5, &a, add(3, &[1, 2]))).await, hard(&[1]));
    assert_eq!(s.commit(ONLY, commit_at(5, &a, add(3, &[2]))).await, committed);
}

/// What another job took over from a slice that a collection had left out was in no collection of that batch, so the
/// batch does not take it at the next level (DAP-09 §4.5.1.4).
pub async fn a_report_taken_over_from_what_was_left_out_never_was_in_the_batch(
    objects: &impl Objects,
) {
    let s = poplar(objects, "taken over").await;
    let (a, b, below) = (param(3, b"a"), param(3, b"b"), param(4, b"c"));
    let add = |n, reports: &[u8]| vec![slice(BatchBucket::Batch(batch(n)), reports)];
    let committed = Answer::Committed(vec![]);
    assert_eq!(s.commit(ONLY, commit_at(1, &a, add(1, &[1, 2]))).await, committed);
    assert_eq!(s.commit(ONLY, commit_at(2, &a, add(1, &[3, 4]))).await, committed);
    let seal = freeze_without(&s, &a, job(1)).await;
    assert_eq!(s.ask(ONLY, seal).await, Answer::Done);
    // Report 1 goes to another batch, at the same level.
    assert_eq!(s.commit(ONLY, commit_at(3, &b, add(2, &[1]))).await, committed);
    let late = |reports: &[u8]| Answer::Collected(reports.iter().map(|n| report(*n)).collect());
    assert_eq!(s.commit(ONLY, commit_at(4, &below, add(1, &[1, 3]))).await, late(&[1]));
    assert_eq!(s.commit(ONLY, commit_at(4, &below, add(1, &[2, 3]))).await, late(&[2]));
    assert_eq!(s.commit(ONLY, commit_at(4, &below, add(1, &[3, 4]))).await, committed);
    // Its own batch takes it.
    assert_eq!(s.commit(ONLY, commit_at(5, &below, add(2, &[1]))).await, committed);
}

struct Jobs<'a, O>(Subject<'a, O>);

impl<O: Objects> Jobs<'_, O> {
    async fn ask(&self, request: JobStoreRequest) -> JobStoreResponse {
        self.0.objects.job_store(&self.0.placement, 0, request).await.expect("an answer")
    }

    async fn begin(
        &self,
        digest: u8,
        waiting: &[u8],
        state: &[u8],
        answer: &[u8],
    ) -> JobStoreResponse {
        self.ask(JobStoreRequest::Begin {
            placement: self.0.placement,
            job: job(1),
            digest: [digest; 32],
            waiting: waiting.iter().map(|n| report(*n)).collect(),
            state: state.to_vec(),
            answer: answer.to_vec(),
        })
        .await
    }

    async fn begun(&self, digest: u8) -> JobStoreResponse {
        self.ask(JobStoreRequest::Begun { job: job(1), digest: [digest; 32] }).await
    }

    async fn begin_step(&self, step: u16, digest: u8, reports: &[u8]) -> JobStoreResponse {
        let reports = reports.iter().map(|n| report(*n)).collect();
        let digest = [digest; 32];
        self.ask(JobStoreRequest::BeginStep { job: job(1), step, digest, reports }).await
    }

    async fn end_step(&self, step: u16, digest: u8, answer: &[u8]) -> JobStoreResponse {
        let (digest, answer) = ([digest; 32], answer.to_vec());
        self.ask(JobStoreRequest::EndStep { job: job(1), step, digest, answer }).await
    }
}

fn jobs<'a, O: Objects>(objects: &'a O, case: &str) -> Jobs<'a, O> {
    Jobs(Subject::new(objects, case, BatchMode::TimeInterval, 1, 10))
}

fn answered(bytes: &[u8]) -> JobStoreResponse {
    JobStoreResponse::Answered(bytes.to_vec())
}

fn step(digest: u8, state: &[u8]) -> JobStoreResponse {
    let digest: RequestDigest = [digest; 32];
    JobStoreResponse::Step { digest, state: state.to_vec() }
}

/// The first to begin a job counts; its repeat is answered alike until the job is continued.
pub async fn a_job_of_several_rounds_is_begun_once(objects: &impl Objects) {
    let s = jobs(objects, "several rounds");
    assert_eq!(s.begun(1).await, JobStoreResponse::Unknown);
    assert_eq!(s.begin(1, &[1, 2], b"state", b"answer").await, answered(b"answer"));
    assert_eq!(s.begin(1, &[1], b"later", b"another").await, answered(b"answer"));
    assert_eq!(s.begin(2, &[1, 2], b"state", b"answer").await, JobStoreResponse::Conflict);
    assert_eq!(s.begun(1).await, answered(b"answer"));
    assert_eq!(s.begun(2).await, JobStoreResponse::Conflict);
    assert_eq!(s.begin_step(1, 7, &[1]).await, step(1, b"state"));
    assert_eq!(s.begun(1).await, JobStoreResponse::Continued);
    assert_eq!(s.begin(1, &[1, 2], b"state", b"answer").await, JobStoreResponse::Continued);
    assert_eq!(s.end_step(1, 7, b"done").await, answered(b"done"));
    assert_eq!(s.begin(1, &[1, 2], b"state", b"answer").await, JobStoreResponse::Continued);
    assert_eq!(s.begin(2, &[1, 2], b"state", b"answer").await, JobStoreResponse::Conflict);
}

/// Of two continuations that differ one is taken, before anything of either is committed; it may be cut off and come
/// again, and is answered for ever.
pub async fn a_step_is_taken_by_one_body(objects: &impl Objects) {
    let s = jobs(objects, "steps");
    assert_eq!(s.begin_step(1, 7, &[1]).await, JobStoreResponse::Unknown);
    assert_eq!(s.end_step(1, 7, b"").await, JobStoreResponse::Unknown);
    s.begin(1, &[1, 2, 3], b"state", b"answer").await;
    for (n, reports) in [&[4][..], &[1, 1], &[2, 1], &[1, 2, 3, 3], &[3, 1]].into_iter().enumerate()
    {
        let refused = s.begin_step(1, n as u8, reports).await;
        assert_eq!(refused, JobStoreResponse::NotWaiting, "{reports:?}");
    }
    for wrong in [0, 2, u16::MAX] {
        assert_eq!(s.begin_step(wrong, 7, &[1]).await, JobStoreResponse::StepMismatch, "{wrong}");
    }
    // None of these took the step.
    assert_eq!(s.end_step(1, 7, b"done").await, JobStoreResponse::StepMismatch);
    assert_eq!(s.begin_step(1, 7, &[1, 3]).await, step(1, b"state"));
    assert_eq!(s.begin_step(1, 7, &[1, 3]).await, step(1, b"state"), "cut off");
    assert_eq!(s.begin_step(1, 8, &[1, 3]).await, JobStoreResponse::StepMismatch);
    assert_eq!(s.end_step(1, 8, b"other").await, JobStoreResponse::StepMismatch);
    assert_eq!(s.end_step(1, 7, b"done").await, answered(b"done"));
    assert_eq!(s.end_step(1, 7, b"again").await, answered(b"done"));
    assert_eq!(s.begin_step(1, 7, &[1, 3]).await, answered(b"done"));
    assert_eq!(s.begin_step(1, 8, &[1, 3]).await, JobStoreResponse::StepMismatch);
    assert_eq!(s.begin_step(2, 9, &[2]).await, JobStoreResponse::NotWaiting, "it was left out");
    assert_eq!(s.begin_step(3, 9, &[2]).await, JobStoreResponse::StepMismatch);
}

/// What was deleted is not continued, and its id is not free.
pub async fn a_deleted_job_of_several_rounds_takes_no_step(objects: &impl Objects) {
    let s = jobs(objects, "deleted job");
    assert_eq!(s.ask(JobStoreRequest::Forget(job(1))).await, JobStoreResponse::Done, "not there");
    s.begin(1, &[1], b"state", b"answer").await;
    assert_eq!(s.begin_step(1, 7, &[1]).await, step(1, b"state"));
    for _ in 0..2 {
        assert_eq!(s.ask(JobStoreRequest::Forget(job(1))).await, JobStoreResponse::Done);
        assert_eq!(s.begin_step(1, 7, &[1]).await, JobStoreResponse::Unknown);
        assert_eq!(s.end_step(1, 7, b"done").await, JobStoreResponse::Unknown);
        assert_eq!(s.begun(1).await, JobStoreResponse::Deleted);
        assert_eq!(s.begun(2).await, JobStoreResponse::Conflict);
        assert_eq!(s.begin(1, &[1], b"state", b"answer").await, JobStoreResponse::Deleted);
        assert_eq!(s.begin(2, &[1], b"state", b"answer").await, JobStoreResponse::Conflict);
    }
}

/// States and answers larger than a database row are kept whole.
pub async fn large_states_are_kept_whole(objects: &impl Objects) {
    let s = jobs(objects, "large states");
    let large = |len: usize, n: usize| -> Vec<u8> { (0..len).map(|i| (i % n) as u8).collect() };
    let (state, first, last) = (large(1_600_001, 251), large(800_000, 241), large(700_001, 239));
    assert!(s.begin(1, &[1], &state, &first).await == answered(&first));
    assert!(s.begin(1, &[1], &state, b"").await == answered(&first));
    assert!(s.begin_step(1, 7, &[1]).await == step(1, &state));
    assert!(s.end_step(1, 7, &last).await == answered(&last));
    assert!(s.begin_step(1, 7, &[1]).await == answered(&last));
}
