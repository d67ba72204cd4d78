//! What one of the two reads and the other does not: every such difference has a name and a reason here.

use daphne_core::wire::v09;
use janus_messages::{
    self as theirs,
    query_type::{FixedSize, TimeInterval},
};
use prio::{codec::Decode, topology::ping_pong::PingPongMessage};

/// Who reads what the other refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// We do, on purpose.
    Ours,
    /// They do, beyond what the draft allows.
    Theirs,
}

/// One difference.
pub struct Difference {
    /// What it is about.
    pub name: &'static str,
    /// Why it is there.
    pub reason: &'static str,
    /// Who reads it.
    pub reader: Reader,
    /// Whether a message, by its name, that this reader has read is a case of it.
    pub explains: fn(&str, &[u8]) -> bool,
}

/// All of them.
pub const DIFFERENCES: &[Difference] = &[
    Difference {
        name: "a list without items",
        reason: "DAP-09 gives each of these lists at least one item (§4.4.1, §4.5.1.1, §4.5.1.2, §4.5.2.1)",
        reader: Reader::Theirs,
        explains: has_no_items,
    },
    Difference {
        name: "an empty public key",
        reason: "DAP-09 §4.4.1: `opaque HpkePublicKey<1..2^16-1>`",
        reader: Reader::Theirs,
        explains: has_no_public_key,
    },
    Difference {
        name: "an interval past the last time",
        reason: "the message is well-formed; the handler says `batchInvalid`, which the sender understands",
        reader: Reader::Ours,
        explains: ends_past_the_last_time,
    },
    Difference {
        name: "a payload that is no ping-pong message",
        reason: "one report is at fault, so it alone is rejected; its client could fail all others",
        reader: Reader::Ours,
        explains: has_an_odd_payload,
    },
    Difference {
        name: "an unknown extension type",
        reason: "the extensions are the handler's to judge; it rejects the report as they do, with invalid_message",
        reader: Reader::Ours,
        explains: has_an_unknown_extension,
    },
    Difference {
        name: "parameters of a task that are unknown",
        reason: "the header is well-formed, so the answer is to opt out, with `invalidTask`",
        reader: Reader::Ours,
        explains: has_unknown_parameters,
    },
    Difference {
        name: "a URL with invisible characters",
        reason: "none has any, and what is shown to people should have none",
        reader: Reader::Theirs,
        explains: has_an_odd_url,
    },
];

fn has_no_items(name: &str, bytes: &[u8]) -> bool {
    match name {
        "HpkeConfigList" => {
            theirs::HpkeConfigList::get_decoded(bytes).is_ok_and(|m| m.hpke_configs().is_empty())
        }
        "AggregationJobInitReq" => {
            theirs::AggregationJobInitializeReq::<TimeInterval>::get_decoded(bytes)
                .is_ok_and(|m| m.prepare_inits().is_empty())
                || theirs::AggregationJobInitializeReq::<FixedSize>::get_decoded(bytes)
                    .is_ok_and(|m| m.prepare_inits().is_empty())
        }
        "AggregationJobResp" => theirs::AggregationJobResp::get_decoded(bytes)
            .is_ok_and(|m| m.prepare_resps().is_empty()),
        "AggregationJobContinueReq" => theirs::AggregationJobContinueReq::get_decoded(bytes)
            .is_ok_and(|m| m.prepare_steps().is_empty()),
        _ => false,
    }
}

fn has_no_public_key(name: &str, bytes: &[u8]) -> bool {
    let lacks_one = |config: &theirs::HpkeConfig| config.public_key().as_ref().is_empty();
    match name {
        "HpkeConfig" => theirs::HpkeConfig::get_decoded(bytes).is_ok_and(|m| lacks_one(&m)),
        "HpkeConfigList" => theirs::HpkeConfigList::get_decoded(bytes)
            .is_ok_and(|m| m.hpke_configs().iter().any(lacks_one)),
        _ => false,
    }
}

fn ends_past_the_last_time(name: &str, bytes: &[u8]) -> bool {
    let of_query = |query| match query {
        v09::Query::TimeInterval(interval) => Some(interval),
        v09::Query::FixedSize(_) => None,
    };
    let of_batch = |batch| match batch {
        v09::BatchSelector::TimeInterval(interval) => Some(interval),
        v09::BatchSelector::FixedSize(_) => None,
    };
    let interval = match name {
        "Interval" => v09::Interval::decode(bytes).ok(),
        "Query" => v09::Query::decode(bytes).ok().and_then(of_query),
        "CollectionReq" => v09::CollectionReq::decode(bytes).ok().and_then(|m| of_query(m.query)),
        "Collection" => v09::Collection::decode(bytes).ok().map(|m| m.interval),
        "BatchSelector" => v09::BatchSelector::decode(bytes).ok().and_then(of_batch),
        "AggregateShareReq" => {
            v09::AggregateShareReq::decode(bytes).ok().and_then(|m| of_batch(m.batch_selector))
        }
        "AggregateShareAad" => {
            v09::AggregateShareAad::decode(bytes).ok().and_then(|m| of_batch(m.batch_selector))
        }
        _ => None,
    };
    interval.is_some_and(|i| i.checked().is_none())
}

fn has_an_odd_payload(name: &str, bytes: &[u8]) -> bool {
    let odd = |payload: &[u8]| PingPongMessage::get_decoded(payload).is_err();
    let odd_resp = |resp: &v09::PrepareResp<'_>| match resp.prepare_resp_state {
        v09::PrepareRespState::Continue(payload) => odd(payload),
        v09::PrepareRespState::Finished | v09::PrepareRespState::Reject(_) => false,
    };
    match name {
        "PrepareInit" => v09::PrepareInit::decode(bytes).is_ok_and(|m| odd(m.payload)),
        "AggregationJobInitReq" => v09::AggregationJobInitReq::decode(bytes)
            .is_ok_and(|m| m.prepare_inits.iter().any(|p| odd(p.payload))),
        "PrepareResp" => v09::PrepareResp::decode(bytes).is_ok_and(|m| odd_resp(&m)),
        "AggregationJobResp" => v09::AggregationJobResp::decode(bytes)
            .is_ok_and(|m| m.prepare_resps.iter().any(odd_resp)),
        "PrepareContinue" => v09::PrepareContinue::decode(bytes).is_ok_and(|m| odd(m.payload)),
        "AggregationJobContinueReq" => v09::AggregationJobContinueReq::decode(bytes)
            .is_ok_and(|m| m.prepare_continues.iter().any(|p| odd(p.payload))),
        _ => false,
    }
}

fn has_an_unknown_extension(name: &str, bytes: &[u8]) -> bool {
    let unknown = |extension: &v09::Extension<'_>| !matches!(extension.extension_type, 0 | 0xff00);
    match name {
        "Extension" => v09::Extension::decode(bytes).is_ok_and(|m| unknown(&m)),
        "PlaintextInputShare" => {
            v09::PlaintextInputShare::decode(bytes).is_ok_and(|m| m.extensions.iter().any(unknown))
        }
        _ => false,
    }
}

fn has_unknown_parameters(name: &str, bytes: &[u8]) -> bool {
    name == "TaskConfig"
        && v09::TaskConfig::decode(bytes).is_ok_and(|m| {
            let v09::TaskVdafConfig { dp_mechanism, vdaf } = m.vdaf_config;
            matches!(m.query_config.query, v09::TaskQuery::Unknown { .. })
                || matches!(dp_mechanism, v09::DpMechanism::Unknown { mechanism: 0, .. })
                || matches!(vdaf, v09::TaskVdaf::Unknown { .. })
        })
}

fn has_an_odd_url(name: &str, bytes: &[u8]) -> bool {
    let odd = |url: &theirs::Url| !url.to_string().bytes().all(|b| b.is_ascii_graphic());
    name == "TaskConfig"
        && theirs::taskprov::TaskConfig::get_decoded(bytes).is_ok_and(|m| {
            odd(m.leader_aggregator_endpoint()) || odd(m.helper_aggregator_endpoint())
        })
}
