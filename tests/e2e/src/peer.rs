//! A leader that brings its tasks along.

use daphne_core::{
    batch::BatchMode,
    hpke::HpkeKeypair,
    task::{TaskRole, TaskSpec},
    taskprov::{self, PeerPolicy, PeerSpec, VerifyKeyInit},
    time::{Duration, Time},
    vdaf::{Vdaf, VdafConfig},
    version::DapVersion,
};

use crate::{
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
        let token = self.token().to_owned();
        let mut spec = TaskSpec {
            task_id: None,
            version: DapVersion::V09,
            role: TaskRole::Helper,
            batch_mode: mode,
            max_batch_size: None,
            vdaf: VdafConfig::Prio3Sum { max_measurement: 255 },
            verify_key: vec![],
            leader_token: Some(token.clone()),
            leader_token_hash: None,
            collector_hpke_config: self.collector_keys.config().clone(),
            min_batch_size: 2,
            time_precision: Duration::from_seconds(3_600),
            max_batch_query_count: 1,
            task_expiration: Some(Time::from_seconds(now() + 86_400)),
            report_expiry_age: self.spec.policy.report_expiry_age,
            tolerable_clock_skew: self.spec.policy.tolerable_clock_skew,
            shards: self.spec.policy.shards,
            buckets_per_group: None,
        };
        change(&mut spec);
        let info: [u8; 16] = random();
        let config = taskprov::advertise(&spec, &info, &self.spec.endpoint, HELPER_URL)
            .expect("parameters that can be encoded");
        let id = taskprov::task_id(&config);
        let vdaf = Vdaf::new(DapVersion::V09.vdaf_draft(), spec.vdaf).expect("a VDAF that we run");
        spec.verify_key = self.spec.verify_key_init.verify_key(&id, vdaf.verify_key_len()).to_vec();
        spec.task_id = Some(id);
        let mut world = World::of(server, spec, token, self.collector_keys.clone());
        world.taskprov = Some(config);
        world
    }
}
