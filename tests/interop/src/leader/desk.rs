//! What the leader decides: which reports it takes, which batch they are in, and how far a collection is.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Display,
    sync::{Mutex, MutexGuard},
};

use axum::http::{HeaderMap, HeaderName, header};
use daphne_core::{
    batch::{BatchBucket, BatchMode, BucketRange},
    error::{Abort, AbortKind},
    ids::{BatchId, ReportId},
    message::{self, BatchSelector},
    problem::{self, problem},
    time::Time,
    vdaf::AggregationParam,
    version::{DapVersion, Message},
    wire::v09,
};
use e2e::{World, client::URN, now, server::random};
use serde_json::json;

use super::{aggregation::Aggregation, media_type, text};

/// An answer.
#[derive(Clone)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// The body's media type.
    pub media_type: Option<&'static str>,
    /// The body.
    pub body: Vec<u8>,
}

impl Reply {
    fn empty(status: u16) -> Self {
        Self { status, media_type: None, body: Vec::new() }
    }

    /// A problem document.
    pub(super) fn problem(status: u16, body: Vec<u8>) -> Self {
        Self { status, media_type: Some(problem::MEDIA_TYPE), body }
    }

    /// The helper broke the protocol: nothing that the collector could do about.
    pub(super) fn broken(why: &impl Display) -> Self {
        let document = json!({ "type": "about:blank", "status": 502, "detail": why.to_string() });
        Self::problem(502, document.to_string().into_bytes())
    }
}

/// The leader behind its HTTP.
pub struct Desk {
    pub(super) world: World,
    pub(super) collector_token: String,
    state: Mutex<State>,
}

/// A report as it was uploaded.
pub struct Stored {
    /// Its encoding.
    pub report: Vec<u8>,
    /// The batch bucket it belongs to.
    pub bucket: BatchBucket,
}

impl Stored {
    /// The report.
    pub fn decoded(&self) -> v09::Report<'_> {
        v09::Report::decode(&self.report).expect("it was decoded when it came")
    }
}

#[derive(Default)]
struct State {
    reports: BTreeMap<ReportId, Stored>,
    /// Batches of a leader-selected task, with their number of reports.
    batches: Vec<(BatchId, u64)>,
    /// What a collection has asked for is closed to further reports.
    closed: Vec<BucketRange>,
    collections: HashMap<String, CollectionJob>,
    /// What was aggregated, by the encoding of the aggregation parameter.
    aggregations: HashMap<Vec<u8>, Aggregation>,
}

struct CollectionJob {
    request: Vec<u8>,
    selector: BatchSelector,
    range: BucketRange,
    agg_param: AggregationParam,
    progress: Progress,
}

enum Progress {
    /// Nothing was done yet.
    Begun,
    /// Both aggregators have aggregated all reports of the batch.
    Aggregated,
    /// The answer.
    Finished(Reply),
    /// The collector does not want it any more.
    Abandoned,
}

impl Desk {
    pub(super) fn new(world: World, collector_token: String) -> Self {
        Self { world, collector_token, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("the leader does not panic")
    }

    pub(super) fn batches(&self) -> Vec<BatchId> {
        self.state().batches.iter().map(|(id, _)| *id).collect()
    }

    pub(super) fn reports(&self) -> Vec<Vec<u8>> {
        self.state().reports.values().map(|stored| stored.report.clone()).collect()
    }

    fn refuse(&self, abort: &Abort) -> Reply {
        let document = problem(abort, Some(DapVersion::V09), Some(&self.world.task_id));
        Reply::problem(document.status, serde_json::to_vec(&document).expect("a document"))
    }

    /// Refuses a report, with one of the types that only leaders send. DAP-09 §4.4.2.
    fn refuse_report(&self, token: &str) -> Reply {
        let document = json!({
            "type": format!("{URN}{token}"),
            "status": 400,
            "taskid": self.world.task_id,
        });
        Reply::problem(400, document.to_string().into_bytes())
    }

    /// Checks the task and the body's media type.
    pub(super) fn check(
        &self,
        task: &str,
        headers: &HeaderMap,
        body: Option<Message>,
    ) -> Result<(), Reply> {
        if task != self.world.task_id.to_string() {
            return Err(self.refuse(&Abort::new(AbortKind::UnrecognizedTask, "")));
        }
        match body {
            Some(message) if text(headers, header::CONTENT_TYPE) != media_type(message) => {
                Err(self.refuse(&Abort::new(AbortKind::UnsupportedMediaType, "")))
            }
            _ => Ok(()),
        }
    }

    /// Checks the collector's token.
    pub(super) fn authorize(&self, headers: &HeaderMap) -> Result<(), Reply> {
        let bearer = text(headers, header::AUTHORIZATION).strip_prefix("Bearer ");
        let token = bearer.unwrap_or(text(headers, HeaderName::from_static("dap-auth-token")));
        if token == self.collector_token {
            Ok(())
        } else {
            Err(self.refuse(&Abort::new(AbortKind::UnauthorizedRequest, "")))
        }
    }

    /// Takes a report; one that is there already is taken and forgotten. DAP-09 §4.4.2.
    pub(super) fn upload(&self, body: &[u8]) -> Reply {
        let report = match v09::Report::decode(body) {
            Ok(report) => report,
            Err(e) => return self.refuse(&Abort::invalid_message(e.to_string())),
        };
        let metadata = report.report_metadata;
        let sealed = report.leader_encrypted_input_share;
        if sealed.config_id != self.world.leader_keys.config().id {
            return self.refuse_report("outdatedConfig");
        }
        let skew = self.world.spec.tolerable_clock_skew.as_seconds();
        if metadata.time > Time::from_seconds(now() + skew) {
            return self.refuse_report("reportTooEarly");
        }
        let mut state = self.state();
        if state.reports.contains_key(&metadata.report_id) {
            return Reply::empty(200);
        }
        let bucket = state.bucket(&self.world, metadata.time);
        if state.closed.iter().any(|range| range.contains(&bucket)) {
            return self.refuse_report("reportRejected");
        }
        state.reports.insert(metadata.report_id, Stored { report: body.to_vec(), bucket });
        Reply::empty(200)
    }

    /// Begins a collection. DAP-09 §4.6.1.
    pub(super) fn collect(&self, id: &str, body: &[u8]) -> Reply {
        let mut state = self.state();
        match state.collections.get(id) {
            Some(job) if job.request == body => return Reply::empty(201),
            Some(_) => return self.refuse(&Abort::new(AbortKind::Conflict, "")),
            None => {}
        }
        match state.begin(&self.world, body) {
            Ok(job) => {
                state.closed.push(job.range);
                state.collections.insert(id.to_owned(), job);
                Reply::empty(201)
            }
            Err(abort) => self.refuse(&abort),
        }
    }

    /// Says how far a collection is, and takes it a step further: the first poll has the reports aggregated, the second
    /// asks for the helper's share. DAP-09 §4.6.1.
    pub(super) fn poll(&self, id: &str) -> Reply {
        let State { reports, closed, collections, aggregations, .. } = &mut *self.state();
        let Some(job) = collections.get_mut(id) else {
            return self.refuse(&Abort::new(AbortKind::NotFound, ""));
        };
        let aggregation = aggregations
            .entry(job.agg_param.encode())
            .or_insert_with(|| Aggregation::new(job.agg_param.clone()));
        let step = match &job.progress {
            Progress::Begun => aggregation.advance(&self.world, job.range, reports).map(|()| {
                job.progress = Progress::Aggregated;
                Reply::empty(202)
            }),
            Progress::Aggregated => {
                aggregation.collect(&self.world, job.range, job.selector).inspect(|reply| {
                    job.progress = Progress::Finished(reply.clone());
                })
            }
            Progress::Finished(reply) => Ok(reply.clone()),
            Progress::Abandoned => Ok(Reply::empty(204)),
        };
        step.unwrap_or_else(|reply| {
            // Nothing was collected, so the batch may grow and be asked for again.
            closed.retain(|range| *range != job.range);
            job.progress = Progress::Finished(reply.clone());
            reply
        })
    }

    /// Forgets a collection.
    pub(super) fn abandon(&self, id: &str) -> Reply {
        match self.state().collections.get_mut(id) {
            Some(job) => {
                job.progress = Progress::Abandoned;
                Reply::empty(204)
            }
            None => self.refuse(&Abort::new(AbortKind::NotFound, "")),
        }
    }
}

impl State {
    /// Where a new report goes: by its time, or into the batch that is being filled.
    fn bucket(&mut self, world: &World, time: Time) -> BatchBucket {
        if world.spec.batch_mode == BatchMode::TimeInterval {
            return BatchBucket::Window(time.round_down(world.spec.time_precision));
        }
        let full = world.spec.max_batch_size.unwrap_or(world.spec.min_batch_size);
        match self.batches.last_mut() {
            Some((id, count)) if *count < full => {
                *count += 1;
                BatchBucket::Batch(*id)
            }
            _ => {
                let id = BatchId::new(random());
                self.batches.push((id, 1));
                BatchBucket::Batch(id)
            }
        }
    }

    fn begin(&self, world: &World, body: &[u8]) -> Result<CollectionJob, Abort> {
        let request = v09::CollectionReq::decode(body)?;
        let agg_param = world.leader.vdaf.decode_agg_param(request.agg_param)?;
        let selector = match message::Query::try_from(request.query)? {
            message::Query::TimeInterval(interval) => BatchSelector::TimeInterval {
                start: interval.start(),
                duration: interval.duration(),
            },
            message::Query::ByBatchId(id) => BatchSelector::LeaderSelected(id),
            message::Query::CurrentBatch => BatchSelector::LeaderSelected(self.current(world)?),
        };
        let spec = &world.spec;
        let range = BucketRange::from_selector(&selector, spec.batch_mode, spec.time_precision)?;
        let request = body.to_vec();
        Ok(CollectionJob { request, selector, range, agg_param, progress: Progress::Begun })
    }

    /// The first batch that nobody has asked for and that is large enough.
    fn current(&self, world: &World) -> Result<BatchId, Abort> {
        let open = |id: &BatchId| !self.closed.contains(&BucketRange::Batch(*id));
        self.batches
            .iter()
            .find(|(id, count)| *count >= world.spec.min_batch_size && open(id))
            .map(|(id, _)| *id)
            .ok_or_else(|| Abort::new(AbortKind::BatchInvalid, "no batch is full"))
    }
}
