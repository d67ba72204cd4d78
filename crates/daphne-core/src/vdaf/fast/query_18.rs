//! The query of VDAF-18 §7.3.4 (`FlpBBCGGI19.query`), for circuits with one gadget of degree two.

use std::any::Any;

use prio18::{
    field::{FieldElement, NttFriendlyFieldElement},
    flp::{Flp, FlpError, Gadget, Type},
};

use super::{lagrange, recording::Recording};

/// A circuit whose proofs are queried faster. Everything else is the circuit's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::vdaf) struct Fast<T>(pub(in crate::vdaf) T);

/// The gadget's place in the circuit.
#[derive(Debug)]
struct Recorder<F: NttFriendlyFieldElement> {
    inner: Box<dyn Gadget<F>>,
    recording: Recording<F>,
}

impl<F: NttFriendlyFieldElement> Gadget<F> for Recorder<F> {
    fn eval(&mut self, inputs: &[F]) -> Result<F, FlpError> {
        let beyond = || FlpError::Query("a gadget is called too often".to_owned());
        self.recording.call(inputs).ok_or_else(beyond)
    }

    fn eval_poly(&self, out: &mut [F], inputs: &[Vec<F>]) -> Result<(), FlpError> {
        self.inner.eval_poly(out, inputs)
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

impl<T: Flp> Fast<T> {
    /// The recorder for a proof, and the gadget polynomial at the point that is asked for; `None` for circuits, proofs and
    /// points that are `prio`'s to deal with, or to refuse.
    fn recorder(&self, proof: &[T::Field], at: T::Field) -> Option<(Recorder<T::Field>, T::Field)> {
        let [inner] = <[_; 1]>::try_from(self.0.gadget()).ok()?;
        let (arity, n) = (inner.arity(), (1 + inner.calls()).next_power_of_two());
        let (seeds, values) = proof.split_at_checked(arity)?;
        if inner.degree() != 2 || values.len() != 2 * n - 1 {
            return None;
        }
        let (zero, one, half) = (T::Field::zero(), T::Field::one(), T::Field::half());
        let [roots, finer] = [n, 2 * n].map(|n| {
            let root = T::Field::root(n.trailing_zeros() as usize)?;
            Some(lagrange::roots(one, root, n))
        });
        let (roots, finer) = (roots?, finer?);
        if roots.contains(&at) {
            return None;
        }
        let inverse = lagrange::inverse_of_power(one, half, n);
        let coefficients = lagrange::coefficients(&roots, inverse, one, at);
        let last = lagrange::last_value(values, &finer, zero);
        let values: Vec<_> = values.iter().copied().chain([last]).collect();
        let at_point = lagrange::coefficients(&finer, inverse * half, one, at)
            .into_iter()
            .zip(&values)
            .fold(zero, |sum, (coefficient, value)| sum + coefficient * *value);
        let recording = Recording::new(coefficients, seeds, values, 2)?;
        Some((Recorder { inner, recording }, at_point))
    }
}

impl<T: Flp> Flp for Fast<T> {
    type Field = T::Field;

    fn query(
        &self,
        input: &[T::Field],
        proof: &[T::Field],
        query_rand: &[T::Field],
        joint_rand: &[T::Field],
        num_shares: usize,
    ) -> Result<Vec<T::Field>, FlpError> {
        let outputs = self.0.eval_output_len();
        let compressed = if outputs > 1 { outputs } else { 0 };
        let recorder = match query_rand.split_at_checked(compressed) {
            Some((_, [at])) => self.recorder(proof, *at),
            _ => None,
        };
        let is_expected =
            input.len() == self.0.input_len() && joint_rand.len() == self.0.joint_rand_len();
        let Some((recorder, at_point)) = recorder.filter(|_| is_expected) else {
            return self.0.query(input, proof, query_rand, joint_rand, num_shares);
        };
        let mut gadgets: Vec<Box<dyn Gadget<T::Field>>> = vec![Box::new(recorder)];
        let validity = self.0.valid(&mut gadgets, input, joint_rand, num_shares)?;
        let check = match &validity[..] {
            [] => T::Field::zero(),
            [one] => *one,
            several => several
                .iter()
                .zip(query_rand)
                .fold(T::Field::zero(), |sum, (output, random)| sum + *random * *output),
        };
        let lost = || FlpError::Query("the recorder is gone".to_owned());
        let recorder = gadgets.first_mut().map(|gadget| gadget.as_any());
        let recorder: &mut Recorder<T::Field> =
            recorder.and_then(|gadget| gadget.downcast_mut()).ok_or_else(lost)?;
        Ok(recorder.recording.verifier(check, at_point))
    }

    fn gadget(&self) -> Vec<Box<dyn Gadget<T::Field>>> {
        self.0.gadget()
    }

    fn num_gadgets(&self) -> usize {
        self.0.num_gadgets()
    }

    fn valid(
        &self,
        gadgets: &mut Vec<Box<dyn Gadget<T::Field>>>,
        input: &[T::Field],
        joint_rand: &[T::Field],
        num_shares: usize,
    ) -> Result<Vec<T::Field>, FlpError> {
        self.0.valid(gadgets, input, joint_rand, num_shares)
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

    fn joint_rand_len(&self) -> usize {
        self.0.joint_rand_len()
    }

    fn eval_output_len(&self) -> usize {
        self.0.eval_output_len()
    }

    fn prove_rand_len(&self) -> usize {
        self.0.prove_rand_len()
    }
}

impl<T: Type> Type for Fast<T> {
    type Measurement = T::Measurement;
    type AggregateResult = T::AggregateResult;

    fn encode_measurement(&self, measurement: &T::Measurement) -> Result<Vec<T::Field>, FlpError> {
        self.0.encode_measurement(measurement)
    }

    fn truncate(&self, input: Vec<T::Field>) -> Result<Vec<T::Field>, FlpError> {
        self.0.truncate(input)
    }

    fn decode_result(
        &self,
        data: &[T::Field],
        num_measurements: usize,
    ) -> Result<T::AggregateResult, FlpError> {
        self.0.decode_result(data, num_measurements)
    }

    fn output_len(&self) -> usize {
        self.0.output_len()
    }
}
