//! The helper's work on one aggregation job, step by step, for whoever measures it.
//!
//! A [`Case`] is a task with an aggregation job whose reports were made once, by `examples/make_jobs.rs`, and are kept in `jobs/`:
//! the same bytes on each machine, so that what is counted is the same, too, and nothing draws randomness. A [`Step`] is a
//! part of the work, or all of it, as the Worker has the core do it: without the network, stores, and JavaScript around it.
//!
//! `wasm.rs` exports the steps to `scripts/lib/bench-wasm.mjs`, which measures time in V8 (`scripts/bench wasm`);
//! `bin/instructions.rs` does them in callgrind, which counts instructions (`scripts/bench instructions`).

mod case;
mod step;
#[cfg(target_arch = "wasm32")]
mod wasm;

pub use case::{ALL, Case, CaseId, FIRST_REPORT_S, REPORTS};
pub use step::{Bench, STEPS, Step};
