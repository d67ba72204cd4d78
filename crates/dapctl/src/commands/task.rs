//! `dapctl task`.

use std::path::Path;

use daphne_core::{
    b64,
    codec::Reader,
    hpke::HpkeConfig,
    task::TaskParameters,
    time::{Duration, Interval, Time},
    vdaf::{Vdaf, VdafConfig},
    version::DapVersion,
};
use serde_json::{Map, Value, json};

use super::configuration;
use crate::{
    Failure,
    admin::AdminClient,
    cli::{BatchModeName, Cli, SpecArgs, TaskAddArgs, TaskCommand, TaskExpireArgs},
    http::{ClientError, Credential, Http},
    output::{self, clean, utc},
    peer_file::PeerFile,
    reports,
    task_file::{self, TaskFile},
};

pub(super) fn run(cli: &Cli, command: &TaskCommand) -> Result<(), Failure> {
    match command {
        TaskCommand::Add(args) => add(cli, args),
        TaskCommand::List => {
            let tasks = super::admin(cli)?.all_tasks()?;
            let text: Vec<String> = tasks.iter().map(line).collect();
            output::print(cli.output, &text.join("\n"), &json!({ "tasks": tasks }))
        }
        TaskCommand::Show(arg) => {
            let admin = super::admin(cli)?;
            let task = admin.task(&arg.task_id)?.ok_or_else(unknown)?;
            let status = admin.task_status(&arg.task_id)?.ok_or_else(unknown)?;
            let mut json = json!(task);
            let end = super::status::end(task.task_expiration);
            let mut text = format!("{json:#}\n{end}\n{}", super::status::lines(&status));
            json["status"] = json!(status);
            if let Some(shown) = configuration::shown(&task.task_configuration) {
                text = format!(
                    "{}\n{}",
                    text.trim_end(),
                    configuration::lines(&task.task_configuration)
                );
                json["configuration"] = json!(shown);
            }
            output::print(cli.output, &text, &json)
        }
        TaskCommand::Expire(args) => expire(cli, args),
        TaskCommand::Rm(args) => {
            let id = &args.task.task_id;
            if !super::admin(cli)?.delete_task(id, args.purge_after)? {
                return Err(unknown());
            }
            output::print(cli.output, &format!("deleted {id}"), &json!({ "deleted": id }))
        }
        TaskCommand::Import(args) => super::import::run(cli, args),
        TaskCommand::Export(args) => super::import::export(cli, args),
        TaskCommand::Token(command) => super::token::run(cli, command),
    }
}

pub(super) fn unknown() -> Failure {
    Failure::Wrong("no such task".into())
}

fn expire(cli: &Cli, args: &TaskExpireArgs) -> Result<(), Failure> {
    // One of the three was given.
    let end = if args.now { Some(reports::now()) } else { args.at.map(Time::from_seconds) };
    let id = &args.task.task_id;
    let task = super::admin(cli)?.set_task_expiration(id, end)?.ok_or_else(unknown)?;
    let text = match task.task_expiration {
        Some(end) => format!(
            "{id} ends {}: reports made later are refused. Two report_expiry_ages and two days later it is deleted with all \
             its data",
            utc(end)
        ),
        None => format!("{id} does not end"),
    };
    output::print(cli.output, &text, &json!(task))
}

/// Length of a batch bucket, unless it is said.
const TIME_PRECISION_S: u64 = 3_600;

/// How long a task lives that a leader brings along, unless it is said.
const LIFETIME: Duration = Duration::from_seconds(30 * 86_400);

/// Writes the file of a task that its leader brings along: nobody needs to be told before.
fn add_with_taskprov(
    cli: &Cli,
    args: &TaskAddArgs,
    peer: &Path,
    save: &Path,
) -> Result<(), Failure> {
    let peer = PeerFile::read(peer)?;
    let policy = &peer.peer.policy;
    let mut fields = from_options(&args.spec, false)?;
    // What the helper would not opt in to is no default.
    if let (None, Some(least)) = (args.spec.min_batch_size, policy.min_batch_size_min) {
        fields.insert("min_batch_size".into(), json!(least));
    }
    let lifetime = policy.lifetime_max.map_or(LIFETIME, |longest| longest.min(LIFETIME));
    let version = args.spec.version.unwrap_or(DapVersion::V09);
    let mut interval = configuration::interval(&args.agreement)?;
    if !version.has_configuration() {
        let expiration = reports::now().saturating_add(lifetime);
        fields.entry("task_expiration").or_insert_with(|| json!(expiration));
    } else if interval.is_none() {
        let precision = args.spec.time_precision.unwrap_or(TIME_PRECISION_S).max(1);
        let start = reports::now().round_down(Duration::from_seconds(precision));
        // At least the time that is now.
        let units = (lifetime.as_seconds() / precision).max(1);
        interval = Interval::new(start, Duration::from_seconds(units.saturating_mul(precision)));
    }
    let task_info = match &args.agreement.task_info {
        Some(text) => text.clone().into_bytes(),
        None => task_file::random::<16>()?.to_vec(),
    };
    let file = peer.task(fields, &task_info, interval)?;
    let task = file.task()?;
    let _ = file.save(save, args.force)?;
    let text = format!(
        "made {}\nkept in {}; the helper opts in when the first job comes",
        line(&task.parameters),
        save.display()
    );
    let json = json!({
        "created": false,
        "task": task.parameters,
        "task_file": save.display().to_string(),
    });
    output::print(cli.output, &text, &json)
}

fn add(cli: &Cli, args: &TaskAddArgs) -> Result<(), Failure> {
    if let (Some(peer), Some(save)) = (&args.taskprov, &args.save) {
        return add_with_taskprov(cli, args, peer, save);
    }
    let admin = super::admin(cli)?;
    let mut fields = match &args.file {
        Some(path) => read_spec(path)?,
        None => from_options(&args.spec, args.agreement.task_configuration.is_some())?,
    };
    if let Some(given) = &args.agreement.task_configuration {
        fields.insert("task_configuration".into(), json!(given));
    }
    configuration::fill_in(&mut fields)?;
    let verify_key_len = verify_key_len(&fields)?;
    let generated = task_file::generate_missing(&mut fields, verify_key_len)?;
    if generated.secrets && args.save.is_none() {
        return Err(Failure::Usage(
            "secrets would be made and lost: say with --save where to keep them".into(),
        ));
    }
    let mut spec = task_file::spec_from_value(Value::Object(fields))?;
    let helper_url = helper_url(super::url(cli)?, args.helper_url.as_deref(), spec.version)?;
    // As it was given, as its bytes count.
    let agreed = args.helper_url.as_deref().unwrap_or(&helper_url);
    configuration::complete(&mut spec, &args.agreement, agreed)?;
    // With its id in the file, the task can be found again whatever becomes of the request.
    spec.task_id = Some(*task_file::check(&spec)?.id());

    let saved = match &args.save {
        None => None,
        Some(path) => {
            let file = TaskFile {
                spec: spec.clone(),
                helper_url,
                leader_hpke_keypair: task_file::new_keypair()?,
                collector_hpke_keypair: generated.collector,
                taskprov: None,
            };
            Some((path, file.save(path, args.force)?))
        }
    };
    let created = create(&admin, &spec, saved)?;

    let json = json!({
        "created": created.created,
        "task": created.task,
        "task_file": args.save.as_ref().map(|path| path.display().to_string()),
    });
    let verb = if created.created { "created" } else { "exists" };
    let mut text = format!("{verb} {}", line(&created.task));
    if let Some(path) = &args.save {
        text += &format!("\nkept in {}", path.display());
    }
    let configuration = configuration::lines(&created.task.task_configuration);
    if !configuration.is_empty() {
        text += &format!("\n{configuration}");
    }
    output::print(cli.output, &text, &json)
}

/// Creates the task. The file was written before, so that no success can lose its secrets; it is taken back only if
/// the task certainly was not created.
fn create(
    admin: &AdminClient,
    spec: &daphne_core::task::TaskSpec,
    saved: Option<(&std::path::PathBuf, task_file::Saved)>,
) -> Result<crate::admin::CreatedTask, Failure> {
    let error = match (admin.create_task(spec), &saved) {
        (Ok(created), _) => return Ok(created),
        (Err(error), _) => error,
    };
    let nothing_changed = error.changed_nothing();
    match saved {
        Some((_, saved)) if nothing_changed => saved.undo()?,
        Some((path, _)) => {
            let kept = format!(
                "{0} is kept, as the task may have been created; go on with `dapctl task add --file {0}`",
                clean(&path.display().to_string())
            );
            return Err(Failure::from(error).during(&kept));
        }
        None => {}
    }
    Err(describe(error))
}

pub(super) fn describe(error: ClientError) -> Failure {
    match error.problem() {
        Some(problem) if problem.status == 401 || problem.status == 403 => {
            Failure::from(error).during("the admin token is not accepted")
        }
        _ => error.into(),
    }
}

pub(super) fn helper_url(
    url: &str,
    given: Option<&str>,
    version: DapVersion,
) -> Result<String, Failure> {
    let base = Http::new(given.unwrap_or(url), Credential::None)?.base().to_string();
    Ok(match given {
        Some(_) => base,
        None => format!("{base}{}/", version.path_prefix()),
    })
}

fn read_spec(path: &Path) -> Result<Map<String, Value>, Failure> {
    let shown = clean(&path.display().to_string());
    let text = std::fs::read_to_string(path)
        .map_err(|e| Failure::Usage(format!("cannot read {shown}: {e}")))?;
    let mut fields: Map<String, Value> = serde_json::from_str(&text).map_err(|e| {
        Failure::Usage(format!(
            "{shown}, line {}, column {}: expected a JSON object",
            e.line(),
            e.column()
        ))
    })?;
    // A task file holds its task as `spec`: so a creation whose answer was lost goes on from the file that it wrote.
    Ok(match fields.remove("spec") {
        Some(Value::Object(spec)) => spec,
        _ => fields,
    })
}

/// The task that the options describe; `configured` if its configuration says what is most important.
fn from_options(args: &SpecArgs, configured: bool) -> Result<Map<String, Value>, Failure> {
    let mode = match args.batch_mode.unwrap_or(BatchModeName::TimeInterval) {
        BatchModeName::TimeInterval => "time-interval",
        BatchModeName::LeaderSelected => "leader-selected",
    };
    let collector = args.collector_config.as_deref().map(decode_config).transpose()?;
    let version = args.version.unwrap_or(DapVersion::V09);
    let vdaf = if configured { None } else { Some(args.vdaf_config()?) };
    let query_count = args.max_batch_query_count.or(match vdaf {
        // A search that asks one bit at a time asks as often.
        Some(VdafConfig::Poplar1 { bits }) if !version.aggregates_once() => Some(bits.into()),
        _ => None,
    });
    let unless_configured = |value: Value| if configured { Value::Null } else { value };
    // An absent field takes the default of the helper; null would not everywhere.
    let fields = [
        ("version", json!(version)),
        ("role", json!("helper")),
        ("vdaf", json!(vdaf)),
        ("batch_mode", unless_configured(json!(mode))),
        (
            "time_precision",
            unless_configured(json!(args.time_precision.unwrap_or(TIME_PRECISION_S))),
        ),
        ("min_batch_size", unless_configured(json!(args.min_batch_size.unwrap_or(10)))),
        ("max_batch_size", json!(args.max_batch_size)),
        ("max_batch_query_count", json!(query_count)),
        ("task_expiration", json!(args.task_expiration)),
        ("report_expiry_age", json!(args.report_expiry_age)),
        ("tolerable_clock_skew", json!(args.tolerable_clock_skew)),
        ("shards", json!(args.shards)),
        ("buckets_per_group", json!(args.buckets_per_group)),
        ("task_id", json!(args.task_id)),
        ("verify_key", json!(args.verify_key)),
        ("leader_token", json!(args.leader_token)),
        ("leader_token_hash", json!(args.leader_token_hash)),
        ("collector_hpke_config", json!(collector)),
    ];
    let given = fields.into_iter().filter(|(_, value)| !value.is_null());
    Ok(given.map(|(name, value)| (name.to_owned(), value)).collect())
}

pub(super) fn decode_config(text: &str) -> Result<HpkeConfig, Failure> {
    b64::decode(text).and_then(|bytes| Reader::all(&bytes, HpkeConfig::read).ok()).ok_or_else(
        || {
            Failure::Usage(
                "--collector-config is not the base64url of an encoded HpkeConfig".into(),
            )
        },
    )
}

fn verify_key_len(fields: &Map<String, Value>) -> Result<usize, Failure> {
    let usage = |e: String| Failure::Usage(clean(&e));
    let config = fields.get("vdaf").cloned().unwrap_or(Value::Null);
    let config: VdafConfig =
        serde_json::from_value(config).map_err(|e| usage(format!("vdaf: {e}")))?;
    // That a file lacks it is told with whatever else it lacks.
    let version: Option<DapVersion> = fields
        .get("version")
        .map(|version| serde_json::from_value(version.clone()))
        .transpose()
        .map_err(|e| usage(format!("version: {e}")))?;
    let version = version.unwrap_or(DapVersion::V09);
    let vdaf = Vdaf::new(version.vdaf_draft(), config).map_err(|e| usage(e.to_string()))?;
    Ok(vdaf.verify_key_len())
}

fn line(task: &TaskParameters) -> String {
    let mode = json!(task.batch_mode);
    format!(
        "{}  {}  {}  {}  min {}  precision {} s",
        task.task_id,
        json!(task.version).as_str().unwrap_or_default(),
        task.vdaf.name(),
        mode.as_str().unwrap_or_default(),
        task.min_batch_size,
        task.time_precision.as_seconds(),
    )
}
