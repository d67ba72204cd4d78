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

fn script(name: &str, arguments: &[&str]) -> Result<(), Failure> {
    let failed = || Failure::Wrong(format!("scripts/{name} failed"));
    let output = Command::new(root().join("scripts").join(name))
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(std::io::stderr())
        .status()
        .map_err(|_| failed())?;
    if output.success() { Ok(()) } else { Err(failed()) }
}
