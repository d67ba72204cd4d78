//! The names that messages and refusals go by.

use daphne_core::{
    error::{Abort, AbortKind},
    problem::problem,
    version::{DapVersion, Message},
};
use janus_messages::{self as theirs, problem_type::DapProblemType, query_type::TimeInterval};

#[test]
fn media_types_are_theirs() {
    for (ours, theirs) in [
        (Message::HpkeConfigList, theirs::HpkeConfigList::MEDIA_TYPE),
        (Message::Report, theirs::Report::MEDIA_TYPE),
        (
            Message::AggregationJobInit,
            theirs::AggregationJobInitializeReq::<TimeInterval>::MEDIA_TYPE,
        ),
        (Message::AggregationJobContinue, theirs::AggregationJobContinueReq::MEDIA_TYPE),
        (Message::AggregationJobResponse, theirs::AggregationJobResp::MEDIA_TYPE),
        (Message::AggregateShareRequest, theirs::AggregateShareReq::<TimeInterval>::MEDIA_TYPE),
        (Message::AggregateShare, theirs::AggregateShare::MEDIA_TYPE),
        (Message::CollectionJobRequest, theirs::CollectionReq::<TimeInterval>::MEDIA_TYPE),
        (Message::CollectionJobResponse, theirs::Collection::<TimeInterval>::MEDIA_TYPE),
    ] {
        assert_eq!(DapVersion::V09.media_type(ours), Some(theirs));
    }
}

#[test]
fn types_and_titles_of_refusals_are_theirs() {
    for (ours, theirs) in [
        (AbortKind::InvalidMessage, DapProblemType::InvalidMessage),
        (AbortKind::UnrecognizedTask, DapProblemType::UnrecognizedTask),
        (AbortKind::UnrecognizedAggregationJob, DapProblemType::UnrecognizedAggregationJob),
        (AbortKind::BatchInvalid, DapProblemType::BatchInvalid),
        (AbortKind::InvalidBatchSize, DapProblemType::InvalidBatchSize),
        (AbortKind::BatchQueriedTooManyTimes, DapProblemType::BatchQueriedTooManyTimes),
        (AbortKind::BatchMismatch, DapProblemType::BatchMismatch),
        (AbortKind::UnauthorizedRequest, DapProblemType::UnauthorizedRequest),
        (AbortKind::StepMismatch, DapProblemType::StepMismatch),
        (AbortKind::BatchOverlap, DapProblemType::BatchOverlap),
        (AbortKind::InvalidTask, DapProblemType::InvalidTask),
    ] {
        let document = problem(&Abort::new(ours, ""), Some(DapVersion::V09), None);
        assert_eq!(document.type_, theirs.type_uri());
        assert_eq!(document.title, theirs.description());
    }
}
