//! `/livez`, `/readyz`, `/metrics` and the `healthcheck` subcommand.

use axum::{Router, body::Body, http::Request};
use http_body_util::BodyExt;
use http_kit::server;
use service_host::{
    health::Health,
    healthcheck::{self, HealthcheckError},
    telemetry,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::support::{TestResponse, jobs, member, request, send};

fn with_probes(health: &Health) -> Router {
    jobs().merge(health.router(telemetry::metrics_handle().unwrap()))
}

async fn get(router: Router, path: &str) -> TestResponse {
    send(router, Request::get(path).body(Body::empty()).unwrap()).await
}

#[tokio::test]
async fn probe_names_the_failing_check() {
    let health = Health::new();
    health.add_check("postgres", async || Err("connection refused".to_owned()));
    let consumer = health.add_flag("consumer");

    let ready = get(with_probes(&health), "/readyz").await;
    assert_eq!(ready.status, 503);
    assert_eq!(ready.body["checks"][0]["name"], "postgres");
    assert_eq!(ready.body["checks"][0]["detail"], "connection refused");
    assert_eq!(get(with_probes(&health), "/livez").await.status, 200);

    consumer.fail("stuck");
    let live = get(with_probes(&health), "/livez").await;
    assert_eq!(live.status, 503);
    assert_eq!(live.body["checks"][0]["detail"], "stuck");
}

#[tokio::test]
async fn metrics_count_requests_by_route() {
    let path = "/api/v1/organizations/00000000-0000-0000-0000-000000000001/jobs";
    send(jobs(), request(&member(uuid::Uuid::from_u128(1)), "GET", path, &[], "")).await;
    let metrics =
        with_probes(&Health::new()).oneshot(Request::get("/metrics").body(Body::empty()).unwrap()).await.unwrap();
    let text = metrics.into_body().collect().await.unwrap().to_bytes();
    let text = std::str::from_utf8(&text).unwrap();
    let route = r#"route="/api/v1/organizations/{organization}/jobs""#;
    assert!(text.lines().any(|line| line.starts_with("http_requests_total") && line.contains(route)), "{text}");
    assert!(text.contains("http_request_duration_seconds_bucket"));
}

#[tokio::test]
async fn healthcheck_reports_readiness() {
    let health = Health::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let server = tokio::spawn(server::serve(listener, with_probes(&health), stop.clone()));
    healthcheck::check(address).await.unwrap();

    health.add_check("bus", async || Err("no broker".to_owned()));
    let error = healthcheck::check(address).await.unwrap_err();
    assert!(matches!(&error, HealthcheckError::NotReady { report, .. } if report.contains("no broker")), "{error}");

    stop.cancel();
    server.await.unwrap().unwrap();
    assert!(matches!(healthcheck::check(address).await, Err(HealthcheckError::NoResponse { .. })));
}
