//! Errors of a request to a service.

use std::time::Duration;

use epoch::error_chain;
use http_kit::Problem;
use reqwest::Url;

/// Failure to forward a request.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    #[error("service address {url} must start with http://")]
    Address { url: Url },
    #[error("HTTP client setup failed")]
    Client(#[source] reqwest::Error),
    /// The service would normalize the path to another one than the gateway has matched.
    #[error("path {path} is ambiguous")]
    AmbiguousPath { path: String },
    /// The service does not answer, or its connection broke.
    #[error("service unreachable")]
    Unreachable(#[source] reqwest::Error),
    #[error("no response within {} ms", limit.as_millis())]
    Timeout { limit: Duration },
    /// The response broke off.
    #[error("reading the response failed")]
    Interrupted(#[source] axum::Error),
    #[error("unexpected response: {detail}")]
    UnexpectedResponse { detail: String },
}

impl From<UpstreamError> for Problem {
    fn from(error: UpstreamError) -> Self {
        match error {
            UpstreamError::AmbiguousPath { path } => Problem::not_found(format!("there is no resource at {path}")),
            UpstreamError::Unreachable(_) | UpstreamError::Interrupted(_) => {
                tracing::warn!(error = error_chain(&error), "request to a service failed");
                Problem::unavailable("the service is unreachable; retry the same request")
            }
            UpstreamError::Timeout { .. } => {
                tracing::warn!(%error, "request to a service timed out");
                let detail = "the service did not respond in time; the request may have been executed";
                Problem::unavailable(detail).of_kind("/problems/timed-out", "timed out")
            }
            UpstreamError::Address { .. } | UpstreamError::Client(_) | UpstreamError::UnexpectedResponse { .. } => {
                Problem::internal(error_chain(&error))
            }
        }
    }
}
