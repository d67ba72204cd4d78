//! One batch of reports end to end, on a task that exists for this only.

use daphne_core::{
    batch::BatchMode,
    ids::AggregationJobId,
    task::{TaskRole, TaskSpec},
    vdaf::VdafConfig,
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
    /// Makes a task, aggregates and collects reports as its leader, sends everything twice, presents a wrong token, and
    /// deletes the task with all that it stored.
    pub(super) fn canary(&mut self, admin: &AdminClient) {
        let file = match canary_task(self.http.base().as_str()) {
            Ok(file) => file,
            Err(e) => return self.note("canary", Verdict::Failed, e.to_string()),
        };
        let Ok(id) = file.task_id() else { return };
        let created = admin.create_task(&file.spec);
        // Whatever became of its creation, and of what follows, the task must go.
        let driven = match created {
            Ok(_) => {
                let driven = aggregate_and_collect(&file);
                self.check("leaders_wrong_token", wrong_token(&file));
                driven
            }
            Err(e) => Err(format!("the task was not created: {e}")),
        };
        self.check("canary", driven);
        let deleted = admin.delete_task(&id, Some(0));
        self.check(
            "canary_deleted",
            match deleted {
                Ok(_) => Ok(format!("task {id} and what it stored are gone")),
                Err(e) => {
                    Err(format!("task {id} is left: {e}; `dapctl task rm {id} --purge-after 0`"))
                }
            },
        );
    }
}

/// A task whose reports count in one batch that is open to them only.
fn canary_task(base: &str) -> Result<TaskFile, Failure> {
    let mut fields = json!({
        "version": DapVersion::V09, "role": TaskRole::Helper, "batch_mode": BatchMode::LeaderSelected,
        "vdaf": VdafConfig::Prio3Count, "min_batch_size": REPORTS, "time_precision": 60,
    });
    let fields = fields
        .as_object_mut()
        .ok_or_else(|| Failure::Wrong("the canary task has no JSON".into()))?;
    let generated = task_file::generate_missing(fields, 16)?;
    let mut spec: TaskSpec = task_file::spec_from_value(serde_json::Value::Object(fields.clone()))?;
    spec.task_id = Some(*task_file::check(&spec)?.id());
    Ok(TaskFile {
        spec,
        helper_url: format!("{base}{}/", DapVersion::V09.path_prefix()),
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
        let url = &file.helper_url;
        let helper =
            HelperClient::new(url, id, Some(&token), AuthHeader::Bearer, Retry::times(RETRIES))?;
        let job = AggregationJobId::new(random()?);
        Ok(helper.put_aggregation_job(&job, b"").map(|_| ()))
    };
    match ask().map_err(|e| e.to_string())? {
        Err(ClientError::Problem(problem)) if problem.status == 403 => {
            Ok("a leader with a wrong token is answered with 403".into())
        }
        Err(e) => Err(format!("a leader with a wrong token is not answered with 403: {e}")),
        Ok(()) => Err("a leader with a wrong token is served".into()),
    }
}
