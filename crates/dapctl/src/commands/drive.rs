//! `dapctl drive`.

use daphne_core::time::Duration;
use serde_json::json;

use crate::{
    Failure,
    cli::{Cli, DriveArgs},
    drive::{self, Options, Search},
    http::Retry,
    output::{self, Progress},
    reports::{self, Generator, KnownReport, Measurements},
    task_file::TaskFile,
};

pub(super) fn run(cli: &Cli, args: &DriveArgs) -> Result<(), Failure> {
    let file = TaskFile::read(&args.task)?;
    let options = Options {
        job_size: args.job_size,
        concurrency: args.concurrency,
        batch_size: args.batch_size,
        collect: !args.no_collect,
        per_bucket: args.per_bucket,
        replay: args.replay,
        delete_jobs: args.delete_jobs,
        allow_refused: args.allow_refused,
        search: args.threshold.map(|threshold| Search { threshold, stride: args.stride }),
        prefixes: args.prefixes.clone(),
        auth_header: args.auth_header,
        retry: Retry::times(args.retries),
        patience: std::time::Duration::from_secs(args.patience),
    };
    let format = file.report_format();
    // A file with a mistake must not end half aggregated.
    let in_files = reports::count(format, &args.reports)?;
    let mut all: Box<dyn Iterator<Item = Result<KnownReport, Failure>>> =
        Box::new(reports::read_files(format, &args.reports));
    if let Some(count) = args.generate {
        let configs = super::report::helper_configs(&file, args.retries)?;
        let time = reports::now().saturating_sub(Duration::from_seconds(args.time_span));
        let measurements = Measurements::Random { seed: args.seed };
        let generator = Generator::new(&file, &configs, measurements, time, args.time_span)?;
        all = Box::new(all.chain(generator.reports(count)));
    }
    let progress = Progress::new(
        "reports aggregated",
        in_files.map(|n| n.saturating_add(args.generate.unwrap_or(0))),
    );
    let summary = drive::run(&file, all, &options, &progress)?;
    drop(progress);
    output::print(cli.output, &summary.to_string(), &json!(summary))?;
    summary.verdict()
}
