//! How a command ends when it does not succeed.

use std::fmt;

use crate::http::ClientError;

/// Why a command failed: one sentence, and a class that is the exit code. Never holds a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// A peer refused, or its answer is wrong. Exit code 1.
    Wrong(String),
    /// The command line or a file it names is unusable. Exit code 2.
    Usage(String),
    /// No answer was had. Exit code 3.
    Unreachable(String),
}

impl Failure {
    /// The process's exit code.
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Wrong(_) => 1,
            Self::Usage(_) => 2,
            Self::Unreachable(_) => 3,
        }
    }

    /// The same failure, with what was being done before its text.
    #[must_use]
    pub fn during(self, what: &str) -> Self {
        let longer = |text: String| format!("{what}: {text}");
        match self {
            Self::Wrong(text) => Self::Wrong(longer(text)),
            Self::Usage(text) => Self::Usage(longer(text)),
            Self::Unreachable(text) => Self::Unreachable(longer(text)),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wrong(text) | Self::Usage(text) | Self::Unreachable(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for Failure {}

impl From<ClientError> for Failure {
    fn from(e: ClientError) -> Self {
        match e {
            ClientError::Problem(_) | ClientError::Protocol(_) => Self::Wrong(e.to_string()),
            ClientError::Transport(_) => Self::Unreachable(e.to_string()),
        }
    }
}
