//! The Worker: routes DAP requests, authenticates them, caps and reads their bodies, and answers as the core decides.
//!
//! A request's way: [`router`] finds the route, [`app`] dispatches, [`dap`], [`admin`] or [`aggregator_api`] handles,
//! [`respond`] turns results and errors into HTTP. Verification runs here, where CPU is cheap and scales out; stored state is behind
//! [`storage_proxy`], in the [`durable_objects`].

mod admin;
mod admission;
mod aggregator_api;
mod app;
mod body;
mod build_info;
mod credentials;
mod dap;
mod json;
mod limits;
mod log;
mod metrics;
mod respond;
mod router;

#[cfg(feature = "test-routes")]
mod test_routes;

pub use durable_objects::{AggregateStore, ConfigStore, JobStore, TaskLedger};

use worker::{Context, Env, Request, Response, Result, event};

#[event(fetch)]
async fn fetch(request: Request, env: Env, _context: Context) -> Result<Response> {
    app::handle(request, env).await
}
