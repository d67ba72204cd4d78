//! Reports that no honest client or leader would make, each a part of a job.

use daphne_core::{
    batch::Checksum,
    codec::Writer,
    error::ReportError,
    hpke::{self, HpkeConfig, Role, SealedMessage},
    ids::{ReportId, TaskId},
    message::{
        AggregationJobInit, BatchSelector, HpkeCiphertext, PartialBatchSelector, ReportShare,
        VerifyInit,
    },
    time::Time,
    vdaf::ShardedReport,
    version::DapVersion,
    wire::input_share_aad,
};

use crate::{server::random, world::World};

/// The batch of jobs by time.
pub const TIMED: PartialBatchSelector = PartialBatchSelector::TimeInterval;

/// A report on its way from client to leader: honest until something is changed.
pub struct Draft {
    /// Its id.
    pub id: [u8; 16],
    /// Its time, as it is written.
    pub time: u64,
    /// The encoded public extensions, without their length, if the version has any.
    pub public_extensions: Vec<u8>,
    /// What the client takes for the task's configuration.
    pub configuration: Vec<u8>,
    /// The task its share is sealed for.
    pub task_id: TaskId,
    /// The public share.
    pub public_share: Vec<u8>,
    /// The encoded private extensions, without their length.
    pub extensions: Vec<u8>,
    /// The helper's input share.
    pub input_share: Vec<u8>,
    /// Bytes after the plaintext's last field.
    pub trailing: Vec<u8>,
    /// HPKE's `info`.
    pub info: Vec<u8>,
    /// Whom the share is sealed to.
    pub config: HpkeConfig,
    /// The leader's ping-pong message.
    pub payload: Vec<u8>,
}

/// One report of a job, its share sealed.
pub struct Forged {
    /// Its id.
    pub id: [u8; 16],
    /// Its time, as it is written.
    pub time: u64,
    /// The encoded public extensions, without their length.
    pub public_extensions: Vec<u8>,
    /// The public share.
    pub public_share: Vec<u8>,
    /// The helper's share.
    pub sealed: SealedMessage,
    /// The leader's ping-pong message.
    pub payload: Vec<u8>,
}

/// A report whose client, and leader, did what `change` says.
pub fn forge(world: &World, number: u64, time: Time, change: impl FnOnce(&mut Draft)) -> Forged {
    let id = random();
    let context = world.spec.version.vdaf_context(&world.task_id);
    let measurement = world.measurement(number);
    let shares = world.leader.vdaf.shard(&context, &measurement, &id).expect("a measurement");
    world.remember(ReportId::new(id), measurement);
    forge_shares(world, id, shares, time, change)
}

/// A report of these shares. The leader does its part with them before anything is changed.
pub fn forge_shares(
    world: &World,
    id: [u8; 16],
    shares: ShardedReport,
    time: Time,
    change: impl FnOnce(&mut Draft),
) -> Forged {
    let vdaf = &world.leader.vdaf;
    let version = world.spec.version;
    let context = version.vdaf_context(&world.task_id);
    let (_, payload) = vdaf
        .leader_init(
            &world.leader.verify_key,
            &context,
            &vdaf.decode_agg_param(&[]).expect("no parameter"),
            &id,
            &shares.public_share,
            &shares.leader_input_share,
        )
        .expect("shares of the right lengths");
    let mut draft = Draft {
        id,
        time: written(world, time),
        public_extensions: Vec::new(),
        configuration: world.spec.task_configuration.clone(),
        task_id: world.task_id,
        public_share: shares.public_share,
        extensions: Vec::new(),
        input_share: shares.helper_input_share,
        trailing: Vec::new(),
        info: hpke::input_share_info(version, Role::Helper),
        config: world.reporter.helper_hpke_config.clone(),
        payload,
    };
    change(&mut draft);
    draft.seal(version)
}

/// A time as the task's reports have it: in seconds, or in units of the precision.
pub fn written(world: &World, time: Time) -> u64 {
    match world.spec.version {
        DapVersion::V09 => time.as_seconds(),
        DapVersion::V18 => time.as_seconds() / world.spec.time_precision.as_seconds(),
    }
}

fn metadata(version: DapVersion, id: &[u8; 16], time: u64, public_extensions: &[u8]) -> Vec<u8> {
    let mut w = Writer::new();
    w.raw(id).u64(time);
    match version {
        DapVersion::V09 => assert!(public_extensions.is_empty(), "DAP-09 has none"),
        DapVersion::V18 => {
            w.opaque16(public_extensions);
        }
    }
    w.finish().expect("short metadata")
}

impl Draft {
    fn seal(self, version: DapVersion) -> Forged {
        let mut plaintext = Writer::new();
        plaintext.opaque16(&self.extensions).opaque32(&self.input_share).raw(&self.trailing);
        let metadata = metadata(version, &self.id, self.time, &self.public_extensions);
        let aad =
            input_share_aad(&self.task_id, &self.configuration, &metadata, &self.public_share)
                .expect("a short share");
        let plaintext = plaintext.finish().expect("a short plaintext");
        let sealed =
            hpke::seal(&self.config, &self.info, &aad, &plaintext, &random()).expect("a key");
        Forged {
            id: self.id,
            time: self.time,
            public_extensions: self.public_extensions,
            public_share: self.public_share,
            sealed,
            payload: self.payload,
        }
    }
}

/// The body of a job.
pub fn job_body(world: &World, batch: PartialBatchSelector, reports: &[Forged]) -> Vec<u8> {
    let metadata: Vec<_> = reports
        .iter()
        .map(|r| metadata(world.spec.version, &r.id, r.time, &r.public_extensions))
        .collect();
    let verify_inits = reports.iter().zip(&metadata).map(|(r, metadata)| VerifyInit {
        report_share: ReportShare {
            metadata: world.wire().decode_report_metadata(metadata).expect("metadata"),
            public_share: &r.public_share,
            encrypted_input_share: HpkeCiphertext { ..r.sealed.as_ref() },
        },
        payload: &r.payload,
    });
    let init = AggregationJobInit { agg_param: &[], batch, verify_inits: verify_inits.collect() };
    world.wire().encode_aggregation_job_init(&init).expect("a job")
}

/// The error of a report that was sealed to a key which the helper does not have: DAP-18 has a code for it and does not
/// use it.
pub fn unknown_key(version: DapVersion) -> ReportError {
    match version {
        DapVersion::V09 => ReportError::HpkeUnknownConfigId,
        DapVersion::V18 => ReportError::HpkeDecryptError,
    }
}

/// Codes of errors as the drafts number them: DAP-09 §4.5.1.2 `PrepareError`, DAP-18 §9.2.6 `ReportError`.
fn code(version: DapVersion, error: ReportError) -> u8 {
    let of_each = match error {
        ReportError::BatchCollected => [0, 1],
        ReportError::ReportReplayed => [1, 2],
        ReportError::ReportDropped => [2, 3],
        ReportError::HpkeUnknownConfigId => [3, 4],
        ReportError::HpkeDecryptError => [4, 5],
        ReportError::VdafVerifyError => [5, 6],
        ReportError::BatchSaturated => [6, 255],
        ReportError::TaskExpired => [7, 7],
        ReportError::InvalidMessage => [8, 8],
        ReportError::ReportTooEarly => [9, 9],
        ReportError::TaskNotStarted => [255, 10],
        ReportError::OutdatedConfig => [255, 11],
    };
    of_each[usize::from(version == DapVersion::V18)]
}

/// What follows the first entry of an answer, which is a message for the leader: id, type, and the message with its length.
fn after_first(version: DapVersion, answer: &[u8]) -> &[u8] {
    let list = match version {
        DapVersion::V09 => &answer[4..],
        DapVersion::V18 => answer,
    };
    let (head, rest) = list.split_at(16 + 1 + 4);
    assert_eq!(head[16], 0, "the first report is accepted");
    &rest[u32::from_be_bytes(head[17..].try_into().expect("four bytes")) as usize..]
}

/// Sends `bad` between two good reports. Asserts the answer for it on the wire, that the good ones were accepted, that
/// a repeat is answered alike, and that nothing else was counted.
#[track_caller]
pub fn refuses_only(world: &World, error: ReportError, bad: Forged) {
    let good = [11, 31].map(|n| forge(world, n, world.time(0), |_| ()));
    let ids = [good[0].id, bad.id, good[1].id];
    let [first, last] = good;
    let body = job_body(world, TIMED, &[first, bad, last]);
    let job = world.job_id(&body);
    let answer = world.put_body(&job, &body);
    let bytes = world.job_resp(&answer);
    let expected: Vec<_> = ids
        .iter()
        .zip([None, Some(error), None])
        .map(|(id, error)| (ReportId::new(*id), error))
        .collect();
    assert_eq!(world.verdicts(bytes), expected);
    let second = after_first(world.spec.version, bytes);
    let refusal = [2, code(world.spec.version, error)];
    assert_eq!((&second[..16], &second[16..18]), (&ids[1][..], &refusal[..]));
    assert_eq!(world.put_body(&job, &body).body, answer.body, "a repeat");
    assert_counts(world, &[ids[0], ids[2]]);
}

/// Collects bucket 0 and asserts that exactly these reports are in it.
#[track_caller]
pub fn assert_counts(world: &World, ids: &[[u8; 16]]) {
    assert_counts_in(world, world.interval(0, 1), ids);
}

/// Collects a batch and asserts that exactly these reports are in it.
#[track_caller]
pub fn assert_counts_in(world: &World, batch: BatchSelector, ids: &[[u8; 16]]) {
    let mut checksum = Checksum::default();
    ids.iter().for_each(|id| checksum.add(&ReportId::new(*id)));
    let request = world.share_request_of(batch, ids.len() as u64, checksum);
    world.share(&world.post_share(&request));
}
