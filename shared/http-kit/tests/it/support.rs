//! A sample job service, shared with the tests of `service-host`.

use axum::{
    Json, Router,
    body::Body,
    http::{HeaderMap, Request, StatusCode},
    routing::{get, post},
};
use epoch::{ExecutionOutcome, Version};
use http_body_util::BodyExt;
use http_kit::{
    ApiJson, ApiPath, ApiQuery, Caller, Command, CommandResponse, Page, PageQuery, Problem, Role, Secrets,
    access::require,
    min_version::{MinVersion, not_reached},
    server,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tower::ServiceExt;
use uuid::Uuid;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateJob {
    pub(crate) name: String,
    pub(crate) priority: u8,
}

#[derive(Clone)]
pub(crate) struct TestResponse {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

pub(crate) fn secrets() -> Secrets {
    Secrets::new("a secret for the tests").unwrap()
}

pub(crate) fn member(organization: Uuid) -> Caller {
    Caller::key(Uuid::from_u128(7), organization, Role::Member)
}

pub(crate) fn jobs() -> Router {
    crate::init_telemetry();
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

async fn create(ApiPath(organization): ApiPath<Uuid>, command: Command<CreateJob>) -> Result<CommandResponse, Problem> {
    require(&command.caller, organization, Role::Member)?;
    Ok(CommandResponse::created(&executed(command.context.command_id, 1), |id| {
        format!("/api/v1/organizations/{organization}/jobs/{id}")
    }))
}

async fn list(
    ApiPath(organization): ApiPath<Uuid>,
    caller: Caller,
    ApiQuery(page): ApiQuery<PageQuery>,
) -> Result<Json<Page<u32>>, Problem> {
    caller.in_organization(organization)?;
    let rows = async |after: Option<u32>, limit: i64| {
        let rows = (0..5).filter(|number| after.is_none_or(|after| *number > after));
        Ok::<_, Problem>(rows.take(usize::try_from(limit).unwrap()).collect())
    };
    Ok(Json(Page::fetch(&page, |number| *number, rows).await?))
}

async fn read(
    ApiPath((organization, job)): ApiPath<(Uuid, Uuid)>,
    caller: Caller,
    ApiQuery(min): ApiQuery<MinVersion>,
) -> Result<Json<Value>, Problem> {
    caller.in_organization(organization)?;
    let reached = Version::new(3);
    match min.version() {
        Some(required) if required > reached => Err(not_reached(required, reached)),
        _ => Ok(Json(json!({ "id": job, "actor": caller.actor }))),
    }
}

async fn replace(
    ApiPath((_, job)): ApiPath<(Uuid, Uuid)>,
    command: Command<CreateJob>,
) -> Result<CommandResponse, Problem> {
    let version = command.require_version()?;
    Ok(executed(job, version.next().get()).into())
}

async fn remove(ApiPath((_, job)): ApiPath<(Uuid, Uuid)>, command: Command<()>) -> CommandResponse {
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

/// Returns a request as the console forwards it.
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

pub(crate) async fn send(router: Router, request: Request<Body>) -> TestResponse {
    let response = router.oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
    TestResponse { status: parts.status, headers: parts.headers, body }
}

/// Checks the properties of every error response.
#[track_caller]
pub(crate) fn assert_problem(response: &TestResponse, status: u16, kind: &str) {
    assert_eq!(response.status, status, "{}", response.body);
    assert_eq!(response.headers["content-type"], "application/problem+json");
    assert_eq!(response.body["type"], kind);
    assert_eq!(response.body["status"], status);
    let trace_id = response.body["trace_id"].as_str().unwrap();
    assert!(trace_id.len() == 32 && trace_id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{trace_id}");
    assert!(!response.body.to_string().contains("secret cause"));
}
