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
    codec::Writer,
    error::ReportError,
    ids::{BatchId, HpkeConfigId, ReportId, TaskId},
    time::{Duration, Time},
    vdaf::VdafConfig,
    wire::{v09, v18},
};
use proptest::prelude::*;

#[path = "vectors/mod.rs"]
#[allow(dead_code, reason = "each test file uses its part of the tables")]
mod vectors;
use vectors::{List, Message, TABLES, Table, Vector, dap_09, dap_18};

#[path = "vectors/counting.rs"]
mod counting;
use counting::peak_bytes;
#[path = "vectors/damage.rs"]
mod damage;
use damage::{Random, damage};

const INPUTS_PER_DECODER: u32 = 50_000;

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
fn check(table: &Table, m: &Message, input: &[u8]) -> bool {
    let culprit = Culprit(m.name, input);
    let (decodes, peak) = peak_bytes(|| (m.decodes)(input));
    let max = table.peak_bytes_max(m, input.len());
    assert!(peak <= max, "{}: {peak} bytes allocated for {}, at most {max}", m.name, input.len());
    if decodes {
        let again = (m.reencode)(input).expect("it decoded before");
        assert!(again == input, "{}: encodes differently", m.name);
    }
    drop(culprit);
    decodes
}

/// The message's vectors, and for each list in it one with many items.
fn seeds(table: &Table, m: &Message) -> Vec<Vector> {
    let mut seeds = m.parsed();
    seeds.extend(m.lists.iter().map(|list| many_items(table, list, 24)));
    seeds
}

/// A message with a list of `n` of the shortest items.
fn many_items(table: &Table, list: &List, n: usize) -> Vector {
    let items = table.shortest(list).repeat(n);
    let (before, after) = (vectors::parse(list.before).bytes, vectors::parse(list.after).bytes);
    let prefix = (items.len() as u64).to_be_bytes();
    let bytes = [&before, &prefix[8 - list.width..], &items, &after].concat();
    let prefixes = match list.width {
        0 => Vec::new(),
        width => std::iter::once(before.len()..before.len() + width).collect(),
    };
    Vector { bytes, prefixes, ends: Vec::new() }
}

/// Every message with its table.
fn messages() -> impl Iterator<Item = (&'static Table, &'static Message)> {
    TABLES.into_iter().flat_map(|table| table.messages.iter().map(move |m| (table, m)))
}

#[test]
fn damaged_messages_neither_panic_nor_allocate_beyond_their_length() {
    let all: Vec<Vector> = messages().flat_map(|(table, m)| seeds(table, m)).collect();
    let queue: Mutex<VecDeque<_>> = Mutex::new(messages().enumerate().collect());
    let next = || queue.lock().expect("no thread panics while it holds this").pop_front();
    let run = || {
        while let Some((index, (table, m))) = next() {
            let mut random = Random::new(index as u64);
            let seeds = seeds(table, m);
            let mut input = Vec::new();
            let (mut decoded, mut peak) = (0u32, 0);
            for _ in 0..INPUTS_PER_DECODER {
                let seed = &seeds[random.below(seeds.len())];
                let other = &all[random.below(all.len())];
                damage(&mut random, &seed.bytes, &seed.prefixes, &other.bytes, &mut input);
                decoded += u32::from(check(table, m, &input));
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
    let n = messages().count();
    writeln!(io::stderr(), "{n} decoders, {INPUTS_PER_DECODER} damaged inputs each")
        .expect("stderr is open");
}

#[test]
fn the_allocator_counts_and_the_bound_is_not_idle() {
    assert_eq!(peak_bytes(|| drop(vec![0u8; 1_000])).1, 1_000);
    for (table, m) in messages().filter(|(_, m)| !m.lists.is_empty()) {
        let mut filled = Vec::new();
        for list in m.lists {
            let seed = many_items(table, list, 8_193);
            let (decodes, peak) = peak_bytes(|| (m.decodes)(&seed.bytes));
            assert!(decodes, "{} of {}", m.name, list.item);
            let max = table.peak_bytes_max(m, seed.bytes.len());
            println!("{}: {} bytes, {peak} allocated of {max}", m.name, seed.bytes.len());
            assert!(peak <= max, "{}: {peak} of {max}", m.name);
            filled.push(peak > max * 9 / 10);
        }
        assert!(filled.contains(&true), "{}: {filled:?}", m.name);
    }
}

#[test]
fn a_claimed_length_allocates_nothing() {
    for (table, m) in messages() {
        for v in seeds(table, m) {
            for prefix in &v.prefixes {
                // The prefix claims all it can and nothing follows: only what came before may be held.
                let mut bytes = v.bytes[..prefix.end].to_vec();
                bytes[prefix.clone()].fill(0xff);
                let (decodes, peak) = peak_bytes(|| (m.decodes)(&bytes));
                let first_prefix = prefix.start == v.prefixes[0].start;
                let max = if first_prefix { 0 } else { table.peak_bytes_max(m, bytes.len()) };
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

/// Checks that values of each message of a draft decode from their encodings, and that all messages are there.
macro_rules! round_trip {
    ($draft:ident, $table:expr, $($name:ident: $value:expr),* $(,)?) => {{
        let mut checked = Vec::new();
        $({
            let value = $value;
            let bytes = value.encode().expect("generated values have encodings");
            prop_assert_eq!($draft::$name::decode(&bytes), Ok(value));
            prop_assert!(($table.named(stringify!($name)).reencode)(&bytes) == Ok(bytes));
            checked.push(stringify!($name));
        })*
        let names: Vec<_> = $table.messages.iter().map(|m| m.name).collect();
        prop_assert_eq!(checked, names);
    }};
}

/// Of each message of DAP-09, one value made of `f`, with every shape as `choice` varies.
fn round_trips_v09(f: &Fields) -> Result<(), TestCaseError> {
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
        v09, dap_09::TABLE,
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
    Ok(())
}

/// The same of DAP-18.
fn round_trips_v18(f: &Fields) -> Result<(), TestCaseError> {
    let report_id = ReportId::new(std::array::from_fn(|i| f.ids[0][i]));
    let batch_id = BatchId::new(f.ids[1]);
    let [enc, sealed, public_share, list, agg_param, other] = &f.blobs;
    let ciphertext = |config_id, payload| v18::HpkeCiphertext {
        config_id: HpkeConfigId(config_id),
        enc,
        payload,
    };
    let (first, second) = (ciphertext(f.ids[0][31], sealed), ciphertext(f.ids[1][31], other));
    let interval = v18::Interval { start: f.numbers[0], duration: f.numbers[1] };
    let extension = |i: usize| v18::Extension {
        extension_type: u16::from_be_bytes([f.ids[1][i], f.ids[0][i]]),
        extension_data: &f.blobs[i],
    };
    let extensions: Vec<_> = (1..f.items).map(extension).collect();
    // The list of public extensions may be any bytes.
    let mut w = Writer::new();
    w.raw(report_id.as_bytes()).u64(f.numbers[0]).opaque16(list);
    let encoded = &w.finish().expect("the list is short");
    let report_metadata =
        v18::ReportMetadata { report_id, time: f.numbers[0], public_extensions: list, encoded };
    let report = v18::Report {
        report_metadata,
        public_share,
        leader_encrypted_input_share: first,
        helper_encrypted_input_share: second,
    };
    let report_share =
        v18::ReportShare { report_metadata, public_share, encrypted_input_share: second };
    let payload = &[&[f.ids[0][4]], &sealed[..]].concat()[..];
    let verify_init = v18::VerifyInit { report_share, payload };
    let error = match ReportError::ALL[f.choice % ReportError::ALL.len()] {
        ReportError::BatchSaturated => ReportError::InvalidMessage,
        e => e,
    };
    let status = v18::ReportUploadStatus { report_id, error };
    let verify_resp = |i: usize| v18::VerifyResp {
        report_id,
        verify_resp_type: match (f.choice + i) % 3 {
            0 => v18::VerifyRespType::Continue(payload),
            1 => v18::VerifyRespType::Finish,
            _ => v18::VerifyRespType::Reject(error),
        },
    };
    let verify_continue = v18::VerifyContinue { report_id, payload };
    let (query, batch_selector) = match f.choice % 2 {
        0 => (v18::Query::TimeInterval(interval), v18::BatchSelector::TimeInterval(interval)),
        _ => (v18::Query::LeaderSelected, v18::BatchSelector::LeaderSelected(batch_id)),
    };
    let collection_job_req =
        v18::CollectionJobReq { query, agg_param, extensions: extensions.clone() };
    let collection_job_req_encoded =
        &collection_job_req.encode().expect("collection jobs have encodings")[..];
    let (leader_url, helper_url) = (report_id.to_string(), batch_id.to_string());
    let [length, chunk_length] = [f.numbers[1] as u32, f.numbers[2] as u32];
    let (max_measurement, code) = (f.numbers[0], f.ids[0][2]);
    let vdaf = match f.choice % 8 {
        0 => VdafConfig::Prio3Count,
        1 => VdafConfig::Prio3Sum { max_measurement },
        2 => VdafConfig::Prio3SumVec { length, max_measurement, chunk_length },
        3 => VdafConfig::Prio3Histogram { length, chunk_length },
        4 => VdafConfig::Prio3MultihotCountVec { length, max_weight: !length, chunk_length },
        5 => VdafConfig::Poplar1 { bits: length as u16 },
        _ => VdafConfig::Prio3SumVecField64MultiproofHmacSha256Aes128 {
            length,
            max_measurement,
            chunk_length,
            proofs: code,
        },
    };

    round_trip! {
        v18, dap_18::TABLE,
        HpkeCiphertext: first,
        Interval: interval,
        Extension: extension(0),
        ReportMetadata: report_metadata,
        Report: report,
        UploadRequest: v18::UploadRequest { reports: vec![report; f.items - 1] },
        ReportUploadStatus: status,
        UploadErrors: v18::UploadErrors { status: vec![status; f.items - 1] },
        PlaintextInputShare: v18::PlaintextInputShare {
            private_extensions: extensions.clone(),
            payload,
        },
        ReportShare: report_share,
        VerifyInit: verify_init,
        AggregationJobInitReq: v18::AggregationJobInitReq {
            verification_key_id: code,
            agg_param,
            extensions: extensions.clone(),
            verify_inits: vec![verify_init; f.items],
        },
        VerifyResp: verify_resp(0),
        AggregationJobResp: v18::AggregationJobResp {
            verify_resps: (0..f.items).map(verify_resp).collect(),
        },
        VerifyContinue: verify_continue,
        AggregationJobContinueReq: v18::AggregationJobContinueReq {
            step: u16::from_be_bytes([f.ids[0][0], f.ids[0][1]]),
            verify_continues: vec![verify_continue; f.items],
        },
        Query: query,
        CollectionJobReq: collection_job_req.clone(),
        CollectionJobResp: v18::CollectionJobResp {
            report_count: f.numbers[2],
            interval,
            leader_encrypted_agg_share: first,
            helper_encrypted_agg_share: second,
        },
        BatchSelector: batch_selector,
        AggregateShareReq: v18::AggregateShareReq {
            collection_job_req,
            collection_job_req_encoded,
            batch_selector,
            report_count: f.numbers[2],
            checksum: f.ids[0],
        },
        AggregateShare: v18::AggregateShare { encrypted_aggregate_share: first },
        TaskConfiguration: v18::TaskConfiguration {
            task_info: &f.ids[0][..=f.choice % 32],
            leader_aggregator_endpoint: &leader_url,
            helper_aggregator_endpoint: &helper_url,
            time_precision: f.numbers[0],
            min_batch_size: f.numbers[1],
            batch_mode: match f.choice % 3 {
                0 => v18::BatchMode::TimeInterval,
                1 => v18::BatchMode::LeaderSelected,
                _ => v18::BatchMode::Unknown { code: code | 4, config: other },
            },
            vdaf: match f.choice % 8 {
                7 => v18::TaskVdaf::Unknown { code: 0xFFFF_0000, parameters: sealed },
                _ => v18::TaskVdaf::Known(vdaf),
            },
            extensions,
        },
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn generated_messages_round_trip(f in fields()) {
        round_trips_v09(&f)?;
        round_trips_v18(&f)?;
    }

    #[test]
    fn any_bytes_are_an_error_or_their_own_encoding(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        for (table, m) in messages() {
            check(table, m, &bytes);
        }
    }
}
