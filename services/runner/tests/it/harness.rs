//! A runner inside a test process.

use std::{num::NonZeroUsize, path::Path, time::Duration};

use epoch::retry::RetryPolicy;
use reqwest::Url;
use runner::{Limits, Runner, RunnerArgs, RunnerError, Settings};
use service_host::{config::PeerArgs, health::Health};
use tempfile::TempDir;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::fake_platform::{Platform, secrets};

/// Longest wait for a condition.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// Time limit of jobs that must not reach it, in milliseconds.
pub(crate) const LONG: u64 = 600_000;

pub(crate) struct RunnerHarness {
    pub(crate) platform: Platform,
    pub(crate) data: TempDir,
    pub(crate) health: Health,
    pub(crate) stop: CancellationToken,
    task: JoinHandle<Result<(), RunnerError>>,
}

/// Limits with short intervals.
pub(crate) fn limits() -> Limits {
    let retries = RetryPolicy { attempts: 10, first: Duration::from_millis(5), limit: Duration::from_millis(50) };
    Limits {
        heartbeat_every: Duration::from_millis(50),
        stop_report: Duration::from_millis(500),
        job_retries: RetryPolicy { attempts: u32::MAX, ..retries },
        file_retries: retries,
        ..Limits::default()
    }
}

impl RunnerHarness {
    pub(crate) async fn start() -> Self {
        Self::start_with(limits(), tempfile::tempdir().unwrap()).await
    }

    pub(crate) async fn start_with(limits: Limits, data: TempDir) -> Self {
        let platform = Platform::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = Url::parse(&format!("http://{}", platform.serve(listener).await)).unwrap();
        Self::start_on(platform, url, limits, data)
    }

    /// Starts a runner with one slot; the platform is at `url`.
    pub(crate) fn start_on(platform: Platform, url: Url, limits: Limits, data: TempDir) -> Self {
        let peers = PeerArgs {
            organization_url: url.clone(),
            job_url: url.clone(),
            file_url: url.clone(),
            billing_url: url.clone(),
            runner_url: url,
        };
        let runner = RunnerArgs {
            runner_data_dir: data.path().to_owned(),
            runner_slots: NonZeroUsize::MIN,
            machine_type: "test-1".to_owned(),
        };
        let runner = Runner::new(Settings { secrets: secrets(), peers, runner, limits }).unwrap();
        let (health, stop) = (Health::new(), CancellationToken::new());
        runner.add_checks(&health);
        let runner_stop = stop.clone();
        let task = tokio::spawn(async move { runner.run(runner_stop).await });
        Self { platform, data, health, stop, task }
    }

    /// Drops the runner at an arbitrary point.
    pub(crate) fn abort(&self) {
        self.task.abort();
    }

    /// Stops the runner and checks that it leaves no files.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(LIMIT, self.task).await.expect("stops in time").unwrap().unwrap();
        assert_eq!(entries(&self.data.path().join("runner")), ["start.lock"]);
    }
}

/// Returns the sorted names in a directory.
pub(crate) fn entries(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Polls until `condition` returns a value.
pub(crate) async fn eventually<T>(description: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let wait = async {
        loop {
            if let Some(value) = condition() {
                return value;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LIMIT, wait).await.unwrap_or_else(|_| panic!("timed out waiting for {description}"))
}

/// Waits for a program to write a process id to a file, and returns it.
pub(crate) async fn process_in(path: &Path) -> u32 {
    eventually("a process id", || std::fs::read_to_string(path).ok()?.strip_suffix('\n')?.parse().ok()).await
}

/// Returns whether a process is running. A zombie is not.
pub(crate) fn is_running(process: u32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{process}/stat")) else { return false };
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    !matches!(state, Some('Z' | 'X') | None)
}
