//! `dapctl task import` and `dapctl task export`.

use std::{collections::BTreeMap, time::Duration};

use daphne_core::{hpke::HpkeKeypair, store::config_store::keys::KeyState};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::task::{describe, unknown};
use crate::{
    Failure,
    admin::AdminClient,
    cli::{Cli, ExportArgs, ImportArgs},
    http::ClientError,
    janus_tasks::{self, ImportedTask},
    output::{self, clean},
    task_file,
};

/// A file may hold more tasks than an operator may create in a minute.
const WAIT: Duration = Duration::from_secs(15);
const WAITS_MAX: usize = 20;

pub(super) fn run(cli: &Cli, args: &ImportArgs) -> Result<(), Failure> {
    let text = Zeroizing::new(task_file::read_text(&args.file)?);
    let shown = clean(&args.file.display().to_string());
    let tasks = janus_tasks::parse(&text, args.report_expiry_age).map_err(|e| e.during(&shown))?;
    let keys = if args.no_keys { BTreeMap::new() } else { distinct_keys(&tasks)? };
    let ids: Vec<_> = tasks.iter().map(|task| task.spec.task_id).collect();
    let unlimited = tasks.iter().filter(|task| task.retention_is_ours).count();
    let mut notes = String::new();
    if unlimited > 0 && args.report_expiry_age.is_none() {
        notes = format!(
            "\n{unlimited} have no report_expiry_age, and get 14 days; --report-expiry-age says another"
        );
    }
    if args.check {
        let text = format!("{} tasks and {} HPKE keys are good{notes}", tasks.len(), keys.len());
        let json = json!({ "checked": ids, "hpke_keys": keys.keys().collect::<Vec<_>>() });
        return output::print(cli.output, &text, &json);
    }
    let admin = super::admin(cli)?;
    // Keys first: a report that comes before its key would be refused for good.
    let mut imported = Vec::new();
    for (id, keypair) in keys {
        let new = import_key(&admin, keypair).map_err(|e| {
            describe(e).during(&format!("HPKE key {id} was not imported (--no-keys leaves keys)"))
        })?;
        imported.push(json!({ "id": id, "created": new }));
    }
    let mut outcomes: Vec<Value> = Vec::new();
    let mut created = 0;
    for task in &tasks {
        let outcome = patiently(|| admin.create_task(&task.spec)).map_err(|e| {
            let id = task.spec.task_id.map(|id| id.to_string()).unwrap_or_default();
            describe(e).during(&format!("task {id}, after {} others", outcomes.len()))
        })?;
        created += usize::from(outcome.created);
        outcomes.push(json!({ "task_id": outcome.task.task_id, "created": outcome.created }));
    }
    let text = format!(
        "created {created} tasks, {} existed; {} HPKE keys are there{notes}",
        outcomes.len() - created,
        imported.len()
    );
    output::print(cli.output, &text, &json!({ "tasks": outcomes, "hpke_keys": imported }))
}

/// Keys are the deployment's here and not a task's, so one id can be one key only.
fn distinct_keys(tasks: &[ImportedTask]) -> Result<BTreeMap<u8, &HpkeKeypair>, Failure> {
    let mut keys: BTreeMap<u8, &HpkeKeypair> = BTreeMap::new();
    for keypair in tasks.iter().flat_map(|task| &task.hpke_keys) {
        let id = keypair.config().id.0;
        let known = *keys.entry(id).or_insert(keypair);
        if known.config() != keypair.config() {
            return Err(Failure::Usage(format!(
                "two tasks have different HPKE keys with the id {id}, and here an id is one key; --no-keys leaves keys"
            )));
        }
    }
    Ok(keys)
}

/// Has the helper open reports that are sealed to this key, without publishing it. Whether it is new.
fn import_key(admin: &AdminClient, keypair: &HpkeKeypair) -> Result<bool, ClientError> {
    let imported = patiently(|| admin.import_hpke_key(keypair, false, false))?;
    // A pending key would be published by the next rotation.
    if imported.key.state == KeyState::Pending {
        patiently(|| admin.set_hpke_key_state(keypair.config().id, false, false))?;
    }
    Ok(imported.created)
}

/// Asks again where we ask too often.
fn patiently<T>(mut ask: impl FnMut() -> Result<T, ClientError>) -> Result<T, ClientError> {
    for _ in 0..WAITS_MAX {
        match ask() {
            Err(ClientError::Problem(problem)) if problem.status == 429 => std::thread::sleep(WAIT),
            other => return other,
        }
    }
    ask()
}

pub(super) fn export(cli: &Cli, args: &ExportArgs) -> Result<(), Failure> {
    let admin = super::admin(cli)?;
    let tasks = if args.task_ids.is_empty() {
        admin.all_tasks()?
    } else {
        let one = |id| admin.task(id)?.ok_or_else(unknown);
        args.task_ids.iter().map(one).collect::<Result<_, Failure>>()?
    };
    let json = json!({ "tasks": tasks });
    output::print(cli.output, &format!("{json:#}"), &json)
}
