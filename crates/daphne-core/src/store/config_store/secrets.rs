//! What is sealed with which root key, and how all of it comes under the newest.
//!
//! Root keys are replaced in three steps: add a newer one, seal everything anew with it, remove the old one when nothing
//! needs it. The middle one goes through all records in pages; each page is one transaction, a record that is sealed with
//! the newest root key is not written again, and so it may be cut off anywhere and begun again.
//!
//! Not all can be sealed anew: the key that spreads a task's reports over its objects is derived from the root key with
//! which the task was created. Another one would send a repeat of a job to other objects. That root key is needed until
//! the task is deleted.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{ConfigTables, Sealer, TaskEntry, keys};
use crate::{
    aggregator_api,
    ids::TaskId,
    seal::sealed_version,
    store::{StoreError, StoreResult},
    task::{self, StoredTask},
    taskprov::{self, StoredPeer},
};

/// Records in a page.
const PAGE: u32 = 100;

/// Kinds of records that depend on root keys. A kind that is added here gets an arm in `page_of`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecretKind {
    /// Private halves of HPKE keys.
    HpkeKeys,
    /// What peers' verify keys are derived from.
    VerifyKeyInits,
    /// Verify keys of tasks.
    VerifyKeys,
    /// Keys that spread a task's reports over its objects. Not sealed but derived, once and for ever.
    ShardKeys,
    /// Tokens that control planes were given for leaders.
    IssuedTokens,
}

/// The kinds that have pages of their own, in order.
const PAGED: [SecretKind; 3] =
    [SecretKind::HpkeKeys, SecretKind::VerifyKeyInits, SecretKind::VerifyKeys];

/// Where a page begins: after this record of this kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretsCursor {
    kind: SecretKind,
    after: Vec<u8>,
}

/// A request about what is sealed. The same again does no harm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretsRequest {
    /// Where to go on; `None` to begin.
    pub after: Option<SecretsCursor>,
    /// Seal it anew, or only look.
    pub reseal: bool,
}

/// What was found in a page, after what was done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretsPage {
    /// How many secrets of each kind need the root key of which version.
    pub needed: BTreeMap<SecretKind, BTreeMap<u32, u64>>,
    /// How many were sealed anew.
    pub resealed: u64,
    /// Where to go on, unless this is the end.
    pub next: Option<SecretsCursor>,
}

impl SecretsPage {
    fn count(&mut self, kind: SecretKind, version: u32) {
        *self.needed.entry(kind).or_default().entry(version).or_default() += 1;
    }

    /// Looks at one secret, and seals it anew if it can be. Returns whether it was.
    fn visit(
        &mut self,
        kind: SecretKind,
        label: &str,
        sealed: &mut Vec<u8>,
        sealer: Option<&impl Sealer>,
    ) -> StoreResult<bool> {
        let anew = match sealer {
            Some(sealer) => sealer.reseal(label, sealed)?,
            None => None,
        };
        let changed = anew.is_some();
        if let Some(anew) = anew {
            *sealed = anew;
            self.resealed += 1;
        }
        if let Some(version) = sealed_version(sealed) {
            self.count(kind, version);
        }
        Ok(changed)
    }
}

/// Looks at a page of secrets, and seals it anew if that is asked for.
pub(super) fn respond(
    t: &mut impl ConfigTables,
    request: SecretsRequest,
    sealer: &impl Sealer,
) -> StoreResult<SecretsPage> {
    let sealer = request.reseal.then_some(sealer);
    let (kind, after) = match request.after {
        None => (PAGED[0], Vec::new()),
        Some(SecretsCursor { kind, after }) => (kind, after),
    };
    let mut page = SecretsPage::default();
    let last = page_of(t, kind, &after, sealer, &mut page)?;
    page.next = match last {
        Some(after) => Some(SecretsCursor { kind, after }),
        None => PAGED
            .into_iter()
            .find(|other| *other > kind)
            .map(|kind| SecretsCursor { kind, after: Vec::new() }),
    };
    Ok(page)
}

/// One page of a kind. Returns its last record if there may be more.
fn page_of(
    t: &mut impl ConfigTables,
    kind: SecretKind,
    after: &[u8],
    sealer: Option<&impl Sealer>,
    page: &mut SecretsPage,
) -> StoreResult<Option<Vec<u8>>> {
    match kind {
        SecretKind::HpkeKeys => {
            for mut key in t.hpke_keys()? {
                let label = keys::seal_label(key.config.id);
                if page.visit(kind, &label, &mut key.sealed_private_key, sealer)? {
                    keys::put(t, key)?;
                }
            }
            Ok(None)
        }
        SecretKind::VerifyKeyInits => {
            for record in t.peers()? {
                let mut peer: StoredPeer = serde_json::from_slice(&record)
                    .map_err(|e| StoreError(format!("a stored peer is malformed: {e}")))?;
                let endpoint = peer.parameters.endpoint.clone();
                let label = taskprov::seal_label(&endpoint);
                if page.visit(kind, &label, &mut peer.sealed_verify_key_init, sealer)? {
                    let record = serde_json::to_vec(&peer)
                        .map_err(|e| StoreError(format!("a peer cannot be written: {e}")))?;
                    t.put_peer(&endpoint, &record)?;
                }
            }
            Ok(None)
        }
        SecretKind::VerifyKeys | SecretKind::ShardKeys | SecretKind::IssuedTokens => {
            let after = <[u8; 32]>::try_from(after).ok().map(TaskId::new);
            let records = t.tasks(after.as_ref(), PAGE)?;
            let mut last = None;
            for record in &records {
                let mut stored: StoredTask = serde_json::from_slice(record)
                    .map_err(|e| StoreError(format!("a stored task is malformed: {e}")))?;
                let id = stored.parameters.task_id;
                page.count(SecretKind::ShardKeys, stored.parameters.shard_key_version);
                let (key_kind, token_kind) = (SecretKind::VerifyKeys, SecretKind::IssuedTokens);
                let label = task::seal_label(&id);
                let mut changed =
                    page.visit(key_kind, &label, &mut stored.sealed_verify_key, sealer)?;
                if let Some(token) = &mut stored.issued_token {
                    let label = aggregator_api::token_label(&id);
                    changed |= page.visit(token_kind, &label, &mut token.sealed, sealer)?;
                }
                if changed {
                    let entry =
                        t.task(&id)?.ok_or_else(|| StoreError("no such task".to_owned()))?;
                    let record = serde_json::to_vec(&stored)
                        .map_err(|e| StoreError(format!("a task cannot be written: {e}")))?;
                    t.put_task(&id, &TaskEntry { record: Some(record), ..entry })?;
                }
                last = Some(id.as_bytes().to_vec());
            }
            Ok(last.filter(|_| records.len() == PAGE as usize))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        b64,
        hpke::{HpkeConfig, HpkeKem, HpkeKeypair},
        ids::HpkeConfigId,
        seal::RootKeys,
        store::{
            Database as _,
            config_store::{
                keys::{KeyState, SealedKeypair, StoredHpkeKey},
                peers::PeerTables as _,
                testing,
            },
        },
        taskprov::PeerSpec,
        testing::memory::{MemoryConfigTables, MemoryDatabase},
        time::Time,
    };

    impl Sealer for RootKeys {
        fn make(&self, _: HpkeConfigId, _: HpkeKem) -> StoreResult<SealedKeypair> {
            panic!("no key is made")
        }

        fn reseal(&self, label: &str, sealed: &[u8]) -> StoreResult<Option<Vec<u8>>> {
            Ok(RootKeys::reseal(self, label, sealed, [9; 12]).unwrap_or(None))
        }

        fn opens(&self, label: &str, sealed: &[u8]) -> StoreResult<bool> {
            Ok(self.open(label, sealed).is_ok())
        }
    }

    type Db = MemoryDatabase<MemoryConfigTables>;

    fn add_peer(db: &Db, keys: &RootKeys) {
        let spec = serde_json::json!({
            "endpoint": "https://leader.example/v09/",
            "collector_hpke_config": collector(),
            "verify_key_init": b64::encode(&[1; 32]),
            "leader_tokens": ["a-token-of-the-peer"],
        });
        let spec: PeerSpec = serde_json::from_value(spec).unwrap();
        let stored = spec.check(Time::from_seconds(0)).unwrap().seal(keys, [0; 12]);
        let record = serde_json::to_vec(&stored).unwrap();
        db.transaction(|t| t.put_peer(&stored.parameters.endpoint, &record)).unwrap();
    }

    fn collector() -> HpkeConfig {
        let keypair =
            HpkeKeypair::derive(HpkeConfigId(1), HpkeKem::X25519HkdfSha256, &[1; 32]).unwrap();
        keypair.config().clone()
    }

    fn add_key(db: &Db, keys: &RootKeys, id: u8) {
        let keypair =
            HpkeKeypair::derive(HpkeConfigId(id), HpkeKem::X25519HkdfSha256, &[id; 32]).unwrap();
        let SealedKeypair { config, sealed_private_key } =
            SealedKeypair::seal(&keypair, keys, [0; 12]);
        let (state, since, made_by) = (KeyState::Pending, Time::from_seconds(0), vec![]);
        let key = StoredHpkeKey { config, sealed_private_key, state, since, made_by, revision: 0 };
        db.transaction(|t| t.put_hpke_key(&key)).unwrap();
    }

    /// All pages: what is needed, how many were sealed anew, and how many pages there were.
    fn all(db: &Db, keys: &RootKeys, reseal: bool) -> (SecretsPage, u64) {
        let (mut sum, mut after, mut pages) = (SecretsPage::default(), None, 0);
        loop {
            let request = SecretsRequest { after, reseal };
            let page = db.transaction(|t| respond(t, request.clone(), keys)).unwrap();
            for (kind, versions) in page.needed {
                for (version, n) in versions {
                    *sum.needed.entry(kind).or_default().entry(version).or_default() += n;
                }
            }
            sum.resealed += page.resealed;
            pages += 1;
            match page.next {
                None => return (sum, pages),
                next => after = next,
            }
        }
    }

    fn needed(entries: &[(SecretKind, u32, u64)]) -> BTreeMap<SecretKind, BTreeMap<u32, u64>> {
        let mut needed = BTreeMap::<_, BTreeMap<_, _>>::new();
        for (kind, version, n) in entries {
            needed.entry(*kind).or_default().insert(*version, *n);
        }
        needed
    }

    #[test]
    fn everything_comes_under_the_newest_root_key_in_pages() {
        use SecretKind::{HpkeKeys, ShardKeys, VerifyKeyInits, VerifyKeys};
        let (db, old) = (Db::default(), testing::roots("1"));
        for n in 1..=150 {
            testing::create_task(&db, &old, n);
        }
        add_key(&db, &old, 1);
        add_peer(&db, &old);
        let both = testing::roots("12");
        testing::create_task(&db, &both, 200);
        add_key(&db, &both, 2);
        let before = needed(&[
            (HpkeKeys, 1, 1),
            (HpkeKeys, 2, 1),
            (VerifyKeyInits, 1, 1),
            (VerifyKeys, 1, 150),
            (VerifyKeys, 2, 1),
            (ShardKeys, 1, 150),
            (ShardKeys, 2, 1),
        ]);
        let looked = SecretsPage { needed: before.clone(), ..SecretsPage::default() };
        assert_eq!(all(&db, &both, false), (looked, 4));
        let after = needed(&[
            (HpkeKeys, 2, 2),
            (VerifyKeyInits, 2, 1),
            (VerifyKeys, 2, 151),
            (ShardKeys, 1, 150),
            (ShardKeys, 2, 1),
        ]);
        let done = SecretsPage { needed: after.clone(), resealed: 152, next: None };
        assert_eq!(all(&db, &both, true), (done, 4));
        let again = SecretsPage { needed: after, ..SecretsPage::default() };
        assert_eq!(all(&db, &both, true), (again, 4), "a repeat writes nothing");
        // All opens with the new root key alone.
        let new = testing::roots("2");
        for record in db.transaction(|t| t.tasks(None, 500)).unwrap() {
            serde_json::from_slice::<StoredTask>(&record).unwrap().open(&new).unwrap();
        }
        for key in db.transaction(|t| t.hpke_keys()).unwrap() {
            key.open(&new).unwrap();
        }
        for record in db.transaction(|t| t.peers()).unwrap() {
            serde_json::from_slice::<StoredPeer>(&record).unwrap().open(&new).unwrap();
        }
    }

    #[test]
    fn a_control_planes_token_comes_under_the_newest_root_key_with_its_task() {
        use SecretKind::{IssuedTokens, ShardKeys, VerifyKeys};
        let (db, old) = (Db::default(), testing::roots("1"));
        let id = testing::create_task(&db, &old, 1);
        let issued = aggregator_api::IssuedToken::new(&id, &[5; 16], &old, [6; 12]);
        db.transaction(|t| {
            let entry = t.task(&id)?.unwrap();
            let mut stored: StoredTask =
                serde_json::from_slice(entry.record.as_ref().unwrap()).unwrap();
            stored.issued_token = Some(issued.clone());
            t.put_task(&id, &TaskEntry { record: serde_json::to_vec(&stored).ok(), ..entry })
        })
        .unwrap();
        let (done, _) = all(&db, &testing::roots("12"), true);
        let expected = [(VerifyKeys, 2, 1), (ShardKeys, 1, 1), (IssuedTokens, 2, 1)];
        assert_eq!((done.needed, done.resealed), (needed(&expected), 2));
        let record = db.transaction(|t| t.task(&id)).unwrap().unwrap().record.unwrap();
        let stored: StoredTask = serde_json::from_slice(&record).unwrap();
        let new = testing::roots("2");
        let token = stored.issued_token.unwrap().open(&id, &new).unwrap();
        assert_eq!(*token, b64::encode(&[5; 16]));
    }

    #[test]
    fn what_does_not_open_stays_and_keeps_nothing_from_being_sealed() {
        use SecretKind::{HpkeKeys, ShardKeys, VerifyKeys};
        let db = Db::default();
        testing::create_task(&db, &testing::roots("3"), 1);
        testing::create_task(&db, &testing::roots("1"), 2);
        add_key(&db, &testing::roots("3"), 1);
        let (done, _) = all(&db, &testing::roots("14"), true);
        assert_eq!(done.resealed, 1);
        let expected = [
            (HpkeKeys, 3, 1),
            (VerifyKeys, 3, 1),
            (VerifyKeys, 4, 1),
            (ShardKeys, 1, 1),
            (ShardKeys, 3, 1),
        ];
        assert_eq!(done.needed, needed(&expected));
    }
}
