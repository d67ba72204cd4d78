//! Grows one batch and measures at some sizes on the way.

use std::{
    rc::Rc,
    sync::mpsc::{Receiver, sync_channel},
    thread,
    time::Instant,
};

use dapctl::output::Progress;
use e2e::Server;

use crate::{
    meter::Billed,
    subject::{Committed, JOB_SIZE, MadeUpJob, Maker, Subject, ms},
    summary::{Background, Cold, Collected, Point, Ratios, Spread, Summary},
};

/// Reports at which it is measured, beside the last.
const SIZES: [u64; 2] = [10_000, 1_000_000];
/// Jobs in one request while it grows, and in a sample of the time of a transaction.
const JOBS_AT_ONCE: usize = 25;
/// Made-up jobs measured at each size.
const JOBS_MEASURED: usize = 250;
/// The same of the twin, which is to stay small.
const TWIN_JOBS_AT_ONCE: usize = 12;
/// Jobs that come as a request of their own at each size.
const SINGLE_JOBS: usize = 40;
/// Real jobs at each size, and before them one that nobody measures.
const REAL_JOBS: usize = 10;
/// How often the runtime is killed at each size.
const KILLS: usize = 3;
/// An object keeps at most about this many ids in memory, and has most to read again when it is killed just before.
const NEARLY_FULL: u64 = 125_000;

/// Grows a batch to that many reports, collects it, and says what was measured.
pub fn run(reports: u64, shards: u16) -> Summary {
    let begun = Instant::now();
    let mut sizes: Vec<u64> = SIZES.into_iter().filter(|size| *size < reports).collect();
    sizes.push(reports);
    let server = Rc::new(Server::start());
    let mut growth = Growth::new(&server, shards);
    let mut points = Vec::new();
    for size in sizes {
        growth.grow_to(size);
        points.push(growth.measure(size));
    }
    let Growth { mut subject, progress, .. } = growth;
    drop(progress);
    let collected = subject.reports();
    eprintln!("collecting {collected} reports");
    let (wrongly_ms, collect_ms) = (subject.collect_wrongly_ms(), subject.collect_ms());
    Summary {
        reports: collected,
        shards,
        points,
        collection: Collected { collect_ms, refused_ms: wrongly_ms },
        seconds: begun.elapsed().as_secs_f64(),
    }
}

struct Growth {
    server: Rc<Server>,
    subject: Subject,
    jobs: Receiver<MadeUpJob>,
    shards: u16,
    progress: Progress,
    /// Those that [`Growth::commit`] committed since the beginning, which this and the next three are about.
    made_up_jobs: u64,
    foreground_rows_written: u64,
    background: Billed,
    alarm_ms: Vec<f64>,
}

/// A batch that is as small as the first size, to compare with.
struct Twin {
    subject: Subject,
    maker: Maker,
}

impl Twin {
    fn new(server: &Rc<Server>, shards: u16) -> Self {
        let subject = Subject::new(server.clone(), shards);
        let mut twin = Self { maker: subject.maker(), subject };
        twin.commit(SIZES[0] as usize / JOB_SIZE);
        twin
    }

    fn jobs(&self, count: usize) -> Vec<MadeUpJob> {
        (0..count as u64).map(|n| self.maker.job(n)).collect()
    }

    fn commit(&mut self, count: usize) -> Vec<Committed> {
        let jobs = self.jobs(count);
        self.subject.commit(&jobs)
    }
}

impl Growth {
    fn new(server: &Rc<Server>, shards: u16) -> Self {
        let subject = Subject::new(server.clone(), shards);
        let maker = subject.maker();
        // Hashing the ids takes about as long as committing them does.
        let (send, jobs) = sync_channel(4 * JOBS_AT_ONCE);
        thread::spawn(move || (0..).map(|n| maker.job(n)).try_for_each(|job| send.send(job)));
        Self {
            server: server.clone(),
            subject,
            jobs,
            shards,
            progress: Progress::new("reports", None),
            made_up_jobs: 0,
            foreground_rows_written: 0,
            background: Billed::default(),
            alarm_ms: Vec::new(),
        }
    }

    fn grow_to(&mut self, reports: u64) {
        while self.subject.reports() < reports {
            let missing = (reports - self.subject.reports()).div_ceil(JOB_SIZE as u64);
            self.commit(JOBS_AT_ONCE.min(missing as usize));
        }
    }

    /// Commits so many made-up jobs, and does what that gives the alarm to do.
    fn commit(&mut self, count: usize) -> (Vec<Committed>, Billed) {
        let jobs: Vec<MadeUpJob> = self.jobs.iter().take(count).collect();
        let before = self.subject.counts();
        let done = self.subject.commit(&jobs);
        let cost = self.subject.counts() - before;
        self.made_up_jobs += count as u64;
        self.foreground_rows_written += cost.rows_written;
        self.progress.add((count * JOB_SIZE) as u64);
        for (shard, _) in done.iter().enumerate().filter(|(_, done)| done.filled) {
            self.work_in_background(shard as u16);
        }
        (done, cost)
    }

    fn work_in_background(&mut self, shard: u16) {
        let before = self.subject.counts();
        // Half a minute later the platform's own alarm finds nothing left to do.
        loop {
            let alarmed = self.subject.alarm(shard);
            self.alarm_ms.push(alarmed.ms);
            // Each run bills a request, and setting the alarm for it a row.
            self.background.alarms += 1;
            self.background.alarms_set += 1;
            if !alarmed.again {
                break;
            }
        }
        let cost = self.subject.counts() - before;
        self.background.rows_read += cost.rows_read;
        self.background.rows_written += cost.rows_written;
        self.background.requests += cost.requests;
    }

    fn measure(&mut self, reports: u64) -> Point {
        let measured_from = self.subject.reports();
        // Whatever else this machine does slows both down, so that their ratio says more than two times do.
        let mut twin = Twin::new(&self.server, self.shards);
        let (mut means, mut each, mut twin_means) = (Vec::new(), Vec::new(), Vec::new());
        let (mut rows_read, mut rows_written) = (Vec::new(), Vec::new());
        let jobs = (JOBS_AT_ONCE * usize::from(self.shards)) as f64;
        for _ in 0..JOBS_MEASURED / JOBS_AT_ONCE {
            let (done, cost) = self.commit(JOBS_AT_ONCE);
            means.extend(done.iter().map(|done| done.total_ms / JOBS_AT_ONCE as f64));
            each.extend(done.into_iter().flat_map(|done| done.each_ms));
            rows_read.push(cost.rows_read as f64 / jobs);
            rows_written.push(cost.rows_written as f64 / jobs);
            let done = twin.commit(TWIN_JOBS_AT_ONCE);
            twin_means.extend(done.iter().map(|done| done.total_ms / TWIN_JOBS_AT_ONCE as f64));
        }
        let (single, twin_single) = self.single_jobs(&mut twin);
        let (real, twin_real, requests_per_job) = self.real_jobs(&mut twin);
        let state = self.subject.state(0);
        let replay_ms = self.subject.replay_ms();
        let transaction_ms = Spread { median: Spread::of(means).median, ..Spread::of(each) };
        let (request_ms, job_ms) = (Spread::of(single), Spread::of(real));
        Point {
            reports,
            measured_from,
            transaction_ms,
            request_ms,
            job_ms,
            to_small: Ratios {
                transaction: transaction_ms.median / Spread::of(twin_means).median,
                request: request_ms.median / Spread::of(twin_single).median,
                job: job_ms.median / Spread::of(twin_real).median,
            },
            requests_per_job,
            rows_read_per_job: Spread::of(rows_read).median,
            rows_written_per_job: Spread::of(rows_written).median,
            background: self.background(),
            database_bytes_per_report: state.database_bytes as f64 * f64::from(self.shards)
                / self.subject.reports() as f64,
            separate_jobs: state.separate_jobs,
            resident_bytes: state.resident_ids * 8,
            isolate_wasm_bytes: state.wasm_bytes,
            replay_ms,
            cold: self.cold(),
        }
    }

    /// Jobs that come as a request of their own, in turns; less what an empty request takes.
    fn single_jobs(&mut self, twin: &mut Twin) -> (Vec<f64>, Vec<f64>) {
        let nothing: Vec<f64> = (0..SINGLE_JOBS).map(|_| self.subject.nothing_ms()).collect();
        let nothing = Spread::of(nothing).median;
        let shards = f64::from(self.shards);
        let took = |begun: Instant| ms(begun) / shards - nothing;
        let (mut single, mut twin_single) = (Vec::new(), Vec::new());
        for _ in 0..SINGLE_JOBS {
            let job: Vec<MadeUpJob> = self.jobs.iter().take(1).collect();
            let begun = Instant::now();
            let done = self.subject.commit(&job);
            single.push(took(begun));
            for (shard, _) in done.iter().enumerate().filter(|(_, done)| done.filled) {
                self.work_in_background(shard as u16);
            }
            let job = twin.jobs(1);
            let begun = Instant::now();
            twin.subject.commit(&job);
            twin_single.push(took(begun));
        }
        (single, twin_single)
    }

    /// Real jobs, in turns, and how many requests to objects each of the large batch took.
    fn real_jobs(&mut self, twin: &mut Twin) -> (Vec<f64>, Vec<f64>, f64) {
        let jobs = self.subject.real_jobs(REAL_JOBS + 1);
        let twin_jobs = twin.subject.real_jobs(REAL_JOBS + 1);
        let (mut took, mut twin_took, mut requests) = (Vec::new(), Vec::new(), 0);
        for (job, twin_job) in jobs.into_iter().zip(twin_jobs) {
            let before = self.subject.counts();
            took.push(self.subject.aggregate_ms(job));
            requests = (self.subject.counts() - before).requests;
            twin_took.push(twin.subject.aggregate_ms(twin_job));
        }
        self.progress.add((took.len() * JOB_SIZE) as u64);
        // With the first of each, the Worker got to know the task.
        (took.split_off(1), twin_took.split_off(1), requests as f64)
    }

    /// What has been done beside the jobs' own rows since the beginning, for each job and object.
    fn background(&self) -> Background {
        let jobs = (self.made_up_jobs * u64::from(self.shards)) as f64;
        let rows_written = self.foreground_rows_written
            + self.background.rows_written
            + self.background.alarms_set;
        Background {
            runs: self.background.alarms,
            rows_read_per_job: self.background.rows_read as f64 / jobs,
            rows_written_per_job: rows_written as f64 / jobs - 1.0,
            ms_per_job: self.alarm_ms.iter().sum::<f64>() / jobs,
            run_ms: Spread::of(self.alarm_ms.clone()),
        }
    }

    /// Kills the runtime, and times what then comes first.
    fn cold(&mut self) -> Cold {
        let (mut first_ms, mut inside_ms, mut replay_ms) = (Vec::new(), Vec::new(), Vec::new());
        let mut resident_ids = 0;
        for _ in 0..KILLS {
            // A generation that ends on the way begins another, so this ends.
            while self.subject.state(0).resident_ids < NEARLY_FULL.min(self.subject.reports()) {
                self.commit(1);
            }
            self.subject.kill();
            let job: Vec<MadeUpJob> = self.jobs.iter().take(1).collect();
            let begun = Instant::now();
            let done = self.subject.commit(&job);
            first_ms.push(ms(begun) / f64::from(self.shards));
            inside_ms.extend(done.iter().map(|done| done.total_ms));
            resident_ids = resident_ids.max(self.subject.state(0).resident_ids);
            self.subject.kill();
            replay_ms.push(self.subject.replay_ms());
        }
        Cold {
            resident_ids,
            first_ms: Spread::of(first_ms),
            inside_ms: Spread::of(inside_ms),
            replay_ms: Spread::of(replay_ms),
        }
    }
}
