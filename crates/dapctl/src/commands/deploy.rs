//! `dapctl deploy`.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use ureq::http::Method;

use super::init::{FirstKey, first_key, secrets_path};
use crate::{
    Failure,
    admin::AdminClient,
    cli::{Cli, DeployArgs, EnvironmentName},
    doctor,
    http::{Credential, Http, Request},
    output::{self, clean},
    secrets_file::DeploymentSecrets,
    wrangler::{Checkout, Deployed},
};

/// What the Worker does not work without.
const REQUIRED: [&str; 2] = ["ROOT_KEYS", "ADMIN_TOKENS"];
/// How often a new deployment is asked.
const PACE: Duration = Duration::from_secs(2);

pub(super) fn run(cli: &Cli, args: &DeployArgs) -> Result<(), Failure> {
    if args.env == EnvironmentName::Dev {
        return Err(Failure::Usage("dev is this machine: `wrangler dev` runs it".into()));
    }
    let checkout = Checkout::around(Path::new("."))?;
    let environment = args.env.to_string();
    // Nothing of the environment: it may be about another deployment, and one's secrets would go to the other.
    let path =
        cli.said_secrets_file().map_or_else(|| secrets_path(&checkout, args.env), Path::to_owned);
    let said_url = cli.said_url().map(|url| public_url(url, args.allow_local_url)).transpose()?;
    let path = std::path::absolute(&path).unwrap_or(path);
    // Before the build, which takes longer than finding this out.
    let secrets = if path.exists() { Some(DeploymentSecrets::read(&path)?) } else { None };
    let sends_secrets = secrets.is_some()
        && (args.dry_run || args.replace_secrets || lacks_secrets(&checkout, &environment)?);
    if secrets.is_none() && !args.dry_run && lacks_secrets(&checkout, &environment)? {
        return Err(Failure::Usage(format!(
            "the Worker has no {} yet, and there is no {}; `dapctl init --env {environment}` makes it",
            REQUIRED.join(" and "),
            clean(&path.display().to_string())
        )));
    }
    checkout.build()?;
    let sent = sends_secrets.then_some(path.as_path());
    let named = checkout.deploy(&environment, sent, args.dry_run)?;
    if args.dry_run {
        let json = json!({ "deployed": false, "environment": environment });
        return output::print(cli.output, "nothing was deployed: a dry run", &json);
    }
    // A URL that was given is the one that matters: wrangler names every address.
    let Some(url) = said_url.map(str::to_owned).or(named) else {
        let json = json!({ "deployed": true, "environment": environment, "url": null });
        let text = "deployed; wrangler named no URL: say it with --url to have it looked at";
        return output::print(cli.output, text, &json);
    };
    wait_until_healthy(&url, Duration::from_secs(args.patience))
        .map_err(|e| e.during("deployed, but not healthy"))?;
    let token = match (&secrets, super::said_admin_token(cli)?) {
        (_, Some(token)) => Some(token),
        (Some(secrets), None) => Some(secrets.admin_token().to_owned()),
        (None, None) => None,
    };
    let key = match token {
        Some(token) => Some(first_key(&AdminClient::new(&url, &token)?)?),
        None => None,
    };
    let version = Request { method: Method::GET, path: "version", content: None };
    let version = Http::new(&url, Credential::None)?.send(&version).ok();
    let running = version.filter(|a| a.status == 200).and_then(|a| doctor::running(&a.body));
    let mut text = format!("deployed to {url}, which is healthy");
    if let Some(running) = &running {
        text += &format!("\nit runs {running}");
    }
    match &key {
        Some(key) => text += &format!("\n{}", key.text()),
        None => text += "\nno admin token was given, so HPKE keys were not looked at",
    }
    let shown = clean(&path.display().to_string());
    text += &format!("\nnext: dapctl --secrets-file {shown} doctor {url}");
    let json = json!({
        "deployed": true, "environment": environment, "url": url, "secrets_sent": sends_secrets,
        "running": running, "hpke_key": key.as_ref().map(FirstKey::json),
    });
    output::print(cli.output, &text, &json)
}

/// A URL at which what was just deployed can be met.
fn public_url(url: &str, local_allowed: bool) -> Result<&str, Failure> {
    let url = super::deployment_url(url)?;
    let http = Http::new(url, Credential::None)?;
    if http.is_local() && !local_allowed {
        return Err(Failure::Usage(
            "--url leads to this machine, where nothing is deployed; --allow-local-url is for tunnels".into(),
        ));
    }
    if !http.is_private() {
        return Err(Failure::Usage("--url must be https: the admin token is sent there".into()));
    }
    Ok(url)
}

fn lacks_secrets(checkout: &Checkout, environment: &str) -> Result<bool, Failure> {
    Ok(match checkout.secrets(environment)? {
        Deployed::Nothing => true,
        Deployed::With(names) => !REQUIRED.iter().all(|name| names.iter().any(|n| n == name)),
    })
}

/// A new address takes a while to be known, and its certificate to be made.
fn wait_until_healthy(url: &str, patience: Duration) -> Result<(), Failure> {
    let http = Http::new(url, Credential::None)?;
    let deadline = Instant::now() + patience;
    loop {
        let failure =
            match http.send(&Request { method: Method::GET, path: "healthz", content: None }) {
                Ok(answer) if answer.status == 200 => return Ok(()),
                Ok(answer) => {
                    let json: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
                    let detail = json["detail"].as_str().map(clean).unwrap_or_default();
                    Failure::Wrong(format!("{url} answers {} {detail}", answer.status))
                }
                Err(e) => e.into(),
            };
        if Instant::now() + PACE > deadline {
            return Err(failure);
        }
        std::thread::sleep(PACE);
    }
}
