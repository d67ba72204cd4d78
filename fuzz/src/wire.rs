//! Decoders: an error, or a message whose encoding is the input; and no more memory than the input explains.

use std::fmt::Display;

use daphne_core::{
    b64,
    codec::{Reader, Writer},
    error::AbortKind,
    hpke::{HpkeConfig, HpkeConfigList},
    ids::{AggregationJobId, BatchId, ReportId, TaskId},
    media_type,
    message::{AggregationJobContinue, AggregationJobInit, VerifyResp},
    taskprov,
    time::Time,
    vdaf::BitString,
    wire::v09,
};

use crate::{
    bounded,
    choices::Choices,
    fixture::{NOW, brought},
    messages::MESSAGES,
    secrets::placed,
};

/// The first byte chooses the decoder, the others are its input.
pub fn wire_v09(data: &[u8]) {
    let mut choices = Choices::new(data);
    let decoder = choices.below(MESSAGES.len() + OTHERS.len());
    let input = choices.rest();
    match MESSAGES.get(decoder) {
        Some(message) => {
            let bytes_max = message.peak_bytes_max(input.len());
            if bounded(bytes_max, || (message.decodes)(input)) {
                let again = (message.reencode)(input);
                assert!(again.as_deref() == Ok(input), "{} encodes otherwise", message.name);
                neutral(message.name, input);
            }
        }
        None => OTHERS[decoder - MESSAGES.len()](input),
    }
}

/// What is read that has no row in the table of messages.
pub const OTHERS: [fn(&[u8]); 5] = [hpke_config_list, texts, bits, media_types, taskprov_header];

/// Messages in the neutral form encode to the same bytes.
fn neutral(name: &str, input: &[u8]) {
    let decodes = "it decoded before";
    let again = match name {
        "AggregationJobInitReq" => {
            let init: AggregationJobInit<'_> =
                v09::AggregationJobInitReq::decode(input).expect(decodes).into();
            v09::AggregationJobInitReq::from(init).encode()
        }
        "AggregationJobContinueReq" => {
            let request: AggregationJobContinue<'_> =
                v09::AggregationJobContinueReq::decode(input).expect(decodes).into();
            v09::AggregationJobContinueReq::from(request).encode()
        }
        "AggregationJobResp" => {
            let answers: Vec<VerifyResp> =
                v09::AggregationJobResp::decode(input).expect(decodes).into();
            v09::AggregationJobResp::from(answers.as_slice()).encode()
        }
        "AggregateShareReq" => {
            let request = v09::AggregateShareReq::decode(input).expect(decodes).into_message();
            v09::AggregateShareReq::encode_message(&request.expect(decodes))
        }
        _ => return,
    };
    let again = again.expect("what decodes has an encoding");
    assert!(again == input, "{name}: the neutral form loses something");
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
    if bounded(0, || media_type::is(header, expected)) {
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
