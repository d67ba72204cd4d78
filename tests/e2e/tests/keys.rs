//! HPKE keys: states, import, pins, and what partners see of them.

use dapctl::http::ClientError;
use daphne_core::{
    batch::BatchMode::TimeInterval,
    codec::Writer,
    hpke::{HpkeConfig, HpkeConfigList, HpkeKem, HpkeKeypair},
    ids::HpkeConfigId,
    message::PartialBatchSelector,
};
use e2e::{
    Books, Server, World,
    server::{HPKE_KEY_ID, random},
};

const TIMED: PartialBatchSelector = PartialBatchSelector::TimeInterval;

/// What clients get.
fn list(server: &Server) -> Vec<u8> {
    let answer = server.client().get("/v09/hpke_config");
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.body
}

fn encoded(configs: &[&HpkeConfig]) -> Vec<u8> {
    let mut w = Writer::new();
    HpkeConfigList(configs.iter().map(|c| (*c).clone()).collect()).write(&mut w);
    w.finish().unwrap()
}

fn keypair(id: u8) -> HpkeKeypair {
    HpkeKeypair::derive(HpkeConfigId(id), HpkeKem::X25519HkdfSha256, &random::<32>()).unwrap()
}

fn refused<T: std::fmt::Debug>(result: Result<T, ClientError>, status: u16, why: &str) {
    let error = result.unwrap_err();
    assert_eq!(error.problem().map(|p| p.status), Some(status), "{error}");
    assert!(error.to_string().contains(why), "{error}");
}

#[test]
fn an_imported_key_with_id_0_is_published_first_and_its_reports_count() {
    let server = Server::start();
    let admin = server.admin();
    let own = keypair(0);
    let imported = admin.import_hpke_key(&own, true, true).unwrap();
    assert!(imported.created && imported.key.state.is_pinned());
    assert_eq!(list(&server), encoded(&[own.config(), server.hpke_config()]));
    // Whatever other keys do, it stays where it is.
    let newer = admin.add_hpke_key(None, None).unwrap();
    assert_eq!(list(&server), encoded(&[own.config(), &newer, server.hpke_config()]));
    // Alone, it is what clients byte-compare.
    for id in [newer.id, HPKE_KEY_ID] {
        admin.set_hpke_key_state(id, false, false).unwrap();
    }
    assert_eq!(list(&server), encoded(&[own.config()]));
    let mut world = World::new(&server, TimeInterval, |_| {});
    world.reporter.helper_hpke_config = own.config().clone();
    let mut books = Books::default();
    world.aggregate(TIMED, &world.sums(&[1, 2, 3], world.time(0)), &mut books);
    world.collect(world.interval(0, 1), &books);
    // The same again is no second key; another key with that id is none.
    assert!(!admin.import_hpke_key(&own, true, true).unwrap().created);
    refused(admin.import_hpke_key(&keypair(0), true, false), 409, "another HPKE key has this id");
    refused(admin.set_hpke_key_state(HpkeConfigId(0), false, true), 409, "unpin it first");
}
