//! A whole PUT of an aggregation job on an empty helper, then the same again and once more under another id.
//!
//! The bytes are either any, or a leader's request with things changed about it. What is accepted must be what honest
//! parties would accept, what is stored must be what the answer says, and no report may suffer for another one.

use std::collections::{BTreeMap, BTreeSet};

use daphne_core::{
    batch::BatchBucket,
    error::{AbortKind, ReportError},
    message::{AggregationJobInit, PartialBatchSelector, VerifyInit, VerifyResp, VerifyRespResult},
    time::Time,
};

use crate::{
    bounded,
    choices::Choices,
    fixture::{ParamPool, Pool, REPORTS, is_accepted, pool, verdict},
    request::{Entry, JobRequest},
    world::{World, refusal},
};

/// Chooses a task, and the request's bytes or what is changed about an honest one.
pub fn helper_job(data: &[u8]) {
    let mut choices = Choices::new(data);
    let pool = pool(usize::from(choices.byte()));
    let param = &pool.params[choices.below(pool.params.len())];
    if choices.below(4) == 0 {
        let body = choices.rest();
        put(pool, body, |init, n| {
            let is_about_it = init.agg_param == param.encoded;
            is_about_it.then(|| of_bytes(pool, param, &init.verify_inits[n])).flatten()
        });
        return;
    }
    let chosen = u16::from_be_bytes(choices.array());
    let reports = (0..REPORTS).filter(|n| chosen >> n & 1 == 0);
    let mut request = JobRequest::new(pool, param, choices.byte() % 2, reports);
    while !choices.is_empty() {
        request.edit(pool, &mut choices);
    }
    if let Some(body) = request.encode(pool) {
        let may_compare = request.agg_param == param.encoded;
        put(pool, &body, |_, n| may_compare.then(|| Known::of(&request.entries[n], pool, param)));
    }
}

/// What is known about a report of a request.
struct Known<'a> {
    /// The verdict, if the report is as an honest leader sends it.
    verdict: Option<Option<ReportError>>,
    /// The helper's output share, if its verification succeeds.
    output: Option<&'a [u8]>,
}

impl<'a> Known<'a> {
    fn of(entry: &Entry, pool: &'a Pool, param: &'a ParamPool) -> Self {
        let original = (0..REPORTS).find(|n| Entry::of(pool, param, *n) == *entry);
        Self {
            verdict: original.map(verdict),
            output: entry.verified(pool, param).map(|verified| &verified.helper[..]),
        }
    }
}

/// What is known about a report of any bytes: whether it is one of the pool's.
fn of_bytes<'a>(pool: &'a Pool, param: &'a ParamPool, init: &VerifyInit<'_>) -> Option<Known<'a>> {
    let n = pool.reports.iter().position(|r| {
        let report = r.report();
        (report.metadata, report.public_share, report.helper_encrypted_input_share)
            == (
                init.report_share.metadata,
                init.report_share.public_share,
                init.report_share.encrypted_input_share,
            )
    });
    let n = n.filter(|n| param.verified[*n].initialize == init.payload)?;
    Some(Known { verdict: Some(verdict(n)), output: Some(&param.verified[n].helper) })
}

/// The request as often as it may come.
fn put<'a>(
    pool: &'static Pool,
    body: &[u8],
    known: impl Fn(&AggregationJobInit<'_>, usize) -> Option<Known<'a>>,
) {
    let (wire, version) = (pool.wire(), pool.task.parameters.version);
    let mut world = World::new(pool);
    // Else the same reports would be verified in each run.
    world.remembers = true;
    // Copies of the body: read, committed, answered. Every sum of a store is as long as an aggregate share.
    let share_len = pool.task.vdaf.agg_share_len_max();
    let bytes_max = (256 << 10) + 64 * body.len() + 32 * share_len;
    let answers = match bounded(bytes_max, || world.put(1, body)) {
        Ok(answers) => answers,
        Err(error) => {
            let abort = refusal(error);
            let is_known = match version.has_configuration() {
                false => abort.kind == AbortKind::InvalidMessage,
                true => matches!(
                    abort.kind,
                    AbortKind::InvalidMessage
                        | AbortKind::InvalidAggregationParameter
                        | AbortKind::UnsupportedExtension
                ),
            };
            assert!(is_known, "{abort:?}");
            assert_eq!(world.cluster.calls(), 0, "a refused request reaches no object");
            return;
        }
    };
    let init = wire.aggregation_job_init(body).expect("it was answered");
    let asked = init.verify_inits.iter().map(|v| v.report_share.metadata.report_id);
    assert!(asked.eq(answers.iter().map(|a| a.report_id)), "one answer a report, in order");
    let encoded = wire.encode_aggregation_job_resp(&answers).expect("it is sent");
    let again = wire.aggregation_job_resp(&encoded).expect("we wrote it");
    assert!(again.iter().zip(&answers).all(|(again, answer)| {
        // One code point may stand for two reasons.
        again == answer
            || *answer
                == VerifyResp {
                    report_id: again.report_id,
                    result: VerifyRespResult::Reject(ReportError::HpkeUnknownConfigId),
                }
                && again.result == VerifyRespResult::Reject(version.unknown_key_error())
    }));
    assert_eq!(again.len(), answers.len());

    let is_param_known = pool.params.iter().any(|p| p.encoded == init.agg_param);
    let mut expected: BTreeMap<BatchBucket, (u64, Vec<u8>)> = BTreeMap::new();
    for (n, answer) in answers.iter().enumerate() {
        let known = known(&init, n);
        if let Some(Some(right)) = known.as_ref().map(|known| known.verdict) {
            let verdict = match answer.result {
                VerifyRespResult::Reject(error) => Some(error),
                VerifyRespResult::Continue(_) | VerifyRespResult::Finish => None,
            };
            assert_eq!(verdict, right, "another report's fault");
        }
        assert!(answer.result != VerifyRespResult::Finish, "the leader waits for a message");
        if pool.has_two_rounds() || !is_accepted(answer) {
            continue;
        }
        let output = known.and_then(|known| known.output).expect("a forged report is accepted");
        let bucket = bucket(pool, &init, init.verify_inits[n].report_share.metadata.time);
        let sum = expected.entry(bucket).or_default();
        sum.0 += 1;
        world.add(init.agg_param, &mut sum.1, output);
    }
    let held = world.held();
    assert!(is_param_known || held.is_empty());
    let sums =
        held.iter().map(|((bucket, _), (count, _, share))| (*bucket, (*count, share.clone())));
    assert!(sums.eq(expected), "what is stored is not what was answered");

    // The same again.
    assert!(world.put(1, body) == Ok(answers.clone()), "a repeat is answered otherwise");
    // Under another id, nothing of it counts.
    let twice =
        world.put(2, body).unwrap_or_else(|e| panic!("refused as a whole: {:?}", refusal(e)));
    let replayed: BTreeSet<_> =
        answers.iter().filter(|a| is_accepted(a)).map(|a| a.report_id).collect();
    for (first, second) in answers.iter().zip(&twice) {
        let right = if !pool.has_two_rounds() && replayed.contains(&first.report_id) {
            VerifyRespResult::Reject(ReportError::ReportReplayed)
        } else {
            first.result.clone()
        };
        assert!(second.result == right, "the second job: {second:?}");
    }
    assert!(world.held() == held, "a report was counted twice");
}

fn bucket(pool: &Pool, init: &AggregationJobInit<'_>, time: Time) -> BatchBucket {
    match init.batch {
        PartialBatchSelector::TimeInterval => {
            BatchBucket::Window(time.round_down(pool.task.parameters.time_precision))
        }
        PartialBatchSelector::LeaderSelected(id) => BatchBucket::Batch(id),
    }
}
