//! Tasks of each version and VDAF, and their jobs.

use daphne_core::{
    aggregate::helper::HpkeKeyring,
    batch::BatchMode,
    configuration::{self, Agreement},
    hpke::{HpkeKem, HpkeKeypair},
    ids::HpkeConfigId,
    seal::TokenHash,
    task::{Task, TaskRole, TaskSpec},
    time::{Duration, Time},
    vdaf::{Vdaf, VdafConfig},
    version::DapVersion,
};

/// Reports in a job.
pub const REPORTS: usize = 25;
/// When the first of them was made, in seconds since the Unix epoch.
pub const FIRST_REPORT_S: u64 = 1_700_000_000;
const TIME_PRECISION: Duration = Duration::from_seconds(3_600);

/// A version and a VDAF with its parameters.
#[derive(Clone, Copy, Debug)]
pub struct CaseId {
    /// The version, as in the case's name.
    pub version: DapVersion,
    /// `dap-09/count`.
    pub name: &'static str,
    /// The VDAF.
    pub vdaf: VdafConfig,
    /// The body of the request that creates the job.
    job: &'static [u8],
}

const COUNT: VdafConfig = VdafConfig::Prio3Count;
const SUM: VdafConfig = VdafConfig::Prio3Sum { max_measurement: 255 };
const HISTOGRAM: VdafConfig = VdafConfig::Prio3Histogram { length: 100, chunk_length: 10 };
const SUM_VEC: VdafConfig =
    VdafConfig::Prio3SumVec { length: 1000, max_measurement: 1, chunk_length: 32 };
const MULTIHOT: VdafConfig =
    VdafConfig::Prio3MultihotCountVec { length: 100, max_weight: 10, chunk_length: 10 };

macro_rules! cases {
    ($($name:literal = $version:ident $vdaf:ident,)+) => {
        /// Each of them. Whoever refers to one by number means its place here.
        pub const ALL: &[CaseId] = &[$(CaseId {
            version: DapVersion::$version,
            name: $name,
            vdaf: $vdaf,
            job: include_bytes!(concat!("../jobs/", $name, ".bin")),
        }),+];
    };
}
cases! {
    "dap-09/count" = V09 COUNT,
    "dap-09/sum-8" = V09 SUM,
    "dap-09/histogram-100" = V09 HISTOGRAM,
    "dap-09/sumvec-1000" = V09 SUM_VEC,
    "dap-09/multihot-100" = V09 MULTIHOT,
    "dap-18/count" = V18 COUNT,
    "dap-18/sum-8" = V18 SUM,
    "dap-18/histogram-100" = V18 HISTOGRAM,
    "dap-18/sumvec-1000" = V18 SUM_VEC,
    "dap-18/multihot-100" = V18 MULTIHOT,
}

/// A task, the helper's keys, and a job.
#[derive(Clone, Debug)]
pub struct Case {
    /// The task, which takes any report.
    pub task: Task,
    /// The helper's keys.
    pub keys: HpkeKeyring,
    /// What the clock shows.
    pub now: Time,
    /// The body of the request that creates the job, of [`REPORTS`] good reports.
    pub request: &'static [u8],
}

impl Case {
    /// Sets a case up.
    ///
    /// # Panics
    /// If the core takes none of the constants here any more.
    pub fn new(id: &CaseId) -> Self {
        let vdaf = Vdaf::new(id.version.vdaf_draft(), id.vdaf).expect("a VDAF");
        let mut spec = TaskSpec {
            task_id: None,
            version: id.version,
            role: TaskRole::Helper,
            task_configuration: Vec::new(),
            batch_mode: BatchMode::TimeInterval,
            max_batch_size: None,
            vdaf: id.vdaf,
            verify_key: vec![1; vdaf.verify_key_len()],
            leader_token: None,
            leader_token_hash: Some(TokenHash::of("token")),
            collector_hpke_config: Self::key(2).config().clone(),
            min_batch_size: 2,
            time_precision: TIME_PRECISION,
            max_batch_query_count: 1,
            task_expiration: None,
            report_expiry_age: Duration::from_seconds(14 * 86_400),
            tolerable_clock_skew: Duration::from_seconds(300),
            shards: 1,
            buckets_per_group: None,
        };
        if id.version.has_configuration() {
            let agreement = Agreement {
                task_info: b"micro",
                leader_url: "https://leader.example/",
                helper_url: "https://helper.example/",
                task_interval: None,
            };
            spec.task_configuration = configuration::encode(&spec, &agreement).expect("URLs");
        }
        Self {
            task: spec.check(1).expect("a task"),
            keys: HpkeKeyring::new(vec![Self::key(3)]),
            now: Time::from_seconds(FIRST_REPORT_S + 60),
            request: id.job,
        }
    }

    /// A key pair with this id, the same each time: 2 is the collector's, 3 the helper's, 4 the leader's.
    ///
    /// # Panics
    /// Never: any seed of 32 bytes gives a key pair.
    pub fn key(id: u8) -> HpkeKeypair {
        HpkeKeypair::derive(HpkeConfigId(id), HpkeKem::X25519HkdfSha256, &[id; 32])
            .expect("a key pair")
    }
}
