//! [`ConfigStore`]: the truth about tasks and HPKE keys. One row each; secrets in them are sealed.

use daphne_core::{
    ids::TaskId,
    store::{
        StoreError, StoreResult,
        config_store::{self, ConfigTables, TaskEntry},
    },
};
use worker::{
    DurableObject, Env, Request, Response, Result, SqlStorageValue, State, durable_object,
};

use crate::{
    exchange,
    sql::{Sql, SqlDatabase, Tables, blob},
};

/// The class.
#[durable_object(fetch)]
pub struct ConfigStore {
    database: SqlDatabase<ConfigSql>,
}

impl std::panic::RefUnwindSafe for ConfigStore {}

impl DurableObject for ConfigStore {
    fn new(state: State, _env: Env) -> Self {
        Self { database: SqlDatabase::new(&state) }
    }

    async fn fetch(&self, request: Request) -> Result<Response> {
        let request = exchange::read(request).await;
        exchange::answer(request.and_then(|r| config_store::handle(&self.database, r)))
    }
}

struct ConfigSql(Sql);

impl Tables for ConfigSql {
    const SCHEMA: &'static [&'static str] = &[
        // A NULL record is a deleted task.
        "CREATE TABLE IF NOT EXISTS task (id BLOB PRIMARY KEY, identity BLOB, record BLOB) WITHOUT ROWID",
        "CREATE TABLE IF NOT EXISTS hpke (n INTEGER PRIMARY KEY, id INTEGER, record BLOB)",
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
}
