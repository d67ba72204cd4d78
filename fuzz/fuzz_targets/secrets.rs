//! HPKE, sealed records, and the JSON of tasks and keys.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| daphne_fuzz::secrets(data));
