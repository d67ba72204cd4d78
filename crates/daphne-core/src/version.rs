//! Protocol versions, and everything that differs between them as data.
//!
//! A version is decided once, from the request's path, and checked against the task. Shapes that differ are in
//! [`crate::wire`]; behaviour that differs is a function named after the behaviour. What remains is this table.
//! Every `match` is exhaustive without `_`, so a new draft does not compile until its column is filled.

use serde::{Deserialize, Serialize};

use crate::{
    error::{AbortKind, ReportError},
    ids::TaskId,
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

    /// Token under `urn:ietf:params:ppm:dap:error:`, or `None`: then no DAP URN may be sent.
    /// DAP-09 §3.2, DAP-18 §3.6.
    pub const fn problem_token(self, a: AbortKind) -> Option<&'static str> {
        use AbortKind::*;
        match a {
            InvalidMessage => Some("invalidMessage"),
            UnrecognizedTask => Some("unrecognizedTask"),
            UnrecognizedAggregationJob => Some("unrecognizedAggregationJob"),
            BatchInvalid => Some("batchInvalid"),
            InvalidBatchSize => Some("invalidBatchSize"),
            BatchMismatch => Some("batchMismatch"),
            StepMismatch => Some("stepMismatch"),
            BatchOverlap => Some("batchOverlap"),
            InvalidTask => Some("invalidTask"),
            BatchQueriedTooManyTimes => match self {
                Self::V09 => Some("batchQueriedTooManyTimes"),
                Self::V18 => None,
            },
            UnauthorizedRequest => match self {
                Self::V09 => Some("unauthorizedRequest"),
                Self::V18 => None,
            },
            Conflict | BadPath | NotFound | MethodNotAllowed | UnsupportedMediaType
            | BodyTooLarge | BadRequest | PlainHttp | TooManyRequests | NotAcceptable => None,
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
        for version in [DapVersion::V09, DapVersion::V18] {
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
