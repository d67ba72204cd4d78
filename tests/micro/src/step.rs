//! Parts of the work on a job.

use daphne_core::{
    aggregate::helper::{Examined, HelperJob, Verified},
    hpke::{self, Opener, OwnX25519, Role, SharedPoints},
    message::{AggregationJobInit, VerifyResp, VerifyRespResult},
    vdaf::{AggregateShare, AggregationParam, HelperTransition, OutputShare},
    wire::input_share_aad,
};

use crate::Case;

/// A part of the work, for all reports of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The request is decoded.
    Decode,
    /// Input shares are opened (HPKE) and decoded.
    Open,
    /// The same, when somebody else has computed Diffie-Hellman.
    OpenAgreed,
    /// Reports are verified, up to the helper's output share and its message.
    Verify,
    /// Output shares are added, and the sum is encoded.
    Accumulate,
    /// The answer is encoded.
    Encode,
    /// All of these, as [`HelperJob::examine`] does them.
    Whole,
}

/// Each of them, with its name. Whoever refers to one by number means its place here.
pub const STEPS: &[(&str, Step)] = &[
    ("decode", Step::Decode),
    ("open", Step::Open),
    ("verify", Step::Verify),
    ("accumulate", Step::Accumulate),
    ("encode", Step::Encode),
    ("whole", Step::Whole),
    ("open-agreed", Step::OpenAgreed),
];

/// A case, and what each step begins with.
#[derive(Clone, Debug)]
pub struct Bench<'a> {
    case: &'a Case,
    init: AggregationJobInit<'a>,
    agg_param: AggregationParam,
    /// Diffie-Hellman results.
    shared: SharedPoints,
    /// Opened input shares.
    input_shares: Vec<Vec<u8>>,
    outputs: Vec<OutputShare>,
    answers: Vec<VerifyResp>,
}

impl Case {
    /// Does all steps once, to have what each begins with.
    ///
    /// # Panics
    /// If the helper does not take the job, with all its reports.
    pub fn bench(&self) -> Bench<'_> {
        let init = self.task.parameters.wire().aggregation_job_init(self.request).expect("a job");
        let agg_param = self.task.vdaf.decode_agg_param(init.agg_param).expect("a parameter");
        let (input_shares, outputs, answers) = (Vec::new(), Vec::new(), Vec::new());
        let shared = SharedPoints::default();
        let mut bench =
            Bench { case: self, init, agg_param, shared, input_shares, outputs, answers };
        let opener = bench.opener();
        let ciphertexts =
            bench.init.verify_inits.iter().map(|v| v.report_share.encrypted_input_share);
        let points: Vec<_> = ciphertexts.filter_map(|c| opener.point(c)).collect();
        bench.shared = OwnX25519.results(opener.keypair(), &points).expect("a key of X25519");
        bench.input_shares = bench.open(false);
        for n in 0..bench.len() {
            let (output, message) = bench.verify(n);
            bench.outputs.push(output);
            bench.answers.push(VerifyResp {
                report_id: bench.init.verify_inits[n].report_share.metadata.report_id,
                result: VerifyRespResult::Continue(message),
            });
        }
        bench
    }
}

impl Bench<'_> {
    /// Reports in the job.
    #[expect(clippy::len_without_is_empty, reason = "there are always some")]
    pub fn len(&self) -> usize {
        self.init.verify_inits.len()
    }

    /// Does a step for all reports of the job. What is returned depends on all that was computed: in bytes, or whatever is
    /// at hand.
    ///
    /// # Panics
    /// If a report is not taken.
    pub fn run(&self, step: Step) -> usize {
        match step {
            Step::Decode => self.decode().verify_inits.len(),
            Step::Open => self.open(false).iter().map(Vec::len).sum(),
            Step::OpenAgreed => self.open(true).iter().map(Vec::len).sum(),
            Step::Verify => (0..self.len()).map(|n| self.verify(n).1.len()).sum(),
            Step::Accumulate => self.accumulate(self.outputs.iter()).len(),
            Step::Encode => self.encode(&self.answers).len(),
            Step::Whole => self.whole().len(),
        }
    }

    fn decode(&self) -> AggregationJobInit<'_> {
        let wire = self.case.task.parameters.wire();
        wire.aggregation_job_init(self.case.request).expect("a job")
    }

    /// What opens the job's reports, which are all sealed to one key.
    fn opener(&self) -> Opener<'_> {
        let info = hpke::input_share_info(self.case.task.parameters.version, Role::Helper);
        let share = &self.init.verify_inits[0].report_share;
        let key = self.case.keys.get(share.encrypted_input_share.config_id).expect("a key");
        Opener::new(key, &info)
    }

    fn open(&self, agreed: bool) -> Vec<Vec<u8>> {
        let opener = self.opener();
        (0..self.len()).map(|n| self.open_one(&opener, n, agreed)).collect()
    }

    fn open_one(&self, opener: &Opener<'_>, n: usize, agreed: bool) -> Vec<u8> {
        let parameters = &self.case.task.parameters;
        let share = &self.init.verify_inits[n].report_share;
        let aad = input_share_aad(
            self.case.task.id(),
            &parameters.task_configuration,
            share.metadata.encoded,
            share.public_share,
        )
        .expect("short fields");
        let sealed = share.encrypted_input_share;
        let opened = match agreed {
            true => opener.open_with(&self.shared[n], &aad, sealed),
            false => opener.open(&aad, sealed),
        }
        .expect("opens");
        parameters.wire().plaintext_input_share(&opened).expect("an input share").payload.to_vec()
    }

    fn verify(&self, n: usize) -> (OutputShare, Vec<u8>) {
        let task = &self.case.task;
        let report = &self.init.verify_inits[n];
        let verified = task.vdaf.helper_init(
            &task.verify_key,
            &task.parameters.version.vdaf_context(task.id()),
            &self.agg_param,
            report.report_share.metadata.report_id.as_bytes(),
            report.report_share.public_share,
            &self.input_shares[n],
            report.payload,
        );
        match verified {
            Ok(HelperTransition::Finished { output, message }) => (output, message),
            Ok(HelperTransition::Continued { .. }) => panic!("a VDAF of several rounds"),
            Err(e) => panic!("{e}"),
        }
    }

    fn sum(&self) -> AggregateShare {
        self.case.task.vdaf.aggregate_init(&self.agg_param)
    }

    fn accumulate<'o>(&self, outputs: impl Iterator<Item = &'o OutputShare>) -> Vec<u8> {
        let mut sum = self.sum();
        for output in outputs {
            sum.accumulate(output).expect("the same VDAF");
        }
        sum.encode()
    }

    fn encode(&self, answers: &[VerifyResp]) -> Vec<u8> {
        let wire = self.case.task.parameters.wire();
        wire.encode_aggregation_job_resp(answers).expect("an answer")
    }

    fn whole(&self) -> Vec<u8> {
        let init = self.decode();
        let case = self.case;
        let job = HelperJob::new(&case.task, &case.keys, case.now, &init).expect("a job");
        let mut sum = self.sum();
        let mut answers = Vec::with_capacity(init.verify_inits.len());
        for n in 0..init.verify_inits.len() {
            let (Examined::Owned(owned), Some(Verified::Output(output))) = job.examine(n) else {
                panic!("a report was refused");
            };
            assert!(owned.is_acceptable(), "a report was refused");
            sum.accumulate(&output).expect("the same VDAF");
            let message = owned.verified.ok().flatten().expect("a message");
            let result = VerifyRespResult::Continue(message);
            answers.push(VerifyResp { report_id: owned.report_id, result });
        }
        let mut written = sum.encode();
        written.extend(self.encode(&answers));
        written
    }
}
