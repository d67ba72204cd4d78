//! `dapctl secrets`.

use std::io::IsTerminal as _;

use serde_json::json;

use crate::{
    Failure,
    admin::SecretsStatus,
    cli::{Cli, SecretsCommand, TokenOf},
    output,
    secrets_file::DeploymentSecrets,
};

pub(super) fn run(cli: &Cli, command: SecretsCommand) -> Result<(), Failure> {
    let status = match command {
        SecretsCommand::Status => super::admin(cli)?.secrets_status()?,
        SecretsCommand::Reseal => super::admin(cli)?.reseal_secrets()?,
        SecretsCommand::Token { of, show } => return token(cli, of, show),
    };
    output::print(cli.output, &text(&status, command), &json!(status))?;
    status.missing().map_or(Ok(()), |missing| Err(Failure::Wrong(missing)))
}

/// Prints a token for another program; whoever looks on is shown it only if that was asked for.
fn token(cli: &Cli, of: TokenOf, show: bool) -> Result<(), Failure> {
    if !show && std::io::stdout().is_terminal() {
        return Err(Failure::Usage(
            "this prints a secret, for another program to read; --show prints it here".into(),
        ));
    }
    let path = cli.secrets_file.as_deref().ok_or_else(|| {
        Failure::Usage(
            "the file of secrets is needed: --secrets-file or DAPCTL_SECRETS_FILE".into(),
        )
    })?;
    let secrets = DeploymentSecrets::read(path)?;
    let token = match of {
        TokenOf::Admin => secrets.admin_token(),
        TokenOf::Api => secrets.needed_api_token(path)?,
        TokenOf::Metrics => secrets.needed_metrics_token(path)?,
    };
    output::print(cli.output, token, &json!({ "token": token }))
}

fn text(status: &SecretsStatus, command: SecretsCommand) -> String {
    let mut lines = Vec::new();
    if matches!(command, SecretsCommand::Reseal) {
        lines.push(format!("sealed {} secrets with root key {}", status.resealed, status.newest));
    }
    for version in status.versions() {
        let needed: Vec<String> = status
            .needed
            .iter()
            .filter_map(|(kind, versions)| {
                Some(format!("{} {}", versions.get(&version)?, kind.replace('_', " ")))
            })
            .collect();
        let is_newest = version == status.newest;
        let mut line = match (needed.is_empty(), is_newest) {
            (true, true) => format!("root key {version}: the newest, not used yet"),
            (true, false) => format!("root key {version}: can be removed in an hour"),
            (false, true) => {
                format!("root key {version}: the newest, needed by {}", needed.join(", "))
            }
            (false, false) => format!("root key {version}: needed by {}", needed.join(", ")),
        };
        if !status.configured.contains(&version) {
            line += ", and MISSING: what needs it answers 500";
        }
        lines.push(line);
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_which_root_keys_can_go() {
        let status: SecretsStatus = serde_json::from_value(json!({
            "needed": {
                "hpke_keys": { "3": 2 },
                "verify_keys": { "3": 4, "7": 1 },
                "shard_keys": { "1": 5 },
            },
            "resealed": 6,
            "configured": [1, 2, 3],
            "newest": 3,
        }))
        .unwrap();
        assert_eq!(
            text(&status, SecretsCommand::Reseal),
            "sealed 6 secrets with root key 3\n\
             root key 1: needed by 5 shard keys\n\
             root key 2: can be removed in an hour\n\
             root key 3: the newest, needed by 2 hpke keys, 4 verify keys\n\
             root key 7: needed by 1 verify keys, and MISSING: what needs it answers 500"
        );
    }
}
