//! Requests of a leader in any order, repeated and with things changed about them, while calls are lost, objects are
//! reset, alarms run and time passes.
//!
//! The leader is honest where it is not said otherwise, and keeps books ([`books`]): from them it is known what each
//! answer may be.

mod books;

use daphne_core::{
    error::{AbortKind, ReportError},
    ids::ReportId,
    message::{AggregationJobContinue, VerifyContinue, VerifyResp, VerifyRespResult},
    store::aggregate_store::Limits,
    testing::memory::Fate,
};

use self::books::{Books, Job};
use crate::{
    choices::Choices,
    fixture::{NOW, Pool, SECOND_KEY, SECOND_KEY_EXPIRES_IN, is_accepted, pool},
    request::JobRequest,
    trace,
    world::{World, job_id, refusal_or_later},
};

/// Job ids that occur.
const JOBS: usize = 5;
/// Reports that a job may have: the regular ones, one that is too early at first, one that always is.
const REPORTS: [usize; 7] = [0, 1, 2, 3, 4, 5, 7];
/// Operations of a run. One that does nothing takes a byte.
const OPERATIONS_MAX: usize = 64;
const DAY: u64 = 86_400;

/// Chooses a task, and operations until nothing is left.
pub fn sequence(data: &[u8]) {
    let mut choices = Choices::new(data);
    let pool = pool(usize::from(choices.byte()));
    let packs = choices.below(4) == 3;
    let limits = if packs {
        Limits { generation_rows: 2, pressure_rows: 2, ..Limits::DEFAULT }
    } else {
        Limits::DEFAULT
    };
    let mut world = World::with_limits(pool, limits);
    world.remembers = true;
    let mut run = Run { world, pool, books: Books::new(pool), packs, is_lossy: false };
    for _ in 0..OPERATIONS_MAX {
        if choices.is_empty() {
            break;
        }
        run.operation(&mut choices);
    }
}

struct Run {
    world: World,
    pool: &'static Pool,
    books: Books,
    /// Stores merge what they hold after a few jobs, and what is merged can no longer be left out.
    packs: bool,
    /// A call was or may be lost: what was not answered may have happened.
    is_lossy: bool,
}

impl Run {
    /// Whether it is known what the answer to each request must be: nothing was lost or merged, and nothing is old.
    fn is_strict(&self) -> bool {
        !self.is_lossy && !self.packs && self.world.now() < NOW + DAY
    }

    /// Whether jobs may be forgotten, as their reports are too old to come again.
    fn is_aged(&self) -> bool {
        self.world.now() >= NOW + 13 * DAY
    }

    fn operation(&mut self, choices: &mut Choices<'_>) {
        match choices.below(12) {
            0..=2 => self.put(choices),
            3 | 4 => self.post(choices),
            5 => self.delete(choices),
            6 | 7 => self.collect(choices),
            8 => self.alarms(),
            9 => {
                self.world.cluster.reset_ledgers();
                self.world.cluster.reset_stores();
            }
            10 => {
                let step = [60, 400, 7 * DAY, 20 * DAY][choices.below(4)];
                self.world.set_time(self.world.now() + step);
                trace(|| format!("{step} s later"));
            }
            _ => {
                let fate = *choices.of(&[Fate::RequestLost, Fate::AnswerLost]);
                let call = self.world.cluster.calls() + choices.below(8) as u64;
                self.world.cluster.fate_of_call(call, fate);
                trace(|| format!("call {call} of {}: {fate:?}", self.world.cluster.calls()));
                self.is_lossy = true;
            }
        }
    }

    /// Sends a new job, or an old one again, with its own body or another one's.
    fn put(&mut self, choices: &mut Choices<'_>) {
        let id = choices.below(JOBS) as u8;
        let known = self.books.jobs.get(&id);
        let is_repeat = choices.below(4) > 0;
        let mut job = match known {
            Some(job) if is_repeat => job.clone(),
            // Chosen anew, it may be one that there is.
            _ => self.books.known_or(id, self.new_job(choices)),
        };
        let is_given_up = |known: &Job| known.is_deleted && known.body == job.body;
        if self.books.deleted.contains(&id) && known.is_none_or(is_given_up) {
            // No leader does this, and it has no use for the answer.
            return;
        }
        let answer = self.world.put(id, &job.body);
        trace(|| format!("PUT {id} {:?} param {}: {answer:?}", job.reports, job.param));
        let answers = match answer {
            Ok(answers) => answers,
            Err(error) => {
                let refused = refusal_or_later(error);
                match refused.map(|abort| abort.kind) {
                    None => {
                        assert!(self.is_lossy, "job {id} is to be sent again");
                        self.books.unheard(id, job);
                    }
                    Some(AbortKind::Conflict) => {
                        let was_used = known.is_some_and(|known| {
                            known.body != job.body || known.continuation.is_some()
                        });
                        assert!(was_used || !self.is_strict(), "job {id} conflicts with itself");
                    }
                    Some(kind) => panic!("job {id} is refused: {kind:?}"),
                }
                return;
            }
        };
        if self.is_aged() {
            // Of a job that went on, a repeat may be told how.
            let was_accepted = |answer: &VerifyResp| {
                let was_told = |told: Option<&Vec<VerifyResp>>| {
                    told.map_or(self.is_lossy, |told| told.contains(answer))
                };
                let then = known.and_then(|known| known.continuation.as_ref());
                was_told(known.and_then(|known| known.answer.as_ref()))
                    || then.is_some_and(|(_, then)| was_told(then.as_ref()))
            };
            let is_right = answers.iter().all(|a| !is_accepted(a) || was_accepted(a));
            assert!(is_right, "job {id}: a report of old is accepted");
            return;
        }
        if let Some(known) = known {
            let is_same = known.body == job.body;
            // What was lost on the way may never have come to the helper.
            assert!(is_same || known.answer.is_none() && self.is_lossy, "two bodies under {id}");
            let goes_on = self.pool.task.parameters.version.repeats_after_continuation();
            let current = match &known.continuation {
                Some((_, then)) if goes_on => Some(then.as_ref()),
                _ => known.answer.as_ref().map(Some),
            };
            if let (true, Some(current)) = (is_same, current) {
                // A continuation that was lost may have been taken, or not.
                let is_right = current.map_or(self.is_lossy, |current| *current == answers);
                assert!(is_right, "job {id} is answered otherwise the second time");
                return;
            }
        }
        let asked = job.reports.iter().map(|n| crate::fixture::report_id(*n));
        assert!(asked.eq(answers.iter().map(|a| a.report_id)), "one answer a report, in order");
        let mut accepted = Vec::new();
        for (n, answer) in job.reports.iter().zip(&answers) {
            match &answer.result {
                VerifyRespResult::Continue(_) => accepted.push(*n),
                VerifyRespResult::Finish => panic!("the leader waits for a message"),
                VerifyRespResult::Reject(ReportError::ReportReplayed)
                    if self.pool.has_two_rounds() =>
                {
                    let is_right = self.books.began_otherwise(&job, *n);
                    assert!(is_right || !self.is_strict(), "job {id}, report {n}: began once");
                }
                VerifyRespResult::Reject(error) => self.check_refused(id, &job, *n, *error),
            }
        }
        job.answer = Some(answers);
        if self.pool.has_two_rounds() {
            accepted.iter().for_each(|n| self.books.began(id, &job, *n));
            job.waiting = accepted;
        } else {
            accepted.iter().for_each(|n| self.books.accepted(id, &job, *n));
            job.counted = accepted;
        }
        self.books.answered(id, job);
    }

    fn new_job(&self, choices: &mut Choices<'_>) -> Job {
        let chosen = choices.byte();
        let param = choices.below(self.pool.params.len());
        let batch = choices.byte() % 2;
        let mut reports: Vec<usize> =
            (0..REPORTS.len()).filter(|n| chosen >> n & 1 == 1).map(|n| REPORTS[n]).collect();
        if reports.is_empty() {
            reports.push(0);
        }
        let honest = reports.iter().copied();
        let body = JobRequest::new(self.pool, &self.pool.params[param], batch, honest)
            .encode(self.pool)
            .expect("it has reports");
        Job::new(body, reports, param, batch)
    }

    /// A refusal has a reason.
    fn check_refused(&self, id: u8, job: &Job, report: usize, error: ReportError) {
        let is_right = match error {
            ReportError::ReportReplayed => self.books.is_replay(id, job, report),
            ReportError::BatchCollected => self.books.is_collected(job, report),
            ReportError::ReportTooEarly | ReportError::TaskExpired => report > 4,
            ReportError::HpkeUnknownConfigId => {
                report == SECOND_KEY && self.world.now() > NOW + SECOND_KEY_EXPIRES_IN
            }
            _ => false,
        };
        assert!(is_right || !self.is_strict(), "job {id}, report {report}: {error:?}");
    }

    /// Continues a job, or a job that there is not; as an honest leader would, or with something changed.
    fn post(&mut self, choices: &mut Choices<'_>) {
        let id = choices.below(JOBS) as u8;
        let is_honest = choices.below(2) == 0;
        let known = self.books.jobs.get(&id).cloned();
        let first = known.as_ref().and_then(|job| job.continuation.clone());
        let body = match (&known, &first) {
            (_, Some((body, _))) if is_honest => Some(body.clone()),
            (Some(job), _) => self.continuation(job, is_honest, choices),
            (None, _) => self.continuation(&self.new_job(choices), is_honest, choices),
        };
        let Some(body) = body else { return };
        let is_first = first.as_ref().is_some_and(|(first, _)| *first == body);
        let answer = self.world.post(id, &body);
        trace(|| format!("POST {id} honest {is_honest}: {answer:?}"));
        let answers = match answer {
            Ok(answers) => answers,
            Err(error) => {
                let Some(abort) = refusal_or_later(error) else {
                    assert!(self.is_lossy, "the continuation of {id} is to be sent again");
                    if let Some(job) = self.books.jobs.get_mut(&id)
                        && first.is_none()
                    {
                        job.continuation = Some((body, None));
                    }
                    return;
                };
                let is_fit = known.as_ref().is_some_and(|job| {
                    job.answer.is_some() && !job.is_deleted && !job.waiting.is_empty()
                });
                let is_known_kind = matches!(
                    abort.kind,
                    AbortKind::InvalidMessage
                        | AbortKind::StepMismatch
                        | AbortKind::UnrecognizedAggregationJob
                );
                assert!(is_known_kind, "{abort:?}");
                let must_do = is_honest && is_fit && (is_first || first.is_none());
                assert!(!must_do || !self.is_strict(), "an honest continuation: {abort:?}");
                return;
            }
        };
        if self.is_aged() {
            return;
        }
        let job = known.expect("a job that there is not was continued");
        assert!(!job.is_deleted, "a deleted job was continued");
        if let Some((_, Some(answered))) = &first {
            assert!(is_first, "two continuations of {id} are answered");
            assert!(*answered == answers, "{id} is answered otherwise the second time");
            return;
        }
        assert!(self.pool.has_two_rounds(), "there is but one round");
        let request = self.pool.wire().aggregation_job_continue(&body).expect("it was answered");
        let asked = request.verify_continues.iter().map(|c| c.report_id);
        assert!(asked.eq(answers.iter().map(|a| a.report_id)), "one answer a report, in order");
        let mut counted = Vec::new();
        for answer in &answers {
            let n = usize::from(answer.report_id.as_bytes()[0]) - 1;
            match answer.result {
                VerifyRespResult::Finish => {
                    self.books.accepted(id, &job, n);
                    counted.push(n);
                }
                VerifyRespResult::Continue(_) => panic!("there is no third round"),
                VerifyRespResult::Reject(ReportError::VdafVerifyError) if !is_honest => {}
                VerifyRespResult::Reject(error) => self.check_refused(id, &job, n, error),
            }
        }
        let job = self.books.jobs.entry(id).or_default();
        job.continuation = Some((body, Some(answers)));
        job.counted = counted;
    }

    /// What continues a job; `None` for what has no bytes.
    fn continuation(
        &self,
        job: &Job,
        is_honest: bool,
        choices: &mut Choices<'_>,
    ) -> Option<Vec<u8>> {
        let param = &self.pool.params[job.param];
        let mut step = 1;
        let mut reports: Vec<(ReportId, Vec<u8>)> = job
            .waiting
            .iter()
            .map(|n| (crate::fixture::report_id(*n), param.verified[*n].finish.clone()))
            .collect();
        if !is_honest {
            for _ in 0..=choices.below(4) {
                let len = reports.len();
                match choices.below(6) {
                    0 => step = u16::from(choices.byte()),
                    1 if len > 1 => reports.swap(choices.below(len), choices.below(len)),
                    2 if len > 0 => drop(reports.remove(choices.below(len))),
                    3 if len > 0 => {
                        let n = choices.below(len);
                        choices.edit(&mut reports[n].1);
                    }
                    4 => reports.push((choices.report_id(), choices.short().to_vec())),
                    _ => {}
                }
            }
        }
        let verify_continues = reports
            .iter()
            .map(|(report_id, payload)| VerifyContinue { report_id: *report_id, payload })
            .collect();
        let request = AggregationJobContinue { step, verify_continues };
        let mut body = self.pool.wire().encode_aggregation_job_continue(&request).ok()?;
        if !is_honest && choices.below(4) == 3 {
            choices.edit(&mut body);
        }
        Some(body)
    }

    /// Gives a job up.
    fn delete(&mut self, choices: &mut Choices<'_>) {
        let id = choices.below(JOBS) as u8;
        let answer = self.world.delete(id);
        trace(|| format!("DELETE {id}: {answer:?}"));
        match answer {
            Ok(()) => self.books.deleted(id, true),
            Err(error) => {
                let refused = refusal_or_later(error);
                assert!(refused.is_none(), "DELETE of {:?} is refused: {refused:?}", job_id(id));
                assert!(self.is_lossy, "DELETE of {id} is to be sent again");
                self.books.deleted(id, false);
            }
        }
    }

    /// Asks for a batch as the leader counts it, or with something changed.
    fn collect(&mut self, choices: &mut Choices<'_>) {
        let selected = choices.byte();
        let selector = self.pool.selector(selected % 3);
        // In DAP-18 the leader may leave out a part of what the collector asked for.
        let may_leave_out = self.pool.task.parameters.version.has_configuration();
        let collected = match selected / 3 % 2 {
            1 if may_leave_out => self.pool.wider(selector),
            _ => selector,
        };
        let param = choices.below(self.pool.params.len());
        let mut view = self.books.view(&selector, &collected, param);
        let is_honest = choices.below(4) > 0;
        if !is_honest {
            view.change(choices);
        }
        let body = view.request(self.pool.wire(), &self.pool.params[param].encoded);
        let answer = self.world.share(&body);
        trace(|| format!("collect {selector:?} param {param} honest {is_honest}: {answer:?}"));
        match answer {
            Ok(share) => {
                assert!(is_honest || !view.is_changed, "what nobody counted was collected");
                self.books.collected(view, &share);
            }
            Err(error) => match refusal_or_later(error) {
                None => {
                    assert!(self.is_lossy, "a collection is to be sent again");
                    if !view.is_changed {
                        self.books.leave_out(&view, false);
                    }
                }
                Some(abort) => {
                    let is_right = !is_honest || self.books.is_refused(&view, abort.kind);
                    assert!(is_right || !self.is_strict(), "a right collection: {abort:?}");
                }
            },
        }
    }

    fn alarms(&self) {
        let (cluster, task) = (&self.world.cluster, self.pool.task.id());
        futures::executor::block_on(async {
            cluster.run_alarm(task).await.expect("tables in memory do not fail");
            cluster.run_store_alarms(task).await.expect("tables in memory do not fail");
        });
    }
}
