//! The fingerprints of one `AggregateStore` that are not yet in a run: kept in memory, rebuilt from the job rows.

use std::{hash::Hasher, ops::Range};

use sha2::{Digest, Sha256};
use siphasher::sip::SipHasher13;

use crate::{
    batch::BatchBucket,
    ids::{AggregationJobId, ReportId},
};

/// Fingerprints kept apart from the others, so that one insertion does not move the whole megabyte: 32 KiB.
const NEWEST_MAX: usize = 4_096;

/// Longest aggregation parameter that stands for itself.
const NAME_MAX: usize = 64;

/// What a fingerprint is of. A job's id and a report's id may be equal bytes.
const REPORT: u8 = 0;
const JOB: u8 = 1;
/// A report at a level, whatever the rest of the aggregation parameter.
const REPORT_AT: u8 = 2;
/// A report under a parameter and in a batch bucket.
const REPORT_IN: u8 = 3;
/// A report, whatever it was aggregated for.
const REPORT_ANYHOW: u8 = 4;
/// A report whose verification began at a level.
const BEGUN: u8 = 5;
/// A report whose verification began at a level, and what was verified.
const BEGUN_AS: u8 = 6;

/// Fingerprints of the reports and jobs whose rows came after the last flush, 8 bytes each.
///
/// It is a cache: after an eviction it is rebuilt from those rows, in any order. The key is random per object, so
/// that clients, who choose report ids, cannot aim for collisions; it never changes, since [`Runs`] outlive the
/// object in memory.
///
/// [`Runs`]: super::Runs
#[derive(Clone, Debug)]
pub struct Recent {
    key: [u8; 16],
    /// Two sorted parts, the second from `newest` on, in one allocation that is never much above 1 MiB.
    fingerprints: Vec<u64>,
    newest: usize,
}

impl Recent {
    /// So many fingerprints, 1 MiB, are time for a flush. More can be added still, at the cost of memory.
    pub const FULL: usize = 131_072;

    /// Without fingerprints, for an object with this fingerprint key.
    pub fn new(key: [u8; 16]) -> Self {
        Self { key, fingerprints: Vec::new(), newest: 0 }
    }

    /// The fingerprint of a report under an aggregation parameter.
    pub fn fingerprint(&self, param: &[u8], id: &ReportId) -> u64 {
        self.fingerprints(param)(id)
    }

    /// The fingerprints of reports under an aggregation parameter, which is looked at once.
    pub fn fingerprints(&self, param: &[u8]) -> impl Fn(&ReportId) -> u64 + '_ {
        let name = name(param);
        move |id| self.hash(REPORT, id.as_bytes(), &name)
    }

    /// The fingerprint of a report at a level of Poplar1's tree, whatever else its aggregation parameter says.
    pub fn fingerprint_at(&self, level: u16, id: &ReportId) -> u64 {
        self.hash(REPORT_AT, id.as_bytes(), &level.to_be_bytes())
    }

    /// The fingerprints of reports under an aggregation parameter, and in a batch bucket.
    pub fn fingerprints_in(
        &self,
        param: &[u8],
        bucket: &BatchBucket,
    ) -> impl Fn(&ReportId) -> u64 + '_ {
        let name = name_in(param, bucket);
        move |id| self.hash(REPORT_IN, id.as_bytes(), &name)
    }

    /// The fingerprint of a report that was aggregated at some level.
    pub fn fingerprint_anyhow(&self, id: &ReportId) -> u64 {
        self.hash(REPORT_ANYHOW, id.as_bytes(), &[])
    }

    /// The fingerprints of a report whose verification began at a level, or at all: whatever was verified, and for that
    /// alone.
    pub fn fingerprints_begun(
        &self,
        level: Option<u16>,
        id: &ReportId,
        verified: &[u8; 32],
    ) -> (u64, u64) {
        // The digest has one length, so that the two parts cannot be taken for another pair.
        let level = level.map(u16::to_be_bytes);
        let level: &[u8] = level.as_ref().map_or(&[], |level| level);
        let verified = [level, verified].concat();
        (self.hash(BEGUN, id.as_bytes(), level), self.hash(BEGUN_AS, id.as_bytes(), &verified))
    }

    /// The fingerprint of a job.
    pub fn fingerprint_job(&self, job: &AggregationJobId) -> u64 {
        self.hash(JOB, job.as_bytes(), &[])
    }

    /// Adds reports under an aggregation parameter: ids of 16 bytes, back to back.
    pub fn insert_all(&mut self, param: &[u8], ids: &[u8]) {
        self.insert_ids(REPORT, &name(param), ids);
    }

    /// Adds reports at a level: ids of 16 bytes, back to back.
    pub fn insert_all_at(&mut self, level: u16, ids: &[u8]) {
        self.insert_ids(REPORT_AT, &level.to_be_bytes(), ids);
    }

    /// Adds reports under an aggregation parameter and in a batch bucket.
    pub fn insert_all_in(&mut self, param: &[u8], bucket: &BatchBucket, ids: &[u8]) {
        self.insert_ids(REPORT_IN, &name_in(param, bucket), ids);
    }

    /// Adds reports, whatever they were aggregated for.
    pub fn insert_all_anyhow(&mut self, ids: &[u8]) {
        self.insert_ids(REPORT_ANYHOW, &[], ids);
    }

    fn insert_ids(&mut self, domain: u8, of: &[u8], ids: &[u8]) {
        let ids = ids.chunks_exact(ReportId::LEN);
        // A job may have more reports than are worth a second copy of their fingerprints.
        let mut new = Vec::with_capacity(ids.len().min(NEWEST_MAX));
        for id in ids {
            if new.len() == NEWEST_MAX {
                self.insert(&mut new);
                new.clear();
            }
            new.push(self.hash(domain, id, of));
        }
        self.insert(&mut new);
    }

    /// Adds fingerprints, in any order.
    pub fn insert_fingerprints(&mut self, fingerprints: &[u64]) {
        for some in fingerprints.chunks(NEWEST_MAX) {
            self.insert(&mut some.to_vec());
        }
    }

    /// Adds a job.
    pub fn insert_job(&mut self, job: &AggregationJobId) {
        self.insert(&mut [self.fingerprint_job(job)]);
    }

    /// Whether what has this fingerprint may have been added. "No" is certain.
    pub fn contains(&self, fingerprint: u64) -> bool {
        let (older, newest) = self.fingerprints.split_at(self.newest);
        newest.binary_search(&fingerprint).is_ok() || older.binary_search(&fingerprint).is_ok()
    }

    /// Number of fingerprints, repeated ones counted again.
    pub fn len(&self) -> usize {
        self.fingerprints.len()
    }

    /// Whether there is no fingerprint.
    pub fn is_empty(&self) -> bool {
        self.fingerprints.is_empty()
    }

    /// Takes all fingerprints, ascending and each once, for [`Runs::flush`].
    ///
    /// [`Runs::flush`]: super::Runs::flush
    pub fn take_sorted(&mut self) -> Vec<u64> {
        self.age();
        self.newest = 0;
        let mut sorted = std::mem::take(&mut self.fingerprints);
        sorted.dedup();
        sorted
    }

    fn insert(&mut self, new: &mut [u64]) {
        new.sort_unstable();
        self.reserve(new.len());
        merge(&mut self.fingerprints, self.newest, new);
        if self.len() - self.newest > NEWEST_MAX {
            self.age();
        }
    }

    /// Makes one sorted part of the two.
    fn age(&mut self) {
        let newest = self.fingerprints.split_off(self.newest);
        merge(&mut self.fingerprints, 0, &newest);
        self.newest = self.len();
    }

    /// Doubles as a vector does, but stops at what fills it.
    fn reserve(&mut self, additional: usize) {
        let needed = self.len() + additional;
        if needed > self.fingerprints.capacity() {
            let wanted = (2 * self.fingerprints.capacity()).min(Self::FULL).max(needed);
            self.fingerprints.reserve_exact(wanted - self.len());
        }
    }

    fn hash(&self, domain: u8, id: &[u8], param: &[u8]) -> u64 {
        let mut hasher = SipHasher13::new_with_key(&self.key);
        hasher.write_u8(domain);
        hasher.write(id);
        hasher.write(param);
        hasher.finish()
    }
}

/// What stands for an aggregation parameter in fingerprints. A long one would be hashed again for each report.
fn name(param: &[u8]) -> Vec<u8> {
    if param.len() <= NAME_MAX { param.to_vec() } else { Sha256::digest(param).to_vec() }
}

fn name_in(param: &[u8], bucket: &BatchBucket) -> Vec<u8> {
    // All buckets of a task are of one length.
    [bucket.to_key(), name(param)].concat()
}

/// Merges `new`, sorted, into the sorted `all[start..]`, from the back and in place.
fn merge(all: &mut Vec<u64>, start: usize, new: &[u64]) {
    let mut old: Range<usize> = start..all.len();
    all.resize(all.len() + new.len(), 0);
    let mut end = all.len();
    for &fingerprint in new.iter().rev() {
        // What is above it moves up, in one piece.
        let split = start + all[old.clone()].partition_point(|&f| f <= fingerprint);
        end -= old.end - split;
        all.copy_within(split..old.end, end);
        old.end = split;
        end -= 1;
        all[end] = fingerprint;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(range: Range<u128>) -> Vec<u8> {
        range.flat_map(u128::to_be_bytes).collect()
    }

    fn report(n: u128) -> ReportId {
        ReportId::new(n.to_be_bytes())
    }

    #[test]
    fn reports_are_found_under_their_parameter_only() {
        let mut recent = Recent::new([1; 16]);
        for job in 0..20 {
            recent.insert_all(b"", &ids(job * 500..(job + 1) * 500));
        }
        assert_eq!(recent.len(), 10_000);
        for id in (0..10_000).map(report) {
            assert!(recent.contains(recent.fingerprint(b"", &id)));
            assert!(!recent.contains(recent.fingerprint(b"p", &id)));
        }
        assert!(!recent.contains(recent.fingerprint(b"", &report(10_000))));
    }

    #[test]
    fn long_parameters_are_told_apart() {
        let mut recent = Recent::new([1; 16]);
        let (long, other) =
            ([vec![7; 1_000], vec![1]].concat(), [vec![7; 1_000], vec![2]].concat());
        recent.insert_all(&long, &ids(0..3));
        let found = |param: &[u8]| recent.contains(recent.fingerprint(param, &report(2)));
        assert!(found(&long) && !found(&other) && !found(&long[..1_000]));
    }

    #[test]
    fn jobs_and_reports_do_not_meet() {
        let mut recent = Recent::new([1; 16]);
        let job = AggregationJobId::new([7; 16]);
        recent.insert_job(&job);
        assert!(recent.contains(recent.fingerprint_job(&job)));
        assert!(!recent.contains(recent.fingerprint(b"", &ReportId::new([7; 16]))));
    }

    #[test]
    fn what_is_taken_is_sorted_and_without_repeats() {
        let mut recent = Recent::new([2; 16]);
        for size in [1, 0, 5_000, 3, 4_096, 9_000, 2] {
            // Each begins with the ids of those before it.
            recent.insert_all(b"", &ids(0..size));
        }
        let taken = recent.take_sorted();
        assert!(taken.is_sorted_by(|a, b| a < b));
        assert_eq!(taken.len(), 9_000);
        assert!((0..9_000).all(|n| taken.contains(&recent.fingerprint(b"", &report(n)))));
        assert!(recent.is_empty() && !recent.contains(taken[0]));
    }

    #[test]
    fn a_full_one_takes_one_mebibyte() {
        let mut recent = Recent::new([3; 16]);
        let mut n = 0;
        while recent.len() < Recent::FULL {
            recent.insert_all(b"", &ids(n..n + 512));
            n += 512;
        }
        assert_eq!(recent.fingerprints.capacity() * size_of::<u64>(), 1 << 20);
    }
}
