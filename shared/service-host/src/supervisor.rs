//! Supervision of long-running tasks.
//!
//! A task that fails or panics is restarted after an increasing delay, and counted in `supervised_restarts_total{task}`.
//! Shutdown asks all tasks to stop, waits for a bounded time, and returns the names of tasks that it had to abort.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    future::Future,
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};

use epoch::retry::RetryPolicy;
use futures::FutureExt;
use http_kit::server::panic_message;
use tokio::task::{Id, JoinSet};
use tokio_util::sync::CancellationToken;

/// A task that ran for this long was healthy: its next failure counts as the first.
const HEALTHY_AFTER: Duration = Duration::from_secs(60);

/// Runs named tasks until shutdown. Dropping it aborts them.
#[derive(Debug)]
pub struct Supervisor {
    tasks: JoinSet<()>,
    names: HashMap<Id, Arc<str>>,
    stop: CancellationToken,
    restarts: RetryPolicy,
}

impl Supervisor {
    /// The delays before restarts.
    pub const RESTARTS: RetryPolicy =
        RetryPolicy { attempts: u32::MAX, first: Duration::from_millis(100), limit: Duration::from_secs(30) };

    /// Returns a supervisor whose tasks stop when `stop` is cancelled.
    #[must_use]
    pub fn new(stop: CancellationToken) -> Self {
        Self { tasks: JoinSet::new(), names: HashMap::new(), stop, restarts: Self::RESTARTS }
    }

    /// Sets the delays before restarts.
    #[must_use]
    pub fn with_restarts(mut self, restarts: RetryPolicy) -> Self {
        self.restarts = restarts;
        self
    }

    /// Returns the token that stops the tasks.
    #[must_use]
    pub fn token(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Spawns a task. `task` is called at the start and after each failure. Its future runs until the token is cancelled, or
    /// returns `Ok` when its work is complete.
    pub fn spawn<F, Fut, E>(&mut self, name: impl Into<Arc<str>>, task: F)
    where
        F: FnMut(CancellationToken) -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: fmt::Display + Send + 'static,
    {
        let name = name.into();
        let supervised = keep_running(name.clone(), task, self.stop.clone(), self.restarts);
        let handle = self.tasks.spawn(supervised);
        self.names.insert(handle.id(), name);
    }

    /// Waits until all tasks have completed.
    pub async fn finished(&mut self) {
        while let Some(finished) = self.tasks.join_next_with_id().await {
            let id = finished.map_or_else(|error| error.id(), |(id, ())| id);
            self.names.remove(&id);
        }
    }

    /// Asks all tasks to stop, waits for at most `limit`, aborts the remaining tasks, and returns their names.
    pub async fn shutdown(mut self, limit: Duration) -> Vec<Arc<str>> {
        self.stop.cancel();
        if tokio::time::timeout(limit, self.finished()).await.is_ok() {
            return Vec::new();
        }
        let aborted: BTreeSet<Arc<str>> = self.names.values().cloned().collect();
        self.tasks.shutdown().await;
        let aborted: Vec<_> = aborted.into_iter().collect();
        tracing::warn!(tasks = ?aborted, "tasks did not stop in time and were aborted");
        aborted
    }
}

async fn keep_running<F, Fut, E>(name: Arc<str>, mut task: F, stop: CancellationToken, restarts: RetryPolicy)
where
    F: FnMut(CancellationToken) -> Fut,
    Fut: Future<Output = Result<(), E>>,
    E: fmt::Display,
{
    let mut failed = 0;
    loop {
        let started = Instant::now();
        // Both the call and its future may panic. State that a panic leaves inconsistent belongs to this attempt only.
        let attempt = AssertUnwindSafe(async { task(stop.clone()).await }).catch_unwind();
        let reason = match attempt.await {
            Ok(Ok(())) => return tracing::debug!(task = &*name, "task completed"),
            Ok(Err(error)) => format!("{error:#}"),
            Err(panic) => format!("panicked: {}", panic_message(&*panic)),
        };
        if stop.is_cancelled() {
            return tracing::warn!(task = &*name, error = reason, "task failed during shutdown");
        }
        failed = if started.elapsed() >= HEALTHY_AFTER { 1 } else { failed + 1 };
        let wait = restarts.wait(failed);
        metrics::counter!("supervised_restarts_total", "task" => name.to_string()).increment(1);
        tracing::error!(
            task = &*name,
            error = reason,
            failed,
            wait_ms = wait.as_millis(),
            "task failed and is restarted"
        );
        if stop.run_until_cancelled(tokio::time::sleep(wait)).await.is_none() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        future::pending,
        sync::{
            Arc,
            atomic::{AtomicU32, Ordering},
        },
        time::Duration,
    };

    use epoch::retry::RetryPolicy;
    use tokio_util::sync::CancellationToken;

    use super::Supervisor;
    use crate::telemetry::metrics_handle;

    const SOON: RetryPolicy =
        RetryPolicy { attempts: 1, first: Duration::from_millis(1), limit: Duration::from_millis(2) };

    fn supervisor() -> Supervisor {
        Supervisor::new(CancellationToken::new()).with_restarts(SOON)
    }

    #[tokio::test]
    async fn failed_or_panicked_task_is_restarted_and_counted() {
        let metrics = metrics_handle().unwrap();
        let runs = Arc::new(AtomicU32::new(0));
        let counter = runs.clone();
        let mut supervisor = supervisor();
        supervisor.spawn("flaky", move |_| {
            let run = counter.fetch_add(1, Ordering::SeqCst);
            async move {
                match run {
                    0 => Err("no broker"),
                    1 => panic!("a bug"),
                    _ => Ok(()),
                }
            }
        });
        supervisor.finished().await;
        assert_eq!(runs.load(Ordering::SeqCst), 3);
        assert!(metrics.render().contains("supervised_restarts_total{task=\"flaky\"} 2"));
    }

    #[tokio::test]
    async fn shutdown_waits_for_tasks() {
        let done = Arc::new(AtomicU32::new(0));
        let counter = done.clone();
        let mut supervisor = supervisor();
        supervisor.spawn("orderly", move |stop| {
            let counter = counter.clone();
            async move {
                stop.cancelled().await;
                tokio::time::sleep(Duration::from_millis(20)).await;
                counter.fetch_add(1, Ordering::SeqCst);
                Ok::<_, Infallible>(())
            }
        });
        assert!(supervisor.shutdown(Duration::from_secs(5)).await.is_empty());
        assert_eq!(done.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn shutdown_aborts_and_names_tasks_after_the_limit() {
        let mut supervisor = supervisor();
        supervisor.spawn("stuck", |_| pending::<Result<(), Infallible>>());
        supervisor.spawn("orderly", |stop| async move {
            stop.cancelled().await;
            Ok::<_, Infallible>(())
        });
        let aborted = supervisor.shutdown(Duration::from_millis(50)).await;
        assert_eq!(aborted, ["stuck".into()]);
    }

    #[tokio::test]
    async fn task_awaiting_restart_stops_at_once() {
        let slow = RetryPolicy { attempts: 1, first: Duration::from_secs(3_600), limit: Duration::from_secs(3_600) };
        let mut supervisor = Supervisor::new(CancellationToken::new()).with_restarts(slow);
        supervisor.spawn("failing", |_| async { Err("no broker") });
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(supervisor.shutdown(Duration::from_secs(5)).await.is_empty());
    }
}
