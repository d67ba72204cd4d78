//! Makes the jobs in `tests/micro/jobs` anew: `cargo run -p micro --example make_jobs`, where a new case has an empty file
//! first. Clients draw randomness, so that no two runs make the same; then budgets in instructions change by a little, too.

use std::{fs, path::Path};

use daphne_core::{
    aggregate::leader::LeaderTask,
    message::PartialBatchSelector,
    time::Time,
    upload::client::{ClientTask, ReportRandomness},
    vdaf::{Measurement, VdafConfig},
};
use micro::{ALL, Case, FIRST_REPORT_S, REPORTS};

fn main() {
    for id in ALL {
        let body = job(&Case::new(id));
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("jobs").join(id.name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path.with_extension("bin"), &body).expect("a file");
        println!("{}: {} bytes", id.name, body.len());
    }
}

/// A job of reports of different measurements, a second apart.
fn job(case: &Case) -> Vec<u8> {
    let parameters = &case.task.parameters;
    let client = ClientTask {
        version: parameters.version,
        task_configuration: parameters.task_configuration.clone(),
        task_id: parameters.task_id,
        vdaf: case.task.vdaf.clone(),
        time_precision: parameters.time_precision,
        leader_hpke_config: Case::key(4).config().clone(),
        helper_hpke_config: Case::key(3).config().clone(),
    };
    let leader = LeaderTask {
        version: parameters.version,
        task_configuration: parameters.task_configuration.clone(),
        task_id: parameters.task_id,
        vdaf: case.task.vdaf.clone(),
        verify_key: case.task.verify_key.clone(),
        time_precision: parameters.time_precision,
    };
    let reports: Vec<Vec<u8>> = (0..REPORTS)
        .map(|n| {
            let seed = u8::try_from(n).expect("few reports") + 1;
            let random = ReportRandomness {
                report_id: [seed; 16],
                leader_seed: [seed; 32],
                helper_seed: [!seed; 32],
            };
            let time = Time::from_seconds(FIRST_REPORT_S + u64::from(seed));
            client.report(&measurement(&parameters.vdaf, n), time, &random).expect("a report")
        })
        .collect();
    let wire = parameters.wire();
    let reports: Vec<_> = reports.iter().map(|r| wire.report(r).expect("a report")).collect();
    let param = case.task.vdaf.decode_agg_param(&[]).expect("a parameter");
    let batch = PartialBatchSelector::TimeInterval;
    let (job, refused) =
        leader.begin_job(&Case::key(4), &param, batch, &reports).expect("short reports");
    assert!(refused.is_empty(), "the leader refused a report");
    job.expect("a job").request().to_vec()
}

fn measurement(vdaf: &VdafConfig, n: usize) -> Measurement {
    match *vdaf {
        VdafConfig::Prio3Count => Measurement::Count(n.is_multiple_of(2)),
        VdafConfig::Prio3Sum { max_measurement } => {
            Measurement::Sum(u64::try_from(n * 37).expect("small") % (max_measurement + 1))
        }
        VdafConfig::Prio3Histogram { length, .. } => {
            Measurement::Histogram((n * 37) % usize::try_from(length).expect("small"))
        }
        VdafConfig::Prio3SumVec { length, max_measurement, .. } => Measurement::SumVec(
            (0..u64::from(length)).map(|i| i * i % 7 % (max_measurement + 1)).collect(),
        ),
        VdafConfig::Prio3MultihotCountVec { length, max_weight, .. } => {
            Measurement::MultihotCountVec((0..length).map(|i| i < max_weight).collect())
        }
        VdafConfig::Prio3SumVecField64MultiproofHmacSha256Aes128 { .. }
        | VdafConfig::Poplar1 { .. } => unreachable!("there is no such case"),
    }
}
