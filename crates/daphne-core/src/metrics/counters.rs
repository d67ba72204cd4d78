//! The counters by the names that other tools know.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Failure, Totals};
use crate::error::{AbortKind, ReportError};

/// The `type` values of Janus' counter of failed steps, and, at the end, three of extensions that Janus does not refuse. All exist from
/// the beginning, so that a rate is right from the first failure. A helper does not meet all of them.
pub const STEP_FAILURES: [&str; 27] = [
    "missing_leader_input_share",
    "missing_helper_input_share",
    "missing_client_report",
    "missing_prepare_message",
    "prepare_init_failure",
    "prepare_step_failure",
    "prepare_message_failure",
    "unknown_hpke_config_id",
    "decrypt_failure",
    "input_share_decode_failure",
    "plaintext_input_share_decode_failure",
    "input_share_aad_encode_failure",
    "public_share_decode_failure",
    "public_share_encode_failure",
    "prepare_message_decode_failure",
    "leader_prep_share_decode_failure",
    "helper_prep_share_decode_failure",
    "continue_mismatch",
    "finish_mismatch",
    "accumulate_failure",
    "helper_step_failure",
    "duplicate_extension",
    "missing_or_malformed_taskprov_extension",
    "unexpected_taskprov_extension",
    "unknown_extension",
    "unordered_extensions",
    "public_extensions_decode_failure",
];

/// What became of a task's reports in aggregation, as Janus' aggregator API has it. Each report is in one of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AggregationCounters {
    /// Accepted.
    pub success: u64,
    /// Refused for an extension that it has twice.
    pub duplicate_extension: u64,
    /// Never counted by a helper.
    pub public_share_encode_failure: u64,
    /// See [`ReportError::BatchCollected`].
    pub batch_collected: u64,
    /// See [`ReportError::ReportReplayed`].
    pub report_replayed: u64,
    /// See [`ReportError::ReportDropped`].
    pub report_dropped: u64,
    /// See [`ReportError::HpkeUnknownConfigId`].
    pub hpke_unknown_config_id: u64,
    /// See [`ReportError::HpkeDecryptError`].
    pub hpke_decrypt_failure: u64,
    /// See [`ReportError::VdafVerifyError`].
    pub vdaf_prep_error: u64,
    /// See [`ReportError::TaskExpired`].
    pub task_expired: u64,
    /// See [`ReportError::InvalidMessage`].
    pub invalid_message: u64,
    /// See [`ReportError::ReportTooEarly`].
    pub report_too_early: u64,
}

impl AggregationCounters {
    /// Each counter with its name.
    pub const fn named(&self) -> [(&'static str, u64); 12] {
        [
            ("success", self.success),
            ("duplicate_extension", self.duplicate_extension),
            ("public_share_encode_failure", self.public_share_encode_failure),
            ("batch_collected", self.batch_collected),
            ("report_replayed", self.report_replayed),
            ("report_dropped", self.report_dropped),
            ("hpke_unknown_config_id", self.hpke_unknown_config_id),
            ("hpke_decrypt_failure", self.hpke_decrypt_failure),
            ("vdaf_prep_error", self.vdaf_prep_error),
            ("task_expired", self.task_expired),
            ("invalid_message", self.invalid_message),
            ("report_too_early", self.report_too_early),
        ]
    }

    fn of(&mut self, failure: Failure) -> &mut u64 {
        if let Failure::DuplicateExtension(_) = failure {
            return &mut self.duplicate_extension;
        }
        match failure.report_error() {
            ReportError::BatchCollected => &mut self.batch_collected,
            ReportError::ReportReplayed => &mut self.report_replayed,
            // Those beside ReportDropped are answered by no helper so far; none may go uncounted.
            ReportError::ReportDropped | ReportError::BatchSaturated => &mut self.report_dropped,
            ReportError::HpkeUnknownConfigId | ReportError::OutdatedConfig => {
                &mut self.hpke_unknown_config_id
            }
            ReportError::HpkeDecryptError => &mut self.hpke_decrypt_failure,
            ReportError::VdafVerifyError => &mut self.vdaf_prep_error,
            ReportError::TaskExpired => &mut self.task_expired,
            ReportError::InvalidMessage => &mut self.invalid_message,
            ReportError::ReportTooEarly | ReportError::TaskNotStarted => &mut self.report_too_early,
        }
    }
}

/// A task's counters: running totals since the task was created, which only grow.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskCounters {
    /// Reports, by outcome.
    pub aggregation: AggregationCounters,
    /// Reports by [`STEP_FAILURES`], all of which are here.
    pub step_failures: BTreeMap<String, u64>,
    /// Requests refused as a whole, by resource and kind; those that occurred.
    pub refusals: BTreeMap<String, BTreeMap<String, u64>>,
    /// Batches collected, each with each aggregation parameter.
    pub collections: u64,
    /// Reports in them.
    pub collected_reports: u64,
    /// Reports that were forgotten, being too old, before a collection asked for them.
    pub expired_reports: u64,
}

impl TaskCounters {
    /// The counters of `totals`, but for what is collected.
    pub fn of(totals: &Totals) -> Self {
        let mut counters = Self {
            step_failures: STEP_FAILURES.iter().map(|name| ((*name).to_owned(), 0)).collect(),
            ..Self::default()
        };
        counters.aggregation.success = totals.accepted;
        for (failure, n) in &totals.failures {
            *counters.aggregation.of(*failure) += n;
            if let Some(name) = failure.step_failure() {
                *counters.step_failures.entry(name.to_owned()).or_default() += n;
            }
        }
        for ((resource, kind), n) in &totals.refusals {
            let of = counters.refusals.entry(resource.label().to_owned()).or_default();
            *of.entry(kind.label().to_owned()).or_default() += n;
        }
        counters
    }
}

impl AbortKind {
    /// Name in logs and metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::InvalidMessage => "invalid_message",
            Self::UnrecognizedTask => "unrecognized_task",
            Self::UnrecognizedAggregationJob => "unrecognized_aggregation_job",
            Self::BatchInvalid => "batch_invalid",
            Self::InvalidBatchSize => "invalid_batch_size",
            Self::BatchQueriedTooManyTimes => "batch_queried_too_many_times",
            Self::BatchMismatch => "batch_mismatch",
            Self::StepMismatch => "step_mismatch",
            Self::BatchOverlap => "batch_overlap",
            Self::InvalidAggregationParameter => "invalid_aggregation_parameter",
            Self::UnsupportedExtension => "unsupported_extension",
            Self::InvalidExtension => "invalid_extension",
            Self::UnauthorizedRequest => "unauthorized_request",
            Self::Conflict => "conflict",
            Self::BadPath => "bad_path",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::BodyTooLarge => "body_too_large",
            Self::BadRequest => "bad_request",
            Self::InvalidTask => "invalid_task",
            Self::PlainHttp => "plain_http",
            Self::TooManyRequests => "too_many_requests",
            Self::NotAcceptable => "not_acceptable",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{metrics::Tally, time::Time};

    #[test]
    fn every_failure_is_counted_once() {
        let mut totals = Totals::default();
        for failure in Failure::ALL {
            totals.add(&Tally { accepted: 1, failures: vec![(failure, 2)] }, Time::from_seconds(1));
        }
        let counters = TaskCounters::of(&totals);
        let all: u64 = counters.aggregation.named().iter().map(|(_, n)| n).sum();
        assert_eq!(all, 3 * Failure::ALL.len() as u64);
        assert_eq!(counters.step_failures.len(), STEP_FAILURES.len(), "no name beside the list");
        assert_eq!(TaskCounters::of(&Totals::default()).step_failures.len(), STEP_FAILURES.len());
        let steps: u64 = counters.step_failures.values().sum();
        let expected = Failure::ALL.iter().filter(|f| f.step_failure().is_some()).count() as u64;
        assert_eq!(steps, 2 * expected);
    }
}
