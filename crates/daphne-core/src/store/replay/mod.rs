//! The replay index of one `AggregateStore`: which report ids its rows hold, by keyed 64-bit fingerprint.
//!
//! A hit is not a verdict; it is resolved against the rows, but for what only began, of which no row tells more. A miss is
//! certain. The key is random per object, so that
//! clients, who choose report ids, cannot aim for collisions.
//!
//! [`Recent`] holds in memory what was added last, at most 1 MiB of it. When it is full it is flushed to tables, as
//! one of a few [`Runs`], which are asked for a whole job at once.

mod recent;
mod runs;

pub use self::{
    recent::Recent,
    runs::{MergeStep, Run, RunTables, Runs},
};
