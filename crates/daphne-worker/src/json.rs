//! JSON of requests.

use daphne_core::error::{Abort, AbortKind, Error};
use serde::de::DeserializeOwned;

/// Reads a JSON object.
///
/// # Errors
/// [`AbortKind::BadRequest`], whose text quotes nothing of the body.
pub fn parse_object<T: DeserializeOwned>(body: &[u8]) -> Result<T, Error> {
    // Otherwise an array of values in the order of the fields would do as well.
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err(Abort::new(AbortKind::BadRequest, "expected a JSON object").into());
    }
    serde_json::from_slice(body).map_err(|e| Abort::new(AbortKind::BadRequest, describe(&e)).into())
}

/// What is wrong with JSON. The parser quotes names and values that do not fit, and such a value could be a secret in the
/// wrong place; then only the place is told.
fn describe(e: &serde_json::Error) -> String {
    let text = e.to_string();
    let quotes = |starts: &[&str]| starts.iter().any(|start| text.starts_with(start));
    let what = if quotes(&["invalid type", "invalid value", "invalid length", "unknown variant"]) {
        "a value has the wrong type, or is none of the choices,"
    } else if quotes(&["unknown field"]) {
        "there is no such field,"
    } else {
        return text;
    };
    format!("{what} at line {} column {}", e.line(), e.column())
}
