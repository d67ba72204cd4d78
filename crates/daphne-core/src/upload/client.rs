//! The client: makes reports.

use crate::{
    codec::EncodeError,
    hpke::{self, HpkeConfig, Role},
    ids::{ReportId, TaskId},
    message::{PlaintextInputShare, Report},
    time::{Duration, Time},
    vdaf::{Measurement, MeasurementError, Vdaf},
    version::DapVersion,
    wire::{Wire, input_share_aad},
};

/// What a client knows of its task.
#[derive(Clone, Debug)]
pub struct ClientTask {
    /// The task's id.
    pub task_id: TaskId,
    /// The VDAF.
    pub vdaf: Vdaf,
    /// Times are rounded down to multiples of this.
    pub time_precision: Duration,
    /// Protocol version.
    pub version: DapVersion,
    /// Its configuration, word for word; empty for DAP-09.
    pub task_configuration: Vec<u8>,
    /// The leader's HPKE configuration.
    pub leader_hpke_config: HpkeConfig,
    /// The helper's HPKE configuration.
    pub helper_hpke_config: HpkeConfig,
}

/// A report cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReportMakingError {
    /// The measurement is not one of the VDAF's.
    #[error(transparent)]
    Measurement(#[from] MeasurementError),
    /// An HPKE configuration is not usable.
    #[error(transparent)]
    Seal(#[from] hpke::SealError),
    /// A share is too long for its message.
    #[error(transparent)]
    Encode(#[from] EncodeError),
}

/// Fresh randomness for one report: its id, and a seed for each encryption.
#[derive(Clone, Copy)]
pub struct ReportRandomness {
    /// The report's id.
    pub report_id: [u8; 16],
    /// For the leader's share.
    pub leader_seed: [u8; 32],
    /// For the helper's share.
    pub helper_seed: [u8; 32],
}

/// Extensions of a report: type and data, in the order in which they are sent.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReportExtensions<'a> {
    /// For everyone to see. DAP-18 only.
    pub public: &'a [(u16, &'a [u8])],
    /// In both input shares.
    pub private: &'a [(u16, &'a [u8])],
}

impl ClientTask {
    /// Makes a report, encoded. DAP-09 §4.4.2, DAP-18 §4.4.2.1.
    ///
    /// # Errors
    /// [`ReportMakingError`].
    pub fn report(
        &self,
        measurement: &Measurement,
        time: Time,
        random: &ReportRandomness,
    ) -> Result<Vec<u8>, ReportMakingError> {
        self.report_with_extensions(measurement, time, ReportExtensions::default(), random)
    }

    /// As [`ClientTask::report`], with report extensions.
    ///
    /// # Errors
    /// [`ReportMakingError`].
    pub fn report_with_extensions(
        &self,
        measurement: &Measurement,
        time: Time,
        extensions: ReportExtensions<'_>,
        random: &ReportRandomness,
    ) -> Result<Vec<u8>, ReportMakingError> {
        let wire = Wire::new(self.version, self.time_precision);
        let report_id = ReportId::new(random.report_id);
        let context = self.version.vdaf_context(&self.task_id);
        let shares = self.vdaf.shard(&context, measurement, &random.report_id)?;
        let encoded = wire.report_metadata(report_id, time, extensions.public)?;
        let configuration = &self.task_configuration;
        let aad = input_share_aad(&self.task_id, configuration, &encoded, &shares.public_share)?;
        let seal = |config: &HpkeConfig, role, share: &[u8], seed| {
            let plaintext = wire.encode_plaintext_input_share(PlaintextInputShare {
                extensions: extensions.private.to_vec(),
                payload: share,
            })?;
            let info = hpke::input_share_info(self.version, role);
            Ok::<_, ReportMakingError>(hpke::seal(config, &info, &aad, &plaintext, seed)?)
        };
        let leader = seal(
            &self.leader_hpke_config,
            Role::Leader,
            &shares.leader_input_share,
            &random.leader_seed,
        )?;
        let helper = seal(
            &self.helper_hpke_config,
            Role::Helper,
            &shares.helper_input_share,
            &random.helper_seed,
        )?;
        Ok(wire.encode_report(Report {
            metadata: wire.decode_report_metadata(&encoded).map_err(|_| EncodeError)?,
            public_share: &shares.public_share,
            leader_encrypted_input_share: leader.as_ref(),
            helper_encrypted_input_share: helper.as_ref(),
        })?)
    }
}
