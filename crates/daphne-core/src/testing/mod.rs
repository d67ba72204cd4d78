//! In-memory twins of what the platform provides, for tests and simulation.

pub mod memory;
