//! What became of reports and requests, caused in the runtime and read back: as an operator's status, as Prometheus
//! reads it, and as a control plane does. Each job is sent twice and counted once.
//!
//! Of the types of failed steps that Janus counts, a helper does not meet these; they stay at 0:
//!
//! | type | why |
//! |---|---|
//! | `missing_leader_input_share`, `missing_helper_input_share`, `missing_client_report`, `missing_prepare_message` | a leader's stored reports and jobs |
//! | `helper_prep_share_decode_failure`, `helper_step_failure` | a leader about its helper |
//! | `public_share_encode_failure`, `input_share_aad_encode_failure` | what was received is never encoded again, and no message is long enough |
//! | `prepare_init_failure` | shares that decode can be verified, with each VDAF that there is |
//! | `accumulate_failure` | a share of another length is a defect of ours: 500 |

use std::{collections::BTreeMap, sync::OnceLock};

use daphne_core::{
    batch::BatchMode::{LeaderSelected, TimeInterval},
    error::ReportError,
    ids::{AggregationJobId, BatchId, HpkeConfigId},
    message::PartialBatchSelector,
    metrics::{STEP_FAILURES, TaskStatus},
    taskprov::PeerPolicy,
    testing::half_valid,
    time::{Duration, Interval, Time},
    vdaf::{Measurement, VdafConfig},
    version::DapVersion,
    wire::v09,
};
use e2e::{
    Books, Peer, Server, World,
    client::{JOB_CONTINUE, JOB_INIT},
    control_plane::{API_PATH, API_TOKENS, MEDIA_TYPE},
    forge::{Draft, Forged, TIMED, forge, forge_shares, job_body},
    now,
    server::{random, random_token},
    world::configure,
};

fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| {
        let mut server = Server::start();
        server.set_secret("METRICS_TOKENS", &format!("{},{}", random_token(), random_token()));
        server.set_secret(API_TOKENS, &random_token());
        server
    })
}

fn world() -> World {
    World::new(server(), TimeInterval, |_| {})
}

fn status(world: &World) -> TaskStatus {
    server().admin().task_status(&world.task_id).unwrap().expect("the task exists")
}

/// All samples of a task: name and labels but the task, and the value.
fn scraped(world: &World) -> BTreeMap<String, u64> {
    let token = server().secret("METRICS_TOKENS").split(',').nth(1).expect("two tokens");
    let bearer = format!("Bearer {token}");
    let task = format!("task=\"{}\"", world.task_id);
    let mut path = "/metrics?limit=3".to_owned();
    let mut samples = BTreeMap::new();
    loop {
        let answer = server().client().ask("GET", &path, &[("authorization", &bearer)], None);
        let text =
            String::from_utf8(answer.ok("text/plain; version=0.0.4; charset=utf-8").to_vec());
        for line in text.expect("UTF-8").lines().filter(|l| !l.starts_with('#')) {
            let (name, value) = line.rsplit_once(' ').expect("a sample");
            let value: u64 = value.parse().expect("a number");
            if name.contains(&task) {
                let name =
                    name.replace(&format!("{task},"), "").replace(&format!("{{{task}}}"), "");
                assert_eq!(samples.insert(name, value), None, "{line} comes twice");
            }
        }
        match answer.header("link").split_once('>') {
            Some((next, _)) => path = next.trim_start_matches('<').to_owned(),
            None => return samples,
        }
    }
}

/// What the aggregator API tells of a task.
fn told_to_control_planes(world: &World, of: &str) -> BTreeMap<String, u64> {
    let bearer = format!("Bearer {}", server().secret(API_TOKENS));
    let headers = [("authorization", bearer.as_str()), ("accept", MEDIA_TYPE)];
    let path = format!("{API_PATH}/tasks/{}/metrics/{of}", world.task_id);
    let answer = server().client().ask("GET", &path, &headers, None);
    serde_json::from_slice(answer.ok(MEDIA_TYPE)).expect("integers with names")
}

/// Asserts what a task has counted: accepted reports, reports refused with `outcome` and, among them, those of `step`.
#[track_caller]
fn assert_counted(world: &World, accepted: u64, outcome: (&str, u64), step: Option<(&str, u64)>) {
    let status = status(world);
    assert!(status.complete);
    for (name, n) in status.counters.aggregation.named() {
        let expected = match name {
            "success" => accepted,
            _ if name == outcome.0 => outcome.1,
            _ => 0,
        };
        assert_eq!(n, expected, "{name}");
    }
    let told = told_to_control_planes(world, "aggregations");
    for (name, n) in status.counters.aggregation.named() {
        assert_eq!(told[name], n, "{name} in the aggregator API");
    }
    let helpers: u64 = told.iter().filter(|(n, _)| n.starts_with("helper_")).map(|(_, n)| n).sum();
    assert_eq!((told.len(), helpers), (21, outcome.1));
    assert_eq!(told_to_control_planes(world, "uploads").into_values().collect::<Vec<_>>(), [0; 8]);
    let samples = scraped(world);
    assert_eq!(samples["daphne_reports_total{outcome=\"success\"}"], accepted);
    assert_eq!(samples[&format!("daphne_reports_total{{outcome=\"{}\"}}", outcome.0)], outcome.1);
    for name in STEP_FAILURES {
        let expected = step.filter(|(step, _)| *step == name).map_or(0, |(_, n)| n);
        assert_eq!(status.counters.step_failures[name], expected, "{name}");
        let sample = format!("daphne_step_failures_total{{type=\"{name}\"}}");
        assert_eq!(samples[&sample], expected, "{name} in the metrics");
    }
    assert_eq!(samples["daphne_task_complete"], 1);
    assert!(samples["daphne_last_job_timestamp_seconds"] + 600 > now());
}

/// Sends `bad` between two good reports, twice. Asserts that it is counted once, and that the reason is told.
#[track_caller]
fn counts_once(world: &World, error: &str, step: Option<&str>, reason: &str, bad: Forged) {
    let good = [11, 31].map(|n| forge(world, n, world.time(0), |_| ()));
    let [first, last] = good;
    let body = job_body(world, TIMED, &[first, bad, last]);
    sent_twice(world, &body, 1);
    assert_counted(world, 2, (error, 1), step.map(|step| (step, 1)));
    let status = status(world);
    let told = status.last_error.expect("an error");
    assert_eq!((told.reason.as_str(), told.count), (reason, 1));
    assert!(told.last.as_seconds() + 600 > now() && told.first == told.last);
    assert_eq!(status.reasons.len(), 1);
}

/// Sends a job twice. So many of its reports are refused.
#[track_caller]
fn sent_twice(world: &World, body: &[u8], refused: usize) {
    let job = world.job_id(body);
    let answer = world.put_body(&job, body);
    let errors = world.verdicts(world.job_resp(&answer));
    assert_eq!(errors.iter().filter(|(_, error)| error.is_some()).count(), refused);
    assert_eq!(world.put_body(&job, body).body, answer.body);
}

/// A report in bucket 0 whose client did this, in a task of its own.
fn drafted(change: impl FnOnce(&mut Draft)) -> (World, Forged) {
    let world = world();
    let report = forge(&world, 5, world.time(0), change);
    (world, report)
}

/// A report in bucket 0 to which this was done on the way.
fn spoiled(change: impl FnOnce(&mut Forged)) -> (World, Forged) {
    let (world, mut report) = drafted(|_| ());
    change(&mut report);
    (world, report)
}

#[test]
fn an_unknown_hpke_configuration_is_counted() {
    let (world, report) = spoiled(|r| r.sealed.config_id = HpkeConfigId(200));
    let reason = "hpke_unknown_config_id: configuration 200";
    counts_once(&world, "hpke_unknown_config_id", Some("unknown_hpke_config_id"), reason, report);
}

#[test]
fn a_share_that_does_not_open() {
    let (world, report) = spoiled(|r| r.sealed.payload[0] ^= 1);
    let reason = "hpke_decrypt_error: its input share does not open";
    counts_once(&world, "hpke_decrypt_failure", Some("decrypt_failure"), reason, report);
}

#[test]
fn a_plaintext_that_is_none() {
    let (world, report) = drafted(|d| d.trailing = vec![0]);
    let reason = "invalid_message: what was sealed is no input share with extensions";
    let step = Some("plaintext_input_share_decode_failure");
    counts_once(&world, "invalid_message", step, reason, report);
}

#[test]
fn an_input_share_of_another_length_is_counted() {
    let (world, report) = drafted(|d| d.input_share.push(0));
    let reason = "invalid_message: input share of another length or form";
    counts_once(&world, "invalid_message", Some("input_share_decode_failure"), reason, report);
}

#[test]
fn a_public_share_of_another_length_is_counted() {
    let (world, report) = drafted(|d| d.public_share.push(0));
    let reason = "invalid_message: public share of another length or form";
    counts_once(&world, "invalid_message", Some("public_share_decode_failure"), reason, report);
}

#[test]
fn extensions() {
    for (extensions, outcome, step, reason) in [
        (
            &[0x12, 0x34, 0, 0, 0x12, 0x34, 0, 0][..],
            "duplicate_extension",
            "duplicate_extension",
            "invalid_message: repeated extension 0x1234",
        ),
        (
            &[0x12, 0x34, 0, 1, 9],
            "invalid_message",
            "unknown_extension",
            "invalid_message: unknown extension 0x1234",
        ),
        (
            &[0xff, 0, 0, 0],
            "invalid_message",
            "unexpected_taskprov_extension",
            "invalid_message: the taskprov extension, in another task",
        ),
    ] {
        let (world, report) = drafted(|d| d.extensions = extensions.to_vec());
        counts_once(&world, outcome, Some(step), reason, report);
    }
}

#[test]
fn what_a_report_of_dap_18_alone_is_refused_for() {
    let start = Time::from_seconds((now() / 3_600 - 240) * 3_600);
    type Change = (fn(&mut Draft), &'static str, &'static str, Option<&'static str>);
    let changes: [Change; 4] = [
        (
            |d| d.public_extensions = vec![0, 1, 0],
            "invalid_message",
            "its public extensions do not decode",
            Some("public_extensions_decode_failure"),
        ),
        (
            |d| d.extensions = vec![0x12, 0x35, 0, 0, 0x12, 0x34, 0, 0],
            "invalid_message",
            "its extensions are out of order",
            Some("unordered_extensions"),
        ),
        (
            |d| {
                d.public_extensions = vec![0x12, 0x34, 0, 0];
                d.extensions = vec![0x12, 0x34, 0, 0];
            },
            "duplicate_extension",
            "repeated extension 0x1234",
            Some("duplicate_extension"),
        ),
        // Control planes have no counter for it.
        (|d| d.time -= 1, "report_too_early", "it was made before the task began", None),
    ];
    for (change, outcome, reason, step) in changes {
        println!("{reason}");
        let world = World::new_in(server(), DapVersion::V18, TimeInterval, |spec| {
            let month = Duration::from_seconds(30 * 86_400);
            configure(spec, Interval::new(start, month));
        });
        let report = forge(&world, 5, start, change);
        let code = match outcome {
            "duplicate_extension" => "invalid_message",
            "report_too_early" => "task_not_started",
            other => other,
        };
        counts_once(&world, outcome, step, &format!("{code}: {reason}"), report);
    }
}

/// DAP-18 tells the leader the same of a key that is unknown as of a share that does not open. The operator is told which.
#[test]
fn a_key_that_is_unknown_is_named_whatever_the_leader_is_told() {
    for rounds in [false, true] {
        let mut world = World::new_in(server(), DapVersion::V18, TimeInterval, |spec| {
            if rounds {
                spec.vdaf = VdafConfig::Poplar1 { bits: 4 };
            }
        });
        let reports: Vec<_> = if rounds {
            world.ask_for(&["0", "1"]);
            let string = || Measurement::Poplar1("0110".parse().expect("bits"));
            (0..2).map(|_| world.report(string(), world.time(0))).collect()
        } else {
            world.sums(&[1, 2], world.time(0))
        };
        let job = world.timed_job(&reports);
        let mut init = world.wire().aggregation_job_init(&job.body).expect("our own");
        init.verify_inits[1].report_share.encrypted_input_share.config_id = HpkeConfigId(200);
        let body = world.wire().encode_aggregation_job_init(&init).expect("small");
        sent_twice(&world, &body, 1);
        let told = status(&world).last_error.expect("an error");
        let reason = "hpke_unknown_config_id: configuration 200";
        assert_eq!((told.reason.as_str(), told.count), (reason, 1), "{rounds}");
    }
}

#[test]
fn a_report_that_does_not_name_the_task_it_came_with() {
    let world = Peer::new(server(), PeerPolicy::default()).task(server(), TimeInterval, |_| {});
    let bound = |d: &mut Draft| d.extensions = vec![0xff, 0, 0, 0];
    let reports = [
        forge(&world, 1, world.time(0), bound),
        forge(&world, 2, world.time(0), |_| ()),
        forge(&world, 3, world.time(0), |d| d.extensions = vec![0xff, 0, 0, 1, 7]),
    ];
    sent_twice(&world, &job_body(&world, TIMED, &reports), 2);
    let step = Some(("missing_or_malformed_taskprov_extension", 2));
    assert_counted(&world, 1, ("invalid_message", 2), step);
}

#[test]
fn the_leaders_first_message() {
    let undecodable = "vdaf_verify_error: the leader's verifier share does not decode";
    type Change = fn(&mut Vec<u8>);
    let changes: [(Change, &str, &str); 6] = [
        (|p| p.truncate(1), "leader_prep_share_decode_failure", undecodable),
        // An element beyond the field's prime.
        (|p| p[5 + 16..5 + 32].fill(0xff), "leader_prep_share_decode_failure", undecodable),
        (
            |p| *p = vec![1, 0, 0, 0, 0, 0, 0, 0, 0],
            "continue_mismatch",
            "vdaf_verify_error: the leader's message is of another step",
        ),
        (|p| p[0] = 2, "finish_mismatch", "vdaf_verify_error: the leader finishes before it may"),
        (|p| p[10] ^= 1, "prepare_message_failure", "vdaf_verify_error: the proof does not verify"),
        (|p| p.push(0), "leader_prep_share_decode_failure", undecodable),
    ];
    for (change, step, reason) in changes {
        let (world, report) = spoiled(|r| change(&mut r.payload));
        counts_once(&world, "vdaf_prep_error", Some(step), reason, report);
    }
}

#[test]
fn a_verifier_message_that_does_not_fit() {
    let world = World::new(server(), TimeInterval, |spec| {
        spec.vdaf = VdafConfig::Prio3SumVec { length: 10, max_measurement: 3, chunk_length: 6 };
    });
    let report = |honest| {
        let id = random();
        let shares = half_valid::sum_vec_08(10, 2, 6, &id, honest);
        forge_shares(&world, id, shares, world.time(0), |_| ())
    };
    sent_twice(&world, &job_body(&world, TIMED, &[true, false, true].map(report)), 1);
    assert_counted(&world, 2, ("vdaf_prep_error", 1), Some(("prepare_step_failure", 1)));
}

/// The second round of Poplar1, whose first one refuses a report, too.
#[test]
fn the_leaders_second_message() {
    let mut world = World::new(server(), LeaderSelected, |spec| {
        spec.vdaf = VdafConfig::Poplar1 { bits: 8 };
        spec.max_batch_query_count = 8;
        spec.shards = 3;
    });
    world.ask_for(&["0", "1"]);
    let string = |s: &str| Measurement::Poplar1(s.parse().expect("bits"));
    let strings = ["00000000", "11111111", "10101010", "01010101", "00110011"];
    let mut all: Vec<Vec<u8>> =
        strings.iter().map(|s| world.report(string(s), world.time(3))).collect();
    // The last one's share is for the helper only to refuse.
    *all[4].last_mut().expect("a report") ^= 1;
    let job = world.job(PartialBatchSelector::LeaderSelected(BatchId::new(random())), &all);
    let first = world.put(&job);
    assert_eq!(world.put(&job).body, first.body);
    assert_counted(&world, 0, ("hpke_decrypt_failure", 1), Some(("decrypt_failure", 1)));
    let id = job.id;
    let mut job = world.proceed(job, &first);
    let mut request = v09::AggregationJobContinueReq::decode(&job.body).expect("our own");
    let finish = request.prepare_continues[0].payload;
    let initialize = [&[0], &finish[1..]].concat();
    request.prepare_continues[1].payload = &initialize;
    request.prepare_continues[2].payload = &finish[..3];
    job.body = request.encode().expect("small");
    let answer = world.post(&job);
    assert_eq!(world.post_body(&id, &job.body).body, answer.body);
    let mut books = Books::default();
    assert_eq!(world.finish_continued(job, &answer, &mut books).len(), 3, "of both rounds");
    let status = status(&world);
    let aggregation = status.counters.aggregation;
    let counted =
        (aggregation.success, aggregation.vdaf_prep_error, aggregation.hpke_decrypt_failure);
    assert_eq!(counted, (2, 2, 1));
    let steps = &status.counters.step_failures;
    for step in ["continue_mismatch", "prepare_message_decode_failure", "decrypt_failure"] {
        assert_eq!(steps[step], 1, "{step}");
        assert_eq!(scraped(&world)[&format!("daphne_step_failures_total{{type=\"{step}\"}}")], 1);
    }
}

#[test]
fn what_the_clock_says() {
    // Recorded by the owner within a day of the limit, and refused unasked beyond it.
    let (now, day) = (now(), 86_400);
    for (time, outcome, reason) in [
        (now + 400, "report_too_early", "report_too_early: it is from the future"),
        (now + 3 * day, "report_too_early", "report_too_early: it is from the future"),
        (
            now - 14 * day - 100,
            "report_dropped",
            "report_dropped: it is too old, or its job has too many batch buckets",
        ),
        (
            1,
            "report_dropped",
            "report_dropped: it is too old, or its job has too many batch buckets",
        ),
    ] {
        for buckets in [0, 24] {
            let world = World::new(server(), TimeInterval, |spec| {
                spec.buckets_per_group = Some(buckets);
            });
            let report = forge(&world, 5, Time::from_seconds(time), |_| ());
            counts_once(&world, outcome, None, reason, report);
        }
    }
    let end = now - 9 * day;
    let world = World::new(server(), TimeInterval, |spec| {
        spec.task_expiration = Some(Time::from_seconds(end));
    });
    let report = forge(&world, 5, Time::from_seconds(end + 1), |_| ());
    let reason = "task_expired: it was made after the task ended";
    counts_once(&world, "task_expired", None, reason, report);
}

/// Nobody but the ledger can count a job of which no store is asked about any report.
#[test]
fn a_job_of_which_no_store_hears() {
    let world = World::new(server(), TimeInterval, |spec| spec.buckets_per_group = Some(1));
    let report = |n: u64| {
        let mut report = forge(&world, n, world.time(n), |_| ());
        report.sealed.payload[0] ^= 1;
        report
    };
    sent_twice(&world, &job_body(&world, TIMED, &[report(1), report(2), report(3)]), 3);
    assert_counted(&world, 0, ("hpke_decrypt_failure", 3), Some(("decrypt_failure", 3)));
}

#[test]
fn replays_and_collected_batches_and_collections() {
    let world = World::new(server(), TimeInterval, |spec| spec.shards = 2);
    let mut books = Books::default();
    let reports = world.sums(&[1, 2, 3, 4], world.time(0));
    world.aggregate(TIMED, &reports, &mut books);
    let again = world.timed_job(&reports[..3]);
    let answer = world.put(&again);
    assert_eq!(world.finish(again, &answer, &mut books).len(), 3);
    assert_counted(&world, 4, ("report_replayed", 3), None);
    let batch = |status: &TaskStatus| {
        let [batch] = status.batches.as_slice() else { panic!("{:?}", status.batches) };
        (batch.bucket, batch.report_count, batch.collected, batch.collectable)
    };
    let before = status(&world);
    assert_eq!(batch(&before), (Some(world.time(0)), 4, false, true));
    assert!(before.oldest_uncollected_s.is_some_and(|age| age > 9 * 86_400));
    world.collect(world.interval(0, 1), &books);
    let late = world.timed_job(&world.sums(&[5], world.time(0)));
    let answer = world.put(&late);
    assert_eq!(world.finish(late, &answer, &mut books).len(), 1);
    let after = status(&world);
    let aggregation = after.counters.aggregation;
    assert_eq!((aggregation.report_replayed, aggregation.batch_collected), (3, 1));
    assert_eq!((after.counters.collections, after.counters.collected_reports), (1, 4));
    assert_eq!(batch(&after), (Some(world.time(0)), 4, true, false));
    assert_eq!(after.oldest_uncollected_s, None);
    assert_eq!(scraped(&world)["daphne_collections_total"], 1);
}

#[test]
fn refused_requests_are_counted_by_resource_and_kind() {
    let world = world();
    let reports = world.sums(&[1, 2], world.time(0));
    let job = world.timed_job(&reports);
    world.put(&job).ok("application/dap-aggregation-job-resp");
    let other = world.timed_job(&world.sums(&[3], world.time(0)));
    assert_eq!(world.put_body(&job.id, &other.body).status, 409);
    world
        .put_body(&AggregationJobId::new(random()), b"?")
        .refused("invalidMessage", &world.task_id);
    assert_eq!(
        world.ask("PUT", &world.job_path(&other.id), "text/plain", Some(&other.body)).status,
        415
    );
    let nowhere = AggregationJobId::new(random());
    let report_id = daphne_core::ids::ReportId::new(random());
    let prepare_continues = vec![v09::PrepareContinue { report_id, payload: &[] }];
    let body = v09::AggregationJobContinueReq { step: 1, prepare_continues };
    let body = body.encode().expect("small");
    world
        .ask("POST", &world.job_path(&nowhere), JOB_CONTINUE, Some(&body))
        .refused("unrecognizedAggregationJob", &world.task_id);
    let path = format!("/v09/tasks/{}/aggregation_jobs/short", world.task_id);
    assert_eq!(world.ask("PUT", &path, JOB_INIT, Some(&job.body)).status, 400);
    for _ in 0..2 {
        let wrong = world.share_request_of(world.interval(0, 1), 7, Default::default());
        world.post_share(&wrong).refused("batchMismatch", &world.task_id);
    }
    // Strangers make nobody count.
    world.client.ask(
        "PUT",
        &world.job_path(&job.id),
        &[("content-type", JOB_INIT)],
        Some(&job.body),
    );
    let refusals = status(&world).counters.refusals;
    let expected = [
        ("aggregation_jobs", "bad_path", 1),
        ("aggregation_jobs", "conflict", 1),
        ("aggregation_jobs", "invalid_message", 1),
        ("aggregation_jobs", "unrecognized_aggregation_job", 1),
        ("aggregation_jobs", "unsupported_media_type", 1),
        ("aggregate_shares", "batch_mismatch", 2),
    ];
    assert_eq!(refusals.values().map(BTreeMap::len).sum::<usize>(), expected.len(), "{refusals:?}");
    let samples = scraped(&world);
    for (resource, kind, n) in expected {
        assert_eq!(refusals[resource][kind], n, "{kind}");
        let labels = format!("{{resource=\"{resource}\",type=\"{kind}\"}}");
        assert_eq!(samples[&format!("daphne_refused_requests_total{labels}")], n, "{kind}");
    }
    let reason = status(&world).last_error.expect("an error").reason;
    assert!(
        reason.starts_with("aggregate_shares: batch_mismatch: the helper counts 2"),
        "{reason}"
    );
}

/// Some shards' answers are lost, so the job is repeated until all have answered: each report is counted once.
#[test]
fn a_job_that_is_cut_off_anywhere_is_counted_once() {
    let server = Server::start();
    for groups in [0, 1] {
        for call in 0..6 {
            let world = World::new(&server, TimeInterval, |spec| {
                spec.shards = 3;
                spec.buckets_per_group = Some(groups);
            });
            let mut reports: Vec<Forged> =
                (0..8).map(|n| forge(&world, n, world.time(n % 2), |_| ())).collect();
            reports[1].sealed.payload[0] ^= 1;
            reports[2].payload[10] ^= 1;
            reports.push(forge(&world, 9, Time::from_seconds(now() + 400), |_| ()));
            reports.push(forge(&world, 9, Time::from_seconds(now() + 9 * 86_400), |_| ()));
            let body = job_body(&world, TIMED, &reports);
            let job = AggregationJobId::new(random());
            server.plan(&[(call, "lose_answer")]);
            let answer = e2e::world::until_final(|| world.put_body(&job, &body));
            server.plan(&[]);
            let errors = world.verdicts(world.job_resp(&answer));
            let of = |error| errors.iter().filter(|(_, e)| *e == error).count() as u64;
            let status = server.admin().task_status(&world.task_id).unwrap().expect("the task");
            let aggregation = status.counters.aggregation;
            assert_eq!(aggregation.success, of(None), "call {call}");
            assert_eq!(aggregation.hpke_decrypt_failure, of(Some(ReportError::HpkeDecryptError)));
            assert_eq!(aggregation.vdaf_prep_error, of(Some(ReportError::VdafVerifyError)));
            assert_eq!(aggregation.report_too_early, of(Some(ReportError::ReportTooEarly)));
            let all: u64 = aggregation.named().iter().map(|(_, n)| n).sum();
            assert_eq!(all, 10, "call {call} of {groups}");
        }
    }
}

#[test]
fn metrics_are_for_those_who_may_read_them() {
    let client = server().client();
    client.get("/metrics").refused_without_type(403);
    let as_operator = server().admin_ask("GET", "/metrics?limit=1", None);
    let text = as_operator.text();
    assert_eq!(as_operator.status, 200, "{text}");
    assert!(text.contains("daphne_hpke_key_state_age_seconds{config_id=\"7\",state=\"active\"}"));
    let token = server().secret("METRICS_TOKENS").split(',').next().expect("a token");
    let bearer = format!("Bearer {token}");
    let with_it = |path: &str| client.ask("GET", path, &[("authorization", &bearer)], None);
    assert_eq!(with_it("/metrics").status, 200);
    with_it("/admin/tasks").refused_without_type(403);
    for query in ["limit=0", "limit=101", "after=x", "other=1"] {
        with_it(&format!("/metrics?{query}")).refused_without_type(400);
    }
    server().admin_ask("POST", "/metrics", None).refused_without_type(405);
}
