//! Services to stand behind the door, and a door to stand before.

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

/// Where the services run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Http,
    Local,
}

pub(crate) const BOTH: [Way; 2] = [Way::Http, Way::Local];

pub(crate) fn secrets() -> Secrets {
    Secrets::new("a secret for the tests").unwrap()
}

/// The keys that the organization service knows.
#[derive(Clone, Default)]
pub(crate) struct Keys {
    known: Arc<Mutex<HashMap<String, Value>>>,
    asked: Arc<AtomicUsize>,
}

impl Keys {
    /// A new key; its text.
    pub(crate) fn issue(&self, role: &str) -> String {
        let key = ApiKey::issue(Uuid::now_v7(), &secrets());
        self.know(&key, role);
        key.reveal()
    }

    pub(crate) fn know(&self, key: &ApiKey, role: &str) {
        let known = json!({ "organization": ORGANIZATION, "key_id": key.id(), "user_id": null, "role": role });
        self.known.lock().unwrap().insert(hex::encode(key.digest()), known);
    }

    pub(crate) fn revoke_all(&self) {
        self.known.lock().unwrap().clear();
    }

    /// How often the service was asked.
    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    key_sha256: String,
}

async fn authenticate(State(keys): State<Keys>, request: Request) -> Result<Json<Value>, Problem> {
    let (parts, body) = request.into_parts();
    Caller::from_headers(&parts.headers, &secrets())?.at_least(Role::Service)?;
    keys.asked.fetch_add(1, Ordering::SeqCst);
    let body = to_bytes(body, 1024).await.unwrap();
    let Question { key_sha256 } = serde_json::from_slice(&body).unwrap();
    let known = keys.known.lock().unwrap().get(&key_sha256).cloned();
    known.map(Json).ok_or_else(|| Problem::not_found("no such key"))
}

/// Answers with what it was asked.
async fn echo(State(service): State<&'static str>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, 1024 * 1024).await.unwrap();
    let headers: HashMap<_, _> =
        parts.headers.iter().map(|(name, value)| (name.as_str(), String::from_utf8_lossy(value.as_bytes()))).collect();
    let caller = Caller::from_headers(&parts.headers, &secrets()).ok();
    let caller =
        caller.map(|caller| json!({ "actor": caller.actor, "role": caller.role, "organization": caller.organization }));
    let seen = json!({
        "service": service,
        "method": parts.method.as_str(),
        "path": parts.uri.path(),
        "query": parts.uri.query(),
        "headers": headers,
        "caller": caller,
        "body": String::from_utf8_lossy(&body),
    });
    let about = [("x-seen", seen.to_string()), ("keep-alive", "timeout=5".to_owned()), ("etag", "\"7\"".to_owned())];
    (StatusCode::OK, about, Json(seen)).into_response()
}

/// A service that answers with what it was asked, on all paths.
pub(crate) fn echoing(service: &'static str) -> Router {
    Router::new().route("/{*path}", any(echo)).with_state(service)
}

/// An installation's door.
pub(crate) struct World {
    pub(crate) address: SocketAddr,
    pub(crate) keys: Keys,
    pub(crate) client: Client,
    _servers: Vec<DropGuard>,
}

/// The services behind a door yet to be made.
pub(crate) struct Services {
    pub(crate) way: Way,
    pub(crate) keys: Keys,
    pub(crate) organization: Router,
    pub(crate) job: Router,
    pub(crate) file: Router,
    pub(crate) billing: Router,
    pub(crate) documents: HashMap<&'static str, Value>,
    pub(crate) health: Health,
    pub(crate) max_open_requests: usize,
    /// Services that aren't there.
    pub(crate) down: Vec<&'static str>,
}

impl Services {
    pub(crate) fn new(way: Way) -> Self {
        let keys = Keys::default();
        let authenticating =
            Router::new().route("/internal/v1/organization/authenticate", post(authenticate)).with_state(keys.clone());
        Self {
            way,
            keys,
            organization: authenticating.merge(echoing("organization")),
            job: echoing("job"),
            file: echoing("file"),
            billing: echoing("billing"),
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
        if self.way == Way::Local {
            let document = document
                .unwrap_or_else(|| json!({ "openapi": "3.1.0", "info": { "title": "", "version": "" }, "paths": {} }));
            return Upstream::local(router, serde_json::from_value::<OpenApi>(document).unwrap());
        }
        if self.down.contains(&name) {
            return Upstream::http(format!("http://{}", nobody().await).parse().unwrap()).unwrap();
        }
        let describe = async move |headers: HeaderMap| -> Result<Json<Value>, Problem> {
            Caller::from_headers(&headers, &secrets())?.at_least(Role::Service)?;
            document.map(Json).ok_or_else(|| Problem::not_found("not described"))
        };
        let health = self.health.clone();
        let ready = get(async move || health.readiness().await);
        let extra =
            Router::new().route("/readyz", ready).route(&format!("/internal/v1/{name}/openapi.json"), get(describe));
        let (address, server) = serving(server::finish(router.merge(extra))).await;
        servers.push(server);
        Upstream::http(format!("http://{address}").parse().unwrap()).unwrap()
    }

    pub(crate) async fn door(self) -> World {
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
        let (address, server) = serving(server::finish(Console::router(settings))).await;
        servers.push(server);
        World { address, keys: self.keys, client: client(), _servers: servers }
    }
}

pub(crate) fn client() -> Client {
    let redirect = reqwest::redirect::Policy::none();
    Client::builder().no_proxy().redirect(redirect).timeout(Duration::from_secs(60)).build().unwrap()
}

impl World {
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("http://{}{path}", self.address))
    }

    pub(crate) fn get(&self, path: &str) -> RequestBuilder {
        self.request(Method::GET, path)
    }

    /// The status of a GET with this key.
    pub(crate) async fn status_with(&self, key: &str) -> u16 {
        self.get("/api/v1/organizations").bearer_auth(key).send().await.unwrap().status().as_u16()
    }
}

/// Serves `router` until the guard is dropped.
pub(crate) async fn serving(router: Router) -> (SocketAddr, DropGuard) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let server = server::serve_with_drain_limit(listener, router, stop.clone(), Duration::from_millis(100));
    tokio::spawn(async { server.await.unwrap() });
    (address, stop.drop_guard())
}

/// An address where nobody listens.
async fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

/// The answer is a problem with this status; gives it.
pub(crate) async fn problem(answer: reqwest::Response, status: u16) -> Value {
    assert_eq!(answer.headers()["content-type"], "application/problem+json");
    assert_eq!(answer.status().as_u16(), status);
    let problem: Value = answer.json().await.unwrap();
    assert_eq!(problem["status"], status);
    assert!(problem["type"].is_string() && problem["trace_id"].is_string(), "{problem}");
    problem
}

/// Asks until `found` says that it is so.
pub(crate) async fn eventually(limit: Duration, mut found: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + limit;
    while !found().await {
        assert!(tokio::time::Instant::now() < deadline, "it didn't become true");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
