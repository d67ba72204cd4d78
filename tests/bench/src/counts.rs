//! Counts what the platform bills for a job: requests to objects, rows, reads of KV, bytes. Of the test Worker, which has a
//! meter. None of it depends on the clock, or on how well the Worker was optimized.

use std::fmt;

use dapctl::Failure;
use daphne_core::{
    store::placement::{Placement, StoreId},
    vdaf::VdafConfig,
    version::DapVersion,
};
use e2e::{Answer, Server};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    drive::drive,
    jobs::{Batch, Made, Party, new_task},
    kinds::Kind,
    meter::{Billed, State},
};

/// Jobs that are counted, unless it is said.
pub const JOBS: usize = 3;

/// What to count.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Versions.
    pub versions: Vec<DapVersion>,
    /// VDAFs.
    pub kinds: Vec<Kind>,
    /// Reports in a job.
    pub job_size: usize,
    /// Jobs that are counted, beside the first; at least 1.
    pub jobs: usize,
}

/// What the platform bills for something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operations {
    /// Requests to Durable Objects, of all classes.
    pub do_requests: u64,
    /// The same, by class.
    pub do_requests_to: Requests,
    /// Alarms that went off.
    pub alarms: u64,
    /// Alarms that were set. Each bills a row written, beyond `rows_written`.
    pub alarms_set: u64,
    /// Rows that statements read.
    pub rows_read: u64,
    /// Rows that statements wrote.
    pub rows_written: u64,
    /// Entries of KV that were read.
    pub kv_reads: u64,
    /// Entries of KV that were written or deleted.
    pub kv_writes: u64,
}

/// Requests to the objects of each class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requests {
    /// `AggregateStore`: ids, verdicts and sums.
    pub aggregate_store: u64,
    /// `TaskLedger`: collections.
    pub task_ledger: u64,
    /// `JobStore`: ids of jobs, and jobs between their rounds.
    pub job_store: u64,
    /// `ConfigStore`: tasks and keys.
    pub config_store: u64,
}

/// What one version and VDAF costs. All requests of a job are counted, both of them of a VDAF of two rounds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Counts {
    /// The version.
    pub version: DapVersion,
    /// The VDAF.
    pub vdaf: Kind,
    /// Its parameters.
    pub parameters: VdafConfig,
    /// Reports in a job, all of one batch bucket.
    pub job_size: usize,
    /// Jobs counted beside the first.
    pub jobs: usize,
    /// The first job of the task, which nobody has in memory, and whose objects are new.
    pub first_job: Operations,
    /// Each later job: the median of each number.
    pub job: Operations,
    /// Collecting the batch.
    pub collection: Operations,
    /// Bytes of the body of a job's first request.
    pub request_bytes_per_report: f64,
    /// Bytes by which the `AggregateStore`'s database grows, in whole pages of 4 KiB.
    pub stored_bytes_per_report: f64,
    /// All memory of the isolate's module after these jobs: Worker, objects and what the allocator keeps.
    pub wasm_memory_bytes: u64,
}

/// Everything that was counted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Counted {
    /// By version and VDAF.
    pub counts: Vec<Counts>,
}

/// What the Worker's meter says, which only ever grows.
#[derive(Deserialize)]
struct Meter {
    #[serde(flatten)]
    billed: Billed,
    requests_to: Requests,
    kv_reads: u64,
    kv_writes: u64,
}

/// Counts, on a server of its own. `said` is told what is being counted.
///
/// # Errors
/// [`Failure`]: the Worker refused something.
pub fn run(plan: &Plan, said: impl Fn(&str)) -> Result<Counted, Failure> {
    let server = Server::start();
    let mut counts = Vec::new();
    for version in &plan.versions {
        for kind in &plan.kinds {
            said(&format!("counting {} {}", version.tag(), kind.name()));
            counts.push(count(&server, *version, *kind, plan)?);
        }
    }
    Ok(Counted { counts })
}

fn count(server: &Server, version: DapVersion, kind: Kind, plan: &Plan) -> Result<Counts, Failure> {
    let file = new_task(version, kind.config(), server.client().base())?;
    server.admin().create_task(&file.spec)?;
    let placement = file.task()?.parameters.placement();
    let party = Party::new(file, server.hpke_config().clone())?;
    let mut batch = party.batch(0)?;
    let jobs = party.make(&batch, plan.jobs + 1, plan.job_size)?;
    let request_bytes = jobs[0].body.len();
    let (mut each, mut stored) = (Vec::new(), Vec::new());
    for job in jobs {
        let before = read(server)?;
        send(&party, &mut batch, job, plan.job_size)?;
        each.push(read(server)?.since(&before));
        stored.push(state(server, &placement, &batch)?);
    }
    let before = read(server)?;
    party.collect(&batch)?;
    let collection = read(server)?.since(&before);
    let first_job = each.remove(0);
    let (first, last) = (&stored[0], &stored[stored.len() - 1]);
    let grown = last.database_bytes.saturating_sub(first.database_bytes);
    Ok(Counts {
        version,
        vdaf: kind,
        parameters: kind.config(),
        job_size: plan.job_size,
        jobs: plan.jobs,
        first_job,
        job: Operations::median(&each),
        collection,
        request_bytes_per_report: request_bytes as f64 / plan.job_size as f64,
        stored_bytes_per_report: grown as f64 / (plan.jobs * plan.job_size) as f64,
        wasm_memory_bytes: last.wasm_bytes,
    })
}

fn send(party: &Party, batch: &mut Batch, job: Made, size: usize) -> Result<(), Failure> {
    drive(party, batch, vec![job], (size, 1), &[]).map(drop)
}

fn read(server: &Server) -> Result<Meter, Failure> {
    parse(&server.client().get("/internal/test/meter"))
}

fn state(server: &Server, placement: &Placement, batch: &Batch) -> Result<State, Failure> {
    let store = StoreId { group: placement.group(&batch.bucket()), shard: 0 };
    let path = format!("/internal/test/probe?object={}&what=state", placement.store_name(&store));
    parse(&server.client().ask("POST", &path, &[], Some(&[])))
}

fn parse<A: DeserializeOwned>(answer: &Answer) -> Result<A, Failure> {
    serde_json::from_slice(&answer.body).map_err(|e| {
        let what = "a route for tests does not answer as it should, is the Worker an old one?";
        Failure::Wrong(format!("{what} {} {}: {e}", answer.status, answer.text()))
    })
}

impl Meter {
    fn since(&self, before: &Self) -> Operations {
        let (now, then) = (self.requests_to, before.requests_to);
        let billed = self.billed - before.billed;
        Operations {
            do_requests: billed.requests,
            do_requests_to: Requests {
                aggregate_store: now.aggregate_store - then.aggregate_store,
                task_ledger: now.task_ledger - then.task_ledger,
                job_store: now.job_store - then.job_store,
                config_store: now.config_store - then.config_store,
            },
            alarms: billed.alarms,
            alarms_set: billed.alarms_set,
            rows_read: billed.rows_read,
            rows_written: billed.rows_written,
            kv_reads: self.kv_reads - before.kv_reads,
            kv_writes: self.kv_writes - before.kv_writes,
        }
    }
}

impl Operations {
    /// The median of each number: what an alarm does in between is in no more than one of several jobs.
    fn median(each: &[Self]) -> Self {
        let of = |number: fn(&Self) -> u64| {
            let mut numbers: Vec<u64> = each.iter().map(number).collect();
            numbers.sort_unstable();
            numbers.get(numbers.len().saturating_sub(1) / 2).copied().unwrap_or_default()
        };
        Self {
            do_requests: of(|o| o.do_requests),
            do_requests_to: Requests {
                aggregate_store: of(|o| o.do_requests_to.aggregate_store),
                task_ledger: of(|o| o.do_requests_to.task_ledger),
                job_store: of(|o| o.do_requests_to.job_store),
                config_store: of(|o| o.do_requests_to.config_store),
            },
            alarms: of(|o| o.alarms),
            alarms_set: of(|o| o.alarms_set),
            rows_read: of(|o| o.rows_read),
            rows_written: of(|o| o.rows_written),
            kv_reads: of(|o| o.kv_reads),
            kv_writes: of(|o| o.kv_writes),
        }
    }
}

impl Counted {
    /// Of a version and VDAF.
    pub fn of(&self, version: DapVersion, kind: Kind) -> Option<&Counts> {
        self.counts.iter().find(|c| c.version == version && c.vdaf == kind)
    }
}

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = self.counts.first().map_or(0, |c| c.job_size);
        writeln!(
            f,
            "What the platform bills for a job of {size} reports (the first of a task; collecting the batch):\n"
        )?;
        writeln!(
            f,
            "{:<7}{:<26}{:>15}{:>15}{:>15}{:>11}{:>10}{:>10}{:>10}",
            "", "", "object", "rows", "rows", "KV", "request", "stored", "wasm"
        )?;
        writeln!(
            f,
            "{:<7}{:<26}{:>15}{:>15}{:>15}{:>11}{:>10}{:>10}{:>10}",
            "", "", "requests", "read", "written", "reads", "B/report", "B/report", "MiB"
        )?;
        for c in &self.counts {
            let all = |number: fn(&Operations) -> u64| {
                let (job, first, end) =
                    (number(&c.job), number(&c.first_job), number(&c.collection));
                format!("{job} ({first}; {end})")
            };
            writeln!(
                f,
                "{:<7}{:<26}{:>15}{:>15}{:>15}{:>11}{:>10.0}{:>10.1}{:>10.1}",
                c.version.tag(),
                c.vdaf.name(),
                all(|o| o.do_requests),
                all(|o| o.rows_read),
                all(|o| o.rows_written + o.alarms_set),
                all(|o| o.kv_reads),
                c.request_bytes_per_report,
                c.stored_bytes_per_report,
                c.wasm_memory_bytes as f64 / f64::from(1 << 20),
            )?;
        }
        writeln!(f, "\nRows written include one for each alarm that was set.")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_meter_says_is_a_difference() {
        let meter = |n: u64| -> Meter {
            let said = serde_json::json!({
                "requests": n,
                "requests_to": { "aggregate_store": n, "task_ledger": 0, "job_store": 0, "config_store": 9 },
                "alarms": 1, "alarms_set": 2 * n, "rows_read": 3 * n, "rows_written": 4 * n,
                "kv_reads": 5 * n, "kv_writes": 6 * n, "agreements": 7,
            });
            serde_json::from_value(said).expect("a meter")
        };
        let expected = Operations {
            do_requests: 10,
            do_requests_to: Requests { aggregate_store: 10, ..Requests::default() },
            alarms_set: 20,
            rows_read: 30,
            rows_written: 40,
            kv_reads: 50,
            kv_writes: 60,
            ..Operations::default()
        };
        assert_eq!(meter(11).since(&meter(1)), expected);
    }

    #[test]
    fn what_an_alarm_does_in_between_is_in_no_median() {
        let job = Operations { do_requests: 2, rows_written: 3, ..Operations::default() };
        let disturbed = Operations { alarms: 1, rows_written: 9, ..job };
        assert_eq!(Operations::median(&[job, disturbed, job]), job);
        assert_eq!(Operations::median(&[]), Operations::default());
    }
}
