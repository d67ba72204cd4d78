//! A task for a helper that is not ours: the file that `run --task` reads, and what the helper's operator provisions.

use std::path::PathBuf;

use clap::Args;
use dapctl::{Failure, task_file};
use daphne_core::{b64, seal::TokenHash, task::TaskSpec, vdaf::VdafConfig, version::DapVersion};
use serde_json::{Value, json};

use crate::{
    jobs::new_task,
    kinds::{self, Kind, bits},
};

/// What a leader's URL may be where nobody asks it for anything.
const NOBODY: &str = "https://leader.invalid/";

/// Options of `task`.
#[derive(Args)]
pub struct TaskOptions {
    /// The version.
    #[arg(long, value_parser = kinds::version, default_value = "dap-09")]
    version: DapVersion,
    /// The VDAF, with the parameters that are measured.
    #[arg(long, value_enum)]
    vdaf: Kind,
    /// The helper's DAP URL.
    #[arg(long, value_name = "URL")]
    helper: String,
    /// Write the task to this new file, with all secrets, of mode 0600.
    #[arg(long, value_name = "FILE")]
    save: PathBuf,
    /// Write to this new file what Janus 0.7 provisions, of mode 0600; of a task of dap-09, and of a VDAF that Janus has there.
    #[arg(long, value_name = "FILE")]
    janus: Option<PathBuf>,
}

impl TaskOptions {
    /// Makes the task and writes the files. Neither overwrites one.
    ///
    /// # Errors
    /// [`Failure::Usage`] if a file cannot be written, or Janus cannot have the task.
    pub fn run(&self) -> Result<(String, Value), Failure> {
        let mut file = new_task(self.version, self.vdaf.config(), &self.helper)?;
        file.helper_url.clone_from(&self.helper);
        let tasks = self.janus.as_ref().map(|path| Ok::<_, Failure>((path, janus(&file.spec)?)));
        let tasks = tasks.transpose()?;
        let saved = file.save(&self.save, false)?;
        if let Some((path, tasks)) = &tasks
            && let Err(failure) = task_file::save(path, tasks, false)
        {
            saved.undo()?;
            return Err(failure);
        }
        let id = file.task_id()?;
        let shown = self.save.display();
        let provision = tasks.as_ref().map_or_else(
            || "the helper's operator needs its `spec`".to_owned(),
            |(path, _)| {
                let tasks = path.display();
                format!(
                    "janus_cli --config-file janus_cli.yaml provision-tasks --generate-missing-parameters {tasks}"
                )
            },
        );
        let measure = format!("scripts/bench run --helper {} --task {shown}", self.helper);
        let text = format!("task {id} is in {shown}\n1. {provision}\n2. {measure}");
        let json = json!({ "task_id": id, "saved": self.save, "provision": provision, "measure": measure });
        Ok((text, json))
    }
}

/// A list of this one task, as `janus_cli provision-tasks` of Janus 0.7 reads it. It has no HPKE keys: these are the helper's,
/// and `--generate-missing-parameters` makes them.
fn janus(spec: &TaskSpec) -> Result<String, Failure> {
    let usage = |why: &str| Failure::Usage(why.to_owned());
    if spec.version != DapVersion::V09 {
        return Err(usage(
            "Janus 0.7 speaks dap-09; --save alone writes a task of another version",
        ));
    }
    let (Some(id), Some(token)) = (spec.task_id, &spec.leader_token) else {
        return Err(usage("the task has no id or no token"));
    };
    let vdaf = janus_vdaf(&spec.vdaf).ok_or_else(|| usage("Janus 0.7 does not have this VDAF"))?;
    let seconds = |name: &str, seconds: u64| (name.to_owned(), json!(seconds).to_string());
    // JSON is YAML, but for the name of a VDAF with parameters, which is a tag.
    let fields = [
        ("task_id".to_owned(), json!(id).to_string()),
        ("peer_aggregator_endpoint".to_owned(), json!(NOBODY).to_string()),
        ("query_type".to_owned(), "TimeInterval".to_owned()),
        ("vdaf".to_owned(), vdaf),
        ("role".to_owned(), "Helper".to_owned()),
        ("vdaf_verify_key".to_owned(), json!(b64::encode(&spec.verify_key)).to_string()),
        seconds("max_batch_query_count", spec.max_batch_query_count),
        ("task_expiration".to_owned(), "null".to_owned()),
        seconds("report_expiry_age", spec.report_expiry_age.as_seconds()),
        seconds("min_batch_size", spec.min_batch_size),
        seconds("time_precision", spec.time_precision.as_seconds()),
        seconds("tolerable_clock_skew", spec.tolerable_clock_skew.as_seconds()),
        ("collector_hpke_config".to_owned(), json!(spec.collector_hpke_config).to_string()),
        (
            "aggregator_auth_token_hash".to_owned(),
            json!({ "type": "Bearer", "hash": TokenHash::of(token) }).to_string(),
        ),
        ("hpke_keys".to_owned(), "[]".to_owned()),
    ];
    let lines: Vec<String> =
        fields.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
    Ok(format!("- {}", lines.join("  ")))
}

fn janus_vdaf(vdaf: &VdafConfig) -> Option<String> {
    let tagged = |parameters: Value| format!("!{} {parameters}", vdaf.name());
    Some(match *vdaf {
        VdafConfig::Prio3Count => vdaf.name().to_owned(),
        VdafConfig::Prio3Sum { max_measurement } => {
            tagged(json!({ "bits": bits(max_measurement) }))
        }
        VdafConfig::Prio3SumVec { length, max_measurement, chunk_length } => tagged(json!({
            "bits": bits(max_measurement), "length": length, "chunk_length": chunk_length,
        })),
        VdafConfig::Prio3Histogram { length, chunk_length } => {
            tagged(json!({ "length": length, "chunk_length": chunk_length }))
        }
        VdafConfig::Prio3SumVecField64MultiproofHmacSha256Aes128 {
            length,
            max_measurement,
            chunk_length,
            proofs,
        } => tagged(json!({
            "proofs": proofs, "bits": bits(max_measurement), "length": length, "chunk_length": chunk_length,
        })),
        VdafConfig::Poplar1 { bits } => tagged(json!({ "bits": bits })),
        VdafConfig::Prio3MultihotCountVec { .. } => return None,
    })
}

#[cfg(test)]
mod tests {
    use dapctl::{janus_tasks, task_file::TaskFile};

    use super::*;

    fn options(version: DapVersion, vdaf: Kind, folder: &std::path::Path) -> TaskOptions {
        TaskOptions {
            version,
            vdaf,
            helper: "http://127.0.0.1:1/".to_owned(),
            save: folder.join("task.json"),
            janus: Some(folder.join("tasks.yaml")),
        }
    }

    #[test]
    fn what_janus_provisions_is_the_task_that_is_kept() {
        for kind in Kind::all() {
            let folder = tempfile::tempdir().unwrap();
            let options = options(DapVersion::V09, kind, folder.path());
            if kind == Kind::MultihotCountvec {
                assert!(matches!(options.run(), Err(Failure::Usage(_))));
                assert!(!options.save.exists());
                continue;
            }
            options.run().unwrap();
            let spec = TaskFile::read(&options.save).unwrap().spec;
            let text = std::fs::read_to_string(folder.path().join("tasks.yaml")).unwrap();
            let [task] = <[_; 1]>::try_from(janus_tasks::parse(&text, None).unwrap()).unwrap();
            let token = spec.leader_token.as_ref().unwrap();
            assert_eq!(task.spec.leader_token_hash, Some(TokenHash::of(token)), "{kind:?}");
            let told = TaskSpec {
                leader_token: spec.leader_token.clone(),
                leader_token_hash: None,
                ..task.spec
            };
            assert_eq!(json!(told), json!(spec), "{kind:?}");
            assert!(matches!(options.run(), Err(Failure::Usage(_))), "nothing is overwritten");
        }
    }

    #[test]
    fn a_task_of_another_version_is_for_others() {
        let folder = tempfile::tempdir().unwrap();
        let mut options = options(DapVersion::V18, Kind::Count, folder.path());
        assert!(matches!(options.run(), Err(Failure::Usage(_))));
        options.janus = None;
        let (text, _) = options.run().unwrap();
        assert!(text.contains("scripts/bench run --helper http://127.0.0.1:1/ --task "), "{text}");
        assert_eq!(TaskFile::read(&options.save).unwrap().helper_url, "http://127.0.0.1:1/");
    }
}
