//! Problem documents (RFC 9457): the only place that writes an error URN or chooses an error status.

use serde::Serialize;

use crate::{
    error::{Abort, AbortKind, Internal},
    ids::TaskId,
    version::DapVersion,
};

/// Media type of a problem document.
pub const MEDIA_TYPE: &str = "application/problem+json";

/// What a refused request is answered with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ProblemDocument {
    /// A DAP URN, or `about:blank` where the draft lists none for this kind.
    #[serde(rename = "type")]
    pub type_: String,
    /// A fixed sentence for the type. Janus' wording for DAP types, which tools match on.
    pub title: &'static str,
    /// The HTTP status: `400..=499`, or 500 or 503 if it is our fault.
    pub status: u16,
    /// What went wrong in this case.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// The task, when known. DAP-09 §3.2, DAP-18 §3.6.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub taskid: Option<String>,
}

/// HTTP status of a refusal. DAP types answer 400, as every implementation does; a failed authorization is
/// not an "abort" (DAP-09 §3.1) and answers 403.
pub const fn status(kind: AbortKind) -> u16 {
    use AbortKind::*;
    match kind {
        InvalidMessage
        | UnrecognizedTask
        | UnrecognizedAggregationJob
        | BatchInvalid
        | InvalidBatchSize
        | BatchQueriedTooManyTimes
        | BatchMismatch
        | StepMismatch
        | BatchOverlap
        | InvalidAggregationParameter
        | UnsupportedExtension
        | InvalidExtension
        | InvalidTask
        | BadPath
        | BadRequest => 400,
        UnauthorizedRequest | PlainHttp => 403,
        NotFound => 404,
        MethodNotAllowed => 405,
        NotAcceptable => 406,
        Conflict => 409,
        BodyTooLarge => 413,
        UnsupportedMediaType => 415,
        TooManyRequests => 429,
    }
}

const fn title(kind: AbortKind) -> &'static str {
    use AbortKind::*;
    match kind {
        InvalidMessage => {
            "The message type for a response was incorrect or the payload was malformed."
        }
        UnrecognizedTask => "An endpoint received a message with an unknown task ID.",
        UnrecognizedAggregationJob => {
            "An endpoint received a message with an unknown aggregation job ID."
        }
        BatchInvalid => "The batch implied by the query is invalid.",
        InvalidBatchSize => "The number of reports included in the batch is invalid.",
        BatchQueriedTooManyTimes => {
            "The batch described by the query has been queried too many times."
        }
        BatchMismatch => "Leader and helper disagree on reports aggregated in a batch.",
        StepMismatch => "The leader and helper are not on the same step of VDAF preparation.",
        BatchOverlap => "The queried batch overlaps with a previously queried batch.",
        InvalidAggregationParameter => {
            "The aggregation parameter is not valid for the task's VDAF."
        }
        UnsupportedExtension => "An extension is not supported.",
        InvalidExtension => "The extensions are out of order or repeated.",
        InvalidTask => "Aggregator has opted out of the indicated task.",
        UnauthorizedRequest => "The request's authorization is not valid.",
        Conflict => "The resource exists with other content.",
        BadPath => "The path holds a malformed identifier.",
        NotFound => "Nothing is here.",
        MethodNotAllowed => "The resource does not support this method.",
        UnsupportedMediaType => "The media type of the body is not supported here.",
        BodyTooLarge => "The body is too large.",
        BadRequest => "The request is malformed.",
        PlainHttp => "Only HTTPS is served.",
        TooManyRequests => "Too many requests: the same request will succeed later.",
        NotAcceptable => "The resource is not to be had in the media type that is asked for.",
    }
}

/// The document for `abort`, in the vocabulary of `version`; `None` for requests outside of DAP paths.
pub fn problem(
    abort: &Abort,
    version: Option<DapVersion>,
    task: Option<&TaskId>,
) -> ProblemDocument {
    let kind = version.map_or(abort.kind, |v| v.abort_kind(abort.kind));
    let type_ = version.and_then(|v| v.problem_token(kind)).map_or_else(
        || "about:blank".to_owned(),
        |token| format!("urn:ietf:params:ppm:dap:error:{token}"),
    );
    ProblemDocument {
        type_,
        title: title(kind),
        status: status(kind),
        detail: abort.detail.clone(),
        taskid: task.map(ToString::to_string),
    }
}

/// The document for a failure of our own, which says nothing about its cause: that is for the log.
pub fn internal_problem(internal: &Internal, task: Option<&TaskId>) -> ProblemDocument {
    let (status, title) = match internal {
        // A 503 also for overload, and no 429: it is not the leader who sent too much, and a leader that takes any
        // 4xx as final would abandon the job.
        Internal::Unavailable(_) | Internal::Overloaded(_) => {
            (503, "Come again: the same request will succeed later.")
        }
        Internal::Broken(_) => (500, "Something is wrong on our side."),
    };
    ProblemDocument {
        type_: "about:blank".to_owned(),
        title,
        status,
        detail: String::new(),
        taskid: task.map(ToString::to_string),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_kind_unknown_to_the_draft_sends_no_dap_urn() {
        let abort = Abort::new(AbortKind::UnauthorizedRequest, "");
        assert_eq!(
            problem(&abort, Some(DapVersion::V09), None).type_,
            "urn:ietf:params:ppm:dap:error:unauthorizedRequest"
        );
        assert_eq!(problem(&abort, Some(DapVersion::V18), None).type_, "about:blank");
        assert_eq!(problem(&abort, None, None).type_, "about:blank");
    }

    /// DAP-09 §8.3 registers the types of §3.2, DAP-18 those of its §3.6; taskprov-07 §4.8 adds one.
    #[test]
    fn every_type_that_is_sent_is_registered() {
        const BOTH: &[&str] = &[
            "batchInvalid",
            "batchMismatch",
            "batchOverlap",
            "invalidBatchSize",
            "invalidMessage",
            "invalidTask",
            "stepMismatch",
            "unrecognizedAggregationJob",
            "unrecognizedTask",
        ];
        const V09_ONLY: &[&str] = &[
            "batchQueriedTooManyTimes",
            "missingTaskID",
            "outdatedConfig",
            "reportRejected",
            "reportTooEarly",
            "unauthorizedRequest",
        ];
        const V18_ONLY: &[&str] =
            &["invalidAggregationParameter", "invalidExtension", "unsupportedExtension"];
        for (version, own) in [(DapVersion::V09, V09_ONLY), (DapVersion::V18, V18_ONLY)] {
            for kind in AbortKind::ALL {
                let document = problem(&Abort::new(kind, ""), Some(version), None);
                assert!((400..500).contains(&document.status), "{kind:?}");
                assert!(!document.title.is_empty());
                match document.type_.strip_prefix("urn:ietf:params:ppm:dap:error:") {
                    Some(token) => {
                        assert!(BOTH.contains(&token) || own.contains(&token), "{token}")
                    }
                    None => assert_eq!(document.type_, "about:blank"),
                }
            }
        }
        let distinct: BTreeSet<_> = AbortKind::ALL.map(|kind| kind as u8).into();
        assert_eq!(distinct.len(), AbortKind::ALL.len());
    }

    #[test]
    fn documents_carry_the_task_and_nothing_empty() {
        let doc = problem(
            &Abort::new(AbortKind::BatchMismatch, ""),
            Some(DapVersion::V09),
            Some(&TaskId::new([0; 32])),
        );
        assert_eq!(
            serde_json::to_string(&doc).unwrap(),
            r#"{"type":"urn:ietf:params:ppm:dap:error:batchMismatch","title":"Leader and helper disagree on reports aggregated in a batch.","status":400,"taskid":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}"#
        );
    }
}
