//! What must hold in every schedule, looked at while it runs and when it has ended.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use daphne_core::{
    batch::{BucketRange, Checksum},
    collect::collector::{self, CollectorTask},
    error::{AbortKind, ReportError},
    hpke::Role,
    ids::AggregationJobId,
    message::{HpkeCiphertext, PartialBatchSelector, VerifyResp, VerifyRespResult},
    metrics::Totals,
    store::{
        Objects as _,
        config_store::TaskObjects,
        message::{LedgerRequest, LedgerResponse},
    },
    vdaf::AggregateResult,
};

use crate::{
    coverage::Event,
    executor::Host,
    leader::{self, View, is_contested},
    network::{Bytes, HttpAnswer, HttpRequest},
    reports::{self, ALL, Special, Times, fixture},
    world::World,
};

/// What was seen, and the first thing that should not have been.
#[derive(Default)]
pub struct Oracle {
    violation: RefCell<Option<String>>,
    jobs: RefCell<BTreeMap<AggregationJobId, (Bytes, Bytes)>>,
    shares: RefCell<BTreeMap<Bytes, Bytes>>,
    /// The helper's shares in the clear, by answer: opening is most of an oracle's work.
    opened: RefCell<BTreeMap<Bytes, Vec<u8>>>,
    /// What the leader counted in a range when it asked for it.
    asked: RefCell<Vec<(BucketRange, View)>>,
    /// How often each report was in the slices that a decision kept, as far as they were separate then.
    kept: RefCell<BTreeMap<BucketRange, Option<Times>>>,
}

impl Oracle {
    /// Something happened that must not.
    pub fn violation(&self, what: String) {
        self.violation.borrow_mut().get_or_insert(what);
    }

    /// The first thing that happened and must not.
    pub fn found(&self) -> Option<String> {
        self.violation.borrow().clone()
    }

    /// The helper's answer to a job, if any Worker made one.
    pub fn answer_to(&self, job: AggregationJobId, body: &Bytes) -> Option<Bytes> {
        self.jobs.borrow().get(&job).filter(|(b, _)| b == body).map(|(_, answer)| answer.clone())
    }

    /// All requests that were answered with a success.
    pub fn answered(&self) -> Vec<HttpRequest> {
        let jobs = self.jobs.borrow();
        let jobs = jobs.iter().map(|(job, (body, _))| HttpRequest::PutJob(*job, body.clone()));
        jobs.chain(self.shares.borrow().keys().cloned().map(HttpRequest::PostShare)).collect()
    }

    /// The leader asks for a range.
    pub fn asked(&self, range: BucketRange, view: &View) {
        let mut asked = self.asked.borrow_mut();
        if !asked.iter().any(|(r, v)| (*r, v) == (range, view)) {
            asked.push((range, view.clone()));
        }
    }

    // --- The leader's side --------------------------------------------------------------

    /// The leader got an aggregate share: with its own it is what it counted.
    pub fn collected(
        &self,
        world: &World,
        range: BucketRange,
        view: &View,
        body: &[u8],
        answer: &Bytes,
    ) {
        // A cheat's own share is not of what the helper kept; what that is is looked at when it is decided.
        match open(world, view, body, answer) {
            _ if world.scenario.cheats => {}
            Ok(times) if times == view.times.map(u128::from) => {}
            Ok(times) => self.violation(format!(
                "{range:?} was collected with reports counted {times:?} times, the leader counts {:?}",
                view.times
            )),
            Err(why) => self.violation(format!("the share of {range:?} is useless: {why}")),
        }
        if !world.scenario.cheats && view.times.iter().any(|n| *n > 1) {
            self.violation(format!("reports were collected twice: {:?}", view.times));
        }
    }

    /// A careful leader's request was refused.
    pub fn right_refused(&self, world: &World, range: BucketRange, view: &View, kind: AbortKind) {
        let allowed = match kind {
            AbortKind::InvalidBatchSize if !world.scenario.cheats => {
                view.report_count < world.scenario.min_batch_size
            }
            // Whether there is such a collection was looked at when the helper said so.
            AbortKind::BatchOverlap => true,
            // Its own hasty request may have been answered, with less.
            AbortKind::BatchMismatch if world.scenario.is_sloppy() => {
                world.scenario.cheats
                    || world.decided(&range).iter().any(|c| {
                        c.range == range
                            && (c.report_count, c.checksum) != (view.report_count, view.checksum)
                    })
            }
            _ => world.scenario.cheats,
        };
        if !allowed {
            self.violation(format!(
                "the right collection of {} reports of {range:?} is refused: {kind:?}",
                view.report_count
            ));
        }
    }
}

/// How often each report is in an aggregate: the collector opens the helper's share and adds the leader's.
fn open(
    world: &World,
    view: &View,
    body: &[u8],
    answer: &Bytes,
) -> Result<[u128; ALL.len()], String> {
    let known = world.oracle.opened.borrow().get(answer).cloned();
    let helper_share = match known {
        Some(share) => share,
        None => open_share(world, body, answer)?,
    };
    let result = collector::unshard(
        &world.task.vdaf,
        &fixture(world.scenario.version).agg_param,
        &view.share,
        &helper_share,
        view.report_count,
    )
    .map_err(|e| e.to_string())?;
    match result {
        AggregateResult::Vector(times) => times.try_into().map_err(|_| "its length".to_owned()),
        AggregateResult::Number(_) => Err("it is a number".to_owned()),
    }
}

fn open_share(world: &World, body: &[u8], answer: &Bytes) -> Result<Vec<u8>, String> {
    let request = world.wire().aggregate_share_request(body).map_err(|e| e.detail)?;
    let parameters = &world.task.parameters;
    let task = CollectorTask {
        task_id: world.task.id(),
        version: parameters.version,
        task_configuration: &parameters.task_configuration,
    };
    let sealed = HpkeCiphertext::decode(answer).map_err(|e| e.to_string())?;
    let keys = &fixture(parameters.version).collector;
    let share = task
        .open_share(keys, Role::Helper, &request.share_binding, sealed)
        .map_err(|e| e.to_string())?;
    world.oracle.opened.borrow_mut().insert(answer.clone(), share.clone());
    Ok(share)
}

/// A share was given out: looks at what the decision kept, once.
pub fn decided(world: &World, range: BucketRange) {
    for row in world.decided(&range).iter().filter(|row| row.range == range) {
        if !row.exclude.is_empty() {
            world.count(Event::Exclusion);
        }
        let mut kept = world.oracle.kept.borrow_mut();
        let times = kept.entry(range).or_insert_with(|| world.times_held(&range, &row.exclude));
        if times.is_some_and(|times| times.iter().any(|n| *n > 1)) {
            world.oracle.violation(format!("{range:?} keeps reports {times:?} times"));
        }
    }
}

// --- The helper's side ------------------------------------------------------------------

/// What is known when a Worker begins to serve a request.
pub struct Before {
    /// Of a collection: its range, and what stores hold there.
    held: Option<(BucketRange, (u64, Checksum))>,
    /// The same request was answered with a success.
    answered: bool,
}

/// Looks at a request before a Worker serves it.
pub fn before(world: &World, request: &HttpRequest) -> Before {
    let oracle = &world.oracle;
    match request {
        HttpRequest::PutJob(job, body) => {
            Before { held: None, answered: oracle.answer_to(*job, body).is_some() }
        }
        HttpRequest::DeleteJob(_) => Before { held: None, answered: false },
        HttpRequest::GetShare(body) => {
            Before { held: None, answered: oracle.shares.borrow().contains_key(body) }
        }
        HttpRequest::PostShare(body) => {
            let range = share_request(world, body).and_then(|(range, _)| range);
            let held = range.map(|range| (range, world.held_facts(range)));
            Before { held, answered: oracle.shares.borrow().contains_key(body) }
        }
    }
}

/// A request's range, if it is one, and its count and checksum.
fn share_request(world: &World, body: &[u8]) -> Option<(Option<BucketRange>, (u64, Checksum))> {
    let request = world.wire().aggregate_share_request(body).ok()?;
    let range = BucketRange::from_selector(
        &request.batch_selector,
        world.scenario.mode,
        world.task.parameters.time_precision,
    );
    Some((range.ok(), (request.report_count, Checksum::new(request.checksum))))
}

/// Looks at a Worker's answer, whether or not it will arrive.
pub fn after(world: &World, request: &HttpRequest, answer: &HttpAnswer, before: Before) {
    let oracle = &world.oracle;
    if world.forgotten.get() {
        return after_forgetting(world, request, answer);
    }
    if let (true, HttpAnswer::Refused(kind)) = (before.answered, answer) {
        oracle.violation(format!("what was answered is refused when it comes again: {kind:?}"));
    }
    match (request, answer) {
        (_, HttpAnswer::Broken(why)) => oracle.violation(format!("500: {why}")),
        (_, HttpAnswer::Unavailable) => world.count(Event::Unavailable),
        (HttpRequest::PutJob(job, body), HttpAnswer::Ok(answer)) => {
            let seen = (body.clone(), answer.clone());
            let first = oracle.jobs.borrow_mut().entry(*job).or_insert(seen.clone()).clone();
            if first.0 != seen.0 {
                oracle.violation(format!("{job:?} is accepted with two bodies"));
            } else if first.1 != seen.1 {
                oracle.violation(format!("{job:?} is answered differently the second time"));
            }
            check_verdicts(world, *job, body, answer);
        }
        (HttpRequest::PutJob(job, _), HttpAnswer::Refused(kind)) => {
            world.count(Event::Conflict);
            if *kind != AbortKind::Conflict || !is_contested(world, job.as_bytes()[0]) {
                oracle.violation(format!("{job:?} is refused: {kind:?}"));
            }
        }
        (HttpRequest::DeleteJob(_), HttpAnswer::Ok(_)) => {}
        (HttpRequest::DeleteJob(job), HttpAnswer::Refused(kind)) => {
            oracle.violation(format!("DELETE of {job:?} is refused: {kind:?}"));
        }
        (HttpRequest::PostShare(body), HttpAnswer::Ok(answer)) => {
            world.count(Event::Collected);
            let seen = answer.clone();
            if *oracle.shares.borrow_mut().entry(body.clone()).or_insert(seen) != *answer {
                oracle.violation("one collection has two answers".to_owned());
            }
            let facts = share_request(world, body);
            let decided = facts.is_some_and(|(range, facts)| {
                range.is_some_and(|range| {
                    world
                        .decided(&range)
                        .iter()
                        .any(|c| c.range == range && (c.report_count, c.checksum) == facts)
                })
            });
            if !decided {
                oracle.violation("a share was given out without a decision".to_owned());
            }
        }
        (HttpRequest::GetShare(body), HttpAnswer::Ok(answer)) => {
            world.count(Event::ShareFetched);
            if oracle.shares.borrow().get(body) != Some(answer) {
                oracle.violation("a share is another one where it is kept".to_owned());
            }
        }
        (HttpRequest::GetShare(body), HttpAnswer::Refused(kind)) => {
            if *kind != AbortKind::NotFound || oracle.shares.borrow().contains_key(body) {
                oracle.violation(format!("a share is not given out where it is kept: {kind:?}"));
            }
        }
        (HttpRequest::PostShare(body), HttpAnswer::Refused(kind)) => {
            if oracle.shares.borrow().contains_key(body) {
                oracle
                    .violation(format!("a collection was answered, and is now refused: {kind:?}"));
            }
            check_refusal(world, body, *kind, &before);
        }
    }
}

/// When all reports are too old, none is accepted any more; collections are answered as ever.
fn after_forgetting(world: &World, request: &HttpRequest, answer: &HttpAnswer) {
    let oracle = &world.oracle;
    match (request, answer) {
        (HttpRequest::PutJob(job, _), HttpAnswer::Ok(answer)) => {
            let Ok(answer) = world.wire().aggregation_job_resp(answer) else {
                return oracle.violation(format!("the answer to {job:?} does not decode"));
            };
            if answer.iter().any(|r| matches!(r.result, VerifyRespResult::Continue(_))) {
                oracle.violation(format!("{job:?} is accepted a month later"));
            }
        }
        (HttpRequest::PostShare(body) | HttpRequest::GetShare(body), HttpAnswer::Ok(answer))
            if oracle.shares.borrow().get(body) != Some(answer) =>
        {
            oracle.violation("a collection is answered differently a month later".to_owned());
        }
        (_, HttpAnswer::Broken(why)) => oracle.violation(format!("500: {why}")),
        (HttpRequest::PostShare(_) | HttpRequest::GetShare(_), HttpAnswer::Refused(kind)) => {
            oracle.violation(format!("a collection is refused a month later: {kind:?}"));
        }
        _ => {}
    }
}

/// A refused collection has the right error.
fn check_refusal(world: &World, body: &[u8], kind: AbortKind, before: &Before) {
    let Some((_, asked)) = share_request(world, body) else { return };
    // Cheats may ask for anything; but what is wrong about an honest leader's request is known.
    let right = match (&before.held, kind) {
        (None, kind) => kind == AbortKind::BatchInvalid,
        (Some((range, _)), AbortKind::BatchOverlap) => {
            // A batch that is collected once is not collected again, however it is asked for.
            let once = world.scenario.version.aggregates_once();
            world.decided(range).iter().any(|c| once || c.range != *range)
        }
        (Some((_, (held, _))), AbortKind::InvalidBatchSize) => {
            // Of what is held, a collection keeps what the leader asks for.
            let kept = asked.0.min(*held);
            kept < world.scenario.min_batch_size || world.scenario.cheats
        }
        (Some((range, (held, _))), AbortKind::BatchInvalid) => {
            // None is held, or none is asked for, and all jobs are left out.
            matches!(range, BucketRange::Batch(_))
                && (*held == 0 || asked.0 == 0 || world.scenario.cheats)
        }
        // Stores only ever gain reports: had they held what was asked for all the time, it would be wrong.
        (Some((range, held)), AbortKind::BatchMismatch) => {
            *held != asked
                || world.held_facts(*range) != asked
                // Or two jobs that hold one report are counted, as a cheat would have it.
                || world.scenario.cheats
                // Or it was collected otherwise meanwhile.
                || !world.scenario.version.aggregates_once() && world.decided(range).iter().any(|c| {
                    c.range == *range && (c.report_count, c.checksum) != asked
                })
        }
        (Some(_), _) => false,
    };
    world.count(match kind {
        AbortKind::BatchMismatch => Event::BatchMismatch,
        AbortKind::BatchOverlap => Event::BatchOverlap,
        AbortKind::InvalidBatchSize => Event::BatchSize,
        _ => Event::BatchInvalid,
    });
    if !right {
        let held = before.held.map(|(range, (n, _))| (range, n));
        world.oracle.violation(format!(
            "a collection of {} reports is refused as {kind:?}; the stores held {held:?}",
            asked.0
        ));
    }
}

/// Every report of a job was refused for a reason, or might be accepted.
fn check_verdicts(world: &World, job: AggregationJobId, body: &[u8], answer: &[u8]) {
    let oracle = &world.oracle;
    let wire = world.wire();
    let (Ok(init), Ok(answer)) =
        (wire.aggregation_job_init(body), wire.aggregation_job_resp(answer))
    else {
        return oracle.violation(format!("the answer to {job:?} does not decode"));
    };
    let batch = match init.batch {
        PartialBatchSelector::LeaderSelected(id) => id.as_bytes()[0],
        PartialBatchSelector::TimeInterval => 0,
    };
    for VerifyResp { report_id, result } in answer {
        let report = reports::number(&report_id);
        let special = ALL[report].special;
        let right = match result {
            VerifyRespResult::Finish => false,
            VerifyRespResult::Continue(_) => !matches!(
                special,
                Some(
                    Special::OtherTask | Special::Extension | Special::AfterEnd | Special::FarAhead
                )
            ),
            VerifyRespResult::Reject(error) => {
                world.count(event_of(error));
                match error {
                    ReportError::BatchCollected => {
                        let bucket = reports::bucket(&world.scenario, batch, report);
                        world
                            .decided(&reports::whole(&world.scenario, batch))
                            .iter()
                            .any(|c| c.range.contains(&bucket))
                    }
                    ReportError::ReportReplayed => world
                        .committed
                        .borrow()
                        .get(&report)
                        .is_some_and(|jobs| jobs.iter().any(|j| *j != job)),
                    ReportError::ReportTooEarly => {
                        matches!(
                            special,
                            Some(Special::Early | Special::AfterEnd | Special::FarAhead)
                        )
                    }
                    ReportError::ReportDropped => special == Some(Special::Expiring),
                    ReportError::TaskExpired => special == Some(Special::AfterEnd),
                    ReportError::HpkeDecryptError => special == Some(Special::OtherTask),
                    ReportError::InvalidMessage => special == Some(Special::Extension),
                    _ => false,
                }
            }
        };
        if !right {
            oracle.violation(format!("{job:?}: report {report} gets a verdict it cannot have"));
        }
    }
}

const fn event_of(error: ReportError) -> Event {
    match error {
        ReportError::BatchCollected => Event::ReportCollected,
        ReportError::ReportReplayed => Event::ReportReplayed,
        ReportError::ReportDropped => Event::ReportDropped,
        ReportError::ReportTooEarly => Event::ReportEarly,
        ReportError::TaskExpired => Event::ReportExpired,
        ReportError::HpkeDecryptError => Event::ReportUndecryptable,
        _ => Event::ReportMalformed,
    }
}

// --- At the end -------------------------------------------------------------------------

/// All ranges with one decision each; every bucket that has none.
pub fn ranges_to_collect(world: &World) -> BTreeSet<BucketRange> {
    let mut ranges = BTreeSet::new();
    for bucket in 0..reports::BUCKETS as u8 {
        let range = reports::range(&world.scenario, bucket, 1);
        match world.decided(&range).first() {
            Some(decided) => ranges.insert(decided.range),
            None => ranges.insert(range),
        };
    }
    ranges
}

/// Looks at what is left when nothing happens any more.
pub fn at_the_end(world: &World) {
    let oracle = &world.oracle;
    for left in world.left_over() {
        oracle.violation(format!("at the end, {left}"));
    }
    let strict = !world.scenario.cheats && !world.scenario.is_sloppy();
    let mut times = Times::default();
    for range in ranges_to_collect(world) {
        let view = leader::view(world, range, false);
        let decided = world.decided(&range);
        let [row] = decided.as_slice() else {
            if decided.len() > 1 {
                oracle.violation(format!("{range:?} was decided {} times", decided.len()));
            } else if view.report_count >= world.scenario.min_batch_size && !world.scenario.cheats {
                oracle.violation(format!("{range:?} was not collected: burnt, or stuck"));
            }
            continue;
        };
        let held = world.held(range, &row.exclude);
        if (held.report_count, held.checksum) != (row.report_count, row.checksum) {
            oracle.violation(format!("{range:?} changed after it was collected"));
        }
        if strict && (row.report_count, row.checksum) != (view.report_count, view.checksum) {
            oracle.violation(format!("{range:?}: leader and helper collected different reports"));
        }
        let facts = |v: &View| (v.report_count, v.checksum);
        let asked = oracle.asked.borrow();
        let asked =
            asked.iter().find(|(r, v)| *r == range && facts(v) == (row.report_count, row.checksum));
        let kept = oracle.kept.borrow().get(&range).copied().flatten();
        match (asked, kept) {
            (None, _) => oracle.violation(format!("{range:?} was never asked for like that")),
            (Some((_, view)), Some(kept)) if !world.scenario.cheats && kept != view.times => {
                oracle.violation(format!("{range:?} keeps {kept:?}, asked for {:?}", view.times));
            }
            _ => {}
        }
        for (sum, n) in times.iter_mut().zip(kept.unwrap_or_default()) {
            *sum += n;
        }
    }
    if times.iter().any(|n| *n > 1) {
        oracle.violation(format!("over all collections, reports are counted {times:?} times"));
    }
}

/// Looks at the counters: each job that was answered is counted as it was answered, once.
pub fn counters(world: &Rc<World>) {
    let w = world.clone();
    world.executor.spawn(Host::Leader, None, async move {
        let TaskObjects { placement, field } = w.task.parameters.objects();
        let ask = LedgerRequest::Status { placement, field, batches: false, after: None };
        match w.network.ledger(w.task.id(), ask).await {
            Ok(LedgerResponse::Status(status)) if status.is_complete() => {
                compare_counters(&w, &status.totals);
            }
            other => w.oracle.violation(format!("a status is answered with {other:?}")),
        }
    });
}

fn compare_counters(world: &World, totals: &Totals) {
    let (mut accepted, mut refused) = (0u64, BTreeMap::<ReportError, u64>::new());
    for (_, answer) in world.oracle.jobs.borrow().values() {
        let Ok(answer) = world.wire().aggregation_job_resp(answer) else { continue };
        for VerifyResp { result, .. } in answer {
            match result {
                VerifyRespResult::Reject(error) => *refused.entry(error).or_default() += 1,
                VerifyRespResult::Continue(_) | VerifyRespResult::Finish => accepted += 1,
            }
        }
    }
    let mut counted: BTreeMap<ReportError, u64> = BTreeMap::new();
    for (failure, n) in &totals.failures {
        *counted.entry(failure.report_error()).or_default() += n;
    }
    if (totals.accepted, &counted) != (accepted, &refused) {
        world.oracle.violation(format!(
            "{accepted} reports were accepted and {refused:?} refused, counted are {} and {counted:?}",
            totals.accepted
        ));
    }
}

/// Looks at what is left when all reports have been too old for long.
pub fn after_a_month(world: &World) {
    let left = world.remembered();
    if left > 0 {
        world.oracle.violation(format!("{left} tables of jobs are never forgotten"));
    }
}
