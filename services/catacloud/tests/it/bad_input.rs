//! What must be refused at the door, and a connection that breaks.

use bytes::Bytes;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    api_client::{Door, read},
    installation::{Stack, within},
};

async fn refused(request: reqwest::RequestBuilder, status: u16) -> Value {
    let response = request.send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "application/problem+json", "{}", response.url());
    let problem = read(response, status).await;
    assert_eq!(problem["status"], status);
    assert!(problem["type"].as_str().is_some_and(|kind| !kind.is_empty()), "{problem}");
    assert!(problem["trace_id"].as_str().is_some_and(|id| id.len() == 32), "{problem}");
    problem
}

/// How many events all services hold together.
async fn events(stack: &Stack) -> i64 {
    let pool = sqlx::PgPool::connect(&stack.site.database_url).await.unwrap();
    let query = "select (select count(*) from organization.events) + (select count(*) from job.events) \
         + (select count(*) from file.events) + (select count(*) from billing.events)";
    let count = sqlx::query_scalar(query).fetch_one(&pool).await.unwrap();
    pool.close().await;
    count
}

#[tokio::test(flavor = "multi_thread")]
async fn is_told_what_is_wrong_and_changes_nothing() {
    let stack = Stack::colocated().await;
    let (mine, door) = stack.door.organization("Mine").await;
    let (theirs, other) = stack.door.organization("Theirs").await;
    let configurations = format!("/api/v1/organizations/{mine}/job-configurations");
    let good = json!({ "name": "ok", "command": ["true"], "timeout_ms": 1_000 });
    let foreign = other.create(&format!("/api/v1/organizations/{theirs}/job-configurations"), &good).await;
    let foreign_file = other.upload(&theirs, b"theirs", 100).await;
    let before = events(&stack).await;

    let raw = |body: &'static str| {
        let key = Uuid::now_v7().to_string();
        let request = door.request(Method::POST, &configurations).header("idempotency-key", key);
        request.header("content-type", "application/json").body(body)
    };
    refused(raw("{ \"name\": "), 400).await;
    refused(raw(r#"{ "name": "x", "command": ["true"], "timeout_ms": 1000, "colour": "red" }"#), 422).await;
    refused(raw(r#"{ "name": 7, "command": ["true"], "timeout_ms": 1000 }"#), 422).await;
    refused(raw(r#"{ "name": "x", "command": [], "timeout_ms": 1000 }"#), 422).await;
    let large = json!({ "name": "x".repeat(2 * 1024 * 1024), "command": ["true"], "timeout_ms": 1_000 });
    refused(door.post(&configurations, &large), 413).await;
    refused(door.request(Method::POST, &configurations).json(&good), 400).await;
    refused(door.request(Method::PUT, "/api/v1/organizations"), 405).await;
    refused(door.request(Method::GET, "/api/v2/anything"), 404).await;
    refused(door.request(Method::GET, "/internal/v1/job/claims"), 404).await;

    let unknown = Uuid::now_v7();
    for path in [format!("jobs/{unknown}"), format!("files/{unknown}"), format!("job-configurations/{unknown}")] {
        refused(door.request(Method::GET, &format!("/api/v1/organizations/{mine}/{path}")), 404).await;
    }
    let foreign = foreign["id"].as_str().unwrap();
    for path in [
        format!("/api/v1/organizations/{theirs}"),
        format!("/api/v1/organizations/{theirs}/files/{foreign_file}"),
        format!("/api/v1/organizations/{mine}/files/{foreign_file}"),
        format!("/api/v1/organizations/{mine}/files/{foreign_file}/content"),
        format!("/api/v1/organizations/{mine}/job-configurations/{foreign}"),
        format!("/api/v1/organizations/{theirs}/usage"),
    ] {
        refused(door.request(Method::GET, &path), 404).await;
    }
    let jobs = format!("/api/v1/organizations/{mine}/jobs");
    let job = json!({ "job_configuration_id": foreign, "name": "x", "file_ids": [] });
    refused(door.post(&jobs, &job), 422).await;
    refused(door.post(&format!("/api/v1/organizations/{theirs}/jobs"), &job), 404).await;

    let nobody = Door { key: "cat_nonsense".into(), ..door.clone() };
    refused(nobody.request(Method::GET, &configurations), 401).await;
    let spoofed = nobody.request(Method::GET, &configurations).header("x-catacloud-role", "operator");
    refused(spoofed.header("x-catacloud-organization", &mine), 401).await;
    refused(
        door.post("/api/v1/organizations", &json!({ "name": "x", "owner": { "email": "a@b.c", "name": "x" } })),
        403,
    )
    .await;
    assert_eq!(events(&stack).await, before, "nothing was appended");

    let key = Uuid::now_v7().to_string();
    let with_key =
        |body: &Value| door.request(Method::POST, &configurations).header("idempotency-key", &key).json(body);
    let first = read(with_key(&good).send().await.unwrap(), 201).await;
    let again = read(with_key(&good).send().await.unwrap(), 201).await;
    assert_eq!(first, again, "the same key and body: the same answer");
    refused(with_key(&json!({ "name": "other", "command": ["true"], "timeout_ms": 1_000 })), 422).await;
    assert_eq!(events(&stack).await, before + 1);
    stack.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_goes_on_after_a_broken_connection_and_refuses_a_wrong_offset() {
    let stack = Stack::colocated().await;
    let (organization, door) = stack.door.organization("Broken").await;
    let content: Vec<u8> = (0..3_000_000_u32).map(|number| (number % 251) as u8).collect();
    let upload = door.start_upload(&organization, content.len()).await;

    // A third is sent, then the connection breaks.
    let sent = content.len() / 3;
    let head = Bytes::copy_from_slice(&content[..sent]);
    let broken = futures::stream::iter([Ok(head), Err(std::io::Error::other("the cable was pulled"))]);
    assert!(door.patch(&upload, 0, reqwest::Body::wrap_stream(broken)).send().await.is_err());
    let offset = within(std::time::Duration::from_secs(20), "what arrived to be kept", async || {
        Some(door.offset(&upload).await).filter(|offset| *offset > 0)
    })
    .await;
    assert!(offset <= sent, "{offset}");

    for wrong in [0, offset - 1, offset + 1, content.len()] {
        let response = door.patch(&upload, wrong, vec![0; 10]).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::CONFLICT, "offset {wrong}");
        assert_eq!(door.offset(&upload).await, offset, "the file is unchanged");
    }
    let response = door.patch(&upload, offset, content[offset..].to_vec()).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::NO_CONTENT);
    let path = upload.replace("/uploads/", "/files/") + "/content";
    let stored = door.request(Method::GET, &path).send().await.unwrap().bytes().await.unwrap();
    assert!(stored == content, "bytes are equal");
    stack.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn thirty_two_clients_on_one_aggregate_are_all_served_once() {
    let stack = Stack::colocated().await;
    let (organization, door) = stack.door.organization("Hot").await;
    let path = format!("/api/v1/organizations/{organization}");
    let clients = (0..32).map(|client| {
        let (door, path) = (door.clone(), path.clone());
        tokio::spawn(async move {
            for round in 0..5 {
                let name = json!({ "name": format!("name {client}-{round}") });
                let response = door.request(Method::PATCH, &path).json(&name).send().await.unwrap();
                let status = response.status();
                assert_eq!(status, StatusCode::OK, "{}", response.text().await.unwrap());
            }
        })
    });
    for client in futures::future::join_all(clients).await {
        client.unwrap();
    }
    let pool = sqlx::PgPool::connect(&stack.site.database_url).await.unwrap();
    let query =
        "select count(*), max(version), count(distinct version) from organization.events where aggregate_id = $1";
    let id: Uuid = organization.parse().unwrap();
    let (count, max, distinct): (i64, i64, i64) = sqlx::query_as(query).bind(id).fetch_one(&pool).await.unwrap();
    assert_eq!((max, distinct), (count, count), "versions without holes");
    let renamed = "select count(*), count(distinct metadata->>'command_id') from organization.events \
         where aggregate_id = $1 and event_name = 'OrganizationRenamed'";
    let (renamed, commands): (i64, i64) = sqlx::query_as(renamed).bind(id).fetch_one(&pool).await.unwrap();
    assert_eq!((renamed, commands), (160, 160), "each accepted command is in the stream once");
    pool.close().await;
    stack.close().await;
}
