//! The query of VDAF-08 §7.3.4 (`FlpBBCGGI19.query`), for circuits with one gadget of degree two. As [`super::query_18`], but
//! for what the drafts and the lines of `prio` have otherwise: the proof holds the gadget polynomial's coefficients, and a
//! circuit has one output.

use std::any::Any;

use prio08::{
    field::{FftFriendlyFieldElement, FieldElement},
    flp::{FlpError, Gadget, Type},
};

use super::{lagrange, recording::Recording};

/// A circuit whose proofs are queried faster. Everything else is the circuit's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::vdaf) struct Fast<T>(pub(in crate::vdaf) T);

/// The gadget's place in the circuit.
#[derive(Debug)]
struct Recorder<F: FftFriendlyFieldElement> {
    inner: Box<dyn Gadget<F>>,
    recording: Recording<F>,
}

impl<F: FftFriendlyFieldElement> Gadget<F> for Recorder<F> {
    fn call(&mut self, inputs: &[F]) -> Result<F, FlpError> {
        let beyond = || FlpError::Query("a gadget is called too often".to_owned());
        self.recording.call(inputs).ok_or_else(beyond)
    }

    fn call_poly(&mut self, out: &mut [F], inputs: &[Vec<F>]) -> Result<(), FlpError> {
        self.inner.call_poly(out, inputs)
    }

    fn arity(&self) -> usize {
        self.inner.arity()
    }

    fn degree(&self) -> usize {
        self.inner.degree()
    }

    fn calls(&self) -> usize {
        self.inner.calls()
    }

    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}

impl<T: Type> Fast<T> {
    /// The recorder for a proof, and the gadget polynomial at the point that is asked for; `None` for circuits, proofs and
    /// points that are `prio`'s to deal with, or to refuse.
    fn recorder(&self, proof: &[T::Field], at: T::Field) -> Option<(Recorder<T::Field>, T::Field)> {
        let [inner] = <[_; 1]>::try_from(self.0.gadget()).ok()?;
        let (arity, n) = (inner.arity(), (1 + inner.calls()).next_power_of_two());
        let (seeds, polynomial) = proof.split_at_checked(arity)?;
        if inner.degree() != 2 || polynomial.len() != 2 * n - 1 {
            return None;
        }
        let (zero, one) = (T::Field::zero(), T::Field::one());
        let roots = lagrange::roots(one, T::Field::root(n.trailing_zeros() as usize)?, n);
        if roots.contains(&at) {
            return None;
        }
        let inverse = lagrange::inverse_of_power(one, T::Field::half(), n);
        let coefficients = lagrange::coefficients(&roots, inverse, one, at);
        // At these roots x^n is one, so that coefficients n apart add up.
        let (low, high) = polynomial.split_at_checked(n)?;
        let padded = high.iter().copied().chain([zero]);
        let mut values: Vec<_> = low.iter().zip(padded).map(|(low, high)| *low + high).collect();
        lagrange::transform(&mut values, &roots);
        let at_point = polynomial.iter().rev().fold(zero, |sum, next| sum * at + *next);
        let recording = Recording::new(coefficients, seeds, values, 1)?;
        Some((Recorder { inner, recording }, at_point))
    }
}

impl<T: Type> Type for Fast<T> {
    type Measurement = T::Measurement;
    type AggregateResult = T::AggregateResult;
    type Field = T::Field;

    fn query(
        &self,
        input: &[T::Field],
        proof: &[T::Field],
        query_rand: &[T::Field],
        joint_rand: &[T::Field],
        num_shares: usize,
    ) -> Result<Vec<T::Field>, FlpError> {
        let recorder = match query_rand {
            [at] => self.recorder(proof, *at),
            _ => None,
        };
        let is_expected =
            input.len() == self.0.input_len() && joint_rand.len() == self.0.joint_rand_len();
        let Some((recorder, at_point)) = recorder.filter(|_| is_expected) else {
            return self.0.query(input, proof, query_rand, joint_rand, num_shares);
        };
        let mut gadgets: Vec<Box<dyn Gadget<T::Field>>> = vec![Box::new(recorder)];
        let validity = self.0.valid(&mut gadgets, input, joint_rand, num_shares)?;
        let lost = || FlpError::Query("the recorder is gone".to_owned());
        let recorder = gadgets.first_mut().map(|gadget| gadget.as_any());
        let recorder: &mut Recorder<T::Field> =
            recorder.and_then(|gadget| gadget.downcast_mut()).ok_or_else(lost)?;
        Ok(recorder.recording.verifier(validity, at_point))
    }

    fn encode_measurement(&self, measurement: &T::Measurement) -> Result<Vec<T::Field>, FlpError> {
        self.0.encode_measurement(measurement)
    }

    fn decode_result(
        &self,
        data: &[T::Field],
        num_measurements: usize,
    ) -> Result<T::AggregateResult, FlpError> {
        self.0.decode_result(data, num_measurements)
    }

    fn gadget(&self) -> Vec<Box<dyn Gadget<T::Field>>> {
        self.0.gadget()
    }

    fn valid(
        &self,
        gadgets: &mut Vec<Box<dyn Gadget<T::Field>>>,
        input: &[T::Field],
        joint_rand: &[T::Field],
        num_shares: usize,
    ) -> Result<T::Field, FlpError> {
        self.0.valid(gadgets, input, joint_rand, num_shares)
    }

    fn truncate(&self, input: Vec<T::Field>) -> Result<Vec<T::Field>, FlpError> {
        self.0.truncate(input)
    }

    fn input_len(&self) -> usize {
        self.0.input_len()
    }

    fn proof_len(&self) -> usize {
        self.0.proof_len()
    }

    fn verifier_len(&self) -> usize {
        self.0.verifier_len()
    }

    fn output_len(&self) -> usize {
        self.0.output_len()
    }

    fn joint_rand_len(&self) -> usize {
        self.0.joint_rand_len()
    }

    fn prove_rand_len(&self) -> usize {
        self.0.prove_rand_len()
    }

    fn query_rand_len(&self) -> usize {
        self.0.query_rand_len()
    }
}
