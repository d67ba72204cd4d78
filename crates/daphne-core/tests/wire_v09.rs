//! What is peculiar to the encodings of DAP-09, and recorded exchanges.

use std::collections::BTreeMap;

use daphne_core::{
    codec::{DecodeError, EncodeError, Reader, Writer},
    error::{AbortKind, ReportError},
    hpke::HpkeConfigList,
    ids::{BatchId, ReportId, TaskId},
    message,
    testing::recorded::{Content, Exchange, Recording, say},
    time::{Duration, Time},
    wire::{aggregate_share_aad, input_share_aad, v09},
};

#[path = "vectors/mod.rs"]
#[allow(dead_code, reason = "each test file uses its part of the tables")]
mod vectors;
use vectors::dap_09::TABLE;

fn vector(name: &str, index: usize) -> Vec<u8> {
    TABLE.vector(name, index)
}

/// Another decoder panics on these 30 bytes: an extension of type 0xff00 which claims 65,535 bytes and has none.
#[test]
fn reproduction_extension_length_past_the_end() {
    let mut bytes = vec![0; 16]; // report_id
    bytes.extend([0; 8]); // time
    bytes.extend([0x00, 0x04]); // extensions, 4 bytes
    bytes.extend([0xff, 0x00, 0xff, 0xff]); // type 0xff00, length 0xffff
    assert_eq!(bytes.len(), 30);
    for m in TABLE.messages {
        assert!(!(m.decodes)(&bytes), "{}", m.name);
        // The extension list alone, and the extension alone.
        assert!(!(m.decodes)(&bytes[24..]), "{}", m.name);
        assert!(!(m.decodes)(&bytes[26..]), "{}", m.name);
    }
    assert_eq!(v09::Report::decode(&bytes), Err(DecodeError::Truncated));
}

#[test]
fn lists_hold_at_least_one_report() {
    for (name, before) in [
        ("AggregationJobInitReq", &[0, 0, 0, 0, 1][..]),
        ("AggregationJobResp", &[]),
        ("AggregationJobContinueReq", &[0, 1]),
    ] {
        let empty = [before, &[0; 4]].concat();
        assert!(
            matches!((TABLE.named(name).reencode)(&empty), Err(DecodeError::Invalid(_))),
            "{name}"
        );
    }
    let init = v09::AggregationJobInitReq {
        agg_param: &[],
        part_batch_selector: v09::PartialBatchSelector::TimeInterval,
        prepare_inits: vec![],
    };
    assert_eq!(init.encode(), Err(EncodeError));
    assert_eq!(v09::AggregationJobResp { prepare_resps: vec![] }.encode(), Err(EncodeError));
    let cont = v09::AggregationJobContinueReq { step: 1, prepare_continues: vec![] };
    assert_eq!(cont.encode(), Err(EncodeError));
}

#[test]
fn unknown_code_points_are_errors() {
    // Where the code point stands, and which values are known.
    TABLE.assert_code_points(&[
        ("PartialBatchSelector", 0, 0, 1..=2),
        ("BatchSelector", 0, 0, 1..=2),
        ("Query", 0, 0, 1..=2),
        ("Query", 3, 1, 0..=1),
        ("FixedSizeQuery", 1, 0, 0..=1),
        ("CollectionReq", 0, 0, 1..=2),
        ("CollectionReq", 1, 1, 0..=1),
        ("Collection", 0, 0, 1..=2),
        ("AggregationJobInitReq", 0, 4, 1..=2),
        ("AggregateShareReq", 0, 0, 1..=2),
        ("AggregateShareAad", 0, 36, 1..=2),
        ("PrepareResp", 0, 16, 0..=2),
        ("PrepareResp", 3, 17, 0..=9),
        ("AggregationJobResp", 0, 20, 0..=2),
        ("AggregationJobResp", 0, 61, 0..=9),
    ]);
}

#[test]
fn one_clients_bytes_cannot_fail_a_job() {
    let good =
        v09::PrepareInit::decode(&vector("PrepareInit", 0)).map(|p| p.encode()).unwrap().unwrap();
    let report = |public_share: &[u8], enc: &[u8], sealed: &[u8], ping_pong: &[u8]| {
        let metadata =
            v09::ReportMetadata::bytes(ReportId::new([9; 16]), Time::from_seconds(u64::MAX));
        v09::PrepareInit {
            report_share: v09::ReportShare {
                report_metadata: v09::ReportMetadata::decode(&metadata).unwrap(),
                public_share,
                encrypted_input_share: v09::HpkeCiphertext {
                    config_id: daphne_core::ids::HpkeConfigId(255),
                    enc,
                    payload: sealed,
                },
            },
            payload: ping_pong,
        }
        .encode()
        .unwrap()
    };
    for bad in [
        report(&[], &[], &[], &[]),
        report(&[0xff; 300], &[0xff; 300], &[0xff; 300], &[0xff; 300]),
        report(&[0; 4], &[0; 31], &[0; 15], &[3, 0xff, 0xff, 0xff, 0xff]),
    ] {
        let list = [&good[..], &bad, &good].concat();
        let length = u32::try_from(list.len()).unwrap().to_be_bytes();
        let body = [&[0, 0, 0, 0, 1][..], &length, &list].concat();
        assert_eq!(v09::AggregationJobInitReq::decode(&body).unwrap().prepare_inits.len(), 3);
    }
}

#[test]
fn associated_data_is_the_bytes_received() {
    let aad = vector("InputShareAad", 0);
    let body = vector("ReportShare", 0);
    let share: message::ReportShare<'_> = v09::ReportShare::decode(&body).unwrap().into();
    let task_id = TaskId::new(aad[..32].try_into().unwrap());
    assert_eq!(share.metadata.encoded, &body[..24]);
    let encoded = share.metadata.encoded;
    assert_eq!(input_share_aad(&task_id, &[], encoded, share.public_share).unwrap(), aad);

    for index in [0, 1] {
        let aad = vector("AggregateShareAad", index);
        let body = vector("AggregateShareReq", index);
        let req = v09::AggregateShareReq::decode(&body).unwrap().into_message().unwrap();
        assert_eq!(aggregate_share_aad(&task_id, &[], &req.share_binding), aad);
        let rebuilt = v09::share_binding(req.agg_param, &req.batch_selector).unwrap();
        assert_eq!(rebuilt, *req.share_binding);
        assert_eq!(req.collected, req.batch_selector);
    }
}

#[test]
fn neutral_messages_lose_nothing() {
    fn same<W, N>(
        name: &str,
        decode: impl Fn(&[u8]) -> W,
        encode: impl Fn(&W) -> Vec<u8>,
        there: impl Fn(W) -> N,
        back: impl Fn(N) -> W,
    ) {
        for v in TABLE.named(name).parsed() {
            assert_eq!(encode(&back(there(decode(&v.bytes)))), v.bytes, "{name}");
        }
    }
    // A leaked vector lets a borrowing message leave its decoder; a few hundred bytes.
    macro_rules! same {
        ($name:ident, $neutral:ty) => {
            same(
                stringify!($name),
                |b| v09::$name::decode(b.to_vec().leak()).unwrap(),
                |w| w.encode().unwrap(),
                <$neutral>::from,
                v09::$name::from,
            )
        };
    }
    same!(ReportMetadata, message::ReportMetadata<'static>);
    same!(Report, message::Report<'static>);
    same!(ReportShare, message::ReportShare<'static>);
    same!(PrepareInit, message::VerifyInit<'static>);
    same!(AggregationJobInitReq, message::AggregationJobInit<'static>);
    same!(PlaintextInputShare, message::PlaintextInputShare<'static>);
    same!(PartialBatchSelector, message::PartialBatchSelector);
    same!(BatchSelector, message::BatchSelector);

    for v in TABLE.named("AggregationJobResp").parsed() {
        let resps =
            Vec::<message::VerifyResp>::from(v09::AggregationJobResp::decode(&v.bytes).unwrap());
        assert_eq!(v09::AggregationJobResp::from(&resps[..]).encode().unwrap(), v.bytes);
    }
    for v in TABLE.named("AggregateShareReq").parsed() {
        let request = v09::AggregateShareReq::decode(&v.bytes).unwrap().into_message().unwrap();
        assert_eq!(v09::AggregateShareReq::encode_message(&request).unwrap(), v.bytes);
    }
    for v in TABLE.named("Query").parsed() {
        let query = v09::Query::decode(&v.bytes).unwrap();
        match message::Query::try_from(query) {
            Ok(neutral) => assert_eq!(v09::Query::from(neutral), query),
            Err(abort) => {
                assert_eq!(abort.kind, AbortKind::BatchInvalid);
                let last = u64::MAX;
                let endless = v09::Interval {
                    start: Time::from_seconds(last),
                    duration: Duration::from_seconds(last),
                };
                assert_eq!(query, v09::Query::TimeInterval(endless));
            }
        }
    }
}

#[test]
fn fields_land_where_their_names_say() {
    let body = vector("AggregationJobInitReq", 1);
    let init: message::AggregationJobInit<'_> =
        v09::AggregationJobInitReq::decode(&body).unwrap().into();
    let batch: [u8; 32] = std::array::from_fn(|i| 0xb0 + i as u8);
    assert_eq!(init.agg_param, [0xa0, 0xa1]);
    assert_eq!(init.batch, message::PartialBatchSelector::LeaderSelected(BatchId::new(batch)));
    let [report] = &init.verify_inits[..] else { panic!("one report") };
    assert_eq!(report.payload, [0x90, 0x91, 0x92]);
    assert_eq!(report.report_share.public_share, [0x50, 0x51]);
    assert_eq!(report.report_share.metadata.time.as_seconds(), 1_700_000_000);
    assert_eq!(report.report_share.metadata.report_id.as_bytes()[15], 15);
    let sealed = report.report_share.encrypted_input_share;
    assert_eq!(
        (sealed.config_id.0, sealed.enc, sealed.payload),
        (42, &[0xc0, 0xc1, 0xc2, 0xc3][..], &[0xd0, 0xd1, 0xd2][..])
    );

    let body = vector("AggregateShareReq", 0);
    let req = v09::AggregateShareReq::decode(&body).unwrap();
    assert_eq!((req.report_count, req.checksum[0], req.checksum[31]), (100, 0xec, 0xde));
    let v09::BatchSelector::TimeInterval(interval) = req.batch_selector else {
        panic!("time interval")
    };
    assert_eq!(
        (interval.start.as_seconds(), interval.duration.as_seconds()),
        (1_700_000_000, 3_600)
    );
}

#[test]
fn what_has_no_encoding_is_our_error() {
    for e in ReportError::ALL {
        let resp = v09::PrepareResp {
            report_id: ReportId::new([0; 16]),
            prepare_resp_state: v09::PrepareRespState::Reject(e),
        };
        let has_no_code = matches!(e, ReportError::TaskNotStarted | ReportError::OutdatedConfig);
        assert_eq!(resp.encode().is_err(), has_no_code, "{e:?}");
    }
    let long = vec![0; 65_536];
    let extension = |data| v09::Extension { extension_type: 1, extension_data: data };
    assert_eq!(extension(&long).encode(), Err(EncodeError));
    let share = |extensions| v09::PlaintextInputShare { extensions, payload: &[] }.encode();
    assert!(share(vec![extension(&long[..65_531])]).is_ok());
    assert_eq!(share(vec![extension(&long[..65_532])]), Err(EncodeError));
}

#[test]
fn an_input_share_does_not_print() {
    let share = v09::PlaintextInputShare { extensions: vec![], payload: b"secret" };
    assert_eq!(format!("{share:?}"), "PlaintextInputShare");
}

/// Every DAP-09 message of exchanges recorded between other implementations decodes, and encodes to itself.
#[test]
fn recorded_messages_round_trip() {
    let mut seen = BTreeMap::<&str, usize>::new();
    for recording in Recording::all() {
        for Exchange { request, response, .. } in recording.exchanges {
            for Content { media_type, body } in [request, response] {
                let Some(media_type) = media_type else {
                    assert!(body.is_empty(), "{}: a body without media type", recording.name);
                    continue;
                };
                let name = match media_type.as_str() {
                    "application/dap-report" => "Report",
                    "application/dap-aggregation-job-init-req" => "AggregationJobInitReq",
                    "application/dap-aggregation-job-continue-req" => "AggregationJobContinueReq",
                    "application/dap-aggregation-job-resp" => "AggregationJobResp",
                    "application/dap-aggregate-share-req" => "AggregateShareReq",
                    "application/dap-aggregate-share" => "AggregateShare",
                    "application/dap-collect-req" => "CollectionReq",
                    "application/dap-collection" => "Collection",
                    "application/dap-hpke-config-list" => "HpkeConfigList",
                    other => panic!("{}: unknown media type {other}", recording.name),
                };
                let again = match name {
                    "HpkeConfigList" => {
                        let mut w = Writer::new();
                        Reader::all(&body, HpkeConfigList::read).unwrap().write(&mut w);
                        Ok(w.finish().unwrap())
                    }
                    name => (TABLE.named(name).reencode)(&body),
                };
                assert_eq!(again, Ok(body), "{}: {name}", recording.name);
                *seen.entry(name).or_default() += 1;
            }
        }
    }
    if seen.is_empty() {
        return;
    }
    let total: usize = seen.values().sum();
    say(&format!("VECTORS dap-09-wire: {total} recorded messages round-trip"));
    for name in
        ["AggregationJobInitReq", "AggregationJobResp", "AggregateShareReq", "AggregateShare"]
    {
        assert!(seen.contains_key(name), "no recorded {name}");
    }
}
