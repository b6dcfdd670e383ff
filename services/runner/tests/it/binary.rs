//! The runner binary.

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

/// A child process that is killed when the test ends or panics.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn runner_runs_jobs_concurrently_and_stops_on_sigterm() {
    let platform = Platform::new();
    let url = format!("http://{}", platform.serve(TcpListener::bind("127.0.0.1:0").await.unwrap()).await);
    let data = tempfile::tempdir().unwrap();
    let listen = format!("127.0.0.1:{}", free_ports());
    let mut command = runner(&["all"], &listen);
    command.env("CATACLOUD_SECRET", SECRET).env("CATACLOUD_DATA_DIR", data.path());
    command.env("CATACLOUD_JOB_URL", &url).env("CATACLOUD_FILE_URL", &url).env("CATACLOUD_MACHINE_TYPE", "test-1");
    let mut process = Process(command.spawn().unwrap());
    eventually("readiness", || runner(&["healthcheck"], &listen).status().unwrap().success().then_some(())).await;

    // Each job waits for the file of the other one.
    let [first, second] = ["a", "b"].map(|name| data.path().join(name).to_str().unwrap().to_owned());
    let script = r#"touch "$1"; until [ -e "$2" ]; do sleep 0.01; done; env"#;
    let jobs = [[&first, &second], [&second, &first]]
        .map(|[own, other]| platform.add_job(&["sh", "-c", script, "sh", own.as_str(), other.as_str()], LONG, &[]));
    for job in jobs {
        assert_eq!(platform.finished(job).await["outcome"], "succeeded");
    }
    platform.inspect(|world| assert!(!world.text("stdout.txt").contains(SECRET), "jobs must not see the secret"));

    let job = platform.add_job(&["sleep", "1000"], LONG, &[]);
    platform.until("the start of the job", |world| !world.calls_of(job, "started").is_empty()).await;
    let kill = Command::new("sh").args(["-c", &format!("kill -s TERM {}", process.0.id())]).status();
    assert!(kill.unwrap().success());
    let status = eventually("the exit of the runner", || process.0.try_wait().unwrap()).await;
    assert!(status.success(), "{status}");
    let finished = platform.finished(job).await;
    assert_eq!((&finished["outcome"], &finished["reason"]), (&json!("failed"), &json!("runner stopped")));
    assert_eq!(entries(&data.path().join("runner")), ["start.lock"]);
    assert!(!runner(&["healthcheck"], &listen).status().unwrap().success());
}
