//! Every decoder of DAP-18 messages, ids and headers.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| daphne_fuzz::wire_v18(data));
