//! Strings of bits, which Poplar1 measures and counts by their prefixes.

use std::{fmt, str::FromStr};

/// A string of bits, ordered as a dictionary orders words. In text, `0` and `1`.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BitString {
    /// Eight bits each, the first one the most significant; what is left of the last byte is 0. Compared first: the
    /// order is right because a string sorts after its prefixes.
    bytes: Vec<u8>,
    /// Number of bits.
    len: usize,
}

/// A text has another character than `0` and `1`. The fault of whoever wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a string of bits is made of 0 and 1")]
pub struct BitStringError;

impl BitString {
    /// The bits of bytes, the most significant of each byte first.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self { bytes: bytes.to_vec(), len: 8 * bytes.len() }
    }

    /// Number of bits.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds a bit at the end.
    pub fn push(&mut self, bit: bool) {
        let (byte, shift) = (self.len / 8, 7 - self.len % 8);
        if byte == self.bytes.len() {
            self.bytes.push(0);
        }
        if let Some(byte) = self.bytes.get_mut(byte) {
            *byte |= u8::from(bit) << shift;
        }
        self.len += 1;
    }

    /// The bits, in order.
    pub fn iter(&self) -> impl Iterator<Item = bool> + '_ {
        let bit = |byte: u8| (0..8).rev().map(move |shift| byte >> shift & 1 == 1);
        self.bytes.iter().flat_map(move |byte| bit(*byte)).take(self.len)
    }

    /// How many bits both begin with.
    pub fn common_prefix_len(&self, other: &Self) -> usize {
        let len = self.len.min(other.len);
        let differ = self.bytes.iter().zip(&other.bytes).enumerate().find(|(_, (a, b))| a != b);
        differ.map_or(len, |(i, (a, b))| len.min(8 * i + (a ^ b).leading_zeros() as usize))
    }

    /// The first `len` bits, or all if there are fewer.
    #[must_use]
    pub fn prefix(&self, len: usize) -> Self {
        self.iter().take(len).collect()
    }
}

impl FromIterator<bool> for BitString {
    fn from_iter<T: IntoIterator<Item = bool>>(bits: T) -> Self {
        let mut string = Self::default();
        bits.into_iter().for_each(|bit| string.push(bit));
        string
    }
}

impl FromStr for BitString {
    type Err = BitStringError;

    fn from_str(text: &str) -> Result<Self, BitStringError> {
        text.bytes()
            .map(|c| match c {
                b'0' => Ok(false),
                b'1' => Ok(true),
                _ => Err(BitStringError),
            })
            .collect()
    }
}

impl fmt::Display for BitString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.iter().try_for_each(|bit| f.write_str(if bit { "1" } else { "0" }))
    }
}

impl fmt::Debug for BitString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bits_are_written_and_read() {
        let text = "1000000101";
        let bits: BitString = text.parse().unwrap();
        assert_eq!((bits.len(), bits.to_string()), (10, text.to_owned()));
        assert_eq!(bits.prefix(8), BitString::from_bytes(&[0x81]));
        assert_eq!((bits.prefix(99), bits.prefix(0)), (bits.clone(), BitString::default()));
        assert!("".parse::<BitString>().unwrap().is_empty());
        for bad in ["2", "0 ", "０", "01\n"] {
            assert_eq!(bad.parse::<BitString>(), Err(BitStringError), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn bits_are_ordered_as_a_dictionary_orders_words(a: Vec<bool>, b: Vec<bool>, n in 0..20usize) {
            let strings = [&a, &b].map(|bits| bits.iter().copied().collect::<BitString>());
            prop_assert_eq!(strings[0].cmp(&strings[1]), a.cmp(&b));
            prop_assert_eq!(strings[0] == strings[1], a == b);
            let common = a.iter().zip(&b).take_while(|(a, b)| a == b).count();
            prop_assert_eq!(strings[0].common_prefix_len(&strings[1]), common);
            prop_assert_eq!(Vec::from_iter(strings[0].prefix(n).iter()), &a[..n.min(a.len())]);
            prop_assert_eq!(strings[1].to_string().parse::<BitString>().unwrap(), strings[1].clone());
        }
    }
}
