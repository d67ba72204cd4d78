//! A Worker: what it does with a request is what the real one does with it, without HTTP.

use std::rc::Rc;

use daphne_core::{
    aggregate::{
        commit::{self, JobIdentity},
        helper::HelperJob,
    },
    collect::helper::collect_request,
    error::{Abort, AbortKind, Error, Internal},
    ids::AggregationJobId,
    store::{
        Objects as _,
        message::{LedgerRequest, LedgerResponse},
    },
};
use sha2::{Digest, Sha256};

use crate::{
    coverage::Event,
    network::{HttpAnswer, HttpRequest},
    oracle,
    reports::{Remembering, fixture},
    world::World,
};

/// Serves a request.
pub async fn serve(world: &Rc<World>, request: HttpRequest) -> HttpAnswer {
    let before = oracle::before(world, &request);
    let result = match &request {
        HttpRequest::PutJob(job, body) => put_job(world, *job, body).await,
        HttpRequest::DeleteJob(job) => delete_job(world, *job).await,
        HttpRequest::PostShare(body) => post_share(world, body).await,
        HttpRequest::GetShare(body) => get_share(world, body).await,
    };
    let answer = match result {
        Ok(body) => HttpAnswer::Ok(body.into()),
        Err(Error::Abort(abort)) => HttpAnswer::Refused(abort.kind),
        Err(Error::Internal(Internal::Unavailable(_) | Internal::Overloaded(_))) => {
            HttpAnswer::Unavailable
        }
        Err(Error::Internal(Internal::Broken(why))) => HttpAnswer::Broken(why),
    };
    oracle::after(world, &request, &answer, before);
    answer
}

async fn put_job(world: &World, job: AggregationJobId, body: &[u8]) -> Result<Vec<u8>, Error> {
    let version = world.scenario.version;
    let init = world.task.parameters.wire().aggregation_job_init(body)?;
    // Where the leader does not name jobs, their content does.
    let job = match version.leader_names_jobs() {
        true => job,
        false => commit::job_of_content(world.task.id(), body),
    };
    let fixture = fixture(version);
    let rotated = world.rotated.get();
    let stale = rotated && !world.quiet.get() && world.choices.borrow_mut().one_in(3);
    let mut keyring = fixture.keyring(rotated && !stale);
    if keyring.lacks_key_for(&init) {
        keyring = fixture.keyring(rotated);
    }
    if stale {
        world.count(Event::StaleKeys);
    }
    let helper_job = HelperJob::new(&world.task, &keyring, world.worker_clock(), &init)?
        .verified_by(&Remembering);
    let identity =
        JobIdentity { job, digest: Sha256::digest(body).into(), shard_key: fixture.shard_key };
    let answers = commit::run(&world.network, &identity, &helper_job).await?;
    let wire = world.task.parameters.wire();
    wire.encode_aggregation_job_resp(&answers).map_err(|e| Internal::Broken(e.to_string()).into())
}

async fn delete_job(world: &World, job: AggregationJobId) -> Result<Vec<u8>, Error> {
    match ask_ledger(
        world,
        LedgerRequest::Release { placement: world.task.parameters.placement(), job },
    )
    .await?
    {
        LedgerResponse::Done => Ok(Vec::new()),
        _ => Err(Internal::Broken("a release was answered out of turn".to_owned()).into()),
    }
}

async fn post_share(world: &World, body: &[u8]) -> Result<Vec<u8>, Error> {
    let decoded = world.task.parameters.wire().aggregate_share_request(body)?;
    let collect = collect_request(&world.task, &decoded, Sha256::digest(body).into())?;
    match ask_ledger(world, LedgerRequest::Collect(Box::new(collect))).await? {
        LedgerResponse::Share(share) => Ok(share),
        LedgerResponse::Refused(abort) => Err(abort.into()),
        LedgerResponse::Busy => {
            Err(Internal::Unavailable("another collection is under way".to_owned()).into())
        }
        _ => Err(Internal::Broken("a collection was answered out of turn".to_owned()).into()),
    }
}

/// The share that was created with this request.
async fn get_share(world: &World, body: &[u8]) -> Result<Vec<u8>, Error> {
    match ask_ledger(world, LedgerRequest::Answer(Sha256::digest(body).into())).await? {
        LedgerResponse::Share(share) => Ok(share),
        LedgerResponse::Unknown => Err(Abort::new(AbortKind::NotFound, "no such share").into()),
        _ => Err(Internal::Broken("a share was answered out of turn".to_owned()).into()),
    }
}

async fn ask_ledger(world: &World, request: LedgerRequest) -> Result<LedgerResponse, Error> {
    world.network.ledger(world.task.id(), request).await.map_err(|e| Internal::from(e).into())
}
