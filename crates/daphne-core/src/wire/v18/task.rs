//! What all parties of a task agree on: DAP-18 §4.2 and §12.
//!
//! What a deployment may not know (a batch mode, a VDAF, a task extension) has a length around it, so that it decodes here as
//! unknown, and whoever is asked can refuse the task rather than call its configuration malformed.

use super::{Extension, Interval, LEADER_SELECTED, TIME_INTERVAL, is_increasing, not_empty};
use crate::{
    codec::{DecodeError, Reader, Writer},
    vdaf::VdafConfig,
};

/// `TaskExtensionType` of the interval in which a task's reports must be made. DAP-18 §4.2.3.
pub const TASK_INTERVAL: u16 = 1;

const COUNT: u32 = 1;
const SUM: u32 = 2;
const SUM_VEC: u32 = 3;
const HISTOGRAM: u32 = 4;
const MULTIHOT_COUNT_VEC: u32 = 5;
const POPLAR1: u32 = 6;
const SUM_VEC_FIELD64_MULTIPROOF: u32 = 0xFFFF_1003;

/// A task's configuration, which all that is sealed for the task is bound to, byte for byte. DAP-18 §4.2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskConfiguration<'a> {
    /// Whatever tells this task from others with the same parameters, `1..=255` bytes.
    pub task_info: &'a [u8],
    /// The leader's DAP URL: visible ASCII, not empty. Compared and hashed as it is.
    pub leader_aggregator_endpoint: &'a str,
    /// The helper's DAP URL: visible ASCII, not empty.
    pub helper_aggregator_endpoint: &'a str,
    /// Length of a unit of time, in seconds.
    pub time_precision: u64,
    /// Fewest reports in a batch.
    pub min_batch_size: u64,
    /// How reports are gathered into batches.
    pub batch_mode: BatchMode<'a>,
    /// The VDAF with its parameters.
    pub vdaf: TaskVdaf<'a>,
    /// Extensions of the task, 65,535 bytes in all.
    pub extensions: Vec<Extension<'a>>,
}

whole!(TaskConfiguration<'a>);

/// `batch_mode` and `batch_config`. DAP-18 §5.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchMode<'a> {
    /// 1, without configuration.
    TimeInterval,
    /// 2, without configuration.
    LeaderSelected,
    /// Any other, or one of these with a configuration.
    Unknown {
        /// The code point.
        code: u8,
        /// The configuration, `0..=65,535` bytes.
        config: &'a [u8],
    },
}

/// `vdaf_type` and `vdaf_configuration`. DAP-18 §12; the last one is a private instance that two implementations share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskVdaf<'a> {
    /// One that we know, whose parameters nobody has looked at.
    Known(VdafConfig),
    /// Any other, or parameters that are not those of its type.
    Unknown {
        /// The code point.
        code: u32,
        /// The parameters, `0..=65,535` bytes.
        parameters: &'a [u8],
    },
}

impl<'a> TaskConfiguration<'a> {
    fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self {
            task_info: not_empty(r.opaque8()?, "task_info is empty")?,
            leader_aggregator_endpoint: read_url(r)?,
            helper_aggregator_endpoint: read_url(r)?,
            time_precision: r.u64()?,
            min_batch_size: r.u64()?,
            batch_mode: BatchMode::read(r)?,
            vdaf: TaskVdaf::read(r)?,
            extensions: Extension::read_list(r)?,
        })
    }

    fn write(&self, w: &mut Writer) {
        if self.task_info.is_empty() {
            w.fail();
        }
        w.opaque8(self.task_info);
        write_url(self.leader_aggregator_endpoint, w);
        write_url(self.helper_aggregator_endpoint, w);
        w.u64(self.time_precision).u64(self.min_batch_size);
        self.batch_mode.write(w);
        self.vdaf.write(w);
        Extension::write_list(&self.extensions, w);
    }

    /// The interval in which reports must be made, if the task has one.
    ///
    /// # Errors
    /// [`TaskExtensionError`]: whoever is asked must not take part.
    pub fn task_interval(&self) -> Result<Option<Interval>, TaskExtensionError> {
        if let Some(unknown) = self.extensions.iter().find(|e| e.extension_type != TASK_INTERVAL) {
            return Err(TaskExtensionError::Unknown(unknown.extension_type));
        }
        if !is_increasing(&self.extensions) {
            return Err(TaskExtensionError::Order);
        }
        let interval = self.extensions.first().map(|e| Interval::decode(e.extension_data));
        interval.transpose().map_err(|_| TaskExtensionError::Interval)
    }
}

/// Why a task's extensions keep others from taking part. The fault of the task's author.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TaskExtensionError {
    /// DAP-18 §4.2.2: nobody takes part in a task with an extension they do not know.
    #[error("task extension {0} is not known here")]
    Unknown(u16),
    /// DAP-18 §4.2.2: extensions are strictly increasing.
    #[error("the task's extensions are not in order")]
    Order,
    /// DAP-18 §4.2.3: start and duration.
    #[error("task_interval must be 16 bytes")]
    Interval,
}

fn read_url<'a>(r: &mut Reader<'a>) -> Result<&'a str, DecodeError> {
    let bytes = not_empty(r.opaque16()?, "a URL is empty")?;
    match std::str::from_utf8(bytes) {
        Ok(url) if url.bytes().all(|b| b.is_ascii_graphic()) => Ok(url),
        _ => Err(DecodeError::Invalid("a URL has other than visible ASCII characters")),
    }
}

fn write_url(url: &str, w: &mut Writer) {
    if url.is_empty() || !url.bytes().all(|b| b.is_ascii_graphic()) {
        w.fail();
    }
    w.opaque16(url.as_bytes());
}

impl<'a> BatchMode<'a> {
    fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(match (r.u8()?, r.opaque16()?) {
            (TIME_INTERVAL, []) => Self::TimeInterval,
            (LEADER_SELECTED, []) => Self::LeaderSelected,
            (code, config) => Self::Unknown { code, config },
        })
    }

    fn write(&self, w: &mut Writer) {
        let (code, config): (u8, &[u8]) = match self {
            Self::TimeInterval => (TIME_INTERVAL, &[]),
            Self::LeaderSelected => (LEADER_SELECTED, &[]),
            Self::Unknown { code, config } => (*code, config),
        };
        w.u8(code).opaque16(config);
    }
}

impl<'a> TaskVdaf<'a> {
    fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let (code, parameters) = (r.u32()?, r.opaque16()?);
        let known = Reader::all(parameters, |r| read_parameters(code, r)).ok().flatten();
        Ok(known.map_or(Self::Unknown { code, parameters }, Self::Known))
    }

    fn write(&self, w: &mut Writer) {
        match self {
            Self::Known(config) => {
                w.u32(code(config)).list16(|w| write_parameters(config, w));
            }
            Self::Unknown { code, parameters } => {
                w.u32(*code).opaque16(parameters);
            }
        }
    }
}

/// The parameters of a type, or `None` for one that we do not know.
fn read_parameters(code: u32, r: &mut Reader<'_>) -> Result<Option<VdafConfig>, DecodeError> {
    Ok(Some(match code {
        COUNT => VdafConfig::Prio3Count,
        SUM => VdafConfig::Prio3Sum { max_measurement: r.u64()? },
        SUM_VEC => VdafConfig::Prio3SumVec {
            length: r.u32()?,
            max_measurement: r.u64()?,
            chunk_length: r.u32()?,
        },
        HISTOGRAM => VdafConfig::Prio3Histogram { length: r.u32()?, chunk_length: r.u32()? },
        MULTIHOT_COUNT_VEC => VdafConfig::Prio3MultihotCountVec {
            length: r.u32()?,
            chunk_length: r.u32()?,
            // No weight beyond a length of 32 bits is one of a task.
            max_weight: u32::try_from(r.u64()?)
                .map_err(|_| DecodeError::Invalid("max_weight is larger than any length"))?,
        },
        POPLAR1 => VdafConfig::Poplar1 { bits: r.u16()? },
        SUM_VEC_FIELD64_MULTIPROOF => VdafConfig::Prio3SumVecField64MultiproofHmacSha256Aes128 {
            length: r.u32()?,
            max_measurement: r.u64()?,
            chunk_length: r.u32()?,
            proofs: r.u8()?,
        },
        _ => return Ok(None),
    }))
}

const fn code(config: &VdafConfig) -> u32 {
    match config {
        VdafConfig::Prio3Count => COUNT,
        VdafConfig::Prio3Sum { .. } => SUM,
        VdafConfig::Prio3SumVec { .. } => SUM_VEC,
        VdafConfig::Prio3Histogram { .. } => HISTOGRAM,
        VdafConfig::Prio3MultihotCountVec { .. } => MULTIHOT_COUNT_VEC,
        VdafConfig::Poplar1 { .. } => POPLAR1,
        VdafConfig::Prio3SumVecField64MultiproofHmacSha256Aes128 { .. } => {
            SUM_VEC_FIELD64_MULTIPROOF
        }
    }
}

fn write_parameters(config: &VdafConfig, w: &mut Writer) {
    match *config {
        VdafConfig::Prio3Count => {}
        VdafConfig::Prio3Sum { max_measurement } => {
            w.u64(max_measurement);
        }
        VdafConfig::Prio3SumVec { length, max_measurement, chunk_length } => {
            w.u32(length).u64(max_measurement).u32(chunk_length);
        }
        VdafConfig::Prio3Histogram { length, chunk_length } => {
            w.u32(length).u32(chunk_length);
        }
        VdafConfig::Prio3MultihotCountVec { length, max_weight, chunk_length } => {
            w.u32(length).u32(chunk_length).u64(max_weight.into());
        }
        VdafConfig::Poplar1 { bits } => {
            w.u16(bits);
        }
        VdafConfig::Prio3SumVecField64MultiproofHmacSha256Aes128 {
            length,
            max_measurement,
            chunk_length,
            proofs,
        } => {
            w.u32(length).u64(max_measurement).u32(chunk_length).u8(proofs);
        }
    }
}
