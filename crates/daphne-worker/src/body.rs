//! Reading bodies: what they claim to be first, then no more than a cap, and not for ever.

use std::{fmt::Arguments, pin::pin, time::Duration};

use daphne_core::{
    error::{Abort, AbortKind, Error, Internal},
    media_type,
};
use futures::{
    StreamExt,
    future::{Either, select},
};
use worker::{Delay, Request};

/// How long a body may take whatever its length.
const PATIENCE: Duration = Duration::from_secs(30);
/// A body that keeps up with this may take longer, a second for each of these.
const BYTES_PER_SECOND_MIN: usize = 64 << 10;
/// A body that declares to be no longer is read at once. Piece by piece costs about a tenth of a job of counts, and is for
/// those that could hold much memory by stalling.
const AT_ONCE_MAX: usize = 1 << 20;

/// Checks what a request says about its body: that it has this media type, and that it is not compressed or otherwise
/// coded, which nobody asked for and we would not undo.
///
/// # Errors
/// [`AbortKind::UnsupportedMediaType`].
pub fn check_media_type(request: &Request, expected: &str) -> Result<(), Abort> {
    if !media_type::is(&header(request, "Content-Type"), expected) {
        return Err(Abort::new(AbortKind::UnsupportedMediaType, format!("expected {expected}")));
    }
    check_coding(request)
}

/// Checks that the request says of its body that it is not compressed or otherwise coded.
///
/// # Errors
/// [`AbortKind::UnsupportedMediaType`].
pub fn check_coding(request: &Request) -> Result<(), Abort> {
    match header(request, "Content-Encoding").trim() {
        "" => Ok(()),
        coding if coding.eq_ignore_ascii_case("identity") => Ok(()),
        _ => Err(Abort::new(
            AbortKind::UnsupportedMediaType,
            "expected a body without a content coding",
        )),
    }
}

/// The body's length, if the request declares one.
///
/// # Errors
/// [`AbortKind::BodyTooLarge`] if it is more than `bytes_max`.
pub fn declared_length(request: &Request, bytes_max: usize) -> Result<Option<usize>, Abort> {
    let header = request.headers().get("Content-Length").ok().flatten();
    let declared = header.map(|n| n.parse().unwrap_or(usize::MAX));
    if declared.is_some_and(|n| n > bytes_max) { Err(too_large(bytes_max)) } else { Ok(declared) }
}

fn too_large(bytes_max: usize) -> Abort {
    Abort::new(AbortKind::BodyTooLarge, format!("at most {bytes_max} bytes are read here"))
}

fn header(request: &Request, name: &str) -> String {
    request.headers().get(name).ok().flatten().unwrap_or_default()
}

/// Reads the body, at most `bytes_max` bytes of it. A declared length beyond that is refused unread.
///
/// # Errors
/// [`AbortKind::BodyTooLarge`], or [`AbortKind::BadRequest`] if the body breaks off. [`Internal::Unavailable`] if it
/// takes too long: that is nobody's fault, and leaders that take a 408 for final would give the job up.
pub async fn read(request: &mut Request, bytes_max: usize) -> Result<Vec<u8>, Error> {
    read_within(request, bytes_max, |_| Ok(())).await
}

/// As [`read`], as long as `admit` takes the number of bytes that are about to be held.
///
/// # Errors
/// As [`read`], and what `admit` says.
pub async fn read_within(
    request: &mut Request,
    bytes_max: usize,
    admit: impl Fn(usize) -> Result<(), Internal>,
) -> Result<Vec<u8>, Error> {
    let declared = declared_length(request, bytes_max)?;
    if request.inner().body().is_none() {
        return Ok(Vec::new());
    }
    if let Some(length) = declared.filter(|n| *n <= AT_ONCE_MAX) {
        let body = read_at_once(request, length).await?;
        admit(body.len())?;
        return Ok(body);
    }
    let mut stream = request.stream().map_err(|_| broken())?;
    let mut body = Vec::new();
    let mut granted = patience_for(0);
    let mut timer = pin!(Delay::from(granted));
    loop {
        match select(stream.next(), timer.as_mut()).await {
            Either::Left((None, _)) => return Ok(body),
            Either::Left((Some(chunk), _)) => {
                let chunk = chunk.map_err(|_| broken())?;
                if body.len() + chunk.len() > bytes_max {
                    return Err(too_large(bytes_max).into());
                }
                admit(body.len() + chunk.len())?;
                body.extend_from_slice(&chunk);
            }
            Either::Right(_) => {
                let due = patience_for(body.len());
                if due <= granted {
                    let arrived = body.len();
                    return Err(too_slow(format_args!("only {arrived} bytes"), granted).into());
                }
                timer.set(Delay::from(due - granted));
                granted = due;
            }
        }
    }
}

async fn read_at_once(request: &mut Request, length: usize) -> Result<Vec<u8>, Error> {
    let granted = patience_for(length);
    match select(pin!(request.bytes()), pin!(Delay::from(granted))).await {
        // HTTP ends a body where it was declared to end. Another Worker that calls this one need not.
        Either::Left((Ok(body), _)) if body.len() == length => Ok(body),
        Either::Left(_) => Err(broken().into()),
        Either::Right(_) => {
            Err(too_slow(format_args!("fewer than the declared {length} bytes"), granted).into())
        }
    }
}

fn broken() -> Abort {
    Abort::new(AbortKind::BadRequest, "the body did not arrive")
}

fn too_slow(what: Arguments<'_>, granted: Duration) -> Internal {
    Internal::Unavailable(format!("{what} of a body arrived in {granted:?}"))
}

/// How long a body may take of which so many bytes come, at most.
pub fn patience_for(bytes: usize) -> Duration {
    patience() + Duration::from_secs((bytes / BYTES_PER_SECOND_MIN) as u64)
}

fn patience() -> Duration {
    #[cfg(feature = "test-routes")]
    if let Some(patience) = crate::test_routes::body_patience() {
        return patience;
    }
    PATIENCE
}
