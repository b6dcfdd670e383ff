//! `/livez`, `/readyz`, `/metrics`, and the subcommand that asks.

use axum::{Router, body::Body, http::Request};
use http_body_util::BodyExt;
use service_kit::{
    health::Health,
    healthcheck::{self, HealthcheckError},
    server, telemetry,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::support::{Answer, answer, jobs, member, request};

fn probed(health: &Health) -> Router {
    jobs().merge(health.router(telemetry::metrics_handle().unwrap()))
}

async fn get(router: Router, path: &str) -> Answer {
    answer(router, Request::get(path).body(Body::empty()).unwrap()).await
}

#[tokio::test]
async fn say_which_part_is_not_well() {
    let health = Health::new();
    health.add_check("postgres", async || Err("connection refused".to_owned()));
    let consumer = health.add_flag("consumer");

    let ready = get(probed(&health), "/readyz").await;
    assert_eq!(ready.status, 503);
    assert_eq!(ready.body["checks"][0]["name"], "postgres");
    assert_eq!(ready.body["checks"][0]["detail"], "connection refused");
    assert_eq!(get(probed(&health), "/livez").await.status, 200);

    consumer.fail("stuck");
    let live = get(probed(&health), "/livez").await;
    assert_eq!(live.status, 503);
    assert_eq!(live.body["checks"][0]["detail"], "stuck");
}

#[tokio::test]
async fn count_requests_by_route() {
    let path = "/api/v1/organizations/00000000-0000-0000-0000-000000000001/jobs";
    answer(jobs(), request(&member(uuid::Uuid::from_u128(1)), "GET", path, &[], "")).await;
    let metrics = probed(&Health::new()).oneshot(Request::get("/metrics").body(Body::empty()).unwrap()).await.unwrap();
    let text = metrics.into_body().collect().await.unwrap().to_bytes();
    let text = std::str::from_utf8(&text).unwrap();
    let route = r#"route="/api/v1/organizations/{organization}/jobs""#;
    assert!(text.lines().any(|line| line.starts_with("http_requests_total") && line.contains(route)), "{text}");
    assert!(text.contains("http_request_duration_seconds_bucket"));
}

#[tokio::test]
async fn the_subcommand_tells_ready_from_not() {
    let health = Health::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let server = tokio::spawn(server::serve(listener, probed(&health), stop.clone()));
    healthcheck::check(address).await.unwrap();

    health.add_check("bus", async || Err("no broker".to_owned()));
    let error = healthcheck::check(address).await.unwrap_err();
    assert!(matches!(&error, HealthcheckError::NotReady { report, .. } if report.contains("no broker")), "{error}");

    stop.cancel();
    server.await.unwrap().unwrap();
    assert!(matches!(healthcheck::check(address).await, Err(HealthcheckError::NoAnswer { .. })));
}
