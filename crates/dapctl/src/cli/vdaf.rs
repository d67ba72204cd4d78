//! The VDAF's options.

use daphne_core::vdaf::VdafConfig;

use super::{SpecArgs, VdafName};
use crate::Failure;

impl SpecArgs {
    /// The VDAF and its parameters.
    ///
    /// # Errors
    /// [`Failure::Usage`] if one is missing, or does not belong to the VDAF.
    pub fn vdaf_config(&self) -> Result<VdafConfig, Failure> {
        let name = self.vdaf.ok_or_else(|| Failure::Usage("--vdaf is needed".into()))?;
        let vector = matches!(name, VdafName::Sumvec | VdafName::SumvecField64Multiproof);
        let multihot = name == VdafName::MultihotCountvec;
        let takes_bits = vector || matches!(name, VdafName::Sum | VdafName::Poplar1);
        let takes_length = vector || multihot || name == VdafName::Histogram;
        let takes_proofs = name == VdafName::SumvecField64Multiproof;
        for (option, given, taken) in [
            ("--bits", self.bits.is_some(), takes_bits),
            ("--length", self.length.is_some(), takes_length),
            ("--max-weight", self.max_weight.is_some(), multihot),
            ("--chunk-length", self.chunk_length.is_some(), takes_length),
            ("--proofs", self.proofs.is_some(), takes_proofs),
        ] {
            if given && !taken {
                return Err(Failure::Usage(format!("{option} does not belong to this VDAF")));
            }
        }
        let missing = |option| Failure::Usage(format!("{option} is needed for this VDAF"));
        let given_bits = || self.bits.ok_or_else(|| missing("--bits"));
        let max_measurement = || -> Result<u64, Failure> {
            let bits = given_bits()?;
            u64::BITS
                .checked_sub(bits)
                .and_then(|unused| u64::MAX.checked_shr(unused))
                .ok_or_else(|| Failure::Usage("--bits must be between 1 and 64".into()))
        };
        let length = || self.length.ok_or_else(|| missing("--length"));
        // `more` are bits that a measurement has besides its elements.
        let chunk_length = |bits: u32, more: u32| -> Result<u32, Failure> {
            let measurement = u64::from(length()?) * u64::from(bits) + u64::from(more);
            Ok(self.chunk_length.unwrap_or_else(|| best_chunk_length(measurement)))
        };
        let bits = self.bits.unwrap_or(1);
        Ok(match name {
            VdafName::Count => VdafConfig::Prio3Count,
            VdafName::Sum => VdafConfig::Prio3Sum { max_measurement: max_measurement()? },
            VdafName::Sumvec => VdafConfig::Prio3SumVec {
                length: length()?,
                max_measurement: max_measurement()?,
                chunk_length: chunk_length(bits, 0)?,
            },
            VdafName::Histogram => {
                VdafConfig::Prio3Histogram { length: length()?, chunk_length: chunk_length(1, 0)? }
            }
            VdafName::MultihotCountvec => {
                let max_weight = self.max_weight.ok_or_else(|| missing("--max-weight"))?;
                VdafConfig::Prio3MultihotCountVec {
                    length: length()?,
                    max_weight,
                    chunk_length: chunk_length(1, u32::BITS - max_weight.leading_zeros())?,
                }
            }
            VdafName::SumvecField64Multiproof => {
                VdafConfig::Prio3SumVecField64MultiproofHmacSha256Aes128 {
                    length: length()?,
                    max_measurement: max_measurement()?,
                    chunk_length: chunk_length(bits, 0)?,
                    proofs: self.proofs.unwrap_or(2),
                }
            }
            VdafName::Poplar1 => {
                let bits = u16::try_from(given_bits()?).unwrap_or(u16::MAX);
                VdafConfig::Poplar1 { bits }
            }
        })
    }
}

/// The chunk length with the shortest proof for a measurement of so many field elements, about its square root.
fn best_chunk_length(measurement: u64) -> u32 {
    // A proof has two elements for each of a chunk, and two for each power of two at or above the number of chunks.
    (1..=(measurement + 1).ilog2())
        .rev()
        .map(|log2| {
            let chunks = (1_u64 << log2) - 1;
            let chunk_length = measurement.div_ceil(chunks);
            (2 * chunk_length + 2 * chunks, chunk_length)
        })
        .min_by_key(|(proof, _)| *proof)
        .map_or(1, |(_, chunk_length)| u32::try_from(chunk_length.max(1)).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Command, TaskCommand, parse_from};

    fn vdaf(options: &str) -> Result<VdafConfig, Failure> {
        let line = format!("dapctl task add {options}");
        match parse_from(line.split(' ').map(Into::into))?.command {
            Command::Task(TaskCommand::Add(args)) => args.spec.vdaf_config(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn vdafs_are_read() {
        assert_eq!(vdaf("--vdaf count"), Ok(VdafConfig::Prio3Count));
        assert_eq!(vdaf("--vdaf sum --bits 8"), Ok(VdafConfig::Prio3Sum { max_measurement: 255 }));
        assert_eq!(
            vdaf("--vdaf sum --bits 64"),
            Ok(VdafConfig::Prio3Sum { max_measurement: u64::MAX })
        );
        assert_eq!(
            vdaf("--vdaf histogram --length 10 --chunk-length 3"),
            Ok(VdafConfig::Prio3Histogram { length: 10, chunk_length: 3 })
        );
        assert_eq!(
            vdaf("--vdaf sumvec-field64-multiproof --bits 1 --length 3 --chunk-length 2"),
            Ok(VdafConfig::Prio3SumVecField64MultiproofHmacSha256Aes128 {
                length: 3,
                max_measurement: 1,
                chunk_length: 2,
                proofs: 2
            })
        );
        // 10 elements and 3 bits of a weight up to 4.
        assert_eq!(
            vdaf("--vdaf multihot-countvec --length 10 --max-weight 4"),
            Ok(VdafConfig::Prio3MultihotCountVec {
                length: 10,
                max_weight: 4,
                chunk_length: best_chunk_length(13)
            })
        );
        assert_eq!(vdaf("--vdaf poplar1 --bits 256"), Ok(VdafConfig::Poplar1 { bits: 256 }));
        for (bad, why) in [
            ("--vdaf sum", "--bits is needed for this VDAF"),
            ("--vdaf poplar1", "--bits is needed for this VDAF"),
            ("--vdaf poplar1 --bits 8 --length 8", "--length does not belong to this VDAF"),
            ("--vdaf multihot-countvec --length 8", "--max-weight is needed for this VDAF"),
            ("--vdaf count --max-weight 8", "--max-weight does not belong to this VDAF"),
            ("--vdaf sum --bits 65", "--bits must be between 1 and 64"),
            ("--vdaf histogram", "--length is needed for this VDAF"),
            ("--vdaf count --bits 3", "--bits does not belong to this VDAF"),
            (
                "--vdaf sumvec --bits 1 --length 1 --proofs 2",
                "--proofs does not belong to this VDAF",
            ),
        ] {
            assert_eq!(vdaf(bad), Err(Failure::Usage(why.into())), "{bad}");
        }
        for bad in ["", "--vdaf poplar2", "--vdaf poplar1 --bits 4097", "--vdaf count --file f"] {
            assert!(matches!(vdaf(bad), Err(Failure::Usage(_))), "{bad}");
        }
    }

    #[test]
    fn chunk_lengths_are_those_of_prio() {
        for measurement in (0..2000).chain([16_000, 100_000, 1 << 20]) {
            let best = prio08::vdaf::prio3::optimal_chunk_length(measurement as usize);
            assert_eq!(best_chunk_length(measurement) as usize, best, "{measurement}");
        }
        // Far beyond what any task may have, there is still an answer.
        assert!(best_chunk_length(u64::from(u32::MAX) * 64) > 1);
    }
}
