//! One service asking another.

use std::{convert::Infallible, time::Duration};

use axum::{
    Router,
    extract::Request,
    http::HeaderMap,
    routing::{get, put},
};
use epoch::Version;
use futures::{StreamExt, stream};
use reqwest::{Body, Method, Url};
use serde_json::Value;
use service_kit::{
    Problem,
    http_client::{Peer, PeerError},
    server,
};
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
async fn a_call_says_who_asks_for_whom_under_which_key_in_which_trace() {
    let peer = peer(jobs()).await;
    let call = peer.post(QUEUE, "saga:event:1").acting_for(ORGANIZATION).if_match(Version::new(2));
    let span = tracing::info_span!("caller");
    let trace = async { service_kit::telemetry::current_trace_id() }.instrument(span.clone()).await.unwrap();
    let seen: Value = call.receive().instrument(span).await.unwrap();
    assert_eq!(seen["actor"], "service:billing");
    assert_eq!(seen["tenant"], ORGANIZATION.to_string());
    assert_eq!(seen["expected"], 2);
    assert!(seen["fingerprint"].is_array());
    assert!(seen["traceparent"].as_str().unwrap().contains(&trace));
}

#[tokio::test]
async fn a_body_arrives_and_a_query_stays_one() {
    let peer = peer(jobs()).await;
    let job = CreateJob { name: "a".to_owned(), priority: 1 };
    let echoed: CreateJob = peer.call(Method::POST, "/plain-json").json(&job).receive().await.unwrap();
    assert_eq!(echoed.name, "a");
    let page: Value = peer.get(&format!("/organizations/{ORGANIZATION}/jobs?limit=2")).receive().await.unwrap();
    assert_eq!(page["items"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_refusal_keeps_its_status_and_problem() {
    let error = peer(jobs()).await.get("/nowhere").send().await.unwrap_err();
    assert_eq!(error.status().unwrap(), 404);
    assert!(!error.is_transient());
    assert!(matches!(&error, PeerError::Refused { problem, .. } if problem.kind == "/problems/not-found"));
    assert_eq!(Problem::from(error).status(), 500);
}

#[tokio::test]
async fn what_answers_no_problem_or_nothing_is_an_error_too() {
    let plain = Router::new().route("/api/v1/x", get(async || (axum::http::StatusCode::BAD_GATEWAY, "proxy")));
    let error = peer(plain).await.get("/x").send().await.unwrap_err();
    assert!(error.is_transient());
    assert!(matches!(&error, PeerError::Refused { problem, .. } if problem.detail == "proxy"));

    let unshaped = Router::new().route("/api/v1/x", get(async || "no JSON"));
    let error = peer(unshaped).await.get("/x").receive::<Value>().await.unwrap_err();
    assert!(matches!(error, PeerError::Answer { .. }));

    let nobody = Peer::new("billing", Url::parse("http://127.0.0.1:1").unwrap(), secrets()).unwrap();
    let error = nobody.get("/x").send().await.unwrap_err();
    assert!(matches!(error, PeerError::NoAnswer { .. }) && error.is_transient());
    assert_eq!(Problem::from(error).status(), 503);
}

#[tokio::test]
async fn a_call_has_a_time_limit_and_refuses_malformed_headers() {
    let slow = Router::new().route("/api/v1/x", get(async || tokio::time::sleep(Duration::from_secs(60)).await));
    let peer = peer(slow).await;
    let error = peer.get("/x").within(Duration::from_millis(50)).send().await.unwrap_err();
    assert!(matches!(error, PeerError::NoAnswer { .. }));
    let error = peer.post("/x", "two\nlines").send().await.unwrap_err();
    assert!(matches!(error, PeerError::Malformed { .. }));
}

/// 8 pieces of a body, each a quarter of a second after the one before.
fn slow_body() -> Body {
    let pieces = stream::iter(0..8).then(async |_| {
        tokio::time::sleep(Duration::from_millis(250)).await;
        Ok::<_, Infallible>("piece")
    });
    Body::wrap_stream(pieces)
}

#[tokio::test]
async fn a_long_body_may_take_longer_than_silence_may_last() {
    let count = put(async |body: axum::body::Bytes| body.len().to_string());
    let peer = peer(Router::new().route("/api/v1/x", count)).await;
    let call = peer.call(Method::PUT, "/x").body(slow_body());
    let bytes: usize = call.streaming_unless_silent(Duration::from_secs(1)).receive().await.unwrap();
    assert_eq!(bytes, 40);
}

#[tokio::test]
async fn a_service_that_takes_nothing_of_a_long_body_and_doesn_t_answer_is_given_up() {
    let deaf = put(async |_request: Request| std::future::pending::<()>().await);
    let peer = peer(Router::new().route("/api/v1/x", deaf)).await;
    let endless = Body::wrap_stream(stream::repeat_with(|| Ok::<_, Infallible>(vec![7; 65_536])));
    let call = peer.call(Method::PUT, "/x").body(endless);
    let error = call.streaming_unless_silent(Duration::from_millis(200)).send().await.unwrap_err();
    assert!(matches!(error, PeerError::Silent { .. }) && error.is_transient(), "{error}");
}

#[tokio::test]
async fn what_a_caller_had_under_these_headers_is_replaced() {
    let echo = get(async |headers: HeaderMap| headers.get_all("x-catacloud-actor").iter().count().to_string());
    let peer = peer(Router::new().route("/api/v1/x", echo)).await;
    let name = axum::http::HeaderName::from_static("x-catacloud-actor");
    let count: u32 = peer.get("/x").header(name, "operator").receive().await.unwrap();
    assert_eq!(count, 1);
}
