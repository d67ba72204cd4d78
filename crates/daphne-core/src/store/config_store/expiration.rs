//! When a task ends: the one of its parameters that may change, because whoever runs a task stops it, or prolongs it.
//!
//! What the expiration says of a report is recorded by the report's owner with the rest of its verdict, so a job that is
//! repeated after a change is answered as before.

use serde::{Deserialize, Serialize};

use super::{ConfigResponse, ConfigTables, Purge, TaskEntry};
use crate::{
    ids::TaskId,
    store::{StoreError, StoreResult},
    task::StoredTask,
    time::Time,
};

/// A request to change when a task ends. The same again changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpirationRequest {
    /// The task.
    pub task: TaskId,
    /// No report made later is accepted; `None` if the task is not to end.
    pub expiration: Option<Time>,
}

/// Why the end of a task is not changed: its leader brought it along, or it is in the configuration that all parties share.
/// The text says what to do instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("when the task ends is part of what all its parties agreed on; delete it to end it here")]
pub struct Brought;

// SPEC: DAP-09 §4.2 has a task's parameters never change. Its end may: whoever runs a task stops it when it is no longer
// wanted, which control planes do in this way, and a new task for each prolongation would lose the clients of the old one.
/// Changes when a task ends, and with it when its objects forget everything; answers with the task's record as it is then.
pub(super) fn respond(
    t: &mut impl ConfigTables,
    request: &ExpirationRequest,
    now: Time,
) -> StoreResult<ConfigResponse> {
    let Some(TaskEntry { identity, record: Some(record) }) = t.task(&request.task)? else {
        return Ok(ConfigResponse::NotFound);
    };
    let mut task: StoredTask = serde_json::from_slice(&record)
        .map_err(|e| StoreError(format!("a stored task is malformed: {e}")))?;
    if task.parameters.taskprov.is_some() || task.parameters.version.has_configuration() {
        return Ok(ConfigResponse::Brought);
    }
    if task.parameters.task_expiration == request.expiration {
        return Ok(ConfigResponse::Task(record));
    }
    task.parameters.task_expiration = request.expiration;
    let record = serde_json::to_vec(&task)
        .map_err(|e| StoreError(format!("a task cannot be written: {e}")))?;
    // The identity stays: a repeat of the task's creation is one, however long it was let live since.
    t.put_task(&request.task, &TaskEntry { identity, record: Some(record.clone()) })?;
    match request.expiration {
        Some(expiration) => {
            let objects = task.parameters.objects();
            // An end in the past is one from now on: what was accepted until now can be collected for as long as if the
            // task had been meant to end now.
            let at = objects.end(expiration.max(now));
            t.put_purge(&Purge { at, again_at: None, objects })?;
        }
        None => t.remove_purge(&request.task)?,
    }
    Ok(ConfigResponse::Task(record))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        seal::RootKeys,
        store::{
            Database as _,
            config_store::{ConfigRequest, Handled, TASK_END_GRACE, handle, testing},
        },
        testing::memory::{MemoryConfigTables, MemoryDatabase},
    };

    const NOW: u64 = 1_700_000_000;
    const DAY: u64 = 86_400;

    struct Tasks(MemoryDatabase<MemoryConfigTables>, RootKeys, TaskId);

    impl Tasks {
        /// A task whose reports are kept for three days.
        fn new() -> Self {
            let (db, keys) = (MemoryDatabase::default(), testing::roots("1"));
            let id = testing::create_task(&db, &keys, 3);
            Self(db, keys, id)
        }

        fn set(&self, expiration: Option<u64>) -> Handled {
            let expiration = expiration.map(Time::from_seconds);
            let request = ExpirationRequest { task: self.2, expiration };
            let request = ConfigRequest::SetExpiration(request);
            handle(&self.0, request, &self.1, Time::from_seconds(NOW)).unwrap()
        }

        fn purge(&self) -> Option<Purge> {
            self.0.transaction(|t| t.purge(&self.2)).unwrap()
        }
    }

    fn end(from: u64) -> Time {
        Time::from_seconds(from + 2 * 3 * DAY).saturating_add(TASK_END_GRACE)
    }

    #[test]
    fn a_tasks_end_moves_and_its_purge_with_it() {
        let t = Tasks::new();
        let before = t.0.transaction(|tables| tables.task(&t.2)).unwrap().unwrap();
        for (expiration, at) in [
            (Some(NOW + 50 * DAY), Some(end(NOW + 50 * DAY))),
            (Some(NOW + 5 * DAY), Some(end(NOW + 5 * DAY))),
            // The past: reports that were accepted a moment ago can still be collected.
            (Some(NOW - 900 * DAY), Some(end(NOW))),
            (Some(u64::MAX), Some(Time::from_seconds(u64::MAX))),
            (None, None),
        ] {
            let handled = t.set(expiration);
            let ConfigResponse::Task(record) = &handled.response else { panic!("{handled:?}") };
            let stored: StoredTask = serde_json::from_slice(record).unwrap();
            assert_eq!(stored.parameters.task_expiration, expiration.map(Time::from_seconds));
            assert_eq!(t.purge().map(|purge| purge.at), at);
            assert_eq!(handled.wake, at, "the alarm follows");
            let kept = t.0.transaction(|tables| tables.task(&t.2)).unwrap().unwrap();
            assert_eq!((kept.record.as_ref(), kept.identity), (Some(record), before.identity));
            assert_eq!(t.set(expiration), handled, "a repeat changes nothing");
        }
    }

    #[test]
    fn a_deleted_task_is_not_found_and_its_purge_stays() {
        let t = Tasks::new();
        let kept = t.0.transaction(|tables| tables.task(&t.2)).unwrap().unwrap();
        let stored: StoredTask = serde_json::from_slice(&kept.record.unwrap()).unwrap();
        let objects = stored.parameters.objects();
        let delete = ConfigRequest::DeleteTask { objects, purge_after: None };
        handle(&t.0, delete, &t.1, Time::from_seconds(NOW)).unwrap();
        let purge = t.purge();
        assert!(purge.is_some());
        assert_eq!(t.set(None).response, ConfigResponse::NotFound);
        assert_eq!(t.set(Some(NOW + DAY)).response, ConfigResponse::NotFound);
        assert_eq!(t.purge(), purge);
    }
}
