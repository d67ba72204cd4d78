//! The ping-pong messages of leader and helper: a type byte, and one or two `opaque32`.
//! VDAF-08 §5.8, VDAF-18 §5.7.1.

use super::VerifyError;
use crate::codec::{DecodeError, Reader, Writer};

const INITIALIZE: u8 = 0;
const CONTINUE: u8 = 1;
const FINISH: u8 = 2;

/// A ping-pong message, its parts encoded.
#[derive(Clone, Copy, PartialEq, Eq)]
#[cfg_attr(test, derive(Debug))]
pub(super) enum Message<'a> {
    /// The leader's first: its verifier share.
    #[doc(alias = "prep_share")]
    Initialize(&'a [u8]),
    /// The verifier message of a round, and the sender's verifier share of the next one.
    Continue { message: &'a [u8], share: &'a [u8] },
    /// The verifier message of the last round.
    #[doc(alias = "prep_msg")]
    Finish(&'a [u8]),
}

impl<'a> Message<'a> {
    /// The bytes to send.
    pub(super) fn encode(self) -> Result<Vec<u8>, VerifyError> {
        let mut w = Writer::new();
        match self {
            Self::Initialize(share) => w.u8(INITIALIZE).opaque32(share),
            Self::Continue { message, share } => w.u8(CONTINUE).opaque32(message).opaque32(share),
            Self::Finish(message) => w.u8(FINISH).opaque32(message),
        };
        // No share of an accepted configuration comes near 4 GiB.
        w.finish().map_err(|_| VerifyError::Refused)
    }

    /// Reads what the peer sent.
    pub(super) fn decode(bytes: &'a [u8]) -> Result<Self, VerifyError> {
        Reader::all(bytes, |r| {
            Ok(match r.u8()? {
                INITIALIZE => Self::Initialize(r.opaque32()?),
                CONTINUE => Self::Continue { message: r.opaque32()?, share: r.opaque32()? },
                FINISH => Self::Finish(r.opaque32()?),
                _ => return Err(DecodeError::Invalid("there is no such ping-pong message")),
            })
        })
        .map_err(|_| VerifyError::Refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read_as_they_were_written() {
        for (message, bytes) in [
            (Message::Initialize(b"ab"), &[0, 0, 0, 0, 2, b'a', b'b'][..]),
            (
                Message::Continue { message: b"a", share: b"bc" },
                &[1, 0, 0, 0, 1, b'a', 0, 0, 0, 2, b'b', b'c'],
            ),
            (Message::Finish(b""), &[2, 0, 0, 0, 0]),
        ] {
            assert_eq!(message.encode().unwrap(), bytes);
            assert_eq!(Message::decode(bytes), Ok(message));
            for n in 0..bytes.len() {
                assert_eq!(Message::decode(&bytes[..n]), Err(VerifyError::Refused), "{n}");
            }
            let trailing = [bytes, b"c"].concat();
            assert_eq!(Message::decode(&trailing), Err(VerifyError::Refused));
        }
        for bad in [[3, 0, 0, 0, 0], [0, 0xff, 0xff, 0xff, 0xff]] {
            assert_eq!(Message::decode(&bad), Err(VerifyError::Refused));
        }
    }
}
