//! What each line of `prio` asks of a field, for [`Field128`].

use std::{io::Cursor, sync::LazyLock};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use super::field128::{ENCODED_LEN, Field128, Line08, Line18, MODULUS};

/// The order of the subgroup that polynomials are evaluated on.
const ROOTS: u128 = 1 << 66;

/// The roots of unity of order `2^l`, by `l`, as `prio` has them.
static ROOTS_OF_UNITY: LazyLock<Vec<u128>> = LazyLock::new(|| {
    use prio18::field::{Field128 as Theirs, NttFriendlyFieldElement as _};
    (0..=20).filter_map(Theirs::root).map(u128::from).collect()
});

macro_rules! field_of {
    ($prio:ident, $line:ident, $friendly:ident) => {
        const _: () = {
            use $prio::{
                codec::{CodecError, Decode, Encode},
                field::{FieldElement, FieldElementWithInteger, FieldError, $friendly},
            };

            type Element = Field128<$line>;

            fn read(bytes: &[u8]) -> Result<Element, FieldError> {
                let bytes = bytes.first_chunk().ok_or(FieldError::ShortRead)?;
                let integer = u128::from_le_bytes(*bytes);
                if integer < MODULUS {
                    Ok(Element::reduced(integer))
                } else {
                    Err(FieldError::ModulusOverflow)
                }
            }

            impl TryFrom<&[u8]> for Element {
                type Error = FieldError;

                fn try_from(bytes: &[u8]) -> Result<Self, FieldError> {
                    read(bytes)
                }
            }

            impl Encode for Element {
                fn encode(&self, bytes: &mut Vec<u8>) -> Result<(), CodecError> {
                    bytes.extend_from_slice(&self.integer().to_le_bytes());
                    Ok(())
                }

                fn encoded_len(&self) -> Option<usize> {
                    Some(ENCODED_LEN)
                }
            }

            impl Decode for Element {
                fn decode(bytes: &mut Cursor<&[u8]>) -> Result<Self, CodecError> {
                    let mut element = [0; ENCODED_LEN];
                    std::io::Read::read_exact(bytes, &mut element)?;
                    read(&element).map_err(|_| CodecError::UnexpectedValue)
                }
            }

            impl Serialize for Element {
                fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                    s.serialize_bytes(&self.integer().to_le_bytes())
                }
            }

            impl<'de> Deserialize<'de> for Element {
                fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                    read(&<Vec<u8>>::deserialize(d)?).map_err(D::Error::custom)
                }
            }

            impl FieldElement for Element {
                const ENCODED_SIZE: usize = ENCODED_LEN;

                fn inv(&self) -> Self {
                    self.power(MODULUS - 2)
                }

                fn half() -> Self {
                    Self::reduced(MODULUS.div_ceil(2))
                }

                fn try_from_random(bytes: &[u8]) -> Result<Self, FieldError> {
                    read(bytes)
                }

                fn zero() -> Self {
                    Self::reduced(0)
                }

                fn one() -> Self {
                    Self::reduced(1)
                }
            }

            impl FieldElementWithInteger for Element {
                type Integer = u128;

                fn pow(&self, exponent: u128) -> Self {
                    self.power(exponent)
                }

                fn modulus() -> u128 {
                    MODULUS
                }
            }

            impl $friendly for Element {
                fn generator_order() -> u128 {
                    ROOTS
                }

                fn generator() -> Self {
                    use prio18::field::{Field128 as Theirs, NttFriendlyFieldElement};
                    Self::reduced(<Theirs as NttFriendlyFieldElement>::generator().into())
                }

                fn root(l: usize) -> Option<Self> {
                    ROOTS_OF_UNITY.get(l).copied().map(Self::reduced)
                }
            }
        };
    };
}

field_of!(prio08, Line08, FftFriendlyFieldElement);
field_of!(prio18, Line18, NttFriendlyFieldElement);
