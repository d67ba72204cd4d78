//! Clients and collectors of others, with the Worker as the helper: what is collected is exactly what was measured.

use std::{fmt::Debug, sync::OnceLock};

use daphne_core::{
    batch::BatchMode::{self, LeaderSelected, TimeInterval},
    hpke::HpkeKem,
    ids::HpkeConfigId,
    taskprov::PeerPolicy,
    vdaf::VdafConfig,
    wire::v09,
};
use e2e::{Client, Peer, Server, World, server::random};
use interop::{
    Leader,
    peers::{
        collect, divviup_upload, janus_client, janus_client_with_key, janus_collector,
        janus_report_for_taskprov, upload,
    },
};
use janus_core::vdaf::new_prio3_sum_vec_field64_multiproof_hmacsha256_aes128;
use janus_messages::{
    self as theirs, FixedSizeQuery, Query, problem_type::DapProblemType, query_type,
};
use prio::{
    codec::Decode as _,
    field::Field64,
    flp::gadgets::{Mul, ParallelSum},
    idpf::IdpfInput,
    vdaf::{
        self,
        poplar1::{Poplar1, Poplar1AggregationParam},
        prio3::Prio3,
    },
};
use serde_json::{Value, json};

fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(Server::start)
}

/// Measurements of one VDAF, and what they add up to.
struct Case<V: vdaf::Client<16> + vdaf::Collector> {
    /// The task's.
    config: VdafConfig,
    /// Janus', which are `prio`'s.
    vdaf: V,
    measurements: Vec<V::Measurement>,
    total: V::AggregateResult,
    /// VDAF and measurements as `@divviup/dap` spells them, if it has the VDAF.
    divviup: Option<(Value, Vec<Value>)>,
}

impl<V> Case<V>
where
    V: vdaf::Client<16> + vdaf::Collector<AggregationParam = ()> + Clone,
    V::AggregateResult: PartialEq + Debug,
{
    /// Runs the task in both batch modes.
    fn run(&self) {
        for mode in [TimeInterval, LeaderSelected] {
            self.run_in(mode);
        }
    }

    /// Three batches, each of all measurements: of one client's reports, of the other's, and of both.
    fn run_in(&self, mode: BatchMode) {
        let n = self.measurements.len();
        let world = World::new(server(), mode, |spec| {
            spec.vdaf = self.config;
            spec.min_batch_size = n as u64;
            if let VdafConfig::Prio3SumVecField64MultiproofHmacSha256Aes128 { .. } = self.config {
                spec.verify_key = random::<32>().to_vec();
            }
        });
        let leader = Leader::start(world);
        let times = [0, 1, 2].map(|bucket| leader.world().time(bucket));
        let client = janus_client(&leader, self.vdaf.clone()).expect("both publish keys");
        upload(&client, &self.measurements, times[0]).expect("the leader takes reports");
        let mut batches = 1;
        if let Some((spec, measurements)) = &self.divviup {
            divviup_upload(&leader, spec, measurements, times[1]);
            upload(&client, &self.measurements[..n / 2], times[2]).expect("it takes more");
            divviup_upload(&leader, spec, &measurements[n / 2..], times[2]);
            batches = 3;
        }
        let (vdaf, n) = (&self.vdaf, n as u64);
        for batch in 0..batches {
            // The collector of a batch's id has it from its leader, the others ask for any.
            let asked = if batch == 1 { Asked::ById } else { Asked::AsCurrent };
            let total = collected(&leader, mode, vdaf, batch, asked, n, &());
            assert_eq!(total, self.total, "{mode:?}, batch {batch}");
        }
    }
}

/// How a collector names a batch of a leader-selected task.
enum Asked {
    AsCurrent,
    ById,
}

/// What Janus' collector gets of the n-th batch, which has `report_count` reports.
fn collected<V>(
    leader: &Leader,
    mode: BatchMode,
    vdaf: &V,
    n: usize,
    asked: Asked,
    report_count: u64,
    agg_param: &V::AggregationParam,
) -> V::AggregateResult
where
    V: vdaf::Collector + Clone,
{
    let world = leader.world();
    let collector = janus_collector(leader, vdaf.clone());
    let (count, (start, duration), total) = match mode {
        TimeInterval => {
            let query = buckets(world, n as u64, 1);
            let done = collect(&collector, query, agg_param).expect("a collection");
            (done.report_count(), *done.interval(), done.aggregate_result().clone())
        }
        LeaderSelected => {
            let id: theirs::BatchId = (*leader.batches()[n].as_bytes()).into();
            let query = Query::new_fixed_size(match asked {
                Asked::ById => FixedSizeQuery::ByBatchId { batch_id: id },
                Asked::AsCurrent => FixedSizeQuery::CurrentBatch,
            });
            let done = collect(&collector, query, agg_param).expect("a collection");
            assert_eq!(*done.partial_batch_selector().batch_id(), id);
            (done.report_count(), *done.interval(), done.aggregate_result().clone())
        }
    };
    assert_eq!(count, report_count);
    assert_eq!(start.timestamp().unsigned_abs(), world.time(n as u64).as_seconds());
    assert_eq!(duration.num_seconds().unsigned_abs(), world.spec.time_precision.as_seconds());
    total
}

/// `count` batch buckets from the n-th on.
fn buckets(world: &World, n: u64, count: u64) -> Query<query_type::TimeInterval> {
    let precision = world.spec.time_precision.as_seconds();
    let interval = theirs::Interval::new(
        theirs::Time::from_seconds_since_epoch(world.time(n).as_seconds()),
        theirs::Duration::from_seconds(count * precision),
    );
    Query::new_time_interval(interval.expect("hours in the past"))
}

fn json(measurements: impl IntoIterator<Item = impl Into<Value>>) -> Vec<Value> {
    measurements.into_iter().map(Into::into).collect()
}

#[test]
fn counts_are_exact() {
    let measurements = vec![true, false, true, true, false];
    Case {
        config: VdafConfig::Prio3Count,
        vdaf: Prio3::new_count(2).expect("a VDAF"),
        divviup: Some((json!({ "type": "count" }), json(measurements.clone()))),
        measurements,
        total: 3,
    }
    .run();
}

#[test]
fn sums_are_exact() {
    let measurements = vec![255, 0, 17, 128];
    Case {
        config: VdafConfig::Prio3Sum { max_measurement: 255 },
        vdaf: Prio3::new_sum(2, 8).expect("a VDAF"),
        divviup: Some((json!({ "type": "sum", "bits": 8 }), json([255, 0, 17, 128]))),
        measurements,
        total: 400,
    }
    .run();
}

/// Vectors of seven integers of four bits.
const VECTORS: [[u64; 7]; 4] = [[15; 7], [0, 1, 2, 3, 4, 5, 6], [0; 7], [6, 5, 4, 3, 2, 1, 0]];
const SUM_OF_VECTORS: u64 = 21;

#[test]
fn sums_of_vectors_are_exact() {
    let spec = json!({ "type": "sumVec", "length": 7, "bits": 4, "chunkLength": 5 });
    Case {
        config: VdafConfig::Prio3SumVec { length: 7, max_measurement: 15, chunk_length: 5 },
        vdaf: Prio3::new_sum_vec(2, 4, 7, 5).expect("a VDAF"),
        measurements: VECTORS.map(|v| v.map(u128::from).to_vec()).to_vec(),
        total: vec![u128::from(SUM_OF_VECTORS); 7],
        divviup: Some((spec, json(VECTORS.map(json)))),
    }
    .run();
}

#[test]
fn sums_of_vectors_with_several_proofs_are_exact() {
    for proofs in [2, 3] {
        type Gadget = ParallelSum<Field64, Mul<Field64>>;
        Case {
            config: VdafConfig::Prio3SumVecField64MultiproofHmacSha256Aes128 {
                length: 7,
                max_measurement: 15,
                chunk_length: 5,
                proofs,
            },
            vdaf: new_prio3_sum_vec_field64_multiproof_hmacsha256_aes128::<Gadget>(proofs, 4, 7, 5)
                .expect("a VDAF"),
            measurements: VECTORS.map(|v| v.to_vec()).to_vec(),
            total: vec![SUM_OF_VECTORS; 7],
            divviup: None,
        }
        .run();
    }
}

#[test]
fn histograms_are_exact() {
    let spec = json!({ "type": "histogram", "length": 10, "chunkLength": 3 });
    Case {
        config: VdafConfig::Prio3Histogram { length: 10, chunk_length: 3 },
        vdaf: Prio3::new_histogram(2, 10, 3).expect("a VDAF"),
        measurements: vec![0, 9, 4, 9],
        total: vec![1, 0, 0, 0, 1, 0, 0, 0, 0, 2],
        divviup: Some((spec, json([0, 9, 4, 9]))),
    }
    .run();
}

#[test]
fn multihot_vectors_are_counted_exactly() {
    let (x, o) = (true, false);
    Case {
        config: VdafConfig::Prio3MultihotCountVec { length: 5, max_weight: 2, chunk_length: 2 },
        vdaf: Prio3::new_multihot_count_vec(2, 5, 2, 2).expect("a VDAF"),
        measurements: vec![
            vec![x, o, o, o, x],
            vec![o; 5],
            vec![o, o, x, o, o],
            vec![x, x, o, o, o],
        ],
        total: vec![2, 1, 1, 0, 1],
        divviup: None,
    }
    .run();
}

/// A parameter of Poplar1: how many strings begin with each of these?
fn prefixes(prefixes: &[&str]) -> Poplar1AggregationParam {
    let prefixes = prefixes.iter().map(|prefix| string(prefix)).collect();
    Poplar1AggregationParam::try_from_prefixes(prefixes).expect("prefixes in their order")
}

fn string(bits: &str) -> IdpfInput {
    IdpfInput::from_bools(&bits.chars().map(|c| c == '1').collect::<Vec<_>>())
}

#[test]
fn strings_are_counted_by_prefix_level_after_level() {
    for mode in [TimeInterval, LeaderSelected] {
        let world = World::new(server(), mode, |spec| {
            spec.vdaf = VdafConfig::Poplar1 { bits: 4 };
            spec.min_batch_size = 5;
            spec.max_batch_query_count = 3;
        });
        let leader = Leader::start(world);
        let vdaf = Poplar1::new_turboshake128(4);
        let client = janus_client(&leader, vdaf.clone()).expect("both publish keys");
        let strings = ["1011", "0000", "1011", "1000", "0111"].map(string);
        upload(&client, &strings, leader.world().time(0)).expect("the leader takes reports");

        let mut asked = Asked::AsCurrent;
        for (level, counts) in [
            (prefixes(&["0", "1"]), vec![2, 3]),
            (prefixes(&["00", "01", "10"]), vec![1, 1, 3]),
            (prefixes(&["0000", "1000", "1011", "1111"]), vec![1, 1, 2, 0]),
        ] {
            assert_eq!(collected(&leader, mode, &vdaf, 0, asked, 5, &level), counts, "{mode:?}");
            asked = Asked::ById;
        }
    }
}

fn counting(server: &Server, min_batch_size: u64) -> Leader {
    Leader::start(World::new(server, TimeInterval, |spec| {
        spec.vdaf = VdafConfig::Prio3Count;
        spec.min_batch_size = min_batch_size;
    }))
}

#[test]
fn reports_open_whichever_of_the_helpers_keys_a_client_has() {
    let server = Server::start();
    let old = server.hpke_config().clone();
    let kem = Some(HpkeKem::P256HkdfSha256);
    server.admin().add_hpke_key(Some(HpkeConfigId(0)), kem).expect("another key");
    let leader = counting(&server, 6);
    let vdaf = Prio3::new_count(2).expect("a VDAF");
    let time = leader.world().time(0);

    let client = janus_client(&leader, vdaf.clone()).expect("both publish keys");
    upload(&client, &[true, true], time).expect("the leader takes reports");
    divviup_upload(&leader, &json!({ "type": "count" }), &json([true, true]), time);
    let client = janus_client_with_key(&leader, vdaf.clone(), &old).expect("a key");
    upload(&client, &[true, true], time).expect("the leader takes reports");

    let mut keys: Vec<_> = leader
        .reports()
        .iter()
        .map(|r| v09::Report::decode(r).expect("a report").helper_encrypted_input_share.config_id.0)
        .collect();
    keys.sort_unstable();
    assert_eq!(keys, [0, 0, 0, 0, old.id.0, old.id.0]);
    let collector = janus_collector(&leader, vdaf);
    let done = collect(&collector, buckets(leader.world(), 0, 1), &()).expect("a collection");
    assert_eq!((done.report_count(), *done.aggregate_result()), (6, 6));
}

#[test]
fn a_task_that_its_leader_brings_counts_the_reports_with_the_extension() {
    let peer = Peer::new(server(), PeerPolicy::default());
    let leader = Leader::start(peer.task(server(), TimeInterval, |spec| {
        spec.vdaf = VdafConfig::Prio3Count;
        spec.min_batch_size = 3;
    }));
    let (world, vdaf) = (leader.world(), Prio3::new_count(2).expect("a VDAF"));
    let time = world.time(0);
    let header = world.taskprov.as_ref().expect("a task that its leader brings");
    assert!(theirs::taskprov::TaskConfig::get_decoded(header).is_ok());

    let http = Client::new(leader.url().as_str().trim_end_matches('/'));
    let path = format!("/tasks/{}/reports", world.task_id);
    for measurement in [true, true, false] {
        let report = janus_report_for_taskprov(world, &vdaf, &measurement, time);
        let headers = [("content-type", theirs::Report::MEDIA_TYPE)];
        assert_eq!(http.ask("PUT", &path, &headers, Some(&report)).status, 200);
    }
    // Without the extension a report is none of this task.
    let client = janus_client_with_key(&leader, vdaf.clone(), server().hpke_config());
    upload(&client.expect("a key"), &[true], time).expect("the leader takes it");

    let collector = janus_collector(&leader, vdaf);
    let done = collect(&collector, buckets(world, 0, 1), &()).expect("a collection");
    assert_eq!((done.report_count(), *done.aggregate_result()), (3, 2));
}

#[test]
fn a_refusal_of_the_helper_reaches_the_collector_and_costs_no_batch() {
    let leader = counting(server(), 4);
    let vdaf = Prio3::new_count(2).expect("a VDAF");
    let client = janus_client(&leader, vdaf.clone()).expect("both publish keys");
    let collector = janus_collector(&leader, vdaf);
    let query = || buckets(leader.world(), 0, 2);

    upload(&client, &[true; 3], leader.world().time(0)).expect("the leader takes reports");
    match collect(&collector, query(), &()) {
        Err(janus_collector::Error::Http(refusal)) => {
            assert_eq!(refusal.dap_problem_type(), Some(&DapProblemType::InvalidBatchSize));
        }
        other => panic!("{other:?}"),
    }
    upload(&client, &[true, false], leader.world().time(1)).expect("it takes more");
    let done = collect(&collector, query(), &()).expect("a collection");
    assert_eq!((done.report_count(), *done.aggregate_result()), (5, 4));
}
