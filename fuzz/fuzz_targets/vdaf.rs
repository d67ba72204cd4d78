//! Aggregation parameters, shares, kept states and ping-pong messages of every VDAF.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| daphne_fuzz::vdaf(data));
