//! A whole PUT of an aggregation job: any bytes, damaged, mixed up or forged.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| daphne_fuzz::helper_job(data));
