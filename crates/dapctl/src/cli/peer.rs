//! The options about peers.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use daphne_core::taskprov::PeerPolicy;
use daphne_core::time::Duration;

use crate::Failure;

/// Commands about leaders that bring their tasks along.
#[derive(Debug, Subcommand)]
pub enum PeerCommand {
    /// Adds a leader that may bring tasks along; secrets that are not given are made
    #[command(
        after_help = "Example:\n  dapctl peer add https://leader.example/v09/ --min-batch-size-min 100 --save peer.json\n  \
        dapctl task add --taskprov peer.json --vdaf count --save t.json\n  \
        dapctl drive --task t.json --generate 1000"
    )]
    Add(Box<PeerAddArgs>),
    /// Lists all peers, and the names of their tokens
    #[command(after_help = "Example:\n  dapctl peer list")]
    List,
    /// Changes what the tasks get that a peer brings from now on; those it brought stay as they are
    #[command(
        after_help = "Example:\n  dapctl peer set https://leader.example/v09/ --lifetime-max 2592000\n  \
        dapctl peer set https://leader.example/v09/ --lift lifetime-max --lift helper-url"
    )]
    Set(Box<PeerSetArgs>),
    /// Removes a peer; nobody can use the tasks that it brought any more
    #[command(after_help = "Example:\n  dapctl peer rm https://leader.example/v09/")]
    Rm(EndpointArg),
    /// Adds and removes the tokens that a peer authenticates with
    #[command(subcommand)]
    Token(PeerTokenCommand),
}

/// Commands about the tokens of a peer.
#[derive(Debug, Subcommand)]
pub enum PeerTokenCommand {
    /// Lets a peer use another token, besides those it has; one that is not given is made
    #[command(
        after_help = "Example:\n  dapctl peer token add https://leader.example/v09/ --save token\n  \
        dapctl peer token add https://leader.example/v09/ --leader-token \"$NEW_TOKEN\""
    )]
    Add {
        /// The peer
        #[command(flatten)]
        peer: EndpointArg,
        /// The token
        #[command(flatten)]
        token: NewTokenArgs,
    },
    /// Takes a token from a peer; the last one stays
    #[command(after_help = "Example:\n  dapctl peer token rm https://leader.example/v09/ 1f0c52aa")]
    Rm {
        /// The peer
        #[command(flatten)]
        peer: EndpointArg,
        /// The token's name, as `peer list` shows it
        name: String,
    },
}

/// Which peer.
#[derive(Debug, Args)]
pub struct EndpointArg {
    /// The leader's DAP URL, exactly as its tasks name it
    pub endpoint: String,
}

/// A token of a leader.
#[derive(Debug, Args)]
pub struct TokenArgs {
    /// A token that the leader authenticates with
    #[arg(
        long,
        env = "DAPCTL_LEADER_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN",
        allow_hyphen_values = true
    )]
    pub leader_token: Option<String>,
    /// SHA-256 of that token, base64url, and not the token
    #[arg(long, value_name = "HASH", conflicts_with = "leader_token", allow_hyphen_values = true)]
    pub leader_token_hash: Option<String>,
}

/// A token that a leader is to have from now on.
#[derive(Debug, Args)]
pub struct NewTokenArgs {
    /// The token, if it exists
    #[command(flatten)]
    pub given: TokenArgs,
    /// Make a token, and write it to this new file, of mode 0600
    #[arg(long, value_name = "FILE", conflicts_with_all = ["leader_token", "leader_token_hash"])]
    pub save: Option<PathBuf>,
}

/// What both aggregators keep secret, and whom results are for.
#[derive(Debug, Args)]
pub struct PeerSecretArgs {
    /// The secret that verify keys are derived from: 32 bytes, base64url
    #[arg(
        long,
        env = "DAPCTL_VERIFY_KEY_INIT",
        hide_env_values = true,
        value_name = "SECRET",
        allow_hyphen_values = true
    )]
    pub verify_key_init: Option<String>,
    /// The collector's HPKE configuration: base64url of its encoding
    #[arg(long, value_name = "CONFIG", allow_hyphen_values = true)]
    pub collector_config: Option<String>,
}

/// What the tasks of a peer get, and what they may ask for.
#[derive(Debug, Args)]
pub struct PolicyArgs {
    /// Older reports are refused, in seconds
    #[arg(long, value_name = "SECONDS")]
    pub report_expiry_age: Option<u64>,
    /// Reports may be this far in the future, in seconds
    #[arg(long, value_name = "SECONDS")]
    pub tolerable_clock_skew: Option<u64>,
    /// Objects that share each group of batch buckets, 1 to 64
    #[arg(long, value_name = "N")]
    pub shards: Option<u16>,
    /// Batch buckets in one group of objects; 0 for all
    #[arg(long, value_name = "N")]
    pub buckets_per_group: Option<u32>,
    /// Smallest min_batch_size that a task may have
    #[arg(long, value_name = "N")]
    pub min_batch_size_min: Option<u64>,
    /// Largest max_batch_query_count that a task may have
    #[arg(long, value_name = "N")]
    pub max_batch_query_count_max: Option<u64>,
    /// A task may expire at most this much later than its first job comes, in seconds
    #[arg(long, value_name = "SECONDS")]
    pub lifetime_max: Option<u64>,
    /// The helper's DAP URL that tasks must name [default: any]
    #[arg(long, value_name = "URL")]
    pub helper_url: Option<String>,
}

impl PolicyArgs {
    /// The policy with what was given changed.
    pub fn over(&self, policy: PeerPolicy) -> PeerPolicy {
        let seconds = |given: Option<u64>| given.map(Duration::from_seconds);
        PeerPolicy {
            report_expiry_age: seconds(self.report_expiry_age).unwrap_or(policy.report_expiry_age),
            tolerable_clock_skew: seconds(self.tolerable_clock_skew)
                .unwrap_or(policy.tolerable_clock_skew),
            shards: self.shards.unwrap_or(policy.shards),
            buckets_per_group: self.buckets_per_group.or(policy.buckets_per_group),
            min_batch_size_min: self.min_batch_size_min.or(policy.min_batch_size_min),
            max_batch_query_count_max: self
                .max_batch_query_count_max
                .or(policy.max_batch_query_count_max),
            lifetime_max: seconds(self.lifetime_max).or(policy.lifetime_max),
            helper_url: self.helper_url.clone().or(policy.helper_url),
        }
    }
}

/// A new peer.
#[derive(Debug, Args)]
pub struct PeerAddArgs {
    /// The leader
    #[command(flatten)]
    pub peer: EndpointArg,
    /// Its token
    #[command(flatten)]
    pub token: TokenArgs,
    /// What is shared with it
    #[command(flatten)]
    pub secrets: PeerSecretArgs,
    /// Its policy
    #[command(flatten)]
    pub policy: PolicyArgs,
    /// Write all that the leader needs, secrets included, to this new file, of mode 0600
    #[arg(long, value_name = "FILE")]
    pub save: Option<PathBuf>,
    /// Let --save overwrite a file
    #[arg(long, requires = "save")]
    pub force: bool,
}

/// A change of a peer.
#[derive(Debug, Args)]
pub struct PeerSetArgs {
    /// The peer
    #[command(flatten)]
    pub peer: EndpointArg,
    /// What is shared with it
    #[command(flatten)]
    pub secrets: PeerSecretArgs,
    /// Its policy
    #[command(flatten)]
    pub policy: PolicyArgs,
    /// Take a bound away, so that tasks may ask for anything; may be given several times
    #[arg(long, value_enum, value_name = "BOUND")]
    pub lift: Vec<Bound>,
}

/// What a peer's tasks are bound by, and need not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Bound {
    /// The smallest min_batch_size
    MinBatchSizeMin,
    /// The largest max_batch_query_count
    MaxBatchQueryCountMax,
    /// The longest lifetime
    LifetimeMax,
    /// The helper's URL
    HelperUrl,
}

impl PeerSetArgs {
    /// The policy with what was given changed and lifted.
    ///
    /// # Errors
    /// [`Failure::Usage`] if a bound is both set and lifted.
    pub fn change(&self, policy: PeerPolicy) -> Result<PeerPolicy, Failure> {
        let mut policy = self.policy.over(policy);
        for bound in &self.lift {
            let (option, given) = match bound {
                Bound::MinBatchSizeMin => {
                    policy.min_batch_size_min = None;
                    ("--min-batch-size-min", self.policy.min_batch_size_min.is_some())
                }
                Bound::MaxBatchQueryCountMax => {
                    policy.max_batch_query_count_max = None;
                    ("--max-batch-query-count-max", self.policy.max_batch_query_count_max.is_some())
                }
                Bound::LifetimeMax => {
                    policy.lifetime_max = None;
                    ("--lifetime-max", self.policy.lifetime_max.is_some())
                }
                Bound::HelperUrl => {
                    policy.helper_url = None;
                    ("--helper-url", self.policy.helper_url.is_some())
                }
            };
            if given {
                return Err(Failure::Usage(format!("{option} cannot be both set and lifted")));
            }
        }
        Ok(policy)
    }
}
