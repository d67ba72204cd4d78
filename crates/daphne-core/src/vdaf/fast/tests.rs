//! Both ways against each other.

use proptest::prelude::*;

use super::{
    field128::{Field128, Line08, Line18, MODULUS},
    query_08, query_18,
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn the_field_is_the_drafts(a in element(), b in element()) {
        use prio18::field::{Field128 as Theirs, FieldElement as _};
        type Ours = Field128<Line18>;
        let same = |ours: Ours, theirs: Theirs| {
            assert!(u128::from(ours) < MODULUS);
            assert_eq!(u128::from(ours), u128::from(theirs), "{a} {b}");
        };
        let (x, y, u, v) = (Ours::from(a), Ours::from(b), Theirs::from(a), Theirs::from(b));
        same(x + y, u + v);
        same(x - y, u - v);
        same(x * y, u * v);
        same(-x, -u);
        same(Ours::half(), Theirs::half());
        assert_eq!(x == y, u == v);
        if b != 0 && a.is_multiple_of(16) {
            same(x / y, u / v);
        }
    }

    #[test]
    fn elements_have_one_encoding(bytes in any::<[u8; 16]>(), edge in 0_u128..60) {
        use prio18::codec::{Decode as _, Encode as _};
        use prio18::field::Field128 as Theirs;
        for bytes in [bytes, (MODULUS - 30).saturating_add(edge).to_le_bytes()] {
            let (ours, theirs) =
                (Field128::<Line18>::get_decoded(&bytes), Theirs::get_decoded(&bytes));
            assert_eq!(ours.is_ok(), theirs.is_ok());
            if let (Ok(ours), Ok(theirs)) = (ours, theirs) {
                assert_eq!(u128::from(ours), u128::from(theirs));
                assert_eq!(ours.get_encoded().unwrap(), bytes);
            }
        }
    }
}

#[test]
fn roots_of_unity_are_those_of_prio() {
    use prio18::field::{Field128 as Theirs, NttFriendlyFieldElement as _};
    for l in 0..=21 {
        let ours = Field128::<Line18>::root(l).map(u128::from);
        assert_eq!(ours, Theirs::root(l).map(u128::from), "{l}");
    }
    assert_eq!(u128::from(Field128::<Line18>::generator()), u128::from(Theirs::generator()));
}

/// Numbers that look random, the same each time.
fn numbers(seed: u64) -> impl FnMut() -> u128 {
    let mut state = u128::from(seed) | 1 << 100;
    move || {
        state = state.wrapping_mul(0x2360_ED05_1FC6_5DA4_4385_DF64_9FCC_F645).wrapping_add(1);
        (state ^ (state >> 61)) % MODULUS
    }
}

/// Compares the queries of a circuit in both fields: the same bytes, or a refusal by both. The inputs are no shares of
/// anything: a query is a function of whatever it is given.
macro_rules! compare {
    ($name:ident, $prio:ident, $query:ident, $line:ident, $field:ident, [$($circuit:expr),+ $(,)?]) => {
        #[test]
        fn $name() {
            #[allow(unused_imports)]
            use $prio::{codec::Encode as _, field::{Field64, Field128 as Theirs}, flp::{*, gadgets::*, types::*}};
            type Ours = Field128<$line>;
            $({
                type $field = Theirs;
                let theirs = $circuit;
                let ours = {
                    type $field = Ours;
                    $query::Fast($circuit)
                };
                for seed in 0..8_u64 {
                    let mut next = numbers(seed);
                    let mut some = |len: usize| -> Vec<u128> {
                        (0..len).map(|_| match seed { 0 => 0, 1 => MODULUS - 1, 2 => next() % 2, _ => next() }).collect()
                    };
                    let cut = usize::from(seed == 7);
                    let [input, proof, mut query_rand, joint_rand] = [
                        theirs.input_len(), theirs.proof_len() - cut, theirs.query_rand_len(), theirs.joint_rand_len(),
                    ].map(&mut some);
                    if seed == 6 {
                        // A root of unity, which nobody may ask for.
                        query_rand.iter_mut().for_each(|r| *r = MODULUS - 1);
                    }
                    let by = |seed_shares: usize| {
                        let mine = |v: &Vec<u128>| v.iter().map(|n| Ours::from(*n)).collect::<Vec<_>>();
                        let prios = |v: &Vec<u128>| v.iter().map(|n| Theirs::from(*n)).collect::<Vec<_>>();
                        let a = ours.query(&mine(&input), &mine(&proof), &mine(&query_rand), &mine(&joint_rand), seed_shares);
                        let b = theirs.query(&prios(&input), &prios(&proof), &prios(&query_rand), &prios(&joint_rand), seed_shares);
                        let a = a.map(|v| v.into_iter().map(u128::from).collect::<Vec<_>>()).map_err(|e| e.to_string());
                        let b = b.map(|v| v.into_iter().map(u128::from).collect::<Vec<_>>()).map_err(|e| e.to_string());
                        assert_eq!(a, b, "{} seed {seed}", stringify!($circuit));
                        a.is_ok()
                    };
                    let is_ok = by(2);
                    assert!(is_ok || !(3..6).contains(&seed), "{} seed {seed}", stringify!($circuit));
                    assert!(!is_ok || seed < 6, "{} seed {seed}", stringify!($circuit));
                    by(1);
                }
            })+
        }
    };
}

compare!(
    queries_are_those_of_prio_0_16,
    prio08,
    query_08,
    Line08,
    F,
    [
        SumVec::<F, ParallelSum<F, Mul<F>>>::new(1, 10, 3).unwrap(),
        SumVec::<F, ParallelSum<F, Mul<F>>>::new(8, 10, 9).unwrap(),
        SumVec::<F, ParallelSum<F, Mul<F>>>::new(1, 1_000, 32).unwrap(),
        SumVec::<F, ParallelSum<F, Mul<F>>>::new(1, 1, 1).unwrap(),
        Histogram::<F, ParallelSum<F, Mul<F>>>::new(4, 2).unwrap(),
        Histogram::<F, ParallelSum<F, Mul<F>>>::new(100, 10).unwrap(),
        Histogram::<F, ParallelSum<F, Mul<F>>>::new(7, 100).unwrap(),
        MultihotCountVec::<F, ParallelSum<F, Mul<F>>>::new(10, 3, 4).unwrap(),
        Sum::<F>::new(8).unwrap(),
        Count::<F>::new(),
    ]
);

compare!(
    queries_are_those_of_prio_0_18,
    prio18,
    query_18,
    Line18,
    F,
    [
        SumVec::<F, ParallelSum<F, Mul>>::new(1, 10, 3).unwrap(),
        SumVec::<F, ParallelSum<F, Mul>>::new(200, 10, 9).unwrap(),
        SumVec::<F, ParallelSum<F, Mul>>::new(1, 1_000, 32).unwrap(),
        SumVec::<F, ParallelSum<F, Mul>>::new(1, 1, 1).unwrap(),
        Histogram::<F, ParallelSum<F, Mul>>::new(4, 2).unwrap(),
        Histogram::<F, ParallelSum<F, Mul>>::new(100, 10).unwrap(),
        Histogram::<F, ParallelSum<F, Mul>>::new(7, 100).unwrap(),
        MultihotCountVec::<F, ParallelSum<F, Mul>>::new(10, 3, 4).unwrap(),
        Sum::<F>::new(255).unwrap(),
        Sum::<F>::new(1_000).unwrap(),
        Count::<F>::new(),
    ]
);
