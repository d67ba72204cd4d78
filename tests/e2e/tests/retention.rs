//! The end of tasks: what the operator sees of them before, and what is left of them after.

use std::{
    sync::OnceLock,
    time::{Duration, Instant},
};

use clap::Parser as _;
use dapctl::{Failure, cli::Cli, commands};
use daphne_core::{
    batch::{
        BatchMode::{LeaderSelected, TimeInterval},
        BucketRange,
    },
    error::ReportError,
    ids::{BatchId, TaskId},
    message::{BatchSelector, PartialBatchSelector},
    metrics::{TaskCounters, TaskStatus},
    store::{
        Objects as _,
        config_store::TaskObjects,
        message::{
            AggregateStoreRequest, AggregateStoreResponse as Stored, Content, JobStoreRequest,
            JobStoreResponse, LedgerRequest, LedgerResponse, LedgerStatus, StoreAction,
        },
        placement::{Group, StoreId},
    },
    task::Task,
};
use e2e::{Books, Server, World, remote::RemoteObjects, server::random, world::now};
use futures::executor::block_on;
use serde_json::json;

const TIMED: PartialBatchSelector = PartialBatchSelector::TimeInterval;

fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(Server::start)
}

fn objects() -> RemoteObjects {
    RemoteObjects(server().client().clone())
}

fn status(world: &World) -> LedgerStatus {
    let TaskObjects { placement, field } =
        world.spec.clone().check(1).unwrap().parameters.objects();
    let status = LedgerRequest::Status { placement, field, batches: false, after: None };
    match block_on(objects().ledger(&world.task_id, status)) {
        Ok(LedgerResponse::Status(status)) => *status,
        other => panic!("{other:?}"),
    }
}

/// How many reports the store of one range holds. Asking brings an object back, but no report.
fn held(world: &World, range: BucketRange) -> u64 {
    let task: Task = world.spec.clone().check(1).unwrap();
    let placement = task.parameters.placement();
    let group = match range {
        BucketRange::Windows(interval) => {
            placement.group(&daphne_core::batch::BatchBucket::Window(interval.start()))
        }
        BucketRange::Batch(_) => Group::Whole,
    };
    let store = StoreId { group, shard: 0 };
    let action = StoreAction::Gather { range, param: vec![], exclude: vec![] };
    let request = AggregateStoreRequest { placement, store, field: task.vdaf.field(), action };
    match block_on(objects().store(&store, request)) {
        Ok(Stored::Gathered { content: Content { report_count, .. }, .. }) => report_count,
        other => panic!("{other:?}"),
    }
}

/// The first buckets of a task.
fn windows(world: &World, count: u64) -> BucketRange {
    let length = daphne_core::time::Duration::from_seconds(3_600 * count);
    BucketRange::Windows(daphne_core::time::Interval::new(world.time(0), length).unwrap())
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(Instant::now() < deadline, "{what}: not within 30 s");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_deleted_tasks_data_is_gone_and_its_id_is_never_used_again() {
    for mode in [TimeInterval, LeaderSelected] {
        let world = World::new(server(), mode, |_| {});
        let batch = BatchId::new(random());
        let (part, selector) = match mode {
            TimeInterval => (PartialBatchSelector::TimeInterval, world.interval(0, 1)),
            LeaderSelected => {
                (PartialBatchSelector::LeaderSelected(batch), BatchSelector::LeaderSelected(batch))
            }
        };
        let range = match mode {
            TimeInterval => windows(&world, 1),
            LeaderSelected => BucketRange::Batch(batch),
        };
        let mut books = Books::default();
        let job = world.job(part, &world.sums(&[1, 2, 3], world.time(0)));
        let id = job.id;
        assert_eq!(world.run(job, &mut books), []);
        world.collect(selector, &books);
        assert_eq!(held(&world, range), 3);
        assert_eq!((status(&world).collections, status(&world).collected_reports), (1, 3));

        let path = format!("/admin/tasks/{}", world.task_id);
        for wrong in ["purge_after=-1", "purge_after=x", "purge_after=31622401", "after=1"] {
            server()
                .admin_ask("DELETE", &format!("{path}?{wrong}"), None)
                .refused_without_type(400);
        }
        assert!(server().admin().task(&world.task_id).unwrap().is_some());
        assert!(server().admin().delete_task(&world.task_id, Some(0)).unwrap());

        // The ledger, with the answers it gave, stays until no Worker can know the task: it lets nothing be collected again.
        until("the purge", || held(&world, range) == 0);
        assert_eq!(held(&world, range), 0);
        if mode == TimeInterval {
            let placement = world.spec.clone().check(1).unwrap().parameters.placement();
            until("the purge of claims", || {
                let asked = JobStoreRequest::Knows(id);
                let known = block_on(objects().job_store(&placement, 0, asked));
                known.unwrap() == JobStoreResponse::Known(false)
            });
        }
        for path in [path.clone(), format!("{path}/status")] {
            server().admin_ask("GET", &path, None).refused_without_type(404);
        }
        let again =
            server().admin_ask("POST", "/admin/tasks", Some(&json!(world.spec).to_string()));
        again.refused_without_type(409);
    }
}

#[test]
fn a_task_deleted_without_haste_keeps_its_data_for_now() {
    let world = World::new(server(), LeaderSelected, |_| {});
    let batch = BatchId::new(random());
    let mut books = Books::default();
    let reports = world.sums(&[1, 2], world.time(0));
    world.aggregate(PartialBatchSelector::LeaderSelected(batch), &reports, &mut books);
    assert!(server().admin().delete_task(&world.task_id, None).unwrap());
    std::thread::sleep(Duration::from_millis(1_500));
    assert_eq!(held(&world, BucketRange::Batch(batch)), 2);
}

/// Runs `dapctl` with the operator's token.
fn dapctl(args: &[&str]) -> Result<(), Failure> {
    let (url, token) = (server().client().base(), server().admin_token());
    let program = ["dapctl", "--url", url, "--admin-token", token];
    let cli = Cli::try_parse_from(program.iter().chain(args)).expect("a command line");
    commands::run(&cli)
}

#[test]
fn an_operator_ends_a_task_and_has_it_go_on() {
    let mut world = World::new(server(), TimeInterval, |_| {});
    world.epoch = now() / 3_600 * 3_600 - 7_200;
    let id = world.task_id.to_string();
    let mut books = Books::default();
    world.aggregate(TIMED, &world.sums(&[1, 2, 3], world.time(0)), &mut books);
    // A report made in the last second counts, and those made later are refused, each for itself.
    let end = world.time(1).as_seconds();
    dapctl(&["task", "expire", &id, "--at", &end.to_string()]).unwrap();
    let late = world.sums(&[20, 30], world.time(2));
    let both: Vec<_> = world.sums(&[4], world.time(1)).into_iter().chain(late.clone()).collect();
    let refused = world.run(world.timed_job(&both), &mut books);
    assert!(refused.len() == 2 && refused.iter().all(|(_, e)| *e == ReportError::TaskExpired));
    dapctl(&["task", "expire", &id, "--never"]).unwrap();
    world.aggregate(TIMED, &late, &mut books);
    // What was accepted is collected when the task has ended.
    dapctl(&["task", "expire", &id, "--now"]).unwrap();
    world.collect(world.interval(0, 3), &books);
    let shown =
        server().admin().task(&world.task_id).unwrap().expect("it is there until its purge");
    assert!(shown.task_expiration.unwrap().as_seconds().abs_diff(now()) <= 60);
    let unknown = TaskId::new(random()).to_string();
    let failure = dapctl(&["task", "expire", &unknown, "--now"]).unwrap_err();
    assert_eq!((failure.exit_code(), failure.to_string().as_str()), (1, "no such task"));
}

#[test]
fn the_operator_sees_how_a_task_is_doing() {
    let world = World::new(server(), TimeInterval, |_| {});
    let status = || server().admin().task_status(&world.task_id).unwrap().unwrap();
    let counted = |status: TaskStatus| {
        let TaskCounters { collections, collected_reports, expired_reports, .. } = status.counters;
        assert!(status.complete && !status.collecting);
        [collections, collected_reports, expired_reports]
    };
    assert_eq!(counted(status()), [0, 0, 0]);
    let mut books = Books::default();
    let reports = world.sums(&[1, 2, 3], world.time(0));
    world.aggregate(TIMED, &reports, &mut books);
    world.collect(world.interval(0, 1), &books);
    assert_eq!(counted(status()), [1, 3, 0]);
    // As a store says that forgets reports which nobody collected.
    let placement = world.spec.clone().check(1).unwrap().parameters.placement();
    let store = StoreId { group: Group::Run(1), shard: 0 };
    for _ in 0..2 {
        let totals = Box::default();
        let (epoch, uncollected) = (0, 5);
        let expired = LedgerRequest::Expired { placement, store, epoch, uncollected, totals };
        let answer = block_on(objects().ledger(&world.task_id, expired)).unwrap();
        assert_eq!(answer, LedgerResponse::Done);
    }
    assert_eq!(counted(status()), [1, 3, 5]);
    let path = format!("/admin/tasks/{}/status", world.task_id);
    world.client.ask("GET", &path, &[], None).refused_without_type(403);
    server().admin_ask("DELETE", &path, None).refused_without_type(405);
    let unknown = TaskId::new(random());
    assert_eq!(server().admin().task_status(&unknown).unwrap(), None);
}
