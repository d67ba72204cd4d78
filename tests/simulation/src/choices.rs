//! Where the decisions of a schedule come from: a seed, or a list of decisions made before.
//!
//! Every decision is a number below some `n`, and 0 is always the plainest: deliver the oldest message, without a
//! fault. A list that ends too early goes on with zeros, so that making a schedule simpler is making numbers zero.

use daphne_core::testing::faulty::Random;

/// A source of decisions that remembers those it made.
#[derive(Debug)]
pub struct Choices {
    source: Source,
    made: Vec<u32>,
}

#[derive(Debug)]
enum Source {
    Seeded(Random),
    Scripted(Vec<u32>),
}

impl Choices {
    /// Decisions that a seed names.
    pub fn seeded(seed: u64) -> Self {
        Self { source: Source::Seeded(Random::new(seed)), made: Vec::new() }
    }

    /// These decisions, then zeros.
    pub fn scripted(script: Vec<u32>) -> Self {
        Self { source: Source::Scripted(script), made: Vec::new() }
    }

    /// A number below `n`; 0 if there is nothing to choose from.
    pub fn below(&mut self, n: usize) -> usize {
        if n < 2 {
            return 0;
        }
        let choice = match &mut self.source {
            Source::Seeded(random) => random.below(n as u64) as usize,
            Source::Scripted(script) => script.get(self.made.len()).map_or(0, |c| *c as usize % n),
        };
        self.made.push(choice as u32);
        choice
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == n - 1
    }

    /// The decisions made so far.
    pub fn into_made(self) -> Vec<u32> {
        self.made
    }
}
