//! Machines that go away.

use epoch::Timestamp;
use serde_json::json;
use uuid::Uuid;

use crate::support::Platform;

/// The lease of a job ended at `at`; whether there was one.
async fn expire(platform: &Platform, job: Uuid, at: Timestamp) -> bool {
    let query = sqlx::query("update leases set expires_at = $2 where job_id = $1").bind(job).bind(at.as_millis());
    query.execute(&platform.service.pool).await.unwrap().rows_affected() == 1
}

async fn lost(platform: &Platform, job: Uuid) {
    platform.service.eventually(async || (platform.job(job).await["status"] == "lost").then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_job_of_a_silent_machine_is_lost_as_of_the_end_of_its_lease() {
    let platform = Platform::start().await;
    let machine = Uuid::now_v7();
    let job = platform.running(machine).await;
    let started: Timestamp = platform.job(job).await["started_at"].as_str().unwrap().parse().unwrap();
    let end = Timestamp::from_millis(started.as_millis() + 10);
    assert!(expire(&platform, job, end).await);
    lost(&platform, job).await;
    let shown = platform.job(job).await;
    assert_eq!((&shown["finished_at"], &shown["run_ms"]), (&json!(end.to_string()), &json!(10)));
    assert!(shown["reason"].as_str().unwrap().contains(&machine.to_string()));
    assert_eq!(platform.leases().await, 0);

    // It comes back: it is told to stop, and what it says changes nothing.
    assert!(!platform.heartbeat(job, machine).await);
    let before = platform.appended().await;
    let outcome = json!({ "outcome": "succeeded", "exit_code": 0 });
    platform.finished(job, machine, Timestamp::now(), &outcome).await.is(200);
    assert_eq!(platform.appended().await, before);
    platform.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_was_never_heard_of_again_never_started() {
    let platform = Platform::start().await;
    let machine = Uuid::now_v7();
    let job = platform.queued().await;
    platform.claim(machine, 5_000).await.is(200);
    let before = Timestamp::now();
    assert!(expire(&platform, job, before).await);
    lost(&platform, job).await;
    assert_eq!(platform.job(job).await["run_ms"], json!(null));
    assert_eq!(platform.events(job).await, ["JobCreated", "JobQueued", "JobAssigned", "JobLost"]);
    platform.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_is_renewed_by_heartbeats_and_a_lease_of_an_ended_job_goes_quietly() {
    let platform = Platform::start().await;
    let (alive, silent) = (Uuid::now_v7(), Uuid::now_v7());
    let kept = platform.running(alive).await;
    let gone = platform.running(silent).await;
    let ended = platform.running(silent).await;
    platform.post(&format!("jobs/{ended}/cancel")).send().await.is(200);
    let until = async || -> i64 {
        let query = sqlx::query_scalar("select expires_at from leases where job_id = $1").bind(kept);
        query.fetch_one(&platform.service.pool).await.unwrap()
    };
    let before = until().await;
    let soon = Timestamp::from_millis(before - 14_000);
    assert!(expire(&platform, kept, soon).await);
    assert!(platform.heartbeat(kept, alive).await);
    assert!(until().await >= before, "renewed for the whole time");

    for job in [gone, ended] {
        assert!(expire(&platform, job, Timestamp::from_millis(1)).await);
    }
    lost(&platform, gone).await;
    platform.service.eventually(async || (platform.leases().await == 1).then_some(())).await;
    assert_eq!(platform.job(gone).await["run_ms"], 0, "never before it started");
    assert_eq!(platform.job(ended).await["status"], "cancelled");
    assert_eq!(platform.job(kept).await["status"], "running");
    platform.close().await;
}
