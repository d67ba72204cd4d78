//! Time in the core is seconds since the Unix epoch: the one unit which loses nothing in either draft.
//!
//! Clients choose times, up to `u64::MAX`, so arithmetic is checked or saturating everywhere.

use serde::{Deserialize, Serialize};

use crate::codec::{DecodeError, Reader, Writer};

/// Seconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Time(u64);

/// A length of time in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Duration(u64);

impl Duration {
    /// A duration of that many seconds.
    pub const fn from_seconds(s: u64) -> Self {
        Self(s)
    }

    /// The number of seconds.
    pub const fn as_seconds(self) -> u64 {
        self.0
    }
}

impl Time {
    /// The time that many seconds after the Unix epoch.
    pub const fn from_seconds(s: u64) -> Self {
        Self(s)
    }

    /// Seconds since the Unix epoch.
    pub const fn as_seconds(self) -> u64 {
        self.0
    }

    /// The start of the batch bucket this time falls into: rounded down to a multiple of `precision`.
    /// A precision of zero, which no valid task has, leaves the time as it is.
    pub fn round_down(self, precision: Duration) -> Self {
        Self(self.0 - self.0.checked_rem(precision.0).unwrap_or(0))
    }

    /// `self + d`, or the last representable time.
    pub const fn saturating_add(self, d: Duration) -> Self {
        Self(self.0.saturating_add(d.0))
    }

    /// `self - d`, or the epoch.
    pub const fn saturating_sub(self, d: Duration) -> Self {
        Self(self.0.saturating_sub(d.0))
    }
}

/// A half-open interval `[start, start + duration)` whose end is representable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Interval {
    start: Time,
    duration: Duration,
}

impl Interval {
    /// The interval, or `None` if its end would exceed the last representable time.
    pub fn new(start: Time, duration: Duration) -> Option<Self> {
        start.0.checked_add(duration.0)?;
        Some(Self { start, duration })
    }

    /// First second inside.
    pub const fn start(&self) -> Time {
        self.start
    }

    /// Length in seconds.
    pub const fn duration(&self) -> Duration {
        self.duration
    }

    /// First second after.
    pub const fn end(&self) -> Time {
        // Cannot overflow: checked by every constructor.
        Time(self.start.0.saturating_add(self.duration.0))
    }

    /// Reads start and duration as two 64-bit numbers of seconds, *unchecked*, as a peer may send anything;
    /// [`Interval::new`] turns them into an interval.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub fn read_parts(r: &mut Reader<'_>) -> Result<(Time, Duration), DecodeError> {
        Ok((Time(r.u64()?), Duration(r.u64()?)))
    }

    /// Writes start and duration as two 64-bit numbers of seconds.
    pub fn write(&self, w: &mut Writer) {
        w.u64(self.start.0).u64(self.duration.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extreme_times_do_not_overflow() {
        let end = Time::from_seconds(u64::MAX);
        assert_eq!(end.saturating_add(Duration::from_seconds(1)), end);
        assert_eq!(end.round_down(Duration::from_seconds(3600)).as_seconds() % 3600, 0);
        assert_eq!(end.round_down(Duration::from_seconds(0)), end);
        assert_eq!(Interval::new(end, Duration::from_seconds(1)), None);
        assert_eq!(
            Interval::new(Time::from_seconds(5), Duration::from_seconds(2))
                .unwrap()
                .end()
                .as_seconds(),
            7
        );
    }
}
