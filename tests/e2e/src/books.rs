//! What the leader counts.

use std::collections::BTreeMap;

use daphne_core::{
    aggregate::leader::LeaderTask,
    batch::{BatchBucket, BatchMode, BucketRange, Checksum},
    message::BatchSelector,
    vdaf::{Measurement, share},
};

use crate::world::World;

/// What the leader holds for one bucket.
#[derive(Clone, Default)]
pub(crate) struct Entry {
    pub(crate) report_count: u64,
    pub(crate) checksum: Checksum,
    pub(crate) share: Vec<u8>,
    pub(crate) measurements: Vec<Measurement>,
}

/// What the leader counts under one aggregation parameter, by bucket.
#[derive(Clone, Default)]
pub struct Books {
    pub(crate) entries: BTreeMap<BatchBucket, Entry>,
    /// The parameter's encoding.
    pub(crate) agg_param: Vec<u8>,
}

impl Books {
    pub(crate) fn within(&self, batch: &BatchSelector, leader: &LeaderTask) -> Entry {
        let mode = match batch {
            BatchSelector::TimeInterval { .. } => BatchMode::TimeInterval,
            BatchSelector::LeaderSelected(_) => BatchMode::LeaderSelected,
        };
        let range = BucketRange::from_selector(batch, mode, leader.time_precision)
            .expect("a batch of the task");
        let mut total = Entry::default();
        let field = leader.vdaf.field().at(&self.agg_param);
        for (_, entry) in self.entries.iter().filter(|(bucket, _)| range.contains(bucket)) {
            total.report_count += entry.report_count;
            total.checksum.merge(&entry.checksum);
            if total.share.is_empty() {
                total.share.clone_from(&entry.share);
            } else {
                share::add_assign(field, &mut total.share, &entry.share)
                    .expect("shares of one length");
            }
            total.measurements.extend(entry.measurements.iter().cloned());
        }
        total
    }

    /// Enters into a bucket what was aggregated in another way, with the leader's share of it.
    pub fn enter(
        &mut self,
        bucket: BatchBucket,
        report_count: u64,
        checksum: Checksum,
        leader_share: &[u8],
        leader: &LeaderTask,
    ) {
        let field = leader.vdaf.field().at(&self.agg_param);
        let entry = self.entries.entry(bucket).or_default();
        entry.report_count += report_count;
        entry.checksum.merge(&checksum);
        if entry.share.is_empty() {
            entry.share = leader_share.to_vec();
        } else {
            share::add_assign(field, &mut entry.share, leader_share).expect("shares of one length");
        }
    }

    /// Count and checksum of a batch.
    pub fn count(&self, batch: &BatchSelector, world: &World) -> (u64, Checksum) {
        let held = self.within(batch, &world.leader);
        (held.report_count, held.checksum)
    }
}
