//! The gateway routes each public operation of each service to that service.
//!
//! The gateway has its own route table, because it must not depend on the services' crates. A path that is missing in
//! the table would be a 404 in production, so this test compares the table with the services' OpenAPI documents.

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
use reqwest::{Client, Method};
use service_host::{
    config::PeerArgs,
    health::Health,
    service::{Service, ServiceContext},
};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use utoipa::openapi::OpenApi;

const ADMIN_KEY: &str = "cadm_0123456789abcdef0123456789abcdef0123456789abcdef";
const ID: &str = "0198c0de-0000-7000-8000-000000000001";
const METHODS: [&str; 8] = ["get", "put", "post", "delete", "options", "head", "patch", "trace"];

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
fn documents() -> BTreeMap<&'static str, OpenApi> {
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
fn named_service(name: &'static str) -> Upstream {
    let router = Router::new().route("/{*path}", any(async move || [("x-service", name)]));
    Upstream::local(router, OpenApi::default())
}

fn gateway() -> Router {
    Console::router(Settings {
        secrets: secrets(),
        admin_key: ADMIN_KEY.parse().unwrap(),
        upstreams: Upstreams {
            organization: named_service("organization"),
            job: named_service("job"),
            file: named_service("file"),
            billing: named_service("billing"),
            runner: named_service("runner"),
        },
        health: Health::new(),
        runs_on: Vec::new(),
        max_open_requests: MAX_OPEN_REQUESTS,
    })
}

/// Returns the method and path of each public operation, with an id in place of each path parameter.
fn operations(document: &OpenApi) -> Vec<(Method, String)> {
    let document = serde_json::to_value(document).unwrap();
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        let segments: Vec<&str> =
            path.split('/').map(|segment| if segment.starts_with('{') { ID } else { segment }).collect();
        for method in item.as_object().unwrap().keys().filter(|key| METHODS.contains(&key.as_str())) {
            operations.push((method.to_uppercase().parse().unwrap(), segments.join("/")));
        }
    }
    operations
}

#[tokio::test]
async fn gateway_routes_every_public_operation() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let serving = tokio::spawn(server::serve(listener, server::finish(gateway()), stop.clone()));
    let client = Client::builder().no_proxy().build().unwrap();
    let mut misrouted = Vec::new();
    for (service, document) in documents() {
        let operations = operations(&document);
        assert!(!operations.is_empty(), "{service} has no public operation");
        for (method, path) in operations {
            let request = client.request(method.clone(), format!("http://{address}{path}")).bearer_auth(ADMIN_KEY);
            let response = request.send().await.unwrap();
            let target = response.headers().get("x-service").map(|name| name.to_str().unwrap().to_owned());
            if target.as_deref() != Some(service) {
                misrouted.push(format!("{service}: {method} {path} leads to {target:?}"));
            }
        }
    }
    assert_eq!(misrouted, Vec::<String>::new());
    stop.cancel();
    serving.await.unwrap().unwrap();
}
