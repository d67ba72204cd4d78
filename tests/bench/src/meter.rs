//! What the test Worker says of itself: what its objects were billed for, and what one of them holds.

use std::ops::{Add, Sub};

use serde::Deserialize;

/// What the objects were billed for so far; see `durable_objects::meter`.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub struct Billed {
    /// Requests to objects.
    pub requests: u64,
    /// Alarms that went off.
    pub alarms: u64,
    /// Alarms that were set; each bills a row written, beyond `rows_written`.
    pub alarms_set: u64,
    /// Rows that statements read.
    pub rows_read: u64,
    /// Rows that statements wrote.
    pub rows_written: u64,
}

/// What an `AggregateStore` holds; see `durable_objects::probe`.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct State {
    /// Bytes of its database.
    pub database_bytes: u64,
    /// Ids that the replay index keeps in memory.
    pub resident_ids: u64,
    /// Jobs that were not packed yet.
    pub separate_jobs: u64,
    /// All memory of the isolate's module.
    pub wasm_bytes: u64,
}

impl Add for Billed {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            requests: self.requests + other.requests,
            alarms: self.alarms + other.alarms,
            alarms_set: self.alarms_set + other.alarms_set,
            rows_read: self.rows_read + other.rows_read,
            rows_written: self.rows_written + other.rows_written,
        }
    }
}

impl Sub for Billed {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            requests: self.requests - before.requests,
            alarms: self.alarms - before.alarms,
            alarms_set: self.alarms_set - before.alarms_set,
            rows_read: self.rows_read - before.rows_read,
            rows_written: self.rows_written - before.rows_written,
        }
    }
}
