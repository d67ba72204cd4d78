//! Report files, and reports made by the client of this project.
//!
//! A report file is JSON Lines: `{"report": base64url of an encoded Report, "measurement": ..}`. The
//! measurement may be missing; then no aggregate with this report can be checked.

use std::{
    collections::HashSet,
    fs::File,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use daphne_core::{
    b64,
    hpke::HpkeConfigList,
    ids::ReportId,
    time::Time,
    upload::client::{ClientTask, ReportExtensions, ReportRandomness},
    vdaf::{Measurement, VdafConfig},
    wire::Wire,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    Failure,
    output::clean,
    task_file::{TaskFile, random},
};

/// A report, and what it says if that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownReport {
    /// The encoded report, in the task's version of DAP.
    pub report: Vec<u8>,
    /// What the client measured.
    pub measurement: Option<Measurement>,
}

/// How a task's report files are read.
#[derive(Clone, Copy, Debug)]
pub struct Format {
    /// The VDAF, which says what a measurement is.
    pub vdaf: VdafConfig,
    /// How the reports are written.
    pub wire: Wire,
}

#[derive(Serialize, Deserialize)]
struct Line {
    report: String,
    #[serde(default, skip_serializing_if = "Value::is_null")]
    measurement: Value,
}

impl KnownReport {
    /// Reads one line of a report file.
    ///
    /// # Errors
    /// What is wrong with it. Never quotes the line.
    pub fn from_line(format: &Format, line: &str) -> Result<(Self, ReportId), String> {
        let line: Line = serde_json::from_str(line).map_err(|e| match e.classify() {
            serde_json::error::Category::Data => {
                "the line must be an object with a string \"report\"".to_owned()
            }
            _ => format!("column {} is not JSON", e.column()),
        })?;
        let report =
            b64::decode(&line.report).ok_or("the report is not base64url without padding")?;
        let decoded = format.wire.report(&report);
        let id = decoded.map_err(|e| format!("the report is malformed: {e}"))?.metadata.report_id;
        let measurement = match line.measurement {
            Value::Null => None,
            value => Some(Measurement::from_json(&format.vdaf, &value).map_err(|e| e.to_string())?),
        };
        Ok((Self { report, measurement }, id))
    }

    /// Writes one line of a report file, without the line's end.
    pub fn to_line(&self) -> String {
        let measurement = match &self.measurement {
            None => Value::Null,
            Some(Measurement::Count(b)) => u8::from(*b).into(),
            Some(Measurement::Sum(n)) => (*n).into(),
            Some(Measurement::SumVec(v)) => v.clone().into(),
            Some(Measurement::Histogram(i)) => (*i).into(),
            Some(Measurement::MultihotCountVec(v)) => {
                v.iter().map(|b| u8::from(*b)).collect::<Vec<_>>().into()
            }
            Some(Measurement::Poplar1(string)) => string.to_string().into(),
        };
        let line = Line { report: b64::encode(&self.report), measurement };
        // Unwrap safety: strings and numbers always have a JSON.
        serde_json::to_string(&line).unwrap()
    }
}

/// Reads report files one line at a time, so that they need not fit in memory.
///
/// Each item fails with [`Failure::Usage`], which names file and line; nothing follows a failure. A report id
/// may occur once over all files, as a leader would refuse the second.
pub fn read_files(
    format: Format,
    paths: &[PathBuf],
) -> impl Iterator<Item = Result<KnownReport, Failure>> + use<> {
    let mut seen = HashSet::new();
    let mut failed = false;
    let paths = paths.to_vec();
    paths
        .into_iter()
        .flat_map(move |path| read_file(format, &path))
        .map(move |item| {
            let (place, report, id) = item?;
            if seen.insert(id) {
                Ok(report)
            } else {
                Err(Failure::Usage(format!("{place}: the report's id occurred before")))
            }
        })
        .map_while(move |item| {
            let go_on = !failed;
            failed |= item.is_err();
            go_on.then_some(item)
        })
}

type Placed = (String, KnownReport, ReportId);

fn read_file(format: Format, path: &Path) -> Box<dyn Iterator<Item = Result<Placed, Failure>>> {
    let name = clean(&path.display().to_string());
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) => {
            let failure = Failure::Usage(format!("cannot read {name}: {e}"));
            return Box::new(std::iter::once(Err(failure)));
        }
    };
    Box::new(BufReader::new(file).lines().enumerate().filter_map(move |(index, line)| {
        let place = format!("{name}, line {}", index + 1);
        let read = match line {
            Err(e) => Err(e.to_string()),
            Ok(line) if line.trim().is_empty() => return None,
            Ok(line) => KnownReport::from_line(&format, &line),
        };
        Some(match read {
            Ok((report, id)) => Ok((place, report, id)),
            Err(why) => Err(Failure::Usage(format!("{place}: {why}"))),
        })
    }))
}

/// Reads regular files to the end and returns how many reports they hold, so that a mistake in one is found before
/// anything is sent. `None` if one cannot be read twice, such as a pipe.
///
/// # Errors
/// As [`read_files`].
pub fn count(format: Format, paths: &[PathBuf]) -> Result<Option<u64>, Failure> {
    if paths.iter().any(|path| path.exists() && !path.is_file()) {
        return Ok(None);
    }
    let mut count = 0;
    for report in read_files(format, paths) {
        report?;
        count += 1;
    }
    Ok(Some(count))
}

/// Where generated reports' measurements come from.
#[derive(Clone, Debug)]
pub enum Measurements {
    /// These, over and over.
    Cycle(Vec<Measurement>),
    /// Random ones; the same seed gives the same.
    Random {
        /// The seed.
        seed: u64,
    },
}

impl Measurements {
    fn get(&self, vdaf: &VdafConfig, index: u64) -> Option<Measurement> {
        match self {
            Self::Cycle(all) => {
                let index = usize::try_from(index).ok()?.checked_rem(all.len())?;
                all.get(index).cloned()
            }
            Self::Random { seed } => Some(random_measurement(vdaf, *seed, index)),
        }
    }
}

/// A uniform measurement, but for Poplar1: every second string is one of four, so that there is something to be found. It
/// depends on seed and index only.
pub fn random_measurement(vdaf: &VdafConfig, seed: u64, index: u64) -> Measurement {
    let mut state = mix(seed ^ mix(index));
    let mut next = move |max: u64| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        // The bias of the remainder is of no matter here.
        max.checked_add(1).map_or_else(|| mix(state), |n| mix(state) % n)
    };
    match vdaf {
        VdafConfig::Prio3Count => Measurement::Count(next(1) == 1),
        VdafConfig::Prio3Sum { max_measurement } => Measurement::Sum(next(*max_measurement)),
        VdafConfig::Prio3SumVec { length, max_measurement, .. }
        | VdafConfig::Prio3SumVecField64MultiproofHmacSha256Aes128 {
            length,
            max_measurement,
            ..
        } => Measurement::SumVec((0..*length).map(|_| next(*max_measurement)).collect()),
        VdafConfig::Prio3Histogram { length, .. } => {
            Measurement::Histogram(next(u64::from(length.saturating_sub(1))) as usize)
        }
        VdafConfig::Prio3MultihotCountVec { length, max_weight, .. } => {
            let mut set = vec![false; *length as usize];
            for _ in 0..*max_weight {
                // One index beyond the last: elements that are not set.
                if let Some(element) = set.get_mut(next(u64::from(*length)) as usize) {
                    *element = true;
                }
            }
            Measurement::MultihotCountVec(set)
        }
        VdafConfig::Poplar1 { bits } => {
            // The first is as frequent as the three others together.
            let word = [0, 0, 0, 1, 2, 3].get(next(11) as usize).map(|word| mix(seed ^ word));
            let bit = |n: u16| match word {
                Some(word) => mix(word ^ u64::from(n)) & 1 == 1,
                None => next(1) == 1,
            };
            Measurement::Poplar1((0..*bits).map(bit).collect())
        }
    }
}

/// The output function of SplitMix64.
const fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Makes reports as clients do. Report ids and all secrets are random, whatever the seed of the measurements.
#[derive(Clone, Debug)]
pub struct Generator {
    client: ClientTask,
    extensions: Vec<(u16, &'static [u8])>,
    measurements: Measurements,
    time: Time,
    time_span_s: u64,
}

impl Generator {
    /// A generator of reports made at `time`, or spread evenly over the `time_span_s` seconds from then on.
    ///
    /// # Errors
    /// [`Failure::Usage`] for an unusable task or no measurements, [`Failure::Wrong`] if no HPKE configuration of
    /// the helper is usable.
    pub fn new(
        task: &TaskFile,
        helper_configs: &HpkeConfigList,
        measurements: Measurements,
        time: Time,
        time_span_s: u64,
    ) -> Result<Self, Failure> {
        if matches!(&measurements, Measurements::Cycle(all) if all.is_empty()) {
            return Err(Failure::Usage("there are no measurements to make reports of".into()));
        }
        let checked = task.task()?;
        let helper =
            helper_configs.0.iter().find(|config| config.is_supported()).ok_or_else(|| {
                Failure::Wrong(
                    "the helper publishes no HPKE configuration that is supported".into(),
                )
            })?;
        let client = ClientTask {
            version: checked.parameters.version,
            task_configuration: checked.parameters.task_configuration.clone(),
            task_id: *checked.id(),
            vdaf: checked.vdaf,
            time_precision: checked.parameters.time_precision,
            leader_hpke_config: task.leader_hpke_keypair.config().clone(),
            helper_hpke_config: helper.clone(),
        };
        let brought = task.taskprov.as_ref().and(client.version.taskprov_extension());
        let extensions = brought.map(|extension_type| (extension_type, &[][..]));
        let extensions = extensions.into_iter().collect();
        Ok(Self { client, extensions, measurements, time, time_span_s })
    }

    /// Report number `index` of `count`.
    ///
    /// # Errors
    /// [`Failure::Wrong`] if it cannot be made.
    pub fn report(&self, index: u64, count: u64) -> Result<KnownReport, Failure> {
        let measurement = self
            .measurements
            .get(self.client.vdaf.config(), index)
            .ok_or_else(|| Failure::Usage("there are no measurements to make reports of".into()))?;
        let offset = u128::from(self.time_span_s) * u128::from(index) / u128::from(count.max(1));
        let offset =
            daphne_core::time::Duration::from_seconds(u64::try_from(offset).unwrap_or(u64::MAX));
        let randomness = ReportRandomness {
            report_id: random()?,
            leader_seed: random()?,
            helper_seed: random()?,
        };
        let report = self
            .client
            .report_with_extensions(
                &measurement,
                self.time.saturating_add(offset),
                ReportExtensions { public: &[], private: &self.extensions },
                &randomness,
            )
            .map_err(|e| Failure::Wrong(format!("cannot make a report: {e}")))?;
        Ok(KnownReport { report, measurement: Some(measurement) })
    }

    /// Reports `0..count`, made as they are asked for.
    pub fn reports(self, count: u64) -> impl Iterator<Item = Result<KnownReport, Failure>> {
        (0..count).map(move |index| self.report(index, count))
    }
}

/// The time now.
pub fn now() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time::from_seconds(since.as_secs())
}

#[cfg(test)]
mod tests {
    use daphne_core::version::DapVersion;

    use super::*;

    const SUM: VdafConfig = VdafConfig::Prio3Sum { max_measurement: 255 };

    const fn format(vdaf: VdafConfig) -> Format {
        let wire = Wire::new(DapVersion::V09, daphne_core::time::Duration::from_seconds(60));
        Format { vdaf, wire }
    }

    /// A report with empty shares: 24 bytes of metadata, and three fields of which each says it is empty.
    fn empty_report(id: u8) -> Vec<u8> {
        let ciphertext = [0; 7];
        [&[id; 16][..], &[0; 8], &[0; 4], &ciphertext, &ciphertext].concat()
    }

    fn line(id: u8, measurement: u64) -> String {
        let measurement = Some(Measurement::Sum(measurement));
        KnownReport { report: empty_report(id), measurement }.to_line()
    }

    fn read(content: &str) -> Vec<Result<KnownReport, String>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r.jsonl");
        std::fs::write(&path, content).unwrap();
        let text = |e: Failure| e.to_string().split_once("r.jsonl, ").unwrap().1.to_owned();
        let paths = [path];
        read_files(format(SUM), &paths).map(|item| item.map_err(text)).collect()
    }

    #[test]
    fn lines_survive() {
        let written =
            KnownReport { report: empty_report(1), measurement: Some(Measurement::Sum(7)) };
        assert_eq!(KnownReport::from_line(&format(SUM), &written.to_line()).unwrap().0, written);
        let silent = KnownReport { measurement: None, ..written };
        assert!(!silent.to_line().contains("measurement"));
        assert_eq!(KnownReport::from_line(&format(SUM), &silent.to_line()).unwrap().0, silent);
    }

    #[test]
    fn mistakes_are_found_by_line_and_nothing_follows_them() {
        let content = format!("{}\n\n{}\nnot json\n{}\n", line(1, 3), line(2, 4), line(3, 5));
        let read_all = read(&content);
        assert_eq!(read_all.len(), 3);
        assert_eq!(read_all[2], Err("line 4: column 2 is not JSON".into()));
        for (bad, why) in [
            (line(1, 3), "line 2: the report's id occurred before"),
            (line(2, 256), "line 2: the measurement has a number larger than 255"),
            ("[1]".into(), "line 2: the line must be an object with a string \"report\""),
            (
                r#"{"measurement":1}"#.into(),
                "line 2: the line must be an object with a string \"report\"",
            ),
            (r#"{"report":"AA=="}"#.into(), "line 2: the report is not base64url without padding"),
        ] {
            assert_eq!(read(&format!("{}\n{bad}\n", line(1, 1)))[1], Err(why.into()));
        }
        assert!(
            read(r#"{"report":"AAAA"}"#)[0]
                .as_ref()
                .unwrap_err()
                .starts_with("line 1: the report is malformed")
        );
    }

    #[test]
    fn random_measurements_fit_and_repeat() {
        for vdaf in [
            VdafConfig::Prio3Count,
            SUM,
            VdafConfig::Prio3Sum { max_measurement: u64::MAX },
            VdafConfig::Prio3SumVec { length: 5, max_measurement: 1, chunk_length: 2 },
            VdafConfig::Prio3Histogram { length: 3, chunk_length: 1 },
            VdafConfig::Prio3MultihotCountVec { length: 5, max_weight: 2, chunk_length: 2 },
            VdafConfig::Poplar1 { bits: 9 },
        ] {
            let mut distinct = HashSet::new();
            for index in 0..50 {
                let made = KnownReport {
                    report: empty_report(0),
                    measurement: Some(random_measurement(&vdaf, 1, index)),
                };
                assert_eq!(made.measurement, Some(random_measurement(&vdaf, 1, index)));
                assert!(KnownReport::from_line(&format(vdaf), &made.to_line()).is_ok());
                distinct.insert(made.to_line());
            }
            assert!(distinct.len() > 1, "{vdaf:?}");
        }
    }
}
