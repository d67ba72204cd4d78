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
    /// The same, by class.
    pub requests_to: Requests,
    /// Alarms that went off.
    pub alarms: u64,
    /// Alarms that were set; each bills a row written.
    pub alarms_set: u64,
    /// Rows read by statements.
    pub rows_read: u64,
    /// Rows written by statements.
    pub rows_written: u64,
}

/// Requests to the objects of each class.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Requests {
    /// To `AggregateStore`s.
    pub aggregate_store: u64,
    /// To `TaskLedger`s.
    pub task_ledger: u64,
    /// To `JobStore`s.
    pub job_store: u64,
    /// To the `ConfigStore`.
    pub config_store: u64,
}

/// A class of objects.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Class {
    AggregateStore,
    TaskLedger,
    JobStore,
    ConfigStore,
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
pub(crate) fn request(class: Class) {
    add(|c| {
        c.requests += 1;
        *match class {
            Class::AggregateStore => &mut c.requests_to.aggregate_store,
            Class::TaskLedger => &mut c.requests_to.task_ledger,
            Class::JobStore => &mut c.requests_to.job_store,
            Class::ConfigStore => &mut c.requests_to.config_store,
        } += 1;
    });
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
