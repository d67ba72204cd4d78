//! Messages between Workers and objects, any bytes of them, and what objects that hold something do with them. Nobody but
//! our own code sends them; but a deploy runs two versions of it side by side.

use daphne_core::{
    hpke::{HpkeKem, HpkeKeypair},
    ids::HpkeConfigId,
    store::{
        Objects as _, StoreError, StoreResult,
        config_store::{self, ConfigRequest, ConfigResponse, Sealer, keys::SealedKeypair},
        message::{
            AggregateStoreRequest, AggregateStoreResponse, DeferredRequest, JobStoreRequest,
            JobStoreResponse, LedgerRequest, LedgerResponse, StoreAction, decode, encode,
        },
        placement::{Group, Placement, StoreId},
    },
    testing::memory::{MemoryConfigTables, MemoryDatabase},
    time::Time,
};
use futures::executor::block_on;
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    aggregate_share::populated, bounded, choices::Choices, fixture::pool, secrets::roots,
    world::World,
};

/// Messages of a run.
const MESSAGES_MAX: usize = 16;

/// Chooses a task, and messages until nothing is left.
pub fn store_messages(data: &[u8]) {
    let mut choices = Choices::new(data);
    let pool = pool(usize::from(choices.byte()));
    let world = populated(pool, &pool.params[0]);
    let config = MemoryDatabase::<MemoryConfigTables>::default();
    for _ in 0..MESSAGES_MAX {
        if choices.is_empty() {
            break;
        }
        message(&world, &config, &mut choices);
    }
}

/// Makes the keys of the `ConfigStore`.
struct NewKeys;

impl Sealer for NewKeys {
    fn make(&self, id: HpkeConfigId, kem: HpkeKem) -> StoreResult<SealedKeypair> {
        let keypair = HpkeKeypair::derive(id, kem, &[id.0; 32])
            .map_err(|e| StoreError(format!("no key: {e}")))?;
        Ok(SealedKeypair::seal(&keypair, roots(), [3; 12]))
    }

    fn reseal(&self, label: &str, sealed: &[u8]) -> StoreResult<Option<Vec<u8>>> {
        Ok(roots().open(label, sealed).ok().map(|secret| roots().seal(label, &secret, [4; 12])))
    }

    fn opens(&self, label: &str, sealed: &[u8]) -> StoreResult<bool> {
        Ok(roots().open(label, sealed).is_ok())
    }
}

/// Reads a message; what is read is written and read again. A list may claim any length: what is set aside for it in
/// advance is at most a mebibyte.
fn read<T: Serialize + DeserializeOwned + PartialEq>(bytes: &[u8]) -> Option<T> {
    let bytes_max = (8 << 20) + 64 * bytes.len();
    let message: T = bounded(bytes_max, || decode(bytes)).ok()?;
    let again = encode(&message).expect("messages have encodings");
    assert!(decode(&again).as_ref() == Ok(&message), "a message changes on its way");
    Some(message)
}

fn message(world: &World, config: &MemoryDatabase<MemoryConfigTables>, choices: &mut Choices<'_>) {
    let kind = choices.below(10);
    // Without this nearly all messages would be for another task.
    let placement = (choices.below(8) > 0).then(|| world.pool.task.parameters.placement());
    let bytes = choices.long();
    match kind {
        0 | 1 => drop(read(bytes).map(|request| store(world, placement, request, choices))),
        2 | 3 => drop(read(bytes).map(|request| ledger(world, placement, request))),
        4 => drop(read(bytes).map(|request| job_store(world, placement, request))),
        5 => {
            let Some(request) = read::<ConfigRequest>(bytes) else { return };
            let now = Time::from_seconds(world.now());
            drop(config_store::handle(config, request, &NewKeys, now));
            drop(block_on(config_store::alarm(config, &world.cluster, now)));
        }
        6 => {
            read::<AggregateStoreResponse>(bytes);
            read::<JobStoreResponse>(bytes);
        }
        7 => {
            read::<LedgerResponse>(bytes);
            read::<ConfigResponse>(bytes);
        }
        8 => {
            let task = world.pool.task.id();
            drop(block_on(world.cluster.run_alarm(task)));
            drop(block_on(world.cluster.run_store_alarms(task)));
        }
        _ => world.set_time(choices.near(world.now())),
    }
}

fn store(
    world: &World,
    placement: Option<Placement>,
    mut request: AggregateStoreRequest,
    choices: &mut Choices<'_>,
) {
    if let Some(placement) = placement {
        request.placement = placement;
        request.field = world.pool.task.vdaf.field();
        let stores = world.cluster.stores_of(world.pool.task.id());
        request.store = match stores.get(choices.below(stores.len() + 1)) {
            Some((store, _)) => *store,
            None => StoreId { group: Group::Run(choices.number()), shard: 0 },
        };
    }
    if request.action == StoreAction::Purge && choices.below(4) > 0 {
        return;
    }
    drop(block_on(world.cluster.store(&request.store.clone(), request)));
}

fn ledger(world: &World, ours: Option<Placement>, mut request: LedgerRequest) {
    if let Some(ours) = ours {
        let our_field = world.pool.task.vdaf.field();
        match &mut request {
            LedgerRequest::Open { placement, field, .. }
            | LedgerRequest::Settle { placement, field, .. }
            | LedgerRequest::Status { placement, field, .. }
            | LedgerRequest::Purge { placement, field, .. } => {
                (*placement, *field) = (ours, our_field);
            }
            LedgerRequest::Release { placement, .. }
            | LedgerRequest::ReleasePieces { placement, .. }
            | LedgerRequest::Note { placement, .. }
            | LedgerRequest::Expired { placement, .. } => {
                *placement = ours;
            }
            LedgerRequest::Collect(collect) => {
                (collect.placement, collect.field) = (ours, our_field);
            }
            LedgerRequest::Released(_)
            | LedgerRequest::Refused(_)
            | LedgerRequest::Answer(_)
            | LedgerRequest::ForgetAnswer(_) => {}
        }
    }
    drop(block_on(world.cluster.ledger(world.pool.task.id(), request)));
}

fn job_store(world: &World, ours: Option<Placement>, mut request: JobStoreRequest) {
    if let Some(ours) = ours {
        match &mut request {
            JobStoreRequest::Claim { placement, .. }
            | JobStoreRequest::Begin { placement, .. }
            | JobStoreRequest::Deferred(DeferredRequest::Begin { placement, .. }) => {
                *placement = ours;
            }
            JobStoreRequest::BeginStep { .. }
            | JobStoreRequest::EndStep { .. }
            | JobStoreRequest::Forget(_)
            | JobStoreRequest::Knows(_)
            | JobStoreRequest::Begun { .. }
            | JobStoreRequest::Deferred(
                DeferredRequest::Poll { .. } | DeferredRequest::Continue { .. },
            )
            | JobStoreRequest::Purge => {}
        }
    }
    let placement = world.pool.task.parameters.placement();
    drop(block_on(world.cluster.job_store(&placement, 0, request)));
}
