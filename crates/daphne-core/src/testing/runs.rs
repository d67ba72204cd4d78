//! Tables of a replay index in memory.

use std::collections::{BTreeMap, BTreeSet};

use crate::store::{
    StoreError, StoreResult,
    replay::{Run, RunTables},
};

/// Tables of runs, with at most `PART_MAX` fingerprints in an average part. Any use of a run whose table does not
/// exist is an error, and so is writing what exists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryRuns<const PART_MAX: u64 = 8_192> {
    /// Fingerprints by run and part.
    pub parts: BTreeMap<(u32, u32), Vec<u64>>,
    /// Runs that have a table.
    pub tables: BTreeSet<u32>,
    /// Rows written so far.
    pub rows_written: u64,
}

impl<const PART_MAX: u64> MemoryRuns<PART_MAX> {
    fn check(&self, run: u32) -> StoreResult<()> {
        match self.tables.contains(&run) {
            true => Ok(()),
            false => Err(StoreError(format!("no such table: run_{run}"))),
        }
    }
}

impl<const MAX: u64> RunTables for MemoryRuns<MAX> {
    const PART_MAX: u64 = MAX;

    fn create_run(&mut self, run: u32) -> StoreResult<()> {
        match self.tables.insert(run) {
            true => Ok(()),
            false => Err(StoreError(format!("table run_{run} already exists"))),
        }
    }

    fn drop_run(&mut self, run: u32) -> StoreResult<()> {
        self.tables.remove(&run);
        self.parts.retain(|(of, _), _| *of != run);
        Ok(())
    }

    fn put_part(&mut self, run: &Run, part: u32, fingerprints: &[u64]) -> StoreResult<()> {
        if self.last_part(run)?.is_some_and(|last| last >= part) {
            return Err(StoreError(format!(
                "part {part} of run_{} is not after the last",
                run.id()
            )));
        }
        self.parts.insert((run.id(), part), fingerprints.to_vec());
        self.rows_written += 1;
        Ok(())
    }

    fn part(&mut self, run: &Run, part: u32) -> StoreResult<Vec<u64>> {
        self.check(run.id())?;
        Ok(self.parts.get(&(run.id(), part)).cloned().unwrap_or_default())
    }

    fn last_part(&mut self, run: &Run) -> StoreResult<Option<u32>> {
        self.check(run.id())?;
        let last = self.parts.range((run.id(), 0)..=(run.id(), u32::MAX)).next_back();
        Ok(last.map(|((_, part), _)| *part))
    }

    fn present(&mut self, run: &Run, sorted: &[u64]) -> StoreResult<Vec<u64>> {
        self.check(run.id())?;
        let is_present = |fingerprint: &u64| {
            self.parts
                .get(&(run.id(), run.part_of(*fingerprint)))
                .is_some_and(|part| part.binary_search(fingerprint).is_ok())
        };
        Ok(sorted.iter().copied().filter(is_present).collect())
    }
}
