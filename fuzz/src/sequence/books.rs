//! What a leader knows: its jobs, what they were answered, and what was collected.

use std::collections::{BTreeMap, BTreeSet};

use daphne_core::{
    batch::{BucketRange, Checksum},
    collect::collector,
    error::AbortKind,
    hpke::Role,
    message::{BatchSelector, HpkeCiphertext, VerifyResp},
    wire::Wire,
};

use crate::{
    choices::Choices,
    fixture::{Pool, collector_key, report_id},
    request::share_request,
};

/// A job.
#[derive(Clone, Default)]
pub struct Job {
    /// Its first request.
    pub body: Vec<u8>,
    /// Its reports.
    pub reports: Vec<usize>,
    /// The number of its aggregation parameter.
    pub param: usize,
    /// The number of its batch, if the leader selects batches.
    pub batch: u8,
    /// What it was answered first.
    pub answer: Option<Vec<VerifyResp>>,
    /// Its reports that wait for the second round.
    pub waiting: Vec<usize>,
    /// Its second request, and what that was answered.
    pub continuation: Option<(Vec<u8>, Option<Vec<VerifyResp>>)>,
    /// Its reports that count, as it was answered.
    pub counted: Vec<usize>,
    /// The leader gave it up.
    pub is_deleted: bool,
    /// The helper may think that the leader did: a `DELETE` had no answer, or came before this body did.
    pub is_perhaps_deleted: bool,
    /// Its first request was sent and had no answer.
    is_unheard: bool,
    /// Its reports that may have been recorded here, unheard, before the helper said that they count elsewhere; each with
    /// the parameter there.
    perhaps_first: BTreeSet<(usize, usize)>,
    /// It had no answer when its batch was collected without it.
    came_too_late: bool,
    /// Its reports that a collection left out: they are free.
    freed: BTreeSet<usize>,
    /// Its reports that a collection may have left out.
    perhaps_freed: BTreeSet<usize>,
}

impl Job {
    /// A job that was not sent yet.
    pub fn new(body: Vec<u8>, reports: Vec<usize>, param: usize, batch: u8) -> Self {
        Self { body, reports, param, batch, ..Self::default() }
    }

    /// Whether the helper may have recorded what counts of it, and nobody heard. What is recorded stays.
    fn is_perhaps_recorded(&self, pool: &Pool) -> bool {
        match pool.has_two_rounds() {
            true => matches!(self.continuation, Some((_, None))),
            false => self.is_unheard,
        }
    }
}

/// The books.
pub struct Books {
    pool: &'static Pool,
    /// By number.
    pub jobs: BTreeMap<u8, Job>,
    /// Other bodies that were sent under the id of a job without an answer. It is one of them all that counts.
    rivals: Vec<(u8, Job)>,
    /// Numbers of jobs that the leader deleted, also of some that it never began.
    pub deleted: BTreeSet<u8>,
    /// For what a report's verification began, as the leader was answered, by level.
    begun: BTreeMap<(Option<u16>, usize), usize>,
    collected: Vec<(View, Vec<u8>)>,
}

/// A batch, as the leader counts it.
pub struct View {
    /// What is collected. The leader may leave a part of it out, in DAP-18.
    range: Option<BucketRange>,
    selector: BatchSelector,
    collected: BatchSelector,
    param: usize,
    reports: Vec<usize>,
    report_count: u64,
    checksum: Checksum,
    leader_share: Vec<u8>,
    /// It does not say what the leader counts.
    pub is_changed: bool,
}

impl Books {
    /// Nothing happened yet.
    pub fn new(pool: &'static Pool) -> Self {
        Self {
            pool,
            jobs: BTreeMap::new(),
            rivals: Vec::new(),
            deleted: BTreeSet::new(),
            begun: BTreeMap::new(),
            collected: Vec::new(),
        }
    }

    fn level(&self, param: usize) -> Option<u16> {
        self.pool.params[param].param.level()
    }

    fn aggregates_once(&self) -> bool {
        self.pool.task.parameters.version.aggregates_once()
    }

    /// Whether a report that counts under `old` cannot be aggregated for `new` any more: it is once in all, or at each
    /// level and only downwards.
    fn excludes(&self, old: usize, new: usize) -> bool {
        self.aggregates_once() || self.level(old) >= self.level(new)
    }

    fn is_in(&self, range: &BucketRange, job: &Job, report: usize) -> bool {
        range.contains(&self.pool.bucket(job.batch, self.pool.reports[report].time))
    }

    /// Other jobs that such a report of this job is a replay of, as far as the leader knows.
    fn holders(&self, id: u8, job: &Job, report: usize) -> impl Iterator<Item = &Job> {
        let param = job.param;
        self.jobs.iter().filter(move |(other, _)| **other != id).map(|(_, other)| other).filter(
            move |other| {
                other.counted.contains(&report)
                    && !other.freed.contains(&report)
                    && self.excludes(other.param, param)
            },
        )
    }

    /// The job with this body, if it was sent under this id before, or else this one.
    pub fn known_or(&self, id: u8, mut job: Job) -> Job {
        let known = self.jobs.get(&id);
        let rivals = self.rivals.iter().filter(|(of, _)| *of == id).map(|(_, rival)| rival);
        if let Some(same) = known.into_iter().chain(rivals).find(|other| other.body == job.body) {
            return same.clone();
        }
        // It is the id that is deleted, whatever comes under it.
        job.is_perhaps_deleted = known.is_some_and(|k| k.is_deleted || k.is_perhaps_deleted);
        job
    }

    /// A job was sent and had no answer.
    pub fn unheard(&mut self, id: u8, mut job: Job) {
        job.is_unheard = true;
        match self.jobs.get(&id) {
            None => drop(self.jobs.insert(id, job)),
            Some(known) if known.answer.is_some() || known.body == job.body => {}
            Some(_) if self.rivals.iter().any(|(of, r)| *of == id && r.body == job.body) => {}
            Some(_) => self.rivals.push((id, job)),
        }
    }

    /// A job was answered: its body is the one that counts under its id.
    pub fn answered(&mut self, id: u8, mut job: Job) {
        job.is_unheard = false;
        self.rivals.retain(|(of, _)| *of != id);
        self.jobs.insert(id, job);
    }

    /// The leader gave a job up, or tried to.
    pub fn deleted(&mut self, id: u8, is_answered: bool) {
        if is_answered || !self.jobs.contains_key(&id) {
            self.deleted.insert(id);
        }
        if let Some(job) = self.jobs.get_mut(&id) {
            job.is_deleted |= is_answered;
            job.is_perhaps_deleted = true;
        }
        let rivals = self.rivals.iter_mut().filter(|(of, _)| *of == id);
        rivals.for_each(|(_, rival)| rival.is_perhaps_deleted = true);
    }

    /// Decided collections that count the report for something that excludes `param`.
    fn counting(&self, param: usize, report: usize) -> impl Iterator<Item = &View> {
        self.collected
            .iter()
            .map(|(view, _)| view)
            .filter(move |c| c.reports.contains(&report) && self.excludes(c.param, param))
    }

    /// A report was accepted: it counts nowhere else.
    pub fn accepted(&mut self, id: u8, job: &Job, report: usize) {
        // Another job may take the reports over of one that was given up, or left out. Which of the two counts, the leader
        // says when it collects.
        let is_successor = |other: &Job| {
            let was_given_up = other.is_deleted || other.is_perhaps_deleted;
            was_given_up && other.param == job.param || other.perhaps_freed.contains(&report)
        };
        let was_first = |param| {
            job.is_perhaps_recorded(self.pool) && job.perhaps_first.contains(&(report, param))
        };
        // With time groups a report of another batch has another owner, but no report here has two times.
        assert!(
            self.holders(id, job, report)
                .all(|other| is_successor(other) || was_first(other.param)),
            "job {id}: report {report} counts in another job"
        );
        assert!(
            self.counting(job.param, report).all(|collected| was_first(collected.param)),
            "job {id}: report {report} was collected"
        );
        // A job that was given up, left out by a collection or at a higher level does not hold what it has recorded.
        let (pool, goes_down, level) = (self.pool, !self.aggregates_once(), self.level(job.param));
        for (_, other) in self.perhaps_recorded().filter(|(of, _)| *of != id) {
            let was_left_out =
                other.freed.contains(&report) || other.perhaps_freed.contains(&report);
            let is_free = other.is_perhaps_deleted || was_left_out;
            let is_above = goes_down && pool.params[other.param].param.level() < level;
            if other.reports.contains(&report) && (is_free && other.param == job.param || is_above)
            {
                other.perhaps_first.insert((report, job.param));
            }
        }
    }

    /// Jobs that may have been recorded unheard, also with bodies that may count for nothing.
    fn perhaps_recorded(&mut self) -> impl Iterator<Item = (u8, &mut Job)> {
        let pool = self.pool;
        let jobs = self.jobs.iter_mut().map(|(id, job)| (*id, job));
        let rivals = self.rivals.iter_mut().map(|(id, job)| (*id, job));
        jobs.chain(rivals).filter(|(_, job)| job.is_perhaps_recorded(pool))
    }

    /// The level of a report's one beginning, if there is one at each.
    fn scope(&self, param: usize) -> Option<u16> {
        if self.aggregates_once() { None } else { self.level(param) }
    }

    /// Whether a report began with another parameter than the job's.
    pub fn began_otherwise(&self, job: &Job, report: usize) -> bool {
        self.begun.get(&(self.scope(job.param), report)).is_some_and(|param| *param != job.param)
    }

    /// A report goes on: it never began otherwise.
    pub fn began(&mut self, id: u8, job: &Job, report: usize) {
        assert!(!self.began_otherwise(job, report), "job {id}: report {report} began otherwise");
        self.begun.insert((self.scope(job.param), report), job.param);
    }

    /// Whether "replayed" is true of what was to count.
    pub fn is_replay(&self, id: u8, job: &Job, report: usize) -> bool {
        self.counting(job.param, report).next().is_some()
            || self
                .holders(id, job, report)
                .any(|other| !other.is_deleted || other.param != job.param)
    }

    /// Whether "batch collected" is true.
    pub fn is_collected(&self, job: &Job, report: usize) -> bool {
        self.collected.iter().any(|(c, _)| {
            c.range.is_some_and(|range| self.is_in(&range, job, report))
                && (self.aggregates_once() || c.param == job.param || !c.reports.contains(&report))
        })
    }

    /// What the leader counts of a batch.
    pub fn view(&self, selector: &BatchSelector, collected: &BatchSelector, param: usize) -> View {
        let counts = self.pool.range(selector);
        let mut view = View {
            range: self.pool.range(collected),
            selector: *selector,
            collected: *collected,
            param,
            reports: Vec::new(),
            report_count: 0,
            checksum: Checksum::default(),
            leader_share: Vec::new(),
            is_changed: false,
        };
        let verified = &self.pool.params[param].verified;
        for job in self.jobs.values() {
            if job.is_deleted || job.came_too_late || job.param != param {
                continue;
            }
            for n in &job.counted {
                if !counts.is_some_and(|counts| self.is_in(&counts, job, *n)) {
                    continue;
                }
                view.reports.push(*n);
                view.report_count += 1;
                view.checksum.add(&report_id(*n));
                self.add(param, &mut view.leader_share, &verified[*n].leader);
            }
        }
        view.reports.sort_unstable();
        view
    }

    fn add(&self, param: usize, sum: &mut Vec<u8>, share: &[u8]) {
        if sum.is_empty() {
            share.clone_into(sum);
        } else {
            let field = self.pool.task.vdaf.field().at(&self.pool.params[param].encoded);
            daphne_core::vdaf::share::add_assign(field, sum, share).expect("they are alike");
        }
    }

    /// A collection was answered: with what the leader counts it is the truth, and no report is in two of them.
    pub fn collected(&mut self, view: View, answer: &[u8]) {
        let range = view.range.expect("there is such a range");
        let param = &self.pool.params[view.param];
        for (earlier, first) in &self.collected {
            let Some(other) = earlier.range.filter(|other| other.overlaps(&range)) else {
                continue;
            };
            assert_eq!(other, range, "two collections overlap");
            if earlier.param == view.param && earlier.selector == view.selector {
                assert!(first == answer, "one collection has two answers");
                assert!(earlier.reports == view.reports, "a collection changed");
                return;
            }
        }
        let times = self.collected.iter().filter(|(c, _)| c.range == view.range).count() as u64;
        let parameters = &self.pool.task.parameters;
        assert!(times < parameters.max_batch_query_count, "a batch was asked about too often");
        assert!(view.report_count >= parameters.min_batch_size, "a batch is too small");
        assert!(
            parameters.max_batch_size.is_none_or(|max| view.report_count <= max),
            "a batch is too large"
        );
        for report in &view.reports {
            let level = self.level(view.param);
            let is_twice = self
                .collected
                .iter()
                .any(|(c, _)| self.level(c.param) == level && c.reports.contains(report));
            assert!(!is_twice, "report {report} is in two collections");
        }
        assert!(view.reports.windows(2).all(|pair| pair[0] != pair[1]), "a report counts twice");

        let binding = self.pool.wire().share_binding(&param.encoded, &view.collected);
        let share = HpkeCiphertext::decode(answer).expect("the helper wrote it");
        let helper_share = self
            .pool
            .collector()
            .open_share(&collector_key(), Role::Helper, &binding.expect("it was sent"), share)
            .expect("it is sealed to the collector");
        let vdaf = &self.pool.task.vdaf;
        let sum = collector::unshard(
            vdaf,
            &param.param,
            &view.leader_share,
            &helper_share,
            view.report_count,
        );
        let measurements = view.reports.iter().map(|n| &self.pool.reports[*n].measurement);
        let truth = vdaf.truth(&param.param, measurements).expect("they are measurements");
        assert!(sum == Ok(truth), "the aggregate is wrong");

        // A job that may have taken over what is kept here was recorded before.
        let doubtful: BTreeSet<usize> = self
            .jobs
            .values()
            .filter(|job| job.is_perhaps_deleted && !job.is_deleted && job.param == view.param)
            .flat_map(|job| &job.counted)
            .filter(|report| view.reports.contains(report))
            .copied()
            .collect();
        for (_, job) in self.perhaps_recorded().filter(|(_, job)| job.param == view.param) {
            let mine = job.reports.iter().filter(|report| doubtful.contains(report));
            job.perhaps_first.extend(mine.map(|report| (*report, view.param)));
        }
        self.leave_out(&view, true);
        self.collected.push((view, answer.to_vec()));
    }

    /// A collection leaves out what the leader does not count. `is_decided` if it had an answer; else it may be.
    pub fn leave_out(&mut self, view: &View, is_decided: bool) {
        let Some(range) = view.range else { return };
        let pool = self.pool;
        let rivals = self.rivals.iter_mut().map(|(_, rival)| rival);
        for job in self.jobs.values_mut().chain(rivals) {
            let has_answer = match pool.has_two_rounds() {
                true => matches!(job.continuation, Some((_, Some(_)))),
                false => job.answer.is_some(),
            };
            let batch = job.batch;
            let bucket = |n: &usize| pool.bucket(batch, pool.reports[*n].time);
            let is_met = |n: &usize| range.contains(&bucket(n));
            let met: Vec<usize> = job.reports.iter().copied().filter(is_met).collect();
            job.came_too_late |= is_decided && !has_answer && !met.is_empty();
            if job.param != view.param {
                continue;
            }
            // What shares a report with what is kept is left out as a whole, in whatever batch; each store for itself.
            let held = if has_answer { &job.counted } else { &job.reports };
            let is_kept = |n: &&usize| view.reports.contains(n) && !is_met(n);
            let sharing: Vec<_> = held.iter().filter(is_kept).map(bucket).collect();
            let rest = job.reports.iter().filter(|n| sharing.contains(&bucket(n)));
            job.perhaps_freed.extend(rest);
            if is_decided && (job.is_deleted || job.came_too_late) {
                job.freed.extend(met);
            } else if job.is_deleted || !has_answer {
                job.perhaps_freed.extend(met);
            }
        }
    }

    /// Whether the leader's own collection may be refused like this.
    pub fn is_refused(&self, view: &View, kind: AbortKind) -> bool {
        let parameters = &self.pool.task.parameters;
        let same = |c: &&(View, Vec<u8>)| c.0.range == view.range;
        match kind {
            AbortKind::InvalidBatchSize => {
                view.report_count < parameters.min_batch_size
                    || parameters.max_batch_size.is_some_and(|max| view.report_count > max)
            }
            AbortKind::BatchInvalid => {
                view.report_count == 0 && matches!(view.selector, BatchSelector::LeaderSelected(_))
            }
            AbortKind::BatchOverlap => self.collected.iter().any(|(c, _)| {
                (self.aggregates_once() || c.range != view.range)
                    && c.range.zip(view.range).is_some_and(|(a, b)| a.overlaps(&b))
            }),
            AbortKind::BatchQueriedTooManyTimes => {
                self.collected.iter().filter(same).count() as u64
                    >= parameters.max_batch_query_count
            }
            // The batch was aggregated with other parameters only.
            AbortKind::InvalidMessage => {
                self.aggregates_once()
                    && view.report_count == 0
                    && self.jobs.values().any(|job| job.param != view.param)
            }
            // The leader gave a job up that was collected, and counts without it now.
            AbortKind::BatchMismatch => self
                .collected
                .iter()
                .filter(same)
                .any(|(c, _)| c.param == view.param && c.reports != view.reports),
            _ => false,
        }
    }
}

impl View {
    /// Says something else than the leader counts.
    pub fn change(&mut self, choices: &mut Choices<'_>) {
        let (count, checksum) = (self.report_count, self.checksum);
        match choices.below(3) {
            0 => self.report_count = choices.near(count),
            1 => self.checksum.merge(&Checksum::new(choices.array())),
            _ => self.checksum.add(&choices.report_id()),
        }
        self.is_changed = (self.report_count, self.checksum) != (count, checksum);
    }

    /// The request.
    pub fn request(&self, wire: Wire, agg_param: &[u8]) -> Vec<u8> {
        let count = self.report_count;
        share_request(wire, self.selector, self.collected, agg_param, count, &self.checksum)
    }
}
