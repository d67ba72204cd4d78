//! The structs of DAP-09, one-to-one: same names, same field order, borrowing from the bytes received.
//!
//! Files follow the draft: [`upload`] (§4.4), [`aggregate`] (§4.5) and [`collect`] (§4.6); what more than one of
//! them uses is here. [`taskprov`] is the extension by which a leader brings its tasks along. The names are the draft's;
//! the neutral [`crate::message`] types, to which all of these but the last convert, have the names of later drafts.

pub mod aggregate;
pub mod collect;
pub mod taskprov;
pub mod upload;

pub use aggregate::*;
pub use collect::*;
pub use taskprov::*;
pub use upload::*;

use crate::{
    codec::{DecodeError, EncodeError, Reader, Writer},
    ids::BatchId,
    message, time,
    time::{Duration, Time},
};

pub use super::common::AggregateShare;
pub use crate::message::HpkeCiphertext;

const TIME_INTERVAL: u8 = 1;
const FIXED_SIZE: u8 = 2;
const BAD_QUERY_TYPE: DecodeError =
    DecodeError::Invalid("query_type is neither time_interval nor fixed_size");

/// An interval *as received*: it may be unaligned, and its end may exceed what a time can hold. DAP-09 §4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval {
    /// First second.
    pub start: Time,
    /// Length in seconds.
    pub duration: Duration,
}

whole!(Interval);

impl Interval {
    /// The interval, or `None` if its end would exceed the last representable time.
    pub fn checked(self) -> Option<time::Interval> {
        time::Interval::new(self.start, self.duration)
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let (start, duration) = time::Interval::read_parts(r)?;
        Ok(Self { start, duration })
    }

    fn write(&self, w: &mut Writer) {
        w.u64(self.start.as_seconds()).u64(self.duration.as_seconds());
    }
}

impl From<time::Interval> for Interval {
    fn from(i: time::Interval) -> Self {
        Self { start: i.start(), duration: i.duration() }
    }
}

/// Which batch, as far as an aggregation job or a collection says. DAP-09 §4.5.1.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartialBatchSelector {
    /// `query_type` 1: nothing more.
    TimeInterval,
    /// `query_type` 2: the batch's id.
    FixedSize(BatchId),
}

whole!(PartialBatchSelector);

impl PartialBatchSelector {
    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match r.u8()? {
            TIME_INTERVAL => Ok(Self::TimeInterval),
            FIXED_SIZE => Ok(Self::FixedSize(BatchId::read(r)?)),
            _ => Err(BAD_QUERY_TYPE),
        }
    }

    fn write(&self, w: &mut Writer) {
        match self {
            Self::TimeInterval => w.u8(TIME_INTERVAL),
            Self::FixedSize(id) => w.u8(FIXED_SIZE).raw(id.as_bytes()),
        };
    }
}

impl From<PartialBatchSelector> for message::PartialBatchSelector {
    fn from(p: PartialBatchSelector) -> Self {
        match p {
            PartialBatchSelector::TimeInterval => Self::TimeInterval,
            PartialBatchSelector::FixedSize(id) => Self::LeaderSelected(id),
        }
    }
}

impl From<message::PartialBatchSelector> for PartialBatchSelector {
    fn from(p: message::PartialBatchSelector) -> Self {
        match p {
            message::PartialBatchSelector::TimeInterval => Self::TimeInterval,
            message::PartialBatchSelector::LeaderSelected(id) => Self::FixedSize(id),
        }
    }
}

/// Reads a list with a 32-bit byte count which must hold at least one item.
fn nonempty_list32<'a, T>(
    r: &mut Reader<'a>,
    empty: &'static str,
    item: impl FnMut(&mut Reader<'a>) -> Result<T, DecodeError>,
) -> Result<Vec<T>, DecodeError> {
    let list = r.opaque32()?;
    if list.is_empty() {
        return Err(DecodeError::Invalid(empty));
    }
    crate::codec::items(list, item)
}

/// Writes a list with a 32-bit byte count; an empty one has no encoding.
fn write_nonempty_list32<T>(w: &mut Writer, items: &[T], item: impl Fn(&T, &mut Writer)) {
    if items.is_empty() {
        w.fail();
    }
    w.list32(|w| items.iter().for_each(|i| item(i, w)));
}
