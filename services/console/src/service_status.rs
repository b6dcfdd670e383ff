//! How the services are, for the page.
//!
//! The problem: the page is for anybody, and each view asks every service. The invariant: it is asked at most once a second,
//! each service for a bounded time, and what is kept says which part isn't well but not why: reasons name addresses.

use std::{sync::Arc, time::Duration};

use axum::{body::Body, extract::Request, http::Uri};
use futures::future::join_all;
use moka::future::Cache;
use service_kit::health::{Health, PartReport, Report};

use crate::{Upstream, UpstreamError, Upstreams, upstream::chain};

const FRESH_FOR: Duration = Duration::from_secs(1);

/// Longer than a service gives its checks.
const LIMIT: Duration = Duration::from_secs(3);

const MAX_REPORT_BYTES: usize = 64 * 1024;

/// How a service is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Ready,
    NotReady,
    NoAnswer,
}

/// A service, as the page shows it.
#[derive(Debug, Clone)]
pub(crate) struct ServiceStatus {
    pub(crate) name: &'static str,
    pub(crate) state: State,
    pub(crate) parts: Vec<Part>,
}

/// A part of a service.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    pub(crate) name: String,
    pub(crate) ok: bool,
}

/// Asks how the services are.
pub(crate) struct Statuses {
    upstreams: Upstreams,
    health: Health,
    known: Cache<(), Arc<Vec<ServiceStatus>>>,
}

impl Statuses {
    pub(crate) fn new(upstreams: Upstreams, health: Health) -> Self {
        Self { upstreams, health, known: Cache::builder().max_capacity(1).time_to_live(FRESH_FOR).build() }
    }

    /// How each service is, as of at most a second ago.
    pub(crate) async fn now(&self) -> Arc<Vec<ServiceStatus>> {
        self.known.get_with((), self.ask()).await
    }

    async fn ask(&self) -> Arc<Vec<ServiceStatus>> {
        let here = self.health.readiness();
        let elsewhere = join_all(self.upstreams.named().map(|(_, upstream)| readiness(upstream)));
        let (here, elsewhere) = futures::join!(here, elsewhere);
        let mut statuses = Vec::new();
        for ((name, upstream), report) in self.upstreams.named().into_iter().zip(elsewhere) {
            let status = match (upstream, report) {
                (Upstream::Local { .. }, _) => described(name, parts_of(name, &here)),
                (Upstream::Http { .. }, Some(report)) => described(name, report),
                (Upstream::Http { .. }, None) => ServiceStatus { name, state: State::NoAnswer, parts: Vec::new() },
            };
            statuses.push(status);
        }
        Arc::new(statuses)
    }
}

/// What another process says; nothing of one that doesn't say it, or of this process.
async fn readiness(upstream: &Upstream) -> Option<Report> {
    let Upstream::Http { .. } = upstream else { return None };
    let answer = async {
        let mut request = Request::new(Body::empty());
        *request.uri_mut() = Uri::from_static("/readyz");
        let response = upstream.send_within(LIMIT, request).await?;
        let body = tokio::time::timeout(LIMIT, axum::body::to_bytes(response.into_body(), MAX_REPORT_BYTES));
        let body = body.await.map_err(|_| UpstreamError::TooSlow { limit: LIMIT })?.map_err(UpstreamError::Unread)?;
        serde_json::from_slice(&body).map_err(|error| UpstreamError::Answer { detail: error.to_string() })
    };
    answer.await.inspect_err(|error| tracing::debug!(error = chain(error), "readiness is not known")).ok()
}

/// The checks of one of this process's services, which begin with its name.
fn parts_of(name: &str, report: &Report) -> Report {
    let is_its = |part: &&PartReport| part.name.strip_prefix(name).is_some_and(|rest| rest.starts_with('-'));
    let checks: Vec<_> = report.checks.iter().filter(is_its).cloned().collect();
    Report { ok: checks.iter().all(|part| part.ok), checks }
}

fn described(name: &'static str, report: Report) -> ServiceStatus {
    let state = if report.ok { State::Ready } else { State::NotReady };
    let parts = report.checks.into_iter().map(|PartReport { name, ok, .. }| Part { name, ok }).collect();
    ServiceStatus { name, state, parts }
}
