//! A simulation of the whole system: the real client, leader, helper, ledger, stores and collector of the core, on one
//! thread, under seeded schedules in which messages are late, lost or repeated, and everything dies at any moment.
//!
//! A seed names a [`scenario`] and all [`choices`] of its [`schedule`]: which message is delivered next, and what goes
//! wrong. The [`oracle`] looks at every answer and at what is left at the end. [`sabotage`] proves that it would notice;
//! [`shrink`] makes a failure small enough to read, and to keep.

pub mod choices;
pub mod coverage;
pub mod describe;
pub mod executor;
pub mod leader;
pub mod network;
pub mod oracle;
pub mod reports;
pub mod sabotage;
pub mod scenario;
pub mod schedule;
pub mod shrink;
pub mod worker;
pub mod world;
