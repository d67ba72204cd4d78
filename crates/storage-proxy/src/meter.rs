//! Counts what the platform bills for KV, and what its cryptography computed. Only in builds with the feature `test-routes`.
//!
//! It only ever grows: who measures takes differences.

use std::cell::Cell;

thread_local! {
    static READS: Cell<u64> = const { Cell::new(0) };
    static WRITES: Cell<u64> = const { Cell::new(0) };
    static AGREEMENTS: Cell<u64> = const { Cell::new(0) };
}

/// Entries read since the isolate began, found or not.
pub fn kv_reads() -> u64 {
    READS.get()
}

/// Entries written or deleted since the isolate began.
pub fn kv_writes() -> u64 {
    WRITES.get()
}

/// An entry is written or deleted.
pub(crate) fn kv_write() {
    WRITES.set(WRITES.get() + 1);
}

/// An entry is read.
pub(crate) fn kv_read() {
    READS.set(READS.get() + 1);
}

/// Diffie-Hellman results that the platform computed since the isolate began.
pub fn agreements() -> u64 {
    AGREEMENTS.get()
}

/// The platform computed as many Diffie-Hellman results.
pub(crate) fn agreed(results: usize) {
    AGREEMENTS.set(AGREEMENTS.get() + results as u64);
}
