//! The replay index of one `AggregateStore`: which report ids its rows hold, by keyed 64-bit fingerprint.
//!
//! It is a cache: it is rebuilt from the rows after the object was evicted. A hit is not a verdict; it is resolved
//! against the rows. A miss is certain. The key is random per object, so that clients, who choose report ids,
//! cannot aim for collisions.

use std::hash::Hasher;

use siphasher::sip::SipHasher13;

/// Ids younger than this many are kept apart, so that one insertion does not move the whole index.
const RECENT_MAX: usize = 4_096;

/// Fingerprints of all committed report ids of an object, 8 bytes each.
#[derive(Clone, Debug)]
pub struct ReplayIndex {
    key: [u8; 16],
    sorted: Vec<u64>,
    recent: Vec<u64>,
}

impl ReplayIndex {
    /// An empty index for an object with this fingerprint key.
    pub fn new(key: [u8; 16]) -> Self {
        Self { key, sorted: Vec::new(), recent: Vec::new() }
    }

    /// Whether the id may be present under this aggregation parameter.
    pub fn may_contain(&self, param: &[u8], id: &[u8]) -> bool {
        let fp = self.fingerprint(param, id);
        self.recent.binary_search(&fp).is_ok() || self.sorted.binary_search(&fp).is_ok()
    }

    /// Adds ids, 16 bytes each, back to back.
    pub fn insert_all(&mut self, param: &[u8], ids: &[u8]) {
        for id in ids.chunks_exact(16) {
            let fp = self.fingerprint(param, id);
            self.recent.push(fp);
        }
        self.recent.sort_unstable();
        if self.recent.len() > RECENT_MAX {
            self.sorted.append(&mut self.recent);
            // Two sorted runs: the stable sort detects and merges them in linear time.
            self.sorted.sort();
        }
    }

    /// Number of ids held.
    pub fn len(&self) -> usize {
        self.sorted.len() + self.recent.len()
    }

    /// Whether no id is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn fingerprint(&self, param: &[u8], id: &[u8]) -> u64 {
        let mut hasher = SipHasher13::new_with_key(&self.key);
        hasher.write(id);
        hasher.write(param);
        hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_found_across_both_runs_and_only_under_their_parameter() {
        let mut index = ReplayIndex::new([1; 16]);
        let ids: Vec<u8> = (0..10_000u128).flat_map(u128::to_be_bytes).collect();
        for job in ids.chunks(500 * 16) {
            index.insert_all(b"", job);
        }
        assert_eq!(index.len(), 10_000);
        for id in ids.chunks_exact(16) {
            assert!(index.may_contain(b"", id));
            assert!(!index.may_contain(b"p", id));
        }
        assert!(!index.may_contain(b"", &10_001u128.to_be_bytes()));
    }
}
