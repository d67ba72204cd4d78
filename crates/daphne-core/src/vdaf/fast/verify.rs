//! Verification by one aggregator: VDAF-08 §7.2.2 and VDAF-18 §7.2.2, in the ping-pong topology of two.

use std::borrow::Cow;

use subtle::ConstantTimeEq as _;

use super::{
    circuit::Circuit,
    field::{Field, decode, encode},
    query::Queries,
    xof::{Origin, Usage, Xof},
};
use crate::{
    vdaf::{VdafConfig, VerifyError, message::Message, scheme::Context},
    version::VdafDraft,
};

const LEADER: u8 = 0;
const HELPER: u8 = 1;
/// Proofs of a report.
const PROOFS: u8 = 1;

/// Most roots of unity whose constants an instance keeps, at most 24 KiB: whoever brings tasks chooses their chunks, and an
/// isolate keeps many tasks. A good choice, about as many chunks as elements in one, is never beyond.
const KEPT_ROOTS_MAX: usize = 512;

/// An instance, with seeds of `S` bytes.
#[derive(Clone)]
pub(in crate::vdaf) struct Instance<F: Field, const S: usize> {
    origin: Origin,
    circuit: Circuit<F>,
    /// `None` if they are too large to be kept, and are made for each report.
    queries: Option<Queries<F>>,
}

/// What a leader remembers between its message and the helper's. Secret.
#[derive(Clone)]
pub(in crate::vdaf) struct LeaderState<F> {
    output: Vec<F>,
    /// What the verifier message must be: the joint randomness seed, if there is one.
    expected: Vec<u8>,
}

impl<F> LeaderState<F> {
    /// The leader's last step: its output share.
    pub(super) fn continued(self, inbound: &[u8]) -> Result<Vec<F>, VerifyError> {
        match Message::decode(inbound)? {
            Message::Finish(message) if bool::from(message.ct_eq(&self.expected)) => {
                Ok(self.output)
            }
            _ => Err(VerifyError::Refused),
        }
    }
}

/// Both aggregators' parts of the joint randomness; zeros if there is none.
type Parts<const S: usize> = [[u8; S]; 2];

/// An aggregator's shares and randomness of a report.
struct Begun<F, const S: usize> {
    measurement: Vec<F>,
    verifier: Vec<F>,
    /// Our part of the joint randomness, and the seed that it makes with what the public share says of the other's.
    joint: Option<([u8; S], [u8; S])>,
}

impl<F: Field, const S: usize> Instance<F, S> {
    /// `None` for an instance that is not done here.
    pub(super) fn new(draft: VdafDraft, algorithm: u32, config: &VdafConfig) -> Option<Self> {
        let circuit = Circuit::new(draft, config)?;
        // The gadget's polynomial takes twice as many, whether or not they are kept.
        F::root(circuit.roots().trailing_zeros() + 1)?;
        let queries = match circuit.roots() {
            ..=KEPT_ROOTS_MAX => Some(Queries::new(circuit.clone())?),
            _ => None,
        };
        Some(Self { origin: Origin { draft, algorithm }, circuit, queries })
    }

    fn queries(&self) -> Result<Cow<'_, Queries<F>>, VerifyError> {
        match &self.queries {
            Some(queries) => Ok(Cow::Borrowed(queries)),
            // That it can be made was seen when the instance was.
            None => Queries::new(self.circuit.clone()).map(Cow::Owned).ok_or(VerifyError::Refused),
        }
    }

    /// Whether constants are kept from report to report.
    #[cfg(test)]
    pub(super) fn keeps_constants(&self) -> bool {
        self.queries.is_some()
    }

    pub(super) fn output_len(&self) -> usize {
        self.circuit.output_len
    }

    fn has_joint_rand(&self) -> bool {
        self.circuit.joint_rand_len() > 0
    }

    fn xof(&self, usage: Usage, ctx: &[u8], seed: &[u8]) -> Xof {
        Xof::new(self.origin, usage, ctx, seed)
    }

    fn public_share(&self, bytes: &[u8]) -> Result<Parts<S>, VerifyError> {
        let parts = match bytes.as_chunks() {
            ([first, second], []) if self.has_joint_rand() => Some([*first, *second]),
            ([], []) if !self.has_joint_rand() => Some([[0; S]; 2]),
            _ => None,
        };
        parts.ok_or(VerifyError::PublicShare)
    }

    /// The joint randomness seed of two parts.
    fn seed_of(&self, ctx: &[u8], parts: [&[u8; S]; 2]) -> [u8; S] {
        let mut xof = self.xof(Usage::JointRandSeed, ctx, &[0; S]);
        parts.iter().for_each(|part| xof.update(*part));
        xof.seed()
    }

    /// The leader's first step: what to remember, and the ping-pong message for the helper.
    pub(super) fn leader_init(
        &self,
        context: Context<'_>,
        public_share: &[u8],
        input_share: &[u8],
    ) -> Result<(LeaderState<F>, Vec<u8>), VerifyError> {
        let parts = self.public_share(public_share)?;
        let queries = self.queries()?;
        let decoded = || {
            let (measurement, rest) = decode(input_share, self.circuit.input_len)?;
            let (proof, blind) = decode(rest, queries.proof_len())?;
            let expected = if self.has_joint_rand() { S } else { 0 };
            (blind.len() == expected).then_some((measurement, proof, blind))
        };
        let (measurement, proof, blind) = decoded().ok_or(VerifyError::InputShare)?;
        let begun = self
            .begin(&queries, context, LEADER, parts, (measurement, &proof, blind))
            .map_err(|_| VerifyError::Refused)?;
        let mut share = Vec::new();
        encode(&begun.verifier, &mut share);
        let expected = begun.joint.map_or_else(Vec::new, |(part, seed)| {
            share.extend_from_slice(&part);
            seed.to_vec()
        });
        let output = self.circuit.truncate(begun.measurement);
        Ok((LeaderState { output, expected }, Message::Initialize(&share).encode()?))
    }

    /// The helper's only step: its output share, and the ping-pong message for the leader.
    pub(super) fn helper_init(
        &self,
        context: Context<'_>,
        public_share: &[u8],
        input_share: &[u8],
        inbound: &[u8],
    ) -> Result<(Vec<F>, Vec<u8>), VerifyError> {
        let parts = self.public_share(public_share)?;
        let (seeds, rest) = input_share.as_chunks::<S>();
        let (measurement_seed, proof_seed, blind) = match (self.origin.draft, seeds) {
            (VdafDraft::V08, [measurement, proof, blind @ ..]) => (measurement, proof, blind),
            (VdafDraft::V18, [seed, blind @ ..]) => (seed, seed, blind),
            _ => return Err(VerifyError::InputShare),
        };
        if !rest.is_empty() || blind.len() != usize::from(self.has_joint_rand()) {
            return Err(VerifyError::InputShare);
        }
        // What tells by its form that it is wrong must not cost an expansion.
        let share = match Message::decode(inbound).map_err(|_| VerifyError::PeerShare)? {
            Message::Initialize(share) => share,
            Message::Continue { .. } => return Err(VerifyError::PeerStep),
            Message::Finish(_) => return Err(VerifyError::PeerFinish),
        };
        let (mut verifier, leaders_part) =
            decode(share, self.circuit.verifier_len()).ok_or(VerifyError::PeerShare)?;
        let leaders_part: Option<&[u8; S]> = match leaders_part.first_chunk() {
            None if !self.has_joint_rand() && leaders_part.is_empty() => None,
            Some(part) if self.has_joint_rand() && leaders_part.len() == S => Some(part),
            _ => return Err(VerifyError::PeerShare),
        };
        let queries = self.queries()?;
        let mut xof = self.xof(Usage::MeasurementShare, context.ctx, measurement_seed);
        xof.update(&[HELPER]);
        let measurement = xof.stream().elements(self.circuit.input_len);
        let mut xof = self.xof(Usage::ProofShare, context.ctx, proof_seed);
        xof.update(&[PROOFS, HELPER]);
        let proof: Vec<F> = xof.stream().elements(queries.proof_len());
        let shares = (measurement, &*proof, blind.as_flattened());
        let begun = self.begin(&queries, context, HELPER, parts, shares)?;
        verifier.iter_mut().zip(begun.verifier).for_each(|(sum, share)| *sum += share);
        if !self.decide(&verifier) {
            return Err(VerifyError::Refused);
        }
        let output = |measurement| self.circuit.truncate(measurement);
        let (Some((part, seed)), Some(leaders_part)) = (begun.joint, leaders_part) else {
            return Ok((output(begun.measurement), Message::Finish(&[]).encode()?));
        };
        // The verifier message is the seed of both parts as they were computed. Ours is of what the public share says of the
        // leader's: it is the same if that is true. Equal parts make equal seeds, so most often nothing is computed here.
        //
        // SPEC: Both drafts have each aggregator check only what the public share says of the *other's* part (VDAF-08 §7.2.2,
        // VDAF-18 §7.2.2). What it says of ours, the leader works with, and finds wrong when we have accepted the report. One
        // client with such a report would make the two counts of a batch differ for good. So we check that, too.
        let seed_of = |theirs: &[u8; S], ours: &[u8; S]| {
            if bool::from(theirs.ct_eq(&parts[0]) & ours.ct_eq(&part)) {
                seed
            } else {
                self.seed_of(context.ctx, [theirs, ours])
            }
        };
        let message = seed_of(leaders_part, &part);
        let leaders_seed = seed_of(&parts[0], &parts[1]);
        if !bool::from(message.ct_eq(&seed) & message.ct_eq(&leaders_seed)) {
            return Err(VerifyError::Step);
        }
        Ok((output(begun.measurement), Message::Finish(&message).encode()?))
    }

    /// What both aggregators do first, with decoded or expanded shares: of the measurement and the proof, and the blind.
    fn begin(
        &self,
        queries: &Queries<F>,
        context: Context<'_>,
        aggregator: u8,
        parts: Parts<S>,
        (measurement, proof, blind): (Vec<F>, &[F], &[u8]),
    ) -> Result<Begun<F, S>, VerifyError> {
        let Context { verify_key, ctx, nonce } = context;
        if verify_key.len() != S {
            return Err(VerifyError::Refused); // The key of another VDAF.
        }
        let circuit = &self.circuit;
        let (joint, joint_rand) = if self.has_joint_rand() {
            let mut xof = self.xof(Usage::JointRandPart, ctx, blind);
            xof.update(&[aggregator]);
            xof.update(nonce);
            xof.elements(&measurement);
            let part = xof.seed();
            let seed = match aggregator {
                LEADER => self.seed_of(ctx, [&part, &parts[1]]),
                _ => self.seed_of(ctx, [&parts[0], &part]),
            };
            let mut xof = self.xof(Usage::JointRandomness, ctx, &seed);
            xof.update(&[PROOFS]);
            (Some((part, seed)), xof.stream().elements(circuit.joint_rand_len()))
        } else {
            (None, Vec::new())
        };
        let mut xof = self.xof(Usage::QueryRandomness, ctx, verify_key);
        xof.update(&[PROOFS]);
        xof.update(nonce);
        let query_rand: Vec<F> = xof.stream().elements(circuit.query_rand_len());
        let verifier = queries
            .query(&measurement, proof, &query_rand, &joint_rand)
            .map_err(|_| VerifyError::Init)?;
        Ok(Begun { measurement, verifier, joint })
    }

    /// Whether a verifier, the sum of both shares, is one of a valid measurement. The answer is public.
    fn decide(&self, verifier: &[F]) -> bool {
        match verifier {
            [output, wires @ .., value] => {
                // Both are looked at, so that only the answer shows.
                (*output == F::ZERO) & (self.circuit.gadget(wires) == *value)
            }
            _ => false,
        }
    }
}
