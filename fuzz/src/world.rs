//! A helper on objects in memory: what it does with a request is what the Worker does with it, without HTTP.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, HashMap},
};

use daphne_core::{
    aggregate::{
        commit::{self, JobIdentity},
        helper::{BytesVerdict, HelperJob, HpkeKeyring, OpenAndVerify, Verifier},
        rounds::{self, Continuation},
    },
    batch::BatchBucket,
    collect::helper::collect_request,
    error::{Abort, Error, Internal},
    ids::{AggregationJobId, ReportId},
    message::{VerifyInit, VerifyResp},
    problem::problem,
    store::{
        Objects as _,
        aggregate_store::Limits,
        message::{LedgerRequest, LedgerResponse, RequestDigest},
        placement::ShardKey,
    },
    task::Task,
    testing::memory::MemoryCluster,
    time::Time,
    vdaf::{AggregationParam, share},
    version::DapVersion,
};
use futures::executor::block_on;
use sha2::{Digest as _, Sha256};

use crate::fixture::{NOW, Pool, helper_keys};

/// The helper of one task.
pub struct World {
    /// Its objects.
    pub cluster: MemoryCluster,
    /// The task.
    pub pool: &'static Pool,
    /// Whether verifying the same report again is remembered.
    pub remembers: bool,
    now: Cell<u64>,
}

/// What stores hold by bucket and aggregation parameter, as far as it is separate: number of reports, their ids, and
/// the sum of their output shares.
pub type Held = BTreeMap<(BatchBucket, Vec<u8>), (u64, Vec<ReportId>, Vec<u8>)>;

/// A job's id.
pub fn job_id(n: u8) -> AggregationJobId {
    AggregationJobId::new([n; 16])
}

fn shard_key() -> ShardKey {
    ShardKey::new([5; 16])
}

fn digest(body: &[u8]) -> RequestDigest {
    Sha256::digest(body).into()
}

impl World {
    /// Nothing was stored yet.
    pub fn new(pool: &'static Pool) -> Self {
        Self::with_limits(pool, Limits::DEFAULT)
    }

    /// Nothing was stored yet, and stores pack what they hold beyond these limits.
    pub fn with_limits(pool: &'static Pool, limits: Limits) -> Self {
        // Makes room for all verdicts: while memory is counted, none is taken for them.
        VERDICTS.with_borrow(HashMap::len);
        let cluster = MemoryCluster::with_limits(limits);
        cluster.set_time(NOW);
        Self { cluster, pool, remembers: false, now: Cell::new(NOW) }
    }

    /// Sets the clocks.
    pub fn set_time(&self, s: u64) {
        self.now.set(s);
        self.cluster.set_time(s);
    }

    /// What the clocks show.
    pub fn now(&self) -> u64 {
        self.now.get()
    }

    fn task(&self) -> &'static Task {
        &self.pool.task
    }

    /// `PUT …/aggregation_jobs/{job}`.
    pub fn put(&self, job: u8, body: &[u8]) -> Result<Vec<VerifyResp>, Error> {
        let init = self.pool.wire().aggregation_job_init(body)?;
        let now = Time::from_seconds(self.now());
        let mut helper = HelperJob::new(self.task(), helper_keys(), now, &init)?;
        if self.remembers {
            helper = helper.verified_by(&Remembering);
        }
        let identity =
            JobIdentity { job: job_id(job), digest: digest(body), shard_key: shard_key() };
        block_on(commit::run(&self.cluster, &identity, &helper))
    }

    /// `POST …/aggregation_jobs/{job}`.
    pub fn post(&self, job: u8, body: &[u8]) -> Result<Vec<VerifyResp>, Error> {
        let continuation = Continuation {
            task: self.task(),
            job: job_id(job),
            shard_key: shard_key(),
            now: Time::from_seconds(self.now()),
            request: &self.pool.wire().aggregation_job_continue(body)?,
            digest: digest(body),
        };
        block_on(rounds::continue_job(&self.cluster, &continuation))
    }

    /// `DELETE …/aggregation_jobs/{job}`.
    pub fn delete(&self, job: u8) -> Result<(), Error> {
        let placement = self.task().parameters.placement();
        let release = LedgerRequest::Release { placement, job: job_id(job) };
        match self.ledger(release)? {
            LedgerResponse::Done => {}
            other => return Err(out_of_turn(&other)),
        }
        block_on(rounds::forget(&self.cluster, self.task(), &shard_key(), &job_id(job)))
    }

    /// `POST …/aggregate_shares`.
    pub fn share(&self, body: &[u8]) -> Result<Vec<u8>, Error> {
        let request = self.pool.wire().aggregate_share_request(body)?;
        let collect = collect_request(self.task(), &request, digest(body))?;
        match self.ledger(LedgerRequest::Collect(Box::new(collect)))? {
            LedgerResponse::Share(share) => Ok(share),
            LedgerResponse::Refused(abort) => Err(abort.into()),
            LedgerResponse::Busy => Err(Internal::Unavailable("busy".to_owned()).into()),
            other => Err(out_of_turn(&other)),
        }
    }

    fn ledger(&self, request: LedgerRequest) -> Result<LedgerResponse, Error> {
        block_on(self.cluster.ledger(self.task().id(), request))
            .map_err(|e| Internal::from(e).into())
    }

    /// What stores hold, of slices that count.
    pub fn held(&self) -> Held {
        let mut held = Held::new();
        for (_, tables) in self.cluster.stores_of(self.task().id()) {
            for row in tables.jobs() {
                let (mut ids, mut shares) = (&row.ids[..], &row.shares[..]);
                for head in &row.head.slices {
                    let (mine, rest) = ids.split_at(head.report_count as usize * ReportId::LEN);
                    let (share, others) = shares.split_at(head.share_len as usize);
                    (ids, shares) = (rest, others);
                    if head.excluded {
                        continue;
                    }
                    let key = (head.bucket, row.head.param.clone());
                    let entry = held.entry(key).or_default();
                    entry.0 += u64::from(head.report_count);
                    entry.1.extend(mine.as_chunks().0.iter().map(|id| ReportId::new(*id)));
                    self.add(&row.head.param, &mut entry.2, share);
                }
                assert!(ids.is_empty() && shares.is_empty(), "a row holds what its slices say");
            }
        }
        held.values_mut().for_each(|(_, ids, _)| ids.sort_unstable());
        held
    }

    /// Adds an encoded share to a sum, which is empty at first.
    pub fn add(&self, param: &[u8], sum: &mut Vec<u8>, share: &[u8]) {
        if sum.is_empty() {
            share.clone_into(sum);
        } else {
            let field = self.task().vdaf.field().at(param);
            share::add_assign(field, sum, share).expect("shares of one parameter add up");
        }
    }
}

fn out_of_turn(response: &LedgerResponse) -> Error {
    Internal::Broken(format!("out of turn: {response:?}")).into()
}

/// The refusal in an answer. The helper's own failures are violations where nothing is lost on the way.
pub fn refusal(error: Error) -> Abort {
    match error {
        Error::Abort(abort) => {
            check_problem(&abort);
            abort
        }
        Error::Internal(internal) => panic!("{internal}"),
    }
}

/// As [`refusal`], where calls may be lost: `None` if the request is to be sent again.
pub fn refusal_or_later(error: Error) -> Option<Abort> {
    match error {
        Error::Internal(Internal::Unavailable(_) | Internal::Overloaded(_)) => None,
        other => Some(refusal(other)),
    }
}

/// A refusal becomes a document that fits on a screen.
fn check_problem(abort: &Abort) {
    for version in DapVersion::ALL {
        let document = problem(abort, Some(version), None);
        assert!((400..500).contains(&document.status), "{document:?}");
        assert!(document.detail.len() < 1_000, "{document:?}");
    }
}

/// Remembers what it said about the same bytes: verifying is a pure function, and most of the time of a run.
#[derive(Debug)]
struct Remembering;

thread_local! {
    static VERDICTS: RefCell<HashMap<[u8; 32], BytesVerdict>> =
        RefCell::new(HashMap::with_capacity(VERDICTS_MAX));
}

/// Verdicts that are remembered at a time.
const VERDICTS_MAX: usize = 8_192;

impl Verifier for Remembering {
    fn verify(
        &self,
        task: &Task,
        keys: &HpkeKeyring,
        agg_param: &AggregationParam,
        report: &VerifyInit<'_>,
    ) -> BytesVerdict {
        let sealed = report.report_share.encrypted_input_share;
        let mut hasher = Sha256::new();
        for part in [
            task.id().as_bytes(),
            &agg_param.encode()[..],
            report.report_share.metadata.encoded,
            report.report_share.public_share,
            &[sealed.config_id.0],
            sealed.enc,
            sealed.payload,
            report.payload,
        ] {
            hasher.update((part.len() as u64).to_be_bytes());
            hasher.update(part);
        }
        VERDICTS.with_borrow_mut(|verdicts| {
            if verdicts.len() >= VERDICTS_MAX {
                verdicts.clear();
            }
            verdicts
                .entry(hasher.finalize().into())
                .or_insert_with(|| OpenAndVerify.verify(task, keys, agg_param, report))
                .clone()
        })
    }
}
