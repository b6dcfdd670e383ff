//! The gateway before services that only answer with their names, but have their real OpenAPI documents.

use std::collections::BTreeMap;

use axum::{Router, routing::any};
use billing::BillingService;
use console::{Console, MAX_OPEN_REQUESTS, Settings, Upstream, Upstreams};
use epoch::FastPath;
use epoch_postgres::{PgStore, Progress};
use file::storage::PartStore;
use http_kit::{Secrets, server};
use job::JobService;
use organization::OrganizationService;
use reqwest::{Client, Method, RequestBuilder};
use service_host::{
    config::PeerArgs,
    health::Health,
    service::{Service, ServiceContext},
};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use tempfile::TempDir;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use utoipa::openapi::OpenApi;

const ADMIN_KEY: &str = "cadm_0123456789abcdef0123456789abcdef0123456789abcdef";

fn secrets() -> Secrets {
    Secrets::new("a secret for the route test").unwrap()
}

/// Returns a host whose database is never connected: assembling a service runs no statement.
fn unconnected_host() -> ServiceContext {
    let pool = PgPoolOptions::new().connect_lazy_with(PgConnectOptions::new());
    let (store, _) = PgStore::new(pool.clone(), FastPath::new());
    let url: reqwest::Url = "http://127.0.0.1:1".parse().unwrap();
    let peers = PeerArgs {
        organization_url: url.clone(),
        job_url: url.clone(),
        file_url: url.clone(),
        billing_url: url.clone(),
        runner_url: url,
    };
    ServiceContext { store, progress: Progress::new(pool), secrets: secrets(), peers, stop: CancellationToken::new() }
}

/// Returns the OpenAPI documents of all services with public routes. The runner has none.
pub(crate) fn documents() -> BTreeMap<&'static str, OpenApi> {
    let host = unconnected_host();
    let directory = TempDir::new().unwrap();
    let parts = PartStore::in_directory(directory.path()).unwrap();
    BTreeMap::from([
        ("organization", OrganizationService::assemble(&host).unwrap().openapi),
        ("file", file::assemble(&host, &parts).openapi),
        ("job", JobService::assemble(&host).unwrap().openapi),
        ("billing", BillingService::assemble(&host).unwrap().openapi),
    ])
}

/// Returns a service that answers every request with its name in the header `x-service`.
fn named_service(name: &'static str, document: OpenApi) -> Upstream {
    let router = Router::new().route("/{*path}", any(async move || [("x-service", name)]));
    Upstream::local(router, document)
}

fn gateway() -> Router {
    let mut documents = documents();
    let mut service = |name| named_service(name, documents.remove(name).unwrap_or_default());
    Console::router(Settings {
        secrets: secrets(),
        admin_key: ADMIN_KEY.parse().unwrap(),
        upstreams: Upstreams {
            organization: service("organization"),
            job: service("job"),
            file: service("file"),
            billing: service("billing"),
            runner: service("runner"),
        },
        health: Health::new(),
        runs_on: Vec::new(),
        max_open_requests: MAX_OPEN_REQUESTS,
    })
}

/// The gateway on a port of its own.
pub(crate) struct PublicApi {
    client: Client,
    url: String,
    stop: CancellationToken,
    serving: JoinHandle<Result<(), server::ServeError>>,
}

impl PublicApi {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let stop = CancellationToken::new();
        let serving = tokio::spawn(server::serve(listener, server::finish(gateway()), stop.clone()));
        Self { client: Client::builder().no_proxy().build().unwrap(), url, stop, serving }
    }

    /// Returns a request of the platform administrator.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.url)).bearer_auth(ADMIN_KEY)
    }

    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.serving.await.unwrap().unwrap();
    }
}
