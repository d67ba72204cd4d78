//! `dapctl hpke`.

use daphne_core::{
    b64,
    hpke::{HpkeConfig, HpkeKem},
    ids::HpkeConfigId,
};
use serde_json::json;

use crate::{
    Failure,
    cli::{Cli, HpkeCommand, KemName},
    output,
};

pub(super) fn run(cli: &Cli, command: &HpkeCommand) -> Result<(), Failure> {
    let admin = super::admin(cli)?;
    match command {
        HpkeCommand::Add { id, kem } => {
            let kem = kem.map(|kem| match kem {
                KemName::X25519 => HpkeKem::X25519HkdfSha256,
                KemName::P256 => HpkeKem::P256HkdfSha256,
            });
            let config = admin.add_hpke_key(id.map(HpkeConfigId), kem)?;
            output::print(cli.output, &format!("added {}", line(&config)), &json!(config))
        }
        HpkeCommand::List => {
            let keys = admin.hpke_keys()?;
            let text: Vec<String> = keys.iter().map(line).collect();
            output::print(cli.output, &text.join("\n"), &json!({ "keys": keys }))
        }
    }
}

fn line(config: &HpkeConfig) -> String {
    let name = |value: serde_json::Value| {
        value.as_str().map_or_else(|| format!("unknown {value}"), str::to_owned)
    };
    format!(
        "{}  {}  {}  {}  {}",
        config.id,
        name(json!(config.kem)),
        name(json!(config.kdf)),
        name(json!(config.aead)),
        b64::encode(&config.public_key)
    )
}
