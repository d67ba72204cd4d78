//! Root keys, and leaders' tokens.

use std::collections::{BTreeMap, BTreeSet};

use daphne_core::ids::TaskId;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use ureq::http::Method;
use zeroize::Zeroizing;

use super::{AdminClient, absent_is_none, json};
use crate::http::ClientError;

/// What is sealed with which root keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretsStatus {
    /// How many secrets of each kind need the root key of which version.
    pub needed: BTreeMap<String, BTreeMap<u32, u64>>,
    /// How many were sealed anew just now.
    pub resealed: u64,
    /// Versions of the root keys that the deployment has.
    pub configured: Vec<u32>,
    /// The one that seals.
    pub newest: u32,
    /// Where the next page begins.
    #[serde(default, skip_serializing)]
    next: Option<String>,
}

impl SecretsStatus {
    /// All versions that are needed or there, ascending.
    pub fn versions(&self) -> BTreeSet<u32> {
        let needed = self.needed.values().flat_map(|versions| versions.keys());
        needed.chain(&self.configured).copied().collect()
    }

    /// Which root keys are needed and not there, in one sentence; `None` if all are.
    pub fn missing(&self) -> Option<String> {
        let versions = self.versions();
        let missing = versions.iter().filter(|version| !self.configured.contains(version));
        let missing: Vec<String> = missing.map(ToString::to_string).collect();
        (!missing.is_empty()).then(|| {
            format!("root keys are missing: {}; what needs them answers 500", missing.join(", "))
        })
    }
}

impl AdminClient {
    /// What is sealed with which root keys.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn secrets_status(&self) -> Result<SecretsStatus, ClientError> {
        self.each_page(|after| {
            let query = after.map(|after| format!("?after={after}")).unwrap_or_default();
            self.get(&format!("admin/secrets{query}"))
        })
    }

    /// Seals all secrets with the newest root key. What was done before an error stays done.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn reseal_secrets(&self) -> Result<SecretsStatus, ClientError> {
        self.each_page(|after| {
            let body = json!({ "after": after }).to_string();
            let answer = self.send(Method::POST, "admin/secrets/reseal", Some(body.as_bytes()))?;
            json(&answer.expect(&[200], None)?)
        })
    }

    fn each_page(
        &self,
        page: impl Fn(Option<&str>) -> Result<SecretsStatus, ClientError>,
    ) -> Result<SecretsStatus, ClientError> {
        let mut sum = SecretsStatus::default();
        let mut seen = BTreeSet::new();
        let mut after: Option<String> = None;
        loop {
            let status = page(after.as_deref())?;
            for (kind, versions) in status.needed {
                let counts = sum.needed.entry(kind).or_default();
                for (version, n) in versions {
                    *counts.entry(version).or_default() += n;
                }
            }
            sum.resealed += status.resealed;
            (sum.configured, sum.newest) = (status.configured, status.newest);
            match status.next {
                None => return Ok(sum),
                // A server that pages in a circle must not hold us for ever.
                Some(next) if !seen.insert(next.clone()) => {
                    return Err(ClientError::Protocol(
                        "the pages of secrets do not advance".into(),
                    ));
                }
                next => after = next,
            }
        }
    }

    /// The names of the tokens that a task's leader may present, or `None` if there is no such task.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn leader_tokens(&self, task: &TaskId) -> Result<Option<Vec<String>>, ClientError> {
        let tokens = self.get::<LeaderTokens>(&format!("admin/tasks/{task}/leader_tokens"));
        Ok(absent_is_none(tokens)?.map(LeaderTokens::names))
    }

    /// Lets a task's leader present one more token, which is given as it is or by its hash. Returns the names of all, or
    /// `None` if there is no such task.
    ///
    /// # Errors
    /// [`ClientError`]; status 400 or 409, with a sentence, if it is no token, or there are too many.
    pub fn add_leader_token(
        &self,
        task: &TaskId,
        token: Option<&str>,
        hash: Option<&str>,
    ) -> Result<Option<Vec<String>>, ClientError> {
        let body = json!({ "leader_token": token, "leader_token_hash": hash });
        self.change_token(Method::POST, task, &body)
    }

    /// Lets a task's leader present a token no longer, by its name. Returns the names of the others, or `None` if there
    /// is no such task.
    ///
    /// # Errors
    /// [`ClientError`]; status 409, with a sentence, if it is the last one, or none.
    pub fn remove_leader_token(
        &self,
        task: &TaskId,
        name: &str,
    ) -> Result<Option<Vec<String>>, ClientError> {
        self.change_token(Method::DELETE, task, &json!({ "name": name }))
    }

    fn change_token(
        &self,
        method: Method,
        task: &TaskId,
        body: &Value,
    ) -> Result<Option<Vec<String>>, ClientError> {
        let path = format!("admin/tasks/{task}/leader_tokens");
        let body = Zeroizing::new(body.to_string());
        let answer = self.send(method, &path, Some(body.as_bytes()))?;
        let tokens = answer.expect(&[200], None).and_then(|answer| json::<LeaderTokens>(&answer));
        Ok(absent_is_none(tokens)?.map(LeaderTokens::names))
    }
}

#[derive(Deserialize)]
struct LeaderTokens {
    leader_tokens: Vec<LeaderToken>,
}

#[derive(Deserialize)]
struct LeaderToken {
    name: String,
}

impl LeaderTokens {
    fn names(self) -> Vec<String> {
        self.leader_tokens.into_iter().map(|token| token.name).collect()
    }
}
