//! Attempts that are interrupted: time limit, revocation, stop of the runner.

use std::{fs, time::Duration};

use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::{LONG, RunnerHarness, entries, eventually, is_running, limits, process_in};

/// Script that starts a grandchild process and waits for it.
const WITH_GRANDCHILD: &str = r#"sh -c 'sleep 1000 & echo $! > "$1"; wait' sh "$1""#;

fn add_job_with_grandchild(harness: &RunnerHarness, timeout_ms: u64) -> (Uuid, std::path::PathBuf) {
    let pid_file = harness.data.path().join("pid");
    let command = ["sh", "-c", WITH_GRANDCHILD, "sh", pid_file.to_str().unwrap()];
    (harness.platform.add_job(&command, timeout_ms, &[]), pid_file)
}

#[tokio::test]
async fn job_over_its_time_limit_is_killed_with_its_children() {
    let harness = RunnerHarness::start().await;
    let (job, pid_file) = add_job_with_grandchild(&harness, 2_000);
    let grandchild = process_in(&pid_file).await;
    assert!(is_running(grandchild));
    let finished = harness.platform.finished(job).await;
    assert_eq!((&finished["outcome"], &finished["exit_code"]), (&json!("timed_out"), &Value::Null));
    assert_eq!(finished["reason"], "ran longer than 2000 ms");
    eventually("the end of the grandchild", || (!is_running(grandchild)).then_some(())).await;
    harness.stop().await;
}

#[tokio::test]
async fn outputs_of_a_timed_out_job_are_stored() {
    let harness = RunnerHarness::start().await;
    let job = harness.platform.add_job(&["sh", "-c", "echo early; exec sleep 1000"], 2_000, &[]);
    let finished = harness.platform.finished(job).await;
    assert_eq!(finished["outcome"], "timed_out");
    harness.platform.inspect(|world| assert_eq!(world.text("stdout.txt"), "early\n"));
    harness.stop().await;
}

#[tokio::test]
async fn revoked_job_is_killed() {
    let harness = RunnerHarness::start().await;
    let (job, pid_file) = add_job_with_grandchild(&harness, LONG);
    let grandchild = process_in(&pid_file).await;
    harness.platform.change(|world| world.revoked = true);
    let finished = harness.platform.finished(job).await;
    assert_eq!((&finished["outcome"], &finished["reason"]), (&json!("cancelled"), &json!("cancelled")));
    assert_eq!(finished["output_file_ids"], json!([]));
    eventually("the end of the grandchild", || (!is_running(grandchild)).then_some(())).await;
    harness.stop().await;
}

#[tokio::test]
async fn rejected_heartbeat_ends_the_job() {
    let harness = RunnerHarness::start().await;
    let job = harness.platform.add_job(&["sleep", "1000"], LONG, &[]);
    harness.platform.until("the start of the job", |world| !world.calls_of(job, "started").is_empty()).await;
    harness.platform.change(|world| world.rejected_steps.push("heartbeat"));
    assert_eq!(harness.platform.finished(job).await["outcome"], "cancelled");
    harness.stop().await;
}

#[tokio::test]
async fn stopping_runner_ends_and_reports_its_jobs() {
    let harness = RunnerHarness::start().await;
    let (job, pid_file) = add_job_with_grandchild(&harness, LONG);
    let grandchild = process_in(&pid_file).await;
    let platform = harness.platform.clone();
    harness.stop().await;
    let finished = platform.finished(job).await;
    assert_eq!((&finished["outcome"], &finished["reason"]), (&json!("failed"), &json!("runner stopped")));
    eventually("the end of the grandchild", || (!is_running(grandchild)).then_some(())).await;
}

#[tokio::test]
async fn stopping_runner_gives_up_on_unavailable_job_service() {
    let harness = RunnerHarness::start().await;
    let (_, pid_file) = add_job_with_grandchild(&harness, LONG);
    let grandchild = process_in(&pid_file).await;
    harness.platform.change(|world| world.unavailable.insert("finished", usize::MAX));
    harness.stop().await;
    eventually("the end of the grandchild", || (!is_running(grandchild)).then_some(())).await;
}

#[tokio::test]
async fn dropped_runner_kills_its_jobs() {
    let harness = RunnerHarness::start().await;
    let (_, pid_file) = add_job_with_grandchild(&harness, LONG);
    let grandchild = process_in(&pid_file).await;
    harness.abort();
    eventually("the end of the grandchild", || (!is_running(grandchild)).then_some(())).await;
}

#[tokio::test]
async fn escaped_process_does_not_block_the_report() {
    let limits = runner::Limits { drain: Duration::from_millis(100), ..limits() };
    let harness = RunnerHarness::start_with(limits, tempfile::tempdir().unwrap()).await;
    let pid_file = harness.data.path().join("pid");
    // The program exits only after the background process has left the group.
    let script = r#"setsid sh -c 'echo $$ > "$1"; exec sleep 1000' sh "$1" & until [ -s "$1" ]; do sleep 0.01; done"#;
    let job = harness.platform.add_job(&["sh", "-c", script, "sh", pid_file.to_str().unwrap()], LONG, &[]);
    let finished = harness.platform.finished(job).await;
    let escaped = process_in(&pid_file).await;
    let killed = std::process::Command::new("sh").args(["-c", &format!("kill -s KILL {escaped}")]).status();
    assert!(killed.unwrap().success(), "the escaped process was still running");
    assert_eq!(finished["outcome"], "failed");
    let reason = finished["reason"].as_str().unwrap();
    assert!(reason.contains("a process that left the job's process group"), "{reason}");
    harness.stop().await;
}

#[tokio::test]
async fn directory_of_a_killed_runner_is_removed_at_start() {
    let data = tempfile::tempdir().unwrap();
    let leftovers = data.path().join("runner").join(Uuid::now_v7().to_string());
    fs::create_dir_all(leftovers.join("attempt/inputs")).unwrap();
    fs::write(leftovers.join("attempt/inputs/large"), "x").unwrap();
    let harness = RunnerHarness::start_with(limits(), data).await;
    harness.platform.until("a claim", |world| world.claims > 0).await;
    assert!(!leftovers.exists());
    assert_eq!(entries(&harness.data.path().join("runner")).len(), 3, "its directory, its lock and the start lock");
    harness.stop().await;
}
