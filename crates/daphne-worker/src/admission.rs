//! How many jobs an isolate works on at once. Its 128 MB are shared by all its requests, and an isolate that takes more
//! than it can hold is ended with all of them.
//!
//! A job is weighed by what is known before its body is read: the body's length, and an aggregate share of its task. It
//! may come to hold about four times that: the body and what is decoded of it, its sums, their message to a store, and the
//! runtime's copy of that.

use std::cell::{Cell, RefCell};

use daphne_core::{error::Internal, ids::TaskId, time::Time};

use crate::body;

/// Weight of all jobs under way, in bytes: three of the largest, which then take some 96 MiB.
const IN_FLIGHT_BYTES_MAX: usize = 24 << 20;
/// Weight of those of one task: a leader whose requests come slowly, or break off, leaves room for other tasks.
const TASK_BYTES_MAX: usize = 16 << 20;
/// What any job weighs at least, and one whose length is not declared before its body comes.
const JOB_BYTES_MIN: usize = 64 << 10;
/// A request that its client has given up may never be heard of again. No job is worked on for as long as this, in seconds,
/// once its body is there.
const WORK_S: u64 = 120;

thread_local! {
    static IN_FLIGHT: RefCell<Vec<Held>> = const { RefCell::new(Vec::new()) };
    static NEXT: Cell<u64> = const { Cell::new(0) };
}

struct Held {
    id: u64,
    task: TaskId,
    bytes: usize,
    arrived: usize,
    since: Time,
}

impl Held {
    /// Its body has come by now, or was given up, and the work is done. What was declared and does not come is not waited
    /// for.
    fn is_over(&self, now: Time) -> bool {
        let age = now.as_seconds().saturating_sub(self.since.as_seconds());
        age >= body::patience_for(self.arrived).as_secs() + WORK_S
    }
}

/// A job's share of the isolate's memory, until it is dropped.
#[derive(Debug)]
#[must_use]
pub struct Admission {
    id: u64,
    share: usize,
}

impl Admission {
    /// Admits a job of `task` whose body declares that length, if it does, and whose aggregate shares are so long. A job
    /// alone is always admitted, and so is a task's only one, while there is room for it beside those of others.
    ///
    /// # Errors
    /// [`Internal::Overloaded`].
    pub fn of_job(
        task: TaskId,
        declared: Option<usize>,
        agg_share_len: usize,
        now: Time,
    ) -> Result<Self, Internal> {
        let id = NEXT.replace(NEXT.get() + 1);
        IN_FLIGHT.with_borrow_mut(|jobs| {
            jobs.retain(|job| !job.is_over(now));
            jobs.push(Held { id, task, bytes: 0, arrived: 0, since: now });
        });
        // From here on, whatever is refused is also taken off the list.
        let admission = Self { id, share: agg_share_len };
        admission.weighs(declared.unwrap_or(0)).map(|()| admission)
    }

    /// Admits that so many bytes of the job's body are there.
    ///
    /// # Errors
    /// [`Internal::Overloaded`].
    pub fn holds(&self, body_bytes: usize) -> Result<(), Internal> {
        self.weighs(body_bytes)?;
        IN_FLIGHT.with_borrow_mut(|jobs| {
            jobs.iter_mut().filter(|j| j.id == self.id).for_each(|j| j.arrived = body_bytes);
        });
        Ok(())
    }

    fn weighs(&self, body_bytes: usize) -> Result<(), Internal> {
        IN_FLIGHT.with_borrow_mut(|jobs| {
            let Some(task) = jobs.iter().find(|j| j.id == self.id).map(|j| j.task) else {
                return Ok(());
            };
            let (mut others, mut others_of_task) = (0_usize, 0_usize);
            for other in jobs.iter().filter(|j| j.id != self.id) {
                others = others.saturating_add(other.bytes);
                if other.task == task {
                    others_of_task = others_of_task.saturating_add(other.bytes);
                }
            }
            let Some(job) = jobs.iter_mut().find(|j| j.id == self.id) else { return Ok(()) };
            let bytes = job.bytes.max(body_bytes.saturating_add(self.share).max(JOB_BYTES_MIN));
            // Bytes that were declared are not counted again as they come.
            let is_beyond = |others: usize, max| others > 0 && others.saturating_add(bytes) > max;
            if bytes > job.bytes
                && (is_beyond(others, IN_FLIGHT_BYTES_MAX)
                    || is_beyond(others_of_task, TASK_BYTES_MAX))
            {
                return Err(Internal::Overloaded(
                    "the jobs under way are as many as this isolate has memory for".to_owned(),
                ));
            }
            job.bytes = bytes;
            Ok(())
        })
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        IN_FLIGHT.with_borrow_mut(|jobs| jobs.retain(|job| job.id != self.id));
    }
}
