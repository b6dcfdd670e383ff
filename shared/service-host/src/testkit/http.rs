//! Requests to a service under test, and their responses.

use axum::{
    Router,
    body::Body,
    http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode},
};
use http_body_util::BodyExt;
use http_kit::{Caller, Secrets};
use serde_json::Value;
use tower::ServiceExt;
use uuid::Uuid;

/// A response with its whole body.
#[derive(Debug)]
pub struct TestResponse {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub bytes: bytes::Bytes,
}

impl TestResponse {
    /// Returns the body as JSON, or null when it is not JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_default()
    }

    /// Returns the text of a header, or the empty string without one.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// Asserts the status and returns the response.
    ///
    /// # Panics
    /// When the status is another one.
    #[track_caller]
    #[must_use]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{}", String::from_utf8_lossy(&self.bytes));
        self
    }

    /// Asserts the status.
    ///
    /// # Panics
    /// When the status is another one.
    #[track_caller]
    pub fn is(self, status: u16) {
        drop(self.expect(status));
    }

    /// Asserts that the response is a problem with this status, and returns the problem.
    ///
    /// # Panics
    /// When the status is another one or the body is not a problem.
    #[track_caller]
    pub fn problem(self, status: u16) -> Value {
        let response = self.expect(status);
        assert_eq!(response.header("content-type"), "application/problem+json");
        let problem = response.json();
        assert_eq!(problem["status"], status);
        assert!(problem["type"].is_string() && problem["trace_id"].is_string(), "{problem}");
        problem
    }
}

/// A request of a test.
pub struct TestRequest<'a> {
    router: &'a Router,
    secrets: &'a Secrets,
    method: Method,
    path: String,
    caller: Option<Caller>,
    headers: HeaderMap,
    body: Body,
}

#[allow(clippy::expect_used, reason = "a test kit fails tests by panicking")]
impl<'a> TestRequest<'a> {
    pub(super) fn new(router: &'a Router, secrets: &'a Secrets, method: Method, path: String) -> Self {
        Self { router, secrets, method, path, caller: None, headers: HeaderMap::new(), body: Body::empty() }
    }

    /// Sets the caller.
    #[must_use]
    pub fn by(mut self, caller: &Caller) -> Self {
        self.caller = Some(caller.clone());
        self
    }

    /// Adds a header.
    ///
    /// # Panics
    /// When the name or value is invalid.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.insert(HeaderName::from_static(name), HeaderValue::from_str(value).expect("valid header"));
        self
    }

    /// Sets a JSON body.
    #[must_use]
    pub fn json(self, body: &Value) -> Self {
        let mut request = self.header("content-type", "application/json");
        request.body = Body::from(body.to_string());
        request
    }

    /// Sets the body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Body>) -> Self {
        self.body = body.into();
        self
    }

    /// Sends the request and reads the response. A POST without an `Idempotency-Key` gets a new one.
    ///
    /// # Panics
    /// When the response cannot be read.
    pub async fn send(mut self) -> TestResponse {
        if self.method == Method::POST && !self.headers.contains_key("idempotency-key") {
            self = self.header("idempotency-key", &Uuid::now_v7().to_string());
        }
        self.send_unchanged().await
    }

    /// Sends the request without adding an `Idempotency-Key`.
    ///
    /// # Panics
    /// When the response cannot be read.
    pub async fn send_unchanged(self) -> TestResponse {
        let mut request =
            Request::builder().method(self.method).uri(&self.path).body(self.body).expect("valid request");
        request.headers_mut().extend(self.headers);
        if let Some(caller) = &self.caller {
            caller.write_to(request.headers_mut(), self.secrets).expect("valid caller");
        }
        let Ok(response) = self.router.clone().oneshot(request).await;
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.expect("complete response").to_bytes();
        TestResponse { status: parts.status, headers: parts.headers, bytes }
    }
}
