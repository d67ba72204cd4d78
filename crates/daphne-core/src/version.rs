//! Protocol versions, and everything that differs between them as data.
//!
//! A version is decided once, from the request's path, and checked against the task. Shapes that differ are in
//! [`crate::wire`]; behaviour that differs is a function named after the behaviour. What remains is this table.
//! Every `match` is exhaustive without `_`, so a new draft does not compile until its column is filled.

use serde::{Deserialize, Serialize};

use crate::{
    error::{AbortKind, ReportError},
    ids::TaskId,
    wire::v09::TASKPROV_EXTENSION,
};

/// A published draft of DAP that tasks can speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum DapVersion {
    /// draft-ietf-ppm-dap-09, with VDAF-08.
    #[serde(rename = "dap-09")]
    V09,
    /// draft-ietf-ppm-dap-18, with VDAF-18.
    #[serde(rename = "dap-18")]
    V18,
}

/// A published draft of VDAF.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum VdafDraft {
    /// draft-irtf-cfrg-vdaf-08.
    V08,
    /// draft-irtf-cfrg-vdaf-18, byte-compatible with -19 and -20.
    V18,
}

impl DapVersion {
    /// All versions, the oldest first.
    pub const ALL: [Self; 2] = [Self::V09, Self::V18];

    /// Domain-separation tag. DAP-09 §4.4.2, DAP-18 §4.4.2.
    pub const fn tag(self) -> &'static str {
        match self {
            Self::V09 => "dap-09",
            Self::V18 => "dap-18",
        }
    }

    /// First segment of every DAP path of this version.
    pub const fn path_prefix(self) -> &'static str {
        match self {
            Self::V09 => "v09",
            Self::V18 => "v18",
        }
    }

    /// The VDAF draft this version computes with.
    pub const fn vdaf_draft(self) -> VdafDraft {
        match self {
            Self::V09 => VdafDraft::V08,
            Self::V18 => VdafDraft::V18,
        }
    }

    /// The application context of the VDAF: DAP-18 §4.4.2. VDAF-08, and so DAP-09, has none and ignores it.
    pub fn vdaf_context(self, task: &TaskId) -> Vec<u8> {
        [self.tag().as_bytes(), task.as_bytes()].concat()
    }

    /// Code point of a per-report error, or `None` where this draft has none.
    /// DAP-09 §4.5.1.2 `PrepareError`, DAP-18 §4.1 `ReportError`.
    pub const fn report_error_code(self, e: ReportError) -> Option<u8> {
        use ReportError::*;
        match self {
            Self::V09 => match e {
                BatchCollected => Some(0),
                ReportReplayed => Some(1),
                ReportDropped => Some(2),
                HpkeUnknownConfigId => Some(3),
                HpkeDecryptError => Some(4),
                VdafVerifyError => Some(5),
                BatchSaturated => Some(6),
                TaskExpired => Some(7),
                InvalidMessage => Some(8),
                ReportTooEarly => Some(9),
                TaskNotStarted | OutdatedConfig => None,
            },
            Self::V18 => match e {
                BatchCollected => Some(1),
                ReportReplayed => Some(2),
                ReportDropped => Some(3),
                HpkeUnknownConfigId => Some(4),
                HpkeDecryptError => Some(5),
                VdafVerifyError => Some(6),
                TaskExpired => Some(7),
                InvalidMessage => Some(8),
                ReportTooEarly => Some(9),
                TaskNotStarted => Some(10),
                OutdatedConfig => Some(11),
                BatchSaturated => None,
            },
        }
    }

    /// The per-report error with this code point, the inverse of [`DapVersion::report_error_code`].
    pub fn report_error_from_code(self, code: u8) -> Option<ReportError> {
        ReportError::ALL.into_iter().find(|e| self.report_error_code(*e) == Some(code))
    }

    /// The error for a report that was sealed to a key we do not have, or that came after its key's end.
    /// DAP-09 §4.5.1.3 has one of its own; by DAP-18 §4.5.3.3 it is the same as for a share that does not open.
    pub const fn unknown_key_error(self) -> ReportError {
        match self {
            Self::V09 => ReportError::HpkeUnknownConfigId,
            Self::V18 => ReportError::HpkeDecryptError,
        }
    }

    /// What a leader is told in place of an error, which this version may have no use for.
    pub const fn sent_error(self, e: ReportError) -> ReportError {
        match e {
            ReportError::HpkeUnknownConfigId => self.unknown_key_error(),
            other => other,
        }
    }

    /// What a kind of mistake is called here: DAP-09 has no word for some that DAP-18 §3.6 tells apart.
    pub const fn abort_kind(self, a: AbortKind) -> AbortKind {
        match self {
            Self::V09 => match a {
                AbortKind::InvalidAggregationParameter
                | AbortKind::UnsupportedExtension
                | AbortKind::InvalidExtension => AbortKind::InvalidMessage,
                other => other,
            },
            Self::V18 => match a {
                // One batch, one collection: whatever comes later overlaps. DAP-18 §4.6.4.
                AbortKind::BatchQueriedTooManyTimes => AbortKind::BatchOverlap,
                AbortKind::BadPath => AbortKind::InvalidMessage,
                other => other,
            },
        }
    }

    /// Whether a request may be answered later. DAP-09 has no way to say so; DAP-18 §3.1.
    pub const fn may_defer(self) -> bool {
        match self {
            Self::V09 => false,
            Self::V18 => true,
        }
    }

    /// Whether the leader chooses the ids of aggregation jobs: DAP-09 §4.5.1. By DAP-18 §4.5.3 the helper does, and says
    /// where a job is.
    pub const fn leader_names_jobs(self) -> bool {
        match self {
            Self::V09 => true,
            Self::V18 => false,
        }
    }

    /// Whether a job's first request, repeated after a continuation, is answered with the job's current state. In DAP-09
    /// §4.5.1.2 an initialization comes first or not at all; by DAP-18 §4.5.3.2 it "MUST return the existing job's
    /// location and current state".
    pub const fn repeats_after_continuation(self) -> bool {
        match self {
            Self::V09 => false,
            Self::V18 => true,
        }
    }

    /// Token under `urn:ietf:params:ppm:dap:error:`, or `None`: then no DAP URN may be sent.
    /// DAP-09 §3.2, DAP-18 §3.6.
    pub const fn problem_token(self, a: AbortKind) -> Option<&'static str> {
        use AbortKind::*;
        match self.abort_kind(a) {
            InvalidAggregationParameter => Some("invalidAggregationParameter"),
            UnsupportedExtension => Some("unsupportedExtension"),
            InvalidExtension => Some("invalidExtension"),
            InvalidMessage => Some("invalidMessage"),
            UnrecognizedTask => Some("unrecognizedTask"),
            UnrecognizedAggregationJob => Some("unrecognizedAggregationJob"),
            BatchInvalid => Some("batchInvalid"),
            InvalidBatchSize => Some("invalidBatchSize"),
            BatchMismatch => Some("batchMismatch"),
            StepMismatch => Some("stepMismatch"),
            BatchOverlap => Some("batchOverlap"),
            InvalidTask => Some("invalidTask"),
            BatchQueriedTooManyTimes => Some("batchQueriedTooManyTimes"),
            UnauthorizedRequest => match self {
                Self::V09 => Some("unauthorizedRequest"),
                Self::V18 => None,
            },
            Conflict | BadPath | NotFound | MethodNotAllowed | UnsupportedMediaType
            | BodyTooLarge | BadRequest | PlainHttp | TooManyRequests | NotAcceptable => None,
        }
    }

    /// The resources of a Helper, with their paths below the version's. DAP-09 §4, DAP-18 §11.
    pub const fn resources(self) -> &'static [(&'static str, Endpoint)] {
        match self {
            Self::V09 => &[
                ("/hpke_config", Endpoint::HpkeConfig),
                ("/tasks/{task}/aggregation_jobs/{job}", Endpoint::NamedAggregationJob),
                ("/tasks/{task}/aggregate_shares", Endpoint::AggregateShareRequests),
            ],
            Self::V18 => &[
                ("/hpke_config", Endpoint::HpkeConfig),
                ("/tasks/{task}/aggregation_jobs", Endpoint::AggregationJobs),
                ("/tasks/{task}/aggregation_jobs/{job}", Endpoint::AggregationJob),
                ("/tasks/{task}/aggregate_shares", Endpoint::AggregateShares),
                ("/tasks/{task}/aggregate_shares/{job}", Endpoint::AggregateShare),
            ],
        }
    }

    /// Whether a client may name the task for which it asks for HPKE configurations, which must then be known.
    /// DAP-09 §4.4.1; DAP-18 §4.4.1 has no such parameter.
    pub const fn hpke_config_names_a_task(self) -> bool {
        match self {
            Self::V09 => true,
            Self::V18 => false,
        }
    }

    /// Whether a batch is collected once, whatever for, and a report is aggregated once, whatever for. DAP-18 §4.5.4.3.
    /// In DAP-09 the task says for how many aggregation parameters (§4.6.5), and the VDAF which reports may be
    /// aggregated again (§4.5.1.4).
    pub const fn aggregates_once(self) -> bool {
        match self {
            Self::V09 => false,
            Self::V18 => true,
        }
    }

    /// The report extension without data that each report of a task from taskprov has: taskprov-07 §3. Its later drafts,
    /// which go with later ones of DAP, have none: the configuration is in the associated data.
    pub const fn taskprov_extension(self) -> Option<u16> {
        match self {
            Self::V09 => Some(TASKPROV_EXTENSION),
            Self::V18 => None,
        }
    }

    /// Whether report extensions are in strictly increasing order. DAP-18 §4.5.3.4; DAP-09 does not say.
    pub const fn extensions_are_ordered(self) -> bool {
        match self {
            Self::V09 => false,
            Self::V18 => true,
        }
    }

    /// Whether all that is sealed is bound to the task's configuration, which all parties then have word for word.
    /// DAP-18 §4.2; DAP-09 has no such message.
    pub const fn has_configuration(self) -> bool {
        match self {
            Self::V09 => false,
            Self::V18 => true,
        }
    }

    /// Media types, `None` where this draft has no such message.
    pub const fn media_type(self, m: Message) -> Option<&'static str> {
        use Message::*;
        match self {
            Self::V09 => match m {
                HpkeConfigList => Some("application/dap-hpke-config-list"),
                Report => Some("application/dap-report"),
                AggregationJobInit => Some("application/dap-aggregation-job-init-req"),
                AggregationJobContinue => Some("application/dap-aggregation-job-continue-req"),
                AggregationJobResponse => Some("application/dap-aggregation-job-resp"),
                AggregateShareRequest => Some("application/dap-aggregate-share-req"),
                AggregateShare => Some("application/dap-aggregate-share"),
                CollectionJobRequest => Some("application/dap-collect-req"),
                CollectionJobResponse => Some("application/dap-collection"),
            },
            Self::V18 => match m {
                HpkeConfigList => Some("application/ppm-dap;message=hpke-config-list"),
                Report => Some("application/ppm-dap;message=upload-req"),
                AggregationJobInit => Some("application/ppm-dap;message=aggregation-job-init-req"),
                AggregationJobContinue => {
                    Some("application/ppm-dap;message=aggregation-job-continue-req")
                }
                AggregationJobResponse => Some("application/ppm-dap;message=aggregation-job-resp"),
                AggregateShareRequest => Some("application/ppm-dap;message=aggregate-share-req"),
                AggregateShare => Some("application/ppm-dap;message=aggregate-share"),
                CollectionJobRequest => Some("application/ppm-dap;message=collection-job-req"),
                CollectionJobResponse => Some("application/ppm-dap;message=collection-job-resp"),
            },
        }
    }
}

/// What lives at a path of a Helper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// Our HPKE configurations.
    HpkeConfig,
    /// An aggregation job under an id that the leader chose. DAP-09 §4.5.
    NamedAggregationJob,
    /// Where aggregation jobs are created. DAP-18 §4.5.3.
    AggregationJobs,
    /// An aggregation job under an id that we chose. DAP-18 §4.5.
    AggregationJob,
    /// Where aggregate shares are asked for, once and for all. DAP-09 §4.6.2.
    AggregateShareRequests,
    /// Where aggregate shares are created. DAP-18 §4.6.4.
    AggregateShares,
    /// An aggregate share. DAP-18 §4.6.4.
    AggregateShare,
}

/// The messages that have a media type. DAP-09 §8.1, DAP-18 §9.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the drafts' message names")]
pub enum Message {
    HpkeConfigList,
    #[doc(alias = "UploadRequest")]
    Report,
    AggregationJobInit,
    AggregationJobContinue,
    AggregationJobResponse,
    AggregateShareRequest,
    AggregateShare,
    CollectionJobRequest,
    CollectionJobResponse,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn report_error_codes_are_distinct_and_invert() {
        for version in DapVersion::ALL {
            let mut seen = std::collections::BTreeSet::new();
            for e in ReportError::ALL {
                if let Some(code) = version.report_error_code(e) {
                    assert!(seen.insert(code), "{version:?} {code}");
                    assert_eq!(version.report_error_from_code(code), Some(e));
                }
            }
        }
        assert_eq!(DapVersion::V18.report_error_from_code(0), None);
        assert_eq!(DapVersion::V09.report_error_from_code(10), None);
    }
}
