//! [`ConfigStore`]: the truth about tasks and HPKE keys. One row each; secrets in them are sealed. One row more for a
//! task whose end is known, until its objects have forgotten it.

use std::cell::Cell;

use daphne_core::{
    ids::TaskId,
    store::{
        StoreError, StoreResult,
        config_store::{self, ConfigRequest, ConfigResponse, ConfigTables, Purge, TaskEntry},
    },
    time::Time,
};
use storage_proxy::objects::ObjectCaller;
use worker::{
    DurableObject, Env, Request, Response, Result, SqlStorageValue, State, durable_object,
};

use crate::{
    alarm::{Alarm, now},
    exchange,
    sql::{Sql, SqlDatabase, Tables, blob, pack},
};

/// The class.
#[durable_object(alarm)]
pub struct ConfigStore {
    database: SqlDatabase<ConfigSql>,
    objects: ObjectCaller,
    alarm: Alarm,
    was_woken: Cell<bool>,
}

impl std::panic::RefUnwindSafe for ConfigStore {}

impl DurableObject for ConfigStore {
    fn new(state: State, env: Env) -> Self {
        Self {
            database: SqlDatabase::new(&state),
            objects: ObjectCaller::new(env),
            alarm: Alarm::new(state),
            was_woken: Cell::new(false),
        }
    }

    async fn fetch(&self, request: Request) -> Result<Response> {
        exchange::answer(match exchange::read(request).await {
            Ok(request) => self.answer(request).await,
            Err(error) => Err(error),
        })
    }

    async fn alarm(&self) -> Result<Response> {
        self.alarm.rang();
        let done = match config_store::alarm(&self.database, &self.objects, now()).await {
            Ok(wake) => self.alarm.follow(wake, false, || {}).await,
            Err(error) => Err(error),
        };
        // An error makes the platform run the alarm again.
        done.map_err(|e| worker::Error::RustError(e.to_string()))?;
        Response::empty()
    }
}

impl ConfigStore {
    async fn answer(&self, request: ConfigRequest) -> StoreResult<ConfigResponse> {
        let handled = config_store::handle(&self.database, request, now())?;
        let mut wake = handled.wake;
        if !self.was_woken.replace(true) {
            // Once in a life in memory, should a crash have come between a change and its alarm.
            wake = config_store::next_wake(&self.database)?;
        }
        self.alarm.follow(wake, false, || {}).await?;
        Ok(handled.response)
    }
}

struct ConfigSql(Sql);

impl Tables for ConfigSql {
    const SCHEMA: &'static [&'static str] = &[
        // A NULL record is a deleted task.
        "CREATE TABLE IF NOT EXISTS task (id BLOB PRIMARY KEY, identity BLOB, record BLOB) WITHOUT ROWID",
        "CREATE TABLE IF NOT EXISTS hpke (n INTEGER PRIMARY KEY, id INTEGER, record BLOB)",
        "CREATE TABLE IF NOT EXISTS purge (task BLOB PRIMARY KEY, at BLOB, v BLOB) WITHOUT ROWID",
        "CREATE INDEX IF NOT EXISTS purge_at ON purge (at)",
    ];

    fn new(sql: Sql) -> Self {
        Self(sql)
    }
}

impl ConfigTables for ConfigSql {
    fn task(&mut self, id: &TaskId) -> StoreResult<Option<TaskEntry>> {
        self.0.first(
            "SELECT identity, record FROM task WHERE id = ?",
            vec![blob(id.as_bytes())],
            |mut row| Ok(TaskEntry { identity: row.array()?, record: row.optional_blob()? }),
        )
    }

    fn put_task(&mut self, id: &TaskId, entry: &TaskEntry) -> StoreResult<()> {
        self.0.run(
            "INSERT OR REPLACE INTO task VALUES (?, ?, ?)",
            vec![
                blob(id.as_bytes()),
                blob(&entry.identity),
                SqlStorageValue::from(entry.record.clone()),
            ],
        )
    }

    fn tasks(&mut self, after: Option<&TaskId>, limit: u32) -> StoreResult<Vec<Vec<u8>>> {
        self.0.all(
            "SELECT record FROM task WHERE record IS NOT NULL AND id > ? ORDER BY id LIMIT ?",
            vec![
                blob(after.map_or(&[], |id| id.as_bytes().as_slice())),
                SqlStorageValue::from(i64::from(limit)),
            ],
            |mut row| row.blob(),
        )
    }

    fn hpke_keys(&mut self) -> StoreResult<Vec<(u8, Vec<u8>)>> {
        self.0.all("SELECT id, record FROM hpke ORDER BY n", vec![], |mut row| {
            let id = u8::try_from(row.integer()?)
                .map_err(|_| StoreError("a stored key id is no byte".to_owned()))?;
            Ok((id, row.blob()?))
        })
    }

    fn insert_hpke_key(&mut self, id: u8, record: &[u8]) -> StoreResult<()> {
        self.0.run(
            "INSERT INTO hpke (id, record) VALUES (?, ?)",
            vec![SqlStorageValue::from(i32::from(id)), blob(record)],
        )
    }

    fn purge(&mut self, id: &TaskId) -> StoreResult<Option<Purge>> {
        self.0.first("SELECT v FROM purge WHERE task = ?", vec![blob(id.as_bytes())], |mut row| {
            row.packed()
        })
    }

    fn put_purge(&mut self, purge: &Purge) -> StoreResult<()> {
        let id = purge.objects.placement.task_id;
        self.0.run(
            "INSERT OR REPLACE INTO purge VALUES (?, ?, ?)",
            vec![blob(id.as_bytes()), time(purge.at), pack(purge)?],
        )
    }

    fn remove_purge(&mut self, id: &TaskId) -> StoreResult<()> {
        self.0.run("DELETE FROM purge WHERE task = ?", vec![blob(id.as_bytes())])
    }

    fn purges_due(&mut self, now: Time, limit: u32) -> StoreResult<Vec<Purge>> {
        self.0.all(
            "SELECT v FROM purge WHERE at <= ? ORDER BY at LIMIT ?",
            vec![time(now), SqlStorageValue::from(i64::from(limit))],
            |mut row| row.packed(),
        )
    }

    fn next_purge(&mut self) -> StoreResult<Option<Time>> {
        self.0.first("SELECT at FROM purge ORDER BY at LIMIT 1", vec![], |mut row| {
            row.array().map(|at| Time::from_seconds(u64::from_be_bytes(at)))
        })
    }
}

/// A time whose bytes sort as it does.
fn time(at: Time) -> SqlStorageValue {
    blob(&at.as_seconds().to_be_bytes())
}
