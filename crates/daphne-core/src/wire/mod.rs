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
pub mod v18;

use common::Extension;
pub use common::{aggregate_share_aad, input_share_aad};

use crate::{
    codec::{DecodeError, EncodeError},
    error::Abort,
    ids::ReportId,
    message::{
        AggregateShareRequest, AggregationJobContinue, AggregationJobInit, BatchSelector,
        PlaintextInputShare, Report, ReportMetadata, VerifyResp,
    },
    time::{Duration, Time},
    version::DapVersion,
};

/// How a task's messages are written: in which draft's structs, and in which unit of time. The only place that chooses
/// between [`v09`] and [`v18`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wire {
    version: DapVersion,
    time_precision: Duration,
}

impl Wire {
    /// That of tasks of this version and precision.
    pub const fn new(version: DapVersion, time_precision: Duration) -> Self {
        Self { version, time_precision }
    }

    /// Decodes the request that begins an aggregation job.
    ///
    /// # Errors
    /// The leader's fault: it does not decode, or what [`v18::AggregationJobInitReq::into_message`] says.
    pub fn aggregation_job_init(self, body: &[u8]) -> Result<AggregationJobInit<'_>, Abort> {
        match self.version {
            DapVersion::V09 => Ok(v09::AggregationJobInitReq::decode(body)?.into()),
            DapVersion::V18 => {
                v18::AggregationJobInitReq::decode(body)?.into_message(self.time_precision)
            }
        }
    }

    /// Encodes the request that begins an aggregation job.
    ///
    /// # Errors
    /// Our own fault: a field is too long.
    pub fn encode_aggregation_job_init(
        self,
        init: &AggregationJobInit<'_>,
    ) -> Result<Vec<u8>, EncodeError> {
        match self.version {
            DapVersion::V09 => v09::AggregationJobInitReq::from(init.clone()).encode(),
            DapVersion::V18 => v18::AggregationJobInitReq::encode_message(init),
        }
    }

    /// Decodes the request that continues an aggregation job.
    ///
    /// # Errors
    /// The leader's fault: it does not decode, or has no report.
    pub fn aggregation_job_continue(
        self,
        body: &[u8],
    ) -> Result<AggregationJobContinue<'_>, DecodeError> {
        match self.version {
            DapVersion::V09 => Ok(v09::AggregationJobContinueReq::decode(body)?.into()),
            DapVersion::V18 => v18::AggregationJobContinueReq::decode(body)?.try_into(),
        }
    }

    /// Encodes the request that continues an aggregation job.
    ///
    /// # Errors
    /// Our own fault: a field is too long.
    pub fn encode_aggregation_job_continue(
        self,
        request: &AggregationJobContinue<'_>,
    ) -> Result<Vec<u8>, EncodeError> {
        match self.version {
            DapVersion::V09 => v09::AggregationJobContinueReq::from(request.clone()).encode(),
            DapVersion::V18 => v18::AggregationJobContinueReq::from(request).encode(),
        }
    }

    /// Decodes the helper's answer to either request.
    ///
    /// # Errors
    /// The helper's fault.
    pub fn aggregation_job_resp(self, body: &[u8]) -> Result<Vec<VerifyResp>, DecodeError> {
        Ok(match self.version {
            DapVersion::V09 => v09::AggregationJobResp::decode(body)?.into(),
            DapVersion::V18 => v18::AggregationJobResp::decode(body)?.into(),
        })
    }

    /// Encodes the helper's answer to either request.
    ///
    /// # Errors
    /// Our own fault: an error that the draft has no code point for.
    pub fn encode_aggregation_job_resp(
        self,
        answers: &[VerifyResp],
    ) -> Result<Vec<u8>, EncodeError> {
        match self.version {
            DapVersion::V09 => v09::AggregationJobResp::from(answers).encode(),
            DapVersion::V18 => v18::AggregationJobResp::from(answers).encode(),
        }
    }

    /// Decodes the request for an aggregate share.
    ///
    /// # Errors
    /// The leader's fault: it does not decode, or what [`v18::AggregateShareReq::into_message`] says.
    pub fn aggregate_share_request(self, body: &[u8]) -> Result<AggregateShareRequest<'_>, Abort> {
        match self.version {
            DapVersion::V09 => Ok(v09::AggregateShareReq::decode(body)?.into_message()?),
            DapVersion::V18 => {
                v18::AggregateShareReq::decode(body)?.into_message(self.time_precision)
            }
        }
    }

    /// Encodes the request for an aggregate share.
    ///
    /// # Errors
    /// Our own fault: a field is too long.
    pub fn encode_aggregate_share_request(
        self,
        request: &AggregateShareRequest<'_>,
    ) -> Result<Vec<u8>, EncodeError> {
        match self.version {
            DapVersion::V09 => v09::AggregateShareReq::encode_message(request),
            DapVersion::V18 => v18::AggregateShareReq::encode_message(request, self.time_precision),
        }
    }

    /// What aggregate shares of a batch are bound to, beside the task ([`AggregateShareRequest::share_binding`]).
    ///
    /// # Errors
    /// Our own fault: the aggregation parameter is 4 GiB or longer.
    pub fn share_binding(
        self,
        agg_param: &[u8],
        batch: &BatchSelector,
    ) -> Result<Vec<u8>, EncodeError> {
        match self.version {
            DapVersion::V09 => v09::share_binding(agg_param, batch),
            DapVersion::V18 => v18::collection_job_req(agg_param, batch, self.time_precision),
        }
    }

    /// Encodes the metadata of a new report; its time is rounded down. `public` are its public extensions, type and data.
    ///
    /// # Errors
    /// Our own fault: public extensions in DAP-09, or more than 65,535 bytes of them.
    pub fn report_metadata(
        self,
        report_id: ReportId,
        time: Time,
        public: &[(u16, &[u8])],
    ) -> Result<Vec<u8>, EncodeError> {
        match self.version {
            DapVersion::V09 => {
                let time = time.round_down(self.time_precision);
                let bytes = v09::ReportMetadata::bytes(report_id, time).to_vec();
                if public.is_empty() { Ok(bytes) } else { Err(EncodeError) }
            }
            DapVersion::V18 => {
                let extension = |&(extension_type, extension_data)| Extension {
                    extension_type,
                    extension_data,
                };
                let public: Vec<Extension<'_>> = public.iter().map(extension).collect();
                v18::ReportMetadata::bytes(report_id, time, self.time_precision, &public)
            }
        }
    }

    /// Decodes report metadata.
    ///
    /// # Errors
    /// The client's fault.
    pub fn decode_report_metadata(self, bytes: &[u8]) -> Result<ReportMetadata<'_>, DecodeError> {
        Ok(match self.version {
            DapVersion::V09 => v09::ReportMetadata::decode(bytes)?.into(),
            DapVersion::V18 => {
                v18::ReportMetadata::decode(bytes)?.into_message(self.time_precision)
            }
        })
    }

    /// Decodes a report.
    ///
    /// # Errors
    /// The client's fault.
    pub fn report(self, bytes: &[u8]) -> Result<Report<'_>, DecodeError> {
        Ok(match self.version {
            DapVersion::V09 => v09::Report::decode(bytes)?.into(),
            DapVersion::V18 => v18::Report::decode(bytes)?.into_message(self.time_precision),
        })
    }

    /// Encodes a report, whose metadata have their encoding.
    ///
    /// # Errors
    /// Our own fault: a field is too long.
    pub fn encode_report(self, report: Report<'_>) -> Result<Vec<u8>, EncodeError> {
        // The structs of both drafts differ in the metadata only, which are written as they are.
        v09::Report::from(report).encode()
    }

    /// Decodes what is sealed in an input share.
    ///
    /// # Errors
    /// The client's fault.
    pub fn plaintext_input_share(
        self,
        bytes: &[u8],
    ) -> Result<PlaintextInputShare<'_>, DecodeError> {
        Ok(match self.version {
            DapVersion::V09 => v09::PlaintextInputShare::decode(bytes)?.into(),
            DapVersion::V18 => v18::PlaintextInputShare::decode(bytes)?.into(),
        })
    }

    /// Encodes what is sealed in an input share.
    ///
    /// # Errors
    /// Our own fault: the extensions are longer than 65,535 bytes.
    pub fn encode_plaintext_input_share(
        self,
        share: PlaintextInputShare<'_>,
    ) -> Result<Vec<u8>, EncodeError> {
        match self.version {
            DapVersion::V09 => v09::PlaintextInputShare::from(share).encode(),
            DapVersion::V18 => v18::PlaintextInputShare::from(share).encode(),
        }
    }
}
