//! Readiness and liveness of a process: `/readyz`, `/livez` and `/metrics`.
//!
//! `/readyz` runs every check with a time limit, and is 503 when one fails: the process should get no requests, e.g. because
//! its database is down. `/livez` looks at flags only, never at other systems, so that an outage elsewhere restarts nothing. It
//! is 503 when a part of the process is stuck and only a restart helps.

use std::{
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use futures::future::{BoxFuture, FutureExt, join_all};
use metrics_exporter_prometheus::PrometheusHandle;
use serde::{Deserialize, Serialize};

const CHECK_LIMIT: Duration = Duration::from_secs(2);

type Check = Arc<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// The checks and flags of a process. Clones share them.
#[derive(Clone, Default)]
pub struct Health {
    probes: Arc<Mutex<Probes>>,
}

#[derive(Default)]
struct Probes {
    checks: Vec<(String, Check)>,
    flags: Vec<(String, LiveFlag)>,
}

/// Whether a part of the process is alive, e.g. a consumer. Initially it is.
#[derive(Debug, Clone, Default)]
pub struct LiveFlag {
    reason: Arc<Mutex<Option<String>>>,
}

/// The response of `/readyz` and `/livez`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthReport {
    /// Whether all checks passed.
    pub ok: bool,
    pub checks: Vec<CheckReport>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckReport {
    pub name: String,
    pub ok: bool,
    /// The reason of a failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The duration of the check, in milliseconds.
    pub ms: u64,
}

impl LiveFlag {
    /// Makes `/livez` fail, so that the process is restarted.
    pub fn fail(&self, reason: impl Into<String>) {
        *locked(&self.reason) = Some(reason.into());
    }

    /// Makes `/livez` succeed again.
    pub fn recover(&self) {
        *locked(&self.reason) = None;
    }

    #[must_use]
    pub fn is_alive(&self) -> bool {
        locked(&self.reason).is_none()
    }
}

impl Health {
    /// Returns a set without checks and flags, which is ready and alive.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a dependency that the process needs to respond. `check` returns the reason of a failure.
    pub fn add_check<F, Fut>(&self, name: impl Into<String>, check: F)
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), String>> + Send + 'static,
    {
        let check: Check = Arc::new(move || check().boxed());
        locked(&self.probes).checks.push((name.into(), check));
    }

    /// Adds a part that recovers only by a restart of the process.
    #[must_use]
    pub fn add_flag(&self, name: impl Into<String>) -> LiveFlag {
        let flag = LiveFlag::default();
        locked(&self.probes).flags.push((name.into(), flag.clone()));
        flag
    }

    /// Runs all checks concurrently.
    pub async fn readiness(&self) -> HealthReport {
        let checks = locked(&self.probes).checks.clone();
        let reports = join_all(checks.into_iter().map(|(name, check)| run(name, check))).await;
        HealthReport { ok: reports.iter().all(|check| check.ok), checks: reports }
    }

    /// Reads all flags.
    #[must_use]
    pub fn liveness(&self) -> HealthReport {
        let probes = locked(&self.probes);
        let report = |(name, flag): &(String, LiveFlag)| {
            let detail = locked(&flag.reason).clone();
            CheckReport { name: name.clone(), ok: detail.is_none(), detail, ms: 0 }
        };
        let reports: Vec<_> = probes.flags.iter().map(report).collect();
        HealthReport { ok: reports.iter().all(|check| check.ok), checks: reports }
    }

    /// Returns the routes `/livez`, `/readyz` and `/metrics`. Merge them after [`server::finish`](http_kit::server::finish), so
    /// that probes open no spans.
    pub fn router(&self, metrics: PrometheusHandle) -> Router {
        let router = Router::new()
            .route("/livez", get(async |State(health): State<Health>| health.liveness()))
            .route("/readyz", get(async |State(health): State<Health>| health.readiness().await))
            .with_state(self.clone());
        let format = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
        router.route("/metrics", get(async move || (format, metrics.render())))
    }
}

async fn run(name: String, check: Check) -> CheckReport {
    let started = Instant::now();
    let outcome = tokio::time::timeout(CHECK_LIMIT, check()).await;
    let detail = match outcome {
        Ok(Ok(())) => None,
        Ok(Err(reason)) => Some(reason),
        Err(_) => Some(format!("no response within {} ms", CHECK_LIMIT.as_millis())),
    };
    let ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    CheckReport { name, ok: detail.is_none(), detail, ms }
}

impl IntoResponse for HealthReport {
    fn into_response(self) -> Response {
        let status = if self.ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        (status, [(header::CACHE_CONTROL, "no-store")], Json(self)).into_response()
    }
}

/// Locks a mutex even if it is poisoned. No code panics while it holds one of these locks, so the value is consistent.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::Health;

    #[tokio::test]
    async fn process_without_checks_is_ready_and_alive() {
        let health = Health::new();
        assert!(health.readiness().await.ok && health.liveness().ok);
    }

    #[tokio::test]
    async fn failing_check_is_reported_by_name() {
        let health = Health::new();
        health.add_check("postgres", async || Ok(()));
        health.add_check("bus", async || Err("no broker".to_owned()));
        let report = health.readiness().await;
        assert!(!report.ok);
        let seen: Vec<_> =
            report.checks.iter().map(|check| (check.name.as_str(), check.ok, check.detail.as_deref())).collect();
        assert_eq!(seen, [("postgres", true, None), ("bus", false, Some("no broker"))]);
        assert!(health.liveness().ok, "an outage elsewhere restarts nothing");
    }

    #[tokio::test]
    async fn hanging_check_fails_after_the_limit() {
        let health = Health::new();
        health.add_check("postgres", pending);
        let report = health.readiness().await;
        assert!(!report.ok);
        assert_eq!(report.checks[0].detail.as_deref(), Some("no response within 2000 ms"));
    }

    #[test]
    fn flags_fail_and_recover() {
        let health = Health::new();
        let flag = health.add_flag("consumer");
        assert!(health.liveness().ok);
        flag.fail("fatal client error");
        assert!(!health.liveness().ok && !flag.is_alive());
        assert_eq!(health.liveness().checks[0].detail.as_deref(), Some("fatal client error"));
        flag.recover();
        assert!(health.liveness().ok && flag.is_alive());
    }
}
