//! What became of a task's reports and requests, as far as no living store counts it, and the sum over all.
//!
//! Exact, each once: reports of stores that have ended, which say so with their last word, and reports that no store was
//! asked about, noted by job and digest. Refused requests are counted as they come, each time; they are kept in memory for
//! some seconds, so that a leader whose every request is wrong does not make the ledger write for each. What was heard in
//! these seconds is lost if the object dies meanwhile.

use std::cell::{Cell, RefCell};

use futures::StreamExt;

use super::{Ledger, LedgerHost, current_epoch};
use crate::{
    ids::AggregationJobId,
    metrics::{Refusal, Tally, Totals},
    store::{
        Database, LedgerTables, Objects, StoreResult,
        message::{
            AggregateStoreResponse, LedgerResponse, LedgerStatus, RequestDigest, StoreAction,
            whole_task_stores,
        },
        placement::{Placement, StoreId},
    },
    time::{Duration, Time},
    vdaf::FieldKind,
};

/// Refused requests are written no more often than this, in seconds.
const WRITE_EVERY_S: u64 = 5;

/// Stores asked for one status: the platform bounds the calls and the caller the time.
const STORES_ASKED_MAX: usize = 240;

/// What was heard and is not written yet.
#[derive(Debug, Default)]
pub(super) struct Heard {
    totals: RefCell<Totals>,
    written_at: Cell<Option<Time>>,
}

impl Heard {
    /// Forgets it.
    pub(super) fn forget(&self) {
        self.totals.take();
    }
}

/// Counts what became of a job's reports, if that was not done yet.
pub(super) fn note(
    tables: &mut impl LedgerTables,
    placement: &Placement,
    job: &AggregationJobId,
    digest: &RequestDigest,
    tally: &Tally,
    now: Time,
) -> StoreResult<()> {
    for epoch in tables.meta()?.released_epochs {
        if tables.is_noted(epoch, job, digest)? {
            return Ok(());
        }
    }
    let epoch = current_epoch(tables, placement, now)?;
    tables.put_noted(epoch, job, digest)?;
    let mut books = tables.books()?;
    books.add(tally, now);
    tables.put_books(&books)
}

impl<D: Database> Ledger<D>
where
    D::Tables: LedgerTables,
{
    /// Counts a refused request.
    pub(super) async fn hear(&self, host: &impl LedgerHost, refusal: Refusal) -> StoreResult<()> {
        let now = host.now();
        self.heard.totals.borrow_mut().refuse(refusal, now);
        let every = Duration::from_seconds(WRITE_EVERY_S);
        match self.heard.written_at.get() {
            Some(at) if now < at.saturating_add(every) => host.arm_alarm(WRITE_EVERY_S).await,
            _ => self.write_what_was_heard(now),
        }
    }

    /// Writes it, if there is anything.
    pub(super) fn write_what_was_heard(&self, now: Time) -> StoreResult<()> {
        if *self.heard.totals.borrow() == Totals::default() {
            return Ok(());
        }
        self.db.transaction(|t| {
            let mut books = t.books()?;
            books.merge(&self.heard.totals.borrow());
            t.put_books(&books)
        })?;
        self.heard.totals.take();
        self.heard.written_at.set(Some(now));
        Ok(())
    }

    /// How the task is doing, as some of its stores know.
    pub(super) async fn status(
        &self,
        objects: &impl Objects,
        task: (Placement, FieldKind),
        batches: bool,
        after: Option<StoreId>,
    ) -> StoreResult<LedgerResponse> {
        let (mut status, mut stores) = self.db.transaction(|t| {
            let stores = if task.0.has_time_groups() {
                t.registered(0, u64::MAX)?
            } else {
                whole_task_stores(task.0.shards)
            };
            if after.is_some() {
                return Ok((LedgerStatus::default(), stores));
            }
            let (collections, collected_reports) = t.collected_totals()?;
            let mut totals = t.books()?;
            totals.merge(&self.heard.totals.borrow());
            let status = LedgerStatus {
                collections,
                collected_reports,
                expired_reports: t.expired_total()?,
                collecting: t.pending()?.is_some(),
                totals,
                ..LedgerStatus::default()
            };
            Ok((status, stores))
        })?;
        stores.retain(|store| after.is_none_or(|after| *store > after));
        if stores.len() > STORES_ASKED_MAX {
            stores.truncate(STORES_ASKED_MAX);
            status.next = stores.last().copied();
        }
        let calls = self.calls_of(task, objects, &stores, |_| StoreAction::Totals { batches });
        let mut answers = std::pin::pin!(calls);
        while let Some(answer) = answers.next().await {
            match answer {
                Some(AggregateStoreResponse::Totals(held)) => {
                    status.totals.merge(&held.totals);
                    status.add_batches(held.batches, held.more);
                }
                _ => status.silent += 1,
            }
        }
        Ok(LedgerResponse::Status(Box::new(status)))
    }
}
