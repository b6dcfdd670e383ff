//! State of the services, for the status page.
//!
//! The page is public and each view needs all services, so the state is cached for [`FRESH_FOR`] and each service has a
//! timeout. The state names failing checks without their reasons, because reasons contain addresses.

use std::{sync::Arc, time::Duration};

use axum::{body::Body, extract::Request, http::Uri};
use epoch::error_chain;
use futures::future::join_all;
use moka::future::Cache;
use service_host::health::{CheckReport, Health, HealthReport};

use crate::{
    upstream::{Upstream, UpstreamError},
    upstreams::Upstreams,
};

const FRESH_FOR: Duration = Duration::from_secs(1);

/// Longer than the timeout of a service's own checks.
const TIMEOUT: Duration = Duration::from_secs(3);

const MAX_REPORT_BYTES: usize = 64 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ServiceState {
    Ready,
    NotReady,
    Unreachable,
}

#[derive(Debug, Clone)]
pub(crate) struct ServiceStatus {
    pub(crate) name: &'static str,
    pub(crate) state: ServiceState,
    pub(crate) checks: Vec<ServiceCheck>,
}

/// Result of one check of a service.
#[derive(Debug, Clone)]
pub(crate) struct ServiceCheck {
    pub(crate) name: String,
    pub(crate) ok: bool,
}

/// Cache of the state of all services.
pub(crate) struct StatusCache {
    upstreams: Upstreams,
    health: Health,
    cache: Cache<(), Arc<Vec<ServiceStatus>>>,
}

impl StatusCache {
    pub(crate) fn new(upstreams: Upstreams, health: Health) -> Self {
        Self { upstreams, health, cache: Cache::builder().max_capacity(1).time_to_live(FRESH_FOR).build() }
    }

    /// Returns the state of each service, at most [`FRESH_FOR`] old.
    pub(crate) async fn current(&self) -> Arc<Vec<ServiceStatus>> {
        self.cache.get_with((), self.fetch()).await
    }

    async fn fetch(&self) -> Arc<Vec<ServiceStatus>> {
        let local = self.health.readiness();
        let remote = join_all(self.upstreams.named().map(|(_, upstream)| fetch_readiness(upstream)));
        let (local, remote) = futures::join!(local, remote);
        let mut statuses = Vec::new();
        for ((name, upstream), report) in self.upstreams.named().into_iter().zip(remote) {
            let status = match (upstream, report) {
                (Upstream::Local { .. }, _) => service_status(name, checks_of(name, &local)),
                (Upstream::Http { .. }, Some(report)) => service_status(name, report),
                (Upstream::Http { .. }, None) => {
                    ServiceStatus { name, state: ServiceState::Unreachable, checks: Vec::new() }
                }
            };
            statuses.push(status);
        }
        Arc::new(statuses)
    }
}

/// Returns the readiness report of another process, or `None` if it does not answer. `None` also for a service of this
/// process.
async fn fetch_readiness(upstream: &Upstream) -> Option<HealthReport> {
    let Upstream::Http { .. } = upstream else { return None };
    let report = async {
        let mut request = Request::new(Body::empty());
        *request.uri_mut() = Uri::from_static("/readyz");
        let response = upstream.send_within(TIMEOUT, request).await?;
        let body = tokio::time::timeout(TIMEOUT, axum::body::to_bytes(response.into_body(), MAX_REPORT_BYTES));
        let body =
            body.await.map_err(|_| UpstreamError::Timeout { limit: TIMEOUT })?.map_err(UpstreamError::Interrupted)?;
        serde_json::from_slice(&body).map_err(|error| UpstreamError::UnexpectedResponse { detail: error.to_string() })
    };
    report.await.inspect_err(|error| tracing::debug!(error = error_chain(error), "readiness request failed")).ok()
}

/// Returns the checks of one service of this process. Their names start with the name of the service.
fn checks_of(name: &str, report: &HealthReport) -> HealthReport {
    let belongs = |part: &&CheckReport| part.name.strip_prefix(name).is_some_and(|rest| rest.starts_with('-'));
    let checks: Vec<_> = report.checks.iter().filter(belongs).cloned().collect();
    HealthReport { ok: checks.iter().all(|part| part.ok), checks }
}

fn service_status(name: &'static str, report: HealthReport) -> ServiceStatus {
    let state = if report.ok { ServiceState::Ready } else { ServiceState::NotReady };
    let checks = report.checks.into_iter().map(|CheckReport { name, ok, .. }| ServiceCheck { name, ok }).collect();
    ServiceStatus { name, state, checks }
}
