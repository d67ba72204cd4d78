//! The published test vectors of VDAF-08 and VDAF-18.
//!
//! The sources of `prio` hold them, and cargo knows where these are. The environment variable `DAPHNE_VECTORS` may name a
//! directory with more, in `vdaf-08/` and `vdaf-18/`.
//!
//! Vectors for two aggregators go through [`Vdaf`]; those for more, and relatives of our instances, through `prio`,
//! which shows that the dependency is the draft's. Sharding is not replayed, as `prio` takes no randomness: a
//! vector starts from its input shares. What `prio` keeps to itself, its IDPF and its XOFs, is tested by what is made
//! of it.

#![cfg(not(target_arch = "wasm32"))]

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use daphne_core::{
    vdaf::{
        AggregateResult, AggregateShare, AggregationParam, BitString, HelperTransition,
        LeaderTransition, OutputShare, Vdaf, VdafConfig, VerifyError,
    },
    version::VdafDraft,
};
use serde_json::{Value, json};

#[test]
fn vdaf_08() {
    run(VdafDraft::V08, "vdaf-08");
}

#[test]
fn vdaf_18() {
    run(VdafDraft::V18, "vdaf-18");
}

/// How a file was checked.
enum Checked {
    Here,
    ByPrio,
    NotImplemented,
}

fn run(draft: VdafDraft, folder: &str) {
    let mut folders = vec![published(draft)];
    folders.extend(std::env::var_os("DAPHNE_VECTORS").map(|root| Path::new(&root).join(folder)));
    let mut paths: Vec<PathBuf> = folders
        .iter()
        .flat_map(|folder| std::fs::read_dir(folder).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "json"))
        .collect();
    paths.sort();
    let [mut here, mut by_prio, mut known] = [0, 0, 0];
    let mut families = std::collections::BTreeSet::new();
    for path in paths {
        let name = path.file_stem().unwrap().to_str().unwrap();
        let json: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        // The test harness shows this if a check below fails.
        println!("{folder}/{name}");
        let family = name.split('_').next().unwrap();
        match check(draft, family, &json) {
            Checked::Here => {
                here += 1;
                families.insert(family.to_owned());
            }
            Checked::ByPrio => by_prio += 1,
            Checked::NotImplemented => {
                assert!(NOT_IMPLEMENTED.iter().any(|(n, _)| *n == family), "{folder}/{name}");
                known += 1;
            }
        }
    }
    let expected = match draft {
        VdafDraft::V08 => {
            &["Poplar1", "Prio3Count", "Prio3Histogram", "Prio3Sum", "Prio3SumVec"][..]
        }
        VdafDraft::V18 => &[
            "Poplar1",
            "Prio3Count",
            "Prio3Histogram",
            "Prio3MultihotCountVec",
            "Prio3Sum",
            "Prio3SumVec",
        ],
    };
    assert_eq!(Vec::from_iter(families), expected, "{folder} lacks vectors");
    // What `prio` published, less would be none of its vectors.
    let at_least = match draft {
        VdafDraft::V08 => 17,
        VdafDraft::V18 => 35,
    };
    assert!(
        here + by_prio + known >= at_least,
        "{folder} has {here} + {by_prio} + {known} vectors"
    );
    say(&format!(
        "VECTORS {folder}: {here} passed, {by_prio} passed by prio directly, {known} of what neither shows"
    ));
}

/// Vectors that no public function takes, and why.
const NOT_IMPLEMENTED: [(&str, &str); 5] = [
    ("XofFixedKeyAes128", "prio keeps its XOFs to itself; Poplar1 is made of this one"),
    ("XofTurboShake128", "prio keeps its XOFs to itself; all instances are made of this one"),
    ("IdpfPoplar", "prio keeps its IDPF to itself; Poplar1 is made of it"),
    ("IdpfBBCGGI21", "prio keeps its IDPF to itself; Poplar1 is made of it"),
    ("Prio3HigherDegree", "an example of a circuit, which is in no library"),
];

/// Where the sources of the `prio` that speaks this draft keep its vectors.
fn published(draft: VdafDraft) -> PathBuf {
    let (version, folder) = match draft {
        VdafDraft::V08 => ("0.16.", "08"),
        VdafDraft::V18 => ("0.18.", "18"),
    };
    let metadata = Command::new(env!("CARGO"))
        .args(["metadata", "--offline", "--locked", "--format-version", "1", "--manifest-path"])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
        .output()
        .unwrap();
    assert!(metadata.status.success(), "{}", String::from_utf8_lossy(&metadata.stderr));
    let metadata: Value = serde_json::from_slice(&metadata.stdout).unwrap();
    let is_it = |package: &&Value| {
        package["name"] == "prio" && package["version"].as_str().unwrap().starts_with(version)
    };
    let prio = metadata["packages"].as_array().unwrap().iter().find(is_it).unwrap();
    let manifest = Path::new(prio["manifest_path"].as_str().unwrap());
    manifest.with_file_name("src/vdaf/test_vec").join(folder)
}

/// Writes past the test harness, which hides what passing tests print.
#[allow(clippy::explicit_write, reason = "`eprintln` would be captured")]
fn say(text: &str) {
    writeln!(std::io::stderr(), "{text}").unwrap();
}

fn check(draft: VdafDraft, family: &str, json: &Value) -> Checked {
    let number = |key: &str| json[key].as_u64().unwrap();
    let range = || match draft {
        VdafDraft::V08 => ("bits", number("bits")),
        VdafDraft::V18 => ("max_measurement", number("max_measurement")),
    };
    let config = match family {
        "Prio3Count" => json!("Prio3Count"),
        "Prio3Sum" => json!({"Prio3Sum": {range().0: range().1}}),
        "Prio3SumVec" => json!({"Prio3SumVec": {
            range().0: range().1, "length": number("length"), "chunk_length": number("chunk_length")
        }}),
        "Prio3Histogram" => json!({"Prio3Histogram": {
            "length": number("length"), "chunk_length": number("chunk_length")
        }}),
        // VDAF-08 has no code point for it: its vectors have another one than we do.
        "Prio3MultihotCountVec" if draft == VdafDraft::V18 => json!({"Prio3MultihotCountVec": {
            "length": number("length"), "max_weight": number("max_weight"),
            "chunk_length": number("chunk_length")
        }}),
        "Poplar1" => json!({"Poplar1": {"bits": number("bits")}}),
        _ => Value::Null,
    };
    let vector = Vector::read(draft, json);
    if config.is_null() || number("shares") != 2 {
        let vector = vector.as_ref();
        return match draft {
            VdafDraft::V08 => by_prio_08::check(family, json, vector),
            VdafDraft::V18 => by_prio_18::check(family, json, vector),
        };
    }
    let config: VdafConfig = serde_json::from_value(config).unwrap();
    vector.unwrap().check(&Vdaf::new(draft, config).unwrap());
    Checked::Here
}

/// What both drafts' files say, in the words of VDAF-18.
struct Vector {
    verify_key: Vec<u8>,
    ctx: Vec<u8>,
    agg_param: Value,
    reports: Vec<Report>,
    agg_shares: Vec<Vec<u8>>,
    /// `null` if a report must fail.
    agg_result: Value,
    /// The operation that must fail, and its round.
    failure: Option<(String, u64)>,
}

struct Report {
    nonce: [u8; 16],
    public_share: Vec<u8>,
    input_shares: Vec<Vec<u8>>,
    /// Of each round, and in it of each aggregator.
    verifier_shares: Vec<Vec<Vec<u8>>>,
    /// Of each round.
    verifier_messages: Vec<Vec<u8>>,
    out_shares: Vec<Vec<u8>>,
}

fn hex(text: &Value) -> Vec<u8> {
    let text = text.as_str().unwrap();
    assert_eq!(text.len() % 2, 0);
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

fn each<T>(list: &Value, f: impl Fn(&Value) -> T) -> Vec<T> {
    list.as_array().unwrap().iter().map(f).collect()
}

impl Vector {
    /// `None` if the file is no vector of a VDAF.
    fn read(draft: VdafDraft, json: &Value) -> Option<Self> {
        let (reports, verifier_shares, verifier_messages) = match draft {
            VdafDraft::V08 => ("prep", "prep_shares", "prep_messages"),
            VdafDraft::V18 => ("reports", "verifier_shares", "verifier_messages"),
        };
        json["agg_shares"].as_array().filter(|shares| shares.iter().all(Value::is_string))?;
        let reports = each(json.get(reports)?, |report| {
            Report {
                nonce: hex(&report["nonce"]).try_into().unwrap(),
                public_share: hex(&report["public_share"]),
                input_shares: each(&report["input_shares"], hex),
                verifier_shares: each(&report[verifier_shares], |round| each(round, hex)),
                verifier_messages: each(&report[verifier_messages], hex),
                // VDAF-08 lists the elements.
                out_shares: each(&report["out_shares"], |share| match share {
                    Value::Array(elements) => elements.iter().flat_map(hex).collect(),
                    encoded => hex(encoded),
                }),
            }
        });
        let failure = json.get("operations").and_then(|operations| {
            let failed = |operation: &&Value| operation["success"] == false;
            let operation = operations.as_array().unwrap().iter().find(failed)?;
            let name = operation["operation"].as_str().unwrap().to_owned();
            Some((name, operation["round"].as_u64().unwrap()))
        });
        Some(Self {
            verify_key: hex(&json["verify_key"]),
            ctx: json.get("ctx").map_or_else(Vec::new, hex),
            agg_param: json["agg_param"].clone(),
            reports,
            agg_shares: each(&json["agg_shares"], hex),
            agg_result: json["agg_result"].clone(),
            failure,
        })
    }

    /// The parameter, which VDAF-08 writes as level and numbers, and VDAF-18 encodes.
    fn agg_param(&self, vdaf: &Vdaf) -> AggregationParam {
        let param = match (&self.agg_param, vdaf.draft()) {
            (Value::Array(param), _) => {
                let bits = param[0].as_u64().unwrap() + 1;
                let prefixes: Vec<BitString> = each(&param[1], |prefix| {
                    let prefix = prefix.as_u64().unwrap();
                    (0..bits).rev().map(|bit| prefix >> bit & 1 == 1).collect()
                });
                vdaf.prefixes(&prefixes).unwrap()
            }
            (Value::Null, VdafDraft::V08) => vdaf.decode_agg_param(&[]).unwrap(),
            (encoded, _) => {
                let encoded = hex(encoded);
                let param = vdaf.decode_agg_param(&encoded).unwrap();
                assert_eq!(param.encode(), encoded);
                param
            }
        };
        assert_eq!(vdaf.decode_agg_param(&param.encode()).unwrap(), param);
        param
    }

    fn check(&self, vdaf: &Vdaf) {
        let ping_pong = |kind: u8, parts: &[&Vec<u8>]| {
            parts.iter().fold(vec![kind], |message, part| {
                [&message, &u32::try_from(part.len()).unwrap().to_be_bytes()[..], part].concat()
            })
        };
        let agg_param = &self.agg_param(vdaf);
        let one = |share: &OutputShare| {
            let mut sum = vdaf.aggregate_init(agg_param);
            sum.accumulate(share).unwrap();
            sum.encode()
        };
        let key = vdaf.verify_key(&self.verify_key).unwrap();
        let ctx = &self.ctx;
        let mut sums: [AggregateShare; 2] = [(); 2].map(|()| vdaf.aggregate_init(agg_param));
        for report in &self.reports {
            let Report { nonce, public_share, verifier_shares, verifier_messages, .. } = report;
            let [leader_share, helper_share] = &report.input_shares[..] else { panic!() };
            let (leader, init) =
                vdaf.leader_init(&key, ctx, agg_param, nonce, public_share, leader_share).unwrap();
            assert_eq!(init, ping_pong(0, &[&verifier_shares[0][0]]));
            let helper =
                vdaf.helper_init(&key, ctx, agg_param, nonce, public_share, helper_share, &init);
            let failure = self.failure.as_ref().map(|(operation, round)| (&operation[..], *round));
            let (helper, answer) = match (helper, failure) {
                (Err(VerifyError::Refused), Some(("verifier_shares_to_message", 0))) => return,
                // The helper is content here, and the file has another message than it sends.
                (Ok(_), Some(("verify_next", 1))) => {
                    let message = ping_pong(2, &[&verifier_messages[0]]);
                    let result = vdaf.leader_continued(ctx, leader, agg_param, &message);
                    assert!(!result.unwrap_err().is_undecodable_share());
                    return;
                }
                (Ok(HelperTransition::Finished { output, message }), None) => {
                    assert_eq!(message, ping_pong(2, &[&verifier_messages[0]]));
                    (Ok(output), message)
                }
                (Ok(HelperTransition::Continued { state, message }), _) => {
                    let share = &verifier_shares[1][1];
                    assert_eq!(message, ping_pong(1, &[&verifier_messages[0], share]));
                    let kept = state.encode();
                    assert_eq!(kept.len(), vdaf.helper_state_len(agg_param));
                    (Err(vdaf.decode_helper_state(agg_param, &kept).unwrap()), message)
                }
                other => panic!("{other:?}"),
            };
            let leader = vdaf.leader_continued(ctx, leader, agg_param, &answer);
            let outputs = match (leader, helper) {
                (Ok(LeaderTransition::Finished(leader)), Ok(helper)) => [leader, helper],
                (Ok(LeaderTransition::FinishedWithOutbound(leader, message)), Err(helper)) => {
                    assert_eq!(message, ping_pong(2, &[&verifier_messages[1]]));
                    [leader, vdaf.helper_continued(ctx, helper, agg_param, &message).unwrap()]
                }
                (Err(VerifyError::Refused), Err(_)) => {
                    assert_eq!(failure, Some(("verifier_shares_to_message", 1)));
                    return;
                }
                other => panic!("{other:?}"),
            };
            for (i, output) in outputs.iter().enumerate() {
                assert_eq!(one(output), report.out_shares[i]);
                sums[i].accumulate(output).unwrap();
            }
        }
        assert!(self.failure.is_none());
        let [leader, helper] = sums.map(|sum| sum.encode());
        assert_eq!([&leader, &helper], [&self.agg_shares[0], &self.agg_shares[1]]);
        let result = vdaf.unshard(agg_param, &leader, &helper, self.reports.len() as u64).unwrap();
        assert_eq!(result, self.result());
    }

    fn result(&self) -> AggregateResult {
        serde_json::from_value(self.agg_result.clone()).unwrap()
    }
}

/// The instance of a file, with whatever number of aggregators, for both versions of `prio`; `None` if there is
/// none. The draft gives relatives of its instances, which it uses as examples only, the id `0xFFFFFFFF`.
macro_rules! instance {
    ($checked:ident, $family:expr, $json:expr, $vector:expr,
     ids: $ids:expr, range: $range:expr, weight: $weight:expr, proofs: $proofs:expr, sum: $sum:ty) => {{
        let number = |key: &str| $json[key].as_u64().unwrap();
        let length = || number("length") as usize;
        let chunk = || number("chunk_length") as usize;
        let max = || number($range);
        let shares = number("shares") as u8;
        let [count, sum, sum_vec, histogram, multihot] = $ids;
        type Circuit<T> = Prio3<T, XofTurboShake128, SEED>;
        match $family {
            "Prio3Count" => {
                $checked(&Circuit::new(shares, 1, count, Count::<Field64>::new()).unwrap(), $vector)
            }
            "Prio3Sum" => {
                let circuit = Sum::<$sum>::new(max().try_into().unwrap()).unwrap();
                $checked(&Circuit::new(shares, 1, sum, circuit).unwrap(), $vector);
            }
            "Prio3SumVec" => {
                let circuit = SumVec::<Field128, Products<_>>::new(
                    max().try_into().unwrap(),
                    length(),
                    chunk(),
                )
                .unwrap();
                $checked(&Circuit::new(shares, 1, sum_vec, circuit).unwrap(), $vector);
            }
            // The second name is the one of `prio` 0.16.
            "Prio3SumVecWithMultiproof" | "Prio3SumVecField64Multiproof" => {
                let circuit = SumVec::<Field64, Products<_>>::new(
                    max().try_into().unwrap(),
                    length(),
                    chunk(),
                )
                .unwrap();
                $checked(&Circuit::new(shares, $proofs, u32::MAX, circuit).unwrap(), $vector);
            }
            "Prio3Histogram" => {
                let circuit = Histogram::<Field128, Products<_>>::new(length(), chunk()).unwrap();
                $checked(&Circuit::new(shares, 1, histogram, circuit).unwrap(), $vector);
            }
            "Prio3MultiHotHistogram" | "Prio3MultihotCountVec" => {
                let weight = number($weight) as usize;
                let circuit =
                    MultihotCountVec::<Field128, Products<_>>::new(length(), weight, chunk())
                        .unwrap();
                $checked(&Circuit::new(shares, 1, multihot, circuit).unwrap(), $vector);
            }
            _ => return Checked::NotImplemented,
        }
        Checked::ByPrio
    }};
}

mod by_prio_08 {
    use prio08::{
        codec::{Encode as _, ParameterizedDecode as _},
        field::{Field64, Field128},
        flp::{
            gadgets::{Mul, ParallelSum},
            types::{Count, Histogram, MultihotCountVec, Sum, SumVec},
        },
        vdaf::{Aggregator, Collector, PrepareTransition, prio3::Prio3, xof::XofTurboShake128},
    };
    use serde_json::Value;

    use super::{AggregateResult, Checked, Vector};

    const SEED: usize = 16;
    type Products<F> = ParallelSum<F, Mul<F>>;

    pub fn check(family: &str, json: &Value, vector: Option<&Vector>) -> Checked {
        let Some(vector) = vector else {
            return Checked::NotImplemented;
        };
        // The draft's files do not say it, nor do those of `prio`.
        let proofs = if family == "Prio3SumVecWithMultiproof" { 4 } else { 3 };
        instance!(checked, family, json, vector,
                  ids: [0, 1, 2, 3, u32::MAX], range: "bits", weight: "max_count", proofs: proofs, sum: Field128)
    }

    fn checked<V>(vdaf: &V, vector: &Vector)
    where
        V: Aggregator<SEED, 16, AggregationParam = ()> + Collector,
        V::AggregateResult: Into<AggregateResult>,
    {
        let key = vector.verify_key[..].try_into().unwrap();
        let mut outputs = vec![Vec::new(); vdaf.num_aggregators()];
        for report in &vector.reports {
            let public_share =
                V::PublicShare::get_decoded_with_param(vdaf, &report.public_share).unwrap();
            let (mut states, mut shares) = (Vec::new(), Vec::new());
            for (i, input_share) in report.input_shares.iter().enumerate() {
                let input_share =
                    V::InputShare::get_decoded_with_param(&(vdaf, i), input_share).unwrap();
                let (state, share) = vdaf
                    .prepare_init(key, i, &(), &report.nonce, &public_share, &input_share)
                    .unwrap();
                assert_eq!(share.get_encoded().unwrap(), report.verifier_shares[0][i]);
                states.push(state);
                shares.push(share);
            }
            let message = vdaf.prepare_shares_to_prepare_message(&(), shares).unwrap();
            assert_eq!(message.get_encoded().unwrap(), report.verifier_messages[0]);
            for (i, state) in states.into_iter().enumerate() {
                let transition = vdaf.prepare_next(state, message.clone()).unwrap();
                let PrepareTransition::Finish(output) = transition else { panic!() };
                assert_eq!(output.get_encoded().unwrap(), report.out_shares[i]);
                outputs[i].push(output);
            }
        }
        let sums = Vec::from_iter(outputs.into_iter().map(|o| vdaf.aggregate(&(), o).unwrap()));
        let encoded = Vec::from_iter(sums.iter().map(|sum| sum.get_encoded().unwrap()));
        assert_eq!(encoded, vector.agg_shares);
        let result = vdaf.unshard(&(), sums, vector.reports.len()).unwrap();
        assert_eq!(result.into(), vector.result());
    }
}

mod by_prio_18 {
    use prio18::{
        codec::{Encode as _, ParameterizedDecode as _},
        field::{Field64, Field128},
        flp::{
            gadgets::{Mul, ParallelSum},
            types::{Count, Histogram, MultihotCountVec, Sum, SumVec},
        },
        vdaf::{Aggregator, Collector, VerifyTransition, prio3::Prio3, xof::XofTurboShake128},
    };
    use serde_json::Value;

    use super::{AggregateResult, Checked, Vector};

    const SEED: usize = 32;
    type Products<F> = ParallelSum<F, Mul>;

    pub fn check(family: &str, json: &Value, vector: Option<&Vector>) -> Checked {
        let Some(vector) = vector else {
            return Checked::NotImplemented;
        };
        instance!(checked, family, json, vector,
                  ids: [1, 2, 3, 4, 5], range: "max_measurement", weight: "max_weight", proofs: 3, sum: Field64)
    }

    fn checked<V>(vdaf: &V, vector: &Vector)
    where
        V: Aggregator<SEED, 16, AggregationParam = ()> + Collector,
        V::AggregateResult: Into<AggregateResult>,
    {
        assert!(vector.failure.is_none());
        let (key, ctx) = (vector.verify_key[..].try_into().unwrap(), &vector.ctx);
        let mut outputs = vec![Vec::new(); vdaf.num_aggregators()];
        for report in &vector.reports {
            let public_share =
                V::PublicShare::get_decoded_with_param(vdaf, &report.public_share).unwrap();
            let (mut states, mut shares) = (Vec::new(), Vec::new());
            for (i, input_share) in report.input_shares.iter().enumerate() {
                let input_share =
                    V::InputShare::get_decoded_with_param(&(vdaf, i), input_share).unwrap();
                let (state, share) = vdaf
                    .verify_init(key, ctx, i, &(), &report.nonce, &public_share, &input_share)
                    .unwrap();
                assert_eq!(share.get_encoded().unwrap(), report.verifier_shares[0][i]);
                states.push(state);
                shares.push(share);
            }
            let message = vdaf.verifier_shares_to_message(ctx, &(), shares).unwrap();
            assert_eq!(message.get_encoded().unwrap(), report.verifier_messages[0]);
            for (i, state) in states.into_iter().enumerate() {
                let transition = vdaf.verify_next(ctx, state, message.clone()).unwrap();
                let VerifyTransition::Finish(output) = transition else { panic!() };
                assert_eq!(output.get_encoded().unwrap(), report.out_shares[i]);
                outputs[i].push(output);
            }
        }
        let sums = Vec::from_iter(outputs.into_iter().map(|o| vdaf.aggregate(&(), o).unwrap()));
        let encoded = Vec::from_iter(sums.iter().map(|sum| sum.get_encoded().unwrap()));
        assert_eq!(encoded, vector.agg_shares);
        let result = vdaf.unshard(&(), sums, vector.reports.len()).unwrap();
        assert_eq!(result.into(), vector.result());
    }
}
