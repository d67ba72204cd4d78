//! What the commands do.

mod configuration;
mod deploy;
mod doctor;
mod drive;
mod hpke;
mod import;
mod init;
mod pair;
mod peer;
mod report;
mod secrets;
mod status;
mod task;
mod token;

use std::path::Path;

use daphne_core::version::DapVersion;
use url::Url;

use crate::{
    Failure,
    admin::AdminClient,
    cli::{Cli, Command},
    http::{Credential, Http},
    output::clean,
    secrets_file::DeploymentSecrets,
};

/// Runs a command.
///
/// # Errors
/// [`Failure`], whose text is one sentence.
pub fn run(cli: &Cli) -> Result<(), Failure> {
    match &cli.command {
        Command::Init(args) => init::run(cli, args),
        Command::Deploy(args) => deploy::run(cli, args),
        Command::Doctor(args) => doctor::run(cli, args),
        Command::Task(command) => task::run(cli, command),
        Command::Status(arg) => status::run(cli, arg),
        Command::Hpke(command) => hpke::run(cli, command),
        Command::Peer(command) => peer::run(cli, command),
        Command::Pair(args) => pair::run(cli, args),
        Command::Secrets(command) => secrets::run(cli, *command),
        Command::Report(command) => report::run(cli, command),
        Command::Drive(args) => drive::run(cli, args),
    }
}

fn admin(cli: &Cli) -> Result<AdminClient, Failure> {
    let token = admin_token(cli)?.ok_or_else(|| {
        Failure::Usage(
            "an admin token is needed: --admin-token-file, --admin-token, DAPCTL_ADMIN_TOKEN or --secrets-file"
                .into(),
        )
    })?;
    let url = url(cli)?;
    if !Http::new(url, Credential::None)?.is_private() {
        let why = "the token would travel in clear to another machine; give an https URL";
        return Err(Failure::Usage(why.into()));
    }
    AdminClient::new(url, &token)
}

/// The admin token, if one was given in any way; options win over the environment.
fn admin_token(cli: &Cli) -> Result<Option<String>, Failure> {
    Ok(match (said_admin_token(cli)?, &cli.admin_token, &cli.secrets_file) {
        (Some(token), _, _) => Some(token),
        (None, Some(token), _) => Some(token.clone()),
        (None, None, Some(path)) => Some(DeploymentSecrets::read(path)?.admin_token().to_owned()),
        (None, None, None) => None,
    })
}

/// The admin token, if an option gave one.
fn said_admin_token(cli: &Cli) -> Result<Option<String>, Failure> {
    let (token, file) = (cli.said_admin_token(), cli.said_secrets_file());
    Ok(match (&cli.admin_token_file, token, file) {
        (Some(path), _, _) => Some(read_token(path)?),
        (None, Some(token), _) => Some(token.to_owned()),
        (None, None, Some(path)) => Some(DeploymentSecrets::read(path)?.admin_token().to_owned()),
        (None, None, None) => None,
    })
}

/// A token of the aggregator API, if the file of secrets holds one.
fn api_token(cli: &Cli) -> Result<Option<String>, Failure> {
    let Some(path) = &cli.secrets_file else { return Ok(None) };
    Ok(DeploymentSecrets::read(path)?.api_token().map(str::to_owned))
}

fn url(cli: &Cli) -> Result<&str, Failure> {
    let url = cli.url.as_deref();
    deployment_url(url.ok_or_else(|| {
        Failure::Usage("the deployment's URL is needed: --url or DAPCTL_URL".into())
    })?)
}

/// The URL of a deployment, below which `admin/` is, and not that of its DAP.
fn deployment_url(url: &str) -> Result<&str, Failure> {
    let last = url.trim_end_matches('/').rsplit('/').next();
    let mut prefixes = DapVersion::ALL.iter().map(|version| version.path_prefix());
    match prefixes.find(|prefix| last == Some(prefix)) {
        Some(prefix) => {
            Err(Failure::Usage(format!("give the deployment's URL, without /{prefix}/")))
        }
        None => Ok(url),
    }
}

/// Why a secret of the environment does not belong to the deployment at `url`: `DAPCTL_URL` says that it is another's.
fn of_another(cli: &Cli, url: &str) -> Option<String> {
    let origin = |url: &str| Url::parse(url).ok().map(|url| url.origin());
    let exported = cli.said.url_of_environment.as_deref()?;
    (origin(exported)? != origin(url)?).then(|| {
        format!(
            "what the environment holds belongs to DAPCTL_URL, {}, and was not sent here; say with --secrets-file or \
             another option what does",
            clean(exported)
        )
    })
}

fn read_token(path: &Path) -> Result<String, Failure> {
    let shown = clean(&path.display().to_string());
    std::fs::read_to_string(path)
        .map(|text| text.trim().to_owned())
        .map_err(|e| Failure::Usage(format!("cannot read {shown}: {e}")))
}
