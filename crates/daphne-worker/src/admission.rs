//! How many jobs an isolate works on at once. Its 128 MB are shared by all its requests, and an isolate that takes more
//! than it can hold is ended with all of them.
//!
//! A job is weighed by what is known before its body is read: the body's length, and an aggregate share of its task. It
//! may come to hold about four times that: the body and what is decoded of it, its sums, their message to a store, and the
//! runtime's copy of that.

use std::cell::{Cell, RefCell};

use daphne_core::{error::Internal, time::Time};

/// Weight of all jobs under way, in bytes: three of the largest, which then take some 96 MiB.
const IN_FLIGHT_BYTES_MAX: usize = 24 << 20;
/// What any job weighs at least, and one whose length is not declared before its body comes.
const JOB_BYTES_MIN: usize = 64 << 10;
/// A request that its client has given up may never be heard of again. No job takes as long as this, in seconds.
const FORGOTTEN_AFTER_S: u64 = 300;

thread_local! {
    static IN_FLIGHT: RefCell<Vec<Held>> = const { RefCell::new(Vec::new()) };
    static NEXT: Cell<u64> = const { Cell::new(0) };
}

struct Held {
    id: u64,
    bytes: usize,
    since: Time,
}

/// A job's share of the isolate's memory, until it is dropped.
#[derive(Debug)]
#[must_use]
pub struct Admission {
    id: u64,
    share: usize,
}

impl Admission {
    /// Admits a job whose body declares that length, if it does, of a task whose aggregate shares are so long. A job alone
    /// is always admitted.
    ///
    /// # Errors
    /// [`Internal::Overloaded`].
    pub fn of_job(
        declared: Option<usize>,
        agg_share_len: usize,
        now: Time,
    ) -> Result<Self, Internal> {
        let id = NEXT.replace(NEXT.get() + 1);
        IN_FLIGHT.with_borrow_mut(|jobs| {
            let age = |job: &Held| now.as_seconds().saturating_sub(job.since.as_seconds());
            jobs.retain(|job| age(job) < FORGOTTEN_AFTER_S);
            jobs.push(Held { id, bytes: 0, since: now });
        });
        // From here on, whatever is refused is also taken off the list.
        let admission = Self { id, share: agg_share_len };
        admission.holds(declared.unwrap_or(0)).map(|()| admission)
    }

    /// Admits that the job's body has, or will have, so many bytes.
    ///
    /// # Errors
    /// [`Internal::Overloaded`].
    pub fn holds(&self, body_bytes: usize) -> Result<(), Internal> {
        IN_FLIGHT.with_borrow_mut(|jobs| {
            let others: usize = jobs.iter().filter(|j| j.id != self.id).map(|j| j.bytes).sum();
            let Some(job) = jobs.iter_mut().find(|j| j.id == self.id) else { return Ok(()) };
            let bytes = job.bytes.max(body_bytes.saturating_add(self.share).max(JOB_BYTES_MIN));
            // Bytes that were declared are not counted again as they come.
            if bytes > job.bytes && others > 0 && others.saturating_add(bytes) > IN_FLIGHT_BYTES_MAX
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
