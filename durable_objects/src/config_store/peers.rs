//! The table of peers that may bring tasks along.

use daphne_core::store::{StoreResult, config_store::peers::PeerTables};
use worker::SqlStorageValue;

use super::ConfigSql;
use crate::sql::blob;

pub(super) const SCHEMA: &str =
    "CREATE TABLE IF NOT EXISTS peer (endpoint TEXT PRIMARY KEY, record BLOB) WITHOUT ROWID";

impl PeerTables for ConfigSql {
    fn peers(&mut self) -> StoreResult<Vec<Vec<u8>>> {
        self.0.all("SELECT record FROM peer ORDER BY endpoint", vec![], |mut row| row.blob())
    }

    fn peer(&mut self, endpoint: &str) -> StoreResult<Option<Vec<u8>>> {
        let endpoint = vec![SqlStorageValue::from(endpoint)];
        self.0.first("SELECT record FROM peer WHERE endpoint = ?", endpoint, |mut row| row.blob())
    }

    fn put_peer(&mut self, endpoint: &str, record: &[u8]) -> StoreResult<()> {
        let row = vec![SqlStorageValue::from(endpoint), blob(record)];
        self.0.run("INSERT OR REPLACE INTO peer VALUES (?, ?)", row)
    }

    fn remove_peer(&mut self, endpoint: &str) -> StoreResult<()> {
        let endpoint = vec![SqlStorageValue::from(endpoint)];
        self.0.run("DELETE FROM peer WHERE endpoint = ?", endpoint)
    }
}
