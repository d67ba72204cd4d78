//! One bad report in a job of good ones: it is refused with its own code, the others count.

use std::sync::OnceLock;

use daphne_core::{
    batch::BatchMode::{LeaderSelected, TimeInterval},
    error::ReportError,
    hpke::{self, Role},
    ids::{AggregationJobId, BatchId, HpkeConfigId, TaskId},
    message::{BatchSelector, PartialBatchSelector},
    testing::half_valid,
    time::{Duration, Time},
    vdaf::VdafConfig,
    version::DapVersion,
};
use e2e::{
    Books, Server, World,
    forge::{Forged, TIMED, assert_counts, forge, forge_shares, job_body, refuses_only},
    now,
    server::random,
    world::keypair,
};

fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(Server::start)
}

fn world() -> World {
    World::new(server(), TimeInterval, |_| {})
}

/// A report in bucket 0 with a change, in a task of its own.
fn bad(change: impl FnOnce(&mut e2e::forge::Draft)) -> (World, Forged) {
    let world = world();
    let report = forge(&world, 5, world.time(0), change);
    (world, report)
}

/// A report in bucket 0 that was changed after it was sealed.
fn spoiled(change: impl FnOnce(&mut Forged)) -> (World, Forged) {
    let (world, mut report) = bad(|_| ());
    change(&mut report);
    (world, report)
}

#[test]
fn an_honest_forgery_is_accepted() {
    let world = world();
    let reports = [1, 2, 3].map(|n| forge(&world, n, world.time(0), |_| ()));
    let ids = reports.each_ref().map(|r| r.id);
    let answer =
        world.put_body(&AggregationJobId::new(random()), &job_body(&world, TIMED, &reports));
    assert!(world.verdicts(&answer.body).iter().all(|(_, error)| error.is_none()));
    assert_counts(&world, &ids);
}

#[test]
fn an_unknown_hpke_configuration() {
    let (world, report) = spoiled(|r| r.sealed.config_id = HpkeConfigId(200));
    refuses_only(&world, ReportError::HpkeUnknownConfigId, report);
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
    for change in changes {
        let (world, report) = spoiled(|r| change(&mut r.sealed.enc));
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
    for change in changes {
        let (world, report) = spoiled(|r| change(&mut r.sealed.payload));
        refuses_only(&world, ReportError::HpkeDecryptError, report);
    }
}

#[test]
fn public_parts_that_the_leader_altered() {
    let changes: [fn(&mut Forged); 4] = [
        |r| r.id[0] ^= 1,
        |r| r.time += 3_600,
        |r| r.public_share[0] ^= 1,
        |r| r.public_share.clear(),
    ];
    for change in changes {
        let (world, report) = spoiled(change);
        refuses_only(&world, ReportError::HpkeDecryptError, report);
    }
}

#[test]
fn a_share_sealed_for_somebody_or_something_else() {
    let changes: [fn(&mut e2e::forge::Draft); 5] = [
        |d| d.task_id = TaskId::new(random()),
        |d| d.info = hpke::input_share_info(DapVersion::V09, Role::Leader),
        |d| d.info = hpke::input_share_info(DapVersion::V18, Role::Helper),
        |d| d.info = hpke::aggregate_share_info(DapVersion::V09, Role::Helper),
        |d| {
            let id = d.config.id;
            d.config = keypair(id.0).config().clone();
        },
    ];
    for change in changes {
        let (world, report) = bad(change);
        refuses_only(&world, ReportError::HpkeDecryptError, report);
    }
}

#[test]
fn a_plaintext_that_does_not_decode() {
    let changes: [fn(&mut e2e::forge::Draft); 7] = [
        |d| d.trailing = vec![0],
        // Extensions that do not end where their list does.
        |d| d.extensions = vec![0],
        |d| d.extensions = vec![0, 1, 0],
        |d| d.extensions = vec![0, 1, 0, 1],
        |d| d.extensions = vec![0, 1, 0, 0, 0],
        |d| d.extensions = vec![0, 1, 0xff, 0xff, 0],
        |d| d.input_share.clear(),
    ];
    for change in changes {
        let (world, report) = bad(change);
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
    for change in changes {
        let (world, report) = bad(|d| change(&mut d.input_share));
        refuses_only(&world, ReportError::InvalidMessage, report);
    }
}

#[test]
fn a_public_share_of_another_length() {
    let changes: [fn(&mut Vec<u8>); 4] =
        [|s| s.clear(), |s| s.push(0), |s| s.truncate(s.len() - 1), |s| s.extend_from_within(..)];
    for change in changes {
        let (world, report) = bad(|d| change(&mut d.public_share));
        refuses_only(&world, ReportError::InvalidMessage, report);
    }
}

#[test]
fn extensions_that_the_task_does_not_know() {
    for extensions in [
        // Unknown; reserved; that of in-band provisioning, which this task does not use; the same twice; descending.
        &[0x12, 0x34, 0, 1, 9][..],
        &[0, 0, 0, 0],
        &[0xff, 0, 0, 0],
        &[0x12, 0x34, 0, 0, 0x12, 0x34, 0, 0],
        &[0xff, 0, 0, 0, 0x12, 0x34, 0, 0],
    ] {
        let (world, report) = bad(|d| d.extensions = extensions.to_vec());
        refuses_only(&world, ReportError::InvalidMessage, report);
    }
}

#[test]
fn times_too_far_in_the_future() {
    // Recorded by the owner within a day of the limit, and refused unasked beyond it.
    let now = now();
    for time in [now + 400, now + 80_000, now + 90_000, now + 1_000_000, u64::MAX - 3_600, u64::MAX]
    {
        let world = world();
        let report = forge(&world, 5, Time::from_seconds(time), |_| ());
        refuses_only(&world, ReportError::ReportTooEarly, report);
    }
    // A good clock within the tolerance: accepted.
    let world = World::new(server(), TimeInterval, |spec| {
        spec.time_precision = Duration::from_seconds(1);
        spec.report_expiry_age = Duration::from_seconds(86_400 * 14);
    });
    let mut books = Books::default();
    let reports = world.sums(&[1, 2], Time::from_seconds(now + 100));
    world.aggregate(TIMED, &reports, &mut books);
}

#[test]
fn times_too_long_ago() {
    let now = now();
    for time in [now - 14 * 86_400 - 100, now - 15 * 86_400 - 100, 1, 0] {
        let world = world();
        let report = forge(&world, 5, Time::from_seconds(time), |_| ());
        refuses_only(&world, ReportError::ReportDropped, report);
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

/// What was too early stays refused in its job when its time has come, and is accepted in another job.
#[test]
fn a_recorded_refusal_outlives_its_reason() {
    // The limit is some seconds ahead: the first request comes before it, the others after.
    let world = World::new(server(), LeaderSelected, |spec| {
        spec.time_precision = Duration::from_seconds(1);
        spec.tolerable_clock_skew = Duration::from_seconds(0);
        spec.shards = 2;
    });
    let batch = BatchId::new(random());
    let part = PartialBatchSelector::LeaderSelected(batch);
    let reports = world.sums(&[7, 8, 9], Time::from_seconds(now() + 3));
    let job = world.job(part, &reports);
    let (id, body) = (job.id, job.body.clone());
    let first = world.put(&job);
    let early = Some(ReportError::ReportTooEarly);
    assert!(world.verdicts(&first.body).iter().all(|(_, error)| *error == early));
    std::thread::sleep(std::time::Duration::from_secs(4));
    assert_eq!(world.put_body(&id, &body).body, first.body, "now it would be accepted");
    let mut books = Books::default();
    world.aggregate(part, &reports, &mut books);
    assert_eq!(world.put_body(&id, &body).body, first.body, "now it would be a replay");
    world.collect(BatchSelector::LeaderSelected(batch), &books);
    assert_eq!(world.put_body(&id, &body).body, first.body, "now its batch is collected");
}

#[test]
fn a_ping_pong_message_of_another_kind() {
    let changes: [fn(&mut Vec<u8>); 9] = [
        |p| p[0] = 1,
        // A whole one of that kind, with an empty message before the share.
        |p| drop(p.splice(..1, [1, 0, 0, 0, 0])),
        |p| p[0] = 2,
        |p| p[0] = 3,
        |p| p.truncate(p.len() - 1),
        |p| p.push(0),
        |p| p.clear(),
        |p| p.truncate(1),
        |p| p[1..5].fill(0xff),
    ];
    for change in changes {
        let (world, report) = spoiled(|r| change(&mut r.payload));
        refuses_only(&world, ReportError::VdafVerifyError, report);
    }
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
    for change in changes {
        let (world, report) = spoiled(|r| change(&mut r.payload));
        refuses_only(&world, ReportError::VdafVerifyError, report);
    }
}

/// A proof for another measurement, and joint randomness that is not the parts'.
#[test]
fn a_proof_that_does_not_hold() {
    let (world, report) = bad(|d| d.public_share[3] ^= 1);
    refuses_only(&world, ReportError::VdafVerifyError, report);
    let (world, report) = bad(|d| d.input_share[40] ^= 1);
    refuses_only(&world, ReportError::VdafVerifyError, report);
    let (world, report) = bad(|d| d.input_share[2] ^= 1);
    refuses_only(&world, ReportError::VdafVerifyError, report);
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
    let world = World::new(server(), TimeInterval, |spec| {
        spec.vdaf = VdafConfig::Prio3Sum { max_measurement: 255 };
        spec.shards = 4;
    });
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
    let world = world();
    let start = world.time(0).as_seconds();
    let reports = [start, start + 1, start + 3_599, start + 3_600]
        .map(|t| forge(&world, 5, Time::from_seconds(t), |_| ()));
    let ids = reports.each_ref().map(|r| r.id);
    let answer =
        world.put_body(&AggregationJobId::new(random()), &job_body(&world, TIMED, &reports));
    assert!(world.verdicts(&answer.body).iter().all(|(_, error)| error.is_none()));
    assert_counts(&world, &ids[..3]);
}
