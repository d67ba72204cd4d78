//! Commands about HPKE keys.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use daphne_core::{hpke::HpkeKem, time::Duration};

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
        /// Publish it even if a key is pinned, whose clients may compare the whole list
        #[arg(long)]
        force: bool,
    },
    /// Makes a key pair on this machine, in a new file of mode 0600 for `hpke import`, and tells the helper nothing
    #[command(after_help = "Example:\n  dapctl hpke generate --id 0 --out key.json")]
    Generate {
        /// Its id
        #[arg(long, value_name = "0..255")]
        id: u8,
        /// Its key encapsulation [default: x25519]
        #[arg(long, value_enum)]
        kem: Option<KemName>,
        /// Where the key pair is written
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Gives the helper a key pair that was made elsewhere, which is checked first
    ///
    /// The file is in one of three forms. JSON or YAML with config and private_key, where config is an object (id, kem_id,
    /// kdf_id, aead_id, public_key) or the base64url of an encoded HpkeConfig; what Janus' `hpke_keygen` prints; or a
    /// collector credential as `divviup` writes it (id, kem, kdf, aead, public_key, private_key). Keys are base64url.
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
        /// Publish it even if a key is pinned, whose clients may compare the whole list
        #[arg(long)]
        force: bool,
    },
    /// Lists all keys: the published ones first, in the order of the published list
    #[command(after_help = "Example:\n  dapctl hpke list\n  dapctl --output json hpke list")]
    List,
    /// Publishes a key; it becomes the first of those that are not pinned
    #[command(after_help = "Example:\n  dapctl hpke activate 7")]
    Activate {
        /// The key.
        #[command(flatten)]
        key: KeyIdArg,
        /// Even if a key is pinned, whose clients may compare the whole list
        #[arg(long)]
        force: bool,
    },
    /// Takes a key out of the published list; it opens reports made within a week, and is destroyed when none can come
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
    Pin {
        /// The key.
        #[command(flatten)]
        key: KeyIdArg,
        /// Even if the schedule is on, by which the list changes for clients that compare it
        #[arg(long)]
        force: bool,
    },
    /// Lets a pinned key expire again
    #[command(after_help = "Example:\n  dapctl hpke unpin 0")]
    Unpin(KeyIdArg),
    /// Publishes the next key, a pending one or else a new one; all that are not pinned expire
    #[command(after_help = "Example:\n  dapctl hpke rotate")]
    Rotate {
        /// Even if a key is pinned, whose clients may compare the whole list
        #[arg(long)]
        force: bool,
    },
    /// Shows the schedule by which keys come and go, or changes it; without one, operators do it
    #[command(after_help = "Example:\n  dapctl hpke policy\n  \
        dapctl hpke policy --on --active-for 28d\n  dapctl hpke policy --off")]
    Policy(HpkePolicyArgs),
}

/// A schedule. What is not given is as it was, or else as in --help.
#[derive(Clone, Copy, Debug, Args)]
pub struct HpkePolicyArgs {
    /// Follow the schedule from now on
    #[arg(long, conflicts_with = "off")]
    pub on: bool,
    /// Follow none
    #[arg(long)]
    pub off: bool,
    /// How long a key is known to the helper before clients see it, such as 90m [default: 1h]
    #[arg(long, value_name = "TIME", value_parser = duration, requires = "on")]
    pub pending_for: Option<Duration>,
    /// How long a key is published, such as 28d [default: 84d]
    #[arg(long, value_name = "TIME", value_parser = duration, requires = "on")]
    pub active_for: Option<Duration>,
    /// Reports made so much later may still be sealed to it [default: 7d]
    #[arg(long, value_name = "TIME", value_parser = duration, requires = "on")]
    pub expired_for: Option<Duration>,
    /// Key encapsulation of the keys that come and go; those of another are left alone [default: x25519]
    #[arg(long, value_enum, requires = "on")]
    pub kem: Option<KemName>,
    /// Even if a key is pinned, whose clients may compare the whole list
    #[arg(long, requires = "on")]
    pub force: bool,
}

/// A number of seconds, or of what `m`, `h` or `d` says.
fn duration(text: &str) -> Result<Duration, String> {
    let units = [("s", 1), ("m", 60), ("h", 3_600), ("d", 86_400)];
    let unit = units.iter().find_map(|(unit, s)| Some((text.strip_suffix(unit)?, *s)));
    let (number, s) = unit.unwrap_or((text, 1));
    let number: Option<u64> = number.parse().ok().filter(|_| !number.starts_with('+'));
    number
        .and_then(|n| n.checked_mul(s))
        .map(Duration::from_seconds)
        .ok_or_else(|| "expected a number of seconds, or one followed by m, h or d".to_owned())
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

impl From<KemName> for HpkeKem {
    fn from(name: KemName) -> Self {
        match name {
            KemName::X25519 => Self::X25519HkdfSha256,
            KemName::P256 => Self::P256HkdfSha256,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        for (text, s) in
            [("0", 0), ("90", 90), ("90s", 90), ("2m", 120), ("1h", 3_600), ("28d", 2_419_200)]
        {
            assert_eq!(duration(text), Ok(Duration::from_seconds(s)), "{text}");
        }
        for text in ["", "d", "1w", "-1", "+1", "1.5h", "1 d", "999999999999999999d"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
