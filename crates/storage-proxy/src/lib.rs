//! The only door to stored state.
//!
//! [`objects`] names Durable Objects and calls them, with a timeout and a fresh stub for each try; it implements the
//! core's [`daphne_core::store::Objects`]. [`retry`] says when a call is tried again, and [`requests`] which messages
//! may be. [`config`] reads and changes tasks, HPKE keys and peers: in
//! memory first, then KV, then the strongly consistent `ConfigStore`. [`webcrypto`] computes with the HPKE keys what the platform
//! does better than we. Nothing here knows the protocol.

pub mod config;
pub mod objects;
pub mod random;
pub mod requests;
pub mod retry;
pub mod webcrypto;

#[cfg(feature = "test-routes")]
pub mod faults;
#[cfg(feature = "test-routes")]
pub mod meter;
