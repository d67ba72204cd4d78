//! What a schedule is about: the task, the leader's jobs and collections, and how much may go wrong. Drawn from a seed,
//! written as JSON in reproductions.

use daphne_core::{batch::BatchMode, version::DapVersion};
use serde::{Deserialize, Serialize};

use crate::{
    choices::Choices,
    reports::{self, JobContent},
};

/// A schedule's task, leader and budget of faults.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scenario {
    /// The task's version of DAP.
    #[serde(default = "oldest", skip_serializing_if = "is_oldest")]
    pub version: DapVersion,
    /// The task's batch mode.
    pub mode: BatchMode,
    /// Its shards.
    pub shards: u16,
    /// Its buckets per group, 0 for one group.
    pub buckets_per_group: u32,
    /// Its smallest batch.
    pub min_batch_size: u64,
    /// The leader's jobs.
    pub jobs: Vec<JobPlan>,
    /// The leader's collections.
    pub collections: Vec<CollectionPlan>,
    /// The leader deletes jobs that are finished.
    pub tidies: bool,
    /// Tries after which the leader abandons a job.
    pub patience: Option<u32>,
    /// The leader claims abandoned jobs, too.
    pub cheats: bool,
    /// Faults that may happen.
    pub faults: u32,
    /// Jobs in a generation of a store.
    pub generation_rows: u32,
    /// Stores merge undecided jobs as soon as their generation is full.
    pub pressed: bool,
}

const fn oldest() -> DapVersion {
    DapVersion::V09
}

/// Reproductions of the oldest version do not name it.
fn is_oldest(version: &DapVersion) -> bool {
    *version == oldest()
}

/// A job that the leader sends until it is answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobPlan {
    /// Its id. Two plans with one id have two bodies.
    pub id: u8,
    /// Its reports: bit n stands for [`reports::ALL`]`[n]`.
    pub reports: u16,
    /// Its batch, if the leader selects batches.
    pub batch: u8,
    /// When it is sent.
    pub start: Start,
    /// Its reports come in the opposite order, which makes it another job where content names jobs.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reversed: bool,
}

impl JobPlan {
    /// What its bytes depend on.
    pub fn content(&self, scenario: &Scenario) -> JobContent {
        let batch = (scenario.mode == BatchMode::LeaderSelected).then_some(self.batch);
        let (set, reversed) = (self.reports, self.reversed);
        JobContent { version: scenario.version, set, batch, reversed }
    }
}

/// When a job is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Start {
    /// At once.
    First,
    /// When those are done, as collections begin: the leader should have closed the batch.
    Racing,
    /// When the collections are done.
    Late,
}

/// A collection that the leader asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CollectionPlan {
    /// What is special about it.
    pub kind: CollectionKind,
    /// The first bucket, of [`reports::BUCKETS`]; or the batch.
    pub first: u8,
    /// Number of buckets; 1 if the leader selects batches.
    pub count: u8,
}

/// What is special about a collection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CollectionKind {
    /// Asked for when all jobs are done, until it is answered for good.
    Right,
    /// Asked for at any time, with what the leader counts then.
    Eager,
    /// The count is one too many.
    WrongCount,
    /// One bit of the checksum is wrong.
    WrongChecksum,
    /// The interval does not begin at a bucket's start. Time-interval tasks only.
    BadInterval,
}

impl Scenario {
    /// The scenario that a seed names, in a version, or in the one that the seed names as well: they alternate.
    pub fn draw(version: Option<DapVersion>, seed: u64) -> Self {
        let version = version
            .unwrap_or_else(|| DapVersion::ALL[(seed % DapVersion::ALL.len() as u64) as usize]);
        // Apart from the decisions of the schedule itself.
        let mut c = Choices::seeded(!seed);
        let mode = [BatchMode::TimeInterval, BatchMode::LeaderSelected][c.below(2)];
        let buckets = 1 + c.below(reports::BUCKETS);
        let tidies = c.one_in(3);
        let patience = c.one_in(2).then(|| 1 + c.below(3) as u32);
        let cheats = patience.is_some() && c.one_in(4);
        // What is merged can no longer be left out, so nothing may be abandoned.
        let pressed = patience.is_none() && c.one_in(4);
        let mut scenario = Self {
            version,
            mode,
            shards: 1 + c.below(3) as u16,
            buckets_per_group: match mode {
                BatchMode::TimeInterval => [0, 1, 2, 1][c.below(4)],
                BatchMode::LeaderSelected => 0,
            },
            min_batch_size: [1, 1, 2, 3][c.below(4)],
            jobs: Vec::new(),
            collections: Vec::new(),
            tidies,
            patience,
            cheats,
            faults: c.below(16) as u32,
            generation_rows: [1, 1, 2, 2_048][c.below(4)],
            pressed,
        };
        scenario.draw_jobs(&mut c, buckets);
        scenario.draw_collections(&mut c, buckets);
        if !c.one_in(3) {
            scenario.make_careful();
        }
        scenario
    }

    /// The leader asks for a batch only when all its jobs are at their end, as DAP demands of it.
    fn make_careful(&mut self) {
        for job in self.jobs.iter_mut().filter(|j| j.start == Start::Racing) {
            job.start = Start::First;
        }
        for c in self.collections.iter_mut().filter(|c| c.kind == CollectionKind::Eager) {
            c.kind = CollectionKind::Right;
        }
    }

    /// Whether the leader may ask for a batch that has jobs under way. What these add may then be left out for good,
    /// although both aggregators accept it later.
    pub fn is_sloppy(&self) -> bool {
        self.jobs.iter().any(|j| j.start == Start::Racing)
            || self.collections.iter().any(|c| c.kind == CollectionKind::Eager)
    }

    fn draw_jobs(&mut self, c: &mut Choices, buckets: usize) {
        let jobs = 1 + c.below(3) as u8;
        let mut taken = 0u16;
        for id in 0..jobs {
            let mut plan = JobPlan {
                id,
                reports: draw_reports(c, buckets),
                batch: c.below(buckets) as u8,
                start: match id {
                    0 => Start::First,
                    _ => [Start::First, Start::First, Start::Racing, Start::Late][c.below(4)],
                },
                reversed: false,
            };
            if self.tidies {
                // A leader that deletes what is finished may not have one report in two jobs.
                plan.reports &= !taken;
            }
            taken |= plan.reports;
            self.jobs.push(plan);
        }
        if c.one_in(4) {
            let mut other = JobPlan { start: Start::First, ..self.jobs[0].clone() };
            other.reports = draw_reports(c, buckets);
            if !self.version.leader_names_jobs() {
                // There are no two bodies under one id, but one body from two who do not know of each other.
                other = JobPlan { id: jobs, ..self.jobs[0].clone() };
                self.jobs.push(other);
            } else {
                if self.tidies {
                    other.reports &= !taken;
                }
                if other.reports != self.jobs[0].reports {
                    self.jobs.push(other);
                }
            }
        }
        self.jobs.retain(|plan| plan.reports != 0);
    }

    fn draw_collections(&mut self, c: &mut Choices, buckets: usize) {
        use CollectionKind::{BadInterval, Eager, Right, WrongChecksum, WrongCount};
        for n in 0..1 + c.below(4) {
            let kind = match n {
                0 => Right,
                _ => {
                    [Right, Right, Eager, Eager, WrongCount, WrongChecksum, BadInterval][c.below(7)]
                }
            };
            let kind = match (kind, self.mode) {
                (BadInterval, BatchMode::LeaderSelected) => WrongCount,
                (kind, _) => kind,
            };
            let first = c.below(buckets) as u8;
            let count = match self.mode {
                BatchMode::TimeInterval => 1 + c.below(buckets - usize::from(first)) as u8,
                BatchMode::LeaderSelected => 1,
            };
            self.collections.push(CollectionPlan { kind, first, count });
        }
    }

    /// Scenarios that are a little simpler.
    pub fn simpler(&self) -> Vec<Self> {
        let mut out = Vec::new();
        let mut with = |change: &dyn Fn(&mut Self)| {
            let mut other = self.clone();
            change(&mut other);
            if other != *self {
                out.push(other);
            }
        };
        for n in 0..self.collections.len() {
            with(&|s| s.collections.truncate(n));
            with(&|s| {
                s.collections.remove(n);
            });
        }
        for n in 0..self.jobs.len() {
            with(&|s| {
                s.jobs.remove(n);
            });
        }
        with(&|s| s.version = oldest());
        with(&|s| s.faults = 0);
        with(&|s| s.faults /= 2);
        with(&|s| s.shards = 1);
        with(&|s| s.shards = s.shards.min(2));
        with(&|s| s.buckets_per_group = 0);
        with(&|s| s.min_batch_size = 1);
        with(&|s| s.tidies = false);
        with(&|s| s.cheats = false);
        with(&|s| s.pressed = false);
        with(&|s| s.generation_rows = 2_048);
        with(&|s| s.patience = None);
        for n in 0..self.jobs.len() {
            with(&|s| s.jobs[n].start = Start::First);
            with(&|s| s.jobs[n].batch = 0);
            for bit in 0..reports::ALL.len() {
                with(&|s| s.jobs[n].reports &= !(1 << bit));
            }
        }
        for n in 0..self.collections.len() {
            with(&|s| s.collections[n].count = 1);
            with(&|s| s.collections[n].kind = CollectionKind::Right);
        }
        let is_plan = |s: &Self| {
            s.jobs.iter().enumerate().all(|(n, j)| {
                j.reports != 0
                    && !s.jobs[..n].iter().any(|i| i.id == j.id && i.reports == j.reports)
            })
        };
        out.retain(is_plan);
        out
    }
}

/// Some of the reports of the first buckets; plain ones more often than special ones.
fn draw_reports(c: &mut Choices, buckets: usize) -> u16 {
    let mut mask = 0;
    for (n, report) in reports::ALL.iter().enumerate() {
        if report.bucket < buckets && c.one_in(if report.special.is_some() { 6 } else { 2 }) {
            mask |= 1 << n;
        }
    }
    if mask == 0 { 1 } else { mask }
}
