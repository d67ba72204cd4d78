//! Poplar1: two rounds, and a parameter.

use super::*;

fn prefixes(list: &[&str]) -> Vec<BitString> {
    list.iter().map(|p| p.parse().unwrap()).collect()
}

/// 5 bits in both drafts, with parameters of inner levels and of the leaves.
fn each(mut f: impl FnMut(Vdaf, VerifyKey, AggregationParam, Vec<Measurement>)) {
    let strings = ["10110", "10111", "00000", "10110"];
    let measurements = strings.map(|s| Measurement::Poplar1(s.parse().unwrap())).to_vec();
    for draft in DRAFTS {
        let vdaf = Vdaf::new(draft, VdafConfig::Poplar1 { bits: 5 }).unwrap();
        let key = vdaf.verify_key(&vec![0x11; vdaf.verify_key_len()]).unwrap();
        for list in [&["0", "1"][..], &["000", "101", "111"], &["10110", "11111"]] {
            let agg_param = vdaf.prefixes(&prefixes(list)).unwrap();
            f(vdaf.clone(), key.clone(), agg_param, measurements.clone());
        }
    }
}

/// A report between its messages: what the leader knows, its message, and the helper's answer.
struct Begun {
    report: ShardedReport,
    leader: LeaderState,
    init: Vec<u8>,
    helper: HelperState,
    answer: Vec<u8>,
}

fn begin(vdaf: &Vdaf, key: &VerifyKey, agg_param: &AggregationParam, m: &Measurement) -> Begun {
    let report = vdaf.shard(&ctx(), m, &NONCE).unwrap();
    let (leader, init) = vdaf
        .leader_init(
            key,
            &ctx(),
            agg_param,
            &NONCE,
            &report.public_share,
            &report.leader_input_share,
        )
        .unwrap();
    let (helper, answer) = waiting(answer(vdaf, key, agg_param, &report, &init)).unwrap();
    Begun { report, leader, init, helper, answer }
}

fn answer(
    vdaf: &Vdaf,
    key: &VerifyKey,
    agg_param: &AggregationParam,
    r: &ShardedReport,
    init: &[u8],
) -> Result<HelperTransition, VerifyError> {
    vdaf.helper_init(key, &ctx(), agg_param, &NONCE, &r.public_share, &r.helper_input_share, init)
}

fn waiting(
    helper: Result<HelperTransition, VerifyError>,
) -> Result<(HelperState, Vec<u8>), VerifyError> {
    match helper? {
        HelperTransition::Continued { state, message } => Ok((state, message)),
        HelperTransition::Finished { .. } => panic!("the helper has another round to go"),
    }
}

fn outbound(
    leader: Result<LeaderTransition, VerifyError>,
) -> Result<(OutputShare, Vec<u8>), VerifyError> {
    match leader? {
        LeaderTransition::FinishedWithOutbound(output, message) => Ok((output, message)),
        LeaderTransition::Finished(_) => panic!("the leader owes a message"),
    }
}

#[test]
fn prefixes_are_counted() {
    let mut truths = Vec::new();
    each(|vdaf, key, agg_param, measurements| {
        sum_is_the_truth(&vdaf, &key, &agg_param, &measurements);
        truths.push(vdaf.truth(&agg_param, measurements.iter()).unwrap());
    });
    let truth = [vec![1_u128, 3], vec![1, 3, 0], vec![2, 0]].map(AggregateResult::Vector);
    assert_eq!(truths, [&truth[..], &truth].concat());
}

/// At both ends of the range of bits.
#[test]
fn strings_of_one_bit_and_of_4096_are_counted() {
    for draft in DRAFTS {
        for bits in [1, 2, POPLAR1_BITS_MAX] {
            let vdaf = Vdaf::new(draft, VdafConfig::Poplar1 { bits }).unwrap();
            let key = vdaf.verify_key(&vec![1; vdaf.verify_key_len()]).unwrap();
            let string: BitString = (0..bits).map(|bit| bit % 3 == 0).collect();
            for len in [1, bits - 1, bits] {
                if len > 0 {
                    let agg_param = vdaf.prefixes(&[string.prefix(len.into())]).unwrap();
                    let measurements = [Measurement::Poplar1(string.clone())];
                    sum_is_the_truth(&vdaf, &key, &agg_param, &measurements);
                }
            }
        }
        for bits in [0, POPLAR1_BITS_MAX + 1, u16::MAX] {
            let error = Vdaf::new(draft, VdafConfig::Poplar1 { bits }).unwrap_err();
            assert_eq!(error.to_string(), "bits must be between 1 and 4096");
        }
    }
}

/// Bytes of the public share, both input shares, the three messages, an aggregate share, and a helper's state.
#[test]
fn encodings_have_the_sizes_of_the_drafts() {
    let mut sizes = Vec::new();
    for draft in DRAFTS {
        let vdaf = Vdaf::new(draft, VdafConfig::Poplar1 { bits: 8 }).unwrap();
        let key = vdaf.verify_key(&vec![1; vdaf.verify_key_len()]).unwrap();
        for list in [["000", "101"], ["00000000", "11111111"]] {
            let agg_param = vdaf.prefixes(&prefixes(&list)).unwrap();
            let measurement = Measurement::Poplar1("10110101".parse().unwrap());
            let begun = begin(&vdaf, &key, &agg_param, &measurement);
            let verified = verify(&vdaf, &key, &agg_param, &NONCE, &begun.report);
            sizes.push([
                begun.report.public_share.len(),
                begun.report.leader_input_share.len(),
                begun.report.helper_input_share.len(),
                verified.messages[0].len(),
                verified.messages[1].len(),
                verified.messages[2].len(),
                vdaf.agg_share_len(&agg_param),
                vdaf.helper_state_len(&agg_param),
            ]);
        }
    }
    assert_eq!(
        sizes,
        [
            // VDAF-08: an inner level, then the leaves.
            [306, 208, 208, 29, 41, 5, 16, 22],
            [306, 208, 208, 101, 137, 5, 64, 70],
            // VDAF-18
            [306, 224, 224, 29, 41, 5, 16, 22],
            [306, 224, 224, 101, 137, 5, 64, 70],
        ]
    );
}

#[test]
fn a_state_is_kept_between_the_rounds() {
    each(|vdaf, key, agg_param, measurements| {
        let begun = begin(&vdaf, &key, &agg_param, &measurements[0]);
        let kept = begun.helper.encode();
        assert_eq!(kept.len(), vdaf.helper_state_len(&agg_param));
        let state = vdaf.decode_helper_state(&agg_param, &kept).unwrap();
        assert_eq!(state.encode(), kept);
        let (_, finish) = outbound(vdaf.leader_continued(
            &ctx(),
            begun.leader.clone(),
            &agg_param,
            &begun.answer,
        ))
        .unwrap();
        let sums = [begun.helper.clone(), state].map(|state| {
            let output = vdaf.helper_continued(&ctx(), state, &agg_param, &finish).unwrap();
            let mut sum = vdaf.aggregate_init(&agg_param);
            sum.accumulate(&output).unwrap();
            sum.encode()
        });
        assert_eq!(sums[0], sums[1]);
        // The state is the output share, and what it is; so nothing else fits.
        assert_eq!(kept[6..], sums[0]);
        let leaf = u8::from(agg_param.is_leaf());
        assert_eq!(kept[..6], [leaf, 1, 0, 0, 0, agg_param.prefix_count() as u8]);

        let refused = |bytes: &[u8]| vdaf.decode_helper_state(&agg_param, bytes).is_err();
        for n in 0..kept.len() {
            assert!(refused(&kept[..n]), "{n}");
        }
        assert!(refused(&[&kept[..], &[0]].concat()));
        for (i, byte) in (0..6).flat_map(|i| (0..=255).map(move |byte| (i, byte))) {
            let mut changed = kept.clone();
            changed[i] = byte;
            assert_eq!(refused(&changed), byte != kept[i], "{i} {byte}");
        }
        let unreduced = [&kept[..6], &vec![0xff; kept.len() - 6]].concat();
        assert!(refused(&unreduced));
        // Another level, another number of prefixes, another VDAF.
        for list in [&["1"][..], &["0000", "0001"], &["0", "1"], &["00000", "00001", "00010"]] {
            let other = vdaf.prefixes(&prefixes(list)).unwrap();
            let same = other.prefix_count() == agg_param.prefix_count()
                && other.is_leaf() == agg_param.is_leaf();
            assert_eq!(vdaf.decode_helper_state(&other, &kept).is_ok(), same, "{list:?}");
        }
        let count = Vdaf::new(vdaf.draft(), VdafConfig::Prio3Count).unwrap();
        let only = count.decode_agg_param(&[]).unwrap();
        assert_eq!(count.helper_state_len(&only), 0);
        assert!(count.decode_helper_state(&only, &[]).is_err());
        assert!(vdaf.decode_helper_state(&only, &kept).is_err());
    });
}

/// Bytes that an earlier build has stored, of both drafts, at an inner level and at the leaves.
#[test]
fn kept_states_are_golden() {
    let element = |n: u8, len: usize| {
        let mut element = vec![0; len];
        element[0] = n;
        element
    };
    for draft in DRAFTS {
        let vdaf = Vdaf::new(draft, VdafConfig::Poplar1 { bits: 2 }).unwrap();
        for (list, header, len) in
            [(["0", "1"], [0, 1, 0, 0, 0, 2], 8), (["01", "10"], [1, 1, 0, 0, 0, 2], 32)]
        {
            let agg_param = vdaf.prefixes(&prefixes(&list)).unwrap();
            let shares = [element(7, len), element(9, len)].concat();
            let kept = [&header[..], &shares].concat();
            let state = vdaf.decode_helper_state(&agg_param, &kept).unwrap();
            assert_eq!(state.encode(), kept);
            // The leader's message of the last round is empty.
            let finish = [2, 0, 0, 0, 0];
            let output = vdaf.helper_continued(&ctx(), state, &agg_param, &finish).unwrap();
            let mut sum = vdaf.aggregate_init(&agg_param);
            sum.accumulate(&output).unwrap();
            assert_eq!(sum.encode(), shares);
            let result = vdaf.unshard(&agg_param, &shares, &shares, 0).unwrap();
            assert_eq!(result, AggregateResult::Vector(vec![14, 18]));
        }
    }
}

#[test]
fn a_message_of_another_kind_is_refused() {
    each(|vdaf, key, agg_param, measurements| {
        let begun = begin(&vdaf, &key, &agg_param, &measurements[0]);
        let leader = |message: &[u8]| {
            outbound(vdaf.leader_continued(&ctx(), begun.leader.clone(), &agg_param, message))
        };
        let helper = |message: &[u8]| {
            vdaf.helper_continued(&ctx(), begun.helper.clone(), &agg_param, message)
        };
        let (_, finish) = leader(&begun.answer).unwrap();
        assert!(helper(&finish).is_ok());
        // Of all messages that there are, each is good in one place.
        let mut messages = vec![begun.init.clone(), begun.answer.clone(), finish.clone()];
        // The others: the same bytes under another type, a type that does not exist, and cut or longer ones.
        for message in messages.clone() {
            for kind in 0..4 {
                messages.push([&[kind], &message[1..]].concat());
            }
            messages.extend((0..message.len()).map(|n| message[..n].to_vec()));
            messages.push([&message[..], &[0]].concat());
        }
        // Right kinds with too little or too much in them.
        let share_len = begun.init.len() - 5;
        for [first, second] in [[0, 0], [share_len, 0], [share_len, 2], [share_len + 1, 8]] {
            let part = |len: usize| {
                [&u32::try_from(len).unwrap().to_be_bytes()[..], &vec![0; len]].concat()
            };
            // The helper takes any share of the right length: it is the leader that judges.
            if first != share_len {
                messages.push([vec![0], part(first)].concat());
            }
            messages.push([vec![1], part(first), part(second)].concat());
            messages.push([vec![2], part(first.max(1))].concat());
        }
        for message in &messages {
            let first = waiting(answer(&vdaf, &key, &agg_param, &begun.report, message));
            assert_eq!(first.is_ok(), *message == begun.init, "{message:?}");
            assert_eq!(leader(message).is_ok(), *message == begun.answer, "{message:?}");
            assert_eq!(helper(message).is_ok(), *message == finish, "{message:?}");
            for result in [first.err(), leader(message).err(), helper(message).err()] {
                assert!(!result.is_some_and(VerifyError::is_undecodable_share));
            }
        }
    });
}

/// The helper sees no proof: it is the leader that finds the sum of both sketches to be zero, or not.
#[test]
fn whatever_is_changed_the_leader_refuses_the_report() {
    each(|vdaf, key, agg_param, measurements| {
        let begun = begin(&vdaf, &key, &agg_param, &measurements[0]);
        let leader = |r: &ShardedReport, key: &VerifyKey| {
            let (public, input) = (&r.public_share, &r.leader_input_share);
            vdaf.leader_init(key, &ctx(), &agg_param, &NONCE, public, input)
        };
        let refused = |leading: &ShardedReport, key_l: &VerifyKey, helping: &ShardedReport| {
            let Ok((state, init)) = leader(leading, key_l) else { return true };
            let Ok((_, message)) = waiting(answer(&vdaf, &key, &agg_param, helping, &init)) else {
                return true;
            };
            outbound(vdaf.leader_continued(&ctx(), state, &agg_param, &message)).is_err()
        };
        let good = &begun.report;
        assert!(!refused(good, &key, good));
        let other_key = vdaf.verify_key(&vec![0x12; vdaf.verify_key_len()]).unwrap();
        assert!(refused(good, &other_key, good));
        // Bits of the tree's root words, which every level depends on, and of both keys.
        for bit in 0..16 {
            let flip = |bytes: &mut Vec<u8>, at: usize| bytes[at + bit / 8] ^= 1 << (bit % 8);
            let mut changed = good.clone();
            flip(&mut changed.leader_input_share, 0);
            assert!(refused(&changed, &key, good));
            let mut changed = good.clone();
            flip(&mut changed.helper_input_share, 0);
            assert!(refused(good, &key, &changed));
        }
        // The correlated randomness, wherever it is used.
        let parts = match (agg_param.level(), vdaf.draft()) {
            (Some(4), _) => good.leader_input_share.len() - 64..good.leader_input_share.len(),
            (Some(level), VdafDraft::V08) => {
                32 + 16 * usize::from(level)..48 + 16 * usize::from(level)
            }
            (Some(level), VdafDraft::V18) => {
                48 + 16 * usize::from(level)..64 + 16 * usize::from(level)
            }
            (None, _) => panic!("Poplar1 has levels"),
        };
        for at in parts {
            let mut changed = good.clone();
            changed.leader_input_share[at] ^= 1;
            assert!(refused(&changed, &key, good), "{at}");
        }
        // A public share that the helper sees differently, or that belongs to other keys.
        let other = vdaf.shard(&ctx(), &measurements[2], &NONCE).unwrap();
        let swapped = ShardedReport { public_share: other.public_share.clone(), ..good.clone() };
        assert!(refused(good, &key, &swapped) && refused(&swapped, &key, &swapped));
        // Lengths, and field elements beyond their field.
        for n in 0..good.leader_input_share.len() {
            let mut changed = good.clone();
            changed.leader_input_share.truncate(n);
            let result = leader(&changed, &key).unwrap_err();
            assert!(result.is_undecodable_share());
        }
        for n in (0..good.public_share.len()).chain([usize::MAX]) {
            let mut changed = good.clone();
            match n {
                usize::MAX => changed.public_share.push(0),
                n => changed.public_share.truncate(n),
            }
            let result = waiting(answer(&vdaf, &key, &agg_param, &changed, &begun.init));
            assert!(result.unwrap_err().is_undecodable_share());
        }
        let mut changed = good.clone();
        let end = changed.helper_input_share.len();
        changed.helper_input_share[end - 32..].fill(0xff);
        let result = waiting(answer(&vdaf, &key, &agg_param, &changed, &begun.init));
        assert!(result.unwrap_err().is_undecodable_share());
        // The context, where there is one.
        let result = vdaf.helper_init(
            &key,
            b"other",
            &agg_param,
            &NONCE,
            &good.public_share,
            &good.helper_input_share,
            &begun.init,
        );
        let (_, message) = waiting(result).unwrap();
        let result =
            outbound(vdaf.leader_continued(&ctx(), begun.leader.clone(), &agg_param, &message));
        assert_eq!(result.is_ok(), vdaf.draft() == VdafDraft::V08);
    });
}

/// Those of another parameter of the same VDAF are not told apart: whoever keeps a state knows what it is for. Nothing
/// panics.
#[test]
fn states_and_parameters_of_another_vdaf_are_refused() {
    let mut all = Vec::new();
    each(|vdaf, key, agg_param, measurements| {
        let begun = begin(&vdaf, &key, &agg_param, &measurements[0]);
        let leader = begun.leader.clone();
        let leader = vdaf.leader_continued(&ctx(), leader, &agg_param, &begun.answer);
        let (output, finish) = outbound(leader).unwrap();
        all.push((vdaf, key, agg_param, begun, output, finish));
    });
    let count = Vdaf::new(VdafDraft::V08, VdafConfig::Prio3Count).unwrap();
    let wider = Vdaf::new(VdafDraft::V08, VdafConfig::Poplar1 { bits: 6 }).unwrap();
    let strange = [
        count.decode_agg_param(&[]).unwrap(),
        wider.prefixes(&prefixes(&["000000"])).unwrap(),
        wider.prefixes(&prefixes(&["0"])).unwrap(),
    ];
    for (i, (vdaf, key, agg_param, begun, output, finish)) in all.iter().enumerate() {
        for (j, (_, _, other_param, other, other_output, other_finish)) in all.iter().enumerate() {
            let same_shape = vdaf.draft() == all[j].0.draft()
                && vdaf.agg_share_len(agg_param) == all[j].0.agg_share_len(other_param)
                && agg_param.is_leaf() == other_param.is_leaf();
            let mut sum = vdaf.aggregate_init(agg_param);
            assert_eq!(sum.accumulate(other_output).is_ok(), same_shape, "{i} {j}");
            let state = other.leader.clone();
            let result = vdaf.leader_continued(&ctx(), state, agg_param, &other.answer);
            assert!(i == j || result.is_err() || vdaf.draft() == all[j].0.draft(), "{i} {j}");
            let state = other.helper.clone();
            let result = vdaf.helper_continued(&ctx(), state, agg_param, other_finish);
            assert!(i == j || result.is_err() || vdaf.draft() == all[j].0.draft(), "{i} {j}");
        }
        for param in &strange {
            let r = &begun.report;
            let result = vdaf.leader_init(
                key,
                &ctx(),
                param,
                &NONCE,
                &r.public_share,
                &r.leader_input_share,
            );
            assert!(!result.unwrap_err().is_undecodable_share());
            let result = answer(vdaf, key, param, r, &begun.init);
            assert!(!result.unwrap_err().is_undecodable_share());
            let result = vdaf.leader_continued(&ctx(), begun.leader.clone(), param, &begun.answer);
            assert!(!result.unwrap_err().is_undecodable_share());
            let result = vdaf.helper_continued(&ctx(), begun.helper.clone(), param, finish);
            assert!(!result.unwrap_err().is_undecodable_share());
            assert_eq!(vdaf.unshard(param, &[], &[], 0), Err(UnshardError::Combine));
            assert!(vdaf.aggregate_init(param).accumulate(output).is_err());
            assert_eq!(vdaf.agg_share_len(param), 0);
        }
    }
}

#[test]
fn aggregate_shares_are_checked() {
    each(|vdaf, _, agg_param, _| {
        let good = share::zero(vdaf.agg_share_len(&agg_param));
        assert!(vdaf.unshard(&agg_param, &good, &good, 7).is_ok());
        let (shorter, longer) = (good.len() - 1, good.len() + 1);
        for bad in [vec![], vec![0; shorter], vec![0; longer], vec![0xff; good.len()]] {
            let result = vdaf.unshard(&agg_param, &bad, &good, 0);
            assert_eq!(result, Err(UnshardError::LeaderShare));
            let result = vdaf.unshard(&agg_param, &good, &bad, 0);
            assert_eq!(result, Err(UnshardError::HelperShare));
        }
        // Counts of leaves are numbers of 64 bits in a larger field: others are the fault of an aggregator.
        let mut odd = good.clone();
        odd[vdaf.agg_share_len(&agg_param) - 2] = 1;
        let result = vdaf.unshard(&agg_param, &odd, &good, 0);
        assert_eq!(result.is_err(), agg_param.is_leaf());
    });
}

#[test]
fn secrets_are_not_printed() {
    each(|vdaf, key, agg_param, measurements| {
        let begun = begin(&vdaf, &key, &agg_param, &measurements[0]);
        let helper = answer(&vdaf, &key, &agg_param, &begun.report, &begun.init);
        let leader = begun.leader.clone();
        let leader = vdaf.leader_continued(&ctx(), leader, &agg_param, &begun.answer);
        let text = format!("{:?} {helper:?} {:?} {leader:?}", begun.leader, begun.helper);
        assert_eq!(
            format!("{text} {:?} {agg_param:?}", measurements[0]),
            format!(
                "LeaderState Ok(HelperTransition) HelperState Ok(LeaderTransition) Measurement \
                 AggregationParam {{ level: {:?}, prefix_count: {} }}",
                agg_param.level(),
                agg_param.prefix_count()
            )
        );
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Shares of the right lengths and any content, from a client that follows no rule: nobody panics, and the
    /// leader accepts nothing. Each length is sometimes off by a little.
    #[test]
    fn arbitrary_shares_are_refused(
        bytes in proptest::collection::vec(any::<u8>(), 2000),
        off in proptest::collection::vec(prop_oneof![8 => Just(0isize), 1 => -2isize..=2], 5),
        small in any::<bool>(),
    ) {
        each(|vdaf, key, agg_param, measurements| {
            let begun = begin(&vdaf, &key, &agg_param, &measurements[0]);
            let mut rest = &bytes[..];
            let mut arbitrary = |like: &[u8], i: usize| {
                let (head, tail) = rest.split_at(like.len().saturating_add_signed(off[i]));
                rest = tail;
                // Most elements of the fields are below their primes if their last bytes are small.
                head.iter().enumerate().map(|(i, b)| if small && i % 8 == 7 { b & 0x3f } else { *b }).collect::<Vec<u8>>()
            };
            let report = ShardedReport {
                public_share: arbitrary(&begun.report.public_share, 0),
                leader_input_share: arbitrary(&begun.report.leader_input_share, 1),
                helper_input_share: arbitrary(&begun.report.helper_input_share, 2),
            };
            let body = arbitrary(&begun.init[5..], 3);
            let init = [&[0][..], &u32::try_from(body.len()).unwrap().to_be_bytes(), &body].concat();
            let accepts = |answer: &[u8]| {
                vdaf.leader_continued(&ctx(), begun.leader.clone(), &agg_param, answer).is_ok()
            };
            for report in [&report, &begun.report] {
                if let Ok((_, message)) = waiting(answer(&vdaf, &key, &agg_param, report, &init)) {
                    assert!(!accepts(&message));
                }
            }
            assert!(!accepts(&arbitrary(&begun.answer, 4)));
            let leader = vdaf.leader_init(
                &key, &ctx(), &agg_param, &NONCE, &report.public_share, &report.leader_input_share,
            );
            if let Ok((state, init)) = leader
                && let Ok((_, message)) = waiting(answer(&vdaf, &key, &agg_param, &report, &init))
            {
                assert!(vdaf.leader_continued(&ctx(), state, &agg_param, &message).is_err());
            }
        });
    }
}
