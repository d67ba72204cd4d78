//! What a whole run of these tests saw, for `scripts/test` to search for secrets: where `DAPHNE_HEARD` names a folder, all
//! secrets in use are written there, all refusals and metrics, and the servers' logs.

use std::{
    env,
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    process,
    sync::{Mutex, OnceLock},
};

use crate::client::Answer;

/// Where to write, if anywhere.
pub fn folder() -> Option<PathBuf> {
    env::var_os("DAPHNE_HEARD").map(PathBuf::from)
}

fn append(file: &'static OnceLock<Option<Mutex<File>>>, name: &str, bytes: &[u8]) {
    let file = file.get_or_init(|| {
        let path = folder()?.join(format!("{name}-{}", process::id()));
        let file = File::options().create(true).append(true).open(path);
        Some(Mutex::new(file.expect("DAPHNE_HEARD can be written")))
    });
    if let Some(file) = file {
        let mut file = file.lock().expect("no writer panics");
        file.write_all(bytes).expect("DAPHNE_HEARD can be written");
    }
}

/// A server's folder is about to be removed.
pub fn log(server: &Path) {
    let name = server.file_name().unwrap_or_default().to_string_lossy();
    if let Some(folder) = folder() {
        // A server that never started has none.
        let _ = fs::copy(server.join("log"), folder.join(format!("log-{name}")));
    }
}

/// A secret is in use: text that is, or holds between other characters, base64url.
pub fn secret(text: &str) {
    static FILE: OnceLock<Option<Mutex<File>>> = OnceLock::new();
    append(&FILE, "secrets", format!("{text}\n").as_bytes());
}

/// Something was answered. What is asked for rightly may hold secrets, such as a new token.
pub fn answer(path: &str, answer: &Answer) {
    static FILE: OnceLock<Option<Mutex<File>>> = OnceLock::new();
    if answer.status >= 400 || path.starts_with("/metrics") {
        let head = format!("{path} {} {:?}\n", answer.status, answer.headers);
        append(&FILE, "answers", &[head.as_bytes(), &answer.body, b"\n"].concat());
    }
}
