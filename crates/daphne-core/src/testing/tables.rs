//! Tables in memory: what SQLite is to the Durable Objects. Using a table that was not created, or was dropped, is an
//! error, as it is there.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use super::runs::MemoryRuns;
use crate::{
    batch::{BatchBucket, BucketRange},
    ids::{AggregationJobId, TaskId},
    metrics::Totals,
    store::{
        AggregateTables, Claim, Database, DeferredPart, JobTables, LedgerTables, RecordedJob,
        SteppedJob, SteppedJobBody, StoreError, StoreResult, VisitFingerprints, VisitJob,
        VisitJobIds, VisitMerged,
        aggregate_store::{JobHead, JobRow, SealedRange, StoreMeta},
        config_store::{
            ConfigTables, Purge, TaskEntry,
            keys::{KeySettings, StoredHpkeKey},
            peers::PeerTables,
        },
        job_store::deferred::DeferredJob,
        ledger::{CollectionRow, LedgerMeta, Pending},
        message::{Content, RequestDigest},
        placement::{Group, StoreId},
        replay::{Run, RunTables},
    },
    time::Time,
};

/// A database whose tables are a value: a failed transaction restores the copy taken before.
#[derive(Debug, Default)]
pub struct MemoryDatabase<T> {
    tables: RefCell<T>,
}

impl<T: Clone> MemoryDatabase<T> {
    /// A copy of the tables.
    pub fn snapshot(&self) -> T {
        self.tables.borrow().clone()
    }
}

impl<T: Clone> Database for MemoryDatabase<T> {
    type Tables = T;

    fn transaction<R>(&self, f: impl FnOnce(&mut T) -> StoreResult<R>) -> StoreResult<R> {
        // Worked on in a copy, so that a panic leaves nothing behind.
        let mut copy = self.snapshot();
        let result = f(&mut copy);
        if result.is_ok() {
            *self.tables.borrow_mut() = copy;
        }
        result
    }
}

impl<T: Clone> Database for &MemoryDatabase<T> {
    type Tables = T;

    fn transaction<R>(&self, f: impl FnOnce(&mut T) -> StoreResult<R>) -> StoreResult<R> {
        (*self).transaction(f)
    }
}

impl<T: Clone> Database for Rc<MemoryDatabase<T>> {
    type Tables = T;

    fn transaction<R>(&self, f: impl FnOnce(&mut T) -> StoreResult<R>) -> StoreResult<R> {
        (**self).transaction(f)
    }
}

/// Tables of one `AggregateStore`. Using a table that was not created, or was dropped, is an error.
#[derive(Clone, Debug, Default)]
pub struct MemoryAggregateTables {
    /// The meta row.
    pub meta: Option<StoreMeta>,
    sealed: Vec<SealedRange>,
    /// Jobs by generation.
    pub generations: BTreeMap<u32, BTreeMap<AggregationJobId, JobRow>>,
    /// Fingerprints of reports that began, by generation and number.
    pub begun: BTreeMap<(u32, u32), Vec<u64>>,
    /// What is packed, by epoch.
    pub epochs: BTreeMap<u32, PackedEpoch>,
    /// The replay index.
    pub runs: MemoryRuns,
}

/// What is packed of one epoch.
#[derive(Clone, Debug, Default)]
pub struct PackedEpoch {
    /// Repeats of these are answered.
    pub jobs: BTreeMap<AggregationJobId, RecordedJob>,
    /// Merged slices.
    pub merged: BTreeMap<(BatchBucket, Vec<u8>), Content>,
}

fn no_table<T>(found: Option<T>) -> StoreResult<T> {
    found.ok_or_else(|| StoreError("no such table".to_owned()))
}

impl MemoryAggregateTables {
    fn generation(
        &mut self,
        generation: u32,
    ) -> StoreResult<&mut BTreeMap<AggregationJobId, JobRow>> {
        no_table(self.generations.get_mut(&generation))
    }

    fn epoch(&mut self, epoch: u32) -> StoreResult<&mut PackedEpoch> {
        no_table(self.epochs.get_mut(&epoch))
    }

    /// All jobs whose slices are separate.
    pub fn jobs(&self) -> impl Iterator<Item = &JobRow> {
        self.generations.values().flat_map(BTreeMap::values)
    }
}

impl AggregateTables for MemoryAggregateTables {
    fn meta(&mut self) -> StoreResult<Option<StoreMeta>> {
        Ok(self.meta.clone())
    }

    fn put_meta(&mut self, meta: &StoreMeta) -> StoreResult<()> {
        self.meta = Some(meta.clone());
        Ok(())
    }

    fn sealed_meeting(&mut self, range: &BucketRange) -> StoreResult<Vec<SealedRange>> {
        Ok(self.sealed.iter().filter(|s| s.range.overlaps(range)).cloned().collect())
    }

    fn sealed_near(&mut self, bucket: &BatchBucket) -> StoreResult<Vec<SealedRange>> {
        Ok(self.sealed.iter().filter(|s| s.range.contains(bucket)).cloned().collect())
    }

    fn put_sealed(&mut self, range: &SealedRange) -> StoreResult<()> {
        if !self.sealed.iter().any(|s| s.range == range.range && s.param == range.param) {
            self.sealed.push(range.clone());
        }
        Ok(())
    }

    fn forget_sealed_before(&mut self, end: Time) -> StoreResult<()> {
        self.sealed.retain(|s| match s.range {
            BucketRange::Windows(interval) => interval.end() >= end,
            BucketRange::Batch(_) => true,
        });
        Ok(())
    }

    fn create_generation(&mut self, generation: u32) -> StoreResult<()> {
        match self.generations.insert(generation, BTreeMap::new()) {
            None => Ok(()),
            Some(_) => Err(StoreError("a generation was created twice".to_owned())),
        }
    }

    fn drop_generation(&mut self, generation: u32) -> StoreResult<()> {
        self.begun.retain(|(of, _), _| *of != generation);
        no_table(self.generations.remove(&generation)).map(|_| ())
    }

    fn job(&mut self, generation: u32, job: &AggregationJobId) -> StoreResult<Option<RecordedJob>> {
        Ok(self.generation(generation)?.get(job).map(|row| row.recorded.clone()))
    }

    fn insert_job(&mut self, generation: u32, row: &JobRow) -> StoreResult<()> {
        match self.generation(generation)?.insert(row.head.job, row.clone()) {
            None => Ok(()),
            Some(_) => Err(StoreError("a job was inserted twice".to_owned())),
        }
    }

    fn put_slices(
        &mut self,
        generation: u32,
        head: &JobHead,
        ids: Option<&[u8]>,
    ) -> StoreResult<()> {
        let row = no_table(self.generation(generation)?.get_mut(&head.job))?;
        row.head = head.clone();
        if let Some(ids) = ids {
            row.ids = ids.to_vec();
        }
        Ok(())
    }

    fn each_job(&mut self, generation: u32, visit: &mut VisitJob<'_>) -> StoreResult<()> {
        self.generation(generation)?.values().try_for_each(|row| visit(row.head.clone()))
    }

    fn each_job_ids(&mut self, generation: u32, visit: &mut VisitJobIds<'_>) -> StoreResult<()> {
        self.generation(generation)?.values().try_for_each(|row| visit(row.head.clone(), &row.ids))
    }

    fn shares(&mut self, generation: u32, job: &AggregationJobId) -> StoreResult<Vec<u8>> {
        no_table(self.generation(generation)?.get(job)).map(|row| row.shares.clone())
    }

    fn insert_begun(&mut self, generation: u32, n: u32, fingerprints: &[u64]) -> StoreResult<()> {
        self.generation(generation)?;
        match self.begun.insert((generation, n), fingerprints.to_vec()) {
            None => Ok(()),
            Some(_) => Err(StoreError("what began was inserted twice".to_owned())),
        }
    }

    fn each_begun(
        &mut self,
        generation: u32,
        visit: &mut VisitFingerprints<'_>,
    ) -> StoreResult<()> {
        self.generation(generation)?;
        self.begun
            .range((generation, 0)..=(generation, u32::MAX))
            .try_for_each(|(_, fingerprints)| visit(fingerprints))
    }

    fn create_epoch(&mut self, epoch: u32) -> StoreResult<()> {
        match self.epochs.insert(epoch, PackedEpoch::default()) {
            None => Ok(()),
            Some(_) => Err(StoreError("an epoch was created twice".to_owned())),
        }
    }

    fn drop_epoch(&mut self, epoch: u32) -> StoreResult<()> {
        no_table(self.epochs.remove(&epoch)).map(|_| ())
    }

    fn put_packed_jobs(
        &mut self,
        epoch: u32,
        _generation: u32,
        jobs: &[(AggregationJobId, RecordedJob)],
    ) -> StoreResult<()> {
        self.epoch(epoch)?.jobs.extend(jobs.iter().cloned());
        Ok(())
    }

    fn packed_job(
        &mut self,
        epoch: u32,
        job: &AggregationJobId,
    ) -> StoreResult<Option<RecordedJob>> {
        Ok(self.epoch(epoch)?.jobs.get(job).cloned())
    }

    fn merged(
        &mut self,
        epoch: u32,
        bucket: &BatchBucket,
        param: &[u8],
    ) -> StoreResult<Option<Content>> {
        Ok(self.epoch(epoch)?.merged.get(&(*bucket, param.to_vec())).cloned())
    }

    fn put_merged(
        &mut self,
        epoch: u32,
        bucket: &BatchBucket,
        param: &[u8],
        content: &Content,
    ) -> StoreResult<()> {
        self.epoch(epoch)?.merged.insert((*bucket, param.to_vec()), content.clone());
        Ok(())
    }

    fn each_merged(
        &mut self,
        epoch: u32,
        range: Option<&BucketRange>,
        visit: &mut VisitMerged<'_>,
    ) -> StoreResult<()> {
        self.epoch(epoch)?
            .merged
            .iter()
            .filter(|((bucket, _), _)| range.is_none_or(|r| r.contains(bucket)))
            .try_for_each(|((bucket, param), content)| visit(*bucket, param, content.clone()))
    }
}

impl RunTables for MemoryAggregateTables {
    fn create_run(&mut self, run: u32) -> StoreResult<()> {
        self.runs.create_run(run)
    }

    fn drop_run(&mut self, run: u32) -> StoreResult<()> {
        self.runs.drop_run(run)
    }

    fn put_part(&mut self, run: &Run, part: u32, fingerprints: &[u64]) -> StoreResult<()> {
        self.runs.put_part(run, part, fingerprints)
    }

    fn part(&mut self, run: &Run, part: u32) -> StoreResult<Vec<u64>> {
        self.runs.part(run, part)
    }

    fn last_part(&mut self, run: &Run) -> StoreResult<Option<u32>> {
        self.runs.last_part(run)
    }

    fn present(&mut self, run: &Run, sorted: &[u64]) -> StoreResult<Vec<u64>> {
        self.runs.present(run, sorted)
    }
}

/// Tables of one `TaskLedger`.
#[derive(Clone, Debug, Default)]
pub struct MemoryLedgerTables {
    meta: LedgerMeta,
    registered: BTreeSet<StoreId>,
    expired: BTreeMap<(StoreId, u32), u64>,
    released: BTreeMap<u32, BTreeSet<AggregationJobId>>,
    pending: Option<Pending>,
    noted: BTreeMap<u32, BTreeSet<(AggregationJobId, RequestDigest)>>,
    books: Totals,
    /// The row of the books cannot be read.
    pub(super) books_are_damaged: bool,
    collections: BTreeMap<RequestDigest, CollectionRow>,
    answers: BTreeMap<RequestDigest, Vec<u8>>,
}

impl LedgerTables for MemoryLedgerTables {
    fn meta(&mut self) -> StoreResult<LedgerMeta> {
        Ok(self.meta.clone())
    }

    fn put_meta(&mut self, meta: &LedgerMeta) -> StoreResult<()> {
        self.meta = meta.clone();
        Ok(())
    }

    fn register(&mut self, store: &StoreId) -> StoreResult<()> {
        self.registered.insert(*store);
        Ok(())
    }

    fn registered(&mut self, first: u64, last: u64) -> StoreResult<Vec<StoreId>> {
        let in_range = |s: &&StoreId| matches!(s.group, Group::Run(n) if first <= n && n <= last);
        Ok(self.registered.iter().filter(in_range).copied().collect())
    }

    fn unregister(&mut self, store: &StoreId) -> StoreResult<()> {
        self.registered.remove(store);
        Ok(())
    }

    fn put_expired(&mut self, store: &StoreId, epoch: u32, uncollected: u64) -> StoreResult<()> {
        self.expired.insert((*store, epoch), uncollected);
        Ok(())
    }

    fn expired_total(&mut self) -> StoreResult<u64> {
        Ok(self.expired.values().sum())
    }

    fn books(&mut self) -> StoreResult<Totals> {
        match self.books_are_damaged {
            true => Err(StoreError("the books are unreadable".to_owned())),
            false => Ok(self.books.clone()),
        }
    }

    fn put_books(&mut self, books: &Totals) -> StoreResult<()> {
        self.books = books.clone();
        Ok(())
    }

    fn put_noted(
        &mut self,
        epoch: u32,
        job: &AggregationJobId,
        digest: &RequestDigest,
    ) -> StoreResult<()> {
        no_table(self.noted.get_mut(&epoch))?.insert((*job, *digest));
        Ok(())
    }

    fn is_noted(
        &mut self,
        epoch: u32,
        job: &AggregationJobId,
        digest: &RequestDigest,
    ) -> StoreResult<bool> {
        Ok(no_table(self.noted.get(&epoch))?.contains(&(*job, *digest)))
    }

    fn create_epoch(&mut self, epoch: u32) -> StoreResult<()> {
        self.noted.insert(epoch, BTreeSet::new());
        match self.released.insert(epoch, BTreeSet::new()) {
            None => Ok(()),
            Some(_) => Err(StoreError("a table was created twice".to_owned())),
        }
    }

    fn drop_epoch(&mut self, epoch: u32) -> StoreResult<()> {
        self.noted.remove(&epoch);
        no_table(self.released.remove(&epoch)).map(|_| ())
    }

    fn release(&mut self, epoch: u32, job: &AggregationJobId) -> StoreResult<()> {
        no_table(self.released.get_mut(&epoch))?.insert(*job);
        Ok(())
    }

    fn released(
        &mut self,
        epoch: u32,
        jobs: &[AggregationJobId],
    ) -> StoreResult<Vec<AggregationJobId>> {
        let released = no_table(self.released.get(&epoch))?;
        Ok(jobs.iter().filter(|j| released.contains(j)).copied().collect())
    }

    fn pending(&mut self) -> StoreResult<Option<Pending>> {
        Ok(self.pending.clone())
    }

    fn put_pending(&mut self, pending: Option<&Pending>) -> StoreResult<()> {
        self.pending = pending.cloned();
        Ok(())
    }

    fn collection(&mut self, digest: &RequestDigest) -> StoreResult<Option<CollectionRow>> {
        Ok(self.collections.get(digest).cloned())
    }

    fn collections_meeting(&mut self, range: &BucketRange) -> StoreResult<Vec<CollectionRow>> {
        Ok(self.collections.values().filter(|c| c.range.overlaps(range)).cloned().collect())
    }

    fn unsealed_collections(&mut self) -> StoreResult<Vec<CollectionRow>> {
        Ok(self.collections.values().filter(|c| !c.todo.is_empty()).cloned().collect())
    }

    fn answer(&mut self, digest: &RequestDigest) -> StoreResult<Option<Vec<u8>>> {
        Ok(self.answers.get(digest).cloned())
    }

    fn forget_answer(&mut self, digest: &RequestDigest) -> StoreResult<()> {
        self.answers.remove(digest);
        Ok(())
    }

    fn insert_collection(&mut self, row: &CollectionRow, answer: &[u8]) -> StoreResult<()> {
        self.answers.insert(row.digest, answer.to_vec());
        match self.collections.insert(row.digest, row.clone()) {
            None => Ok(()),
            Some(_) => Err(StoreError("a collection was decided twice".to_owned())),
        }
    }

    fn update_collection(&mut self, row: &CollectionRow) -> StoreResult<()> {
        self.collections.insert(row.digest, row.clone());
        Ok(())
    }

    fn collected_totals(&mut self) -> StoreResult<(u64, u64)> {
        let reports = self.collections.values().map(|c| c.report_count).sum();
        Ok((self.collections.len() as u64, reports))
    }
}

/// Tables of one `JobStore`.
#[derive(Clone, Debug, Default)]
pub struct MemoryJobTables {
    epochs: BTreeMap<u32, MemoryJobEpoch>,
    deferred: BTreeMap<AggregationJobId, DeferredJob>,
    deferred_parts: BTreeMap<(AggregationJobId, DeferredPart), Vec<u8>>,
}

#[derive(Clone, Debug)]
struct MemoryJobEpoch {
    forget_at: Time,
    claims: BTreeMap<AggregationJobId, Claim>,
    /// Job, state, answer.
    stepped: BTreeMap<AggregationJobId, (SteppedJob, Vec<u8>, Vec<u8>)>,
}

impl JobTables for MemoryJobTables {
    fn epochs(&mut self) -> StoreResult<Vec<(u32, Time)>> {
        Ok(self.epochs.iter().map(|(number, epoch)| (*number, epoch.forget_at)).collect())
    }

    fn create_epoch(&mut self, epoch: u32, forget_at: Time) -> StoreResult<()> {
        let (claims, stepped) = Default::default();
        self.epochs.insert(epoch, MemoryJobEpoch { forget_at, claims, stepped });
        Ok(())
    }

    fn drop_epoch(&mut self, epoch: u32) -> StoreResult<()> {
        self.deferred.retain(|_, deferred| deferred.epoch != epoch);
        self.deferred_parts.retain(|(job, _), _| self.deferred.contains_key(job));
        no_table(self.epochs.remove(&epoch)).map(|_| ())
    }

    fn claim(&mut self, epoch: u32, job: &AggregationJobId) -> StoreResult<Option<Claim>> {
        Ok(no_table(self.epochs.get(&epoch))?.claims.get(job).cloned())
    }

    fn put_claim(&mut self, epoch: u32, job: &AggregationJobId, claim: &Claim) -> StoreResult<()> {
        no_table(self.epochs.get_mut(&epoch))?.claims.insert(*job, claim.clone());
        Ok(())
    }

    fn stepped(&mut self, epoch: u32, job: &AggregationJobId) -> StoreResult<Option<SteppedJob>> {
        Ok(no_table(self.epochs.get(&epoch))?
            .stepped
            .get(job)
            .map(|(stepped, _, _)| stepped.clone()))
    }

    fn stepped_state(&mut self, epoch: u32, job: &AggregationJobId) -> StoreResult<Vec<u8>> {
        let found = no_table(self.epochs.get(&epoch))?.stepped.get(job);
        found.map(|(_, state, _)| state.clone()).ok_or_else(|| StoreError("no such job".to_owned()))
    }

    fn stepped_answer(&mut self, epoch: u32, job: &AggregationJobId) -> StoreResult<Vec<u8>> {
        let found = no_table(self.epochs.get(&epoch))?.stepped.get(job);
        found
            .map(|(_, _, answer)| answer.clone())
            .ok_or_else(|| StoreError("no such job".to_owned()))
    }

    fn put_stepped(
        &mut self,
        epoch: u32,
        job: &AggregationJobId,
        stepped: &SteppedJob,
        body: Option<SteppedJobBody<'_>>,
    ) -> StoreResult<()> {
        let epoch = no_table(self.epochs.get_mut(&epoch))?;
        match (epoch.stepped.get_mut(job), body) {
            (Some(row), None) => row.0 = stepped.clone(),
            (None, None) => return Err(StoreError("no such job".to_owned())),
            (_, Some(body)) => {
                let row = (stepped.clone(), body.state.to_vec(), body.answer.to_vec());
                epoch.stepped.insert(*job, row);
            }
        }
        Ok(())
    }

    fn deferred(&mut self, job: &AggregationJobId) -> StoreResult<Option<DeferredJob>> {
        Ok(self.deferred.get(job).cloned())
    }

    fn put_deferred(&mut self, job: &AggregationJobId, deferred: &DeferredJob) -> StoreResult<()> {
        self.deferred.insert(*job, deferred.clone());
        Ok(())
    }

    fn deferred_part(
        &mut self,
        job: &AggregationJobId,
        part: DeferredPart,
    ) -> StoreResult<Vec<u8>> {
        Ok(self.deferred_parts.get(&(*job, part)).cloned().unwrap_or_default())
    }

    fn put_deferred_part(
        &mut self,
        job: &AggregationJobId,
        part: DeferredPart,
        bytes: &[u8],
    ) -> StoreResult<()> {
        if bytes.is_empty() {
            self.deferred_parts.remove(&(*job, part));
        } else {
            self.deferred_parts.insert((*job, part), bytes.to_vec());
        }
        Ok(())
    }

    fn next_deferred(&mut self) -> StoreResult<Option<(AggregationJobId, Time)>> {
        let due = self.deferred.iter().filter_map(|(job, deferred)| Some((*job, deferred.due?)));
        Ok(due.min_by_key(|(job, due)| (*due, *job)))
    }
}

/// Tables of the `ConfigStore`.
#[derive(Clone, Debug, Default)]
pub struct MemoryConfigTables {
    tasks: BTreeMap<TaskId, TaskEntry>,
    keys: Vec<StoredHpkeKey>,
    key_settings: KeySettings,
    purges: BTreeMap<TaskId, Purge>,
    peers: BTreeMap<String, Vec<u8>>,
}

impl PeerTables for MemoryConfigTables {
    fn peers(&mut self) -> StoreResult<Vec<Vec<u8>>> {
        Ok(self.peers.values().cloned().collect())
    }

    fn peer(&mut self, endpoint: &str) -> StoreResult<Option<Vec<u8>>> {
        Ok(self.peers.get(endpoint).cloned())
    }

    fn put_peer(&mut self, endpoint: &str, record: &[u8]) -> StoreResult<()> {
        self.peers.insert(endpoint.to_owned(), record.to_vec());
        Ok(())
    }

    fn remove_peer(&mut self, endpoint: &str) -> StoreResult<()> {
        self.peers.remove(endpoint);
        Ok(())
    }
}

impl ConfigTables for MemoryConfigTables {
    fn task(&mut self, id: &TaskId) -> StoreResult<Option<TaskEntry>> {
        Ok(self.tasks.get(id).cloned())
    }

    fn put_task(&mut self, id: &TaskId, entry: &TaskEntry) -> StoreResult<()> {
        self.tasks.insert(*id, entry.clone());
        Ok(())
    }

    fn tasks(&mut self, after: Option<&TaskId>, limit: u32) -> StoreResult<Vec<Vec<u8>>> {
        Ok(self
            .tasks
            .iter()
            .filter(|(id, _)| after.is_none_or(|a| *id > a))
            .filter_map(|(_, entry)| entry.record.clone())
            .take(limit as usize)
            .collect())
    }

    fn hpke_keys(&mut self) -> StoreResult<Vec<StoredHpkeKey>> {
        Ok(self.keys.clone())
    }

    fn put_hpke_key(&mut self, key: &StoredHpkeKey) -> StoreResult<()> {
        match self.keys.iter_mut().find(|known| known.config.id == key.config.id) {
            Some(known) => *known = key.clone(),
            None => self.keys.push(key.clone()),
        }
        Ok(())
    }

    fn key_settings(&mut self) -> StoreResult<KeySettings> {
        Ok(self.key_settings.clone())
    }

    fn put_key_settings(&mut self, settings: &KeySettings) -> StoreResult<()> {
        self.key_settings = settings.clone();
        Ok(())
    }

    fn purge(&mut self, id: &TaskId) -> StoreResult<Option<Purge>> {
        Ok(self.purges.get(id).copied())
    }

    fn put_purge(&mut self, purge: &Purge) -> StoreResult<()> {
        self.purges.insert(purge.objects.placement.task_id, *purge);
        Ok(())
    }

    fn remove_purge(&mut self, id: &TaskId) -> StoreResult<()> {
        self.purges.remove(id);
        Ok(())
    }

    fn purges_due(&mut self, now: Time, limit: u32) -> StoreResult<Vec<Purge>> {
        let mut due: Vec<Purge> = self.purges.values().filter(|p| p.at <= now).copied().collect();
        due.sort_by_key(|p| p.at);
        due.truncate(limit as usize);
        Ok(due)
    }

    fn next_purge(&mut self) -> StoreResult<Option<Time>> {
        Ok(self.purges.values().map(|p| p.at).min())
    }
}
