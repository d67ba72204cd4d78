//! For how long a task's jobs can be repeated: what keeps an expired key from being destroyed.

use crate::{
    store::{
        StoreResult,
        config_store::{ConfigTables, TASKS_PAGE_MAX},
    },
    task::{REPORT_EXPIRY_AGE_MAX, StoredTask},
    time::Duration,
};

/// The longest retention of any task there was.
pub(super) fn longest(t: &mut impl ConfigTables) -> StoreResult<Duration> {
    let mut settings = t.key_settings()?;
    if let Some(longest) = settings.longest_retention {
        return Ok(longest);
    }
    let mut longest = Duration::from_seconds(0);
    let mut after = None;
    loop {
        let page = t.tasks(after.as_ref(), TASKS_PAGE_MAX)?;
        for record in &page {
            // What is not understood may have any retention.
            let Ok(task) = serde_json::from_slice::<StoredTask>(record) else {
                return Ok(REPORT_EXPIRY_AGE_MAX);
            };
            longest = longest.max(task.parameters.report_expiry_age);
            after = Some(task.parameters.task_id);
        }
        if page.len() < TASKS_PAGE_MAX as usize {
            break;
        }
    }
    settings.longest_retention = Some(longest);
    t.put_key_settings(&settings)?;
    Ok(longest)
}

/// From now on jobs can be repeated for that long: to be told of each task, or of what tasks are made from. It only ever
/// grows, since a task that is deleted may be served from caches for a while.
///
/// # Errors
/// The database's.
pub fn note(t: &mut impl ConfigTables, retention: Duration) -> StoreResult<()> {
    if longest(t)? < retention {
        let mut settings = t.key_settings()?;
        settings.longest_retention = Some(retention);
        t.put_key_settings(&settings)?;
    }
    Ok(())
}
