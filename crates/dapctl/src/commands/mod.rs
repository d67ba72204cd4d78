//! What the commands do.

mod drive;
mod hpke;
mod pair;
mod peer;
mod report;
mod secrets;
mod task;
mod token;

use std::path::Path;

use crate::{
    Failure,
    admin::AdminClient,
    cli::{Cli, Command},
    output::clean,
};

/// Runs a command.
///
/// # Errors
/// [`Failure`], whose text is one sentence.
pub fn run(cli: &Cli) -> Result<(), Failure> {
    match &cli.command {
        Command::Task(command) => task::run(cli, command),
        Command::Hpke(command) => hpke::run(cli, command),
        Command::Peer(command) => peer::run(cli, command),
        Command::Pair(args) => pair::run(cli, args),
        Command::Secrets(command) => secrets::run(cli, *command),
        Command::Report(command) => report::run(cli, command),
        Command::Drive(args) => drive::run(cli, args),
    }
}

fn admin(cli: &Cli) -> Result<AdminClient, Failure> {
    let token = match (&cli.admin_token_file, &cli.admin_token) {
        (Some(path), _) => read_token(path)?,
        (None, Some(token)) => token.clone(),
        (None, None) => {
            return Err(Failure::Usage(
                "an admin token is needed: --admin-token-file, --admin-token or DAPCTL_ADMIN_TOKEN"
                    .into(),
            ));
        }
    };
    AdminClient::new(url(cli)?, &token)
}

fn url(cli: &Cli) -> Result<&str, Failure> {
    cli.url
        .as_deref()
        .ok_or_else(|| Failure::Usage("the deployment's URL is needed: --url or DAPCTL_URL".into()))
}

fn read_token(path: &Path) -> Result<String, Failure> {
    let shown = clean(&path.display().to_string());
    std::fs::read_to_string(path)
        .map(|text| text.trim().to_owned())
        .map_err(|e| Failure::Usage(format!("cannot read {shown}: {e}")))
}
