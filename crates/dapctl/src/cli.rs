//! The command line.

mod agreement;
mod deployment;
mod hpke;
mod import;
mod pair;
mod peer;
mod secrets;
mod vdaf;

use std::{
    ffi::OsString,
    num::NonZeroU64,
    path::{Path, PathBuf},
};

use clap::{
    ArgMatches, Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum,
    parser::ValueSource,
};
use daphne_core::{
    ids::TaskId,
    store::config_store::PURGE_AFTER_MAX_S,
    vdaf::{BitString, POPLAR1_BITS_MAX},
    version::DapVersion,
};

pub use agreement::AgreementArgs;
pub use deployment::{DeployArgs, DoctorArgs, EnvironmentName, InitArgs};
pub use hpke::{FirstState, HpkeCommand, HpkePolicyArgs, KemName, KeyIdArg};
pub use import::{ExportArgs, ImportArgs};
pub use pair::PairArgs;
pub use peer::{
    Bound, EndpointArg, NewTokenArgs, PeerAddArgs, PeerCommand, PeerSecretArgs, PeerSetArgs,
    PeerTokenCommand, PolicyArgs, TokenArgs,
};
pub use secrets::{SecretsCommand, TokenCommand, TokenOf};

use crate::{
    Failure,
    helper_client::{AuthHeader, PATIENCE},
    output::Format,
};

/// Manages tasks, HPKE keys and peers of a DAP helper, makes reports, and plays leader and collector against it.
///
/// Exit codes: 0 all is well; 1 refused, or an answer is wrong; 2 the command line or a file is unusable; 3 no
/// answer was had.
#[derive(Debug, Parser)]
#[command(
    name = "dapctl",
    version,
    arg_required_else_help = true,
    after_help = "Example:\n  \
        dapctl --url http://127.0.0.1:8787 --admin-token-file token task add --vdaf count --save t.json\n  \
        dapctl drive --task t.json --generate 1000"
)]
pub struct Cli {
    /// How results are printed
    #[arg(long, global = true, value_enum, default_value_t)]
    pub output: Format,
    /// The deployment's URL, such as http://127.0.0.1:8787
    #[arg(long, global = true, env = "DAPCTL_URL", value_name = "URL")]
    pub url: Option<String>,
    /// The admin API's token. What was said with an option wins over the environment
    #[arg(
        long,
        global = true,
        env = "DAPCTL_ADMIN_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN",
        allow_hyphen_values = true
    )]
    pub admin_token: Option<String>,
    /// A file that holds the admin API's token, which wins over --admin-token
    #[arg(long, global = true, value_name = "FILE")]
    pub admin_token_file: Option<PathBuf>,
    /// A file of `dapctl init`, whose first tokens are used where none are given
    #[arg(long, global = true, env = "DAPCTL_SECRETS_FILE", value_name = "FILE")]
    pub secrets_file: Option<PathBuf>,
    /// Which of these were said, and not found in the environment
    #[arg(skip)]
    pub said: Said,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// Which of the options that the environment may hold stand on the command line.
///
/// What a shell exports for one deployment must not be sent to another.
#[derive(Clone, Debug, Default)]
pub struct Said {
    /// `--url`
    pub url: bool,
    /// `--admin-token`
    pub admin_token: bool,
    /// `--secrets-file`
    pub secrets_file: bool,
    /// `--api-token` of `pair`
    pub api_token: bool,
    /// `DAPCTL_URL`, also where `--url` was said
    pub url_of_environment: Option<String>,
}

impl Said {
    fn read(matches: &ArgMatches) -> Self {
        let by_option =
            |matches: &ArgMatches, id| matches.value_source(id) == Some(ValueSource::CommandLine);
        let said = |id| by_option(matches, id);
        Self {
            url: said("url"),
            admin_token: said("admin_token"),
            secrets_file: said("secrets_file"),
            api_token: matches
                .subcommand_matches("pair")
                .is_some_and(|pair| by_option(pair, "api_token")),
            url_of_environment: std::env::var("DAPCTL_URL").ok(),
        }
    }
}

impl Cli {
    /// `--url`, unless it is the environment's.
    pub fn said_url(&self) -> Option<&str> {
        self.url.as_deref().filter(|_| self.said.url)
    }

    /// `--admin-token`, unless it is the environment's.
    pub fn said_admin_token(&self) -> Option<&str> {
        self.admin_token.as_deref().filter(|_| self.said.admin_token)
    }

    /// `--secrets-file`, unless it is the environment's.
    pub fn said_secrets_file(&self) -> Option<&Path> {
        self.secrets_file.as_deref().filter(|_| self.said.secrets_file)
    }
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Makes a deployment's secrets, in a file that only its owner can read
    ///
    /// The first HPKE key is made in the deployment, by `dapctl deploy`, or by this command if --url says where a deployment
    /// with these secrets answers. DAPCTL_URL and DAPCTL_SECRETS_FILE are not looked at.
    #[command(after_help = "Example:\n  dapctl init --env production\n  dapctl init --env dev\n  \
        dapctl --url https://dap.example.org init --env production")]
    Init(InitArgs),
    /// Builds and deploys the Worker with wrangler, waits until it is healthy, and sees to the first HPKE key
    ///
    /// Needs `wrangler login`, or CLOUDFLARE_API_TOKEN. What the build and wrangler print is on standard error. The secrets are
    /// those of secrets.ENVIRONMENT.json or --secrets-file, and the URL is the one that wrangler prints or --url: what
    /// DAPCTL_SECRETS_FILE, DAPCTL_ADMIN_TOKEN and DAPCTL_URL say may be about another deployment, and is not looked at.
    #[command(
        after_help = "Example:\n  dapctl deploy --env production\n  dapctl deploy --env staging --dry-run"
    )]
    Deploy(DeployArgs),
    /// Examines a deployment from outside, with an admin token also by a task of its own, which it deletes, and with
    /// --secrets-file its aggregator API
    ///
    /// Tokens are sent neither in clear to another machine, nor to what is not this Worker; those of the environment only to
    /// the deployment of DAPCTL_URL, if that is set.
    ///
    /// Exit codes: 0 nothing failed, warnings included; 1 a check failed; 2 the URL is unusable; 3 nobody answers there.
    #[command(after_help = "Example:\n  dapctl doctor https://dap.example.org\n  \
        dapctl --output json --secrets-file secrets.production.json doctor https://dap.example.org")]
    Doctor(DoctorArgs),
    /// Creates, imports, lists, shows, exports, ends and deletes tasks
    #[command(subcommand)]
    Task(TaskCommand),
    /// Shows what became of a task's reports and requests, why some were refused, and what is in its batches
    #[command(
        after_help = "Example:\n  dapctl status AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n  \
        dapctl --output json status AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
    )]
    Status(TaskIdArg),
    /// Makes, imports, lists, rotates and retires the helper's HPKE keys
    #[command(subcommand)]
    Hpke(HpkeCommand),
    /// Adds, lists, changes and removes leaders that bring their tasks along (taskprov)
    #[command(subcommand)]
    Peer(PeerCommand),
    /// Checks that a control plane can reach the deployment, and prints the command that adds it to Divvi Up
    #[command(
        after_help = "Example:\n  dapctl --secrets-file secrets.production.json pair https://helper.example\n  \
        dapctl --output json pair --api-token-file token --name \"Our helper\""
    )]
    Pair(PairArgs),
    /// Tells which root keys are needed, seals everything with the newest, and reads tokens from the file of secrets
    #[command(subcommand)]
    Secrets(SecretsCommand),
    /// Makes reports, and prints what other clients need to make some
    #[command(subcommand)]
    Report(ReportCommand),
    /// Plays leader and collector against a helper, and checks every answer
    #[command(after_help = "Example:\n  dapctl drive --task t.json --generate 1000 --replay\n  \
        dapctl --output json drive --task t.json --reports a.jsonl --reports b.jsonl --per-bucket\n  \
        dapctl drive --task strings.json --reports s.jsonl --threshold 50\n  \
        dapctl drive --task strings18.json --reports s.jsonl --prefixes 00,01,10,11")]
    Drive(DriveArgs),
}

/// Commands about tasks.
#[derive(Debug, Subcommand)]
pub enum TaskCommand {
    /// Creates a task; secrets that are not given are made
    #[command(
        after_help = "Example:\n  dapctl task add --vdaf sumvec --bits 1 --length 1000 --save t.json\n  \
        dapctl task add --file spec.json --save t.json\n  \
        dapctl task add --version dap-18 --leader-url https://leader.example/v18/ --vdaf count --save t.json\n  \
        dapctl task add --version dap-18 --task-configuration \"$CONFIGURATION\" --verify-key \"$KEY\" --leader-token \"$TOKEN\" \\\n    \
        --collector-config \"$CONFIG\" --task-id \"$ID\""
    )]
    Add(Box<TaskAddArgs>),
    /// Lists all tasks
    #[command(after_help = "Example:\n  dapctl --output json task list")]
    List,
    /// Shows one task, and how it is doing
    #[command(
        after_help = "Example:\n  dapctl task show AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
    )]
    Show(TaskIdArg),
    /// Changes when a task ends: reports made later are refused, what was aggregated before can be collected
    ///
    /// Two `report_expiry_age`s and two days after its end, or after now if that is later, the task is deleted with all its
    /// data. Until then the end can be moved or taken away.
    #[command(
        after_help = "Example:\n  dapctl task expire AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA --now\n  \
        dapctl task expire AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA --at 1893456000\n  \
        dapctl task expire AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA --never"
    )]
    Expire(TaskExpireArgs),
    /// Deletes a task for good; its id can never be used again
    #[command(
        after_help = "Example:\n  dapctl task rm AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
    )]
    Rm(TaskRmArgs),
    /// Creates the tasks of a file, all or, if one is unusable, none
    ///
    /// The file is YAML as Janus' `provision-tasks` reads it, with tasks of a helper; or JSON or YAML with one task, or a list
    /// of tasks, as `task add --file` takes them. Tasks that exist with the same parameters are left as they are, so
    /// that an import can be repeated.
    #[command(
        after_help = "Example:\n  dapctl task import tasks.yaml\n  dapctl task import tasks.yaml --check"
    )]
    Import(ImportArgs),
    /// Prints the parameters of all tasks, or of some, as JSON; secrets are never given out
    #[command(after_help = "Example:\n  dapctl task export > tasks.json\n  \
        dapctl task export AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")]
    Export(ExportArgs),
    /// Adds, removes and lists the tokens that a task's leader may present
    #[command(subcommand)]
    Token(TokenCommand),
}

/// Which task ends, and when.
#[derive(Debug, Args)]
#[group(id = "end", required = true, multiple = false, args = ["at", "now", "never"])]
pub struct TaskExpireArgs {
    /// The task.
    #[command(flatten)]
    pub task: TaskIdArg,
    /// Then, in seconds since the Unix epoch
    #[arg(long, value_name = "EPOCH")]
    pub at: Option<u64>,
    /// Now, by this machine's clock
    #[arg(long)]
    pub now: bool,
    /// Not at all
    #[arg(long)]
    pub never: bool,
}

/// Which task goes, and when its data does.
#[derive(Debug, Args)]
pub struct TaskRmArgs {
    /// The task.
    #[command(flatten)]
    pub task: TaskIdArg,
    /// Remove all that the task stored this many seconds later; 0 is at once. By default it is kept until its reports
    /// are too old. Requests that are under way may bring an object back within the hour; it is removed two hours
    /// after the deletion
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(..=PURGE_AFTER_MAX_S))]
    pub purge_after: Option<u64>,
}

/// A task's id.
#[derive(Debug, Args)]
pub struct TaskIdArg {
    /// The task's id, 43 characters of base64url
    // An id may begin with a hyphen.
    #[arg(allow_hyphen_values = true)]
    pub task_id: TaskId,
}

/// VDAFs by their names on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum VdafName {
    /// How many measurements are true
    Count,
    /// The sum of integers of --bits bits
    Sum,
    /// The sum of vectors of --length integers of --bits bits
    Sumvec,
    /// How many measurements fall into each of --length buckets
    Histogram,
    /// How many vectors of --length elements have each set, at most --max-weight of them each
    MultihotCountvec,
    /// As sumvec, in a smaller field with --proofs proofs
    SumvecField64Multiproof,
    /// How many strings of --bits bits begin with each prefix that is asked about
    Poplar1,
}

/// Batch modes by their names on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BatchModeName {
    /// By the reports' own time
    TimeInterval,
    /// By the leader's choice
    LeaderSelected,
}

/// The parameters of a new task.
#[derive(Debug, Args)]
pub struct TaskAddArgs {
    /// Read the task from this JSON file and not from options
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Create nothing, but write the file of a task that the leader of this peer file may bring along; the rest of the
    /// parameters follows from the peer
    #[arg(
        long,
        value_name = "FILE",
        requires = "save",
        conflicts_with_all = [
            "file", "helper_url", "report_expiry_age", "tolerable_clock_skew", "shards", "buckets_per_group",
            "task_id", "verify_key", "leader_token", "leader_token_hash", "collector_config",
        ]
    )]
    pub taskprov: Option<PathBuf>,
    /// What all parties have word for word
    #[command(flatten)]
    pub agreement: AgreementArgs,
    /// The task's parameters as options
    #[command(flatten)]
    pub spec: SpecArgs,
    /// Write all that leader and collector need, secrets included, to this new file, of mode 0600
    #[arg(long, value_name = "FILE")]
    pub save: Option<PathBuf>,
    /// Let --save overwrite a file
    #[arg(long, requires = "save")]
    pub force: bool,
    /// The helper's DAP URL, in the saved file and, byte for byte, in a dap-18 task's configuration [default: the deployment's
    /// URL and v09/ or v18/]
    #[arg(long, value_name = "URL")]
    pub helper_url: Option<String>,
}

/// A task's parameters as options.
#[derive(Debug, Args)]
#[group(id = "spec", multiple = true, conflicts_with = "file")]
pub struct SpecArgs {
    /// The version of DAP that the task speaks: dap-09 or dap-18 [default: dap-09]
    #[arg(long, value_name = "VERSION", value_parser = agreement::version)]
    pub version: Option<DapVersion>,
    /// The VDAF
    #[arg(long, value_enum, required_unless_present_any = ["file", "task_configuration"])]
    pub vdaf: Option<VdafName>,
    /// Bits of an integer, 1 to 64, or of a string, 1 to 4096
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(POPLAR1_BITS_MAX)))]
    pub bits: Option<u32>,
    /// Elements of a vector, or buckets of a histogram
    #[arg(long, value_name = "N")]
    pub length: Option<u32>,
    /// Most elements of a vector that may be set
    #[arg(long, value_name = "N")]
    pub max_weight: Option<u32>,
    /// Chunk length [default: the one with the shortest proof]
    #[arg(long, value_name = "N")]
    pub chunk_length: Option<u32>,
    /// Proofs per report, 2 or 3 [default: 2]
    #[arg(long, value_name = "N")]
    pub proofs: Option<u8>,
    /// How reports are gathered into batches [default: time-interval]
    #[arg(long, value_enum)]
    pub batch_mode: Option<BatchModeName>,
    /// Length of a batch bucket in seconds [default: 3600]
    #[arg(long, value_name = "SECONDS")]
    pub time_precision: Option<u64>,
    /// Fewest reports in a batch [default: 10, or with --taskprov the fewest that the peer file's policy allows]
    #[arg(long, value_name = "N")]
    pub min_batch_size: Option<u64>,
    /// dap-09: most reports in a batch of a leader-selected task
    #[arg(long, value_name = "N")]
    pub max_batch_size: Option<u64>,
    /// dap-09: how often a batch may be queried, each time for other prefixes [default: 1; for poplar1, its bits]
    #[arg(long, value_name = "N")]
    pub max_batch_query_count: Option<u64>,
    /// dap-09: end of the task, in seconds since the Unix epoch
    #[arg(long, value_name = "SECONDS")]
    pub task_expiration: Option<u64>,
    /// Older reports are refused, in seconds
    #[arg(long, value_name = "SECONDS")]
    pub report_expiry_age: Option<u64>,
    /// Reports may be this far in the future, in seconds
    #[arg(long, value_name = "SECONDS")]
    pub tolerable_clock_skew: Option<u64>,
    /// Objects that share each group of batch buckets, 1 to 64
    #[arg(long, value_name = "N")]
    pub shards: Option<u16>,
    /// Batch buckets in one group of objects; 0 for all
    #[arg(long, value_name = "N")]
    pub buckets_per_group: Option<u32>,
    /// The task's id [default: SHA-256 of the verify key]
    #[arg(long, value_name = "ID", allow_hyphen_values = true)]
    pub task_id: Option<TaskId>,
    /// The VDAF's verify key, base64url [default: a new one]
    #[arg(
        long,
        env = "DAPCTL_VERIFY_KEY",
        hide_env_values = true,
        value_name = "KEY",
        allow_hyphen_values = true
    )]
    pub verify_key: Option<String>,
    /// The token that the leader authenticates with [default: a new one]
    #[arg(
        long,
        env = "DAPCTL_LEADER_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN",
        allow_hyphen_values = true
    )]
    pub leader_token: Option<String>,
    /// SHA-256 of that token, base64url, and not the token
    #[arg(long, value_name = "HASH", conflicts_with = "leader_token", allow_hyphen_values = true)]
    pub leader_token_hash: Option<String>,
    /// The collector's HPKE configuration: base64url of its encoding [default: a new key pair]
    #[arg(long, value_name = "CONFIG", allow_hyphen_values = true)]
    pub collector_config: Option<String>,
}

/// Commands about reports.
#[derive(Debug, Subcommand)]
pub enum ReportCommand {
    /// Makes reports and writes them as JSON Lines
    #[command(
        after_help = "Example:\n  dapctl report make --task t.json --count 1000 --random --seed 1 --out r.jsonl\n  \
        dapctl report make --task t.json --count 3 --measurement 1 --measurement 0 --out -"
    )]
    Make(ReportMakeArgs),
    /// Prints the leader's HPKE configuration list as base64url, for other clients
    #[command(after_help = "Example:\n  dapctl report leader-config --task t.json --helper")]
    LeaderConfig {
        /// The task file
        #[arg(long, value_name = "FILE")]
        task: PathBuf,
        /// Print the helper's list, fetched from it, and not the leader's
        #[arg(long)]
        helper: bool,
        /// Repeats of a request after 429, 5xx or no answer
        #[arg(long, value_name = "N", default_value_t = 8)]
        retries: usize,
    },
}

/// Which reports to make.
#[derive(Debug, Args)]
pub struct ReportMakeArgs {
    /// The task file
    #[arg(long, value_name = "FILE")]
    pub task: PathBuf,
    /// How many
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub count: u64,
    /// A measurement as JSON, such as true, 7 or an array; several are used in turn
    #[arg(
        long,
        value_name = "JSON",
        conflicts_with = "random",
        required_unless_present = "random"
    )]
    pub measurement: Vec<String>,
    /// Random measurements
    #[arg(long)]
    pub random: bool,
    /// Seed of the random measurements
    #[arg(long, value_name = "N", default_value_t = 0, requires = "random")]
    pub seed: u64,
    /// When they were made, in seconds since the Unix epoch [default: now]
    #[arg(long, value_name = "SECONDS")]
    pub time: Option<u64>,
    /// Spread their times evenly over this many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    pub time_span: u64,
    /// Where to write them; - for standard output
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// Repeats of a request after 429, 5xx or no answer
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub retries: usize,
}

/// How to drive.
#[derive(Debug, Args)]
pub struct DriveArgs {
    /// The task file
    #[arg(long, value_name = "FILE")]
    pub task: PathBuf,
    /// Reports as JSON Lines; may be given several times
    #[arg(long, value_name = "FILE", num_args = 1.., required_unless_present = "generate")]
    pub reports: Vec<PathBuf>,
    /// Make that many reports with random measurements, besides those of --reports
    #[arg(long, value_name = "N")]
    pub generate: Option<u64>,
    /// Seed of the random measurements
    #[arg(long, value_name = "N", default_value_t = 0, requires = "generate")]
    pub seed: u64,
    /// Spread the times of generated reports evenly over this many seconds up to now
    #[arg(long, value_name = "SECONDS", default_value_t = 0, requires = "generate")]
    pub time_span: u64,
    /// Most reports in an aggregation job
    #[arg(long, value_name = "N", default_value_t = 500)]
    pub job_size: usize,
    /// Jobs under way at the same time
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub concurrency: usize,
    /// Leader-selected tasks: reports in a batch [default: all]
    #[arg(long, value_name = "N")]
    pub batch_size: Option<usize>,
    /// Collect when all jobs are done, which is the default
    #[arg(long, overrides_with = "no_collect")]
    pub collect: bool,
    /// Do not collect
    #[arg(long)]
    pub no_collect: bool,
    /// Time-interval tasks: collect each batch bucket alone
    #[arg(long)]
    pub per_bucket: bool,
    /// Poplar1 tasks: find the strings that so many reports hold
    #[arg(long, value_name = "N")]
    pub threshold: Option<NonZeroU64>,
    /// Poplar1 tasks: bits by which prefixes grow from one question to the next, 1 to 8
    #[arg(long, value_name = "N", default_value_t = 1, requires = "threshold")]
    pub stride: u16,
    /// Poplar1 tasks: count the strings that begin with each of these, such as 00,01,11, and search for nothing; all of one
    /// length
    #[arg(long, value_name = "BITS", value_delimiter = ',', num_args = 1.., conflicts_with = "threshold")]
    pub prefixes: Vec<BitString>,
    /// Send each job again, under its own id and another, and each collection
    #[arg(long)]
    pub replay: bool,
    /// Delete each job when it is done, and each aggregate share that the helper keeps
    #[arg(long)]
    pub delete_jobs: bool,
    /// Refused reports are no failure
    #[arg(long)]
    pub allow_refused: bool,
    /// Where the leader's token goes
    #[arg(long, value_enum, default_value_t)]
    pub auth_header: AuthHeader,
    /// Repeats of a request after 429, 5xx or no answer
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub retries: usize,
    /// How long an answer that the helper defers is waited for
    #[arg(long, value_name = "SECONDS", default_value_t = PATIENCE.as_secs())]
    pub patience: u64,
}

/// Reads this process's command line; prints help and version, which end the process.
///
/// # Errors
/// [`Failure::Usage`], one sentence.
pub fn parse() -> Result<Cli, Failure> {
    parse_from(std::env::args_os())
}

fn parse_from(args: impl IntoIterator<Item = OsString>) -> Result<Cli, Failure> {
    let parsed = Cli::command().try_get_matches_from(args).and_then(|matches| {
        let said = Said::read(&matches);
        Ok(Cli { said, ..Cli::from_arg_matches(&matches)? })
    });
    parsed.map_err(|e| {
        if !e.use_stderr()
            || e.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
        {
            e.exit();
        }
        let text = e.to_string();
        // What follows is the usage, which --help tells better.
        let text = text.split("\n\nUsage:").next().unwrap_or_default();
        let text = text.split("\n\nFor more information").next().unwrap_or_default();
        let text = text.strip_prefix("error: ").unwrap_or(text);
        Failure::Usage(format!("{}; --help tells more", text.trim_end()))
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn parse(line: &str) -> Result<Cli, Failure> {
        parse_from(line.split(' ').map(Into::into))
    }

    #[test]
    fn every_command_has_help_with_an_example() {
        fn check(command: &clap::Command) {
            assert!(command.get_about().is_some(), "{}", command.get_name());
            if command.has_subcommands() {
                command.get_subcommands().filter(|c| c.get_name() != "help").for_each(check);
            } else {
                let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(help.starts_with("Example:\n  dapctl "), "{}", command.get_name());
            }
            for arg in command.get_arguments() {
                assert!(arg.get_help().is_some(), "{} {}", command.get_name(), arg.get_id());
            }
        }
        Cli::command().debug_assert();
        check(&Cli::command());
    }

    #[test]
    fn ids_may_begin_with_a_hyphen() {
        let id = format!("-{}", "A".repeat(42));
        for line in [
            format!("dapctl task show {id}"),
            format!("dapctl task add --vdaf count --task-id {id}"),
        ] {
            assert!(parse(&line).is_ok(), "{line}");
        }
        let failure = parse("dapctl task rm short").unwrap_err().to_string();
        assert!(failure.contains("expected 43 characters of base64url"), "{failure}");
    }

    #[test]
    fn the_last_of_collect_and_no_collect_counts() {
        let collects =
            |options: &str| match parse(&format!("dapctl drive --task t --generate 1{options}")) {
                Ok(Cli { command: Command::Drive(args), .. }) => !args.no_collect,
                other => panic!("{other:?}"),
            };
        assert!(collects("") && collects(" --collect") && collects(" --no-collect --collect"));
        assert!(!collects(" --no-collect"));
    }
}
