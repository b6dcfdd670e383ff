//! Calls from one service to another.

use std::{convert::Infallible, time::Duration};

use axum::{
    Router,
    extract::Request,
    http::HeaderMap,
    routing::{get, put},
};
use epoch::Version;
use futures::{StreamExt, stream};
use http_kit::{Problem, server, trace_context};
use reqwest::{Body, Method, Url};
use serde_json::Value;
use service_host::peer::{Peer, PeerError};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;
use uuid::Uuid;

use crate::support::{CreateJob, jobs, secrets};

const ORGANIZATION: Uuid = Uuid::from_u128(1);
const QUEUE: &str =
    "/organizations/00000000-0000-0000-0000-000000000001/jobs/00000000-0000-0000-0000-000000000002/queue";

async fn peer(router: Router) -> Peer {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = Url::parse(&format!("http://{}/api/v1/", listener.local_addr().unwrap())).unwrap();
    tokio::spawn(server::serve(listener, router, CancellationToken::new()));
    Peer::new("billing", base, secrets()).unwrap()
}

#[tokio::test]
async fn call_carries_caller_tenant_key_version_and_trace() {
    let peer = peer(jobs()).await;
    let call = peer.post(QUEUE, "saga:event:1").acting_for(ORGANIZATION).if_match(Version::new(2));
    let span = tracing::info_span!("caller");
    let trace = async { trace_context::current_trace_id() }.instrument(span.clone()).await.unwrap();
    let received: Value = call.receive().instrument(span).await.unwrap();
    assert_eq!(received["actor"], "service:billing");
    assert_eq!(received["tenant"], ORGANIZATION.to_string());
    assert_eq!(received["expected"], 2);
    assert!(received["fingerprint"].is_array());
    assert!(received["traceparent"].as_str().unwrap().contains(&trace));
}

#[tokio::test]
async fn call_sends_body_and_query() {
    let peer = peer(jobs()).await;
    let job = CreateJob { name: "a".to_owned(), priority: 1 };
    let echoed: CreateJob = peer.call(Method::POST, "/plain-json").json(&job).receive().await.unwrap();
    assert_eq!(echoed.name, "a");
    let page: Value = peer.get(&format!("/organizations/{ORGANIZATION}/jobs?limit=2")).receive().await.unwrap();
    assert_eq!(page["items"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn refusal_keeps_status_and_problem() {
    let error = peer(jobs()).await.get("/nowhere").send().await.unwrap_err();
    assert_eq!(error.status().unwrap(), 404);
    assert!(!error.is_transient());
    assert!(matches!(&error, PeerError::Refused { problem, .. } if problem.kind == "/problems/not-found"));
    assert_eq!(Problem::from(error).status(), 500);
}

#[tokio::test]
async fn non_problem_response_or_no_response_is_an_error() {
    let plain = Router::new().route("/api/v1/x", get(async || (axum::http::StatusCode::BAD_GATEWAY, "proxy")));
    let error = peer(plain).await.get("/x").send().await.unwrap_err();
    assert!(error.is_transient());
    assert!(matches!(&error, PeerError::Refused { problem, .. } if problem.detail == "proxy"));

    let malformed = Router::new().route("/api/v1/x", get(async || "no JSON"));
    let error = peer(malformed).await.get("/x").receive::<Value>().await.unwrap_err();
    assert!(matches!(error, PeerError::MalformedResponse { .. }));

    let absent = Peer::new("billing", Url::parse("http://127.0.0.1:1").unwrap(), secrets()).unwrap();
    let error = absent.get("/x").send().await.unwrap_err();
    assert!(matches!(error, PeerError::NoResponse { .. }) && error.is_transient());
    assert_eq!(Problem::from(error).status(), 503);
}

#[tokio::test]
async fn call_has_a_time_limit_and_refuses_bad_headers() {
    let slow = Router::new().route("/api/v1/x", get(async || tokio::time::sleep(Duration::from_secs(60)).await));
    let peer = peer(slow).await;
    let error = peer.get("/x").within(Duration::from_millis(50)).send().await.unwrap_err();
    assert!(matches!(error, PeerError::NoResponse { .. }));
    let error = peer.post("/x", "two\nlines").send().await.unwrap_err();
    assert!(matches!(error, PeerError::Malformed { .. }));
}

/// Returns a body of 8 chunks, one every 250 ms.
fn slow_body() -> Body {
    let chunks = stream::iter(0..8).then(async |_| {
        tokio::time::sleep(Duration::from_millis(250)).await;
        Ok::<_, Infallible>("chunk")
    });
    Body::wrap_stream(chunks)
}

#[tokio::test]
async fn long_body_may_exceed_the_idle_limit() {
    let count = put(async |body: axum::body::Bytes| body.len().to_string());
    let peer = peer(Router::new().route("/api/v1/x", count)).await;
    let call = peer.call(Method::PUT, "/x").body(slow_body());
    let bytes: usize = call.streaming_with_idle_limit(Duration::from_secs(1)).receive().await.unwrap();
    assert_eq!(bytes, 40);
}

#[tokio::test]
async fn idle_peer_fails_the_call() {
    let stuck = put(async |_request: Request| std::future::pending::<()>().await);
    let peer = peer(Router::new().route("/api/v1/x", stuck)).await;
    let endless = Body::wrap_stream(stream::repeat_with(|| Ok::<_, Infallible>(vec![7; 65_536])));
    let call = peer.call(Method::PUT, "/x").body(endless);
    let error = call.streaming_with_idle_limit(Duration::from_millis(200)).send().await.unwrap_err();
    assert!(matches!(error, PeerError::Idle { .. }) && error.is_transient(), "{error}");
}

#[tokio::test]
async fn caller_headers_are_replaced() {
    let echo = get(async |headers: HeaderMap| headers.get_all("x-catacloud-actor").iter().count().to_string());
    let peer = peer(Router::new().route("/api/v1/x", echo)).await;
    let name = axum::http::HeaderName::from_static("x-catacloud-actor");
    let count: u32 = peer.get("/x").header(name, "operator").receive().await.unwrap();
    assert_eq!(count, 1);
}
