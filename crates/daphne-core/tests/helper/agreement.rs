//! Who computes Diffie-Hellman for a job's reports changes nothing but the time it takes.

use std::cell::RefCell;

use daphne_core::{
    aggregate::{
        commit::{self, JobIdentity},
        helper::HelperJob,
    },
    error::ReportError,
    hpke::{HpkeKeypair, KeyAgreement, OwnX25519, SharedPoints},
    ids::{AggregationJobId, HpkeConfigId},
    message::HpkeCiphertext,
    store::placement::ShardKey,
    time::Time,
};
use futures::{FutureExt as _, executor::block_on, future::LocalBoxFuture};
use sha2::{Digest as _, Sha256};

use crate::world::{SHAPES, Shape, World, codes};

/// What becomes of the results.
type Change = fn(Option<SharedPoints>) -> Option<SharedPoints>;
type Verdicts = Vec<Option<ReportError>>;

/// Computes, changes the results, and remembers the points.
struct Other {
    change: Change,
    asked: RefCell<Vec<Vec<[u8; 32]>>>,
}

impl std::fmt::Debug for Other {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Other")
    }
}

impl KeyAgreement for Other {
    fn agree<'a>(
        &'a self,
        keypair: &'a HpkeKeypair,
        points: &'a [[u8; 32]],
    ) -> LocalBoxFuture<'a, Option<SharedPoints>> {
        async move {
            self.asked.borrow_mut().push(points.to_vec());
            (self.change)(OwnX25519.results(keypair, points))
        }
        .boxed_local()
    }
}

/// What a job is answered whose second report has a point of low order, the third a key of another length, and the
/// fourth a key that is not ours; the points that somebody else was asked for, and how often they were those of the others.
fn verdicts(shape: Shape, change: Option<Change>) -> (Verdicts, Vec<Vec<[u8; 32]>>, usize) {
    let world = World::new(shape);
    let job = world.begin(1, &world.reports(&[1, 2, 3, 4, 5]));
    let mut init = world.wire().aggregation_job_init(job.request()).unwrap();
    let mut encs: Vec<Vec<u8>> = Vec::new();
    for (n, v) in init.verify_inits.iter().enumerate() {
        let enc = v.report_share.encrypted_input_share.enc;
        encs.push(match n {
            1 => [0; 32].to_vec(),
            2 => enc[..31].to_vec(),
            _ => enc.to_vec(),
        });
    }
    for (n, v) in init.verify_inits.iter_mut().enumerate() {
        let sealed = v.report_share.encrypted_input_share;
        let config_id = if n == 3 { HpkeConfigId(200) } else { sealed.config_id };
        v.report_share.encrypted_input_share =
            HpkeCiphertext { config_id, enc: &encs[n], ..sealed };
    }
    let other = change.map(|change| Other { change, asked: RefCell::default() });
    let now = Time::from_seconds(world.now);
    let mut helper = HelperJob::new(&world.task, &world.keys, now, &init).unwrap();
    if let Some(other) = &other {
        helper = helper.agreed_by(other);
    }
    let identity = JobIdentity {
        job: AggregationJobId::new([1; 16]),
        digest: Sha256::digest(job.request()).into(),
        shard_key: ShardKey::new(world.shard_key),
    };
    let answers = block_on(commit::run(&world.cluster, &identity, &helper)).unwrap();
    let expected = [0, 1, 4].map(|n| <[u8; 32]>::try_from(encs[n].as_slice()).unwrap());
    let asked = other.map_or(vec![], |other| other.asked.take());
    let right = asked.iter().filter(|points| **points == expected).count();
    (codes(&answers), asked, right)
}

#[test]
fn verdicts_are_the_same_whoever_computes_diffie_hellman() {
    let changes: [Change; 5] = [
        |results| results,
        |_| None,
        |results| results.map(|all| SharedPoints::new(vec![[0; 32]; all.len()])),
        |results| results.map(|all| SharedPoints::new(all[..1].to_vec())),
        |results| results.map(|all| SharedPoints::new([all.to_vec(), vec![[1; 32]; 9]].concat())),
    ];
    for shape in SHAPES.into_iter().flatten() {
        let (alone, asked, _) = verdicts(shape, None);
        assert!(asked.is_empty());
        let undecryptable = Some(ReportError::HpkeDecryptError);
        assert_eq!(alone[..3], [None, undecryptable, undecryptable]);
        assert!(alone[3].is_some());
        assert_eq!(alone[4], None);
        for change in changes {
            let (with_others, asked, right) = verdicts(shape, Some(change));
            assert_eq!(with_others, alone, "{shape:?}");
            // Once, for those that need it.
            assert_eq!((asked.len(), right), (1, 1));
        }
    }
}

#[test]
fn a_result_is_used_for_its_own_report() {
    // Whose results are swapped, none of them opens: what was given was used, and the core asked nobody twice.
    let swapped = |results: Option<SharedPoints>| {
        results.map(|all| SharedPoints::new(all.iter().rev().copied().collect()))
    };
    for shape in SHAPES.into_iter().flatten() {
        let (codes, asked, _) = verdicts(shape, Some(swapped));
        assert_eq!(asked.len(), 1);
        assert_eq!([codes[0], codes[4]], [Some(ReportError::HpkeDecryptError); 2]);
    }
}
