//! `dapctl init`.

use std::path::{Path, PathBuf};

use serde_json::json;

use crate::{
    Failure,
    admin::AdminClient,
    cli::{Cli, EnvironmentName, InitArgs},
    output::{self, clean},
    secrets_file::DeploymentSecrets,
    wrangler::Checkout,
};

pub(super) fn run(cli: &Cli, args: &InitArgs) -> Result<(), Failure> {
    let path = match args.out.as_deref().or(cli.said_secrets_file()) {
        Some(path) => path.to_owned(),
        None => secrets_path(&Checkout::around(Path::new("."))?, args.env),
    };
    let file = clean(&path.display().to_string());
    // With a URL, init is also what makes the first key where that was missed: then the secrets are those that are there.
    // The environment's URL may be another deployment's.
    let url = cli.said_url().map(super::deployment_url).transpose()?;
    let created = !(path.exists() && url.is_some());
    let secrets = if created {
        let secrets = DeploymentSecrets::generate()?;
        secrets.save(&path, args.env == EnvironmentName::Dev)?;
        secrets
    } else {
        DeploymentSecrets::read(&path)?
    };
    let mut text = if created {
        format!(
            "made ROOT_KEYS, ADMIN_TOKENS, AGGREGATOR_API_TOKENS and METRICS_TOKENS, kept in {file}\n\
             back this file up where you keep secrets: what a lost root key sealed cannot be opened again"
        )
    } else {
        format!("kept {file} as it is")
    };
    let mut json = json!({ "created": created, "secrets_file": path.display().to_string() });
    if let Some(url) = url {
        let key = AdminClient::new(url, secrets.admin_token()).and_then(|admin| first_key(&admin));
        let what = if created { "was made and is kept" } else { "is as it was" };
        let key =
            key.map_err(|e| e.during(&format!("{file} {what}, but no HPKE key was seen to")))?;
        text += &format!("\n{}", key.text());
        json["hpke_key"] = key.json();
    }
    if args.show {
        let shown = secrets.to_json()?;
        text += &format!("\n{shown}");
        json["secrets"] = serde_json::from_str(&shown).unwrap_or_default();
    }
    if created {
        text += match args.env {
            EnvironmentName::Dev => "\nnext: wrangler dev",
            EnvironmentName::Staging => "\nnext: dapctl deploy --env staging",
            EnvironmentName::Production => "\nnext: dapctl deploy --env production",
        };
    }
    output::print(cli.output, &text, &json)
}

/// Where an environment's secrets are kept in a checkout.
pub(super) fn secrets_path(checkout: &Checkout, environment: EnvironmentName) -> PathBuf {
    checkout.root().join(environment.secrets_file())
}

/// What is published.
pub(super) enum FirstKey {
    /// Nothing was, and now a new key is.
    Made(u8),
    /// So many keys were, and are.
    There(usize),
}

impl FirstKey {
    pub(super) fn text(&self) -> String {
        match self {
            Self::Made(id) => format!("made HPKE key {id}, which is published"),
            Self::There(1) => "an HPKE key is published already".into(),
            Self::There(n) => format!("{n} HPKE keys are published already"),
        }
    }

    pub(super) fn json(&self) -> serde_json::Value {
        match self {
            Self::Made(id) => json!({ "created": true, "id": id }),
            Self::There(n) => json!({ "created": false, "published": n }),
        }
    }
}

/// Sees that a key is published.
pub(super) fn first_key(admin: &AdminClient) -> Result<FirstKey, Failure> {
    let describe = super::task::describe;
    let keys = admin.hpke_keys().map_err(describe)?;
    match keys.iter().filter(|key| key.state.is_active()).count() {
        0 => Ok(FirstKey::Made(admin.add_hpke_key(None, None).map_err(describe)?.id.0)),
        n => Ok(FirstKey::There(n)),
    }
}
