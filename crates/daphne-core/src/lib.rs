//! Sans-I/O core of a DAP aggregator: wire formats, HPKE, VDAF dispatch, tasks, the roles' state machines, and
//! the storage protocol with its traits and contracts.
//!
//! The core performs no I/O, reads no clock and logs nothing: time, randomness, configuration and stored state
//! come in as arguments; what to store and what to answer go out as values. It builds natively and for wasm32.

pub mod aggregate;
pub mod aggregator_api;
pub mod b64;
pub mod batch;
pub mod codec;
pub mod collect;
pub mod configuration;
pub mod error;
pub mod hpke;
pub mod ids;
pub mod media_type;
pub mod message;
pub mod metrics;
pub mod problem;
pub mod seal;
pub mod store;
pub mod task;
pub mod taskprov;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod time;
pub mod upload;
pub mod vdaf;
pub mod version;
pub mod wire;
