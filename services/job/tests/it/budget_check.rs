//! Budget check before a job is queued, with a fake billing service.

use std::sync::{Arc, Mutex};

use axum::{
    Router,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::get,
};
use http_kit::{Caller, Role, Secrets};
use service_host::{telemetry::metrics_handle, testkit::SECRET};
use tokio::net::TcpListener;
use uuid::Uuid;

use crate::support::Platform;

/// Response of the fake billing service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BillingReply {
    Allowed(bool),
    Malformed,
    ServerError,
    Timeout,
}

#[derive(Clone)]
struct FakeBilling {
    reply: Arc<Mutex<BillingReply>>,
    requested: Arc<Mutex<Vec<Uuid>>>,
    url: String,
}

impl FakeBilling {
    async fn start(reply: BillingReply) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let billing = Self { reply: Arc::new(Mutex::new(reply)), requested: Arc::default(), url };
        let path = "/internal/v1/billing/organizations/{org}/standing";
        let router = Router::new().route(path, get(get_standing)).with_state(billing.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        billing
    }

    fn set_reply(&self, reply: BillingReply) {
        *self.reply.lock().unwrap() = reply;
    }
}

async fn get_standing(
    State(billing): State<FakeBilling>,
    Path(organization): Path<Uuid>,
    headers: HeaderMap,
) -> Response {
    let caller = Caller::from_headers(&headers, &Secrets::new(SECRET).unwrap()).unwrap();
    assert_eq!((caller.role, caller.actor.as_str()), (Role::Service, "service:job"));
    billing.requested.lock().unwrap().push(organization);
    let reply = *billing.reply.lock().unwrap();
    match reply {
        BillingReply::Allowed(allowed) => format!(r#"{{"jobs_allowed":{allowed}}}"#).into_response(),
        BillingReply::Malformed => r#"{"jobs_allowed":"perhaps"}"#.into_response(),
        BillingReply::ServerError => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        BillingReply::Timeout => std::future::pending().await,
    }
}

async fn start_with_billing_at(url: &str) -> (Platform, Uuid) {
    let platform = Platform::start_with(&["--billing-url", url]).await;
    let configuration = platform.define("Checksum").await;
    (platform, configuration)
}

/// Returns how many jobs this process allowed without an answer from billing.
fn failed_checks() -> u64 {
    let rendered = metrics_handle().unwrap().render();
    let line = rendered.lines().find_map(|line| line.strip_prefix("job_standing_unknown_total "));
    line.map_or(0, |count| count.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn queue_job_is_rejected_when_budget_is_used_up() {
    let billing = FakeBilling::start(BillingReply::Allowed(true)).await;
    let (platform, configuration) = start_with_billing_at(&billing.url).await;
    let (first, second) = (platform.create(configuration, &[]).await, platform.create(configuration, &[]).await);
    let queue = |job: Uuid, key: &str| platform.post(&format!("jobs/{job}/queue")).header("idempotency-key", key);
    queue(first, "first").send().await.is(200);

    billing.set_reply(BillingReply::Allowed(false));
    let before = platform.event_count().await;
    let problem = queue(second, "second").send().await.problem(409);
    assert_eq!(problem["type"], "/problems/budget-used-up");
    assert_eq!(
        (platform.event_count().await, platform.get_job(second).await["status"].as_str()),
        (before, Some("created"))
    );
    assert_eq!(platform.claim(Uuid::now_v7(), 5_000).await.expect(200).json()["job_id"], first.to_string());
    platform.claim(Uuid::now_v7(), 0).await.is(204);
    // A job queued before stays queued: the repeated request returns its first result.
    queue(first, "first").send().await.is(200);

    // The rejection is not stored as the result of the command.
    billing.set_reply(BillingReply::Allowed(true));
    queue(second, "second").send().await.is(200);
    assert_eq!(platform.get_job(second).await["status"], "queued");
    assert!(billing.requested.lock().unwrap().iter().all(|organization| *organization == platform.organization));
    platform.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn queue_job_is_allowed_and_counted_when_billing_fails() {
    let billing = FakeBilling::start(BillingReply::ServerError).await;
    let (platform, configuration) = start_with_billing_at(&billing.url).await;
    for reply in [BillingReply::ServerError, BillingReply::Malformed, BillingReply::Timeout] {
        billing.set_reply(reply);
        let (job, before) = (platform.create(configuration, &[]).await, failed_checks());
        platform.queue(job).await;
        assert_eq!(platform.get_job(job).await["status"], "queued", "{reply:?}");
        assert!(failed_checks() > before, "{reply:?} is not counted");
    }
    platform.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn queue_job_is_allowed_and_counted_without_billing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let (platform, configuration) = start_with_billing_at(&url).await;
    let (job, before) = (platform.create(configuration, &[]).await, failed_checks());
    platform.queue(job).await;
    assert_eq!(platform.get_job(job).await["status"], "queued");
    assert!(failed_checks() > before);
    platform.close().await;
}
