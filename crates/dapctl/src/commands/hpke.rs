//! `dapctl hpke`.

use daphne_core::{
    b64,
    hpke::HpkeKem,
    ids::HpkeConfigId,
    store::config_store::keys::{KeyInfo, KeyState},
};
use serde_json::json;

use crate::{
    Failure,
    cli::{Cli, FirstState, HpkeCommand, KemName, KeyIdArg},
    key_file, output,
};

pub(super) fn run(cli: &Cli, command: &HpkeCommand) -> Result<(), Failure> {
    let admin = super::admin(cli)?;
    let (verb, key) = match command {
        HpkeCommand::List => {
            let keys = admin.hpke_keys()?;
            let text: Vec<String> = keys.iter().map(line).collect();
            return output::print(cli.output, &text.join("\n"), &json!({ "keys": keys }));
        }
        HpkeCommand::Add { id, kem, state } => {
            let kem = kem.map(|kem| match kem {
                KemName::X25519 => HpkeKem::X25519HkdfSha256,
                KemName::P256 => HpkeKem::P256HkdfSha256,
            });
            let active = *state == FirstState::Active;
            ("added", admin.make_hpke_key(id.map(HpkeConfigId), kem, active)?)
        }
        HpkeCommand::Import { file, pin, state } => {
            let keypair = key_file::read(file)?;
            let active = *state == FirstState::Active;
            let imported = admin.import_hpke_key(&keypair, active, *pin)?;
            (if imported.created { "imported" } else { "is there already:" }, imported.key)
        }
        HpkeCommand::Activate(key) => {
            ("activated", admin.set_hpke_key_state(id(key), true, false)?)
        }
        HpkeCommand::Expire { key, force } => {
            ("expired", admin.set_hpke_key_state(id(key), false, *force)?)
        }
        HpkeCommand::Rm { key, force } => ("destroyed", admin.destroy_hpke_key(id(key), *force)?),
        HpkeCommand::Pin(key) => ("pinned", admin.pin_hpke_key(id(key), true, false)?),
        HpkeCommand::Unpin(key) => ("unpinned", admin.pin_hpke_key(id(key), false, false)?),
    };
    output::print(cli.output, &format!("{verb} {}", line(&key)), &json!(key))
}

fn id(key: &KeyIdArg) -> HpkeConfigId {
    HpkeConfigId(key.id)
}

fn line(key: &KeyInfo) -> String {
    let name = |value: serde_json::Value| {
        value.as_str().map_or_else(|| format!("unknown {value}"), str::to_owned)
    };
    let config = &key.config;
    let state = match key.state {
        KeyState::Pending => "pending".to_owned(),
        KeyState::Active { pinned: None, .. } => "active".to_owned(),
        KeyState::Active { pinned: Some(_), .. } => "active, pinned".to_owned(),
        KeyState::Expired { accepts_until, destroyed_at } => format!(
            "expired, accepts new reports until {}, destroyed at {}",
            accepts_until.as_seconds(),
            destroyed_at.as_seconds()
        ),
        KeyState::Destroyed => "destroyed".to_owned(),
    };
    format!(
        "{}  {state}  {}  {}  {}  {}",
        config.id,
        name(json!(config.kem)),
        name(json!(config.kdf)),
        name(json!(config.aead)),
        b64::encode(&config.public_key)
    )
}
