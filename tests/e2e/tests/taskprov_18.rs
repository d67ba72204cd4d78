//! DAP-18 tasks that their leaders bring along: what is in the header, and what is said of it. taskprov-04.

use std::sync::OnceLock;

use daphne_core::{
    b64,
    batch::BatchMode::{LeaderSelected, TimeInterval},
    configuration,
    error::ReportError,
    ids::{AggregationJobId, BatchId, TaskId},
    message::{BatchSelector, PartialBatchSelector},
    taskprov::{self, PeerPolicy},
    time::{Duration, Interval, Time},
    version::{
        DapVersion::{V09, V18},
        Message,
    },
    wire::v18::{BatchMode, Extension, TaskConfiguration, TaskVdaf},
};
use e2e::{
    Answer, Books, Peer, Server, World,
    forge::{TIMED, forge, refuses_only},
    now,
    server::{random, random_token},
};

fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(Server::start)
}

fn peer() -> Peer {
    Peer::new(server(), PeerPolicy::default())
}

/// The answers to requests of each kind for a task, with these headers.
fn ask_all(id: &TaskId, header: Option<&str>, token: Option<&str>) -> Vec<Answer> {
    let task = format!("/v18/tasks/{id}");
    let job = format!("{task}/aggregation_jobs/{}", AggregationJobId::new(random()));
    let media_type = |message| V18.media_type(message);
    let bearer = token.map(|token| format!("Bearer {token}"));
    [
        ("POST", format!("{task}/aggregation_jobs"), media_type(Message::AggregationJobInit)),
        ("POST", job.clone(), media_type(Message::AggregationJobContinue)),
        ("GET", format!("{job}?step=0"), None),
        ("DELETE", job, None),
        ("POST", format!("{task}/aggregate_shares"), media_type(Message::AggregateShareRequest)),
    ]
    .into_iter()
    .map(|(method, path, media_type)| {
        let mut headers = vec![];
        headers.extend(bearer.as_deref().map(|b| ("authorization", b)));
        headers.extend(header.map(|h| (taskprov::HEADER, h)));
        headers.extend(media_type.map(|m| ("content-type", m)));
        server().client().ask(method, &path, &headers, media_type.map(|_| &b""[..]))
    })
    .collect()
}

#[test]
fn a_dap_18_task_that_its_leader_brings_is_served() {
    let peer = peer();
    for mode in [TimeInterval, LeaderSelected] {
        let world = peer.task_18(server(), mode, None, |_| {});
        let id = BatchId::new(random());
        let (part, batch) = match mode {
            TimeInterval => (TIMED, world.interval(0, 1)),
            LeaderSelected => {
                (PartialBatchSelector::LeaderSelected(id), BatchSelector::LeaderSelected(id))
            }
        };
        assert_eq!(server().admin().task(&world.task_id).expect("an answer"), None);
        let mut books = Books::default();
        world.aggregate(part, &world.sums(&[3, 4], world.time(0)), &mut books);
        assert!(server().admin().task(&world.task_id).expect("an answer").is_some());
        world.collect(batch, &books);
    }
}

/// Its leader is a peer under both versions, and the same bytes are two tasks.
#[test]
fn either_form_of_the_header_brings_a_task_and_what_is_neither_is_not_there() {
    let peer = peer();
    let token = Some(peer.token());
    let task = || {
        let world = peer.task_18(server(), TimeInterval, None, |_| {});
        let parameters = world.taskprov.clone().expect("it is brought");
        (world, parameters)
    };
    for form in [
        |p: &[u8]| V18.taskprov_header(p),
        |p: &[u8]| b64::encode(p),
        |p: &[u8]| format!("{};x=1", V18.taskprov_header(p)),
    ] {
        let (world, parameters) = task();
        for answer in &ask_all(&world.task_id, Some(&form(&parameters)), token)[..1] {
            // It was opted into, and the body is empty.
            answer.refused("invalidMessage", &world.task_id);
        }
        assert!(server().admin().task(&world.task_id).expect("an answer").is_some());
    }
    let (world, parameters) = task();
    let id = world.task_id;
    let trailing = [&parameters[..], &[0]].concat();
    for header in [
        "",
        "x y",
        "::",
        ":AAAA",
        &V18.taskprov_header(&parameters[1..]),
        &V18.taskprov_header(&trailing),
        &b64::encode(&trailing),
        &format!("{}, :AAAA:", V18.taskprov_header(&parameters)),
        &format!(":{}:", "A".repeat(5_000)),
    ] {
        for answer in ask_all(&id, Some(header), token) {
            answer.refused("unrecognizedTask", &id);
        }
    }
    for answer in ask_all(&id, None, token) {
        answer.refused("unrecognizedTask", &id);
    }
    assert_eq!(server().admin().task(&id).expect("an answer"), None);
    // Of a task that is known, it is ignored as well.
    let mut books = Books::default();
    world.aggregate(TIMED, &world.sums(&[3, 4], world.time(0)), &mut books);
    let known = &ask_all(&id, Some("x y"), token)[0];
    known.refused("invalidMessage", &id);
    world.collect(world.interval(0, 1), &books);
}

#[test]
fn a_header_of_another_dap_18_task_is_unrecognized() {
    let peer = peer();
    let [one, other] = [(); 2].map(|()| peer.task_18(server(), TimeInterval, None, |_| {}));
    let header = V18.taskprov_header(one.taskprov.as_deref().expect("it is brought"));
    for answer in ask_all(&other.task_id, Some(&header), Some(peer.token())) {
        answer.refused("unrecognizedTask", &other.task_id);
    }
    // Nor is the hash without the salt, which is that of DAP-09, its id.
    let unsalted = V09.taskprov_id(one.taskprov.as_deref().expect("it is brought"));
    for answer in ask_all(&unsalted, Some(&header), Some(peer.token())) {
        answer.refused("unrecognizedTask", &unsalted);
    }
    // Also if the task is known.
    let mut books = Books::default();
    other.aggregate(TIMED, &other.sums(&[3, 4], other.time(0)), &mut books);
    for answer in ask_all(&other.task_id, Some(&header), Some(peer.token())) {
        answer.refused("unrecognizedTask", &other.task_id);
    }
    other.collect(other.interval(0, 1), &books);
}

/// Asserts that a task is opted out of, and not stored.
#[track_caller]
fn opts_out(peer: &Peer, parameters: &[u8]) {
    let id = V18.taskprov_id(parameters);
    let header = V18.taskprov_header(parameters);
    for answer in ask_all(&id, Some(&header), Some(peer.token())) {
        answer.refused("invalidTask", &id);
    }
    assert_eq!(server().admin().task(&id).expect("an answer"), None);
}

#[test]
fn a_dap_18_task_that_is_over_unknown_or_not_supported_is_opted_out_of() {
    let peer = peer();
    let world = peer.task_18(server(), TimeInterval, None, |_| {});
    let good = world.taskprov.clone().expect("it is brought");
    let start = Time::from_seconds(world.epoch);
    let over = Interval::new(start, Duration::from_seconds(7_200));
    let over = peer.task_18(server(), TimeInterval, over, |_| {});
    opts_out(&peer, over.taskprov.as_deref().expect("it is brought"));
    let extension = |extension_type, extension_data| Extension { extension_type, extension_data };
    let changed = |change: &dyn Fn(&mut TaskConfiguration<'_>)| {
        let mut configuration = TaskConfiguration::decode(&good).expect("our own");
        change(&mut configuration);
        configuration.encode().expect("a configuration")
    };
    for parameters in [
        changed(&|c| c.vdaf = TaskVdaf::Unknown { code: 77, parameters: &[1] }),
        changed(&|c| c.batch_mode = BatchMode::Unknown { code: 3, config: &[] }),
        changed(&|c| c.batch_mode = BatchMode::Unknown { code: 1, config: &[0] }),
        changed(&|c| c.extensions = vec![extension(2, &[])]),
        changed(&|c| c.extensions = vec![extension(1, &[0; 15])]),
        changed(&|c| c.time_precision = 0),
        changed(&|c| c.min_batch_size = 1),
        // Of a leader that is no peer.
        changed(&|c| c.leader_aggregator_endpoint = "https://stranger.example/"),
    ] {
        opts_out(&peer, &parameters);
    }
    let careful = Peer::new(
        server(),
        PeerPolicy { lifetime_max: Some(Duration::from_seconds(86_400)), ..PeerPolicy::default() },
    );
    let endless = careful.task_18(server(), TimeInterval, None, |_| {});
    opts_out(&careful, endless.taskprov.as_deref().expect("it is brought"));
}

#[test]
fn a_dap_18_task_is_brought_by_its_leader_only() {
    let peer = peer();
    let world = peer.task_18(server(), TimeInterval, None, |_| {});
    let header = V18.taskprov_header(world.taskprov.as_deref().expect("it is brought"));
    let wrong = random_token();
    for token in [None, Some(wrong.as_str())] {
        for answer in ask_all(&world.task_id, Some(&header), token) {
            answer.refused_to_strangers(V18, &world.task_id);
        }
    }
    assert_eq!(server().admin().task(&world.task_id).expect("an answer"), None);
}

/// The configuration is in what a report is sealed with; the extension of older drafts is unknown.
#[test]
fn a_report_of_a_dap_18_task_that_was_brought_carries_no_extension() {
    let peer = peer();
    let bad: [fn(&mut e2e::forge::Draft); 2] =
        [|d| d.extensions = vec![0xff, 0, 0, 0], |d| d.public_extensions = vec![0xff, 0, 0, 0]];
    for change in bad {
        let world: World = peer.task_18(server(), TimeInterval, None, |_| {});
        let report = forge(&world, 5, world.time(0), change);
        refuses_only(&world, ReportError::InvalidMessage, report);
    }
    let until = Interval::new(
        Time::from_seconds((now() / 3_600 - 240) * 3_600),
        Duration::from_seconds(300 * 3_600),
    );
    let world = peer.task_18(server(), TimeInterval, until, |_| {});
    assert!(configuration::CONFIGURATION_BYTES_MAX > world.spec.task_configuration.len());
    let early = forge(&world, 5, world.time(0), |d| d.time -= 1);
    refuses_only(&world, ReportError::TaskNotStarted, early);
}
