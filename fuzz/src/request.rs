//! Requests that a leader makes of the pool's reports, and what can be wrong about them: damage in transit, leaders that
//! mix things up, and clients that seal whatever they like.

use daphne_core::{
    batch::Checksum,
    codec::Writer,
    hpke::{self, Role},
    ids::{BatchId, HpkeConfigId, ReportId},
    message::{
        AggregateShareRequest, AggregationJobInit, BatchSelector, HpkeCiphertext,
        PartialBatchSelector, PlaintextInputShare, ReportShare, VerifyInit,
    },
    time::Time,
    wire::{Wire, input_share_aad},
};

use crate::{
    choices::Choices,
    fixture::{ParamPool, Pool, VerifiedReport, brought, helper_keys, input_share},
};

/// A report in a job's first request.
#[derive(Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its id.
    pub id: ReportId,
    /// Its time.
    pub time: Time,
    /// The encoded list of public extensions, which DAP-09 does not have.
    public_extensions: Vec<u8>,
    /// The public share.
    pub public_share: Vec<u8>,
    /// What its client sealed to the helper.
    pub plaintext: Vec<u8>,
    config_id: HpkeConfigId,
    enc: Vec<u8>,
    payload: Vec<u8>,
    /// The leader's ping-pong message.
    pub message: Vec<u8>,
    /// A client sealed the plaintext to all else as it is now.
    sealed_anew: bool,
}

impl Entry {
    /// A report of the pool, as an honest leader sends it.
    pub fn of(pool: &Pool, param: &ParamPool, n: usize) -> Self {
        let pooled = &pool.reports[n];
        let report = pooled.report();
        let sealed = report.helper_encrypted_input_share;
        Self {
            id: report.metadata.report_id,
            time: report.metadata.time,
            public_extensions: Vec::new(),
            public_share: report.public_share.to_vec(),
            plaintext: pooled.plaintext.clone(),
            config_id: sealed.config_id,
            enc: sealed.enc.to_vec(),
            payload: sealed.payload.to_vec(),
            message: param.verified[n].initialize.clone(),
            sealed_anew: false,
        }
    }

    /// Changes something about it. `others` lend their parts.
    fn edit(&mut self, pool: &Pool, choices: &mut Choices<'_>, others: &[Self]) {
        let other = choices.of(others);
        match choices.below(16) {
            0 => self.id = choices.report_id(),
            1 => self.time = choices.time(),
            2 => choices.edit(&mut self.public_share),
            3 => self.config_id = HpkeConfigId(choices.byte()),
            4 => choices.edit(&mut self.enc),
            5 => choices.edit(&mut self.payload),
            6 => choices.edit(&mut self.message),
            7 => self.message.clone_from(&other.message),
            8 => self.public_share.clone_from(&other.public_share),
            9 => {
                self.config_id = other.config_id;
                self.enc.clone_from(&other.enc);
                self.payload.clone_from(&other.payload);
            }
            10 => self.sealed_anew = true,
            11 => {
                choices.edit(&mut self.plaintext);
                self.sealed_anew = true;
            }
            12 => {
                self.plaintext.clone_from(&other.plaintext);
                self.sealed_anew = true;
            }
            13 => self.extend(pool, choices),
            14 => {
                self.time = choices.time();
                self.sealed_anew = true;
            }
            _ => {
                self.id = choices.report_id();
                self.sealed_anew = true;
            }
        }
    }

    /// Gives the report public extensions, or the plaintext some, and leaves the VDAF's share as it is.
    fn extend(&mut self, pool: &Pool, choices: &mut Choices<'_>) {
        if pool.task.parameters.version.has_configuration() && choices.below(2) == 0 {
            // Well-formed, and not.
            self.public_extensions.extend_from_slice(&[0, choices.byte(), 0, 0]);
            if choices.below(2) == 0 {
                choices.edit(&mut self.public_extensions);
            }
            self.sealed_anew = true;
            return;
        }
        let Some(share) = input_share(pool.wire(), &self.plaintext) else { return };
        let extensions = (0..choices.below(4))
            .map(|_| match choices.below(2) {
                0 => brought::EXTENSION,
                _ => (u16::from_be_bytes(choices.array()), choices.short()),
            })
            .collect();
        let plaintext = PlaintextInputShare { extensions, payload: share.payload };
        if let Ok(plaintext) = pool.wire().encode_plaintext_input_share(plaintext) {
            self.plaintext = plaintext;
            self.sealed_anew = true;
        }
    }

    /// Seals what its client wants sealed.
    fn seal(&mut self, pool: &Pool) {
        if !std::mem::take(&mut self.sealed_anew) {
            return;
        }
        let Some(key) = helper_keys().get(self.config_id) else { return };
        let Some(metadata) = self.metadata(pool) else { return };
        let parameters = &pool.task.parameters;
        let configuration = &parameters.task_configuration;
        let aad = input_share_aad(pool.task.id(), configuration, &metadata, &self.public_share)
            .expect("public shares are short");
        let info = hpke::input_share_info(parameters.version, Role::Helper);
        let sealed = hpke::seal(key.config(), &info, &aad, &self.plaintext, &[6; 32])
            .expect("the helper's keys are good");
        (self.enc, self.payload) = (sealed.enc, sealed.payload);
    }

    /// The encoding of its metadata; `None` if its public extensions are too long for one.
    fn metadata(&self, pool: &Pool) -> Option<Vec<u8>> {
        let version = pool.task.parameters.version;
        let wire = Wire::new(version, pool.setup.client_precision());
        let mut metadata =
            wire.report_metadata(self.id, self.time, &[]).expect("there are no extensions");
        if !self.public_extensions.is_empty() {
            // The list may be broken.
            metadata.truncate(metadata.len() - 2);
            let mut w = Writer::new();
            w.raw(&metadata).opaque16(&self.public_extensions);
            return w.finish().ok();
        }
        Some(metadata)
    }

    fn verify_init<'a>(&'a self, pool: &Pool, metadata: &'a [u8]) -> VerifyInit<'a> {
        let wire = pool.wire();
        VerifyInit {
            report_share: ReportShare {
                metadata: wire.decode_report_metadata(metadata).expect("we wrote it"),
                public_share: &self.public_share,
                encrypted_input_share: HpkeCiphertext {
                    config_id: self.config_id,
                    enc: &self.enc,
                    payload: &self.payload,
                },
            },
            payload: &self.message,
        }
    }

    /// The report of the pool whose verification this is, whoever sealed it: the same shares under the same id, and
    /// the leader's message about them.
    pub fn verified<'a>(&self, pool: &'a Pool, param: &'a ParamPool) -> Option<&'a VerifiedReport> {
        let expected = pool.setup.extensions();
        let mine = input_share(pool.wire(), &self.plaintext)
            .filter(|share| share.extensions == expected && self.public_extensions.is_empty())?;
        let (report, verified) = pool
            .reports
            .iter()
            .zip(&param.verified)
            .find(|(report, _)| report.report().metadata.report_id == self.id)?;
        let theirs = input_share(pool.wire(), &report.plaintext)?;
        let is_same = mine.payload == theirs.payload
            && self.message == verified.initialize
            && self.public_share == report.report().public_share;
        is_same.then_some(verified)
    }
}

/// A job's first request.
#[derive(Clone)]
pub struct JobRequest {
    /// The aggregation parameter.
    pub agg_param: Vec<u8>,
    /// The batch.
    pub batch: PartialBatchSelector,
    /// The reports.
    pub entries: Vec<Entry>,
}

impl JobRequest {
    /// An honest leader's, with some of the pool's reports.
    pub fn new(
        pool: &Pool,
        param: &ParamPool,
        batch: u8,
        reports: impl Iterator<Item = usize>,
    ) -> Self {
        let entries = reports.map(|n| Entry::of(pool, param, n)).collect();
        Self { agg_param: param.encoded.clone(), batch: pool.batch(batch), entries }
    }

    /// Changes something, as the next choices say.
    pub fn edit(&mut self, pool: &Pool, choices: &mut Choices<'_>) {
        let len = self.entries.len();
        match choices.below(10) {
            0 if len > 1 => self.entries.swap(choices.below(len), choices.below(len)),
            1 if len > 0 => {
                let again = choices.of(&self.entries).clone();
                self.entries.push(again);
            }
            2 if len > 1 => drop(self.entries.remove(choices.below(len))),
            3 => choices.edit(&mut self.agg_param),
            4 => {
                self.batch = match choices.below(3) {
                    0 => PartialBatchSelector::TimeInterval,
                    _ => PartialBatchSelector::LeaderSelected(BatchId::new(choices.array())),
                }
            }
            _ if len > 0 => {
                let n = choices.below(len);
                let mut entry = self.entries[n].clone();
                entry.edit(pool, choices, &self.entries);
                self.entries[n] = entry;
            }
            _ => {}
        }
    }

    /// Its bytes; `None` if there are none, as for a request without reports.
    pub fn encode(&mut self, pool: &Pool) -> Option<Vec<u8>> {
        self.entries.iter_mut().for_each(|entry| entry.seal(pool));
        let metadata = self.entries.iter().map(|e| e.metadata(pool)).collect::<Option<Vec<_>>>()?;
        let init = AggregationJobInit {
            agg_param: &self.agg_param,
            batch: self.batch,
            verify_inits: self
                .entries
                .iter()
                .zip(&metadata)
                .map(|(entry, metadata)| entry.verify_init(pool, metadata))
                .collect(),
        };
        pool.wire().encode_aggregation_job_init(&init).ok()
    }
}

/// An honest leader's request for an aggregate share of some of what a collector asked for: in DAP-09 for all of it.
pub fn share_request(
    wire: Wire,
    batch_selector: BatchSelector,
    collected: BatchSelector,
    agg_param: &[u8],
    report_count: u64,
    checksum: &Checksum,
) -> Vec<u8> {
    let binding = wire.share_binding(agg_param, &collected);
    wire.encode_aggregate_share_request(&AggregateShareRequest {
        batch_selector,
        collected,
        agg_param,
        report_count,
        checksum: *checksum.as_bytes(),
        share_binding: binding.expect("aggregation parameters are short").into(),
    })
    .expect("aggregation parameters are short")
}
