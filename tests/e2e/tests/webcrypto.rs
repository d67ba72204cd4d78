//! Diffie-Hellman by the platform's cryptography: it computes what the core computes, and no verdict depends on it.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use daphne_core::{
    b64,
    batch::BatchMode::{LeaderSelected, TimeInterval},
    error::ReportError,
    hpke::{HpkeKem, HpkeKeypair, OwnX25519},
    ids::{BatchId, HpkeConfigId},
    message::{BatchSelector, PartialBatchSelector},
    testing::points::hostile_points,
    version::DapVersion,
};
use e2e::{
    Server, World,
    forge::{Forged, TIMED, assert_counts_in, forge, job_body, unknown_key},
    server::random,
};
use serde_json::json;

/// Diffie-Hellman results that the platform has computed so far.
fn agreements(server: &Server) -> u64 {
    server.client().get("/internal/test/meter").json()["agreements"].as_u64().expect("a number")
}

#[test]
fn the_platform_computes_what_the_core_computes() {
    let server = Server::start();
    let mut points = hostile_points();
    points.extend((0..100).map(|_| random::<32>()));
    for seed in [[7; 32], random(), random()] {
        let body = json!({
            "seed": b64::encode(&seed),
            "points": b64::encode(points.as_flattened()),
        });
        let body = body.to_string();
        let answer =
            server.client().ask("POST", "/internal/test/x25519", &[], Some(body.as_bytes()));
        let shared = |who: &str| {
            let text = answer.json()[who].as_str().expect("base64").to_owned();
            b64::decode(&text).expect("base64")
        };
        let keypair =
            HpkeKeypair::derive(HpkeConfigId(0), HpkeKem::X25519HkdfSha256, &seed).unwrap();
        let here = OwnX25519.results(&keypair, &points).expect("a key of X25519");
        assert_eq!(shared("core"), here.as_flattened());
        let platform = shared("platform");
        let (platform, _) = platform.as_chunks::<32>();
        for ((point, ours), theirs) in points.iter().zip(&*here).zip(platform) {
            assert_eq!(ours, theirs, "{point:02x?}");
        }
        assert_eq!(platform.len(), points.len());
        // The platform has nothing for points of low order, and the core refuses them.
        let refused = here.iter().filter(|shared| **shared == [0; 32]).count();
        assert_eq!(refused, 14);
    }
}

/// Reports whose encapsulated keys are of every kind, with what becomes of each.
fn reports(world: &World) -> Vec<(Forged, Option<ReportError>)> {
    let good = || forge(world, 5, world.time(0), |_| ());
    let undecryptable = Some(ReportError::HpkeDecryptError);
    let mut reports = vec![(good(), None), (good(), None)];
    for point in hostile_points() {
        let mut report = good();
        report.sealed.enc = point.to_vec();
        reports.push((report, undecryptable));
    }
    for len in [0, 31, 33, 64, 65] {
        let mut report = good();
        report.sealed.enc.resize(len, 4);
        reports.push((report, undecryptable));
    }
    let mut highest_bit = good();
    highest_bit.sealed.enc[31] ^= 0x80;
    reports.push((highest_bit, undecryptable));
    let mut stranger = good();
    stranger.sealed.config_id = HpkeConfigId(200);
    reports.push((stranger, Some(unknown_key(world.spec.version))));
    reports.push((good(), None));
    reports
}

#[test]
fn verdicts_do_not_depend_on_who_computes_diffie_hellman() {
    let server = Server::start();
    for version in DapVersion::ALL {
        for mode in [TimeInterval, LeaderSelected] {
            for is_there in [true, false] {
                let world = World::new_in(&server, version, mode, |_| {});
                let (batch, selector) = match mode {
                    TimeInterval => (TIMED, world.interval(0, 1)),
                    LeaderSelected => {
                        let batch = BatchId::new(random());
                        let selected = PartialBatchSelector::LeaderSelected(batch);
                        (selected, BatchSelector::LeaderSelected(batch))
                    }
                };
                let (reports, expected): (Vec<_>, Vec<_>) = reports(&world).into_iter().unzip();
                server.plan_webcrypto(is_there);
                let before = agreements(&server);
                let answer = world.create(&job_body(&world, batch, &reports));
                let verdicts = world.verdicts(world.job_resp(&answer));
                let verdicts: Vec<_> = verdicts.into_iter().map(|(_, error)| error).collect();
                assert_eq!(verdicts, expected, "{version:?} {mode:?} {is_there}");
                let agreed = agreements(&server) - before;
                if is_there {
                    // All but those of low order, of other lengths, and sealed to strangers.
                    assert_eq!(agreed, reports.len() as u64 - 14 - 5 - 1);
                } else {
                    assert_eq!(agreed, 0);
                }
                let counts: BTreeSet<_> = reports
                    .iter()
                    .zip(&expected)
                    .filter(|(_, error)| error.is_none())
                    .map(|(report, _)| report.id)
                    .collect();
                assert_counts_in(&world, selector, &Vec::from_iter(counts));
            }
        }
    }
    server.plan_webcrypto(true);
}

#[test]
fn pieces_that_are_answered_later_have_the_platform_compute_too() {
    let mut server = Server::start();
    server.set_secret("REQUEST_WORK_MAX", "700");
    let world = World::new_in(&server, DapVersion::V18, TimeInterval, |_| {});
    let reports: Vec<_> = (0..20).map(|_| forge(&world, 5, world.time(0), |_| ())).collect();
    let before = agreements(&server);
    let created = world.create(&job_body(&world, TIMED, &reports));
    assert!(created.status == 200 && created.body.is_empty(), "{created:?}");
    let location = created.header("location").to_owned();
    let deadline = Instant::now() + Duration::from_secs(120);
    let answer = loop {
        let answer = world.get(&location);
        if !answer.body.is_empty() {
            break answer;
        }
        assert!(Instant::now() < deadline, "no answer");
        std::thread::sleep(Duration::from_millis(100));
    };
    let verdicts = world.verdicts(world.job_resp(&answer));
    assert!(verdicts.iter().all(|(_, error)| error.is_none()) && verdicts.len() == 20);
    assert_eq!(agreements(&server) - before, 20);
}
