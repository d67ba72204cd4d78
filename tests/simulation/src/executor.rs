//! Runs futures on one thread, in an order that is always the same. No clock, no threads: whoever waits, waits for a
//! message, and the schedule says when that comes.

use std::{
    cell::RefCell,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use crate::network::CallId;

/// Where a future runs. What dies together is one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host {
    /// The leader: it never dies.
    Leader,
    /// A Worker, for one request.
    Worker,
    /// The ledger: all of its futures die at once.
    Ledger,
    /// The ledger's alarm, which the platform runs again if it dies.
    Alarm,
    /// The alarms of stores.
    StoreAlarm,
}

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

struct Process {
    host: Host,
    serves: Option<CallId>,
    woken: Arc<Woken>,
    future: Pin<Box<dyn Future<Output = ()>>>,
}

/// All futures of a schedule.
#[derive(Default)]
pub struct Executor {
    processes: RefCell<Vec<Process>>,
    spawned: RefCell<Vec<Process>>,
}

impl Executor {
    /// Adds a future. `serves` is the call that waits for it.
    pub fn spawn(
        &self,
        host: Host,
        serves: Option<CallId>,
        future: impl Future<Output = ()> + 'static,
    ) {
        let woken = Arc::new(Woken(AtomicBool::new(true)));
        self.spawned.borrow_mut().push(Process { host, serves, woken, future: Box::pin(future) });
    }

    /// Polls what was woken, until nothing is.
    pub fn run(&self) {
        let mut processes = self.processes.borrow_mut();
        loop {
            processes.append(&mut self.spawned.borrow_mut());
            let mut polled = false;
            processes.retain_mut(|process| {
                if !process.woken.0.swap(false, Ordering::Relaxed) {
                    return true;
                }
                polled = true;
                let waker = Waker::from(process.woken.clone());
                process.future.as_mut().poll(&mut Context::from_waker(&waker)) == Poll::Pending
            });
            if !polled && self.spawned.borrow().is_empty() {
                return;
            }
        }
    }

    /// Number of futures on a host.
    pub fn running(&self, host: Host) -> usize {
        self.processes.borrow().iter().filter(|p| p.host == host).count()
    }

    /// Drops the `n`-th future on a host; returns the call that waits for it.
    pub fn kill(&self, host: Host, n: usize) -> Option<CallId> {
        let mut processes = self.processes.borrow_mut();
        let at = processes.iter().enumerate().filter(|(_, p)| p.host == host).nth(n)?.0;
        let process = processes.remove(at);
        drop(processes);
        process.serves
    }

    /// Drops all futures on a host; returns the calls that wait for them.
    pub fn kill_all(&self, host: Host) -> Vec<CallId> {
        let (dead, alive) =
            self.processes.borrow_mut().drain(..).partition(|p: &Process| p.host == host);
        *self.processes.borrow_mut() = alive;
        dead.into_iter().filter_map(|p: Process| p.serves).collect()
    }

    /// Drops everything: futures hold what holds the executor.
    pub fn clear(&self) {
        let processes: Vec<Process> = self.processes.borrow_mut().drain(..).collect();
        drop(processes);
        self.spawned.borrow_mut().clear();
    }
}

/// Wakes who waits for a condition.
#[derive(Default)]
pub struct Signal(RefCell<Vec<Waker>>);

impl Signal {
    /// Something changed.
    pub fn notify(&self) {
        self.0.borrow_mut().drain(..).for_each(Waker::wake);
    }

    /// Waits until `condition` holds; it is looked at after each change.
    pub async fn until(&self, condition: impl Fn() -> bool) {
        std::future::poll_fn(|cx| {
            if condition() {
                return Poll::Ready(());
            }
            self.0.borrow_mut().push(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}
