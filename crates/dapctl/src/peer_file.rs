//! Peer files: all that a leader knows which may bring tasks along, secrets included, in one JSON file of mode 0600; and
//! the tasks made of them.

use std::{fmt, path::Path};

use daphne_core::{
    configuration::{self, Agreement},
    hpke::HpkeKeypair,
    taskprov::{self, PeerSpec},
    time::Interval,
    vdaf::Vdaf,
    version::DapVersion,
};
use serde_json::{Map, Value, json};

use crate::{
    Failure,
    output::clean,
    task_file::{self, Saved, TaskFile},
};

/// What a leader and its collector share with the helper.
///
/// JSON: `{"peer": PeerSpec, "helper_url": "..", "collector_hpke_keypair": null or {"config": .., "private_key": ".."}}`.
#[derive(Clone)]
pub struct PeerFile {
    /// What the helper was told.
    pub peer: PeerSpec,
    /// The helper's DAP URL, such as `http://127.0.0.1:8787/v09/`.
    pub helper_url: String,
    /// Whom aggregate shares are sealed to; absent if only the collector's public half is known here.
    pub collector_hpke_keypair: Option<HpkeKeypair>,
}

/// Shows the leader's URL only.
impl fmt::Debug for PeerFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerFile").field("endpoint", &self.peer.endpoint).finish_non_exhaustive()
    }
}

impl PeerFile {
    /// Reads a peer file.
    ///
    /// # Errors
    /// [`Failure::Usage`] if it cannot be read or is malformed. Never quotes its content.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let text = task_file::read_text(path)?;
        Self::from_json(&text).map_err(|e| e.during(&clean(&path.display().to_string())))
    }

    fn from_json(text: &str) -> Result<Self, Failure> {
        let malformed = || Failure::Usage("not a peer file".into());
        let value: Value = serde_json::from_str(text).map_err(|_| malformed())?;
        let keypair = match &value["collector_hpke_keypair"] {
            Value::Null => None,
            keys => {
                Some(HpkeKeypair::from_secret_json(&keys.to_string()).map_err(|_| malformed())?)
            }
        };
        Ok(Self {
            // What the parser says may quote a secret.
            peer: serde_json::from_value(value["peer"].clone()).map_err(|_| malformed())?,
            helper_url: value["helper_url"].as_str().ok_or_else(malformed)?.to_owned(),
            collector_hpke_keypair: keypair,
        })
    }

    /// Writes the peer file, as [`TaskFile::save`] does.
    ///
    /// # Errors
    /// [`Failure::Usage`] if the file exists, or cannot be written; then nothing is.
    pub fn save(&self, path: &Path, force: bool) -> Result<Saved, Failure> {
        let keypair = |keys: &HpkeKeypair| -> Result<Value, serde_json::Error> {
            serde_json::from_str(&keys.to_secret_json())
        };
        let text = || -> Result<String, serde_json::Error> {
            serde_json::to_string_pretty(&json!({
                "peer": self.peer,
                "helper_url": self.helper_url,
                "collector_hpke_keypair": self.collector_hpke_keypair.as_ref().map(keypair).transpose()?,
            }))
        };
        let text =
            text().map_err(|_| Failure::Usage("the peer cannot be written as JSON".into()))?;
        task_file::save(path, &text, force)
    }

    /// The helper's URL for tasks of a version: the one that tasks must name, or else that of the version in the same place.
    fn helper_url_of(&self, version: DapVersion) -> String {
        let url = &self.helper_url;
        let is_version = |(_, last): &(&str, &str)| {
            DapVersion::ALL.iter().any(|version| version.path_prefix() == *last)
        };
        let above = url.strip_suffix('/').and_then(|url| url.rsplit_once('/')).filter(is_version);
        match (above, &self.peer.policy.helper_url) {
            (Some((above, _)), None) => format!("{above}/{}/", version.path_prefix()),
            _ => url.clone(),
        }
    }

    /// A task that the leader may bring along. `fields` is the JSON of what its author chooses of a
    /// [`daphne_core::task::TaskSpec`]; the peer gives the rest, the verify key and the id follow. `task_interval` is for a
    /// configuration.
    ///
    /// # Errors
    /// [`Failure::Usage`] if the parameters are unusable, or the file holds no token.
    pub fn task(
        &self,
        mut fields: Map<String, Value>,
        task_info: &[u8],
        task_interval: Option<Interval>,
    ) -> Result<TaskFile, Failure> {
        let usage = |e: String| Failure::Usage(clean(&e));
        let peer = &self.peer;
        let token = peer.leader_tokens.first().ok_or_else(|| {
            Failure::Usage("the peer file holds no leader token, only its hash".into())
        })?;
        let policy = &peer.policy;
        for (name, value) in [
            // Replaced when the id is known.
            ("verify_key", json!("")),
            ("leader_token", json!(token)),
            ("collector_hpke_config", json!(peer.collector_hpke_config)),
            ("report_expiry_age", json!(policy.report_expiry_age)),
            ("tolerable_clock_skew", json!(policy.tolerable_clock_skew)),
        ] {
            fields.insert(name.to_owned(), value);
        }
        let mut spec = task_file::spec_from_value(Value::Object(fields))?;
        let helper_url = self.helper_url_of(spec.version);
        let config = if spec.version.has_configuration() {
            let (leader_url, helper_url) = (&*peer.endpoint, &*helper_url);
            let agreement = Agreement { task_info, leader_url, helper_url, task_interval };
            spec.task_configuration =
                configuration::encode(&spec, &agreement).map_err(|e| usage(e.to_string()))?;
            spec.task_configuration.clone()
        } else {
            taskprov::advertise(&spec, task_info, &peer.endpoint, &helper_url)
                .map_err(|e| usage(e.to_string()))?
        };
        let id = spec.version.taskprov_id(&config);
        let vdaf =
            Vdaf::new(spec.version.vdaf_draft(), spec.vdaf).map_err(|e| usage(e.to_string()))?;
        spec.verify_key = peer.verify_key_init.verify_key(&id, vdaf.verify_key_len()).to_vec();
        spec.task_id = Some(id);
        task_file::check(&spec)?;
        Ok(TaskFile {
            spec,
            helper_url,
            leader_hpke_keypair: task_file::new_keypair()?,
            collector_hpke_keypair: self.collector_hpke_keypair.clone(),
            taskprov: Some(config),
        })
    }
}
