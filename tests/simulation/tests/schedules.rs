//! The simulation itself: schedules are the same each time, failures are seen, and failures become small.

use daphne_core::version::DapVersion;
use simulation::{
    coverage::{Coverage, Event},
    sabotage::Sabotage,
    scenario::Scenario,
    schedule,
    shrink::{Reproduction, shrink},
};

#[test]
fn every_schedule_holds() {
    for version in DapVersion::ALL {
        for seed in 0..1_500 {
            let report = schedule::run_seed(Some(version), seed, None, false);
            assert_eq!(
                report.violation,
                None,
                "scripts/simulate --version {} --seed {seed} --trace",
                version.tag()
            );
        }
    }
}

#[test]
fn seeds_name_versions_in_turn() {
    for (n, version) in DapVersion::ALL.into_iter().enumerate() {
        for seed in [n, n + DapVersion::ALL.len()] {
            assert_eq!(schedule::run_seed(None, seed as u64, None, false).version, version);
        }
    }
}

#[test]
fn a_seed_names_one_schedule() {
    for seed in 0..50 {
        let (a, b) = (
            schedule::run_seed(None, seed, None, true),
            schedule::run_seed(None, seed, None, true),
        );
        assert!(a.trace.len() > 10);
        assert_eq!(a.trace, b.trace, "{seed}");
        assert_eq!(a.choices, b.choices, "{seed}");
    }
}

#[test]
fn a_schedule_that_was_written_down_is_the_same() {
    for seed in 0..50 {
        let first = schedule::run_seed(None, seed, None, true);
        let json = Reproduction::new(&Scenario::draw(None, seed), &first.choices).to_json();
        let again = Reproduction::from_json(&json).unwrap().run(None, true);
        assert_eq!(again.trace, first.trace, "{seed}");
    }
}

/// Operations and faults of all kinds really happen.
#[test]
fn the_schedules_contain_everything() {
    let mut coverage = Coverage::default();
    for seed in 0..3_000 {
        coverage.merge(&schedule::run_seed(None, seed, None, false).coverage);
    }
    let missing: Vec<Event> =
        Event::ALL.iter().copied().filter(|e| coverage.times(*e) == 0).collect();
    assert_eq!(missing, []);
}

/// Each rule of the protocol, broken, is noticed; the numbers are what it took, several times over.
#[test]
fn every_defect_is_noticed() {
    for sabotage in Sabotage::ALL {
        let noticed = (0..40_000).find(|seed| {
            schedule::run_seed(None, *seed, Some(sabotage), false).violation.is_some()
        });
        println!("{sabotage:?}: noticed by seed {noticed:?}");
        assert!(noticed.is_some(), "{sabotage:?} goes unnoticed");
    }
}

#[test]
fn a_failure_becomes_small() {
    let sabotage = Some(Sabotage::DeleteUndoes);
    let (seed, report) = (0..)
        .map(|seed| (seed, schedule::run_seed(None, seed, sabotage, false)))
        .find(|(_, report)| report.violation.is_some())
        .unwrap();
    let failing = Reproduction::new(&Scenario::draw(None, seed), &report.choices);
    let small = shrink(failing.clone(), sabotage);
    assert!(small.run(sabotage, false).violation.is_some());
    assert!(small.len() <= failing.len().min(3), "{}", small.to_json());
    assert_eq!(small.run(None, false).violation, None, "it is the defect that fails");
}
