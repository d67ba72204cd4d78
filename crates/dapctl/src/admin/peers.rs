//! Peers that may bring tasks along.

use daphne_core::taskprov::{PeerChange, PeerSpec, PeerView};
use serde::{Deserialize, Serialize};
use ureq::http::Method;
use url::form_urlencoded;

use super::{AdminClient, absent_is_none, json};
use crate::http::ClientError;

const PATH: &str = "admin/taskprov_peers";

/// What became of a new peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddedPeer {
    /// Whether the peer is new; otherwise it existed with the same parameters.
    pub created: bool,
    /// The peer.
    pub peer: PeerView,
}

impl AdminClient {
    /// All peers, by endpoint.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn peers(&self) -> Result<Vec<PeerView>, ClientError> {
        #[derive(Deserialize)]
        struct Peers {
            peers: Vec<PeerView>,
        }
        Ok(self.get::<Peers>(PATH)?.peers)
    }

    /// Adds a peer.
    ///
    /// # Errors
    /// [`ClientError`]; status 409 if a peer with this endpoint and other parameters exists.
    pub fn add_peer(&self, spec: &PeerSpec) -> Result<AddedPeer, ClientError> {
        let answer =
            self.send(Method::POST, PATH, Some(&body(spec)?))?.expect(&[200, 201], None)?;
        Ok(AddedPeer { created: answer.status == 201, peer: json(&answer)? })
    }

    /// Changes a peer; `None` if it does not exist.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn change_peer(&self, change: &PeerChange) -> Result<Option<PeerView>, ClientError> {
        let answer = self.send(Method::PATCH, PATH, Some(&body(change)?))?.expect(&[200], None);
        absent_is_none(answer)?.map(|answer| json(&answer)).transpose()
    }

    /// Removes a peer. Returns whether it existed.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn remove_peer(&self, endpoint: &str) -> Result<bool, ClientError> {
        let mut query = form_urlencoded::Serializer::new(String::new());
        let query = query.append_pair("endpoint", endpoint).finish();
        let answer = self.send(Method::DELETE, &format!("{PATH}?{query}"), None)?;
        Ok(absent_is_none(answer.expect(&[204], None))?.is_some())
    }
}

fn body(value: &impl Serialize) -> Result<Vec<u8>, ClientError> {
    serde_json::to_vec(value)
        .map_err(|_| ClientError::Protocol("the peer cannot be written as JSON".into()))
}
