//! HTTP exchanges with a peer, and when to repeat them.

mod date;
mod error;

use std::{
    fmt,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use backon::{BackoffBuilder as _, ExponentialBuilder};
use daphne_core::{media_type, taskprov};
use serde::Deserialize;
use ureq::{
    Agent,
    http::{HeaderMap, HeaderValue, Method},
};
use url::{Host, Url};

pub use date::http_date;
pub use error::{ClientError, Problem, Transport};

use crate::{Failure, output::clean};

/// Longest answer that is read.
const ANSWER_BYTES_MAX: u64 = 64 << 20;
/// A peer that asks for more patience than this does not get it.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

/// How we authenticate. The tokens are secret.
#[derive(Clone, Copy)]
pub enum Credential<'a> {
    /// Not at all.
    None,
    /// `Authorization: Bearer <token>`.
    Bearer(&'a str),
    /// `DAP-Auth-Token: <token>`, as older DAP deployments do.
    DapAuthToken(&'a str),
}

/// When to repeat a request, with the identical bytes: after 429, 5xx, or no answer.
#[derive(Clone, Copy, Debug)]
pub struct Retry {
    /// Repeats after the first attempt.
    pub retries_max: usize,
    /// Delay before the first repeat; it doubles each time, and a random part is added.
    pub delay_min: Duration,
    /// The longest delay, unless the peer asks for a longer one, which is followed up to a minute.
    pub delay_max: Duration,
}

impl Retry {
    /// One attempt only.
    pub const NONE: Self = Self::times(0);

    /// That many repeats, at the usual pace.
    pub const fn times(retries_max: usize) -> Self {
        Self {
            retries_max,
            delay_min: Duration::from_millis(100),
            delay_max: Duration::from_secs(5),
        }
    }
}

impl Default for Retry {
    /// Nine attempts over about 16 seconds, which outlasts the restart of a local server.
    fn default() -> Self {
        Self::times(8)
    }
}

/// A request.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// The method.
    pub method: Method,
    /// Path and query, relative to the client's base URL.
    pub path: &'a str,
    /// Media type and body.
    pub content: Option<(&'a str, &'a [u8])>,
}

/// An answer, of whatever status.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// `Content-Type` as received; empty if there is none or it is not text.
    pub content_type: String,
    /// `Retry-After`: how long to wait, whether it is a number of seconds or a date.
    pub retry_after: Option<Duration>,
    /// All headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Vec<u8>,
    /// From the request's first byte to the body's last, of this attempt.
    pub latency: Duration,
    /// Which attempt got it; the first is 1.
    pub attempts: usize,
}

impl Answer {
    /// A header as text; empty if there is none, or if it is not text.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default()
    }

    /// The body of an answer that has one of these statuses and exactly this media type (`None`: any).
    ///
    /// # Errors
    /// [`ClientError::Problem`] for a refusal, [`ClientError::Protocol`] for another success or media type.
    pub fn expect(self, statuses: &[u16], media_type: Option<&str>) -> Result<Self, ClientError> {
        if self.status >= 300 {
            return Err(ClientError::Problem(self.problem()));
        }
        if !statuses.contains(&self.status) {
            return Err(ClientError::Protocol(format!(
                "answered with status {}, which is not {}",
                self.status,
                statuses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ")
            )));
        }
        match media_type {
            Some(expected) if self.content_type != expected => Err(ClientError::Protocol(format!(
                "answered with content type \"{}\", which is not \"{expected}\"",
                clean(&self.content_type)
            ))),
            _ => Ok(self),
        }
    }

    /// The answer, if it is a success: any status from 200 to 299, which DAP-18 §3.3 takes for one.
    ///
    /// # Errors
    /// [`ClientError::Problem`] for a refusal, [`ClientError::Protocol`] for what is neither.
    pub fn success(self) -> Result<Self, ClientError> {
        match self.status {
            200..300 => Ok(self),
            300.. => Err(ClientError::Problem(self.problem())),
            other => Err(ClientError::Protocol(format!("answered with status {other}"))),
        }
    }

    /// The answer, if its body is of this media type, with whatever other parameters.
    ///
    /// # Errors
    /// [`ClientError::Protocol`].
    pub fn of_type(self, expected: &str) -> Result<Self, ClientError> {
        if media_type::is(&self.content_type, expected) {
            return Ok(self);
        }
        Err(ClientError::Protocol(format!(
            "answered with content type \"{}\", which is not \"{expected}\"",
            clean(&self.content_type)
        )))
    }

    fn problem(&self) -> Problem {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Document {
            #[serde(rename = "type")]
            type_: String,
            title: String,
            detail: String,
        }
        let is_document = self.content_type.split(';').next().map(str::trim)
            == Some(daphne_core::problem::MEDIA_TYPE);
        let document: Document = if is_document {
            serde_json::from_slice(&self.body).unwrap_or_default()
        } else {
            Document::default()
        };
        Problem {
            status: self.status,
            type_: clean(&document.type_),
            title: clean(&document.title),
            detail: clean(&document.detail),
        }
    }
}

/// A client of one peer.
#[derive(Clone)]
pub struct Http {
    agent: Agent,
    base: Url,
    credential: Option<(&'static str, HeaderValue)>,
    accept: Option<&'static str>,
    taskprov: Option<HeaderValue>,
}

/// Shows the base URL only.
impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Http").field(&self.base.as_str()).finish()
    }
}

impl Http {
    /// A client whose requests go below `base`, an `http` or `https` URL.
    ///
    /// # Errors
    /// [`Failure::Usage`] if the URL or the token is unusable. Never quotes the token.
    pub fn new(base: &str, credential: Credential<'_>) -> Result<Self, Failure> {
        let (name, text) = match credential {
            Credential::None => ("", None),
            Credential::Bearer(token) => {
                ("authorization", Some((format!("Bearer {token}"), token)))
            }
            Credential::DapAuthToken(token) => ("dap-auth-token", Some((token.to_owned(), token))),
        };
        let credential = match text {
            None => None,
            Some((value, token)) => {
                // Spaces inside would make one token look like two parts.
                if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
                    return Err(Failure::Usage(
                        "the token must be made of visible ASCII characters".into(),
                    ));
                }
                let mut value = HeaderValue::from_str(&value)
                    .map_err(|_| Failure::Usage("the token cannot be sent in a header".into()))?;
                value.set_sensitive(true);
                Some((name, value))
            }
        };
        let config = Agent::config_builder()
            .http_status_as_error(false)
            // A redirect would take the token somewhere else, and DAP has none.
            .max_redirects(0)
            .max_redirects_will_error(false)
            // A DELETE with a body is none to its taste: tokens are named there, and never in URLs.
            .allow_non_standard_methods(true)
            .max_idle_connections_per_host(16)
            .timeout_connect(Some(Duration::from_secs(10)))
            .timeout_global(Some(Duration::from_secs(120)))
            .user_agent(concat!("dapctl/", env!("CARGO_PKG_VERSION")))
            .build();
        let agent = Agent::new_with_config(config);
        Ok(Self { agent, base: parse_base(base)?, credential, accept: None, taskprov: None })
    }

    /// As it is, asking for answers of this media type.
    pub fn accepting(self, media_type: &'static str) -> Self {
        Self { accept: Some(media_type), ..self }
    }

    /// As it is, with this header, a task's parameters, in each request. taskprov-07 §4.2, taskprov-04 §3.2.
    ///
    /// # Errors
    /// [`Failure::Usage`] if no header can hold them, which none are so long.
    pub fn advertising(self, parameters: &str) -> Result<Self, Failure> {
        let value = HeaderValue::from_str(parameters).map_err(|_| {
            Failure::Usage("the task's parameters cannot be sent in a header".into())
        })?;
        Ok(Self { taskprov: Some(value), ..self })
    }

    /// The base URL, ending in a slash.
    pub const fn base(&self) -> &Url {
        &self.base
    }

    /// Whether the peer is this machine.
    pub fn is_local(&self) -> bool {
        match self.base.host() {
            Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
            Some(Host::Ipv4(ip)) => ip.is_loopback(),
            Some(Host::Ipv6(ip)) => ip.is_loopback(),
            None => false,
        }
    }

    /// Whether nobody on the way reads what is sent: it is encrypted, or stays on this machine.
    pub fn is_private(&self) -> bool {
        self.base.scheme() == "https" || self.is_local()
    }

    /// Sends a request once. Every status is an answer.
    ///
    /// # Errors
    /// [`ClientError::Transport`] if there is no answer, and [`ClientError::Protocol`] if it is not HTTP.
    pub fn send(&self, request: &Request<'_>) -> Result<Answer, ClientError> {
        self.send_with(request, &[])
    }

    /// As [`Http::send`], with more headers.
    ///
    /// # Errors
    /// As [`Http::send`].
    pub fn send_with(
        &self,
        request: &Request<'_>,
        headers: &[(&str, &str)],
    ) -> Result<Answer, ClientError> {
        let url = self
            .base
            .join(request.path)
            .map_err(|_| ClientError::Protocol("the request's path is malformed".into()))?;
        let mut builder =
            ureq::http::Request::builder().method(request.method.clone()).uri(url.as_str());
        if let Some((name, value)) = &self.credential {
            builder = builder.header(*name, value.clone());
        }
        if let Some(media_type) = self.accept {
            builder = builder.header("accept", media_type);
        }
        if let Some(config) = &self.taskprov {
            builder = builder.header(taskprov::HEADER, config.clone());
        }
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        let malformed = |_| ClientError::Protocol("the request is malformed".into());
        let started = Instant::now();
        let sent = match request.content {
            Some((media_type, body)) => self
                .agent
                .run(builder.header("content-type", media_type).body(body).map_err(malformed)?),
            None => self.agent.run(builder.body(()).map_err(malformed)?),
        };
        let mut response = sent.map_err(|e| self.transport(&e))?;
        let header = |name| {
            response
                .headers()
                .get(name)
                .and_then(|v| v.to_str().ok())
                .unwrap_or_default()
                .to_owned()
        };
        let (content_type, retry_after) = (header("content-type"), header("retry-after"));
        let date = header("date");
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let body = response
            .body_mut()
            .with_config()
            .limit(ANSWER_BYTES_MAX)
            .read_to_vec()
            .map_err(|e| self.transport(&e))?;
        Ok(Answer {
            status,
            content_type,
            retry_after: wait(&retry_after, &date),
            headers,
            body,
            latency: started.elapsed(),
            attempts: 1,
        })
    }

    /// Sends a request, and the identical bytes again after 429, 5xx or no answer. The last answer counts.
    ///
    /// # Errors
    /// As [`Http::send`], when the repeats are used up.
    pub fn send_retrying(
        &self,
        request: &Request<'_>,
        retry: Retry,
    ) -> Result<Answer, ClientError> {
        let mut delays = ExponentialBuilder::new()
            .with_min_delay(retry.delay_min)
            .with_max_delay(retry.delay_max)
            .with_max_times(retry.retries_max)
            .with_jitter()
            .build();
        for attempts in 1.. {
            let result = self.send(request);
            let wish = match &result {
                Ok(answer) if answer.status == 429 || answer.status >= 500 => answer.retry_after,
                Err(ClientError::Transport(_)) => None,
                Ok(_) | Err(_) => return result.map(|answer| Answer { attempts, ..answer }),
            };
            let Some(delay) = delays.next() else {
                return result.map(|answer| Answer { attempts, ..answer });
            };
            std::thread::sleep(delay.max(wish.unwrap_or_default().min(RETRY_AFTER_MAX)));
        }
        unreachable!("the delays end")
    }

    fn transport(&self, e: &ureq::Error) -> ClientError {
        use ureq::{Error, Timeout};
        let never_sent = match e {
            Error::HostNotFound | Error::ConnectionFailed | Error::BadUri(_) | Error::Tls(_) => {
                true
            }
            Error::Timeout(Timeout::Resolve | Timeout::Connect) => true,
            Error::Io(e) => e.kind() == std::io::ErrorKind::ConnectionRefused,
            _ => false,
        };
        let host = self.base.host_str().unwrap_or_default();
        let port = self.base.port_or_known_default().unwrap_or_default();
        ClientError::Transport(Transport {
            text: clean(&format!("{host}:{port}: {e}")),
            maybe_received: !never_sent,
        })
    }
}

/// How long a `Retry-After` header says to wait. A date is compared with the peer's own clock, if it tells.
fn wait(retry_after: &str, date: &str) -> Option<Duration> {
    let retry_after = retry_after.trim();
    if let Ok(seconds) = retry_after.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let then = http_date(retry_after)?;
    let ours = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let now = http_date(date.trim()).unwrap_or_else(ours);
    Some(Duration::from_secs(then.saturating_sub(now)))
}

fn parse_base(text: &str) -> Result<Url, Failure> {
    let usage = |why: &str| Failure::Usage(format!("\"{}\" {why}", clean(text)));
    let mut url = Url::parse(text).map_err(|e| usage(&format!("is not a URL: {e}")))?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err(usage("is not an http or https URL"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Failure::Usage("the URL must not hold a user name or password".into()));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(usage("must not have a query or fragment"));
    }
    // Without the slash, joining a path would replace the last segment.
    if !url.path().ends_with('/') {
        let path = format!("{}/", url.path());
        url.set_path(&path);
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_urls_end_in_a_slash_and_hold_no_secret() {
        assert_eq!(parse_base("http://h:1/v09").unwrap().as_str(), "http://h:1/v09/");
        assert_eq!(parse_base("https://h").unwrap().as_str(), "https://h/");
        for bad in ["", "h:1", "ftp://h/", "http://", "http://h/?q", "http://h/#f", "/v09"] {
            assert!(matches!(parse_base(bad), Err(Failure::Usage(_))), "{bad}");
        }
        let failure = parse_base("http://user:hunter2@h/").unwrap_err();
        assert!(!failure.to_string().contains("hunter2"));
    }

    #[test]
    fn what_is_sent_in_clear_to_other_machines_is_not_private() {
        let of = |url: &str| {
            let http = Http::new(url, Credential::None).unwrap();
            (http.is_local(), http.is_private())
        };
        for url in
            ["http://127.0.0.1:8787", "http://[::1]:1/", "http://localhost", "https://localhost"]
        {
            assert_eq!(of(url), (true, true), "{url}");
        }
        for url in [
            "http://h/",
            "http://10.0.0.1/",
            "http://localhost.example/",
            "http://127.0.0.1.example",
        ] {
            assert_eq!(of(url), (false, false), "{url}");
        }
        assert_eq!(of("https://dap.example.org"), (false, true));
    }

    #[test]
    fn a_token_that_no_header_can_hold_is_refused_and_not_quoted() {
        for bad in ["", "two words", "line\nbreak", "caf\u{e9}"] {
            let failure = Http::new("https://h/", Credential::Bearer(bad)).unwrap_err();
            assert_eq!(failure.to_string(), "the token must be made of visible ASCII characters");
        }
        let http = Http::new("https://h/", Credential::Bearer("sesame")).unwrap();
        assert!(!format!("{http:?}").contains("sesame"));
    }

    #[test]
    fn a_wait_is_seconds_or_a_date_by_the_peers_clock() {
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        assert_eq!(wait(" 7 ", ""), Some(Duration::from_secs(7)));
        assert_eq!(wait("Sun, 06 Nov 1994 08:49:57 GMT", date), Some(Duration::from_secs(20)));
        // What is over need not be waited for.
        assert_eq!(wait(date, ""), Some(Duration::ZERO));
        for bad in ["", "-1", "soon", "1.5"] {
            assert_eq!(wait(bad, date), None, "{bad}");
        }
    }

    #[test]
    fn any_success_is_one() {
        for status in [200, 201, 202, 204, 299] {
            assert!(answer(status, "", "").success().is_ok(), "{status}");
        }
        for status in [300, 308, 400, 503] {
            let error = answer(status, "", "").success().unwrap_err();
            assert!(matches!(error, ClientError::Problem(_)), "{status}");
        }
        assert!(matches!(answer(100, "", "").success(), Err(ClientError::Protocol(_))));
    }

    fn answer(status: u16, content_type: &str, body: &str) -> Answer {
        Answer {
            status,
            content_type: content_type.into(),
            retry_after: None,
            headers: HeaderMap::new(),
            body: body.into(),
            latency: Duration::ZERO,
            attempts: 1,
        }
    }

    #[test]
    fn only_the_exact_media_type_is_accepted() {
        assert!(answer(200, "a/b", "").expect(&[200, 201], Some("a/b")).is_ok());
        for (status, media_type) in [(200, "a/b;charset=utf-8"), (200, "A/b"), (202, "a/b")] {
            let result = answer(status, media_type, "").expect(&[200, 201], Some("a/b"));
            assert!(matches!(result, Err(ClientError::Protocol(_))), "{status} {media_type}");
        }
    }

    #[test]
    fn problems_are_read_and_made_printable() {
        let body = r#"{"type":"urn:x:batchOverlap","title":"T","status":400,"detail":"a\u001b[31mb\nc","taskid":"t"}"#;
        let error = answer(400, "application/problem+json", body).expect(&[200], None).unwrap_err();
        assert_eq!(error.to_string(), "refused with status 400, urn:x:batchOverlap: a [31mb c");
        assert!(error.changed_nothing());
        for (media_type, body) in
            [("text/html", body), ("application/problem+json", "{\"type\":3}")]
        {
            let error = answer(502, media_type, body).expect(&[200], None).unwrap_err();
            assert_eq!(error.to_string(), "refused with status 502");
            assert!(!error.changed_nothing());
        }
    }
}
