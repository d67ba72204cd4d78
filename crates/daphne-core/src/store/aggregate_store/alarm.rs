//! What a store does in the background: merges its index, packs finished jobs, and forgets what is too old.
//!
//! Each step is a transaction of its own, and the alarm may be cut off between any two.

use super::{
    AggregateStore, AggregateTables, Database, StoreMeta, StoreResult, forgets_at_once,
    pack::{self, Fates},
    totals,
};
use crate::{
    metrics::Totals,
    store::{
        Objects,
        message::{LedgerRequest, LedgerResponse},
        replay::MergeStep,
    },
    time::{Duration, Time},
};

/// Steps in one run of the alarm: a quarter of a second, for which a job has to wait. Each run bills a row and a request,
/// and a step writes sixteen rows.
const STEPS_MAX: usize = 16;
/// Generations looked at in one run.
const GENERATIONS_MAX: usize = 32;
/// When to go on if there is more to do.
const SOON: Duration = Duration::from_seconds(1);
/// When to try again if something was in the way.
const LATER: Duration = Duration::from_seconds(300);

/// The outcome of an alarm, for the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alarmed {
    /// Call again at this time, or earlier.
    pub wake: Option<Time>,
    /// Delete everything stored, and the object's memory of it.
    pub erase: bool,
}

/// When the store next has something to forget.
pub(super) fn deadline(meta: &StoreMeta) -> Option<Time> {
    if forgets_at_once(&meta.store) {
        meta.placement.group_deadline(meta.store.group)
    } else {
        meta.epochs.first().map(|e| meta.placement.epoch_deadline(e.number))
    }
}

impl<D: Database> AggregateStore<D>
where
    D::Tables: AggregateTables,
{
    /// Does what is due in the background. Safe to be called at any time, and to be cut off.
    ///
    /// # Errors
    /// The database's; call it again.
    pub async fn alarm(&self, objects: &impl Objects, now: Time) -> StoreResult<Alarmed> {
        // Whoever asks next arms it again: a store whose last epoch ended has no deadline until it has a new one.
        self.was_woken.set(false);
        let Some(meta) = self.transaction(|t, _| t.meta())? else {
            return Ok(Alarmed { wake: None, erase: false });
        };
        let at = |wake: Time| Ok(Alarmed { wake: Some(wake), erase: false });
        if deadline(&meta).is_some_and(|d| d <= now) {
            return match self.forget(objects, &meta, now).await? {
                Forgotten::All => {
                    self.erased();
                    Ok(Alarmed { wake: None, erase: true })
                }
                Forgotten::Epoch => at(now.saturating_add(SOON)),
                Forgotten::NotYet => at(now.saturating_add(LATER)),
            };
        }
        if self.merge()? || self.pack_settled()? || self.pack_under_pressure(objects, &meta).await?
        {
            return at(now.saturating_add(SOON));
        }
        Ok(Alarmed { wake: deadline(&meta), erase: false })
    }

    /// Merges runs of the replay index. Returns whether there is more to do.
    fn merge(&self) -> StoreResult<bool> {
        for _ in 0..STEPS_MAX {
            let did = self.transaction(|tables, _| {
                let Some(mut meta) = tables.meta()? else { return Ok(false) };
                for n in 0..meta.epochs.len() {
                    let Some(epoch) = meta.epochs.get_mut(n) else { continue };
                    match epoch.runs.merge_step(tables, &mut meta.next_table)? {
                        MergeStep::Idle => {}
                        MergeStep::Progress => return Ok(true),
                        MergeStep::Finished => {
                            tables.put_meta(&meta)?;
                            return Ok(true);
                        }
                    }
                }
                Ok(false)
            })?;
            if !did {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Packs a generation about most of whose jobs a collection decided; the others are kept apart, so that one batch
    /// that nobody collects does not hold up all. Returns whether there may be more to do.
    fn pack_settled(&self) -> StoreResult<bool> {
        self.transaction(|tables, _| {
            let Some(mut meta) = tables.meta()? else { return Ok(false) };
            let generations = pack::full_generations(&meta).into_iter().take(GENERATIONS_MAX);
            for full in generations.chain(pack::remnants(&meta)) {
                let (rows, mut keep) = pack::undecided(tables, full.table)?;
                if keep.len() * 4 > rows {
                    continue;
                }
                keep.extend(pack::fates(tables, &meta, full.table)?.staying);
                // Otherwise little would be won by moving them. Where reports only began there is nothing to move.
                if keep.len() * 2 > rows {
                    continue;
                }
                pack::pack(tables, &mut meta, full, &keep)?;
                return Ok(true);
            }
            Ok(false)
        })
    }

    /// Packs the oldest generation although no collection decided about it, but for jobs that the leader deleted: what
    /// is packed can no longer be left out. Returns whether there may be more to do.
    async fn pack_under_pressure(
        &self,
        objects: &impl Objects,
        meta: &StoreMeta,
    ) -> StoreResult<bool> {
        if !pack::is_under_pressure(meta, &self.limits) {
            return Ok(false);
        }
        for full in pack::full_generations(meta).into_iter().take(GENERATIONS_MAX) {
            let jobs = self.transaction(|tables, _| {
                Ok(pack::undecided(tables, full.table)?.1.into_iter().collect::<Vec<_>>())
            })?;
            let ask = LedgerRequest::Released(jobs.clone());
            let answer = objects.ledger(&meta.placement.task_id, ask).await;
            let Ok(LedgerResponse::Released(released)) = answer else {
                return Ok(false);
            };
            let packed = self.transaction(|tables, _| {
                let Some(mut meta) = tables.meta()? else { return Ok(false) };
                if !pack::full_generations(&meta).contains(&full) {
                    return Ok(true);
                }
                let Fates { rows, staying: mut keep } = pack::fates(tables, &meta, full.table)?;
                keep.extend(released);
                // A leader that deletes what it has finished: nothing would be won by moving its jobs.
                if keep.len() * 2 > rows {
                    return Ok(false);
                }
                pack::pack(tables, &mut meta, full, &keep)?;
                Ok(true)
            })?;
            if packed {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn forget(
        &self,
        objects: &impl Objects,
        meta: &StoreMeta,
        now: Time,
    ) -> StoreResult<Forgotten> {
        let counted = self.transaction(|tables, live| {
            let Some(mut meta) = tables.meta()? else { return Ok(None) };
            if meta.frozen.is_some() {
                return Ok(None);
            }
            let mut uncollected = 0;
            let mut number = 0;
            for epoch in &meta.epochs {
                uncollected += pack::uncollected(tables, epoch)?;
                number = epoch.number;
                if !forgets_at_once(&meta.store) {
                    break;
                }
            }
            if forgets_at_once(&meta.store) && !meta.closing {
                meta.closing = true;
                tables.put_meta(&meta)?;
            }
            // A store of the whole task counts on when an epoch of it has ended.
            let totals = if forgets_at_once(&meta.store) {
                totals::of_all_jobs(tables, live, &meta)?
            } else {
                Totals::default()
            };
            Ok(Some((number, uncollected, Box::new(totals))))
        })?;
        let Some((epoch, uncollected, totals)) = counted else {
            return Ok(Forgotten::NotYet);
        };
        // The ledger first: what is lost is to be known, even if this is cut off and done again.
        let (placement, store) = (meta.placement, meta.store);
        let tell = LedgerRequest::Expired { placement, store, epoch, uncollected, totals };
        if objects.ledger(&meta.placement.task_id, tell).await != Ok(LedgerResponse::Done) {
            return Ok(Forgotten::NotYet);
        }
        if forgets_at_once(&meta.store) {
            return Ok(Forgotten::All);
        }
        self.transaction(|tables, live| {
            let Some(mut meta) = tables.meta()? else { return Ok(Forgotten::NotYet) };
            if meta.frozen.is_some() {
                return Ok(Forgotten::NotYet);
            }
            pack::forget(tables, live, &mut meta, epoch)?;
            // Its reports are too old, and what arrived of them was forgotten with its epoch.
            let oldest = meta.placement.epoch_deadline(meta.placement.epoch(now));
            let lifetime = oldest.as_seconds().saturating_sub(now.as_seconds()).saturating_mul(2);
            tables.forget_sealed_before(now.saturating_sub(Duration::from_seconds(lifetime)))?;
            Ok(Forgotten::Epoch)
        })
    }
}

enum Forgotten {
    /// Everything: the host erases the store.
    All,
    /// One epoch.
    Epoch,
    /// Something was in the way.
    NotYet,
}
