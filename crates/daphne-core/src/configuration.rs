//! A task's configuration, the bytes that all parties of a DAP-18 task share: made once, and checked against what the
//! operator says of the task. DAP-18 §4.2.
//!
//! All that is sealed for the task is bound to these bytes, so nothing rebuilds them: a URL with and without a slash at its
//! end are two tasks.

use crate::{
    batch::BatchMode,
    task::{TaskError, TaskSpec},
    time::{Duration, Interval, Time},
    wire::v18::{self, TaskConfiguration, TaskVdaf},
};

/// Longest configuration that a task may have, in bytes: two URLs and some hundred bytes.
pub const CONFIGURATION_BYTES_MAX: usize = 4_096;

/// What clients, leader and helper agree on beside what a [`TaskSpec`] says.
#[derive(Clone, Copy, Debug)]
pub struct Agreement<'a> {
    /// Whatever tells this task from others with the same parameters, `1..=255` bytes.
    pub task_info: &'a [u8],
    /// The leader's DAP URL.
    pub leader_url: &'a str,
    /// The helper's DAP URL.
    pub helper_url: &'a str,
    /// When reports must be made, if not at any time; both ends multiples of the time precision.
    pub task_interval: Option<Interval>,
}

/// The configuration of a task with the parameters in `spec`.
///
/// # Errors
/// Whoever wrote the parameters: one sentence that says what no such task can have.
pub fn encode(spec: &TaskSpec, agreement: &Agreement<'_>) -> Result<Vec<u8>, TaskError> {
    let precision = spec.time_precision;
    if agreement.task_interval.is_some_and(|i| {
        i.start().round_down(precision) != i.start() || i.end().round_down(precision) != i.end()
    }) {
        return Err(TaskError::new(
            "the task's interval must begin and end at a multiple of its time precision",
        ));
    }
    let interval = agreement
        .task_interval
        .map(|i| v18::Interval::of_seconds(i.start(), i.duration(), precision).encode())
        .transpose()
        .map_err(|e| TaskError::new(e.to_string()))?;
    let extensions = interval
        .iter()
        .map(|data| v18::Extension { extension_type: v18::TASK_INTERVAL, extension_data: data });
    TaskConfiguration {
        task_info: agreement.task_info,
        leader_aggregator_endpoint: agreement.leader_url,
        helper_aggregator_endpoint: agreement.helper_url,
        time_precision: precision.as_seconds(),
        min_batch_size: spec.min_batch_size,
        batch_mode: match spec.batch_mode {
            BatchMode::TimeInterval => v18::BatchMode::TimeInterval,
            BatchMode::LeaderSelected => v18::BatchMode::LeaderSelected,
        },
        vdaf: TaskVdaf::Known(spec.vdaf),
        extensions: extensions.collect(),
    }
    .encode()
    .map_err(|_| {
        TaskError::new(
            "task_info must have 1 to 255 bytes, and the URLs only visible ASCII characters",
        )
    })
}

/// When reports of a task must be made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TaskTimes {
    /// The first second, if any is too early.
    pub start: Option<Time>,
    /// The last second, if any is too late.
    pub expiration: Option<Time>,
}

/// Checks that a task has a configuration if its version has such a thing, and that it says what the rest of the
/// parameters do. Returns when its reports must be made.
///
/// # Errors
/// Whoever wrote the parameters: one sentence that says what to change.
pub(crate) fn check(spec: &TaskSpec) -> Result<TaskTimes, TaskError> {
    let refuse = |why: String| Err(TaskError::new(why));
    if !spec.version.has_configuration() {
        if !spec.task_configuration.is_empty() {
            return refuse(format!("a {} task has no task_configuration", spec.version.tag()));
        }
        return Ok(TaskTimes { start: None, expiration: spec.task_expiration });
    }
    let version = spec.version.tag();
    let bytes = &spec.task_configuration;
    if bytes.is_empty() {
        return refuse(format!("a {version} task needs a task_configuration"));
    }
    if spec.task_expiration.is_some() {
        return refuse(format!(
            "when a {version} task ends is in its task_configuration: leave task_expiration out"
        ));
    }
    if bytes.len() > CONFIGURATION_BYTES_MAX {
        return refuse(format!(
            "task_configuration is longer than {CONFIGURATION_BYTES_MAX} bytes"
        ));
    }
    let configuration = match TaskConfiguration::decode(bytes) {
        Ok(configuration) => configuration,
        Err(e) => return refuse(format!("task_configuration: {e}")),
    };
    let differs = |name: &str| refuse(format!("task_configuration has another {name}"));
    let batch_mode = match configuration.batch_mode {
        v18::BatchMode::TimeInterval => BatchMode::TimeInterval,
        v18::BatchMode::LeaderSelected => BatchMode::LeaderSelected,
        v18::BatchMode::Unknown { .. } => {
            return refuse("task_configuration has an unknown batch mode".to_owned());
        }
    };
    if batch_mode != spec.batch_mode {
        return differs("batch_mode");
    }
    if configuration.vdaf != TaskVdaf::Known(spec.vdaf) {
        return differs("vdaf");
    }
    if configuration.time_precision != spec.time_precision.as_seconds() {
        return differs("time_precision");
    }
    if configuration.min_batch_size != spec.min_batch_size {
        return differs("min_batch_size");
    }
    times(&configuration)
}

/// When reports of a task with this configuration must be made. DAP-18 §4.2.3.
///
/// # Errors
/// Whoever wrote it: an extension that is unknown or malformed, or an interval without a second or beyond all time.
pub(crate) fn times(configuration: &TaskConfiguration<'_>) -> Result<TaskTimes, TaskError> {
    let interval = configuration.task_interval().map_err(|e| TaskError::new(e.to_string()))?;
    let Some(interval) = interval else { return Ok(TaskTimes::default()) };
    let precision = Duration::from_seconds(configuration.time_precision);
    let (start, duration) = interval.seconds(precision);
    match Interval::new(start, duration) {
        Some(interval) if interval.duration().as_seconds() > 0 => Ok(TaskTimes {
            start: Some(interval.start()),
            expiration: Some(interval.end().saturating_sub(Duration::from_seconds(1))),
        }),
        _ => Err(TaskError::new("task_interval is empty, or ends beyond representable time")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        hpke::{HpkeKem, HpkeKeypair},
        ids::HpkeConfigId,
        seal::TokenHash,
        task::TaskRole,
        vdaf::VdafConfig,
        version::DapVersion,
    };

    fn spec() -> TaskSpec {
        let collector =
            HpkeKeypair::derive(HpkeConfigId(3), HpkeKem::X25519HkdfSha256, &[7; 32]).unwrap();
        TaskSpec {
            task_id: None,
            version: DapVersion::V18,
            role: TaskRole::Helper,
            task_configuration: Vec::new(),
            batch_mode: BatchMode::TimeInterval,
            max_batch_size: None,
            vdaf: VdafConfig::Prio3Count,
            verify_key: vec![0; 32],
            leader_token: None,
            leader_token_hash: Some(TokenHash::of("")),
            collector_hpke_config: collector.config().clone(),
            min_batch_size: 10,
            time_precision: Duration::from_seconds(60),
            max_batch_query_count: 1,
            task_expiration: None,
            report_expiry_age: Duration::from_seconds(86_400),
            tolerable_clock_skew: Duration::from_seconds(300),
            shards: 1,
            buckets_per_group: None,
        }
    }

    fn agreement() -> Agreement<'static> {
        Agreement {
            task_info: b"test",
            leader_url: "https://leader.example/",
            helper_url: "https://helper.example/v18/",
            task_interval: Interval::new(Time::from_seconds(3_600), Duration::from_seconds(6_000)),
        }
    }

    #[test]
    fn a_configuration_says_what_the_task_says() {
        let mut spec = spec();
        assert!(check(&spec).is_err(), "none");
        let bytes = encode(&spec, &agreement()).unwrap();
        spec.task_configuration = bytes.clone();
        let times = check(&spec).unwrap();
        assert_eq!(times.start, Some(Time::from_seconds(3_600)));
        assert_eq!(times.expiration, Some(Time::from_seconds(9_599)));
        let with = |change: &dyn Fn(&mut TaskSpec)| {
            let mut spec = spec.clone();
            change(&mut spec);
            check(&spec).unwrap_err().to_string()
        };
        assert!(with(&|s| s.min_batch_size = 11).contains("min_batch_size"));
        assert!(with(&|s| s.time_precision = Duration::from_seconds(61)).contains("precision"));
        assert!(with(&|s| s.batch_mode = BatchMode::LeaderSelected).contains("batch_mode"));
        assert!(with(&|s| s.vdaf = VdafConfig::Prio3Sum { max_measurement: 1 }).contains("vdaf"));
        assert!(with(&|s| s.task_expiration = Some(Time::from_seconds(1))).contains("leave"));
        assert!(with(&|s| s.task_configuration = bytes[1..].to_vec()).contains("task_conf"));
        assert!(with(&|s| s.version = DapVersion::V09).contains("no task_configuration"));
    }

    #[test]
    fn an_interval_is_one_of_whole_units() {
        let mut odd = agreement();
        odd.task_interval = Interval::new(Time::from_seconds(30), Duration::from_seconds(60));
        assert!(encode(&spec(), &odd).is_err());
    }

    #[test]
    fn tasks_with_extensions_that_nobody_knows_are_refused() {
        let mut spec = spec();
        let bytes = encode(&spec, &Agreement { task_interval: None, ..agreement() }).unwrap();
        let mut configuration = TaskConfiguration::decode(&bytes).unwrap();
        let extension =
            |extension_type, extension_data| v18::Extension { extension_type, extension_data };
        for extensions in [
            vec![extension(2, &[][..])],
            vec![extension(v18::TASK_INTERVAL, &[0; 16]), extension(v18::TASK_INTERVAL, &[0; 16])],
            vec![extension(v18::TASK_INTERVAL, &[0; 15])],
            vec![extension(v18::TASK_INTERVAL, &[0; 16])],
            vec![extension(v18::TASK_INTERVAL, &[0xff; 16])],
        ] {
            configuration.extensions = extensions;
            spec.task_configuration = configuration.encode().unwrap();
            check(&spec).unwrap_err();
        }
    }
}
