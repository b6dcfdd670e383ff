//! Invalid requests, a broken connection, and contention on one aggregate.

use bytes::Bytes;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sqlx::Row;
use uuid::Uuid;

use crate::{
    api_client::{ApiClient, read},
    installation::{Installation, within},
};

async fn assert_problem(request: reqwest::RequestBuilder, status: u16) -> Value {
    let response = request.send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "application/problem+json", "{}", response.url());
    let problem = read(response, status).await;
    assert_eq!(problem["status"], status);
    assert!(problem["type"].as_str().is_some_and(|kind| !kind.is_empty()), "{problem}");
    assert!(problem["trace_id"].as_str().is_some_and(|id| id.len() == 32), "{problem}");
    problem
}

/// Returns the number of events of all services.
async fn event_count(installation: &Installation) -> i64 {
    let pool = sqlx::PgPool::connect(&installation.environment.database_url).await.unwrap();
    let query = "select (select count(*) from organization.events) + (select count(*) from job.events) \
         + (select count(*) from file.events) + (select count(*) from billing.events)";
    let count = sqlx::query_scalar(query).fetch_one(&pool).await.unwrap();
    pool.close().await;
    count
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_request_gets_a_problem_and_changes_nothing() {
    let installation = Installation::colocated().await;
    let (own, client) = installation.api.create_organization("Own").await;
    let (foreign, foreign_client) = installation.api.create_organization("Foreign").await;
    let configurations = format!("/api/v1/organizations/{own}/job-configurations");
    let good = json!({ "name": "ok", "command": ["true"], "timeout_ms": 1_000 });
    let foreign_configuration =
        foreign_client.create(&format!("/api/v1/organizations/{foreign}/job-configurations"), &good).await;
    let foreign_file = foreign_client.upload(&foreign, b"foreign", 100).await;
    let before = event_count(&installation).await;

    let raw = |body: &'static str| {
        let key = Uuid::now_v7().to_string();
        let request = client.request(Method::POST, &configurations).header("idempotency-key", key);
        request.header("content-type", "application/json").body(body)
    };
    assert_problem(raw("{ \"name\": "), 400).await;
    assert_problem(raw(r#"{ "name": "x", "command": ["true"], "timeout_ms": 1000, "colour": "red" }"#), 422).await;
    assert_problem(raw(r#"{ "name": 7, "command": ["true"], "timeout_ms": 1000 }"#), 422).await;
    assert_problem(raw(r#"{ "name": "x", "command": [], "timeout_ms": 1000 }"#), 422).await;
    let large = json!({ "name": "x".repeat(2 * 1024 * 1024), "command": ["true"], "timeout_ms": 1_000 });
    assert_problem(client.post(&configurations, &large), 413).await;
    assert_problem(client.request(Method::POST, &configurations).json(&good), 400).await;
    assert_problem(client.request(Method::PUT, "/api/v1/organizations"), 405).await;
    assert_problem(client.request(Method::GET, "/api/v2/anything"), 404).await;
    assert_problem(client.request(Method::GET, "/internal/v1/job/claims"), 404).await;

    let unknown = Uuid::now_v7();
    for path in [format!("jobs/{unknown}"), format!("files/{unknown}"), format!("job-configurations/{unknown}")] {
        assert_problem(client.request(Method::GET, &format!("/api/v1/organizations/{own}/{path}")), 404).await;
    }
    let foreign_configuration = foreign_configuration["id"].as_str().unwrap();
    for path in [
        format!("/api/v1/organizations/{foreign}"),
        format!("/api/v1/organizations/{foreign}/files/{foreign_file}"),
        format!("/api/v1/organizations/{own}/files/{foreign_file}"),
        format!("/api/v1/organizations/{own}/files/{foreign_file}/content"),
        format!("/api/v1/organizations/{own}/job-configurations/{foreign_configuration}"),
        format!("/api/v1/organizations/{foreign}/usage"),
    ] {
        assert_problem(client.request(Method::GET, &path), 404).await;
    }
    let jobs = format!("/api/v1/organizations/{own}/jobs");
    let job = json!({ "job_configuration_id": foreign_configuration, "name": "x", "file_ids": [] });
    assert_problem(client.post(&jobs, &job), 422).await;
    assert_problem(client.post(&format!("/api/v1/organizations/{foreign}/jobs"), &job), 404).await;

    let unauthenticated = ApiClient { key: "cat_nonsense".into(), ..client.clone() };
    assert_problem(unauthenticated.request(Method::GET, &configurations), 401).await;
    let spoofed = unauthenticated.request(Method::GET, &configurations).header("x-catacloud-role", "operator");
    assert_problem(spoofed.header("x-catacloud-organization", &own), 401).await;
    assert_problem(
        client.post("/api/v1/organizations", &json!({ "name": "x", "owner": { "email": "a@b.c", "name": "x" } })),
        403,
    )
    .await;
    assert_eq!(event_count(&installation).await, before, "no event was appended");

    let key = Uuid::now_v7().to_string();
    let with_key =
        |body: &Value| client.request(Method::POST, &configurations).header("idempotency-key", &key).json(body);
    let first = read(with_key(&good).send().await.unwrap(), 201).await;
    let repeated = read(with_key(&good).send().await.unwrap(), 201).await;
    assert_eq!(first, repeated, "same key and body: same response");
    assert_problem(with_key(&json!({ "name": "other", "command": ["true"], "timeout_ms": 1_000 })), 422).await;
    assert_eq!(event_count(&installation).await, before + 1);
    installation.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_upload_resumes_and_rejects_wrong_offsets() {
    let installation = Installation::colocated().await;
    let (organization, client) = installation.api.create_organization("Broken").await;
    let content: Vec<u8> = (0..3_000_000_u32).map(|number| (number % 251) as u8).collect();
    let upload = client.start_upload(&organization, content.len()).await;

    // The connection breaks after a third of the content.
    let sent = content.len() / 3;
    let head = Bytes::copy_from_slice(&content[..sent]);
    let broken = futures::stream::iter([Ok(head), Err(std::io::Error::other("intended break of the connection"))]);
    assert!(client.patch(&upload, 0, reqwest::Body::wrap_stream(broken)).send().await.is_err());
    let offset = within(std::time::Duration::from_secs(20), "received bytes to be stored", async || {
        Some(client.offset(&upload).await).filter(|offset| *offset > 0)
    })
    .await;
    assert!(offset <= sent, "{offset}");

    for wrong in [0, offset - 1, offset + 1, content.len()] {
        let response = client.patch(&upload, wrong, vec![0; 10]).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::CONFLICT, "offset {wrong}");
        assert_eq!(client.offset(&upload).await, offset, "the file is unchanged");
    }
    let response = client.patch(&upload, offset, content[offset..].to_vec()).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::NO_CONTENT);
    let path = upload.replace("/uploads/", "/files/") + "/content";
    let stored = client.request(Method::GET, &path).send().await.unwrap().bytes().await.unwrap();
    assert!(stored == content, "stored bytes equal the content");
    installation.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_commands_on_one_aggregate_each_apply_once() {
    let installation = Installation::colocated().await;
    let (organization, client) = installation.api.create_organization("Hot").await;
    let path = format!("/api/v1/organizations/{organization}");
    let writers = (0..32).map(|writer| {
        let (client, path) = (client.clone(), path.clone());
        tokio::spawn(async move {
            for round in 0..5 {
                let name = json!({ "name": format!("name {writer}-{round}") });
                let response = client.request(Method::PATCH, &path).json(&name).send().await.unwrap();
                let status = response.status();
                assert_eq!(status, StatusCode::OK, "{}", response.text().await.unwrap());
            }
        })
    });
    for writer in futures::future::join_all(writers).await {
        writer.unwrap();
    }
    let pool = sqlx::PgPool::connect(&installation.environment.database_url).await.unwrap();
    let query = "select count(*) as events, max(version) as newest, count(distinct version) as versions \
         from organization.events where aggregate_id = $1";
    let id: Uuid = organization.parse().unwrap();
    let row = sqlx::query(query).bind(id).fetch_one(&pool).await.unwrap();
    let [events, newest, versions] = ["events", "newest", "versions"].map(|column| row.get::<i64, _>(column));
    assert_eq!((newest, versions), (events, events), "gapless versions");
    let renamed = "select count(*), count(distinct metadata->>'command_id') from organization.events \
         where aggregate_id = $1 and event_name = 'OrganizationRenamed'";
    let (renamed, commands): (i64, i64) = sqlx::query_as(renamed).bind(id).fetch_one(&pool).await.unwrap();
    assert_eq!((renamed, commands), (160, 160), "each accepted command has one event");
    pool.close().await;
    installation.close().await;
}
