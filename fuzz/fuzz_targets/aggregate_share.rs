//! Requests for aggregate shares of batches that hold something.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| daphne_fuzz::aggregate_share(data));
