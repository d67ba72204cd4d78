//! Reports that no honest client or leader would make, each a part of a job.

use daphne_core::{
    batch::Checksum,
    codec::Writer,
    error::ReportError,
    hpke::{self, HpkeConfig, Role, SealedMessage},
    ids::{AggregationJobId, ReportId, TaskId},
    message::{BatchSelector, HpkeCiphertext, PartialBatchSelector},
    time::Time,
    vdaf::{Measurement, ShardedReport},
    version::DapVersion,
    wire::v09,
};

use crate::{
    server::random,
    world::{World, share_request, verdicts},
};

/// The batch of jobs by time.
pub const TIMED: PartialBatchSelector = PartialBatchSelector::TimeInterval;

/// A report on its way from client to leader: honest until something is changed.
pub struct Draft {
    /// Its id.
    pub id: [u8; 16],
    /// Its time.
    pub time: u64,
    /// The task its share is sealed for.
    pub task_id: TaskId,
    /// The public share.
    pub public_share: Vec<u8>,
    /// The encoded extensions, without their length.
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
    /// Its time.
    pub time: u64,
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
    let context = DapVersion::V09.vdaf_context(&world.task_id);
    let measurement = Measurement::Sum(number);
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
    let context = DapVersion::V09.vdaf_context(&world.task_id);
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
        time: time.as_seconds(),
        task_id: world.task_id,
        public_share: shares.public_share,
        extensions: Vec::new(),
        input_share: shares.helper_input_share,
        trailing: Vec::new(),
        info: hpke::input_share_info(DapVersion::V09, Role::Helper),
        config: world.reporter.helper_hpke_config.clone(),
        payload,
    };
    change(&mut draft);
    draft.seal()
}

impl Draft {
    fn seal(self) -> Forged {
        let mut plaintext = Writer::new();
        plaintext.opaque16(&self.extensions).opaque32(&self.input_share).raw(&self.trailing);
        let metadata =
            v09::ReportMetadata::bytes(ReportId::new(self.id), Time::from_seconds(self.time));
        let aad = input_share_aad(&self.task_id, &[], &metadata, &self.public_share)
            .expect("a short share");
        let plaintext = plaintext.finish().expect("a short plaintext");
        let sealed =
            hpke::seal(&self.config, &self.info, &aad, &plaintext, &random()).expect("a key");
        Forged {
            id: self.id,
            time: self.time,
            public_share: self.public_share,
            sealed,
            payload: self.payload,
        }
    }
}

/// The body of a job.
pub fn job_body(batch: PartialBatchSelector, reports: &[Forged]) -> Vec<u8> {
    let metadata: Vec<_> = reports
        .iter()
        .map(|r| v09::ReportMetadata::bytes(ReportId::new(r.id), Time::from_seconds(r.time)))
        .collect();
    v09::AggregationJobInitReq {
        agg_param: &[],
        part_batch_selector: batch.into(),
        prepare_inits: reports
            .iter()
            .zip(&metadata)
            .map(|(r, metadata)| v09::PrepareInit {
                report_share: v09::ReportShare {
                    report_metadata: v09::ReportMetadata::decode(metadata).expect("metadata"),
                    public_share: &r.public_share,
                    encrypted_input_share: HpkeCiphertext { ..r.sealed.as_ref() },
                },
                payload: &r.payload,
            })
            .collect(),
    }
    .encode()
    .expect("a job")
}

/// Codes of `PrepareError` as the draft numbers them, DAP-09 §4.5.1.2.
const fn code(error: ReportError) -> u8 {
    match error {
        ReportError::BatchCollected => 0,
        ReportError::ReportReplayed => 1,
        ReportError::ReportDropped => 2,
        ReportError::HpkeUnknownConfigId => 3,
        ReportError::HpkeDecryptError => 4,
        ReportError::VdafVerifyError => 5,
        ReportError::BatchSaturated => 6,
        ReportError::TaskExpired => 7,
        ReportError::InvalidMessage => 8,
        ReportError::ReportTooEarly => 9,
        ReportError::TaskNotStarted | ReportError::OutdatedConfig => 255,
    }
}

/// Sends `bad` between two good reports. Asserts the answer for it on the wire, that the good ones were accepted, that
/// a repeat is answered alike, and that nothing else was counted.
#[track_caller]
pub fn refuses_only(world: &World, error: ReportError, bad: Forged) {
    let good = [11, 31].map(|n| forge(world, n, world.time(0), |_| ()));
    let ids = [good[0].id, bad.id, good[1].id];
    let [first, last] = good;
    let body = job_body(TIMED, &[first, bad, last]);
    let job = AggregationJobId::new(random());
    let answer = world.put_body(&job, &body);
    let bytes = answer.ok("application/dap-aggregation-job-resp");
    let expected: Vec<_> = ids
        .iter()
        .zip([None, Some(error), None])
        .map(|(id, error)| (ReportId::new(*id), error))
        .collect();
    assert_eq!(verdicts(bytes), expected);
    // List length, then id, state, and a message of 21 bytes with its length; the refusal follows.
    let second = &bytes[4 + 16 + 1 + 4 + 21..];
    assert_eq!((&second[..16], &second[16..18]), (&ids[1][..], &[2, code(error)][..]));
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
    let request = share_request(batch, ids.len() as u64, checksum);
    world.post_share(&request).ok("application/dap-aggregate-share");
}
