//! Examines a deployment from outside, as its leader, clients and browsers meet it.

mod canary;
mod checks;

pub use checks::running;
use serde::Serialize;

use crate::{
    Failure,
    admin::AdminClient,
    http::{Answer, ClientError, Credential, Http, Request},
};

/// What became of one check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// It works, and may not be what was meant.
    Warning,
    /// Leaders or clients will notice.
    Failed,
    /// Not looked at, and why is told.
    Skipped,
}

impl Verdict {
    /// Name in text.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "WARNING",
            Self::Failed => "FAILED",
            Self::Skipped => "skipped",
        }
    }
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Its name, which stays.
    pub name: &'static str,
    /// What became of it.
    pub verdict: Verdict,
    /// One sentence.
    pub detail: String,
}

/// What is known after all checks.
#[derive(Debug, Serialize)]
pub struct Diagnosis {
    /// Whether none failed.
    pub ok: bool,
    /// Where.
    pub url: String,
    /// In the order in which they were made.
    pub checks: Vec<Check>,
}

/// What is presented where more than strangers may see is examined.
#[derive(Clone, Copy, Default)]
pub struct Access<'a> {
    /// The operator's API; without it what only operators may do is skipped.
    pub admin: Option<&'a AdminClient>,
    /// A token of the aggregator API, without which that is skipped. Secret.
    pub api_token: Option<&'a str>,
}

/// How to examine.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Whether to make a task, send reports to it, and delete it again.
    pub canary: bool,
    /// Largest difference between its clock and ours, in seconds.
    pub clock_skew_max: u64,
}

/// A deployment under examination.
struct Patient<'a> {
    url: &'a str,
    http: Http,
    checks: Vec<Check>,
}

/// Examines the deployment at `url`.
///
/// # Errors
/// [`Failure::Usage`] for an unusable URL, [`Failure::Unreachable`] if nothing answers there.
pub fn examine(url: &str, access: Access<'_>, options: Options) -> Result<Diagnosis, Failure> {
    let http = Http::new(url, Credential::None)?;
    let mut patient = Patient { url, http, checks: Vec::new() };
    // What follows would only repeat that nobody is there.
    let health = patient.get("healthz", &[])?;
    patient.transport();
    patient.health(&health);
    patient.clock(&health, options.clock_skew_max);
    patient.version();
    patient.hpke_config();
    patient.cors();
    patient.strangers()?;
    match access.api_token {
        None => patient.note("aggregator_api", Verdict::Skipped, "no token of it was given"),
        Some(token) => patient.aggregator_api(token)?,
    }
    match access.admin {
        None => {
            for name in ["admin", "canary"] {
                patient.note(name, Verdict::Skipped, "no admin token was given");
            }
        }
        Some(admin) => {
            if patient.admin(admin) && options.canary {
                patient.canary(admin);
            } else {
                patient.note("canary", Verdict::Skipped, "no task was made");
            }
        }
    }
    let ok = patient.checks.iter().all(|check| check.verdict != Verdict::Failed);
    Ok(Diagnosis { ok, url: patient.http.base().to_string(), checks: patient.checks })
}

impl Patient<'_> {
    fn note(&mut self, name: &'static str, verdict: Verdict, detail: impl Into<String>) {
        self.checks.push(Check { name, verdict, detail: detail.into() });
    }

    /// Notes a check by its result: what is well, or what is not.
    fn check(&mut self, name: &'static str, result: Result<String, String>) {
        match result {
            Ok(detail) => self.note(name, Verdict::Ok, detail),
            Err(detail) => self.note(name, Verdict::Failed, detail),
        }
    }

    fn get(&self, path: &str, headers: &[(&str, &str)]) -> Result<Answer, ClientError> {
        let request = Request { method: ureq::http::Method::GET, path, content: None };
        self.http.send_with(&request, headers)
    }
}
