//! The client: makes reports.

use crate::{
    codec::EncodeError,
    hpke::{self, HpkeConfig, Role},
    ids::{ReportId, TaskId},
    message::{PlaintextInputShare, Report, ReportMetadata},
    time::{Duration, Time},
    vdaf::{Measurement, MeasurementError, Vdaf},
    version::DapVersion,
    wire::v09,
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

impl ClientTask {
    /// Makes the DAP-09 encoding of a report. DAP-09 §4.4.2.
    ///
    /// # Errors
    /// [`ReportMakingError`].
    pub fn report_v09(
        &self,
        measurement: &Measurement,
        time: Time,
        random: &ReportRandomness,
    ) -> Result<Vec<u8>, ReportMakingError> {
        self.report_with_extensions_v09(measurement, time, &[], random)
    }

    /// As [`ClientTask::report_v09`], with report extensions in both input shares.
    ///
    /// # Errors
    /// [`ReportMakingError`].
    pub fn report_with_extensions_v09(
        &self,
        measurement: &Measurement,
        time: Time,
        extensions: &[(u16, &[u8])],
        random: &ReportRandomness,
    ) -> Result<Vec<u8>, ReportMakingError> {
        let version = DapVersion::V09;
        let report_id = ReportId::new(random.report_id);
        let time = time.round_down(self.time_precision);
        let context = version.vdaf_context(&self.task_id);
        let shares = self.vdaf.shard(&context, measurement, &random.report_id)?;
        let encoded = v09::ReportMetadata::bytes(report_id, time);
        let aad = v09::input_share_aad(&self.task_id, &encoded, &shares.public_share)?;
        let seal = |config: &HpkeConfig, role, share: &[u8], seed| {
            let plaintext = v09::PlaintextInputShare::from(PlaintextInputShare {
                extensions: extensions.to_vec(),
                payload: share,
            })
            .encode()?;
            let info = hpke::input_share_info(version, role);
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
        Ok(v09::Report::from(Report {
            metadata: ReportMetadata { report_id, time, encoded: &encoded },
            public_share: &shares.public_share,
            leader_encrypted_input_share: leader.as_ref(),
            helper_encrypted_input_share: helper.as_ref(),
        })
        .encode()?)
    }
}
