//! Fingerprints that left memory: sorted, immutable runs in tables of their own, and how their number stays small.
//!
//! A run is cut into parts by the leading bits of the fingerprints, so that the part which may hold one is known
//! without a search. One part is one row: rows written are the price, whatever their size, and rows read are nearly
//! free. The runs of one store are a set: which of them holds a fingerprint has no meaning.

use serde::{Deserialize, Serialize};

use crate::store::StoreResult;

/// A run is merged with those after it unless it holds more than this many times what they do. So the number of runs
/// grows as the logarithm to base `RATIO + 1` of the number of flushes, and so does how often a fingerprint is
/// written.
const RATIO: u64 = 3;

/// Runs in one merge, which holds one part of each in memory.
const FAN_IN_MAX: usize = 8;

/// Parts written by one step of a merge.
const STEP_PARTS: u32 = 16;

/// Tables that hold runs. Each method is part of the caller's transaction.
pub trait RunTables {
    /// Most fingerprints in an average part; runs of more than one part have at least half of it. Tests choose less.
    const PART_MAX: u64 = 8_192;

    /// Creates the table of a run.
    ///
    /// # Errors
    /// The database's, or it exists.
    fn create_run(&mut self, run: u32) -> StoreResult<()>;
    /// Drops the table of a run, if it exists.
    ///
    /// # Errors
    /// The database's.
    fn drop_run(&mut self, run: u32) -> StoreResult<()>;
    /// Writes a part (1 row). Parts are written once, in ascending order.
    ///
    /// # Errors
    /// The database's, or the part exists.
    fn put_part(&mut self, run: &Run, part: u32, fingerprints: &[u64]) -> StoreResult<()>;
    /// A part's fingerprints, ascending; none if it was not written.
    ///
    /// # Errors
    /// The database's.
    fn part(&mut self, run: &Run, part: u32) -> StoreResult<Vec<u64>>;
    /// The last part written.
    ///
    /// # Errors
    /// The database's.
    fn last_part(&mut self, run: &Run) -> StoreResult<Option<u32>>;
    /// Which of these fingerprints, ascending, are in the run; ascending, too.
    ///
    /// # Errors
    /// The database's.
    fn present(&mut self, run: &Run, sorted: &[u64]) -> StoreResult<Vec<u64>>;
}

/// One run: where it is and how it is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    id: u32,
    bits: u8,
    count: u64,
}

impl Run {
    fn new(next_id: &mut u32, count: u64, part_max: u64) -> Self {
        let id = *next_id;
        *next_id += 1;
        // Part numbers stay below 2^31.
        let bits = count.div_ceil(part_max).next_power_of_two().ilog2().min(31) as u8;
        Self { id, bits, count }
    }

    /// Names its table. No two runs of a store ever have the same.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Leading bits of a fingerprint that are the number of its part, at most 31.
    pub fn bits(&self) -> u8 {
        self.bits
    }

    /// Number of fingerprints. After a merge, repeated ones are counted as often as they were written.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The part that holds a fingerprint if the run does.
    pub fn part_of(&self, fingerprint: u64) -> u32 {
        // A shift by all 64 bits would overflow.
        fingerprint.checked_shr(64 - u32::from(self.bits)).unwrap_or(0) as u32
    }

    fn parts(&self) -> u32 {
        1 << self.bits
    }

    /// The greatest fingerprint that belongs into a part.
    fn last_of(&self, part: u32) -> u64 {
        self.first_of(part) | u64::MAX >> self.bits
    }

    fn first_of(&self, part: u32) -> u64 {
        u64::from(part).checked_shl(64 - u32::from(self.bits)).unwrap_or(0)
    }
}

/// A merge under way. How far it is, is what its table holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Merge {
    into: Run,
    from: Vec<u32>,
}

/// What a step of a merge did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MergeStep {
    /// Nothing: no merge is due.
    Idle,
    /// It wrote a few parts. The runs are as before, so the caller need not write them; there is more to do.
    Progress,
    /// It ended a merge. The caller must write the changed runs in this transaction. The next merge may be due.
    Finished,
}

/// The runs of one store: a description, which the caller keeps in its meta row.
///
/// A method that writes is called in a transaction, and changes the value even where it fails: then, as whenever the
/// transaction is rolled back, the caller goes on from the value that its meta row holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Runs {
    /// Ever newer and, but for a merge that is due, ever smaller.
    runs: Vec<Run>,
    merge: Option<Merge>,
}

impl Runs {
    /// The runs that a lookup asks.
    pub fn as_slice(&self) -> &[Run] {
        &self.runs
    }

    /// Whether [`Self::merge_step`] has something to do.
    pub fn merge_is_due(&self) -> bool {
        self.merge.is_some()
    }

    /// Writes fingerprints, ascending and each once, as a new run, and plans a merge if one is due. The caller writes
    /// the changed runs and `next_id` in the same transaction. Nothing is written if there are no fingerprints.
    ///
    /// # Errors
    /// The database's.
    pub fn flush<T: RunTables>(
        &mut self,
        tables: &mut T,
        next_id: &mut u32,
        sorted: &[u64],
    ) -> StoreResult<()> {
        if sorted.is_empty() {
            return Ok(());
        }
        let run = Run::new(next_id, sorted.len() as u64, T::PART_MAX);
        tables.create_run(run.id)?;
        for fingerprints in sorted.chunk_by(|a, b| run.part_of(*a) == run.part_of(*b)) {
            tables.put_part(&run, run.part_of(fingerprints[0]), fingerprints)?;
        }
        self.runs.push(run);
        self.plan(tables, next_id)
    }

    /// Which of these fingerprints, ascending, are in some run; ascending and each once.
    ///
    /// # Errors
    /// The database's.
    pub fn present(&self, tables: &mut impl RunTables, sorted: &[u64]) -> StoreResult<Vec<u64>> {
        let mut present = Vec::new();
        if !sorted.is_empty() {
            for run in &self.runs {
                present.extend(tables.present(run, sorted)?);
            }
        }
        present.sort_unstable();
        present.dedup();
        Ok(present)
    }

    /// Goes on with the merge that is due, by at most 16 rows and with less than 1 MiB in memory. A crash loses the
    /// step at most.
    ///
    /// # Errors
    /// The database's.
    pub fn merge_step<T: RunTables>(
        &mut self,
        tables: &mut T,
        next_id: &mut u32,
    ) -> StoreResult<MergeStep> {
        let Some(Merge { into, from }) = &self.merge else { return Ok(MergeStep::Idle) };
        let first = tables.last_part(into)?.map_or(0, |last| last + 1);
        let end = into.parts().min(first + STEP_PARTS);
        let start = into.first_of(first);
        let mut inputs: Vec<Input> = self
            .runs
            .iter()
            .filter(|run| from.contains(&run.id))
            .map(|&run| Input::at(run, start))
            .collect();
        let mut merged = Vec::new();
        for part in first..end {
            merged.clear();
            for input in &mut inputs {
                input.take_until(tables, into.last_of(part), &mut merged)?;
            }
            // A stable sort finds the sorted pieces and merges them.
            merged.sort();
            merged.dedup();
            // Even if it is empty, as this row is what a later step knows of this one.
            tables.put_part(into, part, &merged)?;
        }
        if end < into.parts() {
            return Ok(MergeStep::Progress);
        }
        for &run in from {
            tables.drop_run(run)?;
        }
        let (into, is_old) = (*into, |run: &Run| from.contains(&run.id));
        // Only newer runs came while it went on, so they stay after it.
        let at = self.runs.iter().position(is_old).unwrap_or(0);
        self.runs.retain(|run| !is_old(run));
        self.runs.insert(at, into);
        self.merge = None;
        self.plan(tables, next_id)?;
        Ok(MergeStep::Finished)
    }

    /// Drops the tables of all runs, and of the one that a merge writes. The caller forgets the value.
    ///
    /// # Errors
    /// The database's.
    pub fn drop_all(&self, tables: &mut impl RunTables) -> StoreResult<()> {
        let into = self.merge.as_ref().map(|merge| &merge.into);
        self.runs.iter().chain(into).try_for_each(|run| tables.drop_run(run.id))
    }

    /// Begins a merge if one is due and none is under way.
    fn plan<T: RunTables>(&mut self, tables: &mut T, next_id: &mut u32) -> StoreResult<()> {
        if self.merge.is_some() {
            return Ok(());
        }
        let (mut first, mut newer) = (None, 0);
        for (i, run) in self.runs.iter().enumerate().rev() {
            if run.count <= RATIO * newer {
                first = Some(i);
            }
            newer += run.count;
        }
        let Some(first) = first else { return Ok(()) };
        // There are more only after merges were held up for long: then the newest, which are the smallest, go first.
        let from = &self.runs[first.max(self.runs.len().saturating_sub(FAN_IN_MAX))..];
        let into = Run::new(next_id, from.iter().map(|run| run.count).sum(), T::PART_MAX);
        tables.create_run(into.id)?;
        self.merge = Some(Merge { into, from: from.iter().map(|run| run.id).collect() });
        Ok(())
    }
}

/// A run as a merge reads it, from the left, with one part in memory.
struct Input {
    run: Run,
    /// The part to read next.
    next: u32,
    /// What is left of the part read last.
    left: std::vec::IntoIter<u64>,
    /// Below this, everything was merged in earlier steps.
    start: u64,
}

impl Input {
    fn at(run: Run, start: u64) -> Self {
        Self { run, next: run.part_of(start), left: Vec::new().into_iter(), start }
    }

    /// Moves everything up to `last` to `out`.
    fn take_until(
        &mut self,
        tables: &mut impl RunTables,
        last: u64,
        out: &mut Vec<u64>,
    ) -> StoreResult<()> {
        loop {
            let taken = self.left.as_slice().partition_point(|&f| f <= last);
            out.extend(self.left.by_ref().take(taken));
            if self.left.len() > 0 || self.next > self.run.part_of(last) {
                return Ok(());
            }
            let mut part = tables.part(&self.run, self.next)?;
            self.next += 1;
            part.drain(..part.partition_point(|&f| f < self.start));
            self.left = part.into_iter();
        }
    }
}

#[cfg(all(test, not(target_arch = "wasm32")))]
mod tests;
