//! One task with one batch bucket, and what is done to it.

use std::{rc::Rc, time::Instant};

use daphne_core::{
    batch::{BatchBucket, BatchMode, Checksum},
    ids::{AggregationJobId, ReportId},
    message::BatchSelector,
    store::{
        message::{AggregateStoreRequest, Commit, Slice, StoreAction, encode},
        placement::{Group, Placement, StoreId},
    },
    vdaf::{AggregateResult, FieldKind, Measurement, VdafConfig},
};
use e2e::{Answer, Books, Job, Server, World, server::random};
use serde::{Deserialize, de::DeserializeOwned};

use crate::meter::{Billed, State};

/// Reports in a job.
pub const JOB_SIZE: usize = 500;
/// Elements of a share: those of a histogram of a hundred buckets.
const LENGTH: usize = 100;
const ELEMENT_LEN: usize = 16;

/// The task, and the truth about its batch.
pub struct Subject {
    server: Rc<Server>,
    world: World,
    placement: Placement,
    books: Books,
    made_up: MadeUp,
    /// What the meter said before the runtime, and its meter with it, was killed.
    before: Billed,
    oldest_ids: Vec<u8>,
}

/// What the made-up jobs add up to.
#[derive(Default)]
struct MadeUp {
    jobs: u64,
    reports: u64,
    checksum: Checksum,
    histogram: Vec<u128>,
}

/// A job without cryptography: a message for each object.
pub struct MadeUpJob {
    messages: Vec<Vec<u8>>,
    ids: Vec<u8>,
    checksum: Checksum,
    histogram_bucket: usize,
}

/// How a batch of messages went.
#[derive(Debug, Deserialize)]
pub struct Committed {
    pub committed: u64,
    pub total_ms: f64,
    pub each_ms: Vec<f64>,
    pub filled: bool,
}

/// How a run of the alarm's work went.
#[derive(Debug, Deserialize)]
pub struct Alarmed {
    pub ms: f64,
    pub again: bool,
}

/// What makes up jobs, on any thread.
#[derive(Clone)]
pub struct Maker {
    placement: Placement,
    bucket: BatchBucket,
}

impl Subject {
    /// A new task.
    pub fn new(server: Rc<Server>, shards: u16) -> Self {
        let world = World::new(&server, BatchMode::TimeInterval, |spec| {
            spec.vdaf = VdafConfig::Prio3Histogram { length: LENGTH as u32, chunk_length: 10 };
            spec.shards = shards;
            spec.buckets_per_group = Some(0);
        });
        let task = world.spec.clone().check(1).expect("a valid task");
        Self {
            placement: task.parameters.placement(),
            server,
            world,
            books: Books::default(),
            made_up: MadeUp { histogram: vec![0; LENGTH], ..MadeUp::default() },
            before: Billed::default(),
            oldest_ids: Vec::new(),
        }
    }

    /// Reports in the batch.
    pub fn reports(&self) -> u64 {
        self.made_up.reports + self.real().0
    }

    fn real(&self) -> (u64, Checksum) {
        self.books.count(&self.batch(), &self.world)
    }

    fn batch(&self) -> BatchSelector {
        self.world.interval(0, 1)
    }

    /// What makes up jobs for this task.
    pub fn maker(&self) -> Maker {
        Maker { placement: self.placement, bucket: BatchBucket::Window(self.world.time(0)) }
    }

    /// What the objects were billed for so far.
    pub fn counts(&self) -> Billed {
        let now: Billed = parse(&self.world.client.get("/internal/test/meter"));
        now + self.before
    }

    fn probe<A: DeserializeOwned>(&self, shard: u16, what: &str, body: &[u8]) -> A {
        let object = self.placement.store_name(&store(shard));
        let path = format!("/internal/test/probe?object={object}&what={what}");
        parse(&self.world.client.ask("POST", &path, &[], Some(body)))
    }

    /// What one of the objects holds.
    pub fn state(&self, shard: u16) -> State {
        self.probe(shard, "state", &[])
    }

    /// Has an object do what its alarm would.
    pub fn alarm(&self, shard: u16) -> Alarmed {
        self.probe(shard, "alarm", &[])
    }

    /// Asks an object for nothing at all: what a probe costs by itself. In milliseconds.
    pub fn nothing_ms(&self) -> f64 {
        let begun = Instant::now();
        let _: Committed = self.probe(0, "commits", &[]);
        ms(begun)
    }

    /// Commits jobs, those of each object in one request.
    pub fn commit(&mut self, jobs: &[MadeUpJob]) -> Vec<Committed> {
        let done: Vec<Committed> = (0..self.placement.shards)
            .map(|shard| {
                let messages = jobs.iter().map(|job| &*job.messages[usize::from(shard)]);
                self.probe(shard, "commits", &framed(messages))
            })
            .collect();
        for (shard, done) in done.iter().enumerate() {
            assert_eq!(done.committed, jobs.len() as u64, "object {shard} refused a job");
        }
        for job in jobs {
            if self.oldest_ids.is_empty() {
                self.oldest_ids.clone_from(&job.ids);
            }
            self.made_up.jobs += 1;
            self.made_up.reports += JOB_SIZE as u64;
            self.made_up.checksum.merge(&job.checksum);
            self.made_up.histogram[job.histogram_bucket] += JOB_SIZE as u128;
        }
        done
    }

    /// Sends the oldest reports again in a new job: nothing may be committed. In milliseconds inside the object.
    pub fn replay_ms(&self) -> f64 {
        let ids = self.placement.shards;
        let oldest = &self.oldest_ids
            [..self.oldest_ids.len() / ReportId::LEN / usize::from(ids) * ReportId::LEN];
        let message = self.maker().message(0, oldest.to_vec(), 0);
        let done: Committed = self.probe(0, "commits", &framed([&*message].into_iter()));
        assert_eq!(done.committed, 0, "a replay was committed");
        done.total_ms
    }

    /// Real jobs of 500 new reports.
    pub fn real_jobs(&self, count: usize) -> Vec<Job> {
        let job = |_| {
            let report =
                |n| self.world.report(Measurement::Histogram(n % LENGTH), self.world.time(0));
            let reports: Vec<Vec<u8>> = (0..JOB_SIZE).map(report).collect();
            self.world.timed_job(&reports)
        };
        (0..count).map(job).collect()
    }

    /// Has the Worker aggregate a job. In milliseconds.
    pub fn aggregate_ms(&mut self, job: Job) -> f64 {
        let begun = Instant::now();
        let answer = self.world.put(&job);
        let took = ms(begun);
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(self.world.verdicts(&answer.body).iter().all(|(_, refused)| refused.is_none()));
        self.world.finish(job, &answer, &mut self.books);
        took
    }

    /// Kills the runtime and starts it again; objects are loaded by the next request to them.
    pub fn kill(&mut self) {
        self.before = self.counts();
        self.server.kill_workerd();
    }

    /// Asks for the share of one report more than there is, which must be refused. In milliseconds.
    pub fn collect_wrongly_ms(&self) -> f64 {
        let (count, checksum) = self.claim();
        let request = self.world.share_request_of(self.batch(), count + 1, checksum);
        let begun = Instant::now();
        let answer = self.world.post_share(&request);
        let took = ms(begun);
        answer.refused("batchMismatch", &self.world.task_id);
        took
    }

    /// Collects the batch, and compares the aggregate with the truth. In milliseconds.
    pub fn collect_ms(&mut self) -> f64 {
        let (count, checksum) = self.claim();
        let request = self.world.share_request_of(self.batch(), count, checksum);
        let begun = Instant::now();
        let answer = self.world.post_share(&request);
        let took = ms(begun);
        // The leader's share of what was made up is nothing.
        let (MadeUp { reports, checksum, .. }, bucket) = (&self.made_up, self.maker().bucket);
        self.books.enter(bucket, *reports, *checksum, &share(&[0; LENGTH]), &self.world.leader);
        let AggregateResult::Vector(sums) = self.world.result(self.batch(), &self.books, &answer)
        else {
            panic!("the aggregate is no histogram");
        };
        let real_jobs = (count - reports) / JOB_SIZE as u64;
        let each = u128::from(real_jobs) * (JOB_SIZE / LENGTH) as u128;
        let truth: Vec<u128> = self.made_up.histogram.iter().map(|n| n + each).collect();
        assert_eq!(sums, truth, "the aggregate is not the truth");
        took
    }

    fn claim(&self) -> (u64, Checksum) {
        let (count, mut checksum) = self.real();
        checksum.merge(&self.made_up.checksum);
        (count + self.made_up.reports, checksum)
    }
}

impl Maker {
    /// The n-th job: all its reports say the same.
    pub fn job(&self, n: u64) -> MadeUpJob {
        let histogram_bucket = (n % LENGTH as u64) as usize;
        let mut ids = vec![0; JOB_SIZE * ReportId::LEN];
        getrandom::fill(&mut ids).expect("the system has randomness");
        let shards = usize::from(self.placement.shards);
        let job = random();
        let (mut messages, mut checksum) = (Vec::new(), Checksum::default());
        let mut left = ids.as_slice();
        for shard in 0..shards {
            let count = left.len() / ReportId::LEN / (shards - shard);
            let (mine, rest) = left.split_at(count * ReportId::LEN);
            left = rest;
            let (message, sum) = self.commit(shard as u16, job, mine.to_vec(), histogram_bucket);
            messages.push(message);
            checksum.merge(&sum);
        }
        MadeUpJob { messages, ids, checksum, histogram_bucket }
    }

    fn message(&self, shard: u16, ids: Vec<u8>, histogram_bucket: usize) -> Vec<u8> {
        self.commit(shard, random(), ids, histogram_bucket).0
    }

    fn commit(
        &self,
        shard: u16,
        job: [u8; 16],
        ids: Vec<u8>,
        histogram_bucket: usize,
    ) -> (Vec<u8>, Checksum) {
        let mut checksum = Checksum::default();
        let (ids_each, _) = ids.as_chunks::<{ ReportId::LEN }>();
        ids_each.iter().for_each(|id| checksum.add(&ReportId::new(*id)));
        let mut histogram = [0; LENGTH];
        histogram[histogram_bucket] = ids_each.len() as u128;
        let BatchBucket::Window(time) = self.bucket else { panic!("a task by time") };
        let slice = Slice {
            bucket: self.bucket,
            ids,
            checksum,
            min_time: time,
            max_time: time,
            share: share(&histogram),
        };
        let commit = Commit {
            job: AggregationJobId::new(job),
            digest: random(),
            param: Vec::new(),
            slices: vec![slice],
            refused: Vec::new(),
            unrecorded: Vec::new(),
            open: Some(Vec::new()),
            readmit: Vec::new(),
            once: false,
        };
        let request = AggregateStoreRequest {
            placement: self.placement,
            store: store(shard),
            field: FieldKind::F128,
            action: StoreAction::Commit(commit),
        };
        (encode(&request).expect("a message"), checksum)
    }
}

/// Milliseconds since then.
pub fn ms(begun: Instant) -> f64 {
    begun.elapsed().as_secs_f64() * 1_000.0
}

const fn store(shard: u16) -> StoreId {
    StoreId { group: Group::Whole, shard }
}

fn share(histogram: &[u128; LENGTH]) -> Vec<u8> {
    let mut out = Vec::with_capacity(LENGTH * ELEMENT_LEN);
    histogram.iter().for_each(|n| out.extend(n.to_le_bytes()));
    out
}

fn framed<'a>(messages: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut out = Vec::new();
    for message in messages {
        out.extend((message.len() as u32).to_be_bytes());
        out.extend_from_slice(message);
    }
    out
}

fn parse<A: DeserializeOwned>(answer: &Answer) -> A {
    assert_eq!(answer.status, 200, "{}", answer.text());
    serde_json::from_slice(&answer.body).expect("what a probe answers")
}
