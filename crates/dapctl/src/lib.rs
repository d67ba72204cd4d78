//! The operator's tool for a DAP helper, as a library: the admin API's client, a client for the helper's own
//! endpoints, task files, peer files, report files, and a driver that plays leader and collector.
//!
//! The program `dapctl` is [`cli`] and [`commands`] over it; tests use the rest directly.

pub mod admin;
pub mod cli;
pub mod commands;
pub mod drive;
pub mod failure;
pub mod helper_client;
pub mod http;
pub mod key_file;
pub mod output;
pub mod peer_file;
pub mod reports;
pub mod task_file;

pub use failure::Failure;
