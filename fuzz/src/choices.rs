//! Inputs as a list of choices, read from the front: a byte that is changed changes one choice, and bytes that are
//! missing are zeros, so that every input means something.

use daphne_core::{
    ids::ReportId,
    time::{Duration, Time},
};

/// What is left of an input.
pub struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    /// All of `data`.
    pub fn new(data: &'a [u8]) -> Self {
        Self(data)
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A byte; 0 if none is left.
    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// A number below `n`, from one byte; 0 if `n` is 0.
    pub fn below(&mut self, n: usize) -> usize {
        usize::from(self.byte()).checked_rem(n).unwrap_or(0)
    }

    /// One of these.
    pub fn of<'b, T>(&mut self, items: &'b [T]) -> &'b T {
        &items[self.below(items.len())]
    }

    /// `N` bytes, zeros where none are left.
    pub fn array<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.byte())
    }

    /// A number of 64 bits.
    pub fn number(&mut self) -> u64 {
        u64::from_be_bytes(self.array())
    }

    /// A number that is often near to `around`.
    pub fn near(&mut self, around: u64) -> u64 {
        match self.below(4) {
            0 => around.wrapping_add(u64::from(self.byte())),
            1 => around.wrapping_sub(u64::from(self.byte())),
            2 => around.wrapping_add_signed(i64::from(i32::from_be_bytes(self.array()))),
            _ => self.number(),
        }
    }

    /// Up to 255 bytes, as many as the next byte says.
    pub fn short(&mut self) -> &'a [u8] {
        let len = usize::from(self.byte()).min(self.0.len());
        let (head, rest) = self.0.split_at(len);
        self.0 = rest;
        head
    }

    /// Up to 65,535 bytes, as many as the next two bytes say.
    pub fn long(&mut self) -> &'a [u8] {
        let len = usize::from(u16::from_be_bytes(self.array())).min(self.0.len());
        let (head, rest) = self.0.split_at(len);
        self.0 = rest;
        head
    }

    /// Everything that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    /// Changes some bytes of `field`, in one of the ways in which fields go wrong.
    pub fn edit(&mut self, field: &mut Vec<u8>) {
        let at = self.below(field.len() + 1);
        match self.below(8) {
            0 => {
                if let Some(byte) = field.get_mut(at) {
                    *byte ^= 1 << self.below(8);
                }
            }
            1 => {
                if let Some(byte) = field.get_mut(at) {
                    *byte = self.byte();
                }
            }
            2 => field.truncate(at),
            3 => field.extend_from_slice(self.short()),
            4 => {
                let mine = self.short();
                let end = field.len().min(at + mine.len());
                field[at..end].copy_from_slice(&mine[..end - at]);
            }
            5 => drop(field.splice(at..at, self.short().iter().copied())),
            6 => {
                let end = field.len().min(at + self.below(32));
                field[at..end].fill(0xff);
            }
            _ => *field = self.short().to_vec(),
        }
    }

    /// A report id, often a known one.
    pub fn report_id(&mut self) -> ReportId {
        match self.below(4) {
            3 => ReportId::new(self.array()),
            _ => crate::fixture::report_id(self.below(crate::fixture::REPORTS)),
        }
    }

    /// A time, often near to now.
    pub fn time(&mut self) -> Time {
        Time::from_seconds(self.near(crate::fixture::NOW))
    }

    /// A duration, often of some batch buckets.
    pub fn duration(&mut self) -> Duration {
        Duration::from_seconds(match self.below(3) {
            0 => self.near(crate::fixture::PRECISION),
            1 => u64::from(self.byte()).saturating_mul(crate::fixture::PRECISION),
            _ => self.number(),
        })
    }
}
