//! What a report costs the core alone, in wasm, in V8: `scripts/bench wasm`, read.

use std::{collections::BTreeMap, process::Stdio};

use dapctl::Failure;
use daphne_core::version::DapVersion;
use serde::Deserialize;

use crate::{builds, kinds::Kind};

/// The step that is all of the core's work on a report.
const STEP: &str = "whole";

/// Microseconds of CPU per report, of the versions and VDAFs that have a job there.
#[derive(Debug, Default)]
pub struct Wasm(BTreeMap<(&'static str, Kind), f64>);

/// What `scripts/bench wasm --output json` prints.
#[derive(Deserialize)]
struct Printed {
    us_per_report: BTreeMap<String, BTreeMap<String, Figure>>,
}

#[derive(Deserialize)]
struct Figure {
    median: f64,
}

/// Builds what [`Wasm::measure`] runs.
///
/// # Errors
/// [`Failure::Wrong`] if that fails, which has said why.
pub fn build() -> Result<(), Failure> {
    builds::script("lib/micro", &["build"])
}

impl Wasm {
    /// Measures. Takes some ten seconds.
    ///
    /// # Errors
    /// [`Failure::Wrong`] if that fails, which has said why.
    pub fn measure() -> Result<Self, Failure> {
        let failed = || Failure::Wrong("scripts/bench wasm failed".into());
        let output = builds::command("bench", &["wasm", "--output", "json", "--step", STEP])
            .stderr(Stdio::inherit())
            .output()
            .map_err(|_| failed())?;
        if output.status.success() { Self::read(&output.stdout) } else { Err(failed()) }
    }

    fn read(json: &[u8]) -> Result<Self, Failure> {
        let printed: Printed = serde_json::from_slice(json).map_err(|e| {
            Failure::Wrong(format!("scripts/bench wasm does not print what it should: {e}"))
        })?;
        let mut us = BTreeMap::new();
        for (name, steps) in &printed.us_per_report {
            let case = micro::ALL.iter().find(|case| case.name == name);
            let kind = case.and_then(|case| Some((case.version.tag(), Kind::of(&case.vdaf)?)));
            if let (Some(key), Some(figure)) = (kind, steps.get(STEP)) {
                us.insert(key, figure.median);
            }
        }
        Ok(Self(us))
    }

    /// Of a version and VDAF.
    pub fn us_per_report(&self, version: DapVersion, kind: Kind) -> Option<f64> {
        self.0.get(&(version.tag(), kind)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_found_by_version_and_vdaf() {
        let json = r#"{"v8": "12", "rounds": 21, "us_per_report": {
            "dap-09/sumvec-1000": {"whole": {"median": 412.5, "least": 400.0}},
            "dap-99/new": {"whole": {"median": 1.0, "least": 1.0}}}}"#;
        let wasm = Wasm::read(json.as_bytes()).unwrap();
        assert_eq!(wasm.us_per_report(DapVersion::V09, Kind::Sumvec), Some(412.5));
        assert_eq!(wasm.us_per_report(DapVersion::V18, Kind::Sumvec), None);
        assert!(matches!(Wasm::read(b"{}"), Err(Failure::Wrong(_))));
    }

    #[test]
    fn each_job_that_is_kept_is_of_a_kind_that_is_measured() {
        for case in micro::ALL {
            assert!(Kind::of(&case.vdaf).is_some(), "{}", case.name);
        }
    }
}
