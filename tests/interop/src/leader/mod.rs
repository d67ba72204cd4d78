//! A leader of one task over HTTP, for tests: DAP-09 §4.4 and §4.6.1. It keeps everything in memory.

mod aggregation;
mod desk;

use std::{net::Ipv4Addr, sync::Arc};

use axum::{
    Router,
    body::Bytes,
    extract::{Path, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing,
};
use daphne_core::{
    codec::Writer,
    hpke::HpkeConfigList,
    ids::BatchId,
    version::{DapVersion, Message},
};
use e2e::{World, server::random_token};
use url::Url;

use crate::runtime;
use desk::{Desk, Reply};

/// The leader of a [`World`]'s task, listening on a port of this machine until the process ends.
pub struct Leader {
    desk: Arc<Desk>,
    url: Url,
}

impl Leader {
    /// Starts the leader of a task.
    pub fn start(world: World) -> Self {
        let desk = Arc::new(Desk::new(world, random_token()));
        let routes = Router::new()
            .route("/hpke_config", routing::get(hpke_config))
            .route("/tasks/{task}/reports", routing::put(upload))
            .route(
                "/tasks/{task}/collection_jobs/{job}",
                routing::put(collect).post(poll).delete(abandon),
            )
            .with_state(desk.clone());
        let listener = runtime()
            .block_on(tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
            .expect("a free port");
        let address = listener.local_addr().expect("a port");
        let url = Url::parse(&format!("http://{address}/")).expect("a URL");
        runtime().spawn(async move { axum::serve(listener, routes).await });
        Self { desk, url }
    }

    /// Where clients and collectors find it.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// The task and its parties.
    pub fn world(&self) -> &World {
        &self.desk.world
    }

    /// What the collector presents.
    pub fn collector_token(&self) -> &str {
        &self.desk.collector_token
    }

    /// The batches of a leader-selected task, in the order in which they were opened.
    pub fn batches(&self) -> Vec<BatchId> {
        self.desk.batches()
    }

    /// The encoded reports that were uploaded, in the order of their ids.
    pub fn reports(&self) -> Vec<Vec<u8>> {
        self.desk.reports()
    }
}

fn media_type(message: Message) -> &'static str {
    DapVersion::V09.media_type(message).expect("a message of DAP-09")
}

impl IntoResponse for Reply {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).expect("a status");
        let mut headers = HeaderMap::new();
        if let Some(media_type) = self.media_type {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
        }
        if status == StatusCode::ACCEPTED {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("0"));
        }
        (status, headers, self.body).into_response()
    }
}

/// Does at the desk, which may speak with the helper, what must not hold up others.
async fn at_desk(desk: Arc<Desk>, work: impl FnOnce(&Desk) -> Reply + Send + 'static) -> Reply {
    tokio::task::spawn_blocking(move || work(&desk)).await.expect("the leader does not panic")
}

async fn hpke_config(State(desk): State<Arc<Desk>>) -> Reply {
    let mut w = Writer::new();
    HpkeConfigList(vec![desk.world.leader_keys.config().clone()]).write(&mut w);
    let list = w.finish().expect("a short list");
    Reply { status: 200, media_type: Some(media_type(Message::HpkeConfigList)), body: list }
}

async fn upload(
    State(desk): State<Arc<Desk>>,
    Path(task): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Reply {
    at_desk(desk, move |desk| {
        if let Err(refusal) = desk.check(&task, &headers, Some(Message::Report)) {
            return refusal;
        }
        desk.upload(&body)
    })
    .await
}

async fn collect(
    State(desk): State<Arc<Desk>>,
    Path((task, job)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Reply {
    at_desk(desk, move |desk| {
        let message = Some(Message::CollectionJobRequest);
        match desk.check(&task, &headers, message).and_then(|()| desk.authorize(&headers)) {
            Ok(()) => desk.collect(&job, &body),
            Err(refusal) => refusal,
        }
    })
    .await
}

async fn poll(
    State(desk): State<Arc<Desk>>,
    Path((task, job)): Path<(String, String)>,
    headers: HeaderMap,
) -> Reply {
    at_desk(desk, move |desk| {
        match desk.check(&task, &headers, None).and_then(|()| desk.authorize(&headers)) {
            Ok(()) => desk.poll(&job),
            Err(refusal) => refusal,
        }
    })
    .await
}

async fn abandon(
    State(desk): State<Arc<Desk>>,
    Path((task, job)): Path<(String, String)>,
    headers: HeaderMap,
) -> Reply {
    at_desk(desk, move |desk| {
        match desk.check(&task, &headers, None).and_then(|()| desk.authorize(&headers)) {
            Ok(()) => desk.abandon(&job),
            Err(refusal) => refusal,
        }
    })
    .await
}

/// The value of a header, or an empty string.
fn text(headers: &HeaderMap, name: HeaderName) -> &str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}
