//! Binding reports of VDAFs of several rounds to what is verified of them, before the helper says anything about them.
//!
//! Poplar1 is private only if a report is verified with one aggregation parameter at each level (VDAF-08 §8.2.5, VDAF-18
//! §8.2.5): whoever has the helper's first messages for two of them can compare. That a report counts once comes too late.
//! So its verification is bound to its input when it begins, and what began never begins otherwise, whether or not it goes on.
//!
//! A binding is two fingerprints in the replay index: of the report, and of the report with what is verified. The first
//! without the second is another input. Both are keyed, and the verdict rests on them: a report is refused for nothing,
//! or begun a second time, once in some 2^40 tries against an object of ten million fingerprints, and nobody can aim.

use std::collections::BTreeMap;

use super::{
    AggregateTables, Limits, Live, Response, StoreMeta, StoreResult,
    commit::{epoch, open},
    pack,
};
use crate::{ids::ReportId, store::message::Begin, time::Time};

/// Binds those reports that are new, in one row. Returns also whether a generation became full, so that there is something
/// to do in the background.
pub(super) fn begin_reports<T: AggregateTables>(
    tables: &mut T,
    live: &mut Option<Live>,
    meta: &mut StoreMeta,
    begin: &Begin,
    now: Time,
    limits: &Limits,
) -> StoreResult<(Response, bool)> {
    let not_now = |response| Ok((response, false));
    if !meta.open && begin.open.is_none() {
        return not_now(Response::NotOpen);
    }
    let live_now = pack::load(tables, live, meta)?;
    let reports: Vec<(ReportId, (u64, u64))> = begin
        .reports
        .iter()
        .map(|(id, verified)| (*id, live_now.recent.fingerprints_begun(begin.level, id, verified)))
        .collect();
    let mut asked: Vec<u64> =
        reports.iter().flat_map(|(_, (begun, as_it))| [*begun, *as_it]).collect();
    asked.sort_unstable();
    let held = pack::present(tables, live_now, meta, &asked)?;
    let is_held = |fingerprint: &u64| held.binary_search(fingerprint).is_ok();
    let mut new: BTreeMap<u64, u64> = BTreeMap::new();
    let mut refused = Vec::new();
    for (id, (begun, as_it)) in reports {
        let is_the_same = match new.get(&begun) {
            Some(first) => *first == as_it,
            None if is_held(&begun) => is_held(&as_it),
            None => {
                new.insert(begun, as_it);
                true
            }
        };
        if !is_the_same {
            refused.push(id);
        }
    }
    // A repeat writes nothing.
    if new.is_empty() {
        return not_now(Response::Begun(refused));
    }
    if meta.closing {
        return not_now(Response::Expired);
    }
    let mut must_write = open(tables, meta, begin.open.as_deref())?;
    must_write |= pack::begin_generation(tables, live, meta, epoch(meta, now))?;
    let live = pack::load(tables, live, meta)?;
    let fingerprints: Vec<u64> =
        new.into_iter().flat_map(|(begun, as_it)| [begun, as_it]).collect();
    tables.insert_begun(pack::newest(meta)?, live.begun_rows, &fingerprints)?;
    live.add_begun(&fingerprints);
    let full = pack::end_write(tables, live, meta, limits, must_write)?;
    Ok((Response::Begun(refused), full))
}
