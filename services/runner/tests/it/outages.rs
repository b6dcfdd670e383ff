//! Services that are away or refuse.

use reqwest::Url;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::{
    fake_platform::Platform,
    harness::{LONG, Running, limits},
};

#[tokio::test]
async fn a_runner_waits_for_a_job_service_that_is_not_there_yet() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let url = Url::parse(&format!("http://{address}")).unwrap();
    let running = Running::start_on(Platform::new(), url, limits(), tempfile::tempdir().unwrap());
    let job = running.platform.add_job(&["true"], LONG, &[]);
    while running.health.readiness().await.ok {
        tokio::task::yield_now().await;
    }
    running.platform.serve(TcpListener::bind(address).await.unwrap()).await;
    assert_eq!(running.platform.finished(job).await["outcome"], "succeeded");
    assert!(running.health.readiness().await.ok);
    running.stop().await;
}

#[tokio::test]
async fn calls_are_repeated_under_the_same_key_until_the_job_service_is_back() {
    let running = Running::start().await;
    running.platform.change(|world| {
        for step in ["started", "heartbeat", "finished"] {
            world.unavailable.insert(step, 4);
        }
    });
    let go_on = running.data.path().join("go on");
    let script = r#"until [ -e "$1" ]; do sleep 0.01; done"#;
    let job = running.platform.add_job(&["sh", "-c", script, "sh", go_on.to_str().unwrap()], LONG, &[]);
    running.platform.until("heartbeats", |world| world.calls_of(job, "heartbeat").len() > 5).await;
    std::fs::write(go_on, "").unwrap();
    let ended = |step: &'static str| move |world: &crate::fake_platform::World| world.calls_of(job, step).len() == 5;
    running.platform.until("the answered end", ended("finished")).await;
    running.platform.see(|world| {
        for step in ["started", "finished"] {
            let calls = world.calls_of(job, step);
            assert_eq!(calls.len(), 5, "{step}");
            let same = calls.iter().all(|call| call.key == calls[0].key && call.body == calls[0].body);
            assert!(same, "{calls:#?}");
        }
        assert_eq!(world.calls_of(job, "finished")[0].body["outcome"], "succeeded", "an outage is no dismissal");
    });
    running.stop().await;
}

#[tokio::test]
async fn a_job_whose_start_is_refused_is_not_run() {
    let running = Running::start().await;
    running.platform.change(|world| world.refused.push("started"));
    let trace = running.data.path().join("trace");
    let refused = running.platform.add_job(&["touch", trace.to_str().unwrap()], LONG, &[]);
    running.platform.until("its start", |world| !world.calls_of(refused, "started").is_empty()).await;
    running.platform.change(|world| world.refused.clear());
    let next = running.platform.add_job(&["true"], LONG, &[]);
    assert_eq!(running.platform.finished(next).await["outcome"], "succeeded");
    assert!(!trace.exists());
    running.platform.see(|world| assert!(world.calls_of(refused, "finished").is_empty()));
    running.stop().await;
}

#[tokio::test]
async fn an_end_that_is_refused_is_not_repeated() {
    let running = Running::start().await;
    running.platform.change(|world| world.refused.push("finished"));
    let job = running.platform.add_job(&["true"], LONG, &[]);
    let next = running.platform.add_job(&["true"], LONG, &[]);
    running.platform.finished(next).await;
    running.platform.see(|world| assert_eq!(world.calls_of(job, "finished").len(), 1));
    running.stop().await;
}

#[tokio::test]
async fn a_download_that_breaks_begins_again() {
    let running = Running::start().await;
    let input = vec![b'x'; 500_000];
    let file = running.platform.add_file("x", &input);
    running.platform.change(|world| world.broken_downloads = 2);
    let job = running.platform.add_job(&["cp", "inputs/x", "outputs/x"], LONG, &[file]);
    assert_eq!(running.platform.finished(job).await["outcome"], "succeeded");
    running.platform.see(|world| assert!(world.output("x").unwrap().bytes == input));
    running.stop().await;
}

#[tokio::test]
async fn a_file_that_is_newer_than_the_read_model_is_waited_for() {
    let running = Running::start().await;
    let file = running.platform.add_file("x", b"x");
    running.platform.change(|world| world.late_names = 3);
    let job = running.platform.add_job(&["cat", "inputs/x"], LONG, &[file]);
    assert_eq!(running.platform.finished(job).await["outcome"], "succeeded");
    running.stop().await;
}

#[tokio::test]
async fn an_input_that_is_gone_fails_the_job_before_it_starts() {
    let running = Running::start().await;
    let gone = uuid::Uuid::now_v7();
    let job = running.platform.add_job(&["true"], LONG, &[gone]);
    let finished = running.platform.finished(job).await;
    assert_eq!((&finished["outcome"], &finished["exit_code"]), (&json!("failed"), &Value::Null));
    let reason = finished["reason"].as_str().unwrap();
    assert!(reason.starts_with(&format!("input file {gone} can't be read: 404")), "{reason}");
    running.platform.see(|world| assert!(world.calls_of(job, "started").is_empty()));
    running.stop().await;
}

#[tokio::test]
async fn heartbeats_go_on_while_files_are_staged() {
    let running = Running::start().await;
    let file = running.platform.add_file("x", b"x");
    running.platform.change(|world| world.downloads_held = true);
    let job = running.platform.add_job(&["true"], LONG, &[file]);
    running
        .platform
        .until("heartbeats before the start", |world| {
            world.calls_of(job, "heartbeat").len() >= 2 && world.calls_of(job, "started").is_empty()
        })
        .await;
    running.platform.change(|world| world.downloads_held = false);
    assert_eq!(running.platform.finished(job).await["outcome"], "succeeded");
    running.stop().await;
}
