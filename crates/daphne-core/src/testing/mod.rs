//! In-memory twins of what the platform provides, faults around them, and the suite of tests that every implementation
//! of the storage protocol must pass, for tests and simulation; and what other implementations said to each other.

pub mod conformance;
pub mod faulty;
pub mod half_valid;
pub mod memory;
pub mod points;
pub mod recorded;
pub mod runs;
pub mod tables;
