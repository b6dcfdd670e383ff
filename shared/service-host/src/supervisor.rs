//! Tasks that must not end.
//!
//! The problem: a background task that fails takes its work with it, silently; and a process that stops must neither cut
//! its tasks off nor wait for them forever.
//!
//! The invariant: until shutdown, a task that fails or panics is started again after a growing wait, and counted in
//! `supervised_restarts_total{task}`; shutdown asks all tasks to stop, waits a bounded time, and names those it had to abort.

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
use tokio::task::{Id, JoinSet};
use tokio_util::sync::CancellationToken;

/// A task that ran this long was well; its next failure is a first one.
const WELL_AFTER: Duration = Duration::from_secs(60);

/// Runs named tasks until it is shut down. Dropping it aborts them.
#[derive(Debug)]
pub struct Supervisor {
    tasks: JoinSet<()>,
    names: HashMap<Id, Arc<str>>,
    stop: CancellationToken,
    restarts: RetryPolicy,
}

impl Supervisor {
    /// How long to wait before a task is started again.
    pub const RESTARTS: RetryPolicy =
        RetryPolicy { attempts: u32::MAX, first: Duration::from_millis(100), limit: Duration::from_secs(30) };

    /// A supervisor of tasks that are to stop when `stop` is cancelled.
    #[must_use]
    pub fn new(stop: CancellationToken) -> Self {
        Self { tasks: JoinSet::new(), names: HashMap::new(), stop, restarts: Self::RESTARTS }
    }

    /// The same with other waits before restarts.
    #[must_use]
    pub fn with_restarts(mut self, restarts: RetryPolicy) -> Self {
        self.restarts = restarts;
        self
    }

    /// Tells tasks to stop when it is cancelled.
    #[must_use]
    pub fn token(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Starts a task. `task` is called at the start and after each failure; what it gives runs until its token is
    /// cancelled, or until its work is done for good (`Ok`).
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

    /// Waits until all tasks have ended by themselves.
    pub async fn finished(&mut self) {
        while let Some(finished) = self.tasks.join_next_with_id().await {
            let id = finished.map_or_else(|error| error.id(), |(id, ())| id);
            self.names.remove(&id);
        }
    }

    /// Asks all tasks to stop, waits for at most `limit`, and gives the names of those it had to abort then.
    pub async fn shutdown(mut self, limit: Duration) -> Vec<Arc<str>> {
        self.stop.cancel();
        if tokio::time::timeout(limit, self.finished()).await.is_ok() {
            return Vec::new();
        }
        let left: BTreeSet<Arc<str>> = self.names.values().cloned().collect();
        self.tasks.shutdown().await;
        let left: Vec<_> = left.into_iter().collect();
        tracing::warn!(tasks = ?left, "tasks didn't stop in time and were aborted");
        left
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
        // Calling the task may panic as well as running it. What a panic leaves half done stays with the attempt.
        let attempt = AssertUnwindSafe(async { task(stop.clone()).await }).catch_unwind();
        let reason = match attempt.await {
            Ok(Ok(())) => return tracing::debug!(task = &*name, "task ended"),
            Ok(Err(error)) => format!("{error:#}"),
            Err(panic) => format!("panicked: {}", panic_text(&*panic)),
        };
        if stop.is_cancelled() {
            return tracing::warn!(task = &*name, error = reason, "task failed while it was stopping");
        }
        failed = if started.elapsed() >= WELL_AFTER { 1 } else { failed + 1 };
        let wait = restarts.wait(failed);
        metrics::counter!("supervised_restarts_total", "task" => name.to_string()).increment(1);
        tracing::error!(
            task = &*name,
            error = reason,
            failed,
            wait_ms = wait.as_millis(),
            "task failed and is started again"
        );
        if stop.run_until_cancelled(tokio::time::sleep(wait)).await.is_none() {
            return;
        }
    }
}

/// What a panic said, if it said something.
pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
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
    async fn a_task_that_fails_or_panics_is_started_again_and_counted() {
        let metrics = metrics_handle().unwrap();
        let runs = Arc::new(AtomicU32::new(0));
        let seen = runs.clone();
        let mut supervisor = supervisor();
        supervisor.spawn("flaky", move |_| {
            let run = seen.fetch_add(1, Ordering::SeqCst);
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
    async fn shutdown_lets_tasks_finish_their_work() {
        let done = Arc::new(AtomicU32::new(0));
        let seen = done.clone();
        let mut supervisor = supervisor();
        supervisor.spawn("orderly", move |stop| {
            let seen = seen.clone();
            async move {
                stop.cancelled().await;
                tokio::time::sleep(Duration::from_millis(20)).await;
                seen.fetch_add(1, Ordering::SeqCst);
                Ok::<_, Infallible>(())
            }
        });
        assert!(supervisor.shutdown(Duration::from_secs(5)).await.is_empty());
        assert_eq!(done.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn shutdown_is_bounded_and_names_who_did_not_stop() {
        let mut supervisor = supervisor();
        supervisor.spawn("deaf", |_| pending::<Result<(), Infallible>>());
        supervisor.spawn("orderly", |stop| async move {
            stop.cancelled().await;
            Ok::<_, Infallible>(())
        });
        let aborted = supervisor.shutdown(Duration::from_millis(50)).await;
        assert_eq!(aborted, ["deaf".into()]);
    }

    #[tokio::test]
    async fn a_task_that_waits_to_be_restarted_stops_at_once() {
        let slow = RetryPolicy { attempts: 1, first: Duration::from_secs(3_600), limit: Duration::from_secs(3_600) };
        let mut supervisor = Supervisor::new(CancellationToken::new()).with_restarts(slow);
        supervisor.spawn("failing", |_| async { Err("no broker") });
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(supervisor.shutdown(Duration::from_secs(5)).await.is_empty());
    }
}
