//! Bounds-checked reading and writing of the TLS presentation language that DAP messages use.
//!
//! Every length is compared with what remains *before* anything is sliced or allocated, so no input can
//! make the decoder read past its end, panic, or allocate beyond the input's own length.
//! Notation in the docs of this crate: `opaqueN` is an N-bit byte count followed by that many bytes.

/// Why bytes are not the message they claim to be. Always the sender's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The input ends inside a field, or a length prefix points past the end.
    #[error("the message ends too early")]
    Truncated,
    /// Bytes are left over after the last field.
    #[error("the message has trailing bytes")]
    Trailing,
    /// A field holds a value that its type does not allow; the text names the field.
    #[error("{0}")]
    Invalid(&'static str),
}

/// A message cannot be written: a field is longer than its length prefix can say, a list lacks the items it must
/// have, or the draft has no code point for a value. Our own fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a field cannot be encoded")]
pub struct EncodeError;

/// A cursor over borrowed bytes.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads from the start of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Decodes all of `bytes` with `f`; trailing bytes are an error.
    ///
    /// # Errors
    /// What `f` returns, or [`DecodeError::Trailing`].
    pub fn all<T>(
        bytes: &'a [u8],
        f: impl FnOnce(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<T, DecodeError> {
        let mut reader = Self::new(bytes);
        let value = f(&mut reader)?;
        reader.finish()?;
        Ok(value)
    }

    /// The bytes not read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Whether everything was read.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// [`DecodeError::Trailing`] if bytes are left.
    pub fn finish(self) -> Result<(), DecodeError> {
        if self.rest.is_empty() { Ok(()) } else { Err(DecodeError::Trailing) }
    }

    /// The next `n` bytes.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] if fewer remain.
    pub fn take(&mut self, n: usize) -> Result<&'a [u8], DecodeError> {
        let (head, tail) = self.rest.split_at_checked(n).ok_or(DecodeError::Truncated)?;
        self.rest = tail;
        Ok(head)
    }

    /// The next `N` bytes as an array.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] if fewer remain.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (head, tail) = self.rest.split_first_chunk::<N>().ok_or(DecodeError::Truncated)?;
        self.rest = tail;
        Ok(*head)
    }

    /// One byte.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(self.array::<1>()?[0])
    }

    /// A big-endian 16-bit number.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub fn u16(&mut self) -> Result<u16, DecodeError> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    /// A big-endian 32-bit number.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    /// A big-endian 64-bit number.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    /// `opaque8`: an 8-bit byte count and that many bytes.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub fn opaque8(&mut self) -> Result<&'a [u8], DecodeError> {
        let n = self.u8()?;
        self.take(usize::from(n))
    }

    /// `opaque16`: a 16-bit byte count and that many bytes.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub fn opaque16(&mut self) -> Result<&'a [u8], DecodeError> {
        let n = self.u16()?;
        self.take(usize::from(n))
    }

    /// `opaque32`: a 32-bit byte count and that many bytes.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub fn opaque32(&mut self) -> Result<&'a [u8], DecodeError> {
        let n = self.u32()?;
        self.take(usize::try_from(n).map_err(|_| DecodeError::Truncated)?)
    }
}

/// Reads the items of `list` back to back until it ends.
///
/// Capacity grows with what was decoded, never with what a prefix claims.
///
/// # Errors
/// The first error of `item`.
pub fn items<'a, T>(
    list: &'a [u8],
    mut item: impl FnMut(&mut Reader<'a>) -> Result<T, DecodeError>,
) -> Result<Vec<T>, DecodeError> {
    let mut reader = Reader::new(list);
    let mut out = Vec::new();
    while !reader.is_empty() {
        out.push(item(&mut reader)?);
    }
    Ok(out)
}

/// Collects the bytes of a message. Errors are kept until [`Writer::finish`], so that encoders read like the
/// struct they write.
#[derive(Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
    too_long: bool,
}

impl Writer {
    /// An empty message.
    pub fn new() -> Self {
        Self::default()
    }

    /// The message.
    ///
    /// # Errors
    /// [`EncodeError`] if any field could not be written.
    pub fn finish(self) -> Result<Vec<u8>, EncodeError> {
        if self.too_long { Err(EncodeError) } else { Ok(self.bytes) }
    }

    /// Appends bytes as they are.
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// Appends one byte.
    pub fn u8(&mut self, v: u8) -> &mut Self {
        self.raw(&[v])
    }

    /// Appends a big-endian 16-bit number.
    pub fn u16(&mut self, v: u16) -> &mut Self {
        self.raw(&v.to_be_bytes())
    }

    /// Appends a big-endian 32-bit number.
    pub fn u32(&mut self, v: u32) -> &mut Self {
        self.raw(&v.to_be_bytes())
    }

    /// Appends a big-endian 64-bit number.
    pub fn u64(&mut self, v: u64) -> &mut Self {
        self.raw(&v.to_be_bytes())
    }

    /// Appends `opaque8`.
    pub fn opaque8(&mut self, bytes: &[u8]) -> &mut Self {
        match u8::try_from(bytes.len()) {
            Ok(n) => self.u8(n).raw(bytes),
            Err(_) => self.fail(),
        }
    }

    /// Appends `opaque16`.
    pub fn opaque16(&mut self, bytes: &[u8]) -> &mut Self {
        match u16::try_from(bytes.len()) {
            Ok(n) => self.u16(n).raw(bytes),
            Err(_) => self.fail(),
        }
    }

    /// Appends `opaque32`.
    pub fn opaque32(&mut self, bytes: &[u8]) -> &mut Self {
        match u32::try_from(bytes.len()) {
            Ok(n) => self.u32(n).raw(bytes),
            Err(_) => self.fail(),
        }
    }

    /// Appends a list with a 16-bit byte count; `f` writes the items.
    pub fn list16(&mut self, f: impl FnOnce(&mut Writer)) -> &mut Self {
        let mut inner = Writer::new();
        f(&mut inner);
        self.too_long |= inner.too_long;
        self.opaque16(&inner.bytes)
    }

    /// Appends a list with a 32-bit byte count; `f` writes the items.
    pub fn list32(&mut self, f: impl FnOnce(&mut Writer)) -> &mut Self {
        let mut inner = Writer::new();
        f(&mut inner);
        self.too_long |= inner.too_long;
        self.opaque32(&inner.bytes)
    }

    /// Marks the message as one that cannot be written: [`Writer::finish`] will fail.
    pub(crate) fn fail(&mut self) -> &mut Self {
        self.too_long = true;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_checked_before_slicing() {
        assert_eq!(Reader::new(&[0xff, 0xff]).opaque16(), Err(DecodeError::Truncated));
        assert_eq!(Reader::new(&[0xff; 4]).opaque32(), Err(DecodeError::Truncated));
        assert_eq!(Reader::new(&[0, 1]).opaque16(), Err(DecodeError::Truncated));
        assert_eq!(Reader::new(&[0, 1, 7]).opaque16(), Ok(&[7u8][..]));
        assert_eq!(Reader::all(&[1, 2], |r| r.u8()), Err(DecodeError::Trailing));
        assert_eq!(Reader::new(&[1; 7]).u64(), Err(DecodeError::Truncated));
    }

    #[test]
    fn a_field_too_long_for_its_prefix_is_an_error_not_a_short_message() {
        let mut w = Writer::new();
        w.opaque16(&vec![0; 65_536]).u8(1);
        assert_eq!(w.finish(), Err(EncodeError));
        let mut w = Writer::new();
        w.list16(|w| {
            w.opaque16(&vec![0; 65_536]);
        });
        assert_eq!(w.finish(), Err(EncodeError));
    }
}
