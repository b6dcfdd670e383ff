//! Services that are unavailable or reject calls.

use reqwest::Url;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::{
    fake_platform::Platform,
    harness::{LONG, RunnerHarness, limits},
};

#[tokio::test]
async fn runner_waits_for_the_job_service_to_start() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let url = Url::parse(&format!("http://{address}")).unwrap();
    let harness = RunnerHarness::start_on(Platform::new(), url, limits(), tempfile::tempdir().unwrap());
    let job = harness.platform.add_job(&["true"], LONG, &[]);
    while harness.health.readiness().await.ok {
        tokio::task::yield_now().await;
    }
    harness.platform.serve(TcpListener::bind(address).await.unwrap()).await;
    assert_eq!(harness.platform.finished(job).await["outcome"], "succeeded");
    assert!(harness.health.readiness().await.ok);
    harness.stop().await;
}

#[tokio::test]
async fn calls_are_retried_under_the_same_idempotency_key() {
    let harness = RunnerHarness::start().await;
    harness.platform.change(|world| {
        for step in ["started", "heartbeat", "finished"] {
            world.unavailable.insert(step, 4);
        }
    });
    let finish_file = harness.data.path().join("finish");
    let script = r#"until [ -e "$1" ]; do sleep 0.01; done"#;
    let job = harness.platform.add_job(&["sh", "-c", script, "sh", finish_file.to_str().unwrap()], LONG, &[]);
    harness.platform.until("heartbeats", |world| world.calls_of(job, "heartbeat").len() > 5).await;
    std::fs::write(finish_file, "").unwrap();
    let called_five_times =
        |step: &'static str| move |world: &crate::fake_platform::World| world.calls_of(job, step).len() == 5;
    harness.platform.until("the accepted report", called_five_times("finished")).await;
    harness.platform.inspect(|world| {
        for step in ["started", "finished"] {
            let calls = world.calls_of(job, step);
            assert_eq!(calls.len(), 5, "{step}");
            let same = calls.iter().all(|call| call.key == calls[0].key && call.body == calls[0].body);
            assert!(same, "{calls:#?}");
        }
        assert_eq!(world.calls_of(job, "finished")[0].body["outcome"], "succeeded", "an outage is no revocation");
    });
    harness.stop().await;
}

#[tokio::test]
async fn job_with_rejected_start_is_not_run() {
    let harness = RunnerHarness::start().await;
    harness.platform.change(|world| world.rejected_steps.push("started"));
    let trace = harness.data.path().join("trace");
    let rejected = harness.platform.add_job(&["touch", trace.to_str().unwrap()], LONG, &[]);
    harness.platform.until("the start of the job", |world| !world.calls_of(rejected, "started").is_empty()).await;
    harness.platform.change(|world| world.rejected_steps.clear());
    let next = harness.platform.add_job(&["true"], LONG, &[]);
    assert_eq!(harness.platform.finished(next).await["outcome"], "succeeded");
    assert!(!trace.exists());
    harness.platform.inspect(|world| assert!(world.calls_of(rejected, "finished").is_empty()));
    harness.stop().await;
}

#[tokio::test]
async fn rejected_report_is_not_retried() {
    let harness = RunnerHarness::start().await;
    harness.platform.change(|world| world.rejected_steps.push("finished"));
    let job = harness.platform.add_job(&["true"], LONG, &[]);
    let next = harness.platform.add_job(&["true"], LONG, &[]);
    harness.platform.finished(next).await;
    harness.platform.inspect(|world| assert_eq!(world.calls_of(job, "finished").len(), 1));
    harness.stop().await;
}

#[tokio::test]
async fn broken_download_is_restarted() {
    let harness = RunnerHarness::start().await;
    let input = vec![b'x'; 500_000];
    let file = harness.platform.add_file("x", &input);
    harness.platform.change(|world| world.broken_downloads = 2);
    let job = harness.platform.add_job(&["cp", "inputs/x", "outputs/x"], LONG, &[file]);
    assert_eq!(harness.platform.finished(job).await["outcome"], "succeeded");
    harness.platform.inspect(|world| assert!(world.output("x").unwrap().bytes == input));
    harness.stop().await;
}

#[tokio::test]
async fn staging_waits_for_a_lagging_read_model() {
    let harness = RunnerHarness::start().await;
    let file = harness.platform.add_file("x", b"x");
    harness.platform.change(|world| world.lagging_reads = 3);
    let job = harness.platform.add_job(&["cat", "inputs/x"], LONG, &[file]);
    assert_eq!(harness.platform.finished(job).await["outcome"], "succeeded");
    harness.stop().await;
}

#[tokio::test]
async fn missing_input_fails_the_job_before_its_start() {
    let harness = RunnerHarness::start().await;
    let missing = uuid::Uuid::now_v7();
    let job = harness.platform.add_job(&["true"], LONG, &[missing]);
    let finished = harness.platform.finished(job).await;
    assert_eq!((&finished["outcome"], &finished["exit_code"]), (&json!("failed"), &Value::Null));
    let reason = finished["reason"].as_str().unwrap();
    assert!(reason.starts_with(&format!("input file {missing} could not be read: 404")), "{reason}");
    harness.platform.inspect(|world| assert!(world.calls_of(job, "started").is_empty()));
    harness.stop().await;
}

#[tokio::test]
async fn heartbeats_are_sent_during_staging() {
    let harness = RunnerHarness::start().await;
    let file = harness.platform.add_file("x", b"x");
    harness.platform.change(|world| world.downloads_held = true);
    let job = harness.platform.add_job(&["true"], LONG, &[file]);
    harness
        .platform
        .until("heartbeats before the start", |world| {
            world.calls_of(job, "heartbeat").len() >= 2 && world.calls_of(job, "started").is_empty()
        })
        .await;
    harness.platform.change(|world| world.downloads_held = false);
    assert_eq!(harness.platform.finished(job).await["outcome"], "succeeded");
    harness.stop().await;
}
