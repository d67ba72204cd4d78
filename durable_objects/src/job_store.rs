//! [`JobStore`]: binds DAP-09 job ids to bodies, for tasks with time groups, and keeps jobs of several rounds between
//! these. Tables of an epoch E are dropped whole; `epoch` has a row for each:
//! - `claim_E`: one row per job of one round.
//! - `stepped_E`: one row per job of several rounds. What is large comes after what is always read.
//! - `chunk_E`: what of it would make the row exceed SQLite's 2 MB.

use daphne_core::{
    ids::AggregationJobId,
    store::{
        Claim, JobTables, SteppedJob, SteppedJobBody, StoreError, StoreResult, job_store,
        message::JobStoreRequest,
    },
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

/// Bytes of a state or an answer in the row itself. Reports that wait take less than what two of them leave.
const IN_ROW_MAX: usize = 700_000;
const CHUNK: usize = 1_500_000;

/// What a chunk is of.
#[derive(Clone, Copy)]
enum Part {
    State = 0,
    Answer = 1,
}

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
            &format!("CREATE TABLE stepped_{epoch} (job BLOB PRIMARY KEY, head BLOB, answer BLOB, state BLOB) WITHOUT ROWID"),
            vec![],
        )?;
        self.0.run(
            &format!("CREATE TABLE chunk_{epoch} (job BLOB, part INTEGER, n INTEGER, bytes BLOB, PRIMARY KEY (job, part, n)) WITHOUT ROWID"),
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
        for table in ["claim", "stepped", "chunk"] {
            self.0.run(&format!("DROP TABLE {table}_{epoch}"), vec![])?;
        }
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
    fn stepped(&mut self, epoch: u32, job: &AggregationJobId) -> StoreResult<Option<SteppedJob>> {
        self.0.first(
            &format!("SELECT head FROM stepped_{epoch} WHERE job = ?"),
            vec![blob(job.as_bytes())],
            |mut row| row.packed(),
        )
    }

    fn stepped_state(&mut self, epoch: u32, job: &AggregationJobId) -> StoreResult<Vec<u8>> {
        self.part(epoch, job, Part::State)
    }

    fn stepped_answer(&mut self, epoch: u32, job: &AggregationJobId) -> StoreResult<Vec<u8>> {
        self.part(epoch, job, Part::Answer)
    }

    fn put_stepped(
        &mut self,
        epoch: u32,
        job: &AggregationJobId,
        stepped: &SteppedJob,
        body: Option<SteppedJobBody<'_>>,
    ) -> StoreResult<()> {
        let Some(SteppedJobBody { state, answer }) = body else {
            return self.0.run(
                &format!("UPDATE stepped_{epoch} SET head = ? WHERE job = ?"),
                vec![pack(stepped)?, blob(job.as_bytes())],
            );
        };
        self.0
            .run(&format!("DELETE FROM chunk_{epoch} WHERE job = ?"), vec![blob(job.as_bytes())])?;
        let answer = self.put_part(epoch, job, Part::Answer, answer)?;
        let state = self.put_part(epoch, job, Part::State, state)?;
        self.0.run(
            &format!("INSERT OR REPLACE INTO stepped_{epoch} VALUES (?, ?, ?, ?)"),
            vec![blob(job.as_bytes()), pack(stepped)?, answer, state],
        )
    }
}

impl JobSql {
    /// Writes what does not fit into the row, and returns what does.
    fn put_part(
        &mut self,
        epoch: u32,
        job: &AggregationJobId,
        part: Part,
        bytes: &[u8],
    ) -> StoreResult<SqlStorageValue> {
        if bytes.len() <= IN_ROW_MAX {
            return Ok(blob(bytes));
        }
        let statement = format!("INSERT INTO chunk_{epoch} VALUES (?, ?, ?, ?)");
        for (n, chunk) in (0_i32..).zip(bytes.chunks(CHUNK)) {
            let part = SqlStorageValue::from(part as i32);
            let key = vec![blob(job.as_bytes()), part, SqlStorageValue::from(n), blob(chunk)];
            self.0.run(&statement, key)?;
        }
        Ok(blob(&[]))
    }

    fn part(&mut self, epoch: u32, job: &AggregationJobId, part: Part) -> StoreResult<Vec<u8>> {
        let column = match part {
            Part::State => "state",
            Part::Answer => "answer",
        };
        let key = || blob(job.as_bytes());
        let statement = format!("SELECT {column} FROM stepped_{epoch} WHERE job = ?");
        let in_row = self.0.first(&statement, vec![key()], |mut row| row.blob())?;
        let mut bytes = in_row.ok_or_else(|| StoreError("a job is gone".to_owned()))?;
        self.0.each(
            &format!("SELECT bytes FROM chunk_{epoch} WHERE job = ? AND part = ? ORDER BY n"),
            vec![key(), SqlStorageValue::from(part as i32)],
            |mut row| {
                bytes.extend(row.blob()?);
                Ok(())
            },
        )?;
        Ok(bytes)
    }
}
