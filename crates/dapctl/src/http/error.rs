//! How an exchange with a peer can fail.

use std::fmt;

/// A problem document (RFC 9457), or what is known of a refusal without one. Its text is the peer's, made safe to
/// print.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problem {
    /// The HTTP status, as received.
    pub status: u16,
    /// A URN, `about:blank`, or empty without a document.
    pub type_: String,
    /// What kind of problem it is.
    pub title: String,
    /// What went wrong in this case.
    pub detail: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "refused with status {}", self.status)?;
        if !matches!(self.type_.as_str(), "" | "about:blank") {
            write!(f, ", {}", self.type_)?;
        }
        match (self.detail.is_empty(), self.title.is_empty()) {
            (false, _) => write!(f, ": {}", self.detail),
            (true, false) => write!(f, ": {}", self.title),
            (true, true) => Ok(()),
        }
    }
}

/// An exchange failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientError {
    /// The peer answered with a status of 300 or more.
    Problem(Problem),
    /// No answer was had.
    Transport(Transport),
    /// The peer answered with something the protocol does not allow here.
    Protocol(String),
}

/// No answer was had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transport {
    /// What happened.
    pub text: String,
    /// Whether the peer may have got the request, and acted on it, nevertheless.
    pub maybe_received: bool,
}

impl ClientError {
    /// The problem, if the peer refused.
    pub const fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Problem(problem) => Some(problem),
            Self::Transport(_) | Self::Protocol(_) => None,
        }
    }

    /// Whether the request certainly changed nothing at the peer.
    pub const fn changed_nothing(&self) -> bool {
        match self {
            Self::Problem(problem) => problem.status < 500,
            Self::Transport(transport) => !transport.maybe_received,
            Self::Protocol(_) => false,
        }
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Problem(problem) => problem.fmt(f),
            Self::Transport(transport) => write!(f, "no answer: {}", transport.text),
            Self::Protocol(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for ClientError {}
