//! A client of the Worker's admin API: tasks, HPKE keys and peers.

mod peers;

pub use peers::AddedPeer;

mod keys;
mod secrets;

pub use secrets::SecretsStatus;

use daphne_core::{
    ids::TaskId,
    metrics::TaskStatus,
    task::{TaskParameters, TaskSpec},
    time::Time,
};
use serde::{Deserialize, de::DeserializeOwned};
use ureq::http::Method;

use crate::{
    Failure,
    http::{Answer, ClientError, Credential, Http, Request},
};

const JSON: &str = "application/json";
/// Tasks asked for at once when all are listed.
const PAGE: u32 = 100;

/// A client of one deployment's admin API. Nothing is retried.
#[derive(Clone, Debug)]
pub struct AdminClient {
    http: Http,
}

/// What became of a task creation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreatedTask {
    /// Whether the task is new; otherwise it existed with the same parameters.
    pub created: bool,
    /// The task.
    pub task: TaskParameters,
}

/// Some tasks, in the order of their ids.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct TaskPage {
    /// The tasks.
    pub tasks: Vec<TaskParameters>,
    /// Where the next page begins, unless this is the last.
    #[serde(default)]
    pub next: Option<TaskId>,
}

impl AdminClient {
    /// A client for the deployment at `url`, such as `http://127.0.0.1:8787`.
    ///
    /// # Errors
    /// [`Failure::Usage`] if the URL or the token is unusable.
    pub fn new(url: &str, token: &str) -> Result<Self, Failure> {
        Ok(Self { http: Http::new(url, Credential::Bearer(token))? })
    }

    /// Creates a task.
    ///
    /// # Errors
    /// [`ClientError`]; status 409 if a task with this id and other parameters exists.
    pub fn create_task(&self, spec: &TaskSpec) -> Result<CreatedTask, ClientError> {
        let body = serde_json::to_vec(spec)
            .map_err(|_| ClientError::Protocol("the task cannot be written as JSON".into()))?;
        let answer =
            self.send(Method::POST, "admin/tasks", Some(&body))?.expect(&[200, 201], None)?;
        Ok(CreatedTask { created: answer.status == 201, task: json(&answer)? })
    }

    /// At most `limit` tasks after `after`, in the order of their ids.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn list_tasks(&self, after: Option<&TaskId>, limit: u32) -> Result<TaskPage, ClientError> {
        let after = after.map(|id| format!("&after={id}")).unwrap_or_default();
        self.get(&format!("admin/tasks?limit={limit}{after}"))
    }

    /// Every task, in the order of their ids.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn all_tasks(&self) -> Result<Vec<TaskParameters>, ClientError> {
        let mut tasks = Vec::new();
        let mut after = None;
        loop {
            let page = self.list_tasks(after.as_ref(), PAGE)?;
            tasks.extend(page.tasks);
            match page.next {
                None => return Ok(tasks),
                // A server that pages in a circle must not hold us for ever.
                Some(next) if after.is_some_and(|after| next <= after) => {
                    return Err(ClientError::Protocol("the pages of tasks do not advance".into()));
                }
                next => after = next,
            }
        }
    }

    /// One task, or `None` if it does not exist.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn task(&self, id: &TaskId) -> Result<Option<TaskParameters>, ClientError> {
        absent_is_none(self.get(&format!("admin/tasks/{id}")))
    }

    /// How a task is doing, or `None` if it does not exist.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn task_status(&self, id: &TaskId) -> Result<Option<TaskStatus>, ClientError> {
        absent_is_none(self.get(&format!("admin/tasks/{id}/status")))
    }

    /// Changes when a task ends; `None` if it is not to end. Returns the task as it is then, or `None` if it does not exist.
    ///
    /// # Errors
    /// [`ClientError`]; status 409, with a sentence, if its leader brought the task.
    pub fn set_task_expiration(
        &self,
        id: &TaskId,
        expiration: Option<Time>,
    ) -> Result<Option<TaskParameters>, ClientError> {
        let body = serde_json::json!({ "task_expiration": expiration }).to_string();
        let answer =
            self.send(Method::PATCH, &format!("admin/tasks/{id}"), Some(body.as_bytes()))?;
        absent_is_none(answer.expect(&[200], None).and_then(|answer| json(&answer)))
    }

    /// Deletes a task; what it stored is removed that many seconds later, by default when its reports are too old.
    /// Returns whether it existed.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn delete_task(&self, id: &TaskId, purge_after: Option<u64>) -> Result<bool, ClientError> {
        let query = purge_after.map(|s| format!("?purge_after={s}")).unwrap_or_default();
        let answer = self.send(Method::DELETE, &format!("admin/tasks/{id}{query}"), None)?;
        Ok(absent_is_none(answer.expect(&[204], None))?.is_some())
    }

    fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        json(&self.send(Method::GET, path, None)?.expect(&[200], None)?)
    }

    fn send(&self, method: Method, path: &str, body: Option<&[u8]>) -> Result<Answer, ClientError> {
        self.http.send(&Request { method, path, content: body.map(|body| (JSON, body)) })
    }
}

fn json<T: DeserializeOwned>(answer: &Answer) -> Result<T, ClientError> {
    if answer.content_type.split(';').next().map(str::trim) != Some(JSON) {
        return Err(ClientError::Protocol("the admin API's answer is not JSON".into()));
    }
    serde_json::from_slice(&answer.body).map_err(|e| {
        ClientError::Protocol(format!(
            "the admin API's answer is not understood (line {}, column {})",
            e.line(),
            e.column()
        ))
    })
}

fn absent_is_none<T>(result: Result<T, ClientError>) -> Result<Option<T>, ClientError> {
    match result {
        Err(ClientError::Problem(problem)) if problem.status == 404 => Ok(None),
        other => other.map(Some),
    }
}
