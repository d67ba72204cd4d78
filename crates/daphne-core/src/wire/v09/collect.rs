//! Collecting results: DAP-09 §4.6.

use super::{
    BAD_QUERY_TYPE, EncodeError, FIXED_SIZE, HpkeCiphertext, Interval, PartialBatchSelector,
    TIME_INTERVAL,
};
use crate::{
    codec::{DecodeError, Reader, Writer},
    error::{Abort, AbortKind},
    ids::{BatchId, TaskId},
    message,
};

/// What a collector asks for. DAP-09 §4.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Query {
    /// `query_type` 1: all batch buckets of an interval.
    TimeInterval(Interval),
    /// `query_type` 2.
    FixedSize(FixedSizeQuery),
}

/// How a fixed-size query names its batch. DAP-09 §4.1.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FixedSizeQuery {
    /// 0: the batch with this id.
    ByBatchId(BatchId),
    /// 1: whichever batch the leader chooses next.
    CurrentBatch,
}

whole!(Query);
whole!(FixedSizeQuery);

impl Query {
    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match r.u8()? {
            TIME_INTERVAL => Ok(Self::TimeInterval(Interval::read(r)?)),
            FIXED_SIZE => Ok(Self::FixedSize(FixedSizeQuery::read(r)?)),
            _ => Err(BAD_QUERY_TYPE),
        }
    }

    fn write(&self, w: &mut Writer) {
        match self {
            Self::TimeInterval(i) => i.write(w.u8(TIME_INTERVAL)),
            Self::FixedSize(q) => q.write(w.u8(FIXED_SIZE)),
        }
    }
}

const BY_BATCH_ID: u8 = 0;
const CURRENT_BATCH: u8 = 1;

impl FixedSizeQuery {
    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match r.u8()? {
            BY_BATCH_ID => Ok(Self::ByBatchId(BatchId::read(r)?)),
            CURRENT_BATCH => Ok(Self::CurrentBatch),
            _ => Err(DecodeError::Invalid("fixed-size query type is unknown")),
        }
    }

    fn write(&self, w: &mut Writer) {
        match self {
            Self::ByBatchId(id) => w.u8(BY_BATCH_ID).raw(id.as_bytes()),
            Self::CurrentBatch => w.u8(CURRENT_BATCH),
        };
    }
}

/// Fails with `batchInvalid` if the interval's end exceeds the last representable time. DAP-09 §4.6.5.1.1.
impl TryFrom<Query> for message::Query {
    type Error = Abort;

    fn try_from(q: Query) -> Result<Self, Abort> {
        Ok(match q {
            Query::TimeInterval(i) => Self::TimeInterval(i.checked().ok_or_else(|| {
                Abort::new(AbortKind::BatchInvalid, "the batch interval ends after the last time")
            })?),
            Query::FixedSize(FixedSizeQuery::ByBatchId(id)) => Self::ByBatchId(id),
            Query::FixedSize(FixedSizeQuery::CurrentBatch) => Self::CurrentBatch,
        })
    }
}

impl From<message::Query> for Query {
    fn from(q: message::Query) -> Self {
        match q {
            message::Query::TimeInterval(i) => Self::TimeInterval(i.into()),
            message::Query::ByBatchId(id) => Self::FixedSize(FixedSizeQuery::ByBatchId(id)),
            message::Query::CurrentBatch => Self::FixedSize(FixedSizeQuery::CurrentBatch),
        }
    }
}

/// A collector's request to begin a collection job. DAP-09 §4.6.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CollectionReq<'a> {
    /// What is asked for.
    pub query: Query,
    /// The VDAF's aggregation parameter, undecoded, `0..=2^32-1` bytes.
    pub agg_param: &'a [u8],
}

whole!(CollectionReq<'a>);

impl<'a> CollectionReq<'a> {
    fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self { query: Query::read(r)?, agg_param: r.opaque32()? })
    }

    fn write(&self, w: &mut Writer) {
        self.query.write(w);
        w.opaque32(self.agg_param);
    }
}

/// The result of a collection job. DAP-09 §4.6.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Collection<'a> {
    /// Which batch it is.
    pub part_batch_selector: PartialBatchSelector,
    /// How many reports are in it.
    pub report_count: u64,
    /// The smallest interval, a multiple of the task's precision, that holds all its reports' times.
    pub interval: Interval,
    /// The leader's aggregate share, sealed to the collector.
    pub leader_encrypted_agg_share: HpkeCiphertext<'a>,
    /// The helper's aggregate share, sealed to the collector.
    pub helper_encrypted_agg_share: HpkeCiphertext<'a>,
}

whole!(Collection<'a>);

impl<'a> Collection<'a> {
    fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self {
            part_batch_selector: PartialBatchSelector::read(r)?,
            report_count: r.u64()?,
            interval: Interval::read(r)?,
            leader_encrypted_agg_share: HpkeCiphertext::read(r)?,
            helper_encrypted_agg_share: HpkeCiphertext::read(r)?,
        })
    }

    fn write(&self, w: &mut Writer) {
        self.part_batch_selector.write(w);
        self.interval.write(w.u64(self.report_count));
        self.leader_encrypted_agg_share.write(w);
        self.helper_encrypted_agg_share.write(w);
    }
}

/// A batch, named in full. DAP-09 §4.6.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchSelector {
    /// `query_type` 1: all batch buckets of an interval.
    TimeInterval(Interval),
    /// `query_type` 2: the batch's id.
    FixedSize(BatchId),
}

whole!(BatchSelector);

impl BatchSelector {
    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match r.u8()? {
            TIME_INTERVAL => Ok(Self::TimeInterval(Interval::read(r)?)),
            FIXED_SIZE => Ok(Self::FixedSize(BatchId::read(r)?)),
            _ => Err(BAD_QUERY_TYPE),
        }
    }

    fn write(&self, w: &mut Writer) {
        match self {
            Self::TimeInterval(i) => i.write(w.u8(TIME_INTERVAL)),
            Self::FixedSize(id) => {
                w.u8(FIXED_SIZE).raw(id.as_bytes());
            }
        }
    }
}

impl From<BatchSelector> for message::BatchSelector {
    fn from(b: BatchSelector) -> Self {
        match b {
            BatchSelector::TimeInterval(Interval { start, duration }) => {
                Self::TimeInterval { start, duration }
            }
            BatchSelector::FixedSize(id) => Self::LeaderSelected(id),
        }
    }
}

impl From<message::BatchSelector> for BatchSelector {
    fn from(b: message::BatchSelector) -> Self {
        match b {
            message::BatchSelector::TimeInterval { start, duration } => {
                Self::TimeInterval(Interval { start, duration })
            }
            message::BatchSelector::LeaderSelected(id) => Self::FixedSize(id),
        }
    }
}

/// Reads a batch selector and keeps the bytes it was read from.
fn read_kept<'a>(r: &mut Reader<'a>) -> Result<(BatchSelector, &'a [u8]), DecodeError> {
    let before = r.rest();
    let selector = BatchSelector::read(r)?;
    // Cannot underflow or fail: what remains is a suffix of what was there.
    let (encoded, _) = before.split_at(before.len() - r.rest().len());
    Ok((selector, encoded))
}

/// A leader's request for the helper's aggregate share. DAP-09 §4.6.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AggregateShareReq<'a> {
    /// The batch.
    pub batch_selector: BatchSelector,
    /// The batch selector's encoding as received, which enters the associated data and is what `encode` writes
    /// again.
    pub batch_selector_encoded: &'a [u8],
    /// The VDAF's aggregation parameter, undecoded, `0..=2^32-1` bytes.
    pub agg_param: &'a [u8],
    /// How many reports the leader counts in the batch.
    pub report_count: u64,
    /// XOR of SHA-256 of their ids, by the leader's account.
    pub checksum: [u8; 32],
}

whole!(AggregateShareReq<'a>);

impl<'a> AggregateShareReq<'a> {
    fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let (batch_selector, batch_selector_encoded) = read_kept(r)?;
        Ok(Self {
            batch_selector,
            batch_selector_encoded,
            agg_param: r.opaque32()?,
            report_count: r.u64()?,
            checksum: r.array()?,
        })
    }

    fn write(&self, w: &mut Writer) {
        w.raw(self.batch_selector_encoded)
            .opaque32(self.agg_param)
            .u64(self.report_count)
            .raw(&self.checksum);
    }
}

impl<'a> AggregateShareReq<'a> {
    /// The neutral message.
    ///
    /// # Errors
    /// Never, for what was decoded.
    pub fn into_message(self) -> Result<message::AggregateShareRequest<'a>, DecodeError> {
        let binding = binding(self.agg_param, self.batch_selector_encoded);
        Ok(message::AggregateShareRequest {
            batch_selector: self.batch_selector.into(),
            collected: self.batch_selector.into(),
            agg_param: self.agg_param,
            report_count: self.report_count,
            checksum: self.checksum,
            share_binding: binding
                .map_err(|_| DecodeError::Invalid("agg_param is too long"))?
                .into(),
        })
    }

    /// Encodes a neutral message.
    ///
    /// # Errors
    /// Our own fault: a field is too long.
    pub fn encode_message(
        request: &message::AggregateShareRequest<'_>,
    ) -> Result<Vec<u8>, EncodeError> {
        let batch_selector = BatchSelector::from(request.batch_selector);
        let batch_selector_encoded = &batch_selector.encode()?;
        AggregateShareReq {
            batch_selector,
            batch_selector_encoded,
            agg_param: request.agg_param,
            report_count: request.report_count,
            checksum: request.checksum,
        }
        .encode()
    }
}

/// What an aggregate share's ciphertext is bound to. DAP-09 §4.6.4.
/// To seal or open, use [`crate::wire::aggregate_share_aad`], which takes the bytes as received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AggregateShareAad<'a> {
    /// The task.
    pub task_id: TaskId,
    /// The VDAF's aggregation parameter, undecoded.
    pub agg_param: &'a [u8],
    /// The batch: of a time-interval task the query's interval, of a fixed-size task the batch's id.
    pub batch_selector: BatchSelector,
    /// The batch selector's encoding, which `encode` writes.
    pub batch_selector_encoded: &'a [u8],
}

whole!(AggregateShareAad<'a>);

impl<'a> AggregateShareAad<'a> {
    fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let task_id = TaskId::read(r)?;
        let agg_param = r.opaque32()?;
        let (batch_selector, batch_selector_encoded) = read_kept(r)?;
        Ok(Self { task_id, agg_param, batch_selector, batch_selector_encoded })
    }

    fn write(&self, w: &mut Writer) {
        w.raw(self.task_id.as_bytes()).opaque32(self.agg_param).raw(self.batch_selector_encoded);
    }
}

/// What of an `AggregateShareAad` does not say which task it is. DAP-09 §4.6.4.
///
/// # Errors
/// The aggregation parameter is 4 GiB or longer.
pub fn share_binding(
    agg_param: &[u8],
    batch: &message::BatchSelector,
) -> Result<Vec<u8>, EncodeError> {
    binding(agg_param, &BatchSelector::from(*batch).encode()?)
}

fn binding(agg_param: &[u8], batch_selector_encoded: &[u8]) -> Result<Vec<u8>, EncodeError> {
    let mut w = Writer::new();
    w.opaque32(agg_param).raw(batch_selector_encoded);
    w.finish()
}
