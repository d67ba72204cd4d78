//! A client that lies in its public share, so that a helper which does not look takes its report and the leader does
//! not.
//!
//! Both aggregators' *joint randomness* decides what a Prio3 proof is about, and each makes it of its own input share
//! and of what the public share says about the other's (VDAF-08 §7.2.1.2). The helper's own part it corrects; the
//! leader cannot, and works with the lie. A client who knows both values can make a proof for that mixture. At the end
//! of verification the leader compares, and refuses what the helper has accepted.

use prio08::{
    codec::{Decode as _, Encode as _},
    field::{Field128, FieldElement as _},
    flp::{
        FlpError, Gadget, Type,
        gadgets::{Mul, ParallelSum},
        types::SumVec,
    },
    vdaf::{
        Vdaf as _,
        prio3::Prio3SumVec,
        xof::{IntoFieldVec as _, Seed, Xof, XofTurboShake128},
    },
};

use crate::vdaf::ShardedReport;

type Field = Field128;
type Circuit = SumVec<Field, ParallelSum<Field, Mul<Field>>>;

// Usages of the XOF, VDAF-08 §7.2.
const MEASUREMENT_SHARE: u16 = 1;
const PROOF_SHARE: u16 = 2;
const JOINT_RANDOMNESS: u16 = 3;
const JOINT_RAND_SEED: u16 = 6;
const JOINT_RAND_PART: u16 = 7;

const ONE_PROOF: u8 = 1;
const LEADER: u8 = 0;
const HELPER: u8 = 1;

/// A report of a `Prio3SumVec` of VDAF-08 whose `length` numbers of `bits` bits are as large as can be. With `honest`
/// it is as good as any; without, a helper that follows VDAF-08 to the letter accepts it, and the leader does not.
///
/// # Panics
/// If there is no such VDAF.
pub fn sum_vec_08(
    length: usize,
    bits: usize,
    chunk_length: usize,
    nonce: &[u8; 16],
    honest: bool,
) -> ShardedReport {
    let tag = |usage| {
        let vdaf = Prio3SumVec::new_sum_vec(2, bits, length, chunk_length).expect("a VDAF");
        vdaf.domain_separation_tag(usage)
    };
    let circuit = Circuit::new(bits, length, chunk_length).expect("a circuit");
    // Whatever is random to an honest client.
    let [measurement_seed, proof_seed, leader_blind, helper_blind] = [1, 2, 3, 4].map(|k| {
        XofTurboShake128::seed_stream(&seed(&[k; 16]), b"half valid", nonce)
            .into_field_vec::<Field>(1)[0]
            .get_encoded()
            .expect("a field element")
    });

    let helper_share: Vec<Field> =
        XofTurboShake128::seed_stream(&seed(&measurement_seed), &tag(MEASUREMENT_SHARE), &[HELPER])
            .into_field_vec(circuit.input_len());
    let leader_share: Vec<Field> = helper_share.iter().map(|x| Field::one() - *x).collect();
    let part = |aggregator, blind: &[u8], share: &[Field]| {
        let mut xof = xof(blind, &tag(JOINT_RAND_PART));
        xof.update(&[aggregator]);
        xof.update(nonce);
        xof.update(&encoded(share));
        xof.into_seed().get_encoded().expect("a seed")
    };
    let leader_part = part(LEADER, &leader_blind, &leader_share);
    let helper_part = part(HELPER, &helper_blind, &helper_share);
    let told_leader = if honest { helper_part.clone() } else { vec![0xdb; 16] };
    let randomness = |helper_part: &[u8]| -> Field {
        let mut xof = xof(&[0; 16], &tag(JOINT_RAND_SEED));
        xof.update(&leader_part);
        xof.update(helper_part);
        XofTurboShake128::seed_stream(&xof.into_seed(), &tag(JOINT_RANDOMNESS), &[ONE_PROOF])
            .into_field_vec(circuit.joint_rand_len())[0]
    };

    let mixture = Mixture {
        leader: (randomness(&told_leader), leader_share.clone()),
        helper: (randomness(&helper_part), helper_share),
        chunk_length,
        circuit: circuit.clone(),
    };
    let measurement = vec![Field::one(); circuit.input_len()];
    let prove_rand: Vec<Field> =
        (1..=circuit.prove_rand_len()).map(|n| Field::from(n as u128)).collect();
    let proof = mixture
        .prove(&measurement, &prove_rand, &vec![Field::zero(); circuit.joint_rand_len()])
        .expect("a proof");
    let helper_proof: Vec<Field> =
        XofTurboShake128::seed_stream(&seed(&proof_seed), &tag(PROOF_SHARE), &[ONE_PROOF, HELPER])
            .into_field_vec(circuit.proof_len());
    let leader_proof: Vec<Field> = proof.iter().zip(helper_proof).map(|(p, h)| *p - h).collect();

    ShardedReport {
        public_share: [leader_part, told_leader].concat(),
        leader_input_share: [encoded(&leader_share), encoded(&leader_proof), leader_blind].concat(),
        helper_input_share: [measurement_seed, proof_seed, helper_blind].concat(),
    }
}

fn seed(bytes: &[u8]) -> Seed<16> {
    Seed::get_decoded(bytes).expect("16 bytes")
}

fn xof(seed: &[u8], tag: &[u8]) -> XofTurboShake128 {
    XofTurboShake128::init(seed.try_into().expect("16 bytes"), tag)
}

fn encoded(vector: &[Field]) -> Vec<u8> {
    vector.iter().flat_map(|x| x.get_encoded().expect("a field element")).collect()
}

/// The circuit of `SumVec`, on wires that hold the sum of what each aggregator puts on them.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mixture {
    /// Joint randomness, and measurement share.
    leader: (Field, Vec<Field>),
    helper: (Field, Vec<Field>),
    chunk_length: usize,
    circuit: Circuit,
}

impl Type for Mixture {
    type Measurement = Vec<u128>;
    type AggregateResult = Vec<u128>;
    type Field = Field;

    /// As `SumVec` (VDAF-08 §7.4.3), where the wires of a bit `x` are `r^k * x` and `x - 1`.
    fn valid(
        &self,
        gadgets: &mut Vec<Box<dyn Gadget<Field>>>,
        input: &[Field],
        _joint_rand: &[Field],
        _num_shares: usize,
    ) -> Result<Field, FlpError> {
        let [(leader_rand, leader), (helper_rand, helper)] = [&self.leader, &self.helper];
        let (mut leader_power, mut helper_power) = (*leader_rand, *helper_rand);
        let mut wires = Vec::with_capacity(2 * input.len());
        for ((x, leader), helper) in input.iter().zip(leader).zip(helper) {
            wires.push(leader_power * *leader + helper_power * *helper);
            wires.push(*x - Field::one());
            leader_power *= *leader_rand;
            helper_power *= *helper_rand;
        }
        while wires.len() % (2 * self.chunk_length) != 0 {
            wires.extend([Field::zero(), -Field::one()]);
        }
        wires
            .chunks(2 * self.chunk_length)
            .try_fold(Field::zero(), |sum, chunk| Ok(sum + gadgets[0].call(chunk)?))
    }

    fn gadget(&self) -> Vec<Box<dyn Gadget<Field>>> {
        self.circuit.gadget()
    }

    fn encode_measurement(&self, measurement: &Vec<u128>) -> Result<Vec<Field>, FlpError> {
        self.circuit.encode_measurement(measurement)
    }

    fn decode_result(&self, data: &[Field], count: usize) -> Result<Vec<u128>, FlpError> {
        self.circuit.decode_result(data, count)
    }

    fn truncate(&self, input: Vec<Field>) -> Result<Vec<Field>, FlpError> {
        self.circuit.truncate(input)
    }

    fn input_len(&self) -> usize {
        self.circuit.input_len()
    }

    fn proof_len(&self) -> usize {
        self.circuit.proof_len()
    }

    fn verifier_len(&self) -> usize {
        self.circuit.verifier_len()
    }

    fn output_len(&self) -> usize {
        self.circuit.output_len()
    }

    fn joint_rand_len(&self) -> usize {
        self.circuit.joint_rand_len()
    }

    fn prove_rand_len(&self) -> usize {
        self.circuit.prove_rand_len()
    }

    fn query_rand_len(&self) -> usize {
        self.circuit.query_rand_len()
    }
}
