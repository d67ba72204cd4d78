//! What an aggregation parameter costs. A leader chooses it, so a helper wants to know before it begins.

use super::{AggregationParam, BitString, Vdaf, VdafConfig};

/// Work of a report whatever its parameter says: its shares are decoded.
const PER_REPORT: u64 = 10;
const BITS_PER_UNIT: u64 = 32;
/// Work of a prefix beside its nodes: two fixed-key ciphers are made.
const PER_PREFIX: u64 = 3;
/// Entries of the cache that are compared in the time of one node.
const COMPARISONS_PER_UNIT: u64 = 256;

/// Effort of a report whatever its VDAF: it is opened.
const PER_OPENING: u64 = 150;
/// Shares of Prio3 are expanded, and its proof is queried over them: by measurement in V8, ten elements take one microsecond, or
/// less.
const PER_TEN_ELEMENTS: u64 = 1;
/// The same where `prio` does it, because there are several proofs: natively as long as four to seven nodes of Poplar1.
const PER_TEN_ELEMENTS_OF_SEVERAL_PROOFS: u64 = 6;

impl Vdaf {
    /// What one aggregator computes to begin with one report for this parameter, in units of about two microseconds
    /// of a Worker, each the evaluation of one node in the tree of prefixes. All that comes later costs little.
    ///
    /// 0 for Prio3, where the task decides it and not the parameter.
    pub fn work(&self, agg_param: &AggregationParam) -> u64 {
        let VdafConfig::Poplar1 { bits } = self.config else { return 0 };
        let evaluated = Evaluation::of(&agg_param.prefixes(), agg_param.is_leaf());
        PER_REPORT
            + u64::from(bits) / BITS_PER_UNIT
            + agg_param.prefix_count() as u64 * PER_PREFIX
            + evaluated.nodes
            + evaluated.comparisons / COMPARISONS_PER_UNIT
    }

    /// What one aggregator computes to begin with one report, its opening and the proof of Prio3 included: roughly, in the
    /// units of [`Self::work`]. At least 1.
    pub fn effort(&self, agg_param: &AggregationParam) -> u64 {
        let per_ten = match self.config {
            VdafConfig::Prio3SumVecField64MultiproofHmacSha256Aes128 { .. } => {
                PER_TEN_ELEMENTS_OF_SEVERAL_PROOFS
            }
            _ => PER_TEN_ELEMENTS,
        };
        let verification = match self.config.proven_elements(self.draft()) {
            None => self.work(agg_param),
            Some(elements) => elements * per_ten / 10,
        };
        PER_OPENING + verification
    }
}

/// How `prio` evaluates a sorted list of prefixes of one length. It walks to each of them from its deepest ancestor that
/// it remembers, and remembers as many nodes as there are prefixes, the newest ones, in a list that it searches from end
/// to end: work may grow with the square of the number of prefixes.
#[derive(Debug, Default, PartialEq, Eq)]
struct Evaluation {
    /// Nodes evaluated.
    nodes: u64,
    /// Times the list is searched.
    lookups: u64,
    /// Entries of the list that are compared, at most.
    comparisons: u64,
}

impl Evaluation {
    fn of(prefixes: &[BitString], is_leaf: bool) -> Self {
        let capacity = prefixes.len() as u64;
        let len = prefixes.first().map_or(0, BitString::len);
        // Leaves have no children, so they are not remembered.
        let remembered_len = len - usize::from(is_leaf && len > 0);
        let mut total = Self::default();
        let mut inserted = 0;
        // For each node on the way to the last prefix, how many were inserted by the time it was. The deeper, the later.
        let mut inserted_at = vec![0; len + 1];
        let mut last: Option<&BitString> = None;
        for prefix in prefixes {
            let common = last.map_or(0, |last| last.common_prefix_len(prefix)).min(len - 1);
            let start = match inserted_at[common] {
                at if common > 0 && inserted - at < capacity => common,
                _ => 0,
            };
            // It looks for the parent first, then further up until it finds one, or has tried the first bit.
            let lookups = (len - start).min(len - 1) as u64;
            total.lookups += lookups;
            total.comparisons += lookups * inserted.min(capacity);
            total.nodes += (len - start) as u64;
            for at in &mut inserted_at[start + 1..=remembered_len] {
                inserted += 1;
                *at = inserted;
            }
            last = Some(prefix);
        }
        total
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use bitvec::slice::BitSlice;
    use prio08::{
        field::Field64,
        idpf::{Idpf, IdpfCache, IdpfInput, RingBufferCache},
    };
    use proptest::prelude::*;

    use super::*;
    use crate::version::VdafDraft;

    /// What Poplar1 of `prio` evaluates with, counting.
    struct Counting {
        cache: RingBufferCache,
        entries: u64,
        capacity: u64,
        seen: Cell<Evaluation>,
    }

    impl IdpfCache for Counting {
        fn get(&self, input: &BitSlice) -> Option<([u8; 16], u8)> {
            let mut seen = self.seen.take();
            seen.lookups += 1;
            seen.comparisons += self.entries.min(self.capacity);
            self.seen.set(seen);
            self.cache.get(input)
        }

        fn insert(&mut self, input: &BitSlice, values: &([u8; 16], u8)) {
            self.entries += 1;
            self.seen.get_mut().nodes += 1;
            self.cache.insert(input, values);
        }
    }

    fn by_prio(bits: usize, prefixes: &[BitString]) -> Evaluation {
        let input = |bits: &BitString| IdpfInput::from_bools(&bits.iter().collect::<Vec<_>>());
        let idpf = Idpf::<Field64, Field64>::new((), ());
        let zeros = std::iter::repeat_n(false, bits).collect();
        let inner = std::iter::repeat_n(Field64::from(1), bits - 1);
        let (public_share, [key, _]) =
            idpf.r#gen(&input(&zeros), inner, Field64::from(1), b"").unwrap();
        let mut cache = Counting {
            cache: RingBufferCache::new(prefixes.len()),
            entries: 0,
            capacity: prefixes.len() as u64,
            seen: Cell::default(),
        };
        for prefix in prefixes {
            idpf.eval(0, &public_share, &key, &input(prefix), b"", &mut cache).unwrap();
            // Leaves are evaluated and not remembered.
            cache.seen.get_mut().nodes += u64::from(prefix.len() == bits);
        }
        cache.seen.take()
    }

    proptest! {
        #[test]
        fn evaluations_are_counted_as_they_happen(
            bits in 1..20usize,
            len in 1..20usize,
            prefixes in proptest::collection::btree_set(any::<u32>(), 1..60),
            narrow: bool,
        ) {
            let len = len.min(bits);
            // Prefixes that differ in their last bits have much in common.
            let numbers = prefixes.iter().map(|n| if narrow { n % 64 } else { *n });
            let prefixes: std::collections::BTreeSet<BitString> =
                numbers.map(|n| (0..len).rev().map(|bit| n >> bit & 1 == 1).collect()).collect();
            let prefixes = Vec::from_iter(prefixes);
            prop_assert_eq!(Evaluation::of(&prefixes, len == bits), by_prio(bits, &prefixes));
        }
    }

    #[test]
    fn work_grows_with_the_square_of_the_number_of_prefixes() {
        let vdaf = Vdaf::new(VdafDraft::V08, VdafConfig::Poplar1 { bits: 64 }).unwrap();
        // Neighbours have little in common: all 2^n beginnings of n bits, and ones.
        let work = |len: u32, n: u32| {
            let prefixes: Vec<BitString> = (0..1_u32 << n)
                .map(|i| (0..len).map(|bit| bit >= n || i >> (n - 1 - bit) & 1 == 1).collect())
                .collect();
            vdaf.work(&vdaf.prefixes(&prefixes).unwrap())
        };
        assert_eq!(work(1, 0), 10 + 2 + 3 + 1);
        assert_eq!(work(64, 0), 10 + 2 + 3 + 64);
        let works = [4, 8, 12].map(|n| work(64, n));
        assert_eq!(works, [1_143, 30_475, 3_739_745]);
        let count = Vdaf::new(VdafDraft::V08, VdafConfig::Prio3Count).unwrap();
        assert_eq!(count.work(&count.decode_agg_param(&[]).unwrap()), 0);
    }

    #[test]
    fn effort_grows_with_what_is_proven_and_what_is_asked() {
        let effort = |config: VdafConfig, prefixes: &[&str]| {
            let vdaf = Vdaf::new(VdafDraft::V18, config).unwrap();
            let prefixes: Vec<_> = prefixes.iter().map(|p| p.parse().unwrap()).collect();
            let param = match config {
                VdafConfig::Poplar1 { .. } => vdaf.prefixes(&prefixes).unwrap(),
                _ => vdaf.decode_agg_param(&[]).unwrap(),
            };
            vdaf.effort(&param)
        };
        let (length, max_measurement, chunk_length) = (1_000, 255, 90);
        assert_eq!(effort(VdafConfig::Prio3Count, &[]), 150);
        assert_eq!(effort(VdafConfig::Prio3Sum { max_measurement }, &[]), 154);
        assert_eq!(effort(VdafConfig::Prio3Histogram { length, chunk_length }, &[]), 271);
        // The proof is as long as its chunks are, however short the measurement is.
        let wide = VdafConfig::Prio3Histogram { length: 1, chunk_length: 100_000 };
        assert_eq!(effort(wide, &[]), 20_150);
        let vector = VdafConfig::Prio3SumVec { length, max_measurement, chunk_length };
        assert_eq!(effort(vector, &[]), 993);
        let vector = VdafConfig::Prio3SumVecField64MultiproofHmacSha256Aes128 {
            length,
            max_measurement,
            chunk_length,
            proofs: 2,
        };
        assert_eq!(effort(vector, &[]), 10_273);
        assert_eq!(effort(VdafConfig::Poplar1 { bits: 4 }, &["01", "10"]), 150 + 10 + 6 + 4);
    }
}
