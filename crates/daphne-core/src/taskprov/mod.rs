//! Tasks that a leader brings along: draft-wang-ppm-dap-taskprov-07 ("taskprov-07") for DAP-09, and for DAP-18 what comes
//! closest, draft-ietf-ppm-dap-taskprov-04 ("taskprov-04").
//!
//! Each request of such a leader carries the task's parameters in a header, and their hash is the task's id. The helper
//! *opts in* when it meets a task for the first time ([`opt_in()`]): if a [`Peer`] is configured that may bring it, and
//! its parameters are acceptable. From then on it is a task like any other, but for two things: the tokens that open it
//! are its peer's, whatever they are at the time, and each of its reports carries a report extension, in taskprov-07.

mod advertise;
mod header;
mod opt_in;
mod peer;

use std::fmt;

use hkdf::Hkdf;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

pub use advertise::advertise;
pub use header::Advertised;
pub use opt_in::opt_in;
pub use peer::{
    LEADER_TOKENS_MAX, OpenPeerError, Peer, PeerChange, PeerParameters, PeerPolicy, PeerSpec,
    PeerToken, PeerView, StoredPeer,
};
pub(crate) use peer::{check_url, seal_label};

use crate::{
    b64,
    error::{Abort, AbortKind},
    ids::TaskId,
    wire::v09::TaskConfig,
};

/// Name of the header that carries a task's parameters. taskprov-07 §4.2, taskprov-04 §3.2.
pub const HEADER: &str = "dap-taskprov";

/// Longest header that is read, in characters: three quarters as many bytes, of which two URLs and 255 bytes of task
/// information take the most.
pub const HEADER_CHARS_MAX: usize = 4_096;

/// SHA-256 of `dap-taskprov`. taskprov-07 §4.3.
const SALT: [u8; 32] = [
    0x28, 0xb9, 0xbb, 0x4f, 0x62, 0x4f, 0x67, 0x9a, 0xc1, 0x98, 0xd9, 0x68, 0xf4, 0xb0, 0x9e, 0xec,
    0x74, 0x01, 0x7a, 0x52, 0xcb, 0x4c, 0xf6, 0x39, 0xfb, 0x83, 0xe0, 0x47, 0x72, 0x3a, 0x0f, 0xfe,
];

/// The bytes of a header: base64url without padding. taskprov-07 §4.2.
///
/// # Errors
/// The leader's fault, `invalidMessage`: it is too long, or not that. taskprov-07 §4.8.
pub fn decode_header(text: &str) -> Result<Vec<u8>, Abort> {
    if text.len() > HEADER_CHARS_MAX {
        return Err(Abort::invalid_message(format!(
            "the {HEADER} header is longer than {HEADER_CHARS_MAX} characters"
        )));
    }
    b64::decode(text).ok_or_else(|| {
        Abort::invalid_message(format!("the {HEADER} header is not base64url without padding"))
    })
}

/// The parameters in the bytes of a header, of a request that names the task `id`. taskprov-07 §4.8.
///
/// # Errors
/// The leader's fault: `invalidMessage` if they do not decode, then `unrecognizedTask` if they are another task's.
pub fn advertised<'a>(bytes: &'a [u8], id: &TaskId) -> Result<TaskConfig<'a>, Abort> {
    let config = TaskConfig::decode(bytes)
        .map_err(|e| Abort::invalid_message(format!("the {HEADER} header: {e}")))?;
    if task_id(bytes) != *id {
        return Err(Abort::new(
            AbortKind::UnrecognizedTask,
            format!("the {HEADER} header describes another task"),
        ));
    }
    Ok(config)
}

/// The id of the task with these parameters, as encoded. taskprov-07 §3.
pub fn task_id(config: &[u8]) -> TaskId {
    TaskId::new(Sha256::digest(config).into())
}

/// Where a task came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskOrigin {
    /// Endpoint of the peer that leads it.
    pub leader_url: String,
    /// What its author calls it, `1..=255` bytes.
    #[serde(with = "b64::serde_b64")]
    pub task_info: Vec<u8>,
}

/// The secret, of 32 bytes, that two aggregators share and derive their tasks' verify keys from. JSON: base64url.
/// `Debug` prints the type's name. taskprov-07 §4.3.
#[derive(Clone, PartialEq, Eq)]
pub struct VerifyKeyInit(Zeroizing<[u8; 32]>);

impl VerifyKeyInit {
    /// Wraps the bytes; every value is valid.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The verify key of a task, of `len` bytes, at most 8,160. taskprov-07 §4.3.
    pub fn verify_key(&self, id: &TaskId, len: usize) -> Zeroizing<Vec<u8>> {
        let mut key = Zeroizing::new(vec![0; len]);
        // Unwrap safety: HKDF-SHA256 refuses only outputs beyond 8,160 bytes; no VDAF's key is near that.
        Hkdf::<Sha256>::new(Some(&SALT), &*self.0).expand(id.as_bytes(), &mut key).unwrap();
        key
    }
}

impl fmt::Debug for VerifyKeyInit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("VerifyKeyInit")
    }
}

impl Serialize for VerifyKeyInit {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        b64::serde_b64::serialize(self.as_bytes(), s)
    }
}

impl<'de> Deserialize<'de> for VerifyKeyInit {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let bytes = Zeroizing::new(b64::serde_b64::deserialize(d)?);
        <[u8; 32]>::try_from(bytes.as_slice())
            .map(Self::new)
            .map_err(|_| D::Error::custom("expected 32 bytes"))
    }
}
