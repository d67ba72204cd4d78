//! Sends jobs that nobody measures until the runtime has optimized what they run: then each costs what the one before did.

use std::time::{Duration, Instant};

use dapctl::Failure;

use crate::{
    drive::drive,
    jobs::{Batch, Party},
};

/// Jobs in a row that cost no less than the best before them: then it is steady.
const STEADY_JOBS: usize = 3;
/// What is less by a smaller part than this is not less.
const TOLERANCE: f64 = 0.03;

/// When it ends though jobs still become cheaper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Jobs of each version and VDAF.
    pub jobs: usize,
    /// Time for each of them.
    pub time: Duration,
}

/// How it ended.
#[derive(Clone, Copy, Debug)]
pub struct Warm {
    /// Jobs that were sent.
    pub jobs: usize,
    /// Whether the last ones cost no less than those before.
    pub steady: bool,
}

impl Limits {
    /// What is enough on any machine that is worth measuring.
    pub const USUAL: Self = Self { jobs: 40, time: Duration::from_secs(30) };
    /// For a look at whether all of it works.
    pub const SHORT: Self = Self { jobs: 3, time: Duration::from_secs(1) };
}

/// Sends jobs of this size one by one: until they cost no less any more, or the limits are reached. They count in the batch.
///
/// # Errors
/// As [`drive`].
pub fn warm_up(
    party: &Party,
    batch: &mut Batch,
    size: usize,
    pids: &[u32],
    limits: Limits,
) -> Result<Warm, Failure> {
    let begun = Instant::now();
    let mut costs = Vec::new();
    loop {
        let job = party.make(batch, 1, size)?;
        let round = drive(party, batch, job, (size, 1), pids)?;
        // Of a helper whose processes are unknown the clock has to say it.
        costs.push(round.cpu_seconds.unwrap_or(round.seconds));
        let warm = Warm { jobs: costs.len(), steady: is_steady(&costs) };
        if warm.steady || warm.jobs >= limits.jobs || begun.elapsed() >= limits.time {
            return Ok(warm);
        }
    }
}

/// Whether the last of these costs are no less than the least before them. The least and not the mean, because whatever
/// else a machine does only adds to a cost.
fn is_steady(costs: &[f64]) -> bool {
    let Some(before) = costs.len().checked_sub(STEADY_JOBS).filter(|n| *n > 0) else {
        return false;
    };
    let least = |costs: &[f64]| costs.iter().copied().fold(f64::INFINITY, f64::min);
    let (earlier, last) = costs.split_at(before);
    least(last) >= least(earlier) * (1.0 - TOLERANCE)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After how many of these it is steady.
    fn steady_after(costs: &[f64]) -> Option<usize> {
        (1..=costs.len()).find(|n| is_steady(&costs[..*n]))
    }

    #[test]
    fn it_is_steady_when_nothing_becomes_cheaper() {
        assert_eq!(steady_after(&[9.0, 5.0, 3.0, 2.0, 1.98, 2.01, 2.0, 2.0]), Some(7));
        assert_eq!(steady_after(&[2.0; 4]), Some(4));
    }

    #[test]
    fn while_jobs_become_cheaper_it_is_not_steady() {
        assert_eq!(steady_after(&[9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0]), None);
        assert_eq!(steady_after(&[2.0; 3]), None);
        assert_eq!(steady_after(&[]), None);
    }

    #[test]
    fn one_job_that_others_disturbed_ends_nothing() {
        assert_eq!(steady_after(&[9.0, 5.0, 8.0, 8.0, 3.0, 3.0, 9.0, 3.0]), Some(8));
    }
}
