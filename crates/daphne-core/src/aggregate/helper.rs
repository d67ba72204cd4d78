//! The helper's part of a job that is a function of the request's bytes, the task, the keys and the clock.
//!
//! [`HelperJob::examine`] looks at each report on its own, so that whatever one client did ends in the rejection of
//! one report. What remains, replays and collected batches, only the stores can decide: [`super::commit`].

use std::fmt;

use super::opening::Opening;
use crate::{
    batch::{BatchBucket, BatchMode},
    codec::DecodeError,
    error::{Abort, AbortKind, ReportError},
    hpke::{self, HpkeConfig, HpkeKeypair, KeyAgreement, Opener, Role},
    ids::{HpkeConfigId, ReportId},
    message::{
        AggregationJobInit, PartialBatchSelector, PlaintextInputShare, ReportShare, VerifyInit,
    },
    metrics::Failure,
    task::Task,
    time::{Duration, Time},
    vdaf::{AggregationParam, HelperState, HelperTransition, OutputShare, VerifyError},
    wire,
};

/// A report this much beyond the clock tolerance, or past its expiry, is refused without asking its owner: it must
/// not create an object. No request lives this long, so a repeat cannot be answered differently.
const UNASKED_AFTER: Duration = Duration::from_seconds(86_400);

/// Most reports in a job: their ids, verdicts and slices share one row, of at most 2 MB.
pub const REPORTS_MAX: usize = 10_000;

/// Most [`Vdaf::work`](crate::vdaf::Vdaf::work) in a job: some fifteen seconds.
pub const WORK_MAX: u64 = 1 << 23;
/// Most [`Vdaf::effort`](crate::vdaf::Vdaf::effort) in a job that is answered at once: some minute. A Worker that needs
/// longer is cut off, and what it computed is lost.
pub const EFFORT_MAX: u64 = 1 << 25;
/// Bytes that a job's reports wait with. Messages hold several copies of them for a moment.
pub const STATES_BYTES_MAX: usize = 8 << 20;

/// Our HPKE keys.
#[derive(Clone, Debug, Default)]
pub struct HpkeKeyring {
    keys: Vec<RingKey>,
}

/// A key on the ring. All of them open reports.
#[derive(Clone, Debug)]
pub struct RingKey {
    /// The key pair.
    pub keypair: HpkeKeypair,
    /// Whether clients are told of it.
    pub is_published: bool,
    /// Reports that were made later are refused.
    pub accepts_until: Option<Time>,
}

impl HpkeKeyring {
    /// A ring of keys with distinct ids, all published, in this order.
    pub fn new(keys: Vec<HpkeKeypair>) -> Self {
        let keys = keys.into_iter().map(|keypair| RingKey {
            keypair,
            is_published: true,
            accepts_until: None,
        });
        Self::of(keys.collect())
    }

    /// A ring of keys with distinct ids, the published ones in the order in which they are published.
    pub fn of(keys: Vec<RingKey>) -> Self {
        Self { keys }
    }

    /// The published configurations, in order.
    pub fn published(&self) -> impl Iterator<Item = &HpkeConfig> {
        self.keys.iter().filter(|key| key.is_published).map(|key| key.keypair.config())
    }

    /// The key with that id.
    pub fn get(&self, id: HpkeConfigId) -> Option<&HpkeKeypair> {
        self.ring_key(id).map(|key| &key.keypair)
    }

    fn ring_key(&self, id: HpkeConfigId) -> Option<&RingKey> {
        self.keys.iter().find(|key| key.keypair.config().id == id)
    }

    /// Whether a job needs a key that is not here.
    pub fn lacks_key_for(&self, init: &AggregationJobInit<'_>) -> bool {
        init.verify_inits
            .iter()
            .any(|v| self.get(v.report_share.encrypted_input_share.config_id).is_none())
    }
}

/// A job as the helper sees it, past the checks that concern the whole request.
#[derive(Debug)]
pub struct HelperJob<'a> {
    task: &'a Task,
    keys: &'a HpkeKeyring,
    now: Time,
    init: &'a AggregationJobInit<'a>,
    agg_param: AggregationParam,
    opening: Opening<'a>,
    agreement: Option<&'a dyn KeyAgreement>,
    verifier: Option<&'a dyn Verifier>,
}

/// What a report's bytes alone decide. `Err` comes before anything the clock says about the report, the inner `Err`
/// after it; else how far its verification comes, with the helper's ping-pong message.
pub type BytesVerdict = Result<Result<HelperTransition, Failure>, Failure>;

/// The costly part of examining a report: a pure function of the task, the keys and the report's bytes. Who sees the
/// same reports over and over, as a simulation does, may remember what [`OpenAndVerify`] says.
pub trait Verifier: fmt::Debug {
    /// Opens and verifies one report.
    fn verify(
        &self,
        task: &Task,
        keys: &HpkeKeyring,
        agg_param: &AggregationParam,
        report: &VerifyInit<'_>,
    ) -> BytesVerdict;
}

/// Does the work each time, for one report by itself.
#[derive(Clone, Copy, Debug)]
pub struct OpenAndVerify;

impl Verifier for OpenAndVerify {
    fn verify(
        &self,
        task: &Task,
        keys: &HpkeKeyring,
        agg_param: &AggregationParam,
        report: &VerifyInit<'_>,
    ) -> BytesVerdict {
        let info = hpke::input_share_info(task.parameters.version, Role::Helper);
        let opener = keys
            .get(report.report_share.encrypted_input_share.config_id)
            .map(|keypair| Opener::new(keypair, &info));
        open_and_verify(task, (opener.as_ref(), None), agg_param, report)
    }
}

/// Opens and verifies one report, with the Diffie-Hellman result if it is there.
fn open_and_verify(
    task: &Task,
    (opener, shared): (Option<&Opener<'_>>, Option<&[u8; 32]>),
    agg_param: &AggregationParam,
    report: &VerifyInit<'_>,
) -> BytesVerdict {
    let share = &report.report_share;
    let metadata = &share.metadata;
    let ciphertext = share.encrypted_input_share;
    let opener = opener.ok_or(Failure::UnknownKey(Some(ciphertext.config_id.0)))?;
    let configuration = &task.parameters.task_configuration;
    let aad = wire::input_share_aad(task.id(), configuration, metadata.encoded, share.public_share)
        .map_err(|_| Failure::AadEncoding)?;
    let plaintext = match shared {
        Some(shared) => opener.open_with(shared, &aad, ciphertext),
        None => opener.open(&aad, ciphertext),
    };
    let plaintext = plaintext.map_err(|_| Failure::Decryption)?;
    let input_share = task
        .parameters
        .wire()
        .plaintext_input_share(&plaintext)
        .map_err(|_: DecodeError| Failure::Plaintext)?;
    let verified = task.vdaf.helper_init(
        &task.verify_key,
        &task.parameters.version.vdaf_context(task.id()),
        agg_param,
        metadata.report_id.as_bytes(),
        share.public_share,
        input_share.payload,
        report.payload,
    );
    let verified = match verified {
        Err(e) if e.is_undecodable_share() => return Err(e.into()),
        Err(e) => Err(e.into()),
        Ok(transition) => Ok(transition),
    };
    Ok(check_extensions(metadata.public_extensions, &input_share, task).and(verified))
}

/// What is known of one report before its owner is asked.
#[derive(Clone, Debug)]
pub enum Examined {
    /// Refused, whatever its owner knows: a function of the bytes, or of a time far off.
    Rejected(Failure),
    /// Its owner decides.
    Owned(OwnedReport),
}

/// A report that opens and decodes.
#[derive(Clone, Debug)]
pub struct OwnedReport {
    /// Its id.
    pub report_id: ReportId,
    /// Its time.
    pub time: Time,
    /// Where it belongs.
    pub bucket: BatchBucket,
    /// The clock, or the end of its key, says that it should be refused. The owner records it, so that a repeat on the
    /// other side of the boundary is answered alike.
    pub proposal: Option<ReportError>,
    /// The helper's ping-pong message, if it has any left to send; or why the report's bytes refuse it.
    pub verified: Result<Option<Vec<u8>>, Failure>,
}

/// What a report's verification left the helper with. Secret.
#[derive(Clone, Debug)]
pub enum Verified {
    /// Its output share.
    Output(OutputShare),
    /// What to go on with when the leader's next message comes.
    Waits(HelperState),
}

impl OwnedReport {
    /// Whether it is to be added, unless its owner knows better.
    pub fn is_acceptable(&self) -> bool {
        self.proposal.is_none() && self.verified.is_ok()
    }
}

impl<'a> HelperJob<'a> {
    /// Checks the request as a whole. DAP-09 §4.5.1.2, DAP-18 §4.5.3.2.
    ///
    /// # Errors
    /// The leader's fault: a parameter that the VDAF does not have, another batch mode than the task's, or a report
    /// id that appears twice; or more reports, or more work, than one request may have.
    pub fn new(
        task: &'a Task,
        keys: &'a HpkeKeyring,
        now: Time,
        init: &'a AggregationJobInit<'a>,
    ) -> Result<Self, Abort> {
        Self::checked(task, keys, now, init, check_size)
    }

    /// As [`Self::new`], however large the job is: [`deferred::create`](super::deferred::create) looks at that.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn of_any_size(
        task: &'a Task,
        keys: &'a HpkeKeyring,
        now: Time,
        init: &'a AggregationJobInit<'a>,
    ) -> Result<Self, Abort> {
        Self::checked(task, keys, now, init, |_, _, _| Ok(()))
    }

    fn checked(
        task: &'a Task,
        keys: &'a HpkeKeyring,
        now: Time,
        init: &'a AggregationJobInit<'a>,
        check_size: impl FnOnce(&Task, &AggregationParam, usize) -> Result<(), Abort>,
    ) -> Result<Self, Abort> {
        let agg_param = agg_param(task, init.agg_param)?;
        match (init.batch, task.parameters.batch_mode) {
            (PartialBatchSelector::TimeInterval, BatchMode::TimeInterval)
            | (PartialBatchSelector::LeaderSelected(_), BatchMode::LeaderSelected) => {}
            _ => return Err(Abort::invalid_message("the batch mode is not the task's")),
        }
        check_size(task, &agg_param, init.verify_inits.len())?;
        let mut ids: Vec<_> =
            init.verify_inits.iter().map(|v| v.report_share.metadata.report_id).collect();
        ids.sort_unstable();
        if ids.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(Abort::invalid_message("a report id appears twice"));
        }
        let opening = Opening::new(task.parameters.version, keys, init);
        Ok(Self { task, keys, now, init, agg_param, opening, agreement: None, verifier: None })
    }

    /// As it is, with another way to verify.
    #[must_use]
    pub fn verified_by(self, verifier: &'a dyn Verifier) -> Self {
        Self { verifier: Some(verifier), ..self }
    }

    /// As it is, with somebody who computes Diffie-Hellman for all reports at once.
    #[must_use]
    pub fn agreed_by(self, agreement: &'a dyn KeyAgreement) -> Self {
        Self { agreement: Some(agreement), ..self }
    }

    /// Has done beforehand, at once for all reports, what somebody else can do better. Without this, [`Self::examine`] does
    /// all of it.
    pub(super) async fn prepare(&self) {
        if let (Some(agreement), None) = (self.agreement, self.verifier) {
            self.opening.agree(agreement).await;
        }
    }

    /// The task.
    pub fn task(&self) -> &'a Task {
        self.task
    }

    /// What its reports are aggregated for.
    pub fn agg_param(&self) -> &AggregationParam {
        &self.agg_param
    }

    /// The request.
    pub fn init(&self) -> &'a AggregationJobInit<'a> {
        self.init
    }

    /// Examines the n-th report, in a fixed order: decryption, decoding, time, extensions, proof. DAP-09 §4.5.1.4,
    /// DAP-18 §4.5.3.4. What its verification left comes also with reports that the clock refuses: a repeat may find that
    /// they were accepted. The same each time.
    pub fn examine(&self, n: usize) -> (Examined, Option<Verified>) {
        match self.examine_or_reject(n) {
            Ok((owned, verified)) => (Examined::Owned(owned), verified),
            Err(error) => (Examined::Rejected(error), None),
        }
    }

    fn examine_or_reject(&self, n: usize) -> Result<(OwnedReport, Option<Verified>), Failure> {
        // The job has no more reports than its callers count.
        let report = self.init.verify_inits.get(n).ok_or(Failure::Plaintext)?;
        let metadata = &report.report_share.metadata;
        let verified = match self.verifier {
            Some(verifier) => verifier.verify(self.task, self.keys, &self.agg_param, report),
            None => {
                let opener =
                    self.opening.opener(report.report_share.encrypted_input_share.config_id);
                let prepared = (opener, self.opening.shared(n));
                open_and_verify(self.task, prepared, &self.agg_param, report)
            }
        }?;
        let proposal =
            self.time_proposal(metadata.time).or_else(|| self.key_proposal(&report.report_share));
        let (verified, left) = match verified {
            Ok(HelperTransition::Finished { output, message }) => {
                (Ok(Some(message)), Some(Verified::Output(output)))
            }
            Ok(HelperTransition::Continued { state, message }) => {
                (Ok(Some(message)), Some(Verified::Waits(state)))
            }
            Err(error) => (Err(error), None),
        };
        let bucket = self.bucket(metadata.time);
        let report_id = metadata.report_id;
        Ok((OwnedReport { report_id, time: metadata.time, bucket, proposal, verified }, left))
    }

    /// The batch bucket of a report made at `time`.
    pub fn bucket(&self, time: Time) -> BatchBucket {
        bucket(self.task, self.init.batch, time)
    }

    /// What the clock says.
    fn time_proposal(&self, time: Time) -> Option<ReportError> {
        let parameters = &self.task.parameters;
        if time > self.now.saturating_add(parameters.tolerable_clock_skew) {
            Some(ReportError::ReportTooEarly)
        } else if parameters.task_start.is_some_and(|start| time < start) {
            Some(ReportError::TaskNotStarted)
        } else if time < self.now.saturating_sub(parameters.report_expiry_age) {
            Some(ReportError::ReportDropped)
        } else if parameters.task_expiration.is_some_and(|end| time > end) {
            Some(ReportError::TaskExpired)
        } else {
            None
        }
    }

    /// What the key's end says. A report that was made before it is welcome for as long as it is not too old, with each
    /// aggregation parameter; and when all of them are, nothing needs the key any more.
    fn key_proposal(&self, share: &ReportShare<'_>) -> Option<ReportError> {
        let key = self.keys.ring_key(share.encrypted_input_share.config_id)?;
        let refuses = key.accepts_until.is_some_and(|until| share.metadata.time > until);
        refuses.then_some(ReportError::HpkeUnknownConfigId)
    }

    /// The reports so far from now that their owners should not be asked: a client that chooses its report's time must
    /// not bring objects into being.
    pub fn far_off(&self) -> Vec<(ReportId, ReportError)> {
        let parameters = &self.task.parameters;
        let latest = self.now.saturating_add(parameters.tolerable_clock_skew);
        let oldest = self.now.saturating_sub(parameters.report_expiry_age);
        let metadata = self.init.verify_inits.iter().map(|v| &v.report_share.metadata);
        metadata
            .filter_map(|m| {
                if m.time > latest.saturating_add(UNASKED_AFTER) {
                    Some((m.report_id, ReportError::ReportTooEarly))
                } else if m.time < oldest.saturating_sub(UNASKED_AFTER) {
                    Some((m.report_id, ReportError::ReportDropped))
                } else {
                    None
                }
            })
            .collect()
    }
}

/// The batch bucket of a report made at `time`, in a job for `batch`.
pub(super) fn bucket(task: &Task, batch: PartialBatchSelector, time: Time) -> BatchBucket {
    match batch {
        PartialBatchSelector::TimeInterval => {
            BatchBucket::Window(time.round_down(task.parameters.time_precision))
        }
        PartialBatchSelector::LeaderSelected(batch) => BatchBucket::Batch(batch),
    }
}

/// Bounds a job's number of reports, and what task and aggregation parameter make of them: the work for each report and
/// prefix, what reports wait with, and what they are answered.
fn check_size(task: &Task, agg_param: &AggregationParam, reports: usize) -> Result<(), Abort> {
    if reports > REPORTS_MAX {
        return Err(Abort::invalid_message(format!("a job may have {REPORTS_MAX} reports")));
    }
    let too_much = || {
        Abort::invalid_message(
            "that many reports are too much for an aggregation parameter of that many prefixes",
        )
    };
    let reports_u64 = u64::try_from(reports).unwrap_or(u64::MAX);
    if task.vdaf.work(agg_param).saturating_mul(reports_u64) > WORK_MAX {
        return Err(too_much());
    }
    if task.vdaf.helper_state_len(agg_param).saturating_mul(reports) > STATES_BYTES_MAX {
        return Err(too_much());
    }
    let effort = task.vdaf.effort(agg_param);
    if effort.saturating_mul(reports_u64) > EFFORT_MAX {
        let most = EFFORT_MAX / effort.max(1);
        return Err(Abort::invalid_message(format!(
            "a job of this task may have {most} reports, so long are their proofs"
        )));
    }
    Ok(())
}

/// The aggregation parameter in a request of the leader. DAP-18 §4.3.
///
/// # Errors
/// `invalidAggregationParameter`, which DAP-09 calls `invalidMessage`.
pub(crate) fn agg_param(task: &Task, bytes: &[u8]) -> Result<AggregationParam, Abort> {
    let kind = task.parameters.version.abort_kind(AbortKind::InvalidAggregationParameter);
    task.vdaf.decode_agg_param(bytes).map_err(|e| Abort::new(kind, e.to_string()))
}

/// Report extensions are exactly those of the task: none, but for the one that taskprov defines. Each other one is unknown,
/// and none may be repeated, in public and in private together. DAP-09 §4.5.1.4, taskprov-07 §4.8, DAP-18 §4.5.3.4.
fn check_extensions(
    public: &[u8],
    share: &PlaintextInputShare<'_>,
    task: &Task,
) -> Result<(), Failure> {
    let version = task.parameters.version;
    let taskprov = version.taskprov_extension();
    let expected = task.parameters.taskprov.as_ref().and(taskprov).map(|code| (code, &[][..]));
    if public.is_empty() && share.extensions == expected.as_slice() {
        return Ok(());
    }
    let public = wire::common::extensions(public).map_err(|_| Failure::PublicExtensions)?;
    let mut codes: Vec<u16> =
        public.iter().chain(&share.extensions).map(|(code, _)| *code).collect();
    codes.sort_unstable();
    if let Some(pair) = codes.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(Failure::DuplicateExtension(Some(pair[0])));
    }
    let is_sorted = |list: &[(u16, &[u8])]| list.is_sorted_by_key(|(code, _)| *code);
    if version.extensions_are_ordered() && !(is_sorted(&public) && is_sorted(&share.extensions)) {
        return Err(Failure::UnorderedExtensions);
    }
    if let Some(code) = codes.iter().find(|code| Some(**code) != taskprov) {
        return Err(Failure::UnknownExtension(Some(*code)));
    }
    // What is left is the one of taskprov, or nothing.
    Err(if expected.is_some() { Failure::MissingTaskprov } else { Failure::UnexpectedTaskprov })
}

impl From<VerifyError> for Failure {
    fn from(e: VerifyError) -> Self {
        match e {
            VerifyError::PublicShare => Self::PublicShare,
            VerifyError::InputShare => Self::InputShare,
            VerifyError::PeerShare => Self::LeaderShare,
            VerifyError::PeerMessage => Self::LeaderMessage,
            VerifyError::PeerStep => Self::StepMismatch,
            VerifyError::PeerFinish => Self::FinishMismatch,
            VerifyError::Init => Self::VerifyInit,
            VerifyError::Step => Self::VerifyStep,
            VerifyError::Refused => Self::Proof,
        }
    }
}
