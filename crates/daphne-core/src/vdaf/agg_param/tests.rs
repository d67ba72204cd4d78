use proptest::prelude::*;

use super::*;

const DRAFTS: [VdafDraft; 2] = [VdafDraft::V08, VdafDraft::V18];

fn poplar1(draft: VdafDraft, bits: u16) -> Vdaf {
    Vdaf::new(draft, VdafConfig::Poplar1 { bits }).unwrap()
}

fn strings(prefixes: &[&str]) -> Vec<BitString> {
    prefixes.iter().map(|p| p.parse().unwrap()).collect()
}

/// What the drafts say, written once more, for parameters whose prefixes take at most 8 bytes. VDAF-08 §8.2.6 packs
/// numbers into one large number, the first in its lowest bits; VDAF-18 §8.2.6.6 gives each its own bytes.
fn by_the_book(draft: VdafDraft, bits: u16, bytes: &[u8]) -> Option<Vec<String>> {
    let level = u16::from_be_bytes(bytes.get(..2)?.try_into().ok()?);
    let count = u32::from_be_bytes(bytes.get(2..6)?.try_into().ok()?);
    let packed = &bytes[6..];
    let len = u32::from(level) + 1;
    if level >= bits || count == 0 || count > 64 {
        return None;
    }
    let number = |bytes: &[u8]| bytes.iter().fold(0_u128, |n, byte| n << 8 | u128::from(*byte));
    let numbers: Vec<u128> = match draft {
        VdafDraft::V08 => {
            let all = number(packed);
            if packed.len() != (len * count).div_ceil(8) as usize || all >> (len * count) != 0 {
                return None;
            }
            (0..count).map(|i| all >> (i * len) & ((1 << len) - 1)).collect()
        }
        VdafDraft::V18 => {
            let each = len.div_ceil(8);
            if packed.len() != (each * count) as usize {
                return None;
            }
            let unused = 8 * each - len;
            let numbers = packed.chunks(each as usize).map(|chunk| {
                let n = number(chunk);
                (n & ((1 << unused) - 1) == 0).then_some(n >> unused)
            });
            numbers.collect::<Option<_>>()?
        }
    };
    numbers
        .is_sorted_by(|a, b| a < b)
        .then(|| numbers.iter().map(|n| format!("{n:0width$b}", width = len as usize)).collect())
}

/// Decodes without a panic as the book says, and writes the same bytes again.
fn check(vdaf: &Vdaf, bits: u16, bytes: &[u8]) -> bool {
    let expected = by_the_book(vdaf.draft(), bits, bytes);
    let decoded = vdaf.decode_agg_param(bytes);
    assert_eq!(decoded.is_ok(), expected.is_some(), "{:?} {bits} {bytes:?}", vdaf.draft());
    let (Some(expected), Ok(param)) = (expected, decoded) else { return false };
    let prefixes = param.prefixes();
    assert_eq!(prefixes.iter().map(ToString::to_string).collect::<Vec<_>>(), expected);
    assert_eq!(param.encode(), bytes);
    assert_eq!(
        (param.prefix_count(), Some(prefixes[0].len())),
        (expected.len(), param.level().map(|l| usize::from(l) + 1))
    );
    assert_eq!(vdaf.prefixes(&prefixes).unwrap(), param);
    assert!(vdaf.work(&param) > 0);
    true
}

fn encoded(level: u16, count: u32, packed: &[u8]) -> Vec<u8> {
    [&level.to_be_bytes()[..], &count.to_be_bytes(), packed].concat()
}

#[test]
fn all_short_parameters_are_read_as_the_drafts_say() {
    let levels = [0, 1, 2, 6, 7, 8, 9, 14, 15, 0x7fff, 0x8000, 0xfffe, 0xffff];
    let counts = [0, 1, 2, 3, 4, 8, 16, 17, 0xffff, 0x1_0000, 0x1000_0000, 0x8000_0000, u32::MAX];
    for draft in DRAFTS {
        let mut accepted = 0_u32;
        for bits in [1, 2, 8, 9, 15] {
            let vdaf = poplar1(draft, bits);
            for (level, count) in levels.iter().flat_map(|l| counts.iter().map(|c| (*l, *c))) {
                let len = u64::from(level) + 1;
                let right = match draft {
                    VdafDraft::V08 => (len * u64::from(count)).div_ceil(8),
                    VdafDraft::V18 => len.div_ceil(8) * u64::from(count),
                };
                for n in 0..=3 {
                    // All bytes where their number is right; the task's bits only bound the level.
                    let all =
                        if n as u64 == right && n < 3 && bits == 15 { 1_u32 << (8 * n) } else { 1 };
                    for packed in (0..all).chain([u32::MAX]) {
                        let packed = &packed.to_be_bytes()[4 - n..];
                        accepted += u32::from(check(&vdaf, bits, &encoded(level, count, packed)));
                    }
                }
            }
        }
        assert!(accepted > 10_000, "{draft:?} {accepted}");
    }
}

#[test]
fn parameters_are_encoded_as_the_drafts_say() {
    for (prefixes, v08, v18) in [
        (&["0"][..], encoded(0, 1, &[0]), encoded(0, 1, &[0])),
        (&["0", "1"], encoded(0, 2, &[0b10]), encoded(0, 2, &[0, 0x80])),
        // The first prefix is in the lowest bits, so the list is read from its end.
        (
            &["001", "011", "110"],
            encoded(2, 3, &[0b1, 0b10_011_001]),
            encoded(2, 3, &[0x20, 0x60, 0xc0]),
        ),
        (
            &["000000001", "100000000"],
            encoded(8, 2, &[0b10, 0, 1]),
            encoded(8, 2, &[0, 0x80, 0x80, 0]),
        ),
    ] {
        for (draft, bytes) in [(VdafDraft::V08, v08), (VdafDraft::V18, v18)] {
            let vdaf = poplar1(draft, 20);
            let param = vdaf.prefixes(&strings(prefixes)).unwrap();
            assert_eq!(param.encode(), bytes);
            assert!(check(&vdaf, 20, &bytes));
            for n in 0..bytes.len() {
                assert!(vdaf.decode_agg_param(&bytes[..n]).is_err(), "{n}");
            }
            assert_eq!(
                vdaf.decode_agg_param(&[&bytes[..], &[0]].concat()).unwrap_err(),
                DecodeError::Trailing
            );
        }
    }
}

#[test]
fn parameters_beyond_the_limits_are_refused() {
    for draft in DRAFTS {
        // A level that the task does not have; among them the one that overflows in `prio`.
        let vdaf = poplar1(draft, 4096);
        for level in [4096, 0x7fff, 0xfffe, 0xffff] {
            for packed in [0, 1, 513, 8192] {
                let bytes = encoded(level, 1, &vec![0; packed]);
                let error = vdaf.decode_agg_param(&bytes).unwrap_err();
                assert_eq!(error.to_string(), "the level is not below the number of bits");
            }
        }
        // More prefixes than we count, though the bytes would be there.
        let vdaf = poplar1(draft, 16);
        let numbers = |count: usize| -> Vec<BitString> {
            (0..count).map(|n| (0..16).rev().map(|bit| n >> bit & 1 == 1).collect()).collect()
        };
        let most = vdaf.prefixes(&numbers(PREFIXES_MAX)).unwrap();
        assert_eq!(vdaf.decode_agg_param(&most.encode()).unwrap(), most);
        assert_eq!(vdaf.agg_share_len(&most), vdaf.agg_share_len_max());
        assert!(vdaf.prefixes(&numbers(PREFIXES_MAX + 1)).is_err());
        let mut more = most.encode();
        more[2..6].copy_from_slice(&(PREFIXES_MAX as u32 + 1).to_be_bytes());
        more.extend([0xff, 0xff]);
        let error = vdaf.decode_agg_param(&more).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("there must be between 1 and {PREFIXES_MAX} prefixes")
        );
        // Long prefixes, and many of them.
        let vdaf = poplar1(draft, 4096);
        let long = |count: usize| -> Vec<BitString> {
            let tail = || std::iter::repeat_n(true, 4080);
            numbers(count).iter().map(|n| n.iter().chain(tail()).collect()).collect()
        };
        let fit = (AGG_PARAM_BYTES_MAX - 6) / 512;
        let longest = vdaf.prefixes(&long(fit)).unwrap();
        assert_eq!(vdaf.decode_agg_param(&longest.encode()).unwrap(), longest);
        let text = format!("longer than {AGG_PARAM_BYTES_MAX} bytes");
        assert!(vdaf.prefixes(&long(fit + 1)).unwrap_err().to_string().ends_with(&text));
        let error = vdaf.decode_agg_param(&[0; AGG_PARAM_BYTES_MAX + 1]).unwrap_err();
        assert_eq!(error.to_string(), "the aggregation parameter is too long");
        // Others than the parameter of Prio3.
        let count = Vdaf::new(draft, VdafConfig::Prio3Count).unwrap();
        for bytes in [&[0][..], &[0; 6], &most.encode()] {
            assert!(count.decode_agg_param(bytes).is_err());
        }
        assert!(vdaf.decode_agg_param(&[]).is_err());
    }
}

#[test]
fn prefixes_that_are_none_are_refused_in_plain_sentences() {
    for draft in DRAFTS {
        let vdaf = poplar1(draft, 4);
        for (prefixes, text) in [
            (&[][..], "there must be between 1 and 4096 prefixes, not 0"),
            (&[""], "a prefix must have between 1 and 4 bits"),
            (&["00000"], "a prefix must have between 1 and 4 bits"),
            (&["1", "00"], "the prefixes must have one length"),
            (&["1", "0"], "the prefixes must be in order, and distinct"),
            (&["01", "01"], "the prefixes must be in order, and distinct"),
        ] {
            assert_eq!(vdaf.prefixes(&strings(prefixes)).unwrap_err().to_string(), text);
        }
        let count = Vdaf::new(draft, VdafConfig::Prio3Count).unwrap();
        let error = count.prefixes(&strings(&["1"])).unwrap_err();
        assert_eq!(error.to_string(), "only Poplar1 has prefixes");
    }
}

#[test]
fn a_report_is_aggregated_once_for_each_level_and_downwards() {
    for draft in DRAFTS {
        let vdaf = poplar1(draft, 4);
        let param = |prefixes: &[&str]| vdaf.prefixes(&strings(prefixes)).unwrap();
        let (first, second, third) = (param(&["0", "1"]), param(&["10", "11"]), param(&["1000"]));
        assert!(vdaf.is_valid_agg_param(&first, &[]));
        assert!(vdaf.is_valid_agg_param(&third, &[]));
        assert!(vdaf.is_valid_agg_param(&second, std::slice::from_ref(&first)));
        assert!(vdaf.is_valid_agg_param(&third, std::slice::from_ref(&first)));
        // In whatever order they are remembered.
        assert!(vdaf.is_valid_agg_param(&third, &[first.clone(), second.clone()]));
        assert!(vdaf.is_valid_agg_param(&third, &[second.clone(), first.clone()]));
        // The same again, another one of that level, and back.
        assert!(!vdaf.is_valid_agg_param(&first, std::slice::from_ref(&first)));
        assert!(!vdaf.is_valid_agg_param(&param(&["00", "01"]), std::slice::from_ref(&second)));
        assert!(!vdaf.is_valid_agg_param(&second, &[first.clone(), third.clone()]));
        assert!(!vdaf.is_valid_agg_param(&second, &[third, first]));
        // Where the last prefixes do not lead.
        let aside = vdaf.is_valid_agg_param(&param(&["011"]), &[second]);
        assert_eq!(aside, draft == VdafDraft::V08);
        // Prio3.
        let count = Vdaf::new(draft, VdafConfig::Prio3Count).unwrap();
        let only = count.decode_agg_param(&[]).unwrap();
        assert!(count.is_valid_agg_param(&only, &[]));
        assert!(!count.is_valid_agg_param(&only, std::slice::from_ref(&only)));
    }
}

#[test]
fn a_parameter_of_another_vdaf_is_no_parameter() {
    let prefixes = strings(&["00", "11"]);
    let vdafs =
        [poplar1(VdafDraft::V08, 2), poplar1(VdafDraft::V08, 3), poplar1(VdafDraft::V18, 2)];
    let params = vdafs.each_ref().map(|vdaf| vdaf.prefixes(&prefixes).unwrap());
    let count = Vdaf::new(VdafDraft::V08, VdafConfig::Prio3Count).unwrap();
    let only = count.decode_agg_param(&[]).unwrap();
    for (i, vdaf) in vdafs.iter().enumerate() {
        for (j, param) in params.iter().enumerate() {
            assert_eq!(vdaf.is_valid_agg_param(param, &[]), i == j);
            assert!(!vdaf.is_valid_agg_param(&params[i], std::slice::from_ref(param)));
            assert_eq!(vdaf.agg_share_len(param) > 0, i == j);
        }
        assert!(!vdaf.is_valid_agg_param(&only, &[]) && !count.is_valid_agg_param(&params[i], &[]));
    }
}

proptest! {
    /// Bytes that begin like a parameter of the task and go on at random.
    #[test]
    fn no_bytes_panic(
        bits in 1..=64_u16,
        level in prop_oneof![8 => 0..64_u16, 1 => any::<u16>()],
        count in prop_oneof![8 => 0..8_u32, 1 => any::<u32>()],
        packed in proptest::collection::vec(any::<u8>(), 0..64),
        off in -1..=1_isize,
    ) {
        for draft in DRAFTS {
            let vdaf = poplar1(draft, bits);
            let len = u64::from(level) + 1;
            let expected = match draft {
                VdafDraft::V08 => (len * u64::from(count)).div_ceil(8),
                VdafDraft::V18 => len.div_ceil(8) * u64::from(count),
            };
            // As long as it must be, or almost.
            let exact = usize::try_from(expected).unwrap_or(0).saturating_add_signed(off);
            for packed in [&packed[..], &packed[..exact.min(packed.len())]] {
                let bytes = encoded(level, count, packed);
                if let Ok(param) = vdaf.decode_agg_param(&bytes) {
                    prop_assert_eq!(param.encode(), bytes);
                    prop_assert!(param.prefixes().is_sorted_by(|a, b| a < b));
                }
            }
            let _ = vdaf.decode_agg_param(&packed);
        }
    }

    #[test]
    fn prefixes_survive_encoding(
        bits in 1..=40_u16,
        len in 1..=40_usize,
        numbers in proptest::collection::btree_set(any::<u64>(), 1..50),
    ) {
        let len = len.min(usize::from(bits));
        let prefixes: std::collections::BTreeSet<BitString> = numbers
            .iter()
            .map(|n| (0..len).map(|bit| n >> bit & 1 == 1).collect())
            .collect();
        let prefixes = Vec::from_iter(prefixes);
        for draft in DRAFTS {
            let vdaf = poplar1(draft, bits);
            let param = vdaf.prefixes(&prefixes).unwrap();
            prop_assert_eq!(param.prefixes(), &prefixes[..]);
            prop_assert_eq!(vdaf.decode_agg_param(&param.encode()).unwrap(), param);
        }
    }
}
