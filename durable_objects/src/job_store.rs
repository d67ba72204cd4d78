//! [`JobStore`]: binds DAP-09 job ids to bodies, for tasks with time groups. One table, one row per job.

use daphne_core::{
    ids::AggregationJobId,
    store::{JobTables, StoreResult, job_store, message::RequestDigest},
};
use worker::{DurableObject, Env, Request, Response, Result, State, durable_object};

use crate::{
    exchange,
    sql::{Sql, SqlDatabase, Tables, blob},
};

/// The class.
#[durable_object(fetch)]
pub struct JobStore {
    database: SqlDatabase<JobSql>,
}

impl std::panic::RefUnwindSafe for JobStore {}

impl DurableObject for JobStore {
    fn new(state: State, _env: Env) -> Self {
        Self { database: SqlDatabase::new(&state) }
    }

    async fn fetch(&self, request: Request) -> Result<Response> {
        let request = exchange::read(request).await;
        exchange::answer(request.and_then(|r| job_store::handle(&self.database, r)))
    }
}

struct JobSql(Sql);

impl Tables for JobSql {
    const SCHEMA: &'static [&'static str] =
        &["CREATE TABLE IF NOT EXISTS claim (job BLOB PRIMARY KEY, digest BLOB) WITHOUT ROWID"];

    fn new(sql: Sql) -> Self {
        Self(sql)
    }
}

impl JobTables for JobSql {
    fn claim(&mut self, job: &AggregationJobId) -> StoreResult<Option<RequestDigest>> {
        self.0.first(
            "SELECT digest FROM claim WHERE job = ?",
            vec![blob(job.as_bytes())],
            |mut row| row.array(),
        )
    }

    fn put_claim(&mut self, job: &AggregationJobId, digest: &RequestDigest) -> StoreResult<()> {
        self.0.run("INSERT INTO claim VALUES (?, ?)", vec![blob(job.as_bytes()), blob(digest)])
    }
}
