//! Counts what the platform bills for KV. Only in builds with the feature `test-routes`.
//!
//! It only ever grows: who measures takes differences.

use std::cell::Cell;

thread_local! {
    static WRITES: Cell<u64> = const { Cell::new(0) };
}

/// Entries written or deleted since the isolate began.
pub fn kv_writes() -> u64 {
    WRITES.get()
}

/// An entry is written or deleted.
pub(crate) fn kv_write() {
    WRITES.set(WRITES.get() + 1);
}
