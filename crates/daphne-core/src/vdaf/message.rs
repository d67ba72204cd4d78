//! The ping-pong messages that a one-round VDAF exchanges: a type byte and one `opaque32`.
//! VDAF-08 §5.8, VDAF-18 §5.7.1.

use super::VerifyError;
use crate::codec::{DecodeError, Reader, Writer};

const INITIALIZE: u8 = 0;
const FINISH: u8 = 2;

/// The leader's message around its verifier share.
#[doc(alias = "prep_share")]
pub(super) fn initialize(verifier_share: &[u8]) -> Result<Vec<u8>, VerifyError> {
    write(INITIALIZE, verifier_share)
}

/// The helper's message around the verifier message.
#[doc(alias = "prep_msg")]
pub(super) fn finish(verifier_message: &[u8]) -> Result<Vec<u8>, VerifyError> {
    write(FINISH, verifier_message)
}

/// The verifier share in the leader's message.
pub(super) fn read_initialize(message: &[u8]) -> Result<&[u8], VerifyError> {
    read(INITIALIZE, message)
}

/// The verifier message in the helper's message.
pub(super) fn read_finish(message: &[u8]) -> Result<&[u8], VerifyError> {
    read(FINISH, message)
}

fn write(kind: u8, body: &[u8]) -> Result<Vec<u8>, VerifyError> {
    let mut w = Writer::new();
    w.u8(kind).opaque32(body);
    // No share of an accepted configuration comes near 4 GiB.
    w.finish().map_err(|_| VerifyError::Refused)
}

fn read(expected: u8, message: &[u8]) -> Result<&[u8], VerifyError> {
    Reader::all(message, |r| match r.u8()? {
        kind if kind == expected => r.opaque32(),
        _ => Err(DecodeError::Invalid("the ping-pong message has the wrong type")),
    })
    .map_err(|_| VerifyError::Refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_expected_message_is_read() {
        let message = initialize(b"ab").unwrap();
        assert_eq!(message, [0, 0, 0, 0, 2, b'a', b'b']);
        assert_eq!(read_initialize(&message), Ok(&b"ab"[..]));
        assert_eq!(read_finish(&message), Err(VerifyError::Refused));
        assert_eq!(finish(b"").unwrap(), [2, 0, 0, 0, 0]);
        for n in 0..message.len() {
            assert_eq!(read_initialize(&message[..n]), Err(VerifyError::Refused), "{n}");
        }
        assert_eq!(read_initialize(&[&message[..], b"c"].concat()), Err(VerifyError::Refused));
        assert_eq!(read_initialize(&[0, 0xff, 0xff, 0xff, 0xff]), Err(VerifyError::Refused));
    }
}
