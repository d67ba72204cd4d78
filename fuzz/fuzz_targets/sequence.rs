//! PUT, POST, DELETE, collections, alarms and lost calls in any order.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| daphne_fuzz::sequence(data));
