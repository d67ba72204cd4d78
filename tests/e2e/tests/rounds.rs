//! Poplar1: jobs of two rounds, several aggregation parameters over one batch, and the heavy hitters that they find.

use std::{collections::BTreeMap, num::NonZeroU64, sync::OnceLock};

use daphne_core::{
    batch::BatchMode::{self, LeaderSelected, TimeInterval},
    collect::heavy_hitters::{HeavyHitters, Progress},
    error::ReportError,
    ids::BatchId,
    message::{AggregationJobContinue, BatchSelector, PartialBatchSelector, VerifyRespResult},
    vdaf::{Measurement, VdafConfig},
    version::DapVersion::{self, V09, V18},
};
use e2e::{Answer, Books, KINDS, Server, World, server::random, world::until_final};

fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(Server::start)
}

fn poplar(
    server: &Server,
    (version, mode): (DapVersion, BatchMode),
    bits: u16,
    shards: u16,
) -> World {
    World::new_in(server, version, mode, |spec| {
        spec.vdaf = VdafConfig::Poplar1 { bits };
        spec.max_batch_query_count = if version == V09 { u64::from(bits) } else { 1 };
        spec.shards = shards;
    })
}

fn reports(world: &World, strings: &[&str]) -> Vec<Vec<u8>> {
    let time = world.time(3);
    let string = |s: &&str| Measurement::Poplar1(s.parse().expect("bits"));
    strings.iter().map(|s| world.report(string(s), time)).collect()
}

/// The one batch of these tests.
fn batch(world: &World) -> (PartialBatchSelector, BatchSelector) {
    match world.spec.batch_mode {
        TimeInterval => (PartialBatchSelector::TimeInterval, world.interval(3, 1)),
        LeaderSelected => {
            let id = BatchId::new([9; 32]);
            (PartialBatchSelector::LeaderSelected(id), BatchSelector::LeaderSelected(id))
        }
    }
}

/// 1,000 strings of 16 bits: four of them often, the others at random.
fn thousand_strings() -> Vec<String> {
    let mut strings = Vec::new();
    for (word, times) in [(0xbeef_u16, 210), (0xbeee, 140), (0x0001, 90), (0x7fff, 60)] {
        strings.extend(std::iter::repeat_n(format!("{word:016b}"), times));
    }
    while strings.len() < 1_000 {
        let word = u16::from_be_bytes(random());
        strings.push(format!("{word:016b}"));
    }
    strings
}

#[test]
fn the_heavy_hitters_among_a_thousand_strings_are_found() {
    const THRESHOLD: u64 = 50;
    let mut world = poplar(server(), (V09, TimeInterval), 16, 2);
    let strings = thousand_strings();
    let reports = reports(&world, &strings.iter().map(String::as_str).collect::<Vec<_>>());
    let (batch, selector) = batch(&world);
    let threshold = NonZeroU64::new(THRESHOLD).expect("it is not 0");
    let mut search = HeavyHitters::new(&world.leader.vdaf, threshold, 1).expect("a search");
    let found = loop {
        let prefixes: Vec<String> =
            search.question().prefixes().iter().map(ToString::to_string).collect();
        world.ask_for(&prefixes.iter().map(String::as_str).collect::<Vec<_>>());
        let mut books = Books::default();
        for reports in reports.chunks(500) {
            world.aggregate(batch, reports, &mut books);
        }
        let request = world.share_request(selector, &books);
        let answer = until_final(|| world.post_share(&request));
        world.assert_true(selector, &books, &answer);
        match search.answer(&world.result(selector, &books, &answer)).expect("a result") {
            Progress::Next(next) => search = *next,
            Progress::Done(found) => break found,
        }
    };
    let mut truth: BTreeMap<String, u128> = BTreeMap::new();
    strings.iter().for_each(|string| *truth.entry(string.clone()).or_default() += 1);
    truth.retain(|_, n| *n >= u128::from(THRESHOLD));
    let found: BTreeMap<String, u128> =
        found.into_iter().map(|(string, n)| (string.to_string(), n)).collect();
    assert_eq!(found, truth);
    assert!(found.len() >= 4, "{found:?}");
}

/// What jobs take, collections take: 4,096 prefixes of 256 bits are half of what a request for a share may be.
#[test]
fn the_longest_parameter_that_jobs_take_is_collected() {
    DapVersion::ALL.into_iter().for_each(the_longest_parameter_is_collected);
}

fn the_longest_parameter_is_collected(version: DapVersion) {
    let mut world = poplar(server(), (version, LeaderSelected), 256, 1);
    let prefixes: Vec<String> =
        (0..4_096).map(|n| format!("{}{n:012b}", "01".repeat(122))).collect();
    let prefixes: Vec<&str> = prefixes.iter().map(String::as_str).collect();
    world.ask_for(&prefixes);
    let reports = reports(&world, &[prefixes[0], prefixes[4_095], prefixes[4_095]]);
    let (batch, selector) = batch(&world);
    let mut books = Books::default();
    world.aggregate(batch, &reports, &mut books);
    assert!(world.share_request(selector, &books).len() > 131_078);
    world.collect(selector, &books);
}

#[test]
fn a_job_of_two_rounds_survives_the_loss_of_every_process() {
    for kind in KINDS {
        let server = Server::start();
        let mut world = poplar(&server, kind, 8, 3);
        world.ask_for(&["0", "1"]);
        let reports = reports(&world, &["00000000", "11111111", "10101010", "01010101"]);
        let (batch, selector) = batch(&world);
        let job = world.job(batch, &reports);
        let first = world.put(&job);
        server.kill_workerd();
        assert_eq!(world.put(&job).body, first.body, "the first answer is kept");
        let job = world.proceed(job, &first);
        let last = world.post(&job);
        server.kill_workerd();
        assert_eq!(world.post(&job).body, last.body, "and so is the last");
        let mut books = Books::default();
        assert_eq!(world.finish_continued(job, &last, &mut books), []);
        world.collect(selector, &books);
    }
}

/// A leader that asks about a report for other prefixes of the same level is told nothing, though all processes were lost
/// meanwhile, and whatever became of the first job.
#[test]
fn no_other_prefixes_of_a_level_are_answered_after_a_restart() {
    for kind in KINDS {
        let server = Server::start();
        let mut world = poplar(&server, kind, 8, 2);
        let all = reports(&world, &["00000000", "11111111", "10101010", "01010101"]);
        let (batch, selector) = batch(&world);
        world.ask_for(&["0", "1"]);
        let first = world.job(batch, &all[..3]);
        let answer = world.put(&first);
        let said = |world: &World, answer: &Answer| {
            let answers = world.wire().aggregation_job_resp(world.job_resp(answer)).expect("ours");
            answers.into_iter().map(|a| (a.report_id, a.result)).collect::<BTreeMap<_, _>>()
        };
        let messages = said(&world, &answer);
        assert!(messages.values().all(|m| matches!(m, VerifyRespResult::Continue(_))));
        world.ask_for(&["1"]);
        let other = world.job(batch, &all[..3]);
        for _ in 0..2 {
            server.kill_workerd();
            let refused = said(&world, &world.put(&other));
            let replayed = VerifyRespResult::Reject(ReportError::ReportReplayed);
            assert!(refused.values().all(|m| *m == replayed), "{refused:?}");
            assert_eq!(world.delete(&first.id).status, 204);
        }
        // The same prefixes in another job: the same messages.
        world.ask_for(&["0", "1"]);
        let again = said(&world, &world.put(&world.job(batch, &all[1..])));
        assert_eq!(again.iter().filter(|(id, m)| messages.get(*id) == Some(*m)).count(), 2);
        let mut books = Books::default();
        world.aggregate(batch, &all, &mut books);
        world.collect(selector, &books);
    }
}

#[test]
fn requests_out_of_turn_leave_a_job_as_it_is() {
    for kind in KINDS {
        let mut world = poplar(server(), kind, 8, 1);
        world.ask_for(&["0", "1"]);
        let all = reports(&world, &["00000000", "11111111", "10101010"]);
        let (batch, selector) = batch(&world);
        let job = world.job(batch, &all);
        let (id, begun_with) = (job.id, job.body.clone());
        let unknown = world.job(batch, &all[..1]);
        let first = world.put(&job);
        let job = world.proceed(job, &first);
        let body = job.body.clone();
        let wire = world.wire();
        let continuation = wire.aggregation_job_continue(&body).expect("our own");
        let with = |step, order: &[usize]| {
            let verify_continues =
                order.iter().map(|n| continuation.verify_continues[*n]).collect();
            let request = AggregationJobContinue { step, verify_continues };
            wire.encode_aggregation_job_continue(&request).expect("small")
        };
        let task = &world.task_id;
        let refused = |body: &[u8], kind: &str| world.post_body(&id, body).refused(kind, task);
        world.post_body(&unknown.id, &job.body).refused("unrecognizedAggregationJob", task);
        refused(&with(0, &[0]), "invalidMessage");
        refused(&with(1, &[1, 0]), "invalidMessage");
        refused(&with(1, &[0, 0]), "invalidMessage");
        refused(&with(2, &[0]), "stepMismatch");
        let last = world.post(&job);
        assert_eq!(world.post(&job).body, last.body);
        refused(&with(1, &[0]), "stepMismatch");
        refused(&with(2, &[0]), "invalidMessage");
        refused(&with(3, &[0]), "stepMismatch");
        // In DAP-09 an initialization comes before, or not at all; in DAP-18 it is told how far the job is.
        let again = world.put_body(&id, &begun_with);
        match kind.0 {
            V09 => again.refused_without_type(409),
            V18 => assert_eq!(world.job_resp(&again), last.body),
        }
        let mut books = Books::default();
        assert_eq!(world.finish_continued(job, &last, &mut books), []);
        assert_eq!(world.delete(&id).status, 204);
        refused(&with(1, &[0, 1, 2]), "unrecognizedAggregationJob");
        assert_eq!(world.put_body(&id, &begun_with).status, 409);
        world.collect(selector, &books);
    }
}

#[test]
fn one_bad_message_refuses_one_report() {
    DapVersion::ALL.into_iter().for_each(one_bad_message_of_a_job);
}

fn one_bad_message_of_a_job(version: DapVersion) {
    let mut world = poplar(server(), (version, LeaderSelected), 8, 1);
    world.ask_for(&["0", "1"]);
    let all = reports(&world, &["00000000", "11111111", "10101010", "01010101", "00110011"]);
    let (batch, selector) = batch(&world);
    let job = world.job(batch, &all);
    let first = world.put(&job);
    let mut job = world.proceed(job, &first);
    let body = job.body.clone();
    let mut request = world.wire().aggregation_job_continue(&body).expect("our own");
    let finish = request.verify_continues[0].payload;
    let longer = [finish, &[0]].concat();
    let initialize = [&[0], &finish[1..]].concat();
    request.verify_continues[1].payload = &longer;
    request.verify_continues[2].payload = &initialize;
    // In DAP-18 a leader must not send an empty one.
    request.verify_continues[3].payload = if version == V09 { &[] } else { &[2] };
    job.body = world.wire().encode_aggregation_job_continue(&request).expect("small");
    let answer = world.post(&job);
    let mut books = Books::default();
    let refused = world.finish_continued(job, &answer, &mut books);
    assert_eq!(refused.len(), 3);
    assert!(refused.iter().all(|(_, error)| *error == ReportError::VdafVerifyError));
    world.collect(selector, &books);
    // All began, and begin no other way at this level. The same way, what did not count may come again; below, what did, too,
    // but in DAP-18 nothing may.
    let replays = |prefixes: &[&str], world: &mut World| {
        world.ask_for(prefixes);
        let refused = world.run(
            world.job(PartialBatchSelector::LeaderSelected(BatchId::new(random())), &all),
            &mut Books::default(),
        );
        assert!(refused.iter().all(|(_, e)| *e == ReportError::ReportReplayed), "{refused:?}");
        refused.len()
    };
    assert_eq!(replays(&["1"], &mut world), 5);
    assert_eq!(replays(&["0", "1"], &mut world), 2);
    assert_eq!(replays(&["00", "11"], &mut world), if version == V09 { 0 } else { 5 });
    assert_eq!(replays(&["0", "1"], &mut world), 5);
}

#[test]
fn a_batch_is_queried_as_often_as_the_task_says_and_with_the_reports_it_had() {
    for mode in [TimeInterval, LeaderSelected] {
        let mut world = World::new(server(), mode, |spec| {
            spec.vdaf = VdafConfig::Poplar1 { bits: 8 };
            spec.max_batch_query_count = 2;
        });
        let all = reports(&world, &["00000000", "11111111", "10101010", "01010101"]);
        let (batch, selector) = batch(&world);
        world.ask_for(&["0", "1"]);
        let mut books = Books::default();
        world.aggregate(batch, &all[..3], &mut books);
        world.collect(selector, &books);
        // A report that the first query did not count is too late for the second.
        world.ask_for(&["00", "10", "11"]);
        let mut books = Books::default();
        let refused = world.run(world.job(batch, &all), &mut books);
        let errors: Vec<_> = refused.iter().map(|(_, error)| *error).collect();
        assert_eq!(errors, [ReportError::BatchCollected]);
        let task = &world.task_id.clone();
        // Nothing was aggregated for these prefixes.
        world.ask_for(&["01"]);
        let other = world.share_request_for(
            &world.agg_param.as_ref().expect("prefixes").encode(),
            selector,
            3,
            Default::default(),
        );
        world.post_share(&other).refused("invalidBatchSize", task);
        world.ask_for(&["00", "10", "11"]);
        world.collect(selector, &books);
        // The batch was asked twice.
        world.ask_for(&["000"]);
        let mut books = Books::default();
        world.aggregate(batch, &all[..3], &mut books);
        let third = world.share_request(selector, &books);
        world.post_share(&third).refused("batchQueriedTooManyTimes", task);
    }
}

/// In DAP-18 a batch is collected for one parameter, which is that of its jobs.
#[test]
fn a_batch_is_collected_for_the_parameter_of_its_jobs_and_no_other() {
    for mode in [TimeInterval, LeaderSelected] {
        let mut world = poplar(server(), (V18, mode), 8, 2);
        let all = reports(&world, &["00000000", "11111111", "10101010", "01010101"]);
        let (batch, selector) = batch(&world);
        world.ask_for(&["0", "1"]);
        let mut books = Books::default();
        world.aggregate(batch, &all, &mut books);
        let (count, checksum) = books.count(&selector, &world);
        let other = |prefixes: &[&str], world: &mut World| {
            world.ask_for(prefixes);
            let param = world.agg_param.as_ref().expect("prefixes").encode();
            world.share_request_for(&param, selector, count, checksum)
        };
        for prefixes in [&["0"][..], &["1"], &["00", "01"]] {
            let request = other(prefixes, &mut world);
            world.post_share(&request).refused("invalidMessage", &world.task_id);
        }
        world.ask_for(&["0", "1"]);
        let share = world.collect(selector, &books);
        let request = other(&["00", "01"], &mut world);
        world.post_share(&request).refused("batchOverlap", &world.task_id);
        // Nor is there another level for its reports, or for others of the batch.
        let late = reports(&world, &["00000001"]);
        let refused = world.run(world.job(batch, &[&all[..], &late].concat()), &mut books.clone());
        assert_eq!(refused.len(), 5);
        assert_eq!(refused[4].1, ReportError::BatchCollected);
        let replayed = [ReportError::ReportReplayed, ReportError::BatchCollected];
        assert!(refused.iter().all(|(_, error)| replayed.contains(error)), "{refused:?}");
        world.ask_for(&["0", "1"]);
        assert_eq!(world.collect(selector, &books).body, share.body);
    }
}

#[test]
fn a_parameter_that_is_none_is_refused() {
    for (version, token) in [(V09, "invalidMessage"), (V18, "invalidAggregationParameter")] {
        a_parameter_that_is_none(version, token);
    }
}

fn a_parameter_that_is_none(version: DapVersion, token: &str) {
    let mut world = poplar(server(), (version, TimeInterval), 8, 1);
    world.ask_for(&["0"]);
    let all = reports(&world, &["00000000"]);
    let (batch, selector) = batch(&world);
    let job = world.job(batch, &all);
    let mut init = world.wire().aggregation_job_init(&job.body).expect("our own");
    for param in [
        &[][..],
        &[0, 0, 0, 0, 0, 1],
        &[0, 8, 0, 0, 0, 1, 0],
        &[0xff, 0xff, 0, 0, 0, 1],
        &[0, 0, 0xff, 0xff, 0xff, 0xff, 0],
        &[0, 0, 0, 0, 0, 1, 0, 0],
        &[0, 0, 0, 0, 0, 0],
    ] {
        init.agg_param = param;
        let body = world.wire().encode_aggregation_job_init(&init).expect("small");
        world.put_body(&job.id, &body).refused(token, &world.task_id);
        let share = world.share_request_for(param, selector, 1, Default::default());
        world.post_share(&share).refused(token, &world.task_id);
    }
    let answer = world.put(&job);
    let answers = world.wire().aggregation_job_resp(world.job_resp(&answer)).expect("an answer");
    assert!(matches!(answers[0].result, VerifyRespResult::Continue(_)), "the id is still free");
}
