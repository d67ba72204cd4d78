//! A task's parameters as the header `dap-taskprov` carries them: taskprov-07 §3.1.
//!
//! What a deployment may not know (a query type, a differential-privacy mechanism, a VDAF) has a length around it, so
//! that it decodes here as unknown, and whoever is asked can opt out of the task rather than call the header malformed.

use super::{FIXED_SIZE, TIME_INTERVAL};
use crate::{
    codec::{DecodeError, Reader, Writer},
    time::{Duration, Time},
};

/// Type of the report extension that every report of a task from taskprov carries, without data. taskprov-07 §3.
pub const TASKPROV_EXTENSION: u16 = 0xFF00;

const DP_NONE: u8 = 1;

const COUNT: u32 = 0;
const SUM: u32 = 1;
const SUM_VEC: u32 = 2;
const HISTOGRAM: u32 = 3;
const POPLAR1: u32 = 0x1000;
const SUM_VEC_FIELD64_MULTIPROOF: u32 = 0xFFFF_1003;

/// A task's parameters. Its id is the SHA-256 of the encoding received. taskprov-07 §3.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskConfig<'a> {
    /// Whatever tells this task from others with the same parameters, `1..=255` bytes.
    pub task_info: &'a [u8],
    /// The leader's DAP URL: visible ASCII, not empty.
    pub leader_aggregator_endpoint: &'a str,
    /// The helper's DAP URL: visible ASCII, not empty.
    pub helper_aggregator_endpoint: &'a str,
    /// What batches must be like.
    pub query_config: QueryConfig<'a>,
    /// End of the task.
    pub task_expiration: Time,
    /// The VDAF with its parameters, and how noise is added.
    pub vdaf_config: TaskVdafConfig<'a>,
}

whole!(TaskConfig<'a>);

impl<'a> TaskConfig<'a> {
    fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let task_info = r.opaque8()?;
        if task_info.is_empty() {
            return Err(DecodeError::Invalid("task_info is empty"));
        }
        Ok(Self {
            task_info,
            leader_aggregator_endpoint: read_url(r)?,
            helper_aggregator_endpoint: read_url(r)?,
            query_config: Reader::all(r.opaque16()?, QueryConfig::read)?,
            task_expiration: Time::from_seconds(r.u64()?),
            vdaf_config: Reader::all(r.opaque16()?, TaskVdafConfig::read)?,
        })
    }

    fn write(&self, w: &mut Writer) {
        if self.task_info.is_empty() {
            w.fail();
        }
        w.opaque8(self.task_info);
        write_url(w, self.leader_aggregator_endpoint);
        write_url(w, self.helper_aggregator_endpoint);
        w.list16(|w| self.query_config.write(w))
            .u64(self.task_expiration.as_seconds())
            .list16(|w| self.vdaf_config.write(w));
    }
}

fn is_url(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(u8::is_ascii_graphic)
}

fn read_url<'a>(r: &mut Reader<'a>) -> Result<&'a str, DecodeError> {
    let bytes = r.opaque16()?;
    match std::str::from_utf8(bytes) {
        Ok(url) if is_url(bytes) => Ok(url),
        _ => Err(DecodeError::Invalid("an aggregator's endpoint is no URL")),
    }
}

fn write_url(w: &mut Writer, url: &str) {
    if !is_url(url.as_bytes()) {
        w.fail();
    }
    w.opaque16(url.as_bytes());
}

/// What the batches of a task must be like. taskprov-07 §3.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueryConfig<'a> {
    /// Length of a batch bucket; any value.
    pub time_precision: Duration,
    /// Aggregation parameters per batch.
    pub max_batch_query_count: u16,
    /// Fewest reports in a batch.
    pub min_batch_size: u32,
    /// The query type with its own parameter.
    pub query: TaskQuery<'a>,
}

impl<'a> QueryConfig<'a> {
    fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self {
            time_precision: Duration::from_seconds(r.u64()?),
            max_batch_query_count: r.u16()?,
            min_batch_size: r.u32()?,
            query: match r.u8()? {
                TIME_INTERVAL => TaskQuery::TimeInterval,
                FIXED_SIZE => TaskQuery::FixedSize { max_batch_size: r.u32()? },
                query_type => TaskQuery::Unknown { query_type, rest: take_rest(r)? },
            },
        })
    }

    fn write(&self, w: &mut Writer) {
        w.u64(self.time_precision.as_seconds())
            .u16(self.max_batch_query_count)
            .u32(self.min_batch_size);
        match self.query {
            TaskQuery::TimeInterval => w.u8(TIME_INTERVAL),
            TaskQuery::FixedSize { max_batch_size } => w.u8(FIXED_SIZE).u32(max_batch_size),
            TaskQuery::Unknown { query_type, rest } => w.u8(query_type).raw(rest),
        };
    }
}

/// How a task's reports are gathered into batches. taskprov-07 §3.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskQuery<'a> {
    /// By their own time.
    TimeInterval,
    /// By the leader's choice.
    FixedSize {
        /// Most reports in a batch; 0 for no bound.
        max_batch_size: u32,
    },
    /// A query type that DAP-09 does not define, the reserved 0 among them.
    Unknown {
        /// Its code point.
        query_type: u8,
        /// What follows it.
        rest: &'a [u8],
    },
}

/// The VDAF of a task, and how noise is added to its aggregates. taskprov-07 §3.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskVdafConfig<'a> {
    /// How noise is added.
    pub dp_mechanism: DpMechanism<'a>,
    /// The VDAF.
    pub vdaf: TaskVdaf<'a>,
}

impl<'a> TaskVdafConfig<'a> {
    fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self {
            dp_mechanism: Reader::all(r.opaque16()?, DpMechanism::read)?,
            vdaf: TaskVdaf::read(r)?,
        })
    }

    fn write(&self, w: &mut Writer) {
        w.list16(|w| self.dp_mechanism.write(w));
        self.vdaf.write(w);
    }
}

/// How noise is added to aggregates. taskprov-07 §3.1, `DpConfig`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DpMechanism<'a> {
    /// Not at all.
    None,
    /// A mechanism that we do not know, the reserved 0 among them.
    Unknown {
        /// Its code point.
        mechanism: u8,
        /// Its parameters.
        rest: &'a [u8],
    },
}

impl<'a> DpMechanism<'a> {
    fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(match r.u8()? {
            DP_NONE => Self::None,
            mechanism => Self::Unknown { mechanism, rest: take_rest(r)? },
        })
    }

    fn write(&self, w: &mut Writer) {
        match self {
            Self::None => w.u8(DP_NONE),
            Self::Unknown { mechanism, rest } => w.u8(*mechanism).raw(rest),
        };
    }
}

/// A VDAF with its parameters, of any value. taskprov-07 §3.1, and VDAF-08 §10 for the code points; the instance with
/// several proofs is a private one, which two implementations share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskVdaf<'a> {
    /// `Prio3Count`.
    Count,
    /// `Prio3Sum`.
    Sum {
        /// Bits of a measurement.
        bits: u8,
    },
    /// `Prio3SumVec`.
    SumVec {
        /// Elements of a measurement.
        length: u32,
        /// Bits of an element.
        bits: u8,
        /// Chunk length of the proof.
        chunk_length: u32,
    },
    /// `Prio3Histogram`.
    Histogram {
        /// Buckets.
        length: u32,
        /// Chunk length of the proof.
        chunk_length: u32,
    },
    /// `Prio3SumVecField64MultiproofHmacSha256Aes128`.
    SumVecField64Multiproof {
        /// Elements of a measurement.
        length: u32,
        /// Bits of an element.
        bits: u8,
        /// Chunk length of each proof.
        chunk_length: u32,
        /// Proofs per report.
        proofs: u8,
    },
    /// `Poplar1`.
    Poplar1 {
        /// Bits of a measurement.
        bits: u16,
    },
    /// A VDAF that we do not know.
    Unknown {
        /// Its code point.
        vdaf_type: u32,
        /// Its parameters.
        rest: &'a [u8],
    },
}

impl<'a> TaskVdaf<'a> {
    fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(match r.u32()? {
            COUNT => Self::Count,
            SUM => Self::Sum { bits: r.u8()? },
            SUM_VEC => Self::SumVec { length: r.u32()?, bits: r.u8()?, chunk_length: r.u32()? },
            HISTOGRAM => Self::Histogram { length: r.u32()?, chunk_length: r.u32()? },
            POPLAR1 => Self::Poplar1 { bits: r.u16()? },
            SUM_VEC_FIELD64_MULTIPROOF => Self::SumVecField64Multiproof {
                length: r.u32()?,
                bits: r.u8()?,
                chunk_length: r.u32()?,
                proofs: r.u8()?,
            },
            vdaf_type => Self::Unknown { vdaf_type, rest: take_rest(r)? },
        })
    }

    fn write(&self, w: &mut Writer) {
        match *self {
            Self::Count => w.u32(COUNT),
            Self::Sum { bits } => w.u32(SUM).u8(bits),
            Self::SumVec { length, bits, chunk_length } => {
                w.u32(SUM_VEC).u32(length).u8(bits).u32(chunk_length)
            }
            Self::Histogram { length, chunk_length } => {
                w.u32(HISTOGRAM).u32(length).u32(chunk_length)
            }
            Self::SumVecField64Multiproof { length, bits, chunk_length, proofs } => {
                w.u32(SUM_VEC_FIELD64_MULTIPROOF).u32(length).u8(bits).u32(chunk_length).u8(proofs)
            }
            Self::Poplar1 { bits } => w.u32(POPLAR1).u16(bits),
            Self::Unknown { vdaf_type, rest } => w.u32(vdaf_type).raw(rest),
        };
    }
}

fn take_rest<'a>(r: &mut Reader<'a>) -> Result<&'a [u8], DecodeError> {
    r.take(r.rest().len())
}
