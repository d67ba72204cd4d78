//! What a leader does with the answers of a DAP-18 helper: where it goes next, how long it waits, and whom it tells its token.

mod common;

use std::time::{Duration, Instant};

use common::{ID, Server, serve};
use dapctl::{
    helper_client::{AuthHeader, HelperClient, Resource},
    http::{ClientError, Retry},
};
use daphne_core::{ids::AggregationJobId, version::DapVersion};

const JOB: &str = "application/ppm-dap;message=aggregation-job-resp";
const SHARE: &str = "application/ppm-dap; version=18; message=aggregate-share";
const TOKEN: &str = "sesame-open-up-now";

fn client_of(version: DapVersion, base: &str) -> HelperClient {
    let (id, token) = (ID.parse().unwrap(), Some(TOKEN));
    HelperClient::new(base, version, id, token, AuthHeader::Bearer, Retry::NONE).unwrap()
}

fn client(server: &Server) -> HelperClient {
    client_of(DapVersion::V18, &format!("{}/base/v18", server.url))
}

fn name() -> AggregationJobId {
    AggregationJobId::new([1; 16])
}

/// The next request's first line, without the version of HTTP. It has the token.
#[track_caller]
fn asked(server: &Server) -> String {
    let request = server.requests.recv_timeout(Duration::from_secs(10)).unwrap();
    assert!(request.to_ascii_lowercase().contains(&format!("authorization: bearer {TOKEN}\r\n")));
    request.lines().next().unwrap().strip_suffix(" HTTP/1.1").unwrap().to_owned()
}

fn jobs() -> String {
    format!("/base/v18/tasks/{ID}/aggregation_jobs")
}

fn at(location: &str) -> String {
    format!("200 OK\r\nlocation: {location}")
}

#[test]
fn a_job_is_where_its_helper_says() {
    let placed = at(&format!("{}/J?step=0", jobs()));
    let server = serve(&[
        (&placed, JOB, "begun"),
        ("200 OK", JOB, "continued"),
        ("204 No Content", "text/plain", ""),
    ]);
    let helper = client(&server);
    let created = helper.create_job(&name(), b"init").unwrap();
    assert_eq!((created.at.id(), &*created.success.body), ("J", &b"begun"[..]));
    assert_eq!(helper.continue_job(&created.at, 1, b"more").unwrap().body, b"continued");
    helper.delete_job(&created.at).unwrap();
    assert_eq!(asked(&server), format!("POST {}", jobs()));
    assert_eq!(asked(&server), format!("POST {}/J", jobs()));
    assert_eq!(asked(&server), format!("DELETE {}/J", jobs()));
}

/// Answers a creation with nothing and this `Location`, then the question that follows with a body. Where that was asked.
#[track_caller]
fn polled(location: &str) -> String {
    let server = serve(&[(&at(location), JOB, ""), ("200 OK", JOB, "late")]);
    let created = client(&server).create_job(&name(), b"init").unwrap();
    assert_eq!(created.success.body, b"late");
    assert_eq!(asked(&server), format!("POST {}", jobs()));
    asked(&server)
}

#[test]
fn a_location_may_be_absolute_or_relative_and_lack_the_base_path() {
    let right = format!("GET {}/J?step=0", jobs());
    for location in [
        &format!("{{url}}{}/J?step=0", jobs()),
        &format!("{}/J?step=0", jobs()),
        &format!("/tasks/{ID}/aggregation_jobs/J?step=0"),
        "aggregation_jobs/J?step=0",
        // What it does not say, its leader knows.
        &format!("{}/J", jobs()),
    ] {
        assert_eq!(polled(location), right, "{location}");
    }
}

#[test]
fn the_token_is_sent_to_the_helper_only() {
    let other = serve(&[("200 OK", JOB, "stolen")]);
    let elsewhere = other.url.strip_prefix("http:").unwrap().to_owned();
    let right = format!("GET {}/J?step=0", jobs());
    for location in [
        &format!("{}{}/J?step=0", other.url, jobs()),
        &format!("{elsewhere}/J?step=0"),
        &format!("{}/../../../../../../../admin/J?step=0", jobs()),
        "/admin/tasks/J?step=0",
        "https://user:password@evil.example/J?step=0",
    ] {
        assert_eq!(polled(location), right, "{location}");
    }
    assert_eq!(other.requests.try_iter().count(), 0);
}

#[test]
fn redirects_are_not_followed() {
    let other = serve(&[("200 OK", JOB, "stolen")]);
    let moved = format!("307 Temporary Redirect\r\nlocation: {}/J", other.url);
    let server = serve(&[(&moved, JOB, "")]);
    let error = client(&server).create_job(&name(), b"init").unwrap_err();
    assert!(matches!(error, ClientError::Problem(problem) if problem.status == 307));
    assert_eq!(other.requests.try_iter().count(), 0);
}

#[test]
fn a_job_without_a_place_is_no_job() {
    for status in ["200 OK", "200 OK\r\nlocation: ", "200 OK\r\nlocation: mailto:x"] {
        let server = serve(&[(status, JOB, "begun")]);
        let error = client(&server).create_job(&name(), b"init").unwrap_err();
        assert!(error.to_string().contains("where the aggregation job is"), "{error}");
    }
}

#[test]
fn a_deferred_answer_is_waited_for_as_the_helper_wishes() {
    let date = "Sun, 06 Nov 1994 08:49:37 GMT";
    let later =
        format!("202 Accepted\r\ndate: {date}\r\nretry-after: Sun, 06 Nov 1994 08:49:38 GMT");
    let placed = format!("{}\r\nretry-after: 1", at(&format!("{}/J?step=0", jobs())));
    let begun = Instant::now();
    let server = serve(&[
        (&placed, JOB, ""),
        // The status of an answer that is not there yet is any success.
        (&later, "text/plain", ""),
        ("203 Whatever", JOB, "late"),
    ]);
    let created = client(&server).create_job(&name(), b"init").unwrap();
    assert_eq!(created.success.body, b"late");
    assert!(begun.elapsed() >= Duration::from_secs(2), "{:?}", begun.elapsed());
    assert!(created.success.latency >= Duration::from_secs(2));
    let lines: Vec<String> = (0..3).map(|_| asked(&server)).collect();
    assert_eq!(lines[1..], [format!("GET {}/J?step=0", jobs()), lines[1].clone()]);
}

#[test]
fn a_continuation_is_waited_for_at_its_step() {
    let placed = at(&format!("{}/J", jobs()));
    let server =
        serve(&[(&placed, JOB, "begun"), ("200 OK", JOB, ""), ("200 OK", JOB, "continued")]);
    let helper = client(&server);
    let job = helper.create_job(&name(), b"init").unwrap().at;
    assert_eq!(helper.continue_job(&job, 1, b"more").unwrap().body, b"continued");
    let lines: Vec<String> = (0..3).map(|_| asked(&server)).collect();
    assert_eq!(lines[2], format!("GET {}/J?step=1", jobs()));
}

#[test]
fn patience_ends_and_refusals_come_late() {
    let placed = format!("{}\r\nretry-after: 3600", at("J"));
    let server = serve(&[(&placed, JOB, ""), ("200 OK\r\nretry-after: 3600", JOB, "")]);
    let helper = client(&server).waiting(Duration::from_millis(300));
    let begun = Instant::now();
    let error = helper.create_job(&name(), b"init").unwrap_err();
    assert!(error.to_string().contains("did not come within"), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(30));

    let problem = r#"{"type":"urn:ietf:params:ppm:dap:error:invalidMessage","title":"T"}"#;
    let server =
        serve(&[(&at("J"), JOB, ""), ("400 Bad Request", "application/problem+json", problem)]);
    let error = client(&server).create_job(&name(), b"init").unwrap_err();
    assert!(matches!(error, ClientError::Problem(problem) if problem.status == 400));
}

#[test]
fn any_success_is_taken_and_a_refusal_needs_no_document() {
    for status in ["201 Created", "202 Accepted", "299 Odd"] {
        let placed = format!("{status}\r\nlocation: J");
        let server = serve(&[(&placed, JOB, "begun")]);
        assert_eq!(client(&server).create_job(&name(), b"init").unwrap().success.body, b"begun");
    }
    for (status, text) in [
        ("401 Unauthorized", "refused with status 401"),
        ("403 Forbidden", "refused with status 403"),
    ] {
        let server = serve(&[(status, "text/plain", "no")]);
        let error = client(&server).create_job(&name(), b"init").unwrap_err();
        assert_eq!(error.to_string(), text);
    }
    let server = serve(&[(&at("J"), "application/ppm-dap;message=aggregate-share", "begun")]);
    let error = client(&server).create_job(&name(), b"init").unwrap_err();
    assert!(matches!(error, ClientError::Protocol(_)), "{error}");
}

#[test]
fn a_share_stays_where_its_helper_says() {
    let path = format!("/base/v18/tasks/{ID}/aggregate_shares");
    let server = serve(&[
        (&at("aggregate_shares/S"), SHARE, ""),
        ("200 OK", SHARE, "share"),
        ("200 OK", SHARE, "share"),
        ("204 No Content", "text/plain", ""),
        // Who answers at once need not say where.
        ("200 OK", SHARE, "share"),
        ("200 OK", SHARE, ""),
    ]);
    let helper = client(&server);
    let created = helper.create_share(b"request").unwrap();
    assert_eq!(created.success.body, b"share");
    let at: Resource = created.at.unwrap();
    assert_eq!(helper.share(&at).unwrap().body, b"share");
    helper.delete_share(&at).unwrap();
    let lines: Vec<String> = (0..4).map(|_| asked(&server)).collect();
    let get = format!("GET {path}/S");
    assert_eq!(lines, [format!("POST {path}"), get.clone(), get, format!("DELETE {path}/S")]);
    assert_eq!(helper.create_share(b"request").unwrap().at, None);
    let error = helper.create_share(b"request").unwrap_err();
    assert!(error.to_string().contains("does not say where"), "{error}");
}

#[test]
fn in_dap_09_the_leader_names_jobs_and_nothing_is_deferred() {
    const RESPONSE: &str = "application/dap-aggregation-job-resp";
    let server = serve(&[("201 Created\r\nlocation: /elsewhere/J", RESPONSE, "")]);
    let helper = client_of(DapVersion::V09, &format!("{}/v09/", server.url));
    let created = helper.create_job(&name(), b"init").unwrap();
    assert_eq!(helper.job_named(&name()), Some(created.at));
    assert_eq!(created.success.body, b"");
    assert_eq!(asked(&server), format!("PUT /v09/tasks/{ID}/aggregation_jobs/{}", name()));
}
