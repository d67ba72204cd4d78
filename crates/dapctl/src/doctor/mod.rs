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
    /// Why what is at hand was not given, in one sentence, if something is.
    pub withheld: Option<&'a str>,
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

/// Examines the deployment at `url`. Nothing secret is sent in clear to another machine, or to what is not this Worker.
///
/// # Errors
/// [`Failure::Usage`] for an unusable URL, [`Failure::Unreachable`] if nothing answers there.
pub fn examine(url: &str, access: Access<'_>, options: Options) -> Result<Diagnosis, Failure> {
    let http = Http::new(url, Credential::None)?;
    let mut patient = Patient { url, http, checks: Vec::new() };
    // What follows would only repeat that nobody is there.
    let health = patient.get("healthz", &[])?;
    patient.transport();
    let ours = patient.health(&health);
    patient.clock(&health, options.clock_skew_max);
    patient.version();
    patient.hpke_config();
    patient.cors();
    patient.strangers()?;
    let unsafe_to_tell = if !patient.http.is_private() {
        Some("not sent: others would read the token on its way")
    } else if !ours {
        Some("not sent: whoever answers /healthz is not this Worker, or is not healthy")
    } else {
        None
    };
    let (admin, api_token) = match unsafe_to_tell {
        None => (access.admin, access.api_token),
        Some(_) => (None, None),
    };
    let why = |given: bool, lacking| match unsafe_to_tell {
        Some(why) if given => why,
        _ => access.withheld.unwrap_or(lacking),
    };
    match api_token {
        None => {
            let why = why(access.api_token.is_some(), "no token of it was given");
            patient.note("aggregator_api", Verdict::Skipped, why);
        }
        Some(token) => patient.aggregator_api(token)?,
    }
    match admin {
        None => {
            let why = why(access.admin.is_some(), "no admin token was given");
            for name in ["admin", "root_keys", "canary"] {
                patient.note(name, Verdict::Skipped, why);
            }
        }
        Some(admin) => {
            let accepted = patient.admin(admin);
            if accepted {
                patient.root_keys(admin);
            } else {
                patient.note("root_keys", Verdict::Skipped, "they were not asked about");
            }
            if accepted && options.canary {
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
