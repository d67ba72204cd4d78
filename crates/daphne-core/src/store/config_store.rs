//! The `ConfigStore`: what must be strongly consistent about tasks and HPKE keys. KV only caches it.
//!
//! One object serves a deployment; it is asked when KV has no answer, and when an operator changes something. Records
//! are opaque here: secrets in them are sealed before they come ([`crate::seal`]).

use serde::{Deserialize, Serialize};

use super::{Database, StoreResult};
use crate::ids::TaskId;

/// Most tasks in one page of a listing.
pub const TASKS_PAGE_MAX: u32 = 500;

/// What is stored about a task id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskEntry {
    /// Digest of the parameters the task was created with; tells a repeat from a conflict.
    pub identity: [u8; 32],
    /// The task's record; `None` for a deleted task. Its id is never used again: replay state may outlive it.
    pub record: Option<Vec<u8>>,
}

/// Tables of the `ConfigStore`.
pub trait ConfigTables {
    /// What is stored about a task id.
    ///
    /// # Errors
    /// The database's.
    fn task(&mut self, id: &TaskId) -> StoreResult<Option<TaskEntry>>;
    /// Writes a task's entry (1 row).
    ///
    /// # Errors
    /// The database's.
    fn put_task(&mut self, id: &TaskId, entry: &TaskEntry) -> StoreResult<()>;
    /// Records of tasks that are not deleted, by ascending id, after `after`.
    ///
    /// # Errors
    /// The database's.
    fn tasks(&mut self, after: Option<&TaskId>, limit: u32) -> StoreResult<Vec<Vec<u8>>>;
    /// All HPKE key records, oldest first.
    ///
    /// # Errors
    /// The database's.
    fn hpke_keys(&mut self) -> StoreResult<Vec<(u8, Vec<u8>)>>;
    /// Adds an HPKE key record as the newest (1 row).
    ///
    /// # Errors
    /// The database's.
    fn insert_hpke_key(&mut self, id: u8, record: &[u8]) -> StoreResult<()>;
}

/// A request to the `ConfigStore`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConfigRequest {
    /// Read a task's record.
    GetTask(TaskId),
    /// Create a task. Idempotent by identity.
    CreateTask {
        /// Its id.
        id: TaskId,
        /// Digest of its parameters.
        identity: [u8; 32],
        /// Its record.
        #[serde(with = "serde_bytes")]
        record: Vec<u8>,
    },
    /// Delete a task for good. Idempotent.
    DeleteTask(TaskId),
    /// List tasks by ascending id.
    ListTasks {
        /// Exclusive lower bound.
        after: Option<TaskId>,
        /// At most this many, and at most [`TASKS_PAGE_MAX`].
        limit: u32,
    },
    /// All HPKE key records, oldest first.
    ListHpkeKeys,
    /// Add an HPKE key. Idempotent: the same record again succeeds.
    AddHpkeKey {
        /// Configuration id.
        id: u8,
        /// Its record.
        #[serde(with = "serde_bytes")]
        record: Vec<u8>,
    },
}

/// What the `ConfigStore` answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConfigResponse {
    /// A task's record.
    Task(#[serde(with = "serde_bytes")] Vec<u8>),
    /// The task was created, or exists with these parameters: its record as stored.
    Created(#[serde(with = "serde_bytes")] Vec<u8>),
    /// The id is taken by other content, or was.
    Conflict,
    /// No such task, or it was deleted.
    NotFound,
    /// Deleted; `true` if it existed until now.
    Deleted(bool),
    /// Task records.
    Tasks(Vec<Vec<u8>>),
    /// HPKE key records.
    HpkeKeys(Vec<(u8, Vec<u8>)>),
    /// The key is stored.
    Added,
}

/// Handles one request in one transaction.
///
/// # Errors
/// The database's; nothing was written.
pub fn handle<D: Database>(db: &D, request: ConfigRequest) -> StoreResult<ConfigResponse>
where
    D::Tables: ConfigTables,
{
    db.transaction(|t| match request {
        ConfigRequest::GetTask(id) => Ok(match t.task(&id)? {
            Some(TaskEntry { record: Some(record), .. }) => ConfigResponse::Task(record),
            _ => ConfigResponse::NotFound,
        }),
        ConfigRequest::CreateTask { id, identity, record } => match t.task(&id)? {
            None => {
                t.put_task(&id, &TaskEntry { identity, record: Some(record.clone()) })?;
                Ok(ConfigResponse::Created(record))
            }
            Some(TaskEntry { identity: stored, record: Some(record) }) if stored == identity => {
                Ok(ConfigResponse::Created(record))
            }
            Some(_) => Ok(ConfigResponse::Conflict),
        },
        ConfigRequest::DeleteTask(id) => match t.task(&id)? {
            None => Ok(ConfigResponse::NotFound),
            Some(entry) => {
                let existed = entry.record.is_some();
                if existed {
                    t.put_task(&id, &TaskEntry { record: None, ..entry })?;
                }
                Ok(ConfigResponse::Deleted(existed))
            }
        },
        ConfigRequest::ListTasks { after, limit } => {
            Ok(ConfigResponse::Tasks(t.tasks(after.as_ref(), limit.min(TASKS_PAGE_MAX))?))
        }
        ConfigRequest::ListHpkeKeys => Ok(ConfigResponse::HpkeKeys(t.hpke_keys()?)),
        ConfigRequest::AddHpkeKey { id, record } => {
            match t.hpke_keys()?.into_iter().find(|(known, _)| *known == id) {
                None => {
                    t.insert_hpke_key(id, &record)?;
                    Ok(ConfigResponse::Added)
                }
                Some((_, stored)) if stored == record => Ok(ConfigResponse::Added),
                Some(_) => Ok(ConfigResponse::Conflict),
            }
        }
    })
}
