//! `dapctl report`.

use std::{
    io::{BufWriter, Write},
    path::Path,
};

use daphne_core::{
    b64,
    codec::Writer,
    hpke::HpkeConfigList,
    time::Time,
    vdaf::{BitString, Measurement, VdafConfig},
};
use serde_json::json;

use crate::{
    Failure,
    cli::{Cli, ReportCommand, ReportMakeArgs},
    drive,
    helper_client::AuthHeader,
    http::Retry,
    output::{self, Format, Progress, clean},
    reports::{self, Generator, Measurements},
    task_file::{TaskFile, temporary_beside},
};

pub(super) fn run(cli: &Cli, command: &ReportCommand) -> Result<(), Failure> {
    match command {
        ReportCommand::Make(args) => make(cli, args),
        ReportCommand::LeaderConfig { task, helper, retries } => {
            let file = TaskFile::read(task)?;
            let list = if *helper {
                helper_configs(&file, *retries)?
            } else {
                HpkeConfigList(vec![file.leader_hpke_keypair.config().clone()])
            };
            let mut w = Writer::new();
            list.write(&mut w);
            let encoded = w.finish().map_err(|_| {
                Failure::Wrong("the list of HPKE configurations is too long".into())
            })?;
            let text = b64::encode(&encoded);
            output::print(
                cli.output,
                &text,
                &json!({ "hpke_config_list": text, "configs": list.0 }),
            )
        }
    }
}

/// The helper's configurations, fetched without the leader's token, which clients do not have either.
pub(super) fn helper_configs(file: &TaskFile, retries: usize) -> Result<HpkeConfigList, Failure> {
    let mut client = file.clone();
    client.spec.leader_token = None;
    let helper = drive::helper_client(&client, AuthHeader::Bearer, Retry::times(retries))?;
    helper
        .hpke_configs()
        .map_err(|e| Failure::from(e).during("cannot fetch the helper's HPKE configurations"))
}

fn make(cli: &Cli, args: &ReportMakeArgs) -> Result<(), Failure> {
    let file = TaskFile::read(&args.task)?;
    let measurements = if args.random {
        Measurements::Random { seed: args.seed }
    } else {
        let vdaf = &file.spec.vdaf;
        let all = args.measurement.iter().map(|text| measurement(vdaf, text));
        Measurements::Cycle(all.collect::<Result<_, _>>()?)
    };
    let time = args.time.map_or_else(reports::now, Time::from_seconds);
    let configs = helper_configs(&file, args.retries)?;
    let generator = Generator::new(&file, &configs, measurements, time, args.time_span)?;

    let to_stdout = args.out == Path::new("-");
    if to_stdout {
        return write_all(generator, args.count, std::io::stdout().lock(), "standard output");
    }
    let shown = clean(&args.out.display().to_string());
    let mut temporary = temporary_beside(&args.out)?;
    write_all(generator, args.count, &mut temporary, &shown)?;
    temporary
        .persist(&args.out)
        .map_err(|e| Failure::Usage(format!("cannot write {shown}: {}", e.error)))?;
    match cli.output {
        Format::Text => Ok(()),
        Format::Json => output::print(
            cli.output,
            "",
            &json!({ "reports": args.count, "out": args.out.display().to_string() }),
        ),
    }
}

fn write_all(generator: Generator, count: u64, out: impl Write, name: &str) -> Result<(), Failure> {
    let failed = |e: std::io::Error| Failure::Usage(format!("cannot write {name}: {e}"));
    let progress = Progress::new("reports made", Some(count));
    let mut out = BufWriter::new(out);
    for report in generator.reports(count) {
        writeln!(out, "{}", report?.to_line()).map_err(failed)?;
        progress.add(1);
    }
    out.flush().map_err(failed)
}

fn measurement(vdaf: &VdafConfig, text: &str) -> Result<Measurement, Failure> {
    // A string of bits without its quotation marks is no JSON, or a number; nobody wants to write them in a shell.
    let value = match vdaf {
        VdafConfig::Poplar1 { .. } if text.parse::<BitString>().is_ok() => text.into(),
        _ => serde_json::from_str(text).map_err(|_| {
            Failure::Usage("--measurement is not JSON, such as true, 7 or [0,1]".into())
        })?,
    };
    Measurement::from_json(vdaf, &value).map_err(|e| Failure::Usage(format!("--measurement: {e}")))
}
