//! Tasks and HPKE keys.
//!
//! Three layers: this isolate's memory (at most [`FRESH_FOR_S`] old), KV (eventually consistent, so only a cache),
//! and the `ConfigStore` (strongly consistent). A miss anywhere goes on to the next, and the `ConfigStore` alone may
//! say "no such task". Entries in KV expire by themselves, so that a write which lost a race with a deletion does
//! not bring a task back for long.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    rc::Rc,
    time::Duration,
};

use daphne_core::{
    aggregate::helper::HpkeKeyring,
    b64,
    error::Internal,
    hpke::{HpkeConfig, HpkeKem, HpkeKeypair},
    ids::{HpkeConfigId, TaskId},
    seal::RootKeys,
    store::{
        config_store::{ConfigRequest, ConfigResponse},
        placement::CONFIG_STORE_NAME,
    },
    task::{StoredTask, Task, TaskParameters},
    time::{Duration as Lifetime, Time},
};
use serde::{Deserialize, Serialize};
use worker::{Env, kv::KvStore};
use zeroize::Zeroizing;

use crate::{
    objects::{CONFIG_STORE, ObjectCaller},
    random,
};

/// Binding of the KV namespace.
pub const KV: &str = "CONFIG";
/// How long an isolate trusts what it has in memory. A deleted task may be served this much longer.
pub const FRESH_FOR_S: u64 = 60;
const KV_EXPIRES_AFTER_S: u64 = 3_600;
const KV_CACHE_TTL_S: u64 = 60;
const TASKS_IN_MEMORY_MAX: usize = 1_000;
const CONFIG_TIMEOUT: Duration = Duration::from_secs(10);
const HPKE_KV_KEY: &str = "hpke";

/// Configuration as one isolate sees it. Made once per isolate.
#[derive(Debug)]
pub struct Config {
    root_keys: RootKeys,
    tasks: RefCell<HashMap<TaskId, Cached<Rc<Task>>>>,
    keyring: RefCell<Option<Cached<Rc<HpkeKeyring>>>>,
    answered_with_keys_at: Cell<Option<Time>>,
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

/// An HPKE key pair at rest.
#[derive(Serialize, Deserialize)]
struct StoredHpkeKey {
    config: HpkeConfig,
    #[serde(with = "b64::serde_b64")]
    sealed_private_key: Vec<u8>,
}

fn hpke_label(id: HpkeConfigId) -> String {
    format!("private key of HPKE configuration {id}")
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
        ConfigResponse::Added => "an addition",
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
        }
    }

    /// The root keys.
    pub fn root_keys(&self) -> &RootKeys {
        &self.root_keys
    }

    /// A task, or `None` if there is none.
    ///
    /// # Errors
    /// Ours: nothing could say, or the stored task does not open.
    pub async fn task(
        &self,
        env: &Env,
        id: &TaskId,
        now: Time,
    ) -> Result<Option<Rc<Task>>, Internal> {
        if let Some(task) = self.tasks.borrow().get(id).and_then(|c| c.fresh(now)) {
            return Ok(Some(task));
        }
        // What does not open may have been written by other code during a deploy: the `ConfigStore` has the truth.
        let cached = kv_get(env, &task_key(id)).await.and_then(|r| self.open_task(&r).ok());
        let task = match cached {
            Some(task) => Some(task),
            None => self.task_from_store(env, id).await?,
        };
        let Some(task) = task.map(Rc::new) else {
            self.tasks.borrow_mut().remove(id);
            return Ok(None);
        };
        self.remember(*id, task.clone(), now);
        Ok(Some(task))
    }

    /// The task as the `ConfigStore` has it, copied to KV.
    async fn task_from_store(&self, env: &Env, id: &TaskId) -> Result<Option<Task>, Internal> {
        let Some(record) = stored_task(env, id).await? else {
            return Ok(None);
        };
        let task = self.open_task(&record)?;
        kv_put(env, &task_key(id), &record).await;
        // A deletion that came between reading and copying would be undone for as long as the copy lives.
        if stored_task(env, id).await?.is_none() {
            kv_delete(env, &task_key(id)).await;
            return Ok(None);
        }
        Ok(Some(task))
    }

    fn open_task(&self, record: &[u8]) -> Result<Task, Internal> {
        let stored: StoredTask =
            serde_json::from_slice(record).map_err(|e| broken("a stored task", e))?;
        stored.open(&self.root_keys).map_err(|e| broken("a stored task", e))
    }

    fn remember(&self, id: TaskId, task: Rc<Task>, now: Time) {
        let mut tasks = self.tasks.borrow_mut();
        if tasks.len() >= TASKS_IN_MEMORY_MAX {
            tasks.retain(|_, cached| cached.fresh(now).is_some());
        }
        if tasks.len() >= TASKS_IN_MEMORY_MAX {
            tasks.clear();
        }
        tasks.insert(id, Cached { value: task, since: now });
    }

    /// Creates a task. A repeat with the same parameters succeeds.
    ///
    /// # Errors
    /// Ours: the outcome is unknown, and the same creation may be tried again.
    pub async fn create_task(
        &self,
        env: &Env,
        task: &Task,
    ) -> Result<Created<TaskParameters>, Internal> {
        let id = *task.id();
        let stored = task.seal(&self.root_keys, random::bytes());
        let record = serde_json::to_vec(&stored).map_err(|e| broken("a task", e))?;
        let request = ConfigRequest::CreateTask {
            id,
            identity: task.identity(),
            record: record.clone(),
            objects: task.parameters.objects(),
            expiration: task.parameters.task_expiration,
        };
        match ask(env, &request).await? {
            ConfigResponse::Created(kept) => {
                kv_put(env, &task_key(&id), &kept).await;
                let parameters = self.open_task(&kept)?.parameters;
                Ok(if kept == record {
                    Created::Now(parameters)
                } else {
                    Created::Before(parameters)
                })
            }
            ConfigResponse::Conflict => Ok(Created::Conflict),
            other => Err(unexpected(&other)),
        }
    }

    /// Deletes a task for good; its objects forget everything `purge_after` later, by default its retention. Returns
    /// whether it existed. Other isolates may serve it for [`FRESH_FOR_S`] and as long as KV takes to agree.
    ///
    /// # Errors
    /// Ours: the outcome is unknown.
    pub async fn delete_task(
        &self,
        env: &Env,
        id: &TaskId,
        purge_after: Option<Lifetime>,
    ) -> Result<bool, Internal> {
        let Some(record) = stored_task(env, id).await? else {
            return Ok(false);
        };
        // Not opened: a task whose root key is lost can still be deleted.
        let stored: StoredTask =
            serde_json::from_slice(&record).map_err(|e| broken("a stored task", e))?;
        let objects = stored.parameters.objects();
        let request = ConfigRequest::DeleteTask { objects, purge_after };
        let existed = match ask(env, &request).await? {
            ConfigResponse::Deleted(existed) => existed,
            ConfigResponse::NotFound => false,
            other => return Err(unexpected(&other)),
        };
        kv_delete(env, &task_key(id)).await;
        self.tasks.borrow_mut().remove(id);
        Ok(existed)
    }

    /// Parameters of tasks by ascending id, at most `limit`, after `after`.
    ///
    /// # Errors
    /// Ours.
    pub async fn tasks(
        &self,
        env: &Env,
        after: Option<TaskId>,
        limit: u32,
    ) -> Result<Vec<TaskParameters>, Internal> {
        match ask(env, &ConfigRequest::ListTasks { after, limit }).await? {
            ConfigResponse::Tasks(records) => records
                .iter()
                .map(|record| {
                    serde_json::from_slice::<StoredTask>(record)
                        .map(|stored| stored.parameters)
                        .map_err(|e| broken("a stored task", e))
                })
                .collect(),
            other => Err(unexpected(&other)),
        }
    }

    /// Our HPKE keys in published order: newest first.
    ///
    /// # Errors
    /// Ours.
    pub async fn keyring(&self, env: &Env, now: Time) -> Result<Rc<HpkeKeyring>, Internal> {
        if let Some(ring) = self.keyring.borrow().as_ref().and_then(|c| c.fresh(now)) {
            return Ok(ring);
        }
        let cached = kv_get(env, HPKE_KV_KEY)
            .await
            .and_then(|value| serde_json::from_slice(&value).ok())
            .and_then(|records| self.keep_keyring(records, now).ok());
        match cached {
            Some(ring) => Ok(ring),
            None => self.refresh_keyring(env, now).await,
        }
    }

    /// Our HPKE keys, for a report sealed to one that `ring` does not have: as the `ConfigStore` has them, unless it
    /// answered within this second. Clients can cause this with each report.
    ///
    /// # Errors
    /// Ours.
    pub async fn keyring_beyond(
        &self,
        ring: Rc<HpkeKeyring>,
        env: &Env,
        now: Time,
    ) -> Result<Rc<HpkeKeyring>, Internal> {
        if self.answered_with_keys_at.get() == Some(now) {
            let newest = self.keyring.borrow().as_ref().map(|cached| cached.value.clone());
            return Ok(newest.unwrap_or(ring));
        }
        self.refresh_keyring(env, now).await
    }

    /// Our HPKE keys as the `ConfigStore` has them.
    ///
    /// # Errors
    /// Ours.
    pub async fn refresh_keyring(&self, env: &Env, now: Time) -> Result<Rc<HpkeKeyring>, Internal> {
        let records = self.stored_keys(env).await?;
        self.answered_with_keys_at.set(Some(now));
        // Clients can cause refreshes, and a write to KV is what costs: only news is written.
        let is_news = self.keyring.borrow().as_ref().is_none_or(|cached| {
            !cached.value.keys().iter().map(|k| k.config()).eq(records.iter().map(|r| &r.config))
        });
        if is_news && !records.is_empty() {
            let value = serde_json::to_vec(&records).map_err(|e| broken("HPKE keys", e))?;
            kv_put(env, HPKE_KV_KEY, &value).await;
        }
        self.keep_keyring(records, now)
    }

    /// The public halves of our HPKE keys, newest first. They are listed even if a private half does not open, because
    /// its root key is missing.
    ///
    /// # Errors
    /// Ours.
    pub async fn hpke_configs(&self, env: &Env) -> Result<Vec<HpkeConfig>, Internal> {
        Ok(self.stored_keys(env).await?.into_iter().map(|key| key.config).collect())
    }

    async fn stored_keys(&self, env: &Env) -> Result<Vec<StoredHpkeKey>, Internal> {
        match ask(env, &ConfigRequest::ListHpkeKeys).await? {
            ConfigResponse::HpkeKeys(keys) => keys
                .iter()
                .rev()
                .map(|(_, record)| {
                    serde_json::from_slice(record).map_err(|e| broken("a stored HPKE key", e))
                })
                .collect(),
            other => Err(unexpected(&other)),
        }
    }

    fn keep_keyring(
        &self,
        records: Vec<StoredHpkeKey>,
        now: Time,
    ) -> Result<Rc<HpkeKeyring>, Internal> {
        let mut keys = Vec::with_capacity(records.len());
        for record in records {
            let private_key = self
                .root_keys
                .open(&hpke_label(record.config.id), &record.sealed_private_key)
                .map_err(|e| broken("an HPKE key", e))?;
            keys.push(
                HpkeKeypair::from_parts(record.config, private_key)
                    .map_err(|e| broken("an HPKE key", e))?,
            );
        }
        let ring = Rc::new(HpkeKeyring::new(keys));
        *self.keyring.borrow_mut() = Some(Cached { value: ring.clone(), since: now });
        Ok(ring)
    }

    /// Makes and stores an HPKE key with this id, or the lowest free one.
    ///
    /// # Errors
    /// Ours.
    pub async fn create_hpke_key(
        &self,
        env: &Env,
        id: Option<HpkeConfigId>,
        kem: HpkeKem,
        now: Time,
    ) -> Result<Created<HpkeConfig>, Internal> {
        let used: Vec<HpkeConfigId> =
            self.stored_keys(env).await?.iter().map(|k| k.config.id).collect();
        let free = (0..=u8::MAX).map(HpkeConfigId).find(|id| !used.contains(id));
        let Some(id) = id.or(free).filter(|id| !used.contains(id)) else {
            return Ok(Created::Conflict);
        };
        let ikm: Zeroizing<[u8; 64]> = Zeroizing::new(random::bytes());
        let keypair =
            HpkeKeypair::derive(id, kem, ikm.as_slice()).map_err(|e| broken("an HPKE key", e))?;
        let stored = StoredHpkeKey {
            config: keypair.config().clone(),
            sealed_private_key: self.root_keys.seal(
                &hpke_label(id),
                keypair.private_key(),
                random::bytes(),
            ),
        };
        let record = serde_json::to_vec(&stored).map_err(|e| broken("an HPKE key", e))?;
        match ask(env, &ConfigRequest::AddHpkeKey { id: id.0, record }).await? {
            ConfigResponse::Added => {
                // It is stored. That another key does not open is said when it is needed.
                let _ = self.refresh_keyring(env, now).await;
                Ok(Created::Now(stored.config))
            }
            ConfigResponse::Conflict => Ok(Created::Conflict),
            other => Err(unexpected(&other)),
        }
    }
}

fn task_key(id: &TaskId) -> String {
    format!("task/{id}")
}

async fn stored_task(env: &Env, id: &TaskId) -> Result<Option<Vec<u8>>, Internal> {
    match ask(env, &ConfigRequest::GetTask(*id)).await? {
        ConfigResponse::Task(record) => Ok(Some(record)),
        ConfigResponse::NotFound => Ok(None),
        other => Err(unexpected(&other)),
    }
}

async fn ask(env: &Env, request: &ConfigRequest) -> Result<ConfigResponse, Internal> {
    ObjectCaller::new(env.clone())
        .call(CONFIG_STORE, CONFIG_STORE_NAME, CONFIG_TIMEOUT, request)
        .await
        .map_err(Internal::from)
}

/// KV is a cache: whatever goes wrong with it is a miss.
async fn kv_get(env: &Env, key: &str) -> Option<Vec<u8>> {
    let kv: KvStore = env.kv(KV).ok()?;
    kv.get(key).cache_ttl(KV_CACHE_TTL_S).bytes().await.ok().flatten()
}

async fn kv_delete(env: &Env, key: &str) {
    if let Ok(kv) = env.kv(KV) {
        // Entries expire by themselves, should this fail.
        let _ = kv.delete(key).await;
    }
}

async fn kv_put(env: &Env, key: &str, value: &[u8]) {
    if let Ok(put) = env.kv(KV).and_then(|kv| Ok(kv.put_bytes(key, value)?)) {
        let _ = put.expiration_ttl(KV_EXPIRES_AFTER_S).execute().await;
    }
}
