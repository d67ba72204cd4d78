//! The collector: opens both aggregate shares and adds them up. DAP-09 §4.6.3, §4.6.4, DAP-18 §4.6.6, §4.6.7.

use crate::{
    hpke::{self, HpkeKeypair, Role},
    ids::TaskId,
    message::HpkeCiphertext,
    vdaf::{AggregateResult, AggregationParam, UnshardError, Vdaf},
    version::DapVersion,
    wire::aggregate_share_aad,
};

/// An aggregate cannot be recovered. The fault of the aggregator named.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CollectorError {
    /// A share does not open: it was sealed to another key, or for another task or batch.
    #[error("the {0} aggregate share does not open")]
    Open(&'static str),
    /// The shares do not add up to an aggregate.
    #[error(transparent)]
    Unshard(#[from] UnshardError),
}

/// What a collector knows of its task.
#[derive(Clone, Copy, Debug)]
pub struct CollectorTask<'a> {
    /// The task's id.
    pub task_id: &'a TaskId,
    /// Protocol version.
    pub version: DapVersion,
    /// Its configuration, word for word; empty for DAP-09.
    pub task_configuration: &'a [u8],
}

impl CollectorTask<'_> {
    /// Opens one aggregator's share of a batch. `binding` is what it is bound to beside the task
    /// ([`crate::wire::Wire::share_binding`]). DAP-09 §4.6.4, DAP-18 §4.6.7.
    ///
    /// # Errors
    /// [`CollectorError::Open`].
    pub fn open_share(
        &self,
        collector: &HpkeKeypair,
        sender: Role,
        binding: &[u8],
        share: HpkeCiphertext<'_>,
    ) -> Result<Vec<u8>, CollectorError> {
        let name = match sender {
            Role::Leader => "leader's",
            Role::Helper | Role::Client | Role::Collector => "helper's",
        };
        let info = hpke::aggregate_share_info(self.version, sender);
        let aad = aggregate_share_aad(self.task_id, self.task_configuration, binding);
        hpke::open(collector, &info, &aad, share).map_err(|_| CollectorError::Open(name))
    }
}

/// Adds both shares up.
///
/// # Errors
/// [`CollectorError::Unshard`].
pub fn unshard(
    vdaf: &Vdaf,
    agg_param: &AggregationParam,
    leader_share: &[u8],
    helper_share: &[u8],
    report_count: u64,
) -> Result<AggregateResult, CollectorError> {
    Ok(vdaf.unshard(agg_param, leader_share, helper_share, report_count)?)
}
