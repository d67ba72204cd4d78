//! The objects of a server, reached through its test routes.

use daphne_core::{
    ids::TaskId,
    store::{
        CallError, Objects,
        message::{
            AggregateStoreRequest, AggregateStoreResponse, JobStoreRequest, JobStoreResponse,
            LedgerRequest, LedgerResponse,
        },
        placement::{Placement, StoreId},
    },
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::client::Client;

/// Durable Objects over HTTP. Calls block.
pub struct RemoteObjects(pub Client);

impl RemoteObjects {
    fn call<A: DeserializeOwned>(&self, name: &str, message: &Value) -> Result<A, CallError> {
        let body = message.to_string();
        let path = format!("/internal/test/{name}");
        let answer = self
            .0
            .send("POST", &path, &[], Some(body.as_bytes()))
            .map_err(|e| CallError::Unanswered(e.to_string()))?;
        if answer.status != 200 {
            return Err(CallError::Unanswered(format!("{}: {}", answer.status, answer.text())));
        }
        serde_json::from_slice(&answer.body).map_err(|e| CallError::Unanswered(e.to_string()))
    }
}

impl Objects for RemoteObjects {
    async fn store(
        &self,
        store: &StoreId,
        request: AggregateStoreRequest,
    ) -> Result<AggregateStoreResponse, CallError> {
        self.call("store", &json!({ "store": store, "request": request }))
    }

    async fn ledger(
        &self,
        task: &TaskId,
        request: LedgerRequest,
    ) -> Result<LedgerResponse, CallError> {
        self.call("ledger", &json!({ "task": task, "request": request }))
    }

    async fn job_store(
        &self,
        placement: &Placement,
        shard: u16,
        request: JobStoreRequest,
    ) -> Result<JobStoreResponse, CallError> {
        self.call("job", &json!({ "placement": placement, "shard": shard, "request": request }))
    }
}
