//! What both drafts encode alike. Identifiers are written as their bytes: [`crate::ids`].

use crate::{
    codec::{DecodeError, Reader, Writer},
    ids::HpkeConfigId,
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
