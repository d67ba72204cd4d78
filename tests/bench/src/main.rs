//! `scripts/bench`: what the Worker costs in workerd, measured.
//!
//! - [`storage`]: grows one batch to millions of reports and shows what a job costs at each size.
//! - [`subject`]: the task that is measured: jobs made up without cryptography, real ones, and probes of its objects.
//! - [`summary`]: what was measured, for people and for programs.

mod storage;
mod subject;
mod summary;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use dapctl::output::{self, Format};

/// Measures the Worker in workerd, on this machine and on state of its own.
#[derive(Parser)]
#[command(name = "bench")]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// How results are printed; progress goes to standard error.
    #[arg(long, global = true, value_enum, default_value_t)]
    output: Format,
}

#[derive(Subcommand)]
enum Command {
    /// Grows one batch bucket, and shows what an aggregation job of 500 reports costs at each size.
    ///
    /// Most jobs are made up and sent to the Durable Objects as they are; at each size a few real ones go through the
    /// Worker. At the end the batch is collected, and the aggregate compared with the truth.
    Storage {
        /// Reports in the batch at the end.
        #[arg(long, default_value_t = 10_000_000)]
        reports: u64,
        /// Durable Objects that share them.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
        shards: u16,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let Command::Storage { reports, shards } = cli.command;
    let summary = storage::run(reports, shards);
    let json = serde_json::to_value(&summary).unwrap_or_default();
    match output::print(cli.output, &summary.to_string(), &json) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("bench: {failure}");
            ExitCode::from(failure.exit_code())
        }
    }
}
