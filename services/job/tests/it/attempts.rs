//! Jobs on machines: claimed, started, alive, finished.

use contracts::job::JobEvent;
use epoch::{Timestamp, Version, store::Streamer};
use futures::TryStreamExt;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Platform, sorted};

fn later(at: Timestamp, millis: i64) -> Timestamp {
    Timestamp::from_millis(at.as_millis() + millis)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_runs_and_its_time_is_what_the_machine_says() {
    let platform = Platform::start().await;
    let (machine, file, output) = (Uuid::now_v7(), platform.file().await, platform.file().await);
    let configuration = platform.define("Checksum").await;
    let job = platform.create(configuration, &[file]).await;
    platform.queue(job).await;
    let claimed = platform.claim(machine, 5_000).await.expect(200).json();
    let expected = json!({
        "job_id": job, "organization_id": platform.organization, "name": "Checksum",
        "command": ["sha256sum", "-b"], "timeout_ms": 60_000, "input_file_ids": [file], "version": 4,
    });
    assert_eq!(claimed, expected);
    let shown = platform.job(job).await;
    assert_eq!((&shown["status"], &shown["machine_id"]), (&json!("assigned"), &json!(machine)));
    assert_eq!(platform.leases().await, 1);

    let start = later(Timestamp::now(), 500);
    platform.started(job, machine, start).await.is(200);
    assert!(platform.heartbeat(job, machine).await);
    let shown = platform.job(job).await;
    assert_eq!((&shown["status"], &shown["provisional"]), (&json!("running"), &json!(true)));
    assert_eq!(shown["started_at"], start.to_string());
    assert!(shown["run_ms"].as_i64().unwrap() >= 0);

    let heard_of_later = Uuid::now_v7();
    let end = later(start, 1_234);
    let outcome = json!({
        "outcome": "succeeded", "exit_code": 0, "reason": null, "output_file_ids": [output, heard_of_later, output],
    });
    platform.finished(job, machine, end, &outcome).await.is(200);
    let shown = platform.job(job).await;
    assert_eq!((&shown["status"], &shown["provisional"]), (&json!("succeeded"), &json!(false)));
    assert_eq!((&shown["run_ms"], &shown["exit_code"]), (&json!(1_234), &json!(0)));
    assert_eq!(shown["output_file_ids"], sorted(&[output, heard_of_later]));
    assert_eq!(shown["input_file_ids"], json!([file]));
    assert_eq!(shown["finished_at"], end.to_string());
    assert_eq!(platform.leases().await, 0);
    assert!(!platform.heartbeat(job, machine).await);

    let outputs = platform.get(&format!("jobs/{job}/outputs")).send().await.expect(200).json();
    let expected = json!({ "items": [
        { "id": output, "name": "a.csv", "bytes": 10, "status": "completed" },
        { "id": heard_of_later, "name": null, "bytes": null, "status": null },
    ] });
    assert_eq!(outputs, expected);
    let attributed: Vec<(String, i64)> = sqlx::query_as(
        "select event_name, occurred_at from events where aggregate_id = $1 and version >= 5 order by version",
    )
    .bind(job)
    .fetch_all(&platform.service.pool)
    .await
    .unwrap();
    let expected = [("JobStarted", start), ("JobFilesLinked", end), ("JobSucceeded", end)];
    assert_eq!(attributed, expected.map(|(name, at)| (name.to_owned(), at.as_millis())));
    platform.close().await;
}

/// What was appended about a job's machine.
async fn machine_types(platform: &Platform, job: Uuid) -> Vec<String> {
    let events = platform.elsewhere().stream("job", job, Version::ZERO).try_collect::<Vec<_>>().await.unwrap();
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
async fn a_run_is_of_the_type_that_its_machine_told_with_its_claim() {
    let platform = Platform::start().await;
    let machine = Uuid::now_v7();
    let job = platform.queued().await;
    platform.job(job).await;
    let claim = |machine_type: Value| {
        let body = json!({ "machine_id": machine, "machine_type": machine_type, "wait_ms": 5_000 });
        platform.internal("claims").json(&body).send()
    };
    let before = platform.appended().await;
    for odd in [json!(""), json!("x".repeat(64)), json!("GPU"), json!("a b"), json!("-a"), json!(null), json!(7)] {
        let problem = claim(odd.clone()).await.problem(422);
        assert!(problem.to_string().contains("/machine_type"), "{odd}: {problem}");
    }
    assert_eq!(platform.appended().await, before);
    assert_eq!(claim(json!("gpu-a100.80")).await.expect(200).json()["job_id"], job.to_string());
    platform.started(job, machine, Timestamp::now()).await.is(200);
    assert_eq!(machine_types(&platform, job).await, ["gpu-a100.80", "gpu-a100.80"]);

    // One that doesn't say, as machines did before.
    let job = platform.running(Uuid::now_v7()).await;
    assert_eq!(machine_types(&platform, job).await, ["default", "default"]);
    platform.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_outcome_has_its_end() {
    let platform = Platform::start().await;
    let cases = [
        (json!({ "outcome": "failed", "exit_code": 3 }), "failed", "the program ended with exit code 3"),
        (json!({ "outcome": "failed", "exit_code": null, "reason": "signal 9" }), "failed", "signal 9"),
        (json!({ "outcome": "cancelled", "reason": "the machine goes" }), "cancelled", "the machine goes"),
    ];
    for (outcome, status, reason) in cases {
        let machine = Uuid::now_v7();
        let job = platform.running(machine).await;
        platform.finished(job, machine, Timestamp::now(), &outcome).await.is(200);
        let shown = platform.job(job).await;
        assert_eq!((&shown["status"], &shown["reason"]), (&json!(status), &json!(reason)));
        assert_eq!(shown["exit_code"], outcome["exit_code"]);
    }
    let machine = Uuid::now_v7();
    let job = platform.running(machine).await;
    platform.finished(job, machine, Timestamp::now(), &json!({ "outcome": "timed_out" })).await.is(200);
    assert_eq!(platform.job(job).await["status"], "timed_out");
    platform.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_are_given_out_oldest_first_and_each_once() {
    let platform = Platform::start().await;
    let mut jobs = Vec::new();
    for _ in 0..10 {
        let job = platform.queued().await;
        platform.job(job).await;
        jobs.push(job.to_string());
    }
    let first = platform.claim(Uuid::now_v7(), 0).await.expect(200).json();
    assert_eq!(first["job_id"], jobs[0]);
    let second = platform.claim(Uuid::now_v7(), 0).await.expect(200).json();
    assert_eq!(second["job_id"], jobs[1]);
    let answers = futures::future::join_all((0..12).map(|_| platform.claim(Uuid::now_v7(), 200))).await;
    let mut given = Vec::new();
    for answer in answers {
        match answer.status.as_u16() {
            200 => given.push(answer.json()["job_id"].as_str().unwrap().to_owned()),
            _ => answer.is(204),
        }
    }
    given.sort_unstable();
    assert_eq!(given, jobs[2..], "one machine each");
    assert_eq!(platform.leases().await, 10);
    platform.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_waits_for_a_job() {
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
async fn a_claim_that_comes_again_gets_the_same_job() {
    let platform = Platform::start().await;
    let job = platform.queued().await;
    platform.job(job).await;
    let machine = Uuid::now_v7();
    let claim = |machine: Uuid| {
        let body = json!({ "machine_id": machine, "wait_ms": 0 });
        platform.internal("claims").header("idempotency-key", "k-1").json(&body)
    };
    let first = claim(machine).send().await.expect(200).json();
    let waiting = platform.queued().await;
    platform.job(waiting).await;
    assert_eq!(claim(machine).send().await.expect(200).json(), first);
    assert_eq!(claim(Uuid::now_v7()).send().await.problem(422)["type"], "/problems/idempotency-key-reused");
    assert_eq!(platform.job(waiting).await["status"], "queued");
    assert_eq!(platform.leases().await, 1);
    platform.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_can_say_everything_twice() {
    let platform = Platform::start().await;
    let machine = Uuid::now_v7();
    let job = platform.running(machine).await;
    platform.started(job, machine, Timestamp::now()).await.is(200);
    let outcome = json!({ "outcome": "succeeded", "exit_code": 0 });
    platform.finished(job, machine, Timestamp::now(), &outcome).await.is(200);
    platform.finished(job, machine, Timestamp::now(), &json!({ "outcome": "timed_out" })).await.is(200);
    let events = ["JobCreated", "JobQueued", "JobAssigned", "JobStarted", "JobSucceeded"];
    assert_eq!(platform.events(job).await, events);
    platform.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_machine_is_not_believed() {
    let platform = Platform::start().await;
    let (machine, other) = (Uuid::now_v7(), Uuid::now_v7());
    let job = platform.running(machine).await;
    let before = platform.appended().await;
    assert_eq!(platform.started(job, other, Timestamp::now()).await.problem(409)["type"], "/problems/other-machine");
    let outcome = json!({ "outcome": "succeeded", "exit_code": 0 });
    platform.finished(job, other, Timestamp::now(), &outcome).await.problem(409);
    assert!(!platform.heartbeat(job, other).await);
    assert!(platform.heartbeat(job, machine).await);
    assert_eq!((platform.appended().await, platform.leases().await), (before, 1));
    platform.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_job_is_cancelled_at_once_and_its_machine_learns_it() {
    let platform = Platform::start().await;
    let machine = Uuid::now_v7();
    let job = platform.queued().await;
    platform.claim(machine, 5_000).await.is(200);
    // The machine's clock is ahead.
    let start = later(Timestamp::now(), 4_000);
    platform.started(job, machine, start).await.is(200);
    platform.post(&format!("jobs/{job}/cancel")).send().await.is(200);
    let shown = platform.job(job).await;
    assert_eq!((&shown["status"], &shown["provisional"]), (&json!("cancelled"), &json!(false)));
    assert_eq!((&shown["finished_at"], &shown["run_ms"]), (&json!(start.to_string()), &json!(0)));
    assert!(!platform.heartbeat(job, machine).await);
    let before = platform.appended().await;
    let outcome = json!({ "outcome": "cancelled", "output_file_ids": [Uuid::now_v7()] });
    platform.finished(job, machine, start, &outcome).await.is(200);
    assert_eq!((platform.appended().await, platform.leases().await), (before, 0));
    assert_eq!(platform.job(job).await["output_file_ids"], json!([]));
    platform.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_could_not_be_started_has_failed_and_cost_no_time() {
    let platform = Platform::start().await;
    let machine = Uuid::now_v7();
    let job = platform.queued().await;
    platform.claim(machine, 5_000).await.is(200);
    let now = Timestamp::now();
    platform.finished(job, machine, now, &json!({ "outcome": "succeeded", "exit_code": 0 })).await.problem(409);
    let failed = json!({ "outcome": "failed", "reason": "no such program" });
    platform.finished(job, machine, now, &failed).await.is(200);
    let shown = platform.job(job).await;
    assert_eq!((&shown["status"], &shown["run_ms"]), (&json!("failed"), &Value::Null));
    platform.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn instants_that_can_not_be_are_refused() {
    let platform = Platform::start().await;
    let machine = Uuid::now_v7();
    let job = platform.queued().await;
    platform.claim(machine, 5_000).await.is(200);
    let (now, before) = (Timestamp::now(), platform.appended().await);
    for wrong in [later(now, 60_000), later(now, -60_000)] {
        let problem = platform.started(job, machine, wrong).await.problem(422);
        assert_eq!(problem["type"], "/problems/impossible-instant");
    }
    assert_eq!(platform.appended().await, before, "nothing appended");
    let queued_at: Timestamp = platform.job(job).await["queued_at"].as_str().unwrap().parse().unwrap();
    // A clock that is a little behind counts as the moment the job was queued.
    platform.started(job, machine, later(queued_at, -3_000)).await.is(200);
    assert_eq!(platform.job(job).await["started_at"], queued_at.to_string());
    let failed = json!({ "outcome": "failed", "exit_code": 1 });
    platform.finished(job, machine, later(queued_at, -60_000), &failed).await.problem(422);
    platform.finished(job, machine, later(queued_at, -1_000), &failed).await.is(200);
    assert_eq!(platform.job(job).await["run_ms"], 0);
    platform.close().await;
}
