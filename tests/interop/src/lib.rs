//! The Worker and the codecs of the core beside other implementations of DAP-09: what the tests share.
//!
//! Clients and collectors of others need a leader, and nobody publishes one: [`Leader`] is one, for tests. The helper is
//! the test Worker in workerd, which `scripts/build --test` builds.

pub mod leader;
pub mod peers;

pub use leader::Leader;

use std::sync::OnceLock;

use tokio::runtime::{Builder, Runtime};

/// Where the peers' futures and all leaders run.
pub fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("threads start")
    })
}
