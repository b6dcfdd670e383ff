//! What a client is told when it can't have what it asked for.
//!
//! The problem: every layer fails in its own words, and some of those words (SQL, addresses, stack traces) must not leave
//! the house.
//!
//! The invariant: an error leaves as RFC 9457 `application/problem+json` with a stable `type` and the trace id; the cause of
//! a 5xx is logged under that trace id and never shown.

mod conversions;

use std::{borrow::Cow, fmt, time::Duration};

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use utoipa::{PartialSchema, ToSchema, openapi};

use crate::telemetry;

/// The media type of [`ProblemDetails`] (RFC 9457).
pub const MEDIA_TYPE: &str = "application/problem+json";

const DEFAULT_RETRY_AFTER: Duration = Duration::from_secs(1);

/// One thing wrong with a request's body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FieldError {
    /// Where, as a JSON pointer (RFC 6901) into the request's body.
    pub pointer: String,
    /// What is wrong there.
    pub detail: String,
}

/// A problem as it travels: the body of every response with status 4xx or 5xx.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = Problem)]
pub struct ProblemDetails {
    /// Names the kind of problem and never changes its meaning, as in `/problems/not-found`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What is wrong this time.
    pub detail: String,
    /// What the problem is about, as a path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// The trace under which the service logged more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
    /// What is wrong where in the request's body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errors: Option<Vec<FieldError>>,
}

/// Turns an aggregate's refusal into what the client is told.
pub trait IntoProblem {
    /// The problem; its `detail` is shown to the client.
    fn into_problem(self) -> Problem;
}

/// A problem on its way out. Boxed, since every handler's `Result` has room for one.
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

macro_rules! constructors {
    ($($(#[$doc:meta])* $name:ident: $status:ident, $kind:literal, $title:literal;)*) => {
        $($(#[$doc])*
        #[must_use]
        pub fn $name(detail: impl Into<String>) -> Self {
            Self::new(StatusCode::$status, $kind, $title, detail)
        })*
    };
}

impl Problem {
    constructors! {
        /// 400: the request can't be read.
        bad_request: BAD_REQUEST, "/problems/bad-request", "bad request";
        /// 401: nobody says who asks.
        unauthorized: UNAUTHORIZED, "/problems/unauthorized", "not authenticated";
        /// 403: who asks may not.
        forbidden: FORBIDDEN, "/problems/forbidden", "not allowed";
        /// 404: it isn't there, or belongs to somebody else.
        not_found: NOT_FOUND, "/problems/not-found", "not found";
        /// 405: the resource has no such method.
        method_not_allowed: METHOD_NOT_ALLOWED, "/problems/method-not-allowed", "method not allowed";
        /// 409: the resource's state doesn't allow it.
        conflict: CONFLICT, "/problems/conflict", "conflict";
        /// 412: the client has seen another version than the current one.
        stale: PRECONDITION_FAILED, "/problems/stale", "stale version";
        /// 428: the client must say which version it has seen.
        precondition_required: PRECONDITION_REQUIRED, "/problems/precondition-required", "If-Match is required";
        /// 413: the body is larger than allowed.
        payload_too_large: PAYLOAD_TOO_LARGE, "/problems/payload-too-large", "payload too large";
        /// 415: the body isn't of a type this resource takes.
        unsupported_media_type: UNSUPPORTED_MEDIA_TYPE, "/problems/unsupported-media-type", "unsupported media type";
        /// 422: the request can be read but makes no sense.
        unprocessable: UNPROCESSABLE_ENTITY, "/problems/unprocessable", "unprocessable request";
        /// 429: the client asks too often.
        too_many_requests: TOO_MANY_REQUESTS, "/problems/too-many-requests", "too many requests";
        /// 503: it can't be answered now; the client may ask again after one second or [`Problem::retry_after`].
        unavailable: SERVICE_UNAVAILABLE, "/problems/unavailable", "unavailable";
    }

    /// 500: a fault of ours. The cause is logged here, with its sources if `{:#}` shows them, and never shown.
    #[must_use]
    pub fn internal(cause: impl fmt::Display) -> Self {
        tracing::error!(error = format!("{cause:#}"), "request failed by a fault of ours");
        let detail = "something went wrong on our side; the trace id names the details in our logs";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "/problems/internal", "internal error", detail)
    }

    /// A problem of its own kind: `kind` is a stable URI reference like `/problems/not-found`, `title` the same in words.
    #[must_use]
    pub fn new(status: StatusCode, kind: &'static str, title: &'static str, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        Self(Box::new(Parts { kind, title, status, detail, instance: None, errors: Vec::new(), retry_after: None }))
    }

    /// The same problem under a more telling kind and title.
    #[must_use]
    pub fn of_kind(mut self, kind: &'static str, title: &'static str) -> Self {
        self.0.kind = kind;
        self.0.title = title;
        self
    }

    /// The same problem, about the resource at `path`.
    #[must_use]
    pub fn about(mut self, path: impl Into<String>) -> Self {
        self.0.instance = Some(path.into());
        self
    }

    /// The same problem, pointing also at a place in the request's body (a JSON pointer).
    #[must_use]
    pub fn at(mut self, pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        self.0.errors.push(FieldError { pointer: pointer.into(), detail: detail.into() });
        self
    }

    /// The same problem, which may have passed after `wait` (whole seconds, at least one).
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.0.retry_after = Some(wait);
        self
    }

    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    /// The stable `type`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        self.0.kind
    }

    /// What the client is told.
    #[must_use]
    pub fn detail(&self) -> &str {
        &self.0.detail
    }

    /// When the client may ask again: always set where the status promises it.
    fn wait(&self) -> Option<Duration> {
        let promised = matches!(self.0.status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS);
        self.0.retry_after.or(promised.then_some(DEFAULT_RETRY_AFTER))
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
            trace_id: telemetry::current_trace_id(),
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

    async fn rendered(problem: Problem) -> (axum::http::response::Parts, Value) {
        let (parts, body) = problem.into_response().into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        (parts, serde_json::from_slice(&bytes).unwrap())
    }

    #[tokio::test]
    async fn renders_rfc_9457() {
        let problem = Problem::unprocessable("the name is empty").about("/jobs/1").at("/name", "must not be empty");
        let (parts, body) = rendered(problem).await;
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
    async fn unavailable_always_says_when_to_ask_again() {
        let (parts, _) = rendered(Problem::unavailable("later")).await;
        assert_eq!(parts.headers["retry-after"], "1");
        let (parts, _) = rendered(Problem::unavailable("later").retry_after(Duration::from_secs(7))).await;
        assert_eq!(parts.headers["retry-after"], "7");
        let (parts, _) = rendered(Problem::conflict("no").retry_after(Duration::from_millis(3))).await;
        assert_eq!(parts.headers["retry-after"], "1");
    }

    #[tokio::test]
    async fn the_cause_of_an_internal_error_is_not_shown() {
        let (parts, body) = rendered(Problem::internal("password is hunter2")).await;
        assert_eq!(parts.status, StatusCode::INTERNAL_SERVER_ERROR);
        assert!(!body.to_string().contains("hunter2"));
    }

    #[test]
    fn the_schema_is_called_problem() {
        assert_eq!(Problem::name(), "Problem");
        assert_eq!(ProblemDetails::name(), "Problem");
        let mut schemas = Vec::new();
        Problem::schemas(&mut schemas);
        assert!(schemas.iter().any(|(name, _)| name == "FieldError"));
    }
}
