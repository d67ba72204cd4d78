//! A leader that brings its tasks along.

use daphne_core::{
    b64,
    batch::{BatchMode, Checksum},
    configuration::{self, Agreement},
    hpke::HpkeKeypair,
    ids::{AggregationJobId, ReportId, TaskId},
    task::{TaskRole, TaskSpec},
    taskprov::{self, PeerPolicy, PeerSpec, VerifyKeyInit},
    time::{Duration, Interval, Time},
    vdaf::{Vdaf, VdafConfig},
    version::DapVersion,
    wire::v09::{DpMechanism, QueryConfig, TaskConfig, TaskQuery, TaskVdaf, TaskVdafConfig},
};

use crate::{
    client::{Answer, Client, JOB_CONTINUE, JOB_INIT, SHARE_REQ},
    server::{Server, random, random_token},
    world::{World, keypair, now},
};

/// What tasks name as the helper.
pub const HELPER_URL: &str = "https://helper.example/v09/";

/// A peer of a server, and its collector.
pub struct Peer {
    /// As it was added.
    pub spec: PeerSpec,
    /// Its collector's keys.
    pub collector_keys: HpkeKeypair,
}

impl Peer {
    /// A peer with an endpoint of its own, added to `server`.
    pub fn new(server: &Server, policy: PeerPolicy) -> Self {
        let peer = Self::stranger(policy);
        assert!(server.admin().add_peer(&peer.spec).expect("a good peer").created);
        peer
    }

    /// A leader that nobody knows.
    pub fn stranger(policy: PeerPolicy) -> Self {
        let collector_keys = keypair(2);
        let spec = PeerSpec {
            endpoint: format!("https://{}.example/v09/", random_token()),
            collector_hpke_config: collector_keys.config().clone(),
            verify_key_init: VerifyKeyInit::new(random()),
            leader_tokens: vec![random_token()],
            leader_token_hashes: vec![],
            policy,
        };
        Self { spec, collector_keys }
    }

    /// Its first token.
    pub fn token(&self) -> &str {
        &self.spec.leader_tokens[0]
    }

    /// A task that it brings: sums of 8-bit integers, batches of two, buckets of an hour, or what `change` makes of it.
    /// Nobody was told.
    pub fn task(
        &self,
        server: &Server,
        mode: BatchMode,
        change: impl FnOnce(&mut TaskSpec),
    ) -> World {
        let mut spec = self.spec_of_task(DapVersion::V09, mode);
        spec.task_expiration = Some(Time::from_seconds(now() + 86_400));
        change(&mut spec);
        let info: [u8; 16] = random();
        let config = taskprov::advertise(&spec, &info, &self.spec.endpoint, HELPER_URL)
            .expect("parameters that can be encoded");
        self.bring(server, spec, config)
    }

    /// The same of DAP-18, whose reports must be made in `interval`.
    pub fn task_18(
        &self,
        server: &Server,
        mode: BatchMode,
        interval: Option<Interval>,
        change: impl FnOnce(&mut TaskSpec),
    ) -> World {
        let mut spec = self.spec_of_task(DapVersion::V18, mode);
        change(&mut spec);
        let agreement = Agreement {
            task_info: &random::<16>(),
            leader_url: &self.spec.endpoint,
            helper_url: HELPER_URL,
            task_interval: interval,
        };
        let config = configuration::encode(&spec, &agreement).expect("a configuration");
        spec.task_configuration = config.clone();
        self.bring(server, spec, config)
    }

    fn spec_of_task(&self, version: DapVersion, mode: BatchMode) -> TaskSpec {
        TaskSpec {
            task_id: None,
            version,
            role: TaskRole::Helper,
            task_configuration: Vec::new(),
            batch_mode: mode,
            max_batch_size: None,
            vdaf: VdafConfig::Prio3Sum { max_measurement: 255 },
            verify_key: vec![],
            leader_token: Some(self.token().to_owned()),
            leader_token_hash: None,
            collector_hpke_config: self.collector_keys.config().clone(),
            min_batch_size: 2,
            time_precision: Duration::from_seconds(3_600),
            max_batch_query_count: 1,
            task_expiration: None,
            report_expiry_age: self.spec.policy.report_expiry_age,
            tolerable_clock_skew: self.spec.policy.tolerable_clock_skew,
            shards: self.spec.policy.shards,
            buckets_per_group: None,
        }
    }

    fn bring(&self, server: &Server, mut spec: TaskSpec, config: Vec<u8>) -> World {
        let id = spec.version.taskprov_id(&config);
        let vdaf = Vdaf::new(spec.version.vdaf_draft(), spec.vdaf).expect("a VDAF that we run");
        spec.verify_key = self.spec.verify_key_init.verify_key(&id, vdaf.verify_key_len()).to_vec();
        spec.task_id = Some(id);
        let mut world =
            World::of(server, spec, self.token().to_owned(), self.collector_keys.clone());
        world.taskprov = Some(config);
        world
    }

    /// The parameters of a task that it may bring, unless its policy forbids.
    pub fn config(&self) -> TaskConfig<'_> {
        TaskConfig {
            task_info: b"e2e",
            leader_aggregator_endpoint: &self.spec.endpoint,
            helper_aggregator_endpoint: HELPER_URL,
            query_config: QueryConfig {
                time_precision: Duration::from_seconds(3_600),
                max_batch_query_count: 1,
                min_batch_size: 10,
                query: TaskQuery::TimeInterval,
            },
            task_expiration: Time::from_seconds(now() + 3_600),
            vdaf_config: TaskVdafConfig { dp_mechanism: DpMechanism::None, vdaf: TaskVdaf::Count },
        }
    }

    /// Asserts that each request with these parameters is answered with `invalidTask`, and that the task is not created.
    #[track_caller]
    pub fn opts_out(&self, server: &Server, config: &TaskConfig<'_>) {
        let bytes = config.encode().expect("parameters that can be encoded");
        let id = taskprov::task_id(&bytes);
        let header = b64::encode(&bytes);
        for answer in ask_all(server.client(), &id, Some(&header), Some(self.token())) {
            answer.refused("invalidTask", &id);
            assert!(answer.json()["detail"].as_str().is_some_and(|detail| !detail.is_empty()));
        }
        assert_eq!(server.admin().task(&id).expect("an answer"), None);
    }
}

/// The answer to a request for a task, with this header and token: one that creates a job, continues one, asks for an
/// aggregate share, or deletes a job. Bodies are empty.
pub fn ask(
    client: &Client,
    kind: usize,
    task: &TaskId,
    header: Option<&str>,
    token: Option<&str>,
) -> Answer {
    let job = format!("/v09/tasks/{task}/aggregation_jobs/{}", AggregationJobId::new(random()));
    let shares = format!("/v09/tasks/{task}/aggregate_shares");
    let (method, path, media_type) = [
        ("PUT", &job, Some(JOB_INIT)),
        ("POST", &job, Some(JOB_CONTINUE)),
        ("POST", &shares, Some(SHARE_REQ)),
        ("DELETE", &job, None),
    ][kind];
    let bearer = token.map(|token| format!("Bearer {token}"));
    let mut headers = vec![];
    headers.extend(bearer.as_deref().map(|b| ("authorization", b)));
    headers.extend(header.map(|h| (taskprov::HEADER, h)));
    headers.extend(media_type.map(|m| ("content-type", m)));
    client.ask(method, path, &headers, media_type.map(|_| &b""[..]))
}

/// The answers to a request of each kind.
pub fn ask_all(
    client: &Client,
    task: &TaskId,
    header: Option<&str>,
    token: Option<&str>,
) -> Vec<Answer> {
    (0..4).map(|kind| ask(client, kind, task, header, token)).collect()
}

/// The header that brings a task along.
pub fn header(world: &World) -> String {
    b64::encode(world.taskprov.as_ref().expect("a task that its leader brings"))
}

/// Collects bucket 0 and asserts that exactly these reports are in it.
#[track_caller]
pub fn assert_counts(world: &World, ids: &[[u8; 16]]) {
    let mut checksum = Checksum::default();
    ids.iter().for_each(|id| checksum.add(&ReportId::new(*id)));
    let request = world.share_request_of(world.interval(0, 1), ids.len() as u64, checksum);
    world.share(&world.post_share(&request));
}
