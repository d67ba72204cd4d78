//! The leader: honest, durable and impatient, or a cheat. It repeats the same bytes until they are answered, counts what
//! both aggregators accepted, and asks for its batches.

use std::{
    cell::{Cell, RefCell},
    future::Future,
    pin::Pin,
    rc::Rc,
};

use daphne_core::{
    aggregate::{commit, leader::LeaderOutcome},
    batch::{BatchMode, BucketRange, Checksum},
    error::AbortKind,
    ids::AggregationJobId,
    message::{AggregateShareRequest, BatchSelector},
    time::Duration,
    vdaf::share,
};

use crate::{
    coverage::Event,
    executor::{Host, Signal},
    network::{Bytes, HttpAnswer, HttpRequest},
    reports::{self, ALL, JobContent, Special, Times, fixture},
    scenario::{CollectionKind, CollectionPlan, JobPlan, Scenario, Start},
    world::World,
};

/// Tries of one request after which something is stuck.
const TRIES_MAX: u32 = 500;
/// Ids of jobs made from abandoned ones are this much higher.
const RESUBMITTED: u8 = 32;

/// What the leader knows.
#[derive(Default)]
pub struct Leader {
    jobs_running: Cell<usize>,
    collections_running: Cell<usize>,
    jobs: RefCell<Vec<FinishedJob>>,
    sent: RefCell<Vec<SentJob>>,
    abandoned: RefCell<Vec<SentJob>>,
    changed: Signal,
}

/// A job whose answer the leader does not know.
type SentJob = (AggregationJobId, Bytes, JobContent);

/// A job that the helper answered.
struct FinishedJob {
    job: AggregationJobId,
    outcome: Rc<LeaderOutcome>,
    accepted: Vec<usize>,
    content: JobContent,
}

/// What the leader counts in a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// Number of reports.
    pub report_count: u64,
    /// Their checksum.
    pub checksum: Checksum,
    /// Encoded sum of the leader's output shares.
    pub share: Vec<u8>,
    /// How often each report is counted.
    pub times: Times,
}

/// A job's id: the leader's choice, or what the helper says that it is.
fn job_id(world: &World, plan: &JobPlan, body: &[u8]) -> AggregationJobId {
    match world.scenario.version.leader_names_jobs() {
        true => AggregationJobId::new([plan.id; 16]),
        false => commit::job_of_content(world.task.id(), body),
    }
}

/// Sets the leader to work.
pub fn begin(world: &Rc<World>) {
    count_replays(world);
    for plan in world.scenario.jobs.clone() {
        let running = |n: usize, w: &World| {
            w.leader.jobs_running.set(w.leader.jobs_running.get() + n);
        };
        running(usize::from(plan.start == Start::First), world);
        let w = world.clone();
        world.executor.spawn(Host::Leader, None, async move {
            match plan.start {
                Start::First => {}
                Start::Racing => {
                    w.leader.changed.until(|| w.leader.jobs_running.get() == 0).await;
                    running(1, &w);
                    w.count(Event::RacingJob);
                }
                Start::Late => {
                    w.leader.changed.until(|| w.leader.collections_running.get() == 0).await;
                    running(1, &w);
                    w.count(Event::LateJob);
                }
            }
            run_job(&w, plan, w.scenario.patience).await;
            w.leader.jobs_running.set(w.leader.jobs_running.get() - 1);
            w.leader.changed.notify();
        });
    }
    for plan in world.scenario.collections.clone() {
        collect(world, plan);
    }
}

/// Counts which reports come more than once.
fn count_replays(world: &World) {
    let mut coverage = world.coverage.borrow_mut();
    let (mut seen, mut in_batch) = (0u16, [0u16; reports::BUCKETS]);
    let mut bodies: Vec<u8> = Vec::new();
    for plan in &world.scenario.jobs {
        coverage.count(Event::Job);
        coverage.count_many(Event::Upload, u64::from((plan.reports & !seen).count_ones()));
        let again = plan.reports & seen;
        let elsewhere = match world.scenario.mode {
            BatchMode::LeaderSelected => again & !in_batch[usize::from(plan.batch)],
            BatchMode::TimeInterval => 0,
        };
        coverage.count_many(Event::ReplayOtherJob, u64::from(again.count_ones()));
        coverage.count_many(Event::ReplayOtherBatch, u64::from(elsewhere.count_ones()));
        let foreign =
            reports::of_set(plan.reports).filter(|n| ALL[*n].special == Some(Special::OtherTask));
        coverage.count_many(Event::ReplayOtherTask, foreign.count() as u64);
        if bodies.contains(&plan.id) {
            coverage.count(Event::TwoBodies);
        }
        bodies.push(plan.id);
        seen |= plan.reports;
        in_batch[usize::from(plan.batch)] |= plan.reports;
    }
}

// --- Jobs -------------------------------------------------------------------------------

async fn run_job(world: &Rc<World>, plan: JobPlan, patience: Option<u32>) {
    let is_new = |n: usize| ALL[n].special == Some(Special::NewKey);
    if reports::of_set(plan.reports).any(is_new) && !world.rotated.replace(true) {
        // Clients seal to a key only once it was published.
        world.count(Event::KeyRotation);
    }
    let content = plan.content(&world.scenario);
    let body: Bytes = reports::leader_job(content).request().into();
    let job = job_id(world, &plan, &body);
    // Of two bodies under one id, the leader does not know which one it would abandon; nor does who shares a job with others
    // abandon it for all.
    let contested = is_contested(world, plan.id);
    let patience = patience.filter(|_| !contested && !is_shared(world, content));
    world.leader.sent.borrow_mut().push((job, body.clone(), content));
    let mut tries = 0;
    let answer = loop {
        match world.network.http(HttpRequest::PutJob(job, body.clone())).await {
            Some(HttpAnswer::Ok(answer)) => break Some(answer),
            Some(HttpAnswer::Refused(AbortKind::Conflict)) if contested => return,
            Some(HttpAnswer::Refused(kind)) => {
                return world.oracle.violation(format!("job {} is refused: {kind:?}", plan.id));
            }
            Some(HttpAnswer::Unavailable | HttpAnswer::Broken(_)) | None => {}
        }
        tries += 1;
        world.count(Event::JobRepeat);
        if tries > TRIES_MAX {
            return world.oracle.violation(format!("job {} is never answered", plan.id));
        }
        if patience.is_some_and(|p| tries >= p) && !world.quiet.get() {
            break None;
        }
    };
    world.leader.sent.borrow_mut().retain(|(j, b, _)| (*j, b) != (job, &body));
    match answer {
        Some(answer) => finish(world, &plan, (job, content), &answer).await,
        None => abandon(world, plan, (job, body, content)).await,
    }
}

/// Whether two plans are about the same job, because they say the same.
fn is_shared(world: &World, content: JobContent) -> bool {
    let Scenario { version, jobs, .. } = &world.scenario;
    let alike = jobs.iter().filter(|plan| plan.content(&world.scenario) == content);
    !version.leader_names_jobs() && alike.count() > 1
}

/// Whether two plans want this id for two jobs.
pub fn is_contested(world: &World, id: u8) -> bool {
    let Scenario { version, jobs, .. } = &world.scenario;
    version.leader_names_jobs() && jobs.iter().filter(|p| p.id == id).count() > 1
}

async fn finish(
    world: &Rc<World>,
    plan: &JobPlan,
    (job, content): (AggregationJobId, JobContent),
    answer: &Bytes,
) {
    let outcome = match reports::outcome(content, answer) {
        Ok(outcome) => outcome,
        Err(why) => return world.oracle.violation(format!("job {}: {why}", plan.id)),
    };
    let accepted = accepted(content, &outcome);
    if world.leader.jobs.borrow().iter().any(|j| j.job == job) {
        // Somebody else sent it as well. What it says was compared when it was answered.
        return world.count(Event::SharedJob);
    }
    for report in &accepted {
        // What a sloppy leader's collection left out is free for another job.
        if !world.scenario.is_sloppy()
            && world.leader.jobs.borrow().iter().any(|j| j.accepted.contains(report))
        {
            world.oracle.violation(format!("report {report} is accepted in two jobs"));
        }
    }
    world.leader.jobs.borrow_mut().push(FinishedJob { job, outcome, accepted, content });
    if world.scenario.tidies {
        world.count(Event::Tidying);
        world.network.http(HttpRequest::DeleteJob(job)).await;
    }
}

/// The reports of a job that both aggregators accept.
fn accepted(content: JobContent, outcome: &LeaderOutcome) -> Vec<usize> {
    let refused: Vec<usize> = outcome.refused.iter().map(|(id, _)| reports::number(id)).collect();
    reports::of_set(content.set).filter(|n| !refused.contains(n)).collect()
}

/// Gives the job up as well as it can, and perhaps sends its reports again.
async fn abandon(world: &Rc<World>, plan: JobPlan, given_up: SentJob) {
    world.count(Event::Abandonment);
    let (job, _, content) = given_up;
    world.leader.abandoned.borrow_mut().push(given_up);
    // Where the helper names jobs, who heard nothing of a job may not know where it is.
    let nameless =
        !world.scenario.version.leader_names_jobs() && world.choices.borrow_mut().one_in(2);
    if !nameless {
        world.network.http(HttpRequest::DeleteJob(job)).await;
    }
    let again = world.choices.borrow_mut().below(3);
    if again == 2 {
        return;
    }
    let batch = if again == 1 { (plan.batch + 1) % reports::BUCKETS as u8 } else { plan.batch };
    let mut plan = JobPlan { id: plan.id + RESUBMITTED, batch, ..plan };
    if !world.scenario.version.leader_names_jobs() {
        // The same bytes would be the same job, which was given up.
        plan.reversed = content.set.count_ones() > 1;
        if plan.content(&world.scenario) == content {
            return;
        }
    }
    world.count(Event::Resubmission);
    let next: Pin<Box<dyn Future<Output = ()>>> = Box::pin(run_job(world, plan, None));
    next.await;
}

// --- Collections ------------------------------------------------------------------------

/// What the leader counts in a range now: jobs that it knows the answer to. With `ahead`, also those that are answered
/// and whose answers are under way.
pub fn view(world: &World, range: BucketRange, ahead: bool) -> View {
    let vdaf = &world.task.vdaf;
    let mut view = View {
        report_count: 0,
        checksum: Checksum::default(),
        share: share::zero(vdaf.agg_share_len(&fixture(world.scenario.version).agg_param)),
        times: Times::default(),
    };
    let mut add = |outcome: &LeaderOutcome, accepted: &[usize], content: JobContent| {
        for (_, slice) in outcome.accepted.iter().filter(|(b, _)| range.contains(b)) {
            view.report_count += slice.report_count;
            view.checksum.merge(&slice.checksum);
            if let Err(e) = share::add_assign(vdaf.field(), &mut view.share, &slice.share.encode())
            {
                world.oracle.violation(format!("the leader's shares do not add up: {e}"));
            }
        }
        for n in accepted {
            let batch = content.batch.unwrap_or_default();
            let bucket = reports::bucket(&world.scenario, batch, *n);
            view.times[*n] += u64::from(range.contains(&bucket));
        }
    };
    for job in world.leader.jobs.borrow().iter() {
        add(&job.outcome, &job.accepted, job.content);
    }
    let mut unheard = Vec::new();
    if ahead {
        unheard.extend(world.leader.sent.borrow().iter().cloned());
    }
    if world.scenario.cheats {
        unheard.extend(world.leader.abandoned.borrow().iter().cloned());
    }
    for (job, body, content) in unheard {
        if let Some(answer) = world.oracle.answer_to(job, &body)
            && let Ok(outcome) = reports::outcome(content, &answer)
        {
            add(&outcome, &accepted(content, &outcome), content);
        }
    }
    view
}

/// The bytes of a request for this range.
fn share_request(world: &World, range: BucketRange, view: &View, kind: CollectionKind) -> Bytes {
    let wire = world.wire();
    let selector = match range {
        BucketRange::Windows(interval) => {
            let (start, duration) = (interval.start(), interval.duration());
            match (kind, world.scenario.version.has_configuration()) {
                (CollectionKind::BadInterval, false) => {
                    let start = start.saturating_add(Duration::from_seconds(1));
                    BatchSelector::TimeInterval { start, duration }
                }
                // An interval of whole units cannot begin between them; one without a unit can be written.
                (CollectionKind::BadInterval, true) => {
                    BatchSelector::TimeInterval { start, duration: Duration::from_seconds(0) }
                }
                _ => BatchSelector::TimeInterval { start, duration },
            }
        }
        BucketRange::Batch(id) => BatchSelector::LeaderSelected(id),
    };
    let mut checksum = *view.checksum.as_bytes();
    checksum[0] ^= u8::from(kind == CollectionKind::WrongChecksum);
    // Unwrap safety: these messages are a few dozen bytes.
    let binding = wire.share_binding(&[], &selector).unwrap();
    let request = AggregateShareRequest {
        batch_selector: selector,
        collected: selector,
        agg_param: &[],
        report_count: view.report_count + u64::from(kind == CollectionKind::WrongCount),
        checksum,
        share_binding: (&binding).into(),
    };
    wire.encode_aggregate_share_request(&request).unwrap().into()
}

/// Has the leader ask for a collection.
pub fn collect(world: &Rc<World>, plan: CollectionPlan) {
    let running = &world.leader.collections_running;
    running.set(running.get() + 1);
    let w = world.clone();
    world.executor.spawn(Host::Leader, None, async move {
        let range = reports::range(&w.scenario, plan.first, plan.count);
        ask_until_final(&w, plan.kind, range).await;
        w.leader.collections_running.set(w.leader.collections_running.get() - 1);
        w.leader.changed.notify();
    });
}

/// As [`collect`], for a range, when all is over.
pub fn collect_range(world: &Rc<World>, range: BucketRange) {
    let w = world.clone();
    world.executor.spawn(Host::Leader, None, async move {
        ask_until_final(&w, CollectionKind::Right, range).await;
    });
}

async fn ask_until_final(world: &Rc<World>, kind: CollectionKind, range: BucketRange) {
    let careful = kind == CollectionKind::Right;
    world.count(match kind {
        CollectionKind::Right => Event::RightCollection,
        CollectionKind::Eager => Event::EagerCollection,
        CollectionKind::WrongCount => Event::WrongCount,
        CollectionKind::WrongChecksum => Event::WrongChecksum,
        CollectionKind::BadInterval => Event::BadInterval,
    });
    if world.scenario.cheats {
        world.count(Event::Cheating);
    }
    let mut sent: Option<Bytes> = None;
    for tries in 0.. {
        if tries > TRIES_MAX {
            return world.oracle.violation(format!("the collection of {range:?} never ends"));
        }
        if careful {
            // The batch is closed to new jobs, and each of its jobs is at its end.
            world.leader.changed.until(|| world.leader.jobs_running.get() == 0).await;
        }
        let view = view(world, range, !careful);
        if careful && view.report_count == 0 {
            return;
        }
        let body = share_request(world, range, &view, kind);
        if sent.replace(body.clone()).is_some_and(|before| before == body) {
            world.count(Event::CollectionRepeat);
        }
        world.oracle.asked(range, &view);
        match world.network.http(HttpRequest::PostShare(body.clone())).await {
            Some(HttpAnswer::Ok(answer)) => {
                return world.oracle.collected(world, range, &view, &body, &answer);
            }
            Some(HttpAnswer::Refused(refusal)) => {
                if !careful {
                    return;
                }
                // A job that was sent meanwhile may have made the request wrong.
                let moved =
                    world.leader.jobs_running.get() > 0 || self::view(world, range, false) != view;
                if !moved {
                    return world.oracle.right_refused(world, range, &view, refusal);
                }
            }
            // An eager leader does not insist.
            _ if !careful && tries >= 2 => return,
            _ => {}
        }
    }
}

/// Sends the jobs that were given up once more, until they are answered: no job is committed in part then.
pub fn finish_what_was_given_up(world: &Rc<World>) {
    let abandoned: Vec<SentJob> = world.leader.abandoned.borrow().clone();
    for (job, body, _) in abandoned {
        let w = world.clone();
        world.executor.spawn(Host::Leader, None, async move {
            for _ in 0..TRIES_MAX {
                let request = HttpRequest::PutJob(job, body.clone());
                if let Some(HttpAnswer::Ok(_) | HttpAnswer::Refused(_)) =
                    w.network.http(request).await
                {
                    return;
                }
            }
            w.oracle.violation("a job that was given up is never answered".to_owned());
        });
    }
}

/// Sends the requests of all finished jobs and all decided collections once more, and fetches the shares that are kept.
pub fn repeat_everything(world: &Rc<World>) {
    let mut requests = world.oracle.answered();
    if !world.scenario.version.leader_names_jobs() {
        for request in requests.clone() {
            if let HttpRequest::PostShare(body) = request {
                requests.push(HttpRequest::GetShare(body));
            }
        }
    }
    for request in requests {
        let w = world.clone();
        world.executor.spawn(Host::Leader, None, async move {
            for _ in 0..TRIES_MAX {
                // The oracle has compared the answer, or the refusal.
                if let Some(HttpAnswer::Ok(_) | HttpAnswer::Refused(_)) =
                    w.network.http(request.clone()).await
                {
                    return;
                }
            }
            w.oracle.violation("a repeat is never answered".to_owned());
        });
    }
}
