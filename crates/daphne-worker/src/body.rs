//! Reading bodies: their media type first, then no more than a cap.

use daphne_core::error::{Abort, AbortKind, Error};
use futures::StreamExt;
use worker::Request;

/// Checks a request's media type: case-insensitively, with any parameters.
///
/// # Errors
/// [`AbortKind::UnsupportedMediaType`].
pub fn check_media_type(request: &Request, expected: &str) -> Result<(), Abort> {
    let header = request.headers().get("Content-Type").ok().flatten().unwrap_or_default();
    let essence = header.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case(expected) {
        Ok(())
    } else {
        Err(Abort::new(AbortKind::UnsupportedMediaType, format!("expected {expected}")))
    }
}

/// Reads the body, at most `bytes_max` bytes of it. A declared length beyond that is refused unread.
///
/// # Errors
/// [`AbortKind::BodyTooLarge`], or [`AbortKind::BadRequest`] if the body does not arrive.
pub async fn read(request: &mut Request, bytes_max: usize) -> Result<Vec<u8>, Error> {
    let too_large =
        || Abort::new(AbortKind::BodyTooLarge, format!("at most {bytes_max} bytes are read here"));
    let declared: Option<usize> = request
        .headers()
        .get("Content-Length")
        .ok()
        .flatten()
        .map(|n| n.parse().unwrap_or(usize::MAX));
    if declared.is_some_and(|n| n > bytes_max) {
        return Err(too_large().into());
    }
    if request.inner().body().is_none() {
        return Ok(Vec::new());
    }
    let broken = || Abort::new(AbortKind::BadRequest, "the body did not arrive");
    let mut stream = request.stream().map_err(|_| broken())?;
    // A declared length is only a hint until as many bytes have arrived.
    let mut body = Vec::with_capacity(declared.unwrap_or(0).min(1 << 20));
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|_| broken())?;
        if body.len() + chunk.len() > bytes_max {
            return Err(too_large().into());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}
