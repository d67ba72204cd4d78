//! The `ConfigStore`: what must be strongly consistent about tasks, HPKE keys and [`peers`]. KV only caches it.
//!
//! One object serves a deployment; it is asked when KV has no answer, and when an operator changes something. Records
//! are opaque here: secrets in them are sealed before they come ([`crate::seal`]).
//!
//! It also ends tasks. A deleted task leaves a tombstone for ever, and a [`Purge`] that has its objects forget
//! everything when nobody asks for them any more; a task with an expiration ends by itself, long after. [`alarm`] does
//! what is due.

pub mod expiration;
pub mod keys;
pub mod peers;
pub mod secrets;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
pub mod tokens;

use serde::{Deserialize, Serialize};

use self::{
    expiration::ExpirationRequest,
    keys::{Advanced, KeyRequest, KeyResponse, KeySettings, SealedKeypair, StoredHpkeKey},
    peers::{PeerRequest, PeerResponse, PeerTables},
    secrets::{SecretsPage, SecretsRequest},
    tokens::{TokenRefusal, TokenRequest},
};
use super::{
    CallError, Database, Objects, StoreResult,
    message::{LedgerRequest, LedgerResponse},
    placement::Placement,
};
use crate::{
    hpke::HpkeKem,
    ids::{HpkeConfigId, TaskId},
    time::{Duration, Time},
    vdaf::FieldKind,
};

/// Most tasks in one page of a listing.
pub const TASKS_PAGE_MAX: u32 = 500;
/// The operator may have a deleted task's objects purged at most this many seconds later.
pub const PURGE_AFTER_MAX_S: u64 = 366 * 86_400;

/// Workers may serve a deleted task from caches for an hour, and a request takes minutes. What one of them brings
/// back to life of a purged task is purged once more when none can know of it.
const WORKERS_FORGET_AFTER: Duration = Duration::from_seconds(2 * 3_600);
/// A task ends by itself this long after its last report could be aggregated, and then collected, both within its
/// retention. It exceeds the day by which clocks may be off.
const TASK_END_GRACE: Duration = Duration::from_seconds(2 * 86_400);
/// Purges tried in one run of the alarm. Each takes at most a call to a ledger.
const PURGES_MAX: u32 = 8;
/// When to go on with a purge of which a part is done.
const GO_ON_AFTER: Duration = Duration::from_seconds(15);
/// When to try again what failed: a purge whose ledger did not answer, or whatever else was due.
pub const TRY_AGAIN_AFTER: Duration = Duration::from_seconds(300);

/// What leads to a task's objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskObjects {
    /// The task's frozen numbers.
    pub placement: Placement,
    /// Field of the task's shares.
    pub field: FieldKind,
}

impl TaskObjects {
    /// When a task that expires ends by itself.
    fn end(&self, expiration: Time) -> Time {
        [self.placement.retention, self.placement.retention, TASK_END_GRACE]
            .into_iter()
            .fold(expiration, Time::saturating_add)
    }
}

/// A task whose objects are to forget everything. If the task is not deleted by then, it is deleted first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Purge {
    /// From when on.
    pub at: Time,
    /// When to do it again, as requests under way may recreate an object.
    pub again_at: Option<Time>,
    /// Where the objects are.
    pub objects: TaskObjects,
}

impl Purge {
    fn task(&self) -> &TaskId {
        &self.objects.placement.task_id
    }
}

/// What is stored about a task id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskEntry {
    /// Digest of the parameters the task was created with; tells a repeat from a conflict.
    pub identity: [u8; 32],
    /// The task's record; `None` for a deleted task. Its id is never used again: replay state may outlive it.
    pub record: Option<Vec<u8>>,
}

/// Tables of the `ConfigStore`.
pub trait ConfigTables: PeerTables {
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
    /// All HPKE keys, those that were made or imported last at the end.
    ///
    /// # Errors
    /// The database's.
    fn hpke_keys(&mut self) -> StoreResult<Vec<StoredHpkeKey>>;
    /// Writes an HPKE key in place of the one with its id, or at the end (1 row).
    ///
    /// # Errors
    /// The database's.
    fn put_hpke_key(&mut self, key: &StoredHpkeKey) -> StoreResult<()>;
    /// What is kept about keys in general; the default if nothing was written.
    ///
    /// # Errors
    /// The database's.
    fn key_settings(&mut self) -> StoreResult<KeySettings>;
    /// Writes it (1 row).
    ///
    /// # Errors
    /// The database's.
    fn put_key_settings(&mut self, settings: &KeySettings) -> StoreResult<()>;
    /// A task's purge, if one is to come. There is at most one.
    ///
    /// # Errors
    /// The database's.
    fn purge(&mut self, id: &TaskId) -> StoreResult<Option<Purge>>;
    /// Writes a task's purge in place of the one that was to come (1 row and its index entry).
    ///
    /// # Errors
    /// The database's.
    fn put_purge(&mut self, purge: &Purge) -> StoreResult<()>;
    /// No purge of this task is to come any more (1 row).
    ///
    /// # Errors
    /// The database's.
    fn remove_purge(&mut self, id: &TaskId) -> StoreResult<()>;
    /// The purges due at `now`, earliest first, at most `limit`. Its cost must not grow with what is not due.
    ///
    /// # Errors
    /// The database's.
    fn purges_due(&mut self, now: Time, limit: u32) -> StoreResult<Vec<Purge>>;
    /// When the earliest purge is due.
    ///
    /// # Errors
    /// The database's.
    fn next_purge(&mut self) -> StoreResult<Option<Time>>;
}

/// Deals with secrets for the `ConfigStore`, which has neither randomness nor the root keys.
pub trait Sealer {
    /// A new key pair with that id, its private half sealed.
    ///
    /// # Errors
    /// Ours: there is no root key to seal it with.
    fn make(&self, id: HpkeConfigId, kem: HpkeKem) -> StoreResult<SealedKeypair>;

    /// What was sealed under an older root key, sealed under the newest; `None` if it is already, or if it does not open.
    ///
    /// # Errors
    /// Ours: there is no root key to seal it with.
    fn reseal(&self, label: &str, sealed: &[u8]) -> StoreResult<Option<Vec<u8>>>;

    /// Whether what was sealed opens: its root key is there, and the record is not broken.
    ///
    /// # Errors
    /// Ours: there are no root keys.
    fn opens(&self, label: &str, sealed: &[u8]) -> StoreResult<bool>;
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
        /// Where its objects will be.
        objects: TaskObjects,
        /// No report made later is accepted: the task ends by itself some time after.
        expiration: Option<Time>,
    },
    /// Delete a task for good, and have its objects forget everything later. Idempotent: the first deletion counts.
    DeleteTask {
        /// Where its objects are.
        objects: TaskObjects,
        /// How much later, at most [`PURGE_AFTER_MAX_S`]. Default: the task's retention.
        purge_after: Option<Duration>,
    },
    /// List tasks by ascending id.
    ListTasks {
        /// Exclusive lower bound.
        after: Option<TaskId>,
        /// At most this many, and at most [`TASKS_PAGE_MAX`].
        limit: u32,
    },
    /// All HPKE keys.
    ListHpkeKeys,
    /// Change something about HPKE keys.
    Keys(KeyRequest),
    /// About peers that may bring tasks along.
    Peers(PeerRequest),
    /// Change the tokens of a task's leader.
    Tokens(TokenRequest),
    /// Look at what is sealed, and seal it anew.
    Secrets(SecretsRequest),
    /// All HPKE keys, for a Worker that met no good copy of them in KV: the host makes another.
    ListUncopiedHpkeKeys,
    /// Change when a task ends.
    SetExpiration(ExpirationRequest),
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
    /// JSON of [`StoredHpkeKey`]s, in the order of [`keys::sort`].
    HpkeKeys(#[serde(with = "serde_bytes")] Vec<u8>),
    /// What became of a change of HPKE keys.
    Keys(KeyResponse),
    /// About peers that may bring tasks along.
    Peers(PeerResponse),
    /// The tokens are as they are, for this reason.
    TokensRefused(TokenRefusal),
    /// What is sealed with which root keys.
    Secrets(SecretsPage),
    /// The task was brought by its leader, who says when it ends.
    Brought,
}

/// The outcome of a request, for the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handled {
    /// What to answer.
    pub response: ConfigResponse,
    /// Have [`alarm`] called at this time, or earlier.
    pub wake: Option<Time>,
}

/// Handles one request in one transaction.
///
/// # Errors
/// The database's; nothing was written.
pub fn handle<D: Database>(
    db: &D,
    request: ConfigRequest,
    sealer: &impl Sealer,
    now: Time,
) -> StoreResult<Handled>
where
    D::Tables: ConfigTables,
{
    db.transaction(|t| {
        let sets_deadlines = matches!(
            request,
            ConfigRequest::CreateTask { .. }
                | ConfigRequest::DeleteTask { .. }
                | ConfigRequest::SetExpiration(_)
                | ConfigRequest::Keys(_)
        );
        let response = respond(t, request, sealer, now)?;
        // Also for a repeat: whoever handled the first may have been cut off before it set the alarm.
        let wake = if sets_deadlines { next_deadline(t)? } else { None };
        Ok(Handled { response, wake })
    })
}

/// When [`alarm`] should be called next. A host that begins to run asks: the one before may have been cut off before
/// it set its alarm.
///
/// # Errors
/// The database's.
pub fn next_wake<D: Database>(db: &D) -> StoreResult<Option<Time>>
where
    D::Tables: ConfigTables,
{
    db.transaction(next_deadline)
}

/// The object has one alarm, for the earliest of all.
fn next_deadline(t: &mut impl ConfigTables) -> StoreResult<Option<Time>> {
    Ok(t.next_purge()?.into_iter().chain(keys::next_deadline(t)?).min())
}

fn respond(
    t: &mut impl ConfigTables,
    request: ConfigRequest,
    sealer: &impl Sealer,
    now: Time,
) -> StoreResult<ConfigResponse> {
    match request {
        ConfigRequest::GetTask(id) => Ok(match t.task(&id)? {
            Some(TaskEntry { record: Some(record), .. }) => ConfigResponse::Task(record),
            _ => ConfigResponse::NotFound,
        }),
        ConfigRequest::CreateTask { id, identity, record, objects, expiration } => {
            match t.task(&id)? {
                None => {
                    keys::note_retention(t, objects.placement.retention)?;
                    t.put_task(&id, &TaskEntry { identity, record: Some(record.clone()) })?;
                    if let Some(expiration) = expiration {
                        // One that is over already ends from now on, as in `expiration`.
                        let at = objects.end(expiration.max(now));
                        t.put_purge(&Purge { at, again_at: None, objects })?;
                    }
                    Ok(ConfigResponse::Created(record))
                }
                Some(TaskEntry { identity: stored, record: Some(record) })
                    if stored == identity =>
                {
                    Ok(ConfigResponse::Created(record))
                }
                Some(_) => Ok(ConfigResponse::Conflict),
            }
        }
        ConfigRequest::DeleteTask { objects, purge_after } => {
            let id = objects.placement.task_id;
            let Some(entry) = t.task(&id)? else {
                return Ok(ConfigResponse::NotFound);
            };
            let existed = entry.record.is_some();
            if existed {
                t.put_task(&id, &TaskEntry { record: None, ..entry })?;
                let after = purge_after.unwrap_or(objects.placement.retention);
                let after = Duration::from_seconds(after.as_seconds().min(PURGE_AFTER_MAX_S));
                let again_at = Some(now.saturating_add(WORKERS_FORGET_AFTER));
                t.put_purge(&Purge { at: now.saturating_add(after), again_at, objects })?;
            }
            Ok(ConfigResponse::Deleted(existed))
        }
        ConfigRequest::ListTasks { after, limit } => {
            Ok(ConfigResponse::Tasks(t.tasks(after.as_ref(), limit.min(TASKS_PAGE_MAX))?))
        }
        ConfigRequest::ListHpkeKeys | ConfigRequest::ListUncopiedHpkeKeys => {
            Ok(ConfigResponse::HpkeKeys(keys::listed(t)?))
        }
        ConfigRequest::Keys(request) => {
            keys::respond(t, request, sealer, now).map(ConfigResponse::Keys)
        }
        ConfigRequest::Tokens(request) => tokens::respond(t, &request, sealer),
        ConfigRequest::SetExpiration(request) => expiration::respond(t, &request, now),
        ConfigRequest::Secrets(request) => {
            secrets::respond(t, request, sealer).map(ConfigResponse::Secrets)
        }
        ConfigRequest::Peers(request) => peers::respond(t, request).map(ConfigResponse::Peers),
    }
}

/// All keys for Workers, as [`ConfigResponse::HpkeKeys`] has them, and their [`keys::revision`]; `None` before there is
/// any.
///
/// # Errors
/// The database's.
pub fn keys_to_copy<D: Database>(db: &D) -> StoreResult<Option<(u64, Vec<u8>)>>
where
    D::Tables: ConfigTables,
{
    db.transaction(|t| {
        let keys = t.hpke_keys()?;
        Ok(if keys.is_empty() { None } else { Some((keys::revision(&keys), keys::listed(t)?)) })
    })
}

/// Brings the keys to where they should be by now: to be called when [`alarm`] is, before it. It may be cut off anywhere
/// and called at any time. Returns whether keys are not what they were; and what failed, for the log.
///
/// # Errors
/// The database's; call it again.
pub fn advance_keys<D: Database>(db: &D, sealer: &impl Sealer, now: Time) -> StoreResult<Advanced>
where
    D::Tables: ConfigTables,
{
    db.transaction(|t| keys::advance(t, sealer, now))
}

/// Does the purges that are due, a few in one run, and ends the tasks that have expired. Returns when to call again.
/// It may be cut off anywhere, and called at any time: a purge is due until the task's ledger said that all is gone.
///
/// # Errors
/// The database's; call it again.
pub async fn alarm<D: Database>(
    db: &D,
    objects: &impl Objects,
    now: Time,
) -> StoreResult<Option<Time>>
where
    D::Tables: ConfigTables,
{
    let due: Vec<Purge> = db.transaction(|t| {
        let due = t.purges_due(now, PURGES_MAX)?;
        due.into_iter().map(|purge| bury(t, purge, now)).collect()
    })?;
    for purge in due {
        let TaskObjects { placement, field } = purge.objects;
        let again = purge.again_at.is_some();
        let request = LedgerRequest::Purge { placement, field, again };
        let answer = objects.ledger(purge.task(), request).await;
        db.transaction(|t| settle(t, &purge, &answer, now))?;
    }
    next_wake(db)
}

/// The tombstone comes before the purge: no new work may find the task.
fn bury(t: &mut impl ConfigTables, mut purge: Purge, now: Time) -> StoreResult<Purge> {
    if let Some(entry @ TaskEntry { record: Some(_), .. }) = t.task(purge.task())? {
        t.put_task(purge.task(), &TaskEntry { record: None, ..entry })?;
        purge.again_at = Some(now.saturating_add(WORKERS_FORGET_AFTER));
        t.put_purge(&purge)?;
    }
    Ok(purge)
}

/// Takes note of what became of a purge.
fn settle(
    t: &mut impl ConfigTables,
    purge: &Purge,
    answer: &Result<LedgerResponse, CallError>,
    now: Time,
) -> StoreResult<()> {
    if t.purge(purge.task())?.as_ref() != Some(purge) {
        return Ok(());
    }
    match (answer, purge.again_at) {
        (Ok(LedgerResponse::Done), Some(again)) if again > now => {
            t.put_purge(&Purge { at: again, again_at: None, ..*purge })
        }
        (Ok(LedgerResponse::Done), _) => t.remove_purge(purge.task()),
        (Ok(LedgerResponse::Busy), _) => {
            t.put_purge(&Purge { at: now.saturating_add(GO_ON_AFTER), ..*purge })
        }
        _ => t.put_purge(&Purge { at: now.saturating_add(TRY_AGAIN_AFTER), ..*purge }),
    }
}
