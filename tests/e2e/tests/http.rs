//! Paths, methods, headers and credentials of the DAP resources.

use std::sync::OnceLock;

use daphne_core::{
    batch::BatchMode::TimeInterval,
    codec::Reader,
    hpke::HpkeConfigList,
    ids::{AggregationJobId, TaskId},
    message::PartialBatchSelector,
    version::{
        DapVersion::{self, V09, V18},
        Message,
    },
};
use e2e::{
    Answer, Books, JOB_CONTINUE, JOB_INIT, KINDS, SHARE_REQ, Server, World,
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

const JOB_INIT_18: &str = "application/ppm-dap;message=aggregation-job-init-req";
const JOB_CONTINUE_18: &str = "application/ppm-dap;message=aggregation-job-continue-req";
const SHARE_REQ_18: &str = "application/ppm-dap;message=aggregate-share-req";

/// Method, path and media type of everything that only a leader may do, what names a job first.
fn leaders_requests(
    version: DapVersion,
    task: &str,
    job: &str,
) -> Vec<(&'static str, String, &'static str)> {
    let task = format!("/{}/tasks/{task}", version.path_prefix());
    let (jobs, shares) = (format!("{task}/aggregation_jobs"), format!("{task}/aggregate_shares"));
    let job = format!("{jobs}/{job}");
    match version {
        V09 => vec![
            ("PUT", job.clone(), JOB_INIT),
            ("POST", job.clone(), JOB_CONTINUE),
            ("DELETE", job, ""),
            ("POST", shares, SHARE_REQ),
        ],
        V18 => vec![
            ("GET", format!("{job}?step=0"), ""),
            ("POST", job.clone(), JOB_CONTINUE_18),
            ("DELETE", job, ""),
            ("POST", jobs, JOB_INIT_18),
            ("GET", format!("{shares}/{}", "A".repeat(43)), ""),
            ("DELETE", format!("{shares}/{}", "A".repeat(43)), ""),
            ("POST", shares, SHARE_REQ_18),
        ],
    }
}

fn body(method: &str) -> Option<&'static [u8]> {
    (!["DELETE", "GET"].contains(&method)).then_some(b"garbage")
}

/// Asserts what a path with a malformed id is told.
#[track_caller]
fn is_malformed(version: DapVersion, answer: &Answer) {
    match version {
        V09 => answer.refused_without_type(400),
        V18 => assert_eq!((answer.status, &*answer.problem_token()), (400, "invalidMessage")),
    }
}

#[test]
fn an_unknown_task_is_refused() {
    for version in DapVersion::ALL {
        let world = world_in(version);
        let unknown = TaskId::new(random());
        let job = AggregationJobId::new(random()).to_string();
        for (method, path, media_type) in leaders_requests(version, &unknown.to_string(), &job) {
            let answer = world.ask(method, &path, media_type, body(method));
            answer.refused("unrecognizedTask", &unknown);
            // Also without credentials: whose could be checked?
            let answer = world.client.ask(method, &path, &[], body(method));
            answer.refused("unrecognizedTask", &unknown);
        }
    }
    let unknown = TaskId::new(random());
    let client = server().client();
    client
        .get(&format!("/v09/hpke_config?task_id={unknown}"))
        .refused("unrecognizedTask", &unknown);
    // DAP-18 has no such parameter.
    for id in [unknown.to_string(), "x".to_owned(), String::new()] {
        let answer = client.get(&format!("/v18/hpke_config?task_id={id}"));
        assert_eq!(answer.body, client.get("/v09/hpke_config").body);
    }
}

/// A task speaks the version that it was made for, and no other.
#[test]
fn a_task_is_unknown_under_the_other_versions_path() {
    for (version, other) in [(V09, V18), (V18, V09)] {
        let world = world_in(version);
        let job = AggregationJobId::new(random()).to_string();
        let task = world.task_id;
        for (method, path, media_type) in leaders_requests(other, &task.to_string(), &job) {
            let answer = world.ask(method, &path, media_type, body(method));
            answer.refused("unrecognizedTask", &task);
        }
        if version == V18 {
            let path = format!("/v09/hpke_config?task_id={task}");
            world.client.get(&path).refused("unrecognizedTask", &task);
        }
        let mut books = Books::default();
        assert_eq!(world.run(world.timed_job(&world.sums(&[1, 2], world.time(0))), &mut books), []);
        world.collect(world.interval(0, 1), &books);
    }
}

#[test]
fn a_malformed_id_is_refused() {
    for version in DapVersion::ALL {
        let world = world_in(version);
        let task = world.task_id.to_string();
        let job = "AAAAAAAAAAAAAAAAAAAAAA";
        // Cut, too long, padded, with trailing bits, of the other alphabet, and no base64 at all.
        let zeros = "A".repeat(43);
        for bad in [
            &task[..42],
            &format!("{task}A"),
            &format!("{task}="),
            &format!("{}B", &zeros[..42]),
            &format!("{}%2B", &zeros[..42]),
            &format!("{}+", &zeros[..42]),
            "x",
            "%C3%A9",
        ] {
            for (method, path, media_type) in leaders_requests(version, bad, job) {
                is_malformed(version, &world.ask(method, &path, media_type, body(method)));
            }
            let path = format!("/v09/hpke_config?task_id={bad}");
            world.client.get(&path).refused_without_type(400);
        }
        for bad in [
            "AAAAAAAAAAAAAAAAAAAAA",
            "AAAAAAAAAAAAAAAAAAAAAAA",
            "AAAAAAAAAAAAAAAAAAAAAB",
            "AAAAAAAAAAAAAAAAAAAAAA==",
        ] {
            for (method, path, media_type) in &leaders_requests(version, &task, bad)[..3] {
                is_malformed(version, &world.ask(method, path, media_type, body(method)));
            }
        }
    }
    server().client().get("/v09/hpke_config?task_id=").refused_without_type(400);
}

#[test]
fn only_the_leaders_token_opens_and_the_body_is_not_looked_at_before() {
    DapVersion::ALL.into_iter().for_each(only_the_leaders_token_opens);
}

fn only_the_leaders_token_opens(version: DapVersion) {
    let (world, other) = (world_in(version), world_in(version));
    let path_of = |id: &AggregationJobId| {
        leaders_requests(version, &world.task_id.to_string(), &id.to_string())
    };
    let bearer = |token: &str| ("authorization", format!("Bearer {token}"));
    let verify_key = daphne_core::b64::encode(&world.spec.verify_key);
    for headers in [
        vec![],
        vec![bearer(&random_token())],
        vec![bearer(&other.token)],
        vec![bearer(server().admin_token())],
        vec![bearer(&verify_key)],
        vec![bearer("")],
        vec![("authorization", world.token.clone())],
        vec![("authorization", format!("Basic {}", world.token))],
        vec![("dap-auth-token", random_token())],
        vec![("dap-auth-token", String::new())],
        vec![("dap-auth-token", format!("Bearer {}", world.token))],
        // The bearer token counts, if there is one.
        vec![bearer(&random_token()), ("dap-auth-token", world.token.clone())],
    ] {
        for (method, path, media_type) in path_of(&AggregationJobId::new(random())) {
            for media_type in [media_type, "text/plain"] {
                let mut headers: Vec<_> = headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
                headers.push(("content-type", media_type));
                let answer = world.client.ask(method, &path, &headers, body(method));
                answer.refused_to_strangers(version, &world.task_id);
            }
        }
    }
}

#[test]
fn either_header_carries_the_token() {
    for version in DapVersion::ALL {
        let world = world_in(version);
        for (name, value) in [
            ("authorization", format!("Bearer {}", world.token)),
            ("Authorization", format!("bearer {}", world.token)),
            ("authorization", format!("BEARER   {}", world.token)),
            ("dap-auth-token", world.token.clone()),
            ("DAP-Auth-Token", world.token.clone()),
        ] {
            let job = world.timed_job(&world.sums(&[1], world.time(0)));
            let media_type = world.media_type(Message::AggregationJobInit);
            let headers = [(name, value.as_str()), ("content-type", media_type)];
            let (method, path) = world.creation(&job.id);
            let answer = world.client.ask(method, &path, &headers, Some(&job.body));
            assert_eq!(world.finish(job, &answer, &mut Books::default()), [], "{name}: {value}");
        }
    }
}

#[test]
fn the_media_type_must_be_the_messages() {
    for (version, types, wrong, right) in [
        (
            V09,
            [JOB_INIT, JOB_CONTINUE, SHARE_REQ],
            &[
                "application/dap-aggregation-job-init-re",
                "application/dap-aggregation-job-init-req2",
                JOB_INIT_18,
                "text/plain; application/dap-aggregation-job-init-req",
            ][..],
            [
                "application/dap-aggregation-job-init-req; version=09",
                "application/dap-aggregation-job-init-req;charset=utf-8",
                "Application/DAP-Aggregation-Job-Init-Req",
                "application/dap-aggregation-job-init-req ;  x=\"y\"",
            ],
        ),
        (
            V18,
            [JOB_INIT_18, JOB_CONTINUE_18, SHARE_REQ_18],
            &[
                "application/ppm-dap",
                "application/ppm-dap;message=",
                "application/ppm-dap;message=aggregation-job-resp",
                "application/ppm-dap;message=aggregation-job-init-re",
                "application/ppm-dap;a=\"message=aggregation-job-init-req\"",
                "application/dap;message=aggregation-job-init-req",
                JOB_INIT,
            ],
            [
                "application/ppm-dap;message=aggregation-job-init-req;version=18",
                "application/ppm-dap; version=18 ; message=aggregation-job-init-req",
                "Application/PPM-DAP;Message=Aggregation-Job-Init-Req",
                "application/ppm-dap ;  message=\"aggregation-job-init-req\"",
            ],
        ),
    ] {
        let world = world_in(version);
        let bearer = format!("Bearer {}", world.token);
        let send = |(method, path): (&str, &str), media_type: &str, body: &[u8]| {
            let mut headers = vec![("authorization", bearer.as_str())];
            if !media_type.is_empty() {
                headers.push(("content-type", media_type));
            }
            world.client.ask(method, path, &headers, Some(body))
        };
        let job = world.timed_job(&world.sums(&[1, 2], world.time(0)));
        let (method, path) = world.creation(&job.id);
        let (job_path, shares) = (world.job_path(&job.id), world.shares_path());
        let [init, next, share] = types;
        let anywhere = ["", "application/json", "application/octet-stream"];
        for wrong in anywhere.iter().chain(wrong) {
            send((method, &path), wrong, &job.body).refused_without_type(415);
            send(("POST", &job_path), wrong, b"").refused_without_type(415);
            send(("POST", &shares), wrong, b"").refused_without_type(415);
        }
        // Those of the other messages.
        send((method, &path), next, &job.body).refused_without_type(415);
        send((method, &path), share, &job.body).refused_without_type(415);
        send(("POST", &job_path), init, b"").refused_without_type(415);
        send(("POST", &job_path), share, b"").refused_without_type(415);
        send(("POST", &shares), init, b"").refused_without_type(415);
        let first = send((method, &path), init, &job.body);
        for right in right {
            assert_eq!(send((method, &path), right, &job.body).body, first.body, "{right}");
        }
        assert_eq!(world.finish(job, &first, &mut Books::default()), []);
    }
}

/// What a helper answers a job with, and where it says that the job is, letter by letter.
#[test]
fn answers_have_their_media_types_and_new_resources_a_location() {
    let world = world_in(V18);
    let job = world.timed_job(&world.sums(&[1, 2], world.time(0)));
    let bearer = format!("Bearer {}", world.token);
    let post = |path: &str, media_type: &str, body: &[u8]| {
        let headers = [("authorization", bearer.as_str()), ("content-type", media_type)];
        world.client.ask("POST", path, &headers, Some(body))
    };
    let jobs = format!("/v18/tasks/{}/aggregation_jobs", world.task_id);
    // A query of the leader's is none of the job's.
    let (first, again) =
        (post(&jobs, JOB_INIT_18, &job.body), post(&format!("{jobs}?x=y"), JOB_INIT_18, &job.body));
    first.ok("application/ppm-dap;message=aggregation-job-resp");
    let location = first.header("location").to_owned();
    let id = location.strip_prefix(&format!("{jobs}/")).expect("below the collection");
    assert_eq!(id.len(), 22);
    assert!(id.parse::<AggregationJobId>().is_ok(), "{id}");
    assert_eq!(again.header("location"), location);
    assert_eq!(again.body, first.body);
    let mut books = Books::default();
    assert_eq!(world.finish(job, &first, &mut books), []);
    let shares = format!("/v18/tasks/{}/aggregate_shares", world.task_id);
    let share = post(&shares, SHARE_REQ_18, &world.share_request(world.interval(0, 1), &books));
    share.ok("application/ppm-dap;message=aggregate-share");
    assert!(share.header("location").starts_with(&format!("{shares}/")));
    let list = world.client.get("/v18/hpke_config");
    list.ok("application/ppm-dap;message=hpke-config-list");
    // A refusal creates nothing, and says of nothing where it is.
    let refused = post(&jobs, JOB_INIT_18, b"garbage");
    refused.refused("invalidMessage", &world.task_id);
    assert_eq!(refused.header("location"), "");
}

#[test]
fn other_methods_are_refused_with_a_list_of_those_that_exist() {
    let (world, later) = (world(), world_in(V18));
    let id = AggregationJobId::new(random());
    let (job, shares) = (world.job_path(&id), world.shares_path());
    let (jobs_18, job_18, shares_18) =
        (later.path("aggregation_jobs"), later.job_path(&id), later.shares_path());
    let share_18 = format!("{shares_18}/{}", "A".repeat(43));
    for (path, allowed, others) in [
        (job.as_str(), "PUT, POST, DELETE", &["GET", "HEAD", "PATCH", "OPTIONS"][..]),
        (shares.as_str(), "POST", &["GET", "PUT", "DELETE", "OPTIONS"]),
        ("/v09/hpke_config", "GET, HEAD, OPTIONS", &["POST", "PUT", "DELETE", "PATCH"]),
        (&jobs_18, "POST", &["GET", "HEAD", "PUT", "DELETE", "OPTIONS"]),
        (&job_18, "GET, HEAD, POST, DELETE", &["PUT", "PATCH", "OPTIONS"]),
        (&shares_18, "POST", &["GET", "PUT", "DELETE", "OPTIONS"]),
        (&share_18, "GET, HEAD, DELETE", &["POST", "PUT", "PATCH", "OPTIONS"]),
        ("/v18/hpke_config", "GET, HEAD, OPTIONS", &["POST", "PUT", "DELETE", "PATCH"]),
    ] {
        for method in others {
            let body = matches!(*method, "POST" | "PUT" | "PATCH").then_some(b"x".as_slice());
            let answer = world.client.ask(method, path, &[], body);
            assert_eq!(answer.status, 405, "{method} {path}");
            assert_eq!(answer.header("allow"), allowed);
            if *method != "HEAD" {
                answer.refused_without_type(405);
            }
        }
    }
}

#[test]
fn nothing_is_anywhere_else() {
    let client = server().client();
    for path in [
        "/",
        "/v09",
        "/v09/",
        "/hpke_config",
        "/v18",
        "/v18/",
        "/v18/tasks",
        "/v18/tasks/x",
        "/v18/tasks/x/reports",
        "/v18/tasks/x/aggregation_jobs/",
        "/v18/tasks/x/aggregation_jobs/y/z",
        "/v18/tasks/x/aggregate_shares/y/z",
        "/v18/tasks/x/collection_jobs",
        "/v17/hpke_config",
        "/v19/hpke_config",
        "/v09/hpke_config/",
        "/v09/tasks",
        "/v09/tasks/x",
        "/v09/tasks/x/reports",
        "/v09/tasks/x/aggregation_jobs",
        "/v09/tasks/x/aggregation_jobs/y/z",
        "/v09//tasks/x/aggregate_shares",
        "/admin",
        "/internal",
    ] {
        client.get(path).refused_without_type(404);
    }
}

#[test]
fn a_body_over_the_limit_is_refused_and_nothing_stored() {
    for version in DapVersion::ALL {
        let world = world_in(version);
        let id = AggregationJobId::new(random());
        let bearer = format!("Bearer {}", world.token);
        let (method, path) = world.creation(&id);
        for (method, path, message, limit) in [
            (method, path, Message::AggregationJobInit, 8 << 20),
            ("POST", world.job_path(&id), Message::AggregationJobContinue, 8 << 20),
            ("POST", world.shares_path(), Message::AggregateShareRequest, 256 << 10),
        ] {
            let media_type = world.media_type(message);
            let headers = [("authorization", bearer.as_str()), ("content-type", media_type)];
            let large = vec![0; limit + 1];
            let answer = world.client.send_chunked(method, &path, &headers, &large);
            answer.expect("an answer").refused_without_type(413);
            // One byte less is read, declared or not.
            let largest = &large[..limit];
            let answer = world.client.ask(method, &path, &headers, Some(largest));
            answer.refused("invalidMessage", &world.task_id);
            let answer = world.client.send_chunked(method, &path, &headers, largest);
            answer.expect("an answer").refused("invalidMessage", &world.task_id);
            // A length that is declared is believed before anything arrives.
            for declared in [limit + 1, 99_999_999_999] {
                let head = format!(
                    "{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: {bearer}\r\n\
                     Content-Type: {media_type}\r\nContent-Length: {declared}\r\n\r\n"
                );
                let answer = raw::exchange(&world.client, head).expect("an answer");
                answer.refused_without_type(413);
            }
        }
        // The id was not used up.
        let mut job = world.timed_job(&world.sums(&[1], world.time(0)));
        if version == V09 {
            job.id = id;
        }
        assert_eq!(world.run(job, &mut Books::default()), []);
    }
}

#[test]
fn a_job_sent_in_chunks_is_read() {
    for version in DapVersion::ALL {
        let world = world_in(version);
        let job = world.timed_job(&world.sums(&[1, 2], world.time(0)));
        let bearer = format!("Bearer {}", world.token);
        let media_type = world.media_type(Message::AggregationJobInit);
        let headers = [("authorization", bearer.as_str()), ("content-type", media_type)];
        let (method, path) = world.creation(&job.id);
        let answer = world.client.send_chunked(method, &path, &headers, &job.body);
        assert_eq!(world.finish(job, &answer.unwrap(), &mut Books::default()), []);
    }
}

#[test]
fn a_body_that_breaks_off_stores_nothing() {
    for version in DapVersion::ALL {
        let world = world_in(version);
        let job = world.timed_job(&world.sums(&[1, 2], world.time(0)));
        let (method, path) = world.creation(&job.id);
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\
             Content-Type: {}\r\nContent-Length: {}\r\n\r\n",
            world.token,
            world.media_type(Message::AggregationJobInit),
            job.body.len()
        );
        for sent in [0, 1, job.body.len() / 2, job.body.len() - 1] {
            Connection::to(&world.client).send(&head).send(&job.body[..sent]);
        }
        // Another body may still have the id.
        let mut other = world.timed_job(&world.sums(&[3, 4], world.time(0)));
        if version == V09 {
            other.id = job.id;
        }
        let mut books = Books::default();
        assert_eq!(world.run(other, &mut books), []);
        world.collect(world.interval(0, 1), &books);
    }
}

#[test]
fn hpke_configurations_are_the_same_with_and_without_a_task() {
    let world = world();
    let plain = world.client.get("/v09/hpke_config");
    let body = plain.ok("application/dap-hpke-config-list");
    let list = Reader::all(body, HpkeConfigList::read).unwrap();
    assert!(list.0.contains(server().hpke_config()));
    let of_task = world.client.get(&format!("/v09/hpke_config?task_id={}", world.task_id));
    assert_eq!(of_task.ok("application/dap-hpke-config-list"), body);
}

#[test]
fn any_page_may_read_the_hpke_configurations_and_caches_keep_them() {
    let client = server().client();
    let ask = |method: &str, path: &str, headers: &[(&str, &str)]| {
        client.ask(method, path, headers, None)
    };
    let origin = ("origin", "https://page.example");
    let later = ask("GET", "/v18/hpke_config", &[origin]);
    let plain = ask("GET", "/v09/hpke_config", &[]);
    assert_eq!(plain.header("access-control-allow-origin"), "");
    let answer = ask("GET", "/v09/hpke_config", &[origin]);
    assert_eq!(later.body, answer.body);
    for name in ["cache-control", "access-control-allow-origin", "vary"] {
        assert_eq!(later.header(name), answer.header(name), "{name}");
    }
    assert_eq!(answer.header("access-control-allow-origin"), origin.1);
    for answer in [&plain, &answer] {
        assert_eq!(answer.header("cache-control"), "max-age=86400");
        assert_eq!(answer.header("vary"), "Origin");
    }
    let head = ask("HEAD", "/v09/hpke_config", &[origin]);
    assert_eq!((head.status, head.body.len()), (200, 0));
    for name in ["content-type", "cache-control", "access-control-allow-origin", "vary"] {
        assert_eq!(head.header(name), answer.header(name), "{name}");
    }
    let preflight = [origin, ("access-control-request-method", "GET")];
    let answer = ask("OPTIONS", "/v09/hpke_config", &preflight);
    assert_eq!((answer.status, answer.body.len()), (204, 0));
    assert_eq!(answer.header("access-control-allow-origin"), origin.1);
    assert_eq!(answer.header("access-control-allow-methods"), "GET");
    // A cached refusal must not shut other pages out.
    let unknown = format!("/v09/hpke_config?task_id={}", TaskId::new(random()));
    let answer = ask("GET", &unknown, &[origin]);
    assert_eq!((answer.status, answer.header("vary")), (400, "Origin"));
    assert_eq!(answer.header("cache-control"), "no-store");
}

#[test]
fn deleting_an_unknown_job_succeeds() {
    for (version, mode) in KINDS {
        let world = World::new_in(server(), version, mode, |_| {});
        let deleted = world.delete(&AggregationJobId::new(random()));
        assert_eq!((deleted.status, deleted.body.len()), (204, 0));
    }
}

/// A job that was deleted before it came is a job like any other.
#[test]
fn a_job_that_comes_after_its_deletion_counts() {
    for version in DapVersion::ALL {
        let world = world_in(version);
        let job = world.timed_job(&world.sums(&[1, 2], world.time(0)));
        assert_eq!(world.delete(&job.id).status, 204);
        let mut books = Books::default();
        assert_eq!(world.run(job, &mut books), []);
        let more = world.sums(&[3], world.time(0));
        world.aggregate(PartialBatchSelector::TimeInterval, &more, &mut books);
        world.collect(world.interval(0, 1), &books);
    }
}
