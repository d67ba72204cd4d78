//! VDAFs of both drafts: aggregation parameters, shares, kept states and ping-pong messages, damaged in transit or made
//! up by a client or the other aggregator.

use std::sync::OnceLock;

use daphne_core::{
    ids::TaskId,
    vdaf::{
        AggregationParam, FieldKind, HelperTransition, LeaderTransition, OutputShare, Vdaf,
        VerifyKey, share,
    },
    version::{DapVersion, VdafDraft},
};

use crate::{
    bounded,
    choices::Choices,
    fixture::{SETUPS, Setup},
};

/// A VDAF, a report, and what honest parties say about it under each aggregation parameter.
pub struct Run {
    /// The VDAF.
    pub vdaf: Vdaf,
    key: VerifyKey,
    context: Vec<u8>,
    public_share: Vec<u8>,
    leader_share: Vec<u8>,
    helper_share: Vec<u8>,
    /// By aggregation parameter.
    pub steps: Vec<Steps>,
}

/// An aggregation parameter with the messages and states of an honest run.
pub struct Steps {
    param: AggregationParam,
    /// Its encoding.
    pub encoded: Vec<u8>,
    /// From the leader.
    pub initialize: Vec<u8>,
    /// From the helper: `finish`, or `continue`.
    pub answer: Vec<u8>,
    /// From the leader again, if there are two rounds.
    pub finish: Vec<u8>,
    /// What the helper keeps in between.
    pub state: Vec<u8>,
    /// The leader's aggregate share of the report.
    pub leader: Vec<u8>,
    /// The helper's.
    pub helper: Vec<u8>,
}

/// The report's id.
pub const NONCE: [u8; 16] = [9; 16];

/// Every VDAF in this order: those of the first setups in VDAF-08, then in VDAF-18.
pub const RUNS: usize = 2 * KINDS;
/// VDAFs with their parameters: those of the tasks of one version.
const KINDS: usize = 10;

const SHARES: &[u8] = include_bytes!("../reports/shares.bin");

/// The setup and the draft of a run.
pub fn described(n: usize) -> (&'static Setup, VdafDraft) {
    let draft = if n < KINDS { VdafDraft::V08 } else { VdafDraft::V18 };
    (&SETUPS[n % KINDS], draft)
}

/// The context of the draft's application.
pub fn context(draft: VdafDraft) -> Vec<u8> {
    let version = match draft {
        VdafDraft::V08 => DapVersion::V09,
        VdafDraft::V18 => DapVersion::V18,
    };
    version.vdaf_context(&TaskId::new([8; 32]))
}

/// The run of this number, modulo how many there are.
pub fn run(n: usize) -> &'static Run {
    static ALL: [OnceLock<Run>; RUNS] = [const { OnceLock::new() }; RUNS];
    let n = n % RUNS;
    ALL[n].get_or_init(|| Run::new(n))
}

/// The n-th run's input shares, as `seeds` made them.
fn shares(n: usize) -> [Vec<u8>; 3] {
    let mut left = SHARES;
    let mut next = || {
        let (len, rest) = left.split_first_chunk().expect("`seeds --reports` writes them");
        let (share, rest) = rest.split_at(usize::from(u16::from_be_bytes(*len)));
        left = rest;
        share.to_vec()
    };
    (0..3 * n).for_each(|_| drop(next()));
    [next(), next(), next()]
}

impl Run {
    fn new(n: usize) -> Self {
        let (setup, draft) = described(n);
        let vdaf = Vdaf::new(draft, setup.vdaf).expect("the parameters are good");
        let key = vdaf.verify_key(&vec![1; vdaf.verify_key_len()]).expect("of this length");
        let [public_share, leader_share, helper_share] = shares(n);
        let context = context(draft);
        let params = setup.params(&vdaf);
        let mut run =
            Self { vdaf, key, context, public_share, leader_share, helper_share, steps: vec![] };
        run.steps = params.into_iter().map(|param| run.honest(param)).collect();
        run
    }

    fn honest(&self, param: AggregationParam) -> Steps {
        let honest = "honest parties verify; else `seeds --reports` is to make new shares";
        let (vdaf, ctx) = (&self.vdaf, &self.context);
        let (leader, initialize) = vdaf
            .leader_init(&self.key, ctx, &param, &NONCE, &self.public_share, &self.leader_share)
            .expect(honest);
        let transition = self.helper(&param, &self.public_share, &self.helper_share, &initialize);
        let (answer, waiting) = match transition.expect(honest) {
            HelperTransition::Finished { output, message } => (message, Ok(output)),
            HelperTransition::Continued { state, message } => (message, Err(state)),
        };
        let continued = vdaf.leader_continued(ctx, leader, &param, &answer).expect(honest);
        let (leader, finish) = match continued {
            LeaderTransition::Finished(output) => (output, Vec::new()),
            LeaderTransition::FinishedWithOutbound(output, message) => (output, message),
        };
        let state = waiting.as_ref().err().map(|state| state.encode()).unwrap_or_default();
        let helper = waiting
            .or_else(|state| vdaf.helper_continued(ctx, state, &param, &finish))
            .expect(honest);
        let (leader, helper) = (self.encoded(&param, &leader), self.encoded(&param, &helper));
        let encoded = param.encode();
        Steps { param, encoded, initialize, answer, finish, state, leader, helper }
    }

    fn helper(
        &self,
        param: &AggregationParam,
        public_share: &[u8],
        input_share: &[u8],
        inbound: &[u8],
    ) -> Result<HelperTransition, daphne_core::vdaf::VerifyError> {
        let (key, ctx) = (&self.key, &self.context);
        self.vdaf.helper_init(key, ctx, param, &NONCE, public_share, input_share, inbound)
    }

    /// An output share as the aggregate share of one report.
    fn encoded(&self, param: &AggregationParam, output: &OutputShare) -> Vec<u8> {
        let mut sum = self.vdaf.aggregate_init(param);
        sum.accumulate(output).expect("it is this VDAF's");
        let encoded = sum.encode();
        assert_eq!(encoded.len(), self.vdaf.agg_share_len(param));
        encoded
    }

    /// What verifying one report may allocate: shares and proofs are expanded from seeds, each some times.
    fn bytes_max(&self, param: &AggregationParam, input: usize) -> usize {
        (32 << 10) + 64 * (input + self.leader_share.len() + self.vdaf.agg_share_len(param))
    }
}

/// Chooses a VDAF, what comes in, and how it is damaged.
pub fn vdaf(data: &[u8]) {
    let mut choices = Choices::new(data);
    let run = run(usize::from(choices.byte()));
    let steps = &run.steps[choices.below(run.steps.len())];
    match choices.below(6) {
        0 => parameter(run, steps, choices),
        1 => helper(run, steps, choices),
        2 => leader(run, steps, choices),
        3 => continued(run, steps, choices),
        4 => unshard(run, steps, choices),
        _ => sums(run, steps, choices),
    }
}

/// Damages some of these.
fn damage<const N: usize>(choices: &mut Choices<'_>, fields: [&[u8]; N]) -> [Vec<u8>; N] {
    let mut fields = fields.map(<[u8]>::to_vec);
    while !choices.is_empty() {
        let field = choices.below(N);
        choices.edit(&mut fields[field]);
    }
    fields
}

/// Reads an aggregation parameter; all that is computed of it is.
fn parameter(run: &Run, steps: &Steps, mut choices: Choices<'_>) {
    let [bytes] = damage(&mut choices, [&steps.encoded]);
    let vdaf = &run.vdaf;
    // A prefix is a string of bits on the heap. At the 1st level there are two of a bit, at the 12th 4,096 of 12.
    let bytes_max = 1_024 + 256 * bytes.len();
    let Ok(param) = bounded(bytes_max, || vdaf.decode_agg_param(&bytes)) else { return };
    assert!(param.encode() == bytes, "the parameter encodes otherwise");
    assert_eq!(param.prefixes().len(), param.prefix_count());
    if param.prefix_count() > 0 {
        assert!(vdaf.prefixes(&param.prefixes()).as_ref() == Ok(&param));
    }
    assert!(vdaf.agg_share_len(&param) <= vdaf.agg_share_len_max());
    assert!((vdaf.work(&param) > 0) == (param.prefix_count() > 0));
    let field = vdaf.field().at(&bytes);
    assert_eq!(vdaf.agg_share_len(&param) % field.element_len(), 0);
    assert_eq!(vdaf.aggregate_init(&param).encode().len(), vdaf.agg_share_len(&param));
    assert!(vdaf.is_valid_agg_param(&param, &[]));
    let again = vdaf.is_valid_agg_param(&param, std::slice::from_ref(&param));
    assert!(!again || param.prefix_count() == 0, "reports are aggregated once for a parameter");
    // Most are others' parameters, which `prio` does not expect.
    for other in 0..RUNS {
        let other = self::run(other);
        // Prio3's is empty in either draft.
        let is_other_draft = param.prefix_count() > 0 && other.vdaf.draft() != vdaf.draft();
        if other.vdaf.config() != vdaf.config() || is_other_draft {
            assert_eq!(other.vdaf.agg_share_len(&param), 0);
            assert!(other.vdaf.decode_helper_state(&param, &steps.state).is_err());
            let shares = (&steps.leader, &steps.helper);
            assert!(other.vdaf.unshard(&param, shares.0, shares.1, 1).is_err());
        }
    }
}

/// The helper's first step with the shares of a client and the message of a leader.
fn helper(run: &Run, steps: &Steps, mut choices: Choices<'_>) {
    let honest: [&[u8]; 3] = [&run.public_share, &run.helper_share, &steps.initialize];
    let [public_share, input_share, inbound] = damage(&mut choices, honest);
    let bytes_max = run.bytes_max(&steps.param, public_share.len() + input_share.len());
    let transition =
        bounded(bytes_max, || run.helper(&steps.param, &public_share, &input_share, &inbound));
    match transition {
        Err(_) => {
            assert!([&public_share, &input_share, &inbound] != honest, "a good report is refused");
        }
        Ok(HelperTransition::Finished { output, .. }) => {
            assert!([&public_share, &input_share, &inbound] == honest, "a forgery");
            assert!(run.encoded(&steps.param, &output) == steps.helper);
        }
        Ok(HelperTransition::Continued { state, .. }) => {
            let bytes = state.encode();
            assert_eq!(bytes.len(), run.vdaf.helper_state_len(&steps.param));
            let kept = run.vdaf.decode_helper_state(&steps.param, &bytes).expect("we wrote it");
            assert!(kept.encode() == bytes);
        }
    }
}

/// The leader's two steps, with the shares of a client and the message of a helper. The helper decides whether the proof
/// is right, so that a leader may accept what no helper would.
fn leader(run: &Run, steps: &Steps, mut choices: Choices<'_>) {
    let (vdaf, ctx, param) = (&run.vdaf, &run.context, &steps.param);
    let honest: [&[u8]; 3] = [&run.public_share, &run.leader_share, &steps.answer];
    let [public_share, input_share, inbound] = damage(&mut choices, honest);
    let is_honest = [&public_share, &input_share, &inbound] == honest;
    let bytes_max = run.bytes_max(param, public_share.len() + input_share.len());
    let accepted = bounded(bytes_max, || {
        let begun = vdaf.leader_init(&run.key, ctx, param, &NONCE, &public_share, &input_share);
        vdaf.leader_continued(ctx, begun?.0, param, &inbound)
    });
    match accepted {
        Ok(
            LeaderTransition::Finished(output) | LeaderTransition::FinishedWithOutbound(output, _),
        ) => {
            let output = run.encoded(param, &output);
            assert!(!is_honest || output == steps.leader);
        }
        Err(_) => assert!(!is_honest, "a good report is refused"),
    }
}

/// What the helper kept, and the leader's last message.
fn continued(run: &Run, steps: &Steps, mut choices: Choices<'_>) {
    let [state, inbound] = damage(&mut choices, [&steps.state, &steps.finish]);
    let (vdaf, param) = (&run.vdaf, &steps.param);
    let bytes_max = run.bytes_max(param, state.len());
    bounded(bytes_max, || {
        let Ok(kept) = vdaf.decode_helper_state(param, &state) else { return };
        assert!(kept.encode() == state, "the state encodes otherwise");
        if let Ok(output) = vdaf.helper_continued(&run.context, kept, param, &inbound) {
            assert!(inbound == steps.finish, "there is one last message");
            let output = run.encoded(param, &output);
            assert!(state != steps.state || output == steps.helper);
        }
    });
}

/// The collector, with shares of both aggregators.
fn unshard(run: &Run, steps: &Steps, mut choices: Choices<'_>) {
    let count = choices.number();
    let [leader, helper] = damage(&mut choices, [&steps.leader, &steps.helper]);
    let bytes_max = run.bytes_max(&steps.param, leader.len() + helper.len());
    let result = bounded(bytes_max, || run.vdaf.unshard(&steps.param, &leader, &helper, count));
    if result.is_ok() {
        let len = run.vdaf.agg_share_len(&steps.param);
        assert!(leader.len() == len && helper.len() == len);
    }
}

/// What stores add up.
fn sums(run: &Run, steps: &Steps, mut choices: Choices<'_>) {
    let field = *choices.of(&[
        run.vdaf.field().at(&steps.encoded),
        FieldKind::F64,
        FieldKind::F128,
        FieldKind::F255,
        FieldKind::Poplar1 { bits: 4 },
    ]);
    let [mut sum, other] = damage(&mut choices, [&steps.leader, &steps.helper]);
    let before = sum.clone();
    bounded(1_024, || match share::add_assign(field, &mut sum, &other) {
        Err(_) => assert!(sum == before, "a failure changes nothing"),
        Ok(()) => {
            share::sub_assign(field, &mut sum, &other).expect("it was just added");
            assert!(sum == before, "what is added can be taken away");
        }
    });
}
