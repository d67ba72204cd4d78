//! `dapctl`: see `dapctl --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    let Err(failure) = dapctl::cli::parse().and_then(|cli| dapctl::commands::run(&cli)) else {
        return ExitCode::SUCCESS;
    };
    eprintln!("dapctl: {}", dapctl::output::one_line(&failure.to_string()));
    ExitCode::from(failure.exit_code())
}
