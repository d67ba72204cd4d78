//! Decoders under random damage: no panic, no allocation beyond a multiple of the input, and decode → encode = input.
//!
//! Everything is seeded, so a failure repeats; the input that caused it is printed.

use std::{
    collections::VecDeque,
    io::{self, Write as _},
    sync::Mutex,
    thread,
};

use daphne_core::{
    error::ReportError,
    ids::{BatchId, HpkeConfigId, ReportId, TaskId},
    time::{Duration, Time},
    wire::v09,
};
use proptest::prelude::*;

#[path = "vectors/dap-09/mod.rs"]
#[allow(dead_code, reason = "each test file uses its part of the table")]
mod vectors;
use vectors::{MESSAGES, Message, Vector};

#[path = "vectors/counting.rs"]
mod counting;
use counting::peak_bytes;
#[path = "vectors/damage.rs"]
mod damage;
use damage::{Random, damage};

const INPUTS_PER_DECODER: u32 = 100_000;

/// Prints the input on a panic.
struct Culprit<'a>(&'a str, &'a [u8]);

impl Drop for Culprit<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            let hex: String = self.1.iter().map(|b| format!("{b:02x}")).collect();
            eprintln!("{} of {hex}", self.0);
        }
    }
}

/// The bytes are an error or the message's one encoding, without panic or unbounded allocation.
fn check(m: &Message, input: &[u8]) -> bool {
    let culprit = Culprit(m.name, input);
    let (decodes, peak) = peak_bytes(|| (m.decodes)(input));
    let max = m.peak_bytes_max(input.len());
    assert!(peak <= max, "{}: {peak} bytes allocated for {}, at most {max}", m.name, input.len());
    if decodes {
        let again = (m.reencode)(input).expect("it decoded before");
        assert!(again == input, "{}: encodes differently", m.name);
    }
    drop(culprit);
    decodes
}

/// The message's vectors, and for a message with a list also one with many items.
fn seeds(m: &Message) -> Vec<Vector> {
    let mut seeds = m.parsed();
    if m.list_of.is_some() {
        seeds.push(many_items(m, 24));
    }
    seeds
}

/// The message's last vector with its list replaced by `n` of the shortest items.
fn many_items(m: &Message, n: usize) -> Vector {
    let (item, _) = m.list_of.expect("a message with a list");
    let item = Message::named(item).parsed().into_iter().min_by_key(|v| v.bytes.len());
    let item = item.expect("every message has vectors").bytes;
    let list = item.repeat(n);
    let (before, width, after): (&[u8], usize, &[u8]) = match m.name {
        "PlaintextInputShare" => (&[], 2, &[0; 4]),
        "AggregationJobInitReq" => (&[0, 0, 0, 0, 1], 4, &[]),
        "AggregationJobResp" => (&[], 4, &[]),
        "AggregationJobContinueReq" => (&[0, 1], 4, &[]),
        other => panic!("say what surrounds the list of {other}"),
    };
    let prefix = (list.len() as u64).to_be_bytes();
    let bytes = [before, &prefix[8 - width..], &list, after].concat();
    Vector { bytes, prefixes: std::iter::once(before.len()..before.len() + width).collect() }
}

#[test]
fn damaged_messages_neither_panic_nor_allocate_beyond_their_length() {
    let all: Vec<Vector> = MESSAGES.iter().flat_map(seeds).collect();
    let queue: Mutex<VecDeque<_>> = Mutex::new(MESSAGES.iter().enumerate().collect());
    let next = || queue.lock().expect("no thread panics while it holds this").pop_front();
    let run = || {
        while let Some((index, m)) = next() {
            let mut random = Random::new(index as u64);
            let seeds = seeds(m);
            let mut input = Vec::new();
            let (mut decoded, mut peak) = (0u32, 0);
            for _ in 0..INPUTS_PER_DECODER {
                let seed = &seeds[random.below(seeds.len())];
                let other = &all[random.below(all.len())];
                damage(&mut random, &seed.bytes, &seed.prefixes, &other.bytes, &mut input);
                decoded += u32::from(check(m, &input));
                peak = peak.max(input.len());
            }
            println!(
                "{}: {INPUTS_PER_DECODER} damaged inputs of up to {peak} bytes, {decoded} still decoded",
                m.name
            );
            // Fixed-length messages survive only a change in place; none may be all good or all bad.
            assert!(
                decoded > INPUTS_PER_DECODER / 100,
                "{}: too few decode to test encoding",
                m.name
            );
            assert!(decoded < INPUTS_PER_DECODER * 9 / 10, "{}: too few inputs are bad", m.name);
        }
    };
    thread::scope(|s| {
        for _ in 0..thread::available_parallelism().map_or(1, |n| n.get()) {
            s.spawn(run);
        }
    });
    // Past the test harness's capture.
    let n = MESSAGES.len();
    writeln!(io::stderr(), "{n} decoders, {INPUTS_PER_DECODER} damaged inputs each")
        .expect("stderr is open");
}

#[test]
fn the_allocator_counts_and_the_bound_is_not_idle() {
    assert_eq!(peak_bytes(|| drop(vec![0u8; 1_000])).1, 1_000);
    for m in MESSAGES.iter().filter(|m| m.list_of.is_some()) {
        let seed = many_items(m, 8_193);
        let (decodes, peak) = peak_bytes(|| (m.decodes)(&seed.bytes));
        assert!(decodes, "{}", m.name);
        let max = m.peak_bytes_max(seed.bytes.len());
        println!("{}: {} bytes, {peak} allocated of {max}", m.name, seed.bytes.len());
        assert!(peak <= max && peak > max * 9 / 10, "{}: {peak} of {max}", m.name);
    }
}

#[test]
fn a_claimed_length_allocates_nothing() {
    for m in MESSAGES {
        for v in seeds(m) {
            for prefix in &v.prefixes {
                // The prefix claims all it can and nothing follows: only what came before may be held.
                let mut bytes = v.bytes[..prefix.end].to_vec();
                bytes[prefix.clone()].fill(0xff);
                let (decodes, peak) = peak_bytes(|| (m.decodes)(&bytes));
                let first_prefix = prefix.start == v.prefixes[0].start;
                let max = if first_prefix { 0 } else { m.peak_bytes_max(bytes.len()) };
                assert!(!decodes && peak <= max, "{}: {peak} bytes, at most {max}", m.name);
            }
        }
    }
}

// Generated values.

/// Where a message's fields come from.
#[derive(Clone, Debug)]
struct Fields {
    ids: [[u8; 32]; 2],
    numbers: [u64; 3],
    blobs: [Vec<u8>; 6],
    choice: usize,
    items: usize,
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), Just(u64::MAX), any::<u64>()]
}

fn blob() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => prop::collection::vec(any::<u8>(), 0..40),
        1 => prop::collection::vec(any::<u8>(), 250..700),
    ]
}

fn fields() -> impl Strategy<Value = Fields> {
    let blobs = [blob(), blob(), blob(), blob(), blob(), blob()];
    let parts =
        (any::<[[u8; 32]; 2]>(), [number(), number(), number()], blobs, any::<u16>(), 1..6usize);
    parts.prop_map(|(ids, numbers, blobs, choice, items)| Fields {
        ids,
        numbers,
        blobs,
        choice: usize::from(choice),
        items,
    })
}

/// Of each message, one value made of `f`, with every shape as `choice` varies.
fn round_trips(f: &Fields) -> Result<(), TestCaseError> {
    let mut checked = Vec::new();
    macro_rules! round_trip {
        ($($name:ident: $value:expr),* $(,)?) => { $({
            let value = $value;
            let bytes = value.encode().expect("generated values have encodings");
            prop_assert_eq!(v09::$name::decode(&bytes), Ok(value));
            prop_assert!((Message::named(stringify!($name)).reencode)(&bytes) == Ok(bytes));
            checked.push(stringify!($name));
        })* };
    }

    let report_id = ReportId::new(std::array::from_fn(|i| f.ids[0][i]));
    let (task_id, batch_id) = (TaskId::new(f.ids[0]), BatchId::new(f.ids[1]));
    let [enc, sealed, public_share, ping_pong, agg_param, other] = &f.blobs;
    let ciphertext = |config_id, payload| v09::HpkeCiphertext {
        config_id: HpkeConfigId(config_id),
        enc,
        payload,
    };
    let (first, second) = (ciphertext(f.ids[0][31], sealed), ciphertext(f.ids[1][31], other));
    let interval = v09::Interval {
        start: Time::from_seconds(f.numbers[0]),
        duration: Duration::from_seconds(f.numbers[1]),
    };
    let metadata_bytes = v09::ReportMetadata::bytes(report_id, interval.start);
    let report_metadata =
        v09::ReportMetadata { report_id, time: interval.start, encoded: &metadata_bytes };
    let extension = |i: usize| v09::Extension {
        extension_type: u16::from_be_bytes([f.ids[1][i], f.ids[0][i]]),
        extension_data: &f.blobs[i],
    };
    let report_share =
        v09::ReportShare { report_metadata, public_share, encrypted_input_share: second };
    let prepare_init = |i: usize| v09::PrepareInit { report_share, payload: &f.blobs[i] };
    let part_batch_selector = match f.choice % 2 {
        0 => v09::PartialBatchSelector::TimeInterval,
        _ => v09::PartialBatchSelector::FixedSize(batch_id),
    };
    let error = match ReportError::ALL[f.choice % ReportError::ALL.len()] {
        ReportError::TaskNotStarted | ReportError::OutdatedConfig => ReportError::InvalidMessage,
        e => e,
    };
    let prepare_resp = |i: usize| v09::PrepareResp {
        report_id,
        prepare_resp_state: match (f.choice + i) % 3 {
            0 => v09::PrepareRespState::Continue(&f.blobs[i]),
            1 => v09::PrepareRespState::Finished,
            _ => v09::PrepareRespState::Reject(error),
        },
    };
    let prepare_continue = |i: usize| v09::PrepareContinue { report_id, payload: &f.blobs[i] };
    let fixed_size_query = match f.choice % 4 {
        0 | 1 => v09::FixedSizeQuery::CurrentBatch,
        _ => v09::FixedSizeQuery::ByBatchId(batch_id),
    };
    let query = match f.choice % 2 {
        0 => v09::Query::TimeInterval(interval),
        _ => v09::Query::FixedSize(fixed_size_query),
    };
    let batch_selector = match f.choice % 2 {
        0 => v09::BatchSelector::TimeInterval(interval),
        _ => v09::BatchSelector::FixedSize(batch_id),
    };
    let batch_selector_bytes = batch_selector.encode().expect("batch selectors have encodings");
    let batch_selector_encoded = &batch_selector_bytes[..];
    let (leader_url, helper_url) = (task_id.to_string(), batch_id.to_string());
    let [length, chunk_length] = [f.numbers[1] as u32, f.numbers[2] as u32];
    let bits = f.ids[0][2];
    let task_config = v09::TaskConfig {
        task_info: &f.ids[0][..=f.choice % 32],
        leader_aggregator_endpoint: &leader_url,
        helper_aggregator_endpoint: &helper_url,
        query_config: v09::QueryConfig {
            time_precision: interval.duration,
            max_batch_query_count: chunk_length as u16,
            min_batch_size: length,
            query: match f.choice % 3 {
                0 => v09::TaskQuery::TimeInterval,
                1 => v09::TaskQuery::FixedSize { max_batch_size: chunk_length },
                _ => v09::TaskQuery::Unknown { query_type: bits | 4, rest: sealed },
            },
        },
        task_expiration: interval.start,
        vdaf_config: v09::TaskVdafConfig {
            dp_mechanism: match f.choice % 2 {
                0 => v09::DpMechanism::None,
                _ => v09::DpMechanism::Unknown { mechanism: bits & !1, rest: ping_pong },
            },
            vdaf: match f.choice % 7 {
                0 => v09::TaskVdaf::Count,
                1 => v09::TaskVdaf::Sum { bits },
                2 => v09::TaskVdaf::SumVec { length, bits, chunk_length },
                3 => v09::TaskVdaf::Histogram { length, chunk_length },
                4 => v09::TaskVdaf::SumVecField64Multiproof {
                    length,
                    bits,
                    chunk_length,
                    proofs: f.ids[0][3],
                },
                5 => v09::TaskVdaf::Poplar1 { bits: length as u16 },
                _ => v09::TaskVdaf::Unknown { vdaf_type: 0xFFFF_1004, rest: other },
            },
        },
    };

    round_trip! {
        HpkeCiphertext: first,
        Interval: interval,
        PartialBatchSelector: part_batch_selector,
        ReportMetadata: report_metadata,
        Report: v09::Report {
            report_metadata,
            public_share,
            leader_encrypted_input_share: first,
            helper_encrypted_input_share: second,
        },
        Extension: extension(0),
        PlaintextInputShare: v09::PlaintextInputShare {
            extensions: (1..f.items).map(extension).collect(),
            payload: sealed,
        },
        InputShareAad: v09::InputShareAad { task_id, report_metadata, public_share },
        ReportShare: report_share,
        PrepareInit: v09::PrepareInit { report_share, payload: ping_pong },
        AggregationJobInitReq: v09::AggregationJobInitReq {
            agg_param,
            part_batch_selector,
            prepare_inits: (0..f.items).map(prepare_init).collect(),
        },
        PrepareResp: prepare_resp(0),
        AggregationJobResp: v09::AggregationJobResp {
            prepare_resps: (0..f.items).map(prepare_resp).collect(),
        },
        PrepareContinue: prepare_continue(0),
        AggregationJobContinueReq: v09::AggregationJobContinueReq {
            step: u16::from_be_bytes([f.ids[0][0], f.ids[0][1]]),
            prepare_continues: (0..f.items).map(prepare_continue).collect(),
        },
        FixedSizeQuery: fixed_size_query,
        Query: query,
        CollectionReq: v09::CollectionReq { query, agg_param },
        Collection: v09::Collection {
            part_batch_selector,
            report_count: f.numbers[2],
            interval,
            leader_encrypted_agg_share: first,
            helper_encrypted_agg_share: second,
        },
        BatchSelector: batch_selector,
        AggregateShareReq: v09::AggregateShareReq {
            batch_selector,
            batch_selector_encoded,
            agg_param,
            report_count: f.numbers[2],
            checksum: f.ids[0],
        },
        AggregateShare: v09::AggregateShare { encrypted_aggregate_share: first },
        AggregateShareAad: v09::AggregateShareAad {
            task_id,
            agg_param,
            batch_selector,
            batch_selector_encoded,
        },
        TaskConfig: task_config,
    }
    let names: Vec<_> = MESSAGES.iter().map(|m| m.name).collect();
    prop_assert_eq!(checked, names);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn generated_messages_round_trip(f in fields()) {
        round_trips(&f)?;
    }

    #[test]
    fn any_bytes_are_an_error_or_their_own_encoding(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        for m in MESSAGES {
            check(m, &bytes);
        }
    }
}
