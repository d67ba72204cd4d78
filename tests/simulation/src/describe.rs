//! Messages in a few words, for people who read a trace.

use daphne_core::{
    ids::{AggregationJobId, ReportId},
    message::{VerifyResp, VerifyRespResult},
    store::{
        aggregate_store::report_ids,
        message::{
            AggregateStoreResponse, Collect, JobInRange, JobStoreRequest, LedgerRequest,
            LedgerResponse, StoreAction,
        },
        placement::StoreId,
    },
    wire::Wire,
};

use crate::{
    network::{Answer, HttpAnswer, HttpRequest, Request},
    reports,
};

/// A request.
pub fn request(wire: Wire, request: &Request) -> String {
    match request {
        Request::Http(HttpRequest::PutJob(id, body)) => {
            let init = wire.aggregation_job_init(body);
            let numbers: Vec<usize> = init.map_or(Vec::new(), |init| {
                let ids = init.verify_inits.iter().map(|v| v.report_share.metadata.report_id);
                ids.map(|id| reports::number(&id)).collect()
            });
            format!("Worker: {} of reports {numbers:?}", job(*id))
        }
        Request::Http(HttpRequest::DeleteJob(id)) => format!("Worker: DELETE {}", job(*id)),
        Request::Http(HttpRequest::PostShare(body)) => match wire.aggregate_share_request(body) {
            Ok(b) => {
                format!("Worker: collect {} reports of {:?}", b.report_count, b.batch_selector)
            }
            Err(e) => format!("Worker: collect {}", e.detail),
        },
        Request::Http(HttpRequest::GetShare(_)) => "Worker: GET a share".to_owned(),
        Request::Store(id, request) => format!("{}: {}", store(id), action(&request.action)),
        Request::Ledger(request) => format!("ledger: {}", ledger_request(request)),
        Request::JobStore(shard, JobStoreRequest::Claim { job: id, digest, .. }) => {
            format!("job store {shard}: claim {} for {:02x}", job(*id), digest[0])
        }
        Request::JobStore(shard, JobStoreRequest::Knows(id)) => {
            format!("job store {shard}: knows {}?", job(*id))
        }
        Request::JobStore(shard, JobStoreRequest::Begun { job: id, digest }) => {
            format!("job store {shard}: begun {} for {:02x}?", job(*id), digest[0])
        }
        Request::JobStore(shard, JobStoreRequest::Begin { job: id, digest, .. }) => {
            format!("job store {shard}: begin {} for {:02x}", job(*id), digest[0])
        }
        Request::JobStore(shard, JobStoreRequest::BeginStep { job: id, step, digest, .. }) => {
            format!("job store {shard}: begin step {step} of {} for {:02x}", job(*id), digest[0])
        }
        Request::JobStore(shard, JobStoreRequest::EndStep { job: id, step, .. }) => {
            format!("job store {shard}: end step {step} of {}", job(*id))
        }
        Request::JobStore(shard, JobStoreRequest::Forget(id)) => {
            format!("job store {shard}: forget {}", job(*id))
        }
        Request::JobStore(shard, JobStoreRequest::Deferred(request)) => {
            format!("job store {shard}: {request:?}")
        }
        Request::JobStore(shard, JobStoreRequest::Purge) => format!("job store {shard}: purge"),
    }
}

/// An answer.
pub fn answer(wire: Wire, answer: &Answer) -> String {
    match answer {
        Answer::Http(HttpAnswer::Ok(body)) => match wire.aggregation_job_resp(body) {
            Ok(answer) => format!("200 {:?}", answer.iter().map(verdict).collect::<Vec<_>>()),
            Err(_) => format!("200, {} bytes", body.len()),
        },
        Answer::Http(HttpAnswer::Refused(kind)) => format!("4xx {kind:?}"),
        Answer::Http(HttpAnswer::Unavailable) => "503".to_owned(),
        Answer::Http(HttpAnswer::Broken(why)) => format!("500 {why}"),
        Answer::Store(answer) => match &**answer {
            AggregateStoreResponse::Gathered { content, contested, .. } => {
                let contested = if *contested { ", contested" } else { "" };
                format!("Gathered {} reports{contested}", content.report_count)
            }
            AggregateStoreResponse::Replayed { soft, hard } => {
                let soft: Vec<String> = soft
                    .iter()
                    .map(|(id, owner)| format!("{} of {}", reports::number(id), job(*owner)))
                    .collect();
                format!("Replayed {:?} for good, {soft:?}", numbers(hard))
            }
            AggregateStoreResponse::Jobs(jobs) => {
                let of = |j: &JobInRange| {
                    let yields = if j.yields { ", yields" } else { "" };
                    format!("{}: {}{yields}", job(j.job), j.report_count)
                };
                let all: Vec<String> = jobs.jobs.iter().map(of).collect();
                format!("Jobs {all:?}, {} reports packed", jobs.packed_count)
            }
            AggregateStoreResponse::Collected(ids) => format!("Collected {:?}", numbers(ids)),
            other => format!("{other:?}"),
        },
        Answer::Ledger(LedgerResponse::Share(share)) => format!("Share of {} bytes", share.len()),
        Answer::Ledger(answer) => format!("{answer:?}"),
        Answer::JobStore(answer) => format!("{answer:?}"),
        Answer::Lost => "nothing: lost, or given up".to_owned(),
    }
}

fn job(id: AggregationJobId) -> String {
    format!("job {}", id.as_bytes()[0])
}

fn numbers(ids: &[ReportId]) -> Vec<usize> {
    ids.iter().map(reports::number).collect()
}

fn store(id: &StoreId) -> String {
    format!("store {}/{}", id.group, id.shard)
}

fn verdict(resp: &VerifyResp) -> String {
    let report = reports::number(&resp.report_id);
    match &resp.result {
        VerifyRespResult::Continue(_) => format!("{report} ok"),
        other => format!("{report} {other:?}"),
    }
}

fn action(action: &StoreAction) -> String {
    match action {
        StoreAction::Commit(commit) => {
            let slices: Vec<Vec<usize>> = commit
                .slices
                .iter()
                .map(|s| report_ids(&s.ids).map(|id| reports::number(&id)).collect())
                .collect();
            let refused: Vec<_> =
                commit.refused.iter().map(|(id, e)| (reports::number(id), e)).collect();
            let open = if commit.open.is_some() { "" } else { ", unopened" };
            let readmit: Vec<String> = commit.readmit.iter().map(|j| job(*j)).collect();
            format!(
                "commit {} {slices:?}, refused {refused:?}, readmits {readmit:?}{open}",
                job(commit.job)
            )
        }
        StoreAction::Gather { range, exclude, .. } => {
            let exclude: Vec<String> = exclude.iter().map(|j| job(*j)).collect();
            format!("gather {range:?} without {exclude:?}")
        }
        StoreAction::GatherJobs { range, .. } => format!("gather jobs of {range:?}"),
        StoreAction::Begin(begin) => {
            let ids: Vec<ReportId> = begin.reports.iter().map(|(id, _)| *id).collect();
            format!("begin {:?}", numbers(&ids))
        }
        StoreAction::Purge => "purge".to_owned(),
        StoreAction::Totals { .. } => "totals".to_owned(),
        StoreAction::KnowsJob(id) => format!("knows {}?", job(*id)),
        StoreAction::Freeze { attempt, range, .. } => {
            format!("freeze {range:?} for {attempt}")
        }
        StoreAction::Seal { attempt, range, exclude, .. } => {
            let exclude: Vec<String> = exclude.iter().map(|j| job(*j)).collect();
            format!("seal {range:?} for {attempt} without {exclude:?}")
        }
        StoreAction::Thaw { attempt } => format!("thaw {attempt}"),
    }
}

fn ledger_request(request: &LedgerRequest) -> String {
    match request {
        LedgerRequest::Open { store: id, .. } => format!("open {}", store(id)),
        LedgerRequest::Settle { store: id, attempt, .. } => {
            format!("settle {attempt}, met in {}", store(id))
        }
        LedgerRequest::Release { job: id, .. } => format!("release {}", job(*id)),
        LedgerRequest::ReleasePieces { pieces, .. } => format!("release {} pieces", pieces.len()),
        LedgerRequest::Released(jobs) => {
            format!("released {:?}?", jobs.iter().map(|j| job(*j)).collect::<Vec<_>>())
        }
        LedgerRequest::Expired { store: id, uncollected, .. } => {
            format!("{} forgets {uncollected} reports", store(id))
        }
        LedgerRequest::Answer(digest) => format!("answer to {:02x}?", digest[0]),
        LedgerRequest::ForgetAnswer(digest) => format!("forget the answer to {:02x}", digest[0]),
        LedgerRequest::Status { .. } => "status".to_owned(),
        LedgerRequest::Note { job: id, .. } => format!("note {}", job(*id)),
        LedgerRequest::Refused(_) => "refused".to_owned(),
        LedgerRequest::Purge { .. } => "purge".to_owned(),
        LedgerRequest::Collect(collect) => {
            let Collect { range, report_count, .. } = &**collect;
            format!("collect {report_count} reports of {range:?}")
        }
    }
}
