//! RFC 9457 problem responses.
//!
//! Every 4xx and 5xx is `application/problem+json` with a stable `type` and the trace id. The cause of a 500 (SQL, addresses,
//! panics) is logged under that trace id and never sent to the client.

use std::{borrow::Cow, fmt, time::Duration};

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use utoipa::{PartialSchema, ToSchema, openapi};

use crate::trace_context;

/// The media type of [`ProblemDetails`] (RFC 9457).
pub const MEDIA_TYPE: &str = "application/problem+json";

const DEFAULT_RETRY_AFTER: Duration = Duration::from_secs(1);

/// One error in a request body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FieldError {
    /// The JSON pointer (RFC 6901) of the value in the request body, e.g. `/file_ids/3`.
    pub pointer: String,
    /// The error at this place, e.g. `must not be empty`.
    pub detail: String,
}

/// An RFC 9457 problem: the body of every 4xx and 5xx response.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = Problem)]
pub struct ProblemDetails {
    /// A stable URI reference of the problem type, e.g. `/problems/not-found`.
    #[serde(rename = "type")]
    pub kind: String,
    /// A summary of the problem type, e.g. `not found`.
    pub title: String,
    /// The HTTP status code, e.g. 404.
    pub status: u16,
    /// An explanation of this occurrence.
    pub detail: String,
    /// The path of the affected resource, if it is not the requested one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// The trace id (32 hex digits) under which the service logged this request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
    /// The errors in the request body, each with its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errors: Option<Vec<FieldError>>,
}

/// Converts an aggregate's rejection into a problem.
pub trait IntoProblem {
    /// Returns the problem. Its `detail` is sent to the client.
    fn into_problem(self) -> Problem;
}

/// A problem response. Boxed, to keep the `Result` of every handler small.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem(Box<Parts>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Parts {
    kind: &'static str,
    title: &'static str,
    status: StatusCode,
    detail: String,
    instance: Option<String>,
    errors: Vec<FieldError>,
    retry_after: Option<Duration>,
}

impl Problem {
    /// 400: the request is malformed.
    #[must_use]
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "/problems/bad-request", "bad request", detail)
    }

    /// 401: the request has no valid credentials.
    #[must_use]
    pub fn unauthorized(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "/problems/unauthorized", "not authenticated", detail)
    }

    /// 403: the caller's role is too low.
    #[must_use]
    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "/problems/forbidden", "not allowed", detail)
    }

    /// 404: the resource does not exist, or belongs to another organization.
    #[must_use]
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "/problems/not-found", "not found", detail)
    }

    /// 405: the resource does not support the method.
    #[must_use]
    pub fn method_not_allowed(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "/problems/method-not-allowed", "method not allowed", detail)
    }

    /// 409: the state of the resource does not allow the request.
    #[must_use]
    pub fn conflict(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "/problems/conflict", "conflict", detail)
    }

    /// 412: `If-Match` is not the current version.
    #[must_use]
    pub fn stale(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::PRECONDITION_FAILED, "/problems/stale", "stale version", detail)
    }

    /// 428: the request needs `If-Match`.
    #[must_use]
    pub fn precondition_required(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::PRECONDITION_REQUIRED, "/problems/precondition-required", "If-Match is required", detail)
    }

    /// 413: the body is too large.
    #[must_use]
    pub fn payload_too_large(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "/problems/payload-too-large", "payload too large", detail)
    }

    /// 415: the resource does not accept this media type.
    #[must_use]
    pub fn unsupported_media_type(detail: impl Into<String>) -> Self {
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "/problems/unsupported-media-type",
            "unsupported media type",
            detail,
        )
    }

    /// 422: the request is well-formed but invalid.
    #[must_use]
    pub fn unprocessable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "/problems/unprocessable", "unprocessable request", detail)
    }

    /// 429: the rate limit is exceeded.
    #[must_use]
    pub fn too_many_requests(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "/problems/too-many-requests", "too many requests", detail)
    }

    /// 503: the request may be repeated after one second, or after [`Problem::retry_after`].
    #[must_use]
    pub fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "/problems/unavailable", "unavailable", detail)
    }

    /// 500: a bug or a broken dependency. Logs the cause in its `{:#}` form and hides it from the client.
    #[must_use]
    pub fn internal(cause: impl fmt::Display) -> Self {
        tracing::error!(error = format!("{cause:#}"), "request failed with an internal error");
        let detail = "the service failed to process the request; its log has the details under this trace id";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "/problems/internal", "internal error", detail)
    }

    /// Returns a problem of any type. `kind` is a stable URI reference like `/problems/not-found`, and `title` summarizes it.
    #[must_use]
    pub fn new(status: StatusCode, kind: &'static str, title: &'static str, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        Self(Box::new(Parts { kind, title, status, detail, instance: None, errors: Vec::new(), retry_after: None }))
    }

    /// Sets a more specific type and title.
    #[must_use]
    pub fn of_kind(mut self, kind: &'static str, title: &'static str) -> Self {
        self.0.kind = kind;
        self.0.title = title;
        self
    }

    /// Sets the path of the affected resource.
    #[must_use]
    pub fn about(mut self, path: impl Into<String>) -> Self {
        self.0.instance = Some(path.into());
        self
    }

    /// Adds an error at a JSON pointer into the request body.
    #[must_use]
    pub fn at(mut self, pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        self.0.errors.push(FieldError { pointer: pointer.into(), detail: detail.into() });
        self
    }

    /// Sets `Retry-After`, in whole seconds and at least one.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.0.retry_after = Some(wait);
        self
    }

    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    /// Returns the stable `type`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        self.0.kind
    }

    #[must_use]
    pub fn detail(&self) -> &str {
        &self.0.detail
    }

    /// Returns the `Retry-After` duration. 503 and 429 always have one.
    fn wait(&self) -> Option<Duration> {
        let is_retryable = matches!(self.0.status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS);
        self.0.retry_after.or(is_retryable.then_some(DEFAULT_RETRY_AFTER))
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}: {}", self.0.status.as_u16(), self.0.title, self.0.detail)
    }
}

impl std::error::Error for Problem {}

impl From<Problem> for ProblemDetails {
    fn from(Problem(problem): Problem) -> Self {
        Self {
            kind: problem.kind.to_owned(),
            title: problem.title.to_owned(),
            status: problem.status.as_u16(),
            detail: problem.detail,
            instance: problem.instance,
            trace_id: trace_context::current_trace_id(),
            errors: (!problem.errors.is_empty()).then_some(problem.errors),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (status, wait) = (self.0.status, self.wait());
        let body = serde_json::to_vec(&ProblemDetails::from(self)).unwrap_or_default();
        let mut response = (status, [(header::CONTENT_TYPE, MEDIA_TYPE)], body).into_response();
        if let Some(wait) = wait {
            let seconds = HeaderValue::from(wait.as_secs().max(1));
            response.headers_mut().insert(header::RETRY_AFTER, seconds);
        }
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl PartialSchema for Problem {
    fn schema() -> openapi::RefOr<openapi::Schema> {
        ProblemDetails::schema()
    }
}

impl ToSchema for Problem {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("Problem")
    }

    fn schemas(schemas: &mut Vec<(String, openapi::RefOr<openapi::Schema>)>) {
        ProblemDetails::schemas(schemas);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::{http::StatusCode, response::IntoResponse};
    use http_body_util::BodyExt;
    use serde_json::{Value, json};
    use utoipa::ToSchema;

    use super::{Problem, ProblemDetails};

    async fn render(problem: Problem) -> (axum::http::response::Parts, Value) {
        let (parts, body) = problem.into_response().into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        (parts, serde_json::from_slice(&bytes).unwrap())
    }

    #[tokio::test]
    async fn problem_renders_as_rfc_9457() {
        let problem = Problem::unprocessable("the name is empty").about("/jobs/1").at("/name", "must not be empty");
        let (parts, body) = render(problem).await;
        assert_eq!(parts.status, StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(parts.headers["content-type"], "application/problem+json");
        assert_eq!(
            body,
            json!({
                "type": "/problems/unprocessable",
                "title": "unprocessable request",
                "status": 422,
                "detail": "the name is empty",
                "instance": "/jobs/1",
                "errors": [{ "pointer": "/name", "detail": "must not be empty" }],
            })
        );
    }

    #[tokio::test]
    async fn unavailable_always_has_retry_after() {
        let (parts, _) = render(Problem::unavailable("later")).await;
        assert_eq!(parts.headers["retry-after"], "1");
        let (parts, _) = render(Problem::unavailable("later").retry_after(Duration::from_secs(7))).await;
        assert_eq!(parts.headers["retry-after"], "7");
        let (parts, _) = render(Problem::conflict("no").retry_after(Duration::from_millis(3))).await;
        assert_eq!(parts.headers["retry-after"], "1");
    }

    #[tokio::test]
    async fn internal_error_hides_its_cause() {
        let (parts, body) = render(Problem::internal("password is hunter2")).await;
        assert_eq!(parts.status, StatusCode::INTERNAL_SERVER_ERROR);
        assert!(!body.to_string().contains("hunter2"));
    }

    #[test]
    fn schema_name_is_problem() {
        assert_eq!(Problem::name(), "Problem");
        assert_eq!(ProblemDetails::name(), "Problem");
        let mut schemas = Vec::new();
        Problem::schemas(&mut schemas);
        assert!(schemas.iter().any(|(name, _)| name == "FieldError"));
    }
}
