//! Runs the wrangler of a checkout.

use std::{
    ffi::OsString,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{Failure, output::clean};

/// Wrangler's own word for a Worker that was never deployed.
const NO_SUCH_WORKER: [&str; 2] = ["[code: 10007]", "does not exist"];

/// A checkout of this project, set up with `scripts/setup`.
#[derive(Debug)]
pub struct Checkout {
    root: PathBuf,
}

/// What a command of wrangler printed and how it ended.
struct Ended {
    success: bool,
    stdout: String,
    stderr: String,
}

/// Which of the secrets a deployed Worker has.
#[derive(Debug, PartialEq, Eq)]
pub enum Deployed {
    /// There is no such Worker yet.
    Nothing,
    /// It has secrets of these names.
    With(Vec<String>),
}

impl Checkout {
    /// The checkout that `from` is in.
    ///
    /// # Errors
    /// [`Failure::Usage`] if it is in none, or `scripts/setup` did not run.
    pub fn around(from: &Path) -> Result<Self, Failure> {
        let from = from.canonicalize().map_err(|e| {
            Failure::Usage(format!("cannot read {}: {e}", clean(&from.display().to_string())))
        })?;
        let root = from
            .ancestors()
            .find(|folder| folder.join("wrangler.toml").is_file())
            .ok_or_else(|| Failure::Usage("there is no wrangler.toml here or above".into()))?;
        let checkout = Self { root: root.to_owned() };
        if !checkout.program().exists() {
            return Err(Failure::Usage(
                "wrangler is not installed; run scripts/setup first".into(),
            ));
        }
        Ok(checkout)
    }

    /// Where wrangler.toml is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn program(&self) -> PathBuf {
        self.root.join("node_modules/.bin/wrangler")
    }

    fn command(&self, program: &Path) -> Command {
        let mut path = OsString::from(self.root.join("node_modules/node/bin"));
        if let Some(rest) = std::env::var_os("PATH") {
            path.push(":");
            path.push(rest);
        }
        let mut command = Command::new(program);
        command
            .current_dir(&self.root)
            .env("PATH", path)
            .env("WRANGLER_SEND_METRICS", "false")
            .env("NO_COLOR", "1")
            .env("FORCE_COLOR", "0")
            // A barely optimized build costs several times the CPU, and CPU is the bill.
            .env_remove("DAPHNE_QUICK");
        command
    }

    /// Builds the Worker, unless it is built.
    ///
    /// # Errors
    /// [`Failure::Wrong`] if it does not build; what failed is on standard error.
    pub fn build(&self) -> Result<(), Failure> {
        let mut command = self.command(&self.root.join("scripts/build"));
        let ended = run(command.stdin(Stdio::null()), true)?;
        if ended.success {
            Ok(())
        } else {
            Err(Failure::Wrong(
                "the Worker does not build; what scripts/build printed says why".into(),
            ))
        }
    }

    /// Names of the secrets that the Worker of this environment has.
    ///
    /// # Errors
    /// [`Failure::Wrong`] if wrangler cannot tell, as when nobody is logged in.
    pub fn secrets(&self, environment: &str) -> Result<Deployed, Failure> {
        #[derive(serde::Deserialize)]
        struct Secret {
            name: String,
        }
        let mut command = self.command(&self.program());
        let args = ["secret", "list", "--format", "json", "--env", environment];
        let ended = run(command.args(args).stdin(Stdio::null()), false)?;
        if !ended.success {
            if NO_SUCH_WORKER
                .iter()
                .any(|text| ended.stderr.contains(text) || ended.stdout.contains(text))
            {
                return Ok(Deployed::Nothing);
            }
            return Err(ended.failure("wrangler cannot list the secrets"));
        }
        let secrets: Vec<Secret> = ended
            .stdout
            .find('[')
            .and_then(|start| ended.stdout.get(start..))
            .and_then(|list| serde_json::from_str(list).ok())
            .ok_or_else(|| Failure::Wrong("wrangler's list of secrets is not understood".into()))?;
        Ok(Deployed::With(secrets.into_iter().map(|secret| secret.name).collect()))
    }

    /// Deploys, and returns the URL that wrangler names, if it names one.
    ///
    /// # Errors
    /// [`Failure::Wrong`] if wrangler fails; what it printed is on standard error.
    pub fn deploy(
        &self,
        environment: &str,
        secrets: Option<&Path>,
        dry_run: bool,
    ) -> Result<Option<String>, Failure> {
        let mut command = self.command(&self.program());
        command.args(["deploy", "--env", environment]);
        if let Some(path) = secrets {
            command.arg("--secrets-file").arg(path);
        }
        if dry_run {
            command.arg("--dry-run");
        }
        let ended = run(&mut command, true)?;
        if ended.success {
            Ok(url_in(&ended.stdout))
        } else {
            Err(ended.failure("wrangler did not deploy"))
        }
    }
}

impl Ended {
    /// The first error that wrangler printed, or where to look.
    fn failure(&self, what: &str) -> Failure {
        let said = self.stderr.lines().chain(self.stdout.lines());
        let error = said.filter_map(|line| line.split_once("ERROR]")).next();
        Failure::Wrong(match error {
            Some((_, text)) => format!("{what}: {}", clean(text.trim())),
            None => format!("{what}; what it printed says why"),
        })
    }
}

/// Runs a command to its end. With `shown` its output appears on standard error as it comes: our own standard output is
/// for the result.
fn run(command: &mut Command, shown: bool) -> Result<Ended, Failure> {
    let unusable =
        |e: std::io::Error| Failure::Usage(format!("cannot run wrangler or scripts/build: {e}"));
    let mut child =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(unusable)?;
    let errors = child.stderr.take();
    let reader = std::thread::spawn(move || errors.map_or_else(String::new, |s| copy(s, shown)));
    let stdout = child.stdout.take().map_or_else(String::new, |s| copy(s, shown));
    let stderr = reader.join().unwrap_or_default();
    let status = child.wait().map_err(unusable)?;
    Ok(Ended { success: status.success(), stdout, stderr })
}

fn copy(stream: impl std::io::Read, shown: bool) -> String {
    let mut all = String::new();
    for line in BufReader::new(stream).lines().map_while(Result::ok) {
        if shown {
            let _ = writeln!(std::io::stderr(), "{line}");
        }
        all += &line;
        all.push('\n');
    }
    all
}

/// The URL at which wrangler says that it deployed, a custom domain before one below workers.dev.
fn url_in(output: &str) -> Option<String> {
    let domain = output.lines().find_map(|line| {
        let host = line.trim().strip_suffix("(custom domain)")?.trim();
        Some(format!("https://{host}"))
    });
    domain.or_else(|| {
        let words = output.split_whitespace();
        let mut urls =
            words.filter(|word| word.starts_with("https://") && word.contains(".workers.dev"));
        urls.next().map(|url| url.trim_end_matches('/').to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_url_is_read_from_what_wrangler_prints() {
        let dev = "Uploaded x (3 sec)\nDeployed x triggers (1 sec)\n  https://x.me.workers.dev\nCurrent Version ID: 1\n";
        assert_eq!(url_in(dev).as_deref(), Some("https://x.me.workers.dev"));
        let own = format!("{dev}  dap.example.org (custom domain)\n");
        assert_eq!(url_in(&own).as_deref(), Some("https://dap.example.org"));
        assert_eq!(url_in("--dry-run: exiting now."), None);
    }

    #[test]
    fn wranglers_error_is_quoted_in_one_sentence() {
        let ended =
            |stderr: &str| Ended { success: false, stdout: String::new(), stderr: stderr.into() };
        let failure =
            ended("\u{1b}[31m✘ [ERROR] You are not authenticated.\n\nmore\n").failure("no");
        assert_eq!(failure.to_string(), "no: You are not authenticated.");
        assert_eq!(ended("").failure("no").to_string(), "no; what it printed says why");
    }
}
