//! What `scripts/bench instructions` runs in callgrind: does each step of a case once where callgrind collects.
//!
//! With the name of a case, does its steps in the order of [`STEPS`], whatever is asked for: so the allocator is in the same
//! state each time that a step begins. Without arguments, says as one line of JSON what there is.

use std::{env, hint::black_box, process::ExitCode};

use micro::{ALL, Bench, Case, REPORTS, STEPS, Step};

/// As in the Worker; and it is ours to choose, where the C library's is another on each machine.
#[cfg(not(target_arch = "wasm32"))]
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

fn main() -> ExitCode {
    let Some(name) = env::args().nth(1) else {
        println!("{}", what_there_is());
        return ExitCode::SUCCESS;
    };
    let Some(id) = ALL.iter().find(|id| id.name == name) else {
        eprintln!("there is no case \"{name}\".");
        return ExitCode::FAILURE;
    };
    let case = Case::new(id);
    let bench = case.bench();
    for (_, step) in STEPS {
        // What is set up at first use, such as tables and the allocator's lists, is no part of a report.
        black_box(bench.run(*step));
        black_box(counted_by_callgrind(&bench, *step));
    }
    ExitCode::SUCCESS
}

/// Collecting begins where this is entered, and ends where it is left. Nothing else has a name like its.
#[inline(never)]
fn counted_by_callgrind(bench: &Bench<'_>, step: Step) -> usize {
    // Not a tail call, which would leave the function before the work is done.
    black_box(bench.run(black_box(step)))
}

fn what_there_is() -> String {
    let quoted = |names: Vec<&str>| format!("[\"{}\"]", names.join("\",\""));
    let cases = quoted(ALL.iter().map(|case| case.name).collect());
    let steps = quoted(STEPS.iter().map(|step| step.0).collect());
    format!("{{\"reports\":{REPORTS},\"cases\":{cases},\"steps\":{steps}}}")
}
