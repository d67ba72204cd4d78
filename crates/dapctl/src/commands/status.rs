//! `dapctl status`.

use daphne_core::{
    metrics::{BatchStatus, ReasonSeen, TaskCounters, TaskStatus},
    time::Time,
};
use serde_json::json;

use super::task::unknown;
use crate::{
    Failure,
    cli::{Cli, TaskIdArg},
    output::{self, clean, utc},
    reports,
};

/// Batches that are shown to people; programs get all.
const BATCHES_SHOWN: usize = 20;

pub(super) fn run(cli: &Cli, arg: &TaskIdArg) -> Result<(), Failure> {
    let admin = super::admin(cli)?;
    let status = admin.task_status(&arg.task_id)?.ok_or_else(unknown)?;
    let task = admin.task(&arg.task_id)?.ok_or_else(unknown)?;
    let text = format!("{}\n{}", end(task.task_expiration), lines(&status));
    let mut json = json!(status);
    json["task_expiration"] = json!(task.task_expiration);
    output::print(cli.output, &text, &json)
}

/// When the task ends or ended, for people.
pub(super) fn end(expiration: Option<Time>) -> String {
    match expiration {
        None => "ends: never".to_owned(),
        Some(end) if end <= reports::now() => format!("ended: {}", utc(end)),
        Some(end) => format!("ends: {}", utc(end)),
    }
}

/// The status for people.
pub(super) fn lines(status: &TaskStatus) -> String {
    let mut lines = Vec::new();
    if !status.complete {
        lines.push(
            "NOT COMPLETE: a part of the task did not answer; there is more than this".into(),
        );
    }
    let TaskCounters {
        aggregation, refusals, collections, collected_reports, expired_reports, ..
    } = &status.counters;
    let refused: u64 = aggregation.named().iter().skip(1).map(|(_, n)| n).sum();
    lines.push(format!("reports: {} accepted, {refused} refused", aggregation.success));
    for (name, n) in aggregation.named().iter().skip(1).filter(|(_, n)| *n > 0) {
        lines.push(format!("  {name}: {n}"));
    }
    for (resource, kinds) in refusals {
        for (kind, n) in kinds {
            lines.push(format!("refused requests for {}: {} {n}", clean(resource), clean(kind)));
        }
    }
    lines.push(format!("collected: {collections} batches with {collected_reports} reports"));
    if status.collecting {
        lines.push("a collection is under way".into());
    }
    if *expired_reports > 0 {
        lines.push(format!(
            "LOST: {expired_reports} reports were forgotten uncollected: they became too old before a collection asked \
             for them"
        ));
    }
    lines.push(match status.last_job {
        Some(at) => format!("last job: {}", utc(at)),
        None => "no job was recorded yet".into(),
    });
    if let Some(age) = status.oldest_uncollected_s {
        lines.push(format!("oldest uncollected report: {} ago", span(age)));
    }
    if let Some(error) = &status.last_error {
        lines.push(format!("last error: {} ({})", clean(&error.reason), utc(error.last)));
        lines.push("reasons, the latest first:".into());
        lines.extend(status.reasons.iter().map(reason));
    }
    if !status.batches.is_empty() {
        lines.push("batches:".into());
        lines.extend(status.batches.iter().take(BATCHES_SHOWN).map(batch));
        let hidden =
            status.batches.len().saturating_sub(BATCHES_SHOWN) as u64 + status.more_batches;
        if hidden > 0 {
            lines.push(format!("  and {hidden} more at least; --output json has up to 200"));
        }
    }
    lines.join("\n")
}

fn reason(seen: &ReasonSeen) -> String {
    let ReasonSeen { reason, first, last, count } = seen;
    let when =
        if first == last { utc(*last) } else { format!("{} to {}", utc(*first), utc(*last)) };
    format!("  {count} x {} ({when})", clean(reason))
}

fn batch(batch: &BatchStatus) -> String {
    let name = match (batch.bucket, batch.batch_id) {
        (Some(start), _) => utc(start),
        (None, Some(id)) => id.to_string(),
        (None, None) => "?".to_owned(),
    };
    let level = batch.level.map(|level| format!(", level {level}")).unwrap_or_default();
    let state = match (batch.collected, batch.collectable) {
        (true, _) => "collected",
        (false, true) => "collectable",
        (false, false) => "not collectable",
    };
    let BatchStatus { report_count, min_batch_size, why, .. } = batch;
    format!("  {name}{level}: {report_count} of at least {min_batch_size}, {state}: {}", clean(why))
}

/// A length of time, as people say it.
fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} seconds"),
        120..7_200 => format!("{} minutes", seconds / 60),
        7_200..172_800 => format!("{} hours", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use daphne_core::{
        error::{AbortKind, ReportError},
        metrics::{Failure, Refusal, Resource, Tally, Totals},
        store::message::LedgerStatus,
    };

    use super::*;

    #[test]
    fn a_status_says_what_failed_and_why() {
        let at = Time::from_seconds(1_700_000_000);
        let mut totals = Totals::default();
        let failures = vec![(Failure::UnknownKey(Some(7)), 3)];
        totals.add(&Tally { accepted: 90, failures }, at);
        let (resource, kind) = (Resource::AggregationJobs, AbortKind::Conflict);
        totals.refuse(Refusal { resource, kind, detail: String::new() }, Time::from_seconds(1));
        let counters =
            LedgerStatus { collections: 2, totals, ..LedgerStatus::default() }.counters();
        let seen = ReasonSeen {
            reason: Failure::recorded(ReportError::ReportReplayed).text(),
            first: at,
            last: at,
            count: 2,
        };
        let status = TaskStatus {
            counters,
            collecting: false,
            complete: false,
            last_job: Some(at),
            last_error: Some(seen.clone()),
            reasons: vec![seen],
            oldest_uncollected_s: Some(7_300),
            batches: vec![
                BatchStatus {
                    bucket: Some(at),
                    batch_id: None,
                    level: None,
                    report_count: 1,
                    min_batch_size: 2,
                    collected: false,
                    collectable: false,
                    why: "1 more reports are needed".into(),
                    oldest: Some(at),
                    newest: Some(at),
                };
                25
            ],
            more_batches: 4,
        };
        let text = lines(&status);
        for part in [
            "NOT COMPLETE",
            "90 accepted, 3 refused",
            "hpke_unknown_config_id: 3",
            "refused requests for aggregation_jobs: conflict 1",
            "oldest uncollected report: 2 hours ago",
            "2 x report_replayed: its id was aggregated before (2023-11-14 22:13:20 UTC)",
            "2023-11-14 22:13:20 UTC: 1 of at least 2, not collectable: 1 more",
            "and 9 more at least",
        ] {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
        let json = serde_json::to_string(&status).unwrap();
        assert_eq!(serde_json::from_str::<TaskStatus>(&json).unwrap(), status);
    }
}
