//! The query of a proof: `FlpBBCGGI19.query`, VDAF-08 §7.3.4 and VDAF-18 §7.3.4.
//!
//! The draft has a circuit run with its gadget replaced, which answers as the proof says and records what it is called with;
//! then polynomials are interpolated through what was recorded, and evaluated at one point. That value is a sum over the calls,
//! each with a factor of its own that all wires share (a Lagrange polynomial at the point), so nothing is recorded here: the
//! measurement goes into the sums as it is, and what its elements are multiplied with, powers of the joint randomness, goes into
//! the factors first.

use super::{
    circuit::{Circuit, Kind},
    field::{Field, dot},
    lagrange::Roots,
};
use crate::version::VdafDraft;

/// The point is one at which the prover chose the value: a query there would tell something of the measurement. It is
/// made from the verification key and the nonce, and that it is such a point will not happen.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RootOfUnity;

/// A circuit, and what its queries have in common.
#[derive(Clone)]
pub(super) struct Queries<F: Field> {
    pub(super) circuit: Circuit<F>,
    /// Where wires have their values.
    roots: Roots<F>,
    proof: ProofForm<F>,
}

/// How a proof gives the gadget's polynomial, which is of degree `2n - 2` for `n` roots.
#[derive(Clone)]
enum ProofForm<F: Field> {
    /// By its coefficients, VDAF-08. With what those below `n`, after those beyond were added to them, make the sum of the values
    /// at all calls.
    Coefficients { sum_of_calls: Vec<F> },
    /// By its values at all roots of order `2n` but the last, VDAF-18.
    Values {
        /// The inverse of the first root of order `2n` but 1.
        turn: F,
        /// What the values make the last one with.
        last: Vec<F>,
    },
}

impl<F: Field> Queries<F> {
    /// `None` for a circuit with more calls than the field has roots of unity.
    pub(super) fn new(circuit: Circuit<F>) -> Option<Self> {
        let log = circuit.roots().trailing_zeros();
        let roots = Roots::new(log)?;
        let proof = match circuit.draft {
            VdafDraft::V08 => {
                let mut sums = vec![F::ZERO; roots.len()];
                sums.iter_mut().skip(1).take(circuit.calls).for_each(|call| *call = F::ONE);
                roots.transform(&mut sums);
                ProofForm::Coefficients { sum_of_calls: sums }
            }
            VdafDraft::V18 => {
                let finer: Roots<F> = Roots::new(log + 1)?;
                // The highest coefficient is the sum of all values times the roots, but for a factor; and it is zero. The
                // inverse of the last root is the second one.
                let minus_inverse = -finer.powers()[1];
                let last = finer.powers().split_last()?.1.iter().map(|root| *root * minus_inverse);
                ProofForm::Values { turn: finer.last(), last: last.collect() }
            }
        };
        Some(Self { circuit, roots, proof })
    }

    /// Elements of a proof.
    pub(super) fn proof_len(&self) -> usize {
        self.circuit.arity + 2 * self.roots.len() - 1
    }

    /// One aggregator's share of the verifier: the circuit's output, the wires and the gadget's polynomial at the point that
    /// the query randomness names. The lengths are those that the circuit says.
    pub(super) fn query(
        &self,
        measurement: &[F],
        proof: &[F],
        query_rand: &[F],
        joint_rand: &[F],
    ) -> Result<Vec<F>, RootOfUnity> {
        let circuit = &self.circuit;
        let (seeds, gadget) = proof.split_at(circuit.arity.min(proof.len()));
        let (at, compress) = query_rand.split_last().map_or((F::ZERO, &[][..]), |(at, c)| (*at, c));
        let (coefficients, power) = self.roots.coefficients(at);
        if power == F::ONE {
            return Err(RootOfUnity);
        }
        let (answers, at_point) =
            self.answers(gadget, &coefficients, at, power, joint_rand, compress);
        // The circuit's output.
        let check = match (circuit.draft, circuit.kind) {
            (_, Kind::Count) => answers - measurement.first().copied().unwrap_or(F::ZERO),
            (_, Kind::Sum | Kind::SumVec { .. }) => answers,
            (VdafDraft::V08, Kind::Histogram { .. } | Kind::Multihot { .. }) => {
                let r = joint_rand.get(1).copied().unwrap_or(F::ZERO);
                r * (answers + r * circuit.sum_check(measurement))
            }
            (VdafDraft::V18, Kind::Histogram { .. } | Kind::Multihot { .. }) => match compress {
                [a, b] => *a * answers + *b * circuit.sum_check(measurement),
                _ => F::ZERO,
            },
        };
        let mut verifier = Vec::with_capacity(circuit.verifier_len());
        verifier.push(check);
        let (first, calls) = match coefficients.split_first() {
            Some((first, rest)) => (*first, rest.get(..circuit.calls).unwrap_or(rest)),
            None => (F::ZERO, &[][..]),
        };
        verifier.extend(seeds.iter().map(|seed| *seed * first));
        let wires = verifier.get_mut(1..).unwrap_or_default();
        match circuit.kind {
            Kind::Count | Kind::Sum => {
                let value = dot(calls, measurement);
                wires.iter_mut().for_each(|wire| *wire += value);
            }
            Kind::SumVec { chunk } | Kind::Histogram { chunk } | Kind::Multihot { chunk, .. } => {
                self.products(wires, chunk, measurement, calls, joint_rand);
            }
        }
        verifier.push(at_point);
        Ok(verifier)
    }

    /// What the proof says of the gadget: the sum of its answers to all calls, with the factors that the circuit gives them, and
    /// its polynomial at the point.
    fn answers(
        &self,
        gadget: &[F],
        coefficients: &[F],
        at: F,
        power: F,
        joint_rand: &[F],
        compress: &[F],
    ) -> (F, F) {
        let is_weighted = self.circuit.kind == Kind::Sum;
        let n = self.roots.len();
        match &self.proof {
            ProofForm::Coefficients { sum_of_calls } => {
                let (low, high) = gadget.split_at(n.min(gadget.len()));
                // At the roots x^n is one, so that coefficients n apart add up.
                let mut folded = low.to_vec();
                folded.iter_mut().zip(high).for_each(|(low, high)| *low += *high);
                let answers = if is_weighted {
                    let mut values = folded.clone();
                    self.roots.transform(&mut values);
                    let r = joint_rand.first().copied().unwrap_or(F::ZERO);
                    let calls = values.get(1..=self.circuit.calls).unwrap_or_default();
                    calls.iter().rev().fold(F::ZERO, |sum, value| (sum + *value) * r)
                } else {
                    dot(sum_of_calls, &folded)
                };
                let at_point = gadget.iter().rev().fold(F::ZERO, |sum, next| sum * at + *next);
                (answers, at_point)
            }
            ProofForm::Values { turn, last } => {
                let [mut even, mut odd] = [(); 2].map(|()| Vec::with_capacity(n));
                for pair in gadget.chunks(2) {
                    even.extend(pair.first());
                    odd.extend(pair.get(1));
                }
                odd.push(dot(last, gadget));
                let calls = even.get(1..=self.circuit.calls).unwrap_or_default();
                let answers = match compress {
                    [_, ..] if is_weighted => dot(compress, calls),
                    _ => calls.iter().fold(F::ZERO, |sum, answer| sum + *answer),
                };
                // Of the roots of order 2n, every second is one of order n, and the others are those, turned.
                let (turned, _) = self.roots.coefficients(at * *turn);
                let (even, odd) = (dot(coefficients, &even), dot(&turned, &odd));
                let at_point = F::HALF * ((even + odd) + power * (even - odd));
                (answers, at_point)
            }
        }
    }

    /// Adds to the wires what the calls of a gadget of products add: for each element `x` of a chunk a pair, `x` times a
    /// power of the joint randomness, and `x` less a half.
    fn products(
        &self,
        wires: &mut [F],
        chunk: usize,
        measurement: &[F],
        calls: &[F],
        joint_rand: &[F],
    ) {
        let factors: Vec<F::Factor> = calls.iter().map(|call| call.factor()).collect();
        let halves = F::HALF * calls.iter().fold(F::ZERO, |sum, call| sum + *call);
        let random = joint_rand.first().copied().unwrap_or(F::ZERO);
        let mut weighted = calls.to_vec();
        // In VDAF-08 the powers go on from chunk to chunk: for an element those of its chunk and of its place in it.
        if self.circuit.draft == VdafDraft::V08 {
            let step = (0..chunk).fold(F::ONE, |power, _| power * random);
            let mut power = F::ONE;
            for call in &mut weighted {
                *call *= power;
                power *= step;
            }
        }
        let mut weights: Vec<F::Factor> = weighted.iter().map(|w| w.factor()).collect();
        let mut power = F::ONE;
        for (place, pair) in wires.as_chunks_mut::<2>().0.iter_mut().enumerate() {
            // In VDAF-18 each chunk has its own.
            match self.circuit.draft {
                VdafDraft::V08 => power *= random,
                VdafDraft::V18 => {
                    for ((weighted, weight), random) in
                        weighted.iter_mut().zip(&mut weights).zip(joint_rand)
                    {
                        *weighted *= *random;
                        *weight = weighted.factor();
                    }
                }
            }
            let column = measurement.get(place..).unwrap_or_default();
            let (left, right) = columns(&weights, &factors, column, chunk);
            pair[0] += left * power;
            pair[1] += right - halves;
        }
    }
}

/// The sums of a column, the elements `chunk` apart, with two rows of factors.
fn columns<F: Field>(
    weights: &[F::Factor],
    factors: &[F::Factor],
    column: &[F],
    chunk: usize,
) -> (F, F) {
    let (mut left, mut right) = (F::ZERO, F::ZERO);
    let mut elements = column.iter().step_by(chunk);
    for (weights, factors) in weights.chunks(F::PRODUCTS_MAX).zip(factors.chunks(F::PRODUCTS_MAX)) {
        let [mut weighted, mut plain] = [F::Sum::default(); 2];
        for ((weight, factor), element) in weights.iter().zip(factors).zip(&mut elements) {
            let element = element.factor();
            F::add_product(&mut weighted, weight, &element);
            F::add_product(&mut plain, factor, &element);
        }
        left += F::total(weighted);
        right += F::total(plain);
    }
    (left, right)
}
