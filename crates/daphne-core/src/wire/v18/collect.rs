//! Collecting results: DAP-18 §4.6, and what the batch modes of §5 make of it.

use super::{
    BAD_BATCH_MODE, Extension, HpkeCiphertext, Interval, LEADER_SELECTED, TIME_INTERVAL,
    is_increasing, read_since,
};
use crate::{
    codec::{DecodeError, EncodeError, Reader, Writer},
    error::{Abort, AbortKind},
    ids::BatchId,
    message,
    time::Duration,
};

/// What a collector asks for. DAP-18 §4.2.1, §5.1.1, §5.2.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Query {
    /// `batch_mode` 1: all batch buckets of an interval.
    TimeInterval(Interval),
    /// `batch_mode` 2: whichever batch the leader chooses.
    LeaderSelected,
}

whole!(Query);

impl Query {
    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let (mode, config) = (r.u8()?, r.opaque16()?);
        match mode {
            TIME_INTERVAL => Ok(Self::TimeInterval(Interval::decode(config)?)),
            LEADER_SELECTED => Reader::new(config).finish().map(|()| Self::LeaderSelected),
            _ => Err(BAD_BATCH_MODE),
        }
    }

    fn write(&self, w: &mut Writer) {
        match self {
            Self::TimeInterval(i) => w.u8(TIME_INTERVAL).list16(|w| i.write(w)),
            Self::LeaderSelected => w.u8(LEADER_SELECTED).opaque16(&[]),
        };
    }
}

/// A collector's request to begin a collection job. DAP-18 §4.6.1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CollectionJobReq<'a> {
    /// What is asked for.
    pub query: Query,
    /// The VDAF's aggregation parameter, undecoded, `0..=2^32-1` bytes.
    pub agg_param: &'a [u8],
    /// Extensions of the collection job, 65,535 bytes in all.
    pub extensions: Vec<Extension<'a>>,
}

whole!(CollectionJobReq<'a>);

impl<'a> CollectionJobReq<'a> {
    fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self {
            query: Query::read(r)?,
            agg_param: r.opaque32()?,
            extensions: Extension::read_list(r)?,
        })
    }

    fn write(&self, w: &mut Writer) {
        self.query.write(w);
        w.opaque32(self.agg_param);
        Extension::write_list(&self.extensions, w);
    }

    /// Checks the extensions, of which none is registered so far. DAP-18 §4.6.2.
    ///
    /// # Errors
    /// The collector's fault, which a leader should have found: `invalidExtension` if they are not in order, else
    /// `unsupportedExtension`.
    fn check_extensions(&self) -> Result<(), Abort> {
        if !is_increasing(&self.extensions) {
            let why = "the collection job's extensions are not in order";
            return Err(Abort::new(AbortKind::InvalidExtension, why));
        }
        match self.extensions.first() {
            None => Ok(()),
            Some(unknown) => Err(Abort::new(
                AbortKind::UnsupportedExtension,
                format!("collection job extension {} is not known here", unknown.extension_type),
            )),
        }
    }
}

/// The result of a collection job. DAP-18 §4.6.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CollectionJobResp<'a> {
    /// How many reports are in the batch.
    pub report_count: u64,
    /// The smallest interval that holds all their times.
    pub interval: Interval,
    /// The leader's aggregate share, sealed to the collector.
    pub leader_encrypted_agg_share: HpkeCiphertext<'a>,
    /// The helper's aggregate share, sealed to the collector.
    pub helper_encrypted_agg_share: HpkeCiphertext<'a>,
}

whole!(CollectionJobResp<'a>);

impl<'a> CollectionJobResp<'a> {
    fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self {
            report_count: r.u64()?,
            interval: Interval::read(r)?,
            leader_encrypted_agg_share: HpkeCiphertext::read(r)?,
            helper_encrypted_agg_share: HpkeCiphertext::read(r)?,
        })
    }

    fn write(&self, w: &mut Writer) {
        self.interval.write(w.u64(self.report_count));
        self.leader_encrypted_agg_share.write(w);
        self.helper_encrypted_agg_share.write(w);
    }
}

/// A batch, named in full. DAP-18 §4.6.4, §5.1.2, §5.2.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchSelector {
    /// `batch_mode` 1: all batch buckets of an interval.
    TimeInterval(Interval),
    /// `batch_mode` 2: the batch's id.
    LeaderSelected(BatchId),
}

whole!(BatchSelector);

impl BatchSelector {
    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let (mode, config) = (r.u8()?, r.opaque16()?);
        match mode {
            TIME_INTERVAL => Ok(Self::TimeInterval(Interval::decode(config)?)),
            LEADER_SELECTED => Reader::all(config, BatchId::read).map(Self::LeaderSelected),
            _ => Err(BAD_BATCH_MODE),
        }
    }

    fn write(&self, w: &mut Writer) {
        match self {
            Self::TimeInterval(i) => w.u8(TIME_INTERVAL).list16(|w| i.write(w)),
            Self::LeaderSelected(id) => w.u8(LEADER_SELECTED).opaque16(id.as_bytes()),
        };
    }

    /// The selector with seconds in it.
    pub fn into_message(self, precision: Duration) -> message::BatchSelector {
        match self {
            Self::TimeInterval(interval) => {
                let (start, duration) = interval.seconds(precision);
                message::BatchSelector::TimeInterval { start, duration }
            }
            Self::LeaderSelected(id) => message::BatchSelector::LeaderSelected(id),
        }
    }

    /// The selector with units in it.
    pub fn of_message(selector: &message::BatchSelector, precision: Duration) -> Self {
        match *selector {
            message::BatchSelector::TimeInterval { start, duration } => {
                Self::TimeInterval(Interval::of_seconds(start, duration, precision))
            }
            message::BatchSelector::LeaderSelected(id) => Self::LeaderSelected(id),
        }
    }
}

/// A leader's request for the helper's aggregate share. DAP-18 §4.6.4.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AggregateShareReq<'a> {
    /// What the collector asked for.
    pub collection_job_req: CollectionJobReq<'a>,
    /// Its encoding as received, which enters the associated data and is what `encode` writes again.
    pub collection_job_req_encoded: &'a [u8],
    /// The batch.
    pub batch_selector: BatchSelector,
    /// How many reports the leader counts in the batch.
    pub report_count: u64,
    /// XOR of SHA-256 of their ids, by the leader's account.
    pub checksum: [u8; 32],
}

whole!(AggregateShareReq<'a>);

impl<'a> AggregateShareReq<'a> {
    fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let before = r.rest();
        let collection_job_req = CollectionJobReq::read(r)?;
        Ok(Self {
            collection_job_req,
            collection_job_req_encoded: read_since(before, r),
            batch_selector: BatchSelector::read(r)?,
            report_count: r.u64()?,
            checksum: r.array()?,
        })
    }

    fn write(&self, w: &mut Writer) {
        w.raw(self.collection_job_req_encoded);
        self.batch_selector.write(w);
        w.u64(self.report_count).raw(&self.checksum);
    }

    /// The neutral message.
    ///
    /// # Errors
    /// The leader's or the collector's fault: `invalidMessage` if query and selector are of two batch modes, and what
    /// the extensions of the collection job are refused for.
    pub fn into_message(
        self,
        precision: Duration,
    ) -> Result<message::AggregateShareRequest<'a>, Abort> {
        let collected = match (self.collection_job_req.query, self.batch_selector) {
            (Query::TimeInterval(interval), BatchSelector::TimeInterval(_)) => {
                BatchSelector::TimeInterval(interval)
            }
            (Query::LeaderSelected, selector @ BatchSelector::LeaderSelected(_)) => selector,
            (Query::TimeInterval(_), BatchSelector::LeaderSelected(_))
            | (Query::LeaderSelected, BatchSelector::TimeInterval(_)) => {
                let why = "the query and the batch selector are of two batch modes";
                return Err(Abort::invalid_message(why));
            }
        };
        self.collection_job_req.check_extensions()?;
        Ok(message::AggregateShareRequest {
            batch_selector: self.batch_selector.into_message(precision),
            collected: collected.into_message(precision),
            agg_param: self.collection_job_req.agg_param,
            report_count: self.report_count,
            checksum: self.checksum,
            share_binding: self.collection_job_req_encoded.into(),
        })
    }

    /// Encodes a neutral message.
    ///
    /// # Errors
    /// Our own fault: never for messages of an accepted size.
    pub fn encode_message(
        request: &message::AggregateShareRequest<'_>,
        precision: Duration,
    ) -> Result<Vec<u8>, EncodeError> {
        let mut w = Writer::new();
        w.raw(&request.share_binding);
        BatchSelector::of_message(&request.batch_selector, precision).write(&mut w);
        w.u64(request.report_count).raw(&request.checksum);
        w.finish()
    }
}

/// The encoding of the request of a collector that wants this batch, without extensions: what its shares are bound to.
///
/// # Errors
/// Our own fault: the aggregation parameter is 4 GiB or longer.
pub fn collection_job_req(
    agg_param: &[u8],
    batch: &message::BatchSelector,
    precision: Duration,
) -> Result<Vec<u8>, EncodeError> {
    let query = match BatchSelector::of_message(batch, precision) {
        BatchSelector::TimeInterval(interval) => Query::TimeInterval(interval),
        BatchSelector::LeaderSelected(_) => Query::LeaderSelected,
    };
    CollectionJobReq { query, agg_param, extensions: Vec::new() }.encode()
}
