//! Continuations of jobs of two rounds that are damaged, out of place or too late, and parameters that are none.

use std::sync::{Arc, OnceLock};

use daphne_core::{
    batch::BatchMode::{self, LeaderSelected, TimeInterval},
    error::ReportError::{self, BatchCollected, HpkeDecryptError, ReportReplayed},
    ids::{BatchId, ReportId},
    message::{AggregationJobContinue, BatchSelector, PartialBatchSelector, VerifyContinue},
    vdaf::{Measurement, VdafConfig},
    version::DapVersion::{self, V09, V18},
};
use e2e::{Books, ContinuedJob, KINDS, Server, World, server::random, world::until_final};

fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(Server::start)
}

/// A task that asks for prefixes of two bits, and a batch of it.
fn world((version, mode): (DapVersion, BatchMode)) -> (World, PartialBatchSelector, BatchSelector) {
    println!("{version:?} {mode:?}");
    let mut world = World::new_in(server(), version, mode, |spec| {
        spec.vdaf = VdafConfig::Poplar1 { bits: 4 };
        spec.max_batch_query_count = if version == V09 { 3 } else { 1 };
        spec.shards = 2;
    });
    world.ask_for(&["00", "01", "11"]);
    let id = BatchId::new(random());
    let (part, batch) = match mode {
        TimeInterval => (PartialBatchSelector::TimeInterval, world.interval(3, 1)),
        LeaderSelected => {
            (PartialBatchSelector::LeaderSelected(id), BatchSelector::LeaderSelected(id))
        }
    };
    (world, part, batch)
}

fn reports(world: &World, count: usize) -> Vec<Vec<u8>> {
    let strings = ["0000", "0111", "1111", "1010", "0100"];
    let string = |n: usize| strings[n % 5].parse().expect("bits");
    (0..count).map(|n| world.report(Measurement::Poplar1(string(n)), world.time(3))).collect()
}

/// A job of these reports after its first step.
fn begun(world: &World, part: PartialBatchSelector, reports: &[Vec<u8>]) -> ContinuedJob {
    let job = world.job(part, reports);
    let answer = world.put(&job);
    world.proceed(job, &answer)
}

fn decode<'a>(world: &World, body: &'a [u8]) -> AggregationJobContinue<'a> {
    world.wire().aggregation_job_continue(body).expect("our own request")
}

fn ids(world: &World, body: &[u8]) -> Vec<ReportId> {
    decode(world, body).verify_continues.iter().map(|c| c.report_id).collect()
}

/// A continuation with some of another one's reports, in the order given.
fn with(world: &World, body: &[u8], step: u16, which: &[usize]) -> Vec<u8> {
    let continuation = decode(world, body);
    let continues = which.iter().map(|n| continuation.verify_continues[*n]);
    let request = AggregationJobContinue { step, verify_continues: continues.collect() };
    world.wire().encode_aggregation_job_continue(&request).expect("small")
}

#[test]
fn what_does_not_wait_cannot_be_continued() {
    for kind in KINDS {
        let (world, part, batch) = world(kind);
        let task = &world.task_id;
        // The second of four is refused at once.
        let job = world.job(part, &reports(&world, 4));
        let mut init = world.wire().aggregation_job_init(&job.body).expect("our own request");
        let damaged = [1; 100];
        init.verify_inits[1].report_share.encrypted_input_share.payload = &damaged;
        let begin = world.wire().encode_aggregation_job_init(&init).expect("small");
        let id = world.job_id(&begin);
        let answer = world.put_body(&id, &begin);
        let first = world.verdicts(world.job_resp(&answer));
        let errors: Vec<_> = first.iter().map(|(_, error)| *error).collect();
        assert_eq!(errors, [None, Some(HpkeDecryptError), None, None]);
        // The leader's continuation, as if it had not been refused.
        let whole = begun(&world, part, &reports(&world, 1));
        let stranger = ids(&world, &whole.body)[0];
        let all: Vec<ReportId> = first.iter().map(|(id, _)| *id).collect();
        let continuation = |step: u16, which: &[ReportId]| {
            let payload = &[2, 0, 0, 0, 0];
            let continues = which.iter().map(|&report_id| VerifyContinue { report_id, payload });
            let request = AggregationJobContinue { step, verify_continues: continues.collect() };
            world.wire().encode_aggregation_job_continue(&request).expect("small")
        };
        let refused = |body: &[u8]| world.post_body(&id, body).refused("invalidMessage", task);
        refused(&continuation(1, &[all[0], all[1], all[2], all[3]]));
        refused(&continuation(1, &[all[1]]));
        refused(&continuation(1, &[stranger]));
        refused(&continuation(1, &[all[0], stranger, all[2]]));
        refused(&continuation(1, &[all[0], all[0]]));
        refused(&continuation(1, &[all[0], all[2], all[0]]));
        refused(&continuation(1, &[all[2], all[0]]));
        refused(if kind.0 == V09 { &[0, 1, 0, 0, 0, 0] } else { &[0, 1] });
        refused(&[]);
        for step in [2, 3, u16::MAX] {
            let answer = world.post_body(&id, &continuation(step, &[all[0]]));
            answer.refused("stepMismatch", task);
        }
        // What was there all the time still goes on, and the repeat of its beginning does not change.
        assert_eq!(world.put_body(&id, &begin).body, answer.body);
        let mut books = Books::default();
        let answer = world.post(&whole);
        assert_eq!(world.finish_continued(whole, &answer, &mut books), []);
        world.aggregate(part, &reports(&world, 2), &mut books);
        world.collect(batch, &books);
    }
}

/// A report that the leader leaves out was refused by it: it does not count, and cannot be brought back in this job.
#[test]
fn a_report_that_is_left_out_is_dropped_for_good() {
    for kind in KINDS {
        let (world, part, batch) = world(kind);
        let task = &world.task_id;
        let all = reports(&world, 5);
        let job = begun(&world, part, &all);
        let waiting = ids(&world, &job.body);
        let some = with(&world, &job.body, 1, &[1, 3, 4]);
        let answer = world.post_body(&job.id, &some);
        let kept: Vec<_> = [1, 3, 4].map(|n| (waiting[n], None)).to_vec();
        assert_eq!(world.verdicts(world.job_resp(&answer)), kept);
        assert_eq!(world.post_body(&job.id, &some).body, answer.body);
        for (step, which, kind) in [
            (1, &[0, 2][..], "stepMismatch"),
            (1, &[0, 1, 2, 3, 4], "stepMismatch"),
            (2, &[0, 2], "invalidMessage"),
            (2, &[1], "invalidMessage"),
        ] {
            world.post_body(&job.id, &with(&world, &job.body, step, which)).refused(kind, task);
        }
        // In another job they are as good as new.
        let mut books = Books::default();
        let reversed: Vec<_> = all.into_iter().rev().collect();
        let refused = world.run(world.job(part, &reversed), &mut books);
        let replayed: Vec<_> = kept.iter().rev().map(|(id, _)| (*id, ReportReplayed)).collect();
        assert_eq!(refused, replayed);
        let mut checksum = daphne_core::batch::Checksum::default();
        waiting.iter().for_each(|id| checksum.add(id));
        let param = world.agg_param.as_ref().expect("prefixes").encode();
        let request = world.share_request_for(&param, batch, 5, checksum);
        world.share(&world.post_share(&request));
    }
}

/// Nothing counts before the last step, so what happens in between decides.
#[test]
fn a_report_that_is_replayed_or_collected_between_two_steps_is_refused() {
    for kind in KINDS {
        let (world, part, batch) = world(kind);
        let (shared, own) = (reports(&world, 2), reports(&world, 3));
        let first = begun(&world, part, &shared);
        let second = begun(&world, part, &[&shared[..], &own].concat());
        let late = begun(&world, part, &reports(&world, 2));
        let mut books = Books::default();
        let answer = world.post(&first);
        assert_eq!(world.finish_continued(first, &answer, &mut books), []);
        let answer = world.post(&second);
        let replayed: Vec<_> =
            ids(&world, &second.body)[..2].iter().map(|id| (*id, ReportReplayed)).collect();
        assert_eq!(world.finish_continued(second, &answer, &mut books), replayed);
        // The batch is collected while a job of it waits: what counted is in it, and the job is too late.
        assert_eq!(books.count(&batch, &world).0, 5);
        let share = world.collect(batch, &books);
        let answer = world.post(&late);
        let refused = world.finish_continued(late, &answer, &mut books.clone());
        assert!(refused.len() == 2 && refused.iter().all(|(_, e)| *e == BatchCollected));
        assert_eq!(world.collect(batch, &books).body, share.body);
    }
}

#[test]
fn of_two_continuations_at_once_one_takes_the_step() {
    for kind in KINDS {
        let (world, part, batch) = world(kind);
        let world = Arc::new(world);
        let mut books = Books::default();
        for _ in 0..3 {
            let job = begun(&world, part, &reports(&world, 3));
            let fewer = with(&world, &job.body, 1, &[0, 1]);
            let senders = [&job.body, &job.body, &fewer].map(|body| {
                let (world, id, body) = (world.clone(), job.id, body.clone());
                std::thread::spawn(move || until_final(|| world.post_body(&id, &body)))
            });
            let [one, same, other] = senders.map(|s| s.join().expect("no panic"));
            if other.status == 200 {
                one.refused("stepMismatch", &world.task_id);
                same.refused("stepMismatch", &world.task_id);
                // Whatever won, the batch is left to the leader to sort out: here it gives the job up.
                assert_eq!(world.delete(&job.id).status, 204);
            } else {
                other.refused("stepMismatch", &world.task_id);
                assert_eq!(one.body, same.body);
                assert_eq!(world.finish_continued(job, &one, &mut books), []);
            }
        }
        world.aggregate(part, &reports(&world, 2), &mut books);
        let request = world.share_request(batch, &books);
        let answer = until_final(|| world.post_share(&request));
        world.assert_true(batch, &books, &answer);
    }
}

/// Each byte of a continuation changed, for a job of its own: the step is refused and the job stays as it was, or single
/// reports are refused.
#[test]
fn whatever_byte_of_a_continuation_is_changed_at_most_reports_are_refused() {
    DapVersion::ALL.into_iter().for_each(whatever_byte_of_a_continuation_is_changed);
}

fn whatever_byte_of_a_continuation_is_changed(version: DapVersion) {
    let (world, part, batch) = world((version, LeaderSelected));
    let len = begun(&world, part, &reports(&world, 2)).body.len();
    let mut books = Books::default();
    for n in 0..len {
        let mut job = begun(&world, part, &reports(&world, 2));
        let good = job.body.clone();
        job.body[n] ^= 1 << (n % 8);
        let answer = world.post(&job);
        match answer.status {
            200 => {
                let refused = world.finish_continued(job, &answer, &mut books);
                assert!((1..=2).contains(&refused.len()), "byte {n}");
                let is_right = |e: &ReportError| *e == ReportError::VdafVerifyError;
                assert!(refused.iter().all(|(_, e)| is_right(e)), "byte {n}: {refused:?}");
            }
            _ => {
                let token = answer.problem_token();
                assert!(["invalidMessage", "stepMismatch"].contains(&token.as_str()), "byte {n}");
                answer.refused(&token, &world.task_id);
                job.body = good;
                let answer = world.post(&job);
                assert_eq!(world.finish_continued(job, &answer, &mut books), [], "byte {n}");
            }
        }
    }
    world.collect(batch, &books);
}

/// Of all ways to write two prefixes of two bits, those in order and distinct, with nothing set behind them.
#[test]
fn prefixes_out_of_order_repeated_or_overlong_are_refused() {
    for (version, token) in [(V09, "invalidMessage"), (V18, "invalidAggregationParameter")] {
        let (world, part, _) = world((version, TimeInterval));
        let head = [0, 1, 0, 0, 0, 2];
        let params: Vec<Vec<u8>> = match version {
            V09 => (0..=255).map(|bits| [&head[..], &[bits]].concat()).collect(),
            // Each in a byte of its own.
            V18 => (0..=255)
                .flat_map(|first: u8| [0, 1, 0x40, 0x60, 0x80, 0xc0].map(|second| (first, second)))
                .filter(|(first, _)| first % 0x40 < 2)
                .map(|(first, second)| [&head[..], &[first, second]].concat())
                .collect(),
        };
        let job = world.job(part, &reports(&world, 1));
        let mut init = world.wire().aggregation_job_init(&job.body).expect("our own request");
        let mut accepted = 0;
        for param in &params {
            init.agg_param = param;
            let answer =
                world.create(&world.wire().encode_aggregation_job_init(&init).expect("small"));
            if answer.status == 200 {
                accepted += 1;
            } else {
                answer.refused(token, &world.task_id);
            }
        }
        assert_eq!(accepted, 6);
    }
}
