//! Why one report was refused.

use serde::{Deserialize, Serialize};

use crate::error::ReportError;

/// Why one report was refused, finer than the [`ReportError`] that its leader is told. Numbers are small ones of the
/// report's; `None` stands for several. Stored: new kinds go to the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Failure {
    /// Its batch was collected before it arrived.
    BatchCollected,
    /// Its id was aggregated before, or its verification began another way.
    Replayed,
    /// It is too old, or one of so many batch buckets that one job cannot hold them.
    Dropped,
    /// Its time is further in the future than clocks may differ.
    TooEarly,
    /// It was made after the task ended.
    TaskExpired,
    /// It was sealed for a key of ours, and made after that key's end.
    KeyExpired,
    /// It was sealed for an HPKE configuration that we do not have.
    UnknownKey(Option<u8>),
    /// Its input share does not open.
    Decryption,
    /// What its ciphertext is bound to cannot be encoded. Not reachable with messages of an accepted size.
    AadEncoding,
    /// What was sealed is no plaintext input share.
    Plaintext,
    /// Its public share does not decode.
    PublicShare,
    /// Its input share does not decode.
    InputShare,
    /// It has an extension twice.
    DuplicateExtension(Option<u16>),
    /// It has an extension that we do not know.
    UnknownExtension(Option<u16>),
    /// Its task came with taskprov, and its extension is missing or has data.
    MissingTaskprov,
    /// It has the extension of taskprov, and its task did not come so.
    UnexpectedTaskprov,
    /// The leader's verifier share, or the message with it, does not decode.
    LeaderShare,
    /// The leader is not where we are: its message is of another kind than the one that comes next.
    StepMismatch,
    /// The leader says that it is done, and we are not.
    FinishMismatch,
    /// Verification cannot begin. Not reachable with the VDAFs that there are.
    VerifyInit,
    /// The verifier shares do not combine: the proof is wrong.
    Proof,
    /// The verifier message does not fit what was computed before.
    VerifyStep,
    /// The leader's verifier message, or the message with it, does not decode.
    LeaderMessage,
    /// Another reason of its error, as it was recorded.
    Other(ReportError),
    /// It was made before the task began.
    TaskNotStarted,
    /// Its extensions are not in order.
    UnorderedExtensions,
    /// Its public extensions do not decode.
    PublicExtensions,
}

impl Failure {
    /// Every kind, without numbers, but for [`Failure::Other`].
    pub const ALL: [Self; 26] = [
        Self::BatchCollected,
        Self::Replayed,
        Self::Dropped,
        Self::TooEarly,
        Self::TaskExpired,
        Self::KeyExpired,
        Self::UnknownKey(None),
        Self::Decryption,
        Self::AadEncoding,
        Self::Plaintext,
        Self::PublicShare,
        Self::InputShare,
        Self::DuplicateExtension(None),
        Self::UnknownExtension(None),
        Self::MissingTaskprov,
        Self::UnexpectedTaskprov,
        Self::LeaderShare,
        Self::StepMismatch,
        Self::FinishMismatch,
        Self::VerifyInit,
        Self::Proof,
        Self::VerifyStep,
        Self::LeaderMessage,
        Self::TaskNotStarted,
        Self::UnorderedExtensions,
        Self::PublicExtensions,
    ];

    /// What the leader is told.
    pub const fn report_error(self) -> ReportError {
        match self {
            Self::BatchCollected => ReportError::BatchCollected,
            Self::Replayed => ReportError::ReportReplayed,
            Self::Dropped => ReportError::ReportDropped,
            Self::TooEarly => ReportError::ReportTooEarly,
            Self::TaskExpired => ReportError::TaskExpired,
            Self::TaskNotStarted => ReportError::TaskNotStarted,
            Self::KeyExpired | Self::UnknownKey(_) => ReportError::HpkeUnknownConfigId,
            Self::Decryption => ReportError::HpkeDecryptError,
            Self::AadEncoding
            | Self::Plaintext
            | Self::PublicShare
            | Self::InputShare
            | Self::DuplicateExtension(_)
            | Self::UnknownExtension(_)
            | Self::MissingTaskprov
            | Self::UnexpectedTaskprov
            | Self::UnorderedExtensions
            | Self::PublicExtensions => ReportError::InvalidMessage,
            Self::LeaderShare
            | Self::StepMismatch
            | Self::FinishMismatch
            | Self::VerifyInit
            | Self::Proof
            | Self::VerifyStep
            | Self::LeaderMessage => ReportError::VdafVerifyError,
            Self::Other(error) => error,
        }
    }

    /// The reason behind a refusal that a store decided or recorded.
    pub const fn recorded(error: ReportError) -> Self {
        match error {
            ReportError::BatchCollected => Self::BatchCollected,
            ReportError::ReportReplayed => Self::Replayed,
            ReportError::ReportDropped => Self::Dropped,
            ReportError::ReportTooEarly => Self::TooEarly,
            ReportError::TaskExpired => Self::TaskExpired,
            ReportError::TaskNotStarted => Self::TaskNotStarted,
            // An unknown key is refused before the owner is asked; what the owner records is a key's end.
            ReportError::HpkeUnknownConfigId => Self::KeyExpired,
            other => Self::Other(other),
        }
    }

    /// Its `type` in Janus' counter of failed steps; `None` for what Janus does not count there. The one of unknown
    /// extensions is ours: Janus takes them.
    pub const fn step_failure(self) -> Option<&'static str> {
        Some(match self {
            Self::UnknownKey(_) | Self::KeyExpired => "unknown_hpke_config_id",
            Self::Decryption => "decrypt_failure",
            Self::AadEncoding => "input_share_aad_encode_failure",
            Self::Plaintext => "plaintext_input_share_decode_failure",
            Self::PublicShare => "public_share_decode_failure",
            Self::InputShare => "input_share_decode_failure",
            Self::DuplicateExtension(_) => "duplicate_extension",
            Self::UnknownExtension(_) => "unknown_extension",
            Self::MissingTaskprov => "missing_or_malformed_taskprov_extension",
            Self::UnexpectedTaskprov => "unexpected_taskprov_extension",
            Self::LeaderShare => "leader_prep_share_decode_failure",
            Self::StepMismatch => "continue_mismatch",
            Self::FinishMismatch => "finish_mismatch",
            Self::VerifyInit => "prepare_init_failure",
            Self::Proof => "prepare_message_failure",
            Self::VerifyStep => "prepare_step_failure",
            Self::LeaderMessage => "prepare_message_decode_failure",
            Self::UnorderedExtensions => "unordered_extensions",
            Self::PublicExtensions => "public_extensions_decode_failure",
            Self::BatchCollected
            | Self::Replayed
            | Self::Dropped
            | Self::TooEarly
            | Self::TaskExpired
            | Self::TaskNotStarted
            | Self::Other(_) => return None,
        })
    }

    /// The same without its number: what counters are kept of.
    #[must_use]
    pub const fn kind(self) -> Self {
        match self {
            Self::UnknownKey(_) => Self::UnknownKey(None),
            Self::DuplicateExtension(_) => Self::DuplicateExtension(None),
            Self::UnknownExtension(_) => Self::UnknownExtension(None),
            other => other,
        }
    }

    /// The reason for people: the code that the leader gets, and what lies behind it. Holds no bytes of the report but
    /// its small numbers.
    pub fn text(self) -> String {
        let several = || "several".to_owned();
        let why = match self {
            Self::BatchCollected => "its batch was collected before it came".to_owned(),
            Self::Replayed => "its id was aggregated before".to_owned(),
            Self::Dropped => "it is too old, or its job has too many batch buckets".to_owned(),
            Self::TooEarly => "it is from the future".to_owned(),
            Self::TaskExpired => "it was made after the task ended".to_owned(),
            Self::KeyExpired => "it was made after its key's end".to_owned(),
            Self::UnknownKey(id) => {
                format!("configuration {}", id.map_or_else(several, |id| id.to_string()))
            }
            Self::Decryption => "its input share does not open".to_owned(),
            Self::AadEncoding => "its associated data cannot be encoded".to_owned(),
            Self::Plaintext => "what was sealed is no input share with extensions".to_owned(),
            Self::PublicShare => "public share of another length or form".to_owned(),
            Self::InputShare => "input share of another length or form".to_owned(),
            Self::DuplicateExtension(code) => {
                format!("repeated extension {}", code.map_or_else(several, hex))
            }
            Self::UnknownExtension(code) => {
                format!("unknown extension {}", code.map_or_else(several, hex))
            }
            Self::MissingTaskprov => "the taskprov extension is missing or has data".to_owned(),
            Self::UnexpectedTaskprov => "the taskprov extension, in another task".to_owned(),
            Self::LeaderShare => "the leader's verifier share does not decode".to_owned(),
            Self::StepMismatch => "the leader's message is of another step".to_owned(),
            Self::FinishMismatch => "the leader finishes before it may".to_owned(),
            Self::VerifyInit => "verification cannot begin".to_owned(),
            Self::Proof => "the proof does not verify".to_owned(),
            Self::VerifyStep => "the verifier message does not fit".to_owned(),
            Self::LeaderMessage => "the leader's verifier message does not decode".to_owned(),
            Self::TaskNotStarted => "it was made before the task began".to_owned(),
            Self::UnorderedExtensions => "its extensions are out of order".to_owned(),
            Self::PublicExtensions => "its public extensions do not decode".to_owned(),
            Self::Other(_) => return self.report_error().label().to_owned(),
        };
        format!("{}: {why}", self.report_error().label())
    }
}

fn hex(code: u16) -> String {
    format!("0x{code:04x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_what_its_leader_is_told_and_a_little_more() {
        for failure in Failure::ALL {
            assert_eq!(failure.kind(), failure);
            assert!(failure.text().starts_with(failure.report_error().label()));
        }
        assert_eq!(Failure::UnknownKey(Some(7)).text(), "hpke_unknown_config_id: configuration 7");
        assert_eq!(
            Failure::UnknownExtension(Some(0x1234)).text(),
            "invalid_message: unknown extension 0x1234"
        );
        for error in ReportError::ALL {
            assert_eq!(Failure::recorded(error).report_error(), error);
        }
    }
}
