//! [`AggregateStore`]: the reports of one shard of one group of batch buckets.
//!
//! Tables (all `WITHOUT ROWID`, so that an insert bills one row). Those whose names end in a number come and go, and
//! are dropped whole, because deleting rows bills each of them:
//! - `meta`: one row, the packed `StoreMeta`, which knows the numbers.
//! - `sealed`: one row per collected range and aggregation parameter.
//! - `job_G`: the jobs of generation G, one row each. Columns are in the order of how often they are read, so that what
//!   is not asked for stays on overflow pages unread.
//! - `chunk_G`: the shares of a job that would make its row exceed SQLite's 2 MB; and under the key of no job, numbered, the
//!   fingerprints of reports that began, one row each time.
//! - `packed_E`: what repeats of packed jobs are answered from, some rows per packed generation of epoch E.
//! - `merged_E`: the sums of merged slices of epoch E, one row per bucket and parameter (more for large shares).
//! - `run_R`: the replay index (`runs.rs`).

use std::rc::Rc;

use daphne_core::{
    batch::{BatchBucket, BucketRange},
    ids::AggregationJobId,
    metrics::Tally,
    store::{
        AggregateTables, RecordedJob, StoreError, StoreResult, VisitFingerprints, VisitJob,
        VisitJobIds, VisitMerged,
        aggregate_store::{self, JobHead, JobRow, SealedRange, SliceHead, StoreMeta},
        message::{AggregateStoreRequest, Content},
        replay::{Run, RunTables},
    },
    time::Time,
};
use serde::{Deserialize, Serialize};
use storage_proxy::{objects::ObjectCaller, random};
use worker::{
    DurableObject, Env, Request, Response, Result, SqlStorageValue, State, durable_object,
};

use crate::{
    alarm::{Alarm, now},
    exchange, runs,
    sql::{Row, Sql, SqlDatabase, Tables, blob, pack},
};

/// SQLite refuses a row of 2 MB; ids and heads of the largest job stay well below what is left.
const SHARES_IN_ROW_MAX: usize = 1_000_000;
const CHUNK: usize = 1_500_000;
/// In place of a job's id. Those have 16 bytes.
const NO_JOB: &[u8] = &[];

/// The class.
#[durable_object(alarm)]
pub struct AggregateStore {
    pub(crate) store: Rc<aggregate_store::AggregateStore<SqlDatabase<AggregateSql>>>,
    pub(crate) objects: ObjectCaller,
    pub(crate) alarm: Alarm,
}

impl std::panic::RefUnwindSafe for AggregateStore {}

impl DurableObject for AggregateStore {
    fn new(state: State, env: Env) -> Self {
        let database = SqlDatabase::new(&state);
        Self {
            store: Rc::new(aggregate_store::AggregateStore::new(database)),
            objects: ObjectCaller::new(env),
            alarm: Alarm::new(state),
        }
    }

    async fn fetch(&self, request: Request) -> Result<Response> {
        #[cfg(feature = "test-routes")]
        if let Some(what) = crate::probe::asked(&request) {
            return self.probe(&what, request).await;
        }
        #[cfg(feature = "test-routes")]
        crate::meter::request(crate::meter::Class::AggregateStore);
        let handled = match exchange::read::<AggregateStoreRequest>(request).await {
            Ok(request) => self.store.handle(request, now(), random::bytes()),
            Err(error) => Err(error),
        };
        // If this is cut off before the alarm is set, the next request to the object that is loaded then sets it.
        exchange::answer(match handled {
            Ok(handled) => self
                .alarm
                .follow(handled.wake, handled.erase, || self.store.database().erased())
                .await
                .map(|()| handled.response),
            Err(error) => Err(error),
        })
    }

    async fn alarm(&self) -> Result<Response> {
        self.alarm.rang();
        let alarmed = self.store.alarm(&self.objects, now()).await;
        let done = match alarmed {
            Ok(a) => self.alarm.follow(a.wake, a.erase, || self.store.database().erased()).await,
            Err(error) => Err(error),
        };
        // An error makes the platform run the alarm again.
        done.map_err(|e| worker::Error::RustError(e.to_string()))?;
        Response::empty()
    }
}

/// The tables, and which numbered ones exist is known to the state machine alone.
pub(crate) struct AggregateSql(Sql);

impl Tables for AggregateSql {
    const SCHEMA: &'static [&'static str] = &[
        "CREATE TABLE IF NOT EXISTS meta (k INTEGER PRIMARY KEY, v BLOB)",
        "CREATE TABLE IF NOT EXISTS sealed (lo BLOB, hi BLOB, param BLOB, v BLOB, PRIMARY KEY (lo, hi, param)) WITHOUT ROWID",
    ];

    fn new(sql: Sql) -> Self {
        Self(sql)
    }
}

/// What the `heads` column of a job holds.
#[derive(Serialize)]
struct HeadsRef<'a>(u64, &'a [SliceHead], &'a Tally, Time);

impl<'a> HeadsRef<'a> {
    fn of(head: &'a JobHead) -> Self {
        Self(head.seq, &head.slices, &head.tally, head.at)
    }
}

/// The same, read.
#[derive(Deserialize)]
struct Heads(u64, Vec<SliceHead>, Tally, Time);

fn job_id(row: &mut Row) -> StoreResult<AggregationJobId> {
    row.array().map(AggregationJobId::new)
}

/// Reads job, parameter and heads.
fn job_head(row: &mut Row) -> StoreResult<JobHead> {
    let (job, param) = (job_id(row)?, row.blob()?);
    let Heads(seq, slices, tally, at) = row.packed()?;
    Ok(JobHead { job, param, seq, slices, tally, at })
}

fn recorded(row: &mut Row) -> StoreResult<RecordedJob> {
    Ok(RecordedJob { digest: row.array()?, refused: row.packed()? })
}

fn number(n: usize) -> StoreResult<SqlStorageValue> {
    i32::try_from(n)
        .map(SqlStorageValue::from)
        .map_err(|_| StoreError("too many chunks".to_owned()))
}

/// Bounds of a range's bucket keys: first, and past the last, or the last if there is only one.
fn key_condition(range: &BucketRange) -> &'static str {
    match range {
        BucketRange::Windows(_) => "bucket >= ?1 AND bucket < ?2",
        BucketRange::Batch(_) => "bucket BETWEEN ?1 AND ?2",
    }
}

impl AggregateSql {
    fn put_chunks(&mut self, statement: &str, key: &[u8], bytes: &[u8]) -> StoreResult<()> {
        for (n, chunk) in bytes.chunks(CHUNK).enumerate() {
            self.0.run(statement, vec![blob(key), number(n)?, blob(chunk)])?;
        }
        Ok(())
    }
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
        // Ranges of one parameter do not overlap, and those of several are equal: of what begins before, only the nearest
        // can reach in.
        let statement = match range {
            BucketRange::Windows(_) => {
                "SELECT v FROM sealed WHERE lo >= coalesce((SELECT max(lo) FROM sealed WHERE lo <= ?1), ?1) AND lo < ?2 AND hi > ?1"
            }
            BucketRange::Batch(_) => "SELECT v FROM sealed WHERE lo = ?1 AND hi = ?2",
        };
        self.0.all(statement, vec![blob(&lo), blob(&hi)], |mut row| row.packed())
    }

    fn sealed_near(&mut self, bucket: &BatchBucket) -> StoreResult<Vec<SealedRange>> {
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

    fn forget_sealed_before(&mut self, end: Time) -> StoreResult<()> {
        // An interval has 8-byte keys, a batch 32-byte ones.
        self.0.run(
            "DELETE FROM sealed WHERE lo < ?1 AND length(hi) = 8 AND hi < ?1",
            vec![blob(&BatchBucket::Window(end).to_key())],
        )
    }

    fn create_generation(&mut self, generation: u32) -> StoreResult<()> {
        self.0.run(
            &format!("CREATE TABLE job_{generation} (job BLOB PRIMARY KEY, digest BLOB, param BLOB, heads BLOB, refused BLOB, ids BLOB, shares BLOB) WITHOUT ROWID"),
            vec![],
        )?;
        self.0.run(
            &format!("CREATE TABLE chunk_{generation} (job BLOB, n INTEGER, bytes BLOB, PRIMARY KEY (job, n)) WITHOUT ROWID"),
            vec![],
        )
    }

    fn drop_generation(&mut self, generation: u32) -> StoreResult<()> {
        self.0.run(&format!("DROP TABLE job_{generation}"), vec![])?;
        self.0.run(&format!("DROP TABLE chunk_{generation}"), vec![])
    }

    fn job(&mut self, generation: u32, job: &AggregationJobId) -> StoreResult<Option<RecordedJob>> {
        self.0.first(
            &format!("SELECT digest, refused FROM job_{generation} WHERE job = ?"),
            vec![blob(job.as_bytes())],
            |mut row| recorded(&mut row),
        )
    }

    fn insert_job(&mut self, generation: u32, row: &JobRow) -> StoreResult<()> {
        let (inline, chunked): (&[u8], &[u8]) = if row.shares.len() <= SHARES_IN_ROW_MAX {
            (&row.shares, &[])
        } else {
            (&[], &row.shares)
        };
        let head = &row.head;
        self.0.run(
            &format!("INSERT INTO job_{generation} VALUES (?, ?, ?, ?, ?, ?, ?)"),
            vec![
                blob(head.job.as_bytes()),
                blob(&row.recorded.digest),
                blob(&head.param),
                pack(&HeadsRef::of(head))?,
                pack(&row.recorded.refused)?,
                blob(&row.ids),
                blob(inline),
            ],
        )?;
        let statement = format!("INSERT INTO chunk_{generation} VALUES (?, ?, ?)");
        self.put_chunks(&statement, head.job.as_bytes(), chunked)
    }

    fn put_slices(
        &mut self,
        generation: u32,
        head: &JobHead,
        ids: Option<&[u8]>,
    ) -> StoreResult<()> {
        let (heads, job) = (pack(&HeadsRef::of(head))?, blob(head.job.as_bytes()));
        match ids {
            None => self.0.run(
                &format!("UPDATE job_{generation} SET heads = ? WHERE job = ?"),
                vec![heads, job],
            ),
            Some(ids) => self.0.run(
                &format!("UPDATE job_{generation} SET heads = ?, ids = ? WHERE job = ?"),
                vec![heads, blob(ids), job],
            ),
        }
    }

    fn each_job(&mut self, generation: u32, visit: &mut VisitJob<'_>) -> StoreResult<()> {
        let statement = format!("SELECT job, param, heads FROM job_{generation}");
        self.0.each(&statement, vec![], |mut row| visit(job_head(&mut row)?))
    }

    fn each_job_ids(&mut self, generation: u32, visit: &mut VisitJobIds<'_>) -> StoreResult<()> {
        let statement = format!("SELECT job, param, heads, ids FROM job_{generation}");
        self.0.each(&statement, vec![], |mut row| {
            let head = job_head(&mut row)?;
            visit(head, &row.blob()?)
        })
    }

    fn shares(&mut self, generation: u32, job: &AggregationJobId) -> StoreResult<Vec<u8>> {
        let key = || vec![blob(job.as_bytes())];
        let mut shares = self
            .0
            .first(
                &format!("SELECT shares FROM job_{generation} WHERE job = ?"),
                key(),
                |mut row| row.blob(),
            )?
            .ok_or_else(|| StoreError("a job is gone".to_owned()))?;
        if shares.is_empty() {
            let statement =
                format!("SELECT bytes FROM chunk_{generation} WHERE job = ? ORDER BY n");
            self.0.each(&statement, key(), |mut row| {
                shares.extend(row.blob()?);
                Ok(())
            })?;
        }
        Ok(shares)
    }

    fn insert_begun(&mut self, generation: u32, n: u32, fingerprints: &[u64]) -> StoreResult<()> {
        // 16 bytes a report: those of the largest job are far below the limit.
        self.0.run(
            &format!("INSERT INTO chunk_{generation} VALUES (?, ?, ?)"),
            vec![blob(NO_JOB), number(n as usize)?, blob(&runs::to_bytes(fingerprints))],
        )
    }

    fn each_begun(
        &mut self,
        generation: u32,
        visit: &mut VisitFingerprints<'_>,
    ) -> StoreResult<()> {
        let statement = format!("SELECT bytes FROM chunk_{generation} WHERE job = ?");
        self.0
            .each(&statement, vec![blob(NO_JOB)], |mut row| visit(&runs::from_bytes(&row.blob()?)?))
    }

    fn create_epoch(&mut self, epoch: u32) -> StoreResult<()> {
        self.0.run(
            &format!("CREATE TABLE packed_{epoch} (generation INTEGER, n INTEGER, v BLOB, PRIMARY KEY (generation, n)) WITHOUT ROWID"),
            vec![],
        )?;
        self.0.run(
            &format!("CREATE TABLE merged_{epoch} (bucket BLOB, param BLOB, n INTEGER, bytes BLOB, PRIMARY KEY (bucket, param, n)) WITHOUT ROWID"),
            vec![],
        )
    }

    fn drop_epoch(&mut self, epoch: u32) -> StoreResult<()> {
        self.0.run(&format!("DROP TABLE packed_{epoch}"), vec![])?;
        self.0.run(&format!("DROP TABLE merged_{epoch}"), vec![])
    }

    fn put_packed_jobs(
        &mut self,
        epoch: u32,
        generation: u32,
        jobs: &[(AggregationJobId, RecordedJob)],
    ) -> StoreResult<()> {
        // A job takes some 50 bytes, and 17 for each refused report, of which it may have 10,000.
        let size = |job: &RecordedJob| 64 + 20 * job.refused.len();
        let mut rest = jobs;
        let mut n = 0;
        while !rest.is_empty() {
            let mut bytes = 0;
            let fit = rest
                .iter()
                .take_while(|(_, job)| {
                    bytes += size(job);
                    bytes <= CHUNK
                })
                .count();
            let (now, later) = rest.split_at(fit.max(1).min(rest.len()));
            let v: Vec<_> = now.iter().map(|(job, r)| (job, r)).collect();
            self.0.run(
                &format!("INSERT INTO packed_{epoch} VALUES (?, ?, ?)"),
                vec![number(generation as usize)?, number(n)?, pack(&v)?],
            )?;
            n += 1;
            rest = later;
        }
        Ok(())
    }

    fn packed_job(
        &mut self,
        epoch: u32,
        job: &AggregationJobId,
    ) -> StoreResult<Option<RecordedJob>> {
        let mut found = None;
        // Only what the replay index has seen is asked for here, so reading all of it is rare.
        self.0.each(&format!("SELECT v FROM packed_{epoch}"), vec![], |mut row| {
            let jobs: Vec<(AggregationJobId, RecordedJob)> = row.packed()?;
            if let Ok(at) = jobs.binary_search_by_key(job, |(id, _)| *id) {
                found = jobs.into_iter().nth(at).map(|(_, recorded)| recorded);
            }
            Ok(())
        })?;
        Ok(found)
    }

    fn merged(
        &mut self,
        epoch: u32,
        bucket: &BatchBucket,
        param: &[u8],
    ) -> StoreResult<Option<Content>> {
        let mut bytes = Vec::new();
        self.0.each(
            &format!("SELECT bytes FROM merged_{epoch} WHERE bucket = ? AND param = ? ORDER BY n"),
            vec![blob(&bucket.to_key()), blob(param)],
            |mut row| {
                bytes.extend(row.blob()?);
                Ok(())
            },
        )?;
        if bytes.is_empty() { Ok(None) } else { unpack(&bytes).map(|m: Merged| Some(m.content)) }
    }

    fn put_merged(
        &mut self,
        epoch: u32,
        bucket: &BatchBucket,
        param: &[u8],
        content: &Content,
    ) -> StoreResult<()> {
        let bytes = postcard::to_allocvec(&MergedRef { bucket, content })
            .map_err(|e| StoreError(format!("a value cannot be packed: {e}")))?;
        let statement = format!("INSERT OR REPLACE INTO merged_{epoch} VALUES (?, ?, ?, ?)");
        for (n, chunk) in bytes.chunks(CHUNK).enumerate() {
            let key = vec![blob(&bucket.to_key()), blob(param), number(n)?, blob(chunk)];
            self.0.run(&statement, key)?;
        }
        Ok(())
    }

    fn each_merged(
        &mut self,
        epoch: u32,
        range: Option<&BucketRange>,
        visit: &mut VisitMerged<'_>,
    ) -> StoreResult<()> {
        let (condition, keys) = match range {
            Some(range) => {
                let (lo, hi) = range.to_keys();
                (key_condition(range), vec![blob(&lo), blob(&hi)])
            }
            None => ("1", vec![]),
        };
        let statement = format!(
            "SELECT param, n, bytes FROM merged_{epoch} WHERE {condition} ORDER BY bucket, param, n"
        );
        let mut pending: Option<(Vec<u8>, Vec<u8>)> = None;
        let mut finish = |pending: Option<(Vec<u8>, Vec<u8>)>| match pending {
            Some((param, bytes)) => {
                let Merged { bucket, content } = unpack(&bytes)?;
                visit(bucket, &param, content)
            }
            None => Ok(()),
        };
        self.0.each(&statement, keys, |mut row| {
            let (param, n, bytes) = (row.blob()?, row.integer()?, row.blob()?);
            match &mut pending {
                Some((_, before)) if n != 0 => before.extend(bytes),
                _ => finish(pending.replace((param, bytes)))?,
            }
            Ok(())
        })?;
        finish(pending)
    }
}

/// A merged sum as it is stored. Its bucket's key alone does not tell what kind of bucket it is.
#[derive(Serialize)]
struct MergedRef<'a> {
    bucket: &'a BatchBucket,
    content: &'a Content,
}

/// The same, read.
#[derive(Deserialize)]
struct Merged {
    bucket: BatchBucket,
    content: Content,
}

fn unpack<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> StoreResult<T> {
    postcard::from_bytes(bytes)
        .map_err(|e| StoreError(format!("a stored value does not decode: {e}")))
}

impl RunTables for AggregateSql {
    fn create_run(&mut self, run: u32) -> StoreResult<()> {
        self.0.create_run(run)
    }

    fn drop_run(&mut self, run: u32) -> StoreResult<()> {
        self.0.drop_run(run)
    }

    fn put_part(&mut self, run: &Run, part: u32, fingerprints: &[u64]) -> StoreResult<()> {
        self.0.put_part(run, part, fingerprints)
    }

    fn part(&mut self, run: &Run, part: u32) -> StoreResult<Vec<u64>> {
        self.0.part(run, part)
    }

    fn last_part(&mut self, run: &Run) -> StoreResult<Option<u32>> {
        self.0.last_part(run)
    }

    fn present(&mut self, run: &Run, sorted: &[u64]) -> StoreResult<Vec<u64>> {
        self.0.present(run, sorted)
    }
}
