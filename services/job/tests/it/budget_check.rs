//! What billing says before a job is queued, and what happens while it says nothing.

use std::sync::{Arc, Mutex};

use axum::{
    Router,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::get,
};
use service_kit::{Caller, Role, Secrets, telemetry::metrics_handle, testkit::SECRET};
use tokio::net::TcpListener;
use uuid::Uuid;

use crate::support::Platform;

/// What billing's door for the job service answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Says {
    Allowed(bool),
    Nonsense,
    Failure,
    Nothing,
}

#[derive(Clone)]
struct Billing {
    says: Arc<Mutex<Says>>,
    asked_about: Arc<Mutex<Vec<Uuid>>>,
    url: String,
}

impl Billing {
    async fn start(says: Says) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let billing = Self { says: Arc::new(Mutex::new(says)), asked_about: Arc::default(), url };
        let path = "/internal/v1/billing/organizations/{org}/standing";
        let router = Router::new().route(path, get(standing)).with_state(billing.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        billing
    }

    fn now_says(&self, says: Says) {
        *self.says.lock().unwrap() = says;
    }
}

async fn standing(State(billing): State<Billing>, Path(organization): Path<Uuid>, headers: HeaderMap) -> Response {
    let caller = Caller::from_headers(&headers, &Secrets::new(SECRET).unwrap()).unwrap();
    assert_eq!((caller.role, caller.actor.as_str()), (Role::Service, "service:job"));
    billing.asked_about.lock().unwrap().push(organization);
    let says = *billing.says.lock().unwrap();
    match says {
        Says::Allowed(allowed) => format!(r#"{{"jobs_allowed":{allowed}}}"#).into_response(),
        Says::Nonsense => r#"{"jobs_allowed":"perhaps"}"#.into_response(),
        Says::Failure => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        Says::Nothing => std::future::pending().await,
    }
}

async fn beside(url: &str) -> (Platform, Uuid) {
    let platform = Platform::start_with(&["--billing-url", url]).await;
    let configuration = platform.define("Checksum").await;
    (platform, configuration)
}

/// How often a job went on although billing could not be asked, in this process.
fn unknown() -> u64 {
    let rendered = metrics_handle().unwrap().render();
    let line = rendered.lines().find_map(|line| line.strip_prefix("job_standing_unknown_total "));
    line.map_or(0, |count| count.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_that_is_used_up_and_stops_jobs_refuses_them() {
    let billing = Billing::start(Says::Allowed(true)).await;
    let (platform, configuration) = beside(&billing.url).await;
    let (first, second) = (platform.create(configuration, &[]).await, platform.create(configuration, &[]).await);
    let queue = |job: Uuid, key: &str| platform.post(&format!("jobs/{job}/queue")).header("idempotency-key", key);
    queue(first, "first").send().await.is(200);

    billing.now_says(Says::Allowed(false));
    let before = platform.appended().await;
    let problem = queue(second, "second").send().await.problem(409);
    assert_eq!(problem["type"], "/problems/budget-used-up");
    assert_eq!((platform.appended().await, platform.job(second).await["status"].as_str()), (before, Some("created")));
    assert_eq!(platform.claim(Uuid::now_v7(), 5_000).await.expect(200).json()["job_id"], first.to_string());
    platform.claim(Uuid::now_v7(), 0).await.is(204);
    // What was queued before stays queued: the same request again has the same answer.
    queue(first, "first").send().await.is(200);

    // The refusal isn't remembered.
    billing.now_says(Says::Allowed(true));
    queue(second, "second").send().await.is(200);
    assert_eq!(platform.job(second).await["status"], "queued");
    assert!(billing.asked_about.lock().unwrap().iter().all(|asked| *asked == platform.organization));
    platform.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_billing_does_not_say_jobs_go_on_and_are_counted() {
    let billing = Billing::start(Says::Failure).await;
    let (platform, configuration) = beside(&billing.url).await;
    for says in [Says::Failure, Says::Nonsense, Says::Nothing] {
        billing.now_says(says);
        let (job, before) = (platform.create(configuration, &[]).await, unknown());
        platform.queue(job).await;
        assert_eq!(platform.job(job).await["status"], "queued", "{says:?}");
        assert!(unknown() > before, "{says:?} isn't counted");
    }
    platform.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_billing_is_away_jobs_go_on_and_are_counted() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let (platform, configuration) = beside(&url).await;
    let (job, before) = (platform.create(configuration, &[]).await, unknown());
    platform.queue(job).await;
    assert_eq!(platform.job(job).await["status"], "queued");
    assert!(unknown() > before);
    platform.close().await;
}
