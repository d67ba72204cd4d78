//! [`JobStore`]: binds DAP-09 job ids to bodies, for tasks with time groups. One row per job, in a table `claim_E` of its
//! epoch, which is dropped whole; `epoch` has a row for each of those.

use daphne_core::{
    ids::AggregationJobId,
    store::{Claim, JobTables, StoreResult, job_store, message::JobStoreRequest},
    time::Time,
};
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
pub struct JobStore {
    database: SqlDatabase<JobSql>,
    alarm: Alarm,
}

impl std::panic::RefUnwindSafe for JobStore {}

impl DurableObject for JobStore {
    fn new(state: State, _env: Env) -> Self {
        Self { database: SqlDatabase::new(&state), alarm: Alarm::new(state) }
    }

    async fn fetch(&self, request: Request) -> Result<Response> {
        let handled = match exchange::read::<JobStoreRequest>(request).await {
            Ok(request) => job_store::handle(&self.database, request, now()),
            Err(error) => Err(error),
        };
        exchange::answer(match handled {
            Ok(handled) => self
                .alarm
                .follow(handled.wake, handled.erase, || self.database.erased())
                .await
                .map(|()| handled.response),
            Err(error) => Err(error),
        })
    }

    async fn alarm(&self) -> Result<Response> {
        self.alarm.rang();
        let done = match job_store::alarm(&self.database, now()) {
            // Without a claim left there is nothing that a late message could meet.
            Ok(wake) => self.alarm.follow(wake, wake.is_none(), || self.database.erased()).await,
            Err(error) => Err(error),
        };
        done.map_err(|e| worker::Error::RustError(e.to_string()))?;
        Response::empty()
    }
}

struct JobSql(Sql);

impl Tables for JobSql {
    const SCHEMA: &'static [&'static str] =
        &["CREATE TABLE IF NOT EXISTS epoch (n INTEGER PRIMARY KEY, forget_at BLOB)"];

    fn new(sql: Sql) -> Self {
        Self(sql)
    }
}

impl JobTables for JobSql {
    fn epochs(&mut self) -> StoreResult<Vec<(u32, Time)>> {
        self.0.all("SELECT n, forget_at FROM epoch ORDER BY n", vec![], |mut row| {
            let n = row.integer()?;
            let forget_at = Time::from_seconds(u64::from_be_bytes(row.array()?));
            Ok((u32::try_from(n).unwrap_or(u32::MAX), forget_at))
        })
    }

    fn create_epoch(&mut self, epoch: u32, forget_at: Time) -> StoreResult<()> {
        self.0.run(
            &format!("CREATE TABLE claim_{epoch} (job BLOB PRIMARY KEY, digest BLOB, unasked BLOB) WITHOUT ROWID"),
            vec![],
        )?;
        self.0.run(
            "INSERT INTO epoch VALUES (?, ?)",
            vec![
                SqlStorageValue::from(i64::from(epoch)),
                blob(&forget_at.as_seconds().to_be_bytes()),
            ],
        )
    }

    fn drop_epoch(&mut self, epoch: u32) -> StoreResult<()> {
        self.0.run(&format!("DROP TABLE claim_{epoch}"), vec![])?;
        self.0.run("DELETE FROM epoch WHERE n = ?", vec![SqlStorageValue::from(i64::from(epoch))])
    }

    fn claim(&mut self, epoch: u32, job: &AggregationJobId) -> StoreResult<Option<Claim>> {
        self.0.first(
            &format!("SELECT digest, unasked FROM claim_{epoch} WHERE job = ?"),
            vec![blob(job.as_bytes())],
            |mut row| Ok(Claim { digest: row.array()?, unasked: row.packed()? }),
        )
    }

    fn put_claim(&mut self, epoch: u32, job: &AggregationJobId, claim: &Claim) -> StoreResult<()> {
        self.0.run(
            &format!("INSERT INTO claim_{epoch} VALUES (?, ?, ?)"),
            vec![blob(job.as_bytes()), blob(&claim.digest), pack(&claim.unasked)?],
        )
    }
}
