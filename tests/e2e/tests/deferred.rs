//! Jobs that are answered later, DAP-18 §3.1, with a server that does little within one request.

use std::{
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration as Wait, Instant},
};

use daphne_core::{
    aggregate::leader::{LeaderJob, LeaderOutcome, LeaderStep},
    batch::BatchMode::TimeInterval,
    collect::collector,
    configuration::{self, Agreement},
    hpke::Role,
    message::{AggregateShareRequest, HpkeCiphertext, PartialBatchSelector},
    vdaf::{AggregateResult, AggregationParam, Measurement, VdafConfig},
    version::{DapVersion, Message},
};
use e2e::{Answer, Server, World, server::random};

/// Four reports.
const WORK_MAX: &str = "700";
const SUM: VdafConfig = VdafConfig::Prio3Sum { max_measurement: 255 };
const STRINGS: VdafConfig = VdafConfig::Poplar1 { bits: 4 };

/// The server, to oneself: it is killed now and then.
fn server() -> (&'static Server, MutexGuard<'static, ()>) {
    static SERVER: OnceLock<Server> = OnceLock::new();
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let start = || {
        let mut server = Server::start();
        server.set_secret("REQUEST_WORK_MAX", WORK_MAX);
        server
    };
    (SERVER.get_or_init(start), turn)
}

fn world(server: &Server, vdaf: VdafConfig, buckets_per_group: u32) -> World {
    World::new(server, TimeInterval, |spec| {
        spec.version = DapVersion::V18;
        spec.vdaf = vdaf;
        spec.verify_key = random::<32>().to_vec();
        spec.shards = 2;
        spec.buckets_per_group = Some(buckets_per_group);
        let task_info = random::<16>();
        let agreement = Agreement {
            task_info: &task_info,
            leader_url: "https://leader.example/",
            helper_url: "https://helper.example/v18/",
            task_interval: None,
        };
        spec.task_configuration = configuration::encode(spec, &agreement).expect("a task");
    })
}

fn media_type(message: Message) -> &'static str {
    DapVersion::V18.media_type(message).expect("DAP-18 has it")
}

/// What one leader does with one task.
struct Leader {
    world: World,
    param: AggregationParam,
}

impl Leader {
    fn new(server: &Server, vdaf: VdafConfig, buckets_per_group: u32) -> Self {
        let world = world(server, vdaf, buckets_per_group);
        let vdaf = &world.leader.vdaf;
        let param = match vdaf.rounds() {
            1 => vdaf.decode_agg_param(&[]).expect("no parameter"),
            _ => {
                let prefixes = ["0".parse().expect("bits"), "1".parse().expect("bits")];
                vdaf.prefixes(&prefixes).expect("prefixes")
            }
        };
        Self { world, param }
    }

    /// Reports of bucket 0, of the numbers below `count` or of strings.
    fn reports(&self, count: u64) -> Vec<Vec<u8>> {
        let measurement = |n: u64| match self.world.leader.vdaf.rounds() {
            1 => Measurement::Sum(n),
            _ => Measurement::Poplar1(
                if n.is_multiple_of(3) { "0110" } else { "1001" }.parse().expect("bits"),
            ),
        };
        (0..count).map(|n| self.world.report(measurement(n), self.world.time(0))).collect()
    }

    fn job(&self, reports: &[Vec<u8>]) -> LeaderJob {
        let w = &self.world;
        let reports: Vec<_> =
            reports.iter().map(|r| w.wire().report(r).expect("a report")).collect();
        let batch = PartialBatchSelector::TimeInterval;
        let begun = w.leader.begin_job(&w.leader_keys, &self.param, batch, &reports);
        begun.expect("a job").0.expect("reports")
    }

    fn jobs_path(&self) -> String {
        format!("/v18/tasks/{}/aggregation_jobs", self.world.task_id)
    }

    fn create(&self, job: &LeaderJob) -> Answer {
        let media_type = media_type(Message::AggregationJobInit);
        self.world.ask("POST", &self.jobs_path(), media_type, Some(job.request()))
    }

    fn proceed(&self, path: &str, body: &[u8]) -> Answer {
        self.world.ask("POST", path, media_type(Message::AggregationJobContinue), Some(body))
    }

    fn get(&self, path: &str) -> Answer {
        self.world.ask("GET", path, "", None)
    }

    /// Asks until there is an answer.
    fn wait(&self, location: &str) -> Answer {
        let deadline = Instant::now() + Wait::from_secs(120);
        loop {
            let answer = self.get(location);
            if !is_later(&answer, location) {
                return answer;
            }
            assert!(Instant::now() < deadline, "no answer");
            std::thread::sleep(Wait::from_millis(100));
        }
    }

    /// Both shares of all that one job accepted, added up.
    fn collect(&self, outcome: &LeaderOutcome) -> AggregateResult {
        let w = &self.world;
        let slices: Vec<_> = outcome.accepted.values().collect();
        let [slice] = slices[..] else { panic!("one bucket") };
        let (agg_param, batch) = (self.param.encode(), w.interval(0, 1));
        let binding = w.wire().share_binding(&agg_param, &batch).expect("a batch");
        let request = AggregateShareRequest {
            batch_selector: batch,
            collected: batch,
            agg_param: &agg_param,
            report_count: slice.report_count,
            checksum: *slice.checksum.as_bytes(),
            share_binding: (&binding).into(),
        };
        let body = w.wire().encode_aggregate_share_request(&request).expect("a request");
        let path = format!("/v18/tasks/{}/aggregate_shares", w.task_id);
        let answer = w.ask("POST", &path, media_type(Message::AggregateShareRequest), Some(&body));
        let share = answer.ok(media_type(Message::AggregateShare));
        let share = HpkeCiphertext::decode(share).expect("a ciphertext");
        let share = w
            .collector_task()
            .open_share(&w.collector_keys, Role::Helper, &binding, share)
            .expect("the share opens");
        let (vdaf, mine) = (&w.leader.vdaf, slice.share.encode());
        collector::unshard(vdaf, &self.param, &mine, &share, slice.report_count).expect("a result")
    }
}

/// Whether the answer is not there yet, and is to be asked for at `location`.
#[track_caller]
fn is_later(answer: &Answer, location: &str) -> bool {
    let is_later = answer.status == 200 && answer.body.is_empty();
    if is_later {
        assert_eq!(answer.header("location"), location);
        assert_eq!(answer.header("retry-after"), "2");
    }
    is_later
}

fn ok(answer: &Answer) -> &[u8] {
    answer.ok(media_type(Message::AggregationJobResponse))
}

#[test]
fn a_job_too_large_for_a_request_is_answered_later_though_the_helper_dies_meanwhile() {
    let (server, _turn) = server();
    for buckets_per_group in [0, 1] {
        let leader = Leader::new(server, SUM, buckets_per_group);
        let job = leader.job(&leader.reports(120));
        let created = leader.create(&job);
        let location = created.header("location").to_owned();
        assert!(is_later(&created, &location), "{created:?}");
        assert!(location.starts_with(&leader.jobs_path()) && location.ends_with("?step=0"));
        // The same again is the same job.
        assert!(is_later(&leader.create(&job), &location));
        std::thread::sleep(Wait::from_millis(300));
        server.kill_workerd();
        let answer = leader.wait(&location);
        let body = ok(&answer).to_vec();
        assert_eq!(ok(&leader.create(&job)), body);
        let path = location.strip_suffix("?step=0").expect("a step").to_owned();
        for (query, refusal) in [
            ("", "invalidMessage"),
            ("?step=", "invalidMessage"),
            ("?step=-1", "invalidMessage"),
            ("?step=0&step=0", "invalidMessage"),
            ("?step=1", "stepMismatch"),
        ] {
            assert_eq!(leader.get(&format!("{path}{query}")).problem_token(), refusal, "{query}");
        }
        let outcome = leader.world.leader.finish_job(job, &body).expect("a proper answer");
        assert_eq!(outcome.refused, []);
        assert_eq!(leader.collect(&outcome), AggregateResult::Number((0..120).sum()));
    }
}

#[test]
fn both_steps_of_several_rounds_are_answered_later() {
    let (server, _turn) = server();
    for buckets_per_group in [0, 1] {
        let leader = Leader::new(server, STRINGS, buckets_per_group);
        let job = leader.job(&leader.reports(60));
        let created = leader.create(&job);
        let location = created.header("location").to_owned();
        assert!(is_later(&created, &location), "{created:?}");
        let first = ok(&leader.wait(&location)).to_vec();
        let init = job.request().to_vec();
        let LeaderStep::Continued(next) =
            leader.world.leader.proceed(job, &first).expect("answers")
        else {
            panic!("there is a second round")
        };
        let path = location.strip_suffix("?step=0").expect("a step");
        let step_1 = format!("{path}?step=1");
        for _ in 0..2 {
            let answer = leader.proceed(path, next.request());
            assert!(is_later(&answer, &step_1) || !ok(&answer).is_empty());
        }
        server.kill_workerd();
        assert_eq!(leader.get(&location).problem_token(), "stepMismatch");
        let last = ok(&leader.wait(&step_1)).to_vec();
        assert_eq!(ok(&leader.proceed(path, next.request())), last);
        let path = leader.jobs_path();
        let again =
            leader.world.ask("POST", &path, media_type(Message::AggregationJobInit), Some(&init));
        assert_eq!(ok(&again), last, "the current state");
        let outcome = leader.world.leader.finish_continued(next, &last).expect("answers");
        assert_eq!(outcome.refused, []);
        assert_eq!(leader.collect(&outcome), AggregateResult::Vector(vec![20, 40]));
    }
}

#[test]
fn a_job_that_is_deleted_while_it_is_worked_on_gives_its_reports_back() {
    let (server, _turn) = server();
    let leader = Leader::new(server, SUM, 0);
    let reports = leader.reports(100);
    let job = leader.job(&reports);
    let location = leader.create(&job).header("location").to_owned();
    let path = location.strip_suffix("?step=0").expect("a step");
    std::thread::sleep(Wait::from_millis(200));
    assert_eq!(leader.world.ask("DELETE", path, "", None).status, 204);
    assert_eq!(leader.get(&location).problem_token(), "unrecognizedAggregationJob");
    assert_eq!(leader.world.ask("DELETE", path, "", None).status, 204);
    let job = leader.job(&reports[..99]);
    let location = leader.create(&job).header("location").to_owned();
    let answer = leader.wait(&location);
    let outcome = leader.world.leader.finish_job(job, ok(&answer)).expect("a proper answer");
    assert_eq!(outcome.refused, []);
    assert_eq!(leader.collect(&outcome), AggregateResult::Number((0..99).sum()));
}

#[test]
fn who_asks_for_what_was_answered_at_once_is_told_how_to_get_it() {
    let (server, _turn) = server();
    let leader = Leader::new(server, SUM, 1);
    let job = leader.job(&leader.reports(2));
    let created = leader.create(&job);
    assert!(!ok(&created).is_empty());
    let location = created.header("location");
    assert!(!location.contains("step"), "{location}");
    let refused = leader.get(&format!("{location}?step=0"));
    assert_eq!(refused.problem_token(), "unrecognizedAggregationJob");
    assert!(refused.text().contains("gets the same answer again"), "{}", refused.text());
    assert_eq!(leader.create(&job).body, created.body);
}

#[test]
fn a_budget_that_is_none_is_complained_about() {
    let said = Server::start().refuses_secret("REQUEST_WORK_MAX", "0");
    assert!(said.contains("REQUEST_WORK_MAX must be 1 to 8388608"), "{said}");
}
