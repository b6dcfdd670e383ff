//! Whether this process should get requests, and whether it should live.
//!
//! The problem: an orchestrator must tell "not now" (a database is away: send no requests) from "never again" (a consumer
//! is stuck: restart), and an operator must see which part says so.
//!
//! The invariant: `/readyz` runs every check, each within a time limit, and is 503 when one fails; `/livez` looks at flags
//! only, never at other systems, so an outage elsewhere restarts nothing.

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

/// The checks and flags of one process. Clones are the same set.
#[derive(Clone, Default)]
pub struct Health {
    parts: Arc<Mutex<Parts>>,
}

#[derive(Default)]
struct Parts {
    checks: Vec<(String, Check)>,
    flags: Vec<(String, LiveFlag)>,
}

/// Says whether one part of the process still works. Alive until told otherwise.
#[derive(Debug, Clone, Default)]
pub struct LiveFlag {
    reason: Arc<Mutex<Option<String>>>,
}

/// The answer of `/readyz` and `/livez`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Whether all parts are well.
    pub ok: bool,
    /// Each part.
    pub checks: Vec<PartReport>,
}

/// How one part is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartReport {
    /// Which part.
    pub name: String,
    /// Whether it is well.
    pub ok: bool,
    /// Why it isn't.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// How long it took to find out.
    pub ms: u64,
}

impl LiveFlag {
    /// The part can't go on: `/livez` fails and the process will be restarted.
    pub fn fail(&self, reason: impl Into<String>) {
        *locked(&self.reason) = Some(reason.into());
    }

    /// The part goes on after all.
    pub fn recover(&self) {
        *locked(&self.reason) = None;
    }

    /// Whether the part still works.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        locked(&self.reason).is_none()
    }
}

impl Health {
    /// No checks and no flags: ready and alive.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds something this process needs in order to answer; `check` gives the reason when it isn't there.
    pub fn add_check<F, Fut>(&self, name: impl Into<String>, check: F)
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), String>> + Send + 'static,
    {
        let check: Check = Arc::new(move || check().boxed());
        locked(&self.parts).checks.push((name.into(), check));
    }

    /// Adds a part that can't come back by itself once it has failed.
    #[must_use]
    pub fn add_flag(&self, name: impl Into<String>) -> LiveFlag {
        let flag = LiveFlag::default();
        locked(&self.parts).flags.push((name.into(), flag.clone()));
        flag
    }

    /// Runs all checks at once.
    pub async fn readiness(&self) -> Report {
        let checks = locked(&self.parts).checks.clone();
        let reports = join_all(checks.into_iter().map(|(name, check)| run(name, check))).await;
        Report { ok: reports.iter().all(|part| part.ok), checks: reports }
    }

    /// Looks at all flags.
    #[must_use]
    pub fn liveness(&self) -> Report {
        let parts = locked(&self.parts);
        let part = |(name, flag): &(String, LiveFlag)| {
            let detail = locked(&flag.reason).clone();
            PartReport { name: name.clone(), ok: detail.is_none(), detail, ms: 0 }
        };
        let reports: Vec<_> = parts.flags.iter().map(part).collect();
        Report { ok: reports.iter().all(|part| part.ok), checks: reports }
    }

    /// `/livez`, `/readyz` and `/metrics`. Merge it after [`server::finish`](crate::server::finish), so that probes make no spans.
    pub fn router(&self, metrics: PrometheusHandle) -> Router {
        let probes = Router::new()
            .route("/livez", get(async |State(health): State<Health>| health.liveness()))
            .route("/readyz", get(async |State(health): State<Health>| health.readiness().await))
            .with_state(self.clone());
        let format = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
        probes.route("/metrics", get(async move || (format, metrics.render())))
    }
}

async fn run(name: String, check: Check) -> PartReport {
    let started = Instant::now();
    let outcome = tokio::time::timeout(CHECK_LIMIT, check()).await;
    let detail = match outcome {
        Ok(Ok(())) => None,
        Ok(Err(reason)) => Some(reason),
        Err(_) => Some(format!("no answer within {} ms", CHECK_LIMIT.as_millis())),
    };
    let ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    PartReport { name, ok: detail.is_none(), detail, ms }
}

impl IntoResponse for Report {
    fn into_response(self) -> Response {
        let status = if self.ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        (status, [(header::CACHE_CONTROL, "no-store")], Json(self)).into_response()
    }
}

/// Nothing panics while it holds one of these locks; what a panic elsewhere left behind is whole.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::Health;

    #[tokio::test]
    async fn a_process_without_parts_is_well() {
        let health = Health::new();
        assert!(health.readiness().await.ok && health.liveness().ok);
    }

    #[tokio::test]
    async fn one_failing_check_makes_it_unready_and_says_which() {
        let health = Health::new();
        health.add_check("postgres", async || Ok(()));
        health.add_check("bus", async || Err("no broker".to_owned()));
        let report = health.readiness().await;
        assert!(!report.ok);
        let seen: Vec<_> =
            report.checks.iter().map(|part| (part.name.as_str(), part.ok, part.detail.as_deref())).collect();
        assert_eq!(seen, [("postgres", true, None), ("bus", false, Some("no broker"))]);
        assert!(health.liveness().ok, "what is away elsewhere restarts nothing");
    }

    #[tokio::test]
    async fn a_check_that_hangs_fails_in_time() {
        let health = Health::new();
        health.add_check("postgres", pending);
        let report = health.readiness().await;
        assert!(!report.ok);
        assert_eq!(report.checks[0].detail.as_deref(), Some("no answer within 2000 ms"));
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
