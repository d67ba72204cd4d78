//! What the leader does together with the helper: aggregation jobs and aggregate shares.

use std::collections::{BTreeMap, BTreeSet};

use daphne_core::{
    aggregate::leader::{LeaderContinuation, LeaderOutcome, LeaderStep},
    batch::{BatchBucket, BucketRange, Checksum},
    hpke::{self, Role},
    ids::{AggregationJobId, ReportId},
    message::{AggregateShareRequest, BatchSelector, HpkeCiphertext, PartialBatchSelector, Report},
    time::{Duration, Time},
    vdaf::{AggregationParam, share},
    version::{DapVersion, Message},
    wire::{aggregate_share_aad, v09},
};
use e2e::{Answer, JOB_CONTINUE, World, server::random, world::until_final};

use super::{
    desk::{Reply, Stored},
    media_type,
};

/// Reports in one job: few, so that a batch takes several.
const JOB_SIZE: usize = 3;

/// Everything that was aggregated with one aggregation parameter.
pub struct Aggregation {
    agg_param: AggregationParam,
    done: BTreeSet<ReportId>,
    slices: BTreeMap<BatchBucket, Slice>,
}

/// What both aggregators have accepted into one bucket.
struct Slice {
    report_count: u64,
    checksum: Checksum,
    /// The leader's share of the sum.
    share: Vec<u8>,
    /// The reports' times, rounded down.
    windows: BTreeSet<Time>,
}

impl Aggregation {
    /// Nothing yet.
    pub fn new(agg_param: AggregationParam) -> Self {
        Self { agg_param, done: BTreeSet::new(), slices: BTreeMap::new() }
    }

    fn empty(&self, world: &World) -> Slice {
        Slice {
            report_count: 0,
            checksum: Checksum::default(),
            share: world.leader.vdaf.aggregate_init(&self.agg_param).encode(),
            windows: BTreeSet::new(),
        }
    }

    /// Aggregates the reports of a batch that are not aggregated yet.
    ///
    /// # Errors
    /// What the helper answered instead, for the collector.
    pub fn advance(
        &mut self,
        world: &World,
        range: BucketRange,
        reports: &BTreeMap<ReportId, Stored>,
    ) -> Result<(), Reply> {
        let pending: Vec<_> = reports
            .iter()
            .filter(|(id, stored)| range.contains(&stored.bucket) && !self.done.contains(id))
            .collect();
        for reports in pending.chunks(JOB_SIZE) {
            self.run(world, partial(range), reports)?;
            self.done.extend(reports.iter().map(|(id, _)| **id));
        }
        Ok(())
    }

    /// Runs one job.
    fn run(
        &mut self,
        world: &World,
        batch: PartialBatchSelector,
        reports: &[(&ReportId, &Stored)],
    ) -> Result<(), Reply> {
        let decoded: Vec<Report<'_>> =
            reports.iter().map(|(_, stored)| stored.decoded().into()).collect();
        let (job, mut refused) = world
            .leader
            .begin_job(&world.leader_keys, &self.agg_param, batch, &decoded)
            .expect("a small job");
        if let Some(job) = job {
            let id = AggregationJobId::new(random());
            let answer = until_final(|| world.put_body(&id, job.request()));
            let answer = body(answer, Message::AggregationJobResponse)?;
            let step = world.leader.proceed(job, &answer).map_err(|e| Reply::broken(&e))?;
            let outcome = match step {
                LeaderStep::Finished(outcome) => outcome,
                LeaderStep::Continued(job) => continued(world, &id, job)?,
            };
            for (bucket, accepted) in outcome.accepted {
                let slice = self.slices.remove(&bucket).unwrap_or_else(|| self.empty(world));
                let accepted = Slice {
                    report_count: accepted.report_count,
                    checksum: accepted.checksum,
                    share: accepted.share.encode(),
                    windows: BTreeSet::new(),
                };
                self.slices.insert(bucket, self.sum(world, slice, &accepted));
            }
            refused.extend(outcome.refused);
        }
        for (id, stored) in reports {
            if refused.iter().all(|(refused, _)| refused != *id)
                && let Some(slice) = self.slices.get_mut(&stored.bucket)
            {
                let time = stored.decoded().report_metadata.time;
                slice.windows.insert(time.round_down(world.spec.time_precision));
            }
        }
        Ok(())
    }

    fn sum(&self, world: &World, mut total: Slice, other: &Slice) -> Slice {
        let field = world.leader.vdaf.field().at(&self.agg_param.encode());
        total.report_count += other.report_count;
        total.checksum.merge(&other.checksum);
        share::add_assign(field, &mut total.share, &other.share).expect("shares of one length");
        total.windows.extend(&other.windows);
        total
    }

    /// Collects a batch: asks for the helper's share and seals the leader's. DAP-09 §4.6.1, §4.6.2.
    ///
    /// # Errors
    /// What the helper answered instead, for the collector.
    pub fn collect(
        &self,
        world: &World,
        range: BucketRange,
        selector: BatchSelector,
    ) -> Result<Reply, Reply> {
        let total = self
            .slices
            .iter()
            .filter(|(bucket, _)| range.contains(bucket))
            .fold(self.empty(world), |total, (_, slice)| self.sum(world, total, slice));
        let agg_param = self.agg_param.encode();
        let binding = v09::share_binding(&agg_param, &selector).expect("a small parameter");
        let request = v09::AggregateShareReq::encode_message(&AggregateShareRequest {
            batch_selector: selector,
            collected: selector,
            agg_param: &agg_param,
            report_count: total.report_count,
            checksum: *total.checksum.as_bytes(),
            share_binding: (&binding).into(),
        });
        let request = request.expect("a small request");
        let answer = until_final(|| world.post_share(&request));
        let answer = body(answer, Message::AggregateShare)?;

        let info = hpke::aggregate_share_info(DapVersion::V09, Role::Leader);
        let aad = aggregate_share_aad(&world.task_id, &[], &binding);
        let leader =
            hpke::seal(world.collector_keys.config(), &info, &aad, &total.share, &random())
                .expect("the collector's key");
        let collection = v09::Collection {
            part_batch_selector: partial(range).into(),
            report_count: total.report_count,
            interval: total.interval(world.spec.time_precision),
            leader_encrypted_agg_share: leader.as_ref(),
            helper_encrypted_agg_share: HpkeCiphertext::decode(&answer)
                .map_err(|e| Reply::broken(&e))?,
        };
        Ok(Reply {
            status: 200,
            media_type: Some(media_type(Message::CollectionJobResponse)),
            body: collection.encode().expect("a small answer"),
        })
    }
}

impl Slice {
    /// The smallest interval of whole batch buckets that holds all reports' times. DAP-09 §4.6.1.
    fn interval(&self, precision: Duration) -> v09::Interval {
        let first = self.windows.first().map_or(0, |time| time.as_seconds());
        let end = self.windows.last().map_or(0, |time| time.as_seconds() + precision.as_seconds());
        v09::Interval {
            start: Time::from_seconds(first),
            duration: Duration::from_seconds(end - first),
        }
    }
}

/// Runs the second and last step of a job.
fn continued(
    world: &World,
    id: &AggregationJobId,
    job: LeaderContinuation,
) -> Result<LeaderOutcome, Reply> {
    let (path, request) = (world.job_path(id), Some(job.request()));
    let answer = until_final(|| world.ask("POST", &path, JOB_CONTINUE, request));
    let answer = body(answer, Message::AggregationJobResponse)?;
    world.leader.finish_continued(job, &answer).map_err(|e| Reply::broken(&e))
}

/// What a job, or the answer to a collection, says about its batch.
fn partial(range: BucketRange) -> PartialBatchSelector {
    match range {
        BucketRange::Windows(_) => PartialBatchSelector::TimeInterval,
        BucketRange::Batch(id) => PartialBatchSelector::LeaderSelected(id),
    }
}

/// The body of the helper's answer, if it is what was asked for.
fn body(answer: Answer, message: Message) -> Result<Vec<u8>, Reply> {
    if answer.status != 200 {
        return Err(Reply::problem(answer.status, answer.body));
    }
    let (found, wanted) = (answer.header("content-type"), media_type(message));
    if found != wanted {
        return Err(Reply::broken(&format!("the helper answered with {found}, not {wanted}")));
    }
    Ok(answer.body)
}
