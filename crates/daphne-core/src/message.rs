//! The neutral messages: what the roles reason about, whichever draft the bytes came in.
//!
//! Messages borrow from the request body. Bytes that are authenticated (report metadata, public share) are kept
//! as received, because associated data is built from them and never from a re-encoding.

use std::borrow::Cow;

use crate::{
    error::ReportError,
    ids::{BatchId, HpkeConfigId, ReportId},
    time::{Duration, Interval, Time},
};

/// An HPKE ciphertext. DAP-18 §4.1. `enc` and `payload` may be empty here: a client can cause that, so it must
/// end in the rejection of one report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HpkeCiphertext<'a> {
    /// The configuration it was sealed to.
    pub config_id: HpkeConfigId,
    /// The encapsulated key, `0..=65,535` bytes.
    pub enc: &'a [u8],
    /// Ciphertext and tag, `0..=2^32-1` bytes.
    pub payload: &'a [u8],
}

/// Public facts about a report, authenticated with both input shares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReportMetadata<'a> {
    /// The report's id.
    pub report_id: ReportId,
    /// When it was made.
    pub time: Time,
    /// The encoded list of its public extensions, not decoded: a client can break it. DAP-18 §4.4.3; DAP-09 has none.
    pub public_extensions: &'a [u8],
    /// The encoding received, exactly as it enters the associated data.
    pub encoded: &'a [u8],
}

/// A report as its client uploads it. DAP-09 §4.4.2, DAP-18 §4.4.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report<'a> {
    /// Public facts.
    pub metadata: ReportMetadata<'a>,
    /// The VDAF's public share, undecoded.
    pub public_share: &'a [u8],
    /// The leader's input share, sealed.
    pub leader_encrypted_input_share: HpkeCiphertext<'a>,
    /// The helper's input share, sealed.
    pub helper_encrypted_input_share: HpkeCiphertext<'a>,
}

/// One aggregator's part of a report. DAP-09 §4.5.1.1, DAP-18 §4.5.3.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReportShare<'a> {
    /// Public facts.
    pub metadata: ReportMetadata<'a>,
    /// The VDAF's public share, undecoded.
    pub public_share: &'a [u8],
    /// The aggregator's input share, sealed.
    pub encrypted_input_share: HpkeCiphertext<'a>,
}

/// One report in a job's first request.
#[doc(alias = "PrepareInit")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerifyInit<'a> {
    /// The helper's part of the report.
    pub report_share: ReportShare<'a>,
    /// The leader's first ping-pong message, undecoded.
    pub payload: &'a [u8],
}

/// Which batch a job's reports go to, as far as the job itself says. DAP-09 §4.5.1.1 `PartialBatchSelector`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartialBatchSelector {
    /// Each report's own time decides.
    TimeInterval,
    /// All reports go to this batch.
    #[doc(alias = "fixed-size")]
    LeaderSelected(BatchId),
}

/// A leader's request to begin an aggregation job. DAP-09 §4.5.1.1, DAP-18 §4.5.3.1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AggregationJobInit<'a> {
    /// The VDAF's aggregation parameter, undecoded; empty for Prio3.
    pub agg_param: &'a [u8],
    /// Where the reports go.
    pub batch: PartialBatchSelector,
    /// The reports, at least one. Ids are not yet known to be distinct.
    pub verify_inits: Vec<VerifyInit<'a>>,
}

/// One report in a job's next request. DAP-09 §4.5.2.1 `PrepareContinue`, DAP-18 §4.5.4.1.
#[doc(alias = "PrepareContinue")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerifyContinue<'a> {
    /// The report.
    pub report_id: ReportId,
    /// The leader's next ping-pong message, undecoded.
    pub payload: &'a [u8],
}

/// A leader's request to continue an aggregation job. DAP-09 §4.5.2.1, DAP-18 §4.5.4.1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AggregationJobContinue<'a> {
    /// The step that it takes; 0 is the initialization, and no continuation.
    pub step: u16,
    /// The reports that go on, at least one. Ids are not yet known to be distinct.
    pub verify_continues: Vec<VerifyContinue<'a>>,
}

/// The helper's answer for one report. DAP-09 §4.5.1.2 `PrepareResp`, DAP-18 §4.5.3.2.
#[doc(alias = "PrepareResp")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyResp {
    /// The report.
    pub report_id: ReportId,
    /// What became of it.
    pub result: VerifyRespResult,
}

/// What became of one report at the helper.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VerifyRespResult {
    /// The helper's next ping-pong message. For a one-round VDAF the report is committed.
    Continue(Vec<u8>),
    /// Verified and committed; nothing more to say.
    Finish,
    /// Refused, for good.
    Reject(ReportError),
}

/// A batch, as an aggregate-share request names it. DAP-09 §4.6.2, DAP-18 §4.6.4.
/// The interval is as received: it may overflow or be unaligned until the task has checked it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchSelector {
    /// All batch buckets of an interval.
    TimeInterval {
        /// First second.
        start: Time,
        /// Length in seconds.
        duration: Duration,
    },
    /// One batch.
    LeaderSelected(BatchId),
}

/// A leader's request for the helper's aggregate share. DAP-09 §4.6.2, DAP-18 §4.6.4.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AggregateShareRequest<'a> {
    /// The batch.
    pub batch_selector: BatchSelector,
    /// What is collected with it: all that the collector asked for. In DAP-09 that is the batch; in DAP-18 the leader may
    /// leave out buckets at either end of the query.
    pub collected: BatchSelector,
    /// The VDAF's aggregation parameter, undecoded.
    pub agg_param: &'a [u8],
    /// How many reports the leader counts in the batch.
    pub report_count: u64,
    /// XOR of SHA-256 of their ids, by the leader's account.
    pub checksum: [u8; 32],
    /// What the aggregate shares are bound to, beside the task. DAP-09 §4.6.4: aggregation parameter and batch selector.
    /// DAP-18 §4.6.7: the collector's request, as received.
    pub share_binding: Cow<'a, [u8]>,
}

/// A collector's query. DAP-09 §4.1 `Query`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Query {
    /// All batch buckets of an interval.
    TimeInterval(Interval),
    /// A batch whose id the collector has seen. DAP-09 only.
    ByBatchId(BatchId),
    /// Whichever batch the leader chooses next.
    CurrentBatch,
}

/// The plaintext of an input share. DAP-09 §4.4.2 and DAP-18 §4.4.2.1 `PlaintextInputShare`. Secret, so it has no `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct PlaintextInputShare<'a> {
    /// Report extensions for this aggregator: type and data, in the order sent.
    pub extensions: Vec<(u16, &'a [u8])>,
    /// The VDAF's input share, undecoded.
    pub payload: &'a [u8],
}
