//! Runs of the replay index in SQLite: a table `run_{id}` per run, a row per part, 64 columns per row.
//!
//! Of a large run a job hits nearly as many parts as it has reports, and reading 64 KiB for each takes most of the time
//! of a lookup. So a part is cut further, by the next bits of the fingerprints, into columns of about 1 KiB: SQLite
//! reads no column that is not asked for, and still a part is one row. The search happens inside SQLite, and only what
//! it finds crosses into this module: for most jobs nothing.

use daphne_core::store::{
    StoreError, StoreResult,
    replay::{Run, RunTables},
};
use worker::SqlStorageValue;

use crate::sql::{Sql, blob};

/// The part is cut by this many bits of a fingerprint. SQLite takes at most 100 columns and as many bound values.
const CELL_BITS: u32 = 6;
const CELLS: u64 = 1 << CELL_BITS;

/// Bytes of a fingerprint, big-endian: numbers would be rounded above 2^53.
const LEN: usize = size_of::<u64>();

impl RunTables for Sql {
    fn create_run(&mut self, run: u32) -> StoreResult<()> {
        let columns = each_cell(|cell| format!(", c{cell} BLOB"));
        self.run(&format!("CREATE TABLE run_{run} (part INTEGER PRIMARY KEY{columns})"), vec![])
    }

    fn drop_run(&mut self, run: u32) -> StoreResult<()> {
        // Bills no rows, whatever the table holds.
        self.run(&format!("DROP TABLE IF EXISTS run_{run}"), vec![])
    }

    fn put_part(&mut self, run: &Run, part: u32, fingerprints: &[u64]) -> StoreResult<()> {
        let marks = each_cell(|_| ", ?".to_owned());
        let mut values = vec![number(part)?];
        let mut rest = fingerprints;
        for cell in u64::from(part) * CELLS..(u64::from(part) + 1) * CELLS {
            let (here, after) = rest.split_at(rest.partition_point(|f| cell_of(run, *f) <= cell));
            values.push(blob(&to_bytes(here)));
            rest = after;
        }
        self.run(&format!("INSERT INTO run_{} VALUES (?{marks})", run.id()), values)
    }

    fn part(&mut self, run: &Run, part: u32) -> StoreResult<Vec<u64>> {
        let statement = format!("SELECT * FROM run_{} WHERE part = ?", run.id());
        let part = self.first(&statement, vec![number(part)?], |mut row| {
            row.integer()?;
            let mut fingerprints = Vec::new();
            for _ in 0..CELLS {
                fingerprints.extend(from_bytes(&row.blob()?)?);
            }
            Ok(fingerprints)
        })?;
        Ok(part.unwrap_or_default())
    }

    fn last_part(&mut self, run: &Run) -> StoreResult<Option<u32>> {
        let statement = format!("SELECT part FROM run_{} ORDER BY part DESC LIMIT 1", run.id());
        self.first(&statement, vec![], |mut row| {
            u32::try_from(row.integer()?).map_err(|_| StoreError("a part has no number".to_owned()))
        })
    }

    fn present(&mut self, run: &Run, sorted: &[u64]) -> StoreResult<Vec<u64>> {
        // `CASE` reads the chosen column only. A match that begins inside of a fingerprint is less likely than that
        // two reports have the same one, and does as little harm.
        let column = each_cell(|cell| format!(" WHEN {cell} THEN r.c{cell}"));
        let statement = format!(
            "SELECT substr(?2, j.key * {LEN} + 1, {LEN}) AS f FROM json_each(?1) AS j \
             CROSS JOIN run_{} AS r ON r.part = j.value >> {CELL_BITS} \
             WHERE instr(CASE j.value & {} {column} END, f)",
            run.id(),
            CELLS - 1,
        );
        let cells: Vec<String> = sorted.iter().map(|f| cell_of(run, *f).to_string()).collect();
        let cells = SqlStorageValue::String(format!("[{}]", cells.join(",")));
        self.all(&statement, vec![cells, blob(&to_bytes(sorted))], |mut row| {
            row.array().map(u64::from_be_bytes)
        })
    }
}

/// The cell of a fingerprint, counted through all parts of the run.
fn cell_of(run: &Run, fingerprint: u64) -> u64 {
    fingerprint >> (u64::BITS - u32::from(run.bits()) - CELL_BITS)
}

fn each_cell(text: impl Fn(u64) -> String) -> String {
    (0..CELLS).map(text).collect()
}

fn number(part: u32) -> StoreResult<SqlStorageValue> {
    i32::try_from(part)
        .map(SqlStorageValue::from)
        .map_err(|_| StoreError("a part's number is too large".to_owned()))
}

/// Fingerprints as they are stored.
pub(crate) fn to_bytes(fingerprints: &[u64]) -> Vec<u8> {
    fingerprints.iter().flat_map(|f| f.to_be_bytes()).collect()
}

/// The same, read.
pub(crate) fn from_bytes(bytes: &[u8]) -> StoreResult<Vec<u64>> {
    let (whole, []) = bytes.as_chunks() else {
        return Err(StoreError("part of a fingerprint is stored".to_owned()));
    };
    Ok(whole.iter().copied().map(u64::from_be_bytes).collect())
}
