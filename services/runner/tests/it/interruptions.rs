//! Jobs that are ended from outside.

use std::{fs, time::Duration};

use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::{LONG, Running, entries, eventually, limits, process_in, runs};

/// Starts a process of its own and waits for it.
const WITH_GRANDCHILD: &str = r#"sh -c 'sleep 1000 & echo $! > "$1"; wait' sh "$1""#;

fn with_grandchild(running: &Running, timeout_ms: u64) -> (Uuid, std::path::PathBuf) {
    let number = running.data.path().join("number");
    let command = ["sh", "-c", WITH_GRANDCHILD, "sh", number.to_str().unwrap()];
    (running.platform.add_job(&command, timeout_ms, &[]), number)
}

#[tokio::test]
async fn a_job_that_takes_too_long_is_killed_with_all_it_started() {
    let running = Running::start().await;
    let (job, number) = with_grandchild(&running, 2_000);
    let grandchild = process_in(&number).await;
    assert!(runs(grandchild));
    let finished = running.platform.finished(job).await;
    assert_eq!((&finished["outcome"], &finished["exit_code"]), (&json!("timed_out"), &Value::Null));
    assert_eq!(finished["reason"], "ran longer than 2000 ms");
    eventually("the grandchild's end", || (!runs(grandchild)).then_some(())).await;
    running.stop().await;
}

#[tokio::test]
async fn what_was_written_before_the_time_was_over_is_stored() {
    let running = Running::start().await;
    let job = running.platform.add_job(&["sh", "-c", "echo early; exec sleep 1000"], 2_000, &[]);
    let finished = running.platform.finished(job).await;
    assert_eq!(finished["outcome"], "timed_out");
    running.platform.see(|world| assert_eq!(world.text("stdout.txt"), "early\n"));
    running.stop().await;
}

#[tokio::test]
async fn a_job_that_is_not_wanted_any_more_is_killed() {
    let running = Running::start().await;
    let (job, number) = with_grandchild(&running, LONG);
    let grandchild = process_in(&number).await;
    running.platform.change(|world| world.dismissed = true);
    let finished = running.platform.finished(job).await;
    assert_eq!((&finished["outcome"], &finished["reason"]), (&json!("cancelled"), &json!("cancelled")));
    assert_eq!(finished["output_file_ids"], json!([]));
    eventually("the grandchild's end", || (!runs(grandchild)).then_some(())).await;
    running.stop().await;
}

#[tokio::test]
async fn a_heartbeat_that_finds_no_such_job_ends_it_too() {
    let running = Running::start().await;
    let job = running.platform.add_job(&["sleep", "1000"], LONG, &[]);
    running.platform.until("its start", |world| !world.calls_of(job, "started").is_empty()).await;
    running.platform.change(|world| world.refused.push("heartbeat"));
    assert_eq!(running.platform.finished(job).await["outcome"], "cancelled");
    running.stop().await;
}

#[tokio::test]
async fn a_stopping_runner_ends_its_jobs_and_says_so() {
    let running = Running::start().await;
    let (job, number) = with_grandchild(&running, LONG);
    let grandchild = process_in(&number).await;
    let platform = running.platform.clone();
    running.stop().await;
    let finished = platform.finished(job).await;
    assert_eq!((&finished["outcome"], &finished["reason"]), (&json!("failed"), &json!("runner stopped")));
    eventually("the grandchild's end", || (!runs(grandchild)).then_some(())).await;
}

#[tokio::test]
async fn a_stopping_runner_does_not_wait_long_for_a_job_service_that_is_away() {
    let running = Running::start().await;
    let (_, number) = with_grandchild(&running, LONG);
    let grandchild = process_in(&number).await;
    running.platform.change(|world| world.unavailable.insert("finished", usize::MAX));
    running.stop().await;
    eventually("the grandchild's end", || (!runs(grandchild)).then_some(())).await;
}

#[tokio::test]
async fn a_runner_that_is_dropped_ends_its_jobs() {
    let running = Running::start().await;
    let (_, number) = with_grandchild(&running, LONG);
    let grandchild = process_in(&number).await;
    running.abort();
    eventually("the grandchild's end", || (!runs(grandchild)).then_some(())).await;
}

#[tokio::test]
async fn a_process_that_leaves_the_group_does_not_hold_the_job() {
    let limits = runner::Limits { drain: Duration::from_millis(100), ..limits() };
    let running = Running::start_with(limits, tempfile::tempdir().unwrap()).await;
    let number = running.data.path().join("number");
    // The program ends only once the other one has left the group.
    let script = r#"setsid sh -c 'echo $$ > "$1"; exec sleep 1000' sh "$1" & until [ -s "$1" ]; do sleep 0.01; done"#;
    let job = running.platform.add_job(&["sh", "-c", script, "sh", number.to_str().unwrap()], LONG, &[]);
    let finished = running.platform.finished(job).await;
    let escaped = process_in(&number).await;
    let killed = std::process::Command::new("sh").args(["-c", &format!("kill -s KILL {escaped}")]).status();
    assert!(killed.unwrap().success(), "it was still there");
    assert_eq!(finished["outcome"], "failed");
    let reason = finished["reason"].as_str().unwrap();
    assert!(reason.contains("a process that left the job's process group"), "{reason}");
    running.stop().await;
}

#[tokio::test]
async fn what_a_killed_runner_left_is_removed_at_the_start() {
    let data = tempfile::tempdir().unwrap();
    let leftovers = data.path().join("runner").join(Uuid::now_v7().to_string());
    fs::create_dir_all(leftovers.join("job/inputs")).unwrap();
    fs::write(leftovers.join("job/inputs/large"), "x").unwrap();
    let running = Running::start_with(limits(), data).await;
    running.platform.until("a claim", |world| world.claims > 0).await;
    assert!(!leftovers.exists());
    assert_eq!(entries(&running.data.path().join("runner")).len(), 3, "its own, its lock and the start's");
    running.stop().await;
}
