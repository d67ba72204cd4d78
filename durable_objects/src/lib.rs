//! The Durable Object classes.
//!
//! Each binds a state machine of [`daphne_core::store`] to SQLite tables, and speaks the messages defined there: the
//! body of a POST is an encoded request, the body of a 200 an encoded response. Anything else is a 500 whose text
//! is for the log.
//!
//! | class | named | state machine | alarm |
//! |---|---|---|---|
//! | [`AggregateStore`] | `v1/{task}/{group}/{shard}` | `store::aggregate_store` | merges, packs, forgets |
//! | [`TaskLedger`] | `v1/{task}/ledger` | `store::ledger` | finishes what a dead attempt left |
//! | [`JobStore`] | `v1/{task}/jobs/{shard}` | `store::job_store` | forgets |
//! | [`ConfigStore`] | `v1/config` | `store::config_store` | purges deleted tasks, rotates and destroys HPKE keys |

#![allow(
    missing_docs,
    reason = "`durable_object` writes undocumented methods beside the documented classes"
)]

mod aggregate_store;
mod alarm;
mod config_store;
mod exchange;
mod job_store;
#[cfg(feature = "test-routes")]
pub mod meter;
#[cfg(feature = "test-routes")]
mod probe;
mod runs;
mod sql;
mod task_ledger;

pub use aggregate_store::AggregateStore;
pub use config_store::ConfigStore;
pub use job_store::JobStore;
pub use task_ledger::TaskLedger;
