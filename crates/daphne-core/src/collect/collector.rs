//! The collector: opens both aggregate shares and adds them up. DAP-09 §4.6.3, §4.6.4.

use crate::{
    hpke::{self, HpkeKeypair, Role},
    ids::TaskId,
    message::HpkeCiphertext,
    vdaf::{AggregateResult, AggregationParam, UnshardError, Vdaf},
    version::DapVersion,
    wire::v09,
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

/// Opens one aggregator's share of a DAP-09 batch. `batch_selector_encoded` is the encoding of the batch selector,
/// which the associated data holds.
///
/// # Errors
/// [`CollectorError::Open`].
pub fn open_share_v09(
    task_id: &TaskId,
    collector: &HpkeKeypair,
    sender: Role,
    agg_param: &[u8],
    batch_selector_encoded: &[u8],
    share: HpkeCiphertext<'_>,
) -> Result<Vec<u8>, CollectorError> {
    let name = match sender {
        Role::Leader => "leader's",
        Role::Helper | Role::Client | Role::Collector => "helper's",
    };
    let info = hpke::aggregate_share_info(DapVersion::V09, sender);
    let aad = v09::aggregate_share_aad(task_id, agg_param, batch_selector_encoded)
        .map_err(|_| CollectorError::Open(name))?;
    hpke::open(collector, &info, &aad, share).map_err(|_| CollectorError::Open(name))
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
