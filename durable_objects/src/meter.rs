//! Counts what the platform bills for objects. Only in builds with the feature `test-routes`.
//!
//! Local runtimes keep Workers and objects in one isolate, so one meter covers all objects. It only ever grows: who
//! measures takes differences.

use std::cell::Cell;

use serde::Serialize;
use worker::SqlCursor;

/// What was counted since the isolate began.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Counts {
    /// Requests to objects.
    pub requests: u64,
    /// Alarms that went off.
    pub alarms: u64,
    /// Alarms that were set; each bills a row written.
    pub alarms_set: u64,
    /// Rows read by statements.
    pub rows_read: u64,
    /// Rows written by statements.
    pub rows_written: u64,
}

thread_local! {
    static COUNTS: Cell<Counts> = Cell::default();
}

/// What was counted so far.
pub fn read() -> Counts {
    COUNTS.get()
}

fn add(change: impl FnOnce(&mut Counts)) {
    let mut counts = COUNTS.get();
    change(&mut counts);
    COUNTS.set(counts);
}

/// An object was asked something.
pub(crate) fn request() {
    add(|c| c.requests += 1);
}

/// An alarm went off.
pub(crate) fn alarm() {
    add(|c| c.alarms += 1);
}

/// An alarm was set.
pub(crate) fn alarm_set() {
    add(|c| c.alarms_set += 1);
}

/// A statement ran to its end.
pub(crate) fn ran(cursor: &SqlCursor) {
    add(|c| {
        c.rows_read += cursor.rows_read() as u64;
        c.rows_written += cursor.rows_written() as u64;
    });
}
