//! `scripts/bench`: what helpers cost, measured.
//!
//! - [`run`]: how fast a helper answers jobs, and what that costs in CPU; ours in workerd, or any other.
//! - [`counts`]: what the platform bills for a job: requests, rows, bytes.
//! - [`cost`]: what that comes to in a month, at list prices.
//! - [`task`]: a task for a helper that is not ours, to measure that one.
//! - [`storage`]: grows one batch to millions of reports and shows what a job costs at each size.
//!
//! Beneath these: [`kinds`] are the VDAFs that are measured, [`jobs`] a task's parties and the jobs that they make ahead of
//! time, [`drive`] sends these, [`mod@warm`] until they cost the same, [`cpu`] knows what processes used, [`meter`] what objects
//! were billed for, [`floor`] measures the libraries alone and [`wasm`] the core in V8, and [`results`] and [`table`] say it.

mod builds;
mod cost;
mod counts;
mod cpu;
mod drive;
mod floor;
mod jobs;
mod kinds;
mod machine;
mod meter;
mod numbers;
mod options;
mod results;
mod run;
mod storage;
mod subject;
mod summary;
mod table;
mod task;
mod warm;
mod wasm;

use std::{fmt::Display, panic, process::ExitCode};

use dapctl::{
    Failure,
    output::{self, Format},
};
use serde::Serialize;

use crate::options::{Cli, Command};

fn main() -> ExitCode {
    let Err(failure) = options::parse().and_then(|cli| command(&cli)) else {
        return ExitCode::SUCCESS;
    };
    eprintln!("bench: {}", output::one_line(&failure.to_string()));
    ExitCode::from(failure.exit_code())
}

fn command(cli: &Cli) -> Result<(), Failure> {
    // What the tests share panics when something does not hold, and has said what.
    let failed = |_| Failure::Wrong("the benchmark ended early; the message above says why".into());
    panic::catch_unwind(|| match &cli.command {
        Command::Run(options) => print(cli.output, &run::run(&options.plan()?)?),
        Command::Counts(options) => {
            builds::build(&["--test"])?;
            print(cli.output, &counts::run(&options.plan(), |what| eprintln!("{what}"))?)
        }
        Command::Cost(options) => print(cli.output, &options.run()?),
        Command::Task(options) => {
            let (text, json) = options.run()?;
            output::print(cli.output, &text, &json)
        }
        Command::Storage { reports, shards } => {
            builds::build(&["--test"])?;
            print(cli.output, &storage::run(*reports, *shards))
        }
    })
    .unwrap_or_else(|panic| Err(failed(panic)))
}

fn print(format: Format, result: &(impl Display + Serialize)) -> Result<(), Failure> {
    let json = serde_json::to_value(result)
        .map_err(|_| Failure::Wrong("the result cannot be written as JSON".into()))?;
    output::print(format, &result.to_string(), &json)
}
