//! Jobs through the door: from creation to the queue, and their end by cancellation.

use axum::http::Method;
use http_kit::Role;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Platform, id_of};

#[tokio::test(flavor = "multi_thread")]
async fn a_job_keeps_a_copy_of_its_configuration() {
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
    let named = platform.job(named).await;
    assert_eq!((&named["name"], &named["command"]), (&json!("Mine"), &json!(["true"])));
    platform.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_job_is_created_from_a_configuration_that_is_not_there() {
    let platform = Platform::start().await;
    let retired = platform.define("Retired").await;
    let path = platform.path(&format!("job-configurations/{retired}"));
    platform.service.request(Method::DELETE, path).by(&platform.admin).send().await.is(200);
    let theirs = {
        let path = format!("/api/v1/organizations/{}/job-configurations", platform.stranger.organization.unwrap());
        let body = json!({ "name": "Theirs", "command": ["true"] });
        id_of(&platform.service.post(path).by(&platform.stranger).json(&body).send().await.expect(201))
    };
    let before = platform.appended().await;
    for configuration in [retired, theirs, Uuid::now_v7()] {
        let body = json!({ "job_configuration_id": configuration });
        let problem = platform.post("jobs").json(&body).send().await.problem(422);
        assert_eq!(problem["type"], "/problems/unusable-job-configuration");
        assert_eq!(problem["errors"][0]["pointer"], "/job_configuration_id");
    }
    assert_eq!(platform.appended().await, before, "nothing appended");
    platform.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_queued_once_however_often_it_is_asked() {
    let platform = Platform::start().await;
    let job = platform.queued().await;
    let queue = |key: &str| platform.post(&format!("jobs/{job}/queue")).header("idempotency-key", key);
    let path = format!("jobs/{job}/queue");
    let answers = futures::future::join_all((0..32).map(|_| platform.post(&path).send())).await;
    for answer in answers {
        assert_eq!(answer.expect(200).json(), json!({ "id": job, "version": 2 }));
    }
    queue("k").send().await.is(200);
    platform.post(&format!("jobs/{job}/cancel")).send().await.is(200);
    assert_eq!(queue("k").send().await.expect(200).json()["version"], 2, "the first answer");
    assert_eq!(queue("l").send().await.problem(409)["type"], "/problems/job-ended");
    assert_eq!(platform.events(job).await, ["JobCreated", "JobQueued", "JobCancelled"]);
    platform.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_cancelled_before_it_runs() {
    let platform = Platform::start().await;
    let job = platform.queued().await;
    let cancel = |body: &Value| platform.post(&format!("jobs/{job}/cancel")).json(body);
    cancel(&json!({ "reason": "a\u{0}b" })).send().await.problem(422);
    cancel(&json!({ "reason": "x".repeat(1_001) })).send().await.problem(422);
    cancel(&json!({ "reason": "not needed" })).header("if-match", "\"1\"").send().await.problem(412);
    cancel(&json!({ "reason": "not needed" })).send().await.is(200);
    cancel(&json!({})).send().await.is(200);
    let shown = platform.job(job).await;
    assert_eq!((&shown["status"], &shown["reason"]), (&json!("cancelled"), &json!("not needed")));
    assert_eq!((&shown["version"], &shown["run_ms"]), (&json!(3), &Value::Null));
    assert!(shown["finished_at"].is_string());
    platform.claim(Uuid::now_v7(), 0).await.is(204);

    let unexplained = platform.queued().await;
    platform.post(&format!("jobs/{unexplained}/cancel")).send().await.is(200);
    let reason = format!("cancelled by user:{}", platform.user);
    assert_eq!(platform.job(unexplained).await["reason"], reason);
    platform.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_are_listed_newest_first_by_status() {
    let platform = Platform::start().await;
    let configuration = platform.define("Checksum").await;
    let mut jobs = Vec::new();
    for number in 0..5 {
        let job = platform.create(configuration, &[]).await;
        if number % 2 == 0 {
            platform.queue(job).await;
        }
        platform.job(job).await;
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
async fn another_organization_s_job_is_as_if_it_were_not_there() {
    let platform = Platform::start().await;
    let configuration = platform.define("Checksum").await;
    let job = platform.create(configuration, &[]).await;
    platform.job(job).await;
    let before = platform.appended().await;
    // Once by its right path, once by a path of the stranger's own organization.
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
            // A version that is not the current one must not be told from one that is.
            let request = if method == Method::GET { request } else { request.header("if-match", "\"9\"") };
            assert_eq!(request.send().await.problem(404)["type"], "/problems/not-found");
        }
    }
    assert_eq!(platform.appended().await, before, "nothing appended");
    platform.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_is_not_there_yet_is_503() {
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
async fn services_and_operators_may_act_for_organizations() {
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
    assert_eq!(platform.job(job).await["user_id"], Value::Null);
    platform.close().await;
}
