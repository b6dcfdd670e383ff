//! Attempts: claim, start, heartbeat, finish.

use contracts::job::JobEvent;
use epoch::{Timestamp, Version, store::Streamer};
use futures::TryStreamExt;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Platform, sorted_json};

fn later(at: Timestamp, millis: i64) -> Timestamp {
    Timestamp::from_millis(at.as_millis() + millis)
}

#[tokio::test(flavor = "multi_thread")]
async fn run_time_is_measured_by_the_machine() {
    let platform = Platform::start().await;
    let (machine, file, output) = (Uuid::now_v7(), platform.complete_file().await, platform.complete_file().await);
    let configuration = platform.define("Checksum").await;
    let job = platform.create(configuration, &[file]).await;
    platform.queue(job).await;
    let claimed = platform.claim(machine, 5_000).await.expect(200).json();
    let expected = json!({
        "job_id": job, "organization_id": platform.organization, "name": "Checksum",
        "command": ["sha256sum", "-b"], "timeout_ms": 60_000, "input_file_ids": [file], "version": 4,
    });
    assert_eq!(claimed, expected);
    let shown = platform.get_job(job).await;
    assert_eq!((&shown["status"], &shown["machine_id"]), (&json!("assigned"), &json!(machine)));
    assert_eq!(platform.lease_count().await, 1);

    let start = later(Timestamp::now(), 500);
    platform.start_job(job, machine, start).await.is(200);
    assert!(platform.heartbeat(job, machine).await);
    let shown = platform.get_job(job).await;
    assert_eq!((&shown["status"], &shown["provisional"]), (&json!("running"), &json!(true)));
    assert_eq!(shown["started_at"], start.to_string());
    assert!(shown["run_ms"].as_i64().unwrap() >= 0);

    let file_not_known_yet = Uuid::now_v7();
    let end = later(start, 1_234);
    let outcome = json!({
        "outcome": "succeeded", "exit_code": 0, "reason": null, "output_file_ids": [output, file_not_known_yet, output],
    });
    platform.finish_job(job, machine, end, &outcome).await.is(200);
    let shown = platform.get_job(job).await;
    assert_eq!((&shown["status"], &shown["provisional"]), (&json!("succeeded"), &json!(false)));
    assert_eq!((&shown["run_ms"], &shown["exit_code"]), (&json!(1_234), &json!(0)));
    assert_eq!(shown["output_file_ids"], sorted_json(&[output, file_not_known_yet]));
    assert_eq!(shown["input_file_ids"], json!([file]));
    assert_eq!(shown["finished_at"], end.to_string());
    assert_eq!(platform.lease_count().await, 0);
    assert!(!platform.heartbeat(job, machine).await);

    let outputs = platform.get(&format!("jobs/{job}/outputs")).send().await.expect(200).json();
    let expected = json!({ "items": [
        { "id": output, "name": "a.csv", "bytes": 10, "status": "completed" },
        { "id": file_not_known_yet, "name": null, "bytes": null, "status": null },
    ] });
    assert_eq!(outputs, expected);
    let events: Vec<(String, i64)> = sqlx::query_as(
        "select event_name, occurred_at from events where aggregate_id = $1 and version >= 5 order by version",
    )
    .bind(job)
    .fetch_all(&platform.service.pool)
    .await
    .unwrap();
    let expected = [("JobStarted", start), ("JobFilesLinked", end), ("JobSucceeded", end)];
    assert_eq!(events, expected.map(|(name, at)| (name.to_owned(), at.as_millis())));
    platform.close().await;
}

/// Returns the machine types in the job's events.
async fn machine_types(platform: &Platform, job: Uuid) -> Vec<String> {
    let events =
        platform.store_of_other_process().stream("job", job, Version::ZERO).try_collect::<Vec<_>>().await.unwrap();
    let mut types = Vec::new();
    for event in events {
        match event.decode::<JobEvent>().unwrap() {
            JobEvent::JobAssigned(event) => types.push(event.machine_type),
            JobEvent::JobStarted(event) => types.push(event.machine_type),
            _ => {}
        }
    }
    types
}

#[tokio::test(flavor = "multi_thread")]
async fn machine_type_comes_from_the_claim() {
    let platform = Platform::start().await;
    let machine = Uuid::now_v7();
    let job = platform.queued_job().await;
    platform.get_job(job).await;
    let claim = |machine_type: Value| {
        let body = json!({ "machine_id": machine, "machine_type": machine_type, "wait_ms": 5_000 });
        platform.internal("claims").json(&body).send()
    };
    let before = platform.event_count().await;
    for invalid in [json!(""), json!("x".repeat(64)), json!("GPU"), json!("a b"), json!("-a"), json!(null), json!(7)] {
        let problem = claim(invalid.clone()).await.problem(422);
        assert!(problem.to_string().contains("/machine_type"), "{invalid}: {problem}");
    }
    assert_eq!(platform.event_count().await, before);
    assert_eq!(claim(json!("gpu-a100.80")).await.expect(200).json()["job_id"], job.to_string());
    platform.start_job(job, machine, Timestamp::now()).await.is(200);
    assert_eq!(machine_types(&platform, job).await, ["gpu-a100.80", "gpu-a100.80"]);

    // Older runners send no machine type.
    let job = platform.running_job(Uuid::now_v7()).await;
    assert_eq!(machine_types(&platform, job).await, ["default", "default"]);
    platform.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn outcome_determines_status_and_reason() {
    let platform = Platform::start().await;
    let cases = [
        (json!({ "outcome": "failed", "exit_code": 3 }), "failed", "the program ended with exit code 3"),
        (json!({ "outcome": "failed", "exit_code": null, "reason": "signal 9" }), "failed", "signal 9"),
        (json!({ "outcome": "cancelled", "reason": "the machine shuts down" }), "cancelled", "the machine shuts down"),
    ];
    for (outcome, status, reason) in cases {
        let machine = Uuid::now_v7();
        let job = platform.running_job(machine).await;
        platform.finish_job(job, machine, Timestamp::now(), &outcome).await.is(200);
        let shown = platform.get_job(job).await;
        assert_eq!((&shown["status"], &shown["reason"]), (&json!(status), &json!(reason)));
        assert_eq!(shown["exit_code"], outcome["exit_code"]);
    }
    let machine = Uuid::now_v7();
    let job = platform.running_job(machine).await;
    platform.finish_job(job, machine, Timestamp::now(), &json!({ "outcome": "timed_out" })).await.is(200);
    assert_eq!(platform.get_job(job).await["status"], "timed_out");
    platform.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_are_assigned_oldest_first_and_once() {
    let platform = Platform::start().await;
    let mut jobs = Vec::new();
    for _ in 0..10 {
        let job = platform.queued_job().await;
        platform.get_job(job).await;
        jobs.push(job.to_string());
    }
    let first = platform.claim(Uuid::now_v7(), 0).await.expect(200).json();
    assert_eq!(first["job_id"], jobs[0]);
    let second = platform.claim(Uuid::now_v7(), 0).await.expect(200).json();
    assert_eq!(second["job_id"], jobs[1]);
    let answers = futures::future::join_all((0..12).map(|_| platform.claim(Uuid::now_v7(), 200))).await;
    let mut assigned = Vec::new();
    for answer in answers {
        match answer.status.as_u16() {
            200 => assigned.push(answer.json()["job_id"].as_str().unwrap().to_owned()),
            _ => answer.is(204),
        }
    }
    assigned.sort_unstable();
    assert_eq!(assigned, jobs[2..], "one machine each");
    assert_eq!(platform.lease_count().await, 10);
    platform.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn claim_waits_for_a_job() {
    let platform = Platform::start().await;
    let configuration = platform.define("Checksum").await;
    let job = platform.create(configuration, &[]).await;
    let queue = async {
        platform.claim(Uuid::now_v7(), 0).await.is(204);
        platform.queue(job).await;
    };
    let (claimed, ()) = tokio::join!(platform.claim(Uuid::now_v7(), 20_000), queue);
    assert_eq!(claimed.expect(200).json()["job_id"], job.to_string());
    platform.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn repeated_claim_returns_the_same_job() {
    let platform = Platform::start().await;
    let job = platform.queued_job().await;
    platform.get_job(job).await;
    let machine = Uuid::now_v7();
    let claim = |machine: Uuid| {
        let body = json!({ "machine_id": machine, "wait_ms": 0 });
        platform.internal("claims").header("idempotency-key", "k-1").json(&body)
    };
    let first = claim(machine).send().await.expect(200).json();
    let waiting = platform.queued_job().await;
    platform.get_job(waiting).await;
    assert_eq!(claim(machine).send().await.expect(200).json(), first);
    assert_eq!(claim(Uuid::now_v7()).send().await.problem(422)["type"], "/problems/idempotency-key-reused");
    assert_eq!(platform.get_job(waiting).await["status"], "queued");
    assert_eq!(platform.lease_count().await, 1);
    platform.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn repeated_reports_append_no_events() {
    let platform = Platform::start().await;
    let machine = Uuid::now_v7();
    let job = platform.running_job(machine).await;
    platform.start_job(job, machine, Timestamp::now()).await.is(200);
    let outcome = json!({ "outcome": "succeeded", "exit_code": 0 });
    platform.finish_job(job, machine, Timestamp::now(), &outcome).await.is(200);
    platform.finish_job(job, machine, Timestamp::now(), &json!({ "outcome": "timed_out" })).await.is(200);
    let events = ["JobCreated", "JobQueued", "JobAssigned", "JobStarted", "JobSucceeded"];
    assert_eq!(platform.event_names(job).await, events);
    platform.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_of_another_machine_are_rejected() {
    let platform = Platform::start().await;
    let (machine, other) = (Uuid::now_v7(), Uuid::now_v7());
    let job = platform.running_job(machine).await;
    let before = platform.event_count().await;
    assert_eq!(platform.start_job(job, other, Timestamp::now()).await.problem(409)["type"], "/problems/other-machine");
    let outcome = json!({ "outcome": "succeeded", "exit_code": 0 });
    platform.finish_job(job, other, Timestamp::now(), &outcome).await.problem(409);
    assert!(!platform.heartbeat(job, other).await);
    assert!(platform.heartbeat(job, machine).await);
    assert_eq!((platform.event_count().await, platform.lease_count().await), (before, 1));
    platform.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn running_job_is_cancelled_at_once() {
    let platform = Platform::start().await;
    let machine = Uuid::now_v7();
    let job = platform.assigned_job(machine).await;
    // The machine's clock is four seconds ahead.
    let start = later(Timestamp::now(), 4_000);
    platform.start_job(job, machine, start).await.is(200);
    platform.post(&format!("jobs/{job}/cancel")).send().await.is(200);
    let shown = platform.get_job(job).await;
    assert_eq!((&shown["status"], &shown["provisional"]), (&json!("cancelled"), &json!(false)));
    assert_eq!((&shown["finished_at"], &shown["run_ms"]), (&json!(start.to_string()), &json!(0)));
    assert!(!platform.heartbeat(job, machine).await);
    let before = platform.event_count().await;
    let outcome = json!({ "outcome": "cancelled", "output_file_ids": [Uuid::now_v7()] });
    platform.finish_job(job, machine, start, &outcome).await.is(200);
    assert_eq!((platform.event_count().await, platform.lease_count().await), (before, 0));
    assert_eq!(platform.get_job(job).await["output_file_ids"], json!([]));
    platform.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn job_that_never_started_fails_without_run_time() {
    let platform = Platform::start().await;
    let machine = Uuid::now_v7();
    let job = platform.assigned_job(machine).await;
    let now = Timestamp::now();
    platform.finish_job(job, machine, now, &json!({ "outcome": "succeeded", "exit_code": 0 })).await.problem(409);
    let failed = json!({ "outcome": "failed", "reason": "no such program" });
    platform.finish_job(job, machine, now, &failed).await.is(200);
    let shown = platform.get_job(job).await;
    assert_eq!((&shown["status"], &shown["run_ms"]), (&json!("failed"), &Value::Null));
    platform.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn impossible_instants_are_rejected() {
    let platform = Platform::start().await;
    let machine = Uuid::now_v7();
    let job = platform.assigned_job(machine).await;
    let (now, before) = (Timestamp::now(), platform.event_count().await);
    for wrong in [later(now, 60_000), later(now, -60_000)] {
        let problem = platform.start_job(job, machine, wrong).await.problem(422);
        assert_eq!(problem["type"], "/problems/impossible-instant");
    }
    assert_eq!(platform.event_count().await, before, "no event appended");
    let queued_at: Timestamp = platform.get_job(job).await["queued_at"].as_str().unwrap().parse().unwrap();
    // An instant slightly before the job was queued counts as that instant.
    platform.start_job(job, machine, later(queued_at, -3_000)).await.is(200);
    assert_eq!(platform.get_job(job).await["started_at"], queued_at.to_string());
    let failed = json!({ "outcome": "failed", "exit_code": 1 });
    platform.finish_job(job, machine, later(queued_at, -60_000), &failed).await.problem(422);
    platform.finish_job(job, machine, later(queued_at, -1_000), &failed).await.is(200);
    assert_eq!(platform.get_job(job).await["run_ms"], 0);
    platform.close().await;
}
