//! From what was counted and measured to a month's bill. No input or output: a function of numbers.

use serde::Serialize;

use super::prices::{Prices, Tariff};

/// Weeks in a month, on average over the years.
const WEEKS_PER_MONTH: f64 = 365.25 / 12.0 / 7.0;
const DAYS_PER_MONTH: f64 = 365.25 / 12.0;
const SECONDS_PER_MONTH: f64 = DAYS_PER_MONTH * 86_400.0;
const BYTES_PER_GB: f64 = 1e9;

/// Uploads that a leader writes as one row. Clients wait for it, so it cannot wait for many.
const UPLOADS_PER_ROW: f64 = 20.0;
/// Uploads that one object of a leader takes in a second, at the busiest hour.
const UPLOADS_PER_OBJECT_S: f64 = 200.0;
/// The busiest hour to the mean.
const PEAK: f64 = 3.0;
/// CPU of answering with our HPKE configurations, in microseconds.
const FETCH_CPU_US: f64 = 300.0;
/// CPU of taking an upload in, in microseconds: decoding, opening the leader's share's header, answering.
const UPLOAD_CPU_US: f64 = 150.0;

/// Who is billed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// The aggregator that is sent aggregation jobs.
    #[default]
    Helper,
    /// The aggregator that takes uploads and makes the jobs, built in the same way.
    Leader,
}

/// What there is to do in a month.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Workload {
    /// Who is billed.
    pub role: Role,
    /// Reports that arrive in a week.
    pub reports_per_week: f64,
    /// Reports in an aggregation job; the leader's choice.
    pub job_size: f64,
    /// Batch buckets of a day; each is collected once.
    pub buckets_per_day: f64,
    /// Objects that share a day's reports.
    pub shards: f64,
    /// Days for which ids are kept against replays.
    pub retention_days: f64,
    /// How long an object is busy with a request, in milliseconds.
    pub object_ms: f64,
    /// The share of log lines that is kept, `0..=1`.
    pub log_sampling: f64,
    /// Whether each client fetches our HPKE configuration anew for each report.
    pub keys_fetched_each_time: bool,
}

/// What was counted and measured; jobs are over one object that owns reports.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Measured {
    /// CPU of a report in a job of this size, in microseconds: everything in the runtime, objects included.
    pub cpu_us_per_report: f64,
    /// Requests of the leader for a job.
    pub worker_requests_per_job: f64,
    /// Requests to objects in a job.
    pub object_requests_per_job: f64,
    /// Rows read in a job, afterwards in the background included.
    pub rows_read_per_job: f64,
    /// Rows written in a job, afterwards in the background and for alarms included.
    pub rows_written_per_job: f64,
    /// Reads of KV in a job that meets an isolate which knows nothing.
    pub kv_reads_per_cold_job: f64,
    /// Bytes stored of a report.
    pub bytes_per_report: f64,
    /// Requests to objects when a batch bucket is collected.
    pub object_requests_per_collection: f64,
    /// Rows read when a batch bucket is collected.
    pub rows_read_per_collection: f64,
    /// Rows written when a batch bucket is collected.
    pub rows_written_per_collection: f64,
}

/// One line of the bill.
#[derive(Clone, Debug, Serialize)]
pub struct Item {
    /// What is billed.
    pub item: &'static str,
    /// How much of it in a month.
    pub quantity: f64,
    /// How much of that the plan includes.
    pub included: f64,
    /// What the rest costs.
    pub usd: f64,
    /// Where the quantity comes from.
    pub why: String,
}

/// A month's bill.
#[derive(Clone, Debug, Serialize)]
pub struct Bill {
    /// Reports in the month.
    pub reports: f64,
    /// Jobs in the month.
    pub jobs: f64,
    /// Its lines, the plan first.
    pub items: Vec<Item>,
    /// Their sum.
    pub total_usd: f64,
}

impl Bill {
    /// The bill for a workload.
    pub fn of(workload: &Workload, measured: &Measured, prices: &Prices) -> Self {
        let w = workload;
        let reports = w.reports_per_week * WEEKS_PER_MONTH;
        let jobs = reports / w.job_size;
        let collections = w.buckets_per_day * DAYS_PER_MONTH;
        let stores = jobs * (w.shards - 1.0);
        let uploads = if w.role == Role::Leader { reports } else { 0.0 };
        let fetches = if w.keys_fetched_each_time { reports } else { 0.0 };
        // A leader drives jobs from objects, and what it asks the helper is no request to it.
        let from_outside =
            if w.role == Role::Leader { 0.0 } else { jobs * measured.worker_requests_per_job };

        let worker_requests = from_outside + collections + uploads + fetches;
        let cpu_us =
            reports * measured.cpu_us_per_report + uploads * UPLOAD_CPU_US + fetches * FETCH_CPU_US;
        let object_requests = jobs * measured.object_requests_per_job
            + stores
            + collections * w.shards * measured.object_requests_per_collection
            + uploads;
        let rows_read = jobs * measured.rows_read_per_job
            + collections * w.shards * measured.rows_read_per_collection
            + uploads / UPLOADS_PER_ROW;
        let rows_written = jobs * measured.rows_written_per_job
            + stores
            + collections * w.shards * measured.rows_written_per_collection
            // Written once, removed once; and a row for the job that they become part of.
            + uploads / UPLOADS_PER_ROW * 2.0
            + if w.role == Role::Leader { jobs } else { 0.0 };
        // Uploads come one by one, so at any time an object of a leader is waiting for some.
        let upload_objects = (uploads / SECONDS_PER_MONTH * PEAK / UPLOADS_PER_OBJECT_S).ceil();
        let gb_seconds = ((object_requests - uploads) * w.object_ms / 1_000.0
            + upload_objects * SECONDS_PER_MONTH)
            * prices.object_memory_gb;
        let stored = reports * w.retention_days / DAYS_PER_MONTH * measured.bytes_per_report;
        // One line for the Worker's request and for each of an object's, and the Worker's own.
        let events = (2.0 * worker_requests + object_requests) * w.log_sampling;

        let mut items = vec![Item {
            item: "plan",
            quantity: 1.0,
            included: 0.0,
            usd: prices.plan_per_month,
            why: "Workers Paid".to_owned(),
        }];
        let mut add = |item, quantity: f64, tariff: &Tariff, why: String| {
            let usd = tariff.bill(quantity);
            items.push(Item { item, quantity, included: tariff.included, usd, why });
        };
        let calls = short(measured.worker_requests_per_job);
        let leads = w.role == Role::Leader;
        add(
            "Worker requests",
            worker_requests,
            &prices.worker_requests,
            match (leads, w.keys_fetched_each_time) {
                (true, _) => "1 an upload, 1 a collection".to_owned(),
                (false, true) => {
                    format!("{calls} a job, 1 a collection, 1 a report for our HPKE keys")
                }
                (false, false) => format!("{calls} a job, 1 a collection"),
            },
        );
        add(
            "CPU, ms",
            cpu_us / 1_000.0,
            &prices.worker_cpu_ms,
            format!(
                "{:.0} µs a report{}",
                measured.cpu_us_per_report,
                if leads {
                    format!("; {UPLOAD_CPU_US:.0} µs an upload, assumed")
                } else {
                    String::new()
                }
            ),
        );
        add(
            "requests to objects",
            object_requests,
            &prices.object_requests,
            format!(
                "{} a job, counted{}",
                short(measured.object_requests_per_job + w.shards - 1.0),
                if leads { "; 1 an upload" } else { "" }
            ),
        );
        add(
            "objects' time, GB-s",
            gb_seconds,
            &prices.object_gb_seconds,
            format!(
                "{} ms a request, assumed{}",
                short(w.object_ms),
                if leads {
                    format!("; {upload_objects} objects always busy with uploads")
                } else {
                    String::new()
                }
            ),
        );
        add(
            "rows read",
            rows_read,
            &prices.rows_read,
            format!(
                "{} a job, counted, and as in an object of ten million ids",
                short(measured.rows_read_per_job)
            ),
        );
        add(
            "rows written",
            rows_written,
            &prices.rows_written,
            format!(
                "{} a job, counted, with one in the background{}",
                short(measured.rows_written_per_job + w.shards - 1.0),
                if leads {
                    format!("; 2 for {UPLOADS_PER_ROW} uploads, assumed")
                } else {
                    String::new()
                }
            ),
        );
        add(
            "storage, GB",
            stored / BYTES_PER_GB,
            &prices.object_storage_gb,
            format!(
                "{:.1} bytes a report, measured, with 8 in the index, for {} days",
                measured.bytes_per_report,
                short(w.retention_days)
            ),
        );
        add(
            "reads of KV",
            jobs * measured.kv_reads_per_cold_job,
            &prices.kv_reads,
            format!(
                "{} a job, as if each met a new isolate",
                short(measured.kv_reads_per_cold_job)
            ),
        );
        add(
            "log lines",
            events,
            &prices.log_events,
            format!("{} of them: 2 a request, 1 a request to an object", short(w.log_sampling)),
        );
        let total_usd = items.iter().map(|item| item.usd).sum();
        Self { reports, jobs, items, total_usd }
    }
}

/// A number without needless digits.
pub fn short(number: f64) -> String {
    let text = format!("{number:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORKLOAD: Workload = Workload {
        role: Role::Helper,
        reports_per_week: 100e6,
        job_size: 500.0,
        buckets_per_day: 24.0,
        shards: 1.0,
        retention_days: 15.0,
        object_ms: 30.0,
        log_sampling: 0.1,
        keys_fetched_each_time: false,
    };
    const MEASURED: Measured = Measured {
        cpu_us_per_report: 1_000.0,
        worker_requests_per_job: 1.0,
        object_requests_per_job: 2.0,
        rows_read_per_job: 10.0,
        rows_written_per_job: 2.0,
        kv_reads_per_cold_job: 3.0,
        bytes_per_report: 33.0,
        object_requests_per_collection: 3.0,
        rows_read_per_collection: 100.0,
        rows_written_per_collection: 5.0,
    };

    fn bill(workload: Workload, measured: Measured) -> Bill {
        Bill::of(&workload, &measured, &Prices::listed().expect("the list"))
    }

    fn usd(bill: &Bill, item: &str) -> f64 {
        bill.items.iter().find(|i| i.item == item).expect("such a line").usd
    }

    #[test]
    fn a_bill_is_what_one_computes_by_hand() {
        let bill = bill(WORKLOAD, MEASURED);
        // 434.8 million reports in 869,643 jobs.
        assert!((bill.reports / 1e6 - 434.82).abs() < 0.01, "{}", bill.reports);
        assert!((bill.jobs - 869_643.0).abs() < 1.0, "{}", bill.jobs);
        // 434.8 million ms, of which 30 are included.
        assert!((usd(&bill, "CPU, ms") - 8.096).abs() < 0.001);
        // 1.74 million requests, of which one is included.
        assert!((usd(&bill, "requests to objects") - 0.111).abs() < 0.001);
        // 434.8 million reports of 33 bytes for half a month, of which 5 GB are included.
        assert!((usd(&bill, "storage, GB") - 0.414).abs() < 0.001);
        assert_eq!(usd(&bill, "rows written"), 0.0);
        let sum: f64 = bill.items.iter().map(|i| i.usd).sum();
        assert!((bill.total_usd - sum).abs() < 1e-9);
        assert!((bill.total_usd - 13.62).abs() < 0.01, "{}", bill.total_usd);
    }

    #[test]
    fn small_jobs_cost_rows() {
        let small = bill(Workload { job_size: 10.0, ..WORKLOAD }, MEASURED);
        // 43.48 million jobs of 2 rows, of which 50 million are included.
        assert!((usd(&small, "rows written") - 36.97).abs() < 0.02);
        assert!(small.total_usd > 40.0);
    }

    #[test]
    fn each_more_shard_costs_a_request_and_a_row_a_job() {
        let (one, two) =
            (bill(WORKLOAD, MEASURED), bill(Workload { shards: 2.0, ..WORKLOAD }, MEASURED));
        let quantity = |bill: &Bill, item: &str| {
            bill.items.iter().find(|i| i.item == item).expect("such a line").quantity
        };
        let more = |item| quantity(&two, item) - quantity(&one, item);
        let collections = 24.0 * DAYS_PER_MONTH;
        assert!((more("rows written") - one.jobs - 5.0 * collections).abs() < 1.0);
        assert!((more("requests to objects") - one.jobs - 3.0 * collections).abs() < 1.0);
    }

    #[test]
    fn keys_that_are_fetched_for_each_report_cost_more_than_all_else() {
        let pinned = bill(WORKLOAD, MEASURED);
        let fetched = bill(Workload { keys_fetched_each_time: true, ..WORKLOAD }, MEASURED);
        assert!(fetched.total_usd - pinned.total_usd > 100.0);
    }

    #[test]
    fn a_leader_pays_for_each_upload() {
        let leader = bill(Workload { role: Role::Leader, ..WORKLOAD }, MEASURED);
        // 434.8 million requests, of which 10 million are included.
        assert!((usd(&leader, "Worker requests") - 127.4).abs() < 0.1);
        assert!(usd(&leader, "requests to objects") > 64.0);
    }
}
