use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::poll_fn,
    task::{Context, Poll, Waker},
};

use super::{FailureClass::*, Idempotence::*, *};

const TIMEOUT: Duration = Duration::from_secs(10);
const MS: Duration = Duration::from_millis(1);
const NEVER: Duration = Duration::from_secs(3_600);

/// How one try ends, and after how long.
type Try = (Duration, Result<(), FailureClass>);

/// An object that fails as scripted, and a clock that jumps to whatever is waited for.
struct Fake {
    tries: RefCell<VecDeque<Try>>,
    /// Tries are named by their number, so that the failure which is reported can be told from the others.
    started_at: RefCell<Vec<Duration>>,
    ended: Cell<u32>,
    now: Cell<Duration>,
    waited_for: RefCell<Vec<Duration>>,
    /// Windows that a random time was drawn from.
    windows: RefCell<Vec<Duration>>,
    /// What is drawn, in thousandths of the window.
    luck: u32,
}

impl Fake {
    fn new(tries: impl IntoIterator<Item = Try>) -> Self {
        Self {
            tries: RefCell::new(tries.into_iter().collect()),
            started_at: RefCell::default(),
            ended: Cell::default(),
            // Some moment, which is not the beginning of time.
            now: Cell::new(Duration::from_secs(1_000)),
            waited_for: RefCell::default(),
            windows: RefCell::default(),
            luck: 500,
        }
    }

    /// Tries that end at once.
    fn failing(classes: &[FailureClass]) -> Self {
        Self::new(classes.iter().map(|class| (MS, Err(*class))).chain([(MS, Ok(()))]))
    }

    fn call(&self, timeout: Duration, idempotence: Idempotence) -> Result<Vec<u8>, CallFailure> {
        let mut call = pin!(call(self, self, timeout, idempotence));
        let mut context = Context::from_waker(Waker::noop());
        loop {
            if let Poll::Ready(result) = call.as_mut().poll(&mut context) {
                return result;
            }
            let now = self.now.get();
            let next = self.waited_for.borrow().iter().copied().filter(|t| *t > now).min();
            self.now.set(next.expect("whoever is not done waits for something"));
        }
    }

    /// How often an object was asked.
    fn asked(&self) -> usize {
        self.started_at.borrow().len()
    }

    fn elapsed(&self) -> Duration {
        self.now.get() - Duration::from_secs(1_000)
    }
}

impl Transport for Fake {
    async fn attempt(&self) -> Result<Vec<u8>, CallFailure> {
        self.started_at.borrow_mut().push(self.now.get());
        let (takes, result) = self.tries.borrow_mut().pop_front().expect("a scripted try");
        self.sleep(takes).await;
        self.ended.set(self.ended.get() + 1);
        let reason = format!("try {}", self.ended.get());
        result.map(|()| b"answer".to_vec()).map_err(|class| CallFailure { reason, class })
    }
}

impl Timer for Fake {
    fn now(&self) -> Duration {
        self.now.get()
    }

    async fn sleep(&self, time: Duration) {
        let until = self.now.get() + time;
        self.waited_for.borrow_mut().push(until);
        poll_fn(|_| if self.now.get() >= until { Poll::Ready(()) } else { Poll::Pending }).await;
    }

    fn random_below(&self, window: Duration) -> Duration {
        self.windows.borrow_mut().push(window);
        window * self.luck / 1_000
    }
}

fn failed(number: u32, class: FailureClass) -> Result<Vec<u8>, CallFailure> {
    Err(CallFailure { reason: format!("try {number}"), class })
}

#[test]
fn an_answer_is_asked_for_once() {
    for idempotence in [Idempotent, Once] {
        let fake = Fake::failing(&[]);
        assert_eq!(fake.call(TIMEOUT, idempotence).unwrap(), b"answer");
        assert_eq!(fake.asked(), 1);
    }
}

#[test]
fn what_the_platform_calls_retryable_is_tried_again() {
    for failures in 1..TRIES_MAX {
        let fake = Fake::failing(&vec![Retryable; failures as usize]);
        assert_eq!(fake.call(TIMEOUT, Idempotent).unwrap(), b"answer");
        assert_eq!(fake.asked(), failures as usize + 1);
    }
}

#[test]
fn tries_are_bounded_and_the_last_failure_is_reported() {
    let fake = Fake::failing(&[Retryable; 5]);
    assert_eq!(fake.call(TIMEOUT, Idempotent), failed(3, Retryable));
    assert_eq!(fake.asked(), TRIES_MAX as usize);
}

#[test]
fn a_request_that_is_not_idempotent_is_never_sent_twice() {
    for class in [Retryable, Overloaded, Status(500), Permanent] {
        let fake = Fake::failing(&[class]);
        assert_eq!(fake.call(TIMEOUT, Once), failed(1, class));
        assert_eq!(fake.asked(), 1, "{class:?}");
    }
}

#[test]
fn nothing_else_than_retryable_is_tried_again() {
    for class in [Overloaded, Status(404), Status(500), Status(503), Permanent] {
        let fake = Fake::failing(&[class]);
        assert_eq!(fake.call(TIMEOUT, Idempotent), failed(1, class));
        assert_eq!(fake.asked(), 1, "{class:?}");
        // Nor after a try that was worth repeating.
        let fake = Fake::failing(&[Retryable, class]);
        assert_eq!(fake.call(TIMEOUT, Idempotent), failed(2, class));
        assert_eq!(fake.asked(), 2, "{class:?}");
    }
}

#[test]
fn overload_forbids_what_retryable_allows() {
    let of = FailureClass::of_stub_error;
    assert_eq!(
        [of(false, false), of(true, false), of(false, true), of(true, true)],
        [Permanent, Retryable, Overloaded, Overloaded]
    );
}

#[test]
fn waits_are_random_parts_of_a_doubling_window() {
    for luck in [0, 1, 500, 999] {
        let fake = Fake { luck, ..Fake::failing(&[Retryable; 2]) };
        fake.call(TIMEOUT, Idempotent).unwrap();
        assert_eq!(*fake.windows.borrow(), [BACKOFF, 2 * BACKOFF]);
        let at = fake.started_at.borrow();
        let waits: Vec<_> = at.windows(2).map(|at| at[1] - at[0] - MS).collect();
        assert_eq!(waits, [BACKOFF * luck / 1_000, 2 * BACKOFF * luck / 1_000]);
    }
}

#[test]
fn a_try_that_never_ends_is_cut_off_at_the_deadline() {
    let timed_out = CallFailure { reason: "did not answer in time".to_owned(), class: TimedOut };
    let fake = Fake::new([(NEVER, Ok(()))]);
    assert_eq!(fake.call(TIMEOUT, Idempotent), Err(timed_out.clone()));
    assert_eq!((fake.asked(), fake.elapsed()), (1, TIMEOUT));
    // The time is that of all tries together.
    let fake = Fake::new([(Duration::from_secs(6), Err(Retryable)), (NEVER, Ok(()))]);
    assert_eq!(fake.call(TIMEOUT, Idempotent), Err(timed_out));
    assert_eq!((fake.asked(), fake.elapsed()), (2, TIMEOUT));
}

#[test]
fn no_try_begins_that_has_too_little_time() {
    // The wait is half of the first window: 100 ms.
    let late = TIMEOUT - TRY_TIME_MIN - BACKOFF / 2;
    for (fails_after, asked) in [(late, 2), (late + MS, 1), (TIMEOUT - MS, 1)] {
        let fake = Fake::new([(fails_after, Err(Retryable)), (MS, Ok(()))]);
        let result = fake.call(TIMEOUT, Idempotent);
        assert_eq!(fake.asked(), asked, "{fails_after:?}");
        if asked == 1 {
            // At once, and with the cause, instead of waiting for the deadline.
            assert_eq!((result, fake.elapsed()), (failed(1, Retryable), fails_after));
        } else {
            assert_eq!(result.unwrap(), b"answer");
        }
    }
}

#[test]
fn an_answer_at_the_last_moment_counts() {
    let fake = Fake::new([(TIMEOUT, Ok(()))]);
    assert_eq!(fake.call(TIMEOUT, Idempotent).unwrap(), b"answer");
}
