//! The jobs that are kept are what they are said to be.

use micro::{ALL, Case, REPORTS, STEPS};

#[test]
fn each_step_takes_all_reports_of_each_job() {
    for id in ALL {
        let case = Case::new(id);
        let bench = case.bench();
        assert_eq!(bench.len(), REPORTS, "{}", id.name);
        for (name, step) in STEPS {
            assert!(bench.run(*step) > 0, "{}, {name}", id.name);
        }
    }
}
