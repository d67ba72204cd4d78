//! [`TaskLedger`]: collects a task's batches, exactly once each.
//!
//! Tables (`WITHOUT ROWID` where the key is no integer):
//! - `meta`: one row, the packed `LedgerMeta`. `pending`: at most one row, the attempt under way.
//! - `object`: the registered stores of time groups, one row each.
//! - `released`: jobs the leader deleted, one row each.
//! - `collection`: decided collections with the answer's bytes, one row each.

use std::{rc::Rc, time::Duration};

use daphne_core::{
    batch::BucketRange,
    ids::AggregationJobId,
    store::{
        LedgerTables, StoreError, StoreResult,
        ledger::{ALARM_AFTER_S, CollectionRow, Ledger, LedgerHost, LedgerMeta, Pending},
        message::{LedgerResponse, RequestDigest},
        placement::StoreId,
    },
    time::Time,
};
use storage_proxy::{objects::ObjectCaller, random};
use worker::{
    Date, DurableObject, Env, Request, Response, Result, SqlStorageValue, State, console_error,
    durable_object,
};

use crate::{
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
    state: State,
}

impl LedgerHost for Host {
    fn now(&self) -> Time {
        Time::from_seconds(Date::now().as_millis() / 1_000)
    }

    fn seed(&self) -> [u8; 32] {
        random::bytes()
    }

    async fn arm_alarm(&self, after_s: u64) -> StoreResult<()> {
        let storage = self.state.storage();
        let failed = |e: worker::Error| StoreError(format!("the alarm: {e}"));
        // Setting an alarm bills a row, and setting it again would put it off.
        if storage.get_alarm().await.map_err(failed)?.is_none() {
            storage.set_alarm(Duration::from_secs(after_s)).await.map_err(failed)?;
        }
        Ok(())
    }
}

impl DurableObject for TaskLedger {
    fn new(state: State, env: Env) -> Self {
        Self {
            ledger: Rc::new(Ledger::new(SqlDatabase::new(&state))),
            host: Rc::new(Host { state }),
            objects: ObjectCaller::new(env),
        }
    }

    async fn fetch(&self, request: Request) -> Result<Response> {
        let result = match exchange::read(request).await {
            Ok(request) => self.ledger.handle(&self.objects, &*self.host, request).await,
            Err(error) => Err(error),
        };
        if matches!(result, Ok(LedgerResponse::Share(_))) {
            // The leader need not wait until all stores know. The alarm does it if this is cut short.
            let (ledger, host, objects) =
                (self.ledger.clone(), self.host.clone(), self.objects.clone());
            self.host.state.wait_until(async move {
                if let Err(error) = ledger.tidy(&objects, &*host).await {
                    console_error!("{error}");
                }
            });
        }
        exchange::answer(result)
    }

    async fn alarm(&self) -> Result<Response> {
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

struct LedgerSql(Sql);

impl Tables for LedgerSql {
    const SCHEMA: &'static [&'static str] = &[
        "CREATE TABLE IF NOT EXISTS meta (k INTEGER PRIMARY KEY, v BLOB)",
        "CREATE TABLE IF NOT EXISTS pending (k INTEGER PRIMARY KEY, v BLOB)",
        "CREATE TABLE IF NOT EXISTS object (name BLOB PRIMARY KEY, state INTEGER) WITHOUT ROWID",
        "CREATE TABLE IF NOT EXISTS released (job BLOB PRIMARY KEY, at INTEGER) WITHOUT ROWID",
        "CREATE TABLE IF NOT EXISTS collection (request BLOB PRIMARY KEY, lo BLOB, hi BLOB, todo INTEGER, v BLOB, answer BLOB) WITHOUT ROWID",
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
        // State 1: registered. Expired stores will have another.
        self.0.run("INSERT OR IGNORE INTO object VALUES (?, 1)", vec![pack(store)?])
    }

    fn registered(&mut self) -> StoreResult<Vec<StoreId>> {
        let mut stores: Vec<StoreId> =
            self.0.all("SELECT name FROM object", vec![], |mut row| row.packed())?;
        stores.sort_unstable();
        Ok(stores)
    }

    fn release(&mut self, job: &AggregationJobId, at: Time) -> StoreResult<()> {
        let at = i64::try_from(at.as_seconds()).unwrap_or(i64::MAX);
        self.0.run(
            "INSERT OR IGNORE INTO released VALUES (?, ?)",
            vec![blob(job.as_bytes()), SqlStorageValue::from(at)],
        )
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
            BucketRange::Windows(_) => "SELECT v FROM collection WHERE lo < ?2 AND hi > ?1",
            BucketRange::Batch(_) => "SELECT v FROM collection WHERE lo = ?1 AND hi = ?2",
        };
        self.0.all(statement, vec![blob(&lo), blob(&hi)], |mut row| row.packed())
    }

    fn unsealed_collections(&mut self) -> StoreResult<Vec<CollectionRow>> {
        self.0.all("SELECT v FROM collection WHERE todo = 1", vec![], |mut row| row.packed())
    }

    fn answer(&mut self, digest: &RequestDigest) -> StoreResult<Option<Vec<u8>>> {
        self.0.first(
            "SELECT answer FROM collection WHERE request = ?",
            vec![blob(digest)],
            |mut row| row.blob(),
        )
    }

    fn insert_collection(&mut self, row: &CollectionRow, answer: &[u8]) -> StoreResult<()> {
        let (lo, hi) = row.range.to_keys();
        self.0.run(
            "INSERT INTO collection VALUES (?, ?, ?, ?, ?, ?)",
            vec![blob(&row.digest), blob(&lo), blob(&hi), has_todo(row), pack(row)?, blob(answer)],
        )
    }

    fn update_collection(&mut self, row: &CollectionRow) -> StoreResult<()> {
        self.0.run(
            "UPDATE collection SET todo = ?, v = ? WHERE request = ?",
            vec![has_todo(row), pack(row)?, blob(&row.digest)],
        )
    }
}

fn has_todo(row: &CollectionRow) -> SqlStorageValue {
    SqlStorageValue::from(i32::from(!row.todo.is_empty()))
}
