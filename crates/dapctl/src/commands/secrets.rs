//! `dapctl secrets`.

use serde_json::json;

use crate::{
    Failure,
    admin::SecretsStatus,
    cli::{Cli, SecretsCommand},
    output,
};

pub(super) fn run(cli: &Cli, command: SecretsCommand) -> Result<(), Failure> {
    let admin = super::admin(cli)?;
    let status = match command {
        SecretsCommand::Status => admin.secrets_status()?,
        SecretsCommand::Reseal => admin.reseal_secrets()?,
    };
    output::print(cli.output, &text(&status, command), &json!(status))
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
