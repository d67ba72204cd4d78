//! [`JobStore`]: binds job ids to bodies, for tasks with time groups, keeps jobs of several rounds between these, and works
//! on jobs that are answered later. Tables of an epoch E are dropped whole; `epoch` has a row for each:
//! - `claim_E`: one row per job of one round.
//! - `stepped_E`: one row per job of several rounds. What is large comes after what is always read.
//! - `chunk_E`: what of it would make the row exceed SQLite's 2 MB.
//!
//! - `deferred`: one row per job that is answered later, of any epoch. `deferred_part`: its request and the answers to its
//!   pieces, in chunks. There are few, so their rows are deleted one by one.

mod work;

use daphne_core::{
    ids::AggregationJobId,
    store::{
        Claim, DeferredPart, JobTables, SteppedJob, SteppedJobBody, StoreError, StoreResult,
        job_store::{self, deferred::DeferredJob},
        message::JobStoreRequest,
    },
    time::Time,
};
use worker::{
    DurableObject, Env, Request, Response, Result, SqlStorageValue, State, durable_object,
};

use self::work::Workshop;
use crate::{
    alarm::{Alarm, now},
    exchange,
    sql::{Sql, SqlDatabase, Tables, blob, pack},
};

/// Bytes of a state or an answer in the row itself. Reports that wait take less than what two of them leave.
const IN_ROW_MAX: usize = 700_000;
const CHUNK: usize = 1_500_000;
/// Numbers beyond 2^53 are rounded on their way.
const DUE_MAX_S: i64 = 1 << 53;

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
    workshop: Workshop,
}

impl std::panic::RefUnwindSafe for JobStore {}

impl DurableObject for JobStore {
    fn new(state: State, env: Env) -> Self {
        Self {
            database: SqlDatabase::new(&state),
            alarm: Alarm::new(state),
            workshop: Workshop::new(env),
        }
    }

    async fn fetch(&self, request: Request) -> Result<Response> {
        #[cfg(feature = "test-routes")]
        crate::meter::request(crate::meter::Class::JobStore);
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
        // An error makes the platform run it again.
        self.wake_up().await.map_err(|e| worker::Error::RustError(e.to_string()))?;
        Response::empty()
    }
}

impl JobStore {
    /// Forgets what is too old, and does the next thing there is to do. One at a time: nobody is answered meanwhile.
    async fn wake_up(&self) -> StoreResult<()> {
        if let Some(work) = job_store::take(&self.database, now())? {
            // Should this be the end of it, it is tried again then.
            self.rest().await?;
            let outcome = self.workshop.work(&work).await;
            if let Some(ended) = job_store::end(&self.database, &work, outcome, now())? {
                work::log(&work, &ended);
            }
        }
        self.rest().await
    }

    async fn rest(&self) -> StoreResult<()> {
        let wake = job_store::alarm(&self.database, now())?;
        // Without a claim left there is nothing that a late message could meet.
        self.alarm.follow(wake, wake.is_none(), || self.database.erased()).await
    }
}

struct JobSql(Sql);

impl Tables for JobSql {
    const SCHEMA: &'static [&'static str] = &[
        "CREATE TABLE IF NOT EXISTS epoch (n INTEGER PRIMARY KEY, forget_at BLOB)",
        // `due` in seconds: small enough for an integer, and what is later is never.
        "CREATE TABLE IF NOT EXISTS deferred (job BLOB PRIMARY KEY, epoch INTEGER, due INTEGER, head BLOB) WITHOUT ROWID",
        "CREATE INDEX IF NOT EXISTS deferred_due ON deferred (due) WHERE due IS NOT NULL",
        "CREATE TABLE IF NOT EXISTS deferred_part (job BLOB, part INTEGER, n INTEGER, bytes BLOB, PRIMARY KEY (job, part, n)) WITHOUT ROWID",
    ];

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
        let ended = || vec![SqlStorageValue::from(i64::from(epoch))];
        self.0.run(
            "DELETE FROM deferred_part WHERE job IN (SELECT job FROM deferred WHERE epoch = ?)",
            ended(),
        )?;
        self.0.run("DELETE FROM deferred WHERE epoch = ?", ended())?;
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

    fn deferred(&mut self, job: &AggregationJobId) -> StoreResult<Option<DeferredJob>> {
        let key = vec![blob(job.as_bytes())];
        self.0.first("SELECT head FROM deferred WHERE job = ?", key, |mut row| row.packed())
    }

    fn put_deferred(&mut self, job: &AggregationJobId, deferred: &DeferredJob) -> StoreResult<()> {
        let due = deferred.due.map_or(SqlStorageValue::Null, |due| {
            SqlStorageValue::from(
                i64::try_from(due.as_seconds()).unwrap_or(i64::MAX).min(DUE_MAX_S),
            )
        });
        self.0.run(
            "INSERT OR REPLACE INTO deferred VALUES (?, ?, ?, ?)",
            vec![
                blob(job.as_bytes()),
                SqlStorageValue::from(i64::from(deferred.epoch)),
                due,
                pack(deferred)?,
            ],
        )
    }

    fn deferred_part(
        &mut self,
        job: &AggregationJobId,
        part: DeferredPart,
    ) -> StoreResult<Vec<u8>> {
        let mut bytes = Vec::new();
        self.0.each(
            "SELECT bytes FROM deferred_part WHERE job = ? AND part = ? ORDER BY n",
            vec![blob(job.as_bytes()), part_number(part)],
            |mut row| {
                bytes.extend(row.blob()?);
                Ok(())
            },
        )?;
        Ok(bytes)
    }

    fn put_deferred_part(
        &mut self,
        job: &AggregationJobId,
        part: DeferredPart,
        bytes: &[u8],
    ) -> StoreResult<()> {
        let key = || vec![blob(job.as_bytes()), part_number(part)];
        self.0.run("DELETE FROM deferred_part WHERE job = ? AND part = ?", key())?;
        for (n, chunk) in (0_i32..).zip(bytes.chunks(CHUNK)) {
            let row = [key(), vec![SqlStorageValue::from(n), blob(chunk)]].concat();
            self.0.run("INSERT INTO deferred_part VALUES (?, ?, ?, ?)", row)?;
        }
        Ok(())
    }

    fn next_deferred(&mut self) -> StoreResult<Option<(AggregationJobId, Time)>> {
        self.0.first(
            "SELECT job, due FROM deferred WHERE due IS NOT NULL ORDER BY due LIMIT 1",
            vec![],
            |mut row| {
                let job = row.array().map(AggregationJobId::new)?;
                let due = u64::try_from(row.integer()?).unwrap_or(0);
                Ok((job, Time::from_seconds(due)))
            },
        )
    }
}

/// The number of a part in the table.
fn part_number(part: DeferredPart) -> SqlStorageValue {
    SqlStorageValue::from(match part {
        DeferredPart::Request => -1,
        DeferredPart::Piece(n) => i64::from(n),
    })
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
