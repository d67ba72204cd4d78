//! [`ConfigStore`]: the truth about tasks, HPKE keys and peers. One row each; secrets in them are sealed. One row more for a
//! task whose end is known, until its objects have forgotten it, and one for all keys together.

mod key_copy;
mod peers;

use std::cell::Cell;

use daphne_core::{
    hpke::{HpkeKem, HpkeKeypair},
    ids::{HpkeConfigId, TaskId},
    seal::RootKeys,
    store::{
        StoreError, StoreResult,
        config_store::{
            self, ConfigRequest, ConfigResponse, ConfigTables, Purge, Sealer, TaskEntry,
            keys::{KeySettings, SealedKeypair, StoredHpkeKey},
            secrets::SecretsRequest,
        },
    },
    time::Time,
};
use storage_proxy::{config, objects::ObjectCaller, random};
use worker::{
    DurableObject, Env, Request, Response, Result, SqlStorageValue, State, console_error,
    durable_object,
};
use zeroize::Zeroizing;

use self::key_copy::KeyCopy;
use crate::{
    alarm::{Alarm, now},
    exchange,
    sql::{Sql, SqlDatabase, Tables, blob, pack},
};

/// The class.
#[durable_object(alarm)]
pub struct ConfigStore {
    database: SqlDatabase<ConfigSql>,
    objects: ObjectCaller,
    maker: Maker,
    key_copy: KeyCopy,
    alarm: Alarm,
    was_woken: Cell<bool>,
}

impl std::panic::RefUnwindSafe for ConfigStore {}

impl DurableObject for ConfigStore {
    fn new(state: State, env: Env) -> Self {
        Self {
            database: SqlDatabase::new(&state),
            objects: ObjectCaller::new(env.clone()),
            maker: Maker(env),
            key_copy: KeyCopy::default(),
            alarm: Alarm::new(state),
            was_woken: Cell::new(false),
        }
    }

    async fn fetch(&self, request: Request) -> Result<Response> {
        #[cfg(feature = "test-routes")]
        crate::meter::request(crate::meter::Class::ConfigStore);
        exchange::answer(match exchange::read(request).await {
            Ok(request) => self.answer(request).await,
            Err(error) => Err(error),
        })
    }

    async fn alarm(&self) -> Result<Response> {
        self.alarm.rang();
        // Neither waits for the other: keys that cannot be read keep no task's data alive, and the other way round.
        let keys = self.advance_keys().await;
        let purged = config_store::alarm(&self.database, &self.objects, now()).await;
        let wake = match (keys, purged) {
            (Ok(()), Ok(wake)) => wake,
            (keys, purged) => {
                for why in [keys.err(), purged.err()].into_iter().flatten() {
                    console_error!(
                        "the alarm of the config store failed, and is tried again: {why}"
                    );
                }
                // What failed is due still, and would be at once.
                Some(now().saturating_add(config_store::TRY_AGAIN_AFTER))
            }
        };
        let done = self.alarm.follow(wake, false, || {}).await;
        // An error makes the platform run the alarm again.
        done.map_err(|e| worker::Error::RustError(e.to_string()))?;
        Response::empty()
    }
}

impl ConfigStore {
    /// What becomes of keys by themselves, Workers should know before they ask.
    async fn advance_keys(&self) -> StoreResult<()> {
        let advanced = config_store::advance_keys(&self.database, &self.maker, now())?;
        if let Some(why) = advanced.failed {
            console_error!("no HPKE key could be made, though one is due: {why}");
        }
        if advanced.changed {
            self.copy_keys(false).await;
        }
        Ok(())
    }

    async fn copy_keys(&self, is_lost: bool) {
        let newest = || config_store::keys_to_copy(&self.database);
        self.key_copy.write(&self.maker.0, newest, is_lost).await;
    }

    async fn answer(&self, request: ConfigRequest) -> StoreResult<ConfigResponse> {
        let may_change_keys = matches!(
            request,
            ConfigRequest::Keys(_) | ConfigRequest::Secrets(SecretsRequest { reseal: true, .. })
        );
        let is_copy_lost = request == ConfigRequest::ListUncopiedHpkeKeys;
        let handled = config_store::handle(&self.database, request, &self.maker, now())?;
        let mut wake = handled.wake;
        if !self.was_woken.replace(true) {
            // Once in a life in memory, should a crash have come between a change and its alarm.
            wake = config_store::next_wake(&self.database)?;
        }
        self.alarm.follow(wake, false, || {}).await?;
        if may_change_keys || is_copy_lost {
            self.copy_keys(is_copy_lost).await;
        }
        Ok(handled.response)
    }
}

/// Makes key pairs, and seals them with the deployment's root keys. These are read when they are needed: to parse them
/// once for a life in memory would keep them there for nothing.
struct Maker(Env);

impl Maker {
    fn root_keys(&self) -> StoreResult<RootKeys> {
        config::root_keys(&self.0).map_err(StoreError)
    }
}

impl Sealer for Maker {
    fn make(&self, id: HpkeConfigId, kem: HpkeKem) -> StoreResult<SealedKeypair> {
        let root_keys = self.root_keys()?;
        let ikm: Zeroizing<[u8; 64]> = Zeroizing::new(random::bytes());
        let keypair =
            HpkeKeypair::derive(id, kem, ikm.as_slice()).map_err(|e| StoreError(e.to_string()))?;
        Ok(SealedKeypair::seal(&keypair, &root_keys, random::bytes()))
    }

    fn reseal(&self, label: &str, sealed: &[u8]) -> StoreResult<Option<Vec<u8>>> {
        // What does not open stays as it is, and is counted as such.
        Ok(self.root_keys()?.reseal(label, sealed, random::bytes()).unwrap_or(None))
    }

    fn opens(&self, label: &str, sealed: &[u8]) -> StoreResult<bool> {
        Ok(self.root_keys()?.open(label, sealed).is_ok())
    }
}

struct ConfigSql(Sql);

impl Tables for ConfigSql {
    const SCHEMA: &'static [&'static str] = &[
        // A NULL record is a deleted task.
        "CREATE TABLE IF NOT EXISTS task (id BLOB PRIMARY KEY, identity BLOB, record BLOB) WITHOUT ROWID",
        "CREATE TABLE IF NOT EXISTS hpke (n INTEGER PRIMARY KEY, id INTEGER, record BLOB)",
        "CREATE TABLE IF NOT EXISTS setting (name TEXT PRIMARY KEY, v BLOB) WITHOUT ROWID",
        "CREATE TABLE IF NOT EXISTS purge (task BLOB PRIMARY KEY, at BLOB, v BLOB) WITHOUT ROWID",
        "CREATE INDEX IF NOT EXISTS purge_at ON purge (at)",
        peers::SCHEMA,
    ];

    fn new(sql: Sql) -> Self {
        Self(sql)
    }
}

impl ConfigTables for ConfigSql {
    fn task(&mut self, id: &TaskId) -> StoreResult<Option<TaskEntry>> {
        self.0.first(
            "SELECT identity, record FROM task WHERE id = ?",
            vec![blob(id.as_bytes())],
            |mut row| Ok(TaskEntry { identity: row.array()?, record: row.optional_blob()? }),
        )
    }

    fn put_task(&mut self, id: &TaskId, entry: &TaskEntry) -> StoreResult<()> {
        self.0.run(
            "INSERT OR REPLACE INTO task VALUES (?, ?, ?)",
            vec![
                blob(id.as_bytes()),
                blob(&entry.identity),
                SqlStorageValue::from(entry.record.clone()),
            ],
        )
    }

    fn tasks(&mut self, after: Option<&TaskId>, limit: u32) -> StoreResult<Vec<Vec<u8>>> {
        self.0.all(
            "SELECT record FROM task WHERE record IS NOT NULL AND id > ? ORDER BY id LIMIT ?",
            vec![
                blob(after.map_or(&[], |id| id.as_bytes().as_slice())),
                SqlStorageValue::from(i64::from(limit)),
            ],
            |mut row| row.blob(),
        )
    }

    fn hpke_keys(&mut self) -> StoreResult<Vec<StoredHpkeKey>> {
        self.0.all("SELECT record FROM hpke ORDER BY n", vec![], |mut row| {
            serde_json::from_slice(&row.blob()?)
                .map_err(|e| StoreError(format!("a stored HPKE key is malformed: {e}")))
        })
    }

    fn put_hpke_key(&mut self, key: &StoredHpkeKey) -> StoreResult<()> {
        let id = SqlStorageValue::from(i32::from(key.config.id.0));
        let record = serde_json::to_vec(key)
            .map_err(|e| StoreError(format!("an HPKE key cannot be written: {e}")))?;
        self.0.run(
            "INSERT OR REPLACE INTO hpke VALUES ((SELECT n FROM hpke WHERE id = ?), ?, ?)",
            vec![id.clone(), id, blob(&record)],
        )
    }

    fn key_settings(&mut self) -> StoreResult<KeySettings> {
        let stored =
            self.0.first("SELECT v FROM setting WHERE name = 'keys'", vec![], |mut row| {
                serde_json::from_slice(&row.blob()?)
                    .map_err(|e| StoreError(format!("the settings of keys are malformed: {e}")))
            })?;
        Ok(stored.unwrap_or_default())
    }

    fn put_key_settings(&mut self, settings: &KeySettings) -> StoreResult<()> {
        let v = serde_json::to_vec(settings)
            .map_err(|e| StoreError(format!("settings cannot be written: {e}")))?;
        self.0.run("INSERT OR REPLACE INTO setting VALUES ('keys', ?)", vec![blob(&v)])
    }

    fn purge(&mut self, id: &TaskId) -> StoreResult<Option<Purge>> {
        self.0.first("SELECT v FROM purge WHERE task = ?", vec![blob(id.as_bytes())], |mut row| {
            row.packed()
        })
    }

    fn put_purge(&mut self, purge: &Purge) -> StoreResult<()> {
        let id = purge.objects.placement.task_id;
        self.0.run(
            "INSERT OR REPLACE INTO purge VALUES (?, ?, ?)",
            vec![blob(id.as_bytes()), time(purge.at), pack(purge)?],
        )
    }

    fn remove_purge(&mut self, id: &TaskId) -> StoreResult<()> {
        self.0.run("DELETE FROM purge WHERE task = ?", vec![blob(id.as_bytes())])
    }

    fn purges_due(&mut self, now: Time, limit: u32) -> StoreResult<Vec<Purge>> {
        self.0.all(
            "SELECT v FROM purge WHERE at <= ? ORDER BY at LIMIT ?",
            vec![time(now), SqlStorageValue::from(i64::from(limit))],
            |mut row| row.packed(),
        )
    }

    fn next_purge(&mut self) -> StoreResult<Option<Time>> {
        self.0.first("SELECT at FROM purge ORDER BY at LIMIT 1", vec![], |mut row| {
            row.array().map(|at| Time::from_seconds(u64::from_be_bytes(at)))
        })
    }
}

/// A time whose bytes sort as it does.
fn time(at: Time) -> SqlStorageValue {
    blob(&at.as_seconds().to_be_bytes())
}
