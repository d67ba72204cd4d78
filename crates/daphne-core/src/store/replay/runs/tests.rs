use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::testing::runs::MemoryRuns;

/// What a store's database holds: the tables, and in its meta row the runs and the next id.
#[derive(Clone)]
struct Store<const PART_MAX: u64> {
    tables: MemoryRuns<PART_MAX>,
    meta: Vec<u8>,
}

impl<const PART_MAX: u64> Store<PART_MAX> {
    fn new() -> Self {
        Self { tables: MemoryRuns::default(), meta: pack(&Runs::default(), 0) }
    }

    fn runs(&self) -> (Runs, u32) {
        postcard::from_bytes(&self.meta).unwrap()
    }

    fn flush(&mut self, sorted: &[u64]) {
        let (mut runs, mut next_id) = self.runs();
        runs.flush(&mut self.tables, &mut next_id, sorted).unwrap();
        self.meta = pack(&runs, next_id);
    }

    /// A step by an object that remembers nothing of those before.
    fn step(&mut self) -> MergeStep {
        let (mut runs, mut next_id) = self.runs();
        let before = self.tables.rows_written;
        let step = runs.merge_step(&mut self.tables, &mut next_id).unwrap();
        assert!(self.tables.rows_written - before <= u64::from(STEP_PARTS));
        match step {
            MergeStep::Finished => self.meta = pack(&runs, next_id),
            MergeStep::Idle | MergeStep::Progress => assert_eq!(self.meta, pack(&runs, next_id)),
        }
        step
    }

    fn merge(&mut self) {
        while self.step() != MergeStep::Idle {}
    }

    /// The tables are those of the runs and of what a merge writes, and no others; parts are where they belong.
    fn check(&self) {
        let runs = self.runs().0;
        let mut tables: BTreeSet<u32> = runs.runs.iter().map(|run| run.id).collect();
        tables.extend(runs.merge.as_ref().map(|merge| merge.into.id));
        assert_eq!(self.tables.tables, tables);
        for run in &runs.runs {
            for ((_, part), fingerprints) in
                self.tables.parts.range((run.id, 0)..=(run.id, u32::MAX))
            {
                assert!(fingerprints.is_sorted_by(|a, b| a < b));
                assert!(fingerprints.iter().all(|f| run.part_of(*f) == *part));
            }
        }
    }

    /// All fingerprints that the runs hold.
    fn contents(&self) -> BTreeSet<u64> {
        let ids: Vec<u32> = self.runs().0.runs.iter().map(|run| run.id).collect();
        let parts = self.tables.parts.iter().filter(|((run, _), _)| ids.contains(run));
        parts.flat_map(|(_, fingerprints)| fingerprints.iter().copied()).collect()
    }
}

fn pack(runs: &Runs, next_id: u32) -> Vec<u8> {
    postcard::to_allocvec(&(runs, next_id)).unwrap()
}

/// Fingerprints number `range` of a sequence that never repeats.
fn fingerprints(range: std::ops::Range<u64>) -> BTreeSet<u64> {
    // The finaliser of SplitMix64, a permutation.
    let mix = |n: u64| {
        let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        n ^ (n >> 31)
    };
    range.map(|n| mix(n.wrapping_mul(0x9e37_79b9_7f4a_7c15))).collect()
}

fn sorted(set: &BTreeSet<u64>) -> Vec<u64> {
    set.iter().copied().collect()
}

#[derive(Clone, Debug)]
enum Op {
    /// Fingerprints `first..first + size` of the sequence, so that flushes overlap.
    Flush { first: u64, size: u64 },
    /// Steps, the last of which may be lost: what it wrote is rolled back.
    Steps { count: u8, lost: bool },
    /// All that is due.
    Merge,
}

fn op() -> impl Strategy<Value = Op> {
    let size = prop_oneof![1 => Just(0), 1 => 1..20_u64, 3 => 0..500_u64];
    prop_oneof![
        4 => (0..5_000_u64, size).prop_map(|(first, size)| Op::Flush { first, size }),
        4 => (1..6_u8, any::<bool>()).prop_map(|(count, lost)| Op::Steps { count, lost }),
        1 => Just(Op::Merge),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn runs_hold_what_was_flushed_whatever_is_merged_or_lost(ops in proptest::collection::vec(op(), 1..60)) {
        let (mut store, mut model) = (Store::<8>::new(), BTreeSet::new());
        for op in ops {
            match op {
                Op::Flush { first, size } => {
                    let new = fingerprints(first..first + size);
                    store.flush(&sorted(&new));
                    model.extend(new);
                }
                Op::Steps { count, lost } => {
                    for _ in 1..count {
                        store.step();
                    }
                    let before = store.clone();
                    store.step();
                    if lost {
                        store = before;
                    }
                }
                Op::Merge => store.merge(),
            }
            store.check();
            prop_assert_eq!(&store.contents(), &model);
        }
        let asked = sorted(&fingerprints(0..6_000));
        let expected: Vec<u64> = asked.iter().copied().filter(|f| model.contains(f)).collect();
        let runs = store.runs().0;
        prop_assert_eq!(runs.present(&mut store.tables, &asked).unwrap(), expected);
        runs.drop_all(&mut store.tables).unwrap();
        prop_assert!(store.tables.tables.is_empty() && store.tables.parts.is_empty());
    }
}

#[test]
fn the_first_and_the_last_fingerprint_have_a_part_in_every_run() {
    for bits in [0, 1, 16, 31] {
        let run = Run { id: 0, bits, count: 0 };
        assert_eq!((run.part_of(0), run.part_of(u64::MAX)), (0, run.parts() - 1));
        assert_eq!((run.first_of(0), run.last_of(run.parts() - 1)), (0, u64::MAX));
    }
}

#[test]
fn parts_are_filled_to_more_than_half() {
    for (count, bits) in
        [(1, 0), (8_192, 0), (8_193, 1), (131_072, 4), (131_073, 5), (10 << 20, 11)]
    {
        assert_eq!(Run::new(&mut 0, count, 8_192).bits, bits, "{count}");
    }
}

#[test]
fn a_run_of_another_cut_can_be_merged() {
    // As after a change of PART_MAX, in either direction.
    for (before, after) in [(7, 2), (2, 7)] {
        let cut = |id, bits| Run { id, bits, count: 300 };
        let mut tables = MemoryRuns::<8>::default();
        let mut runs = Runs::default();
        for id in [0, 1] {
            let run = cut(id, before);
            tables.create_run(id).unwrap();
            let from = u64::from(id) * 200;
            for part in sorted(&fingerprints(from..from + 300))
                .chunk_by(|a, b| run.part_of(*a) == run.part_of(*b))
            {
                tables.put_part(&run, run.part_of(part[0]), part).unwrap();
            }
            runs.runs.push(run);
        }
        tables.create_run(2).unwrap();
        runs.merge = Some(Merge { into: cut(2, after), from: vec![0, 1] });
        while runs.merge_step(&mut tables, &mut 3).unwrap() != MergeStep::Finished {}
        let expected = sorted(&fingerprints(0..500));
        assert_eq!(runs.present(&mut tables, &sorted(&fingerprints(0..600))).unwrap(), expected);
        assert_eq!(runs.as_slice(), [cut(2, after)]);
    }
}

#[test]
fn merges_that_were_held_up_catch_up() {
    let mut store = Store::<8>::new();
    for n in 0..40 {
        store.flush(&sorted(&fingerprints(n * 50..(n + 1) * 50)));
    }
    assert_eq!(store.runs().0.runs.len(), 40);
    while store.runs().0.merge_is_due() {
        let runs = store.runs().0;
        assert!(runs.merge.is_some_and(|merge| merge.from.len() <= FAN_IN_MAX));
        store.step();
    }
    assert!(store.runs().0.runs.len() <= 3);
    assert_eq!(store.contents(), fingerprints(0..2_000));
}

/// Rows written for runs per 500 fingerprints, and the most and the mean number of runs that a lookup asks, after
/// this many flushes of a full `Recent`.
fn cost(flushes: u64) -> (f64, usize, f64) {
    // All sizes by a 1,024th: which runs are merged, and into how many rows, stays the same.
    let mut store = Store::<8>::new();
    let (mut most, mut asked) = (0, 0);
    for n in 0..flushes {
        store.flush(&sorted(&fingerprints(n * 128..(n + 1) * 128)));
        store.merge();
        let runs = store.runs().0.runs.len();
        (most, asked) = (most.max(runs), asked + runs);
    }
    let jobs = (flushes * 131_072) as f64 / 500.;
    (store.tables.rows_written as f64 / jobs, most, asked as f64 / flushes as f64)
}

#[test]
fn rows_and_runs_stay_few() {
    for (flushes, rows_max, runs_max) in [(8, 0.3, 2), (77, 0.5, 3), (763, 0.85, 5)] {
        let (rows, runs, mean) = cost(flushes);
        println!(
            "{flushes} flushes: {rows:.3} rows per 500, {runs} runs at most, {mean:.2} on average"
        );
        assert!(rows < rows_max && runs <= runs_max, "{flushes}: {rows} rows, {runs} runs");
    }
}
