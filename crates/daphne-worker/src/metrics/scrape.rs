//! `GET /metrics`: what there is to count, as Prometheus reads it.
//!
//! A page has some tasks, and names the next one in a `Link` header. A task all of whose stores did not answer in time is
//! left out but for `daphne_task_complete`: its sums would seem to shrink, which Prometheus takes for a restart.

use daphne_core::{
    error::{Abort, AbortKind, Error},
    ids::TaskId,
    metrics::{
        TaskCounters,
        exposition::{Exposition, Kind, MEDIA_TYPE},
    },
    store::{config_store::keys::KeyInfo, message::LedgerStatus},
    task::TaskParameters,
};
use futures::{StreamExt, stream};
use worker::{Request, Response};

use super::task_status;
use crate::{app::RequestContext, credentials, limits, respond};

const TASKS_DEFAULT: u32 = 50;
const TASKS_MAX: u32 = 100;
/// The platform allows six connections.
const PARALLEL_CALLS: usize = 6;

/// Answers a scrape. The query may hold `after`, a task's id, and `limit`, how many tasks to answer for.
///
/// # Errors
/// The operator's, or ours.
pub async fn get(context: &RequestContext<'_>, request: &Request) -> Result<Response, Error> {
    let token = credentials::check_scraper(request, context.admin_tokens, context.metrics_tokens)?;
    limits::operator(context.env, &token).await?;
    let (after, limit) = page(request)?;
    let tasks = context.config.tasks(context.env, after, limit).await?;
    let keys = context.config.hpke_keys(context.env).await?;
    let statuses: Vec<Option<LedgerStatus>> = stream::iter(&tasks)
        .map(|task| async { task_status(context.env, task, false, 1).await.ok() })
        .buffered(PARALLEL_CALLS)
        .collect()
        .await;
    let next = (tasks.len() as u64 == u64::from(limit))
        .then(|| tasks.last().map(|task| task.task_id))
        .flatten();
    let text = text(context, &tasks, &statuses, &keys, next.is_some());
    let next = next.map(|id| format!("</metrics?after={id}&limit={limit}>; rel=\"next\""));
    respond::text(text, MEDIA_TYPE, next.as_deref())
}

fn page(request: &Request) -> Result<(Option<TaskId>, u32), Error> {
    let bad = |detail: &str| Error::from(Abort::new(AbortKind::BadRequest, detail));
    let url = request.url().map_err(|_| bad("the URL is malformed"))?;
    let (mut after, mut limit) = (None, TASKS_DEFAULT);
    for (name, value) in url.query_pairs() {
        match name.as_ref() {
            "after" => after = Some(value.parse().map_err(|_| bad("`after` is a task's id"))?),
            "limit" => {
                limit = value
                    .parse()
                    .ok()
                    .filter(|n| (1..=TASKS_MAX).contains(n))
                    .ok_or_else(|| bad("`limit` is between 1 and 100"))?;
            }
            _ => return Err(bad("the query may hold `after` and `limit`")),
        }
    }
    Ok((after, limit))
}

fn text(
    context: &RequestContext<'_>,
    tasks: &[TaskParameters],
    statuses: &[Option<LedgerStatus>],
    keys: &[KeyInfo],
    has_more: bool,
) -> String {
    let is_complete = |s: &Option<LedgerStatus>| s.as_ref().is_some_and(|s| s.is_complete());
    let counted: Vec<(String, &LedgerStatus, TaskCounters)> = tasks
        .iter()
        .zip(statuses)
        .filter(|(_, status)| is_complete(status))
        .filter_map(|(task, status)| {
            let status = status.as_ref()?;
            Some((task.task_id.to_string(), status, status.counters()))
        })
        .collect();
    let mut out = Exposition::new();
    out.metric(
        "daphne_reports_total",
        Kind::Counter,
        "Reports by what became of them, each once.",
        ["task", "outcome"],
        counted.iter().flat_map(|(task, _, counters)| {
            let named = counters.aggregation.named();
            named.map(|(name, n)| ([task.clone(), name.to_owned()], n))
        }),
    )
    .metric(
        "daphne_step_failures_total",
        Kind::Counter,
        "Reports refused in aggregation, by reason.",
        ["task", "type"],
        counted.iter().flat_map(|(task, _, counters)| {
            counters.step_failures.iter().map(|(name, n)| ([task.clone(), name.clone()], *n))
        }),
    )
    .metric(
        "daphne_refused_requests_total",
        Kind::Counter,
        "Requests of the task's leader that were refused as a whole.",
        ["task", "resource", "type"],
        counted.iter().flat_map(|(task, _, counters)| {
            counters.refusals.iter().flat_map(move |(resource, kinds)| {
                let labels = move |kind: &String| [task.clone(), resource.clone(), kind.clone()];
                kinds.iter().map(move |(kind, n)| (labels(kind), *n))
            })
        }),
    );
    let mut each = |name, kind, help, of: fn(&LedgerStatus) -> Option<u64>| {
        let samples = counted.iter().filter_map(|(task, s, _)| Some(([task.clone()], of(s)?)));
        out.metric(name, kind, help, ["task"], samples);
    };
    each("daphne_collections_total", Kind::Counter, "Batches collected.", |s| Some(s.collections));
    each("daphne_collected_reports_total", Kind::Counter, "Reports in collected batches.", |s| {
        Some(s.collected_reports)
    });
    each(
        "daphne_expired_reports_total",
        Kind::Counter,
        "Reports forgotten before a collection asked for them.",
        |s| Some(s.expired_reports),
    );
    each("daphne_collecting", Kind::Gauge, "Whether a collection is under way.", |s| {
        Some(u64::from(s.collecting))
    });
    each(
        "daphne_last_job_timestamp_seconds",
        Kind::Gauge,
        "When the last job was recorded, in seconds since the Unix epoch.",
        |s| s.totals.last_job.map(|at| at.as_seconds()),
    );
    let complete = tasks.iter().zip(statuses);
    out.metric(
        "daphne_task_complete",
        Kind::Gauge,
        "Whether all who count have answered. The task's other metrics are left out if not.",
        ["task"],
        complete.map(|(task, s)| ([task.task_id.to_string()], u64::from(is_complete(s)))),
    )
    .metric("daphne_tasks", Kind::Gauge, "Tasks on this page.", [], [([], tasks.len() as u64)])
    .metric(
        "daphne_more_tasks",
        Kind::Gauge,
        "Whether there may be more tasks, on the page that the Link header names.",
        [],
        [([], u64::from(has_more))],
    )
    .metric(
        "daphne_hpke_key_state_age_seconds",
        Kind::Gauge,
        "How long a key has been in its state.",
        ["config_id", "state"],
        keys.iter().map(|key| {
            let age = context.now.as_seconds().saturating_sub(key.since.as_seconds());
            ([key.config.id.0.to_string(), key.state.label().to_owned()], age)
        }),
    );
    out.finish()
}
