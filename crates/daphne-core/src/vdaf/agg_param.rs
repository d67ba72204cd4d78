//! Aggregation parameters: what a collector chooses about the sum of reports that are already there. Prio3 has none to
//! choose, Poplar1's are the prefixes to count.

use std::fmt;

use prio08::{
    codec::{Decode as _, Encode as _},
    vdaf::poplar1 as poplar1_08,
};
use prio18::{
    codec::{Decode as _, Encode as _},
    vdaf::poplar1 as poplar1_18,
};

use super::{BitString, FieldKind, Vdaf, VdafConfig};
use crate::{
    codec::{DecodeError, Reader},
    version::VdafDraft,
};

/// Most prefixes in a parameter of Poplar1. A job computes, sends and keeps something for each of them and each report.
pub const PREFIXES_MAX: usize = 4096;

/// Longest encoding of a parameter, in bytes: so many prefixes of 256 bits. It is kept with everything that is
/// aggregated for it.
pub const AGG_PARAM_BYTES_MAX: usize = 6 + PREFIXES_MAX * 32;

/// What reports are aggregated for: nothing but their sum for Prio3, the prefixes to be counted for Poplar1.
/// Made by [`Vdaf::decode_agg_param`] and [`Vdaf::prefixes`], and of use to that VDAF alone.
#[derive(Clone, PartialEq, Eq)]
pub struct AggregationParam {
    /// `prio` panics on some parameters of another VDAF, so a parameter knows its own.
    pub(super) config: VdafConfig,
    pub(super) kind: Kind,
}

#[derive(Clone, PartialEq, Eq)]
pub(super) enum Kind {
    Prio3,
    Poplar1V08(poplar1_08::Poplar1AggregationParam),
    Poplar1V18(poplar1_18::Poplar1AggregationParam),
}

/// Prefixes are no parameter: the fault of whoever chose them, the collector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PrefixesError(String);

impl AggregationParam {
    /// The bytes that [`Vdaf::decode_agg_param`] reads: none for Prio3. VDAF-08 §8.2.6, VDAF-18 §8.2.6.6.
    pub fn encode(&self) -> Vec<u8> {
        match &self.kind {
            Kind::Prio3 => Vec::new(),
            // Unwrap safety: bits are written into a vector, and prefixes are few.
            Kind::Poplar1V08(param) => param.get_encoded().unwrap(),
            Kind::Poplar1V18(param) => param.get_encoded().unwrap(),
        }
    }

    /// The level of the tree of prefixes: one less than their length. None for Prio3.
    pub fn level(&self) -> Option<u16> {
        let level = match &self.kind {
            Kind::Prio3 => return None,
            Kind::Poplar1V08(param) => param.level(),
            Kind::Poplar1V18(param) => param.level(),
        };
        u16::try_from(level).ok()
    }

    /// Number of prefixes, at least 1. 0 for Prio3.
    pub fn prefix_count(&self) -> usize {
        match &self.kind {
            Kind::Prio3 => 0,
            Kind::Poplar1V08(param) => param.prefixes().len(),
            Kind::Poplar1V18(param) => param.prefixes().len(),
        }
    }

    /// The prefixes, in their order. None for Prio3.
    pub fn prefixes(&self) -> Vec<BitString> {
        match &self.kind {
            Kind::Prio3 => Vec::new(),
            Kind::Poplar1V08(param) => {
                param.prefixes().iter().map(|p| p.iter().collect()).collect()
            }
            Kind::Poplar1V18(param) => {
                param.prefixes().iter().map(|p| p.iter().collect()).collect()
            }
        }
    }

    /// Whether it is about whole measurements.
    pub(super) fn is_leaf(&self) -> bool {
        match self.config {
            VdafConfig::Poplar1 { bits } => self.level() == bits.checked_sub(1),
            _ => false,
        }
    }
}

/// Prefixes are no secret, and too many to print.
impl fmt::Debug for AggregationParam {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AggregationParam")
            .field("level", &self.level())
            .field("prefix_count", &self.prefix_count())
            .finish()
    }
}

impl Vdaf {
    /// Reads an aggregation parameter: no bytes for Prio3, a level and prefixes for Poplar1.
    /// VDAF-08 §8.2.6, VDAF-18 §8.2.6.6.
    ///
    /// # Errors
    /// [`DecodeError`] if the bytes are malformed, if the prefixes are not in order, repeat or are none, if the level is
    /// not one of the tree, or if there are more than [`PREFIXES_MAX`] or [`AGG_PARAM_BYTES_MAX`]: the fault of the
    /// collector or leader.
    pub fn decode_agg_param(&self, bytes: &[u8]) -> Result<AggregationParam, DecodeError> {
        let config = self.config;
        let VdafConfig::Poplar1 { bits } = config else {
            return if bytes.is_empty() {
                Ok(AggregationParam { config, kind: Kind::Prio3 })
            } else {
                Err(DecodeError::Invalid("the aggregation parameter of Prio3 must be empty"))
            };
        };
        if bytes.len() > AGG_PARAM_BYTES_MAX {
            return Err(DecodeError::Invalid("the aggregation parameter is too long"));
        }
        // What `prio` reads must not be more than what it was given: it believes the count before it reads on, and a
        // level of 65,535 overflows its arithmetic.
        let mut r = Reader::new(bytes);
        let (level, count) = (r.u16()?, r.u32()?);
        if level >= bits {
            return Err(DecodeError::Invalid("the level is not below the number of bits"));
        }
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        if !(1..=PREFIXES_MAX).contains(&count) {
            return Err(DecodeError::Invalid("there must be between 1 and 4096 prefixes"));
        }
        let prefix_len = usize::from(level) + 1;
        let len = match self.draft() {
            VdafDraft::V08 => (prefix_len * count).div_ceil(8),
            VdafDraft::V18 => prefix_len.div_ceil(8) * count,
        };
        r.take(len)?;
        r.finish()?;
        let invalid = DecodeError::Invalid(
            "the prefixes are not in order, or have bits set beyond their length",
        );
        let kind = match self.draft() {
            VdafDraft::V08 => Kind::Poplar1V08(
                poplar1_08::Poplar1AggregationParam::get_decoded(bytes).map_err(|_| invalid)?,
            ),
            VdafDraft::V18 => Kind::Poplar1V18(
                poplar1_18::Poplar1AggregationParam::get_decoded(bytes).map_err(|_| invalid)?,
            ),
        };
        Ok(AggregationParam { config, kind })
    }

    /// Makes an aggregation parameter of Poplar1; for collectors.
    ///
    /// # Errors
    /// [`PrefixesError`] unless there are between 1 and [`PREFIXES_MAX`] prefixes of one length, which is between 1 and
    /// the measurements', in order and distinct; if their encoding is longer than [`AGG_PARAM_BYTES_MAX`]; or for Prio3.
    pub fn prefixes(&self, prefixes: &[BitString]) -> Result<AggregationParam, PrefixesError> {
        let refuse = |text: &str| Err(PrefixesError(text.to_owned()));
        let VdafConfig::Poplar1 { bits } = self.config else {
            return refuse("only Poplar1 has prefixes");
        };
        if !(1..=PREFIXES_MAX).contains(&prefixes.len()) {
            return Err(PrefixesError(format!(
                "there must be between 1 and {PREFIXES_MAX} prefixes, not {}",
                prefixes.len()
            )));
        }
        if !(1..=usize::from(bits)).contains(&prefixes[0].len()) {
            return Err(PrefixesError(format!("a prefix must have between 1 and {bits} bits")));
        }
        if prefixes.iter().any(|prefix| prefix.len() != prefixes[0].len()) {
            return refuse("the prefixes must have one length");
        }
        if !prefixes.is_sorted_by(|a, b| a < b) {
            return refuse("the prefixes must be in order, and distinct");
        }
        let refused = |e: &dyn fmt::Display| PrefixesError(e.to_string());
        let bools = prefixes.iter().map(|prefix| prefix.iter().collect::<Vec<bool>>());
        let kind = match self.draft() {
            VdafDraft::V08 => Kind::Poplar1V08(
                poplar1_08::Poplar1AggregationParam::try_from_prefixes(
                    bools.map(|p| prio08::idpf::IdpfInput::from_bools(&p)).collect(),
                )
                .map_err(|e| refused(&e))?,
            ),
            VdafDraft::V18 => Kind::Poplar1V18(
                poplar1_18::Poplar1AggregationParam::try_from_prefixes(
                    bools.map(|p| prio18::idpf::IdpfInput::from_bools(&p)).collect(),
                )
                .map_err(|e| refused(&e))?,
            ),
        };
        let param = AggregationParam { config: self.config, kind };
        if param.encode().len() > AGG_PARAM_BYTES_MAX {
            return Err(PrefixesError(format!(
                "the aggregation parameter would be longer than {AGG_PARAM_BYTES_MAX} bytes"
            )));
        }
        Ok(param)
    }

    /// Whether reports may be aggregated for `agg_param`, after they were for all of `previous`.
    ///
    /// VDAF-18 §8.2.5 also wants the prefixes to extend those of the last level.
    // SPEC: VDAF-08 §8.2.5 only asks for another level. Later drafts ask for a deeper one, because of what an attacker
    // learns otherwise, and who looks for heavy hitters does nothing else.
    pub fn is_valid_agg_param(
        &self,
        agg_param: &AggregationParam,
        previous: &[AggregationParam],
    ) -> bool {
        if !self.owns(agg_param) || !previous.iter().all(|p| self.owns(p)) {
            return false;
        }
        // The deepest, whatever the order in which they were found.
        let last = previous.iter().max_by_key(|p| p.level());
        match (&agg_param.kind, last.map(|p| &p.kind)) {
            (_, None) => true,
            (Kind::Poplar1V08(_), Some(Kind::Poplar1V08(_))) => {
                agg_param.level() > last.and_then(AggregationParam::level)
            }
            (Kind::Poplar1V18(param), Some(Kind::Poplar1V18(last))) => {
                use prio18::vdaf::{Aggregator as _, poplar1::Poplar1, xof::XofTurboShake128};
                Poplar1::<XofTurboShake128, 32>::is_agg_param_valid(
                    param,
                    std::slice::from_ref(last),
                )
            }
            _ => false,
        }
    }

    /// Bytes of an encoded aggregate share for a parameter. 0 for a parameter of another VDAF.
    pub fn agg_share_len(&self, agg_param: &AggregationParam) -> usize {
        if !self.owns(agg_param) {
            return 0;
        }
        match self.config {
            VdafConfig::Poplar1 { .. } => {
                let field = if agg_param.is_leaf() { FieldKind::F255 } else { FieldKind::F64 };
                agg_param.prefix_count() * field.element_len()
            }
            _ => self.output_len() * self.field().element_len(),
        }
    }

    /// Bytes of the longest aggregate share that any parameter of this VDAF has.
    pub fn agg_share_len_max(&self) -> usize {
        match self.config {
            VdafConfig::Poplar1 { bits } => {
                // Of a tree of few bits, the leaves are few as well.
                let leaves = 1_usize.checked_shl(bits.into()).unwrap_or(PREFIXES_MAX);
                leaves.min(PREFIXES_MAX) * FieldKind::F255.element_len()
            }
            _ => self.output_len() * self.field().element_len(),
        }
    }

    /// Whether a parameter is one of this VDAF's.
    pub(super) fn owns(&self, agg_param: &AggregationParam) -> bool {
        agg_param.config == self.config
            && match agg_param.kind {
                Kind::Prio3 => true,
                Kind::Poplar1V08(_) => self.draft() == VdafDraft::V08,
                Kind::Poplar1V18(_) => self.draft() == VdafDraft::V18,
            }
    }
}

#[cfg(test)]
mod tests;
