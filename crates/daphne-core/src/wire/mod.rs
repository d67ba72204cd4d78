//! Bytes to messages and back, one module per draft.
//!
//! [`v09`] holds the structs of DAP-09 one-to-one, [`common`] what both drafts encode alike. They convert to the
//! neutral [`crate::message`]s, and nothing behind them asks for a version.
//!
//! Whatever one client can influence decodes here with any content, so that it can fail one report and never a
//! whole job: only the length prefixes around it, which the leader writes, can fail a body.

/// Gives a struct that has `read` and `write` its `decode`, of a whole input, and its `encode`.
macro_rules! whole {
    ($name:ident $(<$l:lifetime>)?) => {
        impl $(<$l>)? $name $(<$l>)? {
            #[doc = concat!("Decodes a `", stringify!($name), "` which is all of `bytes`.")]
            ///
            /// # Errors
            /// The sender's fault: the bytes are cut, trailing, or hold a value that a field does not allow.
            pub fn decode(bytes: whole!(@input $($l)?)) -> Result<Self, $crate::codec::DecodeError> {
                $crate::codec::Reader::all(bytes, Self::read)
            }

            /// The encoding.
            ///
            /// # Errors
            /// Our own fault: the value has no encoding, such as a field longer than its prefix can say.
            pub fn encode(&self) -> Result<Vec<u8>, $crate::codec::EncodeError> {
                let mut w = $crate::codec::Writer::new();
                self.write(&mut w);
                w.finish()
            }
        }
    };
    (@input $l:lifetime) => { &$l [u8] };
    (@input) => { &[u8] };
}

pub mod common;
pub mod v09;
