//! Paths, methods, headers and credentials of the DAP resources.

use std::sync::OnceLock;

use daphne_core::{
    batch::BatchMode::{LeaderSelected, TimeInterval},
    codec::Reader,
    hpke::HpkeConfigList,
    ids::{AggregationJobId, TaskId},
    message::PartialBatchSelector,
};
use e2e::{
    Books, JOB_CONTINUE, JOB_INIT, SHARE_REQ, Server, World,
    raw::{self, Connection},
    server::{random, random_token},
};

fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(Server::start)
}

fn world() -> World {
    World::new(server(), TimeInterval, |_| {})
}

/// Method, path and media type of everything that only a leader may do.
fn leaders_requests(task: &str, job: &str) -> [(&'static str, String, &'static str); 4] {
    let job = format!("/v09/tasks/{task}/aggregation_jobs/{job}");
    [
        ("PUT", job.clone(), JOB_INIT),
        ("POST", job.clone(), JOB_CONTINUE),
        ("DELETE", job, ""),
        ("POST", format!("/v09/tasks/{task}/aggregate_shares"), SHARE_REQ),
    ]
}

fn body(method: &str) -> Option<&'static [u8]> {
    (method != "DELETE").then_some(b"garbage")
}

#[test]
fn an_unknown_task_is_refused() {
    let world = world();
    let unknown = TaskId::new(random());
    let job = AggregationJobId::new(random()).to_string();
    for (method, path, media_type) in leaders_requests(&unknown.to_string(), &job) {
        world.ask(method, &path, media_type, body(method)).refused("unrecognizedTask", &unknown);
        // Also without credentials: whose could be checked?
        let answer = world.client.ask(method, &path, &[], body(method));
        answer.refused("unrecognizedTask", &unknown);
    }
    let path = format!("/v09/hpke_config?task_id={unknown}");
    world.client.get(&path).refused("unrecognizedTask", &unknown);
}

#[test]
fn a_malformed_id_is_refused() {
    let world = world();
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
        for (method, path, media_type) in leaders_requests(bad, job) {
            world.ask(method, &path, media_type, body(method)).refused_without_type(400);
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
        for (method, path, media_type) in &leaders_requests(&task, bad)[..3] {
            world.ask(method, path, media_type, body(method)).refused_without_type(400);
        }
    }
    world.client.get("/v09/hpke_config?task_id=").refused_without_type(400);
}

#[test]
fn only_the_leaders_token_opens_and_the_body_is_not_looked_at_before() {
    let (world, other) = (self::world(), self::world());
    let path_of =
        |id: &AggregationJobId| leaders_requests(&world.task_id.to_string(), &id.to_string());
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
                answer.refused("unauthorizedRequest", &world.task_id);
            }
        }
    }
}

#[test]
fn either_header_carries_the_token() {
    let world = world();
    for (name, value) in [
        ("authorization", format!("Bearer {}", world.token)),
        ("Authorization", format!("bearer {}", world.token)),
        ("authorization", format!("BEARER   {}", world.token)),
        ("dap-auth-token", world.token.clone()),
        ("DAP-Auth-Token", world.token.clone()),
    ] {
        let job = world.timed_job(&world.sums(&[1], world.time(0)));
        let headers = [(name, value.as_str()), ("content-type", JOB_INIT)];
        let answer = world.client.ask("PUT", &world.job_path(&job.id), &headers, Some(&job.body));
        assert_eq!(world.finish(job, &answer, &mut Books::default()), [], "{name}: {value}");
    }
}

#[test]
fn the_media_type_must_be_the_messages() {
    let world = world();
    let bearer = format!("Bearer {}", world.token);
    let send = |method: &str, path: &str, media_type: &str, body: &[u8]| {
        let mut headers = vec![("authorization", bearer.as_str())];
        if !media_type.is_empty() {
            headers.push(("content-type", media_type));
        }
        world.client.ask(method, path, &headers, Some(body))
    };
    let job = world.timed_job(&world.sums(&[1, 2], world.time(0)));
    let path = world.job_path(&job.id);
    for wrong in [
        "",
        "application/json",
        "application/octet-stream",
        JOB_CONTINUE,
        SHARE_REQ,
        "application/dap-aggregation-job-init-re",
        "application/dap-aggregation-job-init-req2",
        "application/ppm-dap;message=aggregation-job-init-req",
        "text/plain; application/dap-aggregation-job-init-req",
    ] {
        send("PUT", &path, wrong, &job.body).refused_without_type(415);
        send("POST", &path, wrong.replace(JOB_CONTINUE, JOB_INIT).as_str(), b"")
            .refused_without_type(415);
        let wrong = wrong.replace(SHARE_REQ, JOB_INIT);
        send("POST", &world.shares_path(), &wrong, b"").refused_without_type(415);
    }
    let first = send("PUT", &path, JOB_INIT, &job.body);
    for right in [
        "application/dap-aggregation-job-init-req; version=09",
        "application/dap-aggregation-job-init-req;charset=utf-8",
        "Application/DAP-Aggregation-Job-Init-Req",
        "application/dap-aggregation-job-init-req ;  x=\"y\"",
    ] {
        assert_eq!(send("PUT", &path, right, &job.body).body, first.body, "{right}");
    }
    assert_eq!(world.finish(job, &first, &mut Books::default()), []);
}

#[test]
fn other_methods_are_refused_with_a_list_of_those_that_exist() {
    let world = world();
    let job = world.job_path(&AggregationJobId::new(random()));
    let shares = world.shares_path();
    for (path, allowed, others) in [
        (job.as_str(), "PUT, POST, DELETE", ["GET", "HEAD", "PATCH", "OPTIONS"]),
        (shares.as_str(), "POST", ["GET", "PUT", "DELETE", "OPTIONS"]),
        ("/v09/hpke_config", "GET, HEAD, OPTIONS", ["POST", "PUT", "DELETE", "PATCH"]),
    ] {
        for method in others {
            let body = matches!(method, "POST" | "PUT" | "PATCH").then_some(b"x".as_slice());
            let answer = world.client.ask(method, path, &[], body);
            assert_eq!(answer.status, 405, "{method} {path}");
            assert_eq!(answer.header("allow"), allowed);
            if method != "HEAD" {
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
        "/v18/hpke_config",
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
    let world = world();
    let id = AggregationJobId::new(random());
    let bearer = format!("Bearer {}", world.token);
    for (method, path, media_type, limit) in [
        ("PUT", world.job_path(&id), JOB_INIT, 8 << 20),
        ("POST", world.job_path(&id), JOB_CONTINUE, 8 << 20),
        ("POST", world.shares_path(), SHARE_REQ, 256 << 10),
    ] {
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
    job.id = id;
    assert_eq!(world.run(job, &mut Books::default()), []);
}

#[test]
fn a_job_sent_in_chunks_is_read() {
    let world = world();
    let job = world.timed_job(&world.sums(&[1, 2], world.time(0)));
    let bearer = format!("Bearer {}", world.token);
    let headers = [("authorization", bearer.as_str()), ("content-type", JOB_INIT)];
    let answer = world.client.send_chunked("PUT", &world.job_path(&job.id), &headers, &job.body);
    assert_eq!(world.finish(job, &answer.unwrap(), &mut Books::default()), []);
}

#[test]
fn a_body_that_breaks_off_stores_nothing() {
    let world = world();
    let job = world.timed_job(&world.sums(&[1, 2], world.time(0)));
    let head = format!(
        "PUT {} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Type: {JOB_INIT}\r\n\
         Content-Length: {}\r\n\r\n",
        world.job_path(&job.id),
        world.token,
        job.body.len()
    );
    for sent in [0, 1, job.body.len() / 2, job.body.len() - 1] {
        Connection::to(&world.client).send(&head).send(&job.body[..sent]);
    }
    // Another body may still have the id.
    let mut other = world.timed_job(&world.sums(&[3, 4], world.time(0)));
    other.id = job.id;
    let mut books = Books::default();
    assert_eq!(world.run(other, &mut books), []);
    world.collect(world.interval(0, 1), &books);
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
    let plain = ask("GET", "/v09/hpke_config", &[]);
    assert_eq!(plain.header("access-control-allow-origin"), "");
    let answer = ask("GET", "/v09/hpke_config", &[origin]);
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
    for mode in [TimeInterval, LeaderSelected] {
        let world = World::new(server(), mode, |_| {});
        let deleted = world.delete(&AggregationJobId::new(random()));
        assert_eq!((deleted.status, deleted.body.len()), (204, 0));
    }
}

/// A job that was deleted before it came is a job like any other.
#[test]
fn a_job_that_comes_after_its_deletion_counts() {
    let world = world();
    let job = world.timed_job(&world.sums(&[1, 2], world.time(0)));
    assert_eq!(world.delete(&job.id).status, 204);
    let mut books = Books::default();
    assert_eq!(world.run(job, &mut books), []);
    world.aggregate(
        PartialBatchSelector::TimeInterval,
        &world.sums(&[3], world.time(0)),
        &mut books,
    );
    world.collect(world.interval(0, 1), &books);
}
