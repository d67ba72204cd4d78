//! Builds the Worker before it is measured.

use std::process::{Command, Stdio};

use dapctl::Failure;
use e2e::server::root;

/// Runs `scripts/setup`, and `scripts/build` with these arguments; returns at once if nothing has changed.
///
/// # Errors
/// [`Failure::Wrong`] if one of them fails, which has said why.
pub fn build(arguments: &[&str]) -> Result<(), Failure> {
    script("setup", &[])?;
    script("build", arguments)
}

/// Runs a script of this checkout with these arguments; what it says goes to standard error.
///
/// # Errors
/// [`Failure::Wrong`] if it fails, which it has said why.
pub fn script(name: &str, arguments: &[&str]) -> Result<(), Failure> {
    let failed = || Failure::Wrong(format!("scripts/{name} failed"));
    let status = command(name, arguments).stdout(std::io::stderr()).status();
    if status.map_err(|_| failed())?.success() { Ok(()) } else { Err(failed()) }
}

/// A script of this checkout with these arguments.
pub fn command(name: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(root().join("scripts").join(name));
    command.args(arguments).stdin(Stdio::null());
    command
}
