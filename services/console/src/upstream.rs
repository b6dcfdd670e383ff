//! A service, in this process or in another one.
//!
//! The gateway works the same in both deployments. Uploads and downloads have any size, so [`Upstream::send`] streams
//! bodies: a body that breaks off on one side breaks off on the other. The service receives byte for byte the path that
//! the gateway has matched.

mod error;

use std::time::Duration;

use axum::{
    Router,
    body::{Body, HttpBody, to_bytes},
    extract::Request,
    http::{StatusCode, Uri, header::InvalidHeaderValue},
    response::Response,
};
use bytes::Bytes;
use http_kit::{Caller, Secrets};
use reqwest::{Client, Url, redirect};
use tower::ServiceExt;
use utoipa::openapi::OpenApi;

use crate::headers::insert_traceparent;

pub use self::error::UpstreamError;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Idle time after which a TCP keepalive probe checks a connection.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// A service that the gateway sends requests to.
#[derive(Clone)]
pub enum Upstream {
    /// A service in another process.
    Http {
        /// Address of the service; paths are appended.
        base: Url,
        client: Client,
    },
    /// A service in this process.
    Local {
        /// Routes of the service, not [finished](http_kit::server::finish).
        router: Router,
        /// OpenAPI document of the public routes.
        openapi: Box<OpenApi>,
    },
}

impl Upstream {
    /// Returns the service at the address `base`.
    ///
    /// # Errors
    /// [`UpstreamError`] for an unusable address.
    pub fn http(base: Url) -> Result<Self, UpstreamError> {
        if base.scheme() != "http" {
            return Err(UpstreamError::Address { url: base });
        }
        let client = Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_keepalive(KEEPALIVE)
            .redirect(redirect::Policy::none())
            .no_proxy()
            .build()
            .map_err(UpstreamError::Client)?;
        Ok(Self::Http { base, client })
    }

    /// Returns a service in this process.
    #[must_use]
    pub fn local(router: Router, openapi: OpenApi) -> Self {
        Self::Local { router, openapi: Box::new(openapi) }
    }

    /// Sends a request. Returns when the response headers have arrived; the bodies stream.
    pub(crate) async fn send(&self, request: Request) -> Result<Response, UpstreamError> {
        match self {
            Upstream::Http { base, client } => {
                let request = remote_request(base, request)?;
                let response = client.execute(request).await.map_err(UpstreamError::Unreachable)?;
                Ok(axum::http::Response::from(response).map(Body::new))
            }
            Upstream::Local { router, .. } => {
                let Ok(response) = router.clone().oneshot(local_request(request)).await;
                Ok(response)
            }
        }
    }

    /// Sends a request like [`send`](Self::send), with a timeout for the response headers.
    pub(crate) async fn send_within(&self, limit: Duration, request: Request) -> Result<Response, UpstreamError> {
        let response = tokio::time::timeout(limit, self.send(request)).await;
        response.unwrap_or(Err(UpstreamError::Timeout { limit }))
    }

    /// Sends a request with the identity of the gateway, and reads the whole response.
    ///
    /// # Errors
    /// [`UpstreamError`] for a response that is incomplete after `limit` or larger than `max_bytes`.
    pub(crate) async fn call(
        &self,
        mut request: Request,
        secrets: &Secrets,
        limit: Duration,
        max_bytes: usize,
    ) -> Result<(StatusCode, Bytes), UpstreamError> {
        let invalid_caller =
            |error: InvalidHeaderValue| UpstreamError::UnexpectedResponse { detail: error.to_string() };
        Caller::service("console").write_to(request.headers_mut(), secrets).map_err(invalid_caller)?;
        insert_traceparent(request.headers_mut());
        let response = async {
            let (parts, body) = self.send(request).await?.into_parts();
            Ok((parts.status, to_bytes(body, max_bytes).await.map_err(UpstreamError::Interrupted)?))
        };
        tokio::time::timeout(limit, response).await.unwrap_or(Err(UpstreamError::Timeout { limit }))
    }
}

/// Converts a request for a service in another process.
fn remote_request(base: &Url, request: Request) -> Result<reqwest::Request, UpstreamError> {
    let (parts, body) = request.into_parts();
    let url = join_url(base, &parts.uri)?;
    let mut remote = reqwest::Request::new(parts.method, url);
    *remote.headers_mut() = parts.headers;
    // An empty body must not become a chunked one. For any other body the client's Content-Length stays, and limits the
    // sent bytes.
    if !body.is_end_stream() {
        *remote.body_mut() = Some(reqwest::Body::wrap_stream(body.into_data_stream()));
    }
    Ok(remote)
}

/// Converts a request for a router in this process. Drops the extensions of the gateway's router, such as its matched
/// path.
fn local_request(request: Request) -> Request {
    let (parts, body) = request.into_parts();
    let mut local = Request::new(body);
    *local.method_mut() = parts.method;
    *local.uri_mut() = parts.uri;
    *local.headers_mut() = parts.headers;
    local
}

/// Returns the URL of `uri`'s path and query below `base`.
fn join_url(base: &Url, uri: &Uri) -> Result<Url, UpstreamError> {
    let path = format!("{}{}", base.path().trim_end_matches('/'), uri.path());
    let mut url = base.clone();
    url.set_path(&path);
    url.set_query(uri.query());
    // URLs are normalized ("a/../b", "a\b"). A changed path could lead to a resource without a route in the gateway.
    if url.path() != path {
        return Err(UpstreamError::AmbiguousPath { path: uri.path().to_owned() });
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::{Upstream, UpstreamError, join_url};

    #[test]
    fn join_url_keeps_path_and_query() {
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
            let url = join_url(&base.parse().unwrap(), &uri.parse().unwrap()).unwrap();
            assert_eq!(url.as_str(), expected);
        }
    }

    #[test]
    fn path_that_would_be_normalized_is_rejected() {
        let base = "http://job:8082".parse().unwrap();
        let paths = ["/api/v1/organizations/../../../internal/v1/x", "/a/./b", "/a/%2e%2e/b", "/a/.%2E/b", "/a/b/.."];
        for path in paths {
            let result = join_url(&base, &path.parse().unwrap());
            assert!(matches!(result, Err(UpstreamError::AmbiguousPath { .. })), "{path}");
        }
    }

    #[test]
    fn address_must_be_http() {
        for wrong in ["https://job:8082", "ftp://job", "unix:/run/job"] {
            assert!(matches!(Upstream::http(wrong.parse().unwrap()), Err(UpstreamError::Address { .. })), "{wrong}");
        }
    }
}
