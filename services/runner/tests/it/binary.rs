//! The runner as a process.

use std::process::{Child, Command, Stdio};

use epoch::testkit::free_ports;
use serde_json::json;
use tokio::net::TcpListener;

use crate::{
    fake_platform::Platform,
    harness::{LONG, entries, eventually},
};

const SECRET: &str = "a secret for the tests";

fn runner(arguments: &[&str], listen: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_runner"));
    command.args(arguments).env("CATACLOUD_LISTEN", listen).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// Ended with the test, however that ends.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn runs_two_jobs_at_once_says_that_it_is_ready_and_stops_when_told() {
    let platform = Platform::new();
    let url = format!("http://{}", platform.serve(TcpListener::bind("127.0.0.1:0").await.unwrap()).await);
    let data = tempfile::tempdir().unwrap();
    let listen = format!("127.0.0.1:{}", free_ports());
    let mut command = runner(&["all"], &listen);
    command.env("CATACLOUD_SECRET", SECRET).env("CATACLOUD_DATA_DIR", data.path());
    command.env("CATACLOUD_JOB_URL", &url).env("CATACLOUD_FILE_URL", &url).env("CATACLOUD_MACHINE_TYPE", "test-1");
    let mut process = Process(command.spawn().unwrap());
    eventually("readiness", || runner(&["healthcheck"], &listen).status().unwrap().success().then_some(())).await;

    // Each waits for the other.
    let [first, second] = ["a", "b"].map(|name| data.path().join(name).to_str().unwrap().to_owned());
    let script = r#"touch "$1"; until [ -e "$2" ]; do sleep 0.01; done; env"#;
    let jobs = [[&first, &second], [&second, &first]]
        .map(|[mine, others]| platform.add_job(&["sh", "-c", script, "sh", mine.as_str(), others.as_str()], LONG, &[]));
    for job in jobs {
        assert_eq!(platform.finished(job).await["outcome"], "succeeded");
    }
    platform.see(|world| assert!(!world.text("stdout.txt").contains(SECRET), "jobs don't get the secret"));

    let job = platform.add_job(&["sleep", "1000"], LONG, &[]);
    platform.until("its start", |world| !world.calls_of(job, "started").is_empty()).await;
    let told = Command::new("sh").args(["-c", &format!("kill -s TERM {}", process.0.id())]).status();
    assert!(told.unwrap().success());
    let status = eventually("its end", || process.0.try_wait().unwrap()).await;
    assert!(status.success(), "{status}");
    let finished = platform.finished(job).await;
    assert_eq!((&finished["outcome"], &finished["reason"]), (&json!("failed"), &json!("runner stopped")));
    assert_eq!(entries(&data.path().join("runner")), ["start.lock"]);
    assert!(!runner(&["healthcheck"], &listen).status().unwrap().success());
}
