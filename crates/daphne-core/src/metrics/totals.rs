//! Sums of outcomes, and the reasons that were seen last.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Failure;
use crate::{error::AbortKind, time::Time};

/// Distinct reasons that are remembered: the latest ones.
pub const REASONS_MAX: usize = 16;
/// Of these, those of one kind: whoever makes up numbers has no other reason forgotten.
const REASONS_OF_A_KIND_MAX: usize = 3;
/// Failures of one job that keep their numbers. A leader that makes up more learns only that there were several.
const NUMBERED_MAX: usize = 16;
/// Characters of a refusal's detail that are remembered.
const DETAIL_CHARS_MAX: usize = 200;

/// What became of the reports of one job in one store, or of those that no store was asked about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Reports that were accepted.
    pub accepted: u32,
    /// Reports that were refused, by reason.
    pub failures: Vec<(Failure, u32)>,
}

impl Tally {
    /// Whether it counts nothing.
    pub fn is_empty(&self) -> bool {
        self.accepted == 0 && self.failures.is_empty()
    }

    /// One more report was refused.
    pub fn refuse(&mut self, failure: Failure) {
        let known = self.failures.iter().any(|(f, _)| *f == failure);
        let failure = match known || self.failures.len() < NUMBERED_MAX {
            true => failure,
            false => failure.kind(),
        };
        match self.failures.iter_mut().find(|(f, _)| *f == failure) {
            Some((_, n)) => *n = n.saturating_add(1),
            None => self.failures.push((failure, 1)),
        }
    }
}

/// What a leader may ask of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resource {
    /// Aggregation jobs.
    AggregationJobs,
    /// Aggregate shares.
    AggregateShares,
}

impl Resource {
    /// Name in metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::AggregationJobs => "aggregation_jobs",
            Self::AggregateShares => "aggregate_shares",
        }
    }
}

/// A request of a task's leader that was refused as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// What it asked for.
    pub resource: Resource,
    /// The kind of mistake.
    pub kind: AbortKind,
    /// What the leader was told: text of ours.
    pub detail: String,
}

/// Why something was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cause {
    /// A report.
    Report(Failure),
    /// A request.
    Request(Refusal),
}

impl Cause {
    /// What it has in common with others, of which few are remembered.
    fn kind(&self) -> Kind {
        match self {
            Self::Report(failure) => Kind::Report(failure.kind()),
            Self::Request(refusal) => Kind::Request(refusal.resource, refusal.kind),
        }
    }

    /// Whether it is `other` again. The same text with other numbers is: counts grow while a leader asks again and again.
    fn is_again(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Request(a), Self::Request(b)) => {
                self.kind() == other.kind() && is_same_text(&a.detail, &b.detail)
            }
            _ => self == other,
        }
    }

    /// The reason for people.
    pub fn text(&self) -> String {
        match self {
            Self::Report(failure) => failure.text(),
            Self::Request(Refusal { resource, kind, detail }) => {
                let (resource, kind) = (resource.label(), kind.label());
                if detail.is_empty() {
                    format!("{resource}: {kind}")
                } else {
                    format!("{resource}: {kind}: {detail}")
                }
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Report(Failure),
    Request(Resource, AbortKind),
}

/// Whether texts differ in numbers only. Where one was cut depends on its numbers, so what follows in the other is the same.
fn is_same_text(a: &str, b: &str) -> bool {
    let is_cut = |text: &str| text.chars().count() >= DETAIL_CHARS_MAX;
    let mut a_words = a.chars().filter(|c| !c.is_ascii_digit());
    let mut b_words = b.chars().filter(|c| !c.is_ascii_digit());
    loop {
        match (a_words.next(), b_words.next()) {
            (None, None) => return true,
            (None, Some(_)) => return is_cut(a),
            (Some(_), None) => return is_cut(b),
            (Some(a), Some(b)) if a == b => {}
            _ => return false,
        }
    }
}

/// A reason, and when it applied. It is forgotten when [`REASONS_MAX`] others applied since, or a few of its kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// The reason, with the numbers that it had last.
    pub cause: Cause,
    /// When it first applied since it was last forgotten.
    pub first: Time,
    /// When it last applied.
    pub last: Time,
    /// To how many reports or requests since `first`.
    pub count: u64,
}

/// What became of reports and requests. Only ever grows, but for the reasons.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Reports that were accepted.
    pub accepted: u64,
    /// Reports that were refused, by [`Failure::kind`].
    #[serde(with = "pairs")]
    pub failures: BTreeMap<Failure, u64>,
    /// Requests that were refused.
    #[serde(with = "pairs")]
    pub refusals: BTreeMap<(Resource, AbortKind), u64>,
    /// The reasons seen last, the latest first.
    pub reasons: Vec<Reason>,
    /// When the last job was recorded.
    pub last_job: Option<Time>,
}

/// A map as a list of pairs: JSON has no keys like these.
mod pairs {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<K: Serialize, S: Serializer>(
        map: &BTreeMap<K, u64>,
        s: S,
    ) -> Result<S::Ok, S::Error> {
        s.collect_seq(map)
    }

    pub fn deserialize<'de, K: Deserialize<'de> + Ord, D: Deserializer<'de>>(
        d: D,
    ) -> Result<BTreeMap<K, u64>, D::Error> {
        Ok(Vec::<(K, u64)>::deserialize(d)?.into_iter().collect())
    }
}

impl Totals {
    /// Adds what became of a job at that time.
    pub fn add(&mut self, tally: &Tally, at: Time) {
        self.accepted += u64::from(tally.accepted);
        for (failure, n) in &tally.failures {
            let count = u64::from(*n);
            *self.failures.entry(failure.kind()).or_default() += count;
            let cause = Cause::Report(*failure);
            self.remember(Reason { cause, first: at, last: at, count });
        }
        self.last_job = self.last_job.max(Some(at));
    }

    /// Adds a refused request.
    pub fn refuse(&mut self, mut refusal: Refusal, at: Time) {
        if let Some((end, _)) = refusal.detail.char_indices().nth(DETAIL_CHARS_MAX) {
            refusal.detail.truncate(end);
        }
        *self.refusals.entry((refusal.resource, refusal.kind)).or_default() += 1;
        self.remember(Reason { cause: Cause::Request(refusal), first: at, last: at, count: 1 });
    }

    /// Adds others.
    pub fn merge(&mut self, other: &Self) {
        self.accepted += other.accepted;
        for (failure, n) in &other.failures {
            *self.failures.entry(*failure).or_default() += n;
        }
        for (refused, n) in &other.refusals {
            *self.refusals.entry(*refused).or_default() += n;
        }
        other.reasons.iter().rev().for_each(|reason| self.remember(reason.clone()));
        self.last_job = self.last_job.max(other.last_job);
    }

    /// Reports that were refused.
    pub fn refused(&self) -> u64 {
        self.failures.values().sum()
    }

    fn remember(&mut self, mut new: Reason) {
        let is_known = |known: &Reason| known.cause.is_again(&new.cause);
        if let Some(at) = self.reasons.iter().position(is_known) {
            let known = self.reasons.remove(at);
            if known.last > new.last {
                new.cause = known.cause;
            }
            new.count += known.count;
            new.first = new.first.min(known.first);
            new.last = new.last.max(known.last);
        }
        // Of those of one second, the one that came last is first.
        self.reasons.insert(0, new);
        self.reasons.sort_by_key(|reason| std::cmp::Reverse(reason.last));
        let mut kinds = Vec::with_capacity(self.reasons.len());
        self.reasons.retain(|reason| {
            let kind = reason.cause.kind();
            kinds.push(kind);
            kinds.iter().filter(|of| **of == kind).count() <= REASONS_OF_A_KIND_MAX
        });
        self.reasons.truncate(REASONS_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: u64) -> Time {
        Time::from_seconds(s)
    }

    fn refused(failures: &[Failure]) -> Tally {
        let mut tally = Tally::default();
        failures.iter().for_each(|f| tally.refuse(*f));
        tally
    }

    #[test]
    fn sums_of_sums_are_sums() {
        let some = Tally { accepted: 3, ..refused(&[Failure::Decryption, Failure::Decryption]) };
        let more = refused(&[Failure::UnknownKey(Some(7)), Failure::UnknownKey(Some(8))]);
        let (mut all, mut other) = (Totals::default(), Totals::default());
        all.add(&some, at(5));
        other.add(&more, at(9));
        other.add(&some, at(2));
        let refusal = Refusal {
            resource: Resource::AggregationJobs,
            kind: AbortKind::Conflict,
            detail: "x".repeat(1_000),
        };
        other.refuse(refusal, at(1));
        all.merge(&other);
        assert_eq!((all.accepted, all.refused()), (6, 6));
        assert_eq!(all.failures[&Failure::UnknownKey(None)], 2);
        assert_eq!(all.refusals[&(Resource::AggregationJobs, AbortKind::Conflict)], 1);
        assert_eq!(all.last_job, Some(at(9)));
        let decryption = all.reasons.iter().find(|r| r.cause == Cause::Report(Failure::Decryption));
        let expected = Reason {
            cause: Cause::Report(Failure::Decryption),
            first: at(2),
            last: at(5),
            count: 4,
        };
        assert_eq!(decryption, Some(&expected));
        assert!(all.reasons.iter().all(|reason| reason.cause.text().len() < 300));
    }

    #[test]
    fn whoever_makes_up_numbers_makes_up_no_memory() {
        let numbers: Vec<_> = (0..10_000).map(|n| Failure::UnknownExtension(Some(n))).collect();
        let tally = refused(&numbers);
        assert!(tally.failures.len() <= NUMBERED_MAX + Failure::ALL.len());
        assert_eq!(tally.failures.iter().map(|(_, n)| n).sum::<u32>(), 10_000);
        let mut totals = Totals::default();
        for n in 0..100 {
            totals.add(&refused(&[Failure::UnknownKey(Some(n))]), at(u64::from(n)));
        }
        assert_eq!((totals.reasons.len(), totals.failures.len()), (REASONS_OF_A_KIND_MAX, 1));
        assert_eq!(totals.reasons[0].cause, Cause::Report(Failure::UnknownKey(Some(99))));
    }

    fn refusal(kind: AbortKind, detail: String) -> Refusal {
        Refusal { resource: Resource::AggregateShares, kind, detail }
    }

    #[test]
    fn a_leader_that_asks_again_and_again_is_one_reason_whatever_the_counts() {
        let mut totals = Totals::default();
        for n in 0..500 {
            let few = format!("the batch has {n} reports, the task asks for at least 1000");
            totals.refuse(refusal(AbortKind::InvalidBatchSize, few), at(n));
            // Too long to be kept whole, and where it is cut depends on the numbers.
            let other = format!("{n} reports {}{n}, {}", "x ".repeat(90), "y".repeat(50));
            totals.refuse(refusal(AbortKind::BatchMismatch, other), at(n));
        }
        assert_eq!(totals.reasons.iter().map(|r| r.count).collect::<Vec<_>>(), [500, 500]);
        assert!(totals.reasons[0].cause.text().contains("499 reports"), "as it was told last");
        assert_eq!((totals.reasons[1].first, totals.reasons[1].last), (at(0), at(499)));
        // What was merged is the same; another text, and the beginning of one, is another reason.
        let mut later = Totals::default();
        later.refuse(refusal(AbortKind::InvalidBatchSize, "the batch has 7 reports".into()), at(1));
        later.merge(&totals);
        assert_eq!(later.reasons.iter().map(|r| r.count).collect::<Vec<_>>(), [500, 500, 1]);
    }

    #[test]
    fn no_kind_of_reason_takes_the_place_of_the_others() {
        let mut totals = Totals::default();
        totals.add(&refused(&[Failure::Decryption, Failure::Proof]), at(1));
        totals.refuse(refusal(AbortKind::Conflict, "other bytes".to_owned()), at(1));
        for n in 0..200_u16 {
            let made_up = [
                Failure::UnknownExtension(Some(n)),
                Failure::DuplicateExtension(Some(n)),
                Failure::UnknownKey(Some(n as u8)),
            ];
            totals.add(&refused(&made_up), at(2 + u64::from(n)));
            let text = "a".repeat(usize::from(n));
            totals.refuse(refusal(AbortKind::InvalidMessage, text), at(2 + u64::from(n)));
        }
        let of = |failure: Failure| {
            let is =
                |r: &&Reason| matches!(r.cause, Cause::Report(f) if f.kind() == failure.kind());
            totals.reasons.iter().filter(is).count()
        };
        assert_eq!(of(Failure::UnknownExtension(None)), REASONS_OF_A_KIND_MAX);
        assert_eq!((of(Failure::Decryption), of(Failure::Proof)), (1, 1));
        assert!(totals.reasons.iter().any(|r| r.cause.text().ends_with("other bytes")));
        assert!(totals.reasons.len() <= REASONS_MAX);
    }
}
