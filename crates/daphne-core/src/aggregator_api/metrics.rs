//! Counters of a task, as the aggregator API names them. All are running totals.

use serde::Serialize;

use crate::metrics::AggregationCounters;

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
    own: AggregationCounters,
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

impl From<AggregationCounters> for AggregationMetrics {
    fn from(own: AggregationCounters) -> Self {
        Self {
            own,
            helper_batch_collected: own.batch_collected,
            helper_report_replayed: own.report_replayed,
            helper_report_dropped: own.report_dropped,
            helper_hpke_unknown_config_id: own.hpke_unknown_config_id,
            helper_hpke_decrypt_failure: own.hpke_decrypt_failure,
            helper_vdaf_prep_error: own.vdaf_prep_error,
            helper_task_expired: own.task_expired,
            // The leader is told of both in the same way.
            helper_invalid_message: own.invalid_message + own.duplicate_extension,
            helper_report_too_early: own.report_too_early,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_counters_are_there_as_integers_under_the_names_that_consoles_read() {
        let counters = AggregationCounters {
            success: 1,
            duplicate_extension: 11,
            public_share_encode_failure: 0,
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
        let expected = r#"{"success":1,"duplicate_extension":11,"public_share_encode_failure":0,"batch_collected":2,"report_replayed":3,"report_dropped":4,"hpke_unknown_config_id":5,"hpke_decrypt_failure":6,"vdaf_prep_error":7,"task_expired":8,"invalid_message":9,"report_too_early":18446744073709551615,"helper_batch_collected":2,"helper_report_replayed":3,"helper_report_dropped":4,"helper_hpke_unknown_config_id":5,"helper_hpke_decrypt_failure":6,"helper_vdaf_prep_error":7,"helper_task_expired":8,"helper_invalid_message":20,"helper_report_too_early":18446744073709551615}"#;
        let metrics = AggregationMetrics::from(counters);
        assert_eq!(serde_json::to_string(&metrics).unwrap(), expected);
        let uploads = r#"{"interval_collected":0,"report_decode_failure":0,"report_decrypt_failure":0,"report_expired":0,"report_outdated_key":0,"report_success":0,"report_too_early":0,"task_expired":0}"#;
        assert_eq!(serde_json::to_string(&UploadMetrics::default()).unwrap(), uploads);
    }
}
