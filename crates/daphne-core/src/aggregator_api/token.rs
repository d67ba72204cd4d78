//! The leader's token that a control plane is given with a task.
//!
//! The answer that holds it may be lost, and a repeat must hold a token that works. So it is kept, sealed as verify keys
//! are; deriving it from a root key would need no storage, but then whoever learns that root key could make every leader's
//! token without having seen our storage, and no later root key would help.

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::{
    b64,
    ids::TaskId,
    seal::{RootKeys, TokenHash},
    task::OpenTaskError,
};

/// A leader's token at rest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IssuedToken {
    /// Its hash: while it is one of those that the task accepts, the token works.
    pub hash: TokenHash,
    /// The token, sealed under the task's id.
    #[serde(with = "b64::serde_b64")]
    pub sealed: Vec<u8>,
}

impl IssuedToken {
    /// A token of the task, made of 16 random bytes. `nonce` is fresh randomness.
    pub fn new(task: &TaskId, secret: &[u8; 16], keys: &RootKeys, nonce: [u8; 12]) -> Self {
        let token = Zeroizing::new(b64::encode(secret));
        Self {
            hash: TokenHash::of(&token),
            sealed: keys.seal(&seal_label(task), token.as_bytes(), nonce),
        }
    }

    /// The token: base64url, 22 characters.
    ///
    /// # Errors
    /// Ours: the root key it was sealed with is missing, or the record is broken.
    pub fn open(&self, task: &TaskId, keys: &RootKeys) -> Result<Zeroizing<String>, OpenTaskError> {
        let bytes = keys.open(&seal_label(task), &self.sealed)?;
        String::from_utf8(bytes.to_vec()).map(Zeroizing::new).map_err(|_| OpenTaskError::Broken)
    }
}

pub(crate) fn seal_label(task: &TaskId) -> String {
    format!("leader token of task {task}")
}
