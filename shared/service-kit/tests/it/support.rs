//! A small service to ask.

use axum::{
    Json, Router,
    body::Body,
    http::{HeaderMap, Request, StatusCode},
    routing::{get, post},
};
use epoch::{ExecutionOutcome, Version};
use http_body_util::BodyExt;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use service_kit::{
    ApiJson, ApiPath, ApiQuery, Caller, Changed, Command, Page, PageQuery, Problem, Role, Secrets, config::LogArgs,
    min_version::MinVersion, server, telemetry,
};
use tower::ServiceExt;
use uuid::Uuid;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateJob {
    pub(crate) name: String,
    pub(crate) priority: u8,
}

#[derive(Clone)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

pub(crate) fn secrets() -> Secrets {
    Secrets::new("a secret for the tests").unwrap()
}

/// A member of `organization`.
pub(crate) fn member(organization: Uuid) -> Caller {
    Caller::key(Uuid::from_u128(7), organization, Role::Member)
}

pub(crate) fn jobs() -> Router {
    let log = LogArgs { log: Some("off".to_owned()), ..LogArgs::default() };
    // Nothing is exported, so nothing ends when the guard goes.
    drop(telemetry::init("test", &log).unwrap());
    let routes = Router::new()
        .route("/organizations/{organization}/jobs", post(create).get(list))
        .route("/organizations/{organization}/jobs/{job}", get(read).put(replace).delete(remove))
        .route("/organizations/{organization}/jobs/{job}/queue", post(queue))
        .route("/plain-json", post(async |ApiJson(body): ApiJson<CreateJob>| Json(body)))
        .route("/framework-json", post(async |Json(body): Json<CreateJob>| Json(body)))
        .route("/framework-path/{id}", get(async |path: axum::extract::Path<Uuid>| path.to_string()))
        .route("/panic", get(async || -> () { panic!("secret cause") }))
        .route("/internal", get(async || Problem::internal("secret cause")))
        .layer(server::bounded())
        .with_state(secrets());
    server::finish(Router::new().nest("/api/v1", routes))
}

async fn create(ApiPath(organization): ApiPath<Uuid>, command: Command<CreateJob>) -> Result<Changed, Problem> {
    command.caller.in_organization(organization)?;
    command.caller.at_least(Role::Member)?;
    Ok(Changed::created(&executed(command.context.command_id, 1), |id| {
        format!("/api/v1/organizations/{organization}/jobs/{id}")
    }))
}

async fn list(
    ApiPath(organization): ApiPath<Uuid>,
    caller: Caller,
    ApiQuery(page): ApiQuery<PageQuery>,
) -> Result<Json<Page<u32>>, Problem> {
    caller.in_organization(organization)?;
    let (after, limit) = (page.after::<u32>()?, page.limit()?);
    let rows = (0..5).filter(|number| after.is_none_or(|after| *number > after)).take(limit + 1);
    Ok(Json(Page::of(rows.collect(), limit, |number| *number)?))
}

async fn read(
    ApiPath((organization, job)): ApiPath<(Uuid, Uuid)>,
    caller: Caller,
    ApiQuery(min): ApiQuery<MinVersion>,
) -> Result<Json<Value>, Problem> {
    caller.in_organization(organization)?;
    let reached = Version::new(3);
    match min.version() {
        Some(wanted) if wanted > reached => Err(service_kit::min_version::not_reached(wanted, reached)),
        _ => Ok(Json(json!({ "id": job, "actor": caller.actor }))),
    }
}

async fn replace(ApiPath((_, job)): ApiPath<(Uuid, Uuid)>, command: Command<CreateJob>) -> Result<Changed, Problem> {
    let version = command.require_version()?;
    Ok(executed(job, version.next().get()).into())
}

async fn remove(ApiPath((_, job)): ApiPath<(Uuid, Uuid)>, command: Command<()>) -> Changed {
    let repeatable = u64::from(command.context.idempotency.is_some());
    executed(job, repeatable).into()
}

async fn queue(ApiPath((_, job)): ApiPath<(Uuid, Uuid)>, command: Command<()>) -> Json<Value> {
    let context = command.context;
    Json(json!({
        "job": job,
        "command_id": context.command_id,
        "fingerprint": context.idempotency.map(|idempotency| idempotency.fingerprint),
        "tenant": context.tenant,
        "actor": context.actor.as_deref(),
        "traceparent": context.trace_context.as_deref(),
        "expected": context.expected,
    }))
}

fn executed(aggregate_id: Uuid, version: u64) -> ExecutionOutcome {
    ExecutionOutcome { aggregate_id, version: Version::new(version), appended: 1, repeated: false }
}

/// A request as the door would pass it on.
pub(crate) fn request(
    caller: &Caller,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut request = request.body(Body::from(body.to_owned())).unwrap();
    caller.write_to(request.headers_mut(), &secrets()).unwrap();
    request
}

pub(crate) async fn answer(router: Router, request: Request<Body>) -> Answer {
    let response = router.oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
    Answer { status: parts.status, headers: parts.headers, body }
}

/// Checks what holds for every error.
#[track_caller]
pub(crate) fn assert_problem(answer: &Answer, status: u16, kind: &str) {
    assert_eq!(answer.status, status, "{}", answer.body);
    assert_eq!(answer.headers["content-type"], "application/problem+json");
    assert_eq!(answer.body["type"], kind);
    assert_eq!(answer.body["status"], status);
    let trace_id = answer.body["trace_id"].as_str().unwrap();
    assert!(trace_id.len() == 32 && trace_id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{trace_id}");
    assert!(!answer.body.to_string().contains("secret cause"));
}
