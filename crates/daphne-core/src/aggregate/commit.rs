//! The helper's part of a job that its stores decide: commits, and the answer made from what they recorded.
//!
//! Owners are found per report; each gets one `Commit`, a few at a time. What they refuse (replayed, collected) is
//! taken out and the commit tried again. The answer is made from the recorded verdicts, not from what was sent, so
//! that a repeat of the request, or a second Worker with the same request, gives the same bytes.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, future, stream};
use sha2::{Digest as _, Sha256};

use super::{
    helper::{Examined, HelperJob, OwnedReport, Verified},
    rounds,
};
use crate::{
    batch::{BatchBucket, BucketRange, Checksum},
    error::{Abort, AbortKind, Error, Internal, ReportError},
    ids::{AggregationJobId, ReportId, TaskId},
    message::{VerifyResp, VerifyRespResult},
    metrics::{Failure, Tally},
    store::{
        CallError, Objects,
        message::{
            AggregateStoreRequest, AggregateStoreResponse, Commit, JobStoreRequest,
            JobStoreResponse, LedgerRequest, LedgerResponse, RequestDigest, Slice, StoreAction,
        },
        placement::{Group, Placement, ShardKey, StoreId},
    },
    task::Task,
    time::Time,
    vdaf::{AggregateShare, AggregationParam, OutputShare, share},
};

/// Calls to stores under way at once: the platform allows six connections.
pub(super) const PARALLEL_CALLS: usize = 6;
/// Times a commit is tried again after refusals before the leader is told to come later.
const ROUNDS_MAX: usize = 8;
/// Bytes of a job's sums together. Messages and rows hold several copies of them for a moment, and an isolate has
/// 128 MB for all its requests.
pub const SUMS_BYTES_MAX: usize = 8 << 20;

/// Which job a request is.
#[derive(Clone, Copy, Debug)]
pub struct JobIdentity {
    /// Its id.
    pub job: AggregationJobId,
    /// SHA-256 of the request's body.
    pub digest: RequestDigest,
    /// The secret that spreads the task's reports over its shards.
    pub shard_key: ShardKey,
}

/// The id of a job that has none of its own: what its request says, in a task. The same request is the same job.
/// DAP-18 §3.2.
pub fn job_of_content(task: &TaskId, body: &[u8]) -> AggregationJobId {
    let hash = Sha256::new()
        .chain_update(b"dap job")
        .chain_update(task.as_bytes())
        .chain_update(body)
        .finalize();
    AggregationJobId::of_hash(hash.into())
}

/// Reports that can be committed: those of a job of one round, or those that a continuation brings to their end.
pub trait Step {
    /// The task.
    fn task(&self) -> &Task;
    /// The aggregation parameter.
    fn agg_param(&self) -> &AggregationParam;
    /// Its encoding, as the leader sent it.
    fn encoded_param(&self) -> &[u8];
    /// Id and batch bucket of each report, in the order of the request.
    fn reports(&self) -> impl Iterator<Item = (ReportId, BatchBucket)>;
    /// Examines the n-th report. The same each time.
    fn examine(&self, n: usize) -> (Examined, Option<OutputShare>);
}

impl Step for HelperJob<'_> {
    fn task(&self) -> &Task {
        self.task()
    }

    fn agg_param(&self) -> &AggregationParam {
        self.agg_param()
    }

    fn encoded_param(&self) -> &[u8] {
        self.init().agg_param
    }

    fn reports(&self) -> impl Iterator<Item = (ReportId, BatchBucket)> {
        let metadata = self.init().verify_inits.iter().map(|v| &v.report_share.metadata);
        metadata.map(|m| (m.report_id, self.bucket(m.time)))
    }

    fn examine(&self, n: usize) -> (Examined, Option<OutputShare>) {
        match self.examine(n) {
            (examined, Some(Verified::Output(output))) => (examined, Some(output)),
            // Only reports of VDAFs of several rounds wait; they are not committed at once.
            (examined, _) => (examined, None),
        }
    }
}

/// Verifies a job's reports, commits them, and gives the helper's answer: one entry per report, in order. Reports of a
/// VDAF of several rounds are kept until they are continued. DAP-09 §4.5.1.2.
///
/// # Errors
/// - [`AbortKind::Conflict`] if the job id was used with another body; nothing of this one counts.
/// - [`Internal::Unavailable`] if an object did not answer or is held by a collection. A part may be committed; the
///   same request again finishes the job.
pub async fn run(
    objects: &impl Objects,
    identity: &JobIdentity,
    job: &HelperJob<'_>,
) -> Result<Vec<VerifyResp>, Error> {
    if job.task().vdaf.rounds() > 1 {
        return rounds::begin(objects, identity, job).await;
    }
    let placement = job.task().parameters.placement();
    if !placement.has_time_groups() {
        job.prepare().await;
        let (reports, work) = examine_all(job, identity, &placement, &[])?;
        let committer = Committer { objects, identity, job, placement, reports: &reports };
        return committer.commit_all(work, Binding::HomeStore).await;
    }
    // Two bodies under one id could touch disjoint stores; the job store binds the id, and keeps which reports were
    // refused unasked. The claim is under way while the reports are examined.
    let shard = placement.home(&identity.shard_key, &identity.job);
    let far_off = job.far_off();
    let claim = JobStoreRequest::Claim {
        placement,
        job: identity.job,
        digest: identity.digest,
        unasked: far_off.clone(),
    };
    let examined = async {
        job.prepare().await;
        examine_all(job, identity, &placement, &far_off)
    };
    let (claimed, examined) =
        future::join(objects.job_store(&placement, shard, claim), examined).await;
    let unasked = match claimed.map_err(unavailable)? {
        JobStoreResponse::Claimed(unasked) => unasked,
        JobStoreResponse::Conflict => return Err(conflict()),
        _ => return Err(out_of_turn()),
    };
    let (reports, work) = if unasked == far_off {
        examined?
    } else {
        // A repeat, days later: what was far off then is nearer now.
        examine_all(job, identity, &placement, &unasked)?
    };
    let committer = Committer { objects, identity, job, placement, reports: &reports };
    committer.commit_all(work, Binding::JobStore).await
}

/// Commits the reports that a continuation brings to their end. The job store has bound the continuation.
///
/// # Errors
/// As [`run`].
pub(super) async fn finish(
    objects: &impl Objects,
    identity: &JobIdentity,
    step: &impl Step,
) -> Result<Vec<VerifyResp>, Error> {
    let placement = step.task().parameters.placement();
    let (reports, work) = examine_all(step, identity, &placement, &[])?;
    let committer = Committer { objects, identity, job: step, placement, reports: &reports };
    committer.commit_all(work, Binding::JobStore).await
}

/// Binds the id of a job that is answered later, where a job that is answered at once would be bound, so that the two
/// never meet. Returns whether it is; not if the job was answered at once.
///
/// # Errors
/// As [`run`].
pub(super) async fn bind_to_later(
    objects: &impl Objects,
    identity: &JobIdentity,
    job: &HelperJob<'_>,
) -> Result<bool, Error> {
    let (task, placement) = (job.task(), job.task().parameters.placement());
    if task.vdaf.rounds() > 1 || placement.has_time_groups() {
        // The job store does it when it takes the job.
        return Ok(true);
    }
    let shard = placement.home(&identity.shard_key, &identity.job);
    let home = StoreId { group: Group::Whole, shard };
    let digest =
        Sha256::new().chain_update(b"dap deferred").chain_update(identity.digest).finalize();
    let commit = Commit {
        job: identity.job,
        digest: digest.into(),
        param: job.encoded_param().to_vec(),
        slices: Vec::new(),
        refused: Vec::new(),
        unrecorded: Vec::new(),
        open: Some(Vec::new()),
        readmit: Vec::new(),
        once: task.parameters.version.aggregates_once(),
    };
    let (field, action) = (task.vdaf.field(), StoreAction::Commit(commit));
    let request = AggregateStoreRequest { placement, store: home, field, action };
    match objects.store(&home, request).await.map_err(unavailable)? {
        AggregateStoreResponse::Committed(_) => Ok(true),
        AggregateStoreResponse::Conflict => Ok(false),
        _ => Err(out_of_turn()),
    }
}

/// Who binds the job's id to its body.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Binding {
    /// The `AggregateStore` that is the job's home, by the first commit.
    HomeStore,
    /// A job store did.
    JobStore,
}

/// Whether a job of this id was ever created.
///
/// # Errors
/// [`Internal::Unavailable`] if the object that would know does not answer.
pub async fn job_exists(
    objects: &impl Objects,
    task: &Task,
    shard_key: &ShardKey,
    job: &AggregationJobId,
) -> Result<bool, Error> {
    let placement = task.parameters.placement();
    let shard = placement.home(shard_key, job);
    if placement.has_time_groups() {
        let request = JobStoreRequest::Knows(*job);
        return match objects.job_store(&placement, shard, request).await.map_err(unavailable)? {
            JobStoreResponse::Known(known) => Ok(known),
            _ => Err(out_of_turn()),
        };
    }
    let home = StoreId { group: Group::Whole, shard };
    let request = AggregateStoreRequest {
        placement,
        store: home,
        field: task.vdaf.field(),
        action: StoreAction::KnowsJob(*job),
    };
    match objects.store(&home, request).await.map_err(unavailable)? {
        AggregateStoreResponse::Known(known) => Ok(known),
        _ => Err(out_of_turn()),
    }
}

/// What one store is to be told, or has recorded.
#[derive(Default)]
struct StoreWork {
    /// Indices of its reports in the job.
    members: Vec<usize>,
    /// Encoded sums of the acceptable reports, by bucket.
    shares: BTreeMap<BatchBucket, Vec<u8>>,
    /// Refusals to record.
    refused: BTreeMap<ReportId, ReportError>,
    /// What became of reports that no store is asked about, for this one to count.
    unasked: Tally,
}

/// What became of a job in one store.
struct Fate {
    /// The refusals that were recorded.
    refused: BTreeMap<ReportId, ReportError>,
    /// What the store did not count, because it has forgotten.
    uncounted: Tally,
}

type Examination = (Vec<Examined>, BTreeMap<StoreId, StoreWork>);

fn examine_all(
    job: &impl Step,
    identity: &JobIdentity,
    placement: &Placement,
    unasked: &[(ReportId, ReportError)],
) -> Result<Examination, Internal> {
    let kept = kept_sums(job, identity, placement);
    let unasked: BTreeMap<ReportId, ReportError> = unasked.iter().copied().collect();
    let mut sums: BTreeMap<(StoreId, BatchBucket), AggregateShare> = BTreeMap::new();
    let mut work: BTreeMap<StoreId, StoreWork> = BTreeMap::new();
    let mut reports = Vec::new();
    for n in 0..job.reports().count() {
        // Output shares are large; each is added and dropped at once.
        let (mut examined, output) = job.examine(n);
        if let Examined::Owned(owned) = &examined
            && let Some(error) = unasked.get(&owned.report_id)
        {
            examined = Examined::Rejected(Failure::recorded(*error));
        }
        if let Examined::Owned(owned) = &mut examined {
            let owner = placement.owner(&identity.shard_key, &owned.bucket, &owned.report_id);
            if !kept.contains(&(owner, owned.bucket)) {
                owned.proposal = owned.proposal.or(Some(ReportError::ReportDropped));
            }
            let entry = work.entry(owner).or_default();
            entry.members.push(n);
            if let Some(error) = owned.proposal {
                entry.refused.insert(owned.report_id, error);
            } else if let Some(output) = output {
                sums.entry((owner, owned.bucket))
                    .or_insert_with(|| job.task().vdaf.aggregate_init(job.agg_param()))
                    .accumulate(&output)
                    .map_err(|e| Internal::Broken(e.to_string()))?;
            }
        }
        reports.push(examined);
    }
    for ((owner, bucket), sum) in sums {
        work.entry(owner).or_default().shares.insert(bucket, sum.encode());
    }
    Ok((reports, work))
}

/// The sums that a job may have: those of the most reports, as many as [`SUMS_BYTES_MAX`] allows. Clients choose the
/// times of their reports, and each bucket costs the length of an aggregate share; a few reports spread over many
/// buckets must not exhaust the memory of all. A function of the request's bytes.
fn kept_sums(
    job: &impl Step,
    identity: &JobIdentity,
    placement: &Placement,
) -> BTreeSet<(StoreId, BatchBucket)> {
    let mut reports: BTreeMap<(StoreId, BatchBucket), usize> = BTreeMap::new();
    for (report_id, bucket) in job.reports() {
        let owner = placement.owner(&identity.shard_key, &bucket, &report_id);
        *reports.entry((owner, bucket)).or_default() += 1;
    }
    let mut by_size: Vec<_> = reports.into_iter().collect();
    by_size.sort_by_key(|(sum, n)| (std::cmp::Reverse(*n), *sum));
    let fit = (SUMS_BYTES_MAX / job.task().vdaf.agg_share_len(job.agg_param()).max(1)).max(1);
    by_size.into_iter().take(fit).map(|(sum, _)| sum).collect()
}

struct Committer<'a, O, J> {
    objects: &'a O,
    identity: &'a JobIdentity,
    job: &'a J,
    placement: Placement,
    reports: &'a [Examined],
}

impl<O: Objects, J: Step> Committer<'_, O, J> {
    async fn commit_all(
        &self,
        mut work: BTreeMap<StoreId, StoreWork>,
        binding: Binding,
    ) -> Result<Vec<VerifyResp>, Error> {
        let mut recorded = BTreeMap::new();
        // What becomes of reports that no store is asked about is counted by the first one that is asked about others; and
        // by the ledger, if there is none. Which it is does not change when the request comes again.
        let mut uncounted = self.rejected();
        if binding == Binding::HomeStore {
            // The home store binds the job id to this body before any other store counts anything.
            let shard = self.placement.home(&self.identity.shard_key, &self.identity.job);
            let home = StoreId { group: Group::Whole, shard };
            let mut work = work.remove(&home).unwrap_or_default();
            work.unasked = std::mem::take(&mut uncounted);
            let fate = self.commit(home, work).await?;
            recorded.extend(fate.refused);
        } else if let Some((_, work)) = work.iter_mut().next() {
            work.unasked = std::mem::take(&mut uncounted);
        }
        let mut others = stream::iter(work)
            .map(|(store, work)| self.commit(store, work))
            .buffer_unordered(PARALLEL_CALLS);
        // All calls are let finish: an error of one does not undo the others, and the leader's retry finds them done.
        let mut failure = None;
        while let Some(result) = others.next().await {
            match result {
                Ok(fate) => {
                    recorded.extend(fate.refused);
                    for (failure, n) in fate.uncounted.failures {
                        (0..n).for_each(|_| uncounted.refuse(failure));
                    }
                }
                Err(e @ Error::Abort(_)) => failure = Some(e),
                Err(e) => failure = failure.or(Some(e)),
            }
        }
        drop(others);
        if let Some(error) = failure {
            return Err(error);
        }
        note(self.objects, self.identity, self.job.task(), uncounted).await?;
        Ok(self.answer(&recorded))
    }

    /// What becomes of the reports that no store is asked about.
    fn rejected(&self) -> Tally {
        let mut tally = Tally::default();
        for examined in self.reports {
            if let Examined::Rejected(failure) = examined {
                tally.refuse(*failure);
            }
        }
        tally
    }

    /// One entry per report, in the order of the request.
    fn answer(&self, recorded: &BTreeMap<ReportId, ReportError>) -> Vec<VerifyResp> {
        self.job
            .reports()
            .zip(self.reports)
            .map(|((report_id, _), examined)| {
                let result = match (examined, recorded.get(&report_id)) {
                    (Examined::Rejected(failure), _) => {
                        VerifyRespResult::Reject(failure.report_error())
                    }
                    (Examined::Owned(_), Some(error)) => VerifyRespResult::Reject(*error),
                    (Examined::Owned(OwnedReport { verified, .. }), None) => match verified {
                        Ok(Some(message)) => VerifyRespResult::Continue(message.clone()),
                        Ok(None) => VerifyRespResult::Finish,
                        Err(failure) => VerifyRespResult::Reject(failure.report_error()),
                    },
                };
                VerifyResp { report_id, result }
            })
            .collect()
    }

    /// Brings one store to a recorded verdict and returns the refusals it recorded.
    async fn commit(&self, store: StoreId, mut work: StoreWork) -> Result<Fate, Error> {
        let field = self.job.task().vdaf.field();
        let mut open = open_unasked(&store);
        let mut readmit = BTreeSet::new();
        for _ in 0..ROUNDS_MAX {
            let commit = Commit {
                job: self.identity.job,
                digest: self.identity.digest,
                param: self.job.encoded_param().to_vec(),
                slices: self.slices(&work),
                refused: work.refused.iter().map(|(id, e)| (*id, *e)).collect(),
                unrecorded: self.unrecorded(&work).failures,
                open: open.clone(),
                readmit: readmit.iter().copied().collect(),
                once: self.job.task().parameters.version.aggregates_once(),
            };
            let request = AggregateStoreRequest {
                placement: self.placement,
                store,
                field,
                action: StoreAction::Commit(commit),
            };
            match self.objects.store(&store, request).await.map_err(unavailable)? {
                AggregateStoreResponse::Committed(refused) => {
                    let refused = refused.into_iter().collect();
                    return Ok(Fate { refused, uncounted: Tally::default() });
                }
                AggregateStoreResponse::NotOpen => {
                    match register(self.objects, self.job.task(), store).await? {
                        Some(collected) => open = Some(collected),
                        None => return Ok(self.all_too_old(&work)),
                    }
                }
                AggregateStoreResponse::Expired => return Ok(self.all_too_old(&work)),
                AggregateStoreResponse::Conflict => return Err(conflict()),
                AggregateStoreResponse::Busy(attempt) => {
                    return Err(self.settle(store, attempt).await.into());
                }
                AggregateStoreResponse::Replayed { soft, hard } => {
                    let deleted = self.deleted(&soft, &readmit).await?;
                    let replayed: Vec<ReportId> = soft
                        .iter()
                        .filter(|(_, owner)| !deleted.contains(owner))
                        .map(|(id, _)| *id)
                        .chain(hard)
                        .collect();
                    if !replayed.is_empty() {
                        self.refuse(&mut work, &replayed, ReportError::ReportReplayed)?;
                    }
                    readmit.extend(deleted);
                }
                AggregateStoreResponse::Collected(ids) => {
                    self.refuse(&mut work, &ids, ReportError::BatchCollected)?;
                }
                other => {
                    return Err(
                        Internal::Broken(format!("a commit was answered with {other:?}")).into()
                    );
                }
            }
        }
        Err(Internal::Unavailable("a store kept changing while a job was committed".to_owned())
            .into())
    }

    fn acceptable<'b>(
        &'b self,
        work: &'b StoreWork,
    ) -> impl Iterator<Item = (usize, &'b OwnedReport)> {
        work.members.iter().filter_map(|&n| match self.reports.get(n) {
            Some(Examined::Owned(r))
                if r.is_acceptable() && !work.refused.contains_key(&r.report_id) =>
            {
                Some((n, r))
            }
            _ => None,
        })
    }

    fn slices(&self, work: &StoreWork) -> Vec<Slice> {
        let mut slices: BTreeMap<BatchBucket, Slice> = BTreeMap::new();
        for (_, report) in self.acceptable(work) {
            let slice = slices.entry(report.bucket).or_insert_with(|| Slice {
                bucket: report.bucket,
                ids: Vec::new(),
                checksum: Checksum::default(),
                min_time: Time::from_seconds(u64::MAX),
                max_time: Time::from_seconds(0),
                share: work.shares.get(&report.bucket).cloned().unwrap_or_default(),
            });
            slice.ids.extend_from_slice(report.report_id.as_bytes());
            slice.checksum.add(&report.report_id);
            slice.min_time = slice.min_time.min(report.time);
            slice.max_time = slice.max_time.max(report.time);
        }
        slices.into_values().collect()
    }

    /// Takes reports out. Their output shares were dropped; verifying is deterministic, so they are made again.
    fn refuse(
        &self,
        work: &mut StoreWork,
        ids: &[ReportId],
        error: ReportError,
    ) -> Result<(), Internal> {
        let broken = |e: &dyn std::fmt::Display| Internal::Broken(e.to_string());
        let taken: Vec<(usize, BatchBucket)> = self
            .acceptable(work)
            .filter(|(_, r)| ids.contains(&r.report_id))
            .map(|(n, r)| (n, r.bucket))
            .collect();
        let vdaf = &self.job.task().vdaf;
        let field = vdaf.field().at(self.job.encoded_param());
        for (n, bucket) in &taken {
            let again = self.job.examine(*n).1;
            let (Some(output), Some(sum)) = (again, work.shares.get_mut(bucket)) else {
                return Err(Internal::Broken("a report verified only once".to_owned()));
            };
            let mut one = vdaf.aggregate_init(self.job.agg_param());
            one.accumulate(&output).map_err(|e| broken(&e))?;
            share::sub_assign(field, sum, &one.encode()).map_err(|e| broken(&e))?;
        }
        if taken.is_empty() {
            return Err(Internal::Broken("a store refused reports it was not sent".to_owned()));
        }
        work.refused.extend(ids.iter().map(|id| (*id, error)));
        Ok(())
    }

    /// What becomes of reports whose refusal the store need not remember.
    fn unrecorded(&self, work: &StoreWork) -> Tally {
        let mut tally = work.unasked.clone();
        for n in &work.members {
            if let Some(Examined::Owned(OwnedReport { report_id, verified: Err(failure), .. })) =
                self.reports.get(*n)
                && !work.refused.contains_key(report_id)
            {
                tally.refuse(*failure);
            }
        }
        tally
    }

    /// The verdicts of a store that has forgotten, or is about to.
    fn all_too_old(&self, work: &StoreWork) -> Fate {
        let ids = work.members.iter().filter_map(|&n| match self.reports.get(n) {
            Some(Examined::Owned(r)) => Some(r.report_id),
            _ => None,
        });
        let refused: BTreeMap<ReportId, ReportError> = ids
            .map(|id| (id, work.refused.get(&id).copied().unwrap_or(ReportError::ReportDropped)))
            .collect();
        let mut uncounted = work.unasked.clone();
        refused.values().for_each(|error| uncounted.refuse(Failure::recorded(*error)));
        Fate { refused, uncounted }
    }

    /// Which owners of reports the leader deleted.
    async fn deleted(
        &self,
        soft: &[(ReportId, AggregationJobId)],
        known: &BTreeSet<AggregationJobId>,
    ) -> Result<BTreeSet<AggregationJobId>, Error> {
        let ask: BTreeSet<AggregationJobId> =
            soft.iter().map(|(_, owner)| *owner).filter(|job| !known.contains(job)).collect();
        if ask.is_empty() {
            return Ok(BTreeSet::new());
        }
        let request = LedgerRequest::Released(ask.into_iter().collect());
        match self.objects.ledger(self.job.task().id(), request).await.map_err(unavailable)? {
            LedgerResponse::Released(jobs) => Ok(jobs.into_iter().collect()),
            _ => Err(out_of_turn()),
        }
    }

    /// Has the ledger bring a collection attempt to its end, so that the leader's retry finds the store free.
    async fn settle(&self, store: StoreId, attempt: u64) -> Internal {
        let request = LedgerRequest::Settle {
            placement: self.placement,
            field: self.job.task().vdaf.field(),
            store,
            attempt,
        };
        // If this call is lost too, the next one who meets the attempt settles it.
        let _ = self.objects.ledger(self.job.task().id(), request).await;
        Internal::Unavailable("a collection is under way".to_owned())
    }
}

/// What was collected before a store existed, each range with its parameter.
pub(super) type Collected = Vec<(BucketRange, Vec<u8>)>;

/// A store of the whole task takes part in every collection, so it needs no registration.
pub(super) fn open_unasked(store: &StoreId) -> Option<Collected> {
    (store.group == Group::Whole).then(Vec::new)
}

/// Has the ledger take note of a store; answers what was collected without it. `None` if its time is over.
pub(super) async fn register(
    objects: &impl Objects,
    task: &Task,
    store: StoreId,
) -> Result<Option<Collected>, Error> {
    let (placement, field) = (task.parameters.placement(), task.vdaf.field());
    let request = LedgerRequest::Open { placement, field, store };
    match objects.ledger(task.id(), request).await.map_err(unavailable)? {
        LedgerResponse::Opened(collected) => Ok(Some(collected)),
        LedgerResponse::Expired => Ok(None),
        LedgerResponse::Busy => {
            Err(Internal::Unavailable("a collection is under way".to_owned()).into())
        }
        other => Err(Internal::Broken(format!("an opening was answered with {other:?}")).into()),
    }
}

/// Has the ledger count what no store counts, once.
///
/// # Errors
/// [`Internal::Unavailable`] if it did not answer: nobody is told what was not counted.
pub(super) async fn note(
    objects: &impl Objects,
    identity: &JobIdentity,
    task: &Task,
    tally: Tally,
) -> Result<(), Error> {
    if tally.is_empty() {
        return Ok(());
    }
    let note = LedgerRequest::Note {
        placement: task.parameters.placement(),
        job: identity.job,
        digest: identity.digest,
        tally,
    };
    match objects.ledger(task.id(), note).await.map_err(unavailable)? {
        LedgerResponse::Done => Ok(()),
        _ => Err(out_of_turn()),
    }
}

pub(super) fn unavailable(e: CallError) -> Error {
    Internal::from(e).into()
}

pub(super) fn out_of_turn() -> Error {
    Internal::Broken("an object answered out of turn".to_owned()).into()
}

pub(super) fn conflict() -> Error {
    Abort::new(AbortKind::Conflict, "the aggregation job exists with another request body").into()
}
