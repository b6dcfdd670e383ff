//! Fake services and a gateway in front of them.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Json, Router,
    body::to_bytes,
    extract::{Request, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::{any, get, post},
};
use console::{Console, Settings, Upstream, Upstreams};
use http_kit::{Caller, Problem, Role, Secrets, api_key::ApiKey, server};
use reqwest::{Client, Method, RequestBuilder};
use serde::Deserialize;
use serde_json::{Value, json};
use service_host::{config::LogArgs, health::Health, telemetry};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};
use utoipa::openapi::OpenApi;
use uuid::Uuid;

pub(crate) const ADMIN_KEY: &str = "cadm_0123456789abcdef0123456789abcdef";
pub(crate) const ORGANIZATION: Uuid = Uuid::from_u128(0x0198_c0de_0000_7000_8000_0000_0000_0001);
pub(crate) const UPLOAD: &str = "/api/v1/organizations/0198c0de-0000-7000-8000-000000000001/uploads/1";

/// Location of the services.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deployment {
    /// Separate processes, reached over HTTP.
    Separate,
    /// The process of the gateway.
    Colocated,
}

pub(crate) const DEPLOYMENTS: [Deployment; 2] = [Deployment::Separate, Deployment::Colocated];

pub(crate) fn secrets() -> Secrets {
    Secrets::new("a secret for the tests").unwrap()
}

/// Keys of the fake organization service.
#[derive(Clone, Default)]
pub(crate) struct Keys {
    known: Arc<Mutex<HashMap<String, Value>>>,
    lookups: Arc<AtomicUsize>,
}

impl Keys {
    /// Registers a new key and returns its text.
    pub(crate) fn issue(&self, role: &str) -> String {
        let key = ApiKey::issue(Uuid::now_v7(), &secrets());
        self.register(&key, role);
        key.reveal()
    }

    pub(crate) fn register(&self, key: &ApiKey, role: &str) {
        let known = json!({ "organization": ORGANIZATION, "key_id": key.id(), "user_id": null, "role": role });
        self.known.lock().unwrap().insert(hex::encode(key.digest()), known);
    }

    pub(crate) fn revoke_all(&self) {
        self.known.lock().unwrap().clear();
    }

    /// Returns the number of lookups.
    pub(crate) fn lookups(&self) -> usize {
        self.lookups.load(Ordering::SeqCst)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LookupRequest {
    key_sha256: String,
}

async fn authenticate(State(keys): State<Keys>, request: Request) -> Result<Json<Value>, Problem> {
    let (parts, body) = request.into_parts();
    Caller::from_headers(&parts.headers, &secrets())?.at_least(Role::Service)?;
    keys.lookups.fetch_add(1, Ordering::SeqCst);
    let body = to_bytes(body, 1024).await.unwrap();
    let LookupRequest { key_sha256 } = serde_json::from_slice(&body).unwrap();
    let known = keys.known.lock().unwrap().get(&key_sha256).cloned();
    known.map(Json).ok_or_else(|| Problem::not_found("no such key"))
}

/// Returns the request as JSON, in the body and in the header `x-echo`.
async fn echo(State(service): State<&'static str>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, 1024 * 1024).await.unwrap();
    let headers: HashMap<_, _> =
        parts.headers.iter().map(|(name, value)| (name.as_str(), String::from_utf8_lossy(value.as_bytes()))).collect();
    let caller = Caller::from_headers(&parts.headers, &secrets()).ok();
    let caller =
        caller.map(|caller| json!({ "actor": caller.actor, "role": caller.role, "organization": caller.organization }));
    let echoed = json!({
        "service": service,
        "method": parts.method.as_str(),
        "path": parts.uri.path(),
        "query": parts.uri.query(),
        "headers": headers,
        "caller": caller,
        "body": String::from_utf8_lossy(&body),
    });
    let about = [("x-echo", echoed.to_string()), ("keep-alive", "timeout=5".to_owned()), ("etag", "\"7\"".to_owned())];
    (StatusCode::OK, about, Json(echoed)).into_response()
}

/// Returns a service that echoes each request on all paths.
pub(crate) fn echo_service(service: &'static str) -> Router {
    Router::new().route("/{*path}", any(echo)).with_state(service)
}

/// A running gateway.
pub(crate) struct TestGateway {
    pub(crate) address: SocketAddr,
    pub(crate) keys: Keys,
    pub(crate) client: Client,
    _servers: Vec<DropGuard>,
}

/// Services of a gateway that is not started yet.
pub(crate) struct TestServices {
    pub(crate) deployment: Deployment,
    pub(crate) keys: Keys,
    pub(crate) organization: Router,
    pub(crate) job: Router,
    pub(crate) file: Router,
    pub(crate) billing: Router,
    pub(crate) documents: HashMap<&'static str, Value>,
    pub(crate) health: Health,
    pub(crate) max_open_requests: usize,
    /// Unreachable services.
    pub(crate) down: Vec<&'static str>,
}

impl TestServices {
    pub(crate) fn new(deployment: Deployment) -> Self {
        let keys = Keys::default();
        let lookup =
            Router::new().route("/internal/v1/organization/authenticate", post(authenticate)).with_state(keys.clone());
        Self {
            deployment,
            keys,
            organization: lookup.merge(echo_service("organization")),
            job: echo_service("job"),
            file: echo_service("file"),
            billing: echo_service("billing"),
            documents: HashMap::new(),
            health: Health::new(),
            max_open_requests: 100,
            down: Vec::new(),
        }
    }

    pub(crate) fn file(mut self, file: Router) -> Self {
        self.file = file;
        self
    }

    async fn upstream(&self, name: &'static str, router: Router, servers: &mut Vec<DropGuard>) -> Upstream {
        let document = self.documents.get(name).cloned();
        if self.deployment == Deployment::Colocated {
            let document = document
                .unwrap_or_else(|| json!({ "openapi": "3.1.0", "info": { "title": "", "version": "" }, "paths": {} }));
            return Upstream::local(router, serde_json::from_value::<OpenApi>(document).unwrap());
        }
        if self.down.contains(&name) {
            return Upstream::http(format!("http://{}", unused_address().await).parse().unwrap()).unwrap();
        }
        let openapi = async move |headers: HeaderMap| -> Result<Json<Value>, Problem> {
            Caller::from_headers(&headers, &secrets())?.at_least(Role::Service)?;
            document.map(Json).ok_or_else(|| Problem::not_found("not described"))
        };
        let health = self.health.clone();
        let ready = get(async move || health.readiness().await);
        let internal =
            Router::new().route("/readyz", ready).route(&format!("/internal/v1/{name}/openapi.json"), get(openapi));
        let (address, server) = serve(server::finish(router.merge(internal))).await;
        servers.push(server);
        Upstream::http(format!("http://{address}").parse().unwrap()).unwrap()
    }

    pub(crate) async fn start(self) -> TestGateway {
        let log = LogArgs { log: Some("off".to_owned()), ..LogArgs::default() };
        drop(telemetry::init("test", &log).unwrap());
        let mut servers = Vec::new();
        let upstreams = Upstreams {
            organization: self.upstream("organization", self.organization.clone(), &mut servers).await,
            job: self.upstream("job", self.job.clone(), &mut servers).await,
            file: self.upstream("file", self.file.clone(), &mut servers).await,
            billing: self.upstream("billing", self.billing.clone(), &mut servers).await,
            runner: self.upstream("runner", Router::new(), &mut servers).await,
        };
        let settings = Settings {
            secrets: secrets(),
            admin_key: ADMIN_KEY.parse().unwrap(),
            upstreams,
            health: self.health,
            runs_on: vec![("Bus".to_owned(), "a <bus> of tests".to_owned())],
            max_open_requests: self.max_open_requests,
        };
        let (address, server) = serve(server::finish(Console::router(settings))).await;
        servers.push(server);
        TestGateway { address, keys: self.keys, client: client(), _servers: servers }
    }
}

pub(crate) fn client() -> Client {
    let redirect = reqwest::redirect::Policy::none();
    Client::builder().no_proxy().redirect(redirect).timeout(Duration::from_secs(60)).build().unwrap()
}

impl TestGateway {
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("http://{}{path}", self.address))
    }

    pub(crate) fn get(&self, path: &str) -> RequestBuilder {
        self.request(Method::GET, path)
    }

    /// Returns the status of a GET with this key.
    pub(crate) async fn status_with(&self, key: &str) -> u16 {
        self.get("/api/v1/organizations").bearer_auth(key).send().await.unwrap().status().as_u16()
    }
}

/// Serves `router` until the guard is dropped.
pub(crate) async fn serve(router: Router) -> (SocketAddr, DropGuard) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let server = server::serve_with_drain_limit(listener, router, stop.clone(), Duration::from_millis(100));
    tokio::spawn(async { server.await.unwrap() });
    (address, stop.drop_guard())
}

/// Returns an address without a listener.
async fn unused_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

/// Asserts that the response is a problem with this status. Returns the problem.
pub(crate) async fn assert_problem(answer: reqwest::Response, status: u16) -> Value {
    assert_eq!(answer.headers()["content-type"], "application/problem+json");
    assert_eq!(answer.status().as_u16(), status);
    let problem: Value = answer.json().await.unwrap();
    assert_eq!(problem["status"], status);
    assert!(problem["type"].is_string() && problem["trace_id"].is_string(), "{problem}");
    problem
}

/// Waits until `condition` holds.
pub(crate) async fn eventually(limit: Duration, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + limit;
    while !condition().await {
        assert!(tokio::time::Instant::now() < deadline, "the condition does not hold in time");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
