//! The JSON of the aggregator API: what a control plane, such as Divvi Up's, asks an aggregator for, in the shape that
//! Janus 0.7 gave it. It has no draft; the shape is what deployed control planes send and check.
//!
//! Binary fields are base64url without padding, times and durations whole seconds. Fields that are not named here are
//! ignored, as Janus ignores them: a newer control plane may send more.

mod hpke;
mod metrics;
mod peers;
mod task;
mod token;
mod vdaf;

use serde::Serialize;

pub use hpke::{HpkeConfigView, HpkeState, NewHpkeConfig, PatchHpkeConfig};
pub use metrics::{AggregationMetrics, UploadMetrics};
pub use peers::{NewPeer, OldPeer, PeerAggregatorView};
pub use task::{Provisioned, Provisioning, TaskCreate, TaskPatch, TaskView, UNKNOWN_PEER};
pub use token::IssuedToken;
pub(crate) use token::seal_label as token_label;

/// Media type of every request with a body and of every answer; compared as it is written.
pub const MEDIA_TYPE: &str = "application/vnd.janus.aggregator+json;version=0.1";

/// What `GET /` answers: what this aggregator is and can do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ApiConfig<'a> {
    /// The protocol that tasks speak.
    pub protocol: &'static str,
    /// Where DAP is served. Ends in a slash.
    pub dap_url: &'a str,
    /// The one role that tasks can give us.
    pub role: &'static str,
    /// VDAFs that a task may have, by name.
    pub vdafs: &'static [&'static str],
    /// Query types that a task may have, by name.
    pub query_types: &'static [&'static str],
    /// What a control plane may rely on beyond the first version of this API.
    pub features: &'static [&'static str],
    /// Who made this.
    pub software_name: &'static str,
    /// Its version.
    pub software_version: &'a str,
}

impl<'a> ApiConfig<'a> {
    /// What this aggregator is and can do.
    pub const fn new(dap_url: &'a str, software_version: &'a str) -> Self {
        Self {
            protocol: "DAP-09",
            dap_url,
            role: "Helper",
            vdafs: &[
                "Prio3Count",
                "Prio3Sum",
                "Prio3Histogram",
                "Prio3SumVec",
                "Prio3SumVecField64MultiproofHmacSha256Aes128",
                "Poplar1",
            ],
            query_types: &["TimeInterval", "FixedSize"],
            // TokenHash: no collector's token is ever needed here. TimeBucketedFixedSize: such tasks are taken, and to a
            // Helper they are like others. No noise is added, so nothing is said of differential privacy.
            features: &[
                "TokenHash",
                "TimeBucketedFixedSize",
                "UploadMetrics",
                "AggregationJobMetrics",
            ],
            software_name: "daphne-edge",
            software_version,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_is_written_as_control_planes_read_it() {
        let config = ApiConfig::new("https://helper.example/v09/", "0.1.0");
        let expected = r#"{"protocol":"DAP-09","dap_url":"https://helper.example/v09/","role":"Helper","vdafs":["Prio3Count","Prio3Sum","Prio3Histogram","Prio3SumVec","Prio3SumVecField64MultiproofHmacSha256Aes128","Poplar1"],"query_types":["TimeInterval","FixedSize"],"features":["TokenHash","TimeBucketedFixedSize","UploadMetrics","AggregationJobMetrics"],"software_name":"daphne-edge","software_version":"0.1.0"}"#;
        assert_eq!(serde_json::to_string(&config).unwrap(), expected);
    }
}
