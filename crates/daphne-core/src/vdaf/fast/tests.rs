//! Ours against `prio`'s.

use proptest::prelude::*;

use super::{
    field::{Field, decode, dot, encode},
    field64,
    field128::MODULUS,
    keccak,
    products::{limbs, whole},
    xof::{Origin, Usage, Xof, sample},
    *,
};
use crate::{
    testing::faulty::Random,
    vdaf::{message::Message, prio_08, prio_18},
};

/// Elements where carries and folds have their edges, and any others.
fn element() -> impl Strategy<Value = u128> {
    let edges = [
        0,
        1,
        2,
        27,
        28,
        29,
        u64::MAX.into(),
        1 << 64,
        (1 << 64) + 1,
        28 << 64,
        (28 << 64) - 1,
        1 << 127,
        MODULUS / 2,
        MODULUS - (1 << 64),
        MODULUS - (28 << 64),
        MODULUS - 2,
        MODULUS - 1,
    ];
    prop_oneof![
        proptest::sample::select(edges.to_vec()),
        any::<u128>().prop_map(|n| n % MODULUS),
        (any::<u64>(), 0..128_u32).prop_map(|(n, bits)| (u128::from(n) << bits.min(64)) % MODULUS),
        any::<u64>().prop_map(|n| MODULUS - 1 - u128::from(n)),
    ]
}

/// The same for the small field.
fn small_element() -> impl Strategy<Value = u64> {
    let edges = [0, 1, 2, 0xffff_fffe, 0xffff_ffff, 1 << 32, (1 << 32) + 1, 1 << 63];
    prop_oneof![
        proptest::sample::select(edges.to_vec()),
        (0..4_u64).prop_map(|n| field64::MODULUS - 1 - n),
        (0..4_u64).prop_map(|n| field64::MODULUS - 0xffff_ffff - n),
        any::<u64>().prop_map(|n| n % field64::MODULUS),
        any::<u32>().prop_map(u64::from),
        any::<u32>().prop_map(|n| (u64::from(n) << 32) % field64::MODULUS),
    ]
}

fn big(integer: u128) -> Field128 {
    Field128::reduced(integer)
}

fn integer(element: Field128) -> u128 {
    let [low, high] = element.words();
    u128::from(high) << 64 | u128::from(low)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn the_large_field_is_the_drafts(a in element(), b in element()) {
        use prio18::field::{Field128 as Theirs, FieldElement as _};
        let same = |ours: Field128, theirs: Theirs| {
            assert!(integer(ours) < MODULUS);
            assert_eq!(integer(ours), u128::from(theirs), "{a} {b}");
        };
        let (x, y, u, v) = (big(a), big(b), Theirs::from(a), Theirs::from(b));
        same(x + y, u + v);
        same(x - y, u - v);
        same(x * y, u * v);
        same(-x, -u);
        same(Field128::HALF, Theirs::half());
        assert_eq!(x == y, u == v);
        assert_eq!(integer(Field128::from_integer(a as u64)), u128::from(a as u64));
    }

    #[test]
    fn the_small_field_is_the_drafts(a in small_element(), b in small_element()) {
        use prio18::field::{Field64 as Theirs, FieldElement as _};
        let same = |ours: Field64, theirs: Theirs| {
            assert!(ours.integer() < field64::MODULUS);
            assert_eq!(ours.integer(), u64::from(theirs), "{a} {b}");
        };
        let (x, y, u, v) = (Field64::from_integer(a), Field64::from_integer(b), Theirs::from(a), Theirs::from(b));
        same(x + y, u + v);
        same(x - y, u - v);
        same(x * y, u * v);
        same(-x, -u);
        same(Field64::HALF, Theirs::half());
        same(Field64::total(7), Theirs::from(7));
    }

    #[test]
    fn words_are_multiplied_by_halves_as_they_are_whole(a in element(), b in element()) {
        let halves = |n: u128| [n as u64, (n >> 64) as u64];
        for (a, b) in halves(a).into_iter().flat_map(|a| halves(b).map(|b| (a, b))) {
            assert_eq!(words::mul_by_halves(a, b), words::mul(a, b), "{a} {b}");
        }
    }

    #[test]
    fn elements_have_one_encoding(bytes in any::<[u8; 16]>(), edge in 0_u64..60) {
        use prio18::codec::Decode as _;
        use prio18::field::{Field64 as Theirs64, Field128 as Theirs};
        for bytes in [bytes, (MODULUS - 30 + u128::from(edge)).to_le_bytes()] {
            let ours = decode::<Field128>(&bytes, 1);
            let theirs = Theirs::get_decoded(&bytes);
            assert_eq!(ours.is_some(), theirs.is_ok());
            if let Some((ours, rest)) = ours {
                assert!(rest.is_empty());
                let mut again = Vec::new();
                encode(&ours, &mut again);
                assert_eq!(again, bytes);
            }
        }
        for bytes in [*bytes.first_chunk().unwrap(), (field64::MODULUS - 30 + edge).to_le_bytes()] {
            let ours = decode::<Field64>(&bytes, 1);
            assert_eq!(ours.is_some(), Theirs64::get_decoded(&bytes).is_ok());
            if let Some((ours, _)) = ours {
                let mut again = Vec::new();
                encode(&ours, &mut again);
                assert_eq!(again, bytes);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn sums_of_products_are_the_same_however_they_are_summed_up(
        pairs in proptest::collection::vec((element(), element()), 0..40),
        repeat in prop_oneof![Just(1_usize), Just(13), Just(40)],
    ) {
        let words = |n: u128| [n as u64, (n >> 64) as u64];
        let (mut one, mut other, mut truth) = (limbs::Sum::default(), whole::Sum::default(), Field128::ZERO);
        let (mut factors, mut elements) = (Vec::new(), Vec::new());
        for (a, b) in std::iter::repeat_n(&pairs, repeat).flatten() {
            if factors.len() < limbs::Sum::PRODUCTS_MAX {
                one.add(&limbs::Factor::new(words(*a)), &limbs::Factor::new(words(*b)));
                other.add(&whole::Factor::new(words(*a)), &whole::Factor::new(words(*b)));
            }
            factors.push(big(*a));
            elements.push(big(*b));
            truth += big(*a) * big(*b);
        }
        assert_eq!(one.words(), other.words());
        assert!(dot(&factors, &elements) == truth);
    }

    #[test]
    fn the_xofs_are_prios(
        seed in any::<[u8; 32]>(),
        ctx in proptest::collection::vec(any::<u8>(), 0..60),
        binder in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..400), 0..4),
        elements in proptest::collection::vec(element(), 0..30),
        count in 0..100_usize,
    ) {
        let ours: Vec<Field128> = elements.iter().map(|n| big(*n)).collect();
        let bytes: Vec<u8> = elements.iter().flat_map(|n| n.to_le_bytes()).collect();
        let algorithm = 0x0102_0304;
        let usage = Usage::JointRandPart;
        let finished = |mut xof: Xof| {
            for part in &binder {
                xof.update(part);
            }
            xof.elements(&ours);
            xof
        };
        let parts = || binder.iter().chain([&bytes]);
        let (theirs, their_seed, theirs_of_old) = {
            use prio08::vdaf::xof::{IntoFieldVec as _, Xof as _, XofTurboShake128 as Old};
            use prio18::vdaf::xof::{IntoFieldVec as _, Xof as _, XofTurboShake128 as New};
            let mut new = <New as prio18::vdaf::xof::Xof<32>>::init(&seed, &[&[18, 0, 1, 2, 3, 4, 0, 7], &ctx]);
            let mut old = Old::init(seed.first_chunk().unwrap(), &[8, 0, 1, 2, 3, 4, 0, 7]);
            for part in parts() {
                new.update(part);
                old.update(part);
            }
            let new_seed = new.clone().into_seed();
            let new: Vec<prio18::field::Field128> = new.into_seed_stream().into_field_vec(count);
            let old: Vec<prio08::field::Field128> = old.into_seed_stream().into_field_vec(count);
            (
                new.into_iter().map(u128::from).collect::<Vec<_>>(),
                *new_seed.as_ref(),
                old.into_iter().map(u128::from).collect::<Vec<_>>(),
            )
        };
        let integers = |xof: Xof| -> Vec<u128> {
            xof.stream().elements(count).into_iter().map(integer).collect()
        };
        let origin = Origin { draft: VdafDraft::V18, algorithm };
        let xof = finished(Xof::new(origin, usage, &ctx, &seed));
        assert_eq!(integers(xof.clone()), theirs);
        assert_eq!(xof.seed::<32>(), their_seed);
        let origin = Origin { draft: VdafDraft::V08, algorithm };
        let xof = finished(Xof::new(origin, usage, b"ignored", &seed[..16]));
        assert_eq!(integers(xof), theirs_of_old);
    }
}

#[test]
fn random_words_that_are_no_element_are_skipped() {
    // Whole encodings are skipped, as they come: what follows is read from where the next one begins.
    let top = u64::MAX;
    let words = [top, top, 1, 2, 1, top - 27, 0, top - 27, 3, 4];
    let mut next = words.into_iter();
    let got: Vec<Field128> = sample(|| next.next().unwrap(), 3);
    assert_eq!(
        got.into_iter().map(integer).collect::<Vec<_>>(),
        [2 << 64 | 1, MODULUS - 1, 4 << 64 | 3]
    );
    let words = [field64::MODULUS, 5, u64::MAX, field64::MODULUS - 1];
    let mut next = words.into_iter();
    let got: Vec<Field64> = sample(|| next.next().unwrap(), 2);
    assert_eq!(
        got.into_iter().map(Field64::integer).collect::<Vec<_>>(),
        [5, field64::MODULUS - 1]
    );
}

#[test]
fn roots_of_unity_are_those_of_prio() {
    use prio18::field::{Field64 as Small, Field128 as Large, NttFriendlyFieldElement as _};
    for l in 0..=21 {
        let ours = Field128::root(l).map(integer);
        assert_eq!(ours, Large::root(l as usize).map(u128::from), "{l}");
        let ours = Field64::root(l).map(Field64::integer);
        assert_eq!(ours, Small::root(l as usize).map(u64::from), "{l}");
    }
}

#[test]
fn the_permutation_moves_every_bit() {
    // That it is the right one, the XOFs show; that no bit is lost, this.
    let mut zero = [0; keccak::LANES];
    keccak::permute(&mut zero);
    for (lane, bit) in (0..keccak::LANES).flat_map(|lane| (0..64).map(move |bit| (lane, bit))) {
        let mut state = [0; keccak::LANES];
        state[lane] = 1 << bit;
        keccak::permute(&mut state);
        assert!(state.iter().zip(&zero).all(|(a, b)| a != b), "{lane} {bit}");
    }
}

/// Numbers that look random, the same each time.
struct Numbers(Random);

impl Numbers {
    fn next(&mut self) -> u128 {
        u128::from(self.0.next_u64()) << 64 | u128::from(self.0.next_u64())
    }

    fn below(&mut self, end: usize) -> usize {
        self.0.below(end as u64) as usize
    }

    /// Bytes that were changed a little, or not at all.
    fn hostile(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        match self.below(8) {
            0 if !bytes.is_empty() => {
                let at = self.below(bytes.len());
                bytes[at] ^= 1 << self.below(8);
            }
            1 => bytes.truncate(self.below(bytes.len() + 1)),
            2 => bytes.push(0),
            3 => {
                let at = self.below(bytes.len() + 1);
                bytes[at..].iter_mut().take(16).for_each(|b| *b = 0xff);
            }
            _ => (),
        }
        bytes
    }
}

/// Reports of honest clients and of others, by both: the same messages, output shares and refusals.
macro_rules! compare {
    ($name:ident, $module:ident, $prio:ident, $draft:expr, $key:expr, [$(($id:expr, $config:expr, $circuit:expr, $measurement:expr)),+ $(,)?]) => {
        #[test]
        fn $name() {
            use $prio::{
                codec::Encode as _,
                field::Field64,
                flp::{gadgets::*, types::*},
                vdaf::{prio3::Prio3, xof::XofTurboShake128},
            };
            let context = b"the context of an application".as_slice();
            let mut accepted = 0;
            $({
                let vdaf: Prio3<_, XofTurboShake128, $key> = Prio3::new(2, 1, $id, $circuit.unwrap()).unwrap();
                let ours = Verifier::new($draft, $id, &$config).unwrap();
                let name = stringify!($circuit);
                assert_eq!(ours.output_len(), vdaf.output_len(), "{name}");
                let mut numbers = Numbers(Random::new($id << 32 | name.len() as u64));
                // `prio` is slow with many calls.
                let step = if vdaf.output_len() > 100 { 7 } else { 1 };
                for round in (0..60_u8).step_by(step) {
                    let (key, nonce) = ([round; $key], [round ^ 0x55; 16]);
                    let ctx = context;
                    let r = $module::shard(&vdaf, ctx, &$measurement, &nonce).unwrap();
                    let (mut public, mut leader, mut helper) = (r.public_share, r.leader_input_share, r.helper_input_share);
                    if round > 30 {
                        public = numbers.hostile(&public);
                        helper = numbers.hostile(&helper);
                        leader = numbers.hostile(&leader);
                    }
                    if round > 50 && leader.len() % 8 == 0 {
                        // A query is a function of whatever it is given.
                        leader.chunks_mut(16).for_each(|c| {
                            c.copy_from_slice(&(numbers.next() >> 1).to_le_bytes()[..c.len()]);
                        });
                    }
                    let context = Context { verify_key: &key, ctx: context, nonce: &nonce };
                    let mine = ours.leader_init(context, &public, &leader);
                    let theirs = $module::leader_init(&vdaf, context, &(), &public, &leader);
                    let (state, init) = match (mine, theirs) {
                        (Ok(mine), Ok(theirs)) => {
                            assert_eq!(mine.1, theirs.1, "{name} {round}");
                            ((mine.0, theirs.0), mine.1)
                        }
                        (mine, theirs) => {
                            assert_eq!(mine.err(), theirs.err(), "{name} {round}");
                            continue;
                        }
                    };
                    let mut inits = vec![init.clone()];
                    for _ in 0..6 {
                        inits.push(numbers.hostile(&init));
                    }
                    inits.push([&[2][..], &init[1..]].concat());
                    inits.push(Message::Continue { message: b"", share: &init[5..] }.encode().unwrap());
                    for (n, init) in inits.iter().enumerate() {
                        let mine = ours.helper_init(context, &public, &helper, init);
                        let theirs = $module::helper_init(&vdaf, context, &(), &public, &helper, init);
                        match (mine, theirs) {
                            (Ok((output, message)), Ok((Ok(their_output), their_message))) => {
                                accepted += 1;
                                assert_eq!(message, their_message, "{name} {round} {n}");
                                assert_eq!(output.encode(), their_output.get_encoded().unwrap(), "{name} {round} {n}");
                                for message in [message.clone(), numbers.hostile(&message), Message::Continue { message: &message[5..], share: b"" }.encode().unwrap()] {
                                    let mine = state.0.clone().continued(&message);
                                    let theirs = $module::leader_continued(&vdaf, ctx, &(), state.1.clone(), &message);
                                    match (mine, theirs) {
                                        (Ok(mine), Ok((theirs, None))) => {
                                            assert_eq!(mine.encode(), theirs.get_encoded().unwrap(), "{name} {round} {n}");
                                        }
                                        (mine, theirs) => assert_eq!(
                                            mine.err(),
                                            theirs.err(),
                                            "{name} {round} {n}"
                                        ),
                                    }
                                }
                            }
                            (mine, theirs) => {
                                assert_eq!(mine.err(), theirs.err(), "{name} {round} {n}");
                            }
                        }
                    }
                }
            })+
            assert!(accepted > 500, "{accepted}");
        }
    };
}

type F = prio08::field::Field128;
compare!(
    reports_are_verified_as_by_prio_0_16,
    prio_08,
    prio08,
    VdafDraft::V08,
    16,
    [
        (0, VdafConfig::Prio3Count, Ok::<_, ()>(Count::<Field64>::new()), true),
        (1, VdafConfig::Prio3Sum { max_measurement: 255 }, Sum::<F>::new(8), 200),
        (1, VdafConfig::Prio3Sum { max_measurement: 1 }, Sum::<F>::new(1), 1),
        (1, VdafConfig::Prio3Sum { max_measurement: u64::MAX }, Sum::<F>::new(64), 1 << 60),
        (2, sum_vec(10, 1, 3), SumVec::<F, ParallelSum<F, Mul<F>>>::new(1, 10, 3), vec![1; 10]),
        (2, sum_vec(10, 255, 9), SumVec::<F, ParallelSum<F, Mul<F>>>::new(8, 10, 9), vec![200; 10]),
        (2, sum_vec(1, 1, 1), SumVec::<F, ParallelSum<F, Mul<F>>>::new(1, 1, 1), vec![1]),
        (2, sum_vec(600, 1, 1), SumVec::<F, ParallelSum<F, Mul<F>>>::new(1, 600, 1), vec![1; 600]),
        (
            2,
            sum_vec(1_000, 1, 32),
            SumVec::<F, ParallelSum<F, Mul<F>>>::new(1, 1_000, 32),
            vec![1; 1_000]
        ),
        (3, histogram(4, 2), Histogram::<F, ParallelSum<F, Mul<F>>>::new(4, 2), 3),
        (3, histogram(100, 10), Histogram::<F, ParallelSum<F, Mul<F>>>::new(100, 10), 42),
        (3, histogram(7, 100), Histogram::<F, ParallelSum<F, Mul<F>>>::new(7, 100), 0),
        (
            0xffff_0000,
            multihot(10, 3, 4),
            MultihotCountVec::<F, ParallelSum<F, Mul<F>>>::new(10, 3, 4),
            [[true; 2], [false; 2]].concat().into_iter().chain([false; 6]).collect::<Vec<_>>()
        ),
        (
            0xffff_0000,
            multihot(6, 6, 5),
            MultihotCountVec::<F, ParallelSum<F, Mul<F>>>::new(6, 6, 5),
            vec![true; 6]
        ),
    ]
);

type G = prio18::field::Field128;
compare!(
    reports_are_verified_as_by_prio_0_18,
    prio_18,
    prio18,
    VdafDraft::V18,
    32,
    [
        (1, VdafConfig::Prio3Count, Ok::<_, ()>(Count::<Field64>::new()), true),
        (2, VdafConfig::Prio3Sum { max_measurement: 255 }, Sum::<Field64>::new(255), 200),
        (2, VdafConfig::Prio3Sum { max_measurement: 1 }, Sum::<Field64>::new(1), 1),
        (2, VdafConfig::Prio3Sum { max_measurement: 1_000 }, Sum::<Field64>::new(1_000), 1_000),
        (
            2,
            VdafConfig::Prio3Sum { max_measurement: 1 << 63 },
            Sum::<Field64>::new(1 << 63),
            1 << 60
        ),
        (3, sum_vec(10, 1, 3), SumVec::<G, ParallelSum<G, Mul>>::new(1, 10, 3), vec![1; 10]),
        (3, sum_vec(10, 200, 9), SumVec::<G, ParallelSum<G, Mul>>::new(200, 10, 9), vec![200; 10]),
        (3, sum_vec(1, 1, 1), SumVec::<G, ParallelSum<G, Mul>>::new(1, 1, 1), vec![1]),
        (3, sum_vec(600, 1, 1), SumVec::<G, ParallelSum<G, Mul>>::new(1, 600, 1), vec![1; 600]),
        (
            3,
            sum_vec(1_000, 1, 32),
            SumVec::<G, ParallelSum<G, Mul>>::new(1, 1_000, 32),
            vec![1; 1_000]
        ),
        (4, histogram(4, 2), Histogram::<G, ParallelSum<G, Mul>>::new(4, 2), 3),
        (4, histogram(100, 10), Histogram::<G, ParallelSum<G, Mul>>::new(100, 10), 42),
        (4, histogram(7, 100), Histogram::<G, ParallelSum<G, Mul>>::new(7, 100), 0),
        (
            5,
            multihot(10, 3, 4),
            MultihotCountVec::<G, ParallelSum<G, Mul>>::new(10, 3, 4),
            [[true; 2], [false; 2]].concat().into_iter().chain([false; 6]).collect::<Vec<_>>()
        ),
        (
            5,
            multihot(6, 6, 5),
            MultihotCountVec::<G, ParallelSum<G, Mul>>::new(6, 6, 5),
            vec![true; 6]
        ),
    ]
);

fn sum_vec(length: u32, max_measurement: u64, chunk_length: u32) -> VdafConfig {
    VdafConfig::Prio3SumVec { length, max_measurement, chunk_length }
}

fn histogram(length: u32, chunk_length: u32) -> VdafConfig {
    VdafConfig::Prio3Histogram { length, chunk_length }
}

fn multihot(length: u32, max_weight: u32, chunk_length: u32) -> VdafConfig {
    VdafConfig::Prio3MultihotCountVec { length, max_weight, chunk_length }
}

#[test]
fn what_is_not_done_here_is_left_to_prio() {
    let several = VdafConfig::Prio3SumVecField64MultiproofHmacSha256Aes128 {
        length: 3,
        max_measurement: 1,
        chunk_length: 2,
        proofs: 2,
    };
    for config in [several, VdafConfig::Poplar1 { bits: 8 }] {
        for draft in [VdafDraft::V08, VdafDraft::V18] {
            assert!(Verifier::new(draft, 0xffff_1003, &config).is_none());
        }
    }
}

/// Those that are not kept are among what is compared with `prio`, too.
#[test]
fn constants_are_kept_of_circuits_with_few_calls() {
    for draft in [VdafDraft::V08, VdafDraft::V18] {
        for (config, is_kept) in [
            (histogram(100, 10), true),
            (sum_vec(98_000, 1, 313), true),
            (sum_vec(600, 1, 1), false),
            (sum_vec(98_000, 1, 1), false),
        ] {
            let keeps = match Verifier::new(draft, 2, &config) {
                Some(Verifier::F128Short(instance)) => instance.keeps_constants(),
                Some(Verifier::F128(instance)) => instance.keeps_constants(),
                _ => panic!("{config:?} is over the large field"),
            };
            assert_eq!(keeps, is_kept, "{draft:?} {config:?}");
        }
    }
}
