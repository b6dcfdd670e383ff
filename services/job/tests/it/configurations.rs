//! Routes of job configurations.

use axum::http::Method;
use http_kit::{Caller, Role};
use serde_json::{Value, json};

use crate::support::{Platform, id_of};

#[tokio::test(flavor = "multi_thread")]
async fn job_configuration_is_defined_revised_and_retired() {
    let platform = Platform::start().await;
    let body = json!({ "name": " Checksum ", "command": ["sha256sum"] });
    let created = platform.post("job-configurations").by(&platform.admin).json(&body).send().await.expect(201);
    let id = id_of(&created);
    let path = format!("job-configurations/{id}");
    assert_eq!(created.header("location"), platform.path(&path));
    assert_eq!((created.header("etag"), &created.json()["version"]), ("\"1\"", &json!(1)));

    let shown = platform.get(&format!("{path}?min_version=1")).send().await.expect(200);
    assert_eq!(shown.header("etag"), "\"1\"");
    let configuration = shown.json();
    assert_eq!(configuration["name"], "Checksum");
    assert_eq!(configuration["command"], json!(["sha256sum"]));
    assert_eq!((&configuration["timeout_ms"], &configuration["status"]), (&json!(3_600_000), &json!("active")));

    let revised = json!({ "name": "Sizes", "command": ["wc", "-c"], "timeout_ms": 5_000 });
    let put = || platform.put(&path).by(&platform.admin).json(&revised);
    put().header("if-match", "\"7\"").send().await.problem(412);
    assert_eq!(put().header("if-match", "\"1\"").send().await.expect(200).json()["version"], 2);
    assert_eq!(put().send().await.expect(200).json()["version"], 2, "same settings");
    let configuration = platform.get(&format!("{path}?min_version=2")).send().await.expect(200).json();
    assert_eq!((&configuration["name"], &configuration["timeout_ms"]), (&json!("Sizes"), &json!(5_000)));
    assert_eq!(configuration["command"], json!(["wc", "-c"]));

    let retire = || platform.service.request(Method::DELETE, platform.path(&path)).by(&platform.admin);
    assert_eq!(retire().send().await.expect(200).json()["version"], 3);
    assert_eq!(retire().send().await.expect(200).json()["version"], 3, "already retired");
    let configuration = platform.get(&format!("{path}?min_version=3")).send().await.expect(200).json();
    assert_eq!(configuration["status"], "retired");
    assert_eq!(put().send().await.problem(409)["type"], "/problems/job-configuration-retired");
    assert_eq!(platform.event_names(id).await.len(), 3);
    platform.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn repeated_definition_returns_first_result() {
    let platform = Platform::start().await;
    let define = |name: &str| {
        let body = json!({ "name": name, "command": ["true"] });
        platform.post("job-configurations").by(&platform.admin).header("idempotency-key", "k-1").json(&body)
    };
    let first = define("a").send().await.expect(201);
    let repeated = define("a").send().await.expect(201);
    assert_eq!(first.json(), repeated.json());
    assert_eq!(first.header("location"), repeated.header("location"));
    assert_eq!(define("b").send().await.problem(422)["type"], "/problems/idempotency-key-reused");
    assert_eq!(platform.event_count().await, 1);
    platform.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn list_is_newest_first_and_limited_to_the_organization() {
    let platform = Platform::start().await;
    let mut ids = Vec::new();
    for name in ["a", "b", "c"] {
        ids.push(platform.define(name).await);
    }
    let last = ids[2];
    platform.get(&format!("job-configurations/{last}?min_version=1")).send().await.is(200);
    let first_page = platform.get("job-configurations?limit=2").send().await.expect(200).json();
    let names = |page: &Value| -> Vec<String> {
        let items = page["items"].as_array().unwrap();
        items.iter().map(|item| item["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&first_page), ["c", "b"]);
    let next = first_page["next"].as_str().unwrap();
    let last_page = platform.get(&format!("job-configurations?limit=2&cursor={next}")).send().await.expect(200).json();
    assert_eq!((names(&last_page), &last_page["next"]), (vec!["a".to_owned()], &Value::Null));

    let theirs = format!("/api/v1/organizations/{}/job-configurations", platform.stranger.organization.unwrap());
    let list = platform.service.get(theirs).by(&platform.stranger).send().await.expect(200).json();
    assert_eq!(list["items"], json!([]));
    platform.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn job_configuration_requires_role_admin() {
    let platform = Platform::start().await;
    let id = platform.define("a").await;
    let body = json!({ "name": "b", "command": ["true"] });
    let path = format!("job-configurations/{id}");
    platform.post("job-configurations").json(&body).send().await.problem(403);
    platform.put(&path).json(&body).send().await.problem(403);
    platform.service.request(Method::DELETE, platform.path(&path)).by(&platform.member).send().await.problem(403);
    let viewer = Caller::user(platform.user, Some(platform.organization), Role::Viewer);
    platform.get(&format!("{path}?min_version=1")).by(&viewer).send().await.is(200);
    platform.post("jobs").by(&viewer).json(&json!({ "job_configuration_id": id })).send().await.problem(403);
    assert_eq!(platform.event_count().await, 1);
    platform.close().await;
}
