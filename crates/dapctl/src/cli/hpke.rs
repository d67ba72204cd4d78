//! Commands about HPKE keys.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

/// Commands about HPKE keys.
#[derive(Debug, Subcommand)]
pub enum HpkeCommand {
    /// Makes a new key; its private half never leaves the helper
    #[command(
        after_help = "Example:\n  dapctl hpke add --id 7 --kem p256\n  dapctl hpke add --state pending"
    )]
    Add {
        /// Its id [default: a free one]
        #[arg(long, value_name = "0..255")]
        id: Option<u8>,
        /// Its key encapsulation
        #[arg(long, value_enum)]
        kem: Option<KemName>,
        /// Whether its configuration is published at once
        #[arg(long, value_enum, default_value_t)]
        state: FirstState,
    },
    /// Gives the helper a key pair that was made elsewhere, which is checked first
    ///
    /// The file holds JSON in one of two forms. {"config": .., "private_key": ..}, where config is an object (id, kem_id,
    /// kdf_id, aead_id, public_key) or the base64url of an encoded HpkeConfig; or a collector credential as `divviup`
    /// writes it (id, kem, kdf, aead, public_key, private_key). Keys are base64url.
    #[command(after_help = "Example:\n  dapctl hpke import key.json --pin\n  \
        dapctl hpke import collector-credential-66.json --state pending")]
    Import {
        /// The file
        file: PathBuf,
        /// Pin it: it does not expire, and its place in the list does not move
        #[arg(long, conflicts_with = "state")]
        pin: bool,
        /// Whether its configuration is published at once
        #[arg(long, value_enum, default_value_t)]
        state: FirstState,
    },
    /// Lists all keys: the published ones first, in the order of the published list
    #[command(after_help = "Example:\n  dapctl hpke list\n  dapctl --output json hpke list")]
    List,
    /// Publishes a key; it becomes the first of those that are not pinned
    #[command(after_help = "Example:\n  dapctl hpke activate 7")]
    Activate(KeyIdArg),
    /// Takes a key out of the published list; it opens reports for a while, and is destroyed when no job can need it
    #[command(after_help = "Example:\n  dapctl hpke expire 7")]
    Expire {
        /// The key.
        #[command(flatten)]
        key: KeyIdArg,
        /// Even if no key is published then
        #[arg(long)]
        force: bool,
    },
    /// Destroys an expired key; reports sealed to it are refused from then on
    #[command(after_help = "Example:\n  dapctl hpke rm 7 --force")]
    Rm {
        /// The key.
        #[command(flatten)]
        key: KeyIdArg,
        /// Even if jobs that are repeated may need it: a repeat would then refuse what was counted before
        #[arg(long)]
        force: bool,
    },
    /// Pins an active key: it does not expire, and its place in the list does not move
    #[command(after_help = "Example:\n  dapctl hpke pin 0")]
    Pin(KeyIdArg),
    /// Lets a pinned key expire again
    #[command(after_help = "Example:\n  dapctl hpke unpin 0")]
    Unpin(KeyIdArg),
}

/// A key's id.
#[derive(Clone, Copy, Debug, Args)]
pub struct KeyIdArg {
    /// The key's id
    #[arg(value_name = "0..255")]
    pub id: u8,
}

/// How a key begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum FirstState {
    /// It opens reports, but is not published yet
    Pending,
    /// It is published
    #[default]
    Active,
}

/// Key encapsulations by their names on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum KemName {
    /// Curve25519
    #[value(alias = "X25519HkdfSha256")]
    X25519,
    /// P-256
    #[value(alias = "P256HkdfSha256")]
    P256,
}
