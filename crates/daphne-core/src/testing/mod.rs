//! In-memory twins of what the platform provides, and the suite of tests that every implementation of the storage
//! protocol must pass, for tests and simulation.

pub mod conformance;
pub mod memory;
pub mod runs;
