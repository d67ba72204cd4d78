//! Requests that are wrong before anyone looks at a message: who asks, how, for how long, and what the answer gives away.

use std::{
    sync::OnceLock,
    time::{Duration, Instant},
};

use daphne_core::{
    batch::BatchMode::TimeInterval,
    ids::{AggregationJobId, TaskId},
    version::{
        DapVersion::{self, V09, V18},
        Message,
    },
};
use e2e::{
    Answer, Books, Client, JOB_CONTINUE, JOB_INIT, SHARE_REQ, Server, World,
    raw::{self, Connection},
    server::{random, random_token},
};

fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(Server::start)
}

fn world() -> World {
    world_in(V09)
}

fn world_in(version: DapVersion) -> World {
    World::new_in(server(), version, TimeInterval, |_| {})
}

/// The start of a request, up to the headers that say how long its body is.
fn head(method: &str, path: &str, headers: &[(&str, &str)]) -> String {
    let headers: String = headers.iter().map(|(n, v)| format!("{n}: {v}\r\n")).collect();
    format!("{method} {path} HTTP/1.1\r\nHost: helper.example\r\n{headers}")
}

/// Method, path and media type of everything that has a body.
fn with_bodies(world: &World) -> [(&'static str, String, &'static str); 3] {
    let id = AggregationJobId::new(random());
    let (method, path) = world.creation(&id);
    [
        (method, path, world.media_type(Message::AggregationJobInit)),
        ("POST", world.job_path(&id), world.media_type(Message::AggregationJobContinue)),
        ("POST", world.shares_path(), world.media_type(Message::AggregateShareRequest)),
    ]
}

/// What an answer is to be.
type Check<'a> = &'a dyn Fn(&Answer);

/// After all that was done to a world, a batch of it is what it should be.
#[track_caller]
fn still_counts_right(world: &World) {
    let mut books = Books::default();
    assert_eq!(world.run(world.timed_job(&world.sums(&[20, 3], world.time(0))), &mut books), []);
    world.collect(world.interval(0, 1), &books);
}

// --- Bodies ---------------------------------------------------------------------------------

const CHUNK: &[u8] = &[b'a'; 1 << 12];
/// What a sender may have sent before an answer reached it: its own and the runtime's buffers.
const UNDERWAY: usize = 4 << 20;

#[test]
fn an_endless_body_is_answered_before_it_is_read_if_it_may_not_be_sent() {
    DapVersion::ALL.into_iter().for_each(an_endless_body_is_answered_before_it_is_read);
}

fn an_endless_body_is_answered_before_it_is_read(version: DapVersion) {
    let world = world_in(version);
    let (bearer, wrong) = (format!("Bearer {}", world.token), format!("Bearer {}", random_token()));
    for (method, path, media_type) in with_bodies(&world) {
        let unknown = TaskId::new(random());
        let elsewhere = path.replace(&world.task_id.to_string(), &unknown.to_string());
        let is_shut_out: Check<'_> = &|a| a.refused_to_strangers(version, &world.task_id);
        let is_unknown: Check<'_> = &|a| a.refused("unrecognizedTask", &unknown);
        let is_404: Check<'_> = &|a| a.refused_without_type(404);
        let nothing = &*format!("/{}/nothing", version.path_prefix());
        let is_405: Check<'_> = &|a| a.refused_without_type(405);
        let is_415: Check<'_> = &|a| a.refused_without_type(415);
        let typed = ("content-type", media_type);
        let (right, wrong) = (("authorization", &*bearer), ("authorization", &*wrong));
        for (method, path, headers, is_right) in [
            (method, &*path, &[typed][..], is_shut_out),
            (method, &path, &[typed, wrong], is_shut_out),
            (method, &path, &[typed, ("dap-auth-token", "x")], is_shut_out),
            (method, &elsewhere, &[typed, right], is_unknown),
            (method, nothing, &[typed, right], is_404),
            ("PATCH", &path, &[typed, right], is_405),
            (method, &path, &[("content-type", "text/plain"), right], is_415),
            (method, &path, &[typed, right, ("content-encoding", "gzip")], is_415),
        ] {
            let head = head(method, path, headers);
            let mut connection = Connection::to(&world.client);
            connection.send(format!("{head}Transfer-Encoding: chunked\r\n\r\n"));
            let sent = connection.stream_until_answered(CHUNK, Duration::ZERO);
            assert!(sent <= UNDERWAY, "{sent}: {head}");
            is_right(&connection.answer().expect(&head));
            // A length was declared, and nothing of it ever comes.
            let answer =
                raw::exchange(&world.client, format!("{head}Content-Length: 60000\r\n\r\n"));
            is_right(&answer.expect(&head));
        }
    }
    still_counts_right(&world);
}

#[test]
fn an_endless_body_is_read_up_to_the_limit_only() {
    DapVersion::ALL.into_iter().for_each(an_endless_body_is_read_up_to_the_limit);
}

fn an_endless_body_is_read_up_to_the_limit(version: DapVersion) {
    let world = world_in(version);
    let bearer = format!("Bearer {}", world.token);
    for ((method, path, media_type), limit) in
        with_bodies(&world).into_iter().zip([8 << 20, 8 << 20, 256 << 10])
    {
        let headers = [("authorization", bearer.as_str()), ("content-type", media_type)];
        let mut connection = Connection::to(&world.client);
        let head = head(method, &path, &headers);
        connection.send(format!("{head}Transfer-Encoding: chunked\r\n\r\n"));
        let sent = connection.stream_until_answered(&[0; 1 << 16], Duration::ZERO);
        assert!((limit..=limit + UNDERWAY).contains(&sent), "{method} {path}: {sent}");
        connection.answer().expect("an answer").refused_without_type(413);
    }
    still_counts_right(&world);
}

#[test]
fn who_asks_before_sending_a_body_is_told_to_go_on_only_with_the_token() {
    let world = world();
    let job = world.timed_job(&world.sums(&[1, 2], world.time(0)));
    let bearer = format!("Bearer {}", world.token);
    let length = job.body.len().to_string();
    let typed =
        [("content-type", JOB_INIT), ("expect", "100-continue"), ("content-length", &length)];
    let ask = |headers: &[(&str, &str)]| {
        let mut connection = Connection::to(&world.client);
        let head = head("PUT", &world.job_path(&job.id), &[&typed[..], headers].concat());
        connection.send(format!("{head}\r\n"));
        connection
    };
    let text = ask(&[]).text_within(Duration::from_secs(1));
    assert!(text.starts_with("HTTP/1.1 403"), "{text}");
    let mut connection = ask(&[("authorization", &bearer)]);
    let text = connection.text_within(Duration::from_secs(1));
    assert_eq!(text, "HTTP/1.1 100 Continue\r\n\r\n");
    let answer = connection.send(&job.body).answer().expect("an answer");
    assert_eq!(world.finish(job, &answer, &mut Books::default()), []);
}

/// A server of its own, whose patience with bodies is short.
#[test]
fn a_body_that_trickles_is_given_up() {
    let server = Server::start();
    let patience = Duration::from_millis(1_500);
    let path = format!("/internal/test/patience?ms={}", patience.as_millis());
    assert_eq!(server.client().ask("POST", &path, &[], None).status, 204);
    let world = World::new(&server, TimeInterval, |_| {});
    let bearer = format!("Bearer {}", world.token);
    let begin = |method: &str, path: &str, media_type: &str| {
        let headers = [("authorization", bearer.as_str()), ("content-type", media_type)];
        let mut connection = Connection::to(&world.client);
        let head = head(method, path, &headers);
        connection.send(format!("{head}Transfer-Encoding: chunked\r\n\r\n"));
        connection
    };
    std::thread::scope(|scope| {
        for (method, path, media_type) in with_bodies(&world) {
            for (chunk, pause) in [(&b"a"[..], Duration::from_millis(100)), (b"", Duration::ZERO)] {
                let (begin, path) = (&begin, path.clone());
                scope.spawn(move || {
                    let started = Instant::now();
                    let mut connection = begin(method, &path, media_type);
                    if !chunk.is_empty() {
                        connection.stream_until_answered(chunk, pause);
                    }
                    let answer = connection.answer().expect("an answer");
                    answer.refused_without_type(503);
                    assert_eq!(answer.header("retry-after"), "1");
                    let took = started.elapsed();
                    let late = patience + Duration::from_secs(10);
                    assert!((patience..late).contains(&took), "{took:?}");
                });
            }
        }
    });
    // Short ones that declare their length are read at once, and no more patiently.
    let headers = [("authorization", bearer.as_str()), ("content-type", JOB_INIT)];
    let path = world.job_path(&AggregationJobId::new(random()));
    let mut connection = Connection::to(&world.client);
    let started = Instant::now();
    connection.send(format!("{}Content-Length: 1000\r\n\r\na", head("PUT", &path, &headers)));
    connection.answer().expect("an answer").refused_without_type(503);
    assert!(started.elapsed() >= patience);
    // What keeps up may take longer: a good megabyte in three seconds.
    let mut connection = begin("PUT", &world.job_path(&AggregationJobId::new(random())), JOB_INIT);
    for _ in 0..30 {
        connection.send(format!("{:x}\r\n", 40_000)).send([0; 40_000]).send("\r\n");
        std::thread::sleep(Duration::from_millis(100));
    }
    let answer = connection.send("0\r\n\r\n").answer().expect("an answer");
    answer.refused("invalidMessage", &world.task_id);
    still_counts_right(&world);
    // The log says how much came of what.
    let log = server.log();
    for said in [
        "only 0 bytes of a body arrived in",
        "fewer than the declared 1000 bytes of a body arrived in",
    ] {
        assert!(log.contains(said), "{said}: {log}");
    }
}

#[test]
fn a_body_with_a_content_coding_is_refused() {
    for world in DapVersion::ALL.map(world_in) {
        let bearer = format!("Bearer {}", world.token);
        for (method, path, media_type) in with_bodies(&world) {
            let send = |coding: &str| {
                let headers = [
                    ("authorization", bearer.as_str()),
                    ("content-type", media_type),
                    ("content-encoding", coding),
                ];
                world.client.ask(method, &path, &headers, Some(&[0x1f, 0x8b, 8, 0]))
            };
            for coding in ["gzip", "GZIP", "br", "deflate", "zstd", "identity, gzip", "x"] {
                send(coding).refused_without_type(415);
            }
            for coding in ["identity", "Identity", ""] {
                send(coding).refused("invalidMessage", &world.task_id);
            }
        }
    }
}

#[test]
fn framing_that_can_be_read_in_two_ways_is_refused() {
    let world = world();
    let bearer = format!("Bearer {}", world.token);
    let headers = [("authorization", bearer.as_str()), ("content-type", SHARE_REQ)];
    let head = head("POST", &world.shares_path(), &headers);
    for framing in [
        "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        "Content-Length: -1\r\n\r\nhello",
        "Content-Length: 0x5\r\n\r\nhello",
        "Content-Length: 99999999999999999999999\r\n\r\nhello",
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /healthz HTTP/1.1\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\nhello\r\n0\r\n\r\n",
    ] {
        let mut connection = Connection::to(&world.client);
        connection.send(format!("{head}{framing}"));
        // It hangs up: what follows belongs to nobody.
        let text = connection.text_within(Duration::from_secs(3));
        assert!(text.starts_with("HTTP/1.1 400") || text.is_empty(), "{framing:?}: {text}");
        assert_eq!(text.matches("HTTP/1.1").count(), usize::from(!text.is_empty()), "{text}");
    }
    still_counts_right(&world);
}

// --- Paths and methods ----------------------------------------------------------------------

#[test]
fn a_path_has_one_spelling() {
    for (version, v, upper) in [(V09, "v09", "V09"), (V18, "v18", "V18")] {
        let world = world_in(version);
        let (task, job) = (world.task_id.to_string(), AggregationJobId::new(random()).to_string());
        let shares = world.shares_path();
        let mut paths = vec![
            format!("{shares}/"),
            format!("//{v}/tasks/{task}/aggregate_shares"),
            format!("/{v}//tasks/{task}/aggregate_shares"),
            format!("/{v}/tasks//{task}/aggregate_shares"),
            format!("/{v}/tasks/{task}//aggregate_shares"),
            format!("/{upper}/tasks/{task}/aggregate_shares"),
            format!("/{v}/Tasks/{task}/aggregate_shares"),
            format!("/{v}/tasks/{task}/%61ggregate_shares"),
            format!("/{v}%2Ftasks/{task}/aggregate_shares"),
            format!("/{v}/tasks/{task}/aggregate_shares;x=1"),
            format!("/{v}/tasks/{task}/aggregate_shares/x/y"),
            format!("/{v}/tasks/{task}/aggregation_jobs/"),
            format!("/{v}/tasks/{task}/aggregation_jobs/{job}/"),
            format!("/{v}/tasks/{task}/aggregation_jobs//{job}"),
            format!("/{v}/tasks//aggregation_jobs/{job}"),
        ];
        // What DAP-09 does not have.
        if version == V09 {
            paths.push(format!("/v09/tasks/{task}/aggregation_jobs"));
            paths.push(format!("/v09/tasks/{task}/aggregate_shares/x"));
        }
        for path in paths {
            for method in ["POST", "PUT", "GET"] {
                let body = (method != "GET").then_some(b"garbage".as_slice());
                world.ask(method, &path, SHARE_REQ, body).refused_without_type(404);
            }
        }
        // An id is compared as it is spelt.
        let is_malformed = |path: &str| {
            let answer = world.ask("POST", path, SHARE_REQ, Some(b""));
            match version {
                V09 => answer.refused_without_type(400),
                V18 => {
                    assert_eq!((answer.status, &*answer.problem_token()), (400, "invalidMessage"));
                }
            }
        };
        let encoded = format!("%{:02X}{}", task.as_bytes()[0], &task[1..]);
        is_malformed(&format!("/{v}/tasks/{encoded}/aggregate_shares"));
        let encoded = format!("%{:02X}{}", job.as_bytes()[0], &job[1..]);
        is_malformed(&format!("/{v}/tasks/{task}/aggregation_jobs/{encoded}"));
    }
}

/// Dots are resolved before anything is looked up, so they lead nowhere that is not open anyway.
#[test]
fn dots_in_a_path_get_around_no_door() {
    let world = world();
    let bearer = format!("Bearer {}", world.token);
    for (path, status) in [
        ("/v09/../admin/tasks".to_owned(), 403),
        ("/v09/%2e%2e/admin/tasks".to_owned(), 403),
        (format!("/v09/tasks/{}/../../../admin/tasks", world.task_id), 403),
        (format!("/v09/tasks/{}/%2e%2e/%2E%2E/x", world.task_id), 404),
        ("/../../etc/passwd".to_owned(), 404),
        ("/..%2f..%2fetc/passwd".to_owned(), 404),
        ("/v09/./healthz".to_owned(), 404),
        ("/v09/../healthz".to_owned(), 200),
    ] {
        let head = head("GET", &path, &[("authorization", &bearer)]);
        let answer = raw::exchange(&world.client, format!("{head}\r\n")).expect("an answer");
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
    }
}

#[test]
fn a_method_that_nobody_knows_is_no_get() {
    let world = world();
    let job = world.job_path(&AggregationJobId::new(random()));
    let bearer = format!("Bearer {}", server().admin_token());
    for path in ["/v09/hpke_config", "/healthz", "/admin/tasks", &job, &world.shares_path()] {
        for method in ["PROPFIND", "LOCK", "SEARCH", "PURGE", "TRACE"] {
            let head = head(method, path, &[("authorization", &bearer)]);
            let answer = raw::exchange(&world.client, format!("{head}\r\n")).expect("an answer");
            answer.refused_without_type(405);
            assert!(!answer.header("allow").is_empty() && !answer.header("allow").contains(method));
        }
        // What is no method of HTTP at all, the runtime refuses by itself.
        for method in ["get", "FOO", "G\u{2603}T"] {
            let head = head(method, path, &[("authorization", &bearer)]);
            let answer = raw::exchange(&world.client, format!("{head}\r\n"));
            assert!(answer.is_none_or(|a| a.status == 400 || a.status == 501), "{method}");
        }
    }
}

#[test]
fn head_answers_as_get_without_the_body() {
    let world = world();
    let bearer = format!("Bearer {}", server().admin_token());
    let task = format!("/admin/tasks/{}", world.task_id);
    for path in [
        "/healthz",
        "/v09/hpke_config",
        "/v09/hpke_config?task_id=x",
        "/admin/tasks?limit=1",
        "/admin/hpke_keys",
        &task,
        &format!("{task}/status"),
        "/admin/tasks?limit=x",
        "/nothing",
    ] {
        let ask = |method| {
            let headers = [("authorization", bearer.as_str()), ("origin", "https://page.example")];
            world.client.ask(method, path, &headers, None)
        };
        let (get, head) = (ask("GET"), ask("HEAD"));
        assert_eq!((head.status, head.body.len()), (get.status, 0), "{path}");
        assert!(!get.body.is_empty());
        let named = |answer: &Answer| {
            let mut headers = answer.headers.clone();
            // The runtime leaves it out of an answer without a body.
            headers.remove("content-length");
            headers
        };
        assert_eq!(named(&head), named(&get), "{path}");
    }
}

#[test]
fn a_query_that_nobody_asked_for_is_ignored() {
    let world = world();
    let mut books = Books::default();
    let job = world.timed_job(&world.sums(&[1, 2], world.time(0)));
    let path = format!("{}?step=7&task_id=x&%00=%ff", world.job_path(&job.id));
    let answer = world.ask("PUT", &path, JOB_INIT, Some(&job.body));
    let (id, body) = (job.id, answer.body.clone());
    assert_eq!(world.finish(job, &answer, &mut books), []);
    assert_eq!(world.ask("DELETE", &format!("{}?x", world.job_path(&id)), "", None).status, 204);
    let request = world.share_request(world.interval(0, 1), &books);
    let path = format!("{}?a=b", world.shares_path());
    let answer = world.ask("POST", &path, SHARE_REQ, Some(&request));
    world.assert_true(world.interval(0, 1), &books, &answer);
    assert!(!body.is_empty());
    let plain = world.client.get("/v09/hpke_config");
    for query in ["?", "?x=y", "?task=x", "?TASK_ID=x"] {
        assert_eq!(world.client.get(&format!("/v09/hpke_config{query}")).body, plain.body);
    }
}

#[test]
fn old_and_odd_versions_of_http_harm_nobody() {
    let world = world();
    let client = &world.client;
    let answer = raw::exchange(client, "GET /healthz HTTP/1.0\r\nHost: x\r\n\r\n").unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (200, "{\"status\":\"ok\"}"));
    let head = format!("POST {} HTTP/1.0\r\nHost: x\r\n\r\n", world.shares_path());
    let answer = raw::exchange(client, head).unwrap();
    answer.refused("unauthorizedRequest", &world.task_id);
    for request in [
        "GET /healthz HTTP/1.1\r\n\r\n",
        "GET /healthz HTTP/0.9\r\n\r\n",
        "GET /healthz HTTP/2.0\r\nHost: x\r\n\r\n",
        "GET /healthz HTTP/9.9\r\nHost: x\r\n\r\n",
        "GET /healthz\r\n\r\n",
        "GET /health z HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nHost: x\r\nX-A: a\0b\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nHost: x\r\n: nameless\r\n\r\n",
        "\0\u{1}\u{2}\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        // The runtime refuses it, or hangs up.
        let text = Connection::to(client).send(request).text_within(Duration::from_millis(500));
        assert!(!text.contains(" 200 "), "{request:?}: {text}");
        assert_eq!(client.get("/healthz").status, 200, "after {request:?}");
    }
    still_counts_right(&world);
}

// --- Who asks -------------------------------------------------------------------------------

#[test]
fn credentials_that_are_repeated_malformed_or_huge_open_nothing() {
    DapVersion::ALL.into_iter().for_each(credentials_that_are_malformed_open_nothing);
}

fn credentials_that_are_malformed_open_nothing(version: DapVersion) {
    let world = world_in(version);
    let token = &world.token;
    let [(method, path, media_type), ..] = with_bodies(&world);
    let long = "x".repeat(20_000);
    for headers in [
        vec![format!("Authorization: Bearer {token}"); 2],
        vec![format!("Authorization: Bearer {token}"), "Authorization: Bearer x".to_owned()],
        vec!["Authorization: Bearer x".to_owned(), format!("Authorization: Bearer {token}")],
        vec![format!("DAP-Auth-Token: {token}"); 2],
        vec![format!("Authorization: Bearer {token}, Bearer {token}")],
        vec![format!("Authorization: Bearer {token}\u{a0}")],
        vec![format!("Authorization: Bearer {token}=")],
        vec![format!("Authorization: Bearer \"{token}\"")],
        vec![format!("Authorization: Bearer{token}")],
        vec![format!("Authorization: Bearer\t{token}")],
        vec![format!("Authorization: Token {token}")],
        vec![format!("Authorization: {token}")],
        vec![format!("Authorization: Bearer {}", token.to_uppercase())],
        vec![format!("Authorization: Bearer {}", &token[..token.len() - 1])],
        vec![format!("Authorization: Bearer {token}{long}")],
        vec![format!("Authorization: Bearer {long}"), format!("DAP-Auth-Token: {token}")],
        vec!["Authorization:".to_owned()],
        vec!["Authorization: Bearer".to_owned()],
        vec![format!("Proxy-Authorization: Bearer {token}")],
        vec![format!("Cookie: token={token}")],
    ] {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {media_type}\r\nContent-Length: 0\r\n\
             {}\r\n\r\n",
            headers.join("\r\n")
        );
        let answer = raw::exchange(&world.client, request).expect("an answer");
        answer.refused_to_strangers(version, &world.task_id);
    }
    // A megabyte is more than the runtime reads.
    let mut connection = Connection::to(&world.client);
    let huge = "x".repeat(1 << 20);
    connection.send(format!("{}X-A: {huge}\r\n\r\n", head("GET", "/healthz", &[])));
    let text = connection.text_within(Duration::from_secs(3));
    assert!(text.is_empty() || text.starts_with("HTTP/1.1 431"), "{text}");
    still_counts_right(&world);
}

/// What the edge says about the connection in front of it.
#[test]
fn a_request_over_plain_http_is_refused_whatever_it_asks() {
    let world = world();
    let job = world.timed_job(&world.sums(&[1, 2], world.time(0)));
    let (leader, operator) =
        (format!("Bearer {}", world.token), format!("Bearer {}", server().admin_token()));
    let ask = |scheme: &str, method: &str, path: &str, bearer: &str, body: Option<&[u8]>| {
        let visitor = format!("{{\"scheme\":\"{scheme}\"}}");
        let headers =
            [("cf-visitor", &*visitor), ("authorization", bearer), ("content-type", JOB_INIT)];
        world.client.ask(method, path, &headers, body)
    };
    let path = world.job_path(&job.id);
    ask("http", "PUT", &path, &leader, Some(&job.body)).refused_without_type(403);
    ask("http", "DELETE", &path, &leader, None).refused_without_type(403);
    ask("http", "GET", "/v09/hpke_config", &leader, None).refused_without_type(403);
    let jobs = world_in(V18).path("aggregation_jobs");
    ask("http", "POST", &jobs, &leader, Some(b"x")).refused_without_type(403);
    ask("http", "GET", "/v18/hpke_config", &leader, None).refused_without_type(403);
    ask("http", "GET", "/admin/tasks", &operator, None).refused_without_type(403);
    ask("http", "GET", "/healthz", &operator, None).refused_without_type(403);
    assert_eq!(ask("https", "GET", "/admin/tasks", &operator, None).status, 200);
    let answer = ask("https", "PUT", &path, &leader, Some(&job.body));
    assert_eq!(world.finish(job, &answer, &mut Books::default()), []);
}

// --- What an answer gives away --------------------------------------------------------------

/// A refusal says nothing that the peer said first, so that nothing can be planted in it.
#[test]
fn no_refusal_repeats_what_was_sent() {
    let world = world();
    const MARK: &str = "zqMarkerqz";
    let (task, later) = (world.task_id.to_string(), world_in(V18).task_id.to_string());
    let (leader, operator) =
        (format!("Bearer {}", world.token), format!("Bearer {}", server().admin_token()));
    let marked = format!("{MARK}<script>");
    let json = format!(
        "{{\"{MARK}\": \"{MARK}\", \"version\": \"{MARK}\", \"min_batch_size\": \"{MARK}\"}}"
    );
    let mut refusals = 0;
    for bearer in ["", "Bearer zqMarkerqz", "zqMarkerqz", &leader, &operator] {
        for (method, path) in [
            ("GET", format!("/{MARK}")),
            ("GET", format!("/v09/{MARK}/%3C{MARK}%3E")),
            ("GET", format!("/v09/hpke_config?task_id={MARK}")),
            ("PUT", format!("/v09/tasks/{MARK}/aggregation_jobs/{MARK}")),
            ("PUT", format!("/v09/tasks/{task}/aggregation_jobs/{MARK}?{MARK}={MARK}")),
            ("PUT", format!("/v09/tasks/{task}/aggregation_jobs/AAAAAAAAAAAAAAAAAAAAAA?{MARK}")),
            ("POST", format!("/v09/tasks/{task}/aggregation_jobs/AAAAAAAAAAAAAAAAAAAAAA?{MARK}")),
            ("GET", format!("/v09/tasks/{task}/aggregation_jobs/AAAAAAAAAAAAAAAAAAAAAA?{MARK}")),
            ("POST", format!("/v09/tasks/{task}/aggregate_shares?{MARK}")),
            ("POST", format!("/v18/tasks/{later}/aggregation_jobs?{MARK}={MARK}")),
            ("POST", format!("/v18/tasks/{later}/aggregation_jobs/{MARK}")),
            ("GET", format!("/v18/tasks/{later}/aggregation_jobs/{MARK}?step={MARK}")),
            ("GET", format!("/v18/tasks/{later}/aggregate_shares/{MARK}")),
            ("POST", format!("/v18/tasks/{later}/aggregate_shares?{MARK}")),
            ("POST", "/admin/tasks".to_owned()),
            ("POST", "/admin/hpke_keys".to_owned()),
            ("GET", format!("/admin/tasks/{MARK}")),
            ("GET", format!("/admin/tasks?{MARK}={MARK}")),
            ("GET", format!("/admin/tasks?after={MARK}&limit={MARK}")),
            ("DELETE", format!("/admin/tasks/{task}?{MARK}={MARK}")),
            ("POST", "/admin/taskprov_peers".to_owned()),
            ("DELETE", format!("/admin/taskprov_peers?{MARK}={MARK}")),
            ("PATCH", format!("/admin/taskprov_peers?leader={MARK}")),
            ("PATCH", format!("/admin/hpke_keys/{MARK}")),
            ("DELETE", format!("/admin/hpke_keys/{MARK}?{MARK}")),
        ] {
            for media_type in [MARK, JOB_INIT, JOB_CONTINUE, SHARE_REQ, "application/json"] {
                let headers = [
                    ("authorization", bearer),
                    ("content-type", media_type),
                    ("dap-auth-token", MARK),
                    ("dap-taskprov", MARK),
                    ("origin", &marked),
                    ("referer", &marked),
                    ("user-agent", MARK),
                    ("accept", MARK),
                    ("x-forwarded-host", MARK),
                    ("cf-visitor", MARK),
                ];
                let body = matches!(method, "PUT" | "POST" | "PATCH").then_some(json.as_bytes());
                let answer = world.client.ask(method, &path, &headers, body);
                assert!((400..500).contains(&answer.status), "{method} {path}: {}", answer.status);
                let all = format!("{:?} {}", answer.headers, answer.text()).to_lowercase();
                assert!(!all.contains("marker") && !all.contains("script"), "{path}: {all}");
                refusals += 1;
            }
        }
    }
    assert!(refusals > 300);
}

#[test]
fn caches_keep_only_hpke_configurations_and_browsers_guess_no_types() {
    DapVersion::ALL.into_iter().for_each(caches_keep_only_hpke_configurations);
}

fn caches_keep_only_hpke_configurations(version: DapVersion) {
    let world = world_in(version);
    let job = world.timed_job(&world.sums(&[1, 2], world.time(0)));
    let mut books = Books::default();
    let answer = world.put(&job);
    let id = job.id;
    let mut answers = vec![answer.clone()];
    assert_eq!(world.finish(job, &answer, &mut books), []);
    let request = world.share_request(world.interval(0, 1), &books);
    answers.push(world.post_share(&request));
    answers.push(world.delete(&id));
    answers.push(world.post_share(b""));
    answers.push(world.client.get("/nothing"));
    answers.push(world.client.get("/healthz"));
    answers.push(world.client.get("/v09/hpke_config?task_id=x"));
    answers.push(world.client.ask("PATCH", "/healthz", &[], Some(b"")));
    answers.push(server().admin_ask("GET", &format!("/admin/tasks/{}", world.task_id), None));
    answers.push(server().admin_ask("GET", "/admin/hpke_keys", None));
    for answer in &answers {
        assert_eq!(answer.header("cache-control"), "no-store", "{}", answer.text());
    }
    answers.push(world.client.get(&format!("/{}/hpke_config", version.path_prefix())));
    for answer in &answers {
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{}", answer.text());
    }
}

#[test]
fn pages_of_other_origins_may_read_hpke_configurations_and_nothing_else() {
    let world = world();
    let bearer = format!("Bearer {}", world.token);
    let job = world.timed_job(&world.sums(&[1, 2], world.time(0)));
    let ask = |client: &Client, method: &str, path: &str, body: Option<&[u8]>| {
        let headers = [
            ("origin", "https://page.example"),
            ("access-control-request-method", "PUT"),
            ("access-control-request-headers", "authorization"),
            ("authorization", &*bearer),
            ("content-type", JOB_INIT),
        ];
        client.ask(method, path, &headers, body)
    };
    let path = world.job_path(&job.id);
    let shares = world.shares_path();
    for (method, path, body, status) in [
        ("OPTIONS", &*path, None, 405),
        ("OPTIONS", &shares, None, 405),
        ("OPTIONS", "/admin/tasks", None, 405),
        ("OPTIONS", "/healthz", None, 405),
        ("OPTIONS", "/nothing", None, 404),
        ("PUT", &path, Some(&*job.body), 200),
        ("DELETE", &path, None, 204),
        ("POST", &shares, Some(b""), 415),
        ("GET", "/admin/tasks", None, 403),
    ] {
        let answer = ask(&world.client, method, path, body);
        assert_eq!(answer.status, status, "{method} {path}");
        for name in answer.headers.keys() {
            assert!(!name.as_str().starts_with("access-control"), "{method} {path}: {name}");
        }
    }
    // Reading them needs no credentials, so none are allowed.
    let answer = ask(&world.client, "OPTIONS", "/v09/hpke_config", None);
    assert_eq!(answer.status, 204);
    assert_eq!(answer.header("access-control-allow-methods"), "GET");
    assert_eq!(answer.header("access-control-allow-headers"), "content-type");
    assert_eq!(answer.header("access-control-allow-credentials"), "");
}
