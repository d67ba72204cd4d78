//! The costly part of Prio3's verification, faster than `prio` does it, and bit for bit the same.
//!
//! `prio` computes in any field, for any circuit, on any machine. Two things make it slow where this runs:
//!
//! - WebAssembly multiplies 64 by 64 bits to 64. Products of Field128 take many such steps, and `prio`'s Montgomery form twice as
//!   many as this prime needs: [`field128`] is another representation of the same field.
//! - For each report `prio` extends and evaluates the proof's polynomials anew. Most of that is the same for each report, or is
//!   a sum that need not be written down: [`query_08`] and [`query_18`] wrap a circuit and replace this one step.
//!
//! Everything else is `prio`'s: encodings, XOFs, circuits, and whatever circuit or proof these modules do not expect. Exact
//! arithmetic has one result, so that of both ways is the same; tests compare them on random and on hostile inputs.
//!
//! Shares and proofs are secret. Arithmetic on them has no branch and no memory access that depends on their values.

pub(super) mod field128;
mod field128_traits;
mod lagrange;
pub(super) mod query_08;
pub(super) mod query_18;
mod recording;
#[cfg(test)]
mod tests;
