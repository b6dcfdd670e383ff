//! Problems instead of the framework's plain-text errors.
//!
//! axum and its layers respond to some requests themselves, with plain text or an empty body: unknown routes, unsupported
//! methods, rejections of axum's own extractors. [`errors_as_problems`] turns these into a [`Problem`] and keeps their other
//! headers, such as `Allow`.

use axum::{
    body::{Body, to_bytes},
    extract::{OriginalUri, Request},
    http::{HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use crate::problem::{MEDIA_TYPE, Problem};

/// The maximum length of a plain text that becomes the detail of a problem.
const MAX_TEXT_BYTES: usize = 4 * 1024;

/// Responds 404 to a path without a route.
pub async fn not_found(OriginalUri(uri): OriginalUri) -> Problem {
    Problem::not_found(format!("there is no resource at {}", uri.path()))
}

/// Responds 405 to a method that the route does not support. axum adds `Allow`.
pub async fn method_not_allowed(method: Method, OriginalUri(uri): OriginalUri) -> Problem {
    Problem::method_not_allowed(format!("{} does not support {method}", uri.path()))
}

/// Middleware that turns every 4xx and 5xx with plain text or without a `Content-Type` into a problem.
pub async fn errors_as_problems(request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    let status = response.status();
    if !(status.is_client_error() || status.is_server_error()) || has_body_format(&response) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let text = to_bytes(body, MAX_TEXT_BYTES).await.unwrap_or_default();
    let detail = String::from_utf8_lossy(&text).trim().to_owned();
    let (problem, body) = problem_for(status, detail).into_response().into_parts();
    for (name, value) in problem.headers {
        // Headers of the inner layer win: its Retry-After or WWW-Authenticate is more specific.
        if let Some(name) = name
            && !parts.headers.contains_key(&name)
        {
            parts.headers.insert(name, value);
        }
    }
    parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    parts.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(parts, body)
}

fn has_body_format(response: &Response<Body>) -> bool {
    let content_type = response.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    content_type.is_some_and(|value| !value.starts_with(b"text/plain"))
}

fn problem_for(status: StatusCode, text: String) -> Problem {
    if status == StatusCode::SERVICE_UNAVAILABLE {
        return Problem::unavailable("the service cannot respond at the moment");
    }
    if status.is_server_error() {
        tracing::error!(error = text, status = status.as_u16(), "request failed in a framework layer");
        return Problem::new(
            status,
            "/problems/internal",
            "internal error",
            "the service failed to process the request",
        );
    }
    let title = status.canonical_reason().unwrap_or("refused");
    let detail = if text.is_empty() { title.to_owned() } else { text };
    match status {
        StatusCode::BAD_REQUEST => Problem::bad_request(detail),
        StatusCode::UNAUTHORIZED => Problem::unauthorized(detail),
        StatusCode::FORBIDDEN => Problem::forbidden(detail),
        StatusCode::NOT_FOUND => Problem::not_found(detail),
        StatusCode::METHOD_NOT_ALLOWED => Problem::method_not_allowed(detail),
        StatusCode::CONFLICT => Problem::conflict(detail),
        StatusCode::PRECONDITION_FAILED => Problem::stale(detail),
        StatusCode::PAYLOAD_TOO_LARGE => Problem::payload_too_large(detail),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => Problem::unsupported_media_type(detail),
        StatusCode::UNPROCESSABLE_ENTITY => Problem::unprocessable(detail),
        StatusCode::TOO_MANY_REQUESTS => Problem::too_many_requests(detail),
        // RFC 9457: `about:blank` adds nothing to the status.
        other => Problem::new(other, "about:blank", title, detail),
    }
}
