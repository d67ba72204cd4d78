//! What a [`JobStore`](super::JobStore) needs to work on jobs that are answered later: the task, keys, other objects.

use std::cell::OnceCell;

use daphne_core::{
    aggregate::deferred::Worker,
    error::{Abort, AbortKind, Error, Internal},
    store::{
        job_store::deferred::{Done, Ended, Work},
        message::DeferredFailure,
        placement::ShardKey,
    },
    task::Task,
    time::Time,
};
use storage_proxy::{
    config::{self, Config, keys::Keys},
    objects::ObjectCaller,
};
use worker::{Env, console_error, console_log};

use crate::alarm::now;

/// Whoever works for a job store. It knows nothing until there is work.
pub struct Workshop {
    env: Env,
    objects: ObjectCaller,
    config: OnceCell<Config>,
}

impl Workshop {
    pub fn new(env: Env) -> Self {
        Self { objects: ObjectCaller::new(env.clone()), env, config: OnceCell::new() }
    }

    /// Does what there is to do.
    pub async fn work(&self, work: &Work) -> Result<Done, Error> {
        let config = self.config()?;
        let now = now();
        let Some(task) = config.task(&self.env, &work.task, now).await? else {
            return Err(Abort::new(AbortKind::UnrecognizedTask, "the task was deleted").into());
        };
        let version = task.parameters.shard_key_version;
        let shard_key = config.root_keys().shard_key(version, task.id()).map(ShardKey::new);
        let shard_key = shard_key.ok_or_else(|| {
            Internal::Broken("the root key of the task's shards is missing".to_owned())
        })?;
        let mut keys = config.keyring(&self.env, now).await?;
        if worker(&task, &keys, shard_key, now).lacks_key_for(work) {
            // A key that was made a moment ago may not have come here yet: "unknown" is a verdict for ever.
            keys = config.keyring_beyond(keys, &self.env, now).await?;
        }
        let done = worker(&task, &keys, shard_key, now).work(&self.objects, work).await;
        if let Err(Error::Internal(why)) = &done {
            console_error!(
                "{}",
                serde_json::json!({
                    "event": "deferred_work_failed",
                    "task": work.task,
                    "job": work.job,
                    "why": why.to_string(),
                })
            );
        }
        done
    }

    fn config(&self) -> Result<&Config, Internal> {
        if let Some(config) = self.config.get() {
            return Ok(config);
        }
        let root_keys = config::root_keys(&self.env).map_err(Internal::Unavailable)?;
        Ok(self.config.get_or_init(|| Config::new(root_keys)))
    }
}

fn worker<'a>(task: &'a Task, keys: &'a Keys, shard_key: ShardKey, now: Time) -> Worker<'a> {
    Worker { task, keys, shard_key, now, agreement: Some(keys.agreement()) }
}

/// The line of the log about a step of a job that came to its end.
pub fn log(work: &Work, ended: &Ended) {
    let failure = ended.failure.as_ref().map(|failure| match failure {
        DeferredFailure::Abort(abort) => format!("{:?}", abort.kind),
        DeferredFailure::Unavailable => "unavailable".to_owned(),
        DeferredFailure::Broken => "broken".to_owned(),
    });
    let line = serde_json::json!({
        "event": "deferred_job",
        "task": work.task,
        "job": ended.job,
        "step": ended.step,
        "pieces": ended.pieces,
        "failure": failure,
    });
    match failure {
        None => console_log!("{line}"),
        Some(_) => console_error!("{line}"),
    }
}
