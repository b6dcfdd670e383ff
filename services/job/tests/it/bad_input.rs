//! Invalid requests get a problem response and append no event.

use axum::http::Method;
use serde_json::json;
use uuid::Uuid;

use crate::support::Platform;

const GOOD_CONFIGURATION: &str = r#"{"name":"a","command":["true"]}"#;

#[tokio::test(flavor = "multi_thread")]
async fn invalid_request_is_rejected_without_an_event() {
    let platform = Platform::start().await;
    let configuration = platform.define("Checksum").await;
    let job = platform.create(configuration, &[]).await;
    let before = platform.event_count().await;
    let (configurations, jobs) = (platform.path("job-configurations"), platform.path("jobs"));
    let (one, absent) = (format!("{jobs}/{job}"), format!("{jobs}/{}", Uuid::now_v7()));
    let long_name = json!({ "name": "x".repeat(201), "command": ["true"] }).to_string();
    let long_command = json!({ "name": "x", "command": vec!["a"; 65] }).to_string();
    let long_argument = json!({ "name": "x", "command": ["a", "b".repeat(4_097)] }).to_string();
    let large = json!({ "name": "x".repeat(1_100_000), "command": ["true"] }).to_string();
    let good_job = json!({ "job_configuration_id": configuration }).to_string();
    let unknown_field_job = json!({ "job_configuration_id": configuration, "priority": 1 }).to_string();
    let control_name = json!({ "job_configuration_id": configuration, "name": "a\nb" }).to_string();
    let ids: Vec<Uuid> = (0..1_001).map(Uuid::from_u128).collect();
    let many_files = json!({ "job_configuration_id": configuration, "file_ids": ids }).to_string();
    let many_new_files = json!({ "file_ids": ids }).to_string();
    let cases: Vec<(Method, String, &str, u16, &str)> = vec![
        // configurations
        (Method::POST, configurations.clone(), "{", 400, ""),
        (Method::POST, configurations.clone(), "", 400, ""),
        (Method::POST, configurations.clone(), "[]", 422, ""),
        (Method::POST, configurations.clone(), r#"{"name":"a"}"#, 422, ""),
        (Method::POST, configurations.clone(), r#"{"name":"a","command":["true"],"x":1}"#, 422, "/x"),
        (Method::POST, configurations.clone(), r#"{"name":7,"command":["true"]}"#, 422, "/name"),
        (Method::POST, configurations.clone(), r#"{"name":"a","command":"true"}"#, 422, "/command"),
        (Method::POST, configurations.clone(), r#"{"name":" ","command":["true"]}"#, 422, "/name"),
        (Method::POST, configurations.clone(), r#"{"name":"a","command":[]}"#, 422, "/command"),
        (Method::POST, configurations.clone(), r#"{"name":"a","command":[""]}"#, 422, "/command"),
        (Method::POST, configurations.clone(), r#"{"name":"a","command":["a","\u0000"]}"#, 422, "/command/1"),
        (Method::POST, configurations.clone(), r#"{"name":"a","command":["a"],"timeout_ms":0}"#, 422, "/timeout_ms"),
        (Method::POST, configurations.clone(), r#"{"name":"a","command":["a"],"timeout_ms":1.5}"#, 422, "/timeout_ms"),
        (
            Method::POST,
            configurations.clone(),
            r#"{"name":"a","command":["a"],"timeout_ms":86400001}"#,
            422,
            "/timeout_ms",
        ),
        (Method::POST, configurations.clone(), &long_name, 422, "/name"),
        (Method::POST, configurations.clone(), &long_command, 422, "/command"),
        (Method::POST, configurations.clone(), &long_argument, 422, "/command/1"),
        (Method::POST, configurations.clone(), &large, 413, ""),
        (Method::PUT, format!("{configurations}/{configuration}"), r#"{"name":"a"}"#, 422, ""),
        (Method::PUT, format!("{configurations}/{}", Uuid::now_v7()), GOOD_CONFIGURATION, 404, ""),
        (Method::PUT, format!("{configurations}/1"), GOOD_CONFIGURATION, 400, ""),
        (Method::PATCH, configurations.clone(), GOOD_CONFIGURATION, 405, ""),
        // jobs
        (Method::POST, jobs.clone(), "{", 400, ""),
        (Method::POST, jobs.clone(), "{}", 422, ""),
        (Method::POST, jobs.clone(), r#"{"job_configuration_id":"1"}"#, 422, "/job_configuration_id"),
        (Method::POST, jobs.clone(), &unknown_field_job, 422, "/priority"),
        (Method::POST, jobs.clone(), &control_name, 422, "/name"),
        (Method::POST, jobs.clone(), &many_files, 422, ""),
        (Method::POST, jobs.clone(), &large, 413, ""),
        (Method::PUT, format!("{one}/files"), r#"{"file_ids":["a"]}"#, 422, "/file_ids/0"),
        (Method::PUT, format!("{one}/files"), r#"{"file_ids":[],"x":1}"#, 422, "/x"),
        (Method::PUT, format!("{one}/files"), &many_new_files, 422, ""),
        (Method::PUT, format!("{absent}/files"), r#"{"file_ids":[]}"#, 404, ""),
        (Method::POST, format!("{one}/queue"), "{}", 422, ""),
        (Method::POST, format!("{absent}/queue"), "null", 404, ""),
        (Method::POST, format!("{one}/cancel"), r#"{"why":"x"}"#, 422, "/why"),
        (Method::POST, format!("{one}/cancel"), r#"{"reason":""}"#, 422, "/reason"),
        (Method::POST, format!("{absent}/cancel"), "null", 404, ""),
    ];
    for (method, path, body, status, pointer) in cases {
        println!("{method} {path} {body:.80}");
        let request = platform.service.request(method, path).by(&platform.admin);
        let problem =
            request.header("content-type", "application/json").body(body.to_owned()).send().await.problem(status);
        if !pointer.is_empty() {
            assert_eq!(problem["errors"][0]["pointer"], pointer, "{problem}");
        }
    }
    let without_key = [(configurations, GOOD_CONFIGURATION), (jobs, &good_job), (format!("{one}/queue"), "null")];
    for (path, body) in without_key {
        let request = platform.service.post(path).by(&platform.admin).header("content-type", "application/json");
        let problem = request.body(body.to_owned()).send_unchanged().await.problem(400);
        assert_eq!(problem["type"], "/problems/idempotency-key-required");
    }
    assert_eq!(platform.event_count().await, before, "no event appended");
    platform.get(&format!("jobs/{}", Uuid::now_v7())).send().await.problem(404);
    platform.get(&format!("jobs/{}/outputs", Uuid::now_v7())).send().await.problem(404);
    platform.get(&format!("job-configurations/{}", Uuid::now_v7())).send().await.problem(404);
    platform.get("jobs?limit=0").send().await.problem(400);
    platform.get("jobs?cursor=x").send().await.problem(400);
    platform.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_machine_request_is_rejected_without_an_event() {
    let platform = Platform::start().await;
    let machine = Uuid::now_v7();
    let job = platform.running_job(machine).await;
    let before = platform.event_count().await;
    let at = epoch::Timestamp::now().to_string();
    let claim = json!({ "machine_id": machine, "wait_ms": 0 });
    for caller in [&platform.member, &platform.admin, &platform.stranger, &http_kit::Caller::operator()] {
        platform.internal("claims").by(caller).json(&claim).send().await.problem(403);
        let started = json!({ "machine_id": machine, "at": at });
        platform.internal(&format!("jobs/{job}/started")).by(caller).json(&started).send().await.problem(403);
    }
    let started = format!("jobs/{job}/started");
    let finished = format!("jobs/{job}/finished");
    let heartbeat = format!("jobs/{job}/heartbeat");
    let unknown_job = Uuid::now_v7();
    let cases = [
        ("claims".to_owned(), json!({ "machine_id": machine, "wait_ms": 20_001 }), 422, "/wait_ms"),
        ("claims".to_owned(), json!({ "machine_id": machine, "wait_ms": -1 }), 422, "/wait_ms"),
        ("claims".to_owned(), json!({ "machine_id": "m", "wait_ms": 0 }), 422, "/machine_id"),
        ("claims".to_owned(), json!({ "machine_id": machine, "wait_ms": 0, "x": 1 }), 422, "/x"),
        (started.clone(), json!({ "machine_id": machine, "at": "yesterday" }), 422, "/at"),
        (started.clone(), json!({ "machine_id": machine, "at": 7 }), 422, "/at"),
        (started, json!({ "machine_id": machine }), 422, ""),
        (format!("jobs/{unknown_job}/started"), json!({ "machine_id": machine, "at": at }), 404, ""),
        (heartbeat, json!({}), 422, ""),
        (format!("jobs/{unknown_job}/heartbeat"), json!({ "machine_id": machine }), 404, ""),
        (finished.clone(), json!({ "machine_id": machine, "at": at, "outcome": "succeeded" }), 422, "/exit_code"),
        (finished.clone(), json!({ "machine_id": machine, "at": at, "outcome": "lost" }), 422, "/outcome"),
        (
            finished.clone(),
            json!({ "machine_id": machine, "at": at, "outcome": "failed", "exit_code": 4_294_967_296_i64 }),
            422,
            "/exit_code",
        ),
        (finished, json!({ "machine_id": machine, "at": at, "outcome": "failed", "reason": "a\u{0}" }), 422, "/reason"),
        (
            format!("jobs/{unknown_job}/finished"),
            json!({ "machine_id": machine, "at": at, "outcome": "failed" }),
            404,
            "",
        ),
    ];
    for (path, body, status, pointer) in cases {
        println!("{path} {body}");
        let problem = platform.internal(&path).json(&body).send().await.problem(status);
        if !pointer.is_empty() {
            assert_eq!(problem["errors"][0]["pointer"], pointer, "{problem}");
        }
    }
    let without_key = platform.internal("claims").json(&claim).send_unchanged().await.problem(400);
    assert_eq!(without_key["type"], "/problems/idempotency-key-required");
    assert_eq!(platform.event_count().await, before, "no event appended");
    platform.close().await;
}
