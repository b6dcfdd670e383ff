//! Lease expiry.

use epoch::Timestamp;
use serde_json::json;
use uuid::Uuid;

use crate::support::Platform;

/// Sets the expiry of a job's lease. Returns whether there is a lease.
async fn set_lease_expiry(platform: &Platform, job: Uuid, at: Timestamp) -> bool {
    let query = sqlx::query("update leases set expires_at = $2 where job_id = $1").bind(job).bind(at.as_millis());
    query.execute(&platform.service.pool).await.unwrap().rows_affected() == 1
}

async fn wait_until_lost(platform: &Platform, job: Uuid) {
    platform.service.eventually(async || (platform.get_job(job).await["status"] == "lost").then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn job_is_lost_at_the_expiry_of_its_lease() {
    let platform = Platform::start().await;
    let machine = Uuid::now_v7();
    let job = platform.running_job(machine).await;
    let started: Timestamp = platform.get_job(job).await["started_at"].as_str().unwrap().parse().unwrap();
    let end = Timestamp::from_millis(started.as_millis() + 10);
    assert!(set_lease_expiry(&platform, job, end).await);
    wait_until_lost(&platform, job).await;
    let shown = platform.get_job(job).await;
    assert_eq!((&shown["finished_at"], &shown["run_ms"]), (&json!(end.to_string()), &json!(10)));
    assert!(shown["reason"].as_str().unwrap().contains(&machine.to_string()));
    assert_eq!(platform.lease_count().await, 0);

    // The machine returns: its heartbeat fails and its report changes nothing.
    assert!(!platform.heartbeat(job, machine).await);
    let before = platform.event_count().await;
    let outcome = json!({ "outcome": "succeeded", "exit_code": 0 });
    platform.finish_job(job, machine, Timestamp::now(), &outcome).await.is(200);
    assert_eq!(platform.event_count().await, before);
    platform.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn assigned_job_without_heartbeat_is_lost_unstarted() {
    let platform = Platform::start().await;
    let machine = Uuid::now_v7();
    let job = platform.assigned_job(machine).await;
    let before = Timestamp::now();
    assert!(set_lease_expiry(&platform, job, before).await);
    wait_until_lost(&platform, job).await;
    assert_eq!(platform.get_job(job).await["run_ms"], json!(null));
    assert_eq!(platform.event_names(job).await, ["JobCreated", "JobQueued", "JobAssigned", "JobLost"]);
    platform.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn heartbeat_renews_lease_and_expired_leases_are_deleted() {
    let platform = Platform::start().await;
    let (alive, vanished) = (Uuid::now_v7(), Uuid::now_v7());
    let renewed = platform.running_job(alive).await;
    let expired = platform.running_job(vanished).await;
    let ended = platform.running_job(vanished).await;
    platform.post(&format!("jobs/{ended}/cancel")).send().await.is(200);
    let expires_at = async || -> i64 {
        let query = sqlx::query_scalar("select expires_at from leases where job_id = $1").bind(renewed);
        query.fetch_one(&platform.service.pool).await.unwrap()
    };
    let before = expires_at().await;
    let soon = Timestamp::from_millis(before - 14_000);
    assert!(set_lease_expiry(&platform, renewed, soon).await);
    assert!(platform.heartbeat(renewed, alive).await);
    assert!(expires_at().await >= before, "renewed for a full lease");

    for job in [expired, ended] {
        assert!(set_lease_expiry(&platform, job, Timestamp::from_millis(1)).await);
    }
    wait_until_lost(&platform, expired).await;
    platform.service.eventually(async || (platform.lease_count().await == 1).then_some(())).await;
    assert_eq!(platform.get_job(expired).await["run_ms"], 0, "a job never ends before it started");
    assert_eq!(platform.get_job(ended).await["status"], "cancelled");
    assert_eq!(platform.get_job(renewed).await["status"], "running");
    platform.close().await;
}
