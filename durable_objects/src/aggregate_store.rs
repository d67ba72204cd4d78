//! [`AggregateStore`]: the reports of one shard of one group of batch buckets.
//!
//! Tables (all `WITHOUT ROWID`, so that an insert bills one row):
//! - `meta`: one row, the packed `StoreMeta`.
//! - `sealed`: one row per collected range and aggregation parameter.
//! - `job_0`: one row per job. Columns are in the order of how often they are read, so that what is not asked for stays
//!   on overflow pages unread. `0` is the generation: later ones will let finished jobs be packed and dropped.
//! - `chunk_0`: the shares of a job that would make its row exceed SQLite's 2 MB.

use std::cell::RefCell;

use daphne_core::{
    batch::{BatchBucket, BucketRange},
    ids::AggregationJobId,
    store::{
        AggregateTables, RecordedJob, StoreError, StoreResult, VisitJob, VisitJobIds,
        aggregate_store::{self, JobRow, SealedRange, SliceHead, StoreMeta},
    },
};
use storage_proxy::random;
use worker::{
    DurableObject, Env, Request, Response, Result, SqlStorageValue, State, durable_object,
};

use crate::{
    exchange,
    sql::{Row, Sql, SqlDatabase, Tables, blob, pack},
};

/// SQLite refuses a row of 2 MB; ids and heads of the largest job stay well below what is left.
const SHARES_IN_ROW_MAX: usize = 1_000_000;
const CHUNK: usize = 1_500_000;

/// The class.
#[durable_object(fetch)]
pub struct AggregateStore {
    store: RefCell<aggregate_store::AggregateStore<SqlDatabase<AggregateSql>>>,
}

impl std::panic::RefUnwindSafe for AggregateStore {}

impl DurableObject for AggregateStore {
    fn new(state: State, _env: Env) -> Self {
        let database = SqlDatabase::new(&state);
        Self { store: RefCell::new(aggregate_store::AggregateStore::new(database)) }
    }

    async fn fetch(&self, request: Request) -> Result<Response> {
        let request = exchange::read(request).await;
        // Nothing awaits from here on, so the borrow cannot meet another request.
        exchange::answer(request.and_then(|r| self.store.borrow_mut().handle(r, random::bytes())))
    }
}

struct AggregateSql(Sql);

impl Tables for AggregateSql {
    const SCHEMA: &'static [&'static str] = &[
        "CREATE TABLE IF NOT EXISTS meta (k INTEGER PRIMARY KEY, v BLOB)",
        "CREATE TABLE IF NOT EXISTS sealed (lo BLOB, hi BLOB, param BLOB, v BLOB, PRIMARY KEY (lo, hi, param)) WITHOUT ROWID",
        "CREATE TABLE IF NOT EXISTS job_0 (job BLOB PRIMARY KEY, digest BLOB, param BLOB, heads BLOB, refused BLOB, ids BLOB, shares BLOB) WITHOUT ROWID",
        "CREATE TABLE IF NOT EXISTS chunk_0 (job BLOB, n INTEGER, bytes BLOB, PRIMARY KEY (job, n)) WITHOUT ROWID",
    ];

    fn new(sql: Sql) -> Self {
        Self(sql)
    }
}

fn job_id(row: &mut Row) -> StoreResult<AggregationJobId> {
    row.array().map(AggregationJobId::new)
}

impl AggregateTables for AggregateSql {
    fn meta(&mut self) -> StoreResult<Option<StoreMeta>> {
        self.0.first("SELECT v FROM meta WHERE k = 1", vec![], |mut row| row.packed())
    }

    fn put_meta(&mut self, meta: &StoreMeta) -> StoreResult<()> {
        self.0.run("INSERT OR REPLACE INTO meta VALUES (1, ?)", vec![pack(meta)?])
    }

    fn sealed_meeting(&mut self, range: &BucketRange) -> StoreResult<Vec<SealedRange>> {
        let (lo, hi) = range.to_keys();
        let statement = match range {
            BucketRange::Windows(_) => "SELECT v FROM sealed WHERE lo < ?2 AND hi > ?1",
            BucketRange::Batch(_) => "SELECT v FROM sealed WHERE lo = ?1 AND hi = ?2",
        };
        self.0.all(statement, vec![blob(&lo), blob(&hi)], |mut row| row.packed())
    }

    fn sealed_near(&mut self, bucket: &BatchBucket) -> StoreResult<Vec<SealedRange>> {
        // Ranges of one parameter do not overlap, and those of several are equal: only the nearest start can match.
        self.0.all(
            "SELECT v FROM sealed WHERE lo = (SELECT max(lo) FROM sealed WHERE lo <= ?)",
            vec![blob(&bucket.to_key())],
            |mut row| row.packed(),
        )
    }

    fn put_sealed(&mut self, range: &SealedRange) -> StoreResult<()> {
        let (lo, hi) = range.range.to_keys();
        self.0.run(
            "INSERT OR IGNORE INTO sealed VALUES (?, ?, ?, ?)",
            vec![blob(&lo), blob(&hi), blob(&range.param), pack(range)?],
        )
    }

    fn job(&mut self, job: &AggregationJobId) -> StoreResult<Option<RecordedJob>> {
        self.0.first(
            "SELECT digest, refused FROM job_0 WHERE job = ?",
            vec![blob(job.as_bytes())],
            |mut row| Ok(RecordedJob { digest: row.array()?, refused: row.packed()? }),
        )
    }

    fn insert_job(&mut self, row: &JobRow) -> StoreResult<()> {
        let (inline, chunked): (&[u8], &[u8]) = if row.shares.len() <= SHARES_IN_ROW_MAX {
            (&row.shares, &[])
        } else {
            (&[], &row.shares)
        };
        self.0.run(
            "INSERT INTO job_0 VALUES (?, ?, ?, ?, ?, ?, ?)",
            vec![
                blob(row.job.as_bytes()),
                blob(&row.digest),
                blob(&row.param),
                pack(&row.heads)?,
                pack(&row.refused)?,
                blob(&row.ids),
                blob(inline),
            ],
        )?;
        for (n, chunk) in chunked.chunks(CHUNK).enumerate() {
            let n = i32::try_from(n).map_err(|_| StoreError("too many chunks".to_owned()))?;
            self.0.run(
                "INSERT INTO chunk_0 VALUES (?, ?, ?)",
                vec![blob(row.job.as_bytes()), SqlStorageValue::from(n), blob(chunk)],
            )?;
        }
        Ok(())
    }

    fn put_heads(&mut self, job: &AggregationJobId, heads: &[SliceHead]) -> StoreResult<()> {
        self.0.run(
            "UPDATE job_0 SET heads = ? WHERE job = ?",
            vec![pack(&heads)?, blob(job.as_bytes())],
        )
    }

    fn each_job(&mut self, visit: &mut VisitJob<'_>) -> StoreResult<()> {
        self.0.each("SELECT job, param, heads FROM job_0", vec![], |mut row| {
            let job = job_id(&mut row)?;
            let param = row.blob()?;
            visit(job, &param, row.packed()?)
        })
    }

    fn each_job_ids(&mut self, visit: &mut VisitJobIds<'_>) -> StoreResult<()> {
        self.0.each("SELECT job, param, heads, ids FROM job_0", vec![], |mut row| {
            let job = job_id(&mut row)?;
            let param = row.blob()?;
            let heads = row.packed()?;
            visit(job, &param, heads, &row.blob()?)
        })
    }

    fn ids(&mut self, job: &AggregationJobId) -> StoreResult<Vec<u8>> {
        let key = vec![blob(job.as_bytes())];
        self.0
            .first("SELECT ids FROM job_0 WHERE job = ?", key, |mut row| row.blob())?
            .ok_or_else(|| StoreError("a job is gone".to_owned()))
    }

    fn shares(&mut self, job: &AggregationJobId) -> StoreResult<Vec<u8>> {
        let key = || vec![blob(job.as_bytes())];
        let mut shares = self
            .0
            .first("SELECT shares FROM job_0 WHERE job = ?", key(), |mut row| row.blob())?
            .ok_or_else(|| StoreError("a job is gone".to_owned()))?;
        self.0.each("SELECT bytes FROM chunk_0 WHERE job = ? ORDER BY n", key(), |mut row| {
            shares.extend(row.blob()?);
            Ok(())
        })?;
        Ok(shares)
    }
}
