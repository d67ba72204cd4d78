//! One bad report in a job of good ones: it is refused with its own code, the others count.

use std::sync::OnceLock;

use daphne_core::{
    batch::BatchMode::{LeaderSelected, TimeInterval},
    error::ReportError,
    hpke::{self, Role},
    ids::{AggregationJobId, BatchId, HpkeConfigId, TaskId},
    message::{BatchSelector, PartialBatchSelector},
    task::TaskSpec,
    testing::half_valid,
    time::{Duration, Interval, Time},
    vdaf::VdafConfig,
    version::DapVersion::{self, V09, V18},
};
use e2e::{
    Books, Server, World,
    forge::{
        Draft, Forged, TIMED, assert_counts, assert_counts_in, forge, forge_shares, job_body,
        refuses_only, unknown_key, written,
    },
    now,
    server::random,
    world::{self, keypair},
};

fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(Server::start)
}

/// A task whose VDAF has joint randomness, as Prio3Sum of DAP-18 has not.
fn world(version: DapVersion) -> World {
    World::new_in(server(), version, TimeInterval, |spec| {
        if version == V18 {
            spec.vdaf = SUM_VEC;
        }
    })
}

const SUM_VEC: VdafConfig =
    VdafConfig::Prio3SumVec { length: 1, max_measurement: 255, chunk_length: 3 };

/// A report in bucket 0 with a change, in a task of its own.
fn bad(version: DapVersion, change: impl FnOnce(&mut Draft)) -> (World, Forged) {
    let world = world(version);
    let report = forge(&world, 5, world.time(0), change);
    (world, report)
}

/// A report in bucket 0 that was changed after it was sealed.
fn spoiled(version: DapVersion, change: impl FnOnce(&mut Forged)) -> (World, Forged) {
    let (world, mut report) = bad(version, |_| ());
    change(&mut report);
    (world, report)
}

/// Each change, in a task of either version.
fn each<T>(changes: &[fn(&mut T)]) -> impl Iterator<Item = (DapVersion, fn(&mut T))> {
    DapVersion::ALL.into_iter().flat_map(|version| {
        changes.iter().enumerate().map(move |(n, change)| {
            println!("{version:?}, change {n}");
            (version, *change)
        })
    })
}

#[test]
fn an_honest_forgery_is_accepted() {
    for version in DapVersion::ALL {
        let world = world(version);
        let reports = [1, 2, 3].map(|n| forge(&world, n, world.time(0), |_| ()));
        let ids = reports.each_ref().map(|r| r.id);
        let answer = world.create(&job_body(&world, TIMED, &reports));
        assert!(world.verdicts(world.job_resp(&answer)).iter().all(|(_, error)| error.is_none()));
        assert_counts(&world, &ids);
    }
}

#[test]
fn an_unknown_hpke_configuration() {
    for version in DapVersion::ALL {
        let (world, report) = spoiled(version, |r| r.sealed.config_id = HpkeConfigId(200));
        refuses_only(&world, unknown_key(version), report);
    }
}

#[test]
fn an_encapsulated_key_that_is_none() {
    let changes: [fn(&mut Vec<u8>); 6] = [
        |enc| enc.clear(),
        |enc| enc.truncate(31),
        |enc| enc.push(0),
        |enc| enc.fill(0),
        // A point of low order.
        |enc| {
            enc.fill(0);
            enc[0] = 1;
        },
        |enc| enc[5] ^= 1,
    ];
    for (version, change) in each(&changes) {
        let (world, report) = spoiled(version, |r| change(&mut r.sealed.enc));
        refuses_only(&world, ReportError::HpkeDecryptError, report);
    }
}

#[test]
fn a_ciphertext_that_was_damaged() {
    let changes: [fn(&mut Vec<u8>); 6] = [
        |payload| payload[0] ^= 1,
        |payload| *payload.last_mut().unwrap() ^= 0x80,
        |payload| payload.truncate(15),
        |payload| payload.truncate(16),
        |payload| payload.push(0),
        |payload| payload.clear(),
    ];
    for (version, change) in each(&changes) {
        let (world, report) = spoiled(version, |r| change(&mut r.sealed.payload));
        refuses_only(&world, ReportError::HpkeDecryptError, report);
    }
}

#[test]
fn public_parts_that_the_leader_altered() {
    let changes: [fn(&mut Forged); 4] =
        [|r| r.id[0] ^= 1, |r| r.time += 1, |r| r.public_share[0] ^= 1, |r| r.public_share.clear()];
    for (version, change) in each(&changes) {
        let (world, report) = spoiled(version, change);
        refuses_only(&world, ReportError::HpkeDecryptError, report);
    }
}

#[test]
fn a_share_sealed_for_somebody_or_something_else() {
    for (version, other) in [(V09, V18), (V18, V09)] {
        let changes: [&dyn Fn(&mut Draft); 5] = [
            &|d| d.task_id = TaskId::new(random()),
            &|d| d.info = hpke::input_share_info(version, Role::Leader),
            &|d| d.info = hpke::input_share_info(other, Role::Helper),
            &|d| d.info = hpke::aggregate_share_info(version, Role::Helper),
            &|d| {
                let id = d.config.id;
                d.config = keypair(id.0).config().clone();
            },
        ];
        for change in changes {
            let (world, report) = bad(version, change);
            refuses_only(&world, ReportError::HpkeDecryptError, report);
        }
    }
}

/// All parties have it word for word, or share nothing.
#[test]
fn a_share_sealed_under_another_configuration_of_the_task() {
    let others: [fn(&mut World); 6] = [
        |world| {
            // One URL without the slash at its end, which is behind task_info and two lengths.
            let at = 1 + 16 + 2 + world::LEADER_URL.len() - 1;
            world.spec.task_configuration.remove(at);
            world.spec.task_configuration[1 + 16 + 1] -= 1;
        },
        |world| world.spec.min_batch_size += 1,
        |world| world.spec.time_precision = Duration::from_seconds(60),
        |world| world.spec.task_configuration[1] ^= 1,
        |world| {
            let spec = &mut world.spec;
            let day = Duration::from_seconds(86_400 * 30);
            world::configure(spec, Interval::new(Time::from_seconds(world.epoch), day));
        },
        |world| world.spec.task_configuration.clear(),
    ];
    for (n, change) in others.into_iter().enumerate() {
        println!("change {n}");
        let world = world(V18);
        let mut other = self::world(V18);
        other.spec.task_configuration = world.spec.task_configuration.clone();
        let before = other.spec.clone();
        change(&mut other);
        if other.spec.task_configuration == before.task_configuration {
            // Something else was changed: the configuration that says so.
            world::configure(&mut other.spec, None);
        }
        assert_ne!(other.spec.task_configuration, world.spec.task_configuration);
        let report = forge(&world, 5, world.time(0), |d| {
            d.configuration = other.spec.task_configuration.clone();
        });
        refuses_only(&world, ReportError::HpkeDecryptError, report);
    }
}

#[test]
fn a_plaintext_that_does_not_decode() {
    let changes: [fn(&mut Draft); 7] = [
        |d| d.trailing = vec![0],
        // Extensions that do not end where their list does.
        |d| d.extensions = vec![0],
        |d| d.extensions = vec![0, 1, 0],
        |d| d.extensions = vec![0, 1, 0, 1],
        |d| d.extensions = vec![0, 1, 0, 0, 0],
        |d| d.extensions = vec![0, 1, 0xff, 0xff, 0],
        |d| d.input_share.clear(),
    ];
    for (version, change) in each(&changes) {
        let (world, report) = bad(version, change);
        refuses_only(&world, ReportError::InvalidMessage, report);
    }
}

#[test]
fn an_input_share_of_another_length() {
    let changes: [fn(&mut Vec<u8>); 4] = [
        |s| s.push(0),
        |s| s.truncate(s.len() - 1),
        |s| s.truncate(1),
        |s| s.extend_from_within(..),
    ];
    for (version, change) in each(&changes) {
        let (world, report) = bad(version, |d| change(&mut d.input_share));
        refuses_only(&world, ReportError::InvalidMessage, report);
    }
}

#[test]
fn a_public_share_of_another_length() {
    let changes: [fn(&mut Vec<u8>); 4] =
        [|s| s.clear(), |s| s.push(0), |s| s.truncate(s.len() - 1), |s| s.extend_from_within(..)];
    for (version, change) in each(&changes) {
        let (world, report) = bad(version, |d| change(&mut d.public_share));
        refuses_only(&world, ReportError::InvalidMessage, report);
    }
}

#[test]
fn extensions_that_the_task_does_not_know() {
    for version in DapVersion::ALL {
        for extensions in [
            // Unknown; reserved; that of in-band provisioning, which this task does not use; the same twice; descending.
            &[0x12, 0x34, 0, 1, 9][..],
            &[0, 0, 0, 0],
            &[0xff, 0, 0, 0],
            &[0x12, 0x34, 0, 0, 0x12, 0x34, 0, 0],
            &[0xff, 0, 0, 0, 0x12, 0x34, 0, 0],
        ] {
            let (world, report) = bad(version, |d| d.extensions = extensions.to_vec());
            refuses_only(&world, ReportError::InvalidMessage, report);
            if version == V18 {
                let (world, report) = bad(V18, |d| d.public_extensions = extensions.to_vec());
                refuses_only(&world, ReportError::InvalidMessage, report);
            }
        }
    }
    // Once in public and once in private; and lists that end inside of an extension, which a client alone has written.
    let (world, report) = bad(V18, |d| {
        d.public_extensions = vec![0x12, 0x34, 0, 0];
        d.extensions = vec![0x12, 0x34, 0, 0];
    });
    refuses_only(&world, ReportError::InvalidMessage, report);
    for broken in [&[0][..], &[0, 1, 0], &[0, 1, 0, 1], &[0, 1, 0xff, 0xff, 0]] {
        let (world, report) = bad(V18, |d| d.public_extensions = broken.to_vec());
        refuses_only(&world, ReportError::InvalidMessage, report);
    }
    // What the leader puts there, nobody has sealed.
    let (world, report) = spoiled(V18, |r| r.public_extensions = vec![0x12, 0x34, 0, 0]);
    refuses_only(&world, ReportError::HpkeDecryptError, report);
}

/// A task of either version whose unit of time is a second, so that reports have the times they are given.
fn precise(version: DapVersion, change: impl FnOnce(&mut TaskSpec)) -> World {
    World::new_in(server(), version, TimeInterval, |spec| {
        spec.time_precision = Duration::from_seconds(1);
        change(spec);
    })
}

#[test]
fn times_too_far_in_the_future() {
    for version in DapVersion::ALL {
        // Recorded by the owner within a day of the limit, and refused unasked beyond it.
        let now = now();
        for time in
            [now + 400, now + 80_000, now + 90_000, now + 1_000_000, u64::MAX - 3_600, u64::MAX]
        {
            let world = precise(version, |_| {});
            let report = forge(&world, 5, Time::from_seconds(time), |_| ());
            refuses_only(&world, ReportError::ReportTooEarly, report);
        }
        // As units of an hour: seconds cannot hold it.
        for time in [u64::MAX, u64::MAX / 3_600 + 1, u64::MAX / 3_600] {
            let (world, report) = bad(version, |d| d.time = time);
            refuses_only(&world, ReportError::ReportTooEarly, report);
        }
        // A good clock within the tolerance: accepted.
        let world = precise(version, |_| {});
        let mut books = Books::default();
        let reports = world.sums(&[1, 2], Time::from_seconds(now + 100));
        world.aggregate(TIMED, &reports, &mut books);
    }
}

#[test]
fn times_too_long_ago() {
    for version in DapVersion::ALL {
        let now = now();
        for time in [now - 14 * 86_400 - 100, now - 15 * 86_400 - 100, 1, 0] {
            let world = precise(version, |_| {});
            let report = forge(&world, 5, Time::from_seconds(time), |_| ());
            refuses_only(&world, ReportError::ReportDropped, report);
        }
    }
}

#[test]
fn times_after_the_end_of_the_task() {
    let end = now() - 9 * 86_400;
    let world = World::new(server(), TimeInterval, |spec| {
        spec.task_expiration = Some(Time::from_seconds(end));
    });
    let report = forge(&world, 5, Time::from_seconds(end + 1), |_| ());
    refuses_only(&world, ReportError::TaskExpired, report);
}

/// From its first unit to its last, neither before nor after, for times that nothing can express as well.
#[test]
fn reports_are_made_within_the_interval_of_their_task() {
    let hour = Duration::from_seconds(3_600);
    let tasks = || {
        let world = World::new_in(server(), V18, TimeInterval, |spec| {
            let start = (now() - 10 * 86_400) / 3_600 * 3_600;
            let day = Duration::from_seconds(86_400);
            spec.time_precision = hour;
            world::configure(spec, Interval::new(Time::from_seconds(start), day));
        });
        (written(&world, world.time(0)), world)
    };
    for (offset, error) in [
        (-1, ReportError::TaskNotStarted),
        (-24 * 3, ReportError::TaskNotStarted),
        (24, ReportError::TaskExpired),
        (25, ReportError::TaskExpired),
    ] {
        println!("{offset} hours");
        let (first, world) = tasks();
        let report = forge(&world, 5, world.time(0), |d| {
            d.time = first.checked_add_signed(offset).expect("a time");
        });
        refuses_only(&world, error, report);
    }
    let (first, world) = tasks();
    let late = forge(&world, 5, world.time(0), |d| d.time = u64::MAX);
    refuses_only(&world, ReportError::ReportTooEarly, late);
    let (_, world) = tasks();
    let reports =
        [first, first + 23].map(|time| forge(&world, 5, world.time(0), |d| d.time = time));
    let ids = reports.each_ref().map(|r| r.id);
    let answer = world.create(&job_body(&world, TIMED, &reports));
    assert!(world.verdicts(world.job_resp(&answer)).iter().all(|(_, error)| error.is_none()));
    assert_counts_in(&world, world.interval(0, 24), &ids);
}

/// What was too early stays refused in its job when its time has come, and is accepted in another job.
#[test]
fn a_recorded_refusal_outlives_its_reason() {
    // The limit is some seconds ahead: the first requests come before it, the others after.
    let begun = DapVersion::ALL.map(|version| {
        let world = World::new_in(server(), version, LeaderSelected, |spec| {
            spec.time_precision = Duration::from_seconds(1);
            spec.tolerable_clock_skew = Duration::from_seconds(0);
            spec.shards = 2;
        });
        let batch = BatchId::new(random());
        let part = PartialBatchSelector::LeaderSelected(batch);
        let reports = world.sums(&[7, 8, 9], Time::from_seconds(now() + 3));
        let job = world.job(part, &reports);
        let first = world.put(&job);
        let early = Some(ReportError::ReportTooEarly);
        let verdicts = world.verdicts(world.job_resp(&first));
        assert!(verdicts.iter().all(|(_, error)| *error == early));
        (world, batch, reports, job, first)
    });
    std::thread::sleep(std::time::Duration::from_secs(4));
    for (world, batch, reports, job, first) in begun {
        let again = || world.put(&job).body;
        assert_eq!(again(), first.body, "now it would be accepted");
        // Another order is another job.
        let reports: Vec<_> = reports.into_iter().rev().collect();
        let mut books = Books::default();
        world.aggregate(PartialBatchSelector::LeaderSelected(batch), &reports, &mut books);
        assert_eq!(again(), first.body, "now it would be a replay");
        world.collect(BatchSelector::LeaderSelected(batch), &books);
        assert_eq!(again(), first.body, "now its batch is collected");
    }
}

#[test]
fn a_ping_pong_message_of_another_kind() {
    let changes: [fn(&mut Vec<u8>); 8] = [
        |p| p[0] = 1,
        // A whole one of that kind, with an empty message before the share.
        |p| drop(p.splice(..1, [1, 0, 0, 0, 0])),
        |p| p[0] = 2,
        |p| p[0] = 3,
        |p| p.truncate(p.len() - 1),
        |p| p.push(0),
        |p| p.truncate(1),
        |p| p[1..5].fill(0xff),
    ];
    for (version, change) in each(&changes) {
        let (world, report) = spoiled(version, |r| change(&mut r.payload));
        refuses_only(&world, ReportError::VdafVerifyError, report);
    }
    let (world, report) = spoiled(V09, |r| r.payload.clear());
    refuses_only(&world, ReportError::VdafVerifyError, report);
    // In DAP-18 the leader, which wrote it, is not allowed to.
    let (world, report) = spoiled(V18, |r| r.payload = vec![7]);
    let body = job_body(&world, TIMED, &[report]);
    let before = body.strip_suffix(&[0, 0, 0, 1, 7]).expect("it is the last");
    let emptied = [before, &[0; 4]].concat();
    world.create(&emptied).refused("invalidMessage", &world.task_id);
}

#[test]
fn a_verifier_share_that_does_not_verify() {
    let changes: [fn(&mut Vec<u8>); 3] = [
        |p| p[10] ^= 1,
        // An element beyond the field's prime.
        |p| p[5 + 16..5 + 32].fill(0xff),
        |p| {
            // A shorter share, well framed.
            let len = u32::from_be_bytes(p[1..5].try_into().unwrap()) - 16;
            p[1..5].copy_from_slice(&len.to_be_bytes());
            p.truncate(p.len() - 16);
        },
    ];
    for (version, change) in each(&changes) {
        let (world, report) = spoiled(version, |r| change(&mut r.payload));
        refuses_only(&world, ReportError::VdafVerifyError, report);
    }
}

/// A proof for another measurement, and joint randomness that is not the parts'.
#[test]
fn a_proof_that_does_not_hold() {
    let changes: [fn(&mut Draft); 4] = [
        |d| d.public_share[3] ^= 1,
        |d| d.input_share[40] ^= 1,
        |d| d.input_share[2] ^= 1,
        // The helper's own part, with which the leader works.
        |d| *d.public_share.last_mut().expect("two parts") ^= 1,
    ];
    for (version, change) in each(&changes) {
        let (world, report) = bad(version, change);
        refuses_only(&world, ReportError::VdafVerifyError, report);
    }
}

/// The helper alone could accept it, and the leader never would: the batch's counts would differ for good.
#[test]
fn a_public_share_that_lies_to_the_leader() {
    let world = World::new(server(), TimeInterval, |spec| {
        spec.vdaf = VdafConfig::Prio3SumVec { length: 10, max_measurement: 3, chunk_length: 6 };
    });
    let report = |honest| {
        let id = random();
        let shares = half_valid::sum_vec_08(10, 2, 6, &id, honest);
        forge_shares(&world, id, shares, world.time(0), |_| ())
    };
    let reports = [true, false, true].map(report);
    let [first, _, last] = reports.each_ref().map(|r| r.id);
    let answer =
        world.put_body(&AggregationJobId::new(random()), &job_body(&world, TIMED, &reports));
    let errors: Vec<_> =
        world.verdicts(world.job_resp(&answer)).into_iter().map(|(_, error)| error).collect();
    assert_eq!(errors, [None, Some(ReportError::VdafVerifyError), None]);
    assert_counts(&world, &[first, last]);
}

#[test]
fn one_bad_report_among_99_good_ones() {
    DapVersion::ALL.into_iter().for_each(one_bad_report_among_99);
}

fn one_bad_report_among_99(version: DapVersion) {
    let world = World::new_in(server(), version, TimeInterval, |spec| spec.shards = 4);
    let mut reports: Vec<_> = (0..100).map(|n| forge(&world, n, world.time(0), |_| ())).collect();
    reports[57].sealed.payload[3] ^= 4;
    let ids: Vec<_> = reports.iter().map(|r| r.id).collect();
    let answer =
        world.put_body(&AggregationJobId::new(random()), &job_body(&world, TIMED, &reports));
    let verdicts = world.verdicts(world.job_resp(&answer));
    assert_eq!(verdicts.len(), 100);
    for (n, ((id, error), expected)) in verdicts.iter().zip(&ids).enumerate() {
        assert_eq!(id.as_bytes(), expected);
        assert_eq!(*error, (n == 57).then_some(ReportError::HpkeDecryptError));
    }
    let counted: Vec<_> =
        ids.iter().enumerate().filter(|(n, _)| *n != 57).map(|(_, id)| *id).collect();
    assert_counts(&world, &counted);
}

#[test]
fn a_time_between_the_multiples_of_the_precision_is_rounded_down() {
    let world = world(V09);
    let start = world.time(0).as_seconds();
    let reports = [start, start + 1, start + 3_599, start + 3_600]
        .map(|t| forge(&world, 5, Time::from_seconds(t), |_| ()));
    let ids = reports.each_ref().map(|r| r.id);
    let answer =
        world.put_body(&AggregationJobId::new(random()), &job_body(&world, TIMED, &reports));
    assert!(world.verdicts(&answer.body).iter().all(|(_, error)| error.is_none()));
    assert_counts(&world, &ids[..3]);
}
