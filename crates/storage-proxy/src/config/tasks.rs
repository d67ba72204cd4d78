//! Tasks.

use std::rc::Rc;

use daphne_core::{
    aggregator_api::IssuedToken,
    error::Internal,
    ids::TaskId,
    seal::TokenHash,
    store::config_store::{
        ConfigRequest, ConfigResponse,
        expiration::{Brought, ExpirationRequest},
        tokens::{TokenChange, TokenRefusal, TokenRequest},
    },
    task::{StoredTask, Task, TaskParameters},
    time::{Duration as Lifetime, Time},
};
use worker::Env;

use super::{Cached, Config, Created, ask, broken, kv, unexpected};
use crate::random;

const TASKS_IN_MEMORY_MAX: usize = 1_000;

impl Config {
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
        match self.task_at_hand(env, id, now).await {
            Some(task) => Ok(Some(task)),
            None => self.task_asked_for(env, id, now).await,
        }
    }

    /// A task that this isolate or KV knows; `None` says nothing.
    pub async fn task_at_hand(&self, env: &Env, id: &TaskId, now: Time) -> Option<Rc<Task>> {
        if let Some(task) = self.tasks.borrow().get(id).and_then(|c| c.fresh(now)) {
            return Some(task);
        }
        // What does not open may have been written by other code during a deploy: the `ConfigStore` has the truth.
        let cached = kv::get(env, &task_key(id)).await.and_then(|r| self.open_task(&r).ok());
        let task = Rc::new(cached?);
        self.remember(*id, task.clone(), now);
        Some(task)
    }

    /// A task as the `ConfigStore` has it, or `None` if there is none.
    ///
    /// # Errors
    /// As [`Config::task`].
    pub async fn task_asked_for(
        &self,
        env: &Env,
        id: &TaskId,
        now: Time,
    ) -> Result<Option<Rc<Task>>, Internal> {
        let Some(task) = self.task_from_store(env, id).await?.map(Rc::new) else {
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
        kv::put(env, &task_key(id), &record).await;
        // A change that came between reading and copying would be undone for as long as the copy lives.
        match stored_task(env, id).await? {
            Some(same) if same == record => Ok(Some(task)),
            Some(newer) => {
                kv::put(env, &task_key(id), &newer).await;
                self.open_task(&newer).map(Some)
            }
            None => {
                kv::delete(env, &task_key(id)).await;
                Ok(None)
            }
        }
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
        Ok(match self.create(env, task).await? {
            Created::Now(task) => Created::Now(task.parameters),
            Created::Before(task) => Created::Before(task.parameters),
            Created::Conflict => Created::Conflict,
        })
    }

    /// Creates a task as [`Config::create_task`] does, and returns it as it is stored.
    ///
    /// # Errors
    /// Ours: the outcome is unknown, and the same creation may be tried again.
    pub async fn provision_task(&self, env: &Env, task: &Task) -> Result<Created<Task>, Internal> {
        self.create(env, task).await
    }

    /// A task as the `ConfigStore` has it now, and not as a copy may have it; `None` if there is none.
    ///
    /// # Errors
    /// Ours.
    pub async fn stored_task(&self, env: &Env, id: &TaskId) -> Result<Option<Task>, Internal> {
        stored_task(env, id).await?.map(|record| self.open_task(&record)).transpose()
    }

    /// Stores a task that its leader brought along, unless somebody did before, and returns it as it is stored. `None` if
    /// it was deleted: it does not come back.
    ///
    /// # Errors
    /// Ours: the outcome is unknown, and the same task may be brought again.
    pub async fn opt_in(
        &self,
        env: &Env,
        task: Task,
        now: Time,
    ) -> Result<Option<Rc<Task>>, Internal> {
        let id = *task.id();
        let task = match self.create(env, &task).await? {
            Created::Now(task) | Created::Before(task) => Some(task),
            // An operator created it a moment ago with this id, or deleted it.
            Created::Conflict => self.task_from_store(env, &id).await?,
        };
        let task = task.map(Rc::new);
        if let Some(task) = &task {
            self.remember(id, task.clone(), now);
        }
        Ok(task)
    }

    async fn create(&self, env: &Env, task: &Task) -> Result<Created<Task>, Internal> {
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
            ConfigResponse::Created(kept) if kept == record => {
                kv::put(env, &task_key(&id), &kept).await;
                Ok(Created::Now(self.open_task(&kept)?))
            }
            // Whoever created it wrote the copy.
            ConfigResponse::Created(kept) => Ok(Created::Before(self.open_task(&kept)?)),
            ConfigResponse::Conflict => Ok(Created::Conflict),
            other => Err(unexpected(&other)),
        }
    }

    /// Deletes a task for good; its objects forget everything `purge_after` later, by default its retention. Returns
    /// whether it existed. Other isolates may serve it for [`super::FRESH_FOR_S`] and as long as KV takes to agree.
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
        kv::delete(env, &task_key(id)).await;
        self.tasks.borrow_mut().remove(id);
        Ok(existed)
    }

    /// Hashes of the tokens that a task's leader may present, as the `ConfigStore` has them; `None` if there is no such
    /// task.
    ///
    /// # Errors
    /// Ours.
    pub async fn leader_tokens(
        &self,
        env: &Env,
        id: &TaskId,
    ) -> Result<Option<Vec<TokenHash>>, Internal> {
        stored_task(env, id).await?.map(|record| token_hashes(&record)).transpose()
    }

    /// Changes the tokens that a task's leader may present. Other isolates may act on the old ones for [`super::FRESH_FOR_S`]
    /// and as long as KV takes to agree.
    ///
    /// # Errors
    /// Ours: the outcome is unknown, and the same may be tried again.
    pub async fn change_leader_tokens(
        &self,
        env: &Env,
        task: TaskId,
        change: TokenChange,
    ) -> Result<ChangedTokens, Internal> {
        let request = ConfigRequest::Tokens(TokenRequest { task, change });
        match ask(env, &request).await? {
            ConfigResponse::Task(record) => {
                self.publish_task(env, &task, &record).await;
                token_hashes(&record).map(ChangedTokens::Now)
            }
            ConfigResponse::TokensRefused(why) => Ok(ChangedTokens::Refused(why)),
            ConfigResponse::NotFound => Ok(ChangedTokens::NoSuchTask),
            other => Err(unexpected(&other)),
        }
    }

    /// Has the leader present `issued`, unless the token that was issued before still works; returns the task with the one
    /// that does.
    ///
    /// # Errors
    /// Ours: the outcome is unknown, and the same may be tried again.
    pub async fn issue_leader_token(
        &self,
        env: &Env,
        task: TaskId,
        issued: IssuedToken,
    ) -> Result<ChangedTask<TokenRefusal>, Internal> {
        let change = TokenChange::Issue(issued);
        match ask(env, &ConfigRequest::Tokens(TokenRequest { task, change })).await? {
            ConfigResponse::Task(record) => {
                self.publish_task(env, &task, &record).await;
                self.open_task(&record).map(|task| ChangedTask::Now(Box::new(task)))
            }
            ConfigResponse::TokensRefused(why) => Ok(ChangedTask::Refused(why)),
            ConfigResponse::NotFound => Ok(ChangedTask::NoSuchTask),
            other => Err(unexpected(&other)),
        }
    }

    /// Changes when a task ends. Other isolates may act on the old end for [`super::FRESH_FOR_S`] and as long as KV takes to
    /// agree. Refused of a task that its leader brought along.
    ///
    /// # Errors
    /// Ours: the outcome is unknown, and the same may be tried again.
    pub async fn set_task_expiration(
        &self,
        env: &Env,
        task: TaskId,
        expiration: Option<Time>,
    ) -> Result<ChangedTask<Brought>, Internal> {
        let request = ConfigRequest::SetExpiration(ExpirationRequest { task, expiration });
        match ask(env, &request).await? {
            ConfigResponse::Task(record) => {
                self.publish_task(env, &task, &record).await;
                self.open_task(&record).map(|task| ChangedTask::Now(Box::new(task)))
            }
            ConfigResponse::Brought => Ok(ChangedTask::Refused(Brought)),
            ConfigResponse::NotFound => Ok(ChangedTask::NoSuchTask),
            other => Err(unexpected(&other)),
        }
    }

    /// After a change: this isolate and KV have it at once.
    async fn publish_task(&self, env: &Env, id: &TaskId, record: &[u8]) {
        kv::put(env, &task_key(id), record).await;
        self.tasks.borrow_mut().remove(id);
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
}

/// What became of a change of a task.
#[derive(Debug)]
pub enum ChangedTask<R> {
    /// The task as it is now.
    Now(Box<Task>),
    /// Nothing was changed.
    Refused(R),
    /// There is no such task.
    NoSuchTask,
}

/// What became of a change of a leader's tokens.
#[derive(Debug)]
pub enum ChangedTokens {
    /// Hashes of the tokens that the leader may present now.
    Now(Vec<TokenHash>),
    /// Nothing was changed.
    Refused(TokenRefusal),
    /// There is no such task.
    NoSuchTask,
}

fn token_hashes(record: &[u8]) -> Result<Vec<TokenHash>, Internal> {
    serde_json::from_slice::<StoredTask>(record)
        .map(|stored| stored.leader_token_hashes)
        .map_err(|e| broken("a stored task", e))
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
