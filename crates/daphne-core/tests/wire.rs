//! Encodings of both drafts: written-out vectors and their mutilations.

use std::{collections::BTreeSet, fs, path::Path};

use daphne_core::codec::DecodeError;

#[path = "vectors/mod.rs"]
#[allow(dead_code, reason = "each test file uses its part of the tables")]
mod vectors;
use vectors::{Message, TABLES, Vector};

/// Calls `check` with each vector of each message, and what to call it.
fn each_vector(check: impl Fn(&Message, &Vector, &str)) {
    for table in TABLES {
        for m in table.messages {
            for (v, (label, _)) in m.parsed().iter().zip(m.vectors) {
                check(m, v, &format!("{} of {}, {label}", m.name, table.draft));
            }
        }
    }
}

/// Whether the message's list runs to its end.
fn runs_to_end(m: &Message) -> bool {
    m.lists.iter().any(|list| list.width == 0)
}

#[test]
fn every_decoder_is_in_its_table() {
    for table in TABLES {
        let wire = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/wire");
        let mut files = vec![wire.join("common.rs")];
        files.extend(fs::read_dir(wire.join(table.draft)).unwrap().map(|f| f.unwrap().path()));
        let mut defined = BTreeSet::new();
        for file in files {
            for line in fs::read_to_string(&file).unwrap().lines() {
                let name = file.display();
                assert!(!line.contains("fn decode("), "{name}: a decoder without `whole!`");
                if let Some(call) = line.trim().strip_prefix("whole!(") {
                    defined.insert(call.split(['<', ')']).next().unwrap().to_owned());
                }
            }
        }
        let listed: BTreeSet<_> = table.messages.iter().map(|m| m.name.to_owned()).collect();
        assert_eq!(defined, listed, "{}", table.draft);
    }
}

#[test]
fn vectors_round_trip() {
    each_vector(|m, v, name| assert_eq!((m.reencode)(&v.bytes).as_ref(), Ok(&v.bytes), "{name}"));
}

/// But where a list runs to the end of the message, and an item of it: then it is shorter.
#[test]
fn every_truncation_is_an_error() {
    each_vector(|m, v, name| {
        assert!(v.ends.is_empty() || runs_to_end(m), "{name}");
        for n in 0..v.bytes.len() {
            let decodes = (m.decodes)(&v.bytes[..n]);
            assert_eq!(decodes, v.ends.contains(&n), "{name}, {n} bytes");
            if decodes {
                assert_eq!((m.reencode)(&v.bytes[..n]).unwrap(), v.bytes[..n], "{name}, {n} bytes");
            }
        }
    });
}

#[test]
fn a_trailing_byte_is_an_error() {
    each_vector(|m, v, name| {
        for last in [0, 1, 0xff] {
            let longer = [&v.bytes[..], &[last]].concat();
            // It begins another item, which is cut.
            let error = if runs_to_end(m) { DecodeError::Truncated } else { DecodeError::Trailing };
            assert_eq!((m.reencode)(&longer), Err(error), "{name}");
        }
    });
}

#[test]
fn no_length_prefix_can_point_past_the_end() {
    each_vector(|m, v, name| {
        for at in &v.prefixes {
            let mut bytes = v.bytes.clone();
            bytes[at.clone()].fill(0xff);
            assert_eq!(
                (m.reencode)(&bytes),
                Err(DecodeError::Truncated),
                "{name}, prefix at {at:?}"
            );
        }
        // Nor any other four bytes: what still decodes has its own encoding.
        for at in 0..v.bytes.len().saturating_sub(3) {
            let mut bytes = v.bytes.clone();
            bytes[at..at + 4].fill(0xff);
            if let Ok(again) = (m.reencode)(&bytes) {
                assert_eq!(again, bytes, "{name}, at {at}");
            }
        }
    });
}

#[test]
fn nothing_decodes_from_no_bytes_nor_from_ones() {
    for table in TABLES {
        for m in table.messages {
            // A list that runs to the end may be the whole message, and empty.
            let is_list = runs_to_end(m) && m.lists.iter().all(|list| list.before.is_empty());
            assert_eq!((m.decodes)(&[]), is_list, "{} of {}", m.name, table.draft);
            for n in 1..200 {
                // Of fixed-length numbers and ids alone, any bytes are a value.
                let any_value = match (table.draft, m.name) {
                    (_, "Interval") => n == 16,
                    ("v09", "ReportMetadata") => n == 24,
                    // A step, and no reports.
                    ("v18", "AggregationJobContinueReq") => n == 2,
                    _ => false,
                };
                let decodes = (m.decodes)(&vec![0xff; n]);
                assert_eq!(decodes, any_value, "{} of {}, {n} bytes", m.name, table.draft);
            }
        }
    }
}
