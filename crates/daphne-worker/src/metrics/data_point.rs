//! A data point for Analytics Engine per request of a leader, where a dataset is bound.
//!
//! Sampled and forgotten after three months: for looking at, not for counting.

use daphne_core::error::ReportError;
use worker::{AnalyticsEngineDataPointBuilder, Env};

use crate::log::Outcome;

/// Binding of the dataset.
pub const METRICS: &str = "METRICS";

/// Writes a point, if a dataset is bound. Index: the task. Blobs: route, method, task, kind of error. Doubles: status,
/// milliseconds, accepted reports, refused reports, and these by [`ReportError::ALL`].
pub fn write(env: &Env, outcome: &Outcome) {
    let Some(task) = outcome.leader_of().map(|id| id.to_string()) else { return };
    let Ok(dataset) = env.analytics_engine(METRICS) else { return };
    let by_error = ReportError::ALL.map(|error| outcome.refused(error.label()) as f64);
    let doubles = [
        f64::from(outcome.http_status()),
        outcome.milliseconds() as f64,
        outcome.accepted_reports() as f64,
        by_error.iter().sum(),
    ];
    let point = AnalyticsEngineDataPointBuilder::new()
        .indexes([task.as_str()])
        .add_blob(outcome.route())
        .add_blob(outcome.method())
        .add_blob(task.as_str())
        .add_blob(outcome.kind_of_error())
        .doubles(doubles.into_iter().chain(by_error))
        .build();
    if let Err(error) = dataset.write_data_point(&point) {
        worker::console_error!("the data point: {error}");
    }
}
