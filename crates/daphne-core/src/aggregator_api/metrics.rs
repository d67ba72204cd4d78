//! Counters of a task, as the aggregator API names them. All are running totals.

use serde::{Deserialize, Serialize};

/// What a Helper has made of the reports of a task's aggregation jobs, each counted once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportCounters {
    /// Aggregated.
    pub success: u64,
    /// Of a batch that was collected before.
    pub batch_collected: u64,
    /// Aggregated before.
    pub report_replayed: u64,
    /// Too old, or of too many buckets.
    pub report_dropped: u64,
    /// Sealed to a key that we do not have.
    pub hpke_unknown_config_id: u64,
    /// Did not open.
    pub hpke_decrypt_failure: u64,
    /// With a proof that does not verify.
    pub vdaf_prep_error: u64,
    /// Made after the task's end.
    pub task_expired: u64,
    /// Malformed.
    pub invalid_message: u64,
    /// From too far in the future.
    pub report_too_early: u64,
}

/// What `GET /tasks/{id}/metrics/uploads` answers. Clients upload to the leader, so a Helper counts nothing here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the names are Janus', and a Helper has nothing to say about them")]
pub struct UploadMetrics {
    pub interval_collected: u64,
    pub report_decode_failure: u64,
    pub report_decrypt_failure: u64,
    pub report_expired: u64,
    pub report_outdated_key: u64,
    pub report_success: u64,
    pub report_too_early: u64,
    pub task_expired: u64,
}

/// What `GET /tasks/{id}/metrics/aggregations` answers. The names without `helper_` are for what the answering
/// aggregator found, those with it for what the Helper said; here both are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct AggregationMetrics {
    #[serde(flatten)]
    own: Own,
    helper_batch_collected: u64,
    helper_report_replayed: u64,
    helper_report_dropped: u64,
    helper_hpke_unknown_config_id: u64,
    helper_hpke_decrypt_failure: u64,
    helper_vdaf_prep_error: u64,
    helper_task_expired: u64,
    helper_invalid_message: u64,
    helper_report_too_early: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
struct Own {
    success: u64,
    /// Counted as `invalid_message`.
    duplicate_extension: u64,
    /// Of leaders only.
    public_share_encode_failure: u64,
    batch_collected: u64,
    report_replayed: u64,
    report_dropped: u64,
    hpke_unknown_config_id: u64,
    hpke_decrypt_failure: u64,
    vdaf_prep_error: u64,
    task_expired: u64,
    invalid_message: u64,
    report_too_early: u64,
}

impl From<ReportCounters> for AggregationMetrics {
    fn from(c: ReportCounters) -> Self {
        Self {
            own: Own {
                success: c.success,
                duplicate_extension: 0,
                public_share_encode_failure: 0,
                batch_collected: c.batch_collected,
                report_replayed: c.report_replayed,
                report_dropped: c.report_dropped,
                hpke_unknown_config_id: c.hpke_unknown_config_id,
                hpke_decrypt_failure: c.hpke_decrypt_failure,
                vdaf_prep_error: c.vdaf_prep_error,
                task_expired: c.task_expired,
                invalid_message: c.invalid_message,
                report_too_early: c.report_too_early,
            },
            helper_batch_collected: c.batch_collected,
            helper_report_replayed: c.report_replayed,
            helper_report_dropped: c.report_dropped,
            helper_hpke_unknown_config_id: c.hpke_unknown_config_id,
            helper_hpke_decrypt_failure: c.hpke_decrypt_failure,
            helper_vdaf_prep_error: c.vdaf_prep_error,
            helper_task_expired: c.task_expired,
            helper_invalid_message: c.invalid_message,
            helper_report_too_early: c.report_too_early,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_counters_are_there_as_integers_under_the_names_that_consoles_read() {
        let counters = ReportCounters {
            success: 1,
            batch_collected: 2,
            report_replayed: 3,
            report_dropped: 4,
            hpke_unknown_config_id: 5,
            hpke_decrypt_failure: 6,
            vdaf_prep_error: 7,
            task_expired: 8,
            invalid_message: 9,
            report_too_early: u64::MAX,
        };
        let expected = r#"{"success":1,"duplicate_extension":0,"public_share_encode_failure":0,"batch_collected":2,"report_replayed":3,"report_dropped":4,"hpke_unknown_config_id":5,"hpke_decrypt_failure":6,"vdaf_prep_error":7,"task_expired":8,"invalid_message":9,"report_too_early":18446744073709551615,"helper_batch_collected":2,"helper_report_replayed":3,"helper_report_dropped":4,"helper_hpke_unknown_config_id":5,"helper_hpke_decrypt_failure":6,"helper_vdaf_prep_error":7,"helper_task_expired":8,"helper_invalid_message":9,"helper_report_too_early":18446744073709551615}"#;
        let metrics = AggregationMetrics::from(counters);
        assert_eq!(serde_json::to_string(&metrics).unwrap(), expected);
        let uploads = r#"{"interval_collected":0,"report_decode_failure":0,"report_decrypt_failure":0,"report_expired":0,"report_outdated_key":0,"report_success":0,"report_too_early":0,"task_expired":0}"#;
        assert_eq!(serde_json::to_string(&UploadMetrics::default()).unwrap(), uploads);
    }
}
