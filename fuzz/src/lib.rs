//! Fuzz targets: what no bytes from outside may do to the core.
//!
//! Each target is a function of some bytes. It panics if the core does what it must not: panic itself, allocate beyond
//! a bound, write a message otherwise than it read it, count a report twice or for a wrong answer. libFuzzer calls the
//! targets (`fuzz_targets`), and so does `replay`, with the kept inputs and damaged copies of them.

mod aggregate_share;
mod choices;
pub mod fixture;
mod helper_job;
mod request;
mod secrets;
mod seeds;
mod sequence;
mod store_messages;
mod vdaf;
mod wire;
mod world;

#[path = "../../crates/daphne-core/tests/vectors/counting.rs"]
mod counting;
#[path = "../../crates/daphne-core/tests/vectors/damage.rs"]
pub mod damage;
#[path = "../../crates/daphne-core/tests/vectors/mod.rs"]
#[allow(dead_code, missing_docs, reason = "the core's tests use the rest of the tables")]
mod messages;

pub use aggregate_share::aggregate_share;
pub use helper_job::helper_job;
pub use secrets::secrets;
pub use sequence::sequence;
pub use store_messages::store_messages;
pub use vdaf::vdaf;
pub use wire::{wire_v09, wire_v18};

use std::sync::LazyLock;

use counting::peak_bytes;

/// A fuzz target.
pub struct Target {
    /// Its name, also that of its binary and of its folder of inputs.
    pub name: &'static str,
    /// Panics if the input does harm.
    pub run: fn(&[u8]),
    /// Inputs to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All of them.
pub const TARGETS: [Target; 8] = [
    Target { name: "wire_v09", run: wire_v09, seeds: seeds::wire_v09 },
    Target { name: "wire_v18", run: wire_v18, seeds: seeds::wire_v18 },
    Target { name: "vdaf", run: vdaf, seeds: seeds::vdaf },
    Target { name: "helper_job", run: helper_job, seeds: seeds::helper_job },
    Target { name: "sequence", run: sequence, seeds: seeds::sequence },
    Target { name: "aggregate_share", run: aggregate_share, seeds: seeds::aggregate_share },
    Target { name: "secrets", run: secrets, seeds: seeds::secrets },
    Target { name: "store_messages", run: store_messages, seeds: seeds::store_messages },
];

/// Runs `f`, which may allocate `bytes_max` at once.
fn bounded<T>(bytes_max: usize, f: impl FnOnce() -> T) -> T {
    let (value, peak) = peak_bytes(f);
    trace(|| format!("{peak} bytes at once, of {bytes_max}"));
    assert!(peak <= bytes_max, "{peak} bytes were allocated at once, of {bytes_max}");
    value
}

/// Says what a target does, if `FUZZ_TRACE` is set: to understand an input that does harm.
fn trace(what: impl FnOnce() -> String) {
    static IS_ON: LazyLock<bool> = LazyLock::new(|| std::env::var_os("FUZZ_TRACE").is_some());
    if *IS_ON {
        eprintln!("{}", what());
    }
}
