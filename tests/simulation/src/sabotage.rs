//! Defects put between the schedule and the objects, to prove that the oracle sees what such a defect does. Each is a
//! rule of the storage protocol, broken.

use daphne_core::{
    ids::AggregationJobId,
    store::{
        AggregateTables as _, Database, LedgerTables as _, StoreResult,
        message::{
            AggregateStoreRequest, AggregateStoreResponse as Response, JobStoreRequest,
            LedgerRequest, LedgerResponse, StoreAction,
        },
    },
    testing::memory::{MemoryAggregateTables, MemoryLedgerTables},
};

/// A rule that is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Sabotage {
    /// A freeze takes whatever the store holds, not what was gathered.
    FreezeUnversioned,
    /// Two bodies under one job id are the same job.
    BodiesUnbound,
    /// A commit that is made again is another job.
    CommitsRepeated,
    /// A range that is only frozen is called collected.
    FrozenIsCollected,
    /// Refusals that the clock proposed are not recorded.
    RefusalsForgotten,
    /// An attempt is forgotten when the ledger is reset.
    IntentForgotten,
    /// `DELETE` undoes what the job counted.
    DeleteUndoes,
    /// A store is not told what was collected before its birth.
    BornIgnorant,
    /// Stores say that they sealed, and did not.
    SealsIgnored,
    /// Stores say that they thawed, and did not.
    ThawsIgnored,
    /// An ended attempt may freeze again.
    Unfenced,
    /// Stores say that they committed, and did not.
    CommitsIgnored,
}

impl Sabotage {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::FreezeUnversioned,
        Self::BodiesUnbound,
        Self::CommitsRepeated,
        Self::FrozenIsCollected,
        Self::RefusalsForgotten,
        Self::IntentForgotten,
        Self::DeleteUndoes,
        Self::BornIgnorant,
        Self::SealsIgnored,
        Self::ThawsIgnored,
        Self::Unfenced,
        Self::CommitsIgnored,
    ];

    /// Before a job store hears a request.
    pub fn job_store_request(self, request: &mut JobStoreRequest) {
        if let (Self::BodiesUnbound, JobStoreRequest::Claim { digest, .. }) = (self, request) {
            *digest = [0; 32];
        }
    }

    /// Before a store hears a request; the answer, if it is not to hear it.
    pub fn store_request(
        self,
        tables: &impl Database<Tables = MemoryAggregateTables>,
        request: &mut AggregateStoreRequest,
        ask: &mut dyn FnMut(AggregateStoreRequest) -> StoreResult<Response>,
    ) -> Option<Response> {
        let (placement, store, field) = (request.placement, request.store, request.field);
        match (self, &mut request.action) {
            (
                Self::FreezeUnversioned,
                StoreAction::Freeze { range, param, exclude, version, .. },
            ) => {
                let (range, param, exclude) = (*range, param.clone(), exclude.clone());
                let action = StoreAction::Gather { range, param, exclude };
                if let Ok(Response::Gathered { content, .. }) =
                    ask(AggregateStoreRequest { placement, store, field, action })
                {
                    *version = content.version();
                }
            }
            (Self::BodiesUnbound, StoreAction::Commit(commit)) => commit.digest = [0; 32],
            (Self::CommitsRepeated, StoreAction::Commit(commit)) => {
                // Another job's name for a row that is there already; its reports are as good as new.
                tables
                    .transaction(|t| {
                        for jobs in t.generations.values_mut() {
                            if let Some(mut row) = jobs.remove(&commit.job) {
                                let mut name = *row.head.job.as_bytes();
                                name[15] ^= 0xff;
                                row.head.job = AggregationJobId::new(name);
                                row.head.slices.iter_mut().for_each(|s| s.report_count = 0);
                                row.ids.clear();
                                jobs.insert(row.head.job, row);
                            }
                        }
                        Ok(())
                    })
                    .ok();
            }
            (Self::RefusalsForgotten, StoreAction::Commit(commit)) => commit.refused.clear(),
            (Self::CommitsIgnored, StoreAction::Commit(commit)) if commit.open.is_some() => {
                return Some(Response::Committed(commit.refused.clone()));
            }
            (Self::SealsIgnored, StoreAction::Seal { .. })
            | (Self::ThawsIgnored, StoreAction::Thaw { .. }) => return Some(Response::Done),
            (Self::Unfenced, _) => {
                tables
                    .transaction(|t| match t.meta()? {
                        Some(mut meta) => {
                            meta.fence = 0;
                            t.put_meta(&meta)
                        }
                        None => Ok(()),
                    })
                    .ok();
            }
            _ => {}
        }
        None
    }

    /// After a store answered.
    pub fn store_answer(self, request: &AggregateStoreRequest, answer: Response) -> Response {
        match (self, &request.action, answer) {
            (Self::FrozenIsCollected, StoreAction::Commit(commit), Response::Busy(_)) => {
                let ids = commit.slices.iter().flat_map(|s| {
                    daphne_core::store::aggregate_store::report_ids(&s.ids).collect::<Vec<_>>()
                });
                Response::Collected(ids.collect())
            }
            (_, _, answer) => answer,
        }
    }

    /// Before the ledger hears a request, for each store.
    pub fn ledger_request(
        self,
        store: &impl Database<Tables = MemoryAggregateTables>,
        request: &LedgerRequest,
    ) {
        if let (Self::DeleteUndoes, LedgerRequest::Release { job, .. }) = (self, request) {
            store
                .transaction(|t| {
                    t.generations.values_mut().for_each(|jobs| {
                        jobs.remove(job);
                    });
                    Ok(())
                })
                .ok();
        }
    }

    /// After the ledger answered.
    pub fn ledger_answer(self, answer: LedgerResponse) -> LedgerResponse {
        match (self, answer) {
            (Self::BornIgnorant, LedgerResponse::Opened(_)) => LedgerResponse::Opened(Vec::new()),
            (_, answer) => answer,
        }
    }

    /// The ledger was reset.
    pub fn ledger_reset(self, ledger: &impl Database<Tables = MemoryLedgerTables>) {
        if self == Self::IntentForgotten {
            ledger.transaction(|t| t.put_pending(None)).ok();
        }
    }
}
