//! A request and its response, as an object's `fetch` sees them.

use daphne_core::store::{
    StoreError, StoreResult,
    message::{decode, encode},
};
use serde::{Serialize, de::DeserializeOwned};
use worker::{Request, Response, console_error};

/// Reads the message in a request's body.
///
/// # Errors
/// The body does not arrive, or is no message that this version knows.
pub async fn read<Q: DeserializeOwned>(mut request: Request) -> StoreResult<Q> {
    let body = request.bytes().await.map_err(|e| StoreError(e.to_string()))?;
    decode(&body).map_err(|e| StoreError(e.to_string()))
}

/// Writes a message, or the error as a 500: an `Err` of `fetch` would be an uncaught exception.
///
/// # Errors
/// The runtime's.
pub fn answer<A: Serialize>(result: StoreResult<A>) -> worker::Result<Response> {
    match result.and_then(|a| encode(&a).map_err(|e| StoreError(e.to_string()))) {
        Ok(body) => Response::from_bytes(body),
        Err(error) => {
            console_error!("{error}");
            Response::error("storage error", 500)
        }
    }
}
