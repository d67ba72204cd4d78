//! Decoders: an error, or a message whose encoding is the input; and no more memory than the input explains.

use std::fmt::Display;

use daphne_core::{
    b64,
    codec::{DecodeError, Reader, Writer},
    error::AbortKind,
    hpke::{HpkeConfig, HpkeConfigList},
    ids::{AggregationJobId, BatchId, ReportId, TaskId},
    media_type, taskprov,
    time::{Duration, Time},
    vdaf::BitString,
    version::DapVersion,
    wire::Wire,
};

use crate::{
    bounded,
    choices::Choices,
    fixture::{NOW, SETUPS, brought},
    messages::{Table, dap_09, dap_18},
    secrets::placed,
};

/// The first byte chooses the decoder, the others are its input.
pub fn wire_v09(data: &[u8]) {
    wire(data, &dap_09::TABLE, DapVersion::V09, &OTHERS);
}

/// The first byte chooses the decoder, the others are its input.
pub fn wire_v18(data: &[u8]) {
    wire(data, &dap_18::TABLE, DapVersion::V18, &OTHERS_V18);
}

fn wire(data: &[u8], table: &Table, version: DapVersion, others: &[fn(&[u8])]) {
    let mut choices = Choices::new(data);
    let decoder = choices.below(table.messages.len() + others.len());
    let input = choices.rest();
    match table.messages.get(decoder) {
        Some(message) => {
            let bytes_max = table.peak_bytes_max(message, input.len());
            if bounded(bytes_max, || (message.decodes)(input)) {
                let again = (message.reencode)(input);
                assert!(again.as_deref() == Ok(input), "{} encodes otherwise", message.name);
                neutral(message.name, version, input);
            }
        }
        None => others[decoder - table.messages.len()](input),
    }
}

/// What is read that has no row in a table of messages.
pub const OTHERS: [fn(&[u8]); 5] = [hpke_config_list, texts, bits, media_types, taskprov_header];

/// What is read of DAP-18 only that has no such row.
pub const OTHERS_V18: [fn(&[u8]); 1] = [task_configuration];

/// Messages in the neutral form encode to the same bytes. In DAP-18 their receiver may refuse what decodes.
fn neutral(name: &str, version: DapVersion, input: &[u8]) {
    let wire = Wire::new(version, Duration::from_seconds(1));
    let refused = |kind: AbortKind| {
        let is_known = matches!(
            kind,
            AbortKind::InvalidMessage
                | AbortKind::UnsupportedExtension
                | AbortKind::InvalidExtension
        );
        assert!(is_known && version.has_configuration(), "{name}: {kind:?}");
    };
    let malformed = |_: DecodeError| refused(AbortKind::InvalidMessage);
    let again = match name {
        "AggregationJobInitReq" => match wire.aggregation_job_init(input) {
            Ok(init) => wire.encode_aggregation_job_init(&init),
            Err(abort) => return refused(abort.kind),
        },
        "AggregationJobContinueReq" => match wire.aggregation_job_continue(input) {
            Ok(request) => wire.encode_aggregation_job_continue(&request),
            Err(error) => return malformed(error),
        },
        "AggregationJobResp" => {
            // In DAP-18 an unknown key is told as a failed decryption.
            let answers = wire.aggregation_job_resp(input).expect("it decoded before");
            let told = wire.encode_aggregation_job_resp(&answers).expect("it decoded before");
            let again = wire.aggregation_job_resp(&told).expect("we wrote it");
            assert!(again == answers || version.has_configuration());
            assert_eq!(told.len(), input.len());
            return;
        }
        "AggregateShareReq" => match wire.aggregate_share_request(input) {
            Ok(request) => wire.encode_aggregate_share_request(&request),
            Err(abort) => return refused(abort.kind),
        },
        "Report" => wire.encode_report(wire.report(input).expect("it decoded before")),
        "PlaintextInputShare" => wire.encode_plaintext_input_share(
            wire.plaintext_input_share(input).expect("it decoded before"),
        ),
        _ => return,
    };
    let again = again.expect("what decodes has an encoding");
    assert!(again == input, "{name}: the neutral form loses something");
}

/// A task's configuration is what the operator says of the task, or refused; and what we make of it encodes to itself.
fn task_configuration(input: &[u8]) {
    let mut choices = Choices::new(input);
    let setup = choices.of(&SETUPS);
    let mut spec = setup.spec();
    let ours = spec.task_configuration.clone();
    while !choices.is_empty() {
        choices.edit(&mut spec.task_configuration);
    }
    let is_same = spec.task_configuration == ours;
    let checked = bounded((64 << 10) + 8 * input.len(), || spec.clone().check(1));
    match checked {
        Ok(task) => {
            assert!(task.parameters.task_configuration == spec.task_configuration);
            placed(&task.parameters.placement());
        }
        Err(_) => assert!(!is_same, "a good configuration is refused"),
    }
}

fn hpke_config_list(input: &[u8]) {
    // A configuration is read into a vector of them, and holds a copy of its public key; the shortest has 10 bytes.
    let size = size_of::<HpkeConfig>();
    let bytes_max = 3 * size * input.len() / 10 + 4 * size + input.len();
    let Ok(list) = bounded(bytes_max, || Reader::all(input, HpkeConfigList::read)) else { return };
    let mut w = Writer::new();
    list.write(&mut w);
    assert!(w.finish().as_deref() == Ok(input), "the list encodes otherwise");
}

/// Identifiers in paths and JSON have one spelling.
fn texts(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    fn spelled<T: Display, E>(parsed: Result<T, E>, text: &str) {
        if let Ok(id) = parsed {
            assert!(id.to_string() == text, "an id has two spellings");
        }
    }
    spelled(text.parse::<TaskId>(), text);
    spelled(text.parse::<BatchId>(), text);
    spelled(text.parse::<ReportId>(), text);
    spelled(text.parse::<AggregationJobId>(), text);
    if let Some(bytes) = bounded(text.len() + 3, || b64::decode(text)) {
        assert!(b64::encode(&bytes) == text, "base64url has two spellings");
    }
}

fn bits(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Ok(bits) = text.parse::<BitString>() {
        assert!(bits.to_string() == text && bits.len() == text.len());
        assert!(bits.iter().collect::<BitString>() == bits);
        let half = bits.prefix(bits.len() / 2);
        assert!(text.starts_with(&half.to_string()) && half <= bits);
    }
}

/// A media type of ours is one in any case, between blanks and with any parameters.
fn media_types(input: &[u8]) {
    let Ok(header) = std::str::from_utf8(input) else { return };
    let expected = "application/dap-report";
    // Its parts, and each of them is a slice.
    if bounded(64 * input.len() + 256, || media_type::is(header, expected)) {
        assert!(header.to_ascii_lowercase().contains(expected));
        assert!(media_type::is(&format!("\t{header} ;a=\"b,c\""), expected));
        assert!(!media_type::is(&format!("{header}, {header}"), expected));
    }
}

/// What a leader says of a task that it brings along, up to the task that is made of it.
fn taskprov_header(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let Ok(bytes) = bounded(input.len() + 256, || taskprov::decode_header(text)) else { return };
    assert!(b64::encode(&bytes) == text);
    let id = taskprov::task_id(&bytes);
    let Ok(config) = bounded(input.len() + 256, || taskprov::advertised(&bytes, &id)) else {
        return;
    };
    assert!(config.encode().as_ref() == Ok(&bytes), "the header encodes otherwise");
    assert!(taskprov::advertised(&bytes, &TaskId::new([0; 32])).is_err(), "another task's");
    let now = Time::from_seconds(NOW);
    let opted = bounded((64 << 10) + 4 * input.len(), || {
        taskprov::opt_in(&config, id, brought::peer(), now, 1)
    });
    match opted {
        Ok(task) => {
            assert!(*task.id() == id && task.leader_token_hashes.is_empty());
            placed(&task.parameters.placement());
        }
        Err(abort) => assert_eq!(abort.kind, AbortKind::InvalidTask),
    }
}
