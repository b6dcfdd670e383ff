//! No error leaves in plain text.
//!
//! The problem: the framework and its layers answer some requests themselves (no such route, no such method, an extractor
//! of their own), with plain text or nothing.
//!
//! The invariant: behind [`errors_as_problems`] every 4xx and 5xx has a body that says so in a declared format; what had
//! none becomes a [`Problem`], and its other headers (`Allow`, …) stay.

use axum::{
    body::{Body, to_bytes},
    extract::{OriginalUri, Request},
    http::{HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use crate::problem::{MEDIA_TYPE, Problem};

/// Longer plain texts are not taken for a sentence.
const MAX_TEXT_BYTES: usize = 4 * 1024;

/// Answers what no route matches.
pub async fn not_found(OriginalUri(uri): OriginalUri) -> Problem {
    Problem::not_found(format!("there is nothing at {}", uri.path()))
}

/// Answers a method its route doesn't have; the framework adds `Allow`.
pub async fn method_not_allowed(method: Method, OriginalUri(uri): OriginalUri) -> Problem {
    Problem::method_not_allowed(format!("{} doesn't take {method}", uri.path()))
}

/// Middleware: gives every error without a declared format the one of a problem.
pub async fn errors_as_problems(request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    let status = response.status();
    if !(status.is_client_error() || status.is_server_error()) || has_format(&response) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let text = to_bytes(body, MAX_TEXT_BYTES).await.unwrap_or_default();
    let detail = String::from_utf8_lossy(&text).trim().to_owned();
    let (problem, body) = problem_for(status, detail).into_response().into_parts();
    for (name, value) in problem.headers {
        // What the layer below said about waiting or authenticating is better informed.
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

fn has_format(response: &Response<Body>) -> bool {
    let format = response.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    format.is_some_and(|format| !format.starts_with(b"text/plain"))
}

fn problem_for(status: StatusCode, text: String) -> Problem {
    if status == StatusCode::SERVICE_UNAVAILABLE {
        return Problem::unavailable("the request can't be answered now");
    }
    if status.is_server_error() {
        tracing::error!(error = text, status = status.as_u16(), "request failed in a layer of the framework");
        return Problem::new(status, "/problems/internal", "internal error", "something went wrong on our side");
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
        // RFC 9457: a kind that says no more than the status does.
        other => Problem::new(other, "about:blank", title, detail),
    }
}
