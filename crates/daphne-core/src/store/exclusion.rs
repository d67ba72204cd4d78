//! Which jobs a collection leaves out, so that what is kept explains the leader's report count and checksum.
//!
//! A leader abandons jobs, most often because it could not reach us, and then its DELETE does not reach us either;
//! another leader deletes every job it has finished. So neither a DELETE nor its absence says whether a job counts.
//! The leader's totals do: the checksum is linear, so the jobs that XOR to it are found by elimination.
//!
//! **Safety does not rest on this.** Each store checks that no report id is kept twice, and that nothing moved, when
//! it freezes; the ledger checks that a range is collected once and that the batch is large enough after exclusion.
//! A wrong choice can make a sum the leader did not expect, never one that counts a report twice.
//!
//! **False solutions do not matter.** At most [`UNKNOWNS_MAX`] jobs are undecided at a time, so totals that no
//! honest history explains meet one of at most 2^192 checksums out of 2^256: probability 2^-64 for each of the few
//! attempts. Who picks report ids can forge an XOR, but of its own batch only, and two explanations are refused.
//!
//! **Privacy.** A leader that chooses which jobs count learns no sum it could not have had by submitting only those
//! reports: one sum for a range, of at least the minimum batch size. A refused request says only that the totals
//! differ from what we told the leader report by report.

use std::collections::{BTreeMap, BTreeSet};

use super::placement::StoreId;
use crate::{batch::Checksum, ids::AggregationJobId};

/// Most classes of jobs that are undecided at a time: 256 equations leave 64 bits to tell a true solution.
pub const UNKNOWNS_MAX: usize = 192;

/// Largest dimension of a solution space that is searched: 4,096 combinations.
const NULL_DIMENSION_MAX: usize = 12;

/// What some slices hold together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Number of reports.
    pub report_count: u64,
    /// XOR of SHA-256 of their ids.
    pub checksum: Checksum,
}

impl Totals {
    /// Adds slices that share no report with these.
    pub fn merge(&mut self, other: &Self) {
        // No store can hold 2^64 reports.
        self.report_count = self.report_count.saturating_add(other.report_count);
        self.checksum.merge(&other.checksum);
    }
}

/// One job's live slices inside the collected range, over all of a task's stores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobTotals {
    /// The job.
    pub job: AggregationJobId,
    /// What its slices hold.
    pub totals: Totals,
    /// Names the set of its report ids: for each store that holds some, the wrapping sum of their fingerprints under
    /// the store's secret key. Equal maps mean equal sets.
    pub ids: BTreeMap<StoreId, u64>,
    /// One of its slices yields to a later job, which holds some of its reports again.
    pub yields: bool,
    /// The leader deleted it.
    pub released: bool,
}

/// What to leave out of a collection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// These jobs, newest first; none is the normal case.
    Exclude(Vec<AggregationJobId>),
    /// No choice explains the totals: the leader's fault, or it abandoned more jobs than can be undecided; it may
    /// delete what it abandoned and ask again.
    NoneFits,
    /// Choices that keep different reports explain the totals, or too many choices to compare them.
    Ambiguous,
}

/// Chooses which of `jobs` to leave out so that `fixed` and the others together are `wanted` and no two of them share
/// a report.
///
/// `fixed` is always kept. `jobs` are newest first, each once. `conflicts` are the pairs of jobs that share a report
/// id; those that name other jobs are ignored. `wanted` is the leader's.
///
/// Takes time linear in the jobs and conflicts, but for sorting, and a few times at most 192³ bit operations.
pub fn choose(
    fixed: Totals,
    jobs: &[JobTotals],
    conflicts: &[(AggregationJobId, AggregationJobId)],
    wanted: Totals,
) -> Choice {
    let problem = Problem::new(fixed, jobs, conflicts, wanted);
    match problem.solve() {
        Found::Keep(kept) => Choice::Exclude(problem.excluded(&kept)),
        Found::None => Choice::NoneFits,
        Found::Different | Found::TooMany => Choice::Ambiguous,
    }
}

/// Which classes are left out unless the totals say otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LeftOut {
    Nobody,
    Yielding,
    Doubtful,
}

/// Which classes are undecided, as far as [`UNKNOWNS_MAX`] goes; the newest first in each group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Undecided {
    DoubtfulFirst,
    CertainFirst,
    /// One doubtful, one certain, as long as there are both.
    InTurn,
    /// The newest of those that are not left out.
    Remaining,
}

/// What is tried, in order. Each line stands for a leader:
const PASSES: [(LeftOut, Undecided); 7] = [
    // it keeps to itself what it abandoned, or deletes some of it;
    (LeftOut::Nobody, Undecided::DoubtfulFirst),
    // it deletes all it finished, but the DELETE of what it abandoned was lost;
    (LeftOut::Nobody, Undecided::CertainFirst),
    // it does so, and another DELETE arrived;
    (LeftOut::Nobody, Undecided::InTurn),
    // it cut many abandoned jobs anew, and lost a few more;
    (LeftOut::Yielding, Undecided::Remaining),
    // it deleted many abandoned jobs, and lost a few more;
    (LeftOut::Doubtful, Undecided::Remaining),
    // it did so, and is now deleting what it finished,
    (LeftOut::Doubtful, Undecided::InTurn),
    // or had deleted a few finished ones.
    (LeftOut::Doubtful, Undecided::DoubtfulFirst),
];

/// Jobs that hold the same reports. At most one is kept, and it does not matter which: one unknown.
struct Class<'a> {
    totals: Totals,
    ids: &'a BTreeMap<StoreId, u64>,
    /// Index of the member to keep.
    member: usize,
    /// All members yield.
    yields: bool,
    /// All members yield or are released.
    doubtful: bool,
    /// Yields, or shares reports with another class.
    contested: bool,
}

impl LeftOut {
    fn keeps(self, class: &Class<'_>) -> bool {
        match self {
            Self::Nobody => true,
            Self::Yielding => !class.yields,
            Self::Doubtful => !class.doubtful,
        }
    }
}

enum Found {
    /// For each class, whether it is kept.
    Keep(Vec<bool>),
    None,
    /// Two solutions that keep different reports.
    Different,
    /// Solutions of the linear system, too many to look at each.
    TooMany,
}

struct Problem<'a> {
    fixed: Totals,
    wanted: Totals,
    jobs: &'a [JobTotals],
    /// In the order of their newest members, newest first.
    classes: Vec<Class<'a>>,
    /// Class of each job; `None` if it holds nothing here, which needs no decision.
    class_of: Vec<Option<usize>>,
    /// Pairs of different classes that share a report, smaller index first.
    conflicts: BTreeSet<(usize, usize)>,
}

impl<'a> Problem<'a> {
    fn new(
        fixed: Totals,
        jobs: &'a [JobTotals],
        conflicts: &[(AggregationJobId, AggregationJobId)],
        wanted: Totals,
    ) -> Self {
        let mut classes: Vec<Class<'a>> = Vec::new();
        let mut class_of = Vec::with_capacity(jobs.len());
        let mut by_content = BTreeMap::new();
        let mut by_job = BTreeMap::new();
        for (index, job) in jobs.iter().enumerate() {
            if job.totals == Totals::default() {
                class_of.push(None);
                continue;
            }
            let content = (job.totals.report_count, job.totals.checksum.as_bytes(), &job.ids);
            let class = *by_content.entry(content).or_insert(classes.len());
            let doubtful = job.yields || job.released;
            match classes.get_mut(class) {
                Some(known) => {
                    if known.doubtful && !doubtful {
                        known.member = index;
                    }
                    known.yields &= job.yields;
                    known.doubtful &= doubtful;
                }
                None => classes.push(Class {
                    totals: job.totals,
                    ids: &job.ids,
                    member: index,
                    yields: job.yields,
                    doubtful,
                    contested: false,
                }),
            }
            class_of.push(Some(class));
            by_job.insert(job.job, class);
        }
        let conflicts: BTreeSet<_> = conflicts
            .iter()
            .filter_map(|(a, b)| Some((*by_job.get(a)?, *by_job.get(b)?)))
            .filter(|(a, b)| a != b)
            .map(|(a, b)| (a.min(b), a.max(b)))
            .collect();
        for class in &mut classes {
            class.contested = class.yields;
        }
        for &(a, b) in &conflicts {
            classes[a].contested = true;
            classes[b].contested = true;
        }
        Self { fixed, wanted, jobs, classes, class_of, conflicts }
    }

    /// All jobs but the kept member of each kept class, and those that hold nothing.
    fn excluded(&self, kept: &[bool]) -> Vec<AggregationJobId> {
        let jobs = self.jobs.iter().enumerate().zip(&self.class_of);
        jobs.filter_map(|((index, job), class)| {
            let class = (*class)?;
            (!kept[class] || self.classes[class].member != index).then_some(job.job)
        })
        .collect()
    }

    fn solve(&self) -> Found {
        // What the leader most often means, whatever the number of jobs: all count, or those that it has not
        // deleted. These need no elimination.
        for left_out in [LeftOut::Nobody, LeftOut::Doubtful, LeftOut::Yielding] {
            let kept = self.defaults(left_out);
            let clash = self.conflicts.iter().any(|&(a, b)| kept[a] && kept[b]);
            if !clash && self.totals(&kept) == self.wanted {
                return Found::Keep(kept);
            }
        }
        let mut found = Found::None;
        for (left_out, undecided) in PASSES {
            let unknowns = self.unknowns(left_out, undecided);
            match self.solve_for(left_out, &unknowns) {
                decided @ (Found::Keep(_) | Found::Different) => return decided,
                // Nothing was left to a default, so no other pass can find more.
                Found::None if unknowns.len() == self.classes.len() => return Found::None,
                Found::None => {}
                // A pass with fewer unknowns may still tell.
                Found::TooMany => found = Found::TooMany,
            }
        }
        found
    }

    fn defaults(&self, left_out: LeftOut) -> Vec<bool> {
        self.classes.iter().map(|class| left_out.keeps(class)).collect()
    }

    fn totals(&self, kept: &[bool]) -> Totals {
        let mut totals = self.fixed;
        for (class, _) in self.classes.iter().zip(kept).filter(|(_, kept)| **kept) {
            totals.merge(&class.totals);
        }
        totals
    }

    fn unknowns(&self, left_out: LeftOut, undecided: Undecided) -> Vec<usize> {
        let mut in_turn = [0; 2];
        let mut unknowns = Vec::with_capacity(self.classes.len());
        for (n, class) in self.classes.iter().enumerate() {
            let turn = &mut in_turn[usize::from(class.doubtful)];
            *turn += 1;
            let rank = match (left_out, undecided) {
                // Of classes that share reports all but one are left out, so where all others are kept, these come
                // first.
                (LeftOut::Nobody, _) if class.contested => usize::from(!class.doubtful),
                (_, Undecided::DoubtfulFirst) => 2 + usize::from(!class.doubtful),
                (_, Undecided::CertainFirst) => 2 + usize::from(class.doubtful),
                (_, Undecided::InTurn) => 2 + *turn,
                (_, Undecided::Remaining) if !left_out.keeps(class) => continue,
                (_, Undecided::Remaining) => 2,
            };
            unknowns.push((rank, n));
        }
        // Newest first within a rank.
        unknowns.sort_unstable();
        unknowns.truncate(UNKNOWNS_MAX);
        unknowns.into_iter().map(|(_, n)| n).collect()
    }

    fn solve_for(&self, left_out: LeftOut, unknowns: &[usize]) -> Found {
        let mut kept = self.defaults(left_out);
        let mut column = vec![None; self.classes.len()];
        for (n, &class) in unknowns.iter().enumerate() {
            kept[class] = false;
            column[class] = Some(n);
        }
        // Unknowns that share a report with what is kept by default are out; with another unknown, one of them is.
        let mut out = Columns::default();
        let mut clashes = vec![Columns::default(); unknowns.len()];
        for &(a, b) in &self.conflicts {
            match (column[a], column[b]) {
                (None, None) if kept[a] && kept[b] => return Found::None,
                (Some(n), None) if kept[b] => out.insert(n),
                (None, Some(n)) if kept[a] => out.insert(n),
                (Some(n), Some(m)) => clashes[n].insert(m),
                (None, _) | (_, None) => {}
            }
        }
        let base = self.totals(&kept);
        let mut span = Span::default();
        let mut relations = Vec::new();
        for (n, &class) in unknowns.iter().enumerate() {
            if !out.contains(n) {
                relations.extend(span.insert(self.classes[class].totals.checksum, n));
            }
        }
        let mut missing = self.wanted.checksum;
        missing.merge(&base.checksum);
        let Some(mut trial) = span.express(missing) else {
            return Found::None;
        };
        if relations.len() > NULL_DIMENSION_MAX {
            return Found::TooMany;
        }

        let fits = |trial: &Columns| {
            let count = |n: usize| self.classes[unknowns[n]].totals.report_count;
            trial.iter().map(count).fold(base.report_count, u64::saturating_add)
                == self.wanted.report_count
                && !trial.iter().any(|n| clashes[n].meets(trial))
        };
        let doubtful =
            |trial: &Columns| trial.iter().filter(|&n| self.classes[unknowns[n]].doubtful).count();
        let reports = ReportSums::new(unknowns.iter().map(|&class| self.classes[class].ids));
        let mut found: Option<Columns> = None;
        // In Gray code order, each trial differs from the one before by one relation.
        for step in 1u32..=1 << relations.len() {
            if fits(&trial) {
                match &found {
                    Some(found) if !reports.same(found, &trial) => return Found::Different,
                    // The sum is the same; the leader would rather see deleted jobs left out.
                    Some(found) if doubtful(found) <= doubtful(&trial) => {}
                    Some(_) | None => found = Some(trial),
                }
            }
            if let Some(relation) = relations.get(step.trailing_zeros() as usize) {
                trial.toggle(relation);
            }
        }
        let Some(found) = found else {
            return Found::None;
        };
        for n in found.iter() {
            kept[unknowns[n]] = true;
        }
        Found::Keep(kept)
    }
}

/// For each column and store, the sum that names the reports there.
struct ReportSums {
    stores: usize,
    columns: Vec<Vec<(usize, u64)>>,
}

impl ReportSums {
    fn new<'a>(columns: impl Iterator<Item = &'a BTreeMap<StoreId, u64>>) -> Self {
        let mut index = BTreeMap::new();
        let columns = columns
            .map(|ids| {
                ids.iter()
                    .map(|(store, sum)| {
                        let next = index.len();
                        (*index.entry(*store).or_insert(next), *sum)
                    })
                    .collect()
            })
            .collect();
        Self { stores: index.len(), columns }
    }

    /// Whether two choices keep the same reports. The sums are additive because neither keeps a report twice.
    fn same(&self, a: &Columns, b: &Columns) -> bool {
        let mut difference = vec![0u64; self.stores];
        for n in a.iter() {
            for &(store, sum) in &self.columns[n] {
                difference[store] = difference[store].wrapping_add(sum);
            }
        }
        for n in b.iter() {
            for &(store, sum) in &self.columns[n] {
                difference[store] = difference[store].wrapping_sub(sum);
            }
        }
        difference.iter().all(|d| *d == 0)
    }
}

/// A set of columns, `0..UNKNOWNS_MAX`.
#[derive(Clone, Copy, Debug, Default)]
struct Columns([u64; UNKNOWNS_MAX / 64]);

impl Columns {
    fn insert(&mut self, n: usize) {
        self.0[n / 64] |= 1 << (n % 64);
    }

    fn contains(&self, n: usize) -> bool {
        self.0[n / 64] >> (n % 64) & 1 == 1
    }

    /// Symmetric difference.
    fn toggle(&mut self, other: &Self) {
        for (a, b) in self.0.iter_mut().zip(other.0) {
            *a ^= b;
        }
    }

    fn meets(&self, other: &Self) -> bool {
        self.0.iter().zip(other.0).any(|(a, b)| a & b != 0)
    }

    fn iter(&self) -> impl Iterator<Item = usize> {
        self.0.into_iter().enumerate().flat_map(|(word, mut bits)| {
            std::iter::from_fn(move || {
                let bit = bits.trailing_zeros() as usize;
                bits &= bits.checked_sub(1)?;
                Some(64 * word + bit)
            })
        })
    }
}

/// The linear span of checksums: for each leading bit at most one vector, with the columns that it is the XOR of.
struct Span([Option<([u64; 4], Columns)>; 256]);

impl Default for Span {
    fn default() -> Self {
        Self([const { None }; 256])
    }
}

impl Span {
    /// Adds a column; if it depends on those before, returns the columns (itself among them) that XOR to zero.
    fn insert(&mut self, checksum: Checksum, n: usize) -> Option<Columns> {
        let (rest, mut columns) = self.reduce(checksum);
        columns.insert(n);
        match leading_bit(&rest) {
            Some(bit) => {
                self.0[bit] = Some((rest, columns));
                None
            }
            None => Some(columns),
        }
    }

    /// Columns that XOR to a checksum.
    fn express(&self, checksum: Checksum) -> Option<Columns> {
        let (rest, columns) = self.reduce(checksum);
        leading_bit(&rest).is_none().then_some(columns)
    }

    /// What the span leaves of a checksum, and the columns that were XORed to it.
    fn reduce(&self, checksum: Checksum) -> ([u64; 4], Columns) {
        let mut rest = words(&checksum);
        let mut columns = Columns::default();
        while let Some((vector, of)) = leading_bit(&rest).and_then(|bit| self.0[bit].as_ref()) {
            for (a, b) in rest.iter_mut().zip(vector) {
                *a ^= b;
            }
            columns.toggle(of);
        }
        (rest, columns)
    }
}

fn words(checksum: &Checksum) -> [u64; 4] {
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(checksum.as_bytes().chunks_exact(8)) {
        *word = bytes.iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
    }
    words
}

/// Index of the first set bit, `0..256`.
fn leading_bit(words: &[u64; 4]) -> Option<usize> {
    let word = words.iter().position(|word| *word != 0)?;
    Some(64 * word + words[word].leading_zeros() as usize)
}

#[cfg(test)]
mod tests;
