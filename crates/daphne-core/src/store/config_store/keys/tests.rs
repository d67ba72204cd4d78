//! Lives of keys: by hand, by schedule, repeated, late and cut off.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
};

use super::{
    Advanced, EXPIRED_FOR_DEFAULT, KeyChange, KeyRefusal, KeyRequest, KeyResponse, KeyState,
    LIST_MAX_AGE, Policy, PolicyError, REPEATS_MARGIN, SealedKeypair, StoredHpkeKey, keyring, sort,
};
use crate::{
    hpke::{HpkeKem, HpkeKeypair},
    ids::HpkeConfigId,
    seal::RootKeys,
    store::{
        Database, StoreError, StoreResult,
        config_store::{
            ConfigRequest, ConfigResponse, ConfigTables, Sealer, advance_keys, handle,
            keys_to_copy, next_wake, testing,
        },
    },
    testing::memory::{MemoryConfigTables, MemoryDatabase},
    time::{Duration, Time},
};

const T: u64 = 1_700_000_000;
const HOUR: u64 = 3_600;
const DAY: u64 = 86_400;
const RETENTION: u64 = 14 * DAY;
const X25519: HpkeKem = HpkeKem::X25519HkdfSha256;

fn root_keys() -> RootKeys {
    RootKeys::parse("1=AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE").unwrap()
}

/// Derives one key pair after the other, unless it is told to fail.
#[derive(Default)]
struct Source {
    made: Cell<u64>,
    fails: Cell<bool>,
}

impl Sealer for Source {
    fn make(&self, id: HpkeConfigId, kem: HpkeKem) -> StoreResult<SealedKeypair> {
        if self.fails.get() {
            return Err(StoreError("no root key".to_owned()));
        }
        self.made.set(self.made.get() + 1);
        let mut ikm = [0; 32];
        ikm[..8].copy_from_slice(&self.made.get().to_be_bytes());
        let keypair = HpkeKeypair::derive(id, kem, &ikm).unwrap();
        Ok(SealedKeypair::seal(&keypair, &root_keys(), [0; 12]))
    }

    fn reseal(&self, _: &str, _: &[u8]) -> StoreResult<Option<Vec<u8>>> {
        panic!("nothing is sealed anew")
    }

    fn opens(&self, _: &str, _: &[u8]) -> StoreResult<bool> {
        panic!("nothing is opened")
    }
}

#[derive(Default)]
struct Keys {
    db: MemoryDatabase<MemoryConfigTables>,
    source: Source,
    clock: Cell<u64>,
    requests: Cell<u64>,
}

impl Keys {
    fn new() -> Self {
        let keys = Self { clock: Cell::new(T), ..Self::default() };
        keys.db
            .transaction(|t| super::note_retention(t, Duration::from_seconds(RETENTION)))
            .unwrap();
        keys
    }

    fn now(&self) -> Time {
        Time::from_seconds(self.clock.get())
    }

    fn wait(&self, s: u64) {
        self.clock.set(self.clock.get() + s);
    }

    fn ask(&self, request: KeyRequest) -> KeyResponse {
        let request = ConfigRequest::Keys(request);
        let handled = handle(&self.db, request, &self.source, self.now()).unwrap();
        assert_eq!(handled.wake, next_wake(&self.db).unwrap());
        match handled.response {
            ConfigResponse::Keys(response) => response,
            other => panic!("{other:?}"),
        }
    }

    fn name(&self) -> [u8; 16] {
        self.requests.set(self.requests.get() + 1);
        u128::from(self.requests.get()).to_be_bytes()
    }

    fn make_request(&self, id: Option<u8>, active: bool) -> KeyRequest {
        let (request, id) = (self.name(), id.map(HpkeConfigId));
        KeyRequest::Make { request, id, kem: X25519.code(), active, force: false }
    }

    fn make(&self, id: Option<u8>, active: bool) -> u8 {
        key(self.ask(self.make_request(id, active))).unwrap().config.id.0
    }

    fn change(&self, id: u8, to: KeyChange) -> Result<StoredHpkeKey, KeyRefusal> {
        key(self.ask(KeyRequest::Change { id: HpkeConfigId(id), to, force: false }))
    }

    fn force(&self, id: u8, to: KeyChange) -> Result<StoredHpkeKey, KeyRefusal> {
        key(self.ask(KeyRequest::Change { id: HpkeConfigId(id), to, force: true }))
    }

    fn set_policy(&self, policy: Option<Policy>) -> Result<(), KeyRefusal> {
        let policy = policy.map(|policy| serde_json::to_vec(&policy).unwrap().into());
        match self.ask(KeyRequest::SetPolicy { policy: policy.clone(), force: false }) {
            KeyResponse::Policy { policy: kept, .. } => {
                assert_eq!(kept, policy);
                Ok(())
            }
            KeyResponse::Refused(why) => Err(why),
            other => panic!("{other:?}"),
        }
    }

    fn stored(&self) -> Vec<StoredHpkeKey> {
        let mut keys = self.db.transaction(|t| t.hpke_keys()).unwrap();
        sort(&mut keys);
        keys
    }

    fn state(&self, id: u8) -> Option<KeyState> {
        self.stored().into_iter().find(|key| key.config.id.0 == id).map(|key| key.state)
    }

    /// Ids by state: pending, active in order, expired, destroyed.
    fn ids(&self) -> [Vec<u8>; 4] {
        let mut ids = <[Vec<u8>; 4]>::default();
        for key in self.stored() {
            let class = match key.state {
                KeyState::Pending => 0,
                KeyState::Active { .. } => 1,
                KeyState::Expired { .. } => 2,
                KeyState::Destroyed => 3,
            };
            ids[class].push(key.config.id.0);
        }
        ids
    }

    fn published(&self) -> Vec<u8> {
        let [_, active, ..] = self.ids();
        active
    }

    /// Runs the alarm, and again, which does nothing. Returns when it is to run next, in seconds from now.
    fn alarm(&self) -> Option<u64> {
        let before = super::revision(&self.stored());
        let advanced = advance_keys(&self.db, &self.source, self.now()).unwrap();
        if advanced.changed {
            // An older copy is told from this one.
            let (revision, records) = keys_to_copy(&self.db).unwrap().unwrap();
            assert!(revision > before);
            let listed: Vec<StoredHpkeKey> = serde_json::from_slice(&records).unwrap();
            assert_eq!((super::revision(&listed), listed), (revision, self.stored()));
        }
        let again = advance_keys(&self.db, &self.source, self.now()).unwrap();
        assert_eq!(again, Advanced::default(), "a repeat does nothing");
        let wake = next_wake(&self.db).unwrap();
        wake.map(|at| at.as_seconds().checked_sub(self.clock.get()).filter(|s| *s > 0).unwrap())
    }
}

fn key(response: KeyResponse) -> Result<StoredHpkeKey, KeyRefusal> {
    match response {
        KeyResponse::Key { record, .. } => Ok(serde_json::from_slice(&record).unwrap()),
        KeyResponse::Refused(why) => Err(why),
        other => panic!("{other:?}"),
    }
}

fn policy() -> Policy {
    Policy { active_for: Duration::from_seconds(28 * DAY), ..Policy::default() }
}

#[test]
fn a_key_goes_from_pending_to_active_to_expired_to_destroyed() {
    let k = Keys::new();
    let id = k.make(Some(9), false);
    assert_eq!((k.published(), k.ids()), (vec![], [vec![9], vec![], vec![], vec![]]));
    assert!(keyring(k.stored(), &root_keys()).unwrap().get(HpkeConfigId(9)).is_some());
    k.change(id, KeyChange::Activate).unwrap();
    assert_eq!(k.published(), [9]);
    assert_eq!(k.alarm(), None, "the schedule is off");
    k.make(Some(10), true);
    assert_eq!(k.published(), [10, 9]);
    k.wait(5);
    let key = k.change(id, KeyChange::Expire).unwrap();
    let accepts_until = k.clock.get() + EXPIRED_FOR_DEFAULT.as_seconds();
    let destroyed_at = accepts_until + RETENTION + REPEATS_MARGIN.as_seconds();
    let [accepts_until, destroyed_at] = [accepts_until, destroyed_at].map(Time::from_seconds);
    assert_eq!(key.state, KeyState::Expired { accepts_until, destroyed_at });
    assert_eq!(k.published(), [10]);
    // It opens reports until the very end, whatever the alarm does.
    k.clock.set(destroyed_at.as_seconds() - 1);
    assert_eq!(k.alarm(), Some(1));
    assert!(keyring(k.stored(), &root_keys()).unwrap().get(HpkeConfigId(9)).is_some());
    k.wait(1);
    assert_eq!(k.alarm(), None);
    assert_eq!(k.ids(), [vec![], vec![10], vec![], vec![9]]);
    let destroyed = k.stored().pop().unwrap();
    assert!(destroyed.sealed_private_key.is_empty());
    assert!(keyring(k.stored(), &root_keys()).unwrap().get(HpkeConfigId(9)).is_none());
}

#[test]
fn a_task_that_came_later_and_keeps_reports_longer_puts_the_end_off() {
    let k = Keys::new();
    k.make(Some(1), true);
    k.make(Some(2), true);
    k.change(1, KeyChange::Expire).unwrap();
    let Some(KeyState::Expired { destroyed_at, accepts_until }) = k.state(1) else { panic!() };
    let longer = Duration::from_seconds(RETENTION + 100);
    k.db.transaction(|t| super::note_retention(t, longer)).unwrap();
    // A shorter one changes nothing.
    k.db.transaction(|t| super::note_retention(t, Duration::from_seconds(1))).unwrap();
    k.clock.set(destroyed_at.as_seconds());
    assert_eq!(k.alarm(), Some(100));
    let destroyed_at = destroyed_at.saturating_add(Duration::from_seconds(100));
    assert_eq!(k.state(1), Some(KeyState::Expired { accepts_until, destroyed_at }));
    k.wait(100);
    assert_eq!(k.alarm(), None);
    assert_eq!(k.state(1), Some(KeyState::Destroyed));
}

/// Tasks from before anybody took note of their retention count, too.
#[test]
fn the_longest_retention_of_all_tasks_counts() {
    let k = Keys { clock: Cell::new(T), ..Keys::default() };
    for n in [3, 60, 20] {
        testing::create_task(&k.db, &root_keys(), n);
    }
    k.make(Some(1), true);
    k.make(Some(2), true);
    k.change(1, KeyChange::Expire).unwrap();
    let Some(KeyState::Expired { destroyed_at, accepts_until }) = k.state(1) else { panic!() };
    let longest = Duration::from_seconds(60 * DAY);
    let expected = accepts_until.saturating_add(longest).saturating_add(REPEATS_MARGIN);
    assert_eq!(destroyed_at, expected);
}

#[test]
fn pinned_keys_come_first_in_the_order_in_which_they_were_pinned() {
    let k = Keys::new();
    for id in [1, 2, 3, 4] {
        k.make(Some(id), true);
    }
    assert_eq!(k.published(), [4, 3, 2, 1]);
    let ring = keyring(k.stored(), &root_keys()).unwrap();
    assert_eq!(ring.published().map(|config| config.id.0).collect::<Vec<_>>(), [4, 3, 2, 1]);
    k.change(2, KeyChange::Pin).unwrap();
    k.change(4, KeyChange::Pin).unwrap();
    assert_eq!(k.published(), [2, 4, 3, 1]);
    // Again, and other keys' comings and goings.
    k.change(2, KeyChange::Pin).unwrap();
    k.change(3, KeyChange::Expire).unwrap();
    assert_eq!(k.published(), [2, 4, 1]);
    k.force(3, KeyChange::Activate).unwrap();
    assert_eq!(k.published(), [2, 4, 3, 1], "it was activated last");
    assert_eq!(k.force(2, KeyChange::Expire), Err(KeyRefusal::IsPinned), "not even by force");
    k.change(2, KeyChange::Unpin).unwrap();
    assert_eq!(k.published(), [4, 3, 2, 1]);
}

#[test]
fn what_would_do_harm_is_refused_unless_it_is_forced() {
    let k = Keys::new();
    assert_eq!(k.change(0, KeyChange::Activate), Err(KeyRefusal::NoSuchKey));
    let (a, b) = (k.make(None, true), k.make(None, false));
    assert_eq!((a, b), (0, 1));
    assert_eq!(k.change(a, KeyChange::Expire), Err(KeyRefusal::LastActive));
    assert_eq!(k.change(a, KeyChange::Destroy), Err(KeyRefusal::DestroyNeedsExpired));
    assert_eq!(k.force(a, KeyChange::Destroy), Err(KeyRefusal::DestroyNeedsExpired));
    assert_eq!(k.change(b, KeyChange::Pin), Err(KeyRefusal::PinNeedsActive));
    assert_eq!(k.change(b, KeyChange::Destroy), Err(KeyRefusal::DestroyPending));
    k.force(a, KeyChange::Expire).unwrap();
    assert!(k.published().is_empty());
    let Some(KeyState::Expired { destroyed_at, .. }) = k.state(a) else { panic!() };
    assert_eq!(k.change(a, KeyChange::Destroy), Err(KeyRefusal::StillNeeded(destroyed_at)));
    k.force(a, KeyChange::Destroy).unwrap();
    k.force(b, KeyChange::Destroy).unwrap();
    k.change(b, KeyChange::Destroy).unwrap();
    for to in [KeyChange::Activate, KeyChange::Expire, KeyChange::Pin, KeyChange::Unpin] {
        assert_eq!(k.force(a, to), Err(KeyRefusal::IsDestroyed));
    }
    // What is pinned may be compared whole: nothing is added to the list unasked.
    let p = k.make(None, true);
    k.change(p, KeyChange::Pin).unwrap();
    let pending = k.make(None, false);
    assert_eq!(key(k.ask(k.make_request(None, true))), Err(KeyRefusal::ListIsPinned));
    assert_eq!(k.change(pending, KeyChange::Activate), Err(KeyRefusal::ListIsPinned));
    assert_eq!(k.set_policy(Some(policy())), Err(KeyRefusal::ListIsPinned));
    let rotate = KeyRequest::Rotate { request: k.name(), force: false };
    assert_eq!(key(k.ask(rotate)), Err(KeyRefusal::ListIsPinned));
    assert_eq!(k.published(), [p]);
}

/// Clients that have a key built in may compare the list: while a key is pinned, only an operator who says so changes it.
#[test]
fn while_a_key_is_pinned_the_list_does_not_change_by_itself() {
    let k = Keys::new();
    let built_in = k.make(Some(0), true);
    k.set_policy(Some(policy())).unwrap();
    let import = |id: u8, pinned, force| {
        let keypair = k.source.make(HpkeConfigId(id), X25519).unwrap();
        let keypair = serde_json::to_vec(&keypair).unwrap();
        key(k.ask(KeyRequest::Import { keypair, active: true, pinned, force }))
    };
    // The schedule would publish a successor one day.
    assert_eq!(k.change(built_in, KeyChange::Pin), Err(KeyRefusal::PinUnderPolicy));
    assert_eq!(import(7, true, false), Err(KeyRefusal::PinUnderPolicy));
    assert_eq!(k.published(), [0], "nothing was imported");
    import(8, false, false).unwrap();
    k.change(8, KeyChange::Expire).unwrap();
    k.set_policy(None).unwrap();
    let pinned = k.change(built_in, KeyChange::Pin).unwrap();
    for _ in 0..400 {
        k.wait(DAY);
        k.alarm();
        assert_eq!(k.published(), [0]);
        assert_eq!(k.set_policy(Some(policy())), Err(KeyRefusal::ListIsPinned));
    }
    // Who forces it has said that no client compares the list; a repeat of what is so already is no change.
    let force = KeyRequest::SetPolicy {
        policy: Some(serde_json::to_vec(&policy()).unwrap().into()),
        force: true,
    };
    assert!(matches!(k.ask(force), KeyResponse::Policy { policy: Some(_), .. }));
    assert_eq!(k.set_policy(Some(policy())), Ok(()));
    assert_eq!(k.change(built_in, KeyChange::Pin), Ok(pinned));
    assert_eq!(import(7, true, false), Err(KeyRefusal::ListIsPinned));
    import(7, true, true).unwrap();
    assert_eq!(k.published()[..2], [0, 7]);
    k.change(7, KeyChange::Unpin).unwrap();
    assert_eq!(k.change(7, KeyChange::Pin), Err(KeyRefusal::PinUnderPolicy));
    k.force(7, KeyChange::Pin).unwrap();
    k.wait(29 * DAY);
    k.alarm();
    assert!(k.published().len() > 2);
}

#[test]
fn an_id_is_not_given_to_another_key_too_early() {
    let k = Keys::new();
    k.make(Some(255), true);
    assert_eq!(k.make(None, true), 0, "the next one");
    assert_eq!(key(k.ask(k.make_request(Some(0), true))), Err(KeyRefusal::IdTaken));
    k.change(0, KeyChange::Expire).unwrap();
    assert_eq!(key(k.ask(k.make_request(Some(0), true))), Err(KeyRefusal::IdTaken));
    k.force(0, KeyChange::Destroy).unwrap();
    k.wait(2 * HOUR - 1);
    assert_eq!(key(k.ask(k.make_request(Some(0), true))), Err(KeyRefusal::IdRests));
    assert_eq!(k.make(None, true), 1, "there are ids that no key had");
    k.wait(1);
    assert_eq!(k.make(Some(0), true), 0);
    for _ in 3..=255 {
        k.make(None, false);
    }
    assert_eq!(key(k.ask(k.make_request(None, false))), Err(KeyRefusal::NoFreeId));
    for id in [77, 78] {
        k.force(id, KeyChange::Destroy).unwrap();
        k.wait(1);
    }
    assert_eq!(key(k.ask(k.make_request(None, false))), Err(KeyRefusal::NoFreeId));
    k.wait(2 * HOUR);
    assert_eq!((k.make(None, false), k.make(None, false)), (77, 78), "longest rested first");
}

#[test]
fn a_request_sent_twice_does_one_thing() {
    let k = Keys::new();
    let request = k.make_request(None, true);
    assert_eq!(k.ask(request.clone()), k.ask(request.clone()));
    k.wait(100);
    assert_eq!(key(k.ask(request)).unwrap().config.id.0, 0);
    assert_eq!(k.ids(), [vec![], vec![0], vec![], vec![]]);
    let rotate = KeyRequest::Rotate { request: k.name(), force: false };
    let first = key(k.ask(rotate.clone())).unwrap();
    let stored = k.stored();
    k.wait(100);
    assert_eq!(key(k.ask(rotate)).unwrap(), first);
    assert_eq!(k.stored(), stored);
    assert_eq!(k.ids(), [vec![], vec![1], vec![0], vec![]]);
}

#[test]
fn the_very_key_comes_back_and_no_other_in_its_place() {
    let k = Keys::new();
    let source = Source::default();
    let import = |made: u64, pinned: bool| {
        source.made.set(made);
        let keypair = source.make(HpkeConfigId(0), X25519).unwrap();
        let keypair = serde_json::to_vec(&keypair).unwrap();
        k.ask(KeyRequest::Import { keypair, active: true, pinned, force: false })
    };
    assert!(matches!(import(50, true), KeyResponse::Key { is_new: true, .. }));
    assert!(k.state(0).is_some_and(|state| state.is_pinned()));
    assert!(matches!(import(50, true), KeyResponse::Key { is_new: false, .. }));
    assert_eq!(key(import(51, false)), Err(KeyRefusal::IdTaken));
    k.change(0, KeyChange::Unpin).unwrap();
    k.force(0, KeyChange::Expire).unwrap();
    k.force(0, KeyChange::Destroy).unwrap();
    assert_eq!(key(import(51, false)), Err(KeyRefusal::IdRests));
    assert!(matches!(import(50, false), KeyResponse::Key { is_new: true, .. }));
    assert_eq!(k.published(), [0]);
}

#[test]
fn a_schedule_begins_with_a_key_and_goes_on_without_a_gap() {
    let k = Keys::new();
    k.set_policy(Some(policy())).unwrap();
    assert_eq!(k.published(), [0], "at once, as there was none");
    let mut born = k.clock.get();
    for n in 1..=4_u8 {
        assert_eq!(k.alarm(), Some(28 * DAY - HOUR - (k.clock.get() - born)));
        k.clock.set(born + 28 * DAY - HOUR);
        k.alarm();
        assert_eq!(k.ids()[..2], [vec![n], vec![n - 1]]);
        k.clock.set(born + 28 * DAY - 1);
        k.alarm();
        assert_eq!(k.published(), [n - 1]);
        k.wait(1);
        k.alarm();
        assert_eq!((k.published(), k.state(n - 1).unwrap().is_active()), (vec![n], false));
        born = k.clock.get();
        // Next to be done is a destruction, for a while.
        while let Some(s) = k.alarm().filter(|s| k.clock.get() + s < born + 28 * DAY - HOUR) {
            k.wait(s);
        }
    }
    assert_eq!(k.ids(), [vec![], vec![4], vec![], vec![0, 1, 2, 3]]);
    // Off: what is there stays, and what has expired goes.
    k.set_policy(None).unwrap();
    k.wait(1_000 * DAY);
    assert_eq!(k.alarm(), None);
    assert_eq!(k.published(), [4]);
}

#[test]
fn a_schedule_takes_over_what_operators_made() {
    let k = Keys::new();
    k.make(Some(100), true);
    k.make(Some(101), true);
    let p256 = KeyRequest::Make {
        request: k.name(),
        id: Some(HpkeConfigId(7)),
        kem: HpkeKem::P256HkdfSha256.code(),
        active: true,
        force: false,
    };
    key(k.ask(p256)).unwrap();
    k.change(100, KeyChange::Pin).unwrap();
    let as_json = serde_json::to_vec(&policy()).unwrap();
    k.wait(50 * DAY);
    k.ask(KeyRequest::SetPolicy { policy: Some(as_json.into()), force: true });
    // Too old already, but its successor is announced first.
    assert_eq!((k.published(), k.ids()[0].len()), (vec![100, 7, 101], 1));
    assert_eq!(k.alarm(), Some(HOUR));
    k.wait(HOUR);
    k.alarm();
    // Pinned keys, and those of another kind, are left alone.
    assert_eq!(k.published(), [100, 8, 7]);
    assert!(matches!(k.state(101), Some(KeyState::Expired { .. })));
}

#[test]
fn a_key_that_cannot_be_made_is_tried_again_and_its_predecessor_stays() {
    let k = Keys::new();
    k.set_policy(Some(policy())).unwrap();
    k.source.fails.set(true);
    k.wait(28 * DAY - HOUR);
    let Advanced { changed, failed } = advance_keys(&k.db, &k.source, k.now()).unwrap();
    assert!(!changed && failed.unwrap().contains("no root key"));
    assert_eq!(k.alarm(), Some(300), "not at once");
    k.wait(100 * DAY);
    advance_keys(&k.db, &k.source, k.now()).unwrap();
    assert_eq!(k.published(), [0]);
    k.source.fails.set(false);
    assert_eq!(k.alarm(), Some(300));
    k.wait(300);
    assert_eq!(k.alarm(), Some(HOUR));
    k.wait(HOUR);
    k.alarm();
    assert_eq!(k.published(), [1]);
}

#[test]
fn a_schedule_that_cannot_be_kept_is_refused() {
    let k = Keys::new();
    let day = Duration::from_seconds(DAY);
    let s = Duration::from_seconds;
    for (policy, why) in [
        (Policy { pending_for: s(HOUR - 1), ..policy() }, PolicyError::Pending),
        (Policy { active_for: s(DAY - 1), ..policy() }, PolicyError::Active),
        (Policy { pending_for: s(2 * DAY), active_for: day, ..policy() }, PolicyError::Active),
        (Policy { expired_for: s(2 * DAY + 2 * HOUR - 1), ..policy() }, PolicyError::Expired),
        (Policy { active_for: s(u64::MAX), ..policy() }, PolicyError::TooLong),
        (Policy { expired_for: s(u64::MAX), ..policy() }, PolicyError::TooLong),
        (Policy { kem: HpkeKem::Other(1), ..policy() }, PolicyError::Kem),
        (
            Policy { active_for: day, expired_for: s(60 * DAY), ..policy() },
            PolicyError::TooManyKeys(80),
        ),
    ] {
        assert_eq!(k.set_policy(Some(policy)), Err(KeyRefusal::Policy(why)), "{policy:?}");
    }
    assert_eq!(k.ids(), <[Vec<u8>; 4]>::default());
    let shortest = Policy { active_for: day, expired_for: s(2 * DAY + 2 * HOUR), ..policy() };
    k.set_policy(Some(shortest)).unwrap();
    let text = serde_json::to_value(Policy::default()).unwrap();
    assert_eq!(
        text,
        serde_json::json!({
            "pending_for": 3_600, "active_for": 7_257_600, "expired_for": 604_800, "kem": "X25519HkdfSha256",
        })
    );
    assert_eq!(serde_json::from_str::<Policy>("{}").unwrap(), Policy::default());
}

#[test]
fn a_record_without_a_state_is_of_an_active_key() {
    let keypair = Source::default().make(HpkeConfigId(3), X25519).unwrap();
    let stored: StoredHpkeKey =
        serde_json::from_slice(&serde_json::to_vec(&keypair).unwrap()).unwrap();
    assert_eq!(stored.state, KeyState::Active { activated: 0, pinned: None });
    assert_eq!(keyring(vec![stored], &root_keys()).unwrap().published().count(), 1);
}

/// What must hold of keys whatever operators, clocks and failures do, as clients and leaders see it.
#[derive(Default)]
struct Witness {
    /// When a key, known by its public half, was last seen published.
    published: BTreeMap<Vec<u8>, u64>,
    /// The public half that had an id last, and when it was last seen to open reports.
    owners: BTreeMap<u8, (Vec<u8>, u64)>,
    /// Destroyed although it may be needed.
    forced: RefCell<Vec<Vec<u8>>>,
    pinned: Vec<u8>,
}

impl Witness {
    fn look(&mut self, k: &Keys, seed: u64) {
        let (keys, now) = (k.stored(), k.clock.get());
        let pinned: Vec<u8> =
            keys.iter().filter(|key| key.state.is_pinned()).map(|key| key.config.id.0).collect();
        let kept: Vec<u8> = self.pinned.iter().copied().filter(|id| pinned.contains(id)).collect();
        assert!(pinned.starts_with(&kept), "seed {seed}: {kept:?} then {pinned:?}");
        assert!(k.published().starts_with(&pinned), "seed {seed}");
        self.pinned = pinned;
        for key in &keys {
            let public = key.config.public_key.clone();
            if key.state == KeyState::Destroyed {
                let needed = self.published.get(&public).map_or(0, |seen| {
                    seen + 2 * LIST_MAX_AGE.as_seconds() + RETENTION + REPEATS_MARGIN.as_seconds()
                });
                assert!(
                    now >= needed || self.forced.borrow().contains(&public),
                    "seed {seed}: a key is gone too early"
                );
                continue;
            }
            if let Some((owner, seen)) = self.owners.get(&key.config.id.0) {
                let rested = now >= seen + 2 * HOUR;
                assert!(*owner == public || rested, "seed {seed}: an id has two keys");
            }
            self.owners.insert(key.config.id.0, (public.clone(), now));
            if key.state.is_active() {
                self.published.insert(public, now);
            } else if let KeyState::Expired { accepts_until, .. } = key.state {
                let seen = self.published.get(&public).copied().unwrap_or(0);
                let until = accepts_until.as_seconds();
                // It was published until it expired, which may have been later than it was seen.
                assert!(until >= seen + 2 * LIST_MAX_AGE.as_seconds(), "seed {seed}");
            }
        }
    }
}

#[test]
fn keys_serve_clients_and_leaders_whatever_happens() {
    for seed in 1..=300_u64 {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut random = move |end: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % end
        };
        let k = Keys::new();
        let mut witness = Witness::default();
        let mut last = None;
        for _ in 0..120 {
            let id = u8::try_from(random(12)).unwrap();
            let steps = [KeyChange::Activate, KeyChange::Expire, KeyChange::Pin, KeyChange::Unpin];
            let request = match random(16) {
                0..=2 => None,
                3 => Some(k.make_request(None, random(2) == 0)),
                4 => Some(k.make_request(Some(id), random(2) == 0)),
                5..=8 => {
                    let to = steps[random(4) as usize];
                    Some(KeyRequest::Change { id: HpkeConfigId(id), to, force: random(2) == 0 })
                }
                9 => {
                    let force = random(3) == 0;
                    if let (true, Some(key)) =
                        (force, k.stored().iter().find(|key| key.config.id.0 == id))
                    {
                        witness.forced.borrow_mut().push(key.config.public_key.clone());
                    }
                    let to = KeyChange::Destroy;
                    Some(KeyRequest::Change { id: HpkeConfigId(id), to, force })
                }
                10 => Some(KeyRequest::Rotate { request: k.name(), force: random(2) == 0 }),
                11 => {
                    let policy =
                        (random(4) > 0).then(|| serde_json::to_vec(&policy()).unwrap().into());
                    Some(KeyRequest::SetPolicy { policy, force: true })
                }
                // A late copy of an earlier message.
                12 => last.clone(),
                13 => {
                    k.source.fails.set(random(2) == 0);
                    None
                }
                _ => {
                    k.wait([1, HOUR, DAY, 10 * DAY, 40 * DAY][random(5) as usize]);
                    None
                }
            };
            let scheduled = || k.db.transaction(|t| t.key_settings()).unwrap().policy.is_some();
            let had_one = !k.published().is_empty();
            match request {
                None => {
                    let _ = advance_keys(&k.db, &k.source, k.now()).unwrap();
                    assert!(!had_one || !k.published().is_empty(), "seed {seed}");
                    if scheduled() && !k.source.fails.get() {
                        k.alarm();
                    }
                }
                Some(request) => {
                    last = Some(request.clone());
                    // A key that cannot be made fails the request as a whole.
                    let before = k.stored();
                    let asked = ConfigRequest::Keys(request);
                    if handle(&k.db, asked, &k.source, k.now()).is_err() {
                        assert!(k.source.fails.get(), "seed {seed}");
                        assert_eq!(k.stored(), before);
                    }
                }
            }
            witness.look(&k, seed);
            let waits = k.db.transaction(|t| t.key_settings()).unwrap().make_again_at;
            if scheduled() && waits.is_none_or(|at| at <= k.now()) && !k.source.fails.get() {
                k.alarm();
                assert!(!k.published().is_empty(), "seed {seed}: clients have no key");
                witness.look(&k, seed);
            }
        }
    }
}
