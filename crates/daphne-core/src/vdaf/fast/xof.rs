//! `XofTurboShake128` of VDAF-08 §6.2.1 and VDAF-18 §6.2.1.
//!
//! What goes in and what comes out are mostly field elements, which are whole words like the sponge's lanes: they move by
//! words. Which of the random words are no elements depends on nothing but them, and they are as random as those that are: to
//! skip them tells nothing of the others (VDAF-18 §6.2).

use super::{
    field::Field,
    keccak::{LANES, permute},
};
use crate::version::VdafDraft;

/// Lanes that are written and read between permutations: 168 bytes.
const RATE: usize = 21;
const RATE_BYTES: usize = 8 * RATE;
/// The domain separation byte "D".
const DOMAIN: u64 = 1;

/// What an XOF is used for, the last part of its domain separation tag. VDAF-08 §7.2, VDAF-18 §7.2.
#[derive(Clone, Copy)]
pub(super) enum Usage {
    MeasurementShare = 1,
    ProofShare = 2,
    JointRandomness = 3,
    QueryRandomness = 5,
    JointRandSeed = 6,
    JointRandPart = 7,
}

/// Whose XOFs these are: the draft and the algorithm.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin {
    pub(super) draft: VdafDraft,
    pub(super) algorithm: u32,
}

/// An XOF that takes in its binder. Secret where the seed or the binder is.
#[derive(Clone)]
pub(super) struct Xof {
    state: [u64; LANES],
    /// Bytes written into the current block, below [`RATE_BYTES`].
    at: usize,
}

impl Xof {
    /// Begins with the domain separation tag and the seed. `ctx` is the application's context, which VDAF-08 does not have.
    pub(super) fn new(origin: Origin, usage: Usage, ctx: &[u8], seed: &[u8]) -> Self {
        let mut xof = Self { state: [0; LANES], at: 0 };
        let usage = usage as u8;
        let [i0, i1, i2, i3] = origin.algorithm.to_be_bytes();
        match origin.draft {
            VdafDraft::V08 => {
                xof.update(&[8, 8, 0, i0, i1, i2, i3, 0, usage]);
                xof.update(seed);
            }
            VdafDraft::V18 => {
                // A context is a version's name and a task id; a seed has 32 bytes.
                let [low, high, ..] = (8 + ctx.len()).to_le_bytes();
                xof.update(&[low, high, 18, 0, i0, i1, i2, i3, 0, usage]);
                xof.update(ctx);
                xof.update(&[seed.len() as u8]);
                xof.update(seed);
            }
        }
        xof
    }

    /// Takes in bytes of the binder.
    pub(super) fn update(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks();
        self.words(|sponge| words.iter().for_each(|word| sponge.word(u64::from_le_bytes(*word))));
        for byte in rest {
            self.state[self.at / 8] ^= u64::from(*byte) << (self.at % 8 * 8);
            self.at += 1;
            if self.at == RATE_BYTES {
                permute(&mut self.state);
                self.at = 0;
            }
        }
    }

    /// Takes in encoded elements.
    pub(super) fn elements<F: Field>(&mut self, elements: &[F]) {
        self.words(|sponge| {
            for element in elements {
                element.for_each_word(|word| sponge.word(word));
            }
        });
    }

    /// Takes in words.
    #[inline(always)]
    fn words(&mut self, give: impl FnOnce(&mut Absorbing<'_>)) {
        let (lane, shift) = (self.at / 8, self.at % 8 * 8);
        let mut absorbing = Absorbing { state: &mut self.state, lane, shift, rest: 0 };
        give(&mut absorbing);
        let Absorbing { lane, rest, .. } = absorbing;
        self.state[lane] ^= rest;
        self.at = lane * 8 + shift / 8;
    }

    /// Begins to put out.
    pub(super) fn stream(mut self) -> Stream {
        self.state[self.at / 8] ^= DOMAIN << (self.at % 8 * 8);
        self.state[RATE - 1] ^= 1 << 63;
        permute(&mut self.state);
        Stream { state: self.state, lane: 0 }
    }

    /// Puts out bytes, whole words of them.
    pub(super) fn seed<const S: usize>(self) -> [u8; S] {
        const { assert!(S.is_multiple_of(8)) };
        let mut stream = self.stream();
        let mut seed = [0; S];
        for word in seed.as_chunks_mut().0 {
            *word = stream.word().to_le_bytes();
        }
        seed
    }
}

/// The sponge of an XOF while it absorbs words.
struct Absorbing<'a> {
    state: &'a mut [u64; LANES],
    /// The lane that comes next.
    lane: usize,
    /// Bits of it that are taken: words begin in one lane and end in the next.
    shift: usize,
    /// What of the last word belongs to this lane.
    rest: u64,
}

impl Absorbing<'_> {
    #[inline(always)]
    fn word(&mut self, word: u64) {
        self.state[self.lane] ^= word << self.shift | self.rest;
        // By 64 bits where there is no shift.
        self.rest = word >> 1 >> (63 - self.shift);
        self.lane += 1;
        if self.lane == RATE {
            permute(self.state);
            self.lane = 0;
        }
    }
}

/// What an XOF puts out.
pub(super) struct Stream {
    state: [u64; LANES],
    /// The lane that comes next.
    lane: usize,
}

impl Stream {
    #[inline(always)]
    fn word(&mut self) -> u64 {
        if self.lane == RATE {
            permute(&mut self.state);
            self.lane = 0;
        }
        let word = self.state[self.lane];
        self.lane += 1;
        word
    }

    /// The next elements. Words that are none are skipped.
    pub(super) fn elements<F: Field>(mut self, count: usize) -> Vec<F> {
        sample(|| self.word(), count)
    }
}

/// Elements from random words.
#[inline(always)]
pub(super) fn sample<F: Field>(mut words: impl FnMut() -> u64, count: usize) -> Vec<F> {
    let mut elements = Vec::with_capacity(count);
    while elements.len() < count {
        elements.extend(F::from_words(&mut words));
    }
    elements
}
