//! What is sealed, and what operators write: ciphertexts for every key, sealed records, JSON of tasks and keys.

use std::sync::OnceLock;

use daphne_core::{
    b64,
    codec::Reader,
    hpke::{self, HpkeAead, HpkeConfig, HpkeKdf, HpkeKem, HpkeKeypair, SealedMessage},
    ids::HpkeConfigId,
    seal::RootKeys,
    store::config_store::keys::{self, StoredHpkeKey},
    task::{StoredTask, TaskSpec},
    taskprov::{LEADER_TOKENS_MAX, PeerChange, PeerSpec, StoredPeer},
    time::Time,
    vdaf::{Measurement, Vdaf, VdafConfig},
    version::VdafDraft,
};

use crate::{
    bounded,
    choices::Choices,
    fixture::{NOW, PRECISION},
};

/// A root key, and a second one.
pub const ROOTS: &str = "1=AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE,\
                         2=AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI";

/// What the first byte chooses.
pub const KINDS: [fn(&mut Choices<'_>); 11] = [
    open,
    seal,
    root_keys,
    sealed_record,
    task_spec,
    stored_task,
    hpke_keypair,
    vdaf_config,
    peer,
    stored_peer,
    stored_keys,
];

/// Chooses what it is, and gives it the rest.
pub fn secrets(data: &[u8]) {
    let mut choices = Choices::new(data);
    choices.of(&KINDS)(&mut choices);
}

/// The root keys of a deployment.
pub fn roots() -> &'static RootKeys {
    static KEYS: OnceLock<RootKeys> = OnceLock::new();
    KEYS.get_or_init(|| RootKeys::parse(ROOTS).expect("they are well-formed"))
}

/// A pair of keys for each algorithm.
pub fn keypairs() -> &'static [HpkeKeypair] {
    static KEYS: OnceLock<Vec<HpkeKeypair>> = OnceLock::new();
    KEYS.get_or_init(|| {
        let mut keys = Vec::new();
        for kem in [HpkeKem::X25519HkdfSha256, HpkeKem::P256HkdfSha256] {
            let pair = HpkeKeypair::derive(HpkeConfigId(1), kem, &[1; 32]).expect("long enough");
            for kdf in [HpkeKdf::HkdfSha256, HpkeKdf::HkdfSha384, HpkeKdf::HkdfSha512] {
                for aead in [HpkeAead::Aes128Gcm, HpkeAead::Aes256Gcm, HpkeAead::ChaCha20Poly1305] {
                    let config = HpkeConfig { kdf, aead, ..pair.config().clone() };
                    let private_key = pair.private_key().to_vec().into();
                    keys.push(HpkeKeypair::from_parts(config, private_key).expect("it is a pair"));
                }
            }
        }
        keys
    })
}

/// A ciphertext, damaged or not.
fn open(choices: &mut Choices<'_>) {
    let key = choices.of(keypairs());
    let (info, aad, plaintext) = (choices.short(), choices.short(), choices.short());
    let sealed = hpke::seal(key.config(), info, aad, plaintext, &[3; 32]).expect("a good key");
    let (mut enc, mut payload) = (sealed.enc.clone(), sealed.payload.clone());
    let (mut other_info, mut other_aad) = (info.to_vec(), aad.to_vec());
    while !choices.is_empty() {
        match choices.below(4) {
            0 => choices.edit(&mut enc),
            1 => choices.edit(&mut payload),
            2 => choices.edit(&mut other_info),
            _ => choices.edit(&mut other_aad),
        }
    }
    let is_same = enc == sealed.enc && payload == sealed.payload;
    let is_same = is_same && other_info == info && other_aad == aad;
    let damaged = SealedMessage { enc, payload, ..sealed };
    let bytes_max = (8 << 10) + 8 * (damaged.payload.len() + other_info.len() + other_aad.len());
    let opened = bounded(bytes_max, || hpke::open(key, &other_info, &other_aad, damaged.as_ref()));
    match opened {
        Ok(opened) => assert!(is_same && opened == plaintext, "another ciphertext opens"),
        Err(_) => assert!(!is_same, "a good ciphertext does not open"),
    }
}

/// To whatever configuration somebody published.
fn seal(choices: &mut Choices<'_>) {
    let plaintext = choices.short();
    let Ok(config) = Reader::all(choices.rest(), HpkeConfig::read) else { return };
    let bytes_max = (8 << 10) + 8 * (config.public_key.len() + plaintext.len());
    let sealed = bounded(bytes_max, || hpke::seal(&config, &[], &[], plaintext, &[3; 32]));
    if let Ok(sealed) = sealed {
        assert!(config.is_supported());
        assert_eq!(sealed.payload.len(), plaintext.len() + 16);
    }
    let json = serde_json::to_string(&config).expect("configurations have JSON");
    assert!(serde_json::from_str::<HpkeConfig>(&json).is_ok_and(|again| again == config));
}

/// The text of a deployment's secret.
fn root_keys(choices: &mut Choices<'_>) {
    let Ok(text) = std::str::from_utf8(choices.rest()) else { return };
    if let Ok(keys) = bounded((4 << 10) + 64 * text.len(), || RootKeys::parse(text)) {
        let sealed = keys.seal("label", b"secret", [7; 12]);
        assert!(keys.open("label", &sealed).is_ok_and(|opened| *opened == b"secret"));
        let shown = format!("{keys:?}");
        let secrets = text.split(',').filter_map(|key| key.split_once('='));
        assert!(secrets.map(|(_, key)| key).all(|key| !shown.contains(key)), "a key is shown");
    }
}

/// A sealed record, damaged or not.
fn sealed_record(choices: &mut Choices<'_>) {
    let secret = choices.short();
    let sealed = roots().seal("label", secret, choices.array());
    let mut damaged = sealed.clone();
    while !choices.is_empty() {
        choices.edit(&mut damaged);
    }
    match bounded(1_024 + 4 * damaged.len(), || roots().open("label", &damaged)) {
        Ok(opened) => assert!(damaged == sealed && *opened == secret, "another record opens"),
        Err(_) => assert!(damaged != sealed, "a good record does not open"),
    }
}

/// What an operator sends to create a task.
fn task_spec(choices: &mut Choices<'_>) {
    let json = choices.rest();
    let bytes_max = (32 << 10) + 64 * json.len();
    let task = bounded(bytes_max, || {
        let spec = serde_json::from_slice::<TaskSpec>(json).ok()?;
        let again = serde_json::to_vec(&spec).expect("specifications have JSON");
        assert!(serde_json::from_slice::<TaskSpec>(&again).is_ok(), "we do not read what we write");
        spec.check(2).ok()
    });
    let Some(task) = task else { return };
    let stored = serde_json::to_vec(&task.seal(roots(), [8; 12])).expect("stored tasks have JSON");
    let opened = serde_json::from_slice::<StoredTask>(&stored)
        .expect("we wrote it")
        .open(roots())
        .expect("we sealed it");
    assert!(opened.identity() == task.identity() && opened.parameters == task.parameters);
    assert!(!format!("{task:?}").contains(&b64::encode(task.verify_key.as_bytes())));
    placed(&task.parameters.placement());
}

/// Where reports go that are made at any time.
pub fn placed(placement: &daphne_core::store::placement::Placement) {
    use daphne_core::{
        batch::{BatchBucket, BatchMode},
        ids::BatchId,
    };
    for s in [0, 1, NOW, NOW + PRECISION, u64::MAX - 1, u64::MAX] {
        let time = Time::from_seconds(s);
        let bucket = match placement.batch_mode {
            BatchMode::TimeInterval => {
                BatchBucket::Window(time.round_down(placement.time_precision))
            }
            BatchMode::LeaderSelected => BatchBucket::Batch(BatchId::new([0; 32])),
        };
        let group = placement.group(&bucket);
        if let Some(range) = placement.group_range(group) {
            // The last group ends where time does.
            assert!(range.contains(&bucket) || s > u64::MAX - PRECISION, "{placement:?} {s}");
            let (first, last) = placement.groups_meeting(&range).expect("it has groups");
            assert!(first <= last);
        }
        let _ = placement.group_deadline(group);
        let _ = placement.epoch_deadline(placement.epoch(time));
    }
}

/// A task as it is read from the storage.
fn stored_task(choices: &mut Choices<'_>) {
    let json = choices.rest();
    bounded((32 << 10) + 64 * json.len(), || {
        if let Ok(stored) = serde_json::from_slice::<StoredTask>(json) {
            drop(stored.open(roots()));
        }
    });
}

/// A pair of keys in a file or an import.
fn hpke_keypair(choices: &mut Choices<'_>) {
    let Ok(json) = std::str::from_utf8(choices.rest()) else { return };
    match bounded((16 << 10) + 32 * json.len(), || HpkeKeypair::from_secret_json(json)) {
        Ok(pair) => {
            let again = HpkeKeypair::from_secret_json(&pair.to_secret_json());
            assert!(again.is_ok_and(|again| again.private_key() == pair.private_key()));
            let sealed = hpke::seal(pair.config(), &[], &[], b"x", &[3; 32]).expect("it is a pair");
            assert!(hpke::open(&pair, &[], &[], sealed.as_ref()).is_ok());
        }
        Err(sentence) => assert!(sentence.len() < 200, "{sentence}"),
    }
}

/// A VDAF's name and parameters, and a measurement for it.
fn vdaf_config(choices: &mut Choices<'_>) {
    let measurement = choices.long();
    let json = choices.rest();
    let Ok(config) = serde_json::from_slice::<VdafConfig>(json) else { return };
    let again = serde_json::to_vec(&config).expect("configurations have JSON");
    assert!(serde_json::from_slice::<VdafConfig>(&again).is_ok_and(|again| again == config));
    for draft in [VdafDraft::V08, VdafDraft::V18] {
        let made = bounded((64 << 10) + 8 * json.len(), || Vdaf::new(draft, config));
        let Ok(vdaf) = made else { continue };
        assert!(vdaf.agg_share_len_max() <= daphne_core::vdaf::AGG_SHARE_BYTES_MAX);
        assert!(vdaf.verify_key(&vec![0; vdaf.verify_key_len()]).is_ok());
        if let Ok(param) = vdaf.decode_agg_param(&[]) {
            assert_eq!(vdaf.agg_share_len(&param), vdaf.agg_share_len_max());
        }
    }
    if let Ok(value) = serde_json::from_slice(measurement) {
        drop(Measurement::from_json(&config, &value));
    }
}

/// What an operator sends to add a peer, and then to change it.
fn peer(choices: &mut Choices<'_>) {
    let change = choices.long();
    let json = choices.rest();
    let now = Time::from_seconds(NOW);
    let peer = bounded((32 << 10) + 64 * json.len(), || {
        serde_json::from_slice::<PeerSpec>(json).ok()?.check(now).ok()
    });
    let Some(peer) = peer else { return };
    let stored = peer.seal(roots(), [8; 12]);
    let json = serde_json::to_vec(&stored).expect("stored peers have JSON");
    let again: StoredPeer = serde_json::from_slice(&json).expect("we wrote it");
    assert!(again == stored && again.open(roots()).is_ok_and(|again| again == peer));
    assert!(!format!("{peer:?}").contains(&b64::encode(peer.verify_key_init.as_bytes())));
    let shown = serde_json::to_string(&stored.view()).expect("views have JSON");
    assert!(!shown.contains(&b64::encode(peer.verify_key_init.as_bytes())), "a secret is shown");
    let Ok(change) = serde_json::from_slice::<PeerChange>(change) else { return };
    if let Ok(changed) = stored.changed(change, roots(), [9; 12], now) {
        let changed = changed.open(roots()).expect("we sealed it");
        assert!((1..=LEADER_TOKENS_MAX).contains(&changed.leader_tokens.len()));
    }
}

/// A peer as it is read from the storage.
fn stored_peer(choices: &mut Choices<'_>) {
    let json = choices.rest();
    bounded((32 << 10) + 64 * json.len(), || {
        if let Ok(stored) = serde_json::from_slice::<StoredPeer>(json) {
            drop(stored.open(roots()));
            drop(stored.view());
        }
    });
}

/// All keys as they are read from the storage.
fn stored_keys(choices: &mut Choices<'_>) {
    let json = choices.rest();
    bounded((32 << 10) + 128 * json.len(), || {
        let Ok(stored) = serde_json::from_slice::<Vec<StoredHpkeKey>>(json) else { return };
        let mut sorted = stored.clone();
        keys::sort(&mut sorted);
        if let Ok(ring) = keys::keyring(stored, roots()) {
            let active = sorted.iter().filter(|key| key.state.is_active()).map(|key| &key.config);
            assert!(ring.published().eq(active), "published is what is active, in order");
        }
    });
}
