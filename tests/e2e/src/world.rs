//! A task with everybody who takes part in it but the helper: clients, leader and collector.

use std::{
    collections::HashMap,
    sync::Mutex,
    time::{Duration as Wait, SystemTime},
};

use daphne_core::{
    aggregate::commit::job_of_content,
    aggregate::leader::{LeaderContinuation, LeaderJob, LeaderOutcome, LeaderStep, LeaderTask},
    b64,
    batch::{BatchBucket, BatchMode, Checksum},
    collect::collector::{self, CollectorTask},
    configuration::{self, Agreement},
    error::ReportError,
    hpke::{HpkeKem, HpkeKeypair, Role},
    ids::{AggregationJobId, BatchId, HpkeConfigId, ReportId, TaskId},
    message::{
        self, AggregateShareRequest, BatchSelector, HpkeCiphertext, PartialBatchSelector,
        VerifyRespResult,
    },
    task::{TaskRole, TaskSpec},
    taskprov,
    time::{Duration, Interval, Time},
    upload::client::{ClientTask, ReportExtensions, ReportRandomness},
    vdaf::{AggregateResult, AggregationParam, Measurement, Vdaf, VdafConfig},
    version::{DapVersion, Message},
    wire::Wire,
};

use crate::{
    books::Books,
    client::{Answer, Client},
    heard,
    server::{Server, random, random_token},
};

/// The clock, in seconds since the Unix epoch.
pub fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a clock that is set").as_secs()
}

/// A new key pair with this id.
pub fn keypair(id: u8) -> HpkeKeypair {
    HpkeKeypair::derive(HpkeConfigId(id), HpkeKem::X25519HkdfSha256, &random::<32>())
        .expect("enough randomness")
}

/// What tasks name as the leader.
pub const LEADER_URL: &str = "https://leader.example/dap/";
/// What tasks name as the helper.
pub const HELPER_URL: &str = "https://helper.example/v18/";

/// Gives a task the configuration that its other parameters ask for, if its version has such a thing. Reports must be made
/// in `interval`.
pub fn configure(spec: &mut TaskSpec, interval: Option<Interval>) {
    if spec.version.has_configuration() {
        let agreement = Agreement {
            task_info: &random::<16>(),
            leader_url: LEADER_URL,
            helper_url: HELPER_URL,
            task_interval: interval,
        };
        spec.task_configuration = configuration::encode(spec, &agreement).expect("a configuration");
    }
}

/// A task and its parties.
pub struct World {
    /// Speaks to the helper.
    pub client: Client,
    /// As it was created.
    pub spec: TaskSpec,
    /// Its id.
    pub task_id: TaskId,
    /// The leader's token.
    pub token: String,
    /// The leader.
    pub leader: LeaderTask,
    /// The clients.
    pub reporter: ClientTask,
    /// The leader's keys.
    pub leader_keys: HpkeKeypair,
    /// The collector's keys.
    pub collector_keys: HpkeKeypair,
    /// Start of bucket 0, days ago.
    pub epoch: u64,
    /// What is asked of the reports: nothing in particular, but for Poplar1.
    pub agg_param: Option<AggregationParam>,
    /// The task's encoded parameters, if the leader brings it along with each request.
    pub taskprov: Option<Vec<u8>>,
    measured: Mutex<HashMap<ReportId, Measurement>>,
}

/// An aggregation job before its end.
pub struct Job {
    /// Its id.
    pub id: AggregationJobId,
    /// The request's body.
    pub body: Vec<u8>,
    leader: LeaderJob,
}

/// An aggregation job that the helper has answered for once, and waits to be continued.
pub struct ContinuedJob {
    /// Its id.
    pub id: AggregationJobId,
    /// The continuation's body.
    pub body: Vec<u8>,
    begun_with: Vec<u8>,
    leader: LeaderContinuation,
}

impl World {
    /// A DAP-09 task on `server`: sums of 8-bit integers, batches of two, buckets of an hour, or what `change` makes of it.
    pub fn new(server: &Server, mode: BatchMode, change: impl FnOnce(&mut TaskSpec)) -> Self {
        Self::new_in(server, DapVersion::V09, mode, change)
    }

    /// As [`World::new`], of any version. What `change` leaves empty of verify key and configuration is made.
    pub fn new_in(
        server: &Server,
        version: DapVersion,
        mode: BatchMode,
        change: impl FnOnce(&mut TaskSpec),
    ) -> Self {
        let token = random_token();
        let collector_keys = keypair(2);
        let mut spec = TaskSpec {
            task_id: Some(TaskId::new(random())),
            version,
            role: TaskRole::Helper,
            task_configuration: Vec::new(),
            batch_mode: mode,
            max_batch_size: None,
            vdaf: VdafConfig::Prio3Sum { max_measurement: 255 },
            verify_key: Vec::new(),
            leader_token: Some(token.clone()),
            leader_token_hash: None,
            collector_hpke_config: collector_keys.config().clone(),
            min_batch_size: 2,
            time_precision: Duration::from_seconds(3_600),
            max_batch_query_count: 1,
            task_expiration: None,
            report_expiry_age: Duration::from_seconds(14 * 86_400),
            tolerable_clock_skew: Duration::from_seconds(300),
            shards: 1,
            buckets_per_group: None,
        };
        change(&mut spec);
        if spec.verify_key.is_empty() {
            let vdaf = Vdaf::new(version.vdaf_draft(), spec.vdaf).expect("a VDAF that we run");
            spec.verify_key = random::<32>()[..vdaf.verify_key_len()].to_vec();
        }
        if spec.task_configuration.is_empty() {
            configure(&mut spec, None);
        }
        server.admin().create_task(&spec).expect("the task can be created");
        Self::of(server, spec, token, collector_keys)
    }

    /// A task that is known, or is going to be, with parties of its own.
    pub fn of(server: &Server, spec: TaskSpec, token: String, collector_keys: HpkeKeypair) -> Self {
        heard::secret(&b64::encode(&spec.verify_key));
        let leader_keys = keypair(1);
        let task = spec.clone().check(1).expect("a valid task");
        let (task_id, time_precision) = (*task.id(), spec.time_precision);
        let leader = LeaderTask {
            version: spec.version,
            task_configuration: spec.task_configuration.clone(),
            task_id,
            vdaf: task.vdaf.clone(),
            verify_key: task.verify_key.clone(),
            time_precision,
        };
        let reporter = ClientTask {
            version: spec.version,
            task_configuration: spec.task_configuration.clone(),
            task_id,
            vdaf: task.vdaf,
            time_precision,
            leader_hpke_config: leader_keys.config().clone(),
            helper_hpke_config: server.hpke_config().clone(),
        };
        let precision = time_precision.as_seconds();
        Self {
            client: server.client().clone(),
            spec,
            task_id,
            token,
            leader,
            reporter,
            leader_keys,
            collector_keys,
            agg_param: None,
            epoch: (now() - 10 * 86_400) / precision * precision,
            taskprov: None,
            measured: Mutex::default(),
        }
    }

    /// How its messages are written.
    pub fn wire(&self) -> Wire {
        Wire::new(self.spec.version, self.spec.time_precision)
    }

    /// What the collector knows.
    pub fn collector_task(&self) -> CollectorTask<'_> {
        CollectorTask {
            task_id: &self.task_id,
            version: self.spec.version,
            task_configuration: &self.spec.task_configuration,
        }
    }

    /// A time in the n-th bucket.
    pub fn time(&self, bucket: u64) -> Time {
        Time::from_seconds(self.epoch + bucket * self.spec.time_precision.as_seconds())
    }

    /// `count` buckets from the n-th, to collect.
    pub fn interval(&self, bucket: u64, count: u64) -> BatchSelector {
        let duration = count * self.spec.time_precision.as_seconds();
        BatchSelector::TimeInterval {
            start: self.time(bucket),
            duration: Duration::from_seconds(duration),
        }
    }

    /// A report.
    pub fn report(&self, measurement: Measurement, time: Time) -> Vec<u8> {
        self.report_with_id(random(), measurement, time)
    }

    /// A report with this id, whatever else has it.
    pub fn report_with_id(&self, id: [u8; 16], measurement: Measurement, time: Time) -> Vec<u8> {
        let randomness =
            ReportRandomness { report_id: id, leader_seed: random(), helper_seed: random() };
        let brought = self.taskprov.as_ref().and(self.spec.version.taskprov_extension());
        let extensions = brought.map(|code| (code, &[][..]));
        let report = self
            .reporter
            .report_with_extensions(
                &measurement,
                time,
                ReportExtensions { public: &[], private: extensions.as_slice() },
                &randomness,
            )
            .expect("a report");
        self.remember(ReportId::new(randomness.report_id), measurement);
        report
    }

    /// Has the truth include a report that was made elsewhere.
    pub fn remember(&self, id: ReportId, measurement: Measurement) {
        self.measured.lock().expect("no test panicked here").insert(id, measurement);
    }

    /// A number as the task's VDAF measures it: by itself, or as a vector of one.
    pub fn measurement(&self, number: u64) -> Measurement {
        match self.spec.vdaf {
            VdafConfig::Prio3SumVec { .. } => Measurement::SumVec(vec![number]),
            _ => Measurement::Sum(number),
        }
    }

    /// Reports of sums, one for each number.
    pub fn sums(&self, numbers: &[u64], time: Time) -> Vec<Vec<u8>> {
        numbers.iter().map(|n| self.report(self.measurement(*n), time)).collect()
    }

    /// A job of reports by time.
    pub fn timed_job(&self, reports: &[Vec<u8>]) -> Job {
        self.job(PartialBatchSelector::TimeInterval, reports)
    }

    /// A job of reports for a batch.
    pub fn batch_job(&self, batch: BatchId, reports: &[Vec<u8>]) -> Job {
        self.job(PartialBatchSelector::LeaderSelected(batch), reports)
    }

    fn agg_param(&self) -> AggregationParam {
        let none = || self.leader.vdaf.decode_agg_param(&[]).expect("a VDAF without a choice");
        self.agg_param.clone().unwrap_or_else(none)
    }

    /// Asks Poplar1 for these prefixes from now on.
    pub fn ask_for(&mut self, prefixes: &[&str]) {
        let prefixes: Vec<_> = prefixes.iter().map(|p| p.parse().expect("bits")).collect();
        self.agg_param = Some(self.leader.vdaf.prefixes(&prefixes).expect("prefixes"));
    }

    /// A job that was not sent yet.
    pub fn job(&self, batch: PartialBatchSelector, reports: &[Vec<u8>]) -> Job {
        let reports: Vec<message::Report<'_>> =
            reports.iter().map(|r| self.wire().report(r).expect("a report")).collect();
        let (job, refused) = self
            .leader
            .begin_job(&self.leader_keys, &self.agg_param(), batch, &reports)
            .expect("a small job");
        assert_eq!(refused, []);
        let leader = job.expect("at least one report");
        let body = leader.request().to_vec();
        Job { id: self.job_id(&body), body, leader }
    }

    /// The id that a job of this body is going to have: any in DAP-09, where the leader chooses. That the helper chooses
    /// this one in DAP-18 is checked against what it says when the job is created.
    pub fn job_id(&self, body: &[u8]) -> AggregationJobId {
        match self.spec.version {
            DapVersion::V09 => AggregationJobId::new(random()),
            DapVersion::V18 => job_of_content(&self.task_id, body),
        }
    }

    /// The path of something of the task's.
    pub fn path(&self, below: &str) -> String {
        format!("/{}/tasks/{}/{below}", self.spec.version.path_prefix(), self.task_id)
    }

    /// The path of a job.
    pub fn job_path(&self, id: &AggregationJobId) -> String {
        self.path(&format!("aggregation_jobs/{id}"))
    }

    /// The path of aggregate shares.
    pub fn shares_path(&self) -> String {
        self.path("aggregate_shares")
    }

    /// Method and path with which the job of an id is created.
    pub fn creation(&self, id: &AggregationJobId) -> (&'static str, String) {
        match self.spec.version {
            DapVersion::V09 => ("PUT", self.job_path(id)),
            DapVersion::V18 => ("POST", self.path("aggregation_jobs")),
        }
    }

    /// A message's media type.
    pub fn media_type(&self, message: Message) -> &'static str {
        self.spec.version.media_type(message).expect("a message of the version")
    }

    /// What an answer holds, which is a 200 with such a message.
    #[track_caller]
    pub fn message<'a>(&self, message: Message, answer: &'a Answer) -> &'a [u8] {
        answer.ok(self.media_type(message))
    }

    /// What a job is answered with, which is a success.
    #[track_caller]
    pub fn job_resp<'a>(&self, answer: &'a Answer) -> &'a [u8] {
        self.message(Message::AggregationJobResponse, answer)
    }

    /// What a request for an aggregate share is answered with, which is a success.
    #[track_caller]
    pub fn share<'a>(&self, answer: &'a Answer) -> &'a [u8] {
        self.message(Message::AggregateShare, answer)
    }

    /// Asks as the leader.
    ///
    /// # Errors
    /// There is no answer.
    pub fn send(
        &self,
        method: &str,
        path: &str,
        media_type: &str,
        body: Option<&[u8]>,
    ) -> Result<Answer, Box<ureq::Error>> {
        let bearer = format!("Bearer {}", self.token);
        let mut headers = vec![("authorization", bearer.as_str())];
        if body.is_some() {
            headers.push(("content-type", media_type));
        }
        let config = self.taskprov.as_deref().map(|c| self.spec.version.taskprov_header(c));
        headers.extend(config.as_deref().map(|config| (taskprov::HEADER, config)));
        self.client.send(method, path, &headers, body)
    }

    /// Asks as the leader, who must be answered.
    pub fn ask(&self, method: &str, path: &str, media_type: &str, body: Option<&[u8]>) -> Answer {
        self.send(method, path, media_type, body)
            .unwrap_or_else(|e| panic!("{method} {path} was not answered: {e}"))
    }

    /// Sends a job's body, under an id if the leader chooses it; else the helper says where the job is.
    #[track_caller]
    pub fn put_body(&self, id: &AggregationJobId, body: &[u8]) -> Answer {
        let (method, path) = self.creation(id);
        let media_type = self.media_type(Message::AggregationJobInit);
        let answer = self.ask(method, &path, media_type, Some(body));
        if self.spec.version == DapVersion::V18 && answer.status == 200 {
            let step = if answer.body.is_empty() { "?step=0" } else { "" };
            let location = self.job_path(&self.job_id(body)) + step;
            assert_eq!(answer.header("location"), location);
        }
        answer
    }

    /// As [`World::put_body`], as a job of its own.
    #[track_caller]
    pub fn create(&self, body: &[u8]) -> Answer {
        self.put_body(&self.job_id(body), body)
    }

    /// Sends a job once.
    pub fn put(&self, job: &Job) -> Answer {
        self.put_body(&job.id, &job.body)
    }

    /// Sends a continuation's body for a job.
    pub fn post_body(&self, id: &AggregationJobId, body: &[u8]) -> Answer {
        let media_type = self.media_type(Message::AggregationJobContinue);
        self.ask("POST", &self.job_path(id), media_type, Some(body))
    }

    /// Sends a continuation once.
    pub fn post(&self, job: &ContinuedJob) -> Answer {
        self.post_body(&job.id, &job.body)
    }

    /// The leader's continuation of a job of several rounds, after the helper's first answer. It reports none as refused.
    #[track_caller]
    pub fn proceed(&self, job: Job, answer: &Answer) -> ContinuedJob {
        match self.try_to_proceed(job, answer) {
            Ok(job) => job,
            Err(_) => panic!("nothing of the job is left to be continued"),
        }
    }

    /// The same, or the end of a job of which nothing is left.
    #[track_caller]
    fn try_to_proceed(&self, job: Job, answer: &Answer) -> Result<ContinuedJob, LeaderOutcome> {
        let body = self.job_resp(answer);
        match self.leader.proceed(job.leader, body).expect("a proper answer") {
            LeaderStep::Continued(leader) => Ok(ContinuedJob {
                id: job.id,
                body: leader.request().to_vec(),
                begun_with: job.body,
                leader,
            }),
            LeaderStep::Finished(outcome) => Err(outcome),
        }
    }

    /// Ends a continued job with the helper's answer, as [`World::finish`] does.
    #[track_caller]
    pub fn finish_continued(
        &self,
        job: ContinuedJob,
        answer: &Answer,
        books: &mut Books,
    ) -> Vec<(ReportId, ReportError)> {
        let body = self.job_resp(answer);
        let outcome = self.leader.finish_continued(job.leader, body).expect("a proper answer");
        self.enter(&job.begun_with, body, outcome, books)
    }

    /// Deletes a job.
    pub fn delete(&self, id: &AggregationJobId) -> Answer {
        self.ask("DELETE", &self.job_path(id), "", None)
    }

    /// Ends a job with the helper's answer: enters what both accept, and returns what was refused.
    #[track_caller]
    pub fn finish(
        &self,
        job: Job,
        answer: &Answer,
        books: &mut Books,
    ) -> Vec<(ReportId, ReportError)> {
        let body = self.job_resp(answer);
        let outcome = self.leader.finish_job(job.leader, body).expect("a proper answer");
        self.enter(&job.body, body, outcome, books)
    }

    /// Enters what both accept: the reports of the job that the last answer does not refuse.
    fn enter(
        &self,
        begun_with: &[u8],
        answer: &[u8],
        outcome: LeaderOutcome,
        books: &mut Books,
    ) -> Vec<(ReportId, ReportError)> {
        books.agg_param = self.agg_param().encode();
        let accepted: Vec<ReportId> = self
            .verdicts(answer)
            .into_iter()
            .filter(|(_, verdict)| verdict.is_none())
            .map(|(id, _)| id)
            .collect();
        let mut entered = 0;
        for (bucket, slice) in outcome.accepted {
            let share = slice.share.encode();
            books.enter(bucket, slice.report_count, slice.checksum, &share, &self.leader);
            entered += slice.report_count;
            // The leader's job does not say which of its reports went where; the truth of a bucket is by time.
            let measured = self.measured.lock().expect("no test panicked here");
            let mine = accepted
                .iter()
                .filter(|id| self.bucket_in(begun_with, id) == bucket)
                .filter_map(|id| measured.get(id).cloned());
            books.entries.entry(bucket).or_default().measurements.extend(mine);
        }
        assert_eq!(entered, accepted.len() as u64, "the leader accepts what the helper accepts");
        outcome.refused
    }

    fn bucket_in(&self, body: &[u8], id: &ReportId) -> BatchBucket {
        let init = self.wire().aggregation_job_init(body).expect("our own request");
        let metadata = init.verify_inits.iter().map(|v| v.report_share.metadata);
        let report =
            metadata.into_iter().find(|m| m.report_id == *id).expect("a report of the job");
        match init.batch {
            PartialBatchSelector::TimeInterval => {
                BatchBucket::Window(report.time.round_down(self.spec.time_precision))
            }
            PartialBatchSelector::LeaderSelected(batch) => BatchBucket::Batch(batch),
        }
    }

    /// What an encoded answer says about each report; `None` for accepted.
    pub fn verdicts(&self, answer: &[u8]) -> Vec<(ReportId, Option<ReportError>)> {
        let answer = self.wire().aggregation_job_resp(answer).expect("an answer");
        let verdict = |result| match result {
            VerifyRespResult::Reject(error) => Some(error),
            VerifyRespResult::Continue(_) | VerifyRespResult::Finish => None,
        };
        answer.into_iter().map(|resp| (resp.report_id, verdict(resp.result))).collect()
    }

    /// Sends a job and ends it.
    #[track_caller]
    pub fn run(&self, job: Job, books: &mut Books) -> Vec<(ReportId, ReportError)> {
        let answer = self.put(&job);
        if self.leader.vdaf.rounds() == 1 {
            return self.finish(job, &answer, books);
        }
        match self.try_to_proceed(job, &answer) {
            Ok(job) => {
                let answer = self.post(&job);
                self.finish_continued(job, &answer, books)
            }
            Err(outcome) => outcome.refused,
        }
    }

    /// Runs a job of which every report is accepted.
    #[track_caller]
    pub fn aggregate(&self, batch: PartialBatchSelector, reports: &[Vec<u8>], books: &mut Books) {
        assert_eq!(self.run(self.job(batch, reports), books), []);
    }

    /// The request for the share of what the books hold in a batch.
    pub fn share_request(&self, batch: BatchSelector, books: &Books) -> Vec<u8> {
        let held = books.within(&batch, &self.leader);
        self.share_request_for(&books.agg_param, batch, held.report_count, held.checksum)
    }

    /// A request for the share of a batch, with any count and checksum.
    pub fn share_request_of(
        &self,
        batch: BatchSelector,
        count: u64,
        checksum: Checksum,
    ) -> Vec<u8> {
        self.share_request_for(&[], batch, count, checksum)
    }

    /// The same, with an aggregation parameter.
    pub fn share_request_for(
        &self,
        agg_param: &[u8],
        batch: BatchSelector,
        report_count: u64,
        checksum: Checksum,
    ) -> Vec<u8> {
        let held = (report_count, checksum);
        self.share_request_within(agg_param, batch, batch, held)
    }

    /// The same, for a part of what the collector asked for.
    pub fn share_request_within(
        &self,
        agg_param: &[u8],
        query: BatchSelector,
        batch: BatchSelector,
        (report_count, checksum): (u64, Checksum),
    ) -> Vec<u8> {
        let share_binding = self.wire().share_binding(agg_param, &query).expect("a binding");
        self.wire()
            .encode_aggregate_share_request(&AggregateShareRequest {
                batch_selector: batch,
                collected: query,
                agg_param,
                report_count,
                checksum: *checksum.as_bytes(),
                share_binding: share_binding.into(),
            })
            .expect("a request")
    }

    /// Asks for what is at a path.
    pub fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, "", None)
    }

    /// Sends an aggregate-share request once.
    pub fn post_share(&self, body: &[u8]) -> Answer {
        let media_type = self.media_type(Message::AggregateShareRequest);
        let answer = self.ask("POST", &self.shares_path(), media_type, Some(body));
        if self.spec.version == DapVersion::V18 && answer.status == 200 {
            let location = answer.header("location").rsplit_once('/').expect("a path");
            assert!(location.0 == self.shares_path() && !location.1.is_empty(), "{location:?}");
        }
        answer
    }

    /// Opens the helper's share and adds the leader's.
    #[track_caller]
    pub fn result(&self, batch: BatchSelector, books: &Books, answer: &Answer) -> AggregateResult {
        let share = HpkeCiphertext::decode(self.share(answer)).expect("a ciphertext");
        let binding = self.wire().share_binding(&books.agg_param, &batch).expect("a batch");
        let helper_share = self
            .collector_task()
            .open_share(&self.collector_keys, Role::Helper, &binding, share)
            .expect("the helper's share opens");
        self.sum_of(batch, books, &helper_share)
    }

    /// What the helper's share of a batch and the leader's add up to.
    #[track_caller]
    pub fn sum_of(
        &self,
        batch: BatchSelector,
        books: &Books,
        helper_share: &[u8],
    ) -> AggregateResult {
        let held = books.within(&batch, &self.leader);
        let (vdaf, agg_param) = (&self.leader.vdaf, self.agg_param());
        collector::unshard(vdaf, &agg_param, &held.share, helper_share, held.report_count)
            .expect("the shares add up")
    }

    /// What the measurements of a batch add up to.
    #[track_caller]
    pub fn truth_of(&self, batch: BatchSelector, books: &Books) -> AggregateResult {
        let held = books.within(&batch, &self.leader);
        assert_eq!(held.measurements.len() as u64, held.report_count);
        let measurements = held.measurements.iter();
        self.leader.vdaf.truth(&self.agg_param(), measurements).expect("measurements")
    }

    /// Asserts that an answer to the right request holds the truth.
    #[track_caller]
    pub fn assert_true(&self, batch: BatchSelector, books: &Books, answer: &Answer) {
        assert_eq!(self.result(batch, books, answer), self.truth_of(batch, books));
    }

    /// Collects a batch: the share comes at once, holds the truth, and comes again byte for byte.
    #[track_caller]
    pub fn collect(&self, batch: BatchSelector, books: &Books) -> Answer {
        let request = self.share_request(batch, books);
        let answer = self.post_share(&request);
        self.assert_true(batch, books, &answer);
        assert_eq!(self.post_share(&request).body, answer.body, "a repeat");
        answer
    }
}

/// Repeats what may fail for a moment, until it no longer does.
#[track_caller]
pub fn until_final(mut attempt: impl FnMut() -> Answer) -> Answer {
    let mut answer = attempt();
    for _ in 0..20 {
        if !answer.is_temporary() {
            return answer;
        }
        std::thread::sleep(Wait::from_millis(50));
        answer = attempt();
    }
    panic!("still {} after 20 repeats: {}", answer.status, answer.text());
}
