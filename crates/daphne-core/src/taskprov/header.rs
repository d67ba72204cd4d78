//! The header by which a leader brings a task along, and the task in it: taskprov-07 §4.2 for DAP-09, taskprov-04 of the
//! working group §3 for DAP-18.
//!
//! The older draft has a structure of its own and makes a malformed header the leader's fault; in the newer one the header
//! holds the task's configuration, and what does not decode is as if it were not there.

use base64::{
    Engine as _,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use sha2::{Digest as _, Sha256};

use super::{HEADER_CHARS_MAX, Peer, advertised, decode_header, opt_in, task_id};
use crate::{
    b64,
    error::{Abort, AbortKind},
    ids::TaskId,
    task::Task,
    time::Time,
    version::DapVersion,
    wire::{v09, v18},
};

/// SHA-256 of `dap-taskprov task id`. taskprov-04 §3.3.
const ID_SALT: [u8; 32] = [
    0x46, 0x0d, 0xed, 0x74, 0x28, 0x64, 0x87, 0xbe, 0x98, 0x68, 0x68, 0xd1, 0x9d, 0xb8, 0xdb, 0x1b,
    0x05, 0x84, 0x58, 0x38, 0xe4, 0xd6, 0x29, 0x1e, 0xf1, 0x5b, 0x6e, 0x20, 0x52, 0x0b, 0xdc, 0x82,
];

/// base64 as structured fields have it: padding is written, and may be missing. RFC 9651 §4.2.7.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A task in the header of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Advertised<'a> {
    /// As taskprov-07 writes it.
    TaskConfig(v09::TaskConfig<'a>),
    /// As DAP-18 §4.2 writes it, with its encoding.
    TaskConfiguration(v18::TaskConfiguration<'a>, &'a [u8]),
}

impl DapVersion {
    /// The id of a task that is known by its encoded parameters: their hash. taskprov-07 §3, and taskprov-04 §3.3 for
    /// DAP-18, which salts it.
    pub fn taskprov_id(self, parameters: &[u8]) -> TaskId {
        match self {
            Self::V09 => task_id(parameters),
            Self::V18 => {
                let hash = Sha256::new().chain_update(ID_SALT).chain_update(parameters).finalize();
                TaskId::new(hash.into())
            }
        }
    }

    /// The value of the header with these parameters: base64url in taskprov-07 §4.2 for DAP-09, a byte sequence of
    /// RFC 9651 in taskprov-04 §3.2 for DAP-18.
    pub fn taskprov_header(self, parameters: &[u8]) -> String {
        match self {
            Self::V09 => b64::encode(parameters),
            Self::V18 => format!(":{}:", BASE64.encode(parameters)),
        }
    }

    /// The parameters in a header, as they are encoded. `None` if the header is to be ignored: taskprov-04 §3.2 for DAP-18
    /// has everything ignored that is no byte sequence.
    // SPEC: taskprov-04 §3.2 has a byte sequence only. An implementation that runs ahead of its draft still writes base64url,
    // which no byte sequence can be taken for: both are read.
    ///
    /// # Errors
    /// The leader's fault, in DAP-09: what [`decode_header`] says.
    pub fn taskprov_parameters(self, header: &str) -> Result<Option<Vec<u8>>, Abort> {
        match self {
            Self::V09 => decode_header(header).map(Some),
            Self::V18 if header.len() > HEADER_CHARS_MAX => Ok(None),
            Self::V18 => {
                let header = header.trim_matches(' ');
                Ok(match header.strip_prefix(':').and_then(|rest| rest.split_once(':')) {
                    Some((bytes, parameters)) if is_parameters(parameters) => {
                        BASE64.decode(bytes).ok()
                    }
                    Some(_) => None,
                    None => b64::decode(header),
                })
            }
        }
    }

    /// The task whose encoded parameters these are, of a request that names the task `id`. `None` as for
    /// [`DapVersion::taskprov_parameters`]: to taskprov-04 §3.2, for DAP-18, what is no configuration is not there, while
    /// taskprov-07 §4.8 calls it malformed.
    ///
    /// # Errors
    /// The leader's fault: what [`advertised`] says, in DAP-18 only `unrecognizedTask`.
    pub fn taskprov_task<'a>(
        self,
        parameters: &'a [u8],
        id: &TaskId,
    ) -> Result<Option<Advertised<'a>>, Abort> {
        match self {
            Self::V09 => {
                advertised(parameters, id).map(|config| Some(Advertised::TaskConfig(config)))
            }
            Self::V18 => {
                let Ok(configuration) = v18::TaskConfiguration::decode(parameters) else {
                    return Ok(None);
                };
                if self.taskprov_id(parameters) != *id {
                    let why = "the taskprov header describes another task";
                    return Err(Abort::new(AbortKind::UnrecognizedTask, why));
                }
                Ok(Some(Advertised::TaskConfiguration(configuration, parameters)))
            }
        }
    }
}

/// Whether these are the parameters of an item of a structured field, which mean nothing to us: `;key=value;…`.
fn is_parameters(text: &str) -> bool {
    text.is_empty() || text.starts_with(';') && text.bytes().all(|b| (0x20..0x7f).contains(&b))
}

impl<'a> Advertised<'a> {
    /// DAP URL of the leader.
    pub fn leader_url(&self) -> &'a str {
        match self {
            Self::TaskConfig(config) => config.leader_aggregator_endpoint,
            Self::TaskConfiguration(configuration, _) => configuration.leader_aggregator_endpoint,
        }
    }

    /// The task, if we take part in it: [`opt_in`].
    ///
    /// # Errors
    /// We opt out, `invalidTask`.
    pub fn opt_in(
        &self,
        id: TaskId,
        peer: &Peer,
        now: Time,
        shard_key_version: u32,
    ) -> Result<Task, Abort> {
        match self {
            Self::TaskConfig(config) => opt_in(config, id, peer, now, shard_key_version),
            Self::TaskConfiguration(configuration, encoded) => {
                super::opt_in::opt_in_18(configuration, encoded, id, peer, now, shard_key_version)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of taskprov-04 §3.2.
    const EXAMPLE: &str = ":BHRlc3QAG2h0dHBzOi8vbGVhZGVyLmV4YW1wbGUuY29tLwAbaHR0cHM6Ly9oZWxwZXIuZXhhbXBsZS5jb20vAAAAAAAAADwAAAAAAAAACgEAAAAAAAEAAAAUAAEAEAAAAAAAAAA8AAAAAAAAAGQ=:";
    const EXAMPLE_ID: &str = "NYSKiYrbFGtVk4UkfH5J2xy9KK9S48Ec-wHU_EtJBHk";
    const V18: DapVersion = DapVersion::V18;

    fn parameters(header: &str) -> Option<Vec<u8>> {
        V18.taskprov_parameters(header).unwrap()
    }

    #[test]
    fn the_drafts_example_is_a_task() {
        assert_eq!(ID_SALT, <[u8; 32]>::from(Sha256::digest("dap-taskprov task id")));
        let bytes = parameters(EXAMPLE).unwrap();
        assert_eq!(bytes.len(), 110);
        assert_eq!(V18.taskprov_header(&bytes), EXAMPLE);
        let id: TaskId = EXAMPLE_ID.parse().unwrap();
        assert_eq!(V18.taskprov_id(&bytes), id);
        let Some(Advertised::TaskConfiguration(task, _)) = V18.taskprov_task(&bytes, &id).unwrap()
        else {
            panic!("a task")
        };
        assert_eq!(
            (task.task_info, task.time_precision, task.min_batch_size),
            (&b"test"[..], 60, 10)
        );
        assert_eq!(task.task_interval(), Ok(Some(v18::Interval { start: 60, duration: 100 })));
        assert_eq!(task.encode().unwrap(), bytes);
    }

    #[test]
    fn what_is_no_byte_sequence_or_no_configuration_is_not_there() {
        let bytes = parameters(EXAMPLE).unwrap();
        let plain = EXAMPLE.trim_matches(':');
        for (header, is_read) in [
            (format!("{EXAMPLE};a=1"), true),
            (format!("  {EXAMPLE}  "), true),
            (EXAMPLE.replace('=', ""), true),
            (b64::encode(&bytes), true),
            (plain.to_owned(), false),
            (format!(":{plain}"), false),
            (format!("{EXAMPLE}x"), false),
            (format!("{EXAMPLE}, {EXAMPLE}"), false),
            (format!("\"{plain}\""), false),
            (format!(":{}:", "A".repeat(HEADER_CHARS_MAX)), false),
        ] {
            assert_eq!(parameters(&header).as_ref() == Some(&bytes), is_read, "{header}");
        }
        let id = EXAMPLE_ID.parse().unwrap();
        assert_eq!(V18.taskprov_task(&bytes[1..], &id), Ok(None));
        assert_eq!(V18.taskprov_task(&[], &id), Ok(None));
        let other = V18.taskprov_task(&bytes, &TaskId::new([0; 32])).unwrap_err();
        assert_eq!(other.kind, AbortKind::UnrecognizedTask);
    }
}
