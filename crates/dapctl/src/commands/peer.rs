//! `dapctl peer`.

use daphne_core::{
    b64,
    seal::TokenHash,
    taskprov::{PeerChange, PeerPolicy, PeerSpec, PeerView, VerifyKeyInit},
    version::DapVersion,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{
    task::{decode_config, describe, helper_url},
    token::NewToken,
};
use crate::{
    Failure,
    cli::{
        Cli, PeerAddArgs, PeerCommand, PeerSecretArgs, PeerSetArgs, PeerTokenCommand, TokenArgs,
    },
    output::{self, clean},
    peer_file::PeerFile,
    reports, task_file,
};

pub(super) fn run(cli: &Cli, command: &PeerCommand) -> Result<(), Failure> {
    match command {
        PeerCommand::Add(args) => add(cli, args),
        PeerCommand::List => {
            let peers = super::admin(cli)?.peers()?;
            let text: Vec<String> = peers.iter().map(lines).collect();
            output::print(cli.output, &text.join("\n"), &json!({ "peers": peers }))
        }
        PeerCommand::Set(args) => set(cli, args),
        PeerCommand::Rm(arg) => {
            if !super::admin(cli)?.remove_peer(&arg.endpoint)? {
                return Err(unknown());
            }
            let text = format!("removed {}", clean(&arg.endpoint));
            output::print(cli.output, &text, &json!({ "removed": arg.endpoint }))
        }
        PeerCommand::Token(PeerTokenCommand::Add { peer, token }) => {
            let (_, add_leader_token_hash) = token_or_hash(&token.given)?;
            let admin = super::admin(cli)?;
            let new = NewToken::of(token)?;
            let change = PeerChange {
                endpoint: peer.endpoint.clone(),
                add_leader_token: new.token.clone(),
                add_leader_token_hash,
                ..PeerChange::default()
            };
            let peer = new.settled(admin.change_peer(&change))?.ok_or_else(unknown)?;
            output::print(cli.output, &lines(&peer), &json!(peer))
        }
        PeerCommand::Token(PeerTokenCommand::Rm { peer, name }) => {
            let endpoint = peer.endpoint.clone();
            let remove_leader_token = Some(name.clone());
            send(cli, &PeerChange { endpoint, remove_leader_token, ..PeerChange::default() })
        }
    }
}

fn unknown() -> Failure {
    Failure::Wrong("no such peer".into())
}

fn add(cli: &Cli, args: &PeerAddArgs) -> Result<(), Failure> {
    let admin = super::admin(cli)?;
    let mut made = false;
    let (token, hash) = token_or_hash(&args.token)?;
    let leader_tokens = match (token, &hash) {
        (Some(token), _) => vec![token],
        (None, Some(_)) => vec![],
        (None, None) => {
            made = true;
            vec![b64::encode(&task_file::random::<32>()?)]
        }
    };
    let (init, collector) = secrets(&args.secrets)?;
    let verify_key_init = match init {
        Some(init) => init,
        None => {
            made = true;
            VerifyKeyInit::new(task_file::random()?)
        }
    };
    let collector_hpke_keypair = match collector {
        Some(_) => None,
        None => {
            made = true;
            Some(task_file::new_keypair()?)
        }
    };
    if made && args.save.is_none() {
        return Err(Failure::Usage(
            "secrets would be made and lost: say with --save where to keep them".into(),
        ));
    }
    let config = collector.or_else(|| collector_hpke_keypair.as_ref().map(|k| k.config().clone()));
    let file = PeerFile {
        peer: PeerSpec {
            endpoint: args.peer.endpoint.clone(),
            collector_hpke_config: config
                .ok_or_else(|| Failure::Usage("--collector-config is needed".into()))?,
            verify_key_init,
            leader_tokens,
            leader_token_hashes: hash.into_iter().collect(),
            policy: args.policy.over(PeerPolicy::default()),
        },
        helper_url: helper_url(
            super::url(cli)?,
            args.policy.helper_url.as_deref(),
            DapVersion::V09,
        )?,
        collector_hpke_keypair,
    };
    // As the helper will.
    file.peer.clone().check(reports::now()).map_err(|e| Failure::Usage(e.to_string()))?;
    let saved = args.save.as_ref().map(|path| file.save(path, args.force)).transpose()?;
    // The file was written before, so that no success can lose its secrets.
    let added = admin.add_peer(&file.peer).map_err(|error| {
        let nothing_changed = error.changed_nothing();
        match saved {
            Some(saved) if nothing_changed => match saved.undo() {
                Ok(()) => describe(error),
                Err(failure) => failure,
            },
            Some(_) => Failure::from(error).during(
                "the file is kept, as the peer may have been added; `dapctl peer list` tells",
            ),
            None => describe(error),
        }
    })?;
    let json = json!({
        "created": added.created,
        "peer": added.peer,
        "peer_file": args.save.as_ref().map(|path| path.display().to_string()),
    });
    let verb = if added.created { "added" } else { "exists" };
    let mut text = format!("{verb} {}", lines(&added.peer));
    if let Some(path) = &args.save {
        text += &format!("\nkept in {}", path.display());
    }
    output::print(cli.output, &text, &json)
}

fn set(cli: &Cli, args: &PeerSetArgs) -> Result<(), Failure> {
    let endpoint = &args.peer.endpoint;
    let peers = super::admin(cli)?.peers()?;
    let known = peers.into_iter().find(|p| p.parameters.endpoint == *endpoint);
    let policy = known.ok_or_else(unknown)?.parameters.policy;
    let changed = args.change(policy.clone())?;
    let (verify_key_init, collector_hpke_config) = secrets(&args.secrets)?;
    let change = PeerChange {
        endpoint: endpoint.clone(),
        verify_key_init,
        collector_hpke_config,
        policy: (changed != policy).then_some(changed),
        ..PeerChange::default()
    };
    send(cli, &change)
}

fn send(cli: &Cli, change: &PeerChange) -> Result<(), Failure> {
    let changed = super::admin(cli)?.change_peer(change).map_err(describe)?;
    let peer = changed.ok_or_else(unknown)?;
    output::print(cli.output, &lines(&peer), &json!(peer))
}

fn token_or_hash(args: &TokenArgs) -> Result<(Option<String>, Option<TokenHash>), Failure> {
    let hash = args.leader_token_hash.as_deref();
    let hash = hash.map(|text| parse("--leader-token-hash", text)).transpose()?;
    Ok((args.leader_token.clone(), hash))
}

type Secrets = (Option<VerifyKeyInit>, Option<daphne_core::hpke::HpkeConfig>);

fn secrets(args: &PeerSecretArgs) -> Result<Secrets, Failure> {
    let init = args.verify_key_init.as_deref();
    let init = init.map(|text| parse("--verify-key-init", text)).transpose()?;
    Ok((init, args.collector_config.as_deref().map(decode_config).transpose()?))
}

/// Reads a value of 32 bytes. Never quotes it.
fn parse<T: DeserializeOwned>(option: &str, text: &str) -> Result<T, Failure> {
    serde_json::from_value(Value::String(text.to_owned()))
        .map_err(|_| Failure::Usage(format!("{option} is not the base64url of 32 bytes")))
}

fn lines(peer: &PeerView) -> String {
    let policy = &peer.parameters.policy;
    let mut text = clean(&peer.parameters.endpoint);
    let bounds = [
        ("min batch", policy.min_batch_size_min),
        ("max queries", policy.max_batch_query_count_max),
        ("max lifetime s", policy.lifetime_max.map(|d| d.as_seconds())),
    ];
    for (name, bound) in bounds {
        if let Some(bound) = bound {
            text += &format!("  {name} {bound}");
        }
    }
    for token in &peer.leader_tokens {
        text += &format!("\n  token {}  added {}", clean(&token.name), token.added.as_seconds());
    }
    text
}
