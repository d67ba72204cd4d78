//! `dapctl pair`.

use std::path::Path;

use daphne_core::{
    codec::Reader,
    hpke::{HpkeConfig, HpkeConfigList},
    version::{DapVersion, Message},
};
use serde_json::json;
use ureq::http::Method;
use url::{Host, Url};

use crate::{
    Failure,
    aggregator_api::{AggregatorApi, Asked},
    cli::{Cli, PairArgs},
    http::{Credential, Http, Request},
    output::{self, clean},
    secrets_file::DeploymentSecrets,
};

pub(super) fn run(cli: &Cli, args: &PairArgs) -> Result<(), Failure> {
    let deployment = match &args.deployment {
        Some(url) => super::deployment_url(url)?,
        None => super::url(cli)?,
    };
    if !Http::new(deployment, Credential::None)?.is_private() {
        return Err(Failure::Usage(
            "the URL must be https: others would read the token on its way".into(),
        ));
    }
    let (token, placeholder) = token(cli, args, deployment)?;
    let api = AggregatorApi::new(deployment, &token)?;
    let api_url = api.url();
    let wrong = |why: &str| Err(Failure::Wrong(format!("{api_url}: {why}")));
    let config = match api.ask()? {
        Asked::Config(config) => config,
        Asked::WrongToken => {
            return wrong("the token is not one of the deployment's AGGREGATOR_API_TOKENS");
        }
        Asked::Nothing => {
            return wrong("there is no aggregator API; set the secret AGGREGATOR_API_TOKENS");
        }
    };
    let keys = hpke_keys(&config.dap_url)?;
    let warnings = warnings(api_url, &config.dap_url);

    let token = if args.show_token { quoted(&token) } else { placeholder };
    let (name, api) = (quoted(&args.name), quoted(api_url.as_str()));
    let command = format!("divviup aggregator create -n {name} -a {api} -b {token}");
    let dap_url = clean(&config.dap_url);
    let list = |names: &[String]| clean(&names.join(", "));
    let mut text = format!(
        "{api_url} answers: {} {}, {}, {}\n  DAP URL      {dap_url}\n  VDAFs        {}\n  query types  {}\n  \
         features     {}\n  HPKE keys    {}\n",
        clean(&config.software_name),
        clean(&config.software_version),
        clean(&config.protocol),
        clean(&config.role),
        list(&config.vdafs),
        list(&config.query_types),
        list(&config.features),
        list(&keys.iter().map(|key| format!("{} ({:?})", key.id, key.kem)).collect::<Vec<_>>()),
    );
    for warning in &warnings {
        text += &format!("warning: {warning}\n");
    }
    text += &format!(
        "Add it to Divvi Up:\n  {command}\nA Janus leader by hand is given, for each task, the Helper's endpoint {dap_url} and \
         the parameters that `dapctl task add --save FILE` keeps; docs/pairing.md says where they go."
    );
    let json = json!({
        "api_url": api_url.as_str(),
        "dap_url": config.dap_url,
        "protocol": config.protocol,
        "role": config.role,
        "vdafs": config.vdafs,
        "query_types": config.query_types,
        "features": config.features,
        "software_name": config.software_name,
        "software_version": config.software_version,
        "hpke_configs": keys,
        "warnings": warnings,
        "command": command,
    });
    output::print(cli.output, &text, &json)
}

/// The token, and what stands for it in a command that is to be run in a shell.
fn token(cli: &Cli, args: &PairArgs, deployment: &str) -> Result<(String, String), Failure> {
    let shown = |path: &Path| quoted(&path.display().to_string());
    let said_file = cli.said_secrets_file();
    if args.api_token_file.is_none()
        && !cli.said.api_token
        && said_file.is_none()
        && (args.api_token.is_some() || cli.secrets_file.is_some())
        && let Some(why) = super::of_another(cli, deployment)
    {
        return Err(Failure::Usage(why));
    }
    let api_token = args.api_token.as_ref().filter(|_| cli.said.api_token || said_file.is_none());
    match (&args.api_token_file, api_token, &cli.secrets_file) {
        (Some(path), _, _) => Ok((super::read_token(path)?, format!("\"$(cat {})\"", shown(path)))),
        (None, Some(token), _) => Ok((token.clone(), "\"$DAPCTL_API_TOKEN\"".to_owned())),
        (None, None, Some(path)) => {
            let token = DeploymentSecrets::read(path)?.needed_api_token(path)?.to_owned();
            // Of all programs the one that is surely there.
            let program = std::env::args_os().next().unwrap_or_else(|| "dapctl".into());
            let program = quoted(&program.to_string_lossy());
            let command = format!("{program} --secrets-file {} secrets token api", shown(path));
            Ok((token, format!("\"$({command})\"")))
        }
        (None, None, None) => Err(Failure::Usage(
            "a token of the aggregator API is needed: --secrets-file, --api-token-file, --api-token or DAPCTL_API_TOKEN"
                .into(),
        )),
    }
}

/// Text as one word of a shell's command.
fn quoted(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~/:@%+=,".contains(&b);
    if !text.is_empty() && text.bytes().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", clean(text).replace('\'', r"'\''"))
    }
}

/// The keys that clients would find.
fn hpke_keys(dap_url: &str) -> Result<Vec<HpkeConfig>, Failure> {
    let during = |failure: Failure| failure.during(&format!("{}hpke_config", clean(dap_url)));
    let http = Http::new(dap_url, Credential::None).map_err(during)?;
    let request = Request { method: Method::GET, path: "hpke_config", content: None };
    let answer = http.send(&request).map_err(|e| during(e.into()))?;
    let media_type = DapVersion::V09.media_type(Message::HpkeConfigList);
    let answer = answer.expect(&[200], media_type).map_err(|e| during(e.into()))?;
    Reader::all(&answer.body, HpkeConfigList::read)
        .map(|list| list.0)
        .map_err(|_| during(Failure::Wrong("this is no list of HPKE configurations".into())))
}

/// Why Divvi Up would not take these URLs.
fn warnings(api_url: &Url, dap_url: &str) -> Vec<String> {
    let mut warnings = Vec::new();
    for (what, url) in [("API", Some(api_url.clone())), ("DAP", Url::parse(dap_url).ok())] {
        let Some(url) = url else { continue };
        if url.scheme() != "https" {
            warnings.push(format!("the {what} URL is not https, which Divvi Up demands"));
        }
        let is_private = match url.host() {
            Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
            Some(Host::Ipv4(ip)) => ip.is_loopback() || ip.is_private() || ip.is_link_local(),
            Some(Host::Ipv6(ip)) => ip.is_loopback() || ip.is_unique_local(),
            None => true,
        };
        if is_private {
            warnings.push(format!("the {what} URL leads nowhere from outside of this network"));
        }
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_of_a_command_stays_one() {
        assert_eq!(quoted("daphne-edge"), "daphne-edge");
        assert_eq!(quoted("Our helper"), "'Our helper'");
        assert_eq!(quoted("it's $HOME `x`"), r"'it'\''s $HOME `x`'");
        assert_eq!(quoted(""), "''");
    }

    #[test]
    fn urls_that_others_cannot_use_are_told() {
        let of = |url: &str| warnings(&Url::parse(url).unwrap(), url).len();
        assert_eq!(of("https://helper.example/"), 0);
        assert_eq!(of("http://helper.example/"), 2);
        assert_eq!(of("http://127.0.0.1:8787/"), 4);
        assert_eq!(of("https://10.0.0.1/"), 2);
    }
}
