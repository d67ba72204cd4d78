//! Which code this is: told to whoever asks, so that a peer can build the same and compare.

use daphne_core::version::DapVersion;
use serde::Serialize;
use worker::{
    js_sys::{Reflect, global},
    wasm_bindgen::JsValue,
};

/// What `GET /version` says.
#[derive(Debug, Serialize)]
pub struct BuildInfo {
    software: &'static str,
    version: &'static str,
    /// `DAP-` and the draft, of each version that is spoken.
    protocols: Vec<String>,
    /// The commit of the sources, with `-modified` if there were changes; or `unknown`.
    commit: String,
    /// SHA-256 of the WebAssembly file in hexadecimal, which `scripts/build --verify` makes again.
    wasm_sha256: String,
    /// SHA-256 of the script around it, but for the line that holds these hashes.
    script_sha256: String,
    /// What compiled it, as it names itself.
    compiler: String,
}

impl BuildInfo {
    /// Reads what `scripts/build` wrote beside the WebAssembly file, which cannot hold its own hash.
    pub fn read() -> Self {
        let object = Reflect::get(&global(), &JsValue::from_str("daphneBuild")).unwrap_or_default();
        let field = |name: &str| {
            Reflect::get(&object, &JsValue::from_str(name))
                .ok()
                .and_then(|value| value.as_string())
                .unwrap_or_else(|| "unknown".to_owned())
        };
        Self {
            software: "daphne-edge",
            version: env!("CARGO_PKG_VERSION"),
            protocols: DapVersion::ALL.iter().map(|version| version.tag().to_uppercase()).collect(),
            commit: field("commit"),
            wasm_sha256: field("wasm"),
            script_sha256: field("script"),
            compiler: field("compiler"),
        }
    }
}
