//! Every message of each draft: its name, its decoder, and encodings written by hand from the draft; one table a draft.
//!
//! Encodings are hexadecimal, a field per line. `[…]` marks a length prefix, so that tests can find and bend it, and `|` a place
//! where the message may also end, because it is a list that runs to its end.

use std::ops::{Range, RangeInclusive};

use daphne_core::codec::DecodeError;

/// The messages of one draft.
pub struct Table {
    /// Its folder in `src/wire`.
    pub draft: &'static str,
    /// A row for each.
    pub messages: &'static [Message],
}

/// One row of a table.
pub struct Message {
    /// Name of the struct.
    pub name: &'static str,
    /// Whether bytes decode. Allocates nothing but what the decoder does.
    pub decodes: fn(&[u8]) -> bool,
    /// Decodes and encodes again.
    pub reencode: fn(&[u8]) -> Result<Vec<u8>, DecodeError>,
    /// The lists it holds, one after the other.
    pub lists: &'static [List],
    /// Encodings, each with a label.
    pub vectors: &'static [(&'static str, &'static str)],
}

/// A list in a message.
pub struct List {
    /// What it is a list of.
    pub item: &'static str,
    /// The size of one in memory.
    pub size: usize,
    /// What comes before a list, for a message that is good.
    pub before: &'static str,
    /// Bytes of its prefix; none if it runs to the message's end.
    pub width: usize,
    /// What comes after.
    pub after: &'static str,
}

/// An encoding and where its length prefixes are.
#[derive(Clone)]
pub struct Vector {
    pub bytes: Vec<u8>,
    pub prefixes: Vec<Range<usize>>,
    /// Where it may also end.
    pub ends: Vec<usize>,
}

impl Table {
    /// The row of that name.
    pub fn named(&self, name: &str) -> &'static Message {
        let found = self.messages.iter().find(|m| m.name == name);
        found.unwrap_or_else(|| panic!("{} has no message {name}", self.draft))
    }

    /// The n-th encoding of the message of that name.
    pub fn vector(&self, name: &str, n: usize) -> Vec<u8> {
        self.named(name).parsed().swap_remove(n).bytes
    }

    /// Asserts that a byte at a place of a message's n-th encoding is a code point, and that none but the known ones decode.
    pub fn assert_code_points(&self, rows: &[(&str, usize, usize, RangeInclusive<u8>)]) {
        for (name, index, at, known) in rows {
            let mut bytes = self.vector(name, *index);
            assert!(known.contains(&bytes[*at]), "{name}: no code point at {at}");
            for value in (0..=255).filter(|v| !known.contains(v)) {
                bytes[*at] = value;
                let decoded = (self.named(name).reencode)(&bytes);
                assert!(matches!(decoded, Err(DecodeError::Invalid(_))), "{name}, {value} at {at}");
            }
        }
    }

    /// The shortest encoding of an item of `list`.
    pub fn shortest(&self, list: &List) -> Vec<u8> {
        let items = self.named(list.item).parsed().into_iter().map(|v| v.bytes);
        items.min_by_key(Vec::len).expect("every message has vectors")
    }

    /// The most that decoding `len` bytes may allocate.
    ///
    /// Decoders borrow, so all they allocate is the vector of a list's items. With `n` items read its capacity is at
    /// most `n` before it grows and `2n` after, and growing holds both blocks: `3n` items. An item takes at least
    /// its minimum encoding from the input, so `n <= len / wire`, which gives `3 * size / wire` bytes per byte of
    /// input. The constant is the first allocation, of 4 items. A message without a list allocates nothing.
    pub fn peak_bytes_max(&self, message: &Message, len: usize) -> usize {
        let of_list = |list: &List| 3 * list.size * len / self.shortest(list).len();
        let grown = message.lists.iter().map(of_list).max().unwrap_or(0);
        grown + message.lists.iter().map(|list| 4 * list.size).sum::<usize>()
    }
}

impl Message {
    /// The encodings, parsed.
    pub fn parsed(&self) -> Vec<Vector> {
        self.vectors.iter().map(|(_, hex)| parse(hex)).collect()
    }
}

/// Bytes in the tables' notation.
pub fn parse(hex: &str) -> Vector {
    let (mut bytes, mut prefixes, mut ends, mut open) = (Vec::new(), Vec::new(), Vec::new(), 0);
    let mut rest = hex;
    while !rest.is_empty() {
        if let Some(r) = rest.strip_prefix('[') {
            open = bytes.len();
            rest = r;
        } else if let Some(r) = rest.strip_prefix(']') {
            prefixes.push(open..bytes.len());
            rest = r;
        } else if let Some(r) = rest.strip_prefix('|') {
            ends.push(bytes.len());
            rest = r;
        } else {
            let (byte, r) = rest.split_at(2);
            bytes.push(u8::from_str_radix(byte, 16).expect("vectors are hexadecimal"));
            rest = r;
        }
    }
    Vector { bytes, prefixes, ends }
}

macro_rules! message {
    ($draft:ident $name:ident, [$($vectors:tt)*]) => { message!($draft $name of [], [$($vectors)*]) };
    (
        $draft:ident $name:ident of [$($item:ident: $before:expr, $width:literal, $after:expr);* $(;)?],
        [$($label:literal: $hex:expr),* $(,)?]
    ) => {
        Message {
            name: stringify!($name),
            decodes: |bytes| $draft::$name::decode(bytes).is_ok(),
            reencode: |bytes| {
                $draft::$name::decode(bytes)
                    .map(|m| m.encode().expect("what decodes has an encoding"))
            },
            lists: &[$(List {
                item: stringify!($item),
                size: size_of::<$draft::$item>(),
                before: $before,
                width: $width,
                after: $after,
            }),*],
            vectors: &[$(($label, $hex)),*],
        }
    };
}

// Parts that messages of both drafts hold. Lengths in bytes stand beside them.

// 32 bytes
macro_rules! task_id {
    () => {
        "7461736b00000000000000000000000000000000000000000000000000000001"
    };
}
// 32 bytes
macro_rules! batch_id {
    () => {
        "b0b1b2b3b4b5b6b7b8b9babbbcbdbebfc0c1c2c3c4c5c6c7c8c9cacbcccdcecf"
    };
}
// 16 bytes
macro_rules! report_id {
    () => {
        "000102030405060708090a0b0c0d0e0f"
    };
}
// 16 bytes
macro_rules! other_report_id {
    () => {
        "f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff"
    };
}
// 14 bytes
macro_rules! ciphertext {
    () => {
        concat!(
            "2a",               // config_id: 42
            "[0004]c0c1c2c3",   // enc
            "[00000003]d0d1d2", // payload
        )
    };
}
// 7 bytes
macro_rules! empty_ciphertext {
    () => {
        concat!(
            "00",         // config_id: 0
            "[0000]",     // enc: empty
            "[00000000]", // payload: empty
        )
    };
}
// 32 bytes
macro_rules! checksum {
    () => {
        "ececececececececececececececececdededededededededededededededede"
    };
}

#[path = "dap-09/mod.rs"]
pub mod dap_09;
#[path = "dap-18/mod.rs"]
pub mod dap_18;

/// The drafts.
pub const TABLES: [&Table; 2] = [&dap_09::TABLE, &dap_18::TABLE];
