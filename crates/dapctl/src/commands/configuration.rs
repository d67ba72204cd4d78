//! Configurations of tasks: what all parties have word for word. DAP-18 §4.2.

use daphne_core::{
    b64,
    batch::BatchMode,
    configuration::{self, Agreement},
    task::TaskSpec,
    time::{Duration, Interval, Time},
    wire::v18::{self, TaskConfiguration, TaskVdaf},
};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::{
    Failure,
    cli::AgreementArgs,
    output::{clean, utc},
    task_file,
};

/// A configuration for people.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Shown {
    /// Its `task_info`, as text if it is some.
    task_info: String,
    /// The leader's URL.
    leader_url: String,
    /// The helper's URL.
    helper_url: String,
    /// When reports must be made.
    #[serde(skip_serializing_if = "Option::is_none")]
    task_interval: Option<Interval>,
}

/// What is in a task's configuration; `None` if it has none.
pub(super) fn shown(bytes: &[u8]) -> Option<Shown> {
    let decoded = TaskConfiguration::decode(bytes).ok()?;
    let precision = Duration::from_seconds(decoded.time_precision);
    let text = std::str::from_utf8(decoded.task_info).ok();
    let printable = text.filter(|text| clean(text) == **text && !text.is_empty());
    Some(Shown {
        task_info: printable.map_or_else(|| b64::encode(decoded.task_info), str::to_owned),
        leader_url: decoded.leader_aggregator_endpoint.to_owned(),
        helper_url: decoded.helper_aggregator_endpoint.to_owned(),
        task_interval: decoded.task_interval().ok()?.and_then(|interval| {
            let (start, duration) = interval.seconds(precision);
            Interval::new(start, duration)
        }),
    })
}

/// Lines for people, with the bytes that a partner must have.
pub(super) fn lines(bytes: &[u8]) -> String {
    let Some(shown) = shown(bytes) else { return String::new() };
    let interval = shown.task_interval.map_or_else(
        || "at any time".to_owned(),
        |i| format!("from {} until {}", utc(i.start()), utc(i.end())),
    );
    format!(
        "task_info {}, leader {}, helper {}, reports {interval}\nall parties must have these bytes as the task's \
         configuration: {}",
        shown.task_info,
        shown.leader_url,
        shown.helper_url,
        b64::encode(bytes)
    )
}

/// Puts into `fields`, the JSON of a [`TaskSpec`], what its configuration says and they do not.
///
/// # Errors
/// [`Failure::Usage`] if there is a configuration that no task here can have.
pub(super) fn fill_in(fields: &mut Map<String, Value>) -> Result<(), Failure> {
    let usage = |why: &str| Failure::Usage(format!("the task's configuration {why}"));
    let Some(given) = fields.get("task_configuration").filter(|given| !given.is_null()) else {
        return Ok(());
    };
    let bytes = given.as_str().and_then(b64::decode).ok_or_else(|| usage("is not base64url"))?;
    let decoded =
        TaskConfiguration::decode(&bytes).map_err(|e| usage(&format!("is malformed: {e}")))?;
    let batch_mode = match decoded.batch_mode {
        v18::BatchMode::TimeInterval => BatchMode::TimeInterval,
        v18::BatchMode::LeaderSelected => BatchMode::LeaderSelected,
        v18::BatchMode::Unknown { code, .. } => {
            return Err(usage(&format!("has batch mode {code}, which is not known here")));
        }
    };
    let vdaf = match decoded.vdaf {
        TaskVdaf::Known(vdaf) => vdaf,
        TaskVdaf::Unknown { code, .. } => {
            return Err(usage(&format!("has a VDAF that is not known here, of type {code}")));
        }
    };
    for (name, value) in [
        ("vdaf", json!(vdaf)),
        ("batch_mode", json!(batch_mode)),
        ("time_precision", json!(decoded.time_precision)),
        ("min_batch_size", json!(decoded.min_batch_size)),
    ] {
        fields.entry(name).or_insert(value);
    }
    Ok(())
}

/// Makes the configuration of a task whose version has one, unless it is there already.
///
/// # Errors
/// [`Failure::Usage`] if what it needs is not given, or what is given does not belong to it.
pub(super) fn complete(
    spec: &mut TaskSpec,
    args: &AgreementArgs,
    helper_url: &str,
) -> Result<(), Failure> {
    let version = spec.version.tag();
    let usage = |why: String| Err(Failure::Usage(why));
    let says_something = args.leader_url.is_some()
        || args.task_info.is_some()
        || args.task_info_base64url.is_some()
        || args.task_start.is_some();
    if !spec.version.has_configuration() || !spec.task_configuration.is_empty() {
        return match (says_something, spec.version.has_configuration()) {
            (false, _) => Ok(()),
            (true, true) => usage("the task has a configuration already".into()),
            (true, false) => {
                usage(format!("a {version} task has no configuration (--version dap-18)"))
            }
        };
    }
    let Some(leader_url) = &args.leader_url else {
        return usage(format!(
            "a {version} task names its leader: --leader-url, or the whole --task-configuration"
        ));
    };
    let task_info = match (&args.task_info, &args.task_info_base64url) {
        (Some(text), _) => text.clone().into_bytes(),
        (None, Some(text)) => match b64::decode(text) {
            Some(bytes) => bytes,
            None => return usage("--task-info-base64url is not base64url".into()),
        },
        (None, None) => task_file::random::<16>()?.to_vec(),
    };
    let task_interval = interval(args)?;
    let agreement = Agreement { task_info: &task_info, leader_url, helper_url, task_interval };
    spec.task_configuration =
        configuration::encode(spec, &agreement).map_err(|e| Failure::Usage(e.to_string()))?;
    Ok(())
}

/// When reports of a task are made, if that is said.
///
/// # Errors
/// [`Failure::Usage`] if it ends beyond all time.
pub(super) fn interval(args: &AgreementArgs) -> Result<Option<Interval>, Failure> {
    let (Some(start), Some(duration)) = (args.task_start, args.task_duration) else {
        return Ok(None);
    };
    let interval = Interval::new(Time::from_seconds(start), Duration::from_seconds(duration));
    let beyond = || Failure::Usage("--task-duration ends beyond representable time".into());
    interval.map(Some).ok_or_else(beyond)
}

#[cfg(test)]
mod tests {
    use daphne_core::version::DapVersion;

    use super::*;

    fn spec() -> TaskSpec {
        let mut fields = json!({
            "version": DapVersion::V18, "role": "helper", "batch_mode": "leader-selected", "vdaf": "Prio3Count",
            "min_batch_size": 10, "time_precision": 60,
        });
        let fields = fields.as_object_mut().unwrap();
        task_file::generate_missing(fields, 32).unwrap();
        task_file::spec_from_value(Value::Object(fields.clone())).unwrap()
    }

    fn agreement() -> AgreementArgs {
        AgreementArgs {
            leader_url: Some("https://leader.example/v18".into()),
            task_info: Some("hits".into()),
            task_start: Some(600),
            task_duration: Some(1_200),
            ..AgreementArgs::default()
        }
    }

    const HELPER: &str = "https://helper.example/v18/";

    #[test]
    fn a_configuration_is_made_and_shown() {
        let mut made = spec();
        complete(&mut made, &agreement(), HELPER).unwrap();
        task_file::check(&made).unwrap();
        let shown = shown(&made.task_configuration).unwrap();
        assert_eq!(
            json!(shown),
            json!({
                "task_info": "hits", "leader_url": "https://leader.example/v18", "helper_url": HELPER,
                "task_interval": { "start": 600, "duration": 1_200 },
            })
        );
        let lines = lines(&made.task_configuration);
        assert!(lines.ends_with(&b64::encode(&made.task_configuration)), "{lines}");
        assert!(lines.contains("from 1970-01-01 00:10:00"), "{lines}");
        // Bytes that are no text are shown as bytes.
        let args = AgreementArgs {
            task_info: None,
            task_info_base64url: Some("AP8".into()),
            ..agreement()
        };
        let mut made = spec();
        complete(&mut made, &args, HELPER).unwrap();
        assert_eq!(super::shown(&made.task_configuration).unwrap().task_info, "AP8");
    }

    #[test]
    fn what_a_partner_gave_says_the_rest() {
        let mut made = spec();
        complete(&mut made, &agreement(), HELPER).unwrap();
        let mut fields = Map::new();
        fields.insert("task_configuration".into(), b64::encode(&made.task_configuration).into());
        fields.insert("time_precision".into(), json!(3_600));
        fill_in(&mut fields).unwrap();
        assert_eq!(fields["vdaf"], "Prio3Count");
        assert_eq!(fields["batch_mode"], "leader-selected");
        assert_eq!(fields["min_batch_size"], 10);
        // What is said is not replaced: that it differs is for the check to say.
        assert_eq!(fields["time_precision"], 3_600);
        for bad in [json!("AA=="), json!("AAAA"), json!(7)] {
            fields.insert("task_configuration".into(), bad);
            assert!(matches!(fill_in(&mut fields), Err(Failure::Usage(_))));
        }
    }

    #[test]
    fn what_does_not_fit_is_a_usage_error() {
        let refused = |change: &dyn Fn(&mut TaskSpec, &mut AgreementArgs)| {
            let (mut spec, mut args) = (spec(), agreement());
            change(&mut spec, &mut args);
            complete(&mut spec, &args, HELPER).unwrap_err().to_string()
        };
        assert!(refused(&|_, args| args.leader_url = None).contains("--leader-url"));
        assert!(refused(&|spec, _| spec.version = DapVersion::V09).contains("no configuration"));
        assert!(refused(&|spec, _| spec.task_configuration = vec![1]).contains("already"));
        assert!(refused(&|_, args| args.task_start = Some(601)).contains("multiple"));
        assert!(refused(&|_, args| args.task_start = Some(u64::MAX)).contains("beyond"));
        assert!(refused(&|_, args| args.task_info = Some(String::new())).contains("task_info"));
        assert!(refused(&|_, args| args.leader_url = Some("a b".into())).contains("URLs"));
        let mut old = spec();
        old.version = DapVersion::V09;
        complete(&mut old, &AgreementArgs::default(), HELPER).unwrap();
        assert_eq!(old.task_configuration, Vec::<u8>::new());
    }
}
