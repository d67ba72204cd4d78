//! The same message twice, in our types and in theirs, made of the same fields.

use std::fmt::Debug;

use daphne_core::{
    codec::{Reader, Writer},
    error::ReportError,
    hpke::{self, HpkeAead, HpkeKdf, HpkeKem},
    ids::{BatchId, HpkeConfigId, ReportId, TaskId},
    time::{Duration, Time},
    wire::v09,
};
use janus_messages::{
    self as theirs,
    query_type::{FixedSize, QueryType, TimeInterval},
};
use prio::{
    codec::{Decode, Encode},
    topology::ping_pong::PingPongMessage,
};
use proptest::prelude::*;

/// Where a message's fields come from: whatever both can say.
#[derive(Clone, Debug)]
pub struct Fields {
    task_id: [u8; 32],
    batch_id: [u8; 32],
    checksum: [u8; 32],
    report_ids: Vec<[u8; 16]>,
    time: u64,
    interval: (u64, u64),
    count: u64,
    step: u16,
    codes: [u16; 3],
    config_ids: [u8; 2],
    blobs: [Vec<u8>; 6],
    /// Not empty.
    public_key: Vec<u8>,
    extensions: Vec<(bool, Vec<u8>)>,
    choice: usize,
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), Just(u64::MAX), any::<u64>()]
}

/// One that ends in time: they refuse others in the decoder, we in the handler.
fn interval() -> impl Strategy<Value = (u64, u64)> {
    (number(), number()).prop_map(|(start, duration)| (start, duration.min(u64::MAX - start)))
}

/// A code point of HPKE's registries, or none.
fn code() -> impl Strategy<Value = u16> {
    prop_oneof![0..0x70u16, any::<u16>()]
}

fn blob() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => prop::collection::vec(any::<u8>(), 0..40),
        1 => prop::collection::vec(any::<u8>(), 250..700),
    ]
}

/// Fields for one pair of each message.
pub fn fields() -> impl Strategy<Value = Fields> {
    let ids = (any::<[[u8; 32]; 3]>(), prop::collection::vec(any::<[u8; 16]>(), 1..6));
    let numbers = (number(), interval(), number(), any::<u16>(), [code(), code(), code()]);
    let blobs = [blob(), blob(), blob(), blob(), blob(), blob()];
    let key = prop::collection::vec(any::<u8>(), 1..70);
    let extensions = prop::collection::vec((any::<bool>(), blob()), 1..4);
    let rest = (any::<[u8; 2]>(), key, extensions, any::<u16>());
    (ids, numbers, blobs, rest).prop_map(|(ids, numbers, blobs, rest)| {
        let ([task_id, batch_id, checksum], report_ids) = ids;
        let (time, interval, count, step, codes) = numbers;
        let (config_ids, public_key, extensions, choice) = rest;
        Fields {
            task_id,
            batch_id,
            checksum,
            report_ids,
            time,
            interval,
            count,
            step,
            codes,
            config_ids,
            blobs,
            public_key,
            extensions,
            choice: usize::from(choice),
        }
    })
}

/// Name and encoding of each message compared.
pub type Encodings = Vec<(&'static str, Vec<u8>)>;

/// Compares one message: both have the same encoding, and each reads the other's as what it was made of.
macro_rules! pair {
    ($out:ident, $name:ident, $ours:expr, $theirs:expr $(,)?) => {
        pair!(@ $out, $name, $ours, |m: &v09::$name| m.encode(), v09::$name::decode, $theirs)
    };
    ($out:ident, plain $name:ident, $ours:expr, $theirs:expr $(,)?) => {
        pair!(
            @ $out,
            $name,
            $ours,
            |m: &hpke::$name| {
                let mut w = Writer::new();
                m.write(&mut w);
                w.finish()
            },
            |bytes| Reader::all(bytes, hpke::$name::read),
            $theirs
        )
    };
    (@ $out:ident, $name:ident, $ours:expr, $encode:expr, $decode:expr, $theirs:expr) => {{
        let (name, ours, theirs) = (stringify!($name), $ours, $theirs);
        let our_bytes: Vec<u8> = ($encode)(&ours).expect("generated values have encodings");
        let their_bytes = theirs.get_encoded().expect("generated values have encodings");
        same(name, &our_bytes, &their_bytes)?;
        same(name, &($decode)(&their_bytes), &Ok(ours))?;
        same(name, &read_as(&theirs, &our_bytes), &theirs)?;
        $out.push((name, our_bytes));
    }};
}

fn same<T: PartialEq + Debug>(name: &str, left: &T, right: &T) -> Result<(), TestCaseError> {
    prop_assert!(left == right, "{}: {:?} and {:?}", name, left, right);
    Ok(())
}

mod task_config;

/// Decodes bytes as the type of `_example`.
fn read_as<T: Decode>(_example: &T, bytes: &[u8]) -> T {
    T::get_decoded(bytes).expect("they read what we write")
}

/// Of each message at least one pair made of `f`; its shape varies with `f`.
///
/// # Errors
/// The first message about which the two do not agree.
pub fn agree(f: &Fields) -> Result<Encodings, TestCaseError> {
    let mut out = Vec::new();
    upload(f, &mut out)?;
    aggregate(f, &mut out)?;
    in_mode::<TimeInterval>(f, &mut out)?;
    in_mode::<FixedSize>(f, &mut out)?;
    task_config::agree(f, &mut out)?;
    Ok(out)
}

// Parts of several messages, each with its twin.

fn ciphertext<'a>(
    id: u8,
    enc: &'a [u8],
    payload: &'a [u8],
) -> (v09::HpkeCiphertext<'a>, theirs::HpkeCiphertext) {
    (
        v09::HpkeCiphertext { config_id: HpkeConfigId(id), enc, payload },
        theirs::HpkeCiphertext::new(id.into(), enc.to_vec(), payload.to_vec()),
    )
}

fn span((start, duration): (u64, u64)) -> (v09::Interval, theirs::Interval) {
    (
        v09::Interval {
            start: Time::from_seconds(start),
            duration: Duration::from_seconds(duration),
        },
        theirs::Interval::new(
            theirs::Time::from_seconds_since_epoch(start),
            theirs::Duration::from_seconds(duration),
        )
        .expect("an interval that ends in time"),
    )
}

/// `bytes` is where the encoding of ours goes.
fn metadata<'a>(
    id: [u8; 16],
    time: u64,
    bytes: &'a mut [u8; v09::ReportMetadata::LEN],
) -> (v09::ReportMetadata<'a>, theirs::ReportMetadata) {
    let (report_id, ours) = (ReportId::new(id), Time::from_seconds(time));
    *bytes = v09::ReportMetadata::bytes(report_id, ours);
    (
        v09::ReportMetadata { report_id, time: ours, encoded: bytes },
        theirs::ReportMetadata::new(id.into(), theirs::Time::from_seconds_since_epoch(time)),
    )
}

fn extension(taskprov: bool, data: &[u8]) -> (v09::Extension<'_>, theirs::Extension) {
    let (code, theirs) = match taskprov {
        true => (0xff00, theirs::ExtensionType::Taskprov),
        false => (0, theirs::ExtensionType::Tbd),
    };
    (
        v09::Extension { extension_type: code, extension_data: data },
        theirs::Extension::new(theirs, data.to_vec()),
    )
}

/// One of the three messages of the ping-pong topology, which they decode with the message around it.
fn ping_pong(f: &Fields, n: usize) -> PingPongMessage {
    let [a, b] = [n, n + 1].map(|i| f.blobs[i % f.blobs.len()].clone());
    match (f.choice / 3 + n) % 3 {
        0 => PingPongMessage::Initialize { prep_share: a },
        1 => PingPongMessage::Continue { prep_msg: a, prep_share: b },
        _ => PingPongMessage::Finish { prep_msg: a },
    }
}

fn encoded(message: &PingPongMessage) -> Vec<u8> {
    message.get_encoded().expect("a short message")
}

/// A report of a job, with storage for what ours borrows.
struct Share<'a> {
    id: [u8; 16],
    metadata: [u8; v09::ReportMetadata::LEN],
    public_share: &'a [u8],
    config_id: u8,
    enc: &'a [u8],
    sealed: &'a [u8],
    message: PingPongMessage,
    payload: Vec<u8>,
}

impl<'a> Share<'a> {
    fn new(f: &'a Fields, n: usize) -> Self {
        let blob = |i: usize| f.blobs[(n + i) % f.blobs.len()].as_slice();
        let id = f.report_ids[n];
        let time = Time::from_seconds(f.time.wrapping_add(n as u64));
        let message = ping_pong(f, n);
        Self {
            id,
            metadata: v09::ReportMetadata::bytes(ReportId::new(id), time),
            public_share: blob(0),
            config_id: f.config_ids[n % 2],
            enc: blob(1),
            sealed: blob(2),
            payload: encoded(&message),
            message,
        }
    }

    fn all(f: &'a Fields) -> Vec<Self> {
        (0..f.report_ids.len()).map(|n| Self::new(f, n)).collect()
    }

    fn ours(&self) -> v09::PrepareInit<'_> {
        v09::PrepareInit {
            report_share: v09::ReportShare {
                report_metadata: v09::ReportMetadata::decode(&self.metadata).expect("24 bytes"),
                public_share: self.public_share,
                encrypted_input_share: ciphertext(self.config_id, self.enc, self.sealed).0,
            },
            payload: &self.payload,
        }
    }

    fn theirs(&self) -> theirs::PrepareInit {
        let time = v09::ReportMetadata::decode(&self.metadata).expect("24 bytes").time;
        let time = theirs::Time::from_seconds_since_epoch(time.as_seconds());
        theirs::PrepareInit::new(
            theirs::ReportShare::new(
                theirs::ReportMetadata::new(self.id.into(), time),
                self.public_share.to_vec(),
                ciphertext(self.config_id, self.enc, self.sealed).1,
            ),
            self.message.clone(),
        )
    }
}

/// DAP-09 §4.4.
fn upload(f: &Fields, out: &mut Encodings) -> Result<(), TestCaseError> {
    let [enc, sealed, public_share, other_enc, other_sealed, data] = &f.blobs;
    let [kem, kdf, aead] = f.codes;
    let config = || hpke::HpkeConfig {
        id: HpkeConfigId(f.config_ids[0]),
        kem: HpkeKem::from_code(kem),
        kdf: HpkeKdf::from_code(kdf),
        aead: HpkeAead::from_code(aead),
        public_key: f.public_key.clone(),
    };
    let their_config = || {
        let key = f.public_key.clone().into();
        theirs::HpkeConfig::new(f.config_ids[0].into(), kem.into(), kdf.into(), aead.into(), key)
    };
    pair!(out, plain HpkeConfig, config(), their_config());
    pair!(
        out,
        plain HpkeConfigList,
        hpke::HpkeConfigList(f.report_ids.iter().map(|_| config()).collect()),
        theirs::HpkeConfigList::new(f.report_ids.iter().map(|_| their_config()).collect()),
    );

    let first = ciphertext(f.config_ids[0], enc, sealed);
    let second = ciphertext(f.config_ids[1], other_enc, other_sealed);
    pair!(out, HpkeCiphertext, first.0, first.1.clone());
    let interval = span(f.interval);
    pair!(out, Interval, interval.0, interval.1);
    let mut bytes = [0; _];
    let (metadata, their_metadata) = metadata(f.report_ids[0], f.time, &mut bytes);
    pair!(out, ReportMetadata, metadata, their_metadata.clone());
    pair!(
        out,
        Report,
        v09::Report {
            report_metadata: metadata,
            public_share,
            leader_encrypted_input_share: first.0,
            helper_encrypted_input_share: second.0,
        },
        theirs::Report::new(their_metadata.clone(), public_share.clone(), first.1, second.1),
    );

    let extensions: Vec<_> = f.extensions.iter().map(|(t, data)| extension(*t, data)).collect();
    let (ours, theirs): (Vec<_>, Vec<_>) = extensions.into_iter().unzip();
    pair!(out, Extension, ours[0], theirs[0].clone());
    let several = f.choice % 4;
    pair!(
        out,
        PlaintextInputShare,
        v09::PlaintextInputShare {
            extensions: ours.into_iter().take(several).collect(),
            payload: data,
        },
        theirs::PlaintextInputShare::new(theirs.into_iter().take(several).collect(), data.clone(),),
    );
    pair!(
        out,
        InputShareAad,
        v09::InputShareAad {
            task_id: TaskId::new(f.task_id),
            report_metadata: metadata,
            public_share,
        },
        theirs::InputShareAad::new(f.task_id.into(), their_metadata, public_share.clone()),
    );
    Ok(())
}

/// DAP-09 §4.5, as far as it is the same in both batch modes.
fn aggregate(f: &Fields, out: &mut Encodings) -> Result<(), TestCaseError> {
    let shares = Share::all(f);
    let (ours, theirs) = (shares[0].ours(), shares[0].theirs());
    pair!(out, ReportShare, ours.report_share, theirs.report_share().clone());
    pair!(out, PrepareInit, ours, theirs);

    let resps: Vec<_> = (shares.iter().enumerate())
        .map(|(n, share)| {
            let (error, their_error) = ERRORS[(f.choice + n) % ERRORS.len()];
            let (ours, theirs) = match (f.choice + n) % 3 {
                0 => (
                    v09::PrepareRespState::Continue(&share.payload),
                    theirs::PrepareStepResult::Continue { message: share.message.clone() },
                ),
                1 => (v09::PrepareRespState::Finished, theirs::PrepareStepResult::Finished),
                _ => (
                    v09::PrepareRespState::Reject(error),
                    theirs::PrepareStepResult::Reject(their_error),
                ),
            };
            (
                v09::PrepareResp { report_id: ReportId::new(share.id), prepare_resp_state: ours },
                theirs::PrepareResp::new(share.id.into(), theirs),
            )
        })
        .collect();
    let (ours, theirs): (Vec<_>, Vec<_>) = resps.into_iter().unzip();
    pair!(out, PrepareResp, ours[0], theirs[0].clone());
    pair!(
        out,
        AggregationJobResp,
        v09::AggregationJobResp { prepare_resps: ours },
        theirs::AggregationJobResp::new(theirs),
    );

    let continues: Vec<_> = (shares.iter())
        .map(|share| {
            (
                v09::PrepareContinue {
                    report_id: ReportId::new(share.id),
                    payload: &share.payload,
                },
                theirs::PrepareContinue::new(share.id.into(), share.message.clone()),
            )
        })
        .collect();
    let (ours, theirs): (Vec<_>, Vec<_>) = continues.into_iter().unzip();
    pair!(out, PrepareContinue, ours[0], theirs[0].clone());
    pair!(
        out,
        AggregationJobContinueReq,
        v09::AggregationJobContinueReq { step: f.step, prepare_continues: ours },
        theirs::AggregationJobContinueReq::new(f.step.into(), theirs),
    );

    let (ours, theirs) = ciphertext(f.config_ids[0], &f.blobs[0], &f.blobs[1]);
    pair!(
        out,
        AggregateShare,
        v09::AggregateShare { encrypted_aggregate_share: ours },
        theirs::AggregateShare::new(theirs),
    );
    let (ours, theirs) = fixed_size_query(f);
    pair!(out, FixedSizeQuery, ours, theirs);
    Ok(())
}

fn fixed_size_query(f: &Fields) -> (v09::FixedSizeQuery, theirs::FixedSizeQuery) {
    match f.choice.is_multiple_of(2) {
        true => (v09::FixedSizeQuery::CurrentBatch, theirs::FixedSizeQuery::CurrentBatch),
        false => (
            v09::FixedSizeQuery::ByBatchId(BatchId::new(f.batch_id)),
            theirs::FixedSizeQuery::ByBatchId { batch_id: f.batch_id.into() },
        ),
    }
}

/// A batch mode, which is a type parameter of their messages.
trait Mode: QueryType {
    fn part(f: &Fields) -> (v09::PartialBatchSelector, theirs::PartialBatchSelector<Self>);
    fn query(f: &Fields) -> (v09::Query, theirs::Query<Self>);
    fn batch(f: &Fields) -> (v09::BatchSelector, theirs::BatchSelector<Self>);
}

impl Mode for TimeInterval {
    fn part(_: &Fields) -> (v09::PartialBatchSelector, theirs::PartialBatchSelector<Self>) {
        let theirs = theirs::PartialBatchSelector::new_time_interval();
        (v09::PartialBatchSelector::TimeInterval, theirs)
    }

    fn query(f: &Fields) -> (v09::Query, theirs::Query<Self>) {
        let (ours, theirs) = span(f.interval);
        (v09::Query::TimeInterval(ours), theirs::Query::new_time_interval(theirs))
    }

    fn batch(f: &Fields) -> (v09::BatchSelector, theirs::BatchSelector<Self>) {
        let (ours, theirs) = span(f.interval);
        (v09::BatchSelector::TimeInterval(ours), theirs::BatchSelector::new_time_interval(theirs))
    }
}

impl Mode for FixedSize {
    fn part(f: &Fields) -> (v09::PartialBatchSelector, theirs::PartialBatchSelector<Self>) {
        let theirs = theirs::PartialBatchSelector::new_fixed_size(f.batch_id.into());
        (v09::PartialBatchSelector::FixedSize(BatchId::new(f.batch_id)), theirs)
    }

    fn query(f: &Fields) -> (v09::Query, theirs::Query<Self>) {
        let (ours, theirs) = fixed_size_query(f);
        (v09::Query::FixedSize(ours), theirs::Query::new_fixed_size(theirs))
    }

    fn batch(f: &Fields) -> (v09::BatchSelector, theirs::BatchSelector<Self>) {
        let theirs = theirs::BatchSelector::new_fixed_size(f.batch_id.into());
        (v09::BatchSelector::FixedSize(BatchId::new(f.batch_id)), theirs)
    }
}

/// What names a batch: DAP-09 §4.5.1.1, §4.6.
fn in_mode<M: Mode>(f: &Fields, out: &mut Encodings) -> Result<(), TestCaseError> {
    let agg_param = &f.blobs[3];
    let (part, their_part) = M::part(f);
    pair!(out, PartialBatchSelector, part, their_part.clone());
    let shares = Share::all(f);
    pair!(
        out,
        AggregationJobInitReq,
        v09::AggregationJobInitReq {
            agg_param,
            part_batch_selector: part,
            prepare_inits: shares.iter().map(Share::ours).collect(),
        },
        theirs::AggregationJobInitializeReq::new(
            agg_param.clone(),
            their_part.clone(),
            shares.iter().map(Share::theirs).collect(),
        ),
    );

    let (query, their_query) = M::query(f);
    pair!(out, Query, query, their_query.clone());
    pair!(
        out,
        CollectionReq,
        v09::CollectionReq { query, agg_param },
        theirs::CollectionReq::new(their_query, agg_param.clone()),
    );
    let (interval, their_interval) = span(f.interval);
    let leader = ciphertext(f.config_ids[0], &f.blobs[0], &f.blobs[1]);
    let helper = ciphertext(f.config_ids[1], &f.blobs[2], &f.blobs[4]);
    pair!(
        out,
        Collection,
        v09::Collection {
            part_batch_selector: part,
            report_count: f.count,
            interval,
            leader_encrypted_agg_share: leader.0,
            helper_encrypted_agg_share: helper.0,
        },
        theirs::Collection::new(their_part, f.count, their_interval, leader.1, helper.1),
    );

    let (batch_selector, their_batch) = M::batch(f);
    pair!(out, BatchSelector, batch_selector, their_batch.clone());
    let batch_selector_encoded = &batch_selector.encode().expect("a selector")[..];
    pair!(
        out,
        AggregateShareReq,
        v09::AggregateShareReq {
            batch_selector,
            batch_selector_encoded,
            agg_param,
            report_count: f.count,
            checksum: f.checksum,
        },
        theirs::AggregateShareReq::new(
            their_batch.clone(),
            agg_param.clone(),
            f.count,
            f.checksum.into(),
        ),
    );
    pair!(
        out,
        AggregateShareAad,
        v09::AggregateShareAad {
            task_id: TaskId::new(f.task_id),
            agg_param,
            batch_selector,
            batch_selector_encoded,
        },
        theirs::AggregateShareAad::new(f.task_id.into(), agg_param.clone(), their_batch),
    );
    Ok(())
}

/// The errors of DAP-09 §4.5.1.2, each with both names for it.
const ERRORS: [(ReportError, theirs::PrepareError); 10] = [
    (ReportError::BatchCollected, theirs::PrepareError::BatchCollected),
    (ReportError::ReportReplayed, theirs::PrepareError::ReportReplayed),
    (ReportError::ReportDropped, theirs::PrepareError::ReportDropped),
    (ReportError::HpkeUnknownConfigId, theirs::PrepareError::HpkeUnknownConfigId),
    (ReportError::HpkeDecryptError, theirs::PrepareError::HpkeDecryptError),
    (ReportError::VdafVerifyError, theirs::PrepareError::VdafPrepError),
    (ReportError::BatchSaturated, theirs::PrepareError::BatchSaturated),
    (ReportError::TaskExpired, theirs::PrepareError::TaskExpired),
    (ReportError::InvalidMessage, theirs::PrepareError::InvalidMessage),
    (ReportError::ReportTooEarly, theirs::PrepareError::ReportTooEarly),
];
