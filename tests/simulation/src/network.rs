//! A network whose messages wait in a pool until the schedule delivers, loses or repeats them.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use daphne_core::{
    error::AbortKind,
    ids::{AggregationJobId, TaskId},
    store::{
        CallError, Objects,
        message::{
            AggregateStoreRequest, AggregateStoreResponse, JobStoreRequest, JobStoreResponse,
            LedgerRequest, LedgerResponse,
        },
        placement::{Placement, StoreId},
    },
};

/// Names a call, and its answers.
pub type CallId = u64;

/// A body.
pub type Bytes = Rc<[u8]>;

/// What the leader sends to a Worker.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HttpRequest {
    /// Creation of an aggregation job, under this id where the leader names jobs.
    PutJob(AggregationJobId, Bytes),
    /// `DELETE` of an aggregation job.
    DeleteJob(AggregationJobId),
    /// `POST` of an aggregate-share request.
    PostShare(Bytes),
    /// `GET` of the aggregate share that was created with this request.
    GetShare(Bytes),
}

/// What a Worker answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HttpAnswer {
    /// 200 or 204.
    Ok(Bytes),
    /// A 4xx.
    Refused(AbortKind),
    /// 503: the same request will succeed later.
    Unavailable,
    /// 500: a defect.
    Broken(String),
}

/// A request to a Worker or an object.
#[derive(Clone, Debug)]
pub enum Request {
    /// To any Worker.
    Http(HttpRequest),
    /// To an `AggregateStore`.
    Store(StoreId, Box<AggregateStoreRequest>),
    /// To the ledger.
    Ledger(LedgerRequest),
    /// To a `JobStore`.
    JobStore(u16, JobStoreRequest),
}

/// An answer to a request.
#[derive(Clone, Debug)]
pub enum Answer {
    /// A Worker's.
    Http(HttpAnswer),
    /// An `AggregateStore`'s.
    Store(Box<AggregateStoreResponse>),
    /// The ledger's.
    Ledger(LedgerResponse),
    /// A `JobStore`'s.
    JobStore(JobStoreResponse),
    /// The caller learns nothing: a timeout, or an error of the platform.
    Lost,
}

/// A message on its way.
#[derive(Clone, Debug)]
pub enum Message {
    /// Towards who is called.
    Request(Request),
    /// Back to the caller.
    Answer(Answer),
}

#[derive(Default)]
struct Waiting {
    answer: Option<Answer>,
    waker: Option<Waker>,
}

#[derive(Default)]
struct State {
    next: CallId,
    /// Oldest first.
    messages: Vec<(CallId, Message)>,
    waiting: BTreeMap<CallId, Waiting>,
}

/// The messages on their way, and who waits for an answer.
#[derive(Clone, Default)]
pub struct Network(Rc<RefCell<State>>);

impl Network {
    /// Sends a request.
    pub fn call(&self, request: Request) -> Call {
        let mut state = self.0.borrow_mut();
        let id = state.next;
        state.next += 1;
        state.waiting.insert(id, Waiting::default());
        state.messages.push((id, Message::Request(request)));
        Call { network: self.clone(), id }
    }

    /// Sends an answer.
    pub fn answer(&self, id: CallId, answer: Answer) {
        self.0.borrow_mut().messages.push((id, Message::Answer(answer)));
    }

    /// Number of messages on their way.
    pub fn messages(&self) -> usize {
        self.0.borrow().messages.len()
    }

    /// Number of calls that wait for an answer.
    pub fn callers(&self) -> usize {
        self.0.borrow().waiting.len()
    }

    /// Positions of the messages that `which` picks.
    pub fn find(&self, which: impl Fn(&Message) -> bool) -> Vec<usize> {
        let state = self.0.borrow();
        (0..state.messages.len()).filter(|n| which(&state.messages[*n].1)).collect()
    }

    /// Whether there is such a message.
    pub fn any(&self, which: impl Fn(&Message) -> bool) -> bool {
        self.0.borrow().messages.iter().any(|(_, m)| which(m))
    }

    /// Takes a message off the network.
    pub fn take(&self, position: usize) -> (CallId, Message) {
        self.0.borrow_mut().messages.remove(position)
    }

    /// A copy of a message.
    pub fn copy(&self, position: usize) -> (CallId, Message) {
        self.0.borrow().messages[position].clone()
    }

    /// Hands an answer to its caller. Only the first counts, and only while the caller waits.
    pub fn deliver(&self, id: CallId, answer: Answer) {
        if let Some(waiting) = self.0.borrow_mut().waiting.get_mut(&id)
            && waiting.answer.is_none()
        {
            waiting.answer = Some(answer);
            if let Some(waker) = waiting.waker.take() {
                waker.wake();
            }
        }
    }

    /// Asks a Worker over HTTP; `None` if nothing is known of what became of it.
    pub async fn http(&self, request: HttpRequest) -> Option<HttpAnswer> {
        match self.call(Request::Http(request)).await {
            Answer::Http(answer) => Some(answer),
            _ => None,
        }
    }
}

/// Waits for the answer to a call.
pub struct Call {
    network: Network,
    id: CallId,
}

impl Future for Call {
    type Output = Answer;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answer> {
        let mut state = self.network.0.borrow_mut();
        let Some(waiting) = state.waiting.get_mut(&self.id) else {
            return Poll::Ready(Answer::Lost);
        };
        match waiting.answer.take() {
            Some(answer) => {
                state.waiting.remove(&self.id);
                Poll::Ready(answer)
            }
            None => {
                waiting.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.network.0.borrow_mut().waiting.remove(&self.id);
    }
}

fn lost() -> CallError {
    CallError::Unanswered("lost".to_owned())
}

impl Objects for Network {
    async fn store(
        &self,
        store: &StoreId,
        request: AggregateStoreRequest,
    ) -> Result<AggregateStoreResponse, CallError> {
        match self.call(Request::Store(*store, Box::new(request))).await {
            Answer::Store(answer) => Ok(*answer),
            _ => Err(lost()),
        }
    }

    async fn ledger(
        &self,
        _task: &TaskId,
        request: LedgerRequest,
    ) -> Result<LedgerResponse, CallError> {
        match self.call(Request::Ledger(request)).await {
            Answer::Ledger(answer) => Ok(answer),
            _ => Err(lost()),
        }
    }

    async fn job_store(
        &self,
        _placement: &Placement,
        shard: u16,
        request: JobStoreRequest,
    ) -> Result<JobStoreResponse, CallError> {
        match self.call(Request::JobStore(shard, request)).await {
            Answer::JobStore(answer) => Ok(answer),
            _ => Err(lost()),
        }
    }
}
