//! What a circuit's calls of its gadget come to, when all that is asked for is one point of each polynomial.

use super::lagrange::Arithmetic;

/// Stands for the gadget while a circuit runs: answers as the proof says, and adds each input to the value of its wire's
/// polynomial at the point that is asked for.
#[derive(Debug)]
pub(super) struct Recording<F> {
    /// Of the wire polynomials' values at the roots of unity: what each adds to the value that is asked for.
    coefficients: Vec<F>,
    /// The wire polynomials at the point that is asked for, so far.
    wires: Vec<F>,
    /// The gadget polynomial's values, of which each call is answered with one.
    values: Vec<F>,
    /// Values from one call's to the next one's.
    stride: usize,
    calls: usize,
}

impl<F: Arithmetic> Recording<F> {
    /// Before the first call. `seeds` are the wire polynomials at the first root; `None` if there is no root.
    pub(super) fn new(
        coefficients: Vec<F>,
        seeds: &[F],
        values: Vec<F>,
        stride: usize,
    ) -> Option<Self> {
        let first = coefficients.first().copied()?;
        let wires = seeds.iter().map(|seed| first * *seed).collect();
        Some(Self { coefficients, wires, values, stride, calls: 0 })
    }

    /// A call. `None` if there are more than the proof was made for.
    pub(super) fn call(&mut self, inputs: &[F]) -> Option<F> {
        self.calls += 1;
        let coefficient = *self.coefficients.get(self.calls)?;
        for (wire, input) in self.wires.iter_mut().zip(inputs) {
            *wire += coefficient * *input;
        }
        self.values.get(self.stride * self.calls).copied()
    }

    /// What a verifier says of the proof: the circuit's output, the wires, and the gadget polynomial at the point.
    pub(super) fn verifier(&mut self, output: F, at_point: F) -> Vec<F> {
        let mut verifier = Vec::with_capacity(self.wires.len() + 2);
        verifier.push(output);
        verifier.append(&mut self.wires);
        verifier.push(at_point);
        verifier
    }
}
