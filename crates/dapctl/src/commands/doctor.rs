//! `dapctl doctor`.

use serde_json::json;

use crate::{
    Failure,
    admin::AdminClient,
    cli::{Cli, DoctorArgs},
    doctor::{self, Access, Options, Verdict},
    output,
};

pub(super) fn run(cli: &Cli, args: &DoctorArgs) -> Result<(), Failure> {
    let url = match &args.deployment {
        Some(url) => super::deployment_url(url)?,
        None => super::url(cli)?,
    };
    let exported = (cli.admin_token.is_some() && !cli.said.admin_token)
        || (cli.secrets_file.is_some() && !cli.said.secrets_file);
    let withheld = super::of_another(cli, url).filter(|_| exported);
    let (token, api_token) = match &withheld {
        None => (super::admin_token(cli)?, super::api_token(cli)?),
        Some(_) => {
            let api_token = cli.said_secrets_file().map(|_| super::api_token(cli)).transpose()?;
            (super::said_admin_token(cli)?, api_token.flatten())
        }
    };
    let admin = token.map(|token| AdminClient::new(url, &token)).transpose()?;
    let access = Access {
        admin: admin.as_ref(),
        api_token: api_token.as_deref(),
        withheld: withheld.as_deref(),
    };
    let options = Options { canary: !args.no_canary, clock_skew_max: args.clock_skew_max };
    let diagnosis = doctor::examine(url, access, options)?;
    let lines: Vec<String> = diagnosis
        .checks
        .iter()
        .map(|check| format!("{:8} {:20} {}", check.verdict.label(), check.name, check.detail))
        .collect();
    output::print(cli.output, &lines.join("\n"), &json!(diagnosis))?;
    let failed = diagnosis.checks.iter().filter(|check| check.verdict == Verdict::Failed);
    let names: Vec<&str> = failed.map(|check| check.name).collect();
    if diagnosis.ok { Ok(()) } else { Err(Failure::Wrong(format!("failed: {}", names.join(", ")))) }
}
