//! Tasks: the parameters that leader, helper, clients and collector agree on. They never change, but for the end of a task
//! (`task_expiration`): what it says of a report is recorded with the report, as what the clock says.
//!
//! Three forms: [`TaskSpec`] is what an operator sends, [`Task`] is checked and complete, and [`StoredTask`] is a
//! `Task` at rest, its verify key sealed.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    aggregate::commit::SUMS_BYTES_MAX,
    aggregator_api::{IssuedToken, Provisioned},
    b64,
    batch::BatchMode,
    configuration,
    hpke::{self, HpkeConfig},
    ids::TaskId,
    seal::{RootKeys, TokenHash, UnsealError},
    store::{config_store::TaskObjects, placement::Placement},
    taskprov::TaskOrigin,
    time::{Duration, Time},
    vdaf::{Vdaf, VdafConfig, VerifyKey},
    version::DapVersion,
    wire::Wire,
};

/// A batch bucket group spans about this long, unless a task says otherwise.
const GROUP_DEFAULT_S: u64 = 86_400;
/// Fewer reports than this in a batch would reveal too much (DAP-09 §7.5.2).
const MIN_BATCH_SIZE_MIN: u64 = 2;
const TOKEN_LEN_MIN: usize = 16;
const SHARDS_MAX: u16 = 64;
const QUERY_COUNT_MAX: u64 = 65_535;
const CLOCK_SKEW_MAX_S: u64 = 86_400;
const TIME_PRECISION_MAX_S: u64 = 366 * 86_400;

/// The longest retention of a task.
pub const REPORT_EXPIRY_AGE_MAX: Duration = Duration::from_seconds(366 * 86_400);

/// A task's parameters are unusable; the text is one sentence for the operator who sent them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TaskError(String);

impl TaskError {
    pub(crate) fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }
}

/// Our role in a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TaskRole {
    /// We answer a leader.
    Helper,
}

/// What an operator sends to create a task.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskSpec {
    /// The task's id. Default: SHA-256 of the verify key, as other DAP control planes derive it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_id: Option<TaskId>,
    /// Protocol version.
    pub version: DapVersion,
    /// Our role.
    pub role: TaskRole,
    /// What all parties agree on, word for word: an encoded `TaskConfiguration`, which must say the same as the parameters
    /// here. DAP-18 only, where each task has one; empty for DAP-09.
    #[serde(default, with = "b64::serde_b64", skip_serializing_if = "Vec::is_empty")]
    pub task_configuration: Vec<u8>,
    /// Batch mode.
    pub batch_mode: BatchMode,
    /// Most reports in a batch. DAP-09 leader-selected (fixed-size) tasks only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_batch_size: Option<u64>,
    /// The VDAF and its parameters.
    pub vdaf: VdafConfig,
    /// The VDAF verify key, base64url. Secret.
    #[serde(with = "b64::serde_b64")]
    pub verify_key: Vec<u8>,
    /// The token the leader authenticates with. Secret; only its hash is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader_token: Option<String>,
    /// SHA-256 of that token, instead of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader_token_hash: Option<TokenHash>,
    /// Whom aggregate shares are sealed to.
    pub collector_hpke_config: HpkeConfig,
    /// Fewest reports in a collected batch, at least 2.
    pub min_batch_size: u64,
    /// Time precision in seconds.
    pub time_precision: Duration,
    /// Aggregation parameters per batch. DAP-09 only; 1 for Prio3.
    #[serde(default = "one")]
    pub max_batch_query_count: u64,
    /// End of the task. DAP-09 only: that of a DAP-18 task is in its configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_expiration: Option<Time>,
    /// Reports older than this are refused, in seconds. Default 14 days.
    #[serde(default = "default_report_expiry_age")]
    pub report_expiry_age: Duration,
    /// Reports may be this far in the future, in seconds. Default 300.
    #[serde(default = "default_clock_skew")]
    pub tolerable_clock_skew: Duration,
    /// Durable Objects that share each group of batch buckets. Default 1.
    #[serde(default = "one_shard")]
    pub shards: u16,
    /// Neighbouring batch buckets in one group of objects; 0 for one group over the whole task. Default: about a
    /// day. Time-interval tasks only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub buckets_per_group: Option<u32>,
}

const fn one() -> u64 {
    1
}
pub(crate) const fn one_shard() -> u16 {
    1
}
pub(crate) const fn default_report_expiry_age() -> Duration {
    Duration::from_seconds(14 * 86_400)
}
pub(crate) const fn default_clock_skew() -> Duration {
    Duration::from_seconds(300)
}

/// The parameters of a task that are no secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskParameters {
    /// The task's id.
    pub task_id: TaskId,
    /// Protocol version.
    pub version: DapVersion,
    /// Our role.
    pub role: TaskRole,
    /// Batch mode.
    pub batch_mode: BatchMode,
    /// Most reports in a batch.
    pub max_batch_size: Option<u64>,
    /// The VDAF and its parameters.
    pub vdaf: VdafConfig,
    /// Whom aggregate shares are sealed to.
    pub collector_hpke_config: HpkeConfig,
    /// Fewest reports in a collected batch.
    pub min_batch_size: u64,
    /// Time precision in seconds.
    pub time_precision: Duration,
    /// Aggregation parameters per batch.
    pub max_batch_query_count: u64,
    /// What all that is sealed for the task is bound to beside its id: an encoded `TaskConfiguration`, as it was given. Empty
    /// for DAP-09, which has none.
    #[serde(default, with = "b64::serde_b64", skip_serializing_if = "Vec::is_empty")]
    pub task_configuration: Vec<u8>,
    /// The first second at which its reports may be made. DAP-18 only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_start: Option<Time>,
    /// The last second at which its reports may be made.
    pub task_expiration: Option<Time>,
    /// Reports older than this are refused, in seconds.
    pub report_expiry_age: Duration,
    /// Reports may be this far in the future, in seconds.
    pub tolerable_clock_skew: Duration,
    /// Shards of each group.
    pub shards: u16,
    /// Batch buckets in one group; 0 for one group over the whole task.
    pub buckets_per_group: u32,
    /// Version of the root key that spreads reports over shards.
    pub shard_key_version: u32,
    /// Where the task came from, if no operator created it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taskprov: Option<TaskOrigin>,
    /// What a control plane said beside all this, if one created the task ([`crate::aggregator_api`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provisioned: Option<Provisioned>,
}

impl TaskParameters {
    /// The numbers that place the task's reports.
    pub fn placement(&self) -> Placement {
        Placement {
            task_id: self.task_id,
            batch_mode: self.batch_mode,
            time_precision: self.time_precision,
            shards: self.shards,
            buckets_per_group: self.buckets_per_group,
            shard_key_version: self.shard_key_version,
            retention: self.report_expiry_age,
        }
    }

    /// How the task's messages are written.
    pub fn wire(&self) -> Wire {
        Wire::new(self.version, self.time_precision)
    }

    /// What leads to the task's objects.
    pub fn objects(&self) -> TaskObjects {
        TaskObjects {
            placement: self.placement(),
            field: self.vdaf.field(self.version.vdaf_draft()),
        }
    }
}

/// A checked task with its secrets.
#[derive(Clone, Debug)]
pub struct Task {
    /// What is no secret.
    pub parameters: TaskParameters,
    /// The VDAF, ready for use.
    pub vdaf: Vdaf,
    /// Its verify key.
    pub verify_key: VerifyKey,
    /// Hashes of the tokens the leader may use. A task from taskprov has none: its leader uses those of the peer.
    pub leader_token_hashes: Vec<TokenHash>,
    /// The token that a control plane was given for the leader, sealed.
    pub issued_token: Option<IssuedToken>,
}

/// A task at rest.
#[derive(Clone, Serialize, Deserialize)]
pub struct StoredTask {
    /// What is no secret.
    pub parameters: TaskParameters,
    /// Hashes of the tokens the leader may use.
    pub leader_token_hashes: Vec<TokenHash>,
    /// The verify key, sealed under the task's id.
    #[serde(with = "b64::serde_b64")]
    pub sealed_verify_key: Vec<u8>,
    /// The token that a control plane was given for the leader.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issued_token: Option<IssuedToken>,
}

impl TaskSpec {
    /// Checks the parameters and fills in defaults. `shard_key_version` is that of the newest root key.
    ///
    /// # Errors
    /// The operator's fault: one sentence that says what to change.
    pub fn check(self, shard_key_version: u32) -> Result<Task, TaskError> {
        let hash = leader_token_hash(self.leader_token.as_deref(), self.leader_token_hash)?;
        self.check_led_by(vec![hash], None, shard_key_version)
    }

    /// As [`TaskSpec::check`], for a task that its leader brought along: it has no token of its own.
    ///
    /// # Errors
    /// Whoever wrote the parameters: one sentence that says what is wrong.
    pub(crate) fn check_brought(
        self,
        origin: TaskOrigin,
        shard_key_version: u32,
    ) -> Result<Task, TaskError> {
        self.check_led_by(Vec::new(), Some(origin), shard_key_version)
    }

    fn check_led_by(
        self,
        leader_token_hashes: Vec<TokenHash>,
        taskprov: Option<TaskOrigin>,
        shard_key_version: u32,
    ) -> Result<Task, TaskError> {
        let refuse = |why: &str| Err(TaskError::new(why));
        let times = configuration::check(&self)?;
        if self.version.aggregates_once() {
            if self.max_batch_size.is_some() {
                return refuse("max_batch_size belongs to dap-09 tasks");
            }
            if self.max_batch_query_count != 1 {
                return refuse("max_batch_query_count must be 1: a dap-18 batch is collected once");
            }
        }
        let vdaf = Vdaf::new(self.version.vdaf_draft(), self.vdaf)
            .map_err(|e| TaskError(e.to_string()))?;
        let verify_key = vdaf.verify_key(&self.verify_key).map_err(|e| TaskError(e.to_string()))?;
        if !self.collector_hpke_config.is_supported() {
            return refuse("collector_hpke_config names an HPKE algorithm that is not supported");
        }
        // A key that is no point of its curve would be noticed only when the first batch is collected.
        if hpke::seal(&self.collector_hpke_config, &[], &[], &[], &[1; 32]).is_err() {
            return refuse("collector_hpke_config has a public key that nothing can be sealed to");
        }
        if self.min_batch_size < MIN_BATCH_SIZE_MIN {
            return refuse("min_batch_size must be at least 2");
        }
        let precision = self.time_precision.as_seconds();
        if !(1..=TIME_PRECISION_MAX_S).contains(&precision) {
            return refuse("time_precision must be between 1 second and 366 days");
        }
        if !(1..=SHARDS_MAX).contains(&self.shards) {
            return refuse("shards must be between 1 and 64");
        }
        if usize::from(self.shards) * vdaf.agg_share_len_max() > SUMS_BYTES_MAX {
            return refuse("that many shards of that long an aggregate share exceed 8 MiB");
        }
        if self.tolerable_clock_skew.as_seconds() > CLOCK_SKEW_MAX_S {
            return refuse("tolerable_clock_skew must be at most a day");
        }
        if self.report_expiry_age > REPORT_EXPIRY_AGE_MAX {
            return refuse("report_expiry_age must be at most 366 days");
        }
        if vdaf.rounds() == 1 && self.max_batch_query_count != 1 {
            return refuse(
                "max_batch_query_count must be 1: a Prio3 task has one aggregation parameter",
            );
        }
        if !(1..=QUERY_COUNT_MAX).contains(&self.max_batch_query_count) {
            return refuse("max_batch_query_count must be between 1 and 65,535");
        }
        if self.report_expiry_age.as_seconds() < precision {
            return refuse("report_expiry_age must be at least the time precision");
        }
        let buckets_per_group = match self.batch_mode {
            BatchMode::TimeInterval => {
                if self.max_batch_size.is_some() {
                    return refuse("max_batch_size belongs to leader-selected tasks");
                }
                self.buckets_per_group.unwrap_or_else(|| {
                    u32::try_from((GROUP_DEFAULT_S / precision).max(1)).unwrap_or(u32::MAX)
                })
            }
            BatchMode::LeaderSelected => {
                if self.buckets_per_group.unwrap_or(0) != 0 {
                    return refuse("buckets_per_group belongs to time-interval tasks");
                }
                if self.max_batch_size.is_some_and(|max| max < self.min_batch_size) {
                    return refuse("max_batch_size must not be below min_batch_size");
                }
                0
            }
        };
        let task_id = self.task_id.unwrap_or_else(|| id_of_verify_key(&self.verify_key));
        Ok(Task {
            parameters: TaskParameters {
                task_id,
                version: self.version,
                role: self.role,
                batch_mode: self.batch_mode,
                max_batch_size: self.max_batch_size,
                vdaf: self.vdaf,
                collector_hpke_config: self.collector_hpke_config,
                min_batch_size: self.min_batch_size,
                time_precision: self.time_precision,
                max_batch_query_count: self.max_batch_query_count,
                task_configuration: self.task_configuration,
                task_start: times.start,
                task_expiration: times.expiration,
                report_expiry_age: self.report_expiry_age,
                tolerable_clock_skew: self.tolerable_clock_skew,
                shards: self.shards,
                buckets_per_group,
                shard_key_version,
                taskprov,
                provisioned: None,
            },
            vdaf,
            verify_key,
            leader_token_hashes,
            issued_token: None,
        })
    }
}

/// The id of a task for which none was chosen: SHA-256 of its verify key, as other DAP control planes derive it.
pub fn id_of_verify_key(verify_key: &[u8]) -> TaskId {
    TaskId::new(Sha256::digest(verify_key).into())
}

/// The hash of the token that a leader is to use, of which either is given.
///
/// # Errors
/// The operator's fault: one sentence that says what to change.
pub fn leader_token_hash(
    token: Option<&str>,
    hash: Option<TokenHash>,
) -> Result<TokenHash, TaskError> {
    match (token, hash) {
        // Another token could not be sent in a header.
        (Some(token), None)
            if token.len() >= TOKEN_LEN_MIN && token.bytes().all(|b| b.is_ascii_graphic()) =>
        {
            Ok(TokenHash::of(token))
        }
        (Some(_), None) => {
            Err(TaskError::new("leader_token must be at least 16 visible ASCII characters"))
        }
        (None, Some(hash)) => Ok(hash),
        _ => Err(TaskError::new("give exactly one of leader_token and leader_token_hash")),
    }
}

impl Task {
    /// The task's id.
    pub fn id(&self) -> &TaskId {
        &self.parameters.task_id
    }

    /// Whether the leader may present this token. Takes the same time whichever byte differs.
    pub fn accepts_leader_token(&self, token: &str) -> bool {
        // Every hash is tried, so that the time does not tell which one matched.
        self.leader_token_hashes.iter().fold(false, |ok, hash| ok | hash.matches(token))
    }

    /// Digest of everything the task was created with. A repeat of the same creation has the same identity.
    pub fn identity(&self) -> [u8; 32] {
        if self.parameters.taskprov.is_some() {
            // The id is the hash of all that the leader says. What the peer adds may differ a moment later, as when its
            // secret is replaced: whoever met the task first has settled it.
            return Sha256::digest([b"taskprov ", self.id().as_bytes().as_slice()].concat()).into();
        }
        // The root key version is ours, not the operator's: a repeat after a rotation is still a repeat.
        let parameters = TaskParameters { shard_key_version: 0, ..self.parameters.clone() };
        // Nor is the token that we made for a control plane's leader: whoever repeats a creation knows none.
        let hashes: &[TokenHash] = match parameters.provisioned {
            Some(_) => &[],
            None => &self.leader_token_hashes,
        };
        let mut hasher = Sha256::new();
        hasher.update(serde_json::to_vec(&(parameters, hashes)).unwrap_or_default());
        hasher.update(self.verify_key.as_bytes());
        hasher.finalize().into()
    }

    /// The task at rest. `nonce` is fresh randomness.
    pub fn seal(&self, keys: &RootKeys, nonce: [u8; 12]) -> StoredTask {
        StoredTask {
            parameters: self.parameters.clone(),
            leader_token_hashes: self.leader_token_hashes.clone(),
            sealed_verify_key: keys.seal(&seal_label(self.id()), self.verify_key.as_bytes(), nonce),
            issued_token: self.issued_token.clone(),
        }
    }
}

impl StoredTask {
    /// The task, ready for use.
    ///
    /// # Errors
    /// Ours: the root key it was sealed with is missing, or the record is broken.
    pub fn open(self, keys: &RootKeys) -> Result<Task, OpenTaskError> {
        let key = keys.open(&seal_label(&self.parameters.task_id), &self.sealed_verify_key)?;
        let vdaf = Vdaf::new(self.parameters.version.vdaf_draft(), self.parameters.vdaf)
            .map_err(|_| OpenTaskError::Broken)?;
        let verify_key = vdaf.verify_key(&key).map_err(|_| OpenTaskError::Broken)?;
        Ok(Task {
            parameters: self.parameters,
            vdaf,
            verify_key,
            leader_token_hashes: self.leader_token_hashes,
            issued_token: self.issued_token,
        })
    }
}

/// A stored task cannot be used. Our own fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenTaskError {
    /// The verify key does not open.
    #[error(transparent)]
    Seal(#[from] UnsealError),
    /// The record holds parameters that no task can have.
    #[error("the stored task is broken")]
    Broken,
}

pub(crate) fn seal_label(task: &TaskId) -> String {
    format!("verify key of task {task}")
}
