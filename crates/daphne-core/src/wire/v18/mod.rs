//! The structs of DAP-18, one-to-one: same names, same field order, borrowing from the bytes received.
//!
//! Files follow the draft: [`task`] (§4.2), [`upload`] (§4.4), [`aggregate`] (§4.5) and [`collect`] (§4.6); what more than
//! one of them uses is here. They convert to the neutral [`crate::message`] types. Where the draft says that a list runs
//! to the end of the body, so it does here, and may be empty: whether a message without reports means anything is for its
//! receiver to say.
//!
//! Times and durations are numbers of the task's time precision (§4.1.1); the conversions take it, and the core has seconds.

pub mod aggregate;
pub mod collect;
pub mod task;
pub mod upload;

pub use aggregate::*;
pub use collect::*;
pub use task::*;
pub use upload::*;

use crate::{
    codec::{DecodeError, Reader, Writer, items},
    time::{Duration, Time},
};

pub use super::common::{AggregateShare, Extension};
pub use crate::message::HpkeCiphertext;

/// `BatchMode`. DAP-18 §9.2.1.
const TIME_INTERVAL: u8 = 1;
const LEADER_SELECTED: u8 = 2;
const BAD_BATCH_MODE: DecodeError =
    DecodeError::Invalid("batch_mode is neither time_interval nor leader_selected");

/// An interval *as received*, in units of the task's time precision: its end may exceed what a time can hold.
/// DAP-18 §4.1.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval {
    /// First unit.
    pub start: u64,
    /// Length in units.
    pub duration: u64,
}

whole!(Interval);

impl Interval {
    /// Start and duration in seconds. An end that no second can express is the last whole unit that one can, so an interval
    /// that reaches beyond it, as one over all time does, is of whole units all the same. An interval without an end, which
    /// is not well-formed, has one of which [`crate::time::Interval::new`] says so.
    pub fn seconds(self, precision: Duration) -> (Time, Duration) {
        let whole = |units: u64| {
            let last = u64::MAX.checked_div(precision.as_seconds()).unwrap_or(u64::MAX);
            seconds(units.min(last), precision)
        };
        let start = whole(self.start);
        let duration = match self.start.checked_add(self.duration) {
            Some(end) => whole(end) - start,
            None => u64::MAX,
        };
        (Time::from_seconds(start), Duration::from_seconds(duration))
    }

    /// The interval with that many seconds before and in it; what is no whole unit is cut off.
    pub fn of_seconds(start: Time, duration: Duration, precision: Duration) -> Self {
        Self {
            start: units(start, precision),
            duration: units(Time::from_seconds(duration.as_seconds()), precision),
        }
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { start: r.u64()?, duration: r.u64()? })
    }

    fn write(&self, w: &mut Writer) {
        w.u64(self.start).u64(self.duration);
    }
}

/// Seconds of so many units. Clients choose times up to `u64::MAX`: what no second can express is the last one, which is
/// far in the future with every clock.
const fn seconds(units: u64, precision: Duration) -> u64 {
    units.saturating_mul(precision.as_seconds())
}

const fn time_of(units: u64, precision: Duration) -> Time {
    Time::from_seconds(seconds(units, precision))
}

/// The unit in which a time lies. DAP-18 §4.1.1.
fn units(time: Time, precision: Duration) -> u64 {
    // A precision of zero, which no valid task has, leaves the number as it is.
    time.as_seconds().checked_div(precision.as_seconds()).unwrap_or(time.as_seconds())
}

/// Whether extension types are strictly increasing, as all lists of extensions must be.
fn is_increasing(list: &[Extension<'_>]) -> bool {
    list.is_sorted_by(|a, b| a.extension_type < b.extension_type)
}

/// Reads items back to back until the message ends.
fn rest<'a, T>(
    r: &mut Reader<'a>,
    item: impl FnMut(&mut Reader<'a>) -> Result<T, DecodeError>,
) -> Result<Vec<T>, DecodeError> {
    let list = r.take(r.rest().len())?;
    items(list, item)
}

/// Reads `opaque16` that the draft does not allow to be empty, or `opaque32`.
const fn not_empty<'a>(bytes: &'a [u8], empty: &'static str) -> Result<&'a [u8], DecodeError> {
    if bytes.is_empty() { Err(DecodeError::Invalid(empty)) } else { Ok(bytes) }
}

/// Writes what [`not_empty`] reads from `opaque32`.
fn write_not_empty(bytes: &[u8], w: &mut Writer) {
    if bytes.is_empty() {
        w.fail();
    }
    w.opaque32(bytes);
}

/// What was read from `r` since it had `before` left.
fn read_since<'a>(before: &'a [u8], r: &Reader<'a>) -> &'a [u8] {
    // Cannot underflow or fail: what remains is a suffix of what was there.
    before.split_at(before.len() - r.rest().len()).0
}
