//! The options for what all parties of a task have word for word.

use clap::Args;
use daphne_core::version::DapVersion;

/// What the parties of a task agree on in its configuration.
#[derive(Clone, Debug, Default, Args)]
pub struct AgreementArgs {
    /// dap-18: the task's configuration as a partner gave it, base64url; what it says need not be said
    #[arg(
        long,
        value_name = "BASE64URL",
        allow_hyphen_values = true,
        conflicts_with_all = [
            "file", "taskprov", "vdaf", "bits", "length", "max_weight", "chunk_length", "proofs", "batch_mode",
            "time_precision", "min_batch_size", "leader_url", "task_info", "task_info_base64url", "task_start",
        ]
    )]
    pub task_configuration: Option<String>,
    /// dap-18: the leader's DAP URL, byte for byte as all parties have it
    #[arg(long, value_name = "URL", conflicts_with = "taskprov")]
    pub leader_url: Option<String>,
    /// What a dap-18 task, or one with --taskprov, is called, at most 255 bytes [default: something random]
    #[arg(long, value_name = "TEXT")]
    pub task_info: Option<String>,
    /// The same as bytes
    #[arg(
        long,
        value_name = "BASE64URL",
        conflicts_with_all = ["task_info", "taskprov"],
        allow_hyphen_values = true
    )]
    pub task_info_base64url: Option<String>,
    /// dap-18: the first second at which reports are made, a multiple of the time precision [default: any time, with --taskprov
    /// a month from now on]
    #[arg(long, value_name = "EPOCH", requires = "task_duration")]
    pub task_start: Option<u64>,
    /// dap-18: for how long, in seconds, a multiple of the time precision
    #[arg(long, value_name = "SECONDS", requires = "task_start")]
    pub task_duration: Option<u64>,
}

/// Reads a version as it is written everywhere: `dap-09`.
pub(super) fn version(text: &str) -> Result<DapVersion, String> {
    DapVersion::ALL.into_iter().find(|version| version.tag() == text).ok_or_else(|| {
        let all: Vec<&str> = DapVersion::ALL.iter().map(|version| version.tag()).collect();
        format!("expected {}", all.join(" or "))
    })
}
