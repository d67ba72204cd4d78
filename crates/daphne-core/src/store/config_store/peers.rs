//! Peers that may bring tasks along ([`crate::taskprov`]): one opaque record each, by endpoint.
//!
//! Who changes a record has read it before, and says what it read: of two changes at once, one is told to read again.

use serde::{Deserialize, Serialize};

use crate::store::StoreResult;

/// Most peers of a deployment. All are listed at once, and each isolate keeps them.
pub const PEERS_MAX: usize = 100;

/// Table of peers.
pub trait PeerTables {
    /// All records, by ascending endpoint.
    ///
    /// # Errors
    /// The database's.
    fn peers(&mut self) -> StoreResult<Vec<Vec<u8>>>;
    /// A peer's record.
    ///
    /// # Errors
    /// The database's.
    fn peer(&mut self, endpoint: &str) -> StoreResult<Option<Vec<u8>>>;
    /// Writes a peer's record (1 row).
    ///
    /// # Errors
    /// The database's.
    fn put_peer(&mut self, endpoint: &str, record: &[u8]) -> StoreResult<()>;
    /// Removes a peer's record (1 row).
    ///
    /// # Errors
    /// The database's.
    fn remove_peer(&mut self, endpoint: &str) -> StoreResult<()>;
}

/// A request about peers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PeerRequest {
    /// All records.
    List,
    /// Write a record, if what is stored is what the writer has read. Idempotent: what is stored already succeeds.
    Put {
        /// The peer's endpoint.
        endpoint: String,
        /// The record that was read; `None` if there was none.
        #[serde(with = "serde_bytes")]
        before: Option<Vec<u8>>,
        /// Its record.
        #[serde(with = "serde_bytes")]
        record: Vec<u8>,
    },
    /// Remove a peer.
    Remove {
        /// The peer's endpoint.
        endpoint: String,
    },
}

/// What the `ConfigStore` answers about peers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PeerResponse {
    /// All records, by ascending endpoint.
    Peers(Vec<serde_bytes::ByteBuf>),
    /// The record is stored.
    Stored,
    /// Something else is stored than was read.
    Changed,
    /// There are [`PEERS_MAX`] peers already.
    Full,
    /// Removed; `true` if it existed until now.
    Removed(bool),
}

/// Handles a request.
pub(super) fn respond(t: &mut impl PeerTables, request: PeerRequest) -> StoreResult<PeerResponse> {
    match request {
        PeerRequest::List => {
            let records = t.peers()?.into_iter().map(serde_bytes::ByteBuf::from);
            Ok(PeerResponse::Peers(records.collect()))
        }
        PeerRequest::Put { endpoint, before, record } => {
            let stored = t.peer(&endpoint)?;
            if stored.as_ref() == Some(&record) {
                return Ok(PeerResponse::Stored);
            }
            if stored != before {
                return Ok(PeerResponse::Changed);
            }
            if stored.is_none() && t.peers()?.len() >= PEERS_MAX {
                return Ok(PeerResponse::Full);
            }
            t.put_peer(&endpoint, &record)?;
            Ok(PeerResponse::Stored)
        }
        PeerRequest::Remove { endpoint } => {
            let existed = t.peer(&endpoint)?.is_some();
            if existed {
                t.remove_peer(&endpoint)?;
            }
            Ok(PeerResponse::Removed(existed))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::memory::MemoryConfigTables;

    fn put(
        t: &mut MemoryConfigTables,
        endpoint: &str,
        before: Option<&[u8]>,
        record: &[u8],
    ) -> PeerResponse {
        let request = PeerRequest::Put {
            endpoint: endpoint.to_owned(),
            before: before.map(<[u8]>::to_vec),
            record: record.to_vec(),
        };
        respond(t, request).unwrap()
    }

    fn list(t: &mut MemoryConfigTables) -> Vec<Vec<u8>> {
        match respond(t, PeerRequest::List).unwrap() {
            PeerResponse::Peers(records) => records.into_iter().map(|r| r.into_vec()).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn of_two_changes_at_once_one_is_told_to_read_again() {
        let mut t = MemoryConfigTables::default();
        assert_eq!(put(&mut t, "b", None, b"1"), PeerResponse::Stored);
        assert_eq!(put(&mut t, "b", None, b"1"), PeerResponse::Stored, "a repeat");
        assert_eq!(put(&mut t, "b", None, b"2"), PeerResponse::Changed);
        assert_eq!(put(&mut t, "b", Some(b"1"), b"2"), PeerResponse::Stored);
        assert_eq!(put(&mut t, "b", Some(b"1"), b"3"), PeerResponse::Changed);
        assert_eq!(put(&mut t, "a", Some(b"1"), b"3"), PeerResponse::Changed, "it is gone");
        assert_eq!(put(&mut t, "a", None, b"4"), PeerResponse::Stored);
        assert_eq!(list(&mut t), [b"4", b"2"]);
    }

    #[test]
    fn a_removed_peer_is_gone_and_may_come_again() {
        let mut t = MemoryConfigTables::default();
        let remove = || PeerRequest::Remove { endpoint: "a".to_owned() };
        assert_eq!(respond(&mut t, remove()), Ok(PeerResponse::Removed(false)));
        put(&mut t, "a", None, b"1");
        assert_eq!(respond(&mut t, remove()), Ok(PeerResponse::Removed(true)));
        assert!(list(&mut t).is_empty());
        assert_eq!(put(&mut t, "a", None, b"2"), PeerResponse::Stored);
    }

    #[test]
    fn peers_are_bounded() {
        let mut t = MemoryConfigTables::default();
        for n in 0..PEERS_MAX {
            assert_eq!(put(&mut t, &n.to_string(), None, b"1"), PeerResponse::Stored);
        }
        assert_eq!(put(&mut t, "one more", None, b"1"), PeerResponse::Full);
        assert_eq!(
            put(&mut t, "7", Some(b"1"), b"2"),
            PeerResponse::Stored,
            "a change is no new one"
        );
    }
}
