//! What a helper must refuse: whole requests, each with its problem type, and reports, each with its code.

use daphne_core::{
    codec::Writer,
    error::{Error, ReportError},
    hpke::Role,
    ids::{BatchId, HpkeConfigId, ReportId},
    message::VerifyRespResult,
    version::DapVersion,
    wire::v18,
};
use serde_json::{Value, json};

use crate::{
    exchange::{HELPER_KEY, Kind, NOW, PRECISION, TASK_INTERVAL, UNIT, World, keypair, recorded},
    layout::{explain, hex, joined},
};

/// What a request is for.
#[derive(Clone, Copy, PartialEq)]
enum To {
    BeginJob,
    ContinueJob,
    GetShare,
}
use To::{BeginJob, ContinueJob, GetShare};

impl To {
    const fn resource(self) -> &'static str {
        match self {
            BeginJob => "POST aggregation_jobs",
            ContinueJob => "POST aggregation_jobs/{aggregation-job-id}",
            GetShare => "POST aggregate_shares",
        }
    }

    const fn message(self) -> &'static str {
        match self {
            BeginJob => "AggregationJobInitReq",
            ContinueJob => "AggregationJobContinueReq",
            GetShare => "AggregateShareReq",
        }
    }
}

/// Sends a request to the helper: the answer's encoding.
fn send(world: &World, to: To, body: &[u8]) -> Result<Vec<u8>, Error> {
    let answers = match to {
        BeginJob => world.init(body)?,
        ContinueJob => world.proceed(body)?,
        GetShare => return world.share(body),
    };
    Ok(world.task.parameters.wire().encode_aggregation_job_resp(&answers).unwrap())
}

/// An exchange that went well, to change something about.
struct Good<'a> {
    kind: &'a Kind,
    exchange: &'a Value,
    init: Vec<u8>,
    proceed: Option<Vec<u8>>,
    share: Vec<u8>,
}

impl<'a> Good<'a> {
    fn of(exchanges: &'a [(Kind, Value)], name: &str) -> Self {
        let (kind, exchange) = exchanges.iter().find(|(kind, _)| kind.name == name).unwrap();
        let job = exchange["aggregation_job"].as_array().unwrap();
        Self {
            kind,
            exchange,
            init: joined(&job[0]),
            proceed: job.get(2).map(joined),
            share: joined(&exchange["collection"]["aggregate_share_req"]),
        }
    }

    fn init_with(&self, change: impl FnOnce(&mut v18::AggregationJobInitReq<'_>)) -> Vec<u8> {
        let mut request = v18::AggregationJobInitReq::decode(&self.init).unwrap();
        change(&mut request);
        request.encode().unwrap()
    }

    fn proceed_with(
        &self,
        change: impl FnOnce(&mut v18::AggregationJobContinueReq<'_>),
    ) -> Vec<u8> {
        let body = self.proceed.as_ref().unwrap();
        let mut request = v18::AggregationJobContinueReq::decode(body).unwrap();
        change(&mut request);
        request.encode().unwrap()
    }

    fn share_with(&self, change: impl FnOnce(&mut v18::AggregateShareReq<'_>)) -> Vec<u8> {
        let mut request = v18::AggregateShareReq::decode(&self.share).unwrap();
        change(&mut request);
        let encoded = request.collection_job_req.encode().unwrap();
        v18::AggregateShareReq { collection_job_req_encoded: &encoded, ..request }.encode().unwrap()
    }

    /// What the helper is sent before: the exchange's own messages by their names.
    fn before(&self, before: &[(To, &[u8])]) -> Vec<Value> {
        let own = |to, name: &str| json!({ "to": To::resource(to), "body_of_exchange": name });
        let each = before.iter().map(|(to, body)| match to {
            BeginJob if **body == self.init => own(*to, "aggregation_job[0]"),
            ContinueJob if self.proceed.as_deref() == Some(*body) => own(*to, "aggregation_job[2]"),
            GetShare if **body == self.share => own(*to, "collection.aggregate_share_req"),
            to => step(*to, body),
        });
        each.collect()
    }

    /// A case: what the helper is sent before, and the request that it refuses.
    fn refused(
        &self,
        what: &str,
        before: &[(To, &[u8])],
        (to, body): (To, Vec<u8>),
        problem: &str,
    ) -> Value {
        let world = World::new(self.kind);
        for (to, body) in before {
            send(&world, *to, body).unwrap();
        }
        match send(&world, to, &body) {
            Err(Error::Abort(abort)) => {
                let token = DapVersion::V18.problem_token(abort.kind);
                assert_eq!(token, Some(problem), "{what}: {abort:?}");
            }
            other => panic!("{what}: {other:?}"),
        }
        json!({
            "what": what,
            "exchange": self.kind.name,
            "before": self.before(before),
            "request": step(to, &body),
            "refused_with": problem,
        })
    }
}

fn step(to: To, body: &[u8]) -> Value {
    let is_well_formed = match to {
        BeginJob => v18::AggregationJobInitReq::decode(body).is_ok(),
        ContinueJob => v18::AggregationJobContinueReq::decode(body).is_ok(),
        GetShare => v18::AggregateShareReq::decode(body).is_ok(),
    };
    let message = match is_well_formed {
        true => explain(to.message(), body),
        false => json!({ "message": to.message(), "malformed": hex(body) }),
    };
    json!({ "to": to.resource(), "body": message })
}

fn extension(extension_type: u16, extension_data: &[u8]) -> v18::Extension<'_> {
    v18::Extension { extension_type, extension_data }
}

/// Requests that are refused as a whole.
pub fn requests(exchanges: &[(Kind, Value)]) -> Value {
    let timed = Good::of(exchanges, "count-time-interval");
    let selected = Good::of(exchanges, "count-leader-selected");
    let rounds = Good::of(exchanges, "poplar1-time-interval");
    let mut cases = jobs(&timed, &selected, &rounds);
    cases.extend(steps(&rounds));
    cases.extend(shares(&timed, &selected, &rounds));
    json!({
        "about": "Requests that a Helper must refuse as a whole. Each begins with a Helper that has seen nothing, and that answers \
                  what is in `before`. `exchange` names the file that has the task.",
        "cases": cases,
    })
}

fn jobs(timed: &Good<'_>, selected: &Good<'_>, rounds: &Good<'_>) -> Vec<Value> {
    let begin = |good: &Good<'_>, what: &str, body: Vec<u8>, problem: &str| {
        good.refused(what, &[], (BeginJob, body), problem)
    };
    let (batch, short) = (&[1; 32], &[1; 31]);
    let malformed = "invalidMessage";
    let unsupported = "unsupportedExtension";
    // Behind the last report's payload.
    let cut = timed.init[..timed.init.len() - 1].to_vec();
    let longer = [&timed.init[..], &[0]].concat();
    vec![
        begin(
            timed,
            "an aggregation job extension that nobody knows",
            timed.init_with(|r| r.extensions = vec![extension(9, &[])]),
            unsupported,
        ),
        begin(
            timed,
            "one that is reserved",
            timed.init_with(|r| r.extensions = vec![extension(0, &[])]),
            unsupported,
        ),
        begin(
            selected,
            "an extension twice",
            selected.init_with(|r| r.extensions = vec![extension(1, batch), extension(1, batch)]),
            malformed,
        ),
        begin(
            timed,
            "a batch id for a task that has none",
            timed.init_with(|r| r.extensions = vec![extension(1, batch)]),
            malformed,
        ),
        begin(
            selected,
            "no batch id for a task that needs one",
            selected.init_with(|r| r.extensions.clear()),
            malformed,
        ),
        begin(
            selected,
            "a batch id of 31 bytes",
            selected.init_with(|r| r.extensions = vec![extension(1, short)]),
            malformed,
        ),
        begin(
            timed,
            "a report twice",
            timed.init_with(|r| r.verify_inits.push(r.verify_inits[0])),
            malformed,
        ),
        begin(
            timed,
            "an aggregation parameter for a VDAF without one",
            timed.init_with(|r| r.agg_param = &[0]),
            "invalidAggregationParameter",
        ),
        begin(
            rounds,
            "no aggregation parameter for a VDAF with one",
            rounds.init_with(|r| r.agg_param = &[]),
            "invalidAggregationParameter",
        ),
        begin(
            rounds,
            "an aggregation parameter with its prefixes out of order",
            rounds.init_with(|r| r.agg_param = &[0, 0, 0, 0, 0, 2, 0b0100_0000]),
            "invalidAggregationParameter",
        ),
        begin(timed, "a body that ends in the middle of a report", cut, malformed),
        begin(timed, "a body with a byte behind its last report", longer, malformed),
        begin(timed, "a body without bytes", Vec::new(), malformed),
        // The draft does not say what these are; here they are malformed.
        begin(
            timed,
            "a verification key that the task does not have",
            timed.init_with(|r| r.verification_key_id = 1),
            malformed,
        ),
        begin(timed, "no reports", timed.init_with(|r| r.verify_inits.clear()), malformed),
    ]
}

fn steps(rounds: &Good<'_>) -> Vec<Value> {
    let (init, good) = (&rounds.init[..], &rounds.proceed.as_ref().unwrap()[..]);
    let begun = &[(BeginJob, init)][..];
    let go_on = |what: &str, before: &[(To, &[u8])], body: Vec<u8>, problem: &str| {
        rounds.refused(what, before, (ContinueJob, body), problem)
    };
    let finished = &[(BeginJob, init), (ContinueJob, good)][..];
    let fewer = rounds.proceed_with(|r| r.verify_continues.truncate(3));
    let malformed = "invalidMessage";
    vec![
        go_on("a job that there is not", &[], good.to_vec(), "unrecognizedAggregationJob"),
        go_on("step 0", begun, rounds.proceed_with(|r| r.step = 0), malformed),
        go_on("a step too far", begun, rounds.proceed_with(|r| r.step = 2), "stepMismatch"),
        go_on(
            "a report twice",
            begun,
            rounds.proceed_with(|r| r.verify_continues.insert(0, r.verify_continues[0])),
            malformed,
        ),
        go_on(
            "a report that the job does not have",
            begun,
            rounds.proceed_with(|r| r.verify_continues[0].report_id = ReportId::new([9; 16])),
            malformed,
        ),
        go_on(
            "reports in another order",
            begun,
            rounds.proceed_with(|r| r.verify_continues.reverse()),
            malformed,
        ),
        go_on("no reports", begun, rounds.proceed_with(|r| r.verify_continues.clear()), malformed),
        go_on("a body that ends too early", begun, good[..good.len() - 1].to_vec(), malformed),
        go_on("another body for a step that was taken", finished, fewer, "stepMismatch"),
    ]
}

fn shares(timed: &Good<'_>, selected: &Good<'_>, rounds: &Good<'_>) -> Vec<Value> {
    let after = |good: &Good<'_>, what: &str, body: Vec<u8>, problem: &str| {
        let mut before = vec![(BeginJob, &good.init[..])];
        before.extend(good.proceed.as_ref().map(|body| (ContinueJob, &body[..])));
        good.refused(what, &before, (GetShare, body), problem)
    };
    let interval = |start, duration| v18::Interval { start, duration };
    let selector = |i| v18::BatchSelector::TimeInterval(i);
    let both = |i: v18::Interval| {
        timed.share_with(|r| {
            r.collection_job_req.query = v18::Query::TimeInterval(i);
            r.batch_selector = selector(i);
        })
    };
    let batch = v18::BatchSelector::LeaderSelected(BatchId::new([7; 32]));
    let (malformed, invalid) = ("invalidMessage", "batchInvalid");
    let other_param = &[0, 0, 0, 0, 0, 1, 0];
    let collected = [(BeginJob, &timed.init[..]), (GetShare, &timed.share[..])];
    vec![
        after(
            timed,
            "a batch of another mode than the query's",
            timed.share_with(|r| r.batch_selector = batch),
            malformed,
        ),
        after(
            timed,
            "query and batch of another mode than the task's",
            timed.share_with(|r| {
                r.collection_job_req.query = v18::Query::LeaderSelected;
                r.batch_selector = batch;
            }),
            malformed,
        ),
        after(
            timed,
            "an interval that the query does not have",
            timed.share_with(|r| r.batch_selector = selector(interval(UNIT - 2, 3))),
            invalid,
        ),
        after(timed, "an interval of no length", both(interval(UNIT - 1, 0)), invalid),
        after(timed, "an interval beyond all time", both(interval(u64::MAX, 2)), invalid),
        after(
            timed,
            "an interval of too few reports",
            timed.share_with(|r| r.batch_selector = selector(interval(UNIT, 1))),
            "invalidBatchSize",
        ),
        after(
            selected,
            "a batch of no reports",
            selected.share_with(|r| r.batch_selector = batch),
            invalid,
        ),
        after(
            timed,
            "another number of reports",
            timed.share_with(|r| r.report_count += 1),
            "batchMismatch",
        ),
        after(timed, "another checksum", timed.share_with(|r| r.checksum[0] ^= 1), "batchMismatch"),
        after(
            timed,
            "an aggregation parameter for a VDAF without one",
            timed.share_with(|r| r.collection_job_req.agg_param = &[0]),
            "invalidAggregationParameter",
        ),
        after(
            rounds,
            "another aggregation parameter than the jobs'",
            rounds.share_with(|r| r.collection_job_req.agg_param = other_param),
            malformed,
        ),
        after(
            timed,
            "a collection job extension that nobody knows",
            timed.share_with(|r| r.collection_job_req.extensions = vec![extension(9, &[])]),
            "unsupportedExtension",
        ),
        after(
            timed,
            "collection job extensions out of order",
            timed.share_with(|r| {
                r.collection_job_req.extensions = vec![extension(9, &[]), extension(8, &[])]
            }),
            "invalidExtension",
        ),
        after(
            timed,
            "a body that ends too early",
            timed.share[..timed.share.len() - 1].to_vec(),
            malformed,
        ),
        after(timed, "a body with a byte too much", [&timed.share[..], &[0]].concat(), malformed),
        timed.refused(
            "a part of what was collected",
            &collected,
            (
                GetShare,
                timed.share_with(|r| {
                    r.collection_job_req.query = v18::Query::TimeInterval(interval(UNIT, 1));
                    r.batch_selector = selector(interval(UNIT, 1));
                }),
            ),
            "batchOverlap",
        ),
        timed.refused(
            "more than what was collected",
            &collected,
            (GetShare, both(interval(UNIT - 5, 20))),
            "batchOverlap",
        ),
        timed.refused(
            "what was collected, with another checksum",
            &collected,
            (GetShare, timed.share_with(|r| r.checksum[0] ^= 1)),
            "batchOverlap",
        ),
    ]
}

/// How a report is made that is refused.
struct Odd {
    unit: u64,
    public_extensions: Vec<u8>,
    private_extensions: Vec<(u16, &'static [u8])>,
    public_share: Option<Vec<u8>>,
    payload: Option<Vec<u8>>,
    config_id: u8,
    role: Role,
    /// What it is bound to besides, if not the task's configuration.
    other_task: bool,
    damaged: bool,
    ping_pong: Option<Vec<u8>>,
    clock: u64,
}

impl Default for Odd {
    fn default() -> Self {
        Self {
            unit: UNIT - 1,
            public_extensions: Vec::new(),
            private_extensions: Vec::new(),
            public_share: None,
            payload: None,
            config_id: HELPER_KEY,
            role: Role::Helper,
            other_task: false,
            damaged: false,
            ping_pong: None,
            clock: NOW,
        }
    }
}

/// Reports that are refused by themselves, in jobs that are not.
pub fn reports(exchanges: &[(Kind, Value)]) -> Value {
    let good = Good::of(exchanges, "count-time-interval");
    let refused = |what: &str, error: ReportError, odd: Odd| report(&good, what, &[], error, odd);
    let invalid = ReportError::InvalidMessage;
    let sealed = ReportError::HpkeDecryptError;
    let verify = ReportError::VdafVerifyError;
    let first = v18::AggregationJobInitReq::decode(&good.init).unwrap().verify_inits[0];
    let others = good.init_with(|r| r.verify_inits.retain(|init| init.payload != first.payload));
    let rest = v18::AggregationJobInitReq::decode(&others).unwrap();
    let mut checksum = daphne_core::batch::Checksum::default();
    for init in &rest.verify_inits {
        checksum.add(&init.report_share.report_metadata.report_id);
    }
    let their_share = good.share_with(|r| {
        (r.report_count, r.checksum) = (3, *checksum.as_bytes());
    });
    let collected = [(BeginJob, &others[..]), (GetShare, &their_share[..])];
    let cases = vec![
        report(
            &good,
            "its batch was collected",
            &collected,
            ReportError::BatchCollected,
            Odd::default(),
        ),
        report(
            &good,
            "it was aggregated before",
            &[(BeginJob, &good.init[..])],
            ReportError::ReportReplayed,
            Odd::default(),
        ),
        refused(
            "it was made in the next unit of time",
            ReportError::ReportTooEarly,
            Odd { unit: UNIT + 1, ..Odd::default() },
        ),
        refused(
            "it was made at the end of all time",
            ReportError::ReportTooEarly,
            Odd { unit: u64::MAX, ..Odd::default() },
        ),
        refused(
            "it was made before the task began",
            ReportError::TaskNotStarted,
            Odd { unit: TASK_INTERVAL.0 - 1, ..Odd::default() },
        ),
        refused(
            "it was made after the task ended",
            ReportError::TaskExpired,
            Odd {
                unit: TASK_INTERVAL.0 + TASK_INTERVAL.1,
                clock: NOW + PRECISION,
                ..Odd::default()
            },
        ),
        refused(
            "it has a public extension that nobody knows",
            invalid,
            Odd { public_extensions: vec![0, 9, 0, 0], ..Odd::default() },
        ),
        refused(
            "it has a private extension that nobody knows",
            invalid,
            Odd { private_extensions: vec![(9, b"x")], ..Odd::default() },
        ),
        refused(
            "it has one extension in public and in private",
            invalid,
            Odd {
                public_extensions: vec![0, 9, 0, 0],
                private_extensions: vec![(9, b"")],
                ..Odd::default()
            },
        ),
        refused(
            "its public extensions are out of order",
            invalid,
            Odd { public_extensions: vec![0, 9, 0, 0, 0, 8, 0, 0], ..Odd::default() },
        ),
        refused(
            "its private extensions are out of order",
            invalid,
            Odd { private_extensions: vec![(9, b""), (8, b"")], ..Odd::default() },
        ),
        refused(
            "its public extensions end in the middle of one",
            invalid,
            Odd { public_extensions: vec![0, 9, 0, 5], ..Odd::default() },
        ),
        refused(
            "its input share is none of the VDAF's",
            invalid,
            Odd { payload: Some(vec![1]), ..Odd::default() },
        ),
        refused(
            "its public share is none of the VDAF's",
            invalid,
            Odd { public_share: Some(vec![1]), ..Odd::default() },
        ),
        refused(
            "it is sealed to a key that there is not",
            sealed,
            Odd { config_id: 0xff, ..Odd::default() },
        ),
        refused("it is sealed to the leader", sealed, Odd { role: Role::Leader, ..Odd::default() }),
        refused(
            "it is sealed for a task whose configuration differs",
            sealed,
            Odd { other_task: true, ..Odd::default() },
        ),
        refused("its ciphertext was damaged", sealed, Odd { damaged: true, ..Odd::default() }),
        refused(
            "the leader's message is of another report",
            verify,
            Odd { ping_pong: Some(rest.verify_inits[0].payload.to_vec()), ..Odd::default() },
        ),
        refused(
            "the leader's message is none",
            verify,
            Odd { ping_pong: Some(vec![0xff]), ..Odd::default() },
        ),
        refused(
            "the leader's message is that of a later step",
            verify,
            Odd { ping_pong: Some(vec![2, 0, 0, 0, 0]), ..Odd::default() },
        ),
    ];
    json!({
        "about": "Reports that a Helper must refuse by themselves: the job is answered, and so are its other reports. Each begins with a \
                  Helper that has seen nothing, and that answers what is in `before`. `exchange` names the file that has the task.",
        "cases": cases,
    })
}

/// A job of one report that is refused.
fn report(
    good: &Good<'_>,
    what: &str,
    before: &[(To, &[u8])],
    error: ReportError,
    odd: Odd,
) -> Value {
    let world = World::new(good.kind);
    let shares = recorded(good.exchange).swap_remove(0);
    let mut w = Writer::new();
    w.raw(&[1; 16]).u64(odd.unit).opaque16(&odd.public_extensions);
    let metadata = w.finish().unwrap();
    let extensions = odd.private_extensions.iter().map(|(code, data)| extension(*code, data));
    let plaintext = v18::PlaintextInputShare {
        private_extensions: extensions.collect(),
        payload: odd.payload.as_deref().unwrap_or(&shares.helper),
    };
    let plaintext = plaintext.encode().unwrap();
    let public_share = odd.public_share.unwrap_or(shares.public);
    let mut sealing = World::new(good.kind);
    if odd.other_task {
        // An address without the slash at its end.
        let configuration = sealing.task.parameters.task_configuration.clone();
        let mut configuration = v18::TaskConfiguration::decode(&configuration).unwrap();
        configuration.leader_aggregator_endpoint = "https://leader.example/dap";
        sealing.task.parameters.task_configuration = configuration.encode().unwrap();
    }
    let helper_key = keypair(HELPER_KEY);
    let to = (odd.role, helper_key.config());
    let (_, mut sealed) = sealing.seal(to, &metadata, &public_share, &plaintext, &[0x30; 32]);
    sealed.config_id = HpkeConfigId(odd.config_id);
    if odd.damaged {
        sealed.payload[0] ^= 1;
    }
    let first = v18::AggregationJobInitReq::decode(&good.init).unwrap().verify_inits[0];
    let init = v18::AggregationJobInitReq {
        verification_key_id: 0,
        agg_param: &[],
        extensions: Vec::new(),
        verify_inits: vec![v18::VerifyInit {
            report_share: v18::ReportShare {
                report_metadata: v18::ReportMetadata::decode(&metadata).unwrap(),
                public_share: &public_share,
                encrypted_input_share: sealed.as_ref(),
            },
            payload: odd.ping_pong.as_deref().unwrap_or(first.payload),
        }],
    };
    let body = init.encode().unwrap();
    for (to, body) in before {
        send(&world, *to, body).unwrap();
    }
    world.now.set(odd.clock);
    world.cluster.set_time(odd.clock);
    let answer = send(&world, BeginJob, &body).unwrap();
    let code = DapVersion::V18.report_error_code(error).unwrap();
    assert_eq!(answer, [&[1; 16][..], &[2, code]].concat(), "{what}");
    let neutral = world.task.parameters.wire().aggregation_job_resp(&answer).unwrap();
    assert_eq!(neutral[0].result, VerifyRespResult::Reject(error), "{what}");
    json!({
        "what": what,
        "exchange": good.kind.name,
        "helper_clock": odd.clock,
        "before": good.before(before),
        "helper_plaintext_input_share": explain("PlaintextInputShare", &plaintext),
        "helper_hpke_ephemeral_ikm": hex(&[0x30; 32]),
        "request": step(BeginJob, &body),
        "response": explain("AggregationJobResp", &answer),
        "report_error": { "code": code, "name": error.label() },
    })
}
