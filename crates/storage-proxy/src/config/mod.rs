//! Tasks and HPKE keys; and [`peers`], who bring tasks along.
//!
//! Three layers: this isolate's memory (at most [`FRESH_FOR_S`] old), KV (eventually consistent, so only a cache),
//! and the `ConfigStore` (strongly consistent). A miss anywhere goes on to the next, and the `ConfigStore` alone may
//! say "no such task". Entries in KV expire by themselves, so that a write which lost a race with a deletion does
//! not bring a task back for long.

pub mod keys;
mod kv;
pub mod peers;
mod secrets;
pub mod tasks;

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    rc::Rc,
    time::Duration,
};

use daphne_core::{
    error::Internal,
    ids::TaskId,
    seal::RootKeys,
    store::{
        config_store::{ConfigRequest, ConfigResponse},
        placement::CONFIG_STORE_NAME,
    },
    task::Task,
    time::Time,
};
use worker::Env;

use crate::objects::{CONFIG_STORE, ObjectCaller};

/// Binding of the KV namespace.
pub const KV: &str = "CONFIG";
/// How long an isolate trusts what it has in memory. A deleted task may be served this much longer.
pub const FRESH_FOR_S: u64 = 60;
const CONFIG_TIMEOUT: Duration = Duration::from_secs(10);

/// Secret with the root keys.
pub const ROOT_KEYS: &str = "ROOT_KEYS";

/// The deployment's root keys.
///
/// # Errors
/// One sentence for whoever deploys: the secret is missing or malformed. Never quotes it.
pub fn root_keys(env: &Env) -> Result<RootKeys, String> {
    let text = env.secret(ROOT_KEYS).map_err(|_| format!("the secret {ROOT_KEYS} is not set"))?;
    RootKeys::parse(&text.to_string()).map_err(|e| format!("{ROOT_KEYS}: {e}"))
}

/// Configuration as one isolate sees it. Made once per isolate.
#[derive(Debug)]
pub struct Config {
    root_keys: RootKeys,
    tasks: RefCell<HashMap<TaskId, Cached<Rc<Task>>>>,
    keyring: RefCell<Option<Cached<keys::Known>>>,
    answered_with_keys_at: Cell<Option<Time>>,
    peers: peers::PeerCache,
}

#[derive(Clone, Debug)]
struct Cached<T> {
    value: T,
    since: Time,
}

impl<T: Clone> Cached<T> {
    fn fresh(&self, now: Time) -> Option<T> {
        let age = now.as_seconds().saturating_sub(self.since.as_seconds());
        (age < FRESH_FOR_S).then(|| self.value.clone())
    }
}

/// What became of a creation.
#[derive(Debug)]
pub enum Created<T> {
    /// It exists, with these parameters.
    Now(T),
    /// It existed before, with the same parameters.
    Before(T),
    /// Its id is taken, or was.
    Conflict,
}

fn broken(what: &str, why: impl std::fmt::Display) -> Internal {
    Internal::Broken(format!("{what}: {why}"))
}

fn unexpected(answer: &ConfigResponse) -> Internal {
    // Only the kind of answer: records hold sealed secrets, which have no business in a log either.
    let kind = match answer {
        ConfigResponse::Task(_) => "a task",
        ConfigResponse::Created(_) => "a creation",
        ConfigResponse::Conflict => "a conflict",
        ConfigResponse::NotFound => "nothing",
        ConfigResponse::Deleted(_) => "a deletion",
        ConfigResponse::Tasks(_) => "tasks",
        ConfigResponse::HpkeKeys(_) => "keys",
        ConfigResponse::Keys(_) => "a change of keys",
        ConfigResponse::Peers(_) => "something about peers",
        ConfigResponse::TokensRefused(_) => "a refusal of tokens",
        ConfigResponse::Secrets(_) => "secrets",
        ConfigResponse::Brought => "a task that its leader brought",
    };
    Internal::Broken(format!("the config store answered with {kind}"))
}

impl Config {
    /// Configuration whose secrets are sealed with `root_keys`.
    pub fn new(root_keys: RootKeys) -> Self {
        Self {
            root_keys,
            tasks: RefCell::default(),
            keyring: RefCell::default(),
            answered_with_keys_at: Cell::default(),
            peers: peers::PeerCache::default(),
        }
    }

    /// The root keys.
    pub fn root_keys(&self) -> &RootKeys {
        &self.root_keys
    }
}

async fn ask(env: &Env, request: &ConfigRequest) -> Result<ConfigResponse, Internal> {
    ObjectCaller::new(env.clone())
        .call(CONFIG_STORE, CONFIG_STORE_NAME, CONFIG_TIMEOUT, request)
        .await
        .map_err(Internal::from)
}
