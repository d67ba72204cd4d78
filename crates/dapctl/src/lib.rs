//! The operator's tool for a DAP helper, as a library: clients of the admin API, the aggregator API and the helper's own
//! endpoints, task files, peer files, report files, a driver that plays leader and collector, and what puts a deployment
//! up and examines it.
//!
//! The program `dapctl` is [`cli`] and [`commands`] over it; tests use the rest directly.

pub mod admin;
pub mod aggregator_api;
pub mod cli;
pub mod commands;
pub mod doctor;
pub mod drive;
pub mod failure;
pub mod helper_client;
pub mod http;
pub mod janus_tasks;
pub mod key_file;
pub mod output;
pub mod peer_file;
pub mod reports;
pub mod secrets_file;
pub mod task_file;
pub mod wrangler;

pub use failure::Failure;
