//! Commands about root keys, the file of secrets, and leaders' tokens.

use clap::{Subcommand, ValueEnum};

use super::{NewTokenArgs, TaskIdArg};

/// Whose token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TokenOf {
    /// The admin API's, of ADMIN_TOKENS
    Admin,
    /// The aggregator API's, of AGGREGATOR_API_TOKENS
    Api,
    /// The one that reads metrics and nothing else, of METRICS_TOKENS
    Metrics,
}

/// Commands about root keys and the file of secrets.
#[derive(Clone, Copy, Debug, Subcommand)]
pub enum SecretsCommand {
    /// Tells how many secrets need which root key, and which root keys can be removed
    ///
    /// Exit code 1 if a root key that is needed is missing.
    #[command(after_help = "Example:\n  dapctl secrets status")]
    Status,
    /// Seals all verify keys and HPKE private keys with the newest root key; may be repeated
    #[command(after_help = "Example:\n  dapctl secrets reseal")]
    Reseal,
    /// Prints a token of the --secrets-file, the first of its kind, for another program to read: `"$(dapctl secrets token api)"`
    ///
    /// To a terminal it is printed only with --show.
    #[command(
        after_help = "Example:\n  dapctl --secrets-file secrets.production.json secrets token api | wc -c"
    )]
    Token {
        /// Which one
        #[arg(value_enum, value_name = "WHOSE")]
        of: TokenOf,
        /// Print it also to a terminal
        #[arg(long)]
        show: bool,
    },
}

/// Commands about the tokens of a task's leader.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Lets the leader present one more token; one that is not given is made
    #[command(
        after_help = "Example:\n  dapctl task token add AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA --save token\n  \
        dapctl task token add AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA --leader-token \"$NEW_TOKEN\""
    )]
    Add {
        /// The task.
        #[command(flatten)]
        task: TaskIdArg,
        /// The token.
        #[command(flatten)]
        token: NewTokenArgs,
    },
    /// Lets the leader present a token no longer; other isolates notice within two minutes, rarely within an hour
    #[command(
        after_help = "Example:\n  dapctl task token rm AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA 1f0c52aa"
    )]
    Rm {
        /// The task.
        #[command(flatten)]
        task: TaskIdArg,
        /// The token's name, as `task token list` shows it
        name: String,
    },
    /// Lists the tokens, by name
    #[command(
        after_help = "Example:\n  dapctl task token list AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
    )]
    List(TaskIdArg),
}
