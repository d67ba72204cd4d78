//! [`TaskLedger`]: collects a task's batches, exactly once each.
//!
//! Tables (`WITHOUT ROWID` where the key is no integer):
//! - `meta`: one row, the packed `LedgerMeta`. `pending`: at most one row, the attempt under way.
//! - `object`: the registered stores of time groups, one row each, until they expire. `expired`: what they forgot.
//! - `released_E`, `noted_E`: jobs the leader deleted in epoch E, and those whose reports no store was asked about and that
//!   were counted, one row each; dropped whole.
//! - `books`: one row, what no living store counts.
//! - `collection`: decided collections with the answer's bytes, one row each.

use std::{collections::BTreeSet, rc::Rc};

use daphne_core::{
    batch::BucketRange,
    ids::AggregationJobId,
    metrics::Totals,
    store::{
        LedgerTables, StoreError, StoreResult,
        ledger::{ALARM_AFTER_S, CollectionRow, Ledger, LedgerHost, LedgerMeta, Pending},
        message::{LedgerRequest, LedgerResponse, RequestDigest},
        placement::{Group, StoreId},
    },
    time::{Duration, Time},
};
use storage_proxy::{objects::ObjectCaller, random};
use worker::{
    DurableObject, Env, Request, Response, Result, SqlStorageValue, State, console_error,
    console_warn, durable_object,
};

use crate::{
    alarm::{Alarm, now},
    exchange,
    sql::{Sql, SqlDatabase, Tables, blob, pack},
};

/// The class.
#[durable_object(alarm)]
pub struct TaskLedger {
    ledger: Rc<Ledger<SqlDatabase<LedgerSql>>>,
    host: Rc<Host>,
    objects: ObjectCaller,
}

impl std::panic::RefUnwindSafe for TaskLedger {}

struct Host {
    alarm: Alarm,
}

impl LedgerHost for Host {
    fn now(&self) -> Time {
        now()
    }

    fn seed(&self) -> [u8; 32] {
        random::bytes()
    }

    async fn arm_alarm(&self, after_s: u64) -> StoreResult<()> {
        let at = now().saturating_add(Duration::from_seconds(after_s));
        self.alarm.follow(Some(at), false, || {}).await
    }

    fn not_counted(&self, why: &StoreError) {
        console_error!("{}", serde_json::json!({ "event": "not_counted", "why": why.to_string() }));
    }
}

impl DurableObject for TaskLedger {
    fn new(state: State, env: Env) -> Self {
        Self {
            ledger: Rc::new(Ledger::new(SqlDatabase::new(&state))),
            host: Rc::new(Host { alarm: Alarm::new(state) }),
            objects: ObjectCaller::new(env),
        }
    }

    async fn fetch(&self, request: Request) -> Result<Response> {
        #[cfg(feature = "test-routes")]
        crate::meter::request(crate::meter::Class::TaskLedger);
        let request = match exchange::read(request).await {
            Ok(request) => request,
            Err(error) => return exchange::answer(Err::<LedgerResponse, _>(error)),
        };
        let is_purge = matches!(request, LedgerRequest::Purge { again: false, .. });
        let warning = warning(&request);
        let mut result = self.ledger.handle(&self.objects, &*self.host, request).await;
        if let (Some(warning), Ok(LedgerResponse::Done)) = (warning, &result) {
            console_warn!("{warning}");
        }
        if is_purge && result == Ok(LedgerResponse::Done) {
            let erased = || self.ledger.database().erased();
            result =
                self.host.alarm.follow(None, true, erased).await.map(|()| LedgerResponse::Done);
        }
        if matches!(result, Ok(LedgerResponse::Share(_))) {
            // The leader need not wait until all stores know. The alarm does it if this is cut short.
            let (ledger, host, objects) =
                (self.ledger.clone(), self.host.clone(), self.objects.clone());
            self.host.alarm.state().wait_until(async move {
                if let Err(error) = ledger.tidy(&objects, &*host).await {
                    console_error!("{error}");
                }
            });
        }
        exchange::answer(result)
    }

    async fn alarm(&self) -> Result<Response> {
        self.host.alarm.rang();
        match self.ledger.tidy(&self.objects, &*self.host).await {
            Ok(true) => {}
            Ok(false) => {
                self.host
                    .arm_alarm(ALARM_AFTER_S)
                    .await
                    .map_err(|e| worker::Error::RustError(e.to_string()))?;
            }
            // An error makes the platform run the alarm again.
            Err(error) => return Err(worker::Error::RustError(error.to_string())),
        }
        Response::empty()
    }
}

/// The line of the log about reports that were lost: nobody collected them in time.
fn warning(request: &LedgerRequest) -> Option<serde_json::Value> {
    match request {
        LedgerRequest::Expired { placement, store, epoch, uncollected, .. } if *uncollected > 0 => {
            Some(serde_json::json!({
                "event": "expired_uncollected",
                "task": placement.task_id,
                "store": placement.store_name(store),
                "epoch": epoch,
                "reports": uncollected,
            }))
        }
        _ => None,
    }
}

struct LedgerSql(Sql);

impl Tables for LedgerSql {
    const SCHEMA: &'static [&'static str] = &[
        "CREATE TABLE IF NOT EXISTS meta (k INTEGER PRIMARY KEY, v BLOB)",
        "CREATE TABLE IF NOT EXISTS pending (k INTEGER PRIMARY KEY, v BLOB)",
        "CREATE TABLE IF NOT EXISTS object (run BLOB, shard INTEGER, PRIMARY KEY (run, shard)) WITHOUT ROWID",
        "CREATE TABLE IF NOT EXISTS expired (store BLOB, epoch INTEGER, reports BLOB, PRIMARY KEY (store, epoch)) WITHOUT ROWID",
        "CREATE TABLE IF NOT EXISTS books (k INTEGER PRIMARY KEY, v BLOB)",
        "CREATE TABLE IF NOT EXISTS collection (request BLOB PRIMARY KEY, lo BLOB, hi BLOB, todo INTEGER, reports BLOB, v BLOB, answer BLOB) WITHOUT ROWID",
        // A collection asks for its neighbours and for what is left to do; neither may grow with the task's age.
        "CREATE INDEX IF NOT EXISTS collection_lo ON collection (lo)",
        "CREATE INDEX IF NOT EXISTS collection_todo ON collection (todo) WHERE todo = 1",
    ];

    fn new(sql: Sql) -> Self {
        Self(sql)
    }
}

impl LedgerTables for LedgerSql {
    fn meta(&mut self) -> StoreResult<LedgerMeta> {
        Ok(self
            .0
            .first("SELECT v FROM meta WHERE k = 1", vec![], |mut row| row.packed())?
            .unwrap_or_default())
    }

    fn put_meta(&mut self, meta: &LedgerMeta) -> StoreResult<()> {
        self.0.run("INSERT OR REPLACE INTO meta VALUES (1, ?)", vec![pack(meta)?])
    }

    fn register(&mut self, store: &StoreId) -> StoreResult<()> {
        self.0.run("INSERT OR IGNORE INTO object VALUES (?, ?)", store_key(store))
    }

    fn registered(&mut self, first: u64, last: u64) -> StoreResult<Vec<StoreId>> {
        self.0.all(
            "SELECT run, shard FROM object WHERE run BETWEEN ? AND ? ORDER BY run, shard",
            vec![blob(&first.to_be_bytes()), blob(&last.to_be_bytes())],
            |mut row| {
                let group = Group::Run(u64::from_be_bytes(row.array()?));
                Ok(StoreId { group, shard: u16::try_from(row.integer()?).unwrap_or(u16::MAX) })
            },
        )
    }

    fn unregister(&mut self, store: &StoreId) -> StoreResult<()> {
        self.0.run("DELETE FROM object WHERE run = ? AND shard = ?", store_key(store))
    }

    fn put_expired(&mut self, store: &StoreId, epoch: u32, uncollected: u64) -> StoreResult<()> {
        self.0.run(
            "INSERT OR REPLACE INTO expired VALUES (?, ?, ?)",
            vec![
                pack(store)?,
                SqlStorageValue::from(i64::from(epoch)),
                blob(&uncollected.to_be_bytes()),
            ],
        )
    }

    fn expired_total(&mut self) -> StoreResult<u64> {
        let mut total = 0;
        self.0.each("SELECT reports FROM expired", vec![], |mut row| {
            total += u64::from_be_bytes(row.array()?);
            Ok(())
        })?;
        Ok(total)
    }

    fn books(&mut self) -> StoreResult<Totals> {
        Ok(self
            .0
            .first("SELECT v FROM books WHERE k = 1", vec![], |mut row| row.packed())?
            .unwrap_or_default())
    }

    fn put_books(&mut self, books: &Totals) -> StoreResult<()> {
        self.0.run("INSERT OR REPLACE INTO books VALUES (1, ?)", vec![pack(books)?])
    }

    fn put_noted(
        &mut self,
        epoch: u32,
        job: &AggregationJobId,
        digest: &RequestDigest,
    ) -> StoreResult<()> {
        self.0.run(
            &format!("INSERT OR IGNORE INTO noted_{epoch} VALUES (?, ?)"),
            vec![blob(job.as_bytes()), blob(digest)],
        )
    }

    fn is_noted(
        &mut self,
        epoch: u32,
        job: &AggregationJobId,
        digest: &RequestDigest,
    ) -> StoreResult<bool> {
        let statement = format!("SELECT 1 FROM noted_{epoch} WHERE job = ? AND digest = ?");
        let key = vec![blob(job.as_bytes()), blob(digest)];
        Ok(self.0.first(&statement, key, |_| Ok(()))?.is_some())
    }

    fn create_epoch(&mut self, epoch: u32) -> StoreResult<()> {
        self.0.run(
            &format!("CREATE TABLE noted_{epoch} (job BLOB, digest BLOB, PRIMARY KEY (job, digest)) WITHOUT ROWID"),
            vec![],
        )?;
        self.0.run(
            &format!("CREATE TABLE released_{epoch} (job BLOB PRIMARY KEY) WITHOUT ROWID"),
            vec![],
        )
    }

    fn drop_epoch(&mut self, epoch: u32) -> StoreResult<()> {
        self.0.run(&format!("DROP TABLE noted_{epoch}"), vec![])?;
        self.0.run(&format!("DROP TABLE released_{epoch}"), vec![])
    }

    fn release(&mut self, epoch: u32, job: &AggregationJobId) -> StoreResult<()> {
        self.0.run(
            &format!("INSERT OR IGNORE INTO released_{epoch} VALUES (?)"),
            vec![blob(job.as_bytes())],
        )
    }

    fn released(
        &mut self,
        epoch: u32,
        jobs: &[AggregationJobId],
    ) -> StoreResult<Vec<AggregationJobId>> {
        let mut found = Vec::new();
        if jobs.len() <= LOOKUPS_MAX {
            let statement = format!("SELECT job FROM released_{epoch} WHERE job = ?");
            for job in jobs {
                self.0.each(&statement, vec![blob(job.as_bytes())], |_| {
                    found.push(*job);
                    Ok(())
                })?;
            }
            return Ok(found);
        }
        let jobs: BTreeSet<AggregationJobId> = jobs.iter().copied().collect();
        self.0.each(&format!("SELECT job FROM released_{epoch}"), vec![], |mut row| {
            let job = row.array().map(AggregationJobId::new)?;
            if jobs.contains(&job) {
                found.push(job);
            }
            Ok(())
        })?;
        Ok(found)
    }

    fn pending(&mut self) -> StoreResult<Option<Pending>> {
        self.0.first("SELECT v FROM pending WHERE k = 1", vec![], |mut row| row.packed())
    }

    fn put_pending(&mut self, pending: Option<&Pending>) -> StoreResult<()> {
        match pending {
            Some(p) => self.0.run("INSERT OR REPLACE INTO pending VALUES (1, ?)", vec![pack(p)?]),
            None => self.0.run("DELETE FROM pending WHERE k = 1", vec![]),
        }
    }

    fn collection(&mut self, digest: &RequestDigest) -> StoreResult<Option<CollectionRow>> {
        self.0.first("SELECT v FROM collection WHERE request = ?", vec![blob(digest)], |mut row| {
            row.packed()
        })
    }

    fn collections_meeting(&mut self, range: &BucketRange) -> StoreResult<Vec<CollectionRow>> {
        let (lo, hi) = range.to_keys();
        let statement = match range {
            // Ranges are equal or disjoint: of what begins before, only the nearest can reach in.
            BucketRange::Windows(_) => {
                "SELECT v FROM collection WHERE lo >= coalesce((SELECT max(lo) FROM collection WHERE lo <= ?1), ?1) AND lo < ?2 AND hi > ?1"
            }
            BucketRange::Batch(_) => "SELECT v FROM collection WHERE lo = ?1 AND hi = ?2",
        };
        self.0.all(statement, vec![blob(&lo), blob(&hi)], |mut row| row.packed())
    }

    fn unsealed_collections(&mut self) -> StoreResult<Vec<CollectionRow>> {
        self.0.all("SELECT v FROM collection WHERE todo = 1", vec![], |mut row| row.packed())
    }

    fn answer(&mut self, digest: &RequestDigest) -> StoreResult<Option<Vec<u8>>> {
        self.0.first(
            "SELECT answer FROM collection WHERE request = ? AND answer IS NOT NULL",
            vec![blob(digest)],
            |mut row| row.blob(),
        )
    }

    fn forget_answer(&mut self, digest: &RequestDigest) -> StoreResult<()> {
        self.0.run(
            "UPDATE collection SET answer = NULL WHERE request = ? AND answer IS NOT NULL",
            vec![blob(digest)],
        )
    }

    fn insert_collection(&mut self, row: &CollectionRow, answer: &[u8]) -> StoreResult<()> {
        let (lo, hi) = row.range.to_keys();
        self.0.run(
            "INSERT INTO collection VALUES (?, ?, ?, ?, ?, ?, ?)",
            vec![
                blob(&row.digest),
                blob(&lo),
                blob(&hi),
                has_todo(row),
                blob(&row.report_count.to_be_bytes()),
                pack(row)?,
                blob(answer),
            ],
        )
    }

    fn update_collection(&mut self, row: &CollectionRow) -> StoreResult<()> {
        self.0.run(
            "UPDATE collection SET todo = ?, v = ? WHERE request = ?",
            vec![has_todo(row), pack(row)?, blob(&row.digest)],
        )
    }

    fn collected_totals(&mut self) -> StoreResult<(u64, u64)> {
        let (mut collections, mut reports) = (0, 0);
        self.0.each("SELECT reports FROM collection", vec![], |mut row| {
            collections += 1;
            reports += u64::from_be_bytes(row.array()?);
            Ok(())
        })?;
        Ok((collections, reports))
    }
}

/// Above this many jobs, reading the table is quicker than asking for each.
const LOOKUPS_MAX: usize = 64;

/// Only stores of time groups are registered; the whole task's are all there from the beginning.
fn store_key(store: &StoreId) -> Vec<SqlStorageValue> {
    let run = match store.group {
        Group::Run(n) => n,
        Group::Whole => u64::MAX,
    };
    vec![blob(&run.to_be_bytes()), SqlStorageValue::from(i32::from(store.shard))]
}

fn has_todo(row: &CollectionRow) -> SqlStorageValue {
    SqlStorageValue::from(i32::from(!row.todo.is_empty()))
}
