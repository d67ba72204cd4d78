//! What `scripts/lib/bench-wasm.mjs` calls: numbers in, numbers out, no JavaScript needed.
#![allow(unsafe_code, reason = "to export a function under its own name is called unsafe")]

use std::sync::OnceLock;

use crate::{ALL, Bench, Case, STEPS};

static BENCHES: [OnceLock<Bench<'static>>; ALL.len()] = [const { OnceLock::new() }; ALL.len()];

/// Sets the case with this number up, and returns how many reports its job has.
#[unsafe(no_mangle)]
pub extern "C" fn micro_prepare(case: usize) -> usize {
    BENCHES[case].get_or_init(|| Box::leak(Box::new(Case::new(&ALL[case]))).bench()).len()
}

/// Does a step for all reports of a case that was set up, this many times. What is returned depends on all that was computed.
#[unsafe(no_mangle)]
pub extern "C" fn micro_run(case: usize, step: usize, times: usize) -> usize {
    let bench = BENCHES[case].get().expect("a case that was set up");
    (0..times).map(|_| bench.run(STEPS[step].1)).sum()
}

/// The length of the name of the case with this number, or, from [`ALL`]`.len()` on, of a step; 0 if there is none.
#[unsafe(no_mangle)]
pub extern "C" fn micro_name_len(n: usize) -> usize {
    name(n).len()
}

/// Where that name begins in memory.
#[unsafe(no_mangle)]
pub extern "C" fn micro_name(n: usize) -> *const u8 {
    name(n).as_ptr()
}

fn name(n: usize) -> &'static str {
    let names = ALL.iter().map(|case| case.name).chain(STEPS.iter().map(|step| step.0));
    names.into_iter().nth(n).unwrap_or_default()
}
