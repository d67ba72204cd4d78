use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::ids::TaskId;

mod poplar1;

const DRAFTS: [VdafDraft; 2] = [VdafDraft::V08, VdafDraft::V18];
const NONCE: [u8; 16] = [7; 16];

fn ctx() -> Vec<u8> {
    [&b"dap-18"[..], TaskId::new([3; 32]).as_bytes()].concat()
}

/// Both aggregators' shares of one report.
struct Verified {
    leader: OutputShare,
    helper: OutputShare,
    /// The messages, in order.
    messages: Vec<Vec<u8>>,
}

/// Verifies an honest report.
fn verify(
    vdaf: &Vdaf,
    key: &VerifyKey,
    agg_param: &AggregationParam,
    nonce: &[u8; 16],
    r: &ShardedReport,
) -> Verified {
    let ctx = &ctx();
    let (state, init) = vdaf
        .leader_init(key, ctx, agg_param, nonce, &r.public_share, &r.leader_input_share)
        .unwrap();
    let helper = vdaf
        .helper_init(key, ctx, agg_param, nonce, &r.public_share, &r.helper_input_share, &init)
        .unwrap();
    let (helper, answer) = match helper {
        HelperTransition::Finished { output, message } => (Ok(output), message),
        HelperTransition::Continued { state, message } => (Err(state), message),
    };
    let leader = vdaf.leader_continued(ctx, state, agg_param, &answer).unwrap();
    let mut messages = vec![init, answer];
    let (leader, helper) = match (leader, helper) {
        (LeaderTransition::Finished(leader), Ok(helper)) => (leader, helper),
        (LeaderTransition::FinishedWithOutbound(leader, message), Err(state)) => {
            let helper = vdaf.helper_continued(ctx, state, agg_param, &message).unwrap();
            messages.push(message);
            (leader, helper)
        }
        _ => panic!("one is done and the other waits"),
    };
    assert_eq!(messages.len(), vdaf.rounds() as usize + 1);
    Verified { leader, helper, messages }
}

/// Each VDAF with measurements at the ends of their ranges.
fn instances() -> Vec<(VdafConfig, Vec<Measurement>)> {
    let vectors = vec![
        Measurement::SumVec(vec![0; 10]),
        Measurement::SumVec(vec![255; 10]),
        Measurement::SumVec((0..10).collect()),
    ];
    let (length, max_measurement, chunk_length) = (10, 255, 9);
    vec![
        (VdafConfig::Prio3Count, vec![Measurement::Count(true), Measurement::Count(false)]),
        (
            VdafConfig::Prio3Sum { max_measurement },
            vec![Measurement::Sum(0), Measurement::Sum(255), Measurement::Sum(77)],
        ),
        (VdafConfig::Prio3SumVec { length, max_measurement, chunk_length }, vectors.clone()),
        (
            VdafConfig::Prio3Histogram { length: 4, chunk_length: 2 },
            vec![Measurement::Histogram(0), Measurement::Histogram(3), Measurement::Histogram(3)],
        ),
        (
            VdafConfig::Prio3MultihotCountVec { length: 4, max_weight: 2, chunk_length: 2 },
            [[false; 4], [true, false, false, true], [true, false, false, false]]
                .map(|v| Measurement::MultihotCountVec(v.to_vec()))
                .to_vec(),
        ),
        (
            VdafConfig::Prio3SumVecField64MultiproofHmacSha256Aes128 {
                length,
                max_measurement,
                chunk_length,
                proofs: 2,
            },
            vectors,
        ),
    ]
}

/// Each instance of Prio3.
fn each(mut f: impl FnMut(Vdaf, VerifyKey, AggregationParam, Vec<Measurement>)) {
    for draft in DRAFTS {
        for (config, measurements) in instances() {
            let vdaf = Vdaf::new(draft, config).unwrap();
            let key = vdaf.verify_key(&vec![0x11; vdaf.verify_key_len()]).unwrap();
            let agg_param = vdaf.decode_agg_param(&[]).unwrap();
            f(vdaf, key, agg_param, measurements);
        }
    }
}

#[test]
fn the_sum_of_verified_reports_is_the_truth() {
    each(|vdaf, key, agg_param, measurements| {
        sum_is_the_truth(&vdaf, &key, &agg_param, &measurements);
    });
}

fn sum_is_the_truth(
    vdaf: &Vdaf,
    key: &VerifyKey,
    agg_param: &AggregationParam,
    measurements: &[Measurement],
) {
    let (mut leader, mut helper) = (vdaf.aggregate_init(agg_param), vdaf.aggregate_init(agg_param));
    let mut stored = share::zero(vdaf.agg_share_len(agg_param));
    for (i, measurement) in measurements.iter().enumerate() {
        let nonce = [i as u8; 16];
        let report = vdaf.shard(&ctx(), measurement, &nonce).unwrap();
        let verified = verify(vdaf, key, agg_param, &nonce, &report);
        leader.accumulate(&verified.leader).unwrap();
        helper.accumulate(&verified.helper).unwrap();
        let mut one = vdaf.aggregate_init(agg_param);
        one.accumulate(&verified.leader).unwrap();
        let field = vdaf.field().at(&agg_param.encode());
        share::add_assign(field, &mut stored, &one.encode()).unwrap();
    }
    let (leader, helper) = (leader.encode(), helper.encode());
    assert_eq!((leader.len(), &leader), (vdaf.agg_share_len(agg_param), &stored));
    assert!(leader.len() <= vdaf.agg_share_len_max());
    let result = vdaf.unshard(agg_param, &leader, &helper, measurements.len() as u64).unwrap();
    assert_eq!(result, vdaf.truth(agg_param, measurements.iter()).unwrap());
}

/// Bytes of the public share, both input shares, both messages and an aggregate share.
#[test]
fn encodings_have_the_sizes_of_the_drafts() {
    let mut sizes = Vec::new();
    each(|vdaf, key, agg_param, measurements| {
        let r = vdaf.shard(&ctx(), &measurements[0], &NONCE).unwrap();
        let verified = verify(&vdaf, &key, &agg_param, &NONCE, &r);
        sizes.push([
            vdaf.verify_key_len(),
            r.public_share.len(),
            r.leader_input_share.len(),
            r.helper_input_share.len(),
            verified.messages[0].len(),
            verified.messages[1].len(),
            vdaf.agg_share_len(&agg_param),
        ]);
    });
    assert_eq!(
        sizes,
        [
            // VDAF-08
            [16, 0, 48, 32, 37, 5, 8],
            [16, 32, 656, 48, 69, 21, 16],
            [16, 32, 2080, 48, 341, 21, 160],
            [16, 32, 256, 48, 117, 21, 64],
            [16, 32, 288, 48, 117, 21, 64],
            [32, 64, 1456, 96, 357, 37, 80],
            // VDAF-18
            [32, 0, 48, 32, 37, 5, 8],
            [32, 0, 320, 32, 29, 5, 8],
            [32, 64, 2096, 64, 357, 37, 160],
            [32, 64, 272, 64, 133, 37, 64],
            [32, 64, 304, 64, 133, 37, 64],
            [32, 64, 1456, 64, 357, 37, 80],
        ]
    );
}

#[test]
fn whatever_is_changed_the_report_is_refused() {
    each(|vdaf, key, agg_param, measurements| {
        let ctx = ctx();
        let r = vdaf.shard(&ctx, &measurements[1], &NONCE).unwrap();
        let leader = |key: &VerifyKey, ctx: &[u8], public: &[u8], input: &[u8]| {
            vdaf.leader_init(key, ctx, &agg_param, &NONCE, public, input)
        };
        let helper = |key: &VerifyKey, ctx: &[u8], public: &[u8], input: &[u8], inbound: &[u8]| {
            vdaf.helper_init(key, ctx, &agg_param, &NONCE, public, input, inbound)
        };
        let (state, init) = leader(&key, &ctx, &r.public_share, &r.leader_input_share).unwrap();
        let finish = match helper(&key, &ctx, &r.public_share, &r.helper_input_share, &init) {
            Ok(HelperTransition::Finished { message, .. }) => message,
            other => panic!("{other:?}"),
        };

        // Lengths: shorter, longer, empty.
        let resized = |bytes: &[u8]| {
            let mut all: Vec<Vec<u8>> = (0..bytes.len()).map(|n| bytes[..n].to_vec()).collect();
            all.push([bytes, b"\0"].concat());
            all
        };
        for public in resized(&r.public_share) {
            let result = leader(&key, &ctx, &public, &r.leader_input_share);
            assert!(result.unwrap_err().is_undecodable_share());
            let result = helper(&key, &ctx, &public, &r.helper_input_share, &init);
            assert!(result.unwrap_err().is_undecodable_share());
        }
        for input in resized(&r.leader_input_share) {
            let result = leader(&key, &ctx, &r.public_share, &input);
            assert!(result.unwrap_err().is_undecodable_share());
        }
        for input in resized(&r.helper_input_share) {
            let result = helper(&key, &ctx, &r.public_share, &input, &init);
            assert!(result.unwrap_err().is_undecodable_share());
        }
        for init in resized(&init) {
            let result = helper(&key, &ctx, &r.public_share, &r.helper_input_share, &init);
            assert!(!result.unwrap_err().is_undecodable_share());
        }
        for finish in resized(&finish).iter().chain([&init, &[0xff; 5].to_vec()]) {
            let result = vdaf.leader_continued(&ctx, state.clone(), &agg_param, finish);
            assert!(!result.unwrap_err().is_undecodable_share());
        }

        // A field element at its modulus or above.
        let unreduced = [&[0xff; 16][..], &r.leader_input_share[16..]].concat();
        let result = leader(&key, &ctx, &r.public_share, &unreduced);
        assert!(result.unwrap_err().is_undecodable_share());
        let unreduced = [&init[..5], &[0xff; 16], &init[21..]].concat();
        let result = helper(&key, &ctx, &r.public_share, &r.helper_input_share, &unreduced);
        assert!(!result.unwrap_err().is_undecodable_share());

        // Well-formed and wrong: the leader's and the helper's share, its message, the key, the context.
        let refused = |init: Result<(LeaderState, Vec<u8>), VerifyError>| {
            let (_, init) = init.unwrap();
            let result = helper(&key, &ctx, &r.public_share, &r.helper_input_share, &init);
            assert!(!result.unwrap_err().is_undecodable_share());
        };
        let mut changed = r.leader_input_share.clone();
        changed[0] ^= 1;
        refused(leader(&key, &ctx, &r.public_share, &changed));
        let other_key = vdaf.verify_key(&vec![0x12; vdaf.verify_key_len()]).unwrap();
        refused(leader(&other_key, &ctx, &r.public_share, &r.leader_input_share));
        let mut changed = r.helper_input_share.clone();
        changed[0] ^= 1;
        let result = helper(&key, &ctx, &r.public_share, &changed, &init);
        assert!(!result.unwrap_err().is_undecodable_share());
        let mut changed = init.clone();
        changed[5] ^= 1;
        let result = helper(&key, &ctx, &r.public_share, &r.helper_input_share, &changed);
        assert!(!result.unwrap_err().is_undecodable_share());
        if finish.len() > 5 {
            let mut changed = finish.clone();
            changed[5] ^= 1;
            let result = vdaf.leader_continued(&ctx, state.clone(), &agg_param, &changed);
            assert!(!result.unwrap_err().is_undecodable_share());
        }
        let result = helper(&key, b"other", &r.public_share, &r.helper_input_share, &init);
        match vdaf.draft() {
            VdafDraft::V08 => assert!(result.is_ok(), "VDAF-08 has no context"),
            VdafDraft::V18 => assert!(!result.unwrap_err().is_undecodable_share()),
        }
    });
}

#[test]
fn states_and_shares_of_another_vdaf_are_refused() {
    let mut all = Vec::new();
    each(|vdaf, key, agg_param, measurements| {
        let r = vdaf.shard(&ctx(), &measurements[0], &NONCE).unwrap();
        let (state, init) = vdaf
            .leader_init(&key, &ctx(), &agg_param, &NONCE, &r.public_share, &r.leader_input_share)
            .unwrap();
        let helper = vdaf.helper_init(
            &key,
            &ctx(),
            &agg_param,
            &NONCE,
            &r.public_share,
            &r.helper_input_share,
            &init,
        );
        let Ok(HelperTransition::Finished { output, message }) = helper else { panic!() };
        all.push((vdaf, key, agg_param, state, message, output));
    });
    for (i, (vdaf, _, agg_param, ..)) in all.iter().enumerate() {
        for (j, (_, _, other_param, state, finish, output)) in all.iter().enumerate() {
            let same_shape = vdaf.agg_share_len(agg_param) == all[j].0.agg_share_len(other_param)
                && vdaf.field() == all[j].0.field()
                && vdaf.draft() == all[j].0.draft();
            assert_eq!(
                vdaf.aggregate_init(agg_param).accumulate(output).is_ok(),
                same_shape,
                "{i} {j}"
            );
            let result = vdaf.leader_continued(&ctx(), state.clone(), agg_param, finish);
            assert_eq!(result.is_ok(), i == j, "{i} {j}");
        }
    }
    let (short, long) = (&all[0], &all[6]);
    assert!(short.0.verify_key(&[0; 32]).is_err() && long.0.verify_key(&[0; 16]).is_err());
    let r = short.0.shard(&ctx(), &Measurement::Count(true), &NONCE).unwrap();
    let result = short.0.leader_init(
        &long.1,
        &ctx(),
        &short.2,
        &NONCE,
        &r.public_share,
        &r.leader_input_share,
    );
    assert!(!result.unwrap_err().is_undecodable_share());
}

#[test]
fn aggregate_shares_are_checked() {
    each(|vdaf, _, agg_param, _| {
        let good = share::zero(vdaf.agg_share_len(&agg_param));
        assert!(vdaf.unshard(&agg_param, &good, &good, u64::MAX).is_ok());
        let bad =
            [vec![0; good.len() - 1], vec![0; good.len() + 1], vec![0xff; good.len()], vec![]];
        for bad in &bad {
            assert_eq!(vdaf.unshard(&agg_param, bad, &good, 0), Err(UnshardError::LeaderShare));
            assert_eq!(vdaf.unshard(&agg_param, &good, bad, 0), Err(UnshardError::HelperShare));
        }
        assert!(vdaf.decode_agg_param(b"").is_ok() && vdaf.decode_agg_param(b"\0").is_err());
    });
}

#[test]
fn parameters_are_refused_in_plain_sentences() {
    let count = |draft, json| {
        let config = serde_json::from_value(json).unwrap();
        Vdaf::new(draft, config).map(|_| ()).map_err(|e| e.to_string())
    };
    let max = u32::MAX;
    let agg_share = "the aggregate share would be longer than 1572864 bytes";
    let input_share = "the leader's input share would be longer than 4194304 bytes";
    let multiproof = |length, max_measurement: u64, chunk_length, proofs| {
        json!({"Prio3SumVecField64MultiproofHmacSha256Aes128": {
            "length": length, "max_measurement": max_measurement, "chunk_length": chunk_length, "proofs": proofs
        }})
    };
    let multihot = |length, max_weight, chunk_length: u32| {
        json!({"Prio3MultihotCountVec": {
            "length": length, "max_weight": max_weight, "chunk_length": chunk_length
        }})
    };
    for (json, text) in [
        (json!({"Prio3Sum": {"max_measurement": 0}}), "max_measurement must be at least 1"),
        (json!({"Prio3Histogram": {"length": 0, "chunk_length": 1}}), "length must be at least 1"),
        (
            json!({"Prio3Histogram": {"length": 1, "chunk_length": 0}}),
            "chunk_length must be at least 1",
        ),
        (json!({"Prio3Histogram": {"length": max, "chunk_length": max}}), agg_share),
        (json!({"Prio3Histogram": {"length": 98_305, "chunk_length": 300}}), agg_share),
        (json!({"Prio3Histogram": {"length": 1, "chunk_length": max}}), input_share),
        (json!({"Prio3SumVec": {"length": 98_304, "bits": 3, "chunk_length": 1}}), input_share),
        (json!({"Prio3SumVec": {"length": 98_304, "bits": 2, "chunk_length": 1}}), input_share),
        (multihot(0, 1, 1), "length must be at least 1"),
        (multihot(4, 1, 0), "chunk_length must be at least 1"),
        (multihot(4, 0, 1), "max_weight must be between 1 and length"),
        (multihot(4, 5, 1), "max_weight must be between 1 and length"),
        (multihot(max, max, max), agg_share),
        (multihot(98_305, 1, 300), agg_share),
        (multihot(1, 1, max), input_share),
        (multiproof(10, 1, 1, 1), "proofs must be 2 or 3"),
        (multiproof(10, 1, 1, 4), "proofs must be 2 or 3"),
        (multiproof(max, 1, 1, 2), agg_share),
        (multiproof(100_000, 63, 300, 2), input_share),
        (multiproof(1, 1, max, 3), input_share),
    ] {
        for draft in DRAFTS {
            assert_eq!(count(draft, json.clone()), Err(text.into()), "{json}");
        }
    }
    // The largest histogram.
    for draft in DRAFTS {
        assert_eq!(
            count(draft, json!({"Prio3Histogram": {"length": 98_304, "chunk_length": 300}})),
            Ok(())
        );
    }
    // Every element may be set.
    for draft in DRAFTS {
        assert_eq!(count(draft, multihot(7, 7, 2)), Ok(()));
    }
    // VDAF-08 counts bits.
    let sum = |max: u64| json!({"Prio3Sum": {"max_measurement": max}});
    assert_eq!(count(VdafDraft::V18, sum(1337)), Ok(()));
    assert_eq!(
        count(VdafDraft::V08, sum(1337)).unwrap_err(),
        "DAP-09 can only bound integers by a number of bits, so max_measurement must be one less than a power of \
         two, not 1337"
    );
    for bits in 1..=64 {
        assert_eq!(count(VdafDraft::V08, sum(u64::MAX >> (64 - bits))), Ok(()), "{bits}");
    }
    // What only `prio` refuses: integers that the field cannot hold.
    for (draft, json) in [
        (VdafDraft::V18, sum(u64::MAX)),
        (VdafDraft::V18, multiproof(1, u64::MAX, 1, 2)),
        (VdafDraft::V08, multiproof(1, u64::MAX, 1, 2)),
    ] {
        assert!(count(draft, json).unwrap_err().starts_with("the VDAF refuses this: "));
    }
}

#[test]
fn measurements_out_of_range_are_not_shared() {
    each(|vdaf, _, agg_param, _| {
        for bad in [
            Measurement::Sum(256),
            Measurement::SumVec(vec![1; 9]),
            Measurement::SumVec(vec![256; 10]),
            Measurement::Histogram(4),
            Measurement::Histogram(usize::MAX),
            Measurement::MultihotCountVec(vec![true; 4]),
            Measurement::MultihotCountVec(vec![false; 5]),
            Measurement::Poplar1(BitString::from_bytes(&[0])),
        ] {
            assert!(vdaf.shard(&ctx(), &bad, &NONCE).is_err());
            assert!(vdaf.truth(&agg_param, [&bad].into_iter()).is_err());
        }
    });
}

#[test]
fn sums_reach_the_ends_of_their_ranges() {
    for (draft, max_measurement) in [(VdafDraft::V08, u64::MAX), (VdafDraft::V18, (1 << 63) + 5)] {
        let vdaf = Vdaf::new(draft, VdafConfig::Prio3Sum { max_measurement }).unwrap();
        let key = vdaf.verify_key(&vec![1; vdaf.verify_key_len()]).unwrap();
        let agg_param = vdaf.decode_agg_param(&[]).unwrap();
        let r = vdaf.shard(&ctx(), &Measurement::Sum(max_measurement), &NONCE).unwrap();
        let verified = verify(&vdaf, &key, &agg_param, &NONCE, &r);
        let [leader, helper] = [verified.leader, verified.helper].map(|output| {
            let mut sum = vdaf.aggregate_init(&agg_param);
            sum.accumulate(&output).unwrap();
            sum.encode()
        });
        let result = vdaf.unshard(&agg_param, &leader, &helper, 1).unwrap();
        assert_eq!(result, AggregateResult::Number(max_measurement.into()));
    }
}

#[test]
fn secrets_are_not_printed() {
    each(|vdaf, key, agg_param, measurements| {
        let r = vdaf.shard(&ctx(), &measurements[0], &NONCE).unwrap();
        let (state, _) = vdaf
            .leader_init(&key, &ctx(), &agg_param, &NONCE, &r.public_share, &r.leader_input_share)
            .unwrap();
        assert_eq!(
            format!(
                "{key:?} {r:?} {state:?} {:?} {:?}",
                vdaf.aggregate_init(&agg_param),
                measurements[0]
            ),
            "VerifyKey ShardedReport LeaderState AggregateShare Measurement"
        );
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Shares of the right lengths and any content, from a client that follows no rule: nobody panics, and nothing
    /// is accepted. Each length is sometimes off by a little.
    #[test]
    fn arbitrary_shares_are_refused(
        bytes in proptest::collection::vec(any::<u8>(), 8000),
        off in proptest::collection::vec(prop_oneof![8 => Just(0isize), 1 => -2isize..=2], 5),
    ) {
        each(|vdaf, key, agg_param, measurements| {
            let r = vdaf.shard(&ctx(), &measurements[0], &NONCE).unwrap();
            let (state, init) = vdaf
                .leader_init(&key, &ctx(), &agg_param, &NONCE, &r.public_share, &r.leader_input_share)
                .unwrap();
            let mut rest = &bytes[..];
            let mut arbitrary = |like: &[u8], i: usize| {
                let (head, tail) = rest.split_at(like.len().saturating_add_signed(off[i]));
                rest = tail;
                head.to_vec()
            };
            let public_share = arbitrary(&r.public_share, 0);
            let leader = arbitrary(&r.leader_input_share, 1);
            let helper = arbitrary(&r.helper_input_share, 2);
            let body = arbitrary(&init[5..], 3);
            let message =
                [&[0][..], &u32::try_from(body.len()).unwrap().to_be_bytes(), &body].concat();
            assert!(vdaf.helper_init(&key, &ctx(), &agg_param, &NONCE, &public_share, &helper, &message).is_err());
            assert!(
                vdaf.helper_init(&key, &ctx(), &agg_param, &NONCE, &r.public_share, &r.helper_input_share, &message)
                    .is_err()
            );
            assert!(vdaf.leader_continued(&ctx(), state, &agg_param, &arbitrary(&init, 4)).is_err());
            if let Ok((_, init)) = vdaf.leader_init(&key, &ctx(), &agg_param, &NONCE, &public_share, &leader) {
                assert!(vdaf.helper_init(&key, &ctx(), &agg_param, &NONCE, &public_share, &helper, &init).is_err());
            }
        });
    }
}

/// Verifies a report of a hostile client: whether the helper takes it, and if so, whether the leader does.
fn verdicts(report: &ShardedReport) -> (bool, Option<bool>) {
    let config = VdafConfig::Prio3SumVec { length: 10, max_measurement: 3, chunk_length: 6 };
    let vdaf = Vdaf::new(VdafDraft::V08, config).unwrap();
    let key = vdaf.verify_key(&[9; 16]).unwrap();
    let (param, ctx) = (&vdaf.decode_agg_param(&[]).unwrap(), &ctx());
    let r = report;
    let (state, init) =
        vdaf.leader_init(&key, ctx, param, &NONCE, &r.public_share, &r.leader_input_share).unwrap();
    match vdaf.helper_init(&key, ctx, param, &NONCE, &r.public_share, &r.helper_input_share, &init)
    {
        Ok(HelperTransition::Finished { message, .. }) => {
            (true, Some(vdaf.leader_continued(ctx, state, param, &message).is_ok()))
        }
        Ok(HelperTransition::Continued { .. }) => panic!("there is one round"),
        Err(e) => {
            assert!(!e.is_undecodable_share());
            (false, None)
        }
    }
}

#[test]
fn what_the_leader_will_refuse_the_helper_refuses() {
    let report = |honest| crate::testing::half_valid::sum_vec_08(10, 2, 6, &NONCE, honest);
    assert_eq!(verdicts(&report(true)), (true, Some(true)));
    assert_eq!(verdicts(&report(false)), (false, None));
}
