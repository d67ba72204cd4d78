//! The collector's search for heavy hitters with Poplar1: which strings do at least so many clients have? VDAF-08 §8.
//!
//! A batch is asked about all short prefixes first. Those that are rare are left behind, with all that begin with them;
//! the others are asked about again, some bits longer, until the strings are whole. Each question is an aggregation
//! parameter of its own, so a search over `n` bits takes `n / stride` of a batch's queries, rounded up.

use std::num::NonZeroU64;

use crate::vdaf::{AggregateResult, AggregationParam, BitString, PrefixesError, Vdaf, VdafConfig};

/// Bits by which prefixes may grow from one question to the next, at most. Each doubles the questions' length.
pub const STRIDE_MAX: u16 = 8;

/// A search cannot begin or go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeavyHittersError {
    /// The VDAF counts no prefixes. The fault of whoever configures the task.
    #[error("only Poplar1 finds heavy hitters")]
    Vdaf,
    /// The fault of whoever chose the stride.
    #[error("prefixes must grow by between 1 and {STRIDE_MAX} bits at a time")]
    Stride,
    /// The answer has another number of counts than the question has prefixes: it belongs to another one.
    #[error("the result is not one for the prefixes in question")]
    Result,
    /// More prefixes are frequent than one parameter may ask about, with all that they may grow to: the threshold is
    /// too low, or the stride too long.
    #[error("too many prefixes reach the threshold: {0}")]
    TooMany(PrefixesError),
}

/// A string and how many measurements it was.
pub type HeavyHitter = (BitString, u128);

/// A search, waiting for an answer.
#[derive(Clone, Debug)]
pub struct HeavyHitters {
    vdaf: Vdaf,
    threshold: NonZeroU64,
    stride: u16,
    question: AggregationParam,
}

/// Where an answer leads.
#[derive(Clone, Debug)]
pub enum Progress {
    /// To the next question.
    Next(Box<HeavyHitters>),
    /// To the strings that reach the threshold, in order.
    Done(Vec<HeavyHitter>),
}

impl HeavyHitters {
    /// Begins a search for the strings of at least `threshold` measurements. Prefixes grow by `stride` bits with each
    /// question, in `1..=8`: the longer, the fewer questions there are, and the more prefixes in each.
    ///
    /// # Errors
    /// [`HeavyHittersError::Vdaf`], [`HeavyHittersError::Stride`].
    pub fn new(vdaf: &Vdaf, threshold: NonZeroU64, stride: u16) -> Result<Self, HeavyHittersError> {
        if !(1..=STRIDE_MAX).contains(&stride) {
            return Err(HeavyHittersError::Stride);
        }
        let VdafConfig::Poplar1 { bits } = *vdaf.config() else {
            return Err(HeavyHittersError::Vdaf);
        };
        let question = grown(vdaf, bits, stride, &[BitString::default()])?;
        Ok(Self { vdaf: vdaf.clone(), threshold, stride, question })
    }

    /// What the batch is to be asked next.
    pub fn question(&self) -> &AggregationParam {
        &self.question
    }

    /// Goes on with the answer to [`HeavyHitters::question`].
    ///
    /// # Errors
    /// [`HeavyHittersError::Result`], [`HeavyHittersError::TooMany`].
    pub fn answer(self, result: &AggregateResult) -> Result<Progress, HeavyHittersError> {
        let prefixes = self.question.prefixes();
        let counts = match result {
            AggregateResult::Vector(counts) if counts.len() == prefixes.len() => counts,
            _ => return Err(HeavyHittersError::Result),
        };
        let threshold = u128::from(self.threshold.get());
        let frequent = prefixes.into_iter().zip(counts.iter().copied());
        let frequent: Vec<HeavyHitter> = frequent.filter(|(_, n)| *n >= threshold).collect();
        let VdafConfig::Poplar1 { bits } = *self.vdaf.config() else {
            return Err(HeavyHittersError::Vdaf);
        };
        if frequent.is_empty() || self.question.level() == bits.checked_sub(1) {
            return Ok(Progress::Done(frequent));
        }
        let prefixes: Vec<BitString> = frequent.into_iter().map(|(prefix, _)| prefix).collect();
        let question = grown(&self.vdaf, bits, self.stride, &prefixes)?;
        Ok(Progress::Next(Box::new(Self { question, ..self })))
    }
}

/// All strings that are `stride` bits longer than one of the prefixes, or as long as a measurement.
fn grown(
    vdaf: &Vdaf,
    bits: u16,
    stride: u16,
    prefixes: &[BitString],
) -> Result<AggregationParam, HeavyHittersError> {
    let len = prefixes.first().map_or(0, BitString::len);
    let more = usize::from(stride).min(usize::from(bits).saturating_sub(len));
    let longer: Vec<BitString> = prefixes
        .iter()
        .flat_map(|prefix| {
            (0..1_u32 << more).map(move |suffix| {
                let suffix = (0..more).rev().map(move |bit| suffix >> bit & 1 == 1);
                prefix.iter().chain(suffix).collect()
            })
        })
        .collect();
    vdaf.prefixes(&longer).map_err(HeavyHittersError::TooMany)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::{
        vdaf::{Measurement, PREFIXES_MAX},
        version::VdafDraft,
    };

    fn poplar1(draft: VdafDraft, bits: u16) -> Vdaf {
        Vdaf::new(draft, VdafConfig::Poplar1 { bits }).unwrap()
    }

    fn number(bits: u16, n: u64) -> BitString {
        (0..bits).rev().map(|bit| n >> bit & 1 == 1).collect()
    }

    /// Asks in the clear; the questions' prefixes, and the strings found.
    fn search(
        vdaf: &Vdaf,
        threshold: u64,
        stride: u16,
        measurements: &[Measurement],
    ) -> (Vec<AggregationParam>, Vec<HeavyHitter>) {
        let threshold = NonZeroU64::new(threshold).unwrap();
        let mut search = HeavyHitters::new(vdaf, threshold, stride).unwrap();
        let mut asked = Vec::new();
        loop {
            let question = search.question().clone();
            assert!(vdaf.is_valid_agg_param(&question, &asked), "in whatever draft");
            let answer = vdaf.truth(&question, measurements.iter()).unwrap();
            asked.push(question);
            match search.answer(&answer).unwrap() {
                Progress::Next(next) => search = *next,
                Progress::Done(found) => return (asked, found),
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_found_is_what_is_frequent(
            bits in 1..24_u16,
            stride in 1..=8_u16,
            threshold in 1..12_u64,
            // With the longest strides, more of them could be more than can be asked about at once.
            numbers in proptest::collection::vec((any::<u64>(), 1..12_u64), 0..=PREFIXES_MAX >> 8),
            draft in prop_oneof![Just(VdafDraft::V08), Just(VdafDraft::V18)],
        ) {
            let vdaf = poplar1(draft, bits);
            let mut counts: BTreeMap<BitString, u64> = BTreeMap::new();
            for (n, count) in &numbers {
                *counts.entry(number(bits, *n)).or_default() += count;
            }
            let measurements: Vec<Measurement> = counts
                .iter()
                .flat_map(|(string, n)| (0..*n).map(|_| Measurement::Poplar1(string.clone())))
                .collect();
            let (asked, found) = search(&vdaf, threshold, stride, &measurements);
            let expected: Vec<HeavyHitter> = counts
                .into_iter()
                .filter(|(_, n)| *n >= threshold)
                .map(|(string, n)| (string, n.into()))
                .collect();
            if !expected.is_empty() {
                prop_assert_eq!(asked.len(), usize::from(bits.div_ceil(stride)));
            }
            prop_assert!(asked.len() <= usize::from(bits.div_ceil(stride)));
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn questions_follow_what_is_frequent_only() {
        let vdaf = poplar1(VdafDraft::V08, 3);
        let strings = [("000", 2), ("011", 1), ("110", 3), ("111", 2)];
        let measurements: Vec<Measurement> = strings
            .iter()
            .flat_map(|(s, n)| (0..*n).map(|_| Measurement::Poplar1(s.parse().unwrap())))
            .collect();
        let (asked, found) = search(&vdaf, 3, 1, &measurements);
        let texts = |param: &AggregationParam| format!("{:?}", param.prefixes());
        assert_eq!(
            asked.iter().map(texts).collect::<Vec<_>>(),
            ["[0, 1]", "[00, 01, 10, 11]", "[110, 111]"]
        );
        assert_eq!(found, [("110".parse().unwrap(), 3)]);
        let (asked, found) = search(&vdaf, 9, 2, &measurements);
        assert_eq!((texts(&asked[0]), asked.len()), ("[00, 01, 10, 11]".to_owned(), 1));
        assert_eq!(found, []);
    }

    #[test]
    fn a_search_that_cannot_go_on_says_why() {
        let two = NonZeroU64::new(2).unwrap();
        let vdaf = poplar1(VdafDraft::V08, 16);
        for stride in [0, 9, u16::MAX] {
            let error = HeavyHitters::new(&vdaf, two, stride).unwrap_err();
            assert_eq!(error, HeavyHittersError::Stride);
        }
        let count = Vdaf::new(VdafDraft::V08, VdafConfig::Prio3Count).unwrap();
        assert_eq!(HeavyHitters::new(&count, two, 1).unwrap_err(), HeavyHittersError::Vdaf);
        let search = HeavyHitters::new(&vdaf, two, 1).unwrap();
        for wrong in [
            AggregateResult::Number(2),
            AggregateResult::Vector(vec![]),
            AggregateResult::Vector(vec![1]),
            AggregateResult::Vector(vec![1, 2, 3]),
        ] {
            assert_eq!(search.clone().answer(&wrong).unwrap_err(), HeavyHittersError::Result);
        }
        // Everything is frequent.
        let mut search = HeavyHitters::new(&vdaf, two, 4).unwrap();
        let error = loop {
            let n = search.question().prefix_count();
            match search.answer(&AggregateResult::Vector(vec![2; n])) {
                Ok(Progress::Next(next)) => search = *next,
                Ok(Progress::Done(_)) => panic!("65,536 strings are found"),
                Err(error) => break (n, error),
            }
        };
        assert_eq!(error.0, PREFIXES_MAX);
        assert!(matches!(error.1, HeavyHittersError::TooMany(_)), "{}", error.1);
    }
}
