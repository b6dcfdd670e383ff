//! Routes of jobs: create, queue, cancel, list, get.

use axum::http::Method;
use http_kit::Role;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Platform, id_of};

#[tokio::test(flavor = "multi_thread")]
async fn job_keeps_the_settings_it_was_created_with() {
    let platform = Platform::start().await;
    let configuration = platform.define("Checksum").await;
    let created = platform.post("jobs").json(&json!({ "job_configuration_id": configuration })).send().await;
    let created = created.expect(201);
    let job = id_of(&created);
    assert_eq!(created.header("location"), platform.path(&format!("jobs/{job}")));
    assert_eq!(created.header("etag"), "\"1\"");
    let revised = json!({ "name": "Other", "command": ["true"], "timeout_ms": 1 });
    let path = format!("job-configurations/{configuration}");
    platform.put(&path).by(&platform.admin).json(&revised).send().await.is(200);

    let answer = platform.get(&format!("jobs/{job}?min_version=1")).send().await.expect(200);
    assert_eq!(answer.header("etag"), "\"1\"");
    let mut shown = answer.json();
    assert!(shown["created_at"].as_str().unwrap().ends_with('Z'));
    shown.as_object_mut().unwrap().remove("created_at");
    let expected = json!({
        "id": job, "name": "Checksum", "status": "created", "job_configuration_id": configuration,
        "command": ["sha256sum", "-b"], "timeout_ms": 60_000, "input_file_ids": [], "output_file_ids": [],
        "user_id": platform.user, "machine_id": null, "exit_code": null, "reason": null, "queued_at": null,
        "started_at": null, "finished_at": null, "run_ms": null, "provisional": false, "version": 1,
    });
    assert_eq!(shown, expected);
    let outputs = platform.get(&format!("jobs/{job}/outputs")).send().await.expect(200).json();
    assert_eq!(outputs, json!({ "items": [] }));

    let named = json!({ "job_configuration_id": configuration, "name": " Mine " });
    let named = id_of(&platform.post("jobs").json(&named).send().await.expect(201));
    let named = platform.get_job(named).await;
    assert_eq!((&named["name"], &named["command"]), (&json!("Mine"), &json!(["true"])));
    platform.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn create_job_rejects_unusable_configuration() {
    let platform = Platform::start().await;
    let retired = platform.define("Retired").await;
    let path = platform.path(&format!("job-configurations/{retired}"));
    platform.service.request(Method::DELETE, path).by(&platform.admin).send().await.is(200);
    let theirs = {
        let path = format!("/api/v1/organizations/{}/job-configurations", platform.stranger.organization.unwrap());
        let body = json!({ "name": "Theirs", "command": ["true"] });
        id_of(&platform.service.post(path).by(&platform.stranger).json(&body).send().await.expect(201))
    };
    let before = platform.event_count().await;
    for configuration in [retired, theirs, Uuid::now_v7()] {
        let body = json!({ "job_configuration_id": configuration });
        let problem = platform.post("jobs").json(&body).send().await.problem(422);
        assert_eq!(problem["type"], "/problems/unusable-job-configuration");
        assert_eq!(problem["errors"][0]["pointer"], "/job_configuration_id");
    }
    assert_eq!(platform.event_count().await, before, "no event appended");
    platform.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_queue_requests_queue_the_job_once() {
    let platform = Platform::start().await;
    let job = platform.queued_job().await;
    let queue = |key: &str| platform.post(&format!("jobs/{job}/queue")).header("idempotency-key", key);
    let path = format!("jobs/{job}/queue");
    let answers = futures::future::join_all((0..32).map(|_| platform.post(&path).send())).await;
    for answer in answers {
        assert_eq!(answer.expect(200).json(), json!({ "id": job, "version": 2 }));
    }
    queue("k").send().await.is(200);
    platform.post(&format!("jobs/{job}/cancel")).send().await.is(200);
    assert_eq!(queue("k").send().await.expect(200).json()["version"], 2, "result of the first request");
    assert_eq!(queue("l").send().await.problem(409)["type"], "/problems/job-ended");
    assert_eq!(platform.event_names(job).await, ["JobCreated", "JobQueued", "JobCancelled"]);
    platform.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn queued_job_can_be_cancelled() {
    let platform = Platform::start().await;
    let job = platform.queued_job().await;
    let cancel = |body: &Value| platform.post(&format!("jobs/{job}/cancel")).json(body);
    cancel(&json!({ "reason": "a\u{0}b" })).send().await.problem(422);
    cancel(&json!({ "reason": "x".repeat(1_001) })).send().await.problem(422);
    cancel(&json!({ "reason": "not needed" })).header("if-match", "\"1\"").send().await.problem(412);
    cancel(&json!({ "reason": "not needed" })).send().await.is(200);
    cancel(&json!({})).send().await.is(200);
    let shown = platform.get_job(job).await;
    assert_eq!((&shown["status"], &shown["reason"]), (&json!("cancelled"), &json!("not needed")));
    assert_eq!((&shown["version"], &shown["run_ms"]), (&json!(3), &Value::Null));
    assert!(shown["finished_at"].is_string());
    platform.claim(Uuid::now_v7(), 0).await.is(204);

    let without_reason = platform.queued_job().await;
    platform.post(&format!("jobs/{without_reason}/cancel")).send().await.is(200);
    let reason = format!("cancelled by user:{}", platform.user);
    assert_eq!(platform.get_job(without_reason).await["reason"], reason);
    platform.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn list_jobs_is_newest_first_and_filters_by_status() {
    let platform = Platform::start().await;
    let configuration = platform.define("Checksum").await;
    let mut jobs = Vec::new();
    for number in 0..5 {
        let job = platform.create(configuration, &[]).await;
        if number % 2 == 0 {
            platform.queue(job).await;
        }
        platform.get_job(job).await;
        jobs.push(job);
    }
    let list = async |query: &str| -> Vec<Uuid> {
        let (mut ids, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = platform.get(&format!("jobs?limit=2{query}{cursor}")).send().await.expect(200).json();
            for item in page["items"].as_array().unwrap() {
                ids.push(item["id"].as_str().unwrap().parse().unwrap());
            }
            let Some(next) = page["next"].as_str() else { return ids };
            cursor = format!("&cursor={next}");
        }
    };
    assert_eq!(list("").await, [jobs[4], jobs[3], jobs[2], jobs[1], jobs[0]]);
    assert_eq!(list("&status=queued").await, [jobs[4], jobs[2], jobs[0]]);
    assert_eq!(list("&status=created").await, [jobs[3], jobs[1]]);
    assert_eq!(list("&status=lost").await, Vec::<Uuid>::new());
    platform.get("jobs?status=sleeping").send().await.problem(400);
    platform.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_job_is_indistinguishable_from_a_missing_one() {
    let platform = Platform::start().await;
    let configuration = platform.define("Checksum").await;
    let job = platform.create(configuration, &[]).await;
    platform.get_job(job).await;
    let before = platform.event_count().await;
    // Under the owning organization, and under the stranger's own organization.
    for organization in [platform.organization, platform.stranger.organization.unwrap()] {
        let base = format!("/api/v1/organizations/{organization}");
        let files = json!({ "file_ids": [] });
        let settings = json!({ "name": "a", "command": ["true"] });
        let requests = [
            (Method::GET, format!("{base}/jobs/{job}"), Value::Null),
            (Method::GET, format!("{base}/jobs/{job}?min_version=1"), Value::Null),
            (Method::GET, format!("{base}/jobs/{job}?min_version=9"), Value::Null),
            (Method::GET, format!("{base}/jobs/{job}/outputs"), Value::Null),
            (Method::PUT, format!("{base}/jobs/{job}/files"), files),
            (Method::POST, format!("{base}/jobs/{job}/queue"), Value::Null),
            (Method::POST, format!("{base}/jobs/{job}/cancel"), Value::Null),
            (Method::GET, format!("{base}/job-configurations/{configuration}"), Value::Null),
            (Method::PUT, format!("{base}/job-configurations/{configuration}"), settings),
            (Method::DELETE, format!("{base}/job-configurations/{configuration}"), Value::Null),
        ];
        for (method, path, body) in requests {
            let request = platform.service.request(method.clone(), path).by(&platform.stranger);
            let request = if body.is_null() { request } else { request.json(&body) };
            // A wrong `If-Match` must give the same 404 as a right one.
            let request = if method == Method::GET { request } else { request.header("if-match", "\"9\"") };
            assert_eq!(request.send().await.problem(404)["type"], "/problems/not-found");
        }
    }
    assert_eq!(platform.event_count().await, before, "no event appended");
    platform.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn read_returns_503_when_min_version_is_not_reached() {
    let platform = Platform::start().await;
    let configuration = platform.define("Checksum").await;
    let job = platform.create(configuration, &[]).await;
    let (early, absent, outputs) = tokio::join!(
        platform.get(&format!("jobs/{job}?min_version=2")).send(),
        platform.get(&format!("jobs/{}?min_version=1", Uuid::now_v7())).send(),
        platform.get(&format!("jobs/{job}/outputs?min_version=2")).send(),
    );
    assert_eq!(early.header("retry-after"), "1");
    assert_eq!(early.problem(503)["type"], "/problems/version-not-reached");
    assert_eq!(outputs.problem(503)["type"], "/problems/version-not-reached");
    absent.problem(404);
    platform.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn services_and_operators_act_for_an_organization() {
    let platform = Platform::start().await;
    let configuration = platform.define("Checksum").await;
    let body = json!({ "job_configuration_id": configuration });
    let job = id_of(&platform.post("jobs").by(&platform.runner).json(&body).send().await.expect(201));
    let tenant: String = sqlx::query_scalar("select metadata->>'tenant' from events where aggregate_id = $1")
        .bind(job)
        .fetch_one(&platform.service.pool)
        .await
        .unwrap();
    assert_eq!(tenant, platform.organization.to_string());
    let operator = http_kit::Caller::operator();
    assert_eq!(operator.role, Role::Operator);
    platform.post(&format!("jobs/{job}/queue")).by(&operator).send().await.is(200);
    assert_eq!(platform.get_job(job).await["user_id"], Value::Null);
    platform.close().await;
}
