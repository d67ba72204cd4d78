//! What became of a task's reports and requests, counted.
//!
//! [`Failure`] says why one report was refused, finer than what its leader is told. A job's outcomes are a [`Tally`], kept
//! in the same row as its verdicts, so that each job is counted once however often it is repeated. [`Totals`] are sums of
//! tallies, with the reasons seen last; [`TaskCounters`] are what other tools call them,
//! and [`TaskStatus`] is what an operator sees. [`exposition`] writes metrics as
//! Prometheus reads them.

mod counters;
pub mod exposition;
mod failure;
mod status;
mod totals;

pub use counters::{AggregationCounters, STEP_FAILURES, TaskCounters};
pub use failure::Failure;
pub use status::{BatchStatus, ReasonSeen, TaskStatus};
pub use totals::{Cause, REASONS_MAX, Reason, Refusal, Resource, Tally, Totals};
