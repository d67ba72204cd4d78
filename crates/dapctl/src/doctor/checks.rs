//! The checks that change nothing.

use daphne_core::{
    b64,
    codec::Reader,
    hpke::HpkeConfigList,
    store::config_store::keys::LIST_MAX_AGE,
    version::{DapVersion, Message},
};
use serde_json::Value;
use ureq::http::Method;

use super::{Patient, Verdict};
use crate::{
    Failure,
    admin::AdminClient,
    aggregator_api::{AggregatorApi, Asked},
    http::{Answer, Credential, Http, Request, http_date},
    output::clean,
    reports,
    task_file::random,
};

/// A page that is not ours.
const ORIGIN: &str = "https://page.example";
/// How often the list is fetched to see that it stays.
const FETCHES: usize = 5;

impl Patient<'_> {
    /// Whether credentials travel encrypted. That there was an answer over HTTPS says that the certificate is good.
    pub(super) fn transport(&mut self) {
        if self.http.base().scheme() == "https" {
            self.note("tls", Verdict::Ok, "the certificate is valid");
        } else if self.http.is_local() {
            self.note("tls", Verdict::Skipped, "this machine's own server speaks plain HTTP");
            return;
        } else {
            self.note("tls", Verdict::Failed, "the URL is http: tokens would travel in clear");
            return;
        }
        // Also over plain HTTP somebody answers, as a rule; it must not be us.
        let mut plain = self.http.base().clone();
        let swapped = plain.set_scheme("http").and_then(|()| plain.set_port(None)).is_ok();
        let answer =
            Http::new(plain.as_str(), Credential::None).ok().filter(|_| swapped).map(|http| {
                http.send(&Request { method: Method::GET, path: "healthz", content: None })
            });
        match answer {
            Some(Ok(answer)) if answer.status == 200 => self.note(
                "plain_http",
                Verdict::Failed,
                "plain HTTP is served; turn on \"Always Use HTTPS\" for the zone",
            ),
            _ => self.note("plain_http", Verdict::Ok, "plain HTTP is not served"),
        }
    }

    /// Whether this Worker answers, and finds itself configured.
    pub(super) fn health(&mut self, answer: &Answer) -> bool {
        let json: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let detail = json["detail"].as_str().map(clean).unwrap_or_default();
        let ours = answer.status == 200 && json["status"] == "ok";
        self.check(
            "healthz",
            match (answer.status, json["status"].as_str()) {
                (200, Some("ok")) => Ok("configured".into()),
                (200, _) => Err("answered with 200, but not by this Worker".into()),
                (status, _) if detail.is_empty() => Err(format!("answered with status {status}")),
                (status, _) => Err(format!("answered with status {status}: {detail}")),
            },
        );
        ours
    }

    /// Compares clocks, as far as a whole second and the way of the answer let it.
    pub(super) fn clock(&mut self, answer: &Answer, skew_max: u64) {
        let now = reports::now().as_seconds();
        let Some(theirs) = http_date(answer.header("date")) else {
            self.note("clock", Verdict::Skipped, "the answer has no Date");
            return;
        };
        let skew = now.abs_diff(theirs);
        self.check(
            "clock",
            if skew <= skew_max {
                Ok(format!("{skew} s from this machine's"))
            } else {
                Err(format!(
                    "{skew} s from this machine's, and one of the two is wrong: reports are \
                             refused by the helper's clock"
                ))
            },
        );
    }

    /// Which code runs, where it says so.
    pub(super) fn version(&mut self) {
        let known = self.get("version", &[]).ok().filter(|answer| answer.status == 200);
        match known.and_then(|answer| running(&answer.body)) {
            Some(running) => self.note("version", Verdict::Ok, running),
            None => self.note("version", Verdict::Skipped, "it does not tell which code it runs"),
        }
    }

    /// The list of HPKE configurations: what it is, what caches may do with it, and that it stays.
    pub(super) fn hpke_config(&mut self) {
        let path = format!("{}/hpke_config", DapVersion::V09.path_prefix());
        let first = match self.get(&path, &[]) {
            Ok(answer) if answer.status == 200 => answer,
            Ok(answer) => {
                let hint =
                    if answer.status == 503 { "; `dapctl hpke add` makes a key" } else { "" };
                let detail = format!("answered with status {}{hint}", answer.status);
                return self.note("hpke_config", Verdict::Failed, detail);
            }
            Err(e) => return self.note("hpke_config", Verdict::Failed, e.to_string()),
        };
        let list = Reader::all(&first.body, HpkeConfigList::read);
        self.check(
            "hpke_config",
            match &list {
                Ok(list) if list.0.is_empty() => Err("the list is empty".into()),
                Ok(list) if list.0.iter().any(|config| config.is_supported()) => {
                    let ids: Vec<_> = list.0.iter().map(|config| config.id.to_string()).collect();
                    Ok(format!("keys {}; the list is {}", ids.join(", "), b64::encode(&first.body)))
                }
                Ok(_) => Err("no configuration has algorithms that are known here".into()),
                Err(e) => Err(format!("the list is malformed: {e}")),
            },
        );
        let expected = DapVersion::V09.media_type(Message::HpkeConfigList).unwrap_or_default();
        self.check(
            "content_type",
            if first.content_type == expected {
                Ok(format!("exactly {expected}"))
            } else {
                // Clients compare the whole header.
                Err(format!("it is \"{}\" and not exactly {expected}", clean(&first.content_type)))
            },
        );
        let (cache, age) = (first.header("cache-control"), LIST_MAX_AGE.as_seconds());
        self.check(
            "cache_control",
            if cache.split(',').any(|part| part.trim() == format!("max-age={age}")) {
                Ok(format!("{age} s"))
            } else {
                Err(format!("it is \"{}\" and lacks max-age={age}", clean(cache)))
            },
        );
        let others = (1..FETCHES).map(|n| {
            let headers: &[(&str, &str)] = if n % 2 == 0 { &[] } else { &[("origin", ORIGIN)] };
            self.get(&path, headers)
        });
        let differing = others
            .filter(|answer| !matches!(answer, Ok(a) if a.status == 200 && a.body == first.body))
            .count();
        self.check(
            "stable_bytes",
            if differing == 0 {
                Ok(format!("{FETCHES} answers are the same bytes"))
            } else {
                Err(format!(
                    "{differing} of {FETCHES} answers differ, and some clients compare them"
                ))
            },
        );
    }

    /// What browsers ask before a page may read the list.
    pub(super) fn cors(&mut self) {
        let path = format!("{}/hpke_config", DapVersion::V09.path_prefix());
        let may_read =
            |answer: &Answer| matches!(answer.header("access-control-allow-origin"), ORIGIN | "*");
        let asked = self.get(&path, &[("origin", ORIGIN)]);
        self.check(
            "cors",
            match asked {
                Ok(answer) if answer.status >= 300 => Err(format!("status {}", answer.status)),
                Ok(answer) if !may_read(&answer) => {
                    Err("a page of another origin may not read the list".into())
                }
                Ok(answer) if !answer.header("vary").to_ascii_lowercase().contains("origin") => {
                    Err("caches are not told that the answer varies with the origin".into())
                }
                Ok(_) => Ok("pages of any origin may read the list".into()),
                Err(e) => Err(e.to_string()),
            },
        );
        let request = Request { method: Method::OPTIONS, path: &path, content: None };
        let headers = [
            ("origin", ORIGIN),
            ("access-control-request-method", "GET"),
            ("access-control-request-headers", "content-type"),
        ];
        let allows = |answer: &Answer, name: &str, what: &str| {
            answer.header(name).to_ascii_lowercase().contains(what)
        };
        self.check(
            "preflight",
            match self.http.send_with(&request, &headers) {
                Ok(answer) if answer.status >= 300 => Err(format!("status {}", answer.status)),
                Ok(answer)
                    if may_read(&answer)
                        && allows(&answer, "access-control-allow-methods", "get")
                        && allows(&answer, "access-control-allow-headers", "content-type") =>
                {
                    Ok("GET with a content type is allowed".into())
                }
                Ok(_) => Err("GET with a content type is not allowed".into()),
                Err(e) => Err(e.to_string()),
            },
        );
    }

    /// That who presents a wrong token to the admin API stays outside.
    pub(super) fn strangers(&mut self) -> Result<(), Failure> {
        let stranger = b64::encode(&random::<24>()?);
        // Even a token that opens nothing is not sent in clear.
        let credential = match self.http.is_private() {
            true => Credential::Bearer(&stranger),
            false => Credential::None,
        };
        let http = Http::new(self.url, credential)?;
        let answer =
            http.send(&Request { method: Method::GET, path: "admin/tasks", content: None });
        self.check(
            "wrong_token",
            match answer {
                Ok(answer) if answer.status == 403 => Ok("the admin API answers 403".into()),
                Ok(answer) => {
                    Err(format!("the admin API answers a wrong token with {}", answer.status))
                }
                Err(e) => Err(e.to_string()),
            },
        );
        Ok(())
    }

    /// Whether control planes find what they need to pair, and nobody else does.
    pub(super) fn aggregator_api(&mut self, token: &str) -> Result<(), Failure> {
        const NAME: &str = "aggregator_api";
        let stranger = b64::encode(&random::<24>()?);
        let ask = |token: &str| AggregatorApi::new(self.url, token)?.ask();
        let (theirs, strangers) = (ask(token), ask(&stranger));
        match (theirs, strangers) {
            (Ok(Asked::Nothing), Ok(Asked::Nothing)) => self.note(
                NAME,
                Verdict::Warning,
                "there is none, as the deployment has no AGGREGATOR_API_TOKENS: no control plane can pair",
            ),
            (Ok(Asked::Config(config)), Ok(Asked::WrongToken)) => {
                self.note(NAME, Verdict::Ok, format!("DAP is at {}", clean(&config.dap_url)));
            }
            (Ok(Asked::Config(_)), _) => {
                self.note(NAME, Verdict::Failed, "a wrong token is not answered with 401");
            }
            (Ok(Asked::WrongToken), _) => {
                self.note(NAME, Verdict::Failed, "the token is not accepted");
            }
            (Ok(Asked::Nothing), _) => {
                self.note(NAME, Verdict::Failed, "answered with status 404");
            }
            (Err(e), _) => self.note(NAME, Verdict::Failed, e.to_string()),
        }
        Ok(())
    }

    /// Whether the token that was given opens the admin API.
    pub(super) fn admin(&mut self, admin: &AdminClient) -> bool {
        let listed = admin.list_tasks(None, 1);
        let good = listed.is_ok();
        self.check(
            "admin",
            match listed {
                Ok(_) => Ok("the token is accepted".into()),
                Err(e) => Err(e.to_string()),
            },
        );
        good
    }

    /// Whether the deployment can open all that it stored.
    pub(super) fn root_keys(&mut self, admin: &AdminClient) {
        let result = match admin.secrets_status() {
            Ok(status) => match status.missing() {
                Some(missing) => Err(missing),
                None => {
                    Ok(format!("all that is needed are there; the newest is {}", status.newest))
                }
            },
            Err(e) => Err(e.to_string()),
        };
        self.check("root_keys", result);
    }
}

/// What `GET /version` says, in one line; `None` if that is something else.
pub fn running(body: &[u8]) -> Option<String> {
    let version: Value = serde_json::from_slice(body).ok()?;
    let text = |name: &str| version[name].as_str().map(clean);
    Some(format!(
        "{} {}, commit {}, wasm {}",
        text("software")?,
        text("version")?,
        text("commit")?,
        text("wasm_sha256")?
    ))
}
