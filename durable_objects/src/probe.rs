//! What a benchmark asks an [`AggregateStore`] beyond its messages. Only in builds with the feature `test-routes`.
//!
//! A request whose path begins with `/probe/` is one of these; answers are JSON:
//! - `commits`: the body is messages, each after its length (4 bytes, big-endian). They are handled one after the other,
//!   as if each had come by itself, but for the runtime's own work around a request.
//! - `alarm`: does at once what the alarm would do next.
//! - `state`: what is stored, and what is kept in memory.

use daphne_core::{
    store::{
        StoreError, StoreResult,
        message::{AggregateStoreRequest, AggregateStoreResponse, decode, encode},
    },
    time::{Duration, Time},
};
use js_sys::{ArrayBuffer, WebAssembly::Memory};
use serde_json::{Value, json};
use storage_proxy::random;
use wasm_bindgen::JsCast;
use worker::{Date, Request, Response, Result};

use crate::{aggregate_store::AggregateStore, alarm::now};

/// An alarm wanted later than this has nothing to do at the moment.
const SOON: Duration = Duration::from_seconds(5);

/// What a request to an object probes, if it does.
pub fn asked(request: &Request) -> Option<String> {
    request.path().strip_prefix("/probe/").map(str::to_owned)
}

impl AggregateStore {
    /// Answers a probe.
    pub async fn probe(&self, what: &str, mut request: Request) -> Result<Response> {
        let done = match what {
            "commits" => self.commits(&request.bytes().await?).await,
            "alarm" => self.alarm_now().await,
            "state" => self.state(),
            _ => Err(StoreError("no such probe".to_owned())),
        };
        match done {
            Ok(answer) => Response::from_json(&answer),
            Err(error) => Response::error(error.to_string(), 500),
        }
    }

    async fn commits(&self, mut messages: &[u8]) -> StoreResult<Value> {
        let (mut each_ms, mut committed, mut wake) = (Vec::new(), 0, None::<Time>);
        let begun = now_ms();
        while let Some((length, rest)) = messages.split_first_chunk::<4>() {
            let length = u32::from_be_bytes(*length) as usize;
            let broken = || StoreError("a message is cut off".to_owned());
            let (message, rest) = rest.split_at_checked(length).ok_or_else(broken)?;
            messages = rest;
            let begun = now_ms();
            let failed = |e| StoreError(format!("{e}"));
            let request: AggregateStoreRequest = decode(message).map_err(failed)?;
            let handled = self.store.handle(request, now(), random::bytes())?;
            let answer = encode(&handled.response).map_err(failed)?;
            each_ms.push(now_ms() - begun);
            // The answer is used, or making it might be left out of what is measured.
            committed += u32::from(
                matches!(handled.response, AggregateStoreResponse::Committed(_))
                    && !answer.is_empty(),
            );
            wake = wake.into_iter().chain(handled.wake).min();
        }
        let total_ms = now_ms() - begun;
        self.alarm.follow(wake, false, || {}).await?;
        Ok(
            json!({ "committed": committed, "total_ms": total_ms, "each_ms": each_ms, "filled": wake.is_some() }),
        )
    }

    async fn alarm_now(&self) -> StoreResult<Value> {
        let begun = now_ms();
        let alarmed = self.store.alarm(&self.objects, now()).await?;
        let again = alarmed.wake.is_some_and(|wake| wake <= now().saturating_add(SOON));
        Ok(json!({ "ms": now_ms() - begun, "again": again }))
    }

    fn state(&self) -> StoreResult<Value> {
        let failed = |e: worker::Error| StoreError(e.to_string());
        // Not through `Sql`, which is metered.
        let sql = self.alarm.state().storage().sql();
        let tables = "SELECT name FROM sqlite_master WHERE type = 'table' AND name GLOB 'job_*'";
        let mut separate_jobs = 0;
        for name in sql.exec(tables, None).map_err(failed)?.to_array::<Name>().map_err(failed)? {
            let count = format!("SELECT count(*) AS n FROM {}", name.name);
            separate_jobs +=
                sql.exec(&count, None).map_err(failed)?.one::<Count>().map_err(failed)?.n;
        }
        let memory: Memory = wasm_bindgen::memory().unchecked_into();
        let memory: ArrayBuffer = memory.buffer().unchecked_into();
        Ok(json!({
            "database_bytes": sql.database_size(),
            "resident_ids": self.store.resident_ids(),
            "separate_jobs": separate_jobs,
            "wasm_bytes": memory.byte_length(),
        }))
    }
}

#[derive(serde::Deserialize)]
struct Name {
    name: String,
}

#[derive(serde::Deserialize)]
struct Count {
    n: u32,
}

/// The clock in milliseconds, which local runtimes advance while code runs, as deployed ones do not.
fn now_ms() -> u64 {
    Date::now().as_millis()
}
