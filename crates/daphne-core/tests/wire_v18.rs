//! What is peculiar to the encodings of DAP-18: what a receiver refuses, units of time, and what is bound to what.

use daphne_core::{
    batch::{BatchMode, BucketRange},
    codec::{EncodeError, Writer},
    error::{Abort, AbortKind, ReportError},
    ids::{BatchId, HpkeConfigId, ReportId, TaskId},
    message::{self, VerifyRespResult},
    time::{Duration, Interval, Time},
    version::DapVersion,
    wire::{Wire, aggregate_share_aad, input_share_aad, v18},
};

#[path = "vectors/mod.rs"]
#[allow(dead_code, reason = "each test file uses its part of the tables")]
mod vectors;
use vectors::dap_18::TABLE;

const HOUR: Duration = Duration::from_seconds(3_600);
const WIRE: Wire = Wire::new(DapVersion::V18, HOUR);

fn vector(name: &str, index: usize) -> Vec<u8> {
    TABLE.vector(name, index)
}

fn kind<T>(result: Result<T, Abort>) -> AbortKind {
    match result {
        Err(abort) => abort.kind,
        Ok(_) => panic!("it was taken"),
    }
}

#[test]
fn unknown_code_points_are_errors() {
    // Where the code point stands, and which values are known.
    TABLE.assert_code_points(&[
        ("Query", 0, 0, 1..=2),
        ("BatchSelector", 0, 0, 1..=2),
        ("CollectionJobReq", 0, 0, 1..=2),
        ("AggregateShareReq", 0, 0, 1..=2),
        ("AggregateShareReq", 0, 25, 1..=2),
        ("VerifyResp", 0, 16, 0..=2),
        ("VerifyResp", 2, 17, 1..=11),
        ("AggregationJobResp", 0, 57, 1..=11),
        ("ReportUploadStatus", 0, 16, 1..=11),
        ("UploadErrors", 0, 33, 1..=11),
    ]);
}

/// A mode's `config` has one length.
#[test]
fn a_configuration_of_another_length_is_an_error() {
    let query = |mode: u8, config: &[u8]| {
        let mut w = Writer::new();
        w.u8(mode).opaque16(config);
        v18::Query::decode(&w.finish().unwrap())
    };
    let selector = |mode: u8, config: &[u8]| {
        let mut w = Writer::new();
        w.u8(mode).opaque16(config);
        v18::BatchSelector::decode(&w.finish().unwrap())
    };
    for n in 0..40 {
        let config = vec![1; n];
        assert_eq!(query(1, &config).is_ok(), n == 16, "{n}");
        assert_eq!(query(2, &config).is_ok(), n == 0, "{n}");
        assert_eq!(selector(1, &config).is_ok(), n == 16, "{n}");
        assert_eq!(selector(2, &config).is_ok(), n == 32, "{n}");
    }
}

#[test]
fn one_clients_bytes_cannot_fail_a_job() {
    let good = vector("VerifyInit", 0);
    let report = |time: u64, public_extensions: &[u8], enc: &[u8], sealed: &[u8]| {
        let mut w = Writer::new();
        w.raw(&[9; 16]).u64(time).opaque16(public_extensions);
        let metadata = w.finish().unwrap();
        v18::VerifyInit {
            report_share: v18::ReportShare {
                report_metadata: v18::ReportMetadata::decode(&metadata).unwrap(),
                public_share: enc,
                encrypted_input_share: v18::HpkeCiphertext {
                    config_id: HpkeConfigId(255),
                    enc,
                    payload: sealed,
                },
            },
            payload: &[1],
        }
        .encode()
        .unwrap()
    };
    for bad in [
        report(0, &[], &[], &[]),
        report(u64::MAX, &[0xff; 300], &[0xff; 300], &[0xff; 300]),
        report(u64::MAX / 2, &[0, 1, 0], &[0; 31], &[0; 15]),
        report(1, &[0, 1, 0xff, 0xff], &[], &[1]),
    ] {
        let body = [&[0; 7][..], &good, &bad, &good].concat();
        let init = WIRE.aggregation_job_init(&body).unwrap();
        assert_eq!(init.verify_inits.len(), 3);
        assert!(init.verify_inits[1].report_share.metadata.time >= Time::from_seconds(0));
    }
}

#[test]
fn associated_data_is_the_bytes_received() {
    let task_id = TaskId::new([7; 32]);
    let configuration = vector("TaskConfiguration", 1);
    for index in [0, 1] {
        let body = vector("ReportShare", index);
        let share = v18::ReportShare::decode(&body).unwrap();
        let metadata = WIRE.decode_report_metadata(share.report_metadata.encoded).unwrap();
        let aad = input_share_aad(&task_id, &configuration, metadata.encoded, share.public_share)
            .unwrap();
        let length = (share.public_share.len() as u32).to_be_bytes();
        let expected = [&[7; 32][..], &configuration, &body[..26], &length, share.public_share];
        assert_eq!(aad, expected.concat());
    }
    // Extensions that do not decode are bound as they are.
    let broken = vector("ReportMetadata", 3);
    assert_eq!(WIRE.decode_report_metadata(&broken).unwrap().encoded, broken);
    for (index, length) in [(0, 25), (1, 25), (2, 11)] {
        let body = vector("AggregateShareReq", index);
        let request = WIRE.aggregate_share_request(&body).unwrap();
        assert_eq!(*request.share_binding, body[..length]);
        let aad = aggregate_share_aad(&task_id, &configuration, &request.share_binding);
        assert_eq!(aad, [&[7; 32][..], &configuration, &body[..length]].concat());
        // Who asks for all of it, and has no extensions, says so in the same bytes.
        let asked = WIRE.share_binding(request.agg_param, &request.collected).unwrap();
        assert_eq!(asked, body[..length]);
    }
}

#[test]
fn neutral_messages_lose_nothing() {
    for index in [0, 1] {
        let body = vector("AggregationJobInitReq", index);
        let init = WIRE.aggregation_job_init(&body).unwrap();
        assert_eq!(WIRE.encode_aggregation_job_init(&init).unwrap(), body);
        let body = vector("AggregationJobContinueReq", index);
        let request = WIRE.aggregation_job_continue(&body).unwrap();
        assert_eq!(WIRE.encode_aggregation_job_continue(&request).unwrap(), body);
        let body = vector("AggregationJobResp", index);
        let answers = WIRE.aggregation_job_resp(&body).unwrap();
        assert_eq!(WIRE.encode_aggregation_job_resp(&answers).unwrap(), body);
    }
    for index in 0..3 {
        let body = vector("AggregateShareReq", index);
        let request = WIRE.aggregate_share_request(&body).unwrap();
        assert_eq!(WIRE.encode_aggregate_share_request(&request).unwrap(), body);
        let body = vector("Report", index);
        assert_eq!(WIRE.encode_report(WIRE.report(&body).unwrap()).unwrap(), body);
        let body = vector("PlaintextInputShare", index);
        let share = WIRE.plaintext_input_share(&body).unwrap();
        assert_eq!(WIRE.encode_plaintext_input_share(share).unwrap(), body);
    }
    // The last metadata have extensions that nobody could have written.
    for index in 0..3 {
        let body = vector("ReportMetadata", index);
        let m = WIRE.decode_report_metadata(&body).unwrap();
        let public = daphne_core::wire::common::extensions(m.public_extensions).unwrap();
        let again = WIRE.report_metadata(m.report_id, m.time, &public).unwrap();
        assert_eq!(again == body, index != 2, "a time that saturates is another one");
    }
}

#[test]
fn fields_land_where_their_names_say() {
    let body = vector("AggregationJobInitReq", 1);
    let init = WIRE.aggregation_job_init(&body).unwrap();
    let batch: [u8; 32] = std::array::from_fn(|i| 0xb0 + i as u8);
    assert_eq!(init.agg_param, [0xa0, 0xa1]);
    assert_eq!(init.batch, message::PartialBatchSelector::LeaderSelected(BatchId::new(batch)));
    let [report] = &init.verify_inits[..] else { panic!("one report") };
    assert_eq!(report.payload, [0x90, 0x91, 0x92]);
    assert_eq!(report.report_share.public_share, [0x50, 0x51]);
    assert_eq!(report.report_share.metadata.time.as_seconds(), 470_848 * 3_600);
    assert_eq!(report.report_share.metadata.report_id.as_bytes()[15], 15);
    let sealed = report.report_share.encrypted_input_share;
    assert_eq!(
        (sealed.config_id.0, sealed.enc, sealed.payload),
        (42, &[0xc0, 0xc1, 0xc2, 0xc3][..], &[0xd0, 0xd1, 0xd2][..])
    );
    let body = vector("AggregateShareReq", 1);
    let request = WIRE.aggregate_share_request(&body).unwrap();
    assert_eq!(
        (request.report_count, request.checksum[0], request.checksum[31]),
        (100, 0xec, 0xde)
    );
    let hours = |n: u64| message::BatchSelector::TimeInterval {
        start: Time::from_seconds(470_848 * 3_600),
        duration: Duration::from_seconds(n * 3_600),
    };
    assert_eq!((request.batch_selector, request.collected), (hours(1), hours(2)));
}

#[test]
fn a_jobs_extensions_its_key_and_its_reports_are_checked() {
    let report = vector("VerifyInit", 0);
    let init = |key: u8, extensions: &[(u16, &[u8])], reports: &[u8]| {
        let mut w = Writer::new();
        w.u8(key).opaque32(&[]).list16(|w| {
            for (code, data) in extensions {
                w.u16(*code).opaque16(data);
            }
        });
        w.raw(reports);
        let body = w.finish().unwrap();
        WIRE.aggregation_job_init(&body).map(|init| init.batch)
    };
    let batch = [5; 32];
    assert_eq!(init(0, &[], &report), Ok(message::PartialBatchSelector::TimeInterval));
    let selected = message::PartialBatchSelector::LeaderSelected(BatchId::new(batch));
    assert_eq!(init(0, &[(1, &batch)], &report), Ok(selected));
    // One that is not known is the reason, whatever else is wrong with them.
    for unknown in
        [&[(2, &[][..])][..], &[(0, &[])], &[(1, &batch), (9, &[1])], &[(9, &[]), (1, &[])]]
    {
        assert_eq!(kind(init(1, unknown, &report)), AbortKind::UnsupportedExtension);
    }
    for wrong in
        [&[(1, &batch[..]), (1, &batch)][..], &[(1, &[])], &[(1, &batch[1..])], &[(1, &[5; 33])]]
    {
        assert_eq!(kind(init(0, wrong, &report)), AbortKind::InvalidMessage);
    }
    assert_eq!(kind(init(1, &[], &report)), AbortKind::InvalidMessage, "there is one key");
    assert_eq!(kind(init(0, &[], &[])), AbortKind::InvalidMessage, "no report");
    assert!(WIRE.aggregation_job_continue(&[0, 1]).is_err(), "no report");
}

#[test]
fn a_collection_jobs_extensions_and_modes_are_checked() {
    let ask = |query: v18::Query, selector: v18::BatchSelector, extensions: &[u16]| {
        let extensions = extensions
            .iter()
            .map(|code| v18::Extension { extension_type: *code, extension_data: &[] });
        let job = v18::CollectionJobReq { query, agg_param: &[], extensions: extensions.collect() };
        let body = v18::AggregateShareReq {
            collection_job_req_encoded: &job.encode().unwrap(),
            collection_job_req: job,
            batch_selector: selector,
            report_count: 1,
            checksum: [0; 32],
        }
        .encode()
        .unwrap();
        WIRE.aggregate_share_request(&body).map(|request| request.report_count)
    };
    let interval = v18::Interval { start: 1, duration: 1 };
    let (hour, next) = (v18::Query::TimeInterval(interval), v18::Query::LeaderSelected);
    let timed = v18::BatchSelector::TimeInterval(interval);
    let batch = v18::BatchSelector::LeaderSelected(BatchId::new([1; 32]));
    assert_eq!(ask(hour, timed, &[]), Ok(1));
    assert_eq!(ask(next, batch, &[]), Ok(1));
    assert_eq!(kind(ask(hour, batch, &[])), AbortKind::InvalidMessage);
    assert_eq!(kind(ask(next, timed, &[])), AbortKind::InvalidMessage);
    assert_eq!(kind(ask(next, batch, &[7])), AbortKind::UnsupportedExtension);
    assert_eq!(kind(ask(next, batch, &[7, 9])), AbortKind::UnsupportedExtension);
    assert_eq!(kind(ask(next, batch, &[7, 7])), AbortKind::InvalidExtension);
    assert_eq!(kind(ask(next, batch, &[9, 7])), AbortKind::InvalidExtension);
}

/// The number of seconds is exact where one can express it; beyond, it is the last one, or for an interval the last whole unit.
#[test]
fn times_are_units_of_the_precision() {
    let time = |units: u64, precision: u64| {
        let mut w = Writer::new();
        w.raw(&[0; 16]).u64(units).opaque16(&[]);
        let wire = Wire::new(DapVersion::V18, Duration::from_seconds(precision));
        wire.decode_report_metadata(&w.finish().unwrap()).unwrap().time.as_seconds()
    };
    assert_eq!(time(123_456_789, 10), 1_234_567_890);
    assert_eq!(time(u64::MAX, 1), u64::MAX);
    assert_eq!(time(u64::MAX / 10, 10), u64::MAX - 5);
    assert_eq!(time(u64::MAX / 10 + 1, 10), u64::MAX);
    assert_eq!(time(u64::MAX, 31_622_400), u64::MAX);

    let ten = Duration::from_seconds(10);
    let range = |start, duration| {
        let (start, duration) = v18::Interval { start, duration }.seconds(ten);
        let selector = message::BatchSelector::TimeInterval { start, duration };
        BucketRange::from_selector(&selector, BatchMode::TimeInterval, ten).map_err(|e| e.kind)
    };
    let windows = |start, duration| {
        let (start, duration) = (Time::from_seconds(start), Duration::from_seconds(duration));
        Ok(BucketRange::Windows(Interval::new(start, duration).unwrap()))
    };
    assert_eq!(range(123_456_789, 11), windows(1_234_567_890, 110));
    // What reaches beyond all seconds holds every window that there is.
    let last = u64::MAX - 5;
    assert_eq!(range(0, u64::MAX), windows(0, last));
    assert_eq!(range(7, u64::MAX - 7), windows(70, last - 70));
    for (start, duration) in [(0, 0), (5, 0), (1, u64::MAX), (u64::MAX, 1), (u64::MAX - 1, 1)] {
        assert_eq!(range(start, duration), Err(AbortKind::BatchInvalid), "{start} {duration}");
    }
    // And back.
    for (start, duration) in [(0, 1), (470_848, 24), (u64::MAX / 3_600, 0)] {
        let interval = v18::Interval { start, duration };
        let (s, d) = interval.seconds(HOUR);
        assert_eq!(v18::Interval::of_seconds(s, d, HOUR), interval);
    }
}

#[test]
fn what_has_no_encoding_is_our_error() {
    let report_id = ReportId::new([0; 16]);
    for e in ReportError::ALL {
        let resp = v18::VerifyResp { report_id, verify_resp_type: v18::VerifyRespType::Reject(e) };
        let status = v18::ReportUploadStatus { report_id, error: e };
        let has_no_code = e == ReportError::BatchSaturated;
        assert_eq!((resp.encode().is_err(), status.encode().is_err()), (has_no_code, has_no_code));
    }
    // Nor has an empty field that must not be empty.
    let verify_resp_type = v18::VerifyRespType::Continue(&[]);
    assert_eq!(v18::VerifyResp { report_id, verify_resp_type }.encode(), Err(EncodeError));
    assert_eq!(v18::VerifyContinue { report_id, payload: &[] }.encode(), Err(EncodeError));
    let body = vector("VerifyInit", 0);
    let init = v18::VerifyInit::decode(&body).unwrap();
    assert_eq!(v18::VerifyInit { payload: &[], ..init }.encode(), Err(EncodeError));
    let share = |private_extensions, payload| {
        v18::PlaintextInputShare { private_extensions, payload }.encode()
    };
    assert_eq!(share(vec![], &[]), Err(EncodeError));
    let long = vec![0; 65_536];
    let extension = |data| v18::Extension { extension_type: 1, extension_data: data };
    assert!(share(vec![extension(&long[..65_531])], &[1]).is_ok());
    assert_eq!(share(vec![extension(&long[..65_532])], &[1]), Err(EncodeError));
    let time = Time::from_seconds(0);
    assert!(WIRE.report_metadata(report_id, time, &[(1, &long[..65_531])]).is_ok());
    assert!(WIRE.report_metadata(report_id, time, &[(1, &long[..65_532])]).is_err());
    let body = vector("TaskConfiguration", 0);
    let task = v18::TaskConfiguration::decode(&body).unwrap();
    let with = |change: &dyn Fn(&mut v18::TaskConfiguration<'_>)| {
        let mut task = task.clone();
        change(&mut task);
        task.encode()
    };
    assert_eq!(with(&|_| {}).as_ref(), Ok(&body));
    assert_eq!(with(&|t| t.task_info = &[]), Err(EncodeError));
    assert_eq!(with(&|t| t.leader_aggregator_endpoint = ""), Err(EncodeError));
    assert_eq!(with(&|t| t.helper_aggregator_endpoint = "https://a b/"), Err(EncodeError));
    assert_eq!(with(&|t| t.helper_aggregator_endpoint = "https://ü/"), Err(EncodeError));
}

/// To DAP-18 a report sealed to a key that we do not have is one that does not open.
#[test]
fn an_unknown_key_is_a_failed_decryption() {
    let report_id = ReportId::new([3; 16]);
    let answer = |error| message::VerifyResp { report_id, result: VerifyRespResult::Reject(error) };
    let encoded =
        WIRE.encode_aggregation_job_resp(&[answer(ReportError::HpkeUnknownConfigId)]).unwrap();
    assert_eq!(encoded, [&[3; 16][..], &[2, 5]].concat());
    let read = WIRE.aggregation_job_resp(&encoded).unwrap();
    assert_eq!(read, [answer(ReportError::HpkeDecryptError)]);
}

#[test]
fn an_input_share_does_not_print() {
    let share = v18::PlaintextInputShare { private_extensions: vec![], payload: b"secret" };
    assert_eq!(format!("{share:?}"), "PlaintextInputShare");
}
