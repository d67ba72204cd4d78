//! The only door to stored state.
//!
//! [`objects`] names Durable Objects and calls them, with a timeout, a fresh stub and a bounded number of tries;
//! it implements the core's [`daphne_core::store::Objects`]. [`config`] reads and changes tasks and HPKE keys: in
//! memory first, then KV, then the strongly consistent `ConfigStore`. Nothing here knows the protocol.

pub mod config;
pub mod objects;
pub mod random;

#[cfg(feature = "test-routes")]
pub mod faults;
