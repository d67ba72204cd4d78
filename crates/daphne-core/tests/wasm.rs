//! The cryptography on the platform that it is deployed to. Run in Node by `wasm-bindgen-test-runner`.

#![cfg(target_arch = "wasm32")]

use daphne_core::{
    hpke::{HpkeKem, HpkeKeypair, open, seal},
    ids::HpkeConfigId,
    seal::RootKeys,
    vdaf::{
        AggregationParam, HelperTransition, LeaderTransition, Measurement, OutputShare, Vdaf,
        VdafConfig, VerifyError,
    },
    version::VdafDraft,
};
use wasm_bindgen_test::wasm_bindgen_test;

/// As the native test, where sizes have 64 bits and randomness comes from elsewhere.
#[wasm_bindgen_test]
fn the_sum_of_verified_reports_is_the_truth() {
    let (length, max_measurement, chunk_length) = (10, 255, 9);
    let vectors = vec![Measurement::SumVec(vec![255; 10]), Measurement::SumVec((0..10).collect())];
    let strings = ["10110", "10011"].map(|s| Measurement::Poplar1(s.parse().unwrap()));
    let instances = [
        (VdafConfig::Prio3Count, vec![Measurement::Count(true), Measurement::Count(false)]),
        (
            VdafConfig::Prio3Sum { max_measurement },
            vec![Measurement::Sum(0), Measurement::Sum(255)],
        ),
        (VdafConfig::Prio3SumVec { length, max_measurement, chunk_length }, vectors.clone()),
        (
            VdafConfig::Prio3Histogram { length: 4, chunk_length: 2 },
            vec![Measurement::Histogram(0), Measurement::Histogram(3)],
        ),
        (
            VdafConfig::Prio3MultihotCountVec { length: 3, max_weight: 2, chunk_length: 2 },
            vec![
                Measurement::MultihotCountVec(vec![true, false, true]),
                Measurement::MultihotCountVec(vec![false; 3]),
            ],
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
        (VdafConfig::Poplar1 { bits: 5 }, strings.to_vec()),
    ];
    for draft in [VdafDraft::V08, VdafDraft::V18] {
        for (config, measurements) in &instances {
            let vdaf = Vdaf::new(draft, *config).unwrap();
            // The answer to everything, or counts of some prefixes, which are leaves the second time.
            let params = match config {
                VdafConfig::Poplar1 { .. } => [["000", "100", "101"], ["00000", "10011", "10110"]]
                    .map(|list| vdaf.prefixes(&list.map(|p| p.parse().unwrap())).unwrap())
                    .to_vec(),
                _ => vec![vdaf.decode_agg_param(&[]).unwrap()],
            };
            for agg_param in params {
                sum_is_the_truth(&vdaf, &agg_param, measurements);
            }
        }
    }
}

fn sum_is_the_truth(vdaf: &Vdaf, agg_param: &AggregationParam, measurements: &[Measurement]) {
    let ctx = b"dap-18 and a task";
    let key = vdaf.verify_key(&vec![1; vdaf.verify_key_len()]).unwrap();
    let mut sums = [(); 2].map(|()| vdaf.aggregate_init(agg_param));
    for (i, measurement) in measurements.iter().enumerate() {
        let nonce = [i as u8; 16];
        let report = vdaf.shard(ctx, measurement, &nonce).unwrap();
        let public_share = &report.public_share;
        let (leader, init) = vdaf
            .leader_init(&key, ctx, agg_param, &nonce, public_share, &report.leader_input_share)
            .unwrap();
        let input_share = &report.helper_input_share;
        let helper = vdaf
            .helper_init(&key, ctx, agg_param, &nonce, public_share, input_share, &init)
            .unwrap();
        let leader = |answer: &[u8]| vdaf.leader_continued(ctx, leader, agg_param, answer).unwrap();
        let outputs = match helper {
            HelperTransition::Finished { output, message } => match leader(&message) {
                LeaderTransition::Finished(leader) => [leader, output],
                other => panic!("{other:?}"),
            },
            HelperTransition::Continued { state, message } => match leader(&message) {
                LeaderTransition::FinishedWithOutbound(leader, finish) => {
                    let state = vdaf.decode_helper_state(agg_param, &state.encode()).unwrap();
                    [leader, vdaf.helper_continued(ctx, state, agg_param, &finish).unwrap()]
                }
                other => panic!("{other:?}"),
            },
        };
        sums.iter_mut().zip(&outputs).for_each(|(sum, output)| sum.accumulate(output).unwrap());
    }
    let [leader, helper] = sums.map(|sum| sum.encode());
    let result = vdaf.unshard(agg_param, &leader, &helper, 2).unwrap();
    assert_eq!(result, vdaf.truth(agg_param, measurements.iter()).unwrap());
}

/// Counts that no 32-bit size can hold are refused before anything is multiplied or allocated.
#[wasm_bindgen_test]
fn parameters_of_poplar1_are_bounded() {
    for draft in [VdafDraft::V08, VdafDraft::V18] {
        let vdaf = Vdaf::new(draft, VdafConfig::Poplar1 { bits: 4096 }).unwrap();
        for (level, count) in [(4095, u32::MAX), (4095, 1 << 20), (7, 1 << 29), (0xffff, 1), (0, 0)]
        {
            let level: u16 = level;
            let header = [&level.to_be_bytes()[..], &count.to_be_bytes()].concat();
            for packed in [&[][..], &[0], &[0; 512]] {
                assert!(vdaf.decode_agg_param(&[&header[..], packed].concat()).is_err());
            }
        }
    }
}

fn finished(helper: Result<HelperTransition, VerifyError>) -> (OutputShare, Vec<u8>) {
    match helper {
        Ok(HelperTransition::Finished { output, message }) => (output, message),
        other => panic!("{other:?}"),
    }
}

#[wasm_bindgen_test]
fn hpke_seals_and_opens() {
    for kem in [HpkeKem::X25519HkdfSha256, HpkeKem::P256HkdfSha256] {
        let keypair = HpkeKeypair::derive(HpkeConfigId(1), kem, &[2; 32]).unwrap();
        let sealed = seal(keypair.config(), b"info", b"aad", b"plaintext", &[3; 32]).unwrap();
        assert_eq!(open(&keypair, b"info", b"aad", sealed.as_ref()).unwrap(), b"plaintext");
        assert!(open(&keypair, b"info", b"bad", sealed.as_ref()).is_err());
    }
}

#[wasm_bindgen_test]
fn secrets_at_rest_open() {
    let keys = RootKeys::parse("1=AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE").unwrap();
    let sealed = keys.seal("label", b"secret", [4; 12]);
    assert_eq!(*keys.open("label", &sealed).unwrap(), b"secret");
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

/// `Prio3Count_0` of VDAF-08.
#[wasm_bindgen_test]
fn a_vector_of_vdaf_08() {
    let vdaf = Vdaf::new(VdafDraft::V08, VdafConfig::Prio3Count).unwrap();
    let key = vdaf.verify_key(&(0..16).collect::<Vec<u8>>()).unwrap();
    let agg_param = vdaf.decode_agg_param(&[]).unwrap();
    let nonce: [u8; 16] = hex("000102030405060708090a0b0c0d0e0f").try_into().unwrap();
    let leader_share = hex(
        "352c53cbc1f95eee43253a8650e8ac18a5bd9c18b824886772947facdf1a413f1cf547cdb8c1ad4ed4c1294ccc856209",
    );
    let helper_share = hex("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f");
    let (state, init) =
        vdaf.leader_init(&key, b"", &agg_param, &nonce, b"", &leader_share).unwrap();
    assert_eq!(
        init,
        hex("0000000020f6340e6030e5960b53ad59de202314363e6063ed75a89676e3b9635d397d650e")
    );
    let (helper, finish) =
        finished(vdaf.helper_init(&key, b"", &agg_param, &nonce, b"", &helper_share, &init));
    assert_eq!(finish, hex("0200000000"));
    let leader = vdaf.leader_continued(b"", state, &agg_param, &finish);
    let Ok(LeaderTransition::Finished(leader)) = leader else { panic!() };
    let encode = |output| {
        let mut sum = vdaf.aggregate_init(&agg_param);
        sum.accumulate(output).unwrap();
        sum.encode()
    };
    assert_eq!(encode(&leader), hex("352c53cbc1f95eee"));
    assert_eq!(encode(&helper), hex("cdd3ac343d06a111"));
}
