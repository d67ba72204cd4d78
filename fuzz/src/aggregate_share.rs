//! A request for an aggregate share, any bytes or an honest one with things changed about it, of a helper that holds
//! two jobs. A wrong request uses nothing up, and nothing is given out but what two honest aggregators count.

use daphne_core::{
    batch::Checksum,
    error::AbortKind,
    hpke::Role,
    ids::BatchId,
    message::{AggregationJobContinue, BatchSelector, HpkeCiphertext, VerifyContinue},
    time::{Duration, Time},
};

use crate::{
    bounded,
    choices::Choices,
    fixture::{
        BUCKET, PRECISION, ParamPool, Pool, batch_id, collector_key, is_accepted, pool, report_id,
    },
    request::{JobRequest, share_request},
    world::{World, refusal},
};

/// The reports of the two jobs.
const JOBS: [&[usize]; 2] = [&[0, 1, 3], &[2, 4]];

/// Chooses a task, and the request's bytes or what is changed about an honest one.
pub fn aggregate_share(data: &[u8]) {
    let mut choices = Choices::new(data);
    let pool = pool(usize::from(choices.byte()));
    let param = &pool.params[choices.below(pool.params.len())];
    let world = populated(pool, param);
    // The leader may have given the second job up.
    let counted: &[&[usize]] = if choices.below(2) == 0 { &JOBS } else { &JOBS[..1] };
    if counted.len() == 1 && choices.below(2) == 0 {
        world.delete(2).unwrap_or_else(|e| panic!("DELETE: {:?}", refusal(e)));
    }
    let honest = Facts::of(pool, counted);
    if choices.below(4) == 0 {
        return ask(&world, param, &honest, choices.rest());
    }
    let mut facts = honest.clone();
    while !choices.is_empty() {
        facts.change(&mut choices);
    }
    ask(&world, param, &honest, &facts.request(pool, param));
}

/// A helper that holds two jobs.
pub fn populated(pool: &'static Pool, param: &ParamPool) -> World {
    let mut world = World::new(pool);
    world.remembers = true;
    for (id, reports) in (1..).zip(JOBS) {
        aggregate(&world, param, id, reports);
    }
    world
}

/// Has the helper aggregate some of the pool's reports.
fn aggregate(world: &World, param: &ParamPool, id: u8, reports: &[usize]) {
    let pool = world.pool;
    let body = JobRequest::new(pool, param, 0, reports.iter().copied())
        .encode(pool)
        .expect("it has reports");
    let answers = world.put(id, &body).unwrap_or_else(|e| panic!("PUT: {:?}", refusal(e)));
    assert!(answers.iter().all(is_accepted), "honest reports are accepted");
    if !pool.has_two_rounds() {
        return;
    }
    let verify_continues = reports
        .iter()
        .map(|n| VerifyContinue { report_id: report_id(*n), payload: &param.verified[*n].finish })
        .collect();
    let request = AggregationJobContinue { step: 1, verify_continues };
    let body = pool.wire().encode_aggregation_job_continue(&request).expect("messages are short");
    let answers = world.post(id, &body).unwrap_or_else(|e| panic!("POST: {:?}", refusal(e)));
    assert!(answers.iter().all(is_accepted), "honest reports are accepted");
}

/// What a request says.
#[derive(Clone)]
struct Facts {
    selector: BatchSelector,
    /// What the collector asked for, if that is more.
    collected: Option<BatchSelector>,
    agg_param: Option<Vec<u8>>,
    report_count: u64,
    checksum: Checksum,
}

impl Facts {
    /// What an honest leader says of all it has.
    fn of(pool: &Pool, jobs: &[&[usize]]) -> Self {
        let mut checksum = Checksum::default();
        jobs.iter().copied().flatten().for_each(|n| checksum.add(&report_id(*n)));
        Self {
            // Both buckets, or the one batch.
            selector: match pool.selector(2) {
                BatchSelector::LeaderSelected(_) => BatchSelector::LeaderSelected(batch_id(0)),
                interval => interval,
            },
            collected: None,
            agg_param: None,
            report_count: jobs.iter().map(|job| job.len() as u64).sum(),
            checksum,
        }
    }

    fn request(&self, pool: &Pool, param: &ParamPool) -> Vec<u8> {
        let agg_param = self.agg_param.as_deref().unwrap_or(&param.encoded);
        let collected = self.collected.unwrap_or(self.selector);
        let count = self.report_count;
        share_request(pool.wire(), self.selector, collected, agg_param, count, &self.checksum)
    }

    fn change(&mut self, choices: &mut Choices<'_>) {
        match choices.below(6) {
            kind @ (0 | 5) => {
                let selector = match choices.below(3) {
                    0 => BatchSelector::LeaderSelected(BatchId::new(choices.array())),
                    1 => BatchSelector::LeaderSelected(batch_id(choices.byte() % 2)),
                    _ => BatchSelector::TimeInterval {
                        start: Time::from_seconds(match choices.below(3) {
                            0 => choices.near(BUCKET),
                            1 => BUCKET.wrapping_sub(PRECISION * u64::from(choices.byte() % 4)),
                            _ => choices.number(),
                        }),
                        duration: match choices.below(2) {
                            0 => choices.duration(),
                            _ => Duration::from_seconds(PRECISION * u64::from(choices.byte() % 4)),
                        },
                    },
                };
                match kind {
                    0 => self.selector = selector,
                    _ => self.collected = Some(selector),
                }
            }
            1 => choices.edit(self.agg_param.get_or_insert_default()),
            2 => self.report_count = choices.near(self.report_count),
            3 => self.checksum.add(&choices.report_id()),
            _ => self.checksum.merge(&Checksum::new(choices.array())),
        }
    }
}

fn ask(world: &World, param: &ParamPool, honest: &Facts, body: &[u8]) {
    let pool = world.pool;
    let before = world.held();
    // Some copies of the sum on their way, and whatever the tables in memory hold of it.
    let bytes_max = (256 << 10) + 8 * body.len() + 64 * pool.task.vdaf.agg_share_len_max();
    let right = honest.request(pool, param);
    match bounded(bytes_max, || world.share(body)) {
        Ok(share) => {
            check_share(pool, param, body, &share);
            assert!(world.share(body) == Ok(share.clone()), "the same request, another answer");
            match world.share(&right) {
                Ok(again) => check_share(pool, param, &right, &again),
                Err(error) => {
                    let kind = refusal(error).kind;
                    let is_late =
                        matches!(kind, AbortKind::BatchOverlap | AbortKind::BatchMismatch);
                    assert!(is_late, "{kind:?}");
                }
            }
        }
        Err(error) => {
            let kind = refusal(error).kind;
            let is_known = matches!(
                kind,
                AbortKind::InvalidMessage
                    | AbortKind::BatchInvalid
                    | AbortKind::InvalidBatchSize
                    | AbortKind::BatchMismatch
                    | AbortKind::InvalidAggregationParameter
                    | AbortKind::UnsupportedExtension
                    | AbortKind::InvalidExtension
            );
            assert!(is_known, "{kind:?}");
            assert!(world.held() == before, "a wrong request changed something");
            let is_within =
                pool.task.parameters.max_batch_size.is_none_or(|max| honest.report_count <= max);
            match world.share(&right) {
                Ok(share) => check_share(pool, param, &right, &share),
                Err(error) => {
                    let kind = refusal(error).kind;
                    assert!(kind == AbortKind::InvalidBatchSize && !is_within, "{kind:?}");
                }
            }
        }
    }
}

/// The share is that of the reports of some jobs, in the range, which have this count and checksum.
fn check_share(pool: &Pool, param: &ParamPool, body: &[u8], share: &[u8]) {
    let request = pool.wire().aggregate_share_request(body).expect("it was answered");
    assert!(request.agg_param == param.encoded, "nothing was aggregated for it");
    let range = pool.range(&request.batch_selector).expect("it was answered");
    let share = HpkeCiphertext::decode(share).expect("the helper wrote it");
    let helper_share = pool
        .collector()
        .open_share(&collector_key(), Role::Helper, &request.share_binding, share)
        .expect("it is sealed to the collector");
    let explained = (1..4_usize).any(|chosen| {
        let reports: Vec<usize> = (0..JOBS.len())
            .filter(|job| chosen >> job & 1 == 1)
            .flat_map(|job| JOBS[job].iter().copied())
            .filter(|n| range.contains(&pool.bucket(0, pool.reports[*n].time)))
            .collect();
        let (mut checksum, mut sum) = (Checksum::default(), Vec::new());
        for n in &reports {
            checksum.add(&report_id(*n));
            let mine = &param.verified[*n].helper;
            if sum.is_empty() {
                sum.clone_from(mine);
            } else {
                let field = pool.task.vdaf.field().at(&param.encoded);
                daphne_core::vdaf::share::add_assign(field, &mut sum, mine).expect("alike");
            }
        }
        reports.len() >= 2
            && request.report_count == reports.len() as u64
            && request.checksum == *checksum.as_bytes()
            && helper_share == sum
    });
    assert!(explained, "what is given out is no batch");
}
