//! `janus_messages` as a second opinion on every codec of DAP-09.

use std::collections::{BTreeMap, BTreeSet};

use daphne_core::{
    codec::{Reader as Bytes, Writer},
    hpke,
};
use janus_messages::{
    self as theirs,
    query_type::{FixedSize, TimeInterval},
};
use prio::codec::{Decode, Encode};
use proptest::{
    prelude::*,
    strategy::ValueTree,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};

mod differences;
mod pairs;
mod vocabulary;

#[path = "../../../../crates/daphne-core/tests/vectors/damage.rs"]
mod damage;
#[path = "../../../../crates/daphne-core/tests/vectors/mod.rs"]
#[allow(dead_code, reason = "each test file uses its part of the table")]
mod vectors;

use damage::{Random, damage};
use differences::{DIFFERENCES, Reader};
use vectors::dap_09::TABLE;

/// Damaged inputs for each message.
const INPUTS: usize = 20_000;

/// Decodes and encodes again, if it can.
type Reencode = Box<dyn Fn(&[u8]) -> Option<Vec<u8>>>;

/// Both implementations of one message.
struct Codec {
    name: &'static str,
    ours: Reencode,
    theirs: Reencode,
}

fn read<T: Decode + Encode>(bytes: &[u8]) -> Option<Vec<u8>> {
    let message = T::get_decoded(bytes).ok()?;
    Some(message.get_encoded().expect("what decodes has an encoding"))
}

/// Their decoder; of a message that has the batch mode as a type parameter, those of both.
fn their_codec(name: &str) -> Reencode {
    macro_rules! either {
        ($name:ident) => {
            Box::new(|bytes| {
                read::<theirs::$name<TimeInterval>>(bytes)
                    .or_else(|| read::<theirs::$name<FixedSize>>(bytes))
            })
        };
    }
    match name {
        "HpkeConfig" => Box::new(read::<theirs::HpkeConfig>),
        "HpkeConfigList" => Box::new(read::<theirs::HpkeConfigList>),
        "HpkeCiphertext" => Box::new(read::<theirs::HpkeCiphertext>),
        "Interval" => Box::new(read::<theirs::Interval>),
        "PartialBatchSelector" => either!(PartialBatchSelector),
        "ReportMetadata" => Box::new(read::<theirs::ReportMetadata>),
        "Report" => Box::new(read::<theirs::Report>),
        "Extension" => Box::new(read::<theirs::Extension>),
        "PlaintextInputShare" => Box::new(read::<theirs::PlaintextInputShare>),
        "InputShareAad" => Box::new(read::<theirs::InputShareAad>),
        "ReportShare" => Box::new(read::<theirs::ReportShare>),
        "PrepareInit" => Box::new(read::<theirs::PrepareInit>),
        "AggregationJobInitReq" => either!(AggregationJobInitializeReq),
        "PrepareResp" => Box::new(read::<theirs::PrepareResp>),
        "AggregationJobResp" => Box::new(read::<theirs::AggregationJobResp>),
        "PrepareContinue" => Box::new(read::<theirs::PrepareContinue>),
        "AggregationJobContinueReq" => Box::new(read::<theirs::AggregationJobContinueReq>),
        "FixedSizeQuery" => Box::new(read::<theirs::FixedSizeQuery>),
        "Query" => either!(Query),
        "CollectionReq" => either!(CollectionReq),
        "Collection" => either!(Collection),
        "BatchSelector" => either!(BatchSelector),
        "AggregateShareReq" => either!(AggregateShareReq),
        "AggregateShare" => Box::new(read::<theirs::AggregateShare>),
        "AggregateShareAad" => either!(AggregateShareAad),
        "TaskConfig" => Box::new(read::<theirs::taskprov::TaskConfig>),
        other => panic!("say which of their messages is {other}"),
    }
}

/// All messages: the core's own table, and the two that all versions of DAP share.
fn codecs() -> Vec<Codec> {
    macro_rules! plain {
        ($name:ident) => {
            Codec {
                name: stringify!($name),
                ours: Box::new(|bytes| {
                    let message = Bytes::all(bytes, hpke::$name::read).ok()?;
                    let mut w = Writer::new();
                    message.write(&mut w);
                    Some(w.finish().expect("what decodes has an encoding"))
                }),
                theirs: their_codec(stringify!($name)),
            }
        };
    }
    let own = TABLE.messages.iter().map(|m| Codec {
        name: m.name,
        ours: Box::new(|bytes| (m.reencode)(bytes).ok()),
        theirs: their_codec(m.name),
    });
    [plain!(HpkeConfig), plain!(HpkeConfigList)].into_iter().chain(own).collect()
}

/// Whether both read the bytes, and as what encodes to them again; or neither; or a known difference, whose name is
/// returned.
fn compare(codec: &Codec, bytes: &[u8]) -> Option<&'static str> {
    let hex = || bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let (ours, theirs) = ((codec.ours)(bytes), (codec.theirs)(bytes));
    for again in [&ours, &theirs].into_iter().flatten() {
        assert!(again == bytes, "{} encodes {} differently", codec.name, hex());
    }
    let reader = match (ours, theirs) {
        (Some(_), Some(_)) | (None, None) => return None,
        (Some(_), None) => Reader::Ours,
        (None, Some(_)) => Reader::Theirs,
    };
    let known = DIFFERENCES.iter().find(|d| d.reader == reader && (d.explains)(codec.name, bytes));
    let known = known.unwrap_or_else(|| panic!("{}: only {reader:?} reads {}", codec.name, hex()));
    Some(known.name)
}

#[test]
fn damaged_messages_are_read_by_both_or_by_neither_but_for_known_differences() {
    let codecs = codecs();
    let mut seeds: BTreeMap<&str, Vec<(Vec<u8>, Vec<_>)>> = BTreeMap::new();
    for m in TABLE.messages {
        let parsed = m.parsed().into_iter().map(|v| (v.bytes, v.prefixes));
        seeds.entry(m.name).or_default().extend(parsed);
    }
    // The vectors' payloads are short; these are messages that both read.
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    for _ in 0..40 {
        let fields = pairs::fields().new_tree(&mut runner).expect("fields").current();
        for (name, bytes) in pairs::agree(&fields).expect("a pair") {
            seeds.entry(name).or_default().push((bytes, Vec::new()));
        }
    }
    let others: Vec<&[u8]> = seeds.values().flatten().map(|(bytes, _)| bytes.as_slice()).collect();

    let mut met = BTreeMap::new();
    for (index, codec) in codecs.iter().enumerate() {
        let (mut random, mut input) = (Random::new(index as u64), Vec::new());
        let seeds = &seeds[codec.name];
        for _ in 0..INPUTS {
            let (seed, prefixes) = &seeds[random.below(seeds.len())];
            let other = others[random.below(others.len())];
            damage(&mut random, seed, prefixes, other, &mut input);
            if let Some(name) = compare(codec, &input) {
                *met.entry(name).or_insert(0) += 1;
            }
        }
    }
    for d in DIFFERENCES {
        println!(
            "{}: {:?} only, {} times: {}",
            d.name,
            d.reader,
            met.get(d.name).unwrap_or(&0),
            d.reason
        );
    }
    let names: BTreeSet<_> = DIFFERENCES.iter().map(|d| d.name).collect();
    assert_eq!(met.into_keys().collect::<BTreeSet<_>>(), names, "each difference is still there");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn both_write_the_same_bytes_and_read_each_others(f in pairs::fields()) {
        let compared: BTreeSet<_> = pairs::agree(&f)?.into_iter().map(|(name, _)| name).collect();
        let all: BTreeSet<_> = codecs().iter().map(|c| c.name).collect();
        prop_assert_eq!(compared, all);
    }

    #[test]
    fn any_bytes_are_read_by_both_or_by_neither(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        for codec in codecs() {
            compare(&codec, &bytes);
        }
    }
}
