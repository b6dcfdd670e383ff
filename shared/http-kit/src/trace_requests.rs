//! The span and the metrics of every request.

use std::time::Instant;

use axum::{
    extract::{MatchedPath, Request},
    http::{HeaderValue, Method},
    middleware::Next,
    response::Response,
};
use tracing::{Instrument, Span, field};
use uuid::Uuid;

use crate::trace_context::{REQUEST_TRACE_ID, trace_id_in, trace_id_of, with_parent};

/// Middleware that opens a span for each request, as a child of its `traceparent`, and records `http_requests_total` and
/// `http_request_duration_seconds`. It must be the outermost layer, so that the problems of other layers have the trace id.
pub async fn trace_requests(request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = known_method(request.method());
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let traceparent = request.headers().get("traceparent").and_then(|value| HeaderValue::to_str(value).ok());
    let span = request_span(method, route.as_deref(), request.uri().path(), traceparent);
    let trace_id = trace_id_of(&span)
        .or_else(|| traceparent.and_then(trace_id_in))
        .unwrap_or_else(|| Uuid::new_v4().simple().to_string());
    span.record("trace_id", trace_id.as_str());

    let response = REQUEST_TRACE_ID.scope(trace_id, next.run(request)).instrument(span.clone()).await;

    let (status, elapsed) = (response.status(), started.elapsed());
    span.record("http.response.status_code", status.as_u16());
    if status.is_server_error() {
        span.record("otel.status_code", "ERROR");
    }
    let ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
    span.in_scope(|| tracing::debug!(status = status.as_u16(), ms, "request processed"));
    // Clients choose unmatched paths, and each one would become a time series.
    let route = route.unwrap_or_else(|| "unmatched".to_owned());
    metrics::counter!("http_requests_total", "method" => method, "route" => route.clone(), "status" => status.as_str().to_owned())
        .increment(1);
    metrics::histogram!("http_request_duration_seconds", "method" => method, "route" => route).record(elapsed);
    response
}

fn request_span(method: &'static str, route: Option<&str>, path: &str, traceparent: Option<&str>) -> Span {
    let name = route.map_or_else(|| method.to_owned(), |route| format!("{method} {route}"));
    // At the error level, so that log lines of every level have the trace id.
    let span = tracing::error_span!(
        "request",
        otel.name = name,
        otel.kind = "server",
        otel.status_code = field::Empty,
        http.request.method = method,
        http.route = route,
        http.response.status_code = field::Empty,
        url.path = path,
        trace_id = field::Empty,
    );
    match traceparent {
        Some(traceparent) => with_parent(span, traceparent),
        None => span,
    }
}

fn known_method(method: &Method) -> &'static str {
    const KNOWN: [Method; 7] =
        [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::HEAD, Method::OPTIONS];
    const NAMES: [&str; 7] = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"];
    KNOWN.iter().position(|known| known == method).map_or("OTHER", |index| NAMES[index])
}
