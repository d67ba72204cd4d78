//! A deployment's secrets in a file of mode 0600, as `dapctl init` makes it and `wrangler deploy --secrets-file` reads it.

use std::{fmt, path::Path};

use daphne_core::{b64, seal::RootKeys};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::{
    Failure,
    output::clean,
    task_file::{random, read_text, save},
};

/// What the Worker refuses as a token of the admin API or the aggregator API is shorter.
const TOKEN_LEN_MIN: usize = 16;

/// The secrets of a deployment, by the names that the Worker knows them by.
///
/// JSON, and not lines of `NAME=value` for wrangler, which would replace what begins with `$` in them.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE", deny_unknown_fields)]
pub struct DeploymentSecrets {
    /// `1=<base64url of 32 bytes>`, and more after a comma.
    pub root_keys: String,
    /// Tokens of the admin API, separated by commas.
    pub admin_tokens: String,
    /// Tokens of the aggregator API, separated by commas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aggregator_api_tokens: Option<String>,
    /// Tokens that only read metrics, separated by commas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics_tokens: Option<String>,
    /// A PEM file's content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hpke_config_signing_key: Option<String>,
}

/// Prints the type's name only.
impl fmt::Debug for DeploymentSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DeploymentSecrets")
    }
}

impl DeploymentSecrets {
    /// Fresh ones.
    ///
    /// # Errors
    /// [`Failure::Wrong`] if the system has no randomness.
    pub fn generate() -> Result<Self, Failure> {
        let token = || random::<32>().map(|bytes| b64::encode(&bytes));
        Ok(Self {
            root_keys: format!("1={}", token()?),
            admin_tokens: token()?,
            aggregator_api_tokens: Some(token()?),
            metrics_tokens: Some(token()?),
            hpke_config_signing_key: None,
        })
    }

    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`Failure::Usage`] if it cannot be read, or holds what the Worker would not take. Never quotes its content.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let text = Zeroizing::new(read_text(path)?);
        Self::parse(&text)
            .map_err(|why| Failure::Usage(format!("{}: {why}", clean(&path.display().to_string()))))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let secrets: Self = if text.trim_start().starts_with('{') {
            // What the parser says may quote a secret.
            serde_json::from_str(text).map_err(|e| {
                format!(
                    "line {}, column {}: expected an object with ROOT_KEYS and ADMIN_TOKENS",
                    e.line(),
                    e.column()
                )
            })?
        } else {
            Self::from_lines(text)?
        };
        RootKeys::parse(&secrets.root_keys).map_err(|e| format!("ROOT_KEYS: {e}"))?;
        for (name, tokens) in [
            ("ADMIN_TOKENS", Some(&secrets.admin_tokens)),
            ("AGGREGATOR_API_TOKENS", secrets.aggregator_api_tokens.as_ref()),
            ("METRICS_TOKENS", secrets.metrics_tokens.as_ref()),
        ] {
            let mut tokens = tokens.into_iter().flat_map(|tokens| tokens.split(','));
            if tokens.any(|token| token.trim().len() < TOKEN_LEN_MIN) {
                return Err(format!(
                    "{name} must be tokens of at least {TOKEN_LEN_MIN} characters, separated by commas"
                ));
            }
        }
        Ok(secrets)
    }

    /// The lines of a `.dev.vars`, of which values in double quotes are understood.
    fn from_lines(text: &str) -> Result<Self, String> {
        let value = |name: &str| {
            text.lines().find_map(|line| {
                let value = line.trim().strip_prefix(name)?.trim_start().strip_prefix('=')?.trim();
                let unquoted = value.strip_prefix('"').and_then(|v| v.strip_suffix('"'));
                Some(unquoted.unwrap_or(value).to_owned())
            })
        };
        let needed = |name: &str| value(name).ok_or_else(|| format!("it has no {name}"));
        Ok(Self {
            root_keys: needed("ROOT_KEYS")?,
            admin_tokens: needed("ADMIN_TOKENS")?,
            aggregator_api_tokens: value("AGGREGATOR_API_TOKENS"),
            metrics_tokens: value("METRICS_TOKENS"),
            hpke_config_signing_key: value("HPKE_CONFIG_SIGNING_KEY"),
        })
    }

    /// The first of the admin API's tokens.
    pub fn admin_token(&self) -> &str {
        first(&self.admin_tokens)
    }

    /// The first of the aggregator API's tokens, if there are any.
    pub fn api_token(&self) -> Option<&str> {
        self.aggregator_api_tokens.as_deref().map(first)
    }

    /// As [`DeploymentSecrets::api_token`], of a file that must have one.
    ///
    /// # Errors
    /// [`Failure::Usage`].
    pub fn needed_api_token(&self, path: &Path) -> Result<&str, Failure> {
        self.api_token().ok_or_else(|| lacks(path, "AGGREGATOR_API_TOKENS"))
    }

    /// The first of the tokens that only read metrics, of a file that must have one.
    ///
    /// # Errors
    /// [`Failure::Usage`].
    pub fn needed_metrics_token(&self, path: &Path) -> Result<&str, Failure> {
        self.metrics_tokens.as_deref().map(first).ok_or_else(|| lacks(path, "METRICS_TOKENS"))
    }

    /// Writes a new file of mode 0600, as JSON, or as lines for `wrangler dev`.
    ///
    /// # Errors
    /// [`Failure::Usage`] if the file exists, which is never overwritten: what a lost root key sealed stays sealed.
    pub fn save(&self, path: &Path, as_lines: bool) -> Result<(), Failure> {
        if path.exists() {
            return Err(Failure::Usage(format!(
                "{} exists, and secrets are never overwritten: what they sealed could not be opened again",
                clean(&path.display().to_string())
            )));
        }
        let text = Zeroizing::new(if as_lines { self.to_lines() } else { self.to_json()? });
        let _ = save(path, &text, false)?;
        Ok(())
    }

    /// The JSON, with its secrets.
    ///
    /// # Errors
    /// [`Failure::Usage`] if they have no JSON, which all have.
    pub fn to_json(&self) -> Result<String, Failure> {
        serde_json::to_string_pretty(self)
            .map_err(|_| Failure::Usage("the secrets cannot be written as JSON".into()))
    }

    fn to_lines(&self) -> String {
        let mut text =
            format!("ROOT_KEYS=\"{}\"\nADMIN_TOKENS=\"{}\"", self.root_keys, self.admin_tokens);
        for (name, tokens) in [
            ("AGGREGATOR_API_TOKENS", &self.aggregator_api_tokens),
            ("METRICS_TOKENS", &self.metrics_tokens),
        ] {
            if let Some(tokens) = tokens {
                text += &format!("\n{name}=\"{tokens}\"");
            }
        }
        text
    }
}

fn lacks(path: &Path, name: &str) -> Failure {
    Failure::Usage(format!("{} holds no {name}", clean(&path.display().to_string())))
}

/// The first of several that are separated by commas.
fn first(tokens: &str) -> &str {
    tokens.split(',').next().unwrap_or_default().trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read_back_and_are_private() {
        let folder = tempfile::tempdir().unwrap();
        let secrets = DeploymentSecrets::generate().unwrap();
        for (name, as_lines) in [("secrets.json", false), (".dev.vars", true)] {
            let path = folder.path().join(name);
            secrets.save(&path, as_lines).unwrap();
            #[cfg(unix)]
            {
                use std::os::unix::fs::PermissionsExt as _;
                assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            }
            let read = DeploymentSecrets::read(&path).unwrap();
            assert_eq!(read.to_json().unwrap(), secrets.to_json().unwrap());
            assert_eq!(read.admin_token(), secrets.admin_tokens.as_str());
            assert_eq!(read.api_token(), secrets.aggregator_api_tokens.as_deref());
            assert!(matches!(secrets.save(&path, as_lines), Err(Failure::Usage(_))));
        }
        assert_eq!(format!("{secrets:?}"), "DeploymentSecrets");
    }

    #[test]
    fn what_the_worker_would_refuse_is_told_without_quoting_it() {
        for text in [
            r#"{"ROOT_KEYS":"1=hunter2","ADMIN_TOKENS":"hunter2hunter2hunter2"}"#,
            r#"{"ROOT_KEYS":["hunter2"],"ADMIN_TOKENS":"hunter2hunter2hunter2"}"#,
            r#"{"ROOT_KEYS":"1=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA","ADMIN_TOKENS":"hunter2"}"#,
            r#"{"ROOT_KEYS":"1=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA","ADMIN_TOKENS":"hunter2hunter2hunter2",
                "AGGREGATOR_API_TOKENS":"hunter2"}"#,
            r#"{"hunter2":"hunter2"}"#,
            "ROOT_KEYS=hunter2\n",
            "hunter2",
        ] {
            let why = DeploymentSecrets::parse(text).unwrap_err();
            assert!(!why.contains("hunter2"), "{why}");
        }
    }
}
