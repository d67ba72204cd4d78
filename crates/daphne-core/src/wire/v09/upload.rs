//! Uploading reports: DAP-09 §4.4.

use std::fmt;

use super::HpkeCiphertext;
pub use crate::wire::common::Extension;
use crate::{
    codec::{DecodeError, Reader, Writer},
    ids::{ReportId, TaskId},
    message,
    time::Time,
};

const METADATA_LEN: usize = ReportId::LEN + 8;

/// Public facts about a report, 24 bytes. DAP-09 §4.4.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReportMetadata<'a> {
    /// The report's id.
    pub report_id: ReportId,
    /// When it was made, in seconds since the Unix epoch; any value.
    pub time: Time,
    /// The encoding received, which enters the associated data and is what `encode` writes again.
    pub encoded: &'a [u8],
}

whole!(ReportMetadata<'a>);

impl<'a> ReportMetadata<'a> {
    /// Length of the encoding in bytes.
    pub const LEN: usize = METADATA_LEN;

    /// The encoding of new metadata; [`ReportMetadata::decode`] makes it a value.
    pub fn bytes(report_id: ReportId, time: Time) -> [u8; METADATA_LEN] {
        let mut out = [0; METADATA_LEN];
        let (id, t) = out.split_at_mut(ReportId::LEN);
        id.copy_from_slice(report_id.as_bytes());
        t.copy_from_slice(&time.as_seconds().to_be_bytes());
        out
    }

    pub(super) fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let encoded = r.take(Self::LEN)?;
        let mut r = Reader::new(encoded);
        Ok(Self { report_id: ReportId::read(&mut r)?, time: Time::from_seconds(r.u64()?), encoded })
    }

    pub(super) fn write(&self, w: &mut Writer) {
        w.raw(self.encoded);
    }
}

impl<'a> From<ReportMetadata<'a>> for message::ReportMetadata<'a> {
    fn from(m: ReportMetadata<'a>) -> Self {
        Self { report_id: m.report_id, time: m.time, public_extensions: &[], encoded: m.encoded }
    }
}

impl<'a> From<message::ReportMetadata<'a>> for ReportMetadata<'a> {
    fn from(m: message::ReportMetadata<'a>) -> Self {
        Self { report_id: m.report_id, time: m.time, encoded: m.encoded }
    }
}

/// A report, the whole body of an upload. DAP-09 §4.4.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report<'a> {
    /// Public facts.
    pub report_metadata: ReportMetadata<'a>,
    /// The VDAF's public share, undecoded, `0..=2^32-1` bytes.
    pub public_share: &'a [u8],
    /// The leader's input share, sealed.
    pub leader_encrypted_input_share: HpkeCiphertext<'a>,
    /// The helper's input share, sealed.
    pub helper_encrypted_input_share: HpkeCiphertext<'a>,
}

whole!(Report<'a>);

impl<'a> Report<'a> {
    fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self {
            report_metadata: ReportMetadata::read(r)?,
            public_share: r.opaque32()?,
            leader_encrypted_input_share: HpkeCiphertext::read(r)?,
            helper_encrypted_input_share: HpkeCiphertext::read(r)?,
        })
    }

    fn write(&self, w: &mut Writer) {
        self.report_metadata.write(w);
        w.opaque32(self.public_share);
        self.leader_encrypted_input_share.write(w);
        self.helper_encrypted_input_share.write(w);
    }
}

impl<'a> From<Report<'a>> for message::Report<'a> {
    fn from(r: Report<'a>) -> Self {
        Self {
            metadata: r.report_metadata.into(),
            public_share: r.public_share,
            leader_encrypted_input_share: r.leader_encrypted_input_share,
            helper_encrypted_input_share: r.helper_encrypted_input_share,
        }
    }
}

impl<'a> From<message::Report<'a>> for Report<'a> {
    fn from(r: message::Report<'a>) -> Self {
        Self {
            report_metadata: r.metadata.into(),
            public_share: r.public_share,
            leader_encrypted_input_share: r.leader_encrypted_input_share,
            helper_encrypted_input_share: r.helper_encrypted_input_share,
        }
    }
}

/// What an [`HpkeCiphertext`] of a report contains. Secret: `Debug` prints no contents. DAP-09 §4.4.2.
#[derive(Clone, PartialEq, Eq)]
pub struct PlaintextInputShare<'a> {
    /// Report extensions in the order sent, unknown and repeated ones included; 65,535 bytes in all.
    pub extensions: Vec<Extension<'a>>,
    /// The VDAF's input share, undecoded, `0..=2^32-1` bytes.
    pub payload: &'a [u8],
}

whole!(PlaintextInputShare<'a>);

impl<'a> PlaintextInputShare<'a> {
    fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self { extensions: Extension::read_list(r)?, payload: r.opaque32()? })
    }

    fn write(&self, w: &mut Writer) {
        Extension::write_list(&self.extensions, w);
        w.opaque32(self.payload);
    }
}

impl fmt::Debug for PlaintextInputShare<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PlaintextInputShare")
    }
}

impl<'a> From<PlaintextInputShare<'a>> for message::PlaintextInputShare<'a> {
    fn from(p: PlaintextInputShare<'a>) -> Self {
        Self {
            extensions: p.extensions.iter().map(|e| (e.extension_type, e.extension_data)).collect(),
            payload: p.payload,
        }
    }
}

impl<'a> From<message::PlaintextInputShare<'a>> for PlaintextInputShare<'a> {
    fn from(p: message::PlaintextInputShare<'a>) -> Self {
        let extension = |&(extension_type, extension_data): &(u16, &'a [u8])| Extension {
            extension_type,
            extension_data,
        };
        Self { extensions: p.extensions.iter().map(extension).collect(), payload: p.payload }
    }
}

/// What an input share's ciphertext is bound to. DAP-09 §4.4.2.
/// To seal or open, use [`crate::wire::input_share_aad`], which takes the bytes as received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InputShareAad<'a> {
    /// The task.
    pub task_id: TaskId,
    /// Public facts about the report.
    pub report_metadata: ReportMetadata<'a>,
    /// The VDAF's public share, undecoded.
    pub public_share: &'a [u8],
}

whole!(InputShareAad<'a>);

impl<'a> InputShareAad<'a> {
    fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self {
            task_id: TaskId::read(r)?,
            report_metadata: ReportMetadata::read(r)?,
            public_share: r.opaque32()?,
        })
    }

    fn write(&self, w: &mut Writer) {
        w.raw(self.task_id.as_bytes())
            .raw(self.report_metadata.encoded)
            .opaque32(self.public_share);
    }
}
