//! One batch of reports end to end, on a task that exists for this only.

use std::fmt::Display;

use daphne_core::{
    batch::BatchMode,
    configuration::{self, Agreement},
    ids::AggregationJobId,
    task::{TaskRole, TaskSpec},
    vdaf::{Vdaf, VdafConfig},
    version::DapVersion,
};
use serde_json::json;

use super::{Patient, Verdict};
use crate::{
    Failure,
    admin::AdminClient,
    drive,
    helper_client::{AuthHeader, HelperClient},
    http::{ClientError, Retry},
    output::{Progress, clean},
    reports::{self, Generator, Measurements},
    task_file::{self, TaskFile, random},
};

/// Reports of the canary: the fewest that two aggregators may tell a collector about.
const REPORTS: u64 = 2;
const RETRIES: usize = 3;

impl Patient<'_> {
    /// For each version of DAP: makes a task, aggregates and collects reports as its leader, sends everything twice, presents a
    /// wrong token, and deletes the task with all that it stored.
    pub(super) fn canary(&mut self, admin: &AdminClient) {
        let base = self.http.base().to_string();
        let (mut driven, mut refused, mut deleted) = (Vec::new(), Vec::new(), Vec::new());
        for version in DapVersion::ALL {
            let file = match canary_task(&base, version) {
                Ok(file) => file,
                Err(e) => return self.note("canary", Verdict::Failed, e.to_string()),
            };
            let Ok(id) = file.task_id() else { return };
            let created = admin.create_task(&file.spec);
            // Whatever became of its creation, and of what follows, the task must go.
            driven.push((
                version,
                match created {
                    Ok(_) => {
                        let driven = aggregate_and_collect(&file);
                        refused.push((version, wrong_token(&file)));
                        driven
                    }
                    Err(e) => Err(format!("the task was not created: {e}")),
                },
            ));
            let gone = admin.delete_task(&id, Some(0));
            deleted.push((
                version,
                match gone {
                    Ok(_) => Ok(format!("task {id} and what it stored are gone")),
                    Err(e) => Err(format!(
                        "task {id} is left: {e}; `dapctl task rm {id} --purge-after 0`"
                    )),
                },
            ));
        }
        if !refused.is_empty() {
            self.check("leaders_wrong_token", of_all(refused));
        }
        self.check("canary", of_all(driven));
        self.check("canary_deleted", of_all(deleted));
    }
}

/// One result of those of all versions: what is wrong, or else what is well.
fn of_all(results: Vec<(DapVersion, Result<String, String>)>) -> Result<String, String> {
    let (mut well, mut wrong) = (Vec::new(), Vec::new());
    for (version, result) in results {
        match result {
            Ok(text) => well.push(format!("{}: {text}", version.tag())),
            Err(text) => wrong.push(format!("{}: {text}", version.tag())),
        }
    }
    if wrong.is_empty() { Ok(well.join("; ")) } else { Err(wrong.join("; ")) }
}

/// A task whose reports count in one batch that is open to them only.
fn canary_task(base: &str, version: DapVersion) -> Result<TaskFile, Failure> {
    let helper_url = format!("{base}{}/", version.path_prefix());
    let mut fields = json!({
        "version": version, "role": TaskRole::Helper, "batch_mode": BatchMode::LeaderSelected,
        "vdaf": VdafConfig::Prio3Count, "min_batch_size": REPORTS, "time_precision": 60,
    });
    let fields = fields
        .as_object_mut()
        .ok_or_else(|| Failure::Wrong("the canary task has no JSON".into()))?;
    let wrong = |e: &dyn Display| Failure::Wrong(e.to_string());
    let vdaf = Vdaf::new(version.vdaf_draft(), VdafConfig::Prio3Count).map_err(|e| wrong(&e))?;
    let generated = task_file::generate_missing(fields, vdaf.verify_key_len())?;
    let mut spec: TaskSpec = task_file::spec_from_value(serde_json::Value::Object(fields.clone()))?;
    if version.has_configuration() {
        let agreement = Agreement {
            task_info: b"dapctl doctor",
            leader_url: "https://leader.invalid/",
            helper_url: &helper_url,
            task_interval: None,
        };
        spec.task_configuration =
            configuration::encode(&spec, &agreement).map_err(|e| wrong(&e))?;
    }
    spec.task_id = Some(*task_file::check(&spec)?.id());
    Ok(TaskFile {
        spec,
        helper_url,
        leader_hpke_keypair: task_file::new_keypair()?,
        collector_hpke_keypair: generated.collector,
        taskprov: None,
    })
}

fn aggregate_and_collect(file: &TaskFile) -> Result<String, String> {
    let run = || -> Result<drive::Summary, Failure> {
        let retry = Retry::times(RETRIES);
        let configs = drive::helper_client(file, AuthHeader::Bearer, retry)?.hpke_configs()?;
        let measurements = Measurements::Random { seed: 1 };
        let reports = Generator::new(file, &configs, measurements, reports::now(), 0)?;
        let options = drive::Options { replay: true, retry, ..drive::Options::default() };
        drive::run(file, reports.reports(REPORTS), &options, &Progress::silent())
    };
    match run() {
        Ok(summary) if summary.ok && summary.matches == Some(true) => Ok(format!(
            "{REPORTS} reports were aggregated, collected and sent again, and their sum is right; the job took {:.0} ms",
            summary.job_latency_ms.p50
        )),
        Ok(summary) => {
            let problem = summary.problems.first().map_or("the sum is wrong", String::as_str);
            Err(clean(problem))
        }
        Err(e) => Err(e.to_string()),
    }
}

fn wrong_token(file: &TaskFile) -> Result<String, String> {
    let ask = || -> Result<Result<(), ClientError>, Failure> {
        let token = daphne_core::b64::encode(&random::<24>()?);
        let id = file.task_id()?;
        let (url, version) = (&file.helper_url, file.spec.version);
        let (header, retry) = (AuthHeader::Bearer, Retry::times(RETRIES));
        let helper = HelperClient::new(url, version, id, Some(&token), header, retry)?;
        let job = AggregationJobId::new(random()?);
        Ok(helper.create_job(&job, b"").map(|_| ()))
    };
    match ask().map_err(|e| e.to_string())? {
        Err(ClientError::Problem(problem)) if problem.status == 403 => {
            Ok("a leader with a wrong token is answered with 403".into())
        }
        Err(e) => Err(format!("a leader with a wrong token is not answered with 403: {e}")),
        Ok(()) => Err("a leader with a wrong token is served".into()),
    }
}
