//! Uploading reports: DAP-18 §4.4.

use std::fmt;

use super::{
    Extension, HpkeCiphertext, not_empty, read_since, rest, time_of, units, write_not_empty,
};
use crate::{
    codec::{DecodeError, Reader, Writer},
    error::ReportError,
    ids::ReportId,
    message,
    time::{Duration, Time},
    version::DapVersion,
};

/// Public facts about a report. DAP-18 §4.4.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReportMetadata<'a> {
    /// The report's id.
    pub report_id: ReportId,
    /// When it was made, in units of the task's time precision; any value.
    pub time: u64,
    /// The encoded public extensions, not decoded: a client writes them, and a broken list must not fail a whole job.
    pub public_extensions: &'a [u8],
    /// The encoding received, which enters the associated data and is what `encode` writes again.
    pub encoded: &'a [u8],
}

whole!(ReportMetadata<'a>);

impl<'a> ReportMetadata<'a> {
    /// The encoding of new metadata; [`ReportMetadata::decode`] makes it a value. `extensions` are those to be seen by
    /// everyone, 65,535 bytes in all.
    ///
    /// # Errors
    /// Our own fault: the extensions are longer than that.
    pub fn bytes(
        report_id: ReportId,
        time: Time,
        precision: Duration,
        extensions: &[Extension<'_>],
    ) -> Result<Vec<u8>, crate::codec::EncodeError> {
        let mut w = Writer::new();
        w.raw(report_id.as_bytes()).u64(units(time, precision));
        Extension::write_list(extensions, &mut w);
        w.finish()
    }

    pub(super) fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let before = r.rest();
        let (report_id, time) = (ReportId::read(r)?, r.u64()?);
        let public_extensions = r.opaque16()?;
        Ok(Self { report_id, time, public_extensions, encoded: read_since(before, r) })
    }

    pub(super) fn write(&self, w: &mut Writer) {
        w.raw(self.encoded);
    }

    /// The neutral message.
    pub fn into_message(self, precision: Duration) -> message::ReportMetadata<'a> {
        message::ReportMetadata {
            report_id: self.report_id,
            time: time_of(self.time, precision),
            public_extensions: self.public_extensions,
            encoded: self.encoded,
        }
    }
}

/// A report. DAP-18 §4.4.2.
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

    /// The neutral message.
    pub fn into_message(self, precision: Duration) -> message::Report<'a> {
        message::Report {
            metadata: self.report_metadata.into_message(precision),
            public_share: self.public_share,
            leader_encrypted_input_share: self.leader_encrypted_input_share,
            helper_encrypted_input_share: self.helper_encrypted_input_share,
        }
    }
}

/// Reports, the whole body of an upload. DAP-18 §4.4.2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploadRequest<'a> {
    /// The reports.
    pub reports: Vec<Report<'a>>,
}

whole!(UploadRequest<'a>);

impl<'a> UploadRequest<'a> {
    fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self { reports: rest(r, Report::read)? })
    }

    fn write(&self, w: &mut Writer) {
        self.reports.iter().for_each(|report| report.write(w));
    }
}

/// Why a report of an upload was not taken. DAP-18 §4.4.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReportUploadStatus {
    /// The report.
    pub report_id: ReportId,
    /// Why. Errors without a code point in DAP-18 have no encoding.
    pub error: ReportError,
}

whole!(ReportUploadStatus);

impl ReportUploadStatus {
    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { report_id: ReportId::read(r)?, error: read_report_error(r)? })
    }

    fn write(&self, w: &mut Writer) {
        w.raw(self.report_id.as_bytes());
        write_report_error(self.error, w);
    }
}

/// The answer to an upload of which some reports were not taken. DAP-18 §4.4.2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploadErrors {
    /// Those, in the order of the upload.
    pub status: Vec<ReportUploadStatus>,
}

whole!(UploadErrors);

impl UploadErrors {
    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { status: rest(r, ReportUploadStatus::read)? })
    }

    fn write(&self, w: &mut Writer) {
        self.status.iter().for_each(|status| status.write(w));
    }
}

/// Reads a `ReportError`. DAP-18 §9.2.6.
pub(super) fn read_report_error(r: &mut Reader<'_>) -> Result<ReportError, DecodeError> {
    DapVersion::V18
        .report_error_from_code(r.u8()?)
        .ok_or(DecodeError::Invalid("report_error is unknown"))
}

pub(super) fn write_report_error(error: ReportError, w: &mut Writer) {
    match DapVersion::V18.report_error_code(error) {
        Some(code) => w.u8(code),
        None => w.fail(),
    };
}

/// What an [`HpkeCiphertext`] of a report contains. Secret: `Debug` prints no contents. DAP-18 §4.4.2.1.
#[derive(Clone, PartialEq, Eq)]
pub struct PlaintextInputShare<'a> {
    /// Report extensions for this aggregator's eyes, in the order sent, unknown and repeated ones included; 65,535 bytes
    /// in all.
    pub private_extensions: Vec<Extension<'a>>,
    /// The VDAF's input share, undecoded, `1..=2^32-1` bytes.
    pub payload: &'a [u8],
}

whole!(PlaintextInputShare<'a>);

impl<'a> PlaintextInputShare<'a> {
    fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let private_extensions = Extension::read_list(r)?;
        let payload = not_empty(r.opaque32()?, "payload of an input share is empty")?;
        Ok(Self { private_extensions, payload })
    }

    fn write(&self, w: &mut Writer) {
        Extension::write_list(&self.private_extensions, w);
        write_not_empty(self.payload, w);
    }
}

impl fmt::Debug for PlaintextInputShare<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PlaintextInputShare")
    }
}

impl<'a> From<PlaintextInputShare<'a>> for message::PlaintextInputShare<'a> {
    fn from(p: PlaintextInputShare<'a>) -> Self {
        let extensions = p.private_extensions.iter().map(|e| (e.extension_type, e.extension_data));
        Self { extensions: extensions.collect(), payload: p.payload }
    }
}

impl<'a> From<message::PlaintextInputShare<'a>> for PlaintextInputShare<'a> {
    fn from(p: message::PlaintextInputShare<'a>) -> Self {
        let extension = |&(extension_type, extension_data): &(u16, &'a [u8])| Extension {
            extension_type,
            extension_data,
        };
        Self {
            private_extensions: p.extensions.iter().map(extension).collect(),
            payload: p.payload,
        }
    }
}
