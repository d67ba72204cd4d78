//! Messages between Workers and objects, and what objects do with them.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| daphne_fuzz::store_messages(data));
