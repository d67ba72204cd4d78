//! What the end-to-end tests share: the built test Worker in workerd, a raw HTTP client, a leader with its clients and
//! collector, and the objects' messages over HTTP.
//!
//! The Worker must have been built with `scripts/build --test`. A file of tests shares one [`Server`]; tests that kill
//! it start their own.

pub mod books;
pub mod client;
pub mod control_plane;
pub mod forge;
pub mod heard;
pub mod peer;
pub mod raw;
pub mod remote;
pub mod server;
pub mod world;

use daphne_core::{
    batch::BatchMode::{self, LeaderSelected, TimeInterval},
    version::DapVersion::{self, V09, V18},
};

pub use books::Books;
pub use client::{Answer, Client, JOB_CONTINUE, JOB_INIT, SHARE_REQ};
pub use peer::Peer;
pub use server::Server;
pub use world::{ContinuedJob, Job, World, now};

/// Every kind of task that most rules are the same for: each version with each batch mode.
pub const KINDS: [(DapVersion, BatchMode); 4] =
    [(V09, TimeInterval), (V09, LeaderSelected), (V18, TimeInterval), (V18, LeaderSelected)];
