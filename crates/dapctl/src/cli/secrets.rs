//! Commands about root keys and leaders' tokens.

use clap::Subcommand;

use super::{TaskIdArg, TokenArgs};

/// Commands about root keys.
#[derive(Clone, Copy, Debug, Subcommand)]
pub enum SecretsCommand {
    /// Tells how many secrets need which root key, and which root keys can be removed
    #[command(after_help = "Example:\n  dapctl secrets status")]
    Status,
    /// Seals all verify keys and HPKE private keys with the newest root key; may be repeated
    #[command(after_help = "Example:\n  dapctl secrets reseal")]
    Reseal,
}

/// Commands about the tokens of a task's leader.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Lets the leader present one more token
    #[command(
        after_help = "Example:\n  dapctl task token add AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA --leader-token \"$NEW_TOKEN\""
    )]
    Add {
        /// The task.
        #[command(flatten)]
        task: TaskIdArg,
        /// The token.
        #[command(flatten)]
        token: TokenArgs,
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
