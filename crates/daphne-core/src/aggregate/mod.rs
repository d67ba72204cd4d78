//! Aggregation jobs: leader and helper verify reports together and add them up. DAP-09 §4.5, DAP-18 §4.5.

mod begun;
pub mod commit;
pub mod deferred;
pub mod helper;
pub mod leader;
mod opening;
pub mod rounds;
