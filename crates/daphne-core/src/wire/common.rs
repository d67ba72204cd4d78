//! What both drafts encode alike. Identifiers are written as their bytes: [`crate::ids`].

use crate::{
    codec::{DecodeError, EncodeError, Reader, Writer, items},
    ids::{HpkeConfigId, TaskId},
    message::HpkeCiphertext,
};

whole!(HpkeCiphertext<'a>);

impl<'a> HpkeCiphertext<'a> {
    /// Reads `config_id` u8, `enc` opaque16, `payload` opaque32. DAP-09 §4, DAP-18 §4.1.
    ///
    // SPEC: DAP-09 §4 and DAP-18 §4.1 give `enc` and `payload` a minimum length of 1. A client could break that and, were it
    // checked here, fail every other report in the job; empty ones fail to open instead.
    pub(crate) fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self { config_id: HpkeConfigId(r.u8()?), enc: r.opaque16()?, payload: r.opaque32()? })
    }

    pub(crate) fn write(&self, w: &mut Writer) {
        w.u8(self.config_id.0).opaque16(self.enc).opaque32(self.payload);
    }
}

/// An extension of a report, a task, an aggregation job or a collection job, each of which has a registry of its own.
/// Its type is not checked here. DAP-09 §4.4.3, DAP-18 §4.2.2, §4.4.3, §4.5.1, §4.6.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extension<'a> {
    /// The code point.
    pub extension_type: u16,
    /// Its data, `0..=65,535` bytes.
    pub extension_data: &'a [u8],
}

whole!(Extension<'a>);

impl<'a> Extension<'a> {
    fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self { extension_type: r.u16()?, extension_data: r.opaque16()? })
    }

    fn write(&self, w: &mut Writer) {
        w.u16(self.extension_type).opaque16(self.extension_data);
    }

    /// Reads a list of extensions with a 16-bit byte count.
    pub(crate) fn read_list(r: &mut Reader<'a>) -> Result<Vec<Self>, DecodeError> {
        items(r.opaque16()?, Self::read)
    }

    pub(crate) fn write_list(list: &[Self], w: &mut Writer) {
        w.list16(|w| list.iter().for_each(|e| e.write(w)));
    }
}

/// The extensions in an encoded list, without its length: type and data.
///
/// # Errors
/// The fault of whoever wrote it: it ends in the middle of one.
pub fn extensions(list: &[u8]) -> Result<Vec<(u16, &[u8])>, DecodeError> {
    items(list, |r| Extension::read(r).map(|e| (e.extension_type, e.extension_data)))
}

/// The helper's aggregate share: `AggregateShare` of DAP-09 §4.6.2 and DAP-18 §4.6.4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AggregateShare<'a> {
    /// Sealed to the collector.
    pub encrypted_aggregate_share: HpkeCiphertext<'a>,
}

whole!(AggregateShare<'a>);

impl<'a> AggregateShare<'a> {
    fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self { encrypted_aggregate_share: HpkeCiphertext::read(r)? })
    }

    fn write(&self, w: &mut Writer) {
        self.encrypted_aggregate_share.write(w);
    }
}

/// The associated data of an input share: an encoded `InputShareAad`. DAP-09 §4.4.2, DAP-18 §4.4.2.1.
///
/// `configuration` is the task's, word for word; empty for DAP-09, which has none. `metadata_encoded` is the bytes received
/// ([`crate::message::ReportMetadata::encoded`]), never a re-encoding.
///
/// # Errors
/// The public share is 4 GiB or longer.
pub fn input_share_aad(
    task_id: &TaskId,
    configuration: &[u8],
    metadata_encoded: &[u8],
    public_share: &[u8],
) -> Result<Vec<u8>, EncodeError> {
    let mut w = Writer::new();
    w.raw(task_id.as_bytes()).raw(configuration).raw(metadata_encoded).opaque32(public_share);
    w.finish()
}

/// The associated data of an aggregate share: an encoded `AggregateShareAad`. DAP-09 §4.6.4, DAP-18 §4.6.7.
///
/// `configuration` as for [`input_share_aad`]; `binding` is [`crate::message::AggregateShareRequest::share_binding`].
pub fn aggregate_share_aad(task_id: &TaskId, configuration: &[u8], binding: &[u8]) -> Vec<u8> {
    [task_id.as_bytes(), configuration, binding].concat()
}
