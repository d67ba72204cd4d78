//! One collection: gather, check, choose, intent, freeze, decide.

use std::collections::{BTreeMap, BTreeSet};

use futures::StreamExt;

use super::{ALARM_AFTER_S, CollectionRow, Ledger, LedgerHost, Pending, released};
use crate::{
    batch::BatchMode,
    error::{Abort, AbortKind},
    hpke,
    ids::AggregationJobId,
    store::{
        Database, LedgerTables, Objects, StoreError, StoreResult,
        aggregate_store::merge_share,
        exclusion::{self, Choice, JobTotals, Totals},
        message::{
            AggregateStoreResponse, Collect, Content, LedgerResponse, StoreAction,
            whole_task_stores,
        },
        placement::StoreId,
    },
};

impl<D: Database> Ledger<D>
where
    D::Tables: LedgerTables,
{
    pub(super) async fn collect(
        &self,
        objects: &impl Objects,
        host: &impl LedgerHost,
        request: &Collect,
    ) -> StoreResult<LedgerResponse> {
        let known = self.db.transaction(|t| {
            if t.meta()?.closed {
                return Ok(Some(LedgerResponse::Busy));
            }
            Ok(t.answer(&request.digest)?.map(LedgerResponse::Share))
        })?;
        if let Some(response) = known {
            return Ok(response);
        }
        let Some(_lock) = self.lock(host.now()) else {
            return Ok(LedgerResponse::Busy);
        };
        if !self.roll_back(objects).await? {
            return Ok(LedgerResponse::Busy);
        }
        if let Some(answer) = self.db.transaction(|t| check_earlier(t, request))? {
            return Ok(answer);
        }
        let stores = self.stores_of(request)?;
        // Decisions first: their stores may still be frozen.
        self.push_seals(objects, None).await?;
        let held = self.db.transaction(|t| t.unsealed_collections())?;
        if held.iter().any(|c| c.todo.iter().any(|s| stores.contains(s))) {
            return Ok(LedgerResponse::Busy);
        }
        let Some(all) = self.gather(objects, request, &stores, &[]).await? else {
            return Ok(LedgerResponse::Busy);
        };
        let (exclude, gathered) = if all.explains(request) && !all.contested {
            (Vec::new(), all)
        } else {
            let Some(jobs) = self.gather_jobs(objects, request, &stores).await? else {
                return Ok(LedgerResponse::Busy);
            };
            match exclusion::choose(jobs.packed, &jobs.jobs, &jobs.conflicts, wanted(request)) {
                Choice::Exclude(exclude) => {
                    let Some(kept) = self.gather(objects, request, &stores, &exclude).await? else {
                        return Ok(LedgerResponse::Busy);
                    };
                    if !kept.explains(request) {
                        // A job was committed between the two gatherings.
                        return Ok(LedgerResponse::Busy);
                    }
                    (exclude, kept)
                }
                choice @ (Choice::NoneFits | Choice::Ambiguous) => {
                    let refusal = check_param(request, &all)
                        .and_then(|()| check_size(request, all.total.report_count))
                        .err()
                        .unwrap_or_else(|| mismatch(request, &all.total, &jobs, &choice));
                    return Ok(LedgerResponse::Refused(refusal));
                }
            }
        };
        let checked = check_param(request, &gathered)
            .and_then(|()| check_size(request, gathered.total.report_count));
        if let Err(refusal) = checked {
            return Ok(LedgerResponse::Refused(refusal));
        }
        let Gathered { total, versions, .. } = gathered;
        // Before anything is held: what cannot be sealed must not hold a range.
        let answer = seal_share(request, &total.share, &host.seed())?;
        host.arm_alarm(ALARM_AFTER_S).await?;
        let intent = self.db.transaction(|t| {
            // A store may have been born since the gathering. The lock may have expired, and another attempt may be
            // under way or may have decided.
            if t.pending()?.is_some()
                || stores_of(t, request)? != stores
                || check_earlier(t, request)?.is_some()
            {
                return Ok(None);
            }
            let mut meta = t.meta()?;
            meta.attempt += 1;
            t.put_meta(&meta)?;
            let attempt = meta.attempt;
            t.put_pending(Some(&Pending { attempt, stores: stores.clone(), aborted: false }))?;
            Ok(Some(attempt))
        })?;
        let Some(attempt) = intent else {
            return Ok(LedgerResponse::Busy);
        };
        if !self.freeze(objects, request, attempt, &exclude, &stores, &versions).await? {
            self.roll_back_attempt(objects, Some(attempt)).await?;
            return Ok(LedgerResponse::Busy);
        }
        // The decision.
        let decided = self.db.transaction(|t| {
            if t.pending()?.is_none_or(|p| p.attempt != attempt || p.aborted) {
                return Ok(false);
            }
            let row = CollectionRow {
                digest: request.digest,
                attempt,
                range: request.range,
                counts: request.counts,
                param: request.param.clone(),
                report_count: total.report_count,
                checksum: total.checksum,
                exclude,
                todo: stores.clone(),
            };
            t.insert_collection(&row, &answer)?;
            t.put_pending(None)?;
            Ok(true)
        })?;
        Ok(if decided { LedgerResponse::Share(answer) } else { LedgerResponse::Busy })
    }

    fn stores_of(&self, request: &Collect) -> StoreResult<Vec<StoreId>> {
        self.db.transaction(|t| stores_of(t, request))
    }

    /// Sums what the stores hold. One store's content is in memory at a time beside those under way; of each only its
    /// version is kept. `None` if one did not answer.
    async fn gather(
        &self,
        objects: &impl Objects,
        request: &Collect,
        stores: &[StoreId],
        exclude: &[AggregationJobId],
    ) -> StoreResult<Option<Gathered>> {
        let calls = self.calls(objects, stores, |_| StoreAction::Gather {
            range: request.counts,
            param: request.param.clone(),
            exclude: exclude.to_vec(),
        })?;
        let mut answers = std::pin::pin!(calls);
        let mut all = Gathered::default();
        while let Some(answer) = answers.next().await {
            let Some(AggregateStoreResponse::Gathered { content, contested, others }) = answer
            else {
                return Ok(None);
            };
            all.total.report_count += content.report_count;
            all.total.checksum.merge(&content.checksum);
            merge_share(request.field.at(&request.param), &mut all.total.share, &content.share)?;
            all.versions.push(content.version());
            all.contested |= contested;
            all.others |= others;
        }
        Ok(Some(all))
    }

    /// What each job holds of the batch, over all stores. `None` if one did not answer.
    async fn gather_jobs(
        &self,
        objects: &impl Objects,
        request: &Collect,
        stores: &[StoreId],
    ) -> StoreResult<Option<Jobs>> {
        let calls = self.calls(objects, stores, |_| StoreAction::GatherJobs {
            range: request.counts,
            param: request.param.clone(),
        })?;
        let mut answers = std::pin::pin!(calls.enumerate());
        let mut packed = Totals::default();
        let mut conflicts = Vec::new();
        // By job: its place among the newest, the best of all stores, and its totals.
        let mut by_job: BTreeMap<AggregationJobId, (usize, JobTotals)> = BTreeMap::new();
        while let Some((n, answer)) = answers.next().await {
            let Some(AggregateStoreResponse::Jobs(held)) = answer else {
                return Ok(None);
            };
            packed.report_count += held.packed_count;
            packed.checksum.merge(&held.packed_checksum);
            conflicts.extend(held.conflicts);
            for (place, held) in held.jobs.into_iter().enumerate() {
                let (best, job) = by_job.entry(held.job).or_insert_with(|| {
                    let totals = Totals::default();
                    let job = JobTotals {
                        job: held.job,
                        totals,
                        ids: BTreeMap::new(),
                        yields: false,
                        released: false,
                    };
                    (place, job)
                });
                *best = place.min(*best);
                job.totals.report_count += held.report_count;
                job.totals.checksum.merge(&held.checksum);
                job.yields |= held.yields;
                if let Some(store) = stores.get(n) {
                    job.ids.insert(*store, held.fingerprint_sum);
                }
            }
        }
        let mut jobs: Vec<(usize, JobTotals)> = by_job.into_values().collect();
        jobs.sort_by_key(|(place, _)| *place);
        let mut jobs: Vec<JobTotals> = jobs.into_iter().map(|(_, job)| job).collect();
        let ids: Vec<AggregationJobId> = jobs.iter().map(|j| j.job).collect();
        let deleted: BTreeSet<AggregationJobId> =
            self.db.transaction(|t| released(t, &ids))?.into_iter().collect();
        jobs.iter_mut().for_each(|j| j.released = deleted.contains(&j.job));
        Ok(Some(Jobs { packed, jobs, conflicts }))
    }

    async fn freeze(
        &self,
        objects: &impl Objects,
        request: &Collect,
        attempt: u64,
        exclude: &[AggregationJobId],
        stores: &[StoreId],
        versions: &[[u8; 32]],
    ) -> StoreResult<bool> {
        let answers = self
            .call_all(objects, stores, |n| StoreAction::Freeze {
                attempt,
                range: request.range,
                counts: request.counts,
                param: request.param.clone(),
                exclude: exclude.to_vec(),
                version: versions.get(n).copied().unwrap_or_default(),
            })
            .await?;
        Ok(answers.iter().all(|a| *a == Some(AggregateStoreResponse::Frozen)))
    }
}

/// What earlier collections say about this one: an answer, or that it may go on.
// SPEC: DAP-09 §4.6.5 asks for the batch's size before it asks for overlaps. An overlap is known without asking a store, and
// the batch is refused either way.
fn check_earlier(
    tables: &mut impl LedgerTables,
    request: &Collect,
) -> StoreResult<Option<LedgerResponse>> {
    let earlier = tables.collections_meeting(&request.range)?;
    let refuse = |kind, why: &str| Ok(Some(LedgerResponse::Refused(Abort::new(kind, why))));
    if request.once && !earlier.is_empty() {
        // The same request may have been decided since it was looked for: its lock expired, and another had it.
        if let Some(answer) = tables.answer(&request.digest)? {
            return Ok(Some(LedgerResponse::Share(answer)));
        }
        return refuse(
            AbortKind::BatchOverlap,
            "a part of this batch, or all of it, was collected",
        );
    }
    if earlier.iter().any(|c| c.range != request.range) {
        let why = "a part of this batch was collected by another query";
        return refuse(AbortKind::BatchOverlap, why);
    }
    if let Some(same) = earlier.iter().find(|c| c.param == request.param) {
        if same.report_count == request.report_count && same.checksum == request.checksum {
            let answer = tables
                .answer(&same.digest)?
                .ok_or_else(|| StoreError("a decided collection lost its answer".to_owned()))?;
            return Ok(Some(LedgerResponse::Share(answer)));
        }
        let why = "this batch was collected with another report count or checksum";
        return refuse(AbortKind::BatchMismatch, why);
    }
    if earlier.len() as u64 >= request.max_batch_query_count {
        let why = "this batch was collected with as many aggregation parameters as the task allows";
        return refuse(AbortKind::BatchQueriedTooManyTimes, why);
    }
    Ok(None)
}

/// The stores that can hold a part of the batch. Nothing is created for an interval that saw no report.
fn stores_of(tables: &mut impl LedgerTables, request: &Collect) -> StoreResult<Vec<StoreId>> {
    let placement = &request.placement;
    if !placement.has_time_groups() {
        return Ok(whole_task_stores(placement.shards));
    }
    match placement.groups_meeting(&request.range) {
        Some((first, last)) => tables.registered(first, last),
        None => Ok(Vec::new()),
    }
}

/// What the stores hold together, and at which version each of them.
#[derive(Default)]
struct Gathered {
    total: Content,
    versions: Vec<[u8; 32]>,
    contested: bool,
    others: bool,
}

impl Gathered {
    fn explains(&self, request: &Collect) -> bool {
        self.total.report_count == request.report_count && self.total.checksum == request.checksum
    }
}

/// The jobs of a batch, newest first, over all stores.
struct Jobs {
    packed: Totals,
    jobs: Vec<JobTotals>,
    conflicts: Vec<(AggregationJobId, AggregationJobId)>,
}

fn wanted(request: &Collect) -> Totals {
    Totals { report_count: request.report_count, checksum: request.checksum }
}

/// A batch that is collected once is collected with the parameter that its reports were aggregated with. DAP-18 §4.6.4.
// SPEC: DAP-18 §4.6.4 has any other parameter refused. A batch with jobs of two is collected for the one that is asked for:
// the other's may have been given up, and must not use the batch up.
fn check_param(request: &Collect, gathered: &Gathered) -> Result<(), Abort> {
    if request.once && gathered.others && gathered.total.report_count == 0 {
        let why = "the batch was aggregated with another aggregation parameter";
        return Err(Abort::invalid_message(why));
    }
    Ok(())
}

/// DAP-09 §4.6.5 asks for the size before §4.6.2 asks for count and checksum.
fn check_size(request: &Collect, report_count: u64) -> Result<(), Abort> {
    let is_batch = request.placement.batch_mode == BatchMode::LeaderSelected;
    if report_count == 0 && is_batch && request.param.is_empty() {
        // SPEC: DAP-09 §4.6.5.2 asks for batchInvalid if no job named the batch. A batch all of whose reports were
        // refused looks the same here, and has as little to collect. With an aggregation parameter it is the reports that
        // are missing: the batch may well be known under another one.
        return Err(Abort::new(
            AbortKind::BatchInvalid,
            "no report was aggregated into this batch",
        ));
    }
    if report_count < request.min_batch_size
        || request.max_batch_size.is_some_and(|max| report_count > max)
    {
        return Err(Abort::new(
            AbortKind::InvalidBatchSize,
            format!(
                "the batch has {report_count} reports, the task asks for at least {}",
                request.min_batch_size
            ),
        ));
    }
    Ok(())
}

fn mismatch(request: &Collect, total: &Content, jobs: &Jobs, choice: &Choice) -> Abort {
    let why = match choice {
        Choice::Ambiguous => "more than one choice of jobs explains the leader's checksum",
        _ => "no choice of jobs explains the leader's checksum",
    };
    Abort::new(
        AbortKind::BatchMismatch,
        format!(
            "the helper counts {} reports, the leader {}; {} jobs can be left out, {} reports are merged, and {why}. \
             Nothing was collected: delete the jobs that were given up, and ask again",
            total.report_count,
            request.report_count,
            jobs.jobs.len(),
            jobs.packed.report_count
        ),
    )
}

/// Encrypts the share to the collector. DAP-09 §4.6.4.
fn seal_share(request: &Collect, share: &[u8], seed: &[u8; 32]) -> StoreResult<Vec<u8>> {
    let sealed = hpke::seal(
        &request.collector_hpke_config,
        &request.hpke_info,
        &request.hpke_aad,
        share,
        seed,
    )
    .map_err(|e| StoreError(format!("the aggregate share cannot be sealed: {e}")))?;
    sealed.as_ref().encode().map_err(|e| StoreError(e.to_string()))
}
