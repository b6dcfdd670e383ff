//! A service behind the door, wherever it runs.
//!
//! The problem: the door must work the same in front of other processes and in front of routers in its own, and must not
//! gather what passes through it: uploads and downloads have any size.
//!
//! The invariant: [`Upstream::send`] passes bodies on as they come. The client's body that breaks off breaks the service's
//! too, an answer that breaks off breaks the client's, and the path that was matched here is, byte for byte, the one that the
//! service is asked for.

mod ask;

use std::time::Duration;

use axum::{
    Router,
    body::{Body, HttpBody},
    extract::Request,
    http::Uri,
    response::Response,
};
use http_kit::Problem;
use reqwest::{Client, Url, redirect};
use service_host::config::PeerArgs;
use tower::ServiceExt;
use utoipa::openapi::OpenApi;

const CONNECT_LIMIT: Duration = Duration::from_secs(2);

/// When to ask a silent connection whether its other end is still there.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// Why a request can't be passed on.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// The service's address can't be used.
    #[error("{url} can't be used for a service: it must begin with http://")]
    Address {
        /// The address.
        url: Url,
    },
    /// The HTTP client can't be set up.
    #[error("HTTP client can't be set up")]
    Client(#[source] reqwest::Error),
    /// The path means something else to the service than to the door.
    #[error("path {path} has more than one reading")]
    Ambiguous {
        /// The path.
        path: String,
    },
    /// The service doesn't answer, or its connection broke.
    #[error("no answer")]
    NoAnswer(#[source] reqwest::Error),
    /// The service takes too long.
    #[error("no answer within {} ms", limit.as_millis())]
    TooSlow {
        /// How long it had.
        limit: Duration,
    },
    /// The service's answer can't be read to its end.
    #[error("answer can't be read")]
    Unread(#[source] axum::Error),
    /// The service's answer isn't what was expected.
    #[error("unexpected answer: {detail}")]
    Answer {
        /// What is wrong with it.
        detail: String,
    },
}

impl From<UpstreamError> for Problem {
    fn from(error: UpstreamError) -> Self {
        match error {
            UpstreamError::Ambiguous { path } => Problem::not_found(format!("there is nothing at {path}")),
            UpstreamError::NoAnswer(_) | UpstreamError::Unread(_) => {
                tracing::warn!(error = chain(&error), "a service can't be reached");
                Problem::unavailable(
                    "the service behind this door can't be reached; the same request may be sent again",
                )
            }
            UpstreamError::TooSlow { .. } => {
                tracing::warn!(%error, "a service is too slow");
                let detail = "the answer took too long; the request may or may not have been carried out";
                Problem::unavailable(detail).of_kind("/problems/timed-out", "timed out")
            }
            UpstreamError::Address { .. } | UpstreamError::Client(_) | UpstreamError::Answer { .. } => {
                Problem::internal(chain(&error))
            }
        }
    }
}

/// An error with all its sources: what really happened is in the last one.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text.push_str(": ");
        text.push_str(&next.to_string());
        cause = next.source();
    }
    text
}

/// A service behind the door.
#[derive(Clone)]
pub enum Upstream {
    /// In another process.
    Http {
        /// Its address; paths are appended.
        base: Url,
        /// What asks it.
        client: Client,
    },
    /// In this process.
    Local {
        /// Its routes, not [finished](http_kit::server::finish).
        router: Router,
        /// What they look like from outside.
        openapi: Box<OpenApi>,
    },
}

impl Upstream {
    /// The service at `base`.
    ///
    /// # Errors
    /// [`UpstreamError`] when the address can't be used.
    pub fn http(base: Url) -> Result<Self, UpstreamError> {
        if base.scheme() != "http" {
            return Err(UpstreamError::Address { url: base });
        }
        let client = Client::builder()
            .connect_timeout(CONNECT_LIMIT)
            .tcp_keepalive(KEEPALIVE)
            .redirect(redirect::Policy::none())
            .no_proxy()
            .build()
            .map_err(UpstreamError::Client)?;
        Ok(Self::Http { base, client })
    }

    /// The service with these routes, in this process.
    #[must_use]
    pub fn local(router: Router, openapi: OpenApi) -> Self {
        Self::Local { router, openapi: Box::new(openapi) }
    }

    /// Passes a request on; the answer is there when its headers are.
    pub(crate) async fn send(&self, request: Request) -> Result<Response, UpstreamError> {
        match self {
            Upstream::Http { base, client } => {
                let request = outgoing(base, request)?;
                let response = client.execute(request).await.map_err(UpstreamError::NoAnswer)?;
                Ok(axum::http::Response::from(response).map(Body::new))
            }
            Upstream::Local { router, .. } => {
                let Ok(response) = router.clone().oneshot(incoming(request)).await;
                Ok(response)
            }
        }
    }

    /// The same, for answers that must begin within `limit`.
    pub(crate) async fn send_within(&self, limit: Duration, request: Request) -> Result<Response, UpstreamError> {
        let answer = tokio::time::timeout(limit, self.send(request)).await;
        answer.unwrap_or(Err(UpstreamError::TooSlow { limit }))
    }
}

/// The request as another process gets it.
fn outgoing(base: &Url, request: Request) -> Result<reqwest::Request, UpstreamError> {
    let (parts, body) = request.into_parts();
    let url = joined(base, &parts.uri)?;
    let mut outgoing = reqwest::Request::new(parts.method, url);
    *outgoing.headers_mut() = parts.headers;
    // A body that is known to be empty must not become one of unknown length. For others, a Content-Length that the client
    // sent is kept, and bounds what is sent here too.
    if !body.is_end_stream() {
        *outgoing.body_mut() = Some(reqwest::Body::wrap_stream(body.into_data_stream()));
    }
    Ok(outgoing)
}

/// The request as a router in this process gets it: without what this router has noted about it.
fn incoming(request: Request) -> Request {
    let (parts, body) = request.into_parts();
    let mut incoming = Request::new(body);
    *incoming.method_mut() = parts.method;
    *incoming.uri_mut() = parts.uri;
    *incoming.headers_mut() = parts.headers;
    incoming
}

/// `uri`'s path and query at `base`.
fn joined(base: &Url, uri: &Uri) -> Result<Url, UpstreamError> {
    let path = format!("{}{}", base.path().trim_end_matches('/'), uri.path());
    let mut url = base.clone();
    url.set_path(&path);
    url.set_query(uri.query());
    // URLs are normalised ("a/../b", "a\b"), which could lead to where no route of the door leads.
    if url.path() != path {
        return Err(UpstreamError::Ambiguous { path: uri.path().to_owned() });
    }
    Ok(url)
}

/// The services behind the door.
#[derive(Clone)]
pub struct Upstreams {
    /// Organizations, members and keys.
    pub organization: Upstream,
    /// Job configurations and jobs.
    pub job: Upstream,
    /// Uploads and files.
    pub file: Upstream,
    /// Usage and costs.
    pub billing: Upstream,
    /// Has no public routes; the page shows how it is.
    pub runner: Upstream,
}

impl Upstreams {
    /// Each service in a process of its own.
    ///
    /// # Errors
    /// [`UpstreamError`] when an address can't be used.
    pub fn http(peers: &PeerArgs) -> Result<Self, UpstreamError> {
        Ok(Self {
            organization: Upstream::http(peers.organization_url.clone())?,
            job: Upstream::http(peers.job_url.clone())?,
            file: Upstream::http(peers.file_url.clone())?,
            billing: Upstream::http(peers.billing_url.clone())?,
            runner: Upstream::http(peers.runner_url.clone())?,
        })
    }

    /// Each service with its name.
    pub(crate) fn named(&self) -> [(&'static str, &Upstream); 5] {
        [
            ("organization", &self.organization),
            ("job", &self.job),
            ("file", &self.file),
            ("billing", &self.billing),
            ("runner", &self.runner),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::{Upstream, UpstreamError, joined};

    #[test]
    fn the_path_stays_what_it_was() {
        let cases = [
            (
                "http://job:8082",
                "/api/v1/organizations/1/jobs?limit=2&x=%2F",
                "http://job:8082/api/v1/organizations/1/jobs?limit=2&x=%2F",
            ),
            ("http://job:8082/", "/api/v1/a%20b", "http://job:8082/api/v1/a%20b"),
            ("http://gateway/job/", "/api/v1/x", "http://gateway/job/api/v1/x"),
        ];
        for (base, uri, expected) in cases {
            let url = joined(&base.parse().unwrap(), &uri.parse().unwrap()).unwrap();
            assert_eq!(url.as_str(), expected);
        }
    }

    #[test]
    fn a_path_that_would_lead_elsewhere_leads_nowhere() {
        let base = "http://job:8082".parse().unwrap();
        let paths = ["/api/v1/organizations/../../../internal/v1/x", "/a/./b", "/a/%2e%2e/b", "/a/.%2E/b", "/a/b/.."];
        for path in paths {
            let refused = joined(&base, &path.parse().unwrap());
            assert!(matches!(refused, Err(UpstreamError::Ambiguous { .. })), "{path}");
        }
    }

    #[test]
    fn only_plain_http_is_an_address() {
        for wrong in ["https://job:8082", "ftp://job", "unix:/run/job"] {
            assert!(matches!(Upstream::http(wrong.parse().unwrap()), Err(UpstreamError::Address { .. })), "{wrong}");
        }
    }
}
