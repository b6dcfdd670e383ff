//! The command context of a request, and the response to a command.

use http_kit::Caller;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{jobs, member, request, send};

const ORGANIZATION: Uuid = Uuid::from_u128(1);
const JOBS: &str = "/api/v1/organizations/00000000-0000-0000-0000-000000000001/jobs";
const JOB: &str =
    "/api/v1/organizations/00000000-0000-0000-0000-000000000001/jobs/00000000-0000-0000-0000-000000000002";
const QUEUE: &str =
    "/api/v1/organizations/00000000-0000-0000-0000-000000000001/jobs/00000000-0000-0000-0000-000000000002/queue";
const JSON: (&str, &str) = ("content-type", "application/json");
const KEY: (&str, &str) = ("idempotency-key", "k-1");
const GOOD: &str = r#"{"name":"a","priority":1}"#;

async fn queue(caller: &Caller, headers: &[(&str, &str)], body: &str) -> Value {
    let response = send(jobs(), request(caller, "POST", QUEUE, headers, body)).await;
    assert_eq!(response.status, 200, "{}", response.body);
    response.body
}

#[tokio::test]
async fn creation_is_201_with_location_and_version() {
    let created = send(jobs(), request(&member(ORGANIZATION), "POST", JOBS, &[JSON, KEY], GOOD)).await;
    assert_eq!(created.status, 201);
    let id = created.body["id"].as_str().unwrap();
    assert_eq!(created.body, json!({ "id": id, "version": 1 }));
    assert_eq!(created.headers["etag"], "\"1\"");
    assert_eq!(created.headers["location"], format!("{JOBS}/{id}"));
}

#[tokio::test]
async fn change_is_200_with_its_version() {
    let headers = [JSON, ("if-match", "\"3\"")];
    let changed = send(jobs(), request(&member(ORGANIZATION), "PUT", JOB, &headers, GOOD)).await;
    assert_eq!(changed.status, 200);
    assert_eq!(changed.body["version"], 4);
    assert_eq!(changed.headers["etag"], "\"4\"");
    assert!(!changed.headers.contains_key("location"));
}

#[tokio::test]
async fn repeated_request_is_the_same_command() {
    let caller = member(ORGANIZATION);
    let first = queue(&caller, &[KEY], "").await;
    let again = queue(&caller, &[KEY], "").await;
    assert_eq!(first["command_id"], again["command_id"]);
    assert_eq!(first["fingerprint"], again["fingerprint"]);

    let other_body = queue(&caller, &[KEY, JSON], "null").await;
    assert_eq!(first["command_id"], other_body["command_id"]);
    assert_ne!(first["fingerprint"], other_body["fingerprint"]);

    let other_key = queue(&caller, &[("idempotency-key", "k-2")], "").await;
    let other_tenant = queue(&member(Uuid::from_u128(9)), &[KEY], "").await;
    assert_ne!(first["command_id"], other_key["command_id"]);
    assert_ne!(first["command_id"], other_tenant["command_id"]);
}

#[tokio::test]
async fn command_has_caller_version_and_trace() {
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let headers =
        [KEY, ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"), ("if-match", "\"5\"")];
    let body = queue(&member(ORGANIZATION), &headers, "").await;
    assert_eq!(body["tenant"], ORGANIZATION.to_string());
    assert_eq!(body["actor"], "key:00000000-0000-0000-0000-000000000007");
    assert_eq!(body["expected"], 5);
    let traceparent = body["traceparent"].as_str().unwrap();
    assert!(traceparent.starts_with(&format!("00-{trace}-")), "{traceparent}");
    assert!(!traceparent.contains("b7ad6b7169203331"), "the request's span is another one");
}

#[tokio::test]
async fn key_is_optional_for_idempotent_methods() {
    let caller = member(ORGANIZATION);
    let without = send(jobs(), request(&caller, "DELETE", JOB, &[], "")).await;
    assert_eq!((without.status.as_u16(), &without.body["version"]), (200, &json!(0)));
    let with = send(jobs(), request(&caller, "DELETE", JOB, &[KEY], "")).await;
    assert_eq!((with.status.as_u16(), &with.body["version"]), (200, &json!(1)));
}

#[tokio::test]
async fn operators_and_services_may_use_any_organization() {
    for caller in [Caller::operator(), Caller::service("job")] {
        let created = send(jobs(), request(&caller, "POST", JOBS, &[JSON, KEY], GOOD)).await;
        assert_eq!(created.status, 201);
    }
}

#[tokio::test]
async fn list_is_read_page_by_page() {
    let mut items = Vec::new();
    let mut path = format!("{JOBS}?limit=2");
    loop {
        let page = send(jobs(), request(&member(ORGANIZATION), "GET", &path, &[], "")).await.body;
        items.extend(page["items"].as_array().unwrap().iter().filter_map(Value::as_u64));
        let Some(next) = page["next"].as_str() else { break };
        path = format!("{JOBS}?limit=2&cursor={next}");
    }
    assert_eq!(items, [0, 1, 2, 3, 4]);
}
