//! When a call to an object is made again, and when it is given up.
//!
//! A call is tried at most [`TRIES_MAX`] times, and only where all of this holds:
//!
//! - The request is [`Idempotence::Idempotent`]: a try that failed may have been carried out all the same, or still be.
//! - The platform says that trying again makes sense, [`FailureClass::Retryable`]. It never does for an object that has
//!   too much to do, where another request makes it worse; a status is the object's own answer, and the next one is
//!   the same.
//! - What remains of the call's time is enough for a try to be of use. One deadline covers all tries and waits: behind it
//!   stands a leader's request, which should get its 503 while it is still being waited for.
//!
//! Between two tries lies a random part of a window that doubles (full jitter), so that callers which failed together do
//! not come back together. Nothing here knows the runtime: [`Transport`] and [`Timer`] are what the tests replace.

use std::{pin::pin, time::Duration};

use futures::future::{Either, select};

/// Most tries of one call.
pub const TRIES_MAX: u32 = 3;
/// The window of the first wait. A restarted object answers within some tens of milliseconds.
const BACKOFF: Duration = Duration::from_millis(200);
/// A try with less time than this would most likely be cut off, and leave its outcome unknown once more.
const TRY_TIME_MIN: Duration = Duration::from_secs(1);

/// Whether a request may be carried out more than once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idempotence {
    /// Carrying it out again changes nothing more, and is answered as the sender needs it.
    Idempotent,
    /// It must be sent only once, whatever becomes of it.
    Once,
}

/// What a failure says about the next try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureClass {
    /// The platform says that the same call may succeed at once: the object was restarted, moved or cut off.
    Retryable,
    /// The object has more to do than it can.
    Overloaded,
    /// The object answered, with this HTTP status.
    Status(u16),
    /// The call's time is over.
    TimedOut,
    /// Anything else: nobody says that trying again makes sense.
    Permanent,
}

impl FailureClass {
    /// What the properties of an error thrown by a stub mean. Overload wins: it forbids what the other one allows.
    pub const fn of_stub_error(retryable: bool, overloaded: bool) -> Self {
        match (retryable, overloaded) {
            (_, true) => Self::Overloaded,
            (true, false) => Self::Retryable,
            (false, false) => Self::Permanent,
        }
    }
}

/// A call, or one try of it, that failed. It may have been carried out all the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallFailure {
    /// For the log.
    pub reason: String,
    /// What it says about the next try.
    pub class: FailureClass,
}

/// What carries one request to one object.
#[allow(
    async_fn_in_trait,
    reason = "futures on Workers are not Send, and no caller needs them to be"
)]
pub trait Transport {
    /// Tries once, over a connection that no failed try has used: a stub stays broken after an error.
    ///
    /// # Errors
    /// As classified.
    async fn attempt(&self) -> Result<Vec<u8>, CallFailure>;
}

/// A clock that can be waited for, and chance.
#[allow(
    async_fn_in_trait,
    reason = "futures on Workers are not Send, and no caller needs them to be"
)]
pub trait Timer {
    /// Time since some fixed moment.
    fn now(&self) -> Duration;
    /// Waits.
    async fn sleep(&self, time: Duration);
    /// A random time in `[0, window)`.
    fn random_below(&self, window: Duration) -> Duration;
}

/// Makes a call, with as many tries as the rules allow, in `timeout` altogether.
///
/// # Errors
/// The last try's, or [`FailureClass::TimedOut`]. The outcome of the call is unknown.
pub async fn call(
    transport: &impl Transport,
    timer: &impl Timer,
    timeout: Duration,
    idempotence: Idempotence,
) -> Result<Vec<u8>, CallFailure> {
    let answer = pin!(call_until_answered(transport, timer, timeout, idempotence));
    let deadline = pin!(timer.sleep(timeout));
    match select(answer, deadline).await {
        Either::Left((answer, _)) => answer,
        Either::Right(_) => Err(CallFailure {
            reason: "did not answer in time".to_owned(),
            class: FailureClass::TimedOut,
        }),
    }
}

async fn call_until_answered(
    transport: &impl Transport,
    timer: &impl Timer,
    timeout: Duration,
    idempotence: Idempotence,
) -> Result<Vec<u8>, CallFailure> {
    let begun = timer.now();
    let mut window = BACKOFF;
    let mut tries = 1;
    loop {
        let failure = match transport.attempt().await {
            Ok(answer) => return Ok(answer),
            Err(failure) => failure,
        };
        let may_repeat = idempotence == Idempotence::Idempotent
            && failure.class == FailureClass::Retryable
            && tries < TRIES_MAX;
        if !may_repeat {
            return Err(failure);
        }
        let wait = timer.random_below(window);
        let left = timeout.saturating_sub(timer.now().saturating_sub(begun));
        if left < wait + TRY_TIME_MIN {
            return Err(failure);
        }
        timer.sleep(wait).await;
        window *= 2;
        tries += 1;
    }
}

#[cfg(test)]
mod tests;
