//! The command that helps others to reach this helper.

use std::path::PathBuf;

use clap::Args;

/// Which deployment to pair, and how to speak to its aggregator API.
#[derive(Debug, Args)]
pub struct PairArgs {
    /// The deployment's URL, such as `https://helper.example`; --url and DAPCTL_URL mean the same
    #[arg(value_name = "DEPLOYMENT")]
    pub deployment: Option<String>,
    /// What the aggregator is to be called
    #[arg(long, value_name = "NAME", default_value = "daphne-edge")]
    pub name: String,
    /// A token of the aggregator API, one of the deployment's AGGREGATOR_API_TOKENS [default: the first in --secrets-file]
    #[arg(
        long,
        env = "DAPCTL_API_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN",
        allow_hyphen_values = true
    )]
    pub api_token: Option<String>,
    /// A file that holds that token, which wins over --api-token
    #[arg(long, value_name = "FILE")]
    pub api_token_file: Option<PathBuf>,
    /// Print the token in the command, and not where it is to be had
    #[arg(long)]
    pub show_token: bool,
}
