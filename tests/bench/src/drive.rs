//! Sends jobs to a helper, some at a time, and measures.

use std::{sync::Mutex, thread, time::Instant};

use dapctl::{Failure, helper_client::HelperClient};
use daphne_core::aggregate::leader::LeaderStep;

use crate::{
    cpu::{Machine, Usage},
    jobs::{Answered, Batch, Made, Party},
};

/// The step of the only continuation that a VDAF needs.
const CONTINUATION: u16 = 1;

/// What was measured while some jobs were sent.
#[derive(Clone, Debug, Default)]
pub struct Round {
    /// From the first request to the last answer.
    pub seconds: f64,
    /// CPU that the helper used meanwhile, in seconds; `None` if nobody said what its processes are.
    pub cpu_seconds: Option<f64>,
    /// CPU that neither the helper nor this process used meanwhile, in seconds.
    pub others_cpu_seconds: Option<f64>,
    /// Reports, all accepted.
    pub reports: usize,
    /// Of each job, in milliseconds.
    pub latencies_ms: Vec<f64>,
    /// Requests that had to be repeated.
    pub retries: usize,
}

struct Clock {
    begun: Instant,
    helper: Option<Usage>,
    driver: Option<Usage>,
    machine: Option<Machine>,
    pids: Vec<u32>,
}

/// Sends these jobs of `size` reports, `concurrency` at a time, and then checks every verdict.
///
/// # Errors
/// [`Failure`]: a job was not answered, or a report not accepted.
pub fn drive(
    party: &Party,
    batch: &mut Batch,
    jobs: Vec<Made>,
    (size, concurrency): (usize, usize),
    pids: &[u32],
) -> Result<Round, Failure> {
    let reports = jobs.len() * size;
    let clients: Result<Vec<HelperClient>, Failure> =
        (0..concurrency).map(|_| party.client()).collect();
    let clients = clients?;
    let queue = Mutex::new(jobs.into_iter());
    let clock = Clock::start(pids);
    let send = |client: HelperClient| {
        let mut done = Vec::new();
        loop {
            let next = queue.lock().expect("no thread panicked").next();
            let Some(job) = next else { return Ok(done) };
            done.push(exchange(party, &client, job)?);
        }
    };
    let done = thread::scope(|scope| {
        let threads: Vec<_> = clients.into_iter().map(|c| scope.spawn(|| send(c))).collect();
        let ends = threads.into_iter().map(|t| t.join().expect("no thread panicked"));
        ends.collect::<Result<Vec<Vec<_>>, Failure>>()
    });
    let mut round = clock.stop(reports);
    for (answered, ms, retries) in done?.into_iter().flatten() {
        party.settle(batch, answered)?;
        round.latencies_ms.push(ms);
        round.retries += retries;
    }
    Ok(round)
}

/// One job from its first request to its last answer, with the milliseconds that the helper took.
fn exchange(
    party: &Party,
    client: &HelperClient,
    job: Made,
) -> Result<(Answered, f64, usize), Failure> {
    let failed = |e| Failure::from(e).during(&format!("{}: a job", party.name()));
    let begun = Instant::now();
    let created = client.create_job(&job.id, &job.body).map_err(failed)?;
    let mut ms = milliseconds(begun);
    let mut retries = created.success.retries;
    if party.leader.vdaf.rounds() == 1 {
        return Ok((job.answered(created.success.body), ms, retries));
    }
    let (leader, truth) = job.into_leader();
    let step = party.leader.proceed(leader, &created.success.body);
    let step = step.map_err(|e| Failure::Wrong(format!("{}: {e}", party.name())))?;
    let LeaderStep::Continued(continuation) = step else {
        return Err(Failure::Wrong(format!("{}: a job was refused as a whole", party.name())));
    };
    let begun = Instant::now();
    let answer =
        client.continue_job(&created.at, CONTINUATION, continuation.request()).map_err(failed)?;
    ms += milliseconds(begun);
    retries += answer.retries;
    Ok((Answered::continued(continuation, answer.body, truth), ms, retries))
}

fn milliseconds(begun: Instant) -> f64 {
    begun.elapsed().as_secs_f64() * 1e3
}

impl Clock {
    fn start(pids: &[u32]) -> Self {
        Self {
            helper: (!pids.is_empty()).then(|| Usage::of(pids)).flatten(),
            driver: Usage::of(&[std::process::id()]),
            machine: Machine::now(),
            pids: pids.to_vec(),
            begun: Instant::now(),
        }
    }

    fn stop(self, reports: usize) -> Round {
        let seconds = self.begun.elapsed().as_secs_f64();
        let since = |before: Option<Usage>, pids: &[u32]| Some(Usage::of(pids)?.since(&before?));
        let cpu_seconds = since(self.helper, &self.pids);
        let driver = since(self.driver, &[std::process::id()]);
        let machine = self.machine.and_then(|before| Some(Machine::now()?.since(before)));
        let others =
            |machine: f64| machine - cpu_seconds.unwrap_or_default() - driver.unwrap_or_default();
        Round {
            seconds,
            cpu_seconds,
            // Without the helper's processes there is no telling it from others.
            others_cpu_seconds: cpu_seconds.and(machine).map(others).map(|s| s.max(0.0)),
            reports,
            latencies_ms: Vec::new(),
            retries: 0,
        }
    }
}
