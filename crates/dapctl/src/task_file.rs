//! Task files: all that leader and collector know of a task, secrets included, in one JSON file of mode 0600.

use std::{
    fmt,
    fs::File,
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
};

use daphne_core::{
    b64,
    hpke::{HpkeKem, HpkeKeypair},
    ids::{HpkeConfigId, TaskId},
    task::{Task, TaskSpec},
    wire::Wire,
};
use serde_json::{Map, Value, json};
use tempfile::NamedTempFile;

use crate::{Failure, output::clean, reports::Format};

/// Longest file that is read.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// A task as leader and collector know it.
///
/// JSON: `{"spec": TaskSpec, "helper_url": "..", "leader_hpke_keypair": {"config": .., "private_key": ".."},
/// "collector_hpke_keypair": null or likewise, "taskprov": null or ".."}`.
#[derive(Clone)]
pub struct TaskFile {
    /// What the helper was told.
    pub spec: TaskSpec,
    /// The helper's DAP URL, such as `http://127.0.0.1:8787/v09/`.
    pub helper_url: String,
    /// Whom clients seal the leader's shares to.
    pub leader_hpke_keypair: HpkeKeypair,
    /// Whom aggregate shares are sealed to; absent if only the collector's public half is known here.
    pub collector_hpke_keypair: Option<HpkeKeypair>,
    /// The task's parameters as its leader brings them along with each request; absent if the helper was told.
    pub taskprov: Option<Vec<u8>>,
}

/// Shows the helper's URL only.
impl fmt::Debug for TaskFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskFile").field("helper_url", &self.helper_url).finish_non_exhaustive()
    }
}

impl TaskFile {
    /// The checked task, with its id.
    ///
    /// # Errors
    /// [`Failure::Usage`] if the parameters are unusable.
    pub fn task(&self) -> Result<Task, Failure> {
        check(&self.spec)
    }

    /// The task's id.
    ///
    /// # Errors
    /// As [`TaskFile::task`].
    pub fn task_id(&self) -> Result<TaskId, Failure> {
        self.spec.task_id.map_or_else(|| self.task().map(|task| *task.id()), Ok)
    }

    /// How the task's report files are read.
    pub fn report_format(&self) -> Format {
        Format {
            vdaf: self.spec.vdaf,
            wire: Wire::new(self.spec.version, self.spec.time_precision),
        }
    }

    /// Reads a task file.
    ///
    /// # Errors
    /// [`Failure::Usage`] if it cannot be read or is malformed. Never quotes its content.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let text = read_text(path)?;
        Self::from_json(&text).map_err(|e| e.during(&shown(path)))
    }

    /// Reads the JSON of a task file.
    ///
    /// # Errors
    /// [`Failure::Usage`] if it is malformed. Never quotes the text.
    pub fn from_json(text: &str) -> Result<Self, Failure> {
        let malformed = |why: &str| Failure::Usage(format!("not a task file: {why}"));
        let value: Value = serde_json::from_str(text).map_err(|e| {
            malformed(&format!("line {}, column {} is not JSON", e.line(), e.column()))
        })?;
        let Value::Object(mut fields) = value else {
            return Err(malformed("it is not an object"));
        };
        let mut take = |name: &str| fields.remove(name).unwrap_or(Value::Null);
        let spec = spec_from_value(take("spec"))?;
        let Value::String(helper_url) = take("helper_url") else {
            return Err(malformed("it has no helper_url"));
        };
        let keypair = |value: Value| {
            HpkeKeypair::from_secret_json(&value.to_string()).map_err(|e| malformed(&e))
        };
        let leader_hpke_keypair = keypair(take("leader_hpke_keypair"))?;
        let collector_hpke_keypair = match take("collector_hpke_keypair") {
            Value::Null => None,
            value => Some(keypair(value)?),
        };
        let taskprov = match take("taskprov") {
            Value::Null => None,
            value => {
                let config = value.as_str().and_then(b64::decode);
                Some(config.ok_or_else(|| malformed("taskprov is not base64url"))?)
            }
        };
        if let Some(name) = fields.keys().next() {
            return Err(malformed(&format!("it has an unknown field \"{}\"", clean(name))));
        }
        let file = Self { spec, helper_url, leader_hpke_keypair, collector_hpke_keypair, taskprov };
        let id = *file.task()?.id();
        if file.taskprov.as_ref().is_some_and(|config| file.spec.version.taskprov_id(config) != id)
        {
            return Err(malformed("taskprov describes another task"));
        }
        Ok(file)
    }

    /// The JSON of the task file, with its secrets.
    ///
    /// # Errors
    /// [`Failure::Usage`] if the task has no JSON, which no task has.
    pub fn to_secret_json(&self) -> Result<String, Failure> {
        let keypair = |keys: &HpkeKeypair| -> Result<Value, serde_json::Error> {
            serde_json::from_str(&keys.to_secret_json())
        };
        let text = || -> Result<String, serde_json::Error> {
            let mut json = json!({
                "spec": self.spec,
                "helper_url": self.helper_url,
                "leader_hpke_keypair": keypair(&self.leader_hpke_keypair)?,
                "collector_hpke_keypair": self.collector_hpke_keypair.as_ref().map(keypair).transpose()?,
            });
            if let Some(config) = &self.taskprov {
                json["taskprov"] = b64::encode(config).into();
            }
            serde_json::to_string_pretty(&json)
        };
        text().map_err(|_| Failure::Usage("the task cannot be written as JSON".into()))
    }

    /// Writes the task file: whole or not at all, readable by its owner only. Without `force` an existing file is
    /// left alone. [`Saved::undo`] takes it back.
    ///
    /// # Errors
    /// [`Failure::Usage`] if the file exists, or cannot be written; then nothing is.
    pub fn save(&self, path: &Path, force: bool) -> Result<Saved, Failure> {
        save(path, &self.to_secret_json()?, force)
    }
}

/// Writes a file as [`TaskFile::save`] does.
///
/// # Errors
/// [`Failure::Usage`] if the file exists, or cannot be written; then nothing is.
pub fn save(path: &Path, text: &str, force: bool) -> Result<Saved, Failure> {
    let before = if force { std::fs::read(path).ok() } else { None };
    write_atomically(path, format!("{text}\n").as_bytes(), force)?;
    Ok(Saved { path: path.to_owned(), before })
}

/// Reads a file of this program.
///
/// # Errors
/// [`Failure::Usage`], also if it is larger than 1 MiB.
pub fn read_text(path: &Path) -> Result<String, Failure> {
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text))
        .map_err(|e| Failure::Usage(format!("cannot read {}: {e}", shown(path))))?;
    // The beginning of a file may well be a file.
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(Failure::Usage(format!("{} is larger than 1 MiB; split it", shown(path))));
    }
    Ok(text)
}

/// A file just written.
#[must_use]
pub struct Saved {
    path: PathBuf,
    before: Option<Vec<u8>>,
}

impl Saved {
    /// Takes the file away again, or puts back the one it replaced.
    ///
    /// # Errors
    /// [`Failure::Usage`] if it stays.
    pub fn undo(self) -> Result<(), Failure> {
        match self.before {
            Some(content) => write_atomically(&self.path, &content, true),
            None => std::fs::remove_file(&self.path)
                .map_err(|e| Failure::Usage(format!("cannot remove {}: {e}", shown(&self.path)))),
        }
    }
}

/// Writes a file, of mode 0600, beside its place and then moves it there. Without `force` nothing is overwritten.
///
/// # Errors
/// [`Failure::Usage`]; then the place is as it was.
pub fn write_atomically(path: &Path, content: &[u8], force: bool) -> Result<(), Failure> {
    let failed = |e: &std::io::Error| Failure::Usage(format!("cannot write {}: {e}", shown(path)));
    let mut file = temporary_beside(path)?;
    file.write_all(content).and_then(|()| file.as_file().sync_all()).map_err(|e| failed(&e))?;
    let moved = if force { file.persist(path) } else { file.persist_noclobber(path) };
    match moved {
        Ok(_) => Ok(()),
        Err(e) if e.error.kind() == std::io::ErrorKind::AlreadyExists => {
            Err(Failure::Usage(format!("{} exists; --force overwrites it", shown(path))))
        }
        Err(e) => Err(failed(&e.error)),
    }
}

/// An empty temporary file in the folder of `path`, of mode 0600, that vanishes unless it is moved there.
///
/// # Errors
/// [`Failure::Usage`] if the folder cannot be written.
pub fn temporary_beside(path: &Path) -> Result<NamedTempFile, Failure> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    NamedTempFile::new_in(folder)
        .map_err(|e| Failure::Usage(format!("cannot write in {}: {e}", shown(folder))))
}

/// Reads a [`TaskSpec`] without ever quoting its secrets.
///
/// # Errors
/// [`Failure::Usage`].
pub fn spec_from_value(value: Value) -> Result<TaskSpec, Failure> {
    // A complaint about a wrong type quotes the value, so secrets are given their type before.
    if let Value::Object(fields) = &value {
        for name in ["verify_key", "leader_token", "leader_token_hash"] {
            if !matches!(fields.get(name), None | Some(Value::String(_) | Value::Null)) {
                return Err(Failure::Usage(format!("{name} must be a string")));
            }
        }
    }
    serde_json::from_value(value)
        .map_err(|e| Failure::Usage(format!("the task is malformed: {}", clean(&e.to_string()))))
}

/// Checks the parameters as the helper will.
///
/// # Errors
/// [`Failure::Usage`].
pub fn check(spec: &TaskSpec) -> Result<Task, Failure> {
    // The root key's version is the helper's own business.
    spec.clone().check(0).map_err(|e| Failure::Usage(e.to_string()))
}

/// Adds what a task needs and `fields`, the JSON of a [`TaskSpec`], lacks: a verify key of `verify_key_len` bytes,
/// a leader token, and a collector key pair, which is returned.
///
/// # Errors
/// [`Failure::Wrong`] if the system has no randomness.
pub fn generate_missing(
    fields: &mut Map<String, Value>,
    verify_key_len: usize,
) -> Result<Generated, Failure> {
    let mut generated = Generated { secrets: false, collector: None };
    let lacks =
        |fields: &Map<String, Value>, name| matches!(fields.get(name), None | Some(Value::Null));
    if lacks(fields, "verify_key") {
        let mut key = vec![0; verify_key_len];
        fill_random(&mut key)?;
        fields.insert("verify_key".into(), b64::encode(&key).into());
        generated.secrets = true;
    }
    if lacks(fields, "leader_token") && lacks(fields, "leader_token_hash") {
        let token = random::<32>()?;
        fields.insert("leader_token".into(), b64::encode(&token).into());
        generated.secrets = true;
    }
    if lacks(fields, "collector_hpke_config") {
        let keys = new_keypair()?;
        let config = serde_json::to_value(keys.config())
            .map_err(|_| Failure::Wrong("the collector's key has no JSON".into()))?;
        fields.insert("collector_hpke_config".into(), config);
        generated.secrets = true;
        generated.collector = Some(keys);
    }
    Ok(generated)
}

/// What [`generate_missing`] made.
#[derive(Debug)]
pub struct Generated {
    /// Whether anything secret was made, which is lost unless it is saved.
    pub secrets: bool,
    /// The collector's key pair.
    pub collector: Option<HpkeKeypair>,
}

/// A new X25519 key pair with a random id.
///
/// # Errors
/// [`Failure::Wrong`] if the system has no randomness.
pub fn new_keypair() -> Result<HpkeKeypair, Failure> {
    let [id] = random::<1>()?;
    HpkeKeypair::derive(HpkeConfigId(id), HpkeKem::X25519HkdfSha256, &random::<32>()?)
        .map_err(|e| Failure::Wrong(e.to_string()))
}

/// Random bytes from the system.
///
/// # Errors
/// [`Failure::Wrong`] if it has none.
pub fn random<const N: usize>() -> Result<[u8; N], Failure> {
    let mut bytes = [0; N];
    fill_random(&mut bytes)?;
    Ok(bytes)
}

fn fill_random(bytes: &mut [u8]) -> Result<(), Failure> {
    getrandom::fill(bytes).map_err(|_| Failure::Wrong("the system has no randomness".into()))
}

fn shown(path: &Path) -> String {
    clean(&path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tasks.yaml");
        std::fs::write(&path, vec![b'#'; 1 << 20]).unwrap();
        assert_eq!(read_text(&path).unwrap().len(), 1 << 20);
        std::fs::write(&path, vec![b'#'; (1 << 20) + 1]).unwrap();
        let refused = read_text(&path).unwrap_err();
        assert!(matches!(refused, Failure::Usage(why) if why.contains("larger than 1 MiB")));
    }

    fn sample() -> TaskFile {
        let mut fields = json!({
            "version": "dap-09", "role": "helper", "batch_mode": "time-interval", "vdaf": "Prio3Count",
            "min_batch_size": 10, "time_precision": 3600,
        });
        let fields = fields.as_object_mut().unwrap();
        let generated = generate_missing(fields, 16).unwrap();
        TaskFile {
            spec: spec_from_value(Value::Object(fields.clone())).unwrap(),
            helper_url: "http://127.0.0.1:1/v09/".into(),
            leader_hpke_keypair: new_keypair().unwrap(),
            collector_hpke_keypair: generated.collector,
            taskprov: None,
        }
    }

    #[test]
    fn a_task_file_survives_and_is_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("task.json");
        let file = sample();
        let saved = file.save(&path, false).unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        let again = TaskFile::read(&path).unwrap();
        assert_eq!(again.to_secret_json().unwrap(), file.to_secret_json().unwrap());
        assert_eq!(again.task_id().unwrap(), *file.task().unwrap().id());
        saved.undo().unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn an_existing_file_is_kept_or_put_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("task.json");
        std::fs::write(&path, "precious\n").unwrap();
        let failure = sample().save(&path, false).err().unwrap();
        assert!(failure.to_string().contains("exists"), "{failure}");
        assert_eq!(std::fs::read(&path).unwrap(), b"precious\n");
        sample().save(&path, true).unwrap().undo().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"precious\n");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn malformed_files_are_refused_without_quoting_secrets() {
        let good: Value = serde_json::from_str(&sample().to_secret_json().unwrap()).unwrap();
        let broken = |change: &dyn Fn(&mut Value)| {
            let mut value = good.clone();
            change(&mut value);
            TaskFile::from_json(&value.to_string()).unwrap_err().to_string()
        };
        assert!(TaskFile::from_json("{").unwrap_err().to_string().contains("line 1, column 1"));
        assert!(TaskFile::from_json("[]").unwrap_err().to_string().contains("not an object"));
        assert!(broken(&|v| v["extra"] = json!(1)).contains("\"extra\""));
        assert!(broken(&|v| v["helper_url"] = json!(1)).contains("helper_url"));
        let secret = 123_456_789;
        for text in [
            broken(&|v| v["spec"]["leader_token"] = json!(secret)),
            broken(&|v| v["spec"]["verify_key"] = json!([secret])),
            broken(&|v| v["leader_hpke_keypair"]["private_key"] = json!(secret)),
            broken(&|v| v["collector_hpke_keypair"]["private_key"] = json!("AAAA")),
        ] {
            assert!(!text.contains("123456789") && !text.contains("AAAA"), "{text}");
        }
    }
}
