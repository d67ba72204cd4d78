//! Commands that put a deployment up and examine it.

use std::{fmt, path::PathBuf};

use clap::{Args, ValueEnum};

/// The environments of wrangler.toml.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum EnvironmentName {
    /// This machine
    Dev,
    /// To try things where nothing depends on it
    Staging,
    /// Whom leaders and clients talk to
    Production,
}

/// The name as wrangler knows it; of the top level, none.
impl fmt::Display for EnvironmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dev => "",
            Self::Staging => "staging",
            Self::Production => "production",
        })
    }
}

impl EnvironmentName {
    /// Where its secrets are kept, in the checkout.
    pub const fn secrets_file(self) -> &'static str {
        match self {
            Self::Dev => ".dev.vars",
            Self::Staging => "secrets.staging.json",
            Self::Production => "secrets.production.json",
        }
    }
}

/// Which secrets to make.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// For which environment of wrangler.toml
    #[arg(long, value_enum)]
    pub env: EnvironmentName,
    /// Where to keep them [default: --secrets-file, or secrets.ENVIRONMENT.json beside wrangler.toml, or .dev.vars]. A file that
    /// exists is never overwritten
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Print the secrets, too
    #[arg(long)]
    pub show: bool,
}

/// What to deploy.
#[derive(Debug, Args)]
pub struct DeployArgs {
    /// Which environment of wrangler.toml
    #[arg(long, value_enum)]
    pub env: EnvironmentName,
    /// Build, check and show, and deploy nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Replace the secrets of a Worker that has some by those of the file. By default they are sent to a Worker that
    /// lacks them only: a root key that is in use and not in the file would be lost to it
    #[arg(long)]
    pub replace_secrets: bool,
    /// Let --url lead to this machine, as for a tunnel. By default it must be https, and lead elsewhere
    #[arg(long)]
    pub allow_local_url: bool,
    /// How long the new code may take to answer, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    pub patience: u64,
}

/// What to examine.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// The deployment's URL [default: that of --url]
    #[arg(value_name = "DEPLOYMENT")]
    pub deployment: Option<String>,
    /// Make no task
    #[arg(long)]
    pub no_canary: bool,
    /// Largest difference between its clock and this machine's, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    pub clock_skew_max: u64,
}
