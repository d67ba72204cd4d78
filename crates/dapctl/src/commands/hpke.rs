//! `dapctl hpke`.

use std::path::Path;

use daphne_core::{
    b64,
    codec::Writer,
    hpke::{HpkeKem, HpkeKeypair},
    ids::HpkeConfigId,
    store::config_store::keys::{KeyInfo, KeyState, Policy},
};
use serde_json::json;

use crate::{
    Failure,
    admin::AdminClient,
    cli::{Cli, FirstState, HpkeCommand, HpkePolicyArgs, KeyIdArg},
    key_file,
    output::{self, clean, utc},
    task_file,
};

pub(super) fn run(cli: &Cli, command: &HpkeCommand) -> Result<(), Failure> {
    if let HpkeCommand::Generate { id, kem, out } = command {
        return generate(cli, *id, kem.map_or(HpkeKem::X25519HkdfSha256, Into::into), out);
    }
    let admin = super::admin(cli)?;
    let (verb, key) = match command {
        HpkeCommand::List => {
            let keys = admin.hpke_keys()?;
            let text: Vec<String> = keys.iter().map(line).collect();
            return output::print(cli.output, &text.join("\n"), &json!({ "keys": keys }));
        }
        HpkeCommand::Policy(args) => return policy(cli, &admin, args),
        HpkeCommand::Generate { .. } => return Ok(()),
        HpkeCommand::Add { id, kem, state, force } => {
            let (id, kem) = (id.map(HpkeConfigId), kem.map(Into::into));
            ("added", admin.make_hpke_key(id, kem, *state == FirstState::Active, *force)?)
        }
        HpkeCommand::Import { file, pin, state, force } => {
            let keypair = key_file::read(file)?;
            let active = *state == FirstState::Active;
            let imported = if *force {
                admin.force_import_hpke_key(&keypair, active, *pin)?
            } else {
                admin.import_hpke_key(&keypair, active, *pin)?
            };
            (if imported.created { "imported" } else { "is there already:" }, imported.key)
        }
        HpkeCommand::Activate { key, force } => {
            ("activated", admin.set_hpke_key_state(id(key), true, *force)?)
        }
        HpkeCommand::Expire { key, force } => {
            ("expired", admin.set_hpke_key_state(id(key), false, *force)?)
        }
        HpkeCommand::Rm { key, force } => ("destroyed", admin.destroy_hpke_key(id(key), *force)?),
        HpkeCommand::Pin { key, force } => ("pinned", admin.pin_hpke_key(id(key), true, *force)?),
        HpkeCommand::Unpin(key) => ("unpinned", admin.pin_hpke_key(id(key), false, false)?),
        HpkeCommand::Rotate { force } => ("published", admin.rotate_hpke_keys(*force)?),
    };
    output::print(cli.output, &format!("{verb} {}", line(&key)), &json!(key))
}

/// Makes a key pair, and prints what of it is public.
fn generate(cli: &Cli, id: u8, kem: HpkeKem, out: &Path) -> Result<(), Failure> {
    let keypair = HpkeKeypair::derive(HpkeConfigId(id), kem, &task_file::random::<32>()?)
        .map_err(|e| Failure::Wrong(e.to_string()))?;
    let _ = task_file::save(out, &keypair.to_secret_json(), false)?;
    let mut w = Writer::new();
    keypair.config().write(&mut w);
    let encoded = w.finish().map(|bytes| b64::encode(&bytes)).unwrap_or_default();
    let file = out.display().to_string();
    let text = format!("made {encoded}\nkept in {}", clean(&file));
    let json = json!({ "config": keypair.config(), "encoded_config": encoded, "key_file": file });
    output::print(cli.output, &text, &json)
}

fn policy(cli: &Cli, admin: &AdminClient, args: &HpkePolicyArgs) -> Result<(), Failure> {
    let scheduled = if args.off {
        admin.set_hpke_policy(None, false)?
    } else if args.on {
        let was = admin.hpke_policy()?.policy.unwrap_or_default();
        let policy = Policy {
            pending_for: args.pending_for.unwrap_or(was.pending_for),
            active_for: args.active_for.unwrap_or(was.active_for),
            expired_for: args.expired_for.unwrap_or(was.expired_for),
            kem: args.kem.map_or(was.kem, Into::into),
        };
        admin.set_hpke_policy(Some(&policy), args.force)?
    } else {
        admin.hpke_policy()?
    };
    let mut text = match scheduled.policy {
        None => "off: keys come and go only by hand".to_owned(),
        Some(Policy { pending_for, active_for, expired_for, kem }) => format!(
            "on: {} keys are pending for {} s, active for {} s, and accept reports made up to {} s later",
            json!(kem).as_str().unwrap_or_default(),
            pending_for.as_seconds(),
            active_for.as_seconds(),
            expired_for.as_seconds()
        ),
    };
    if let Some(at) = scheduled.next_change {
        text += &format!("\nnext change of keys: {}", utc(at));
    }
    output::print(cli.output, &text, &json!(scheduled))
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
            "expired, accepts reports made until {}, is destroyed at {}",
            utc(accepts_until),
            utc(destroyed_at)
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
